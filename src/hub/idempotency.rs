//! Which publications have been made already: a backend that got no answer repeats its request with the
//! same key, and the publication is not made a second time.
//!
//! Kept at the channel's home, where all publications of a channel pass one after another, so a key
//! counts exactly once however the repetitions arrive. What is remembered is the answer to the first.
//!
//! Memory is bounded: an answer is forgotten after [`LIFETIME`], and the oldest ones earlier where more
//! than [`Replays::bytes_max`](Replays::new) would be held.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::Channel;
use crate::timer::{Tick, ticks};

/// How long a key counts: five minutes from the first publication.
pub const LIFETIME: Duration = Duration::from_secs(300);

/// Longest key, in bytes. A longer one is refused by whoever reads it from a request.
pub const KEY_BYTES_MAX: usize = 256;

/// What a home remembers by default, in bytes: some 60,000 keys.
pub const BYTES_MAX: usize = 8 * 1024 * 1024;

/// Answers to publications that came with a key. `T` is the answer.
#[derive(Debug)]
pub struct Replays<T> {
    answers: HashMap<Arc<str>, T, ahash::RandomState>,
    /// The same keys in the order in which they are forgotten.
    order: VecDeque<(Tick, Arc<str>)>,
    bytes: usize,
    bytes_max: usize,
    forgotten_early: u64,
}

/// What an entry takes beside its text: a place in the map and one in the order, and the text's head.
const ENTRY_BYTES: usize = 80;

impl<T: Clone> Replays<T> {
    /// Remembers nothing yet, and never more than about `bytes_max` bytes; see [`BYTES_MAX`].
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            answers: HashMap::default(),
            order: VecDeque::new(),
            bytes: 0,
            bytes_max,
            forgotten_early: 0,
        }
    }

    /// The answer to the first publication to this channel with this key, if it counts still.
    pub fn find(&mut self, channel: &Channel, key: &str, now: Tick) -> Option<T> {
        self.expire(now);
        self.answers.get(&*name(channel, key)).cloned()
    }

    /// Remembers the answer to a publication. A key that counts still keeps its first answer.
    pub fn remember(&mut self, channel: &Channel, key: &str, answer: T, now: Tick) {
        self.expire(now);
        let name: Arc<str> = name(channel, key).into();
        if self.answers.contains_key(&name) {
            return;
        }
        self.bytes += name.len() + ENTRY_BYTES;
        let ends_at = now.saturating_add(ticks(LIFETIME));
        self.order.push_back((ends_at, Arc::clone(&name)));
        self.answers.insert(name, answer);
        while self.bytes > self.bytes_max && self.forget_oldest() {
            self.forgotten_early += 1;
        }
        debug_assert_eq!(self.answers.len(), self.order.len());
    }

    /// Forgets what no longer counts. [`find`](Self::find) and [`remember`](Self::remember) do so too;
    /// where nobody publishes any more, a call now and then gives the memory back.
    pub fn expire(&mut self, now: Tick) {
        while (self.order.front()).is_some_and(|(ends_at, _)| *ends_at <= now) {
            self.forget_oldest();
        }
        if self.order.is_empty() && self.order.capacity() > 0 {
            self.order = VecDeque::new();
            self.answers = HashMap::default();
        }
    }

    /// Bytes held now.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keys that were forgotten before their time, because too much was remembered.
    #[must_use]
    pub const fn forgotten_early(&self) -> u64 {
        self.forgotten_early
    }

    fn forget_oldest(&mut self) -> bool {
        let Some((_, name)) = self.order.pop_front() else {
            return false;
        };
        self.bytes -= name.len() + ENTRY_BYTES;
        self.answers.remove(&name);
        true
    }
}

/// One text for both: no channel has a blank in its name.
fn name(channel: &Channel, key: &str) -> String {
    format!("{channel} {key}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn channel(name: &str) -> Channel {
        Channel::new(name).unwrap()
    }

    #[test]
    fn g7_a_key_counts_for_its_channel_and_for_five_minutes() {
        let mut replays = Replays::new(BYTES_MAX);
        let end = 7 + ticks(LIFETIME);
        replays.remember(&channel("a"), "k", 1, 7);
        replays.remember(&channel("a"), "k", 2, 8);
        assert_eq!(replays.find(&channel("a"), "k", end - 1), Some(1));
        assert_eq!(replays.find(&channel("b"), "k", end - 1), None);
        assert_eq!(replays.find(&channel("a"), "k2", end - 1), None);
        assert_eq!(replays.find(&channel("a"), "k", end), None);
        assert_eq!((replays.bytes(), replays.forgotten_early()), (0, 0));
        replays.remember(&channel("a"), "k", 3, end);
        assert_eq!(replays.find(&channel("a"), "k", end), Some(3));
    }

    #[test]
    fn g7_memory_is_bounded_and_the_oldest_key_goes_first() {
        // `a k0` and its like: four bytes each.
        let mut replays = Replays::new(3 * (4 + ENTRY_BYTES));
        for number in 0..5 {
            replays.remember(&channel("a"), &format!("k{number}"), number, 0);
            assert!(replays.bytes() <= 3 * (4 + ENTRY_BYTES));
        }
        let found = [0, 1, 2, 3, 4].map(|n| replays.find(&channel("a"), &format!("k{n}"), 1));
        assert_eq!(found, [None, None, Some(2), Some(3), Some(4)]);
        assert_eq!(replays.forgotten_early(), 2);
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_naive_list(
            steps in prop::collection::vec((0..4u8, 0..6u8, any::<bool>(), 0..2000u32), 0..200)
        ) {
            let mut replays = Replays::new(BYTES_MAX);
            let mut naive: Vec<(String, usize, Tick)> = Vec::new();
            let mut now = 0;
            for (number, (name, key, remembers, passed)) in steps.into_iter().enumerate() {
                now += passed;
                let (channel, key) = (channel(&format!("c{name}")), format!("{key}"));
                let full = format!("{channel}/{key}");
                let known = naive.iter().find(|(name, _, at)| {
                    *name == full && now < at + ticks(LIFETIME)
                });
                let known = known.map(|(_, number, _)| *number);
                if remembers {
                    replays.remember(&channel, &key, number, now);
                    if known.is_none() {
                        naive.retain(|(name, ..)| *name != full);
                        naive.push((full, number, now));
                    }
                } else {
                    prop_assert_eq!(replays.find(&channel, &key, now), known);
                }
            }
        }
    }
}
