//! Fan-out: the table of subscribers by itself, and one batch on its way to 5,000 connections in
//! memory, whose sockets take everything and forget it.
//!
//! `cargo bench --bench fanout`. Throughput counts messages for `publish and seal`, subscribers
//! elsewhere. No system call is in any of these times.

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot be set up has nothing to say"
)]

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tidegate::admission::{self, limits};
use tidegate::conn::{
    Connection, Context, Deadlines, Gate, Identity, Lane, Offer, Pass, Policy, Speaks, outbox,
};
use tidegate::hub::table::Traits;
use tidegate::hub::{Batch, Draft, Home, Hub, HubCounts, Item, Limits, Member, Table};
use tidegate::reactor::transport::{Scratch, Socket, Transport};
use tidegate::tls::Acceptor;
use tidegate::{Channel, ConnectionId, HandlerFactory, Message, Route, demo, http};

/// Subscribers a reactor serves before other work has its turn.
const SLICE: usize = 512;
const CONNECTIONS: u32 = 5_000;
/// More than a process may have sockets for, where these are measured.
const CROWD: u32 = 100_000;

fn room() -> Channel {
    Channel::new("room").unwrap()
}

fn member(key: u32) -> Member {
    Member::new(key, false)
}

fn home(reactors: usize) -> Home {
    Home {
        hasher: ahash::RandomState::with_seeds(1, 2, 3, 4),
        reactors,
        me: 0,
    }
}

fn batch(message: &Message<'_>) -> Arc<Batch> {
    let mut draft = Draft::default();
    draft.push(message);
    Arc::new(draft.seal().remove(0))
}

fn tables(c: &mut Criterion) {
    let room = room();
    let mut group = c.benchmark_group("hub");
    for (name, members) in [("5k", 5_000), ("100k", 100_000)] {
        let mut table = Table::default();
        for key in 0..members {
            table.join(&room, member(key), Traits::default());
        }
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("leave and join/1 of {name}"), |b| {
            let mut key = 0;
            b.iter(|| {
                // A prime step meets all members in a scattered order.
                key = (key + 7919) % members;
                assert!(table.leave(&room, key).is_some());
                assert!(table.join(&room, member(key), Traits::default()));
            });
            assert_eq!(table.subscribers(&room), members as usize);
        });
        group.throughput(Throughput::Elements(members.into()));
        group.bench_function(format!("next_slice/all of {name}"), |b| {
            let batch = batch(&Message::from(&[7; 128][..]));
            b.iter(|| {
                table.deliver(&room, &batch, &Limits::default());
                let mut served = 0;
                while let Some(slice) = table.next_slice(SLICE) {
                    served += slice.members.len();
                }
                assert_eq!(served, members as usize);
            });
        });
    }

    // One end of the hub per reactor: this one is the home, the batch is for the other.
    for count in [1, 16] {
        let mut hub = Hub::new(home(2), Limits::default());
        let channel = (0..)
            .map(|number| Channel::new(&format!("room-{number}")).unwrap())
            .find(|channel| channel.home(&home(2).hasher, 2) == 0)
            .unwrap();
        let payload = [7; 128];
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("publish and seal/128Bx{count}"), |b| {
            b.iter(|| {
                for _ in 0..count {
                    hub.publish(&channel, &Message::from(&payload[..]));
                }
                let mut posted = 0;
                hub.end_turn(|to, parcel| {
                    assert_eq!(to, 1);
                    let [Item::Deliver(_, batch)] = &parcel.items[..] else {
                        panic!("the home does not publish to others")
                    };
                    posted += batch.frames().len();
                    Ok(())
                });
                assert_eq!(posted, count * (128 + 4));
            });
        });
    }
    group.finish();
}

fn deliveries(c: &mut Criterion) {
    let mut group = c.benchmark_group("deliver");
    group.throughput(Throughput::Elements(CONNECTIONS.into()));
    let small = [7; 128];
    let text = "The tide comes in, the tide goes out, and the gate counts it. ".repeat(17);
    let text = &text[..1024];

    let mut plain = Node::with_connections(CONNECTIONS, false, false);
    group.bench_function("plain/128B to 5000", |b| {
        b.iter(|| assert_eq!(plain.fan_out(&Message::from(&small[..])), 132 * 5_000));
    });
    group.bench_function("plain/1KiB to 5000", |b| {
        b.iter(|| assert_eq!(plain.fan_out(&Message::from(text)), 1028 * 5_000));
    });
    drop(plain);

    let mut compressing = Node::with_connections(CONNECTIONS, true, false);
    group.bench_function("compressed/1KiB to 5000", |b| {
        b.iter(|| {
            let written = compressing.fan_out(&Message::from(text));
            assert!(written > 0 && written.is_multiple_of(5_000) && written < 200 * 5_000);
        });
    });
    drop(compressing);

    let mut tls = Node::with_connections(CONNECTIONS, false, true);
    group.bench_function("tls/128B to 5000", |b| {
        // A record: five bytes of header, one of type, sixteen of tag. Keys change now and then,
        // which takes a record more.
        b.iter(|| assert!(tls.fan_out(&Message::from(&small[..])) >= (132 + 22) * 5_000));
    });
    group.finish();
}

/// X39: what others wait for while one message goes to a hundred thousand, but for the system calls.
fn crowds(c: &mut Criterion) {
    let mut group = c.benchmark_group("crowd");
    group.throughput(Throughput::Elements(SLICE as u64));
    let mut crowd = Node::with_connections(CROWD, false, false);
    let message = Message::from(&[7; 128][..]);
    crowd.publish(&message);
    let mut served = 0;
    group.bench_function("a slice of 512 of 100k", |b| {
        b.iter(|| {
            if served == CROWD as usize {
                crowd.publish(&message);
                served = 0;
            }
            let members = crowd.next_slice().unwrap();
            served += members;
            assert!(members == SLICE || served == CROWD as usize);
        });
    });
    group.finish();
}

/// What a reactor has, without its thread and its poll.
struct Node {
    connections: Vec<(Connection, Transport<Sink>)>,
    scratch: Scratch,
    cx: Context,
    written: Rc<Cell<usize>>,
}

impl Node {
    /// A node whose connections have all joined the channel of the broadcast handler.
    fn with_connections(count: u32, compression: bool, is_tls: bool) -> Self {
        let route = Route {
            compression,
            ..Route::open("/room")
        };
        let policy = Policy {
            http: http::head::Limits::default(),
            routes: vec![route],
            // They all come from one address.
            admission: admission::Policy {
                limits: limits::Policy {
                    address_connections: None,
                    address_attempts: None,
                    ..limits::Policy::default()
                },
                ..admission::Policy::default()
            },
            requests: http::exchange::Limits::default(),
            outbox: outbox::Limits::default(),
            deadlines: Deadlines::default(),
        };
        let handler = (|_| demo::Broadcast::new(room())).make(0);
        let hub = Hub::new(home(1), Limits::default());
        let mut node = Self {
            connections: Vec::new(),
            scratch: Scratch::default(),
            cx: Context::new(Rc::new(policy), Gate::new(16, None), hub, vec![handler], 1),
            written: Rc::default(),
        };
        let acceptor = Acceptor::self_signed(&["a.example".into()]).unwrap();
        let config = client_config(&acceptor);
        for slot in 0..count {
            let identity = Identity::new(ConnectionId::new(0, slot, 1), ([192, 0, 2, 1], 5).into());
            let socket = Sink::new(&node.written);
            let session = is_tls.then(|| Box::new(acceptor.session().unwrap()));
            let speaks = Speaks {
                tls: is_tls,
                ..Speaks::default()
            };
            let pass = Pass::ask(identity.address(), speaks, &mut node.cx.services).unwrap();
            let mut connection = Connection::new(identity, pass, &node.cx.services);
            let mut transport = Transport::new(socket, session);
            if is_tls {
                let name = ServerName::try_from("a.example").unwrap();
                let mut client = ClientConnection::new(Arc::clone(&config), name).unwrap();
                client.writer().write_all(REQUEST).unwrap();
                while !connection.is_open() {
                    node.exchange(&mut client, &mut connection, &mut transport);
                }
            } else {
                transport.socket_mut().input.extend_from_slice(REQUEST);
                node.serve(&mut connection, &mut transport);
            }
            assert!(connection.is_open());
            transport.socket_mut().forget_all();
            node.connections.push((connection, transport));
        }
        let subscribers = node.cx.services.hub.table.subscribers(&room());
        assert_eq!(subscribers, count as usize);
        node
    }

    /// One flight of a TLS handshake each way.
    fn exchange(
        &mut self,
        client: &mut ClientConnection,
        connection: &mut Connection,
        transport: &mut Transport<Sink>,
    ) {
        while client.wants_write() {
            client.write_tls(&mut transport.socket_mut().input).unwrap();
        }
        self.serve(connection, transport);
        let output = std::mem::take(&mut transport.socket_mut().output);
        let mut rest = &output[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
        }
    }

    fn serve(&mut self, connection: &mut Connection, transport: &mut Transport<Sink>) {
        transport.read(connection, &mut self.scratch, &mut self.cx, false);
        transport.flush(connection, &mut self.scratch, &mut self.cx);
    }

    /// Publishes a message and serves every subscriber, slice by slice as a reactor does; returns the
    /// bytes written.
    fn fan_out(&mut self, message: &Message<'_>) -> usize {
        let before = self.written.get();
        self.publish(message);
        while self.next_slice().is_some() {}
        self.written.get() - before
    }

    fn publish(&mut self, message: &Message<'_>) {
        self.cx.services.hub.publish(&room(), message);
        self.cx.services.hub.end_turn(|_, _| Ok(()));
        assert_eq!(self.cx.services.hub.take_counts(), HubCounts::default());
    }

    /// Serves what a reactor serves before other work has its turn: how many that were.
    fn next_slice(&mut self) -> Option<usize> {
        let slice = self.cx.services.hub.table.next_slice(SLICE)?;
        let count = slice.members.len();
        let is_compressed = slice.members.iter().any(|member| member.deflate);
        let deflater = &mut self.cx.services.deflater;
        let batches = slice.batches.iter();
        let offers: Vec<Offer> = batches
            .map(|batch| Offer::of(batch, is_compressed, deflater))
            .collect();
        let lane = Lane {
            tag: slice.tag,
            slow: slice.traits.slow,
        };
        for member in slice.members {
            let (connection, transport) = &mut self.connections[member.key as usize];
            let (scratch, cx) = (&mut self.scratch, &mut self.cx);
            let taken = transport.deliver(&offers, lane, connection, scratch, cx);
            assert!(taken.batches == offers.len() && taken.is_whole);
        }
        Some(count)
    }
}

/// A socket that gives what is put into it, and takes everything. It keeps what it took until the
/// handshake is over, and from then on only counts.
struct Sink {
    input: Vec<u8>,
    output: Vec<u8>,
    keeps: bool,
    written: Rc<Cell<usize>>,
}

impl Sink {
    fn new(written: &Rc<Cell<usize>>) -> Self {
        Self {
            input: Vec::new(),
            output: Vec::new(),
            keeps: true,
            written: Rc::clone(written),
        }
    }

    fn forget_all(&mut self) {
        (self.input, self.output, self.keeps) = (Vec::new(), Vec::new(), false);
    }
}

impl Read for Sink {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = self.input.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.input[..count]);
        self.input.drain(..count);
        Ok(count)
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.keeps {
            self.output.extend_from_slice(bytes);
        }
        self.written.set(self.written.get() + bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket for Sink {
    fn shut_write(&self) -> io::Result<()> {
        Ok(())
    }
}

fn client_config(acceptor: &Acceptor) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let pem = acceptor.certificate_pem();
    roots
        .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

const REQUEST: &[u8] = b"GET /room HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";

criterion_group!(benches, tables, deliveries, crowds);
criterion_main!(benches);
