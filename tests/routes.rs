//! Routes of kind `channels` over real sockets, from a configuration's text to what clients read: the
//! original's four routes by the example file, and each key by itself.

#![allow(clippy::unwrap_used)]

mod support;

use std::num::NonZeroUsize;
use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tidegate::config::{Config, File, Flags, Host, Sources};
use tidegate::hub::command::Disconnect;
use tidegate::hub::{Command, Outcome, Whom};
use tidegate::keys::{self, KeyRing};
use tidegate::{Channel, CloseCode, CloseReason, Settings, routes};

use support::{Client, Running, request, settings, wait_until};

const SECRET: &str = "0123456789abcdef0123456789ABCDEF";

/// A token with these claims, of the kind that the original issues.
fn token(claims: &Value) -> String {
    let mut all = json!({"exp": 4_102_444_800_u64, "token_type": "access", "jti": "1"});
    for (name, value) in claims.as_object().unwrap() {
        all[name] = value.clone();
    }
    let message = [r#"{"alg":"HS256","typ":"JWT"}"#, &all.to_string()]
        .map(|part| URL_SAFE_NO_PAD.encode(part))
        .join(".");
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

fn loaded(text: &str) -> Config {
    let sources = Sources {
        flags: Flags::default(),
        environment: vec![("TIDEGATE_TOKEN_SECRET".into(), SECRET.into())],
        file: Some(File {
            path: "routes.toml",
            text,
        }),
        host: Host::detect(),
    };
    Config::load(&sources)
        .unwrap_or_else(|errors| panic!("{errors}"))
        .config
}

/// A server as the program makes it of this configuration, on a port of the kernel's choice.
fn serve(text: &str) -> Running {
    serve_by(settings().reactors, text)
}

fn serve_by(reactors: NonZeroUsize, text: &str) -> Running {
    let config = loaded(text);
    let ring = KeyRing::start(keys::issuers(&config)).unwrap();
    let of_test = settings();
    let settings = Settings {
        reactors,
        listeners: of_test.listeners,
        acceptor: None,
        verifier: Some(Arc::new(ring.verifiers())),
        drain_timeout: of_test.drain_timeout,
        ..Settings::from_config(&config).unwrap()
    };
    Running::start(settings, routes::configured(&config).unwrap())
}

fn example() -> Running {
    serve(include_str!("../examples/notifications.toml"))
}

/// A configuration of one route with these keys, for tokens like the original's.
fn one_route(keys: &str) -> Running {
    serve(&format!(
        "token.user_claim = 'user_id'\n[[route]]\npath = '/ws/{{room}}/'\nkind = 'channels'\n{keys}"
    ))
}

fn open(running: &Running, path: &str, claims: &Value) -> Client {
    Client::open(running.address, &format!("{path}?token={}", token(claims)))
}

/// The status that somebody is refused with.
fn refused(running: &Running, path: &str, claims: &Value) -> u16 {
    let mut client = Client::connect(running.address);
    let target = format!("{path}?token={}", token(claims));
    client.send(request(&target).as_bytes());
    client.read_refusal().0
}

fn publish(running: &Running, channel: &str, message: &Value) {
    let channel = Channel::new(channel).unwrap();
    running
        .handle
        .publish(&channel, message.to_string())
        .unwrap();
}

fn read(client: &mut Client) -> Value {
    serde_json::from_str(&client.read_text()).unwrap()
}

fn say(client: &mut Client, message: &Value) {
    client.send_text(&message.to_string());
}

/// The next message that is no announcement of a joiner. What is published before somebody joins may
/// still be on its way from another reactor, and reaches the newcomer too.
fn read_but_joins(client: &mut Client) -> Value {
    loop {
        let message = read(client);
        if message["type"] != "user_joined" {
            return message;
        }
    }
}

/// Publishes something that these clients must read next.
fn fence(running: &Running, channel: &str, clients: &mut [&mut Client], text: &str) {
    publish(running, channel, &json!({"type": text}));
    for client in clients {
        assert_eq!(read(client), json!({"type": text}));
    }
}

#[test]
fn a_push_reaches_a_user_a_role_or_everybody() {
    let running = example();
    let path = "/ws/notifications/";
    let mut alice = open(&running, path, &json!({"user_id": 42, "role": "Admin"}));
    let mut second = open(&running, path, &json!({"user_id": "42", "role": "Admin"}));
    let mut bob = open(&running, path, &json!({"user_id": 7, "role": "Student"}));
    let mut carol = open(&running, path, &json!({"user_id": 8}));
    let push = |text: &str| json!({"type": "notification", "data": {"text": text}});
    publish(&running, "notifications_42", &push("for alice"));
    publish(
        &running,
        "notifications_role_Student",
        &push("for students"),
    );
    publish(&running, "notifications_9", &push("for nobody"));
    for client in [&mut alice, &mut second] {
        assert_eq!(read(client), push("for alice"));
    }
    assert_eq!(read(&mut bob), push("for students"));
    fence(
        &running,
        "notifications_all",
        &mut [&mut alice, &mut second, &mut bob, &mut carol],
        "for all",
    );
}

#[test]
fn g2_nobody_is_called_everybody() {
    let running = example();
    for user in ["all", "role_Admin", "role_Student"] {
        let mut client = open(&running, "/ws/notifications/", &json!({"user_id": user}));
        let close = client.read_frame().unwrap();
        assert_eq!(close.close_code(), Some(4403), "{user}");
        assert_eq!(
            &close.payload[2..],
            b"no channel: its name is another one's"
        );
    }
    for user in ["a b", "a:b", "größe", "*", &"u".repeat(65)] {
        let mut client = open(&running, "/ws/notifications/", &json!({"user_id": user}));
        let close = client.read_frame().unwrap();
        assert_eq!(close.close_code(), Some(4403), "{user}");
        assert_eq!(&close.payload[2..], b"no channel: user is unfit for a name");
    }
    for room in ["a:b", "a.b", "%2a", "*", &"r".repeat(65)] {
        let path = format!("/ws/collaboration/{room}/");
        assert_eq!(
            refused(&running, &path, &json!({"user_id": 1})),
            404,
            "{room}"
        );
    }
    running.closed_when(&CloseReason::Handler, 8);
}

#[test]
fn projects_are_for_members_advisors_and_two_roles() {
    let running = example();
    for (claims, is_let_in) in [
        (json!({"user_id": 1, "projects": [3, 12]}), true),
        (json!({"user_id": 1, "projects": ["12"]}), true),
        (json!({"user_id": 1, "advises": [12]}), true),
        (json!({"user_id": 1, "role": "Admin"}), true),
        (json!({"user_id": 1, "role": "DepartmentAdmin"}), true),
        (
            json!({"user_id": 1, "role": "Student", "projects": [1, 2]}),
            false,
        ),
        (json!({"user_id": 1, "projects": 12}), false),
        (json!({"user_id": 12}), false),
    ] {
        let path = "/ws/projects/12/";
        if is_let_in {
            let mut client = open(&running, path, &claims);
            fence(&running, "project_12", &mut [&mut client], "project_update");
        } else {
            assert_eq!(refused(&running, path, &claims), 403, "{claims}");
        }
    }
    let health = "/ws/system-health/";
    assert_eq!(
        refused(&running, health, &json!({"user_id": 1, "role": "Student"})),
        403
    );
    let mut admin = open(&running, health, &json!({"user_id": 1, "role": "Admin"}));
    fence(&running, "system_health", &mut [&mut admin], "health_alert");
}

#[test]
fn a_room_relays_to_the_others_and_never_to_the_sender() {
    let running = example();
    let path = "/ws/collaboration/r1/";
    let mut alice = open(&running, path, &json!({"user_id": 1, "username": "alice"}));
    // Enough that either reactor has some.
    let mut others: Vec<Client> = Vec::new();
    for number in 2..10 {
        others.push(open(&running, path, &json!({"user_id": number})));
        let joined = read(&mut alice);
        assert_eq!(joined["type"], "user_joined");
        assert_eq!(joined["user"], number.to_string());
        assert!(joined["timestamp"].as_str().unwrap().ends_with('Z'));
        for client in others.iter_mut().take(number - 2) {
            while read(client) != joined {}
        }
    }
    let mut elsewhere = open(&running, "/ws/collaboration/r2/", &json!({"user_id": 1}));
    for action in ["cursor_update", "text_change", "selection_change"] {
        say(&mut alice, &json!({"action": "unknown", "position": 1}));
        say(
            &mut alice,
            &json!({"action": action, "position": {"line": 3}, "user": "mallory"}),
        );
        for client in &mut others {
            let mut got = read_but_joins(client);
            let fields = got.as_object_mut().unwrap();
            assert!(
                fields
                    .remove("timestamp")
                    .unwrap()
                    .as_str()
                    .unwrap()
                    .ends_with('Z')
            );
            let expected = json!({
                "type": action, "position": {"line": 3}, "user": "1", "username": "alice",
            });
            assert_eq!(got, expected);
        }
    }
    // The next thing that alice hears is somebody else's.
    say(&mut others[0], &json!({"action": "cursor_update"}));
    let got = read(&mut alice);
    assert_eq!((&got["user"], got.get("username")), (&json!("2"), None));
    fence(
        &running,
        "collaboration_r2",
        &mut [&mut elsewhere],
        "nothing else came here",
    );
    running.counters_when("ignored messages are counted", |c| c.messages_ignored == 3);
}

#[test]
fn who_goes_is_announced_however_it_went() {
    let running = example();
    let path = "/ws/collaboration/r1/";
    let mut alice = open(&running, path, &json!({"user_id": 1}));
    let expect = |client: &mut Client, kind: &str, user: &str| {
        let got = read(client);
        assert_eq!(
            (got["type"].as_str(), got["user"].as_str()),
            (Some(kind), Some(user))
        );
    };
    let mut bob = open(&running, path, &json!({"user_id": 2}));
    expect(&mut alice, "user_joined", "2");
    bob.send_frame(0x88, &1000_u16.to_be_bytes());
    expect(&mut alice, "user_left", "2");
    let carol = open(&running, path, &json!({"user_id": 3}));
    expect(&mut alice, "user_joined", "3");
    carol.reset();
    expect(&mut alice, "user_left", "3");
    let mut dave = open(&running, path, &json!({"user_id": 4}));
    expect(&mut alice, "user_joined", "4");
    dave.send(b"\xff");
    expect(&mut alice, "user_left", "4");
    // Nobody hears of themselves.
    fence(&running, "collaboration_r1", &mut [&mut alice], "end");
}

#[test]
fn many_who_go_at_once_are_announced_together() {
    const CROWD: u64 = 40;
    let running = serve_by(
        NonZeroUsize::MIN,
        r#"
        token.user_claim = "user_id"
        [[route]]
        path = "/ws/{room}/"
        kind = "channels"
        channels = ["room_{room}"]
        announce = true
        "#,
    );
    let mut witness = open(&running, "/ws/x/", &json!({"user_id": "witness"}));
    // Reads until so many have been announced; how many announcements that took, and the last one.
    let mut announced = |one: &str, many: &str| {
        let (mut people, mut count) = (0, 0);
        loop {
            let message = read(&mut witness);
            count += 1;
            people += match message["type"].as_str().unwrap() {
                "members_changed" => message[many].as_u64().unwrap(),
                other if other == one => 1,
                _ => panic!("{message}"),
            };
            assert!(people <= CROWD, "{message}");
            if people == CROWD {
                return (count, message);
            }
        }
    };
    let mut crowd: Vec<Client> = (0..CROWD)
        .map(|_| open(&running, "/ws/x/", &json!({"user_id": "crowd"})))
        .collect();
    announced("user_joined", "joined");
    let all = Command::Disconnect(Disconnect {
        whom: Whom::user("crowd"),
        code: CloseCode::from(4000),
        reason: "all of you".into(),
        whitelist: Box::default(),
    });
    assert_eq!(running.handle.ask(all), Ok(Outcome::Done(CROWD)));
    let (count, last) = announced("user_left", "left");
    assert!(count <= 33, "32 in a second, and the rest in one: {count}");
    assert_eq!(
        (&last["type"], &last["members"]),
        (&json!("members_changed"), &json!(1))
    );
    for client in &mut crowd {
        while client.read_frame().unwrap().opcode() != 8 {}
    }
    drop((crowd, witness));
}

#[test]
fn what_is_sent_first_comes_before_anything_published() {
    let running = one_route("channels = ['c_{room}']\nopen_message = '{\"type\": \"hello\"}'\n");
    let mut client = open(&running, "/ws/x/", &json!({"user_id": 1}));
    assert_eq!(client.read_text(), "{\"type\": \"hello\"}");
    fence(&running, "c_x", &mut [&mut client], "next");
}

#[test]
fn the_newest_of_each_history_come_first_and_what_is_published_next_comes_behind() {
    let running = serve(
        r#"
        token.user_claim = "user_id"
        [[channel]]
        prefix = "kept_"
        history_size = 4
        [[route]]
        path = "/ws/{room}/"
        kind = "channels"
        channels = ["kept_{room}", "kept_all", "plain_{room}"]
        open_message = '{"n": "hello"}'
        open_history = 3
        "#,
    );
    let (user, hello) = (json!({"user_id": 1}), json!({"n": "hello"}));
    let of = |channel: &str, n: u64| json!({"channel": channel, "n": n});
    // A subscription that wants the past begins when the channel's home has answered.
    let begun = |count: u64| {
        wait_until("the subscriptions", || {
            match running.handle.ask(Command::Info) {
                Ok(Outcome::Info(info)) => info.subscriptions == count,
                other => panic!("{other:?}"),
            }
        });
    };
    // Nothing has been said yet.
    let mut early = open(&running, "/ws/x/", &user);
    assert_eq!(read(&mut early), hello);
    begun(3);
    for n in 1..=6 {
        for channel in ["kept_x", "plain_x"] {
            publish(&running, channel, &of(channel, n));
        }
    }
    publish(&running, "kept_all", &of("kept_all", 1));
    // One order for each channel, and each number once.
    let mut next = std::collections::BTreeMap::new();
    for _ in 0..13 {
        let message = read(&mut early);
        let channel = message["channel"].as_str().unwrap().to_owned();
        let number = next.entry(channel.clone()).or_insert(1);
        assert_eq!(message, of(&channel, *number));
        *number += 1;
    }
    // The last three of six, the one there is of another channel, and nothing of what keeps none.
    let mut late = open(&running, "/ws/x/", &user);
    assert_eq!(read(&mut late), hello);
    let mut past: Vec<Value> = (0..4).map(|_| read(&mut late)).collect();
    let shared = past.iter().position(|one| one["channel"] == "kept_all");
    assert_eq!(past.remove(shared.unwrap()), of("kept_all", 1));
    assert_eq!(past, [4, 5, 6].map(|n| of("kept_x", n)));
    begun(6);
    let both = &mut [&mut early, &mut late];
    fence(&running, "kept_x", both, "next");
    fence(&running, "plain_x", both, "plain");
}

#[test]
fn n1_who_comes_while_others_publish_gets_the_last_of_the_past_and_all_that_follows() {
    let running = serve(
        r#"
        token.user_claim = "user_id"
        [[channel]]
        prefix = "kept_"
        history_size = 100
        [[route]]
        path = "/ws/{room}/"
        kind = "channels"
        channels = ["kept_{room}"]
        open_history = 7
        "#,
    );
    const LAST: u64 = 3_000;
    let channel = Channel::new("kept_x").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..=LAST {
                while (running.handle.publish(&channel, number.to_string())).is_err() {
                    std::thread::yield_now();
                }
            }
        });
        for user in 0..4 {
            let running = &running;
            scope.spawn(move || {
                // Comes again and again, until one has come for the end.
                let mut got = 0;
                while got < LAST {
                    let mut client = open(running, "/ws/x/", &json!({"user_id": user}));
                    let number = |client: &mut Client| client.read_text().parse::<u64>().unwrap();
                    let first = number(&mut client);
                    got = first;
                    while got < LAST && got < first + 300 {
                        let next = number(&mut client);
                        assert_eq!(next, got + 1, "of those from {first} on");
                        got = next;
                    }
                }
            });
        }
    });
    let mut client = open(&running, "/ws/x/", &json!({"user_id": 9}));
    for number in LAST - 6..=LAST {
        assert_eq!(client.read_text(), number.to_string());
    }
    fence(&running, "kept_x", &mut [&mut client], "next");
}

#[test]
fn a_message_that_no_relay_takes_is_ignored_or_closes() {
    let relay = "[[route.relay]]\nwhen = 'action = \"a\"'\necho = true\n";
    for (unmatched, closes) in [("ignore", false), ("close", true)] {
        let keys = format!("channels = ['c_{{room}}']\nunmatched = '{unmatched}'\n{relay}");
        let running = one_route(&keys);
        for message in [
            &b"\x81no JSON"[..],
            b"\x81{\"action\":\"b\"}",
            b"\x81[]",
            b"\x82{\"action\":\"a\"}",
            b"\x81{\"action\":\"a\",\"x\":\"\\ud800\"}",
            b"\x81{\"action\":\"a\",\"x\":[[[[[[[[1]]]]]]]]}",
        ] {
            let mut client = open(&running, "/ws/x/", &json!({"user_id": 1}));
            say(&mut client, &json!({"action": "a", "n": 1}));
            assert_eq!(read(&mut client), json!({"action": "a", "n": 1}));
            client.send_frame(message[0], &message[1..]);
            if closes {
                assert_eq!(client.read_frame().unwrap().close_code(), Some(1008));
            } else {
                say(&mut client, &json!({"action": "a", "n": 2}));
                assert_eq!(read(&mut client), json!({"action": "a", "n": 2}));
            }
        }
        running.counters_when("all six are counted", |c| c.messages_ignored == 6);
    }
}

#[test]
fn a_relay_may_wrap_and_publish_where_the_sender_is_not() {
    let running = serve(
        r#"
        token.user_claim = "user_id"
        [[route]]
        path = "/ws/ask/"
        kind = "channels"
        channels = ["answers_{user}"]
        [[route.relay]]
        when = 'action = "ask" and claims.role in ["customer", "guest"]'
        to = ["questions"]
        wrap = "data"
        stamp = ["type=question", "from={user}", "groups={claims.groups}", "via={connection}"]
        [[route]]
        path = "/ws/desk/"
        kind = "channels"
        channels = ["questions"]
        rule = "role = 'agent'"
        "#,
    );
    let mut agent = open(
        &running,
        "/ws/desk/",
        &json!({"user_id": 1, "role": "agent"}),
    );
    let claims = json!({"user_id": 2, "role": "guest", "groups": ["a", 1]});
    let mut guest = open(&running, "/ws/ask/", &claims);
    let mut other = open(
        &running,
        "/ws/ask/",
        &json!({"user_id": 3, "role": "agent"}),
    );
    say(&mut other, &json!({"action": "ask"}));
    running.counters_when("an agent asks nothing", |c| c.messages_ignored == 1);
    say(
        &mut guest,
        &json!({"action": "ask", "text": "why?", "type": "forged"}),
    );
    let mut got = read(&mut agent);
    let via = got.as_object_mut().unwrap().remove("via").unwrap();
    assert_eq!(via.as_str().unwrap().len(), 16);
    let expected = json!({
        "type": "question", "from": "2", "groups": ["a", 1],
        "data": {"action": "ask", "text": "why?", "type": "forged"},
    });
    assert_eq!(got, expected);
    fence(&running, "answers_2", &mut [&mut guest], "answer");
}

#[test]
fn g3_a_list_of_a_token_joins_a_channel_each_up_to_the_cap() {
    let running = one_route("channels = ['group_{claims.groups}']\n");
    for (count, is_let_in) in [(1, true), (63, true), (64, true), (65, false), (0, false)] {
        // Numbers of one width, so that the token stays short enough.
        let groups: Vec<u32> = (10..10 + count).collect();
        let claims = json!({"user_id": 1, "groups": groups});
        let mut client = open(&running, "/ws/x/", &claims);
        if is_let_in {
            fence(&running, "group_10", &mut [&mut client], "first");
            let last = format!("group_{}", 9 + count);
            fence(&running, &last, &mut [&mut client], "last");
            client.send_frame(0x88, &1000_u16.to_be_bytes());
            assert_eq!(client.read_frame().unwrap().close_code(), Some(1000));
        } else {
            assert_eq!(
                client.read_frame().unwrap().close_code(),
                Some(4403),
                "{count}"
            );
        }
    }
}

#[test]
fn g4_a_fresh_token_takes_rights_away_and_gives_others() {
    let running = one_route(
        "token_refresh = true\nchannels = ['room_{room}', 'role_{claims.role}']\nannounce = true\n",
    );
    let mut witness = open(&running, "/ws/x/", &json!({"user_id": 2, "role": "a"}));
    let mut client = open(&running, "/ws/x/", &json!({"user_id": 1, "role": "a"}));
    for _ in 0..2 {
        assert_eq!(read(&mut witness)["type"], "user_joined");
    }
    fence(&running, "role_a", &mut [&mut witness], "before");
    while read(&mut client)["type"] != "before" {}
    let fresh = token(&json!({"user_id": 1, "role": "b"}));
    say(
        &mut client,
        &json!({"action": "refresh_token", "token": fresh}),
    );
    assert_eq!(read(&mut client)["type"], "token_refreshed");
    // Of the room, where it stays, nobody hears anything.
    let left = read(&mut witness);
    assert_eq!(
        (&left["type"], &left["user"]),
        (&json!("user_left"), &json!("1"))
    );
    fence(&running, "role_a", &mut [&mut witness], "for a");
    fence(&running, "role_b", &mut [&mut client], "for b");
    fence(
        &running,
        "room_x",
        &mut [&mut witness, &mut client],
        "for all",
    );
    let fresh = token(&json!({"user_id": 1}));
    say(
        &mut client,
        &json!({"action": "refresh_token", "token": fresh}),
    );
    assert_eq!(read(&mut client)["type"], "token_refreshed");
    assert_eq!(client.read_frame().unwrap().close_code(), Some(4403));
}

#[test]
fn the_other_kinds_echo_and_broadcast_within_the_limits_of_their_routes() {
    let running = serve(
        r#"
        token.user_claim = "user_id"
        [[route]]
        path = "/echo/"
        kind = "echo"
        message_bytes_max = "1KiB"
        [[route]]
        path = "/all/{room}/"
        kind = "broadcast"
        messages_per_minute = 3
        "#,
    );
    let mut alone = open(&running, "/echo/", &json!({"user_id": 1}));
    alone.echo(&"x".repeat(1024));
    alone.send_text(&"x".repeat(1025));
    assert_eq!(alone.read_frame().unwrap().close_code(), Some(1009));
    let mut one = open(&running, "/all/a/", &json!({"user_id": 1}));
    let mut other = open(&running, "/all/a/", &json!({"user_id": 2}));
    other.send_text("here");
    assert_eq!(other.read_text(), "here");
    for number in 0..3 {
        one.send_text(&number.to_string());
        // What was said before it came may still be on its way to it.
        let mut heard = one.read_text();
        if heard == "here" {
            heard = one.read_text();
        }
        assert_eq!(
            [heard, other.read_text()],
            [number.to_string(), number.to_string()]
        );
    }
    one.send_text("one too many");
    assert_eq!(one.read_frame().unwrap().close_code(), Some(1008));
    other.send_text("still here");
    assert_eq!(other.read_text(), "still here");
}

#[test]
fn who_has_no_token_joins_what_needs_none() {
    let running = one_route("token = 'optional'\nchannels = ['user_{user?}', 'room_{room}']\n");
    let mut nobody = Client::open(running.address, "/ws/x/");
    let mut alice = open(&running, "/ws/x/", &json!({"user_id": 1}));
    fence(&running, "room_x", &mut [&mut nobody, &mut alice], "room");
    fence(&running, "user_1", &mut [&mut alice], "user");
    fence(&running, "room_x", &mut [&mut nobody, &mut alice], "again");
}

#[test]
fn a_claim_that_a_channel_needs_is_not_let_in_without() {
    let running = one_route("channels = ['role_{claims.role}']\n");
    let mut client = open(&running, "/ws/x/", &json!({"user_id": 1}));
    let close = client.read_frame().unwrap();
    assert_eq!(close.close_code(), Some(4403));
    assert_eq!(&close.payload[2..], b"no channel: claims.role is missing");
}

#[test]
fn the_page_is_served_in_development_and_nothing_else_is() {
    let running = example();
    let get = |method: &str, path: &str| {
        let mut client = Client::connect(running.address);
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        let head = client.read_head();
        (head, client.read_to_end())
    };
    for path in ["/", "/?a=b"] {
        let (head, body) = get("GET", path);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(
            head.contains("\r\nContent-Type: text/html; charset=utf-8\r\n"),
            "{head}"
        );
        assert!(
            head.contains("default-src 'none'; script-src 'sha256-"),
            "{head}"
        );
        assert!(body.ends_with(b"</html>\n"));
    }
    for (method, path, status) in [
        ("GET", "/index.html", "426"),
        ("GET", "//", "400"),
        ("GET", "/ws/notifications/", "426"),
        ("HEAD", "/", "4"),
        ("POST", "/", "4"),
    ] {
        let (head, _) = get(method, path);
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status}")),
            "{method} {path}: {head}"
        );
    }
    let without = serve("demo_page = false\n");
    let mut client = Client::connect(without.address);
    client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(!client.read_head().starts_with("HTTP/1.1 200"));
}

#[test]
fn the_example_passes_the_check_of_the_program() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/notifications.toml");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["check", "--config", file])
        .env_clear()
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), told.as_str()), (Some(0), ""));
}
