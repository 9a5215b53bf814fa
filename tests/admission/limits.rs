//! Limits at one less, at the limit and at one more, what whoever is refused is told, and that every
//! place is given back, however a connection ends.

use std::collections::BTreeSet;
use std::time::Duration;

use tidegate::admission::limits::{Limit, Refused};
use tidegate::admission::rate::Moment;
use tidegate::admission::revocation::Revocations;
use tidegate::admission::{Candidate, Judge, Refusal, Stage, admit};
use tidegate::http::head::{HeadReader, Progress};
use tidegate::{CloseReason, Revocation, Route};

use crate::support::{Client, Running, frame, request, wait_until};
use crate::{
    BASE, answer, ask, claims_of, client_from, enter, refused, settings, start, token, told,
};
use crate::{token_of, wall};

/// A route without tokens, for limits that ask for none.
const OPEN: &str = r#"
demo_routes = false
reactors = 2
listen = [{ address = "127.0.0.1:0" }]

[[route]]
path = "/ws/"
kind = "echo"
"#;

const HOME: [u8; 4] = [127, 0, 0, 2];
const OTHER: [u8; 4] = [127, 0, 0, 3];

/// Comes from this address: the status, the head of the answer, and the client.
fn knock(running: &Running, source: [u8; 4]) -> (u16, String, Client) {
    let mut client = client_from(source, running.address);
    // Whoever is refused at the accept has no time to say anything.
    client.try_send(request("/ws/").as_bytes());
    let head = client.read_head();
    (
        head.split(' ').nth(1).unwrap().parse().unwrap(),
        head,
        client,
    )
}

fn at(stage: Stage, limit: Limit) -> Refusal {
    let retry_after = None;
    Refusal::Limit(stage, Refused { limit, retry_after })
}

/// The seconds of `Retry-After`.
fn retry_after(head: &str) -> u64 {
    let (_, value) = head.split_once("\r\nRetry-After: ").unwrap();
    value.split("\r\n").next().unwrap().parse().unwrap()
}

#[test]
fn f4_connections_of_an_address_hold_at_minus_one_zero_and_plus_one() {
    let running = start(&format!("{OPEN}\n[limits]\naddress_connections_max = 3"));
    let mut open = Vec::new();
    for nth in 1..=3 {
        let (status, head, client) = knock(&running, HOME);
        assert_eq!(status, 101, "{nth}: {head}");
        open.push(client);
    }
    let (status, head, mut client) = knock(&running, HOME);
    assert_eq!(status, 429, "{head}");
    assert_eq!(retry_after(&head), 5, "{head}");
    let body = String::from_utf8(client.read_to_end()).unwrap();
    assert!(
        body.contains(r#""stage":"accept","reason":"address_connections""#),
        "{body}"
    );
    assert_eq!(knock(&running, OTHER).0, 101, "another address has its own");
    // A refused one took nothing, and a place that was given back is a place.
    assert_eq!(open.pop().unwrap().close(1000), Some(1000));
    wait_until("the place is free", || {
        running
            .handle
            .gate()
            .limits
            .census(Moment::default())
            .address_places
            < 3
    });
    let (status, _, client) = knock(&running, HOME);
    assert_eq!(status, 101);
    open.push(client);
    assert_eq!(knock(&running, HOME).0, 429);
    drop(open);
    let counters = running.stop();
    assert_eq!(
        counters
            .refused
            .of(&at(Stage::Accept, Limit::AddressConnections)),
        2
    );
    assert_eq!(counters.tally.refused(Limit::AddressConnections), 2);
    assert_eq!((counters.accept_refused, counters.accepted), (2, 5));
}

#[test]
fn f4_attempts_of_an_address_hold_at_minus_one_zero_and_plus_one() {
    let running = start(&format!(
        "{OPEN}\n[limits]\naddress_attempts = \"3/h burst 4\""
    ));
    for nth in 1..=4 {
        let (status, head, client) = knock(&running, HOME);
        assert_eq!(status, 101, "{nth}: {head}");
        assert_eq!(client.close(1000), Some(1000));
    }
    for _ in 0..3 {
        let (status, head, mut client) = knock(&running, HOME);
        assert_eq!(status, 429, "{head}");
        // Refusals spend nothing, so nobody who keeps trying is kept out for longer.
        assert!((1_100..=1_200).contains(&retry_after(&head)), "{head}");
        let body = String::from_utf8(client.read_to_end()).unwrap();
        assert!(body.contains(r#""reason":"address_attempts""#), "{body}");
    }
    assert_eq!(knock(&running, OTHER).0, 101, "another address has its own");
    let counters = running.stop();
    assert_eq!(
        counters
            .refused
            .of(&at(Stage::Accept, Limit::AddressAttempts)),
        3
    );
}

#[test]
fn the_limits_of_the_original_are_one_line() {
    let running = start(&format!("{OPEN}\n[limits]\npreset = \"original\""));
    let mut open: Vec<Client> = (0..5)
        .map(|_| knock(&running, HOME))
        .map(|(status, head, client)| {
            assert_eq!(status, 101, "{head}");
            client
        })
        .collect();
    assert_eq!(knock(&running, HOME).0, 429, "a sixth at a time");
    // 60 messages a minute, which the original declared and never enforced.
    let mut client = open.pop().unwrap();
    client.send(&frame(0x81, b"x").repeat(61));
    for _ in 0..60 {
        assert_eq!(client.read_text(), "x");
    }
    assert_eq!(code_of(&mut client), 1008);
    drop((client, open));
    running.counters_when("all have gone", |counters| counters.active() == 0);
    // Of the ten attempts an hour six are spent: a refusal for being connected costs one as well.
    let statuses: Vec<u16> = (0..5)
        .map(|_| {
            let (status, _, client) = knock(&running, HOME);
            drop(client);
            running.counters_when("it has gone", |counters| counters.active() == 0);
            status
        })
        .collect();
    assert_eq!(statuses, [101, 101, 101, 101, 429]);
}

#[test]
fn f4_connections_of_a_user_hold_at_minus_one_zero_and_plus_one() {
    let running = start(&format!(
        "{BASE}
        limits.user_connections_max = 2
        [[route]]
        path = \"/ws/\"
        kind = \"echo\"
        [[route]]
        path = \"/told/\"
        kind = \"echo\"
        reject = \"close-code\"
        "
    ));
    let (alice, bob) = (token_of("alice"), token_of("bob"));
    let of = |path: &str, token: &str| ask(&format!("{path}?token={token}"), &[]);
    let first = enter(&running, &of("/ws/", &alice));
    // On whatever route.
    let mut second = enter(&running, &of("/told/", &alice));
    let (status, reason, head) = refused(&running, &of("/ws/", &alice));
    assert_eq!((status, reason.as_str()), (429, "user_connections"));
    assert_eq!(retry_after(&head), 5, "{head}");
    // By close code each is told another time, so that they do not come back together.
    let mut waits = BTreeSet::new();
    for _ in 0..16 {
        let (code, reason) = told(&running, &of("/told/", &alice));
        assert_eq!(code, 4429, "{reason}");
        let wait = reason
            .strip_prefix("user_connections; retry after ")
            .unwrap();
        waits.insert(wait.strip_suffix(" s").unwrap().parse::<u64>().unwrap());
    }
    assert!(
        waits.iter().all(|wait| (5..=10).contains(wait)),
        "{waits:?}"
    );
    assert!(waits.len() > 1, "{waits:?}");
    enter(&running, &of("/ws/", &bob)).echo("another user");
    second.echo("still here");
    assert_eq!(running.handle.gate().users.held(b"alice"), 2);
    // One goes, one may come.
    assert_eq!(first.close(1000), Some(1000));
    wait_until("the place is free", || {
        running.handle.gate().users.held(b"alice") == 1
    });
    let third = enter(&running, &of("/ws/", &alice));
    assert_eq!(refused(&running, &of("/ws/", &alice)).0, 429);
    drop((second, third));
    let counters = running.stop();
    assert_eq!(
        counters
            .refused
            .of(&at(Stage::User, Limit::UserConnections)),
        18
    );
}

#[test]
fn the_oldest_connection_of_a_user_gives_way_where_that_is_configured() {
    let running = start(&format!(
        "{BASE}
        [[route]]
        path = \"/ws/\"
        kind = \"echo\"
        user_connections_max = 2
        user_at_limit = \"close-oldest\"
        "
    ));
    let of = |user: &str| ask(&format!("/ws/?token={}", token_of(user)), &[]);
    let mut bystander = enter(&running, &of("bob"));
    let mut open: std::collections::VecDeque<Client> =
        (0..2).map(|_| enter(&running, &of("alice"))).collect();
    for _ in 0..4 {
        open.push_back(enter(&running, &of("alice")));
        let mut oldest = open.pop_front().unwrap();
        let farewell = oldest.read_frame().unwrap();
        assert_eq!(farewell.close_code(), Some(4409), "{farewell:?}");
        assert_eq!(&farewell.payload[2..], b"replaced by a newer connection");
        assert_eq!(
            running.handle.gate().users.held(b"alice"),
            2,
            "at every moment"
        );
        oldest.send_frame(0x88, &4409_u16.to_be_bytes());
        assert_eq!(oldest.read_frame(), None);
        for client in &mut open {
            client.echo("still here");
        }
    }
    bystander.echo("still here");
    let counters = running.closed_when(&CloseReason::Displaced, 4);
    assert_eq!(counters.refused.total(), 0);
}

/// What comes back of these messages, sent in one piece so that no time passes between them, and the close
/// code, if the connection ends.
fn pour(running: &Running, path: &str, messages: &[&[u8]]) -> (usize, Option<u16>, Client) {
    let mut client = Client::open(running.address, path);
    let mut bytes: Vec<u8> = messages.iter().flat_map(|text| frame(0x81, text)).collect();
    // A ping behind them: its answer says that all of them have been dealt with.
    bytes.extend(frame(0x89, b"done"));
    client.send(&bytes);
    let mut echoed = 0;
    loop {
        let frame = client.read_frame().unwrap();
        match frame.opcode() {
            8 => {
                client.send_frame(0x88, &frame.payload);
                return (echoed, frame.close_code(), client);
            }
            10 => return (echoed, None, client),
            _ => echoed += 1,
        }
    }
}

#[test]
fn f6_messages_hold_at_minus_one_zero_and_plus_one() {
    for (key, limit) in [
        ("messages_per_second = \"1 burst 5\"", Limit::Messages),
        ("messages_per_minute = \"1 burst 5\"", Limit::Messages),
    ] {
        let config = format!("{OPEN}{key}\n");
        let (closing, dropping) = (
            start(&config),
            start(&format!("{config}traffic_at_limit = \"drop\"\n")),
        );
        for count in [4, 5] {
            let (echoed, code, mut client) = pour(&closing, "/ws/", &vec![&b"x"[..]; count]);
            assert_eq!((echoed, code), (count, None), "{key}");
            client.send_frame(0x89, b"");
            assert_eq!(
                client.read_frame().unwrap().opcode(),
                10,
                "control frames are free"
            );
        }
        let (echoed, code, mut client) = pour(&closing, "/ws/", &[&b"x"[..]; 7]);
        assert_eq!((echoed, code), (5, Some(1008)), "{key}");
        assert_eq!(client.read_frame(), None);
        let counters = closing.closed_when(&CloseReason::TooMuchTraffic, 1);
        assert_eq!(counters.tally.refused(limit), 1, "{key}");

        let (echoed, code, _) = pour(&dropping, "/ws/", &[&b"x"[..]; 7]);
        assert_eq!((echoed, code), (5, None), "{key}");
        let counters = dropping.stop();
        assert_eq!(counters.tally.refused(limit), 2, "{key}");
        assert_eq!(
            (counters.messages_received, counters.messages_sent),
            (7, 5),
            "{key}"
        );
    }
}

#[test]
fn a10_pings_and_pongs_hold_at_minus_one_zero_and_plus_one() {
    // Messages may be dropped; a ping must not be.
    let running = start(&format!(
        "{OPEN}control_frames_per_second = \"1 burst 5\"\ntraffic_at_limit = \"drop\"\n"
    ));
    for opcode in [0x89, 0x8a] {
        for count in [4, 5] {
            let mut client = Client::open(running.address, "/ws/");
            client.send(&frame(opcode, b"x").repeat(count));
            client.send_text("still here");
            let answers = if opcode == 0x89 { count } else { 0 };
            for _ in 0..answers {
                assert_eq!(client.read_frame().unwrap().opcode(), 10);
            }
            assert_eq!(client.read_text(), "still here", "{count} of {opcode:#x}");
        }
        let refused = running
            .handle
            .counters()
            .tally
            .refused(Limit::ControlFrames);
        let mut client = Client::open(running.address, "/ws/");
        client.send(&frame(opcode, b"x").repeat(6));
        let farewell = loop {
            let frame = client.read_frame().unwrap();
            if frame.opcode() == 8 {
                break frame;
            }
        };
        assert_eq!(farewell.close_code(), Some(1008));
        assert_eq!(&farewell.payload[2..], b"control_frames");
        client.send_frame(0x88, &1008_u16.to_be_bytes());
        assert_eq!(client.read_frame(), None, "nothing follows it");
        let counters = running.closed_when(&CloseReason::TooMuchTraffic, refused + 1);
        assert_eq!(counters.tally.refused(Limit::ControlFrames), refused + 1);
    }
}

#[test]
fn f6_bytes_hold_at_minus_one_zero_and_plus_one() {
    for key in [
        "bytes_per_second = \"1KiB burst 2KiB\"",
        "bytes_per_minute = \"1KiB burst 2KiB\"",
    ] {
        let config = format!("{OPEN}message_bytes_max = \"1KiB\"\n{key}\n");
        let (closing, dropping) = (
            start(&config),
            start(&format!("{config}traffic_at_limit = \"drop\"\n")),
        );
        let kilobyte = [b'x'; 1024];
        for (last, expected) in [(1023, (2, None)), (1024, (2, None))] {
            let (echoed, code, _) = pour(&closing, "/ws/", &[&kilobyte, &kilobyte[..last]]);
            assert_eq!((echoed, code), expected, "{key}");
        }
        let messages = [&kilobyte[..], &kilobyte, b"x", b""];
        let (echoed, code, mut client) = pour(&closing, "/ws/", &messages);
        assert_eq!((echoed, code), (2, Some(1008)), "{key}");
        assert_eq!(client.read_frame(), None);
        let counters = closing.closed_when(&CloseReason::TooMuchTraffic, 1);
        assert_eq!(counters.tally.refused(Limit::Bytes), 1, "{key}");
        // Where it is dropped, one without bytes still passes.
        let (echoed, code, _) = pour(&dropping, "/ws/", &messages);
        assert_eq!((echoed, code), (3, None), "{key}");
        assert_eq!(dropping.stop().tally.refused(Limit::Bytes), 1, "{key}");
    }
}

#[test]
fn a_limit_in_dry_run_counts_and_lets_pass() {
    let running = start(&format!(
        "{BASE}
        limits.connections_max = 2
        limits.address_connections_max = 1
        limits.address_attempts = \"1/h burst 1\"
        limits.user_connections_max = 1
        limits.dry_run = [
            \"connections\", \"address_connections\", \"address_attempts\", \"user_connections\",
            \"messages\", \"bytes\",
        ]
        [[route]]
        path = \"/ws/\"
        kind = \"echo\"
        message_bytes_max = \"1KiB\"
        messages_per_minute = \"1 burst 2\"
        bytes_per_minute = \"1KiB burst 1KiB\"
        "
    ));
    let request = ask(&format!("/ws/?token={}", token_of("42")), &[]);
    let mut open: Vec<Client> = (0..4).map(|_| enter(&running, &request)).collect();
    for text in ["a", "b", "c", &"d".repeat(1024)] {
        open[0].echo(text);
    }
    drop(open);
    let counters = running.stop();
    let would = |limit| counters.tally.would_refuse(limit);
    assert_eq!(would(Limit::Connections), 2);
    assert_eq!(would(Limit::AddressConnections), 3);
    assert_eq!(would(Limit::AddressAttempts), 3);
    assert_eq!(would(Limit::UserConnections), 3);
    assert_eq!(would(Limit::Messages), 2);
    assert_eq!(would(Limit::Bytes), 1);
    assert_eq!((counters.refused.total(), counters.opened), (0, 4));
    for limit in Limit::ALL {
        assert_eq!(counters.tally.refused(limit), 0, "{limit:?}");
    }
}

/// Connects so many times from each of four threads, all at once; returns the statuses, and those who are in.
fn crowd(each: usize, come: impl Fn() -> (u16, String, Client) + Sync) -> (Vec<u16>, Vec<Client>) {
    let begin = std::sync::Barrier::new(4);
    let outcomes: Vec<(u16, Client)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    begin.wait();
                    let outcomes = (0..each).map(|_| come());
                    let outcomes = outcomes.map(|(status, _, client)| (status, client));
                    outcomes.collect::<Vec<_>>()
                })
            })
            .collect();
        let outcomes = threads.into_iter().map(|thread| thread.join().unwrap());
        outcomes.flatten().collect()
    });
    let statuses = outcomes.iter().map(|(status, _)| *status).collect();
    let is_in = |(status, client)| (status == 101).then_some(client);
    (statuses, outcomes.into_iter().filter_map(is_in).collect())
}

#[test]
fn f4_caps_are_exact_while_a_crowd_connects_to_all_reactors() {
    const EACH: usize = 60;
    let running = start(&format!("{OPEN}\n[limits]\naddress_connections_max = 37"));
    let (statuses, open) = crowd(EACH, || knock(&running, HOME));
    assert_eq!((statuses.len(), open.len()), (4 * EACH, 37));
    assert!(statuses.iter().all(|status| matches!(status, 101 | 429)));
    drop(open);
    let counters = running.stop();
    assert_eq!(
        (counters.opened, counters.accept_refused),
        (37, 4 * EACH as u64 - 37)
    );

    let running = start(&format!(
        "{BASE}
        limits.user_connections_max = 37
        [[route]]
        path = \"/ws/\"
        kind = \"echo\"
        "
    ));
    let request = ask(&format!("/ws/?token={}", token_of("42")), &[]);
    let (statuses, open) = crowd(EACH, || answer(Client::connect(running.address), &request));
    assert_eq!((statuses.len(), open.len()), (4 * EACH, 37));
    assert!(statuses.iter().all(|status| matches!(status, 101 | 429)));
    assert_eq!(running.handle.gate().users.held(b"42"), 37);
    drop(open);
    let counters = running.stop();
    let refused = counters
        .refused
        .of(&at(Stage::User, Limit::UserConnections));
    assert_eq!((counters.opened, refused), (37, 4 * EACH as u64 - 37));
}

/// The code of the close frame that is next but for pings, which are answered; then the stream ends.
fn code_of(client: &mut Client) -> u16 {
    loop {
        let frame = client.read_frame().unwrap();
        if frame.opcode() == 9 {
            client.send_frame(0x8a, &frame.payload);
            continue;
        }
        client.send_frame(0x88, &frame.payload);
        assert_eq!(client.read_frame(), None, "nothing follows a close frame");
        return frame.close_code().unwrap();
    }
}

#[test]
fn n3_every_place_is_given_back_however_a_connection_ends() {
    let (mut settings, routes) = settings(&format!(
        "{BASE}
        limits.address_connections_max = 3
        limits.user_connections_max = 3
        [websocket]
        ping_interval = \"1s\"
        pong_timeout = \"100ms\"
        close_timeout = \"100ms\"
        [http]
        head_timeout = \"100ms\"
        [[route]]
        path = \"/ws/\"
        kind = \"echo\"
        rule = 'not role = \"guest\"'
        messages_per_minute = \"1 burst 1\"
        [[route]]
        path = \"/told/\"
        kind = \"echo\"
        rule = 'not role = \"guest\"'
        reject = \"close-code\"
        [[route]]
        path = \"/one/\"
        kind = \"echo\"
        user_connections_max = 1
        user_at_limit = \"close-oldest\"
        "
    ));
    settings.drain_timeout = Duration::from_millis(200);
    let running = Running::start(settings, routes);
    let gate = running.handle.gate().clone();
    let held = || {
        let census = gate.limits.census(Moment::default());
        (
            census.connections,
            census.address_places,
            gate.users.connected(),
        )
    };
    let good = |path: &str| ask(&format!("{path}?token={}", token_of("42")), &[]);
    let guest = |path: &str| {
        let exp = wall() + 60;
        let claims =
            format!(r#"{{"token_type":"access","exp":{exp},"user_id":42,"role":"guest"}}"#);
        ask(&format!("{path}?token={}", token(&claims)), &[])
    };
    let open = || {
        let client = enter(&running, &good("/ws/"));
        assert_eq!(held(), (1, 1, 1));
        client
    };
    let mut endings = 0;
    let mut none_is_held = |what: &str| {
        wait_until(&format!("places are free after {what}"), || {
            held() == (0, 0, 0)
        });
        endings += 1;
    };

    assert_eq!(open().close(1000), Some(1000));
    none_is_held("a close frame");
    drop(open());
    none_is_held("the end of the stream");
    open().reset();
    none_is_held("a reset");
    let mut client = open();
    client.send(&[0x81, 0x01, b'x']);
    assert_eq!(code_of(&mut client), 1002);
    none_is_held("a violation");
    let mut client = open();
    client.send_text("one");
    client.send_text("two");
    assert_eq!(client.read_text(), "one");
    assert_eq!(code_of(&mut client), 1008);
    none_is_held("too much traffic");
    let mut client = open();
    assert_eq!(client.read_frame().unwrap().opcode(), 9, "a ping");
    assert_eq!(client.read_to_end(), b"", "and the end, as no answer came");
    none_is_held("silence");
    let mut client = open();
    running
        .handle
        .revoke(&Revocation::User("42".into()), Duration::from_secs(1))
        .unwrap();
    assert_eq!(code_of(&mut client), 4401);
    none_is_held("a revocation");
    wait_until("the revocation is over", || {
        crate::status(&running, &good("/ws/")) == 101
    });
    none_is_held("a short visit");
    let claims = claims_of("42", wall() + 1);
    let mut client = enter(
        &running,
        &ask(&format!("/ws/?token={}", token(&claims)), &[]),
    );
    assert_eq!(code_of(&mut client), 4401);
    none_is_held("the token's end");
    let mut older = enter(&running, &good("/one/"));
    let younger = enter(&running, &good("/one/"));
    assert_eq!(code_of(&mut older), 4409);
    assert_eq!(younger.close(1000), Some(1000));
    none_is_held("giving way");

    assert_eq!(refused(&running, &ask("/ws/", &[])).0, 401);
    none_is_held("a refused token");
    assert_eq!(refused(&running, &guest("/ws/")).0, 403);
    none_is_held("a rule");
    assert_eq!(told(&running, &guest("/told/")).0, 4403);
    none_is_held("a refusal by close code");
    let mut silent = Client::connect(running.address);
    silent.send(guest("/told/").as_bytes());
    assert!(silent.read_head().starts_with("HTTP/1.1 101 "));
    assert_eq!(
        silent.read_close(),
        Some(4403),
        "though the client never answers"
    );
    none_is_held("a refusal that is not answered");
    assert_eq!(refused(&running, &ask("/nowhere/", &[])).0, 404);
    none_is_held("a path that is not served");
    let mut malformed = Client::connect(running.address);
    malformed.send(b"nonsense\r\n\r\n");
    assert_eq!(malformed.read_refusal().0, 400);
    none_is_held("a malformed head");
    let mut slow = Client::connect(running.address);
    slow.send(b"GET /ws/ HT");
    assert_eq!(slow.read_refusal().0, 408);
    none_is_held("a slow head");
    drop(Client::connect(running.address));
    none_is_held("nothing at all");
    let full: Vec<Client> = (0..3).map(|_| enter(&running, &good("/told/"))).collect();
    for _ in 0..5 {
        let mut client = Client::connect(running.address);
        client.try_send(good("/ws/").as_bytes());
        assert_eq!(client.read_refusal().0, 429);
    }
    assert_eq!(held(), (3, 3, 1));
    drop(full);
    none_is_held("a full house");
    assert_eq!(endings, 19);

    // The last one is cut at the end of the drain: `stop` looks at what is held then.
    let _client = open();
    let counters = running.stop();
    assert_eq!(counters.closed_by(&CloseReason::Shutdown), 1);
}

#[test]
fn n2_503_by_close_code_says_when_to_come_back() {
    // No keys at all, in development: tokens cannot be judged.
    let mut no_keys = settings(&format!(
        "{OPEN}token = \"required\"\nreject = \"close-code\"\n"
    ));
    no_keys.0.verifier = None;
    let running = Running::start(no_keys.0, no_keys.1);
    let (code, reason) = told(
        &running,
        &ask("/ws/?token=a.b.c", &["Origin: http://localhost"]),
    );
    assert_eq!(code, 4503);
    let wait = reason.strip_prefix("no_keys; retry after ").unwrap();
    let wait: u64 = wait.strip_suffix(" s").unwrap().parse().unwrap();
    assert!((5..=10).contains(&wait), "{reason}");
    drop(running);

    // A shutdown that has begun.
    let (settings, routes) = settings(&format!("{OPEN}reject = \"close-code\"\n"));
    let routes: Vec<Route> = routes.into_iter().map(|(route, _)| route).collect();
    let request = ask("/ws/", &["Origin: http://localhost"]);
    let mut reader = HeadReader::new();
    let Ok(Progress::Complete { head, .. }) = reader.receive(request.as_bytes(), &settings.http)
    else {
        panic!("not a head: {request}")
    };
    let candidate = Candidate {
        head: &head,
        has_surplus: false,
        located: Ok(()),
        draining: true,
    };
    let judge = Judge {
        verifier: None,
        revocations: &Revocations::default(),
        wall: 0,
    };
    let rejected = admit(&candidate, &routes, &settings.admission, &judge).unwrap_err();
    assert_eq!(rejected.refusal(), &Refusal::ShuttingDown);
    for (spread, wait) in [(0, 5), (500, 8), (999, 10)] {
        let mut answer = Vec::new();
        rejected.write_answer(spread, &mut answer);
        let text = format!("shutting_down; retry after {wait} s");
        assert!(answer.starts_with(b"HTTP/1.1 101 "));
        assert!(answer.ends_with(&[&4503_u16.to_be_bytes(), text.as_bytes()].concat()));
    }
}
