//! Any bytes, cut anywhere, at any speed, as a whole connection: head, frames, publications, time, a
//! socket that takes what it likes. Nothing panics, the connection ends once, the counters balance,
//! and between messages it holds no input.
//!
//! The first byte of the input chooses the settings, the rest is a script: a byte for what happens, a
//! byte for how much of it, and the bytes to send where something is sent.

#![no_main]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tidegate::admission;
use tidegate::conn::{
    AtLimit, Connection, Context, Deadlines, Gate, Handler, Identity, Lane, Offer, Pass, Peer, Phase,
    Policy, Speaks, outbox,
};
use tidegate::hub::{self, Home, Hub};
use tidegate::reactor::transport::{Readiness, Scratch, Socket, Transport};
use tidegate::ws::Limits;
use tidegate::{Channel, CloseCode, CloseReason, ConnectionId, Message, Route, http};

const MESSAGE_BYTES_MAX: usize = 4096;

fuzz_target!(|input: &[u8]| {
    let Some((&settings, mut script)) = input.split_first() else {
        return;
    };
    let mut run = Run::new(settings & 1 != 0, settings & 2 != 0);
    // Half of the inputs begin with an open connection, for most scripts never write a head.
    if settings & 4 == 0 {
        run.client_sends(REQUEST);
        run.stream.borrow_mut().window = 1024;
        run.turn();
        assert!(run.connection.is_open());
        run.is_known = true;
    }
    while let [what, amount, rest @ ..] = script {
        let (data, behind) = match what % 12 {
            0..=4 => rest.split_at(rest.len().min(usize::from(*amount))),
            _ => (&rest[..0], rest),
        };
        script = behind;
        run.step(what % 12, usize::from(*amount), data);
        run.turn();
    }
    run.end();
});

/// A connection, its reactor, its peer and the network between them.
struct Run {
    stream: Rc<RefCell<Stream>>,
    transport: Transport<Pipe>,
    connection: Connection,
    scratch: Scratch,
    cx: Context,
    calls: Rc<Calls>,
    compression: bool,
    /// Bytes the client has sent.
    sent: usize,
    /// Whether everything since the upgrade came in whole frames, so that it is known where the
    /// connection stands.
    is_known: bool,
    /// Whether a message has begun that has not ended, if that is known.
    is_in_message: bool,
}

impl Run {
    fn new(compression: bool, skips: bool) -> Self {
        let limits = Limits {
            message_bytes_max: MESSAGE_BYTES_MAX,
            fragments_max: 8,
            ..Limits::default()
        };
        let policy = Policy {
            http: http::head::Limits::default(),
            routes: vec![Route {
                compression,
                limits,
                ..Route::open("/")
            }],
            admission: admission::Policy::default(),
            requests: http::exchange::Limits::default(),
            outbox: outbox::Limits {
                bytes_high_water: 500,
                bytes_max: 2000,
                at_limit: if skips { AtLimit::Skip } else { AtLimit::Close },
            },
            deadlines: Deadlines::default(),
        };
        let home = Home {
            hasher: ahash::RandomState::with_seeds(1, 2, 3, 4),
            reactors: 1,
            me: 0,
        };
        let calls = Rc::new(Calls::default());
        let handler = Relay {
            calls: Rc::clone(&calls),
            room: room(),
        };
        let hub = Hub::new(home, hub::Limits::default());
        let mut cx = Context::new(Rc::new(policy), Gate::new(16, None), hub, vec![Box::new(handler)], 1);
        cx.services.counters.accepted = 1;
        let identity = Identity::new(ConnectionId::new(0, 7, 1), ([192, 0, 2, 1], 5).into());
        let pass = Pass::ask(identity.address(), Speaks::default(), &mut cx.services).unwrap();
        let stream = Rc::new(RefCell::new(Stream {
            piece: usize::MAX,
            ..Stream::default()
        }));
        Self {
            transport: Transport::new(Pipe(Rc::clone(&stream)), None),
            stream,
            connection: Connection::new(identity, pass, &cx.services),
            scratch: Scratch::default(),
            cx,
            calls,
            compression,
            sent: 0,
            is_known: false,
            is_in_message: false,
        }
    }

    fn step(&mut self, what: u8, amount: usize, data: &[u8]) {
        match what {
            0 => {
                self.is_known = false;
                self.client_sends(data);
            }
            1 => self.client_sends_frame(data, 1),
            // Up to 4 KiB, beyond the limit of a message with a header or two.
            2 => self.client_sends_frame(data, 16),
            3 => {
                let message = Message::from(data);
                self.connection.send(message, &mut self.cx);
                self.transport
                    .flush(&mut self.connection, &mut self.scratch, &mut self.cx);
            }
            4 => {
                let hub = &mut self.cx.services.hub;
                hub.publish(&room(), &Message::from(data));
            }
            5 => self.stream.borrow_mut().window += amount,
            6 => self.stream.borrow_mut().window += amount * 64,
            7 => self.stream.borrow_mut().piece = amount.max(1),
            8 => self.cx.services.now += amount as u32,
            9 => self.stream.borrow_mut().client_has_finished = true,
            10 if amount < 16 => self.stream.borrow_mut().is_reset = true,
            11 if amount < 16 => {
                let reason = CloseReason::Disconnected;
                self.connection
                    .close(reason, CloseCode::Normal, "bye", &mut self.cx);
                self.transport
                    .flush(&mut self.connection, &mut self.scratch, &mut self.cx);
            }
            _ => {}
        }
    }

    fn client_sends(&mut self, bytes: &[u8]) {
        let stream = &mut *self.stream.borrow_mut();
        if !stream.client_has_finished {
            self.sent += bytes.len();
            stream.to_server.extend(bytes);
        }
    }

    /// A frame with a header of the right length; its first byte is the input's, and so may be wrong.
    fn client_sends_frame(&mut self, data: &[u8], times: usize) {
        let Some((&first, payload)) = data.split_first() else {
            return;
        };
        let payload = payload.repeat(times);
        let mut frame = vec![first];
        match u16::try_from(payload.len()).expect("at most 16 times 255") {
            length @ 0..=125 => frame.push(0x80 | length as u8),
            length => {
                frame.push(0x80 | 126);
                frame.extend(length.to_be_bytes());
            }
        }
        let key = [first, 0x21, 0, 0xff];
        frame.extend(key);
        frame.extend(payload.iter().zip(key.iter().cycle()).map(|(a, b)| a ^ b));
        // Control frames come between the fragments of a message and change nothing there.
        if first & 0x08 == 0 {
            self.is_in_message = first & 0x80 == 0;
        }
        self.client_sends(&frame);
    }

    /// A turn of the reactor for its one connection.
    fn turn(&mut self) {
        if self.connection.outbox().is_some() {
            self.flush();
        }
        while !self.connection.is_reading_paused() && !self.has_ended() {
            let finished = self.stream.borrow().client_has_finished;
            let readiness = self.transport.read(
                &mut self.connection,
                &mut self.scratch,
                &mut self.cx,
                finished,
            );
            self.flush();
            if readiness == Readiness::Drained && self.stream.borrow().to_server.is_empty() {
                break;
            }
        }
        if self.cx.services.now >= self.connection.deadline(&self.cx.services) {
            self.connection.expire(&mut self.cx);
            self.flush();
        }
        self.cx.services.hub.end_turn(|_, _| Ok(()));
        while let Some(slice) = self.cx.services.hub.table.next_slice(512) {
            let lane = Lane {
                tag: slice.tag,
                slow: slice.traits.slow,
            };
            for member in slice.members {
                let deflater = &mut self.cx.services.deflater;
                let offers: Vec<_> = slice
                    .batches
                    .iter()
                    .map(|batch| Offer::of(batch, member.deflate, deflater))
                    .collect();
                self.transport.deliver(
                    &offers,
                    lane,
                    &mut self.connection,
                    &mut self.scratch,
                    &mut self.cx,
                );
            }
        }
        self.check();
    }

    fn flush(&mut self) {
        self.transport
            .flush(&mut self.connection, &mut self.scratch, &mut self.cx);
    }

    fn has_ended(&self) -> bool {
        matches!(self.connection.phase(), Phase::Closed(_))
    }

    /// What holds after every turn.
    fn check(&self) {
        let counters = &self.cx.services.counters;
        assert_eq!(counters.closed_total(), u64::from(self.has_ended()));
        assert_eq!(counters.opened, self.calls.opened.get());
        assert_eq!(counters.messages_received, self.calls.messages.get());
        assert!(
            self.cx.services.output.is_empty(),
            "left for the next connection"
        );
        assert!(self.connection.outbox().is_none_or(|one| !one.is_empty()));

        let held = self.connection.bytes_held();
        assert!(
            held <= 512 + 2 * self.sent,
            "{held} bytes held of {}",
            self.sent
        );
        let is_read = self.stream.borrow().to_server.is_empty();
        if self.connection.is_open() && self.is_known && is_read && !self.is_in_message {
            assert_eq!(held, 0, "bytes held between messages");
        }
        let subscribers = self.cx.services.hub.table.subscribers(&room());
        assert_eq!(subscribers, usize::from(self.connection.is_open()));
    }

    /// The client hangs up and the network takes everything: now the connection has to end.
    fn end(&mut self) {
        {
            let stream = &mut *self.stream.borrow_mut();
            stream.client_has_finished = true;
            (stream.window, stream.piece) = (usize::MAX, usize::MAX);
        }
        for _ in 0..8 {
            self.turn();
            self.cx.services.now += 1000;
        }
        assert!(self.has_ended(), "{:?}", self.connection);
        // What comes late changes nothing.
        self.connection.end_of_stream(&mut self.cx);
        self.connection.io_failed(&mut self.cx);
        self.connection.expire(&mut self.cx);
        self.connection.receive(&mut [0x81, 0x80], None, &mut self.cx);
        self.check();
        assert_eq!(self.calls.closed.get(), self.calls.opened.get());
        assert_eq!(self.cx.services.counters.active(), 0);
        assert_eq!(self.cx.services.hub.table.channels(), 0);
        if self.calls.opened.get() == 1 {
            self.check_output();
        }
    }

    /// What the client was sent is an answer and whole frames, as a server may send them, up to where
    /// the stream broke off, and nothing behind a close frame.
    fn check_output(&self) {
        let stream = &*self.stream.borrow();
        let end = stream
            .from_server
            .windows(4)
            .position(|four| four == b"\r\n\r\n");
        let Some(end) = end else { return };
        let mut rest = &stream.from_server[end + 4..];
        while let [first, second, behind @ ..] = rest {
            let length = match second {
                0..=125 => usize::from(*second),
                126 if behind.len() >= 2 => {
                    usize::from(u16::from_be_bytes([behind[0], behind[1]])) + 2
                }
                126 => return,
                _ => panic!("masked, or longer than anything that was sent"),
            };
            let reserved = if self.compression { 0x30 } else { 0x70 };
            assert!(first & 0x80 != 0 && first & reserved == 0, "{first:#x}");
            assert!([1, 2, 8, 9, 10].contains(&(first & 0x0f)), "{first:#x}");
            let Some(next) = behind.get(length..) else {
                return;
            };
            assert!(
                first & 0x0f != 8 || next.is_empty(),
                "a close frame is the last"
            );
            rest = next;
        }
    }
}

/// How often the handler was called.
#[derive(Default)]
struct Calls {
    opened: Cell<u64>,
    messages: Cell<u64>,
    closed: Cell<u64>,
}

/// Sends texts back, publishes the rest to the channel it has joined.
struct Relay {
    calls: Rc<Calls>,
    room: Channel,
}

impl Handler for Relay {
    fn open(&mut self, peer: &mut Peer<'_>) {
        self.calls.opened.set(self.calls.opened.get() + 1);
        peer.join(&self.room);
        peer.set_timer(Duration::from_secs(3));
    }

    fn message(&mut self, peer: &mut Peer<'_>, message: Message<'_>) {
        self.calls.messages.set(self.calls.messages.get() + 1);
        assert!(message.len() <= MESSAGE_BYTES_MAX);
        match message {
            Message::Text(_) => {
                peer.send(message);
            }
            Message::Binary(_) => peer.publish(&self.room, message),
        }
    }

    fn timer(&mut self, peer: &mut Peer<'_>) {
        peer.send("tick");
    }

    fn close(&mut self, peer: &mut Peer<'_>, _reason: &CloseReason) {
        self.calls.closed.set(self.calls.closed.get() + 1);
        // All of these must be without effect on a connection that has ended.
        peer.send("too late");
        peer.join(&self.room);
    }
}

fn room() -> Channel {
    Channel::new("room").expect("a correct name")
}

/// The two directions of a stream.
#[derive(Default)]
struct Stream {
    to_server: VecDeque<u8>,
    from_server: Vec<u8>,
    client_has_finished: bool,
    server_has_finished: bool,
    is_reset: bool,
    /// Bytes the socket takes before it blocks.
    window: usize,
    /// Most bytes in one call.
    piece: usize,
}

struct Pipe(Rc<RefCell<Stream>>);

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stream = &mut *self.0.borrow_mut();
        if stream.is_reset {
            return Err(ErrorKind::ConnectionReset.into());
        }
        if stream.to_server.is_empty() && !stream.client_has_finished {
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = buffer.len().min(stream.piece).min(stream.to_server.len());
        for (to, from) in buffer.iter_mut().zip(stream.to_server.drain(..count)) {
            *to = from;
        }
        Ok(count)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
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
        let count = bytes.len().min(stream.piece).min(stream.window);
        stream.window -= count;
        stream.from_server.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    /// All slices together, as a socket takes them; by default only the first would count.
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let bytes: Vec<u8> = slices
            .iter()
            .flat_map(|slice| slice.iter())
            .copied()
            .collect();
        self.write(&bytes)
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

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
