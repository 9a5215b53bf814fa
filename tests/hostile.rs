//! Hostile crowds over real sockets: what thousands of slow, forged or greedy connections do to others.
//! They come from several addresses of 127.0.0.0/8. One poll drives each crowd, and what is waited for
//! is an event or a deadline.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation
)]

mod support;

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use socket2::{Domain, Protocol, Socket, Type};
use tidegate::admission::address::TrustedNetworks;
use tidegate::admission::jwt::{Algorithm, Key, KeySet, TokenPolicy, Verifier};
use tidegate::admission::limits::{Cap, Limit, Rate, Refused};
use tidegate::admission::rate::{Moment, Quota};
use tidegate::admission::{Refusal, Stage, TokenDemand};
use tidegate::server::Routes;
use tidegate::timer::TICK;
use tidegate::tls::Acceptor;
use tidegate::{
    CloseReason, Handler, ListenerSettings, Message, Peer, Route, Serves, Settings, Speaks,
};

use support::{Client, On, PATIENCE, Running, demo_routes, request, route, settings};

const SLOW: usize = 2_000;
const HONEST: usize = 1_000;
/// Honest clients that are connecting at a time.
const HONEST_AT_ONCE: usize = 100;
/// How often a slow client sends a byte.
const DRIP: Duration = Duration::from_millis(100);
/// What all honest clients together may take: a machine may be busy, but not for ever.
const ALL_IN: Duration = Duration::from_secs(45);

/// What the listeners of the test speak, in their order.
const SPOKEN: [Speaks; 4] = [
    Speaks {
        proxy: false,
        tls: false,
        serves: Serves::Upgrades,
    },
    Speaks {
        proxy: false,
        tls: true,
        serves: Serves::Upgrades,
    },
    Speaks {
        proxy: true,
        tls: false,
        serves: Serves::Upgrades,
    },
    Speaks {
        proxy: true,
        tls: true,
        serves: Serves::Upgrades,
    },
];

const PROXY_HEADER: &str = "PROXY TCP4 192.0.2.7 192.0.2.1 40000 443\r\n";

#[test]
fn b10_two_thousand_slow_handshakes_keep_no_honest_client_out() {
    allow_descriptors();
    let acceptor = Acceptor::self_signed(&["localhost".to_owned()]).unwrap();
    let mut settings = settings();
    settings.listeners = SPOKEN.map(listener).into();
    settings.acceptor = Some(acceptor.clone());
    settings.admission.trusted = TrustedNetworks::parse(["127.0.0.0/8"]).unwrap();
    // Half of the slow ones fill every place there is, the other half the kernel's queues.
    settings.handshakes_in_flight_max = SLOW / 2 / settings.reactors.get();
    let running = Running::start(settings, demo_routes());
    let addresses = running.addresses().to_owned();
    let tls = Arc::new(client_config(&acceptor));
    let mut resident = Client::open(running.address, "/echo");

    let slow = Slow::new(&addresses, &tls);
    let is_over = Arc::new(AtomicBool::new(false));
    let slow = std::thread::spawn({
        let is_over = Arc::clone(&is_over);
        move || slow.run(&is_over)
    });
    running.counters_when("the slow have all places", |counters| {
        counters.closed_by(&CloseReason::Evicted) > 0
    });
    let honest = Honest::new(&addresses, &tls).run(|| resident.echo("still here"));
    is_over.store(true, Ordering::Relaxed);
    let returned = slow.join().unwrap();

    assert_eq!(honest.failures, [""; 0]);
    assert_eq!(honest.open.len(), HONEST);
    drop(honest);
    resident.echo("to the end");
    drop(resident);
    let counters = running.stop();
    assert_eq!(counters.opened as usize, HONEST + 1, "no slow one got in");
    let evicted = counters.closed_by(&CloseReason::Evicted);
    assert!(evicted > 0 && returned > 0, "{evicted}, {returned}");
}

fn listener(speaks: Speaks) -> ListenerSettings {
    ListenerSettings {
        address: ([127, 0, 0, 1], 0).into(),
        speaks,
    }
}

/// Both ends of every connection are in this process.
fn allow_descriptors() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let needed = 2 * (SLOW + HONEST) as u64 + 500;
    assert!(limit.maximum.is_none_or(|maximum| maximum >= needed));
    let limit = rustix::process::Rlimit {
        current: limit.current.max(Some(needed)),
        ..limit
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
}

/// TLS 1.3 with one key exchange, so that hello and handshake are as cheap as they get.
fn client_config(acceptor: &Acceptor) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let pem = acceptor.certificate_pem();
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    roots.add(certificate).unwrap();
    let provider = rustls::crypto::CryptoProvider {
        kx_groups: vec![provider::kx_group::X25519],
        ..provider::default_provider()
    };
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn client_session(config: &Arc<ClientConfig>) -> ClientConnection {
    let name = ServerName::try_from("localhost").unwrap();
    ClientConnection::new(Arc::clone(config), name).unwrap()
}

/// Begins to connect from `source`.
fn dial(source: Ipv4Addr, address: SocketAddr) -> TcpStream {
    let socket = Socket::new(
        Domain::IPV4,
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )
    .unwrap();
    socket.bind(&SocketAddrV4::new(source, 0).into()).unwrap();
    socket.set_tcp_nodelay(true).unwrap();
    if let Err(error) = socket.connect(&address.into()) {
        let in_progress = rustix::io::Errno::INPROGRESS.raw_os_error();
        assert_eq!(error.raw_os_error(), Some(in_progress), "{error}");
    }
    TcpStream::from_std(socket.into())
}

/// A blocking client that comes from `source`.
fn client_from(source: Ipv4Addr, address: SocketAddr) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.bind(&SocketAddrV4::new(source, 0).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    socket.set_tcp_nodelay(true).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    Client::over(socket.into())
}

const fn host(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, (number / 250) as u8, (number % 250 + 2) as u8)
}

/// Somebody who says all but the last byte of what is expected, a byte at a time.
struct Drip {
    stream: TcpStream,
    is_connected: bool,
    sent: usize,
    script: Arc<Script>,
}

/// What a slow client says, and where.
struct Script {
    address: SocketAddr,
    /// Said at once.
    prompt: Vec<u8>,
    /// Said a byte at a time.
    slow: Vec<u8>,
}

/// The slow, all on one poll. Whoever is thrown out comes back at once.
struct Slow {
    poll: Poll,
    drips: Vec<Drip>,
    returned: usize,
}

impl Slow {
    fn new(addresses: &[SocketAddr], tls: &Arc<ClientConfig>) -> Self {
        let mut hello = Vec::new();
        client_session(tls).write_tls(&mut hello).unwrap();
        let all_but_one = |bytes: &[u8]| bytes[..bytes.len() - 1].to_vec();
        let (head, header) = (request("/echo"), PROXY_HEADER.as_bytes());
        let (head, hello) = (all_but_one(head.as_bytes()), all_but_one(&hello));
        let [plain, tls, proxy, proxy_tls] = addresses else {
            panic!("four listeners")
        };
        let scripts = [
            (plain, Vec::new(), head.clone()),
            (tls, Vec::new(), hello.clone()),
            (proxy, Vec::new(), all_but_one(header)),
            (proxy, header.to_vec(), head),
            (proxy_tls, Vec::new(), all_but_one(header)),
            (proxy_tls, header.to_vec(), hello),
        ]
        .map(|(address, prompt, slow)| {
            Arc::new(Script {
                address: *address,
                prompt,
                slow,
            })
        });
        let mut crowd = Self {
            poll: Poll::new().unwrap(),
            drips: Vec::new(),
            returned: 0,
        };
        for number in 0..SLOW {
            let drip = crowd.begin(number, &scripts[number % scripts.len()]);
            crowd.drips.push(drip);
        }
        crowd
    }

    fn begin(&self, number: usize, script: &Arc<Script>) -> Drip {
        let mut stream = dial(host(number % 8), script.address);
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        registry
            .register(&mut stream, Token(number), interest)
            .unwrap();
        Drip {
            stream,
            is_connected: false,
            sent: 0,
            script: Arc::clone(script),
        }
    }

    /// Goes on until it is over; returns how often one of them was thrown out and came back.
    fn run(mut self, is_over: &AtomicBool) -> usize {
        let mut events = Events::with_capacity(1024);
        let mut next_drip = Instant::now();
        while !is_over.load(Ordering::Relaxed) {
            let wait = next_drip.saturating_duration_since(Instant::now());
            if let Err(error) = self.poll.poll(&mut events, Some(wait)) {
                assert_eq!(error.kind(), ErrorKind::Interrupted);
            }
            for event in &events {
                let drip = &mut self.drips[event.token().0];
                if event.is_writable() && !drip.is_connected {
                    drip.is_connected = true;
                    let _ = drip.stream.write(&drip.script.prompt);
                }
                if event.is_readable() && drip.has_ended() {
                    self.come_back(event.token().0);
                }
            }
            if Instant::now() >= next_drip {
                next_drip = Instant::now() + DRIP;
                self.drips.iter_mut().for_each(Drip::speak);
            }
        }
        self.returned
    }

    fn come_back(&mut self, number: usize) {
        let script = Arc::clone(&self.drips[number].script);
        self.drips[number] = self.begin(number, &script);
        self.returned += 1;
    }
}

impl Drip {
    /// Says the next byte. An end of the connection is seen by reading.
    fn speak(&mut self) {
        let Some(byte) = self.script.slow.get(self.sent) else {
            return;
        };
        if self.is_connected && self.stream.write(&[*byte]).is_ok() {
            self.sent += 1;
        }
    }

    fn has_ended(&mut self) -> bool {
        let mut answer = [0; 512];
        loop {
            match self.stream.read(&mut answer) {
                Ok(0) => return true,
                // A 408, say.
                Ok(_) => {}
                Err(error) => return error.kind() != ErrorKind::WouldBlock,
            }
        }
    }
}

/// Somebody who wants in.
struct Guest {
    stream: TcpStream,
    speaks: Speaks,
    session: Option<ClientConnection>,
    has_spoken: bool,
    answer: Vec<u8>,
}

/// The honest on one poll, and what became of them.
struct Honest {
    poll: Poll,
    addresses: Vec<SocketAddr>,
    tls: Arc<ClientConfig>,
    waiting: VecDeque<Option<Guest>>,
    open: Vec<Guest>,
    failures: Vec<String>,
}

impl Honest {
    fn new(addresses: &[SocketAddr], tls: &Arc<ClientConfig>) -> Self {
        Self {
            poll: Poll::new().unwrap(),
            addresses: addresses.to_vec(),
            tls: Arc::clone(tls),
            waiting: VecDeque::new(),
            open: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Brings all of them in, some at a time; calls `meanwhile` now and then.
    fn run(mut self, mut meanwhile: impl FnMut()) -> Self {
        let until = Instant::now() + ALL_IN;
        let mut events = Events::with_capacity(1024);
        while self.open.len() + self.failures.len() < HONEST {
            let in_progress = self.waiting.len() - self.open.len() - self.failures.len();
            for _ in in_progress..HONEST_AT_ONCE.min(HONEST - self.waiting.len() + in_progress) {
                let guest = self.invite(self.waiting.len());
                self.waiting.push_back(Some(guest));
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{} of them are in", self.open.len());
            if let Err(error) = self.poll.poll(&mut events, Some(left)) {
                assert_eq!(error.kind(), ErrorKind::Interrupted);
            }
            for event in &events {
                let number = event.token().0;
                let Some(guest) = &mut self.waiting[number] else {
                    continue;
                };
                match guest.advance(event.is_writable()) {
                    Ok(false) => {}
                    Ok(true) => self.open.extend(self.waiting[number].take()),
                    Err(error) => {
                        let speaks = guest.speaks;
                        self.failures.push(format!("{number} {speaks:?}: {error}"));
                        self.waiting[number] = None;
                    }
                }
            }
            meanwhile();
        }
        self
    }

    fn invite(&self, number: usize) -> Guest {
        let kind = number % SPOKEN.len();
        let speaks = SPOKEN[kind];
        let mut stream = dial(host(10 + number % 4), self.addresses[kind]);
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        registry
            .register(&mut stream, Token(number), interest)
            .unwrap();
        Guest {
            stream,
            speaks,
            session: speaks.tls.then(|| client_session(&self.tls)),
            has_spoken: false,
            answer: Vec::new(),
        }
    }
}

impl Guest {
    /// Does what can be done now; whether the upgrade has been answered.
    fn advance(&mut self, is_writable: bool) -> std::io::Result<bool> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        if !self.has_spoken {
            if !is_writable {
                return Ok(false);
            }
            self.has_spoken = true;
            if self.speaks.proxy {
                self.stream.write_all(PROXY_HEADER.as_bytes())?;
            }
            let request = request("/echo");
            match &mut self.session {
                Some(session) => session.writer().write_all(request.as_bytes())?,
                None => self.stream.write_all(request.as_bytes())?,
            }
        }
        let ended = || std::io::Error::other("the server ended the connection");
        let mut bytes = [0; 4096];
        loop {
            while let Some(session) = &mut self.session
                && session.wants_write()
            {
                session.write_tls(&mut self.stream)?;
            }
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(ended()),
                Ok(count) => self.take(&bytes[..count])?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if !self.answer.ends_with(b"\r\n\r\n") {
            return Ok(false);
        }
        match self.answer.starts_with(b"HTTP/1.1 101 ") {
            true => Ok(true),
            false => Err(std::io::Error::other(
                String::from_utf8_lossy(&self.answer).into_owned(),
            )),
        }
    }

    fn take(&mut self, mut bytes: &[u8]) -> std::io::Result<()> {
        let Some(session) = &mut self.session else {
            self.answer.extend_from_slice(bytes);
            return Ok(());
        };
        while !bytes.is_empty() {
            session.read_tls(&mut bytes)?;
            let state = session.process_new_packets();
            let length = state
                .map_err(std::io::Error::other)?
                .plaintext_bytes_to_read();
            let start = self.answer.len();
            self.answer.resize(start + length, 0);
            session.reader().read_exact(&mut self.answer[start..])?;
        }
        Ok(())
    }
}

const SECRET: &[u8] = b"0123456789abcdef0123456789ABCDEF";

/// A token of `user`, signed with `secret`.
fn token(user: &str, secret: &[u8]) -> String {
    let claims = format!(r#"{{"sub":"{user}","exp":4102444800}}"#);
    let message = [r#"{"alg":"HS256","typ":"JWT"}"#, &claims]
        .map(|part| URL_SAFE_NO_PAD.encode(part))
        .join(".");
    let signature = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, secret),
        message.as_bytes(),
    );
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

/// A server whose route `/members` wants a token.
fn token_settings() -> (Settings, Routes) {
    let key = Key::secret(Algorithm::Hs256, SECRET, None).unwrap();
    let keys = KeySet::new(vec![key]).unwrap();
    let mut settings = settings();
    settings.verifier = Some(Arc::new(
        Verifier::new(vec![(TokenPolicy::default(), keys)]).unwrap(),
    ));
    let (mut members, handler) = route("/members", On::default());
    members.token = TokenDemand::Required;
    (settings, vec![(members, handler)])
}

/// Comes with a token: the status of the answer, and the client.
fn knock(source: Ipv4Addr, address: SocketAddr, token: &str) -> (u16, Client) {
    let mut client = client_from(source, address);
    client.try_send(request(&format!("/members?token={token}")).as_bytes());
    let head = client.read_head();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), client)
}

#[test]
fn f5_a_flood_of_bad_tokens_from_one_address_locks_nobody_out() {
    const BURST: usize = 100;
    let (mut settings, routes) = token_settings();
    let quota = Quota::new(1, Duration::from_secs(1), BURST as u64).unwrap();
    settings.admission.limits.address_attempts = Some(Rate::of(quota));
    let running = Running::start(settings, routes);
    let (hostile, neighbour) = (host(0), host(1));
    let (bad, address) = (token("eve", &[b'x'; 32]), running.address);
    let good = token("alice", SECRET);
    let flood = std::thread::spawn(move || {
        let mut statuses = Vec::new();
        while statuses.len() < 500 {
            statuses.push(knock(hostile, address, &bad).0);
        }
        statuses
    });
    // Another address does not notice.
    let open: Vec<Client> = (0..BURST / 2)
        .map(|_| {
            let (status, client) = knock(neighbour, address, &good);
            assert_eq!(status, 101);
            client
        })
        .collect();
    let statuses = flood.join().unwrap();
    let count = |status| statuses.iter().filter(|one| **one == status).count();
    assert_eq!(count(401) + count(429), statuses.len(), "{statuses:?}");
    assert!(count(401) >= BURST, "the burst is for everybody");
    assert!(count(429) > 0, "the flood met its limit");
    // Nobody is banned: whoever shares the address is in as soon as the rate allows it.
    support::wait_until("somebody behind the same address is let in", || {
        knock(hostile, address, &good).0 == 101
    });
    drop(open);
    let counters = running.stop();
    let refused = Refused {
        limit: Limit::AddressAttempts,
        retry_after: None,
    };
    let at_accept = counters.refused.of(&Refusal::Limit(Stage::Accept, refused));
    assert!(at_accept >= count(429) as u64, "before any cryptography");
}

#[test]
fn f3_a_full_table_takes_nothing_from_those_in_it() {
    const KNOWN: usize = 64;
    let mut settings = settings();
    settings.addresses_max = KNOWN;
    settings.admission.limits.address_connections = Some(Cap::of(2));
    let overflow = 2 * settings.admission.limits.overflow_factor;
    let running = Running::start(settings, demo_routes());
    let address = running.address;
    let resident = host(0);
    let upgrade = |source| {
        let mut client = client_from(source, address);
        client.try_send(request("/echo").as_bytes());
        (client.read_head().starts_with("HTTP/1.1 101 "), client)
    };
    let (is_in, mut first) = upgrade(resident);
    assert!(is_in);

    // Ten times as many addresses as there is room for.
    let strangers: Vec<(bool, Client)> = (1..=10 * KNOWN).map(|n| upgrade(host(n))).collect();
    let strangers_in = strangers.iter().filter(|(is_in, _)| *is_in).count();
    let census = running.handle.gate().limits.census(Moment::default());
    assert_eq!(census.overflow_places, overflow, "one account for the rest");
    assert_eq!(
        strangers_in,
        census.address_places as usize - 1 + overflow as usize
    );
    assert!(strangers_in < strangers.len(), "{census:?}");

    // Who was there before has all that is its own, and no more.
    first.echo("still here");
    let (is_in, mut second) = upgrade(resident);
    assert!(is_in, "the second place is its own");
    second.echo("so am I");
    assert!(!upgrade(resident).0, "there is no third");
    // The table has room again when they have gone.
    drop(strangers);
    running.counters_when("the strangers have gone", |counters| counters.active() == 2);
    assert!(upgrade(host(20 * KNOWN)).0);
}

/// A handler that keeps its reactor busy for 100 ms with every message and every arrival.
struct Busy {
    letters: Receiver<()>,
    /// Nothing is ever sent here; but a channel that nobody can send to would not block.
    _sender: Sender<()>,
}

impl Busy {
    fn new(_reactor: usize) -> Self {
        let (sender, letters) = channel();
        Self {
            letters,
            _sender: sender,
        }
    }

    fn block(&self) {
        let _ = self.letters.recv_timeout(Duration::from_millis(100));
    }
}

impl Handler for Busy {
    fn open(&mut self, _: &mut Peer<'_>) {
        self.block();
    }

    fn message(&mut self, peer: &mut Peer<'_>, message: Message<'_>) {
        self.block();
        peer.send(message);
    }
}

#[test]
fn e1_a_reactor_that_lags_accepts_one_at_a_time_and_everybody_gets_in() {
    const CLIENTS: usize = 8;
    let mut settings = settings();
    settings.reactors = 1.try_into().unwrap();
    settings.loop_lag_max = Some(Duration::from_millis(50));
    let running = Running::start(settings, vec![(Route::open("/busy"), Arc::new(Busy::new))]);
    let mut talker = Client::open(running.address, "/busy");
    talker.send_text("one");
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|_| {
            let mut client = Client::connect(running.address);
            client.send(request("/busy").as_bytes());
            client
        })
        .collect();
    assert_eq!(talker.read_text(), "one");
    for client in &mut clients {
        assert!(client.read_head().starts_with("HTTP/1.1 101 "));
    }
    // Each arrival delays the turn in which it is served, and so the accepting of the one after next.
    let deferred = running.handle.counters().accept_deferred as usize;
    assert!(deferred >= CLIENTS / 2, "{deferred}");
}

#[test]
fn n1_beyond_saturation_the_oldest_makes_room_for_the_newest_and_is_told() {
    const CLIENTS: usize = 24;
    let mut settings = settings();
    settings.reactors = 1.try_into().unwrap();
    settings.handshakes_in_flight_max = 4;
    settings.loop_lag_max = None;
    let running = Running::start(settings, vec![(Route::open("/busy"), Arc::new(Busy::new))]);
    // Each arrival takes a tenth of a second: all of them more than two.
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|_| {
            let mut client = Client::connect(running.address);
            client.send(request("/busy").as_bytes());
            client
        })
        .collect();
    let counters = running.counters_when("all have been let in or sent away", |counters| {
        counters.opened + counters.closed_by(&CloseReason::Shed) == CLIENTS as u64
    });
    let shed = counters.closed_by(&CloseReason::Shed);
    assert!(shed as usize >= CLIENTS / 4, "{shed}");
    let refusal = Refusal::Shed(Stage::Head);
    assert_eq!(counters.refused.of(&refusal), shed);
    assert_eq!(counters.closed_by(&CloseReason::Evicted), 0);
    // Whoever made room is not left in doubt.
    let outcomes: Vec<bool> = (clients.iter_mut())
        .map(|client| client.stream.read(&mut [0]).is_ok_and(|count| count > 0))
        .collect();
    assert_eq!(
        outcomes.iter().filter(|is_in| !**is_in).count() as u64,
        shed
    );
    assert!(outcomes[CLIENTS - 1], "the newest: {outcomes:?}");
}

#[test]
fn n3_while_the_ramp_begins_one_handshake_in_sixteen_may_be_in_flight() {
    let mut settings = settings();
    settings.reactors = 1.try_into().unwrap();
    settings.handshakes_in_flight_max = 16;
    settings.ramp = Some(Duration::from_secs(3600));
    let running = Running::start(settings, demo_routes());
    let mut open = Client::open(running.address, "/echo");
    let silent = Client::connect(running.address);
    running.counters_when("the silent one has the only place", |counters| {
        counters.accepted == 2
    });
    let mut next = Client::connect(running.address);
    next.send(request("/echo").as_bytes());
    for _ in 0..10 {
        open.echo("hello");
    }
    assert_eq!(running.handle.counters().accepted, 2, "the next one waits");
    drop(silent);
    assert!(next.read_head().starts_with("HTTP/1.1 101 "));
}

#[test]
fn n3_when_the_ramp_is_over_the_limit_counts_in_full() {
    let mut settings = settings();
    settings.reactors = 1.try_into().unwrap();
    settings.handshakes_in_flight_max = 16;
    settings.ramp = Some(TICK);
    let running = Running::start(settings, demo_routes());
    let silent: Vec<Client> = (0..17).map(|_| Client::connect(running.address)).collect();
    running.counters_when("sixteen are on their way in", |counters| {
        counters.active() == 16
    });
    drop(silent);
}
