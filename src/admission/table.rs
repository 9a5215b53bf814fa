//! Who holds what: a table of fixed size from a key to a count of places and a bucket of permits,
//! shared by all reactors, exact, without a lock.
//!
//! # Shape
//! An array of *rows*. A key belongs to one row, chosen by a keyed hash, and there to whichever of
//! the row's [`WAYS`] cells it was given. A cell is taken for a key at its first attempt, and may be
//! given to another one as soon as it is *idle*: no place held, nobody at work in it, and its bucket
//! recovered, which is the same as never used. A cell that is not idle is never taken away. Where a
//! row has no idle cell left, the key goes without, and the caller falls back on something shared.
//!
//! Instead of the key a cell remembers the 64 bits of its hash. Two keys share a cell if these are
//! equal, which for 100 000 keys happens once in 3.7 thousand million tables, and cannot be aimed at
//! without the hash's key.
//!
//! # How threads agree
//! * `Row::published` says which cells are in use, beside a version that every change raises. A thread
//!   that did not find its key in the row prepares a cell that is not in use and publishes it under
//!   the version it had searched: so no key is ever in two cells, and half-made cells are invisible.
//! * `Cell::state` counts the places, and the *pins*: threads that are at work in the cell. A thread
//!   pins a cell before it touches the bucket, so that an idle cell can be told by this one word. Each
//!   pin changes the state's version: whoever compared against an old state has to look again.
//! * An idle cell is *retired* before it is taken out of use. Whoever meets a retired cell in use
//!   finishes that step, so no thread waits for another, wherever that one was interrupted.
//!
//! The version of a state has 16 bits. To be fooled, a thread must sleep between two neighbouring
//! instructions while others pin that one cell an exact multiple of 65 536 times; a bucket would then
//! forget what it granted, once. Places are counted right even so.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::rate::{Moment, Quota, SharedBucket, Wait};

/// The table. Memory: 384 bytes for each row, all of it allocated at the start.
#[derive(Debug)]
pub(super) struct Table {
    rows: Box<[Row]>,
}

/// Cells in a row. With the 6 keys it is meant for on average, one key in ten thousand finds it full.
const WAYS: usize = 15;
const KEYS_PER_ROW: usize = 6;

/// Cells are kept as columns, so that a key is searched for in two cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Row {
    /// Bit `n`: cell `n` is in use. Above the lowest 16 bits: the version.
    published: AtomicU64,
    keys: [AtomicU64; WAYS],
    states: [State; WAYS],
    buckets: [SharedBucket; WAYS],
}

const _: () = assert!(size_of::<Row>() == 384 && WAYS <= 16);

/// One version of [`Row::published`].
const PUBLISHED_VERSION: u64 = 1 << 16;

impl Table {
    /// A table meant for `keys` keys at a time, and with room for about twice as many: 64 bytes for
    /// each.
    pub(super) fn new(keys: usize) -> Self {
        let rows = keys.div_ceil(KEYS_PER_ROW).clamp(1, Self::ROWS_MAX);
        Self {
            rows: std::iter::repeat_with(Row::default).take(rows).collect(),
        }
    }

    /// Bytes of the table: the same from its beginning to its end.
    pub(super) const fn bytes_held(&self) -> usize {
        self.rows.len() * size_of::<Row>()
    }

    /// So that the number of a cell fits into 31 bits.
    const ROWS_MAX: usize = 1 << 27;

    /// Pins the key's cell, giving it one if it has none. `None` where every cell of its row is in use
    /// by somebody else.
    pub(super) fn pin(&self, hash: u64, now: Moment) -> Option<Pinned<'_>> {
        let place = (u128::from(hash) * self.rows.len() as u128) >> 64;
        #[expect(clippy::cast_possible_truncation, reason = "below the number of rows")]
        let row = place as usize;
        let way = self.rows[row].pin(hash, now)?;
        #[expect(clippy::cast_possible_truncation, reason = "ROWS_MAX times 16 fits")]
        let number = CellNumber((row * 16 + way) as u32);
        Some(Pinned {
            state: &self.rows[row].states[way],
            bucket: &self.rows[row].buckets[way],
            number,
        })
    }

    /// Gives back a place that [`Pinned::take_place`] granted.
    pub(super) fn release(&self, CellNumber(number): CellNumber) {
        self.rows[number as usize / 16].states[number as usize % 16].release();
    }

    /// Places held and cells not idle, by going through the whole table: for tests and for figures
    /// that are asked for rarely.
    pub(super) fn census(&self, now: Moment) -> Census {
        let mut census = Census::default();
        for row in &self.rows {
            let published = row.published.load(Ordering::Acquire);
            for way in (0..WAYS).filter(|way| published & 1 << way != 0) {
                let state = row.states[way].load();
                if state.is_live() {
                    census.places += u64::from(state.places());
                    let is_idle = state.is_unused() && row.buckets[way].has_recovered(now);
                    census.cells_live += u64::from(!is_idle);
                }
            }
        }
        census
    }
}

/// What [`Table::census`] found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Census {
    pub(super) places: u64,
    pub(super) cells_live: u64,
}

/// Names a cell for as long as a place in it is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CellNumber(pub(super) u32);

impl Row {
    /// See [`Table::pin`].
    fn pin(&self, key: u64, now: Moment) -> Option<usize> {
        let mut prepared = None;
        loop {
            let published = self.published.load(Ordering::Acquire);
            match self.find(published, key) {
                Find::Pinned(way) => {
                    self.abandon(prepared);
                    return Some(way);
                }
                Find::Changed => {}
                Find::Absent => {
                    let Some(way) = prepared.or_else(|| self.prepare(published, key)) else {
                        if self.retire_idle(published, now) {
                            continue;
                        }
                        return None;
                    };
                    if self.change(published, published | 1 << way) {
                        return Some(way);
                    }
                    // The row has changed since it was searched: the key may be in it by now.
                    prepared = Some(way);
                }
            }
        }
    }

    /// Searches the cells in use.
    fn find(&self, published: u64, key: u64) -> Find {
        for way in 0..WAYS {
            if published & 1 << way == 0 || self.keys[way].load(Ordering::Relaxed) != key {
                continue;
            }
            let state = self.states[way].load();
            if !state.is_live() {
                self.change(published, published & !(1 << way));
                return Find::Changed;
            }
            // Read again: only a key read behind a state is of that state's version or later, and if it
            // is of a later one, the state has changed and cannot be pinned.
            if self.keys[way].load(Ordering::Relaxed) == key && self.states[way].pin(state) {
                return Find::Pinned(way);
            }
            return Find::Changed;
        }
        Find::Absent
    }

    /// Takes a cell that is not in use, and makes it the key's, pinned once. Nobody sees it yet.
    fn prepare(&self, published: u64, key: u64) -> Option<usize> {
        (0..WAYS).find(|way| {
            if published & 1 << way != 0 {
                return false;
            }
            let state = self.states[*way].load();
            // The state is older than this look at the row. If the row is still the one that was
            // searched, the cell was not in use when its state was read; and it has not been since, if
            // the state is still the same when it is claimed.
            let is_same_row = self.published.load(Ordering::Acquire) == published;
            if !state.is_retired() || !is_same_row || !self.states[*way].claim(state) {
                return false;
            }
            self.keys[*way].store(key, Ordering::Relaxed);
            self.buckets[*way].reset();
            self.states[*way].begin();
            true
        })
    }

    /// Gives back a prepared cell: somebody else brought the key in.
    fn abandon(&self, prepared: Option<usize>) {
        if let Some(way) = prepared {
            self.states[way].give_back();
        }
    }

    /// Takes an idle cell out of use. False if there is none.
    fn retire_idle(&self, published: u64, now: Moment) -> bool {
        for way in (0..WAYS).filter(|way| published & 1 << way != 0) {
            let state = self.states[way].load();
            let is_retired = state.is_retired()
                || state.is_unused()
                    && self.buckets[way].has_recovered(now)
                    && self.states[way].retire(state);
            if is_retired {
                // If this fails the row has changed, and the next search meets the cell again.
                self.change(published, published & !(1 << way));
                return true;
            }
        }
        // Somebody may have made room since the row was looked at.
        self.published.load(Ordering::Acquire) != published
    }

    fn change(&self, from: u64, to: u64) -> bool {
        let to = to.wrapping_add(PUBLISHED_VERSION);
        self.published
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

enum Find {
    Pinned(usize),
    Absent,
    /// Something moved while it was being looked at: look again.
    Changed,
}

/// A cell's state: 32 bits of places, 16 of pins, 16 of version.
#[derive(Debug)]
struct State(AtomicU64);

impl Default for State {
    fn default() -> Self {
        Self(AtomicU64::new(RETIRED))
    }
}

const PIN: u64 = 1 << 32;
const VERSION: u64 = 1 << 48;
const PLACES: u64 = PIN - 1;
/// In place of a number of places: free to be claimed.
const RETIRED: u64 = PLACES;
/// In place of a number of places: claimed by a thread that is preparing it.
const CLAIMED: u64 = PLACES - 1;
/// Most places a cell can count; one more is refused whatever the limit says.
const PLACES_CEILING: u32 = u32::MAX - 2;

/// What a [`State`] was when it was loaded.
#[derive(Debug, Clone, Copy)]
struct Seen(u64);

impl Seen {
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
    const fn places(self) -> u32 {
        self.0 as u32
    }

    const fn is_live(self) -> bool {
        self.places() <= PLACES_CEILING
    }

    const fn is_retired(self) -> bool {
        self.0 & PLACES == RETIRED
    }

    /// Neither places nor pins.
    const fn is_unused(self) -> bool {
        self.0 << 16 == 0
    }
}

impl State {
    fn load(&self) -> Seen {
        Seen(self.0.load(Ordering::Acquire))
    }

    fn change(&self, from: Seen, to: u64) -> bool {
        self.0
            .compare_exchange(from.0, to, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    fn pin(&self, seen: Seen) -> bool {
        debug_assert!(seen.is_live());
        self.change(seen, seen.0.wrapping_add(VERSION) + PIN)
    }

    fn unpin(&self) {
        self.0.fetch_sub(PIN, Ordering::Release);
    }

    /// Turns a pin into a place, unless `max` are held; the pin is gone either way.
    fn take_place(&self, max: u32) -> bool {
        let mut state = self.load();
        loop {
            let has_room = state.places() < max.min(PLACES_CEILING);
            let after = state.0 - PIN + u64::from(has_room);
            if self.change(state, after) {
                return has_room;
            }
            state = self.load();
        }
    }

    fn release(&self) {
        let before = Seen(self.0.fetch_sub(1, Ordering::Release));
        debug_assert!(before.is_live() && before.places() > 0);
    }

    fn retire(&self, seen: Seen) -> bool {
        debug_assert!(seen.is_unused());
        self.change(seen, seen.0.wrapping_add(VERSION) | RETIRED)
    }

    fn claim(&self, seen: Seen) -> bool {
        debug_assert!(seen.is_retired());
        self.change(seen, seen.0 & !PLACES | CLAIMED)
    }

    /// Of a claimed cell: no place, one pin. The claim is exclusive, so these are plain stores.
    fn begin(&self) {
        let version = self.0.load(Ordering::Relaxed) & !(VERSION - 1);
        self.0
            .store(version.wrapping_add(VERSION) | PIN, Ordering::Release);
    }

    /// Of a cell that was begun and not published.
    fn give_back(&self) {
        let version = self.0.load(Ordering::Relaxed) & !(VERSION - 1);
        self.0
            .store(version.wrapping_add(VERSION) | RETIRED, Ordering::Release);
    }
}

/// A cell that cannot go away, because this thread is at work in it.
#[derive(Debug)]
pub(super) struct Pinned<'a> {
    state: &'a State,
    bucket: &'a SharedBucket,
    number: CellNumber,
}

impl Pinned<'_> {
    /// Spends a permit of the key's bucket.
    pub(super) fn spend(&self, quota: &Quota, now: Moment) -> Result<(), Wait> {
        self.bucket.spend(quota, 1, now)
    }

    /// Takes a place, unless `max` are taken.
    pub(super) fn take_place(self, max: u32) -> Option<CellNumber> {
        let (state, number) = (self.state, self.number);
        // The pin is turned into the place in one step, so there is none left to let go.
        std::mem::forget(self);
        state.take_place(max).then_some(number)
    }

    /// Places held in the cell now.
    pub(super) fn places(&self) -> u32 {
        self.state.load().places()
    }
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        self.state.unpin();
    }
}

/// A count of places that does not belong to a key.
#[derive(Debug, Default)]
pub(super) struct Places(AtomicU32);

impl Places {
    pub(super) fn held(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes a place unless `max` are taken.
    pub(super) fn take(&self, max: u32) -> bool {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                (held < max).then(|| held + 1)
            })
            .is_ok()
    }

    pub(super) fn release(&self) {
        let before = self.0.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0);
    }
}

#[cfg(test)]
mod tests {
    //! The interleavings that threads meet once in a thousand million attempts, step by step. What they
    //! do at full speed is in the tests of `limits`.

    use std::time::Duration;

    use super::*;

    fn at(milliseconds: u64) -> Moment {
        Moment::after(Duration::from_millis(milliseconds))
    }

    /// One thread's look at the row.
    fn look(row: &Row) -> u64 {
        row.published.load(Ordering::Acquire)
    }

    /// Brings `key` into the row, without a pin left.
    fn insert(row: &Row, key: u64) -> usize {
        let way = row.pin(key, at(0)).unwrap();
        row.states[way].unpin();
        way
    }

    #[test]
    fn a_cell_retired_in_use_is_not_claimed_by_a_thread_with_an_old_look() {
        let row = Row::default();
        let old = look(&row);
        // Meanwhile others use the cell, and are interrupted between retiring it and taking it out.
        let way = insert(&row, 1);
        assert!(row.states[way].retire(row.states[way].load()));
        assert_eq!(row.prepare(old, 2), None);
        // Whoever looks for the key finishes their work, and then the cell is free for all.
        assert!(matches!(row.find(look(&row), 1), Find::Changed));
        assert!(matches!(row.find(look(&row), 1), Find::Absent));
        assert_eq!(row.pin(2, at(0)), Some(way));
    }

    #[test]
    fn two_threads_with_one_look_do_not_both_bring_a_key_in() {
        let row = Row::default();
        let old = look(&row);
        let slow = row.prepare(old, 7).unwrap();
        let fast = row.pin(7, at(0)).unwrap();
        assert_ne!(slow, fast);
        assert!(!row.change(old, old | 1 << slow));
        assert!(matches!(row.find(look(&row), 7), Find::Pinned(way) if way == fast));
        row.abandon(Some(slow));
        // What was given back is there for the next one.
        assert_eq!(insert(&row, 8), slow);
    }

    #[test]
    fn a_pin_that_came_and_went_keeps_a_cell_from_being_retired() {
        let row = Row::default();
        let quota = Quota::new(1, Duration::from_secs(1), 1).unwrap();
        let way = insert(&row, 1);
        let (old, is_idle) = (
            row.states[way].load(),
            row.buckets[way].has_recovered(at(0)),
        );
        assert!(old.is_unused() && is_idle);
        // Another attempt spends the permit in between: the cell looks as before, and is not idle.
        assert_eq!(row.pin(1, at(0)), Some(way));
        assert_eq!(row.buckets[way].spend(&quota, 1, at(0)), Ok(()));
        row.states[way].unpin();
        assert!(row.states[way].load().is_unused());
        assert!(!row.states[way].retire(old));
        assert!(!row.retire_idle(look(&row), at(999)));
        assert!(row.retire_idle(look(&row), at(1_000)));
    }

    #[test]
    fn a_cell_that_changed_hands_cannot_be_pinned_by_its_old_state() {
        let row = Row::default();
        let way = insert(&row, 1);
        let old = row.states[way].load();
        assert!(row.retire_idle(look(&row), at(0)));
        assert_eq!(insert(&row, 2), way);
        assert!(!row.states[way].pin(old));
    }

    #[test]
    fn a_row_is_full_when_every_cell_is_held() {
        let row = Row::default();
        for key in 0..15 {
            let way = row.pin(key, at(0)).unwrap();
            assert!(row.states[way].take_place(1));
        }
        assert_eq!(row.pin(15, at(0)), None);
        // Those who are in it still find themselves.
        for key in 0..15 {
            let way = row.pin(key, at(0)).unwrap();
            assert!(!row.states[way].take_place(1));
        }
        row.states[3].release();
        assert_eq!(row.pin(15, at(0)), Some(3));
    }

    #[test]
    fn pins_and_places_survive_the_versions_coming_round() {
        let row = Row::default();
        let way = insert(&row, 1);
        for _ in 0..70_000 {
            assert_eq!(row.pin(1, at(0)), Some(way));
            assert!(row.states[way].take_place(1));
            row.states[way].release();
        }
        assert!(row.states[way].load().is_unused());
    }
}
