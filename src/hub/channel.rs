//! The name of a channel, validated once: whoever holds a [`Channel`] need not look at it again.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Longest name of a channel, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// A channel's name: 1 to [`NAME_BYTES_MAX`] bytes of `A-Z a-z 0-9` and `_ - . : / @ #`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Channel(Arc<str>);

impl Channel {
    /// Checks a name and keeps it.
    ///
    /// # Errors
    /// [`ChannelError`] says which rule the name breaks.
    pub fn new(name: &str) -> Result<Self, ChannelError> {
        if name.is_empty() {
            return Err(ChannelError::Empty);
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(ChannelError::TooLong);
        }
        if !name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-.:/@#".contains(&byte))
        {
            return Err(ChannelError::Character);
        }
        Ok(Self(name.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The reactor that orders this channel's publications, out of `reactors`. Every thread of the
    /// process computes the same one: the hash is keyed once per process.
    #[must_use]
    pub fn home(&self, hasher: &ahash::RandomState, reactors: usize) -> usize {
        // Taking the high half of a product spreads a hash over any number of reactors evenly.
        let product = u128::from(hasher.hash_one(&*self.0)) * reactors as u128;
        usize::try_from(product >> 64).unwrap_or(0)
    }
}

impl Hash for Channel {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Channel({:?})", &*self.0)
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a name is not a channel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelError {
    /// No characters at all.
    Empty,
    /// More than [`NAME_BYTES_MAX`] bytes.
    TooLong,
    /// A character outside the grammar.
    Character,
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a channel's name must not be empty"),
            Self::TooLong => write!(f, "a channel's name has at most {NAME_BYTES_MAX} bytes"),
            Self::Character => {
                f.write_str("a channel's name is made of A-Z a-z 0-9 and _ - . : / @ #")
            }
        }
    }
}

impl std::error::Error for ChannelError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g1_names_follow_one_grammar() {
        for good in [
            "a",
            "notifications_42",
            "room:1/cursor@x#y.z-",
            &"n".repeat(NAME_BYTES_MAX),
        ] {
            assert_eq!(Channel::new(good).unwrap().as_str(), good);
        }
        assert_eq!(Channel::new(""), Err(ChannelError::Empty));
        assert_eq!(
            Channel::new(&"n".repeat(NAME_BYTES_MAX + 1)),
            Err(ChannelError::TooLong)
        );
        for byte in (0u8..=255).filter(|byte| !byte.is_ascii_alphanumeric()) {
            let name = format!("a{}", char::from(byte));
            assert_eq!(
                Channel::new(&name).is_ok(),
                b"_-.:/@#".contains(&byte),
                "{name:?}"
            );
        }
    }

    #[test]
    fn homes_are_spread_over_all_reactors() {
        let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
        for reactors in [1, 3, 7] {
            let mut seen = vec![0usize; reactors];
            for number in 0..7000 {
                seen[Channel::new(&number.to_string())
                    .unwrap()
                    .home(&hasher, reactors)] += 1;
            }
            assert!(
                seen.iter().all(|count| *count > 7000 / reactors / 2),
                "{seen:?}"
            );
        }
    }
}
