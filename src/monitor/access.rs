//! Who may ask: the host that is asked for, the administrators' token, pages of other sites, and how often.
//!
//! The checks come in an order in which none tells a stranger anything: a wrong host is told so, then a
//! token is looked at, then what is asked for. Who has no token, or a wrong one, spends from an account of
//! its own, and so does who asks for the dashboard's files, which are for everybody: neither keeps
//! administrators out.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{self, SHA256};

use super::answer::Problem;
use crate::admission::rate::{Bucket, Moment, Quota, QuotaError, Wait};
use crate::http::exchange::Request;

/// The administrators' token: not the token itself but its digest, so that nothing here could show it, and
/// comparing takes as long for every guess (D11).
#[derive(Clone)]
pub struct Token([u8; 32]);

impl Token {
    /// The token with this text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(sha256(text))
    }

    /// Whether this is it. Takes time by the length of what is given, and by nothing else.
    #[must_use]
    pub fn matches(&self, given: &str) -> bool {
        verify_slices_are_equal(&self.0, &sha256(given)).is_ok()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

fn sha256(text: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&SHA256, text.as_bytes()).as_ref());
    bytes
}

/// The rules of access, and what has been spent.
#[derive(Debug, Clone)]
pub(super) struct Access {
    token: Option<Token>,
    hosts: Vec<String>,
    quota: Quota,
    bucket: Bucket,
    /// Of the same quota: what is for everybody takes no permit of who has the token.
    pages: Bucket,
    failures_quota: Quota,
    failures: Bucket,
}

/// Requests with no token or a wrong one, in a second; as many at once.
const FAILURES_PER_SECOND: u64 = 10;

impl Access {
    /// # Errors
    /// No request is allowed in a second.
    pub(super) fn new(
        token: Option<Token>,
        hosts: Vec<String>,
        requests_per_second: u32,
    ) -> Result<Self, QuotaError> {
        const SECOND: Duration = Duration::from_secs(1);
        let rate = u64::from(requests_per_second);
        Ok(Self {
            token,
            hosts,
            quota: Quota::new(rate, SECOND, 2 * rate)?,
            bucket: Bucket::default(),
            pages: Bucket::default(),
            failures_quota: Quota::new(FAILURES_PER_SECOND, SECOND, FAILURES_PER_SECOND)?,
            failures: Bucket::default(),
        })
    }

    /// Whether there is a token, and so whoever has not shown it is a stranger.
    pub(super) const fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether the request is for a host that is here. A browser that was made to believe that another
    /// site's name means this address (C5) asks for that name; it cannot ask for an address in its place.
    ///
    /// # Errors
    /// 421.
    pub(super) fn check_host(&self, request: &Request<'_>) -> Result<(), Problem> {
        // Only HTTP/1.0 comes without, and no browser speaks that.
        let Some(host) = request.host() else {
            return Ok(());
        };
        let name = match host.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => name,
            _ => host,
        };
        let address = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'));
        let is_address = IpAddr::from_str(address.unwrap_or(name)).is_ok();
        let is_listed = || self.hosts.iter().any(|own| own.eq_ignore_ascii_case(name));
        if is_address || name.eq_ignore_ascii_case("localhost") || is_listed() {
            Ok(())
        } else {
            Err(Problem::new(
                421,
                "this host is not served here; see monitor.hosts",
            ))
        }
    }

    /// Whether the token is right, and there is a permit left.
    ///
    /// # Errors
    /// 401, or 429.
    pub(super) fn check_token(
        &mut self,
        request: &Request<'_>,
        now: Moment,
    ) -> Result<(), Problem> {
        if let Some(token) = &self.token {
            let given = request.header("authorization").and_then(bearer);
            if !given.is_some_and(|given| token.matches(given)) {
                self.failures
                    .spend(&self.failures_quota, 1, now)
                    .map_err(too_often)?;
                return Err(Problem::new(401, "the administrators' token is needed"));
            }
        }
        self.bucket.spend(&self.quota, 1, now).map_err(too_often)
    }

    /// Whether there is a permit left for a file that everybody may have.
    ///
    /// # Errors
    /// 429.
    pub(super) fn check_page_rate(&mut self, now: Moment) -> Result<(), Problem> {
        self.pages.spend(&self.quota, 1, now).map_err(too_often)
    }

    /// Whether a request that changes something comes from who means it: not from a form, an image or a
    /// frame of another site (H6).
    ///
    /// # Errors
    /// 403, or 415.
    pub(super) fn check_intent(request: &Request<'_>) -> Result<(), Problem> {
        let site = request.header("sec-fetch-site");
        let is_foreign_site = site.is_some_and(|site| !["same-origin", "none"].contains(&site));
        // A browser that does not say the one says the other.
        let is_foreign_origin = request.header("origin").is_some_and(|origin| {
            let authority = origin.split_once("://").map(|(_, authority)| authority);
            authority.is_none() || authority != request.host()
        });
        if is_foreign_site || is_foreign_origin {
            return Err(Problem::new(
                403,
                "pages of other sites change nothing here",
            ));
        }
        // A form cannot say this, and a script of another site would have to ask first.
        if !request.is_of_type("application/json") {
            return Err(Problem::new(
                415,
                "send JSON, as Content-Type: application/json",
            ));
        }
        Ok(())
    }
}

/// What stands behind `Bearer`, whose case does not matter (RFC 9110 §11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim_ascii())
}

fn too_often(wait: Wait) -> Problem {
    Problem {
        retry_after: Some(wait.0),
        ..Problem::new(429, "too many requests")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::exchange::{Exchange, Limits};

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    /// What `check` says of a request with these header lines.
    fn judged(lines: &str, check: impl Fn(&Request<'_>) -> Result<(), Problem>) -> Option<u16> {
        let text = format!("POST / HTTP/1.1\r\n{lines}\r\n");
        let mut verdict = None;
        let mut out = Vec::new();
        let _ = Exchange::new().receive(
            text.as_bytes(),
            &Limits::default(),
            None,
            &mut out,
            &mut |request, _| verdict = Some(check(request)),
        );
        verdict
            .expect("a whole request")
            .err()
            .map(|problem| problem.status)
    }

    fn access(hosts: &[&str]) -> Access {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        Access::new(Some(Token::new(TOKEN)), hosts, 5).unwrap()
    }

    #[test]
    fn c5_addresses_and_listed_names_are_served_and_no_others() {
        let access = access(&["monitor.example.com"]);
        for (host, status) in [
            ("localhost", None),
            ("LOCALHOST:9480", None),
            ("127.0.0.1:9480", None),
            ("192.0.2.7", None),
            ("[::1]:9480", None),
            ("[2001:db8::1]", None),
            ("monitor.example.com:9480", None),
            ("Monitor.Example.COM", None),
            ("example.com", Some(421)),
            ("localhost.example.com:9480", Some(421)),
            ("127.0.0.1.example.com", Some(421)),
            ("xmonitor.example.com", Some(421)),
        ] {
            let found = judged(&format!("Host: {host}\r\n"), |request| {
                access.check_host(request)
            });
            assert_eq!(found, status, "{host}");
        }
    }

    #[test]
    fn only_the_token_opens_and_guesses_have_an_account_of_their_own() {
        let access = std::cell::RefCell::new(access(&[]));
        let now = Moment::default();
        let ask = |header: &str| {
            judged(&format!("Host: a\r\n{header}"), |request| {
                access.borrow_mut().check_token(request, now)
            })
        };
        for wrong in [
            String::new(),
            format!("Authorization: {TOKEN}\r\n"),
            format!("Authorization: Basic {TOKEN}\r\n"),
            "Authorization: Bearer \r\n".to_owned(),
            format!("Authorization: Bearer {}\r\n", &TOKEN[1..]),
            format!("Authorization: Bearer {TOKEN}0\r\n"),
        ] {
            assert_eq!(ask(&wrong), Some(401), "{wrong}");
        }
        let right = format!("Authorization: bearer {TOKEN}\r\n");
        for wrong in 0..FAILURES_PER_SECOND - 6 {
            assert_eq!(ask(""), Some(401), "{wrong}");
        }
        assert_eq!(ask(""), Some(429), "guessing is over for now");
        for _ in 0..10 {
            assert_eq!(ask(&right), None, "and who knows the token is not kept out");
        }
        assert_eq!(ask(&right), Some(429));
    }

    #[test]
    fn h6_what_another_sites_page_can_send_changes_nothing() {
        let json = "Host: localhost:9480\r\nContent-Type: application/json\r\n";
        for (lines, status) in [
            ("", None),
            ("Sec-Fetch-Site: same-origin\r\n", None),
            ("Sec-Fetch-Site: none\r\n", None),
            ("Sec-Fetch-Site: cross-site\r\n", Some(403)),
            ("Sec-Fetch-Site: same-site\r\n", Some(403)),
            ("Origin: http://localhost:9480\r\n", None),
            ("Origin: http://localhost:9481\r\n", Some(403)),
            ("Origin: null\r\n", Some(403)),
            ("Origin: https://example.com\r\n", Some(403)),
        ] {
            let found = judged(&format!("{json}{lines}"), Access::check_intent);
            assert_eq!(found, status, "{lines}");
        }
        for form in [
            "",
            "Content-Type: text/plain\r\n",
            "Content-Type: application/x-www-form-urlencoded\r\n",
            "Content-Type: multipart/form-data; boundary=application/json\r\n",
        ] {
            let lines = format!("Host: localhost\r\n{form}");
            assert_eq!(judged(&lines, Access::check_intent), Some(415), "{form}");
        }
    }

    #[test]
    fn h3_a_token_is_not_shown() {
        assert_eq!(format!("{:?}", Token::new(TOKEN)), "Token(redacted)");
        assert!(!format!("{:?}", access(&[])).contains("0123456789"));
    }
}
