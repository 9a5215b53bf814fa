//! A warm-up, then a window in which units of work are counted and timed, and what both processes used.

use std::io;
use std::process;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::options::Times;
use crate::process::cpu_time;

#[derive(Debug)]
pub(crate) struct Measurement {
    pid: u32,
    opens: Instant,
    closes: Instant,
    window: Option<Window>,
    units: u64,
    /// Nanoseconds, with three digits.
    latencies: Histogram<u64>,
}

/// A stretch of time and the CPU time that two processes used in it.
#[derive(Debug)]
pub(crate) struct Window {
    began: Instant,
    pid: u32,
    server: Duration,
    client: Duration,
}

impl Window {
    /// # Errors
    /// If the server has gone.
    pub(crate) fn open(pid: u32) -> io::Result<Self> {
        let (server, client) = (cpu_time(pid)?, cpu_time(process::id())?);
        Ok(Self {
            began: Instant::now(),
            pid,
            server,
            client,
        })
    }

    /// The rate and the cost of `units` in this window. A share is CPU time over time: 1.0 is one core.
    ///
    /// # Errors
    /// If the server has gone.
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of a minute are far below 2^52"
    )]
    pub(crate) fn close(self, units: u64) -> io::Result<Value> {
        let seconds = self.began.elapsed().as_secs_f64();
        let server = (cpu_time(self.pid)? - self.server).as_secs_f64();
        let client = (cpu_time(process::id())? - self.client).as_secs_f64();
        let mut result = json!({
            "seconds": seconds,
            "units": units,
            "rate": units as f64 / seconds,
            "server_cpu_share": server / seconds,
            "client_cpu_share": client / seconds,
        });
        if units > 0 {
            result["server_cpu_us_per_unit"] = json!(server * 1e6 / units as f64);
        }
        Ok(result)
    }
}

impl Measurement {
    /// Begins the warm-up.
    ///
    /// # Errors
    /// None in practice: of the histogram's bounds, which are constants.
    pub(crate) fn new(times: &Times, pid: u32) -> io::Result<Self> {
        let opens = Instant::now() + times.warmup;
        let latencies =
            Histogram::new_with_bounds(1, 120_000_000_000, 3).map_err(io::Error::other)?;
        Ok(Self {
            pid,
            opens,
            closes: opens + times.seconds,
            window: None,
            units: 0,
            latencies,
        })
    }

    /// Opens the window when the warm-up is over, forgetting what was recorded before. False at the end.
    ///
    /// # Errors
    /// If the server has gone.
    pub(crate) fn goes_on(&mut self) -> io::Result<bool> {
        let now = Instant::now();
        if self.window.is_none() && now >= self.opens {
            self.window = Some(Window::open(self.pid)?);
            self.units = 0;
            self.latencies.reset();
        }
        Ok(now < self.closes)
    }

    /// Whether the window has been opened.
    pub(crate) fn is_open(&self) -> bool {
        self.window.is_some()
    }

    /// Counts a unit of work.
    pub(crate) fn record(&mut self, latency: Duration) {
        self.units += 1;
        self.latencies
            .saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Units recorded in the window so far, or in the warm-up while that lasts.
    pub(crate) fn units(&self) -> u64 {
        self.units
    }

    /// The result, as JSON.
    ///
    /// # Errors
    /// If nothing was done in the window, which is no measurement, or the server has gone.
    pub(crate) fn finish(self) -> io::Result<Value> {
        let Some(window) = self.window.filter(|_| self.units > 0) else {
            return Err(io::Error::other("nothing came back within the window"));
        };
        let mut result = window.close(self.units)?;
        let at = |quantile| self.latencies.value_at_quantile(quantile) as f64 / 1e3;
        result["latency_us"] = json!({ "p50": at(0.5), "p99": at(0.99), "p99.9": at(0.999) });
        Ok(result)
    }
}
