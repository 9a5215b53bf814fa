//! What a connection may see and ask for while it is being served: lent by its reactor, never kept.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::endpoint::{Answer, Endpoint, RequestTicket};
use super::handler::Handler;
use super::id::ConnectionId;
use super::outbox::{self, Pushed};
use super::page::Page;
use crate::admission::jwt::Verify;
use crate::admission::limits::{self, Limits, Users};
use crate::admission::rate::Moment;
use crate::admission::revocation::Revocations;
use crate::admission::{self, Judge, Route};
use crate::buffer::Buffer;
use crate::http;
use crate::hub::{Channel, Command, Hub, HubCounts, PublishOptions, ReplyTo, Ticket};
use crate::metrics::{Counters, Ledger};
use crate::timer::{Tick, ticks};
use crate::ws::Message;
use crate::ws::deflate::{Deflater, Inflater};

/// Everything a reactor lends a connection for one call.
#[expect(
    missing_debug_implementations,
    reason = "handlers need not be printable"
)]
pub struct Context {
    /// What callbacks may use as well.
    pub services: Services,
    /// The handlers, one for each route.
    pub handlers: Vec<Box<dyn Handler>>,
    /// What answers plain HTTP, where a listener serves that.
    pub endpoint: Option<Box<dyn Endpoint>>,
    /// What `GET /` is answered with, where a listener serves only WebSockets otherwise.
    pub page: Option<Page>,
    /// The reactor's one decompressor.
    pub inflater: Inflater,
    /// Panics of callbacks in the minute that began at the tick beside them (X7).
    pub(super) panics: (Tick, u32),
}

/// The part of a [`Context`] that a callback reaches through its peer.
#[derive(Debug)]
pub struct Services {
    /// The time of this turn, as timers count it.
    pub now: Tick,
    /// The time of this turn, as rates count it.
    pub moment: Moment,
    /// The wall clock of this turn, in seconds since 1970: for tokens.
    pub wall: u64,
    /// What admission shares with all other reactors.
    pub gate: Gate,
    /// Connections that have to make room for a newer one of the same user: theirs may be another
    /// reactor, so the reactor writes to them.
    pub displaced: Vec<ConnectionId>,
    /// The request that the endpoint is asked about.
    pub(super) request: RequestTicket,
    /// Answers that were put off and have come; the reactor takes them to their connections.
    pub answers: Vec<(RequestTicket, Answer)>,
    /// The settings in force: a copy of this reactor's own, so that no reference count is shared.
    pub policy: Rc<Policy>,
    /// Plaintext frames that leave when the connection has been served: the reactor's one scratch.
    pub output: Buffer,
    /// Channels.
    pub hub: Hub,
    /// The reactor's one compressor.
    pub deflater: Deflater,
    /// What this reactor did.
    pub counters: Counters,
    /// What it tells whoever watches it, if anybody does.
    pub ledger: Option<Box<Ledger>>,
    /// Whether the server is shutting down: nobody new is admitted.
    pub draining: bool,
    random: u64,
}

/// The settings a connection obeys; one immutable snapshot for all connections of all reactors.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Limits on request heads.
    pub http: http::head::Limits,
    /// Paths that are served; the handler of a route has the same index.
    pub routes: Vec<Route>,
    /// Who may connect, as far as it is the same for all paths.
    pub admission: admission::Policy,
    /// Limits on plain requests: `requests_per_call` and `output_bytes_high_water` do not count here, the
    /// outbox's do.
    pub requests: http::exchange::Limits,
    /// Limits on what waits to leave.
    pub outbox: outbox::Limits,
    /// How long things may take.
    pub deadlines: Deadlines,
}

/// What the admission of all reactors shares: counts that have to be exact, and who judges tokens.
#[derive(Clone)]
pub struct Gate {
    /// Connections and attempts by address.
    pub limits: Arc<Limits>,
    /// Connections by user.
    pub users: Arc<Users<ConnectionId>>,
    /// Revoked users and tokens.
    pub revocations: Arc<Revocations>,
    /// Who judges tokens; `None` where no keys are configured.
    pub verifier: Option<Arc<dyn Verify>>,
}

impl Gate {
    /// A gate that nobody has passed, with room for `addresses_max` addresses (see [`Limits::new`]).
    #[must_use]
    pub fn new(addresses_max: usize, verifier: Option<Arc<dyn Verify>>) -> Self {
        Self {
            limits: Arc::new(Limits::new(addresses_max, ahash::RandomState::new())),
            users: Arc::new(Users::new(ahash::RandomState::new())),
            revocations: Arc::default(),
            verifier,
        }
    }

    /// Bytes of the tables by address and by user, and of what has been revoked.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        self.limits.bytes_held() + self.users.bytes_held() + self.revocations.bytes_held()
    }

    /// Who judges tokens now.
    #[must_use]
    pub fn judge(&self, wall: u64) -> Judge<'_> {
        Judge {
            verifier: self.verifier.as_deref(),
            revocations: &self.revocations,
            wall,
        }
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new(limits::ADDRESSES_MAX, None)
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate")
            .field("has_verifier", &self.verifier.is_some())
            .finish_non_exhaustive()
    }
}

/// How long things may take, as an operator says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From the accept to the end of the TLS handshake. Default 5 s.
    pub tls_handshake: Duration,
    /// From the accept (or the end of the PROXY header, or of the TLS handshake) to the end of the
    /// request head; a PROXY header has as long. Default 5 s.
    pub head: Duration,
    /// From a message's first byte to its last. Default 30 s.
    pub message: Duration,
    /// Silence after which the peer is pinged (after at least half of it); `None` never pings, and a
    /// peer that vanished is noticed by TCP only. Default 25 s.
    pub ping_interval: Option<Duration>,
    /// From a ping to a sign of life. Default 8 s.
    pub pong: Duration,
    /// From our close frame to the peer's, and again from there to the end of its stream. Default 5 s.
    pub close: Duration,
    /// How long a socket may take no byte while some wait. Default 20 s.
    pub write: Duration,
    /// From an answer over plain HTTP to the next request. Default 75 s.
    pub keep_alive: Duration,
    /// From a plain request to an answer that was put off; then it is answered 504, and its connection
    /// ends. Default 10 s.
    pub answer: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tls_handshake: Duration::from_secs(5),
            head: Duration::from_secs(5),
            message: Duration::from_secs(30),
            ping_interval: Some(Duration::from_secs(25)),
            pong: Duration::from_secs(8),
            close: Duration::from_secs(5),
            write: Duration::from_secs(20),
            keep_alive: Duration::from_secs(75),
            answer: Duration::from_secs(10),
        }
    }
}

/// The same as the timer wheel counts it: [`Timeouts`] in ticks.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the fields are those of `Timeouts`")]
pub struct Deadlines {
    pub tls_handshake: Tick,
    pub head: Tick,
    pub message: Tick,
    pub ping_interval: Option<Tick>,
    pub pong: Tick,
    pub close: Tick,
    pub write: Tick,
    pub keep_alive: Tick,
    pub answer: Tick,
}

impl From<Timeouts> for Deadlines {
    fn from(timeouts: Timeouts) -> Self {
        Self {
            tls_handshake: ticks(timeouts.tls_handshake),
            head: ticks(timeouts.head),
            message: ticks(timeouts.message),
            ping_interval: timeouts.ping_interval.map(ticks),
            pong: ticks(timeouts.pong),
            close: ticks(timeouts.close),
            write: ticks(timeouts.write),
            keep_alive: ticks(timeouts.keep_alive),
            answer: ticks(timeouts.answer),
        }
    }
}

impl Default for Deadlines {
    fn default() -> Self {
        Timeouts::default().into()
    }
}

impl Context {
    /// A context for one reactor. `seed` feeds the jitter of deadlines.
    #[must_use]
    pub fn new(
        policy: Rc<Policy>,
        gate: Gate,
        hub: Hub,
        handlers: Vec<Box<dyn Handler>>,
        seed: u64,
    ) -> Self {
        Self {
            services: Services {
                now: 0,
                moment: Moment::default(),
                wall: 0,
                gate,
                displaced: Vec::new(),
                request: RequestTicket::default(),
                answers: Vec::new(),
                policy,
                output: Buffer::default(),
                hub,
                deflater: Deflater::default(),
                counters: Counters::default(),
                ledger: None,
                draining: false,
                random: seed | 1,
            },
            handlers,
            endpoint: None,
            page: None,
            inflater: Inflater::default(),
            panics: (0, 0),
        }
    }
}

impl Context {
    /// Hands the handler of a route what is said of a connection that has ended. A panic is counted, and
    /// costs nobody anything.
    pub fn tell_too_late(&mut self, route: u16, what: Box<dyn Any + Send>) {
        let Some(handler) = self.handlers.get_mut(usize::from(route)) else {
            return;
        };
        let call = AssertUnwindSafe(|| handler.told_too_late(what, &mut self.services));
        if catch_unwind(call).is_err() {
            self.services.counters.handler_panics += 1;
            tracing::error!("a handler panicked over a connection that had ended");
        }
    }
}

/// Messages one after the other that are equally long, to be counted as one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Run {
    pub(super) bytes: usize,
    pub(super) messages: u64,
}

impl Run {
    /// Adds a message; gives back the run that it has ended.
    #[inline]
    pub(super) const fn add(&mut self, bytes: usize) -> Option<Self> {
        let ended = if self.bytes == bytes {
            None
        } else {
            Some(std::mem::replace(self, Self { bytes, messages: 0 }))
        };
        self.messages += 1;
        ended
    }
}

/// The output buffer's usual size at most, in bytes.
const OUTPUT_BYTES_KEPT: usize = 1024 * 1024;

impl Services {
    /// Publishes a message to all subscribers of a channel; see `Peer::publish`.
    pub fn publish(&mut self, channel: &Channel, message: &Message<'_>) {
        self.counters.published += 1;
        if !self.hub.publish(channel, message) {
            self.counters.publications_dropped += 1;
        }
    }

    /// The same, with wishes.
    pub fn publish_with(
        &mut self,
        channel: &Channel,
        message: &Message<'_>,
        options: PublishOptions,
    ) {
        self.counters.published += 1;
        if !self.hub.publish_with(channel, message, options) {
            self.counters.publications_dropped += 1;
        }
    }

    /// Counts data messages from a peer.
    pub(super) fn count_received(&mut self, run: Run) {
        if run.messages == 0 {
            return;
        }
        self.counters.messages_received += run.messages;
        self.counters.bytes_received += run.bytes as u64 * run.messages;
        if let Some(ledger) = &mut self.ledger {
            ledger.messages_received(run.bytes as u64, run.messages);
        }
    }

    /// Counts data messages to a peer.
    pub(super) fn count_sent(&mut self, run: Run) {
        if run.messages == 0 {
            return;
        }
        self.counters.messages_sent += run.messages;
        self.counters.bytes_sent += run.bytes as u64 * run.messages;
        if let Some(ledger) = &mut self.ledger {
            ledger.messages_sent(run.bytes as u64, run.messages);
        }
    }

    /// What a sender is told of the output that has grown from `before` bytes; beyond the outbox's limit
    /// it shrinks again.
    #[inline]
    pub(super) fn weigh_output(&mut self, before: usize) -> Pushed {
        let limits = &self.policy.outbox;
        if self.output.len() > limits.bytes_max {
            self.output.truncate(before);
            return Pushed::Full;
        }
        limits.pressure(self.output.len())
    }

    /// Asks the hub for something; see [`Hub::ask`].
    pub fn ask(&mut self, command: Command, reply_to: ReplyTo) -> Ticket {
        if matches!(command, Command::Publish(_)) {
            self.counters.published += 1;
        }
        self.hub.ask(command, reply_to)
    }

    /// Takes over what the hub has counted.
    pub fn count_hub(&mut self) {
        let counts = self.hub.take_counts();
        if counts == HubCounts::default() {
            return;
        }
        let counters = &mut self.counters;
        counters.publications_dropped += counts.dropped;
        counters.commands_unanswered += counts.unanswered;
        counters.subscriptions_refused += counts.subscriptions_refused;
        counters.histories_refused += counts.home.history_refused;
        counters.presence_refused += counts.home.presence_refused;
        counters.announcements_held += counts.home.announcements_held;
        counters.publications_repeated += counts.home.replays;
        counters.handler_panics += counts.home.announcer_panics;
    }

    /// Gives back what an unusually large turn has left behind.
    pub fn shrink(&mut self) {
        if self.output.capacity() > OUTPUT_BYTES_KEPT {
            self.output.shrink_to(OUTPUT_BYTES_KEPT);
        }
    }

    /// A number below `bound` (at least 1): spreads deadlines, decides nothing that matters.
    pub(super) fn jitter(&mut self, bound: Tick) -> Tick {
        // xorshift64: three shifts are random enough to keep a million pings apart.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let spread = ((self.random >> 32) * u64::from(bound.max(1))) >> 32;
        Tick::try_from(spread).unwrap_or(0)
    }
}
