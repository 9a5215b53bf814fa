//! The configuration as an operator meets it: files, variables and flags in, a value or lines out.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use crate::admission::limits::{Cap, WhenFull};
use crate::admission::{Rejection, TokenDemand};

use super::allowance::Measure;
use super::setting::Slot;
use super::*;

const HOST: Host = Host {
    cores: 4,
    descriptors_max: Some(20_000),
};

/// Sources to be filled in.
fn sources(text: &str) -> Sources<'_> {
    Sources {
        flags: Flags::default(),
        environment: Vec::new(),
        file: Some(File {
            path: "t.toml",
            text,
        }),
        host: HOST,
    }
}

fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn load(text: &str) -> Result<Loaded, ConfigErrors> {
    Config::load(&sources(text))
}

fn lines(result: Result<Loaded, ConfigErrors>) -> Vec<String> {
    result
        .unwrap_err()
        .to_string()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn nothing_at_all_is_the_development_profile() {
    let loaded = load("").unwrap();
    assert_eq!(loaded.config, Config::defaults(Profile::Development, &HOST));
    assert_eq!(loaded.warnings, []);
    let Config {
        reactors,
        demo_routes,
        listen,
        ..
    } = loaded.config;
    assert_eq!((reactors, demo_routes), (4, true));
    let shown: Vec<_> = listen
        .iter()
        .map(|l| (l.address.to_string(), l.tls))
        .collect();
    assert_eq!(
        shown,
        [
            ("127.0.0.1:8080".to_owned(), false),
            ("127.0.0.1:8443".to_owned(), true)
        ]
    );
}

#[test]
fn x29_a_half_open_peer_is_gone_within_35_seconds_by_default() {
    let WebSocketConfig {
        ping_interval,
        pong_timeout,
        ..
    } = WebSocketConfig::default();
    assert!(ping_interval.unwrap() + pong_timeout <= Duration::from_secs(35));
}

#[test]
fn a_whole_file_is_understood() {
    let text = r#"
        profile = "production"
        reactors = 0x10
        demo_routes = false

        [[listen]]
        address = "0.0.0.0:443"
        tls = true

        [[listen]]
        address = "[::1]:8080"

        [tls]
        certificates = [{ certificate = "a.pem", key = "a.key" }, { certificate = "b.pem", key = "b.key" }]

        [http]
        head_bytes_max = "8KiB"
        target_bytes_max = "2000B"

        [websocket]
        message_bytes_max = "1MiB"
        ping_interval = "off"
        compression = true

        [outbox]
        at_limit = "skip"
        bytes_max = "4MiB"

        [log]
        level = "debug"
        format = "json"
    "#;
    let Loaded {
        config, provenance, ..
    } = load(text).unwrap();
    let expected = Config {
        profile: Profile::Production,
        reactors: 16,
        demo_routes: false,
        listen: vec![
            Listen {
                address: "0.0.0.0:443".parse().unwrap(),
                tls: true,
                proxy_protocol: false,
            },
            Listen {
                address: "[::1]:8080".parse().unwrap(),
                tls: false,
                proxy_protocol: false,
            },
        ],
        tls: TlsConfig {
            certificates: ["a", "b"]
                .map(|name| CertificateFiles {
                    certificate: format!("{name}.pem").into(),
                    key: format!("{name}.key").into(),
                })
                .into(),
            ..TlsConfig::default()
        },
        http: HttpConfig {
            head_bytes_max: 8_192,
            target_bytes_max: 2_000,
            ..HttpConfig::default()
        },
        websocket: WebSocketConfig {
            message_bytes_max: units::MIB,
            ping_interval: None,
            compression: true,
            ..WebSocketConfig::default()
        },
        outbox: OutboxConfig {
            at_limit: AtLimit::Skip,
            bytes_max: 4 * units::MIB,
            ..OutboxConfig::default()
        },
        // 16 reactors of 2 listeners and 3 descriptors more, and 64 for the process.
        limits: LimitsConfig {
            connections_max: 20_000 - 16 * 5 - 64,
            ..LimitsConfig::for_profile(Profile::Production)
        },
        log: LogConfig {
            level: LogLevel::Debug,
            format: LogFormat::Json,
        },
        ..Config::defaults(Profile::Production, &HOST)
    };
    assert_eq!(config, expected);
    assert_eq!(provenance.of("log.level").to_string(), "t.toml:30:17");
    assert_eq!(provenance.of_item("listen", 1).to_string(), "t.toml:10:9");
    assert_eq!(provenance.of("shutdown.drain_timeout"), &Source::Default);
}

/// Each row: a file, and the one line it earns.
#[test]
fn x20_each_fault_is_one_line_with_its_place_and_its_fix() {
    for (text, expected) in [
        // Unknown keys.
        (
            "reactor = 2",
            "t.toml:1:1: unknown key reactor; the nearest known one is reactors",
        ),
        (
            "[http]\nhead_byte_max = \"1KiB\"",
            "t.toml:2:1: unknown key http.head_byte_max; the nearest known one is http.head_bytes_max",
        ),
        (
            "[ws]\nping_interval = \"1s\"",
            "t.toml:2:1: unknown key ws.ping_interval; the nearest known one is websocket.ping_interval",
        ),
        (
            "[htpt]",
            "t.toml:1:2: unknown key htpt; the nearest known one is [http]",
        ),
        (
            "[[listen]]\naddress = \"[::1]:1\"\ntsl = true",
            "t.toml:3:7: unknown key listen.tsl; the nearest known one is listen.tls",
        ),
        (
            "\"reactors\\n\" = 1",
            "t.toml:1:1: unknown key reactors\\n; the nearest known one is reactors",
        ),
        // Types.
        (
            "reactors = \"2\"",
            "t.toml:1:12: reactors = \"2\": this key takes a number, not a string; \
             accepted: 1 to 255; write 2 without quotes",
        ),
        (
            "reactors = 2.0",
            "t.toml:1:12: reactors = 2.0: this key takes a whole number; accepted: 1 to 255",
        ),
        (
            "demo_routes = \"true\"",
            "t.toml:1:15: demo_routes = \"true\": this key takes a boolean, not a string; \
             accepted: true or false; write true without quotes",
        ),
        (
            "profile = 1",
            "t.toml:1:11: profile = 1: this key takes a string; \
             accepted: \"development\" or \"production\"",
        ),
        (
            "http = 1",
            "t.toml:1:8: http = 1: this is a section, not a key; accepted: a table; \
             write [http] on a line of its own",
        ),
        (
            "[listen]\naddress = \"[::1]:1\"",
            "t.toml:1:1: listen = { a table }: this key takes a list; accepted: a list of tables; \
             begin each one with [[listen]]",
        ),
        (
            "listen = [1]",
            "t.toml:1:11: listen = 1: not a table; accepted: a table with address, tls, proxy_protocol",
        ),
        // Ranges: at the edges, beyond 64 bits, below zero.
        (
            "reactors = 0",
            "t.toml:1:12: reactors = 0: out of range; accepted: 1 to 255; write 1",
        ),
        (
            "reactors = 256",
            "t.toml:1:12: reactors = 256: out of range; accepted: 1 to 255; write 255",
        ),
        (
            "reactors = -1",
            "t.toml:1:12: reactors = -1: out of range; accepted: 1 to 255; write 1",
        ),
        (
            "reactors = 99999999999999999999",
            "t.toml:1:12: reactors = 99999999999999999999: out of range; accepted: 1 to 255; \
             write 255",
        ),
        (
            "http.head_timeout = \"61s\"",
            "t.toml:1:21: http.head_timeout = \"61s\": out of range; accepted: 100ms to 1m; \
             write \"1m\"",
        ),
        (
            "http.head_bytes_max = \"1B\"",
            "t.toml:1:23: http.head_bytes_max = \"1B\": out of range; accepted: 1KiB to 1MiB; \
             write \"1KiB\"",
        ),
        // Units.
        (
            "http.head_timeout = 5",
            "t.toml:1:21: http.head_timeout = 5: a duration is written with its unit: ms, s, m, h; \
             accepted: 100ms to 1m; write \"5s\"",
        ),
        (
            "http.head_timeout = \"5\"",
            "t.toml:1:21: http.head_timeout = \"5\": a duration is written with its unit: ms, s, m, \
             h; accepted: 100ms to 1m; write \"5s\"",
        ),
        (
            "http.head_bytes_max = 16384",
            "t.toml:1:23: http.head_bytes_max = 16384: a size is written with its unit: B, KiB, \
             MiB, GiB; accepted: 1KiB to 1MiB; write \"16KiB\"",
        ),
        (
            "http.head_bytes_max = \"16KB\"",
            "t.toml:1:23: http.head_bytes_max = \"16KB\": a size is a whole number and one of the \
             units B, KiB, MiB, GiB; accepted: 1KiB to 1MiB",
        ),
        (
            "websocket.ping_interval = 25",
            "t.toml:1:27: websocket.ping_interval = 25: a duration is written with its unit: ms, \
             s, m, h; accepted: 1s to 24h, or \"off\"; write \"25s\"",
        ),
        // Choices.
        (
            "log.level = \"warning\"",
            "t.toml:1:13: log.level = \"warning\": there is no such choice; accepted: \"off\" or \
             \"error\" or \"warn\" or \"info\" or \"debug\" or \"trace\"; write \"warn\"",
        ),
        // Addresses and files.
        (
            "[[listen]]\naddress = \"localhost:8080\"",
            "t.toml:2:11: listen.address = \"localhost:8080\": not an IP address and a port; \
             accepted: address = \"127.0.0.1:8080\"; write 127.0.0.1:8080",
        ),
        (
            "[[listen]]\ntls = true",
            "t.toml:1:1: listen.address is missing; write address = \"127.0.0.1:8080\"",
        ),
        (
            "[tls]\ncertificates = [{ certificate = \"a\" }]",
            "t.toml:2:17: tls.certificates.key is missing; write key = \"FILE\"",
        ),
        (
            "[tls]\ncertificates = [{ certificate = \"\", key = \"b\" }]",
            "t.toml:2:33: tls.certificates.certificate = \"\": a file name cannot be empty; \
             accepted: certificate = \"FILE\"",
        ),
        // Numbers and rates that can be off.
        (
            "limits.address_connections_max = 0",
            "t.toml:1:34: limits.address_connections_max = 0: out of range; accepted: 1 to \
             16777216, or \"off\"; write 1",
        ),
        (
            "limits.address_attempts = 20",
            "t.toml:1:27: limits.address_attempts = 20: a rate is written with its period, s, m or \
             h: \"20/s burst 1000\"; accepted: 1 to 1000000 per s, m or h, with or without a \
             burst: \"20/s burst 1000\", or \"off\"",
        ),
        (
            "limits.messages_per_second = \"50/s\"",
            "t.toml:1:30: limits.messages_per_second = \"50/s\": the period is in the key's name; \
             write it like \"50 burst 100\"; accepted: 1 to 1000000, with or without a burst: \
             \"50 burst 100\", or \"off\"",
        ),
        (
            "limits.bytes_per_second = \"256\"",
            "t.toml:1:27: limits.bytes_per_second = \"256\": this is written like \"256KiB burst \
             1MiB\"; accepted: 1KiB to 64MiB, with or without a burst: \"256KiB burst 1MiB\", or \
             \"off\"",
        ),
        (
            "limits.messages_per_minute = -1",
            "t.toml:1:30: limits.messages_per_minute = -1: out of range; accepted: 1 to 1000000, \
             with or without a burst: \"50 burst 100\", or \"off\"",
        ),
        // Lists of texts: each item has its own place.
        (
            "address.trusted_networks = [\"::1\", \"0.0.0.0/0\"]\naddress.header = \"forwarded\"",
            "t.toml:1:36: address.trusted_networks = \"0.0.0.0/0\": `0.0.0.0/0` trusts everybody, so \
             that every client may choose its address; name the proxies; accepted: networks like \
             \"10.0.0.0/8\" or \"fd00::/8\", or single addresses",
        ),
        (
            "origin.allowed = \"https://a.example\"",
            "t.toml:1:18: origin.allowed = \"https://a.example\": this key takes a list, in \
             brackets; accepted: origins like \"https://app.example.com\" or \
             \"https://*.example.com\"",
        ),
        (
            "origin.allowed = [\n\"https://a.example\",\n\"https://b.example/\"]",
            "t.toml:3:1: origin.allowed = \"https://b.example/\": `https://b.example/` goes on \
             behind the host; an origin has no path: leave it out, and the last slash; accepted: \
             origins like \"https://app.example.com\" or \"https://*.example.com\"",
        ),
        (
            "limits.dry_run = [\"adress_attempts\"]",
            "t.toml:1:19: limits.dry_run = \"adress_attempts\": there is no such choice; the \
             nearest one is \"address_attempts\"; accepted: a list of \"connections\", \
             \"address_connections\", \"address_attempts\", \"user_connections\", \"messages\", \
             \"bytes\"",
        ),
        (
            "limits.dry_run = [\"site_attempts\"]",
            "t.toml:1:19: limits.dry_run = \"site_attempts\": this limit is a multiple of \
             \"address_attempts\" and goes with it; write \"address_attempts\"; accepted: a list of \
             \"connections\", \"address_connections\", \"address_attempts\", \
             \"user_connections\", \"messages\", \"bytes\"",
        ),
        (
            "token.sources = [\"query\", 1]",
            "t.toml:1:27: token.sources = 1: this key takes a list of strings; accepted: a list of \
             \"query\", \"header\", \"subprotocol\", \"cookie\", each once",
        ),
        // Texts.
        (
            "token.cookie_name = \"a;b\"",
            "t.toml:1:21: token.cookie_name = \"a;b\": HTTP does not allow one of these characters \
             in a name; accepted: letters, digits and !#$%&'*+-.^_`~, up to 256 of them",
        ),
        // Secrets, by whatever mistake, are not shown.
        (
            "token.secret = \"canary\"",
            "t.toml:1:16: token.secret = (hidden): the secret is shorter than 32 bytes; make one \
             with `openssl rand -hex 32`; accepted: at least 32 bytes; never shown",
        ),
        (
            "token.secret = [\"canary\"]",
            "t.toml:1:16: token.secret = (hidden): this key takes a string; accepted: at least 32 \
             bytes; never shown",
        ),
        (
            "token = \"canary\"",
            "t.toml:1:9: token = (hidden): this is a section, not a key; accepted: a table; write \
             [token] on a line of its own",
        ),
        (
            "token.previous_secrets = [\"canary\"]",
            "t.toml:1:27: token.previous_secrets = (hidden): the secret is shorter than 32 bytes; \
             make one with `openssl rand -hex 32`; accepted: a list of secrets of at least 32 \
             bytes; never shown",
        ),
        // Tables of a list.
        (
            "[[issuer]]\nsecret_fil = \"s\"",
            "t.toml:2:14: unknown key issuer.secret_fil; the nearest known one is issuer.secret_file",
        ),
        (
            "[issuer]\nsecret_file = \"s\"",
            "t.toml:1:1: issuer = { a table }: this key takes a list; accepted: a list of tables; \
             begin each one with [[issuer]]",
        ),
        (
            "[[issuer]]\nsecret_file = \"s\"\nleeway = \"6m\"",
            "t.toml:3:10: issuer.leeway = \"6m\": out of range; accepted: 0ms to 5m; write \"5m\"",
        ),
        // Between keys.
        (
            "listen = []",
            "t.toml:1:10: listen = []: there is no listener; add [[listen]] with address = \
             \"IP:PORT\" and tls = true, or use --listen-tls",
        ),
        (
            "[[listen]]\naddress = \"[::1]:1\"\n[[listen]]\naddress = \"[::1]:1\"\ntls = true",
            "t.toml:3:1: listen = { address = \"[::1]:1\", tls = true }: this address is listed \
             twice; remove one",
        ),
        (
            "[http]\nhead_bytes_max = \"8KiB\"",
            "default: http.target_bytes_max = \"8KiB\": the target is a part of the head, so it \
             must be shorter than http.head_bytes_max (set by: t.toml:2:18); lower this or raise \
             that",
        ),
        (
            "websocket.pong_timeout = \"25s\"",
            "t.toml:1:26: websocket.pong_timeout = \"25s\": must be shorter than \
             websocket.ping_interval = \"25s\" (set by: default); lower this or raise that",
        ),
        (
            "outbox.bytes_max = \"32KiB\"",
            "default: outbox.bytes_high_water = \"64KiB\": must not exceed outbox.bytes_max (set \
             by: t.toml:1:20); lower this or raise that",
        ),
        (
            "limits.connections_max = 20000",
            "t.toml:1:26: limits.connections_max = 20000: the limit of 20000 descriptors leaves \
             19916 for connections; write 19916, or raise the limit (LimitNOFILE)",
        ),
    ] {
        assert_eq!(lines(load(text)), [expected], "{text}");
    }
}

/// Each row: what contradicts itself in the sections about admission, and the one line it earns.
#[test]
fn x20_rules_of_admission_name_the_line_to_change() {
    let secret = secret(0);
    for (text, expected) in [
        (
            "address.header = \"x-forwarded-for\"".to_owned(),
            "t.toml:1:18: address.header = \"x-forwarded-for\": there is no trusted proxy to believe \
             it from, and from anybody else it is forged; write address.trusted_networks = \
             [\"10.0.0.0/8\"] with the networks of your proxies",
        ),
        (
            "[[listen]]\naddress = \"[::1]:1\"\nproxy_protocol = true".to_owned(),
            "t.toml:1:1: listen = { address = \"[::1]:1\", tls = false, proxy_protocol = true }: \
             there is no trusted proxy to take a PROXY header from; write address.trusted_networks \
             = [\"10.0.0.0/8\"] with the networks of your proxies",
        ),
        (
            "address.ipv6_width = 48".to_owned(),
            "default: address.site_width = 48: a site holds several addresses, so this must be less \
             than address.ipv6_width = 48 (set by: t.toml:1:22); write 47 or less, or \"off\"",
        ),
        (
            "limits.preset = \"standard\"\nlimits.bytes_per_second = \"32KiB\"".to_owned(),
            "t.toml:2:27: limits.bytes_per_second = \"32KiB\": a message longer than the burst is \
             always refused; write \"32KiB burst 64KiB\", which is websocket.message_bytes_max (set \
             by: default), or lower that",
        ),
        (
            "limits.bytes_per_minute = \"1MiB burst 65535B\"".to_owned(),
            "t.toml:1:27: limits.bytes_per_minute = \"1MiB burst 65535B\": a message longer than the \
             burst is always refused; write \"1MiB burst 64KiB\", which is \
             websocket.message_bytes_max (set by: default), or lower that",
        ),
        (
            "limits.dry_run = [\"messages\"]".to_owned(),
            "t.toml:1:18: limits.dry_run = [\"messages\"]: \"messages\" and \"bytes\" are enforced or \
             tried out together; write both or none",
        ),
        (
            "token.sources = [\"query\", \"query\"]".to_owned(),
            "t.toml:1:17: token.sources = [\"query\", \"query\"]: a source is listed twice; remove one",
        ),
        (
            "token.sources = []".to_owned(),
            "t.toml:1:17: token.sources = []: no token could ever be found; write [\"query\", \
             \"header\"], or token.required = false if none is wanted",
        ),
        (
            format!("[token]\nsecret = \"{secret}\"\nsecret_file = \"s\""),
            "t.toml:2:10: token.secret: the secret is given twice: here, and by token.secret_file; \
             remove one",
        ),
        (
            format!("token.previous_secrets = [\"{secret}\"]"),
            "t.toml:1:26: token.previous_secrets: there are previous secrets and no present one; \
             write token.secret, too",
        ),
        (
            format!("[token]\nsecret_file = \"s\"\nprevious_secrets = [{}]", [secret.as_str(); 4]
                .map(|secret| format!("\"{secret}\"")).join(", ")),
            "t.toml:3:20: token.previous_secrets: each forged token is tried with every secret, so \
             there are 3 at most; remove the oldest",
        ),
        (
            "[token]\nsecret_file = \"s\"\nkey_files = [\"a.pem\"]".to_owned(),
            "default: token.secret: secrets do not stand beside public keys (token.key_files, \
             jwks_file, jwks_url); give each its own [[issuer]]",
        ),
        (
            "[token]\nsecret_file = \"s\"\nalgorithm = \"RS256\"".to_owned(),
            "t.toml:3:13: token.algorithm: a secret is for HS256, HS384 or HS512; write one of \
             those, or \"auto\"",
        ),
        (
            "[token]\nkey_files = [\"a.pem\"]\nalgorithm = \"HS256\"".to_owned(),
            "t.toml:3:13: token.algorithm: this algorithm is for secrets, and the keys are public \
             ones; write theirs, or \"auto\"",
        ),
        (
            "token.key_files = [\"a\", \"b\", \"c\", \"d\", \"e\"]".to_owned(),
            "t.toml:1:19: token.key_files: a token that names no key is tried with each of these \
             that has no kid, so there are 4 of those at most; write \"KID=FILE\"",
        ),
        (
            "token.jwks_url = \"http://id.example.com/jwks\"".to_owned(),
            "t.toml:1:18: token.jwks_url: without TLS, whoever can change what comes back can issue \
             tokens; write https://, or token.jwks_allow_http = true if the way there is safe",
        ),
        (
            "token.jwks_max_age = \"5m\"".to_owned(),
            "t.toml:1:22: token.jwks_max_age: keys would run out before they are fetched again; \
             write at least \"10m\", which is token.jwks_refresh",
        ),
        (
            "[[issuer]]\nissuer = \"a\"".to_owned(),
            "t.toml:1:1: issuer.secret: this issuer has no key, so that no token of its could be \
             verified; write secret, secret_file, key_files, jwks_file or jwks_url",
        ),
        (
            "token.secret_file = \"s\"\n[[issuer]]\nsecret_file = \"t\"".to_owned(),
            "t.toml:2:1: issuer.issuer: there are two issuers without a name; write issuer = \"the \
             iss of its tokens\"",
        ),
        (
            "[[issuer]]\nissuer = \"a\"\njwks_file = \"j\"\n[[issuer]]\nissuer = \"a\"\njwks_file = \
             \"k\"".to_owned(),
            "t.toml:5:10: issuer.issuer: there are two issuers of this name; remove one",
        ),
    ] {
        assert_eq!(lines(load(&text)), [expected], "{text}");
    }
}

#[test]
fn issuers_inherit_what_tokens_must_say_but_neither_keys_nor_name() {
    let text = format!(
        "[token]\nissuer = \"a\"\nsecret = \"{}\"\nuser_claim = \"user_id\"\nleeway = \"5s\"\n\
         [[issuer]]\nissuer = \"b\"\nuser_prefix = \"b:\"\njwks_url = \"https://b.example/\"\n\
         leeway = \"0s\"\nkey_files = [\"k1=a.pem\"]\n",
        secret(1)
    );
    let loaded = load(&text).unwrap();
    assert_eq!(loaded.warnings, []);
    let [issuer] = loaded.config.issuers.as_slice() else {
        panic!("{:?}", loaded.config.issuers)
    };
    let policy = &issuer.policy;
    assert_eq!(policy.issuer.as_deref(), Some("b"));
    assert_eq!(
        (policy.user_claim.as_str(), policy.leeway),
        ("user_id", Duration::ZERO)
    );
    assert_eq!(issuer.keys.secret, None);
    assert_eq!(issuer.keys.jwks_url.as_deref(), Some("https://b.example/"));
    let key = KeyFile {
        id: Some("k1".to_owned()),
        path: "a.pem".into(),
    };
    assert_eq!(issuer.keys.key_files, [key]);
    let printed = loaded.to_toml();
    for line in [
        "[[issuer]]",
        "leeway = \"0ms\" # t.toml:10:10",
        "user_claim = \"user_id\" # t.toml:4:14",
        "jwks_refresh = \"10m\" # default",
        "# secret = \"(hidden)\" # t.toml:3:10",
        "# secret = \"\" # default",
    ] {
        assert!(
            printed.lines().any(|printed| printed == line),
            "{line}\n{printed}"
        );
    }
}

/// Each row: what follows `[[route]]` in a file of the development profile, and the one line it earns.
#[test]
fn x20_faults_of_routes_name_the_line_to_change() {
    let after = |before: &str, route: &str| format!("{before}\n[[route]]\n{route}");
    let route = "path = \"/a/{id}/\"\nkind = \"echo\"\n";
    for (text, expected) in [
        (
            after("", "kind = \"echo\""),
            "t.toml:2:1: route.path is missing; write path = \"/ws/notifications/\"",
        ),
        (
            after("", "path = \"/a\""),
            "t.toml:2:1: route.kind is missing; write kind = \"channels\", \"echo\" or \"broadcast\"",
        ),
        (
            after("", &format!("{route}orgins = []")),
            "t.toml:5:10: unknown key route.orgins; the nearest known one is route.origins",
        ),
        (
            after("", &format!("{route}message_bytes_max = \"257MiB\"")),
            "t.toml:5:21: route.message_bytes_max = \"257MiB\": out of range; accepted: 1B to \
             256MiB; write \"256MiB\"",
        ),
        (
            after("", &format!("{route}token = \"maybe\"")),
            "t.toml:5:9: route.token = \"maybe\": there is no such choice; accepted: \"required\" or \
             \"optional\" or \"none\"; write \"none\"",
        ),
        (
            after("", "path = \"/a/{id\"\nkind = \"echo\""),
            "t.toml:3:8: route.path: column 4: this brace is not closed\n  /a/{id\n     ^",
        ),
        (
            after("", &format!("{route}rule = 'role in [\"Admin\"'")),
            "t.toml:5:8: route.rule: line 1, column 17: expected `,` or `]`\n  role in [\"Admin\"\n  \
             \u{20}               ^",
        ),
        (
            after("", &format!("{route}rule = 1")),
            "t.toml:5:8: route.rule = 1: this key takes a string; accepted: any, claim = value, claim \
             in [value, …], claim contains value, and, or, not, ( )",
        ),
        (
            after(
                "",
                &format!("{route}rule = \"projects contains {{project_id}}\""),
            ),
            "t.toml:5:8: route.rule: {project_id} is not in the path /a/{id}/, so it never equals \
             anything",
        ),
        (
            after("", &format!("{route}token = \"none\"\nrule = \"role = 1\"")),
            "t.toml:6:8: route.rule: without a token nobody has claims; write token = \"required\", or \
             leave the rule out",
        ),
        (
            after(
                "",
                &format!("{route}token = \"none\"\ntoken_refresh = true"),
            ),
            "t.toml:6:17: route.token_refresh: without a token there is none to refresh; write token = \
             \"required\", or leave this out",
        ),
        (
            after("", &format!("{route}[[route]]\n{route}")),
            "t.toml:6:8: route.path: this path has a route already; remove one",
        ),
        (
            after(
                "",
                &format!("{route}[[route]]\npath = \"/a/{{other}}/\"\nkind = \"echo\""),
            ),
            "t.toml:6:8: route.path: some paths are for this and for /a/{id}/ as well, and neither is \
             the more exact one; make one of them narrower",
        ),
        (
            after("", "path = \"/echo\"\nkind = \"broadcast\""),
            "t.toml:3:8: route.path: a demonstration route has this path; write demo_routes = false",
        ),
        (
            after(
                "",
                &format!(
                    "{route}bytes_per_second = \"1KiB burst 2KiB\"\nmessage_bytes_max = \"3KiB\""
                ),
            ),
            "t.toml:5:20: route.bytes_per_second: a message longer than the burst is always refused; \
             write \"1KiB burst 3KiB\", which is route.message_bytes_max, or lower that",
        ),
        // What a route has from a section is said once.
        (
            after("limits.bytes_per_second = \"32KiB\"", route),
            "t.toml:1:27: limits.bytes_per_second = \"32KiB\": a message longer than the burst is \
             always refused; write \"32KiB burst 64KiB\", which is websocket.message_bytes_max (set \
             by: default), or lower that",
        ),
    ] {
        let shown = load(&text).unwrap_err().to_string();
        assert_eq!(shown, expected, "{text}");
    }
}

/// What lies just beyond a slot's range, and what lies at its edges, as TOML. Nothing for slots
/// without a range.
fn edges(slot: &Slot<'_>) -> (Vec<String>, Vec<String>) {
    let numbers = |from: u64, to: u64, write: &dyn Fn(u64) -> String| {
        let beyond = from.checked_sub(1).into_iter().chain([to + 1]);
        (beyond.map(write).collect(), vec![write(from), write(to)])
    };
    let millis = |range: &std::ops::RangeInclusive<Duration>| {
        let [from, to] =
            [*range.start(), *range.end()].map(|t| u64::try_from(t.as_millis()).unwrap());
        numbers(from, to, &|millis| {
            format!(
                "\"{}\"",
                units::format_duration(Duration::from_millis(millis))
            )
        })
    };
    match slot {
        Slot::Count(_, range) | Slot::CountOrOff(_, range) => {
            numbers((*range.start()).into(), (*range.end()).into(), &|n| {
                n.to_string()
            })
        }
        Slot::Size(_, range) => numbers(*range.start() as u64, *range.end() as u64, &|bytes| {
            format!("\"{}\"", units::format_size(bytes))
        }),
        Slot::Time(_, range) => millis(range),
        // Zero is a way to write "off".
        Slot::TimeOrOff(_, range) => {
            let (mut beyond, at) = millis(range);
            beyond.retain(|text| text != "\"0ms\"");
            (beyond, at)
        }
        Slot::Allowance(_, Measure::Events) => numbers(1, 1_000_000, &|n| format!("\"{n}/s\"")),
        Slot::Allowance(_, Measure::Things(_)) => numbers(1, 1_000_000, &|n| n.to_string()),
        Slot::Allowance(_, measure @ Measure::Bytes(period)) => {
            let (amounts, _) = measure.ranges(*period);
            numbers(*amounts.start(), *amounts.end(), &|bytes| {
                format!("\"{}\"", units::format_size(bytes))
            })
        }
        _ => (vec![], vec![]),
    }
}

#[test]
fn every_range_ends_where_it_says() {
    let mut files = Vec::new();
    let mut defaults = Config::defaults(Profile::Development, &HOST);
    for setting in defaults.settings() {
        files.push((format!("{} = ", setting.key), edges(&setting.slot)));
        if let Slot::Tables(tables) = &setting.slot {
            for field in tables.template().settings() {
                let start = match setting.key {
                    "route" => "[[route]]\npath = \"/a\"\nkind = \"echo\"\n",
                    "api_key" => "[[api_key]]\nname = \"a\"\n",
                    "channel" => "[[channel]]\n",
                    _ => "[[issuer]]\n",
                };
                files.push((format!("{start}{} = ", field.name()), edges(&field.slot)));
            }
        }
    }
    let errors = |text: &str| {
        let sources = sources(text);
        Assembly::new(&sources).errors
    };
    let mut seen = 0;
    for (start, (beyond, at)) in files {
        seen += at.len();
        // Zero allowances and counts are no way to say "off".
        for value in beyond {
            let text = format!("{start}{value}");
            let found = errors(&text);
            let is_refused = matches!(
                found.as_slice(),
                [ConfigError { problem: Problem::BadValue { why, .. }, .. }] if why == "out of range"
            );
            assert!(is_refused, "{text}: {found:?}");
        }
        for value in at {
            let text = format!("{start}{value}");
            assert_eq!(errors(&text), [], "{text}");
        }
    }
    assert!(seen > 80, "{seen} edges");
}

#[test]
fn a_rule_is_shown_without_what_would_move_the_caret() {
    let text = "[[route]]\npath = \"/a\"\nkind = \"echo\"\nrule = \"a\\u202e\\u001b = 1\"";
    let shown = load(text).unwrap_err().to_string();
    assert_eq!(shown.lines().count(), 3, "{shown:?}");
    let is_plain = |c: char| c == '\n' || c.escape_debug().len() == 1 || "\"'\\".contains(c);
    assert!(shown.chars().all(is_plain), "{shown:?}");
}

#[test]
fn routes_inherit_what_they_do_not_say() {
    let text = format!(
        r#"
        [websocket]
        message_bytes_max = "32KiB"
        compression = true

        [limits]
        preset = "standard"
        user_connections_max = 3
        messages_per_second = 7
        dry_run = ["user_connections"]

        [origin]
        allowed = ["https://a.example"]

        [token]
        required = true
        secret = "{}"

        [[route]]
        path = "/ws/projects/{{project_id:int}}/"
        kind = "broadcast"
        rule = "role in ['Admin'] or projects contains {{project_id}}"

        [[route]]
        path = "/ws/open"
        kind = "echo"
        token = "optional"
        origins = []
        allow_absent_origin = false
        user_connections_max = "off"
        user_at_limit = "close-oldest"
        reject = "close-code"
        compression = false
        message_bytes_max = "1KiB"
        messages_per_second = "off"
        messages_per_minute = "off"
        bytes_per_second = "off"
        control_frames_per_second = "off"
        traffic_at_limit = "drop"
        subprotocols = ["chat.v2", "chat.v1"]
        token_refresh = true
        token_grace = "5s"
        "#,
        secret(5)
    );
    let loaded = load(&text).unwrap();
    let config = &loaded.config;
    let [projects, open] = config.routes.as_slice() else {
        panic!("{:?}", config.routes)
    };
    assert_eq!(
        (projects.kind, open.kind),
        (RouteKind::Broadcast, RouteKind::Echo)
    );

    let route = projects.to_route(config);
    assert_eq!(route.path.as_str(), "/ws/projects/{project_id:int}/");
    assert_eq!(route.token, TokenDemand::Required);
    assert_eq!(route.origins.as_ref(), Some(&config.origin));
    assert!(route.compression);
    assert_eq!(route.limits.message_bytes_max, 32 * units::KIB);
    assert_eq!(route.traffic, config.limits.traffic());
    let cap = Cap {
        max: 3,
        dry_run: true,
    };
    assert_eq!(
        (route.user_connections, route.user_at_limit),
        (Some(cap), WhenFull::RefuseNew)
    );
    assert_eq!((route.rejection, route.renewal), (Rejection::Http, None));
    assert_eq!(route.rule.parameters(), ["project_id"]);

    let route = open.to_route(config);
    assert_eq!(route.token, TokenDemand::Optional);
    let none = OriginPolicy {
        allow_loopback: true,
        ..OriginPolicy::default()
    };
    assert_eq!(route.origins, Some(none));
    assert!(!route.compression);
    assert_eq!(route.limits.message_bytes_max, units::KIB);
    assert_eq!(
        (route.traffic, route.traffic_at_limit),
        (None, TrafficAtLimit::Drop)
    );
    assert_eq!(
        (route.user_connections, route.user_at_limit),
        (None, WhenFull::CloseOldest)
    );
    assert_eq!(route.rejection, Rejection::CloseCode);
    assert_eq!(route.renewal, Some(Duration::from_secs(5)));
    assert_eq!(route.subprotocols, ["chat.v2", "chat.v1"]);

    // What rules look at is kept of every token.
    let issuers = config.issuers();
    let kept: Vec<_> = issuers[0]
        .policy
        .kept
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(kept, ["projects", "role"]);

    // Printed, everything is written out, with where it came from; and it means the same.
    let printed = loaded.to_toml();
    for line in [
        "messages_per_second = 7 # t.toml:9:31",
        "path = \"/ws/open\" # t.toml:25:16",
        "token_grace = \"30s\" # default",
    ] {
        assert!(
            printed.lines().any(|printed| printed == line),
            "{line}\n{printed}"
        );
    }
    let again = load(&printed).unwrap();
    assert_eq!(again.config.routes, config.routes);
    let defaults = load("[[route]]\npath = \"/a\"\nkind = \"echo\"")
        .unwrap()
        .config;
    let [route] = defaults.routes.as_slice() else {
        panic!("{:?}", defaults.routes)
    };
    assert_eq!(route.token, TokenDemand::Optional);
    assert_eq!(route.origins, defaults.origin);
}

/// Each row: what follows a production file with one route, and what is refused or warned of.
#[test]
fn d10_production_serves_no_route_that_nobody_could_use_or_everybody() {
    let no_key = "t.toml:1:1: route.token: there is no key to verify tokens with; set \
                  TIDEGATE_TOKEN_SECRET, or write token.secret_file, token.key_files or \
                  token.jwks_url (or token = \"none\" here, to let everybody in)";
    let no_page = "default: origin.allowed: /a refuses every browser; write origin.allowed = \
                   [\"https://app.example.com\"] with your own pages, or origins = [] at the route \
                   if it is for none";
    let origin = "[origin]\nallowed = [\"https://a.example\"]\n";
    let key = "[token]\nsecret_file = \"s\"\n";
    for (route, rest, errors, warnings) in [
        ("", origin.to_owned(), vec![no_key], vec![]),
        ("", format!("{origin}{key}"), vec![], vec![]),
        ("", key.to_owned(), vec![], vec![no_page]),
        ("origins = []\n", key.to_owned(), vec![], vec![]),
        ("token = \"none\"\n", origin.to_owned(), vec![], vec![]),
        (
            "",
            format!("{origin}[token]\nrequired = false"),
            vec![],
            vec![
                "t.toml:10:12: token.required: routes that do not say otherwise let everybody in \
                 without a token",
            ],
        ),
        (
            "",
            format!(
                "{origin}allow_null = true\nallow_loopback = true\n{key}require_expiry = false"
            ),
            vec![],
            vec![
                "t.toml:9:14: origin.allow_null: any page can make a visitor's browser send Origin: \
                 null, so this lets in all of them",
                "t.toml:10:18: origin.allow_loopback: pages from the visitor's own machine are let \
                 in, whoever put them there",
                "t.toml:13:18: token.require_expiry: a token without exp is good for ever, and so is \
                 its connection",
            ],
        ),
    ] {
        let text = format!(
            "[[route]]\npath = \"/a\"\nkind = \"echo\"\n{route}[[listen]]\naddress = \
             \"127.0.0.1:80\"\n\n{rest}"
        );
        let mut sources = sources(&text);
        sources.flags.profile = Some("production".to_owned());
        let (found_errors, found_warnings) = match Config::load(&sources) {
            Ok(loaded) => (vec![], loaded.warnings),
            Err(errors) => (errors.0, vec![]),
        };
        let shown: Vec<_> = found_errors.iter().map(ToString::to_string).collect();
        assert_eq!(shown, errors, "{text}");
        let shown: Vec<_> = found_warnings.iter().map(ToString::to_string).collect();
        assert_eq!(shown, warnings, "{text}");
    }
}

#[test]
fn the_example_for_django_behind_nginx_loads_in_production() {
    let mut sources = sources(include_str!("../../examples/admission.toml"));
    sources.environment = environment(&[("TIDEGATE_TOKEN_SECRET", &secret(6))]);
    let Loaded {
        config, warnings, ..
    } = Config::load(&sources).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(config.profile, Profile::Production);
    let issuers = config.issuers();
    let policy = &issuers[0].policy;
    assert_eq!(
        (policy.user_claim.as_str(), policy.token_type.as_deref()),
        ("user_id", Some("access"))
    );
    assert!(
        config
            .address
            .trusted_networks
            .contains([127, 0, 0, 1].into())
    );
    let paths: Vec<_> = config
        .routes
        .iter()
        .map(|route| route.path.to_string())
        .collect();
    assert_eq!(paths, ["/ws/projects/{project_id}/", "/ws/system-health/"]);
    for route in &config.routes {
        assert_eq!(route.token, TokenDemand::Required);
        assert!(!route.rule.rule().claims().is_empty());
    }
    // Without its secret it says what to set.
    sources.environment.clear();
    let shown = Config::load(&sources).unwrap_err().to_string();
    assert!(shown.contains("set TIDEGATE_TOKEN_SECRET"), "{shown}");
}

#[test]
fn d9_a_secret_is_shown_nowhere() {
    let mut sources = sources("[[issuer]]\nissuer = \"b\"\nsecret_file = \"b\"\n");
    sources.environment = environment(&[
        ("TIDEGATE_TOKEN_SECRET", &secret(2)),
        (
            "TIDEGATE_TOKEN_PREVIOUS_SECRETS",
            &format!("{},{}", secret(3), secret(4)),
        ),
    ]);
    let loaded = Config::load(&sources).unwrap();
    let keys = &loaded.config.token.issuer.keys;
    assert_eq!(
        keys.secret.as_ref().map(Secret::expose),
        Some(secret(2).as_str())
    );
    assert_eq!(keys.previous_secrets.len(), 2);
    let debug = format!("{:?}", loaded);
    for shown in [loaded.to_toml(), debug] {
        assert!(!shown.contains("canary"), "{shown}");
    }
    // Too short, twice, of the wrong kind, with a slip in the name, and not TOML.
    for text in [
        "token.secret = \"canary\"",
        "token.secret = canary",
        "token.secret = \"canary",
        "token.secert = \"canary\"",
        "token.secret = { canary = \"canary\" }",
        "token.previous_secrets = \"canary\"",
        "token = [\"canary\"]",
        "[[issuer]]\nsecret = \"canary\"",
        "[[issuer]]\nsecret = 0xcanary",
    ] {
        let shown = lines(load(text)).join("\n");
        assert!(!shown.contains("canary"), "{text}: {shown}");
    }
    for name in [
        "TIDEGATE_TOKEN_SECRET",
        "TIDEGATE_TOKEN_PREVIOUS_SECRETS",
        "TIDEGATE_SECRET",
    ] {
        sources.environment = environment(&[(name, "canary")]);
        let shown = lines(Config::load(&sources)).join("\n");
        assert!(!shown.contains("canary"), "{name}: {shown}");
    }
}

#[test]
fn the_preset_decides_the_defaults_and_explicit_keys_win() {
    let limits = |text: &str| load(text).unwrap().config.limits;
    let numbers = |limits: &LimitsConfig| {
        (
            limits.address_connections_max,
            limits.address_attempts.map(|attempts| attempts.amount()),
            limits
                .traffic
                .messages_per_minute
                .map(|messages| messages.amount()),
        )
    };
    assert_eq!(numbers(&limits("")), (None, None, None));
    assert_eq!(
        numbers(&limits("limits.preset = \"standard\"")),
        (Some(1_000), Some(20), Some(1_200))
    );
    assert_eq!(
        numbers(&limits("limits.preset = \"original\"")),
        (Some(5), Some(10), Some(60))
    );
    let text = "limits.address_connections_max = 7\nlimits.messages_per_minute = \"off\"\n\
                limits.preset = \"original\"";
    assert_eq!(numbers(&limits(text)), (Some(7), Some(10), None));
    let production = load(&format!("profile = \"production\"\n{PRODUCTION}"))
        .unwrap()
        .config;
    assert_eq!(production.limits.preset, Preset::Standard);
    assert_eq!(
        numbers(&production.limits),
        (Some(1_000), Some(20), Some(1_200))
    );
}

#[test]
fn x20_syntax_errors_are_all_reported_and_hide_no_flag() {
    let mut sources = sources("reactors = = 2\n[log\nlevel = \"info\"\n");
    sources.flags.reactors = Some("x".to_owned());
    let found = lines(Config::load(&sources));
    assert!(found.len() >= 3, "{found:?}");
    for line in ["t.toml:1:", "t.toml:2:"] {
        let starts = found
            .iter()
            .any(|f| f.starts_with(line) && f.contains("not valid TOML"));
        assert!(starts, "{line} is not in {found:?}");
    }
    assert!(
        found
            .iter()
            .any(|f| f.starts_with("flag --reactors: reactors = x:")),
        "{found:?}"
    );
}

#[test]
fn faults_of_all_sources_are_reported_together() {
    let mut sources = sources("reactors = 0\nlog.level = \"loud\"\n[http]\nhead_timeout = 5\n");
    sources.environment = environment(&[
        ("TIDEGATE_OUTBOX_AT_LIMIT", "explode"),
        ("TIDEGATE_LOG_LEVLE", "info"),
    ]);
    sources.flags.listen = words(&["8080", "127.0.0.1:8080"]);
    sources.flags.tls_cert = words(&["a.pem"]);
    let mut found = lines(Config::load(&sources));
    found.sort();
    assert_eq!(
        found,
        [
            "environment TIDEGATE_LOG_LEVLE: unknown key TIDEGATE_LOG_LEVLE; the nearest known one \
             is TIDEGATE_LOG_LEVEL",
            "environment TIDEGATE_OUTBOX_AT_LIMIT: outbox.at_limit = explode: there is no such \
             choice; accepted: \"close\" or \"skip\"; write close",
            "flag --listen: listen.address = 8080: not an IP address and a port; accepted: \
             address = \"127.0.0.1:8080\"; write 127.0.0.1:8080",
            "flag --tls-cert: tls.certificates = 1 certificates and 0 keys: give one --tls-key for \
             each --tls-cert, in the same order",
            "t.toml:1:12: reactors = 0: out of range; accepted: 1 to 255; write 1",
            "t.toml:2:13: log.level = \"loud\": there is no such choice; accepted: \"off\" or \
             \"error\" or \"warn\" or \"info\" or \"debug\" or \"trace\"; write \"off\"",
            "t.toml:4:16: http.head_timeout = 5: a duration is written with its unit: ms, s, m, h; \
             accepted: 100ms to 1m; write \"5s\"",
        ]
    );
}

#[test]
fn a_fault_that_a_higher_source_hides_is_reported_all_the_same() {
    let mut sources = sources("reactors = 0");
    sources.flags.reactors = Some("2".to_owned());
    assert_eq!(lines(Config::load(&sources)).len(), 1);
}

#[test]
fn values_in_the_environment_are_words() {
    for (name, value, expected) in [
        (
            "TIDEGATE_REACTORS",
            "",
            "reactors = : this key takes a whole number; accepted: 1 to 255",
        ),
        (
            "TIDEGATE_REACTORS",
            "+3",
            "reactors = +3: this key takes a whole number; accepted: 1 to 255",
        ),
        (
            "TIDEGATE_HTTP_HEAD_TIMEOUT",
            "5",
            "http.head_timeout = 5: a duration is written with its unit: ms, s, m, h; accepted: \
             100ms to 1m; write 5s",
        ),
        (
            "TIDEGATE_DEMO_ROUTES",
            "yes",
            "demo_routes = yes: this key takes a boolean; accepted: true or false",
        ),
        (
            "TIDEGATE_LISTEN",
            "ws://127.0.0.1:1,http://127.0.0.1:2",
            "listen = http://127.0.0.1:2: a listener begins with ws:// or wss://; accepted: \
             ws://IP:PORT or wss://IP:PORT, separated by commas",
        ),
        (
            "TIDEGATE_TLS_CERTIFICATES",
            "a.pem",
            "tls.certificates = a.pem: not a certificate file and a key file; accepted: \
             CERTIFICATE:KEY, separated by commas",
        ),
    ] {
        let mut sources = sources("");
        sources.environment = environment(&[(name, value)]);
        let expected = format!("environment {name}: {expected}");
        assert_eq!(lines(Config::load(&sources)), [expected], "{name}={value}");
    }
}

#[test]
fn variables_of_others_are_none_of_our_business() {
    let mut sources = sources("");
    sources.environment = environment(&[
        ("PATH", "/bin"),
        ("TIDEGATE_CONFIG", "t.toml"),
        ("TIDEGATE_SERVICE_HOST", "10.0.0.1"),
        ("TIDEGATE_PORT", "tcp://10.0.0.1:8080"),
        ("TIDEGATE_PORT_8080_TCP_ADDR", "10.0.0.1"),
    ]);
    assert_eq!(
        Config::load(&sources).unwrap().config,
        load("").unwrap().config
    );
}

#[test]
fn listeners_of_a_higher_source_replace_all_of_a_lower_one() {
    let text = "[[listen]]\naddress = \"127.0.0.1:1\"\n[[listen]]\naddress = \"127.0.0.1:2\"";
    let listeners = |sources: &Sources<'_>| {
        let config = Config::load(sources).unwrap().config;
        let shown = config
            .listen
            .iter()
            .map(|l| format!("{}{}", l.address.port(), u8::from(l.tls)));
        shown.collect::<Vec<_>>().join(" ")
    };
    let mut sources = sources(text);
    assert_eq!(listeners(&sources), "10 20");
    sources.environment =
        environment(&[("TIDEGATE_LISTEN", "ws://127.0.0.1:3, wss://127.0.0.1:4")]);
    assert_eq!(listeners(&sources), "30 41");
    sources.flags.listen = words(&["127.0.0.1:5", "127.0.0.1:6"]);
    assert_eq!(listeners(&sources), "50 60");
    sources.flags.listen_tls = words(&["127.0.0.1:7"]);
    assert_eq!(listeners(&sources), "50 60 71");
    sources.flags.listen.clear();
    assert_eq!(listeners(&sources), "71");
}

#[test]
fn certificates_are_paired_in_order() {
    let mut sources = sources("");
    sources.flags.tls_cert = words(&["a.pem", "b.pem"]);
    sources.flags.tls_key = words(&["a.key", "b.key"]);
    let from_flags = Config::load(&sources).unwrap().config.tls.certificates;
    sources.flags = Flags::default();
    sources.environment = environment(&[("TIDEGATE_TLS_CERTIFICATES", "a.pem:a.key,b.pem:b.key")]);
    let from_environment = Config::load(&sources).unwrap().config.tls.certificates;
    assert_eq!(from_flags, from_environment);
    let shown = from_flags
        .iter()
        .map(|p| format!("{} {}", p.certificate.display(), p.key.display()));
    assert_eq!(shown.collect::<Vec<_>>(), ["a.pem a.key", "b.pem b.key"]);
}

/// A complete production file, less the lines a test leaves out.
const PRODUCTION: &str = "demo_routes = false\nlisten = [{ address = \"0.0.0.0:443\", tls = true }]\n\
    tls.certificates = [{ certificate = \"c\", key = \"k\" }]\n";

#[test]
fn the_profile_is_chosen_by_flag_variable_file_and_then_the_switches() {
    use Profile::{Development, Production};
    for (file, variables, flag, expected, source) in [
        ("", &[][..], None, Development, "default"),
        (
            "profile = \"production\"",
            &[],
            None,
            Production,
            "t.toml:1:11",
        ),
        (
            "profile = \"production\"",
            &[("TIDEGATE_PROFILE", "development")],
            None,
            Development,
            "environment TIDEGATE_PROFILE",
        ),
        (
            "",
            &[("TIDEGATE_PROFILE", "development")],
            Some("production"),
            Production,
            "flag --profile",
        ),
        (
            "",
            &[("USE_PRODUCTION_WEBSOCKET_MIDDLEWARE", "true")],
            None,
            Production,
            "environment USE_PRODUCTION_WEBSOCKET_MIDDLEWARE",
        ),
        (
            "",
            &[("USE_PRODUCTION_WEBSOCKET_MIDDLEWARE", "True")],
            None,
            Production,
            "environment USE_PRODUCTION_WEBSOCKET_MIDDLEWARE",
        ),
        (
            "",
            &[("USE_PRODUCTION_WEBSOCKET_MIDDLEWARE", "false")],
            None,
            Development,
            "default",
        ),
        (
            "",
            &[("DEBUG", "False")],
            None,
            Production,
            "environment DEBUG",
        ),
        ("", &[("DEBUG", "express:*")], None, Development, "default"),
        ("", &[("DEBUG", "true")], None, Development, "default"),
        (
            "profile = \"development\"",
            &[
                ("USE_PRODUCTION_WEBSOCKET_MIDDLEWARE", "true"),
                ("DEBUG", "false"),
            ],
            None,
            Development,
            "t.toml:1:11",
        ),
    ] {
        let text = format!("{file}\n{PRODUCTION}");
        let mut sources = sources(&text);
        sources.environment = environment(variables);
        sources.flags.profile = flag.map(str::to_owned);
        let loaded = Config::load(&sources).unwrap();
        let found = (
            loaded.config.profile,
            loaded.provenance.of("profile").to_string(),
        );
        assert_eq!(
            found,
            (expected, source.to_owned()),
            "{file:?} {variables:?} {flag:?}"
        );
    }
}

#[test]
fn d10_a_switch_that_says_neither_yes_nor_no_is_refused() {
    let mut sources = sources("");
    sources.environment = environment(&[("USE_PRODUCTION_WEBSOCKET_MIDDLEWARE", "ture")]);
    assert_eq!(
        lines(Config::load(&sources)),
        [
            "environment USE_PRODUCTION_WEBSOCKET_MIDDLEWARE: profile = ture: neither yes nor no; \
          accepted: true or false"
        ]
    );
}

/// Each row: lines added to or taken from a production file, and what is refused or warned of.
#[test]
fn d10_production_refuses_what_is_unsafe_and_names_the_line_to_change() {
    let open = "/echo and /broadcast are open to everyone who can connect (no admission)";
    let plain = "demo_routes = false\n[[listen]]\naddress = \"0.0.0.0:80\"\n";
    for (text, errors, warnings) in [
        (PRODUCTION.to_owned(), vec![], vec![]),
        (
            PRODUCTION.lines().take(2).collect::<Vec<_>>().join("\n"),
            vec![
                "t.toml:2:11: listen = { address = \"0.0.0.0:443\", tls = true }: there are no \
                 certificate files, and production makes none itself; under [tls] write \
                 certificates = [{ certificate = \"FILE\", key = \"FILE\" }], or use --tls-cert \
                 and --tls-key"
                    .to_owned(),
            ],
            vec![],
        ),
        (
            PRODUCTION.lines().skip(1).collect::<Vec<_>>().join("\n"),
            vec![format!(
                "default: demo_routes = false: production (set by: flag --profile) does not serve \
                 them unasked: {open}; write [[route]] with what you serve, demo_routes = true to \
                 serve them all the same, or demo_routes = false to serve no route"
            )],
            vec![],
        ),
        (
            PRODUCTION.replace("false", "true"),
            vec![],
            vec![format!("t.toml:1:15: demo_routes: {open}")],
        ),
        (
            plain.to_owned(),
            vec![
                "t.toml:2:1: listen = { address = \"0.0.0.0:80\", tls = false }: this would serve \
                 without encryption beyond this host; write tls = true here, or, behind a proxy \
                 that ends TLS, allow_plain = true at the top of the file (or \
                 TIDEGATE_ALLOW_PLAIN=true)"
                    .to_owned(),
            ],
            vec![],
        ),
        (
            format!("allow_plain = true\n{plain}"),
            vec![],
            vec!["t.toml:1:15: allow_plain: 0.0.0.0:80 serves without encryption".to_owned()],
        ),
        (plain.replace("0.0.0.0", "127.0.0.53"), vec![], vec![]),
        (
            plain.replace("0.0.0.0", "[::ffff:127.0.0.1]"),
            vec![],
            vec![],
        ),
        (
            "demo_routes = false".to_owned(),
            vec![
                "default: listen = []: there is no listener; add [[listen]] with address = \
                 \"IP:PORT\" and tls = true, or use --listen-tls"
                    .to_owned(),
            ],
            vec![],
        ),
    ] {
        let mut sources = sources(&text);
        sources.flags.profile = Some("production".to_owned());
        let (found_errors, found_warnings) = match Config::load(&sources) {
            Ok(loaded) => (vec![], loaded.warnings),
            Err(errors) => (errors.0, vec![]),
        };
        let shown: Vec<_> = found_errors.iter().map(ToString::to_string).collect();
        assert_eq!(shown, errors, "{text}");
        let shown: Vec<_> = found_warnings.iter().map(ToString::to_string).collect();
        assert_eq!(shown, warnings, "{text}");
    }
}

#[test]
fn accepted_oddities_are_warned_of() {
    for (text, expected) in [
        (
            "[[listen]]\naddress = \"0.0.0.0:80\"",
            "default: demo_routes: on 0.0.0.0:80, /echo and /broadcast are open to everyone who can \
             connect (no admission)",
        ),
        (
            "websocket.ping_interval = \"off\"",
            "t.toml:1:27: websocket.ping_interval: off: a client that vanished without closing is \
             never noticed",
        ),
        (
            "websocket.message_bytes_max = \"1MiB\"",
            "t.toml:1:31: websocket.message_bytes_max: a message this long does not fit into \
             outbox.bytes_max, so it cannot be passed on to a client that is slow to read",
        ),
        (
            "tls.certificates = [{ certificate = \"c\", key = \"k\" }]\n\
             listen = [{ address = \"[::1]:1\" }]",
            "t.toml:1:20: tls.certificates: not used: no listener has tls = true",
        ),
    ] {
        let shown: Vec<_> = load(text)
            .unwrap()
            .warnings
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(shown, [expected], "{text}");
    }
}

#[test]
fn pings_are_switched_off_by_off_or_zero() {
    for value in ["\"off\"", "\"0\"", "0", "\"0s\"", "\"0ms\""] {
        let loaded = load(&format!("websocket.ping_interval = {value}")).unwrap();
        assert_eq!(loaded.config.websocket.ping_interval, None, "{value}");
    }
}

#[test]
fn defaults_follow_the_host() {
    for (cores, descriptors_max, reactors, connections_max) in [
        (1, Some(1_024), 1, 1_024 - 64 - 5),
        (4, Some(1_048_576), 4, 1_048_576 - 64 - 20),
        (400, None, 255, CONNECTIONS_MAX),
        (2, Some(u64::MAX), 2, CONNECTIONS_MAX),
    ] {
        let config = Config::defaults(
            Profile::Development,
            &Host {
                cores,
                descriptors_max,
            },
        );
        let found = (config.reactors, config.limits.connections_max);
        assert_eq!(found, (reactors, connections_max));
    }
    let mut sources = sources("");
    sources.host = Host {
        cores: 1,
        descriptors_max: Some(69),
    };
    assert_eq!(
        lines(Config::load(&sources)),
        [
            "default: limits.connections_max = 0: the limit of 69 descriptors leaves none for a \
          connection; raise it (LimitNOFILE)"
        ]
    );
}

#[test]
fn f3_a_table_with_fewer_addresses_than_connections_is_a_warning_where_addresses_are_limited() {
    let few = "limits.addresses_max = 8192\n";
    let warning = "t.toml:1:24: limits.addresses_max: 20000 connections may come from more than 8192 \
                   addresses, and those beyond share one account; write 40000 (64 bytes each), or a \
                   lower limits.connections_max";
    for (more, expected) in [
        ("", vec![]),
        ("limits.address_connections_max = 5\n", vec![warning]),
        ("limits.address_attempts = \"1/s\"\n", vec![warning]),
    ] {
        let text = format!("{few}limits.connections_max = 20000\n{more}");
        let mut sources = sources(&text);
        sources.host.descriptors_max = Some(30_000);
        let loaded = Config::load(&sources).unwrap();
        let found: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{more}");
    }
    let text = "limits.addresses_max = 20000\nlimits.address_connections_max = 5\n";
    assert_eq!(load(text).unwrap().warnings, []);
}

#[test]
fn threads_of_hooks_have_descriptors_of_their_own() {
    let text = "[hooks]\nthreads = 256\n[[route]]\npath = \"/x\"\nkind = \"echo\"\n";
    let room = |text: &str| load(text).unwrap().config.limits.connections_max;
    let hook = format!("{text}on_open = \"https://backend.example/\"\n");
    assert_eq!(room(text) - room(&hook), 256);
}

#[test]
fn a_configuration_built_by_a_program_is_held_to_the_same_rules() {
    assert_eq!(
        Config::defaults(Profile::Development, &HOST).validate(&HOST),
        Ok(vec![])
    );

    let base = Config::defaults(Profile::Production, &HOST);
    let config = Config {
        reactors: 0,
        http: HttpConfig {
            head_timeout: Duration::ZERO,
            ..base.http.clone()
        },
        outbox: OutboxConfig {
            bytes_high_water: 2 * units::MIB,
            ..base.outbox.clone()
        },
        ..base
    };
    let errors = config.validate(&HOST).unwrap_err().to_string();
    assert_eq!(
        errors.lines().collect::<Vec<_>>(),
        [
            "program: reactors = 0: out of range; accepted: 1 to 255",
            "program: http.head_timeout = \"0ms\": out of range; accepted: 100ms to 1m",
            "program: listen = []: there is no listener; add [[listen]] with address = \"IP:PORT\" \
             and tls = true, or use --listen-tls",
            "program: outbox.bytes_high_water = \"2MiB\": must not exceed outbox.bytes_max (set \
             by: program); lower this or raise that",
        ]
    );
}

#[test]
fn every_key_is_documented_and_has_names_of_its_own() {
    let keys = keys();
    let names: BTreeSet<_> = keys.iter().map(|key| key.name).collect();
    let variables: Vec<_> = keys
        .iter()
        .filter_map(|key| key.environment.as_ref())
        .collect();
    assert_eq!(names.len(), keys.len());
    assert_eq!(
        variables.iter().collect::<BTreeSet<_>>().len(),
        variables.len()
    );
    for key in &keys {
        let is_cell = |text: &str| !text.is_empty() && !text.contains(['|', '\n']);
        assert!(
            is_cell(key.about) && is_cell(&key.accepted) && is_cell(&key.default),
            "{key:?}"
        );
        assert!(!key.about.ends_with('.'), "{key:?}");
    }
    let table = keys_markdown();
    assert_eq!(table.lines().count(), keys.len() + 2);
    assert!(
        table.contains(
            "| `http.head_bytes_max` | `\"16KiB\"` | 1KiB to 1MiB | `TIDEGATE_HTTP_HEAD_BYTES_MAX` \
             |  | Longest request head; a longer one is answered 431 |\n"
        ),
        "{table}"
    );
}

/// A secret that is long enough, and that no message may show.
fn secret(seed: u64) -> String {
    format!("canary-7f3a-0123456789-abcdefghij-{seed}")
}

/// A value a key accepts, as TOML and as a word, chosen by `seed`.
fn sample(slot: &Slot<'_>, seed: u64) -> (String, String) {
    let span = |start: u64, end: u64| start + seed % (end - start + 1);
    let millis = |range: &std::ops::RangeInclusive<Duration>| {
        let [start, end] =
            [*range.start(), *range.end()].map(|t| u64::try_from(t.as_millis()).unwrap());
        units::format_duration(Duration::from_millis(span(start, end)))
    };
    let text = |word: String| (format!("\"{word}\""), word);
    let same = |word: String| (word.clone(), word);
    match slot {
        Slot::Switch(_) => same((seed.is_multiple_of(2)).to_string()),
        Slot::Choice(choice) => {
            let names = choice.names();
            text(names[usize::try_from(seed % names.len() as u64).unwrap()].to_owned())
        }
        Slot::Count(_, range) => {
            same(span((*range.start()).into(), (*range.end()).into()).to_string())
        }
        Slot::Size(_, range) => text(units::format_size(span(
            *range.start() as u64,
            *range.end() as u64,
        ))),
        Slot::Time(_, range) => text(millis(range)),
        Slot::TimeOrOff(_, _) if seed.is_multiple_of(8) => text("off".to_owned()),
        Slot::TimeOrOff(_, range) => text(millis(range)),
        Slot::CountOrOff(_, _) if seed.is_multiple_of(8) => text("off".to_owned()),
        Slot::CountOrOff(_, range) => {
            same(span((*range.start()).into(), (*range.end()).into()).to_string())
        }
        Slot::Allowance(_, _) if seed.is_multiple_of(8) => text("off".to_owned()),
        Slot::Allowance(_, measure) => {
            let (amounts, _) = measure.ranges(Period::Second);
            let amount = span(*amounts.start(), *amounts.end());
            let burst = amount.max(units::MIB as u64);
            let (amount, burst) = match measure {
                Measure::Bytes(_) => (units::format_size(amount), units::format_size(burst)),
                Measure::Events => (format!("{amount}/m"), burst.min(1_000_000).to_string()),
                Measure::Things(_) => (amount.to_string(), burst.min(1_000_000).to_string()),
            };
            let has_burst = !seed.is_multiple_of(3) && amount != burst;
            match measure {
                _ if has_burst => text(format!("{amount} burst {burst}")),
                Measure::Things(_) => same(amount),
                Measure::Events | Measure::Bytes(_) => text(amount),
            }
        }
        // Texts of one form each; only a URL must look like one.
        Slot::Text(_, _) => text(format!("name{seed}")),
        Slot::TextOrNone(_, _) if seed.is_multiple_of(8) => text(String::new()),
        Slot::TextOrNone(_, form) if form.accepted.starts_with("https") => {
            text(format!("https://id.example.com/{seed}"))
        }
        Slot::TextOrNone(_, _) => text(format!("name{seed}")),
        Slot::File(_) => text(format!("file{seed}")),
        Slot::List(list) => {
            let items = match list.accepted() {
                accepted if accepted.contains("10.0.0.0/8") => ["10.0.0.0/8", "fd00::/8"],
                accepted if accepted.contains("https://app") => {
                    ["https://app.example.com", "http://*.example.com:81"]
                }
                accepted if accepted.contains("[::1]:9480") => ["127.0.0.1:1", "[::1]:2"],
                accepted if accepted.contains("\"messages\"") => ["messages", "bytes"],
                accepted if accepted.contains("\"cookie\"") => ["cookie", "header"],
                accepted if accepted.contains("KID") => ["a.pem", "k=b.pem"],
                _ => ["role", "realm.roles"],
            };
            let items = &items[..usize::try_from(seed % 3).unwrap()];
            let quoted: Vec<_> = items.iter().map(|item| format!("\"{item}\"")).collect();
            (format!("[{}]", quoted.join(", ")), items.join(","))
        }
        Slot::Secret(_) => text(secret(seed)),
        Slot::Secrets(_) => {
            let secret = secret(seed);
            (format!("[\"{secret}\"]"), secret)
        }
        // These stand in tables only.
        Slot::Rule(_) | Slot::Template(_) | Slot::Own(_) => text("/".to_owned()),
        Slot::Tables(_) => same("[]".to_owned()),
        Slot::Listeners(_) => {
            let (port, tls) = (span(1, 65_535), seed.is_multiple_of(2));
            let scheme = if tls { "wss" } else { "ws" };
            (
                format!("[{{ address = \"127.0.0.1:{port}\", tls = {tls} }}]"),
                format!("{scheme}://127.0.0.1:{port}"),
            )
        }
        Slot::Certificates(_) => (
            format!("[{{ certificate = \"c{seed}\", key = \"k{seed}\" }}]"),
            format!("c{seed}:k{seed}"),
        ),
    }
}

/// Sets what a key's flags say from a word of the environment's form. False if it has no flag.
fn set_flag(flags: &mut Flags, key: &str, word: &str) -> bool {
    match key {
        "profile" => flags.profile = Some(word.to_owned()),
        "reactors" => flags.reactors = Some(word.to_owned()),
        "listen" => match word.split_once("://") {
            Some(("wss", address)) => flags.listen_tls = words(&[address]),
            Some((_, address)) => flags.listen = words(&[address]),
            None => return false,
        },
        "tls.certificates" => {
            let (certificate, key) = word.split_once(':').unwrap();
            flags.tls_cert = words(&[certificate]);
            flags.tls_key = words(&[key]);
        }
        _ => return false,
    }
    true
}

/// The written value of `key`, and its source.
fn written(assembly: &mut Assembly, key: &str) -> (String, Source) {
    assert_eq!(assembly.errors, []);
    let settings = assembly.config.settings();
    let setting = settings
        .into_iter()
        .find(|setting| setting.key == key)
        .unwrap();
    (setting.slot.write(), assembly.provenance.of(key).clone())
}

proptest! {
    // Each case reads a configuration for each key.
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_flag_wins_over_a_variable_and_that_over_the_file(seeds: [u64; 3]) {
        let mut defaults = Config::defaults(Profile::Development, &HOST);
        let settings = defaults.settings();
        let samples: Vec<_> = settings
            .iter()
            .map(|s| (s, seeds.map(|seed| sample(&s.slot, seed))))
            .map(|(s, samples)| (s.key, s.flag, s.slot.is_secret(), s.has_variable(), samples))
            .collect();
        drop(settings);
        for (key, flag, is_secret, has_variable, [in_file, mut in_environment, in_flag]) in samples {
            let text = format!("{key} = {}", in_file.0);
            let mut sources = sources(&text);
            let (value, source) = written(&mut Assembly::new(&sources), key);
            if is_secret {
                prop_assert!(value.contains("(hidden)") && !value.contains("canary"), "{}", key);
                in_environment.0 = value;
            } else {
                prop_assert_eq!(value, in_file.0, "{}", key);
            }
            prop_assert!(matches!(source, Source::File { line: 1, .. }), "{} {:?}", key, source);

            if !has_variable {
                continue;
            }
            let name = raw::environment_name(key);
            sources.environment = environment(&[(&name, &in_environment.1)]);
            let (value, source) = written(&mut Assembly::new(&sources), key);
            prop_assert_eq!(value, in_environment.0, "{}", key);
            prop_assert_eq!(source, Source::Environment(name));

            let has_flag = set_flag(&mut sources.flags, key, &in_flag.1);
            prop_assert_eq!(has_flag, flag.is_some(), "{}", key);
            if has_flag {
                let (value, source) = written(&mut Assembly::new(&sources), key);
                prop_assert_eq!(value, in_flag.0, "{}", key);
                prop_assert!(matches!(source, Source::Flag(_)), "{} {:?}", key, source);
            }
        }
    }

    #[test]
    fn the_printed_configuration_loads_to_the_same_one(
        seeds in prop::collection::vec(any::<u64>(), 256),
        certificate in "\\PC{1,20}",
    ) {
        // Random values for all keys; those that break a rule between keys go.
        let mut config = Config::defaults(Profile::Development, &HOST);
        let settings = config.settings();
        assert!(settings.len() <= seeds.len());
        let samples: Vec<_> = settings.iter().zip(&seeds)
            .filter(|(setting, _)| !setting.slot.is_secret())
            .map(|(setting, seed)| (setting.key, sample(&setting.slot, *seed).0))
            .collect();
        let mut text = String::new();
        for (key, value) in samples {
            let longer = format!("{text}{key} = {value}\n");
            if load(&longer).is_ok() {
                text = longer;
            }
        }
        let mut loaded = load(&text).unwrap();
        loaded.config.tls.certificates.push(CertificateFiles {
            certificate: format!("{certificate}\n\"\t\u{202e}").into(),
            key: "'''".into(),
        });
        let printed = loaded.to_toml();
        let again = load(&printed);
        prop_assert!(again.is_ok(), "{}\n{}", printed, again.unwrap_err());
        let again = again.unwrap();
        prop_assert_eq!(&again.config, &loaded.config, "{}", printed);
        for key in keys().iter().filter(|key| key.environment.is_some()) {
            let is_file = matches!(again.provenance.of(key.name), Source::File { .. });
            let is_secret = key.accepted.contains("never shown");
            prop_assert!(is_file != is_secret, "{}", key.name);
        }
    }

    #[test]
    fn x20_no_text_panics_and_every_fault_has_a_place(text in "(\\PC|[\n=\\[\\]\"{}.#]){0,200}") {
        check_places(&text);
    }
}

/// Every line about the file begins with its name, a line and a column that the file has.
fn check_places(text: &str) -> usize {
    let Err(ConfigErrors(errors)) = load(text) else {
        return 0;
    };
    for error in &errors {
        let shown = error.to_string();
        let lines = if matches!(error.problem, Problem::Spot { .. }) {
            3
        } else {
            1
        };
        assert_eq!(shown.lines().count(), lines, "{shown:?}");
        assert!(
            shown.lines().skip(1).all(|line| line.starts_with("  ")),
            "{shown:?}"
        );
        match &error.source {
            Source::File { line, column, .. } => {
                let width = text
                    .split('\n')
                    .nth(line - 1)
                    .map(|line| line.chars().count());
                assert!(
                    width.is_some_and(|width| (1..=width + 1).contains(column)),
                    "{shown}\n{text}"
                );
            }
            // A rule between keys may blame a default, and then names the line beside it.
            Source::Default => assert!(
                matches!(
                    error.problem,
                    Problem::Conflict { .. } | Problem::Rule { .. }
                ),
                "{shown}"
            ),
            other => panic!("{other:?} in {shown}"),
        }
    }
    errors.len()
}

#[test]
fn x20_mutated_files_never_panic_and_name_the_place() {
    let whole = load("").unwrap().to_toml();
    // A file that sets every key, broken by one edit of each kind at places spread over it.
    type Edit = fn(&mut Vec<char>, usize);
    let edits: [Edit; 5] = [
        |chars, at| {
            chars.remove(at);
        },
        |chars, at| chars.insert(at, '\u{0}'),
        |chars, at| chars[at] = '=',
        |chars, at| chars.truncate(at),
        |chars, at| {
            let (front, back) = chars.split_at(at);
            *chars = [front, front, back].concat();
        },
    ];
    let (mut files, mut refused) = (0, 0);
    for (kind, edit) in edits.into_iter().enumerate() {
        for place in 0..50 {
            let mut chars: Vec<char> = whole.chars().collect();
            let at = (chars.len() - 1) * place / 50 + kind;
            edit(&mut chars, at);
            let text: String = chars.into_iter().collect();
            files += 1;
            refused += usize::from(check_places(&text) > 0);
        }
    }
    // Most edits hurt; one in a comment, or at the very end, does not.
    assert!(refused * 2 > files, "{refused} of {files}");
}

#[test]
fn x10_deep_nesting_is_a_fault_and_not_a_stack_overflow() {
    for text in [
        format!("reactors = {}", "[".repeat(100_000)),
        format!("reactors = {}{}", "[".repeat(100_000), "]".repeat(100_000)),
        format!("reactors = {}1", "{ a = ".repeat(100_000)),
        format!("[{}a]", "a.".repeat(100_000)),
        format!("{}a = 1", "a.".repeat(100_000)),
    ] {
        assert!(check_places(&text) > 0, "{}", &text[..40]);
    }
}

#[test]
fn h3_other_hosts_are_listened_to_only_with_a_token() {
    let token = "t".repeat(16) + "0123456789abcdef";
    for (text, why) in [
        ("listen = [\"127.0.0.1:1\", \"[::1]:1\"]".to_owned(), None),
        ("listen = []".to_owned(), None),
        (
            "listen = [\"0.0.0.0:1\"]".to_owned(),
            Some("within reach of other hosts"),
        ),
        (
            "listen = [\"[::]:1\"]".to_owned(),
            Some("within reach of other hosts"),
        ),
        (
            "listen = [\"192.0.2.1:1\"]".to_owned(),
            Some("within reach of other hosts"),
        ),
        (
            format!("listen = [\"0.0.0.0:1\"]\ntoken = \"{token}\""),
            None,
        ),
        (
            "listen = [\"0.0.0.0:1\"]\ntoken_file = \"t\"".to_owned(),
            None,
        ),
        (
            format!("token_file = \"t\"\ntoken = \"{token}\""),
            Some("given twice"),
        ),
        (
            format!("token = \"{}\"", &token[1..]),
            Some("monitor.token"),
        ),
        (
            "listen = [\"127.0.0.1:8080\"]".to_owned(),
            Some("listed twice"),
        ),
        (
            "listen = [\"[::1]:9\", \"[::1]:9\"]".to_owned(),
            Some("listed twice"),
        ),
        (
            "listen = [\"localhost:9\"]".to_owned(),
            Some("not an IP address and a port"),
        ),
    ] {
        let found = load(&format!("[monitor]\n{text}\n"))
            .err()
            .map(|errors| errors.to_string());
        match (why, &found) {
            (Some(why), Some(found)) => {
                assert!(found.contains(why), "{text}: {found}");
                assert!(!found.contains(&token[1..]), "{found}");
                assert_eq!(found.lines().count(), 1, "{found}");
            }
            (None, None) => {}
            _ => panic!("{text}: {found:?}"),
        }
    }
}

#[test]
fn channels_have_policies_by_name_and_by_prefix() {
    let text = r#"
        [hub]
        subscriptions_max = 7
        histories_bytes_max = "2MiB"
        [[channel]]
        prefix = "room:"
        history_size = 100
        history_ttl = "10s"
        presence = true
        announce = true
        [[channel]]
        name = "room:hot"
        slow = "keep-latest"
        [[channel]]
        slow = "drop-oldest"
    "#;
    let config = load(text).unwrap().config;
    let policies = config.policies();
    let of = |name: &str| {
        let channel = crate::hub::Channel::new(name).unwrap();
        policies.of(&channel).clone()
    };
    use crate::hub::{ChannelPolicy, Slow};
    let plain = ChannelPolicy::default();
    let room = ChannelPolicy {
        history_size: 100,
        history_ttl: Duration::from_secs(10),
        presence: true,
        announce: true,
        ..plain.clone()
    };
    assert_eq!(of("room:1"), room);
    let slow = |slow| ChannelPolicy {
        slow,
        ..plain.clone()
    };
    assert_eq!(of("room:hot"), slow(Slow::KeepLatest));
    assert_eq!(of("other"), slow(Slow::DropOldest));
    let limits = config.hub.limits();
    assert_eq!(
        (limits.subscriptions_max, limits.kept.histories_bytes_max),
        (7, 2 * 1024 * 1024)
    );
    assert_eq!(
        Config::defaults(Profile::Production, &HOST).hub.limits(),
        crate::hub::Limits::default()
    );
}

#[test]
fn x20_faults_of_channels_name_the_line_to_change() {
    for (text, line) in [
        ("[[channel]]\nname = \"a b\"", "t.toml:2:8: channel.name = "),
        (
            "[[channel]]\nname = \"a\"\nprefix = \"b\"",
            "t.toml:3:10: channel.prefix: ",
        ),
        ("[[channel]]\n[[channel]]", "t.toml:2:1: channel.prefix: "),
        (
            "[[channel]]\nname = \"a\"\n[[channel]]\nname = \"a\"",
            "t.toml:4:8: channel.name: ",
        ),
        (
            "[[channel]]\nhistory_size = 100001",
            "t.toml:2:16: channel.history_size = ",
        ),
        (
            "[[channel]]\nhistory_ttl = \"500ms\"",
            "t.toml:2:15: channel.history_ttl = ",
        ),
        (
            "[[channel]]\nslow = \"wait\"",
            "t.toml:2:8: channel.slow = ",
        ),
        (
            "[hub]\nsubscriptions_max = 0",
            "t.toml:2:21: hub.subscriptions_max = ",
        ),
    ] {
        let lines = lines(load(text));
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with(line), "{lines:?}");
    }
}
