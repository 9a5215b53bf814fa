//! Path templates: which paths a route is for, and what is captured from them.
//!
//! ```text
//! /ws/notifications/
//! /ws/projects/{project_id:int}/
//! /ws/collaboration/{room}/
//! ```
//!
//! A template is a path whose segments are literal or captures, each a whole segment:
//!
//! | capture | takes | example |
//! | --- | --- | --- |
//! | `{name}`, `{name:word}` | `[A-Za-z0-9_-]{1,64}` | `room-7` |
//! | `{name:int}` | 1 to 19 digits; no sign, and no leading zero but in `0` | `42` |
//! | `{name:uuid}` | a hyphenated UUID, hexadecimal digits in lower case (RFC 9562 §4) | `6f1c9ad0-c4b8-4f0f-9a2e-4d6a1b2c3d4e` |
//!
//! What is captured becomes part of channel names and is compared by rules. So no capture takes a dot,
//! a slash, a percent escape or any other byte that could end one part of a name and begin another.
//!
//! Paths are matched as they were sent, byte for byte, and never decoded: a resource has one spelling,
//! and every other one is not found. A rule that is written for one spelling can then not be passed by
//! with another (`/ws/admin` as `/ws/%61dmin`, `int` `7` as `007`, a UUID in upper case).
//!
//! The slash at the end is part of the spelling: `/ws/notifications/` and `/ws/notifications` are two
//! paths. URL patterns of Django Channels and the clients written for them spell it out; there is no
//! redirect to fall back on, because a WebSocket client does not follow one. Who wants both writes both.
//!
//! Left to others: what makes a path well-formed at all ([`Head::path`](super::head::Head::path)), and
//! what to do when two templates of a file [overlap](Template::overlaps).

use std::fmt;

/// A template, parsed. Belongs to the configuration: parsed once, matched for every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    text: Box<str>,
    segments: Box<[Segment]>,
    /// The captures' names, in the order of their segments.
    names: Box<[Box<str>]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    /// Empty only as the last one, behind a slash at the end.
    Literal(Box<str>),
    Capture(Kind),
}

/// What a capture takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Word,
    Int,
    Uuid,
}

impl Template {
    /// Longest template in bytes.
    pub const BYTES_MAX: usize = 512;
    /// Most captures in a template.
    pub const CAPTURES_MAX: usize = 8;
    /// Longest name of a capture in bytes. It begins with a letter or `_` and goes on with letters,
    /// digits, `_` and `-`, as rules write it.
    pub const NAME_BYTES_MAX: usize = 32;
    /// Longest captured word in bytes.
    pub const WORD_BYTES_MAX: usize = 64;

    /// Parses a template. A literal segment holds letters, digits, `-._~`, `@`, `+`, `=`, `,` and `:`,
    /// the last one not at its beginning. Linear.
    ///
    /// # Errors
    /// The first fault, with its place.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let fault = |at, message| TemplateError::at(text, at, message);
        let Some(path) = text.strip_prefix('/') else {
            return Err(fault(0, "a path begins with `/`"));
        };
        let mut segments = Vec::new();
        let mut names: Vec<Box<str>> = Vec::new();
        let mut at = 1;
        for part in path.split('/') {
            let is_last = at + part.len() == text.len();
            if part.is_empty() && !is_last {
                return Err(fault(at, "an empty segment, which no path may have"));
            }
            if part.contains(['{', '}']) {
                let (name, kind) =
                    capture(part).map_err(|(offset, message)| fault(at + offset, message))?;
                if names.iter().any(|known| **known == *name) {
                    return Err(fault(at + 1, "this name is taken by a capture before it"));
                }
                if names.len() == Self::CAPTURES_MAX {
                    return Err(fault(at, "more than 8 captures"));
                }
                names.push(name.into());
                segments.push(Segment::Capture(kind));
            } else {
                check_literal(part).map_err(|(offset, message)| fault(at + offset, message))?;
                segments.push(Segment::Literal(part.into()));
            }
            at += part.len() + 1;
        }
        // All of it is ASCII here, so every byte is a place to point at.
        if text.len() > Self::BYTES_MAX {
            return Err(fault(
                Self::BYTES_MAX,
                "the template is longer than 512 bytes",
            ));
        }
        Ok(Self {
            text: text.into(),
            segments: segments.into(),
            names: names.into(),
        })
    }

    /// The template as written.
    #[must_use]
    pub const fn as_str(&self) -> &str {
        &self.text
    }

    /// The names of the captures, in the order of the path.
    #[must_use]
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.names.iter().map(AsRef::as_ref)
    }

    /// What the captures take from `path`, or `None` if the template is for other paths. `path` is that
    /// of [`Head::path`](super::head::Head::path), without a query. Allocates nothing; looks at no more
    /// bytes than the longest path that matches has, however long `path` is.
    #[must_use]
    pub fn matches<'t, 'p>(&'t self, path: &'p str) -> Option<Captures<'t, 'p>> {
        let mut captures = Captures {
            names: &self.names,
            values: [""; Self::CAPTURES_MAX],
        };
        // Most requests go to paths without captures.
        if self.names.is_empty() {
            return (*path == *self.text).then_some(captures);
        }
        let mut values = captures.values.iter_mut();
        let mut rest = path;
        for segment in &self.segments {
            rest = rest.strip_prefix('/')?;
            match segment {
                Segment::Literal(literal) => rest = rest.strip_prefix(&**literal)?,
                Segment::Capture(kind) => {
                    let (value, behind) = rest.split_at(kind.taken(rest)?);
                    *values.next()? = value;
                    rest = behind;
                }
            }
        }
        rest.is_empty().then_some(captures)
    }

    /// Is there a path that both match, while neither is the more specific one? A template is more
    /// specific if it is for fewer paths: each of its segments takes what the other's takes, or less. An
    /// `int` or a UUID is also a word; nothing is an `int` and a UUID.
    ///
    /// `/a/{x}` and `/{y}/b` overlap, for `/a/b`; `/a/{x}` and `/a/b` do not, since the second is an
    /// exception to the first. Of overlapping templates a reader of the file cannot say which one
    /// serves, so a configuration should refuse them.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        if self.segments.len() != other.segments.len() {
            return false;
        }
        let (mut narrower, mut wider) = (false, false);
        for (own, their) in self.segments.iter().zip(&other.segments) {
            match (own.is_within(their), their.is_within(own)) {
                (true, true) => {}
                (true, false) => narrower = true,
                (false, true) => wider = true,
                (false, false) => return false,
            }
        }
        narrower == wider
    }

    /// Does this one go before `other`, of two that match the same path?
    fn goes_before(&self, other: &Self) -> bool {
        let ranks = self.segments.iter().map(Segment::rank);
        ranks.lt(other.segments.iter().map(Segment::rank))
    }
}

/// The template for `path`, by the index it is given here, and what it captures.
///
/// Of several that match, the first segment in which they differ decides: a literal goes before `int`
/// and `uuid`, these before a word. The order of `templates` has no say, unless two of them
/// [overlap](Template::overlaps) with the same kinds of segments all along; then the first one serves.
/// One look at each template; meant for tens of them.
#[must_use]
pub fn find<'t, 'p>(
    templates: impl IntoIterator<Item = (usize, &'t Template)>,
    path: &'p str,
) -> Option<(usize, Captures<'t, 'p>)> {
    let mut best: Option<(usize, &Template, Captures<'t, 'p>)> = None;
    for (index, template) in templates {
        let Some(captures) = template.matches(path) else {
            continue;
        };
        if template.names.is_empty() {
            return Some((index, captures));
        }
        if best
            .as_ref()
            .is_none_or(|(_, other, _)| template.goes_before(other))
        {
            best = Some((index, template, captures));
        }
    }
    best.map(|(index, _, captures)| (index, captures))
}

impl Segment {
    /// Does `other` take all that this one takes?
    fn is_within(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Literal(own), Self::Literal(their)) => own == their,
            (Self::Literal(own), Self::Capture(kind)) => kind.taken(own) == Some(own.len()),
            (Self::Capture(_), Self::Literal(_)) => false,
            (Self::Capture(own), Self::Capture(their)) => own == their || *their == Kind::Word,
        }
    }

    /// Lower goes first. `int` and `uuid` need no order: no segment is both.
    const fn rank(&self) -> u8 {
        match self {
            Self::Literal(_) => 0,
            Self::Capture(Kind::Int | Kind::Uuid) => 1,
            Self::Capture(Kind::Word) => 2,
        }
    }
}

impl Kind {
    const fn parse(name: &str) -> Option<Self> {
        match name.as_bytes() {
            b"word" => Some(Self::Word),
            b"int" => Some(Self::Int),
            b"uuid" => Some(Self::Uuid),
            _ => None,
        }
    }

    /// How many bytes at the front of `rest` the capture takes: as many as it can, so that the whole
    /// segment was taken if `/` or nothing is left behind them. What is taken is ASCII.
    fn taken(self, rest: &str) -> Option<usize> {
        let run = |max: usize, passes: fn(&u8) -> bool| {
            let taken = rest.bytes().take(max).take_while(passes).count();
            (taken > 0).then_some(taken)
        };
        match self {
            Self::Word => run(Template::WORD_BYTES_MAX, |&byte| is_word_byte(byte)),
            Self::Int => run(INT_DIGITS_MAX, u8::is_ascii_digit)
                .filter(|&taken| taken == 1 || !rest.starts_with('0')),
            Self::Uuid => {
                let bytes = rest.as_bytes().get(..UUID_BYTES)?;
                let passes = |(at, &byte): (usize, &u8)| match at {
                    8 | 13 | 18 | 23 => byte == b'-',
                    _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
                };
                bytes.iter().enumerate().all(passes).then_some(UUID_BYTES)
            }
        }
    }
}

/// The most digits that every number of them fits into 64 bits, unsigned.
const INT_DIGITS_MAX: usize = 19;

/// Bytes of a hyphenated UUID (RFC 9562 §4).
const UUID_BYTES: usize = 36;

const fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

/// What is wrong with a segment, and how many bytes into it.
type Fault = (usize, &'static str);

/// Takes a segment with braces in it apart into the capture's name and kind.
fn capture(part: &str) -> Result<(&str, Kind), Fault> {
    const WHOLE: &str = "a capture is a whole segment: `/` stands before `{` and behind `}`";
    if !part.starts_with('{') {
        return Err((part.find(['{', '}']).unwrap_or(0), WHOLE));
    }
    let inner = &part[1..];
    let end = inner.find('}').ok_or((0, "this brace is not closed"))?;
    if end + 1 < inner.len() {
        return Err((end + 2, WHOLE));
    }
    let inner = &inner[..end];
    let (name, kind) = inner.split_once(':').unwrap_or((inner, "word"));
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    if !name.bytes().next().is_some_and(is_letter) {
        return Err((1, "the name of a capture begins with a letter"));
    }
    if let Some(at) = name.bytes().position(|byte| !is_word_byte(byte)) {
        return Err((1 + at, "a name holds letters, digits, `_` and `-`"));
    }
    if name.len() > Template::NAME_BYTES_MAX {
        return Err((1, "this name is longer than 32 bytes"));
    }
    let kind = Kind::parse(kind).ok_or((2 + name.len(), "expected `word`, `int` or `uuid`"))?;
    Ok((name, kind))
}

fn check_literal(part: &str) -> Result<(), Fault> {
    if part == "." || part == ".." {
        return Err((0, "a dot segment, which no path may have"));
    }
    for (at, character) in part.char_indices() {
        let message = match character {
            ':' if at == 0 => "write a capture as `{name}`",
            '-' | '.' | '_' | '~' | '@' | '+' | '=' | ',' | ':' => continue,
            letter if letter.is_ascii_alphanumeric() => continue,
            '%' => "paths are matched as sent: a percent escape has no place here",
            '*' => "there are no wildcards: write `{name}` for a segment",
            '<' | '>' => "write a capture as `{name}` or `{name:int}`",
            '?' | '#' => "a template is for the path alone, without a query",
            _ => "this character has no place in a path",
        };
        return Err((at, message));
    }
    Ok(())
}

impl std::str::FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        Self::parse(text)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a template took from a path. Borrows the names from the one and the values from the other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Captures<'t, 'p> {
    names: &'t [Box<str>],
    /// As many as there are names; the others are empty.
    values: [&'p str; Template::CAPTURES_MAX],
}

impl<'t, 'p> Captures<'t, 'p> {
    /// What the capture called `name` took; `None` if the template has no such capture.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'p str> {
        let at = self.names.iter().position(|known| **known == *name)?;
        Some(self.values[at])
    }

    /// All captures as (name, value), in the order of the path.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'t str, &'p str)> {
        self.names
            .iter()
            .zip(&self.values)
            .map(|(name, value)| (&**name, *value))
    }
}

impl fmt::Debug for Captures<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// What is wrong with a template, and where. Prints three lines: the message, the template, and a caret
/// under the spot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    column: usize,
    message: &'static str,
    source: Box<str>,
}

impl TemplateError {
    pub(crate) fn at(text: &str, at: usize, message: &'static str) -> Self {
        Self {
            column: text[..at].chars().count() + 1,
            message,
            source: text.into(),
        }
    }

    /// The character within the template, from 1; one more than it has if something is missing at its
    /// end.
    #[must_use]
    pub const fn column(&self) -> usize {
        self.column
    }

    /// What is wrong, without the place.
    #[must_use]
    pub const fn message(&self) -> &'static str {
        self.message
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A window of the template, so that a caret far to the right stays on the screen, and in one
        // line, so that it stands under the spot.
        let from = self.column.saturating_sub(WINDOW_BEFORE + 1);
        let window: String = self
            .source
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .skip(from)
            .take(WINDOW)
            .collect();
        writeln!(f, "column {}: {}", self.column, self.message)?;
        writeln!(f, "  {window}")?;
        write!(f, "  {:>width$}", '^', width = self.column - from)
    }
}

impl std::error::Error for TemplateError {}

/// Characters of a template that are shown, and how many of them before the fault.
const WINDOW: usize = 100;
const WINDOW_BEFORE: usize = 70;

#[cfg(test)]
mod tests;
