//! The program as a shell sees it: what it prints where, and its exit codes. Serving is not started.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot do its part fails its test"
)]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use tidegate::config::keys_markdown;

/// Runs the program with this command line and environment, and nothing of the test's own.
fn tidegate(line: &str, environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(line.split_whitespace())
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A file of this name and text, in the directory that cargo gives to integration tests.
fn file(name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn check_exits_with_0_on_a_configuration_that_holds() {
    let path = file(
        "good.toml",
        "reactors = 2\nwebsocket.ping_interval = \"off\"\n",
    );
    let output = tidegate(&format!("check --config {}", path.display()), &[]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        text(&output.stdout),
        format!(
            "warning: {}:2:27: websocket.ping_interval: off: a client that vanished without \
             closing is never noticed\nthe configuration holds\n",
            path.display()
        )
    );
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn every_command_exits_with_78_on_a_bad_configuration_and_says_all_that_is_wrong() {
    let path = file("bad.toml", "reactors = 0\nreactor = 2\n");
    for command in ["check", "config", "serve", ""] {
        let output = tidegate(
            &format!("{command} --config {} --listen nowhere", path.display()),
            &[("TIDEGATE_LOG_LEVEL", "loud")],
        );
        assert_eq!(output.status.code(), Some(78), "{command}");
        assert_eq!(text(&output.stdout), "", "{command}");
        assert_eq!(
            text(&output.stderr).lines().count(),
            4,
            "{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn a_file_that_cannot_be_read_is_a_bad_configuration() {
    let latin1 = file("latin1.toml", b"# gr\xfc\xdfe\n");
    let long = file("long.toml", "#".repeat((1 << 20) + 1));
    let absent = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("absent.toml");
    for (path, reason) in [
        (&latin1, "UTF-8"),
        (&long, "longer than 1 MiB"),
        (&absent, "No such file"),
    ] {
        let output = tidegate("check", &[("TIDEGATE_CONFIG", path.to_str().unwrap())]);
        assert_eq!(output.status.code(), Some(78), "{reason}");
        let said = text(&output.stderr);
        assert!(
            said.contains(reason) && said.contains(path.to_str().unwrap()),
            "{said}"
        );
    }
    let longest = file("longest.toml", "#".repeat(1 << 20));
    let output = tidegate(&format!("check --config {}", longest.display()), &[]);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn usage_errors_exit_with_2_and_go_to_standard_error() {
    let output = tidegate("serve --nonsense", &[]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stdout), "");
    assert!(text(&output.stderr).contains("--nonsense"));
}

#[test]
fn version_and_help_exit_with_0_and_go_to_standard_output() {
    let output = tidegate("--version", &[]);
    assert_eq!(output.status.code(), Some(0));
    let expected = format!("tidegate {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(text(&output.stdout), expected);

    let output = tidegate("--help", &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("tidegate check --config"));
}

#[test]
fn the_printed_configuration_names_sources_and_is_a_configuration() {
    let path = file("part.toml", "[log]\nlevel = \"warn\"\n");
    let environment = [("TIDEGATE_HTTP_HEADERS_MAX", "32")];
    let line = format!("config --config {} --reactors 3", path.display());
    let output = tidegate(&line, &environment);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    for expected in [
        "reactors = 3 # flag --reactors\n".to_owned(),
        "headers_max = 32 # environment TIDEGATE_HTTP_HEADERS_MAX\n".to_owned(),
        format!("level = \"warn\" # {}:2:9\n", path.display()),
        "drain_timeout = \"10s\" # default\n".to_owned(),
    ] {
        assert!(
            printed.contains(&expected),
            "{expected:?} is not in:\n{printed}"
        );
    }

    let whole = file("whole.toml", printed);
    let again = tidegate(&format!("config --config {}", whole.display()), &[]);
    let values = |text: &str| -> Vec<String> {
        text.lines()
            .map(|line| line.split(" # ").next().unwrap().to_owned())
            .collect()
    };
    assert_eq!(values(text(&again.stdout)), values(printed));
}

#[test]
fn the_reference_table_is_printed_on_request() {
    let output = tidegate("config --keys", &[]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout), keys_markdown());
}
