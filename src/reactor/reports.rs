//! What a reactor tells the metrics thread, once an interval.

use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::slots::Key;
use super::worker::{INSPECTION_SLICE, Mail, Reactor, Reporter};
use crate::metrics::Report;
use crate::metrics::report::{Gauges, Memory, SLOW_CAUSES, SlowCause};
use crate::timer::{LATEST, Tick, ticks};
use crate::tls::SESSION_BYTES;

/// A reactor's reports on their way out and back.
pub(super) struct Reporting {
    pub(super) reporter: Reporter,
    /// Where emptied reports come back. Nobody is woken for one: the next report finds it.
    pub(super) returns: (Sender<Box<Report>>, Receiver<Box<Report>>),
    pub(super) due_at: Tick,
}

/// How long an outbox is not empty until its connection counts as a slow consumer.
const SLOW_AFTER: Duration = Duration::from_secs(1);
/// Slow consumers that the kernel is asked about with one report: about 10 µs each.
const DIAGNOSES: usize = 32;

/// The last report: how often it is tried, and how long somebody is waited for each time, a second in all.
const LAST_ATTEMPTS: usize = 20;
const LAST_PATIENCE: Duration = Duration::from_millis(50);

impl Reactor {
    /// Counts the connections whose outbox has not been empty for a while, by cause. The kernel is asked
    /// about some of them; the others have their turn with later reports.
    fn count_slow_consumers(&mut self) -> [u64; SLOW_CAUSES] {
        let mut counts = [0; SLOW_CAUSES];
        let now = self.cx.services.now;
        let (mut questions, count) = (DIAGNOSES, self.waiting.len());
        let mut kept = 0;
        for at in 0..count {
            let key = self.waiting[at];
            let Some(entry) = self.slots.get_mut(key) else {
                continue;
            };
            if entry.waits_since == LATEST {
                entry.is_waiting = false;
                entry.slow_cause = SlowCause::Unknown;
                continue;
            }
            if now.saturating_sub(entry.waits_since) >= ticks(SLOW_AFTER) {
                if questions > 0 {
                    questions -= 1;
                    entry.slow_cause = entry.diagnose(&mut self.diagnosis);
                }
                counts[entry.slow_cause as usize] += 1;
            }
            self.waiting[kept] = key;
            kept += 1;
        }
        self.waiting.truncate(kept);
        // Those that were asked about go behind the others.
        self.waiting.rotate_left((DIAGNOSES - questions).min(kept));
        counts
    }

    /// Hands over what has happened since the last report, if it is time. A full mailbox delays it and
    /// loses nothing.
    pub(super) fn report(&mut self) {
        let now = self.cx.services.now;
        if let Some(reporting) = &mut self.reporting
            && reporting.due_at <= now
        {
            reporting.due_at = now + ticks(reporting.reporter.interval);
            self.hand_over();
        }
    }

    /// Hands over what has happened since the last report, when nothing more will: it belongs to the whole.
    /// Waits a moment if whoever takes the reports is busy.
    pub(super) fn report_the_last(&mut self) {
        for _ in 0..LAST_ATTEMPTS {
            if self.hand_over() {
                return;
            }
            let (Some(reporting), Some(ledger)) = (&self.reporting, &mut self.cx.services.ledger)
            else {
                return;
            };
            if let Ok(report) = reporting.returns.1.recv_timeout(LAST_PATIENCE) {
                // Nobody is there any more to be told of.
                let _ = ledger.give_back(report);
            }
        }
        tracing::warn!(
            reactor = self.number,
            "the last report was not taken: what happened at the end is missing in the figures"
        );
    }

    /// Returns whether somebody took it; otherwise the next one has all that this one had.
    fn hand_over(&mut self) -> bool {
        let slow_consumers = self.count_slow_consumers();
        let Some(reporting) = &mut self.reporting else {
            return false;
        };
        let services = &mut self.cx.services;
        let Some(ledger) = &mut services.ledger else {
            return false;
        };
        while let Ok(report) = reporting.returns.1.try_recv() {
            if ledger.give_back(report) {
                self.announced = Some(0);
            }
        }
        let kept = services.hub.holdings();
        let newcomers = self.newcomers.capacity() * size_of::<(Key, Tick)>();
        let memory = Memory {
            connections: (self.slots.bytes_held() + newcomers) as u64,
            unfinished: self.unfinished,
            tls: (self.tls_sessions * SESSION_BYTES) as u64,
            timers: self.wheel.bytes_held() as u64,
            buffers: (self.scratch.bytes_held() + services.output.capacity()) as u64,
            publications: services.hub.table.bytes() as u64,
            subscriptions: services.hub.table.bytes_held() as u64,
            histories: (kept.history_bytes + kept.channel_bytes) as u64,
            presence: kept.presence_bytes as u64,
            idempotency: kept.key_bytes as u64,
            reports: ledger.bytes_held() as u64,
        };
        let gauges = Gauges {
            open: self.open,
            handshakes_in_flight: self.handshakes_in_flight as u64,
            mailbox_letters: self.mailbox.len() as u64,
            mailbox_bytes: self.mailbox.bytes() as u64,
            channels: services.hub.table.channels() as u64,
            subscriptions: services.hub.table.subscriptions() as u64,
            slow_consumers,
            memory,
        };
        let at = services.moment.micros() / 1000;
        let Reporting {
            reporter, returns, ..
        } = reporting;
        ledger.hand_over(at, &services.counters, gauges, |report| {
            let letter = Mail::Report(report, returns.0.clone());
            match reporter.postbox.post(letter) {
                Err(Mail::Report(report, _)) => Err(report),
                Ok(()) | Err(_) => Ok(()),
            }
        })
    }

    /// Tells the ledger of a slice of the open connections, if whoever takes the reports has lost them.
    pub(super) fn announce(&mut self) {
        let (Some(first), Some(ledger)) = (self.announced, &mut self.cx.services.ledger) else {
            return;
        };
        let until = self.slots.span().min(first + INSPECTION_SLICE);
        for slot in first..until {
            if let Some(entry) = self.slots.tenant_mut(slot).filter(|entry| entry.has_opened) {
                let opened = entry.opened();
                let since = opened.since;
                ledger.announce(entry.connection.id(), opened, since);
            }
        }
        self.announced = (until < self.slots.span()).then_some(until);
    }
}
