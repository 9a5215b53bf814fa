//! The engine that keeps everything in the home reactor's own memory.
//!
//! A channel is here as long as there is something to keep of it: a history that has not been forgotten,
//! or somebody who is present. A history is emptied when its time is up, and forgotten
//! [`POSITION_KEPT`] later; a channel that comes back begins a new epoch.
//!
//! Everything is bounded: histories by channel and in all, the number of histories, members by channel,
//! keys of publications. A channel that wants more takes it from nobody else.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::Channel;
use super::announce::{Announcement, Announcer, Quota, Verdict};
use super::command::{Answer, CommandError, Epoch, HistoryQuery, Outcome, StreamPosition};
use super::delivery::{Batch, Draft, Placement};
use super::engine::{
    Asker, Attached, Departure, Desk, Effect, Engine, Entry, Errand, Holdings, Query, REPLAY_MAX,
    Replay,
};
use super::idempotency::{self, Replays};
use super::policy::{ChannelPolicy, Policies};
use super::presence::{Entered, Presence};
use super::stream::{Bounds, Recovery, Stream};
use crate::conn::ConnectionId;
use crate::timer::{Tick, ticks};
use crate::ws::Message;

/// How long a history's epoch and offsets are remembered after its publications are gone, if nothing is
/// published meanwhile.
pub const POSITION_KEPT: Duration = Duration::from_secs(3600);

/// What one home may keep. Of a server with several reactors, each has its share of the sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Channels with a history. Publications to one more are delivered, and neither kept nor numbered.
    /// Default 100,000 in all.
    pub histories_max: usize,
    /// Bytes of one channel's history; the oldest publications give way. Default 1 MiB.
    pub history_bytes_max: usize,
    /// Bytes of all histories; the channel that publishes gives way. Default 256 MiB in all.
    pub histories_bytes_max: usize,
    /// Members that a channel counts. Default 10,000.
    pub members_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            histories_max: 100_000,
            history_bytes_max: 1024 * 1024,
            histories_bytes_max: 256 * 1024 * 1024,
            members_max: 10_000,
        }
    }
}

impl Limits {
    /// The share of one of so many homes.
    #[must_use]
    pub fn shared_by(self, homes: usize) -> Self {
        Self {
            histories_max: self.histories_max.div_ceil(homes.max(1)),
            histories_bytes_max: self.histories_bytes_max.div_ceil(homes.max(1)),
            ..self
        }
    }
}

/// Channels in memory.
#[derive(Debug)]
pub struct MemoryEngine {
    policies: Arc<Policies>,
    limits: Limits,
    channels: HashMap<Channel, State, ahash::RandomState>,
    /// When to look at which channel; most are moved back when their time has come.
    agenda: BinaryHeap<Reverse<(Tick, Channel)>>,
    histories: usize,
    histories_bytes: usize,
    members: usize,
    presence_bytes: usize,
    replays: Replays<Option<StreamPosition>>,
    /// Makes epochs: keyed at random, so nobody guesses one, and counted, so none comes twice.
    epochs: ahash::RandomState,
    epochs_made: u64,
}

/// What is kept of a channel.
#[derive(Default)]
struct State {
    history: Option<History>,
    presence: Presence,
    announcer: Option<Arc<dyn Announcer>>,
    quota: Quota,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("history", &self.history)
            .field("presence", &self.presence)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct History {
    stream: Stream,
    /// When its window is emptied.
    empties_at: Tick,
    /// When it is forgotten.
    forgotten_at: Tick,
    /// When the agenda has it looked at.
    due_at: Tick,
}

impl History {
    fn touch(&mut self, policy: &ChannelPolicy, now: Tick) {
        self.empties_at = now.saturating_add(ticks(policy.history_ttl));
        self.forgotten_at = self.empties_at.saturating_add(ticks(POSITION_KEPT));
    }
}

impl Engine for MemoryEngine {
    fn execute(&mut self, errand: Errand, desk: &mut Desk<'_>) {
        match errand {
            Errand::Publish(channel, draft) => self.publish(&channel, draft, desk),
            Errand::Ask(asker, query) => {
                let answer = self.answer(query, desk);
                desk.effects.push(Effect::Answer(asker, answer));
            }
            Errand::Attach(asker, channel, replay) => {
                let attached = self.attach(&channel, replay, desk);
                desk.effects.push(Effect::Attached(asker, attached));
            }
            Errand::Enter(entry) => self.enter(*entry, desk),
            Errand::Leave(departure) => self.leave(&departure, desk),
        }
    }

    fn advance(&mut self, desk: &mut Desk<'_>) {
        while let Some(Reverse((at, _))) = self.agenda.peek() {
            if *at > desk.now {
                break;
            }
            let Some(Reverse((_, channel))) = self.agenda.pop() else {
                break;
            };
            self.look_at(&channel, desk);
        }
    }

    fn next_deadline(&self) -> Option<Tick> {
        self.agenda.peek().map(|Reverse((at, _))| *at)
    }

    fn holdings(&self) -> Holdings {
        Holdings {
            channels: self.channels.len(),
            history_bytes: self.histories_bytes,
            channel_bytes: self.channels.capacity() * size_of::<(Channel, State)>()
                + self.agenda.capacity() * size_of::<(Tick, Channel)>(),
            members: self.members,
            presence_bytes: self.presence_bytes,
            key_bytes: self.replays.bytes(),
        }
    }
}

impl MemoryEngine {
    /// An engine that keeps nothing yet. `limits` are this home's own share.
    #[must_use]
    pub fn new(policies: Arc<Policies>, limits: Limits) -> Self {
        Self {
            policies,
            limits,
            channels: HashMap::default(),
            agenda: BinaryHeap::new(),
            histories: 0,
            histories_bytes: 0,
            members: 0,
            presence_bytes: 0,
            replays: Replays::new(idempotency::BYTES_MAX),
            epochs: ahash::RandomState::new(),
            epochs_made: 0,
        }
    }

    fn publish(&mut self, channel: &Channel, draft: Draft, desk: &mut Desk<'_>) {
        let policies = Arc::clone(&self.policies);
        let policy = policies.of(channel);
        if !policy.has_history() && !draft.has_notes() {
            return deliver(channel, draft.seal(), desk);
        }
        let has_history = policy.has_history() && self.has_history(channel, policy, desk.now);
        let others = self.histories_bytes - self.bytes_of(channel);
        let room = self.limits.histories_bytes_max.saturating_sub(others);
        let bounds = Bounds {
            size_max: policy.history_size,
            bytes_max: self.limits.history_bytes_max.min(room),
        };
        let mut history = match self.channels.get_mut(channel) {
            Some(state) if has_history => state.history.as_mut(),
            _ => None,
        };
        let (replays, counts) = (&mut self.replays, &mut *desk.counts);
        let mut answers = Vec::new();
        let batches = draft.seal_with(|mut drafted| {
            let note = drafted.note.take().unwrap_or_default();
            let options = note.options;
            let asker = note
                .asker
                .map(|(reactor, ticket)| Asker { reactor, ticket });
            let key = options.idempotency_key.as_deref();
            if let Some(first) = key.and_then(|key| replays.find(channel, key, desk.now)) {
                counts.replays += 1;
                answers.extend(asker.map(|asker| (asker, first)));
                return None;
            }
            let position = match &mut history {
                Some(history) if !options.skip_history => {
                    let message = drafted.to_message();
                    Some(history.stream.push(message, options.tags, bounds))
                }
                None if policy.has_history() && !options.skip_history => {
                    counts.history_refused += 1;
                    None
                }
                _ => None,
            };
            if let Some(key) = key {
                replays.remember(channel, key, position, desk.now);
            }
            answers.extend(asker.map(|asker| (asker, position)));
            Some(Placement {
                position,
                exclude: options.exclude,
            })
        });
        if let Some(history) = history {
            history.touch(policy, desk.now);
            self.histories_bytes = others + history.stream.bytes();
        }
        deliver(channel, batches, desk);
        let answers = answers.into_iter();
        desk.effects.extend(
            answers
                .map(|(asker, position)| Effect::Answer(asker, Ok(Outcome::Published(position)))),
        );
    }

    /// Sees to it that the channel has a history; false if there is no room for another.
    fn has_history(&mut self, channel: &Channel, policy: &ChannelPolicy, now: Tick) -> bool {
        let state = self.channels.get(channel);
        if state.is_some_and(|state| state.history.is_some()) {
            return true;
        }
        if self.histories >= self.limits.histories_max {
            return false;
        }
        self.histories += 1;
        self.epochs_made += 1;
        let epoch = Epoch::of(self.epochs.hash_one(self.epochs_made));
        let mut history = History {
            stream: Stream::new(epoch),
            empties_at: 0,
            forgotten_at: 0,
            due_at: 0,
        };
        history.touch(policy, now);
        history.due_at = history.empties_at;
        self.agenda.push(Reverse((history.due_at, channel.clone())));
        self.channels.entry(channel.clone()).or_default().history = Some(history);
        true
    }

    fn bytes_of(&self, channel: &Channel) -> usize {
        let state = self.channels.get(channel);
        let history = state.and_then(|state| state.history.as_ref());
        history.map_or(0, |history| history.stream.bytes())
    }

    fn stream(&mut self, channel: &Channel, now: Tick) -> Option<&mut Stream> {
        let policies = Arc::clone(&self.policies);
        let policy = policies.of(channel);
        if !policy.has_history() || !self.has_history(channel, policy, now) {
            return None;
        }
        let state = self.channels.get_mut(channel)?;
        state.history.as_mut().map(|history| &mut history.stream)
    }

    fn answer(&mut self, query: Query, desk: &Desk<'_>) -> Answer {
        match query {
            Query::Presence(channel) => {
                let state = self.present(&channel)?;
                let members = state.into_iter().flat_map(Presence::members);
                Ok(Outcome::Presence(members.cloned().collect()))
            }
            Query::PresenceStats(channel) => {
                let state = self.present(&channel)?;
                Ok(Outcome::PresenceStats {
                    clients: state.map_or(0, Presence::clients) as u64,
                    users: state.map_or(0, Presence::users) as u64,
                })
            }
            Query::History(channel, query) => self.read(&channel, &query, desk.now),
            Query::HistoryRemove(channel) => {
                if !self.policies.of(&channel).has_history() {
                    return Err(CommandError::NotAvailable);
                }
                self.histories_bytes -= self.bytes_of(&channel);
                if let Some(state) = self.channels.get_mut(&channel)
                    && let Some(history) = &mut state.history
                {
                    history.stream.clear();
                }
                Ok(Outcome::Done(0))
            }
        }
    }

    fn read(&mut self, channel: &Channel, query: &HistoryQuery, now: Tick) -> Answer {
        if !self.policies.of(channel).has_history() {
            return Err(CommandError::NotAvailable);
        }
        let stream = self.stream(channel, now).ok_or(CommandError::Internal)?;
        let publications = stream.read(query)?;
        Ok(Outcome::History(publications, stream.position()))
    }

    fn present(&self, channel: &Channel) -> Result<Option<&Presence>, CommandError> {
        if !self.policies.of(channel).presence {
            return Err(CommandError::NotAvailable);
        }
        let state = self.channels.get(channel);
        Ok(state.map(|state| &state.presence))
    }

    fn attach(&mut self, channel: &Channel, replay: Replay, desk: &Desk<'_>) -> Attached {
        let Some(stream) = self.stream(channel, desk.now) else {
            return Attached {
                position: None,
                is_recovered: !matches!(replay, Replay::Since(_)),
                publications: Vec::new(),
            };
        };
        let found = match replay {
            Replay::Nothing => Recovery::Complete(Vec::new()),
            Replay::Last(count) => Recovery::Complete(stream.last(count.min(REPLAY_MAX))),
            Replay::Since(since) => stream.recover(since, REPLAY_MAX),
        };
        let (is_recovered, publications) = match found {
            Recovery::Complete(publications) => (true, publications),
            Recovery::Gap => (false, Vec::new()),
        };
        Attached {
            position: Some(stream.position()),
            is_recovered,
            publications,
        }
    }

    fn enter(&mut self, entry: Entry, desk: &mut Desk<'_>) {
        let policies = Arc::clone(&self.policies);
        let policy = policies.of(&entry.channel);
        if !policy.counts_members() {
            return;
        }
        let state = self.channels.entry(entry.channel.clone()).or_default();
        if entry.announcer.is_some() {
            state.announcer = entry.announcer;
        }
        let member = entry.member.clone();
        let before = state.presence.bytes();
        let entered = state.presence.join(entry.member, self.limits.members_max);
        self.presence_bytes = self.presence_bytes + state.presence.bytes() - before;
        match entered {
            Entered::New => self.members += 1,
            Entered::Again => return,
            Entered::Full => {
                desk.counts.presence_refused += 1;
                return;
            }
        }
        if policy.announce {
            let event = Announcement::Joined(&member, desk.wall);
            let unheard_by = (!entry.tells_itself).then_some(member.client);
            let is_silent = entry.is_silent;
            self.announce(&entry.channel, &event, unheard_by, is_silent, desk);
        }
    }

    fn leave(&mut self, departure: &Departure, desk: &mut Desk<'_>) {
        let channel = &departure.channel;
        let Some(state) = self.channels.get_mut(channel) else {
            return;
        };
        let before = state.presence.bytes();
        let Some(member) = state.presence.leave(departure.client) else {
            return;
        };
        self.presence_bytes = self.presence_bytes + state.presence.bytes() - before;
        self.members -= 1;
        if self.policies.of(channel).announce {
            let event = Announcement::Left(&member, desk.wall);
            self.announce(channel, &event, None, departure.is_silent, desk);
        }
        self.drop_if_empty(channel);
    }

    /// Tells a join or a leave, or counts it to be told with others.
    fn announce(
        &mut self,
        channel: &Channel,
        event: &Announcement<'_>,
        unheard_by: Option<ConnectionId>,
        is_silent: bool,
        desk: &mut Desk<'_>,
    ) {
        if is_silent {
            desk.counts.announcements_held += 1;
            return;
        }
        let Some(state) = self.channels.get_mut(channel) else {
            return;
        };
        if state.announcer.is_none() {
            return;
        }
        let held = state.quota.holds();
        let is_join = matches!(event, Announcement::Joined(..));
        match state.quota.judge(is_join, desk.now) {
            Verdict::Tell => say(state.announcer.as_deref(), event, channel, unheard_by, desk),
            Verdict::Held(until) => {
                desk.counts.announcements_held += 1;
                if !held {
                    self.agenda.push(Reverse((until, channel.clone())));
                }
            }
        }
    }

    /// Does what is due about a channel, and notes when to look again.
    fn look_at(&mut self, channel: &Channel, desk: &mut Desk<'_>) {
        let Some(state) = self.channels.get_mut(channel) else {
            return;
        };
        if let Some((joined, left)) = state.quota.take(desk.now) {
            let event = Announcement::Many {
                joined,
                left,
                clients: state.presence.clients() as u64,
                wall: desk.wall,
            };
            say(state.announcer.as_deref(), &event, channel, None, desk);
        }
        if let Some(history) = &mut state.history
            && desk.now >= history.due_at
        {
            if desk.now >= history.forgotten_at {
                self.histories_bytes -= history.stream.bytes();
                self.histories -= 1;
                state.history = None;
            } else {
                history.due_at = history.empties_at;
                if desk.now >= history.empties_at {
                    self.histories_bytes -= history.stream.bytes();
                    history.stream.clear();
                    history.due_at = history.forgotten_at;
                }
                self.agenda.push(Reverse((history.due_at, channel.clone())));
            }
        }
        self.drop_if_empty(channel);
    }

    fn drop_if_empty(&mut self, channel: &Channel) {
        let is_empty = self.channels.get(channel).is_some_and(|state| {
            state.history.is_none() && state.presence.is_empty() && !state.quota.holds()
        });
        if is_empty {
            self.channels.remove(channel);
        }
    }
}

fn deliver(channel: &Channel, batches: Vec<Batch>, desk: &mut Desk<'_>) {
    let batches = batches.into_iter();
    desk.effects
        .extend(batches.map(|batch| Effect::Deliver(channel.clone(), Arc::new(batch))));
}

/// Has the announcer find the words, and delivers them. A panic of it costs the announcement.
fn say(
    announcer: Option<&dyn Announcer>,
    event: &Announcement<'_>,
    channel: &Channel,
    unheard_by: Option<ConnectionId>,
    desk: &mut Desk<'_>,
) {
    let Some(announcer) = announcer else { return };
    let words = catch_unwind(AssertUnwindSafe(|| announcer.announce(event)));
    let Ok(words) = words else {
        desk.counts.announcer_panics += 1;
        return;
    };
    let Some(text) = words else { return };
    let mut draft = Draft::default();
    draft.push(&Message::from(text));
    let batches = draft.seal_with(|_| {
        Some(Placement {
            position: None,
            exclude: unheard_by,
        })
    });
    deliver(channel, batches, desk);
}
