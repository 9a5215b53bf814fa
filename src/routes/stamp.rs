//! Fields that the server puts into a message by itself: who says it, and when.
//!
//! A stamp is a name and a [`Pattern`]. One that is a single hole keeps the kind of what fills it, so
//! that a number stays one and a list stays one; anything else is a text. Where there is nothing to
//! fill the hole with, the field is `null`, or is left out if the hole has a question mark.

use crate::admission::claim::{ClaimValue, Scalar};
use crate::conn::ConnectionId;
use crate::http::template::TemplateError;
use crate::json;

use super::pattern::{Facts, Hole, Part, Pattern, Source};

/// A field that the server writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    name: Box<str>,
    value: Pattern,
}

/// What stamps are filled from.
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "facts need not be printable")]
pub struct Scene<'s> {
    /// What is known of the connection.
    pub facts: &'s dyn Facts,
    /// The connection.
    pub connection: ConnectionId,
    /// The moment, as RFC 3339 writes it.
    pub time: &'s str,
}

impl Stamp {
    /// A field of this name.
    ///
    /// # Errors
    /// As [`Pattern::parse`].
    pub fn new(name: &str, value: &str) -> Result<Self, TemplateError> {
        let value = Pattern::parse(value)?;
        let name = name.into();
        Ok(Self { name, value })
    }

    /// The field's name.
    #[must_use]
    pub const fn name(&self) -> &str {
        &self.name
    }

    /// What it is filled with.
    #[must_use]
    pub const fn value(&self) -> &Pattern {
        &self.value
    }

    /// Appends the field, behind a comma if `has_fields`. Returns whether there are fields now.
    pub fn write(&self, scene: Scene<'_>, has_fields: bool, out: &mut Vec<u8>) -> bool {
        let before = out.len();
        if has_fields {
            out.push(b',');
        }
        json::write_text(out, &self.name);
        out.push(b':');
        let is_written = match self.value.parts() {
            [Part::Hole(_, hole)] => write_kept(hole, scene, out),
            parts => {
                let mut text = String::new();
                for part in parts {
                    match part {
                        Part::Literal(_, literal) => text.push_str(literal),
                        Part::Hole(_, hole) => push_text(hole, scene, &mut text),
                    }
                }
                json::write_text(out, &text);
                true
            }
        };
        if !is_written {
            out.truncate(before);
        }
        is_written || has_fields
    }
}

/// Writes what fills a hole as the kind it is; false if nothing does and nothing needs to.
fn write_kept(hole: &Hole, scene: Scene<'_>, out: &mut Vec<u8>) -> bool {
    let text = match &hole.source {
        Source::User => scene.facts.user(),
        Source::Capture(name) => scene.facts.capture(name),
        Source::Time => Some(scene.time),
        Source::Connection => {
            json::write_text(out, &scene.connection.to_string());
            return true;
        }
        Source::Claim(path) => match scene.facts.claim(path) {
            Some(ClaimValue::One(scalar)) => {
                write_scalar(scalar, out);
                return true;
            }
            Some(ClaimValue::Many(list)) => {
                out.push(b'[');
                for (at, scalar) in list.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    write_scalar(scalar, out);
                }
                out.push(b']');
                return true;
            }
            None => None,
        },
    };
    match text {
        Some(text) => json::write_text(out, text),
        None if hole.is_optional => return false,
        None => out.extend_from_slice(b"null"),
    }
    true
}

fn write_scalar(scalar: &Scalar, out: &mut Vec<u8>) {
    match scalar {
        Scalar::Text(text) => json::write_text(out, text),
        Scalar::Integer(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Scalar::Bool(value) => out.extend_from_slice(value.to_string().as_bytes()),
    }
}

/// Appends what fills a hole to a text; a list with commas, and nothing where there is nothing.
fn push_text(hole: &Hole, scene: Scene<'_>, text: &mut String) {
    let push_scalar = |text: &mut String, scalar: &Scalar| match scalar {
        Scalar::Text(own) => text.push_str(own),
        Scalar::Integer(number) => text.push_str(&number.to_string()),
        Scalar::Bool(value) => text.push_str(&value.to_string()),
    };
    match &hole.source {
        Source::User => text.push_str(scene.facts.user().unwrap_or_default()),
        Source::Capture(name) => text.push_str(scene.facts.capture(name).unwrap_or_default()),
        Source::Time => text.push_str(scene.time),
        Source::Connection => text.push_str(&scene.connection.to_string()),
        Source::Claim(path) => match scene.facts.claim(path) {
            Some(ClaimValue::One(scalar)) => push_scalar(text, scalar),
            Some(ClaimValue::Many(list)) => {
                for (at, scalar) in list.iter().enumerate() {
                    text.push_str(if at > 0 { "," } else { "" });
                    push_scalar(text, scalar);
                }
            }
            None => {}
        },
    }
}

/// Writes an object of stamps, such as `{"user":"42"}`.
#[must_use]
pub fn object(stamps: &[Stamp], scene: Scene<'_>) -> String {
    let mut out = b"{".to_vec();
    let mut has_fields = false;
    for stamp in stamps {
        has_fields = stamp.write(scene, has_fields, &mut out);
    }
    out.push(b'}');
    // Everything in it was written as JSON, which is UTF-8.
    String::from_utf8(out).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::channels::tests::Somebody;
    use super::*;

    fn written(stamps: &[(&str, &str)], who: &Somebody) -> serde_json::Value {
        let scene = Scene {
            facts: who,
            connection: ConnectionId::new(1, 2, 3),
            time: "2025-11-10T12:00:00Z",
        };
        let stamps: Vec<_> = (stamps.iter())
            .map(|(name, value)| Stamp::new(name, value).unwrap())
            .collect();
        serde_json::from_str(&object(&stamps, scene)).unwrap()
    }

    #[test]
    fn g5_a_stamp_keeps_its_kind_and_cannot_break_out() {
        let text = |text: &str| Scalar::Text(text.into());
        let hostile = "a\",\"admin\":true,\"\u{2028}\\";
        let who = Somebody {
            user: Some(hostile.into()),
            claims: [
                ("level".to_owned(), ClaimValue::One(Scalar::Integer(3))),
                ("staff".to_owned(), ClaimValue::One(Scalar::Bool(true))),
                (
                    "groups".to_owned(),
                    ClaimValue::Many([text("x\""), Scalar::Integer(7)].into()),
                ),
            ]
            .into(),
            captures: [("room".to_owned(), "r1".to_owned())].into(),
        };
        let stamps = [
            ("user", "{user}"),
            ("level", "{claims.level}"),
            ("staff", "{claims.staff}"),
            ("groups", "{claims.groups}"),
            ("listed", "in {claims.groups}, level {claims.level}"),
            ("absent", "{claims.absent}"),
            ("left out", "{claims.absent?}"),
            ("at", "{time}"),
            ("from", "{room}/{connection}"),
            ("said\"", "{absent}!"),
        ];
        let expected = serde_json::json!({
            "user": hostile,
            "level": 3,
            "staff": true,
            "groups": ["x\"", 7],
            "listed": "in x\",7, level 3",
            "absent": null,
            "at": "2025-11-10T12:00:00Z",
            "from": "r1/0100000200000003",
            "said\"": "!",
        });
        assert_eq!(written(&stamps, &who), expected);
    }
}
