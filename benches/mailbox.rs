//! Letters between threads: what a post costs while the receiver is awake, and a round of 64 letters
//! with the wake that goes before it.
//!
//! `cargo bench --bench mailbox`. Throughput counts letters.

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot be set up has nothing to say"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mio::{Poll, Token};
use tidegate::reactor::mailbox::{Wake, mailbox};

/// The default capacity of a reactor's mailbox.
const CAPACITY: usize = 4096;
const POSTED: u64 = 1024;
const BATCH: u64 = 64;

/// Counts wakes and does nothing else.
#[derive(Clone, Default)]
struct Bell(Arc<AtomicU64>);

impl Wake for Bell {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn letters(c: &mut Criterion) {
    let mut group = c.benchmark_group("mailbox");

    group.throughput(Throughput::Elements(POSTED));
    group.bench_function("post to the awake/1024", |b| {
        let bell = Bell::default();
        let (postbox, mailbox) = mailbox(CAPACITY, bell.clone());
        let wake = || {
            mailbox.take().for_each(drop);
            postbox.post(0).unwrap();
            bell.0.load(Ordering::Relaxed)
        };
        b.iter_batched(
            wake,
            |wakes| {
                for letter in 0..POSTED {
                    assert!(postbox.post(letter).is_ok());
                }
                assert_eq!(bell.0.load(Ordering::Relaxed), wakes, "it was awake");
            },
            BatchSize::PerIteration,
        );
    });

    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("post and take/64", |b| {
        let (postbox, mailbox) = mailbox(CAPACITY, Bell::default());
        b.iter(|| {
            for letter in 0..BATCH {
                assert!(postbox.post(letter).is_ok());
            }
            let sum: u64 = mailbox.take().sum();
            assert_eq!(sum, BATCH * (BATCH - 1) / 2);
        });
    });
    group.bench_function("post, wake and take/64", |b| {
        let poll = Poll::new().unwrap();
        let waker = mio::Waker::new(poll.registry(), Token(0)).unwrap();
        let (postbox, mailbox) = mailbox(CAPACITY, waker);
        b.iter(|| {
            for letter in 0..BATCH {
                assert!(postbox.post(letter).is_ok());
            }
            let sum: u64 = mailbox.take().sum();
            assert_eq!(sum, BATCH * (BATCH - 1) / 2);
        });
    });
    group.finish();
}

criterion_group!(benches, letters);
criterion_main!(benches);
