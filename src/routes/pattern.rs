//! A text with holes, such as `notifications_role_{claims.role?}`, which each connection fills with what
//! is known of it.
//!
//! | hole | what goes in |
//! | --- | --- |
//! | `{user}` | the user of the connection's token |
//! | `{claims.role}` | a claim of it, written as in rules: `{claims.realm_access.roles}`, `{claims.'https://example.com/roles'}` |
//! | `{name}` | what the route's path captured under this name |
//! | `{time}` | the moment, as `2025-11-10T12:00:00Z` |
//! | `{connection}` | the connection's id |
//!
//! A question mark behind the name, `{claims.role?}`, says that there may be nothing to go in; what then
//! happens is for the user of the pattern to say.

use crate::admission::claim::{ClaimPath, ClaimValue};
use crate::http::template::{Template, TemplateError};

/// A pattern, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: Box<str>,
    parts: Box<[Part]>,
}

/// A piece of a pattern, and the byte it begins at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Literal(usize, Box<str>),
    Hole(usize, Hole),
}

/// A place to be filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hole {
    pub(super) source: Source,
    /// Whether there may be nothing to fill it with.
    pub(super) is_optional: bool,
}

/// Where what fills a hole comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    User,
    Claim(ClaimPath),
    Capture(Box<str>),
    Time,
    Connection,
}

/// What is known of a connection.
pub trait Facts {
    /// The user of its token.
    fn user(&self) -> Option<&str>;
    /// A claim of its token.
    fn claim(&self, path: &ClaimPath) -> Option<&ClaimValue>;
    /// What the path captured under this name.
    fn capture(&self, name: &str) -> Option<&str>;
}

impl Pattern {
    /// Longest pattern in bytes.
    pub const BYTES_MAX: usize = 512;

    /// Parses a pattern. Linear.
    ///
    /// # Errors
    /// The first fault, with its place.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let fault = |at, message| TemplateError::at(text, at, message);
        if text.is_empty() {
            return Err(fault(0, "this is empty"));
        }
        if text.len() > Self::BYTES_MAX {
            return Err(fault(0, "this is longer than 512 bytes"));
        }
        let mut parts = Vec::new();
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            if let Some(inner) = rest.strip_prefix('{') {
                let length = hole_length(inner).ok_or_else(|| fault(at, "this is not closed"))?;
                let hole = Hole::parse(&inner[..length]);
                let hole = hole.map_err(|message| fault(at + 1, message))?;
                parts.push(Part::Hole(at, hole));
                at += length + 2;
            } else {
                let length = rest.find(['{', '}']).unwrap_or(rest.len());
                if let Some(bad) = rest[..length].find(char::is_control) {
                    return Err(fault(at + bad, "a control character"));
                }
                if length == 0 {
                    return Err(fault(at, "this closes nothing"));
                }
                parts.push(Part::Literal(at, rest[..length].into()));
                at += length;
            }
        }
        Ok(Self {
            text: text.into(),
            parts: parts.into(),
        })
    }

    /// As it was written.
    #[must_use]
    pub const fn as_str(&self) -> &str {
        &self.text
    }

    /// Its pieces: no two literals in a row, and at least one of either kind.
    pub(super) const fn parts(&self) -> &[Part] {
        &self.parts
    }

    fn holes(&self) -> impl Iterator<Item = &Hole> {
        self.parts.iter().filter_map(|part| match part {
            Part::Hole(_, hole) => Some(hole),
            Part::Literal(..) => None,
        })
    }

    /// The claims it asks for, so that they are kept of a token. One may come several times.
    pub fn claims(&self) -> impl Iterator<Item = &ClaimPath> {
        self.holes().filter_map(|hole| match &hole.source {
            Source::Claim(path) => Some(path),
            Source::User | Source::Capture(_) | Source::Time | Source::Connection => None,
        })
    }

    /// The captures it asks for. One may come several times.
    pub fn captures(&self) -> impl Iterator<Item = &str> {
        self.holes().filter_map(|hole| match &hole.source {
            Source::Capture(name) => Some(&**name),
            Source::User | Source::Claim(_) | Source::Time | Source::Connection => None,
        })
    }

    /// Whether it asks for the moment.
    #[must_use]
    pub fn asks_for_time(&self) -> bool {
        self.holes().any(|hole| hole.source == Source::Time)
    }

    /// Whether it asks for anything that only a token says.
    #[must_use]
    pub fn asks_for_token(&self) -> bool {
        let is_of_token = |hole: &Hole| {
            !hole.is_optional && matches!(hole.source, Source::User | Source::Claim(_))
        };
        self.holes().any(is_of_token)
    }
}

/// Names of holes that a path's capture of the same name would hide behind.
pub const RESERVED: [&str; 4] = ["user", "claims", "time", "connection"];

/// How long what stands in the braces is; `None` if they are not closed. A quoted name may hold a brace.
fn hole_length(inner: &str) -> Option<usize> {
    let mut quote = None;
    for (at, byte) in inner.bytes().enumerate() {
        match (byte, quote) {
            (b'}', None) => return Some(at),
            (b'"' | b'\'', None) => quote = Some(byte),
            (byte, Some(open)) if byte == open => quote = None,
            _ => {}
        }
    }
    None
}

impl Hole {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let (name, is_optional) = match text.strip_suffix('?') {
            Some(name) => (name, true),
            None => (text, false),
        };
        let is_bare = |name: &str| {
            name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
                && (name.bytes()).all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
        };
        let source = match name {
            "user" => Source::User,
            "time" => Source::Time,
            "connection" => Source::Connection,
            "claims" => return Err("which claim? write {claims.role}"),
            _ if is_bare(name) && name.len() <= Template::NAME_BYTES_MAX => {
                Source::Capture(name.into())
            }
            _ => {
                let path = name.strip_prefix("claims.").and_then(ClaimPath::parse);
                Source::Claim(
                    path.ok_or("expected user, claims.NAME, or the name of a path's capture")?,
                )
            }
        };
        Ok(Self {
            source,
            is_optional,
        })
    }
}

impl std::fmt::Display for Hole {
    /// As a reason for a client: what it lacks.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.source {
            Source::User => f.write_str("user"),
            Source::Claim(path) => write!(f, "claims.{path}"),
            Source::Capture(name) => f.write_str(name),
            Source::Time => f.write_str("time"),
            Source::Connection => f.write_str("connection"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_come_apart_into_texts_and_holes() {
        let text = "a_{user}:{claims.realm_access.'x}?'?}/{project-id?}";
        let pattern = Pattern::parse(text).unwrap();
        let shown: Vec<String> = (pattern.parts().iter())
            .map(|part| match part {
                Part::Literal(_, text) => text.to_string(),
                Part::Hole(_, hole) => format!("<{hole} {}>", hole.is_optional),
            })
            .collect();
        assert_eq!(
            shown,
            [
                "a_",
                "<user false>",
                ":",
                "<claims.realm_access.\"x}?\" true>",
                "/",
                "<project-id true>"
            ]
        );
        assert_eq!(pattern.as_str(), text);
        assert_eq!(pattern.captures().collect::<Vec<_>>(), ["project-id"]);
        assert_eq!(pattern.claims().count(), 1);
        assert!(pattern.asks_for_token());
    }

    #[test]
    fn a_fault_is_told_with_its_place() {
        for (text, column) in [
            ("", 1),
            ("a}", 2),
            ("a{user", 2),
            ("a{}", 3),
            ("a{user ?}", 3),
            ("a_{claims}", 4),
            ("a_{claims.}", 4),
            ("a_{claims.a b}", 4),
            ("a_{7up}", 4),
            ("a\nb", 2),
            ("ü{ü}", 3),
            ("{claims.'a}", 1),
            (&format!("{{{}}}", "n".repeat(33)), 2),
            (&"n".repeat(513), 1),
        ] {
            let error = Pattern::parse(text).unwrap_err();
            assert_eq!(error.column(), column, "{text:?}: {error}");
        }
        assert!(Pattern::parse(&"n".repeat(512)).is_ok());
        assert!(Pattern::parse(&format!("{{{}}}", "n".repeat(32))).is_ok());
    }
}
