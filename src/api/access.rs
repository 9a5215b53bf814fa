//! Who may use the API: keys, each with the channels and the rate it is good for.
//!
//! A key is compared by its hash and in constant time, with every key there is, so that neither a part
//! nor the length of one can be guessed from how long the answer takes (D11). The keys themselves are
//! not kept.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};

use crate::admission::rate::{Moment, Quota, SharedBucket, Wait};
use crate::http::exchange::Request;

/// What a key is, before anybody has used it.
#[derive(Clone)]
pub struct KeySettings {
    /// What it is called in the log.
    pub name: String,
    /// The key itself, as requests carry it.
    pub secret: Box<[u8]>,
    /// Channels it is good for: those that begin like one of these. None: all channels, and every
    /// method.
    pub prefixes: Vec<String>,
    /// How many commands it is good for; `None`: any number.
    pub rate: Option<Quota>,
}

impl fmt::Debug for KeySettings {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySettings")
            .field("name", &self.name)
            .field("prefixes", &self.prefixes)
            .field("rate", &self.rate)
            .finish_non_exhaustive()
    }
}

/// The keys of a server, shared by all reactors: so a rate is exact, whichever of them is asked.
#[derive(Debug, Clone)]
pub(super) struct Keys(Arc<[Key]>);

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    name: String,
    hash: [u8; 32],
    prefixes: Arc<[String]>,
    rate: Option<Quota>,
    bucket: SharedBucket,
}

impl Keys {
    pub(super) fn new(settings: &[KeySettings]) -> Self {
        let keys = settings.iter().map(|key| Key {
            name: key.name.clone(),
            hash: hash(&key.secret),
            prefixes: key.prefixes.clone().into(),
            rate: key.rate,
            bucket: SharedBucket::default(),
        });
        Self(keys.collect())
    }

    /// The key that a request carries, in `X-API-Key` or as `Authorization: apikey …`.
    pub(super) fn find(&self, request: &Request<'_>) -> Option<&Key> {
        let own = request.header("x-api-key");
        let carried = own.or_else(|| apikey(request.header("authorization")?))?;
        self.of(carried.as_bytes())
    }

    /// Looks at every key, whichever it is.
    fn of(&self, carried: &[u8]) -> Option<&Key> {
        let carried = hash(carried);
        let mut found = None;
        for key in &*self.0 {
            if verify_slices_are_equal(&key.hash, &carried).is_ok() {
                found = Some(key);
            }
        }
        found
    }
}

impl Key {
    /// What it is called in the log.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is good for every channel, and for what concerns no channel.
    pub(super) fn is_unlimited(&self) -> bool {
        self.prefixes.is_empty()
    }

    /// What the channels it is good for begin with; none: anything.
    pub(super) const fn prefixes(&self) -> &Arc<[String]> {
        &self.prefixes
    }

    /// Whether it is good for this channel.
    pub(super) fn covers(&self, channel: &str) -> bool {
        covers(&self.prefixes, channel)
    }

    /// Spends permits for so many commands.
    ///
    /// # Errors
    /// How long until they could be had; nothing is spent then.
    pub(super) fn spend(&self, commands: usize, now: Moment) -> Result<(), Wait> {
        let Some(rate) = &self.rate else {
            return Ok(());
        };
        let commands = u64::try_from(commands).unwrap_or(u64::MAX);
        self.bucket.spend(rate, commands, now)
    }
}

/// Whether a channel begins like one of these, or anything is meant.
pub(super) fn covers(prefixes: &[String], channel: &str) -> bool {
    let mut all = prefixes.iter();
    prefixes.is_empty() || all.any(|prefix| channel.starts_with(prefix.as_str()))
}

/// The key in a value of `Authorization`; the scheme's name has no case (RFC 9110 §11.1).
fn apikey(value: &str) -> Option<&str> {
    let (scheme, key) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("apikey")
        .then(|| key.trim_ascii_start())
}

fn hash(key: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, key).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn keys() -> Keys {
        let key = |name: &str, prefixes: &[&str]| KeySettings {
            name: name.to_owned(),
            secret: format!("secret of {name}").into_bytes().into(),
            prefixes: prefixes.iter().map(|&prefix| prefix.to_owned()).collect(),
            rate: Some(Quota::new(1, Duration::from_secs(1), 5).unwrap()),
        };
        Keys::new(&[key("all", &[]), key("some", &["a:", "b"])])
    }

    #[test]
    fn d11_a_key_is_found_whole_and_only_whole() {
        let keys = keys();
        for (carried, name) in [
            ("secret of all", Some("all")),
            ("secret of some", Some("some")),
            ("secret of al", None),
            ("secret of all ", None),
            ("Secret of all", None),
            ("", None),
        ] {
            assert_eq!(keys.of(carried.as_bytes()).map(Key::name), name);
        }
        assert!(!format!("{keys:?}").contains("secret"));
    }

    #[test]
    fn the_scheme_has_no_case_and_one_key() {
        for (value, key) in [
            ("apikey k", Some("k")),
            ("ApiKey  k", Some("k")),
            ("apikey", None),
            ("Bearer k", None),
            ("apikeyk", None),
        ] {
            assert_eq!(apikey(value), key, "{value}");
        }
    }

    #[test]
    fn a_key_with_prefixes_covers_what_begins_like_them() {
        let keys = keys();
        let some = keys.of(b"secret of some").unwrap();
        let covered = ["a:", "a:x", "b", "bx", "a", "c", ""].map(|name| some.covers(name));
        assert_eq!(covered, [true, true, true, true, false, false, false]);
        let all = keys.of(b"secret of all").unwrap();
        assert!(all.covers("c") && all.is_unlimited() && !some.is_unlimited());
    }

    #[test]
    fn commands_spend_the_rate_all_or_nothing() {
        let keys = keys();
        let key = keys.of(b"secret of all").unwrap();
        let now = Moment::after(Duration::from_secs(10));
        assert_eq!(key.spend(4, now), Ok(()));
        assert_eq!(key.spend(2, now), Err(Wait(Duration::from_secs(1))));
        assert_eq!(key.spend(1, now), Ok(()));
        // The other key has a rate of its own, and what another reactor spends is spent.
        assert_eq!(keys.of(b"secret of some").unwrap().spend(5, now), Ok(()));
        let elsewhere = keys.clone();
        assert!(
            elsewhere
                .of(b"secret of all")
                .unwrap()
                .spend(1, now)
                .is_err()
        );
    }
}
