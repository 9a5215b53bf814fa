//! Heads byte by byte. Names begin with the id of the threat a test stands for.

use proptest::prelude::*;

use super::*;

/// What a head came to, owned, so that two ways of reading it can be compared.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    method: String,
    target: String,
    path: String,
    query: Option<String>,
    version: Version,
    host: Option<String>,
    content_length: u64,
    headers: Vec<(String, Vec<u8>)>,
    /// Bytes of the head, over all reads.
    used: usize,
}

impl Seen {
    fn new(head: &Head<'_>, used: usize) -> Self {
        Self {
            method: head.method().to_owned(),
            target: head.target().to_owned(),
            path: head.path().to_owned(),
            query: head.query().map(str::to_owned),
            version: head.version(),
            host: head.host().map(str::to_owned),
            content_length: head.content_length(),
            headers: head.headers[..head.headers_count]
                .iter()
                .map(|header| (header.name.to_owned(), header.value.to_vec()))
                .collect(),
            used,
        }
    }
}

/// Reads `pieces` one after another; `Ok(None)` if the head did not end.
fn read<'p>(
    pieces: impl IntoIterator<Item = &'p [u8]>,
    limits: &Limits,
) -> Result<Option<Seen>, HeadError> {
    let mut reader = HeadReader::new();
    let mut taken = 0;
    for piece in pieces {
        match reader.receive(piece, limits)? {
            Progress::Incomplete => taken += piece.len(),
            Progress::Complete { head, used } => return Ok(Some(Seen::new(&head, taken + used))),
        }
    }
    Ok(None)
}

fn whole(bytes: &[u8]) -> Result<Option<Seen>, HeadError> {
    read([bytes], &Limits::default())
}

/// The error of a head that must not pass, read whole.
#[track_caller]
fn refusal(bytes: &[u8]) -> HeadError {
    match whole(bytes) {
        Err(error) => error,
        Ok(seen) => panic!("{} was let pass as {seen:?}", bytes.escape_ascii()),
    }
}

/// A head for `path` with nothing else unusual.
fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n").into_bytes()
}

/// A head with these header lines behind `Host`.
fn with(lines: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: a.example\r\n{lines}\r\n").into_bytes()
}

const BROWSER: &[u8] = b"GET /ws/notifications/?token=a.b.c HTTP/1.1\r\n\
    Host: chat.example:8443\r\n\
    Connection: Upgrade\r\n\
    Upgrade: websocket\r\n\
    Origin: https://chat.example\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Accept-Language: en-GB,en;q=0.9\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    X-Note:\t two\twords \r\n\
    X-Empty:\r\n\r\n";

#[test]
fn a_head_is_taken_apart() {
    let mut reader = HeadReader::new();
    let input = [BROWSER, b"surplus"].concat();
    let Progress::Complete { head, used } = reader.receive(&input, &Limits::default()).unwrap()
    else {
        panic!("incomplete")
    };
    assert_eq!(used, BROWSER.len());
    assert_eq!(head.method(), "GET");
    assert_eq!(head.target(), "/ws/notifications/?token=a.b.c");
    assert_eq!(head.path(), "/ws/notifications/");
    assert_eq!(
        head.path_segments().collect::<Vec<_>>(),
        ["ws", "notifications", ""]
    );
    assert_eq!(head.query(), Some("token=a.b.c"));
    assert_eq!(head.version(), Version::Http11);
    assert_eq!(head.host(), Some("chat.example:8443"));
    assert_eq!(head.content_length(), 0);
    assert_eq!(head.header("sec-websocket-version"), Some("13"));
    assert_eq!(head.header("X-NOTE"), Some("two\twords"));
    assert_eq!(head.header("x-empty"), Some(""));
    assert_eq!(head.header("x-absent"), None);
    // The head borrows the input: the reader took nothing.
    assert_eq!(reader.bytes_held(), 0);
}

#[test]
fn repeated_headers_are_all_there_in_order() {
    let bytes = with("X-Forwarded-For: 1.1.1.1, 2.2.2.2\r\nx-forwarded-for: 3.3.3.3\r\n");
    let mut reader = HeadReader::new();
    let Ok(Progress::Complete { head, .. }) = reader.receive(&bytes, &Limits::default()) else {
        panic!("not read")
    };
    let values: Vec<_> = head.headers("X-Forwarded-For").collect();
    assert_eq!(values, ["1.1.1.1, 2.2.2.2", "3.3.3.3"]);
    assert_eq!(
        head.header("x-forwarded-for"),
        None,
        "there is no single value"
    );
}

#[test]
fn a_value_that_is_not_utf8_is_present_but_equals_nothing() {
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nX-City: S\xe3o\r\nX-Town: \xc3\xa9\r\n\r\n";
    let mut reader = HeadReader::new();
    let Ok(Progress::Complete { head, .. }) = reader.receive(bytes, &Limits::default()) else {
        panic!("not read")
    };
    assert_eq!(head.header("x-city"), Some("\u{FFFD}"));
    assert_eq!(head.header("x-town"), Some("é"));
}

#[test]
fn heads_are_refused_for_what_they_are() {
    use HeadError as E;
    let cases: &[(&[u8], E)] = &[
        // Line ends (RFC 9112 §2.2).
        (b"GET / HTTP/1.1\nHost: a\n\n", E::BareLineFeed),
        (b"GET / HTTP/1.1\r\nHost: a\n\r\n", E::BareLineFeed),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\n", E::BareLineFeed),
        (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", E::BareLineFeed),
        (b"GET / HTTP/1.1\rHost: a\r\n\r\n", E::BareCarriageReturn),
        (
            b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
            E::BareCarriageReturn,
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
            E::BareCarriageReturn,
        ),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\rX", E::BareCarriageReturn),
        (
            b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            E::BareCarriageReturn,
        ),
        // Empty lines before the request line: one is skipped, see below.
        (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", E::RequestLine),
        // The request line (RFC 9112 §3).
        (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", E::RequestLine),
        (b"GET\r\n", E::RequestLine),
        (b"GET /\r\n", E::RequestLine),
        (b"GET  / HTTP/1.1\r\n", E::Target),
        (b"GET /  HTTP/1.1\r\n", E::RequestLine),
        (b"GET / HTTP/1.1 \r\n", E::RequestLine),
        (b"GET / http/1.1\r\n", E::RequestLine),
        (b"GET / HTTP/11\r\n", E::RequestLine),
        (b"GET / HTTP/1.11\r\n", E::RequestLine),
        (b"GET\t/ HTTP/1.1\r\n", E::ControlByte),
        (b"G(T / HTTP/1.1\r\n", E::RequestLine),
        (b"GET /\xc3\xa9 HTTP/1.1\r\n", E::Target),
        (
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1\r\n",
            E::MethodTooLong,
        ),
        // Versions (RFC 9112 §2.3); the HTTP/2 preface (RFC 9113 §3.4).
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", E::Version),
        (b"GET / HTTP/0.9\r\n", E::Version),
        (b"GET / HTTP/1.2\r\n", E::Version),
        (b"GET / HTTP/3\r\n", E::Version),
        // A TLS ClientHello; the same byte is nothing special elsewhere.
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", E::TlsOnPlainPort),
        (b"\r\n\x16\x03\x01", E::ControlByte),
        (b"G\x16", E::ControlByte),
        // Header lines (RFC 9112 §5).
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", E::HeaderName),
        (b"GET / HTTP/1.1\r\nHost\t: a\r\n\r\n", E::ControlByte),
        (b"GET / HTTP/1.1\r\n: a\r\n\r\n", E::HeaderName),
        (b"GET / HTTP/1.1\r\nHost\r\n\r\n", E::HeaderName),
        (b"GET / HTTP/1.1\r\nH\xc3\xb6st: a\r\n\r\n", E::HeaderName),
        (b"GET / HTTP/1.1\r\nX{}: a\r\n\r\n", E::HeaderName),
        (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", E::FoldedLine),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
            E::FoldedLine,
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n",
            E::FoldedLine,
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n",
            E::ControlByte,
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nX: b\x7fc\r\n\r\n",
            E::ControlByte,
        ),
        // Target forms (RFC 9112 §3.2).
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", E::Target),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", E::Target),
        (b"GET a/b HTTP/1.1\r\nHost: a\r\n\r\n", E::Target),
        (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", E::Target),
        (b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", E::Target),
        (b"GET http://u@a/x HTTP/1.1\r\nHost: a\r\n\r\n", E::Target),
        (b"GET /x#y HTTP/1.1\r\nHost: a\r\n\r\n", E::Target),
        (b"GET /x?y#z HTTP/1.1\r\nHost: a\r\n\r\n", E::Target),
        // Host (RFC 9112 §3.2).
        (b"GET / HTTP/1.1\r\n\r\n", E::Host),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", E::Host),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", E::Host),
        (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", E::Host),
        (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", E::Host),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", E::Host),
        (b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", E::Host),
        (b"GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n", E::Host),
        (b"GET / HTTP/1.1\r\nHost: a:123456\r\n\r\n", E::Host),
        (b"GET / HTTP/1.1\r\nHost: :80\r\n\r\n", E::Host),
        (b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", E::Host),
        (b"GET / HTTP/1.1\r\nHost: [::1]80\r\n\r\n", E::Host),
        (b"GET / HTTP/1.1\r\nHost: [x]\r\n\r\n", E::Host),
        (b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n", E::Host),
        (b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", E::Host),
        (b"GET http://a/ HTTP/1.1\r\n\r\n", E::Host),
        // Headers that may stand once.
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nHOST: a\r\n\r\n",
            E::RepeatedHeader,
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nOrigin: b\r\nOrigin: b\r\n\r\n",
            E::RepeatedHeader,
        ),
    ];
    for (bytes, expected) in cases {
        assert_eq!(refusal(bytes), *expected, "{}", bytes.escape_ascii());
    }
    for name in [
        "Authorization",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Version",
    ] {
        let twice = with(&format!(
            "{name}: a\r\nX: y\r\n{}: a\r\n",
            name.to_lowercase()
        ));
        assert_eq!(refusal(&twice), E::RepeatedHeader, "{name}");
    }
}

#[test]
fn unusual_heads_that_are_right_pass() {
    let cases: &[(&[u8], &str, Option<&str>)] = &[
        // RFC 9112 §2.2: at least one empty line before the request line is to be ignored.
        (b"\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n", "/a", Some("a")),
        (b"GET /a HTTP/1.0\r\n\r\n", "/a", None),
        (b"GET /a HTTP/1.1\r\nhOST:a\r\n\r\n", "/a", Some("a")),
        (
            b"GET /a HTTP/1.1\r\nHost: \t a \t \r\n\r\n",
            "/a",
            Some("a"),
        ),
        (
            b"GET /a HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n",
            "/a",
            Some("[2001:db8::1]:80"),
        ),
        (
            b"GET /a HTTP/1.1\r\nHost: [::1]\r\n\r\n",
            "/a",
            Some("[::1]"),
        ),
        (b"GET /a HTTP/1.1\r\nHost: a:\r\n\r\n", "/a", Some("a:")),
        // RFC 9112 §3.2.2: servers must take the absolute form.
        (
            b"GET ws://a:80/a HTTP/1.1\r\nHost: A:80\r\n\r\n",
            "/a",
            Some("A:80"),
        ),
        (b"GET HTTPS://a HTTP/1.1\r\nHost: a\r\n\r\n", "/", Some("a")),
        (
            b"GET http://a?q HTTP/1.1\r\nHost: a\r\n\r\n",
            "/",
            Some("a"),
        ),
        (b"GET http://a/a HTTP/1.0\r\n\r\n", "/a", Some("a")),
    ];
    for (bytes, path, host) in cases {
        let seen = whole(bytes).unwrap().unwrap();
        assert_eq!((seen.path.as_str(), seen.host.as_deref()), (*path, *host));
    }
}

#[test]
fn statuses_are_those_of_the_standards() {
    let cases = [
        (HeadError::BareLineFeed, 400),
        (HeadError::Framing, 400),
        (HeadError::TargetTooLong, 414),
        (HeadError::TooManyHeaders, 431),
        (HeadError::HeadTooLong, 431),
        (HeadError::MethodTooLong, 501),
        (HeadError::Version, 505),
    ];
    for (error, status) in cases {
        assert_eq!(error.status(), status, "{error}");
    }
}

#[test]
fn b1_no_byte_is_looked_at_more_than_twice() {
    let long = with(&format!("X: {}\r\n", "y".repeat(16_000)));
    for head in [BROWSER, &long] {
        for size in [1, 2, 7, 1000, head.len()] {
            steps::TAKEN.set(0);
            assert!(
                read(head.chunks(size), &Limits::default())
                    .unwrap()
                    .is_some()
            );
            let steps = steps::TAKEN.get();
            assert!(
                steps <= 2 * head.len(),
                "{steps} for {} by {size}",
                head.len()
            );
            assert!(steps >= head.len(), "the steps are counted");
        }
    }
}

#[test]
fn b2_headers_are_counted_against_the_limit() {
    let lines = |count: usize| with(&"X: y\r\n".repeat(count - 1));
    assert!(whole(&lines(64)).unwrap().is_some());
    assert_eq!(refusal(&lines(65)), HeadError::TooManyHeaders);
    assert_eq!(refusal(&lines(2000)), HeadError::TooManyHeaders);
    for (max, count, passes) in [(3, 2, true), (3, 3, true), (3, 4, false), (1000, 65, false)] {
        let limits = Limits {
            headers_max: max,
            ..Limits::default()
        };
        assert_eq!(
            read([&lines(count)[..]], &limits).is_ok(),
            passes,
            "{count} of {max}"
        );
    }
}

#[test]
fn b2_a_header_too_many_is_refused_at_its_first_byte() {
    let limits = Limits {
        headers_max: 1,
        ..Limits::default()
    };
    assert_eq!(
        read([&b"GET / HTTP/1.1\r\nA: b\r\n"[..]], &limits),
        Ok(None)
    );
    assert_eq!(
        read([&b"GET / HTTP/1.1\r\nA: b\r\nC"[..]], &limits),
        Err(HeadError::TooManyHeaders)
    );
}

#[test]
fn b2_the_head_ends_within_its_limit() {
    let head = with("X: y\r\n");
    for (max, passes) in [
        (head.len() + 1, true),
        (head.len(), true),
        (head.len() - 1, false),
    ] {
        let limits = Limits {
            head_bytes_max: max,
            ..Limits::default()
        };
        for size in [1, 5, head.len()] {
            let answer = read(head.chunks(size), &limits);
            let expected = if passes {
                None
            } else {
                Some(HeadError::HeadTooLong)
            };
            assert_eq!(answer.as_ref().err(), expected.as_ref(), "{max} by {size}");
            assert_eq!(answer.is_ok_and(|seen| seen.is_some()), passes);
        }
    }
    // The bytes behind the head do not count.
    let limits = Limits {
        head_bytes_max: head.len(),
        ..Limits::default()
    };
    assert!(
        read([&[&head[..], &[0; 100]].concat()[..]], &limits)
            .unwrap()
            .is_some()
    );
}

#[test]
fn b2_the_target_ends_within_its_limit() {
    for (max, passes) in [(6, true), (5, true), (4, false)] {
        let limits = Limits {
            target_bytes_max: max,
            ..Limits::default()
        };
        let head = get("/abcd");
        for size in [1, 3, head.len()] {
            let answer = read(head.chunks(size), &limits);
            let expected = if passes {
                None
            } else {
                Some(HeadError::TargetTooLong)
            };
            assert_eq!(answer.err(), expected, "{max} by {size}");
        }
    }
    // A request line that fills the whole head is as long a target as any.
    let limits = Limits {
        head_bytes_max: 100,
        target_bytes_max: usize::MAX,
        ..Limits::default()
    };
    let endless = [b"GET /", &[b'a'; 200][..]].concat();
    assert_eq!(read([&endless[..]], &limits), Err(HeadError::TargetTooLong));
}

#[test]
fn b4_b6_only_one_reading_of_the_body_length_passes() {
    for (lines, length) in [
        ("", 0),
        ("Content-Length: 0\r\n", 0),
        ("content-length:5\r\n", 5),
        ("Content-Length: 18446744073709551615\r\n", u64::MAX),
    ] {
        assert_eq!(
            whole(&with(lines)).unwrap().unwrap().content_length,
            length,
            "{lines}"
        );
    }
    let shapes = [
        "Content-Length:\r\n",
        "Content-Length: +1\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 1 1\r\n",
        "Content-Length: 1,1\r\n",
        "Content-Length: 1, 2\r\n",
        "Content-Length: 0x1\r\n",
        "Content-Length: 1.0\r\n",
        "Content-Length: 1e1\r\n",
        "Content-Length: 1_0\r\n",
        "Content-Length: \"1\"\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: \r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked;a=b\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
    ];
    for lines in shapes {
        assert_eq!(refusal(&with(lines)), HeadError::Framing, "{lines}");
    }
    // RFC 9112 §6.3: a body whose end is clear, but which is not served without a length. HTTP/1.0 has
    // no transfer codings (§6.1).
    for line in [
        "Transfer-Encoding: chunked",
        "TRANSFER-ENCODING:\t Chunked ",
    ] {
        assert_eq!(
            refusal(&with(&format!("{line}\r\n"))),
            HeadError::ChunkedBody
        );
        let old = format!("POST / HTTP/1.0\r\n{line}\r\n\r\n");
        assert_eq!(refusal(old.as_bytes()), HeadError::Framing);
    }
    for (lines, error) in [
        (
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            HeadError::RepeatedHeader,
        ),
        (
            "Content-Length: 1\r\nX: y\r\ncontent-length: 2\r\n",
            HeadError::RepeatedHeader,
        ),
        ("Content-Length : 1\r\n", HeadError::HeaderName),
        ("Content-Length\r\n: 1\r\n", HeadError::HeaderName),
        ("Content-Length:\r\n 1\r\n", HeadError::FoldedLine),
        ("X: y\nContent-Length: 1\r\n", HeadError::BareLineFeed),
        ("X: y\rContent-Length: 1\r\n", HeadError::BareCarriageReturn),
        ("Transfer-Encoding\0: chunked\r\n", HeadError::ControlByte),
        ("Transfer-Encoding: \x0bchunked\r\n", HeadError::ControlByte),
        ("Transfer-Encoding:\r\n chunked\r\n", HeadError::FoldedLine),
    ] {
        assert_eq!(refusal(&with(lines)), error, "{}", lines.escape_debug());
    }
}

/// Every control byte, put before and in place of every byte of a head. Only a tab passes, and only
/// in a value.
#[test]
fn b7_control_bytes_are_refused_in_each_position() {
    let head = b"GET /a?b HTTP/1.1\r\nHost: a\r\nX-Note: some words\r\n\r\n";
    let in_value = |at: usize| {
        let line = head[..at]
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |lf| lf + 1);
        line > 0 && head[line..at].contains(&b':') && head[at] != b'\n'
    };
    let mut refused = 0;
    for control in (0..0x20).chain([0x7f]) {
        for at in 0..head.len() {
            let inserted = [&head[..at], &[control], &head[at..]].concat();
            let mut replaced = head.to_vec();
            replaced[at] = control;
            for bytes in [inserted, replaced] {
                let is_same = bytes.starts_with(head);
                if is_same || (control == b'\t' && in_value(at)) {
                    continue;
                }
                match whole(&bytes) {
                    Err(_) => refused += 1,
                    passed => panic!("{} came to {passed:?}", bytes.escape_ascii()),
                }
            }
        }
    }
    assert!(refused > 60 * head.len());
}

#[test]
fn b11_a_path_has_one_spelling() {
    let passes: &[(&str, &[&str])] = &[
        ("/", &[""]),
        ("/ws", &["ws"]),
        ("/ws/projects/42/", &["ws", "projects", "42", ""]),
        ("/a%20b/%e2%82%AC", &["a b", "€"]),
        ("/a.b/..c/...", &["a.b", "..c", "..."]),
        ("/a@b/c:d/(e),!$&'*+=~", &["a@b", "c:d", "(e),!$&'*+=~"]),
        ("/%40/%2C", &["@", ","]),
    ];
    for (path, segments) in passes {
        let bytes = get(path);
        let mut reader = HeadReader::new();
        let Ok(Progress::Complete { head, .. }) = reader.receive(&bytes, &Limits::default()) else {
            panic!("{path} was refused")
        };
        assert_eq!(head.path(), *path);
        assert_eq!(head.path_segments().collect::<Vec<_>>(), *segments);
    }
    let refused = [
        "//",
        "//ws/",
        "/ws//projects/42/",
        "/ws/projects/42//",
        "///",
        "/.",
        "/..",
        "/ws/./projects/42/",
        "/ws/x/../projects/42/",
        "/ws/projects/42/..",
        "/%2e",
        "/ws/%2e%2e/x",
        "/ws/.%2E/x",
        "/ws%2fprojects/42/",
        "/ws%2Fprojects",
        "/ws%5cprojects",
        "/ws\\projects",
        "/ws;a=b/projects",
        "/ws/projects;/42/",
        "/ws%3bx",
        "/%77s/projects/42/",
        "/ws/projects/4%32/",
        "/ws%2dx",
        "/ws%7E",
        "/%252f",
        "/%2566",
        "/100%25",
        "/%",
        "/%2",
        "/%2g",
        "/a%%20",
        "/%00",
        "/%0a",
        "/%1f",
        "/%7f",
        "/%c2%85",
        "/%c0%af",
        "/%ff",
        "/%ed%a0%80",
        "/a|b",
        "/{a}",
        "/<a>",
        "/\"a\"",
        "/a^b",
        "/a`b",
        "/[a]",
    ];
    for path in refused {
        assert_eq!(refusal(&get(path)), HeadError::Path, "{path}");
        assert_eq!(
            refusal(&get(&format!("{path}?q"))),
            HeadError::Path,
            "{path}?q"
        );
        let absolute = get(&format!("http://a.example{path}"));
        assert_eq!(refusal(&absolute), HeadError::Path, "absolute {path}");
    }
}

#[test]
fn memory_is_held_only_while_a_head_is_incomplete() {
    assert_eq!(size_of::<HeadReader>(), size_of::<usize>());
    let limits = Limits::default();
    let mut reader = HeadReader::new();
    assert_eq!(reader.bytes_held(), 0);
    assert!(matches!(
        reader.receive(b"", &limits),
        Ok(Progress::Incomplete)
    ));
    assert_eq!(reader.bytes_held(), 0);
    assert!(matches!(
        reader.receive(&BROWSER[..9], &limits),
        Ok(Progress::Incomplete)
    ));
    let held = reader.bytes_held();
    assert!((9..200).contains(&held), "{held}");
    let rest = [&BROWSER[9..], BROWSER].concat();
    let Ok(Progress::Complete { used, .. }) = reader.receive(&rest, &limits) else {
        panic!("not read")
    };
    assert_eq!(used, BROWSER.len() - 9);
    // The next head comes whole: what the first one held is given back.
    let next = &rest[used..];
    let Ok(Progress::Complete { used, head }) = reader.receive(next, &limits) else {
        panic!("not read")
    };
    assert_eq!((used, head.method()), (BROWSER.len(), "GET"));
    assert_eq!(reader.bytes_held(), 0);

    let endless = [b"GET / HTTP/1.1\r\nX: ", &[b'y'; 16_000][..]].concat();
    for byte in endless.chunks(1) {
        assert!(matches!(
            reader.receive(byte, &limits),
            Ok(Progress::Incomplete)
        ));
        assert!(reader.bytes_held() <= limits.head_bytes_max + size_of::<Partial>());
    }
    assert!(reader.receive(&[b'y'; 1000], &limits).is_err());
    assert_eq!(reader.bytes_held(), 0, "a refused head holds nothing");
}

#[test]
fn nothing_the_peer_sent_is_in_debug_output() {
    let mut reader = HeadReader::new();
    reader.receive(&BROWSER[..60], &Limits::default()).unwrap();
    assert!(!format!("{reader:?}").contains("token"));
    let progress = reader.receive(&BROWSER[60..], &Limits::default()).unwrap();
    let debug = format!("{progress:?}");
    assert!(debug.contains("GET") && !debug.contains("token") && !debug.contains("dGhl"));
}

/// Heads, good and bad, for the properties to cut up and to damage.
const SAMPLES: &[&[u8]] = &[
    BROWSER,
    b"\r\nGET http://a/b?c HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    b"GET / HTTP/1.0\r\n\r\nGET / HTTP/1.0\r\n\r\n",
    b"GET /x//y HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: \xff\xfe b\0\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x00\xff",
];

#[test]
fn every_cut_in_two_gives_the_same_answer() {
    for sample in SAMPLES {
        let expected = whole(sample);
        for at in 0..=sample.len() {
            let answer = read([&sample[..at], &sample[at..]], &Limits::default());
            assert_eq!(answer, expected, "{} cut at {at}", sample.escape_ascii());
        }
    }
}

fn damaged_head() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        any::<u8>(),
        prop::sample::select(b"\r\n :\t/%.?#,\0\x7f\x80".to_vec())
    ];
    let damage = (any::<prop::sample::Index>(), byte, 0..3u8);
    (
        prop::sample::select(SAMPLES),
        prop::collection::vec(damage, 0..4),
    )
        .prop_map(|(sample, damages)| {
            let mut bytes = sample.to_vec();
            for (at, byte, kind) in damages {
                let at = at.index(bytes.len());
                match kind {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    _ if bytes.len() > 1 => drop(bytes.remove(at)),
                    _ => {}
                }
            }
            bytes
        })
}

fn small_limits() -> impl Strategy<Value = Limits> {
    (1..400usize, 0..12usize, 0..40usize).prop_map(
        |(head_bytes_max, headers_max, target_bytes_max)| Limits {
            head_bytes_max,
            headers_max,
            target_bytes_max,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_cut_gives_the_same_answer(
        bytes in damaged_head(),
        limits in prop_oneof![Just(Limits::default()), small_limits()],
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let expected = read([&bytes[..]], &limits);
        prop_assert_eq!(&read(bytes.chunks(1), &limits), &expected);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]);
        prop_assert_eq!(&read(pieces, &limits), &expected);
    }

    /// The scanner passes nothing that the parser behind it would refuse or read differently.
    #[test]
    fn b7_scanner_and_parser_agree(bytes in damaged_head()) {
        let mut scan = Scan::new();
        if let Ok(Some(used)) = scan.advance(&bytes, &Limits::default()) {
            let mut slots = [httparse::EMPTY_HEADER; Limits::HEADERS_CEILING];
            let mut request = httparse::Request::new(&mut slots);
            let answer = request.parse(&bytes[scan.skipped..used]);
            prop_assert_eq!(answer, Ok(httparse::Status::Complete(used - scan.skipped)));
            prop_assert_eq!(request.headers.len(), scan.headers);
        }
    }

    #[test]
    fn runs_agree_with_a_plain_loop(bytes in prop::collection::vec(
        prop_oneof![8 => b' '..=b'~', 1 => any::<u8>(), 1 => Just(b'\t')], 0..70)
    ) {
        let plain = |passes: fn(u8) -> bool| {
            bytes.iter().position(|&byte| !passes(byte)).unwrap_or(bytes.len())
        };
        prop_assert_eq!(token_run(&bytes), plain(is_token_byte));
        prop_assert_eq!(visible_run(&bytes), plain(|byte| byte.is_ascii_graphic()));
        prop_assert_eq!(value_run(&bytes), plain(is_value_byte));
    }

    /// However a more generous server would read a path that passes (decoding as often as it can,
    /// taking `\` for `/`, dropping parameters, empty and dot segments), it reads what we read.
    #[test]
    fn b11_no_other_reading_of_a_path_that_passes(
        parts in prop::collection::vec(prop::sample::select(vec![
            "/", "ws", "projects", "42", ".", "..", "//", ";", ";a=b", "\\", "%2f", "%2F", "%5c",
            "%2e", "%2e%2e", "%77s", "%34", "%25", "%252f", "%3b", "%00", "%20", "%C3%A9", "%", "@",
        ]), 0..8),
    ) {
        let path = format!("/{}", parts.concat());
        let bytes = get(&path);
        let mut reader = HeadReader::new();
        if let Ok(Progress::Complete { head, .. }) = reader.receive(&bytes, &Limits::default()) {
            let ours: Vec<_> = head.path_segments().map(Cow::into_owned).collect();
            let ours = ours.strip_suffix(&[String::new()]).unwrap_or(&ours);
            prop_assert_eq!(ours, generous_reading(&path));
        }
    }
}

fn generous_reading(path: &str) -> Vec<String> {
    let mut path = path.to_owned();
    while let Some(decoded) = percent::decode(&path, Plus::Literal).filter(|next| *next != path) {
        path = decoded.into_owned();
    }
    let mut segments: Vec<String> = Vec::new();
    for segment in path.replace('\\', "/").split('/') {
        let (segment, _parameters) = segment.split_once(';').unwrap_or((segment, ""));
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment.to_owned()),
        }
    }
    segments
}

/// A label for each variant and none to spare. The match names them all, so a new one asks to be added.
#[test]
fn every_error_has_a_label_of_its_own() {
    use HeadError as E;
    let last = E::ChunkedBody;
    match last {
        E::TlsOnPlainPort
        | E::ControlByte
        | E::BareLineFeed
        | E::BareCarriageReturn
        | E::FoldedLine
        | E::RequestLine
        | E::MethodTooLong
        | E::TargetTooLong
        | E::Target
        | E::Path
        | E::Version
        | E::HeaderName
        | E::HeaderValue
        | E::TooManyHeaders
        | E::HeadTooLong
        | E::Host
        | E::RepeatedHeader
        | E::Framing
        | E::ChunkedBody => {}
    }
    assert_eq!(last as usize + 1, HeadError::LABELS.len());
    assert_eq!(last.label(), "chunked_body");
    assert_eq!(E::Framing.label(), "framing");
    assert_eq!(E::TlsOnPlainPort.label(), "tls_on_plain_port");
}
