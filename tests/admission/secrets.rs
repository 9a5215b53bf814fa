//! No token, no part of one and no key is ever logged or answered (D9).

use std::io::Read;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::support::{Client, Program};
use crate::{PAGE, SECRET, ask, token, token_by, wall};

/// What stands in every token below, and must stand nowhere else.
const CANARY: &str = "canary7f3a9c";

const CONFIG: &str = r#"
profile = "production"
reactors = 1
limits.preset = "none"
origin.allowed = ["https://app.example.com"]
listen = [{ address = "127.0.0.1:0" }]
# Another program of these tests may have the port.
monitor.listen = []

[log]
level = "trace"
format = "json"

[token]
user_claim = "user_id"
sources = ["query", "header", "subprotocol", "cookie"]

[[route]]
path = "/ws/"
kind = "echo"
rule = 'not role = "guest"'
token_refresh = true
token_grace = "200ms"

[[route]]
path = "/told/"
kind = "echo"
reject = "close-code"
"#;

#[test]
fn d9_no_part_of_a_token_is_in_the_log_or_in_an_answer() {
    let folder = env!("CARGO_TARGET_TMPDIR");
    let path = format!("{folder}/secrets.toml");
    std::fs::write(&path, CONFIG).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command
        .args(["serve", "--config", &path])
        .env_clear()
        .env("TIDEGATE_TOKEN_SECRET", SECRET)
        .stderr(Stdio::piped());
    let mut program = Program::spawn(command);
    let address = program.addresses[0];

    let claims = |expires_at: u64, more: &str| {
        format!(
            r#"{{"user_id":"42","exp":{expires_at},"jti":"{CANARY}","secret":"{CANARY}"{more}}}"#
        )
    };
    let later = wall() + 3600;
    let header = r#"{"alg":"HS256"}"#;
    let good = token(&claims(later, ""));
    let tokens = [
        good.clone(),
        token(&claims(wall() + 2, "")),
        token(&claims(wall() - 60, "")),
        token(&claims(later, r#","role":"guest""#)),
        token(&claims(later, r#","aud":"x""#)),
        token_by(&"x1y2z3w4".repeat(4), header, &claims(later, "")),
        token_by(SECRET, r#"{"alg":"none"}"#, &claims(later, "")),
        format!("{good}.x"),
        format!("{CANARY}.{CANARY}"),
    ];
    let mut answers = Vec::new();
    let mut open = Vec::new();
    for token in &tokens {
        for path in ["/ws/", "/told/"] {
            for request in [
                ask(&format!("{path}?token={token}"), &[]),
                ask(&format!("{path}?token={token}&token={token}"), &[]),
                ask(&format!("{path}?x={token}%zz"), &[]),
                ask(path, &[&format!("Authorization: Bearer {token}")]),
                ask(path, &[&format!("Authorization: {token}")]),
                ask(path, &[&format!("Sec-WebSocket-Protocol: bearer, {token}")]),
                ask(path, &[&format!("Cookie: token={token}")]),
                ask(path, &[&format!("Cookie: token={token}"), "Origin: null"]),
                ask(&format!("/nowhere/{token}?token={token}"), &[]),
                ask(&format!("{path}?token={token}"), &["Host: a b"]),
                format!("GET {path}?token={token} HTTP/1.1\r\nOrigin: {PAGE}\r\nbroken\r\n\r\n"),
            ] {
                let mut client = Client::connect(address);
                client.send(request.as_bytes());
                let head = client.read_head();
                let was_let_in = head.starts_with("HTTP/1.1 101 ");
                answers.extend(head.into_bytes());
                if was_let_in {
                    // A close frame or an open connection; the second is to be told of its end.
                    open.push(client);
                } else {
                    answers.extend(client.read_to_end());
                }
            }
        }
    }
    for client in &mut open {
        client.try_send(&crate::support::frame(
            0x81,
            format!(r#"{{"action":"refresh_token","token":"{good}x"}}"#).as_bytes(),
        ));
        client.try_send(&crate::support::frame(0x88, &1000_u16.to_be_bytes()));
    }
    let mut echoes = 0;
    for client in &mut open {
        let bytes = client.read_to_end();
        // The route without renewal takes it for a message and echoes it.
        let text = String::from_utf8_lossy(&bytes).into_owned();
        echoes += usize::from(text.contains("refresh_token"));
        if !text.contains("refresh_token") {
            answers.extend(bytes);
        }
    }
    assert!(echoes > 0 && open.len() > 20, "{} are in", open.len());

    program.signal(Signal::TERM);
    let mut log = Vec::new();
    program.stderr().read_to_end(&mut log).unwrap();
    assert_eq!(program.wait().code(), Some(0));
    let log = String::from_utf8(log).unwrap();
    assert!(
        log.contains("token_expired") || log.contains("expired"),
        "{log}"
    );
    let answers = String::from_utf8_lossy(&answers).into_owned();
    assert!(answers.contains("token_signature"), "{answers}");
    let mut canaries = vec![CANARY.to_owned(), SECRET.to_owned()];
    for token in &tokens {
        // Each part that holds the claims, and each signature.
        canaries.extend(
            token
                .split('.')
                .filter(|part| part.len() > 30)
                .map(str::to_owned),
        );
    }
    assert!(canaries.len() > 15);
    for canary in &canaries {
        assert!(
            !log.contains(canary.as_str()),
            "{canary} in the log:\n{log}"
        );
        assert!(
            !answers.contains(canary.as_str()),
            "{canary} in an answer:\n{answers}"
        );
    }
}
