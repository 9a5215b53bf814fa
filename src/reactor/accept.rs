//! Who comes in: accepting, and connections on their way in, within what the limits and a turn allow.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use mio::Interest;
use mio::net::TcpStream;

use super::entry::Entry;
use super::listener::Accepted;
use super::slots::{Key, Slots};
use super::transport::Transport;
use super::worker::{Reactor, since_start};
use crate::admission::Refusal;
use crate::admission::address::fold_peer;
use crate::conn::{Connection, ConnectionId, Identity, Pass, Speaks};
use crate::metrics::Measure;
use crate::metrics::report::SlowCause;
use crate::timer::{LATEST, TICK, Tick, ticks};

/// Connections accepted from one listener in a turn: about a millisecond. More wait for the next turn, so
/// that open connections are served in between. It has no part in [`NEWCOMERS_SLICE`]: in a storm the newest
/// are not to grow old in the kernel's queue, which knows no order but that of arrival.
const ACCEPT_BATCH: usize = 64;
/// While the server is young, the part of the limit on handshakes in flight that counts from the start.
const RAMP_STARTS_AT: usize = 16;
/// How long a connection may be on its way in while others wait for its place. An honest handshake is
/// over in a few round trips.
pub(super) const NEWCOMER_PATIENCE: Duration = Duration::from_secs(1);
/// What newcomers may take of a turn, while others wait: a few full TLS handshakes. Open
/// connections are served first, so this is most of what a storm of newcomers adds to their latency.
const NEWCOMERS_SLICE: Duration = Duration::from_micros(500);

impl Reactor {
    /// Serves connections on their way in for a slice of time, then accepts others: so what has been begun
    /// is finished before more is begun, and open connections wait for neither.
    pub(super) fn receive_newcomers(&mut self) {
        self.serve_newcomers(self.epoch.elapsed() + NEWCOMERS_SLICE);
        self.accept();
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

    /// Accepts a batch from each listener. Each turn begins with another listener: where places are scarce,
    /// the first would take them all.
    pub(super) fn accept(&mut self) {
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

    pub(super) fn may_accept_more(&self) -> bool {
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

    /// Whether one more may be accepted. Where newcomers have taken all the room, the one that has been
    /// on its way in for the longest time ends, if that is longer than an honest client needs (B10); or,
    /// where the server does not keep up, the one that has waited for its first turn for longest.
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
            self.attend(key.slot, |entry, _, cx| {
                entry.give_way(cx);
                // It has left the list, and if it is still there, having just come in, may join another.
                entry.is_listed = false;
            });
        }
        self.drain.is_none()
    }

    /// Drops from the list of newcomers those in front that are newcomers no more; returns since when
    /// the oldest of the others has been on its way in.
    pub(super) fn oldest_newcomer(&mut self) -> Option<(Key, Tick)> {
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
                connection: Connection::new(Identity::new(id, address), pass, services),
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
        // Drops those that are in by now: the list does not grow while the limit is far.
        self.oldest_newcomer();
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
}

/// Whether a newcomer is still on the list of those that have something to read.
fn is_waiting(slots: &mut Slots<Entry>, key: Key) -> bool {
    slots
        .get_mut(key)
        .is_some_and(|entry| entry.is_listed && !entry.has_ended)
}
