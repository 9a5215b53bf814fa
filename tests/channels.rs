//! What channels remember and promise, over real sockets and on one, two and four reactors: positions,
//! replays, presence, announcements, what slow subscribers get, and silence behind an answer.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods
)]

mod support;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tidegate::admission::jwt::{Algorithm, Key, KeySet, TokenPolicy, Verifier};
use tidegate::conn::{AtLimit, HandlerFactory, Peer};
use tidegate::hub::command::{
    ChannelInfo, Disconnect, Epoch, HistoryQuery, Info, Pattern, Publish, Refresh, Since,
};
use tidegate::hub::{
    Announcement, Answer, ChannelPolicy, Command, CommandError, Outcome, Policies, PublishOptions,
    Replay, Slow, Start, Subscription, Ticket, Whom,
};
use tidegate::{
    Channel, CloseCode, CloseReason, ConnectionId, Handler, Message, Route, Settings, TokenDemand,
};

use support::{Client, Running, settings};

fn channel(name: &str) -> Channel {
    Channel::new(name).unwrap()
}

/// `kept:*` has a history and presence, `told:*` announcements too; `oldest:*`, `newest:*` and
/// `closed:*` treat the slow each in their way.
fn policies() -> Policies {
    let plain = ChannelPolicy::default();
    let slow = |slow| ChannelPolicy {
        slow,
        ..plain.clone()
    };
    let kept = ChannelPolicy {
        history_size: 1_000,
        presence: true,
        ..plain.clone()
    };
    let told = ChannelPolicy {
        announce: true,
        ..kept.clone()
    };
    let skipping = ChannelPolicy {
        history_size: 10,
        ..slow(Slow::DropOldest)
    };
    Policies::new(
        [],
        [
            ("kept:".into(), kept),
            ("told:".into(), told),
            ("oldest:".into(), slow(Slow::DropOldest)),
            ("newest:".into(), slow(Slow::KeepLatest)),
            ("closed:".into(), slow(Slow::Close)),
            ("skipping:".into(), skipping),
        ],
    )
}

fn on_reactors(count: usize) -> Settings {
    Settings {
        reactors: NonZeroUsize::new(count).unwrap(),
        channels: policies(),
        ..settings()
    }
}

/// Does what its client says, one word and its arguments in a message.
struct Room;

impl Handler for Room {
    fn open(&mut self, peer: &mut Peer<'_>) {
        peer.send(peer.id().to_string());
    }

    fn message(&mut self, peer: &mut Peer<'_>, message: Message<'_>) {
        let Message::Text(text) = &message else {
            return;
        };
        let words: Vec<&str> = text.split(' ').collect();
        match words[..] {
            ["join", name] => {
                let joined = peer.join(&channel(name));
                peer.send(format!("joined {joined}"));
            }
            ["enter", name, info] => {
                let words = |event: &Announcement<'_>| {
                    Some(match event {
                        Announcement::Joined(member, _) => format!("+{}", member.info.as_deref()?),
                        Announcement::Left(member, _) => format!("-{}", member.info.as_deref()?),
                        Announcement::Many { joined, left, .. } => format!("+{joined}-{left}"),
                    })
                };
                let subscription = Subscription {
                    info: Some(info.into()),
                    announcer: Some(Arc::new(words)),
                    ..Subscription::default()
                };
                peer.join_with(&channel(name), subscription);
                peer.send("entered");
            }
            ["last", name, count] => {
                let replay = Replay::Last(count.parse().unwrap());
                let subscription = Subscription {
                    replay,
                    ..Subscription::default()
                };
                assert!(peer.subscribe(&channel(name), subscription));
            }
            ["since", name, offset, epoch] => {
                let replay = Replay::Since(Since {
                    offset: offset.parse().unwrap(),
                    epoch: Epoch::read(epoch),
                });
                let subscription = Subscription {
                    replay,
                    ..Subscription::default()
                };
                assert!(peer.subscribe(&channel(name), subscription));
            }
            ["leave", name] => {
                let left = peer.leave(&channel(name));
                peer.send(format!("left {left}"));
            }
            ["others", name, text] => {
                let options = PublishOptions {
                    exclude: Some(peer.id()),
                    ..PublishOptions::default()
                };
                peer.publish_with(&channel(name), text, options);
            }
            ["publish", name, text] => peer.publish(&channel(name), text),
            ["count", name] => {
                peer.ask(Command::PresenceStats(channel(name)));
            }
            _ => panic!("{text}"),
        }
    }

    fn subscribed(&mut self, peer: &mut Peer<'_>, _: &Channel, start: Result<Start, CommandError>) {
        let start = start.unwrap();
        let words = match start.position {
            Some(position) => format!(
                "at {} {} {}",
                position.offset, position.epoch, start.is_recovered
            ),
            None => "live".to_owned(),
        };
        peer.send(words);
    }

    fn answered(&mut self, peer: &mut Peer<'_>, _: Ticket, answer: Answer) {
        match answer {
            Ok(Outcome::PresenceStats { clients, users }) => {
                peer.send(format!("{clients} {users}"));
            }
            other => panic!("{other:?}"),
        }
    }
}

fn routes() -> Vec<(Route, Arc<dyn HandlerFactory>)> {
    vec![(Route::open("/room"), Arc::new(|_| Room))]
}

/// A client and its id.
fn open(running: &Running) -> (Client, ConnectionId) {
    let mut client = Client::open(running.address, "/room");
    let id = client.read_text().parse().unwrap();
    (client, id)
}

fn ask(client: &mut Client, words: &str) -> String {
    client.send_text(words);
    client.read_text()
}

fn publish(running: &Running, name: &str, text: &str) -> Answer {
    running.handle.ask(Command::Publish(Publish {
        channel: channel(name),
        message: Message::from(text.to_owned()),
        options: PublishOptions::default(),
    }))
}

fn offset(answer: Answer) -> u64 {
    match answer {
        Ok(Outcome::Published(Some(position))) => position.offset,
        other => panic!("{other:?}"),
    }
}

#[test]
fn n1_a_replay_is_followed_by_what_is_published_without_gap_or_repeat() {
    const COUNT: u64 = 600;
    for reactors in [1, 2, 4] {
        let running = Running::start(on_reactors(reactors), routes());
        let handle = running.handle.clone();
        let publisher = thread::spawn(move || {
            for number in 1..=COUNT {
                let text = number.to_string();
                // Half of them are acknowledged, half are not.
                if number % 2 == 0 {
                    while handle.publish(&channel("kept:a"), text.clone()).is_err() {}
                } else {
                    let publish = Publish {
                        channel: channel("kept:a"),
                        message: Message::from(text),
                        options: PublishOptions::default(),
                    };
                    assert_eq!(offset(handle.ask(Command::Publish(publish))), number);
                }
            }
        });
        let mut seen: Vec<thread::JoinHandle<()>> = Vec::new();
        let mut resume = None;
        while !publisher.is_finished() || seen.len() < 12 {
            let (mut client, _) = open(&running);
            let words = match &resume {
                Some((offset, epoch)) if seen.len() % 2 == 1 => {
                    format!("since kept:a {offset} {epoch}")
                }
                _ => "last kept:a 5".to_owned(),
            };
            let start = ask(&mut client, &words);
            let words: Vec<&str> = start.split(' ').collect();
            let ["at", top, epoch, "true"] = words[..] else {
                panic!("{start}")
            };
            let top: u64 = top.parse().unwrap();
            resume = Some((top, epoch.to_owned()));
            if top == COUNT {
                break;
            }
            seen.push(thread::spawn(move || {
                let mut next: Option<u64> = None;
                loop {
                    let number: u64 = client.read_text().parse().unwrap();
                    assert!(
                        next.is_none_or(|next| next == number),
                        "{next:?}, got {number}"
                    );
                    if next.is_none() {
                        assert!(number <= top + 1, "began at {number}, behind {top}");
                    }
                    if number == COUNT {
                        return;
                    }
                    next = Some(number + 1);
                }
            }));
            if seen.len() >= 40 {
                break;
            }
        }
        publisher.join().unwrap();
        seen.into_iter().for_each(|thread| thread.join().unwrap());
        let counters = running.stop();
        assert_eq!((counters.gaps, counters.commands_unanswered), (0, 0));
    }
}

#[test]
fn a_position_that_is_gone_is_told_and_a_foreign_epoch_is_too() {
    let running = Running::start(on_reactors(2), routes());
    for number in 1..=5 {
        assert_eq!(offset(publish(&running, "kept:b", "x")), number);
    }
    let (mut client, _) = open(&running);
    let start = ask(&mut client, "since kept:b 3 ");
    let epoch = start.split(' ').nth(2).unwrap().to_owned();
    assert_eq!(start, format!("at 5 {epoch} true"));
    assert_eq!([client.read_text(), client.read_text()], ["x", "x"]);
    assert_eq!(ask(&mut client, "leave kept:b"), "left true");
    assert_eq!(
        ask(&mut client, "since kept:b 3 other"),
        format!("at 5 {epoch} false")
    );
    assert_eq!(ask(&mut client, "leave kept:b"), "left true");
    running
        .handle
        .ask(Command::HistoryRemove(channel("kept:b")))
        .unwrap();
    let again = format!("since kept:b 4 {epoch}");
    assert_eq!(ask(&mut client, &again), format!("at 5 {epoch} false"));
    assert_eq!(ask(&mut client, "last plain 3"), "live");
    drop(client);
    running.stop();
}

#[test]
fn histories_are_read_from_any_thread() {
    let running = Running::start(on_reactors(4), routes());
    for number in 1..=4 {
        offset(publish(&running, "kept:c", &number.to_string()));
    }
    let query = HistoryQuery {
        limit: Some(2),
        ..HistoryQuery::default()
    };
    match running
        .handle
        .ask(Command::History(channel("kept:c"), query))
    {
        Ok(Outcome::History(found, top)) => {
            let texts: Vec<_> = found.iter().map(|one| one.message.clone()).collect();
            assert_eq!(texts, [Message::from("1"), Message::from("2")]);
            assert_eq!(top.offset, 4);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        publish(&running, "plain", "x"),
        Ok(Outcome::Published(None))
    );
    assert_eq!(
        running
            .handle
            .ask(Command::History(channel("plain"), query)),
        Err(CommandError::NotAvailable)
    );
    running.stop();
}

#[test]
fn presence_is_exact_on_all_reactors_and_ends_with_the_connection() {
    for reactors in [1, 2, 4] {
        let running = Running::start(on_reactors(reactors), routes());
        let stats = |clients: u64| {
            let answer = running
                .handle
                .ask(Command::PresenceStats(channel("kept:d")));
            answer
                == Ok(Outcome::PresenceStats {
                    clients,
                    users: clients.min(1),
                })
        };
        let mut clients: Vec<_> = (0..8).map(|_| open(&running)).collect();
        for (number, (client, _)) in clients.iter_mut().enumerate() {
            assert_eq!(
                ask(client, &format!("enter kept:d \"{number}\"")),
                "entered"
            );
        }
        // What each said before its own question reaches the home before it.
        for (client, _) in &mut clients {
            ask(client, "count kept:d");
        }
        assert!(stats(8));
        match running.handle.ask(Command::Presence(channel("kept:d"))) {
            Ok(Outcome::Presence(members)) => {
                for (number, (_, id)) in clients.iter().enumerate() {
                    let member = members.iter().find(|member| member.client == *id).unwrap();
                    assert_eq!(member.info.as_deref(), Some(&*format!("\"{number}\"")));
                }
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(ask(&mut clients[0].0, "count kept:d"), "8 1");
        assert_eq!(ask(&mut clients[0].0, "leave kept:d"), "left true");
        assert_eq!(ask(&mut clients[0].0, "count kept:d"), "7 1");
        clients.pop().unwrap().0.reset();
        clients.pop().unwrap().0.close(1000);
        support::wait_until("two are gone", || stats(5));
        drop(clients);
        support::wait_until("all are gone", || stats(0));
        running.stop();
    }
}

#[test]
fn joins_and_leaves_are_told_to_the_others() {
    let running = Running::start(on_reactors(2), routes());
    let (mut first, _) = open(&running);
    assert_eq!(ask(&mut first, "enter told:a ann"), "entered");
    assert_eq!(ask(&mut first, "count told:a"), "1 1");
    let (mut second, _) = open(&running);
    // What the home has said before its answer has been read here before it.
    assert_eq!(ask(&mut second, "count told:a"), "1 1");
    assert_eq!(ask(&mut second, "enter told:a bob"), "entered");
    assert_eq!(first.read_text(), "+bob");
    second.send_text("publish told:a hello");
    assert_eq!([first.read_text(), second.read_text()], ["hello", "hello"]);
    second.close(1000);
    assert_eq!(first.read_text(), "-bob");
    drop(first);
    running.stop();
}

#[test]
fn a_sender_can_be_left_out() {
    let running = Running::start(on_reactors(4), routes());
    let mut clients: Vec<_> = (0..6).map(|_| open(&running).0).collect();
    for client in &mut clients {
        assert_eq!(ask(client, "join room"), "joined true");
    }
    for (number, client) in clients.iter_mut().enumerate() {
        client.send_text(&format!("others room {number}"));
    }
    // Each knows that it has everything when it has the five of the others.
    for (number, client) in clients.iter_mut().enumerate() {
        let mut got: Vec<usize> = (0..5)
            .map(|_| client.read_text().parse().unwrap())
            .collect();
        got.sort_unstable();
        let expected: Vec<usize> = (0..6).filter(|other| *other != number).collect();
        assert_eq!(got, expected);
        assert_eq!(ask(client, "leave room"), "left true");
    }
    drop(clients);
    let counters = running.stop();
    assert_eq!((counters.published, counters.delivered), (6, 30));
}

/// Publishes to a client that does not read, until frames wait for it.
fn fill(running: &Running, name: &str) -> u64 {
    let text = "x".repeat(2_000);
    let mut count = 0;
    while running.handle.counters().outbox_bytes < 100_000 {
        count += 1;
        publish(running, name, &format!("{count} {text}")).unwrap();
        assert!(count < 10_000, "the kernel takes it all");
    }
    count
}

fn number(text: &str) -> u64 {
    text.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn g8_nothing_of_a_channel_comes_behind_the_answer_to_an_unsubscribe() {
    for reactors in [1, 2] {
        let running = Running::start(on_reactors(reactors), routes());
        let (client, id) = open(&running);
        let mut client = client.narrow();
        assert_eq!(ask(&mut client, "join room"), "joined true");
        let count = fill(&running, "room");
        let whom = Whom {
            user: "".into(),
            client: Some(id),
        };
        let unsubscribe = Command::Unsubscribe(whom, channel("room"));
        assert_eq!(
            running.handle.ask(unsubscribe.clone()),
            Ok(Outcome::Done(1))
        );
        let taken_back = running.handle.counters().outbox_taken_back;
        assert!(taken_back > 0);
        assert_eq!(
            publish(&running, "room", "too late"),
            Ok(Outcome::Published(None))
        );
        assert_eq!(running.handle.ask(unsubscribe), Ok(Outcome::Done(0)));
        running.handle.send(id, "end").unwrap();
        let mut got = 0;
        loop {
            let text = client.read_text();
            if text == "end" {
                break;
            }
            got += 1;
            assert_eq!(number(&text), got, "in order up to the end");
        }
        assert_eq!(got + taken_back, count);
        assert_eq!(
            ask(&mut client, "join room"),
            "joined true",
            "it may come back"
        );
        publish(&running, "room", "again").unwrap();
        assert_eq!(client.read_text(), "again");
        drop(client);
        running.stop();
    }
}

#[test]
fn g8_a_kick_leaves_nothing_of_any_channel_behind() {
    let running = Running::start(on_reactors(2), routes());
    let (client, id) = open(&running);
    let (spared, spared_id) = open(&running);
    let mut client = client.narrow();
    assert_eq!(ask(&mut client, "join room"), "joined true");
    let count = fill(&running, "room");
    let order = |client, whitelist: &[ConnectionId]| {
        Command::Disconnect(Disconnect {
            whom: Whom {
                user: "".into(),
                client: Some(client),
            },
            code: CloseCode::from(4503),
            reason: "enough".into(),
            whitelist: whitelist.into(),
        })
    };
    assert_eq!(running.handle.ask(order(id, &[])), Ok(Outcome::Done(1)));
    assert_eq!(
        running.handle.ask(order(spared_id, &[spared_id])),
        Ok(Outcome::Done(0))
    );
    assert_eq!(running.handle.ask(order(id, &[])), Ok(Outcome::Done(0)));
    publish(&running, "room", "too late").unwrap();
    let taken_back = running.handle.counters().outbox_taken_back;
    let mut got = 0;
    let close = loop {
        let frame = client.read_frame().unwrap();
        if frame.opcode() == 8 {
            break frame;
        }
        got += 1;
        assert_eq!(number(std::str::from_utf8(&frame.payload).unwrap()), got);
    };
    assert_eq!(close.close_code(), Some(4503));
    assert!(taken_back > 0);
    assert_eq!(got + taken_back, count);
    drop((client, spared));
    running.stop();
}

/// Everything a slow subscriber reads, once it reads, up to the newest.
fn read_up_to(client: &mut Client, last: u64) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.last() != Some(&last) {
        numbers.push(number(&client.read_text()));
    }
    numbers
}

#[test]
fn x40_slow_subscribers_get_what_the_channel_s_policy_says() {
    let mut settings = on_reactors(2);
    settings.outbox.bytes_max = 200_000;
    settings.outbox.at_limit = AtLimit::Close;
    // The slow read what they were told only when all has been published.
    settings.timeouts.close = 4 * support::PATIENCE;
    settings.timeouts.write = 4 * support::PATIENCE;
    let running = Running::start(settings, routes());
    let text = "x".repeat(5_000);
    let slow = |name: &str| {
        let (client, _) = open(&running);
        let mut client = client.narrow();
        assert_eq!(ask(&mut client, &format!("join {name}")), "joined true");
        client
    };
    let (mut oldest, mut newest) = (slow("oldest:a"), slow("newest:a"));
    let (mut closed, mut told) = (slow("closed:a"), slow("skipping:a"));
    let mut fast = open(&running).0;
    assert_eq!(ask(&mut fast, "join oldest:a"), "joined true");
    const COUNT: u64 = 1_500;
    for count in 1..=COUNT {
        for name in ["oldest:a", "newest:a", "closed:a", "skipping:a"] {
            let text = format!("{count} {text}");
            running.handle.publish(&channel(name), text).unwrap();
        }
        assert_eq!(
            number(&fast.read_text()),
            count,
            "nobody waits for the slow"
        );
    }
    running.counters_when("one was told", |counters| {
        counters.outbox_taken_back > 0 && counters.gaps == 1
    });
    for client in [&mut oldest, &mut newest] {
        let numbers = read_up_to(client, COUNT);
        assert!(numbers.len() < COUNT as usize, "something was dropped");
        assert!(
            numbers.is_sorted_by(|one, other| one < other),
            "{numbers:?}"
        );
    }
    for (client, code) in [(&mut closed, 1008), (&mut told, 1013)] {
        let mut next = 1;
        let close = loop {
            let frame = client.read_frame().unwrap();
            if frame.opcode() == 8 {
                break frame;
            }
            assert_eq!(number(std::str::from_utf8(&frame.payload).unwrap()), next);
            next += 1;
        };
        assert_eq!(close.close_code(), Some(code));
        client.send_frame(0x88, &close.payload);
        assert_eq!(client.read_frame(), None);
    }
    running.closed_when(&CloseReason::OutboxFull, 1);
    running.closed_when(&CloseReason::Gap, 1);
    drop((oldest, newest, closed, told, fast));
    running.stop();
}

const SECRET: &[u8] = b"0123456789abcdef0123456789ABCDEF";

fn token(user: &str) -> String {
    let claims = format!(r#"{{"sub":"{user}","exp":4102444800}}"#);
    let message = [r#"{"alg":"HS256","typ":"JWT"}"#, &claims]
        .map(|part| URL_SAFE_NO_PAD.encode(part))
        .join(".");
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    let signature = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

#[test]
fn a_user_is_found_on_all_reactors() {
    let key = Key::secret(Algorithm::Hs256, SECRET, None).unwrap();
    let keys = KeySet::new(vec![key]).unwrap();
    let mut settings = on_reactors(4);
    let verifier = Verifier::new(vec![(TokenPolicy::default(), keys)]).unwrap();
    settings.verifier = Some(Arc::new(verifier));
    let mut routes = routes();
    routes[0].0.token = TokenDemand::Optional;
    let running = Running::start(settings, routes);
    let of = |user: &str| {
        let mut client = Client::open(running.address, &format!("/room?token={}", token(user)));
        client.read_text();
        client
    };
    let mut anns: Vec<Client> = (0..8).map(|_| of("ann")).collect();
    let mut bob = of("bob");
    let ask_all = |command| match running.handle.ask(command) {
        Ok(Outcome::Done(count)) => count,
        other => panic!("{other:?}"),
    };
    let subscribe = |user| Command::Subscribe(Whom::user(user), channel("kept:e"));
    assert_eq!(ask_all(subscribe("ann")), 8);
    assert_eq!(ask_all(subscribe("ann")), 0, "twice is once");
    assert_eq!(ask_all(subscribe("nobody")), 0);
    publish(&running, "kept:e", "hello").unwrap();
    for ann in &mut anns {
        assert_eq!(ann.read_text(), "hello");
    }
    assert_eq!(ask(&mut bob, "join room"), "joined true");
    let expected = vec![ChannelInfo {
        channel: channel("kept:e"),
        clients: 8,
    }];
    let pattern = Pattern(Some("kept:*".into()));
    assert_eq!(
        running.handle.ask(Command::Channels(pattern)),
        Ok(Outcome::Channels(expected))
    );
    match running.handle.ask(Command::Info) {
        Ok(Outcome::Info(Info {
            clients,
            users,
            subscriptions,
            ..
        })) => {
            assert_eq!((clients, subscriptions), (9, 9));
            assert!((2..=9).contains(&users));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        running
            .handle
            .ask(Command::PresenceStats(channel("kept:e"))),
        Ok(Outcome::PresenceStats {
            clients: 8,
            users: 1
        })
    );
    let whom = || Whom::user("ann");
    assert_eq!(ask_all(Command::Refresh(whom(), Refresh::Until(None))), 8);
    assert_eq!(ask_all(Command::Unsubscribe(whom(), channel("kept:e"))), 8);
    assert_eq!(
        ask_all(Command::Refresh(Whom::user("bob"), Refresh::Expired)),
        1
    );
    assert_eq!(bob.read_close(), Some(4401));
    let disconnect = Command::Disconnect(Disconnect {
        whom: whom(),
        code: CloseCode::from(4503),
        reason: "all of you".into(),
        whitelist: Box::default(),
    });
    assert_eq!(ask_all(disconnect), 8);
    for mut ann in anns {
        assert_eq!(ann.read_close(), Some(4503));
    }
    running.stop();
}

#[test]
fn a16_a_connection_subscribes_to_so_many_channels_and_no_more() {
    let mut settings = on_reactors(1);
    settings.hub.subscriptions_max = 2;
    let running = Running::start(settings, routes());
    let mut client = open(&running).0;
    assert_eq!(ask(&mut client, "join a"), "joined true");
    assert_eq!(ask(&mut client, "join b"), "joined true");
    assert_eq!(ask(&mut client, "join c"), "joined false");
    assert_eq!(ask(&mut client, "leave a"), "left true");
    assert_eq!(ask(&mut client, "join c"), "joined true");
    drop(client);
    assert_eq!(running.stop().subscriptions_refused, 1);
}
