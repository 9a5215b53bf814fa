//! What a connection costs in heap bytes, counted by the allocator.
//!
//! The server runs in this process; the clients are bare sockets, which own no heap. What is counted
//! is what was asked of the Rust allocator. Resident memory, which includes the allocator's own
//! overhead and what the cryptography library allocates in C, is measured by `benches/rss.py`.

#![allow(clippy::unwrap_used, clippy::cast_possible_wrap)]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};

use support::{Client, Running, demo_routes, frame, settings};

struct Counting;

static LIVE: AtomicIsize = AtomicIsize::new(0);

// The crate itself forbids unsafe code; a global allocator cannot be written without it.
#[expect(unsafe_code, reason = "a test's counting allocator")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: passed on as it came.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: passed on as it came.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.fetch_add(size as isize - layout.size() as isize, Ordering::Relaxed);
        // SAFETY: passed on as it came.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Pages of the slab and of the wheel are whole for this many connections, so the slope is exact.
const CONNECTIONS: usize = 2048;

fn live() -> isize {
    LIVE.load(Ordering::Relaxed)
}

#[test]
fn connections_own_next_to_nothing_while_idle() {
    let mut settings = settings();
    settings.reactors = 1.try_into().unwrap();
    settings.outbox.bytes_max = 4 << 20;
    let mut routes = demo_routes();
    routes[0].0.limits.message_bytes_max = 1 << 20;
    let running = Running::start(settings, routes);

    // The reactor's own buffers grow to their size.
    let mut clients = vec![Client::open(running.address, "/echo")];
    echo(&mut clients[0], 100 * 1024);
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
    let vector = sockets.capacity() * size_of::<std::net::TcpStream>();
    let idle = (live() - before - vector as isize) / CONNECTIONS as isize;
    println!("idle plain connection: {idle} bytes");
    assert!(idle <= 256, "an idle plain connection owns {idle} bytes");

    // 100 KiB both ways on some, in pieces that make the server keep what has come.
    let baseline = live();
    for socket in sockets.iter_mut().take(64) {
        let mut client = Client::over(socket.try_clone().unwrap());
        echo(&mut client, 100 * 1024);
    }
    running.counters_when("all echoed", |counters| {
        counters.messages_sent == 65 && counters.outbox_bytes == 0
    });
    let grown = live() - baseline;
    println!("grown after 64 messages of 100 KiB: {grown} bytes");
    assert!(
        grown < 4096,
        "{grown} bytes stayed behind after the messages had gone"
    );
}

fn echo(client: &mut Client, length: usize) {
    let bytes = frame(0x82, &vec![7; length]);
    for piece in bytes.chunks(10_000) {
        client.send(piece);
    }
    let answer = client.read_frame().unwrap();
    assert_eq!((answer.first, answer.payload.len()), (0x82, length));
}
