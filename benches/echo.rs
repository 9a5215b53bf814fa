//! Echo over loopback through a whole server with one reactor: kernel, codec, handler and back.
//!
//! `cargo bench --bench echo`. The client is a blocking socket on a thread of its own; a time is of
//! both ends and their wake-ups. Ids name the payload and what is in flight at once.

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot be set up has nothing to say"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroUsize;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidegate::ws::{Limits, Message, MessageKind, encoder, mask};
use tidegate::{ListenerSettings, Server, Settings, Speaks, demo};

const REQUEST: &[u8] = b"GET /echo HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

fn echo(c: &mut Criterion) {
    let settings = Settings {
        reactors: NonZeroUsize::MIN,
        listeners: vec![ListenerSettings {
            address: ([127, 0, 0, 1], 0).into(),
            speaks: Speaks::default(),
        }],
        ..Settings::default()
    };
    let routes = demo::routes(&Limits::default(), false).unwrap();
    let server = Server::start(settings, routes).unwrap();
    let address = server.addresses()[0];

    let mut group = c.benchmark_group("echo");
    for (name, size, count) in [
        ("64B/1 in flight", 64, 1),
        ("64B/16 in flight", 64, 16),
        ("64KiB/1 in flight", 64 * 1024, 1),
    ] {
        let mut client = Client::open(address);
        let payload: Vec<u8> = (0..=255).cycle().take(size).collect();
        let (sent, expected) = (
            masked(&payload).repeat(count),
            echoed(&payload).repeat(count),
        );
        let mut received = vec![0; expected.len()];
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                client.0.write_all(&sent).unwrap();
                client.0.read_exact(&mut received).unwrap();
                assert!(received == expected, "the echoes are the messages");
            });
        });
    }
    group.finish();

    server.handle().shut_down();
    let counters = server.wait();
    assert_eq!(counters.accepted, counters.closed_total());
    assert_eq!(counters.messages_received, counters.messages_sent);
}

/// A client's end of an open WebSocket.
struct Client(TcpStream);

impl Client {
    fn open(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream.write_all(REQUEST).unwrap();
        let mut answer = [0; 129];
        stream.read_exact(&mut answer).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 101 ") && answer.ends_with(b"\r\n\r\n"));
        Self(stream)
    }
}

/// A client's frame.
fn masked(payload: &[u8]) -> Vec<u8> {
    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let head = encoder::encode_header(MessageKind::Binary, false, payload.len());
    let mut frame = head.as_bytes().to_vec();
    frame[1] |= 0x80;
    frame.extend_from_slice(&KEY);
    let start = frame.len();
    frame.extend_from_slice(payload);
    mask::unmask(&mut frame[start..], KEY);
    frame
}

/// The server's frame.
fn echoed(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    encoder::encode_message(&mut frame, &Message::from(payload));
    frame
}

criterion_group!(benches, echo);
criterion_main!(benches);
