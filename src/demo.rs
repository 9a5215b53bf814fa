//! The two demonstration handlers, written against the public library API, and the routes that have
//! them: those of the development profile, and those of a configuration.

use std::sync::Arc;

use crate::admission::Route;
use crate::config::{Config, RouteKind};
use crate::conn::{Handler, HandlerFactory, Peer};
use crate::hub::{Channel, ChannelError};
use crate::server::Routes;
use crate::ws::{Limits, Message};

/// The routes `/echo` and `/broadcast`, open to everyone, with these limits on messages.
///
/// # Errors
/// None: the name of the channel is a valid one.
pub fn routes(limits: &Limits, compression: bool) -> Result<Routes, ChannelError> {
    let route = |path: &str| Route {
        compression,
        limits: limits.clone(),
        ..Route::open(path)
    };
    let channel = Channel::new("broadcast")?;
    Ok(vec![
        (route("/echo"), Arc::new(|_| Echo)),
        (
            route("/broadcast"),
            Arc::new(move |_| Broadcast::new(channel.clone())),
        ),
    ])
}

/// The routes that a configuration writes out.
///
/// # Errors
/// None: the names of the channels are valid ones.
pub fn configured(config: &Config) -> Result<Routes, ChannelError> {
    let routes = config.routes.iter().enumerate();
    routes
        .map(|(number, route)| {
            let handler: Arc<dyn HandlerFactory> = match route.kind {
                RouteKind::Echo => Arc::new(|_| Echo),
                RouteKind::Broadcast => {
                    let channel = Channel::new(&format!("route_{number}"))?;
                    Arc::new(move |_| Broadcast::new(channel.clone()))
                }
            };
            Ok((route.to_route(config), handler))
        })
        .collect()
}

/// Sends every message back to its sender.
#[derive(Debug, Default)]
pub struct Echo;

impl Handler for Echo {
    fn message(&mut self, peer: &mut Peer<'_>, message: Message<'_>) {
        peer.send(message);
    }
}

/// Sends every message to all clients of the route, the sender included.
#[derive(Debug)]
pub struct Broadcast {
    channel: Channel,
}

impl Broadcast {
    /// A broadcast to everybody who has joined this channel.
    #[must_use]
    pub const fn new(channel: Channel) -> Self {
        Self { channel }
    }
}

impl Handler for Broadcast {
    fn open(&mut self, peer: &mut Peer<'_>) {
        peer.join(&self.channel);
    }

    fn message(&mut self, peer: &mut Peer<'_>, message: Message<'_>) {
        peer.publish(&self.channel, message);
    }
}
