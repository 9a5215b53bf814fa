//! Reports added up: what every reactor did since the server started.
//!
//! Counters arrive as totals and replace those before, so a report that waited costs no count.
//! Distributions arrive as what came since, and are merged. What is new in a report is told as a
//! [`Flow`]: whoever adds flows up must keep these totals as long as the sums, or count twice.

use super::counters::Counters;
use super::histogram::{Histogram, Histograms, Measure};
use super::report::{Gauges, LastEnded, Memory, Millis, Report, SlowCause, TRANSPORTS, Traffic};
use crate::admission::refusal::REFUSALS;
use crate::conn::reason::REASONS;

/// What all reactors did.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Totals {
    /// Each reactor, by its number.
    pub reactors: Vec<ReactorTotals>,
    /// Everything measured.
    pub histograms: Histograms,
    /// The latest connections that ended.
    pub last_ended: LastEnded,
}

/// What one reactor did.
#[derive(Debug, Clone, PartialEq)]
pub struct ReactorTotals {
    /// When its latest report was handed over; none yet without one.
    pub reported_at: Option<Millis>,
    /// Its counters.
    pub counters: Counters,
    /// Connections opened, by [`Transport`](super::report::Transport).
    pub opened: [u64; TRANSPORTS],
    /// What it looked like.
    pub gauges: Gauges,
    /// Times it could not hand over a report.
    pub delays: u64,
    /// Its [`Measure::LoopLag`].
    pub loop_lag: Histogram,
    /// The longest lag of its latest report, in microseconds.
    pub loop_lag_recent_max: u64,
    /// Its [`Measure::TurnTime`].
    pub turn_time: Histogram,
}

impl Default for ReactorTotals {
    fn default() -> Self {
        Self {
            reported_at: None,
            counters: Counters::default(),
            opened: [0; TRANSPORTS],
            gauges: Gauges::default(),
            delays: 0,
            loop_lag: Histogram::new(Measure::LoopLag.scale()),
            loop_lag_recent_max: 0,
            turn_time: Histogram::new(Measure::TurnTime.scale()),
        }
    }
}

/// What happened between two reports of one reactor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Upgrades completed.
    pub opened: u64,
    /// Connections ended, by the index of their reason in [`LABELS`](crate::conn::reason::LABELS).
    pub closed: [u64; REASONS],
    /// Refusals, in the order of [`labels`](crate::admission::refusal::labels).
    pub refused: [u64; REFUSALS],
    /// Messages and bytes.
    pub traffic: Traffic,
}

impl Totals {
    /// Takes a report in; returns what is new since the reactor's report before.
    pub fn apply(&mut self, report: &Report) -> Flow {
        let number = usize::from(report.reactor);
        if number >= self.reactors.len() {
            self.reactors
                .resize_with(number + 1, ReactorTotals::default);
        }
        let reactor = &mut self.reactors[number];
        let flow = Flow::between(&reactor.counters, &report.counters);
        reactor.reported_at = Some(report.at);
        reactor.counters.clone_from(&report.counters);
        reactor.opened = report.opened;
        reactor.gauges = report.gauges;
        reactor.delays = report.delays;
        let lag = report.histograms.of(Measure::LoopLag);
        reactor.loop_lag.merge(lag);
        reactor.loop_lag_recent_max = lag.max();
        reactor
            .turn_time
            .merge(report.histograms.of(Measure::TurnTime));
        self.histograms.merge(&report.histograms);
        self.last_ended.merge(&report.last_ended);
        flow
    }

    /// Connections open on all reactors, as of their latest reports.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.reactors
            .iter()
            .map(|reactor| reactor.gauges.open)
            .sum()
    }

    /// Slow consumers of all reactors, by the labels of their causes.
    #[must_use]
    pub fn slow_consumers(&self) -> Vec<(&'static str, u64)> {
        let count = |cause: SlowCause| {
            let of_reactor =
                |reactor: &ReactorTotals| reactor.gauges.slow_consumers[cause as usize];
            (cause.label(), self.reactors.iter().map(of_reactor).sum())
        };
        SlowCause::ALL.map(count).into()
    }

    /// Memory that all reactors hold, by component, what waits in outboxes and mailboxes included.
    #[must_use]
    pub fn memory(&self) -> Vec<(&'static str, u64)> {
        let mut sum = Memory::default().components();
        let (mut outboxes, mut mailboxes) = (0, 0);
        for reactor in &self.reactors {
            outboxes += reactor.counters.outbox_bytes;
            mailboxes += reactor.gauges.mailbox_bytes;
            for (sum, part) in sum.iter_mut().zip(reactor.gauges.memory.components()) {
                sum.1 += part.1;
            }
        }
        let waiting = [("outboxes", outboxes), ("mailboxes", mailboxes)];
        sum.into_iter().chain(waiting).collect()
    }

    /// The sum of all reactors' counters.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        for reactor in &self.reactors {
            sum.merge(&reactor.counters);
        }
        sum
    }

    /// Connections opened on all reactors, by [`Transport`](super::report::Transport).
    #[must_use]
    pub fn opened(&self) -> [u64; TRANSPORTS] {
        let mut sum = [0; TRANSPORTS];
        for reactor in &self.reactors {
            for (sum, opened) in sum.iter_mut().zip(reactor.opened) {
                *sum += opened;
            }
        }
        sum
    }
}

impl Default for Flow {
    fn default() -> Self {
        Self {
            opened: 0,
            closed: [0; REASONS],
            refused: [0; REFUSALS],
            traffic: Traffic::default(),
        }
    }
}

impl Flow {
    /// The difference of two states of one reactor's counters.
    #[must_use]
    pub fn between(before: &Counters, after: &Counters) -> Self {
        let mut flow = Self {
            opened: after.opened - before.opened,
            closed: after.closed,
            traffic: Traffic::of(after) - Traffic::of(before),
            ..Self::default()
        };
        for (now, then) in flow.closed.iter_mut().zip(before.closed) {
            *now -= then;
        }
        let (now, then) = (after.refused.as_slice(), before.refused.as_slice());
        for (new, (now, then)) in flow.refused.iter_mut().zip(now.iter().zip(then)) {
            *new = now - then;
        }
        flow
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::refusal::{Refusal, Stage, labels};
    use crate::conn::CloseReason;
    use crate::metrics::report::Transport;

    fn report(reactor: u8, opened: u64, sent: u64) -> Report {
        let mut report = Report {
            reactor,
            at: 7,
            ..Report::default()
        };
        report.counters.opened = opened;
        report.counters.messages_sent = sent;
        report.counters.closed[CloseReason::HeadTimeout.index()] = sent;
        (0..opened).for_each(|_| {
            report
                .counters
                .refused
                .count(&Refusal::Timeout(Stage::Head))
        });
        report.opened[Transport::Tls12 as usize] = opened;
        report.histograms.record(Measure::LoopLag, sent);
        report
    }

    #[test]
    fn totals_are_replaced_and_what_came_since_is_added() {
        let mut totals = Totals::default();
        assert_eq!(totals.apply(&report(1, 3, 10)).opened, 3);
        let flow = totals.apply(&report(1, 5, 12));
        assert_eq!((flow.opened, flow.traffic.messages_sent), (2, 2));
        assert_eq!(flow.closed[CloseReason::HeadTimeout.index()], 2);
        let timeout = labels().position(|label| label == (Stage::Head, "timeout"));
        assert_eq!(flow.refused[timeout.unwrap()], 2);
        assert_eq!(flow.refused.iter().sum::<u64>(), 2);
        totals.apply(&report(0, 1, 1));
        assert_eq!(totals.counters().opened, 6);
        assert_eq!(totals.opened()[Transport::Tls12 as usize], 6);
        assert_eq!(totals.histograms.of(Measure::LoopLag).count(), 3);
        let reactor = &totals.reactors[1];
        assert_eq!(
            (reactor.loop_lag.count(), reactor.loop_lag_recent_max),
            (2, 12)
        );
        assert_eq!(reactor.reported_at, Some(7));
    }
}
