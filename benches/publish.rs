//! Publications over the backend's API to channels without subscribers, through a whole server with one
//! reactor: what one core bears.
//!
//! `cargo bench --bench publish`. The backends are blocking sockets on one thread beside the reactor's:
//! each turn writes to all of them, then reads all their answers. The processor time is the reactor's
//! own, as the kernel counts it for its thread, so it does not matter how fast the backends are.
//!
//! `cargo bench --bench publish -- --server target/release/tidegate` asks a program in a process of its
//! own, on core 0 alone where there is `taskset`; the processor time is then that of all its threads.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a benchmark that cannot be set up has nothing to say, and prints what it measures"
)]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tidegate::admission::limits::Cap;
use tidegate::api::{self, KeySettings};
use tidegate::{ListenerSettings, Server, Serves, Settings, Speaks};

const KEY: &str = "0123456789abcdef0123456789abcdef";
const ANSWER_END: &[u8] = b"\r\n\r\n{\"result\":{}}";

/// Connections of backends that the server takes: those of two cases, and some.
const CONNECTIONS_MAX: u32 = 1024;
/// Connections, and publications on each of them at once.
const CASES: [(usize, usize); 6] = [(1, 1), (16, 1), (256, 1), (16, 16), (256, 16), (1, 64)];

fn main() {
    // `cargo bench` says so; without it, or with `--test`, a taste of each is enough.
    let is_measured = std::env::args().any(|argument| argument == "--bench")
        && !std::env::args().any(|argument| argument == "--test");
    let window = Duration::from_millis(if is_measured { 2000 } else { 20 });
    let arguments: Vec<String> = std::env::args().collect();
    let program = arguments.iter().position(|word| word == "--server");
    let subject = match program {
        Some(at) => Subject::program(Path::new(&arguments[at + 1])),
        None => Subject::in_process(),
    };
    println!(
        "| connections | in flight on each | publications/s | server µs each | publications per core and second |"
    );
    println!("| --- | --- | --- | --- | --- |");
    let mut all = 0;
    for (connections, depth) in CASES {
        let mut backends: Vec<_> = (0..connections)
            .map(|number| Backend::new(subject.address, number, depth))
            .collect();
        // Each has published once to see what an answer looks like.
        all += connections;
        for _ in 0..if is_measured { 200 } else { 1 } {
            all += turn(&mut backends);
        }
        let (began, cpu) = (Instant::now(), subject.cpu_time());
        let mut count = 0;
        while began.elapsed() < window {
            count += turn(&mut backends);
        }
        let (elapsed, spent) = (began.elapsed(), subject.cpu_time() - cpu);
        all += count;
        let rate = count as f64 / elapsed.as_secs_f64();
        let each = spent.as_secs_f64() * 1e6 / count as f64;
        println!(
            "| {connections} | {depth} | {rate:.0} | {each:.2} | {:.0} |",
            1e6 / each
        );
    }
    subject.end(all as u64);
}

/// What is asked.
struct Subject {
    address: SocketAddr,
    /// The folders in which the kernel describes its threads.
    threads: Vec<String>,
    runs: Runs,
}

enum Runs {
    Here(Server),
    There(Program),
}

/// A process that ends with this.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Subject {
    /// A server with one reactor in this process: its processor time is the reactor's.
    fn in_process() -> Self {
        let mut settings = Settings {
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
        // Those of one case may still be on their way out when those of the next come.
        settings.admission.limits.api_connections = Cap::of(CONNECTIONS_MAX);
        let server = Server::start(settings, Vec::new()).unwrap();
        Self {
            address: server.addresses()[0],
            threads: vec![thread_named("reactor-0")],
            runs: Runs::Here(server),
        }
    }

    /// The program with one reactor, in a process of its own: its processor time is that of all threads.
    fn program(path: &Path) -> Self {
        // Whoever asks for a port of the kernel's choice is not told which one the API got.
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let line = "serve --profile development --reactors 1 --listen 127.0.0.1:0";
        let spawn = |mut command: Command| {
            command
                .args(line.split(' '))
                .env_clear()
                .env("TIDEGATE_API_KEY", KEY)
                .env("TIDEGATE_API_LISTEN", address.to_string())
                .env("TIDEGATE_API_CONNECTIONS_MAX", CONNECTIONS_MAX.to_string())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
        };
        let path = fs::canonicalize(path).unwrap();
        let mut pinned = Command::new("/usr/bin/taskset");
        pinned.args(["-c", "0"]).arg(&path);
        let child = spawn(pinned).or_else(|_| spawn(Command::new(&path)));
        let mut program = Program(child.unwrap());
        let until = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_err() {
            let has_ended = program.0.try_wait().unwrap();
            assert!(has_ended.is_none(), "the program has ended: {has_ended:?}");
            assert!(Instant::now() < until, "nobody listens on {address}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let threads = fs::read_dir(format!("/proc/{}/task", program.0.id())).unwrap();
        let folders = threads.map(|one| one.unwrap().path().to_string_lossy().into_owned());
        Self {
            address,
            threads: folders.collect(),
            runs: Runs::There(program),
        }
    }

    /// How long it has been on a processor.
    fn cpu_time(&self) -> Duration {
        self.threads.iter().map(|folder| cpu_time(folder)).sum()
    }

    /// Ends it, and sees that it published each once where it can be asked.
    fn end(self, published: u64) {
        match self.runs {
            Runs::Here(server) => {
                let counters = server.handle().counters();
                assert_eq!(counters.published, published, "each is published once");
                server.handle().shut_down();
                let _ = server.wait();
            }
            Runs::There(program) => drop(program),
        }
    }
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
