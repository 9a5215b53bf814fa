//! A route's handler with hooks around it: the connection waits outside until the backend has let it in,
//! and the answers are carried out.

use std::any::Any;
use std::collections::HashMap;

use super::event::Detail;
use super::{Answer, Event, Letter, RouteHooks, UNAVAILABLE};
use crate::conn::{CloseReason, ConnectionId, Handler, Peer, Services};
use crate::hub::{self, Channel};
use crate::ws::{CloseCode, Message};

/// Messages that may come from a connection about which the backend is still asked.
pub const HELD_MESSAGES_MAX: usize = 16;
/// Bytes of them.
pub const HELD_BYTES_MAX: usize = 64 * 1024;

/// The close code of a connection that the backend does not let in: 4000 and the status that says so.
const FORBIDDEN: u16 = 4403;
/// The close code of a connection about which the backend could not be asked.
const UNASKED: u16 = 4503;

/// A handler with hooks around it.
///
/// With [`Event::Authorise`], a connection is held: its upgrade is complete, so that a browser can read the
/// close code of a refusal, and nothing else has happened. It has joined no channel, its handler has not
/// heard of it, it is sent nothing, and what it sends waits. It is let in by the answer `{"allow":true}`;
/// otherwise closed, with 4403, or with 4503 where the backend could not be asked, or where no answer has
/// come within [`Settings::authorise_timeout`](super::Settings::authorise_timeout), whatever the route's
/// fail mode.
#[expect(
    missing_debug_implementations,
    reason = "handlers need not be printable"
)]
pub struct Hooked {
    inner: Box<dyn Handler>,
    hooks: RouteHooks,
    hears_messages: bool,
    /// Connections that are held, and what came from them.
    held: HashMap<ConnectionId, Vec<Message<'static>>, ahash::RandomState>,
}

impl Hooked {
    /// Puts a route's hooks around its handler. `hears_messages` says whether the backend hears of every
    /// message, beside the handler; if not, the handler tells it of those it chooses, by
    /// [`RouteHooks::message`].
    #[must_use]
    pub fn new(inner: Box<dyn Handler>, hooks: RouteHooks, hears_messages: bool) -> Self {
        let hears_messages = hears_messages && hooks.hears(Event::Message);
        Self {
            inner,
            hooks,
            hears_messages,
            held: HashMap::default(),
        }
    }

    fn admit(&mut self, peer: &mut Peer<'_>) {
        self.inner.open(peer);
        if !peer.is_closing() && self.hooks.tell(Event::Open, peer, &Detail::None).is_err() {
            self.hooks.fail(peer);
        }
    }

    fn receive(&mut self, peer: &mut Peer<'_>, message: Message<'_>) {
        if self.hears_messages {
            self.hooks.message(peer, &message);
        }
        if !peer.is_closing() {
            self.inner.message(peer, message);
        }
    }

    /// The backend has decided about a connection that is held.
    fn decided(&mut self, peer: &mut Peer<'_>, answer: Option<Answer>) {
        match answer {
            Some(answer) if answer.allow => {
                let Some(messages) = self.held.remove(&peer.id()) else {
                    return;
                };
                peer.hold(false);
                // From here on the timer is the handler's.
                peer.clear_timer();
                self.admit(peer);
                carry_out(peer, &answer);
                for message in messages {
                    if peer.is_closing() {
                        return;
                    }
                    self.receive(peer, message);
                }
            }
            // It stays among those that are held until it is gone: nobody hears of its end.
            Some(answer) => {
                answer.reply.iter().for_each(|text| _ = peer.send(&**text));
                match answer.close {
                    Some((code, reason)) => peer.close(code, &reason),
                    None => peer.close(CloseCode::from(FORBIDDEN), "forbidden"),
                }
            }
            None => peer.close(CloseCode::from(UNASKED), UNAVAILABLE),
        }
    }

    fn hold(&mut self, peer: &mut Peer<'_>, message: Message<'_>) {
        let Some(messages) = self.held.get_mut(&peer.id()) else {
            return;
        };
        let bytes: usize = messages.iter().map(Message::len).sum();
        if messages.len() == HELD_MESSAGES_MAX || bytes + message.len() > HELD_BYTES_MAX {
            messages.clear();
            return peer.close(CloseCode::Policy, "too many messages before admission");
        }
        messages.push(message.into_owned());
    }
}

impl Handler for Hooked {
    fn open(&mut self, peer: &mut Peer<'_>) {
        if !self.hooks.hears(Event::Authorise) {
            return self.admit(peer);
        }
        self.held.insert(peer.id(), Vec::new());
        peer.hold(true);
        // Whatever becomes of the call and of its answer: nobody waits outside for ever.
        peer.set_timer(self.hooks.authorise_timeout());
        if self
            .hooks
            .tell(Event::Authorise, peer, &Detail::None)
            .is_err()
        {
            peer.close(CloseCode::from(UNASKED), UNAVAILABLE);
        }
    }

    fn message(&mut self, peer: &mut Peer<'_>, message: Message<'_>) {
        if !self.held.is_empty() && self.held.contains_key(&peer.id()) {
            self.hold(peer, message);
        } else {
            self.receive(peer, message);
        }
    }

    fn renewed(&mut self, peer: &mut Peer<'_>) {
        // Of one that is held, the handler reads the token as it is when it hears of it.
        if !self.held.contains_key(&peer.id()) {
            self.inner.renewed(peer);
        }
    }

    fn close(&mut self, peer: &mut Peer<'_>, reason: &CloseReason) {
        if self.held.remove(&peer.id()).is_some() {
            return;
        }
        self.inner.close(peer, reason);
        // Nobody is left to be closed where it does not fit; it has been counted.
        let _ = (self.hooks).tell(Event::Close, peer, &Detail::Close(reason.label()));
    }

    fn subscribed(
        &mut self,
        peer: &mut Peer<'_>,
        channel: &Channel,
        start: Result<hub::Start, hub::CommandError>,
    ) {
        self.inner.subscribed(peer, channel, start);
    }

    fn gap(&mut self, peer: &mut Peer<'_>, channel: &Channel) {
        self.inner.gap(peer, channel);
    }

    fn answered(&mut self, peer: &mut Peer<'_>, ticket: hub::Ticket, answer: hub::Answer) {
        self.inner.answered(peer, ticket, answer);
    }

    fn timer(&mut self, peer: &mut Peer<'_>) {
        if self.held.contains_key(&peer.id()) {
            return peer.close(CloseCode::from(UNASKED), UNAVAILABLE);
        }
        self.inner.timer(peer);
    }

    fn told(&mut self, peer: &mut Peer<'_>, what: Box<dyn Any + Send>) {
        let letter = match what.downcast::<Letter>() {
            Ok(letter) => *letter,
            Err(other) => return self.inner.told(peer, other),
        };
        match (letter.event, letter.answer) {
            (Event::Authorise, answer) => self.decided(peer, answer),
            (_, Some(answer)) => carry_out(peer, &answer),
            (_, None) => self.hooks.fail(peer),
        }
    }

    fn told_too_late(&mut self, what: Box<dyn Any + Send>, services: &mut Services) {
        match what.downcast::<Letter>() {
            // What was to be published is no matter of the connection's.
            Ok(letter) => {
                let published = letter.answer.iter().flat_map(|answer| &answer.publish);
                for (channel, text) in published {
                    services.publish(channel, &Message::from(&**text));
                }
            }
            Err(other) => self.inner.told_too_late(other, services),
        }
    }
}

/// Does what an answer says. Its channels have been checked.
fn carry_out(peer: &mut Peer<'_>, answer: &Answer) {
    for channel in &answer.leave {
        peer.leave(channel);
    }
    for channel in &answer.join {
        peer.join(channel);
    }
    for text in &answer.reply {
        peer.send(&**text);
    }
    for (channel, text) in &answer.publish {
        peer.publish(channel, &**text);
    }
    if let Some((code, reason)) = &answer.close {
        peer.close(*code, reason);
    }
}
