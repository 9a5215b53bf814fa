//! The sections that hold limits and times, each with its defaults and its list of keys.
//!
//! Defaults are safe on the open internet. Ranges end where a value would stop being a limit, or
//! would refuse what RFC 6455 obliges a server to take.

use std::time::Duration;

use super::setting::{Choice, Setting, Slot};
use super::text::{HOST, Texts};
use super::units::{KIB, MIB};

pub use crate::conn::AtLimit;

/// `[http]`: the request head of an upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Longest head, request line and blank line included, in bytes. A longer one is answered 431.
    pub head_bytes_max: usize,
    /// Most header fields in a head. More are answered 431.
    pub headers_max: usize,
    /// Longest request target, in bytes. A longer one is answered 414.
    pub target_bytes_max: usize,
    /// Longest a client may take to send its head, from accept or the end of the TLS handshake.
    /// A slower one is answered 408 (slowloris).
    pub head_timeout: Duration,
    /// Hosts that `Host` may name, without a port. Default none: any. Keeps pages of other names away
    /// from a server that only their visitors can reach (DNS rebinding).
    pub hosts: Vec<String>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            head_bytes_max: 16 * KIB,
            headers_max: 64,
            target_bytes_max: 8 * KIB,
            head_timeout: Duration::from_secs(5),
            hosts: Vec::new(),
        }
    }
}

impl HttpConfig {
    pub(super) fn settings(&mut self) -> Vec<Setting<'_>> {
        vec![
            Setting::new(
                "http.head_bytes_max",
                Slot::Size(&mut self.head_bytes_max, KIB..=MIB),
                "Longest request head; a longer one is answered 431",
            ),
            Setting::new(
                "http.headers_max",
                Slot::Count(&mut self.headers_max, 8..=64),
                "Most header fields in a request; more are answered 431",
            ),
            Setting::new(
                "http.target_bytes_max",
                Slot::Size(&mut self.target_bytes_max, 64..=MIB),
                "Longest request target; a longer one is answered 414",
            ),
            Setting::new(
                "http.head_timeout",
                Slot::Time(&mut self.head_timeout, millis(100)..=secs(60)),
                "Longest a client may take to send its request head; then 408",
            ),
            Setting::new(
                "http.hosts",
                Slot::List(Box::new(Texts(&mut self.hosts, &HOST))),
                "Hosts that requests may be for; none: any",
            ),
        ]
    }
}

/// `[websocket]`: messages, liveness and closing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSocketConfig {
    /// Longest message, all its fragments together and after inflating, in bytes. A longer one
    /// closes with 1009 (RFC 6455 §7.4.1).
    pub message_bytes_max: usize,
    /// Most fragments in one message. More close with 1008.
    pub fragments_max: u32,
    /// Longest a message may take from its first fragment to its last; then 1008.
    pub message_timeout: Duration,
    /// Silence after which a ping is sent; `None`: never, and half-open peers stay.
    pub ping_interval: Option<Duration>,
    /// Longest wait for any byte after a ping; then the peer counts as gone.
    pub pong_timeout: Duration,
    /// Longest wait for the peer's close frame after ours (§7.1.1); then the socket is closed.
    pub close_timeout: Duration,
    /// Whether permessage-deflate (RFC 7692) is agreed to when a client offers it.
    pub compression: bool,
    /// Most bytes one compressed byte may inflate to, on average over a message; more close with
    /// 1009.
    pub inflate_ratio_max: u32,
}

impl Default for WebSocketConfig {
    fn default() -> Self {
        Self {
            message_bytes_max: 64 * KIB,
            fragments_max: 128,
            message_timeout: secs(30),
            // With the pong's eight seconds, a half-open peer is gone within 35 s of its last byte.
            ping_interval: Some(secs(25)),
            pong_timeout: secs(8),
            close_timeout: secs(5),
            compression: false,
            // Repetitive JSON compresses by 20 to 50; a bomb by up to deflate's limit of 1032.
            inflate_ratio_max: 100,
        }
    }
}

impl WebSocketConfig {
    pub(super) fn settings(&mut self) -> Vec<Setting<'_>> {
        vec![
            Setting::new(
                "websocket.message_bytes_max",
                Slot::Size(&mut self.message_bytes_max, 1..=256 * MIB),
                "Longest message, fragments together and inflated; a longer one closes with 1009",
            ),
            Setting::new(
                "websocket.fragments_max",
                Slot::Count(&mut self.fragments_max, 1..=1_048_576),
                "Most fragments in one message; more close with 1008",
            ),
            Setting::new(
                "websocket.message_timeout",
                Slot::Time(&mut self.message_timeout, millis(100)..=secs(3_600)),
                "Longest from a message's first fragment to its last; then 1008",
            ),
            Setting::new(
                "websocket.ping_interval",
                Slot::TimeOrOff(&mut self.ping_interval, secs(1)..=secs(86_400)),
                "Silence after which a client is pinged; off: half-open clients are never noticed",
            ),
            Setting::new(
                "websocket.pong_timeout",
                Slot::Time(&mut self.pong_timeout, millis(100)..=secs(3_600)),
                "Longest wait for an answer to a ping; then the client counts as gone",
            ),
            Setting::new(
                "websocket.close_timeout",
                Slot::Time(&mut self.close_timeout, millis(100)..=secs(60)),
                "Longest wait for the client's close frame after ours; then the socket is closed",
            ),
            Setting::new(
                "websocket.compression",
                Slot::Switch(&mut self.compression),
                "Agree to permessage-deflate when a client offers it",
            ),
            Setting::new(
                "websocket.inflate_ratio_max",
                Slot::Count(&mut self.inflate_ratio_max, 1..=1_032),
                "Most bytes one compressed byte may inflate to, over a message; more close with 1009",
            ),
        ]
    }
}

/// `[outbox]`: bytes that wait for a slow reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxConfig {
    /// Bytes waiting on one connection above which it counts as pressed: whoever sends to it is
    /// told to hold back.
    pub bytes_high_water: usize,
    /// Most bytes waiting on one connection; what would exceed them meets [`at_limit`](Self::at_limit).
    pub bytes_max: usize,
    /// What happens to a delivery that does not fit.
    pub at_limit: AtLimit,
    /// Longest time without the kernel taking a single waiting byte; then the connection is closed.
    pub write_timeout: Duration,
}

impl Choice for AtLimit {
    fn names(&self) -> &'static [&'static str] {
        &["close", "skip"]
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Close => "close",
            Self::Skip => "skip",
        }
    }

    fn set(&mut self, name: &str) -> bool {
        choose(self, name, &[Self::Close, Self::Skip])
    }
}

impl Default for OutboxConfig {
    fn default() -> Self {
        Self {
            bytes_high_water: 64 * KIB,
            bytes_max: MIB,
            at_limit: AtLimit::Close,
            write_timeout: secs(20),
        }
    }
}

impl OutboxConfig {
    pub(super) fn settings(&mut self) -> Vec<Setting<'_>> {
        vec![
            Setting::new(
                "outbox.bytes_high_water",
                Slot::Size(&mut self.bytes_high_water, KIB..=256 * MIB),
                "Waiting bytes above which whoever sends to a client is told to hold back",
            ),
            Setting::new(
                "outbox.bytes_max",
                Slot::Size(&mut self.bytes_max, KIB..=512 * MIB),
                "Most bytes that may wait for one slow client",
            ),
            Setting::new(
                "outbox.at_limit",
                Slot::Choice(&mut self.at_limit),
                "A delivery that does not fit closes the slow client with 1008, or is skipped",
            ),
            Setting::new(
                "outbox.write_timeout",
                Slot::Time(&mut self.write_timeout, millis(100)..=secs(3_600)),
                "Longest time without a single waiting byte leaving; then the client is closed",
            ),
        ]
    }
}

/// `[shutdown]`: how the server ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShutdownConfig {
    /// Longest a drain may take, from the signal to the end of the last connection; zero closes at
    /// once.
    pub drain_timeout: Duration,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self {
            drain_timeout: secs(10),
        }
    }
}

impl ShutdownConfig {
    pub(super) fn settings(&mut self) -> Vec<Setting<'_>> {
        vec![Setting::new(
            "shutdown.drain_timeout",
            Slot::Time(&mut self.drain_timeout, Duration::ZERO..=secs(3_600)),
            "Longest from the signal to the end; what is still open then is cut",
        )]
    }
}

/// `[log]`: what is written to standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// The least important lines that are written.
    pub level: LogLevel,
    /// The form of a line.
    pub format: LogFormat,
}

/// The least important lines that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// None at all.
    Off,
    /// What stops the server or loses data.
    Error,
    /// What an operator should look into.
    Warn,
    /// What the server does as a whole.
    Info,
    /// What single connections do, sampled.
    Debug,
    /// Everything.
    Trace,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// For machines: one object per line.
    Json,
}

impl Choice for LogLevel {
    fn names(&self) -> &'static [&'static str] {
        &["off", "error", "warn", "info", "debug", "trace"]
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    fn set(&mut self, name: &str) -> bool {
        let all = [
            Self::Off,
            Self::Error,
            Self::Warn,
            Self::Info,
            Self::Debug,
            Self::Trace,
        ];
        choose(self, name, &all)
    }
}

impl Choice for LogFormat {
    fn names(&self) -> &'static [&'static str] {
        &["auto", "text", "json"]
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Json => "json",
        }
    }

    fn set(&mut self, name: &str) -> bool {
        choose(self, name, &[Self::Auto, Self::Text, Self::Json])
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: LogLevel::Info,
            format: LogFormat::Auto,
        }
    }
}

impl LogConfig {
    pub(super) fn settings(&mut self) -> Vec<Setting<'_>> {
        vec![
            Setting::new(
                "log.level",
                Slot::Choice(&mut self.level),
                "The least important lines that are written to standard error",
            ),
            Setting::new(
                "log.format",
                Slot::Choice(&mut self.format),
                "The form of a line; auto: text on a terminal, JSON otherwise",
            ),
        ]
    }
}

/// Sets `slot` to the one of `all` that has this name; false if none has.
pub(super) fn choose<C: Choice + Copy>(slot: &mut C, name: &str, all: &[C]) -> bool {
    let found = all.iter().find(|choice| choice.name() == name);
    found.map(|choice| *slot = *choice).is_some()
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}
