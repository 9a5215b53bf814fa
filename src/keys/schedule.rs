//! When a key set is fetched: on schedule, and for key identifiers that nobody knows. Pure; time is an
//! argument.
//!
//! Anybody can send a token with an identifier of their own invention, before any signature is checked.
//! What that can cause is bounded by time alone: one fetch per `unknown_key_interval`, however many
//! tokens ask (D7). An issuer that changes its keys is nevertheless noticed within that interval.

use std::time::{Duration, Instant};

use super::source::JwksUrl;

/// Why a fetch is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Its time has come.
    Schedule,
    /// A token named a key that is not in the set.
    UnknownKey,
}

/// The next fetches of one source.
#[derive(Debug)]
pub(super) struct Schedule {
    refresh: Duration,
    retry: Duration,
    unknown_key_interval: Duration,
    /// When the next fetch on schedule is due.
    next: Instant,
    /// From when on an unknown key causes a fetch.
    unknown_key_from: Instant,
    /// Fetches that failed since the last that succeeded.
    failures: u32,
}

impl Schedule {
    /// A schedule whose first fetch is due at once.
    pub(super) fn new(source: &JwksUrl, now: Instant) -> Self {
        Self {
            refresh: source.refresh,
            retry: source.retry,
            unknown_key_interval: source.unknown_key_interval,
            next: now,
            unknown_key_from: now,
            failures: 0,
        }
    }

    /// Whether a fetch is due. `is_asked`: an unknown key was seen since the last one.
    pub(super) fn due(&self, now: Instant, is_asked: bool) -> Option<Cause> {
        if now >= self.next {
            Some(Cause::Schedule)
        } else if is_asked && now >= self.unknown_key_from {
            Some(Cause::UnknownKey)
        } else {
            None
        }
    }

    /// When to ask again, if nothing happens before.
    pub(super) fn wake_at(&self, is_asked: bool) -> Instant {
        if is_asked {
            self.next.min(self.unknown_key_from)
        } else {
            self.next
        }
    }

    /// A fetch begins.
    pub(super) fn begin(&mut self, now: Instant, cause: Cause) {
        if cause == Cause::UnknownKey {
            self.unknown_key_from = now + self.unknown_key_interval;
        }
    }

    /// A fetch has ended. `random` spreads the next one.
    pub(super) fn end(&mut self, now: Instant, succeeded: bool, random: u64) {
        let delay = if succeeded {
            self.failures = 0;
            self.refresh
        } else {
            let doubled = 2_u32.saturating_pow(self.failures);
            self.failures = self.failures.saturating_add(1);
            self.retry.saturating_mul(doubled).min(self.refresh)
        };
        self.next = now + spread(delay, random);
    }
}

/// A delay less up to a tenth of it.
fn spread(delay: Duration, random: u64) -> Duration {
    const STEPS: u32 = 1024;
    let step = u32::try_from(random % u64::from(STEPS)).unwrap_or_default();
    delay - delay / 10 / STEPS * step
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "only a start to count from")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn schedule() -> (Schedule, Instant) {
        let now = Instant::now();
        (
            Schedule::new(&JwksUrl::new("https://id.example/"), now),
            now,
        )
    }

    #[test]
    fn the_first_fetch_is_due_at_once_and_the_next_by_schedule() {
        let (mut schedule, now) = schedule();
        assert_eq!(schedule.due(now, false), Some(Cause::Schedule));
        schedule.begin(now, Cause::Schedule);
        schedule.end(now, true, 0);
        assert_eq!(schedule.due(now + 599 * SECOND, false), None);
        assert_eq!(schedule.wake_at(false), now + 600 * SECOND);
        assert_eq!(
            schedule.due(now + 600 * SECOND, false),
            Some(Cause::Schedule)
        );
    }

    #[test]
    fn x36_failures_are_tried_again_ever_later_up_to_the_schedule() {
        let (mut schedule, now) = schedule();
        for seconds in [5, 10, 20, 40, 80, 160, 320, 600, 600, 600] {
            schedule.begin(now, Cause::Schedule);
            schedule.end(now, false, 0);
            assert_eq!(schedule.wake_at(false), now + seconds * SECOND);
        }
        for _ in 0..100 {
            schedule.end(now, false, 0);
        }
        assert_eq!(schedule.wake_at(false), now + 600 * SECOND);
        schedule.end(now, true, 0);
        schedule.end(now, false, 0);
        assert_eq!(schedule.wake_at(false), now + 5 * SECOND);
    }

    #[test]
    fn d7_unknown_keys_cause_one_fetch_a_minute_however_many_ask() {
        let (mut schedule, now) = schedule();
        schedule.begin(now, Cause::Schedule);
        schedule.end(now, true, 0);
        let mut fetches = 0;
        // Ten minutes less a second of a token every millisecond.
        for millis in 1..599_000 {
            let now = now + Duration::from_millis(millis);
            if let Some(cause) = schedule.due(now, true) {
                assert_eq!(cause, Cause::UnknownKey);
                schedule.begin(now, cause);
                schedule.end(now, true, 0);
                fetches += 1;
            }
        }
        assert_eq!(fetches, 10);
    }

    #[test]
    fn an_unknown_key_is_asked_for_at_once_and_the_next_when_the_interval_is_over() {
        let (mut schedule, now) = schedule();
        schedule.begin(now, Cause::Schedule);
        schedule.end(now, true, 0);
        assert_eq!(schedule.wake_at(true), now);
        assert_eq!(schedule.due(now, true), Some(Cause::UnknownKey));
        schedule.begin(now, Cause::UnknownKey);
        schedule.end(now, true, 0);
        assert_eq!(schedule.due(now + 59 * SECOND, true), None);
        assert_eq!(schedule.wake_at(true), now + 60 * SECOND);
        assert_eq!(
            schedule.due(now + 60 * SECOND, true),
            Some(Cause::UnknownKey)
        );
    }

    proptest! {
        #[test]
        fn a_spread_delay_is_at_most_a_tenth_shorter(
            millis in 1_u64..100_000_000,
            random in any::<u64>(),
        ) {
            let delay = Duration::from_millis(millis);
            let spread = spread(delay, random);
            prop_assert!(spread <= delay && spread >= delay * 9 / 10);
        }
    }
}
