//! One connection, from its first byte to its one reason for ending; without a socket, so that whole
//! connections run in memory, on a virtual clock.
//!
//! A [`Connection`] is told what happens ([`receive`](Connection::receive),
//! [`expire`](Connection::expire), …) and is lent a [`Context`]. What it wants to send it appends to
//! the context's output, or to its own [`outbox`] while one exists; the reactor does the writing.
//!
//! Invariants: the phase is changed in one place, `enter`; a connection reaches `Closed` once, and is
//! counted there; the handler's `close` is called exactly once for each `open`.

pub mod context;
pub mod endpoint;
pub mod guest;
pub mod handler;
pub mod id;
pub mod outbox;
pub mod page;
pub mod phase;
pub mod pieces;
mod reading;
pub mod reason;
pub mod session;
pub mod sink;

use std::any::Any;

use bytes::BytesMut;

pub use context::{Context, Deadlines, Gate, Policy, Services, Timeouts};
pub use endpoint::{Answer, Endpoint, EndpointFactory, RequestTicket};
pub use handler::{Handler, HandlerFactory, Identity, Peer};
pub use id::ConnectionId;
pub use outbox::{AtLimit, Label, Outbox, Pushed};
pub use page::Page;
pub use phase::{Phase, Step};
pub use reason::CloseReason;
pub use sink::Sink;

use crate::admission::limits::{Place, Refused};
use crate::admission::{Refusal, Stage};
use crate::hub::command::Refresh;
use crate::hub::delivery::Framed;
use crate::hub::table::Tag;
use crate::hub::{Batch, Slow};
use crate::timer::{LATEST, Tick};
use crate::tls::TlsError;
use crate::ws::deflate::Deflater;
use crate::ws::{CloseCode, Message};
use phase::{HeadWait, ProxyWait, closed, drain};

/// A connection: who it is, where it is in its life, and what waits to leave.
#[derive(Debug)]
pub struct Connection {
    identity: Identity,
    /// The right to be connected, given back with the connection.
    place: Place,
    phase: Phase,
    /// Exists only while the socket refuses bytes.
    pub(crate) outbox: Option<Box<Outbox>>,
}

impl Connection {
    /// A connection that has just been accepted and that `pass` lets in so far.
    #[must_use]
    pub fn new(identity: Identity, pass: Pass, services: &Services) -> Self {
        let Pass { place, speaks } = pass;
        let phase = if speaks.proxy {
            let timeout = services.policy.deadlines.head;
            let deadline = services.now.saturating_add(timeout);
            Phase::Proxy(Box::new(ProxyWait::new(speaks, deadline)))
        } else {
            phase::after_proxy(speaks, services)
        };
        Self {
            identity,
            place,
            phase,
            outbox: None,
        }
    }

    /// The connection's id.
    #[must_use]
    pub const fn id(&self) -> ConnectionId {
        self.identity.id
    }

    /// Who the connection is.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where the connection is in its life.
    #[must_use]
    pub const fn phase(&self) -> &Phase {
        &self.phase
    }

    /// What waits to leave; `None` while the socket takes everything.
    #[must_use]
    pub fn outbox(&self) -> Option<&Outbox> {
        self.outbox.as_deref()
    }

    /// Whether so much has been said in this call that the caller should write it before it goes on:
    /// [`receive`](Self::receive) then stops between two messages.
    #[must_use]
    pub fn wants_flush(&self, services: &Services) -> bool {
        self.outbox.is_none() && services.output.len() > services.policy.outbox.bytes_high_water
    }

    /// Whether requests wait that can be answered without reading.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        matches!(&self.phase, Phase::Exchange(wait) if wait.has_pending())
    }

    /// Takes those requests out, to be given to [`receive`](Self::receive) again.
    pub fn take_pending(&mut self) -> BytesMut {
        match &mut self.phase {
            Phase::Exchange(wait) => wait.take_pending(),
            _ => BytesMut::new(),
        }
    }

    /// Puts back those whose turn has not come.
    pub fn put_back(&mut self, pending: BytesMut) {
        if let Phase::Exchange(wait) = &mut self.phase {
            wait.put_back(pending);
        }
    }

    /// Whether the connection is still on its way in.
    #[must_use]
    pub const fn is_handshaking(&self) -> bool {
        matches!(self.phase, Phase::Proxy(_) | Phase::Tls(_) | Phase::Head(_))
    }

    /// Whether the next bytes are a PROXY header, which comes before TLS.
    #[must_use]
    pub const fn awaits_proxy(&self) -> bool {
        matches!(self.phase, Phase::Proxy(_))
    }

    /// Heap bytes of input held now: an unfinished head, frame or message. An idle connection holds
    /// none; what waits to leave is counted by the [`outbox`](Self::outbox).
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        match &self.phase {
            Phase::Head(head) => head.bytes_held(),
            Phase::Open(session) => session.bytes_held(),
            Phase::Closing(wait) => wait.bytes_held(),
            Phase::Exchange(wait) => wait.bytes_held(),
            Phase::Proxy(_) => size_of::<ProxyWait>(),
            Phase::Tls(_) | Phase::Draining(_) | Phase::Closed(_) => 0,
        }
    }

    /// Whether nothing may be read now: the connection's own replies cannot leave, so reading on would
    /// only make more of them; or an answer has been put off, and the next request waits for it.
    #[must_use]
    pub fn is_reading_paused(&self) -> bool {
        if matches!(&self.phase, Phase::Exchange(wait) if wait.is_awaiting()) {
            return true;
        }
        matches!(self.phase, Phase::Open(_) | Phase::Exchange(_))
            && self
                .outbox
                .as_ref()
                .is_some_and(|outbox| outbox.has_replies())
    }

    /// Takes plaintext in whatever pieces the network chose; returns the bytes done with. The rest is
    /// the beginning of a frame: the caller reads more behind it and calls again, or gives it to
    /// [`absorb`](Self::absorb). One read may end a head and begin a frame, hence the loop; each pass
    /// uses a byte or changes the phase, so it ends.
    ///
    /// `sink` is the way past the output for large messages; without one they go there like all others.
    pub fn receive(
        &mut self,
        input: &mut [u8],
        mut sink: Option<&mut (dyn Sink + '_)>,
        cx: &mut Context,
    ) -> usize {
        let mut at = 0;
        loop {
            let rest = &mut input[at..];
            let (used, step) = match &mut self.phase {
                Phase::Open(session) => {
                    let sink = sink.as_deref_mut();
                    session.receive(rest, &self.identity, &mut self.outbox, sink, cx)
                }
                Phase::Head(head) => head.receive(
                    rest,
                    &mut self.identity,
                    &mut self.place,
                    &mut self.outbox,
                    cx,
                ),
                // While answers wait to leave, requests wait to be answered.
                Phase::Exchange(_) if self.outbox.is_some() => (0, Step::Stay),
                Phase::Exchange(wait) => wait.receive(rest, self.identity.id, cx),
                Phase::Proxy(wait) => wait.receive(rest, &mut self.identity, &mut self.place, cx),
                // What follows a PROXY header is for TLS to read.
                Phase::Tls(_) => (0, Step::Stay),
                Phase::Closing(wait) => wait.receive(rest, cx),
                Phase::Draining(_) | Phase::Closed(_) => (rest.len(), Step::Stay),
            };
            at += used;
            let stays = matches!(step, Step::Stay);
            self.apply(step, cx);
            if stays || at == input.len() {
                return at;
            }
        }
    }

    /// Takes the beginning of a frame into the connection's own memory until the rest comes.
    pub fn absorb(&mut self, rest: &mut [u8], cx: &mut Context) {
        let step = match &mut self.phase {
            Phase::Open(session) => session.absorb(rest, &self.identity, &mut self.outbox, cx),
            Phase::Closing(wait) => wait.absorb(rest, cx),
            Phase::Exchange(wait) => {
                wait.absorb(rest);
                Step::Stay
            }
            Phase::Proxy(_)
            | Phase::Tls(_)
            | Phase::Head(_)
            | Phase::Draining(_)
            | Phase::Closed(_) => Step::Stay,
        };
        self.apply(step, cx);
    }

    /// The transport can carry plaintext now.
    pub fn established(&mut self, cx: &mut Context) {
        if let Phase::Tls(wait) = &self.phase {
            let head = HeadWait::new(wait.serves, &cx.services);
            self.apply(Step::enter(Phase::Head(Box::new(head))), cx);
        }
    }

    /// The transport failed; a last alert may be on its way out.
    pub fn tls_failed(&mut self, error: TlsError, cx: &mut Context) {
        // What has not been encrypted never will be.
        if let Some(outbox) = &mut self.outbox {
            outbox.abandon_frames();
            if outbox.is_empty() {
                self.outbox = None;
            }
        }
        if let Phase::Tls(_) = self.phase {
            cx.services.counters.refused.count(&Refusal::Tls(error));
        }
        let step = match &self.phase {
            Phase::Proxy(_)
            | Phase::Tls(_)
            | Phase::Head(_)
            | Phase::Open(_)
            | Phase::Exchange(_) => drain(CloseReason::Tls(error), true, &cx.services),
            Phase::Closing(wait) => drain(wait.reason.clone(), true, &cx.services),
            Phase::Draining(_) | Phase::Closed(_) => Step::Stay,
        };
        self.apply(step, cx);
    }

    /// The peer will send nothing more. Where our last bytes still wait to leave, they may: the peer
    /// can have shut its side and still be reading.
    pub fn end_of_stream(&mut self, cx: &mut Context) {
        match &mut self.phase {
            Phase::Draining(draining) if self.outbox.is_some() => draining.lingers = false,
            _ => self.finish(CloseReason::PeerGone, cx),
        }
    }

    /// A part of a TLS record has come: what it belongs to must be complete in time, like a message.
    pub fn record_began(&mut self, cx: &mut Context) {
        if let Phase::Open(session) = &mut self.phase {
            session.message_began(cx.services.now);
        }
    }

    /// Ends a connection that is still on its way in and was slow, to make room for another.
    pub fn evict(&mut self, cx: &mut Context) {
        self.give_way(CloseReason::Evicted, Refusal::Evicted, cx);
    }

    /// Ends a connection that waits for its first turn, because there is no time for all that came.
    pub fn shed(&mut self, cx: &mut Context) {
        self.give_way(CloseReason::Shed, Refusal::Shed, cx);
    }

    fn give_way(&mut self, reason: CloseReason, refusal: fn(Stage) -> Refusal, cx: &mut Context) {
        let stage = match &self.phase {
            Phase::Proxy(_) => Stage::Proxy,
            Phase::Tls(_) => Stage::Tls,
            Phase::Head(_) => Stage::Head,
            Phase::Open(_)
            | Phase::Exchange(_)
            | Phase::Closing(_)
            | Phase::Draining(_)
            | Phase::Closed(_) => return,
        };
        cx.services.counters.refused.count(&refusal(stage));
        self.apply(closed(reason), cx);
    }

    /// The socket failed.
    pub fn io_failed(&mut self, cx: &mut Context) {
        self.finish(CloseReason::Io, cx);
    }

    /// Everything has been written: the outbox is empty and so is the output. Says what the reactor is
    /// to do with the socket.
    pub fn flushed(&mut self, cx: &mut Context) -> Flushed {
        let Phase::Draining(draining) = &mut self.phase else {
            return Flushed::Nothing;
        };
        if draining.lingers {
            let was_shut = std::mem::replace(&mut draining.is_shut, true);
            return if was_shut {
                Flushed::Nothing
            } else {
                Flushed::Shut
            };
        }
        let step = closed(draining.reason.clone());
        self.apply(step, cx);
        Flushed::Closed
    }

    /// When the connection wants [`expire`](Self::expire) to be called.
    #[must_use]
    pub fn deadline(&self, services: &Services) -> Tick {
        let phase = match &self.phase {
            Phase::Proxy(wait) => wait.deadline,
            Phase::Tls(wait) => wait.deadline,
            Phase::Head(wait) => wait.deadline,
            Phase::Open(session) => session.deadline(services),
            Phase::Exchange(wait) => wait.deadline,
            Phase::Closing(wait) => wait.deadline,
            Phase::Draining(draining) => draining.deadline,
            Phase::Closed(_) => LATEST,
        };
        match &self.outbox {
            Some(outbox) => phase.min(
                outbox
                    .progress_at()
                    .saturating_add(services.policy.deadlines.write),
            ),
            None => phase,
        }
    }

    /// Does what is due now; a call that comes too early does nothing.
    pub fn expire(&mut self, cx: &mut Context) {
        let now = cx.services.now;
        if now < self.deadline(&cx.services) {
            return;
        }
        if let Some(outbox) = &self.outbox
            && now
                >= outbox
                    .progress_at()
                    .saturating_add(cx.services.policy.deadlines.write)
        {
            return self.finish(CloseReason::WriteTimeout, cx);
        }
        let step = match &mut self.phase {
            Phase::Open(session) => session.expire(&self.identity, &mut self.outbox, cx),
            Phase::Proxy(_) => {
                let refusal = Refusal::Timeout(Stage::Proxy);
                cx.services.counters.refused.count(&refusal);
                closed(CloseReason::ProxyTimeout)
            }
            Phase::Tls(_) => {
                let refusal = Refusal::Timeout(Stage::Tls);
                cx.services.counters.refused.count(&refusal);
                closed(CloseReason::TlsTimeout)
            }
            Phase::Head(_) => phase::head_timed_out(cx),
            Phase::Exchange(wait) => wait.expire(&mut self.outbox, cx),
            Phase::Closing(wait) => drain(wait.reason.clone(), true, &cx.services),
            Phase::Draining(draining) => closed(draining.reason.clone()),
            Phase::Closed(_) => Step::Stay,
        };
        self.apply(step, cx);
    }

    /// Gives an answer that was put off. It is dropped if nobody waits for it any more.
    pub fn answer(&mut self, ticket: RequestTicket, answer: &Answer, cx: &mut Context) {
        if let Phase::Exchange(wait) = &mut self.phase {
            let step = wait.answer(ticket, answer, &mut self.outbox, cx);
            self.apply(step, cx);
        }
    }

    /// Sends a message that comes from outside a callback; `false` if the connection is not open.
    pub fn send(&mut self, message: Message<'_>, cx: &mut Context) -> bool {
        let Phase::Open(session) = &mut self.phase else {
            return false;
        };
        let pushed = session
            .peer(&self.identity, &mut self.outbox, cx)
            .send(message);
        self.end_if_closing(cx);
        pushed != Pushed::Full
    }

    /// Hands the handler what another thread says about an open connection.
    ///
    /// # Errors
    /// Gives it back if the connection is not open any more.
    pub fn tell(
        &mut self,
        what: Box<dyn Any + Send>,
        cx: &mut Context,
    ) -> Result<(), Box<dyn Any + Send>> {
        let Phase::Open(session) = &mut self.phase else {
            return Err(what);
        };
        session.call(&self.identity, &mut self.outbox, cx, |handler, peer| {
            handler.told(peer, what);
        });
        self.end_if_closing(cx);
        Ok(())
    }

    /// Closes the connection from outside a callback: an open one with a close frame, one that is
    /// still on its way in without ceremony.
    pub fn close(&mut self, reason: CloseReason, code: CloseCode, text: &str, cx: &mut Context) {
        let step = match &mut self.phase {
            Phase::Open(session) => session.end(
                reason,
                Some((code, text)),
                &self.identity,
                &mut self.outbox,
                cx,
            ),
            Phase::Proxy(_) | Phase::Tls(_) | Phase::Head(_) => closed(reason),
            // Whoever was promised an answer gets it; it says that it is the last one.
            Phase::Exchange(wait) if reason == CloseReason::Shutdown && wait.is_awaiting() => {
                wait.close_behind_answer();
                Step::Stay
            }
            Phase::Exchange(_) => drain(reason, false, &cx.services),
            Phase::Closing(_) | Phase::Draining(_) | Phase::Closed(_) => Step::Stay,
        };
        self.apply(step, cx);
    }

    /// The route the connection was admitted to, from the admission to the end of the closing handshake.
    #[must_use]
    pub fn route(&self) -> Option<u16> {
        match &self.phase {
            Phase::Open(session) => Some(session.link.route),
            Phase::Closing(wait) => Some(wait.route),
            _ => None,
        }
    }

    /// The user of an open connection's token.
    #[must_use]
    pub fn user(&self) -> Option<&std::sync::Arc<str>> {
        match &self.phase {
            Phase::Open(session) => session
                .link
                .bearer()
                .map(crate::admission::jwt::Identity::user),
            _ => None,
        }
    }

    /// Ends the connection if its token has been revoked.
    pub fn check_revocation(&mut self, cx: &mut Context) {
        let services = &cx.services;
        let Phase::Open(session) = &self.phase else {
            return;
        };
        let is_revoked = session.link.bearer().is_some_and(|bearer| {
            let revocations = &services.gate.revocations;
            revocations.covers(bearer, services.wall)
        });
        if is_revoked {
            let code = CloseCode::from(UNAUTHORIZED);
            self.close(CloseReason::Revoked, code, "token_revoked", cx);
        }
    }

    /// Whether published frames may be written to this connection, and whether compressed.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// Queues published frames, because the socket refuses bytes. What does not fit meets the policy of
    /// the channel.
    pub fn deliver(&mut self, offer: &Offer, lane: Lane, cx: &mut Context) -> Delivered {
        let Phase::Open(session) = &mut self.phase else {
            return Delivered::Refused;
        };
        let limits = cx.services.policy.outbox;
        let now = cx.services.now;
        let outbox = self
            .outbox
            .get_or_insert_with(|| Box::new(Outbox::new(now)));
        let (mut frames, mut messages) = (offer.frames.bytes.clone(), offer.messages);
        let mut taken_back = 0;
        match lane.slow {
            Slow::KeepLatest => {
                taken_back += outbox.take_back(lane.tag, None, &limits);
                taken_back += u64::from(messages.saturating_sub(1));
                (frames, messages) = (frames.slice(offer.frames.last..), 1);
            }
            Slow::DropOldest if !outbox.has_room(frames.len(), &limits) => {
                taken_back += outbox.take_back(lane.tag, Some(frames.len()), &limits);
            }
            Slow::DropOldest | Slow::AsOutbox | Slow::Close => {}
        }
        let label = Label {
            tag: lane.tag,
            messages,
        };
        let pushed = outbox.push_published(frames, label, &limits);
        cx.services.counters.outbox_taken_back += taken_back;
        if pushed != Pushed::Full {
            return if taken_back == 0 {
                Delivered::Whole
            } else {
                Delivered::InPart
            };
        }
        let mut peer = session.peer(&self.identity, &mut self.outbox, cx);
        match lane.slow {
            Slow::AsOutbox => {
                peer.overflow();
            }
            Slow::Close => peer.close_as_too_slow(),
            Slow::DropOldest | Slow::KeepLatest => {}
        }
        drop(peer);
        if self.outbox.as_ref().is_some_and(|outbox| outbox.is_empty()) {
            self.outbox = None;
        }
        self.end_if_closing(cx);
        Delivered::Refused
    }

    /// Does something with an open connection as its handler would; `None` if it is not open.
    pub fn with_peer<T>(
        &mut self,
        cx: &mut Context,
        what: impl FnOnce(&mut Peer<'_>) -> T,
    ) -> Option<T> {
        let Phase::Open(session) = &mut self.phase else {
            return None;
        };
        let done = what(&mut session.peer(&self.identity, &mut self.outbox, cx));
        self.end_if_closing(cx);
        Some(done)
    }

    /// Calls the handler of an open connection.
    pub fn call(
        &mut self,
        cx: &mut Context,
        callback: impl FnOnce(&mut dyn Handler, &mut Peer<'_>),
    ) {
        if let Phase::Open(session) = &mut self.phase {
            session.call(&self.identity, &mut self.outbox, cx, callback);
            self.end_if_closing(cx);
        }
    }

    /// Ends an open connection by somebody's order: nothing of any channel is written to it any more, but
    /// for a frame that has begun to leave (G8). False if it is not open.
    pub fn kick(&mut self, code: CloseCode, text: &str, cx: &mut Context) -> bool {
        if !self.is_open() {
            return false;
        }
        if let Some(outbox) = &mut self.outbox {
            cx.services.counters.outbox_taken_back += outbox.take_back_all();
            if outbox.is_empty() {
                self.outbox = None;
            }
        }
        self.close(CloseReason::Disconnected, code, text, cx);
        true
    }

    /// Changes how long an open connection may stay; false if it is not open, or came without a token.
    pub fn refresh(&mut self, refresh: Refresh, cx: &mut Context) -> bool {
        let Phase::Open(session) = &mut self.phase else {
            return false;
        };
        if session.link.bearer().is_none() {
            return false;
        }
        match refresh {
            Refresh::Expired => {
                let code = CloseCode::from(UNAUTHORIZED);
                self.close(CloseReason::TokenExpired, code, "token_expired", cx);
            }
            Refresh::Until(until) => {
                if let Some(guest) = &mut session.link.guest {
                    guest.prolong(until, &mut cx.services);
                }
            }
        }
        true
    }

    fn end_if_closing(&mut self, cx: &mut Context) {
        if let Phase::Open(session) = &mut self.phase
            && let Some(step) = session.ending(cx)
        {
            self.apply(step, cx);
        }
    }

    /// Ends the connection with nothing more to send. A reason found earlier stands.
    fn finish(&mut self, reason: CloseReason, cx: &mut Context) {
        let step = match &self.phase {
            Phase::Proxy(_)
            | Phase::Tls(_)
            | Phase::Head(_)
            | Phase::Open(_)
            | Phase::Exchange(_) => closed(reason),
            Phase::Closing(wait) => closed(wait.reason.clone()),
            Phase::Draining(draining) => closed(draining.reason.clone()),
            Phase::Closed(_) => Step::Stay,
        };
        self.apply(step, cx);
    }

    /// Takes the step: nearly always none.
    #[inline]
    fn apply(&mut self, step: Step, cx: &mut Context) {
        if let Step::Become(next) = step {
            self.enter(*next, cx);
        }
    }

    /// The only place where the phase changes: leaving `Open` ends subscriptions and calls the
    /// handler, entering `Closed` counts.
    #[inline(never)]
    fn enter(&mut self, next: Phase, cx: &mut Context) {
        let was_handshaking = self.is_handshaking();
        let previous = std::mem::replace(&mut self.phase, next);
        if was_handshaking && !self.is_handshaking() && !self.has_been_judged(&previous) {
            cx.services.counters.abandoned += 1;
        }
        if let Phase::Open(mut session) = previous {
            cx.services.hub.leave_all(self.identity.id);
            let user = session
                .link
                .bearer()
                .map(crate::admission::jwt::Identity::user);
            cx.services.hub.users.closed(user, self.identity.id);
            let reason = match &self.phase {
                Phase::Closing(wait) => wait.reason.clone(),
                Phase::Draining(draining) => draining.reason.clone(),
                Phase::Closed(reason) => (**reason).clone(),
                Phase::Proxy(_)
                | Phase::Tls(_)
                | Phase::Head(_)
                | Phase::Open(_)
                | Phase::Exchange(_) => return,
            };
            // Nothing the callback tries to send may follow the close frame.
            session
                .link
                .closing
                .get_or_insert_with(|| Box::new(reason.clone()));
            session.call(&self.identity, &mut self.outbox, cx, |handler, peer| {
                handler.close(peer, &reason);
            });
            // The application's value is dropped behind the same boundary as its callbacks.
            session.call(&self.identity, &mut self.outbox, cx, |_, peer| {
                peer.drop_data()
            });
        }
        if let Phase::Closed(reason) = &self.phase {
            cx.services.counters.closed[reason.index()] += 1;
        }
        if let Phase::Open(session) = &mut self.phase
            && let Some(step) = session.ending(cx)
        {
            self.apply(step, cx);
        }
    }
}

impl Connection {
    /// Whether a connection that has just left the way in, at `previous`, was let in or refused; else
    /// it went of its own.
    fn has_been_judged(&self, previous: &Phase) -> bool {
        let reason = match &self.phase {
            Phase::Closing(wait) => &wait.reason,
            Phase::Draining(draining) => &draining.reason,
            Phase::Closed(reason) => reason,
            Phase::Proxy(_)
            | Phase::Tls(_)
            | Phase::Head(_)
            | Phase::Open(_)
            | Phase::Exchange(_) => return true,
        };
        match reason {
            CloseReason::Refused(_)
            | CloseReason::Head(_)
            | CloseReason::HeadTimeout
            | CloseReason::TlsTimeout
            | CloseReason::Proxy(_)
            | CloseReason::ProxyTimeout
            | CloseReason::RequestsDone
            | CloseReason::RequestFailed
            | CloseReason::Evicted
            | CloseReason::Shed => true,
            CloseReason::Tls(_) => matches!(previous, Phase::Tls(_)),
            _ => false,
        }
    }
}

/// The close code of a connection whose token is good no longer: 4000 and the status that says so.
pub const UNAUTHORIZED: u16 = 4401;

/// The close code of a connection whose place a newer one of the same user took: to come back would
/// take that one's.
pub const DISPLACED: u16 = 4409;

/// What a listener's clients begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Speaks {
    /// A PROXY header, before anything else.
    pub proxy: bool,
    /// A TLS handshake.
    pub tls: bool,
    /// What they come for.
    pub serves: Serves,
}

/// What a listener's clients come for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Serves {
    /// WebSockets. Any other request is refused.
    #[default]
    Upgrades,
    /// Plain requests, which the reactor's [`Endpoint`] answers.
    Requests,
    /// The first request decides.
    Both,
}

/// Leave to connect, from the limits that are asked before any cryptography.
#[derive(Debug)]
pub struct Pass {
    place: Place,
    speaks: Speaks,
}

impl Pass {
    /// Asks the limits about a connection that comes from `address`, folded. Where a trusted proxy has
    /// yet to say whose it is, the address's own limits are asked then.
    ///
    /// # Errors
    /// The first limit that refuses.
    pub fn ask(
        address: std::net::SocketAddr,
        speaks: Speaks,
        services: &mut Services,
    ) -> Result<Self, Refusal> {
        let at_accept = |refused: Refused| Refusal::Limit(Stage::Accept, refused);
        let admission = &services.policy.admission;
        if speaks.proxy && !admission.trusted.contains(address.ip()) {
            return Err(Refusal::UntrustedProxy);
        }
        let tally = &mut services.counters.tally;
        if speaks.serves == Serves::Requests {
            let entered = services.gate.limits.enter_api(&admission.limits, tally);
            let place = entered.map_err(at_accept)?;
            return Ok(Self { place, speaks });
        }
        let entered = services.gate.limits.enter(&admission.limits, tally);
        let mut place = entered.map_err(at_accept)?;
        if !speaks.proxy {
            phase::locate(address, &mut place, services).map_err(at_accept)?;
        }
        Ok(Self { place, speaks })
    }
}

/// Published frames on their way to one subscriber.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The frames.
    pub frames: Framed,
    /// Messages in them.
    pub messages: u32,
}

impl Offer {
    /// The frames of a batch, compressed or not.
    #[must_use]
    pub fn of(batch: &Batch, deflate: bool, deflater: &mut Deflater) -> Self {
        let frames = if deflate {
            batch.deflated(deflater)
        } else {
            batch.framed()
        };
        Self {
            frames: frames.clone(),
            messages: u32::try_from(batch.messages()).unwrap_or(u32::MAX),
        }
    }
}

/// Which channel published frames are of, and what becomes of those that do not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lane {
    /// The channel's name in outboxes.
    pub tag: Tag,
    /// Its policy.
    pub slow: Slow,
}

/// What became of published frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// They wait.
    Whole,
    /// They wait, and others of the channel, or some of these, have been dropped for it.
    InPart,
    /// They were dropped, or the connection ends.
    Refused,
}

/// What the reactor is to do with a socket whose bytes have all been written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    /// Nothing.
    Nothing,
    /// Shut our side of the stream, after a close_notify under TLS, and go on reading.
    Shut,
    /// The same without reading on: the socket is about to be closed.
    Closed,
}
