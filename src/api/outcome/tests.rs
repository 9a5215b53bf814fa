//! Outcomes, and the JSON that they become.

use std::sync::Arc;

use serde_json::Value;

use super::*;
use crate::conn::ConnectionId;
use crate::hub::Channel;
use crate::hub::command::{Epoch, Info};

const FACTS: Facts<'_> = Facts {
    uid: "u1",
    host: "a \"host\"",
    uptime: 12,
};

fn result(outcome: &Outcome) -> String {
    let bytes = piece(outcome, &[], &FACTS).unwrap().into_owned();
    let text = String::from_utf8(bytes).unwrap();
    serde_json::from_str::<Value>(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
    text
}

fn position(offset: u64) -> StreamPosition {
    let epoch = Epoch::read("abcdEFGH").unwrap();
    StreamPosition { offset, epoch }
}

fn publication(offset: u64, message: Message<'static>) -> Arc<Publication> {
    Arc::new(Publication {
        offset,
        message,
        tags: None,
    })
}

#[test]
fn results_have_the_shapes_of_the_reference() {
    let present = |client, user: &str, info: Option<&str>| Present {
        client: ConnectionId::new(0, 0, client),
        user: user.into(),
        info: info.map(Into::into),
        since: 7,
    };
    let mut tagged = Publication {
        offset: 2,
        message: Message::from("{\"t\": 1}"),
        tags: Some([("a\"".into(), "\n".into())].into()),
    };
    let history = vec![
        publication(1, Message::from("1")),
        Arc::new(tagged.clone()),
        publication(3, Message::from("not \"JSON\"")),
        publication(4, Message::from(&b"\x00\xff"[..])),
    ];
    tagged.tags = None;
    let info = Info {
        clients: 2,
        users: 1,
        channels: 4,
        subscriptions: 3,
    };
    let channels = ["room:1", "a"].map(|name| ChannelInfo {
        channel: Channel::new(name).unwrap(),
        clients: 2,
    });
    for (outcome, expected) in [
        (Outcome::Published(None), "{}"),
        (Outcome::Done(3), "{}"),
        (
            Outcome::Published(Some(position(44))),
            r#"{"offset":44,"epoch":"abcdEFGH"}"#,
        ),
        (Outcome::Presence(Vec::new()), r#"{"presence":{}}"#),
        (
            Outcome::Presence(vec![
                present(1, "4\"2", Some(r#"{"name":"Ann"}"#)),
                present(2, "", None),
            ]),
            concat!(
                r#"{"presence":{"0000000000000001":{"user":"4\"2","client":"0000000000000001","#,
                r#""conn_info":{"name":"Ann"}},"0000000000000002":{"user":"","#,
                r#""client":"0000000000000002"}}}"#
            ),
        ),
        (
            Outcome::PresenceStats {
                clients: 2,
                users: 1,
            },
            r#"{"num_clients":2,"num_users":1}"#,
        ),
        (
            Outcome::History(Vec::new(), position(0)),
            r#"{"publications":[],"offset":0,"epoch":"abcdEFGH"}"#,
        ),
        (
            Outcome::History(history, position(9)),
            concat!(
                r#"{"publications":[{"data":1,"offset":1},{"data":{"t": 1},"offset":2,"#,
                r#""tags":{"a\"":"\n"}},{"data":"not \"JSON\"","offset":3},"#,
                r#"{"b64data":"AP8=","offset":4}],"offset":9,"epoch":"abcdEFGH"}"#
            ),
        ),
        (Outcome::Channels(Vec::new()), r#"{"channels":{}}"#),
        (
            Outcome::Channels(channels.into()),
            r#"{"channels":{"room:1":{"num_clients":2},"a":{"num_clients":2}}}"#,
        ),
        (
            Outcome::Info(info),
            concat!(
                r#"{"nodes":[{"uid":"u1","name":"a \"host\"","version":""#,
                env!("CARGO_PKG_VERSION"),
                r#"","num_clients":2,"num_users":1,"num_subs":3,"num_channels":4,"uptime":12}]}"#
            ),
        ),
    ] {
        assert_eq!(result(&outcome), expected);
    }
}

#[test]
fn channels_that_the_key_is_not_good_for_are_not_shown() {
    let channels = ["a:1", "b", "a:2"].map(|name| ChannelInfo {
        channel: Channel::new(name).unwrap(),
        clients: 1,
    });
    let shown = piece(
        &Outcome::Channels(channels.into()),
        &["a:".to_owned()],
        &FACTS,
    );
    let expected = br#"{"channels":{"a:1":{"num_clients":1},"a:2":{"num_clients":1}}}"#;
    assert_eq!(shown.unwrap().as_ref(), expected);
}

#[test]
fn a_result_has_a_longest_length() {
    // Ten bytes stand around the data of each.
    let of = |length: usize| {
        let message = Message::from("1".repeat(length));
        Outcome::History(vec![publication(1, message)], position(1))
    };
    let empty = r#"{"publications":[{"data":,"offset":1}"#.len();
    let at = |length| piece(&of(length), &[], &FACTS).map(|result| result.len());
    assert!(at(REPLY_BYTES_MAX - empty - 1).is_ok());
    assert!(at(REPLY_BYTES_MAX - empty).is_ok());
    assert_eq!(
        at(REPLY_BYTES_MAX - empty + 1),
        Err(ApiError::LimitExceeded)
    );
}
