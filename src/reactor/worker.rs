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
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::Sender;
use mio::event::Event;
use mio::{Events, Interest, Poll, Token};

use super::accept::NEWCOMER_PATIENCE;
use super::channels::{Offers, Shipment};
use super::drain::Drain;
use super::endings::LINES_PER_SECOND;
use super::entry::{Entry, Progress};
use super::listener::Listener;
use super::mailbox::{Mailbox, Postbox};
use super::newcomers::Newcomers;
use super::reports::Reporting;
use super::slots::{Key, Slots};
use super::slow::Diagnosis;
use super::transport::Scratch;
use crate::admission::rate::Moment;
use crate::conn::endpoint::TICK_INTERVAL;
use crate::conn::{
    CloseReason, Connection, ConnectionId, Context, DISPLACED, HandlerFactory, Lane, Phase, Policy,
    Speaks,
};
use crate::hub::{Channel, Command, Parcel, ReplyTo, Slice};
use crate::logging::Sampler;
use crate::metrics::{Counters, Ledger, Measure, Report};
use crate::timer::{LATEST, TICK, Tick, Wheel, ticks};
use crate::tls::Acceptor;
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
    /// What the reactor is to obey from now on.
    Reload(Box<Orders>),
}

/// What a reactor obeys: all of it changes between two turns, or nothing.
pub struct Orders {
    /// The settings of connections; the routes that there are already have their old places.
    pub policy: Policy,
    /// Limits on what it accepts.
    pub limits: Limits,
    /// Who makes the handlers of the routes that are new.
    pub factories: Vec<Arc<dyn HandlerFactory>>,
    /// Whom the reactor tells when it obeys.
    pub obeyed: Sender<()>,
}

impl std::fmt::Debug for Orders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Orders")
            .field("policy", &self.policy)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
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

/// The token of the reactor's waker.
pub const WAKER: Token = Token(usize::MAX);

/// Subscribers served in a slice of a fan-out before other work has its turn: about 3 ms.
const FAN_OUT_SLICE: usize = 512;
/// Events taken from one poll.
const EVENTS: usize = 1024;
/// Connections looked at in one turn after a revocation.
pub(super) const INSPECTION_SLICE: u32 = 8192;
/// How soon to try again to post what a full mailbox did not take.
const RETRY: Duration = Duration::from_millis(1);
/// A reactor; [`run`](Self::run) is its thread.
#[expect(
    missing_debug_implementations,
    reason = "handlers need not be printable"
)]
pub struct Reactor {
    pub(super) number: u8,
    pub(super) poll: Poll,
    pub(super) listeners: Vec<Listener>,
    pub(super) acceptor: Option<Acceptor>,
    pub(super) mailbox: Mailbox<Mail>,
    pub(super) postboxes: Vec<Postbox<Mail>>,
    pub(super) cx: Context,
    pub(super) limits: Limits,
    pub(super) slots: Slots<Entry>,
    pub(super) wheel: Wheel,
    pub(super) scratch: Scratch,
    /// Open connections whose readiness was not used up.
    pub(super) ready: Vec<Key>,
    /// Connections on their way in that have something to read.
    pub(super) ready_newcomers: Newcomers,
    /// Connections that ended in this turn.
    pub(super) ended: Vec<u32>,
    pub(super) expired: Vec<u32>,
    pub(super) handshakes_in_flight: usize,
    /// Connections on their way in, the oldest first, and since when; some have arrived meanwhile.
    pub(super) newcomers: VecDeque<(Key, Tick)>,
    /// The listener that the turn began to accept from.
    pub(super) first_listener: usize,
    pub(super) epoch: Instant,
    /// How long the last turn took, without the sleep.
    pub(super) lag: Duration,
    /// When the poll began to sleep.
    pub(super) slept_at: Duration,
    /// The revocations that all connections have been asked about.
    pub(super) revocations_seen: u64,
    inspection: Option<Inspection>,
    pub(super) reporting: Option<Reporting>,
    /// Connections whose upgrade is complete.
    pub(super) open: u64,
    /// TLS sessions, established or not.
    pub(super) tls_sessions: usize,
    /// Bytes that connections hold of what has not come in full.
    pub(super) unfinished: u64,
    /// Where telling of every open connection again has got to.
    pub(super) announced: Option<u32>,
    /// Connections in whose outbox something waits, and some that it has left meanwhile.
    pub(super) waiting: Vec<Key>,
    pub(super) diagnosis: Diagnosis,
    /// When the endpoint's tick is due, if there is one.
    pub(super) ticks_at: Option<Tick>,
    pub(super) drain: Option<Drain>,
    /// Lets a few lines a second through for each way of ending that an operator wants to know of.
    pub(super) log: Sampler<&'static str>,
    /// When suppressed lines are told of, if any were.
    pub(super) log_settles_at: Option<Tick>,
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
        self.report_the_last();
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
    pub(super) fn serve(&mut self, slot: u32) {
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

    /// Open connections that had more to read than their budget allowed.
    fn serve_ready(&mut self) {
        for key in std::mem::take(&mut self.ready) {
            if let Some(entry) = self.slots.get_mut(key) {
                entry.is_listed = false;
                self.serve(key.slot);
            }
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
            Mail::Reload(orders) => self.obey(*orders),
        }
    }

    /// Takes over other settings. A slice of the connections in each turn is then looked at, as after a
    /// revocation, so that a shorter deadline does not wait for the longer one it replaces.
    fn obey(&mut self, orders: Orders) {
        let Orders {
            policy,
            limits,
            factories,
            obeyed,
        } = orders;
        let made = factories
            .iter()
            .map(|factory| factory.make(self.number.into()));
        self.cx.handlers.extend(made);
        self.cx.services.policy = Rc::new(policy);
        self.limits = limits;
        self.inspection = Some(Inspection {
            next_slot: 0,
            version: self.cx.services.gate.revocations.version(),
        });
        let _ = obeyed.try_send(());
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

    pub(super) fn deliver(&mut self, slice: &Slice) {
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

    fn is_done(&self) -> bool {
        self.drain.is_some() && self.slots.is_empty()
    }
}

/// When the turn began, as time since the server's start.
pub(super) fn since_start(cx: &Context) -> Duration {
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
