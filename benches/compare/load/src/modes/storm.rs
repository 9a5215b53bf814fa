//! Clients that come at a fixed rate, whatever becomes of those before them, as they do when a server has
//! come back: connect, shake hands, upgrade, leave. Who is not in when its patience ends gives up and closes.
//! A unit is a client that got in; its latency runs from the first segment to the answer's last byte.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fleet::{Fleet, POLL_MAX};
use crate::measurement::Measurement;
use crate::metronome::Metronome;
use crate::options::Storm;
use crate::template::Template;

pub(crate) fn run(options: &Storm) -> io::Result<Value> {
    let server = &options.server;
    let mut fleet = Fleet::new(server, false, Template::none())?;
    let mut metronome = Metronome::new(options.rate)?;
    fleet.listen_to(&metronome)?;
    let mut measurement = Measurement::new(&options.times, server.pid)?;
    let mut crowd = Crowd::default();
    let mut tally = Tally::default();
    let mut before = None;
    while measurement.goes_on()? {
        if before.is_none() && measurement.is_open() {
            before = Some((tally, Instant::now()));
        }
        for nth in 0..fleet.wait(POLL_MAX)? {
            let slot = fleet.slot(nth);
            match fleet.serve(nth) {
                Ok((_, arrived)) if !arrived.opened => {}
                Ok(_) => {
                    if let Some(connection) = fleet.connection(slot) {
                        measurement.record(connection.started.elapsed());
                        tally.let_in += 1;
                    }
                    crowd.leave(slot, &mut fleet);
                }
                Err(_) => {
                    tally.turned_away += u64::from(crowd.leave(slot, &mut fleet));
                }
            }
        }
        tally.gave_up += crowd.give_up(options.patience, &mut fleet);
        if fleet.rang() {
            for _ in metronome.due()? {
                tally.came += 1;
                if crowd.waiting >= options.waiting as usize {
                    tally.left_out += 1;
                } else {
                    crowd.come(&mut fleet)?;
                }
            }
        }
    }
    let (before, began) = before.unwrap_or((Tally::default(), Instant::now()));
    let seconds = began.elapsed().as_secs_f64();
    let mut result = match tally.let_in - before.let_in {
        // A server that lets nobody in is a result here.
        0 => json!({ "rate": 0.0, "units": 0, "latency_us": { "p50": 0.0, "p99": 0.0 } }),
        _ => measurement.finish()?,
    };
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of a minute are far below 2^52"
    )]
    let per_second = |after: u64, before: u64| json!((after - before) as f64 / seconds);
    result["offered_rate"] = per_second(tally.came, before.came);
    result["turned_away_rate"] = per_second(tally.turned_away, before.turned_away);
    result["gave_up_rate"] = per_second(tally.gave_up, before.gave_up);
    result["left_out"] = json!(tally.left_out - before.left_out);
    result["waiting"] = json!(crowd.waiting);
    Ok(result)
}

/// What became of those who came.
#[derive(Clone, Copy, Default)]
struct Tally {
    came: u64,
    let_in: u64,
    /// The server ended it.
    turned_away: u64,
    gave_up: u64,
    /// There was no room for one more in this process.
    left_out: u64,
}

/// Those who wait, the oldest first; slots that are free.
#[derive(Default)]
struct Crowd {
    /// A slot, how often it has been used, and since when it waits.
    arrivals: VecDeque<(usize, u64, Instant)>,
    /// For each slot how often it was used, and whether somebody waits in it.
    slots: Vec<(u64, bool)>,
    free: Vec<usize>,
    waiting: usize,
}

impl Crowd {
    fn come(&mut self, fleet: &mut Fleet) -> io::Result<()> {
        let slot = self.free.pop().unwrap_or(self.slots.len());
        if slot == self.slots.len() {
            self.slots.push((0, false));
        }
        fleet.dial(slot)?;
        let (uses, is_waiting) = &mut self.slots[slot];
        *uses += 1;
        *is_waiting = true;
        self.arrivals.push_back((slot, *uses, Instant::now()));
        self.waiting += 1;
        Ok(())
    }

    /// False if nobody waited there any more.
    fn leave(&mut self, slot: usize, fleet: &mut Fleet) -> bool {
        if !std::mem::take(&mut self.slots[slot].1) {
            return false;
        }
        fleet.close(slot);
        self.free.push(slot);
        self.waiting -= 1;
        true
    }

    /// How many have lost their patience.
    fn give_up(&mut self, patience: Duration, fleet: &mut Fleet) -> u64 {
        let (mut gone, now) = (0, Instant::now());
        while let Some((slot, uses, _)) = self
            .arrivals
            .pop_front_if(|(_, _, since)| now - *since >= patience)
        {
            if self.slots[slot].0 == uses {
                gone += u64::from(self.leave(slot, fleet));
            }
        }
        gone
    }
}
