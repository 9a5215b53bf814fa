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

pub mod tls;
pub mod tokens;
pub mod watched;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroUsize;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::admission::Stage;
use tidegate::admission::rate::Moment;
use tidegate::admission::refusal::labels;
use tidegate::metrics::Counters;
use tidegate::timer::{TICK, Tick};
use tidegate::{
    CloseReason, Handle, Handler, HandlerFactory, ListenerSettings, Message, Peer, Route, Server,
    Settings, Speaks,
};

/// How long anything may take before a test gives up: generous, because machines are busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running server that is shut down and balanced when the test is over.
pub struct Running {
    server: Option<Server>,
    /// Where the first listener is.
    pub address: SocketAddr,
    pub handle: Handle,
    panics_expected: u64,
}

/// Settings for a test: a port of the kernel's choice, two reactors.
pub fn settings() -> Settings {
    Settings {
        reactors: NonZeroUsize::new(2).unwrap(),
        listeners: vec![ListenerSettings {
            address: ([127, 0, 0, 1], 0).into(),
            speaks: Speaks::default(),
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
            panics_expected: 0,
        }
    }

    /// Where each listener is.
    pub fn addresses(&self) -> &[SocketAddr] {
        self.server.as_ref().unwrap().addresses()
    }

    /// Says that callbacks are going to panic so many times; the balance sheet asks for exactly that.
    pub const fn expect_panics(&mut self, count: u64) {
        self.panics_expected = count;
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

    /// Waits until so many connections have ended for this reason (its detail does not matter).
    pub fn closed_when(&self, reason: &CloseReason, count: u64) -> Counters {
        let what = format!("{count} connections ended by {reason}");
        self.counters_when(&what, |counters| counters.closed_by(reason) >= count)
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
        let gate = self.handle.gate();
        let census = gate.limits.census(Moment::default());
        let held = (
            census.connections,
            census.api_connections,
            census.address_places,
            census.overflow_places,
        );
        assert_eq!(held, (0, 0, 0, 0), "a place was not given back");
        assert_eq!(
            gate.users.connected(),
            0,
            "a user's place was not given back"
        );
        let at_accept: u64 = (labels().zip(counters.refused.as_slice()))
            // An untrusted proxy's connection is dropped there as well.
            .filter(|((stage, reason), _)| *stage == Stage::Accept || *reason == "untrusted")
            .map(|(_, count)| count)
            .sum();
        let on_the_way = counters.refused.total() - at_accept - counters.renewals_refused;
        assert_eq!(
            counters.accepted,
            counters.opened + counters.exchanges + on_the_way + counters.abandoned,
            "{counters:#?}"
        );
        assert_eq!(
            counters.handler_panics, self.panics_expected,
            "{counters:#?}"
        );
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

/// Waits for something that announces itself in no other way, such as a state of the kernel's.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < until, "{what} did not come true");
        std::thread::yield_now();
    }
}

/// A handler made of functions, one for each callback; by default they do nothing.
#[derive(Clone, Copy)]
pub struct On {
    pub open: fn(&mut Peer<'_>),
    pub message: fn(&mut Peer<'_>, Message<'_>),
    pub close: fn(&mut Peer<'_>, &CloseReason),
    pub timer: fn(&mut Peer<'_>),
}

impl Default for On {
    fn default() -> Self {
        Self {
            open: |_| {},
            message: |_, _| {},
            close: |_, _| {},
            timer: |_| {},
        }
    }
}

impl Handler for On {
    fn open(&mut self, peer: &mut Peer<'_>) {
        (self.open)(peer);
    }

    fn message(&mut self, peer: &mut Peer<'_>, message: Message<'_>) {
        (self.message)(peer, message);
    }

    fn close(&mut self, peer: &mut Peer<'_>, reason: &CloseReason) {
        (self.close)(peer, reason);
    }

    fn timer(&mut self, peer: &mut Peer<'_>) {
        (self.timer)(peer);
    }
}

/// A route with the default limits.
pub fn route(path: &str, on: On) -> (Route, Arc<dyn HandlerFactory>) {
    (Route::open(path), Arc::new(move |_| on))
}

/// A route whose connections are told of the time; see [`Clock`].
pub fn clock_route() -> (Route, Arc<dyn HandlerFactory>) {
    fn tick(peer: &mut Peer<'_>) {
        peer.send("tick");
        peer.set_timer(TICK);
    }
    let on = On {
        open: tick,
        timer: tick,
        ..On::default()
    };
    route("/clock", on)
}

/// The server's own time, for tests in which nothing must happen for a while: a second connection
/// that gets a message with every tick. It says when a tick is over on the server, however busy the
/// machine is, where a sleep would only hope so.
pub struct Clock(Client);

impl Clock {
    /// Opens `/clock`, which [`clock_route`] must be serving.
    pub fn open(address: SocketAddr) -> Self {
        Self(Client::open(address, "/clock"))
    }

    /// Lets so many ticks pass.
    pub fn wait(&mut self, ticks: Tick) {
        for _ in 0..ticks {
            assert_eq!(self.0.read_text(), "tick");
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
    /// How much of `pending` has been used.
    used: usize,
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

    /// A second client over the same connection, for reading while the first one writes.
    pub fn try_clone(&self) -> Self {
        Self::over(self.stream.try_clone().unwrap())
    }

    /// Keeps the kernel from taking in megabytes for a client that does not read, so that the server
    /// soon feels it.
    pub fn narrow(self) -> Self {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        self
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
            used: 0,
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

    /// Sends bytes unless the peer has gone: for input that the server may refuse half-way.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    pub fn send_text(&mut self, text: &str) {
        self.send_frame(0x81, text.as_bytes());
    }

    /// Reads up to and including the empty line.
    pub fn read_head(&mut self) -> String {
        loop {
            let rest = &self.pending[self.used..];
            if let Some(end) = rest.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = rest[..end + 4].to_vec();
                self.used += head.len();
                return String::from_utf8(head).unwrap();
            }
            assert!(
                self.fill(),
                "the stream ended within a head: {:?}",
                self.pending
            );
        }
    }

    /// Reads up to and including these bytes.
    pub fn read_until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            let rest = &self.pending[self.used..];
            if let Some(at) = rest.windows(end.len()).position(|window| window == end) {
                let bytes = rest[..at + end.len()].to_vec();
                self.used += bytes.len();
                return bytes;
            }
            assert!(
                self.fill(),
                "the stream ended before {end:?}: {rest:?}",
                rest = self.pending
            );
        }
    }

    /// Reads so many bytes.
    pub fn read_exactly(&mut self, count: usize) -> Vec<u8> {
        while self.pending.len() - self.used < count {
            assert!(self.fill(), "the stream ended before {count} bytes");
        }
        let bytes = self.pending[self.used..self.used + count].to_vec();
        self.used += count;
        bytes
    }

    /// Reads a frame; `None` at the end of the stream.
    pub fn read_frame(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, used)) = parse(&self.pending[self.used..]) {
                self.used += used;
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

    /// Reads the next frame, which must be a close frame, answers it, without which the server would wait for
    /// the answer, and reads to the end of the stream.
    pub fn read_close(&mut self) -> Option<u16> {
        let frame = self.read_frame().expect("a close frame");
        let code = frame.close_code();
        self.try_send(&self::frame(0x88, &frame.payload));
        assert_eq!(self.read_frame(), None, "nothing follows a close frame");
        code
    }

    /// Sends a text and waits for its echo: what was sent before has been dealt with then.
    pub fn echo(&mut self, text: &str) {
        self.send_text(text);
        assert_eq!(self.read_text(), text);
    }

    /// Reads a refusal: its status, its head, and everything behind it to the end of the stream.
    pub fn read_refusal(&mut self) -> (u16, String, String) {
        let head = self.read_head();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let body = String::from_utf8(self.read_to_end()).unwrap();
        (status, head, body)
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
        self.pending.drain(..self.used);
        self.used = 0;
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

/// The real program, in a process of its own.
pub struct Program {
    child: Child,
    stderr: BufReader<ChildStderr>,
    /// Where each listener is.
    pub addresses: Vec<SocketAddr>,
}

impl Program {
    /// Starts the program with this command line, and waits until it says that it is listening. The
    /// environment is empty but for `environment`.
    pub fn start(line: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command
            .args(line)
            .env_clear()
            .envs(environment.iter().copied());
        Self::spawn(command)
    }

    /// The same from a prepared command.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut program = Self {
            child,
            stderr,
            addresses: Vec::new(),
        };
        let line = program.read_line_with("listening on");
        program.addresses = line
            .split_whitespace()
            .filter_map(|word| word.split_once("://"))
            .map(|(_, address)| address.parse().unwrap())
            .collect();
        program
    }

    /// Reads what the program prints up to a line with `text` in it. The program may end before: that
    /// is a failure.
    pub fn read_line_with(&mut self, text: &str) -> String {
        let mut printed = String::new();
        loop {
            let before = printed.len();
            assert!(
                self.stderr.read_line(&mut printed).unwrap() > 0,
                "the program ended without {text:?}: {printed}"
            );
            if printed[before..].contains(text) {
                return printed[before..].to_owned();
            }
        }
    }

    /// What the program has yet to print.
    pub const fn stderr(&mut self) -> &mut impl Read {
        &mut self.stderr
    }

    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// Lowers the limit on open files so that there is room for so many more.
    pub fn leave_descriptors(&self, room: usize) {
        let open = self.descriptor_numbers();
        // The limit is on numbers, and the lowest free one is given out next.
        let mut free = (0..).filter(|number| !open.contains(number));
        let limit = free.nth(room).unwrap();
        let limit = rustix::process::Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        };
        let resource = rustix::process::Resource::Nofile;
        rustix::process::prlimit(Some(self.pid()), resource, limit).unwrap();
    }

    /// How many files the program has open.
    pub fn descriptors(&self) -> usize {
        self.descriptor_numbers().len()
    }

    fn descriptor_numbers(&self) -> Vec<u64> {
        let path = format!("/proc/{}/fd", self.child.id());
        let names = std::fs::read_dir(path).unwrap();
        names
            .map(|name| name.unwrap().file_name().to_str().unwrap().parse().unwrap())
            .collect()
    }

    /// Time that the processor spent on the program, its kernel work included.
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // The name in the second field may hold anything; the rest begins behind its bracket.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split(' ').collect();
        let ticks: u64 = fields[12].parse::<u64>().unwrap() + fields[13].parse::<u64>().unwrap();
        Duration::from_secs(1) * ticks as u32 / rustix::param::clock_ticks_per_second() as u32
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/statm", self.child.id());
        let pages = std::fs::read_to_string(path).unwrap();
        let pages: u64 = pages.split(' ').nth(1).unwrap().parse().unwrap();
        pages * rustix::param::page_size() as u64
    }

    /// Waits for the end of the program.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the end of the program", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
