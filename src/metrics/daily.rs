//! The figures of each day in UTC: counted as reports come in, kept for [`DAYS_MAX`] days.
//!
//! Flows are added to the day the wall clock shows when they arrive. A clock that jumps, in either
//! direction, opens that day or goes on with it: every connection counts on exactly one day, and sums over
//! days stay true whatever the clock did. Quantiles need the distribution, which is kept for the
//! [`DISTRIBUTIONS_KEPT`] days counted on last; a day that is gone on with after its distribution was
//! given up says in [`Day::quantiles_of`] on how many connections its quantiles rest.

mod file;

use std::collections::BTreeMap;

pub use file::DailyFileError;

use super::calendar::{Date, UnixSeconds};
use super::histogram::{Histogram, Measure};
use super::report::Traffic;
use super::totals::Flow;
use crate::admission::refusal;
use crate::conn::reason::LABELS;

/// Days that are kept; beyond them the earliest goes.
pub const DAYS_MAX: usize = 400;

/// Days whose distribution of durations is kept.
pub const DISTRIBUTIONS_KEPT: usize = 2;

/// What happened on one day.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Day {
    /// Upgrades completed.
    pub opened: u64,
    /// Connections ended, by reason.
    pub closed: BTreeMap<String, u64>,
    /// Connections refused, by `stage/reason`.
    pub refused: BTreeMap<String, u64>,
    /// Most connections open at once, as seen when reports came in.
    pub peak: u64,
    /// Messages and bytes.
    pub traffic: Traffic,
    /// Open connections that ended.
    pub ended: u64,
    /// The sum of their durations, in milliseconds.
    pub duration_sum_ms: u64,
    /// Half of them lasted at most so long, in milliseconds; within 1 %.
    pub duration_p50_ms: u64,
    /// Of a hundred, 99 lasted at most so long.
    pub duration_p99_ms: u64,
    /// How many of them the quantiles rest on: all, unless a clock jumped.
    pub quantiles_of: u64,
}

impl Day {
    /// The mean duration in milliseconds; none if no connection ended.
    #[must_use]
    pub const fn duration_mean_ms(&self) -> Option<u64> {
        self.duration_sum_ms.checked_div(self.ended)
    }
}

/// The days.
#[derive(Debug, Clone, PartialEq)]
pub struct Daily {
    days: BTreeMap<Date, Day>,
    today: Date,
    /// The latest counted on comes last.
    durations: Vec<(Date, Histogram)>,
    /// The current minute, since 1970, and the messages sent in it.
    minute: u64,
    sent_in_minute: u64,
}

impl Daily {
    /// None yet but today.
    #[must_use]
    pub fn new(wall: UnixSeconds) -> Self {
        let mut daily = Self {
            days: BTreeMap::new(),
            today: Date::of(wall),
            durations: Vec::new(),
            minute: wall / 60,
            sent_in_minute: 0,
        };
        daily.open_today();
        daily
    }

    /// Looks at the clock, and at how many connections are open: to be called once a tick, reports or
    /// not, so that midnight is noticed.
    pub fn observe(&mut self, wall: UnixSeconds, open_now: u64) {
        let date = Date::of(wall);
        if date != self.today {
            self.today = date;
            self.open_today();
        }
        let day = self.days.entry(self.today).or_default();
        day.peak = day.peak.max(open_now);
        if wall / 60 != self.minute {
            self.minute = wall / 60;
            self.sent_in_minute = 0;
        }
    }

    /// Adds what a report brought: the flow, and its [`Measure::ConnectionDuration`].
    pub fn add(&mut self, wall: UnixSeconds, flow: &Flow, durations: &Histogram, open_now: u64) {
        self.observe(wall, open_now);
        self.sent_in_minute += flow.traffic.messages_sent;
        let day = self.days.entry(self.today).or_default();
        day.opened += flow.opened;
        day.traffic += flow.traffic;
        for (reason, count) in LABELS.into_iter().zip(flow.closed) {
            add_to(&mut day.closed, count, || reason.to_owned());
        }
        for ((stage, reason), count) in refusal::labels().zip(flow.refused) {
            add_to(&mut day.refused, count, || {
                format!("{}/{reason}", stage.label())
            });
        }
        if durations.count() == 0 {
            return;
        }
        day.ended += durations.count();
        day.duration_sum_ms = day.duration_sum_ms.saturating_add(durations.sum());
        if let Some((_, today)) = self.durations.last_mut() {
            today.merge(durations);
            // A day gone on with keeps the quantiles of its larger part.
            if today.count() >= day.quantiles_of {
                day.quantiles_of = today.count();
                day.duration_p50_ms = today.quantile(0.5).unwrap_or(0);
                day.duration_p99_ms = today.quantile(0.99).unwrap_or(0);
            }
        }
    }

    /// Messages sent in the current minute, if `wall` still lies in it.
    #[must_use]
    pub const fn messages_per_minute(&self, wall: UnixSeconds) -> u64 {
        if wall / 60 == self.minute {
            self.sent_in_minute
        } else {
            0
        }
    }

    /// Today, as the clock showed it last.
    #[must_use]
    pub fn today(&self) -> (Date, &Day) {
        // `open_today` has made the entry, and never removes it.
        (self.today, &self.days[&self.today])
    }

    /// All days on which something was counted, the latest first.
    pub fn days(&self) -> impl Iterator<Item = (Date, &Day)> {
        self.days.iter().rev().map(|(date, day)| (*date, day))
    }

    /// Makes room for today, and gets its distribution out.
    fn open_today(&mut self) {
        let today = self.today;
        self.days.entry(today).or_default();
        while self.days.len() > DAYS_MAX {
            // The earliest goes; if the clock has jumped back before it, the one after it does.
            let Some(&earliest) = self.days.keys().find(|date| **date != today) else {
                break;
            };
            self.days.remove(&earliest);
        }
        let at = self.durations.iter().position(|(date, _)| *date == today);
        let distribution = match at {
            Some(at) => self.durations.remove(at),
            None => (today, Histogram::new(Measure::ConnectionDuration.scale())),
        };
        self.durations.push(distribution);
        let surplus = self.durations.len().saturating_sub(DISTRIBUTIONS_KEPT);
        self.durations.drain(..surplus);
    }
}

fn add_to(counts: &mut BTreeMap<String, u64>, count: u64, name: impl FnOnce() -> String) {
    if count > 0 {
        *counts.entry(name()).or_default() += count;
    }
}

#[cfg(test)]
mod tests;
