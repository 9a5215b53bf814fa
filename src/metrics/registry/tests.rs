//! Rows come and go, queries agree with a naive list, and pages neither skip nor repeat.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::metrics::Counters;
use crate::metrics::report::{Ended, Gauges, Ledger, Report};

fn id(reactor: u8, slot: u32) -> ConnectionId {
    ConnectionId::new(reactor, slot, 0)
}

fn row(id: ConnectionId, user: &str, address: &str, since: Millis, outbox_bytes: u64) -> RowChange {
    RowChange {
        id,
        opened: Some(Opened {
            user: Some(user.into()),
            route: u16::try_from(id.slot() % 3).unwrap(),
            address: address.parse().unwrap(),
            since,
            transport: Transport::Plain,
        }),
        traffic: Traffic::default(),
        last_activity: since + 5,
        outbox_bytes,
        has_ended: false,
    }
}

fn end(id: ConnectionId) -> RowChange {
    RowChange {
        id,
        opened: None,
        traffic: Traffic::default(),
        last_activity: 0,
        outbox_bytes: 0,
        has_ended: true,
    }
}

/// Two reactors, a hundred connections each, of ten users.
fn registry() -> Registry {
    let mut registry = Registry::default();
    let mut changes = Vec::new();
    for reactor in 0..2 {
        for slot in 0..100 {
            let user = format!("user-{}", slot % 10);
            let address = format!("10.{reactor}.0.{slot}");
            changes.push(row(
                id(reactor, slot),
                &user,
                &address,
                u64::from(slot * 7 % 100) * 10,
                u64::from(slot / 10),
            ));
        }
    }
    registry.apply(&mut changes);
    assert!(changes.is_empty());
    registry
}

fn ids(answers: &Answers<'_>) -> Vec<ConnectionId> {
    answers.rows.iter().map(|view| view.row.id).collect()
}

#[test]
fn a_row_takes_at_most_128_bytes() {
    assert!(size_of::<Row>() <= 128);
    assert!(size_of::<Page>() / PAGE_ROWS as usize <= 128);
}

#[test]
fn each_filter_names_its_connections_and_together_they_narrow() {
    let registry = registry();
    let all = Filter::default();
    let cases: [(&str, Filter, usize); 9] = [
        ("all", all.clone(), 200),
        (
            "user",
            Filter {
                user: Some("user-3".into()),
                ..all.clone()
            },
            20,
        ),
        (
            "nobody",
            Filter {
                user: Some("user-33".into()),
                ..all.clone()
            },
            0,
        ),
        (
            "network",
            Filter {
                network: Some("10.1.0.0/28".parse().unwrap()),
                ..all.clone()
            },
            16,
        ),
        (
            "route",
            Filter {
                route: Some(0),
                ..all.clone()
            },
            68,
        ),
        (
            "reactor",
            Filter {
                reactor: Some(1),
                ..all.clone()
            },
            100,
        ),
        (
            "age",
            Filter {
                opened_before: Some(91),
                ..all.clone()
            },
            20,
        ),
        (
            "idle",
            Filter {
                idle_since: Some(96),
                ..all.clone()
            },
            20,
        ),
        (
            "outbox",
            Filter {
                outbox_bytes_min: Some(9),
                ..all.clone()
            },
            20,
        ),
    ];
    for (name, filter, expected) in cases {
        assert_eq!(registry.count(&filter), expected, "{name}");
        let query = Query {
            filter,
            limit: ANSWERS_MAX,
            ..Query::default()
        };
        assert_eq!(registry.query(&query).rows.len(), expected, "{name}");
    }
    let narrow = Filter {
        user: Some("user-3".into()),
        reactor: Some(0),
        outbox_bytes_min: Some(9),
        ..all
    };
    let query = Query {
        filter: narrow,
        limit: 5,
        ..Query::default()
    };
    let answers = registry.query(&query);
    assert_eq!((ids(&answers), answers.next), (vec![id(0, 93)], None));
    assert_eq!(answers.rows[0].user, Some("user-3"));
}

#[test]
fn one_connection_is_found_by_its_id_and_not_by_its_successors() {
    let registry = registry();
    let found = registry.get(id(1, 42)).unwrap();
    assert_eq!(
        (found.user, found.row.address),
        (Some("user-2"), [10, 1, 0, 42].into())
    );
    assert_eq!(registry.get(ConnectionId::new(1, 42, 1)), None);
    assert_eq!(registry.get(id(1, 100)), None);
    assert_eq!(registry.get(id(2, 0)), None);
}

#[test]
fn a_limit_of_nothing_or_everything_is_brought_into_range() {
    let registry = registry();
    for (limit, expected) in [(0, 1), (usize::MAX, 200)] {
        let query = Query {
            limit,
            ..Query::default()
        };
        assert_eq!(registry.query(&query).rows.len(), expected);
    }
}

#[test]
fn a_successor_may_be_announced_before_its_predecessors_end() {
    let mut registry = Registry::default();
    let (before, after) = (ConnectionId::new(0, 1, 0), ConnectionId::new(0, 1, 1));
    registry.apply(&mut vec![row(before, "ann", "10.0.0.1", 0, 0)]);
    registry.apply(&mut vec![row(after, "bob", "10.0.0.1", 0, 0), end(before)]);
    assert_eq!((registry.len(), registry.users()), (1, 1));
    assert_eq!(registry.get(after).unwrap().user, Some("bob"));
}

#[test]
fn pages_and_names_are_freed_with_their_last_row() {
    let mut registry = registry();
    assert_eq!((registry.users(), registry.len_of_user("user-3")), (10, 20));
    let mut changes: Vec<_> = (0..2)
        .flat_map(|reactor| (0..100).map(move |slot| end(id(reactor, slot))))
        .collect();
    registry.apply(&mut changes);
    assert_eq!((registry.len(), registry.users()), (0, 0));
    assert!(
        registry.bytes_held() < size_of::<Page>(),
        "{}",
        registry.bytes_held()
    );
}

#[test]
fn a_change_of_an_unannounced_connection_is_passed_over() {
    let mut registry = Registry::default();
    let mut changed = end(id(0, 3));
    changed.has_ended = false;
    registry.apply(&mut vec![changed, end(id(0, 4))]);
    assert!(registry.is_empty());
}

#[test]
fn a_cursor_keeps_its_text_and_refuses_others() {
    let cursor = Cursor {
        rank: u64::MAX - 3,
        id: id(1, 77),
    };
    assert_eq!(cursor.to_string().parse(), Ok(cursor));
    for nonsense in [
        "",
        "-",
        "12",
        "12-",
        "-12",
        "x-1",
        "1-2-3",
        "11111111111111111-1",
    ] {
        assert!(nonsense.parse::<Cursor>().is_err(), "{nonsense}");
    }
}

const SORTS: [SortKey; 9] = [
    SortKey::Id,
    SortKey::Oldest,
    SortKey::Newest,
    SortKey::Idle,
    SortKey::OutboxBytes,
    SortKey::BytesReceived,
    SortKey::BytesSent,
    SortKey::MessagesReceived,
    SortKey::MessagesSent,
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Pages in every order agree with sorting everything.
    #[test]
    fn pages_agree_with_a_sorted_list(
        outboxes in prop::collection::vec((0_u64..4, 0_u64..4), 0..150),
        sort in prop::sample::select(&SORTS),
        limit in 1_usize..20,
    ) {
        let mut registry = Registry::default();
        let mut changes: Vec<_> = (0..).zip(&outboxes).map(|(slot, &(outbox_bytes, since))| {
            let mut change = row(id(u8::try_from(slot % 2).unwrap(), slot), "ann", "10.0.0.1", since, outbox_bytes);
            change.traffic.bytes_sent = since;
            change
        }).collect();
        registry.apply(&mut changes);
        let mut expected: Vec<_> = registry.rows(None, None).map(|row| (sort.rank(row), row.id)).collect();
        expected.sort();
        let mut query = Query { sort, limit, ..Query::default() };
        let mut found = Vec::new();
        loop {
            let answers = registry.query(&query);
            prop_assert!(answers.rows.len() == limit || answers.next.is_none());
            found.extend(answers.rows.iter().map(|view| (sort.rank(view.row), view.row.id)));
            query.after = answers.next;
            if query.after.is_none() {
                break;
            }
        }
        prop_assert_eq!(found, expected);
    }

    /// Whoever was there all the time is shown exactly once, whoever comes and goes between pages.
    #[test]
    fn pages_are_stable_while_rows_come_and_go(
        churn in prop::collection::vec((0_u8..2, 0_u32..100, any::<bool>()), 0..80),
        sort in prop::sample::select(&SORTS[..3]),
    ) {
        let mut registry = registry();
        // Slots divisible by three stay; the others may go, and come again.
        let mut churn = churn.into_iter().filter(|(_, slot, _)| slot % 3 != 0);
        let mut query = Query { sort, limit: 7, ..Query::default() };
        let mut seen: BTreeMap<ConnectionId, u32> = BTreeMap::new();
        loop {
            let answers = registry.query(&query);
            for view in &answers.rows {
                *seen.entry(view.row.id).or_default() += 1;
            }
            query.after = answers.next;
            if query.after.is_none() {
                break;
            }
            for (reactor, slot, comes) in churn.by_ref().take(3) {
                let here = id(reactor, slot);
                let change = if comes { row(here, "new", "10.9.9.9", 2_000, 0) } else { end(here) };
                registry.apply(&mut vec![change]);
            }
        }
        for reactor in 0..2 {
            for slot in (0..100).step_by(3) {
                prop_assert_eq!(seen.get(&id(reactor, slot)), Some(&1));
            }
        }
    }

    /// A ledger and a registry, with reports delayed, refused and delivered at any time, end at what a
    /// naive map says: X5.
    #[test]
    fn x5_registry_and_reactor_agree_after_any_delays(
        steps in prop::collection::vec((0_u8..6, 0_u32..6), 0..300),
    ) {
        let mut ledger = Ledger::new(0);
        let mut registry = Registry::default();
        let mut in_flight: Option<Box<Report>> = None;
        let mut generations = [0_u32; 6];
        let mut model: BTreeMap<ConnectionId, (u64, u64)> = BTreeMap::new();
        let mut durations = 0;
        for (now, (step, slot)) in (1..).zip(steps) {
            let id = ConnectionId::new(0, slot, generations[slot as usize]);
            match step {
                0 | 1 => match model.remove(&id) {
                    None => {
                        let user: Arc<str> = format!("user-{slot}").into();
                        ledger.opened(id, Opened {
                            user: Some(user),
                            route: 0,
                            address: [127, 0, 0, 1].into(),
                            since: now,
                            transport: Transport::Plain,
                        });
                        model.insert(id, (0, now));
                    }
                    Some(_) => {
                        ledger.ended(id, Ended { at: now, duration: Duration::from_secs(1), reason: "io" });
                        durations += 1;
                        generations[slot as usize] += 1;
                    }
                },
                2 | 3 => if let Some((bytes, last)) = model.get_mut(&id) {
                    ledger.changed(id, Traffic { bytes_sent: 3, ..Traffic::default() }, now, 0);
                    *bytes += 3;
                    *last = now;
                },
                4 => {
                    let has_room = slot % 2 == 0;
                    ledger.hand_over(now, &Counters::default(), Gauges::default(), |report| {
                        if has_room { in_flight = Some(report); Ok(()) } else { Err(report) }
                    });
                }
                _ => if let Some(mut report) = in_flight.take() {
                    registry.apply(&mut report.rows);
                    durations -= report.last_ended.iter().count();
                    report.clear();
                    assert!(!ledger.give_back(report));
                },
            }
        }
        for _ in 0..2 {
            if let Some(mut report) = in_flight.take() {
                registry.apply(&mut report.rows);
                durations -= report.last_ended.iter().count();
                report.clear();
                assert!(!ledger.give_back(report));
            }
            ledger.hand_over(0, &Counters::default(), Gauges::default(), |report| {
                in_flight = Some(report);
                Ok(())
            });
        }
        let found: BTreeMap<_, _> = registry
            .rows(None, None)
            .map(|row| (row.id, (row.traffic.bytes_sent, row.last_activity)))
            .collect();
        prop_assert_eq!(found, model.clone());
        prop_assert_eq!((registry.users(), registry.len(), durations), (model.len(), model.len(), 0));
    }
}
