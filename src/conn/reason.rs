//! Why a connection ended: a closed set, because it becomes a metric's label.

use std::fmt;

use crate::admission::Refusal;
use crate::admission::proxy_protocol::ProxyError;
use crate::http::head::HeadError;
use crate::tls::TlsError;
use crate::ws::Violation;

/// The one reason for which a connection ended: the first that applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer sent a close frame.
    PeerClosed,
    /// The peer's stream ended without a close frame (or, under TLS, was cut off).
    PeerGone,
    /// The socket failed: a reset, mostly.
    Io,
    /// The PROXY header is missing or malformed.
    Proxy(ProxyError),
    /// The PROXY header was not complete in time.
    ProxyTimeout,
    /// The TLS handshake or a record failed.
    Tls(TlsError),
    /// The TLS handshake was not done in time.
    TlsTimeout,
    /// The request head was malformed.
    Head(HeadError),
    /// The request head was not complete in time.
    HeadTimeout,
    /// The connection was refused on its way in.
    Refused(Refusal),
    /// The peer broke RFC 6455, or a limit of ours.
    Violation(Violation),
    /// A message was not complete in time.
    MessageTimeout,
    /// A ping was not answered in time.
    PongTimeout,
    /// More bytes waited for the peer than the outbox takes.
    OutboxFull,
    /// The peer took no byte for too long.
    WriteTimeout,
    /// The handler closed the connection.
    Handler,
    /// The handler panicked.
    HandlerPanic,
    /// Somebody closed the connection by its id.
    Disconnected,
    /// The server is shutting down.
    Shutdown,
    /// Too many were on their way in, and this one had been for the longest time.
    Evicted,
    /// Newer ones took the server's time, and this one had waited for longest.
    Shed,
    /// The token that let the connection in has ended.
    TokenExpired,
    /// The token that let the connection in has been revoked.
    Revoked,
    /// The user has as many connections as allowed, and a newer one took this one's place.
    Displaced,
    /// The peer sent more than its limits allow.
    TooMuchTraffic,
    /// Publications were lost on their way to it, and it has to be told.
    Gap,
    /// All requests over plain HTTP have been answered, and one side wanted no more of them.
    RequestsDone,
    /// No further request came over plain HTTP.
    RequestIdle,
    /// A request over plain HTTP was malformed, too long, or too slow.
    RequestFailed,
}

impl CloseReason {
    /// The name of the reason in metrics and logs.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        LABELS[self.index()]
    }

    /// Whether connections end like this every day, so that a line in the log would be noise.
    #[must_use]
    pub const fn is_usual(&self) -> bool {
        match self {
            Self::PeerClosed
            | Self::PeerGone
            | Self::Io
            | Self::PongTimeout
            | Self::Handler
            | Self::Disconnected
            | Self::Shutdown
            | Self::TokenExpired
            | Self::Revoked
            | Self::Displaced
            | Self::RequestsDone
            | Self::RequestIdle => true,
            Self::Proxy(_)
            | Self::ProxyTimeout
            | Self::Tls(_)
            | Self::TlsTimeout
            | Self::Head(_)
            | Self::HeadTimeout
            | Self::Refused(_)
            | Self::Violation(_)
            | Self::MessageTimeout
            | Self::OutboxFull
            | Self::Gap
            | Self::WriteTimeout
            | Self::HandlerPanic
            | Self::Evicted
            | Self::Shed
            | Self::TooMuchTraffic
            | Self::RequestFailed => false,
        }
    }

    /// The place of the reason in tables of counters, below [`REASONS`].
    #[must_use]
    pub const fn index(&self) -> usize {
        match self {
            Self::PeerClosed => 0,
            Self::PeerGone => 1,
            Self::Io => 2,
            Self::Tls(_) => 3,
            Self::TlsTimeout => 4,
            Self::Head(_) => 5,
            Self::HeadTimeout => 6,
            Self::Refused(_) => 7,
            Self::Violation(_) => 8,
            Self::MessageTimeout => 9,
            Self::PongTimeout => 10,
            Self::OutboxFull => 11,
            Self::WriteTimeout => 12,
            Self::Handler => 13,
            Self::HandlerPanic => 14,
            Self::Disconnected => 15,
            Self::Shutdown => 16,
            Self::Evicted => 17,
            Self::Proxy(_) => 18,
            Self::ProxyTimeout => 19,
            Self::TokenExpired => 20,
            Self::Revoked => 21,
            Self::Displaced => 22,
            Self::TooMuchTraffic => 23,
            Self::RequestsDone => 24,
            Self::RequestIdle => 25,
            Self::RequestFailed => 26,
            Self::Gap => 27,
            Self::Shed => 28,
        }
    }
}

/// How many reasons there are.
pub const REASONS: usize = 29;

/// The reasons' names, in the order of [`CloseReason::index`].
pub const LABELS: [&str; REASONS] = [
    "peer_closed",
    "peer_gone",
    "io",
    "tls",
    "tls_timeout",
    "head",
    "head_timeout",
    "refused",
    "violation",
    "message_timeout",
    "pong_timeout",
    "outbox_full",
    "write_timeout",
    "handler",
    "handler_panic",
    "disconnected",
    "shutdown",
    "evicted",
    "proxy",
    "proxy_timeout",
    "token_expired",
    "revoked",
    "displaced",
    "too_much_traffic",
    "requests_done",
    "request_idle",
    "request_failed",
    "gap",
    "shed",
];

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls(error) => write!(f, "tls: {error}"),
            Self::Head(error) => write!(f, "head: {error}"),
            Self::Proxy(error) => write!(f, "proxy: {error}"),
            Self::Refused(refusal) => write!(
                f,
                "refused with {} at {}: {refusal}",
                refusal.status(),
                refusal.stage().label()
            ),
            Self::Violation(violation) => write!(f, "violation: {violation}"),
            _ => f.write_str(self.label()),
        }
    }
}
