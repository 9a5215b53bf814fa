//! What one frame costs on its way in and out: decode, encode, unmask, check, compress.
//!
//! `cargo bench --bench codec`. Ids name the operation and the payload; throughput counts payload.

#![expect(
    clippy::expect_used,
    reason = "a bench whose setup is wrong has nothing to measure"
)]

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidegate::ws::{
    Decoder, Deflater, Event, Inflater, Limits, Message, MessageKind, encoder, mask, utf8,
};

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const SIZES: [(&str, usize); 3] = [("64B", 64), ("1KiB", 1024), ("64KiB", 64 * 1024)];

/// How many frames lie in the buffer one after the other, as a reactor finds them behind one read.
/// Decoding unmasks in place, so each pass over the same buffer sees other bytes: binary frames take
/// any, and for text the key is zero, which costs the same.
const PIPELINED: usize = 16;

/// A client's frame.
fn masked(kind: MessageKind, payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    let mut frame = encoder::encode_header(kind, false, payload.len())
        .as_bytes()
        .to_vec();
    frame[1] |= 0x80;
    frame.extend_from_slice(&key);
    let start = frame.len();
    frame.extend_from_slice(payload);
    mask::unmask(&mut frame[start..], key);
    frame
}

/// Something like a chat protocol's JSON.
fn json(len: usize) -> Vec<u8> {
    let mut text = String::new();
    let mut id = 7_u32;
    while text.len() < len {
        id = id.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text.push_str(&format!(
            r#"{{"id":{id},"user":"user-{}","text":"The quick brown fox"}},"#,
            id >> 20
        ));
    }
    text.truncate(len);
    text.into_bytes()
}

/// Decodes every frame in the buffer and gives the sum of the payloads' lengths.
fn decode_all(decoder: &mut Decoder, input: &mut [u8], limits: &Limits, i: &mut Inflater) -> usize {
    let (mut at, mut bytes) = (0, 0);
    while at < input.len() {
        let decoded = decoder
            .decode(&mut input[at..], limits, i)
            .expect("valid frames");
        at += decoded.used;
        match decoded.event {
            Some(Event::Message(message)) => bytes += black_box(message.as_bytes()).len(),
            _ => panic!("a message per frame"),
        }
    }
    bytes
}

fn decode(c: &mut Criterion) {
    let limits = Limits::default();
    let mut inflater = Inflater::new();
    let mut group = c.benchmark_group("decode");
    for (kind, kind_name, key) in [
        (MessageKind::Binary, "binary", KEY),
        (MessageKind::Text, "text", [0; 4]),
    ] {
        for (name, len) in SIZES {
            let mut input = masked(kind, &vec![b'x'; len], key).repeat(PIPELINED);
            let mut decoder = Decoder::new(false);
            group.throughput(Throughput::BytesDecimal((len * PIPELINED) as u64));
            group.bench_function(format!("{kind_name}/{name}x{PIPELINED}"), |b| {
                b.iter(|| {
                    let bytes = decode_all(&mut decoder, &mut input, &limits, &mut inflater);
                    assert_eq!(bytes, len * PIPELINED);
                });
            });
        }
    }

    // A message in two halves, one absorbed and one from the next read.
    for (name, len) in SIZES {
        let frame = masked(MessageKind::Binary, &vec![b'x'; len], KEY);
        group.throughput(Throughput::BytesDecimal(len as u64));
        group.bench_function(format!("absorbed/{name}"), |b| {
            let mut decoder = Decoder::new(false);
            b.iter_batched_ref(
                || frame.clone(),
                |frame| {
                    let (front, back) = frame.split_at_mut(len / 2);
                    decoder.absorb(front, &limits).expect("a valid beginning");
                    let bytes = decode_all(&mut decoder, back, &limits, &mut inflater);
                    assert_eq!(bytes, len);
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    for (name, len) in SIZES {
        let payload = vec![b'x'; len];
        let message = Message::from(&payload[..]);
        let mut out = Vec::with_capacity((len + 14) * PIPELINED);
        group.throughput(Throughput::BytesDecimal((len * PIPELINED) as u64));
        group.bench_function(format!("{name}x{PIPELINED}"), |b| {
            b.iter(|| {
                out.clear();
                for _ in 0..PIPELINED {
                    encoder::encode_message(&mut out, black_box(&message));
                }
                assert!(out.len() > len * PIPELINED);
            });
        });
    }
    group.finish();
}

/// Decode, borrow, encode: all that an echo costs besides system calls.
fn echo(c: &mut Criterion) {
    let limits = Limits::default();
    let mut inflater = Inflater::new();
    let mut group = c.benchmark_group("echo");
    for (name, len) in SIZES {
        let mut input = masked(MessageKind::Binary, &vec![b'x'; len], KEY).repeat(PIPELINED);
        let mut decoder = Decoder::new(false);
        let mut out = Vec::with_capacity(input.len());
        group.throughput(Throughput::BytesDecimal((len * PIPELINED) as u64));
        group.bench_function(format!("{name}x{PIPELINED}"), |b| {
            b.iter(|| {
                out.clear();
                let mut at = 0;
                while at < input.len() {
                    let decoded = decoder
                        .decode(&mut input[at..], &limits, &mut inflater)
                        .expect("valid");
                    at += decoded.used;
                    if let Some(Event::Message(message)) = decoded.event {
                        encoder::encode_message(&mut out, &message);
                    }
                }
                assert!(black_box(&out).len() > len * PIPELINED);
            });
        });
    }
    group.finish();
}

fn unmask(c: &mut Criterion) {
    let mut group = c.benchmark_group("unmask");
    for (name, len) in SIZES {
        let mut payload = vec![b'x'; len];
        group.throughput(Throughput::BytesDecimal(len as u64));
        group.bench_function(name, |b| {
            b.iter(|| mask::unmask(black_box(&mut payload), KEY))
        });
    }
    group.finish();
}

fn check_utf8(c: &mut Criterion) {
    let mut group = c.benchmark_group("utf8");
    for (name, len) in SIZES {
        for (script, text) in [("ascii", "x"), ("mixed", "Grüße, Welt: 你好 ")] {
            let mut payload = text.repeat(len);
            let cut = (0..=len)
                .rev()
                .find(|at| payload.is_char_boundary(*at))
                .unwrap_or(0);
            payload.truncate(cut);
            group.throughput(Throughput::BytesDecimal(payload.len() as u64));
            let bytes = payload.as_bytes();
            group.bench_function(BenchmarkId::new(script, name), |b| {
                b.iter(|| assert!(utf8::validate(black_box(bytes)).is_ok()));
            });
            // What the dependency has to be better than.
            group.bench_function(BenchmarkId::new(format!("{script}-std"), name), |b| {
                b.iter(|| assert!(std::str::from_utf8(black_box(bytes)).is_ok()));
            });
        }
    }
    group.finish();
}

fn deflate(c: &mut Criterion) {
    let limits = Limits {
        message_bytes_max: 1 << 20,
        ..Limits::default()
    };
    let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
    let mut group = c.benchmark_group("deflate");
    for (name, len) in [("128B", 128), SIZES[1], SIZES[2]] {
        let payload = json(len);
        let mut deflated = Vec::new();
        assert!(deflater.deflate(&payload, 15, &mut deflated));
        group.throughput(Throughput::BytesDecimal(len as u64));
        let mut out = Vec::with_capacity(len + 4);
        group.bench_function(BenchmarkId::new("deflate", name), |b| {
            b.iter(|| {
                out.clear();
                assert!(deflater.deflate(black_box(&payload), 15, &mut out));
            });
        });
        group.bench_function(BenchmarkId::new("inflate", name), |b| {
            b.iter(|| {
                let inflated = inflater
                    .inflate(black_box(&deflated), &limits)
                    .expect("valid");
                assert_eq!(inflated.len(), len);
            });
        });
    }
    // The costliest input for its length: a stream that ends every other byte.
    let ends = [0x03, 0x00].repeat(32 * 1024);
    group.throughput(Throughput::BytesDecimal(ends.len() as u64));
    group.bench_function("inflate/64KiB-of-final-blocks", |b| {
        b.iter(|| black_box(inflater.inflate(black_box(&ends), &limits).is_ok()));
    });
    group.finish();
}

criterion_group!(benches, decode, encode, echo, unmask, check_utf8, deflate);
criterion_main!(benches);
