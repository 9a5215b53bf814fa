//! Whose connection it is: what trusted proxies say counts, and what anybody else says does not.

use std::io::Write;

use tidegate::admission::proxy_protocol::ProxyError;
use tidegate::admission::{Refusal, Stage};
use tidegate::{CloseReason, admission::limits::Limit};

use crate::support::{Client, Running, request};
use crate::{answer, client_from, start, start_telling};

/// Two peers of the loopback network, of which the first is a trusted proxy.
const PROXY: [u8; 4] = [127, 0, 0, 2];
const STRANGER: [u8; 4] = [127, 0, 0, 3];

fn config(extra: &str) -> String {
    format!(
        r#"
        demo_routes = false
        reactors = 2
        {extra}
        [[route]]
        path = "/ws/"
        kind = "echo"
        "#
    )
}

fn behind_header(header: &str) -> String {
    config(&format!(
        r#"
        listen = [{{ address = "127.0.0.1:0" }}]
        address.trusted_networks = ["127.0.0.2", "10.0.0.0/8"]
        address.header = "{header}"
        "#
    ))
}

/// The address that the server takes a connection of `peer` for, that sends these lines.
fn seen(running: &Running, peer: [u8; 4], lines: &[&str]) -> String {
    let mut text = request("/ws/");
    text.truncate(text.len() - 2);
    for line in lines {
        text += &format!("{line}\r\n");
    }
    text += "\r\n";
    let (status, head, mut client) = answer(client_from(peer, running.address), &text);
    assert_eq!(status, 101, "{head}");
    let told = client.read_text();
    told.strip_prefix("- ").unwrap().to_owned()
}

#[test]
fn f1_a_forwarding_header_counts_from_the_right_and_from_trusted_peers_only() {
    let running = start_telling(&behind_header("x-forwarded-for"));
    for (peer, lines, expected) in [
        (PROXY, &["X-Forwarded-For: 192.0.2.1"][..], "192.0.2.1"),
        (PROXY, &[], "127.0.0.2"),
        // What stands further left is the client's own invention.
        (
            PROXY,
            &["X-Forwarded-For: 198.51.100.9, 192.0.2.1"],
            "192.0.2.1",
        ),
        (
            PROXY,
            &["X-Forwarded-For: 127.0.0.1, 192.0.2.1"],
            "192.0.2.1",
        ),
        (
            PROXY,
            &[
                "X-Forwarded-For: 198.51.100.9",
                "X-Forwarded-For: 192.0.2.1",
            ],
            "192.0.2.1",
        ),
        // Through a second trusted proxy.
        (
            PROXY,
            &["X-Forwarded-For: 192.0.2.1, 10.1.2.3"],
            "192.0.2.1",
        ),
        (
            PROXY,
            &["X-Forwarded-For: 198.51.100.9, 192.0.2.1, 10.1.2.3"],
            "192.0.2.1",
        ),
        // Nonsense is nobody's address: the last known one stands.
        (
            PROXY,
            &["X-Forwarded-For: 192.0.2.1, nonsense"],
            "127.0.0.2",
        ),
        (
            PROXY,
            &["X-Forwarded-For: 192.0.2.1, unknown, 10.1.2.3"],
            "10.1.2.3",
        ),
        (PROXY, &["X-Forwarded-For: ::ffff:192.0.2.1"], "192.0.2.1"),
        (PROXY, &["X-Forwarded-For: 2001:db8::7"], "2001:db8::7"),
        // Headers that are not the configured one.
        (
            PROXY,
            &["X-Real-IP: 192.0.2.1", "Forwarded: for=192.0.2.2"],
            "127.0.0.2",
        ),
        // A stranger may write what it likes.
        (STRANGER, &["X-Forwarded-For: 192.0.2.1"], "127.0.0.3"),
        (
            STRANGER,
            &["X-Forwarded-For: 127.0.0.2", "X-Real-IP: 127.0.0.2"],
            "127.0.0.3",
        ),
        (STRANGER, &[], "127.0.0.3"),
    ] {
        assert_eq!(seen(&running, peer, lines), expected, "{peer:?} {lines:?}");
    }
}

#[test]
fn f1_the_other_headers_are_read_alike() {
    let running = start_telling(&behind_header("forwarded"));
    for (peer, lines, expected) in [
        (
            PROXY,
            &["Forwarded: for=192.0.2.1;proto=https"][..],
            "192.0.2.1",
        ),
        (
            PROXY,
            &["Forwarded: for=198.51.100.9, for=\"[2001:db8::7]:4711\""],
            "2001:db8::7",
        ),
        // A quote left open further left swallows nothing that the proxy wrote.
        (
            PROXY,
            &["Forwarded: for=\"198.51.100.9, for=192.0.2.1"],
            "192.0.2.1",
        ),
        (PROXY, &["Forwarded: for=_hidden"], "127.0.0.2"),
        (PROXY, &["X-Forwarded-For: 192.0.2.1"], "127.0.0.2"),
        (STRANGER, &["Forwarded: for=192.0.2.1"], "127.0.0.3"),
    ] {
        assert_eq!(seen(&running, peer, lines), expected, "{peer:?} {lines:?}");
    }
    let running = start_telling(&behind_header("x-real-ip"));
    for (peer, lines, expected) in [
        (PROXY, &["X-Real-IP: 192.0.2.1"][..], "192.0.2.1"),
        (PROXY, &["X-Real-IP: 192.0.2.1, 192.0.2.2"], "127.0.0.2"),
        // One of the two is not the proxy's.
        (
            PROXY,
            &["X-Real-IP: 198.51.100.9", "X-Real-IP: 192.0.2.1"],
            "127.0.0.2",
        ),
        (STRANGER, &["X-Real-IP: 192.0.2.1"], "127.0.0.3"),
    ] {
        assert_eq!(seen(&running, peer, lines), expected, "{peer:?} {lines:?}");
    }
}

#[test]
fn f1_limits_follow_the_address_that_a_proxy_names_and_nobody_gets_past_them() {
    let running = start(&format!(
        "{}\n[limits]\naddress_connections_max = 2",
        behind_header("x-forwarded-for")
    ));
    let knock = |peer, chain: &str| {
        let text =
            request("/ws/").replacen("\r\n", &format!("\r\nX-Forwarded-For: {chain}\r\n"), 1);
        let (status, head, client) = answer(client_from(peer, running.address), &text);
        (status, head, client)
    };
    let mut open = Vec::new();
    for left in ["198.51.100.1", "198.51.100.2"] {
        let (status, _, client) = knock(PROXY, &format!("{left}, 192.0.2.1"));
        assert_eq!(status, 101);
        open.push(client);
    }
    // Another address on the left makes nobody another client.
    let (status, head, mut client) = knock(PROXY, "198.51.100.3, 192.0.2.1");
    assert_eq!(status, 429, "{head}");
    assert!(head.contains("\r\nRetry-After: "), "{head}");
    client.read_to_end();
    drop(client);
    let (status, _, client) = knock(PROXY, "192.0.2.2");
    assert_eq!(status, 101, "another client of the same proxy");
    open.push(client);
    // Where the proxy's word cannot be read, all of them are one: the proxy.
    for (nth, expected) in [(0, 101), (1, 101), (2, 429)] {
        let (status, _, mut client) = knock(PROXY, &format!("192.0.2.{nth}, nonsense"));
        assert_eq!(status, expected, "{nth}");
        if status == 101 {
            open.push(client);
        } else {
            client.read_to_end();
        }
    }
    drop(open);
    running.counters_when("all have gone", |counters| counters.active() == 0);
    assert_eq!(knock(PROXY, "192.0.2.1").0, 101, "places were given back");
    let counters = running.stop();
    assert_eq!(counters.tally.refused(Limit::AddressConnections), 2);
    let refused = tidegate::admission::limits::Refused {
        limit: Limit::AddressConnections,
        retry_after: None,
    };
    let refusal = Refusal::Limit(Stage::Address, refused);
    assert_eq!(counters.refused.of(&refusal), 2, "found behind the head");
}

fn behind_proxy_header(extra: &str) -> String {
    config(&format!(
        r#"
        listen = [{{ address = "127.0.0.1:0", proxy_protocol = true }}]
        address.trusted_networks = ["127.0.0.2"]
        {extra}
        "#
    ))
}

/// A header of version 2: PROXY over TCP4 from `client`, with a type-length-value behind it.
fn version_2(client: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
    let tlv = b"\x04\x00\x02xx";
    header.extend_from_slice(&(12 + tlv.len() as u16).to_be_bytes());
    header.extend_from_slice(&client);
    header.extend_from_slice(&[192, 0, 2, 254, 0x9c, 0x40, 0x01, 0xbb]);
    header.extend_from_slice(tlv);
    header
}

const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";

#[test]
fn f1_a_proxy_header_of_either_version_names_the_client() {
    let running = start_telling(&behind_proxy_header(""));
    let v4 = version_2([192, 0, 2, 7]);
    let mut v6 = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\x00\x24".to_vec();
    v6.extend_from_slice(
        &"2001:db8::7"
            .parse::<std::net::Ipv6Addr>()
            .unwrap()
            .octets(),
    );
    v6.extend_from_slice(&[0; 16]);
    v6.extend_from_slice(&[0x9c, 0x40, 0x01, 0xbb]);
    for (header, expected) in [
        (
            &b"PROXY TCP4 192.0.2.7 192.0.2.254 40000 443\r\n"[..],
            "192.0.2.7",
        ),
        (
            b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 443\r\n",
            "2001:db8::7",
        ),
        (
            b"PROXY TCP6 ::ffff:192.0.2.7 ::1 40000 443\r\n",
            "192.0.2.7",
        ),
        (b"PROXY UNKNOWN\r\n", "127.0.0.2"),
        (&v4, "192.0.2.7"),
        (&v6, "2001:db8::7"),
        (LOCAL, "127.0.0.2"),
    ] {
        for size in [1, header.len()] {
            let mut client = client_from(PROXY, running.address);
            for piece in header.chunks(size) {
                client.stream.write_all(piece).unwrap();
            }
            // Whatever else it says of itself is the client's own word.
            let text = request("/ws/").replacen("\r\n", "\r\nX-Forwarded-For: 203.0.113.1\r\n", 1);
            let (status, head, mut client) = answer(client, &text);
            assert_eq!(status, 101, "{head}");
            assert_eq!(client.read_text(), format!("- {expected}"));
        }
    }
    assert_eq!(running.stop().proxied, 14);
}

#[test]
fn f1_whoever_sends_no_proxy_header_or_may_send_none_is_closed_without_a_word() {
    let running = start(&behind_proxy_header(""));
    let mut stranger = client_from(STRANGER, running.address);
    stranger.try_send(b"PROXY TCP4 192.0.2.7 192.0.2.254 40000 443\r\n");
    stranger.try_send(request("/ws/").as_bytes());
    assert_eq!(stranger.read_to_end(), b"");
    running.counters_when("the stranger is counted", |counters| {
        counters.refused.of(&Refusal::UntrustedProxy) == 1
    });
    let mut bare = client_from(PROXY, running.address);
    bare.try_send(request("/ws/").as_bytes());
    assert_eq!(bare.read_to_end(), b"");
    let mut forged = client_from(PROXY, running.address);
    forged.try_send(b"PROXY TCP4 192.0.2.7 192.0.2.254 40000 99999\r\n");
    assert_eq!(forged.read_to_end(), b"");
    let counters = running.closed_when(&CloseReason::Proxy(ProxyError::TooLong), 2);
    assert_eq!((counters.opened, counters.accept_refused), (0, 1));
}

#[test]
fn f4_limits_behind_a_proxy_header_are_the_clients() {
    let running = start(&behind_proxy_header("limits.address_connections_max = 1"));
    let knock = |header: &[u8]| {
        let mut client = client_from(PROXY, running.address);
        client.send(header);
        client.try_send(request("/ws/").as_bytes());
        let head = client.read_head();
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, client)
    };
    let first = version_2([192, 0, 2, 7]);
    let (status, open) = knock(&first);
    assert_eq!(status, 101);
    let (status, mut client) = knock(&first);
    assert_eq!(status, 429);
    client.read_to_end();
    let (status, other) = knock(&version_2([192, 0, 2, 8]));
    assert_eq!(status, 101, "another client has its own");
    // A balancer looks after its servers as often as it likes; whom it does not know share its place.
    let checks: Vec<(u16, Client)> = (0..3).map(|_| knock(LOCAL)).collect();
    assert!(checks.iter().all(|(status, _)| *status == 101));
    let (status, unknown) = knock(b"PROXY UNKNOWN\r\n");
    assert_eq!(status, 101);
    let (status, mut client) = knock(b"PROXY UNKNOWN\r\n");
    assert_eq!(status, 429);
    client.read_to_end();
    drop((open, other, checks, unknown));
    running.counters_when("all have gone", |counters| counters.active() == 0);
    let (status, _open) = knock(&first);
    assert_eq!(status, 101, "the place was given back");
}
