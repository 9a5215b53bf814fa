//! The configuration: one immutable, validated value, from flags, environment, file and defaults.
//!
//! A flag wins over an environment variable, that over the file, that over the default. [`Config`]
//! holds numbers and times in the types the rest of the crate uses; how they were written stays in
//! `raw`. Nothing here reads the clock, the file system or the process's environment: [`Sources`]
//! carries it all in, so a test needs no process state. Only [`Host::detect`] asks the system.
//!
//! Every fault in every source is reported at once ([`ConfigErrors`]), one line each, with its
//! place, the value found, what is accepted and what to write.
//!
//! What a section decides is the default of what a table of a list leaves out: `[limits]` for every
//! `[[route]]`, `[token]` for every `[[issuer]]`. So those are read last, over what is then in force.
//!
//! Secrets are never shown: not in an error, not in a printed configuration, not by `Debug`.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

pub use address::AddressConfig;
pub use alert::{AlertConfig, AlertValue, Threshold};
pub use allowance::{Allowance, Period};
pub use api::{ApiConfig, ApiKeyConfig};
pub use channels::{ChannelsConfig, RelayConfig, Rename};
pub use error::{ConfigError, ConfigErrors, Problem, Source, Warning};
pub use hooks::{HooksConfig, RouteHooksConfig};
pub use hub::{ChannelConfig, HubConfig};
pub use limits::{LimitsConfig, Preset, TrafficAtLimit, TrafficConfig};
pub use listen::{CertificateFiles, Listen, TlsConfig};
pub use monitor::MonitorConfig;
pub use print::{KeyInfo, keys, keys_markdown};
pub use reload::Reloaded;
pub use route::{RouteConfig, RouteKind, RouteRule};
pub use secret::Secret;
pub use sections::{
    AtLimit, HttpConfig, LogConfig, LogFormat, LogLevel, OutboxConfig, ShutdownConfig,
    WebSocketConfig,
};
pub use token::{IssuerConfig, KeyFile, KeysConfig, TokenConfig};
pub use webhook::WebhookConfig;

use crate::admission::{self, origin::OriginPolicy};

use limits::CONNECTIONS_MAX;
use raw::{Item, RawConfig, Value};
use rules::Rules;
use sections::choose;
use setting::{Choice, Setting, Slot, TableList};

mod address;
mod alert;
mod allowance;
mod api;
mod channels;
mod error;
mod hooks;
mod hub;
mod limits;
mod listen;
mod monitor;
mod print;
mod raw;
mod read;
mod reload;
mod route;
mod rules;
mod secret;
mod sections;
mod setting;
mod text;
mod token;
pub mod units;
mod webhook;

#[cfg(test)]
mod tests;

/// Everything that can be configured.
///
/// A program that embeds the server starts from [`Config::development`] or [`Config::defaults`],
/// changes fields and asks [`Config::validate`]; one that is configured by its operator calls
/// [`Config::load`]. Ranges and defaults of all fields are in [`keys`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What the defaults are, and what is refused.
    pub profile: Profile,
    /// Reactor threads, 1..=255. Default: the cores this process may use.
    pub reactors: u8,
    /// Whether the program serves `/echo` and `/broadcast`, which admit everyone.
    pub demo_routes: bool,
    /// Whether `GET /` is answered with a page to try routes out; development only.
    pub demo_page: bool,
    /// Whether production serves without TLS on addresses that other hosts can reach.
    pub allow_plain: bool,
    /// Where clients arrive.
    pub listen: Vec<Listen>,
    /// `[tls]`.
    pub tls: TlsConfig,
    /// `[http]`.
    pub http: HttpConfig,
    /// `[websocket]`.
    pub websocket: WebSocketConfig,
    /// `[outbox]`.
    pub outbox: OutboxConfig,
    /// `[address]`.
    pub address: AddressConfig,
    /// `[limits]`.
    pub limits: LimitsConfig,
    /// `[origin]`: the default of every route.
    pub origin: OriginPolicy,
    /// `[token]`.
    pub token: TokenConfig,
    /// `[[issuer]]`: further issuers of tokens.
    pub issuers: Vec<IssuerConfig>,
    /// `[hub]`.
    pub hub: HubConfig,
    /// `[[channel]]`: what is promised of which channels.
    pub channels: Vec<ChannelConfig>,
    /// `[[route]]`: what is served beside the demonstration routes.
    pub routes: Vec<RouteConfig>,
    /// `[[alert]]`: what is written about alert rules; [`Config::alert_rules`] are those in force.
    pub alerts: Vec<AlertConfig>,
    /// `[hooks]`.
    pub hooks: HooksConfig,
    /// `[webhook]`.
    pub webhook: WebhookConfig,
    /// `[api]`.
    pub api: ApiConfig,
    /// `[[api_key]]`: keys that may be good for less than everything.
    pub api_keys: Vec<ApiKeyConfig>,
    /// `[shutdown]`.
    pub shutdown: ShutdownConfig,
    /// `[monitor]`.
    pub monitor: MonitorConfig,
    /// `[log]`.
    pub log: LogConfig,
}

/// What a configuration is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Try things out: loopback listeners, a self-signed certificate, open demonstration routes.
    Development,
    /// Serve: nothing unsafe that is not asked for by name.
    Production,
}

impl Choice for Profile {
    fn names(&self) -> &'static [&'static str] {
        &["development", "production"]
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::Production => "production",
        }
    }

    fn set(&mut self, name: &str) -> bool {
        choose(self, name, &[Self::Development, Self::Production])
    }
}

impl std::fmt::Display for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What the host gives this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Cores this process may use, at least 1.
    pub cores: usize,
    /// Most descriptors it may open; `None`: no limit.
    pub descriptors_max: Option<u64>,
}

impl Host {
    /// Asks the system: CPU affinity and cgroup quota, and the hard limit on descriptors, to which
    /// the server raises its soft limit.
    pub fn detect() -> Self {
        let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        Self {
            cores: thread::available_parallelism().map_or(1, usize::from),
            descriptors_max: descriptors.maximum,
        }
    }
}

/// Where a configuration comes from.
#[derive(Debug, Clone)]
pub struct Sources<'a> {
    /// The command line.
    pub flags: Flags,
    /// All environment variables; those without the prefix `TIDEGATE_` are skipped, but for the two
    /// that choose a profile.
    pub environment: Vec<(String, String)>,
    /// The configuration file, if there is one.
    pub file: Option<File<'a>>,
    /// The host, for defaults and limits that depend on it.
    pub host: Host,
}

/// Values from the command line, as written.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--profile`.
    pub profile: Option<String>,
    /// `--reactors`.
    pub reactors: Option<String>,
    /// `--listen`, a plain listener each. With [`listen_tls`](Self::listen_tls), replaces all
    /// listeners of other sources.
    pub listen: Vec<String>,
    /// `--listen-tls`, a TLS listener each.
    pub listen_tls: Vec<String>,
    /// `--tls-cert`. With [`tls_key`](Self::tls_key), replaces all certificates of other sources.
    pub tls_cert: Vec<String>,
    /// `--tls-key`, paired with `--tls-cert` in order.
    pub tls_key: Vec<String>,
}

/// The text of a configuration file.
#[derive(Debug, Clone, Copy)]
pub struct File<'a> {
    /// Its name, for messages.
    pub path: &'a str,
    /// What it says.
    pub text: &'a str,
}

/// A configuration that holds, with what is worth knowing about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What an operator should know, though it is accepted.
    pub warnings: Vec<Warning>,
    /// Where each value came from.
    pub provenance: Provenance,
}

/// Where each value came from, by key.
#[derive(Debug, Clone)]
pub struct Provenance {
    sources: BTreeMap<String, Source>,
    otherwise: Source,
}

impl Provenance {
    fn new(otherwise: Source) -> Self {
        Self {
            sources: BTreeMap::new(),
            otherwise,
        }
    }

    /// The source of a key.
    pub fn of(&self, key: &str) -> &Source {
        self.sources.get(key).unwrap_or(&self.otherwise)
    }

    /// The source of one item of a list.
    fn of_item(&self, key: &str, index: usize) -> &Source {
        self.sources
            .get(&format!("{key}[{index}]"))
            .unwrap_or_else(|| self.of(key))
    }

    /// The source of one key of a table in a list; `None` if it is not written there.
    fn of_field(&self, key: &str, index: usize, name: &str) -> Option<&Source> {
        self.sources.get(&format!("{key}[{index}].{name}"))
    }

    fn record(&mut self, key: &str, item: &Item) {
        self.sources.insert(key.to_owned(), item.source.clone());
        // A list of a lower source leaves no trace, also where it was the longer one.
        let items = format!("{key}[");
        self.sources.retain(|key, _| !key.starts_with(&items));
        let Value::Array(list) = &item.value else {
            return;
        };
        for (index, item) in list.iter().enumerate() {
            let place = format!("{items}{index}]");
            if let Value::Table(pairs) = &item.value {
                for (name, field) in pairs {
                    self.sources
                        .insert(format!("{place}.{name}"), field.source.clone());
                }
            }
            self.sources.insert(place, item.source.clone());
        }
    }
}

impl Config {
    /// The defaults of a profile on a host. In production they lack a listener.
    pub fn defaults(profile: Profile, host: &Host) -> Self {
        let mut config = Self {
            profile,
            reactors: u8::try_from(host.cores.max(1)).unwrap_or(u8::MAX),
            demo_routes: profile == Profile::Development,
            demo_page: profile == Profile::Development,
            allow_plain: false,
            listen: Listen::defaults(profile),
            tls: TlsConfig::default(),
            http: HttpConfig::default(),
            websocket: WebSocketConfig::default(),
            outbox: OutboxConfig::default(),
            address: AddressConfig::default(),
            limits: LimitsConfig::for_profile(profile),
            origin: address::default_origins(profile),
            token: TokenConfig::defaults(profile),
            issuers: Vec::new(),
            hub: HubConfig::default(),
            channels: Vec::new(),
            routes: Vec::new(),
            alerts: Vec::new(),
            hooks: HooksConfig::defaults(profile),
            webhook: WebhookConfig::default(),
            api: ApiConfig::default(),
            api_keys: Vec::new(),
            shutdown: ShutdownConfig::default(),
            monitor: MonitorConfig::default(),
            log: LogConfig::default(),
        };
        config.limits.connections_max = config.connections_room(host);
        config
    }

    /// The defaults of the development profile on this host.
    pub fn development() -> Self {
        Self::defaults(Profile::Development, &Host::detect())
    }

    /// Combines and checks what the sources say.
    ///
    /// # Errors
    /// Every fault in every source. Rules between keys are checked too, unless one of the keys is
    /// at fault itself or the file is not TOML.
    pub fn load(sources: &Sources<'_>) -> Result<Loaded, ConfigErrors> {
        let mut assembly = Assembly::new(sources);
        if assembly.is_partial {
            return Err(ConfigErrors(assembly.errors));
        }
        let rules = Rules {
            config: &mut assembly.config,
            provenance: &assembly.provenance,
            host: &sources.host,
            errors: assembly.errors,
            warnings: Vec::new(),
        };
        let warnings = rules.check()?;
        Ok(Loaded {
            config: assembly.config,
            warnings,
            provenance: assembly.provenance,
        })
    }

    /// Checks a configuration that a program built itself, as [`load`](Self::load) checks one that
    /// an operator wrote.
    ///
    /// # Errors
    /// Every value out of range and every rule between keys that is broken.
    pub fn validate(&self, host: &Host) -> Result<Vec<Warning>, ConfigErrors> {
        let mut config = self.clone();
        let mut errors = Vec::new();
        let out_of_range = |setting: &Setting<'_>| {
            (!setting.slot.is_accepted()).then(|| ConfigError {
                source: Source::Program,
                key: setting.key.to_owned(),
                problem: Problem::BadValue {
                    found: setting.slot.write(),
                    why: "out of range".to_owned(),
                    accepted: setting.slot.accepted(),
                    fix: None,
                },
            })
        };
        fn look_at(
            settings: &[Setting<'_>],
            out_of_range: &dyn Fn(&Setting<'_>) -> Option<ConfigError>,
            errors: &mut Vec<ConfigError>,
        ) {
            for setting in settings {
                errors.extend(out_of_range(setting));
                if let Slot::Tables(tables) = &setting.slot {
                    for mut table in tables.tables() {
                        look_at(&table.settings(), out_of_range, errors);
                    }
                }
            }
        }
        look_at(&config.settings(), &out_of_range, &mut errors);
        let provenance = Provenance::new(Source::Program);
        Rules {
            config: &mut config,
            provenance: &provenance,
            host,
            errors,
            warnings: Vec::new(),
        }
        .check()
    }

    /// Whether there is any source of keys, so that a token could be verified.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        !self.token.issuer.keys.is_empty() || !self.issuers.is_empty()
    }

    /// Whether backends can use the API: there is a key, and somewhere to connect.
    #[must_use]
    pub fn serves_api(&self) -> bool {
        let has_keys = self.api.key.is_some() || self.api.key_file.is_some();
        (has_keys || !self.api_keys.is_empty()) && !self.api.listen.is_empty()
    }

    /// Everybody who issues tokens: the issuer of `[token]`, if it has keys, then those of
    /// `[[issuer]]`. Each keeps the claims that routes' rules, channels and stamps look at.
    #[must_use]
    pub fn issuers(&self) -> Vec<IssuerConfig> {
        let inline = Some(&self.token.issuer).filter(|issuer| !issuer.keys.is_empty());
        let mut issuers: Vec<_> = inline.into_iter().chain(&self.issuers).cloned().collect();
        let claims = self.routes.iter().flat_map(|route| {
            let in_rule = route.rule.rule().claims().into_iter().cloned();
            in_rule.chain(route.channels.claims())
        });
        let claims: BTreeSet<_> = claims.collect();
        for IssuerConfig { policy, .. } in &mut issuers {
            for claim in &claims {
                if !policy.kept.contains(claim) {
                    policy.kept.push(claim.clone());
                }
            }
        }
        issuers
    }

    /// The alert rules in force: those built in, as `[[alert]]` changes them, then those of its own.
    #[must_use]
    pub fn alert_rules(&self) -> Vec<crate::metrics::alert::Rule> {
        alert::rules(&self.alerts)
    }

    /// What is promised of which channel.
    #[must_use]
    pub fn policies(&self) -> crate::hub::Policies {
        hub::policies(&self.channels)
    }

    /// What all routes have in common, as admission knows it.
    #[must_use]
    pub fn admission(&self) -> admission::Policy {
        admission::Policy {
            hosts: self.http.hosts.clone(),
            trusted: self.address.trusted_networks.clone(),
            forwarding: self.address.header,
            sources: self.token.sources.clone(),
            limits: self.limits.policy(&self.address, &self.api),
        }
    }

    /// How many connections the host's descriptors allow beside the server's own.
    fn connections_room(&self, host: &Host) -> u32 {
        /// Standard streams, certificates while they are read, administrators' connections.
        const RESERVED: u64 = 64;
        /// A reactor's own: its epoll instance, its waker, the descriptor it sheds load with.
        const RESERVED_PER_REACTOR: u64 = 3;
        let (of_api, backends) = if self.serves_api() {
            (self.api.listen.len(), self.api.connections_max)
        } else {
            (0, 0)
        };
        let listeners = u64::try_from(self.listen.len() + of_api).unwrap_or(u64::MAX);
        let per_reactor = listeners.saturating_add(RESERVED_PER_REACTOR);
        let has_hooks = self.routes.iter().any(|route| route.hooks.is_any());
        let of_hooks = if has_hooks { self.hooks.threads } else { 0 };
        let own = per_reactor
            .saturating_mul(self.reactors.into())
            .saturating_add(RESERVED)
            .saturating_add(of_hooks.into())
            .saturating_add(backends.into());
        let room = host.descriptors_max.unwrap_or(u64::MAX).saturating_sub(own);
        u32::try_from(room).unwrap_or(u32::MAX).min(CONNECTIONS_MAX)
    }

    /// Every key, each with its field, in the order of the reference table.
    fn settings(&mut self) -> Vec<Setting<'_>> {
        let issuer_base = IssuerConfig::inheriting(&self.token);
        let route_base = RouteConfig::inheriting(self);
        let mut settings = vec![
            Setting::new(
                "profile",
                Slot::Choice(&mut self.profile),
                "Development serves loopback and open routes; production refuses what is unsafe",
            )
            .flag("--profile")
            .default_in_words("`\"development\"`"),
            Setting::new(
                "reactors",
                Slot::Count(&mut self.reactors, 1..=255),
                "Reactor threads",
            )
            .flag("--reactors")
            .default_in_words("the cores this process may use"),
            Setting::new(
                "demo_routes",
                Slot::Switch(&mut self.demo_routes),
                "Serve /echo and /broadcast, open to everyone; production wants it written out",
            ),
            Setting::new(
                "demo_page",
                Slot::Switch(&mut self.demo_page),
                "Answer GET / with a page to try routes out, on every listener; not in production",
            ),
            Setting::new(
                "allow_plain",
                Slot::Switch(&mut self.allow_plain),
                "In production, serve without TLS on addresses that other hosts can reach",
            ),
            Setting::new(
                "listen",
                Slot::Listeners(&mut self.listen),
                "Addresses to serve; written in one source, they replace those of all lower ones",
            )
            .flag("--listen, --listen-tls"),
        ];
        settings.extend(self.tls.settings());
        settings.extend(self.http.settings());
        settings.extend(self.websocket.settings());
        settings.extend(self.outbox.settings());
        settings.extend(self.address.settings());
        settings.extend(self.limits.settings());
        settings.extend(address::origin_settings(&mut self.origin));
        settings.extend(self.token.settings());
        settings.extend(self.hooks.settings());
        settings.extend(self.hub.settings());
        settings.extend(self.webhook.settings());
        settings.extend(self.api.settings());
        settings.extend(self.shutdown.settings());
        settings.extend(self.monitor.settings());
        settings.extend(self.log.settings());
        settings.push(Setting::new(
            "issuer",
            Slot::Tables(Box::new(TableList {
                list: &mut self.issuers,
                base: issuer_base,
            })),
            "Further issuers of tokens, beside the one that may stand in [token]",
        ));
        settings.push(Setting::new(
            "api_key",
            Slot::Tables(Box::new(TableList {
                list: &mut self.api_keys,
                base: ApiKeyConfig::default(),
            })),
            "Further keys of the API, each with its channels and its rate",
        ));
        settings.push(Setting::new(
            "channel",
            Slot::Tables(Box::new(TableList {
                list: &mut self.channels,
                base: ChannelConfig::default(),
            })),
            "What is promised of which channels, each with the keys below",
        ));
        settings.push(Setting::new(
            "route",
            Slot::Tables(Box::new(TableList {
                list: &mut self.routes,
                base: route_base,
            })),
            "What is served, each with the keys below",
        ));
        settings.push(Setting::new(
            "alert",
            Slot::Tables(Box::new(TableList {
                list: &mut self.alerts,
                base: AlertConfig::unwritten(),
            })),
            "Alert rules, and changes to those built in, each with the keys below",
        ));
        settings
    }
}

/// The key that decides the defaults of `[limits]`.
const PRESET: &str = "limits.preset";

/// Lists of tables whose defaults are what sections say; in an order in which none needs a later one.
const LISTS: [&str; 5] = ["channel", "issuer", "api_key", "route", "alert"];

/// The sources put together, before the rules between keys.
struct Assembly {
    config: Config,
    provenance: Provenance,
    errors: Vec<ConfigError>,
    is_partial: bool,
}

impl Assembly {
    fn new(sources: &Sources<'_>) -> Self {
        let mut config = Config::defaults(Profile::Development, &sources.host);
        let mut raw = RawConfig::gather(sources, &config.settings());
        let mut assembly = Self {
            config,
            provenance: Provenance::new(Source::Default),
            errors: std::mem::take(&mut raw.errors),
            is_partial: raw.is_partial,
        };

        // The profile comes first: it decides the defaults of the others.
        assembly.take(&raw, |key| key == "profile");
        if *assembly.provenance.of("profile") == Source::Default
            && let Some(name) = assembly.production_switch(&sources.environment)
        {
            assembly.config.profile = Profile::Production;
            let source = Source::Environment(name.to_owned());
            assembly
                .provenance
                .sources
                .insert("profile".to_owned(), source);
        }
        assembly.config = Config::defaults(assembly.config.profile, &sources.host);
        // So does the preset, for the limits.
        assembly.take(&raw, |key| key == PRESET);
        assembly.config.limits = LimitsConfig::defaults(assembly.config.limits.preset);
        let is_list = |key: &str| LISTS.contains(&key);
        assembly.take(&raw, |key| {
            !["profile", PRESET].contains(&key) && !is_list(key)
        });
        // What the sections say is the default of what tables leave out.
        for list in LISTS {
            assembly.take(&raw, |key| key == list);
        }

        // Reactors and listeners take descriptors of their own, so this default comes last.
        if *assembly.provenance.of("limits.connections_max") == Source::Default {
            let room = assembly.config.connections_room(&sources.host);
            assembly.config.limits.connections_max = room;
        }
        assembly
    }

    /// Takes over the values of the chosen keys, the highest source last.
    fn take(&mut self, raw: &RawConfig, is_chosen: impl Fn(&str) -> bool) {
        for mut setting in self.config.settings() {
            if !is_chosen(setting.key) {
                continue;
            }
            for item in raw.of(setting.key) {
                match setting.read(item) {
                    Ok(()) => self.provenance.record(setting.key, item),
                    Err(errors) => self.errors.extend(errors),
                }
            }
        }
    }

    /// The variable that asks for production where no profile is written: the names that Django
    /// deployments already set.
    fn production_switch(&mut self, environment: &[(String, String)]) -> Option<&'static str> {
        const PRODUCTION: &str = "USE_PRODUCTION_WEBSOCKET_MIDDLEWARE";
        let value = |wanted: &str| {
            environment
                .iter()
                .rev()
                .find(|(name, _)| name == wanted)
                .map(|(_, value)| value)
        };
        let says = |value: &String, words: [&str; 4]| {
            words
                .iter()
                .any(|word| value.trim().eq_ignore_ascii_case(word))
        };
        let asked = value(PRODUCTION);
        if asked.is_some_and(|asked| says(asked, ["true", "1", "yes", "on"])) {
            return Some(PRODUCTION);
        }
        if let Some(asked) = asked
            && !says(asked, ["false", "0", "no", "off"])
            && !asked.trim().is_empty()
        {
            // To fall back to development on a slip of the pen would open what should be closed.
            self.errors.push(ConfigError {
                source: Source::Environment(PRODUCTION.to_owned()),
                key: "profile".to_owned(),
                problem: Problem::BadValue {
                    found: Value::Word(asked.clone()).to_string(),
                    why: "neither yes nor no".to_owned(),
                    accepted: "true or false".to_owned(),
                    fix: None,
                },
            });
        }
        // DEBUG belongs to many programs; any value but a plain no says nothing about this one.
        let is_off = value("DEBUG").is_some_and(|debug| says(debug, ["false", "0", "no", "off"]));
        is_off.then_some("DEBUG")
    }
}
