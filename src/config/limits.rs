//! `[limits]`: how much the server takes on, how much of it one client may have, and what an open
//! connection may send.

use std::time::Duration;

use crate::admission::limits::{ADDRESSES_MAX, Cap, Limit, Policy, Rate, Traffic, WhenFull};
use crate::admission::rate::Pace;

pub use crate::admission::TrafficAtLimit;

use super::Profile;
use super::address::AddressConfig;
use super::allowance::{Allowance, Measure, Period};
use super::api::ApiConfig;
use super::sections::choose;
use super::setting::{Choice, Setting, Slot};

/// `[limits]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Where the defaults of the limits on clients come from. Default: none in development, standard
    /// in production.
    pub preset: Preset,
    /// Most connections open at once; further ones are closed as they arrive.
    pub connections_max: u32,
    /// Most unfinished handshakes in one reactor. At the limit whoever is slow, or would have its turn too
    /// late, gives way to the next one; where nobody is, the kernel's backlog is the queue.
    pub handshakes_in_flight_max: u32,
    /// While a turn of a reactor takes longer than this, it accepts one connection in a turn. Default
    /// 50 ms; `None`: it always accepts a batch.
    pub loop_lag_max: Option<Duration>,
    /// After the start, the time in which the handshakes in flight that are allowed grow from a 16th
    /// to all of them. Default `None`: all from the start.
    pub ramp: Option<Duration>,
    /// Most connections of one address; `None`: any number.
    pub address_connections_max: Option<u32>,
    /// How often one address may try to connect; `None`: as often as it likes.
    pub address_attempts: Option<Allowance>,
    /// Addresses that can be told apart at a time; 64 bytes each, allocated at the start.
    pub addresses_max: u32,
    /// What all addresses for which there is no room may have together, in multiples of one's limits.
    pub overflow_factor: u32,
    /// The limits of an IPv6 site, in multiples of one address's.
    pub site_factor: u32,
    /// Most connections of one user; `None`: any number.
    pub user_connections_max: Option<u32>,
    /// What happens to one more.
    pub user_at_limit: WhenFull,
    /// What an open connection may send.
    pub traffic: TrafficConfig,
    /// Limits that only count what they would refuse. Of the limits on messages and bytes both or
    /// none.
    pub dry_run: Vec<Limit>,
}

/// Where the defaults of the limits on clients come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// No limit on any client: for development, where all of them are on this host.
    None,
    /// Safe on the open internet, with clients behind NAT; see [`Policy::default`] and
    /// [`Traffic::default`].
    Standard,
    /// The limits of the system that tidegate replaces: 5 connections per address, 10 attempts an
    /// hour, 60 messages a minute. Too little for two people behind one NAT.
    Original,
}

/// What an open connection may send, in messages and in bytes of their payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrafficConfig {
    /// Against floods.
    pub messages_per_second: Option<Allowance>,
    /// Against too much in the long run.
    pub messages_per_minute: Option<Allowance>,
    /// Against floods. The burst is at least as large as the longest message.
    pub bytes_per_second: Option<Allowance>,
    /// Against too much in the long run. The burst is at least as large as the longest message.
    pub bytes_per_minute: Option<Allowance>,
    /// Pings and pongs. What is too much always closes the connection.
    pub control_frames_per_second: Option<Allowance>,
    /// What happens to a message that is too much.
    pub at_limit: TrafficAtLimit,
}

/// The largest value of `limits.connections_max`, for hosts without a descriptor limit.
pub(super) const CONNECTIONS_MAX: u32 = 1 << 24;

/// The largest factor of a site or of the overflow account.
const FACTOR_MAX: u32 = 1_024;

impl LimitsConfig {
    /// The defaults under a preset.
    pub(super) fn defaults(preset: Preset) -> Self {
        let (address_connections_max, address_attempts, user_connections_max) = match preset {
            Preset::None => (None, None, None),
            Preset::Standard => (
                Some(1_000),
                known(20, Period::Second, 1_000),
                // Ten devices with ten tabs each, and far from what one user could do harm with.
                Some(100),
            ),
            Preset::Original => (Some(5), known(10, Period::Hour, 10), None),
        };
        Self {
            preset,
            connections_max: CONNECTIONS_MAX,
            // A full handshake costs about 0.1 ms, so that many ask a reactor for 0.1 s of work.
            handshakes_in_flight_max: 1_024,
            loop_lag_max: Some(Duration::from_millis(50)),
            ramp: None,
            address_connections_max,
            address_attempts,
            addresses_max: u32::try_from(ADDRESSES_MAX).unwrap_or(u32::MAX),
            overflow_factor: 8,
            site_factor: 8,
            user_connections_max,
            user_at_limit: WhenFull::default(),
            traffic: TrafficConfig::defaults(preset),
            dry_run: Vec::new(),
        }
    }

    /// The defaults of a profile.
    pub(super) fn for_profile(profile: Profile) -> Self {
        Self::defaults(match profile {
            Profile::Development => Preset::None,
            Profile::Production => Preset::Standard,
        })
    }

    /// The rules for who may connect.
    #[must_use]
    pub fn policy(&self, address: &AddressConfig, api: &ApiConfig) -> Policy {
        let rate = |allowance: Allowance| Rate {
            quota: allowance.quota(),
            dry_run: self.is_dry(Limit::AddressAttempts),
        };
        Policy {
            connections: self.cap(self.connections_max, Limit::Connections),
            api_connections: Cap::of(api.connections_max),
            address_connections: self
                .address_connections_max
                .map(|max| self.cap(max, Limit::AddressConnections)),
            address_attempts: self.address_attempts.map(rate),
            widths: address.widths(),
            site: address.site(self.site_factor),
            overflow_factor: self.overflow_factor,
        }
    }

    /// The rules for what an open connection may send; `None` if it may send anything.
    #[must_use]
    pub fn traffic(&self) -> Option<Traffic> {
        self.traffic_of(&self.traffic)
    }

    pub(super) fn traffic_of(&self, traffic: &TrafficConfig) -> Option<Traffic> {
        let rules = traffic.rules(self.is_dry(Limit::Messages));
        let is_limit =
            [rules.messages, rules.bytes] != [Pace::default(); 2] || rules.control_frames.is_some();
        is_limit.then_some(rules)
    }

    /// Most connections of one user.
    #[must_use]
    pub fn user_connections(&self) -> Option<Cap> {
        self.user_cap(self.user_connections_max)
    }

    pub(super) fn user_cap(&self, max: Option<u32>) -> Option<Cap> {
        max.map(|max| self.cap(max, Limit::UserConnections))
    }

    pub(super) fn is_dry(&self, limit: Limit) -> bool {
        self.dry_run.contains(&limit)
    }

    fn cap(&self, max: u32, limit: Limit) -> Cap {
        Cap {
            max,
            dry_run: self.is_dry(limit),
        }
    }

    pub(super) fn settings(&mut self) -> Vec<Setting<'_>> {
        let seconds = |from: u64, to: u64| Duration::from_secs(from)..=Duration::from_secs(to);
        let mut settings = vec![
            Setting::new(
                "limits.preset",
                Slot::Choice(&mut self.preset),
                "Defaults of the limits on clients; original: 5 connections and 10 attempts an hour per address, 60 messages a minute",
            ),
            Setting::new(
                "limits.connections_max",
                Slot::Count(&mut self.connections_max, 1..=CONNECTIONS_MAX),
                "Most connections open at once; further ones are closed as they arrive",
            )
            .default_in_words("the descriptor limit less a reserve"),
            Setting::new(
                "limits.handshakes_in_flight_max",
                Slot::Count(&mut self.handshakes_in_flight_max, 1..=1_048_576),
                "Most unfinished handshakes per reactor; beyond it the slowest gives way, or further clients wait in the backlog",
            ),
            Setting::new(
                "limits.loop_lag_max",
                Slot::TimeOrOff(
                    &mut self.loop_lag_max,
                    Duration::from_millis(1)..=Duration::from_secs(10),
                ),
                "While a reactor's turn takes longer, it accepts one connection a turn; clients wait in the backlog",
            ),
            Setting::new(
                "limits.ramp",
                Slot::TimeOrOff(&mut self.ramp, seconds(1, 3_600)),
                "After a start, handshakes in flight grow from a 16th to all that are allowed in this time",
            ),
            Setting::new(
                "limits.address_connections_max",
                Slot::CountOrOff(&mut self.address_connections_max, 1..=CONNECTIONS_MAX),
                "Most connections of one address; everybody behind one NAT shares an address",
            ),
            Setting::new(
                "limits.address_attempts",
                Slot::Allowance(&mut self.address_attempts, Measure::Events),
                "How often one address may try to connect, and how often at once",
            ),
            Setting::new(
                "limits.addresses_max",
                Slot::Count(&mut self.addresses_max, 1_024..=CONNECTIONS_MAX),
                "Addresses that can be told apart at a time, 64 bytes each, allocated at the start",
            ),
            Setting::new(
                "limits.overflow_factor",
                Slot::Count(&mut self.overflow_factor, 1..=FACTOR_MAX),
                "What all addresses beyond those may have together, in multiples of one's limits",
            ),
            Setting::new(
                "limits.site_factor",
                Slot::Count(&mut self.site_factor, 1..=FACTOR_MAX),
                "What an IPv6 site (address.site_width) may have, in multiples of one address's limits",
            ),
            Setting::new(
                "limits.user_connections_max",
                Slot::CountOrOff(&mut self.user_connections_max, 1..=CONNECTIONS_MAX),
                "Most connections of one user, whatever their addresses",
            ),
            Setting::new(
                "limits.user_at_limit",
                Slot::Choice(&mut self.user_at_limit),
                "One more is refused, or the user's oldest connection gives way",
            ),
        ];
        settings.extend(traffic_settings!("limits", &mut self.traffic));
        settings.push(Setting::new(
            "limits.dry_run",
            Slot::List(Box::new(&mut self.dry_run)),
            "Limits that only count what they would refuse; messages and bytes go together",
        ));
        settings
    }
}

impl TrafficConfig {
    fn defaults(preset: Preset) -> Self {
        let none = Self {
            messages_per_second: None,
            messages_per_minute: None,
            bytes_per_second: None,
            bytes_per_minute: None,
            control_frames_per_second: None,
            at_limit: TrafficAtLimit::Close,
        };
        let control_frames_per_second = known(20, Period::Second, 100);
        match preset {
            Preset::None => none,
            Preset::Standard => Self {
                control_frames_per_second,
                messages_per_second: known(50, Period::Second, 100),
                messages_per_minute: known(1_200, Period::Minute, 1_200),
                bytes_per_second: known(256 << 10, Period::Second, 1 << 20),
                ..none
            },
            Preset::Original => Self {
                control_frames_per_second,
                messages_per_minute: known(60, Period::Minute, 60),
                ..none
            },
        }
    }

    fn rules(&self, dry_run: bool) -> Traffic {
        let pace = |per_second: Option<Allowance>, per_minute: Option<Allowance>| Pace {
            per_second: per_second.map(|allowance| allowance.quota()),
            per_minute: per_minute.map(|allowance| allowance.quota()),
        };
        Traffic {
            messages: pace(self.messages_per_second, self.messages_per_minute),
            bytes: pace(self.bytes_per_second, self.bytes_per_minute),
            control_frames: (self.control_frames_per_second).map(|allowance| allowance.quota()),
            dry_run,
        }
    }
}

/// An allowance that is part of the program; the tests look at all of them.
fn known(amount: u64, period: Period, burst: u64) -> Option<Allowance> {
    Allowance::new(amount, period, burst).ok()
}

/// The keys of what a connection may send, in the section of this name.
macro_rules! traffic_settings {
    ($section:literal, $traffic:expr) => {{
        use crate::config::allowance::{Measure, Period};
        let traffic: &mut crate::config::TrafficConfig = $traffic;
        [
            Setting::new(
                concat!($section, ".messages_per_second"),
                Slot::Allowance(
                    &mut traffic.messages_per_second,
                    Measure::Things(Period::Second),
                ),
                "Messages that a connection may send in a second",
            ),
            Setting::new(
                concat!($section, ".messages_per_minute"),
                Slot::Allowance(
                    &mut traffic.messages_per_minute,
                    Measure::Things(Period::Minute),
                ),
                "Messages that a connection may send in a minute",
            ),
            Setting::new(
                concat!($section, ".bytes_per_second"),
                Slot::Allowance(
                    &mut traffic.bytes_per_second,
                    Measure::Bytes(Period::Second),
                ),
                "Bytes of messages that a connection may send in a second",
            ),
            Setting::new(
                concat!($section, ".bytes_per_minute"),
                Slot::Allowance(
                    &mut traffic.bytes_per_minute,
                    Measure::Bytes(Period::Minute),
                ),
                "Bytes of messages that a connection may send in a minute",
            ),
            Setting::new(
                concat!($section, ".control_frames_per_second"),
                Slot::Allowance(
                    &mut traffic.control_frames_per_second,
                    Measure::Things(Period::Second),
                ),
                "Pings and pongs that a connection may send in a second; more close it with 1008",
            ),
            Setting::new(
                concat!($section, ".traffic_at_limit"),
                Slot::Choice(&mut traffic.at_limit),
                "A message that is too much closes the connection with 1008, or is dropped",
            ),
        ]
    }};
}
pub(super) use traffic_settings;

impl Choice for Preset {
    fn names(&self) -> &'static [&'static str] {
        &["none", "standard", "original"]
    }

    fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Standard => "standard",
            Self::Original => "original",
        }
    }

    fn set(&mut self, name: &str) -> bool {
        choose(self, name, &[Self::None, Self::Standard, Self::Original])
    }
}

impl Choice for WhenFull {
    fn names(&self) -> &'static [&'static str] {
        &["refuse", "close-oldest"]
    }

    fn name(&self) -> &'static str {
        match self {
            Self::RefuseNew => "refuse",
            Self::CloseOldest => "close-oldest",
        }
    }

    fn set(&mut self, name: &str) -> bool {
        choose(self, name, &[Self::RefuseNew, Self::CloseOldest])
    }
}

impl Choice for TrafficAtLimit {
    fn names(&self) -> &'static [&'static str] {
        &["close", "drop"]
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Close => "close",
            Self::Drop => "drop",
        }
    }

    fn set(&mut self, name: &str) -> bool {
        choose(self, name, &[Self::Close, Self::Drop])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_presets_are_the_numbers_of_admission() {
        let address = AddressConfig::default();
        for (preset, policy, traffic) in [
            (Preset::Standard, Policy::default(), Traffic::default()),
            (Preset::Original, Policy::original(), Traffic::original()),
        ] {
            let limits = LimitsConfig::defaults(preset);
            let expected = Policy {
                // The cap on all connections follows the host.
                connections: Cap::of(CONNECTIONS_MAX),
                ..policy
            };
            assert_eq!(
                limits.policy(&address, &ApiConfig::default()),
                expected,
                "{preset:?}"
            );
            assert_eq!(limits.traffic(), Some(traffic), "{preset:?}");
        }
        let limits = LimitsConfig::defaults(Preset::None);
        let policy = limits.policy(&address, &ApiConfig::default());
        assert_eq!(
            (policy.address_connections, policy.address_attempts),
            (None, None)
        );
        assert_eq!(limits.traffic(), None);
        assert_eq!(limits.user_connections(), None);
    }

    #[test]
    fn a_limit_in_dry_run_says_so() {
        let limits = |dry_run| LimitsConfig {
            dry_run,
            ..LimitsConfig::defaults(Preset::Standard)
        };
        let address = AddressConfig::default();
        let dry = |limits: &LimitsConfig| {
            let policy = limits.policy(&address, &ApiConfig::default());
            [
                policy.connections.dry_run,
                policy.address_connections.unwrap().dry_run,
                policy.address_attempts.unwrap().dry_run,
                limits.user_connections().unwrap().dry_run,
                limits.traffic().unwrap().dry_run,
            ]
        };
        assert_eq!(dry(&limits(vec![])), [false; 5]);
        for (at, limit) in [
            Limit::Connections,
            Limit::AddressConnections,
            Limit::AddressAttempts,
            Limit::UserConnections,
            Limit::Messages,
        ]
        .into_iter()
        .enumerate()
        {
            let mut expected = [false; 5];
            expected[at] = true;
            assert_eq!(dry(&limits(vec![limit])), expected, "{limit:?}");
        }
    }
}
