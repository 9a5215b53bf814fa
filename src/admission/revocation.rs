//! Who is to leave though the token is good: users, and single tokens by their `jti`.
//!
//! A revocation takes effect twice: whoever is connected is closed by the reactors, which notice a new
//! [`version`](Revocations::version), and whoever comes with such a token is refused. It is kept for as
//! long as tokens live, and no longer: what is kept is bounded, and a full table refuses the revocation
//! rather than forgetting an older one.
//!
//! Reading costs a look-up in an immutable map and never waits; writing copies the map, which is for
//! administrators and rare.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::RandomState;
use arc_swap::ArcSwap;

use super::jwt::Identity;

/// What is revoked.
#[derive(Clone, PartialEq, Eq)]
pub enum Revocation {
    /// Every token of this user that was issued before this second, or does not say when it was. Tokens
    /// issued later work: the user may log in again.
    User(String),
    /// The one token with this `jti`.
    TokenId(String),
}

impl fmt::Debug for Revocation {
    /// Without the `jti`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => f.debug_tuple("User").field(user).finish(),
            Self::TokenId(_) => f.write_str("TokenId(…)"),
        }
    }
}

/// Revocations kept at a time.
pub const REVOCATIONS_MAX: usize = 65_536;

/// There is no room for another revocation: [`REVOCATIONS_MAX`] are in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyRevocations;

impl fmt::Display for TooManyRevocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{REVOCATIONS_MAX} revocations are in force already")
    }
}

impl std::error::Error for TooManyRevocations {}

/// All revocations in force: one for the whole server.
#[derive(Debug, Default)]
pub struct Revocations {
    current: ArcSwap<Table>,
    version: AtomicU64,
}

#[derive(Debug, Clone, Default)]
struct Table {
    /// Tokens issued before the first time are refused until the second.
    users: HashMap<Box<str>, (u64, u64), RandomState>,
    /// Refused until then.
    token_ids: HashMap<Box<str>, u64, RandomState>,
    /// Bytes of the texts in both.
    text_bytes: usize,
}

impl Revocations {
    /// Revokes. Times are seconds since 1970; after `until` the revocation is forgotten: choose it
    /// so that every token that exists now has expired by then. May be called from any thread.
    ///
    /// # Errors
    /// [`TooManyRevocations`]; nothing has changed then.
    pub fn revoke(
        &self,
        revocation: &Revocation,
        now: u64,
        until: u64,
    ) -> Result<(), TooManyRevocations> {
        let mut is_full = false;
        self.current.rcu(|table| {
            let mut next = Table::clone(table);
            next.users.retain(|_, (_, until)| *until > now);
            next.token_ids.retain(|_, until| *until > now);
            match revocation {
                Revocation::User(user) => {
                    let kept = next.users.get(user.as_str()).map_or(0, |(_, until)| *until);
                    next.users
                        .insert(user.as_str().into(), (now, until.max(kept)));
                }
                Revocation::TokenId(id) => {
                    let kept = next.token_ids.entry(id.as_str().into()).or_default();
                    *kept = until.max(*kept);
                }
            }
            let texts = next.users.keys().chain(next.token_ids.keys());
            next.text_bytes = texts.map(|text| text.len()).sum();
            is_full = next.users.len() + next.token_ids.len() > REVOCATIONS_MAX;
            if is_full {
                Arc::clone(table)
            } else {
                Arc::new(next)
            }
        });
        if is_full {
            return Err(TooManyRevocations);
        }
        self.version.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Bytes of all that is kept, in O(1).
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        let table = self.current.load();
        table.users.capacity() * size_of::<(Box<str>, (u64, u64))>()
            + table.token_ids.capacity() * size_of::<(Box<str>, u64)>()
            + table.text_bytes
    }

    /// Grows with every revocation: who has seen a smaller one has connections to look at.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Whether this identity's token has been revoked.
    #[must_use]
    pub fn covers(&self, identity: &Identity, now: u64) -> bool {
        let table = self.current.load();
        let by_user = || {
            let (before, until) = table.users.get(&**identity.user())?;
            // In the second of the revocation nobody knows which came first.
            let is_older = identity.issued_at().is_none_or(|at| at <= *before);
            Some(is_older && now < *until)
        };
        let by_id = || {
            let until = table.token_ids.get(identity.token_id()?)?;
            Some(now < *until)
        };
        by_user() == Some(true) || by_id() == Some(true)
    }

    /// How many are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        let table = self.current.load();
        table.users.len() + table.token_ids.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::jwt::fixture::identity;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn d8_a_user_is_out_until_a_newer_token() {
        let revocations = Revocations::default();
        let version = revocations.version();
        let user = Revocation::User("42".into());
        revocations.revoke(&user, NOW, NOW + 60).unwrap();
        assert!(revocations.version() > version);
        for (user, issued_at, now, expected) in [
            ("42", Some(NOW - 1), NOW, true),
            ("42", Some(NOW), NOW, true),
            ("42", Some(NOW + 1), NOW + 1, false),
            ("42", None, NOW + 1, true),
            ("42", None, NOW + 59, true),
            ("42", None, NOW + 60, false),
            ("43", Some(NOW - 1), NOW, false),
        ] {
            let identity = identity(user, issued_at, None);
            assert_eq!(
                revocations.covers(&identity, now),
                expected,
                "{identity:?} at {now}"
            );
        }
    }

    #[test]
    fn d8_a_single_token_is_out() {
        let revocations = Revocations::default();
        let token = Revocation::TokenId("t-1".into());
        revocations.revoke(&token, NOW, NOW + 60).unwrap();
        assert!(revocations.covers(&identity("42", Some(NOW), Some("t-1")), NOW));
        assert!(!revocations.covers(&identity("42", Some(NOW), Some("t-2")), NOW));
        assert!(!revocations.covers(&identity("42", Some(NOW), None), NOW));
        assert!(!revocations.covers(&identity("42", None, Some("t-1")), NOW + 60));
    }

    #[test]
    fn a_second_revocation_never_shortens_the_first() {
        let revocations = Revocations::default();
        let token = Revocation::TokenId("t-1".into());
        revocations.revoke(&token, NOW, NOW + 60).unwrap();
        revocations.revoke(&token, NOW, NOW + 30).unwrap();
        assert!(revocations.covers(&identity("42", None, Some("t-1")), NOW + 59));
    }

    #[test]
    fn a_full_table_refuses_and_forgets_nothing_that_is_in_force() {
        let revocations = Revocations::default();
        let mut table = Table::default();
        for number in 0..REVOCATIONS_MAX - 1 {
            table.token_ids.insert(number.to_string().into(), NOW + 60);
        }
        revocations.current.store(Arc::new(table));
        let more = |name: &str| Revocation::TokenId(name.into());
        assert_eq!(revocations.revoke(&more("a"), NOW, NOW + 60), Ok(()));
        assert_eq!(revocations.len(), REVOCATIONS_MAX);
        assert_eq!(
            revocations.revoke(&more("b"), NOW, NOW + 60),
            Err(TooManyRevocations)
        );
        // Whoever is in it already may be revoked for longer.
        assert_eq!(revocations.revoke(&more("a"), NOW, NOW + 90), Ok(()));
        assert!(revocations.covers(&identity("42", None, Some("0")), NOW));
        // When the others have been forgotten there is room again.
        assert_eq!(revocations.revoke(&more("b"), NOW + 60, NOW + 120), Ok(()));
        assert_eq!(revocations.len(), 2);
    }

    #[test]
    fn d9_no_token_id_is_printed() {
        let token = Revocation::TokenId("canary-7f3a".into());
        assert!(!format!("{token:?}").contains("canary"));
    }
}
