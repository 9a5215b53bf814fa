//! Pages that must stay true: the README's table of keys, the rings of the architecture, and what must
//! never be written into the repository.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
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

/// The folders and files of each ring, and what they must not import.
const RINGS: &[(&[&str], &[&str])] = &[
    (
        &[
            "http",
            "ws",
            "tls",
            "timer.rs",
            "json.rs",
            "hub",
            "admission",
            "metrics",
        ],
        &[
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
        &["crate::server", "crate::config", "crate::keys"],
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
