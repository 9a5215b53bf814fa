//! All figures at one moment: what is rendered as text and what alert rules look at is the same.

use super::backend::{ApiMethod, ApiResult};
use super::counters::Counters;
use super::histogram::{Histogram, Measure};
use super::hook::HookFigures;
use super::names::{Metric, Part};
use super::registry::Registry;
use super::report::{Millis, Transport};
use super::totals::{ReactorTotals, Totals};
use crate::admission::limits::Limit;
use crate::admission::refusal;
use crate::conn::reason::LABELS;

/// A value of a label: a word of the program or a number of its own, so that the set is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelValue {
    /// A word.
    Word(&'static str),
    /// A number, of a reactor mostly.
    Number(usize),
}

impl LabelValue {
    /// Whether this is how the value is written.
    #[must_use]
    pub fn is(self, text: &str) -> bool {
        match self {
            Self::Word(word) => word == text,
            Self::Number(number) => text.parse() == Ok(number),
        }
    }
}

impl From<&'static str> for LabelValue {
    fn from(word: &'static str) -> Self {
        Self::Word(word)
    }
}

impl From<usize> for LabelValue {
    fn from(number: usize) -> Self {
        Self::Number(number)
    }
}

/// What a sample says.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A whole number.
    Whole(u64),
    /// Any number.
    Real(f64),
    /// A distribution.
    Buckets(Buckets),
}

/// A distribution in base units.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Buckets {
    /// Upper bound of each bucket but the last, and how many values are at most that.
    pub cumulative: Vec<(f64, u64)>,
    /// How many values there are.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
}

impl Buckets {
    /// A distribution as the exposition shows it.
    #[must_use]
    pub fn of(histogram: &Histogram, measure: Measure) -> Self {
        let scale = measure.scale();
        let counts = histogram.buckets(scale.bounds);
        let bounds = scale
            .bounds
            .iter()
            .map(|&bound| real(bound) / scale.per_base_unit);
        Self {
            cumulative: bounds.zip(counts).collect(),
            count: histogram.count(),
            sum: real(histogram.sum()) / scale.per_base_unit,
        }
    }
}

/// One series' value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Values of the metric's labels, in their order.
    pub labels: Vec<LabelValue>,
    /// What it says.
    pub value: Value,
}

/// All samples of all metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures(Vec<Vec<Sample>>);

impl Default for Figures {
    fn default() -> Self {
        Self(vec![Vec::new(); Metric::ALL.len()])
    }
}

/// What the server as a whole says of itself. What is not known is left out, never shown as zero.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServerFigures {
    /// Whether it wants traffic.
    pub is_ready: bool,
    /// Connections accepted at most.
    pub connections_limit: Option<u64>,
    /// Connections that do not empty their outbox, by cause.
    pub slow_consumers: Vec<(&'static str, u64)>,
    /// Memory by component, in bytes.
    pub memory: Vec<(&'static str, u64)>,
    /// Seconds until the first certificate expires.
    pub certificate_remaining: Option<f64>,
    /// Lines of the log dropped.
    pub log_lines_dropped: u64,
    /// Configurations read again, by result.
    pub reloads: Vec<(&'static str, u64)>,
    /// Restarts of the metrics thread.
    pub metrics_restarts: u64,
    /// Alerts firing, by severity.
    pub alerts_firing: Vec<(&'static str, u64)>,
    /// Notifications taken by their receiver.
    pub notifications_delivered: u64,
    /// Notifications that wait for it.
    pub notifications_pending: u64,
    /// Notifications given up.
    pub notifications_dropped: u64,
    /// What hooks did, if a route has any.
    pub hooks: Option<HookFigures>,
}

/// What the kernel says of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[expect(missing_docs, reason = "each field is the metric of the same name")]
pub struct ProcessFigures {
    pub cpu_seconds: Option<f64>,
    pub resident_bytes: Option<u64>,
    pub virtual_bytes: Option<u64>,
    pub open_fds: Option<u64>,
    pub max_fds: Option<u64>,
    pub start_time_seconds: Option<f64>,
}

/// What the kernel says of the host and the control group.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[expect(missing_docs, reason = "each field is the metric of the same name")]
pub struct KernelFigures {
    pub listen_overflows: Option<u64>,
    pub listen_drops: Option<u64>,
    pub syn_drops: Option<u64>,
    pub tcp_memory_bytes: Option<u64>,
    pub tcp_memory_limit_bytes: Option<u64>,
    pub tcp_orphans: Option<u64>,
    pub conntrack_entries: Option<u64>,
    pub conntrack_limit: Option<u64>,
    pub cgroup_memory_bytes: Option<u64>,
    pub cgroup_memory_limit_bytes: Option<u64>,
    pub cgroup_throttled_seconds: Option<f64>,
}

/// What a metric shows of a reactor's counters.
type Pick = fn(&Counters) -> u64;

/// Counters shown for each reactor.
const BY_REACTOR: [(Metric, Pick); 16] = [
    (Metric::Connections, Counters::active),
    (Metric::Accepted, |c| c.accepted),
    (Metric::AcceptRefused, |c| c.accept_refused),
    (Metric::AcceptDeferred, |c| c.accept_deferred),
    (Metric::AcceptParked, |c| c.accept_parked),
    (Metric::MessagesReceived, |c| c.messages_received),
    (Metric::ReceivedBytes, |c| c.bytes_received),
    (Metric::MessagesSent, |c| c.messages_sent),
    (Metric::SentBytes, |c| c.bytes_sent),
    (Metric::OutboxBytes, |c| c.outbox_bytes),
    (Metric::OutboxSkipped, |c| c.outbox_skipped),
    (Metric::OutboxTakenBack, |c| c.outbox_taken_back),
    (Metric::ReadingPaused, |c| c.reading_paused),
    (Metric::Published, |c| c.published),
    (Metric::Delivered, |c| c.delivered),
    (Metric::PublicationsDropped, |c| c.publications_dropped),
];

/// Counters shown in sum.
const IN_SUM: [(Metric, Pick); 21] = [
    (Metric::ProxyHeaders, |c| c.proxied),
    (Metric::RequestHeads, |c| c.heads),
    (Metric::Abandoned, |c| c.abandoned),
    (Metric::HttpConnections, |c| c.exchanges),
    (Metric::HttpRequests, |c| c.requests),
    (Metric::HttpRequestsRefused, |c| c.requests_refused),
    (Metric::HttpRequestsUnanswered, |c| c.requests_unanswered),
    (Metric::TokensRenewed, |c| c.tokens_renewed),
    (Metric::RenewalsRefused, |c| c.renewals_refused),
    (Metric::TlsTruncated, |c| c.tls_truncated),
    (Metric::PingsSent, |c| c.pings_sent),
    (Metric::PingsSkipped, |c| c.pings_skipped),
    (Metric::MessagesIgnored, |c| c.messages_ignored),
    (Metric::Gaps, |c| c.gaps),
    (Metric::SubscriptionsRefused, |c| c.subscriptions_refused),
    (Metric::CommandsUnanswered, |c| c.commands_unanswered),
    (Metric::HistoriesRefused, |c| c.histories_refused),
    (Metric::PresenceRefused, |c| c.presence_refused),
    (Metric::AnnouncementsHeld, |c| c.announcements_held),
    (Metric::PublicationsRepeated, |c| c.publications_repeated),
    (Metric::HandlerPanics, |c| c.handler_panics),
];

impl Figures {
    /// The figures of this moment. O(reactors), whatever the number of connections.
    #[must_use]
    pub fn gather(
        now: Millis,
        totals: &Totals,
        registry: &Registry,
        server: &ServerFigures,
        process: &ProcessFigures,
        kernel: &KernelFigures,
    ) -> Self {
        let mut figures = Self::default();
        figures.add(
            Metric::Build,
            &[env!("CARGO_PKG_VERSION").into()],
            Value::Whole(1),
        );
        for (number, reactor) in totals.reactors.iter().enumerate() {
            figures.add_reactor(now, number, reactor);
        }
        figures.add_totals(totals);
        figures.add_whole(Metric::Users, &[], registry.users() as u64);
        figures.add_server(server);
        figures.add_process(process);
        figures.add_kernel(kernel);
        figures
    }

    /// Adds one sample.
    pub fn add(&mut self, metric: Metric, labels: &[LabelValue], value: Value) {
        debug_assert_eq!(labels.len(), metric.spec().labels.len(), "{metric:?}");
        self.0[metric as usize].push(Sample {
            labels: labels.to_vec(),
            value,
        });
    }

    /// A metric's samples.
    #[must_use]
    pub fn of(&self, metric: Metric) -> &[Sample] {
        &self.0[metric as usize]
    }

    /// How many series there are, histograms counted once.
    #[must_use]
    pub fn series(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    /// The numbers of those of a metric's samples whose labels `is_meant` accepts.
    pub fn values(
        &self,
        metric: Metric,
        part: Part,
        is_meant: impl Fn(&[LabelValue]) -> bool,
    ) -> impl Iterator<Item = f64> {
        self.of(metric)
            .iter()
            .filter(move |sample| is_meant(&sample.labels))
            .filter_map(move |sample| match (&sample.value, part) {
                (Value::Whole(number), Part::Value) => Some(real(*number)),
                (Value::Real(number), Part::Value) => Some(*number),
                (Value::Buckets(buckets), Part::Sum) => Some(buckets.sum),
                (Value::Buckets(buckets), Part::Count) => Some(real(buckets.count)),
                _ => None,
            })
    }

    fn add_whole(&mut self, metric: Metric, labels: &[LabelValue], number: u64) {
        self.add(metric, labels, Value::Whole(number));
    }

    fn add_reactor(&mut self, now: Millis, number: usize, reactor: &ReactorTotals) {
        let labels = [number.into()];
        for (metric, count) in BY_REACTOR {
            self.add_whole(metric, &labels, count(&reactor.counters));
        }
        let gauges = &reactor.gauges;
        for (metric, gauge) in [
            (Metric::ConnectionsOpen, gauges.open),
            (Metric::HandshakesInFlight, gauges.handshakes_in_flight),
            (Metric::MailboxLetters, gauges.mailbox_letters),
            (Metric::MailboxBytes, gauges.mailbox_bytes),
            (Metric::Channels, gauges.channels),
            (Metric::Subscriptions, gauges.subscriptions),
            (Metric::ReportsDelayed, reactor.delays),
        ] {
            self.add_whole(metric, &labels, gauge);
        }
        for (metric, histogram, measure) in [
            (Metric::LoopLag, &reactor.loop_lag, Measure::LoopLag),
            (Metric::TurnDuration, &reactor.turn_time, Measure::TurnTime),
        ] {
            self.add(
                metric,
                &labels,
                Value::Buckets(Buckets::of(histogram, measure)),
            );
        }
        let lag = real(reactor.loop_lag_recent_max) / Measure::LoopLag.scale().per_base_unit;
        self.add(Metric::LoopLagRecentMax, &labels, Value::Real(lag));
        if let Some(at) = reactor.reported_at {
            let age = real(now.saturating_sub(at)) / 1e3;
            self.add(Metric::ReportAge, &labels, Value::Real(age));
        }
    }

    fn add_totals(&mut self, totals: &Totals) {
        let sum = totals.counters();
        for (metric, count) in IN_SUM {
            self.add_whole(metric, &[], count(&sum));
        }
        for (transport, count) in Transport::ALL.into_iter().zip(totals.opened()) {
            let labels = [transport.tls().into(), yes_or_no(transport.is_resumed())];
            self.add_whole(Metric::Opened, &labels, count);
        }
        for (reason, count) in LABELS.into_iter().zip(sum.closed) {
            self.add_whole(Metric::Closed, &[reason.into()], count);
        }
        for ((stage, reason), &count) in refusal::labels().zip(sum.refused.as_slice()) {
            self.add_whole(
                Metric::Refused,
                &[stage.label().into(), reason.into()],
                count,
            );
        }
        for method in ApiMethod::ALL {
            for result in ApiResult::ALL {
                let labels = [method.name().into(), result.name().into()];
                self.add_whole(Metric::ApiCommands, &labels, sum.api.of(method, result));
            }
        }
        for limit in Limit::ALL {
            let label = [limit.name().into()];
            self.add_whole(Metric::LimitRefused, &label, sum.tally.refused(limit));
            self.add_whole(
                Metric::LimitWouldRefuse,
                &label,
                sum.tally.would_refuse(limit),
            );
        }
        let in_full = sum.tls_established.saturating_sub(sum.tls_resumed);
        self.add_whole(Metric::TlsHandshakes, &[yes_or_no(false)], in_full);
        self.add_whole(Metric::TlsHandshakes, &[yes_or_no(true)], sum.tls_resumed);
        for (metric, labels, measure) in [
            (
                Metric::ConnectionDuration,
                None,
                Measure::ConnectionDuration,
            ),
            (Metric::SendLatency, None, Measure::SendLatency),
            (
                Metric::MessageSize,
                Some("received"),
                Measure::MessageReceived,
            ),
            (Metric::MessageSize, Some("sent"), Measure::MessageSent),
            (
                Metric::HandshakeDuration,
                Some("proxy"),
                Measure::HandshakeProxy,
            ),
            (
                Metric::HandshakeDuration,
                Some("tls"),
                Measure::HandshakeTls,
            ),
            (
                Metric::HandshakeDuration,
                Some("head"),
                Measure::HandshakeHead,
            ),
            (
                Metric::HandshakeDuration,
                Some("admission"),
                Measure::HandshakeAdmission,
            ),
        ] {
            let labels: Vec<LabelValue> = labels.into_iter().map(LabelValue::from).collect();
            let buckets = Buckets::of(totals.histograms.of(measure), measure);
            self.add(metric, &labels, Value::Buckets(buckets));
        }
    }

    fn add_server(&mut self, server: &ServerFigures) {
        self.add_whole(Metric::Ready, &[], u64::from(server.is_ready));
        for (metric, list) in [
            (Metric::SlowConsumers, &server.slow_consumers),
            (Metric::Memory, &server.memory),
            (Metric::Reloads, &server.reloads),
            (Metric::AlertsFiring, &server.alerts_firing),
        ] {
            for &(label, number) in list {
                self.add_whole(metric, &[label.into()], number);
            }
        }
        self.add_whole(Metric::LogLinesDropped, &[], server.log_lines_dropped);
        self.add_whole(Metric::MetricsRestarts, &[], server.metrics_restarts);
        for (metric, count) in [
            (
                Metric::NotificationsDelivered,
                server.notifications_delivered,
            ),
            (Metric::NotificationsPending, server.notifications_pending),
            (Metric::NotificationsDropped, server.notifications_dropped),
        ] {
            self.add_whole(metric, &[], count);
        }
        if let Some(hooks) = &server.hooks {
            hooks.add_to(self);
        }
        self.add_known([(Metric::ConnectionsLimit, server.connections_limit)]);
        self.add_known_real([(Metric::CertificateRemaining, server.certificate_remaining)]);
    }

    fn add_process(&mut self, process: &ProcessFigures) {
        self.add_known([
            (Metric::ProcessResident, process.resident_bytes),
            (Metric::ProcessVirtual, process.virtual_bytes),
            (Metric::ProcessOpenFds, process.open_fds),
            (Metric::ProcessMaxFds, process.max_fds),
        ]);
        self.add_known_real([
            (Metric::ProcessCpu, process.cpu_seconds),
            (Metric::ProcessStartTime, process.start_time_seconds),
        ]);
    }

    fn add_kernel(&mut self, kernel: &KernelFigures) {
        self.add_known([
            (Metric::KernelListenOverflows, kernel.listen_overflows),
            (Metric::KernelListenDrops, kernel.listen_drops),
            (Metric::KernelSynDrops, kernel.syn_drops),
            (Metric::KernelTcpMemory, kernel.tcp_memory_bytes),
            (Metric::KernelTcpMemoryLimit, kernel.tcp_memory_limit_bytes),
            (Metric::KernelTcpOrphans, kernel.tcp_orphans),
            (Metric::KernelConntrackEntries, kernel.conntrack_entries),
            (Metric::KernelConntrackLimit, kernel.conntrack_limit),
            (Metric::CgroupMemory, kernel.cgroup_memory_bytes),
            (Metric::CgroupMemoryLimit, kernel.cgroup_memory_limit_bytes),
        ]);
        self.add_known_real([(Metric::CgroupThrottled, kernel.cgroup_throttled_seconds)]);
    }

    fn add_known<const N: usize>(&mut self, known: [(Metric, Option<u64>); N]) {
        for (metric, number) in known {
            if let Some(number) = number {
                self.add_whole(metric, &[], number);
            }
        }
    }

    fn add_known_real<const N: usize>(&mut self, known: [(Metric, Option<f64>); N]) {
        for (metric, number) in known {
            if let Some(number) = number {
                self.add(metric, &[], Value::Real(number));
            }
        }
    }
}

fn yes_or_no(holds: bool) -> LabelValue {
    LabelValue::Word(if holds { "true" } else { "false" })
}

#[expect(
    clippy::cast_precision_loss,
    reason = "figures beyond 2^53 are read by people and by programs that use doubles"
)]
const fn real(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Everything known, so that every metric has a sample.
    pub(in crate::metrics) fn everything() -> Figures {
        let mut totals = Totals::default();
        totals.reactors.resize_with(2, ReactorTotals::default);
        for (number, reactor) in (1..).zip(&mut totals.reactors) {
            reactor.counters.accepted = 10 * number;
            reactor.counters.closed[0] = number;
            reactor.counters.messages_sent = 100;
            reactor.reported_at = Some(500);
            reactor.loop_lag.record(1_500);
            reactor.gauges.handshakes_in_flight = number;
        }
        totals.histograms.record(Measure::MessageSent, 100);
        totals.reactors[0].opened[Transport::Tls13Resumed as usize] = 4;
        let server = ServerFigures {
            is_ready: true,
            connections_limit: Some(1_000),
            slow_consumers: vec![("peer_window", 1)],
            memory: vec![("registry", 4_096)],
            certificate_remaining: Some(-1.5),
            reloads: vec![("ok", 1)],
            alerts_firing: vec![("critical", 0)],
            hooks: Some(HookFigures::default()),
            ..ServerFigures::default()
        };
        let process = ProcessFigures {
            cpu_seconds: Some(1.25),
            resident_bytes: Some(1),
            virtual_bytes: Some(2),
            open_fds: Some(3),
            max_fds: Some(4),
            start_time_seconds: Some(1_762_776_000.5),
        };
        let kernel = KernelFigures {
            listen_overflows: Some(1),
            listen_drops: Some(2),
            syn_drops: Some(3),
            tcp_memory_bytes: Some(4),
            tcp_memory_limit_bytes: Some(5),
            tcp_orphans: Some(6),
            conntrack_entries: Some(7),
            conntrack_limit: Some(8),
            cgroup_memory_bytes: Some(9),
            cgroup_memory_limit_bytes: Some(10),
            cgroup_throttled_seconds: Some(0.5),
        };
        Figures::gather(
            2_000,
            &totals,
            &Registry::default(),
            &server,
            &process,
            &kernel,
        )
    }

    #[test]
    fn every_metric_has_samples_and_no_series_twice() {
        let figures = everything();
        for &metric in Metric::ALL {
            let samples = figures.of(metric);
            assert!(!samples.is_empty(), "{metric:?}");
            for (index, sample) in samples.iter().enumerate() {
                assert_eq!(
                    sample.labels.len(),
                    metric.spec().labels.len(),
                    "{metric:?}"
                );
                let again = samples[index + 1..]
                    .iter()
                    .any(|s| s.labels == sample.labels);
                assert!(!again, "{metric:?} {:?}", sample.labels);
            }
        }
    }

    #[test]
    fn what_is_not_known_is_left_out_and_never_zero() {
        let figures = Figures::gather(
            0,
            &Totals::default(),
            &Registry::default(),
            &ServerFigures::default(),
            &ProcessFigures::default(),
            &KernelFigures::default(),
        );
        for metric in [
            Metric::Connections,
            Metric::ConnectionsLimit,
            Metric::ProcessOpenFds,
            Metric::KernelListenOverflows,
            Metric::CertificateRemaining,
        ] {
            assert_eq!(figures.of(metric), [], "{metric:?}");
        }
    }

    #[test]
    fn the_numbers_of_the_samples_that_are_meant_are_given() {
        let figures = everything();
        let all = |metric, part| figures.values(metric, part, |_| true).collect::<Vec<_>>();
        assert_eq!(all(Metric::Connections, Part::Value), [9.0, 18.0]);
        assert_eq!(all(Metric::LoopLag, Part::Count), [1.0, 1.0]);
        assert_eq!(all(Metric::LoopLag, Part::Sum), [0.0015, 0.0015]);
        assert!(all(Metric::LoopLag, Part::Value).is_empty());
        assert_eq!(all(Metric::HandshakesInFlight, Part::Value), [1.0, 2.0]);
        assert_eq!(all(Metric::ReportAge, Part::Value), [1.5, 1.5]);
        let second = figures.values(Metric::Connections, Part::Value, |labels| labels[0].is("1"));
        assert_eq!(second.collect::<Vec<_>>(), [18.0]);
    }
}
