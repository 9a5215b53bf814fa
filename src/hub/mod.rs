//! Fan-out: one message to every subscriber of a channel.
//!
//! Each channel has a *home* reactor, found by hashing its name. A publication goes to the home
//! first, which puts all publications of a channel into one order and hands them, once per turn, to
//! every reactor; each reactor then serves its own subscribers ([`table`]). So all subscribers of a
//! node see one order, and no lock and no counter is shared between threads.
//!
//! A publication is framed once, where it is published, and compressed at most once, by the first
//! reactor that has a subscriber who negotiated compression ([`delivery`]).

pub mod announce;
pub mod asks;
pub mod channel;
pub mod command;
pub mod delivery;
pub mod idempotency;
pub mod policy;
pub mod presence;
pub mod stream;
pub mod table;
pub mod users;

use std::collections::HashMap;
use std::sync::Arc;

pub use channel::{Channel, ChannelError};
pub use command::{Answer, Command, CommandError, Outcome, ReplyTo, StreamPosition, Ticket, Whom};
pub use delivery::{Batch, Draft};
pub use table::{Accepted, Member, Slice, Table};

use crate::conn::ConnectionId;
use crate::ws::Message;

/// One reactor's end of the hub: its subscribers, and the publications of the current turn.
#[derive(Debug)]
pub struct Hub {
    /// Who subscribes to what in this reactor.
    pub table: Table,
    home: Home,
    drafts: HashMap<Channel, Draft, ahash::RandomState>,
    draft_bytes: usize,
    limits: Limits,
}

/// What may wait in one reactor's end of the hub, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Behind the fan-out of one channel. Default 16 MiB.
    pub channel_bytes_max: usize,
    /// Of all channels together, and again of what was published in one turn. Default 64 MiB.
    pub bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            channel_bytes_max: 16 * 1024 * 1024,
            bytes_max: 64 * 1024 * 1024,
        }
    }
}

/// Where channels live: the same on every reactor of a server.
#[derive(Debug, Clone)]
pub struct Home {
    /// Keyed once per server, so that nobody outside can choose names that share a home.
    pub hasher: ahash::RandomState,
    /// Reactors of the server, at least 1.
    pub reactors: usize,
    /// The reactor this end belongs to.
    pub me: usize,
}

/// What reactors send one another, once per turn and pair.
#[derive(Debug)]
pub enum Parcel {
    /// To a home: publications to put in order.
    Publish(Vec<(Channel, Draft)>),
    /// From a home: publications in their order, for this reactor's subscribers.
    Deliver(Vec<(Channel, Arc<Batch>)>),
}

impl Parcel {
    /// Bytes of the frames in the parcel.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Publish(drafts) => drafts.iter().map(|(_, draft)| draft.len()).sum(),
            Self::Deliver(batches) => batches.iter().map(|(_, batch)| batch.frames().len()).sum(),
        }
    }

    /// Messages in the parcel: what is lost if it cannot be posted.
    #[must_use]
    pub fn messages(&self) -> usize {
        match self {
            Self::Publish(drafts) => drafts.iter().map(|(_, draft)| draft.messages()).sum(),
            Self::Deliver(batches) => batches.iter().map(|(_, batch)| batch.messages()).sum(),
        }
    }
}

/// Where a parcel goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// One reactor.
    Reactor(usize),
    /// Every reactor but the sender.
    Others,
}

impl Hub {
    /// An end of the hub without subscribers.
    #[must_use]
    pub fn new(home: Home, limits: Limits) -> Self {
        Self {
            table: Table::default(),
            home,
            drafts: HashMap::default(),
            draft_bytes: 0,
            limits,
        }
    }

    /// Publishes a message: it is framed now and leaves for the channel's home at the end of the
    /// turn. Publications of one reactor to one channel keep their order. `false` if too much has been
    /// published in this turn: the message is dropped.
    pub fn publish(&mut self, channel: &Channel, message: &Message<'_>) -> bool {
        self.publish_but(channel, message, None)
    }

    /// Publishes a message to everybody but one; else as [`Self::publish`].
    pub fn publish_but(
        &mut self,
        channel: &Channel,
        message: &Message<'_>,
        excluded: Option<ConnectionId>,
    ) -> bool {
        if self.draft_bytes + message.len() > self.limits.bytes_max {
            return false;
        }
        let draft = match self.drafts.get_mut(channel) {
            Some(draft) => draft,
            None => self.drafts.entry(channel.clone()).or_default(),
        };
        let before = draft.len();
        draft.push_but(message, excluded);
        self.draft_bytes += draft.len() - before;
        true
    }

    /// Takes a parcel from another reactor; returns the messages dropped because too many bytes wait
    /// for a channel's subscribers.
    pub fn receive(&mut self, parcel: Parcel) -> usize {
        match parcel {
            Parcel::Publish(drafts) => {
                let mut dropped = 0;
                for (channel, draft) in drafts {
                    if self.draft_bytes + draft.len() > self.limits.bytes_max {
                        dropped += draft.messages();
                        continue;
                    }
                    self.draft_bytes += draft.len();
                    self.drafts.entry(channel).or_default().append(&draft);
                }
                dropped
            }
            Parcel::Deliver(batches) => batches
                .iter()
                .map(|(channel, batch)| self.deliver(channel, batch))
                .sum(),
        }
    }

    /// Ends the turn: what was published goes to its home, what this home ordered goes to everybody.
    /// Returns the messages dropped, as [`Self::receive`] does.
    pub fn end_turn(&mut self, mut post: impl FnMut(Destination, Parcel)) -> usize {
        if self.drafts.is_empty() {
            return 0;
        }
        self.draft_bytes = 0;
        let mut dropped = 0;
        let mut ordered = Vec::new();
        let mut abroad: Vec<Vec<(Channel, Draft)>> = Vec::new();
        for (channel, draft) in std::mem::take(&mut self.drafts) {
            let home = channel.home(&self.home.hasher, self.home.reactors);
            if home == self.home.me {
                for batch in draft.seal().into_iter().map(Arc::new) {
                    dropped += self.deliver(&channel, &batch);
                    ordered.push((channel.clone(), batch));
                }
            } else {
                abroad.resize_with(self.home.reactors, Vec::new);
                abroad[home].push((channel, draft));
            }
        }
        if self.home.reactors > 1 && !ordered.is_empty() {
            post(Destination::Others, Parcel::Deliver(ordered));
        }
        for (home, drafts) in abroad
            .into_iter()
            .enumerate()
            .filter(|(_, drafts)| !drafts.is_empty())
        {
            post(Destination::Reactor(home), Parcel::Publish(drafts));
        }
        dropped
    }

    fn deliver(&mut self, channel: &Channel, batch: &Arc<Batch>) -> usize {
        match self.table.deliver(channel, batch, &self.limits) {
            Accepted::Queued | Accepted::NoSubscriber => 0,
            Accepted::Full => batch.messages(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reactors joined by queues, as the server joins them by mailboxes.
    fn hubs(count: usize) -> Vec<Hub> {
        let hasher = ahash::RandomState::with_seeds(5, 6, 7, 8);
        let home = |me| Home {
            hasher: hasher.clone(),
            reactors: count,
            me,
        };
        (0..count)
            .map(|me| Hub::new(home(me), Limits::default()))
            .collect()
    }

    fn end_turns(hubs: &mut [Hub]) {
        for _ in 0..2 {
            let mut post = Vec::new();
            for (from, hub) in hubs.iter_mut().enumerate() {
                hub.end_turn(|to, parcel| post.push((from, to, parcel)));
            }
            for (from, to, parcel) in post {
                match (to, parcel) {
                    (Destination::Reactor(to), parcel) => {
                        hubs[to].receive(parcel);
                    }
                    (Destination::Others, Parcel::Deliver(batches)) => {
                        for (at, hub) in hubs.iter_mut().enumerate() {
                            if at != from {
                                hub.receive(Parcel::Deliver(batches.clone()));
                            }
                        }
                    }
                    (Destination::Others, parcel) => panic!("only homes speak to all: {parcel:?}"),
                }
            }
        }
    }

    #[test]
    fn all_reactors_see_one_order_and_nothing_twice() {
        let mut hubs = hubs(3);
        let channels = ["a", "b", "c", "d"].map(|name| Channel::new(name).unwrap());
        for hub in &mut hubs {
            for channel in &channels {
                hub.table.join(
                    channel,
                    Member {
                        key: 1,
                        deflate: false,
                    },
                );
            }
        }
        let mut seen: Vec<HashMap<String, Vec<u8>>> = vec![HashMap::new(); 3];
        for round in 0..20u8 {
            for (number, hub) in hubs.iter_mut().enumerate() {
                for channel in &channels {
                    hub.publish(
                        channel,
                        &Message::from(&[round, u8::try_from(number).unwrap()][..]),
                    );
                }
            }
            end_turns(&mut hubs);
            for (number, hub) in hubs.iter_mut().enumerate() {
                while let Some(slice) = hub.table.next_slice(8) {
                    for batch in slice.batches {
                        // All four channels carry the same bytes, so one log per reactor will do.
                        seen[number]
                            .entry("all".into())
                            .or_default()
                            .extend(batch.frames());
                    }
                }
            }
        }
        let length = seen[0]["all"].len();
        assert_eq!(
            length,
            20 * 3 * 4 * 4,
            "20 rounds, 3 publishers, 4 channels, 4 bytes a frame"
        );
        assert!(seen.iter().all(|log| log["all"].len() == length));
    }

    #[test]
    fn a_publication_without_subscribers_costs_no_row() {
        let mut hub = hubs(1).remove(0);
        hub.publish(&Channel::new("nobody").unwrap(), &Message::from("x"));
        assert_eq!(hub.end_turn(|_, _| panic!("there is nobody to post to")), 0);
        assert_eq!((hub.table.channels(), hub.table.has_work()), (0, false));
    }
}
