//! `[hub]` and `[[channel]]`: how much channels may keep, and what is promised of which.

use std::time::Duration;

use crate::hub::memory;
use crate::hub::policy::{HISTORY_SIZE_MAX, HISTORY_TTL_MAX};
use crate::hub::{self, ChannelPolicy, Policies, Slow};

use super::sections::choose;
use super::setting::{Choice, Setting, Slot, Table};
use super::text::{CHANNEL, CHANNEL_PREFIX};
use super::units::{KIB, MIB};

/// `[hub]`: limits on what all channels together may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubConfig {
    /// Channels that one connection can subscribe to.
    pub subscriptions_max: usize,
    /// Channels with a history.
    pub histories_max: usize,
    /// Longest history of one channel, in bytes.
    pub history_bytes_max: usize,
    /// All histories together, in bytes.
    pub histories_bytes_max: usize,
    /// Members that one channel counts.
    pub presence_max: usize,
}

impl Default for HubConfig {
    fn default() -> Self {
        let memory::Limits {
            histories_max,
            history_bytes_max,
            histories_bytes_max,
            members_max,
        } = memory::Limits::default();
        Self {
            subscriptions_max: hub::Limits::default().subscriptions_max,
            histories_max,
            history_bytes_max,
            histories_bytes_max,
            presence_max: members_max,
        }
    }
}

impl HubConfig {
    /// The limits as the hub knows them.
    #[must_use]
    pub fn limits(&self) -> hub::Limits {
        hub::Limits {
            subscriptions_max: self.subscriptions_max,
            kept: memory::Limits {
                histories_max: self.histories_max,
                history_bytes_max: self.history_bytes_max,
                histories_bytes_max: self.histories_bytes_max,
                members_max: self.presence_max,
            },
            ..hub::Limits::default()
        }
    }

    pub(super) fn settings(&mut self) -> Vec<Setting<'_>> {
        vec![
            Setting::new(
                "hub.subscriptions_max",
                Slot::Count(&mut self.subscriptions_max, 1..=10_000),
                "Most channels one connection subscribes to; one more is refused",
            ),
            Setting::new(
                "hub.histories_max",
                Slot::Count(&mut self.histories_max, 1..=10_000_000),
                "Most channels with a history, each reactor its share; publications to one more are delivered and not kept",
            ),
            Setting::new(
                "hub.history_bytes_max",
                Slot::Size(&mut self.history_bytes_max, KIB..=64 * MIB),
                "Longest history of one channel; the oldest publications give way",
            ),
            Setting::new(
                "hub.histories_bytes_max",
                Slot::Size(&mut self.histories_bytes_max, MIB..=1024 * 1024 * MIB),
                "All histories together, each reactor its share; the oldest publications of the channel that publishes give way",
            ),
            Setting::new(
                "hub.presence_max",
                Slot::Count(&mut self.presence_max, 1..=1_000_000),
                "Most members one channel counts; more are served and not counted",
            ),
        ]
    }
}

/// A `[[channel]]`: what is promised of the channels it is for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChannelConfig {
    /// The one channel it is for.
    pub name: Option<String>,
    /// How the names begin of the channels it is for. With neither it is for all channels.
    pub prefix: Option<String>,
    /// What is promised.
    pub policy: ChannelPolicy,
}

/// The policies that a list of tables asks for.
pub(super) fn policies(channels: &[ChannelConfig]) -> Policies {
    let (mut names, mut prefixes) = (Vec::new(), Vec::new());
    for ChannelConfig {
        name,
        prefix,
        policy,
    } in channels
    {
        match name {
            Some(name) => names.push((name.as_str().into(), policy.clone())),
            None => {
                let prefix = prefix.as_deref().unwrap_or_default();
                prefixes.push((prefix.into(), policy.clone()));
            }
        }
    }
    Policies::new(names, prefixes)
}

impl Table for ChannelConfig {
    fn settings(&mut self) -> Vec<Setting<'_>> {
        let policy = &mut self.policy;
        let size_max = u32::try_from(HISTORY_SIZE_MAX).unwrap_or(u32::MAX);
        vec![
            Setting::new(
                "channel.name",
                Slot::TextOrNone(&mut self.name, &CHANNEL),
                "The channel it is for; it counts before any prefix",
            ),
            Setting::new(
                "channel.prefix",
                Slot::TextOrNone(&mut self.prefix, &CHANNEL_PREFIX),
                "How the names begin of the channels it is for; the longest counts. Neither: all channels",
            ),
            Setting::new(
                "channel.history_size",
                Slot::Count(&mut policy.history_size, 0..=size_max),
                "Publications it keeps and numbers; 0: none, and a loss is not told",
            ),
            Setting::new(
                "channel.history_ttl",
                Slot::Time(
                    &mut policy.history_ttl,
                    Duration::from_secs(1)..=HISTORY_TTL_MAX,
                ),
                "How long it keeps them after the last one",
            ),
            Setting::new(
                "channel.presence",
                Slot::Switch(&mut policy.presence),
                "Keep who is there, for the backend to ask",
            ),
            Setting::new(
                "channel.announce",
                Slot::Switch(&mut policy.announce),
                "Publish joins and leaves, on routes that have words for them",
            ),
            Setting::new(
                "channel.slow",
                Slot::Choice(&mut policy.slow),
                "When a subscriber's outbox is full: as outbox.at_limit says, close it, drop its oldest, or keep its newest only",
            ),
        ]
    }
}

impl Choice for Slow {
    fn names(&self) -> &'static [&'static str] {
        &["outbox", "close", "drop-oldest", "keep-latest"]
    }

    fn name(&self) -> &'static str {
        match self {
            Self::AsOutbox => "outbox",
            Self::Close => "close",
            Self::DropOldest => "drop-oldest",
            Self::KeepLatest => "keep-latest",
        }
    }

    fn set(&mut self, name: &str) -> bool {
        let all = [
            Self::AsOutbox,
            Self::Close,
            Self::DropOldest,
            Self::KeepLatest,
        ];
        choose(self, name, &all)
    }
}
