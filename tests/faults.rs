//! Faults: of the host (descriptors run out), of the application (callbacks that panic), of the network
//! (peers that vanish or reset), each against real sockets. What is promised is that the fault stays
//! with whom it belongs to, and that it is counted.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{ErrorKind, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::Signal;
use tidegate::{CloseCode, CloseReason, Message};

use support::{
    Client, Clock, On, Program, Running, clock_route, demo_routes, frame, request, route, settings,
};

#[test]
fn x1_without_descriptors_the_listener_rests_and_heals() {
    let mut program = Program::start(&["--listen", "127.0.0.1:0", "--reactors", "1"], &[]);
    let address = program.addresses[0];
    program.leave_descriptors(2);
    let mut open = [
        Client::open(address, "/echo"),
        Client::open(address, "/echo"),
    ];
    let mut waiting = Client::connect(address);
    waiting.send(request("/echo").as_bytes());
    let line = program.read_line_with("cannot accept");
    assert!(line.contains("raise the limit on open files"), "{line}");

    // Nobody who is in notices, and the wait costs next to nothing: `accept` would fail again at once,
    // so asking it again at once would be a busy loop.
    let before = program.cpu_time();
    let second = Duration::from_secs(1);
    waiting.stream.set_read_timeout(Some(second)).unwrap();
    let nothing = waiting.stream.read(&mut [0]).unwrap_err().kind();
    assert!(matches!(
        nothing,
        ErrorKind::WouldBlock | ErrorKind::TimedOut
    ));
    let spent = program.cpu_time() - before;
    assert!(spent < second / 20, "{spent:?} of a second");
    for client in &mut open {
        client.echo("not affected");
    }

    // One leaves, one comes in, of its own accord.
    let [first, _second] = open;
    assert_eq!(first.close(1000), Some(1000));
    waiting
        .stream
        .set_read_timeout(Some(support::PATIENCE))
        .unwrap();
    assert!(waiting.read_head().starts_with("HTTP/1.1 101 "));
    waiting.echo("healed");
    program.signal(Signal::TERM);
    assert_eq!(waiting.read_frame().unwrap().close_code(), Some(1001));
}

#[test]
fn x1_a_server_that_was_full_accepts_everybody_afterwards() {
    let program = Program::start(&["--listen", "127.0.0.1:0", "--reactors", "2"], &[]);
    let address = program.addresses[0];
    let free = program.descriptors();
    program.leave_descriptors(8);
    let mut clients: Vec<Client> = (0..40)
        .map(|_| {
            let mut client = Client::connect(address);
            client.send(request("/echo").as_bytes());
            client
        })
        .collect();
    // They are served in some order, as places become free: each leaves when it has been served.
    for client in &clients {
        client.stream.set_nonblocking(true).unwrap();
    }
    support::wait_until("everybody has been served", || {
        clients.retain_mut(|client| match client.stream.peek(&mut [0]) {
            Ok(_) => false,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                true
            }
        });
        clients.is_empty()
    });
    support::wait_until("nothing leaks", || program.descriptors() == free);
}

/// Routes on which each of the callbacks panics.
fn panicking() -> Running {
    let open = On {
        open: |_| panic!("in open"),
        ..On::default()
    };
    let message = On {
        message: |peer, _| {
            peer.send("before");
            panic!("in message");
        },
        ..On::default()
    };
    let timer = On {
        open: |peer| peer.set_timer(Duration::from_millis(1)),
        timer: |_| panic!("in timer"),
        ..On::default()
    };
    let close = On {
        close: |_, _| panic!("in close"),
        ..On::default()
    };
    let mut routes = demo_routes();
    for (path, on) in [
        ("/open", open),
        ("/message", message),
        ("/timer", timer),
        ("/close", close),
    ] {
        routes.push(route(path, on));
    }
    Running::start(settings(), routes)
}

#[test]
fn x7_a_panic_in_a_callback_ends_its_connection_and_no_other() {
    let mut running = panicking();
    let mut others: Vec<Client> = (0..6)
        .map(|_| Client::open(running.address, "/echo"))
        .collect();
    // The same route's other connections are others, too.
    let mut neighbour = Client::open(running.address, "/message");
    for path in ["/open", "/message", "/timer"] {
        let mut client = Client::open(running.address, path);
        if path == "/message" {
            client.send_text("go");
            assert_eq!(client.read_text(), "before");
        }
        let close = client.read_frame().unwrap();
        assert_eq!(close.close_code(), Some(1011), "{path}");
        client.send_frame(0x88, &1011u16.to_be_bytes());
        assert_eq!(client.read_frame(), None);
    }
    // A connection whose `close` panics has ended already, for a reason of its own.
    let client = Client::open(running.address, "/close");
    assert_eq!(client.close(1000), Some(1000));
    for client in &mut others {
        client.echo("not affected");
    }
    neighbour.send_frame(0x89, b"me neither");
    assert_eq!(neighbour.read_frame().unwrap().payload, b"me neither");
    running.expect_panics(4);
    drop((others, neighbour));
    let counters = running.stop();
    assert_eq!(counters.closed_by(&CloseReason::HandlerPanic), 3);
    assert_eq!(counters.closed_by(&CloseReason::PeerClosed), 1);
}

/// Runs one of the ignored tests below in a process of its own.
fn child(name: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap()
}

#[test]
fn x7_more_than_ten_panics_a_minute_abort_the_process() {
    let output = child("child_panics_eleven_times");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.signal(),
        Some(Signal::ABORT.as_raw()),
        "{said}"
    );
    assert_eq!(said.matches("in open").count(), 11, "{said}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("ten survived"));
}

#[test]
#[ignore = "aborts its process: run by x7_more_than_ten_panics_a_minute_abort_the_process"]
fn child_panics_eleven_times() {
    let mut settings = settings();
    settings.reactors = 1.try_into().unwrap();
    let open = On {
        open: |_| panic!("in open"),
        ..On::default()
    };
    let running = Running::start(settings, vec![route("/open", open)]);
    for _ in 0..10 {
        let mut client = Client::open(running.address, "/open");
        assert_eq!(client.read_frame().unwrap().close_code(), Some(1011));
    }
    println!("ten survived");
    Client::open(running.address, "/open").read_to_end();
}

#[test]
fn x8_a_panic_in_a_reactor_ends_the_process() {
    let output = child("child_panics_while_it_makes_a_handler");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.signal(),
        Some(Signal::ABORT.as_raw()),
        "{said}"
    );
    assert!(said.contains("outside of a callback"), "{said}");
}

#[test]
#[ignore = "aborts its process: run by x8_a_panic_in_a_reactor_ends_the_process"]
fn child_panics_while_it_makes_a_handler() {
    let (found, _) = route("/never", On::default());
    let factory = |_| -> On { panic!("outside of a callback") };
    let running = Running::start(settings(), vec![(found, std::sync::Arc::new(factory))]);
    Client::connect(running.address).read_to_end();
    unreachable!("the process has ended");
}

#[test]
fn x7_a_value_whose_drop_panics_harms_nobody_else() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("while it is dropped");
        }
    }
    let armed = On {
        open: |peer| peer.set_data(Bomb),
        ..On::default()
    };
    let mut settings = settings();
    settings.reactors = 1.try_into().unwrap();
    let mut routes = demo_routes();
    routes.push(route("/bomb", armed));
    let mut running = Running::start(settings, routes);
    let mut other = Client::open(running.address, "/echo");
    assert_eq!(
        Client::open(running.address, "/bomb").close(1000),
        Some(1000)
    );
    other.send_text("still here");
    assert_eq!(other.read_text(), "still here");
    running.expect_panics(1);
}

#[test]
fn x29_a_peer_that_vanished_is_freed_and_one_that_answers_is_not() {
    let mut settings = settings();
    settings.timeouts.ping_interval = Some(4 * tidegate::timer::TICK);
    settings.timeouts.pong = 8 * tidegate::timer::TICK;
    let running = Running::start(settings, demo_routes());
    // To the server, a host without power is a peer that does not answer.
    let vanished = Client::open(running.address, "/echo");
    let mut alive = Client::open(running.address, "/echo");
    for _ in 0..6 {
        let ping = alive.read_frame().unwrap();
        assert_eq!(ping.first, 0x89);
        alive.send_frame(0x8a, &ping.payload);
    }
    let counters = running.closed_when(&CloseReason::PongTimeout, 1);
    assert_eq!(counters.active(), 1);
    drop(vanished);
    // Anything it sends is a sign of life, not only a pong.
    alive.send_text("alive");
    loop {
        let frame = alive.read_frame().unwrap();
        if frame.first == 0x81 {
            break;
        }
    }
}

#[test]
fn x30_many_resets_at_once_are_counted_and_disturb_nobody() {
    let running = Running::demo();
    let mut other = Client::open(running.address, "/echo");
    let mut clients: Vec<Client> = (0..800)
        .map(|at| Client::open(running.address, ["/echo", "/broadcast"][at % 2]))
        .collect();
    for client in &mut clients {
        client.send(&frame(0x81, b"on its way")[..8]);
    }
    for client in clients {
        client.reset();
    }
    other.echo("not disturbed");
    let counters = running.counters_when("all have gone", |counters| counters.active() == 1);
    let ended = counters.closed_by(&CloseReason::Io) + counters.closed_by(&CloseReason::PeerGone);
    assert_eq!((counters.accepted, ended), (801, 800));
}

#[test]
fn x2_connections_that_are_gone_before_they_are_accepted_leave_the_listener_alive() {
    let running = Running::demo();
    for _ in 0..300 {
        Client::connect(running.address).reset();
    }
    Client::open(running.address, "/echo").echo("alive");
}

#[test]
fn x32_a_peer_may_half_close_and_still_get_its_answers() {
    let running = Running::demo();
    let mut client = Client::open(running.address, "/echo");
    client.send_text("last words");
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.read_text(), "last words");
    assert_eq!(client.read_frame(), None);
    running.closed_when(&CloseReason::PeerGone, 1);
}

#[test]
fn every_open_has_one_close_whatever_ends_the_connection() {
    use std::sync::atomic::{AtomicU64, Ordering};
    static OPENED: AtomicU64 = AtomicU64::new(0);
    static CLOSED: AtomicU64 = AtomicU64::new(0);
    let counting = On {
        open: |peer| {
            OPENED.fetch_add(1, Ordering::Relaxed);
            peer.set_timer(Duration::from_millis(100));
        },
        message: |peer, message| match message {
            Message::Text(text) if text == "panic" => panic!("in message"),
            Message::Text(text) if text == "close" => peer.close(CloseCode::Normal, ""),
            message => drop(peer.send(message)),
        },
        close: |peer, _| {
            CLOSED.fetch_add(1, Ordering::Relaxed);
            // None of this has an effect any more.
            peer.send("too late");
            peer.close(CloseCode::Error, "too late");
            peer.set_timer(Duration::from_millis(1));
        },
        timer: |_| {},
    };
    let mut settings = settings();
    settings.timeouts.close = 2 * tidegate::timer::TICK;
    let mut running = Running::start(settings, vec![route("/count", counting), clock_route()]);
    running.expect_panics(5);
    for round in 0..40 {
        let mut client = Client::open(running.address, "/count");
        match round % 8 {
            0 => drop(client),
            1 => client.reset(),
            2 => drop(client.close(1000)),
            3 => client.send_text("panic"),
            4 => client.send_text("close"),
            5 => client.send(&[0xff, 0xff]),
            6 => client.send(&frame(0x01, b"unfinished")),
            _ => client.echo("hello"),
        }
    }
    Clock::open(running.address).wait(3);
    let counters = running.stop();
    assert_eq!(counters.opened, 41);
    assert_eq!(OPENED.load(Ordering::Relaxed), 40);
    assert_eq!(CLOSED.load(Ordering::Relaxed), 40);
}
