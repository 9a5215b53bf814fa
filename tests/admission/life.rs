//! What becomes of an open connection when its token ends or is revoked (D8).

use std::time::{Duration, Instant};

use tidegate::{CloseReason, Revocation};

use crate::support::{Client, Running, wait_until};
use crate::{BASE, ask, claims_of, enter, refused, start, token, token_by, token_of, wall};

const ROUTES: &str = r#"
[[route]]
path = "/ws/"
kind = "echo"

[[route]]
path = "/fresh/"
kind = "echo"
token_refresh = true
token_grace = "20s"

[[route]]
path = "/brief/"
kind = "echo"
token_refresh = true
token_grace = "200ms"

[[route]]
path = "/told/"
kind = "echo"
reject = "close-code"
"#;

fn server() -> Running {
    start(&format!("{BASE}{ROUTES}"))
}

/// Comes with a token that has these claims.
fn enter_with(running: &Running, path: &str, claims: &str) -> Client {
    enter(
        running,
        &ask(&format!("{path}?token={}", token(claims)), &[]),
    )
}

fn refresh(token: &str) -> String {
    format!(r#"{{"action":"refresh_token","token":"{token}"}}"#)
}

/// Reads a close frame, code and reason, and answers it.
fn farewell(client: &mut Client) -> (Option<u16>, String) {
    let frame = client.read_frame().unwrap();
    client.send_frame(0x88, &frame.payload);
    let reason = String::from_utf8(frame.payload[2..].to_vec()).unwrap();
    (frame.close_code(), reason)
}

#[test]
fn d8_a_connection_ends_with_its_token() {
    let running = server();
    let ends_at = wall() + 2;
    let mut client = enter_with(&running, "/ws/", &claims_of("42", ends_at));
    let mut other = enter_with(&running, "/ws/", &claims_of("42", ends_at + 3600));
    client.echo("the token is good");
    assert_eq!(farewell(&mut client), (Some(4401), "token_expired".into()));
    assert!(wall() >= ends_at, "not before its time");
    other.echo("another connection of the same user");
    running.closed_when(&CloseReason::TokenExpired, 1);
    // And nobody comes in with it.
    let request = ask(
        &format!("/ws/?token={}", token(&claims_of("42", ends_at))),
        &[],
    );
    assert_eq!(refused(&running, &request).1, "token_expired");
}

#[test]
fn d8_a_fresh_token_keeps_the_connection() {
    let running = server();
    let ends_at = wall() + 2;
    let mut client = enter_with(&running, "/fresh/", &claims_of("42", ends_at));
    assert_eq!(
        client.read_text(),
        r#"{"type":"token_expired","grace_seconds":20}"#
    );
    assert!(wall() >= ends_at, "not before its time");
    client.echo("the grace is for all that it did before");
    let later = wall() + 3600;
    client.send_text(&refresh(&token(&claims_of("42", later))));
    assert_eq!(
        client.read_text(),
        format!(r#"{{"type":"token_refreshed","expires_at":{later}}}"#)
    );
    client.echo("welcome back");
    // Also before the old one has ended, and then for less time.
    let ends_at = wall() + 2;
    client.send_text(&refresh(&token(&claims_of("42", ends_at))));
    assert!(client.read_text().contains("token_refreshed"));
    assert_eq!(
        client.read_text(),
        r#"{"type":"token_expired","grace_seconds":20}"#
    );
    assert!(wall() >= ends_at, "the fresh one counts");
    let counters = running.handle.counters();
    assert_eq!((counters.tokens_renewed, counters.renewals_refused), (2, 0));
}

#[test]
fn d8_without_a_fresh_token_the_grace_is_the_end() {
    let running = server();
    let mut client = enter_with(&running, "/brief/", &claims_of("42", wall() + 1));
    assert_eq!(
        client.read_text(),
        r#"{"type":"token_expired","grace_seconds":0}"#
    );
    assert_eq!(farewell(&mut client), (Some(4401), "token_expired".into()));
    running.closed_when(&CloseReason::TokenExpired, 1);
}

#[test]
fn d8_a_fresh_token_is_judged_as_strictly_as_the_first() {
    let running = server();
    let mut client = enter_with(&running, "/fresh/", &claims_of("42", wall() + 3600));
    let later = wall() + 7200;
    let forged = token_by(
        &"x1y2z3w4".repeat(4),
        r#"{"alg":"HS256"}"#,
        &claims_of("42", later),
    );
    for (token, reason) in [
        (token_of("43"), "not_allowed"),
        (token(&claims_of("42", wall() - 1)), "token_expired"),
        (forged, "token_signature"),
        ("nonsense".into(), "token_not_three_parts"),
    ] {
        client.send_text(&refresh(&token));
        let expected = format!(r#"{{"type":"token_refused","reason":"{reason}"}}"#);
        assert_eq!(client.read_text(), expected);
    }
    client.echo("the old one stands");
    // Each costs a signature: the fifth is one too many.
    client.send_text(&refresh("nonsense"));
    assert!(client.read_text().contains("token_refused"));
    assert_eq!(
        farewell(&mut client),
        (Some(4401), "too many refused tokens".into())
    );
    assert_eq!(running.handle.counters().renewals_refused, 5);
}

#[test]
fn a_message_that_looks_like_a_fresh_token_is_a_message_where_none_is_expected() {
    let running = server();
    let mut client = enter_with(&running, "/ws/", &claims_of("42", wall() + 3600));
    client.echo(&refresh(&token_of("43")));
    let mut client = enter_with(&running, "/fresh/", &claims_of("42", wall() + 3600));
    for text in [
        r#"{"action":"refresh_token"}"#,
        r#"{"action":"refresh_tokens","token":"x"}"#,
        r#"{"action":"say","text":"refresh_token"}"#,
        r#"refresh_token"#,
        r#"{"action":"refresh_token","token":7}"#,
    ] {
        client.echo(text);
    }
    assert_eq!(running.handle.counters().renewals_refused, 0);
}

/// How long a revocation may take, on all reactors.
const SOON: Duration = Duration::from_secs(1);

#[test]
fn d8_revoking_a_user_ends_all_its_connections_within_a_second() {
    let running = server();
    let old = token_of("alice");
    let come = |token: &str| enter(&running, &ask(&format!("/ws/?token={token}"), &[]));
    // Enough of them that both reactors have some.
    let mut alices: Vec<Client> = (0..40).map(|_| come(&old)).collect();
    let mut bobs: Vec<Client> = (0..10).map(|_| come(&token_of("bob"))).collect();
    let began = Instant::now();
    let second = wall();
    running
        .handle
        .revoke(&Revocation::User("alice".into()), Duration::from_secs(3600))
        .unwrap();
    for client in &mut alices {
        assert_eq!(farewell(client), (Some(4401), "token_revoked".into()));
    }
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    for client in &mut bobs {
        client.echo("another user");
    }
    drop(alices);
    running.closed_when(&CloseReason::Revoked, 40);
    // Nobody comes back with the old token; a new log-in is a new token.
    let request = |path: &str, token: &str| ask(&format!("{path}?token={token}"), &[]);
    let (status, reason, head) = refused(&running, &request("/ws/", &old));
    assert_eq!((status, reason.as_str()), (401, "token_revoked"));
    assert!(head.contains("error=\"invalid_token\""), "{head}");
    let told = crate::told(&running, &request("/told/", &old));
    assert_eq!(told, (4401, "token_revoked".into()));
    wait_until("the second of the revocation is over", || {
        wall() > second + 1
    });
    let issued_at = wall();
    let new = token(&format!(
        r#"{{"token_type":"access","exp":{},"iat":{issued_at},"user_id":"alice"}}"#,
        issued_at + 60
    ));
    come(&new).echo("logged in again");
    // A token that does not say when it was issued may be an old one.
    let undated = token(&format!(
        r#"{{"token_type":"access","exp":{},"user_id":"alice"}}"#,
        issued_at + 60
    ));
    assert_eq!(
        refused(&running, &request("/ws/", &undated)).1,
        "token_revoked"
    );
}

#[test]
fn d8_revoking_a_single_token_ends_its_connections_within_a_second() {
    let running = server();
    let of = |id: &str| {
        let exp = wall() + 3600;
        token(&format!(
            r#"{{"token_type":"access","exp":{exp},"user_id":"alice","jti":"{id}"}}"#
        ))
    };
    let (phone, laptop) = (of("phone"), of("laptop"));
    let come =
        |path: &str, token: &str| enter(&running, &ask(&format!("{path}?token={token}"), &[]));
    let mut phones: Vec<Client> = (0..20).map(|_| come("/ws/", &phone)).collect();
    let mut laptops: Vec<Client> = (0..20).map(|_| come("/fresh/", &laptop)).collect();
    let began = Instant::now();
    running
        .handle
        .revoke(
            &Revocation::TokenId("phone".into()),
            Duration::from_secs(3600),
        )
        .unwrap();
    for client in &mut phones {
        assert_eq!(farewell(client), (Some(4401), "token_revoked".into()));
    }
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    for client in &mut laptops {
        client.echo("another token of the same user");
    }
    // Nor does anybody go over to it.
    laptops[0].send_text(&refresh(&phone));
    assert_eq!(
        laptops[0].read_text(),
        r#"{"type":"token_refused","reason":"token_revoked"}"#
    );
    let request = ask(&format!("/ws/?token={phone}"), &[]);
    assert_eq!(refused(&running, &request).1, "token_revoked");
}
