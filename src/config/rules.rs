//! Rules between keys: what is good by itself but wrong beside the rest, and what production
//! refuses.
//!
//! A rule is skipped when one of the keys it compares is already in error: the value in its place
//! is then a default that nobody chose, and a second message about it would mislead.

use std::collections::BTreeSet;

use crate::admission::jwt::{Algorithm, KeySet};
use crate::admission::limits::Limit;
use crate::admission::{Route, TokenDemand};

use super::alert::ALERTS_MAX;
use super::allowance::Allowance;
use super::api;
use super::channels::channels_fit_their_route;
use super::error::{ConfigError, ConfigErrors, Problem, Source, Warning, shown};
use super::hooks::hooks_can_be_called;
use super::hub::ChannelConfig;
use super::limits::CONNECTIONS_MAX;
use super::monitor;
use super::raw::environment_name;
use super::route::RouteConfig;
use super::token::IssuerConfig;
use super::units::{format_duration, format_size};
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

    pub(super) fn refuse(&mut self, key: &str, why: impl Into<String>) {
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

    /// Refuses one key of an issuer, at its own place.
    fn refuse_issuer(&mut self, place: IssuerPlace, name: &str, why: impl Into<String>) {
        match place {
            IssuerPlace::Listed(index) => self.refuse_field("issuer", index, name, why),
            IssuerPlace::Inline => {
                let key = format!("token.{name}");
                self.errors.push(ConfigError {
                    source: self.provenance.of(&key).clone(),
                    key,
                    problem: Problem::Rule { why: why.into() },
                });
            }
        }
    }

    /// Refuses one key of a table in a list, at its own place, or at the table's if it is not written.
    pub(super) fn refuse_field(
        &mut self,
        list: &str,
        index: usize,
        name: &str,
        why: impl Into<String>,
    ) {
        let field = self.provenance.of_field(list, index, name);
        let source = field.unwrap_or_else(|| self.provenance.of_item(list, index));
        self.errors.push(ConfigError {
            source: source.clone(),
            key: format!("{list}.{name}"),
            problem: Problem::Rule { why: why.into() },
        });
    }

    /// Refuses a key of a section without showing its value.
    fn refuse_section(&mut self, key: &str, why: &str) {
        self.errors.push(ConfigError {
            source: self.provenance.of(key).clone(),
            key: key.to_owned(),
            problem: Problem::Rule {
                why: why.to_owned(),
            },
        });
    }

    pub(super) fn warn(&mut self, key: &'static str, text: impl Into<String>) {
        let source = self.provenance.of(key).clone();
        self.warnings.push(Warning {
            source,
            key,
            text: text.into(),
        });
    }

    /// The source of `key`, to be named beside its value.
    pub(super) fn origin(&self, key: &str) -> String {
        self.provenance.of(key).to_string()
    }
}

/// Where an issuer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IssuerPlace {
    /// In `[token]`.
    Inline,
    /// In the `[[issuer]]` of this index.
    Listed(usize),
}

impl IssuerPlace {
    const fn section(self) -> &'static str {
        match self {
            Self::Inline => "token",
            Self::Listed(_) => "issuer",
        }
    }
}

/// The keys a rule compares, and the rule.
type Rule = (&'static [&'static str], fn(&mut Rules<'_>));

const RULES: &[Rule] = &[
    (&["listen", "profile"], somebody_can_connect),
    (&["listen"], every_listener_is_listed_once),
    (
        &["listen", "profile", "tls.certificates", "api", "api_key"],
        tls_has_certificates,
    ),
    (
        &["listen", "profile", "allow_plain"],
        plain_stays_on_loopback,
    ),
    (
        &["listen", "profile", "demo_routes", "route"],
        demo_routes_are_a_decision,
    ),
    (&["profile", "demo_page"], the_page_is_for_development),
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
    (
        &["limits"],
        every_client_finds_room_in_the_table_of_addresses,
    ),
    (
        &["address.trusted_networks", "address.header"],
        a_header_has_somebody_to_believe,
    ),
    (
        &["address.trusted_networks", "listen"],
        a_proxy_header_has_somebody_to_believe,
    ),
    (
        &["address.trusted_networks", "address.header", "listen"],
        whoever_is_trusted_is_asked,
    ),
    (
        &["address.ipv6_width", "address.site_width"],
        a_site_is_wider_than_an_address,
    ),
    (
        &[
            "limits.bytes_per_second",
            "limits.bytes_per_minute",
            "websocket.message_bytes_max",
        ],
        the_longest_message_fits_the_burst,
    ),
    (&["limits.dry_run"], messages_and_bytes_run_dry_together),
    (&["origin.allow_null", "profile"], null_is_no_origin),
    (
        &["origin.allow_loopback", "profile"],
        loopback_is_for_development,
    ),
    (&["token.sources"], sources_are_listed_once),
    (&["token"], inline_keys_are_of_one_kind),
    (&["issuer"], listed_keys_are_of_one_kind),
    (&["token", "issuer"], issuers_can_be_told_apart),
    (&["channel"], every_channel_has_one_policy),
    (&["route", "demo_routes"], every_path_has_one_route),
    (&["route"], rules_ask_for_what_there_is),
    (&["route"], channels_fit_their_route),
    (
        &["route", "token", "issuer", "profile"],
        tokens_can_be_verified,
    ),
    (
        &["route", "websocket.message_bytes_max"],
        messages_of_routes_fit_the_burst,
    ),
    (
        &["route", "origin", "profile"],
        browsers_have_pages_to_come_from,
    ),
    (&["alert"], alerts_make_sense),
    (&["route", "hooks", "profile"], hooks_can_be_called),
    (&["webhook"], the_webhook_has_what_it_needs),
    (
        &["monitor.listen", "monitor.token", "monitor.token_file"],
        monitor::strangers_need_a_token,
    ),
    (
        &["monitor.token", "monitor.token_file"],
        monitor::the_token_is_given_once,
    ),
    (
        &["monitor.listen", "listen"],
        monitor::it_has_addresses_of_its_own,
    ),
    (
        &["api", "api_key", "profile"],
        api::the_api_is_safe_where_it_can_be_reached,
    ),
    (&["api", "api_key"], api::every_key_is_given_once),
    (
        &["api", "api_key", "listen", "monitor.listen"],
        api::the_api_has_addresses_of_its_own,
    ),
    (
        &["api", "api_key", "outbox.bytes_max"],
        api::what_is_published_can_be_delivered,
    ),
];

fn alerts_make_sense(rules: &mut Rules<'_>) {
    let alerts = rules.config.alerts.clone();
    if alerts.len() > ALERTS_MAX {
        rules.refuse_field(
            "alert",
            ALERTS_MAX,
            "name",
            format!("there are more than {ALERTS_MAX} rules"),
        );
    }
    for (index, alert) in alerts.iter().enumerate().take(ALERTS_MAX) {
        if alerts[..index].iter().any(|other| other.name == alert.name) {
            let why = format!("there are two rules called {}; remove one", alert.name);
            rules.refuse_field("alert", index, "name", why);
        } else if let Err((key, why)) = alert.resolve() {
            rules.refuse_field("alert", index, key, why);
        }
    }
}

fn the_webhook_has_what_it_needs(rules: &mut Rules<'_>) {
    let webhook = rules.config.webhook.clone();
    let Some(url) = &webhook.url else { return };
    if url.starts_with("http://") && !webhook.allow_http {
        rules.refuse(
            "webhook.url",
            "this would be sent without TLS; write https:// or allow_http = true",
        );
    }
    match (&webhook.secret, &webhook.secret_file) {
        (Some(_), Some(_)) => rules.refuse_section(
            "webhook.secret_file",
            "the secret is written twice; remove webhook.secret or webhook.secret_file",
        ),
        (None, None) if rules.config.profile == Profile::Production => rules.refuse_section(
            "webhook.secret",
            "without a secret, the receiver cannot tell who posts; write webhook.secret_file",
        ),
        _ => {}
    }
}

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
    let is_for_api = rules.config.serves_api() && rules.config.api.tls;
    if is_for_api && !has_certificates && rules.config.profile == Profile::Production {
        rules.refuse(
            "api.tls",
            "there are no certificate files, and production makes none itself; under [tls] write \
             certificates = [{ certificate = \"FILE\", key = \"FILE\" }]",
        );
    }
    match rules.config.listen.iter().position(|listen| listen.tls) {
        None if has_certificates && !is_for_api => {
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

fn the_page_is_for_development(rules: &mut Rules<'_>) {
    if rules.config.profile == Profile::Production && rules.config.demo_page {
        let profile = rules.origin("profile");
        rules.refuse(
            "demo_page",
            format!("production (set by: {profile}) serves no page to try things out; write false"),
        );
    }
}

fn demo_routes_are_a_decision(rules: &mut Rules<'_>) {
    let open = "/echo and /broadcast are open to everyone who can connect (no admission)";
    match rules.config.profile {
        Profile::Production if rules.config.demo_routes => rules.warn("demo_routes", open),
        Profile::Production
            if *rules.provenance.of("demo_routes") == Source::Default
                && rules.config.routes.is_empty() =>
        {
            let profile = rules.origin("profile");
            rules.refuse(
                "demo_routes",
                format!(
                    "production (set by: {profile}) does not serve them unasked: {open}; write \
                     [[route]] with what you serve, demo_routes = true to serve them all the same, \
                     or demo_routes = false to serve no route",
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

/// Where addresses are limited, those that find no room in their table share one account.
fn every_client_finds_room_in_the_table_of_addresses(rules: &mut Rules<'_>) {
    let limits = &rules.config.limits;
    let (connections, addresses) = (limits.connections_max, limits.addresses_max);
    let is_limited = limits.address_connections_max.is_some() || limits.address_attempts.is_some();
    if is_limited && addresses < connections {
        // An IPv6 client takes two: for its address and for its site.
        let enough = connections.saturating_mul(2).min(CONNECTIONS_MAX);
        rules.warn(
            "limits.addresses_max",
            format!(
                "{connections} connections may come from more than {addresses} addresses, and those \
                 beyond share one account; write {enough} (64 bytes each), or a lower \
                 limits.connections_max"
            ),
        );
    }
}

fn a_header_has_somebody_to_believe(rules: &mut Rules<'_>) {
    let address = &rules.config.address;
    if address.header.is_some() && address.trusted_networks.networks().is_empty() {
        rules.refuse(
            "address.header",
            "there is no trusted proxy to believe it from, and from anybody else it is forged; \
             write address.trusted_networks = [\"10.0.0.0/8\"] with the networks of your proxies",
        );
    }
}

fn a_proxy_header_has_somebody_to_believe(rules: &mut Rules<'_>) {
    if !rules.config.address.trusted_networks.networks().is_empty() {
        return;
    }
    for index in 0..rules.config.listen.len() {
        if rules.config.listen[index].proxy_protocol {
            rules.refuse_listener(
                index,
                "there is no trusted proxy to take a PROXY header from; write \
                 address.trusted_networks = [\"10.0.0.0/8\"] with the networks of your proxies",
            );
        }
    }
}

fn whoever_is_trusted_is_asked(rules: &mut Rules<'_>) {
    let address = &rules.config.address;
    let is_asked = address.header.is_some()
        || rules
            .config
            .listen
            .iter()
            .any(|listen| listen.proxy_protocol);
    if !is_asked && !address.trusted_networks.networks().is_empty() {
        rules.warn(
            "address.trusted_networks",
            "not used: write address.header = \"x-forwarded-for\", or proxy_protocol = true at a \
             listener, whichever the proxy sends",
        );
    }
}

fn a_site_is_wider_than_an_address(rules: &mut Rules<'_>) {
    let address = &rules.config.address;
    let ipv6 = address.ipv6_width;
    if address.site_width.is_some_and(|site| site >= ipv6) {
        let origin = rules.origin("address.ipv6_width");
        rules.refuse(
            "address.site_width",
            format!(
                "a site holds several addresses, so this must be less than address.ipv6_width = \
                 {ipv6} (set by: {origin}); write {} or less, or \"off\"",
                ipv6.saturating_sub(1)
            ),
        );
    }
}

fn the_longest_message_fits_the_burst(rules: &mut Rules<'_>) {
    let message = rules.config.websocket.message_bytes_max;
    let traffic = rules.config.limits.traffic;
    for (key, allowance) in [
        ("limits.bytes_per_second", traffic.bytes_per_second),
        ("limits.bytes_per_minute", traffic.bytes_per_minute),
    ] {
        if let Some(why) = message_beyond_burst(allowance, message) {
            let origin = rules.origin("websocket.message_bytes_max");
            rules.refuse(
                key,
                format!("{why}websocket.message_bytes_max (set by: {origin}), or lower that"),
            );
        }
    }
}

/// Why no message of the longest kind could ever be received, up to the key that says how long it is.
fn message_beyond_burst(allowance: Option<Allowance>, message_bytes_max: usize) -> Option<String> {
    let message = u64::try_from(message_bytes_max).unwrap_or(u64::MAX);
    let allowance = allowance.filter(|allowance| allowance.burst() < message)?;
    let [amount, burst] = [allowance.amount(), message].map(format_size);
    Some(format!(
        "a message longer than the burst is always refused; write \"{amount} burst {burst}\", \
         which is "
    ))
}

/// What is received is judged once, as a message and by its bytes.
fn messages_and_bytes_run_dry_together(rules: &mut Rules<'_>) {
    let limits = &rules.config.limits;
    if limits.is_dry(Limit::Messages) != limits.is_dry(Limit::Bytes) {
        rules.refuse(
            "limits.dry_run",
            "\"messages\" and \"bytes\" are enforced or tried out together; write both or none",
        );
    }
}

fn null_is_no_origin(rules: &mut Rules<'_>) {
    if rules.config.profile == Profile::Production && rules.config.origin.allow_null {
        rules.warn(
            "origin.allow_null",
            "any page can make a visitor's browser send Origin: null, so this lets in all of them",
        );
    }
}

fn loopback_is_for_development(rules: &mut Rules<'_>) {
    if rules.config.profile == Profile::Production && rules.config.origin.allow_loopback {
        rules.warn(
            "origin.allow_loopback",
            "pages from the visitor's own machine are let in, whoever put them there",
        );
    }
}

fn sources_are_listed_once(rules: &mut Rules<'_>) {
    let sources = &rules.config.token.sources.order;
    let unique = |(at, source)| !sources[..at].contains(source);
    if !sources.iter().enumerate().all(unique) {
        rules.refuse("token.sources", "a source is listed twice; remove one");
    } else if sources.is_empty() {
        rules.refuse(
            "token.sources",
            "no token could ever be found; write [\"query\", \"header\"], or token.required = false \
             if none is wanted",
        );
    }
}

fn inline_keys_are_of_one_kind(rules: &mut Rules<'_>) {
    let issuer = rules.config.token.issuer.clone();
    keys_are_of_one_kind(rules, IssuerPlace::Inline, &issuer);
}

fn listed_keys_are_of_one_kind(rules: &mut Rules<'_>) {
    for (index, issuer) in rules.config.issuers.clone().iter().enumerate() {
        let place = IssuerPlace::Listed(index);
        if issuer.keys.is_empty() {
            rules.refuse_issuer(
                place,
                "secret",
                "this issuer has no key, so that no token of its could be verified; write secret, \
                 secret_file, key_files, jwks_file or jwks_url",
            );
        }
        keys_are_of_one_kind(rules, place, issuer);
    }
}

fn keys_are_of_one_kind(rules: &mut Rules<'_>, place: IssuerPlace, issuer: &IssuerConfig) {
    let keys = &issuer.keys;
    let section = place.section();
    if keys.secret.is_some() && keys.secret_file.is_some() {
        rules.refuse_issuer(
            place,
            "secret",
            format!("the secret is given twice: here, and by {section}.secret_file; remove one"),
        );
    }
    let has_current = keys.secret.is_some() || keys.secret_file.is_some();
    if !keys.previous_secrets.is_empty() && !has_current {
        rules.refuse_issuer(
            place,
            "previous_secrets",
            format!("there are previous secrets and no present one; write {section}.secret, too"),
        );
    }
    if keys.previous_secrets.len() >= KeySet::UNNAMED_MAX {
        rules.refuse_issuer(
            place,
            "previous_secrets",
            format!(
                "each forged token is tried with every secret, so there are {} at most; remove the \
                 oldest",
                KeySet::UNNAMED_MAX - 1
            ),
        );
    }
    if keys.has_secrets() && keys.has_public_keys() {
        rules.refuse_issuer(
            place,
            "secret",
            format!(
                "secrets do not stand beside public keys ({section}.key_files, jwks_file, jwks_url); \
                 give each its own [[issuer]]"
            ),
        );
    }
    let is_hmac = keys.algorithm.map(Algorithm::is_hmac);
    if keys.has_secrets() && is_hmac == Some(false) {
        rules.refuse_issuer(
            place,
            "algorithm",
            "a secret is for HS256, HS384 or HS512; write one of those, or \"auto\"",
        );
    }
    let takes_no_secret = !keys.key_files.is_empty() || keys.jwks_url.is_some();
    if takes_no_secret && is_hmac == Some(true) {
        rules.refuse_issuer(
            place,
            "algorithm",
            "this algorithm is for secrets, and the keys are public ones; write theirs, or \"auto\"",
        );
    }
    let unnamed = keys.key_files.iter().filter(|file| file.id.is_none());
    if unnamed.count() > KeySet::UNNAMED_MAX {
        rules.refuse_issuer(
            place,
            "key_files",
            format!(
                "a token that names no key is tried with each of these that has no kid, so there \
                 are {} of those at most; write \"KID=FILE\"",
                KeySet::UNNAMED_MAX
            ),
        );
    }
    let is_plain = keys
        .jwks_url
        .as_ref()
        .is_some_and(|url| url.starts_with("http://"));
    if is_plain && !keys.jwks_allow_http {
        rules.refuse_issuer(
            place,
            "jwks_url",
            format!(
                "without TLS, whoever can change what comes back can issue tokens; write https://, \
                 or {section}.jwks_allow_http = true if the way there is safe"
            ),
        );
    }
    if keys.jwks_max_age < keys.jwks_refresh {
        let refresh = format_duration(keys.jwks_refresh);
        rules.refuse_issuer(
            place,
            "jwks_max_age",
            format!(
                "keys would run out before they are fetched again; write at least \"{refresh}\", \
                 which is {section}.jwks_refresh"
            ),
        );
    }
    if !issuer.policy.require_expiry && rules.config.profile == Profile::Production {
        // Said once, where it was decided: issuers of a list inherit it.
        if place == IssuerPlace::Inline {
            rules.warn(
                "token.require_expiry",
                "a token without exp is good for ever, and so is its connection",
            );
        }
    }
}

fn issuers_can_be_told_apart(rules: &mut Rules<'_>) {
    let inline = &rules.config.token.issuer;
    let mut known = Vec::new();
    if !inline.keys.is_empty() {
        known.push(inline.policy.clone());
    }
    for (index, issuer) in rules.config.issuers.clone().into_iter().enumerate() {
        let place = IssuerPlace::Listed(index);
        let policy = issuer.policy;
        if known.iter().any(|other| other.issuer == policy.issuer) {
            let why = match &policy.issuer {
                Some(_) => "there are two issuers of this name; remove one",
                None => {
                    "there are two issuers without a name; write issuer = \"the iss of its tokens\""
                }
            };
            rules.refuse_issuer(place, "issuer", why);
        } else if known
            .iter()
            .any(|other| other.user_prefix == policy.user_prefix)
        {
            rules.warn(
                "issuer",
                format!(
                    "{} shares its user_prefix with another issuer: users of the same id are one to \
                     limits and rules",
                    policy.issuer.as_deref().map_or_else(|| "an issuer".to_owned(), shown)
                ),
            );
        }
        known.push(policy);
    }
}

fn every_channel_has_one_policy(rules: &mut Rules<'_>) {
    let channels = rules.config.channels.clone();
    for (index, channel) in channels.iter().enumerate() {
        if channel.name.is_some() && channel.prefix.is_some() {
            let why = "this table has a name already; write name or prefix";
            rules.refuse_field("channel", index, "prefix", why);
            continue;
        }
        let is_same = |other: &ChannelConfig| {
            (&other.name, &other.prefix) == (&channel.name, &channel.prefix)
        };
        if channels[..index].iter().any(is_same) {
            let (field, why) = match (&channel.name, &channel.prefix) {
                (Some(_), _) => ("name", "this channel has a table already; remove one"),
                (None, Some(_)) => ("prefix", "this prefix has a table already; remove one"),
                (None, None) => (
                    "prefix",
                    "a table without name and prefix is for all channels, and there is one already",
                ),
            };
            rules.refuse_field("channel", index, field, why);
        }
    }
}

fn every_path_has_one_route(rules: &mut Rules<'_>) {
    let demo = ["/echo", "/broadcast"].map(|path| Route::open(path).path);
    for index in 0..rules.config.routes.len() {
        let (before, from) = rules.config.routes.split_at(index);
        let Some(RouteConfig { path, .. }) = from.first() else {
            continue;
        };
        let is_demo = rules.config.demo_routes && demo.contains(path);
        let other = before.iter().find(|other| other.path.overlaps(path));
        let why = match other {
            Some(other) if other.path == *path => {
                "this path has a route already; remove one".into()
            }
            Some(other) => format!(
                "some paths are for this and for {} as well, and neither is the more exact one; make \
                 one of them narrower",
                other.path
            ),
            None if is_demo => {
                "a demonstration route has this path; write demo_routes = false".into()
            }
            None => continue,
        };
        rules.refuse_field("route", index, "path", why);
    }
}

fn rules_ask_for_what_there_is(rules: &mut Rules<'_>) {
    for (index, route) in rules.config.routes.clone().iter().enumerate() {
        let rule = route.rule.rule();
        let missing = rule
            .parameters()
            .into_iter()
            .find(|name| !route.path.names().any(|own| own == *name));
        if let Some(name) = missing {
            rules.refuse_field(
                "route",
                index,
                "rule",
                format!(
                    "{{{name}}} is not in the path {}, so it never equals anything",
                    route.path
                ),
            );
        }
        if route.token == TokenDemand::None && !rule.claims().is_empty() {
            rules.refuse_field(
                "route",
                index,
                "rule",
                "without a token nobody has claims; write token = \"required\", or leave the rule out",
            );
        }
        if route.token == TokenDemand::None && route.token_refresh {
            rules.refuse_field(
                "route",
                index,
                "token_refresh",
                "without a token there is none to refresh; write token = \"required\", or leave this out",
            );
        }
    }
}

/// In development a key is made at the start.
fn tokens_can_be_verified(rules: &mut Rules<'_>) {
    if rules.config.profile != Profile::Production {
        return;
    }
    if !rules.config.token.required {
        rules.warn(
            "token.required",
            "routes that do not say otherwise let everybody in without a token",
        );
    }
    if rules.config.has_keys() {
        return;
    }
    let variable = environment_name("token.secret");
    for (index, route) in rules.config.routes.clone().iter().enumerate() {
        if route.token != TokenDemand::None {
            rules.refuse_field(
                "route",
                index,
                "token",
                format!(
                    "there is no key to verify tokens with; set {variable}, or write token.secret_file, \
                     token.key_files or token.jwks_url (or token = \"none\" here, to let everybody in)"
                ),
            );
        }
    }
}

fn messages_of_routes_fit_the_burst(rules: &mut Rules<'_>) {
    let general = rules.config.websocket.message_bytes_max;
    let everywhere = rules.config.limits.traffic;
    for (index, route) in rules.config.routes.clone().iter().enumerate() {
        // What a route has from the sections was judged there.
        if (route.message_bytes_max, route.traffic) == (general, everywhere) {
            continue;
        }
        for (name, allowance) in [
            ("bytes_per_second", route.traffic.bytes_per_second),
            ("bytes_per_minute", route.traffic.bytes_per_minute),
        ] {
            if let Some(why) = message_beyond_burst(allowance, route.message_bytes_max) {
                let why = format!("{why}route.message_bytes_max, or lower that");
                rules.refuse_field("route", index, name, why);
            }
        }
    }
}

fn browsers_have_pages_to_come_from(rules: &mut Rules<'_>) {
    if rules.config.profile != Profile::Production {
        return;
    }
    // An empty list that somebody wrote is meant.
    if *rules.provenance.of("origin.allowed") != Source::Default {
        return;
    }
    let closed = rules
        .config
        .routes
        .iter()
        .enumerate()
        .find(|(index, route)| {
            let origins = &route.origins;
            let is_closed =
                origins.allowed.is_empty() && !origins.allow_null && !origins.allow_loopback;
            is_closed
                && rules
                    .provenance
                    .of_field("route", *index, "origins")
                    .is_none()
        });
    if let Some(path) = closed.map(|(_, route)| route.path.to_string()) {
        rules.warn(
            "origin.allowed",
            format!(
                "{path} refuses every browser; write origin.allowed = [\"https://app.example.com\"] \
                 with your own pages, or origins = [] at the route if it is for none"
            ),
        );
    }
}
