//! What one reactor has for another: a queue in order, posted once per turn as far as the mailbox takes
//! it.
//!
//! Publications and batches are bounded in bytes, and dropped beyond that; a batch of a channel with
//! history leaves word of its loss in its place. Everything else is small, bounded by the connections and
//! commands it is about, and never dropped.

use std::collections::HashSet;
use std::sync::Arc;

use super::announce::cancelled;
use super::command::{Answer, Command, Ticket};
use super::engine::{Asker, Attached, Errand, Query};
use super::{Batch, Channel, Draft};

/// Something for another reactor.
#[derive(Debug)]
pub enum Item {
    /// To a channel's home.
    Errand(Errand),
    /// From a home: publications for this reactor's subscribers.
    Deliver(Channel, Arc<Batch>),
    /// From a home: publications of this channel, which has a history, have been lost on the way.
    Lost(Channel),
    /// To who asked.
    Answer(Ticket, Answer),
    /// To a home: to be given back when what was sent there before has been done and handed on.
    Fence(Asker),
    /// From a home: a fence.
    Passed(Ticket),
    /// To who wants to subscribe.
    Attached(Ticket, Box<Attached>),
    /// To every reactor.
    Perform(Asker, Arc<Command>),
}

impl Item {
    /// What it weighs in a mailbox, in bytes.
    fn bytes(&self) -> usize {
        match self {
            Self::Errand(Errand::Publish(_, draft)) => draft.len(),
            Self::Deliver(_, batch) => batch.frames().len(),
            Self::Attached(_, attached) => {
                let publications = attached.publications.iter();
                publications.map(|one| one.message.len()).sum()
            }
            Self::Errand(_)
            | Self::Lost(_)
            | Self::Answer(..)
            | Self::Fence(_)
            | Self::Passed(_)
            | Self::Perform(..) => 0,
        }
    }
}

/// What reactors send one another, once per turn and pair.
#[derive(Debug, Default)]
pub struct Parcel {
    /// What is in it, in order.
    pub items: Vec<Item>,
    /// Bytes of its publications.
    pub bytes: usize,
}

/// Bytes of a parcel, from which on the rest goes into another one.
pub const PARCEL_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of one draft or one batch that a mailbox can take at all.
pub const ITEM_BYTES_MAX: usize = 48 * 1024 * 1024;

/// What waits for one reactor.
#[derive(Debug, Default)]
pub struct Outgoing {
    items: Vec<Item>,
    bytes: usize,
    /// Whether an answer, or a fence on its way back, is among them.
    has_answers: bool,
    /// Channels of which a loss has been noted behind their last batch here.
    lost: HashSet<Channel, ahash::RandomState>,
}

impl Outgoing {
    /// Whether nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether an answer, or a fence on its way back, waits.
    #[must_use]
    pub const fn has_answers(&self) -> bool {
        self.has_answers
    }

    /// Appends what must not be lost.
    pub fn push(&mut self, item: Item) {
        self.has_answers |= matches!(item, Item::Answer(..) | Item::Passed(_));
        self.bytes += item.bytes();
        self.items.push(item);
    }

    /// Opens a draft at the end of the queue; returns its place.
    pub fn open_draft(&mut self, channel: &Channel) -> usize {
        let draft = Errand::Publish(channel.clone(), Draft::default());
        self.items.push(Item::Errand(draft));
        self.items.len() - 1
    }

    /// Lets `push` append a message of so many bytes to a draft, if there is room for it.
    pub fn push_to_draft(
        &mut self,
        at: usize,
        bytes: usize,
        bytes_max: usize,
        push: impl FnOnce(&mut Draft),
    ) -> bool {
        let Some(Item::Errand(Errand::Publish(_, draft))) = self.items.get_mut(at) else {
            return false;
        };
        if self.bytes + bytes > bytes_max || draft.len() + bytes > ITEM_BYTES_MAX {
            return false;
        }
        let before = draft.len();
        push(draft);
        self.bytes += draft.len() - before;
        true
    }

    /// Appends a whole draft to one that is open.
    ///
    /// # Errors
    /// Gives the draft back if there is no room for it.
    pub fn append_to_draft(
        &mut self,
        at: usize,
        draft: Draft,
        bytes_max: usize,
    ) -> Result<(), Draft> {
        let Some(Item::Errand(Errand::Publish(_, open))) = self.items.get_mut(at) else {
            return Err(draft);
        };
        if self.bytes + draft.len() > bytes_max {
            return Err(draft);
        }
        self.bytes += draft.len();
        open.append(draft);
        Ok(())
    }

    /// Appends a batch; false if there is no room for it. The loss of one with a position is noted.
    pub fn push_batch(&mut self, channel: &Channel, batch: &Arc<Batch>, bytes_max: usize) -> bool {
        let bytes = batch.frames().len();
        if self.bytes + bytes > bytes_max || bytes > ITEM_BYTES_MAX {
            if batch.position().is_some() && self.lost.insert(channel.clone()) {
                self.items.push(Item::Lost(channel.clone()));
            }
            return false;
        }
        if !self.lost.is_empty() {
            // A loss behind this batch is another one.
            self.lost.remove(channel);
        }
        self.bytes += bytes;
        self.items
            .push(Item::Deliver(channel.clone(), Arc::clone(batch)));
        true
    }

    /// Takes everything out.
    pub fn take_all(&mut self) -> Vec<Item> {
        self.bytes = 0;
        self.has_answers = false;
        self.lost.clear();
        std::mem::take(&mut self.items)
    }

    /// Posts what waits, in order, until nothing is left or `post` gives a parcel back.
    pub fn post(&mut self, mut post: impl FnMut(Parcel) -> Result<(), Parcel>) {
        while !self.items.is_empty() {
            let parcel = self.next_parcel();
            if let Err(mut parcel) = post(parcel) {
                self.bytes += parcel.bytes;
                parcel.items.append(&mut self.items);
                self.items = parcel.items;
                return;
            }
            // Word of a loss may have left with it.
            self.lost.clear();
        }
        self.has_answers = false;
    }

    fn next_parcel(&mut self) -> Parcel {
        if self.bytes <= PARCEL_BYTES {
            let bytes = std::mem::take(&mut self.bytes);
            let items = std::mem::take(&mut self.items);
            return Parcel { items, bytes };
        }
        let mut bytes = 0;
        let fitting = self.items.iter().take_while(|item| {
            bytes += item.bytes();
            bytes <= PARCEL_BYTES
        });
        let count = fitting.count().max(1);
        let rest = self.items.split_off(count);
        let items = std::mem::replace(&mut self.items, rest);
        let bytes = items.iter().map(Item::bytes).sum();
        self.bytes -= bytes;
        Parcel { items, bytes }
    }
}

/// The channel that an errand is about.
#[must_use]
pub const fn channel_of(errand: &Errand) -> Option<&Channel> {
    Some(match errand {
        Errand::Publish(channel, _)
        | Errand::Attach(_, channel, _)
        | Errand::Ask(
            _,
            Query::Presence(channel)
            | Query::PresenceStats(channel)
            | Query::History(channel, _)
            | Query::HistoryRemove(channel),
        ) => channel,
        Errand::Enter(entry) => &entry.channel,
        Errand::Leave(departure) => &departure.channel,
    })
}

/// Marks joins and leaves that cancel each other, so that nobody is told of them.
#[must_use]
pub fn silence_cancelled(mut items: Vec<Item>) -> Vec<Item> {
    let is_change = |item: &Item| matches!(item, Item::Errand(Errand::Enter(_) | Errand::Leave(_)));
    if !items.iter().any(is_change) {
        return items;
    }
    let changes = items
        .iter()
        .enumerate()
        .filter_map(|(place, item)| match item {
            Item::Errand(Errand::Enter(entry)) => {
                Some((place, &entry.channel, entry.member.client, true))
            }
            Item::Errand(Errand::Leave(departure)) => {
                Some((place, &departure.channel, departure.client, false))
            }
            _ => None,
        });
    for place in cancelled(changes) {
        match &mut items[place] {
            Item::Errand(Errand::Enter(entry)) => entry.is_silent = true,
            Item::Errand(Errand::Leave(departure)) => departure.is_silent = true,
            _ => {}
        }
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::command::{Epoch, Outcome, StreamPosition};
    use crate::hub::delivery::Placement;
    use crate::ws::Message;

    fn channel() -> Channel {
        Channel::new("room").unwrap()
    }

    fn batch(bytes: usize, offset: Option<u64>) -> Arc<Batch> {
        let mut draft = Draft::default();
        draft.push(&Message::from("x".repeat(bytes)));
        let position = offset.map(|offset| StreamPosition {
            offset,
            epoch: Epoch::of(1),
        });
        let mut batches = draft.seal_with(|_| {
            Some(Placement {
                position,
                exclude: None,
            })
        });
        Arc::new(batches.remove(0))
    }

    fn kinds(items: &[Item]) -> String {
        let kind = |item: &Item| match item {
            Item::Errand(_) => 'e',
            Item::Deliver(..) => 'd',
            Item::Lost(_) => 'l',
            Item::Answer(..) => 'a',
            Item::Fence(_) => 'f',
            Item::Passed(_) => 'r',
            Item::Attached(..) => 't',
            Item::Perform(..) => 'p',
        };
        items.iter().map(kind).collect()
    }

    #[test]
    fn n1_a_batch_without_room_leaves_word_and_answers_are_never_dropped() {
        let mut out = Outgoing::default();
        // Ten bytes and a header of two.
        assert!(out.push_batch(&channel(), &batch(10, Some(1)), 24));
        assert!(out.push_batch(&channel(), &batch(10, Some(2)), 24));
        assert!(!out.push_batch(&channel(), &batch(10, Some(3)), 24));
        assert!(!out.push_batch(&channel(), &batch(10, Some(4)), 24));
        assert!(!out.push_batch(&channel(), &batch(10, None), 24));
        out.push(Item::Answer(Ticket(1), Ok(Outcome::Done(1))));
        let mut kept = None;
        out.post(|parcel| {
            kept = Some(kinds(&parcel.items));
            Err(parcel)
        });
        assert_eq!(kept.as_deref(), Some("ddla"));
        assert!(!out.push_batch(&channel(), &batch(10, Some(5)), 24));
        out.post(|parcel| {
            kept = Some(kinds(&parcel.items));
            Ok(())
        });
        assert_eq!(kept.as_deref(), Some("ddla"), "nothing overtook");
        assert!(out.is_empty());
        assert!(out.push_batch(&channel(), &batch(10, Some(6)), 24));
    }

    #[test]
    fn what_is_too_much_for_one_parcel_goes_in_several() {
        let mut out = Outgoing::default();
        for offset in 1..=3 {
            out.push_batch(
                &channel(),
                &batch(PARCEL_BYTES / 2, Some(offset)),
                usize::MAX,
            );
        }
        out.push(Item::Answer(Ticket(1), Ok(Outcome::Done(1))));
        let mut parcels = Vec::new();
        out.post(|parcel| {
            assert!(parcel.bytes <= PARCEL_BYTES);
            parcels.push(kinds(&parcel.items));
            Ok(())
        });
        assert_eq!(parcels.concat(), "ddda");
        assert_eq!(parcels.len(), 3);
        assert!(out.is_empty());
    }
}
