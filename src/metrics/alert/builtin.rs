//! The rules that every server has unless its operator says otherwise.

use std::borrow::Cow;

use super::{Comparison, RATIO_LEAST, Rule, Series, Severity, Signal};
use crate::metrics::names::{Metric, Part};
use crate::metrics::report::Millis;

const DAY: f64 = 86_400.0;
const MINUTE_MS: Millis = 60_000;

/// The built-in rules.
#[must_use]
pub fn builtin_rules() -> Vec<Rule> {
    use Comparison::{Above, Below};
    use Severity::{Critical, Warning};
    let value = |metric| Series::of(metric, Part::Value);
    let near_limit = || Signal::Ratio(value(Metric::Connections), value(Metric::ConnectionsLimit));
    let descriptors = Signal::Ratio(value(Metric::ProcessOpenFds), value(Metric::ProcessMaxFds));
    let memory = Signal::Ratio(
        value(Metric::CgroupMemory),
        value(Metric::CgroupMemoryLimit),
    );
    let errors = Series {
        labels: vec![(
            0,
            ERRORS.iter().map(|reason| Cow::Borrowed(*reason)).collect(),
        )],
        ..value(Metric::Closed)
    };
    let error_rate = Signal::RateRatio(errors, value(Metric::Closed), RATIO_LEAST);
    let refused = Signal::Rate(value(Metric::LimitRefused));
    let lag = || Signal::Largest(value(Metric::LoopLagRecentMax));
    let remaining = || Signal::Value(value(Metric::CertificateRemaining));
    let age = Signal::Largest(value(Metric::ReportAge));
    let overflows = Signal::Rate(value(Metric::KernelListenOverflows));
    let panics = Signal::Rate(value(Metric::HandlerPanics));
    #[rustfmt::skip]
    let table = [
        ("connections_high", near_limit(), Above, 0.85, 0.80, MINUTE_MS, Warning,
            "More than 85 % of the connections that are accepted: raise the limit or add a server."),
        ("connections_near_limit", near_limit(), Above, 0.95, 0.90, MINUTE_MS / 2, Critical,
            "More than 95 % of the connections that are accepted: soon clients will be refused."),
        ("refusals_by_limit", refused, Above, 1.0, 0.1, MINUTE_MS, Warning,
            "Clients are refused by a limit, more than one a second: an attack, or a limit set too low."),
        ("error_rate", error_rate, Above, 0.2, 0.1, 2 * MINUTE_MS, Warning,
            "Of the connections that end, more than a fifth end by an error: see the reasons."),
        ("loop_lag", lag(), Above, 0.1, 0.05, MINUTE_MS / 2, Warning,
            "A reactor wakes 100 ms late: it is overloaded, or a handler takes its time."),
        ("loop_lag_severe", lag(), Above, 1.0, 0.5, MINUTE_MS / 6, Critical,
            "A reactor wakes a second late: everybody on it waits."),
        ("reactor_silent", age, Above, 10.0, 5.0, 0, Critical,
            "A reactor has not reported for 10 s: it is stuck, and its figures are old."),
        ("descriptors", descriptors, Above, 0.85, 0.80, MINUTE_MS, Critical,
            "More than 85 % of the descriptors are in use: raise LimitNOFILE."),
        ("memory", memory, Above, 0.90, 0.85, MINUTE_MS, Critical,
            "More than 90 % of the control group's memory is in use: soon the kernel will end the process."),
        ("certificate_expiry", remaining(), Below, 14.0 * DAY, 15.0 * DAY, 0, Warning,
            "A certificate expires within two weeks: renew it."),
        ("certificate_expiry_near", remaining(), Below, 2.0 * DAY, 3.0 * DAY, 0, Critical,
            "A certificate expires within two days: renew it now."),
        ("listen_overflows", overflows, Above, 0.0, 0.0, 0, Warning,
            "The kernel has dropped connections within the last minute because an accept queue was full."),
        ("handler_panics", panics, Above, 0.0, 0.0, 0, Warning,
            "A handler has panicked within the last minute: see the log."),
    ];
    table
        .into_iter()
        .map(
            |(name, signal, comparison, value, clear, for_ms, severity, about)| Rule {
                name: Cow::Borrowed(name),
                signal,
                comparison,
                value,
                clear,
                for_ms,
                severity,
                about: Cow::Borrowed(about),
            },
        )
        .collect()
}

/// Reasons for which a healthy connection does not end.
const ERRORS: &[&str] = &[
    "tls",
    "violation",
    "message_timeout",
    "outbox_full",
    "write_timeout",
    "handler_panic",
    "too_much_traffic",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::conn::reason;
    use crate::metrics::Alerts;
    use crate::metrics::figures::tests::everything;

    #[test]
    fn the_rules_make_sense_and_have_names_of_their_own() {
        let rules = builtin_rules();
        let names: BTreeSet<_> = rules.iter().map(|rule| rule.name.clone()).collect();
        assert_eq!(names.len(), rules.len());
        assert!(Alerts::new(rules).is_ok());
    }

    #[test]
    fn the_labels_they_look_at_exist() {
        assert!(ERRORS.iter().all(|label| reason::LABELS.contains(label)));
    }

    #[test]
    fn each_finds_its_figure_by_the_second_look() {
        let mut alerts = Alerts::new(builtin_rules()).unwrap();
        alerts.evaluate(1_000, &everything());
        alerts.evaluate(2_000, &everything());
        for alert in alerts.iter() {
            assert!(alert.figure.is_some(), "{}", alert.rule.name);
        }
    }
}
