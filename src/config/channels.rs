//! The keys of a `[[route]]` of kind `channels`: what a connection joins, what it is sent first, and what
//! of what it says reaches others.

use crate::admission::TokenDemand;
use crate::admission::claim::ClaimPath;
use crate::routes::channels::ChannelTemplate;
use crate::routes::handler::Unmatched;
use crate::routes::pattern::{self, Pattern};
use crate::routes::relay;
use crate::routes::stamp::Stamp;

use super::route::{RouteConfig, RouteKind, RouteRule};
use super::rules::Rules;
use super::sections::choose;
use super::setting::{Choice, Setting, Slot, Table, TableList};
use super::text::{Entry, Form, NAME};

/// What a `[[route]]` of kind `channels` does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelsConfig {
    /// What a connection joins. Default none.
    pub channels: Vec<ChannelTemplate>,
    /// JSON that is sent first. Default none.
    pub open_message: Option<String>,
    /// Publications of each channel that are sent on opening, the oldest first: the newest so many, of
    /// channels that keep a history. 0..=1,000, default 0.
    pub open_history: u32,
    /// Whether the other members hear who comes and goes. Default no.
    pub announce: bool,
    /// What an announcement says beside its type.
    pub announce_fields: Vec<Stamp>,
    /// What happens to a message that no relay takes. Default: nothing.
    pub unmatched: Unmatched,
    /// Which messages reach other members. Default none.
    pub relays: Vec<RelayConfig>,
}

/// A `[[route.relay]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayConfig {
    /// Which messages.
    pub when: RouteRule,
    /// To which channels; none: to the route's one.
    pub to: Vec<ChannelTemplate>,
    /// Fields that get another name.
    pub rename: Vec<Rename>,
    /// Fields that the server writes.
    pub stamp: Vec<Stamp>,
    /// The field that the client's own ones are put into.
    pub wrap: Option<String>,
    /// Whether the sender gets it too.
    pub echo: bool,
}

/// A field's name, and the one it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rename {
    /// As the client calls it.
    pub from: Box<str>,
    /// As the members get it.
    pub to: Box<str>,
}

impl Default for ChannelsConfig {
    fn default() -> Self {
        let stamps = [("user", "{user?}"), ("timestamp", "{time}")];
        let stamps = stamps
            .into_iter()
            .flat_map(|(name, value)| Stamp::new(name, value));
        Self {
            channels: Vec::new(),
            open_message: None,
            open_history: 0,
            announce: false,
            announce_fields: stamps.collect(),
            unmatched: Unmatched::default(),
            relays: Vec::new(),
        }
    }
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            when: RouteRule::any(),
            to: Vec::new(),
            rename: Vec::new(),
            stamp: Vec::new(),
            wrap: None,
            echo: false,
        }
    }
}

impl ChannelsConfig {
    pub(super) fn settings(&mut self) -> Vec<Setting<'_>> {
        vec![
            Setting::new(
                "route.channels",
                Slot::List(Box::new(&mut self.channels)),
                "Channels that a connection joins; a hole that cannot be filled refuses it, with ? it leaves the channel out",
            ),
            Setting::new(
                "route.open_message",
                Slot::TextOrNone(&mut self.open_message, &JSON),
                "What a connection is sent first",
            ),
            Setting::new(
                "route.open_history",
                Slot::Count(&mut self.open_history, 0..=1_000),
                "How many of each channel's newest publications a connection is sent next, the oldest first; see channel.history_size",
            ),
            Setting::new(
                "route.announce",
                Slot::Switch(&mut self.announce),
                "Tell the other members who comes and goes: types user_joined and user_left",
            ),
            Setting::new(
                "route.announce_fields",
                Slot::List(Box::new(&mut self.announce_fields)),
                "What an announcement says beside its type",
            ),
            Setting::new(
                "route.unmatched",
                Slot::Choice(&mut self.unmatched),
                "What happens to a message that no relay takes: nothing, the connection is closed with 1008, or on_message hears of it",
            ),
            Setting::new(
                "route.relay",
                Slot::Tables(Box::new(TableList {
                    list: &mut self.relays,
                    base: RelayConfig::default(),
                })),
                "Which of a client's messages reach other members, each with the keys below; the first that fits counts",
            ),
        ]
    }

    /// The templates of channels: those joined, and those published to.
    pub(crate) fn templates(&self) -> impl Iterator<Item = &ChannelTemplate> {
        let published = self.relays.iter().flat_map(|relay| &relay.to);
        self.channels.iter().chain(published)
    }

    /// Everything that has holes.
    fn patterns(&self) -> impl Iterator<Item = &Pattern> {
        let templates = self.templates().map(ChannelTemplate::pattern);
        let stamps = self.relays.iter().flat_map(|relay| &relay.stamp);
        let stamps = stamps.chain(&self.announce_fields).map(Stamp::value);
        templates.chain(stamps)
    }

    /// The claims to keep of a token.
    pub(super) fn claims(&self) -> Vec<ClaimPath> {
        let in_rules = self.relays.iter().flat_map(|relay| {
            let paths = relay.when.rule().claims();
            paths.into_iter().filter_map(relay::claim_of)
        });
        let in_patterns = self.patterns().flat_map(Pattern::claims).cloned();
        in_rules.chain(in_patterns).collect()
    }

    /// The path's captures that are asked for.
    fn captures(&self) -> Vec<&str> {
        let in_rules = self.relays.iter();
        let in_rules = in_rules.flat_map(|relay| relay.when.rule().parameters());
        let in_patterns = self.patterns().flat_map(Pattern::captures);
        in_rules.chain(in_patterns).collect()
    }
}

impl Table for RelayConfig {
    fn settings(&mut self) -> Vec<Setting<'_>> {
        vec![
            Setting::new(
                "route.relay.when",
                Slot::Rule(&mut self.when),
                "What a message, a JSON object, must say: names are its fields, behind claims. those of the sender's token",
            )
            .required("when = \"action in ['cursor_update']\""),
            Setting::new(
                "route.relay.to",
                Slot::List(Box::new(&mut self.to)),
                "Channels it is published to; none: the route's, if it has one",
            ),
            Setting::new(
                "route.relay.rename",
                Slot::List(Box::new(&mut self.rename)),
                "Fields that get another name",
            ),
            Setting::new(
                "route.relay.stamp",
                Slot::List(Box::new(&mut self.stamp)),
                "Fields that the server writes, whatever the client wrote there",
            ),
            Setting::new(
                "route.relay.wrap",
                Slot::TextOrNone(&mut self.wrap, &NAME),
                "A field to put the client's own fields into; none: they stand beside the server's",
            ),
            Setting::new(
                "route.relay.echo",
                Slot::Switch(&mut self.echo),
                "Whether the sender gets it too, if it is a member",
            ),
        ]
    }
}

impl Choice for Unmatched {
    fn names(&self) -> &'static [&'static str] {
        &["ignore", "close", "hook"]
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Ignore => "ignore",
            Self::Close => "close",
            Self::Hook => "hook",
        }
    }

    fn set(&mut self, name: &str) -> bool {
        choose(self, name, &[Self::Ignore, Self::Close, Self::Hook])
    }
}

/// Longest `open_message` in bytes.
const OPEN_MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// What a client is sent: a JSON text.
const JSON: Form = Form {
    accepted: "JSON of up to 16 KiB",
    fault: |text| {
        if text.len() > OPEN_MESSAGE_BYTES_MAX {
            Some("this is longer than 16 KiB")
        } else {
            let parsed: Result<serde::de::IgnoredAny, _> = serde_json::from_str(text);
            parsed.is_err().then_some("this is not JSON")
        }
    },
};

impl Entry for ChannelTemplate {
    fn accepted() -> String {
        "names like \"notifications_{user}\", \"role_{claims.role?}\" or \"room_{room}\"".to_owned()
    }

    fn write(&self) -> String {
        self.as_str().to_owned()
    }

    fn read(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|error| error.to_string())
    }
}

impl Entry for Rename {
    fn accepted() -> String {
        "\"OLD=NEW\", such as \"action=type\"".to_owned()
    }

    fn write(&self) -> String {
        format!("{}={}", self.from, self.to)
    }

    fn read(text: &str) -> Result<Self, String> {
        let pair = text.split_once('=').and_then(|(from, to)| {
            let are_names = [from, to].iter().all(|name| (NAME.fault)(name).is_none());
            are_names.then(|| Self {
                from: from.into(),
                to: to.into(),
            })
        });
        pair.ok_or_else(|| "write the old name, =, and the new one".to_owned())
    }
}

impl Entry for Stamp {
    fn accepted() -> String {
        "\"FIELD=VALUE\", the value with {user}, {claims.NAME}, {time}, {connection} or a capture"
            .to_owned()
    }

    fn write(&self) -> String {
        format!("{}={}", self.name(), self.value().as_str())
    }

    fn read(text: &str) -> Result<Self, String> {
        let (name, value) = text
            .split_once('=')
            .filter(|(name, _)| (NAME.fault)(name).is_none())
            .ok_or("write the field's name, =, and its value")?;
        Self::new(name, value).map_err(|error| error.to_string())
    }
}

/// What the keys of channels have to do with the rest of their route.
pub(super) fn channels_fit_their_route(rules: &mut Rules<'_>) {
    for (index, route) in rules.config.routes.clone().iter().enumerate() {
        for (name, why) in faults(route) {
            rules.refuse_field("route", index, name, why);
        }
    }
}

fn faults(route: &RouteConfig) -> Vec<(&'static str, String)> {
    let channels = &route.channels;
    if route.kind != RouteKind::Channels {
        if *channels == ChannelsConfig::default() {
            return Vec::new();
        }
        let why = "channels, relays and announcements are for kind = \"channels\"; write that, or \
                   leave them out";
        return vec![("kind", why.to_owned())];
    }
    let mut faults = Vec::new();
    let hidden = |name: &&str| pattern::RESERVED.contains(name);
    if let Some(name) = route.path.names().find(hidden) {
        let why = format!(
            "{{{name}}} in a channel's name is what the server knows, not what stands in the path; call \
             the capture something else"
        );
        faults.push(("path", why));
    }
    let is_captured = |name: &&str| route.path.names().any(|own| own == *name);
    if let Some(name) = channels.captures().into_iter().find(|n| !is_captured(n)) {
        let why = format!("{{{name}}} is not in the path {}", route.path);
        faults.push(("channels", why));
    }
    let asks_for_token = |template: &ChannelTemplate| template.pattern().asks_for_token();
    if route.token == TokenDemand::None && channels.templates().any(asks_for_token) {
        let why =
            "without a token nobody is known; write token = \"required\", or a ? behind the name";
        faults.push(("channels", why.to_owned()));
    }
    let is_lost = |relay: &RelayConfig| relay.to.is_empty() && channels.channels.len() != 1;
    if channels.relays.iter().any(is_lost) {
        let why =
            "the route has not one channel, so the relay has to say which: write to = [\"…\"]";
        faults.push(("relay", why.to_owned()));
    }
    let is_late = |field: &Stamp| {
        let value = field.value();
        let is_kept = value.claims().next().is_some() || value.captures().next().is_some();
        value.asks_for_time() && is_kept
    };
    if let Some(field) = channels.announce_fields.iter().find(|field| is_late(field)) {
        let why = format!(
            "beside {{time}} only {{user}} and {{connection}} are known; write a field of its own for what \
             else is in {}",
            field.name()
        );
        faults.push(("announce_fields", why));
    }
    if channels.announce && channels.channels.is_empty() {
        let why = "there is no channel to announce in; write channels, or leave this out";
        faults.push(("announce", why.to_owned()));
    }
    faults
}

#[cfg(test)]
mod tests;
