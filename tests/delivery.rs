//! The promises of delivery, held against randomised runs: publishers that do not stop, subscribers that
//! come, stall, are reset, are kicked, and come back to where they were.
//!
//! On a channel with history whatever a subscriber reads is the next number, or it has been told that it
//! missed some; nothing comes twice; and behind the answer to a kick or to a leave there is silence.
//!
//! `TIDEGATE_DELIVERIES` says how many deliveries are checked at least, `TIDEGATE_SEED` repeats a run.
//! `TIDEGATE_TIMING` makes latencies count, on a machine that has nothing else to do.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::print_stdout
)]

mod support;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tidegate::conn::Peer;
use tidegate::hub::command::{Disconnect, Epoch, Publish, Since};
use tidegate::hub::{
    ChannelPolicy, Command, CommandError, Outcome, Policies, PublishOptions, Replay, Slow, Start,
    Subscription, Whom,
};
use tidegate::server::Handle;
use tidegate::{Channel, CloseCode, ConnectionId, Handler, Message, Route, Settings};

use support::{Client, Frame, PATIENCE, Running, settings};

fn channel(number: usize) -> Channel {
    Channel::new(&format!("kept:{number}")).unwrap()
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

/// What all threads of a run share.
struct Run {
    handle: Handle,
    address: std::net::SocketAddr,
    /// For each channel, the number that has been published last, or is about to be.
    published: [AtomicU64; CHANNELS],
    deliveries: AtomicU64,
    wanted: u64,
    gaps: AtomicU64,
    /// Subscribers that have not ended: as long as one waits for the next number, there is one.
    subscribers: AtomicU64,
    has_failed: AtomicBool,
}

const CHANNELS: usize = 3;
const SUBSCRIBERS: usize = 9;

impl Run {
    fn is_over(&self) -> bool {
        self.deliveries.load(Ordering::Relaxed) >= self.wanted
            || self.has_failed.load(Ordering::Relaxed)
    }

    /// Publishes numbers until the run is over. One thread for each channel, so numbers are offsets.
    fn publish(&self, which: usize, mut random: Random) {
        let filler = "x".repeat(600);
        for number in 1.. {
            if self.subscribers.load(Ordering::Relaxed) == 0
                || self.has_failed.load(Ordering::Relaxed)
            {
                return;
            }
            self.published[which].store(number, Ordering::SeqCst);
            let length = usize::try_from(random.below(600)).unwrap();
            let text = format!("{number} {}", &filler[..length]);
            if number % 32 == 0 {
                let publish = Publish {
                    channel: channel(which),
                    message: Message::from(text),
                    options: PublishOptions::default(),
                };
                match self.handle.ask(Command::Publish(publish)) {
                    Ok(Outcome::Published(Some(position))) => assert_eq!(position.offset, number),
                    other => panic!("{other:?}"),
                }
            } else {
                while self.handle.publish(&channel(which), text.clone()).is_err() {
                    thread::yield_now();
                }
            }
        }
    }

    /// Comes and goes until the run is over.
    fn subscribe(&self, which: usize, mut random: Random) {
        let mut known: Option<(u64, String)> = None;
        while !self.is_over() {
            let mut visit = Visit::begin(self, which, &mut random, known.take());
            let mut is_open = visit.read(random.below(400));
            if is_open && random.below(3) == 0 {
                // Falls behind, and then reads on: all that is owed, or word that it cannot be had.
                let until = self.published[which].load(Ordering::SeqCst) + random.below(4_000);
                wait_for(|| {
                    self.is_over() || self.published[which].load(Ordering::SeqCst) >= until
                });
                is_open = visit.read(random.below(4_000));
            }
            if !is_open {
                // Told of a gap: it comes back to where it was.
                self.gaps.fetch_add(1, Ordering::Relaxed);
                known = Some((visit.next - 1, visit.epoch));
                continue;
            }
            match random.below(4) {
                0 => {
                    visit.leave();
                    visit.client.close(1000);
                }
                1 => visit.kick(self),
                2 => {
                    known = Some((visit.next - 1, visit.epoch));
                    visit.client.reset();
                }
                _ => {
                    known = Some((visit.next - 1, visit.epoch));
                    drop(visit.client);
                }
            }
        }
    }
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
    client: Client,
    id: ConnectionId,
    which: usize,
    epoch: String,
    /// The number that must come next.
    next: u64,
}

impl<'a> Visit<'a> {
    fn begin(
        run: &'a Run,
        which: usize,
        random: &mut Random,
        known: Option<(u64, String)>,
    ) -> Self {
        let client = Client::open(run.address, "/room");
        let mut client = if random.below(2) == 0 {
            client.narrow()
        } else {
            client
        };
        let id = client.read_text().parse().unwrap();
        let last = random.below(20);
        let words = match &known {
            Some((offset, epoch)) => format!("since kept:{which} {offset} {epoch}"),
            None => format!("last kept:{which} {last}"),
        };
        client.send_text(&words);
        let start = client.read_text();
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
            Some((offset, _)) => {
                assert!(offset < top, "{offset} is the top of {start}");
                top + 1
            }
            None => top + 1 - last.min(top),
        };
        Self {
            run,
            client,
            id,
            which,
            epoch: epoch.to_owned(),
            next,
        }
    }

    /// Takes a frame: the next number, a text that is none, or a close frame.
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

    /// Reads so many numbers; false if it is told that some are missing.
    fn read(&mut self, count: u64) -> bool {
        for _ in 0..count {
            if self.run.is_over() {
                return true;
            }
            let frame = self
                .client
                .read_frame()
                .expect("a frame, or word of the end");
            if frame.opcode() == 8 {
                assert_eq!(frame.close_code(), Some(1013));
                return false;
            }
            assert_eq!(self.take(frame), None);
        }
        true
    }

    /// Leaves the channel: behind the answer there is silence.
    fn leave(&mut self) {
        self.client.send_text(&format!("leave kept:{}", self.which));
        loop {
            let frame = self.client.read_frame().unwrap();
            if frame.opcode() == 8 {
                // It was told of a gap before that was read.
                assert_eq!(frame.close_code(), Some(1013));
                return;
            }
            if let Some(text) = self.take(frame) {
                assert_eq!(text, "left");
                break;
            }
        }
        let seen = self.run.published[self.which].load(Ordering::SeqCst);
        wait_for(|| {
            self.run.is_over() || self.run.published[self.which].load(Ordering::SeqCst) > seen + 64
        });
        self.client.echo("nothing came before this");
    }

    /// Is kicked: of what is published behind the answer, nothing comes.
    fn kick(mut self, run: &Run) {
        let order = Disconnect {
            whom: Whom {
                user: "".into(),
                client: Some(self.id),
            },
            code: CloseCode::from(4503),
            reason: "kicked".into(),
            whitelist: Box::default(),
        };
        let done = run.handle.ask(Command::Disconnect(order));
        assert!(matches!(done, Ok(Outcome::Done(0 | 1))), "{done:?}");
        let last = run.published[self.which].load(Ordering::SeqCst);
        loop {
            let frame = self.client.read_frame().expect("a close frame");
            if frame.opcode() == 8 {
                let code = frame.close_code();
                assert!(matches!(code, Some(4503 | 1013)), "{code:?}");
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

fn run(reactors: usize, wanted: u64, seed: u64) {
    println!("{reactors} reactors, seed {seed}");
    let kept = ChannelPolicy {
        history_size: 2_000,
        slow: Slow::DropOldest,
        ..ChannelPolicy::default()
    };
    let mut settings = Settings {
        reactors: NonZeroUsize::new(reactors).unwrap(),
        channels: Policies::new([], [("kept:".into(), kept)]),
        ..settings()
    };
    settings.outbox.bytes_max = 64 * 1024;
    settings.outbox.bytes_high_water = 16 * 1024;
    let room = (Route::open("/room"), Arc::new(|_| Room) as _);
    let running = Running::start(settings, vec![room]);
    let run = Run {
        handle: running.handle.clone(),
        address: running.address,
        published: Default::default(),
        deliveries: AtomicU64::new(0),
        wanted,
        gaps: AtomicU64::new(0),
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
    thread::scope(|scope| {
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
    });
    let gaps = run.gaps.load(Ordering::Relaxed);
    let checked = run.deliveries.load(Ordering::Relaxed);
    drop(run);
    let counters = running.stop();
    println!("{checked} deliveries checked, {gaps} gaps told");
    assert!(counters.delivered >= checked);
    assert!(counters.gaps >= gaps);
    assert_eq!(
        (counters.publications_dropped, counters.commands_unanswered),
        (0, 0)
    );
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn n1_every_delivery_of_a_random_run_is_the_next_one_or_a_told_gap() {
    let wanted = number_from("TIDEGATE_DELIVERIES").unwrap_or(30_000);
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = number_from("TIDEGATE_SEED").unwrap_or_else(|| clock.unwrap().as_nanos() as u64);
    for reactors in [1, 2, 4] {
        run(reactors, wanted / 3 + 1, seed);
    }
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
