//! The timer wheel with 100,000 timers in it: what a connection's deadline costs its reactor.
//!
//! `cargo bench --bench timer`. Throughput counts timers. Keys come in a scattered order, as slots
//! do once connections have come and gone.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tidegate::timer::{Tick, Wheel};

const ARMED: u32 = 100_000;
/// The default ping interval of 25 s: deadlines of idle connections lie this far ahead.
const INTERVAL: Tick = 500;

/// All keys once each: the factor is prime and does not divide [`ARMED`].
fn keys() -> impl Iterator<Item = u32> {
    (0..ARMED).map(|number| number * 7919 % ARMED)
}

/// A wheel whose timers are spread evenly over the next [`INTERVAL`] ticks.
fn full_wheel() -> Wheel {
    let mut wheel = Wheel::new(0);
    for key in keys() {
        wheel.arm(key, 1 + key % INTERVAL);
    }
    wheel
}

fn timer(c: &mut Criterion) {
    let mut group = c.benchmark_group("timer");
    group.throughput(Throughput::Elements(ARMED.into()));
    group.bench_function("arm/100k", |b| {
        // Armed and cancelled once, so that the table of links has its size.
        let emptied = || {
            let mut wheel = full_wheel();
            keys().for_each(|key| wheel.cancel(key));
            wheel
        };
        b.iter_batched_ref(
            emptied,
            |wheel| {
                for key in keys() {
                    wheel.arm(black_box(key), 1 + key % INTERVAL);
                }
                assert_eq!(wheel.armed(), ARMED as usize);
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("move/100k", |b| {
        let mut wheel = full_wheel();
        let mut shift = 0;
        b.iter(|| {
            shift += 1;
            for key in keys() {
                wheel.arm(black_box(key), 1 + (key + shift) % INTERVAL);
            }
            assert_eq!(wheel.armed(), ARMED as usize);
            assert_eq!(wheel.deadline(0), Some(1 + shift % INTERVAL));
        });
    });
    group.bench_function("cancel/100k", |b| {
        b.iter_batched_ref(
            full_wheel,
            |wheel| {
                for key in keys() {
                    wheel.cancel(black_box(key));
                }
                assert_eq!(wheel.armed(), 0);
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("expire/100k at once", |b| {
        let mut expired = Vec::with_capacity(ARMED as usize);
        b.iter_batched_ref(
            full_wheel,
            |wheel| {
                expired.clear();
                wheel.expire(INTERVAL, &mut expired);
                assert_eq!(expired.len(), ARMED as usize);
            },
            BatchSize::PerIteration,
        );
    });

    // The steady state of a reactor: in each tick one interval's share is due and armed again.
    let share = ARMED / INTERVAL;
    group.throughput(Throughput::Elements(share.into()));
    group.bench_function("expire and arm again/200 of 100k", |b| {
        let mut wheel = full_wheel();
        let mut now = 0;
        let mut expired = Vec::with_capacity(share as usize);
        b.iter(|| {
            now += 1;
            expired.clear();
            wheel.expire(now, &mut expired);
            for key in &expired {
                wheel.arm(*key, now + INTERVAL);
            }
            assert_eq!(expired.len(), share as usize);
            assert_eq!(wheel.armed(), ARMED as usize);
        });
    });

    group.throughput(Throughput::Elements(1));
    group.bench_function("until_next/100k", |b| {
        let wheel = full_wheel();
        b.iter(|| assert_eq!(black_box(&wheel).until_next(), Some(1)));
    });
    group.bench_function("until_next/1 far ahead", |b| {
        let mut wheel = Wheel::new(0);
        wheel.arm(7, 1000);
        b.iter(|| assert_eq!(black_box(&wheel).until_next(), Some(1000)));
    });
    group.finish();
}

criterion_group!(benches, timer);
criterion_main!(benches);
