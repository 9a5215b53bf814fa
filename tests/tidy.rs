//! Pages that must stay true: the README's table of keys, the rings of the architecture, what the guides
//! name, and what must never be written into the repository.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tidegate::admission::Stage;
use tidegate::admission::limits::Limit;
use tidegate::metrics::Metric;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            // What a build has left, the fuzz targets' for one.
            if !path.ends_with("target") {
                found.extend(sources(&path));
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn the_readme_lists_the_keys_as_they_are() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, table) = readme
        .split_once("<!-- keys: begin")
        .expect("the table's beginning");
    let (_, table) = table.split_once("-->\n").unwrap();
    let (table, _) = table
        .split_once("<!-- keys: end -->")
        .expect("the table's end");
    assert_eq!(
        table,
        tidegate::config::keys_markdown(),
        "run `tidegate config --keys`"
    );
}

#[test]
fn the_readme_lists_the_metrics_as_they_are() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, table) = readme
        .split_once("<!-- metrics: begin")
        .expect("the table's beginning");
    let (_, table) = table.split_once("-->\n").unwrap();
    let (table, _) = table
        .split_once("<!-- metrics: end -->")
        .expect("the table's end");
    assert_eq!(
        table,
        tidegate::metrics::metrics_markdown(),
        "run `tidegate config --metrics`"
    );
}

/// The folders and files of each ring, and what they must not import.
const RINGS: &[(&[&str], &[&str])] = &[
    (
        &[
            "http",
            "ws",
            "tls",
            "timer.rs",
            "json.rs",
            "file.rs",
            "hub",
            "admission",
            "metrics",
        ],
        &[
            "crate::api",
            "crate::reactor",
            "crate::server",
            "crate::config",
            "crate::keys",
            "mio::",
            "std::net::Tcp",
            "std::thread",
        ],
    ),
    (
        &["conn"],
        &[
            "crate::api",
            "crate::reactor",
            "crate::server",
            "crate::config",
            "crate::keys",
            "mio::",
            "std::net::Tcp",
            "std::thread",
        ],
    ),
    (
        &["reactor"],
        &[
            "crate::api",
            "crate::server",
            "crate::config",
            "crate::keys",
        ],
    ),
];

#[test]
fn imports_point_up_the_rings() {
    for (members, forbidden) in RINGS {
        for member in *members {
            let path = root().join("src").join(member);
            let files = if path.is_dir() {
                sources(&path)
            } else {
                vec![path]
            };
            assert!(!files.is_empty(), "{member} has no sources");
            for file in files {
                let text = fs::read_to_string(&file).unwrap();
                // What a test uses is its own affair.
                let code = text.split("#[cfg(test)]").next().unwrap();
                if file.ends_with("tests.rs") {
                    continue;
                }
                for line in code
                    .lines()
                    .filter(|line| !line.trim_start().starts_with("//"))
                {
                    for word in *forbidden {
                        assert!(!line.contains(word), "{}: {line}", file.display());
                    }
                }
            }
        }
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for folder in ["src", "tests", "benches", "examples"] {
        for file in sources(&root().join(folder)) {
            let text = fs::read_to_string(&file).unwrap();
            let first = text.lines().next().unwrap_or_default();
            let is_fuzz_target = text.starts_with("#![no_main]");
            assert!(
                first.starts_with("//! ") || is_fuzz_target,
                "{}: {first:?}",
                file.display()
            );
        }
    }
}

#[test]
fn architecture_names_files_that_exist() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut named = 0;
    for word in text.split('`').skip(1).step_by(2) {
        if word.ends_with(".rs") && !word.contains(' ') {
            let exists = [root().join("src").join(word), root().join(word)]
                .iter()
                .any(|path| path.exists());
            assert!(exists, "ARCHITECTURE.md names {word}");
            named += 1;
        }
    }
    assert!(named > 20, "the page should name the files");
}

#[test]
fn architecture_names_every_file() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for path in sources(&root().join("src")) {
        let name = path.strip_prefix(root().join("src")).unwrap();
        // A folder's own file is named by the folder, where nothing more is to be said.
        if ["mod.rs", "lib.rs", "main.rs", "tests.rs", "fixture.rs"]
            .map(Some)
            .contains(&name.file_name().and_then(|name| name.to_str()))
        {
            continue;
        }
        let row = format!("`{}`", name.display());
        assert!(text.contains(&row), "ARCHITECTURE.md has no row for {row}");
    }
}

#[test]
fn numbers_in_front_of_tests_are_explained() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut explained = 0;
    for folder in ["src", "tests", "benches"] {
        for file in sources(&root().join(folder)) {
            let code = fs::read_to_string(&file).unwrap();
            for name in code.split("fn ").skip(1) {
                let number = name.split('_').next().unwrap_or_default();
                let Some(digits) = number.strip_prefix(|c: char| c.is_ascii_lowercase()) else {
                    continue;
                };
                if matches!(digits.len(), 1 | 2) && digits.chars().all(|c| c.is_ascii_digit()) {
                    let row = format!("\n| {} | ", number.to_ascii_uppercase());
                    assert!(text.contains(&row), "{}: {number}", file.display());
                    explained += 1;
                }
            }
        }
    }
    assert!(explained > 100, "tests should have numbers: {explained}");
}

/// What stands in a file of `tuning/`.
fn tuning(name: &str) -> String {
    fs::read_to_string(root().join("tuning").join(name)).unwrap()
}

#[test]
fn every_metric_that_tuning_names_exists() {
    let known: std::collections::BTreeSet<String> = tidegate::metrics::Metric::ALL
        .iter()
        .flat_map(|metric| {
            let name = metric.spec().name;
            let parts = ["_bucket", "_sum", "_count"].map(|part| format!("{name}{part}"));
            // In prose a histogram is named by its family.
            parts.into_iter().chain([metric.sample_name()])
        })
        .collect();
    for file in [
        "monitoring.md",
        "prometheus-alerts.yml",
        "grafana-dashboard.json",
    ] {
        let text = tuning(file);
        let mut named = 0;
        for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            let is_metric = word.starts_with("tidegate_") || word.starts_with("process_");
            if is_metric {
                assert!(known.contains(word), "{file} names {word}");
                named += 1;
            }
        }
        assert!(named > 20, "{file} should name metrics");
    }
}

#[test]
fn every_alert_has_a_line_in_the_runbook() {
    let guide = tuning("monitoring.md");
    let sections: Vec<&str> = guide
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .collect();
    for rule in tidegate::metrics::alert::builtin_rules() {
        assert!(sections.contains(&&*rule.name), "no section {}", rule.name);
    }
    let rules = tuning("prometheus-alerts.yml");
    let count = |what: &str| {
        rules
            .lines()
            .filter(|line| line.trim().starts_with(what))
            .count()
    };
    let link = "runbook_url: https://github.com/tidegate/tidegate/blob/main/tuning/monitoring.md#";
    let linked: Vec<&str> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix(link))
        .collect();
    assert_eq!(linked.len(), count("- alert:"));
    for anchor in &linked {
        assert!(sections.contains(anchor), "no section {anchor}");
    }
    for section in sections {
        assert!(
            linked.contains(&section),
            "no Prometheus rule leads to {section}"
        );
    }
}

#[test]
fn the_grafana_dashboard_asks_for_the_chosen_servers_only() {
    let text = tuning("grafana-dashboard.json");
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets: Vec<&serde_json::Value> = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array())
        .flatten()
        .collect();
    assert!(targets.len() > 30);
    for target in targets {
        let query = target["expr"].as_str().unwrap();
        let metrics = query.matches("tidegate_").count() + query.matches("process_").count();
        let chosen = query
            .matches("job=~\"$job\",instance=~\"$instance\"")
            .count();
        assert!(metrics > 0 && chosen == metrics, "{query}");
    }
}

/// Words that begin with `start`, up to the first character that is in no name, and what follows each.
fn words_from<'a>(text: &'a str, start: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    text.match_indices(start).filter_map(move |(at, _)| {
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| is_name(c) || "./-".contains(c)) {
            return None;
        }
        let rest = &text[at..];
        let end = rest
            .find(|c: char| !is_name(c) && c != '.')
            .unwrap_or(rest.len());
        Some((rest[..end].trim_end_matches('.'), &rest[end..]))
    })
}

#[test]
fn guides_name_keys_that_exist() {
    let keys: BTreeSet<_> = tidegate::config::keys()
        .into_iter()
        .map(|key| key.name)
        .collect();
    let sections: BTreeSet<_> = keys.iter().filter_map(|key| key.split_once('.')).collect();
    let sections: BTreeSet<_> = sections.into_iter().map(|(section, _)| section).collect();
    let mut named = 0;
    for (file, text) in guides() {
        for section in &sections {
            let start = format!("{section}.");
            // Only what is set as code; prose may end a sentence with a section's name.
            for code in text.split('`').skip(1).step_by(2) {
                for (word, rest) in words_from(code, &start) {
                    // `limits.address_*` stands for many, and a webhook's events are no keys.
                    let is_other = word == *section || rest.starts_with('*');
                    let is_event = ["alert.firing", "alert.resolved"].contains(&word);
                    assert!(
                        is_other || is_event || keys.contains(word),
                        "{file}: {word}"
                    );
                    named += 1;
                }
            }
        }
        for (at, _) in text.match_indices("TIDEGATE_") {
            let is_name = |c: char| c.is_ascii_uppercase() || c == '_';
            let rest = &text[at..];
            let word = &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())];
            let is_variable = tidegate::config::keys()
                .iter()
                .any(|key| key.environment.as_deref() == Some(word));
            assert!(is_variable, "{file}: {word}");
        }
    }
    assert!(named > 40, "the guides should name the keys: {named}");
}

#[test]
fn guides_name_metrics_and_labels_that_exist() {
    let mut named = 0;
    for (file, text) in guides() {
        for (word, rest) in words_from(&text, "tidegate_") {
            // In prose a histogram is named by its family.
            let family = word.strip_suffix("_bucket").unwrap_or(word);
            let (metric, _) = Metric::find(word)
                .or_else(|| Metric::find(&format!("{family}_count")))
                .unwrap_or_else(|| panic!("{file}: {word}"));
            named += 1;
            let Some((labels, _)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'))
            else {
                continue;
            };
            for label in labels.split(',').filter(|label| label.contains('=')) {
                let (name, value) = label.split_once('=').unwrap();
                let name = name.trim_end_matches(['!', '~']).trim();
                let is_of_the_scrape = ["le", "job", "instance"].contains(&name);
                assert!(
                    metric.spec().labels.contains(&name) || is_of_the_scrape,
                    "{file}: {word} has no label {name}"
                );
                let value = value.trim().trim_matches(['"', '~']);
                let is_word = value.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                if !is_word {
                    // A pattern.
                    continue;
                }
                let is_known = match (metric, name) {
                    (Metric::Refused, "stage") => {
                        Stage::ALL.iter().any(|stage| stage.label() == value)
                    }
                    (Metric::Refused, "reason") => labels_of_refusals().any(|known| known == value),
                    (Metric::LimitRefused | Metric::LimitWouldRefuse, "limit") => {
                        Limit::ALL.iter().any(|limit| limit.name() == value)
                    }
                    (Metric::Closed, "reason") => tidegate::conn::reason::LABELS.contains(&value),
                    _ => true,
                };
                assert!(is_known, "{file}: {word} is never {name}=\"{value}\"");
            }
        }
    }
    assert!(named > 30, "the guides should name the metrics: {named}");
}

fn labels_of_refusals() -> impl Iterator<Item = &'static str> {
    tidegate::admission::refusal::labels().map(|(_, reason)| reason)
}

/// The guides: their names and what they say.
fn guides() -> Vec<(String, String)> {
    let folder = fs::read_dir(root().join("tuning")).unwrap();
    folder
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect()
}
