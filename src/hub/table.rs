//! Who subscribes to what in this reactor, both ways round, and what is on its way to whom.
//!
//! The table is pure: it names subscribers by key (the connection's slot) and says whom to serve
//! next; the reactor does the writing. A fan-out is a flight: the batches it carries and how far
//! down the list of subscribers it has come, so that one message to 100,000 subscribers is served in
//! slices with other work between them.
//!
//! A subscriber gets exactly the batches that were accepted after it had joined: batches are numbered in
//! the order of their acceptance, and a member knows the number it begins with.
//!
//! Where publications of a channel with history have been lost, a gap takes their place in the order; a
//! member who comes to it is told, and leaves.
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

use super::command::{ChannelInfo, StreamPosition};
use super::policy::{ChannelPolicy, Slow};
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
    subscriptions: usize,
    last_tag: Tag,
}

/// Names a channel in outboxes, as long as it has subscribers here. Never 0.
pub type Tag = u32;

/// What a row knows of its channel's policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traits {
    /// What happens to slow subscribers.
    pub slow: Slow,
    /// Whether every loss must be told.
    pub has_history: bool,
    /// Whether the home is told who leaves.
    pub counts_members: bool,
}

impl From<&ChannelPolicy> for Traits {
    fn from(policy: &ChannelPolicy) -> Self {
        Self {
            slow: policy.slow,
            has_history: policy.has_history(),
            counts_members: policy.counts_members(),
        }
    }
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
    /// Batches accepted so far: the number of the next one.
    accepted: u64,
    /// What `accepted` was when somebody joined last.
    joined_at: u64,
    flight: Option<Flight>,
    tag: Tag,
    traits: Traits,
    /// The last position that was accepted.
    top: Option<StreamPosition>,
}

impl Row {
    /// What the member at this position has still to get; nothing of that is for it afterwards.
    fn take_due(&mut self, position: usize) -> Option<Slice> {
        let mut batches = Vec::new();
        if let Some(flight) = &self.flight
            && (flight.served..flight.due).contains(&position)
        {
            batches.clone_from(&flight.batches);
        }
        batches.extend(self.waiting.iter().cloned());
        let slice = Slice {
            channel: self.name.clone()?,
            tag: self.tag,
            traits: self.traits,
            first: self.accepted - batches.len() as u64,
            batches,
            members: vec![self.members[position]],
        };
        self.members[position].since = self.accepted;
        (slice.skipped_by(&slice.members[0]) < slice.batches.len()).then_some(slice)
    }
}

/// A subscriber: its key, and whether it takes compressed frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// The connection's slot.
    pub key: u32,
    /// Whether the connection negotiated compression with the default window.
    pub deflate: bool,
    /// The number of the first batch it gets; the table fills it in.
    since: u64,
}

impl Member {
    /// A subscriber that is about to join.
    #[must_use]
    pub const fn new(key: u32, deflate: bool) -> Self {
        Self {
            key,
            deflate,
            since: 0,
        }
    }
}

#[derive(Debug)]
struct Flight {
    batches: Vec<Arc<Batch>>,
    /// The number of the first of them.
    first: u64,
    bytes: usize,
    /// `members[..served]` have had it.
    served: usize,
    /// `members[served..due]` are to get it; those behind joined later.
    due: usize,
}

/// What one call of [`Table::next_slice`] asks of the reactor.
#[derive(Debug)]
pub struct Slice {
    /// The channel.
    pub channel: Channel,
    /// Its name in outboxes.
    pub tag: Tag,
    /// Its policy.
    pub traits: Traits,
    /// What to deliver, in this order.
    pub batches: Vec<Arc<Batch>>,
    /// To whom.
    pub members: Vec<Member>,
    first: u64,
}

impl Slice {
    /// How many of the batches, from the front, were accepted before this member joined.
    #[must_use]
    pub fn skipped_by(&self, member: &Member) -> usize {
        let skipped = usize::try_from(member.since.saturating_sub(self.first));
        skipped.map_or(self.batches.len(), |skipped| {
            skipped.min(self.batches.len())
        })
    }
}

/// Whether a batch was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It will be delivered to the channel's subscribers.
    Queued,
    /// Nobody here subscribes to the channel.
    NoSubscriber,
    /// The channel has too many bytes waiting for their flight; the batch was dropped, and on a channel
    /// with history its subscribers are told.
    Full,
}

impl Table {
    /// Subscribes a key to a channel; false if it was subscribed already. The traits count if it is the
    /// channel's first subscriber here.
    pub fn join(&mut self, channel: &Channel, member: Member, traits: Traits) -> bool {
        let row = match self.names.get(channel) {
            Some(row) => *row,
            None => self.open_row(channel, traits),
        };
        let places = self.places.entry(member.key).or_default();
        if places.iter().any(|place| place.row == row) {
            return false;
        }
        let row_index = row;
        let row = &mut self.rows[row as usize];
        places.push(Place {
            row: row_index,
            position: index(row.members.len()),
        });
        row.joined_at = row.accepted;
        row.members.push(Member {
            since: row.accepted,
            ..member
        });
        self.subscriptions += 1;
        true
    }

    /// Notes where the channel's stream ends at this moment, for whoever has just joined behind it.
    pub fn note_top(&mut self, channel: &Channel, top: StreamPosition) {
        if let Some(row) = self.names.get(channel) {
            let row = &mut self.rows[*row as usize];
            debug_assert!(
                row.top
                    .is_none_or(|known| known.epoch != top.epoch || known.offset <= top.offset),
                "{channel}: known {:?}, top {top:?}",
                row.top
            );
            row.top.get_or_insert(top);
        }
    }

    /// Ends a subscription; gives the channel's tag, or nothing if there was none. Nothing of a flight
    /// reaches the key any more.
    pub fn leave(&mut self, channel: &Channel, key: u32) -> Option<(Tag, Traits)> {
        let row = self.names.get(channel).copied()?;
        let places = self.places.get_mut(&key)?;
        let found = places.iter().position(|place| place.row == row)?;
        let place = places.swap_remove(found);
        if places.is_empty() {
            self.places.remove(&key);
        }
        let Row { tag, traits, .. } = self.rows[row as usize];
        self.remove(place);
        Some((tag, traits))
    }

    /// Ends all subscriptions of a key, and names each channel. Cost: O(its channels).
    pub fn leave_all(&mut self, key: u32, mut left: impl FnMut(&Channel, Traits)) {
        for place in self.places.remove(&key).unwrap_or_default() {
            let row = &self.rows[place.row as usize];
            if let Some(name) = &row.name {
                left(name, row.traits);
            }
            self.remove(place);
        }
    }

    /// Whether the key subscribes to this channel.
    #[must_use]
    pub fn is_member(&self, channel: &Channel, key: u32) -> bool {
        let row = self.names.get(channel);
        row.zip(self.places.get(&key))
            .is_some_and(|(row, places)| places.iter().any(|place| place.row == *row))
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

    /// The channel's name in outboxes; 0 if it has no subscriber here.
    #[must_use]
    pub fn tag_of(&self, channel: &Channel) -> Tag {
        let row = self.names.get(channel);
        row.map_or(0, |row| self.rows[*row as usize].tag)
    }

    /// Channels with a subscriber in this reactor.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.names.len()
    }

    /// Subscriptions of this reactor.
    #[must_use]
    pub const fn subscriptions(&self) -> usize {
        self.subscriptions
    }

    /// The channels with a subscriber in this reactor.
    pub fn infos(&self) -> impl Iterator<Item = ChannelInfo> {
        self.names.iter().map(|(channel, row)| ChannelInfo {
            channel: channel.clone(),
            clients: self.rows[*row as usize].members.len() as u64,
        })
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
        if let Some(first) = batch.position() {
            let follows = row.top.is_none_or(|top| {
                // A stream that begins anew has lost nothing if its beginning is here.
                let before = if top.epoch == first.epoch {
                    top.offset
                } else {
                    0
                };
                first.offset == before + 1
            });
            row.top = batch.last_position();
            if !follows {
                self.queue_gap(index);
            }
        }
        let row = &self.rows[index as usize];
        let bytes = batch.frames().len();
        let is_channel_full =
            !row.waiting.is_empty() && row.waiting_bytes + bytes > limits.channel_bytes_max;
        if is_channel_full || self.bytes + bytes > limits.bytes_max {
            if batch.position().is_some() {
                self.queue_gap(index);
            }
            return Accepted::Full;
        }
        self.queue(index, Arc::clone(batch));
        Accepted::Queued
    }

    /// Tells all subscribers of a channel that publications have been lost, in the order of what they get.
    pub fn lose(&mut self, channel: &Channel) {
        if let Some(index) = self.names.get(channel).copied() {
            self.queue_gap(index);
            self.rows[index as usize].top = None;
        }
    }

    fn queue_gap(&mut self, index: RowIndex) {
        let row = &self.rows[index as usize];
        let is_told = row.waiting.last().is_some_and(|last| last.is_gap());
        // Who has joined behind the last gap has missed something as well.
        if !is_told || row.joined_at == row.accepted {
            self.queue(index, Arc::new(Batch::gap()));
        }
    }

    fn queue(&mut self, index: RowIndex, batch: Arc<Batch>) {
        let row = &mut self.rows[index as usize];
        if row.flight.is_none() && row.waiting.is_empty() {
            self.airborne.push_back(index);
        }
        let bytes = batch.frames().len();
        row.waiting.push(batch);
        row.accepted += 1;
        row.waiting_bytes += bytes;
        self.bytes += bytes;
    }

    /// Bytes of all batches that wait or are in the air.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of the table itself, what is on its way apart. O(1): of a channel's list, the places in use
    /// are counted, and of a connection's, those beyond the first four are not.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        self.names.capacity() * size_of::<(Channel, RowIndex)>()
            + self.rows.capacity() * size_of::<Row>()
            + self.places.capacity() * size_of::<(u32, SmallVec<[Place; 4]>)>()
            + self.subscriptions * size_of::<Member>()
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
                    first: row.accepted - batches.len() as u64,
                    batches,
                    bytes,
                    served: 0,
                    due,
                })
            }
        };
        let until = flight.due.min(flight.served + members_max.max(1));
        let slice = Slice {
            channel: row.name.clone()?,
            tag: row.tag,
            traits: row.traits,
            batches: flight.batches.clone(),
            members: row.members[flight.served..until].to_vec(),
            first: flight.first,
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

    /// What a subscriber has still to get of a channel, of all its channels without one: to be delivered
    /// now, for its turn brings it nothing of that any more. Cost: O(its channels), and for each O(what
    /// waits there).
    pub fn take_due(&mut self, key: u32, channel: Option<&Channel>) -> Vec<Slice> {
        let row = channel.map(|channel| self.names.get(channel).copied());
        let places = self.places.get(&key).into_iter().flatten();
        let wanted = places.filter(|place| row.is_none_or(|row| row == Some(place.row)));
        let rows = &mut self.rows;
        wanted
            .filter_map(|place| rows[place.row as usize].take_due(place.position as usize))
            .collect()
    }

    fn open_row(&mut self, channel: &Channel, traits: Traits) -> RowIndex {
        self.last_tag = self.last_tag.checked_add(1).unwrap_or(1);
        let fresh = Row {
            name: Some(channel.clone()),
            members: Vec::new(),
            waiting: Vec::new(),
            waiting_bytes: 0,
            accepted: 0,
            joined_at: 0,
            flight: None,
            tag: self.last_tag,
            traits,
            top: None,
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
        self.subscriptions -= 1;
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

    fn unlimited() -> Limits {
        Limits {
            channel_bytes_max: usize::MAX,
            bytes_max: usize::MAX,
            ..Limits::default()
        }
    }

    fn per_channel(channel_bytes_max: usize) -> Limits {
        Limits {
            channel_bytes_max,
            ..unlimited()
        }
    }

    fn member(key: u32) -> Member {
        Member::new(key, false)
    }

    fn batch(text: &str) -> Arc<Batch> {
        let mut draft = Draft::default();
        draft.push(&Message::from(text));
        Arc::new(draft.seal().remove(0))
    }

    #[test]
    fn empty_channels_vanish() {
        let mut table = Table::default();
        assert!(table.join(&channel("a"), member(1), Traits::default()));
        assert!(
            !table.join(&channel("a"), member(1), Traits::default()),
            "twice is once"
        );
        assert_eq!((table.channels(), table.subscribers(&channel("a"))), (1, 1));
        assert!(table.leave(&channel("a"), 1).is_some());
        assert!(table.leave(&channel("a"), 1).is_none());
        assert_eq!((table.channels(), table.is_member_anywhere(1)), (0, false));
        assert_eq!(
            table.deliver(&channel("a"), &batch("x"), &unlimited()),
            Accepted::NoSubscriber
        );
    }

    #[test]
    fn a_flight_in_the_air_collects_what_comes_meanwhile() {
        let mut table = Table::default();
        let room = channel("room");
        for key in 0..3 {
            table.join(&room, member(key), Traits::default());
        }
        table.deliver(&room, &batch("one"), &unlimited());
        assert_eq!(table.next_slice(2).unwrap().members, [member(0), member(1)]);
        table.deliver(&room, &batch("two"), &unlimited());
        table.deliver(&room, &batch("three"), &unlimited());
        let rest = table.next_slice(2).unwrap();
        assert_eq!((rest.members, rest.batches.len()), (vec![member(2)], 1));
        let next = table.next_slice(9).unwrap();
        assert_eq!((next.members.len(), next.batches.len()), (3, 2));
        assert!(!table.has_work() && table.next_slice(9).is_none());
    }

    #[test]
    fn x39_a_hundred_thousand_are_served_in_slices_and_other_channels_in_between() {
        const CROWD: u32 = 100_000;
        const SLICE: usize = 512;
        let (crowd, other) = (channel("crowd"), channel("other"));
        let mut table = Table::default();
        for key in 0..CROWD {
            table.join(&crowd, member(key), Traits::default());
        }
        table.join(&other, member(CROWD), Traits::default());
        table.deliver(&crowd, &batch("to all of you"), &unlimited());
        let mut is_served = vec![false; CROWD as usize];
        let mut slices = 0;
        loop {
            // Whatever is said elsewhere meanwhile waits for one slice, and not for the crowd.
            table.deliver(&other, &batch("to one"), &unlimited());
            let Some(slice) = table.next_slice(SLICE) else {
                panic!("both have something to be served")
            };
            slices += 1;
            assert_eq!(slice.channel, crowd);
            assert!(slice.members.len() <= SLICE);
            for member in slice.members {
                let is_served = &mut is_served[member.key as usize];
                assert!(!std::mem::replace(is_served, true), "once");
            }
            assert_eq!(table.next_slice(SLICE).unwrap().channel, other);
            if !table.has_work() {
                break;
            }
        }
        assert!(is_served.into_iter().all(|is_served| is_served));
        assert_eq!(slices, (CROWD as usize).div_ceil(SLICE));
    }

    #[test]
    fn x40_what_waits_behind_a_flight_is_bounded() {
        let mut table = Table::default();
        let room = channel("room");
        table.join(&room, member(1), Traits::default());
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

    fn placed(offsets: std::ops::RangeInclusive<u64>, epoch: u64) -> Arc<Batch> {
        use super::super::command::Epoch;
        use super::super::delivery::Placement;
        let mut draft = Draft::default();
        offsets
            .clone()
            .for_each(|_| draft.push(&Message::from("x")));
        let mut next = offsets;
        let batches = draft.seal_with(|_| {
            Some(Placement {
                position: next.next().map(|offset| StreamPosition {
                    offset,
                    epoch: Epoch::of(epoch),
                }),
                exclude: None,
            })
        });
        Arc::new(batches.into_iter().next().unwrap())
    }

    const RECOVERABLE: Traits = Traits {
        slow: Slow::AsOutbox,
        has_history: true,
        counts_members: false,
    };

    /// Offsets of what is delivered next, and 0 for a gap.
    fn served(table: &mut Table, key: u32) -> Vec<u64> {
        let mut offsets = Vec::new();
        while let Some(slice) = table.next_slice(9) {
            for member in slice.members.iter().filter(|member| member.key == key) {
                for batch in &slice.batches[slice.skipped_by(member)..] {
                    match batch.position() {
                        Some(first) => offsets
                            .extend((0..batch.messages() as u64).map(|nth| first.offset + nth)),
                        None => offsets.push(0),
                    }
                }
            }
        }
        offsets
    }

    #[test]
    fn whatever_is_missing_between_offsets_is_a_gap_in_its_place() {
        let room = channel("room");
        let mut table = Table::default();
        table.join(&room, member(1), RECOVERABLE);
        for batch in [placed(4..=5, 1), placed(6..=6, 1), placed(8..=8, 1)] {
            assert_eq!(table.deliver(&room, &batch, &unlimited()), Accepted::Queued);
        }
        assert_eq!(served(&mut table, 1), [4, 5, 6, 0, 8]);
        table.deliver(&room, &placed(1..=1, 2), &unlimited());
        assert_eq!(served(&mut table, 1), [1], "an epoch from its beginning");
        table.deliver(&room, &placed(2..=2, 3), &unlimited());
        assert_eq!(
            served(&mut table, 1),
            [0, 2],
            "an epoch without its beginning"
        );
        table.lose(&room);
        table.lose(&room);
        assert_eq!(served(&mut table, 1), [0]);
        table.deliver(&room, &placed(7..=7, 3), &unlimited());
        assert_eq!(served(&mut table, 1), [7], "the loss was told");
    }

    #[test]
    fn n1_what_is_dropped_for_want_of_room_is_told_and_a_later_joiner_hears_of_no_earlier_loss() {
        let room = channel("room");
        let mut table = Table::default();
        table.join(&room, member(1), RECOVERABLE);
        let limits = per_channel(3);
        assert_eq!(
            table.deliver(&room, &placed(1..=1, 1), &limits),
            Accepted::Queued
        );
        assert_eq!(
            table.deliver(&room, &placed(2..=2, 1), &limits),
            Accepted::Full
        );
        table.join(&room, member(2), RECOVERABLE);
        assert_eq!(
            table.deliver(&room, &placed(3..=3, 1), &unlimited()),
            Accepted::Queued
        );
        let slice = table.next_slice(9).unwrap();
        let gaps: Vec<bool> = slice.batches.iter().map(|batch| batch.is_gap()).collect();
        assert_eq!(gaps, [false, true, false]);
        let skipped: Vec<usize> = slice
            .members
            .iter()
            .map(|one| slice.skipped_by(one))
            .collect();
        assert_eq!(skipped, [0, 2]);
    }

    proptest! {
        /// Against a naive map: the same members, and each gets exactly the batches accepted after it
        /// had joined and before it left, once and in their order, however the flights are cut.
        #[test]
        fn a14_the_table_agrees_with_a_naive_map(
            steps in prop::collection::vec((0u8..8, 0u32..12, 0usize..3, 1usize..5), 1..300),
        ) {
            let names = ["a", "b", "c"].map(channel);
            let mut table = Table::default();
            // What each member has got, and the number of the first batch that is for it.
            let mut model: [BTreeMap<u32, (usize, Vec<usize>)>; 3] = Default::default();
            let mut batches: Vec<(Arc<Batch>, usize, usize)> = Vec::new();
            let mut published = [0usize; 3];
            let note = |slice: &Slice, model: &mut [BTreeMap<u32, (usize, Vec<usize>)>; 3], batches: &[(Arc<Batch>, usize, usize)]| {
                let number_of = |one: &Arc<Batch>| batches.iter().find(|(known, ..)| Arc::ptr_eq(known, one)).unwrap();
                let of = number_of(&slice.batches[0]).1;
                assert_eq!(slice.channel, names[of]);
                for served in &slice.members {
                    let (_, got) = model[of].get_mut(&served.key).expect("served after it left");
                    let skipped = slice.skipped_by(served);
                    got.extend(slice.batches[skipped..].iter().map(|one| number_of(one).2));
                }
                of
            };
            for (what, key, which, count) in steps {
                match what {
                    0 | 1 => {
                        let is_new = !model[which].contains_key(&key);
                        prop_assert_eq!(table.join(&names[which], member(key), Traits::default()), is_new);
                        model[which].entry(key).or_insert((published[which], Vec::new()));
                    }
                    2 => {
                        let left = table.leave(&names[which], key);
                        prop_assert_eq!(left.is_some(), model[which].remove(&key).is_some());
                    }
                    3 => {
                        let mut left = BTreeSet::new();
                        table.leave_all(key, |channel, _| { left.insert(channel.clone()); });
                        let expected: BTreeSet<_> = (0..3)
                            .filter(|which| model[*which].remove(&key).is_some())
                            .map(|which| names[which].clone())
                            .collect();
                        prop_assert_eq!(left, expected);
                    }
                    4 => {
                        let one = batch("x");
                        let accepted = table.deliver(&names[which], &one, &unlimited());
                        let expected = if model[which].is_empty() { Accepted::NoSubscriber } else { Accepted::Queued };
                        prop_assert_eq!(accepted, expected);
                        batches.push((one, which, published[which]));
                        published[which] += 1;
                    }
                    5 => {
                        if let Some(slice) = table.next_slice(count) {
                            note(&slice, &mut model, &batches);
                        }
                    }
                    _ => {
                        let only = (what == 6).then(|| &names[which]);
                        let mut due: BTreeSet<usize> = (0..3)
                            .filter(|of| only.is_none_or(|only| *only == names[*of]))
                            .filter(|of| model[*of].get(&key).is_some_and(|(first, got)| first + got.len() < published[*of]))
                            .collect();
                        for slice in table.take_due(key, only) {
                            let of = note(&slice, &mut model, &batches);
                            prop_assert!(due.remove(&of), "nothing was due, or it came twice");
                            let (first, got) = &model[of][&key];
                            prop_assert_eq!(first + got.len(), published[of], "all of it");
                        }
                        prop_assert!(due.is_empty());
                    }
                }
                for which in 0..3 {
                    prop_assert_eq!(table.subscribers(&names[which]), model[which].len());
                }
                prop_assert_eq!(table.subscriptions(), model.iter().map(BTreeMap::len).sum::<usize>());
            }
            while let Some(slice) = table.next_slice(3) {
                note(&slice, &mut model, &batches);
            }
            prop_assert_eq!(table.bytes(), 0);
            for (which, members) in model.iter().enumerate() {
                for (first, got) in members.values() {
                    let expected: Vec<usize> = (*first..published[which]).collect();
                    prop_assert_eq!(got, &expected);
                }
            }
        }
    }
}
