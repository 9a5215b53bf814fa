//! One reactor: a thread, its poll, its listeners and its connections. `Reactor::turn` reads top to
//! bottom as one turn of the loop.
//!
//! mio is edge-triggered: an event says once that a socket has become readable, and reading stops at a
//! budget, so readiness that was not used up goes on a list that the next turn works off before it
//! sleeps. Sockets are registered once, for both directions, and never again.
//!
//! Invariants: a connection never leaves its reactor; a reactor never blocks but in `poll`; a
//! connection that has ended is reaped at the end of the turn, and all that it held with it.

use std::any::Any;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender};
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::channels::{Offers, Shipment};
use super::listener::{Accepted, Listener};
use super::mailbox::{Mailbox, Postbox};
use super::newcomers::{Newcomers, Standing};
use super::slots::{Key, Slots};
use super::slow::Diagnosis;
use super::transport::{Readiness, Scratch, Transport};
use crate::admission::Refusal;
use crate::admission::address::fold_peer;
use crate::admission::rate::Moment;
use crate::conn::endpoint::TICK_INTERVAL;
use crate::conn::{
    CloseReason, Connection, ConnectionId, Context, DISPLACED, Identity, Lane, Pass, Phase, Speaks,
};
use crate::hub::{Channel, Command, Parcel, ReplyTo, Slice};
use crate::logging::Sampler;
use crate::metrics::report::{Ended, Gauges, Memory, Opened, SLOW_CAUSES, SlowCause, Traffic};
use crate::metrics::{Counters, Ledger, Measure, Report};
use crate::timer::{LATEST, TICK, Tick, Wheel, ticks};
use crate::tls::{Acceptor, SESSION_BYTES, Session};
use crate::ws::{CloseCode, Message};

/// A letter to a reactor.
#[derive(Debug)]
pub enum Mail {
    /// Publications, from another reactor.
    Parcel(Parcel),
    /// A publication from outside the reactors.
    Publish(Channel, Message<'static>),
    /// A command from outside the reactors.
    Ask(Command, ReplyTo),
    /// A message to one connection.
    Send(ConnectionId, Message<'static>),
    /// Something for the handler of one connection's route, which has this place.
    Tell(ConnectionId, u16, Box<dyn Any + Send>),
    /// The end of one connection.
    Close(ConnectionId, CloseReason, CloseCode, String),
    /// Something has been revoked; what, the gate knows.
    Revoked,
    /// A request for this reactor's counters.
    Counters(Sender<Counters>),
    /// What another reactor reports, for this one's endpoint; and where the emptied report goes.
    Report(Box<Report>, Sender<Box<Report>>),
}

/// What a reactor is made of.
#[expect(
    missing_debug_implementations,
    reason = "handlers need not be printable"
)]
pub struct Parts {
    /// The reactor's number.
    pub number: u8,
    /// Its poll, with the waker registered as [`WAKER`].
    pub poll: Poll,
    /// Its listening sockets, and what is spoken there.
    pub listeners: Vec<(std::net::TcpListener, Speaks)>,
    /// TLS, where a listener speaks it.
    pub acceptor: Option<Acceptor>,
    /// Its letters.
    pub mailbox: Mailbox<Mail>,
    /// The mailboxes of all reactors, its own included.
    pub postboxes: Vec<Postbox<Mail>>,
    /// What it lends its connections.
    pub context: Context,
    /// Limits on what it accepts.
    pub limits: Limits,
    /// Whom it reports to.
    pub reporter: Option<Reporter>,
    /// When the server started: the same for all reactors, whose limits share their times.
    pub epoch: Instant,
}

/// Limits on what a reactor accepts, and on how long it takes to end.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections of this reactor that are still on their way in. At the limit somebody who is slow, or
    /// whose turn would come too late, makes room for the next one; where there is nobody like that,
    /// nothing is accepted and the kernel's backlog is the queue.
    pub handshakes_in_flight_max: usize,
    /// While a turn takes longer than this, one connection is accepted in a turn and not a batch.
    pub loop_lag_max: Option<Duration>,
    /// How long after the start it takes until `handshakes_in_flight_max` counts in full.
    pub ramp: Option<Duration>,
    /// How long the server waits for its connections to end when it shuts down.
    pub drain_timeout: Duration,
}

/// Whom a reactor reports to, and how often.
#[derive(Debug, Clone)]
pub struct Reporter {
    /// The reactor whose endpoint takes the reports.
    pub postbox: Postbox<Mail>,
    /// From report to report.
    pub interval: Duration,
}

/// A reactor's reports on their way out and back.
struct Reporting {
    reporter: Reporter,
    /// Where emptied reports come back. Nobody is woken for one: the next report finds it.
    returns: (Sender<Box<Report>>, Receiver<Box<Report>>),
    due_at: Tick,
}

/// The token of the reactor's waker.
pub const WAKER: Token = Token(usize::MAX);

/// Connections accepted from one listener in a turn: about a millisecond. More wait for the next turn, so
/// that open connections are served in between. It has no part in [`NEWCOMERS_SLICE`]: in a storm the newest
/// are not to grow old in the kernel's queue, which knows no order but that of arrival.
const ACCEPT_BATCH: usize = 64;
/// While the server is young, the part of the limit on handshakes in flight that counts from the start.
const RAMP_STARTS_AT: usize = 16;
/// Subscribers served in a slice of a fan-out before other work has its turn: about 3 ms.
const FAN_OUT_SLICE: usize = 512;
/// Events taken from one poll.
const EVENTS: usize = 1024;
/// How long a connection may be on its way in while others wait for its place. An honest handshake is
/// over in a few round trips.
const NEWCOMER_PATIENCE: Duration = Duration::from_secs(1);
/// What newcomers may take of a turn, while others wait: some twenty full TLS handshakes. Open
/// connections are served first, so this is most of what a storm of newcomers adds to their latency.
const NEWCOMERS_SLICE: Duration = Duration::from_millis(2);
/// Connections looked at in one turn after a revocation.
const INSPECTION_SLICE: u32 = 8192;
/// Lines a second in the log for one way of ending.
const LINES_PER_SECOND: usize = 5;
/// How soon to try again to post what a full mailbox did not take.
const RETRY: Duration = Duration::from_millis(1);
/// How long an outbox is not empty until its connection counts as a slow consumer.
const SLOW_AFTER: Duration = Duration::from_secs(1);
/// Slow consumers that the kernel is asked about with one report: about 10 µs each.
const DIAGNOSES: usize = 32;
/// Connections told of the shutdown in one turn.
const DRAIN_SLICE: u32 = 1024;

/// A reactor; [`run`](Self::run) is its thread.
#[expect(
    missing_debug_implementations,
    reason = "handlers need not be printable"
)]
pub struct Reactor {
    pub(super) number: u8,
    poll: Poll,
    listeners: Vec<Listener>,
    acceptor: Option<Acceptor>,
    mailbox: Mailbox<Mail>,
    postboxes: Vec<Postbox<Mail>>,
    pub(super) cx: Context,
    limits: Limits,
    pub(super) slots: Slots<Entry>,
    wheel: Wheel,
    scratch: Scratch,
    /// Open connections whose readiness was not used up.
    ready: Vec<Key>,
    /// Connections on their way in that have something to read.
    ready_newcomers: Newcomers,
    /// Connections that ended in this turn.
    ended: Vec<u32>,
    expired: Vec<u32>,
    handshakes_in_flight: usize,
    /// Connections on their way in, the oldest first, and since when; some have arrived meanwhile.
    newcomers: VecDeque<(Key, Tick)>,
    /// The listener that the turn began to accept from.
    first_listener: usize,
    epoch: Instant,
    /// How long the last turn took, without the sleep.
    lag: Duration,
    /// When the poll began to sleep.
    slept_at: Duration,
    /// The revocations that all connections have been asked about.
    revocations_seen: u64,
    inspection: Option<Inspection>,
    reporting: Option<Reporting>,
    /// Connections whose upgrade is complete.
    open: u64,
    /// TLS sessions, established or not.
    tls_sessions: usize,
    /// Bytes that connections hold of what has not come in full.
    unfinished: u64,
    /// Where telling of every open connection again has got to.
    announced: Option<u32>,
    /// Connections in whose outbox something waits, and some that it has left meanwhile.
    waiting: Vec<Key>,
    diagnosis: Diagnosis,
    /// When the endpoint's tick is due, if there is one.
    ticks_at: Option<Tick>,
    drain: Option<Drain>,
    /// Lets a few lines a second through for each way of ending that an operator wants to know of.
    log: Sampler<&'static str>,
    /// When suppressed lines are told of, if any were.
    log_settles_at: Option<Tick>,
}

/// A connection, its socket, and what the reactor knows about both.
pub(super) struct Entry {
    pub(super) connection: Connection,
    pub(super) transport: Transport<TcpStream>,
    /// When the connection was opened; before that, when the stage of the handshake began. Microseconds
    /// since the server's start.
    since: u64,
    has_opened: bool,
    /// When the wheel will call; the connection's own deadline may be later, never earlier.
    armed_at: Tick,
    /// An edge was seen and "would block" was not.
    is_readable: bool,
    /// An event said that the peer will send nothing more, or that the socket failed.
    peer_has_finished: bool,
    is_handshaking: bool,
    /// Something of it may have been read.
    has_begun: bool,
    has_ended: bool,
    /// What it held of what has not come in full, when it was served last.
    unfinished: u32,
    was_paused: bool,
    /// On the list of connections whose readiness was not used up.
    is_listed: bool,
    /// It has been on its way in for too long once, and was not ended because we were late ourselves.
    was_spared: bool,
    /// Since when messages wait in the outbox; none while it is empty.
    #[expect(
        clippy::box_collection,
        reason = "one word in each idle connection, where a deque would be four"
    )]
    marks: Option<Box<VecDeque<Mark>>>,
    /// Since when something has been waiting in the outbox; [`LATEST`] while nothing is.
    waits_since: Tick,
    /// On the list of those in whose outbox something waits.
    is_waiting: bool,
    /// Why, as of the last time the kernel was asked.
    slow_cause: SlowCause,
}

/// Messages that were said in one turn and wait to leave.
#[derive(Debug, Clone, Copy)]
struct Mark {
    /// Where the end of the outbox stood behind them.
    end: i64,
    /// When they were said, in microseconds since the server's start.
    at: u64,
    messages: u64,
}

/// Marks of one connection. Beyond them what is said counts with what was said last, so that a queue of
/// very many small messages is timed in fewer steps and costs no more.
const MARKS_MAX: usize = 256;

/// The shutdown: connections are told of it in slices.
struct Drain {
    next_slot: u32,
    deadline: Tick,
}

/// A look at all connections because of a revocation, in slices.
struct Inspection {
    next_slot: u32,
    version: u64,
}

impl Reactor {
    /// Puts a reactor together and registers its listeners.
    ///
    /// # Errors
    /// What the kernel says when a listener is registered.
    pub fn new(parts: Parts) -> io::Result<Self> {
        let mut listeners = Vec::new();
        for (number, (socket, speaks)) in parts.listeners.into_iter().enumerate() {
            let mut listener = Listener::new(socket, speaks);
            parts.poll.registry().register(
                &mut listener.socket,
                Token(LISTENERS + number),
                Interest::READABLE,
            )?;
            listeners.push(listener);
        }
        let mut context = parts.context;
        context.services.ledger =
            (parts.reporter.as_ref()).map(|_| Box::new(Ledger::new(parts.number)));
        let ticks_at = context.endpoint.as_ref().map(|_| 0);
        let reporting = parts.reporter.map(|reporter| Reporting {
            reporter,
            returns: crossbeam_channel::bounded(2),
            due_at: 0,
        });
        Ok(Self {
            number: parts.number,
            poll: parts.poll,
            listeners,
            acceptor: parts.acceptor,
            mailbox: parts.mailbox,
            postboxes: parts.postboxes,
            cx: context,
            limits: parts.limits,
            slots: Slots::default(),
            wheel: Wheel::new(0),
            scratch: Scratch::default(),
            ready: Vec::new(),
            ready_newcomers: Newcomers::default(),
            ended: Vec::new(),
            expired: Vec::new(),
            handshakes_in_flight: 0,
            newcomers: VecDeque::new(),
            first_listener: 0,
            epoch: parts.epoch,
            lag: Duration::ZERO,
            slept_at: Duration::ZERO,
            revocations_seen: 0,
            inspection: None,
            reporting,
            open: 0,
            tls_sessions: 0,
            unfinished: 0,
            announced: None,
            waiting: Vec::new(),
            diagnosis: Diagnosis::default(),
            ticks_at,
            drain: None,
            log: Sampler::new(LINES_PER_SECOND),
            log_settles_at: None,
        })
    }

    /// Turns until the server has been shut down and the last connection has ended. Returns what the
    /// reactor did.
    ///
    /// # Errors
    /// If `poll` fails, for which there is no remedy.
    pub fn run(mut self) -> io::Result<Counters> {
        let mut events = Events::with_capacity(EVENTS);
        while !self.is_done() {
            self.turn(&mut events)?;
        }
        // What has happened since the last report belongs to the whole.
        if let Some(reporting) = &mut self.reporting {
            reporting.due_at = 0;
        }
        self.report();
        Ok(self.cx.services.counters)
    }

    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        let patience = self.patience();
        match self.poll.poll(events, patience) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let began = self.read_clock();
        self.measure_lag(patience, began);
        for event in events.iter() {
            self.note(event);
        }
        self.serve_ready();
        self.receive_newcomers();
        self.read_mail();
        self.expire_timers();
        self.inspect();
        self.tell_of_shutdown();
        self.displace();
        self.give_answers();
        self.exchange_publications();
        self.fan_out();
        self.reap();
        self.settle_log();
        self.tick_endpoint();
        self.announce();
        self.report();
        self.scratch.shrink();
        self.cx.services.shrink();
        self.slept_at = self.epoch.elapsed();
        self.lag = self.slept_at.saturating_sub(began);
        if let Some(ledger) = &mut self.cx.services.ledger {
            ledger.record_time(Measure::TurnTime, self.lag);
        }
        Ok(())
    }

    /// How late this turn began: behind the time it meant to wake at, or behind the work that the last
    /// turn left over.
    fn measure_lag(&mut self, patience: Option<Duration>, woke: Duration) {
        let Some(ledger) = &mut self.cx.services.ledger else {
            return;
        };
        let lag = match patience {
            Some(Duration::ZERO) => self.lag,
            Some(patience) => woke.saturating_sub(self.slept_at + patience),
            None => Duration::ZERO,
        };
        ledger.record_time(Measure::LoopLag, lag);
    }

    /// Calls the endpoint's tick when it is due.
    fn tick_endpoint(&mut self) {
        let now = self.cx.services.now;
        if self.ticks_at.is_some_and(|at| at <= now)
            && let Some(endpoint) = &mut self.cx.endpoint
        {
            endpoint.tick(&mut self.cx.services);
            self.ticks_at = Some(now + ticks(TICK_INTERVAL));
        }
    }

    /// Counts the connections whose outbox has not been empty for a while, by cause. The kernel is asked
    /// about some of them; the others have their turn with later reports.
    fn count_slow_consumers(&mut self) -> [u64; SLOW_CAUSES] {
        let mut counts = [0; SLOW_CAUSES];
        let now = self.cx.services.now;
        let (mut questions, count) = (DIAGNOSES, self.waiting.len());
        let mut kept = 0;
        for at in 0..count {
            let key = self.waiting[at];
            let Some(entry) = self.slots.get_mut(key) else {
                continue;
            };
            if entry.waits_since == LATEST {
                entry.is_waiting = false;
                entry.slow_cause = SlowCause::Unknown;
                continue;
            }
            if now.saturating_sub(entry.waits_since) >= ticks(SLOW_AFTER) {
                if questions > 0 {
                    questions -= 1;
                    entry.slow_cause = entry.diagnose(&mut self.diagnosis);
                }
                counts[entry.slow_cause as usize] += 1;
            }
            self.waiting[kept] = key;
            kept += 1;
        }
        self.waiting.truncate(kept);
        // Those that were asked about go behind the others.
        self.waiting.rotate_left((DIAGNOSES - questions).min(kept));
        counts
    }

    /// Hands over what has happened since the last report, if it is time. A full mailbox delays it and
    /// loses nothing.
    fn report(&mut self) {
        let Some(reporting) = &self.reporting else {
            return;
        };
        if self.cx.services.now < reporting.due_at {
            return;
        }
        let slow_consumers = self.count_slow_consumers();
        let Some(reporting) = &mut self.reporting else {
            return;
        };
        let services = &mut self.cx.services;
        reporting.due_at = services.now + ticks(reporting.reporter.interval);
        let Some(ledger) = &mut services.ledger else {
            return;
        };
        while let Ok(report) = reporting.returns.1.try_recv() {
            if ledger.give_back(report) {
                self.announced = Some(0);
            }
        }
        let kept = services.hub.holdings();
        let memory = Memory {
            connections: self.slots.bytes_held() as u64,
            unfinished: self.unfinished,
            tls: (self.tls_sessions * SESSION_BYTES) as u64,
            timers: self.wheel.bytes_held() as u64,
            buffers: (self.scratch.bytes_held() + services.output.capacity()) as u64,
            publications: services.hub.table.bytes() as u64,
            subscriptions: services.hub.table.bytes_held() as u64,
            histories: (kept.history_bytes + kept.channel_bytes) as u64,
            presence: kept.presence_bytes as u64,
            idempotency: kept.key_bytes as u64,
            reports: ledger.bytes_held() as u64,
        };
        let gauges = Gauges {
            open: self.open,
            handshakes_in_flight: self.handshakes_in_flight as u64,
            mailbox_letters: self.mailbox.len() as u64,
            mailbox_bytes: self.mailbox.bytes() as u64,
            channels: services.hub.table.channels() as u64,
            subscriptions: services.hub.table.subscriptions() as u64,
            slow_consumers,
            memory,
        };
        let at = services.moment.micros() / 1000;
        let Reporting {
            reporter, returns, ..
        } = reporting;
        ledger.hand_over(at, &services.counters, gauges, |report| {
            let letter = Mail::Report(report, returns.0.clone());
            match reporter.postbox.post(letter) {
                Err(Mail::Report(report, _)) => Err(report),
                Ok(()) | Err(_) => Ok(()),
            }
        });
    }

    /// Tells the ledger of a slice of the open connections, if whoever takes the reports has lost them.
    fn announce(&mut self) {
        let (Some(first), Some(ledger)) = (self.announced, &mut self.cx.services.ledger) else {
            return;
        };
        let until = self.slots.span().min(first + INSPECTION_SLICE);
        for slot in first..until {
            if let Some(entry) = self.slots.tenant_mut(slot).filter(|entry| entry.has_opened) {
                let opened = entry.opened();
                let since = opened.since;
                ledger.announce(entry.connection.id(), opened, since);
            }
        }
        self.announced = (until < self.slots.span()).then_some(until);
    }

    /// How long `poll` may sleep: not at all while work is left over.
    fn patience(&self) -> Option<Duration> {
        let has_work = !self.ready.is_empty()
            || !self.ready_newcomers.is_empty()
            || !self.cx.services.displaced.is_empty()
            || !self.cx.services.answers.is_empty()
            || self.inspection.is_some()
            || self.announced.is_some()
            || !self.mailbox.is_empty()
            || self.cx.services.hub.table.has_work()
            || self.cx.services.hub.wants_turn()
            || self
                .drain
                .as_ref()
                .is_some_and(|drain| drain.next_slot < self.slots.span())
            || (self.may_accept_more()
                && self
                    .listeners
                    .iter()
                    .any(|l| l.may_accept(self.cx.services.now)));
        if has_work {
            return Some(Duration::ZERO);
        }
        if self.cx.services.hub.has_mail() {
            // A mailbox was full: its reactor is busy with it.
            return Some(RETRY);
        }
        let now = self.cx.services.now;
        let parked = self
            .listeners
            .iter()
            .filter_map(Listener::parked_until)
            // Its time may pass while handshakes in flight keep it from accepting.
            .filter(|_| self.may_accept_more())
            .min();
        let drain = self.drain.as_ref().map(|drain| drain.deadline);
        let log = self.log_settles_at;
        // At the cap the oldest newcomer's patience counts, if somebody waits for its place.
        let eviction = match self.newcomers.front() {
            Some((_, since))
                if !self.may_accept_more()
                    && self.drain.is_none()
                    && self
                        .listeners
                        .iter()
                        .any(|listener| listener.may_accept(now)) =>
            {
                Some(since + ticks(NEWCOMER_PATIENCE))
            }
            _ => None,
        };
        let nearest = [
            self.wheel.until_next().map(|wait| now + wait),
            parked,
            drain,
            log,
            eviction,
            self.reporting.as_ref().map(|reporting| reporting.due_at),
            self.ticks_at,
            self.cx.services.hub.next_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()?;
        Some((TICK * nearest).saturating_sub(self.epoch.elapsed()))
    }

    fn read_clock(&mut self) -> Duration {
        let elapsed = self.epoch.elapsed();
        let services = &mut self.cx.services;
        let tick = elapsed.as_nanos() / TICK.as_nanos();
        services.now = Tick::try_from(tick).unwrap_or(LATEST);
        services.moment = Moment::after(elapsed);
        services.wall = wall();
        services.hub.begin_turn(services.now, services.wall);
        elapsed
    }

    fn note(&mut self, event: &Event) {
        match event.token() {
            // The mailbox is looked at in every turn; the wake has done its work by ending the sleep.
            WAKER => {}
            Token(token) if token >= LISTENERS => {
                if let Some(listener) = self.listeners.get_mut(token - LISTENERS) {
                    listener.is_ready = true;
                }
            }
            token => {
                let key = Key::from_token(token);
                let Some(entry) = self.slots.get_mut(key) else {
                    return;
                };
                entry.is_readable |= event.is_readable() || event.is_error();
                entry.peer_has_finished |= event.is_read_closed() || event.is_error();
                if !entry.is_handshaking || entry.has_lost_patience() {
                    self.serve(key.slot);
                } else if !entry.is_listed && entry.has_work() {
                    entry.is_listed = true;
                    let now = since_start(&self.cx);
                    self.ready_newcomers.push(key, entry.standing(), now);
                }
            }
        }
    }

    /// Serves one connection: writes what waits, reads what has come, writes the answers.
    fn serve(&mut self, slot: u32) {
        self.attend(slot, |entry, scratch, cx| {
            let is_readable = entry.is_readable || entry.connection.has_pending();
            entry.catch_up(is_readable, scratch, cx);
        });
    }

    /// Does something with a connection, then sees to what follows from it: its timer, its place on
    /// the lists, the gauges.
    pub(super) fn attend(
        &mut self,
        slot: u32,
        what: impl FnOnce(&mut Entry, &mut Scratch, &mut Context),
    ) {
        let Some(entry) = self.slots.tenant_mut(slot) else {
            return;
        };
        if entry.has_ended {
            return;
        }
        let waited = entry.waiting_bytes();
        let before = Progress::of(&self.cx.services.counters);
        let was_open = entry.has_opened;
        what(entry, &mut self.scratch, &mut self.cx);
        let counters = &mut self.cx.services.counters;
        counters.outbox_bytes = counters.outbox_bytes + entry.waiting_bytes() - waited;
        let unfinished = entry.connection.bytes_held() + entry.transport.bytes_held();
        let unfinished = u32::try_from(unfinished).unwrap_or(u32::MAX);
        self.unfinished = self.unfinished + u64::from(unfinished) - u64::from(entry.unfinished);
        entry.unfinished = unfinished;
        entry.write_down(&before, waited, &mut self.cx);
        self.open += u64::from(entry.has_opened && !was_open);
        let counters = &mut self.cx.services.counters;
        if entry.is_handshaking && !entry.connection.is_handshaking() {
            entry.is_handshaking = false;
            self.handshakes_in_flight -= 1;
        }
        if let Phase::Closed(_) = entry.connection.phase() {
            counters.outbox_bytes -= entry.waiting_bytes();
            entry.has_ended = true;
            self.open -= u64::from(entry.has_opened);
            self.ended.push(slot);
            return;
        }
        let is_paused = entry.connection.is_reading_paused();
        counters.reading_paused += u64::from(is_paused && !entry.was_paused);
        entry.was_paused = is_paused;
        let may_go_on = entry.is_readable || entry.connection.has_pending();
        if may_go_on && !is_paused && !entry.is_listed {
            entry.is_listed = true;
            let generation = entry.connection.id().generation();
            let key = Key { slot, generation };
            if entry.is_handshaking {
                let now = since_start(&self.cx);
                self.ready_newcomers.push(key, entry.standing(), now);
            } else {
                self.ready.push(key);
            }
        }
        if self.reporting.is_some() {
            let has_waited = entry.waits_since != LATEST;
            match (entry.connection.outbox.is_some(), has_waited) {
                (true, false) => {
                    entry.waits_since = self.cx.services.now;
                    if !entry.is_waiting {
                        entry.is_waiting = true;
                        let generation = entry.connection.id().generation();
                        self.waiting.push(Key { slot, generation });
                    }
                }
                (false, true) => entry.waits_since = LATEST,
                (true, true) | (false, false) => {}
            }
        }
        let deadline = entry.connection.deadline(&self.cx.services);
        if deadline < entry.armed_at {
            entry.armed_at = deadline;
            self.wheel.arm(slot, deadline);
        }
    }

    fn may_accept_more(&self) -> bool {
        self.drain.is_none() && self.handshakes_in_flight < self.handshakes_in_flight_max()
    }

    /// The limit of this moment: it grows while the server is young.
    fn handshakes_in_flight_max(&self) -> usize {
        let full = self.limits.handshakes_in_flight_max;
        let Some(ramp) = self.limits.ramp else {
            return full;
        };
        let age = TICK * self.cx.services.now;
        if age >= ramp {
            return full;
        }
        let part = full as u128 * age.as_millis() / ramp.as_millis().max(1);
        let least = full.div_ceil(RAMP_STARTS_AT);
        usize::try_from(part).unwrap_or(full).max(least)
    }

    /// How many connections may be accepted from a listener in this turn.
    fn accept_batch(&mut self) -> usize {
        // The last turn, or this one as far as it has got.
        let turned = self.epoch.elapsed().saturating_sub(since_start(&self.cx));
        let lag = self.lag.max(turned);
        if self.limits.loop_lag_max.is_none_or(|max| lag <= max) {
            return ACCEPT_BATCH;
        }
        self.cx.services.counters.accept_deferred += 1;
        // Not none at all: whoever watches the server from outside is to see that it lives.
        1
    }

    /// Drops from the list of newcomers those in front that are newcomers no more; returns since when
    /// the oldest of the others has been on its way in.
    fn oldest_newcomer(&mut self) -> Option<(Key, Tick)> {
        while let Some((key, since)) = self.newcomers.front().copied() {
            if self
                .slots
                .get_mut(key)
                .is_some_and(|entry| entry.is_handshaking && !entry.has_ended)
            {
                return Some((key, since));
            }
            self.newcomers.pop_front();
        }
        None
    }

    /// Whether one more may be accepted. Where newcomers have taken all the room, the one that has been
    /// on its way in for the longest time ends, if that is longer than an honest client needs (B10); or,
    /// where the server does not keep up, the one that has waited for its first turn for longest (N1).
    fn make_room(&mut self) -> bool {
        let now = self.cx.services.now;
        while self.drain.is_none() && !self.may_accept_more() {
            if let Some((key, since)) = self.oldest_newcomer()
                && now.saturating_sub(since) >= ticks(NEWCOMER_PATIENCE)
            {
                self.newcomers.pop_front();
                match self.slots.get_mut(key) {
                    // Something of it waits to be read: the delay may be ours. That counts once.
                    Some(entry) if entry.is_listed && !entry.was_spared => {
                        entry.was_spared = true;
                        self.newcomers.push_back((key, now));
                    }
                    _ => self.attend(key.slot, |entry, _, cx| entry.give_way(cx)),
                }
                continue;
            }
            let (places, at) = (self.handshakes_in_flight_max(), since_start(&self.cx));
            let slots = &mut self.slots;
            let oldest = (self.ready_newcomers).shed(at, places, |key| is_waiting(slots, key));
            let Some(key) = oldest else {
                return false;
            };
            self.attend(key.slot, |entry, _, cx| entry.give_way(cx));
        }
        self.drain.is_none()
    }

    /// Serves connections on their way in for a slice of time, then accepts others: so what has been begun
    /// is finished before more is begun, and open connections wait for neither.
    fn receive_newcomers(&mut self) {
        self.serve_newcomers(self.epoch.elapsed() + NEWCOMERS_SLICE);
        self.accept();
    }

    /// Accepts a batch from each listener. Each turn begins with another listener: where places are scarce,
    /// the first would take them all.
    fn accept(&mut self) {
        let (first, count) = (self.first_listener, self.listeners.len());
        self.first_listener = (first + 1) % count.max(1);
        for number in (0..count).map(|nth| (first + nth) % count) {
            if self.listeners[number].may_accept(self.cx.services.now) {
                self.accept_from(number);
            }
        }
    }

    fn accept_from(&mut self, number: usize) {
        for _ in 0..self.accept_batch() {
            let now = self.cx.services.now;
            if !self.listeners[number].may_accept(now) || !self.make_room() {
                return;
            }
            match self.listeners[number].accept(now) {
                Accepted::Connection(stream, address) => {
                    self.admit(stream, address, self.listeners[number].speaks);
                }
                Accepted::WouldBlock => return,
                Accepted::Gone => {}
                Accepted::Parked(error) => {
                    self.cx.services.counters.accept_parked += 1;
                    tracing::warn!(
                        reactor = self.number,
                        %error,
                        "cannot accept: the listener rests for a moment; raise the limit on open files, or limits.connections_max is too high"
                    );
                    return;
                }
            }
        }
    }

    /// Gives an accepted socket a slot, a deadline, and a place in the poll, if the limits allow it.
    fn admit(&mut self, stream: TcpStream, address: SocketAddr, speaks: Speaks) {
        let address = fold_peer(address);
        let pass = match Pass::ask(address, speaks, &mut self.cx.services) {
            Ok(pass) => pass,
            Err(refusal) => return self.turn_away(stream, address, speaks, &refusal),
        };
        let session = match (&self.acceptor, speaks.tls) {
            (Some(acceptor), true) => acceptor.session().ok().map(Box::new),
            _ => None,
        };
        if speaks.tls && session.is_none() {
            self.cx.services.counters.accept_refused += 1;
            return;
        }
        let (number, services) = (self.number, &self.cx.services);
        let key = self.slots.insert_with(|key| {
            let id = ConnectionId::new(number, key.slot, key.generation);
            Entry {
                connection: Connection::new(Identity { id, address }, pass, services),
                transport: Transport::new(stream, session),
                armed_at: LATEST,
                is_readable: false,
                peer_has_finished: false,
                since: services.moment.micros(),
                has_opened: false,
                is_handshaking: true,
                has_begun: false,
                has_ended: false,
                unfinished: 0,
                was_paused: false,
                is_listed: false,
                was_spared: false,
                marks: None,
                waits_since: LATEST,
                is_waiting: false,
                slow_cause: SlowCause::Unknown,
            }
        });
        let Some(key) = key else {
            self.cx.services.counters.accept_refused += 1;
            return;
        };
        self.cx.services.counters.accepted += 1;
        self.tls_sessions += usize::from(speaks.tls);
        self.handshakes_in_flight += 1;
        self.newcomers.push_back((key, self.cx.services.now));
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = self.slots.get_mut(key).is_some_and(|entry| {
            let socket = entry.transport.socket_mut();
            self.poll
                .registry()
                .register(socket, key.token(), interest)
                .is_ok()
        });
        // Arms the timer.
        self.attend(key.slot, |entry, _, cx| {
            if !registered {
                entry.connection.io_failed(cx);
            }
        });
    }

    /// Drops somebody whom a limit refuses before any cryptography. On a plain listener the answer costs
    /// one system call and is worth a try; nobody waits for it to arrive.
    fn turn_away(
        &mut self,
        mut stream: TcpStream,
        address: SocketAddr,
        speaks: Speaks,
        refusal: &Refusal,
    ) {
        let counters = &mut self.cx.services.counters;
        counters.accept_refused += 1;
        counters.refused.count(refusal);
        if !speaks.proxy && !speaks.tls {
            let mut answer = Vec::new();
            refusal.write_answer(&mut answer);
            let _ = stream.write(&answer);
        }
        self.tell_of_refusal(address, refusal);
    }

    /// Open connections that had more to read than their budget allowed.
    fn serve_ready(&mut self) {
        for key in std::mem::take(&mut self.ready) {
            if let Some(entry) = self.slots.get_mut(key) {
                entry.is_listed = false;
                self.serve(key.slot);
            }
        }
    }

    /// Connections on their way in, while the slice lasts, and one at least. The others keep their place
    /// in the queue.
    fn serve_newcomers(&mut self, until: Duration) {
        let mut began = self.epoch.elapsed();
        loop {
            let (slots, at) = (&mut self.slots, since_start(&self.cx));
            let Some(key) = (self.ready_newcomers).pop(at, |key| is_waiting(slots, key)) else {
                return;
            };
            let heads = self.cx.services.counters.heads;
            if let Some(entry) = self.slots.get_mut(key) {
                entry.is_listed = false;
                self.serve(key.slot);
            }
            let now = self.epoch.elapsed();
            if heads != self.cx.services.counters.heads
                && let Some(ledger) = &mut self.cx.services.ledger
            {
                ledger.record_time(Measure::HandshakeAdmission, now - began);
            }
            if now >= until {
                return;
            }
            began = now;
        }
    }

    /// Looks at a slice of the connections if something has been revoked since the last look.
    fn inspect(&mut self) {
        let version = self.cx.services.gate.revocations.version();
        if self.inspection.is_none() && version != self.revocations_seen {
            self.inspection = Some(Inspection {
                next_slot: 0,
                version,
            });
        }
        let Some(Inspection { next_slot, version }) = self.inspection else {
            return;
        };
        let until = self.slots.span().min(next_slot + INSPECTION_SLICE);
        for slot in next_slot..until {
            let has_session = self
                .slots
                .tenant_mut(slot)
                .is_some_and(|entry| entry.connection.is_open());
            if has_session {
                self.attend(slot, |entry, scratch, cx| {
                    entry.connection.check_revocation(cx);
                    entry.transport.flush(&mut entry.connection, scratch, cx);
                });
            }
        }
        if until == self.slots.span() {
            self.revocations_seen = version;
            self.inspection = None;
        } else {
            self.inspection = Some(Inspection {
                next_slot: until,
                version,
            });
        }
    }

    /// Asks the connections that have to make room for a newer one of their user to go. What a full
    /// mailbox does not take is sent in the next turn.
    fn displace(&mut self) {
        if self.cx.services.displaced.is_empty() {
            return;
        }
        let postboxes = &self.postboxes;
        self.cx.services.displaced.retain(|id| {
            let (code, text) = (CloseCode::from(DISPLACED), "replaced by a newer connection");
            let letter = Mail::Close(*id, CloseReason::Displaced, code, text.to_owned());
            let postbox = postboxes.get(id.reactor());
            postbox.is_some_and(|postbox| postbox.post(letter).is_err())
        });
    }

    /// Takes answers that were put off and have come to their connections, as far as those still exist.
    fn give_answers(&mut self) {
        for (ticket, answer) in std::mem::take(&mut self.cx.services.answers) {
            self.address(ticket.connection(), |connection, cx| {
                connection.answer(ticket, &answer, cx);
            });
        }
    }

    fn read_mail(&mut self) {
        // Also where no letter waits: a sender may ring after its letter was taken, and a bell that
        // nobody takes down silences every ring that follows.
        for letter in self.mailbox.take().collect::<Vec<_>>() {
            self.read_letter(letter);
        }
        self.do_tasks();
        if self.mailbox.must_end() {
            self.shut_down();
        }
    }

    fn read_letter(&mut self, letter: Mail) {
        match letter {
            Mail::Parcel(parcel) => self.cx.services.hub.receive(parcel),
            Mail::Ask(command, reply_to) => {
                self.cx.services.ask(command, reply_to);
            }
            Mail::Publish(channel, message) => self.cx.services.publish(&channel, &message),
            Mail::Send(id, message) => self.address(id, |connection, cx| {
                connection.send(message, cx);
            }),
            Mail::Tell(id, route, what) => self.tell_handler(id, route, what),
            Mail::Close(id, reason, code, text) => self.address(id, |connection, cx| {
                connection.close(reason, code, &text, cx);
            }),
            // The look at the connections follows in the same turn.
            Mail::Revoked => {}
            Mail::Counters(reply) => {
                let _ = reply.try_send(self.cx.services.counters.clone());
            }
            Mail::Report(mut report, returns) => {
                match &mut self.cx.endpoint {
                    Some(endpoint) => report = endpoint.receive(report, &mut self.cx.services),
                    None => report.clear(),
                }
                let _ = returns.try_send(report);
            }
        }
    }

    /// Does something with the connection of an id, if it still exists, and flushes.
    pub(super) fn address(
        &mut self,
        id: ConnectionId,
        what: impl FnOnce(&mut Connection, &mut Context),
    ) {
        let key = Key {
            slot: id.slot(),
            generation: id.generation(),
        };
        if self.slots.get_mut(key).is_some() {
            self.attend(key.slot, |entry, scratch, cx| {
                what(&mut entry.connection, cx);
                entry.transport.flush(&mut entry.connection, scratch, cx);
            });
        }
    }

    /// Hands a handler what another thread says, of a connection that may have ended since.
    fn tell_handler(&mut self, id: ConnectionId, route: u16, what: Box<dyn Any + Send>) {
        let mut left = Some(what);
        self.address(id, |connection, cx| {
            left = left.take().and_then(|what| connection.tell(what, cx).err());
        });
        if let Some(what) = left {
            self.cx.tell_too_late(route, what);
        }
    }

    fn expire_timers(&mut self) {
        let mut expired = std::mem::take(&mut self.expired);
        self.wheel.expire(self.cx.services.now, &mut expired);
        for slot in expired.drain(..) {
            self.attend(slot, |entry, scratch, cx| {
                entry.armed_at = LATEST;
                if entry.connection.deadline(&cx.services) <= cx.services.now {
                    // The peer's answer may be here, and only we were late: look before judging.
                    entry.catch_up(true, scratch, cx);
                    entry.connection.expire(cx);
                    entry.transport.flush(&mut entry.connection, scratch, cx);
                }
            });
        }
        self.expired = expired;
    }

    fn shut_down(&mut self) {
        if self.drain.is_some() {
            return;
        }
        // What is in the backlog has been promised a connection; it is told like the others.
        while self
            .listeners
            .iter()
            .any(|listener| listener.may_accept(self.cx.services.now))
        {
            let before = self.cx.services.counters.accepted;
            self.accept();
            if self.cx.services.counters.accepted == before {
                break;
            }
        }
        self.listeners.clear();
        self.cx.services.draining = true;
        let timeout = ticks(self.limits.drain_timeout);
        let deadline = self.cx.services.now.saturating_add(timeout);
        self.drain = Some(Drain {
            next_slot: 0,
            deadline,
        });
    }

    fn tell_of_shutdown(&mut self) {
        let Some(drain) = &mut self.drain else { return };
        let is_over = self.cx.services.now >= drain.deadline;
        let first = if is_over { 0 } else { drain.next_slot };
        let until = if is_over {
            self.slots.span()
        } else {
            self.slots.span().min(first + DRAIN_SLICE)
        };
        drain.next_slot = until;
        for slot in first..until {
            self.attend(slot, |entry, scratch, cx| {
                entry
                    .connection
                    .close(CloseReason::Shutdown, CloseCode::Away, "shutting down", cx);
                entry.transport.flush(&mut entry.connection, scratch, cx);
                if is_over {
                    entry.connection.io_failed(cx);
                }
            });
        }
    }

    /// What was published or asked in this turn goes where it belongs, once for each reactor.
    fn exchange_publications(&mut self) {
        let postboxes = &self.postboxes;
        self.cx.services.hub.end_turn(|to, parcel| {
            let bytes = parcel.bytes;
            match postboxes[to].post_sized(Mail::Parcel(parcel), bytes) {
                Err(Mail::Parcel(parcel)) => Err(parcel),
                Ok(()) | Err(_) => Ok(()),
            }
        });
        self.do_tasks();
        self.cx.services.count_hub();
    }

    /// Serves a slice of subscribers, of one channel or of many; the rest has its turn after the next
    /// poll.
    fn fan_out(&mut self) {
        let mut members_left = FAN_OUT_SLICE;
        while members_left > 0 {
            let Some(slice) = self.cx.services.hub.table.next_slice(members_left) else {
                return;
            };
            members_left -= slice.members.len().clamp(1, members_left);
            self.deliver(&slice);
        }
    }

    fn deliver(&mut self, slice: &Slice) {
        let shipment = Shipment {
            channel: &slice.channel,
            batches: &slice.batches,
            lane: Lane {
                tag: slice.tag,
                slow: slice.traits.slow,
            },
            has_history: slice.traits.has_history,
        };
        let mut offers = Offers::default();
        for member in &slice.members {
            let skipped = slice.skipped_by(member);
            self.ship(&shipment, *member, skipped, &mut offers);
        }
    }

    /// Lets go of the connections that ended in this turn, and of everything they held.
    fn reap(&mut self) {
        let mut ended = std::mem::take(&mut self.ended);
        for slot in ended.drain(..) {
            self.wheel.cancel(slot);
            let Some(entry) = self.slots.remove(slot) else {
                continue;
            };
            self.tls_sessions -= usize::from(entry.transport.tls().is_some());
            self.unfinished -= u64::from(entry.unfinished);
            if let Phase::Closed(reason) = entry.connection.phase() {
                self.tell(&entry.connection, reason);
            }
        }
        self.ended = ended;
    }

    /// Logs how a connection ended: the usual ways for whoever debugs, the others for everybody, but
    /// not each of a flood.
    fn tell(&mut self, connection: &Connection, reason: &CloseReason) {
        let Identity { id, address } = *connection.identity();
        if reason.is_usual() {
            tracing::debug!(connection = %id, peer = %address, %reason, "connection ended");
            return;
        }
        if let CloseReason::Refused(refusal) = reason {
            return self.tell_of_refusal(address, refusal);
        }
        match self.log.admit(reason.label(), now()) {
            Some(suppressed) => tracing::info!(
                connection = %id,
                peer = %address,
                reason = reason.label(),
                detail = %reason,
                suppressed,
                "connection ended"
            ),
            None => self.settle_log_later(),
        }
    }

    /// Logs a refusal, but not each of a flood.
    fn tell_of_refusal(&mut self, address: SocketAddr, refusal: &Refusal) {
        match self.log.admit(refusal.reason(), now()) {
            Some(suppressed) => tracing::info!(
                peer = %address,
                stage = refusal.stage().label(),
                reason = refusal.reason(),
                detail = %refusal,
                suppressed,
                "refused"
            ),
            None => self.settle_log_later(),
        }
    }

    /// Each suppressed line moves it: it is due when the flood is over.
    fn settle_log_later(&mut self) {
        let settles_at = self.cx.services.now + ticks(Duration::from_secs(2));
        self.log_settles_at = Some(settles_at);
    }

    /// Tells of the end of a flood: lines suppressed since the last one that was written.
    fn settle_log(&mut self) {
        if self
            .log_settles_at
            .is_none_or(|at| self.cx.services.now < at)
        {
            return;
        }
        self.log_settles_at = None;
        for (reason, suppressed) in self.log.settle(now()) {
            tracing::info!(
                reason = reason.unwrap_or("other"),
                suppressed,
                "connections ended"
            );
        }
    }

    fn is_done(&self) -> bool {
        self.drain.is_some() && self.slots.is_empty()
    }
}

impl Entry {
    /// How far it has got on its way in.
    fn standing(&self) -> Standing {
        match self.is_answered() {
            true => Standing::Answered,
            false if self.has_begun => Standing::Begun,
            false => Standing::Unread,
        }
    }

    /// Whether its TLS handshake has cost us what it costs.
    fn is_answered(&self) -> bool {
        self.transport.tls().is_some_and(Session::has_spoken)
    }

    /// Whether there is something to read of it or to write to it.
    fn has_work(&self) -> bool {
        self.is_readable || self.connection.has_pending() || self.connection.outbox.is_some()
    }

    /// Whether it has hung up while it waited for the answer to its hello: all that is left to do is to
    /// let go of it, and its place is free for another.
    fn has_lost_patience(&self) -> bool {
        self.peer_has_finished && self.transport.tls().is_some() && !self.is_answered()
    }

    /// Ends it to make room: it was slow, or we are.
    fn give_way(&mut self, cx: &mut Context) {
        match self.is_listed && !self.has_begun {
            true => self.connection.shed(cx),
            false => self.connection.evict(cx),
        }
    }

    /// Writes what waits, reads what has come (if that is to be looked at), writes the answers.
    fn catch_up(&mut self, reads: bool, scratch: &mut Scratch, cx: &mut Context) {
        let Self {
            connection,
            transport,
            ..
        } = self;
        if connection.outbox.is_some() {
            transport.flush(connection, scratch, cx);
        }
        if reads && !connection.is_reading_paused() {
            self.has_begun = true;
            let readiness = transport.read(connection, scratch, cx, self.peer_has_finished);
            self.is_readable = readiness == Readiness::MayHaveMore;
            transport.flush(connection, scratch, cx);
        }
    }

    /// Tells the ledger what became of the connection while it was served.
    fn write_down(&mut self, before: &Progress, waited: u64, cx: &mut Context) {
        let services = &mut cx.services;
        let after = Progress::of(&services.counters);
        let now = services.moment.micros();
        let id = self.connection.id();
        let Some(ledger) = &mut services.ledger else {
            return;
        };
        if self.is_handshaking {
            let stages = [
                (after.proxied != before.proxied, Measure::HandshakeProxy),
                (after.tls != before.tls, Measure::HandshakeTls),
                (after.heads != before.heads, Measure::HandshakeHead),
            ];
            for (_, measure) in stages.into_iter().filter(|(is_over, _)| *is_over) {
                ledger.record(measure, now - self.since);
                self.since = now;
            }
        }
        if after.opened != before.opened {
            self.has_opened = true;
            self.since = now;
            ledger.opened(id, self.opened());
        }
        if !self.has_opened {
            return;
        }
        let traffic = after.traffic - before.traffic;
        self.time_departures(traffic.messages_sent, now, ledger);
        let waiting = self
            .connection
            .outbox
            .as_ref()
            .map_or(0, |outbox| outbox.bytes() as u64);
        if traffic != Traffic::default() || waiting != waited {
            ledger.changed(id, traffic, now / 1000, waiting);
        }
        if let Phase::Closed(reason) = self.connection.phase() {
            let duration = Duration::from_micros(now - self.since);
            let ended = Ended {
                at: now / 1000,
                duration,
                reason: reason.label(),
            };
            ledger.ended(id, ended);
        }
    }

    /// Records how long messages that have left had waited, and since when those wait that have not. By
    /// the clock of turns: what leaves in the turn in which it is said has waited for no time.
    #[inline]
    fn time_departures(&mut self, said: u64, now: u64, ledger: &mut Ledger) {
        let Some(outbox) = &self.connection.outbox else {
            if let Phase::Closed(reason) = self.connection.phase()
                && matches!(**reason, CloseReason::Io | CloseReason::WriteTimeout)
            {
                // What waited has gone nowhere.
                self.marks = None;
                return;
            }
            for mark in self.marks.take().into_iter().flat_map(|marks| *marks) {
                ledger.messages_left(now - mark.at, mark.messages);
            }
            if said > 0 {
                ledger.messages_left(0, said);
            }
            return;
        };
        if said == 0 && self.marks.is_none() {
            return;
        }
        let marks = self.marks.get_or_insert_default();
        let (front, end) = (outbox.front(), outbox.end());
        while let Some(mark) = marks.front().copied().filter(|mark| mark.end <= front) {
            marks.pop_front();
            ledger.messages_left(now - mark.at, mark.messages);
        }
        // What was abandoned never leaves. Otherwise this is another outbox, and the one before was emptied.
        while let Some(mark) = marks.back().copied().filter(|mark| mark.end > end) {
            marks.pop_back();
            if !outbox.was_cut() {
                ledger.messages_left(now - mark.at, mark.messages);
            }
        }
        if said == 0 {
            return;
        }
        let is_full = marks.len() >= MARKS_MAX;
        match marks.back_mut() {
            Some(last) if is_full || last.at == now => {
                last.end = end;
                last.messages += said;
            }
            _ => marks.push_back(Mark {
                end,
                at: now,
                messages: said,
            }),
        }
    }

    /// Why the peer does not take what waits for it.
    fn diagnose(&mut self, diagnosis: &mut Diagnosis) -> SlowCause {
        let socket = self.transport.socket_mut();
        match (socket.local_addr(), socket.peer_addr()) {
            (Ok(local), Ok(peer)) => diagnosis.ask(local, peer),
            _ => SlowCause::Unknown,
        }
    }

    /// What is told of it once it is open.
    fn opened(&self) -> Opened {
        Opened {
            user: self.connection.user().cloned(),
            route: self.connection.route().unwrap_or_default(),
            address: self.connection.identity().address.ip(),
            since: self.since / 1000,
            transport: self.transport.carrier(),
        }
    }

    fn waiting_bytes(&self) -> u64 {
        self.connection
            .outbox
            .as_ref()
            .map_or(0, |outbox| outbox.bytes() as u64)
    }
}

/// The counters that say what became of a connection, taken before and after it is served: what they
/// differ by is its share, at no cost per message.
#[derive(Clone, Copy)]
struct Progress {
    traffic: Traffic,
    proxied: u64,
    tls: u64,
    heads: u64,
    opened: u64,
}

impl Progress {
    const fn of(counters: &Counters) -> Self {
        Self {
            traffic: Traffic::of(counters),
            proxied: counters.proxied,
            tls: counters.tls_established,
            heads: counters.heads,
            opened: counters.opened,
        }
    }
}

/// Whether a newcomer is still on the list of those that have something to read.
fn is_waiting(slots: &mut Slots<Entry>, key: Key) -> bool {
    slots
        .get_mut(key)
        .is_some_and(|entry| entry.is_listed && !entry.has_ended)
}

/// When the turn began, as time since the server's start.
fn since_start(cx: &Context) -> Duration {
    Duration::from_micros(cx.services.moment.micros())
}

/// Tokens from here on are listeners. No connection's token is as large: it would need the generation
/// `u32::MAX` and a slot beyond the last.
const LISTENERS: usize = 0xffff_ffff_ff00_0000;

#[expect(
    clippy::disallowed_methods,
    reason = "the reactor is the home of the clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Seconds since 1970. A clock before that makes every token one of the future, which is refused.
#[expect(
    clippy::disallowed_methods,
    reason = "the reactor is the home of the clock"
)]
pub(crate) fn wall() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
