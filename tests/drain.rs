//! The end of a server, in the test's process and as the program: everybody is told, nobody is waited
//! for longer than configured, and the exit code says how it went.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tidegate::{Channel, CloseReason};

use support::{
    Client, On, PATIENCE, Program, Running, demo_routes, frame, request, route, settings,
    wait_until,
};

/// Reads the server's farewell, without answering it.
fn told(client: &mut Client) {
    let frame = client.read_frame().unwrap();
    assert_eq!(frame.close_code(), Some(1001));
    assert_eq!(&frame.payload[2..], b"shutting down");
}

fn answer(mut client: Client) {
    client.send_frame(0x88, &1001u16.to_be_bytes());
    assert_eq!(client.read_frame(), None);
}

#[test]
fn x12_everybody_is_closed_with_1001_and_nothing_is_lost_before() {
    let running = Running::demo();
    let mut clients: Vec<Client> = (0..40)
        .map(|_| Client::open(running.address, "/echo"))
        .collect();
    for client in &mut clients {
        client.echo("open");
    }
    let address = running.address;
    running.handle.shut_down();
    for client in &mut clients {
        told(client);
        // What comes now is not handled any more.
        client.send_text("too late");
    }
    clients.into_iter().for_each(answer);
    let counters = running.stop();
    assert_eq!(counters.closed_by(&CloseReason::Shutdown), 40);
    assert_eq!(counters.messages_received, 40);
    assert!(TcpStream::connect(address).is_err(), "nobody listens");
}

#[test]
fn what_was_published_before_the_shutdown_comes_before_the_farewell() {
    let joined = On {
        open: |peer| {
            peer.join(&Channel::new("room").unwrap());
            peer.send("joined");
        },
        ..On::default()
    };
    let mut settings = settings();
    settings.reactors = 1.try_into().unwrap();
    let running = Running::start(settings, vec![route("/room", joined)]);
    let mut client = Client::open(running.address, "/room");
    assert_eq!(client.read_text(), "joined");
    let room = Channel::new("room").unwrap();
    running.handle.publish(&room, "last").unwrap();
    running.counters_when("it is out", |counters| counters.delivered == 1);
    running.handle.shut_down();
    assert_eq!(client.read_text(), "last");
    told(&mut client);
    answer(client);
}

#[test]
fn whoever_does_not_answer_is_cut_at_the_drain_timeout() {
    let mut settings = settings();
    settings.drain_timeout = Duration::from_millis(300);
    settings.timeouts.close = 12_000 * tidegate::timer::TICK;
    let running = Running::start(settings, demo_routes());
    let mut silent = Client::open(running.address, "/echo");
    // One that does not read either: its farewell waits behind bytes that cannot leave.
    let mut stuck = Client::open(running.address, "/echo").narrow();
    stuck.stream.set_nonblocking(true).unwrap();
    let message = frame(0x82, &vec![1; 60_000]);
    let mut written = 0;
    while running.handle.counters().reading_paused == 0 {
        use std::io::Write;
        let rest = &message[written % message.len()..];
        written += stuck.stream.write(rest).unwrap_or(0);
    }
    // And some on their way in.
    let mut head = Client::connect(running.address);
    head.send(b"GET /echo HT");
    running.counters_when("all have come", |counters| counters.accepted == 3);
    let began = Instant::now();
    let counters = running.stop();
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
    assert!(began.elapsed() >= Duration::from_millis(250));
    assert_eq!(counters.closed_by(&CloseReason::Shutdown), 3);
    told(&mut silent);
    assert_eq!(silent.read_frame(), None);
    assert_eq!(head.read_to_end(), b"");
}

#[test]
fn a_close_frame_that_crosses_ours_is_an_answer() {
    let running = Running::demo();
    let mut client = Client::open(running.address, "/echo");
    client.echo("open");
    running.handle.shut_down();
    // In the middle of a message, too: it is dropped.
    client.send(&frame(0x01, b"unfinished"));
    client.send_frame(0x88, &1000u16.to_be_bytes());
    let close = client.read_frame().unwrap();
    assert_eq!(client.read_frame(), None, "one close frame, no more");
    assert!(matches!(close.close_code(), Some(1000 | 1001)));
    drop(client);
    assert_eq!(running.stop().closed_total(), 1);
}

#[test]
fn shutting_down_twice_is_shutting_down() {
    let running = Running::demo();
    let client = Client::open(running.address, "/echo");
    running.handle.shut_down();
    running.handle.shut_down();
    drop(client);
    let handle = running.handle.clone();
    running.stop();
    // Nor does it hang when everybody has gone.
    handle.shut_down();
    assert_eq!(handle.counters().accepted, 0, "nobody is left to ask");
}

#[test]
fn x12_a_signal_closes_everything_and_exits_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut program =
            Program::start(&["--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"], &[]);
        let mut clients: Vec<Client> = (0..20)
            .map(|at| Client::open(program.addresses[at % 2], "/echo"))
            .collect();
        program.signal(signal);
        clients.iter_mut().for_each(told);
        clients.into_iter().for_each(answer);
        assert_eq!(program.wait().code(), Some(0));
    }
}

#[test]
fn x13_a_second_signal_exits_at_once() {
    let mut program = Program::start(
        &["--listen", "127.0.0.1:0"],
        &[
            ("TIDEGATE_SHUTDOWN_DRAIN_TIMEOUT", "1h"),
            ("TIDEGATE_WEBSOCKET_CLOSE_TIMEOUT", "1m"),
        ],
    );
    let mut client = Client::open(program.addresses[0], "/echo");
    program.signal(Signal::TERM);
    // The first has been seen; the server waits for an answer that does not come.
    told(&mut client);
    program.read_line_with("a second signal exits at once");
    program.signal(Signal::INT);
    assert_eq!(program.wait().code(), Some(0));
}

#[test]
fn x13_a_storm_of_reloads_harms_nobody() {
    let mut program = Program::start(&["--listen", "127.0.0.1:0"], &[]);
    let mut client = Client::open(program.addresses[0], "/echo");
    for _ in 0..200 {
        program.signal(Signal::HUP);
    }
    client.echo("still here");
    program.signal(Signal::TERM);
    told(&mut client);
    answer(client);
    assert_eq!(program.wait().code(), Some(0));
}

#[test]
fn an_address_in_use_is_a_failure_that_names_it() {
    let first = Program::start(&["--listen", "127.0.0.1:0"], &[]);
    let address = first.addresses[0].to_string();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["--listen", &address])
        .env_clear()
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains(&format!("cannot listen on {address}")),
        "{said}"
    );
    // The first one is not disturbed.
    Client::open(first.addresses[0], "/echo").echo("hello");
}

#[test]
fn the_port_is_free_again_at_once() {
    let mut program = Program::start(&["--listen", "127.0.0.1:0"], &[]);
    let address = program.addresses[0];
    // Connections that the server closed first are in TIME_WAIT on its side.
    let mut client = Client::open(address, "/echo");
    program.signal(Signal::TERM);
    told(&mut client);
    answer(client);
    assert_eq!(program.wait().code(), Some(0));
    wait_until("nobody listens", || TcpStream::connect(address).is_err());
    let second = Program::start(&["--listen", &address.to_string()], &[]);
    let mut client = Client::connect(second.addresses[0]);
    client.send(request("/echo").as_bytes());
    assert!(client.read_head().starts_with("HTTP/1.1 101 "));
}
