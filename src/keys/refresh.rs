//! The one thread that fetches keys: waits until a fetch is due or an unknown key is reported, and
//! fetches one source after the other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Shared;
use super::error::FetchError;
use super::fetch::Fetcher;
use super::schedule::{Cause, Schedule};
use super::source::JwksUrl;

/// One URL, on its thread.
#[derive(Debug)]
pub(super) struct Source {
    /// The issuer, by its place.
    issuer: usize,
    fetcher: Fetcher,
    schedule: Schedule,
    max_age: Duration,
    /// When the fetched keys are too old to be used.
    expires_at: Option<Instant>,
    random: ahash::RandomState,
}

impl Source {
    pub(super) fn new(issuer: usize, fetcher: Fetcher, source: &JwksUrl) -> Self {
        Self {
            issuer,
            fetcher,
            schedule: Schedule::new(source, clock()),
            max_age: source.max_age,
            expires_at: None,
            random: ahash::RandomState::new(),
        }
    }

    /// Does what is due, and says when something will be next.
    pub(super) fn turn(&mut self, shared: &Shared) -> Instant {
        let now = clock();
        if let Some(cause) = self
            .schedule
            .due(now, shared.verifiers.is_key_wanted(self.issuer))
        {
            self.refresh(shared, now, cause);
        }
        if self.expires_at.is_some_and(|at| clock() >= at) {
            self.expires_at = None;
            shared.expire(self.issuer);
        }
        let wake_at = self
            .schedule
            .wake_at(shared.verifiers.is_key_wanted(self.issuer));
        self.expires_at.map_or(wake_at, |at| wake_at.min(at))
    }

    fn refresh(&mut self, shared: &Shared, now: Instant, cause: Cause) {
        self.schedule.begin(now, cause);
        // Whatever an answer may do to a parser, the next fetch is not its victim.
        let answer = catch_unwind(AssertUnwindSafe(|| self.fetcher.fetch()))
            .unwrap_or(Err(FetchError::Internal));
        let now = clock();
        let succeeded = shared.take(self.issuer, answer, now);
        if succeeded {
            self.expires_at = Some(now + self.max_age);
        }
        // Tokens that asked until now were read against the old keys: this fetch was for them too.
        shared.verifiers.looked_for(self.issuer);
        let random = self.random.hash_one(now);
        self.schedule.end(now, succeeded, random);
    }
}

/// Runs until the ring ends.
pub(super) fn run(shared: &Shared, mut sources: Vec<Source>) {
    while !shared.is_ending.load(Ordering::Acquire) {
        let turns = sources.iter_mut().map(|source| source.turn(shared));
        let Some(wake_at) = turns.min() else { return };
        // A report that arrived since is a token for the park, which then returns at once; whatever
        // else takes that token within a fetch, the flags were read afterwards.
        std::thread::park_timeout(wake_at.saturating_duration_since(clock()));
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this thread's loop reads the clock, and hands the time on"
)]
pub(super) fn clock() -> Instant {
    Instant::now()
}
