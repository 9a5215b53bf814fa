//! The handshake against RFC 6455 §4.2. Names begin with the id of the threat a test stands for.

use proptest::prelude::*;

use super::*;
use crate::http::head::{HeadReader, Limits, Progress};

/// Runs `test` on the outcome of checking `head`, which must be a whole and acceptable head.
fn checked<T>(head: &str, test: impl FnOnce(Result<Upgrade<'_>, UpgradeError>) -> T) -> T {
    let mut reader = HeadReader::new();
    match reader.receive(head.as_bytes(), &Limits::default()) {
        Ok(Progress::Complete { head, .. }) => test(Upgrade::check(&head)),
        other => panic!("{head:?} came to {other:?}"),
    }
}

fn refusal(head: &str) -> Option<UpgradeError> {
    checked(head, |outcome| outcome.err())
}

/// The example of RFC 6455 §1.3.
const RFC: &str = "GET /chat HTTP/1.1\r\n\
    Host: server.example.com\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Origin: http://example.com\r\n\
    Sec-WebSocket-Protocol: chat, superchat\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

/// [`RFC`] with `from` replaced; `from` must be there.
fn rfc_with(from: &str, to: &str) -> String {
    assert!(RFC.contains(from), "{from}");
    RFC.replace(from, to)
}

#[test]
fn the_example_of_the_rfc_is_answered_as_printed_there() {
    checked(RFC, |upgrade| {
        let upgrade = upgrade.unwrap();
        assert_eq!(upgrade.origin(), Some("http://example.com"));
        assert_eq!(
            upgrade.protocols().collect::<Vec<_>>(),
            ["chat", "superchat"]
        );
        assert_eq!(upgrade.extensions().count(), 0);
        assert_eq!(upgrade.accept_key(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let mut out = Vec::new();
        write_accept(&mut out, &upgrade, Some("chat"), None);
        assert_eq!(
            String::from_utf8_lossy(&out),
            "HTTP/1.1 101 Switching Protocols\r\n\
             Upgrade: websocket\r\n\
             Connection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
             Sec-WebSocket-Protocol: chat\r\n\r\n"
        );
    });
}

#[test]
fn negotiated_extensions_are_in_the_answer() {
    let head = rfc_with(
        "Origin: http://example.com\r\n",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
         sec-websocket-extensions: x\r\n",
    );
    checked(&head, |upgrade| {
        let upgrade = upgrade.unwrap();
        assert_eq!(upgrade.origin(), None);
        let values: Vec<_> = upgrade.extensions().collect();
        assert_eq!(values, ["permessage-deflate; client_max_window_bits", "x"]);
        let mut out = Vec::new();
        write_accept(&mut out, &upgrade, None, Some(b"permessage-deflate"));
        assert!(out.ends_with(b"xOo=\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"));
    });
}

/// Every subset of the requirements of §4.2.1: only the whole set passes, and what is missing first
/// decides the answer.
#[test]
fn b5_truth_table_of_omissions() {
    let requirements = [
        ("GET", "POST", UpgradeError::Method),
        ("HTTP/1.1", "HTTP/1.0", UpgradeError::HttpVersion),
        ("", "Content-Length: 1\r\n", UpgradeError::Body),
        ("Upgrade: websocket\r\n", "", UpgradeError::NotAnUpgrade),
        ("Connection: Upgrade\r\n", "", UpgradeError::Connection),
        ("Sec-WebSocket-Version: 13\r\n", "", UpgradeError::Version),
        (
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            "",
            UpgradeError::Key,
        ),
    ];
    for set in 0..1u32 << requirements.len() {
        let part = |at: usize| {
            let (met, missed, _) = requirements[at];
            if set & (1 << at) == 0 { met } else { missed }
        };
        let lines: String = (2..requirements.len()).map(part).collect();
        let head = format!("{} /chat {}\r\nHost: a\r\n{lines}\r\n", part(0), part(1));
        let first = (0..requirements.len()).find(|at| set & (1 << at) != 0);
        assert_eq!(refusal(&head), first.map(|at| requirements[at].2), "{head}");
    }
}

#[test]
fn b5_each_refusal_has_its_status_and_headers() {
    let upgrade = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
    ];
    let cases: [(_, _, &[_]); 9] = [
        (UpgradeError::Method, 405, &[("Allow", "GET")]),
        (UpgradeError::HttpVersion, 400, &[]),
        (UpgradeError::Body, 400, &[]),
        (UpgradeError::NotAnUpgrade, 426, &upgrade),
        (UpgradeError::Connection, 400, &[]),
        (UpgradeError::Version, 426, &upgrade),
        (UpgradeError::Key, 400, &[]),
        (UpgradeError::Protocols, 400, &[]),
        (UpgradeError::EarlyBytes, 400, &[]),
    ];
    for (error, status, headers) in cases {
        assert_eq!(
            (error.status(), error.headers()),
            (status, headers),
            "{error}"
        );
    }
}

#[test]
fn upgrade_and_connection_are_lists_in_any_case() {
    for line in [
        "Connection: keep-alive, Upgrade\r\n",
        "Connection: UPGRADE\r\n",
        "Connection: keep-alive\r\nconnection: \t,upgrade ,\r\n",
    ] {
        assert_eq!(
            refusal(&rfc_with("Connection: Upgrade\r\n", line)),
            None,
            "{line}"
        );
    }
    for line in [
        "Connection: Upgraded\r\n",
        "Connection: keep-alive\r\n",
        "Connection:\r\n",
    ] {
        let head = rfc_with("Connection: Upgrade\r\n", line);
        assert_eq!(refusal(&head), Some(UpgradeError::Connection), "{line}");
    }
    for line in [
        "Upgrade: WebSocket\r\n",
        "Upgrade: h2c, websocket\r\n",
        "Upgrade: x\r\nUpgrade: websocket\r\n",
    ] {
        assert_eq!(
            refusal(&rfc_with("Upgrade: websocket\r\n", line)),
            None,
            "{line}"
        );
    }
    for line in [
        "Upgrade: websockets\r\n",
        "Upgrade: h2c\r\n",
        "Upgrade:\r\n",
        "Upgrade: \"websocket\"\r\n",
    ] {
        let head = rfc_with("Upgrade: websocket\r\n", line);
        assert_eq!(refusal(&head), Some(UpgradeError::NotAnUpgrade), "{line}");
    }
}

#[test]
fn only_version_13_is_spoken() {
    for version in [
        "", "8", "12", "14", "013", "13, 8", "13.0", "+13", "\u{FFFD}",
    ] {
        let head = rfc_with("Version: 13", &format!("Version: {version}"));
        assert_eq!(refusal(&head), Some(UpgradeError::Version), "{version}");
    }
}

#[test]
fn methods_have_their_case() {
    for method in ["get", "Get", "HEAD", "OPTIONS"] {
        assert_eq!(
            refusal(&rfc_with("GET", method)),
            Some(UpgradeError::Method),
            "{method}"
        );
    }
}

#[test]
fn keys_are_the_base64_of_sixteen_bytes() {
    for key in [
        "AAAAAAAAAAAAAAAAAAAAAA==",
        "zzzzzzzzzzzzzzzzzzzzzw==",
        "+/+/+/+/+/+/+/+/+/+/+w==",
    ] {
        assert_eq!(
            refusal(&rfc_with("dGhlIHNhbXBsZSBub25jZQ==", key)),
            None,
            "{key}"
        );
    }
    for key in [
        "",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25jZQ===",
        "dGhlIHNhbXBsZSBub25j",
        "dGhlIHNhbXBsZSBub25jZWVl",
        "dGhlIHNhbXBsZSBub25jZQAA==",
        "dGhlIHNhbXBsZSBub25jZ===",
        "dGhlIHNhbXBsZSBub25 ZQ==",
        "dGhlIHNhbXBsZSBub25-ZQ==",
        "=GhlIHNhbXBsZSBub25jZQ==",
        "dGhlIHNhbXBsZSBub25jZé==",
    ] {
        let head = rfc_with("dGhlIHNhbXBsZSBub25jZQ==", key);
        assert_eq!(refusal(&head), Some(UpgradeError::Key), "{key}");
    }
}

#[test]
fn subprotocols_are_distinct_tokens() {
    let many = |count: usize| {
        (0..count)
            .map(|n| format!("p{n}"))
            .collect::<Vec<_>>()
            .join(",")
    };
    for (list, count) in [
        ("a", 1),
        ("a,b", 2),
        ("a ,\tb , A", 3),
        (many(16).as_str(), 16),
    ] {
        checked(&rfc_with("chat, superchat", list), |upgrade| {
            assert_eq!(upgrade.unwrap().protocols().count(), count, "{list}");
        });
    }
    let two_lines = rfc_with("chat, superchat", "a\r\nSec-WebSocket-Protocol: b, c");
    checked(&two_lines, |upgrade| {
        assert_eq!(
            upgrade.unwrap().protocols().collect::<Vec<_>>(),
            ["a", "b", "c"]
        );
    });
    for list in [
        "",
        ",",
        "a,",
        ",a",
        "a,,b",
        "a b",
        "a;b",
        "a, a",
        "\"a\"",
        "é",
        "a\r\nSec-WebSocket-Protocol: a",
        &many(17),
    ] {
        let head = rfc_with("chat, superchat", list);
        assert_eq!(refusal(&head), Some(UpgradeError::Protocols), "{list}");
    }
}

#[test]
fn b3_long_lists_of_nothing_are_refused() {
    for filler in [",", " ", ", ", ";", "a,"] {
        let list = filler.repeat(15_000 / filler.len());
        let protocols = rfc_with("chat, superchat", &list);
        assert_eq!(
            refusal(&protocols),
            Some(UpgradeError::Protocols),
            "{filler:?}"
        );
        let connection = rfc_with("Connection: Upgrade", &format!("Connection: {list}"));
        assert_eq!(
            refusal(&connection),
            Some(UpgradeError::Connection),
            "{filler:?}"
        );
    }
}

#[test]
fn the_clients_favourite_subprotocol_is_chosen() {
    checked(RFC, |upgrade| {
        let upgrade = upgrade.unwrap();
        assert_eq!(
            choose_subprotocol(&upgrade, &["superchat", "chat"]),
            Some("chat")
        );
        assert_eq!(
            choose_subprotocol(&upgrade, &["superchat".to_owned()]),
            Some("superchat")
        );
        assert_eq!(choose_subprotocol(&upgrade, &["Chat", "x"]), None);
        assert_eq!(choose_subprotocol(&upgrade, &[] as &[&str]), None);
    });
    checked(
        &rfc_with("Sec-WebSocket-Protocol: chat, superchat\r\n", ""),
        |upgrade| {
            assert_eq!(choose_subprotocol(&upgrade.unwrap(), &["chat"]), None);
        },
    );
}

#[test]
fn debug_output_keeps_secrets() {
    checked(&rfc_with("/chat", "/chat?token=secret"), |upgrade| {
        let debug = format!("{upgrade:?}");
        assert!(
            !debug.contains("secret") && !debug.contains("dGhl") && !debug.contains("superchat")
        );
    });
}

proptest! {
    /// Whatever a client sends, the answer's bytes are ours but for the accept key, which is a hash.
    #[test]
    fn b8_nothing_of_the_request_is_in_the_answer(
        path in "[a-z]{1,9}",
        query in "[a-z0-9%=&]{0,20}",
        origin in "[ -~]{0,30}",
        offered in prop::collection::btree_set("[a-z]{6,9}", 1..5),
        extension in "[ -~]{0,30}",
    ) {
        let list = offered.iter().cloned().collect::<Vec<_>>().join(", ");
        let head = format!(
            "GET /{path}?{query} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Version: 13\r\nOrigin: {origin}\r\n\
             Sec-WebSocket-Protocol: {list}\r\nSec-WebSocket-Extensions: {extension}\r\n\r\n"
        );
        checked(&head, |upgrade| {
            let upgrade = upgrade.unwrap();
            let mut out = Vec::new();
            let chosen = choose_subprotocol(&upgrade, &["unknown-to-all"]);
            write_accept(&mut out, &upgrade, chosen, None);
            prop_assert_eq!(
                &out[..],
                &b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"[..]
            );
            Ok(())
        })?;
    }
}
