//! What an application writes: a [`Handler`], and the [`Peer`] it talks to.

use std::any::Any;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::context::{Run, Services};
use super::guest::Guest;
use super::id::ConnectionId;
use super::outbox::{AtLimit, Label, Outbox, Pushed};
use super::reason::CloseReason;
use super::sink::{STRAIGHT_BYTES_MIN, Sink};
use crate::admission::jwt;
use crate::hub::{
    Answer, Channel, Command, CommandError, PublishOptions, ReplyTo, Start, Subscriber,
    Subscription, Ticket,
};
use crate::timer::{self, Tick};
use crate::ws::deflate::DeflateParameters;
use crate::ws::{CloseCode, Message, encoder};

/// The behaviour of a route. There is one instance per reactor, made by a [`HandlerFactory`]; its
/// callbacks run on that reactor's thread, one at a time, and must not block: while one runs, no other
/// connection of the reactor is served.
///
/// A callback that panics closes its connection with 1011; the other connections, and the handler,
/// go on.
pub trait Handler {
    /// A connection has been admitted to the route. What is sent here is the first the client gets.
    fn open(&mut self, peer: &mut Peer<'_>) {
        let _ = peer;
    }

    /// A complete message has come. It borrows the reactor's read buffer where it can; to keep it,
    /// call [`Message::into_owned`].
    fn message(&mut self, peer: &mut Peer<'_>, message: Message<'_>);

    /// The connection has brought a fresh token, of the same user: what [`Peer::bearer`] says may have
    /// changed.
    fn renewed(&mut self, peer: &mut Peer<'_>) {
        let _ = peer;
    }

    /// The connection has ended, for whatever reason: called once for each `open` that was called.
    /// Nothing can be sent to it any more; publishing to channels works.
    fn close(&mut self, peer: &mut Peer<'_>, reason: &CloseReason) {
        let _ = (peer, reason);
    }

    /// A subscription that was asked for by [`Peer::subscribe`] has begun, or cannot begin. What is sent
    /// here comes before the replay, and that before everything that is published from now on.
    ///
    /// Without a method of its own, a subscription that fails closes the connection with 1013, and one
    /// that cannot be told all that it has missed ends like a [`gap`](Self::gap).
    fn subscribed(
        &mut self,
        peer: &mut Peer<'_>,
        channel: &Channel,
        start: Result<Start, CommandError>,
    ) {
        match start {
            Ok(Start {
                is_recovered: true, ..
            }) => {}
            Ok(_) => {
                peer.leave(channel);
                self.gap(peer, channel);
            }
            Err(error) => {
                peer.close_for(CloseReason::Gap, Some((CloseCode::Again, error.message())))
            }
        }
    }

    /// Publications of a channel with history have been lost on their way to this connection, and its
    /// subscription has ended: it must not go on as if it had everything.
    ///
    /// Without a method of its own, the connection is closed with 1013 "gap"; a client that comes back
    /// finds the channel as it is then.
    fn gap(&mut self, peer: &mut Peer<'_>, channel: &Channel) {
        let _ = channel;
        peer.close_for(CloseReason::Gap, Some((CloseCode::Again, "gap")));
    }

    /// The answer to a command that was asked for this connection has come.
    fn answered(&mut self, peer: &mut Peer<'_>, ticket: Ticket, answer: Answer) {
        let _ = (peer, ticket, answer);
    }

    /// The time set by [`Peer::set_timer`] has come.
    fn timer(&mut self, peer: &mut Peer<'_>) {
        let _ = peer;
    }

    /// Another thread says something about the connection, by `Handle::tell`.
    fn told(&mut self, peer: &mut Peer<'_>, what: Box<dyn Any + Send>) {
        let _ = (peer, what);
    }

    /// Another thread says something about a connection of this route that has ended.
    fn told_too_late(&mut self, what: Box<dyn Any + Send>, services: &mut Services) {
        let _ = (what, services);
    }
}

/// Makes a [`Handler`] for each reactor, on the reactor's own thread. Any function that returns a
/// handler is one.
pub trait HandlerFactory: Send + Sync {
    /// Makes the handler of reactor number `reactor`.
    fn make(&self, reactor: usize) -> Box<dyn Handler>;
}

impl<F, H> HandlerFactory for F
where
    F: Fn(usize) -> H + Send + Sync,
    H: Handler + 'static,
{
    fn make(&self, reactor: usize) -> Box<dyn Handler> {
        Box::new(self(reactor))
    }
}

/// Who a connection is, whatever its phase.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// The connection's id.
    pub id: ConnectionId,
    /// As a `SocketAddr` it would take half as much again, in every idle connection.
    address: IpAddr,
    port: u16,
}

impl Identity {
    /// Of a connection that comes from this address.
    #[must_use]
    pub const fn new(id: ConnectionId, address: SocketAddr) -> Self {
        Self {
            id,
            address: address.ip(),
            port: address.port(),
        }
    }

    /// The client's address: what trusted proxies say, or where the connection came from. The port is 0
    /// where a header names only the address.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// Puts what a trusted proxy says in the place of the proxy's own address.
    pub(super) const fn set_address(&mut self, address: SocketAddr) {
        *self = Self::new(self.id, address);
    }
}

/// The part of a session that a callback may touch.
pub(super) struct Link {
    pub(super) route: u16,
    pub(super) deflate: Option<DeflateParameters>,
    /// When the handler wants to be called; 0 for never.
    pub(super) timer: Tick,
    /// Set once by whoever ends the session: the close frame is on its way.
    pub(super) closing: Option<Box<CloseReason>>,
    /// It waits outside: it is subscribed to nothing.
    pub(super) is_held: bool,
    pub(super) data: Option<Box<dyn Any>>,
    /// What is kept of the admission, where there is anything to keep.
    pub(super) guest: Option<Box<Guest>>,
}

impl Link {
    /// Who the token says it is.
    pub(super) fn bearer(&self) -> Option<&jwt::Identity> {
        self.guest.as_deref().and_then(Guest::identity)
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("route", &self.route)
            .field("deflate", &self.deflate)
            .field("closing", &self.closing)
            .finish_non_exhaustive()
    }
}

/// The connection a callback is about: a handle for sending, closing, and joining channels. It lives
/// for the callback; to reach the connection later, or from another thread, keep its [`Peer::id`].
pub struct Peer<'a> {
    pub(super) identity: &'a Identity,
    pub(super) link: &'a mut Link,
    pub(super) outbox: &'a mut Option<Box<Outbox>>,
    /// The way past the output, for large messages.
    pub(super) sink: Option<&'a mut dyn Sink>,
    pub(super) services: &'a mut Services,
    /// What has been sent and not been counted yet.
    sent: Run,
}

impl<'a> Peer<'a> {
    /// The connection, as long as it is being served.
    pub(super) fn new(
        identity: &'a Identity,
        link: &'a mut Link,
        outbox: &'a mut Option<Box<Outbox>>,
        sink: Option<&'a mut dyn Sink>,
        services: &'a mut Services,
    ) -> Self {
        Self {
            identity,
            link,
            outbox,
            sink,
            services,
            sent: Run::default(),
        }
    }
}

/// What was sent is counted when the last of it has been.
impl Drop for Peer<'_> {
    fn drop(&mut self) {
        self.services.count_sent(self.sent);
    }
}

impl std::fmt::Debug for Peer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer")
            .field("identity", self.identity)
            .finish_non_exhaustive()
    }
}

impl Peer<'_> {
    /// The connection's id: valid for ever, in every thread.
    #[must_use]
    pub const fn id(&self) -> ConnectionId {
        self.identity.id
    }

    /// The client's address; see [`Identity::address`].
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.identity.address()
    }

    /// Who the peer's token says it is, with the claims that the configuration keeps; `None` on a route
    /// that was entered without a token.
    #[must_use]
    pub fn bearer(&self) -> Option<&jwt::Identity> {
        self.link.bearer()
    }

    /// The user of the peer's token.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.bearer().map(|bearer| &**bearer.user())
    }

    /// What the route's template captured from the path under this name.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let route = &self.services.policy.routes[usize::from(self.link.route)];
        self.link.guest.as_deref()?.parameter(name, route)
    }

    /// What the route's template captured from the path, by name.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        let route = &self.services.policy.routes[usize::from(self.link.route)];
        let names = route.path.names();
        names.filter_map(|name| Some((name, self.parameter(name)?)))
    }

    /// The place of the peer's route among all routes of the server.
    #[must_use]
    pub const fn route(&self) -> u16 {
        self.link.route
    }

    /// Holds the connection outside, or lets it in: one that is held is subscribed to nothing, whoever
    /// asks for it.
    pub const fn hold(&mut self, is_held: bool) {
        self.link.is_held = is_held;
    }

    /// Whether the connection is being closed: nothing more is sent to it.
    #[must_use]
    pub const fn is_closing(&self) -> bool {
        self.link.closing.is_some()
    }

    /// The wall clock, in seconds since 1970: the same for a whole turn of the reactor.
    #[must_use]
    pub const fn wall(&self) -> u64 {
        self.services.wall
    }

    /// Sends a message to this peer. It leaves with everything else of this callback in one write,
    /// when the callback has returned. Costs a copy of the payload; compressed where negotiated.
    ///
    /// A message of [`STRAIGHT_BYTES_MIN`] or more in reply to another, not compressed, costs no copy:
    /// it is written at once, behind what was sent before. (Over TLS, as much of it is copied as fills the
    /// record that its header is in, 16 KiB at most.)
    ///
    /// The answer says how much waits; what one callback sends counts against the outbox's limit
    /// until the socket has been asked and has taken it. At the limit ([`Pushed::Full`]) the message is not sent, and
    /// the connection is closed with 1008 or keeps going, as configured. After a close, and in the
    /// `close` callback, nothing is sent and the answer is `Full`.
    pub fn send<'m>(&mut self, message: impl Into<Message<'m>>) -> Pushed {
        let message = message.into();
        let is_like_the_last = self.link.closing.is_none()
            && self.outbox.is_none()
            && self.link.deflate.is_none()
            && self.sent.bytes == message.len();
        let output = &mut self.services.output;
        let limits = &self.services.policy.outbox;
        // Nothing but what nearly all messages need, so that nothing has to be kept over a call.
        if is_like_the_last
            && output.len() + encoder::SHORT_FRAME_ROOM <= limits.bytes_max
            && encoder::try_append_short(output, message.kind(), message.as_bytes())
        {
            self.sent.messages += 1;
            return limits.pressure(output.len());
        }
        self.send_otherwise(message)
    }

    /// Sends a message that is not as long as the one before, or compressed, or large, or finds others
    /// waiting.
    #[inline(never)]
    fn send_otherwise(&mut self, message: Message<'_>) -> Pushed {
        if self.link.closing.is_some() {
            return Pushed::Full;
        }
        let pushed = self.push(&message);
        if pushed == Pushed::Full {
            self.services.counters.outbox_skipped += 1;
            return self.overflow();
        }
        if let Some(ended) = self.sent.add(message.len()) {
            self.services.count_sent(ended);
        }
        pushed
    }

    fn push(&mut self, message: &Message<'_>) -> Pushed {
        let services = &mut *self.services;
        match (&mut *self.outbox, &mut self.sink, self.link.deflate) {
            (Some(outbox), _, None) => {
                let head = encoder::encode_header(message.kind(), false, message.len());
                let parts = [head.as_bytes(), message.as_bytes()];
                outbox.push(&parts, true, &services.policy.outbox)
            }
            (Some(outbox), _, Some(parameters)) => {
                let mut frame = Vec::new();
                let deflater = &mut services.deflater;
                encoder::encode_compressed(&mut frame, message, deflater, parameters);
                outbox.push(&[&frame], true, &services.policy.outbox)
            }
            (outbox @ None, Some(sink), None) if message.len() >= STRAIGHT_BYTES_MIN => {
                write_straight(message, *sink, outbox, services)
            }
            (None, _, deflate) => {
                let before = services.output.len();
                let (output, deflater) = (&mut services.output, &mut services.deflater);
                match deflate {
                    None => encoder::append_message(output, message),
                    Some(parameters) => output.with_vec(|out| {
                        encoder::encode_compressed(out, message, deflater, parameters);
                    }),
                }
                services.weigh_output(before)
            }
        }
    }

    /// Starts the closing handshake with this code and reason (at most 123 bytes of it are sent).
    /// Messages sent before leave before; nothing sent later leaves. The first close counts.
    pub fn close(&mut self, code: CloseCode, reason: &str) {
        self.close_for(CloseReason::Handler, Some((code, reason)));
    }

    /// Subscribes the connection to a channel, from now on; false if it was subscribed already, is
    /// closing (in the `close` callback, always), or has as many subscriptions as it may.
    pub fn join(&mut self, channel: &Channel) -> bool {
        self.join_with(channel, Subscription::default())
    }

    /// The same, with something to say to the others in the channel. A replay is not made; see
    /// [`Self::subscribe`].
    pub fn join_with(&mut self, channel: &Channel, subscription: Subscription) -> bool {
        if self.link.closing.is_some() || self.link.is_held {
            return false;
        }
        let subscriber = self.subscriber();
        (self.services.hub).join(channel, &subscriber, subscription)
    }

    /// Subscribes the connection to a channel once the channel's home has said where it begins, and what
    /// was published before: [`Handler::subscribed`] is called, then the replay is sent, then what is
    /// published. So nothing is missed in between and nothing comes twice. False as for [`Self::join`].
    pub fn subscribe(&mut self, channel: &Channel, subscription: Subscription) -> bool {
        if self.link.closing.is_some() || self.link.is_held {
            return false;
        }
        let subscriber = self.subscriber();
        (self.services.hub).subscribe(channel, &subscriber, subscription)
    }

    fn subscriber(&self) -> Subscriber {
        // Shared frames are compressed with the largest window; who asked for less gets them plain.
        let largest = DeflateParameters::default().window_bits();
        let deflate = self
            .link
            .deflate
            .is_some_and(|deflate| deflate.window_bits() == largest);
        Subscriber {
            id: self.identity.id,
            deflate,
            user: self.bearer().map(|bearer| bearer.user().clone()),
        }
    }

    /// Ends a subscription; false if there was none. Nothing of the channel is written to this
    /// connection any more, but for a frame that has begun to leave (G8).
    pub fn leave(&mut self, channel: &Channel) -> bool {
        let services = &mut *self.services;
        let Some(tag) = services.hub.leave(channel, self.identity.id) else {
            return false;
        };
        if let Some(outbox) = self.outbox
            && tag != Label::OWN.tag
        {
            let limits = &services.policy.outbox;
            services.counters.outbox_taken_back += outbox.take_back(tag, None, limits);
            if outbox.is_empty() {
                *self.outbox = None;
            }
        }
        true
    }

    /// Asks the hub for something; [`Handler::answered`] gets the answer, if the connection is open then.
    pub fn ask(&mut self, command: Command) -> Ticket {
        let reply_to = ReplyTo::Session(self.identity.id);
        self.services.ask(command, reply_to)
    }

    /// Publishes a message to all subscribers of a channel, on all reactors, this connection included
    /// if it is one. It reaches them after the callback has returned; all subscribers see the
    /// publications of a channel in one order. Costs one copy of the payload, however many there are.
    pub fn publish<'m>(&mut self, channel: &Channel, message: impl Into<Message<'m>>) {
        self.services.publish(channel, &message.into());
    }

    /// The same, with wishes: not to be kept, or not to come back to this connection.
    pub fn publish_with<'m>(
        &mut self,
        channel: &Channel,
        message: impl Into<Message<'m>>,
        options: PublishOptions,
    ) {
        (self.services).publish_with(channel, &message.into(), options);
    }

    /// Publishes a message to all subscribers but this connection; else as [`Self::publish`].
    pub fn publish_to_others<'m>(&mut self, channel: &Channel, message: impl Into<Message<'m>>) {
        let options = PublishOptions {
            exclude: Some(self.identity.id),
            ..PublishOptions::default()
        };
        self.publish_with(channel, message, options);
    }

    /// Counts a message of this peer as one that the handler has no use for.
    pub const fn count_ignored(&mut self) {
        self.services.counters.messages_ignored += 1;
    }

    /// Calls [`Handler::timer`] once, `after` from now (the resolution is [`timer::TICK`]). A second
    /// call replaces the first.
    pub fn set_timer(&mut self, after: Duration) {
        self.link.timer = self
            .services
            .now
            .saturating_add(timer::ticks(after))
            .min(timer::LATEST);
    }

    /// Forgets the timer.
    pub const fn clear_timer(&mut self) {
        self.link.timer = 0;
    }

    /// Keeps a value with the connection, in place of the one kept before.
    pub fn set_data<T: 'static>(&mut self, data: T) {
        self.link.data = Some(Box::new(data));
    }

    /// The value kept with the connection, if it is of this type.
    pub fn data<T: 'static>(&mut self) -> Option<&mut T> {
        self.link.data.as_mut()?.downcast_mut()
    }

    pub(super) fn drop_data(&mut self) {
        self.link.data = None;
    }

    pub(super) fn close_for(&mut self, reason: CloseReason, frame: Option<(CloseCode, &str)>) {
        if self.link.closing.is_some() {
            return;
        }
        self.link.closing = Some(Box::new(reason));
        let services = &mut *self.services;
        match self.outbox {
            Some(outbox) => {
                let mut bytes = Vec::new();
                encoder::encode_close(&mut bytes, frame);
                outbox.push_always(&[&bytes], true);
            }
            None => (services.output).with_vec(|out| encoder::encode_close(out, frame)),
        }
    }

    /// Does what the policy says of a frame that does not fit; counting it is the caller's part.
    pub(super) fn overflow(&mut self) -> Pushed {
        if self.services.policy.outbox.at_limit == AtLimit::Close {
            self.close_as_too_slow();
        }
        Pushed::Full
    }

    /// Ends a connection that takes too little of what it is sent. What waits is dropped.
    pub(super) fn close_as_too_slow(&mut self) {
        if let Some(outbox) = self.outbox {
            outbox.abandon_frames();
        }
        self.close_for(
            CloseReason::OutboxFull,
            Some((CloseCode::Policy, "too slow")),
        );
    }
}

/// Writes a large message from where it lies, behind what is in the output. What the socket refuses is
/// copied and waits.
fn write_straight(
    message: &Message<'_>,
    sink: &mut dyn Sink,
    outbox: &mut Option<Box<Outbox>>,
    services: &mut Services,
) -> Pushed {
    let limits = &services.policy.outbox;
    let head = encoder::encode_header(message.kind(), false, message.len());
    let head = head.as_bytes();
    if services.output.len() + head.len() + message.len() > limits.bytes_max {
        return Pushed::Full;
    }
    sink.write(
        &mut services.output,
        head,
        message.as_bytes(),
        outbox,
        services.now,
    );
    let waiting = outbox.as_ref().map_or(0, |waiting| waiting.bytes());
    limits.pressure(waiting)
}
