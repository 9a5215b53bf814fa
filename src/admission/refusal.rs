//! Why somebody was not let in: one value for all stages of the way in, counted by stage and reason
//! from a closed set, and told in words that a program can read.
//!
//! A refusal says nothing that the client sent, and nothing about anybody else.

use std::fmt;
use std::time::Duration;

use super::bearer::BearerError;
use super::jwt::TokenError;
use super::limits::{Limit, Refused};
use super::origin::OriginRefused;
use super::proxy_protocol::ProxyError;
use crate::http::head::HeadError;
use crate::http::response;
use crate::tls::TlsError;
use crate::ws::upgrade::UpgradeError;

/// Where on the way in somebody was refused, in the order of the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Accept: limits of the server and of the peer's address, before any cryptography.
    Accept,
    /// The PROXY header.
    Proxy,
    /// The TLS handshake.
    Tls,
    /// The request head.
    Head,
    /// The opening handshake (RFC 6455 §4.2).
    Upgrade,
    /// The path.
    Route,
    /// Limits of the client's address, where a proxy had to say it.
    Address,
    /// The page that asks.
    Origin,
    /// The token.
    Token,
    /// The route's rule over the token's claims.
    Rule,
    /// Limits of the user.
    User,
}

impl Stage {
    /// All of them, in the order of the way in.
    pub const ALL: [Self; 11] = [
        Self::Accept,
        Self::Proxy,
        Self::Tls,
        Self::Head,
        Self::Upgrade,
        Self::Route,
        Self::Address,
        Self::Origin,
        Self::Token,
        Self::Rule,
        Self::User,
    ];

    /// The stage as a metric's label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Proxy => "proxy",
            Self::Tls => "tls",
            Self::Head => "head",
            Self::Upgrade => "upgrade",
            Self::Route => "route",
            Self::Address => "address",
            Self::Origin => "origin",
            Self::Token => "token",
            Self::Rule => "rule",
            Self::User => "user",
        }
    }
}

/// Why a candidate is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A limit was reached, found at this stage: [`Stage::Accept`], [`Stage::Address`] or
    /// [`Stage::User`].
    Limit(Stage, Refused),
    /// The PROXY header is wrong.
    Proxy(ProxyError),
    /// A PROXY header is demanded, and the peer is none of the trusted proxies.
    UntrustedProxy,
    /// The TLS handshake failed.
    Tls(TlsError),
    /// This stage was not done in time.
    Timeout(Stage),
    /// Too many were in this stage, and this one had been for the longest time.
    Evicted(Stage),
    /// More came than the server has time for, and this one had waited for longest.
    Shed(Stage),
    /// The request head is malformed.
    Head(HeadError),
    /// Not a WebSocket request, or not a correct one.
    Upgrade(UpgradeError),
    /// The offer of extensions is malformed.
    Extensions,
    /// `Host` names none of the hosts that are served (DNS rebinding, C5).
    Host,
    /// The server is shutting down.
    ShuttingDown,
    /// No route has this path.
    NotFound,
    /// The page that asks may not.
    Origin(OriginRefused),
    /// There is no usable token.
    Bearer(BearerError),
    /// The token is not good.
    Token(TokenError),
    /// The token is good, and has been revoked.
    Revoked,
    /// A token is demanded, and none can be judged: no keys are configured.
    NoKeys,
    /// The route's rule says no.
    Rule,
}

impl Refusal {
    /// Where on the way in.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        match self {
            Self::Limit(stage, _)
            | Self::Timeout(stage)
            | Self::Evicted(stage)
            | Self::Shed(stage) => *stage,
            Self::Proxy(_) | Self::UntrustedProxy => Stage::Proxy,
            Self::Tls(_) => Stage::Tls,
            Self::Head(_) => Stage::Head,
            Self::Upgrade(_) | Self::Extensions | Self::Host | Self::ShuttingDown => Stage::Upgrade,
            Self::NotFound => Stage::Route,
            Self::Origin(_) => Stage::Origin,
            Self::Bearer(_) | Self::Token(_) | Self::Revoked | Self::NoKeys => Stage::Token,
            Self::Rule => Stage::Rule,
        }
    }

    /// The reason as a metric's label and for programs: one of the stage's in [`REASONS`].
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Limit(_, refused) => refused.limit.name(),
            Self::Proxy(error) => error.label(),
            Self::UntrustedProxy => "untrusted",
            Self::Tls(error) => error.label(),
            Self::Timeout(_) => "timeout",
            Self::Evicted(_) => "evicted",
            Self::Shed(_) => "shed",
            Self::Head(error) => error.label(),
            Self::Upgrade(error) => error.label(),
            Self::Extensions => "extensions",
            Self::Host => "host",
            Self::ShuttingDown => "shutting_down",
            Self::NotFound => "not_found",
            Self::Origin(error) => error.label(),
            Self::Bearer(error) => error.label(),
            Self::Token(error) => error.label(),
            Self::Revoked => "token_revoked",
            Self::NoKeys => "no_keys",
            Self::Rule => "not_allowed",
        }
    }

    /// The place of stage and reason in tables of counters, below [`REFUSALS`]. O(reasons): a refusal
    /// is dearer than that.
    #[must_use]
    pub fn index(&self) -> usize {
        let (stage, reason) = (self.stage(), self.reason());
        let mut at = 0;
        for (known, groups) in REASONS {
            for label in groups.iter().copied().flatten() {
                if *known == stage && *label == reason {
                    return at;
                }
                at += 1;
            }
        }
        debug_assert!(false, "{stage:?} lists no {reason}");
        0
    }

    /// The status of the answer. Those that are only closed have one for the log's sake.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::Limit(_, refused) => match refused.limit {
                Limit::Connections | Limit::ApiConnections => 503,
                _ => 429,
            },
            Self::Proxy(_) | Self::UntrustedProxy | Self::Tls(_) | Self::Extensions => 400,
            Self::Timeout(_) => 408,
            Self::Evicted(_) | Self::Shed(_) | Self::ShuttingDown | Self::NoKeys => 503,
            Self::Head(error) => error.status(),
            Self::Upgrade(error) => error.status(),
            Self::Host => 421,
            Self::NotFound => 404,
            Self::Origin(_) | Self::Rule => 403,
            Self::Bearer(_) | Self::Token(_) | Self::Revoked => 401,
        }
    }

    /// When to come back, where that makes sense: never sooner than it would be of use.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match (self.status(), self) {
            (_, Self::Limit(_, refused)) => Some(refused.retry_after.unwrap_or(RETRY_AFTER)),
            (503, _) => Some(RETRY_AFTER),
            _ => None,
        }
    }

    /// Whether whoever sent this can read an answer in HTTP.
    #[must_use]
    pub const fn can_be_told(&self) -> bool {
        !matches!(
            self,
            Self::Proxy(_)
                | Self::UntrustedProxy
                | Self::Tls(_)
                | Self::Timeout(Stage::Tls | Stage::Proxy)
                | Self::Evicted(_)
                | Self::Shed(_)
                | Self::Head(HeadError::TlsOnPlainPort)
        )
    }

    /// Appends the answer: the status with the headers it needs, and one line of JSON
    /// (`{"status":…,"stage":…,"reason":…,"message":…}`).
    pub fn write_answer(&self, out: &mut Vec<u8>) {
        let retry_after = self
            .retry_after()
            .map(|wait| whole_seconds(wait).to_string());
        let mut headers: Vec<(&str, &str)> = Vec::new();
        if let Self::Upgrade(error) = self {
            headers.extend(error.headers());
        }
        if let Some(seconds) = &retry_after {
            headers.push(("Retry-After", seconds));
        }
        match self {
            // RFC 6750 §3: without a token no error is named.
            Self::Bearer(BearerError::Missing) => headers.push(("WWW-Authenticate", "Bearer")),
            Self::Bearer(_) | Self::Token(_) | Self::Revoked => {
                headers.push(("WWW-Authenticate", "Bearer error=\"invalid_token\""));
            }
            _ => {}
        }
        let body = format!(
            "{{\"status\":{},\"stage\":\"{}\",\"reason\":\"{}\",\"message\":{}}}",
            self.status(),
            self.stage().label(),
            self.reason(),
            // A claim's name comes from the configuration and may hold anything.
            serde_json::Value::from(self.to_string()),
        );
        response::write_refusal(out, self.status(), &headers, &body);
    }

    /// What a client is told that was let through the upgrade only to be told (`reject =
    /// "close-code"`): the code, and a reason of at most 123 bytes. `wait` is when to come back.
    #[must_use]
    pub fn close_frame(&self, wait: Option<Duration>) -> (u16, String) {
        let text = match wait {
            Some(wait) => format!("{}; retry after {} s", self.reason(), whole_seconds(wait)),
            None => self.reason().to_owned(),
        };
        (4000 + self.status(), text)
    }
}

/// What [`Refusal::retry_after`] says where nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Seconds, rounded up, at least one.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_millis()
        .div_ceil(1000)
        .max(1)
        .try_into()
        .unwrap_or(u64::MAX)
}

impl fmt::Display for Refusal {
    /// For the log and for the client.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit(_, refused) => f.write_str(match refused.limit {
                Limit::Connections => "the server is full",
                Limit::ApiConnections => "too many connections of backends",
                Limit::AddressConnections | Limit::SiteConnections | Limit::OverflowConnections => {
                    "too many connections from this address"
                }
                Limit::AddressAttempts | Limit::SiteAttempts | Limit::OverflowAttempts => {
                    "too many attempts from this address"
                }
                Limit::UserConnections => "too many connections of this user",
                Limit::Messages | Limit::Bytes | Limit::ControlFrames => "too much traffic",
            }),
            Self::Proxy(error) => error.fmt(f),
            Self::UntrustedProxy => f.write_str("not one of the trusted proxies"),
            Self::Tls(error) => error.fmt(f),
            Self::Timeout(_) => f.write_str("the request took too long"),
            Self::Evicted(_) => f.write_str("too many handshakes, and this one was slow"),
            Self::Shed(_) => f.write_str("too many handshakes, and newer ones go first"),
            Self::Head(error) => error.fmt(f),
            Self::Upgrade(error) => error.fmt(f),
            Self::Extensions => f.write_str("malformed Sec-WebSocket-Extensions"),
            Self::Host => f.write_str("this host is not served here"),
            Self::ShuttingDown => f.write_str("shutting down"),
            Self::NotFound => f.write_str("no such path"),
            Self::Origin(error) => error.fmt(f),
            Self::Bearer(error) => error.fmt(f),
            Self::Token(error) => error.fmt(f),
            Self::Revoked => f.write_str("the token has been revoked"),
            Self::NoKeys => f.write_str("tokens cannot be judged: no keys"),
            Self::Rule => f.write_str("not allowed here"),
        }
    }
}

const LIMITS: &[&str] = &[
    "connections",
    "address_connections",
    "address_attempts",
    "site_connections",
    "site_attempts",
    "overflow_connections",
    "overflow_attempts",
];

/// Every stage with its reasons, in the order of [`Refusal::index`]: a closed set, because they become
/// labels.
pub const REASONS: &[(Stage, &[&[&str]])] = &[
    (Stage::Accept, &[LIMITS, &["api_connections"]]),
    (
        Stage::Proxy,
        &[
            &ProxyError::LABELS,
            &["untrusted", "timeout", "evicted", "shed"],
        ],
    ),
    (
        Stage::Tls,
        &[&TlsError::LABELS, &["timeout", "evicted", "shed"]],
    ),
    (
        Stage::Head,
        &[&HeadError::LABELS, &["timeout", "evicted", "shed"]],
    ),
    (
        Stage::Upgrade,
        &[
            &UpgradeError::LABELS,
            &["extensions", "host", "shutting_down"],
        ],
    ),
    (Stage::Route, &[&["not_found"]]),
    (Stage::Address, &[LIMITS]),
    (Stage::Origin, &[&OriginRefused::LABELS]),
    (
        Stage::Token,
        &[
            &BearerError::LABELS,
            &TokenError::LABELS,
            &["token_revoked", "no_keys"],
        ],
    ),
    (Stage::Rule, &[&["not_allowed"]]),
    (Stage::User, &[&["user_connections"]]),
];

/// How many pairs of stage and reason there are.
pub const REFUSALS: usize = {
    let (mut count, mut stage) = (0, 0);
    while stage < REASONS.len() {
        let mut group = 0;
        while group < REASONS[stage].1.len() {
            count += REASONS[stage].1[group].len();
            group += 1;
        }
        stage += 1;
    }
    count
};

/// Every pair of stage and reason, in the order of [`Refusal::index`].
pub fn labels() -> impl Iterator<Item = (Stage, &'static str)> {
    REASONS.iter().flat_map(|(stage, groups)| {
        let labels = groups.iter().copied().flatten();
        labels.map(move |label| (*stage, *label))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::jwt::{Part, Registered};

    fn one_of_each() -> Vec<Refusal> {
        let refused = |limit| Refused {
            limit,
            retry_after: None,
        };
        vec![
            Refusal::Limit(Stage::Accept, refused(Limit::Connections)),
            Refusal::Limit(Stage::Accept, refused(Limit::ApiConnections)),
            Refusal::Limit(Stage::Address, refused(Limit::OverflowAttempts)),
            Refusal::Limit(Stage::User, refused(Limit::UserConnections)),
            Refusal::Proxy(ProxyError::TooLong),
            Refusal::UntrustedProxy,
            Refusal::Tls(TlsError::PeerAlert(40)),
            Refusal::Timeout(Stage::Tls),
            Refusal::Timeout(Stage::Head),
            Refusal::Evicted(Stage::Proxy),
            Refusal::Shed(Stage::Tls),
            Refusal::Head(HeadError::Framing),
            Refusal::Upgrade(UpgradeError::EarlyBytes),
            Refusal::Extensions,
            Refusal::Host,
            Refusal::ShuttingDown,
            Refusal::NotFound,
            Refusal::Origin(OriginRefused::NotListed),
            Refusal::Bearer(BearerError::CookieOffOrigin),
            Refusal::Token(TokenError::User),
            Refusal::Token(TokenError::Encoding(Part::Header)),
            Refusal::Token(TokenError::ClaimType(Registered::TokenId)),
            Refusal::Token(TokenError::Expired { seconds_ago: 7 }),
            Refusal::Token(TokenError::MissingClaim("a \"name\" \\ of theirs".into())),
            Refusal::Revoked,
            Refusal::NoKeys,
            Refusal::Rule,
        ]
    }

    #[test]
    fn n10_every_refusal_is_counted_under_its_own_stage_and_reason() {
        let all: Vec<_> = labels().collect();
        assert_eq!(all.len(), REFUSALS);
        for refusal in one_of_each() {
            let expected = (refusal.stage(), refusal.reason());
            assert_eq!(all[refusal.index()], expected, "{refusal:?}");
        }
        let mut unique = all.clone();
        unique.sort_unstable_by_key(|(stage, reason)| (stage.label(), *reason));
        unique.dedup();
        assert_eq!(unique.len(), all.len(), "a pair stands twice");
    }

    #[test]
    fn the_last_label_of_each_vocabulary_is_its_last_variants() {
        assert_eq!(HeadError::Framing.label(), "framing");
        assert_eq!(UpgradeError::EarlyBytes.label(), "early_bytes");
        assert_eq!(OriginRefused::NotListed.label(), "not_listed");
        assert_eq!(ProxyError::TooLong.label(), "too_long");
    }

    #[test]
    fn b8_answers_are_one_line_of_json_whatever_the_configuration_holds() {
        for refusal in one_of_each() {
            let mut answer = Vec::new();
            refusal.write_answer(&mut answer);
            let answer = String::from_utf8(answer).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let value: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(value["status"], refusal.status());
            assert_eq!(value["reason"], refusal.reason());
            assert!(head.starts_with(&format!("HTTP/1.1 {} ", refusal.status())));
            assert_eq!(body.matches('\n').count(), 1);
        }
    }

    #[test]
    fn n2_a_close_frame_says_what_a_browser_cannot_read_from_a_status() {
        let expired = Refusal::Token(TokenError::Expired { seconds_ago: 7 });
        assert_eq!(expired.close_frame(None), (4401, "token_expired".into()));
        let full = Refusal::ShuttingDown;
        let wait = Some(Duration::from_millis(7_100));
        assert_eq!(
            full.close_frame(wait),
            (4503, "shutting_down; retry after 8 s".into())
        );
        for refusal in one_of_each() {
            let longest = Some(Duration::from_secs(u64::MAX));
            assert!(refusal.close_frame(longest).1.len() <= 123);
        }
    }
}
