//! Figures as JSON: the days, the way in, and every metric by its name.

use std::collections::BTreeMap;

use serde::Serialize;

use super::answer::seconds;
use crate::admission::{Stage, refusal};
use crate::metrics::calendar::{UnixSeconds, timestamp};
use crate::metrics::daily::Day;
use crate::metrics::figures::{Figures, LabelValue, Value};
use crate::metrics::histogram::Histogram;
use crate::metrics::{Daily, Measure, Metric, Totals};

/// The answer to `GET …/daily/`.
#[derive(Debug, Serialize)]
pub(super) struct Days<'a> {
    days: Vec<DayShown<'a>>,
    timestamp: String,
}

#[derive(Debug, Serialize)]
struct DayShown<'a> {
    date: String,
    opened: u64,
    closed: &'a BTreeMap<String, u64>,
    refused: &'a BTreeMap<String, u64>,
    peak: u64,
    messages_received: u64,
    bytes_received: u64,
    messages_sent: u64,
    bytes_sent: u64,
    ended: u64,
    duration_mean_seconds: Option<f64>,
    duration_p50_seconds: Option<f64>,
    duration_p99_seconds: Option<f64>,
}

/// The latest days, today first.
pub(super) fn days(daily: &Daily, count: usize, wall: UnixSeconds) -> Days<'_> {
    let quantile = |day: &Day, millis| (day.quantiles_of > 0).then(|| seconds(millis));
    let days = daily.days().take(count).map(|(date, day)| DayShown {
        date: date.to_string(),
        opened: day.opened,
        closed: &day.closed,
        refused: &day.refused,
        peak: day.peak,
        messages_received: day.traffic.messages_received,
        bytes_received: day.traffic.bytes_received,
        messages_sent: day.traffic.messages_sent,
        bytes_sent: day.traffic.bytes_sent,
        ended: day.ended,
        duration_mean_seconds: day.duration_mean_ms().map(seconds),
        duration_p50_seconds: quantile(day, day.duration_p50_ms),
        duration_p99_seconds: quantile(day, day.duration_p99_ms),
    });
    Days {
        days: days.collect(),
        timestamp: timestamp(wall),
    }
}

/// The answer to `GET …/funnel/`: how far those who came got, since the server started.
#[derive(Debug, Serialize)]
pub(super) struct Funnel {
    /// Connections taken from the kernel, those that a limit turned away at once included.
    arrived: u64,
    stages: Vec<StageShown>,
    /// On their way now.
    in_flight: u64,
    /// Gone on their way without having been refused.
    abandoned: u64,
    /// Came for plain HTTP.
    http: u64,
    /// Upgrades completed.
    opened: u64,
    timestamp: String,
}

#[derive(Debug, Serialize)]
struct StageShown {
    stage: &'static str,
    /// How many got through; `null` where it is not counted by itself.
    passed: Option<u64>,
    /// How many did not, by reason; reasons that never occurred are left out.
    refused: BTreeMap<&'static str, u64>,
    /// The time spent in the stage; `null` where it is not measured by itself.
    duration: Option<Distribution>,
}

/// A distribution in seconds.
#[derive(Debug, Serialize)]
struct Distribution {
    count: u64,
    sum_seconds: f64,
    p50_seconds: Option<f64>,
    p90_seconds: Option<f64>,
    p99_seconds: Option<f64>,
    max_seconds: f64,
}

impl Distribution {
    fn of(histogram: &Histogram, measure: Measure) -> Self {
        let scale = |value| real(value) / measure.scale().per_base_unit;
        let quantile = |share| histogram.quantile(share).map(scale);
        Self {
            count: histogram.count(),
            sum_seconds: scale(histogram.sum()),
            p50_seconds: quantile(0.5),
            p90_seconds: quantile(0.9),
            p99_seconds: quantile(0.99),
            max_seconds: scale(histogram.max()),
        }
    }
}

/// The way in, stage by stage.
pub(super) fn funnel(totals: &Totals, wall: UnixSeconds) -> Funnel {
    let sum = totals.counters();
    let refused = |stage: Stage| {
        let counts = refusal::labels().zip(sum.refused.as_slice());
        let of_stage = counts.filter(|((of, _), count)| *of == stage && **count > 0);
        of_stage
            .map(|((_, reason), count)| (reason, *count))
            .collect()
    };
    let stages = Stage::ALL.map(|stage| {
        let (passed, measure) = match stage {
            Stage::Accept => (Some(sum.accepted), None),
            Stage::Proxy => (Some(sum.proxied), Some(Measure::HandshakeProxy)),
            Stage::Tls => (Some(sum.tls_established), Some(Measure::HandshakeTls)),
            Stage::Head => (Some(sum.heads), Some(Measure::HandshakeHead)),
            // What follows is decided in one go, and timed as one.
            Stage::Upgrade => (None, Some(Measure::HandshakeAdmission)),
            Stage::User => (Some(sum.opened), None),
            Stage::Route | Stage::Address | Stage::Origin | Stage::Token | Stage::Rule => {
                (None, None)
            }
        };
        StageShown {
            stage: stage.label(),
            passed,
            refused: refused(stage),
            duration: measure.map(|one| Distribution::of(totals.histograms.of(one), one)),
        }
    });
    let in_flight = totals
        .reactors
        .iter()
        .map(|reactor| reactor.gauges.handshakes_in_flight);
    Funnel {
        arrived: sum.accepted + sum.accept_refused,
        stages: stages.into(),
        in_flight: in_flight.sum(),
        abandoned: sum.abandoned,
        http: sum.exchanges,
        opened: sum.opened,
        timestamp: timestamp(wall),
    }
}

/// The answer to `GET …/figures/`: what `/metrics` says, for whoever prefers JSON.
#[derive(Debug, Serialize)]
pub(super) struct AllFigures {
    timestamp: String,
    metrics: BTreeMap<&'static str, Vec<SampleShown>>,
}

#[derive(Debug, Serialize)]
struct SampleShown {
    labels: BTreeMap<&'static str, String>,
    #[serde(flatten)]
    value: ValueShown,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum ValueShown {
    Whole {
        value: u64,
    },
    Real {
        value: f64,
    },
    Buckets {
        count: u64,
        sum: f64,
        /// Upper bound of each bucket but the last, and how many values are at most that.
        buckets: Vec<(f64, u64)>,
    },
}

/// All figures by the names of their metrics' families.
pub(super) fn all_figures(figures: &Figures, wall: UnixSeconds) -> AllFigures {
    let mut metrics = BTreeMap::new();
    for &metric in Metric::ALL {
        let samples = figures.of(metric);
        if samples.is_empty() {
            continue;
        }
        let spec = metric.spec();
        let shown = samples.iter().map(|sample| {
            let labels = spec.labels.iter().zip(&sample.labels);
            SampleShown {
                labels: labels
                    .map(|(name, value)| {
                        let value = match value {
                            LabelValue::Word(word) => (*word).to_owned(),
                            LabelValue::Number(number) => number.to_string(),
                        };
                        (*name, value)
                    })
                    .collect(),
                value: match &sample.value {
                    Value::Whole(value) => ValueShown::Whole { value: *value },
                    Value::Real(value) => ValueShown::Real { value: *value },
                    Value::Buckets(buckets) => ValueShown::Buckets {
                        count: buckets.count,
                        sum: buckets.sum,
                        buckets: buckets.cumulative.clone(),
                    },
                },
            }
        });
        metrics.insert(spec.name, shown.collect());
    }
    AllFigures {
        timestamp: timestamp(wall),
        metrics,
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "times are shown with fifteen digits, which is enough"
)]
const fn real(number: u64) -> f64 {
    number as f64
}
