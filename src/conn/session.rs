//! An open connection: frames in, callbacks, pings, and the ways a session ends.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::context::{Context, Services};
use super::guest::{Due, Guest, notice};
use super::handler::{Handler, Identity, Link, Peer};
use super::outbox::Outbox;
use super::phase::{CloseWait, Phase, Step, closed, drain};
use super::reading::{Pongs, Reading, Recipient, Stop, Taken};
use super::reason::CloseReason;
use super::sink::Sink;
use super::{ConnectionId, UNAUTHORIZED};
use crate::admission::limits::UserPlace;
use crate::admission::{Admitted, Route};
use crate::timer::{LATEST, TICK, Tick};
use crate::ws::{CloseCode, Decoder, Violation, encoder};

/// What the phase `Open` owns. It can be made only from an [`Admitted`].
#[derive(Debug)]
pub struct Session {
    decoder: Decoder,
    pub(super) link: Link,
    /// When the peer last sent anything.
    last_seen: Tick,
    /// When we pinged a silent peer; 0 while no answer is due.
    pinged_at: Tick,
    /// When the message began of which a part has come; 0 between messages.
    message_began: Tick,
    /// When to look for silence next. Jittered, so that connections that came together part.
    ping_at: Tick,
}

impl Session {
    /// Opens a session and calls the handler. The 101 is in the output already, in front of whatever
    /// the handler sends.
    pub(super) fn open(
        admitted: Admitted<'_>,
        place: Option<UserPlace<ConnectionId>>,
        identity: &Identity,
        outbox: &mut Option<Box<Outbox>>,
        cx: &mut Context,
    ) -> Step {
        let services = &mut cx.services;
        services.counters.opened += 1;
        let now = services.now;
        let ping_at = match services.policy.deadlines.ping_interval {
            Some(interval) => now.saturating_add(interval - services.jitter(interval / 2)),
            None => LATEST,
        };
        let (route, deflate) = (admitted.route(), admitted.deflate());
        let policy = std::rc::Rc::clone(&services.policy);
        let wanted = &policy.routes[usize::from(route)];
        let guest = Guest::of(admitted, place, wanted, services);
        let mut session = Self {
            decoder: Decoder::new(deflate.is_some()),
            link: Link {
                route,
                deflate,
                timer: 0,
                closing: None,
                is_held: false,
                data: None,
                guest,
            },
            last_seen: now,
            pinged_at: 0,
            message_began: 0,
            ping_at,
        };
        let user = session
            .link
            .bearer()
            .map(crate::admission::jwt::Identity::user);
        cx.services.hub.users.opened(user, identity.id);
        session.call(identity, outbox, cx, |handler, peer| handler.open(peer));
        // A handler that closed at once still gets its `close` callback: the session goes through
        // `Open` and leaves it like any other.
        Step::enter(Phase::Open(session))
    }

    /// Takes plaintext; calls the handler for each complete message. Returns the bytes done with: the
    /// rest is the beginning of a frame.
    // Inlined into the `match` over all phases, its loop has no registers left.
    #[inline(never)]
    pub(super) fn receive(
        &mut self,
        input: &mut [u8],
        identity: &Identity,
        outbox: &mut Option<Box<Outbox>>,
        sink: Option<&mut (dyn Sink + '_)>,
        cx: &mut Context,
    ) -> (usize, Step) {
        self.last_seen = cx.services.now;
        self.pinged_at = 0;
        let policy = std::rc::Rc::clone(&cx.services.policy);
        let route = &policy.routes[usize::from(self.link.route)];
        let recipient = Recipient {
            handler: &mut *cx.handlers[usize::from(self.link.route)],
            peer: Peer::new(
                identity,
                &mut self.link,
                outbox,
                sink.map(|sink| sink as &mut dyn Sink),
                &mut cx.services,
            ),
            route,
        };
        let reading = Reading {
            decoder: &mut self.decoder,
            inflater: &mut cx.inflater,
            recipient,
            high_water: policy.outbox.bytes_high_water,
        };
        let mut pongs = Pongs::default();
        let Taken {
            mut at,
            stop,
            has_messages,
            control_frames,
        } = reading.take(input, &mut pongs);
        if has_messages {
            // What this read holds behind it is another message, with a time of its own.
            self.message_began = 0;
        }
        let mut step = match stop {
            Stop::Pause => self.ending(cx).unwrap_or(Step::Stay),
            Stop::Panic => {
                self.panicked(identity, outbox, cx);
                self.ending(cx).unwrap_or(Step::Stay)
            }
            Stop::Violation(violation) => {
                at = input.len();
                pongs.finish(outbox, &mut cx.services);
                self.fail(violation, identity, outbox, cx)
            }
            Stop::PeerCloses(code) => {
                pongs.finish(outbox, &mut cx.services);
                let echo = code.map(|code| (code, ""));
                self.peer(identity, outbox, cx)
                    .close_for(CloseReason::PeerClosed, echo);
                return (at, drain(CloseReason::PeerClosed, false, &cx.services));
            }
        };
        if control_frames > 0 && self.link.closing.is_none() {
            step = self
                .meter_control(control_frames, route, identity, outbox, cx)
                .unwrap_or(step);
        }
        // Nothing may follow a close frame (§5.5.1).
        if self.link.closing.is_none() {
            pongs.finish(outbox, &mut cx.services);
        }
        self.message_began = match (self.decoder.is_between_messages(), self.message_began) {
            (true, _) => 0,
            (false, 0) => cx.services.now.max(1),
            (false, began) => began,
        };
        (at, step)
    }

    /// Counts the pings and pongs of one read against the limit on them (A10). They are never passed over
    /// in silence, as messages may be: a ping has to be answered, so who sends too many has to go.
    fn meter_control(
        &mut self,
        frames: u32,
        route: &Route,
        identity: &Identity,
        outbox: &mut Option<Box<Outbox>>,
        cx: &mut Context,
    ) -> Option<Step> {
        route.traffic.as_ref()?;
        let guest = (self.link.guest).get_or_insert_with(|| Box::new(Guest::nobody()));
        let refused = guest.meter_control(frames, route, &mut cx.services).err()?;
        let frame = Some((CloseCode::Policy, refused.limit.name()));
        Some(self.end(CloseReason::TooMuchTraffic, frame, identity, outbox, cx))
    }

    /// Takes the beginning of a frame into the connection's own memory, until the rest comes.
    pub(super) fn absorb(
        &mut self,
        rest: &mut [u8],
        identity: &Identity,
        outbox: &mut Option<Box<Outbox>>,
        cx: &mut Context,
    ) -> Step {
        let policy = std::rc::Rc::clone(&cx.services.policy);
        let limits = &policy.routes[usize::from(self.link.route)].limits;
        match self.decoder.absorb(rest, limits) {
            Ok(()) => {
                self.message_began(cx.services.now);
                Step::Stay
            }
            Err(violation) => self.fail(violation, identity, outbox, cx),
        }
    }

    pub(super) fn bytes_held(&self) -> usize {
        self.decoder.bytes_held()
    }

    /// A part of a message is here; the clock runs from its first one.
    pub(super) fn message_began(&mut self, now: Tick) {
        if self.message_began == 0 {
            self.message_began = now.max(1);
        }
    }

    /// The next time at which something is due.
    pub(super) fn deadline(&self, services: &Services) -> Tick {
        let deadlines = &services.policy.deadlines;
        let liveness = match (deadlines.ping_interval, self.pinged_at) {
            (None, _) => LATEST,
            (Some(_), 0) => self.ping_at,
            (Some(_), pinged) => pinged.saturating_add(deadlines.pong),
        };
        let message = if self.message_began == 0 {
            LATEST
        } else {
            self.message_began.saturating_add(deadlines.message)
        };
        let timer = if self.link.timer == 0 {
            LATEST
        } else {
            self.link.timer
        };
        let token = self.link.guest.as_deref().map_or(LATEST, Guest::deadline);
        liveness.min(message).min(timer).min(token)
    }

    /// Does what is due about the session's token.
    fn look_at_token(
        &mut self,
        identity: &Identity,
        outbox: &mut Option<Box<Outbox>>,
        cx: &mut Context,
    ) {
        let Some(guest) = self.link.guest.as_deref_mut() else {
            return;
        };
        let policy = std::rc::Rc::clone(&cx.services.policy);
        let route = &policy.routes[usize::from(self.link.route)];
        match guest.due(route, &mut cx.services) {
            Due::Nothing => {}
            Due::Tell => {
                let text = notice::expired(route.renewal.unwrap_or_default());
                self.peer(identity, outbox, cx).send(text.as_str());
            }
            Due::End => {
                let frame = Some((CloseCode::from(UNAUTHORIZED), "token_expired"));
                self.peer(identity, outbox, cx)
                    .close_for(CloseReason::TokenExpired, frame);
            }
        }
    }

    /// Does what is due.
    pub(super) fn expire(
        &mut self,
        identity: &Identity,
        outbox: &mut Option<Box<Outbox>>,
        cx: &mut Context,
    ) -> Step {
        let now = cx.services.now;
        let deadlines = cx.services.policy.deadlines;
        if self.message_began != 0 && outbox.as_ref().is_some_and(|outbox| outbox.has_replies()) {
            // The rest of the message may be here: nothing is read while replies wait to leave.
            self.message_began = now.max(1);
        }
        if self.message_began != 0 && now >= self.message_began.saturating_add(deadlines.message) {
            let frame = Some((CloseCode::Policy, "message took too long"));
            return self.end(CloseReason::MessageTimeout, frame, identity, outbox, cx);
        }
        if let Some(interval) = deadlines.ping_interval {
            if outbox.is_some() {
                // While bytes wait, the write deadline watches the peer: a ping would wait behind
                // them, and an answer unread while reading is paused.
                self.pinged_at = 0;
                self.ping_at = self.ping_at.max(now.saturating_add(interval / 2));
            } else if self.pinged_at != 0 && now >= self.pinged_at.saturating_add(deadlines.pong) {
                // Nobody is there to read a close frame.
                return closed(CloseReason::PongTimeout);
            } else if self.pinged_at == 0 && now >= self.ping_at {
                let is_silent = now - self.last_seen >= interval / 2;
                let from = if is_silent { now } else { self.last_seen };
                self.ping_at = from.saturating_add(interval);
                if is_silent {
                    self.pinged_at = now.max(1);
                    cx.services.counters.pings_sent += 1;
                    (cx.services.output).with_vec(|out| encoder::encode_ping(out, &[]));
                }
            }
        }
        self.look_at_token(identity, outbox, cx);
        if let Some(step) = self.ending(cx) {
            return step;
        }
        if self.link.timer != 0 && now >= self.link.timer {
            self.link.timer = 0;
            self.call(identity, outbox, cx, |handler, peer| handler.timer(peer));
            if let Some(step) = self.ending(cx) {
                return step;
            }
        }
        Step::Stay
    }

    /// Ends the session from our side: a close frame, then the wait for the peer's.
    pub(super) fn end(
        &mut self,
        reason: CloseReason,
        frame: Option<(CloseCode, &str)>,
        identity: &Identity,
        outbox: &mut Option<Box<Outbox>>,
        cx: &mut Context,
    ) -> Step {
        self.peer(identity, outbox, cx).close_for(reason, frame);
        self.ending(cx).unwrap_or(Step::Stay)
    }

    /// Ends the session because the peer broke the protocol: §7.1.7 lets us close without waiting for
    /// a close frame in a stream that makes no sense any more.
    fn fail(
        &mut self,
        violation: Violation,
        identity: &Identity,
        outbox: &mut Option<Box<Outbox>>,
        cx: &mut Context,
    ) -> Step {
        let frame = Some((violation.close_code(), ""));
        let reason = CloseReason::Violation(violation);
        self.peer(identity, outbox, cx)
            .close_for(reason.clone(), frame);
        drain(reason, true, &cx.services)
    }

    /// The step that follows a close by the handler, by an overflow, or by a panic.
    #[inline]
    pub(super) fn ending(&mut self, cx: &Context) -> Option<Step> {
        let reason = self.link.closing.as_deref()?.clone();
        Some(self.await_close(reason, cx))
    }

    #[cold]
    fn await_close(&mut self, reason: CloseReason, cx: &Context) -> Step {
        let decoder = std::mem::replace(&mut self.decoder, Decoder::new(false));
        let wait = CloseWait::new(reason, decoder, self.link.route, &cx.services);
        Step::enter(Phase::Closing(Box::new(wait)))
    }

    /// Calls the handler, behind the boundary that keeps a panic to this connection.
    pub(super) fn call(
        &mut self,
        identity: &Identity,
        outbox: &mut Option<Box<Outbox>>,
        cx: &mut Context,
        callback: impl FnOnce(&mut dyn Handler, &mut Peer<'_>),
    ) {
        let handler = &mut *cx.handlers[usize::from(self.link.route)];
        let mut peer = Peer::new(identity, &mut self.link, outbox, None, &mut cx.services);
        let called = catch_unwind(AssertUnwindSafe(|| callback(handler, &mut peer)));
        drop(peer);
        if called.is_err() {
            self.panicked(identity, outbox, cx);
        }
    }

    pub(super) fn peer<'a>(
        &'a mut self,
        identity: &'a Identity,
        outbox: &'a mut Option<Box<Outbox>>,
        cx: &'a mut Context,
    ) -> Peer<'a> {
        Peer::new(identity, &mut self.link, outbox, None, &mut cx.services)
    }

    #[cold]
    fn panicked(
        &mut self,
        identity: &Identity,
        outbox: &mut Option<Box<Outbox>>,
        cx: &mut Context,
    ) {
        cx.services.counters.handler_panics += 1;
        tracing::error!(connection = %identity.id, "a handler panicked; its connection is closed with 1011");
        let minute = Tick::try_from(60_000 / TICK.as_millis()).unwrap_or(LATEST);
        let (began, count) = &mut cx.panics;
        if cx.services.now - *began >= minute {
            (*began, *count) = (cx.services.now, 0);
        }
        *count += 1;
        if *count > PANICS_PER_MINUTE_MAX {
            tracing::error!("more than {PANICS_PER_MINUTE_MAX} panics within a minute: giving up");
            std::process::abort();
        }
        let frame = Some((CloseCode::Error, "internal error"));
        self.peer(identity, outbox, cx)
            .close_for(CloseReason::HandlerPanic, frame);
    }
}

/// A handler that panics more often than this in a minute, on one reactor, is broken in a way that
/// closing connections does not mend: the process ends, so that a supervisor sees it (X7).
pub const PANICS_PER_MINUTE_MAX: u32 = 10;
