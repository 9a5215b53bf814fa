//! A client that does not read, over real sockets: the server stops reading from it, keeps no more for
//! it than it was told to, gives up on it after a while, and keeps nothing when it has gone.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod support;

use std::io::{ErrorKind, Write};

use tidegate::conn::sink::STRAIGHT_BYTES_MIN;
use tidegate::conn::{AtLimit, Pushed};
use tidegate::{CloseReason, Message};

use support::tls::{open_tls, tls_settings};
use support::{Client, Clock, On, Running, clock_route, demo_routes, frame, route, settings};

/// Sends messages without reading until the server has stopped reading; returns how many went whole.
/// What of the last one did not go is returned as well.
fn send_until_paused(running: &Running, client: &mut Client, message: &[u8]) -> (usize, Vec<u8>) {
    client.stream.set_nonblocking(true).unwrap();
    let (mut sent, mut rest) = (0, Vec::new());
    while running.handle.counters().reading_paused == 0 {
        if rest.is_empty() {
            rest = message.to_vec();
            sent += 1;
            assert!(sent < 4_000, "the server reads without end");
        }
        match client.stream.write(&rest) {
            Ok(count) => drop(rest.drain(..count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
    }
    client.stream.set_nonblocking(false).unwrap();
    (sent, rest)
}

#[test]
fn a11_reading_pauses_while_replies_wait_and_goes_on_when_they_have_left() {
    let running = Running::demo();
    let mut client = Client::open(running.address, "/echo").narrow();
    let mut other = Client::open(running.address, "/echo");
    let payload = vec![5; 50_000];
    let (sent, rest) = send_until_paused(&running, &mut client, &frame(0x82, &payload));
    let counters = running.handle.counters();
    assert!(
        (1..=1 << 20).contains(&counters.outbox_bytes),
        "{counters:#?}"
    );
    let received = counters.messages_received;
    other.echo("others are served");
    // The paused one is not, whatever it has in the kernel's buffers.
    let counters = running.handle.counters();
    assert_eq!(counters.messages_received, received + 1);

    let mut writer = Client::over(client.stream.try_clone().unwrap());
    let finish = std::thread::spawn(move || writer.send(&rest));
    for _ in 0..sent {
        assert!(client.read_frame().unwrap().payload == payload);
    }
    finish.join().unwrap();
    client.echo("all is well");
    let counters = running.handle.counters();
    assert_eq!((counters.outbox_bytes, counters.outbox_skipped), (0, 0));
}

#[test]
fn a_slow_subscriber_is_read_while_publications_wait_for_it_also_over_tls() {
    let (mut settings, config) = tls_settings();
    settings.outbox.at_limit = AtLimit::Skip;
    let running = Running::start(settings, demo_routes());
    let mut slow = open_tls(running.address, "/broadcast", &config);
    socket2::SockRef::from(&slow.stream.sock)
        .set_recv_buffer_size(16 * 1024)
        .unwrap();
    let mut other = open_tls(running.address, "/broadcast", &config);
    let payload = vec![5; 50_000];
    let mut sent = 0;
    while running.handle.counters().outbox_skipped == 0 {
        other.send_frame(0x82, &payload);
        assert!(other.read_frame().unwrap().payload == payload);
        sent += 1;
        assert!(sent < 4_000, "no limit is met");
    }
    // It takes some of what waits: what is encrypted for it next was published, and is no reply.
    for _ in 0..8 {
        assert!(slow.read_frame().unwrap().payload == payload);
    }
    slow.send_text("heard");
    assert_eq!(other.read_text(), "heard");
    assert!(running.handle.counters().outbox_bytes > 0);
}

#[test]
fn a_slow_reader_that_makes_progress_is_not_closed_for_a_missing_pong() {
    let mut settings = settings();
    settings.timeouts.ping_interval = Some(4 * tidegate::timer::TICK);
    settings.timeouts.pong = 20 * tidegate::timer::TICK;
    let mut routes = demo_routes();
    routes.push(clock_route());
    let running = Running::start(settings, routes);
    let mut client = Client::open(running.address, "/echo").narrow();
    let payload = vec![5; 50_000];
    let (sent, rest) = send_until_paused(&running, &mut client, &frame(0x82, &payload));
    // Nothing is read from it, so no answer of its own can help it. The clock is pinged as well, but
    // it hears of the time with every tick and answers by reading on.
    let mut clock = Client::open(running.address, "/clock");
    let mut ticks = 0;
    while ticks < 40 {
        match clock.read_frame().unwrap().first {
            0x89 => clock.send_frame(0x8a, b""),
            _ => ticks += 1,
        }
    }
    drop(clock);
    let mut writer = Client::over(client.stream.try_clone().unwrap());
    let finish = std::thread::spawn(move || writer.send(&rest));
    for _ in 0..sent {
        let frame = loop {
            let frame = client.read_frame().unwrap();
            if frame.first != 0x89 {
                break frame;
            }
        };
        assert!(frame.payload == payload);
    }
    finish.join().unwrap();
    assert_eq!(
        running
            .handle
            .counters()
            .closed_by(&CloseReason::PongTimeout),
        0
    );
}

#[test]
fn i5_a_socket_that_takes_no_byte_for_too_long_is_closed() {
    let mut settings = settings();
    settings.timeouts.write = 10 * tidegate::timer::TICK;
    let mut routes = demo_routes();
    routes.push(clock_route());
    let running = Running::start(settings, routes);
    let mut client = Client::open(running.address, "/echo").narrow();
    let message = frame(0x82, &vec![5; 50_000]);
    send_until_paused(&running, &mut client, &message);
    // Not before its time.
    let mut clock = Clock::open(running.address);
    clock.wait(5);
    assert_eq!(
        running
            .handle
            .counters()
            .closed_by(&CloseReason::WriteTimeout),
        0
    );
    let counters = running.closed_when(&CloseReason::WriteTimeout, 1);
    assert_eq!(counters.outbox_bytes, 0);
    client.read_to_end();
}

#[test]
fn a11_large_messages_reach_a_slow_reader_to_the_byte() {
    let mut settings = settings();
    settings.outbox.bytes_max = 4 << 20;
    let mut routes = demo_routes();
    routes[0].0.limits.message_bytes_max = 1 << 20;
    let running = Running::start(settings, routes);
    let mut client = Client::open(running.address, "/echo").narrow();
    // A remainder that is prime to every size of buffer: bytes that are lost or moved do not match.
    let payload = |length: usize| -> Vec<u8> { (0..length).map(|at| (at % 251) as u8).collect() };
    let lengths = [
        65_536,
        100,
        STRAIGHT_BYTES_MIN - 1,
        STRAIGHT_BYTES_MIN,
        200_000,
        0,
        1 << 20,
        65_535,
    ];
    let mut script = Vec::new();
    for length in lengths {
        script.extend(frame(0x89, b"between"));
        script.extend(frame(0x82, &payload(length)));
    }
    let (sent, rest) = send_until_paused(&running, &mut client, &script);
    let mut writer = Client::over(client.stream.try_clone().unwrap());
    let finish = std::thread::spawn(move || writer.send(&rest));
    for _ in 0..sent {
        for length in lengths {
            let frame = loop {
                // Pongs keep their place, but a read with very many pings answers only some.
                let frame = client.read_frame().unwrap();
                if frame.first != 0x8a {
                    break frame;
                }
                assert_eq!(frame.payload, b"between");
            };
            assert_eq!(frame.first, 0x82);
            assert!(frame.payload == payload(length), "{length} bytes");
        }
    }
    finish.join().unwrap();
    let counters = running.handle.counters();
    assert_eq!((counters.outbox_bytes, counters.outbox_skipped), (0, 0));
}

/// Answers a number with a message whose frame has so many bytes, and then with what `send` said.
fn sized() -> On {
    On {
        message: |peer, message| {
            let Message::Text(text) = message else { return };
            let frame: usize = text.parse().unwrap();
            let header = if frame - 4 > 65_535 { 10 } else { 4 };
            match peer.send(vec![0; frame - header]) {
                Pushed::Queued => peer.send("queued"),
                Pushed::Pressed => peer.send("pressed"),
                Pushed::Full => peer.send("full"),
            };
        },
        ..On::default()
    }
}

#[test]
fn limits_on_one_answer_hold_at_minus_one_zero_and_plus_one() {
    let mut settings = settings();
    settings.outbox.bytes_high_water = 5_000;
    settings.outbox.bytes_max = 15_000;
    settings.outbox.at_limit = AtLimit::Skip;
    let running = Running::start(settings.clone(), vec![route("/sized", sized())]);
    let mut client = Client::open(running.address, "/sized");
    for (bytes, answer) in [
        (4_999, "queued"),
        (5_000, "queued"),
        (5_001, "pressed"),
        (14_990, "pressed"),
    ] {
        client.send_text(&bytes.to_string());
        assert_eq!(client.read_frame().unwrap().payload.len(), bytes - 4);
        assert_eq!(client.read_text(), answer);
    }
    // With nothing behind it, up to the last byte.
    for bytes in [14_999, 15_000] {
        client.send_text(&bytes.to_string());
        assert_eq!(client.read_frame().unwrap().payload.len(), bytes - 4);
    }
    let skipped = running.handle.counters().outbox_skipped;
    client.send_text("15001");
    assert_eq!(client.read_text(), "full");
    assert_eq!(running.handle.counters().outbox_skipped, skipped + 1);

    // The other policy ends the connection at the same byte.
    settings.outbox.at_limit = AtLimit::Close;
    let running = Running::start(settings, vec![route("/sized", sized())]);
    let mut client = Client::open(running.address, "/sized");
    client.send_text("15001");
    let close = client.read_frame().unwrap();
    assert_eq!(close.close_code(), Some(1008));
    client.send_frame(0x88, &1008u16.to_be_bytes());
    assert_eq!(client.read_frame(), None);
    running.closed_when(&CloseReason::OutboxFull, 1);
}

#[test]
fn a_large_answer_that_the_socket_takes_presses_on_nothing() {
    let mut settings = settings();
    settings.outbox.bytes_high_water = 10_000;
    settings.outbox.bytes_max = 40_000;
    settings.outbox.at_limit = AtLimit::Skip;
    let running = Running::start(settings, vec![route("/sized", sized())]);
    let mut client = Client::open(running.address, "/sized");
    for bytes in [39_999, 40_000] {
        client.send_text(&bytes.to_string());
        assert_eq!(client.read_frame().unwrap().payload.len(), bytes - 4);
        assert_eq!(client.read_text(), "queued");
    }
    // What could not wait if it had to is not begun.
    client.send_text("40001");
    assert_eq!(client.read_text(), "full");
    assert_eq!(running.handle.counters().outbox_skipped, 1);
}

#[test]
fn messages_from_outside_meet_the_same_limit() {
    let who = On {
        open: |peer| {
            peer.send(peer.id().to_string());
        },
        ..On::default()
    };
    let mut settings = settings();
    settings.outbox.bytes_max = 300_000;
    let running = Running::start(settings, vec![route("/who", who)]);
    let mut client = Client::open(running.address, "/who").narrow();
    let id = client.read_text().parse().unwrap();
    // The kernel takes some; then the outbox fills; then the connection is closed.
    let mut sent = 0;
    while running.handle.counters().outbox_skipped == 0 {
        let _ = running.handle.send(id, vec![1; 50_000]);
        sent += 1;
        assert!(sent < 4_000, "no limit is met");
        let waiting = running.handle.counters().outbox_bytes;
        assert!(waiting <= 300_000 + 64, "{waiting} bytes wait");
    }
    let mut whole = 0;
    loop {
        let frame = client.read_frame().unwrap();
        if frame.opcode() == 8 {
            assert_eq!(frame.close_code(), Some(1008));
            break;
        }
        assert_eq!(
            frame.payload.len(),
            50_000,
            "a frame that began is finished"
        );
        whole += 1;
    }
    assert!(whole < sent);
    drop(client);
    running.closed_when(&CloseReason::OutboxFull, 1);
}

#[test]
fn nothing_is_kept_for_clients_that_have_gone() {
    let running = Running::demo();
    let mut clients: Vec<Client> = (0..20)
        .map(|_| Client::open(running.address, "/echo").narrow())
        .collect();
    let message = frame(0x82, &vec![5; 60_000]);
    for client in &clients {
        client.stream.set_nonblocking(true).unwrap();
    }
    let mut written = vec![0; clients.len()];
    // Until all of them wait.
    while running.handle.counters().reading_paused < clients.len() as u64 {
        for (client, written) in clients.iter_mut().zip(&mut written) {
            match client.stream.write(&message[*written % message.len()..]) {
                Ok(count) => *written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert!(running.handle.counters().outbox_bytes > 0);
    for (at, client) in clients.into_iter().enumerate() {
        match at % 2 {
            0 => client.reset(),
            _ => drop(client),
        }
    }
    let counters = running.counters_when("all have gone", |counters| counters.active() == 0);
    assert_eq!(counters.outbox_bytes, 0);
}
