//! Floods and storms over real sockets, and the limits that meet them: what is refused before it costs
//! anything, who is not locked out by it, and how a server takes on work when it has just started.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation
)]

mod support;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConfig, StreamOwned};
use socket2::{Domain, Protocol, Socket, Type};
use tidegate::CloseReason;
use tidegate::admission::address::TrustedNetworks;
use tidegate::admission::limits::{Cap, Limit, Rate, Refused};
use tidegate::admission::rate::Quota;
use tidegate::admission::{Refusal, Stage};
use tidegate::tls::TlsError;

use support::tls::{TlsClient, session, tls_settings, upgrade_over};
use support::{Client, PATIENCE, Program, Running, demo_routes, request, settings};

const SOMEBODY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const ANOTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

fn connect_from(source: Ipv4Addr, address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.bind(&SocketAddrV4::new(source, 0).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    socket.set_tcp_nodelay(true).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket.into()
}

fn tls_client(source: Ipv4Addr, address: SocketAddr, config: &Arc<ClientConfig>) -> TlsClient {
    upgrade_over(connect_from(source, address), "/echo", config)
}

#[test]
fn e1_a_flood_of_hellos_beyond_the_rate_is_refused_before_any_cryptography() {
    const BURST: usize = 10;
    const HELLOS: usize = 300;
    let (mut settings, config) = tls_settings();
    let quota = Quota::new(1, Duration::from_secs(3_600), BURST as u64).unwrap();
    settings.admission.limits.address_attempts = Some(Rate::of(quota));
    let running = Running::start(settings, demo_routes());
    let mut resident = tls_client(ANOTHER, running.address, &config);
    let mut hello = Vec::new();
    session(&config).write_tls(&mut hello).unwrap();
    let mut answered = 0;
    for _ in 0..HELLOS {
        let mut stream = connect_from(SOMEBODY, running.address);
        // It may be closed before it is written to, or reset because of what was written.
        let _ = stream.write_all(&hello);
        answered += usize::from(stream.read(&mut [0]).is_ok_and(|count| count > 0));
    }
    resident.echo("still here");
    assert_eq!(answered, BURST, "signatures that the flood was worth");
    let mut neighbour = tls_client(ANOTHER, running.address, &config);
    neighbour.echo("let in");
    drop((resident, neighbour));
    let counters = running.stop();
    let refused = Refused {
        limit: Limit::AddressAttempts,
        retry_after: None,
    };
    let refused = counters.refused.of(&Refusal::Limit(Stage::Accept, refused));
    assert_eq!(refused as usize, HELLOS - BURST);
    assert_eq!(counters.tls_established, 2);
}

#[test]
fn e1_who_has_given_up_costs_no_handshake() {
    const GONE: usize = 50;
    let (mut settings, config) = tls_settings();
    settings.reactors = 1.try_into().unwrap();
    // One place, which a silent client holds: the others wait in the kernel's queue.
    settings.handshakes_in_flight_max = 1;
    let running = Running::start(settings, demo_routes());
    let silent = connect_from(SOMEBODY, running.address);
    running.counters_when("the place is taken", |counters| counters.accepted == 1);
    let mut gone = Vec::new();
    for _ in 0..GONE {
        let mut hello = Vec::new();
        session(&config).write_tls(&mut hello).unwrap();
        let mut stream = connect_from(SOMEBODY, running.address);
        stream.write_all(&hello).unwrap();
        // It will not say more, but would hear an answer.
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        gone.push(stream);
    }
    drop(silent);
    for mut stream in gone {
        let answer = stream.read(&mut [0]);
        assert!(!matches!(answer, Ok(1..)), "a handshake for nobody");
    }
    // Whoever does wait is served.
    tls_client(SOMEBODY, running.address, &config).echo("here");
    let counters = running.counters_when("all have gone", |counters| counters.active() == 0);
    assert_eq!(counters.tls_established, 1);
    assert_eq!(counters.abandoned as usize, GONE + 1);
}

#[test]
fn e2_e3_alerts_and_key_updates_without_end_end_one_connection_and_no_other() {
    let (settings, config) = tls_settings();
    let running = Running::start(settings, demo_routes());
    let mut resident = tls_client(ANOTHER, running.address, &config);
    // E2: an alert where a hello belongs.
    let mut stream = connect_from(SOMEBODY, running.address);
    stream
        .write_all(b"\x15\x03\x01\x00\x02\x01\x00")
        .and_then(|()| stream.read(&mut [0; 16]).map(drop))
        .unwrap_or_default();
    drop(stream);
    // E3: renewals of the key, with a message in between now and then.
    let mut hostile = tls_client(SOMEBODY, running.address, &config);
    hostile.echo("an honest beginning");
    let StreamOwned { conn, sock } = &mut hostile.stream;
    for update in 0..1_000 {
        if conn.refresh_traffic_keys().is_err() {
            break;
        }
        if update % 7 == 0 {
            conn.writer()
                .write_all(&support::frame(0x81, b"x"))
                .unwrap();
        }
        // It is ended long before the last, and may be reset.
        if conn.write_tls(sock).is_err() {
            break;
        }
    }
    let _ = sock.read_to_end(&mut Vec::new());
    drop(hostile);
    running.closed_when(&CloseReason::Tls(TlsError::RecordFlood), 1);
    resident.echo("nobody else noticed");
}

#[test]
fn f2_a_client_that_changes_its_address_within_a_64_stays_one_client() {
    const EACH: usize = 3;
    const FACTOR: u32 = 4;
    let mut settings = settings();
    settings.listeners[0].speaks.proxy = true;
    settings.admission.trusted = TrustedNetworks::parse(["127.0.0.0/8"]).unwrap();
    let limits = &mut settings.admission.limits;
    limits.address_connections = Some(Cap::of(EACH as u32));
    limits.site = Some(tidegate::admission::limits::Site {
        width: 48,
        factor: FACTOR,
    });
    let running = Running::start(settings, demo_routes());
    let address = running.address;
    let come = |source: Ipv6Addr| {
        let mut client = Client::connect(address);
        let header = format!("PROXY TCP6 {source} 2001:db8::1 40000 443\r\n");
        client.send(format!("{header}{}", request("/echo")).as_bytes());
        let head = client.read_head();
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        assert!(status == 101 || status == 429, "{head}");
        (status == 101).then_some(client)
    };
    let network = 0x2001_0db8_0001_0000_u128 << 64;
    // A thousand addresses of one /64.
    let mut open: Vec<Client> = (0..1_000)
        .filter_map(|host| come(Ipv6Addr::from_bits(network + host)))
        .collect();
    assert_eq!(open.len(), EACH, "the /64 is one client");
    // A hundred /64s of the same /48.
    open.extend((0..100).filter_map(|subnet| come(Ipv6Addr::from_bits(network + (subnet << 64)))));
    assert_eq!(open.len(), EACH * FACTOR as usize, "the /48 is one site");
    // Somebody else's /48.
    let neighbour = Ipv6Addr::from_bits(network + (1 << 80));
    come(neighbour).unwrap().echo("let in");
    for client in &mut open {
        client.echo("still here");
    }
}

#[test]
fn b9_what_is_sent_behind_the_request_is_refused_and_not_kept() {
    let running = Running::demo();
    // Ten thousand requests, none of which waits for the answer to the one before (§4.1).
    let mut client = Client::connect(running.address);
    client.try_send(request("/echo").repeat(10_000).as_bytes());
    let mut answer = Vec::new();
    // A reset may eat the end of it: what matters is that there is no second answer.
    let _ = client.stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 400 "),
        "{answer}"
    );
    assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{answer}");
    Client::open(running.address, "/echo").echo("hello");
    let counters = running.stop();
    assert_eq!((counters.opened, counters.heads), (1, 2));
}

#[test]
fn n3_the_ramp_grows_evenly_to_the_whole_limit() {
    const MAX: u64 = 16;
    const RAMP: Duration = Duration::from_secs(3);
    let began = Instant::now();
    let mut settings = settings();
    settings.reactors = 1.try_into().unwrap();
    settings.handshakes_in_flight_max = MAX as usize;
    settings.ramp = Some(RAMP);
    let running = Running::start(settings, demo_routes());
    // More than give way to each other until the end, because each has a second's patience.
    let _silent: Vec<Client> = (0..200).map(|_| Client::connect(running.address)).collect();
    let seen = RefCell::new(BTreeSet::new());
    running.counters_when("the whole limit is in use", |counters| {
        let allowed = MAX * began.elapsed().as_millis() as u64 / RAMP.as_millis() as u64;
        let in_flight = counters.active();
        assert!(
            in_flight <= allowed.clamp(1, MAX),
            "{in_flight} of {allowed}"
        );
        seen.borrow_mut().insert(in_flight);
        in_flight == MAX
    });
    assert!(began.elapsed() >= RAMP - Duration::from_millis(200));
    assert!(seen.borrow().len() >= 4, "it grew in steps: {seen:?}");
}

#[test]
fn n3_the_program_ramps_as_it_is_configured() {
    let program = Program::start(
        &["serve", "--listen", "127.0.0.1:0", "--reactors", "1"],
        &[
            ("TIDEGATE_LIMITS_RAMP", "1h"),
            ("TIDEGATE_LIMITS_HANDSHAKES_IN_FLIGHT_MAX", "16"),
        ],
    );
    let address = program.addresses[0];
    let mut open = Client::open(address, "/echo");
    let silent = Client::connect(address);
    open.echo("the silent one is in");
    let mut next = Client::connect(address);
    next.send(request("/echo").as_bytes());
    // As long as the silent one is patient, the next one is not even looked at.
    let before = Instant::now();
    while before.elapsed() < Duration::from_millis(300) {
        open.echo("hello");
    }
    next.stream.set_nonblocking(true).unwrap();
    let answer = next.stream.peek(&mut [0]);
    assert!(answer.is_err(), "one in sixteen: {answer:?}");
    next.stream.set_nonblocking(false).unwrap();
    drop(silent);
    assert!(next.read_head().starts_with("HTTP/1.1 101 "));
}
