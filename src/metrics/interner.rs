//! Each user's name once, however many connections the user has.

use std::num::NonZeroU32;
use std::sync::Arc;

use ahash::AHashMap;

/// Stands for a name while somebody holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UserKey(NonZeroU32);

/// Names with counts of their holders. A name is released with its last holder, and its key may then
/// mean another name.
#[derive(Debug, Default)]
pub struct Interner {
    keys: AHashMap<Arc<str>, UserKey>,
    names: Vec<Held>,
    free: Vec<UserKey>,
    text_bytes: usize,
}

#[derive(Debug)]
struct Held {
    /// Empty while nobody holds it.
    name: Arc<str>,
    holders: u32,
}

impl Interner {
    /// Takes hold of a name. Each hold is to be released once.
    pub fn hold(&mut self, name: &Arc<str>) -> UserKey {
        if let Some(&key) = self.keys.get(name) {
            self.names[index(key)].holders += 1;
            return key;
        }
        self.text_bytes += name.len();
        let held = Held {
            name: Arc::clone(name),
            holders: 1,
        };
        let key = match self.free.pop() {
            Some(key) => {
                self.names[index(key)] = held;
                key
            }
            None => {
                self.names.push(held);
                key_at(self.names.len())
            }
        };
        self.keys.insert(Arc::clone(name), key);
        key
    }

    /// Gives up one hold; the last one forgets the name.
    pub fn release(&mut self, key: UserKey) {
        let held = &mut self.names[index(key)];
        debug_assert!(held.holders > 0, "a name released more often than held");
        held.holders -= 1;
        if held.holders == 0 {
            let name = std::mem::take(&mut held.name);
            self.text_bytes -= name.len();
            self.keys.remove(&name);
            self.free.push(key);
        }
    }

    /// The key of a name that somebody holds.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<UserKey> {
        self.keys.get(name).copied()
    }

    /// The name behind a key that is held.
    #[must_use]
    pub fn name(&self, key: UserKey) -> &str {
        &self.names[index(key)].name
    }

    /// How many hold the name behind a key.
    #[must_use]
    pub fn holders(&self, key: UserKey) -> u32 {
        self.names[index(key)].holders
    }

    /// How many names are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Bytes of the names and of what finds them. O(1).
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        self.text_bytes
            + self.keys.capacity() * size_of::<(Arc<str>, UserKey)>()
            + self.names.capacity() * size_of::<Held>()
            + self.free.capacity() * size_of::<UserKey>()
    }

    /// Whether no name is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

fn index(key: UserKey) -> usize {
    key.0.get() as usize - 1
}

/// The key of the last of this many names. There are fewer names than connections, and 2^32 of those
/// exist in no process.
fn key_at(names: usize) -> UserKey {
    UserKey(
        u32::try_from(names)
            .ok()
            .and_then(NonZeroU32::new)
            .unwrap_or(NonZeroU32::MAX),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_interner_agrees_with_a_naive_map(
            steps in prop::collection::vec((any::<bool>(), 0_usize..8), 0..200),
        ) {
            let mut interner = Interner::default();
            let mut holds: Vec<(UserKey, String)> = Vec::new();
            for (is_hold, pick) in steps {
                if is_hold || holds.is_empty() {
                    let name = format!("user-{pick}");
                    holds.push((interner.hold(&Arc::from(name.as_str())), name));
                } else {
                    let (key, _) = holds.swap_remove(pick % holds.len());
                    interner.release(key);
                }
                let mut model: BTreeMap<&str, u32> = BTreeMap::new();
                for (key, name) in &holds {
                    prop_assert_eq!(interner.name(*key), name);
                    *model.entry(name).or_default() += 1;
                }
                prop_assert_eq!(interner.len(), model.len());
                // Places are reused: never more than the most names ever held at once.
                prop_assert!(interner.names.len() <= 8);
                for pick in 0..8 {
                    let name = format!("user-{pick}");
                    let holders = interner.find(&name).map(|key| interner.holders(key));
                    prop_assert_eq!(holders, model.get(name.as_str()).copied());
                }
            }
        }
    }

    #[test]
    fn a_name_is_kept_once_and_released_with_its_last_holder() {
        let mut interner = Interner::default();
        let (one, two): (Arc<str>, Arc<str>) = ("ann".into(), "ann".into());
        let key = interner.hold(&one);
        assert_eq!(interner.hold(&two), key);
        assert_eq!(Arc::strong_count(&two), 1, "the second copy is not kept");
        interner.release(key);
        assert_eq!(interner.name(key), "ann");
        interner.release(key);
        assert!(interner.is_empty());
        assert_eq!(Arc::strong_count(&one), 1);
    }
}
