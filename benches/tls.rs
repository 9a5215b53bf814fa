//! TLS through a session: one record or message sealed, opened and echoed, and full handshakes.
//!
//! `cargo bench --bench tls`. Times are of the server's side only, except that `open` and `echo`
//! prepare their ciphertext outside of the timing. Bulk ids name the bytes of plaintext.

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot be set up has nothing to say"
)]

use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use tidegate::buffer::Buffer;
use tidegate::tls::{Acceptor, Session, State};

const SIZES: [(usize, &str); 4] = [
    (64, "64B"),
    (1024, "1KiB"),
    (16 * 1024, "16KiB"),
    (64 * 1024, "64KiB"),
];

fn records(criterion: &mut Criterion) {
    let acceptor = acceptor();
    let config = client_config(&acceptor, &TLS13, vec![kx_group::X25519]);
    for (size, name) in SIZES {
        let message = vec![7; size];
        let mut group = criterion.benchmark_group("tls");
        group.throughput(Throughput::Bytes(size as u64));

        let (mut session, mut client) = connect(&acceptor, &config);
        group.bench_function(format!("encrypt/{name}"), |bencher| {
            let mut out = Buffer::default();
            bencher.iter(|| {
                out.clear();
                session.encrypt(black_box(&message), &mut out).unwrap();
                assert!(out.len() > size);
            });
        });

        group.bench_function(format!("decrypt/{name}"), |bencher| {
            let mut plain = Vec::with_capacity(size);
            let mut out = Buffer::default();
            bencher.iter_batched_ref(
                || client_sends(&mut client, &message),
                |wire| {
                    plain.clear();
                    let received = session.receive(wire, &mut plain, &mut out);
                    assert!(received.used == wire.len() && plain.len() == size);
                },
                BatchSize::NumIterations(256),
            );
        });
        group.finish();
    }
}

fn handshakes(criterion: &mut Criterion) {
    let acceptor = acceptor();
    let mut group = criterion.benchmark_group("tls/handshake");
    for (name, version, groups) in [
        ("1.3/X25519", &TLS13, vec![kx_group::X25519]),
        ("1.3/X25519MLKEM768", &TLS13, vec![kx_group::X25519MLKEM768]),
        ("1.2/X25519", &TLS12, vec![kx_group::X25519]),
    ] {
        let config = client_config(&acceptor, version, groups);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| (0..count).map(|_| handshake(&acceptor, &config).2).sum());
        });
    }
    group.finish();
}

/// A handshake without resumption, and the time the server's side took.
fn handshake(
    acceptor: &Acceptor,
    config: &Arc<ClientConfig>,
) -> (Box<Session>, ClientConnection, Duration) {
    let name = ServerName::try_from("a.example").unwrap();
    let mut client = ClientConnection::new(Arc::clone(config), name).unwrap();
    let (mut wire, mut plain, mut out) = (Vec::new(), Vec::new(), Buffer::default());
    let mut spent = Duration::ZERO;
    let start = now();
    let mut session = Box::new(acceptor.session().unwrap());
    spent += start.elapsed();
    loop {
        wire.clear();
        out.clear();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let start = now();
        let received = session.receive(&mut wire, &mut plain, &mut out);
        spent += start.elapsed();
        assert!(received.used == wire.len());
        let mut rest = &out[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
        }
        if received.state == State::Established {
            return (session, client, spent);
        }
    }
}

fn connect(acceptor: &Acceptor, config: &Arc<ClientConfig>) -> (Box<Session>, ClientConnection) {
    let (session, mut client, _) = handshake(acceptor, config);
    client.set_buffer_limit(None);
    (session, client)
}

fn client_sends(client: &mut ClientConnection, message: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    client.writer().write_all(message).unwrap();
    while client.wants_write() {
        client.write_tls(&mut wire).unwrap();
    }
    wire
}

fn acceptor() -> Acceptor {
    Acceptor::self_signed(&["a.example".into()]).unwrap()
}

fn client_config(
    acceptor: &Acceptor,
    version: &'static SupportedProtocolVersion,
    kx_groups: Vec<&'static dyn SupportedKxGroup>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let pem = acceptor.certificate_pem();
    roots
        .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
        .unwrap();
    let provider = CryptoProvider {
        kx_groups,
        ..aws_lc_rs::default_provider()
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

#[expect(clippy::disallowed_methods, reason = "a benchmark is about the clock")]
fn now() -> Instant {
    Instant::now()
}

criterion_group!(benches, records, handshakes);
criterion_main!(benches);
