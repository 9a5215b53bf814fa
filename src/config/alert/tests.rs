//! Alert rules as an operator writes them: what is in force, and what is refused in which words.

use super::*;
use crate::config::{Config, ConfigErrors, File, Flags, Host, Loaded, Sources};

fn load(text: &str) -> Result<Loaded, ConfigErrors> {
    Config::load(&Sources {
        flags: Flags::default(),
        environment: Vec::new(),
        file: Some(File {
            path: "t.toml",
            text,
        }),
        host: Host {
            cores: 2,
            descriptors_max: None,
        },
    })
}

fn rule(text: &str, name: &str) -> Option<Rule> {
    let rules = load(text).unwrap().config.alert_rules();
    rules.into_iter().find(|rule| rule.name == *name)
}

fn builtin(name: &str) -> Rule {
    let rules = builtin_rules();
    rules.into_iter().find(|rule| rule.name == *name).unwrap()
}

#[test]
fn thresholds_have_units_and_are_exact() {
    for (text, expected) in [
        ("0", Some(0.0)),
        ("100", Some(100.0)),
        ("1_000", Some(1_000.0)),
        ("-1.5", Some(-1.5)),
        ("0.85", Some(0.85)),
        ("1e3", Some(1_000.0)),
        ("80%", Some(0.8)),
        ("85%", Some(0.85)),
        ("250ms", Some(0.25)),
        ("10s", Some(10.0)),
        ("14d", Some(1_209_600.0)),
        ("64KiB", Some(65_536.0)),
        ("", None),
        ("x", None),
        ("1 s", None),
        ("5kb", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        ("2025-01-01", None),
    ] {
        let read = text.parse::<Threshold>().ok().map(Threshold::number);
        assert_eq!(read, expected, "{text}");
    }
}

#[test]
fn without_tables_the_rules_are_those_built_in() {
    assert_eq!(rules(&[]), builtin_rules());
    assert_eq!(load("").unwrap().config.alert_rules(), builtin_rules());
}

#[test]
fn a_rule_of_its_own_is_as_it_is_written_and_a_minute_and_a_warning_otherwise() {
    let whole = r#"
        [[alert]]
        name = "slow_sends"
        value = "tidegate_send_latency_seconds_sum / tidegate_send_latency_seconds_count"
        comparison = "above"
        threshold = "50ms"
        clear = 0.02
        for = "30s"
        severity = "critical"
        about = "Clients wait."
    "#;
    let rule_of = |text: &str, name: &str| rule(text, name).unwrap();
    let slow = rule_of(whole, "slow_sends");
    assert_eq!((slow.value, slow.clear, slow.for_ms), (0.05, 0.02, 30_000));
    assert_eq!(
        (slow.severity, &*slow.about),
        (Severity::Critical, "Clients wait.")
    );
    let plain = "[[alert]]\nname = \"few\"\nvalue = \"tidegate_users\"\ncomparison = \"below\"\nthreshold = 3";
    let few = rule_of(plain, "few");
    assert_eq!((few.value, few.clear, few.for_ms), (3.0, 3.0, 60_000));
    assert_eq!(few.comparison, Comparison::Below);
    assert_eq!(
        (few.severity, &*few.about),
        (Severity::Warning, "tidegate_users is below 3.")
    );
    let rules = load(plain).unwrap().config.alert_rules();
    assert_eq!(rules.len(), builtin_rules().len() + 1);
}

#[test]
fn a_built_in_rule_is_changed_in_what_is_written_and_can_be_switched_off() {
    let text = "[[alert]]\nname = \"connections_high\"\nthreshold = \"60%\"\nfor = \"0s\"";
    let (before, after) = (
        builtin("connections_high"),
        rule(text, "connections_high").unwrap(),
    );
    assert_eq!((after.value, after.for_ms), (0.6, 0));
    // The way back is as long as it was, in proportion.
    assert!((after.clear - 0.6 * before.clear / before.value).abs() < 1e-12);
    assert_eq!(
        (&after.signal, &after.about),
        (&before.signal, &before.about)
    );
    let off = "[[alert]]\nname = \"memory\"\nenabled = false";
    assert_eq!(rule(off, "memory"), None);
    assert_eq!(
        load(off).unwrap().config.alert_rules().len(),
        builtin_rules().len() - 1
    );
    // From zero there is no proportion.
    let text = "[[alert]]\nname = \"handler_panics\"\nthreshold = 2";
    let panics = rule(text, "handler_panics").unwrap();
    assert_eq!((panics.value, panics.clear), (2.0, 2.0));
}

#[test]
fn x20_each_fault_is_one_line_with_its_place_and_what_to_write() {
    for (fields, said) in [
        (
            "",
            "t.toml:1:1: alert.name is missing; write name = \"many_users\"",
        ),
        ("name = \"Many\"", "a name begins with a small letter"),
        (
            "name = \"many\"",
            "many is not a built-in rule (the nearest one is memory), so it needs one",
        ),
        (
            "name = \"many\"\nvalue = \"tidegate_userz\"",
            "t.toml:3:9: alert.value = \"tidegate_userz\": no metric is called \"tidegate_userz\"",
        ),
        (
            "name = \"many\"\nvalue = \"tidegate_userz\"",
            "write \"tidegate_users\"",
        ),
        (
            "name = \"many\"\nvalue = \"tidegate_users\"",
            "alert.threshold: a rule needs one",
        ),
        (
            "name = \"many\"\nvalue = \"rate(tidegate_users)\"\nthreshold = 1",
            "alert.value: tidegate_users is a gauge and has no rate",
        ),
        (
            "name = \"many\"\nvalue = \"tidegate_users\"\nthreshold = 5\nclear = 6",
            "t.toml:5:9: alert.clear: it would be over at 6 already",
        ),
        (
            "name = \"many\"\nvalue = \"tidegate_users\"\nthreshold = \"5 m\"",
            "not a finite number with a known unit",
        ),
        (
            "name = \"many\"\nvalue = \"tidegate_users\"\nthreshold = true",
            "this key takes a number",
        ),
        (
            "name = \"many\"\nvalue = \"tidegate_users\"\nthreshold = 1\nfor = \"25h\"",
            "accepted: 0s to 24h, or \"auto\"; write \"24h\"",
        ),
        (
            "name = \"many\"\nvalue = \"tidegate_users\"\nthreshold = 1\nfor = 5",
            "write \"5s\"",
        ),
        (
            "name = \"many\"\nseverity = \"fatal\"",
            "accepted: \"auto\" or \"warning\" or \"critical\"",
        ),
        (
            "name = \"memory\"\nvalue = \"tidegate_users\"",
            "memory is a built-in rule, which keeps it",
        ),
        (
            "name = \"memory\"\ncomparison = \"below\"",
            "memory is a built-in rule, which keeps it",
        ),
        (
            "name = \"memory\"\nclear = \"99%\"",
            "alert.clear: it would be over at 0.99 already",
        ),
        (
            "name = \"memory\"\ntreshold = 1",
            "unknown key alert.treshold; the nearest known one is alert.threshold",
        ),
        (
            "name = \"memory\"\n[[alert]]\nname = \"memory\"",
            "t.toml:4:8: alert.name: there are two rules called memory",
        ),
    ] {
        let text = format!("[[alert]]\n{fields}\n");
        let errors = load(&text).unwrap_err();
        assert!(
            errors
                .0
                .iter()
                .any(|error| error.to_string().contains(said)),
            "{text}\n{errors}"
        );
        for error in &errors.0 {
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
        }
    }
}

#[test]
fn there_is_room_for_so_many_rules_and_not_one_more() {
    let text = |count: usize| -> String {
        let table = |number| {
            format!("[[alert]]\nname = \"r{number}\"\nvalue = \"tidegate_users\"\nthreshold = 1\n")
        };
        (0..count).map(table).collect()
    };
    for (count, fits) in [
        (ALERTS_MAX - 1, true),
        (ALERTS_MAX, true),
        (ALERTS_MAX + 1, false),
    ] {
        assert_eq!(load(&text(count)).is_ok(), fits, "{count}");
    }
}

#[test]
fn what_is_printed_loads_to_the_same_rules() {
    let text = r#"
        [[alert]]
        name = "slow"
        value = "rate(tidegate_connections_closed_total{reason=~'tls|violation'}) / rate(tidegate_connections_closed_total)"
        threshold = "12.5%"
        clear = 0
        for = "90s"

        [[alert]]
        name = "memory"
        enabled = false

        [[alert]]
        name = "descriptors"
        threshold = "50%"
        severity = "warning"
    "#;
    let loaded = load(text).unwrap();
    let printed = loaded.to_toml();
    let again = load(&printed).unwrap();
    assert_eq!(again.config, loaded.config, "{printed}");
    assert_eq!(again.config.alert_rules(), loaded.config.alert_rules());
}

#[test]
fn a_webhook_has_tls_or_an_excuse_and_one_secret() {
    let secret = "0123456789-abcdefghij-0123456789-klmno";
    let production =
        "profile = \"production\"\ndemo_routes = false\n[[listen]]\naddress = \"127.0.0.1:1\"\n";
    let url = "url = \"https://hooks.example/alerts\"\n";
    for (text, said) in [
        (format!("[webhook]\n{url}"), None),
        (
            "[webhook]\nurl = \"http://hooks.example/\"".to_owned(),
            Some("allow_http = true"),
        ),
        (
            "[webhook]\nurl = \"http://hooks.example/\"\nallow_http = true".to_owned(),
            None,
        ),
        (
            "[webhook]\nurl = \"hooks.example\"".to_owned(),
            Some("a URL begins with https://"),
        ),
        (
            format!("{production}[webhook]\n{url}"),
            Some("webhook.secret: without a secret"),
        ),
        (
            format!("{production}[webhook]\n{url}secret = \"{secret}\""),
            None,
        ),
        (
            format!("{production}[webhook]\n{url}secret_file = \"x\""),
            None,
        ),
        (
            format!("[webhook]\n{url}secret = \"short\""),
            Some("webhook.secret = (hidden)"),
        ),
        (
            format!("[webhook]\n{url}secret = \"{secret}\"\nsecret_file = \"x\""),
            Some("the secret is written twice"),
        ),
        (
            "[webhook]\nqueue_max = 0".to_owned(),
            Some("accepted: 1 to 10000; write 1"),
        ),
    ] {
        match (load(&text), said) {
            (Ok(loaded), None) => assert!(!loaded.to_toml().contains(secret)),
            (Err(errors), Some(said)) => {
                let shown = errors.to_string();
                assert!(
                    shown.contains(said) && !shown.contains(secret),
                    "{text}\n{shown}"
                );
            }
            (outcome, said) => panic!("{text}\n{outcome:?} {said:?}"),
        }
    }
}
