//! `[monitor]`: where the server tells about itself, to whom, and what it keeps of the past.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::rules::Rules;
use super::secret::Secret;
use super::setting::{Setting, Slot};
use super::text::{Entry, HOST, Texts};

/// `[monitor]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MonitorConfig {
    /// Where figures, health and the dashboard are served, apart from the clients. Empty: nowhere, and
    /// nothing is measured. Default 127.0.0.1:9480.
    pub listen: Vec<SocketAddr>,
    /// The token that administrators show, at least 32 bytes. Where other hosts can connect, there must
    /// be one.
    pub token: Option<Secret>,
    /// A file that holds it, without the line end behind it. Instead of [`token`](Self::token).
    pub token_file: Option<PathBuf>,
    /// Names that `Host` may have. Addresses and localhost need not be listed: pages of other names that
    /// a browser was made to believe are here (DNS rebinding) have a name.
    pub hosts: Vec<String>,
    /// How often each reactor reports. Default 1 s.
    pub tick_interval: Duration,
    /// Where the figures of days are kept; `None`: they end with the process.
    pub daily_file: Option<PathBuf>,
    /// Requests a second, health checks not among them, and as many again at once. More are answered 429.
    pub requests_per_second: u32,
    /// Share of `limits.connections_max` in percent above which the server is not ready for more.
    pub ready_percent_max: u8,
}

impl Default for MonitorConfig {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT)],
            token: None,
            token_file: None,
            hosts: Vec::new(),
            tick_interval: Duration::from_secs(1),
            daily_file: None,
            requests_per_second: 50,
            ready_percent_max: 95,
        }
    }
}

/// Beside the ports that Prometheus, its exporters and its companions have by default.
const PORT: u16 = 9480;

impl MonitorConfig {
    /// Whether administrators have to show a token.
    #[must_use]
    pub const fn has_token(&self) -> bool {
        self.token.is_some() || self.token_file.is_some()
    }

    pub(super) fn settings(&mut self) -> Vec<Setting<'_>> {
        vec![
            Setting::new(
                "monitor.listen",
                Slot::List(Box::new(&mut self.listen)),
                "Where figures, health and the dashboard are served; none: monitoring is off",
            ),
            Setting::new(
                "monitor.token",
                Slot::Secret(&mut self.token),
                "What administrators show as Authorization: Bearer; a must where other hosts can connect",
            ),
            Setting::new(
                "monitor.token_file",
                Slot::File(&mut self.token_file),
                "A file that holds it, instead of monitor.token",
            ),
            Setting::new(
                "monitor.hosts",
                Slot::List(Box::new(Texts(&mut self.hosts, &HOST))),
                "Names that requests may be for, beside localhost and addresses; others are answered 421",
            ),
            Setting::new(
                "monitor.tick_interval",
                Slot::Time(
                    &mut self.tick_interval,
                    Duration::from_millis(100)..=Duration::from_secs(60),
                ),
                "How often each reactor reports what it did",
            ),
            Setting::new(
                "monitor.daily_file",
                Slot::File(&mut self.daily_file),
                "Where the figures of days are kept over restarts",
            ),
            Setting::new(
                "monitor.requests_per_second",
                Slot::Count(&mut self.requests_per_second, 1..=10_000),
                "Requests a second, health checks not counted; more are answered 429",
            ),
            Setting::new(
                "monitor.ready_percent_max",
                Slot::Count(&mut self.ready_percent_max, 1..=100),
                "Percent of limits.connections_max above which /readyz says no",
            ),
        ]
    }
}

impl Entry for SocketAddr {
    fn accepted() -> String {
        "addresses like \"127.0.0.1:9480\" or \"[::1]:9480\"; [] for none, in the environment empty"
            .to_owned()
    }

    fn write(&self) -> String {
        self.to_string()
    }

    fn read(text: &str) -> Result<Self, String> {
        text.parse()
            .map_err(|_| "not an IP address and a port".to_owned())
    }
}

/// What other hosts can reach asks for a token.
pub(super) fn strangers_need_a_token(rules: &mut Rules<'_>) {
    let monitor = &rules.config.monitor;
    let is_loopback = |address: &&SocketAddr| address.ip().to_canonical().is_loopback();
    let open = monitor.listen.iter().find(|address| !is_loopback(address));
    if let Some(address) = open.copied()
        && !monitor.has_token()
    {
        rules.refuse(
            "monitor.listen",
            format!(
                "{address} is within reach of other hosts, and whoever comes could disconnect \
                 clients; set TIDEGATE_MONITOR_TOKEN, write monitor.token_file, or listen on \
                 127.0.0.1"
            ),
        );
    }
}

/// The administrators' token is given once.
pub(super) fn the_token_is_given_once(rules: &mut Rules<'_>) {
    let monitor = &rules.config.monitor;
    if monitor.token.is_some() && monitor.token_file.is_some() {
        rules.refuse(
            "monitor.token",
            "the token is given twice: here, and by monitor.token_file; remove one",
        );
    }
}

/// Clients and administrators do not share an address.
pub(super) fn it_has_addresses_of_its_own(rules: &mut Rules<'_>) {
    let config = &rules.config;
    let mut seen: Vec<SocketAddr> = config.listen.iter().map(|listen| listen.address).collect();
    let mut taken = None;
    for &address in &config.monitor.listen {
        if address.port() != 0 && seen.contains(&address) {
            taken = Some(address);
        }
        seen.push(address);
    }
    if let Some(address) = taken {
        rules.refuse(
            "monitor.listen",
            format!("{address} is listed twice, here or in listen; choose another port"),
        );
    }
}
