//! The days as text, and back.
//!
//! Two lines of JSON. The first says what the file is and vouches for the second by length and SHA-256,
//! so a torn or flipped file is noticed before it is believed; the second holds the days. Who reads the
//! file keeps a refused one aside: nothing here throws bytes away.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::digest;
use serde_json::{Map, Value, json};

use super::{DAYS_MAX, DISTRIBUTIONS_KEPT, Daily, Day};
use crate::metrics::calendar::{Date, UnixSeconds};
use crate::metrics::histogram::{Histogram, Measure};
use crate::metrics::report::Traffic;

/// What the first line calls the format.
const FORMAT: &str = "tidegate daily statistics";
/// The version written, and the only one read.
const VERSION: u64 = 1;

/// Why a file is not believed. `Display` is one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DailyFileError {
    /// The first line is not that of such a file.
    NotDailyStatistics,
    /// Written by another version of the program.
    Version {
        /// The version found.
        found: u64,
    },
    /// The second line is shorter or longer than it was written.
    Length {
        /// Bytes the first line speaks of.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// The second line is not what was written.
    Checksum,
    /// The second line is what was written, and makes no sense.
    Value {
        /// Where: `2025-11-10: opened`.
        place: String,
        /// What was to be there.
        expected: &'static str,
    },
}

impl fmt::Display for DailyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotDailyStatistics => write!(f, "this is no file of {FORMAT}"),
            Self::Version { found } => {
                write!(
                    f,
                    "version {found} of the file; this program reads {VERSION}"
                )
            }
            Self::Length { expected, found } => {
                write!(f, "{found} bytes of days where {expected} were written")
            }
            Self::Checksum => f.write_str("the days do not match their checksum"),
            Self::Value { place, expected } => write!(f, "{place}: expected {expected}"),
        }
    }
}

impl std::error::Error for DailyFileError {}

impl Daily {
    /// The text to write. Ends in a line feed.
    #[must_use]
    pub fn to_text(&self) -> String {
        let days: Map<String, Value> = self
            .days
            .iter()
            .map(|(date, day)| (date.to_string(), write_day(day)))
            .collect();
        let distributions: Map<String, Value> = self
            .durations
            .iter()
            .map(|(date, durations)| (date.to_string(), write_distribution(durations)))
            .collect();
        let body = json!({ "days": days, "durations": distributions }).to_string();
        let head = json!({
            "format": FORMAT,
            "version": VERSION,
            "bytes": body.len(),
            "sha256": sha256(&body),
        });
        format!("{head}\n{body}\n")
    }

    /// Goes on from a text that [`Daily::to_text`] wrote, at this moment.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn from_text(text: &str, wall: UnixSeconds) -> Result<Self, DailyFileError> {
        let (head, rest) = text.split_once('\n').unwrap_or((text, ""));
        let expected = read_head(head)?;
        let body = rest.strip_suffix('\n').unwrap_or(rest);
        let found = body.len() as u64;
        if found != expected.bytes {
            let expected = expected.bytes;
            return Err(DailyFileError::Length { expected, found });
        }
        if sha256(body) != expected.sha256 {
            return Err(DailyFileError::Checksum);
        }
        let body: Value = serde_json::from_str(body).map_err(|_| wrong("days", "JSON"))?;
        let mut daily = Self::new(wall);
        for (date, day) in object(&body, "days")? {
            let day = read_day(day).map_err(|error| error.within(date))?;
            daily.days.insert(read_date(date)?, day);
        }
        if daily.days.len() > DAYS_MAX + 1 {
            return Err(wrong("days", "at most 400"));
        }
        let distributions = object(&body, "durations")?;
        if distributions.len() > DISTRIBUTIONS_KEPT {
            return Err(wrong("durations", "at most 2"));
        }
        daily.durations.clear();
        for (date, durations) in distributions {
            let histogram = read_distribution(durations).map_err(|error| error.within(date))?;
            daily.durations.push((read_date(date)?, histogram));
        }
        daily.open_today();
        Ok(daily)
    }
}

struct Head {
    bytes: u64,
    sha256: String,
}

fn read_head(line: &str) -> Result<Head, DailyFileError> {
    let head: Value = serde_json::from_str(line).map_err(|_| DailyFileError::NotDailyStatistics)?;
    if head.get("format").and_then(Value::as_str) != Some(FORMAT) {
        return Err(DailyFileError::NotDailyStatistics);
    }
    let found = number(&head, "version")?;
    if found != VERSION {
        return Err(DailyFileError::Version { found });
    }
    let sha256 = head.get("sha256").and_then(Value::as_str);
    Ok(Head {
        bytes: number(&head, "bytes")?,
        sha256: sha256.ok_or_else(|| wrong("sha256", "a text"))?.to_owned(),
    })
}

fn write_day(day: &Day) -> Value {
    // Taking the day apart by name makes the compiler ask about every new figure.
    let Day {
        opened,
        closed,
        refused,
        peak,
        traffic,
        ended,
        duration_sum_ms,
        duration_p50_ms,
        duration_p99_ms,
        quantiles_of,
    } = day;
    json!({
        "opened": opened,
        "closed": closed,
        "refused": refused,
        "peak": peak,
        "messages_received": traffic.messages_received,
        "bytes_received": traffic.bytes_received,
        "messages_sent": traffic.messages_sent,
        "bytes_sent": traffic.bytes_sent,
        "ended": ended,
        "duration_sum_ms": duration_sum_ms,
        "duration_p50_ms": duration_p50_ms,
        "duration_p99_ms": duration_p99_ms,
        "quantiles_of": quantiles_of,
    })
}

fn read_day(day: &Value) -> Result<Day, DailyFileError> {
    let counts = |name: &str| -> Result<BTreeMap<String, u64>, DailyFileError> {
        object(day, name)?
            .iter()
            .map(|(reason, count)| match count.as_u64() {
                Some(count) => Ok((reason.clone(), count)),
                None => Err(wrong(reason, "a whole number").within(name)),
            })
            .collect()
    };
    Ok(Day {
        opened: number(day, "opened")?,
        closed: counts("closed")?,
        refused: counts("refused")?,
        peak: number(day, "peak")?,
        traffic: Traffic {
            messages_received: number(day, "messages_received")?,
            bytes_received: number(day, "bytes_received")?,
            messages_sent: number(day, "messages_sent")?,
            bytes_sent: number(day, "bytes_sent")?,
        },
        ended: number(day, "ended")?,
        duration_sum_ms: number(day, "duration_sum_ms")?,
        duration_p50_ms: number(day, "duration_p50_ms")?,
        duration_p99_ms: number(day, "duration_p99_ms")?,
        quantiles_of: number(day, "quantiles_of")?,
    })
}

fn write_distribution(durations: &Histogram) -> Value {
    let recorded: Vec<_> = durations.recorded().collect();
    json!({ "sum_ms": durations.sum(), "recorded": recorded })
}

fn read_distribution(value: &Value) -> Result<Histogram, DailyFileError> {
    let expected = "pairs of a duration and how often it occurred";
    let pairs = value.get("recorded").and_then(Value::as_array);
    let pairs = pairs.ok_or_else(|| wrong("recorded", expected))?;
    let recorded: Option<Vec<_>> = pairs
        .iter()
        .map(|pair| match pair.as_array()?.as_slice() {
            [duration, times] => duration.as_u64().zip(times.as_u64()),
            _ => None,
        })
        .collect();
    let recorded = recorded.ok_or_else(|| wrong("recorded", expected))?;
    Ok(Histogram::restore(
        Measure::ConnectionDuration.scale(),
        recorded,
        number(value, "sum_ms")?,
    ))
}

fn read_date(text: &str) -> Result<Date, DailyFileError> {
    text.parse().map_err(|_| wrong(text, "a day"))
}

fn number(value: &Value, name: &str) -> Result<u64, DailyFileError> {
    let number = value.get(name).and_then(Value::as_u64);
    number.ok_or_else(|| wrong(name, "a whole number"))
}

fn object<'v>(value: &'v Value, name: &str) -> Result<&'v Map<String, Value>, DailyFileError> {
    let object = value.get(name).and_then(Value::as_object);
    object.ok_or_else(|| wrong(name, "an object"))
}

fn wrong(place: &str, expected: &'static str) -> DailyFileError {
    // Names come from the file: they are shown escaped and cut.
    let place = place
        .chars()
        .take(64)
        .flat_map(char::escape_debug)
        .collect();
    DailyFileError::Value { place, expected }
}

impl DailyFileError {
    /// The same, deeper inside.
    fn within(self, outer: &str) -> Self {
        match self {
            Self::Value { place, expected } => {
                let outer: String = outer
                    .chars()
                    .take(64)
                    .flat_map(char::escape_debug)
                    .collect();
                let place = format!("{outer}: {place}");
                Self::Value { place, expected }
            }
            other => other,
        }
    }
}

fn sha256(text: &str) -> String {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
