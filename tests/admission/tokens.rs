//! Tokens: every row of the original's lists, over HTTP and by close code, and mutated tokens.

use tidegate::admission::bearer::BearerError;
use tidegate::admission::jwt::TokenError;
use tidegate::{CloseReason, Refusal};

use crate::support::{Client, Program};
use crate::{
    BASE, NO_ORIGIN, SECRET, answer, ask, claims_of, enter, refused, start, start_telling, status,
    token, token_by, token_of, told, wall,
};

/// A route that answers with a status, and one that closes with a code.
const ROUTES: &str = r#"
[[route]]
path = "/ws/notifications/"
kind = "echo"

[[route]]
path = "/told/"
kind = "echo"
reject = "close-code"
"#;

const INVALID: &str = "\r\nWWW-Authenticate: Bearer error=\"invalid_token\"\r\n";

/// A query, header lines, and the reason for which they are refused.
type Row = (String, Vec<String>, &'static str);

/// What the original refuses, and what it should have.
fn refusals() -> Vec<Row> {
    let good = token_of("42");
    let query = |token: &str, reason| (format!("?token={token}"), Vec::new(), reason);
    let header = |line: String, reason| (String::new(), vec![line], reason);
    let claims = |claims: String, reason| query(&token(&claims), reason);
    let later = wall() + 3600;
    let mut tampered = good.clone();
    let last = if good.ends_with('A') { "E" } else { "A" };
    tampered.replace_range(good.len() - 1.., last);
    let (head, tail) = good.split_once('.').unwrap();
    vec![
        // The original's list.
        (String::new(), Vec::new(), "bearer_missing"),
        query("", "bearer_empty"),
        query("%20%20", "bearer_blank"),
        query(head, "token_not_three_parts"),
        query(&format!("{head}.{tail}.x"), "token_not_three_parts"),
        claims(claims_of("42", wall() - 3600), "token_expired"),
        query(
            &token_by(&SECRET.to_lowercase(), HEADER, &claims_of("42", later)),
            "token_signature",
        ),
        claims(
            format!(r#"{{"token_type":"access","exp":{later}}}"#),
            "token_missing_user",
        ),
        claims(
            format!(r#"{{"token_type":"access","exp":{later},"user_id":null}}"#),
            "token_missing_user",
        ),
        header(format!("Authorization: {good}"), "bearer_scheme"),
        header(format!("Authorization: Token {good}"), "bearer_scheme"),
        header("Authorization: Bearer".into(), "bearer_empty"),
        header(
            format!("Authorization: Bearer {good} x"),
            "bearer_malformed",
        ),
        // What it lets in, or answers with 500.
        query(&format!("{good}&token={good}"), "bearer_repeated"),
        query(&good.replace('.', "%252E"), "bearer_malformed"),
        query(&format!("{good}%zz"), "bearer_escape"),
        query("", "bearer_empty"),
        (
            String::from("?token="),
            vec![format!("Authorization: Bearer {good}")],
            "bearer_empty",
        ),
        header(
            format!("Authorization: Bearer {}", "a".repeat(8193)),
            "bearer_too_long",
        ),
        query(&tampered, "token_encoding_or_signature"),
        query(
            &token_by(SECRET, r#"{"alg":"none"}"#, &claims_of("42", later)),
            "token_unsecured",
        ),
        query(
            &token_by(SECRET, r#"{"alg":"HS512"}"#, &claims_of("42", later)),
            "token_algorithm_of_key",
        ),
        query(
            &token_by(
                SECRET,
                r#"{"alg":"HS256","crit":["b64"]}"#,
                &claims_of("42", later),
            ),
            "token_extension",
        ),
        claims(
            r#"{"token_type":"access","user_id":42}"#.into(),
            "token_missing_expiry",
        ),
        claims(
            format!(r#"{{"token_type":"refresh","exp":{later},"user_id":42}}"#),
            "token_type_claim",
        ),
        claims(
            format!(r#"{{"exp":{later},"user_id":42}}"#),
            "token_type_claim",
        ),
        claims(
            format!(r#"{{"token_type":"access","exp":"{later}","user_id":42}}"#),
            "token_claim_type",
        ),
        claims(
            format!(r#"{{"token_type":"access","exp":{later},"user_id":4.2}}"#),
            "token_user",
        ),
        claims(
            format!(r#"{{"token_type":"access","exp":{later},"user_id":""}}"#),
            "token_user",
        ),
        claims(
            format!(r#"{{"token_type":"access","exp":{later},"user_id":42,"nbf":{later}}}"#),
            "token_not_yet_valid",
        ),
        claims(
            format!(r#"{{"token_type":"access","exp":{later},"user_id":42,"aud":"other"}}"#),
            "token_audience",
        ),
        claims(
            format!(r#"{{"token_type":"access","exp":{later},"user_id":42,"user_id":1}}"#),
            "token_repeated_name",
        ),
    ]
}

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

#[test]
fn every_rejection_of_the_original_has_its_status_its_reason_and_its_challenge() {
    let running = start(&format!("{BASE}{ROUTES}"));
    let rows = refusals();
    for (query, lines, expected) in &rows {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let (status, reason, head) = refused(
            &running,
            &ask(&format!("/ws/notifications/{query}"), &lines),
        );
        assert_eq!(
            (status, reason.as_str()),
            (401, spelled(expected, &reason)),
            "{query} {lines:?}"
        );
        // RFC 6750 §3.1: who sent no token is not told of an error in it.
        let challenge = if *expected == "bearer_missing" {
            "\r\nWWW-Authenticate: Bearer\r\n"
        } else {
            INVALID
        };
        assert!(head.contains(challenge), "{head}");
        assert_eq!(head.matches("WWW-Authenticate").count(), 1, "{head}");
    }
    let counters = running.stop();
    assert_eq!(counters.opened, 0);
    assert_eq!(counters.refused.total(), rows.len() as u64);
    assert_eq!(
        counters.closed_by(&CloseReason::Refused(Refusal::NotFound)),
        rows.len() as u64
    );
    assert_eq!(
        counters.refused.of(&Refusal::Bearer(BearerError::Missing)),
        1
    );
    assert_eq!(
        counters
            .refused
            .of(&Refusal::Token(TokenError::MissingUser)),
        2
    );
}

#[test]
fn n2_the_same_rejections_by_close_code_tell_a_browser_why() {
    let running = start(&format!("{BASE}{ROUTES}"));
    let rows = refusals();
    for (query, lines, expected) in &rows {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let (code, reason) = told(&running, &ask(&format!("/told/{query}"), &lines));
        assert_eq!(
            (code, reason.as_str()),
            (4401, spelled(expected, &reason)),
            "{query} {lines:?}"
        );
    }
    let counters = running.stop();
    assert_eq!(
        (counters.opened, counters.refused.total()),
        (0, rows.len() as u64)
    );
}

/// A last character of a signature may hold bits that no encoder sets: then it is no base64url.
fn spelled<'r>(expected: &'r str, reason: &'r str) -> &'r str {
    match (expected, reason) {
        ("token_encoding_or_signature", "token_encoding" | "token_signature") => reason,
        _ => expected,
    }
}

#[test]
fn everything_the_original_accepts_is_let_in_as_the_same_user() {
    let running = start_telling(&format!("{BASE}{ROUTES}"));
    let (text, number) = (
        token_of("42"),
        format!(
            r#"{{"token_type":"access","exp":{},"user_id":42}}"#,
            wall() + 60
        ),
    );
    let number = token(&number);
    let header = format!("Authorization: Bearer {text}");
    let spaced = format!("authorization: bearer   {text}");
    let other = format!("Authorization: Bearer {}", token_of("7"));
    let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let rows: [(String, Vec<&str>); 11] = [
        (format!("?token={text}"), vec![]),
        (format!("?token={number}"), vec![]),
        (String::new(), vec![&header]),
        (String::new(), vec![&spaced]),
        // Beside other parameters, wherever it stands.
        (format!("?room=1&token={text}&x"), vec![]),
        (format!("?token={text}&room=%2F"), vec![]),
        // Percent-encoded: the dots, or all of it.
        (format!("?token={}", text.replace('.', "%2E")), vec![]),
        (format!("?%74oken={encoded}"), vec![]),
        // The query wins over another token in the header, and over a header that is no good.
        (format!("?token={text}"), vec![&other]),
        (format!("?token={text}"), vec!["Authorization: Basic eDp5"]),
        // Another parameter is no token.
        ("?Token=x&tokens=y".into(), vec![&header]),
    ];
    for (query, lines) in &rows {
        for path in ["/ws/notifications/", "/told/"] {
            let mut client = enter(&running, &ask(&format!("{path}{query}"), lines));
            assert_eq!(client.read_text(), "42 127.0.0.1", "{query} {lines:?}");
            assert_eq!(client.close(1000), Some(1000));
        }
    }
    let counters = running.stop();
    assert_eq!(
        (counters.opened, counters.refused.total()),
        (2 * rows.len() as u64, 0)
    );
}

#[test]
fn a_subprotocol_brings_a_token_and_is_answered_without_it() {
    let running = start_telling(&format!(
        "{BASE}token.sources = [\"subprotocol\", \"query\"]\n{ROUTES}"
    ));
    let good = token_of("42");
    let offer = format!("Sec-WebSocket-Protocol: bearer, {good}");
    let (status, head, mut client) = answer(
        Client::connect(running.address),
        &ask("/ws/notifications/", &[&offer]),
    );
    assert_eq!(status, 101, "{head}");
    assert!(
        head.contains("\r\nSec-WebSocket-Protocol: bearer\r\n"),
        "{head}"
    );
    assert!(!head.contains(&good));
    assert_eq!(client.read_text(), "42 127.0.0.1");
    // A browser fails the connection, and hides the close code, unless a subprotocol comes back.
    let (status, head, mut client) = answer(
        Client::connect(running.address),
        &ask("/told/", &["Sec-WebSocket-Protocol: bearer, x.y.z"]),
    );
    assert_eq!(status, 101, "{head}");
    assert!(
        head.contains("\r\nSec-WebSocket-Protocol: bearer\r\n"),
        "{head}"
    );
    assert_eq!(client.read_frame().unwrap().close_code(), Some(4401));
    // Its own word for where it looks: the header is not asked.
    let header = format!("Authorization: Bearer {good}");
    let (_, reason, _) = refused(&running, &ask("/ws/notifications/", &[&header]));
    assert_eq!(reason, "bearer_missing");
}

#[test]
fn a_rule_refuses_with_403_or_4403_whom_a_token_lets_in() {
    let running = start(&format!(
        "{BASE}
        [[route]]
        path = \"/ws/projects/{{project_id}}/\"
        kind = \"echo\"
        rule = 'role in [\"Admin\"] or projects contains {{project_id}}'

        [[route]]
        path = \"/told/{{project_id}}/\"
        kind = \"echo\"
        rule = 'role in [\"Admin\"] or projects contains {{project_id}}'
        reject = \"close-code\"
        "
    ));
    let with = |claims: &str| {
        let exp = wall() + 60;
        token(&format!(
            r#"{{"token_type":"access","exp":{exp},"user_id":42{claims}}}"#
        ))
    };
    for (claims, project, is_allowed) in [
        (r#","role":"Admin""#, "7", true),
        (r#","projects":[7,8]"#, "7", true),
        (r#","projects":["7"]"#, "7", true),
        (r#","projects":[7,8]"#, "9", false),
        (r#","projects":[7]"#, "07", false),
        (r#","projects":"7""#, "77", false),
        (r#","role":"admin""#, "7", false),
        (r#","role":["Student"],"projects":[]"#, "7", false),
        ("", "7", false),
    ] {
        let token = with(claims);
        let request = ask(&format!("/ws/projects/{project}/?token={token}"), &[]);
        let other = ask(&format!("/told/{project}/?token={token}"), &[]);
        if is_allowed {
            enter(&running, &request).echo("in");
            enter(&running, &other).echo("in");
        } else {
            let (status, reason, head) = refused(&running, &request);
            assert_eq!(
                (status, reason.as_str()),
                (403, "not_allowed"),
                "{claims} {project}"
            );
            assert!(!head.contains("WWW-Authenticate"), "{head}");
            assert_eq!(told(&running, &other), (4403, "not_allowed".into()));
        }
    }
    // Nobody learns of a rule without a good token.
    let (status, reason, _) = refused(&running, &ask("/ws/projects/7/?token=a.b.c", &[]));
    assert_eq!((status, reason.starts_with("token_")), (401, true));
}

/// Single changes to a token: characters replaced, dropped, doubled and swapped, parts cut, exchanged and
/// emptied, at places all over it.
fn mutations(token: &str) -> Vec<String> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut all = Vec::new();
    for at in 0..token.len() {
        let (before, rest) = token.split_at(at);
        let (own, after) = rest.split_at(1);
        let other = DIGITS[(at * 7 + usize::from(own.as_bytes()[0])) % DIGITS.len()] as char;
        all.push(format!("{before}{other}{after}"));
        all.push(format!("{before}{after}"));
        all.push(format!("{before}{own}{own}{after}"));
        all.push(before.to_owned());
    }
    let parts: Vec<&str> = token.split('.').collect();
    for order in [
        [1, 0, 2],
        [0, 2, 1],
        [2, 1, 0],
        [0, 0, 2],
        [1, 1, 2],
        [0, 1, 1],
        [0, 1, 0],
    ] {
        all.push(order.map(|part| parts[part]).join("."));
    }
    for end in ["=", "==", ".", "A", "AAAA", "~"] {
        all.push(format!("{token}{end}"));
    }
    all.retain(|changed| changed != token);
    all
}

#[test]
fn no_mutated_token_is_let_in() {
    let running = start(&format!("{BASE}{ROUTES}"));
    let good = token_of("42");
    let verifier = running.handle.gate().verifier.clone().unwrap();
    assert!(verifier.verify(&good, wall()).is_ok());
    let mutations = mutations(&good);
    assert!(mutations.len() >= 300, "{}", mutations.len());
    for changed in &mutations {
        assert!(verifier.verify(changed, wall()).is_err(), "{changed}");
    }
    // A sample of them through sockets.
    let step = mutations.len() / 60;
    for changed in mutations.iter().step_by(step) {
        let request = ask(&format!("/ws/notifications/?token={changed}"), &[]);
        assert_eq!(status(&running, &request), 401, "{changed}");
    }
    enter(
        &running,
        &ask(&format!("/ws/notifications/?token={good}"), &[]),
    )
    .echo("the good one");
}

#[test]
fn the_development_profile_prints_a_token_that_works_and_judges_others() {
    let mut program = Program::start(&["--listen", "127.0.0.1:0"], &[]);
    let line = program.read_line_with("?token=");
    let token = line.trim().strip_prefix("?token=").unwrap();
    let come = |query: &str| {
        let client = Client::connect(program.addresses[0]);
        answer(client, &ask(&format!("/echo{query}"), &[NO_ORIGIN]))
    };
    for query in ["", &format!("?token={token}")] {
        let (status, head, mut client) = come(query);
        assert_eq!(status, 101, "{head}");
        client.echo("in");
    }
    let (status, _, mut client) = come(&format!("?token={}", token_of("42")));
    assert_eq!(status, 401, "signed with another secret");
    let body = String::from_utf8(client.read_to_end()).unwrap();
    assert!(body.contains("token_signature"), "{body}");
    // Each start has a secret of its own.
    let mut other = Program::start(&["--listen", "127.0.0.1:0"], &[]);
    assert_ne!(other.read_line_with("?token="), line);
}
