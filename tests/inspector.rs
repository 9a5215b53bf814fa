//! The inspector: which connections are open, and what an administrator may do to them.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use tidegate::{HandlerFactory, Route, Settings, TokenDemand};

use support::tokens::{token, verifier};
use support::watched::Watched;
use support::{Client, On, PATIENCE, demo_routes, route, settings, wait_until};

const API: &str = "/api/monitoring/websocket";

/// The demo routes, and one for users only, which echoes.
fn watched() -> Watched {
    let on = On {
        message: |peer, message| {
            peer.send(message);
        },
        ..On::default()
    };
    let (mut members, handler) = route("/members", on);
    members.token = TokenDemand::Required;
    let mut routes: Vec<(Route, Arc<dyn HandlerFactory>)> = demo_routes();
    routes.push((members, handler));
    let settings = Settings {
        verifier: Some(verifier()),
        ..settings()
    };
    Watched::start(settings, routes)
}

fn member(watched: &Watched, user: &str, id: &str) -> Client {
    Client::open(
        watched.address,
        &format!("/members?token={}", token(user, id)),
    )
}

fn total(watched: &Watched, query: &str) -> u64 {
    watched.get_json(&format!("{API}/connections/?{query}"))["total"]
        .as_u64()
        .unwrap()
}

fn connected(watched: &Watched, count: u64) -> Value {
    watched.get_when(&format!("{API}/connections/"), "all are known", |page| {
        page["total"] == count
    })
}

#[test]
fn n11_filters_find_whom_they_mean() {
    let watched = watched();
    let mut clients: Vec<Client> = (0..6)
        .map(|_| Client::open(watched.address, "/echo"))
        .collect();
    clients.extend((0..3).map(|n| member(&watched, "ann", &format!("a{n}"))));
    clients.push(member(&watched, "bob \"<&é", "b"));
    connected(&watched, 10);
    for (query, expected) in [
        ("", 10),
        ("user=ann", 3),
        ("user=bob+%22%3C%26%C3%A9", 1),
        ("user=nobody", 0),
        ("route=/echo", 6),
        ("route=/members", 4),
        ("route=0", 6),
        ("address=127.0.0.1", 10),
        ("address=127.0.0.0/8", 10),
        ("address=127.0.0.2", 0),
        ("address=::/0", 0),
        ("age_min=0", 10),
        ("age_min=3600", 0),
        ("idle_min=3600", 0),
        ("outbox_min=1", 0),
        ("user=ann&route=/members&address=127.0.0.1", 3),
        ("user=ann&route=/echo", 0),
    ] {
        assert_eq!(total(&watched, query), expected, "{query}");
    }
    let by_reactor: u64 = (0..2)
        .map(|n| total(&watched, &format!("reactor={n}")))
        .sum();
    assert_eq!(by_reactor, 10);
    let page = watched.get_json(&format!("{API}/connections/?user=bob+%22%3C%26%C3%A9"));
    let bob = &page["connections"][0];
    assert_eq!(bob["user"], "bob \"<&é");
    assert_eq!(bob["route"], "/members");
    assert_eq!(
        (&bob["transport"], &bob["resumed"]),
        (&json!("none"), &json!(false))
    );
    // One connection in full.
    let id = bob["id"].as_str().unwrap();
    let one = watched.get_json(&format!("{API}/connections/{id}/"));
    assert_eq!((&one["id"], &one["user"]), (&bob["id"], &bob["user"]));
    for unknown in ["ffffffffffffffff", "1", "x", "%00", "../metrics"] {
        let answer = watched.get(&format!("{API}/connections/{unknown}"));
        assert!([400, 404].contains(&answer.status), "{unknown}: {answer:?}");
    }
    drop(clients);
    connected(&watched, 0);
}

#[test]
fn n11_pages_show_everybody_once_in_every_order() {
    let watched = watched();
    let mut clients: Vec<Client> = (0..23)
        .map(|_| Client::open(watched.address, "/echo"))
        .collect();
    for (number, client) in clients.iter_mut().enumerate() {
        for _ in 0..number {
            client.echo("x");
        }
    }
    watched.get_when(&format!("{API}/metrics/"), "all is counted", |metrics| {
        metrics["active_connections"] == 23 && metrics["messages_received"] == 23 * 22 / 2
    });
    for sort in [
        "id",
        "oldest",
        "newest",
        "idle",
        "bytes_sent",
        "messages_received",
    ] {
        let (mut seen, mut after, mut sent) = (BTreeSet::new(), String::new(), Vec::new());
        loop {
            let page = watched.get_json(&format!("{API}/connections/?sort={sort}&limit=5{after}"));
            assert_eq!(page["total"], 23);
            for connection in page["connections"].as_array().unwrap() {
                assert!(seen.insert(connection["id"].to_string()), "{sort}: twice");
                sent.push(connection["bytes_sent"].as_u64().unwrap());
            }
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        assert_eq!(seen.len(), 23, "{sort}");
        assert!(
            sort != "bytes_sent" || sent.is_sorted_by(|a, b| a >= b),
            "{sent:?}"
        );
    }
    let top = watched.get_json(&format!(
        "{API}/connections/?sort=messages_received&limit=1"
    ));
    assert_eq!(top["connections"][0]["messages_received"], 22);
    for (limit, status) in [(0, 400), (1, 200), (1000, 200), (1001, 400)] {
        let answer = watched.get(&format!("{API}/connections/?limit={limit}"));
        assert_eq!(answer.status, status, "{limit}");
    }
    for wrong in [
        "sort=user",
        "limit=x",
        "after=zz",
        "route=/nothing",
        "route=99",
        "reactor=256",
        "reactor=x",
        "age_min=-1",
        "address=300.1.1.1",
        "idle=5",
        "user=%ff",
        "outbox_min=1e3",
    ] {
        let answer = watched.get(&format!("{API}/connections/?{wrong}"));
        assert_eq!(answer.status, 400, "{wrong}: {answer:?}");
    }
}

#[test]
fn an_administrator_disconnects_one_with_a_code_and_a_reason() {
    let watched = watched();
    let mut ann = member(&watched, "ann", "1");
    let mut other = Client::open(watched.address, "/echo");
    let page = connected(&watched, 2);
    let of_ann = page["connections"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["user"] == "ann");
    let id = of_ann.unwrap()["id"].clone();
    let order = json!({ "id": id, "code": 4003, "reason": "go away" }).to_string();
    let answer = watched.ask("POST", &format!("{API}/disconnect/"), &order);
    assert_eq!(
        (answer.status, answer.json()),
        (202, json!({ "accepted": 1 }))
    );
    let close = ann.read_frame().unwrap();
    assert_eq!(close.close_code(), Some(4003));
    assert_eq!(&close.payload[2..], b"go away");
    drop(ann);
    other.echo("not meant");
    connected(&watched, 1);
    assert_eq!(
        watched
            .ask("POST", &format!("{API}/disconnect/"), &order)
            .status,
        404
    );
}

#[test]
fn an_administrator_disconnects_by_filter_at_a_rate() {
    let mut watched = watched();
    let clients: Vec<Client> = (0..12)
        .map(|n| member(&watched, "ann", &n.to_string()))
        .collect();
    let mut other = Client::open(watched.address, "/echo");
    connected(&watched, 13);
    let order = json!({ "filter": { "user": "ann", "age_min": 0 }, "rate": 5 }).to_string();
    let answer = watched.ask("POST", &format!("{API}/disconnect/"), &order);
    assert_eq!(
        (answer.status, answer.json()),
        (202, json!({ "accepted": 12 }))
    );
    // Who comes back while it goes on is not meant.
    let mut back = member(&watched, "ann", "again");
    for client in clients {
        let mut client = client;
        assert_eq!(client.read_frame().unwrap().close_code(), Some(4000));
    }
    back.echo("still here");
    other.echo("not meant");
    let counters = watched.running().handle.counters();
    assert_eq!(counters.closed_by(&tidegate::CloseReason::Disconnected), 12);
}

#[test]
fn orders_that_make_no_sense_do_nothing() {
    let watched = watched();
    let mut client = Client::open(watched.address, "/echo");
    connected(&watched, 1);
    let path = format!("{API}/disconnect/");
    for wrong in [
        "",
        "{}",
        "[]",
        "null",
        "{\"id\":5}",
        "{\"id\":\"x\"}",
        "{\"filter\":{}}",
        "{\"filter\":[]}",
        "{\"filter\":{\"nonsense\":1}}",
        "{\"filter\":{\"user\":null}}",
        "{\"filter\":{\"user\":[]}}",
        "{\"filter\":{},\"all\":true,\"rate\":0}",
        "{\"filter\":{},\"all\":true,\"rate\":100001}",
        "{\"filter\":{},\"all\":true,\"code\":999}",
        "{\"filter\":{},\"all\":true,\"code\":1005}",
        "{\"filter\":{},\"all\":true,\"code\":1006}",
        "{\"filter\":{},\"all\":true,\"code\":5000}",
        "{\"filter\":{},\"all\":true,\"extra\":1}",
        "{\"filter\":{},\"all\":true,\"id\":\"0\"}",
        "{\"filter\":{},\"all\":true} {}",
    ] {
        let answer = watched.ask("POST", &path, wrong);
        // Without a body there is no type either.
        assert!([400, 415].contains(&answer.status), "{wrong}: {answer:?}");
    }
    let long = json!({ "filter": {}, "all": true, "reason": "x".repeat(124) }).to_string();
    assert_eq!(watched.ask("POST", &path, &long).status, 400);
    client.echo("still here");
    let body = json!({ "filter": {}, "all": true, "reason": "x".repeat(123) }).to_string();
    for site in [
        "Sec-Fetch-Site: cross-site\r\n",
        "Origin: https://example.com\r\n",
    ] {
        let answer = watched.ask_raw(&format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{site}\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        assert_eq!(answer.status, 403, "{site}");
    }
    let form = watched.ask_raw(&format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(form.status, 415);
    client.echo("still here");
    assert_eq!(watched.ask("POST", &path, &body).status, 202);
    let close = client.read_frame().unwrap();
    assert_eq!((close.close_code(), close.payload.len()), (Some(4000), 125));
}

#[test]
fn d8_a_revocation_takes_effect_within_a_second_on_all_reactors() {
    let watched = watched();
    let path = format!("{API}/revoke/");
    let mut anns: Vec<Client> = (0..4)
        .map(|n| member(&watched, "ann", &format!("a{n}")))
        .collect();
    let mut bobs: Vec<Client> = (0..2)
        .map(|n| member(&watched, "bob", &format!("b{n}")))
        .collect();
    connected(&watched, 6);
    let began = std::time::Instant::now();
    let answer = watched.ask("POST", &path, r#"{"jti":"b0","seconds":60}"#);
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({ "revoked": true }))
    );
    assert_eq!(bobs[0].read_frame().unwrap().close_code(), Some(4401));
    bobs[1].echo("another token");
    assert_eq!(watched.ask("POST", &path, r#"{"user":"ann"}"#).status, 200);
    for ann in &mut anns {
        assert_eq!(ann.read_frame().unwrap().close_code(), Some(4401));
    }
    assert!(began.elapsed() < PATIENCE, "and not by a timeout");
    bobs[1].echo("another user");
    let mut again = Client::connect(watched.address);
    again.send(support::request(&format!("/members?token={}", token("ann", "new"))).as_bytes());
    assert!(again.read_head().starts_with("HTTP/1.1 401 "));
    for wrong in [
        "{}",
        "{\"user\":\"\"}",
        "{\"user\":\"a\",\"jti\":\"b\"}",
        "{\"user\":\"a\",\"seconds\":0}",
        "{\"user\":1}",
        "{\"user\":\"a\",\"seconds\":31622401}",
        "{\"users\":[\"a\"]}",
    ] {
        assert_eq!(watched.ask("POST", &path, wrong).status, 400, "{wrong}");
    }
    let long = json!({ "user": "u".repeat(1025) }).to_string();
    assert_eq!(watched.ask("POST", &path, &long).status, 400);
}

#[test]
fn n12_slow_consumers_are_counted_by_cause() {
    let watched = watched();
    let mut slow = Client::open(watched.address, "/echo").narrow();
    let chunk = vec![b'x'; 60_000];
    // Until the server no longer takes what this one does not read back.
    slow.stream.set_nonblocking(true).unwrap();
    let frame = support::frame(0x82, &chunk);
    let mut sent = 0;
    wait_until("the way back is full", || {
        use std::io::Write;
        match slow.stream.write(&frame[sent % frame.len()..]) {
            Ok(count) => sent += count,
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
        let page = watched.get_json(&format!("{API}/connections/?outbox_min=1"));
        page["total"] == 1
    });
    let samples = watched.samples_when("it is counted", |samples| {
        support::watched::sum(samples, "tidegate_slow_consumers") == 1.0
    });
    let by = |cause: &str| samples[&format!("tidegate_slow_consumers{{cause=\"{cause}\"}}")];
    assert_eq!(by("peer_window") + by("unknown"), 1.0, "{samples:#?}");
    assert!(support::watched::sum(&samples, "tidegate_outbox_bytes") > 0.0);
    drop(slow);
    watched.samples_when("nobody is slow any more", |samples| {
        support::watched::sum(samples, "tidegate_slow_consumers") == 0.0
    });
}
