//! What hooks did, as metrics show it: names of events and outcomes, and the figures of a moment.

use super::figures::{Buckets, Figures, Value};
use super::names::Metric;

/// The events that a backend can be told of.
pub const HOOK_EVENTS: [&str; 4] = ["authorise", "open", "message", "close"];

/// How a call to a backend can end.
pub const HOOK_OUTCOMES: [&str; 15] = [
    "answered",
    "bad_answer",
    "status",
    "unavailable",
    "full",
    "internal",
    "name",
    "address",
    "io",
    "tls",
    "timeout",
    "redirect",
    "protocol",
    "too_large",
    "authorities",
];

/// The figures of one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HookFigures {
    /// Calls that have ended, by event and by outcome.
    pub calls: [[u64; HOOK_OUTCOMES.len()]; HOOK_EVENTS.len()],
    /// Of those that were made, by event: how long they took, in seconds, from the event to the end of
    /// the last attempt.
    pub duration: [Buckets; HOOK_EVENTS.len()],
    /// Further attempts.
    pub retries: u64,
    /// Times a breaker opened.
    pub breakers_opened: u64,
    /// Breakers that are open.
    pub breakers_open: u64,
    /// Answers that a reactor did not take in time.
    pub answers_lost: u64,
    /// Calls that are under way or wait.
    pub queue_calls: u64,
    /// Bytes of them.
    pub queue_bytes: u64,
}

impl HookFigures {
    /// Puts them among all figures.
    pub(super) fn add_to(&self, figures: &mut Figures) {
        for (event, name) in HOOK_EVENTS.into_iter().enumerate() {
            for (count, outcome) in self.calls[event].iter().zip(HOOK_OUTCOMES) {
                let labels = [name.into(), outcome.into()];
                figures.add(Metric::HookCalls, &labels, Value::Whole(*count));
            }
            let duration = Value::Buckets(self.duration[event].clone());
            figures.add(Metric::HookDuration, &[name.into()], duration);
        }
        for (metric, number) in [
            (Metric::HookRetries, self.retries),
            (Metric::HookBreakersOpened, self.breakers_opened),
            (Metric::HookBreakersOpen, self.breakers_open),
            (Metric::HookAnswersLost, self.answers_lost),
            (Metric::HookQueueCalls, self.queue_calls),
            (Metric::HookQueueBytes, self.queue_bytes),
        ] {
            figures.add(metric, &[], Value::Whole(number));
        }
    }
}
