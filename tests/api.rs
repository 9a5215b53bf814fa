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

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tidegate::admission::LOOPBACK;
use tidegate::admission::jwt::{Algorithm, Key, KeySet, TokenPolicy, Verifier};
use tidegate::admission::limits::{Cap, Limit};
use tidegate::admission::rate::Quota;
use tidegate::api::{self, DEPTH_MAX, KeySettings};
use tidegate::hub::{ChannelPolicy, Policies};
use tidegate::metrics::{ApiMethod, ApiResult};
use tidegate::timer::TICK;
use tidegate::{
    Channel, CloseReason, HandlerFactory, ListenerSettings, Route, Serves, Settings, Speaks,
    TokenDemand,
};

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
            let mut stranger = Backend::connect(&running);
            let reply = stranger.send(&request(method, &headers, body));
            assert_eq!((reply.status, &*reply.body), (401, ""), "{headers}");
            assert!(reply.head.contains("WWW-Authenticate: apikey\r\n"));
            assert!(!reply.head.contains(KEY));
            assert!(stranger.0.read_to_end().is_empty(), "and that is the end");
        }
    }
    let mut backend = Backend::connect(&running);
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
fn b10_strangers_take_no_places_of_clients_and_keep_none_of_backends() {
    let mut settings = serving(1, &api_settings());
    let limits = &mut settings.admission.limits;
    (limits.connections, limits.api_connections) = (Cap::of(4), Cap::of(4));
    settings.timeouts.close = TICK;
    let running = Running::start(settings, vec![joining()]);
    let mut strangers = Vec::new();
    for _ in 0..4 {
        let mut stranger = Backend::connect(&running);
        let reply = stranger.send(&request("publish", "", "{}"));
        assert_eq!(reply.status, 401);
        assert!(reply.head.contains("Connection: close\r\n"), "{reply:?}");
        strangers.push(stranger);
    }
    // All of the clients' places are there, and the strangers' are given back while they hold on.
    let clients: Vec<_> = (0..4).map(|_| subscriber(&running, "a")).collect();
    running.closed_when(&CloseReason::RequestsDone, 4);
    Backend::connect(&running).call("info", json!({}));
    drop((strangers, clients));
}

#[test]
fn f4_connections_of_backends_hold_at_minus_one_zero_and_plus_one() {
    let mut settings = serving(1, &api_settings());
    settings.admission.limits.api_connections = Cap::of(3);
    let running = Running::start(settings, vec![joining()]);
    let mut backends: Vec<_> = (0..3).map(|_| Backend::connect(&running)).collect();
    for backend in &mut backends {
        backend.call("info", json!({}));
    }
    let tally = |limit| running.handle.counters().tally.refused(limit);
    assert_eq!(tally(Limit::ApiConnections), 0);
    let mut refused = Backend::connect(&running);
    let reply = refused.read();
    assert_eq!(reply.status, 503);
    assert!(reply.head.contains("Retry-After: "), "{reply:?}");
    assert_eq!(tally(Limit::ApiConnections), 1);
    // Clients are not concerned, and a place that is given back is there again.
    let _client = subscriber(&running, "a");
    for backend in &mut backends {
        backend.call("info", json!({}));
    }
    drop(backends.pop());
    running.counters_when("the place is given back", |counters| counters.active() == 3);
    Backend::connect(&running).call("info", json!({}));
    assert_eq!(tally(Limit::ApiConnections), 1);
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
    let mut backend = Backend::connect(&running);
    let reply = backend.send(&preflight.replace("Origin:", &format!("{key}Origin:")));
    assert_eq!(reply.status, 405);
    assert!(reply.head.contains("Allow: POST\r\n"));
    assert!(!reply.head.to_lowercase().contains("access-control"));
}

#[test]
fn c5_another_host_is_misdirected() {
    let running = start(1);
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
        let mut backend = Backend::connect(&running);
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

const SECRET: &[u8] = b"0123456789abcdef0123456789ABCDEF";

/// A token of `user`.
fn token(user: &str) -> String {
    let claims = format!(r#"{{"sub":"{user}","exp":4102444800}}"#);
    let message = [r#"{"alg":"HS256","typ":"JWT"}"#, &claims]
        .map(|part| URL_SAFE_NO_PAD.encode(part))
        .join(".");
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    let signature = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

/// A server whose channels `kept_…` keep ten publications, and `seen_…` who is there; `/user/{channel}`
/// wants a token.
fn start_whole(reactors: usize) -> Running {
    let mut settings = serving(reactors, &api_settings());
    let kept = ChannelPolicy {
        history_size: 10,
        ..ChannelPolicy::default()
    };
    let seen = ChannelPolicy {
        presence: true,
        ..ChannelPolicy::default()
    };
    settings.channels = Policies::new([], [("kept_".into(), kept), ("seen_".into(), seen)]);
    let key = Key::secret(Algorithm::Hs256, SECRET, None).unwrap();
    let keys = KeySet::new(vec![key]).unwrap();
    let verifier = Verifier::new(vec![(TokenPolicy::default(), keys)]).unwrap();
    settings.verifier = Some(Arc::new(verifier));
    let (mut users, handler) = joining();
    users.path = Route::open("/user/{channel}").path;
    users.token = TokenDemand::Required;
    Running::start(settings, vec![joining(), (users, handler)])
}

/// A subscriber with a name.
fn user(running: &Running, name: &str, channel: &str) -> (Client, String) {
    let path = format!("/user/{channel}?token={}", token(name));
    let mut client = Client::open(running.address, &path);
    let id = client.read_text();
    (client, id)
}

#[test]
fn histories_are_kept_asked_for_and_removed() {
    for reactors in [1, 2, 4] {
        let running = start_whole(reactors);
        let mut epochs = std::collections::BTreeSet::new();
        // Several connections, so that home and asker are the same reactor here and not there.
        for channel in ["kept_a", "kept_b", "kept_c", "kept_d"] {
            let mut backend = Backend::connect(&running);
            let mut epoch = Value::Null;
            for number in 1..=12 {
                let tags = json!({ "n": number.to_string() });
                let body = json!({ "channel": channel, "data": { "n": number }, "tags": tags });
                let position = backend.call("publish", body)["result"].take();
                assert_eq!(position["offset"], number);
                epoch = position["epoch"].clone();
            }
            epochs.insert(epoch.to_string());
            let mut history = |mut body: Value| {
                body["channel"] = channel.into();
                let mut answer = backend.call("history", body);
                assert_eq!(answer["result"]["offset"], 12, "{answer}");
                assert_eq!(answer["result"]["epoch"], epoch);
                let publications = answer["result"]["publications"].take();
                let publications = publications.as_array().unwrap();
                for one in publications {
                    assert_eq!(one["data"]["n"], one["offset"]);
                    assert_eq!(one["tags"]["n"], one["offset"].to_string());
                }
                let offsets = publications
                    .iter()
                    .map(|one| one["offset"].as_u64().unwrap());
                offsets.collect::<Vec<_>>()
            };
            assert!(history(json!({})).is_empty());
            assert_eq!(history(json!({ "limit": 2 })), [3, 4]);
            assert_eq!(
                history(json!({ "limit": -1 })),
                (3..=12).collect::<Vec<_>>()
            );
            assert_eq!(history(json!({ "limit": 2, "reverse": true })), [12, 11]);
            let since = json!({ "offset": 9, "epoch": epoch });
            assert_eq!(
                history(json!({ "limit": -1, "since": since })),
                [10, 11, 12]
            );
            let foreign = json!({ "offset": 9, "epoch": "_" });
            let body = json!({ "channel": channel, "limit": 1, "since": foreign });
            let error = json!({ "code": 112, "message": "unrecoverable position" });
            assert_eq!(backend.call("history", body), json!({ "error": error }));
            let removed = backend.call("history_remove", json!({ "channel": channel }));
            assert_eq!(removed, json!({ "result": {} }));
            let empty = backend.call("history", json!({ "channel": channel, "limit": -1 }));
            let expected = json!({ "publications": [], "offset": 12, "epoch": epoch });
            assert_eq!(empty, json!({ "result": expected }));
        }
        assert_eq!(epochs.len(), 4, "each channel has an epoch of its own");
    }
}

#[test]
fn what_a_channel_does_not_keep_is_not_available() {
    let running = start_whole(2);
    let mut backend = Backend::connect(&running);
    let error = json!({ "error": { "code": 108, "message": "not available" } });
    for (method, channel) in [
        ("history", "seen_a"),
        ("history_remove", "a"),
        ("presence", "kept_a"),
        ("presence_stats", "a"),
    ] {
        let answer = backend.call(method, json!({ "channel": channel }));
        assert_eq!(answer, error, "{method}");
    }
    let headers = format!("X-API-Key: {KEY}\r\nX-Centrifugo-Error-Mode: transport\r\n");
    let reply = backend.send(&request("history", &headers, r#"{"channel":"a"}"#));
    assert_eq!((reply.status, reply.json()), (400, error["error"].clone()));
    // What came late is counted like what came at once.
    let counters = running.handle.counters();
    assert_eq!(
        counters.api.of(ApiMethod::History, ApiResult::Unavailable),
        2
    );
}

#[test]
fn presence_says_who_is_there() {
    for reactors in [1, 2, 4] {
        let running = start_whole(reactors);
        let mut backend = Backend::connect(&running);
        let channel = json!({ "channel": "seen_a" });
        let nobody = json!({ "result": { "presence": {} } });
        assert_eq!(backend.call("presence", channel.clone()), nobody);
        let clients = [
            user(&running, "ann", "seen_a"),
            user(&running, "ann", "seen_a"),
            user(&running, "bob", "seen_a"),
        ];
        let mut expected = serde_json::Map::new();
        for ((_, id), name) in clients.iter().zip(["ann", "ann", "bob"]) {
            expected.insert(id.clone(), json!({ "client": id, "user": name }));
        }
        let expected = json!({ "result": { "presence": expected } });
        support::wait_until("all are there", || {
            backend.call("presence", channel.clone()) == expected
        });
        let stats = json!({ "result": { "num_clients": 3, "num_users": 2 } });
        assert_eq!(backend.call("presence_stats", channel.clone()), stats);
        drop(clients);
        let none = json!({ "result": { "num_clients": 0, "num_users": 0 } });
        support::wait_until("all have gone", || {
            backend.call("presence_stats", channel.clone()) == none
        });
    }
}

#[test]
fn channels_and_info_count_all_reactors() {
    let running = start_whole(4);
    let mut backend = Backend::connect(&running);
    let none = json!({ "result": { "channels": {} } });
    assert_eq!(backend.call("channels", json!({})), none);
    let _clients: Vec<_> = (0..12)
        .map(|n| {
            user(
                &running,
                &format!("u{}", n % 3),
                ["a", "shop-1", "shop-2"][n % 3],
            )
        })
        .collect();
    let mut channels = |pattern: &str| {
        let mut answer = backend.call("channels", json!({ "pattern": pattern }));
        answer["result"]["channels"].take()
    };
    let four = json!({ "num_clients": 4 });
    assert_eq!(
        channels(""),
        json!({ "a": four, "shop-1": four, "shop-2": four })
    );
    assert_eq!(
        channels("shop-*"),
        json!({ "shop-1": four, "shop-2": four })
    );
    assert_eq!(channels("{a,b}"), json!({ "a": four }));
    assert_eq!(channels("nothing"), json!({}));
    let info = backend.call("info", json!({}));
    let node = &info["result"]["nodes"][0];
    let counted = ["num_clients", "num_subs"].map(|name| node[name].as_u64());
    assert_eq!(counted, [Some(12), Some(12)], "{info}");
    // These are counted by each reactor, and added up.
    for (name, least) in [("num_channels", 3), ("num_users", 3)] {
        let count = node[name].as_u64().unwrap();
        assert!((least..=12).contains(&count), "{info}");
    }
    for name in ["uid", "name", "version"] {
        assert!(
            node[name].as_str().is_some_and(|text| !text.is_empty()),
            "{info}"
        );
    }
    assert!(node["uptime"].is_u64());
}

#[test]
fn g7_a_publication_with_a_key_is_made_once_whichever_reactor_is_asked() {
    for reactors in [1, 2, 4] {
        let running = start_whole(reactors);
        let (mut kept, _) = subscriber(&running, "kept_a");
        let (mut plain, _) = subscriber(&running, "plain");
        let publish = |channel: &str, key: &str, data: u32| {
            let body = json!({ "channel": channel, "data": data, "idempotency_key": key });
            Backend::connect(&running).call("publish", body)
        };
        let first = publish("kept_a", "k1", 1);
        assert_eq!(first["result"]["offset"], 1);
        for _ in 0..8 {
            assert_eq!(publish("kept_a", "k1", 2), first);
        }
        assert_eq!(publish("kept_a", "k2", 3)["result"]["offset"], 2);
        for _ in 0..8 {
            assert_eq!(publish("plain", "k1", 4), json!({ "result": {} }));
        }
        assert_eq!(publish("plain", "k2", 5), json!({ "result": {} }));
        assert_eq!(
            (kept.read_text(), kept.read_text()),
            ("1".into(), "3".into())
        );
        assert_eq!(
            (plain.read_text(), plain.read_text()),
            ("4".into(), "5".into())
        );
        let counters = running.handle.counters();
        assert_eq!(counters.publications_repeated, 15);
    }
}

#[test]
fn g7_repetitions_at_the_same_time_are_one_publication() {
    let running = start_whole(4);
    let (mut client, _) = subscriber(&running, "kept_a");
    let body = json!({ "channel": "kept_a", "data": 1, "idempotency_key": "k" }).to_string();
    let headers = format!("X-API-Key: {KEY}\r\n");
    let mut backends: Vec<_> = (0..32).map(|_| Backend::connect(&running)).collect();
    for backend in &mut backends {
        backend
            .0
            .send(request("publish", &headers, &body).as_bytes());
    }
    let answers: std::collections::BTreeSet<_> = backends
        .iter_mut()
        .map(|backend| backend.read().body)
        .collect();
    assert_eq!(answers.len(), 1, "{answers:?}");
    backends[0].call("publish", json!({ "channel": "kept_a", "data": "end" }));
    assert_eq!(
        (client.read_text(), client.read_text()),
        ("1".into(), "\"end\"".into())
    );
}

#[test]
fn g8_an_answered_unsubscribe_is_silence() {
    for reactors in [1, 2, 4] {
        let running = start_whole(reactors);
        let mut clients: Vec<_> = (0..6).map(|_| user(&running, "ann", "a")).collect();
        // Somebody else beside each of them: a connection's name begins with its reactor's number.
        let mut others: Vec<(Client, String)> = Vec::new();
        let is_beside = |others: &[(Client, String)], id: &str| {
            others.iter().any(|(_, other)| other[..2] == id[..2])
        };
        while clients.iter().any(|(_, id)| !is_beside(&others, id)) {
            others.push(user(&running, "bob", "a"));
            assert!(others.len() < 200, "the kernel prefers one reactor");
        }
        let mut backend = Backend::connect(&running);
        let nothing = json!({ "result": {} });
        let publish = |n: u32| json!({ "channel": "a", "data": n });
        backend.call("publish", publish(1));
        let ann = json!({ "user": "ann", "channel": "a" });
        assert_eq!(backend.call("unsubscribe", ann.clone()), nothing);
        backend.call("publish", publish(2));
        for (other, _) in &mut others {
            assert_eq!(
                (other.read_text(), other.read_text()),
                ("1".into(), "2".into())
            );
        }
        // The second publication is everywhere by now; whoever is subscribed again hears the third.
        assert_eq!(backend.call("subscribe", ann), nothing);
        backend.call("publish", publish(3));
        for (client, _) in &mut clients {
            assert_eq!(
                (client.read_text(), client.read_text()),
                ("1".into(), "3".into())
            );
        }
    }
}

#[test]
fn what_was_published_before_a_subscription_or_a_connection_is_ended_comes_before_that() {
    const ROUNDS: u32 = 50;
    for reactors in [1, 2, 4] {
        let running = start_whole(reactors);
        let mut clients: Vec<_> = (0..6).map(|_| user(&running, "ann", "a").0).collect();
        let mut backend = Backend::connect(&running);
        let ann = json!({ "user": "ann", "channel": "a" });
        // In one request, so that nothing is between the commands but their order.
        for n in 0..ROUNDS {
            let commands = json!([
                { "publish": { "channel": "a", "data": n } },
                { "unsubscribe": ann },
                { "publish": { "channel": "a", "data": "not for them" } },
                { "subscribe": ann },
            ]);
            backend.call("batch", json!({ "commands": commands }));
            for client in &mut clients {
                assert_eq!(client.read_text(), n.to_string(), "{reactors} reactors");
            }
        }
        for end in ["disconnect", "refresh"] {
            let publish = json!({ "channel": "a", "data": "farewell" });
            let commands = json!([
                { "publish": publish },
                { end: { "user": "ann", "expired": true } },
            ]);
            backend.call("batch", json!({ "commands": commands }));
            let code = if end == "refresh" { 4401 } else { 3503 };
            for client in &mut clients {
                assert_eq!(client.read_text(), "\"farewell\"");
                assert_eq!(client.read_frame().unwrap().close_code(), Some(code));
            }
            clients = (0..6).map(|_| user(&running, "ann", "a").0).collect();
        }
    }
}

#[test]
fn users_are_disconnected_with_a_code_but_for_those_on_the_list() {
    for reactors in [1, 2, 4] {
        let running = start_whole(reactors);
        let mut clients: Vec<_> = (0..5).map(|_| user(&running, "ann", "a")).collect();
        let (mut bob, bob_id) = user(&running, "bob", "a");
        let (mut anonymous, anonymous_id) = subscriber(&running, "a");
        let mut backend = Backend::connect(&running);
        let nothing = json!({ "result": {} });
        let spared = clients.pop().unwrap();
        let body = json!({ "user": "ann", "whitelist": [spared.1] });
        assert_eq!(backend.call("disconnect", body), nothing);
        for (client, _) in &mut clients {
            let frame = client.read_frame().unwrap();
            assert_eq!(frame.close_code(), Some(3503));
            assert_eq!(&frame.payload[2..], b"force disconnect");
        }
        let told = json!({ "code": 4000, "reason": "bye" });
        let body = json!({ "user": "bob", "client": bob_id, "disconnect": told });
        assert_eq!(backend.call("disconnect", body), nothing);
        assert_eq!(bob.read_frame().unwrap().close_code(), Some(4000));
        // Whose token says nothing is found by the connection only; who is not there is no fault.
        let body = json!({ "user": "", "client": anonymous_id });
        assert_eq!(backend.call("disconnect", body), nothing);
        assert_eq!(anonymous.read_frame().unwrap().close_code(), Some(3503));
        for body in [
            json!({ "user": "eve" }),
            json!({ "user": "ann", "client": "nobody" }),
        ] {
            assert_eq!(backend.call("disconnect", body), nothing);
        }
        let (mut spared, _) = spared;
        backend.call("publish", json!({ "channel": "a", "data": 7 }));
        assert_eq!(spared.read_text(), "7");
    }
}

#[test]
fn a_refresh_that_says_expired_ends_connections() {
    let running = start_whole(2);
    let (mut ann, _) = user(&running, "ann", "a");
    let (mut bob, _) = user(&running, "bob", "a");
    let mut backend = Backend::connect(&running);
    let nothing = json!({ "result": {} });
    let body = json!({ "user": "bob", "expire_at": 4_000_000_000_u32 });
    assert_eq!(backend.call("refresh", body), nothing);
    let body = json!({ "user": "ann", "expired": true });
    assert_eq!(backend.call("refresh", body), nothing);
    assert_eq!(ann.read_frame().unwrap().close_code(), Some(4401));
    backend.call("publish", json!({ "channel": "a", "data": 1 }));
    assert_eq!(bob.read_text(), "1");
}

#[test]
fn a_batch_waits_for_each_command_unless_it_says_parallel() {
    for reactors in [1, 2, 4] {
        let running = start_whole(reactors);
        let mut clients: Vec<_> = (0..4).map(|_| user(&running, "ann", "other")).collect();
        let mut backend = Backend::connect(&running);
        let publish = |n: u32| json!({ "publish": { "channel": "kept_a", "data": n } });
        let subscribe = json!({ "subscribe": { "user": "ann", "channel": "kept_a" } });
        let history = json!({ "history": { "channel": "kept_a" } });
        let broadcast = json!({ "broadcast": { "channels": ["kept_a", "x", "?"], "data": 3 } });
        let commands =
            json!([publish(1), subscribe, publish(2), broadcast, { "nonsense": 1 }, history]);
        for parallel in [false, true] {
            let body = json!({ "commands": commands, "parallel": parallel });
            let answer = backend.call("batch", body);
            let replies = answer["replies"].as_array().unwrap();
            let base = if parallel { 3 } else { 0 };
            assert_eq!(replies.len(), 6, "{answer}");
            assert_eq!(replies[0]["publish"]["offset"], base + 1);
            assert_eq!(replies[1], json!({ "subscribe": {} }));
            assert_eq!(replies[2]["publish"]["offset"], base + 2);
            let responses = replies[3]["broadcast"]["responses"].as_array().unwrap();
            assert_eq!(responses[0]["result"]["offset"], base + 3);
            assert_eq!(responses[1], json!({ "result": {} }));
            assert_eq!(responses[2]["error"]["code"], 107);
            assert_eq!(replies[4]["error"]["code"], 104);
            assert_eq!(replies[5]["history"]["offset"], base + 3);
            if !parallel {
                // The second publication was made when all had been subscribed.
                for (client, _) in &mut clients {
                    assert_eq!(
                        (client.read_text(), client.read_text()),
                        ("2".into(), "3".into())
                    );
                }
            }
        }
    }
}

/// B9.
#[test]
fn b9_answers_that_come_late_leave_in_order_among_those_given_at_once() {
    const COUNT: usize = 3000;
    for reactors in [1, 4] {
        let running = start_whole(reactors);
        let backend = Backend::connect(&running);
        let mut answers = Backend(backend.0.try_clone());
        let writer = std::thread::spawn(move || {
            let mut backend = backend;
            let key = format!("X-API-Key: {KEY}\r\n");
            let mut all = String::new();
            for number in 0..COUNT {
                let channel = if number % 3 == 0 { "plain" } else { "kept_a" };
                let body = json!({ "channel": channel, "data": number }).to_string();
                all += &request("publish", &key, &body);
            }
            backend.0.send(all.as_bytes());
            backend
        });
        let mut offset = 0;
        for number in 0..COUNT {
            let answer = answers.read().json();
            if number % 3 == 0 {
                assert_eq!(answer, json!({ "result": {} }));
            } else {
                offset += 1;
                assert_eq!(answer["result"]["offset"], offset);
            }
        }
        drop(writer.join().unwrap());
    }
}

/// X12: who was promised an answer gets one, and the server ends all the same.
#[test]
fn x12_a_shutdown_answers_what_is_being_asked() {
    let running = start_whole(4);
    let mut backends: Vec<_> = (0..16).map(|_| Backend::connect(&running)).collect();
    let headers = format!("X-API-Key: {KEY}\r\n");
    let body = json!({ "channel": "kept_a", "data": 1 }).to_string();
    for backend in &mut backends {
        backend
            .0
            .send(request("publish", &headers, &body).as_bytes());
    }
    running.handle.shut_down();
    let counters = running.stop();
    let mut answered = 0;
    for mut backend in backends {
        let rest = String::from_utf8(backend.0.read_to_end()).unwrap();
        assert!(
            rest.is_empty() || rest.starts_with("HTTP/1.1 200 "),
            "{rest}"
        );
        answered += u64::from(rest.contains("offset"));
    }
    let done = counters.api.of(ApiMethod::Publish, ApiResult::Done);
    assert_eq!(answered, done);
}
