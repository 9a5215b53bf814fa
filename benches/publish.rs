//! Publications over the backend's API to channels without subscribers, through a whole server with one
//! reactor: what one core bears.
//!
//! `cargo bench --bench publish`. The backends are blocking sockets on one thread beside the reactor's:
//! each turn writes to all of them, then reads all their answers. The processor time is the reactor's
//! own, as the kernel counts it for its thread, so it does not matter how fast the backends are.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a benchmark that cannot be set up has nothing to say, and prints what it measures"
)]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use tidegate::api::{self, KeySettings};
use tidegate::{ListenerSettings, Server, Serves, Settings, Speaks};

const KEY: &str = "0123456789abcdef0123456789abcdef";
const ANSWER_END: &[u8] = b"\r\n\r\n{\"result\":{}}";

/// Connections, and publications on each of them at once.
const CASES: [(usize, usize); 5] = [(1, 1), (16, 1), (64, 1), (16, 16), (1, 64)];

fn main() {
    // `cargo bench` says so; without it, or with `--test`, a taste of each is enough.
    let is_measured = std::env::args().any(|argument| argument == "--bench")
        && !std::env::args().any(|argument| argument == "--test");
    let window = Duration::from_millis(if is_measured { 2000 } else { 20 });
    let settings = Settings {
        reactors: NonZeroUsize::MIN,
        listeners: vec![ListenerSettings {
            address: ([127, 0, 0, 1], 0).into(),
            speaks: Speaks {
                serves: Serves::Requests,
                ..Speaks::default()
            },
        }],
        endpoint: Some(api::endpoint(&api::Settings {
            keys: vec![KeySettings {
                name: "bench".to_owned(),
                secret: KEY.as_bytes().into(),
                prefixes: Vec::new(),
                rate: None,
            }],
            ..api::Settings::default()
        })),
        ..Settings::default()
    };
    let server = Server::start(settings, Vec::new()).unwrap();
    let address = server.addresses()[0];
    let reactor = thread_named("reactor-0");
    println!(
        "| connections | in flight on each | publications/s | reactor µs each | publications per core and second |"
    );
    println!("| --- | --- | --- | --- | --- |");
    let mut all = 0;
    for (connections, depth) in CASES {
        let mut backends: Vec<_> = (0..connections)
            .map(|number| Backend::new(address, number, depth))
            .collect();
        // Each has published once to see what an answer looks like.
        all += connections;
        for _ in 0..if is_measured { 200 } else { 1 } {
            all += turn(&mut backends);
        }
        let (began, cpu) = (Instant::now(), cpu_time(&reactor));
        let mut count = 0;
        while began.elapsed() < window {
            count += turn(&mut backends);
        }
        let (elapsed, spent) = (began.elapsed(), cpu_time(&reactor) - cpu);
        all += count;
        let rate = count as f64 / elapsed.as_secs_f64();
        let each = spent.as_secs_f64() * 1e6 / count as f64;
        println!(
            "| {connections} | {depth} | {rate:.0} | {each:.2} | {:.0} |",
            1e6 / each
        );
    }
    assert_eq!(
        server.handle().counters().published,
        all as u64,
        "each is published once"
    );
    server.handle().shut_down();
    let _ = server.wait();
}

/// Writes to all, then reads from all; returns how many publications that were.
fn turn(backends: &mut [Backend]) -> usize {
    for backend in &mut *backends {
        backend.stream.write_all(&backend.requests).unwrap();
    }
    for backend in &mut *backends {
        let answers = &mut backend.answers;
        backend.stream.read_exact(answers).unwrap();
        assert!(answers.ends_with(ANSWER_END), "each is answered");
    }
    backends.iter().map(|backend| backend.depth).sum()
}

struct Backend {
    stream: TcpStream,
    requests: Vec<u8>,
    answers: Vec<u8>,
    depth: usize,
}

impl Backend {
    fn new(address: SocketAddr, number: usize, depth: usize) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        let body = format!(
            r#"{{"channel":"notifications_{number}","data":{{"type":"notification","data":{{"id":1,"text":"hello"}}}}}}"#
        );
        // What Python's `requests` sends, as `cent` does.
        let request = format!(
            "POST /api/publish HTTP/1.1\r\nHost: localhost:8081\r\nUser-Agent: python-requests/2.32.5\r\n\
             Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\n\
             Content-Type: application/json\r\nX-API-Key: {KEY}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        // All answers are of one length: it is learnt from the first.
        stream.write_all(request.as_bytes()).unwrap();
        let mut first = Vec::new();
        while !first.ends_with(ANSWER_END) {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            first.push(byte[0]);
        }
        Self {
            stream,
            requests: request.repeat(depth).into_bytes(),
            answers: vec![0; first.len() * depth],
            depth,
        }
    }
}

/// The folder in which the kernel describes this process's thread of that name. A thread takes its name
/// itself, a moment after it has been started.
fn thread_named(name: &str) -> String {
    let is_named = |folder: &String| {
        fs::read_to_string(format!("{folder}/comm")).is_ok_and(|comm| comm.trim() == name)
    };
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        let threads = fs::read_dir("/proc/self/task").unwrap();
        let mut folders = threads.map(|one| one.unwrap().path().to_string_lossy().into_owned());
        if let Some(folder) = folders.find(is_named) {
            return folder;
        }
        assert!(Instant::now() < until, "no thread is called {name}");
        std::thread::yield_now();
    }
}

/// How long a thread has been on a processor.
fn cpu_time(folder: &str) -> Duration {
    let text = fs::read_to_string(format!("{folder}/schedstat")).unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}
