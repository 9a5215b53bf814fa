//! What hooks did, in numbers that any thread may read: for metrics.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::answer::AnswerError;
use super::event::Event;
use crate::metrics::HookFigures;
use crate::metrics::figures::Buckets;
use crate::metrics::hook::HOOK_OUTCOMES;
use crate::outbound::CallError;

/// How a call ended: a closed set, because it becomes a metric's label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer that was taken.
    Answered,
    /// With an answer that was refused.
    BadAnswer(AnswerError),
    /// With a status that is no success.
    Status(u16),
    /// Without an answer.
    Call(CallError),
    /// It was not made: the breaker of its URL is open.
    Unavailable,
    /// It was not made: too many calls wait, of all or of its connection.
    Full,
    /// By a panic of ours.
    Internal,
}

impl Outcome {
    /// The outcome's place in [`HOOK_OUTCOMES`].
    #[must_use]
    pub const fn index(&self) -> usize {
        match self {
            Self::Answered => 0,
            Self::BadAnswer(_) => 1,
            Self::Status(_) => 2,
            Self::Unavailable => 3,
            Self::Full => 4,
            Self::Internal => 5,
            Self::Call(error) => 6 + error.index(),
        }
    }

    /// The outcome's name in metrics and logs.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        HOOK_OUTCOMES[self.index()]
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered => f.write_str("answered"),
            Self::BadAnswer(error) => error.fmt(f),
            Self::Status(status) => write!(f, "the answer has status {status}"),
            Self::Call(error) => error.fmt(f),
            Self::Unavailable => f.write_str("the backend is away, and not asked for now"),
            Self::Full => f.write_str("too many calls wait"),
            Self::Internal => f.write_str("the call panicked"),
        }
    }
}

/// Upper bounds of the latency histogram's buckets, in milliseconds; one more bucket has the rest.
pub const LATENCY_BOUNDS_MS: [u64; 12] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000];

/// Counters of all threads. Written by the dispatching thread, and at the door by reactors.
#[derive(Debug)]
pub(super) struct Tally {
    calls: [[AtomicU64; HOOK_OUTCOMES.len()]; 4],
    latency: [[AtomicU64; LATENCY_BOUNDS_MS.len() + 1]; 4],
    latency_micros: [AtomicU64; 4],
    retries: AtomicU64,
    breakers_opened: AtomicU64,
    breakers_open: AtomicU64,
    answers_lost: AtomicU64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            calls: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            latency: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            latency_micros: std::array::from_fn(|_| AtomicU64::new(0)),
            retries: AtomicU64::new(0),
            breakers_opened: AtomicU64::new(0),
            breakers_open: AtomicU64::new(0),
            answers_lost: AtomicU64::new(0),
        }
    }
}

impl Tally {
    /// Counts the end of a call.
    pub(super) fn ended(&self, event: Event, outcome: &Outcome) {
        self.calls[event.index()][outcome.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts how long a call took that was made.
    pub(super) fn took(&self, event: Event, time: Duration) {
        let millis = time.as_micros().div_ceil(1_000);
        let bucket = LATENCY_BOUNDS_MS.partition_point(|bound| u128::from(*bound) < millis);
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.latency[event.index()][bucket].fetch_add(1, Ordering::Relaxed);
        self.latency_micros[event.index()].fetch_add(micros, Ordering::Relaxed);
    }

    pub(super) fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn breaker_opened(&self) {
        self.breakers_opened.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn breakers_are_open(&self, count: usize) {
        self.breakers_open.store(count as u64, Ordering::Relaxed);
    }

    pub(super) fn answer_lost(&self) {
        self.answers_lost.fetch_add(1, Ordering::Relaxed);
    }

    /// What has been counted; what waits is added by its owner.
    pub(super) fn figures(&self) -> HookFigures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        HookFigures {
            calls: std::array::from_fn(|event| self.calls[event].each_ref().map(read)),
            duration: std::array::from_fn(|event| {
                let counts = self.latency[event].each_ref().map(read);
                let mut count = 0;
                let cumulative = LATENCY_BOUNDS_MS.iter().zip(counts).map(|(bound, here)| {
                    count += here;
                    (seconds(*bound, 1e3), count)
                });
                let cumulative = cumulative.collect();
                Buckets {
                    cumulative,
                    count: counts.iter().sum(),
                    sum: seconds(read(&self.latency_micros[event]), 1e6),
                }
            }),
            retries: read(&self.retries),
            breakers_opened: read(&self.breakers_opened),
            breakers_open: read(&self.breakers_open),
            answers_lost: read(&self.answers_lost),
            queue_calls: 0,
            queue_bytes: 0,
        }
    }
}

/// Exact below 2^53 of the smaller unit: 285 years of microseconds.
#[expect(clippy::cast_precision_loss, reason = "seconds in a metric are floats")]
fn seconds(number: u64, per_second: f64) -> f64 {
    number as f64 / per_second
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_a_label_of_its_own() {
        let mut labels = HOOK_OUTCOMES.to_vec();
        assert_eq!(labels[6..], CallError::LABELS);
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), HOOK_OUTCOMES.len());
        assert_eq!(Outcome::Call(CallError::Timeout).label(), "timeout");
        assert_eq!(Outcome::Call(CallError::Name).label(), "name");
        assert_eq!(Outcome::Internal.label(), "internal");
    }

    #[test]
    fn times_fall_into_the_bucket_whose_bound_they_do_not_exceed() {
        let tally = Tally::default();
        for micros in [0, 1_000, 1_001, 5_000_000, 5_000_001] {
            tally.took(Event::Open, Duration::from_micros(micros));
        }
        let figures = tally.figures();
        let latency = &figures.duration[Event::Open.index()];
        assert_eq!(latency.cumulative[0], (0.001, 2));
        assert_eq!(latency.cumulative[1], (0.002, 3));
        assert_eq!(latency.cumulative[11], (5.0, 4));
        assert_eq!((latency.count, latency.sum), (5, 10.002_002));
        assert_eq!(figures.duration[Event::Close.index()].count, 0);
    }
}
