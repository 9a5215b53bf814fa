//! A token taken apart, before anybody vouches for it: the compact form (RFC 7515 §7.1), its base64url
//! and its JSON, each refused where it is too large, too deep, or has more than one reading.
//!
//! Everything here sees bytes of an attacker's choice. Each step is linear in a length that the step
//! before has bounded.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use smallvec::SmallVec;

use super::{Part, TokenError};
use crate::json;

/// Longest token in bytes.
pub(super) const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Longest header in base64url digits. Most have fewer than 120; one that brings a certificate chain
/// along (`x5c`), which nobody here looks at, may not fit.
pub(super) const HEADER_DIGITS_MAX: usize = 2 * 1024;
/// Deepest nesting of objects and lists, the outermost counted.
pub(super) const DEPTH_MAX: usize = 8;
/// Most members of one object. Bounds the search for repeated names, which compares all pairs.
pub(super) const MEMBERS_MAX: usize = 64;

/// The three parts of a token, still in base64url.
#[derive(Clone, Copy)]
pub(super) struct Parts<'t> {
    pub(super) header: &'t str,
    pub(super) claims: &'t str,
    pub(super) signature: &'t str,
    /// What is signed: header, dot, claims.
    pub(super) message: &'t [u8],
}

impl<'t> Parts<'t> {
    /// Splits at exactly two dots. Stops at the third (D4).
    pub(super) fn split(token: &'t str) -> Result<Self, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let mut dots = memchr::memchr_iter(b'.', token.as_bytes());
        let (Some(first), Some(second), None) = (dots.next(), dots.next(), dots.next()) else {
            return Err(TokenError::NotThreeParts);
        };
        let header = &token[..first];
        if header.len() > HEADER_DIGITS_MAX {
            return Err(TokenError::HeaderTooLong);
        }
        Ok(Self {
            header,
            claims: &token[first + 1..second],
            signature: &token[second + 1..],
            message: &token.as_bytes()[..second],
        })
    }
}

/// Decodes a part to text. Strictly: no padding, no white space, no other alphabet, no bits left over
/// in the last digit (RFC 7515 §2), or one token would have several spellings.
pub(super) fn decode(part: Part, digits: &str) -> Result<String, TokenError> {
    let bytes = URL_SAFE_NO_PAD
        .decode(digits)
        .map_err(|_| TokenError::Encoding(part))?;
    String::from_utf8(bytes).map_err(|_| TokenError::Json(part))
}

/// A JSON value of which the reader has seen that it is what the rules below allow.
#[derive(Debug, PartialEq)]
pub(super) enum Json<'a> {
    Null,
    Bool(bool),
    /// An integer that is not negative.
    Unsigned(u64),
    /// An integer below zero.
    Negative(i64),
    /// A number with a fraction or an exponent, or too large for the two above.
    Fraction,
    Text(Cow<'a, str>),
    List(Vec<Self>),
    Object(Vec<(Cow<'a, str>, Self)>),
}

impl<'a> Json<'a> {
    /// The member of this name, if this is an object that has one.
    pub(super) fn member(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members
                .iter()
                .find(|(own, _)| own == name)
                .map(|(_, value)| value),
            _ => None,
        }
    }
}

/// The wanted members of an object, in the order in which they stand there.
pub(super) type Members<'a> = SmallVec<[(Cow<'a, str>, Json<'a>); 8]>;

/// Reads a part that is one JSON object, and keeps those members that `wants` asks for. Refuses names
/// that stand twice, wanted or not, and more than [`MEMBERS_MAX`] members in any object that is kept,
/// and at the top.
pub(super) fn read_object<'a>(
    part: Part,
    text: &'a str,
    wants: &dyn Fn(&str) -> bool,
) -> Result<Members<'a>, TokenError> {
    if json::is_deeper_than(text, DEPTH_MAX) {
        return Err(TokenError::TooDeep(part));
    }
    let fault = Cell::new(Fault::Syntax);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let seed = Reader {
        fault: &fault,
        wants,
    };
    deserializer
        .deserialize_map(seed)
        .and_then(|members| deserializer.end().map(|()| members))
        .map_err(|_| match fault.get() {
            Fault::Syntax => TokenError::Json(part),
            Fault::Repeated => TokenError::RepeatedName(part),
            Fault::TooMany => TokenError::TooManyMembers(part),
        })
}

/// What a reader refused beyond the grammar. Kept beside serde's errors, which are texts.
#[derive(Clone, Copy)]
enum Fault {
    Syntax,
    Repeated,
    TooMany,
}

/// Reads values, and objects into [`Members`].
#[derive(Clone, Copy)]
struct Reader<'r> {
    fault: &'r Cell<Fault>,
    wants: &'r dyn Fn(&str) -> bool,
}

impl Reader<'_> {
    /// Reads the members of an object that `wants` asks for.
    fn members<'de, A: MapAccess<'de>>(
        self,
        mut map: A,
        wants: &dyn Fn(&str) -> bool,
    ) -> Result<Members<'de>, A::Error> {
        let mut names: SmallVec<[Cow<'de, str>; 16]> = SmallVec::new();
        let mut members = Members::new();
        while let Some(name) = map.next_key_seed(Name)? {
            if names.contains(&name) {
                self.fault.set(Fault::Repeated);
                return Err(A::Error::custom("repeated name"));
            }
            if names.len() == MEMBERS_MAX {
                self.fault.set(Fault::TooMany);
                return Err(A::Error::custom("too many members"));
            }
            if wants(&name) {
                members.push((name.clone(), map.next_value_seed(Value(self))?));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
            names.push(name);
        }
        Ok(members)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Members<'de>, A::Error> {
        self.members(map, self.wants)
    }
}

/// Reads a name, borrowed unless it holds an escape.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// Reads any value. Recursive, but [`json::is_deeper_than`] was asked first.
#[derive(Clone, Copy)]
struct Value<'r>(Reader<'r>);

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json<'de>, E> {
        Ok(Json::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json<'de>, E> {
        Ok(Json::Negative(value))
    }

    fn visit_f64<E>(self, _value: f64) -> Result<Json<'de>, E> {
        Ok(Json::Fraction)
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json<'de>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Json::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Json<'de>, A::Error> {
        let members = self.0.members(map, &|_| true)?;
        Ok(Json::Object(members.into_vec()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Members<'_>, TokenError> {
        read_object(Part::Claims, text, &|name| name.starts_with('w'))
    }

    #[test]
    fn wanted_members_are_kept_as_they_are() {
        let text = r#" {"a":[1,{"b":null}],"w1":"x","w2":"\u0041","w3":0,"w4":-1,"w5":1.0,
            "w6":[true,null],"w7":{"x":{"y":18446744073709551615}},"\u0077":1e3} "#;
        let members = read(text).unwrap();
        let expected = [
            ("w1", Json::Text("x".into())),
            ("w2", Json::Text("A".into())),
            ("w3", Json::Unsigned(0)),
            ("w4", Json::Negative(-1)),
            ("w5", Json::Fraction),
            ("w6", Json::List(vec![Json::Bool(true), Json::Null])),
            (
                "w7",
                Json::Object(vec![(
                    "x".into(),
                    Json::Object(vec![("y".into(), Json::Unsigned(u64::MAX))]),
                )]),
            ),
            ("w", Json::Fraction),
        ];
        assert_eq!(members.len(), expected.len());
        for ((name, value), expected) in members.iter().zip(&expected) {
            assert_eq!((name.as_ref(), value), (expected.0, &expected.1));
        }
        assert!(
            matches!(members[0].1, Json::Text(Cow::Borrowed(_))),
            "borrowed"
        );
    }

    #[test]
    fn what_is_no_single_object_is_refused() {
        for text in [
            "",
            " ",
            "null",
            "1",
            "\"w\"",
            "[]",
            "[{}]",
            "{",
            "{}}",
            "{} {}",
            "{}x",
            "{\"w\"}",
            "{\"w\":}",
            "{\"w\":1,}",
            "{w:1}",
            "{'w':1}",
            "{\"w\":01}",
            "{\"w\":+1}",
            "{\"w\":.5}",
            "{\"w\":NaN}",
            "{\"w\":1e999}",
            "{\"w\":\"\n\"}",
            "{\"w\":\"\\x\"}",
            "{\"w\":\"\\ud800\"}",
            "{\"a\":tru}",
            "{\"a\":[1,]}",
            "\u{feff}{}",
            "{}\0",
            "/**/{}",
            "{\"w\":1 \"x\":2}",
        ] {
            assert_eq!(read(text), Err(TokenError::Json(Part::Claims)), "{text:?}");
        }
    }

    #[test]
    fn d3_a_name_that_stands_twice_is_refused() {
        for text in [
            r#"{"w":1,"w":1}"#,
            // Not wanted, and yet the next reader may want it.
            r#"{"a":1,"w":1,"a":2}"#,
            // The same name once it is read.
            r#"{"w":1,"\u0077":2}"#,
            r#"{"":1,"":1}"#,
            // Within what is kept.
            r#"{"w":{"x":1,"x":2}}"#,
        ] {
            assert_eq!(
                read(text),
                Err(TokenError::RepeatedName(Part::Claims)),
                "{text}"
            );
        }
        assert!(read(r#"{"w":1,"W":1,"w ":1}"#).is_ok());
    }

    #[test]
    fn d4_depth_is_bounded() {
        let nested = |depth: usize| {
            let inner = depth - 1;
            format!("{{\"a\":{}{}}}", "[".repeat(inner), "]".repeat(inner))
        };
        assert!(read(&nested(DEPTH_MAX)).is_ok());
        assert_eq!(
            read(&nested(DEPTH_MAX + 1)),
            Err(TokenError::TooDeep(Part::Claims))
        );
        assert_eq!(
            read(&"[".repeat(8192)),
            Err(TokenError::TooDeep(Part::Claims))
        );
        // Brackets within a text are text, also behind an escaped quote.
        assert!(read(r#"{"w":"[[[[[[[[[[\"[[[[[[[[[[\\"}"#).is_ok());
        // And behind the text they count again.
        assert_eq!(
            read(r#"{"w":"\\","a":[[[[[[[[[]]]]]]]]]}"#),
            Err(TokenError::TooDeep(Part::Claims))
        );
    }

    #[test]
    fn d4_members_are_bounded() {
        let object = |count: usize| {
            let members: Vec<_> = (0..count).map(|index| format!("\"{index}\":0")).collect();
            format!("{{{}}}", members.join(","))
        };
        assert!(read(&object(MEMBERS_MAX)).is_ok());
        let flat = object(MEMBERS_MAX + 1);
        let within = format!("{{\"w\":{flat}}}");
        for text in [&flat, &within] {
            assert_eq!(read(text), Err(TokenError::TooManyMembers(Part::Claims)));
        }
    }

    #[test]
    fn base64url_has_one_spelling() {
        for (digits, expected) in [
            ("e30", Ok("{}")),
            ("", Ok("")),
            ("e30=", Err(TokenError::Encoding(Part::Header))),
            ("e31", Err(TokenError::Encoding(Part::Header))),
            ("e", Err(TokenError::Encoding(Part::Header))),
            (" e30", Err(TokenError::Encoding(Part::Header))),
            ("e3\n0", Err(TokenError::Encoding(Part::Header))),
            ("e+0", Err(TokenError::Encoding(Part::Header))),
            ("_w", Err(TokenError::Json(Part::Header))),
        ] {
            let decoded = decode(Part::Header, digits);
            assert_eq!(
                decoded.as_deref().map_err(Clone::clone),
                expected,
                "{digits:?}"
            );
        }
    }

    proptest! {
        /// The reader takes nothing that serde_json's own does not, and reads the same.
        #[test]
        fn the_reader_agrees_with_the_plain_one(text in "[{}\\[\\],:\"w0-2a.\\\\ -]{0,24}") {
            if let Ok(members) = read_object(Part::Claims, &text, &|_| true) {
                let plain: serde_json::Value = serde_json::from_str(&text).unwrap();
                prop_assert_eq!(plain.as_object().unwrap().len(), members.len());
            }
        }

        #[test]
        fn depth_agrees_with_the_parser(depth in 1_usize..20, text in "[\\[\\]\\\\\"{}a]{0,10}") {
            let string = serde_json::to_string(&text).unwrap();
            let json = format!("{}{string}{}", "[".repeat(depth), "]".repeat(depth));
            prop_assert_eq!(json::is_deeper_than(&json, DEPTH_MAX), depth > DEPTH_MAX);
        }
    }
}
