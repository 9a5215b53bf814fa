//! Plain requests over real sockets, answered by an endpoint beside the WebSockets.

mod support;

use std::num::NonZeroUsize;
use std::sync::Arc;

use tidegate::conn::{Answer, RequestTicket, Services};
use tidegate::http::exchange::{Request, Response};
use tidegate::timer::TICK;
use tidegate::{CloseReason, Endpoint, Serves, Settings};

use support::{Client, Clock, Running, clock_route, demo_routes, settings};

/// Says what was asked; a path says what else to do.
#[derive(Default)]
struct Mirror {
    /// Requests that wait for somebody to ask for `/release`, or for the shutdown.
    waiting: Vec<(RequestTicket, String)>,
}

impl Mirror {
    fn release(&mut self, services: &mut Services) {
        for (ticket, path) in self.waiting.drain(..) {
            let body = format!("released {path}").into_bytes();
            services.complete(ticket, Answer::json(200, body));
        }
    }
}

impl Endpoint for Mirror {
    fn respond(
        &mut self,
        request: &Request<'_>,
        response: &mut Response<'_>,
        services: &mut Services,
    ) {
        match request.path() {
            "/panic" => panic!("as asked"),
            path @ ("/wait" | "/panic-later") => {
                let ticket = services.defer(response);
                self.waiting.push((ticket, path.to_owned()));
                assert!(path != "/panic-later", "as asked");
            }
            path if path.starts_with("/soon/") => {
                let ticket = services.defer(response);
                let body = format!("GET {path} ").into_bytes();
                services.complete(ticket, Answer::json(200, body));
            }
            "/release" => {
                self.release(services);
                response.send_json(200, b"done");
            }
            "/large" => response.send_json(200, &vec![b'x'; 100_000]),
            path => {
                let body = String::from_utf8_lossy(request.body());
                let text = format!("{} {path} {body}", request.method());
                response.send(200, &[], "text/plain", text.as_bytes());
            }
        }
    }

    fn tick(&mut self, services: &mut Services) {
        if services.draining {
            self.release(services);
        }
    }
}

fn serving(serves: Serves) -> Settings {
    let mut settings = settings();
    settings.reactors = NonZeroUsize::MIN;
    settings.listeners[0].speaks.serves = serves;
    settings.endpoint = Some(Arc::new(|_| Mirror::default()));
    settings
}

const GET: &str = "GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n";
const POST: &str = "POST /b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello";
const LAST: &str = "GET /c HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

#[test]
fn requests_are_answered_one_after_another_over_one_connection() {
    let running = Running::start(serving(Serves::Requests), demo_routes());
    let mut client = Client::connect(running.address);
    client.send(GET.as_bytes());
    assert!(
        client
            .read_until(b"GET /a ")
            .starts_with(b"HTTP/1.1 200 OK\r\n")
    );
    client.send(POST.as_bytes());
    client.read_until(b"POST /b hello");
    client.send(LAST.as_bytes());
    assert!(client.read_to_end().ends_with(b"GET /c "));
    let done = running.closed_when(&CloseReason::RequestsDone, 1);
    assert_eq!((done.exchanges, done.requests), (1, 3));
}

#[test]
fn b9_a_first_request_in_pieces_loses_nothing() {
    let running = Running::start(serving(Serves::Requests), demo_routes());
    let all = [POST, GET, POST, LAST].concat();
    for cut in 0..all.len() {
        let mut client = Client::connect(running.address);
        client.send(&all.as_bytes()[..cut]);
        let counters = running.counters_when("the piece is there", |counters| {
            counters.accepted > cut as u64
        });
        assert_eq!(counters.requests_refused, 0);
        client.send(&all.as_bytes()[cut..]);
        let answer = String::from_utf8(client.read_to_end()).unwrap();
        let order: Vec<_> = ["POST /b hello", "GET /a ", "GET /c "]
            .iter()
            .map(|text| answer.matches(text).count())
            .collect();
        assert_eq!(order, [2, 1, 1], "cut at {cut}: {answer}");
    }
}

#[test]
fn b9_a_hundred_thousand_pipelined_requests_are_answered_in_order_and_within_bounds() {
    let running = Running::start(serving(Serves::Requests), demo_routes());
    let client = Client::connect(running.address);
    let mut reader = client.try_clone();
    const COUNT: usize = 100_000;
    let writer = std::thread::spawn(move || {
        let mut client = client;
        for number in 0..COUNT {
            let request = format!("GET /{number} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            client.send(request.as_bytes());
        }
        client.send(LAST.as_bytes());
        client
    });
    let answers = String::from_utf8(reader.read_to_end()).unwrap();
    let mut bodies = answers.split("GET /").skip(1);
    for number in 0..COUNT {
        let body = bodies.next().unwrap();
        assert!(body.starts_with(&format!("{number} ")), "{number}: {body}");
    }
    drop(writer.join().unwrap());
    let counters = running.handle.counters();
    assert_eq!(counters.requests, COUNT as u64 + 1);
}

#[test]
fn b9_who_reads_no_answers_is_not_answered_without_end() {
    let mut settings = serving(Serves::Requests);
    settings.outbox.bytes_high_water = 64 * 1024;
    settings.timeouts.write = 10 * TICK;
    let running = Running::start(settings, demo_routes());
    let mut client = Client::connect(running.address);
    let request = "GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n";
    // A hundred megabytes of answers are asked for, and none is read.
    client.send(request.repeat(1000).as_bytes());
    let counters = running.closed_when(&CloseReason::WriteTimeout, 1);
    assert!(counters.requests < 1000, "{}", counters.requests);
}

#[test]
fn the_first_request_decides_where_both_are_served() {
    let running = Running::start(serving(Serves::Both), demo_routes());
    let mut client = Client::connect(running.address);
    client.send(LAST.as_bytes());
    assert!(client.read_to_end().ends_with(b"GET /c "));
    Client::open(running.address, "/echo").echo("hello");
    let counters = running.handle.counters();
    assert_eq!((counters.exchanges, counters.opened), (1, 1));
}

#[test]
fn an_upgrade_is_passed_over_where_only_requests_are_served() {
    let running = Running::start(serving(Serves::Requests), demo_routes());
    let mut client = Client::connect(running.address);
    client.send(support::request("/echo").as_bytes());
    client.read_until(b"GET /echo ");
    assert_eq!(running.handle.counters().opened, 0);
}

#[test]
fn x7_a_panic_is_answered_with_500_and_the_connection_goes_on() {
    let mut running = Running::start(serving(Serves::Requests), demo_routes());
    running.expect_panics(1);
    let mut client = Client::connect(running.address);
    client.send(b"GET /panic HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(
        client
            .read_until(b"internal error\"}\n")
            .starts_with(b"HTTP/1.1 500 ")
    );
    client.send(GET.as_bytes());
    client.read_until(b"GET /a ");
}

#[test]
fn b10_slow_requests_and_idle_connections_end() {
    let mut settings = serving(Serves::Requests);
    settings.timeouts.head = 4 * TICK;
    settings.timeouts.keep_alive = 2 * TICK;
    let running = Running::start(settings, demo_routes());
    let mut slow = Client::connect(running.address);
    slow.send(GET.as_bytes());
    slow.read_until(b"GET /a ");
    slow.send(&POST.as_bytes()[..POST.len() - 2]);
    assert!(slow.read_to_end().starts_with(b"HTTP/1.1 408 "));
    let mut idle = Client::connect(running.address);
    idle.send(GET.as_bytes());
    assert!(idle.read_to_end().ends_with(b"GET /a "));
    running.closed_when(&CloseReason::RequestFailed, 1);
    running.closed_when(&CloseReason::RequestIdle, 1);
}

#[test]
fn b10_a_client_whose_requests_overlap_has_time_for_each_of_them() {
    let mut settings = serving(Serves::Both);
    settings.timeouts.head = 20 * TICK;
    let mut routes = demo_routes();
    routes.push(clock_route());
    let running = Running::start(settings, routes);
    let mut clock = Clock::open(running.address);
    let mut client = Client::connect(running.address);
    let (first, rest) = GET.as_bytes().split_at(7);
    client.send(first);
    // Every read ends inside a request, for twice as long as one may take.
    for _ in 0..10 {
        clock.wait(4);
        client.send(&[rest, first].concat());
        client.read_until(b"GET /a ");
    }
    // Whoever makes no progress has no more time than before.
    assert!(client.read_to_end().starts_with(b"HTTP/1.1 408 "));
}

#[test]
fn b6_what_is_malformed_ends_the_connection() {
    let running = Running::start(serving(Serves::Requests), demo_routes());
    for (request, status) in [
        (
            "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
            "400",
        ),
        (
            "POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "411",
        ),
        (
            "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\n",
            "413",
        ),
    ] {
        let mut client = Client::connect(running.address);
        client.send(GET.as_bytes());
        client.read_until(b"GET /a ");
        client.send(request.as_bytes());
        let answer = String::from_utf8(client.read_to_end()).unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
    running.closed_when(&CloseReason::RequestFailed, 3);
}

const WAIT: &str = "GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Has everybody who waits answered.
fn release(running: &Running) {
    let mut client = Client::connect(running.address);
    client.send(b"GET /release HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(client.read_to_end().ends_with(b"done"));
}

/// Waits until so many requests have been taken.
fn taken(running: &Running, count: u64) {
    running.counters_when("the requests are taken", |counters| {
        counters.requests == count
    });
}

#[test]
fn b9_one_request_is_in_flight_and_the_rest_waits_in_order() {
    let running = Running::start(serving(Serves::Requests), demo_routes());
    let mut client = Client::connect(running.address);
    client.send([GET, WAIT, POST, WAIT, LAST].concat().as_bytes());
    client.read_until(b"GET /a ");
    taken(&running, 2);
    release(&running);
    client.read_until(b"released /wait");
    client.read_until(b"POST /b hello");
    taken(&running, 5);
    release(&running);
    let rest = client.read_to_end();
    assert!(rest.starts_with(b"HTTP/1.1 200 OK\r\n"));
    assert!(rest.ends_with(b"GET /c "));
    assert_eq!(running.handle.counters().requests, 7);
}

#[test]
fn b9_ten_thousand_answers_that_come_late_come_in_order() {
    let running = Running::start(serving(Serves::Requests), demo_routes());
    let client = Client::connect(running.address);
    let mut reader = client.try_clone();
    const COUNT: usize = 10_000;
    let writer = std::thread::spawn(move || {
        let mut client = client;
        let request = |number| format!("GET /soon/{number} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let requests: String = (0..COUNT).map(request).collect();
        client.send(requests.as_bytes());
        client.send(LAST.as_bytes());
        client
    });
    let answers = String::from_utf8(reader.read_to_end()).unwrap();
    let mut bodies = answers.split("GET /").skip(1);
    for number in 0..COUNT {
        let body = bodies.next().unwrap();
        assert!(
            body.starts_with(&format!("soon/{number} ")),
            "{number}: {body}"
        );
    }
    drop(writer.join().unwrap());
}

#[test]
fn an_answer_that_comes_late_is_framed_for_its_request() {
    let running = Running::start(serving(Serves::Both), demo_routes());
    let mut head = Client::connect(running.address);
    head.send(b"HEAD /wait HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut old = Client::connect(running.address);
    old.send(b"GET /wait HTTP/1.0\r\n\r\n");
    taken(&running, 2);
    release(&running);
    let answer = String::from_utf8(head.read_to_end()).unwrap();
    assert!(answer.contains("Content-Length: 14\r\n") && answer.ends_with("\r\n\r\n"));
    assert!(answer.contains("Connection: close\r\n"));
    assert!(old.read_to_end().ends_with(b"released /wait"));
}

#[test]
fn an_answer_that_does_not_come_in_time_is_504_and_is_not_given_later() {
    let mut settings = serving(Serves::Requests);
    settings.timeouts.answer = 2 * TICK;
    let running = Running::start(settings, demo_routes());
    let mut client = Client::connect(running.address);
    client.send([WAIT, GET].concat().as_bytes());
    let answer = String::from_utf8(client.read_to_end()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert!(!answer.contains("GET /a"), "{answer}");
    let counters = running.closed_when(&CloseReason::RequestFailed, 1);
    assert_eq!((counters.requests, counters.requests_unanswered), (1, 1));
    release(&running);
}

#[test]
fn who_goes_while_an_answer_is_awaited_is_not_missed() {
    let running = Running::start(serving(Serves::Requests), demo_routes());
    let mut client = Client::connect(running.address);
    client.send(WAIT.as_bytes());
    taken(&running, 1);
    client.reset();
    release(&running);
    running.counters_when("both have gone", |counters| counters.active() == 0);
}

#[test]
fn x7_an_answer_to_a_request_that_panicked_is_not_given_to_the_next() {
    let mut running = Running::start(serving(Serves::Requests), demo_routes());
    running.expect_panics(1);
    let mut client = Client::connect(running.address);
    client.send(b"GET /panic-later HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.read_until(b"internal error\"}\n");
    client.send([WAIT, LAST].concat().as_bytes());
    taken(&running, 2);
    release(&running);
    let rest = String::from_utf8(client.read_to_end()).unwrap();
    assert!(rest.contains("released /wait"), "{rest}");
    assert_eq!(rest.matches("released").count(), 1, "{rest}");
    assert!(rest.ends_with("GET /c "), "{rest}");
}

#[test]
fn x12_whoever_was_promised_an_answer_gets_it_in_a_shutdown() {
    let running = Running::start(serving(Serves::Requests), demo_routes());
    let mut client = Client::connect(running.address);
    client.send([WAIT, GET].concat().as_bytes());
    taken(&running, 1);
    let counters = running.stop();
    let answer = String::from_utf8(client.read_to_end()).unwrap();
    assert!(answer.contains("Connection: close\r\n"), "{answer}");
    assert!(answer.ends_with("released /wait"), "{answer}");
    assert_eq!(counters.closed_by(&CloseReason::RequestsDone), 1);
}
