//! The opening handshake over real sockets: which heads become WebSockets, and what the others are
//! told. What a head may hold byte by byte is tested beside `http::head` and `ws::upgrade`; here it
//! counts that every refusal arrives whole, ends the connection, and is counted once.

#![allow(clippy::unwrap_used)]

mod support;

use tidegate::admission::Refusal;
use tidegate::admission::limits::Cap;
use tidegate::http::head::HeadError;
use tidegate::{CloseReason, ListenerSettings, Route, Speaks};

use support::{Client, Clock, On, Running, clock_route, demo_routes, request, route, settings};

/// A request for `/echo` of which single headers can be changed.
#[derive(Clone)]
struct Request {
    line: String,
    headers: Vec<(&'static str, String)>,
}

impl Request {
    fn echo() -> Self {
        let headers = [
            ("Host", "localhost"),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Sec-WebSocket-Version", "13"),
        ];
        Self {
            line: "GET /echo HTTP/1.1".to_owned(),
            headers: headers.map(|(name, value)| (name, value.to_owned())).into(),
        }
    }

    fn line(mut self, line: &str) -> Self {
        self.line = line.to_owned();
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn instead(self, name: &'static str, value: impl Into<String>) -> Self {
        self.without(name).with(name, value)
    }

    fn bytes(&self) -> String {
        let lines = self.headers.iter();
        let headers: String = lines.map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        format!("{}\r\n{headers}\r\n", self.line)
    }
}

/// Sends a request and checks that the answer is a whole refusal with this status, after which the
/// server ends the connection. Returns the head of the answer.
fn refused(running: &Running, request: &str, status: u16) -> String {
    let mut client = Client::connect(running.address);
    client.send(request.as_bytes());
    let (answered, head, body) = client.read_refusal();
    assert_eq!(answered, status, "{request}\n{head}");
    assert!(head.contains("\r\nConnection: close\r\n"), "{head}");
    assert!(
        head.contains("\r\nContent-Type: application/json\r\n"),
        "{head}"
    );
    let length = format!("\r\nContent-Length: {}\r\n", body.len());
    assert!(head.contains(&length), "{head}{body}");
    assert!(
        (2..200).contains(&body.len()) && body.ends_with("}\n"),
        "one short line: {body:?}"
    );
    assert!(
        body.starts_with(&format!("{{\"status\":{status},\"stage\":\"")),
        "{body}"
    );
    head
}

fn accepted(running: &Running, request: &str) -> (Client, String) {
    let mut client = Client::connect(running.address);
    client.send(request.as_bytes());
    let head = client.read_head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{request}\n{head}");
    (client, head)
}

#[test]
fn b5_each_omission_has_its_status() {
    let running = Running::demo();
    let good = Request::echo();
    let rows = [
        (good.clone().line("POST /echo HTTP/1.1"), 405),
        (good.clone().line("HEAD /echo HTTP/1.1"), 405),
        (good.clone().line("get /echo HTTP/1.1"), 405),
        (good.clone().line("GET /echo HTTP/1.0"), 400),
        (good.clone().line("GET /echo HTTP/2.0"), 505),
        (good.clone().line("GET /echo"), 400),
        (good.clone().line("GET  /echo HTTP/1.1"), 400),
        (good.clone().line("GET /nowhere HTTP/1.1"), 404),
        (good.clone().line("GET /echo/ HTTP/1.1"), 404),
        (good.clone().line("GET /ECHO HTTP/1.1"), 404),
        (good.clone().without("Host"), 400),
        (good.clone().without("Upgrade"), 426),
        (good.clone().instead("Upgrade", "h2c"), 426),
        (good.clone().without("Connection"), 400),
        (good.clone().instead("Connection", "keep-alive"), 400),
        (good.clone().without("Sec-WebSocket-Version"), 426),
        (good.clone().instead("Sec-WebSocket-Version", "8"), 426),
        (good.clone().instead("Sec-WebSocket-Version", "13, 8"), 426),
        (good.clone().without("Sec-WebSocket-Key"), 400),
        (good.clone().instead("Sec-WebSocket-Key", "c2hvcnQ="), 400),
        (
            good.clone()
                .instead("Sec-WebSocket-Key", "x".repeat(24).as_str()),
            400,
        ),
        (good.clone().with("Sec-WebSocket-Key", "x".repeat(24)), 400),
        (good.clone().with("Host", "localhost"), 400),
        (good.clone().with("Sec-WebSocket-Protocol", "a,,b"), 400),
        (good.clone().with("Sec-WebSocket-Protocol", "a, a"), 400),
    ];
    let count = rows.len() as u64;
    for (request, status) in rows {
        let head = refused(&running, &request.bytes(), status);
        match status {
            405 => assert!(head.contains("\r\nAllow: GET\r\n"), "{head}"),
            // §4.4: a client of another version learns which one is spoken.
            426 => {
                assert!(head.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{head}");
                assert!(head.contains("\r\nUpgrade: websocket\r\n"), "{head}");
            }
            _ => {}
        }
    }
    let counters = running.stop();
    let refused = counters.closed_by(&CloseReason::Refused(Refusal::NotFound));
    let malformed = counters.closed_by(&CloseReason::HeadTimeout)
        + counters.closed_by(&CloseReason::Head(HeadError::Host));
    assert_eq!((counters.opened, refused + malformed), (0, count));
}

#[test]
fn every_correct_spelling_is_accepted() {
    let running = Running::demo();
    let good = Request::echo();
    for request in [
        good.clone().instead("Connection", "keep-alive, Upgrade"),
        good.clone()
            .instead("Connection", "close")
            .with("Connection", "upgrade"),
        good.clone().instead("Upgrade", "WebSocket"),
        good.clone().instead("Upgrade", "h2c, websocket"),
        good.clone().line("GET /echo?room=1&x HTTP/1.1"),
        good.clone().line("GET http://localhost/echo HTTP/1.1"),
        good.clone().instead("Host", "LOCALHOST:8080"),
        good.clone().with("Content-Length", "0"),
        good.clone().with("Origin", "https://example.com"),
        good.clone()
            .with("Sec-WebSocket-Extensions", "permessage-deflate"),
        good.clone()
            .with("Sec-WebSocket-Protocol", "chat, superchat"),
    ] {
        let (mut client, head) = accepted(&running, &request.bytes());
        // What was offered and is not configured is not agreed to (§4.2.2).
        assert!(!head.contains("Sec-WebSocket-Extensions"), "{head}");
        assert!(!head.contains("Sec-WebSocket-Protocol"), "{head}");
        client.echo("hello");
        assert_eq!(client.close(1000), Some(1000));
    }
    // One empty line in front is forgiven (RFC 9112 §2.2), and header names have no case.
    accepted(&running, &format!("\r\n{}", good.bytes()));
    let shouted = good.bytes().replace("Upgrade: w", "UPGRADE:w");
    accepted(&running, &shouted.replace("Host: ", "hOST:\t"));
}

#[test]
fn a_subprotocol_is_the_clients_favourite_of_those_configured() {
    let mut routes = demo_routes();
    routes[0].0.subprotocols = vec!["v1.chat".into(), "v2.chat".into()];
    let running = Running::start(settings(), routes);
    for (offered, chosen) in [
        ("v2.chat, v1.chat", Some("v2.chat")),
        ("other, v1.chat", Some("v1.chat")),
        ("V1.CHAT", None),
    ] {
        let request = Request::echo().with("Sec-WebSocket-Protocol", offered);
        let (_, head) = accepted(&running, &request.bytes());
        let line = chosen.map(|name| format!("\r\nSec-WebSocket-Protocol: {name}\r\n"));
        match line {
            Some(line) => assert!(head.contains(&line), "{head}"),
            None => assert!(!head.contains("Sec-WebSocket-Protocol"), "{head}"),
        }
    }
}

#[test]
fn b2_limits_on_a_head_hold_at_minus_one_zero_and_plus_one() {
    let mut settings = settings();
    settings.http.head_bytes_max = 1024;
    settings.http.target_bytes_max = 200;
    settings.http.headers_max = 12;
    let running = Running::start(settings, demo_routes());

    let empty = Request::echo().with("X-Fill", "").bytes().len();
    for (length, status) in [(1023, 101), (1024, 101), (1025, 431), (20_000, 431)] {
        let request = Request::echo().with("X-Fill", "x".repeat(length - empty));
        assert_eq!(request.bytes().len(), length);
        match status {
            101 => drop(accepted(&running, &request.bytes())),
            _ => drop(refused(&running, &request.bytes(), status)),
        }
    }
    for (length, status) in [(199, 101), (200, 101), (201, 414), (2_000, 414)] {
        let target = format!("/echo?{}", "q".repeat(length - 6));
        let request = Request::echo().line(&format!("GET {target} HTTP/1.1"));
        match status {
            101 => drop(accepted(&running, &request.bytes())),
            _ => drop(refused(&running, &request.bytes(), status)),
        }
    }
    for (count, status) in [(11, 101), (12, 101), (13, 431), (100, 431)] {
        let mut request = Request::echo();
        while request.headers.len() < count {
            request = request.with("X", "y");
        }
        match status {
            101 => drop(accepted(&running, &request.bytes())),
            _ => drop(refused(&running, &request.bytes(), status)),
        }
    }
}

#[test]
fn b3_costly_lists_are_refused_or_ignored_without_a_stall() {
    let mut routes = demo_routes();
    routes[0].0.compression = true;
    let running = Running::start(settings(), routes);
    for (name, value, status) in [
        ("Sec-WebSocket-Protocol", ",".repeat(15_000), 400),
        ("Sec-WebSocket-Protocol", " ".repeat(15_000), 400),
        ("Sec-WebSocket-Extensions", ";".repeat(15_000), 400),
        ("Sec-WebSocket-Extensions", "a,".repeat(17), 400),
        ("Sec-WebSocket-Extensions", "a,".repeat(16), 101),
        ("Sec-WebSocket-Extensions", ",".repeat(15_000), 101),
        ("Connection", ",".repeat(15_000), 101),
        ("Connection", "a,".repeat(7_000), 101),
    ] {
        let request = Request::echo().with(name, value).bytes();
        match status {
            101 => drop(accepted(&running, &request)),
            _ => drop(refused(&running, &request, status)),
        }
    }
}

#[test]
fn b4_bodies_and_early_bytes_are_refused_and_never_parsed() {
    let running = Running::demo();
    for (name, value) in [
        ("Content-Length", "5"),
        ("Content-Length", "+0"),
        ("Content-Length", "0, 0"),
        ("Content-Length", "99999999999999999999"),
        ("Transfer-Encoding", "chunked"),
        ("Transfer-Encoding", "identity"),
    ] {
        refused(&running, &Request::echo().with(name, value).bytes(), 400);
    }
    let good = request("/echo");
    // A frame, a second request, and one byte, all before the answer.
    let frame: &str = "\u{1}\u{0}";
    for surplus in [frame, good.as_str(), "x"] {
        refused(&running, &format!("{good}{surplus}"), 400);
    }
    // B9: a hundred thousand requests in one go get one answer. The rest is read and dropped.
    let mut client = Client::connect(running.address);
    client.try_send(good.repeat(100_000).as_bytes());
    let _ = client.stream.shutdown(std::net::Shutdown::Write);
    let answers = String::from_utf8(client.read_to_end()).unwrap();
    assert!(answers.starts_with("HTTP/1.1 400 "), "{answers}");
    assert_eq!(answers.matches("HTTP/1.1").count(), 1);
    assert_eq!(running.stop().opened, 0);
}

#[test]
fn b6_what_two_parsers_would_read_differently_is_refused() {
    let running = Running::demo();
    let good = request("/echo");
    for request in [
        good.replace("\r\n", "\n"),
        good.replacen("Upgrade: w", "Upgrade : w", 1),
        good.replacen("Host: localhost\r\n", "Host: localhost\r\n folded\r\n", 1),
        good.replacen("Host: localhost", "Host: local\0host", 1),
        good.replacen("Host: localhost", "Host: localhost\rX: y", 1),
        good.replacen("Host: localhost", "Host: a b", 1),
        good.replacen("Host: localhost", "Host:", 1),
        good.replacen("GET /echo", "GET /echo\t", 1),
        good.replacen("GET /echo", "GET /ec\u{7f}ho", 1),
        good.replacen("GET /echo", "GET echo", 1),
        good.replacen("GET /echo", "GET *", 1),
        good.replacen("GET /echo", "GET /echo#top", 1),
        good.replacen("GET /echo", "GET http://other/echo", 1),
        format!("\r\n\r\n{good}"),
        good.replacen("Host", "H\u{e9}st", 1),
        good.replacen("Host: localhost\r\n", "Host: localhost\r\n: y\r\n", 1),
    ] {
        refused(&running, &request, 400);
    }
    assert_eq!(running.stop().opened, 0);
}

#[test]
fn b11_no_other_spelling_of_a_path_reaches_a_route() {
    let mut routes = demo_routes();
    routes.push(route("/a/b", On::default()));
    let running = Running::start(settings(), routes);
    for (target, status) in [
        ("/a/b", 101),
        ("/a/b?c=/../x", 101),
        ("/a%2fb", 400),
        ("/a%2Fb", 400),
        ("/a//b", 400),
        ("/a/./b", 400),
        ("/x/../a/b", 400),
        ("/a/%2e%2e/a/b", 400),
        ("/a/b;v=1", 400),
        ("/a/b%00", 400),
        ("/a/b%", 400),
        ("/a\\b", 400),
        ("/A/b", 404),
        ("/a/b/", 404),
    ] {
        let request = request(target);
        match status {
            101 => drop(accepted(&running, &request)),
            _ => drop(refused(&running, &request, status)),
        }
    }
}

#[test]
fn b1_a_head_may_come_in_single_bytes() {
    let running = Running::demo();
    let mut client = Client::connect(running.address);
    for byte in request("/echo").as_bytes() {
        client.send(&[*byte]);
    }
    assert!(client.read_head().starts_with("HTTP/1.1 101 "));
    client.echo("hello");
}

#[test]
fn tls_on_a_plain_port_ends_without_an_answer_in_http() {
    let running = Running::demo();
    let mut client = Client::connect(running.address);
    // The beginning of a ClientHello (RFC 8446 §4.1.2).
    client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    assert_eq!(client.read_to_end(), b"");
    drop(client);
    let reason = CloseReason::Head(HeadError::TlsOnPlainPort);
    running.closed_when(&reason, 1);
}

#[test]
fn b10_a_slow_head_gets_a_408_and_a_silent_one_too() {
    let mut settings = settings();
    settings.timeouts.head = 8 * tidegate::timer::TICK;
    let mut routes = demo_routes();
    routes.push(clock_route());
    let running = Running::start(settings, routes);
    let mut silent = Client::connect(running.address);
    let mut slow = Client::connect(running.address);
    slow.send(b"GET /echo HTTP/1.1\r\nHost: local");
    let mut clock = Clock::open(running.address);
    // Single bytes do not move the deadline: it is one for the whole head.
    for _ in 0..2 {
        clock.wait(1);
        slow.try_send(b"h");
    }
    for client in [&mut silent, &mut slow] {
        let (status, head, _) = client.read_refusal();
        assert_eq!(status, 408, "{head}");
        assert!(head.contains("\r\nConnection: close\r\n"), "{head}");
    }
    running.closed_when(&CloseReason::HeadTimeout, 2);
}

#[test]
fn a_peer_that_leaves_before_or_during_its_head_is_counted() {
    let running = Running::demo();
    drop(Client::connect(running.address));
    let mut halfway = Client::connect(running.address);
    halfway.send(b"GET /echo HT");
    drop(halfway);
    running.closed_when(&CloseReason::PeerGone, 2);
}

#[test]
fn f4_the_cap_on_connections_holds_at_minus_one_zero_and_plus_one() {
    let mut settings = settings();
    settings.admission.limits.connections = Cap::of(3);
    let running = Running::start(settings, demo_routes());
    let mut open: Vec<Client> = (0..3)
        .map(|_| Client::open(running.address, "/echo"))
        .collect();
    let mut refused = Client::connect(running.address);
    let answer = String::from_utf8(refused.read_to_end()).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 503 "),
        "one more is dropped: {answer}"
    );
    assert!(answer.contains("\r\nRetry-After: 5\r\n"), "{answer}");
    for client in &mut open {
        client.echo("still here");
    }
    // A slot that was given back is a slot.
    assert_eq!(open.pop().unwrap().close(1000), Some(1000));
    running.counters_when("the slot is free", |counters| counters.active() == 2);
    open.push(Client::open(running.address, "/echo"));
    let counters = running.handle.counters();
    assert_eq!((counters.accept_refused, counters.accepted), (1, 4));
}

#[test]
fn e1_at_the_limit_of_handshakes_the_kernel_queues_and_open_connections_go_on() {
    let mut settings = settings();
    settings.reactors = 1.try_into().unwrap();
    settings.handshakes_in_flight_max = 2;
    settings.timeouts.head = 40 * tidegate::timer::TICK;
    let running = Running::start(settings, demo_routes());
    let mut open = Client::open(running.address, "/echo");
    let mut first = Client::connect(running.address);
    let second = Client::connect(running.address);
    running.counters_when("both are on their way in", |counters| {
        counters.accepted == 3
    });
    let mut third = Client::connect(running.address);
    third.send(request("/echo").as_bytes());
    for _ in 0..10 {
        open.echo("hello");
    }
    assert_eq!(running.handle.counters().accepted, 3, "the third waits");
    first.upgrade("/echo");
    assert!(third.read_head().starts_with("HTTP/1.1 101 "));
    drop(second);
}

#[test]
fn several_listeners_are_served_alike() {
    let mut settings = settings();
    let listener = settings.listeners[0];
    settings.listeners.push(listener);
    settings.listeners.push(ListenerSettings {
        address: "[::1]:0".parse().unwrap(),
        speaks: Speaks::default(),
    });
    let running = Running::start(settings, demo_routes());
    for address in running.addresses().to_owned() {
        Client::open(address, "/echo").echo("hello");
    }
    running.counters_when("all have gone", |counters| {
        counters.opened == 3 && counters.active() == 0
    });
}

#[test]
fn a_route_is_found_among_many() {
    let routes = (0..300)
        .map(|number| {
            let (_, handler) = route(
                "/",
                On {
                    message: |peer, message| {
                        peer.send(message);
                    },
                    ..On::default()
                },
            );
            (Route::open(&format!("/r/{number}")), handler)
        })
        .collect();
    let running = Running::start(settings(), routes);
    for number in [0, 1, 255, 256, 299] {
        Client::open(running.address, &format!("/r/{number}")).echo("hello");
    }
    refused(&running, &request("/r/300"), 404);
}
