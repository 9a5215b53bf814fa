//! Alive, and ready: the two questions of whoever sends traffic or restarts processes.

use serde::Serialize;

use super::Subject;
use super::answer::seconds;
use crate::metrics::Totals;
use crate::metrics::report::Millis;

/// A reactor that has not reported for so long is stuck, in milliseconds, beside the interval of reports.
const SILENCE_MAX: Millis = 10_000;

/// Why no traffic is to be sent here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unready {
    /// The server has not been started.
    Starting,
    /// It is shutting down.
    Draining,
    /// It has nearly as many connections as it may have.
    NearLimit,
    /// A reactor does not report: it is stuck.
    ReactorSilent,
}

impl Unready {
    /// In a word.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Draining => "draining",
            Self::NearLimit => "near_limit",
            Self::ReactorSilent => "reactor_silent",
        }
    }
}

/// Whether traffic may be sent.
pub(super) fn readiness(
    subject: Option<&Subject>,
    percent_max: u8,
    silence: Option<Millis>,
    interval: Millis,
) -> Result<(), Unready> {
    let subject = subject.ok_or(Unready::Starting)?;
    if subject.handle.is_shutting_down() {
        return Err(Unready::Draining);
    }
    let held = u64::from(subject.handle.gate().limits.connections());
    // Multiplied out, so that nothing is rounded.
    let most = u64::from(subject.handle.served().connections_max);
    if held * 100 > most * u64::from(percent_max) {
        return Err(Unready::NearLimit);
    }
    if silence.is_some_and(|silence| silence > SILENCE_MAX.saturating_add(2 * interval)) {
        return Err(Unready::ReactorSilent);
    }
    Ok(())
}

/// How long the most silent reactor has not reported; none before the first report.
pub(super) fn longest_silence(now: Millis, totals: &Totals) -> Option<Millis> {
    let ages = totals
        .reactors
        .iter()
        .filter_map(|reactor| reactor.reported_at)
        .map(|at| now.saturating_sub(at));
    ages.max()
}

/// The answer to `?verbose`.
#[derive(Debug, Serialize)]
pub(super) struct Health<'a> {
    status: &'static str,
    version: &'static str,
    uptime_seconds: f64,
    connections: u32,
    connections_max: u64,
    reactors: usize,
    longest_silence_seconds: Option<f64>,
    monitoring: &'static str,
    monitoring_restarts: u32,
    warnings: &'a [String],
}

impl<'a> Health<'a> {
    pub(super) fn new(
        status: &'static str,
        subject: Option<&Subject>,
        silence: Option<Millis>,
        (has_failed, restarts): (bool, u32),
        warnings: &'a [String],
    ) -> Self {
        let handle = subject.map(|subject| &subject.handle);
        Self {
            status,
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: handle.map_or(0.0, |handle| handle.uptime().as_secs_f64()),
            connections: handle.map_or(0, |handle| handle.gate().limits.connections()),
            connections_max: handle.map_or(0, |handle| handle.served().connections_max.into()),
            reactors: handle.map_or(0, crate::server::Handle::reactors),
            longest_silence_seconds: silence.map(seconds),
            monitoring: if has_failed { "failed" } else { "ok" },
            monitoring_restarts: restarts,
            warnings,
        }
    }
}
