//! Messages relayed: which, with what in them, and what nobody can write into them.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::channels::tests::Somebody;
use super::*;
use crate::conn::ConnectionId;

const TIME: &str = "2025-11-10T12:00:00Z";

/// What the original's collaboration rooms do.
fn rooms() -> Relay {
    Relay {
        when: Rule::parse(r#"action in ["cursor_update", "text_change"]"#).unwrap(),
        renames: vec![("action".into(), "type".into())],
        stamps: vec![
            Stamp::new("user", "{user}").unwrap(),
            Stamp::new("timestamp", "{time}").unwrap(),
        ],
        wrap: None,
        echo: false,
    }
}

fn alice() -> Somebody {
    Somebody {
        user: Some("alice".into()),
        claims: [(
            "role".to_owned(),
            ClaimValue::One(Scalar::Text("Admin".into())),
        )]
        .into(),
        captures: [("room".to_owned(), "r1".to_owned())].into(),
    }
}

/// The message as the others get it, as text; `None` if no relay takes it.
fn text_of(relays: Vec<Relay>, message: &str) -> Option<String> {
    let relays = Relays::new(relays);
    let who = alice();
    let fields = Fields::parse(message)?;
    let chosen = relays.choose(&fields, &who)?;
    let scene = Scene {
        facts: &who,
        connection: ConnectionId::new(0, 1, 2),
        time: TIME,
    };
    let mut out = Vec::new();
    relays.list()[chosen].write(&fields, scene, &mut out);
    Some(String::from_utf8(out).unwrap())
}

fn relayed(relays: Vec<Relay>, message: &str) -> Option<Value> {
    Some(serde_json::from_str(&text_of(relays, message)?).unwrap())
}

#[test]
fn the_originals_messages_become_what_its_clients_expect() {
    let message = r#"{"action":"cursor_update","position":{"line":3,"column":1.50},"id":12345678901234567890123}"#;
    let expected = r#"{"type":"cursor_update","position":{"line":3,"column":1.50},"id":12345678901234567890123,"user":"alice","timestamp":"2025-11-10T12:00:00Z"}"#;
    assert_eq!(text_of(vec![rooms()], message).unwrap(), expected);
    for other in [
        r#"{"action":"get_status"}"#,
        r#"{"action":["cursor_update"]}"#,
        r#"{"action":null}"#,
        r#"{"Action":"cursor_update"}"#,
        r#"{"data":{"action":"cursor_update"}}"#,
        r#"{"action":"cursor_update","action":"other"}"#,
    ] {
        assert_eq!(relayed(vec![rooms()], other), None, "{other}");
    }
}

#[test]
fn g5_what_the_server_writes_wins() {
    for message in [
        r#"{"action":"text_change","user":"mallory","timestamp":"never","type":"user_left"}"#,
        r#"{"user":"mallory","type":"user_left","action":"text_change"}"#,
        r#"{"action":"text_change","us\u0065r":"mallory","\u0074ype":1}"#,
        r#"{"user":1,"user":2,"action":"other","action":"text_change"}"#,
    ] {
        let expected = json!({"type": "text_change", "user": "alice", "timestamp": TIME});
        assert_eq!(relayed(vec![rooms()], message), Some(expected), "{message}");
    }
    // A reader that takes the first of two of a name is not led astray either: there is one of each.
    let text = text_of(
        vec![rooms()],
        r#"{"type":1,"action":"text_change","type":2,"x":1,"x":2}"#,
    );
    let expected = format!(r#"{{"type":"text_change","x":2,"user":"alice","timestamp":"{TIME}"}}"#);
    assert_eq!(text.unwrap(), expected);
}

#[test]
fn g5_names_and_texts_stay_what_they_are() {
    let message =
        "{\"action\":\"text_change\",\"a\\\"b\":\"\u{2028}</script>\",\"é\":\"\\ud83d\\ude00\"}";
    let got = relayed(vec![rooms()], message).unwrap();
    assert_eq!(
        (got["a\"b"].as_str(), got["é"].as_str()),
        (Some("\u{2028}</script>"), Some("😀"))
    );
    for half in [r"\ud83d", r"\uDE00", r"\ud83dx", r"\ud83d\ud83d"] {
        for message in [
            format!(r#"{{"action":"text_change","x":"{half}"}}"#),
            format!(r#"{{"action":"text_change","x":{{"y":["{half}"]}}}}"#),
            format!(r#"{{"action":"text_change","{half}":1}}"#),
        ] {
            assert_eq!(relayed(vec![rooms()], &message), None, "{message}");
        }
    }
}

#[test]
fn what_is_no_object_is_nobodys() {
    for text in [
        "",
        " ",
        "x",
        "1",
        "null",
        "[]",
        r#"[{"action":"text_change"}]"#,
        "\"{}\"",
        r#"{"action":"text_change""#,
        r#"{"action":"text_change"}}"#,
        r#"{"action":"text_change",}"#,
        r#"{'action':'text_change'}"#,
        r#"{"action":"text_change","x":01}"#,
        "{\"action\":\"text_change\",\"x\":\"\n\"}",
        r#"{"action":"text_change","x":NaN}"#,
    ] {
        assert_eq!(relayed(vec![rooms()], text), None, "{text:?}");
    }
    assert!(relayed(vec![rooms()], " \n{ \"action\" : \"text_change\" } ").is_some());
}

#[test]
fn g5_depth_and_fields_are_capped() {
    for (depth, is_good) in [(7, true), (8, true), (9, false)] {
        // The object itself is one.
        let nested = format!("{}{}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        let message = format!(r#"{{"action":"text_change","x":{nested}}}"#);
        assert_eq!(
            relayed(vec![rooms()], &message).is_some(),
            is_good,
            "{depth}"
        );
    }
    for (count, is_good) in [(63, true), (64, true), (65, false)] {
        let more: String = (1..count).map(|n| format!(r#","f{n}":{n}"#)).collect();
        let message = format!(r#"{{"action":"text_change"{more}}}"#);
        assert_eq!(
            relayed(vec![rooms()], &message).is_some(),
            is_good,
            "{count}"
        );
    }
}

#[test]
fn fields_can_be_put_together_under_a_name() {
    let relay = Relay {
        when: Rule::parse("action = 'update_milestone'").unwrap(),
        stamps: vec![Stamp::new("type", "project_update").unwrap()],
        wrap: Some("data".into()),
        ..rooms()
    };
    let message = r#"{"action":"update_milestone","type":"x","id":3}"#;
    let got = relayed(vec![relay.clone()], message).unwrap();
    let expected = json!({"type": "project_update", "data": {"type": "update_milestone", "id": 3}});
    assert_eq!(got, expected);
    let bare = Relay {
        stamps: vec![],
        renames: vec![],
        ..relay.clone()
    };
    let expected = json!({"data": {"action": "update_milestone", "type": "x", "id": 3}});
    assert_eq!(relayed(vec![bare], message), Some(expected));
    let hidden = Relay {
        stamps: vec![Stamp::new("data", "{user}").unwrap()],
        ..relay
    };
    assert_eq!(
        relayed(vec![hidden], message),
        Some(json!({"data": "alice"}))
    );
}

#[test]
fn rules_see_fields_claims_and_captures_and_the_first_that_holds_counts() {
    let when = |rule: &str, kind: &str| Relay {
        when: Rule::parse(rule).unwrap(),
        stamps: vec![Stamp::new("type", kind).unwrap()],
        renames: vec![],
        wrap: None,
        echo: true,
    };
    let relays = vec![
        when("action = 'a' and claims.role = 'Admin'", "first"),
        when("action = 'a'", "never"),
        when("action = 'b' and not claims.role = 'Admin'", "never"),
        when("meta.level = 3 and room = {room}", "nested"),
        when("tags contains 'x'", "listed"),
        when("draft = false", "switch"),
    ];
    let mut list = "1,".repeat(62);
    for (message, expected) in [
        (r#"{"action":"a"}"#.to_owned(), Some("first")),
        (r#"{"action":"b","claims":{"role":"User"}}"#.into(), None),
        (r#"{"meta":{"level":3},"room":"r1"}"#.into(), Some("nested")),
        (r#"{"meta":{"level":3.0},"room":"r1"}"#.into(), None),
        (r#"{"meta":{"level":"3"},"room":"r1"}"#.into(), None),
        (r#"{"meta":{"level":3},"room":"r2"}"#.into(), None),
        (r#"{"tags":[null,"x"]}"#.into(), Some("listed")),
        (format!(r#"{{"tags":[{list}"x"]}}"#), Some("listed")),
        (r#"{"draft":false}"#.into(), Some("switch")),
    ] {
        let got = relayed(relays.clone(), &message);
        let kind = got.as_ref().and_then(|got| got["type"].as_str());
        assert_eq!(kind, expected, "{message}");
    }
    // 64 are looked at, 65 are not.
    list.push_str("1,");
    assert!(relayed(relays.clone(), &format!(r#"{{"tags":[{list}"x"]}}"#)).is_some());
    list.push_str("1,");
    assert_eq!(relayed(relays, &format!(r#"{{"tags":[{list}"x"]}}"#)), None);
    let any = Relay {
        when: Rule::any(),
        ..rooms()
    };
    assert!(relayed(vec![any], "{}").is_some());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-z\"\\\\é]{0,3}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Against a naive map: the same fields, renamed and stamped.
    #[test]
    fn a_relayed_message_is_the_clients_but_for_renames_and_stamps(
        fields in prop::collection::hash_map("type|user|timestamp|[a-z\"\\\\é]{0,3}", any_json(), 0..8),
    ) {
        let mut message: serde_json::Map<String, Value> = fields.into_iter().collect();
        message.insert("action".into(), "text_change".into());
        let mut expected = message.clone();
        expected.remove("action");
        expected.insert("type".into(), "text_change".into());
        expected.insert("user".into(), "alice".into());
        expected.insert("timestamp".into(), TIME.into());
        let text = Value::Object(message).to_string();
        prop_assert_eq!(relayed(vec![rooms()], &text), Some(Value::Object(expected)));
    }

    /// Whatever comes, nothing panics, and what leaves is an object with the server's fields in it.
    #[test]
    fn whatever_comes_what_leaves_is_stamped(text in "\\{(\"(action|user|type|\\\\u0075ser)\":(\"text_change\"|\\[1,\\{\\}\\]|-0|1e9|\"\\\\ud8(00|3d\\\\ude00)\"),?){0,4}\\}") {
        if let Some(got) = relayed(vec![rooms()], &text) {
            prop_assert_eq!(got["user"].as_str(), Some("alice"));
            prop_assert_eq!(got["type"].as_str(), Some("text_change"));
        }
    }
}
