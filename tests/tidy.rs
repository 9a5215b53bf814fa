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
