//! The promises of delivery, held against randomised runs: publishers that do not stop, subscribers that
//! come, stall, are reset, are kicked, and come back to where they were, on servers that are drained and
//! give way to others meanwhile.
//!
//! On a channel with history whatever a subscriber reads is the next number, or it has been told that it
//! missed some; nothing comes twice; and behind the answer to a kick or to a leave there is silence. On one
//! without history numbers may be missing, and still come in their order and once. A server that is drained
//! says 1001 behind the last number, and the next one, whose memory is empty, says that it cannot tell what
//! was missed.
//!
//! `TIDEGATE_DELIVERIES` says how many deliveries are checked at least, `TIDEGATE_SEED` repeats a run.
//! `TIDEGATE_TIMING` makes latencies count, on a machine that has nothing else to do.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout
)]

mod support;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use tidegate::conn::Peer;
use tidegate::hub::command::{Disconnect, Epoch, Publish, Since};
use tidegate::hub::{
    ChannelPolicy, Command, CommandError, Outcome, Policies, PublishOptions, Replay, Slow, Start,
    Subscription, Whom,
};
use tidegate::metrics::Counters;
use tidegate::server::Handle;
use tidegate::{Channel, CloseCode, ConnectionId, Handler, Message, Route, Settings};

use support::{Client, Frame, PATIENCE, Running, settings};

fn channel(number: usize) -> Channel {
    Channel::new(&format!("kept:{number}")).unwrap()
}

fn plain(number: usize) -> Channel {
    Channel::new(&format!("plain:{number}")).unwrap()
}

/// Subscribes to the channel, from where the client says, and says where that is.
struct Room;

impl Handler for Room {
    fn open(&mut self, peer: &mut Peer<'_>) {
        peer.send(peer.id().to_string());
    }

    fn message(&mut self, peer: &mut Peer<'_>, message: Message<'_>) {
        let Message::Text(text) = &message else {
            return;
        };
        let words: Vec<&str> = text.split(' ').collect();
        let (name, replay) = match words[..] {
            ["last", name, count] => (name, Replay::Last(count.parse().unwrap())),
            ["since", name, offset, epoch] => {
                let since = Since {
                    offset: offset.parse().unwrap(),
                    epoch: Epoch::read(epoch),
                };
                (name, Replay::Since(since))
            }
            ["join", name] => {
                assert!(peer.join(&Channel::new(name).unwrap()));
                peer.send("joined");
                return;
            }
            ["leave", name] => {
                assert!(peer.leave(&Channel::new(name).unwrap()));
                peer.send("left");
                return;
            }
            _ => {
                peer.send(&**text);
                return;
            }
        };
        let subscription = Subscription {
            replay,
            ..Subscription::default()
        };
        assert!(peer.subscribe(&Channel::new(name).unwrap(), subscription));
    }

    fn subscribed(&mut self, peer: &mut Peer<'_>, _: &Channel, start: Result<Start, CommandError>) {
        let Start {
            position,
            is_recovered,
        } = start.unwrap();
        let position = position.unwrap();
        peer.send(format!(
            "at {} {} {is_recovered}",
            position.offset, position.epoch
        ));
    }
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % bound
    }
}

/// A server of a run.
struct Node {
    handle: Handle,
    address: std::net::SocketAddr,
    /// For each channel, the number that has been published here last, or is about to be.
    published: [AtomicU64; CHANNELS],
    /// Whether it is told to end: nobody publishes here any more.
    is_leaving: AtomicBool,
}

impl Node {
    fn of(running: &Running) -> Arc<Self> {
        Arc::new(Self {
            handle: running.handle.clone(),
            address: running.address,
            published: Default::default(),
            is_leaving: AtomicBool::new(false),
        })
    }

    fn published(&self, which: usize) -> u64 {
        self.published[which].load(Ordering::SeqCst)
    }

    fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::SeqCst)
    }
}

/// What all threads of a run share.
struct Run {
    /// Where one connects to. Who holds it keeps it from being told to end.
    node: RwLock<Arc<Node>>,
    deliveries: AtomicU64,
    wanted: u64,
    gaps: AtomicU64,
    /// Servers that have been drained.
    drains: AtomicU64,
    /// Visits that ended with the server.
    farewells: AtomicU64,
    /// Subscribers that have not ended: as long as one waits for the next number, there is one.
    subscribers: AtomicU64,
    has_failed: AtomicBool,
}

const CHANNELS: usize = 3;
const SUBSCRIBERS: usize = 9;
/// Servers that are drained in a run, by turns before and after the next one is there.
const DRAINS: u64 = 2;

impl Run {
    fn is_over(&self) -> bool {
        let is_enough = self.deliveries.load(Ordering::Relaxed) >= self.wanted
            && self.drains.load(Ordering::Relaxed) == DRAINS;
        is_enough || self.has_failed.load(Ordering::Relaxed)
    }

    fn node(&self) -> Arc<Node> {
        Arc::clone(&self.node.read().unwrap())
    }

    /// Publishes numbers until the run is over, on each server from 1. One thread for each channel, so
    /// numbers are offsets.
    fn publish(&self, which: usize, mut random: Random) {
        let filler = "x".repeat(600);
        let (mut node, mut number) = (self.node(), 0);
        while self.subscribers.load(Ordering::Relaxed) > 0
            && !self.has_failed.load(Ordering::Relaxed)
        {
            if node.is_leaving() {
                (node, number) = (self.node(), 0);
                continue;
            }
            number += 1;
            node.published[which].store(number, Ordering::SeqCst);
            let length = usize::try_from(random.below(600)).unwrap();
            let text = format!("{number} {}", &filler[..length]);
            // What does not fit is lost there.
            let _ = node.handle.publish(&plain(which), text.clone());
            if number % 32 == 0 {
                let publish = Publish {
                    channel: channel(which),
                    message: Message::from(text),
                    options: PublishOptions::default(),
                };
                match node.handle.ask(Command::Publish(publish)) {
                    Ok(Outcome::Published(Some(position))) => assert_eq!(position.offset, number),
                    other => assert!(node.is_leaving(), "{other:?}"),
                }
            } else {
                while node.handle.publish(&channel(which), text.clone()).is_err() {
                    if node.is_leaving() {
                        break;
                    }
                    thread::yield_now();
                }
            }
        }
    }

    /// Comes and goes until the run is over.
    fn subscribe(&self, which: usize, mut random: Random) {
        let mut known: Option<(u64, String)> = None;
        while !self.is_over() {
            if random.below(4) == 0 {
                self.listen(which, &mut random);
                continue;
            }
            let Some(mut visit) = Visit::begin(self, which, &mut random, known.as_ref()) else {
                self.farewells.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let mut end = visit.read(random.below(400));
            if end.is_none() && random.below(3) == 0 {
                // Falls behind, and then reads on: all that is owed, or word that it cannot be had.
                let until = visit.node.published(which) + random.below(4_000);
                wait_for(|| self.is_over() || visit.is_through(until));
                end = visit.read(random.below(4_000));
            }
            match end {
                Some(End::Gap) => {
                    // It comes back to where it was.
                    self.gaps.fetch_add(1, Ordering::Relaxed);
                    known = Some(visit.known());
                    continue;
                }
                Some(End::Farewell) => {
                    self.farewells.fetch_add(1, Ordering::Relaxed);
                    known = Some(visit.known());
                    visit.client.close(1001);
                    continue;
                }
                None => {}
            }
            known = None;
            match random.below(4) {
                0 => {
                    visit.leave();
                    visit.client.close(1000);
                }
                1 => visit.kick(),
                2 => {
                    known = Some(visit.known());
                    visit.client.reset();
                }
                _ => {
                    known = Some(visit.known());
                    drop(visit.client);
                }
            }
        }
    }

    /// Visits the channel without history: what comes is later than what came before.
    fn listen(&self, which: usize, random: &mut Random) {
        let (node, mut client, _) = self.open(random);
        let mut last = 0;
        // True if the server ends.
        let is_end = |client: &mut Client, frame: &Frame| {
            if frame.opcode() == 8 {
                assert_eq!((frame.close_code(), node.is_leaving()), (Some(1001), true));
                client.send_frame(0x88, &frame.payload);
                assert_eq!(client.read_frame(), None);
            }
            frame.opcode() == 8
        };
        // Reads a number, or a text that is none.
        let mut take = |frame: Frame| {
            let text = String::from_utf8(frame.payload).unwrap();
            let Ok(number) = text.split(' ').next().unwrap().parse::<u64>() else {
                return Some(text);
            };
            assert!(number > last, "{number} behind {last} of plain:{which}");
            last = number;
            self.deliveries.fetch_add(1, Ordering::Relaxed);
            None
        };
        client.send_text(&format!("join plain:{which}"));
        let frame = client.read_frame().unwrap();
        if is_end(&mut client, &frame) {
            return;
        }
        assert_eq!(frame.payload, b"joined");
        let stalls_at = random.below(800);
        for nth in 0..random.below(400) {
            if self.is_over() {
                return;
            }
            if nth == stalls_at {
                let until = node.published(which) + random.below(4_000);
                wait_for(|| self.is_over() || node.published(which) >= until || node.is_leaving());
            }
            let frame = client.read_frame().unwrap();
            if is_end(&mut client, &frame) {
                return;
            }
            assert_eq!(take(frame), None);
        }
        client.send_text(&format!("leave plain:{which}"));
        loop {
            let frame = client.read_frame().unwrap();
            if is_end(&mut client, &frame) {
                return;
            }
            if let Some(text) = take(frame) {
                assert_eq!(text, "left");
                break;
            }
        }
        let seen = node.published(which);
        wait_for(|| self.is_over() || node.published(which) > seen + 64 || node.is_leaving());
        client.send_text("nothing came before this");
        let frame = client.read_frame().unwrap();
        if !is_end(&mut client, &frame) {
            assert_eq!(frame.payload, b"nothing came before this");
        }
    }

    /// Connects; some of those who do take in little at a time.
    fn open(&self, random: &mut Random) -> (Arc<Node>, Client, ConnectionId) {
        let node = self.node.read().unwrap();
        let client = Client::open(node.address, "/room");
        let mut client = if random.below(2) == 0 {
            client.narrow()
        } else {
            client
        };
        let id = client.read_text().parse().unwrap();
        (Arc::clone(&node), client, id)
    }

    /// Has servers give way to others while all goes on; returns the last one, and what the others did.
    fn replace(&self, mut running: Running, start: impl Fn() -> Running) -> (Running, Counters) {
        let mut all = Counters::default();
        for drain in 1..=DRAINS {
            let due = self.wanted * drain / (DRAINS + 1);
            while self.deliveries.load(Ordering::Relaxed) < due {
                if self.has_failed.load(Ordering::Relaxed) {
                    return (running, all);
                }
                thread::yield_now();
            }
            let mut node = self.node.write().unwrap();
            let old = Arc::clone(&node);
            let end = |running: Running| {
                old.is_leaving.store(true, Ordering::SeqCst);
                running.stop()
            };
            let counters = if drain % 2 == 0 {
                // For a while there is none: who comes waits.
                let counters = end(running);
                running = start();
                *node = Node::of(&running);
                counters
            } else {
                let next = start();
                *node = Node::of(&next);
                drop(node);
                end(std::mem::replace(&mut running, next))
            };
            all.merge(&counters);
            self.drains.store(drain, Ordering::Relaxed);
        }
        (running, all)
    }
}

/// How a visit ends by the server's will.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// It has been told that something is missing.
    Gap,
    /// The server ends.
    Farewell,
}

fn wait_for(mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "it did not come to that");
        thread::yield_now();
    }
}

/// One subscription of one connection.
struct Visit<'a> {
    run: &'a Run,
    node: Arc<Node>,
    client: Client,
    id: ConnectionId,
    which: usize,
    epoch: String,
    /// The number that must come next.
    next: u64,
}

impl<'a> Visit<'a> {
    /// Connects, and subscribes from what is known on; `None` if the server ends meanwhile.
    fn begin(
        run: &'a Run,
        which: usize,
        random: &mut Random,
        known: Option<&(u64, String)>,
    ) -> Option<Self> {
        let (node, mut client, id) = run.open(random);
        let last = random.below(20);
        let words = match known {
            Some((offset, epoch)) => format!("since kept:{which} {offset} {epoch}"),
            None => format!("last kept:{which} {last}"),
        };
        client.send_text(&words);
        let frame = client.read_frame().expect("an answer, or word of the end");
        if frame.opcode() == 8 {
            assert_eq!((frame.close_code(), node.is_leaving()), (Some(1001), true));
            client.close(1001);
            return None;
        }
        let start = String::from_utf8(frame.payload).unwrap();
        let parts: Vec<&str> = start.split(' ').collect();
        let ["at", top, epoch, is_recovered] = parts[..] else {
            panic!("{words} was answered {start}")
        };
        let top: u64 = top.parse().unwrap();
        let next = match known {
            Some((offset, was)) if is_recovered == "true" => {
                assert_eq!(was, epoch, "recovered across epochs");
                offset + 1
            }
            Some((offset, was)) => {
                let is_behind = was != epoch || *offset < top;
                assert!(is_behind, "{offset} is the top of {start}");
                top + 1
            }
            None => top + 1 - last.min(top),
        };
        let epoch = epoch.to_owned();
        Some(Self {
            run,
            node,
            client,
            id,
            which,
            epoch,
            next,
        })
    }

    /// The position up to which it has everything.
    fn known(&self) -> (u64, String) {
        (self.next - 1, self.epoch.clone())
    }

    /// Whether so many have been published, or no more will be.
    fn is_through(&self, number: u64) -> bool {
        self.node.published(self.which) >= number || self.node.is_leaving()
    }

    /// Takes a frame: the next number, or a text that is none.
    fn take(&mut self, frame: Frame) -> Option<String> {
        assert_eq!(frame.first, 0x81, "{frame:?}");
        let text = String::from_utf8(frame.payload).unwrap();
        let first = text.split(' ').next().unwrap();
        let Ok(number) = first.parse::<u64>() else {
            return Some(text);
        };
        assert_eq!(
            number, self.next,
            "channel {}, connection {}",
            self.which, self.id
        );
        self.next += 1;
        self.run.deliveries.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// What a close frame says.
    fn end(&self, frame: &Frame) -> End {
        match frame.close_code() {
            Some(1013) => End::Gap,
            Some(1001) if self.node.is_leaving() => End::Farewell,
            other => panic!("closed with {other:?}"),
        }
    }

    /// Reads so many numbers, or up to word of an end.
    fn read(&mut self, count: u64) -> Option<End> {
        for _ in 0..count {
            if self.run.is_over() {
                return None;
            }
            let frame = self
                .client
                .read_frame()
                .expect("a frame, or word of the end");
            if frame.opcode() == 8 {
                return Some(self.end(&frame));
            }
            assert_eq!(self.take(frame), None);
        }
        None
    }

    /// Leaves the channel: behind the answer there is silence.
    fn leave(&mut self) {
        self.client.send_text(&format!("leave kept:{}", self.which));
        loop {
            let frame = self.client.read_frame().unwrap();
            if frame.opcode() == 8 {
                // It was told of an end before that was read.
                self.end(&frame);
                return;
            }
            if let Some(text) = self.take(frame) {
                assert_eq!(text, "left");
                break;
            }
        }
        let seen = self.node.published(self.which);
        wait_for(|| self.run.is_over() || self.is_through(seen + 65));
        let nothing = "nothing came before this";
        self.client.send_text(nothing);
        let frame = self.client.read_frame().unwrap();
        if frame.opcode() == 8 {
            assert_eq!(self.end(&frame), End::Farewell);
        } else {
            assert_eq!(frame.payload, nothing.as_bytes());
        }
    }

    /// Is kicked: of what is published behind the answer, nothing comes.
    fn kick(mut self) {
        let order = Disconnect {
            whom: Whom {
                user: "".into(),
                client: Some(self.id),
            },
            code: CloseCode::from(4503),
            reason: "kicked".into(),
            whitelist: Box::default(),
        };
        let done = self.node.handle.ask(Command::Disconnect(order));
        let last = match done {
            Ok(Outcome::Done(0 | 1)) => self.node.published(self.which),
            other => {
                // A reactor that has ended answers nobody.
                assert!(self.node.is_leaving(), "{other:?}");
                u64::MAX - 1
            }
        };
        loop {
            let frame = self.client.read_frame().expect("a close frame");
            if frame.opcode() == 8 {
                if frame.close_code() != Some(4503) {
                    self.end(&frame);
                }
                return;
            }
            assert_eq!(self.take(frame), None);
            assert!(self.next <= last + 1, "published behind the kick");
        }
    }
}

/// Says that a thread has ended, or failed, so that the others end.
struct Watch<'a> {
    run: &'a Run,
    is_subscriber: bool,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let ended = u64::from(self.is_subscriber);
        self.run.subscribers.fetch_sub(ended, Ordering::Relaxed);
        if thread::panicking() {
            self.run.has_failed.store(true, Ordering::Relaxed);
        }
    }
}

/// Returns how many visits ended with their server.
fn run(reactors: usize, wanted: u64, seed: u64) -> u64 {
    println!("{reactors} reactors, seed {seed}");
    let kept = ChannelPolicy {
        history_size: 2_000,
        slow: Slow::DropOldest,
        ..ChannelPolicy::default()
    };
    let plain = ChannelPolicy {
        slow: Slow::DropOldest,
        ..ChannelPolicy::default()
    };
    let mut settings = Settings {
        reactors: NonZeroUsize::new(reactors).unwrap(),
        channels: Policies::new([], [("kept:".into(), kept), ("plain:".into(), plain)]),
        drain_timeout: 2 * PATIENCE,
        ..settings()
    };
    settings.outbox.bytes_max = 64 * 1024;
    settings.outbox.bytes_high_water = 16 * 1024;
    // Whoever stalls reads of the end when it reads on.
    settings.timeouts.close = 4 * PATIENCE;
    settings.timeouts.write = 4 * PATIENCE;
    let start = || {
        let room = (Route::open("/room"), Arc::new(|_| Room) as _);
        Running::start(settings.clone(), vec![room])
    };
    let first = start();
    let run = Run {
        node: RwLock::new(Node::of(&first)),
        deliveries: AtomicU64::new(0),
        wanted,
        gaps: AtomicU64::new(0),
        drains: AtomicU64::new(0),
        farewells: AtomicU64::new(0),
        subscribers: AtomicU64::new(SUBSCRIBERS as u64),
        has_failed: AtomicBool::new(false),
    };
    let random = |number: usize| {
        Random(
            seed.wrapping_add(number as u64 + 1)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                | 1,
        )
    };
    let (last, mut counters) = thread::scope(|scope| {
        let run = &run;
        for which in 0..CHANNELS {
            let random = random(which);
            scope.spawn(move || {
                let is_subscriber = false;
                let _watch = Watch { run, is_subscriber };
                run.publish(which, random);
            });
        }
        for number in 0..SUBSCRIBERS {
            let random = random(CHANNELS + number);
            scope.spawn(move || {
                let is_subscriber = true;
                let _watch = Watch { run, is_subscriber };
                run.subscribe(number % CHANNELS, random);
            });
        }
        let is_subscriber = false;
        let _watch = Watch { run, is_subscriber };
        run.replace(first, start)
    });
    let gaps = run.gaps.load(Ordering::Relaxed);
    let checked = run.deliveries.load(Ordering::Relaxed);
    let farewells = run.farewells.load(Ordering::Relaxed);
    drop(run);
    let of_last = last.stop();
    assert_eq!(of_last.commands_unanswered, 0);
    counters.merge(&of_last);
    println!("{checked} deliveries checked, {gaps} gaps told, {farewells} farewells");
    assert!(counters.delivered >= checked);
    assert!(counters.gaps >= gaps);
    assert_eq!(counters.publications_dropped, 0);
    farewells
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn n1_every_delivery_of_a_random_run_is_the_next_one_or_a_told_gap() {
    let wanted = number_from("TIDEGATE_DELIVERIES").unwrap_or(30_000);
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = number_from("TIDEGATE_SEED").unwrap_or_else(|| clock.unwrap().as_nanos() as u64);
    let runs = [1, 2, 4].map(|reactors| run(reactors, wanted / 3 + 1, seed));
    assert!(
        runs.iter().sum::<u64>() > 0,
        "nobody was there when a server ended"
    );
}

#[test]
fn x39_a_message_to_thousands_does_not_hold_up_others() {
    const SUBSCRIBERS: usize = 3_000;
    const MESSAGES: usize = 20;
    struct Everybody;
    impl Handler for Everybody {
        fn open(&mut self, peer: &mut Peer<'_>) {
            peer.join(&Channel::new("everybody").unwrap());
        }
        fn message(&mut self, peer: &mut Peer<'_>, message: Message<'_>) {
            peer.send(message);
        }
    }
    let settings = Settings {
        reactors: NonZeroUsize::MIN,
        ..settings()
    };
    let everybody = (Route::open("/everybody"), Arc::new(|_| Everybody) as _);
    let mut routes = support::demo_routes();
    routes.push(everybody);
    let running = Running::start(settings, routes);
    let mut probe = Client::open(running.address, "/echo");
    let mut subscribers: Vec<Client> = (0..SUBSCRIBERS)
        .map(|_| Client::open(running.address, "/everybody"))
        .collect();
    let everybody = Channel::new("everybody").unwrap();
    let mut latencies = Vec::new();
    for number in 0..MESSAGES {
        let due = (SUBSCRIBERS * (number + 1)) as u64;
        running.handle.publish(&everybody, "to all of you").unwrap();
        while running.handle.counters().delivered < due {
            let began = Instant::now();
            probe.send_frame(0x89, b"?");
            assert_eq!(probe.read_frame().unwrap().first, 0x8a);
            latencies.push(began.elapsed());
        }
    }
    for subscriber in &mut subscribers {
        for _ in 0..MESSAGES {
            assert_eq!(subscriber.read_text(), "to all of you");
        }
    }
    latencies.sort_unstable();
    let p99 = latencies[latencies.len() * 99 / 100];
    println!(
        "{} probes, p99 {p99:?}, longest {:?}",
        latencies.len(),
        latencies.last()
    );
    // Six slices for each message: the probe is answered between them.
    assert!(
        latencies.len() >= 2 * MESSAGES,
        "the probes waited for whole fan-outs"
    );
    if number_from("TIDEGATE_TIMING").is_some() {
        assert!(p99 < Duration::from_millis(50), "{p99:?}");
    }
    drop((subscribers, probe));
    running.stop();
}
