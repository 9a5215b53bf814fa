//! What admission costs before anything is decrypted or verified: address, PROXY header, limits, origin.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use criterion::{Criterion, criterion_group, criterion_main};
use tidegate::admission::address::{
    ForwardingHeader, Key, TrustedNetworks, Widths, client_address,
};
use tidegate::admission::limits::{
    Cap, Limits, Meters, Policy, Rate, Tally, Traffic, Users, WhenFull,
};
use tidegate::admission::origin::{OriginMatch, OriginPolicy};
use tidegate::admission::proxy_protocol::{Progress, ProxyReader, Source, TLV_BYTES_MAX};
use tidegate::admission::rate::{Bucket, Moment, Quota};

fn address(c: &mut Criterion) {
    let Ok(trusted) = TrustedNetworks::parse(["10.0.0.0/8", "172.16.0.0/12", "fd00::/8"]) else {
        panic!("the networks are correct")
    };
    let peer = IpAddr::from([10, 0, 0, 1]);
    let client = IpAddr::from([203, 0, 113, 7]);
    let mut group = c.benchmark_group("address");
    let cases = [
        (
            "untrusted peer",
            client,
            ForwardingHeader::XForwardedFor,
            "1.2.3.4",
        ),
        (
            "X-Forwarded-For, 1 hop",
            peer,
            ForwardingHeader::XForwardedFor,
            "203.0.113.7",
        ),
        (
            "X-Forwarded-For, 3 hops",
            peer,
            ForwardingHeader::XForwardedFor,
            "6.6.6.6, 203.0.113.7, 10.2.3.4, 172.16.5.6",
        ),
        (
            "Forwarded, 2 hops",
            peer,
            ForwardingHeader::Forwarded,
            "for=\"203.0.113.7:4711\";proto=https, for=10.2.3.4;by=\"[fd00::1]\"",
        ),
    ];
    for (name, peer, header, line) in cases {
        group.bench_function(name, |b| {
            b.iter(|| {
                let found = client_address(black_box(peer), &trusted, header, [black_box(line)]);
                assert_eq!(found, client);
                Key::of(found, Widths::default())
            });
        });
    }
    group.finish();
}

fn proxy(c: &mut Criterion) {
    let client = IpAddr::from([203, 0, 113, 7]);
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    v2.extend([203, 0, 113, 7, 10, 0, 0, 1, 0x12, 0x67, 0x01, 0xbb]);
    let mut tlvs = v2.clone();
    tlvs[15] += 100;
    tlvs.resize(tlvs.len() + 100, 0);
    let v1 = b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n";
    let mut group = c.benchmark_group("proxy");
    for (name, header) in [
        ("v1", &v1[..]),
        ("v2", &v2),
        ("v2 with 100 bytes of TLVs", &tlvs),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut reader = ProxyReader::new(TLV_BYTES_MAX);
                let Ok(Progress::Complete { source, used }) = reader.receive(black_box(header))
                else {
                    panic!("the header is whole")
                };
                let Source::Proxied { client: found, .. } = source else {
                    panic!("and names a client")
                };
                assert_eq!((found.ip(), used), (client, header.len()));
            });
        });
    }
    group.finish();
}

fn number(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 + number))
}

fn table(c: &mut Criterion) {
    const LIVE: u32 = 100_000;
    let now = Moment::after(Duration::from_secs(1));
    let limits = Arc::new(Limits::new(LIVE as usize, RandomState::new()));
    let policy = Policy {
        connections: Cap::of(u32::MAX),
        ..Policy::default()
    };
    let mut tally = Tally::default();
    let Ok(live) = (0..LIVE)
        .map(|client| limits.attempt(&policy, number(client), now, &mut tally))
        .collect::<Result<Vec<_>, _>>()
    else {
        panic!("there is room for all")
    };
    let mut group = c.benchmark_group("limits");
    // Far apart, so that each attempt finds its row in memory and not in a cache.
    let mut client = 0_u32;
    let mut stride = move || {
        client = (client + 7_919) % LIVE;
        client
    };
    // The clock goes on, so that permits keep coming: also where 15 addresses take turns.
    let mut time = 1_000_u64;
    let mut tick = move || {
        time += 10;
        Moment::after(Duration::from_millis(time))
    };
    group.bench_function("attempt and release, 100k live, known IPv4", |b| {
        b.iter(|| {
            let place = limits.attempt(&policy, number(stride()), tick(), &mut tally);
            assert!(place.is_ok());
        });
    });
    let mut host = 0_u128;
    group.bench_function(
        "attempt and release, 100k live, IPv6 in 5000 /64s of 50 /48s",
        |b| {
            b.iter(|| {
                host = (host + 1) % 5_000;
                let address = 0x2001_0db8_u128 << 96 | (host % 50) << 80 | (host / 50) << 64 | host;
                let address = IpAddr::V6(Ipv6Addr::from_bits(address));
                let place = limits.attempt(&policy, address, tick(), &mut tally);
                assert!(place.is_ok());
            });
        },
    );
    let strict = Policy {
        address_connections: Some(Cap::of(1)),
        ..policy.clone()
    };
    group.bench_function("attempt refused for connections, 100k live", |b| {
        b.iter(|| {
            let place = limits.attempt(&strict, number(stride()), tick(), &mut tally);
            assert!(place.is_err());
        });
    });
    let Ok(slow) = Quota::new(1, Duration::from_secs(3_600_000), 1) else {
        panic!("the quota is correct")
    };
    let slow = Policy {
        address_attempts: Some(Rate::of(slow)),
        ..policy.clone()
    };
    // An address that nobody has used takes the one permit there is.
    let spent = number(LIVE + 1);
    assert!(limits.attempt(&slow, spent, now, &mut tally).is_ok());
    group.bench_function("attempt refused for its rate", |b| {
        b.iter(|| {
            let place = limits.attempt(&slow, spent, tick(), &mut tally);
            assert!(place.is_err());
        });
    });
    let full = Policy {
        connections: Cap::of(LIVE),
        ..policy.clone()
    };
    group.bench_function("attempt refused by a full server", |b| {
        b.iter(|| {
            let place = limits.attempt(&full, number(stride()), now, &mut tally);
            assert!(place.is_err());
        });
    });
    // Nobody can choose colliding addresses without the key; here is what one could get.
    let hasher = RandomState::with_seeds(1, 2, 3, 4);
    let colliding: Vec<IpAddr> = (0..2_000_000)
        .map(number)
        .filter(|address| hasher.hash_one(Key::of(*address, Widths::default())) >> 48 == 0)
        .take(15)
        .collect();
    assert_eq!(colliding.len(), 15);
    let crowded = Arc::new(Limits::new(6 * 1_000, hasher));
    let mut at = 0;
    let mut crowd = Vec::new();
    for address in &colliding {
        crowd.extend(crowded.attempt(&policy, *address, now, &mut tally));
    }
    group.bench_function("attempt and release, all cells of the row taken", |b| {
        b.iter(|| {
            at = (at + 1) % colliding.len();
            let place = crowded.attempt(&policy, colliding[at], tick(), &mut tally);
            assert!(place.is_ok());
        });
    });

    let users = Arc::new(Users::new(RandomState::new()));
    let cap = Cap::of(10);
    let known: Vec<_> = (0..LIVE)
        .map(|id| users.enter(cap, &id.to_le_bytes(), id, WhenFull::RefuseNew, &mut tally))
        .collect();
    group.bench_function("user, enter and leave, 100k users", |b| {
        b.iter(|| {
            let user = stride().to_le_bytes();
            let place = users.enter(cap, &user, u32::MAX, WhenFull::RefuseNew, &mut tally);
            assert!(place.is_ok());
        });
    });
    drop((live, crowd, known));
    group.finish();
}

fn rate(c: &mut Criterion) {
    let Ok(quota) = Quota::new(1_000_000_000, Duration::from_secs(1), 1_000) else {
        panic!("the quota is correct")
    };
    let mut group = c.benchmark_group("rate");
    let mut bucket = Bucket::default();
    let mut time = 0;
    group.bench_function("bucket", |b| {
        b.iter(|| {
            time += 1;
            let now = Moment::after(Duration::from_micros(black_box(time)));
            assert!(bucket.spend(&quota, 1, now).is_ok());
        });
    });
    let (traffic, mut meters, mut tally) =
        (Traffic::default(), Meters::default(), Tally::default());
    let mut time = 0;
    group.bench_function("traffic of a connection, per message", |b| {
        b.iter(|| {
            time += 100;
            let now = Moment::after(Duration::from_millis(black_box(time)));
            assert!(traffic.receive(&mut meters, 64, now, &mut tally).is_ok());
        });
    });
    group.finish();
}

fn origin(c: &mut Criterion) {
    let rules = (0..8).map(|tenant| format!("https://tenant-{tenant}.example.com"));
    let wildcard = "https://*.apps.example.com".to_owned();
    let last = "https://app.example.org:8443".to_owned();
    let Ok(allowed) = rules
        .chain([wildcard, last])
        .map(|rule| rule.parse())
        .collect()
    else {
        panic!("the rules are correct")
    };
    let policy = OriginPolicy {
        allowed,
        ..OriginPolicy::default()
    };
    let mut group = c.benchmark_group("origin, 10 rules");
    for (name, origin, is_listed) in [
        ("the first", "https://tenant-0.example.com", true),
        ("the wildcard", "https://chat.apps.example.com", true),
        ("the last", "https://app.example.org:8443", true),
        ("none", "https://evil.example", false),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let found = policy.check(Some(black_box(origin)));
                assert_eq!(found == Ok(OriginMatch::Listed), is_listed);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, address, proxy, table, rate, origin);
criterion_main!(benches);
