//! Which routes a running server is to serve when its configuration says something else.
//!
//! A connection knows its route by its place, and its handler was made for what the route was. So a
//! route keeps its place while what its handlers are made of stays the same, and its connections obey its
//! new limits at once. Where that has changed, a route with a handler of its own comes behind all others,
//! and the old one is retired: nobody new is let in there, and who is connected keeps what was promised.

use std::fmt;
use std::sync::Arc;

use crate::admission::Route;
use crate::config::{Config, RouteConfig, RouteKind};
use crate::hub::ChannelError;
use crate::server::Routes;

/// The places of a server's routes, and what is at each.
#[derive(Clone, Debug)]
pub struct Places(Vec<Place>);

#[derive(Clone, Debug)]
enum Place {
    /// A `[[route]]`.
    Configured(Box<RouteConfig>),
    /// One of the program's own, by its number among them.
    Own(usize),
    /// Nobody new is let in.
    Retired(Box<Route>),
}

/// What a server has to do for another configuration; see [`Handle::reload`](crate::Handle::reload).
#[expect(missing_debug_implementations, reason = "factories are not printable")]
pub struct Plan {
    /// The places when it is done.
    pub places: Places,
    /// The routes that there are already, each in its place.
    pub routes: Vec<Route>,
    /// Those that come behind them.
    pub added: Routes,
    /// How many of those that there were are served no more, or by one of those that were added.
    pub retired: usize,
}

/// Why a server cannot serve other routes without a restart. `Display` is one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeedsRestart {
    /// A route with hooks is new or another one: their queues are made at the start.
    Hooks,
    /// Other channels than before are to be announced: the hub knows them from the start.
    Announcements,
    /// The routes look at claims that are not kept of tokens.
    Claims,
    /// More routes have come and gone than can be told apart.
    Places,
    /// A channel's name is not one.
    Channel(ChannelError),
}

impl fmt::Display for NeedsRestart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hooks => "a [[route]] with hooks is new or has changed, which needs a restart",
            Self::Announcements => {
                "route.announce is for other channels than before, which needs a restart"
            }
            Self::Claims => {
                "a [[route]] looks at claims that no route looked at before, which needs a restart"
            }
            Self::Places => {
                "more than 65,536 routes have come and gone since the start: a restart is needed"
            }
            Self::Channel(error) => return error.fmt(f),
        })
    }
}

impl std::error::Error for NeedsRestart {}

impl Places {
    /// The routes of a configuration in their order, and behind them so many of the program's own.
    #[must_use]
    pub fn new(config: &Config, own: usize) -> Self {
        let configured = config.routes.iter().cloned().map(Box::new);
        let configured = configured.map(Place::Configured);
        Self(configured.chain((0..own).map(Place::Own)).collect())
    }

    /// What it takes to serve `new` where `old` is served. `own` are the program's own routes as they are to
    /// be.
    ///
    /// # Errors
    /// [`NeedsRestart`]: not all of it can be done, so nothing should be.
    pub fn plan(&self, old: &Config, new: &Config, own: &[Route]) -> Result<Plan, NeedsRestart> {
        if super::policies(old) != super::policies(new) {
            return Err(NeedsRestart::Announcements);
        }
        if !keeps_the_claims_of(old, new) {
            return Err(NeedsRestart::Claims);
        }
        // Whether a value may fill a template depends on all other templates (G2).
        let same_names = names_of(old).eq(names_of(new));
        let goes_on = |route: &RouteConfig| {
            new.routes.iter().find(|other| {
                has_same_handlers(route, other) && (same_names || route.kind != RouteKind::Channels)
            })
        };
        let mut places = Vec::new();
        let mut routes = Vec::new();
        let mut retired = 0;
        for place in &self.0 {
            let (place, route) = match place {
                Place::Configured(route) => match goes_on(route) {
                    Some(other) => (
                        Place::Configured(Box::new(other.clone())),
                        other.to_route(new),
                    ),
                    None if route.hooks.is_any() => return Err(NeedsRestart::Hooks),
                    None => {
                        retired += 1;
                        let route = Route {
                            is_retired: true,
                            ..route.to_route(old)
                        };
                        (Place::Retired(Box::new(route.clone())), route)
                    }
                },
                Place::Own(number) => {
                    let Some(route) = own.get(*number) else {
                        continue;
                    };
                    (Place::Own(*number), route.clone())
                }
                Place::Retired(route) => (place.clone(), (**route).clone()),
            };
            places.push(place);
            routes.push(route);
        }
        let mut added = Vec::new();
        let names = super::names(new);
        for route in &new.routes {
            let is_served = places
                .iter()
                .any(|place| matches!(place, Place::Configured(other) if other.path == route.path));
            if is_served {
                continue;
            }
            if route.hooks.is_any() {
                return Err(NeedsRestart::Hooks);
            }
            let place = routes.len() + added.len();
            let handler = super::handlers(route, place, &Arc::clone(&names), None)
                .map_err(NeedsRestart::Channel)?;
            added.push((route.to_route(new), handler));
            places.push(Place::Configured(Box::new(route.clone())));
        }
        if places.len() > usize::from(u16::MAX) + 1 {
            return Err(NeedsRestart::Places);
        }
        Ok(Plan {
            places: Self(places),
            routes,
            added,
            retired,
        })
    }
}

/// Whether the handlers of one would do for the other.
fn has_same_handlers(one: &RouteConfig, other: &RouteConfig) -> bool {
    // Written out, so that who adds a key has to say here whether handlers are made of it.
    let RouteConfig {
        path,
        kind,
        channels,
        token_refresh,
        hooks,
        subprotocols: _,
        token: _,
        rule: _,
        origins: _,
        user_connections_max: _,
        user_at_limit: _,
        reject: _,
        compression: _,
        message_bytes_max: _,
        traffic: _,
        token_grace: _,
    } = one;
    *path == other.path
        && *kind == other.kind
        && *channels == other.channels
        && *token_refresh == other.token_refresh
        && *hooks == other.hooks
}

/// The templates of all channels.
fn names_of(config: &Config) -> impl Iterator<Item = &str> {
    let templates = (config.routes.iter()).flat_map(|route| route.channels.templates());
    templates.map(|template| template.as_str())
}

/// Whether all claims that `new` looks at are kept of tokens since `old`.
fn keeps_the_claims_of(old: &Config, new: &Config) -> bool {
    let (kept, wanted) = (old.issuers(), new.issuers());
    kept.len() == wanted.len()
        && (kept.iter().zip(&wanted)).all(|(kept, wanted)| {
            let mut claims = wanted.policy.kept.iter();
            claims.all(|claim| kept.policy.kept.contains(claim))
        })
}
