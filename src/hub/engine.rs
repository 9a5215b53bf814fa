//! Where the state of channels lives: the line between a channel's home and what keeps its history,
//! positions and presence.
//!
//! A home hands an [`Errand`] over, and what comes of it are [`Effect`]s, in the order in which everybody
//! is to see them. An engine that has the state at hand, as [`MemoryEngine`](super::memory::MemoryEngine)
//! does, says the effects at once; one that has to ask somebody else says them in a later
//! [`advance`](Engine::advance), and never waits. Who asked is named in the errand and again in the effect,
//! so nothing has to be remembered in between but by the engine.

use std::sync::Arc;

use super::Channel;
use super::announce::Announcer;
use super::command::{Answer, HistoryQuery, Present, Publication, Since, StreamPosition, Ticket};
use super::delivery::{Batch, Draft};
use crate::conn::ConnectionId;
use crate::timer::Tick;

/// What keeps the state of the channels that live on one reactor. Called on that reactor's thread only.
pub trait Engine: std::fmt::Debug {
    /// Carries an errand out, or begins to. Errands about one channel take effect in their order.
    fn execute(&mut self, errand: Errand, desk: &mut Desk<'_>);

    /// Does what is due, and says what has come of earlier errands. Called once in a turn.
    fn advance(&mut self, desk: &mut Desk<'_>);

    /// When [`advance`](Self::advance) is wanted at the latest.
    fn next_deadline(&self) -> Option<Tick>;

    /// What is kept now.
    fn holdings(&self) -> Holdings;
}

/// What an engine is lent for a call.
#[derive(Debug)]
pub struct Desk<'a> {
    /// The time, as timers count it.
    pub now: Tick,
    /// The wall clock, in seconds since 1970.
    pub wall: u64,
    /// Where effects go.
    pub effects: &'a mut Vec<Effect>,
    /// What is counted.
    pub counts: &'a mut HomeCounts,
}

/// Something for a channel's home to do.
#[derive(Debug)]
pub enum Errand {
    /// Put publications in order, keep them, and hand them on.
    Publish(Channel, Draft),
    /// Answer a question.
    Ask(Asker, Query),
    /// Say where the stream stands and what was there before, for somebody who is about to subscribe.
    Attach(Asker, Channel, Replay),
    /// Somebody has come.
    Enter(Box<Entry>),
    /// Somebody has gone.
    Leave(Box<Departure>),
}

/// Who asked: the reactor, and how it knows the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// The reactor.
    pub reactor: usize,
    /// Its command.
    pub ticket: Ticket,
}

/// A question about one channel.
#[derive(Debug, Clone)]
pub enum Query {
    /// Who is there.
    Presence(Channel),
    /// How many are there.
    PresenceStats(Channel),
    /// What was published.
    History(Channel, HistoryQuery),
    /// Forget what was published.
    HistoryRemove(Channel),
}

/// What a new subscriber wants to have of what was published before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Replay {
    /// Nothing.
    #[default]
    Nothing,
    /// The newest publications, at most so many.
    Last(usize),
    /// What came behind a position, if all of that can be had.
    Since(Since),
}

/// Most publications of the past that a new subscriber gets. More than that is a gap.
pub const REPLAY_MAX: usize = 1_000;

/// Where a new subscriber begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// The stream's end at that moment; `None` on a channel without history.
    pub position: Option<StreamPosition>,
    /// Whether it got all that it wanted. False: something is missing behind the position it named.
    pub is_recovered: bool,
    /// What was published before and is wanted, the oldest first.
    pub publications: Vec<Arc<Publication>>,
}

/// Somebody who has come.
#[derive(Clone)]
pub struct Entry {
    /// Where to.
    pub channel: Channel,
    /// Who.
    pub member: Present,
    /// Who finds the words for it.
    pub announcer: Option<Arc<dyn Announcer>>,
    /// Whether they hear of it themselves.
    pub tells_itself: bool,
    /// Whether nobody is told: they are gone again.
    pub is_silent: bool,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry")
            .field("channel", &self.channel)
            .field("member", &self.member)
            .finish_non_exhaustive()
    }
}

/// Somebody who has gone.
#[derive(Debug, Clone)]
pub struct Departure {
    /// Where from.
    pub channel: Channel,
    /// Who.
    pub client: ConnectionId,
    /// Whether nobody is told: nobody was told that they came.
    pub is_silent: bool,
}

/// What comes of an errand.
#[derive(Debug)]
pub enum Effect {
    /// Publications for the channel's subscribers, on all reactors.
    Deliver(Channel, Arc<Batch>),
    /// An answer to a command.
    Answer(Asker, Answer),
    /// An answer to an [`Errand::Attach`].
    Attached(Asker, Attached),
}

/// What homes count. Plain integers, as all counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HomeCounts {
    /// Publications that were not kept because there is no room for another history.
    pub history_refused: u64,
    /// Members that were not noted because their channel has too many.
    pub presence_refused: u64,
    /// Joins and leaves that were not told singly.
    pub announcements_held: u64,
    /// Publications that were not made again, because their key was known.
    pub replays: u64,
    /// Panics of announcers.
    pub announcer_panics: u64,
}

/// What an engine keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holdings {
    /// Channels with a history, or somebody in them.
    pub channels: usize,
    /// Bytes of all histories.
    pub history_bytes: usize,
    /// Bytes of the channels themselves, beside their histories and members.
    pub channel_bytes: usize,
    /// Members of all channels that count them.
    pub members: usize,
    /// Bytes of them.
    pub presence_bytes: usize,
    /// Bytes of keys of publications.
    pub key_bytes: usize,
}
