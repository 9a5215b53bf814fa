//! The promises of the limits, by the rows of the threat list where one is meant.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::*;

const HOUR: u64 = 3_600_000;

fn at(milliseconds: u64) -> Moment {
    Moment::after(Duration::from_millis(milliseconds))
}

/// The same in every run, so that which addresses share a row is, too.
fn hasher() -> RandomState {
    RandomState::with_seeds(1, 2, 3, 4)
}

fn limits(addresses_max: usize) -> Arc<Limits> {
    Arc::new(Limits::new(addresses_max, hasher()))
}

fn v4(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number))
}

fn v6(number: u128) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96 | number))
}

/// Nothing limited but what a test sets.
fn open_policy() -> Policy {
    Policy {
        connections: Cap::of(u32::MAX),
        address_connections: None,
        address_attempts: None,
        ..Policy::default()
    }
}

fn assert_nothing_held(limits: &Limits, now: Moment) {
    assert_eq!(limits.census(now), Census::default());
}

#[test]
fn one_less_than_the_cap_the_cap_and_one_more() {
    let limits = limits(64);
    let policy = Policy {
        address_connections: Some(Cap::of(5)),
        ..open_policy()
    };
    let mut tally = Tally::default();
    let mut attempt = |address| limits.attempt(&policy, address, at(0), &mut tally);
    let mut places: Vec<_> = (0..4).map(|_| attempt(v4(1)).unwrap()).collect();
    places.push(attempt(v4(1)).unwrap());
    let refused = Refused {
        limit: Limit::AddressConnections,
        retry_after: None,
    };
    assert_eq!(attempt(v4(1)).unwrap_err(), refused);
    // Another address is another matter; the same in its IPv6 disguise is not.
    assert!(attempt(v4(2)).is_ok());
    assert!(attempt(IpAddr::V6(Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped())).is_err());
    places.pop();
    places.push(attempt(v4(1)).unwrap());
    assert_eq!(attempt(v4(1)).unwrap_err(), refused);
    drop(places);
    assert_eq!(tally.refused(Limit::AddressConnections), 3);
    assert_nothing_held(&limits, at(0));
}

#[test]
fn the_originals_numbers_are_enforced() {
    let limits = limits(64);
    let policy = Policy::original();
    let mut tally = Tally::default();
    for _ in 0..2 {
        let places: Vec<_> = (0..5)
            .map(|_| limits.attempt(&policy, v4(1), at(0), &mut tally).unwrap())
            .collect();
        drop(places);
    }
    // Ten attempts are spent, though nobody is connected.
    let refused = limits
        .attempt(&policy, v4(1), at(0), &mut tally)
        .unwrap_err();
    let expected = Refused {
        limit: Limit::AddressAttempts,
        retry_after: Some(Duration::from_secs(360)),
    };
    assert_eq!(refused, expected);
    assert!(
        limits
            .attempt(&policy, v4(1), at(359_999), &mut tally)
            .is_err()
    );
    assert!(
        limits
            .attempt(&policy, v4(1), at(360_000), &mut tally)
            .is_ok()
    );
    let expected = Census {
        addresses_live: 1,
        ..Census::default()
    };
    assert_eq!(limits.census(at(360_000)), expected);
    // An hour later the address is forgotten: the burst would be whole again.
    assert_nothing_held(&limits, at(360_000 + HOUR));

    let mut meters = Meters::default();
    let traffic = Traffic::original();
    let passed = (0..70).filter(|_| {
        traffic
            .receive(&mut meters, 1 << 30, at(0), &mut tally)
            .is_ok()
    });
    assert_eq!(passed.count(), 60);
}

#[test]
fn the_global_cap_holds_whatever_the_address() {
    let limits = limits(64);
    let policy = Policy {
        connections: Cap::of(3),
        ..Policy::default()
    };
    let mut tally = Tally::default();
    let places: Vec<_> = (0..10)
        .filter_map(|number| limits.attempt(&policy, v4(number), at(0), &mut tally).ok())
        .collect();
    assert_eq!((places.len(), tally.refused(Limit::Connections)), (3, 7));
    assert_eq!(limits.census(at(0)).connections, 3);
    drop(places);
    assert_nothing_held(&limits, at(HOUR));
}

#[test]
fn f2_a_million_addresses_of_one_64_are_one_client() {
    let limits = limits(64);
    let policy = Policy {
        address_connections: Some(Cap::of(5)),
        address_attempts: Some(Rate::of(Quota::per_hour(10, 10))),
        ..open_policy()
    };
    let mut tally = Tally::default();
    let places: Vec<_> = (0..1_000_000_u128)
        .filter_map(|host| limits.attempt(&policy, v6(host), at(0), &mut tally).ok())
        .collect();
    assert_eq!(places.len(), 5);
    let census = limits.census(at(0));
    // The /64 and its /48.
    assert_eq!((census.address_places, census.addresses_live), (10, 2));
    assert_eq!(census.overflow_places, 0);
    drop(places);
    assert_nothing_held(&limits, at(HOUR));
}

#[test]
fn f2_a_whole_48_neither_multiplies_its_limit_nor_fills_the_table() {
    let limits = limits(1_000);
    let policy = Policy {
        address_connections: Some(Cap::of(5)),
        address_attempts: Some(Rate::of(Quota::per_hour(10, 10))),
        ..open_policy()
    };
    let mut tally = Tally::default();
    let places: Vec<_> = (0..65_536_u128)
        .filter_map(|subnet| {
            limits
                .attempt(&policy, v6(subnet << 64), at(0), &mut tally)
                .ok()
        })
        .collect();
    // Eight times an address's five, and for those 40 /64s and the /48.
    assert_eq!(places.len(), 40);
    // Of 80 attempts that the site has, the first 40 found a place.
    assert_eq!(limits.census(at(0)).addresses_live, 41);
    assert_eq!(tally.refused(Limit::SiteConnections), 40);
    assert_eq!(tally.refused(Limit::SiteAttempts), 65_536 - 80);
    // The neighbours of the /48 do not notice.
    assert!(
        limits
            .attempt(&policy, v6(1 << 80), at(0), &mut tally)
            .is_ok()
    );
}

#[test]
fn f3_a_full_table_takes_nothing_from_those_in_it() {
    const CAPACITY: u32 = 1_000;
    let limits = limits(CAPACITY as usize);
    let policy = Policy {
        address_connections: Some(Cap::of(2)),
        address_attempts: Some(Rate::of(Quota::per_hour(10, 10))),
        ..open_policy()
    };
    let mut tally = Tally::default();
    let mut attempt = |number, now| limits.attempt(&policy, v4(number), at(now), &mut tally);
    // A hundred honest addresses are connected, and have one connection left each.
    let honest: Vec<_> = (0..100).map(|number| attempt(number, 0).unwrap()).collect();
    // Ten times the capacity comes by, and stays as far as it is let.
    let mut hostile: Vec<_> = (100..100 + 10 * CAPACITY)
        .filter_map(|number| attempt(number, 0).ok())
        .collect();
    // Every cell is in use. Some of the last ones may have gone to the overflow account: it is full.
    let census = limits.census(at(0));
    let cells = u64::from(CAPACITY.div_ceil(6)) * 15;
    assert_eq!(census.addresses_live, cells);
    assert_eq!(census.overflow_places, 2 * 8);
    assert_eq!(hostile.len() as u64, cells - 100 + 16);
    // The honest ones still have theirs, and not more.
    let more: Vec<_> = (0..100).map(|number| attempt(number, 1).unwrap()).collect();
    assert!((0..100).all(|number| attempt(number, 2).is_err()));
    // While the attempts of the hostile ones are remembered there is no room, though they are gone.
    hostile.clear();
    assert_eq!(limits.census(at(3)).addresses_live, cells);
    // When they have recovered, newcomers get cells of their own.
    let later: Vec<_> = (20_000..20_100)
        .map(|number| attempt(number, HOUR).unwrap())
        .collect();
    let census = limits.census(at(HOUR));
    assert_eq!((census.addresses_live, census.overflow_places), (200, 0));
    drop((honest, more, later));
    assert_nothing_held(&limits, at(3 * HOUR));
    assert_eq!(tally.refused(Limit::AddressConnections), 100);
    assert!(tally.refused(Limit::OverflowConnections) > 0);
    assert!(tally.refused(Limit::OverflowAttempts) > 0);
}

#[test]
fn f4_a_million_attempts_from_four_threads_admit_exactly_what_is_allowed() {
    const THREADS: u32 = 4;
    const ATTEMPTS: u32 = 250_000;
    const ADDRESSES: u32 = 1_000;
    let limits = limits(ADDRESSES as usize);
    let policy = Policy {
        address_connections: Some(Cap::of(7)),
        ..open_policy()
    };
    let held: Vec<Vec<Place>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let mut tally = Tally::default();
                    let places: Vec<_> = (0..ATTEMPTS)
                        .filter_map(|attempt| {
                            let address = v4(attempt % ADDRESSES);
                            limits.attempt(&policy, address, at(0), &mut tally).ok()
                        })
                        .collect();
                    let refused = tally.refused(Limit::AddressConnections);
                    assert_eq!(places.len() as u64 + refused, u64::from(ATTEMPTS));
                    places
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let admitted: usize = held.iter().map(Vec::len).sum();
    assert_eq!(admitted, 7 * ADDRESSES as usize);
    let census = limits.census(at(0));
    assert_eq!(census.address_places, admitted as u64);
    assert_eq!((census.overflow_places, census.connections), (0, 7_000));
    drop(held);
    assert_nothing_held(&limits, at(0));
}

#[test]
fn f4_attempts_per_time_are_exact_across_threads() {
    const ADDRESSES: u32 = 50;
    let limits = limits(ADDRESSES as usize);
    // One permit per millisecond and address, with a burst of 20; the clock goes to 100 ms. Each thread
    // reads the clock for itself, as reactors do.
    let quota = Quota::per_second(1_000, 20);
    let policy = Policy {
        address_attempts: Some(Rate::of(quota)),
        ..open_policy()
    };
    let admitted = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut tally = Tally::default();
                for now in 0..=100 {
                    for number in (0..ADDRESSES).cycle().take(50 * 25) {
                        let place = limits.attempt(&policy, v4(number), at(now), &mut tally);
                        admitted.fetch_add(u64::from(place.is_ok()), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    // Everybody asks more than enough, and the last millisecond is asked for by all: nothing is wasted.
    assert_eq!(
        admitted.load(Ordering::Relaxed),
        u64::from(ADDRESSES) * (20 + 100)
    );
    assert_nothing_held(&limits, at(10_000));
}

#[test]
fn f4_cells_that_change_hands_all_the_time_stay_exact() {
    // Three addresses for each cell of a table of one row: cells are retired, claimed and published
    // while others pin them. No address may have more than its one place, ever.
    const ADDRESSES: u32 = 45;
    let limits = limits(1);
    let policy = Policy {
        address_connections: Some(Cap::of(1)),
        overflow_factor: 0,
        ..open_policy()
    };
    let holders: Vec<_> = (0..ADDRESSES).map(|_| AtomicU64::new(0)).collect();
    let admitted = AtomicU64::new(0);
    thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (limits, policy, holders, admitted) = (&limits, &policy, &holders, &admitted);
            scope.spawn(move || {
                let mut tally = Tally::default();
                let mut random = 0x9e37_79b9_7f4a_7c15 ^ thread;
                let mut held: Vec<(usize, Place)> = Vec::new();
                for _ in 0..150_000 {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let number = usize::try_from(random % u64::from(ADDRESSES)).unwrap();
                    let address = v4(u32::try_from(number).unwrap());
                    if let Ok(place) = limits.attempt(policy, address, at(0), &mut tally) {
                        let before = holders[number].fetch_add(1, Ordering::SeqCst);
                        assert_eq!(before, 0, "address {number} is connected twice");
                        admitted.fetch_add(1, Ordering::Relaxed);
                        held.push((number, place));
                    }
                    if held.len() > 3 {
                        let (number, place) = held.remove(0);
                        holders[number].fetch_sub(1, Ordering::SeqCst);
                        drop(place);
                    }
                }
                for (number, place) in held {
                    holders[number].fetch_sub(1, Ordering::SeqCst);
                    drop(place);
                }
            });
        }
    });
    assert!(admitted.load(Ordering::Relaxed) > 10_000);
    assert_nothing_held(&limits, at(0));
}

#[test]
fn f5_an_office_behind_one_address_reconnects_at_once() {
    // 400 people with two tabs each, and one of them with a script.
    let limits = limits(64);
    let policy = Policy::default();
    let mut tally = Tally::default();
    let mut attempt = |now| limits.attempt(&policy, v4(1), at(now), &mut tally);
    let office: Vec<_> = (0..800).map(|_| attempt(0).unwrap()).collect();
    drop(office);
    // A minute after the restart of the server that closed them all.
    let office: Vec<_> = (0..800).map(|_| attempt(60_000).unwrap()).collect();
    // The script takes what is left, in vain attempts by the thousand.
    let script = (0..10_000).filter(|_| attempt(60_000).is_ok()).count();
    assert_eq!(script, 200, "attempts that did not stay connected");
    // It is not punished for long, because the office is not to be: a colleague comes back at once.
    assert!(attempt(60_050).is_ok());
    drop(office);
    // Nor does it touch what counts by user.
    let users = Arc::new(Users::new(hasher()));
    let cap = Cap::of(2);
    let colleague = users.enter(cap, b"alice", 1, WhenFull::RefuseNew, &mut tally);
    assert!(colleague.is_ok());
}

#[test]
fn f7_which_addresses_share_a_row_depends_on_the_hash_key() {
    // The addresses that fall into one row of a table fill it. With another key they are spread.
    let first = RandomState::with_seeds(1, 2, 3, 4);
    let row = |hasher: &RandomState, address: IpAddr| {
        let hash = hasher.hash_one(Key::of(address, Widths::default()));
        (u128::from(hash) * 167) >> 64
    };
    let colliding: Vec<_> = (0..20_000)
        .map(v4)
        .filter(|address| row(&first, *address) == 0)
        .take(40)
        .collect();
    assert_eq!(colliding.len(), 40);
    let policy = Policy {
        address_connections: Some(Cap::of(5)),
        ..open_policy()
    };
    let overflowing = |hasher: RandomState| {
        let limits = Arc::new(Limits::new(1_000, hasher));
        let mut tally = Tally::default();
        let attempts = colliding.iter().map(|address| {
            limits
                .attempt(&policy, *address, at(0), &mut tally)
                .unwrap()
        });
        let _places: Vec<_> = attempts.collect();
        limits.census(at(0)).overflow_places
    };
    assert_eq!(overflowing(first), 40 - 15);
    assert_eq!(overflowing(RandomState::with_seeds(5, 6, 7, 8)), 0);
}

#[test]
fn a_dry_run_counts_what_it_would_refuse() {
    let limits = limits(64);
    let dry = |max| Cap { max, dry_run: true };
    let policy = Policy {
        connections: dry(6),
        address_connections: Some(dry(5)),
        address_attempts: Some(Rate {
            quota: Quota::per_hour(4, 4),
            dry_run: true,
        }),
        ..Policy::default()
    };
    let mut tally = Tally::default();
    let places: Vec<_> = (0..10)
        .map(|_| limits.attempt(&policy, v4(1), at(0), &mut tally).unwrap())
        .collect();
    assert_eq!(limits.census(at(0)).connections, 10);
    assert_eq!(tally.would_refuse(Limit::Connections), 4);
    assert_eq!(tally.would_refuse(Limit::AddressConnections), 5);
    assert_eq!(tally.would_refuse(Limit::AddressAttempts), 6);
    assert!(Limit::ALL.iter().all(|limit| tally.refused(*limit) == 0));
    drop(places);
    assert_nothing_held(&limits, at(2 * HOUR));

    let traffic = Traffic {
        dry_run: true,
        ..Traffic::original()
    };
    let mut meters = Meters::default();
    for _ in 0..70 {
        assert!(traffic.receive(&mut meters, 1, at(0), &mut tally).is_ok());
    }
    assert_eq!(tally.would_refuse(Limit::Messages), 10);

    let users = Arc::new(Users::new(hasher()));
    let places: Vec<_> = (0..4)
        .map(|id| {
            users
                .enter(dry(1), b"alice", id, WhenFull::CloseOldest, &mut tally)
                .unwrap()
        })
        .collect();
    assert!(places.iter().all(|(_, oldest)| oldest.is_none()));
    assert_eq!(tally.would_refuse(Limit::UserConnections), 3);
    let mut sum = tally.clone();
    sum.merge(&tally);
    assert_eq!(sum.would_refuse(Limit::UserConnections), 6);
}

#[test]
fn traffic_counts_messages_and_bytes() {
    let traffic = Traffic {
        messages: Pace {
            per_second: Some(Quota::per_second(10, 10)),
            per_minute: None,
        },
        bytes: Pace {
            per_second: Some(Quota::per_second(1_000, 1_000)),
            per_minute: None,
        },
        control_frames: None,
        dry_run: false,
    };
    let mut tally = Tally::default();
    let mut receive = |meters: &mut Meters, bytes, now| {
        let answer = traffic.receive(meters, bytes, at(now), &mut tally);
        answer.map_err(|refused| (refused.limit, refused.retry_after))
    };
    let mut meters = Meters::default();
    assert_eq!(receive(&mut meters, 999, 0), Ok(()));
    assert_eq!(receive(&mut meters, 1, 0), Ok(()));
    let wait = Some(Duration::from_millis(1));
    assert_eq!(receive(&mut meters, 1, 0), Err((Limit::Bytes, wait)));
    for _ in 0..7 {
        assert_eq!(receive(&mut meters, 0, 0), Ok(()));
    }
    let wait = Some(Duration::from_millis(100));
    assert_eq!(receive(&mut meters, 0, 0), Err((Limit::Messages, wait)));
    assert!(receive(&mut Meters::default(), 1_001, 0).is_err());
    assert_eq!(size_of::<Meters>(), 40);
}

#[test]
fn a_user_has_as_many_connections_as_allowed() {
    let users = Arc::new(Users::new(hasher()));
    let mut tally = Tally::default();
    let mut enter =
        |user: &[u8], id| users.enter(Cap::of(2), user, id, WhenFull::RefuseNew, &mut tally);
    let (first, _) = enter(b"alice", 1).unwrap();
    let (second, _) = enter(b"alice", 2).unwrap();
    assert_eq!(
        enter(b"alice", 3).unwrap_err().limit,
        Limit::UserConnections
    );
    let (other, _) = enter(b"bob", 4).unwrap();
    drop(first);
    let (third, oldest) = enter(b"alice", 3).unwrap();
    assert_eq!(oldest, None);
    assert_eq!((users.held(b"alice"), users.connected()), (2, 2));
    drop((second, third, other));
    assert_eq!((users.held(b"alice"), users.connected()), (0, 0));
}

#[test]
fn the_oldest_connection_gives_way_once() {
    let users = Arc::new(Users::new(hasher()));
    let mut tally = Tally::default();
    let mut enter = |cap, id| {
        let cap = Cap::of(cap);
        users.enter(cap, b"alice", id, WhenFull::CloseOldest, &mut tally)
    };
    let (first, none) = enter(2, 1).unwrap();
    assert_eq!(none, None);
    let (second, _) = enter(2, 2).unwrap();
    let (third, oldest) = enter(2, 3).unwrap();
    assert_eq!(oldest, Some(1));
    // Its place has passed on: that it ends makes no room.
    drop(first);
    assert_eq!(users.held(b"alice"), 2);
    let (fourth, oldest) = enter(2, 4).unwrap();
    assert_eq!(oldest, Some(2));
    drop(third);
    let (fifth, oldest) = enter(2, 5).unwrap();
    assert_eq!(oldest, None);
    drop((second, fourth, fifth));
    assert_eq!((users.held(b"alice"), users.connected()), (0, 0));
    assert!(enter(0, 6).is_err(), "nobody is there to give way");
    assert_eq!(users.connected(), 0);
}

#[test]
fn f4_users_are_counted_exactly_across_threads() {
    let users = Arc::new(Users::new(hasher()));
    let named = AtomicU64::new(0);
    let entered = AtomicU64::new(0);
    let places: Vec<_> = thread::scope(|scope| {
        let spawn = |thread: u64| {
            let (users, named, entered) = (&users, &named, &entered);
            scope.spawn(move || {
                let mut tally = Tally::default();
                let mut places = Vec::new();
                for id in 0..10_000_u64 {
                    let user = [u8::try_from(id % 100).unwrap()];
                    let id = thread << 32 | id;
                    let when_full = WhenFull::CloseOldest;
                    let (place, oldest) = users
                        .enter(Cap::of(3), &user, id, when_full, &mut tally)
                        .unwrap();
                    assert!(users.held(&user) <= 3);
                    entered.fetch_add(1, Ordering::Relaxed);
                    named.fetch_add(u64::from(oldest.is_some()), Ordering::Relaxed);
                    places.push(place);
                }
                places
            })
        };
        let threads: Vec<_> = (0..4).map(spawn).collect();
        // All are kept to the end, also those whose places have passed on.
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    let stayed = entered.into_inner() - named.into_inner();
    assert_eq!(stayed, 300, "everybody else was named, once");
    drop(places);
    assert_eq!(users.connected(), 0);
}
