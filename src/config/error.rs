//! What can be wrong with a configuration, said in one line each.
//!
//! A line names where the value was written, the key, the value found, what is accepted and what to
//! write instead. Values are escaped and cut, so that a line stays one line whatever was found.

use std::fmt;
use std::sync::Arc;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// The configuration file, at a line and a column, both counted from 1 (columns in characters).
    File {
        /// The file's name as it was given.
        path: Arc<str>,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
    },
    /// An environment variable, by name.
    Environment(String),
    /// A command line flag, with its dashes.
    Flag(&'static str),
    /// The program that embeds the server and built the configuration itself.
    Program,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", shown(path)),
            Self::Environment(name) => write!(f, "environment {}", shown(name)),
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Program => f.write_str("program"),
        }
    }
}

/// One fault in a configuration. `Display` is one line; where a rule or a path is at fault, two more
/// show the spot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Where the faulty value was written.
    pub source: Source,
    /// The key, as in the configuration file: `http.head_timeout`. Empty for a syntax error.
    pub key: String,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a key or its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The file is not TOML at this place.
    Syntax {
        /// The parser's words.
        detail: String,
    },
    /// There is no such key.
    UnknownKey {
        /// The known key (or environment variable) that is spelled most like it.
        nearest: String,
    },
    /// A key that must be given is not.
    Missing {
        /// What to write.
        fix: String,
    },
    /// The value is of the wrong type or out of range.
    BadValue {
        /// The value as written, cut to a readable length.
        found: String,
        /// Why it is refused.
        why: String,
        /// The accepted values.
        accepted: String,
        /// What to write instead, where that can be told.
        fix: Option<String>,
    },
    /// A text has a fault at one spot.
    Spot {
        /// What is wrong, and where in the text.
        why: String,
        /// The text, and a caret under the spot: two lines.
        excerpt: String,
    },
    /// The value is good by itself, but not beside the others, and too long or too secret to be shown.
    Rule {
        /// What it contradicts, and what to change.
        why: String,
    },
    /// The value is good by itself, but not beside the others.
    Conflict {
        /// The value in force.
        found: String,
        /// What it contradicts, and what to change.
        why: String,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = shown(&self.key);
        write!(f, "{}: ", self.source)?;
        match &self.problem {
            Problem::Syntax { detail } => write!(f, "not valid TOML: {}", shown(detail)),
            Problem::UnknownKey { nearest } => {
                write!(f, "unknown key {key}; the nearest known one is {nearest}")
            }
            Problem::Missing { fix } => write!(f, "{key} is missing; {fix}"),
            Problem::BadValue {
                found,
                why,
                accepted,
                fix,
            } => {
                write!(f, "{key} = {found}: {why}; accepted: {accepted}")?;
                fix.as_ref().map_or(Ok(()), |fix| write!(f, "; {fix}"))
            }
            Problem::Spot { why, excerpt } => write!(f, "{key}: {why}\n{excerpt}"),
            Problem::Rule { why } => write!(f, "{key}: {why}"),
            Problem::Conflict { found, why } => write!(f, "{key} = {found}: {why}"),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Everything that is wrong with a configuration; never empty. `Display` is one line per fault, and
/// what belongs to it indented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Something an operator should know about a configuration that is accepted. `Display` is one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Where the value was written.
    pub source: Source,
    /// The key it concerns.
    pub key: &'static str,
    /// What follows from it.
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.source, self.key, self.text)
    }
}

/// Text from outside as it may appear in a message: on one line, without control or invisible
/// characters, cut at [`SHOWN_CHARS_MAX`].
pub(super) fn shown(text: &str) -> String {
    let mut out = String::new();
    for (index, c) in text.chars().enumerate() {
        if index == SHOWN_CHARS_MAX {
            out.push('…');
            break;
        }
        // `escape_debug` also escapes quotes and backslashes, which are harmless here and would
        // make a quoted value harder to read.
        match c {
            '"' | '\'' | '\\' => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
    }
    out
}

/// Lines that a caret stands under, with each character that would not show as itself replaced by one
/// that does, so that the caret stays where it belongs.
pub(super) fn shown_in_place(text: &str) -> String {
    let replace = |c: char| match c {
        '\n' | '\t' | '"' | '\'' | '\\' => c,
        _ if c.escape_debug().len() == 1 => c,
        _ => '?',
    };
    text.chars().map(replace).collect()
}

/// The candidate spelled most like `wanted`: by whole name, or by last part, so that a key in the
/// wrong section is found too. Ties go to the first.
pub(super) fn nearest<'a>(wanted: &str, candidates: impl Iterator<Item = &'a str>) -> &'a str {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let wanted: String = wanted.chars().take(SHOWN_CHARS_MAX).collect();
    candidates
        .min_by_key(|candidate| {
            let whole = edits(&wanted, candidate);
            // Another section counts as one edit, so that equal names in the right section win.
            whole.min(edits(&last(&wanted), &last(candidate)) + 1)
        })
        .unwrap_or_default()
}

/// Levenshtein distance: insertions, deletions and replacements from one word to the other.
/// O(`from` × `to`).
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

/// Longest piece of outside text quoted in a message, in characters.
const SHOWN_CHARS_MAX: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_count_single_character_changes() {
        for (from, to, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("ping_interval", "ping_intervall", 1),
            ("größe", "grösse", 2),
        ] {
            assert_eq!(edits(from, to), expected, "{from:?} {to:?}");
        }
    }

    #[test]
    fn the_nearest_key_may_be_in_another_section() {
        let known = [
            "reactors",
            "http.head_timeout",
            "websocket.ping_interval",
            "log.level",
        ];
        for (wanted, expected) in [
            ("reactor", "reactors"),
            ("http.head_timout", "http.head_timeout"),
            ("ws.ping_interval", "websocket.ping_interval"),
            ("ping_intervall", "websocket.ping_interval"),
            ("logging.level", "log.level"),
        ] {
            assert_eq!(nearest(wanted, known.into_iter()), expected, "{wanted}");
        }
    }

    #[test]
    fn h4_outside_text_stays_on_one_line_and_is_cut() {
        assert_eq!(
            shown("a\nb\u{1b}[31m\u{202e}\"x\""),
            "a\\nb\\u{1b}[31m\\u{202e}\"x\""
        );
        assert_eq!(
            shown(&"x".repeat(5_000)).chars().count(),
            SHOWN_CHARS_MAX + 1
        );
    }
}
