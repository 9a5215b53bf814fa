//! What a connection costs in heap bytes, counted by the allocator.
//!
//! The server runs in this process; the clients are bare sockets, which own no heap. What is counted
//! is what was asked of the Rust allocator. Resident memory, which includes the allocator's own
//! overhead and what the cryptography library allocates in C, is measured by `benches/memory.py`.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::alloc::System;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::client::Resumption;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use support::tls::{open_tls, trusting};
use support::{Client, Running, demo_routes, frame, settings};
use tidegate::tls::Acceptor;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Pages of the slab and of the wheel are whole for this many connections, so the slope is exact.
const CONNECTIONS: usize = 2048;

fn live() -> isize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated as isize - stats.bytes_deallocated as isize
}

/// Connections that are used before their memory is looked at.
const BUSY: usize = 64;
const MESSAGE: usize = 100 * 1024;

/// One test, for what another one allocates meanwhile would be counted too.
#[test]
fn connections_own_next_to_nothing_while_idle() {
    plain_connections();
    tls_connections();
}

fn plain_connections() {
    let running = start(None);

    // The reactor's own buffers grow to their size.
    let mut clients = vec![Client::open(running.address, "/echo")];
    echo(&mut clients[0], MESSAGE);
    running.counters_when("the first echo", |counters| counters.messages_sent == 1);
    clients.clear();
    running.counters_when("the first close", |counters| counters.active() == 0);

    let before = live();
    for _ in 0..CONNECTIONS {
        clients.push(Client::open(running.address, "/echo"));
    }
    running.counters_when("all open", |counters| {
        counters.opened == CONNECTIONS as u64 + 1
    });
    // The clients' own read buffers have been emptied but not given back: they are not the server's.
    let mut sockets: Vec<_> = clients.into_iter().map(|client| client.stream).collect();
    let vector = sockets.capacity() * size_of::<TcpStream>();
    let idle = (live() - before - vector as isize) / CONNECTIONS as isize;
    println!("idle plain connection: {idle} bytes");
    assert!(idle <= 256, "an idle plain connection owns {idle} bytes");

    // 100 KiB both ways on some, in pieces that make the server keep what has come.
    let baseline = live();
    for socket in sockets.iter_mut().take(BUSY) {
        let mut client = Client::over(socket.try_clone().unwrap());
        echo(&mut client, MESSAGE);
    }
    running.counters_when("all echoed", |counters| {
        counters.messages_sent == BUSY as u64 + 1 && counters.outbox_bytes == 0
    });
    let grown = live() - baseline;
    println!("grown after {BUSY} messages of 100 KiB: {grown} bytes");
    assert!(
        grown < 4096,
        "{grown} bytes stayed behind after the messages had gone"
    );
}

fn tls_connections() {
    let acceptor = Acceptor::self_signed(&["localhost".into()]).unwrap();
    // A store of sessions would grow with every connection.
    let mut config = Arc::unwrap_or_clone(trusting(&acceptor));
    config.resumption = Resumption::disabled();
    let config = Arc::new(config);
    let running = start(Some(acceptor));
    let mut sockets = Vec::with_capacity(CONNECTIONS);

    let mut client = open_tls(running.address, "/echo", &config);
    echo(&mut client, MESSAGE);
    running.counters_when("the first echo", |counters| counters.messages_sent == 1);
    drop(client);
    running.counters_when("the first close", |counters| counters.active() == 0);

    // The clients' TLS state lives in the same heap: each gives it up before the next begins.
    let before = live();
    for _ in 0..CONNECTIONS {
        sockets.push(open_tls(running.address, "/echo", &config).stream.sock);
    }
    running.counters_when("all open", |counters| {
        counters.opened == CONNECTIONS as u64 + 1
    });
    let idle = (live() - before) / CONNECTIONS as isize;
    println!("idle TLS connection: {idle} bytes of Rust's heap");
    assert!(idle <= 2560, "an idle TLS connection owns {idle} bytes");

    // Some make room for as many that are used before they idle: nothing else may be different.
    let before = live();
    sockets.truncate(CONNECTIONS - BUSY);
    running.counters_when("some closed", |counters| {
        counters.active() == (CONNECTIONS - BUSY) as u64
    });
    for _ in 0..BUSY {
        let mut client = open_tls(running.address, "/echo", &config);
        echo(&mut client, MESSAGE);
        sockets.push(client.stream.sock);
    }
    running.counters_when("all echoed", |counters| {
        counters.messages_sent == BUSY as u64 + 1 && counters.outbox_bytes == 0
    });
    let grown = live() - before;
    println!("grown after {BUSY} messages of 100 KiB over TLS: {grown} bytes");
    assert!(
        grown < 4096,
        "{grown} bytes stayed behind after the messages had gone"
    );
}

/// A server with one reactor and room for the message; TLS where there is an acceptor.
fn start(acceptor: Option<Acceptor>) -> Running {
    let mut settings = settings();
    settings.reactors = 1.try_into().unwrap();
    settings.outbox.bytes_max = 4 << 20;
    settings.listeners[0].speaks.tls = acceptor.is_some();
    settings.acceptor = acceptor;
    let mut routes = demo_routes();
    routes[0].0.limits.message_bytes_max = 1 << 20;
    Running::start(settings, routes)
}

fn echo<S: Read + Write>(client: &mut Client<S>, length: usize) {
    let bytes = frame(0x82, &vec![7; length]);
    for piece in bytes.chunks(10_000) {
        client.send(piece);
    }
    let answer = client.read_frame().unwrap();
    assert_eq!((answer.first, answer.payload.len()), (0x82, length));
}
