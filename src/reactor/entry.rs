//! A connection as its reactor holds it: its socket, its place on the lists, and what is told of it.

use std::collections::VecDeque;
use std::time::Duration;

use mio::net::TcpStream;

use super::newcomers::Standing;
use super::slow::Diagnosis;
use super::transport::{Readiness, Scratch, Transport};
use crate::conn::{CloseReason, Connection, Context, Phase};
use crate::metrics::report::{Ended, Opened, SlowCause, Traffic};
use crate::metrics::{Counters, Ledger, Measure};
use crate::timer::Tick;
use crate::tls::Session;

/// A connection, its socket, and what the reactor knows about both.
pub(super) struct Entry {
    pub(super) connection: Connection,
    pub(super) transport: Transport<TcpStream>,
    /// When the connection was opened; before that, when the stage of the handshake began. Microseconds
    /// since the server's start.
    pub(super) since: u64,
    pub(super) has_opened: bool,
    /// When the wheel will call; the connection's own deadline may be later, never earlier.
    pub(super) armed_at: Tick,
    /// An edge was seen and "would block" was not.
    pub(super) is_readable: bool,
    /// An event said that the peer will send nothing more, or that the socket failed.
    pub(super) peer_has_finished: bool,
    pub(super) is_handshaking: bool,
    /// Something of it may have been read.
    pub(super) has_begun: bool,
    pub(super) has_ended: bool,
    /// What it held of what has not come in full, when it was served last.
    pub(super) unfinished: u32,
    pub(super) was_paused: bool,
    /// On the list of connections whose readiness was not used up.
    pub(super) is_listed: bool,
    /// It has been on its way in for too long once, and was not ended because we were late ourselves.
    pub(super) was_spared: bool,
    /// Since when messages wait in the outbox; none while it is empty.
    #[expect(
        clippy::box_collection,
        reason = "one word in each idle connection, where a deque would be four"
    )]
    pub(super) marks: Option<Box<VecDeque<Mark>>>,
    /// Since when something has been waiting in the outbox; [`LATEST`] while nothing is.
    pub(super) waits_since: Tick,
    /// On the list of those in whose outbox something waits.
    pub(super) is_waiting: bool,
    /// Why, as of the last time the kernel was asked.
    pub(super) slow_cause: SlowCause,
}

/// Messages that were said in one turn and wait to leave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    /// Where the end of the outbox stood behind them.
    end: i64,
    /// When they were said, in microseconds since the server's start.
    at: u64,
    messages: u64,
}

/// Marks of one connection. Beyond them what is said counts with what was said last, so that a queue of
/// very many small messages is timed in fewer steps and costs no more.
const MARKS_MAX: usize = 256;

impl Entry {
    /// How far it has got on its way in.
    pub(super) fn standing(&self) -> Standing {
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
    pub(super) fn has_work(&self) -> bool {
        self.is_readable || self.connection.has_pending() || self.connection.outbox.is_some()
    }

    /// Whether it has hung up while it waited for the answer to its hello: all that is left to do is to
    /// let go of it, and its place is free for another.
    pub(super) fn has_lost_patience(&self) -> bool {
        self.peer_has_finished && self.transport.tls().is_some() && !self.is_answered()
    }

    /// Ends it to make room: it was slow, or we are.
    pub(super) fn give_way(&mut self, cx: &mut Context) {
        match self.is_listed && !self.has_begun {
            true => self.connection.shed(cx),
            false => self.connection.evict(cx),
        }
    }

    /// Writes what waits, reads what has come (if that is to be looked at), writes the answers.
    pub(super) fn catch_up(&mut self, reads: bool, scratch: &mut Scratch, cx: &mut Context) {
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
    pub(super) fn write_down(&mut self, before: &Progress, waited: u64, cx: &mut Context) {
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
    pub(super) fn diagnose(&mut self, diagnosis: &mut Diagnosis) -> SlowCause {
        let socket = self.transport.socket_mut();
        match (socket.local_addr(), socket.peer_addr()) {
            (Ok(local), Ok(peer)) => diagnosis.ask(local, peer),
            _ => SlowCause::Unknown,
        }
    }

    /// What is told of it once it is open.
    pub(super) fn opened(&self) -> Opened {
        Opened {
            user: self.connection.user().cloned(),
            route: self.connection.route().unwrap_or_default(),
            address: self.connection.identity().address().ip(),
            since: self.since / 1000,
            transport: self.transport.carrier(),
        }
    }

    pub(super) fn waiting_bytes(&self) -> u64 {
        self.connection
            .outbox
            .as_ref()
            .map_or(0, |outbox| outbox.bytes() as u64)
    }
}

/// The counters that say what became of a connection, taken before and after it is served: what they
/// differ by is its share, at no cost per message.
#[derive(Clone, Copy)]
pub(super) struct Progress {
    traffic: Traffic,
    proxied: u64,
    tls: u64,
    heads: u64,
    opened: u64,
}

impl Progress {
    pub(super) const fn of(counters: &Counters) -> Self {
        Self {
            traffic: Traffic::of(counters),
            proxied: counters.proxied,
            tls: counters.tls_established,
            heads: counters.heads,
            opened: counters.opened,
        }
    }
}
