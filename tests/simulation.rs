//! Whole connections in memory: a socket that reads short, writes short and blocks as it pleases, a
//! clock that jumps, and a client that sends whatever the protocol allows. No thread, no port, no
//! waiting; every run follows from its seed, and a failure prints it. Every other seed speaks TLS, whose
//! keys are the only thing that its seed does not settle.
//!
//! `SIMULATION_SEED=n` runs one seed; `SIMULATION_RUNS=n` runs seeds 0 to n.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;

use tidegate::admission;
use tidegate::conn::{
    AtLimit, Connection, Context, Deadlines, Gate, Handler, Identity, Pass, Peer, Phase, Policy,
    Speaks, outbox,
};
use tidegate::hub::{self, Home, Hub};
use tidegate::reactor::transport::{Readiness, Scratch, Socket, Transport};
use tidegate::tls::Acceptor;
use tidegate::{CloseReason, ConnectionId, Message, Route, http};

#[path = "support/tls_client.rs"]
#[allow(unreachable_pub, reason = "it is part of tests/support too")]
mod tls_client;

/// SplitMix64: small, and good enough to be unfair in every way.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

/// The two directions of a stream, and what the kernel feels like.
#[derive(Default)]
struct Stream {
    to_server: VecDeque<u8>,
    from_server: Vec<u8>,
    client_has_finished: bool,
    server_has_finished: bool,
    /// Bytes the socket takes before it blocks.
    window: usize,
    is_reset: bool,
    moods: u64,
}

#[derive(Clone)]
struct Pipe(Rc<RefCell<Stream>>);

impl Pipe {
    /// How much of `wanted` goes through this time: everything, some, or one byte.
    fn mood(stream: &mut Stream, wanted: usize) -> usize {
        let mut random = Random(stream.moods);
        stream.moods = random.next();
        match random.below(4) {
            0 => 1.min(wanted),
            1 => random.below(wanted) + 1,
            _ => wanted,
        }
        .min(wanted)
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stream = &mut *self.0.borrow_mut();
        if stream.is_reset {
            return Err(ErrorKind::ConnectionReset.into());
        }
        if stream.to_server.is_empty() {
            return if stream.client_has_finished {
                Ok(0)
            } else {
                Err(ErrorKind::WouldBlock.into())
            };
        }
        let wanted = buffer.len().min(stream.to_server.len());
        let count = Self::mood(stream, wanted);
        for (to, from) in buffer.iter_mut().zip(stream.to_server.drain(..count)) {
            *to = from;
        }
        Ok(count)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        let stream = &mut *self.0.borrow_mut();
        assert!(
            !stream.server_has_finished,
            "wrote after the end of the stream"
        );
        if stream.is_reset {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if stream.window == 0 && !bytes.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let wanted = bytes.len().min(stream.window);
        let count = Self::mood(stream, wanted);
        stream.window -= count;
        stream.from_server.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket for Pipe {
    fn shut_write(&self) -> io::Result<()> {
        self.0.borrow_mut().server_has_finished = true;
        Ok(())
    }
}

/// The client's end of the stream: plaintext in and out, as it is or over TLS.
struct ClientSide {
    stream: Rc<RefCell<Stream>>,
    tls: Option<rustls::ClientConnection>,
    /// What the server said.
    heard: Vec<u8>,
}

impl ClientSide {
    fn say(&mut self, bytes: &[u8]) {
        match &mut self.tls {
            None => self.stream.borrow_mut().to_server.extend(bytes),
            Some(tls) => tls.writer().write_all(bytes).unwrap(),
        }
    }

    /// Moves what TLS has to send, and takes what has come.
    fn listen(&mut self) {
        let stream = &mut *self.stream.borrow_mut();
        let Some(tls) = &mut self.tls else {
            self.heard.append(&mut stream.from_server);
            return;
        };
        let arrived = std::mem::take(&mut stream.from_server);
        let mut rest = &arrived[..];
        while !rest.is_empty() && tls.read_tls(&mut rest).unwrap() > 0 {
            tls.process_new_packets().unwrap();
            // At the end, with or without close_notify, there is nothing more to read.
            let _ = tls.reader().read_to_end(&mut self.heard);
        }
        while tls.wants_write() {
            tls.write_tls(&mut stream.to_server).unwrap();
        }
    }

    fn finish(&mut self, is_polite: bool) {
        if let Some(tls) = &mut self.tls
            && is_polite
        {
            tls.send_close_notify();
        }
        self.listen();
        self.stream.borrow_mut().client_has_finished = true;
    }
}

/// Echoes, and keeps a log of its callbacks.
#[derive(Default)]
struct Logger {
    log: Rc<RefCell<Vec<&'static str>>>,
}

impl Handler for Logger {
    fn open(&mut self, peer: &mut Peer<'_>) {
        self.log.borrow_mut().push("open");
        peer.set_timer(std::time::Duration::from_secs(3));
    }

    fn message(&mut self, peer: &mut Peer<'_>, message: Message<'_>) {
        self.log.borrow_mut().push("message");
        peer.send(message);
    }

    fn timer(&mut self, _peer: &mut Peer<'_>) {
        self.log.borrow_mut().push("timer");
    }

    fn close(&mut self, peer: &mut Peer<'_>, _reason: &CloseReason) {
        self.log.borrow_mut().push("close");
        // All of these must be without effect on a connection that has ended.
        peer.send("too late");
        peer.join(&tidegate::Channel::new("too-late").unwrap());
    }
}

/// An opcode and a payload.
type Frame = (u8, Vec<u8>);

/// A frame as a client sends it.
fn frame(random: &mut Random, first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    let key = (random.next() as u32).to_be_bytes();
    bytes.extend_from_slice(&key);
    bytes.extend(
        payload
            .iter()
            .zip(key.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    bytes
}

/// What the server sent, taken apart: whole messages, and the close code if there was one.
fn parse(mut bytes: &[u8]) -> (Vec<Frame>, Option<u16>, bool) {
    let mut frames = Vec::new();
    let mut close = None;
    loop {
        if bytes.len() < 2 {
            return (frames, close, bytes.is_empty());
        }
        let (opcode, short) = (bytes[0] & 0x0f, bytes[1] as usize);
        assert!(
            bytes[0] & 0xf0 == 0x80 && short < 128,
            "final, unmasked, no reserved bits"
        );
        let (length, head) = match short {
            126 if bytes.len() >= 4 => (u16::from_be_bytes([bytes[2], bytes[3]]) as usize, 4),
            127 if bytes.len() >= 10 => (
                u64::from_be_bytes(bytes[2..10].try_into().unwrap()) as usize,
                10,
            ),
            126 | 127 => return (frames, close, false),
            short => (short, 2),
        };
        if bytes.len() < head + length {
            return (frames, close, false);
        }
        assert!(close.is_none(), "a frame followed the close frame");
        let payload = &bytes[head..head + length];
        if opcode == 8 {
            close = Some(
                payload
                    .get(..2)
                    .map_or(1005, |code| u16::from_be_bytes([code[0], code[1]])),
            );
        } else {
            frames.push((opcode, payload.to_vec()));
        }
        bytes = &bytes[head + length..];
    }
}

const REQUEST: &[u8] = b"GET /echo HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// What became of a run.
#[derive(Debug, Default)]
struct Outcome {
    reason: Option<String>,
    messages: usize,
}

fn run(seed: u64, acceptor: &Acceptor, trust: &Arc<rustls::ClientConfig>) -> Outcome {
    let random = &mut Random(seed);
    let is_tls = seed % 2 == 1;
    let limits = outbox::Limits {
        bytes_high_water: 2_000,
        bytes_max: 300_000,
        at_limit: AtLimit::Close,
    };
    let policy = Policy {
        http: http::head::Limits::default(),
        routes: vec![Route::open("/echo")],
        admission: admission::Policy::default(),
        requests: http::exchange::Limits::default(),
        outbox: limits,
        deadlines: Deadlines::default(),
    };
    let home = Home {
        hasher: ahash::RandomState::with_seeds(1, 2, 3, 4),
        reactors: 1,
        me: 0,
    };
    let log = Rc::new(RefCell::new(Vec::new()));
    let handler = Logger {
        log: Rc::clone(&log),
    };
    let hub = Hub::new(home, hub::Limits::default());
    let mut cx = Context::new(
        Rc::new(policy),
        Gate::new(16, None),
        hub,
        vec![Box::new(handler)],
        seed,
    );
    cx.services.counters.accepted = 1;
    let stream = Rc::new(RefCell::new(Stream {
        moods: seed ^ 0xabcd,
        ..Stream::default()
    }));
    let session = is_tls.then(|| Box::new(acceptor.session().unwrap()));
    let mut transport = Transport::new(Pipe(Rc::clone(&stream)), session);
    let mut client = ClientSide {
        stream: Rc::clone(&stream),
        tls: is_tls.then(|| {
            let mut tls = tls_client::session(trust);
            tls.set_buffer_limit(None);
            tls
        }),
        heard: Vec::new(),
    };
    let address: SocketAddr = "192.0.2.1:5".parse().unwrap();
    let identity = Identity::new(ConnectionId::new(0, 7, 1), address);
    let speaks = Speaks {
        tls: is_tls,
        ..Speaks::default()
    };
    let pass = Pass::ask(address, speaks, &mut cx.services).unwrap();
    let mut connection = Connection::new(identity, pass, &cx.services);
    let mut scratch = Scratch::default();

    // The client's script: bytes in pieces, and the echoes it must get back.
    let mut script: VecDeque<u8> = REQUEST.iter().copied().collect();
    let mut expected: Vec<Frame> = Vec::new();
    let mut pings = 0;
    let mut queued_close = false;
    let mut request_is_answered = false;
    let mut broken = false;
    let mut steps = 0;
    while !matches!(connection.phase(), Phase::Closed(_)) {
        steps += 1;
        assert!(steps < 20_000, "the connection does not end");
        // The client reads and writes.
        client.listen();
        if !request_is_answered {
            let mut fours = client.heard.windows(4);
            let end = fours.position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                let head: Vec<u8> = client.heard.drain(..end + 4).collect();
                let head = String::from_utf8_lossy(&head);
                // A client that the network held up for too long is told so.
                assert!(
                    head.starts_with("HTTP/1.1 101 ") || head.starts_with("HTTP/1.1 408 "),
                    "{head}"
                );
                request_is_answered = head.starts_with("HTTP/1.1 101 ");
            }
        } else if !queued_close && script.len() < 200_000 {
            match random.below(12) {
                0 if steps > 40 => {
                    let code = 1000u16.to_be_bytes();
                    script.extend(frame(random, 0x88, &code));
                    queued_close = true;
                }
                1 => {
                    let length = random.below(126);
                    let payload = random.bytes(length);
                    script.extend(frame(random, 0x89, &payload));
                    pings += 1;
                }
                2 => {
                    // A message in fragments, a ping between them.
                    let pieces = random.below(5) + 2;
                    let mut whole = Vec::new();
                    for piece in 0..pieces {
                        let length = random.below(300);
                        let payload = random.bytes(length);
                        let opcode = if piece == 0 { 2 } else { 0 };
                        let last = if piece + 1 == pieces { 0x80 } else { 0 };
                        script.extend(frame(random, last | opcode, &payload));
                        whole.extend(payload);
                        if random.chance(20) {
                            script.extend(frame(random, 0x89, b"between"));
                            pings += 1;
                        }
                    }
                    expected.push((2, whole));
                }
                3 if random.chance(5) => {
                    script.extend([0xff, 0xff]);
                    (queued_close, broken) = (true, true);
                }
                4 => {
                    let length = random.below(60_000);
                    let payload = random.bytes(length);
                    script.extend(frame(random, 0x82, &payload));
                    expected.push((2, payload));
                }
                5 => {
                    let text = "ä€𝄞x".repeat(random.below(60));
                    script.extend(frame(random, 0x81, text.as_bytes()));
                    expected.push((1, text.into_bytes()));
                }
                _ => {}
            }
        }
        let count = random.below(script.len().min(70_000) + 1);
        let said: Vec<u8> = script.drain(..count).collect();
        client.say(&said);
        client.listen();
        // The network lets some bytes through, or none for a long time; the client may vanish.
        if random.chance(70) {
            stream.borrow_mut().window += random.below(50_000);
        }
        if random.chance(1) && random.chance(20) {
            stream.borrow_mut().is_reset = true;
        }
        if queued_close && script.is_empty() && random.chance(10) {
            let is_polite = random.chance(50);
            client.finish(is_polite);
        }
        // Time goes by.
        if random.chance(10) {
            cx.services.now += random.below(60) as u32;
        }
        // The reactor's turn, as `Reactor::serve` takes it.
        if connection.outbox().is_some() {
            transport.flush(&mut connection, &mut scratch, &mut cx);
        }
        loop {
            if connection.is_reading_paused() || matches!(connection.phase(), Phase::Closed(_)) {
                break;
            }
            let finished = stream.borrow().client_has_finished;
            let readiness = transport.read(&mut connection, &mut scratch, &mut cx, finished);
            transport.flush(&mut connection, &mut scratch, &mut cx);
            // The pipe reads short although more is there, which a real socket announces again.
            if readiness == Readiness::Drained && stream.borrow().to_server.is_empty() {
                break;
            }
        }
        if cx.services.now >= connection.deadline(&cx.services) {
            connection.expire(&mut cx);
            transport.flush(&mut connection, &mut scratch, &mut cx);
        }
        assert!(
            cx.services.output.is_empty(),
            "output left behind for the next connection"
        );
        if let Some(outbox) = connection.outbox() {
            assert!(!outbox.is_empty(), "an empty outbox was kept");
        }
    }

    let Phase::Closed(reason) = connection.phase() else {
        unreachable!()
    };
    client.listen();
    let (frames, close, is_whole) = if request_is_answered {
        parse(&client.heard)
    } else {
        (Vec::new(), None, true)
    };
    let echoes: Vec<_> = frames
        .iter()
        .filter(|(opcode, _)| *opcode <= 2)
        .cloned()
        .collect();
    assert!(
        echoes.len() <= expected.len() && echoes == expected[..echoes.len()],
        "the echoes are the messages, in their order"
    );
    let pongs = frames.iter().filter(|(opcode, _)| *opcode == 10).count();
    assert!(pongs <= pings, "{pongs} pongs for {pings} pings");
    match &**reason {
        // The peer closed, but our last bytes did not reach it: it stopped reading, or vanished.
        CloseReason::PeerClosed if connection.outbox().is_some() || stream.borrow().is_reset => {}
        CloseReason::PeerClosed => {
            assert_eq!(close, Some(1000));
            assert!(
                is_whole && echoes.len() == expected.len(),
                "nothing was lost on a clean end"
            );
        }
        CloseReason::Violation(_) => {
            assert!(broken);
            assert!(close.is_none_or(|code| code == 1002), "{close:?}");
        }
        // The timer of the script can run into any of these; a reset too.
        CloseReason::Io
        | CloseReason::PeerGone
        | CloseReason::TlsTimeout
        | CloseReason::HeadTimeout
        | CloseReason::MessageTimeout
        | CloseReason::PongTimeout
        | CloseReason::WriteTimeout
        | CloseReason::OutboxFull => {}
        other => panic!("unexpected reason: {other}"),
    }
    // The balance sheet, and every resource given back.
    let counters = &cx.services.counters;
    assert_eq!(
        counters.accepted,
        counters.active() + counters.closed_total()
    );
    assert_eq!(counters.active(), 0);
    let log = log.borrow();
    let count = |what| log.iter().filter(|entry| **entry == what).count();
    assert_eq!(
        (count("open"), count("close")),
        (usize::from(counters.opened == 1), count("open"))
    );
    assert!(log.last().is_none_or(|last| *last == "close"), "{log:?}");
    assert_eq!(counters.messages_received as usize, count("message"));
    assert_eq!(cx.services.hub.table.channels(), 0);
    Outcome {
        reason: Some(reason.label().to_owned()),
        messages: echoes.len(),
    }
}

#[test]
fn x32_connections_survive_every_mood_of_the_network() {
    let acceptor = Acceptor::self_signed(&["localhost".to_owned()]).unwrap();
    let trust = tls_client::trusting(&acceptor);
    if let Ok(seed) = std::env::var("SIMULATION_SEED") {
        println!("{:?}", run(seed.parse().unwrap(), &acceptor, &trust));
        return;
    }
    let runs = std::env::var("SIMULATION_RUNS").map_or(400, |runs| runs.parse().unwrap());
    let mut reasons = std::collections::BTreeMap::new();
    let mut messages = 0;
    for seed in 0..runs {
        let run = AssertUnwindSafe(|| run(seed, &acceptor, &trust));
        let outcome = std::panic::catch_unwind(run).unwrap_or_else(|_| {
            panic!("failed with SIMULATION_SEED={seed}");
        });
        *reasons.entry(outcome.reason.unwrap()).or_insert(0) += 1;
        messages += outcome.messages;
    }
    println!("{messages} messages; {reasons:?}");
    assert!(
        reasons.contains_key("peer_closed") && reasons.contains_key("violation"),
        "{reasons:?}"
    );
}
