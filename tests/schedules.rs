//! Schedules that a connection has to survive: each is a few events at chosen times, on a pipe that
//! blocks when told to and on a virtual clock. What chance finds is the simulation's business.

#![allow(missing_docs, clippy::cast_possible_truncation, clippy::unwrap_used)]

mod support;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::rc::Rc;

use bytes::Bytes;
use tidegate::admission;
use tidegate::conn::{
    AtLimit, Connection, Context, Deadlines, Gate, Handler, Identity, Lane, Offer, Pass, Peer,
    Phase, Policy, Speaks, outbox,
};
use tidegate::hub::delivery::Framed;
use tidegate::hub::{self, Home, Hub, Slow};
use tidegate::reactor::transport::{Scratch, Socket, Transport};
use tidegate::timer::LATEST;
use tidegate::{CloseCode, CloseReason, ConnectionId, Message, Route, http};

use support::{Client, Running, frame};

/// Both directions of a stream; it takes `window` bytes before it blocks, unless it is broken.
#[derive(Default)]
struct Stream {
    to_server: VecDeque<u8>,
    from_server: Vec<u8>,
    window: usize,
    is_broken: bool,
    writes: usize,
}

#[derive(Clone, Default)]
struct Pipe(Rc<RefCell<Stream>>);

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let waiting = &mut self.0.borrow_mut().to_server;
        if waiting.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        waiting.read(buffer)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let stream = &mut *self.0.borrow_mut();
        stream.writes += 1;
        if stream.is_broken {
            return Err(ErrorKind::ConnectionReset.into());
        }
        if stream.window == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let bytes = slices.iter().flat_map(|slice| slice.iter().copied());
        let before = stream.from_server.len();
        stream.from_server.extend(bytes.take(stream.window));
        let written = stream.from_server.len() - before;
        stream.window -= written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket for Pipe {
    fn shut_write(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Answers "close" with a close frame, and anything else with as many bytes as it says.
struct Obedient;

impl Handler for Obedient {
    fn message(&mut self, peer: &mut Peer<'_>, message: Message<'_>) {
        let text = std::str::from_utf8(message.as_bytes()).unwrap();
        match text.parse() {
            Ok(length) => {
                peer.send(vec![0; length]);
            }
            Err(_) if text == "close" => peer.close(CloseCode::Normal, ""),
            Err(_) => {}
        }
    }
}

/// An open connection, and all that serves it.
struct Rig {
    connection: Connection,
    transport: Transport<Pipe>,
    pipe: Pipe,
    scratch: Scratch,
    cx: Context,
}

impl Rig {
    fn open(at_limit: AtLimit, deadlines: Deadlines) -> Self {
        let policy = Policy {
            http: http::head::Limits::default(),
            routes: vec![Route::open("/")],
            admission: admission::Policy::default(),
            requests: http::exchange::Limits::default(),
            outbox: outbox::Limits {
                at_limit,
                ..outbox::Limits::default()
            },
            deadlines,
        };
        let home = Home {
            hasher: ahash::RandomState::with_seeds(1, 2, 3, 4),
            reactors: 1,
            me: 0,
        };
        let hub = Hub::new(home, hub::Limits::default());
        let mut cx = Context::new(
            Rc::new(policy),
            Gate::new(16, None),
            hub,
            vec![Box::new(Obedient)],
            7,
        );
        cx.services.now = 3;
        let pipe = Pipe::default();
        pipe.0.borrow_mut().window = usize::MAX;
        let identity = Identity::new(ConnectionId::new(0, 1, 1), ([192, 0, 2, 1], 5).into());
        let pass = Pass::ask(identity.address(), Speaks::default(), &mut cx.services).unwrap();
        let mut rig = Self {
            connection: Connection::new(identity, pass, &cx.services),
            transport: Transport::new(pipe.clone(), None),
            pipe,
            scratch: Scratch::default(),
            cx,
        };
        rig.receive(support::request("/").as_bytes());
        assert!(rig.connection.is_open());
        rig.take();
        rig
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.pipe.0.borrow_mut().to_server.extend(bytes);
        self.serve();
    }

    /// What the reactor does when an event has come.
    fn serve(&mut self) {
        let (connection, scratch, cx) = (&mut self.connection, &mut self.scratch, &mut self.cx);
        if connection.outbox().is_some() {
            self.transport.flush(connection, scratch, cx);
        }
        if !connection.is_reading_paused() {
            self.transport.read(connection, scratch, cx, false);
            self.transport.flush(connection, scratch, cx);
        }
    }

    fn deliver(&mut self, batches: &[Bytes]) -> bool {
        let offer = |bytes: &Bytes| Offer {
            frames: Framed {
                bytes: bytes.clone(),
                last: 0,
            },
            messages: 1,
        };
        let offers: Vec<_> = batches.iter().map(offer).collect();
        let lane = Lane {
            tag: 1,
            slow: Slow::AsOutbox,
        };
        let (connection, scratch, cx) = (&mut self.connection, &mut self.scratch, &mut self.cx);
        let taken = (self.transport).deliver(&offers, lane, connection, scratch, cx);
        taken.batches == batches.len()
    }

    /// Lets the clock tick, and what is due happen.
    fn tick(&mut self) {
        self.cx.services.now += 1;
        if self.cx.services.now >= self.connection.deadline(&self.cx.services) {
            self.connection.expire(&mut self.cx);
            let (connection, scratch) = (&mut self.connection, &mut self.scratch);
            self.transport.flush(connection, scratch, &mut self.cx);
        }
    }

    /// What the server has sent since the last call.
    fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.pipe.0.borrow_mut().from_server)
    }
}

#[test]
fn x39_a_flight_of_many_batches_leaves_while_the_socket_takes_it() {
    // More than one vectored write can carry.
    for count in [1, 63, 64, 65, 128, 129, 1000] {
        let mut rig = Rig::open(AtLimit::Close, Deadlines::default());
        assert!(rig.deliver(&vec![Bytes::from_static(b"\x81\x01x"); count]));
        assert_eq!(rig.take(), b"\x81\x01x".repeat(count));
        assert!(
            rig.connection.outbox().is_none(),
            "no event would come for what waits"
        );
    }
}

#[test]
fn x40_a_skipped_frame_leaves_no_outbox_behind() {
    let mut rig = Rig::open(AtLimit::Skip, Deadlines::default());
    rig.pipe.0.borrow_mut().window = 0;
    assert!(!rig.deliver(&[Bytes::from(vec![0; 2 << 20])]));
    assert!(rig.connection.is_open() && rig.connection.outbox().is_none());
}

#[test]
fn large_messages_cost_one_write_each_and_a_socket_that_refuses_is_not_asked_again() {
    let mut rig = Rig::open(AtLimit::Close, Deadlines::default());
    let writes = |rig: &Rig| std::mem::take(&mut rig.pipe.0.borrow_mut().writes);
    writes(&rig);
    // The small answers in front go with the large one behind them; what follows has the usual write.
    let script = [
        frame(0x81, b"3"),
        frame(0x81, b"20000"),
        frame(0x81, b"5"),
        frame(0x81, b"70000"),
        frame(0x81, b"7"),
    ];
    rig.receive(&script.concat());
    assert_eq!(writes(&rig), 3);
    let lengths = |bytes: &[u8]| parse(bytes).iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(lengths(&rig.take()), [3, 20_000, 5, 70_000, 7]);

    // Refused in part: what follows waits behind it, and the socket has said what it has to say.
    rig.pipe.0.borrow_mut().window = 30_000;
    rig.receive(&script.concat());
    assert_eq!(writes(&rig), 2);
    assert!(rig.connection.is_reading_paused());
    rig.pipe.0.borrow_mut().window = usize::MAX;
    rig.serve();
    assert_eq!(writes(&rig), 1);
    assert_eq!(lengths(&rig.take()), [3, 20_000, 5, 70_000, 7]);
    assert!(rig.connection.outbox().is_none());
}

#[test]
fn a_socket_that_fails_under_a_large_message_ends_the_connection_once() {
    let mut rig = Rig::open(AtLimit::Close, Deadlines::default());
    rig.cx.services.counters.accepted = 1;
    rig.pipe.0.borrow_mut().is_broken = true;
    rig.receive(&[frame(0x81, b"20000"), frame(0x81, b"20000")].concat());
    let Phase::Closed(reason) = rig.connection.phase() else {
        panic!("{:?}", rig.connection.phase());
    };
    assert_eq!(**reason, CloseReason::Io);
    let counters = &rig.cx.services.counters;
    assert_eq!((counters.closed_total(), counters.active()), (1, 0));
    assert!(rig.connection.outbox().is_none() && rig.cx.services.output.is_empty());
    // The same socket, closed by the peer's frame in the same read: the first reason stands.
    let mut rig = Rig::open(AtLimit::Close, Deadlines::default());
    rig.pipe.0.borrow_mut().is_broken = true;
    rig.receive(&[frame(0x81, b"20000"), frame(0x88, b"\x03\xe8")].concat());
    let Phase::Closed(reason) = rig.connection.phase() else {
        panic!("{:?}", rig.connection.phase());
    };
    assert_eq!(**reason, CloseReason::PeerClosed);
    assert_eq!(rig.cx.services.counters.closed_total(), 1);
}

/// The payloads of the server's frames.
fn parse(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    while let [_, short, rest @ ..] = bytes {
        let (length, head) = match short {
            126 => (u16::from_be_bytes(rest[..2].try_into().unwrap()).into(), 4),
            127 => (u64::from_be_bytes(rest[..8].try_into().unwrap()), 10),
            short => (u64::from(*short), 2),
        };
        let (frame, behind) = bytes.split_at(head + length as usize);
        payloads.push(frame[head..].to_vec());
        bytes = behind;
    }
    payloads
}

#[test]
fn a10_no_pong_follows_a_close_frame() {
    for (what, end) in [
        ("the handler closes", frame(0x81, b"close")),
        ("a violation", vec![0xff, 0xff]),
        ("the peer closes", frame(0x88, &1000u16.to_be_bytes())),
    ] {
        let mut rig = Rig::open(AtLimit::Close, Deadlines::default());
        // More pings than are answered one by one.
        rig.receive(&[frame(0x89, b"p").repeat(20), end].concat());
        let sent = rig.take();
        let close = sent.iter().position(|byte| *byte == 0x88).unwrap();
        assert_eq!(
            sent.len(),
            close + 2 + usize::from(sent[close + 1]),
            "{what}"
        );
    }
}

#[test]
fn a3_each_fragmented_message_has_its_own_deadline() {
    let mut rig = Rig::open(AtLimit::Close, Deadlines::default());
    rig.receive(&frame(0x02, b"first"));
    for _ in 0..100 {
        for _ in 0..10 {
            rig.tick();
        }
        // The last fragment of one message and the first of the next, in one read.
        rig.receive(&[frame(0x80, b"last"), frame(0x02, b"first")].concat());
        assert!(rig.connection.is_open(), "{:?}", rig.connection.phase());
    }
    for _ in 0..Deadlines::default().message {
        rig.tick();
    }
    assert!(!rig.connection.is_open(), "a message that never ends");
}

#[test]
fn x29_a_slow_reader_that_makes_progress_is_alive() {
    let mut rig = Rig::open(AtLimit::Close, Deadlines::default());
    rig.pipe.0.borrow_mut().window = 0;
    // The reply waits, so nothing more is read: not the rest of a message, and no pong.
    rig.receive(&[frame(0x81, b"1000000"), frame(0x01, b"begun")].concat());
    assert!(rig.connection.is_reading_paused());
    while rig.connection.outbox().is_some() {
        rig.pipe.0.borrow_mut().window = 1000;
        rig.serve();
        rig.tick();
        assert!(rig.connection.is_open(), "{:?}", rig.connection.phase());
    }
    assert!(rig.cx.services.now > 900, "that took a while");
    // The same peer, once it takes nothing any more.
    rig.receive(&[frame(0x80, b""), frame(0x81, b"1000000")].concat());
    rig.pipe.0.borrow_mut().window = 0;
    for _ in 0..Deadlines::default().write + 1 {
        rig.tick();
    }
    assert!(!rig.connection.is_open());
}

#[test]
fn x29_a_silent_peer_is_pinged_once_in_an_interval() {
    let mut rig = Rig::open(AtLimit::Close, Deadlines::default());
    let interval = Deadlines::default().ping_interval.unwrap();
    let mut pings = Vec::new();
    for _ in 0..6 * interval {
        rig.tick();
        if rig.take() == [0x89, 0] {
            pings.push(rig.cx.services.now);
            // It answers at once, or only after a tick.
            if pings.len() % 2 == 0 {
                rig.tick();
            }
            rig.receive(&frame(0x8a, b""));
        }
    }
    assert!(
        pings.len() >= 5 && pings.windows(2).all(|pair| pair[1] - pair[0] == interval),
        "{pings:?}"
    );
}

#[test]
fn deadlines_that_never_come_do_not_overflow() {
    let never = Deadlines {
        tls_handshake: LATEST,
        head: LATEST,
        message: LATEST,
        ping_interval: Some(LATEST),
        pong: LATEST,
        close: LATEST,
        write: LATEST,
        keep_alive: LATEST,
        answer: LATEST,
    };
    let mut rig = Rig::open(AtLimit::Close, never);
    rig.receive(&frame(0x01, b"begun"));
    rig.pipe.0.borrow_mut().window = 0;
    rig.receive(&[frame(0x80, b""), frame(0x81, b"1000")].concat());
    for _ in 0..1000 {
        rig.tick();
    }
    assert!(rig.connection.is_open(), "{:?}", rig.connection.phase());
}

#[test]
fn x5_no_letter_waits_for_a_wake_that_is_lost() {
    // Several senders, and reactors that are awake half of the time: rings come before, while, and
    // after their letters are taken. A lost one would leave a reactor asleep for good.
    let running = Running::demo();
    let clients: Vec<_> = (0..16)
        .map(|_| Client::open(running.address, "/echo"))
        .collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..25_000 {
                    running.counters_when("every reactor's answer", |sum| sum.opened == 16);
                }
            });
        }
    });
    for client in clients {
        assert_eq!(client.close(1000), Some(1000));
    }
}
