//! Alerts posted to a receiver that is there, down, slow, hostile: what it gets, and what is said of the rest.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods
)]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tidegate::metrics::alert::{Comparison, Rule, Severity, Signal};
use tidegate::monitor;
use tidegate::outbound::{Client, Options, Reach};
use tidegate::signature::Signer;
use tidegate::webhook::{Figures, REFUSALS_MAX, Settings, Webhook};

use support::watched::Watched;
use support::{Client as Visitor, PATIENCE, demo_routes, settings, wait_until};

const SECRET: &str = "a-secret-for-the-webhook-of-40-characters";

/// A request that arrived.
#[derive(Debug)]
struct Post {
    head: String,
    body: Vec<u8>,
}

impl Post {
    fn header(&self, name: &str) -> &str {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut found = lines.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        found
            .next()
            .unwrap_or_else(|| panic!("no {name}: {self:?}"))
            .1
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// Reads one request.
fn read(stream: &TcpStream) -> Option<Post> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let mut body = vec![0; length?.1.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some(Post { head, body })
}

/// A receiver that answers each request by its number, and tells of it.
struct Receiving {
    address: SocketAddr,
    posts: Receiver<Post>,
}

impl Receiving {
    fn start(answer: impl Fn(usize) -> Vec<u8> + Send + 'static) -> Self {
        Self::at(TcpListener::bind("127.0.0.1:0").unwrap(), answer)
    }

    fn at(listener: TcpListener, answer: impl Fn(usize) -> Vec<u8> + Send + 'static) -> Self {
        let address = listener.local_addr().unwrap();
        let (sender, posts): (Sender<Post>, _) = channel();
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let Some(post) = read(&stream) else { continue };
                // A client that has heard enough may be gone.
                let _ = stream.write_all(&answer(number));
                if sender.send(post).is_err() {
                    return;
                }
            }
        });
        Self { address, posts }
    }

    fn next(&self) -> Post {
        self.posts.recv_timeout(PATIENCE).unwrap()
    }
}

fn status(line: &str) -> Vec<u8> {
    format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into_bytes()
}

fn hook_settings(address: SocketAddr) -> Settings {
    let options = Options {
        allow_http: true,
        reach: Reach {
            private: true,
            ..Reach::default()
        },
        timeout: Duration::from_secs(5),
        ..Options::default()
    };
    Settings {
        client: Client::new(&format!("http://{address}/alerts?key=canary"), options).unwrap(),
        signer: Some(Signer::new(SECRET)),
        queue_max: 16,
        retry_min: Duration::from_millis(5),
        retry_max: Duration::from_millis(40),
        give_up_after: Duration::from_secs(60),
    }
}

fn start(address: SocketAddr) -> Webhook {
    Webhook::start(hook_settings(address)).unwrap()
}

fn figures_when(webhook: &Webhook, what: &str, condition: impl Fn(&Figures) -> bool) -> Figures {
    wait_until(what, || condition(&webhook.figures()));
    webhook.figures()
}

#[test]
fn a_post_is_signed_and_any_success_takes_it() {
    let receiver = Receiving::start(|number| status(["200 OK", "204 No Content"][number % 2]));
    let webhook = start(receiver.address);
    webhook.post(b"{\"a\":1}".to_vec());
    webhook.post(b"{\"b\":2}".to_vec());
    let (one, two) = (receiver.next(), receiver.next());
    assert!(
        one.head.starts_with("POST /alerts?key=canary HTTP/1.1\r\n"),
        "{one:?}"
    );
    assert_eq!(one.header("content-type"), "application/json");
    assert_eq!((one.text(), two.text()), ("{\"a\":1}", "{\"b\":2}"));
    assert_ne!(one.header("webhook-id"), two.header("webhook-id"));
    let signed = format!(
        "{}.{}.{}",
        one.header("webhook-id"),
        one.header("webhook-timestamp"),
        one.text()
    );
    let signature = one.header("webhook-signature").strip_prefix("v1,").unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    hmac::verify(
        &key,
        signed.as_bytes(),
        &STANDARD.decode(signature).unwrap(),
    )
    .unwrap();
    let figures = figures_when(&webhook, "both are taken", |figures| figures.delivered == 2);
    assert_eq!(
        (figures.pending, figures.dropped, figures.failures),
        (0, 0, 0)
    );
}

#[test]
fn x37_what_waits_while_the_receiver_is_down_arrives_when_it_is_back() {
    // A port that nobody listens on, for now.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let webhook = start(address);
    for number in 0..5 {
        webhook.post(number.to_string().into_bytes());
    }
    let figures = figures_when(&webhook, "it has been tried", |figures| {
        figures.failures >= 3
    });
    assert_eq!(
        (figures.pending, figures.delivered, figures.dropped),
        (5, 0, 0)
    );
    assert!(figures.failures_in_a_row >= 3);
    let listener = TcpListener::bind(address).unwrap();
    let receiver = Receiving::at(listener, |_| status("200 OK"));
    let arrived: Vec<String> = (0..5).map(|_| receiver.next().text().to_owned()).collect();
    assert_eq!(arrived, ["0", "1", "2", "3", "4"]);
    let figures = figures_when(&webhook, "all are taken", |figures| figures.delivered == 5);
    assert_eq!(
        (figures.pending, figures.dropped, figures.failures_in_a_row),
        (0, 0, 0)
    );
}

#[test]
fn a_repetition_has_the_id_of_the_first_attempt_and_a_signature_of_its_own() {
    let receiver =
        Receiving::start(|number| status(if number < 2 { "503 Busy" } else { "200 OK" }));
    let webhook = start(receiver.address);
    webhook.post(b"{}".to_vec());
    let posts = [receiver.next(), receiver.next(), receiver.next()];
    assert!(
        posts
            .iter()
            .all(|post| post.header("webhook-id") == posts[0].header("webhook-id"))
    );
    let figures = figures_when(&webhook, "it is taken", |figures| figures.delivered == 1);
    assert_eq!((figures.failures, figures.dropped), (2, 0));
}

#[test]
fn a_full_queue_drops_the_oldest_and_says_so() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    // One is in hand, so many wait: one less, exactly, and one more.
    for (posts, dropped) in [(4, 0), (5, 0), (6, 1)] {
        let webhook = Webhook::start(Settings {
            queue_max: 4,
            ..hook_settings(address)
        })
        .unwrap();
        webhook.post(b"0".to_vec());
        // The receiver holds the first one's connection: it is in hand, and no longer in the queue.
        let (stream, _) = held.accept().unwrap();
        for number in 1..posts {
            webhook.post(number.to_string().into_bytes());
        }
        let figures = webhook.figures();
        assert_eq!(
            (figures.dropped, figures.pending),
            (dropped, posts - dropped),
            "{posts}"
        );
        drop(stream);
        let seen: Vec<String> = (0..posts - dropped)
            .map(|_| {
                let (mut stream, _) = held.accept().unwrap();
                let post = read(&stream).unwrap();
                stream.write_all(&status("200 OK")).unwrap();
                post.text().to_owned()
            })
            .collect();
        let newest = (posts - 4).max(1)..posts;
        let expected: Vec<String> = std::iter::once(0)
            .chain(newest)
            .map(|n| n.to_string())
            .collect();
        assert_eq!(seen, expected);
    }
}

#[test]
fn g6_a_redirection_is_not_followed() {
    let trap = TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = format!(
        "HTTP/1.1 307 Elsewhere\r\nLocation: http://{}/\r\nContent-Length: 0\r\n\r\n",
        trap.local_addr().unwrap()
    );
    let receiver = Receiving::start(move |_| elsewhere.clone().into_bytes());
    let webhook = start(receiver.address);
    webhook.post(b"{}".to_vec());
    let figures = figures_when(&webhook, "it was tried", |figures| figures.failures >= 2);
    assert_eq!((figures.delivered, figures.pending), (0, 1));
    trap.set_nonblocking(true).unwrap();
    assert!(trap.accept().is_err(), "somebody followed");
}

#[test]
fn g6_answers_that_are_endless_or_nonsense_are_failures_and_no_more() {
    let endless = [status("200 OK").as_slice(), &vec![b'x'; 4 << 20]].concat();
    let lying = b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\nshort".to_vec();
    let large = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n".as_slice(),
        &vec![b'x'; 1 << 20],
    ]
    .concat();
    let answers = [
        b"".to_vec(),
        b"SSH-2.0-OpenSSH\r\n".to_vec(),
        format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(64 * 1024)).into_bytes(),
        lying,
        large,
    ];
    let count = answers.len();
    let receiver = Receiving::start(move |number| {
        answers
            .get(number)
            .cloned()
            .unwrap_or_else(|| endless.clone())
    });
    let webhook = start(receiver.address);
    webhook.post(b"{}".to_vec());
    // The last one is good: what comes behind an answer of length 0 is nobody's.
    let figures = figures_when(&webhook, "it is taken", |figures| figures.delivered == 1);
    assert_eq!((figures.failures as usize, figures.dropped), (count, 0));
}

#[test]
fn g6_a_receiver_that_never_answers_holds_up_nobody_else() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut settings = hook_settings(listener.local_addr().unwrap());
    let options = Options {
        allow_http: true,
        reach: Reach {
            private: true,
            ..Reach::default()
        },
        timeout: Duration::from_millis(200),
        ..Options::default()
    };
    let url = format!("http://{}/", listener.local_addr().unwrap());
    settings.client = Client::new(&url, options).unwrap();
    let webhook = Webhook::start(settings).unwrap();
    let began = Instant::now();
    for _ in 0..1_000 {
        webhook.post(b"{}".to_vec());
    }
    let took = began.elapsed();
    let figures = figures_when(&webhook, "two attempts timed out", |figures| {
        figures.failures >= 2
    });
    assert_eq!(figures.delivered, 0);
    assert_eq!(figures.pending + figures.dropped, 1_000);
    // Handing over a thousand took less than it takes to give one up.
    assert!(took < Duration::from_millis(200), "{took:?}");
}

#[test]
fn g6_a_private_address_is_not_called_unless_it_is_allowed() {
    let trap = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = trap.local_addr().unwrap();
    let options = Options {
        allow_http: true,
        ..Options::default()
    };
    let webhook = Webhook::start(Settings {
        client: Client::new(&format!("http://{address}/"), options).unwrap(),
        ..hook_settings(address)
    })
    .unwrap();
    webhook.post(b"{}".to_vec());
    figures_when(&webhook, "it was tried", |figures| figures.failures >= 2);
    trap.set_nonblocking(true).unwrap();
    assert!(trap.accept().is_err(), "somebody connected");
}

#[test]
fn a_post_that_is_called_faulty_is_given_up_and_the_next_goes_out() {
    let refusals = REFUSALS_MAX as usize;
    let receiver = Receiving::start(move |number| {
        // Too many requests is no fault of the post.
        status(match number {
            0 => "429 Too Many",
            n if n <= refusals => "400 Bad",
            _ => "200 OK",
        })
    });
    let webhook = start(receiver.address);
    webhook.post(b"faulty".to_vec());
    webhook.post(b"good".to_vec());
    let figures = figures_when(&webhook, "the second is taken", |figures| {
        figures.delivered == 1
    });
    assert_eq!(
        (figures.dropped, figures.failures),
        (1, 1 + u64::from(REFUSALS_MAX))
    );
    let texts: Vec<String> = (0..refusals + 2)
        .map(|_| receiver.next().text().to_owned())
        .collect();
    assert_eq!(
        texts.iter().filter(|text| *text == "faulty").count(),
        1 + refusals
    );
    assert_eq!(texts.last().unwrap(), "good");
}

#[test]
fn what_has_been_tried_for_long_enough_is_given_up() {
    let receiver = Receiving::start(|_| status("500 Broken"));
    let webhook = Webhook::start(Settings {
        give_up_after: Duration::from_millis(100),
        ..hook_settings(receiver.address)
    })
    .unwrap();
    webhook.post(b"{}".to_vec());
    let figures = figures_when(&webhook, "it is given up", |figures| figures.dropped == 1);
    assert_eq!((figures.pending, figures.delivered), (0, 0));
    assert!(figures.failures >= 2);
}

#[test]
fn the_end_of_the_server_gives_what_waits_one_more_try() {
    let receiver =
        Receiving::start(|number| status(if number < 1 { "500 Broken" } else { "200 OK" }));
    let webhook = Webhook::start(Settings {
        retry_min: Duration::from_secs(3_600),
        retry_max: Duration::from_secs(3_600),
        ..hook_settings(receiver.address)
    })
    .unwrap();
    for number in 0..3 {
        webhook.post(number.to_string().into_bytes());
    }
    figures_when(&webhook, "the first has failed", |figures| {
        figures.failures == 1
    });
    drop(webhook);
    let texts: Vec<String> = (0..4).map(|_| receiver.next().text().to_owned()).collect();
    assert_eq!(texts, ["0", "0", "1", "2"]);
}

#[test]
fn the_end_of_the_server_does_not_wait_for_each_when_the_receiver_is_down() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let webhook = Webhook::start(Settings {
        retry_min: Duration::from_secs(3_600),
        retry_max: Duration::from_secs(3_600),
        ..hook_settings(address)
    })
    .unwrap();
    for number in 0..10 {
        webhook.post(number.to_string().into_bytes());
    }
    // Every attempt is heard of, and hung up on.
    listener.accept().unwrap();
    figures_when(&webhook, "the first has failed", |figures| {
        figures.failures == 1
    });
    let ending = std::thread::spawn(move || drop(webhook));
    listener.accept().unwrap();
    ending.join().unwrap();
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "there was one more attempt");
}

#[test]
fn an_alert_that_fires_and_is_over_reaches_the_receiver_and_the_endpoint() {
    let receiver = Receiving::start(|_| status("200 OK"));
    let rule = Rule {
        name: "somebody".into(),
        signal: Signal::parse("tidegate_connections_open").unwrap(),
        comparison: Comparison::Above,
        value: 0.0,
        clear: 0.0,
        for_ms: 0,
        severity: Severity::Critical,
        about: "Somebody is here.".into(),
    };
    let monitor = monitor::Settings {
        alerts: vec![rule],
        webhook: Some(Arc::new(start(receiver.address))),
        ..monitor::Settings::default()
    };
    let watched = Watched::start_with(monitor, settings(), demo_routes());
    let visitor = Visitor::open(watched.address, "/echo");
    let firing: Value = serde_json::from_slice(&receiver.next().body).unwrap();
    assert_eq!(firing["type"], "alert.firing");
    let data = &firing["data"];
    for (name, expected) in [
        ("name", "somebody"),
        ("state", "firing"),
        ("severity", "critical"),
        ("value", "tidegate_connections_open"),
        ("comparison", "above"),
        ("about", "Somebody is here."),
        ("version", env!("CARGO_PKG_VERSION")),
    ] {
        assert_eq!(data[name], expected, "{name}");
    }
    assert_eq!(
        (&data["figure"], &data["threshold"]),
        (&Value::from(1.0), &Value::from(0.0))
    );
    assert!(data["since"].as_str().unwrap().ends_with('Z'));
    let alerts = watched.get_json("/api/monitoring/websocket/alerts/");
    assert_eq!(alerts["firing"]["critical"], 1);
    assert_eq!(alerts["alerts"][0]["state"], "firing");
    let samples = watched.samples_when("it is among the metrics", |samples| {
        samples.get("tidegate_alerts_firing{severity=\"critical\"}") == Some(&1.0)
            && samples.get("tidegate_alert_notifications_delivered_total") == Some(&1.0)
    });
    assert_eq!(samples["tidegate_alert_notifications_pending"], 0.0);
    visitor.close(1000);
    let resolved: Value = serde_json::from_slice(&receiver.next().body).unwrap();
    assert_eq!(
        (&resolved["type"], &resolved["data"]["state"]),
        (&"alert.resolved".into(), &"resolved".into())
    );
}
