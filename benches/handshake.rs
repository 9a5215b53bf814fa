//! The opening handshake without its sockets: head parse, route, upgrade check, 101. And requests with
//! a body over a kept connection.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidegate::http::exchange::{self, Exchange, Next};
use tidegate::http::head::{HeadReader, Limits, Progress};
use tidegate::http::template::{self, Template};
use tidegate::ws::upgrade::{Upgrade, choose_subprotocol, write_accept};

/// What Chromium sends, behind a proxy that adds three headers.
const BROWSER: &[u8] = b"GET /ws/notifications/?token=eyJhbGciOiJIUzI1NiJ9.eyJ1c2VyX2lkIjo0Mn0.c2ln HTTP/1.1\r\n\
    Host: chat.example\r\n\
    Connection: Upgrade\r\n\
    Pragma: no-cache\r\n\
    Cache-Control: no-cache\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r\n\
    Upgrade: websocket\r\n\
    Origin: https://chat.example\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
    Sec-WebSocket-Protocol: chat, superchat\r\n\
    X-Forwarded-For: 203.0.113.7\r\n\
    X-Forwarded-Proto: https\r\n\
    X-Request-Id: 0123456789abcdef\r\n\r\n";

/// Reads [`BROWSER`] in pieces of `size` bytes; true if it came out whole.
fn read_by(size: usize, limits: &Limits) -> bool {
    let mut reader = HeadReader::new();
    for piece in black_box(BROWSER).chunks(size) {
        match reader.receive(piece, limits) {
            Ok(Progress::Incomplete) => {}
            Ok(Progress::Complete { head, .. }) => {
                return black_box(&head).path() == "/ws/notifications/";
            }
            Err(_) => return false,
        }
    }
    false
}

fn handshake(c: &mut Criterion) {
    let limits = Limits::default();
    let mut group = c.benchmark_group("head");
    group.throughput(Throughput::Bytes(BROWSER.len() as u64));
    group.bench_function("whole", |b| {
        b.iter(|| assert!(read_by(BROWSER.len(), &limits)))
    });
    group.bench_function("byte by byte", |b| b.iter(|| assert!(read_by(1, &limits))));
    group.finish();

    let mut reader = HeadReader::new();
    let Ok(Progress::Complete { head, .. }) = reader.receive(BROWSER, &limits) else {
        panic!("the sample is a correct head")
    };
    let mut group = c.benchmark_group("upgrade");
    group.bench_function("check", |b| {
        b.iter(|| assert!(Upgrade::check(black_box(&head)).is_ok()))
    });
    let Ok(upgrade) = Upgrade::check(&head) else {
        panic!("the sample is a correct request")
    };
    let mut out = Vec::with_capacity(1024);
    group.bench_function("write_accept", |b| {
        b.iter(|| {
            out.clear();
            let subprotocol = choose_subprotocol(black_box(&upgrade), &["superchat"]);
            write_accept(&mut out, &upgrade, subprotocol, None);
            assert_eq!(out.len(), 164);
        });
    });
    group.finish();

    c.bench_function("handshake/head to 101", |b| {
        b.iter(|| {
            let mut reader = HeadReader::new();
            let Ok(Progress::Complete { head, .. }) = reader.receive(black_box(BROWSER), &limits)
            else {
                panic!("the sample is a correct head")
            };
            let Ok(upgrade) = Upgrade::check(&head) else {
                panic!("and a correct request")
            };
            out.clear();
            write_accept(&mut out, &upgrade, None, None);
            assert_eq!(out.len(), 129);
        });
    });
}

/// Looks up paths among thirty templates, half of them with captures.
fn routes(c: &mut Criterion) {
    let literal = (0..15).map(|n| format!("/ws/literal-{n}/"));
    let captured = (0..15).map(|n| format!("/ws/captured-{n}/{{room}}/{{id:int}}/"));
    let templates: Vec<_> = literal
        .chain(captured)
        .map(|text| match Template::parse(&text) {
            Ok(template) => template,
            Err(error) => panic!("{error}"),
        })
        .collect();
    let mut group = c.benchmark_group("route");
    for (name, path, place) in [
        ("literal, first of 30", "/ws/literal-0/", Some(0)),
        (
            "captured, last of 30",
            "/ws/captured-14/lobby/42/",
            Some(29),
        ),
        ("none of 30", "/ws/captured-14/lobby/042/", None),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let found =
                    template::find(black_box(&templates).iter().enumerate(), black_box(path));
                assert_eq!(black_box(found).map(|(index, _)| index), place);
            });
        });
    }
    group.finish();
}

/// What a Python backend sends to publish.
const PUBLISH: &[u8] = b"POST /api/publish HTTP/1.1\r\n\
    Host: 127.0.0.1:9000\r\n\
    User-Agent: python-requests/2.34.2\r\n\
    Accept-Encoding: gzip, deflate\r\n\
    Accept: */*\r\n\
    Connection: keep-alive\r\n\
    X-API-Key: 0123456789abcdef0123456789abcdef\r\n\
    Content-Length: 34\r\n\
    Content-Type: application/json\r\n\r\n\
    {\"channel\": \"c\", \"data\": {\"x\": 1}}";

/// Answers [`PUBLISH`], come in pieces of some size, and sixteen of it in one piece.
fn exchanges(c: &mut Criterion) {
    let limits = exchange::Limits::default();
    let pipelined = PUBLISH.repeat(16);
    let mut group = c.benchmark_group("exchange");
    for (name, input, size) in [
        ("publish, whole", PUBLISH, PUBLISH.len()),
        ("publish, head then body", PUBLISH, PUBLISH.len() - 34),
        ("publish, byte by byte", PUBLISH, 1),
        ("publish x 16, whole", &pipelined, pipelined.len()),
    ] {
        let mut exchange = Exchange::new();
        let mut out = Vec::with_capacity(4096);
        group.throughput(Throughput::Elements((input.len() / PUBLISH.len()) as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                for piece in black_box(input).chunks(size) {
                    let progress = exchange.receive(
                        piece,
                        &limits,
                        None,
                        &mut out,
                        &mut |request, response| {
                            assert!(request.header("x-api-key").is_some());
                            assert_eq!(black_box(request.body()).len(), 34);
                            response.send_json(200, b"{\"result\":{}}");
                        },
                    );
                    assert_eq!(progress.next, Next::Read);
                }
                assert_eq!(out.len(), 108 * input.len() / PUBLISH.len());
            });
        });
    }
    group.finish();
}

criterion_group!(benches, handshake, routes, exchanges);
criterion_main!(benches);
