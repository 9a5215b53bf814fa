//! Which addresses lie on the public internet: the only ones the server calls by itself.
//!
//! A URL whose host an attacker can influence, or whose name they can make resolve to what they like,
//! would otherwise make the server ask its own network on their behalf: loopback services, neighbours
//! behind the firewall, a cloud's metadata (threats D5, G6). Judged is the address about to be
//! connected to, never a name.
//!
//! A backend of one's own usually lives on a private network: [`is_private`] tells such addresses from
//! those that nobody means to call, metadata services above all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::fold;

/// Whether the address belongs to a host on the public internet, by the IANA registries of special
/// addresses (RFC 6890) and what clouds put beside them. An IPv4 address within an IPv6 one (mapped, or
/// behind the well-known prefix of NAT64) is judged as itself; other ways to wrap one are refused.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match fold(address) {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// Whether the address belongs to a network of one's own: this host, a site, a carrier's NAT. Where a
/// backend usually lives, and nothing that a cloud's metadata service is known to answer on.
#[must_use]
pub fn is_private(address: IpAddr) -> bool {
    match fold(address) {
        IpAddr::V4(address) => is_private_v4(address),
        IpAddr::V6(address) => {
            let is_in = |&(network, bits): &(Ipv6Addr, u32)| {
                (address.to_bits() ^ network.to_bits()).leading_zeros() >= bits
            };
            if is_in(&NAT64) {
                let [.., a, b, c, d] = address.octets();
                return is_private_v4(Ipv4Addr::new(a, b, c, d));
            }
            PRIVATE_V6.iter().any(is_in) && !METADATA_V6.contains(&address)
        }
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    let is_in = |&(network, bits): &(Ipv4Addr, u32)| {
        (address.to_bits() ^ network.to_bits()).leading_zeros() >= bits
    };
    PRIVATE_V4.iter().any(is_in) && !METADATA_V4.contains(&address)
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let is_in = |&(network, bits): &(Ipv4Addr, u32)| {
        (address.to_bits() ^ network.to_bits()).leading_zeros() >= bits
    };
    !RESERVED_V4.iter().any(is_in)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let is_in = |&(network, bits): &(Ipv6Addr, u32)| {
        (address.to_bits() ^ network.to_bits()).leading_zeros() >= bits
    };
    if is_in(&NAT64) {
        let [.., a, b, c, d] = address.octets();
        return is_public_v4(Ipv4Addr::new(a, b, c, d));
    }
    is_in(&GLOBAL_UNICAST) && !RESERVED_V6.iter().any(is_in)
}

/// IPv4 networks without public hosts.
const RESERVED_V4: &[(Ipv4Addr, u32)] = &[
    // "This network" (RFC 791 §3.2); connecting to 0.0.0.0 reaches this host.
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    // Private use (RFC 1918).
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    // Shared behind a carrier's NAT (RFC 6598).
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    // Loopback (RFC 1122 §3.2.1.3).
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    // Link-local (RFC 3927); most clouds' metadata.
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    // Azure's host, which answers its own virtual machines only.
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    // Protocol assignments (RFC 6890 §2.1).
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    // Documentation (RFC 5737).
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    // Relays from 6to4, withdrawn (RFC 7526).
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    // Benchmarks (RFC 2544).
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    // Multicast (RFC 5771).
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    // Reserved, and broadcast (RFC 1112 §4, RFC 919 §7).
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// What is assigned to hosts in IPv6 (RFC 4291 §2.4): loopback, unique local, link-local, multicast,
/// compatible and discard-only addresses all lie outside.
const GLOBAL_UNICAST: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// IPv4 as an IPv6-only network sees it (RFC 6052 §2.1).
const NAT64: (Ipv6Addr, u32) = (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

/// Networks within [`GLOBAL_UNICAST`] without public hosts.
const RESERVED_V6: &[(Ipv6Addr, u32)] = &[
    // Protocol assignments (RFC 2928), with Teredo, benchmarks and identifiers among them.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    // Documentation (RFC 3849, RFC 9637).
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
    // 6to4 (RFC 3056): any IPv4 address in disguise.
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
];

/// IPv4 networks of one's own (RFC 1918, RFC 6598, loopback). Link-local is not among them: in a cloud
/// it is the metadata service.
const PRIVATE_V4: &[(Ipv4Addr, u32)] = &[
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
];

/// IPv6 networks of one's own: loopback, and unique local addresses (RFC 4193).
const PRIVATE_V6: &[(Ipv6Addr, u32)] = &[
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 1), 128),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7),
];

/// Metadata services that lie within private networks: Alibaba's.
const METADATA_V4: &[Ipv4Addr] = &[Ipv4Addr::new(100, 100, 100, 200)];

/// Metadata services that lie within private networks: those of AWS and of Google.
const METADATA_V6: &[Ipv6Addr] = &[
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn d5_addresses_are_public_or_not() {
        let rows: &[(&str, &str, bool)] = &[
            ("0.0.0.0", "this network", false),
            ("0.255.255.255", "this network, last", false),
            ("1.0.0.0", "behind this network", true),
            ("9.255.255.255", "before private", true),
            ("10.0.0.0", "private", false),
            ("10.255.255.255", "private, last", false),
            ("11.0.0.0", "behind private", true),
            ("100.63.255.255", "before carrier NAT", true),
            ("100.64.0.0", "carrier NAT", false),
            ("100.100.100.200", "Alibaba's metadata", false),
            ("100.127.255.255", "carrier NAT, last", false),
            ("100.128.0.0", "behind carrier NAT", true),
            ("126.255.255.255", "before loopback", true),
            ("127.0.0.1", "loopback", false),
            ("127.255.255.255", "loopback, last", false),
            ("128.0.0.0", "behind loopback", true),
            ("168.63.129.15", "beside Azure's host", true),
            ("168.63.129.16", "Azure's host", false),
            ("168.63.129.17", "beside Azure's host", true),
            ("169.253.255.255", "before link-local", true),
            ("169.254.169.254", "metadata", false),
            ("169.254.170.2", "metadata of containers", false),
            ("169.255.0.0", "behind link-local", true),
            ("172.15.255.255", "before private", true),
            ("172.16.0.0", "private", false),
            ("172.31.255.255", "private, last", false),
            ("172.32.0.0", "behind private", true),
            ("192.0.0.192", "Oracle's metadata", false),
            ("192.0.1.0", "behind assignments", true),
            ("192.0.2.1", "documentation", false),
            ("192.0.3.0", "behind documentation", true),
            ("192.88.99.1", "6to4 relay", false),
            ("192.167.255.255", "before private", true),
            ("192.168.0.1", "private", false),
            ("192.169.0.0", "behind private", true),
            ("198.17.255.255", "before benchmarks", true),
            ("198.18.0.1", "benchmarks", false),
            ("198.19.255.255", "benchmarks, last", false),
            ("198.20.0.0", "behind benchmarks", true),
            ("198.51.100.7", "documentation", false),
            ("203.0.113.7", "documentation", false),
            ("223.255.255.255", "before multicast", true),
            ("224.0.0.1", "multicast", false),
            ("239.255.255.255", "multicast, last", false),
            ("240.0.0.1", "reserved", false),
            ("255.255.255.255", "broadcast", false),
            ("8.8.8.8", "a resolver", true),
            ("::", "unspecified", false),
            ("::1", "loopback", false),
            ("::8.8.8.8", "compatible, deprecated", false),
            ("::ffff:127.0.0.1", "mapped loopback", false),
            ("::ffff:169.254.169.254", "mapped metadata", false),
            ("::ffff:8.8.8.8", "mapped", true),
            ("::ffff:0:8.8.8.8", "translated (SIIT)", false),
            ("64:ff9b::808:808", "NAT64", true),
            ("64:ff9b::a9fe:a9fe", "NAT64 to metadata", false),
            ("64:ff9b::7f00:1", "NAT64 to loopback", false),
            ("64:ff9b:1::808:808", "NAT64 of a local prefix", false),
            ("100::1", "discard", false),
            ("1fff:ffff::", "before global unicast", false),
            ("2000::1", "global unicast", true),
            ("2001::1", "Teredo", false),
            ("2001:1ff:ffff::", "assignments, last", false),
            ("2001:200::1", "behind assignments", true),
            ("2001:4860:4860::8888", "a resolver", true),
            ("2001:db8::1", "documentation", false),
            ("2001:db9::1", "behind documentation", true),
            ("2002:7f00:1::", "6to4 to loopback", false),
            ("2002:808:808::1", "6to4", false),
            ("2606:4700:4700::1111", "a resolver", true),
            ("3fff:fff:ffff::", "documentation, last", false),
            ("3fff:1000::", "behind documentation", true),
            ("4000::1", "behind global unicast", false),
            ("5f00::1", "segment routing", false),
            ("fc00::1", "unique local", false),
            ("fd00:ec2::254", "AWS's metadata", false),
            ("fe80::1", "link-local", false),
            ("fec0::1", "site-local, deprecated", false),
            ("ff02::1", "multicast", false),
        ];
        for (address, what, expected) in rows {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(is_public(address), *expected, "{address}: {what}");
        }
    }

    #[test]
    fn g6_private_addresses_are_ones_own_and_no_metadata() {
        let rows: &[(&str, bool)] = &[
            ("9.255.255.255", false),
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("172.15.255.255", false),
            ("172.16.0.0", true),
            ("172.31.255.255", true),
            ("172.32.0.0", false),
            ("192.167.255.255", false),
            ("192.168.0.0", true),
            ("192.169.0.0", false),
            ("100.63.255.255", false),
            ("100.64.0.0", true),
            ("100.100.100.199", true),
            ("100.100.100.200", false),
            ("100.127.255.255", true),
            ("127.0.0.1", true),
            ("128.0.0.0", false),
            ("0.0.0.0", false),
            ("168.63.129.16", false),
            ("169.254.169.254", false),
            ("169.254.170.2", false),
            ("192.0.0.192", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("8.8.8.8", false),
            ("::", false),
            ("::1", true),
            ("::2", false),
            ("::ffff:10.0.0.1", true),
            ("::ffff:169.254.169.254", false),
            ("64:ff9b::a00:1", true),
            ("64:ff9b::a9fe:a9fe", false),
            ("64:ff9b:1::a9fe:a9fe", false),
            ("fbff:ffff::", false),
            ("fc00::1", true),
            ("fd12:3456::1", true),
            ("fd00:ec2::254", false),
            ("fd20:ce::254", false),
            ("fe00::", false),
            ("fe80::1", false),
            ("ff02::1", false),
            ("2002:7f00:1::", false),
        ];
        for (address, expected) in rows {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(is_private(address), *expected, "{address}");
            assert!(!(is_private(address) && is_public(address)), "{address}");
        }
    }

    proptest! {
        /// What the standard library knows to be special is never public.
        #[test]
        fn d5_nothing_std_calls_special_is_public(bits in any::<u32>()) {
            let v4 = Ipv4Addr::from_bits(bits);
            let is_special = v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.is_documentation();
            prop_assert!(!(is_special && is_public(v4.into())));
            prop_assert_eq!(is_public(v4.into()), is_public(v4.to_ipv6_mapped().into()));
        }

        #[test]
        fn d5_nothing_std_calls_special_is_public_v6(
            first in prop_oneof![Just(0_u16), Just(0xfc00), Just(0xfe80), Just(0xff02), any::<u16>()],
            rest in any::<[u16; 7]>(),
        ) {
            let [b, c, d, e, f, g, h] = rest;
            let v6 = Ipv6Addr::new(first, b, c, d, e, f, g, h);
            let is_special = v6.is_unique_local()
                || v6.is_unicast_link_local()
                || v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast();
            prop_assert!(!(is_special && is_public(v6.into())));
        }
    }
}
