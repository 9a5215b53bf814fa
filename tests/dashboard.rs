//! The dashboard's files and its live socket, over real sockets. What the page makes of them is tested in a
//! browser, by `tests/clients/dashboard.mjs`.

#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use tidegate::monitor::{self, Token};

use support::watched::{Answer, Watched};
use support::{Client, demo_routes, settings};

const TOKEN: &str = "an-administrators-token-of-40-characters";
const LIVE: &str = "/dashboard/live";

fn watched() -> Watched {
    Watched::start(settings(), demo_routes())
}

fn guarded() -> Watched {
    let monitor = monitor::Settings {
        token: Some(Token::new(TOKEN)),
        ..monitor::Settings::default()
    };
    let mut watched = Watched::start_with(monitor, settings(), demo_routes());
    watched.show(TOKEN);
    watched
}

/// A request for the socket with these header lines.
fn upgrade(watched: &Watched, host: &str, lines: &str) -> (Client, String) {
    let mut client = Client::connect(watched.admin);
    client.send(
        format!(
            "GET {LIVE} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{lines}\r\n"
        )
        .as_bytes(),
    );
    let head = client.read_head();
    (client, head)
}

/// Somebody who has been let in and hears frames.
fn watching(watched: &Watched, greeting: &str) -> Client {
    let mut client = Client::open(watched.admin, LIVE);
    client.send_text(greeting);
    client
}

/// The code that the next frame closes with. The end of the stream is not waited for.
fn close_code(mut client: Client) -> Option<u16> {
    client.read_frame().unwrap().close_code()
}

fn frame(client: &mut Client) -> Value {
    serde_json::from_str(&client.read_text()).unwrap()
}

fn get(watched: &Watched, path: &str, lines: &str) -> Answer {
    watched.ask_raw(&format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n"
    ))
}

#[test]
fn h1_the_page_comes_with_a_policy_that_allows_its_own_files_only() {
    let watched = guarded();
    let page = get(&watched, "/dashboard/", "");
    assert_eq!(page.status, 200);
    assert!(page.body.starts_with("<!doctype html>"));
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    let policy = page.header("content-security-policy").unwrap();
    for rule in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
    ] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    for (file, content_type) in [
        ("style.css", "text/css; charset=utf-8"),
        ("app.js", "text/javascript; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
    ] {
        let answer = get(&watched, &format!("/dashboard/{file}"), "");
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some(content_type))
        );
    }
}

#[test]
fn browsers_keep_the_files_and_ask_whether_they_have_changed() {
    let watched = watched();
    let first = get(&watched, "/dashboard/app.js", "");
    let tag = first.header("etag").unwrap();
    assert_eq!(first.header("cache-control"), Some("no-cache"));
    for (known, status) in [
        (tag.to_owned(), 304),
        (format!("W/{tag}"), 304),
        (format!("\"other\", {tag}"), 304),
        ("*".to_owned(), 304),
        ("\"other\"".to_owned(), 200),
    ] {
        let answer = get(
            &watched,
            "/dashboard/app.js",
            &format!("If-None-Match: {known}\r\n"),
        );
        assert_eq!(answer.status, status, "{known}");
        assert_eq!(answer.body.is_empty(), status == 304);
        assert_eq!(answer.header("etag"), Some(tag));
    }
}

#[test]
fn only_what_there_is_is_served_and_only_to_be_read() {
    let watched = watched();
    for path in ["/", "/dashboard"] {
        let answer = get(&watched, path, "");
        assert_eq!(
            (answer.status, answer.header("location")),
            (302, Some("/dashboard/"))
        );
    }
    for path in [
        "/dashboard/index.html",
        "/dashboard/nothing.js",
        "/dashboard/../metrics",
        "/dashboard/%2e%2e/metrics",
        "/dashboard//app.js",
        "/dashboards",
    ] {
        let status = get(&watched, path, "").status;
        assert!([400, 404].contains(&status), "{path}: {status}");
    }
    let answer = watched.ask("POST", "/dashboard/", "{}");
    assert_eq!(
        (answer.status, answer.header("allow")),
        (405, Some("GET, HEAD"))
    );
    let head = watched.ask("HEAD", "/dashboard/", "");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[test]
fn the_page_is_for_everybody_and_the_figures_are_for_administrators() {
    let watched = guarded();
    assert_eq!(get(&watched, "/dashboard/", "").status, 200);
    for path in ["history", "alerts"] {
        let path = format!("/api/monitoring/websocket/{path}/");
        assert_eq!(get(&watched, &path, "").status, 401, "{path}");
        assert_eq!(watched.get(&path).status, 200, "{path}");
    }
}

#[test]
fn frames_come_about_once_a_second_and_say_what_is_there() {
    let watched = watched();
    let mut visitors: Vec<Client> = (0..3)
        .map(|_| Client::open(watched.address, "/echo"))
        .collect();
    let mut client = watching(&watched, "{}");
    let all = loop {
        visitors
            .iter_mut()
            .for_each(|visitor| visitor.echo("hello"));
        let frame = frame(&mut client);
        if frame["point"][1] == 3.0 && frame["point"][2].as_f64() > Some(0.0) {
            break frame;
        }
    };
    assert_eq!(
        (&all["type"], &all["ready"]),
        (&"tick".into(), &true.into())
    );
    assert_eq!(
        (&all["connections"], &all["webhook"]),
        (&3.into(), &Value::Null)
    );
    let reactors = all["reactors"].as_array().unwrap();
    let open: u64 = reactors
        .iter()
        .map(|one| one["connections"].as_u64().unwrap())
        .sum();
    assert_eq!((reactors.len(), open), (2, 3));
    assert!(all["alerts"].as_array().unwrap().len() > 10);
    let history = watched.get_json("/api/monitoring/websocket/history/");
    let fields = history["fields"].as_array().unwrap().len();
    let points = history["points"].as_array().unwrap();
    assert!(!points.is_empty());
    for point in points.iter().chain([&all["point"]]) {
        assert_eq!(point.as_array().unwrap().len(), fields);
    }
    let at = |point: &Value| point[0].as_f64().unwrap();
    assert!(
        points.windows(2).all(|two| at(&two[0]) <= at(&two[1])),
        "{points:?}"
    );
}

#[test]
fn refusals_and_ends_are_in_the_frame_by_their_reasons() {
    let watched = watched();
    let mut client = watching(&watched, "{}");
    let mut lost = Client::connect(watched.address);
    lost.send(support::request("/nowhere").as_bytes());
    assert_eq!(lost.read_refusal().0, 404);
    let all = loop {
        let frame = frame(&mut client);
        if frame["refused"] != Value::Array(Vec::new())
            && frame["closed"] != Value::Array(Vec::new())
        {
            break frame;
        }
    };
    assert_eq!(all["refused"], serde_json::json!([["route: not_found", 1]]));
    assert_eq!(all["closed"][0][1], 1);
}

#[test]
fn where_there_is_a_token_it_comes_first_or_nothing_does() {
    let watched = guarded();
    let greeting = format!("{{\"token\":\"{TOKEN}\"}}");
    assert_eq!(frame(&mut watching(&watched, &greeting))["type"], "tick");
    for wrong in [
        "{\"token\":\"an-administrators-token-of-39-character\"}",
        "{\"token\":null}",
        "{\"token\":5}",
        "{}",
        "",
        TOKEN,
        "[",
    ] {
        assert_eq!(close_code(watching(&watched, wrong)), Some(4401), "{wrong}");
    }
    let huge = watching(&watched, &"x".repeat(4_097));
    assert_eq!(close_code(huge), Some(1009));
}

#[test]
fn who_says_nothing_is_not_waited_for() {
    let watched = guarded();
    let silent = Client::open(watched.admin, LIVE);
    assert_eq!(close_code(silent), Some(4401));
}

#[test]
fn who_says_more_is_not_listened_to() {
    let watched = watched();
    let mut client = watching(&watched, "{}");
    client.send_text("more");
    let code = loop {
        match client.read_frame() {
            Some(frame) if frame.opcode() == 8 => break frame.close_code(),
            Some(_) => {}
            None => panic!("the stream ended without a close frame"),
        }
    };
    assert_eq!(code, Some(1008));
}

#[test]
fn h6_guesses_keep_nobody_out() {
    let watched = guarded();
    let greeting = format!("{{\"token\":\"{TOKEN}\"}}");
    for _ in 0..3 {
        for number in 0..20 {
            let guess = format!("{{\"token\":\"guess-{number}\"}}");
            assert_eq!(close_code(watching(&watched, &guess)), Some(4401));
        }
        assert_eq!(frame(&mut watching(&watched, &greeting))["type"], "tick");
    }
}

#[test]
fn c1_and_c5_a_page_of_another_origin_or_under_another_name_gets_no_socket() {
    let watched = watched();
    let own = watched.admin.to_string();
    let port = watched.admin.port();
    for (host, lines, status) in [
        (own.as_str(), String::new(), "101"),
        (&own, format!("Origin: http://{own}\r\n"), "101"),
        (
            "localhost",
            "Origin: http://localhost\r\n".to_owned(),
            "101",
        ),
        (&own, "Origin: https://evil.example\r\n".to_owned(), "403"),
        (&own, "Origin: null\r\n".to_owned(), "403"),
        (&own, format!("Origin: http://localhost:{port}\r\n"), "403"),
        (&own, "Origin: http://127.0.0.1\r\n".to_owned(), "403"),
        (
            "evil.example",
            "Origin: http://evil.example\r\n".to_owned(),
            "421",
        ),
        ("evil.example", String::new(), "421"),
    ] {
        let (_, head) = upgrade(&watched, host, &lines);
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{host} {lines}: {head}"
        );
    }
    let (_, head) = upgrade(
        &watched,
        &own,
        "Sec-WebSocket-Protocol: tidegate.dashboard.v1\r\n",
    );
    assert!(head.contains("tidegate.dashboard.v1"), "{head}");
}
