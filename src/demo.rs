//! The two demonstration handlers, written against the public library API, and the routes that have
//! them in the development profile.

use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::admission::Route;
use crate::conn::{Handler, Page, Peer};
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

/// The page of the development profile: notifications and a collaboration room, as
/// `examples/notifications.toml` serves them. It runs nothing but its own script and speaks to nobody but
/// the server it came from.
#[must_use]
pub fn page() -> Page {
    let hash = |tag: &str| {
        let (begin, end) = (format!("<{tag}>"), format!("</{tag}>"));
        let inner = PAGE
            .split_once(&begin)
            .and_then(|(_, rest)| rest.split_once(&end));
        let inner = inner.map_or("", |(inner, _)| inner);
        STANDARD.encode(digest::digest(&digest::SHA256, inner.as_bytes()))
    };
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash("script"),
        hash("style"),
    );
    Page::html(PAGE.as_bytes(), &policy)
}

const PAGE: &str = include_str!("demo/page.html");

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
