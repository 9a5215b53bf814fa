//! The two JSON answers of the system that tidegate replaces: its names, its types, its meanings.

use super::calendar::{UnixSeconds, timestamp};
use super::daily::Daily;
use super::totals::Totals;

/// The figures of `GET /api/monitoring/websocket/metrics/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Original {
    /// Connections whose upgrade is complete.
    pub active_connections: u64,
    /// Upgrades completed on this day in UTC, also before a restart.
    pub connections_today: u64,
    /// Data messages sent since the server started.
    pub messages_sent: u64,
    /// Data messages received since the server started.
    pub messages_received: u64,
    /// Mean duration of the last 100 connections that ended, in milliseconds; 0 before the first.
    pub connection_duration_mean_ms: u64,
    /// Data messages sent in the current minute.
    pub messages_per_minute: u64,
    /// When.
    pub wall: UnixSeconds,
}

impl Original {
    /// The figures of this moment.
    #[must_use]
    pub fn gather(wall: UnixSeconds, totals: &Totals, daily: &Daily) -> Self {
        let counters = totals.counters();
        let mean = totals.last_ended.mean_duration().unwrap_or_default();
        Self {
            active_connections: totals.open(),
            connections_today: daily.today().1.opened,
            messages_sent: counters.messages_sent,
            messages_received: counters.messages_received,
            connection_duration_mean_ms: u64::try_from(mean.as_millis()).unwrap_or(u64::MAX),
            messages_per_minute: daily.messages_per_minute(wall),
            wall,
        }
    }

    /// The answer to `GET /api/monitoring/websocket/metrics/`.
    #[must_use]
    pub fn metrics_json(&self) -> String {
        let Self {
            active_connections,
            connections_today,
            messages_sent,
            messages_received,
            connection_duration_mean_ms: mean_ms,
            messages_per_minute,
            wall,
        } = self;
        // A duration is a number with two decimals, rounded half up, also where it is whole.
        let hundredths = mean_ms.saturating_add(5) / 10;
        format!(
            "{{\"active_connections\":{active_connections},\
             \"connections_today\":{connections_today},\
             \"messages_sent\":{messages_sent},\
             \"messages_received\":{messages_received},\
             \"avg_connection_duration\":{}.{:02},\
             \"messages_per_minute\":{messages_per_minute},\
             \"timestamp\":\"{}\"}}",
            hundredths / 100,
            hundredths % 100,
            timestamp(*wall),
        )
    }

    /// The answer to `GET /api/monitoring/websocket/active-connections/`.
    #[must_use]
    pub fn active_connections_json(&self) -> String {
        format!("{{\"active_connections\":{}}}", self.active_connections)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::Report;
    use crate::metrics::report::Ended;

    #[test]
    fn the_answers_are_those_of_the_original() {
        let figures = Original {
            active_connections: 5,
            connections_today: 150,
            messages_sent: 1250,
            messages_received: 980,
            connection_duration_mean_ms: 45_320,
            messages_per_minute: 12,
            wall: 1_762_776_000,
        };
        assert_eq!(
            figures.metrics_json(),
            "{\"active_connections\":5,\"connections_today\":150,\"messages_sent\":1250,\
             \"messages_received\":980,\"avg_connection_duration\":45.32,\
             \"messages_per_minute\":12,\"timestamp\":\"2025-11-10T12:00:00Z\"}"
        );
        assert_eq!(
            figures.active_connections_json(),
            "{\"active_connections\":5}"
        );
    }

    #[test]
    fn durations_have_two_decimals() {
        for (mean_ms, expected) in [(0, 0.0), (4, 0.0), (5, 0.01), (999, 1.0), (45_325, 45.33)] {
            let figures = Original {
                active_connections: 0,
                connections_today: 0,
                messages_sent: 0,
                messages_received: 0,
                connection_duration_mean_ms: mean_ms,
                messages_per_minute: 0,
                wall: 0,
            };
            let json: serde_json::Value = serde_json::from_str(&figures.metrics_json()).unwrap();
            let duration = &json["avg_connection_duration"];
            assert!(duration.is_f64(), "a number with a point: {duration}");
            assert_eq!(duration.as_f64(), Some(expected));
        }
    }

    #[test]
    fn figures_come_from_where_they_are_kept() {
        let wall = 1_762_776_000;
        let (mut totals, mut daily) = (Totals::default(), Daily::new(wall));
        let mut report = Report::default();
        report.gauges.open = 2;
        report.counters.opened = 3;
        report.counters.messages_sent = 8;
        report.counters.messages_received = 9;
        for seconds in [1, 2] {
            report.last_ended.push(Ended {
                at: seconds,
                duration: Duration::from_secs(seconds),
                reason: "io",
            });
        }
        let flow = totals.apply(&report);
        let durations = report
            .histograms
            .of(crate::metrics::Measure::ConnectionDuration);
        daily.add(wall, &flow, durations, 0);
        let figures = Original::gather(wall, &totals, &daily);
        assert_eq!(
            figures,
            Original {
                active_connections: 2,
                connections_today: 3,
                messages_sent: 8,
                messages_received: 9,
                connection_duration_mean_ms: 1_500,
                messages_per_minute: 8,
                wall,
            }
        );
    }
}
