//! The route kind `channels`: what a connection joins, what it is sent first, and what of what it says
//! reaches others. That it came and went is announced by the hub.

use std::sync::Arc;

use crate::admission::claim::{ClaimPath, ClaimValue};
use crate::conn::{Handler, Peer};
use crate::hooks::RouteHooks;
use crate::hub::{Channel, Replay, Subscription};
use crate::metrics::calendar;
use crate::ws::{CloseCode, Message};

use super::announce::Announced;
use super::channels::{ChannelTemplates, Channels, Unresolved};
use super::pattern::Facts;
use super::relay::{Fields, Relays};
use super::stamp::Scene;

/// What a route of kind `channels` does: one value for all reactors.
#[derive(Clone, Debug)]
pub struct ChannelsRoute {
    /// What a connection joins.
    pub channels: ChannelTemplates,
    /// What it is sent first: a text.
    pub open_message: Option<Box<str>>,
    /// How many of each channel's newest publications it is sent next.
    pub open_history: usize,
    /// What the other members are told when it comes and goes; `None`: nothing.
    pub announce: Option<Announced>,
    /// What of its messages reaches others.
    pub relays: Relays,
    /// Where each relay publishes to; none: to the channels that the connection joins.
    pub to: Box<[ChannelTemplates]>,
    /// What happens to other messages.
    pub unmatched: Unmatched,
    /// Whether a fresh token may change where a connection belongs, so that it has to know where it did.
    pub follows_token: bool,
    /// Who hears of them, with [`Unmatched::Hook`].
    pub hooks: Option<RouteHooks>,
}

/// What happens to a message that no relay takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unmatched {
    /// Nothing; it is counted.
    #[default]
    Ignore,
    /// The connection is closed with 1008.
    Close,
    /// The backend hears of it.
    Hook,
}

/// The close code of a connection whose route has no channel for it.
pub const NO_CHANNEL: u16 = 4403;

/// One reactor's handler of such a route.
#[derive(Debug)]
pub struct ChannelsHandler {
    route: Arc<ChannelsRoute>,
    /// Where relayed messages are put together.
    scratch: Vec<u8>,
    /// The last moment that was written out: at most one is in a second.
    clock: (u64, String),
}

/// What a connection keeps, on a route that relays, or follows fresh tokens. Where it only listens, it
/// keeps nothing.
#[derive(Debug)]
struct Kept {
    channels: Channels,
    /// For each relay, where it publishes to.
    to: Box<[Channels]>,
}

/// What is known of a peer.
struct Known<'k, 'p>(&'k Peer<'p>);

impl Facts for Known<'_, '_> {
    fn user(&self) -> Option<&str> {
        self.0.user()
    }

    fn claim(&self, path: &ClaimPath) -> Option<&ClaimValue> {
        self.0.bearer()?.claims().get(path)
    }

    fn capture(&self, name: &str) -> Option<&str> {
        self.0.parameter(name)
    }
}

impl ChannelsHandler {
    /// A handler of this route.
    #[must_use]
    pub fn new(route: Arc<ChannelsRoute>) -> Self {
        Self {
            route,
            scratch: Vec::new(),
            clock: (0, calendar::timestamp(0)),
        }
    }

    /// Where a connection belongs, by what is known of it now.
    fn places(&self, peer: &Peer<'_>) -> Result<Kept, Unresolved> {
        let known = Known(peer);
        let channels = self.route.channels.of(&known)?;
        let to = self.route.to.iter().map(|to| {
            if to.is_empty() {
                Ok(channels.clone())
            } else {
                to.of(&known)
            }
        });
        let to = to.collect::<Result<_, _>>()?;
        Ok(Kept { channels, to })
    }

    fn tell_time(&mut self, wall: u64) {
        if self.clock.0 != wall {
            self.clock = (wall, calendar::timestamp(wall));
        }
    }

    /// Subscribes a connection, and has the others told of it.
    fn join(&self, peer: &mut Peer<'_>, channels: &[Channel]) {
        let announced = self.route.announce.as_ref();
        let scene = Scene {
            facts: &Known(peer),
            connection: peer.id(),
            time: "",
        };
        let subscription = Subscription {
            replay: Replay::Last(self.route.open_history),
            info: announced.map(|announced| announced.info(scene)),
            announcer: announced.map(Announced::announcer),
            tells_itself: false,
        };
        for channel in channels {
            if self.route.open_history > 0 {
                peer.subscribe(channel, subscription.clone());
            } else {
                peer.join_with(channel, subscription.clone());
            }
        }
    }

    /// Publishes a message if a relay takes it.
    fn relay(&mut self, peer: &mut Peer<'_>, message: &Message<'_>) -> bool {
        let Message::Text(text) = message else {
            return false;
        };
        if self.route.relays.list().is_empty() {
            return false;
        }
        let Some(fields) = Fields::parse(text) else {
            return false;
        };
        self.tell_time(peer.wall());
        let known = Known(peer);
        let Some(chosen) = self.route.relays.choose(&fields, &known) else {
            return false;
        };
        let relay = &self.route.relays.list()[chosen];
        let scene = Scene {
            facts: &known,
            connection: peer.id(),
            time: &self.clock.1,
        };
        self.scratch.clear();
        relay.write(&fields, scene, &mut self.scratch);
        let echo = relay.echo;
        let Ok(text) = std::str::from_utf8(&self.scratch) else {
            return false;
        };
        let to = peer.data::<Kept>().map(|kept| kept.to[chosen].clone());
        let to = to.unwrap_or_default();
        for channel in &to {
            if echo {
                peer.publish(channel, text);
            } else {
                peer.publish_to_others(channel, text);
            }
        }
        !to.is_empty()
    }
}

impl Handler for ChannelsHandler {
    fn open(&mut self, peer: &mut Peer<'_>) {
        let kept = match self.places(peer) {
            Ok(kept) => kept,
            Err(unresolved) => {
                peer.close(CloseCode::from(NO_CHANNEL), &unresolved.to_string());
                return;
            }
        };
        if let Some(text) = &self.route.open_message {
            peer.send(&**text);
        }
        self.join(peer, &kept.channels);
        if !kept.to.is_empty() || self.route.follows_token {
            peer.set_data(kept);
        }
    }

    /// Leaves what the fresh token gives no right to, and joins what it does (G4).
    fn renewed(&mut self, peer: &mut Peer<'_>) {
        if !self.route.follows_token {
            return;
        }
        let kept = match self.places(peer) {
            Ok(kept) => kept,
            Err(unresolved) => {
                peer.close(CloseCode::from(NO_CHANNEL), &unresolved.to_string());
                return;
            }
        };
        let before = peer
            .data::<Kept>()
            .map(|kept| std::mem::take(&mut kept.channels));
        let before = before.unwrap_or_default();
        let only_in = |these: &Channels, those: &Channels| -> Channels {
            let others = these.iter().filter(|channel| !those.contains(channel));
            others.cloned().collect()
        };
        let left = only_in(&before, &kept.channels);
        let joined = only_in(&kept.channels, &before);
        for channel in &left {
            peer.leave(channel);
        }
        self.join(peer, &joined);
        peer.set_data(kept);
    }

    fn message(&mut self, peer: &mut Peer<'_>, message: Message<'_>) {
        if self.relay(peer, &message) {
            return;
        }
        match (self.route.unmatched, &self.route.hooks) {
            (Unmatched::Hook, Some(hooks)) => hooks.message(peer, &message),
            (Unmatched::Close, _) => {
                peer.count_ignored();
                peer.close(CloseCode::Policy, "nobody wants this message");
            }
            (Unmatched::Ignore | Unmatched::Hook, _) => peer.count_ignored(),
        }
    }
}
