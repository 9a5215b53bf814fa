//! Query strings as browsers write them: `application/x-www-form-urlencoded`, decoded exactly once.

use std::borrow::Cow;
use std::fmt;

use super::percent::{self, Plus};

/// The pairs of a raw query string (without its `?`), in order. `+` is a space, as `URLSearchParams`
/// writes it; a part without `=` is a key with an empty value; empty parts are passed over. Only `&`
/// separates. Linear; allocates only for parts that hold an escape.
///
/// # Errors
/// An item is [`InvalidEscape`] where a `%` lacks its two hexadecimal digits, or where the decoded
/// bytes are not UTF-8. The iterator goes on behind it, but a caller that looks for credentials
/// should refuse the whole query.
pub fn pairs(
    query: &str,
) -> impl Iterator<Item = Result<(Cow<'_, str>, Cow<'_, str>), InvalidEscape>> {
    query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            Ok((decode(key)?, decode(value)?))
        })
}

fn decode(text: &str) -> Result<Cow<'_, str>, InvalidEscape> {
    percent::decode(text, Plus::Space).ok_or(InvalidEscape)
}

/// A query part that cannot be decoded. Answered with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidEscape;

impl fmt::Display for InvalidEscape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the query holds an invalid percent escape")
    }
}

impl std::error::Error for InvalidEscape {}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(query: &str) -> Result<Vec<(String, String)>, InvalidEscape> {
        pairs(query)
            .map(|pair| pair.map(|(k, v)| (k.into_owned(), v.into_owned())))
            .collect()
    }

    #[test]
    fn pairs_are_split_then_decoded() {
        let cases: &[(&str, &[(&str, &str)])] = &[
            ("", &[]),
            ("&&", &[]),
            ("token=a.b.c", &[("token", "a.b.c")]),
            ("token=a%2Eb&x=1", &[("token", "a.b"), ("x", "1")]),
            ("a=1&a=2", &[("a", "1"), ("a", "2")]),
            ("a", &[("a", "")]),
            ("a=b=c", &[("a", "b=c")]),
            // The separators are found before decoding, so an escaped one is data.
            ("a=1%26b%3D2", &[("a", "1&b=2")]),
            ("a;b=1", &[("a;b", "1")]),
            ("q=a+b%2Bc", &[("q", "a b+c")]),
            ("%74oken=x", &[("token", "x")]),
            // Once: what an escape decodes to is not decoded again.
            ("a=%2541", &[("a", "%41")]),
        ];
        for (query, expected) in cases {
            let expected: Vec<_> = expected
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect();
            assert_eq!(collect(query), Ok(expected), "{query}");
        }
    }

    #[test]
    fn invalid_escapes_are_errors() {
        for query in ["a=%", "a=%2", "a=%zz", "%=1", "a=1&b=%ff", "a=%c0%80"] {
            assert_eq!(collect(query), Err(InvalidEscape), "{query}");
        }
    }
}
