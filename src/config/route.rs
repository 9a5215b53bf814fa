//! `[[route]]`: a path, who may connect to it, and what it does.

use std::time::Duration;

use crate::admission::limits::WhenFull;
use crate::admission::origin::OriginPolicy;
use crate::admission::rule::Rule;
use crate::admission::{Rejection, Route, TokenDemand};
use crate::http::template::Template;
use crate::ws;

use super::channels::ChannelsConfig;
use super::hooks::RouteHooksConfig;
use super::limits::{CONNECTIONS_MAX, TrafficConfig, traffic_settings};
use super::sections::choose;
use super::setting::{Choice, Setting, Slot, Table};
use super::text::{HTTP_TOKEN, Texts};
use super::units::MIB;
use super::{Config, Profile};

/// A `[[route]]`, with everything resolved: what is not written there is as in the sections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteConfig {
    /// The paths it is for.
    pub path: Template,
    /// What it does with messages.
    pub kind: RouteKind,
    /// What it does, if its kind is `channels`.
    pub channels: ChannelsConfig,
    /// Subprotocols it speaks, the preferred first.
    pub subprotocols: Vec<String>,
    /// Whether a token is needed.
    pub token: TokenDemand,
    /// What the token's claims have to say.
    pub rule: RouteRule,
    /// Which pages may have their visitors connect.
    pub origins: OriginPolicy,
    /// Most connections of one user; `None`: any number.
    pub user_connections_max: Option<u32>,
    /// What happens to one more.
    pub user_at_limit: WhenFull,
    /// How somebody is told who is refused.
    pub reject: Rejection,
    /// Whether permessage-deflate is agreed to when a client offers it.
    pub compression: bool,
    /// Longest message, all its fragments together and after inflating, in bytes.
    pub message_bytes_max: usize,
    /// What an open connection may send.
    pub traffic: TrafficConfig,
    /// Whether a client may send a fresh token before the old one ends its connection.
    pub token_refresh: bool,
    /// How long after its token's end a connection lives on, if it may be sent a fresh one.
    pub token_grace: Duration,
    /// Which of its events a backend hears of.
    pub hooks: RouteHooksConfig,
}

/// What a route does with messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteKind {
    /// Sends each message back to whom it came from.
    Echo,
    /// Sends each message to everybody on the route, its sender too.
    Broadcast,
    /// Joins channels, and relays what it is told to.
    Channels,
}

/// A rule with the text it was written in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteRule {
    text: String,
    rule: Rule,
}

impl RouteRule {
    /// Reads a rule.
    ///
    /// # Errors
    /// As [`Rule::parse`].
    pub fn parse(text: &str) -> Result<Self, crate::admission::rule::RuleError> {
        Ok(Self {
            text: text.to_owned(),
            rule: Rule::parse(text)?,
        })
    }

    /// The rule that lets in whoever has a valid token.
    #[must_use]
    pub fn any() -> Self {
        Self {
            text: "any".to_owned(),
            rule: Rule::any(),
        }
    }

    /// The rule.
    #[must_use]
    pub const fn rule(&self) -> &Rule {
        &self.rule
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl RouteConfig {
    /// What a route is where nothing is written: as the sections of `config` say.
    pub(super) fn inheriting(config: &Config) -> Self {
        let is_judged = config.profile == Profile::Development || config.has_keys();
        Self {
            // It has to be written; nobody meets this one.
            path: Route::open("/").path,
            kind: RouteKind::Echo,
            channels: ChannelsConfig::default(),
            subprotocols: Vec::new(),
            token: match (config.token.required, is_judged) {
                (true, _) => TokenDemand::Required,
                (false, true) => TokenDemand::Optional,
                // Without a key, no token could be a good one.
                (false, false) => TokenDemand::None,
            },
            rule: RouteRule::any(),
            origins: config.origin.clone(),
            user_connections_max: config.limits.user_connections_max,
            user_at_limit: config.limits.user_at_limit,
            reject: Rejection::Http,
            compression: config.websocket.compression,
            message_bytes_max: config.websocket.message_bytes_max,
            traffic: config.limits.traffic,
            token_refresh: false,
            token_grace: Duration::from_secs(30),
            hooks: RouteHooksConfig::default(),
        }
    }

    /// The route as admission knows it. `config` is the one it stands in: what is in dry run, and what
    /// limits messages on all routes, is said there.
    #[must_use]
    pub fn to_route(&self, config: &Config) -> Route {
        let limits = &config.limits;
        Route {
            subprotocols: self.subprotocols.clone(),
            compression: self.compression,
            limits: ws::Limits {
                message_bytes_max: self.message_bytes_max,
                fragments_max: config.websocket.fragments_max,
                inflate_ratio_max: config.websocket.inflate_ratio_max,
            },
            origins: Some(self.origins.clone()),
            token: self.token,
            rule: self.rule.rule.clone(),
            rejection: self.reject,
            traffic: limits.traffic_of(&self.traffic),
            traffic_at_limit: self.traffic.at_limit,
            user_connections: limits.user_cap(self.user_connections_max),
            user_at_limit: self.user_at_limit,
            renewal: self.token_refresh.then_some(self.token_grace),
            ..Route::at(self.path.clone())
        }
    }
}

impl Table for RouteConfig {
    fn settings(&mut self) -> Vec<Setting<'_>> {
        let mut settings = vec![
            Setting::new(
                "route.path",
                Slot::Template(&mut self.path),
                "The path, with captures: {name}, {name:int} or {name:uuid} for a whole segment",
            )
            .required("path = \"/ws/notifications/\""),
            Setting::new(
                "route.kind",
                Slot::Choice(&mut self.kind),
                "What it does: joins channels as the keys below say, or sends each message back, or to everybody on the route",
            )
            .required("kind = \"channels\", \"echo\" or \"broadcast\""),
            Setting::new(
                "route.subprotocols",
                Slot::List(Box::new(Texts(&mut self.subprotocols, &HTTP_TOKEN))),
                "Subprotocols it speaks, the preferred first",
            ),
            Setting::new(
                "route.token",
                Slot::Choice(&mut self.token),
                "Whether a token is needed; optional: none is needed, but one that is sent must be good",
            )
            .default_in_words("`\"required\"`; if `token.required` is false `\"optional\"`, or `\"none\"` in production without keys"),
            Setting::new(
                "route.rule",
                Slot::Rule(&mut self.rule),
                "What the token's claims must say, such as role in ['Admin'] or projects contains {project_id}",
            ),
            Setting::new(
                "route.origins",
                Slot::List(Box::new(&mut self.origins.allowed)),
                "Pages whose visitors may connect",
            )
            .inherits("origin.allowed"),
            Setting::new(
                "route.allow_null_origin",
                Slot::Switch(&mut self.origins.allow_null),
                "Let in Origin: null",
            )
            .inherits("origin.allow_null"),
            Setting::new(
                "route.allow_absent_origin",
                Slot::Switch(&mut self.origins.allow_absent),
                "Let in requests without an Origin",
            )
            .inherits("origin.allow_absent"),
            Setting::new(
                "route.allow_loopback_origin",
                Slot::Switch(&mut self.origins.allow_loopback),
                "Let in pages from the visitor's own machine",
            )
            .inherits("origin.allow_loopback"),
            Setting::new(
                "route.user_connections_max",
                Slot::CountOrOff(&mut self.user_connections_max, 1..=CONNECTIONS_MAX),
                "Most connections of one user, on all routes together, for one more on this route",
            )
            .inherits("limits.user_connections_max"),
            Setting::new(
                "route.user_at_limit",
                Slot::Choice(&mut self.user_at_limit),
                "One more is refused, or the user's oldest connection gives way",
            )
            .inherits("limits.user_at_limit"),
            Setting::new(
                "route.reject",
                Slot::Choice(&mut self.reject),
                "Refuse with an HTTP status, or complete the upgrade and close with 4000 + the status, which browsers can read",
            ),
            Setting::new(
                "route.compression",
                Slot::Switch(&mut self.compression),
                "Agree to permessage-deflate when a client offers it",
            )
            .inherits("websocket.compression"),
            Setting::new(
                "route.message_bytes_max",
                Slot::Size(&mut self.message_bytes_max, 1..=256 * MIB),
                "Longest message; a longer one closes with 1009",
            )
            .inherits("websocket.message_bytes_max"),
        ];
        let inherited = [
            "limits.messages_per_second",
            "limits.messages_per_minute",
            "limits.bytes_per_second",
            "limits.bytes_per_minute",
            "limits.control_frames_per_second",
            "limits.traffic_at_limit",
        ];
        let traffic = traffic_settings!("route", &mut self.traffic);
        settings.extend(
            traffic
                .into_iter()
                .zip(inherited)
                .map(|(setting, key)| setting.inherits(key)),
        );
        settings.extend([
            Setting::new(
                "route.token_refresh",
                Slot::Switch(&mut self.token_refresh),
                "Whether a client may send a fresh token before the old one ends its connection",
            ),
            Setting::new(
                "route.token_grace",
                Slot::Time(
                    &mut self.token_grace,
                    Duration::ZERO..=Duration::from_secs(3_600),
                ),
                "With token_refresh, how long after its token's end a connection lives on",
            ),
        ]);
        settings.extend(self.channels.settings());
        settings.extend(self.hooks.settings());
        settings
    }
}

impl Choice for RouteKind {
    fn names(&self) -> &'static [&'static str] {
        &["channels", "echo", "broadcast"]
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Broadcast => "broadcast",
            Self::Channels => "channels",
        }
    }

    fn set(&mut self, name: &str) -> bool {
        choose(self, name, &[Self::Channels, Self::Echo, Self::Broadcast])
    }
}

impl Choice for TokenDemand {
    fn names(&self) -> &'static [&'static str] {
        &["required", "optional", "none"]
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Optional => "optional",
            Self::None => "none",
        }
    }

    fn set(&mut self, name: &str) -> bool {
        choose(self, name, &[Self::Required, Self::Optional, Self::None])
    }
}

impl Choice for Rejection {
    fn names(&self) -> &'static [&'static str] {
        &["http", "close-code"]
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::CloseCode => "close-code",
        }
    }

    fn set(&mut self, name: &str) -> bool {
        choose(self, name, &[Self::Http, Self::CloseCode])
    }
}
