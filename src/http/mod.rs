//! The HTTP/1.1 that a WebSocket server speaks: request heads in, status lines out, the paths of
//! routes, and whole requests with small bodies ([`exchange`]) for the API and for monitoring.
//!
//! A head says how long its body is ([`head::Head::content_length`]). Transfer codings are refused,
//! so that there is one way to know where a request ends.

pub mod date;
pub mod exchange;
pub mod head;
mod percent;
pub mod query;
pub mod response;
pub mod template;

/// Is `byte` a `tchar`, as in methods, header names and list members (RFC 9110 §5.6.2)?
pub(crate) const fn is_token_byte(byte: u8) -> bool {
    matches!(byte,
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9'
        | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`'
        | b'|' | b'~')
}

/// May `byte` stand in a field value (RFC 9110 §5.5)? Tab is the only control byte that may.
pub(crate) const fn is_value_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// The members of a comma-separated list, trimmed, empty ones included (RFC 9110 §5.6.1).
pub(crate) fn members(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
        .map(|member| member.trim_matches([' ', '\t']))
}
