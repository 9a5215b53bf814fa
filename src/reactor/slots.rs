//! The slab of a reactor's connections: a slot for each, and a generation that tells a slot's tenants
//! apart, so that an event or an id that has outlived its connection meets nobody.
//!
//! The slab grows by pages, so a million connections are never copied to a larger array, and their
//! addresses do not move. A slot that has been left is the next one given away: its memory is warm.

use crate::conn::id::SLOTS_MAX;

/// Where a connection lives, and which of the slot's tenants it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The slot.
    pub slot: u32,
    /// The tenant.
    pub generation: u32,
}

impl Key {
    /// The key as mio carries it.
    #[must_use]
    pub const fn token(self) -> mio::Token {
        mio::Token((self.generation as usize) << 32 | self.slot as usize)
    }

    /// The key that mio carried.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the two halves of a 64-bit token"
    )]
    pub const fn from_token(token: mio::Token) -> Self {
        Self {
            slot: token.0 as u32,
            generation: (token.0 >> 32) as u32,
        }
    }
}

/// Slots in pages, with a list of the vacant ones.
#[derive(Debug)]
pub struct Slots<T> {
    pages: Vec<Box<[Slot<T>]>>,
    vacant: u32,
    occupied: usize,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    state: State<T>,
}

#[derive(Debug)]
enum State<T> {
    Vacant { next: u32 },
    Occupied(T),
}

const PAGE: usize = 256;
const PAGE_LAST: u32 = 255;
const NONE: u32 = u32::MAX;

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            pages: Vec::new(),
            vacant: NONE,
            occupied: 0,
        }
    }
}

impl<T> Slots<T> {
    /// Connections in the slab.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.occupied
    }

    /// Whether the slab holds nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.occupied == 0
    }

    /// Slots that exist, occupied or not: `0..span()` covers them all.
    #[must_use]
    pub fn span(&self) -> u32 {
        u32::try_from(self.pages.len() * PAGE).unwrap_or(SLOTS_MAX)
    }

    /// Bytes of the slots, occupied or not.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        self.pages.len() * PAGE * size_of::<Slot<T>>()
    }

    /// Puts a value into a vacant slot; it is made knowing its key. `None` once all [`SLOTS_MAX`]
    /// slots are taken.
    pub fn insert_with(&mut self, make: impl FnOnce(Key) -> T) -> Option<Key> {
        if self.vacant == NONE {
            self.add_page()?;
        }
        let slot = self.vacant;
        let entry = self.slot_mut(slot)?;
        let key = Key {
            slot,
            generation: entry.generation,
        };
        let State::Vacant { next } = entry.state else {
            return None;
        };
        entry.state = State::Occupied(make(key));
        self.vacant = next;
        self.occupied += 1;
        Some(key)
    }

    /// The tenant of a slot, if it is the one the key means.
    #[must_use]
    #[inline]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let entry = self.slot_mut(key.slot)?;
        match &mut entry.state {
            State::Occupied(value) if entry.generation == key.generation => Some(value),
            State::Occupied(_) | State::Vacant { .. } => None,
        }
    }

    /// The present tenant of a slot.
    #[must_use]
    #[inline]
    pub fn tenant_mut(&mut self, slot: u32) -> Option<&mut T> {
        match &mut self.slot_mut(slot)?.state {
            State::Occupied(value) => Some(value),
            State::Vacant { .. } => None,
        }
    }

    /// Vacates a slot and returns its tenant.
    pub fn remove(&mut self, slot: u32) -> Option<T> {
        let vacant = self.vacant;
        let entry = self.slot_mut(slot)?;
        if let State::Vacant { .. } = entry.state {
            return None;
        }
        let state = std::mem::replace(&mut entry.state, State::Vacant { next: vacant });
        entry.generation = entry.generation.wrapping_add(1);
        self.vacant = slot;
        self.occupied -= 1;
        match state {
            State::Occupied(value) => Some(value),
            State::Vacant { .. } => None,
        }
    }

    #[inline]
    fn slot_mut(&mut self, slot: u32) -> Option<&mut Slot<T>> {
        self.pages
            .get_mut(slot as usize / PAGE)?
            .get_mut(slot as usize % PAGE)
    }

    fn add_page(&mut self) -> Option<()> {
        let first = self.span();
        if first >= SLOTS_MAX {
            return None;
        }
        let last = first + PAGE_LAST;
        let page = (first..=last).map(|slot| Slot {
            generation: 0,
            state: State::Vacant {
                next: if slot == last { self.vacant } else { slot + 1 },
            },
        });
        self.pages.push(page.collect());
        self.vacant = first;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_survives_its_journey_through_mio() {
        for key in [
            Key {
                slot: 0,
                generation: 0,
            },
            Key {
                slot: 77,
                generation: u32::MAX,
            },
        ] {
            assert_eq!(Key::from_token(key.token()), key);
        }
    }

    #[test]
    fn a14_a_key_means_one_tenant_only() {
        let mut slots = Slots::default();
        let first = slots.insert_with(|_| "first").unwrap();
        assert_eq!(slots.remove(first.slot), Some("first"));
        let second = slots.insert_with(|_| "second").unwrap();
        assert_eq!(first.slot, second.slot, "the warm slot is given away first");
        assert_eq!(slots.get_mut(first), None);
        assert_eq!(slots.get_mut(second), Some(&mut "second"));
        assert_eq!(slots.tenant_mut(first.slot), Some(&mut "second"));
        assert_eq!(slots.remove(9999), None);
    }

    proptest! {
        #[test]
        fn a14_the_slab_agrees_with_a_map(steps in prop::collection::vec((any::<bool>(), 0usize..700), 1..2000)) {
            let mut slots = Slots::default();
            let mut model: HashMap<u32, (Key, usize)> = HashMap::new();
            let mut gone = Vec::new();
            for (number, (inserts, which)) in steps.into_iter().enumerate() {
                if inserts {
                    let key = slots.insert_with(|_| number).unwrap();
                    prop_assert!(model.insert(key.slot, (key, number)).is_none());
                } else if let Some((slot, (key, value))) = model.iter().nth(which).map(|(s, e)| (*s, *e)) {
                    prop_assert_eq!(slots.remove(slot), Some(value));
                    prop_assert_eq!(slots.remove(slot), None);
                    model.remove(&slot);
                    gone.push(key);
                }
                prop_assert_eq!(slots.len(), model.len());
            }
            for (key, value) in model.values() {
                prop_assert_eq!(slots.get_mut(*key), Some(&mut value.clone()));
            }
            for key in gone {
                prop_assert_eq!(slots.get_mut(key), None);
            }
        }
    }
}
