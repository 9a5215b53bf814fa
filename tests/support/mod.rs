//! A server on a port of its own, and a client that can send what a polite library would not.
//!
//! Tests wait on events with a deadline, never on sleep.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    missing_debug_implementations,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods
)]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::metrics::Counters;
use tidegate::{Handle, HandlerFactory, ListenerSettings, Route, Server, Settings};

/// How long anything may take before a test gives up: generous, because machines are busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running server that is shut down and balanced when the test is over.
pub struct Running {
    server: Option<Server>,
    pub address: SocketAddr,
    pub handle: Handle,
}

/// Settings for a test: a port of the kernel's choice, two reactors.
pub fn settings() -> Settings {
    Settings {
        reactors: NonZeroUsize::new(2).unwrap(),
        listeners: vec![ListenerSettings {
            address: ([127, 0, 0, 1], 0).into(),
            is_tls: false,
        }],
        ..Settings::default()
    }
}

/// The two demo routes with the default limits.
pub fn demo_routes() -> Vec<(Route, Arc<dyn HandlerFactory>)> {
    tidegate::demo::routes(&tidegate::ws::Limits::default(), false).unwrap()
}

impl Running {
    /// Starts a server.
    pub fn start(settings: Settings, routes: Vec<(Route, Arc<dyn HandlerFactory>)>) -> Self {
        let server = Server::start(settings, routes).unwrap();
        Self {
            address: server.addresses()[0],
            handle: server.handle(),
            server: Some(server),
        }
    }

    /// The demo routes with default settings.
    pub fn demo() -> Self {
        Self::start(settings(), demo_routes())
    }

    /// Waits until the counters satisfy a condition, and returns them.
    pub fn counters_when(&self, what: &str, condition: impl Fn(&Counters) -> bool) -> Counters {
        let until = Instant::now() + PATIENCE;
        loop {
            let counters = self.handle.counters();
            if condition(&counters) {
                return counters;
            }
            assert!(
                Instant::now() < until,
                "{what} did not come true: {counters:#?}"
            );
            std::thread::yield_now();
        }
    }

    /// Shuts the server down, checks the balance sheet, and returns what the server did.
    pub fn stop(mut self) -> Counters {
        self.finish()
    }

    fn finish(&mut self) -> Counters {
        let Some(server) = self.server.take() else {
            return Counters::default();
        };
        self.handle.shut_down();
        let counters = server.wait();
        assert_eq!(counters.accepted, counters.closed_total(), "{counters:#?}");
        assert_eq!(counters.outbox_bytes, 0, "{counters:#?}");
        counters
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.finish();
        }
    }
}

/// A frame as it came off the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub first: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn opcode(&self) -> u8 {
        self.first & 0x0f
    }

    /// The code of a close frame.
    pub fn close_code(&self) -> Option<u16> {
        assert_eq!(self.opcode(), 8, "not a close frame: {self:?}");
        self.payload
            .get(..2)
            .map(|code| u16::from_be_bytes([code[0], code[1]]))
    }
}

/// A client that speaks bytes.
pub struct Client<S = TcpStream> {
    pub stream: S,
    pending: Vec<u8>,
}

/// A correct request for `path`.
pub fn request(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// A masked frame with this first byte.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
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
    let key = [0x12, 0x34, 0x56, 0x78];
    bytes.extend_from_slice(&key);
    bytes.extend(
        payload
            .iter()
            .zip(key.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    bytes
}

impl Client {
    /// A TCP connection, nothing sent yet.
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self::over(stream)
    }

    /// An open WebSocket on `path`.
    pub fn open(address: SocketAddr, path: &str) -> Self {
        let mut client = Self::connect(address);
        client.upgrade(path);
        client
    }

    /// Resets the connection instead of closing it.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
}

impl<S: Read + Write> Client<S> {
    /// A client over something connected.
    pub fn over(stream: S) -> Self {
        Self {
            stream,
            pending: Vec::new(),
        }
    }

    pub fn upgrade(&mut self, path: &str) {
        self.send(request(path).as_bytes());
        let head = self.read_head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub fn send_frame(&mut self, first: u8, payload: &[u8]) {
        self.send(&frame(first, payload));
    }

    pub fn send_text(&mut self, text: &str) {
        self.send_frame(0x81, text.as_bytes());
    }

    /// Reads up to and including the empty line.
    pub fn read_head(&mut self) -> String {
        loop {
            if let Some(end) = self.pending.windows(4).position(|four| four == b"\r\n\r\n") {
                return String::from_utf8(self.pending.drain(..end + 4).collect()).unwrap();
            }
            assert!(
                self.fill(),
                "the stream ended within a head: {:?}",
                self.pending
            );
        }
    }

    /// Reads a frame; `None` at the end of the stream.
    pub fn read_frame(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, used)) = parse(&self.pending) {
                self.pending.drain(..used);
                return Some(frame);
            }
            if !self.fill() {
                assert!(self.pending.is_empty(), "the stream ended within a frame");
                return None;
            }
        }
    }

    /// Reads a text message.
    pub fn read_text(&mut self) -> String {
        let frame = self
            .read_frame()
            .expect("a message, not the end of the stream");
        assert_eq!(frame.first, 0x81, "{frame:?}");
        String::from_utf8(frame.payload).unwrap()
    }

    /// Reads everything up to the end of the stream, also if it ends in a reset.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.pending)
    }

    /// Sends a close frame and reads to the end; returns the code that came back.
    pub fn close(mut self, code: u16) -> Option<u16> {
        self.send_frame(0x88, &code.to_be_bytes());
        loop {
            let frame = self.read_frame()?;
            if frame.opcode() == 8 {
                let code = frame.close_code();
                assert_eq!(self.read_frame(), None, "nothing follows a close frame");
                return code;
            }
        }
    }

    fn fill(&mut self) -> bool {
        let mut buffer = [0; 64 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(count) => {
                self.pending.extend_from_slice(&buffer[..count]);
                true
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
                ) =>
            {
                false
            }
            Err(error) => panic!("reading failed: {error}"),
        }
    }
}

fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    assert!(second & 0x80 == 0, "a server must not mask");
    let (length, head) = match second {
        126 => (
            usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap())),
            4,
        ),
        127 => (
            u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap()) as usize,
            10,
        ),
        short => (usize::from(short), 2),
    };
    let payload = bytes.get(head..head + length)?.to_vec();
    Some((Frame { first, payload }, head + length))
}
