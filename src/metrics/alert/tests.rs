//! When alerts fire, and when they do not.

use proptest::prelude::*;

use super::*;
use crate::metrics::figures::Value;

fn rule(comparison: Comparison, value: f64, clear: f64, for_ms: Millis) -> Rule {
    Rule {
        name: "test".into(),
        signal: Signal::Value(Series::new("tidegate_users").unwrap()),
        comparison,
        value,
        clear,
        for_ms,
        severity: Severity::Warning,
        about: "A test.".into(),
    }
}

fn users(number: f64) -> Figures {
    let mut figures = Figures::default();
    figures.add(Metric::Users, &[], Value::Real(number));
    figures
}

fn alerts(rule: Rule) -> Alerts {
    Alerts::new(vec![rule]).unwrap()
}

/// The names of the states entered, look by look.
fn states(alerts: &mut Alerts, looks: &[(Millis, Option<f64>)]) -> Vec<&'static str> {
    let look = |&(now, figure): &(Millis, Option<f64>)| {
        let figures = figure.map_or_else(Figures::default, users);
        alerts.evaluate(now, &figures);
        alerts.0[0].state.label()
    };
    looks.iter().map(look).collect()
}

#[test]
fn a_rule_fires_when_its_condition_has_held_for_its_duration_and_is_over_at_its_clear_threshold() {
    let mut alerts = alerts(rule(Comparison::Above, 10.0, 5.0, 30));
    let looks = [
        (0, Some(10.0), "inactive"),
        (10, Some(11.0), "pending"),
        (39, Some(99.0), "pending"),
        (40, Some(11.0), "firing"),
        (50, Some(7.0), "firing"),
        (60, Some(12.0), "firing"),
        (70, Some(5.0), "resolved"),
        (80, Some(7.0), "resolved"),
        (90, Some(11.0), "pending"),
        (95, Some(10.0), "inactive"),
    ];
    let (inputs, expected): (Vec<_>, Vec<_>) = looks
        .into_iter()
        .map(|(now, figure, state)| ((now, figure), state))
        .unzip();
    assert_eq!(states(&mut alerts, &inputs), expected);
}

#[test]
fn below_is_above_the_other_way_round() {
    let mut alerts = alerts(rule(Comparison::Below, 10.0, 15.0, 0));
    let looks = [
        (0, Some(10.0)),
        (1, Some(9.9)),
        (2, Some(14.9)),
        (3, Some(15.0)),
    ];
    assert_eq!(
        states(&mut alerts, &looks),
        ["inactive", "firing", "firing", "resolved"]
    );
}

#[test]
fn x6_a_figure_that_is_not_there_neither_raises_nor_calls_off() {
    let mut alerts = alerts(rule(Comparison::Above, 10.0, 5.0, 10));
    let looks = [
        (0, None),
        (10, Some(11.0)),
        (15, None),
        (20, Some(11.0)),
        (30, Some(11.0)),
        (40, None),
        (50, Some(f64::NAN)),
        (60, Some(0.0)),
    ];
    assert_eq!(
        states(&mut alerts, &looks),
        [
            "inactive", "pending", "inactive", "pending", "firing", "firing", "firing", "resolved"
        ]
    );
}

#[test]
fn transitions_say_which_rule_and_what_it_saw() {
    let rules = vec![
        rule(Comparison::Above, 10.0, 5.0, 0),
        rule(Comparison::Above, 20.0, 5.0, 0),
    ];
    let mut alerts = Alerts::new(rules).unwrap();
    let told = alerts.evaluate(7, &users(15.0));
    let to = State::Firing {
        since: 7,
        fired_at: 7,
    };
    let expected = Transition {
        rule: 0,
        from: State::Inactive,
        to,
        figure: Some(15.0),
    };
    assert_eq!(told, [expected]);
    assert_eq!(
        (
            alerts.firing(Severity::Warning),
            alerts.firing(Severity::Critical)
        ),
        (1, 0)
    );
    assert_eq!(alerts.evaluate(8, &users(15.0)), []);
}

#[test]
fn rates_are_taken_over_the_window_and_begin_anew_with_their_counter() {
    let mut subject = rule(Comparison::Above, 1.0, 0.0, 0);
    subject.signal = Signal::Rate(Series::new("tidegate_pings_sent_total").unwrap());
    let mut alerts = alerts(subject);
    let mut look = |now, count| {
        let mut figures = Figures::default();
        figures.add(Metric::PingsSent, &[], Value::Whole(count));
        alerts.evaluate(now, &figures);
        alerts.0[0].figure
    };
    assert_eq!(look(0, 100), None, "the first look knows no growth");
    assert_eq!(look(0, 100), None, "nor does the same moment");
    assert_eq!(look(10_000, 200), Some(10.0));
    assert_eq!(look(60_000, 200), Some(100.0 / 60.0));
    assert_eq!(
        look(70_000, 200),
        Some(0.0),
        "what lies a window back is forgotten"
    );
    assert_eq!(look(71_000, 3), None, "a counter that began anew");
    assert_eq!(look(72_000, 5), Some(2.0));
}

#[test]
fn ratios_of_growth_need_enough_of_it() {
    let mut subject = rule(Comparison::Above, 0.5, 0.2, 0);
    let closed = Series::new("tidegate_connections_closed_total").unwrap();
    let broken = closed.clone().with("reason", ["violation", "tls"]).unwrap();
    subject.signal = Signal::RateRatio(broken, closed, 10.0);
    let mut alerts = alerts(subject);
    let mut look = |now, usual, violation, tls| {
        let mut figures = Figures::default();
        for (reason, count) in [("io", usual), ("violation", violation), ("tls", tls)] {
            figures.add(Metric::Closed, &[reason.into()], Value::Whole(count));
        }
        alerts.evaluate(now, &figures);
        alerts.0[0].figure
    };
    assert_eq!(look(0, 1_000, 0, 0), None);
    assert_eq!(look(1_000, 1_000, 9, 0), Some(0.0), "too few");
    assert_eq!(look(2_000, 1_010, 20, 10), Some(0.75));
}

#[test]
fn the_largest_sample_and_the_share_of_nothing() {
    let mut figures = Figures::default();
    for (reactor, lag) in [(0, 0.2), (1, 0.7), (2, 0.1)] {
        figures.add(
            Metric::LoopLagRecentMax,
            &[reactor.into()],
            Value::Real(lag),
        );
    }
    figures.add(Metric::ProcessOpenFds, &[], Value::Whole(7));
    figures.add(Metric::ProcessMaxFds, &[], Value::Whole(0));
    let series = |name| Series::new(name).unwrap();
    let lag = || series("tidegate_loop_lag_recent_max_seconds");
    let cases = [
        (Signal::Largest(lag()), Some(0.7)),
        (
            Signal::Largest(lag().with("reactor", ["0", "2"]).unwrap()),
            Some(0.2),
        ),
        (
            Signal::Value(lag().with("reactor", ["1"]).unwrap()),
            Some(0.7),
        ),
        (Signal::Value(lag().with("reactor", ["9"]).unwrap()), None),
        (
            Signal::Ratio(series("process_open_fds"), series("process_max_fds")),
            Some(0.0),
        ),
        (
            Signal::Ratio(series("process_open_fds"), series("tidegate_users")),
            None,
        ),
    ];
    for (signal, expected) in cases {
        let mut subject = rule(Comparison::Above, 10.0, 5.0, 0);
        subject.signal = signal.clone();
        let mut alerts = alerts(subject);
        alerts.evaluate(0, &figures);
        assert_eq!(alerts.0[0].figure, expected, "{signal:?}");
    }
}

#[test]
fn a_rule_that_makes_no_sense_is_refused_and_says_why() {
    assert_eq!(
        Series::new("tidegate_nothing").unwrap_err().to_string(),
        "no metric is called \"tidegate_nothing\""
    );
    let closed = Series::new("tidegate_connections_closed_total").unwrap();
    assert_eq!(
        closed
            .clone()
            .with("user", ["ann"])
            .unwrap_err()
            .to_string(),
        "tidegate_connections_closed has no label \"user\", but [\"reason\"]"
    );
    let mut of_gauge = rule(Comparison::Above, 1.0, 0.0, 0);
    of_gauge.signal = Signal::Rate(Series::new("tidegate_users").unwrap());
    let mut share_of_gauge = of_gauge.clone();
    share_of_gauge.signal = Signal::RateRatio(closed, Series::new("tidegate_users").unwrap(), 1.0);
    for (subject, expected) in [
        (
            rule(Comparison::Above, 1.0, 1.1, 0),
            RuleError::ClearBeyondValue,
        ),
        (
            rule(Comparison::Below, 1.0, 0.9, 0),
            RuleError::ClearBeyondValue,
        ),
        (
            rule(Comparison::Above, f64::NAN, 0.0, 0),
            RuleError::NotANumber,
        ),
        (
            rule(Comparison::Above, 0.0, f64::NEG_INFINITY, 0),
            RuleError::NotANumber,
        ),
        (of_gauge, RuleError::RateOfGauge("tidegate_users")),
        (share_of_gauge, RuleError::RateOfGauge("tidegate_users")),
    ] {
        let good = rule(Comparison::Above, 1.0, 1.0, 0);
        assert_eq!(Alerts::new(vec![good, subject]).unwrap_err(), (1, expected));
    }
}

proptest! {
    /// A rule fires exactly at the first look by which its condition has held, at every look, for its
    /// duration; it is resolved exactly at the first look at the clear threshold after that; and in
    /// between, and within the band, nothing changes.
    #[test]
    fn it_fires_iff_the_condition_held_and_never_flaps_within_the_band(
        looks in prop::collection::vec((1_u64..20, 0_u32..10), 1..120),
        clear in 2_u32..=5,
        for_ms in 0_u64..60,
        is_above in any::<bool>(),
    ) {
        let sign = if is_above { 1.0 } else { -1.0 };
        let comparison = if is_above { Comparison::Above } else { Comparison::Below };
        let (value, clear) = (5, clear);
        let mut alerts = alerts(rule(comparison, sign * f64::from(value), sign * f64::from(clear), for_ms));
        let (mut now, mut is_firing, mut held_since) = (0, false, None);
        for (pause, figure) in looks {
            now += pause;
            held_since = if figure > value { held_since.or(Some(now)) } else { None };
            let before = is_firing;
            if is_firing {
                if figure <= clear {
                    is_firing = false;
                    // Firing anew needs the condition to hold anew; at the threshold it does not.
                    held_since = None;
                }
            } else if held_since.is_some_and(|since| now - since >= for_ms) {
                is_firing = true;
            }
            let told = alerts.evaluate(now, &users(sign * f64::from(figure)));
            let state = alerts.0[0].state;
            prop_assert_eq!(matches!(state, State::Firing { .. }), is_firing, "{:?} at {}", state, now);
            if figure > clear && figure <= value {
                prop_assert_eq!(before, is_firing, "no change within the band");
                let is_quiet = told.iter().all(|change| change.from.label() == "pending");
                prop_assert!(is_quiet, "only what was pending ends");
            }
        }
    }
}

/// Whatever is read can be written and read again.
pub(super) fn reads(text: &str) {
    if let Ok(signal) = Signal::parse(text) {
        assert_eq!(Signal::parse(&signal.to_string()), Ok(signal), "{text}");
    }
}
