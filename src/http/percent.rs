//! Percent-decoding (RFC 3986 §2.1), once and strictly: a `%` that two hexadecimal digits do not
//! follow is an error, and so are bytes that are not UTF-8 once decoded.

use std::borrow::Cow;

/// What a literal `+` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plus {
    /// Itself, as in a path.
    Literal,
    /// A space, as in `application/x-www-form-urlencoded`.
    Space,
}

/// Decodes `text`, or returns `None` where an escape is invalid or the outcome is not UTF-8.
/// Allocates only if there is something to decode.
pub(super) fn decode(text: &str, plus: Plus) -> Option<Cow<'_, str>> {
    let is_special = |&byte: &u8| byte == b'%' || (byte == b'+' && plus == Plus::Space);
    let Some(first) = text.bytes().position(|byte| is_special(&byte)) else {
        return Some(Cow::Borrowed(text));
    };
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    decoded.extend_from_slice(&bytes[..first]);
    let mut rest = bytes[first..].iter();
    while let Some(&byte) = rest.next() {
        decoded.push(match byte {
            b'%' => hex(*rest.next()?)? << 4 | hex(*rest.next()?)?,
            b'+' if plus == Plus::Space => b' ',
            other => other,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

/// The bytes that the escapes of `text` stand for; escapes must be valid.
pub(super) fn escaped_bytes(text: &str) -> impl Iterator<Item = u8> {
    text.split('%')
        .skip(1)
        .filter_map(|after| match after.as_bytes() {
            [high, low, ..] => Some(hex(*high)? << 4 | hex(*low)?),
            _ => None,
        })
}

const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_once() {
        let cases = [
            ("", Some("")),
            ("plain", Some("plain")),
            ("a%20b", Some("a b")),
            ("%e2%82%ac", Some("€")),
            ("%252F", Some("%2F")),
            ("a+b", Some("a+b")),
            ("%", None),
            ("%4", None),
            ("%4g", None),
            ("%+4", None),
            ("%C0%AF", None),
            ("%ff", None),
            ("ok%", None),
        ];
        for (text, expected) in cases {
            assert_eq!(decode(text, Plus::Literal).as_deref(), expected, "{text}");
        }
        assert_eq!(decode("a+b%2B", Plus::Space).as_deref(), Some("a b+"));
    }

    #[test]
    fn nothing_to_decode_is_borrowed() {
        assert!(matches!(
            decode("a+b", Plus::Literal),
            Some(Cow::Borrowed(_))
        ));
        assert!(matches!(decode("a+b", Plus::Space), Some(Cow::Owned(_))));
    }
}
