//! F1: nobody chooses their own address.

use proptest::prelude::*;

use super::*;
use ForwardingHeader::{Forwarded, XForwardedFor, XRealIp};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn proxies() -> TrustedNetworks {
    TrustedNetworks::parse(["10.0.0.0/8", "fd00::/8", "192.0.2.7"]).unwrap()
}

#[test]
fn f1_the_first_untrusted_address_from_the_right_is_the_client() {
    // Peer, header, its lines, the client.
    let cases: &[(&str, ForwardingHeader, &[&str], &str)] = &[
        // Nobody trusted has spoken.
        (
            "203.0.113.9",
            XForwardedFor,
            &["198.51.100.1"],
            "203.0.113.9",
        ),
        (
            "203.0.113.9",
            Forwarded,
            &["for=198.51.100.1"],
            "203.0.113.9",
        ),
        ("203.0.113.9", XRealIp, &["198.51.100.1"], "203.0.113.9"),
        // One proxy.
        ("10.0.0.1", XForwardedFor, &[], "10.0.0.1"),
        ("10.0.0.1", XForwardedFor, &["198.51.100.1"], "198.51.100.1"),
        (
            "::ffff:10.0.0.1",
            XForwardedFor,
            &["::ffff:198.51.100.1"],
            "198.51.100.1",
        ),
        ("fd00::1", XForwardedFor, &["2001:db8::1"], "2001:db8::1"),
        // What the client wrote itself is further left.
        (
            "10.0.0.1",
            XForwardedFor,
            &["10.0.0.2, 1.2.3.4, 198.51.100.1"],
            "198.51.100.1",
        ),
        (
            "10.0.0.1",
            XForwardedFor,
            &["1.2.3.4", "198.51.100.1"],
            "198.51.100.1",
        ),
        (
            "10.0.0.1",
            XForwardedFor,
            &["rubbish\"", "198.51.100.1"],
            "198.51.100.1",
        ),
        // Several proxies, over several lines.
        (
            "10.0.0.1",
            XForwardedFor,
            &["198.51.100.1, 192.0.2.7,10.9.9.9 "],
            "198.51.100.1",
        ),
        (
            "10.0.0.1",
            XForwardedFor,
            &["6.6.6.6, 198.51.100.1", "192.0.2.7", "fd00::9"],
            "198.51.100.1",
        ),
        (
            "10.0.0.1",
            XForwardedFor,
            &["10.0.0.3, 10.0.0.2"],
            "10.0.0.3",
        ),
        // Empty elements mean nothing.
        (
            "10.0.0.1",
            XForwardedFor,
            &["", "198.51.100.1, ,", " , "],
            "198.51.100.1",
        ),
        ("10.0.0.1", XForwardedFor, &[","], "10.0.0.1"),
        // Ports and brackets.
        (
            "10.0.0.1",
            XForwardedFor,
            &["198.51.100.1:4711"],
            "198.51.100.1",
        ),
        (
            "10.0.0.1",
            XForwardedFor,
            &["[2001:db8::1]:4711"],
            "2001:db8::1",
        ),
        ("10.0.0.1", XForwardedFor, &["[2001:db8::1]"], "2001:db8::1"),
        // Nonsense ends the walk at the last address that a proxy vouched for.
        (
            "10.0.0.1",
            XForwardedFor,
            &["198.51.100.1, unknown, 10.0.0.2"],
            "10.0.0.2",
        ),
        (
            "10.0.0.1",
            XForwardedFor,
            &["198.51.100.1, _hidden"],
            "10.0.0.1",
        ),
        (
            "10.0.0.1",
            XForwardedFor,
            &["198.51.100.1 10.0.0.2"],
            "10.0.0.1",
        ),
        (
            "10.0.0.1",
            XForwardedFor,
            &["198.51.100.1:65536"],
            "10.0.0.1",
        ),
        ("10.0.0.1", XForwardedFor, &["198.51.100.1:+80"], "10.0.0.1"),
        ("10.0.0.1", XForwardedFor, &["198.51.100.1:"], "10.0.0.1"),
        ("10.0.0.1", XForwardedFor, &["[2001:db8::1"], "10.0.0.1"),
        (
            "10.0.0.1",
            XForwardedFor,
            &["[2001:db8::1]4711"],
            "10.0.0.1",
        ),
        ("10.0.0.1", XForwardedFor, &["[198.51.100.1]"], "10.0.0.1"),
        ("10.0.0.1", XForwardedFor, &["fe80::1%eth0"], "10.0.0.1"),
        ("10.0.0.1", XForwardedFor, &["198.051.100.1"], "10.0.0.1"),
        ("10.0.0.1", XForwardedFor, &["3325256705"], "10.0.0.1"),
        ("10.0.0.1", XForwardedFor, &["\u{fffd}"], "10.0.0.1"),
        // RFC 7239 §4 and §6.
        ("10.0.0.1", Forwarded, &["for=198.51.100.1"], "198.51.100.1"),
        (
            "10.0.0.1",
            Forwarded,
            &["For=\"198.51.100.1:80\";proto=https;by=10.0.0.1"],
            "198.51.100.1",
        ),
        (
            "10.0.0.1",
            Forwarded,
            &["proto=https; for=\"[2001:db8::1]:4711\" ;host=\"a,b;c=d\""],
            "2001:db8::1",
        ),
        (
            "10.0.0.1",
            Forwarded,
            &["for=[2001:db8::1]:_port"],
            "2001:db8::1",
        ),
        (
            "10.0.0.1",
            Forwarded,
            &[
                "for=6.6.6.6, for=198.51.100.1;",
                "for=10.1.1.1, for=\"[fd00::2]\"",
            ],
            "198.51.100.1",
        ),
        (
            "10.0.0.1",
            Forwarded,
            &["for=198.51.100.1, for=unknown"],
            "10.0.0.1",
        ),
        (
            "10.0.0.1",
            Forwarded,
            &["for=198.51.100.1, for=_secret, for=10.0.0.2"],
            "10.0.0.2",
        ),
        (
            "10.0.0.1",
            Forwarded,
            &["for=198.51.100.1, proto=https"],
            "10.0.0.1",
        ),
        (
            "10.0.0.1",
            Forwarded,
            &["for=198.51.100.1;for=6.6.6.6"],
            "10.0.0.1",
        ),
        ("10.0.0.1", Forwarded, &["for=\"198.51.100.1"], "10.0.0.1"),
        (
            "10.0.0.1",
            Forwarded,
            &["for=\"198.51.100.1\"x"],
            "10.0.0.1",
        ),
        ("10.0.0.1", Forwarded, &["198.51.100.1"], "10.0.0.1"),
        // A quote that a client leaves open does not swallow what the proxy appends.
        (
            "10.0.0.1",
            Forwarded,
            &["for=\"6.6.6.6, for=198.51.100.1"],
            "198.51.100.1",
        ),
        (
            "10.0.0.1",
            Forwarded,
            &["for=\"6.6.6.6, for=\"[2001:db8::1]\""],
            "2001:db8::1",
        ),
        (
            "10.0.0.1",
            Forwarded,
            &["for=6.6.6.6;x=\"\\, for=\"198.51.100.1:1\""],
            "198.51.100.1",
        ),
        (
            "10.0.0.1",
            Forwarded,
            &["for=6.6.6.6, for=198.51.100.1;x=\"a\\\"b, for=7.7.7.7\""],
            "198.51.100.1",
        ),
        // One address, or none.
        ("10.0.0.1", XRealIp, &[" 198.51.100.1 "], "198.51.100.1"),
        ("10.0.0.1", XRealIp, &["2001:db8::1"], "2001:db8::1"),
        ("10.0.0.1", XRealIp, &["198.51.100.1, 6.6.6.6"], "10.0.0.1"),
        (
            "10.0.0.1",
            XRealIp,
            &["198.51.100.1", "6.6.6.6"],
            "10.0.0.1",
        ),
        ("10.0.0.1", XRealIp, &[], "10.0.0.1"),
    ];
    for (peer, header, lines, expected) in cases {
        let found = client_address(ip(peer), &proxies(), *header, lines.iter().copied());
        assert_eq!(found, ip(expected), "{peer} {header:?} {lines:?}");
    }
}

#[test]
fn f1_a_chain_is_followed_for_32_hops() {
    for (hops, expected) in [(31, "198.51.100.1"), (32, "10.0.0.2"), (5_000, "10.0.0.2")] {
        let mut chain = vec!["198.51.100.1"];
        chain.extend(std::iter::repeat_n("10.0.0.2", hops));
        let found = client_address(
            ip("10.0.0.1"),
            &proxies(),
            XForwardedFor,
            [&*chain.join(",")],
        );
        assert_eq!(found, ip(expected), "{hops}");
    }
}

#[test]
fn nobody_is_trusted_by_default() {
    let nobody = TrustedNetworks::default();
    assert!(!nobody.contains(ip("127.0.0.1")) && !nobody.contains(ip("::1")));
}

#[test]
fn trusted_networks_are_read_and_errors_name_the_fix() {
    let networks =
        TrustedNetworks::parse(["::ffff:172.16.0.0/108", "::ffff:192.0.2.1", "2001:db8::/32"]);
    let networks = networks.unwrap();
    for (address, expected) in [
        ("172.16.0.1", true),
        ("::ffff:172.31.255.255", true),
        ("172.32.0.0", false),
        ("192.0.2.1", true),
        ("192.0.2.2", false),
        ("2001:db8:ffff::1", true),
        ("2001:db9::1", false),
    ] {
        assert_eq!(networks.contains(ip(address)), expected, "{address}");
    }
    for (rule, fix) in [
        ("proxy.internal", "write it like 10.0.0.0/8"),
        ("10.0.0.0/33", "write it like 10.0.0.0/8"),
        ("", "write it like 10.0.0.0/8"),
        ("0.0.0.0/0", "name the proxies"),
        ("::/0", "name the proxies"),
        ("::ffff:0:0/96", "name the proxies"),
        ("10.1.2.3/8", "write 10.0.0.0/8 for the network"),
    ] {
        let error = TrustedNetworks::parse(["10.0.0.0/8", rule]).unwrap_err();
        assert!(error.to_string().contains(fix), "{error}");
    }
}

#[test]
fn f2_keys_are_networks() {
    let key = |address, ipv4, ipv6| Key::of(ip(address), Widths { ipv4, ipv6 });
    // Two addresses, the widths, and whether they are counted as one.
    let cases = [
        ("192.0.2.1", "192.0.2.1", 32, 64, true),
        ("192.0.2.1", "192.0.2.2", 32, 64, false),
        ("192.0.2.1", "192.0.2.254", 24, 64, true),
        ("192.0.2.1", "::ffff:192.0.2.1", 32, 64, true),
        ("192.0.2.1", "198.51.100.1", 0, 64, true),
        ("192.0.2.1", "192.0.2.2", 200, 64, false),
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", 32, 64, true),
        ("2001:db8::1", "2001:db8:0:1::1", 32, 64, false),
        ("2001:db8::1", "2001:db8:0:1::1", 32, 48, true),
        ("2001:db8::1", "2001:db8::2", 32, 128, false),
        ("2001:db8::1", "2001:db8::2", 32, 255, false),
        ("2001:db8::1", "::1", 32, 0, true),
        ("0.0.0.0", "::", 0, 0, false),
        ("::1", "0.0.0.1", 32, 64, false),
    ];
    for (one, other, ipv4, ipv6, expected) in cases {
        let is_same = key(one, ipv4, ipv6) == key(other, ipv4, ipv6);
        assert_eq!(is_same, expected, "{one} {other} /{ipv4} /{ipv6}");
    }
    // A site is not its own first subnet.
    let site = Key::of_site(ip("2001:db8::1"), 48);
    assert_ne!(site, Some(key("2001:db8::1", 32, 64)));
    assert_eq!(site, Key::of_site(ip("2001:db8:0:ffff::1"), 48));
    assert_ne!(site, Key::of_site(ip("2001:db8:1::1"), 48));
    assert_eq!(Key::of_site(ip("::ffff:192.0.2.1"), 48), None);
}

/// An element of a chain, before it is written down.
#[derive(Debug, Clone)]
enum Hop {
    Address(IpAddr),
    Nonsense(&'static str),
    Empty,
}

fn hop() -> impl Strategy<Value = Hop> {
    let trusted = prop_oneof![
        any::<[u8; 3]>().prop_map(|[a, b, c]| IpAddr::from([10, a, b, c])),
        any::<[u8; 15]>().prop_map(|bytes| {
            let mut octets = [0xfd; 16];
            octets[1..].copy_from_slice(&bytes);
            IpAddr::from(octets)
        }),
    ];
    let anybody = prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(bits.into())),
        any::<u128>().prop_map(|bits| IpAddr::V6(bits.into())),
        any::<u32>().prop_map(|bits| IpAddr::V6(Ipv4Addr::from(bits).to_ipv6_mapped())),
    ];
    let nonsense = [
        "unknown",
        "_gazonk",
        "1.2.3",
        "300.1.1.1",
        "::g",
        "[::1",
        "1.2.3.4:x",
        "a b",
        "\u{fffd}",
        "for",
        "=",
        "1.2.3.4/8",
    ];
    prop_oneof![
        6 => trusted.prop_map(Hop::Address),
        3 => anybody.prop_map(Hop::Address),
        1 => prop::sample::select(nonsense.to_vec()).prop_map(Hop::Nonsense),
        1 => Just(Hop::Empty),
    ]
}

/// Written in one of the ways that the header knows.
fn write(hop: &Hop, header: ForwardingHeader, style: u8) -> String {
    let node = match hop {
        Hop::Empty => {
            return [String::new(), " ".into(), "\t".into()][usize::from(style % 3)].clone();
        }
        Hop::Nonsense(text) => (*text).to_owned(),
        Hop::Address(IpAddr::V4(address)) if style & 1 == 0 => format!("{address}"),
        Hop::Address(IpAddr::V4(address)) => format!("{address}:{style}"),
        Hop::Address(IpAddr::V6(address)) if style & 1 == 0 => format!("[{address}]"),
        Hop::Address(IpAddr::V6(address)) if style & 2 == 0 || header == Forwarded => {
            format!("[{address}]:{style}")
        }
        Hop::Address(IpAddr::V6(address)) => format!("{address}"),
    };
    let text = match (header, style & 12) {
        (Forwarded, 0) => format!("for=\"{node}\""),
        (Forwarded, 4) => format!("proto=https;FOR=\"{node}\";by=\"_a,b;for=6.6.6.6\""),
        (Forwarded, 8) => format!("x=\"\\\"\" ; For=\"{node}\""),
        (Forwarded, _) => format!("for=\"{node}\";"),
        _ => node,
    };
    format!(
        "{}{text}{}",
        [" ", "", "\t ", ""][usize::from(style >> 4 & 3)],
        if style > 128 { " " } else { "" }
    )
}

/// The rule by its words, over the chain as it was meant: from the right, while trusted. Works on bits
/// and knows nothing of text or of `ipnet`.
fn oracle(peer: IpAddr, chain: &[Hop]) -> IpAddr {
    let plain = |address: IpAddr| match address {
        IpAddr::V6(v6) if v6.to_bits() >> 32 == 0xffff => IpAddr::V4(Ipv4Addr::from_bits(
            u32::try_from(v6.to_bits() & 0xffff_ffff).unwrap(),
        )),
        other => other,
    };
    let is_trusted = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.octets()[0] == 10 || v4.octets() == [192, 0, 2, 7],
        IpAddr::V6(v6) => v6.octets()[0] == 0xfd,
    };
    let mut answer = plain(peer);
    let mut looked_at = 0;
    let mut left = chain.to_vec();
    while is_trusted(answer) && looked_at < 32 {
        looked_at += 1;
        match left.pop() {
            Some(Hop::Address(address)) => answer = plain(address),
            Some(Hop::Empty) => {}
            Some(Hop::Nonsense(_)) | None => break,
        }
    }
    answer
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn f1_random_chains_agree_with_an_oracle(
        peer in prop_oneof![
            4 => Just(ip("10.0.0.1")),
            1 => Just(ip("::ffff:10.0.0.1")),
            1 => any::<u32>().prop_map(|bits| IpAddr::V4(bits.into())),
        ],
        chain in prop::collection::vec((hop(), any::<u8>(), prop::bool::weighted(0.2)), 1..50),
        is_forwarded in any::<bool>(),
    ) {
        let header = if is_forwarded { Forwarded } else { XForwardedFor };
        let mut lines = vec![String::new()];
        for (at, (hop, style, begins_line)) in chain.iter().enumerate() {
            if at > 0 && *begins_line {
                lines.push(String::new());
            } else if at > 0 {
                lines.last_mut().unwrap().push(',');
            }
            lines.last_mut().unwrap().push_str(&write(hop, header, *style));
        }
        let hops: Vec<_> = chain.iter().map(|(hop, ..)| hop.clone()).collect();
        let found = client_address(peer, &proxies(), header, lines.iter().map(String::as_str));
        prop_assert_eq!(found, oracle(peer, &hops), "{:?}", lines);
    }

    #[test]
    fn f1_any_text_gives_an_address_that_somebody_trusted_wrote(
        lines in prop::collection::vec("[\\PC,;=\"\\\\ \\[\\]:.0-9a-f]{0,60}", 0..4),
        is_forwarded in any::<bool>(),
    ) {
        // Whatever a client writes, the proxy appends its address: there is no other answer.
        let (header, appended) = if is_forwarded {
            (Forwarded, "for=198.51.100.1;proto=https")
        } else {
            (XForwardedFor, "198.51.100.1")
        };
        let joined = lines.iter().map(|line| format!("{line}, {appended}"));
        for last in joined.chain([appended.to_owned()]) {
            let all: Vec<&str> = lines.iter().map(String::as_str).chain([&*last]).collect();
            let found = client_address(ip("10.0.0.1"), &proxies(), header, all);
            prop_assert_eq!(found, ip("198.51.100.1"), "{:?}", last);
        }
    }
}
