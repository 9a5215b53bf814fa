//! Memory by component (N5): each figure moves with what it counts, over real sockets, and returns.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods
)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate::conn::HandlerFactory;
use tidegate::hub::command::Publish;
use tidegate::hub::{ChannelPolicy, Command, Policies, PublishOptions, Subscription};
use tidegate::tls::{Acceptor, SESSION_BYTES};
use tidegate::{Channel, Handler, Message, Peer, Route, Settings, TokenDemand};

use support::tls::{open_tls, trusting};
use support::tokens::{token, verifier};
use support::watched::{Watched, sum};
use support::{Client, PATIENCE, frame, request, settings, wait_until};

const API: &str = "/api/monitoring/websocket";

/// What a member says of itself in `/room`.
const INFO: &str = "{\"about\":\"somebody with much to say\"}";

/// Joins a channel with a history and presence; sends back what it gets.
struct Room;

impl Handler for Room {
    fn open(&mut self, peer: &mut Peer<'_>) {
        let subscription = Subscription {
            info: Some(INFO.into()),
            ..Subscription::default()
        };
        peer.join_with(&channel("kept:room"), subscription);
    }

    fn message(&mut self, peer: &mut Peer<'_>, message: Message<'_>) {
        peer.send(message);
    }
}

fn channel(name: &str) -> Channel {
    Channel::new(name).unwrap()
}

fn watched(settings: Settings) -> Watched {
    let kept = ChannelPolicy {
        history_size: 100,
        presence: true,
        ..ChannelPolicy::default()
    };
    let settings = Settings {
        channels: Policies::new([], [("kept:".into(), kept)]),
        verifier: Some(verifier()),
        ..settings
    };
    let mut members = Route::open("/members");
    members.token = TokenDemand::Required;
    let mut routes = support::demo_routes();
    let room: Arc<dyn HandlerFactory> = Arc::new(|_| Room);
    routes.push((Route::open("/room"), Arc::clone(&room)));
    routes.push((members, room));
    Watched::start(settings, routes)
}

/// Bytes by component, as `/metrics` says them.
fn memory(watched: &Watched) -> BTreeMap<String, u64> {
    let samples = watched.samples().into_iter();
    let of_memory = samples.filter_map(|(name, value)| {
        let component = name.strip_prefix("tidegate_memory_bytes{component=\"")?;
        Some((component.strip_suffix("\"}")?.to_owned(), value as u64))
    });
    of_memory.collect()
}

/// Waits until a component's bytes satisfy a condition, and returns them.
fn bytes_when(watched: &Watched, component: &str, condition: impl Fn(u64) -> bool) -> u64 {
    let mut last = 0;
    wait_until(component, || {
        last = memory(watched)[component];
        condition(last)
    });
    last
}

/// The figures once the reactors have reported, with nobody there.
fn at_rest() -> (Watched, BTreeMap<String, u64>) {
    let mut settings = settings();
    // Figures are a second old at times: what is left unfinished has to outlast a few of them.
    settings.timeouts.head = PATIENCE;
    let watched = watched(settings);
    bytes_when(&watched, "buffers", |bytes| bytes > 0);
    let before = memory(&watched);
    (watched, before)
}

#[test]
fn n5_every_component_is_told_in_both_formats_from_the_start() {
    let (watched, before) = at_rest();
    let components: Vec<&str> = before.keys().map(String::as_str).collect();
    assert_eq!(
        components,
        [
            "admission",
            "buffers",
            "connections",
            "histories",
            "hooks",
            "idempotency",
            "mailboxes",
            "outboxes",
            "presence",
            "publications",
            "registry",
            "reports",
            "subscriptions",
            "timers",
            "tls",
            "unfinished",
        ]
    );
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/tuning/monitoring.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    for component in components {
        assert!(guide.contains(&format!("`{component}`")), "{component}");
    }
    let nothing_yet = ["outboxes", "presence", "publications", "tls", "unfinished"];
    for component in nothing_yet {
        assert_eq!(before[component], 0, "{component}");
    }
    let figures = watched.get_json(&format!("{API}/figures/"));
    let samples = figures["metrics"]["tidegate_memory_bytes"]
        .as_array()
        .unwrap();
    let told: BTreeMap<String, u64> = samples
        .iter()
        .map(|sample| {
            let component = sample["labels"]["component"].as_str().unwrap();
            (component.to_owned(), sample["value"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(told, before);
}

#[test]
fn n5_connections_and_rows_are_counted_by_the_page() {
    let (watched, before) = at_rest();
    let clients: Vec<Client> = (0..600)
        .map(|_| Client::open(watched.address, "/echo"))
        .collect();
    // There are two reactors: one of them has more than a page of slots holds.
    bytes_when(&watched, "connections", |bytes| {
        bytes > before["connections"] + 600 * 100
    });
    let rows = bytes_when(&watched, "registry", |bytes| bytes > 600 * 80);
    drop(clients);
    bytes_when(&watched, "registry", |bytes| bytes < rows / 2);
}

#[test]
fn n5_connections_that_came_and_went_leave_nothing_behind() {
    const ROUND: u64 = 100;
    let (watched, _) = at_rest();
    let come_and_go = || {
        let clients = (0..ROUND).map(|_| Client::open(watched.address, "/echo"));
        for client in clients.collect::<Vec<_>>() {
            // Its slot is vacant before the socket is closed, which this waits for.
            assert_eq!(client.close(1000), Some(1000));
        }
    };
    let bytes_after = |gone: u64| {
        watched.samples_when("all of them are reported", |samples| {
            sum(samples, "tidegate_connections_closed_total") as u64 == gone
        });
        memory(&watched)["connections"]
    };
    // Until each reactor has the page of slots that a hundred at a time have room in.
    (0..3).for_each(|_| come_and_go());
    let before = bytes_after(3 * ROUND);
    (0..40).for_each(|_| come_and_go());
    let after = bytes_after(43 * ROUND);
    assert!(
        after < before + 40 * ROUND * 8,
        "{before} bytes, then {after}"
    );
}

#[test]
fn n5_names_of_users_are_part_of_the_registry_and_of_the_admission() {
    let (watched, before) = at_rest();
    let long = "x".repeat(200);
    let clients: Vec<Client> = (0..100)
        .map(|number| {
            let token = token(&format!("{number}-{long}"), "t");
            Client::open(watched.address, &format!("/members?token={token}"))
        })
        .collect();
    bytes_when(&watched, "registry", |bytes| {
        bytes > before["registry"] + 100 * (80 + 200)
    });
    drop(clients);
    bytes_when(&watched, "registry", |bytes| {
        bytes < before["registry"] + 100 * 80
    });
    let body = format!("{{\"user\":\"{long}\"}}");
    let revoke = watched.ask("POST", &format!("{API}/revoke/"), &body);
    assert_eq!(revoke.status, 200);
    bytes_when(&watched, "admission", |bytes| {
        bytes >= before["admission"] + 200
    });
}

#[test]
fn n5_what_has_not_come_in_full_is_counted_until_it_has_or_never_will() {
    let (watched, _) = at_rest();
    let mut head = Client::connect(watched.address);
    head.send(&request("/echo").as_bytes()[..60]);
    let of_head = bytes_when(&watched, "unfinished", |bytes| bytes >= 60);

    let mut client = Client::open(watched.address, "/echo");
    let whole = frame(0x82, &[7; 40_000]);
    client.send(&whole[..30_000]);
    bytes_when(&watched, "unfinished", |bytes| bytes >= of_head + 29_000);
    client.send(&whole[30_000..]);
    assert_eq!(client.read_frame().unwrap().payload.len(), 40_000);
    bytes_when(&watched, "unfinished", |bytes| bytes == of_head);

    // Fragments of a message are held until the last one is here; a client that goes takes them along.
    client.send_frame(0x02, &[7; 20_000]);
    client.send_frame(0x00, &[7; 20_000]);
    bytes_when(&watched, "unfinished", |bytes| bytes >= of_head + 40_000);
    drop(client);
    bytes_when(&watched, "unfinished", |bytes| bytes == of_head);
    drop(head);
    bytes_when(&watched, "unfinished", |bytes| bytes == 0);
}

#[test]
fn n5_tls_sessions_count_while_they_last_and_half_records_with_them() {
    const SESSIONS: u64 = 20;
    let acceptor = Acceptor::self_signed(&["localhost".into()]).unwrap();
    let mut settings = settings();
    settings.listeners[0].speaks.tls = true;
    settings.acceptor = Some(acceptor.clone());
    let watched = watched(settings);
    let config = trusting(&acceptor);
    let mut clients: Vec<_> = (0..SESSIONS)
        .map(|_| open_tls(watched.address, "/echo", &config))
        .collect();
    let all = SESSIONS * SESSION_BYTES as u64;
    bytes_when(&watched, "tls", |bytes| bytes == all);
    // A record of which the body is missing.
    let Client { stream, .. } = &mut clients[0];
    std::io::Write::write_all(&mut stream.sock, &[23, 3, 3, 0x20, 0]).unwrap();
    std::io::Write::write_all(&mut stream.sock, &[0; 3_000]).unwrap();
    bytes_when(&watched, "unfinished", |bytes| bytes >= 3_000);
    clients.truncate(5);
    bytes_when(&watched, "tls", |bytes| bytes == 5 * SESSION_BYTES as u64);
    drop(clients);
    bytes_when(&watched, "tls", |bytes| bytes == 0);
    bytes_when(&watched, "unfinished", |bytes| bytes == 0);
}

#[test]
fn n5_channels_count_their_histories_members_and_subscriptions() {
    let (mut watched, before) = at_rest();
    let clients: Vec<Client> = (0..50)
        .map(|_| Client::open(watched.address, "/room"))
        .collect();
    let with_info = 50 * INFO.len() as u64;
    bytes_when(&watched, "presence", |bytes| bytes > with_info);
    bytes_when(&watched, "subscriptions", |bytes| {
        bytes >= before["subscriptions"] + 50 * 16
    });
    for number in 0..10 {
        let publish = Publish {
            channel: channel("kept:room"),
            message: Message::from("x".repeat(5_000)),
            options: PublishOptions {
                idempotency_key: Some(format!("key {number}").into()),
                ..PublishOptions::default()
            },
        };
        let answer = watched.running().handle.ask(Command::Publish(publish));
        assert!(answer.is_ok(), "{answer:?}");
    }
    bytes_when(&watched, "histories", |bytes| {
        (before["histories"] + 50_000..before["histories"] + 100_000).contains(&bytes)
    });
    bytes_when(&watched, "idempotency", |bytes| bytes > 10 * 16);
    let removed = Command::HistoryRemove(channel("kept:room"));
    assert!(watched.running().handle.ask(removed).is_ok());
    bytes_when(&watched, "histories", |bytes| {
        bytes < before["histories"] + 50_000
    });
    drop(clients);
    bytes_when(&watched, "presence", |bytes| bytes == 0);
}

#[test]
fn n5_what_waits_for_a_slow_client_is_counted() {
    let (watched, _) = at_rest();
    let mut slow = Client::open(watched.address, "/echo").narrow();
    slow.stream.set_nonblocking(true).unwrap();
    let bytes = frame(0x82, &[7; 60_000]);
    let mut sent = 0;
    wait_until("the way back is full", || {
        match std::io::Write::write(&mut slow.stream, &bytes[sent % bytes.len()..]) {
            Ok(count) => sent += count,
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
        memory(&watched)["outboxes"] > 0
    });
    drop(slow);
    bytes_when(&watched, "outboxes", |bytes| bytes == 0);
}
