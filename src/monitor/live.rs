//! The dashboard's live figures: one frame a second for all who watch, over the server's own WebSocket,
//! and the points of the last quarter of an hour for who has just come.
//!
//! Rates are taken between two reports of a reactor, by the reactor's own times, and held until its next:
//! whether a tick of the monitor saw none or two of them makes no wave. Where a reactor has been silent
//! for [`SILENCE_MS`], rates are not known and are said to be so, never as zeros (X6).
//!
//! Percentiles are those of the last minute (of a point: of the last [`POINT_TICKS`] ticks), from the
//! buckets of the exposition, evenly spread within a bucket.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::access::Token;
use super::alerts::AlertBoard;
use crate::admission::origin::OriginPolicy;
use crate::admission::refusal;
use crate::admission::{Route, TokenDemand};
use crate::conn::reason;
use crate::conn::{Handler, HandlerFactory, Peer};
use crate::hub::{Channel, ChannelError};
use crate::metrics::calendar::UnixSeconds;
use crate::metrics::figures::{Buckets, LabelValue, Value as Figure};
use crate::metrics::names::Part;
use crate::metrics::report::{Millis, Traffic};
use crate::metrics::totals::ReactorTotals;
use crate::metrics::{Figures, Metric, Registry, Totals};
use crate::ws::{self, CloseCode, Message};

/// The channel that all who watch have joined.
pub(super) const CHANNEL: &str = "dashboard";

/// What is spoken over the socket.
pub(super) const SUBPROTOCOL: &str = "tidegate.dashboard.v1";

/// Points that are kept, one a second.
pub(super) const POINTS_MAX: usize = 900;

/// A reactor that has not reported for so long is silent.
const SILENCE_MS: Millis = 5_000;

/// Ticks that percentiles of the table are taken over.
const WINDOW_TICKS: usize = 60;

/// Ticks that percentiles of a point are taken over.
const POINT_TICKS: usize = 5;

/// The numbers of a point, in their order; the page knows them by their places.
pub(super) const FIELDS: [&str; 14] = [
    "at",
    "active",
    "messages_in",
    "messages_out",
    "bytes_in",
    "bytes_out",
    "opened",
    "closed",
    "refused",
    "cpu",
    "latency_p50",
    "latency_p99",
    "resident_bytes",
    "loop_lag",
];

type Point = [Option<f64>; FIELDS.len()];

/// What the monitor knows at a tick.
pub(super) struct Sight<'a> {
    pub(super) now: Millis,
    pub(super) wall: UnixSeconds,
    pub(super) is_ready: bool,
    pub(super) figures: &'a Figures,
    pub(super) totals: &'a Totals,
    pub(super) registry: &'a Registry,
    pub(super) alerts: &'a AlertBoard,
}

/// What is kept from tick to tick.
#[derive(Debug, Default)]
pub(super) struct Live {
    points: VecDeque<Point>,
    reactors: Vec<Pace>,
    cpu: Option<(Millis, f64)>,
    /// The distributions at the latest ticks, the latest last.
    looks: VecDeque<Vec<Counts>>,
}

/// A reactor's speed.
#[derive(Debug, Default)]
struct Pace {
    /// Its report before the latest.
    before: Option<Known>,
    latest: Option<Known>,
}

/// What a report said, as far as rates are made of it.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    at: Millis,
    traffic: Traffic,
    opened: u64,
    closed: u64,
    refused: u64,
    /// Time spent in turns, in microseconds.
    busy: u64,
}

/// A reactor's rates, per second.
#[derive(Debug, Clone, Copy, Default)]
struct Rates {
    messages_in: f64,
    messages_out: f64,
    bytes_in: f64,
    bytes_out: f64,
    opened: f64,
    closed: f64,
    refused: f64,
    /// The share of time that it was at work.
    busy: f64,
}

impl Known {
    fn of(reactor: &ReactorTotals) -> Option<Self> {
        let counters = &reactor.counters;
        Some(Self {
            at: reactor.reported_at?,
            traffic: Traffic::of(counters),
            opened: counters.opened,
            closed: counters.closed_total(),
            refused: counters.refused.total(),
            busy: reactor.turn_time.sum(),
        })
    }
}

impl Pace {
    fn see(&mut self, reactor: &ReactorTotals) {
        let seen = Known::of(reactor);
        if seen.map(|seen| seen.at) != self.latest.map(|latest| latest.at) {
            self.before = self.latest;
            self.latest = seen;
        }
    }

    /// None before its second report, and when it has fallen silent.
    fn rates(&self, now: Millis) -> Option<Rates> {
        let (before, latest) = (self.before?, self.latest?);
        if now.saturating_sub(latest.at) > SILENCE_MS || latest.at <= before.at {
            return None;
        }
        let seconds = real(latest.at - before.at) / 1e3;
        let rate = |of: fn(&Known) -> u64| real(of(&latest).saturating_sub(of(&before))) / seconds;
        Some(Rates {
            messages_in: rate(|known| known.traffic.messages_received),
            messages_out: rate(|known| known.traffic.messages_sent),
            bytes_in: rate(|known| known.traffic.bytes_received),
            bytes_out: rate(|known| known.traffic.bytes_sent),
            opened: rate(|known| known.opened),
            closed: rate(|known| known.closed),
            refused: rate(|known| known.refused),
            busy: rate(|known| known.busy) / 1e6,
        })
    }
}

impl Live {
    /// Takes down what there is to see: the points and distributions that whoever comes later is shown.
    /// O(reactors), whatever the number of connections.
    pub(super) fn tick(&mut self, sight: &Sight<'_>) {
        self.reactors
            .resize_with(sight.totals.reactors.len(), Pace::default);
        for (pace, reactor) in self.reactors.iter_mut().zip(&sight.totals.reactors) {
            pace.see(reactor);
        }
        self.looks.push_back(look(sight.figures));
        if self.looks.len() > WINDOW_TICKS + 1 {
            self.looks.pop_front();
        }
        let point = self.point(sight);
        self.points.push_back(point);
        if self.points.len() > POINTS_MAX {
            self.points.pop_front();
        }
    }

    /// The frame of the latest [`tick`](Self::tick), as JSON, for those who watch: where nobody does, it
    /// need not be made. O(reactors + rules). None before the first tick.
    pub(super) fn frame(&self, sight: &Sight<'_>) -> Option<String> {
        let point = self.points.back()?;
        Some(self.frame_with(sight, point).to_string())
    }

    /// The answer to `GET /api/monitoring/websocket/history/`.
    pub(super) fn history(&self) -> Value {
        let points: Vec<&Point> = self.points.iter().collect();
        json!({"fields": FIELDS, "points": points})
    }

    fn point(&mut self, sight: &Sight<'_>) -> Point {
        let rates: Option<Vec<Rates>> = (self.reactors.iter())
            .map(|pace| pace.rates(sight.now))
            .collect();
        let rates = rates.filter(|rates| !rates.is_empty());
        let sum = |of: fn(&Rates) -> f64| {
            let rates = rates.as_ref()?;
            Some(round(rates.iter().map(of).sum()))
        };
        let latency = self.distribution(SEND, POINT_TICKS);
        let largest = sight
            .figures
            .values(Metric::LoopLagRecentMax, Part::Value, |_| true);
        [
            Some(real(sight.wall)),
            Some(real(sight.registry.len() as u64)),
            sum(|rates| rates.messages_in),
            sum(|rates| rates.messages_out),
            sum(|rates| rates.bytes_in),
            sum(|rates| rates.bytes_out),
            sum(|rates| rates.opened),
            sum(|rates| rates.closed),
            sum(|rates| rates.refused),
            self.cpu(sight),
            latency.as_ref().and_then(|counts| counts.quantile(0.5)),
            latency.as_ref().and_then(|counts| counts.quantile(0.99)),
            one(sight.figures, Metric::ProcessResident),
            largest.reduce(f64::max),
        ]
    }

    /// Cores' worth of time the process had since the tick before.
    fn cpu(&mut self, sight: &Sight<'_>) -> Option<f64> {
        let seconds = one(sight.figures, Metric::ProcessCpu)?;
        let (then, before) = self.cpu.replace((sight.now, seconds))?;
        let elapsed = real(sight.now.checked_sub(then)?) / 1e3;
        (elapsed > 0.0).then(|| ((seconds - before) / elapsed * 1e4).round() / 1e4)
    }

    /// What was measured in the latest ticks; none if nothing was, or nothing is known.
    fn distribution(&self, place: usize, ticks: usize) -> Option<Counts> {
        let latest = self.looks.back()?.get(place)?;
        let first = self.looks.len().saturating_sub(ticks + 1);
        let before = self.looks.get(first).and_then(|look| look.get(place));
        let grown = latest.since(before.filter(|_| self.looks.len() > 1)?);
        (grown.count > 0).then_some(grown)
    }

    fn frame_with(&self, sight: &Sight<'_>, point: &Point) -> Value {
        let figures = sight.figures;
        let counters = sight.totals.counters();
        let pair = |of: Metric, limit: Metric| Some([one(figures, of)?, one(figures, limit)?]);
        let closed: Vec<(&str, u64)> = reason::LABELS
            .into_iter()
            .zip(counters.closed)
            .filter(|(_, count)| *count > 0)
            .collect();
        let refused: Vec<(String, u64)> = refusal::labels()
            .zip(counters.refused.as_slice())
            .filter(|(_, count)| **count > 0)
            .map(|((stage, reason), count)| (format!("{}: {reason}", stage.label()), *count))
            .collect();
        let gauges =
            (sight.totals.reactors.iter()).map(|reactor| reactor.gauges.handshakes_in_flight);
        json!({
            "type": "tick",
            "ready": sight.is_ready,
            "version": env!("CARGO_PKG_VERSION"),
            "started_at": one(figures, Metric::ProcessStartTime),
            "point": point,
            "connections": counters.active(),
            "limit": one(figures, Metric::ConnectionsLimit),
            "users": sight.registry.users(),
            "handshakes": gauges.sum::<u64>(),
            "outbox_bytes": counters.outbox_bytes,
            "fds": pair(Metric::ProcessOpenFds, Metric::ProcessMaxFds),
            "memory": pair(Metric::CgroupMemory, Metric::CgroupMemoryLimit),
            "closed": closed,
            "refused": refused,
            "latency": self.latency(),
            "reactors": self.reactors(sight),
            "alerts": sight.alerts.list(),
            "webhook": sight.alerts.webhook_json(),
        })
    }

    fn latency(&self) -> Vec<Value> {
        let names = MEASURES.iter().enumerate();
        names
            .filter_map(|(place, (name, ..))| {
                let counts = self.distribution(place, WINDOW_TICKS)?;
                Some(json!({
                    "name": name,
                    "count": counts.count,
                    "p50": counts.quantile(0.5),
                    "p90": counts.quantile(0.9),
                    "p99": counts.quantile(0.99),
                    "p999": counts.quantile(0.999),
                }))
            })
            .collect()
    }

    fn reactors(&self, sight: &Sight<'_>) -> Vec<Value> {
        let reactors = sight.totals.reactors.iter().zip(&self.reactors).enumerate();
        reactors
            .map(|(number, (reactor, pace))| {
                let rates = pace.rates(sight.now);
                let rate = |of: fn(&Rates) -> f64| rates.as_ref().map(|rates| round(of(rates)));
                let open = u8::try_from(number).map_or(0, |number| sight.registry.len_of(number));
                let age = reactor
                    .reported_at
                    .map(|at| real(sight.now.saturating_sub(at)) / 1e3);
                json!({
                    "connections": open,
                    "busy": rates.map(|rates| (rates.busy * 1e4).round() / 1e4),
                    "messages_in": rate(|rates| rates.messages_in),
                    "messages_out": rate(|rates| rates.messages_out),
                    "bytes_in": rate(|rates| rates.bytes_in),
                    "bytes_out": rate(|rates| rates.bytes_out),
                    "lag": real(reactor.loop_lag_recent_max) / 1e6,
                    "handshakes": reactor.gauges.handshakes_in_flight,
                    "outbox_bytes": reactor.counters.outbox_bytes,
                    "mailbox": reactor.gauges.mailbox_letters,
                    "age": age,
                })
            })
            .collect()
    }
}

/// A distribution's cumulative counts by bucket.
#[derive(Debug, Clone, Default, PartialEq)]
struct Counts {
    bounds: Vec<f64>,
    cumulative: Vec<u64>,
    count: u64,
}

impl Counts {
    fn add(&mut self, buckets: &Buckets) {
        if self.bounds.is_empty() {
            self.bounds = buckets.cumulative.iter().map(|(bound, _)| *bound).collect();
            self.cumulative = vec![0; self.bounds.len()];
        }
        for (sum, (_, more)) in self.cumulative.iter_mut().zip(&buckets.cumulative) {
            *sum += more;
        }
        self.count += buckets.count;
    }

    fn since(&self, before: &Self) -> Self {
        let older = before
            .cumulative
            .iter()
            .copied()
            .chain(std::iter::repeat(0));
        let pairs = self.cumulative.iter().zip(older);
        Self {
            bounds: self.bounds.clone(),
            cumulative: pairs.map(|(now, then)| now.saturating_sub(then)).collect(),
            count: self.count.saturating_sub(before.count),
        }
    }

    /// Evenly spread within the bucket; what lies beyond the last bound counts as that.
    fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = real(self.count) * share;
        let (mut floor, mut below) = (0.0, 0);
        for (&bound, &reached) in self.bounds.iter().zip(&self.cumulative) {
            if real(reached) >= wanted && reached > below {
                let part = (wanted - real(below)) / real(reached - below);
                let value = floor + (bound - floor) * part.clamp(0.0, 1.0);
                return Some((value * 1e7).round() / 1e7);
            }
            (floor, below) = (bound, reached);
        }
        self.bounds.last().copied().filter(|_| self.count > 0)
    }
}

/// What latencies are shown: a name, the metric, and which of its samples (all without a label).
const MEASURES: [(&str, Metric, Option<&'static str>); 7] = [
    ("send", Metric::SendLatency, None),
    ("proxy", Metric::HandshakeDuration, Some("proxy")),
    ("tls", Metric::HandshakeDuration, Some("tls")),
    ("head", Metric::HandshakeDuration, Some("head")),
    ("admission", Metric::HandshakeDuration, Some("admission")),
    ("loop_lag", Metric::LoopLag, None),
    ("turn", Metric::TurnDuration, None),
];

/// The place of the send latency among them.
const SEND: usize = 0;

fn look(figures: &Figures) -> Vec<Counts> {
    let counts = |&(_, metric, label): &(&str, Metric, Option<&'static str>)| {
        let mut counts = Counts::default();
        for sample in figures.of(metric) {
            let is_meant =
                label.is_none_or(|label| sample.labels.contains(&LabelValue::Word(label)));
            if let (true, Figure::Buckets(buckets)) = (is_meant, &sample.value) {
                counts.add(buckets);
            }
        }
        counts
    };
    MEASURES.iter().map(counts).collect()
}

/// A metric without labels.
fn one(figures: &Figures, metric: Metric) -> Option<f64> {
    figures.values(metric, Part::Value, |_| true).next()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "figures of more than 2^53 would be shown rounded anyway"
)]
const fn real(number: u64) -> f64 {
    number as f64
}

/// Two decimals are enough for a rate, and short.
fn round(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// How long somebody may take to say who they are.
const GREETING: Duration = Duration::from_secs(5);

/// Longest first message, in bytes.
const GREETING_BYTES_MAX: usize = 4_096;

/// The route of the dashboard's socket. Pages of other hosts may not use it; programs, which send no
/// origin, may.
///
/// # Errors
/// None: the name of the channel is a valid one.
pub(super) fn route(
    token: Option<Token>,
) -> Result<(Route, Arc<dyn HandlerFactory>), ChannelError> {
    let channel = Channel::new(CHANNEL)?;
    let route = Route {
        subprotocols: vec![SUBPROTOCOL.to_owned()],
        origins: Some(OriginPolicy {
            allow_absent: true,
            allow_same_host: true,
            ..OriginPolicy::default()
        }),
        token: TokenDemand::None,
        limits: ws::Limits {
            message_bytes_max: GREETING_BYTES_MAX,
            ..ws::Limits::default()
        },
        ..Route::open("/dashboard/live")
    };
    let make = move |_: usize| LiveHandler::new(token.clone(), channel.clone());
    Ok((route, Arc::new(make)))
}

/// A dashboard's socket: its first message says the admin token, if there is one, and from then on it
/// hears the frames.
pub(super) struct LiveHandler {
    token: Option<Token>,
    channel: Channel,
}

/// Marks a connection that has been let in.
struct Watches;

impl LiveHandler {
    pub(super) fn new(token: Option<Token>, channel: Channel) -> Self {
        Self { token, channel }
    }

    /// Wrong tokens are not counted. A limit on them would keep out whoever has the right one while
    /// others guess, or, if it let that one in, would slow no guess down: each costs its sender a
    /// connection and this thread one hash, and there are too many tokens of that length to try.
    fn is_let_in(&self, message: &Message<'_>) -> bool {
        let Some(token) = &self.token else {
            return true;
        };
        let greeting: Option<Value> = serde_json::from_slice(message.as_bytes()).ok();
        let given = greeting
            .as_ref()
            .and_then(|greeting| greeting["token"].as_str());
        given.is_some_and(|given| token.matches(given))
    }
}

impl Handler for LiveHandler {
    fn open(&mut self, peer: &mut Peer<'_>) {
        peer.set_timer(GREETING);
    }

    fn message(&mut self, peer: &mut Peer<'_>, message: Message<'_>) {
        if peer.data::<Watches>().is_some() {
            peer.close(CloseCode::Policy, "there is nothing more to say");
        } else if self.is_let_in(&message) {
            peer.clear_timer();
            peer.set_data(Watches);
            peer.join(&self.channel);
        } else {
            peer.close(CloseCode::from(4401), "not the admin token");
        }
    }

    fn timer(&mut self, peer: &mut Peer<'_>) {
        peer.close(CloseCode::from(4401), "no token came");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Measure;
    use crate::metrics::figures::{KernelFigures, ProcessFigures, ServerFigures};
    use crate::metrics::report::Report;

    /// A monitor's view of reactors, told by reports.
    #[derive(Default)]
    struct Watch {
        live: Live,
        totals: Totals,
        registry: Registry,
        alerts: AlertBoard,
    }

    impl Watch {
        fn report(&mut self, reactor: u8, at: Millis, sent: u64, latencies: &[u64]) {
            let mut report = Report {
                reactor,
                at,
                ..Report::default()
            };
            report.counters.messages_sent = sent;
            for latency in latencies {
                report
                    .histograms
                    .record_many(Measure::SendLatency, *latency, 1);
            }
            self.totals.apply(&report);
        }

        fn tick(&mut self, now: Millis) -> Value {
            let figures = Figures::gather(
                now,
                &self.totals,
                &self.registry,
                &ServerFigures::default(),
                &ProcessFigures::default(),
                &KernelFigures::default(),
            );
            let sight = Sight {
                now,
                wall: now / 1000,
                is_ready: true,
                figures: &figures,
                totals: &self.totals,
                registry: &self.registry,
                alerts: &self.alerts,
            };
            self.live.tick(&sight);
            serde_json::from_str(&self.live.frame(&sight).unwrap()).unwrap()
        }
    }

    /// The place of messages sent in a point.
    const OUT: usize = 3;

    #[test]
    fn rates_are_between_two_reports_and_held_until_the_next() {
        let mut watch = Watch::default();
        assert_eq!(watch.tick(0)["point"][OUT], Value::Null);
        watch.report(0, 1_000, 100, &[]);
        assert_eq!(watch.tick(1_100)["point"][OUT], Value::Null);
        watch.report(0, 2_000, 150, &[]);
        for now in [2_100, 2_900, 3_100] {
            assert_eq!(watch.tick(now)["point"][OUT], 50.0);
        }
        // Two ticks saw one report; the next brings what two seconds did.
        watch.report(0, 4_000, 350, &[]);
        assert_eq!(watch.tick(4_100)["point"][OUT], 100.0);
        assert_eq!(watch.tick(4_200)["reactors"][0]["messages_out"], 100.0);
    }

    #[test]
    fn x6_a_silent_reactor_has_no_rates_and_the_sum_is_not_known() {
        let mut watch = Watch::default();
        for (at, sent) in [(1_000, 0), (2_000, 10)] {
            watch.report(0, at, sent, &[]);
            watch.report(1, at, sent, &[]);
            watch.tick(at);
        }
        assert_eq!(watch.tick(2_100)["point"][OUT], 20.0);
        watch.report(0, 7_000, 60, &[]);
        let at_the_limit = watch.tick(2_000 + SILENCE_MS);
        assert_eq!(at_the_limit["point"][OUT], 20.0);
        let beyond = watch.tick(2_000 + SILENCE_MS + 1);
        assert_eq!(beyond["point"][OUT], Value::Null);
        assert_eq!(beyond["reactors"][1]["messages_out"], Value::Null);
        assert_eq!(beyond["reactors"][0]["messages_out"], 10.0);
        assert_eq!(beyond["reactors"][1]["age"], 5.001);
    }

    #[test]
    fn percentiles_are_of_the_latest_ticks_and_within_their_bucket() {
        let mut watch = Watch::default();
        watch.tick(0);
        watch.report(0, 1_000, 0, &[70; 100]);
        let frame = watch.tick(1_000);
        let send = &frame["latency"][0];
        assert_eq!(
            (&send["name"], &send["count"]),
            (&"send".into(), &100.into())
        );
        // All of them lie in the bucket from 50 to 100 µs.
        let p99 = send["p99"].as_f64().unwrap();
        assert!((50e-6..=100e-6).contains(&p99), "{p99}");
        // A minute later nothing has been measured, which is not the same as in no time.
        for tick in 2..=WINDOW_TICKS as u64 {
            watch.tick(tick * 1_000);
        }
        assert_eq!(watch.tick(61_000)["latency"], json!([]));
        assert_eq!(watch.tick(62_000)["point"][11], Value::Null);
    }

    #[test]
    fn quantiles_are_spread_evenly_and_end_at_the_last_bound() {
        let counts = |cumulative: &[u64], count| Counts {
            bounds: vec![1.0, 2.0, 4.0],
            cumulative: cumulative.to_vec(),
            count,
        };
        for (counts, share, expected) in [
            (counts(&[0, 0, 0], 0), 0.5, None),
            (counts(&[10, 10, 10], 10), 0.5, Some(0.5)),
            (counts(&[0, 10, 10], 10), 0.5, Some(1.5)),
            (counts(&[0, 0, 10], 10), 1.0, Some(4.0)),
            (counts(&[5, 5, 10], 10), 0.75, Some(3.0)),
            (counts(&[0, 0, 0], 10), 0.99, Some(4.0)),
        ] {
            assert_eq!(counts.quantile(share), expected, "{counts:?} {share}");
        }
    }

    #[test]
    fn so_many_points_are_kept_and_not_one_more() {
        let mut watch = Watch::default();
        for tick in 0..=POINTS_MAX as u64 {
            watch.tick(tick * 1_000);
            let kept = watch.live.history()["points"].as_array().unwrap().len() as u64;
            assert_eq!(kept, (tick + 1).min(POINTS_MAX as u64));
        }
        assert_eq!(watch.live.history()["points"][0][0], 1.0);
    }
}
