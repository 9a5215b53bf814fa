//! Hooks over real sockets: a scripted backend that is slow, away, wrong, or hostile.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::disallowed_types
)]

#[path = "support/backend.rs"]
mod backend;
mod support;

use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use backend::{Backend, Reply, Script, serve};
use support::{Client, PATIENCE, Running, settings, wait_until};
use tidegate::hooks::{
    ANSWER_BYTES_MAX, Event, FailMode, HELD_BYTES_MAX, HELD_MESSAGES_MAX, HookWatch, Hooked, Hooks,
    RouteSettings, Settings,
};
use tidegate::hub::command::{Command, Outcome, Whom};
use tidegate::metrics::hook::HOOK_OUTCOMES;
use tidegate::outbound::Reach;
use tidegate::signature::Signer;
use tidegate::{Channel, CloseReason, Handler, HandlerFactory, Message, Peer, Route};

const SECRET: &str = "a secret of at least thirty-two bytes";

/// Says what it sees, and joins a channel.
struct Plain;

impl Handler for Plain {
    fn open(&mut self, peer: &mut Peer<'_>) {
        peer.join(&Channel::new("room_lobby").unwrap());
        peer.send("opened");
    }

    fn message(&mut self, peer: &mut Peer<'_>, message: Message<'_>) {
        if let Message::Text(text) = message
            && let Some(text) = text.strip_prefix("echo ")
        {
            peer.send(text);
        }
    }
}

/// How backends are called in tests: without waiting long for anything.
fn hook_settings() -> Settings {
    Settings {
        allow_http: true,
        timeout: PATIENCE,
        retries: 0,
        retry_wait: Duration::from_millis(1),
        signer: Some(Signer::new(SECRET)),
        ..Settings::default()
    }
}

/// A server with one route, `/ws/{room}`, whose events go to these URLs.
struct Stage {
    server: Option<Running>,
    hooks: Option<Hooks>,
    watch: HookWatch,
}

impl Stage {
    fn new(settings: Settings, fail: FailMode, urls: [Option<String>; 4]) -> Self {
        Self::with_reactors(2, settings, fail, urls)
    }

    fn with_reactors(
        reactors: usize,
        hook_settings: Settings,
        fail: FailMode,
        urls: [Option<String>; 4],
    ) -> Self {
        let mut hooks = Hooks::new(hook_settings);
        let route = hooks
            .route(RouteSettings {
                path: "/ws/{room}".to_owned(),
                urls,
                fail,
                owns: Arc::new(|channel| channel.as_str().starts_with("room_")),
            })
            .unwrap();
        let factory: Arc<dyn HandlerFactory> =
            Arc::new(move |_| Hooked::new(Box::new(Plain), route.clone(), true));
        let settings = tidegate::Settings {
            reactors: reactors.try_into().unwrap(),
            ..settings()
        };
        let server = Running::start(settings, vec![(Route::open("/ws/{room}"), factory)]);
        hooks.start(server.handle.clone()).unwrap();
        Self {
            server: Some(server),
            watch: hooks.watch(),
            hooks: Some(hooks),
        }
    }

    fn server(&self) -> &Running {
        self.server.as_ref().unwrap()
    }

    fn open(&self) -> Client<TcpStream> {
        Client::open(self.server().address, "/ws/lobby")
    }

    fn count(&self, event: Event, outcome: &str) -> u64 {
        let place = HOOK_OUTCOMES.iter().position(|label| *label == outcome);
        self.watch.figures().calls[event.index()][place.unwrap()]
    }

    fn wait_for(&self, event: Event, outcome: &str, count: u64) {
        let what = format!("{count} calls of {event:?} ending {outcome}");
        wait_until(&what, || self.count(event, outcome) >= count);
        assert_eq!(self.count(event, outcome), count, "{what}");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        drop(self.server.take());
        if let Some(hooks) = self.hooks.take() {
            hooks.finish(Duration::ZERO);
        }
    }
}

fn only(event: Event, url: String) -> [Option<String>; 4] {
    let mut urls = [const { None }; 4];
    urls[event.index()] = Some(url);
    urls
}

#[test]
fn a_backend_is_told_of_everything_and_answers() {
    let backend = Backend::start(|call| match &*call.path {
        "/open" => Reply::Json(json!({"reply":[{"type":"notifications_list","data":[]}, "two"]})),
        "/message?key=canary" => Reply::Json(json!({"reply":[{"got": call.json()["data"]}]})),
        _ => Reply::status(204),
    });
    let urls = [
        None,
        Some(backend.url("/open")),
        Some(backend.url("/message?key=canary")),
        Some(backend.url("/close")),
    ];
    let stage = Stage::new(hook_settings(), FailMode::Open, urls);
    let mut client = stage.open();
    assert_eq!(client.read_text(), "opened");
    assert_eq!(
        client.read_text(),
        r#"{"data":[],"type":"notifications_list"}"#
    );
    assert_eq!(client.read_text(), r#""two""#);
    client.send_text(r#"{"action":"mark_read","notification_id":7}"#);
    assert_eq!(
        client.read_text(),
        r#"{"got":{"action":"mark_read","notification_id":7}}"#
    );
    client.close(1000);
    let calls = backend.wait_for_calls(3);
    assert_eq!(calls[1].path, "/message?key=canary");
    for (call, event) in calls.iter().zip(["open", "message", "close"]) {
        let body = call.json();
        assert_eq!(body["event"], event);
        assert_eq!(body["route"], "/ws/{room}");
        assert_eq!(body["parameters"], json!({"room":"lobby"}));
        assert_eq!(
            (&body["user"], &body["address"]),
            (&Value::Null, &"127.0.0.1".into())
        );
        assert_eq!(body["connection"], calls[0].json()["connection"]);
        // The signature, computed as a receiver does it.
        let (id, time) = (
            &call.headers["webhook-id"],
            &call.headers["webhook-timestamp"],
        );
        assert_eq!(body["id"], **id);
        let signed = [id.as_bytes(), b".", time.as_bytes(), b".", &call.body].concat();
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET.as_bytes());
        let expected = STANDARD.encode(aws_lc_rs::hmac::sign(&key, &signed));
        assert_eq!(call.headers["webhook-signature"], format!("v1,{expected}"));
        assert_eq!(call.headers["content-type"], "application/json");
    }
    assert_eq!(calls[2].json()["reason"], "peer_closed");
    assert_eq!(*backend.connections.lock().unwrap(), 3, "one for each URL");
    for event in [Event::Open, Event::Message, Event::Close] {
        stage.wait_for(event, "answered", 1);
        assert_eq!(stage.watch.figures().duration[event.index()].count, 1);
    }
    wait_until("every place is given back", || {
        stage.watch.figures().queue_calls == 0
    });
    assert_eq!(stage.watch.figures().queue_bytes, 0);
}

#[test]
fn a_connections_calls_are_made_one_at_a_time_and_others_go_past() {
    let (go, when) = mpsc::channel();
    let when = Mutex::new(Some(when));
    let backend = Backend::start(move |call| {
        let answer = json!({"reply": [call.json()["data"]]});
        match call.json()["data"].as_i64() {
            Some(0) => Reply::When(when.lock().unwrap().take().unwrap(), answer),
            _ => Reply::Json(answer),
        }
    });
    let urls = only(Event::Message, backend.url("/"));
    let stage = Stage::new(hook_settings(), FailMode::Open, urls);
    let (mut slow, mut other) = (stage.open(), stage.open());
    slow.read_text();
    other.read_text();
    for number in 0..20 {
        slow.send_text(&number.to_string());
    }
    backend.wait_for_calls(1);
    other.send_text("100");
    assert_eq!(other.read_text(), "100", "past the one that waits");
    assert_eq!(backend.calls().len(), 2);
    go.send(()).unwrap();
    for number in 0..20 {
        assert_eq!(slow.read_text(), number.to_string());
    }
}

#[test]
fn answers_publish_join_and_leave_within_the_route() {
    let backend = Backend::start(|call| Reply::Json(call.json()["data"].clone()));
    let urls = only(Event::Message, backend.url("/"));
    let stage = Stage::new(hook_settings(), FailMode::Open, urls);
    let (mut one, mut other) = (stage.open(), stage.open());
    one.read_text();
    other.read_text();
    one.send_text(r#"{"publish":[{"channel":"room_lobby","data":{"n":1}}],"reply":[0]}"#);
    assert_eq!(one.read_text(), "0");
    assert_eq!(one.read_text(), r#"{"n":1}"#);
    assert_eq!(other.read_text(), r#"{"n":1}"#);
    // Joined before it publishes: it hears itself.
    one.send_text(r#"{"join":["room_b"],"publish":[{"channel":"room_b","data":"b"}]}"#);
    assert_eq!(one.read_text(), r#""b""#);
    one.send_text(r#"{"leave":["room_b","room_lobby"],"reply":["left"]}"#);
    assert_eq!(one.read_text(), r#""left""#);
    other.send_text(r#"{"publish":[{"channel":"room_lobby","data":2}]}"#);
    assert_eq!(other.read_text(), "2");
    one.send_text("echo still here");
    assert_eq!(
        one.read_text(),
        "still here",
        "and nothing of the channel before"
    );
    other.send_text(r#"{"reply":[1],"close":{"code":4001,"reason":"enough"}}"#);
    assert_eq!(other.read_text(), "1");
    assert_eq!(other.read_close(), Some(4001));
}

#[test]
fn g6_a_backend_that_is_wrong_or_hostile_does_nothing_and_is_counted() {
    let huge = format!(r#"{{"reply":["{}"]}}"#, "x".repeat(ANSWER_BYTES_MAX));
    let trap = Backend::start(|_| Reply::status(200));
    let elsewhere = format!(
        "HTTP/1.1 307 Go\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n",
        trap.url("/")
    );
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("bad_answer", raw("garbage")),
        ("bad_answer", raw("[1,2]")),
        (
            "bad_answer",
            raw(r#"{"reply":["no"],"publish":[{"channel":"other","data":1}]}"#),
        ),
        (
            "bad_answer",
            raw(r#"{"reply":["no"],"join":["notifications_all"]}"#),
        ),
        (
            "bad_answer",
            raw(r#"{"reply":["no"],"close":{"code":1006}}"#),
        ),
        ("bad_answer", raw(r#"{"reply":["no"],"allow":true}"#)),
        ("too_large", raw(&huge)),
        ("redirect", elsewhere.into_bytes()),
        (
            "status",
            b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n".to_vec(),
        ),
        (
            "status",
            b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".to_vec(),
        ),
        ("protocol", b"SSH-2.0-OpenSSH_9.9\r\n\r\n".to_vec()),
        (
            "io",
            b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".to_vec(),
        ),
    ];
    for fail in [FailMode::Open, FailMode::Closed] {
        for (outcome, bytes) in &rows {
            let answer = bytes.clone();
            let backend = Backend::start(move |_| match answer.ends_with(b"{") {
                // The rest never comes.
                true => Reply::Raw([&answer[..], b"\r\n"].concat()),
                false => Reply::Raw(answer.clone()),
            });
            let settings = Settings {
                timeout: match *outcome {
                    "io" => Duration::from_millis(300),
                    _ => PATIENCE,
                },
                ..hook_settings()
            };
            let expected = if *outcome == "io" { "timeout" } else { outcome };
            let urls = only(Event::Message, backend.url("/"));
            let stage = Stage::with_reactors(1, settings, fail, urls);
            let mut client = stage.open();
            client.read_text();
            client.send_text("1");
            stage.wait_for(Event::Message, expected, 1);
            match fail {
                FailMode::Open => {
                    client.send_text("echo on it goes");
                    assert_eq!(client.read_text(), "on it goes", "{outcome}");
                }
                FailMode::Closed => assert_eq!(client.read_close(), Some(1013), "{outcome}"),
            }
        }
    }
    assert_eq!(trap.calls().len(), 0);
}

fn raw(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}

/// What this process logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn d9_a_wrong_answer_is_told_by_its_place_and_nothing_in_it_is_logged() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .finish();
    // For the whole process: the thread that logs is the server's.
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let logged = || String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for (answer, place) in [
        (r#"{"allow":"eyJcanary"}"#, "line 1, column 20"),
        (r#"{"eyJcanary":1,"allow":true}"#, "line 1, column 12"),
    ] {
        let backend = Backend::start(move |_| Reply::body(answer));
        let urls = only(Event::Authorise, backend.url("/"));
        let stage = Stage::with_reactors(1, hook_settings(), FailMode::Open, urls);
        assert_eq!(stage.open().read_close(), Some(4503));
        stage.wait_for(Event::Authorise, "bad_answer", 1);
        wait_until("the place is logged", || logged().contains(place));
    }
    assert!(!logged().contains("canary"), "{}", logged());
}

#[test]
fn g6_the_longest_answer_is_taken_and_a_byte_more_is_not() {
    let frame = r#"{"reply":[""]}"#.len();
    for (length, outcome) in [
        (ANSWER_BYTES_MAX - 1, "answered"),
        (ANSWER_BYTES_MAX, "answered"),
        (ANSWER_BYTES_MAX + 1, "too_large"),
    ] {
        let body = format!(r#"{{"reply":["{}"]}}"#, "x".repeat(length - frame));
        let backend = Backend::start(move |_| Reply::body(&body));
        let urls = only(Event::Open, backend.url("/"));
        let stage = Stage::with_reactors(1, hook_settings(), FailMode::Open, urls);
        let mut client = stage.open();
        client.read_text();
        if outcome == "answered" {
            assert_eq!(client.read_text().len(), length - frame + 2);
        }
        stage.wait_for(Event::Open, outcome, 1);
    }
}

#[test]
fn g6_no_metadata_service_and_no_private_host_is_called_unasked() {
    let backend = Backend::start(|_| Reply::status(200));
    let port = backend.address.port();
    for (host, reach, outcome) in [
        (
            "169.254.169.254",
            Reach {
                private: true,
                ..Reach::default()
            },
            "address",
        ),
        (
            "[::ffff:169.254.169.254]",
            Reach {
                private: true,
                ..Reach::default()
            },
            "address",
        ),
        ("127.0.0.1", Reach::default(), "address"),
        (
            "127.0.0.1",
            Reach {
                private: true,
                ..Reach::default()
            },
            "answered",
        ),
    ] {
        let settings = Settings {
            reach,
            ..hook_settings()
        };
        let urls = only(Event::Open, format!("http://{host}:{port}/"));
        let stage = Stage::with_reactors(1, settings, FailMode::Open, urls);
        let mut client = stage.open();
        client.read_text();
        stage.wait_for(Event::Open, outcome, 1);
    }
    assert_eq!(backend.calls().len(), 1);
}

#[test]
fn nobody_enters_before_the_backend_has_let_them_in() {
    let (go, when) = mpsc::channel();
    let when = Mutex::new(Some(when));
    let backend = Backend::start(move |call| match &*call.path {
        "/authorise" => Reply::When(
            when.lock().unwrap().take().unwrap(),
            json!({"allow": true, "reply": ["welcome"]}),
        ),
        _ => Reply::Json(json!({"reply": [call.json()["event"]]})),
    });
    let urls = [
        Some(backend.url("/authorise")),
        Some(backend.url("/open")),
        None,
        Some(backend.url("/close")),
    ];
    let stage = Stage::new(hook_settings(), FailMode::Open, urls);
    let mut client = stage.open();
    let calls = backend.wait_for_calls(1);
    assert_eq!(calls[0].json()["event"], "authorise");
    // The backend's API cannot subscribe it either.
    let whom = Whom {
        user: "".into(),
        client: Some(
            calls[0].json()["connection"]
                .as_str()
                .unwrap()
                .parse()
                .unwrap(),
        ),
    };
    let lobby = Channel::new("room_lobby").unwrap();
    let asked = Command::Subscribe(whom, lobby.clone());
    assert_eq!(stage.server().handle.ask(asked), Ok(Outcome::Done(0)));
    client.send_text("echo a");
    client.send_text("echo b");
    stage
        .server()
        .counters_when("both have come", |counters| counters.messages_received == 2);
    // Published to the channel that it will join: it is not in it yet.
    stage.server().handle.publish(&lobby, "too early").unwrap();
    stage
        .server()
        .counters_when("it is published", |counters| counters.published == 1);
    assert_eq!(stage.server().handle.counters().messages_sent, 0);
    go.send(()).unwrap();
    for expected in ["opened", r#""welcome""#, "a", "b", r#""open""#] {
        assert_eq!(client.read_text(), expected);
    }
    client.close(1000);
    assert_eq!(backend.wait_for_calls(3)[2].json()["event"], "close");
}

#[test]
fn nobody_waits_outside_for_ever() {
    let (go, when) = mpsc::channel();
    let when = Mutex::new(Some(when));
    let backend = Backend::start(move |call| match &*call.path {
        "/authorise" if call.json()["parameters"]["room"] == "lobby" => {
            Reply::Json(json!({"allow": true}))
        }
        "/authorise" => Reply::When(when.lock().unwrap().take().unwrap(), json!({"allow": true})),
        _ => Reply::status(204),
    });
    let urls = only(Event::Authorise, backend.url("/authorise"));
    let settings = Settings {
        authorise_timeout: Duration::from_secs(3),
        ..hook_settings()
    };
    let stage = Stage::with_reactors(1, settings, FailMode::Open, urls);
    let mut admitted = stage.open();
    assert_eq!(admitted.read_text(), "opened");
    let mut held = Client::open(stage.server().address, "/ws/elsewhere");
    backend.wait_for_calls(2);
    assert_eq!(held.read_close(), Some(4503));
    // The answer comes too late for anything, and who was let in before has no time limit any more.
    go.send(()).unwrap();
    stage.wait_for(Event::Authorise, "answered", 2);
    admitted.send_text("echo still here");
    assert_eq!(admitted.read_text(), "still here");
}

#[test]
fn whoever_is_not_let_in_is_told_so_and_nobody_hears_of_it() {
    for (reply, code) in [
        (raw(r#"{"allow":false}"#), 4403),
        (
            raw(r#"{"allow":false,"close":{"code":4000,"reason":"not yours"}}"#),
            4000,
        ),
        (
            b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n".to_vec(),
            4403,
        ),
        (
            b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n".to_vec(),
            4403,
        ),
        // The fail mode does not count here.
        (
            b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".to_vec(),
            4503,
        ),
        (raw("{}"), 4503),
        (raw(r#"{"allow":"yes"}"#), 4503),
        (raw(""), 4503),
    ] {
        let backend = Backend::start(move |call| match &*call.path {
            "/authorise" => Reply::Raw(reply.clone()),
            _ => Reply::status(200),
        });
        let urls = [
            Some(backend.url("/authorise")),
            Some(backend.url("/other")),
            Some(backend.url("/other")),
            Some(backend.url("/other")),
        ];
        let stage = Stage::with_reactors(1, hook_settings(), FailMode::Open, urls);
        let mut client = stage.open();
        client.send_text("echo held, and never answered");
        assert_eq!(client.read_close(), Some(code));
        client.send_frame(0x88, &code.to_be_bytes());
        // Its end is what the server waits for, or else for the close timeout.
        drop(client);
        stage.server().closed_when(&CloseReason::Handler, 1);
        assert_eq!(backend.calls().len(), 1, "{code}");
    }
}

#[test]
fn what_comes_before_admission_is_bounded() {
    for (messages, bytes, is_kept) in [
        (HELD_MESSAGES_MAX, 1, true),
        (HELD_MESSAGES_MAX + 1, 1, false),
        (2, HELD_BYTES_MAX / 2, true),
        (2, HELD_BYTES_MAX / 2 + 1, false),
    ] {
        let (_keep, when) = mpsc::channel::<()>();
        let slot = Mutex::new(Some(when));
        let waits = Backend::start(move |_| {
            Reply::When(slot.lock().unwrap().take().unwrap(), json!({"allow": true}))
        });
        let urls = only(Event::Authorise, waits.url("/"));
        let stage = Stage::with_reactors(1, hook_settings(), FailMode::Open, urls);
        let mut client = stage.open();
        for _ in 0..messages {
            client.send_text(&"x".repeat(bytes));
        }
        if is_kept {
            let count = messages as u64;
            stage.server().counters_when("all have come", |counters| {
                counters.messages_received == count
            });
            assert_eq!(stage.server().handle.counters().closed_total(), 0);
        } else {
            assert_eq!(client.read_close(), Some(1008));
        }
    }
}

#[test]
fn a_call_is_repeated_with_one_id_where_that_is_safe() {
    for (event, status, attempts) in [
        (Event::Open, 500, 3),
        (Event::Open, 503, 3),
        (Event::Message, 503, 3),
        (Event::Message, 429, 3),
        (Event::Message, 500, 1),
        (Event::Open, 400, 1),
    ] {
        let backend = Backend::start(move |_| Reply::status(status));
        let settings = Settings {
            retries: 2,
            ..hook_settings()
        };
        let urls = only(event, backend.url("/"));
        let stage = Stage::with_reactors(1, settings, FailMode::Open, urls);
        let mut client = stage.open();
        client.read_text();
        client.send_text("1");
        stage.wait_for(event, "status", 1);
        let calls = backend.calls();
        assert_eq!(calls.len(), attempts, "{event:?} {status}");
        let ids: Vec<_> = calls
            .iter()
            .map(|call| &call.headers["webhook-id"])
            .collect();
        assert!(ids.iter().all(|id| **id == *ids[0]), "{ids:?}");
        assert!(calls.iter().all(|call| call.body == calls[0].body));
        assert_eq!(stage.watch.figures().retries, attempts as u64 - 1);
    }
}

#[test]
fn a_backend_that_comes_back_gets_the_call_that_waited() {
    // A port that nobody listens on, until somebody does.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let settings = Settings {
        retries: 10,
        retry_wait: Duration::from_millis(20),
        ..hook_settings()
    };
    let urls = only(Event::Message, format!("http://{address}/"));
    let stage = Stage::with_reactors(1, settings, FailMode::Closed, urls);
    let mut client = stage.open();
    client.read_text();
    client.send_text("1");
    wait_until("a second attempt", || stage.watch.figures().retries >= 1);
    let listener = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let script: Script = Box::new(|_| Reply::Json(json!({"reply": ["back"]})));
        serve(stream, &Mutex::default(), &script);
    });
    assert_eq!(client.read_text(), r#""back""#);
    stage.wait_for(Event::Message, "answered", 1);
}

#[test]
fn a_backend_that_is_away_is_left_alone_until_a_trial_succeeds() {
    let is_well = Arc::new(Mutex::new(false));
    let state = Arc::clone(&is_well);
    let backend = Backend::start(move |_| match *state.lock().unwrap() {
        true => Reply::Json(json!({"reply": ["well"]})),
        false => Reply::status(500),
    });
    let wait = Duration::from_millis(300);
    let settings = Settings {
        breaker: tidegate::hooks::breaker::Limits { failures: 3, wait },
        ..hook_settings()
    };
    let urls = only(Event::Message, backend.url("/"));
    let stage = Stage::with_reactors(1, settings, FailMode::Open, urls);
    let mut client = stage.open();
    client.read_text();
    for number in 1..=3 {
        client.send_text("1");
        stage.wait_for(Event::Message, "status", number);
    }
    wait_until("the breaker is open", || {
        stage.watch.figures().breakers_open == 1
    });
    let opened = Instant::now();
    client.send_text("1");
    client.send_text("1");
    stage.wait_for(Event::Message, "unavailable", 2);
    assert_eq!(backend.calls().len(), 3, "not asked");
    *is_well.lock().unwrap() = true;
    let mut unavailable = 2;
    // Each message tries; the first after the time is the trial.
    loop {
        client.send_text("1");
        wait_until("an end", || {
            stage.count(Event::Message, "unavailable") > unavailable
                || stage.count(Event::Message, "answered") > 0
        });
        if stage.count(Event::Message, "answered") > 0 {
            break;
        }
        unavailable = stage.count(Event::Message, "unavailable");
        assert!(opened.elapsed() < PATIENCE);
    }
    assert!(
        opened.elapsed() + Duration::from_millis(50) >= wait,
        "{:?}",
        opened.elapsed()
    );
    assert_eq!(client.read_text(), r#""well""#);
    wait_until("the breaker is closed", || {
        stage.watch.figures().breakers_open == 0
    });
    assert_eq!(stage.watch.figures().breakers_opened, 1);
}

#[test]
fn what_waits_is_bounded_and_a_reactor_never_waits() {
    for (calls, full) in [(2, 0), (3, 0), (4, 1)] {
        let (go, when) = mpsc::channel();
        let slot = Mutex::new(Some(when));
        let backend = Backend::start(move |_| match slot.lock().unwrap().take() {
            Some(when) => Reply::When(when, json!({"reply": ["done"]})),
            None => Reply::Json(json!({"reply": ["done"]})),
        });
        let settings = Settings {
            threads: 1,
            queue_max: 3,
            ..hook_settings()
        };
        let urls = only(Event::Message, backend.url("/"));
        let stage = Stage::with_reactors(1, settings, FailMode::Closed, urls);
        let mut clients: Vec<_> = (0..calls).map(|_| stage.open()).collect();
        for (client, number) in clients.iter_mut().zip(1..) {
            client.read_text();
            client.send_text("1");
            stage.server().counters_when("it has come", |counters| {
                counters.messages_received == number
            });
        }
        assert_eq!(stage.count(Event::Message, "full"), full, "{calls}");
        if full > 0 {
            assert_eq!(clients.pop().unwrap().read_close(), Some(1013));
        }
        // The backend has not answered anybody, and whoever comes is served.
        assert_eq!(stage.open().read_text(), "opened");
        go.send(()).unwrap();
        for client in &mut clients {
            assert_eq!(client.read_text(), r#""done""#);
        }
        stage.wait_for(Event::Message, "answered", calls - full);
    }
}

#[test]
fn a_connection_has_so_many_events_wait_and_no_more() {
    for (messages, full) in [(2, 0), (3, 0), (4, 1)] {
        let (go, when) = mpsc::channel();
        let slot = Mutex::new(Some(when));
        let backend = Backend::start(move |_| match slot.lock().unwrap().take() {
            Some(when) => Reply::When(when, json!({})),
            None => Reply::Json(json!({})),
        });
        let settings = Settings {
            connection_queue_max: 2,
            ..hook_settings()
        };
        let urls = only(Event::Message, backend.url("/"));
        let stage = Stage::with_reactors(1, settings, FailMode::Open, urls);
        let mut client = stage.open();
        client.read_text();
        for _ in 0..messages {
            client.send_text("1");
        }
        stage.server().counters_when("all have come", |counters| {
            counters.messages_received == messages
        });
        stage.wait_for(Event::Message, "full", full);
        go.send(()).unwrap();
        stage.wait_for(Event::Message, "answered", messages - full);
    }
}

#[test]
fn what_a_backend_publishes_is_not_lost_with_the_connection() {
    let (go, when) = mpsc::channel();
    let slot = Mutex::new(Some(when));
    let published = json!({"publish": [{"channel": "room_lobby", "data": "update"}]});
    let backend = Backend::start(move |call| match call.json()["event"].as_str() {
        Some("message") => Reply::When(slot.lock().unwrap().take().unwrap(), published.clone()),
        Some("close") => Reply::Json(json!({
            "publish": [{"channel": "room_lobby", "data": call.json()["reason"]}],
            "reply": ["to nobody"], "join": ["room_b"],
        })),
        _ => Reply::HangUp,
    });
    let urls = [
        None,
        None,
        Some(backend.url("/message")),
        Some(backend.url("/close")),
    ];
    let stage = Stage::new(hook_settings(), FailMode::Open, urls);
    let (mut leaver, mut other) = (stage.open(), stage.open());
    leaver.read_text();
    other.read_text();
    leaver.send_text("1");
    backend.wait_for_calls(1);
    leaver.reset();
    stage
        .server()
        .counters_when("it is gone", |counters| counters.closed_total() == 1);
    go.send(()).unwrap();
    assert_eq!(other.read_text(), r#""update""#);
    let reason = other.read_text();
    assert!(
        reason == r#""io""# || reason == r#""peer_gone""#,
        "{reason}"
    );
}

#[test]
fn a_shutdown_tells_of_the_ends_before_the_threads_end() {
    let backend = Backend::start(|_| Reply::status(204));
    let urls = only(Event::Close, backend.url("/"));
    let mut stage = Stage::new(hook_settings(), FailMode::Open, urls);
    let mut clients: Vec<_> = (0..10).map(|_| stage.open()).collect();
    clients.iter_mut().for_each(|client| _ = client.read_text());
    let server = stage.server.take().unwrap();
    let stopped = std::thread::spawn(move || _ = server.stop());
    for client in &mut clients {
        assert_eq!(client.read_close(), Some(1001));
    }
    drop(clients);
    stopped.join().unwrap();
    let began = Instant::now();
    stage.hooks.take().unwrap().finish(2 * PATIENCE);
    assert!(began.elapsed() < PATIENCE, "it waited for nothing");
    let calls = backend.calls();
    assert_eq!(calls.len(), 10);
    assert!(calls.iter().all(|call| call.json()["reason"] == "shutdown"));
}

#[test]
fn a_url_that_cannot_be_called_is_refused_at_start_without_its_query() {
    let mut hooks = Hooks::new(Settings::default());
    let mut fault = |url: &str| {
        let settings = RouteSettings {
            path: "/".to_owned(),
            urls: only(Event::Open, url.to_owned()),
            fail: FailMode::Open,
            owns: Arc::new(|_| false),
        };
        hooks.route(settings).unwrap_err().to_string()
    };
    let text = fault("http://backend.example/hook?key=canary");
    assert!(
        text.starts_with("http://backend.example/hook: is not https"),
        "{text}"
    );
    assert!(!text.contains("canary"));
    let text = fault("https://user:canary@backend.example/");
    assert!(
        text.contains("user or password") && !text.contains("canary"),
        "{text}"
    );
}
