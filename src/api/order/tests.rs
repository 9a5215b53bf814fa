//! Bodies as requests have them, and what they ask for.

use proptest::prelude::*;

use super::*;

fn read(method: ApiMethod, body: &str) -> Result<Order<'_>, Refusal> {
    Order::read(method, body, &Limits::default())
}

/// The one task of a request that has one.
fn task(method: ApiMethod, body: &str) -> Task<'_> {
    let mut order = read(method, body).unwrap_or_else(|error| panic!("{body}: {error:?}"));
    assert_eq!(order.tasks.len(), 1, "{body}");
    order.tasks.remove(0)
}

fn error(method: ApiMethod, body: &str) -> ApiError {
    match task(method, body) {
        Task::Fail(error) => error,
        other => panic!("{body}: {other:?}"),
    }
}

fn publication(body: &str) -> Publication<'_> {
    match task(ApiMethod::Publish, body) {
        Task::Publish(publication) => publication,
        other => panic!("{body}: {other:?}"),
    }
}

#[test]
fn data_is_passed_on_as_it_is_written() {
    for data in [
        r#"{"b":1,"a":[1.10,  2e5, 18446744073709551616]}"#,
        "null",
        "0",
        r#""\u00e9 é \ud83d\ude00 \n""#,
        "\"\\\"\"",
        "{}",
        "[ ]",
    ] {
        let body = format!(r#"{{"channel":"a","data":{data}}}"#);
        assert_eq!(publication(&body).message, Message::from(data), "{data}");
        assert!(matches!(
            publication(&body).message,
            Message::Text(Cow::Borrowed(_))
        ));
    }
}

#[test]
fn line_breaks_between_parts_are_taken_out_of_data() {
    for (data, expected) in [
        (
            "{\n  \"a b\": \"c \\\" d\",\r\n\t\"e\": [ 1,\n2 ]\n}",
            r#"{"a b":"c \" d","e":[1,2]}"#,
        ),
        ("[\n\"\\\\\", \" \"\n]", r#"["\\"," "]"#),
        ("[\n]", "[]"),
    ] {
        let body = format!(r#"{{"channel":"a","data":{data}}}"#);
        assert_eq!(publication(&body).message, Message::from(expected));
    }
}

#[test]
fn a_publication_has_options() {
    let plain = publication(r#"{"channel":"a","data":1}"#);
    assert_eq!(plain.channel.as_str(), "a");
    assert!(!plain.options.skip_history && plain.options.tags.is_none());
    assert!(plain.options.idempotency_key.is_none() && plain.options.exclude.is_none());
    let full = publication(
        r#"{"channel":"a","data":1,"skip_history":true,"tags":{"x":"1","y":"é"},
            "idempotency_key":"k\u0031","delta":true,"version":0,"anything":[{}]}"#,
    );
    assert!(full.options.skip_history);
    assert_eq!(full.options.idempotency_key.as_deref(), Some("k1"));
    let tags = full.options.tags.unwrap();
    let tags: Vec<_> = tags
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    assert_eq!(tags, [("x", "1"), ("y", "é")]);
    // Clients in other languages write what is absent as null.
    let nulls = publication(
        r#"{"channel":"a","data":1,"skip_history":null,"tags":null,"idempotency_key":null,
            "b64data":null,"version":null}"#,
    );
    assert!(nulls.options.idempotency_key.is_none());
    let bytes = publication(r#"{"channel":"a","b64data":"AAH/","data":1}"#);
    assert_eq!(bytes.message, Message::from(&b"\x00\x01\xff"[..]));
}

#[test]
fn g1_what_is_missing_or_wrong_in_a_command_is_its_own_error() {
    use ApiMethod as M;
    let long = format!(r#"{{"channel":"{}","data":1}}"#, "n".repeat(129));
    let key = |length| {
        let key = "k".repeat(length);
        format!(r#"{{"channel":"a","data":1,"idempotency_key":"{key}"}}"#)
    };
    let _ = publication(&key(255));
    let _ = publication(&key(256));
    let bad = ApiError::BAD_REQUEST;
    for (method, body, expected) in [
        (M::Publish, "{}", bad),
        (M::Publish, r#"{"data":1}"#, bad),
        (M::Publish, r#"{"channel":"","data":1}"#, bad),
        (M::Publish, r#"{"channel":null,"data":1}"#, bad),
        (M::Publish, r#"{"channel":"a"}"#, bad),
        (M::Publish, r#"{"channel":"a b","data":1}"#, bad),
        (M::Publish, r#"{"channel":"ä","data":1}"#, bad),
        (M::Publish, r#"{"channel":"a\n","data":1}"#, bad),
        (M::Publish, r#"{"channel":"\u0000","data":1}"#, bad),
        (M::Publish, &long, bad),
        (M::Publish, &key(257), bad),
        (M::Publish, r#"{"channel":"a","b64data":"?"}"#, bad),
        (
            M::Publish,
            r#"{"channel":"a","data":1,"version":3}"#,
            ApiError::NOT_AVAILABLE,
        ),
        (M::Broadcast, r#"{"data":1}"#, bad),
        (M::Broadcast, r#"{"channels":[],"data":1}"#, bad),
        (M::Broadcast, r#"{"channels":["a","b"]}"#, bad),
        (M::Presence, "{}", bad),
        (M::PresenceStats, r#"{"channel":"?"}"#, bad),
        (M::HistoryRemove, r#"{"channel":"?"}"#, bad),
        (M::History, r#"{"channel":"?"}"#, bad),
        (
            M::History,
            r#"{"channel":"a","reverse":true,"since":{"offset":0}}"#,
            bad,
        ),
        (M::Disconnect, "{}", bad),
        (M::Disconnect, r#"{"user":""}"#, bad),
        (
            M::Disconnect,
            r#"{"user":"u","disconnect":{"code":2999}}"#,
            bad,
        ),
        (
            M::Disconnect,
            r#"{"user":"u","disconnect":{"code":5000}}"#,
            bad,
        ),
        (
            M::Disconnect,
            r#"{"user":"u","disconnect":{"code":70000}}"#,
            bad,
        ),
        (M::Subscribe, r#"{"user":"u"}"#, bad),
        (
            M::Subscribe,
            r#"{"user":"u","channel":"a","expire_at":9}"#,
            ApiError::NOT_AVAILABLE,
        ),
        (M::Unsubscribe, r#"{"channel":"a"}"#, bad),
        (M::Refresh, r#"{"user":"u","expire_at":-1}"#, bad),
    ] {
        assert_eq!(error(method, body), expected, "{} {body}", method.name());
    }
}

#[test]
fn what_is_not_json_or_of_another_shape_is_refused_as_a_whole() {
    for (body, is_json, column) in [
        ("", false, 0),
        ("x", false, 1),
        ("{", false, 1),
        (r#"{"channel":"a","data":1"#, false, 23),
        (r#"{"channel":"a","data":1}}"#, false, 25),
        (r#"{"channel":"a","data":01}"#, false, 24),
        (r#"{"channel":1,"data":1}"#, true, 12),
        (r#"{"channel":"a","data":1,"channel":"b"}"#, true, 33),
        (r#"{"channel":"a","data":1,"tags":{"a":1}}"#, true, 37),
        (r#"{"channel":"a","data":1,"skip_history":"yes"}"#, true, 44),
        ("[]", true, 2),
    ] {
        let expected = Refusal::Json {
            line: 1,
            column,
            is_json,
        };
        let refused = read(ApiMethod::Publish, body).unwrap_err();
        // An array has no field of that name either, and serde says so at its own place.
        if body == "[]" {
            assert_eq!(refused.status(), 400);
        } else {
            assert_eq!(refused, expected, "{body}");
        }
    }
}

#[test]
fn a_broadcast_is_a_publication_to_each_channel() {
    let order = read(
        ApiMethod::Broadcast,
        r#"{"channels":["a","?","b"],"data":{"x":1}}"#,
    )
    .unwrap();
    assert_eq!(order.shape, Shape::Broadcast(3));
    assert!(order.is_parallel);
    let tasks = order.tasks.iter().map(|task| match task {
        Task::Publish(one) => Ok(one.channel.as_str()),
        Task::Fail(error) => Err(*error),
        Task::Ask(_) => panic!("not asked here"),
    });
    let tasks: Vec<_> = tasks.collect();
    assert_eq!(tasks, [Ok("a"), Err(ApiError::BAD_REQUEST), Ok("b")]);
}

#[test]
fn a16_lists_are_bounded() {
    let limits = Limits {
        channels_max: 3,
        commands_max: 3,
    };
    for (count, fits) in [(2, true), (3, true), (4, false)] {
        let list = |item: &str| vec![item; count].join(",");
        let broadcast = format!(r#"{{"channels":[{}],"data":1}}"#, list(r#""a""#));
        let read = Order::read(ApiMethod::Broadcast, &broadcast, &limits);
        assert_eq!(read.is_ok(), fits, "{count} channels");
        let batch = format!(r#"{{"commands":[{}]}}"#, list(r#"{"info":{}}"#));
        let read = Order::read(ApiMethod::Batch, &batch, &limits);
        assert_eq!(read.is_ok(), fits, "{count} commands");
        let nested = format!(r#"{{"commands":[{{"broadcast":{broadcast}}}]}}"#);
        let read = Order::read(ApiMethod::Batch, &nested, &limits);
        assert_eq!(read.is_ok(), fits, "{count} channels in a batch");
    }
}

#[test]
fn a_broadcast_makes_so_many_bytes_at_most() {
    let channels = vec![r#""a""#; 1000].join(",");
    for (length, fits) in [
        (BROADCAST_BYTES_MAX / 1000, true),
        (BROADCAST_BYTES_MAX / 1000 + 1, false),
    ] {
        let data = "x".repeat(length - 2);
        let body = format!(r#"{{"channels":[{channels}],"data":"{data}"}}"#);
        let order = read(ApiMethod::Broadcast, &body).unwrap();
        assert_eq!(order.tasks.len() == 1000, fits, "{length}");
        if !fits {
            assert_eq!(order.shape, Shape::One(ApiMethod::Broadcast));
            assert!(matches!(
                order.tasks[..],
                [Task::Fail(ApiError::LimitExceeded)]
            ));
        }
    }
}

#[test]
fn a_batch_is_a_list_of_commands_each_with_its_own_method() {
    let order = read(
        ApiMethod::Batch,
        r#"{"commands":[{"publish":{"channel":"a","data":1}},{"broadcast":{"channels":["b","c"],
            "data":2}},{"rpc":{}},{},{"info":{},"channels":{}},{"batch":{"commands":[]}},
            {"presence":{"channel":"a"}}],"parallel":true}"#,
    )
    .unwrap();
    let one = Shape::One;
    let items = vec![
        one(ApiMethod::Publish),
        Shape::Broadcast(2),
        one(ApiMethod::Unknown),
        one(ApiMethod::Unknown),
        one(ApiMethod::Unknown),
        one(ApiMethod::Unknown),
        one(ApiMethod::Presence),
    ];
    assert_eq!(order.shape, Shape::Batch(items));
    assert!(order.is_parallel);
    let errors = order.tasks.iter().map(|task| match task {
        Task::Fail(error) => Some(*error),
        _ => None,
    });
    let errors: Vec<_> = errors.collect();
    let bad = Some(ApiError::BAD_REQUEST);
    let expected = [
        None,
        None,
        None,
        Some(ApiError::NOT_FOUND),
        bad,
        bad,
        bad,
        None,
    ];
    assert_eq!(errors, expected);
    assert!(
        !read(ApiMethod::Batch, r#"{"commands":[]}"#)
            .unwrap()
            .is_parallel
    );
    // A command of the wrong shape makes the request one that is not understood: nothing is done.
    let refused = read(
        ApiMethod::Batch,
        r#"{"commands":[{"publish":{"channel":"a","data":1}},{"publish":{"channel":1}}]}"#,
    );
    assert_eq!(refused.unwrap_err().status(), 400);
}

#[test]
fn history_is_asked_for_as_in_the_reference() {
    let query = |body: &str| match task(ApiMethod::History, body) {
        Task::Ask(Command::History(channel, query)) => {
            assert_eq!(channel.as_str(), "a");
            query
        }
        other => panic!("{other:?}"),
    };
    let position_only = HistoryQuery {
        limit: Some(0),
        ..HistoryQuery::default()
    };
    assert_eq!(query(r#"{"channel":"a"}"#), position_only);
    assert_eq!(query(r#"{"channel":"a","limit":-1}"#).limit, None);
    assert_eq!(query(r#"{"channel":"a","limit":7}"#).limit, Some(7));
    let since = query(
        r#"{"channel":"a","limit":1,"since":{"offset":3,"epoch":"abcdEFGH"},"reverse":true}"#,
    );
    assert!(since.reverse);
    let Some(Since { offset: 3, epoch }) = since.since else {
        panic!("{since:?}");
    };
    assert_eq!(epoch.unwrap().as_str(), "abcdEFGH");
    let any = query(r#"{"channel":"a","since":{}}"#).since.unwrap();
    assert_eq!((any.offset, any.epoch), (0, None));
}

#[test]
fn users_are_addressed_by_name_and_narrowed_to_a_connection() {
    let id = ConnectionId::new(1, 2, 3);
    for (method, body, expected) in [
        (
            ApiMethod::Unsubscribe,
            r#"{"user":"u","channel":"a"}"#.to_owned(),
            None,
        ),
        (
            ApiMethod::Unsubscribe,
            format!(r#"{{"user":"","channel":"a","client":"{id}"}}"#),
            Some(id),
        ),
        (
            ApiMethod::Unsubscribe,
            r#"{"user":"u","channel":"a","client":"nobody's","session":""}"#.to_owned(),
            Some(NOBODY),
        ),
        (
            ApiMethod::Unsubscribe,
            format!(r#"{{"user":"u","channel":"a","session":"{id}"}}"#),
            Some(id),
        ),
    ] {
        match task(method, &body) {
            Task::Ask(Command::Unsubscribe(whom, channel)) => {
                assert_eq!((whom.client, channel.as_str()), (expected, "a"), "{body}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn who_is_disconnected_is_told_why() {
    let id = ConnectionId::new(0, 1, 2);
    let disconnect = |body: &str| match task(ApiMethod::Disconnect, body) {
        Task::Ask(Command::Disconnect(disconnect)) => disconnect,
        other => panic!("{other:?}"),
    };
    let usual = disconnect(r#"{"user":"u"}"#);
    assert_eq!(usual.code, CloseCode::from(3503));
    assert_eq!(
        (&*usual.reason, &*usual.whom.user),
        ("force disconnect", "u")
    );
    let other = disconnect(&format!(
        r#"{{"user":"u","whitelist":["{id}","x"],"disconnect":{{"code":4000,"reason":"bye"}}}}"#
    ));
    assert_eq!((other.code, &*other.reason), (CloseCode::from(4000), "bye"));
    assert_eq!(*other.whitelist, [id]);
    let edges = [3000, 4999].map(|code| {
        let body = format!(r#"{{"user":"u","disconnect":{{"code":{code}}}}}"#);
        disconnect(&body).code
    });
    assert_eq!(edges, [3000, 4999].map(CloseCode::from));
}

#[test]
fn a_refresh_prolongs_or_ends() {
    for (fields, expected) in [
        ("", Refresh::Until(None)),
        (r#","expire_at":0"#, Refresh::Until(None)),
        (
            r#","expire_at":1900000000"#,
            Refresh::Until(Some(1_900_000_000)),
        ),
        (
            r#","expired":true,"expire_at":1900000000"#,
            Refresh::Expired,
        ),
    ] {
        let body = format!(r#"{{"user":"u"{fields}}}"#);
        match task(ApiMethod::Refresh, &body) {
            Task::Ask(Command::Refresh(_, refresh)) => assert_eq!(refresh, expected, "{body}"),
            other => panic!("{other:?}"),
        }
    }
}

proptest! {
    #[test]
    fn g5_taking_out_line_breaks_changes_no_value(
        value in "[a-z\\\\\"\n\r \u{2028}é]{0,20}", numbers in prop::collection::vec(any::<i32>(), 0..5)
    ) {
        let object = serde_json::json!({ "v": value, "n": numbers, "o": { "x": [null, true] } });
        let pretty = serde_json::to_string_pretty(&object).unwrap();
        let compact = on_one_line(&pretty);
        prop_assert!(!compact.contains(['\n', '\r']));
        prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&compact).unwrap(), object);
    }

    #[test]
    fn any_body_is_answered(body in "\\PC*", method in 0..ApiMethod::ALL.len()) {
        let _ = read(ApiMethod::ALL[method], &body);
    }
}

#[test]
fn a_pattern_has_a_longest_length() {
    for (length, fits) in [(255, true), (256, true), (257, false)] {
        let body = format!(r#"{{"pattern":"{}"}}"#, "*".repeat(length));
        let asked = matches!(task(ApiMethod::Channels, &body), Task::Ask(_));
        assert_eq!(asked, fits, "{length}");
    }
}
