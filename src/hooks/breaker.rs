//! The circuit breaker of one URL: a backend that is away is asked by one call now and then, and not
//! waited for by all.

use std::time::{Duration, Instant};

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Failures in a row after which it opens, at least 1.
    pub failures: u32,
    /// How long it stays open for the first time; doubled each time a trial fails, up to
    /// [`WAIT_DOUBLINGS_MAX`] times.
    pub wait: Duration,
}

/// Doublings of the time a breaker stays open: eight times as long at most.
pub const WAIT_DOUBLINGS_MAX: u32 = 3;

/// Whether calls are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// All of them; so many failed in a row.
    Closed(u32),
    /// None until then.
    Open(Instant),
    /// One, whose answer decides.
    Trial,
}

/// A circuit breaker.
#[derive(Clone, Debug)]
pub struct Breaker {
    limits: Limits,
    state: State,
    /// Trials in a row that failed.
    trials_failed: u32,
}

/// What an answer did to a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing.
    None,
    /// No call is made until the time has passed.
    Opened(Duration),
    /// Calls are made again.
    Closed,
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Closed(0),
            trials_failed: 0,
        }
    }

    /// Whether a call may be made now. One that is must be told of by [`record`](Self::record).
    pub fn admit(&mut self, now: Instant) -> bool {
        match self.state {
            State::Closed(_) => true,
            State::Open(until) if now >= until => {
                self.state = State::Trial;
                true
            }
            State::Open(_) | State::Trial => false,
        }
    }

    /// Whether calls are refused.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed(_))
    }

    /// Takes how a call went.
    pub fn record(&mut self, has_answered: bool, now: Instant) -> Turn {
        match (self.state, has_answered) {
            (State::Closed(_), true) => {
                self.state = State::Closed(0);
                Turn::None
            }
            (State::Closed(failed), false) if failed + 1 < self.limits.failures => {
                self.state = State::Closed(failed + 1);
                Turn::None
            }
            (State::Closed(_), false) => self.open(now),
            (State::Trial, true) => {
                self.state = State::Closed(0);
                self.trials_failed = 0;
                Turn::Closed
            }
            (State::Trial, false) => {
                self.trials_failed = (self.trials_failed + 1).min(WAIT_DOUBLINGS_MAX);
                self.open(now)
            }
            // A call that was made before the breaker opened says nothing about now.
            (State::Open(_), _) => Turn::None,
        }
    }

    fn open(&mut self, now: Instant) -> Turn {
        let wait = self.limits.wait * 2_u32.pow(self.trials_failed);
        self.state = State::Open(now + wait);
        Turn::Opened(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(10);

    fn breaker() -> Breaker {
        Breaker::new(Limits {
            failures: 3,
            wait: WAIT,
        })
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the times of a test begin somewhere"
    )]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn it_opens_at_the_limit_of_failures_in_a_row_and_not_before() {
        let (mut breaker, now) = (breaker(), start());
        for has_answered in [false, false, true, false, false] {
            assert!(breaker.admit(now));
            assert_eq!(breaker.record(has_answered, now), Turn::None);
        }
        assert!(!breaker.is_open());
        assert_eq!(breaker.record(false, now), Turn::Opened(WAIT));
        assert!(breaker.is_open() && !breaker.admit(now));
    }

    #[test]
    fn one_trial_is_made_when_the_time_has_passed() {
        let (mut breaker, now) = (breaker(), start());
        (0..3).for_each(|_| _ = breaker.record(false, now));
        assert!(!breaker.admit(now + WAIT - Duration::from_nanos(1)));
        assert!(breaker.admit(now + WAIT), "the trial");
        assert!(!breaker.admit(now + WAIT), "one only");
        assert_eq!(breaker.record(true, now + WAIT), Turn::Closed);
        assert!(breaker.admit(now + WAIT) && !breaker.is_open());
    }

    #[test]
    fn each_failed_trial_doubles_the_time_up_to_eight_times() {
        let (mut breaker, mut now) = (breaker(), start());
        (0..3).for_each(|_| _ = breaker.record(false, now));
        for factor in [1, 2, 4, 8, 8] {
            let wait = WAIT * factor;
            assert!(
                !breaker.admit(now + wait - Duration::from_nanos(1)),
                "{factor}"
            );
            now += wait;
            assert!(breaker.admit(now), "{factor}");
            let next = WAIT * (factor * 2).min(8);
            assert_eq!(breaker.record(false, now), Turn::Opened(next));
        }
        now += WAIT * 8;
        assert!(breaker.admit(now));
        assert_eq!(breaker.record(true, now), Turn::Closed);
        (0..2).for_each(|_| _ = breaker.record(false, now));
        assert_eq!(breaker.record(false, now), Turn::Opened(WAIT), "anew");
    }

    #[test]
    fn late_answers_of_earlier_calls_do_not_move_an_open_breaker() {
        let (mut breaker, now) = (breaker(), start());
        (0..3).for_each(|_| _ = breaker.record(false, now));
        assert_eq!(breaker.record(true, now), Turn::None);
        assert_eq!(breaker.record(false, now + WAIT / 2), Turn::None);
        assert!(!breaker.admit(now + WAIT / 2) && breaker.admit(now + WAIT));
    }
}
