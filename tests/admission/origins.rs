//! Which pages may have their visitors connect, which hosts are served, and what a cookie is worth.

use tidegate::admission::origin::OriginRefused;
use tidegate::{CloseReason, Refusal};

use crate::{NO_ORIGIN, PAGE, ask, enter, refused, start, start_telling, status, token_of, told};

/// Open to everybody's token-less clients: only the origin counts. Development lets in pages of this
/// machine unless told otherwise.
const OPEN: &str = r#"
demo_routes = false
reactors = 2
listen = [{ address = "127.0.0.1:0" }]

[origin]
allowed = [
    "https://app.example.com",
    "https://*.example.org",
    "http://localhost:3000",
    "https://xn--bcher-kva.example",
    "https://[2001:db8::1]:8443",
]
allow_absent = false
allow_loopback = false

[[route]]
path = "/ws/"
kind = "echo"

[[route]]
path = "/told/"
kind = "echo"
reject = "close-code"

[[route]]
path = "/anyhow/"
kind = "echo"
allow_null_origin = true
allow_absent_origin = true

[[route]]
path = "/here/"
kind = "echo"
origins = []
allow_loopback_origin = true
"#;

/// Origins that browsers and others send, and whether the list above names them.
const MATRIX: &[(&str, Result<(), OriginRefused>)] = &[
    ("https://app.example.com", Ok(())),
    // Case and the scheme's own port are spellings of the same.
    ("HTTPS://APP.Example.COM", Ok(())),
    ("https://app.example.com:443", Ok(())),
    ("http://localhost:3000", Ok(())),
    ("https://xn--bcher-kva.example", Ok(())),
    ("https://XN--BCHER-KVA.example", Ok(())),
    ("https://[2001:db8::1]:8443", Ok(())),
    // One whole label for the wildcard.
    ("https://a.example.org", Ok(())),
    ("https://A.EXAMPLE.ORG", Ok(())),
    ("https://example.org", Err(OriginRefused::NotListed)),
    ("https://a.b.example.org", Err(OriginRefused::NotListed)),
    ("https://evilexample.org", Err(OriginRefused::NotListed)),
    ("https://evil-example.org", Err(OriginRefused::NotListed)),
    (
        "https://a.example.org.evil.test",
        Err(OriginRefused::NotListed),
    ),
    ("https://.example.org", Err(OriginRefused::Malformed)),
    ("https://*.example.org", Err(OriginRefused::Malformed)),
    // Schemes and ports are kept apart.
    ("http://app.example.com", Err(OriginRefused::NotListed)),
    ("wss://app.example.com", Err(OriginRefused::NotListed)),
    ("ftp://app.example.com", Err(OriginRefused::NotListed)),
    ("http://app.example.com:443", Err(OriginRefused::NotListed)),
    ("https://app.example.com:80", Err(OriginRefused::NotListed)),
    (
        "https://app.example.com:8443",
        Err(OriginRefused::NotListed),
    ),
    (
        "https://app.example.com:0443",
        Err(OriginRefused::Malformed),
    ),
    ("https://app.example.com:", Err(OriginRefused::Malformed)),
    (
        "https://app.example.com:99999",
        Err(OriginRefused::Malformed),
    ),
    ("http://localhost", Err(OriginRefused::NotListed)),
    ("http://localhost:3001", Err(OriginRefused::NotListed)),
    ("http://127.0.0.1:3000", Err(OriginRefused::NotListed)),
    ("https://[2001:db8::1]", Err(OriginRefused::NotListed)),
    ("https://[2001:db8::2]:8443", Err(OriginRefused::NotListed)),
    (
        "https://[2001:DB8:0::1]:8443",
        Err(OriginRefused::Malformed),
    ),
    // Look-alikes.
    (
        "https://app.example.com.evil.test",
        Err(OriginRefused::NotListed),
    ),
    (
        "https://evil.test/app.example.com",
        Err(OriginRefused::Malformed),
    ),
    (
        "https://evil.test#app.example.com",
        Err(OriginRefused::Malformed),
    ),
    (
        "https://evil.test?app.example.com",
        Err(OriginRefused::Malformed),
    ),
    (
        "https://app.example.com@evil.test",
        Err(OriginRefused::Malformed),
    ),
    (
        "https://evil.test\\app.example.com",
        Err(OriginRefused::Malformed),
    ),
    ("https://app-example.com", Err(OriginRefused::NotListed)),
    ("https://appXexample.com", Err(OriginRefused::NotListed)),
    ("https://app.example.co", Err(OriginRefused::NotListed)),
    ("https://app.example.comm", Err(OriginRefused::NotListed)),
    ("https://xapp.example.com", Err(OriginRefused::NotListed)),
    ("https://x.app.example.com", Err(OriginRefused::NotListed)),
    // To a browser another host, with cookies of its own.
    ("https://app.example.com.", Err(OriginRefused::Malformed)),
    ("https://a.example.org.", Err(OriginRefused::Malformed)),
    // Letters beyond ASCII, which no browser sends, and the ASCII forms of others.
    ("https://b\u{fc}cher.example", Err(OriginRefused::Malformed)),
    (
        "https://\u{430}pp.example.com",
        Err(OriginRefused::Malformed),
    ),
    (
        "https://xn--pp-7kc.example.com",
        Err(OriginRefused::NotListed),
    ),
    (
        "https://app\u{3002}example\u{3002}com",
        Err(OriginRefused::Malformed),
    ),
    // No origins, or several.
    ("null", Err(OriginRefused::Null)),
    ("NULL", Err(OriginRefused::Malformed)),
    ("", Err(OriginRefused::Malformed)),
    ("*", Err(OriginRefused::Malformed)),
    ("app.example.com", Err(OriginRefused::Malformed)),
    ("//app.example.com", Err(OriginRefused::Malformed)),
    ("https:app.example.com", Err(OriginRefused::Malformed)),
    ("https://", Err(OriginRefused::Malformed)),
    ("https://app.example.com/", Err(OriginRefused::Malformed)),
    (
        "https://app.example.com https://app.example.com",
        Err(OriginRefused::Malformed),
    ),
    (
        "https://app.example.com, https://evil.test",
        Err(OriginRefused::Malformed),
    ),
    ("file://", Err(OriginRefused::Malformed)),
    ("data:text/html,x", Err(OriginRefused::Malformed)),
    (
        "chrome-extension://abcdefghijklmnop",
        Err(OriginRefused::NotListed),
    ),
];

#[test]
fn c1_c2_only_the_origins_that_are_written_are_let_in() {
    let running = start(OPEN);
    for (origin, expected) in MATRIX {
        let line = format!("Origin: {origin}");
        let request = ask("/ws/", &[&line]);
        match expected {
            Ok(()) => enter(&running, &request).echo("in"),
            Err(error) => {
                let (status, reason, _) = refused(&running, &request);
                assert_eq!((status, reason.as_str()), (403, error.label()), "{origin}");
                let (code, reason) = told(&running, &ask("/told/", &[&line]));
                assert_eq!((code, reason.as_str()), (4403, error.label()), "{origin}");
            }
        }
    }
    // Two of them are no head at all: one of two readers would take the other one.
    let twice = ask(
        "/ws/",
        &[
            "Origin: https://app.example.com",
            "Origin: https://evil.test",
        ],
    );
    let (status, _, _) = refused(&running, &twice);
    assert_eq!(status, 400);
    let counters = running.stop();
    let count = |error| {
        let rows = MATRIX
            .iter()
            .filter(|(_, expected)| *expected == Err(error));
        2 * rows.count() as u64
    };
    for error in [
        OriginRefused::NotListed,
        OriginRefused::Malformed,
        OriginRefused::Null,
    ] {
        assert_eq!(
            counters.refused.of(&Refusal::Origin(error)),
            count(error),
            "{error}"
        );
    }
    let origin = Refusal::Origin(OriginRefused::Null);
    assert!(counters.closed_by(&CloseReason::Refused(origin)) > 0);
}

#[test]
fn c3_null_and_absent_are_refused_unless_a_route_lets_them_in() {
    let running = start(OPEN);
    for (line, error) in [
        ("Origin: null", OriginRefused::Null),
        (NO_ORIGIN, OriginRefused::Absent),
    ] {
        let (status, reason, _) = refused(&running, &ask("/ws/", &[line]));
        assert_eq!((status, reason.as_str()), (403, error.label()), "{line}");
        let (status, ..) = refused(&running, &ask("/here/", &[line]));
        assert_eq!(status, 403, "{line}");
        enter(&running, &ask("/anyhow/", &[line])).echo("in");
    }
    // What is let in beside them is as strict as before.
    for (origin, status) in [("https://evil.test", 403), ("nul", 403), (PAGE, 101)] {
        let line = format!("Origin: {origin}");
        assert_eq!(
            crate::status(&running, &ask("/anyhow/", &[&line])),
            status,
            "{origin}"
        );
    }
}

#[test]
fn pages_of_this_machine_are_a_setting_and_not_a_pattern() {
    let running = start(OPEN);
    for (origin, expected) in [
        ("http://localhost:5173", 101),
        ("https://localhost", 101),
        ("http://app.localhost:8080", 101),
        ("http://127.0.0.1:1", 101),
        ("http://127.8.9.10", 101),
        ("http://[::1]:3000", 101),
        ("http://localhost.evil.test", 403),
        ("http://notlocalhost", 403),
        ("http://127.0.0.1.evil.test", 403),
        ("http://0.0.0.0:3000", 403),
        ("http://[::ffff:127.0.0.1]", 403),
        (PAGE, 403),
    ] {
        let line = format!("Origin: {origin}");
        assert_eq!(
            status(&running, &ask("/here/", &[&line])),
            expected,
            "{origin}"
        );
    }
}

/// Routes that want a token, which a cookie may bring.
const COOKIES: &str = r#"
demo_routes = false
reactors = 2
listen = [{ address = "127.0.0.1:0" }]

[token]
required = true
user_claim = "user_id"
sources = ["query", "cookie"]
cookie_name = "session"

[origin]
allowed = ["https://app.example.com"]

[[route]]
path = "/ws/"
kind = "echo"
allow_null_origin = true
allow_absent_origin = true
allow_loopback_origin = true
"#;

#[test]
fn c4_a_cookie_counts_only_for_a_page_that_is_known() {
    let running = start_telling(COOKIES);
    let good = token_of("42");
    let cookie = format!("Cookie: theme=dark; session={good}; session_id=1");
    for origin in [
        "Origin: https://app.example.com",
        "Origin: http://localhost:3000",
    ] {
        let mut client = enter(&running, &ask("/ws/", &[origin, &cookie]));
        assert_eq!(client.read_text(), "42 127.0.0.1");
    }
    // The browser of a visitor sends the cookie for whatever page asks.
    let (status, reason, _) = refused(
        &running,
        &ask("/ws/", &["Origin: https://evil.test", &cookie]),
    );
    assert_eq!((status, reason.as_str()), (403, "not_listed"));
    for origin in ["Origin: null", NO_ORIGIN] {
        let (status, reason, _) = refused(&running, &ask("/ws/", &[origin, &cookie]));
        assert_eq!(
            (status, reason.as_str()),
            (401, "bearer_cookie_off_origin"),
            "{origin}"
        );
        // Whoever can write a token into the address has it, from whatever page.
        enter(
            &running,
            &ask(&format!("/ws/?token={good}"), &[origin, &cookie]),
        );
    }
    let twice = format!("Cookie: session={good}; session={good}");
    let (_, reason, _) = refused(&running, &ask("/ws/", &[&twice]));
    assert_eq!(
        reason, "bearer_repeated",
        "a subdomain can plant the second"
    );
    for name in ["Session", "session2", "xsession"] {
        let cookie = format!("Cookie: {name}={good}");
        let (_, reason, _) = refused(&running, &ask("/ws/", &[&cookie]));
        assert_eq!(reason, "bearer_missing", "{name}");
    }
}

#[test]
fn c4_cookies_are_not_looked_at_unless_they_are_configured() {
    let running = start(&COOKIES.replace("sources = [\"query\", \"cookie\"]", ""));
    let cookie = format!("Cookie: session={0}; token={0}", token_of("42"));
    let (status, reason, _) = refused(&running, &ask("/ws/", &[&cookie]));
    assert_eq!((status, reason.as_str()), (401, "bearer_missing"));
}

#[test]
fn c5_a_foreign_host_is_misdirected() {
    let running = start(
        r#"
        demo_routes = false
        reactors = 2
        listen = [{ address = "127.0.0.1:0" }]
        http.hosts = ["ws.example.com", "192.0.2.1", "[2001:db8::1]"]
        [[route]]
        path = "/ws/"
        kind = "echo"
        "#,
    );
    for (host, expected) in [
        ("ws.example.com", 101),
        ("WS.Example.COM", 101),
        ("ws.example.com:8443", 101),
        ("192.0.2.1:8080", 101),
        ("[2001:db8::1]", 101),
        ("[2001:db8::1]:443", 101),
        // A name of the attacker's that resolves to 127.0.0.1.
        ("rebind.evil.test", 421),
        ("rebind.evil.test:8080", 421),
        ("ws.example.com.evil.test", 421),
        ("evil-ws.example.com", 421),
        ("a.ws.example.com", 421),
        ("ws.example.com.", 421),
        ("localhost", 421),
        ("127.0.0.1", 421),
        ("[::1]", 421),
        ("192.0.2.10", 421),
    ] {
        let line = format!("Host: {host}");
        let request = ask("/ws/", &[&line, NO_ORIGIN]);
        if expected == 101 {
            enter(&running, &request).echo("in");
        } else {
            let (status, reason, _) = refused(&running, &request);
            assert_eq!((status, reason.as_str()), (421, "host"), "{host}");
        }
    }
}
