//! What open connections feel: one message there and back at even times, over thousands of connections in
//! turn. A latency runs from when the message was due, so a server that stalls is charged for everything
//! that should have been asked meanwhile, and so is a generator that was late; how late it was is told.
//!
//! Whoever runs it says when to look: each line on standard input is a number of seconds, answered by a line
//! of JSON.

use std::io::{self, BufRead, Write};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::fleet::{Fleet, POLL_MAX};
use crate::metronome::Metronome;
use crate::options::{Probe, seconds};
use crate::template::Template;

pub(crate) fn run(options: &Probe) -> io::Result<Value> {
    let server = &options.server;
    let template = Template::new(options.size, false, 1, server.raw);
    let mut fleet = Fleet::new(server, false, template)?;
    fleet.open(options.conns)?;
    fleet.echo_once(0)?;
    let orders = listen();
    let mut metronome = Metronome::new(options.rate)?;
    fleet.listen_to(&metronome)?;
    say(&json!({ "open": options.conns }))?;

    let mut probes = Probes::new(fleet.len());
    let mut look: Option<Look> = None;
    let mut looks = 0;
    loop {
        for nth in 0..fleet.wait(POLL_MAX)? {
            let (slot, arrived) = fleet.serve(nth)?;
            if arrived.messages > 0
                && let Some(due) = probes.due[slot].take()
            {
                probes.waiting -= 1;
                if let Some(look) = look.as_mut().filter(|look| look.covers(due)) {
                    look.record(due.elapsed());
                }
            }
        }
        if fleet.rang() {
            for due in metronome.due()? {
                let now = Instant::now();
                let is_sent = probes.send(due, &mut fleet)?;
                if let Some(look) = look.as_mut().filter(|look| look.covers(due)) {
                    look.count(is_sent, now - due);
                }
            }
        }
        match &look {
            None => match orders.try_recv() {
                Ok(order) => look = Some(Look::begin(order)?),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Ok(json!({ "looks": looks })),
            },
            Some(current) => {
                if let Some(over) = current.is_over(&probes)
                    && let Some(mut done) = look.take()
                {
                    done.close(over, &probes);
                    say(&done.finish()?)?;
                    looks += 1;
                }
            }
        }
    }
}

/// Lines of seconds on standard input; a line that is none ends it.
fn listen() -> Receiver<Duration> {
    let (sender, orders) = channel();
    thread::spawn(move || {
        let orders = io::stdin().lock().lines().map_while(Result::ok);
        for order in orders.map_while(|line| seconds(line.trim()).ok()) {
            if sender.send(order).is_err() {
                return;
            }
        }
    });
    orders
}

fn say(value: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()
}

/// The messages on their way: one at most on a connection, and when it was due.
struct Probes {
    due: Vec<Option<Instant>>,
    next: usize,
    waiting: usize,
}

impl Probes {
    fn new(connections: usize) -> Self {
        Self {
            due: vec![None; connections],
            next: 0,
            waiting: 0,
        }
    }

    /// False if the connection whose turn it is has not answered the last one: nothing is sent then.
    fn send(&mut self, due: Instant, fleet: &mut Fleet) -> io::Result<bool> {
        // Neighbours in the server's tables are not probed one after the other.
        self.next = (self.next + STRIDE) % self.due.len();
        if self.due[self.next].is_some() {
            return Ok(false);
        }
        self.due[self.next] = Some(due);
        self.waiting += 1;
        fleet.send(self.next, 1)?;
        Ok(true)
    }
}

const STRIDE: usize = 7_919;

/// A window, from the first probe that is due in it until all of them are back.
struct Look {
    began: Instant,
    closes: Instant,
    latencies: Histogram<u64>,
    delays: Histogram<u64>,
    sent: u64,
    unsent: u64,
    lost: u64,
}

impl Look {
    fn begin(order: Duration) -> io::Result<Self> {
        let histogram =
            || Histogram::new_with_bounds(1, 120_000_000_000, 3).map_err(io::Error::other);
        let began = Instant::now();
        Ok(Self {
            began,
            closes: began + order,
            latencies: histogram()?,
            delays: histogram()?,
            sent: 0,
            unsent: 0,
            lost: 0,
        })
    }

    fn covers(&self, due: Instant) -> bool {
        (self.began..self.closes).contains(&due)
    }

    fn record(&mut self, latency: Duration) {
        self.latencies.saturating_record(nanoseconds(latency));
    }

    fn count(&mut self, is_sent: bool, delay: Duration) {
        self.sent += u64::from(is_sent);
        self.unsent += u64::from(!is_sent);
        self.delays.saturating_record(nanoseconds(delay));
    }

    /// When it was over: all are back, or those that are not have been waited for.
    fn is_over(&self, probes: &Probes) -> Option<Instant> {
        let now = Instant::now();
        let is_missing = |due: &Option<Instant>| due.is_some_and(|due| self.covers(due));
        let is_back = now >= self.closes
            && (now >= self.closes + GRACE
                || self.latencies.len() == self.sent
                || !probes.due.iter().any(is_missing));
        is_back.then_some(now)
    }

    /// What did not come back counts with the time it has been waited for.
    fn close(&mut self, now: Instant, probes: &Probes) {
        for due in probes.due.iter().flatten().copied() {
            if self.covers(due) {
                self.lost += 1;
                self.record(now - due);
            }
        }
    }

    fn finish(self) -> io::Result<Value> {
        let Self {
            latencies, delays, ..
        } = &self;
        let at = |from: &Histogram<u64>, quantile| from.value_at_quantile(quantile) as f64 / 1e3;
        Ok(json!({
            "sent": self.sent,
            "unsent": self.unsent,
            "lost": self.lost,
            "latency_us": {
                "p50": at(latencies, 0.5),
                "p99": at(latencies, 0.99),
                "p99.9": at(latencies, 0.999),
                "max": at(latencies, 1.0),
            },
            "own_delay_us": { "p50": at(delays, 0.5), "p99": at(delays, 0.99) },
        }))
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// How long answers are waited for when the window has closed.
const GRACE: Duration = Duration::from_secs(5);
