//! Any bytes as requests on a kept connection, cut anywhere: nothing panics, every cut gives the same
//! answers to the same requests, each request has one answer, and memory stays within the limits.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::http::exchange::{Exchange, Field, Limits, Next};
use tidegate::http::head;
use tidegate::http::template::{self, Template};

/// The requests, with their bodies, and the bytes of all answers.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    requests: Vec<(String, Vec<u8>)>,
    out: Vec<u8>,
    next: Next,
}

// The first byte chooses limits and pieces, the rest is what the client sends.
fuzz_target!(|input: &[u8]| {
    let Some((&choice, bytes)) = input.split_first() else {
        return;
    };
    // Small limits are hit by short inputs.
    let limits = if choice & 1 == 0 {
        Limits::default()
    } else {
        Limits {
            head: head::Limits {
                head_bytes_max: 200,
                headers_max: 5,
                target_bytes_max: 40,
            },
            body_bytes_max: 20,
            requests_per_call: 2,
            output_bytes_high_water: 300,
        }
    };
    let templates = ["/", "/a", "/api/{method}", "/{id:int}/", "/{name}/{id:uuid}"]
        .map(|text| Template::parse(text).expect("a correct template"));
    let whole = run(bytes, bytes.len().max(1), &limits, &templates);
    assert_eq!(whole, run(bytes, 1, &limits, &templates));
    let size = usize::from(choice >> 1) + 1;
    assert_eq!(whole, run(bytes, size, &limits, &templates));
});

fn run(bytes: &[u8], size: usize, limits: &Limits, templates: &[Template]) -> Seen {
    let mut exchange = Exchange::new();
    let mut seen = Seen {
        requests: Vec::new(),
        out: Vec::new(),
        next: Next::Read,
    };
    let held_max = limits.head.head_bytes_max + limits.body_bytes_max + 256;
    for mut piece in bytes.chunks(size) {
        loop {
            let before = seen.requests.len();
            let mut answers = Vec::new();
            let requests = &mut seen.requests;
            let progress = exchange.receive(
                piece,
                limits,
                None,
                &mut answers,
                &mut |request, response| {
                    let what = format!(
                        "{} {} {:?} {:?}",
                        request.method(),
                        request.path(),
                        request.query(),
                        template::find(templates.iter().enumerate(), request.path())
                    );
                    assert!(request.body().len() <= limits.body_bytes_max);
                    requests.push((what, request.body().to_vec()));
                    let place = String::from_utf8_lossy(request.body());
                    response.send(201, &[(Field::Location, &place)], "text/x", b"ok");
                },
            );
            check_answers(&answers);
            assert!(seen.requests.len() - before <= limits.requests_per_call);
            seen.out.extend_from_slice(&answers);
            seen.next = progress.next;
            piece = &piece[progress.used..];
            assert!(exchange.bytes_held() <= held_max);
            assert!(!exchange.is_idle() || exchange.bytes_held() == 0);
            match progress.next {
                Next::Flush => assert!(progress.used > 0 && !piece.is_empty()),
                Next::Read => break assert!(piece.is_empty()),
                Next::Await => unreachable!("no answer is put off here"),
                Next::Close | Next::Refuse(_) => {
                    assert!(piece.is_empty());
                    assert_eq!(exchange.bytes_held(), 0);
                    return seen;
                }
            }
        }
    }
    seen
}

/// Whole answers, one behind the other, and nothing else.
fn check_answers(mut answers: &[u8]) {
    while !answers.is_empty() {
        let end = answers
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .expect("an answer's head ends");
        let head = std::str::from_utf8(&answers[..end]);
        let body = &answers[end + 4..];
        assert!(answers.starts_with(b"HTTP/1.1 "));
        // A `Location` may hold bytes of the request, but no line of its own.
        let length = answers[..end]
            .split(|&byte| byte == b'\n')
            .find_map(|line| line.strip_prefix(b"Content-Length: "))
            .map_or(0, |digits| {
                let digits = std::str::from_utf8(digits).expect("digits").trim_end();
                digits.parse::<usize>().expect("a length")
            });
        assert!(length > 0 || head.is_ok_and(|head| head == "HTTP/1.1 100 Continue"));
        // The answer to a HEAD has no body: what comes next is another answer, or nothing.
        let is_head = body.is_empty() || body.starts_with(b"HTTP/1.1 ");
        answers = if is_head { body } else { &body[length..] };
    }
}
