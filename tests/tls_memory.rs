//! What an idle TLS session costs: counted in the Rust allocator, and as resident memory, which
//! includes what aws-lc asks of C's `malloc`. Both client and server live in this process, so the
//! clients are dropped before anything is counted. One test only: the counters are the process's.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, as tests do"
)]

use std::alloc::System;
use std::io::{Read, Write};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tidegate::buffer::Buffer;
use tidegate::tls::{Acceptor, SESSION_BYTES, Session, State};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const SESSIONS: usize = 2000;
/// The budget of a connection is 4 KiB; this leaves the connection itself its share.
const RESIDENT_MAX: usize = 3_900;
const LIVE_MAX: usize = 2_500;

#[test]
fn an_idle_session_is_within_its_budget_before_and_after_traffic() {
    let size = size_of::<Session>();
    println!("Session: {size} bytes");
    assert!(size <= 1_280, "the size class above 1,024");
    // All stay open to the end: what one round freed, the next would be given for nothing.
    let mut sessions = Vec::with_capacity(4 * SESSIONS);
    for version in [&TLS12, &TLS13] {
        let acceptor = Acceptor::self_signed(&["a.example".into()]).unwrap();
        let config = client_config(&acceptor, version);
        let mut scratch = Scratch::default();
        // Whatever is made once is made now.
        drop(established(&acceptor, &config, false, &mut scratch));

        for has_traffic in [false, true] {
            // Pages that handshakes left behind are filled first.
            for _ in 0..SESSIONS / 10 {
                sessions.push(established(&acceptor, &config, has_traffic, &mut scratch));
            }
            let (live, resident) = (live_bytes(), resident_bytes());
            let counted = SESSIONS - SESSIONS / 10;
            for _ in 0..counted {
                sessions.push(established(&acceptor, &config, has_traffic, &mut scratch));
            }
            let live = (live_bytes() - live) / counted;
            let resident = (resident_bytes() - resident) / counted;
            println!("{version:?}, traffic {has_traffic}: {live} live, {resident} resident");
            assert!(sessions.iter().all(|session| session.bytes_held() == 0));
            assert!(live <= LIVE_MAX, "{live} bytes live");
            assert!(resident <= RESIDENT_MAX, "{resident} bytes resident");
            // What the figure of memory says of a session is what it takes, give or take a fifth.
            let told = SESSION_BYTES / 5 * 4..=SESSION_BYTES / 5 * 6;
            assert!(told.contains(&resident), "{resident} bytes resident");
        }
    }
}

/// What a reactor lends to all of its connections.
#[derive(Default)]
struct Scratch {
    wire: Vec<u8>,
    plain: Vec<u8>,
    out: Buffer,
}

fn established(
    acceptor: &Acceptor,
    config: &Arc<ClientConfig>,
    has_traffic: bool,
    scratch: &mut Scratch,
) -> Box<Session> {
    let name = ServerName::try_from("a.example").unwrap();
    let mut client = ClientConnection::new(Arc::clone(config), name).unwrap();
    client.set_buffer_limit(None);
    let mut session = Box::new(acceptor.session().unwrap());
    let mut state = State::Handshaking;
    let message = [7; 100 * 1024];
    for turn in 0..4 {
        if turn == 2 && has_traffic {
            client.writer().write_all(&message).unwrap();
        }
        scratch.wire.clear();
        scratch.plain.clear();
        scratch.out.clear();
        while client.wants_write() {
            client.write_tls(&mut scratch.wire).unwrap();
        }
        // In reads of a size that leaves a record incomplete each time.
        for read in scratch.wire.chunks(5_000) {
            let mut input = session.take_kept();
            input.extend_from_slice(read);
            let received = session.receive(&mut input, &mut scratch.plain, &mut scratch.out);
            session.keep(&input[received.used..]);
            state = received.state;
        }
        if turn == 2 && has_traffic {
            assert!(scratch.plain == message);
            session.encrypt(&message, &mut scratch.out).unwrap();
        }
        let mut wire = &scratch.out[..];
        let mut read = 0;
        while !wire.is_empty() {
            client.read_tls(&mut wire).unwrap();
            client.process_new_packets().unwrap();
            let mut buffer = [0; 16_384];
            while let Ok(len @ 1..) = client.reader().read(&mut buffer) {
                read += len;
            }
        }
        if turn == 2 && has_traffic {
            assert_eq!(read, message.len());
        }
    }
    assert_eq!(state, State::Established);
    session
}

fn client_config(
    acceptor: &Acceptor,
    version: &'static SupportedProtocolVersion,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let pem = acceptor.certificate_pem();
    roots
        .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    // Tickets kept by the client would be counted.
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

fn live_bytes() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}
