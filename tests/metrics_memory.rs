//! What monitoring costs in memory: nothing per tick, and a bounded row per connection. Counted in the
//! allocator; one test only, since the counters are the process's.

use std::alloc::System;
use std::sync::Arc;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tidegate::ConnectionId;
use tidegate::metrics::report::{Ended, Gauges, Opened, RowChange, Traffic, Transport};
use tidegate::metrics::{Counters, Ledger, Measure, Registry, Report, Totals};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const ROWS: u32 = 100_000;
const ROW_BYTES_MAX: usize = 128;
/// Users in the second half, each with a name of 12 bytes and all that is needed to find it.
const NAME_BYTES_MAX: usize = 12 + 128;

fn opened(user: &Arc<str>) -> Opened {
    Opened {
        user: Some(Arc::clone(user)),
        route: 0,
        address: [192, 0, 2, 1].into(),
        since: 0,
        transport: Transport::Plain,
    }
}

/// What a reactor and the metrics thread do once a tick: some connections are active, one comes, one goes.
fn tick(
    now: u64,
    ledger: &mut Ledger,
    totals: &mut Totals,
    registry: &mut Registry,
    user: &Arc<str>,
) {
    let generation = u32::try_from(now).unwrap_or(0);
    let (comes, goes) = (
        ConnectionId::new(0, 999, generation + 1),
        ConnectionId::new(0, 999, generation),
    );
    for slot in 0..500 {
        let traffic = Traffic {
            messages_sent: 1,
            bytes_sent: 64,
            ..Traffic::default()
        };
        ledger.changed(ConnectionId::new(0, slot, 0), traffic, now, 0);
        ledger.record(Measure::MessageSent, 64);
    }
    let duration = std::time::Duration::from_millis(now);
    ledger.ended(
        goes,
        Ended {
            at: now,
            duration,
            reason: "peer_closed",
        },
    );
    ledger.opened(comes, opened(user));
    // Every third report finds no room at first.
    if now.is_multiple_of(3) {
        assert!(!ledger.hand_over(now, &Counters::default(), Gauges::default(), Err));
    }
    let mut received: Option<Box<Report>> = None;
    let is_sent = ledger.hand_over(now, &Counters::default(), Gauges::default(), |report| {
        received = Some(report);
        Ok(())
    });
    assert!(is_sent);
    if let Some(mut report) = received {
        totals.apply(&report);
        registry.apply(&mut report.rows);
        report.clear();
        assert!(!ledger.give_back(report));
    }
}

#[test]
fn a_tick_allocates_nothing_and_a_row_is_within_its_budget() {
    let user: Arc<str> = "somebody".into();
    let (mut ledger, mut totals, mut registry) =
        (Ledger::new(0), Totals::default(), Registry::default());
    for slot in 0..1_000 {
        ledger.opened(ConnectionId::new(0, slot, 0), opened(&user));
    }
    for now in 0..4 {
        tick(now, &mut ledger, &mut totals, &mut registry, &user);
    }
    let region = Region::new(ALLOCATOR);
    for now in 4..1_000 {
        tick(now, &mut ledger, &mut totals, &mut registry, &user);
    }
    let change = region.change();
    assert_eq!(
        (change.allocations, change.reallocations),
        (0, 0),
        "in the steady state"
    );
    assert_eq!((registry.len(), registry.users()), (1_000, 1));

    for (has_own_user, most) in [
        (false, ROW_BYTES_MAX),
        (true, ROW_BYTES_MAX + NAME_BYTES_MAX),
    ] {
        let mut registry = Registry::default();
        let region = Region::new(ALLOCATOR);
        for slot in 0..ROWS {
            let name = if has_own_user {
                format!("user-{slot:07}").into()
            } else {
                Arc::clone(&user)
            };
            let change = RowChange {
                id: ConnectionId::new(0, slot, 0),
                opened: Some(opened(&name)),
                traffic: Traffic::default(),
                last_activity: 0,
                outbox_bytes: 0,
                has_ended: false,
            };
            registry.apply(&mut vec![change]);
        }
        let change = region.change();
        let live = (change.bytes_allocated - change.bytes_deallocated) / ROWS as usize;
        println!("own user {has_own_user}: {live} bytes per row");
        assert!(live <= most, "{live} bytes per row");
        assert_eq!(registry.len(), ROWS as usize);
    }
}
