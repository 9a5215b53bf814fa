//! The opening handshake, server side (RFC 6455 §4.2): is this head a WebSocket request, which
//! subprotocol is spoken, and the 101 that says so.
//!
//! An [`Upgrade`] exists only for a head that passed every check, so what is built from one need not
//! ask again. Left to others: who may connect (admission), the meaning of the extensions
//! (`ws::deflate`), and bytes behind the head, of which only the connection knows
//! ([`UpgradeError::EarlyBytes`]).

use std::fmt;

use tungstenite::handshake::derive_accept_key;

use crate::http::head::{Head, Version};
use crate::http::response::write_header;
use crate::http::{is_token_byte, members};

/// Proof that a head is a correct WebSocket request.
#[derive(Clone, Copy)]
pub struct Upgrade<'a> {
    head: &'a Head<'a>,
    key: &'a str,
}

impl<'a> Upgrade<'a> {
    /// Most subprotocols a client may offer. A longer list is answered with 400.
    pub const PROTOCOLS_MAX: usize = 16;

    /// Checks a head against RFC 6455 §4.2.1. Linear in the head; allocates nothing.
    ///
    /// # Errors
    /// The first requirement the head misses, in the order of [`UpgradeError`]'s variants.
    pub fn check(head: &'a Head<'a>) -> Result<Self, UpgradeError> {
        if head.method() != "GET" {
            return Err(UpgradeError::Method);
        }
        if head.version() != Version::Http11 {
            return Err(UpgradeError::HttpVersion);
        }
        // A body would be read as frames by us and as a body by a proxy (Transfer-Encoding is
        // refused with the head).
        if head.content_length() > 0 {
            return Err(UpgradeError::Body);
        }
        if !lists(head, "upgrade", "websocket") {
            return Err(UpgradeError::NotAnUpgrade);
        }
        if !lists(head, "connection", "upgrade") {
            return Err(UpgradeError::Connection);
        }
        if head.header("sec-websocket-version") != Some("13") {
            return Err(UpgradeError::Version);
        }
        let key = head.header("sec-websocket-key").filter(|key| is_key(key));
        let upgrade = Self {
            head,
            key: key.ok_or(UpgradeError::Key)?,
        };
        check_protocols(head)?;
        Ok(upgrade)
    }

    /// The head this was built from.
    #[must_use]
    pub const fn head(&self) -> &'a Head<'a> {
        self.head
    }

    /// The `Origin` header as sent; `None` only if there is none (RFC 6455 §10.2).
    #[must_use]
    pub fn origin(&self) -> Option<&'a str> {
        self.head.header("origin")
    }

    /// The subprotocols the client offers, its favourite first: tokens, at most
    /// [`Upgrade::PROTOCOLS_MAX`], no two alike. One may be a bearer: not for logs.
    pub fn protocols(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.head.headers(PROTOCOL).flat_map(members)
    }

    /// The values of the `Sec-WebSocket-Extensions` headers, one for each line.
    pub fn extensions(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.head.headers("sec-websocket-extensions")
    }

    /// The value of `Sec-WebSocket-Accept` that answers the client's key (§4.2.2).
    #[must_use]
    pub fn accept_key(&self) -> String {
        derive_accept_key(self.key.as_bytes())
    }
}

impl fmt::Debug for Upgrade<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgrade")
            .field("head", self.head)
            .finish_non_exhaustive()
    }
}

/// Chooses the subprotocol to speak: the client's favourite among those in `supported`, since its list
/// is in its order of preference (§4.1) and whoever configures `supported` would serve any of them.
/// Names are compared with case. `None` if there is no common one; the 101 then names none, and the
/// client decides whether to go on (§4.2.2).
pub fn choose_subprotocol<'s>(
    upgrade: &Upgrade<'_>,
    supported: &'s [impl AsRef<str>],
) -> Option<&'s str> {
    if supported.is_empty() {
        return None;
    }
    upgrade.protocols().find_map(|offered| {
        supported
            .iter()
            .map(AsRef::as_ref)
            .find(|name| *name == offered)
    })
}

/// Appends the 101 (§4.2.2). `subprotocol` is one the client offered, from [`choose_subprotocol`], so
/// the bytes written are those of the configuration; `extensions` is the negotiated answer, if any.
pub fn write_accept(
    out: &mut Vec<u8>,
    upgrade: &Upgrade<'_>,
    subprotocol: Option<&str>,
    extensions: Option<&[u8]>,
) {
    debug_assert!(
        subprotocol.is_none_or(|name| upgrade.protocols().any(|offered| offered == name)),
        "a client fails the connection on a subprotocol it did not offer (RFC 6455 §4.1)"
    );
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\n\
          Upgrade: websocket\r\n\
          Connection: Upgrade\r\n\
          Sec-WebSocket-Accept: ",
    );
    out.extend_from_slice(upgrade.accept_key().as_bytes());
    out.extend_from_slice(b"\r\n");
    if let Some(name) = subprotocol {
        write_header(out, "Sec-WebSocket-Protocol", name);
    }
    if let Some(answer) = extensions {
        write_header(out, "Sec-WebSocket-Extensions", answer);
    }
    out.extend_from_slice(b"\r\n");
}

const PROTOCOL: &str = "sec-websocket-protocol";

/// Whether this head asks for a WebSocket at all, well or badly.
#[must_use]
pub fn is_asked_for(head: &Head<'_>) -> bool {
    lists(head, "upgrade", "websocket")
}

/// Does any header called `name` list `wanted`? Connection options and upgrade tokens come in any case,
/// in lists, over several lines (RFC 9110 §5.6.1, §7.6.1).
fn lists(head: &Head<'_>, name: &str, wanted: &str) -> bool {
    head.headers(name)
        .flat_map(members)
        .any(|member| member.eq_ignore_ascii_case(wanted))
}

/// Is `key` the base64 of 16 bytes (§4.1 item 7)? The last digit carries four bits of padding; whether
/// they are zero is not asked (RFC 4648 §3.5 leaves it open), since the key is never decoded.
fn is_key(key: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24
        && key
            .strip_suffix("==")
            .is_some_and(|digits| digits.bytes().all(digit))
}

/// Checks the offered subprotocols: `1#token`, each once (§4.1 item 10). Ends at the first fault, and
/// compares at most [`Upgrade::PROTOCOLS_MAX`] names with each other.
fn check_protocols(head: &Head<'_>) -> Result<(), UpgradeError> {
    let mut seen = [""; Upgrade::PROTOCOLS_MAX];
    for (count, name) in head.headers(PROTOCOL).flat_map(members).enumerate() {
        let is_token = !name.is_empty() && name.bytes().all(is_token_byte);
        if !is_token || seen[..count.min(seen.len())].contains(&name) {
            return Err(UpgradeError::Protocols);
        }
        *seen.get_mut(count).ok_or(UpgradeError::Protocols)? = name;
    }
    Ok(())
}

/// Why a request does not become a WebSocket. No variant carries a byte the peer sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpgradeError {
    /// Not a GET.
    Method,
    /// HTTP/1.0, which has no upgrade.
    HttpVersion,
    /// The head announces a body.
    Body,
    /// `Upgrade` does not list `websocket`: a plain HTTP request.
    NotAnUpgrade,
    /// `Connection` does not list `upgrade`; often a proxy that was not told to pass it on.
    Connection,
    /// `Sec-WebSocket-Version` is not 13 (§4.4).
    Version,
    /// `Sec-WebSocket-Key` is not the base64 of 16 bytes.
    Key,
    /// `Sec-WebSocket-Protocol` is not a list of different tokens, or is too long.
    Protocols,
    /// Bytes behind the head. A client must wait for the 101 (§4.1), and what came before it may have
    /// been smuggled past a proxy. Raised by the connection, which alone sees them.
    EarlyBytes,
}

impl UpgradeError {
    /// Every label there is, in the order of the variants: for a metric that starts at zero.
    pub const LABELS: [&str; 9] = [
        "method",
        "http_version",
        "body",
        "not_an_upgrade",
        "connection",
        "version",
        "key",
        "protocols",
        "early_bytes",
    ];

    /// The reason as a metric's label, one of [`UpgradeError::LABELS`].
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::HttpVersion => "http_version",
            Self::Body => "body",
            Self::NotAnUpgrade => "not_an_upgrade",
            Self::Connection => "connection",
            Self::Version => "version",
            Self::Key => "key",
            Self::Protocols => "protocols",
            Self::EarlyBytes => "early_bytes",
        }
    }

    /// The status to refuse with.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Method => 405,
            Self::NotAnUpgrade | Self::Version => 426,
            Self::HttpVersion
            | Self::Body
            | Self::Connection
            | Self::Key
            | Self::Protocols
            | Self::EarlyBytes => 400,
        }
    }

    /// The headers the refusal needs. A 426 names what to upgrade to (RFC 9110 §15.5.22), as a
    /// connection option too (§7.8), and the version spoken (RFC 6455 §4.4).
    #[must_use]
    pub const fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Method => &[("Allow", "GET")],
            Self::NotAnUpgrade | Self::Version => &[
                ("Upgrade", "websocket"),
                ("Connection", "Upgrade"),
                ("Sec-WebSocket-Version", "13"),
            ],
            Self::HttpVersion
            | Self::Body
            | Self::Connection
            | Self::Key
            | Self::Protocols
            | Self::EarlyBytes => &[],
        }
    }

    /// One line for the log and for the body of the refusal.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Method => "WebSocket requests use GET",
            Self::HttpVersion => "WebSocket requests use HTTP/1.1",
            Self::Body => "WebSocket requests have no body",
            Self::NotAnUpgrade => "this is a WebSocket endpoint",
            Self::Connection => "Connection does not list Upgrade; is a proxy dropping it?",
            Self::Version => "Sec-WebSocket-Version is not 13",
            Self::Key => "missing or invalid Sec-WebSocket-Key",
            Self::Protocols => "invalid Sec-WebSocket-Protocol",
            Self::EarlyBytes => "bytes sent before the handshake was answered",
        }
    }
}

impl fmt::Display for UpgradeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for UpgradeError {}

#[cfg(test)]
mod tests;
