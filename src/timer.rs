//! Timer wheel: one timer for each key, armed, moved, cancelled and expired in constant time.
//!
//! A reactor keeps one timer per connection and lets it stand for all of the connection's deadlines:
//! the earliest wins, and traffic does not touch the wheel. When a timer fires, the connection says
//! when it wants to be asked next ("lazy re-arm"), so a busy connection costs one visit per interval
//! and not one per message.
//!
//! The wheel knows nothing of time but ticks: a tick is [`TICK`] long, counted from the reactor's
//! start. A key is the connection's slot, so the links live in a table beside the slots and cost
//! 12 bytes per connection; there is no allocation when a timer is armed.
//!
//! Invariants: a key is linked into at most one slot; a timer never fires early, and fires in the
//! first `expire` whose `now` has reached it.

use std::time::Duration;

/// A point in time, in ticks since the wheel's owner started. 32 bits last for 6.8 years.
pub type Tick = u32;

/// How long a tick is: the resolution of every deadline of a connection.
pub const TICK: Duration = Duration::from_millis(50);

/// Whole ticks in a duration, rounded up, so that a deadline is never early; at least 1.
#[must_use]
pub fn ticks(duration: Duration) -> Tick {
    let ticks = duration.as_nanos().div_ceil(TICK.as_nanos());
    Tick::try_from(ticks).unwrap_or(LATEST).clamp(1, LATEST)
}

/// The latest tick a timer can be armed for.
pub const LATEST: Tick = Tick::MAX - 1;

/// A hashed timer wheel of [`SLOTS`] slots, one tick each. A timer further away than one turn of the
/// wheel stays in its slot and is passed over until its turn comes.
pub struct Wheel {
    heads: Box<[u32; SLOTS]>,
    /// One bit for each slot with a timer in it: finding the next due slot reads 128 bytes.
    occupied: [u64; SLOTS / 64],
    nodes: Vec<Box<[Node; PAGE]>>,
    now: Tick,
    armed: usize,
}

#[derive(Clone, Copy)]
struct Node {
    next: u32,
    previous: u32,
    /// [`UNARMED`] where the key has no timer.
    at: Tick,
}

/// Slots in the wheel: 51 s at 50 ms, longer than the usual ping interval, so that few timers wait
/// for a second turn.
pub const SLOTS: usize = 1024;
const PAGE: usize = 1024;
const NONE: u32 = u32::MAX;
const UNARMED: Tick = Tick::MAX;
const EMPTY: Node = Node {
    next: NONE,
    previous: NONE,
    at: UNARMED,
};

impl Wheel {
    /// Bytes of heap it holds.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        size_of_val(&*self.heads) + self.nodes.len() * PAGE * size_of::<Node>()
    }

    /// An empty wheel that stands at tick `now`.
    #[must_use]
    pub fn new(now: Tick) -> Self {
        Self {
            heads: Box::new([NONE; SLOTS]),
            occupied: [0; SLOTS / 64],
            nodes: Vec::new(),
            now,
            armed: 0,
        }
    }

    /// Timers armed now.
    #[must_use]
    pub const fn armed(&self) -> usize {
        self.armed
    }

    /// When the key's timer fires, if it is armed.
    #[must_use]
    pub fn deadline(&self, key: u32) -> Option<Tick> {
        let (page, place) = split(key);
        let at = self.nodes.get(page)?[place].at;
        (at != UNARMED).then_some(at)
    }

    /// Arms the key's timer for tick `at`, moving it if it was armed. A tick that has passed fires
    /// at the next `expire`.
    pub fn arm(&mut self, key: u32, at: Tick) {
        assert!(key != NONE, "the key u32::MAX marks the end of a list");
        let (page, _) = split(key);
        while self.nodes.len() <= page {
            self.nodes.push(Box::new([EMPTY; PAGE]));
        }
        self.cancel(key);
        // The wheel has already been past `now`, so the soonest slot is the next one.
        let at = at.clamp(self.now.saturating_add(1), LATEST);
        let slot = at as usize % SLOTS;
        let head = self.heads[slot];
        *self.node(key) = Node {
            next: head,
            previous: NONE,
            at,
        };
        if head != NONE {
            self.node(head).previous = key;
        }
        self.heads[slot] = key;
        self.occupied[slot / 64] |= 1 << (slot % 64);
        self.armed += 1;
    }

    /// Disarms the key's timer; nothing happens where it has none.
    pub fn cancel(&mut self, key: u32) {
        let Some(at) = self.deadline(key) else { return };
        let Node { next, previous, .. } = *self.node(key);
        let slot = at as usize % SLOTS;
        if next != NONE {
            self.node(next).previous = previous;
        }
        if previous == NONE {
            self.heads[slot] = next;
            if next == NONE {
                self.occupied[slot / 64] &= !(1 << (slot % 64));
            }
        } else {
            self.node(previous).next = next;
        }
        *self.node(key) = EMPTY;
        self.armed -= 1;
    }

    /// Moves the wheel to `now` and appends the keys whose time has come. Cost: the slots passed
    /// (at most one turn of the wheel) and the timers in them.
    pub fn expire(&mut self, now: Tick, expired: &mut Vec<u32>) {
        if now <= self.now {
            return;
        }
        let passed = ((now - self.now) as usize).min(SLOTS);
        let first = self.now.wrapping_add(1) as usize;
        self.now = now;
        for slot in first..first + passed {
            let slot = slot % SLOTS;
            if self.occupied[slot / 64] & (1 << (slot % 64)) == 0 {
                continue;
            }
            let mut key = self.heads[slot];
            while key != NONE {
                let Node { next, at, .. } = *self.node(key);
                if at <= now {
                    self.cancel(key);
                    expired.push(key);
                }
                key = next;
            }
        }
    }

    /// Ticks until the next slot that holds a timer: how long the owner may sleep. A timer of a later
    /// turn may wake it too early, once per turn of the wheel.
    #[must_use]
    pub fn until_next(&self) -> Option<Tick> {
        if self.armed == 0 {
            return None;
        }
        let first = (self.now as usize + 1) % SLOTS;
        let (word, bit) = (first / 64, first % 64);
        for step in 0..=self.occupied.len() {
            let at = (word + step) % self.occupied.len();
            let mask = match step {
                0 => u64::MAX << bit,
                _ if step == self.occupied.len() => !(u64::MAX << bit),
                _ => u64::MAX,
            };
            let found = self.occupied[at] & mask;
            if found != 0 {
                let slot = at * 64 + found.trailing_zeros() as usize;
                let distance = (slot + SLOTS - first) % SLOTS;
                return Tick::try_from(distance + 1).ok();
            }
        }
        None
    }

    fn node(&mut self, key: u32) -> &mut Node {
        let (page, place) = split(key);
        &mut self.nodes[page][place]
    }
}

impl std::fmt::Debug for Wheel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wheel")
            .field("now", &self.now)
            .field("armed", &self.armed)
            .finish()
    }
}

const fn split(key: u32) -> (usize, usize) {
    (key as usize / PAGE, key as usize % PAGE)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ticks_round_up_and_are_never_zero() {
        assert_eq!(ticks(Duration::ZERO), 1);
        assert_eq!(ticks(Duration::from_millis(50)), 1);
        assert_eq!(ticks(Duration::from_millis(51)), 2);
        assert_eq!(ticks(Duration::from_secs(25)), 500);
        assert_eq!(ticks(Duration::MAX), LATEST);
    }

    #[test]
    fn a_timer_fires_at_its_tick_and_once() {
        let mut wheel = Wheel::new(0);
        let mut fired = Vec::new();
        wheel.arm(7, 3);
        wheel.expire(2, &mut fired);
        assert!(fired.is_empty());
        wheel.expire(3, &mut fired);
        assert_eq!(fired, [7]);
        wheel.expire(3000, &mut fired);
        assert_eq!(fired, [7]);
    }

    #[test]
    fn a_deadline_beyond_one_turn_waits_for_its_turn() {
        let mut wheel = Wheel::new(0);
        let mut fired = Vec::new();
        wheel.arm(1, 5 + 2 * 1024);
        wheel.expire(5, &mut fired);
        wheel.expire(5 + 1024, &mut fired);
        assert!(fired.is_empty());
        wheel.expire(5 + 2 * 1024, &mut fired);
        assert_eq!(fired, [1]);
    }

    #[test]
    fn a_deadline_in_the_past_fires_at_the_next_tick() {
        let mut wheel = Wheel::new(100);
        let mut fired = Vec::new();
        wheel.arm(1, 4);
        assert_eq!(wheel.until_next(), Some(1));
        wheel.expire(101, &mut fired);
        assert_eq!(fired, [1]);
    }

    #[test]
    fn a_long_sleep_fires_everything_it_passed() {
        let mut wheel = Wheel::new(0);
        for key in 0..5000 {
            wheel.arm(key, key + 1);
        }
        let mut fired = Vec::new();
        wheel.expire(1_000_000, &mut fired);
        fired.sort_unstable();
        assert_eq!(fired, (0..5000).collect::<Vec<_>>());
        assert_eq!((wheel.armed(), wheel.until_next()), (0, None));
    }

    proptest! {
        /// The wheel agrees with a sorted list, whatever is armed, moved, cancelled and expired.
        #[test]
        fn the_wheel_agrees_with_a_sorted_list(
            start in 0u32..3000,
            steps in prop::collection::vec((0u8..4, 0u32..40, 0u32..2500), 1..400),
        ) {
            let mut wheel = Wheel::new(start);
            let mut model: BTreeMap<u32, Tick> = BTreeMap::new();
            let mut now = start;
            for (what, key, number) in steps {
                match what {
                    0 | 1 => {
                        wheel.arm(key, now + number);
                        model.insert(key, (now + number).max(now + 1));
                    }
                    2 => {
                        wheel.cancel(key);
                        model.remove(&key);
                    }
                    _ => {
                        now += number % 600;
                        let mut fired = Vec::new();
                        wheel.expire(now, &mut fired);
                        fired.sort_unstable();
                        let due: Vec<u32> =
                            model.iter().filter(|(_, at)| **at <= now).map(|(key, _)| *key).collect();
                        prop_assert_eq!(fired, due);
                        model.retain(|_, at| *at > now);
                    }
                }
                prop_assert_eq!(wheel.armed(), model.len());
                for key in 0..40 {
                    prop_assert_eq!(wheel.deadline(key), model.get(&key).copied());
                }
                match (wheel.until_next(), model.values().min()) {
                    (None, None) => {}
                    // The nearest occupied slot: never later than the nearest deadline.
                    (Some(sleep), Some(at)) => prop_assert!(now + sleep <= *at && sleep >= 1),
                    other => prop_assert!(false, "{:?}", other),
                }
            }
        }
    }
}
