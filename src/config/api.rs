//! `[api]` and `[[api_key]]`: where backends publish, and who they are.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::Profile;
use super::allowance::{Allowance, Measure};
use super::raw::environment_name;
use super::rules::Rules;
use super::secret::Secret;
use super::setting::{Setting, Slot, Table};
use super::text::{Form, HOST, NAME, Texts};
use super::units::{KIB, MIB};

/// `[api]`. It is served if there is a key, in [`key`](Self::key) or among
/// [`Config::api_keys`](super::Config::api_keys).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiConfig {
    /// Where backends connect, apart from the clients. Default 127.0.0.1:8081.
    pub listen: Vec<SocketAddr>,
    /// Whether connections begin with a TLS handshake, with the certificates of `[tls]`.
    pub tls: bool,
    /// Whether production serves it without TLS on addresses that other hosts can reach.
    pub allow_plain: bool,
    /// Hosts that `Host` may name, without a port. Default none: any, and on loopback addresses those
    /// of this machine.
    pub hosts: Vec<String>,
    /// A key that is good for everything, at least 32 bytes.
    pub key: Option<Secret>,
    /// A file that holds it, without the line end behind it. Instead of [`key`](Self::key).
    pub key_file: Option<PathBuf>,
    /// Most connections of backends at once, apart from those of clients. Default 256. Further ones are
    /// answered 503, or closed where TLS is spoken. Each takes a descriptor that clients cannot have.
    pub connections_max: u32,
    /// Longest body of a request, in bytes. Default 64 KiB. A longer one is answered 413.
    pub body_bytes_max: usize,
    /// Most channels in one broadcast. Default 1,000. More are answered 400.
    pub channels_max: usize,
    /// Most commands in one batch. Default 1,000. More are answered 400.
    pub commands_max: usize,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8081)],
            tls: false,
            allow_plain: false,
            hosts: Vec::new(),
            key: None,
            key_file: None,
            connections_max: 256,
            body_bytes_max: 64 * KIB,
            channels_max: 1000,
            commands_max: 1000,
        }
    }
}

impl ApiConfig {
    pub(super) fn settings(&mut self) -> Vec<Setting<'_>> {
        vec![
            Setting::new(
                "api.listen",
                Slot::List(Box::new(&mut self.listen)),
                "Where backends publish, if there is a key; none: nowhere",
            ),
            Setting::new(
                "api.tls",
                Slot::Switch(&mut self.tls),
                "Serve it over TLS, with the certificates of [tls]",
            ),
            Setting::new(
                "api.allow_plain",
                Slot::Switch(&mut self.allow_plain),
                "In production, serve it without TLS on addresses that other hosts can reach",
            ),
            Setting::new(
                "api.hosts",
                Slot::List(Box::new(Texts(&mut self.hosts, &HOST))),
                "Hosts that requests may be for; none: any, and on loopback addresses this machine's names",
            ),
            Setting::new(
                "api.key",
                Slot::Secret(&mut self.key),
                "A key that is good for everything; better in the environment or a file of its own",
            ),
            Setting::new(
                "api.key_file",
                Slot::File(&mut self.key_file),
                "A file that holds the key, instead of the key itself",
            ),
            Setting::new(
                "api.connections_max",
                Slot::Count(&mut self.connections_max, 1..=1_048_576),
                "Most connections of backends at once; they take no place of limits.connections_max",
            ),
            Setting::new(
                "api.body_bytes_max",
                Slot::Size(&mut self.body_bytes_max, KIB..=16 * MIB),
                "Longest body of a request; a longer one is answered 413",
            ),
            Setting::new(
                "api.channels_max",
                Slot::Count(&mut self.channels_max, 1..=100_000),
                "Most channels in one broadcast; more are answered 400",
            ),
            Setting::new(
                "api.commands_max",
                Slot::Count(&mut self.commands_max, 1..=10_000),
                "Most commands in one batch; more are answered 400",
            ),
        ]
    }
}

/// One `[[api_key]]`: a key that may be good for less than everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiKeyConfig {
    /// What it is called.
    pub name: String,
    /// The key, at least 32 bytes.
    pub key: Option<Secret>,
    /// A file that holds it, without the line end behind it. Instead of [`key`](Self::key).
    pub key_file: Option<PathBuf>,
    /// Channels that it is good for: those that begin like one of these. None: all, and every method.
    pub prefixes: Vec<String>,
    /// How many commands it is good for, each channel of a broadcast one of them; `None`: any number.
    pub rate: Option<Allowance>,
}

impl Table for ApiKeyConfig {
    fn settings(&mut self) -> Vec<Setting<'_>> {
        vec![
            Setting::new(
                "api_key.name",
                Slot::Text(&mut self.name, &NAME),
                "What the key is called in messages",
            )
            .required("name = \"shop\""),
            Setting::new(
                "api_key.key",
                Slot::Secret(&mut self.key),
                "The key; better in a file of its own",
            ),
            Setting::new(
                "api_key.key_file",
                Slot::File(&mut self.key_file),
                "A file that holds the key, instead of the key itself",
            ),
            Setting::new(
                "api_key.prefixes",
                Slot::List(Box::new(Texts(&mut self.prefixes, &CHANNEL_PREFIX))),
                "Channels it is good for begin like one of these; none: all channels, and methods that concern none",
            ),
            Setting::new(
                "api_key.rate",
                Slot::Allowance(&mut self.rate, Measure::Events),
                "Commands it is good for, each channel of a broadcast one; more are answered 429",
            ),
        ]
    }
}

/// The beginning of a channel's name.
const CHANNEL_PREFIX: Form = Form {
    accepted: "beginnings of channels: A-Z a-z 0-9 and _ - . : / @ #, up to 128 of them",
    fault: |text| match crate::hub::Channel::new(text) {
        Ok(_) => None,
        Err(crate::hub::ChannelError::Empty) => {
            Some("every channel begins like this; leave it out")
        }
        Err(_) => Some("no channel's name begins like this"),
    },
};

pub(super) fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Keys must not be read on their way, and whoever comes must show one.
pub(super) fn the_api_is_safe_where_it_can_be_reached(rules: &mut Rules<'_>) {
    let config = &rules.config;
    let api = &config.api;
    let open = (api.listen.iter().copied()).find(|address| !is_loopback(*address));
    if !config.serves_api() {
        if !api.listen.is_empty() && api.listen != ApiConfig::default().listen {
            let variable = environment_name("api.key");
            let text = format!(
                "not used: there is no key; set {variable}, or write api.key_file or [[api_key]]"
            );
            rules.warn("api.listen", text);
        }
        return;
    }
    let Some(address) = open.filter(|_| !api.tls) else {
        return;
    };
    if config.profile == Profile::Production && !api.allow_plain {
        rules.refuse(
            "api.listen",
            format!(
                "keys would cross the network to {address} for all to read; write api.tls = true, \
                 listen on 127.0.0.1, or, in a network of your own, write api.allow_plain = true"
            ),
        );
    } else {
        let text = format!("the API is served without encryption at {address}");
        rules.warn("api.allow_plain", text);
    }
}

/// A key is one thing.
pub(super) fn every_key_is_given_once(rules: &mut Rules<'_>) {
    let api = &rules.config.api;
    if api.key.is_some() && api.key_file.is_some() {
        rules.refuse(
            "api.key",
            "the key is given twice: here, and by api.key_file; remove one",
        );
    }
    let keys = rules.config.api_keys.clone();
    for (index, key) in keys.iter().enumerate() {
        match (&key.key, &key.key_file) {
            (Some(_), Some(_)) => rules.refuse_field(
                "api_key",
                index,
                "key",
                "the key is given twice: here, and by key_file; remove one",
            ),
            (None, None) => rules.refuse_field(
                "api_key",
                index,
                "key_file",
                "there is no key; write key_file = \"FILE\"",
            ),
            _ => {}
        }
        if keys[..index].iter().any(|other| other.name == key.name) {
            let why = "there are two keys of this name; rename one";
            rules.refuse_field("api_key", index, "name", why);
        }
        let main = rules.config.api.key.as_ref();
        let others = keys[..index].iter().filter_map(|other| other.key.as_ref());
        let is_known = |own: &Secret| others.chain(main).any(|other| other == own);
        if key.key.as_ref().is_some_and(is_known) {
            let why = "another key is the same, so that it is not known which one counts";
            rules.refuse_field("api_key", index, "key", why);
        }
    }
}

/// Clients, administrators and backends do not share an address.
pub(super) fn the_api_has_addresses_of_its_own(rules: &mut Rules<'_>) {
    let config = &rules.config;
    if !config.serves_api() {
        return;
    }
    let clients = config.listen.iter().map(|listen| listen.address);
    let mut seen: Vec<SocketAddr> = clients
        .chain(config.monitor.listen.iter().copied())
        .collect();
    let mut taken = None;
    for &address in &config.api.listen {
        if address.port() != 0 && seen.contains(&address) {
            taken = Some(address);
        }
        seen.push(address);
    }
    if let Some(address) = taken {
        rules.refuse(
            "api.listen",
            format!("{address} is listed twice, here, in listen or in monitor.listen; choose another port"),
        );
    }
}

/// What a request may bring must be what a subscriber's outbox may hold.
pub(super) fn what_is_published_can_be_delivered(rules: &mut Rules<'_>) {
    let [body, outbox] = [
        rules.config.api.body_bytes_max,
        rules.config.outbox.bytes_max,
    ];
    if rules.config.serves_api() && body > outbox {
        let origin = rules.origin("outbox.bytes_max");
        rules.refuse(
            "api.body_bytes_max",
            format!(
                "a longer publication would not fit in front of any subscriber; write at most \
                 outbox.bytes_max = {} (set by: {origin}), or raise that",
                super::units::format_size(outbox as u64)
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, ConfigErrors, File, Flags, Host, Loaded, Sources};
    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    fn load(text: &str) -> Result<Loaded, ConfigErrors> {
        Config::load(&Sources {
            flags: Flags::default(),
            environment: Vec::new(),
            file: Some(File {
                path: "t.toml",
                text,
            }),
            host: Host {
                cores: 2,
                descriptors_max: Some(100_000),
            },
        })
    }

    /// What is said of a configuration that is refused.
    fn refused(text: &str) -> String {
        match load(text) {
            Ok(_) => panic!("accepted: {text}"),
            Err(errors) => errors.to_string(),
        }
    }

    #[test]
    fn the_api_is_served_where_there_is_a_key() {
        assert!(!load("").unwrap().config.serves_api());
        let main = load(&format!("[api]\nkey = \"{KEY}\"")).unwrap();
        assert!(main.config.serves_api());
        let nowhere = load(&format!("[api]\nlisten = []\nkey = \"{KEY}\"")).unwrap();
        assert!(!nowhere.config.serves_api());
        let idle = load("[api]\nlisten = [\"127.0.0.1:1\"]").unwrap();
        assert!(!idle.config.serves_api());
        assert!((idle.warnings.iter()).any(|warning| warning.key == "api.listen"));
        let other = "[[api_key]]\nname = \"shop\"\nkey_file = \"k\"\nprefixes = [\"shop:\"]\n\
                     rate = \"10/s burst 20\"";
        let other = load(other).unwrap();
        assert!(other.config.serves_api());
        let key = &other.config.api_keys[0];
        assert_eq!((&*key.name, &*key.prefixes[0]), ("shop", "shop:"));
        assert_eq!(key.rate.unwrap().burst(), 20);
        let environment = [
            ("TIDEGATE_API_KEY", KEY),
            ("TIDEGATE_API_LISTEN", "127.0.0.1:0"),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let loaded = Config::load(&Sources {
            flags: Flags::default(),
            environment: environment.into(),
            file: None,
            host: Host {
                cores: 2,
                descriptors_max: None,
            },
        })
        .unwrap();
        assert_eq!(
            loaded.config.api.key.as_ref().map(Secret::expose),
            Some(KEY)
        );
        assert!(!format!("{loaded:?}{}", loaded.to_toml()).contains(KEY));
    }

    #[test]
    fn keys_that_make_no_sense_are_refused() {
        let key = format!("key = \"{KEY}\"");
        for (text, why) in [
            (format!("[api]\n{key}\nkey_file = \"k\""), "given twice"),
            ("[api]\nkey = \"short\"".to_owned(), "api.key"),
            ("[[api_key]]\nname = \"a\"".to_owned(), "there is no key"),
            (format!("[[api_key]]\n{key}"), "name"),
            (format!("[[api_key]]\nname = \"a\"\n{key}\nkey_file = \"k\""), "given twice"),
            (
                format!("[api]\n{key}\n[[api_key]]\nname = \"a\"\n{key}"),
                "another key is the same",
            ),
            (
                "[[api_key]]\nname = \"a\"\nkey_file = \"k\"\n[[api_key]]\nname = \"a\"\nkey_file = \"l\""
                    .to_owned(),
                "two keys of this name",
            ),
            (
                "[[api_key]]\nname = \"a\"\nkey_file = \"k\"\nprefixes = [\"a b\"]".to_owned(),
                "no channel's name begins like this",
            ),
            (
                format!("[api]\n{key}\nlisten = [\"127.0.0.1:8080\"]"),
                "listed twice",
            ),
            (
                format!("[api]\n{key}\nbody_bytes_max = \"2MiB\""),
                "would not fit",
            ),
        ] {
            let said = refused(&text);
            assert!(said.contains(why), "{text}: {said}");
            assert!(!said.contains(KEY), "{text}: {said}");
        }
    }

    #[test]
    fn production_does_not_send_keys_over_a_network_in_the_clear() {
        let production = |api: &str| {
            format!(
                "profile = \"production\"\ndemo_routes = false\n[[listen]]\naddress = \
                 \"127.0.0.1:1\"\n[api]\nkey = \"{KEY}\"\n{api}"
            )
        };
        assert!(load(&production("")).is_ok());
        let open = "listen = [\"0.0.0.0:8081\"]\n";
        assert!(refused(&production(open)).contains("api.allow_plain = true"));
        let allowed = load(&production(&format!("{open}allow_plain = true"))).unwrap();
        assert!(
            allowed
                .warnings
                .iter()
                .any(|warning| warning.key == "api.allow_plain")
        );
        let tls = production(&format!("{open}tls = true"));
        assert!(refused(&tls).contains("api.tls"), "there is no certificate");
        let certificates = "\n[tls]\ncertificates = [{ certificate = \"c\", key = \"k\" }]";
        assert!(load(&(tls + certificates)).is_ok());
    }
}
