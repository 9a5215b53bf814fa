//! In which order connections on their way in are served when there are more of them than time, and who
//! makes room.
//!
//! Whoever waits too long gives up, and then all that was done for it was for nothing. So:
//!
//! * What has been paid for is finished: those whose TLS handshake we have answered go first. For every two
//!   of them one of the others is served, so that nobody can keep a hello waiting by sending byte after byte.
//! * The others take turns: one of whom something has been read before, one who is new. Whoever sends its
//!   hello in pieces is new once, and waits behind all others of its kind with every piece (B10).
//! * The new are served in the order of their coming while the server keeps up. When the oldest has waited
//!   for longer than [`SATURATED_AFTER`], the newest goes first: a queue in the order of arrival that is
//!   longer than its members' patience serves everybody just as they give up. And when there is no room for
//!   one more because of them, it is the oldest that makes some: nothing has been paid for it, and its turn
//!   would not come.
//! * Whoever has waited for longer than [`PATIENT_AFTER`] is patient indeed, and has a turn for each one of
//!   the newest. So nobody who waits waits in vain.

use std::collections::VecDeque;
use std::time::Duration;

use super::slots::Key;

/// How long the oldest has waited for its first turn when the server no longer keeps up. A few hundred
/// clients that connect as fast as they can are served sooner, in the order of their coming.
pub const SATURATED_AFTER: Duration = Duration::from_millis(150);

/// Who has waited for so long for its first turn, and has not hung up, is waited for: half the time that a
/// handshake may take, unless configured otherwise.
pub const PATIENT_AFTER: Duration = Duration::from_millis(2_500);

/// How far a newcomer has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing of it has been read.
    Unread,
    /// Something has been read; nothing dear has been done for it.
    Begun,
    /// Its TLS handshake has been answered.
    Answered,
}

/// Connections on their way in that have something to read. Times are since the server's start.
#[derive(Debug, Default)]
pub struct Newcomers {
    answered: VecDeque<Key>,
    begun: VecDeque<Key>,
    /// Since when each waits; the oldest in front. Some may have ended meanwhile.
    unread: VecDeque<(Key, Duration)>,
    /// Of three turns, which this is; whose of the others the next is; which of the patient and the newest.
    turn: u8,
    is_begun_next: bool,
    is_oldest_next: bool,
}

impl Newcomers {
    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.answered.is_empty() && self.begun.is_empty() && self.unread.is_empty()
    }

    /// Adds somebody who has something to read and is not here yet.
    pub fn push(&mut self, key: Key, standing: Standing, now: Duration) {
        match standing {
            Standing::Unread => self.unread.push_back((key, now)),
            Standing::Begun => self.begun.push_back(key),
            Standing::Answered => self.answered.push_back(key),
        }
    }

    /// Takes out the one to be served next; it may have ended meanwhile. `is_waiting` says who of the
    /// oldest has not. O(1) on average.
    pub fn pop(&mut self, now: Duration, is_waiting: impl FnMut(Key) -> bool) -> Option<Key> {
        self.turn = (self.turn + 1) % 3;
        if self.turn != 0
            && let Some(key) = self.answered.pop_front()
        {
            return Some(key);
        }
        self.is_begun_next = !self.is_begun_next;
        if self.is_begun_next
            && let Some(key) = self.begun.pop_front()
        {
            return Some(key);
        }
        self.pop_unread(now, is_waiting)
            .or_else(|| self.begun.pop_front())
            .or_else(|| self.answered.pop_front())
    }

    /// Takes out the one that is to make room where all `places` are taken: of those of whom nothing has
    /// been read the one that waits for longest, if the server does not keep up, and if it is they who have
    /// taken most places. Where the slow have, honest ones are not to pay for it (B10). `is_waiting` as for
    /// [`pop`](Self::pop).
    pub fn shed(
        &mut self,
        now: Duration,
        places: usize,
        is_waiting: impl FnMut(Key) -> bool,
    ) -> Option<Key> {
        let wait = self.oldest_wait(now, is_waiting)?;
        let is_storm = wait > SATURATED_AFTER && self.unread.len() > places / 2;
        is_storm
            .then(|| self.unread.pop_front())?
            .map(|(key, _)| key)
    }

    fn pop_unread(&mut self, now: Duration, is_waiting: impl FnMut(Key) -> bool) -> Option<Key> {
        let wait = self.oldest_wait(now, is_waiting)?;
        if wait > PATIENT_AFTER {
            self.is_oldest_next = !self.is_oldest_next;
        } else {
            self.is_oldest_next = wait <= SATURATED_AFTER;
        }
        let next = match self.is_oldest_next {
            true => self.unread.pop_front(),
            false => self.unread.pop_back(),
        };
        next.map(|(key, _)| key)
    }

    /// How long the oldest of those has waited of whom nothing has been read.
    fn oldest_wait(
        &mut self,
        now: Duration,
        mut is_waiting: impl FnMut(Key) -> bool,
    ) -> Option<Duration> {
        while let Some((key, since)) = self.unread.front().copied() {
            if is_waiting(key) {
                return Some(now.saturating_sub(since));
            }
            self.unread.pop_front();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: Duration = Duration::ZERO;
    const INSTANT: Duration = Duration::from_nanos(1);

    const fn key(slot: u32) -> Key {
        Key {
            slot,
            generation: 0,
        }
    }

    /// So many new ones that have come at even times, and the rest of the queue.
    fn unread(count: u32, every: Duration) -> Newcomers {
        let mut newcomers = Newcomers::default();
        for slot in 0..count {
            newcomers.push(key(slot), Standing::Unread, every * slot);
        }
        newcomers
    }

    fn served(newcomers: &mut Newcomers, now: Duration) -> Vec<u32> {
        let next = std::iter::from_fn(|| newcomers.pop(now, |_| true));
        next.map(|key| key.slot).collect()
    }

    #[test]
    fn n1_the_oldest_goes_first_until_it_has_waited_for_too_long_and_then_the_newest() {
        for (now, order) in [
            (SATURATED_AFTER - INSTANT, [0, 1, 2, 3]),
            (SATURATED_AFTER, [0, 1, 2, 3]),
            (SATURATED_AFTER + INSTANT, [3, 2, 1, 0]),
            (PATIENT_AFTER, [3, 2, 1, 0]),
            (PATIENT_AFTER + INSTANT, [0, 3, 1, 2]),
        ] {
            assert_eq!(served(&mut unread(4, AT_ONCE), now), order, "{now:?}");
        }
    }

    #[test]
    fn n1_when_the_oldest_has_gone_the_order_is_that_of_coming_again() {
        let mut newcomers = unread(4, Duration::from_millis(10));
        let now = SATURATED_AFTER + Duration::from_millis(10);
        assert_eq!(newcomers.pop(now, |_| true), Some(key(3)), "saturated");
        assert_eq!(newcomers.shed(now, 1, |_| true), Some(key(0)));
        assert_eq!(
            newcomers.shed(now, 1, |_| true),
            None,
            "the oldest is young"
        );
        assert_eq!(served(&mut newcomers, now), [1, 2]);
    }

    #[test]
    fn n1_only_the_new_make_room_and_only_after_a_while() {
        let mut newcomers = unread(3, AT_ONCE);
        newcomers.push(key(10), Standing::Begun, AT_ONCE);
        newcomers.push(key(20), Standing::Answered, AT_ONCE);
        assert_eq!(newcomers.shed(SATURATED_AFTER - INSTANT, 1, |_| true), None);
        assert_eq!(newcomers.shed(SATURATED_AFTER, 1, |_| true), None);
        let late = SATURATED_AFTER + INSTANT;
        // The first has hung up meanwhile, and takes no room any more.
        assert_eq!(newcomers.shed(late, 1, |at| at != key(0)), Some(key(1)));
        assert_eq!(newcomers.shed(late, 1, |_| true), Some(key(2)));
        assert_eq!(newcomers.shed(PATIENT_AFTER * 2, 1, |_| true), None);
        assert_eq!(served(&mut newcomers, late), [20, 10]);
        assert!(newcomers.is_empty());
    }

    #[test]
    fn b10_where_the_slow_have_taken_the_places_nobody_is_shed_for_them() {
        let late = SATURATED_AFTER + INSTANT;
        for (new, places, is_shed) in [(4, 8, false), (5, 8, true), (5, 9, true), (4, 9, false)] {
            let shed = unread(new, AT_ONCE).shed(late, places, |_| true);
            assert_eq!(shed.is_some(), is_shed, "{new} of {places}");
        }
    }

    #[test]
    fn n1_what_is_paid_for_goes_first_and_keeps_no_hello_waiting() {
        let mut newcomers = unread(2, AT_ONCE);
        for slot in 10..16 {
            newcomers.push(key(slot), Standing::Answered, AT_ONCE);
        }
        let order = [10, 11, 0, 12, 13, 1, 14, 15];
        assert_eq!(served(&mut newcomers, AT_ONCE), order);
    }

    #[test]
    fn b10_hellos_in_pieces_and_new_ones_take_turns_however_many_there_are() {
        for now in [AT_ONCE, SATURATED_AFTER + INSTANT] {
            let mut newcomers = unread(2, AT_ONCE);
            for slot in 10..15 {
                newcomers.push(key(slot), Standing::Begun, AT_ONCE);
            }
            let order = served(&mut newcomers, now);
            assert_eq!(order.len(), 7);
            assert!(order[1] < 2 && order[3] < 2, "{now:?}: {order:?}");
            let begun: Vec<u32> = order.into_iter().filter(|slot| *slot >= 10).collect();
            assert_eq!(begun, [10, 11, 12, 13, 14], "in the order of their coming");
        }
    }

    #[test]
    fn n1_beyond_saturation_as_many_are_served_in_time_as_before() {
        const PATIENCE: Duration = Duration::from_secs(2);
        const PLACES: usize = 1_024;
        // A server that serves one in a millisecond, and one to four times as many clients.
        for factor in 1..=4 {
            let (mut newcomers, mut waiting, mut in_time) = (Newcomers::default(), 0, 0);
            let came_at = |slot: u32| Duration::from_millis(1) * (slot / factor);
            for slot in 0..10_000 * factor {
                let now = came_at(slot);
                if waiting == PLACES && newcomers.shed(now, PLACES, |_| true).is_some() {
                    waiting -= 1;
                }
                if waiting < PLACES {
                    newcomers.push(key(slot), Standing::Unread, now);
                    waiting += 1;
                }
                if slot % factor == 0
                    && let Some(next) = newcomers.pop(now, |_| true)
                {
                    waiting -= 1;
                    in_time += u32::from(now - came_at(next.slot) < PATIENCE);
                }
            }
            assert!(in_time > 9_900, "{factor} times as many: {in_time} in time");
        }
    }
}
