//! Who subscribes to what in this reactor, both ways round, and what is on its way to whom.
//!
//! The table is pure: it names subscribers by key (the connection's slot) and says whom to serve
//! next; the reactor does the writing. A fan-out is a flight: the batches it carries and how far
//! down the list of subscribers it has come, so that one message to 100,000 subscribers is served in
//! slices with other work between them.
//!
//! A channel's list has three parts while a flight is on: `[served | unserved | joined since]`.
//! Leaving and joining keep the parts apart, so every subscriber that was there when the flight began
//! and is still there when its turn comes is served exactly once, and nobody else is.
//!
//! Invariants: a key is in a channel's list at most once; `positions` and `members` mirror each other;
//! a channel without subscribers and without a flight has no row.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use smallvec::SmallVec;

use super::{Batch, Channel, Limits};

/// Channels of one reactor and their subscribers.
#[derive(Debug, Default)]
pub struct Table {
    names: HashMap<Channel, RowIndex, ahash::RandomState>,
    rows: Vec<Row>,
    vacant: Vec<RowIndex>,
    /// For each key, where it stands in which channel. Empty for connections without channels.
    places: HashMap<u32, SmallVec<[Place; 4]>, ahash::RandomState>,
    /// Rows with a flight to serve, in the order of their turn.
    airborne: VecDeque<RowIndex>,
    /// Bytes of all batches that wait or are in the air.
    bytes: usize,
}

type RowIndex = u32;

#[derive(Debug, Clone, Copy)]
struct Place {
    row: RowIndex,
    position: u32,
}

#[derive(Debug)]
struct Row {
    name: Option<Channel>,
    members: Vec<Member>,
    /// Batches that wait for the next flight.
    waiting: Vec<Arc<Batch>>,
    waiting_bytes: usize,
    flight: Option<Flight>,
}

/// A subscriber: its key, and whether it takes compressed frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// The connection's slot.
    pub key: u32,
    /// Whether the connection negotiated compression with the default window.
    pub deflate: bool,
}

#[derive(Debug)]
struct Flight {
    batches: Vec<Arc<Batch>>,
    bytes: usize,
    /// `members[..served]` have had it.
    served: usize,
    /// `members[served..due]` are to get it; those behind joined later.
    due: usize,
}

/// What one call of [`Table::next_slice`] asks of the reactor.
#[derive(Debug)]
pub struct Slice {
    /// What to deliver, in this order.
    pub batches: Vec<Arc<Batch>>,
    /// To whom.
    pub members: Vec<Member>,
}

/// Whether a batch was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It will be delivered to the channel's subscribers.
    Queued,
    /// Nobody here subscribes to the channel.
    NoSubscriber,
    /// The channel has too many bytes waiting for their flight; the batch was dropped.
    Full,
}

impl Table {
    /// Subscribes a key to a channel; false if it was subscribed already.
    pub fn join(&mut self, channel: &Channel, member: Member) -> bool {
        let row = match self.names.get(channel) {
            Some(row) => *row,
            None => self.open_row(channel),
        };
        let places = self.places.entry(member.key).or_default();
        if places.iter().any(|place| place.row == row) {
            return false;
        }
        let members = &mut self.rows[row as usize].members;
        places.push(Place {
            row,
            position: index(members.len()),
        });
        members.push(member);
        true
    }

    /// Ends a subscription; false if there was none. Nothing of a flight reaches the key any more.
    pub fn leave(&mut self, channel: &Channel, key: u32) -> bool {
        let Some(row) = self.names.get(channel).copied() else {
            return false;
        };
        let Some(places) = self.places.get_mut(&key) else {
            return false;
        };
        let Some(found) = places.iter().position(|place| place.row == row) else {
            return false;
        };
        let place = places.swap_remove(found);
        if places.is_empty() {
            self.places.remove(&key);
        }
        self.remove(place);
        true
    }

    /// Ends all subscriptions of a key. Cost: O(its channels).
    pub fn leave_all(&mut self, key: u32) {
        for place in self.places.remove(&key).unwrap_or_default() {
            self.remove(place);
        }
    }

    /// Whether the key subscribes to anything.
    #[must_use]
    pub fn is_member_anywhere(&self, key: u32) -> bool {
        self.places.contains_key(&key)
    }

    /// Channels the key subscribes to.
    #[must_use]
    pub fn channels_of(&self, key: u32) -> usize {
        self.places.get(&key).map_or(0, SmallVec::len)
    }

    /// Subscribers of a channel in this reactor.
    #[must_use]
    pub fn subscribers(&self, channel: &Channel) -> usize {
        self.names
            .get(channel)
            .map_or(0, |row| self.rows[*row as usize].members.len())
    }

    /// Channels with a subscriber in this reactor.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.names.len()
    }

    /// Takes a batch for delivery, unless that would exceed a limit. A channel without anything
    /// waiting takes a batch of any size, as long as there is room in all.
    pub fn deliver(&mut self, channel: &Channel, batch: &Arc<Batch>, limits: &Limits) -> Accepted {
        let Some(index) = self.names.get(channel).copied() else {
            return Accepted::NoSubscriber;
        };
        let row = &mut self.rows[index as usize];
        if row.members.is_empty() {
            return Accepted::NoSubscriber;
        }
        let bytes = batch.frames().len();
        let is_channel_full =
            !row.waiting.is_empty() && row.waiting_bytes + bytes > limits.channel_bytes_max;
        if is_channel_full || self.bytes + bytes > limits.bytes_max {
            return Accepted::Full;
        }
        if row.flight.is_none() && row.waiting.is_empty() {
            self.airborne.push_back(index);
        }
        row.waiting.push(Arc::clone(batch));
        row.waiting_bytes += bytes;
        self.bytes += bytes;
        Accepted::Queued
    }

    /// Bytes of all batches that wait or are in the air.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a flight has subscribers left to serve.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.airborne.is_empty()
    }

    /// The next subscribers to serve, at most `members_max` (at least 1) of one channel. Channels
    /// with a flight take turns. A channel whose flight has ended starts the next one with everything
    /// that has come in meanwhile, so a fan-out that falls behind catches up with larger writes.
    pub fn next_slice(&mut self, members_max: usize) -> Option<Slice> {
        let index = self.airborne.pop_front()?;
        let row = &mut self.rows[index as usize];
        let flight = match &mut row.flight {
            Some(flight) => flight,
            None => {
                let bytes = std::mem::take(&mut row.waiting_bytes);
                let (batches, due) = (std::mem::take(&mut row.waiting), row.members.len());
                row.flight.insert(Flight {
                    batches,
                    bytes,
                    served: 0,
                    due,
                })
            }
        };
        let until = flight.due.min(flight.served + members_max.max(1));
        let slice = Slice {
            batches: flight.batches.clone(),
            members: row.members[flight.served..until].to_vec(),
        };
        flight.served = until;
        if flight.served == flight.due {
            self.bytes -= flight.bytes;
            row.flight = None;
            if row.waiting.is_empty() {
                self.close_row_if_idle(index);
                return Some(slice);
            }
        }
        self.airborne.push_back(index);
        Some(slice)
    }

    fn open_row(&mut self, channel: &Channel) -> RowIndex {
        let fresh = Row {
            name: Some(channel.clone()),
            members: Vec::new(),
            waiting: Vec::new(),
            waiting_bytes: 0,
            flight: None,
        };
        let row = if let Some(row) = self.vacant.pop() {
            self.rows[row as usize] = fresh;
            row
        } else {
            self.rows.push(fresh);
            index(self.rows.len() - 1)
        };
        self.names.insert(channel.clone(), row);
        row
    }

    /// Takes a subscriber out of a list, keeping its three parts apart: the hole moves to the end of
    /// its part, then to the end of the next, and so out of the list.
    fn remove(&mut self, place: Place) {
        let row = &mut self.rows[place.row as usize];
        let mut hole = place.position as usize;
        let ends = match &mut row.flight {
            Some(flight) => {
                if hole < flight.served {
                    flight.served -= 1;
                    flight.due -= 1;
                    [Some(flight.served), Some(flight.due)]
                } else if hole < flight.due {
                    flight.due -= 1;
                    [None, Some(flight.due)]
                } else {
                    [None, None]
                }
            }
            None => [None, None],
        };
        for last in ends.into_iter().flatten().chain([row.members.len() - 1]) {
            if last != hole {
                let moved = row.members[last];
                row.members[hole] = moved;
                if let Some(places) = self.places.get_mut(&moved.key)
                    && let Some(its) = places.iter_mut().find(|its| its.row == place.row)
                {
                    its.position = index(hole);
                }
                hole = last;
            }
        }
        row.members.pop();
        if row.members.capacity() > 64 && row.members.len() < row.members.capacity() / 4 {
            row.members.shrink_to(row.members.len() * 2);
        }
        self.close_row_if_idle(place.row);
    }

    fn close_row_if_idle(&mut self, index: RowIndex) {
        let row = &mut self.rows[index as usize];
        if !row.members.is_empty() {
            return;
        }
        self.bytes -= row.flight.take().map_or(0, |flight| flight.bytes) + row.waiting_bytes;
        row.waiting = Vec::new();
        row.waiting_bytes = 0;
        if let Some(name) = row.name.take() {
            self.names.remove(&name);
            self.airborne.retain(|airborne| *airborne != index);
            self.vacant.push(index);
        }
    }
}

/// Lists are indexed with 32 bits: a reactor has fewer connections than that.
fn index(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::super::delivery::Draft;
    use super::*;
    use crate::ws::Message;

    fn channel(name: &str) -> Channel {
        Channel::new(name).unwrap()
    }

    const UNLIMITED: Limits = Limits {
        channel_bytes_max: usize::MAX,
        bytes_max: usize::MAX,
    };

    fn per_channel(channel_bytes_max: usize) -> Limits {
        Limits {
            channel_bytes_max,
            ..UNLIMITED
        }
    }

    fn member(key: u32) -> Member {
        Member {
            key,
            deflate: false,
        }
    }

    fn batch(text: &str) -> Arc<Batch> {
        let mut draft = Draft::default();
        draft.push(&Message::from(text));
        Arc::new(draft.seal().remove(0))
    }

    #[test]
    fn empty_channels_vanish() {
        let mut table = Table::default();
        assert!(table.join(&channel("a"), member(1)));
        assert!(!table.join(&channel("a"), member(1)), "twice is once");
        assert_eq!((table.channels(), table.subscribers(&channel("a"))), (1, 1));
        assert!(table.leave(&channel("a"), 1));
        assert!(!table.leave(&channel("a"), 1));
        assert_eq!((table.channels(), table.is_member_anywhere(1)), (0, false));
        assert_eq!(
            table.deliver(&channel("a"), &batch("x"), &UNLIMITED),
            Accepted::NoSubscriber
        );
    }

    #[test]
    fn a_flight_in_the_air_collects_what_comes_meanwhile() {
        let mut table = Table::default();
        let room = channel("room");
        for key in 0..3 {
            table.join(&room, member(key));
        }
        table.deliver(&room, &batch("one"), &UNLIMITED);
        assert_eq!(table.next_slice(2).unwrap().members, [member(0), member(1)]);
        table.deliver(&room, &batch("two"), &UNLIMITED);
        table.deliver(&room, &batch("three"), &UNLIMITED);
        let rest = table.next_slice(2).unwrap();
        assert_eq!((rest.members, rest.batches.len()), (vec![member(2)], 1));
        let next = table.next_slice(9).unwrap();
        assert_eq!((next.members.len(), next.batches.len()), (3, 2));
        assert!(!table.has_work() && table.next_slice(9).is_none());
    }

    #[test]
    fn x40_what_waits_behind_a_flight_is_bounded() {
        let mut table = Table::default();
        let room = channel("room");
        table.join(&room, member(1));
        let text = batch(&"x".repeat(96)); // 98 bytes on the wire
        assert_eq!(
            table.deliver(&room, &text, &per_channel(196)),
            Accepted::Queued
        );
        assert_eq!(
            table.deliver(&room, &text, &per_channel(195)),
            Accepted::Full
        );
        assert_eq!(
            table.deliver(&room, &text, &per_channel(196)),
            Accepted::Queued
        );
        assert_eq!(
            table.deliver(&room, &text, &per_channel(197)),
            Accepted::Full
        );
        assert_eq!(table.next_slice(1).unwrap().batches.len(), 2);
        assert_eq!(
            table.deliver(&room, &text, &per_channel(1)),
            Accepted::Queued,
            "one is always taken"
        );
    }

    proptest! {
        /// Against a naive map: the same members, and each flight serves exactly those that were
        /// there when it began and still are when their turn comes, once and in order of flights.
        #[test]
        fn a14_the_table_agrees_with_a_naive_map(
            steps in prop::collection::vec((0u8..6, 0u32..12, 0usize..3, 1usize..5), 1..300),
        ) {
            let names = ["a", "b", "c"].map(channel);
            let mut table = Table::default();
            let mut model: [BTreeSet<u32>; 3] = Default::default();
            // Per channel: sequence number of the next publication, and what each key must still get.
            let mut published = [0usize; 3];
            let mut got: BTreeMap<(usize, u32), Vec<usize>> = BTreeMap::new();
            let mut batches: Vec<(Arc<Batch>, usize, usize)> = Vec::new();
            for (what, key, which, count) in steps {
                match what {
                    0 | 1 => {
                        prop_assert_eq!(table.join(&names[which], member(key)), model[which].insert(key));
                        got.remove(&(which, key));
                    }
                    2 => {
                        prop_assert_eq!(table.leave(&names[which], key), model[which].remove(&key));
                    }
                    3 => {
                        table.leave_all(key);
                        model.iter_mut().for_each(|members| { members.remove(&key); });
                    }
                    4 => {
                        let one = batch("x");
                        let accepted = table.deliver(&names[which], &one, &UNLIMITED);
                        let expected = if model[which].is_empty() { Accepted::NoSubscriber } else { Accepted::Queued };
                        prop_assert_eq!(accepted, expected);
                        batches.push((one, which, published[which]));
                        published[which] += 1;
                    }
                    _ => if let Some(slice) = table.next_slice(count) {
                        let mut numbers = Vec::new();
                        let mut of = None;
                        for delivered in &slice.batches {
                            let (_, which, number) = batches.iter().find(|(known, ..)| Arc::ptr_eq(known, delivered)).unwrap();
                            of = Some(*which);
                            numbers.push(*number);
                        }
                        let of = of.unwrap();
                        for served in &slice.members {
                            prop_assert!(model[of].contains(&served.key), "served after it left");
                            got.entry((of, served.key)).or_default().extend(&numbers);
                        }
                    }
                }
                for which in 0..3 {
                    prop_assert_eq!(table.subscribers(&names[which]), model[which].len());
                }
            }
            while let Some(slice) = table.next_slice(3) {
                let (_, of, _) = batches.iter().find(|(known, ..)| Arc::ptr_eq(known, &slice.batches[0])).unwrap();
                let numbers: Vec<usize> = slice.batches.iter()
                    .map(|one| batches.iter().find(|(known, ..)| Arc::ptr_eq(known, one)).unwrap().2).collect();
                for served in &slice.members {
                    got.entry((*of, served.key)).or_default().extend(&numbers);
                }
            }
            // In order, without a gap and without a repeat, up to the last one published.
            for ((which, key), numbers) in got {
                for pair in numbers.windows(2) {
                    prop_assert_eq!(pair[1], pair[0] + 1);
                }
                if model[which].contains(&key) {
                    prop_assert_eq!(numbers.last().copied(), published[which].checked_sub(1));
                }
            }
        }
    }
}
