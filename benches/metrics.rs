//! What monitoring costs: recording and handing over on the reactor's side, merging, questions and the
//! exposition on the metrics thread's side. The registry is synthetic.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tidegate::ConnectionId;
use tidegate::metrics::figures::{Figures, KernelFigures, ProcessFigures, ServerFigures};
use tidegate::metrics::registry::{Filter, Query, SortKey};
use tidegate::metrics::report::{Gauges, Opened, RowChange, Traffic, Transport};
use tidegate::metrics::totals::ReactorTotals;
use tidegate::metrics::{
    Counters, Histogram, Ledger, Measure, Registry, Report, Totals, exposition,
};

const MILLION: u32 = 1_000_000;
const REACTORS: u8 = 4;
const USERS: u32 = 250_000;

/// A number that looks random and is the same in every run.
fn scatter(number: u32) -> u32 {
    number
        .wrapping_mul(0x9e37_79b1)
        .rotate_left(13)
        .wrapping_mul(0x85eb_ca6b)
}

fn opened(number: u32) -> RowChange {
    let reactor = u8::try_from(number % u32::from(REACTORS)).unwrap_or(0);
    RowChange {
        id: ConnectionId::new(reactor, number / u32::from(REACTORS), 0),
        opened: Some(Opened {
            user: Some(Arc::from(format!("user-{}", number % USERS))),
            route: 0,
            address: IpAddr::V4(Ipv4Addr::from(scatter(number))),
            since: u64::from(scatter(number) >> 8),
            transport: Transport::Tls13,
        }),
        traffic: Traffic {
            bytes_sent: u64::from(scatter(number + 1)),
            ..Traffic::default()
        },
        last_activity: u64::from(scatter(number) >> 7),
        outbox_bytes: u64::from(scatter(number + 2) % 5_000),
        has_ended: false,
    }
}

fn registry(rows: u32) -> Registry {
    let mut registry = Registry::default();
    registry.apply(&mut (0..rows).map(opened).collect());
    assert_eq!(registry.len(), rows as usize);
    registry
}

fn ledger(c: &mut Criterion) {
    let mut group = c.benchmark_group("ledger");
    let mut histogram = Histogram::new(Measure::SendLatency.scale());
    let mut value = 0;
    group.bench_function("record a value", |b| {
        b.iter(|| {
            value = (value + 977) & 0xf_ffff;
            histogram.record(black_box(value));
        });
    });
    assert!(histogram.count() > 0);

    let traffic = Traffic {
        messages_sent: 1,
        bytes_sent: 64,
        ..Traffic::default()
    };
    let mut subject = Ledger::new(0);
    let mut slot = 0;
    group.bench_function("a connection changed, of 10 000", |b| {
        b.iter(|| {
            slot = (slot + 7_919) % 10_000;
            subject.changed(black_box(ConnectionId::new(0, slot, 0)), traffic, 5, 0);
        });
    });

    // What a reactor and the metrics thread do once a tick: 1 000 connections were active.
    let (mut subject, mut totals, mut rows) = (Ledger::new(0), Totals::default(), registry(40_000));
    let counters = Counters::default();
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("hand over and merge/1000 rows", |b| {
        b.iter(|| {
            for slot in 0..1_000 {
                subject.changed(ConnectionId::new(0, slot, 0), traffic, 5, 0);
                subject.record(Measure::MessageSent, 64);
                subject.record(Measure::SendLatency, u64::from(slot));
            }
            let mut received: Option<Box<Report>> = None;
            let is_sent = subject.hand_over(7, &counters, Gauges::default(), |report| {
                received = Some(report);
                Ok(())
            });
            assert!(is_sent);
            if let Some(mut report) = received {
                totals.apply(&report);
                rows.apply(&mut report.rows);
                report.clear();
                assert!(!subject.give_back(report));
            }
        });
    });
    group.finish();

    let mut group = c.benchmark_group("report");
    let mut report = Report::default();
    for measure in Measure::ALL {
        for value in 0..2_000 {
            report.histograms.record(measure, value * value);
        }
    }
    group.bench_function("merge/10 full histograms", |b| {
        b.iter(|| totals.apply(black_box(&report)));
    });
    group.finish();
}

fn inspector(c: &mut Criterion) {
    let rows = registry(MILLION);
    assert!(rows.bytes_held() / rows.len() <= 128);
    let mut group = c.benchmark_group("inspector/1M rows");
    group.sample_size(20);
    let network = "10.0.0.0/8".parse().ok();
    let cases = [
        ("a page by id", Filter::default(), SortKey::Id),
        (
            "the fullest outboxes",
            Filter::default(),
            SortKey::OutboxBytes,
        ),
        ("the longest idle", Filter::default(), SortKey::Idle),
        (
            "one user's, the oldest",
            Filter {
                user: Some("user-4711".to_owned()),
                ..Filter::default()
            },
            SortKey::Oldest,
        ),
        (
            "a network's, most bytes sent",
            Filter {
                network,
                ..Filter::default()
            },
            SortKey::BytesSent,
        ),
    ];
    for (name, filter, sort) in cases {
        let mut query = Query {
            filter,
            sort,
            limit: 50,
            after: None,
        };
        group.bench_function(name, |b| {
            b.iter(|| {
                // An answer says how many there are in all, too.
                let filter = &query.filter;
                let total = match *filter == Filter::default() {
                    true => rows.len(),
                    false => rows.count(black_box(filter)),
                };
                let answers = rows.query(black_box(&query));
                assert!(total >= answers.rows.len());
                assert!(!answers.rows.is_empty());
                answers.rows.len()
            });
        });
        // The page behind it costs the same walk.
        query.after = rows.query(&query).next;
        group.bench_function(format!("{name}, the next page"), |b| {
            b.iter(|| rows.query(black_box(&query)).rows.len());
        });
    }
    group.bench_function("count by idle time", |b| {
        let filter = Filter {
            idle_since: Some(1 << 20),
            ..Filter::default()
        };
        b.iter(|| rows.count(black_box(&filter)));
    });
    group.finish();

    let mut totals = Totals::default();
    totals
        .reactors
        .resize_with(usize::from(REACTORS), ReactorTotals::default);
    for reactor in 0..REACTORS {
        let mut report = Report {
            reactor,
            ..Report::default()
        };
        for measure in Measure::ALL {
            (0..2_000).for_each(|value| report.histograms.record(measure, value * value));
        }
        totals.apply(&report);
    }
    let gather = || {
        let mut memory = totals.memory();
        let registry = rows.bytes_held() + rows.names_bytes_held();
        memory.push(("registry", registry as u64));
        let server = ServerFigures {
            memory,
            slow_consumers: totals.slow_consumers(),
            ..ServerFigures::default()
        };
        Figures::gather(
            black_box(1_000),
            &totals,
            &rows,
            &server,
            &ProcessFigures::default(),
            &KernelFigures::default(),
        )
    };
    // Once a second, whoever asks; what the kernel says comes on top.
    c.bench_function("figures/1M connections", |b| {
        b.iter(|| {
            let figures = gather();
            assert!(figures.series() > 300);
            figures
        });
    });
    // Once for all who ask within that second.
    let figures = gather();
    c.bench_function("exposition/1M connections", |b| {
        b.iter(|| {
            let text = exposition::render(black_box(&figures));
            assert!(text.ends_with("# EOF\n"));
            text.len()
        });
    });
}

fn fill(c: &mut Criterion) {
    let mut group = c.benchmark_group("registry");
    group.sample_size(10);
    group.throughput(Throughput::Elements(100_000));
    group.bench_function("open 100 000", |b| {
        let changes: Vec<RowChange> = (0..100_000).map(opened).collect();
        b.iter_batched(
            || (Registry::default(), changes.clone()),
            |(mut registry, mut changes)| {
                registry.apply(&mut changes);
                (registry, changes)
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(benches, ledger, fill, inspector);
criterion_main!(benches);
