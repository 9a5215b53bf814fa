//! Channels over real sockets: everybody gets everything in one order, whoever leaves hears no more,
//! and a subscriber that does not read harms nobody but itself.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::collections::BTreeSet;
use std::thread;

use tidegate::conn::AtLimit;
use tidegate::{Channel, CloseReason, ConnectionId, Message};

use support::{Client, Frame, On, Running, demo_routes, frame, route, settings};

/// Clients of `path` such that every reactor has `each` of them at least.
fn on_every_reactor(running: &Running, path: &str, each: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    let mut count = [0; 2];
    while count.iter().any(|count| *count < each) {
        let mut client = Client::open(running.address, path);
        let id: ConnectionId = client.read_text().parse().unwrap();
        count[id.reactor()] += 1;
        clients.push(client);
        assert!(clients.len() < 64 * each, "the kernel prefers one reactor");
    }
    clients
}

fn room() -> Channel {
    Channel::new("room").unwrap()
}

/// Tells a client its id, subscribes it to `room`, and publishes what it says there.
fn broadcast() -> On {
    On {
        open: |peer| {
            peer.send(peer.id().to_string());
            peer.join(&room());
        },
        message: |peer, message| peer.publish(&room(), message),
        ..On::default()
    }
}

#[test]
fn a_message_reaches_all_clients_of_the_route_the_sender_included() {
    let running = Running::start(
        settings(),
        vec![route("/room", broadcast()), demo_routes().remove(0)],
    );
    let mut elsewhere = Client::open(running.address, "/echo");
    let mut clients = on_every_reactor(&running, "/room", 3);
    let count = clients.len() as u64;
    clients[0].send_text("hello");
    clients[1].send_frame(0x82, b"\x00\xff");
    for client in &mut clients {
        let mut both = [client.read_frame().unwrap(), client.read_frame().unwrap()];
        both.sort_by_key(|frame| frame.first);
        assert_eq!((both[0].first, &both[0].payload[..]), (0x81, &b"hello"[..]));
        assert_eq!(
            (both[1].first, &both[1].payload[..]),
            (0x82, &b"\x00\xff"[..])
        );
    }
    elsewhere.echo("nothing else came here");
    drop((clients, elsewhere));
    let counters = running.stop();
    assert_eq!((counters.published, counters.delivered), (2, 2 * count));
}

/// Everything that came up to the message `end`.
fn read_until(client: &mut Client, end: &str) -> Vec<String> {
    let mut texts = Vec::new();
    loop {
        let text = client.read_text();
        if text == end {
            return texts;
        }
        texts.push(text);
    }
}

#[test]
fn all_subscribers_on_all_reactors_see_many_publishers_in_one_order() {
    const EACH: usize = 400;
    let running = Running::start(settings(), vec![route("/room", broadcast())]);
    let mut readers = on_every_reactor(&running, "/room", 4);
    let publishers = on_every_reactor(&running, "/room", 3);
    let mut threads: Vec<_> = publishers
        .into_iter()
        .enumerate()
        .map(|(who, mut client)| {
            thread::spawn(move || {
                for number in 0..EACH {
                    client.send_text(&format!("{who}:{number}"));
                    // A publisher is a subscriber too: it must read, and see its own in order.
                    while client.read_text() != format!("{who}:{number}") {}
                }
                // Until its reader ends it, so that nobody is missing from the order.
                client
            })
        })
        .collect();
    // A thread outside the reactors publishes as well.
    let outside = running.handle.clone();
    let count = threads.len() + 1;
    threads.push(thread::spawn({
        let address = running.address;
        move || {
            for number in 0..EACH {
                let text = format!("{}:{number}", count - 1);
                while outside.publish(&room(), text.clone()).is_err() {}
            }
            Client::connect(address)
        }
    }));
    let logs: Vec<Vec<String>> = readers
        .iter_mut()
        .map(|client| (0..count * EACH).map(|_| client.read_text()).collect())
        .collect();
    for log in &logs {
        assert!(*log == logs[0], "two subscribers saw two orders");
    }
    for who in 0..count {
        let own: Vec<&String> = logs[0]
            .iter()
            .filter(|text| text.starts_with(&format!("{who}:")))
            .collect();
        let expected: Vec<String> = (0..EACH).map(|number| format!("{who}:{number}")).collect();
        assert!(
            own.into_iter().eq(&expected),
            "publisher {who} out of order"
        );
    }
    let publishers: Vec<Client> = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    drop((publishers, readers));
    let counters = running.stop();
    assert_eq!(counters.published, (count * EACH) as u64);
    assert_eq!(counters.publications_dropped, 0, "{counters:#?}");
}

/// Joins and leaves on demand, and says when it has; publishes everything else.
fn commands() -> On {
    On {
        open: |peer| {
            peer.send(peer.id().to_string());
        },
        message: |peer, message| match &message {
            Message::Text(text) if text == "join" => {
                assert!(peer.join(&room()));
                peer.send("joined");
            }
            Message::Text(text) if text == "leave" => {
                assert!(peer.leave(&room()));
                peer.send("left");
            }
            _ => peer.publish(&room(), message),
        },
        ..On::default()
    }
}

#[test]
fn g8_leaving_is_silence_under_a_stream_of_publications() {
    let running = Running::start(settings(), vec![route("/room", commands())]);
    let mut clients = on_every_reactor(&running, "/room", 2);
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let publisher = thread::spawn({
        let (stop, handle) = (stop.clone(), running.handle.clone());
        move || {
            let mut published = 0u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                published += u64::from(handle.publish(&room(), format!("{published}")).is_ok());
                thread::yield_now();
            }
        }
    });
    for _ in 0..20 {
        for client in &mut clients {
            client.send_text("join");
            while client.read_text() != "joined" {}
            // In order and without a gap, from wherever it came in.
            let first: u64 = client.read_text().parse().unwrap();
            for next in first + 1..first + 5 {
                assert_eq!(client.read_text(), next.to_string());
            }
            client.send_text("leave");
            while client.read_text() != "left" {}
            // Whatever is published now must not come before the pong.
            client.send_frame(0x89, b"silence?");
            assert_eq!(client.read_frame().unwrap().first, 0x8a);
        }
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    publisher.join().unwrap();
}

#[test]
fn subscribers_may_come_and_go_while_others_publish() {
    const ROUNDS: usize = 60;
    let running = Running::start(settings(), vec![route("/room", broadcast())]);
    let mut steady = on_every_reactor(&running, "/room", 2);
    let address = running.address;
    let churn: Vec<_> = (0..2)
        .map(|which| {
            thread::spawn(move || {
                for round in 0..ROUNDS {
                    let mut client = Client::open(address, "/room");
                    client.read_text();
                    client.send_text(&format!("churn {which} {round}"));
                    match round % 3 {
                        0 => drop(client),
                        1 => client.reset(),
                        _ => drop(client.close(1000)),
                    }
                }
            })
        })
        .collect();
    for thread in churn {
        thread.join().unwrap();
    }
    running.counters_when("only the steady are left", |counters| {
        counters.active() == steady.len() as u64
    });
    steady[0].send_text("end");
    let logs: Vec<Vec<String>> = steady
        .iter_mut()
        .map(|client| read_until(client, "end"))
        .collect();
    assert!(logs.windows(2).all(|pair| pair[0] == pair[1]), "one order");
    let distinct: BTreeSet<&String> = logs[0].iter().collect();
    assert_eq!(distinct.len(), logs[0].len(), "nothing came twice");
    // Those that closed in good order were heard for certain.
    for which in 0..2 {
        for round in (2..ROUNDS).step_by(3) {
            assert!(distinct.contains(&format!("churn {which} {round}")));
        }
    }
}

#[test]
fn a7_no_buffer_shows_another_clients_bytes() {
    // Echoes and publications of many connections at once, each byte tagged with its owner.
    let running = Running::start(
        settings(),
        vec![route("/room", broadcast()), demo_routes().remove(0)],
    );
    let threads: Vec<_> = (0..4u8)
        .map(|tag| {
            let address = running.address;
            thread::spawn(move || {
                let mut clients: Vec<Client> =
                    (0..4).map(|_| Client::open(address, "/echo")).collect();
                for round in 0..60usize {
                    let lengths = [1, 100, 5_000 + round, 60_000];
                    for (client, length) in clients.iter_mut().zip(lengths) {
                        client.send_frame(0x82, &vec![tag; length]);
                    }
                    for (client, length) in clients.iter_mut().zip(lengths) {
                        let echo = client.read_frame().unwrap();
                        assert!(
                            echo.payload == vec![tag; length],
                            "foreign bytes in an echo"
                        );
                    }
                }
            })
        })
        .collect();
    let mut subscriber = Client::open(running.address, "/room");
    subscriber.read_text();
    let mut publishers: Vec<Client> = (0..4)
        .map(|_| {
            let mut client = Client::open(running.address, "/room");
            client.read_text();
            client
        })
        .collect();
    for round in 0..60u8 {
        for (tag, client) in (100..).zip(&mut publishers) {
            client.send_frame(0x82, &vec![tag; 1_000 + usize::from(round)]);
        }
        let mut tags: Vec<u8> = (0..4)
            .map(|_| {
                let Frame { payload, .. } = subscriber.read_frame().unwrap();
                assert_eq!(payload.len(), 1_000 + usize::from(round));
                assert!(
                    payload.iter().all(|byte| *byte == payload[0]),
                    "mixed bytes"
                );
                payload[0]
            })
            .collect();
        tags.sort_unstable();
        assert_eq!(tags, [100, 101, 102, 103]);
        for client in &mut publishers {
            (0..4).for_each(|_| drop(client.read_frame()));
        }
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

/// A room in which a subscriber gives up reading, with this policy. Returns the server, the slow
/// subscriber, and the quick ones after everything they got.
fn slow_subscriber(at_limit: AtLimit) -> (Running, Client, Vec<Client>, u64) {
    let mut settings = settings();
    settings.outbox.bytes_max = 256 * 1024;
    settings.outbox.at_limit = at_limit;
    settings.timeouts.close = 4 * tidegate::timer::TICK;
    let running = Running::start(settings, vec![route("/room", broadcast())]);
    let mut quick = on_every_reactor(&running, "/room", 2);
    let mut slow = Client::open(running.address, "/room");
    slow.read_text();
    let mut published = 0;
    let payload = "x".repeat(20_000);
    // Three publications in a turn, mostly: they are one batch. All are seen by all quick ones before
    // the next, so nobody else can be late.
    loop {
        let texts = [0, 1, 2].map(|more| format!("{} {payload}", published + more));
        let frames = texts.each_ref().map(|text| frame(0x81, text.as_bytes()));
        quick[0].send(&frames.concat());
        published += 3;
        for client in &mut quick {
            for text in &texts {
                assert!(client.read_text() == *text, "a quick one missed {text}");
            }
        }
        if running.handle.counters().outbox_skipped >= 9 {
            break;
        }
        if at_limit == AtLimit::Close && running.handle.counters().outbox_skipped > 0 {
            break;
        }
    }
    (running, slow, quick, published)
}

#[test]
fn x40_a_slow_subscriber_is_closed_and_nobody_else_notices() {
    let (running, mut slow, mut quick, _) = slow_subscriber(AtLimit::Close);
    let counters = running.handle.counters();
    assert!(counters.outbox_bytes <= 512 * 1024, "{counters:#?}");
    // It gets what had begun to leave, whole, and is then told why.
    let mut next = 0;
    let code = loop {
        let frame = slow.read_frame().unwrap();
        if frame.opcode() == 8 {
            break frame.close_code();
        }
        let text = String::from_utf8(frame.payload).unwrap();
        assert!(text.starts_with(&format!("{next} ")), "a gap before {next}");
        next += 1;
    };
    assert_eq!(code, Some(1008));
    drop(slow);
    running.closed_when(&CloseReason::OutboxFull, 1);
    quick[1].send_text("end");
    for client in &mut quick {
        assert_eq!(client.read_text(), "end");
    }
}

#[test]
fn x40_a_slow_subscriber_misses_messages_whole_where_the_policy_is_to_skip() {
    let (running, mut slow, mut quick, published) = slow_subscriber(AtLimit::Skip);
    // It catches up: whatever comes is whole and in order, and the last one comes.
    quick[0].send_text("end");
    let mut got = Vec::new();
    loop {
        let text = slow.read_text();
        match text.split_once(' ') {
            Some((number, payload)) => {
                assert_eq!(payload.len(), 20_000);
                got.push(number.parse::<u64>().unwrap());
            }
            // The room may have been full for the first "end" as well.
            None => break,
        }
        assert!(
            got.len() as u64 <= published,
            "more came than was published"
        );
        if running.handle.counters().outbox_bytes == 0 {
            quick[0].send_text("end");
        }
    }
    assert!(got.is_sorted_by(|a, b| a < b), "{got:?}");
    assert!((got.len() as u64) < published, "something was skipped");
    // The balance: every publication reached every subscriber or was counted as skipped for it.
    let subscribers = quick.len() as u64 + 1;
    running.counters_when("the balance of publications", |counters| {
        counters.delivered + counters.outbox_skipped == counters.published * subscribers
    });
}

/// The channels of the crowd.
fn crowd() -> impl Iterator<Item = Channel> {
    (0..120).map(|number| Channel::new(&format!("crowd-{number}")).unwrap())
}

/// A reactor whose fan-out is busy for more than a hundred turns, from when the returned client says
/// "go": many channels with more subscribers than one slice serves.
fn busy_fan_out() -> (Running, Vec<Client>) {
    let crowd_route = On {
        open: |peer| crowd().for_each(|channel| assert!(peer.join(&channel))),
        message: |peer, message| {
            for channel in crowd() {
                peer.publish(&channel, message.clone());
            }
        },
        ..On::default()
    };
    let mut settings = settings();
    settings.reactors = 1.try_into().unwrap();
    settings.timeouts.write = 60 * tidegate::timer::TICK;
    let routes = vec![
        route("/crowd", crowd_route),
        route("/room", broadcast()),
        demo_routes().remove(0),
    ];
    let running = Running::start(settings, routes);
    let many: Vec<Client> = (0..600)
        .map(|_| Client::open(running.address, "/crowd"))
        .collect();
    running.counters_when("all have come", |counters| counters.opened == 600);
    (running, many)
}

#[test]
fn x39_others_are_answered_while_one_message_goes_to_many() {
    let (running, mut many) = busy_fan_out();
    let mut other = Client::open(running.address, "/echo");
    many[0].send_text("go");
    assert_eq!(many[0].read_text(), "go");
    other.send_frame(0x89, b"and me?");
    assert_eq!(other.read_frame().unwrap().payload, b"and me?");
    let delivered = running.handle.counters().delivered;
    assert!(delivered < 600 * 120, "the answer came behind the fan-out");
    for client in &mut many[1..] {
        (0..120).for_each(|_| assert_eq!(client.read_text(), "go"));
    }
    running.counters_when("everything is delivered", |counters| {
        counters.delivered == 600 * 120
    });
}

#[test]
fn a_flight_of_more_batches_than_one_write_takes_arrives_whole() {
    let (running, mut many) = busy_fan_out();
    let mut reader = Client::open(running.address, "/room");
    let mut publisher = Client::open(running.address, "/room");
    for client in [&mut reader, &mut publisher] {
        client.read_text();
    }
    many[0].send_text("go");
    assert_eq!(many[0].read_text(), "go");
    // The answer to the ping ends a turn, and with it a batch, which waits for the channel's turn.
    for number in 0..150 {
        publisher.send_text(&number.to_string());
        publisher.send_frame(0x89, b"turn");
        while publisher.read_frame().unwrap().first != 0x8a {}
    }
    for number in 0..150 {
        assert_eq!(reader.read_text(), number.to_string());
    }
    // It did not come because the write deadline ended the connection.
    reader.send_text("still here");
    assert_eq!(reader.read_text(), "still here");
}

#[test]
fn compressed_and_plain_subscribers_share_a_channel() {
    let mut routes = vec![route("/room", broadcast())];
    routes[0].0.compression = true;
    let running = Running::start(settings(), routes);
    let mut plain = Client::open(running.address, "/room");
    plain.read_text();
    let mut others = [
        "permessage-deflate",
        "permessage-deflate; server_max_window_bits=9",
    ]
    .map(|offer| {
        let mut client = Client::connect(running.address);
        let request = support::request("/room");
        let head = &request[..request.len() - 2];
        client.send(format!("{head}Sec-WebSocket-Extensions: {offer}\r\n\r\n").as_bytes());
        assert!(client.read_head().contains("permessage-deflate"));
        client.read_text();
        client
    });
    let text = "tide after tide ".repeat(100);
    plain.send_text(&text);
    assert_eq!(plain.read_text(), text);
    // Shared frames have the largest window; who asked for less gets them plain.
    for (client, first) in others.iter_mut().zip([0xc1, 0x81]) {
        let frame = client.read_frame().unwrap();
        assert_eq!(frame.first, first);
        assert_eq!(frame.payload.len() < 200, first == 0xc1);
    }
}

#[test]
fn a_burst_is_delivered_whole_to_everybody() {
    // More batches behind one flight than one vectored write takes.
    let running = Running::start(settings(), vec![route("/room", broadcast())]);
    let mut readers = on_every_reactor(&running, "/room", 2);
    let burst: Vec<u8> = (0..3_000)
        .flat_map(|number| frame(0x81, format!("{number}").as_bytes()))
        .collect();
    readers[0].send(&burst);
    for client in &mut readers {
        for number in 0..3_000 {
            assert_eq!(client.read_text(), number.to_string());
        }
    }
}

#[test]
fn a_connection_is_addressed_from_another_thread_by_its_id() {
    let running = Running::start(settings(), vec![route("/room", broadcast())]);
    let mut client = Client::open(running.address, "/room");
    let id: ConnectionId = client.read_text().parse().unwrap();
    running.handle.send(id, "for you").unwrap();
    assert_eq!(client.read_text(), "for you");
    running
        .handle
        .close(id, tidegate::CloseCode::Library(4000), "over")
        .unwrap();
    let close = client.read_frame().unwrap();
    assert_eq!(
        (close.close_code(), &close.payload[2..]),
        (Some(4000), &b"over"[..])
    );
    drop(client);
    running.closed_when(&CloseReason::Disconnected, 1);
    // The id means nobody any more, also when its slot has a new tenant.
    let mut next = Client::open(running.address, "/room");
    next.read_text();
    running.handle.send(id, "for the one before").unwrap();
    next.send_text("mine");
    assert_eq!(next.read_text(), "mine");
}
