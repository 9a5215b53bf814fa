//! Whole ends of the hub, joined by queues that take their time and fill up.

use std::collections::{BTreeMap, HashMap as Map};

use proptest::prelude::*;

use super::command::{HistoryQuery, Since};
use super::*;

fn policies() -> Arc<Policies> {
    let keeping = ChannelPolicy {
        history_size: 8,
        presence: true,
        announce: true,
        ..ChannelPolicy::default()
    };
    Arc::new(Policies::new([], [("kept".into(), keeping)]))
}

/// Reactors joined by queues, as the server joins them by mailboxes.
fn hubs(count: usize, limits: Limits) -> Vec<Hub> {
    let hasher = ahash::RandomState::with_seeds(5, 6, 7, 8);
    let home = |me| Home {
        hasher: hasher.clone(),
        reactors: count,
        me,
    };
    (0..count)
        .map(|me| Hub::with_policies(home(me), limits, policies()))
        .collect()
}

fn channel(name: &str) -> Channel {
    Channel::new(name).unwrap()
}

fn subscriber(reactor: usize, slot: u32) -> Subscriber {
    Subscriber {
        id: ConnectionId::new(u8::try_from(reactor).unwrap(), slot, 0),
        deflate: false,
        user: Some("ann".into()),
    }
}

/// The texts of short frames.
fn texts(batch: &Batch) -> Vec<String> {
    let mut rest = &batch.frames()[..];
    let mut texts = Vec::new();
    while let [0x81, length, tail @ ..] = rest {
        let (text, behind) = tail.split_at(usize::from(*length));
        texts.push(String::from_utf8(text.to_vec()).unwrap());
        rest = behind;
    }
    texts
}

/// Hubs, what is on its way between them, and what has come out of them.
struct Net {
    hubs: Vec<Hub>,
    /// From and to.
    queues: Map<(usize, usize), VecDeque<Parcel>>,
    letters_max: usize,
    answers: Map<(usize, Ticket), Answer>,
    subscriptions: BTreeMap<(usize, u32, Channel), Received>,
    /// What was told, of subscriptions that have ended too.
    ended: Vec<(Channel, Received)>,
}

/// What a subscription has got.
#[derive(Debug, Default)]
struct Received {
    /// `None` until it is known where it begins; then its last position, if it has one.
    started: Option<Option<StreamPosition>>,
    texts: Vec<String>,
    is_told_of_gap: bool,
}

impl Net {
    fn new(count: usize, limits: Limits) -> Self {
        Self {
            hubs: hubs(count, limits),
            queues: Map::new(),
            letters_max: usize::MAX,
            answers: Map::new(),
            subscriptions: BTreeMap::new(),
            ended: Vec::new(),
        }
    }

    /// One turn of one reactor, with at most so many letters from each other one.
    fn turn(&mut self, me: usize, letters: usize, now: Tick) {
        self.hubs[me].begin_turn(now, 1_000);
        for from in 0..self.hubs.len() {
            for _ in 0..letters {
                let queue = self.queues.entry((from, me)).or_default();
                let Some(parcel) = queue.pop_front() else {
                    break;
                };
                self.hubs[me].receive(parcel);
            }
        }
        self.do_tasks(me);
        let (queues, letters_max) = (&mut self.queues, self.letters_max);
        self.hubs[me].end_turn(|to, parcel| {
            let queue = queues.entry((me, to)).or_default();
            if queue.len() >= letters_max {
                return Err(parcel);
            }
            queue.push_back(parcel);
            Ok(())
        });
        self.do_tasks(me);
        while let Some(slice) = self.hubs[me].table.next_slice(2) {
            for member in &slice.members {
                self.serve(me, member, &slice);
            }
        }
    }

    fn do_tasks(&mut self, me: usize) {
        while let Some(task) = self.hubs[me].next_task() {
            match task {
                Task::Perform(asker, command) => {
                    if let Command::Unsubscribe(_, channel) = &*command {
                        self.unsubscribe(me, channel);
                    }
                    self.hubs[me].report(asker, Ok(Outcome::Done(1)));
                }
                Task::Answer(ticket, _, answer) => {
                    assert!(self.answers.insert((me, ticket), answer).is_none());
                }
                Task::Subscribed(subscribed) => {
                    let key = (me, subscribed.id.slot(), subscribed.channel.clone());
                    let received = self.subscriptions.get_mut(&key).unwrap();
                    assert!(received.started.is_none());
                    let start = subscribed.outcome.unwrap();
                    let replayed: Vec<String> = subscribed
                        .replay
                        .iter()
                        .flat_map(|batch| texts(batch))
                        .collect();
                    received.started = Some(start.position);
                    received.texts = replayed;
                }
            }
        }
    }

    fn serve(&mut self, me: usize, member: &Member, slice: &Slice) {
        for batch in &slice.batches[slice.skipped_by(member)..] {
            let key = (me, member.key, slice.channel.clone());
            let received = self
                .subscriptions
                .get_mut(&key)
                .expect("nobody is served who left");
            let Some(last) = &mut received.started else {
                panic!("served before it was told that it had begun");
            };
            if batch.is_gap() {
                received.is_told_of_gap = true;
                let id = subscriber(me, member.key).id;
                self.hubs[me].leave(&slice.channel, id);
                self.end(&key);
                return;
            }
            if let (Some(last), Some(first)) = (&last, batch.position()) {
                assert_eq!((first.epoch, first.offset), (last.epoch, last.offset + 1));
            }
            *last = batch.last_position().or(*last);
            received.texts.extend(texts(batch));
        }
    }

    /// Ends all subscriptions of a reactor to a channel, when they have got what is there for them.
    fn unsubscribe(&mut self, me: usize, channel: &Channel) {
        let subscriptions = self.subscriptions.keys();
        let ending: Vec<_> = subscriptions
            .filter(|(reactor, _, name)| *reactor == me && name == channel)
            .cloned()
            .collect();
        for key in ending {
            for slice in self.hubs[me].table.take_due(key.1, Some(channel)) {
                self.serve(me, &slice.members[0], &slice);
            }
            self.hubs[me].leave(channel, subscriber(me, key.1).id);
            self.end(&key);
        }
    }

    /// Subscribes somebody from now on; false if they are subscribed already.
    fn join(&mut self, me: usize, slot: u32, name: &Channel, subscription: Subscription) -> bool {
        let is_new = self.hubs[me].join(name, &subscriber(me, slot), subscription);
        if is_new {
            let received = Received {
                started: Some(None),
                ..Received::default()
            };
            self.subscriptions
                .insert((me, slot, name.clone()), received);
        }
        is_new
    }

    fn end(&mut self, key: &(usize, u32, Channel)) {
        if let Some(received) = self.subscriptions.remove(key) {
            self.ended.push((key.2.clone(), received));
        }
    }

    /// Turns until nothing is on its way any more.
    fn settle(&mut self, now: Tick) {
        self.letters_max = usize::MAX;
        for _ in 0..6 {
            for me in 0..self.hubs.len() {
                self.turn(me, usize::MAX, now);
            }
        }
        assert!(self.queues.values().all(VecDeque::is_empty));
        assert!(self.hubs.iter().all(|hub| !hub.has_mail()));
    }

    fn ask(&mut self, me: usize, command: Command) -> Answer {
        let ticket = self.hubs[me].ask(command, ReplyTo::Endpoint);
        self.settle(10);
        self.answers.remove(&(me, ticket)).unwrap()
    }
}

#[test]
fn a_publication_without_subscribers_costs_no_row() {
    let mut hub = hubs(1, Limits::default()).remove(0);
    hub.publish(&channel("nobody"), &Message::from("x"));
    hub.end_turn(|_, _| panic!("there is nobody to post to"));
    assert_eq!((hub.table.channels(), hub.table.has_work()), (0, false));
    assert_eq!(hub.holdings().channels, 0);
}

#[test]
fn a_publication_is_answered_with_its_position_and_found_in_the_history() {
    let mut net = Net::new(3, Limits::default());
    let room = channel("kept");
    for number in 1..=3u64 {
        let publish = Command::Publish(Publish {
            channel: room.clone(),
            message: Message::from(number.to_string()),
            options: PublishOptions::default(),
        });
        match net.ask(usize::try_from(number).unwrap() - 1, publish) {
            Ok(Outcome::Published(Some(position))) => assert_eq!(position.offset, number),
            other => panic!("{other:?}"),
        }
    }
    let query = HistoryQuery {
        limit: Some(2),
        reverse: true,
        ..HistoryQuery::default()
    };
    match net.ask(0, Command::History(room.clone(), query)) {
        Ok(Outcome::History(found, top)) => {
            let found: Vec<u64> = found.iter().map(|one| one.offset).collect();
            assert_eq!((found, top.offset), (vec![3, 2], 3));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        net.ask(1, Command::HistoryRemove(room.clone())),
        Ok(Outcome::Done(0))
    );
    match net.ask(1, Command::History(room, HistoryQuery::default())) {
        Ok(Outcome::History(found, top)) => assert_eq!((found.len(), top.offset), (0, 3)),
        other => panic!("{other:?}"),
    }
    for command in [
        Command::History(channel("plain"), HistoryQuery::default()),
        Command::Presence(channel("plain")),
    ] {
        assert_eq!(net.ask(2, command), Err(CommandError::NotAvailable));
    }
}

#[test]
fn a_publication_with_a_known_key_is_not_made_again() {
    let mut net = Net::new(2, Limits::default());
    let publish = |key: &str| {
        Command::Publish(Publish {
            channel: channel("kept"),
            message: Message::from("x"),
            options: PublishOptions {
                idempotency_key: Some(key.into()),
                ..PublishOptions::default()
            },
        })
    };
    let first = net.ask(0, publish("one"));
    assert_eq!(net.ask(1, publish("one")), first);
    assert_ne!(net.ask(1, publish("two")), first);
    match net.ask(
        0,
        Command::History(channel("kept"), HistoryQuery::default()),
    ) {
        Ok(Outcome::History(found, _)) => assert_eq!(found.len(), 2),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_command_about_connections_is_done_everywhere_and_answered_once() {
    let mut net = Net::new(4, Limits::default());
    assert_eq!(net.ask(2, Command::Info), Ok(Outcome::Done(4)));
}

#[test]
fn a_command_that_nobody_answers_is_given_up_in_time() {
    let mut net = Net::new(2, Limits::default());
    let away = (0..2)
        .find(|me| net.hubs[0].home.of(&channel("kept")) != *me)
        .unwrap();
    let ticket = net.hubs[away].ask(Command::Presence(channel("kept")), ReplyTo::Endpoint);
    let timeout = Limits::default().answer_timeout;
    net.letters_max = 0;
    net.turn(away, 0, timeout - 1);
    assert!(net.answers.is_empty());
    net.turn(away, 0, timeout);
    assert_eq!(net.answers[&(away, ticket)], Err(CommandError::Internal));
    net.settle(timeout);
    assert_eq!(net.answers.len(), 1, "the late answer goes nowhere");
}

#[test]
fn a16_the_cap_on_subscriptions_is_exact() {
    let limits = Limits {
        subscriptions_max: 3,
        ..Limits::default()
    };
    let mut hub = hubs(1, limits).remove(0);
    let one = subscriber(0, 1);
    let join = |hub: &mut Hub, name| hub.join(&channel(name), &one, Subscription::default());
    assert!(join(&mut hub, "a") && join(&mut hub, "b"));
    assert!(hub.subscribe(&channel("c"), &one, Subscription::default()));
    assert!(!join(&mut hub, "d"));
    assert!(!hub.subscribe(&channel("d"), &one, Subscription::default()));
    assert_eq!(hub.take_counts().subscriptions_refused, 2);
    assert!(
        hub.leave(&channel("c"), one.id).is_some(),
        "not begun, and given up"
    );
    assert!(join(&mut hub, "d"));
    assert!(!join(&mut hub, "d"), "twice is once");
    assert_eq!(hub.take_counts().subscriptions_refused, 0);
    hub.leave_all(one.id);
    assert_eq!((hub.table.channels(), hub.table.subscriptions()), (0, 0));
}

#[test]
fn what_is_published_in_a_turn_crosses_to_each_reactor_once() {
    const MESSAGES: usize = 100;
    for count in [2, 4] {
        let mut net = Net::new(count, Limits::default());
        let room = channel("room");
        let home = net.hubs[0].home.of(&room);
        let publisher = (home + 1) % count;
        for number in 0..MESSAGES {
            net.hubs[publisher].publish(&room, &Message::from(number.to_string()));
        }
        net.turn(publisher, usize::MAX, 1);
        let crossing = |net: &Net| -> Vec<(usize, usize, usize)> {
            let queues = net.queues.iter().filter(|(_, queue)| !queue.is_empty());
            let mut crossing: Vec<_> = queues
                .map(|((from, to), queue)| (*from, *to, queue.len()))
                .collect();
            crossing.sort_unstable();
            crossing
        };
        assert_eq!(crossing(&net), [(publisher, home, 1)]);
        net.turn(home, usize::MAX, 1);
        let others = (0..count).filter(|to| *to != home);
        let expected: Vec<_> = others.map(|to| (home, to, 1)).collect();
        assert_eq!(crossing(&net), expected);
        for parcel in net.queues.values().flatten() {
            let [Item::Deliver(of, batch)] = &parcel.items[..] else {
                panic!("{:?}", parcel.items)
            };
            assert_eq!((of, batch.messages()), (&room, MESSAGES));
        }
    }
}

#[test]
fn who_waits_for_an_answer_is_posted_to_last() {
    const COUNT: usize = 4;
    for asker in 0..COUNT {
        let mut net = Net::new(COUNT, Limits::default());
        let room = channel("kept");
        let home = net.hubs[0].home.of(&room);
        if asker == home {
            continue;
        }
        net.hubs[asker].ask(publication("kept", "x"), ReplyTo::Endpoint);
        net.turn(asker, 0, 1);
        net.hubs[home].begin_turn(1, 1_000);
        let parcel = net.queues.get_mut(&(asker, home)).unwrap().pop_front();
        net.hubs[home].receive(parcel.unwrap());
        let mut posted = Vec::new();
        net.hubs[home].end_turn(|to, parcel| {
            assert!(matches!(parcel.items[0], Item::Deliver(..)));
            posted.push(to);
            Ok(())
        });
        assert_eq!((posted.len(), posted.last()), (COUNT - 1, Some(&asker)));
    }
}

/// Limits of what is kept, as one home has them.
fn keeping(kept: memory::Limits) -> Limits {
    Limits {
        kept,
        ..Limits::default()
    }
}

fn publication(name: &str, text: &str) -> Command {
    Command::Publish(Publish {
        channel: channel(name),
        message: Message::from(text.to_owned()),
        options: PublishOptions::default(),
    })
}

#[test]
fn a_history_more_than_there_is_room_for_is_delivered_and_neither_kept_nor_numbered() {
    let mut net = Net::new(
        1,
        keeping(memory::Limits {
            histories_max: 2,
            ..memory::Limits::default()
        }),
    );
    let third = channel("kept3");
    net.join(0, 1, &third, Subscription::default());
    let is_numbered = |net: &mut Net, name: &str, now: Tick| {
        let ticket = net.hubs[0].ask(publication(name, "x"), ReplyTo::Endpoint);
        net.turn(0, 0, now);
        net.turn(0, 0, now);
        match net.answers.remove(&(0, ticket)) {
            Some(Ok(Outcome::Published(position))) => position.is_some(),
            other => panic!("{other:?}"),
        }
    };
    for (name, is_kept) in [
        ("kept1", true),
        ("kept2", true),
        ("kept3", false),
        ("kept1", true),
    ] {
        assert_eq!(is_numbered(&mut net, name, 1), is_kept, "{name}");
    }
    assert_eq!(net.hubs[0].take_counts().home.history_refused, 1);
    let seen = &net.subscriptions[&(0, 1, third.clone())];
    assert_eq!(seen.texts, ["x"], "whoever is there has it");
    let history = Command::History(third, HistoryQuery::default());
    assert_eq!(net.ask(0, history), Err(CommandError::Internal));
    // There is room again when another one has been forgotten.
    let ttl = crate::timer::ticks(ChannelPolicy::default().history_ttl);
    let forgotten = 11 + ttl + crate::timer::ticks(memory::POSITION_KEPT);
    net.turn(0, 0, 2 + ttl);
    net.turn(0, 0, forgotten);
    assert!(is_numbered(&mut net, "kept3", forgotten));
}

#[test]
fn histories_have_so_many_bytes_in_all_and_the_channel_that_publishes_gives_way() {
    const BYTES_MAX: usize = 4_000;
    let mut net = Net::new(
        1,
        keeping(memory::Limits {
            histories_bytes_max: BYTES_MAX,
            history_bytes_max: BYTES_MAX,
            ..memory::Limits::default()
        }),
    );
    let kept = |net: &mut Net, name: &str| {
        let query = HistoryQuery {
            limit: None,
            ..HistoryQuery::default()
        };
        match net.ask(0, Command::History(channel(name), query)) {
            Ok(Outcome::History(found, top)) => (found.len(), top.offset),
            other => panic!("{other:?}"),
        }
    };
    let text = "x".repeat(400);
    for number in 1..=6 {
        net.ask(0, publication("kept1", &text)).unwrap();
        assert_eq!(kept(&mut net, "kept1"), (number, number as u64));
    }
    for number in 1..=8 {
        net.ask(0, publication("kept2", &text)).unwrap();
        assert!(net.hubs[0].holdings().history_bytes <= BYTES_MAX);
        let (found, top) = kept(&mut net, "kept2");
        assert!(found < 4, "it takes nothing from the other one");
        assert_eq!(top, number, "what is not kept is numbered");
        assert_eq!(kept(&mut net, "kept1"), (6, 6));
    }
    net.ask(0, Command::HistoryRemove(channel("kept1")))
        .unwrap();
    for _ in 0..8 {
        net.ask(0, publication("kept2", &text)).unwrap();
    }
    let (found, _) = kept(&mut net, "kept2");
    assert!(found > 4, "what the other one had is free");
}

#[test]
fn a_channel_counts_so_many_members_and_serves_the_rest() {
    let mut net = Net::new(
        2,
        keeping(memory::Limits {
            members_max: 2,
            ..memory::Limits::default()
        }),
    );
    let room = channel("kept");
    let count = |net: &mut Net| match net.ask(0, Command::PresenceStats(channel("kept"))) {
        Ok(Outcome::PresenceStats { clients, .. }) => clients,
        other => panic!("{other:?}"),
    };
    for slot in 1..=3 {
        net.join(1, slot, &room, Subscription::default());
        assert_eq!(count(&mut net), u64::from(slot.min(2)));
    }
    let refused = net.hubs.iter_mut();
    let refused: u64 = refused
        .map(|hub| hub.take_counts().home.presence_refused)
        .sum();
    assert_eq!(refused, 1);
    net.hubs[0].publish(&room, &Message::from("to all"));
    net.settle(11);
    for slot in 1..=3 {
        let received = &net.subscriptions[&(1, slot, room.clone())];
        assert_eq!(received.texts, ["to all"]);
    }
    // Whoever was not counted leaves no hole, and a place that is free goes to the next one.
    for (slot, left) in [(3, 2), (2, 1)] {
        net.hubs[1].leave(&room, subscriber(1, slot).id);
        assert_eq!(count(&mut net), left);
    }
    net.hubs[0].join(&room, &subscriber(0, 9), Subscription::default());
    assert_eq!(count(&mut net), 2);
}

#[test]
fn joins_and_leaves_are_told_in_order_with_publications() {
    let mut net = Net::new(2, Limits::default());
    let room = channel("kept");
    let words = |event: &Announcement<'_>| {
        Some(match event {
            Announcement::Joined(member, _) => format!("+{}", member.client.slot()),
            Announcement::Left(member, _) => format!("-{}", member.client.slot()),
            Announcement::Many { joined, left, .. } => format!("+{joined}-{left}"),
        })
    };
    let watcher = subscriber(0, 1);
    net.join(0, 1, &room, Subscription::default());
    net.settle(1);
    let announced = |tells_itself| Subscription {
        announcer: Some(Arc::new(words)),
        tells_itself,
        ..Subscription::default()
    };
    let other = subscriber(1, 5);
    net.join(1, 5, &room, announced(false));
    net.hubs[1].publish(&room, &Message::from("hello"));
    net.settle(2);
    net.hubs[1].publish(&room, &Message::from("bye"));
    net.hubs[1].leave(&room, other.id);
    net.end(&(1, 5, room.clone()));
    net.settle(3);
    // Within a turn: nobody is told.
    net.hubs[1].join(&room, &other, announced(false));
    net.hubs[1].leave_all(other.id);
    net.settle(4);
    let got = &net.subscriptions[&(0, 1, room.clone())].texts;
    assert_eq!(*got, ["+5", "hello", "bye", "-5"]);
    match net.ask(0, Command::Presence(room.clone())) {
        Ok(Outcome::Presence(members)) => {
            assert_eq!(members.len(), 1);
            assert_eq!(members[0].client, watcher.id);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        net.ask(1, Command::PresenceStats(room)),
        Ok(Outcome::PresenceStats {
            clients: 1,
            users: 1
        })
    );
}

#[test]
fn a_storm_of_joins_is_told_as_one() {
    let mut net = Net::new(1, Limits::default());
    let room = channel("kept");
    let words = |event: &Announcement<'_>| match event {
        Announcement::Many {
            joined,
            left,
            clients,
            ..
        } => Some(format!("{joined} {left} {clients}")),
        _ => Some("one".to_owned()),
    };
    net.join(0, 0, &room, Subscription::default());
    for slot in 1..=50 {
        let subscription = Subscription {
            announcer: Some(Arc::new(words)),
            ..Subscription::default()
        };
        net.join(0, slot, &room, subscription);
    }
    net.turn(0, 0, 100);
    let singly = announce::ANNOUNCEMENTS_PER_SECOND as usize;
    let told = |net: &Net| net.subscriptions[&(0, 0, room.clone())].texts.clone();
    assert_eq!(told(&net).len(), singly);
    assert_eq!(net.hubs[0].next_deadline(), Some(120));
    net.turn(0, 0, 119);
    assert_eq!(told(&net).len(), singly);
    net.turn(0, 0, 120);
    assert_eq!(told(&net).last().unwrap(), &format!("{} 0 51", 50 - singly));
}

#[test]
fn histories_are_emptied_and_forgotten_in_time() {
    let mut net = Net::new(1, Limits::default());
    let room = channel("kept");
    let position = |net: &mut Net, now| {
        net.turn(0, 0, now);
        let ticket = net.hubs[0].ask(
            Command::History(channel("kept"), HistoryQuery::default()),
            ReplyTo::Endpoint,
        );
        net.turn(0, 0, now);
        net.turn(0, 0, now);
        match net.answers.remove(&(0, ticket)) {
            Some(Ok(Outcome::History(found, top))) => (found.len(), top),
            other => panic!("{other:?}"),
        }
    };
    net.hubs[0].publish(&room, &Message::from("x"));
    let (kept, first) = position(&mut net, 1);
    assert_eq!((kept, first.offset), (1, 1));
    let ttl = crate::timer::ticks(ChannelPolicy::default().history_ttl);
    assert_eq!(net.hubs[0].next_deadline(), Some(1 + ttl));
    assert_eq!(position(&mut net, ttl), (1, first));
    assert_eq!(
        position(&mut net, ttl + 1),
        (0, first),
        "emptied, and the position stands"
    );
    assert_eq!(net.hubs[0].holdings().history_bytes, 0);
    let forgotten = ttl + 1 + crate::timer::ticks(memory::POSITION_KEPT);
    net.turn(0, 0, forgotten - 1);
    assert_eq!(net.hubs[0].holdings().channels, 1);
    net.turn(0, 0, forgotten);
    assert_eq!(net.hubs[0].holdings().channels, 0);
    let (_, anew) = position(&mut net, forgotten);
    assert_eq!(anew.offset, 0);
    assert_ne!(anew.epoch, first.epoch);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whenever letters arrive: a subscription that a command ends has brought what was published before
    /// the command, on the reactor where that was said.
    #[test]
    fn what_was_published_before_a_subscription_is_ended_comes_before_that(
        count in 1usize..5,
        asker in 0usize..4,
        is_kept in any::<bool>(),
        turns in prop::collection::vec((0usize..4, 0usize..2), 0..40),
    ) {
        let (mut net, asker) = (Net::new(count, Limits::default()), asker % count);
        let room = channel(if is_kept { "kept" } else { "room" });
        for me in 0..count {
            net.join(me, 1, &room, Subscription::default());
        }
        net.hubs[asker].publish(&room, &Message::from("before"));
        let command = Command::Unsubscribe(Whom::user("ann"), room.clone());
        net.hubs[asker].ask(command, ReplyTo::Endpoint);
        for (me, letters) in turns {
            net.turn(me % count, letters, 5);
        }
        net.settle(6);
        prop_assert_eq!(net.ended.len(), count);
        for (_, received) in &net.ended {
            prop_assert_eq!(&received.texts, &["before"]);
        }
    }

    /// Reactors whose letters take their time and whose mailboxes fill up: every subscription of a
    /// channel with history gets contiguous offsets from where it began, or is told of a gap; when all
    /// is quiet, whoever was not told has everything; and all see one text at one place.
    #[test]
    fn n1_every_subscription_is_contiguous_or_told_of_a_gap(
        count in 1usize..4,
        is_narrow in any::<bool>(),
        letters_max in 1usize..4,
        steps in prop::collection::vec((0u8..12, 0usize..4, 0u32..4, 0usize..3), 1..250),
    ) {
        let limits = Limits {
            bytes_max: if is_narrow { 40 } else { usize::MAX },
            ..Limits::default()
        };
        let mut net = Net::new(count, limits);
        net.letters_max = if is_narrow { letters_max } else { usize::MAX };
        let names = ["kept:a", "kept:b"].map(channel);
        let mut published = 0;
        let mut known: Map<Channel, StreamPosition> = Map::new();
        for (what, me, slot, extra) in steps {
            let me = me % count;
            let name = &names[extra % 2];
            let key = (me, slot, name.clone());
            match what {
                0..=3 => {
                    net.hubs[me].publish(name, &Message::from(published.to_string()));
                    published += 1;
                }
                4 => {
                    let is_known = net.subscriptions.contains_key(&key);
                    prop_assert_eq!(net.join(me, slot, name, Subscription::default()), !is_known);
                }
                5 | 6 => {
                    let replay = match (extra, known.get(name)) {
                        (0, _) => Replay::Nothing,
                        (1, Some(position)) => Replay::Since(Since::from(*position)),
                        _ => Replay::Last(3),
                    };
                    let subscription = Subscription { replay, ..Subscription::default() };
                    let is_new = net.hubs[me].subscribe(name, &subscriber(me, slot), subscription);
                    prop_assert_eq!(is_new, !net.subscriptions.contains_key(&key));
                    if is_new {
                        net.subscriptions.insert(key, Received::default());
                    }
                }
                7 => {
                    let left = net.hubs[me].leave(name, subscriber(me, slot).id);
                    prop_assert_eq!(left.is_some(), net.subscriptions.contains_key(&key));
                    net.end(&key);
                }
                8 => {
                    net.hubs[me].leave_all(subscriber(me, slot).id);
                    for name in &names {
                        net.end(&(me, slot, name.clone()));
                    }
                }
                _ => {
                    net.turn(me, extra, 5);
                    let positions = net.subscriptions.iter().filter_map(|((.., name), received)| {
                        Some((name.clone(), received.started??))
                    });
                    known.extend(positions);
                }
            }
        }
        net.settle(6);
        // What is published when all is quiet reaches everybody; where it ends is the end of the stream.
        for name in &names {
            net.hubs[0].publish(name, &Message::from("last"));
        }
        net.settle(7);
        for ((.., name), received) in &net.subscriptions {
            prop_assert_eq!(received.texts.last().map(String::as_str), Some("last"), "{}", name);
        }
        // One order: the texts of each are a stretch of the longest stretches that fit together.
        let mut after: Map<(Channel, String), String> = Map::new();
        let all = net.subscriptions.iter().map(|((.., name), received)| (name, received));
        for (name, received) in all.chain(net.ended.iter().map(|(name, received)| (name, received))) {
            for pair in received.texts.windows(2) {
                let next = after.entry((name.clone(), pair[0].clone())).or_insert_with(|| pair[1].clone());
                prop_assert_eq!(&*next, &pair[1], "{}: two orders", name);
            }
        }
        if !is_narrow {
            prop_assert!(net.ended.iter().all(|(_, received)| !received.is_told_of_gap));
            prop_assert!(net.hubs.iter_mut().all(|hub| hub.take_counts().dropped == 0));
        }
        for me in 0..count {
            for slot in 0..4 {
                net.hubs[me].leave_all(subscriber(me, slot).id);
            }
        }
        net.settle(8);
        for hub in &net.hubs {
            prop_assert_eq!((hub.table.subscriptions(), hub.holdings().members), (0, 0));
        }
    }
}
