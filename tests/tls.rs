//! TLS over real sockets, with rustls as the client: what a browser or a library would see, and what
//! somebody sees who breaks off, lies, or speaks something else. The session's own corners are tested
//! in `tests/tls_session.rs`, without a socket.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::process::Signal;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore};
use rustls::{StreamOwned, SupportedProtocolVersion, version};
use tidegate::tls::{Acceptor, CertificateFiles, TlsError};
use tidegate::{CloseReason, ConnectionId, Settings};

use support::watched::{Watched, sum};
use support::{Client, On, Program, Running, demo_routes, frame, request, route, settings};

/// The reason under which all failures of TLS are counted.
const TLS: CloseReason = CloseReason::Tls(TlsError::BadRecord);

type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// Settings for a server that speaks TLS only, and its certificate.
fn tls_settings() -> (Settings, Acceptor) {
    let acceptor = Acceptor::self_signed(&["localhost".to_owned()]).unwrap();
    let mut settings = settings();
    settings.listeners[0].speaks.tls = true;
    settings.acceptor = Some(acceptor.clone());
    (settings, acceptor)
}

/// A client's configuration that trusts this certificate.
fn trusting(pem: &str, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    roots.add(certificate).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

fn both() -> [&'static SupportedProtocolVersion; 2] {
    [&version::TLS13, &version::TLS12]
}

/// A TLS connection of which the handshake has not begun.
fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Client<TlsStream> {
    let name = ServerName::try_from("localhost").unwrap();
    let session = ClientConnection::new(Arc::clone(config), name).unwrap();
    let Client { stream, .. } = Client::connect(address);
    Client::over(StreamOwned::new(session, stream))
}

fn open(address: SocketAddr, config: &Arc<ClientConfig>, path: &str) -> Client<TlsStream> {
    let mut client = connect(address, config);
    client.upgrade(path);
    client
}

#[test]
fn both_versions_echo_messages_of_every_length() {
    let (mut settings, acceptor) = tls_settings();
    settings.outbox.bytes_max = 4 << 20;
    let mut routes = demo_routes();
    routes[0].0.limits.message_bytes_max = 1 << 20;
    let running = Running::start(settings, routes);
    for (only, expected) in [
        (&version::TLS12, ProtocolVersion::TLSv1_2),
        (&version::TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let config = trusting(&acceptor.certificate_pem(), &[only]);
        let mut client = open(running.address, &config, "/echo");
        assert_eq!(client.stream.conn.protocol_version(), Some(expected));
        // Around the longest record of 16 KiB, and more than one read takes.
        for length in [0, 1, 125, 16_383, 16_384, 16_385, 100_000, 1 << 20] {
            let payload: Vec<u8> = (0..=250).cycle().take(length).collect();
            client.send_frame(0x82, &payload);
            assert!(client.read_frame().unwrap().payload == payload, "{length}");
        }
        let many: Vec<u8> = (0..2_000)
            .flat_map(|number| frame(0x81, format!("{number}").as_bytes()))
            .collect();
        client.send(&many);
        for number in 0..2_000 {
            assert_eq!(client.read_text(), number.to_string());
        }
        // `close` reads to the end of the stream, which under TLS must be a close_notify: without one
        // rustls makes an error of it.
        assert_eq!(client.close(1000), Some(1000));
    }
    let counters = running.stop();
    assert_eq!((counters.tls_established, counters.tls_resumed), (2, 0));
    assert_eq!(counters.closed_by(&CloseReason::PeerClosed), 2);
}

#[test]
fn a_publication_reaches_plain_and_tls_clients_alike() {
    let (mut settings, acceptor) = tls_settings();
    let mut plain_listener = settings.listeners[0];
    plain_listener.speaks.tls = false;
    settings.listeners.push(plain_listener);
    let running = Running::start(settings, demo_routes());
    let [tls, plain] = running.addresses() else {
        panic!("two listeners")
    };
    let config = trusting(&acceptor.certificate_pem(), &both());
    let mut encrypted: Vec<_> = (0..6).map(|_| open(*tls, &config, "/broadcast")).collect();
    let mut bare = Client::open(*plain, "/broadcast");
    let text = "to all ".repeat(5_000);
    bare.send_text(&text);
    assert!(bare.read_text() == text);
    for client in &mut encrypted {
        assert!(client.read_text() == text);
    }
}

#[test]
fn the_figures_tell_versions_and_resumed_sessions_apart() {
    let (settings, acceptor) = tls_settings();
    let watched = Watched::start(settings, demo_routes());
    for (versions, times) in [(&version::TLS13, 3), (&version::TLS12, 2)] {
        let config = trusting(&acceptor.certificate_pem(), &[versions]);
        for _ in 0..times {
            // The ticket has come when the echo has.
            let mut client = open(watched.address, &config, "/echo");
            client.echo("hello");
            client.close(1000);
        }
    }
    let samples = watched.samples_when("all are counted", |samples| {
        sum(samples, "tidegate_connections_opened_total") == 5.0
    });
    for (tls, resumed, count) in [
        ("1.3", false, 1.0),
        ("1.3", true, 2.0),
        ("1.2", false, 1.0),
        ("1.2", true, 1.0),
        ("none", false, 0.0),
    ] {
        let labels = format!("{{tls=\"{tls}\",resumed=\"{resumed}\"}}");
        let name = format!("tidegate_connections_opened_total{labels}");
        assert_eq!(samples[&name], count, "{name}");
    }
    assert_eq!(
        samples["tidegate_tls_handshakes_total{resumed=\"true\"}"],
        3.0
    );
    let timed = "tidegate_handshake_duration_seconds_count{stage=\"tls\"}";
    assert_eq!(samples[timed], 5.0);
}

#[test]
fn a_session_is_resumed_on_whatever_reactor_it_comes_back_to() {
    let (settings, acceptor) = tls_settings();
    let who = On {
        open: |peer| {
            peer.send(peer.id().to_string());
        },
        ..On::default()
    };
    let running = Running::start(settings, vec![route("/who", who)]);
    for only in both() {
        let config = trusting(&acceptor.certificate_pem(), &[only]);
        let mut reactors = [false; 2];
        let mut first = true;
        for _ in 0..64 {
            let mut client = open(running.address, &config, "/who");
            let id: ConnectionId = client.read_text().parse().unwrap();
            let kind = client.stream.conn.handshake_kind().unwrap();
            assert_eq!(kind == HandshakeKind::Resumed, !first, "{only:?}");
            assert_eq!(client.close(1000), Some(1000));
            if !first {
                reactors[id.reactor()] = true;
            }
            first = false;
            if reactors == [true; 2] {
                break;
            }
        }
        assert_eq!(reactors, [true; 2], "both reactors have resumed a session");
    }
    let counters = running.stop();
    assert_eq!(counters.tls_established - counters.tls_resumed, 2);
}

#[test]
fn a_close_notify_is_answered_and_a_truncation_is_counted() {
    let (settings, acceptor) = tls_settings();
    let running = Running::start(settings, demo_routes());
    let config = trusting(&acceptor.certificate_pem(), &both());
    // The stream ends in good order: our close_notify comes back.
    let mut client = open(running.address, &config, "/echo");
    client.echo("hello");
    client.stream.conn.send_close_notify();
    client.stream.flush().unwrap();
    assert_eq!(client.stream.read(&mut [0; 16]).unwrap(), 0);
    let counters = running.closed_when(&CloseReason::PeerGone, 1);
    assert_eq!(counters.tls_truncated, 0);
    // It is cut off: the end could be anybody's doing (RFC 8446 §6.1).
    let mut client = open(running.address, &config, "/echo");
    client.echo("hello");
    client.stream.sock.shutdown(Shutdown::Write).unwrap();
    let counters = running.closed_when(&CloseReason::PeerGone, 2);
    assert_eq!(counters.tls_truncated, 1);
}

#[test]
fn plain_bytes_on_a_tls_port_end_cleanly_and_are_counted() {
    let (settings, _) = tls_settings();
    let running = Running::start(settings, demo_routes());
    for bytes in [
        request("/echo").as_bytes(),
        b"PROXY TCP4 192.0.2.1 192.0.2.2 5 6\r\n",
    ] {
        let mut client = Client::connect(running.address);
        client.send(bytes);
        assert_eq!(client.read_to_end(), b"");
    }
    let counters = running.closed_when(&TLS, 2);
    assert_eq!(counters.tls_established, 0);
}

#[test]
fn b10_a_handshake_has_one_deadline_however_it_drips() {
    let (mut settings, _) = tls_settings();
    settings.timeouts.tls_handshake = 4 * tidegate::timer::TICK;
    let running = Running::start(settings, demo_routes());
    let mut silent = Client::connect(running.address);
    let mut slow = Client::connect(running.address);
    slow.send(b"\x16\x03\x01\x02\x00\x01\x00");
    assert_eq!((silent.read_to_end(), slow.read_to_end()), (vec![], vec![]));
    let mut nearly = Client::connect(running.address);
    // A hello that announces its whole length and never comes.
    nearly.send(&[&[0x16, 3, 1, 0x40, 0][..], &[1; 1000]].concat());
    nearly.read_to_end();
    let counters = running.handle.counters();
    let ended = counters.closed_by(&CloseReason::TlsTimeout) + counters.closed_by(&TLS);
    assert_eq!((counters.active(), ended), (0, 3));
}

#[test]
fn the_request_has_its_own_deadline_behind_the_handshake() {
    let (mut settings, acceptor) = tls_settings();
    settings.timeouts.head = 4 * tidegate::timer::TICK;
    let running = Running::start(settings, demo_routes());
    let config = trusting(&acceptor.certificate_pem(), &both());
    let mut client = connect(running.address, &config);
    client.send(b"GET /echo HT");
    let (status, ..) = client.read_refusal();
    assert_eq!(status, 408);
    running.closed_when(&CloseReason::HeadTimeout, 1);
}

/// The alert that a client met, by the error it made of it.
fn alert(stream: &mut TlsStream) -> String {
    let error = loop {
        match stream.read(&mut [0; 1024]) {
            Ok(0) => panic!("the stream ended without an alert"),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::InvalidData => break error,
            Err(error) => panic!("no alert: {error}"),
        }
    };
    error.to_string()
}

#[test]
fn fatal_alerts_reach_the_peer() {
    let (settings, acceptor) = tls_settings();
    let running = Running::start(settings, demo_routes());

    // During the handshake: no application protocol in common (RFC 7301 §3.2).
    let mut config = Arc::unwrap_or_clone(trusting(&acceptor.certificate_pem(), &both()));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut client = connect(running.address, &Arc::new(config));
    let error = client.stream.conn.complete_io(&mut client.stream.sock);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("NoApplicationProtocol"), "{error}");
    drop(client);

    // After it: a record that does not decrypt, alone and behind a message in the same segment, whose
    // answer must not be in the alert's way.
    for only in both() {
        for text in [None, Some("before")] {
            let config = trusting(&acceptor.certificate_pem(), &[only]);
            let mut client = open(running.address, &config, "/echo");
            let mut bytes = Vec::new();
            if let Some(text) = text {
                let conn = &mut client.stream.conn;
                conn.writer()
                    .write_all(&frame(0x81, text.as_bytes()))
                    .unwrap();
                conn.write_tls(&mut bytes).unwrap();
            }
            bytes.extend_from_slice(&[0x17, 3, 3, 0, 40]);
            bytes.extend_from_slice(&[7; 40]);
            client.stream.sock.write_all(&bytes).unwrap();
            let error = alert(&mut client.stream);
            assert!(error.contains("BadRecordMac"), "{error}");
        }
    }
    running.closed_when(&TLS, 5);
}

#[test]
fn a_client_that_refuses_the_certificate_is_counted() {
    let (settings, _) = tls_settings();
    let running = Running::start(settings, demo_routes());
    let stranger = Acceptor::self_signed(&["localhost".to_owned()]).unwrap();
    let config = trusting(&stranger.certificate_pem(), &both());
    let mut client = connect(running.address, &config);
    let failed = client.stream.conn.complete_io(&mut client.stream.sock);
    assert!(failed.is_err());
    drop(client);
    running.closed_when(&TLS, 1);
}

#[test]
fn a11_a_tls_peer_that_never_reads_is_not_read_from_and_catches_up_later() {
    let (settings, acceptor) = tls_settings();
    let running = Running::start(settings, demo_routes());
    let config = trusting(&acceptor.certificate_pem(), &both());
    let mut client = open(running.address, &config, "/echo");
    client.stream.sock.set_nonblocking(true).unwrap();
    let payload = vec![9; 60_000];
    let mut sent = 0;
    // Until the server has stopped reading.
    while running.handle.counters().reading_paused == 0 {
        if client.stream.conn.wants_write() {
            match client.stream.conn.write_tls(&mut client.stream.sock) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => panic!("{error}"),
                _ => {}
            }
            continue;
        }
        client
            .stream
            .conn
            .writer()
            .write_all(&frame(0x82, &payload))
            .unwrap();
        sent += 1;
        assert!(sent < 2_000, "the server reads without end");
    }
    let counters = running.handle.counters();
    assert!(counters.outbox_bytes <= (1 << 20) + 65_536, "{counters:#?}");
    client.stream.sock.set_nonblocking(false).unwrap();
    for _ in 0..sent {
        assert!(client.read_frame().unwrap().payload == payload);
    }
    assert_eq!(client.close(1000), Some(1000));
}

#[test]
fn x32_records_may_come_in_single_bytes() {
    let (settings, acceptor) = tls_settings();
    let running = Running::start(settings, demo_routes());
    for only in both() {
        let config = trusting(&acceptor.certificate_pem(), &[only]);
        let name = ServerName::try_from("localhost").unwrap();
        let mut session = ClientConnection::new(config, name).unwrap();
        let mut socket = Client::connect(running.address).stream;
        session
            .writer()
            .write_all(request("/echo").as_bytes())
            .unwrap();
        while session.is_handshaking() || session.wants_write() {
            let mut bytes = Vec::new();
            session.write_tls(&mut bytes).unwrap();
            for byte in bytes {
                socket.write_all(&[byte]).unwrap();
            }
            if session.is_handshaking() {
                session.read_tls(&mut socket).unwrap();
                session.process_new_packets().unwrap();
            }
        }
        let mut client = Client::over(StreamOwned::new(session, socket));
        assert!(client.read_head().starts_with("HTTP/1.1 101 "));
        client.echo("hello");
    }
}

/// A certificate for `localhost` and its key, in two files named after `name`.
fn certificate(name: &str) -> (CertificateFiles, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = |suffix: &str, text: String| -> PathBuf {
        let path = directory.join(format!("tls-{name}.{suffix}"));
        std::fs::write(&path, text).unwrap();
        path
    };
    let files = CertificateFiles {
        certificate_chain: file("crt", made.cert.pem()),
        private_key: file("key", made.signing_key.serialize_pem()),
    };
    (files, made.cert.pem())
}

#[test]
fn x19_a_reload_shows_the_new_certificate_and_a_broken_one_changes_nothing() {
    let (files, old) = certificate("reload");
    let (chain, key) = (files.certificate_chain.clone(), files.private_key.clone());
    let mut program = Program::start(
        &[
            "--listen-tls",
            "127.0.0.1:0",
            "--tls-cert",
            chain.to_str().unwrap(),
            "--tls-key",
            key.to_str().unwrap(),
        ],
        &[],
    );
    let address = program.addresses[0];
    let old = trusting(&old, &both());
    let mut before = open(address, &old, "/echo");

    // Garbage, and a key that belongs to another certificate: the old pair stays.
    let (other, new) = certificate("reload-other");
    for (path, bytes) in [
        (&chain, b"no certificate".to_vec()),
        (&chain, std::fs::read(&other.certificate_chain).unwrap()),
    ] {
        std::fs::write(path, bytes).unwrap();
        program.signal(Signal::HUP);
        let line = program.read_line_with("certificates stay as they were");
        assert!(line.contains("tls-reload"), "it names the file: {line}");
        open(address, &old, "/echo").echo("hello");
    }
    // The pair is whole now.
    std::fs::copy(&other.private_key, &key).unwrap();
    program.signal(Signal::HUP);
    program.read_line_with("certificates reloaded");
    open(address, &trusting(&new, &both()), "/echo").echo("hello");
    before.echo("an open connection does not notice");
    program.signal(Signal::TERM);
    drop(before);
    assert_eq!(program.wait().code(), Some(0));
}
