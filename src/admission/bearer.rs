//! Where a bearer may come from (RFC 6750 §2), and that nobody prints it.
//!
//! | source | form | note |
//! | --- | --- | --- |
//! | query | `?token=<bearer>` | the one a browser can always set; the name is configurable |
//! | header | `Authorization: Bearer <bearer>` | for clients that are no browsers |
//! | subprotocol | `Sec-WebSocket-Protocol: bearer, <bearer>` | the other one a browser can set: `new WebSocket(url, ["bearer", token])`; keeps the bearer out of URLs and so out of access logs |
//! | cookie | `Cookie: <name>=<bearer>` | only where the origin was matched: a browser sends it for any page |
//!
//! Sources are asked in a configured order, and the first that holds anything decides: a bearer that is
//! empty or malformed there is refused, and no later source is asked. Otherwise one request would have
//! two readings, and a proxy that checks the first would pass what we take from the second.
//!
//! Left to others: what the bearer says (`admission::jwt`), the origin (`admission::origin`).

use std::borrow::Cow;
use std::fmt;

use crate::http::head::Head;
use crate::http::query;
use crate::ws::upgrade::Upgrade;

/// A bearer as the client sent it, percent-decoded once if it came in the query. Not empty, at most
/// [`Bearer::BYTES_MAX`] long, of the characters RFC 6750 §2.1 gives a `b64token`.
///
/// It cannot be printed: there is no `Display`, and `Debug` shows that there is one and no more. Who
/// needs the text asks for it by name, with [`Bearer::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct Bearer<'a>(Cow<'a, str>);

impl<'a> Bearer<'a> {
    /// Longest bearer in bytes. A longer one is refused before anything in it is looked at.
    pub const BYTES_MAX: usize = 8 * 1024;

    /// The text itself. To be verified, and not to be kept, logged, or put into an error.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    fn check(text: Cow<'a, str>) -> Result<Self, BearerError> {
        if text.is_empty() {
            return Err(BearerError::Empty);
        }
        if text.len() > Self::BYTES_MAX {
            return Err(BearerError::TooLong);
        }
        if text.bytes().all(|byte| byte.is_ascii_whitespace()) {
            return Err(BearerError::Blank);
        }
        let is_b64token = |byte: u8| {
            byte.is_ascii_alphanumeric()
                || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=')
        };
        if !text.bytes().all(is_b64token) {
            return Err(BearerError::Malformed);
        }
        Ok(Self(text))
    }
}

impl fmt::Debug for Bearer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer(redacted)")
    }
}

/// A place in the request that may hold a bearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A parameter of the query.
    Query,
    /// `Authorization: Bearer`.
    Header,
    /// The subprotocol that follows [`SUBPROTOCOL`] in the client's list. Browsers fail a connection
    /// whose answer names none of the subprotocols they offered, so the answer is to name
    /// [`SUBPROTOCOL`] unless one of the route's own was chosen; never the bearer.
    Subprotocol,
    /// A cookie.
    Cookie,
}

/// The subprotocol that announces a bearer as the next one.
pub const SUBPROTOCOL: &str = "bearer";

/// Which sources are asked, in which order, and by which names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// The sources, the first to be asked first. Default: query, then header.
    pub order: Vec<Source>,
    /// The query parameter. Default `token`. Compared after percent-decoding, with case.
    pub query_parameter: String,
    /// The cookie. Default `token`. Compared with case (RFC 6265 §4.2).
    pub cookie_name: String,
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            order: vec![Source::Query, Source::Header],
            query_parameter: "token".into(),
            cookie_name: "token".into(),
        }
    }
}

impl Sources {
    /// Finds the request's bearer. `origin_matched` says that the request has an `Origin` and that it
    /// is on the route's list: without it, cookies do not count. Linear in the head; allocates only
    /// where the query holds escapes.
    ///
    /// # Errors
    /// What is wrong with the first source that holds anything, or [`BearerError::Missing`].
    pub fn find<'a>(
        &self,
        upgrade: &Upgrade<'a>,
        origin_matched: bool,
    ) -> Result<(Source, Bearer<'a>), BearerError> {
        for &source in &self.order {
            let found = match source {
                Source::Query => from_query(upgrade.head().query(), &self.query_parameter)?,
                Source::Header => authorization(upgrade.head())?,
                Source::Subprotocol => from_subprotocols(upgrade)?,
                Source::Cookie => match from_cookies(upgrade.head(), &self.cookie_name)? {
                    Some(_) if !origin_matched => return Err(BearerError::CookieOffOrigin),
                    found => found,
                },
            };
            if let Some(bearer) = found {
                return Ok((source, bearer));
            }
        }
        Err(BearerError::Missing)
    }
}

/// The bearer of the `Authorization` header (RFC 6750 §2.1), if there is such a header. The scheme is
/// compared without case (RFC 9110 §11.1).
///
/// # Errors
/// [`BearerError::Scheme`] for any other scheme, and what may be wrong with a bearer.
pub fn authorization<'a>(head: &Head<'a>) -> Result<Option<Bearer<'a>>, BearerError> {
    // A second header of this name was refused with the head.
    let Some(value) = head.header("authorization") else {
        return Ok(None);
    };
    let (scheme, credentials) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(BearerError::Scheme);
    }
    Bearer::check(Cow::Borrowed(credentials.trim_start_matches(' '))).map(Some)
}

fn from_query<'a>(
    query: Option<&'a str>,
    parameter: &str,
) -> Result<Option<Bearer<'a>>, BearerError> {
    let mut found = None;
    for pair in query.into_iter().flat_map(query::pairs) {
        let (name, value) = pair.map_err(|query::InvalidEscape| BearerError::Escape)?;
        if name == parameter && found.replace(value).is_some() {
            return Err(BearerError::Repeated);
        }
    }
    found.map(Bearer::check).transpose()
}

fn from_subprotocols<'a>(upgrade: &Upgrade<'a>) -> Result<Option<Bearer<'a>>, BearerError> {
    // That no two members are alike was checked with the upgrade: there is one announcement at most.
    let mut members = upgrade.protocols().skip_while(|name| *name != SUBPROTOCOL);
    if members.next().is_none() {
        return Ok(None);
    }
    let bearer = members.next().unwrap_or_default();
    Bearer::check(Cow::Borrowed(bearer)).map(Some)
}

fn from_cookies<'a>(head: &Head<'a>, name: &str) -> Result<Option<Bearer<'a>>, BearerError> {
    let mut found = None;
    let pairs = head.headers("cookie").flat_map(|line| line.split(';'));
    for pair in pairs.filter_map(|pair| pair.split_once('=')) {
        let (own, value) = (pair.0.trim_ascii(), pair.1.trim_ascii());
        // Two cookies of a name differ in path or domain, which the header does not show: a
        // subdomain can plant the second (RFC 6265 §8.6).
        if own == name && found.replace(value).is_some() {
            return Err(BearerError::Repeated);
        }
    }
    found
        .map(|value| Bearer::check(Cow::Borrowed(value)))
        .transpose()
}

/// Why a request has no usable bearer. No variant carries a byte the peer sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BearerError {
    /// No source holds one.
    Missing,
    /// There is a place for one, with nothing in it.
    Empty,
    /// White space only.
    Blank,
    /// Longer than [`Bearer::BYTES_MAX`].
    TooLong,
    /// Characters that no bearer has, such as a space in the middle (RFC 6750 §2.1).
    Malformed,
    /// `Authorization` with another scheme than `Bearer`, or with none.
    Scheme,
    /// Several of the name, in the query or among the cookies.
    Repeated,
    /// A query with an invalid percent escape.
    Escape,
    /// A cookie, on a request whose origin was not matched.
    CookieOffOrigin,
}

impl BearerError {
    /// Every label there is, in the order of the variants: for a metric that starts at zero.
    pub const LABELS: [&str; 9] = [
        "bearer_missing",
        "bearer_empty",
        "bearer_blank",
        "bearer_too_long",
        "bearer_malformed",
        "bearer_scheme",
        "bearer_repeated",
        "bearer_escape",
        "bearer_cookie_off_origin",
    ];

    /// The reason as a metric's label, one of [`BearerError::LABELS`].
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Missing => "bearer_missing",
            Self::Empty => "bearer_empty",
            Self::Blank => "bearer_blank",
            Self::TooLong => "bearer_too_long",
            Self::Malformed => "bearer_malformed",
            Self::Scheme => "bearer_scheme",
            Self::Repeated => "bearer_repeated",
            Self::Escape => "bearer_escape",
            Self::CookieOffOrigin => "bearer_cookie_off_origin",
        }
    }

    /// One line for the log and for the body of the refusal.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Missing => "no token",
            Self::Empty => "the token is empty",
            Self::Blank => "the token is blank",
            Self::TooLong => "the token is longer than 8 KiB",
            Self::Malformed => "the token holds characters that no bearer token has",
            Self::Scheme => "the Authorization header does not begin with the word Bearer",
            Self::Repeated => "more than one token",
            Self::Escape => "the query holds an invalid percent escape",
            Self::CookieOffOrigin => "a token in a cookie counts only with a matching Origin",
        }
    }
}

impl fmt::Display for BearerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for BearerError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::head::{HeadReader, Limits, Progress};

    /// Asks `sources` for the bearer of a request with this target and these header lines.
    fn find_by(
        sources: &Sources,
        target: &str,
        lines: &[&str],
        origin_matched: bool,
    ) -> Result<(Source, String), BearerError> {
        let mut text = format!(
            "GET {target} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        );
        for line in lines {
            text.push_str(line);
            text.push_str("\r\n");
        }
        text.push_str("\r\n");
        let limits = Limits {
            head_bytes_max: 64 * 1024,
            target_bytes_max: 32 * 1024,
            ..Limits::default()
        };
        let mut reader = HeadReader::new();
        let Ok(Progress::Complete { head, .. }) = reader.receive(text.as_bytes(), &limits) else {
            panic!("not a head: {text}")
        };
        let upgrade = Upgrade::check(&head).unwrap();
        let (source, bearer) = sources.find(&upgrade, origin_matched)?;
        Ok((source, bearer.expose().to_owned()))
    }

    fn find(target: &str, lines: &[&str]) -> Result<(Source, String), BearerError> {
        find_by(&Sources::default(), target, lines, true)
    }

    #[test]
    fn what_the_original_accepts_is_found() {
        for (target, lines, source, bearer) in [
            ("/?token=a.b.c", &[][..], Source::Query, "a.b.c"),
            // Beside other parameters, in any place.
            ("/?x=1&token=a.b.c&y=2", &[], Source::Query, "a.b.c"),
            // Percent-encoded, once.
            ("/?token=a%2Eb%2Ec", &[], Source::Query, "a.b.c"),
            ("/?%74oken=a.b.c", &[], Source::Query, "a.b.c"),
            (
                "/",
                &["Authorization: Bearer a.b.c"],
                Source::Header,
                "a.b.c",
            ),
            (
                "/",
                &["authorization: bEaReR   a.b.c"],
                Source::Header,
                "a.b.c",
            ),
            // The query wins over a different header, also over one that would be refused.
            (
                "/?token=q.q.q",
                &["Authorization: Bearer h.h.h"],
                Source::Query,
                "q.q.q",
            ),
            (
                "/?token=q.q.q",
                &["Authorization: Basic eDp5"],
                Source::Query,
                "q.q.q",
            ),
            // Names are compared with case: this one is no token.
            (
                "/?Token=q.q.q",
                &["Authorization: Bearer h.h.h"],
                Source::Header,
                "h.h.h",
            ),
        ] {
            assert_eq!(
                find(target, lines),
                Ok((source, bearer.into())),
                "{target} {lines:?}"
            );
        }
    }

    #[test]
    fn what_the_original_refuses_is_refused_by_its_reason() {
        use BearerError as E;
        let long = format!("/?token={}", "a".repeat(Bearer::BYTES_MAX + 1));
        for (target, lines, expected) in [
            ("/", &[][..], E::Missing),
            ("/?x=1", &[], E::Missing),
            ("/?token=", &[], E::Empty),
            ("/?token", &[], E::Empty),
            // A source that holds anything decides, here against a good header.
            ("/?token=", &["Authorization: Bearer a.b.c"], E::Empty),
            ("/?token=%20", &[], E::Blank),
            ("/?token=+%09+", &[], E::Blank),
            ("/?token=a.b%20.c", &[], E::Malformed),
            ("/?token=a.b.c%00", &[], E::Malformed),
            ("/?token=a.b.c%C3%A9", &[], E::Malformed),
            // Once: the second layer of escapes is data, and no bearer holds a percent sign.
            ("/?token=a%252Eb.c", &[], E::Malformed),
            ("/?token=a.b.c&token=a.b.c", &[], E::Repeated),
            ("/?token=a.b.c&%74oken=d.e.f", &[], E::Repeated),
            ("/?token=&token=a.b.c", &[], E::Repeated),
            ("/?token=a.b.c&x=%zz", &[], E::Escape),
            ("/?token=%", &["Authorization: Bearer a.b.c"], E::Escape),
            (&long, &[], E::TooLong),
            ("/", &["Authorization: a.b.c"], E::Scheme),
            ("/", &["Authorization: Basic a.b.c"], E::Scheme),
            ("/", &["Authorization: Bearera.b.c"], E::Scheme),
            ("/", &["Authorization: Token a.b.c"], E::Scheme),
            ("/", &["Authorization:"], E::Scheme),
            ("/", &["Authorization: \u{e9} a.b.c"], E::Scheme),
            ("/", &["Authorization: Bearer"], E::Empty),
            ("/", &["Authorization: Bearer   "], E::Empty),
            ("/", &["Authorization: Bearer a.b.c d"], E::Malformed),
            ("/", &["Authorization: Bearer Bearer a.b.c"], E::Malformed),
            ("/", &["Authorization: Bearer \"a.b.c\""], E::Malformed),
            ("/", &["Authorization: Bearer a.b.c,"], E::Malformed),
            // A tab is not the space between scheme and credentials.
            ("/", &["Authorization: Bearer\ta.b.c"], E::Scheme),
        ] {
            assert_eq!(find(target, lines), Err(expected), "{target} {lines:?}");
        }
    }

    #[test]
    fn the_longest_bearer_is_found() {
        let longest = "a".repeat(Bearer::BYTES_MAX);
        let target = format!("/?token={longest}");
        assert_eq!(find(&target, &[]), Ok((Source::Query, longest)));
    }

    #[test]
    fn sources_are_asked_in_the_configured_order() {
        let lines = [
            "Authorization: Bearer h",
            "Sec-WebSocket-Protocol: chat, bearer, p",
            "Cookie: token=c",
        ];
        use Source::{Cookie, Header, Query, Subprotocol};
        for (order, expected) in [
            (vec![Query, Header], (Query, "q")),
            (vec![Header, Query], (Header, "h")),
            (vec![Subprotocol, Query], (Subprotocol, "p")),
            (vec![Cookie, Query], (Cookie, "c")),
        ] {
            let sources = Sources {
                order,
                ..Sources::default()
            };
            let found = find_by(&sources, "/?token=q", &lines, true);
            assert_eq!(found, Ok((expected.0, expected.1.into())));
        }
        let none = Sources {
            order: Vec::new(),
            ..Sources::default()
        };
        let found = find_by(&none, "/?token=q", &lines, true);
        assert_eq!(found, Err(BearerError::Missing));
    }

    #[test]
    fn names_are_configurable() {
        let sources = Sources {
            order: vec![Source::Query, Source::Cookie],
            query_parameter: "access_token".into(),
            cookie_name: "__Host-session".into(),
        };
        let found = find_by(&sources, "/?token=x&access_token=q", &[], false);
        assert_eq!(found, Ok((Source::Query, "q".into())));
        let lines = ["Cookie: token=x; __Host-session=c"];
        let found = find_by(&sources, "/", &lines, true);
        assert_eq!(found, Ok((Source::Cookie, "c".into())));
    }

    #[test]
    fn a_subprotocol_follows_the_word_bearer() {
        let sources = Sources {
            order: vec![Source::Subprotocol],
            ..Sources::default()
        };
        for (line, expected) in [
            ("bearer, a.b.c", Ok("a.b.c")),
            ("bearer,a.b.c,chat", Ok("a.b.c")),
            ("chat, bearer, a.b.c", Ok("a.b.c")),
            ("chat, a.b.c", Err(BearerError::Missing)),
            ("Bearer, a.b.c", Err(BearerError::Missing)),
            ("a.b.c, bearer", Err(BearerError::Empty)),
            ("bearer", Err(BearerError::Empty)),
            // A token character (RFC 9110 §5.6.2), but none of a bearer.
            ("bearer, a.b.c!", Err(BearerError::Malformed)),
        ] {
            let header = format!("Sec-WebSocket-Protocol: {line}");
            let found = find_by(&sources, "/", &[&header], false).map(|(_, bearer)| bearer);
            assert_eq!(found, expected.map(str::to_owned), "{line}");
        }
    }

    #[test]
    fn c4_a_cookie_counts_only_with_a_matching_origin() {
        let sources = Sources {
            order: vec![Source::Cookie, Source::Query],
            ..Sources::default()
        };
        for (lines, origin_matched, expected) in [
            (&["Cookie: token=c"][..], true, Ok("c")),
            (
                &["Cookie: token=c"],
                false,
                Err(BearerError::CookieOffOrigin),
            ),
            (&["Cookie: a=1; token=c; b=2"], true, Ok("c")),
            (&["Cookie: a=1", "Cookie: token=c"], true, Ok("c")),
            (
                &["Cookie: token=c; token=d"],
                true,
                Err(BearerError::Repeated),
            ),
            (
                &["Cookie: token=c", "Cookie: token=c"],
                true,
                Err(BearerError::Repeated),
            ),
            (
                &["Cookie: token=c; token=d"],
                false,
                Err(BearerError::Repeated),
            ),
            (&["Cookie: token="], true, Err(BearerError::Empty)),
            (&["Cookie: token=\"c\""], true, Err(BearerError::Malformed)),
            (
                &["Cookie: Token=c; xtoken=d; token"],
                true,
                Err(BearerError::Missing),
            ),
        ] {
            let found = find_by(&sources, "/", lines, origin_matched).map(|(_, bearer)| bearer);
            assert_eq!(
                found,
                expected.map(str::to_owned),
                "{lines:?} {origin_matched}"
            );
        }
        // Off by default.
        assert_eq!(find("/", &["Cookie: token=c"]), Err(BearerError::Missing));
    }

    #[test]
    fn d9_a_bearer_is_not_printed() {
        let bearer = Bearer::check("canary-7f3a".into()).unwrap();
        assert_eq!(
            format!("{bearer:?} {:?}", Some(&bearer))
                .matches("canary")
                .count(),
            0
        );
        assert_eq!(bearer.expose(), "canary-7f3a");
        for error in [
            BearerError::Malformed,
            BearerError::TooLong,
            BearerError::Repeated,
        ] {
            assert!(!error.to_string().contains("canary"));
        }
    }

    #[test]
    fn labels_are_unique() {
        assert_eq!(
            BearerError::CookieOffOrigin.label(),
            "bearer_cookie_off_origin"
        );
        let mut labels = BearerError::LABELS;
        labels.sort_unstable();
        assert!(labels.windows(2).all(|pair| pair[0] != pair[1]));
    }

    proptest! {
        /// Whatever the query, what is found is a bearer that decodes from it, or a refusal.
        #[test]
        fn any_query_is_read_or_refused(query in "[ -\"$-~]{0,64}") {
            let target = query.replace(' ', "+");
            if let Ok(Some(bearer)) = from_query(Some(&target), "token") {
                prop_assert!(!bearer.expose().is_empty());
                prop_assert!(!bearer.expose().contains([' ', '%', '&']));
            }
        }

        /// What `URLSearchParams` would write is read back.
        #[test]
        fn an_escaped_bearer_is_read_back(bearer in "[A-Za-z0-9._~+/=-]{1,80}", all in any::<bool>()) {
            let escaped: String = bearer
                .bytes()
                .map(|byte| if all || !byte.is_ascii_alphanumeric() {
                    format!("%{byte:02X}")
                } else {
                    char::from(byte).to_string()
                })
                .collect();
            let query = format!("a=1&token={escaped}&b=2");
            let found = from_query(Some(&query), "token").unwrap().unwrap();
            prop_assert_eq!(found.expose(), bearer);
        }
    }
}
