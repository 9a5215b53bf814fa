//! The application layer by configuration: which channels a connection joins, what it is sent when it
//! opens, and what of what it says reaches the others.
//!
//! [`pattern`], [`channels`], [`stamp`], [`relay`] and [`announce`] are pure; [`handler`] is the route kind
//! `channels` made of them.

pub mod announce;
pub mod channels;
pub mod handler;
pub mod pattern;
pub mod relay;
pub mod reload;
pub mod stamp;

use std::sync::Arc;

use crate::config::{Config, RouteConfig, RouteKind};
use crate::conn::HandlerFactory;
use crate::demo::{Broadcast, Echo};
use crate::hooks::{Hooked, RouteHooks};
use crate::hub::{Channel, ChannelError, Policies};
use crate::server::Routes;

use announce::Announced;
use channels::{ChannelTemplates, Names};
use handler::{ChannelsHandler, ChannelsRoute};
use relay::{Relay, Relays};

/// The routes that a configuration writes out.
///
/// # Errors
/// None: the names of the channels are valid ones.
pub fn configured(config: &Config) -> Result<Routes, ChannelError> {
    with_hooks(config, &[])
}

/// The same, with the hooks of each `[[route]]`, in their order, around its handlers.
///
/// # Errors
/// As [`configured`].
pub fn with_hooks(config: &Config, hooks: &[Option<RouteHooks>]) -> Result<Routes, ChannelError> {
    let names = names(config);
    let routes = config.routes.iter().enumerate();
    routes
        .map(|(number, route)| {
            let hooks = hooks.get(number).cloned().flatten();
            let handler = handlers(route, number, &names, hooks)?;
            Ok((route.to_route(config), handler))
        })
        .collect()
}

/// Who makes the handlers of the route that has this place among those of its server.
fn handlers(
    route: &RouteConfig,
    place: usize,
    names: &Arc<Names>,
    hooks: Option<RouteHooks>,
) -> Result<Arc<dyn HandlerFactory>, ChannelError> {
    let handler: Arc<dyn HandlerFactory> = match route.kind {
        RouteKind::Echo => Arc::new(|_| Echo),
        RouteKind::Broadcast => {
            let channel = Channel::new(&format!("route_{place}"))?;
            Arc::new(move |_| Broadcast::new(channel.clone()))
        }
        RouteKind::Channels => {
            let route = Arc::new(channels_route(route, names, hooks.clone()));
            Arc::new(move |_| ChannelsHandler::new(Arc::clone(&route)))
        }
    };
    // Of a route with channels, the handler says which messages the backend hears of.
    let hears_messages = route.kind != RouteKind::Channels;
    Ok(match hooks {
        Some(hooks) => hooked(hooks, handler, hears_messages),
        None => handler,
    })
}

/// A factory whose handlers have these hooks around them.
fn hooked(
    hooks: RouteHooks,
    factory: Arc<dyn HandlerFactory>,
    hears_messages: bool,
) -> Arc<dyn HandlerFactory> {
    Arc::new(move |reactor| Hooked::new(factory.make(reactor), hooks.clone(), hears_messages))
}

/// All names of channels of a configuration.
fn names(config: &Config) -> Arc<Names> {
    let templates = (config.routes.iter()).flat_map(|route| route.channels.templates());
    Arc::new(Names::new(templates))
}

/// For each `[[route]]`, the channels that its connections join and that its relays publish to.
pub(crate) fn own_channels(config: &Config) -> Vec<ChannelTemplates> {
    let names = names(config);
    let own = |route: &RouteConfig| {
        let templates = route.channels.templates().cloned().collect();
        ChannelTemplates::new(templates, Arc::clone(&names))
    };
    config.routes.iter().map(own).collect()
}

/// What is promised of which channel: what the configuration says, and announcements where a route has
/// some.
#[must_use]
pub fn policies(config: &Config) -> Policies {
    let mut policies = config.policies();
    let announcing = config.routes.iter().filter(|route| route.channels.announce);
    for template in announcing.flat_map(|route| &route.channels.channels) {
        policies.announce(template.begins_with());
    }
    policies
}

/// What the keys of a route come to, among all the names of its configuration.
fn channels_route(
    route: &RouteConfig,
    names: &Arc<Names>,
    hooks: Option<RouteHooks>,
) -> ChannelsRoute {
    let config = &route.channels;
    let templates = |own: &Vec<_>| ChannelTemplates::new(own.clone(), Arc::clone(names));
    let relays = config.relays.iter().map(|relay| Relay {
        when: relay.when.rule().clone(),
        renames: (relay.rename.iter())
            .map(|rename| (rename.from.clone(), rename.to.clone()))
            .collect(),
        stamps: relay.stamp.clone(),
        wrap: relay.wrap.as_deref().map(Into::into),
        echo: relay.echo,
    });
    let announced = config.announce.then(|| config.announce_fields.clone());
    ChannelsRoute {
        channels: templates(&config.channels),
        open_message: config.open_message.as_deref().map(Into::into),
        open_history: config.open_history as usize,
        announce: announced.map(Announced::new),
        relays: Relays::new(relays.collect()),
        to: config
            .relays
            .iter()
            .map(|relay| templates(&relay.to))
            .collect(),
        unmatched: config.unmatched,
        follows_token: route.token_refresh
            && (config.templates()).any(|one| one.pattern().claims().next().is_some()),
        hooks,
    }
}
