//! Whether the figures are true: what they say is compared with what the clients counted and what the
//! kernel shows, whatever became of the connections.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tidegate::admission::limits::Cap;
use tidegate::admission::origin::OriginPolicy;
use tidegate::admission::rule::Rule;
use tidegate::conn::CloseReason;
use tidegate::monitor;
use tidegate::timer::TICK;
use tidegate::{CloseCode, HandlerFactory, Route, Settings, TokenDemand};

use support::tokens::{token, verifier};
use support::watched::{Watched, ask, sum};
use support::{Client, On, demo_routes, frame, request, route, settings, wait_until};

const API: &str = "/api/monitoring/websocket";

/// What the clients of a test sent and got, each message once its echo has come.
#[derive(Default)]
struct Counted {
    opened: AtomicU64,
    connected: AtomicU64,
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Counted {
    fn open(&self, address: SocketAddr, path: &str) -> Client {
        let client = Client::open(address, path);
        self.connected.fetch_add(1, Ordering::Relaxed);
        self.opened.fetch_add(1, Ordering::Relaxed);
        client
    }

    /// A connection that will not be opened.
    fn connect(&self, address: SocketAddr) -> Client {
        let client = Client::connect(address);
        self.connected.fetch_add(1, Ordering::Relaxed);
        client
    }

    fn echo(&self, client: &mut Client, length: usize) {
        let text = "x".repeat(length);
        client.echo(&text);
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(length as u64, Ordering::Relaxed);
    }
}

fn routes() -> Vec<(Route, Arc<dyn HandlerFactory>)> {
    let on = On {
        message: |peer, message| {
            if message.as_bytes() == b"close" {
                peer.close(CloseCode::Normal, "");
            } else {
                peer.send(message);
            }
        },
        ..On::default()
    };
    let mut routes = demo_routes();
    routes.push(route("/closing", on));
    routes.push(route("/kicked", on));
    for (path, rule, places) in [
        ("/members", "any", None),
        ("/admins", "role = 'admin'", None),
        ("/nobody", "any", Some(Cap::of(0))),
    ] {
        let (mut members, handler) = route(path, On::default());
        members.token = TokenDemand::Required;
        members.rule = Rule::parse(rule).unwrap();
        members.origins = Some(OriginPolicy {
            allow_absent: true,
            ..OriginPolicy::default()
        });
        members.user_connections = places;
        routes.push((members, handler));
    }
    routes
}

/// The connections that the kernel shows as established at this port of ours.
fn established(address: SocketAddr) -> usize {
    let text = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{:04X}", address.port());
    let lines = text.lines().skip(1).map(|line| line.split_whitespace());
    lines
        .filter(|words| {
            let words: Vec<_> = words.clone().take(4).collect();
            words[1].ends_with(&port) && words[3] == "01"
        })
        .count()
}

/// Ways in which one connection after another can end.
const WAYS: usize = 16;

/// Opens a connection, uses it, and ends it in this way.
fn live(way: usize, number: usize, address: SocketAddr, counted: &Counted) {
    let used = |path: &str| {
        let mut client = counted.open(address, path);
        for length in [number % 97, 200] {
            counted.echo(&mut client, length);
        }
        client
    };
    let refused = |status: u16, text: &str| {
        let mut client = counted.connect(address);
        client.send(text.as_bytes());
        assert_eq!(client.read_refusal().0, status, "{text}");
    };
    match way {
        0 => {
            used("/echo").close(1000);
        }
        1 => used("/echo").reset(),
        2 => drop(used("/echo")),
        3 => {
            // Unmasked: a violation.
            let mut client = used("/echo");
            client.send(&[0x81, 1, b'x']);
            assert_eq!(client.read_close(), Some(1002));
        }
        4 => {
            let mut client = used("/echo");
            client.send(&[0x82, 0xff, 0, 0, 0, 0, 0x7f, 0, 0, 0, 1, 2, 3, 4]);
            assert_eq!(client.read_close(), Some(1009));
        }
        5 => {
            let mut client = used("/closing");
            client.send_text("close");
            counted.messages.fetch_add(1, Ordering::Relaxed);
            counted.bytes.fetch_add(5, Ordering::Relaxed);
            assert_eq!(client.read_frame().unwrap().close_code(), Some(1000));
            client.close(1000);
        }
        6 => refused(404, &request("/nothing")),
        7 => refused(400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        8 => refused(401, &request("/members?token=a.b.c")),
        11 => refused(426, &request("/echo").replace("Version: 13", "Version: 12")),
        12 => {
            let origin = "\r\nOrigin: https://elsewhere.example\r\n\r\n";
            refused(403, &request("/members").replace("\r\n\r\n", origin));
        }
        13 => {
            let token = token("ann", "a");
            refused(403, &request(&format!("/admins?token={token}")));
        }
        14 => {
            let token = token("ann", "a");
            refused(429, &request(&format!("/nobody?token={token}")));
        }
        9 => drop(counted.connect(address)),
        10 => {
            let mut client = counted.connect(address);
            client.send(b"GET /echo HT");
            client.reset();
        }
        _ => {
            // Gone in the middle of a frame.
            let mut client = used("/echo");
            client.send(&frame(0x81, b"half")[..4]);
        }
    }
}

#[test]
fn ten_thousand_connections_are_counted_whatever_became_of_them() {
    const ONE_BY_ONE: usize = 8_960;
    const SILENT: usize = 300;
    const SLOW: usize = 200;
    const KICKED: usize = 340;
    const STAYING: usize = 200;
    const THREADS: usize = 8;
    let mut settings = settings();
    settings.verifier = Some(verifier());
    settings.timeouts.ping_interval = Some(60 * TICK);
    settings.timeouts.pong = 40 * TICK;
    settings.timeouts.head = 40 * TICK;
    settings.timeouts.close = 100 * TICK;
    let mut watched = Watched::start(settings, routes());
    let (address, counted) = (watched.address, Arc::new(Counted::default()));

    let workers: Vec<_> = (0..THREADS)
        .map(|worker| {
            let counted = Arc::clone(&counted);
            std::thread::spawn(move || {
                for number in (worker..ONE_BY_ONE).step_by(THREADS) {
                    live(number % WAYS, number, address, &counted);
                }
            })
        })
        .collect();
    workers
        .into_iter()
        .for_each(|worker| worker.join().unwrap());

    // Many at once, who say nothing, or not enough.
    let silent: Vec<Client> = (0..SILENT)
        .map(|_| counted.open(address, "/echo"))
        .collect();
    let slow: Vec<Client> = (0..SLOW)
        .map(|_| {
            let mut client = counted.connect(address);
            client.send(b"GET /echo HTTP/1.1\r\nHost: a\r\n");
            client
        })
        .collect();
    for mut client in slow {
        assert_eq!(client.read_refusal().0, 408);
    }
    for mut client in silent {
        client.read_to_end();
    }
    // Kicked by an administrator.
    let kicked: Vec<Client> = (0..KICKED)
        .map(|_| counted.open(address, "/kicked"))
        .collect();
    watched.get_when(
        &format!("{API}/connections/?route=/kicked"),
        "all are known",
        |page| page["total"] == KICKED,
    );
    let order = r#"{"filter":{"route":"/kicked"},"rate":100000}"#;
    assert_eq!(
        watched
            .ask("POST", &format!("{API}/disconnect/"), order)
            .status,
        202
    );
    for client in kicked {
        let mut client = client;
        // On a busy machine a ping may come first.
        let mut frame = client.read_frame().unwrap();
        while frame.opcode() == 9 {
            client.send(&support::frame(0x8a, b""));
            frame = client.read_frame().unwrap();
        }
        assert_eq!(frame.close_code(), Some(4000));
        client.close(4000);
    }

    // Some stay, and answer pings while they are counted.
    let until_told = Arc::new(AtomicBool::new(false));
    let staying: Vec<Client> = (0..STAYING)
        .map(|_| counted.open(address, "/echo"))
        .collect();
    let keeper = {
        let until_told = Arc::clone(&until_told);
        std::thread::spawn(move || {
            let mut staying = staying;
            while !until_told.load(Ordering::Acquire) {
                for client in &mut staying {
                    // An answer that nobody asked for shows life as well (RFC 6455 §5.5.3).
                    client.send(&frame(0x8a, b""));
                }
            }
            staying
        })
    };
    watched.samples_when("only those who stay are left", |samples| {
        sum(samples, "tidegate_connections") == STAYING as f64
    });
    // While some come and others go, the sum may be the same for a moment.
    watched.get_when(
        &format!("{API}/active-connections/"),
        "those who stay are open",
        |active| active["active_connections"] == STAYING,
    );
    // The kernel keeps a moment what has been closed.
    wait_until("the kernel shows as many", || {
        established(address) == STAYING
    });

    until_told.store(true, Ordering::Release);
    let staying = keeper.join().unwrap();
    watched.running().handle.shut_down();
    for mut client in staying {
        let mut code = None;
        while let Some(frame) = client.read_frame() {
            if frame.opcode() == 8 {
                code = frame.close_code();
                client.send(&support::frame(0x88, &1001_u16.to_be_bytes()));
            }
        }
        assert_eq!(code, Some(1001));
    }
    let counters = watched.stop_server();
    let total = (ONE_BY_ONE + SILENT + SLOW + KICKED + STAYING) as u64;
    assert_eq!(total, 10_000);
    assert_eq!(counters.accepted, counted.connected.load(Ordering::Relaxed));
    assert_eq!(counters.accepted, total);

    // The last reports have been taken in, and the server itself is gone.
    let samples = watched.samples_when("the last report is in", |samples| {
        sum(samples, "tidegate_connections") == 0.0
    });
    let whole = |name: &str| sum(&samples, name) as u64;
    assert_eq!(whole("tidegate_connections_accepted_total"), total);
    assert_eq!(whole("tidegate_connections_closed_total"), total);
    assert_eq!(whole("tidegate_connections_open"), 0);
    let opened = counted.opened.load(Ordering::Relaxed);
    assert_eq!(whole("tidegate_connections_opened_total"), opened);
    assert_eq!(whole("tidegate_connection_duration_seconds_count"), opened);
    let messages = counted.messages.load(Ordering::Relaxed);
    assert_eq!(whole("tidegate_messages_received_total"), messages);
    let bytes = counted.bytes.load(Ordering::Relaxed);
    assert_eq!(whole("tidegate_received_bytes_total"), bytes);
    let closing = (ONE_BY_ONE / WAYS) as u64;
    assert_eq!(whole("tidegate_messages_sent_total"), messages - closing);
    assert_eq!(whole("tidegate_sent_bytes_total"), bytes - 5 * closing);
    assert_eq!(
        whole("tidegate_send_latency_seconds_count"),
        messages - closing
    );
    assert_eq!(
        whole("tidegate_connections_accepted_total"),
        opened + whole("tidegate_refusals_total") + whole("tidegate_handshakes_abandoned_total")
    );
    for (reason, count) in [
        ("pong_timeout", SILENT as u64),
        ("head_timeout", SLOW as u64),
        ("disconnected", KICKED as u64),
        ("shutdown", STAYING as u64),
        ("violation", 2 * closing),
        ("handler", closing),
    ] {
        let name = format!("tidegate_connections_closed_total{{reason=\"{reason}\"}}");
        assert_eq!(samples[&name], count as f64, "{reason}");
    }
    for (stage, count) in [
        ("head", closing + SLOW as u64),
        ("upgrade", closing),
        ("route", closing),
        ("origin", closing),
        ("token", closing),
        ("rule", closing),
        ("user", closing),
    ] {
        let name = format!("tidegate_refusals_total{{stage=\"{stage}\"");
        let of_stage = samples.iter().filter(|(known, _)| known.starts_with(&name));
        let found: f64 = of_stage.map(|(_, value)| value).sum();
        assert_eq!(found, count as f64, "{stage}");
    }
    for (number, reason) in tidegate::conn::reason::LABELS.iter().enumerate() {
        let name = format!("tidegate_connections_closed_total{{reason=\"{reason}\"}}");
        assert_eq!(samples[&name], counters.closed[number] as f64, "{reason}");
    }
    let daily = watched.get_json(&format!("{API}/daily/?days=2"));
    let opened_daily: u64 = daily["days"]
        .as_array()
        .unwrap()
        .iter()
        .map(|day| day["opened"].as_u64().unwrap())
        .sum();
    assert_eq!(opened_daily, opened, "also when midnight has passed");
}

#[test]
fn x5_a_metrics_thread_that_sleeps_delays_reports_and_loses_nothing() {
    let is_asleep = Arc::new(AtomicBool::new(false));
    let observer = {
        let is_asleep = Arc::clone(&is_asleep);
        move |_: u64, _: &tidegate::metrics::Figures| {
            while is_asleep.load(Ordering::Acquire) {
                std::thread::park_timeout(TICK);
            }
        }
    };
    let monitor = monitor::Settings {
        observer: Some(Arc::new(observer)),
        ..monitor::Settings::default()
    };
    let watched = Watched::start_with(monitor, settings(), demo_routes());
    watched.samples_when("it is awake", |samples| {
        sum(samples, "tidegate_ready") == 1.0
    });
    is_asleep.store(true, Ordering::Release);
    let mut clients: Vec<Client> = (0..20)
        .map(|_| Client::open(watched.address, "/echo"))
        .collect();
    let counted = Counted::default();
    let running = watched.running.as_ref().unwrap();
    // Long enough for many reports that do not get through.
    let until = running.handle.uptime() + 60 * TICK;
    while running.handle.uptime() < until {
        clients
            .iter_mut()
            .for_each(|client| counted.echo(client, 10));
    }
    clients.truncate(7);
    running.closed_when(&CloseReason::PeerGone, 13);
    is_asleep.store(false, Ordering::Release);
    let messages = counted.messages.load(Ordering::Relaxed) as f64;
    let samples = watched.samples_when("all has been told", |samples| {
        sum(samples, "tidegate_messages_received_total") == messages
            && sum(samples, "tidegate_connections_open") == 7.0
    });
    assert!(sum(&samples, "tidegate_reports_delayed_total") > 0.0);
    assert_eq!(
        sum(&samples, "tidegate_message_size_bytes_count"),
        2.0 * messages
    );
    assert_eq!(
        sum(&samples, "tidegate_connection_duration_seconds_count"),
        13.0
    );
    let page = watched.get_json(&format!("{API}/connections/"));
    assert_eq!(page["total"], 7);
    let rows = page["connections"].as_array().unwrap();
    let by_row: f64 = rows
        .iter()
        .map(|row| row["messages_sent"].as_f64().unwrap())
        .sum();
    assert_eq!(by_row, 7.0 * messages / 20.0, "each row has its own");
}

#[test]
fn n19_the_days_outlive_a_restart() {
    let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("days");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let start = || {
        let monitor = monitor::Settings {
            daily_file: Some(folder.join("daily.json")),
            ..monitor::Settings::default()
        };
        Watched::start_with(monitor, settings(), demo_routes())
    };
    let today = |watched: &Watched| watched.get_json(&format!("{API}/daily/?days=400"));
    for round in 1..=2_u64 {
        let mut watched = start();
        let mut client = Client::open(watched.address, "/echo");
        client.echo("hello");
        client.close(1000);
        watched.stop_server();
        watched.get_when(&format!("{API}/daily/"), "the day is counted", |answer| {
            let days = answer["days"].as_array().unwrap();
            let of = |name: &str| {
                days.iter()
                    .map(|day| day[name].as_u64().unwrap())
                    .sum::<u64>()
            };
            (of("opened"), of("ended"), of("messages_sent")) == (round, round, round)
        });
        watched.finish();
    }
    let mut watched = start();
    let answer = today(&watched);
    let closed: u64 = answer["days"]
        .as_array()
        .unwrap()
        .iter()
        .map(|day| day["closed"]["peer_closed"].as_u64().unwrap_or(0))
        .sum();
    assert_eq!(closed, 2);
    assert!(
        answer["days"][0]["duration_p99_seconds"].is_f64()
            || answer["days"].as_array().unwrap().len() > 1
    );
    for (days, status) in [
        ("0", 400),
        ("1", 200),
        ("400", 200),
        ("401", 400),
        ("x", 400),
    ] {
        assert_eq!(
            watched.get(&format!("{API}/daily/?days={days}")).status,
            status,
            "{days}"
        );
    }
    watched.finish();
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn n10_the_funnel_tells_how_far_everybody_got() {
    let mut settings = settings();
    settings.verifier = Some(verifier());
    let watched = Watched::start(settings, routes());
    let counted = Counted::default();
    for number in 0..WAYS * 3 {
        live(number % WAYS, number, watched.address, &counted);
    }
    let funnel = watched.get_when(
        &format!("{API}/funnel/"),
        "all have got somewhere",
        |funnel| funnel["in_flight"] == 0 && funnel["arrived"] == WAYS * 3,
    );
    assert_eq!(funnel["opened"], counted.opened.load(Ordering::Relaxed));
    let stages = funnel["stages"].as_array().unwrap();
    let of = |name: &str| stages.iter().find(|stage| stage["stage"] == name).unwrap();
    assert_eq!(of("route")["refused"]["not_found"], 3, "{funnel}");
    let refused: u64 = stages
        .iter()
        .flat_map(|stage| stage["refused"].as_object().unwrap().values())
        .map(|count| count.as_u64().unwrap())
        .sum();
    assert_eq!(refused, 21, "{funnel}");
    assert_eq!(funnel["abandoned"], 6, "{funnel}");
    assert!(
        of("head")["duration"]["count"].as_u64() > Some(0),
        "{funnel}"
    );
    assert!(
        of("upgrade")["duration"]["p99_seconds"].is_f64(),
        "{funnel}"
    );
}

/// The names of the series, whatever they say.
fn series(watched: &Watched) -> Vec<String> {
    watched.samples().into_keys().collect()
}

#[test]
fn h2_a_hundred_thousand_odd_requests_make_no_series() {
    const PIPELINES: usize = 9;
    const IN_EACH: usize = 10_000;
    const UPGRADES: usize = 10_000;
    let mut settings = settings();
    settings.verifier = Some(verifier());
    let watched = Watched::start(settings, routes());
    drop(Client::open(watched.address, "/echo"));
    watched.samples_when("somebody came", |samples| {
        sum(samples, "tidegate_connections_closed_total") == 1.0
    });
    let before = series(&watched);
    assert!(before.len() > 100);
    let admin = watched.admin;
    let odd = |number: usize| {
        format!(
            "{} /{number}/x{number}?a{number}=<script>{number} HTTP/1.1\r\nHost: localhost\r\n\
             X-{number}: {number}\r\nUser-Agent: \"{number}\\\r\nOrigin: https://{number}.example\r\n",
            ["GET", "HEAD", "DELETE", "BREW"][number % 4]
        )
    };
    std::thread::scope(|scope| {
        for pipeline in 0..PIPELINES {
            scope.spawn(move || {
                let client = Client::connect(admin);
                let mut reader = client.try_clone();
                let writer = scope.spawn(move || {
                    let mut client = client;
                    for number in 0..IN_EACH {
                        let mut text = odd(pipeline * IN_EACH + number);
                        if number + 1 == IN_EACH {
                            text += "Connection: close\r\n";
                        }
                        text += "\r\n";
                        client.send(text.as_bytes());
                    }
                });
                // Which of them finds the rate limit used up already is chance.
                let answers = reader.read_to_end();
                let is_refused = [b"HTTP/1.1 404 ", b"HTTP/1.1 429 "]
                    .iter()
                    .any(|status| answers.starts_with(*status));
                assert!(is_refused);
                writer.join().unwrap();
            });
        }
    });
    for number in 0..UPGRADES {
        let mut client = Client::connect(watched.address);
        let path = format!("/members?token={number}.{number}.{number}");
        let path = [path, format!("/odd/{number}"), "/members".to_owned()][number % 3].clone();
        client.try_send(
            request(&path)
                .replace(
                    "\r\n\r\n",
                    &format!("\r\nOrigin: https://{number}.example\r\n\r\n"),
                )
                .as_bytes(),
        );
        let (status, ..) = client.read_refusal();
        assert!((400..500).contains(&status));
    }
    let samples = watched.samples_when("all are counted", |samples| {
        sum(samples, "tidegate_refusals_total") == UPGRADES as f64
    });
    let after: Vec<String> = samples.into_keys().collect();
    assert_eq!(before, after);
}

#[test]
fn h3_secrets_that_clients_send_appear_nowhere() {
    const CANARY: &str = "canary7secret";
    let mut settings = Settings {
        verifier: Some(verifier()),
        ..settings()
    };
    settings.reactors = std::num::NonZeroUsize::MIN;
    let watched = Watched::start(settings, routes());
    let token = token("ann", CANARY);
    let mut open = Client::open(
        watched.address,
        &format!("/members?token={token}&{CANARY}=1"),
    );
    let forged = format!("{CANARY}.{CANARY}.{CANARY}");
    for text in [
        request(&format!("/members?token={forged}")),
        request(&format!("/{CANARY}")),
        request("/members").replace(
            "\r\n\r\n",
            &format!("\r\nAuthorization: Bearer {forged}\r\n\r\n"),
        ),
        request("/members").replace("\r\n\r\n", &format!("\r\nCookie: token={forged}\r\n\r\n")),
        request("/members").replace(
            "\r\n\r\n",
            &format!("\r\nOrigin: https://{CANARY}.example\r\n\r\n"),
        ),
        format!("GET / HTTP/1.1\r\nHost: {CANARY}\r\n{CANARY}\r\n\r\n"),
    ] {
        let mut client = Client::connect(watched.address);
        client.send(text.as_bytes());
        let (_, head, body) = client.read_refusal();
        assert!(
            !head.contains(CANARY) && !body.contains(CANARY),
            "{head}{body}"
        );
    }
    open.stream
        .write_all(&frame(0x81, CANARY.as_bytes()))
        .unwrap();
    watched.get_when(&format!("{API}/metrics/"), "all is counted", |metrics| {
        metrics["messages_received"] == 1 && metrics["active_connections"] == 1
    });
    watched.samples_when("all is counted", |samples| {
        sum(samples, "tidegate_refusals_total") == 6.0
    });
    let one = watched.get_json(&format!("{API}/connections/"));
    let id = one["connections"][0]["id"].as_str().unwrap().to_owned();
    for path in [
        "/metrics".to_owned(),
        "/healthz?verbose".to_owned(),
        "/readyz?verbose".to_owned(),
        "/version".to_owned(),
        format!("{API}/metrics/"),
        format!("{API}/connections/"),
        format!("{API}/connections/{id}"),
        format!("{API}/daily/"),
        format!("{API}/funnel/"),
        format!("{API}/figures/"),
        format!("{API}/alerts/"),
        format!("{API}/history/"),
        "/dashboard/".to_owned(),
        format!("/dashboard/{CANARY}"),
        format!("/{CANARY}?{CANARY}"),
        format!("{API}/connections/?{CANARY}={CANARY}"),
        format!("{API}/connections/?sort={CANARY}"),
        format!("{API}/connections/?after={CANARY}"),
    ] {
        let answer = ask(
            watched.admin,
            &format!(
                "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                 Authorization: Bearer {CANARY}\r\nCookie: {CANARY}\r\n\r\n"
            ),
        );
        assert!(
            !answer.body.contains(CANARY) && !answer.head.contains(CANARY),
            "{path}: {answer:?}"
        );
    }
}

#[test]
fn send_latency_is_that_of_what_waited() {
    let watched = Watched::start(settings(), demo_routes());
    let mut client = Client::open(watched.address, "/echo").narrow();
    const COUNT: usize = 200;
    const LENGTH: usize = 60_000;
    let mut writer = client.try_clone();
    let write = std::thread::spawn(move || {
        for _ in 0..COUNT {
            writer.send_frame(0x82, &[b'x'; LENGTH]);
        }
    });
    // Nothing is read before the server has felt it.
    watched.samples_when("something waits", |samples| {
        sum(samples, "tidegate_outbox_bytes") > 0.0
    });
    for _ in 0..COUNT {
        assert_eq!(client.read_frame().unwrap().payload.len(), LENGTH);
    }
    write.join().unwrap();
    let samples = watched.samples_when("all has left", |samples| {
        sum(samples, "tidegate_send_latency_seconds_count") == COUNT as f64
    });
    assert!(
        sum(&samples, "tidegate_send_latency_seconds_sum") > 0.0,
        "it waited"
    );
    assert_eq!(sum(&samples, "tidegate_messages_sent_total"), COUNT as f64);
    let _: &BTreeMap<String, f64> = &samples;
}
