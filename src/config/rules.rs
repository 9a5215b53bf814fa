//! Rules between keys: what is good by itself but wrong beside the rest, and what production
//! refuses.
//!
//! A rule is skipped when one of the keys it compares is already in error: the value in its place
//! is then a default that nobody chose, and a second message about it would mislead.

use std::collections::BTreeSet;

use super::error::{ConfigError, ConfigErrors, Problem, Source, Warning};
use super::raw::environment_name;
use super::sections::CONNECTIONS_MAX;
use super::units::format_duration;
use super::{Config, Host, Profile, Provenance};

/// A look at one configuration, and what was found.
pub(super) struct Rules<'a> {
    pub(super) config: &'a mut Config,
    pub(super) provenance: &'a Provenance,
    pub(super) host: &'a Host,
    pub(super) errors: Vec<ConfigError>,
    pub(super) warnings: Vec<Warning>,
}

impl Rules<'_> {
    /// Applies every rule.
    ///
    /// # Errors
    /// All errors there were before, and those of the rules.
    pub(super) fn check(mut self) -> Result<Vec<Warning>, ConfigErrors> {
        let faulty: BTreeSet<String> = self.errors.iter().map(|e| e.key.clone()).collect();
        let is_faulty = |key: &str| {
            // A faulty `listen.address` makes `listen` as a whole unknown.
            faulty.iter().any(|f| {
                f.strip_prefix(key)
                    .is_some_and(|r| r.is_empty() || r.starts_with('.'))
            })
        };
        for (keys, rule) in RULES {
            if !keys.iter().any(|key| is_faulty(key)) {
                rule(&mut self);
            }
        }
        if self.errors.is_empty() {
            Ok(self.warnings)
        } else {
            Err(ConfigErrors(self.errors))
        }
    }

    fn refuse(&mut self, key: &str, why: impl Into<String>) {
        let source = self.provenance.of(key).clone();
        let settings = self.config.settings();
        let written = settings.iter().find(|setting| setting.key == key);
        let found = written.map_or_else(String::new, |setting| setting.slot.write());
        let problem = Problem::Conflict {
            found,
            why: why.into(),
        };
        self.errors.push(ConfigError {
            source,
            key: key.to_owned(),
            problem,
        });
    }

    /// Refuses one listener, at its own place.
    fn refuse_listener(&mut self, index: usize, why: impl Into<String>) {
        self.errors.push(ConfigError {
            source: self.provenance.of_item("listen", index).clone(),
            key: "listen".to_owned(),
            problem: Problem::Conflict {
                found: self.config.listen[index].to_toml(),
                why: why.into(),
            },
        });
    }

    fn warn(&mut self, key: &'static str, text: impl Into<String>) {
        let source = self.provenance.of(key).clone();
        self.warnings.push(Warning {
            source,
            key,
            text: text.into(),
        });
    }

    /// The source of `key`, to be named beside its value.
    fn origin(&self, key: &str) -> String {
        self.provenance.of(key).to_string()
    }
}

/// The keys a rule compares, and the rule.
type Rule = (&'static [&'static str], fn(&mut Rules<'_>));

const RULES: &[Rule] = &[
    (&["listen", "profile"], somebody_can_connect),
    (&["listen"], every_listener_is_listed_once),
    (
        &["listen", "profile", "tls.certificates"],
        tls_has_certificates,
    ),
    (
        &["listen", "profile", "allow_plain"],
        plain_stays_on_loopback,
    ),
    (
        &["listen", "profile", "demo_routes"],
        demo_routes_are_a_decision,
    ),
    (
        &["http.head_bytes_max", "http.target_bytes_max"],
        the_target_fits_the_head,
    ),
    (
        &["websocket.ping_interval", "websocket.pong_timeout"],
        a_pong_is_due_before_the_next_ping,
    ),
    (
        &["outbox.bytes_high_water", "outbox.bytes_max"],
        the_high_water_mark_is_below_the_limit,
    ),
    (
        &["websocket.message_bytes_max", "outbox.bytes_max"],
        the_longest_message_can_be_echoed,
    ),
    (
        &["limits.connections_max", "reactors", "listen"],
        every_connection_has_a_descriptor,
    ),
];

fn somebody_can_connect(rules: &mut Rules<'_>) {
    if rules.config.listen.is_empty() {
        rules.refuse(
            "listen",
            "there is no listener; add [[listen]] with address = \"IP:PORT\" and tls = true, \
             or use --listen-tls",
        );
    }
}

/// With SO_REUSEPORT the kernel would take the same address twice without a word.
fn every_listener_is_listed_once(rules: &mut Rules<'_>) {
    for index in 0..rules.config.listen.len() {
        let address = rules.config.listen[index].address;
        let is_listed = rules.config.listen[..index]
            .iter()
            .any(|other| other.address == address);
        if is_listed && address.port() != 0 {
            rules.refuse_listener(index, "this address is listed twice; remove one");
        }
    }
}

fn tls_has_certificates(rules: &mut Rules<'_>) {
    let has_certificates = !rules.config.tls.certificates.is_empty();
    match rules.config.listen.iter().position(|listen| listen.tls) {
        None if has_certificates => {
            rules.warn("tls.certificates", "not used: no listener has tls = true");
        }
        Some(index) if !has_certificates && rules.config.profile == Profile::Production => {
            rules.refuse_listener(
                index,
                "there are no certificate files, and production makes none itself; under [tls] \
                 write certificates = [{ certificate = \"FILE\", key = \"FILE\" }], or use \
                 --tls-cert and --tls-key",
            );
        }
        _ => {}
    }
}

fn plain_stays_on_loopback(rules: &mut Rules<'_>) {
    if rules.config.profile != Profile::Production {
        return;
    }
    for index in 0..rules.config.listen.len() {
        let listen = &rules.config.listen[index];
        if listen.tls || listen.is_loopback() {
            continue;
        }
        if rules.config.allow_plain {
            let text = format!("{} serves without encryption", listen.address);
            rules.warn("allow_plain", text);
        } else {
            let variable = environment_name("allow_plain");
            rules.refuse_listener(
                index,
                format!(
                    "this would serve without encryption beyond this host; write tls = true here, \
                     or, behind a proxy that ends TLS, allow_plain = true at the top of the file \
                     (or {variable}=true)"
                ),
            );
        }
    }
}

fn demo_routes_are_a_decision(rules: &mut Rules<'_>) {
    let open = "/echo and /broadcast are open to everyone who can connect (no admission)";
    match rules.config.profile {
        Profile::Production if rules.config.demo_routes => rules.warn("demo_routes", open),
        Profile::Production if *rules.provenance.of("demo_routes") == Source::Default => {
            let profile = rules.origin("profile");
            rules.refuse(
                "demo_routes",
                format!(
                    "production (set by: {profile}) does not serve them unasked: {open}; write \
                     demo_routes = true to serve them all the same, or demo_routes = false to \
                     serve no route",
                ),
            );
        }
        Profile::Development if rules.config.demo_routes => {
            let mut listeners = rules.config.listen.iter();
            if let Some(listen) = listeners.find(|listen| !listen.is_loopback()) {
                let text = format!("on {}, {open}", listen.address);
                rules.warn("demo_routes", text);
            }
        }
        Profile::Production | Profile::Development => {}
    }
}

fn the_target_fits_the_head(rules: &mut Rules<'_>) {
    if rules.config.http.target_bytes_max >= rules.config.http.head_bytes_max {
        let head = rules.origin("http.head_bytes_max");
        rules.refuse(
            "http.target_bytes_max",
            format!(
                "the target is a part of the head, so it must be shorter than http.head_bytes_max \
                 (set by: {head}); lower this or raise that"
            ),
        );
    }
}

fn a_pong_is_due_before_the_next_ping(rules: &mut Rules<'_>) {
    match rules.config.websocket.ping_interval {
        None => rules.warn(
            "websocket.ping_interval",
            "off: a client that vanished without closing is never noticed",
        ),
        Some(interval) if rules.config.websocket.pong_timeout >= interval => {
            let origin = rules.origin("websocket.ping_interval");
            let interval = format_duration(interval);
            rules.refuse(
                "websocket.pong_timeout",
                format!(
                    "must be shorter than websocket.ping_interval = \"{interval}\" \
                     (set by: {origin}); lower this or raise that"
                ),
            );
        }
        Some(_) => {}
    }
}

fn the_high_water_mark_is_below_the_limit(rules: &mut Rules<'_>) {
    if rules.config.outbox.bytes_high_water > rules.config.outbox.bytes_max {
        let origin = rules.origin("outbox.bytes_max");
        rules.refuse(
            "outbox.bytes_high_water",
            format!(
                "must not exceed outbox.bytes_max (set by: {origin}); lower this or raise that"
            ),
        );
    }
}

fn the_longest_message_can_be_echoed(rules: &mut Rules<'_>) {
    // A frame from the server has a header of at most ten bytes (RFC 6455 §5.2, no mask).
    const HEADER_BYTES_MAX: usize = 10;
    let frame = rules
        .config
        .websocket
        .message_bytes_max
        .saturating_add(HEADER_BYTES_MAX);
    if frame > rules.config.outbox.bytes_max {
        rules.warn(
            "websocket.message_bytes_max",
            "a message this long does not fit into outbox.bytes_max, so it cannot be passed on to \
             a client that is slow to read",
        );
    }
}

fn every_connection_has_a_descriptor(rules: &mut Rules<'_>) {
    let room = rules.config.connections_room(rules.host);
    let Some(limit) = rules
        .host
        .descriptors_max
        .filter(|_| room < CONNECTIONS_MAX)
    else {
        return;
    };
    if room == 0 {
        rules.refuse(
            "limits.connections_max",
            format!("the limit of {limit} descriptors leaves none for a connection; raise it (LimitNOFILE)"),
        );
    } else if rules.config.limits.connections_max > room {
        rules.refuse(
            "limits.connections_max",
            format!(
                "the limit of {limit} descriptors leaves {room} for connections; write {room}, or \
                 raise the limit (LimitNOFILE)"
            ),
        );
    }
}
