//! Joins and leaves as messages to the channel, fewer of them when they storm.
//!
//! A join and a leave of one connection within a turn cancel each other before anybody hears of them
//! ([`cancelled`]). Of the others, a channel tells [`ANNOUNCEMENTS_PER_SECOND`] singly in any second; what
//! exceeds that is counted and told once, when the second is over ([`Quota`]).

use std::collections::HashMap;

use super::Channel;
use super::command::Present;
use crate::conn::ConnectionId;
use crate::timer::{TICK, Tick};

/// Makes the text of an announcement; a route supplies it. Called on the channel's home reactor: it must
/// not block.
pub trait Announcer: Send + Sync {
    /// The message that the subscribers get; `None`: they get none.
    fn announce(&self, event: &Announcement<'_>) -> Option<String>;
}

impl<F> Announcer for F
where
    F: Fn(&Announcement<'_>) -> Option<String> + Send + Sync,
{
    fn announce(&self, event: &Announcement<'_>) -> Option<String> {
        self(event)
    }
}

/// What is announced, and when it happened, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announcement<'a> {
    /// Somebody has come.
    Joined(&'a Present, u64),
    /// Somebody has gone.
    Left(&'a Present, u64),
    /// Many have come and gone, and are not told singly.
    Many {
        /// So many have come.
        joined: u64,
        /// So many have gone.
        left: u64,
        /// So many are there now.
        clients: u64,
        /// When.
        wall: u64,
    },
}

/// Joins and leaves told singly in a second, of one channel.
pub const ANNOUNCEMENTS_PER_SECOND: u32 = 32;

/// A second in ticks.
const SECOND: Tick = 20;
const _: () = assert!(TICK.as_millis() * SECOND as u128 == 1000);

/// How many joins and leaves of a channel may still be told singly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    began: Tick,
    told: u32,
    joined: u64,
    left: u64,
}

/// What happens to a join or a leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is told by itself.
    Tell,
    /// It is counted, and told with others at this time.
    Held(Tick),
}

impl Quota {
    /// Judges a join or a leave. Nothing overtakes what is held: as long as something is, all is.
    pub fn judge(&mut self, is_join: bool, now: Tick) -> Verdict {
        if !self.holds() && now >= self.began.saturating_add(SECOND) {
            (self.began, self.told) = (now, 0);
        }
        if !self.holds() && self.told < ANNOUNCEMENTS_PER_SECOND {
            self.told += 1;
            return Verdict::Tell;
        }
        if is_join {
            self.joined += 1;
        } else {
            self.left += 1;
        }
        Verdict::Held(self.began.saturating_add(SECOND))
    }

    /// Whether something is held.
    #[must_use]
    pub const fn holds(&self) -> bool {
        self.joined + self.left > 0
    }

    /// What was held, joins and leaves, if the second is over and there is something.
    pub fn take(&mut self, now: Tick) -> Option<(u64, u64)> {
        if !self.holds() || now < self.began.saturating_add(SECOND) {
            return None;
        }
        let held = (self.joined, self.left);
        *self = Self {
            began: now,
            ..Self::default()
        };
        Some(held)
    }
}

/// Joins and leaves that are not worth telling: a join and the leave that follows it, of the same
/// connection and channel. Takes them in order, with the place of each; returns the places.
pub fn cancelled<'a>(
    changes: impl Iterator<Item = (usize, &'a Channel, ConnectionId, bool)>,
) -> Vec<usize> {
    let mut joins: HashMap<(&Channel, ConnectionId), usize, ahash::RandomState> =
        HashMap::default();
    let mut places = Vec::new();
    for (place, channel, client, is_join) in changes {
        if is_join {
            joins.insert((channel, client), place);
        } else if let Some(join) = joins.remove(&(channel, client)) {
            places.extend([join, place]);
        }
    }
    places.sort_unstable();
    places
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_join_and_its_leave_cancel_and_a_leave_before_its_join_does_not() {
        let (a, b) = (Channel::new("a").unwrap(), Channel::new("b").unwrap());
        let client = |slot| ConnectionId::new(0, slot, 0);
        let changes = [
            (0, &a, client(1), false),
            (2, &a, client(1), true),
            (3, &b, client(1), false),
            (5, &a, client(2), true),
            (6, &a, client(1), false),
            (7, &a, client(1), true),
        ];
        assert_eq!(cancelled(changes.into_iter()), [2, 6]);
        assert_eq!(cancelled(std::iter::empty()), [0usize; 0]);
    }

    #[test]
    fn the_cap_is_exact_and_the_rest_is_told_when_the_second_is_over() {
        let mut quota = Quota::default();
        for _ in 0..ANNOUNCEMENTS_PER_SECOND {
            assert_eq!(quota.judge(true, 100), Verdict::Tell);
        }
        assert_eq!(quota.judge(true, 100), Verdict::Held(120));
        assert_eq!(quota.judge(false, 119), Verdict::Held(120));
        assert_eq!(quota.take(119), None);
        assert_eq!(quota.take(120), Some((1, 1)));
        assert_eq!(quota.take(140), None);
        assert_eq!(quota.judge(false, 120), Verdict::Tell);
    }

    proptest! {
        /// Nothing is lost: what was told singly and in sums is what happened; no second has more than
        /// its share of single ones; and a sum comes no later than a second after what it counts.
        #[test]
        fn a_quota_tells_everything_once(
            steps in prop::collection::vec((any::<bool>(), 0u32..4), 1..400),
        ) {
            let mut quota = Quota::default();
            let mut now = 1000;
            let (mut singles, mut happened, mut told) = (Vec::new(), 0u64, 0u64);
            let mut due: Option<Tick> = None;
            for (is_join, pause) in steps {
                for _ in 0..pause {
                    now += 1;
                    if let Some((joined, left)) = quota.take(now) {
                        prop_assert_eq!(due.take(), Some(now));
                        told += joined + left;
                    }
                }
                happened += 1;
                match quota.judge(is_join, now) {
                    Verdict::Tell => { singles.push(now); told += 1; }
                    Verdict::Held(at) => {
                        prop_assert!(at > now && at <= now + SECOND);
                        due.get_or_insert(at);
                    }
                }
            }
            told += quota.take(now + SECOND).map_or(0, |(joined, left)| joined + left);
            prop_assert_eq!(told, happened);
            for window in singles.windows(2 * ANNOUNCEMENTS_PER_SECOND as usize + 1) {
                prop_assert!(window[window.len() - 1] - window[0] >= SECOND);
            }
        }
    }
}
