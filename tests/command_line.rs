//! The program as a shell sees it: what it prints where, and its exit codes. Serving is not started.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot do its part fails its test"
)]

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

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
fn files_that_a_configuration_names_belong_to_it() {
    let absent = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("absent.pem");
    let absent = absent.to_str().unwrap();
    let short = file("short-secret.txt", "short");
    let short = short.to_str().unwrap();
    let certificates = format!("{{ certificate = {absent:?}, key = {absent:?} }}");
    let hook =
        "[[route]]\npath = \"/x\"\nkind = \"echo\"\non_open = \"https://backend.example/\"\n";
    for (name, written, named) in [
        (
            "tls",
            format!("tls.certificates = [{certificates}]\n"),
            absent,
        ),
        ("secret", format!("token.secret_file = {short:?}\n"), short),
        (
            "keys",
            format!("token.key_files = [\"k={absent}\"]\n"),
            absent,
        ),
        ("jwks", format!("token.jwks_file = {absent:?}\n"), absent),
        ("api", format!("api.key_file = {absent:?}\n"), absent),
        (
            "monitor",
            format!("monitor.token_file = {absent:?}\n"),
            absent,
        ),
        (
            "hooks",
            format!("hooks.secret_file = {short:?}\n{hook}"),
            short,
        ),
        (
            "webhook",
            format!("[webhook]\nurl = \"https://a.example/\"\nsecret_file = {absent:?}\n"),
            absent,
        ),
    ] {
        let path = file(&format!("names-{name}.toml"), written);
        for command in ["check", "serve"] {
            let output = tidegate(&format!("{command} --config {}", path.display()), &[]);
            assert_eq!(output.status.code(), Some(78), "{command} {name}");
            assert_eq!(text(&output.stdout), "", "{command} {name}");
            let said = text(&output.stderr);
            assert!(said.contains(named), "{command} {name}: {said}");
        }
    }
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

const SECRET: (&str, &str) = ("TIDEGATE_TOKEN_SECRET", "0123456789abcdef0123456789ABCDEF");

/// Runs the program with this on its standard input.
fn tidegate_reading(line: &str, input: &str, environment: &[(&str, &str)]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(line.split_whitespace())
        .env_clear()
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

/// A token made by this command line.
fn minted(line: &str, environment: &[(&str, &str)]) -> String {
    let output = tidegate(line, environment);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{line}: {}",
        text(&output.stderr)
    );
    assert_eq!(text(&output.stderr), "", "{line}");
    text(&output.stdout).strip_suffix('\n').unwrap().to_owned()
}

/// What `--json` says of a token: the exit code, and the line.
fn inspected(line: &str, token: &str, environment: &[(&str, &str)]) -> (i32, serde_json::Value) {
    let output = tidegate_reading(&format!("token inspect --json {line}"), token, environment);
    let line = serde_json::from_slice(&output.stdout);
    let line = line.unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    (output.status.code().unwrap(), line)
}

#[test]
fn a_token_is_made_with_the_claims_that_are_written_and_those_the_configuration_wants() {
    let path = file(
        "tokens.toml",
        "[token]\nuser_claim = \"user_id\"\ntoken_type = \"access\"\nissuer = \"me\"\n\
         audiences = [\"us\", \"them\"]\nalgorithm = \"HS384\"\n",
    );
    let config = format!("--config {}", path.display());
    let token = minted(
        &format!("token user_id=42 role=Admin projects=[7,\"8\"] --expires-in 15m {config}"),
        &[SECRET],
    );
    let (code, line) = inspected(&config, &token, &[SECRET]);
    assert_eq!(
        (code, &line["accepted"], &line["user"]),
        (0, &true.into(), &"42".into())
    );
    assert_eq!(
        line["header"],
        serde_json::json!({ "alg": "HS384", "typ": "JWT" })
    );
    let claims = &line["claims"];
    for (name, expected) in [
        ("user_id", serde_json::json!(42)),
        ("role", "Admin".into()),
        ("projects", serde_json::json!([7, "8"])),
        ("token_type", "access".into()),
        ("iss", "me".into()),
        ("aud", "us".into()),
    ] {
        assert_eq!(claims[name], expected, "{name}");
    }
    let lifetime = claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
    assert_eq!(lifetime, 900);
    assert_eq!(claims["jti"].as_str().unwrap().len(), 16);

    // What is written wins; then it may be no good, which the exit code says. The token is printed.
    for (written, reason) in [
        ("aud=other", "token_audience"),
        ("token_type=refresh", "token_type_claim"),
        ("iss=you", "token_unknown_issuer"),
        ("exp=1000", "token_expired"),
        ("exp=soon", "token_claim_type"),
        ("--expires-in never", "token_missing_expiry"),
        ("--algorithm HS256", "token_algorithm_of_key"),
        ("user_id=", "token_user"),
    ] {
        let user = if written.starts_with("user_id") {
            ""
        } else {
            "user_id=42"
        };
        let line = format!("token {user} {written} {config}");
        let output = tidegate(&line, &[SECRET]);
        assert_eq!(output.status.code(), Some(1), "{written}");
        assert!(
            text(&output.stderr).contains(reason),
            "{}",
            text(&output.stderr)
        );
        let (code, line) = inspected(&config, text(&output.stdout), &[SECRET]);
        assert_eq!((code, &line["accepted"]), (1, &false.into()), "{written}");
        assert_eq!(line["refused"]["reason"], reason);
        assert_eq!(line["refused"]["status"], 401);
    }
}

#[test]
fn a_token_is_refused_by_the_rule_of_the_route_that_is_named() {
    let path = file(
        "rules.toml",
        "[[route]]\npath = \"/ws/projects/{id}/\"\nkind = \"echo\"\n\
         rule = 'role = \"Admin\" or projects contains {id}'\n",
    );
    let config = format!("--config {}", path.display());
    let token = minted(&format!("token projects=[7] {config}"), &[SECRET]);
    for (route, code, reason) in [
        ("/ws/projects/7/", 0, None),
        ("/ws/projects/7/?x=1", 0, None),
        ("/echo", 0, None),
        ("/ws/projects/8/", 1, Some(("not_allowed", 403))),
        ("/ws/nowhere/", 1, Some(("not_found", 404))),
    ] {
        let (status, line) = inspected(&format!("{config} --route {route}"), &token, &[SECRET]);
        assert_eq!(status, code, "{route}");
        let refused = &line["refused"];
        match reason {
            None => assert!(refused.is_null(), "{route}"),
            Some((reason, status)) => {
                assert_eq!(
                    (&refused["reason"], &refused["status"]),
                    (&reason.into(), &status.into())
                );
            }
        }
    }
    let admin = minted(&format!("token role=Admin {config}"), &[SECRET]);
    assert_eq!(
        inspected(
            &format!("{config} --route /ws/projects/8/"),
            &admin,
            &[SECRET]
        )
        .0,
        0
    );
}

#[test]
fn a_token_is_explained_in_plain_words() {
    let token = minted("token --expires-in 90m sub=42", &[SECRET]);
    let output = tidegate(&format!("token inspect {token}"), &[SECRET]);
    assert_eq!(output.status.code(), Some(0));
    let said = text(&output.stdout);
    for expected in [
        "header   {\"alg\":\"HS256\",\"typ\":\"JWT\"}\n",
        "\"sub\":42}\n",
        "accepted as the user \"42\"\n",
    ] {
        assert!(said.contains(expected), "{expected:?} is not in:\n{said}");
    }
    // A second may have passed since.
    let is_left = [" GMT, in 90m\n", " GMT, in 89m\n"].map(|left| said.contains(left));
    assert!(is_left.contains(&true), "{said}");
    // By another secret: exactly why, and nothing that a terminal would obey.
    let other = [(
        "TIDEGATE_TOKEN_SECRET",
        "another secret of thirty-two bytes",
    )];
    let output = tidegate_reading("token inspect -", &format!("  {token}\n"), &other);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    assert!(
        said.ends_with(
            "refused: the signature is not one of the issuer's keys (token_signature)\n"
        ),
        "{said}"
    );
    // {"alg":"\x1b[2J"} and {}, unsigned.
    let output = tidegate("token inspect eyJhbGciOiIbWzJKIn0.e30.x", &[SECRET]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    assert!(
        !said.contains('\u{1b}') && said.contains("\\u{1b}[2J"),
        "{said}"
    );
    for (input, code) in [("", 2), ("\n\n", 2), ("nonsense", 1)] {
        let output = tidegate_reading("token inspect", input, &[SECRET]);
        assert_eq!(output.status.code(), Some(code), "{input:?}");
    }
}

#[test]
fn private_keys_of_every_kind_sign_what_their_public_keys_verify() {
    for (kind, algorithms) in [
        (&rcgen::PKCS_RSA_SHA256, &["RS256", "RS512", "PS256"][..]),
        (&rcgen::PKCS_ECDSA_P256_SHA256, &["ES256"]),
        (&rcgen::PKCS_ECDSA_P384_SHA384, &["ES384"]),
        (&rcgen::PKCS_ED25519, &["EdDSA"]),
    ] {
        let pair = rcgen::KeyPair::generate_for(kind).unwrap();
        for algorithm in algorithms {
            let private = file(&format!("{algorithm}.pem"), pair.serialize_pem());
            let public = file(&format!("{algorithm}.pub"), pair.public_key_pem());
            let config = file(
                &format!("{algorithm}.toml"),
                format!(
                    "token.algorithm = \"{algorithm}\"\ntoken.key_files = [\"k1={}\"]\n",
                    public.to_str().unwrap()
                ),
            );
            let config = format!("--config {}", config.display());
            let key = format!("--key {} --kid k1", private.display());
            let token = minted(&format!("token {key} {config}"), &[]);
            let (code, line) = inspected(&config, &token, &[]);
            assert_eq!(
                (code, &line["header"]["alg"]),
                (0, &(*algorithm).into()),
                "{line}"
            );
            assert_eq!(line["header"]["kid"], "k1");
            // The public half signs nothing, and there is nothing else to sign with.
            let output = tidegate(&format!("token --key {} {config}", public.display()), &[]);
            assert_eq!(output.status.code(), Some(78), "{algorithm}");
            let output = tidegate(&format!("token {config}"), &[]);
            assert_eq!(output.status.code(), Some(78), "{algorithm}");
            assert!(text(&output.stderr).contains("--key FILE"));
        }
    }
}

#[test]
fn a_secret_may_come_from_a_file_and_never_from_the_command_line() {
    let path = file("secret.txt", format!("{}\n", SECRET.1));
    let by_variable = [("TIDEGATE_TOKEN_SECRET_FILE", path.to_str().unwrap())];
    let token = minted("token sub=1", &by_variable);
    assert_eq!(inspected("", &token, &[SECRET]).0, 0, "the same secret");
    let token = minted(&format!("token sub=1 --key {}", path.display()), &[SECRET]);
    assert_eq!(inspected("", &token, &[SECRET]).0, 0, "the same secret");
    let output = tidegate("token --secret 0123456789abcdef0123456789ABCDEF", &[]);
    assert_eq!(output.status.code(), Some(2));
    let short = file("short.txt", "short");
    let absent = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("no-such-key");
    for (path, reason) in [(&short, "32 bytes"), (&absent, "No such file")] {
        let output = tidegate(&format!("token --key {}", path.display()), &[]);
        assert_eq!(output.status.code(), Some(78), "{reason}");
        let said = text(&output.stderr);
        assert!(
            said.contains(reason) && said.contains(path.to_str().unwrap()),
            "{said}"
        );
    }
}

#[test]
fn without_keys_the_token_command_says_what_is_missing() {
    for line in ["token", "token sub=42", "token inspect a.b.c"] {
        let output = tidegate(line, &[]);
        assert_eq!(output.status.code(), Some(78), "{line}");
        assert_eq!(text(&output.stdout), "", "{line}");
        assert!(
            text(&output.stderr).contains("export TIDEGATE_TOKEN_SECRET="),
            "{}",
            text(&output.stderr)
        );
    }
    // In production nobody is made up.
    let path = file(
        "production.toml",
        "profile = \"production\"\ndemo_routes = false\nlisten = [{ address = \"127.0.0.1:1\" }]\n",
    );
    let output = tidegate(&format!("token --config {}", path.display()), &[SECRET]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("sub=42"),
        "{}",
        text(&output.stderr)
    );
    let output = tidegate("token sub=1 sub=2", &[SECRET]);
    assert_eq!(output.status.code(), Some(2));
    let output = tidegate("token --issuer nobody", &[SECRET]);
    assert_eq!(output.status.code(), Some(2));
}
