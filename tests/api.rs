//! The backend's API over real sockets: every method, every refusal, every limit, and what clients get
//! to see of it.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods
)]

mod support;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate::admission::LOOPBACK;
use tidegate::admission::rate::Quota;
use tidegate::api::{self, DEPTH_MAX, KeySettings};
use tidegate::metrics::{ApiMethod, ApiResult};
use tidegate::{Channel, HandlerFactory, ListenerSettings, Route, Serves, Settings, Speaks};

use support::{Client, On, Running, settings};

const KEY: &str = "0123456789abcdef0123456789abcdef";
/// Good for channels that begin with `shop:` only.
const SHOP: &str = "shop5678901234567890123456789012";
/// Good for ten commands at once.
const SLOW: &str = "slow5678901234567890123456789012";

fn key(name: &str, secret: &str) -> KeySettings {
    KeySettings {
        name: name.to_owned(),
        secret: secret.as_bytes().into(),
        prefixes: Vec::new(),
        rate: None,
    }
}

fn api_settings() -> api::Settings {
    api::Settings {
        keys: vec![
            key("all", KEY),
            KeySettings {
                prefixes: vec!["shop:".to_owned()],
                ..key("shop", SHOP)
            },
            KeySettings {
                rate: Some(Quota::new(1, Duration::from_secs(3600), 10).unwrap()),
                ..key("slow", SLOW)
            },
        ],
        hosts: vec![LOOPBACK.to_owned()],
        ..api::Settings::default()
    }
}

/// A server with the API on its second listener.
fn serving(reactors: usize, api: &api::Settings) -> Settings {
    let mut settings = settings();
    settings.reactors = NonZeroUsize::new(reactors).unwrap();
    settings.listeners.push(ListenerSettings {
        address: ([127, 0, 0, 1], 0).into(),
        speaks: Speaks {
            serves: Serves::Requests,
            ..Speaks::default()
        },
    });
    settings.endpoint = Some(api::endpoint(api));
    settings
}

/// `/in/{channel}`: joins that channel, and says so.
fn joining() -> (Route, Arc<dyn HandlerFactory>) {
    let on = On {
        open: |peer| {
            let channel = Channel::new(peer.parameter("channel").unwrap()).unwrap();
            peer.join(&channel);
            peer.send(peer.id().to_string());
        },
        ..On::default()
    };
    support::route("/in/{channel}", on)
}

fn start(reactors: usize) -> Running {
    Running::start(serving(reactors, &api_settings()), vec![joining()])
}

/// A subscriber of a channel, and the name of its connection.
fn subscriber(running: &Running, channel: &str) -> (Client, String) {
    let mut client = Client::open(running.address, &format!("/in/{channel}"));
    let id = client.read_text();
    (client, id)
}

/// A backend that keeps its connection.
struct Backend(Client);

/// What came back.
#[derive(Debug, PartialEq)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{self:?}: {error}"))
    }
}

fn request(method: &str, headers: &str, body: &str) -> String {
    format!(
        "POST /api/{method} HTTP/1.1\r\nHost: localhost:8081\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

impl Backend {
    fn connect(running: &Running) -> Self {
        Self(Client::connect(running.addresses()[1]))
    }

    fn send(&mut self, request: &str) -> Reply {
        self.0.send(request.as_bytes());
        self.read()
    }

    fn read(&mut self) -> Reply {
        let head = self.0.read_head();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let (_, length) = head.split_once("Content-Length: ").unwrap();
        let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
        let body = String::from_utf8(self.0.read_exactly(length)).unwrap();
        Reply { status, head, body }
    }

    fn with_key(&mut self, key: &str, method: &str, body: &str) -> Reply {
        self.send(&request(method, &format!("X-API-Key: {key}\r\n"), body))
    }

    /// Calls a method that is answered with 200; returns the answer's JSON.
    fn call(&mut self, method: &str, body: Value) -> Value {
        let reply = self.with_key(KEY, method, &body.to_string());
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(reply.head.contains("Content-Type: application/json\r\n"));
        reply.json()
    }
}

#[test]
fn a_publication_reaches_subscribers_of_all_reactors_as_it_was_written() {
    for reactors in [1, 2, 4] {
        let running = start(reactors);
        let mut subscribers: Vec<_> = (0..8).map(|_| subscriber(&running, "room")).collect();
        let mut backend = Backend::connect(&running);
        let data = r#"{"type": "notification",  "n": 1.10}"#;
        let body = format!(r#"{{"channel":"room","data":{data}}}"#);
        assert_eq!(
            backend.with_key(KEY, "publish", &body).body,
            r#"{"result":{}}"#
        );
        let body = r#"{"channel":"room","b64data":"AP8="}"#;
        assert_eq!(
            backend.with_key(KEY, "publish", body).body,
            r#"{"result":{}}"#
        );
        for (client, _) in &mut subscribers {
            assert_eq!(client.read_text(), data);
            let frame = client.read_frame().unwrap();
            assert_eq!((frame.first, &frame.payload[..]), (0x82, &b"\x00\xff"[..]));
        }
    }
}

#[test]
fn a_broadcast_reaches_each_channel_and_answers_for_each() {
    let running = start(2);
    let (mut a, _) = subscriber(&running, "a");
    let (mut b, _) = subscriber(&running, "b");
    let mut backend = Backend::connect(&running);
    let answer = backend.call(
        "broadcast",
        json!({ "channels": ["a", "?", "b"], "data": [1] }),
    );
    let bad = json!({ "error": { "code": 107, "message": "bad request" } });
    let responses = json!([{ "result": {} }, bad, { "result": {} }]);
    assert_eq!(answer, json!({ "result": { "responses": responses } }));
    assert_eq!((a.read_text(), b.read_text()), ("[1]".into(), "[1]".into()));
}

#[test]
fn a_batch_does_one_after_the_other() {
    let running = start(2);
    let (mut client, _) = subscriber(&running, "a");
    let mut backend = Backend::connect(&running);
    let publish = |n: u32| json!({ "publish": { "channel": "a", "data": n } });
    let broadcast = json!({ "broadcast": { "channels": ["a", "b"], "data": 2 } });
    let commands = json!([publish(1), broadcast, { "nonsense": {} }, publish(3)]);
    let answer = backend.call("batch", json!({ "commands": commands }));
    let unknown = json!({ "error": { "code": 104, "message": "method not found" } });
    let responses = json!({ "responses": [{ "result": {} }, { "result": {} }] });
    let replies =
        json!([{ "publish": {} }, { "broadcast": responses }, unknown, { "publish": {} }]);
    assert_eq!(answer, json!({ "replies": replies }));
    for expected in ["1", "2", "3"] {
        assert_eq!(client.read_text(), expected);
    }
}

#[test]
fn g7_without_a_key_nothing_is_done() {
    let running = start(1);
    let mut backend = Backend::connect(&running);
    let body = r#"{"channel":"a","data":1}"#;
    let almost = &KEY[..31];
    for headers in [
        String::new(),
        "X-API-Key: \r\n".to_owned(),
        format!("X-API-Key: {almost}\r\n"),
        format!("X-API-Key: {KEY}x\r\n"),
        format!("X-API-Key: {KEY}\r\nX-API-Key: {KEY}\r\n"),
        format!("Authorization: Bearer {KEY}\r\n"),
        format!("Authorization: {KEY}\r\n"),
        format!("X-API-Key: wrong\r\nAuthorization: apikey {KEY}\r\n"),
        format!("Cookie: X-API-Key={KEY}\r\n"),
    ] {
        // Whether there is such a method is nobody's business either.
        for method in ["publish", "nonsense", &format!("publish?api_key={KEY}")] {
            let reply = backend.send(&request(method, &headers, body));
            assert_eq!((reply.status, &*reply.body), (401, ""), "{headers}");
            assert!(reply.head.contains("WWW-Authenticate: apikey\r\n"));
            assert!(!reply.head.contains(KEY));
        }
    }
    let reply = backend.send(&request(
        "publish",
        &format!("authorization: ApiKey {KEY}\r\n"),
        body,
    ));
    assert_eq!(reply.body, r#"{"result":{}}"#);
    let counters = running.handle.counters();
    assert_eq!(counters.published, 1);
    assert_eq!(counters.api.of(ApiMethod::Unknown, ApiResult::Denied), 27);
    assert_eq!(counters.api.of(ApiMethod::Publish, ApiResult::Done), 1);
}

#[test]
fn g7_a_page_of_another_site_gets_nowhere() {
    let running = start(1);
    let mut backend = Backend::connect(&running);
    let key = format!("X-API-Key: {KEY}\r\n");
    let body = r#"{"channel":"a","data":1}"#;
    for (content_type, status) in [
        ("application/x-www-form-urlencoded", 415),
        ("Multipart/Form-Data; boundary=x", 415),
        ("text/plain;charset=UTF-8", 415),
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("application/octet-stream", 200),
    ] {
        let headers = format!("{key}Content-Type: {content_type}\r\n");
        let reply = backend.send(&request("publish", &headers, body));
        assert_eq!(reply.status, status, "{content_type}");
    }
    // A preflight is refused like any other request, and nothing says that anybody may read.
    let preflight = "OPTIONS /api/publish HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n\
        Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: x-api-key\r\n\r\n";
    let reply = backend.send(preflight);
    assert_eq!(reply.status, 401);
    assert!(!reply.head.to_lowercase().contains("access-control"));
    let reply = backend.send(&preflight.replace("Origin:", &format!("{key}Origin:")));
    assert_eq!(reply.status, 405);
    assert!(reply.head.contains("Allow: POST\r\n"));
    assert!(!reply.head.to_lowercase().contains("access-control"));
}

#[test]
fn c5_another_host_is_misdirected() {
    let running = start(1);
    let mut backend = Backend::connect(&running);
    let body = r#"{"channel":"a","data":1}"#;
    for (host, status) in [
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("127.0.0.1", 200),
        ("127.9.9.9:8081", 200),
        ("[::1]:8081", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("10.0.0.1", 421),
    ] {
        let request = request("publish", &format!("X-API-Key: {KEY}\r\n"), body);
        let reply = backend.send(&request.replace("localhost:8081", host));
        assert_eq!(reply.status, status, "{host}");
    }
}

#[test]
fn what_is_not_understood_has_a_status_and_a_reason() {
    let running = start(1);
    let mut backend = Backend::connect(&running);
    for (method, body, status, message) in [
        ("nonsense", "{}", 404, "no such method"),
        ("", "{}", 404, "no such method"),
        ("publish/", "{}", 404, "no such method"),
        ("unknown", "{}", 404, "no such method"),
        ("publish", "nonsense", 400, "not JSON: line 1, column 2"),
        (
            "publish",
            "{\"channel\"\n:\n",
            400,
            "not JSON: line 3, column 0",
        ),
        (
            "publish",
            r#"{"channel":1}"#,
            400,
            "a field is missing, twice there, or of another type: line 1, column 12",
        ),
    ] {
        let reply = backend.with_key(KEY, method, body);
        assert_eq!(reply.status, status, "{reply:?}");
        assert_eq!(
            reply.json(),
            json!({ "status": status, "message": message })
        );
    }
    // Bytes that are not UTF-8, also where JSON would not look.
    let broken = b"{\"channel\":\"a\",\"data\":\"\xff\"}";
    let head = format!(
        "POST /api/publish HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\nContent-Length: {}\r\n\r\n",
        broken.len()
    );
    backend.0.send(&[head.as_bytes(), broken].concat());
    assert_eq!(backend.read().status, 400);
    let get = format!("GET /api/info HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\n\r\n");
    assert_eq!(backend.send(&get).status, 405);
    // The connection has been kept all the time.
    assert_eq!(running.handle.counters().exchanges, 1);
}

#[test]
fn errors_are_told_in_the_body_or_by_the_status_as_asked() {
    let running = start(1);
    let mut backend = Backend::connect(&running);
    let body = r#"{"channel":"","data":1}"#;
    let reply = backend.with_key(KEY, "publish", body);
    let error = json!({ "code": 107, "message": "bad request" });
    assert_eq!(
        (reply.status, reply.json()),
        (200, json!({ "error": error }))
    );
    let headers = format!("X-API-Key: {KEY}\r\nX-Centrifugo-Error-Mode: transport\r\n");
    let reply = backend.send(&request("publish", &headers, body));
    assert_eq!((reply.status, reply.json()), (400, error));
    let headers = headers.replace(KEY, SHOP);
    let reply = backend.send(&request("publish", &headers, r#"{"channel":"a","data":1}"#));
    let error = json!({ "code": 103, "message": "permission denied" });
    assert_eq!((reply.status, reply.json()), (403, error));
}

#[test]
fn a16_bodies_are_bounded_in_depth_and_length() {
    let api = api_settings();
    let mut settings = serving(1, &api);
    settings.requests.body_bytes_max = 1000;
    let running = Running::start(settings, vec![joining()]);
    for (depth, status) in [(DEPTH_MAX - 1, 200), (DEPTH_MAX, 200), (DEPTH_MAX + 1, 400)] {
        let data = "[".repeat(depth - 1) + &"]".repeat(depth - 1);
        let body = format!(r#"{{"channel":"a","data":{data}}}"#);
        let reply = Backend::connect(&running).with_key(KEY, "publish", &body);
        assert_eq!(reply.status, status, "{depth}: {reply:?}");
    }
    for (length, status) in [(999, 200), (1000, 200), (1001, 413)] {
        let around = r#"{"channel":"a","data":""}"#.len();
        let data = "x".repeat(length - around);
        let body = format!(r#"{{"channel":"a","data":"{data}"}}"#);
        let reply = Backend::connect(&running).with_key(KEY, "publish", &body);
        assert_eq!(reply.status, status, "{length}: {reply:?}");
    }
    assert_eq!(running.handle.counters().published, 4);
}

#[test]
fn a16_lists_are_bounded() {
    let mut api = api_settings();
    api.limits = api::Limits {
        channels_max: 5,
        commands_max: 5,
    };
    let running = Running::start(serving(1, &api), vec![joining()]);
    let mut backend = Backend::connect(&running);
    for (count, status) in [(4, 200), (5, 200), (6, 400)] {
        let body = json!({ "channels": vec!["a"; count], "data": 1 }).to_string();
        let reply = backend.with_key(KEY, "broadcast", &body);
        assert_eq!(reply.status, status, "{reply:?}");
        let command = json!({ "publish": { "channel": "a", "data": 1 } });
        let body = json!({ "commands": vec![command; count] }).to_string();
        let reply = backend.with_key(KEY, "batch", &body);
        assert_eq!(reply.status, status, "{reply:?}");
    }
    assert_eq!(running.handle.counters().published, 18);
}

#[test]
fn g7_a_key_with_prefixes_is_good_for_their_channels_only() {
    let running = start(2);
    let (_client, _) = subscriber(&running, "a");
    let mut backend = Backend::connect(&running);
    let denied = json!({ "error": { "code": 103, "message": "permission denied" } });
    let mut shop = |method: &str, body: Value| {
        let reply = backend.with_key(SHOP, method, &body.to_string());
        assert_eq!(reply.status, 200);
        reply.json()
    };
    let publish = |channel: &str| json!({ "channel": channel, "data": 1 });
    assert_eq!(shop("publish", publish("shop:1")), json!({ "result": {} }));
    for channel in ["a", "shop", "Shop:1", "xshop:1"] {
        assert_eq!(shop("publish", publish(channel)), denied, "{channel}");
    }
    let answer = shop(
        "broadcast",
        json!({ "channels": ["shop:1", "a"], "data": 1 }),
    );
    let responses = json!([{ "result": {} }, denied]);
    assert_eq!(answer, json!({ "result": { "responses": responses } }));
    for method in ["presence", "presence_stats", "history", "history_remove"] {
        assert_eq!(shop(method, json!({ "channel": "a" })), denied, "{method}");
    }
    for method in ["subscribe", "unsubscribe"] {
        assert_eq!(shop(method, json!({ "user": "u", "channel": "a" })), denied);
    }
    for method in ["disconnect", "refresh"] {
        assert_eq!(shop(method, json!({ "user": "u" })), denied, "{method}");
    }
    assert_eq!(shop("info", json!({})), denied);
    let commands = json!([{ "publish": publish("a") }, { "info": {} }]);
    let answer = shop("batch", json!({ "commands": commands }));
    assert_eq!(answer, json!({ "replies": [denied, denied] }));
    assert_eq!(running.handle.counters().published, 2);
}

#[test]
fn g7_a_key_has_so_many_commands_whichever_reactor_is_asked() {
    let running = start(4);
    let (mut done, mut limited) = (0, 0);
    // A connection each, so that all reactors are asked.
    for _ in 0..20 {
        let body = r#"{"channel":"a","data":1}"#;
        let reply = Backend::connect(&running).with_key(SLOW, "publish", body);
        match reply.status {
            200 => done += 1,
            429 => {
                assert!(reply.head.contains("Retry-After: 3"), "{reply:?}");
                limited += 1;
            }
            _ => panic!("{reply:?}"),
        }
    }
    assert_eq!((done, limited), (10, 10));
    let counters = running.handle.counters();
    assert_eq!(counters.api.of(ApiMethod::Publish, ApiResult::Limited), 10);
    // The other keys are as good as before.
    let mut backend = Backend::connect(&running);
    backend.call("publish", json!({ "channel": "a", "data": 1 }));
}

#[test]
fn each_channel_of_a_broadcast_and_each_command_of_a_batch_counts() {
    let running = start(1);
    let mut backend = Backend::connect(&running);
    let broadcast = |count| json!({ "channels": vec!["a"; count], "data": 1 }).to_string();
    let mut status = |method, body: &str| backend.with_key(SLOW, method, body).status;
    assert_eq!(status("broadcast", &broadcast(11)), 429);
    assert_eq!(status("broadcast", &broadcast(6)), 200);
    let command = json!({ "publish": { "channel": "a", "data": 1 } });
    let batch = |count| json!({ "commands": vec![command.clone(); count] }).to_string();
    assert_eq!(status("batch", &batch(5)), 429);
    assert_eq!(status("batch", &batch(4)), 200);
    assert_eq!(status("publish", r#"{"channel":"a","data":1}"#), 429);
    assert_eq!(running.handle.counters().published, 10);
}

/// B9.
#[test]
fn b9_a_hundred_thousand_pipelined_publications_arrive_in_order() {
    const COUNT: usize = 100_000;
    let mut settings = serving(2, &api_settings());
    settings.outbox.bytes_max = 64 * 1024 * 1024;
    settings.timeouts.ping_interval = None;
    let running = Running::start(settings, vec![joining()]);
    let (mut client, _) = subscriber(&running, "a");
    let backend = Backend::connect(&running);
    let mut answers = backend.0.try_clone();
    let writer = std::thread::spawn(move || {
        let mut backend = backend;
        for number in 0..COUNT {
            let body = format!(r#"{{"channel":"a","data":{number}}}"#);
            let key = format!("X-API-Key: {KEY}\r\n");
            backend.0.send(request("publish", &key, &body).as_bytes());
        }
        backend
    });
    let reader = std::thread::spawn(move || {
        for number in 0..COUNT {
            let answer = answers.read_until(b"{\"result\":{}}");
            assert!(answer.starts_with(b"HTTP/1.1 200 "), "{number}");
        }
    });
    for number in 0..COUNT {
        assert_eq!(client.read_text(), number.to_string());
    }
    reader.join().unwrap();
    drop(writer.join().unwrap());
    let counters = running.handle.counters();
    let done = counters.api.of(ApiMethod::Publish, ApiResult::Done);
    assert_eq!((done, counters.delivered), (COUNT as u64, COUNT as u64));
}
