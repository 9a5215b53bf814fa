//! Fan-out: one message to every subscriber of a channel; and what a channel remembers.
//!
//! Each channel has a *home* reactor, found by hashing its name. A publication goes to the home
//! first, which puts all publications of a channel into one order, numbers and keeps them where the
//! channel has a history ([`engine`]), and hands them, once per turn, to every reactor; each reactor then
//! serves its own subscribers ([`table`]). So all subscribers of a node see one order, and no lock and no
//! counter is shared between threads.
//!
//! Everything else about a channel goes the same way: questions, subscriptions that want the past, joins
//! and leaves are errands to the home, and answers come back between the publications that were made
//! before and after them. What one reactor sends another is one queue, in order ([`Item`]); what a full
//! mailbox does not take waits there for the next turn. That order is what makes things exact: who
//! subscribes behind a position gets what comes behind it, once.
//!
//! A publication is framed once, where it is published, and compressed at most once, by the first
//! reactor that has a subscriber who negotiated compression ([`delivery`]).

pub mod announce;
pub mod asks;
pub mod channel;
pub mod command;
pub mod delivery;
pub mod engine;
pub mod idempotency;
pub mod memory;
pub mod outgoing;
pub mod policy;
pub mod presence;
pub mod stream;
pub mod table;
pub mod users;

use std::collections::{HashMap, VecDeque, hash_map};
use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

pub use announce::{Announcement, Announcer};
pub use channel::{Channel, ChannelError};
pub use command::{
    Answer, Command, CommandError, Outcome, PublishOptions, ReplyTo, StreamPosition, Ticket, Whom,
};
pub use delivery::{Batch, Draft};
pub use engine::{Engine, HomeCounts, Replay};
pub use outgoing::{Item, Parcel};
pub use policy::{ChannelPolicy, Policies, Slow};
pub use table::{Accepted, Member, Slice, Table};
pub use users::Users;

use crate::conn::ConnectionId;
use crate::timer::Tick;
use crate::ws::Message;
use asks::Asks;
use command::{Present, Publish};
use delivery::Note;
use engine::{Asker, Attached, Departure, Desk, Effect, Entry, Errand, Query};
use outgoing::Outgoing;
use table::{Tag, Traits};

/// One reactor's end of the hub: its subscribers, and the channels that live here.
#[derive(Debug)]
pub struct Hub {
    /// Who subscribes to what in this reactor.
    pub table: Table,
    /// Whose connections this reactor has.
    pub users: Users,
    home: Home,
    limits: Limits,
    policies: Arc<Policies>,
    engine: Box<dyn Engine>,
    /// What goes to each reactor, this one included.
    out: Vec<Outgoing>,
    /// Where in `out` the channel's draft of this turn is, as long as more may be appended.
    drafts: HashMap<Channel, (usize, usize), ahash::RandomState>,
    asks: Asks,
    /// Commands that wait for their fences, each with how many of these have not come back.
    fenced: HashMap<Ticket, (usize, Command), ahash::RandomState>,
    /// Subscriptions that wait for what the home says.
    attaching: HashMap<Ticket, Attaching, ahash::RandomState>,
    /// The same by connection.
    attaching_by_key: HashMap<u32, SmallVec<[Ticket; 2]>, ahash::RandomState>,
    /// What only the reactor can do, in order.
    tasks: VecDeque<Task>,
    effects: Vec<Effect>,
    counts: HubCounts,
    /// Whether a mailbox was full at the end of the last turn.
    is_stuck: bool,
    now: Tick,
    wall: u64,
}

/// What may wait in one reactor's end of the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes behind the fan-out of one channel. Default 16 MiB.
    pub channel_bytes_max: usize,
    /// Bytes behind the fan-outs of all channels together, and again on the way to each reactor. Default
    /// 64 MiB.
    pub bytes_max: usize,
    /// Channels that one connection can subscribe to (A16). Default 128.
    pub subscriptions_max: usize,
    /// How long a command waits for its answer. Default 5 s, in ticks.
    pub answer_timeout: Tick,
    /// What homes keep, all together.
    pub kept: memory::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            channel_bytes_max: 16 * 1024 * 1024,
            bytes_max: 64 * 1024 * 1024,
            subscriptions_max: 128,
            answer_timeout: crate::timer::ticks(std::time::Duration::from_secs(5)),
            kept: memory::Limits::default(),
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

impl Home {
    /// The reactor where a channel lives.
    #[must_use]
    pub fn of(&self, channel: &Channel) -> usize {
        channel.home(&self.hasher, self.reactors)
    }
}

/// What one end of the hub counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HubCounts {
    /// Publications dropped because a queue was full.
    pub dropped: u64,
    /// Commands that were not answered in time, or for which there was no room.
    pub unanswered: u64,
    /// Subscriptions refused because the connection has too many.
    pub subscriptions_refused: u64,
    /// What this home counts.
    pub home: HomeCounts,
}

/// Something that only the reactor can do, because it is about connections. Each is done in the turn in
/// which it came up, in order, and before anything is fanned out.
#[derive(Debug)]
pub enum Task {
    /// Carry a command out here, and tell [`Hub::report`] what came of it.
    Perform(Asker, Arc<Command>),
    /// Give an answer to who asked.
    Answer(Ticket, ReplyTo, Answer),
    /// A subscription has begun, or has failed: the connection is told, then gets its replay.
    Subscribed(Box<Subscribed>),
}

/// A subscription that has begun behind what its channel's home said.
#[derive(Debug)]
pub struct Subscribed {
    /// Whose.
    pub id: ConnectionId,
    /// To what.
    pub channel: Channel,
    /// Where it begins, or why it does not.
    pub outcome: Result<Start, CommandError>,
    /// What was published before and is wanted.
    pub replay: Vec<Arc<Batch>>,
    /// The channel's name in outboxes.
    pub tag: Tag,
    /// The channel's policy.
    pub traits: Traits,
    /// Who it is in the table.
    pub member: Member,
}

/// Where a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// What comes next is behind this position; `None` on a channel without history. A replay ends here.
    pub position: Option<StreamPosition>,
    /// Whether the subscriber gets all that it has missed. False: tell it.
    pub is_recovered: bool,
}

/// Who subscribes, and what is said of them.
#[derive(Clone, Default)]
pub struct Subscription {
    /// What it wants of the past.
    pub replay: Replay,
    /// What the presence says of it: a JSON text of at most [`INFO_BYTES_MAX`], a longer one is left out.
    pub info: Option<Arc<str>>,
    /// Who finds the words when it comes and goes; the last one given counts for the channel.
    pub announcer: Option<Arc<dyn Announcer>>,
    /// Whether it hears of its own coming.
    pub tells_itself: bool,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription")
            .field("replay", &self.replay)
            .finish_non_exhaustive()
    }
}

/// Channels published to in a turn that there is room for in the next one without asking for memory.
const DRAFTS_KEPT: usize = 1024;

/// Longest text that presence keeps of a member, in bytes.
pub const INFO_BYTES_MAX: usize = 4096;

/// A connection that subscribes.
#[derive(Debug, Clone)]
pub struct Subscriber {
    /// Which.
    pub id: ConnectionId,
    /// Whether it takes compressed frames.
    pub deflate: bool,
    /// Its user, if a token says who that is.
    pub user: Option<Arc<str>>,
}

#[derive(Debug)]
struct Attaching {
    channel: Channel,
    subscriber: Subscriber,
}

impl Hub {
    /// An end of the hub without subscribers, where nothing is promised of any channel.
    #[must_use]
    pub fn new(home: Home, limits: Limits) -> Self {
        Self::with_policies(home, limits, Arc::default())
    }

    /// An end of the hub without subscribers, that keeps what lives here in memory.
    #[must_use]
    pub fn with_policies(home: Home, limits: Limits, policies: Arc<Policies>) -> Self {
        let kept = limits.kept.shared_by(home.reactors);
        let engine = memory::MemoryEngine::new(Arc::clone(&policies), kept);
        let out = std::iter::repeat_with(Outgoing::default);
        Self {
            table: Table::default(),
            users: Users::default(),
            out: out.take(home.reactors).collect(),
            home,
            limits,
            policies,
            engine: Box::new(engine),
            drafts: HashMap::default(),
            asks: Asks::default(),
            fenced: HashMap::default(),
            attaching: HashMap::default(),
            attaching_by_key: HashMap::default(),
            tasks: VecDeque::new(),
            effects: Vec::new(),
            counts: HubCounts::default(),
            is_stuck: false,
            now: 0,
            wall: 0,
        }
    }

    /// Sets the time of this turn, and gives up on commands whose time is up.
    pub fn begin_turn(&mut self, now: Tick, wall: u64) {
        (self.now, self.wall) = (now, wall);
        while let Some((ticket, reply_to)) = self.asks.expire(now) {
            self.counts.unanswered += 1;
            match self.forget_attaching(ticket) {
                Some(attaching) => self.attached(attaching, Err(CommandError::Internal)),
                None => {
                    let timed_out = Err(CommandError::Internal);
                    let answer = Task::Answer(ticket, reply_to, timed_out);
                    self.tasks.push_back(answer);
                }
            }
        }
    }

    /// What is promised of a channel.
    #[must_use]
    pub fn policy(&self, channel: &Channel) -> &ChannelPolicy {
        self.policies.of(channel)
    }

    /// What has been counted since the last call.
    pub fn take_counts(&mut self) -> HubCounts {
        std::mem::take(&mut self.counts)
    }

    /// What is kept of the channels that live here.
    #[must_use]
    pub fn holdings(&self) -> engine::Holdings {
        self.engine.holdings()
    }

    /// Publishes a message: it is framed now and leaves for the channel's home at the end of the
    /// turn. Publications of one reactor to one channel keep their order. `false` if too much has been
    /// published in this turn: the message is dropped.
    pub fn publish(&mut self, channel: &Channel, message: &Message<'_>) -> bool {
        self.draft(channel, message.len(), |draft| draft.push(message))
    }

    /// The same, with wishes.
    pub fn publish_with(
        &mut self,
        channel: &Channel,
        message: &Message<'_>,
        options: PublishOptions,
    ) -> bool {
        let note = Note {
            options,
            asker: None,
        };
        self.draft(channel, message.len(), |draft| {
            draft.push_noted(message, note);
        })
    }

    fn draft(&mut self, channel: &Channel, bytes: usize, push: impl FnOnce(&mut Draft)) -> bool {
        let (home, at) = match self.drafts.get(channel) {
            Some(place) => *place,
            None => {
                let home = self.home.of(channel);
                let at = self.out[home].open_draft(channel);
                self.drafts.insert(channel.clone(), (home, at));
                (home, at)
            }
        };
        self.out[home].push_to_draft(at, bytes, self.limits.bytes_max, push)
    }

    /// Asks for something; the answer comes later, in this turn at the earliest, and at the latest when
    /// the time is up. What is asked of a channel's home keeps its order with what this reactor publishes.
    pub fn ask(&mut self, command: Command, reply_to: ReplyTo) -> Ticket {
        let ticket = self.asks.ticket();
        let wants_answer = !matches!(reply_to, ReplyTo::Nobody);
        let awaited = if command.home_of().is_some() {
            1
        } else {
            self.home.reactors
        };
        let deadline = self.now.saturating_add(self.limits.answer_timeout);
        if wants_answer && !self.asks.open(ticket, reply_to.clone(), awaited, deadline) {
            self.counts.unanswered += 1;
            let refused = Err(CommandError::Internal);
            self.tasks
                .push_back(Task::Answer(ticket, reply_to, refused));
            return ticket;
        }
        let asker = self.asker(ticket);
        match command {
            Command::Publish(Publish {
                channel,
                message,
                options,
            }) => {
                let note = Note {
                    options,
                    asker: wants_answer.then_some((asker.reactor, ticket)),
                };
                let is_on_its_way = self.draft(&channel, message.len(), |draft| {
                    draft.push_noted(&message, note);
                });
                if !is_on_its_way {
                    self.counts.dropped += 1;
                    self.answered(ticket, Err(CommandError::Internal));
                }
            }
            Command::Presence(channel) => {
                self.query(asker, Query::Presence(channel.clone()), &channel)
            }
            Command::PresenceStats(channel) => {
                self.query(asker, Query::PresenceStats(channel.clone()), &channel);
            }
            Command::History(channel, query) => {
                self.query(asker, Query::History(channel.clone(), query), &channel);
            }
            Command::HistoryRemove(channel) => {
                self.query(asker, Query::HistoryRemove(channel.clone()), &channel);
            }
            Command::Channels(_) | Command::Info => self.perform(ticket, command),
            Command::Subscribe(_, ref channel) | Command::Unsubscribe(_, ref channel) => {
                let home = self.home.of(channel);
                self.fence(home..home + 1, ticket, command);
            }
            Command::Disconnect(_) | Command::Refresh(..) => {
                self.fence(0..self.home.reactors, ticket, command);
            }
        }
        ticket
    }

    /// Has a command carried out by every reactor.
    fn perform(&mut self, ticket: Ticket, command: Command) {
        let (asker, command) = (self.asker(ticket), Arc::new(command));
        for out in &mut self.out {
            out.push(Item::Perform(asker, Arc::clone(&command)));
        }
    }

    /// Has a command carried out when these homes have handed on what was published here before: a
    /// subscription that is ended behind a publication has brought it.
    fn fence(&mut self, homes: Range<usize>, ticket: Ticket, command: Command) {
        let asker = self.asker(ticket);
        self.fenced.insert(ticket, (homes.len(), command));
        for out in &mut self.out[homes] {
            out.push(Item::Fence(asker));
        }
    }

    fn passed(&mut self, ticket: Ticket) {
        let hash_map::Entry::Occupied(mut fenced) = self.fenced.entry(ticket) else {
            return;
        };
        fenced.get_mut().0 -= 1;
        if fenced.get().0 == 0 {
            let (_, command) = fenced.remove();
            self.perform(ticket, command);
        }
    }

    const fn asker(&self, ticket: Ticket) -> Asker {
        Asker {
            reactor: self.home.me,
            ticket,
        }
    }

    fn query(&mut self, asker: Asker, query: Query, channel: &Channel) {
        self.errand(Errand::Ask(asker, query), channel);
    }

    /// Sends the channel's home something to do, behind what has been published.
    fn errand(&mut self, errand: Errand, channel: &Channel) {
        self.drafts.remove(channel);
        let home = self.home.of(channel);
        self.out[home].push(Item::Errand(errand));
    }

    /// Subscribes a connection from now on; false if it is subscribed already, or to as many channels as
    /// it may be.
    pub fn join(
        &mut self,
        channel: &Channel,
        subscriber: &Subscriber,
        subscription: Subscription,
    ) -> bool {
        if !self.may_subscribe(channel, subscriber.id.slot()) {
            return false;
        }
        let traits = Traits::from(self.policies.of(channel));
        let member = Member::new(subscriber.id.slot(), subscriber.deflate);
        self.table.join(channel, member, traits);
        self.enter(channel, subscriber, subscription);
        true
    }

    /// Subscribes a connection behind what the channel's home says: the answer is a
    /// [`Task::Subscribed`]. False as for [`Self::join`].
    pub fn subscribe(
        &mut self,
        channel: &Channel,
        subscriber: &Subscriber,
        subscription: Subscription,
    ) -> bool {
        let key = subscriber.id.slot();
        if !self.may_subscribe(channel, key) {
            return false;
        }
        let ticket = self.asks.ticket();
        let deadline = self.now.saturating_add(self.limits.answer_timeout);
        if !self.asks.open(ticket, ReplyTo::Nobody, 1, deadline) {
            self.counts.unanswered += 1;
            return false;
        }
        let asker = self.asker(ticket);
        let attaching = Attaching {
            channel: channel.clone(),
            subscriber: subscriber.clone(),
        };
        self.attaching.insert(ticket, attaching);
        self.attaching_by_key.entry(key).or_default().push(ticket);
        self.errand(
            Errand::Attach(asker, channel.clone(), subscription.replay),
            channel,
        );
        self.enter(channel, subscriber, subscription);
        true
    }

    fn may_subscribe(&mut self, channel: &Channel, key: u32) -> bool {
        if self.table.is_member(channel, key) || self.attaching_to(channel, key).is_some() {
            return false;
        }
        let waiting = self.attaching_by_key.get(&key).map_or(0, SmallVec::len);
        let has_room = self.table.channels_of(key) + waiting < self.limits.subscriptions_max;
        self.counts.subscriptions_refused += u64::from(!has_room);
        has_room
    }

    fn attaching_to(&self, channel: &Channel, key: u32) -> Option<Ticket> {
        let tickets = self.attaching_by_key.get(&key)?;
        let of_channel = |ticket: &&Ticket| {
            let attaching = self.attaching.get(ticket);
            attaching.is_some_and(|attaching| attaching.channel == *channel)
        };
        tickets.iter().find(of_channel).copied()
    }

    fn forget_attaching(&mut self, ticket: Ticket) -> Option<Attaching> {
        let attaching = self.attaching.remove(&ticket)?;
        let key = attaching.subscriber.id.slot();
        if let Some(tickets) = self.attaching_by_key.get_mut(&key) {
            tickets.retain(|known| *known != ticket);
            if tickets.is_empty() {
                self.attaching_by_key.remove(&key);
            }
        }
        Some(attaching)
    }

    /// Tells the home that somebody has come, where it wants to know.
    fn enter(&mut self, channel: &Channel, subscriber: &Subscriber, subscription: Subscription) {
        if !self.policies.of(channel).counts_members() {
            return;
        }
        let info = subscription.info;
        let entry = Entry {
            channel: channel.clone(),
            member: Present {
                client: subscriber.id,
                user: subscriber.user.clone().unwrap_or_else(|| Arc::from("")),
                info: info.filter(|info| info.len() <= INFO_BYTES_MAX),
                since: self.wall,
            },
            announcer: subscription.announcer,
            tells_itself: subscription.tells_itself,
            is_silent: false,
        };
        self.errand(Errand::Enter(Box::new(entry)), channel);
    }

    fn depart(&mut self, channel: &Channel, client: ConnectionId) {
        let departure = Departure {
            channel: channel.clone(),
            client,
            is_silent: false,
        };
        self.errand(Errand::Leave(Box::new(departure)), channel);
    }

    /// Ends a subscription; gives the channel's name in outboxes, or nothing if there was none. Nothing
    /// more of the channel comes to the connection but what is in its outbox under that name.
    pub fn leave(&mut self, channel: &Channel, id: ConnectionId) -> Option<Tag> {
        if let Some(ticket) = self.attaching_to(channel, id.slot()) {
            self.forget_attaching(ticket);
            if self.policies.of(channel).counts_members() {
                self.depart(channel, id);
            }
            // Nothing of it is in an outbox yet.
            return Some(0);
        }
        let (tag, traits) = self.table.leave(channel, id.slot())?;
        if traits.counts_members {
            self.depart(channel, id);
        }
        Some(tag)
    }

    /// Ends all subscriptions of a connection.
    pub fn leave_all(&mut self, id: ConnectionId) {
        let mut counting: SmallVec<[Channel; 4]> = SmallVec::new();
        self.table.leave_all(id.slot(), |channel, traits| {
            if traits.counts_members {
                counting.push(channel.clone());
            }
        });
        for ticket in self.attaching_by_key.remove(&id.slot()).unwrap_or_default() {
            if let Some(attaching) = self.attaching.remove(&ticket)
                && self.policies.of(&attaching.channel).counts_members()
            {
                counting.push(attaching.channel);
            }
        }
        for channel in counting {
            self.depart(&channel, id);
        }
    }

    /// The next thing for the reactor to do.
    pub fn next_task(&mut self) -> Option<Task> {
        self.tasks.pop_front()
    }

    /// What came of a [`Task::Perform`].
    pub fn report(&mut self, asker: Asker, answer: Answer) {
        self.out[asker.reactor].push(Item::Answer(asker.ticket, answer));
    }

    /// Takes a parcel from another reactor.
    pub fn receive(&mut self, parcel: Parcel) {
        for item in parcel.items {
            match item {
                Item::Errand(Errand::Publish(channel, draft)) => self.take_draft(channel, draft),
                Item::Errand(errand) => {
                    if let Some(channel) = outgoing::channel_of(&errand).cloned() {
                        self.errand(errand, &channel);
                    }
                }
                // Behind what has come for this home to do.
                fence @ Item::Fence(_) => self.out[self.home.me].push(fence),
                item => self.take(item),
            }
        }
    }

    /// Puts a draft of another reactor behind what there is of its channel.
    fn take_draft(&mut self, channel: Channel, draft: Draft) {
        let me = self.home.me;
        let messages = draft.messages();
        let at = match self.drafts.get(&channel) {
            Some((_, at)) => *at,
            None => {
                let at = self.out[me].open_draft(&channel);
                self.drafts.insert(channel, (me, at));
                at
            }
        };
        if let Err(draft) = self.out[me].append_to_draft(at, draft, self.limits.bytes_max) {
            self.counts.dropped += messages as u64;
            for (reactor, ticket) in draft.askers() {
                let refused = Item::Answer(ticket, Err(CommandError::Internal));
                self.out[reactor].push(refused);
            }
        }
    }

    /// Does what an item asks that is for this reactor itself.
    fn take(&mut self, item: Item) {
        match item {
            Item::Errand(errand) => self.execute(errand),
            Item::Deliver(channel, batch) => self.deliver(&channel, &batch),
            Item::Lost(channel) => self.table.lose(&channel),
            Item::Answer(ticket, answer) => self.answered(ticket, answer),
            Item::Attached(ticket, attached) => {
                let _ = self.asks.answer(ticket, Ok(Outcome::Done(1)));
                if let Some(attaching) = self.forget_attaching(ticket) {
                    self.attached(attaching, Ok(*attached));
                }
            }
            Item::Fence(asker) => self.send(asker.reactor, Item::Passed(asker.ticket)),
            Item::Passed(ticket) => self.passed(ticket),
            Item::Perform(asker, command) => self.tasks.push_back(Task::Perform(asker, command)),
        }
    }

    fn answered(&mut self, ticket: Ticket, answer: Answer) {
        if let Some((reply_to, answer)) = self.asks.answer(ticket, answer) {
            self.tasks.push_back(Task::Answer(ticket, reply_to, answer));
        }
    }

    /// A subscription begins here, in the order of what is delivered, or it has failed.
    fn attached(&mut self, attaching: Attaching, attached: Result<Attached, CommandError>) {
        let Attaching {
            channel,
            subscriber,
        } = attaching;
        let policy = self.policies.of(&channel);
        let (traits, counts_members) = (Traits::from(policy), policy.counts_members());
        let member = Member::new(subscriber.id.slot(), subscriber.deflate);
        let (mut tag, mut replay) = (0, Vec::new());
        let outcome = attached.map(|attached| {
            self.table.join(&channel, member, traits);
            tag = self.table.tag_of(&channel);
            if let Some(top) = attached.position {
                self.table.note_top(&channel, top);
            }
            let mut draft = Draft::default();
            for publication in &attached.publications {
                draft.push(&publication.message);
            }
            replay = draft.seal().into_iter().map(Arc::new).collect();
            Start {
                position: attached.position,
                is_recovered: attached.is_recovered,
            }
        });
        if outcome.is_err() && counts_members {
            self.depart(&channel, subscriber.id);
        }
        let subscribed = Subscribed {
            id: subscriber.id,
            channel,
            outcome,
            replay,
            tag,
            traits,
            member,
        };
        self.tasks.push_back(Task::Subscribed(Box::new(subscribed)));
    }

    /// Whether something waits to be posted, because a mailbox was full or because it came up late.
    #[must_use]
    pub fn has_mail(&self) -> bool {
        self.out.iter().any(|out| !out.is_empty())
    }

    /// Whether something has come up that the next turn is to see to at once. What a full mailbox did not
    /// take is not in such a hurry.
    #[must_use]
    pub fn wants_turn(&self) -> bool {
        !self.tasks.is_empty()
            || !self.out[self.home.me].is_empty()
            || (!self.is_stuck && self.has_mail())
    }

    /// When the hub wants a turn at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Tick> {
        let deadlines = [self.asks.next_deadline(), self.engine.next_deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// Ends the turn: what this home was asked is done, and everything goes to where it belongs. `post`
    /// gives back what a mailbox does not take; that waits for the next turn. Tasks may come up.
    pub fn end_turn(&mut self, mut post: impl FnMut(usize, Parcel) -> Result<(), Parcel>) {
        self.drafts.clear();
        self.drafts.shrink_to(DRAFTS_KEPT);
        if self.engine.next_deadline().is_some_and(|at| at <= self.now) {
            self.at_desk(|engine, desk| engine.advance(desk));
        }
        // What this home is asked in the meantime has its turn in the next one.
        let own = self.out[self.home.me].take_all();
        let own = outgoing::silence_cancelled(own);
        for item in own {
            self.take(item);
        }
        let me = self.home.me;
        // Who gets an answer may act on it at once, and end a subscription perhaps: the subscribers'
        // reactors have by then what came before it.
        for has_answers in [false, true] {
            for (to, out) in self.out.iter_mut().enumerate() {
                if to != me && out.has_answers() == has_answers {
                    out.post(|parcel| post(to, parcel));
                }
            }
        }
        self.is_stuck = self.has_mail();
    }

    fn execute(&mut self, errand: Errand) {
        self.at_desk(|engine, desk| engine.execute(errand, desk));
    }

    /// Lets the engine work, and sees to what comes of it.
    fn at_desk(&mut self, work: impl FnOnce(&mut dyn Engine, &mut Desk<'_>)) {
        let mut effects = std::mem::take(&mut self.effects);
        let mut desk = Desk {
            now: self.now,
            wall: self.wall,
            effects: &mut effects,
            counts: &mut self.counts.home,
        };
        work(&mut *self.engine, &mut desk);
        for effect in effects.drain(..) {
            match effect {
                Effect::Deliver(channel, batch) => {
                    self.hand_on(&channel, &batch);
                    self.deliver(&channel, &batch);
                }
                Effect::Answer(asker, answer) => {
                    self.send(asker.reactor, Item::Answer(asker.ticket, answer));
                }
                Effect::Attached(asker, attached) => {
                    let attached = Box::new(attached);
                    self.send(asker.reactor, Item::Attached(asker.ticket, attached));
                }
            }
        }
        self.effects = effects;
    }

    fn send(&mut self, to: usize, item: Item) {
        if to == self.home.me {
            self.take(item);
        } else {
            self.out[to].push(item);
        }
    }

    /// Sends a batch to every other reactor; where there is no room for it, the loss is told.
    fn hand_on(&mut self, channel: &Channel, batch: &Arc<Batch>) {
        let me = self.home.me;
        for (_, out) in self.out.iter_mut().enumerate().filter(|(to, _)| *to != me) {
            if !out.push_batch(channel, batch, self.limits.bytes_max) {
                self.counts.dropped += batch.messages() as u64;
            }
        }
    }

    fn deliver(&mut self, channel: &Channel, batch: &Arc<Batch>) {
        match self.table.deliver(channel, batch, &self.limits) {
            Accepted::Queued | Accepted::NoSubscriber => {}
            Accepted::Full => self.counts.dropped += batch.messages() as u64,
        }
    }
}

#[cfg(test)]
mod tests;
