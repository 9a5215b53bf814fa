//! Whole exchanges in memory. Names begin with the id of the threat a test stands for.

use proptest::prelude::*;

use super::*;

/// What an exchange came to: all bytes of the answers, the requests as the handler saw them, and how it
/// ended.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    out: String,
    requests: Vec<String>,
    next: Next,
}

/// Answers as a small API would, in ways that a request's path chooses.
fn api(request: &Request<'_>, response: &mut Response<'_>) {
    match request.path() {
        "/silent" => {}
        "/empty" => response.send(204, &[], "text/plain", b"dropped"),
        "/last" => {
            response.close();
            response.send_json(200, b"{}");
        }
        _ => response.send(
            200,
            &[(Field::CacheControl, "no-store")],
            "application/json",
            request.body(),
        ),
    }
}

/// Feeds `pieces` one by one, as a caller would: what it is told to flush is flushed, and the rest given
/// again.
fn run<'p>(pieces: impl IntoIterator<Item = &'p [u8]>, limits: &Limits) -> Seen {
    let mut exchange = Exchange::new();
    let (mut out, mut requests) = (Vec::new(), Vec::new());
    let mut next = Next::Read;
    for piece in pieces {
        let mut rest = piece;
        loop {
            let mut answers = Vec::new();
            let progress = exchange.receive(
                rest,
                limits,
                None,
                &mut answers,
                &mut |request, response| {
                    let body = request.body().escape_ascii();
                    requests.push(format!("{} {} {body}", request.method(), request.path()));
                    api(request, response);
                },
            );
            out.extend_from_slice(&answers);
            next = progress.next;
            rest = &rest[progress.used..];
            let held_max = limits.head.head_bytes_max + limits.body_bytes_max + 256;
            assert!(exchange.bytes_held() <= held_max);
            match next {
                Next::Flush => assert!(progress.used > 0 && !rest.is_empty()),
                Next::Read => break assert!(rest.is_empty()),
                Next::Await => panic!("no answer was put off"),
                Next::Close | Next::Refuse(_) => {
                    assert!(rest.is_empty() && exchange.bytes_held() == 0);
                    break;
                }
            }
        }
        if next != Next::Read {
            break;
        }
    }
    Seen {
        out: out.escape_ascii().to_string(),
        requests,
        next,
    }
}

/// As [`run`], but answers are put off as `delays` say, one after the other: `None` is given at once, and
/// `Some(n)` after the exchange was offered what is left of the piece `n` times in vain.
fn run_late<'p>(
    pieces: impl IntoIterator<Item = &'p [u8]>,
    limits: &Limits,
    delays: &[Option<u8>],
) -> Seen {
    let mut exchange = Exchange::new();
    let (mut out, mut requests) = (Vec::new(), Vec::new());
    let mut next = Next::Read;
    let mut delays = delays.iter().copied().cycle();
    for piece in pieces {
        let mut rest = piece;
        loop {
            let mut delay = None;
            // What the handler needs to answer later: the request itself is gone by then.
            let mut put_off = Vec::new();
            let mut answers = Vec::new();
            let mut serve = |request: &Request<'_>, response: &mut Response<'_>| {
                let body = request.body().escape_ascii();
                requests.push(format!("{} {} {body}", request.method(), request.path()));
                delay = delays.next().flatten();
                if delay.is_some() {
                    response.send_json(418, b"taken back");
                    response.defer();
                    let line = format!("{} {}", request.method(), request.path());
                    put_off = alone(&line, request.body());
                } else {
                    api(request, response);
                }
            };
            let progress = exchange.receive(rest, limits, None, &mut answers, &mut serve);
            out.extend_from_slice(&answers);
            next = progress.next;
            rest = &rest[progress.used..];
            assert_eq!(delay.is_some(), next == Next::Await);
            assert_eq!(exchange.is_awaiting(), next == Next::Await);
            if let Some(times) = delay {
                assert!(!exchange.is_idle() && exchange.bytes_held() == 0);
                for _ in 0..times {
                    let progress = exchange.receive(rest, limits, None, &mut out, &mut |_, _| {
                        panic!("a request overtook an answer")
                    });
                    let nothing = Progress {
                        used: 0,
                        next: Next::Await,
                    };
                    assert_eq!(progress, nothing);
                }
                let mut once = 0;
                let given = exchange.answer(None, &mut out, &mut |response| {
                    once += 1;
                    // The same answer as at once, from what was kept of the request.
                    let mut from = Exchange::new();
                    let _ = from.receive(
                        &put_off,
                        &Limits {
                            body_bytes_max: usize::MAX,
                            ..Limits::default()
                        },
                        None,
                        &mut Vec::new(),
                        &mut |request, _| api(request, response),
                    );
                });
                assert_eq!(once, 1);
                next = given.unwrap();
                assert_eq!(
                    exchange.answer(None, &mut out, &mut |_| panic!("given twice")),
                    None
                );
            }
            match next {
                Next::Flush => assert!(progress.used > 0 && !rest.is_empty()),
                Next::Read if rest.is_empty() => break,
                Next::Read => assert!(delay.is_some()),
                Next::Await => panic!("the answer was given"),
                Next::Close | Next::Refuse(_) => break,
            }
        }
        if !matches!(next, Next::Read) {
            break;
        }
    }
    Seen {
        out: out.escape_ascii().to_string(),
        requests,
        next,
    }
}

/// A request that says no more than this line and this body.
fn alone(line: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{line} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn whole(input: &[u8]) -> Seen {
    run([input], &Limits::default())
}

/// The answer of [`api`] with this body.
fn answer(body: &str, connection: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Type: application/json\r\n\
         Connection: {connection}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

const POST: &[u8] = b"POST /api/publish HTTP/1.1\r\nHost: a\r\nX-API-Key: k\r\n\
    Content-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"channel\":\"c\"}";

#[test]
fn requests_are_answered_in_order() {
    use Next::{Close, Read};
    let one = answer(r#"{"channel":"c"}"#, "keep-alive");
    type Case<'a> = (&'a str, &'a [u8], &'a [&'a str], &'a str, Next);
    let cases: &[Case<'_>] = &[
        ("a body of the length announced (RFC 9112 §6.2)", POST, &[
            r#"POST /api/publish {\"channel\":\"c\"}"#,
        ], &one, Read),
        (
            "no length, no body (RFC 9112 §6.3)",
            b"POST / HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
            &["POST / ", "GET /b "],
            &answer("", "keep-alive").repeat(2),
            Read,
        ),
        (
            "GET may have a body (RFC 9110 §9.3.1)",
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
            &["GET / hi"],
            &answer("hi", "keep-alive"),
            Read,
        ),
        (
            "an empty line before a request line (RFC 9112 §2.2)",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            &["POST / x", "GET / "],
            &(answer("x", "keep-alive") + &answer("", "keep-alive")),
            Read,
        ),
        (
            "HEAD has the length and not the body (RFC 9110 §9.3.2)",
            b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /empty HTTP/1.1\r\nHost: a\r\n\r\n",
            &["HEAD / abc", "GET /empty "],
            &(answer("abc", "keep-alive").trim_end_matches("abc").to_owned()
                + "HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n"),
            Read,
        ),
        (
            "Connection: close, and nothing behind it is read (RFC 9112 §9.6)",
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
            &["GET / "],
            &answer("", "close"),
            Close,
        ),
        (
            "close wins over keep-alive (RFC 9112 §9.3)",
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n",
            &["GET / "],
            &answer("", "close"),
            Close,
        ),
        (
            "HTTP/1.0 ends (RFC 9112 §9.3)",
            b"GET / HTTP/1.0\r\n\r\nGET /b HTTP/1.0\r\n\r\n",
            &["GET / "],
            &answer("", "close"),
            Close,
        ),
        (
            "HTTP/1.0 with keep-alive goes on (RFC 9112 §9.3)",
            b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\nGET /b HTTP/1.0\r\n\r\n",
            &["GET / ", "GET /b "],
            &(answer("", "keep-alive") + &answer("", "close")),
            Close,
        ),
        (
            "Upgrade is passed over (RFC 9110 §7.8)",
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
            &["GET / "],
            &answer("", "keep-alive"),
            Read,
        ),
        (
            "the handler ends the connection",
            b"GET /last HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
            &["GET /last "],
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
            Close,
        ),
        (
            "the handler says nothing",
            b"GET /silent HTTP/1.1\r\nHost: a\r\n\r\n",
            &["GET /silent "],
            "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\n\
             Connection: keep-alive\r\nContent-Length: 37\r\n\r\n{\"status\":500,\"message\":\"no answer\"}\n",
            Read,
        ),
        ("nothing", b"", &[], "", Read),
        ("a part of a request", &POST[..POST.len() - 1], &[], "", Read),
    ];
    for (what, input, requests, out, next) in cases {
        let seen = whole(input);
        assert_eq!(seen.requests, *requests, "{what}");
        assert_eq!(
            seen.out,
            out.as_bytes().escape_ascii().to_string(),
            "{what}"
        );
        assert_eq!(seen.next, *next, "{what}");
    }
}

/// RFC 9110 §10.1.1.
#[test]
fn expect_100_continue_is_answered_before_the_body() {
    let put = |version: &str, lines: &str| {
        format!("PUT / HTTP/1.{version}\r\nHost: a\r\nConnection: keep-alive\r\n{lines}\r\n")
            .into_bytes()
    };
    let expects = put("1", "Expect: 100-Continue\r\nContent-Length: 2\r\n");
    assert_eq!(whole(&expects).out, CONTINUE.escape_ascii().to_string());
    let both = [&expects[..], b"hi"].concat();
    let expected = [CONTINUE, answer("hi", "keep-alive").as_bytes()].concat();
    assert_eq!(whole(&both).out, expected.escape_ascii().to_string());

    let without = [
        ("no body", put("1", "Expect: 100-continue\r\n")),
        (
            "a length of 0",
            put("1", "Expect: 100-continue\r\nContent-Length: 0\r\n"),
        ),
        (
            "HTTP/1.0",
            put("0", "Expect: 100-continue\r\nContent-Length: 1\r\n"),
        ),
        (
            "another expectation",
            put("1", "Expect: 200-ok\r\nContent-Length: 1\r\n"),
        ),
        (
            "too long a body",
            put("1", "Expect: 100-continue\r\nContent-Length: 65537\r\n"),
        ),
    ];
    for (what, mut input) in without {
        input.push(b'x');
        assert!(!whole(&input).out.starts_with("HTTP/1.1 100"), "{what}");
    }
}

/// Each shape behind a request that is served, with another one behind it that must not be: neither a
/// request of its own, nor swallowed as a body.
#[test]
fn b6_who_leaves_the_end_in_doubt_is_refused_and_closed() {
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let cases = [
        ("Content-Length: 4\r\nTransfer-Encoding: chunked", 400), // RFC 9112 §6.1
        ("Transfer-Encoding: chunked\r\nContent-Length: 4", 400),
        ("Content-Length: 4\r\nContent-Length: 4", 400), // RFC 9112 §6.3
        ("Content-Length: 4\r\ncontent-length: 5", 400),
        ("Content-Length: 4, 4", 400),
        ("Content-Length: +4", 400), // RFC 9110 §8.6
        ("Content-Length: -4", 400),
        ("Content-Length: 4 4", 400),
        ("Content-Length: 0x4", 400),
        ("Content-Length:", 400),
        ("Content-Length: 18446744073709551616", 400),
        ("Content-Length : 4", 400),      // RFC 9112 §5.1
        ("Content-Length:\r\n 4", 400),   // RFC 9112 §5.2
        ("X: y\nContent-Length: 4", 400), // RFC 9112 §2.2
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            400,
        ),
        ("Transfer-Encoding: chunked, identity", 400),
        ("Transfer-Encoding: identity", 400),
        ("Transfer-Encoding: xchunked", 400),
        ("Transfer-Encoding: \"chunked\"", 400),
        ("Transfer-Encoding: chunked", 411), // RFC 9112 §6.3
        ("Content-Length: 18446744073709551615", 413), // RFC 9110 §15.5.14
        ("Content-Length: 65537", 413),
    ];
    for (lines, status) in cases {
        let bad = format!("POST /bad HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n0\r\n\r\n{smuggled}");
        let input = [POST, bad.as_bytes()].concat();
        for size in [1, 7, input.len()] {
            let seen = run(input.chunks(size), &Limits::default());
            assert_eq!(seen.requests.len(), 1, "{lines}");
            let answers: Vec<_> = seen.out.split("HTTP/1.1 ").skip(1).collect();
            assert_eq!(answers.len(), 2, "{lines}");
            assert!(
                answers[1].starts_with(&status.to_string()),
                "{lines}: {}",
                answers[1]
            );
            assert!(
                answers[1].contains("\\r\\nConnection: close\\r\\n"),
                "{lines}"
            );
            let Next::Refuse(refusal) = seen.next else {
                panic!("{lines} came to {:?}", seen.next)
            };
            assert_eq!(refusal.status(), status, "{lines}");
        }
    }
}

#[test]
fn other_heads_are_refused_with_their_status() {
    let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(9000));
    let cases: &[(&[u8], HeadError, &str)] = &[
        (b"GET / HTTP/1.1\r\n\r\n", HeadError::Host, "HTTP/1.1 400 "),
        (b"GET / HTTP/2.0\r\n", HeadError::Version, "HTTP/1.1 505 "),
        (long.as_bytes(), HeadError::TargetTooLong, "HTTP/1.1 414 "),
        (b"\x16\x03\x01", HeadError::TlsOnPlainPort, ""),
    ];
    for (input, error, begin) in cases {
        let seen = whole(input);
        assert_eq!(seen.next, Next::Refuse(Refusal::Head(*error)));
        assert!(seen.out.starts_with(begin) && seen.out.is_empty() == begin.is_empty());
    }
}

#[test]
fn body_length_is_bounded() {
    let limits = Limits {
        body_bytes_max: 10,
        ..Limits::default()
    };
    for (length, next) in [
        (9, Next::Read),
        (10, Next::Read),
        (11, Next::Refuse(Refusal::BodyTooLong)),
    ] {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        let input = [head.as_bytes(), &b"x".repeat(length)].concat();
        for size in [1, 40, input.len()] {
            let seen = run(input.chunks(size), &limits);
            assert_eq!(
                (seen.next, seen.requests.len()),
                (next, usize::from(length <= 10))
            );
        }
    }
}

/// B9: however much is pipelined, one call answers no more than it may, and what is not answered is not
/// taken either.
#[test]
fn b9_pipelined_requests_wait_unread() {
    let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let one = answer("", "keep-alive").len();
    for (count, requests_per_call, output_bytes_high_water, per_call) in [
        (100_000, 64, usize::MAX, 64),
        (1000, usize::MAX, 10 * one, 10),
        (1000, usize::MAX, 10 * one + 1, 11),
        (1000, 0, 0, 1),
    ] {
        let input = get.repeat(count);
        let limits = Limits {
            requests_per_call,
            output_bytes_high_water,
            ..Limits::default()
        };
        let mut exchange = Exchange::new();
        let mut rest = &input[..];
        let (mut served, mut calls) = (0, 0);
        loop {
            let mut out = Vec::new();
            let progress =
                exchange.receive(rest, &limits, None, &mut out, &mut |request, response| {
                    served += 1;
                    api(request, response);
                });
            calls += 1;
            assert_eq!(progress.used % get.len(), 0);
            assert_eq!(out.len(), progress.used / get.len() * one);
            assert!(out.len() <= per_call * one);
            assert_eq!(exchange.bytes_held(), 0, "what is unread is the caller's");
            rest = &rest[progress.used..];
            if progress.next == Next::Read {
                break;
            }
            assert_eq!(progress.next, Next::Flush);
        }
        assert_eq!((served, calls), (count, usize::div_ceil(count, per_call)));
    }
    // An output that was full before takes nothing at all.
    let mut full = vec![0; Limits::default().output_bytes_high_water];
    let progress =
        Exchange::new().receive(get, &Limits::default(), None, &mut full, &mut |_, _| {
            panic!("served")
        });
    assert_eq!((progress.used, progress.next), (0, Next::Flush));
}

/// B9: the request behind one whose answer is put off is not taken, and the answer is framed for the
/// request that it is for.
#[test]
fn b9_an_answer_put_off_holds_up_what_is_behind_it() {
    for (first, framing) in [
        ("GET /a HTTP/1.1\r\nHost: a\r\n\r\n", "keep-alive"),
        (
            "HEAD /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "close",
        ),
        ("GET /a HTTP/1.0\r\n\r\n", "close"),
    ] {
        let input = [first.as_bytes(), POST].concat();
        let mut exchange = Exchange::new();
        let mut out = Vec::new();
        let mut served = 0;
        let progress = exchange.receive(
            &input,
            &Limits::default(),
            None,
            &mut out,
            &mut |_, response| {
                served += 1;
                response.defer();
            },
        );
        let expected = Progress {
            used: first.len(),
            next: Next::Await,
        };
        assert_eq!((progress, served, out.len()), (expected, 1, 0));
        // An answer that is put off again is awaited still.
        let again = exchange.answer(None, &mut out, &mut |response| response.defer());
        assert_eq!((again, out.len()), (Some(Next::Await), 0));
        let next = exchange.answer(None, &mut out, &mut |response| {
            response.send_json(200, b"late");
        });
        let is_last = framing == "close";
        assert_eq!(next, Some(if is_last { Next::Close } else { Next::Read }));
        let answer = String::from_utf8(std::mem::take(&mut out)).unwrap();
        assert!(answer.contains("Content-Length: 4\r\n"), "{answer}");
        assert!(answer.contains(&format!("Connection: {framing}\r\n")));
        assert_eq!(answer.ends_with("late"), !first.starts_with("HEAD"));
        let mut behind = 0;
        let _ = exchange.receive(POST, &Limits::default(), None, &mut out, &mut |_, _| {
            behind += 1;
        });
        assert_eq!(behind, usize::from(!is_last));
    }
}

#[test]
fn an_answer_put_off_can_be_made_the_last_one() {
    let mut exchange = Exchange::new();
    let mut out = Vec::new();
    exchange.close_behind_answer();
    let mut defer = |_: &Request<'_>, response: &mut Response<'_>| response.defer();
    let _ = exchange.receive(POST, &Limits::default(), None, &mut out, &mut defer);
    exchange.close_behind_answer();
    // Nothing was sent: 500, as for one that is to be given at once.
    assert_eq!(
        exchange.answer(None, &mut out, &mut |_| {}),
        Some(Next::Close)
    );
    let answer = String::from_utf8(out).unwrap();
    assert!(answer.starts_with("HTTP/1.1 500 ") && answer.contains("Connection: close\r\n"));
}

/// A1 for bodies: what is announced costs nothing, what arrives costs at most twice its size.
#[test]
fn a1_an_idle_exchange_holds_nothing_and_a_waiting_one_what_has_come() {
    assert!(size_of::<Exchange>() <= 2 * size_of::<usize>());
    let limits = Limits {
        body_bytes_max: usize::MAX / 2,
        ..Limits::default()
    };
    let mut exchange = Exchange::new();
    assert!(exchange.is_idle() && exchange.bytes_held() == 0);
    let mut out = Vec::new();
    let mut take = |exchange: &mut Exchange, input: &[u8]| {
        let progress = exchange.receive(input, &limits, None, &mut out, &mut api);
        assert_eq!(
            progress,
            Progress {
                used: input.len(),
                next: Next::Read
            }
        );
        out.clear();
    };
    take(&mut exchange, POST);
    assert!(exchange.is_idle() && exchange.bytes_held() == 0);
    for cut in 1..POST.len() {
        take(&mut exchange, &POST[..cut]);
        assert!(!exchange.is_idle() && exchange.bytes_held() >= cut);
        take(&mut exchange, &POST[cut..]);
        assert!(
            exchange.is_idle() && exchange.bytes_held() == 0,
            "cut at {cut}"
        );
    }
    // Behind a head that came in pieces, too.
    for byte in POST.chunks(1) {
        take(&mut exchange, byte);
    }
    assert!(exchange.is_idle() && exchange.bytes_held() == 0);

    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4611686018427387904\r\n\r\n";
    take(&mut exchange, head);
    let fixed = 2 * head.len() + size_of::<Partial>();
    assert!(exchange.bytes_held() <= fixed);
    for arrived in 1..5000 {
        take(&mut exchange, b"x");
        assert!(exchange.bytes_held() <= 2 * arrived + fixed);
    }
}

#[test]
fn limits_lowered_while_a_body_arrives_are_kept() {
    let mut exchange = Exchange::new();
    let mut out = Vec::new();
    let (head, body) = POST.split_at(POST.len() - 3);
    let _ = exchange.receive(head, &Limits::default(), None, &mut out, &mut api);
    let mut limits = Limits::default();
    limits.head.headers_max = 1;
    let progress = exchange.receive(body, &limits, None, &mut out, &mut |_, _| panic!("served"));
    let refusal = Refusal::Head(HeadError::TooManyHeaders);
    assert_eq!(progress.next, Next::Refuse(refusal));
    assert!(out.starts_with(b"HTTP/1.1 431 "));
    // And an exchange that has ended stays ended.
    for input in [&b""[..], POST] {
        let progress =
            exchange.receive(input, &limits, None, &mut out, &mut |_, _| panic!("served"));
        assert_eq!(
            progress,
            Progress {
                used: input.len(),
                next: Next::Close
            }
        );
    }
}

#[test]
fn a_handler_sees_the_request() {
    let input = b"POST /a/b?x=1&y=%20 HTTP/1.1\r\nHost: a:1\r\nContent-Type: Application/JSON ; charset=utf-8\r\n\
        X-API-Key: secret\r\nAccept: a\r\naccept: b\r\nContent-Length: 2\r\n\r\n{}";
    let mut seen = 0;
    let _ = Exchange::new().receive(
        input,
        &Limits::default(),
        None,
        &mut Vec::new(),
        &mut |request, response| {
            seen += 1;
            assert_eq!((request.method(), request.path()), ("POST", "/a/b"));
            assert_eq!(
                (request.query(), request.host()),
                (Some("x=1&y=%20"), Some("a:1"))
            );
            let parameters: Result<Vec<_>, _> = request.parameters().collect();
            assert_eq!(
                parameters.unwrap(),
                [("x".into(), "1".into()), ("y".into(), " ".into())]
            );
            assert_eq!(request.header("x-api-key"), Some("secret"));
            assert_eq!(request.header("accept"), None);
            assert_eq!(request.headers("accept").collect::<Vec<_>>(), ["a", "b"]);
            assert!(request.is_of_type("application/json"));
            assert!(!request.is_of_type("application/jso"));
            assert_eq!(request.body(), b"{}");
            assert!(!format!("{request:?} {response:?}").contains("secret"));
        },
    );
    assert_eq!(seen, 1);
}

#[test]
fn the_last_answer_sent_counts_and_carries_the_date() {
    let date = HttpDate::from_unix(784_111_777);
    let mut out = b"before".to_vec();
    let input = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n";
    let progress = Exchange::new().receive(
        input,
        &Limits::default(),
        Some(&date),
        &mut out,
        &mut |_, response| {
            response.send_json(200, b"{}");
            response.send(
                405,
                &[(Field::Allow, "GET"), (Field::RetryAfter, "1")],
                "",
                b"",
            );
        },
    );
    assert_eq!(progress.next, Next::Refuse(Refusal::Head(HeadError::Host)));
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "beforeHTTP/1.1 405 Method Not Allowed\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
         Allow: GET\r\nRetry-After: 1\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n\
         HTTP/1.1 400 Bad Request\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
         Content-Type: application/json\r\nConnection: close\r\nContent-Length: 51\r\n\r\n\
         {\"status\":400,\"message\":\"missing or invalid Host\"}\n"
    );
}

#[test]
fn fields_say_nothing_about_framing() {
    let fields = [
        Field::Allow,
        Field::CacheControl,
        Field::ContentSecurityPolicy,
        Field::ETag,
        Field::Location,
        Field::ReferrerPolicy,
        Field::RetryAfter,
        Field::Vary,
        Field::WwwAuthenticate,
        Field::XContentTypeOptions,
    ];
    let framing = [
        "content-length",
        "transfer-encoding",
        "connection",
        "upgrade",
        "trailer",
        "te",
        "date",
    ];
    for field in fields {
        let name = field.name().to_ascii_lowercase();
        assert!(!framing.contains(&&*name) && name.bytes().all(super::super::is_token_byte));
    }
}

/// Requests good and bad, for the property to string together, damage and cut.
const SAMPLES: &[&[u8]] = &[
    POST,
    b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    b"PUT /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    b"\r\nGET /empty HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /silent HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
    b"GET /last HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /a HTTP/1.0\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\nGET /c HTTP/1.1\r\n",
];

fn inputs() -> impl Strategy<Value = Vec<u8>> {
    let damage = (
        any::<prop::sample::Index>(),
        prop::sample::select(b"\r\n :0129,x\0".to_vec()),
    );
    let samples = prop::collection::vec(prop::sample::select(SAMPLES), 1..6);
    (samples, prop::collection::vec(damage, 0..3), 0..4u8).prop_map(
        |(samples, damages, is_damaged)| {
            let mut bytes = samples.concat();
            // Mostly left whole, so that the later requests are reached.
            if is_damaged == 0 {
                for (at, byte) in damages {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
            }
            bytes
        },
    )
}

fn limits() -> impl Strategy<Value = Limits> {
    (
        1..5usize,
        1..400usize,
        prop_oneof![Just(64usize), 0..20usize],
        40..200usize,
    )
        .prop_map(
            |(requests_per_call, output_bytes_high_water, body_bytes_max, head_bytes_max)| Limits {
                head: head::Limits {
                    head_bytes_max,
                    ..head::Limits::default()
                },
                body_bytes_max,
                requests_per_call,
                output_bytes_high_water,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_split_gives_the_same_answers(
        input in inputs(),
        limits in prop_oneof![Just(Limits::default()), limits()],
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let expected = run([&input[..]], &limits);
        prop_assert_eq!(&run(input.chunks(1), &limits), &expected);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        cuts.extend([0, input.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| &input[cut[0]..cut[1]]);
        prop_assert_eq!(&run(pieces, &limits), &expected);
        // As many final answers as requests, and one more for a refusal. Only an answer spells this line so.
        let answers = expected.out.matches("\\r\\nConnection: ").count();
        let refused = usize::from(matches!(expected.next, Next::Refuse(_)));
        prop_assert_eq!(answers, expected.requests.len() + refused);
    }

    #[test]
    fn b9_any_split_and_any_delay_give_the_same_answers(
        input in inputs(),
        limits in prop_oneof![Just(Limits::default()), limits()],
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        delays in prop::collection::vec(prop::option::of(0..3u8), 1..5),
    ) {
        let expected = run([&input[..]], &limits);
        prop_assert_eq!(&run_late([&input[..]], &limits, &delays), &expected);
        prop_assert_eq!(&run_late(input.chunks(1), &limits, &delays), &expected);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        cuts.extend([0, input.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| &input[cut[0]..cut[1]]);
        prop_assert_eq!(&run_late(pieces, &limits, &delays), &expected);
    }

    #[test]
    fn b8_no_value_can_split_an_answer(value in "\\PC*|[\\x00-\\x20]*|(a\r\n)*", content_type in "[a/\r\n]{0,6}") {
        let mut out = Vec::new();
        let _ = Exchange::new().receive(
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            &Limits::default(),
            None,
            &mut out,
            &mut |_, response| response.send(302, &[(Field::Location, &value)], &content_type, b"body"),
        );
        let text = String::from_utf8(out).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        prop_assert_eq!(body, "body");
        prop_assert_eq!(head.split('\n').count(), 4 + usize::from(!content_type.is_empty()));
    }
}
