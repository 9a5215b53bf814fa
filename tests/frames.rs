//! Frames over real sockets: what a peer may send, what it gets back, and the code its connection is
//! closed with when it may not. The decoder's own corners are tested beside it; here the close frame
//! must arrive, nothing may follow it, and the server must be no larger for what it was sent.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod support;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use tidegate::ws::Violation;
use tidegate::{CloseCode, CloseReason, Message};

use support::{
    Client, Clock, On, Program, Running, clock_route, demo_routes, frame, route, settings,
};

/// The reason under which all violations are counted.
const VIOLATION: CloseReason = CloseReason::Violation(Violation::Unmasked);

/// A frame header that announces `length` bytes in the 64-bit form, with a key of zeros.
fn header64(first: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![first, 0x80 | 127];
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes
}

/// Sends bytes on a fresh connection and checks the code it is closed with.
fn closes(running: &Running, bytes: &[u8], code: u16) {
    let mut client = Client::open(running.address, "/echo");
    client.send(bytes);
    assert_eq!(client.read_close(), Some(code), "{bytes:02x?}");
}

#[test]
fn messages_of_every_length_form_come_back_as_they_were() {
    let mut routes = demo_routes();
    routes[0].0.limits.message_bytes_max = 1 << 20;
    let mut settings = settings();
    settings.outbox.bytes_max = 4 << 20;
    let running = Running::start(settings, routes);
    let mut client = Client::open(running.address, "/echo");
    for length in [0, 1, 125, 126, 127, 65_535, 65_536, 300_000, 1 << 20] {
        let payload: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        client.send_frame(0x82, &payload);
        let echo = client.read_frame().unwrap();
        assert_eq!(echo.first, 0x82);
        assert!(echo.payload == payload, "length {length}");
    }
    client.echo("grüße 🌊");
    assert_eq!(client.close(1000), Some(1000));
}

#[test]
fn x32_frames_may_come_in_single_bytes_and_many_in_one_segment() {
    let running = Running::demo();
    let mut client = Client::open(running.address, "/echo");
    let texts = ["", "a", "größer", &"long ".repeat(60)];
    for text in texts {
        for byte in frame(0x81, text.as_bytes()) {
            client.send(&[byte]);
        }
        assert_eq!(client.read_text(), text);
    }
    let all: Vec<u8> = (0..5_000)
        .flat_map(|number| frame(0x81, format!("{number}").as_bytes()))
        .collect();
    client.send(&all);
    for number in 0..5_000 {
        assert_eq!(client.read_text(), format!("{number}"));
    }
}

#[test]
fn fragments_are_put_together_around_control_frames() {
    let running = Running::demo();
    let mut client = Client::open(running.address, "/echo");
    client.send_frame(0x01, "frag".as_bytes());
    client.send_frame(0x89, b"between");
    client.send_frame(0x00, b"");
    client.send_frame(0x8a, b"unasked for");
    // A character split between two fragments is one character (§8.1).
    client.send_frame(0x00, &"mentü".as_bytes()[..5]);
    client.send_frame(0x80, &"mentü".as_bytes()[5..]);
    let pong = client.read_frame().unwrap();
    assert_eq!((pong.first, &pong.payload[..]), (0x8a, &b"between"[..]));
    assert_eq!(client.read_text(), "fragmentü");
}

#[test]
fn a1_a_length_beyond_the_cap_is_refused_by_its_header() {
    let running = Running::demo();
    // Not one byte of the payload is sent.
    for exponent in 17..63 {
        closes(&running, &header64(0x82, 1 << exponent), 1009);
    }
    let cap = 64 * 1024;
    closes(&running, &header64(0x82, cap + 1), 1009);
    for length in [cap - 1, cap] {
        let mut client = Client::open(running.address, "/echo");
        client.send_frame(0x82, &vec![7; length as usize]);
        assert_eq!(client.read_frame().unwrap().payload.len() as u64, length);
    }
    // The cap is the whole message's, not the fragment's.
    let mut split = frame(0x02, &vec![7; cap as usize]);
    split.extend(frame(0x80, b"x"));
    closes(&running, &split, 1009);
}

#[test]
fn a1_announced_bytes_take_no_memory() {
    let program = Program::start(
        &["--listen", "127.0.0.1:0"],
        &[
            ("TIDEGATE_WEBSOCKET_MESSAGE_BYTES_MAX", "16MiB"),
            ("TIDEGATE_OUTBOX_BYTES_MAX", "64MiB"),
        ],
    );
    let mut clients: Vec<Client> = (0..100)
        .map(|_| Client::open(program.addresses[0], "/echo"))
        .collect();
    for client in &mut clients {
        client.echo("warm");
    }
    let before = program.resident_bytes();
    for client in &mut clients {
        client.send(&header64(0x82, 16 << 20));
        client.send(b"x");
    }
    // The last echo says that all before it has been read.
    let mut last = Client::open(program.addresses[0], "/echo");
    last.echo("read");
    let grown = program.resident_bytes().saturating_sub(before);
    assert!(
        grown < 100 * 16 * 1024,
        "{grown} bytes for 1.6 GB announced"
    );
}

#[test]
fn a2_a_length_with_its_top_bit_set_is_refused() {
    let running = Running::demo();
    for length in [1 << 63, (1 << 63) | 5, u64::MAX] {
        closes(&running, &header64(0x82, length), 1002);
    }
    // A length must have its shortest form (§5.2).
    closes(&running, &header64(0x82, 65_535), 1002);
    closes(&running, &[0x82, 0x80 | 126, 0, 125, 0, 0, 0, 0], 1002);
}

#[test]
fn a3_fragments_are_limited_at_minus_one_zero_and_plus_one() {
    let running = Running::demo();
    for count in [127, 128] {
        let mut client = Client::open(running.address, "/echo");
        client.send_frame(0x02, b"");
        for _ in 2..count {
            client.send_frame(0x00, b"");
        }
        client.send_frame(0x80, b"end");
        assert_eq!(client.read_frame().unwrap().payload, b"end");
    }
    let mut client = Client::open(running.address, "/echo");
    client.send_frame(0x02, b"");
    client.send(&frame(0x00, b"").repeat(128));
    assert_eq!(client.read_close(), Some(1008));
    drop(client);
    running.closed_when(&VIOLATION, 1);
}

#[test]
fn a3_a_million_empty_continuations_take_no_memory() {
    let program = Program::start(
        &["--listen", "127.0.0.1:0"],
        &[
            ("TIDEGATE_WEBSOCKET_FRAGMENTS_MAX", "1048576"),
            // Its history of figures grows by itself for a quarter of an hour.
            ("TIDEGATE_MONITOR_LISTEN", ""),
        ],
    );
    let mut client = Client::open(program.addresses[0], "/echo");
    client.echo("warm");
    client.send_frame(0x02, b"");
    let thousand = frame(0x00, b"").repeat(1_000);
    let send = |client: &mut Client| {
        for _ in 0..500 {
            client.send(&thousand);
        }
        client.send_frame(0x89, b"so far");
        assert_eq!(client.read_frame().unwrap().payload, b"so far");
    };
    send(&mut client);
    let half_way = program.resident_bytes();
    send(&mut client);
    let grown = program.resident_bytes().saturating_sub(half_way);
    assert!(grown < 64 * 1024, "{grown} bytes for 500,000 fragments");
    client.send_frame(0x80, b"end");
    assert_eq!(client.read_frame().unwrap().payload, b"end");
}

#[test]
fn a3_a_message_has_one_deadline_however_its_bytes_drip() {
    let mut settings = settings();
    settings.timeouts.message = 8 * tidegate::timer::TICK;
    settings.timeouts.close = 2 * tidegate::timer::TICK;
    let mut routes = demo_routes();
    routes.push(clock_route());
    let running = Running::start(settings, routes);
    let mut fragments = Client::open(running.address, "/echo");
    let mut bytes = Client::open(running.address, "/echo");
    let mut clock = Clock::open(running.address);
    fragments.send_frame(0x01, b"begun");
    bytes.send(&frame(0x82, b"twelve bytes")[..7]);
    for _ in 0..4 {
        clock.wait(1);
        fragments.send_frame(0x00, b"and");
        bytes.send(b"x");
    }
    assert_eq!(fragments.read_close(), Some(1008));
    assert_eq!(bytes.read_close(), Some(1008));
    drop((fragments, bytes));
    running.closed_when(&CloseReason::MessageTimeout, 2);
}

#[test]
fn messages_that_follow_each_other_without_a_gap_have_a_deadline_each() {
    let mut settings = settings();
    settings.timeouts.message = 20 * tidegate::timer::TICK;
    let mut routes = demo_routes();
    routes.push(clock_route());
    let running = Running::start(settings, routes);
    let mut client = Client::open(running.address, "/echo");
    let mut clock = Clock::open(running.address);
    client.send_frame(0x01, b"one ");
    for _ in 0..40 {
        clock.wait(1);
        // The end of a message and the beginning of the next, in one segment.
        let mut both = frame(0x80, b"message");
        both.extend(frame(0x01, b"one "));
        client.send(&both);
        assert_eq!(client.read_text(), "one message");
    }
}

/// One message, compressed as RFC 7692 §7.2.1 says.
fn deflated(payload: &[u8]) -> Vec<u8> {
    let mut compress = Compress::new(Compression::best(), false);
    let mut out = Vec::with_capacity(payload.len() + 64);
    compress
        .compress_vec(payload, &mut out, FlushCompress::Sync)
        .unwrap();
    assert!(out.ends_with(&[0, 0, 0xff, 0xff]));
    out.truncate(out.len() - 4);
    out
}

fn inflated(payload: &[u8]) -> Vec<u8> {
    let mut whole = payload.to_vec();
    whole.extend_from_slice(&[0, 0, 0xff, 0xff]);
    let mut out = Vec::with_capacity(1 << 20);
    Decompress::new(false)
        .decompress_vec(&whole, &mut out, FlushDecompress::Sync)
        .unwrap();
    out
}

/// A connection to `path` that offers these extensions, and the answer's head.
fn open_with(running: &Running, path: &str, extensions: &str) -> (Client, String) {
    let mut client = Client::connect(running.address);
    let line = format!("Sec-WebSocket-Extensions: {extensions}\r\n\r\n");
    let request = support::request(path);
    client.send(format!("{}{line}", &request[..request.len() - 2]).as_bytes());
    let head = client.read_head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    (client, head)
}

fn compressing() -> Running {
    let mut routes = demo_routes();
    routes[0].0.compression = true;
    Running::start(settings(), routes)
}

#[test]
fn compression_is_spoken_where_it_is_configured_and_offered() {
    let running = compressing();
    let (mut client, head) = open_with(
        &running,
        "/echo",
        "permessage-deflate; client_max_window_bits",
    );
    assert!(
        head.contains("\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n"),
        "{head}"
    );
    let text = "tide after tide ".repeat(200);
    for _ in 0..3 {
        client.send_frame(0xc1, &deflated(text.as_bytes()));
        let echo = client.read_frame().unwrap();
        assert_eq!(echo.first, 0xc1, "compressed, final, text");
        assert!(echo.payload.len() < text.len() / 10);
        assert_eq!(inflated(&echo.payload), text.as_bytes());
    }
    // Fragments of a compressed message carry RSV1 on the first only (RFC 7692 §6.1).
    let bytes = deflated(text.as_bytes());
    client.send_frame(0x41, &bytes[..5]);
    client.send_frame(0x89, b"");
    client.send_frame(0x80, &bytes[5..]);
    assert_eq!(client.read_frame().unwrap().first, 0x8a);
    assert_eq!(
        inflated(&client.read_frame().unwrap().payload),
        text.as_bytes()
    );
    // A message may go uncompressed all the same, and short ones come back so.
    client.echo("short");
    let (_, head) = open_with(&running, "/broadcast", "permessage-deflate");
    assert!(!head.contains("Sec-WebSocket-Extensions"), "{head}");
    let (_, head) = open_with(&running, "/echo", "x-webkit-deflate-frame");
    assert!(!head.contains("Sec-WebSocket-Extensions"), "{head}");
}

#[test]
fn a4_a_bomb_is_not_inflated_beyond_the_cap() {
    let running = compressing();
    let bomb = deflated(&vec![0; 32 << 20]);
    assert!(bomb.len() < 40_000, "it fits into a frame of the limit");
    for _ in 0..20 {
        let (mut client, _) = open_with(&running, "/echo", "permessage-deflate");
        client.send_frame(0xc2, &bomb);
        assert_eq!(client.read_close(), Some(1009));
    }
    let cap = 64 * 1024;
    for (length, code) in [(cap - 1, None), (cap, None), (cap + 1, Some(1009))] {
        let (mut client, _) = open_with(&running, "/echo", "permessage-deflate");
        client.send_frame(0xc2, &deflated(&vec![0; length]));
        match code {
            None => assert_eq!(
                inflated(&client.read_frame().unwrap().payload).len(),
                length
            ),
            Some(_) => assert_eq!(client.read_close(), code),
        }
    }
    running.closed_when(&VIOLATION, 21);
}

#[test]
fn a4_bombs_leave_the_server_as_small_as_it_was() {
    let program = Program::start(
        &["--listen", "127.0.0.1:0"],
        &[("TIDEGATE_WEBSOCKET_COMPRESSION", "true")],
    );
    let bomb = frame(0xc2, &deflated(&vec![0; 32 << 20]));
    let throw = || {
        let mut client = Client::connect(program.addresses[0]);
        let request = support::request("/echo");
        let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
        client.send(format!("{}{offer}", &request[..request.len() - 2]).as_bytes());
        client.read_head();
        client.send(&bomb);
        assert_eq!(client.read_close(), Some(1009));
    };
    (0..20).for_each(|_| throw());
    let before = program.resident_bytes();
    (0..200).for_each(|_| throw());
    let grown = program.resident_bytes().saturating_sub(before);
    assert!(grown < 2 << 20, "{grown} bytes after 200 bombs");
}

#[test]
fn a6_broken_or_unagreed_compression_is_refused() {
    let running = compressing();
    // Never negotiated.
    closes(&running, &frame(0xc1, &deflated(b"x")), 1002);
    let rows: [(Vec<u8>, u16); 6] = [
        (frame(0xc2, &[0xff; 40]), 1007),
        (frame(0xc2, &deflated(b"cut short")[..3]), 1007),
        (frame(0xc1, &deflated(b"\xff\xfe")), 1007),
        // RSV1 on a control frame and on a continuation; RSV2.
        (frame(0xc9, b""), 1002),
        ([frame(0x02, b"a"), frame(0xc0, b"b")].concat(), 1002),
        (frame(0xa2, b""), 1002),
    ];
    for (bytes, code) in rows {
        let (mut client, _) = open_with(&running, "/echo", "permessage-deflate");
        client.send(&bytes);
        assert_eq!(client.read_close(), Some(code), "{bytes:02x?}");
    }
}

#[test]
fn a9_a_close_frame_is_answered_by_its_own_code_or_by_1002() {
    let running = Running::demo();
    let long = [&1000u16.to_be_bytes()[..], &[b'x'; 123]].concat();
    let utf8 = [&1000u16.to_be_bytes()[..], b"\xce\xba\xe1"].concat();
    let mut rows: Vec<(Vec<u8>, Option<u16>)> = vec![
        (vec![], None),
        (vec![3], Some(1002)),
        (long.clone(), Some(1000)),
        (utf8, Some(1007)),
    ];
    for code in [
        1000, 1001, 1003, 1007, 1011, 1012, 1013, 3000, 3999, 4000, 4999,
    ] {
        rows.push((u16::to_be_bytes(code).into(), Some(code)));
    }
    for code in [
        0, 999, 1004, 1005, 1006, 1014, 1015, 1016, 2999, 5000, 65_535,
    ] {
        rows.push((u16::to_be_bytes(code).into(), Some(1002)));
    }
    let count = rows.len() as u64;
    for (payload, code) in rows {
        let mut client = Client::open(running.address, "/echo");
        // What follows a close frame is not looked at.
        client.send(&[frame(0x88, &payload), frame(0x81, b"late")].concat());
        assert_eq!(client.read_close(), code, "{payload:02x?}");
    }
    // 126 bytes do not fit into a control frame.
    closes(&running, &frame(0x88, &[&long[..], b"y"].concat()), 1002);
    running.counters_when("all are counted", |counters| {
        counters.closed_total() == count + 1
            && counters.closed_by(&VIOLATION) == 14
            && counters.messages_received == 0
    });
}

#[test]
fn what_was_sent_before_a_close_frame_is_answered_before_it() {
    let running = Running::demo();
    let mut client = Client::open(running.address, "/echo");
    let mut bytes: Vec<u8> = (0..100)
        .flat_map(|number| frame(0x81, format!("{number}").as_bytes()))
        .collect();
    bytes.extend(frame(0x88, &4321u16.to_be_bytes()));
    client.send(&bytes);
    for number in 0..100 {
        assert_eq!(client.read_text(), format!("{number}"));
    }
    assert_eq!(client.read_close(), Some(4321));
    running.closed_when(&CloseReason::PeerClosed, 1);
}

#[test]
fn the_server_closes_with_the_handlers_code_and_reason() {
    let on = On {
        message: |peer, message| {
            let Message::Text(text) = message else { return };
            let (code, reason) = text.split_once(' ').unwrap();
            peer.send("before");
            peer.close(CloseCode::from(code.parse::<u16>().unwrap()), reason);
            peer.send("after");
            peer.close(CloseCode::Normal, "the first close counts");
        },
        ..On::default()
    };
    let running = Running::start(settings(), vec![route("/close", on)]);
    let long = "r".repeat(200);
    for (code, reason) in [(1000, "done"), (1012, ""), (4999, &long[..])] {
        let mut client = Client::open(running.address, "/close");
        client.send_text(&format!("{code} {reason}"));
        // Pipelined behind: the callback is not called for it any more.
        client.send_text("1000 too late");
        assert_eq!(client.read_text(), "before");
        let close = client.read_frame().unwrap();
        assert_eq!(close.close_code(), Some(code));
        assert_eq!(
            &close.payload[2..],
            &reason.as_bytes()[..reason.len().min(123)]
        );
        // The stream stays up until our close frame (§7.1.1), and ends at once then.
        client.send_frame(0x81, b"crossed the close frame");
        client.send_frame(0x88, &u16::to_be_bytes(code));
        assert_eq!(client.read_frame(), None);
    }
    running.closed_when(&CloseReason::Handler, 3);
}

#[test]
fn a_close_frame_that_is_not_answered_is_not_waited_for_long() {
    let on = On {
        open: |peer| peer.close(CloseCode::Normal, ""),
        ..On::default()
    };
    let mut settings = settings();
    settings.timeouts.close = 2 * tidegate::timer::TICK;
    let running = Running::start(settings, vec![route("/close", on)]);
    let mut client = Client::open(running.address, "/close");
    assert_eq!(client.read_close(), Some(1000));
    running.closed_when(&CloseReason::Handler, 1);
}

#[test]
fn a12_what_the_protocol_does_not_allow_is_a_1002_at_once() {
    let running = Running::demo();
    let mut rows: Vec<Vec<u8>> = vec![
        // Unmasked, in every length form.
        vec![0x81, 0x01, b'x'],
        vec![0x81, 126, 0, 126],
        vec![0x89, 0x00],
        // Control frames: fragmented, and too long by their header alone.
        frame(0x09, b""),
        frame(0x08, b""),
        vec![0x89, 0x80 | 126, 0, 126],
        vec![0x8a, 0x80 | 127, 0, 0, 0, 0, 0, 1, 0, 0],
        // Fragments out of order.
        frame(0x80, b"x"),
        frame(0x00, b"x"),
        [frame(0x01, b"a"), frame(0x01, b"b")].concat(),
        [frame(0x01, b"a"), frame(0x82, b"b")].concat(),
        [frame(0x01, b"a"), frame(0x80, b"b"), frame(0x80, b"c")].concat(),
    ];
    // Reserved opcodes and bits; the length is not waited for.
    for opcode in (3..=7).chain(11..=15) {
        rows.push(vec![0x80 | opcode, 0xff]);
    }
    for bits in 1..8 {
        rows.push(vec![0x81 | bits << 4, 0x80]);
    }
    let count = rows.len() as u64;
    for (at, bytes) in rows.into_iter().enumerate() {
        let mut client = Client::open(running.address, "/echo");
        // Whatever was right before is answered before.
        client.send(&[frame(0x81, b"fine"), bytes.clone()].concat());
        if at != 11 {
            assert_eq!(client.read_text(), "fine", "{bytes:02x?}");
            assert_eq!(client.read_close(), Some(1002), "{bytes:02x?}");
        } else {
            assert_eq!(
                (client.read_text(), client.read_text()),
                ("fine".into(), "ab".into())
            );
            assert_eq!(client.read_close(), Some(1002));
        }
    }
    running.closed_when(&VIOLATION, count);
}

#[test]
fn a13_text_fails_at_its_first_bad_byte() {
    let running = Running::demo();
    // Autobahn's 6.4: "κόσμε", then what no UTF-8 has, then a tail that never comes.
    let bad = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80\x65";
    for split in 0..=bad.len() {
        let mut whole = Client::open(running.address, "/echo");
        let fragments = [frame(0x01, &bad[..split]), frame(0x80, &bad[split..])].concat();
        whole.send(&fragments);
        assert_eq!(whole.read_close(), Some(1007), "split at {split}");
    }
    // The same within one frame that is never finished: the bad byte is not waited past.
    let mut client = Client::open(running.address, "/echo");
    let unfinished = frame(0x81, &[&bad[..], &[b'x'; 100]].concat());
    client.send(&unfinished[..6 + 13]);
    assert_eq!(client.read_close(), Some(1007));
    for bad in [
        &b"\xc0\xaf"[..],
        b"\xed\xa0\x80",
        b"\xff",
        b"\xf8\x88\x80\x80\x80",
        b"\xe2\x82",
    ] {
        closes(&running, &frame(0x81, bad), 1007);
    }
}

#[test]
fn a10_a_flood_of_pings_unread_leaves_a_handful_of_pongs_waiting() {
    let running = Running::demo();
    let mut client = Client::open(running.address, "/echo");
    let mut writer = Client::over(client.stream.try_clone().unwrap());
    let flood = std::thread::spawn(move || {
        let thousand = frame(0x89, &[b'p'; 125]).repeat(1_000);
        for _ in 0..1_000 {
            writer.send(&thousand);
        }
        writer.send_frame(0x89, b"newest");
    });
    // Either the kernel has room for all the pongs, or the server stops reading.
    let most = std::cell::Cell::new(0);
    running.counters_when("the flood is over or held up", |counters| {
        most.set(most.get().max(counters.outbox_bytes));
        flood.is_finished() || counters.reading_paused > 0
    });
    assert!(most.get() < 16 * 1024, "{} bytes wait", most.get());
    // Whatever was passed over, the newest is answered, and the connection is sound.
    let mut pongs = 0;
    loop {
        let pong = client.read_frame().unwrap();
        assert_eq!(pong.first, 0x8a);
        pongs += 1;
        if pong.payload == b"newest" {
            break;
        }
    }
    flood.join().unwrap();
    client.echo("sound");
    drop(client);
    assert_eq!(running.stop().pings_skipped + pongs, 1_000_001);
}

#[test]
fn a10_nothing_follows_the_close_frame_not_even_a_pong() {
    let running = Running::demo();
    let pings: Vec<u8> = (0..40u8)
        .flat_map(|number| frame(0x89, &[number]))
        .collect();
    for (last, code) in [
        (vec![0x83, 0x80], 1002),
        (frame(0x88, &1000u16.to_be_bytes()), 1000),
    ] {
        let mut client = Client::open(running.address, "/echo");
        client.send(&[&pings[..], &last].concat());
        let mut newest = None;
        let close = loop {
            let frame = client.read_frame().unwrap();
            match frame.first {
                0x8a => newest = Some(frame.payload),
                _ => break frame.close_code(),
            }
        };
        assert_eq!(close, Some(code));
        assert_eq!(client.read_frame(), None, "nothing follows a close frame");
        assert_eq!(newest, Some(vec![39]), "the newest ping is answered");
    }
    // The same when the handler closes between the pings.
    let on = On {
        message: |peer, _| peer.close(CloseCode::Normal, ""),
        ..On::default()
    };
    let running = Running::start(settings(), vec![route("/close", on)]);
    let mut client = Client::open(running.address, "/close");
    client.send(&[&pings[..], &frame(0x81, b"close")].concat());
    while client.read_frame().unwrap().first == 0x8a {}
    client.send_frame(0x88, &1000u16.to_be_bytes());
    assert_eq!(client.read_frame(), None, "nothing follows a close frame");
}

#[test]
fn a11_a_peer_that_never_reads_is_not_read_from_and_costs_no_more_than_the_cap() {
    let mut settings = settings();
    settings.timeouts.write = 10 * tidegate::timer::TICK;
    settings.timeouts.close = 2 * tidegate::timer::TICK;
    let running = Running::start(settings, demo_routes());
    let mut client = Client::open(running.address, "/echo");
    let message = frame(0x82, &vec![1; 60_000]);
    // The write blocks for good once the server stops reading; then the write deadline ends it.
    let mut sent = 0;
    while client.try_send(&message) {
        sent += 1;
        assert!(sent < 2_000, "the server reads without end");
        let waiting = running.handle.counters().outbox_bytes;
        assert!(waiting <= 1 << 20, "{waiting} bytes wait");
    }
    let counters = running.closed_when(&CloseReason::WriteTimeout, 1);
    assert_eq!((counters.reading_paused, counters.outbox_bytes), (1, 0));
}
