//! Messages that a backend decides about: how many a second pass through `on_message`, and how much later
//! their replies are than an echo's, for a backend that answers at once and one that takes five milliseconds.
//!
//! `cargo bench --bench hooks`. Each client is a thread that sends its next message when it has the reply to
//! the last one. The processor time is that of the reactor and of the threads that call, as the kernel
//! counts it for each; clients and backend are in the same process and on the same cores, so that rates and
//! latencies are what a small machine does with all of it.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a benchmark that cannot be set up has nothing to say, and prints what it measures"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tidegate::hooks::{self, FailMode, Hooked, Hooks, RouteSettings};
use tidegate::signature::Signer;
use tidegate::{
    Handler, HandlerFactory, ListenerSettings, Message, Peer, Route, Server, Settings, Speaks,
};

/// Clients, threads that call, and milliseconds that the backend takes for an answer.
const CASES: [(usize, usize, u64); 7] = [
    (1, 8, 0),
    (64, 1, 0),
    (64, 8, 0),
    (64, 32, 0),
    (64, 8, 5),
    (64, 32, 5),
    (256, 32, 5),
];
const MESSAGE: &str = r#"{"action":"mark_read","notification_id":1234567,"at":"2025-11-10"}"#;
/// What the server's threads are called.
const SERVING: [&str; 2] = ["reactor-", "hook"];

fn main() {
    // `cargo bench` says so; without it, or with `--test`, a taste of each is enough.
    let is_measured = std::env::args().any(|argument| argument == "--bench")
        && !std::env::args().any(|argument| argument == "--test");
    let window = Duration::from_millis(if is_measured { 2000 } else { 20 });
    println!(
        "| clients | threads that call | backend takes | messages/s | reply p50, p99 ms | echo p50, p99 ms | server µs each |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for (clients, threads, takes) in CASES {
        let stage = Stage::new(threads, Duration::from_millis(takes));
        let echo = stage.talk("/echo", clients, window);
        let (began, cpu) = (Instant::now(), cpu_time());
        let replies = stage.talk("/hooked", clients, window);
        let (elapsed, spent) = (began.elapsed(), cpu_time() - cpu);
        stage.end(replies.len());
        let rate = replies.len() as f64 / elapsed.as_secs_f64();
        let each = spent.as_secs_f64() * 1e6 / replies.len() as f64;
        let (reply, echo) = (percentiles(&replies), percentiles(&echo));
        println!(
            "| {clients} | {threads} | {takes} ms | {rate:.0} | {reply} | {echo} | {each:.1} |"
        );
    }
}

fn percentiles(latencies: &Histogram<u64>) -> String {
    let at = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e6;
    format!("{:.2}, {:.2}", at(0.5), at(0.99))
}

/// A server with a route that echoes, and one whose messages a backend replies to.
struct Stage {
    server: Server,
    hooks: Hooks,
}

impl Stage {
    fn new(threads: usize, takes: Duration) -> Self {
        let backend = backend(takes);
        let mut hooks = Hooks::new(hooks::Settings {
            threads,
            allow_http: true,
            signer: Some(Signer::new("a secret of at least thirty-two bytes")),
            ..hooks::Settings::default()
        });
        let url = format!("http://{backend}/message");
        let route = hooks
            .route(RouteSettings {
                path: "/hooked".to_owned(),
                urls: [None, None, Some(url), None],
                fail: FailMode::Closed,
                owns: Arc::new(|_| false),
            })
            .unwrap();
        let settings = Settings {
            reactors: NonZeroUsize::MIN,
            listeners: vec![ListenerSettings {
                address: ([127, 0, 0, 1], 0).into(),
                speaks: Speaks::default(),
            }],
            ..Settings::default()
        };
        let hooked: Arc<dyn HandlerFactory> =
            Arc::new(move |_| Hooked::new(Box::new(Quiet), route.clone(), true));
        let routes = vec![
            (Route::open("/hooked"), hooked),
            (Route::open("/echo"), Arc::new(|_| Echo) as _),
        ];
        let server = Server::start(settings, routes).unwrap();
        hooks.start(server.handle()).unwrap();
        Self { server, hooks }
    }

    /// So many clients for so long; how long each message took.
    fn talk(&self, path: &str, clients: usize, window: Duration) -> Histogram<u64> {
        let address = self.server.addresses()[0];
        let clients: Vec<Client> = (0..clients).map(|_| Client::open(address, path)).collect();
        let until = Instant::now() + window;
        std::thread::scope(|scope| {
            let talking: Vec<_> = (clients.into_iter())
                .map(|client| scope.spawn(move || client.talk(until)))
                .collect();
            let mut all = histogram();
            for one in talking {
                all.add(one.join().unwrap()).unwrap();
            }
            all
        })
    }

    /// Ends, and sees that the backend was asked about each message.
    fn end(self, messages: u64) {
        let asked: u64 = self.hooks.watch().figures().calls.iter().flatten().sum();
        assert_eq!(asked, messages, "each is told once");
        self.server.handle().shut_down();
        let _ = self.server.wait();
        self.hooks.finish(Duration::ZERO);
    }
}

/// Leaves everything to the backend.
struct Quiet;

impl Handler for Quiet {
    fn message(&mut self, _: &mut Peer<'_>, _: Message<'_>) {}
}

struct Echo;

impl Handler for Echo {
    fn message(&mut self, peer: &mut Peer<'_>, message: Message<'_>) {
        peer.send(message);
    }
}

struct Client {
    stream: TcpStream,
    message: Vec<u8>,
}

impl Client {
    fn open(address: SocketAddr, path: &str) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "));
        // A mask of zeros changes nothing.
        let mut message = vec![0x81, 0x80 | MESSAGE.len() as u8, 0, 0, 0, 0];
        message.extend_from_slice(MESSAGE.as_bytes());
        Self { stream, message }
    }

    fn talk(mut self, until: Instant) -> Histogram<u64> {
        let mut latencies = histogram();
        let mut reply = vec![0; 2 + MESSAGE.len()];
        let mut now = Instant::now();
        while now < until {
            self.stream.write_all(&self.message).unwrap();
            self.stream.read_exact(&mut reply).unwrap();
            assert_eq!(&reply[2..], MESSAGE.as_bytes(), "the reply is the message");
            let then = std::mem::replace(&mut now, Instant::now());
            latencies.saturating_record((now - then).as_nanos() as u64);
        }
        latencies
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap()
}

/// A backend that replies with what it is told, a while later.
fn backend(takes: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || answer(stream, takes));
        }
    });
    address
}

fn answer(stream: TcpStream, takes: Duration) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut output = stream.try_clone().ok()?;
    let mut input = BufReader::new(stream);
    let (mut line, mut body) = (String::new(), Vec::new());
    loop {
        let mut length = 0;
        loop {
            line.clear();
            input.read_line(&mut line).ok().filter(|read| *read > 0)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                if line.trim_end().is_empty() {
                    break;
                }
                continue;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.parse().ok()?;
            }
        }
        body.resize(length, 0);
        input.read_exact(&mut body).ok()?;
        // The event's data is its last field.
        let text = std::str::from_utf8(&body).ok()?;
        let (_, data) = text.split_once(r#""data":"#)?;
        let data = data.strip_suffix('}')?;
        if !takes.is_zero() {
            std::thread::sleep(takes);
        }
        let body = format!(r#"{{"reply":[{data}]}}"#);
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        output.write_all(answer.as_bytes()).ok()?;
    }
}

/// How long the server's threads have been on a processor. Threads that have ended are not counted: only
/// the difference between two moments of one server means anything.
fn cpu_time() -> Duration {
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let folders = threads.map(|one| one.unwrap().path());
    let serving = folders.filter(|folder| {
        let name = fs::read_to_string(folder.join("comm")).unwrap_or_default();
        SERVING.iter().any(|begin| name.starts_with(begin))
    });
    let times = serving.filter_map(|folder| {
        let text = fs::read_to_string(folder.join("schedstat")).ok()?;
        text.split(' ')
            .next()?
            .parse()
            .ok()
            .map(Duration::from_nanos)
    });
    times.sum()
}
