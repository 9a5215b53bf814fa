//! Which channels a connection joins: templates such as `notifications_{user}`, filled with what its
//! token and its path say.
//!
//! What fills a hole is chosen by others: by an issuer, by whoever picks a user name, by whoever writes a
//! URL. Three rules keep a value from reaching a channel it was not meant for (G2):
//!
//! * A value is 1 to 64 of `A-Z a-z 0-9 _ - . @`. Between two holes stands one of `: / #`, which no value
//!   holds, so that values cannot run into one another; and a template begins with a text of its own.
//! * **Every name belongs to one template** of the configuration: of those that could make it, the one
//!   with the longest text at its beginning. A value that would make a name of another one's is refused.
//!   So with `notifications_{user}`, `notifications_role_{claims.role}` and `notifications_all`, the users
//!   `all` and `role_Admin` get no channel, rather than everybody's and the administrators'.
//! * There is no way to subscribe to a pattern.
//!
//! A claim that is a list fills a hole once with each of its members. A hole that cannot be filled ends
//! the connection; one with a question mark leaves the template out.

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::admission::claim::{ClaimValue, Scalar};
use crate::http::template::TemplateError;
use crate::hub::Channel;
use crate::hub::channel::NAME_BYTES_MAX;

use super::pattern::{Facts, Hole, Part, Pattern, Source};

/// Longest value in bytes.
pub const VALUE_BYTES_MAX: usize = 64;

/// Most members of a list that fill a hole. A longer list is refused, not cut: which part of it counts
/// would be a matter of chance.
pub const LIST_VALUES_MAX: usize = 64;

/// Most channels a connection joins by its route.
pub const CHANNELS_MAX: usize = 128;

/// The template of a channel's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelTemplate {
    pattern: Pattern,
}

/// The channels of one connection.
pub type Channels = SmallVec<[Channel; 3]>;

impl ChannelTemplate {
    /// Parses a template.
    ///
    /// # Errors
    /// The first fault, with its place.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let pattern = Pattern::parse(text)?;
        let fault = |at, message| Err(TemplateError::at(text, at, message));
        let mut shortest = 0;
        let mut is_apart = true;
        for part in pattern.parts() {
            match part {
                Part::Literal(at, literal) => {
                    let is_foreign = |c: char| !c.is_ascii() || !is_name_byte(c as u8);
                    if let Some(bad) = literal.find(is_foreign) {
                        let message = "a channel's name is made of A-Z a-z 0-9 and _ - . : / @ #";
                        return fault(at + bad, message);
                    }
                    shortest += literal.len();
                    is_apart |= literal.contains(SEPARATORS);
                }
                Part::Hole(0, _) => {
                    let message = "begin with a text of its own, such as room_{room}, \
                                   or a value could name any channel";
                    return fault(0, message);
                }
                Part::Hole(at, hole) => {
                    if matches!(hole.source, Source::Time | Source::Connection) {
                        return fault(at + 1, "a channel is named by user, claims and captures");
                    }
                    if !is_apart {
                        let message = "one of : / # must stand between two values, or one could run \
                                       into the other";
                        return fault(*at, message);
                    }
                    shortest += 1;
                    is_apart = false;
                }
            }
        }
        if shortest > NAME_BYTES_MAX {
            return fault(0, "a channel's name has at most 128 bytes");
        }
        Ok(Self { pattern })
    }

    /// As it was written.
    #[must_use]
    pub const fn as_str(&self) -> &str {
        self.pattern.as_str()
    }

    /// What it is made of.
    #[must_use]
    pub const fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// The text that all its names begin with.
    #[must_use]
    pub fn begins_with(&self) -> &str {
        match self.pattern.parts().first() {
            Some(Part::Literal(_, literal)) => literal,
            _ => "",
        }
    }

    /// Whether both make the same names, whatever their values are called.
    #[must_use]
    pub fn makes_the_names_of(&self, other: &Self) -> bool {
        self.shape().eq(other.shape())
    }

    /// The texts between the holes.
    fn shape(&self) -> impl Iterator<Item = Option<&str>> {
        self.pattern.parts().iter().map(|part| match part {
            Part::Literal(_, literal) => Some(&**literal),
            Part::Hole(..) => None,
        })
    }

    /// Whether some values make this name. Linear in the name.
    #[must_use]
    pub fn could_make(&self, name: &str) -> bool {
        let mut rest = name;
        let mut parts = self.pattern.parts().iter();
        while let Some(part) = parts.next() {
            if let Part::Literal(_, literal) = part {
                let Some(after) = rest.strip_prefix(&**literal) else {
                    return false;
                };
                rest = after;
                continue;
            }
            let (value, after) = match parts.next() {
                Some(Part::Literal(_, literal)) => {
                    let is_last = parts.as_slice().is_empty();
                    let at = if is_last {
                        rest.strip_suffix(&**literal).map(str::len)
                    } else {
                        // A separator is in it, and in no value: its first place is its only one.
                        rest.find(&**literal)
                    };
                    let Some(at) = at else { return false };
                    (&rest[..at], &rest[at + literal.len()..])
                }
                _ => (rest, ""),
            };
            if !is_value(value) {
                return false;
            }
            rest = after;
        }
        rest.is_empty()
    }

    /// Of two templates that could make a name, the greater one owns it: the one with more text at its
    /// beginning, then in all. What else differs decides only so that one does.
    fn rank(&self) -> impl Ord {
        let literals = || self.shape().map(|text| text.map_or(0, str::len));
        let shape: Vec<Option<&str>> = self.shape().collect();
        (literals().next(), literals().sum::<usize>(), shape)
    }

    /// Fills the template; the names are in the order of the lists' members, each once.
    fn fill(&self, facts: &dyn Facts) -> Result<SmallVec<[String; 1]>, Unresolved> {
        let mut names: SmallVec<[String; 1]> = SmallVec::new();
        names.push(String::new());
        for part in self.pattern.parts() {
            match part {
                Part::Literal(_, literal) => names.iter_mut().for_each(|name| *name += literal),
                Part::Hole(_, hole) => {
                    let values = values(hole, facts)?;
                    if names.len() * values.len() > CHANNELS_MAX {
                        return Err(Unresolved::TooMany(hole.to_string()));
                    }
                    names = (names.iter())
                        .flat_map(|name| values.iter().map(move |value| format!("{name}{value}")))
                        .collect();
                }
            }
        }
        Ok(names)
    }
}

/// What goes into a hole: at least one value.
fn values(hole: &Hole, facts: &dyn Facts) -> Result<SmallVec<[String; 1]>, Unresolved> {
    let missing = || Unresolved::Missing(hole.to_string(), hole.is_optional);
    let unfit = || Unresolved::Unfit(hole.to_string(), hole.is_optional);
    let checked = |text: &str| is_value(text).then(|| text.to_owned()).ok_or_else(unfit);
    let scalar = |scalar: &Scalar| match scalar {
        Scalar::Text(text) => checked(text),
        Scalar::Integer(number) => Ok(number.to_string()),
        Scalar::Bool(_) => Err(unfit()),
    };
    let one = |text: Option<&str>| Ok([checked(text.ok_or_else(missing)?)?].into_iter().collect());
    match &hole.source {
        Source::User => one(facts.user()),
        Source::Capture(name) => one(facts.capture(name)),
        Source::Claim(path) => match facts.claim(path) {
            None => Err(missing()),
            Some(ClaimValue::One(value)) => Ok([scalar(value)?].into_iter().collect()),
            Some(ClaimValue::Many(list)) if list.is_empty() => Err(missing()),
            Some(ClaimValue::Many(list)) if list.len() > LIST_VALUES_MAX => {
                Err(Unresolved::TooMany(hole.to_string()))
            }
            Some(ClaimValue::Many(list)) => list.iter().map(scalar).collect(),
        },
        // No template has these.
        Source::Time | Source::Connection => Err(missing()),
    }
}

/// All templates of a configuration, for the question whose a name is.
#[derive(Clone, Debug, Default)]
pub struct Names {
    templates: Box<[ChannelTemplate]>,
}

impl Names {
    /// The names that these templates make.
    pub fn new<'t>(templates: impl IntoIterator<Item = &'t ChannelTemplate>) -> Self {
        let mut all: Vec<ChannelTemplate> = Vec::new();
        for template in templates {
            if !all.iter().any(|known| known.makes_the_names_of(template)) {
                all.push(template.clone());
            }
        }
        Self {
            templates: all.into(),
        }
    }

    /// The template that a name belongs to. One look at each.
    fn owner(&self, name: &str) -> Option<&ChannelTemplate> {
        (self.templates.iter())
            .filter(|template| template.could_make(name))
            .max_by(|one, other| one.rank().cmp(&other.rank()))
    }
}

/// The channels of a route.
#[derive(Clone, Debug)]
pub struct ChannelTemplates {
    own: Box<[ChannelTemplate]>,
    names: Arc<Names>,
}

impl ChannelTemplates {
    /// These templates, among all the names of a configuration.
    #[must_use]
    pub fn new(own: Vec<ChannelTemplate>, names: Arc<Names>) -> Self {
        Self {
            own: own.into(),
            names,
        }
    }

    /// The channels of somebody of whom this is known, in the order of the templates, each once.
    /// Allocates each name.
    ///
    /// # Errors
    /// A hole that cannot be filled, unless it need not be.
    pub fn of(&self, facts: &dyn Facts) -> Result<Channels, Unresolved> {
        let mut channels = Channels::new();
        for template in &self.own {
            let names = match template.fill(facts) {
                Ok(names) => names,
                Err(unresolved) if unresolved.is_forgiven() => continue,
                Err(unresolved) => return Err(unresolved),
            };
            for name in names {
                let owner = self.names.owner(&name);
                if owner.is_some_and(|owner| !owner.makes_the_names_of(template)) {
                    return Err(Unresolved::Foreign);
                }
                let channel = Channel::new(&name).map_err(|_| Unresolved::TooLong)?;
                if channels.contains(&channel) {
                    continue;
                }
                if channels.len() == CHANNELS_MAX {
                    return Err(Unresolved::TooManyChannels);
                }
                channels.push(channel);
            }
        }
        Ok(channels)
    }

    /// Whether a channel is one of the route's, of whomever: what a backend may name in its answers.
    #[must_use]
    pub fn covers(&self, channel: &Channel) -> bool {
        let name = channel.as_str();
        let owner = self.names.owner(name);
        (self.own.iter()).any(|template| {
            template.could_make(name)
                && owner.is_none_or(|owner| owner.makes_the_names_of(template))
        })
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.own.is_empty()
    }
}

/// Why somebody has not the channels of a route. `Display` is for the client: it names what is missing
/// and no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// Nothing is known that would go into this hole; whether that is foreseen.
    Missing(String, bool),
    /// What is known cannot be part of a name; whether that is foreseen.
    Unfit(String, bool),
    /// A list has more than [`LIST_VALUES_MAX`] members, or lists together make too many names.
    TooMany(String),
    /// The values make a name that belongs to another template.
    Foreign,
    /// The values make a name that is too long.
    TooLong,
    /// More than [`CHANNELS_MAX`].
    TooManyChannels,
}

impl Unresolved {
    const fn is_forgiven(&self) -> bool {
        matches!(self, Self::Missing(_, true) | Self::Unfit(_, true))
    }
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(what, _) => write!(f, "no channel: {what} is missing"),
            Self::Unfit(what, _) => write!(f, "no channel: {what} is unfit for a name"),
            Self::TooMany(what) => write!(f, "no channel: {what} has too many values"),
            Self::Foreign => f.write_str("no channel: its name is another one's"),
            Self::TooLong => f.write_str("no channel: its name is too long"),
            Self::TooManyChannels => f.write_str("too many channels"),
        }
    }
}

impl std::error::Error for Unresolved {}

/// No value holds one of these.
const SEPARATORS: [char; 3] = [':', '/', '#'];

const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b':' | b'/' | b'@' | b'#')
}

fn is_value(text: &str) -> bool {
    (1..=VALUE_BYTES_MAX).contains(&text.len())
        && (text.bytes())
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'@'))
}

#[cfg(test)]
pub(in crate::routes) mod tests;
