//! The metrics thread as administrators see it: over HTTP, on an address of its own.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use tidegate::monitor::{self, RESTARTS_MAX, Token};

use support::watched::{Watched, ask, sum};
use support::{Client, Program, demo_routes, settings, wait_until};

const TOKEN: &str = "an-administrators-token-of-40-characters";

const API: &str = "/api/monitoring/websocket";

fn watched() -> Watched {
    Watched::start(settings(), demo_routes())
}

/// Opens so many connections and has the monitor know of them.
fn open(watched: &Watched, count: usize) -> Vec<Client> {
    let clients = (0..count).map(|_| Client::open(watched.address, "/echo"));
    let clients = clients.collect();
    watched.get_when(
        &format!("{API}/active-connections/"),
        "the connections are known",
        |answer| answer["active_connections"].as_u64() >= Some(count as u64),
    );
    clients
}

#[test]
fn the_originals_endpoints_have_its_fields_and_types() {
    let watched = watched();
    let mut clients = open(&watched, 3);
    for client in &mut clients {
        client.echo("hello");
        client.echo("again");
    }
    clients.pop().unwrap().close(1000);
    let path = format!("{API}/metrics/");
    let metrics = watched.get_when(&path, "a connection ended", |metrics| {
        metrics["active_connections"] == 2 && metrics["messages_sent"] == 6
    });
    let members = metrics.as_object().unwrap();
    for (name, is_right) in [
        ("active_connections", metrics["active_connections"].is_u64()),
        ("connections_today", metrics["connections_today"] == 3),
        ("messages_sent", metrics["messages_sent"] == 6),
        ("messages_received", metrics["messages_received"] == 6),
        (
            "avg_connection_duration",
            metrics["avg_connection_duration"].is_f64(),
        ),
        (
            "messages_per_minute",
            metrics["messages_per_minute"].is_u64(),
        ),
        (
            "timestamp",
            metrics["timestamp"].as_str().unwrap().ends_with('Z'),
        ),
    ] {
        assert!(members.contains_key(name) && is_right, "{name}: {metrics}");
    }
    assert_eq!(members.len(), 7);
    let active = watched.get(&format!("{API}/active-connections/"));
    assert_eq!(active.body, "{\"active_connections\":2}");
    assert_eq!(active.header("Content-Type"), Some("application/json"));
}

#[test]
fn liveness_is_a_word_and_verbose_says_more() {
    let watched = watched();
    for path in ["/healthz", "/health", "/healthz/", "/readyz", "/ready"] {
        let answer = watched.get(path);
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, "ok\n"),
            "{path}"
        );
    }
    let health = watched.get_json("/healthz?verbose");
    assert_eq!(health["status"], "ok");
    assert_eq!(health["monitoring"], "ok");
    assert_eq!(health["reactors"], 2);
    let version = watched.get_json("/version");
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn nobody_is_ready_before_the_start_and_while_draining() {
    let monitoring = monitor::Monitoring::start(monitor::Settings::default()).unwrap();
    let admin = monitoring.addresses()[0];
    let get = |path: &str| {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        ask(admin, &request)
    };
    let ready = get("/readyz");
    assert_eq!((ready.status, ready.body.as_str()), (503, "starting\n"));
    assert_eq!(get("/healthz").status, 200);
    let metrics = get("/metrics");
    assert_eq!(metrics.status, 503, "and not a page of zeros: {metrics:?}");
    assert_eq!(metrics.header("Retry-After"), Some("1"));
    monitoring.finish();

    let mut watched = watched();
    let waiting = open(&watched, 1);
    watched.running().handle.shut_down();
    let ready = watched.get("/readyz");
    assert_eq!((ready.status, ready.body.as_str()), (503, "draining\n"));
    drop(waiting);
}

#[test]
fn readiness_ends_above_the_high_water_mark_and_not_at_it() {
    let mut settings = settings();
    settings.admission.limits.connections.max = 4;
    let monitor = monitor::Settings {
        ready_percent_max: 75,
        ..monitor::Settings::default()
    };
    let watched = Watched::start_with(monitor, settings, demo_routes());
    let mut clients = Vec::new();
    for (held, status) in [(1, 200), (2, 200), (3, 200), (4, 503)] {
        clients.push(Client::open(watched.address, "/echo"));
        assert_eq!(watched.get("/readyz").status, status, "{held} connections");
    }
    assert_eq!(watched.get("/readyz").body, "near_limit\n");
}

#[test]
fn metrics_are_openmetrics_and_tell_of_the_connections() {
    let watched = watched();
    let _clients = open(&watched, 5);
    let answer = watched.get("/metrics");
    assert_eq!(
        answer.header("Content-Type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert!(answer.body.ends_with("# EOF\n"));
    let samples = watched.samples_when("all are open", |samples| {
        sum(samples, "tidegate_connections_open") == 5.0
    });
    assert_eq!(sum(&samples, "tidegate_connections"), 5.0);
    assert_eq!(sum(&samples, "tidegate_connections_accepted_total"), 5.0);
    assert_eq!(sum(&samples, "tidegate_connections_opened_total"), 5.0);
    assert_eq!(sum(&samples, "tidegate_ready"), 1.0);
    assert!(sum(&samples, "process_resident_memory_bytes") > 1e5);
    assert!(sum(&samples, "tidegate_turn_duration_seconds_count") > 0.0);
}

/// Every path but the probes, with its method.
const PATHS: [(&str, &str); 14] = [
    ("GET", "/metrics"),
    ("GET", "/version"),
    ("GET", "/healthz?verbose"),
    ("GET", "/readyz?verbose"),
    ("GET", "/api/monitoring/websocket/metrics/"),
    ("GET", "/api/monitoring/websocket/active-connections/"),
    ("GET", "/api/monitoring/websocket/connections/"),
    (
        "GET",
        "/api/monitoring/websocket/connections/0000000000000000",
    ),
    ("GET", "/api/monitoring/websocket/alerts/"),
    ("GET", "/api/monitoring/websocket/history/"),
    ("GET", "/api/monitoring/websocket/daily/"),
    ("GET", "/api/monitoring/websocket/funnel/"),
    ("GET", "/api/monitoring/websocket/figures/"),
    ("GET", "/nothing"),
];

/// Whether an administrator finds something there, though nobody is connected.
fn is_there(path: &str) -> bool {
    path != "/nothing" && !path.ends_with("/0000000000000000")
}

#[test]
fn where_there_is_a_token_only_probes_go_without() {
    let monitor = monitor::Settings {
        token: Some(Token::new(TOKEN)),
        ..monitor::Settings::default()
    };
    let mut watched = Watched::start_with(monitor, settings(), demo_routes());
    let orders = [
        ("POST", "/api/monitoring/websocket/disconnect/"),
        ("POST", "/api/monitoring/websocket/revoke/"),
    ];
    let wrong = format!("{TOKEN}x");
    for token in [None, Some(wrong.as_str())] {
        if let Some(token) = token {
            watched.show(token);
        }
        for (method, path) in PATHS.iter().chain(&orders) {
            let answer = watched.ask(method, path, "");
            assert!([401, 429].contains(&answer.status), "{path}: {answer:?}");
            assert!(!answer.body.contains("tidegate_"), "{path}");
        }
        // Guesses have an account of their own, which refills.
        let mut scheme = None;
        wait_until("the token is asked for", || {
            let answer = watched.get("/metrics");
            scheme = answer.header("WWW-Authenticate").map(str::to_owned);
            answer.status == 401
        });
        assert_eq!(scheme.as_deref(), Some("Bearer realm=\"tidegate\""));
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(watched.get(path).status, 200, "{path}");
    }
    watched.show(TOKEN);
    for (method, path) in PATHS {
        let expected = if is_there(path) { 200 } else { 404 };
        let answer = watched.ask(method, path, "");
        assert_eq!(answer.status, expected, "{path}: {answer:?}");
        assert!(!answer.body.contains(TOKEN) && !answer.head.contains(TOKEN));
    }
}

#[test]
fn h6_methods_that_are_not_meant_change_nothing_and_say_which_are() {
    let watched = watched();
    let clients = open(&watched, 2);
    for (_, path) in PATHS.iter().filter(|(_, path)| is_there(path)) {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let answer = watched.ask(method, path, "{}");
            assert_eq!(answer.status, 405, "{method} {path}");
            assert_eq!(answer.header("Allow"), Some("GET, HEAD"), "{method} {path}");
        }
        let head = watched.ask("HEAD", path, "");
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
    }
    for path in ["disconnect", "revoke"] {
        for method in ["GET", "HEAD", "PUT", "DELETE"] {
            let answer = watched.ask(method, &format!("{API}/{path}/?all=true"), "");
            assert_eq!(answer.status, 405, "{method} {path}");
            assert_eq!(answer.header("Allow"), Some("POST"), "{method} {path}");
        }
    }
    for mut client in clients {
        client.echo("still here");
    }
}

#[test]
fn c5_another_hosts_name_is_not_served() {
    let watched = watched();
    for (host, status) in [
        ("localhost", 200),
        ("127.0.0.1:9480", 200),
        ("rebound.example.com", 421),
        ("rebound.example.com:9480", 421),
    ] {
        for path in ["/healthz", "/metrics"] {
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            assert_eq!(watched.ask_raw(&request).status, status, "{host} {path}");
        }
    }
}

#[test]
fn h7_who_asks_too_often_waits_and_probes_do_not() {
    let monitoring = monitor::Monitoring::start(monitor::Settings {
        requests_per_second: 2,
        ..monitor::Settings::default()
    })
    .unwrap();
    let admin = monitoring.addresses()[0];
    let get = |path: &str| {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        ask(admin, &request)
    };
    let answers: Vec<_> = (0..20).map(|_| get("/version")).collect();
    let refused = answers.iter().find(|answer| answer.status == 429);
    let refused = refused.expect("twenty requests within two seconds are too many");
    assert_eq!(refused.header("Retry-After"), Some("1"));
    for answer in (0..20).map(|_| get("/healthz")) {
        assert_eq!(answer.status, 200);
    }
    monitoring.finish();
}

#[test]
fn h7_strangers_who_ask_for_pages_take_no_permit_of_administrators() {
    let monitoring = monitor::Monitoring::start(monitor::Settings {
        requests_per_second: 2,
        token: Some(Token::new(TOKEN)),
        ..monitor::Settings::default()
    })
    .unwrap();
    let admin = monitoring.addresses()[0];
    let get = |path: &str, lines: &str| {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n");
        ask(admin, &request)
    };
    let mut refused = 0;
    while refused < 2 {
        for path in [
            "/",
            "/dashboard/",
            "/dashboard/app.js",
            "/dashboard/nothing",
        ] {
            refused += u32::from(get(path, "").status == 429);
        }
    }
    let version = get("/version", &format!("Authorization: Bearer {TOKEN}\r\n"));
    assert_eq!(version.status, 200);
    monitoring.finish();
}

#[test]
fn h7_strangers_who_stay_keep_no_administrator_out() {
    let monitor = monitor::Settings {
        token: Some(Token::new(TOKEN)),
        ..monitor::Settings::default()
    };
    let watched = Watched::start_with(monitor, settings(), demo_routes());
    let mut strangers = Vec::new();
    let paths = ["/metrics", "/healthz", "/dashboard/", "/readyz?verbose"];
    // As many as there are places for.
    for path in paths.iter().cycle().take(32) {
        let mut stranger = Client::connect(watched.admin);
        stranger.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        let head = stranger.read_head();
        assert!(head.contains("Connection: close\r\n"), "{path}: {head}");
        strangers.push(stranger);
    }
    // Who has the token gets in while the strangers hold on, and may stay.
    let request = |lines: &str| {
        format!(
            "GET /version HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n{lines}\r\n"
        )
    };
    wait_until("an administrator gets in", || {
        let mut client = Client::connect(watched.admin);
        client.try_send(request("Connection: close\r\n").as_bytes());
        client.read_to_end().starts_with(b"HTTP/1.1 200 ")
    });
    let mut administrator = Client::connect(watched.admin);
    for _ in 0..2 {
        administrator.send(request("").as_bytes());
        administrator.read_until(b"\"version\"");
    }
    drop(strangers);
}

#[test]
fn x6_a_panic_is_survived_three_times_and_figures_are_never_zeros() {
    let orders = Arc::new(AtomicU32::new(0));
    let observer = {
        let orders = Arc::clone(&orders);
        move |_: u64, _: &tidegate::metrics::Figures| {
            let left = orders.load(Ordering::Acquire);
            if left > 0 {
                orders.store(left - 1, Ordering::Release);
                panic!("as the test ordered");
            }
        }
    };
    let monitor = monitor::Settings {
        observer: Some(Arc::new(observer)),
        ..monitor::Settings::default()
    };
    let watched = Watched::start_with(monitor, settings(), demo_routes());
    let mut clients = open(&watched, 20);
    for restarts in 1..=RESTARTS_MAX {
        orders.store(1, Ordering::Release);
        watched.get_when("/healthz?verbose", "it began anew", |health| {
            health["monitoring_restarts"] == restarts
        });
        let active = watched.get_json(&format!("{API}/active-connections/"));
        assert_eq!(active["active_connections"], 20, "at no moment zero");
        let path = format!("{API}/connections/?limit=1");
        watched.get_when(&path, "the rows are back", |page| page["total"] == 20);
    }
    let samples = watched.samples_when("the restarts are counted", |samples| {
        sum(samples, "tidegate_metrics_thread_restarts_total") == f64::from(RESTARTS_MAX)
    });
    assert_eq!(sum(&samples, "tidegate_connections_open"), 20.0);

    orders.store(1, Ordering::Release);
    let health = watched.get_when("/healthz?verbose", "it gave up", |health| {
        health["monitoring"] == "failed"
    });
    assert_eq!(health["status"], "ok", "the server lives");
    for (_, path) in PATHS
        .iter()
        .filter(|(_, path)| path.starts_with("/api") || *path == "/metrics")
    {
        let answer = watched.get(path);
        assert_eq!(answer.status, 503, "{path}: {answer:?}");
    }
    for client in &mut clients {
        client.echo("clients notice nothing");
    }
}

#[test]
fn errors_are_json() {
    let watched = watched();
    for (answer, status) in [
        (watched.get("/nothing"), 404),
        (watched.ask("POST", "/metrics", ""), 405),
        (watched.get(&format!("{API}/daily/?days=0")), 400),
        (watched.get(&format!("{API}/connections/?nonsense=1")), 400),
    ] {
        let body: Value = answer.json();
        assert_eq!(
            (answer.status, &body["status"]),
            (status, &Value::from(status))
        );
        assert!(body["message"].is_string(), "{body}");
    }
}

#[test]
fn the_program_does_not_start_where_other_hosts_could_ask_without_a_token() {
    let start = |environment: &[(&str, &str)]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(["--listen", "127.0.0.1:0"]).env_clear();
        command.envs(environment.iter().copied());
        command
    };
    let open = ("TIDEGATE_MONITOR_LISTEN", "0.0.0.0:0");
    let refused = start(&[open]).output().unwrap();
    assert_eq!(refused.status.code(), Some(78));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(
        said.contains("monitor.listen") && said.contains("TIDEGATE_MONITOR_TOKEN"),
        "{said}"
    );
    let mut program = Program::spawn(start(&[open, ("TIDEGATE_MONITOR_TOKEN", TOKEN)]));
    program.signal(rustix::process::Signal::TERM);
    assert_eq!(program.wait().code(), Some(0));
}

#[test]
fn an_alert_is_told_in_the_log_when_it_fires_and_when_it_is_over() {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("alert.toml");
    let rule = "[[alert]]\nname = \"somebody\"\nvalue = \"tidegate_connections_open\"\n\
                threshold = 0.5\nfor = \"0s\"\nseverity = \"critical\"\nabout = \"Somebody is here.\"\n";
    let monitor = "[monitor]\nlisten = [\"127.0.0.1:0\"]\ntick_interval = \"100ms\"\n";
    std::fs::write(&file, format!("{monitor}{rule}")).unwrap();
    let mut program = Program::start(
        &[
            "--listen",
            "127.0.0.1:0",
            "--config",
            file.to_str().unwrap(),
        ],
        &[],
    );
    let client = Client::open(program.addresses[0], "/echo");
    let fires = program.read_line_with("an alert fires");
    for word in ["ERROR", "somebody", "Somebody is here."] {
        assert!(
            fires.to_lowercase().contains(&word.to_lowercase()),
            "{fires}"
        );
    }
    drop(client);
    let over = program.read_line_with("an alert is over");
    assert!(over.contains("somebody"), "{over}");
    program.signal(rustix::process::Signal::TERM);
    assert_eq!(program.wait().code(), Some(0));
}
