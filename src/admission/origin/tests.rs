//! C1, C2, C3: the origins that are let in, and the many that are not.

use super::*;
use OriginRefused::{Malformed, NotListed};

fn policy() -> OriginPolicy {
    let rules = [
        "https://app.example.com",
        "https://example.org:8443",
        "https://*.tenants.example.com",
        "http://intranet",
        "https://xn--mnchen-3ya.example",
        "https://[2001:db8::1]",
        "http://192.0.2.7:8080",
        "capacitor://localhost",
        "https://*.wide.example:444",
        "http://*.localhost:3000",
    ];
    OriginPolicy {
        allowed: rules.iter().map(|rule| rule.parse().unwrap()).collect(),
        ..OriginPolicy::default()
    }
}

const LISTED: &[&str] = &[
    "https://app.example.com",
    "https://app.example.com:443",
    "HTTPS://APP.EXAMPLE.COM",
    "https://App.Example.com",
    "https://example.org:8443",
    "https://a.tenants.example.com",
    "https://A.Tenants.example.com:443",
    "https://a-b.tenants.example.com",
    "https://a_b.tenants.example.com",
    "https://1.tenants.example.com",
    "https://xn--80ak6aa92e.tenants.example.com",
    "http://intranet",
    "http://intranet:80",
    "https://xn--mnchen-3ya.example",
    "https://XN--MNCHEN-3YA.example",
    "https://[2001:db8::1]",
    "https://[2001:db8::1]:443",
    "http://192.0.2.7:8080",
    "capacitor://localhost",
    "https://a.wide.example:444",
    "http://app.localhost:3000",
];

const NOT_LISTED: &[&str] = &[
    // Scheme.
    "http://app.example.com",
    "http://app.example.com:443",
    "ws://app.example.com",
    "wss://app.example.com",
    "ftp://app.example.com",
    "httpss://app.example.com",
    "https+x://app.example.com",
    "chrome-extension://app.example.com",
    "https://intranet",
    "http://a.tenants.example.com",
    "https://a.tenants.example.com:80",
    "http://[2001:db8::1]",
    "https://192.0.2.7:8080",
    "capacitor://app.example.com",
    "http://a.wide.example:444",
    // Port.
    "https://app.example.com:80",
    "https://app.example.com:8443",
    "https://app.example.com:444",
    "https://app.example.com:4430",
    "https://app.example.com:1",
    "https://app.example.com:65535",
    "https://example.org",
    "https://example.org:443",
    "https://example.org:844",
    "https://example.org:18443",
    "https://a.tenants.example.com:444",
    "http://intranet:8080",
    "https://[2001:db8::1]:8443",
    "http://192.0.2.7",
    "http://192.0.2.7:80",
    "capacitor://localhost:443",
    "https://a.wide.example",
    "https://a.wide.example:443",
    "http://app.localhost",
    // Look-alikes of an exact host.
    "https://example.com",
    "https://www.app.example.com",
    "https://xapp.example.com",
    "https://app.example.com.evil.example",
    "https://app.example.comevil.example",
    "https://app.example.community",
    "https://app.example.co",
    "https://app.example",
    "https://app-example.com",
    "https://appXexample.com",
    "https://app.example-com",
    "https://evil-app.example.com",
    "https://app.examp1e.com",
    "https://app.exampIe.org",
    "https://app.examplecom",
    "https://appexample.com",
    "https://com.example.app",
    "https://app",
    "https://com",
    "https://evil.example",
    "https://app.example.com-evil.example",
    "https://app.example.com_evil.example",
    "https://evil--app.example.com",
    "https://xn--pp-6la.example.com",
    "https://example.org.evil.example:8443",
    "https://evilexample.org:8443",
    "https://www.example.org:8443",
    "https://intranet.evil.example",
    "http://intranet.example.com",
    "http://intranetx",
    "http://xintranet",
    // Look-alikes of a wildcard.
    "https://tenants.example.com",
    "https://a.b.tenants.example.com",
    "https://eviltenants.example.com",
    "https://a.eviltenants.example.com",
    "https://a.tenants.example.com.evil.example",
    "https://a.tenants.example.co",
    "https://a.tenants-example.com",
    "https://tenants.example.com.a",
    "https://a.tenants.example.org",
    "https://a.tenantsXexample.com",
    "https://www.a.tenants.example.com",
    "https://wide.example:444",
    "https://a.b.wide.example:444",
    "https://evilwide.example:444",
    "http://localhost:3000",
    "http://a.b.localhost:3000",
    "http://evillocalhost:3000",
    "http://app.localhost.evil.example:3000",
    // IDN: other labels, other letters.
    "https://mnchen-3ya.example",
    "https://xn--mnchen-3yb.example",
    "https://munchen.example",
    "https://xn--mnchen-3ya.example.evil.example",
    "https://a.xn--mnchen-3ya.example",
    // Addresses.
    "https://[2001:db8::2]",
    "https://[2001:db8::]",
    "https://[::1]",
    "https://[::ffff:c000:207]",
    "http://192.0.2.70:8080",
    "http://192.0.2.8:8080",
    "http://1.192.0.2:8080",
    "http://127.0.0.1:8080",
    "http://localhost",
    "http://localhost:8080",
    "http://0.0.0.0",
];

const MALFORMED: &[&str] = &[
    "",
    " ",
    "NULL",
    "Null",
    "null ",
    " null",
    "null, https://app.example.com",
    "undefined",
    "*",
    "app.example.com",
    "//app.example.com",
    "https:app.example.com",
    "https:/app.example.com",
    "https//app.example.com",
    "://app.example.com",
    "1https://app.example.com",
    "ht tps://app.example.com",
    " https://app.example.com",
    "https://app.example.com ",
    "\thttps://app.example.com",
    "https:// app.example.com",
    "https://app.example.com\0",
    "https://app.example.com\u{a0}",
    "https://app.example.com/",
    "https://app.example.com/ws",
    "https://app.example.com//",
    "https:///app.example.com",
    "https://evil.example/https://app.example.com",
    "https://evil.example?https://app.example.com",
    "https://evil.example#https://app.example.com",
    "https://app.example.com?",
    "https://app.example.com#",
    "https://app.example.com\\evil.example",
    "https://evil.example\\.app.example.com",
    "https:\\\\app.example.com",
    "https://user@app.example.com",
    "https://app.example.com@evil.example",
    "https://app.example.com:443@evil.example",
    "https://@app.example.com",
    "https://app.example.com, https://evil.example",
    "https://app.example.com https://evil.example",
    "https://evil.example https://app.example.com",
    "https://app.example.com,",
    "https://app.example.com;",
    "https://app.example.com.",
    "https://app.example.com.:443",
    "https://a.tenants.example.com.",
    "https://.app.example.com",
    "https://..app.example.com",
    "https://app..example.com",
    "https://.tenants.example.com",
    "https://*.tenants.example.com",
    "https://a*.tenants.example.com",
    "https://a%2etenants.example.com",
    "https://app%2Eexample.com",
    "https://app.example.com%00.evil.example",
    "https://app.example.com:",
    "https://app.example.com:0",
    "https://app.example.com:0443",
    "https://app.example.com:+443",
    "https://app.example.com:-1",
    "https://app.example.com:443:443",
    "https://app.example.com:65536",
    "https://app.example.com:99999999999",
    "https://app.example.com:443x",
    "https://app.example.com:https",
    "https://app.example.com: 443",
    "https://",
    "https://:443",
    "https://.",
    "https://münchen.example",
    "https://MÜNCHEN.example",
    "https://аpp.example.com",
    "https://app。example.com",
    "https://app\u{200b}.example.com",
    "https://ａpp.example.com",
    "https://ß.tenants.example.com",
    "https://\u{fffd}",
    "\u{fffd}",
    "https://[2001:db8::1",
    "https://2001:db8::1]",
    "https://2001:db8::1",
    "https://[2001:db8::1]x",
    "https://[2001:db8::1].example.com",
    "https://x[2001:db8::1]",
    "https://[2001:DB8::1]",
    "https://[2001:db8:0::1]",
    "https://[2001:db8:0:0:0:0:0:1]",
    "https://[2001:db8::1%25eth0]",
    "https://[192.0.2.7]",
    "https://[::ffff:192.0.2.7]",
    "https://[]",
    "http://192.0.2.007:8080",
    "http://3221225991:8080",
    "http://192.0.519:8080",
    "http://192.0.2.7.:8080",
    "http://300.0.2.7:8080",
    "https://evil.example.7",
];

#[test]
fn c1_c2_only_what_a_rule_names_is_let_in() {
    let policy = policy();
    let rows = LISTED.len() + NOT_LISTED.len() + MALFORMED.len();
    assert!(rows >= 200, "{rows}");
    for origin in LISTED {
        assert_eq!(
            policy.check(Some(origin)),
            Ok(OriginMatch::Listed),
            "{origin}"
        );
    }
    for origin in NOT_LISTED {
        assert_eq!(policy.check(Some(origin)), Err(NotListed), "{origin}");
    }
    for origin in MALFORMED {
        assert_eq!(policy.check(Some(origin)), Err(Malformed), "{origin:?}");
    }
    let label = "a".repeat(63);
    let longest = format!("https://{label}.tenants.example.com");
    assert_eq!(policy.check(Some(&longest)), Ok(OriginMatch::Listed));
    let too_long = format!("https://a{label}.tenants.example.com");
    assert_eq!(policy.check(Some(&too_long)), Err(Malformed));
}

#[test]
fn c1_nobody_is_let_in_by_default() {
    let policy = OriginPolicy::default();
    for origin in LISTED.iter().chain(NOT_LISTED) {
        assert_eq!(policy.check(Some(origin)), Err(NotListed), "{origin}");
    }
    assert_eq!(policy.check(None), Err(OriginRefused::Absent));
    assert_eq!(policy.check(Some("null")), Err(OriginRefused::Null));
}

#[test]
fn c3_null_and_absent_origins_are_settings_and_vouch_for_no_cookie() {
    let null = OriginPolicy {
        allow_null: true,
        ..policy()
    };
    assert_eq!(null.check(Some("null")), Ok(OriginMatch::Null));
    assert_eq!(null.check(None), Err(OriginRefused::Absent));
    let absent = OriginPolicy {
        allow_absent: true,
        ..policy()
    };
    assert_eq!(absent.check(None), Ok(OriginMatch::Absent));
    assert_eq!(absent.check(Some("null")), Err(OriginRefused::Null));
    // An empty header is not an absent one.
    assert_eq!(absent.check(Some("")), Err(Malformed));
    for (found, permits) in [
        (OriginMatch::Listed, true),
        (OriginMatch::Loopback, true),
        (OriginMatch::Null, false),
        (OriginMatch::Absent, false),
    ] {
        assert_eq!(found.permits_cookies(), permits);
    }
}

#[test]
fn loopback_is_this_machine_and_no_other() {
    let local = OriginPolicy {
        allow_loopback: true,
        ..OriginPolicy::default()
    };
    for (origin, expected) in [
        ("http://localhost", true),
        ("http://localhost:5173", true),
        ("https://LOCALHOST:8443", true),
        ("http://app.localhost:3000", true),
        ("http://127.0.0.1:3000", true),
        ("http://127.8.9.10", true),
        ("http://[::1]:3000", true),
        ("http://evillocalhost", false),
        ("http://localhost.evil.example", false),
        ("http://127.0.0.1.evil.example", false),
        ("http://128.0.0.1", false),
        ("http://0.0.0.0", false),
        ("http://[::2]", false),
        ("ftp://localhost", false),
    ] {
        assert_eq!(local.check(Some(origin)).is_ok(), expected, "{origin}");
    }
}

#[test]
fn rules_that_cannot_be_used_name_the_fix() {
    for (rule, fix) in [
        ("app.example.com", "write it like https://app.example.com"),
        ("", "write it like https://app.example.com"),
        ("https://", "lacks a host"),
        ("https://*.", "lacks a host"),
        ("https://app.example.com/", "and the last slash"),
        ("https://app.example.com/ws", "has no path"),
        ("https://me@app.example.com", "names a user"),
        ("https://app.example.com:0", "write 1 to 65535"),
        ("https://app.example.com:080", "write 1 to 65535"),
        ("https://app.example.com:*", "one whole label"),
        ("https://app.example.com.", "leave the dot out"),
        ("https://münchen.example", "xn--"),
        ("https://*.münchen.example", "xn--"),
        ("https://app example.com", "write a host name"),
        ("https://10.1", "an IPv4 address"),
        ("https://[2001:DB8:0::1]", "write [2001:db8::1]"),
        ("null", "a setting of its own"),
        ("*", "name the origins"),
        ("https://*", "one whole label"),
        ("https://a*.example.com", "one whole label"),
        ("https://app.*.com", "one whole label"),
        ("https://*.*.example.com", "one whole label"),
        ("*://app.example.com", "one whole label"),
        ("https://*.com", "too wide"),
        ("https://*.192.0.2.7", "too wide"),
        ("https://*.[2001:db8::1]", "too wide"),
        ("wss://app.example.com", "write https:// for wss://"),
        ("WS://app.example.com", "http:// for ws://"),
    ] {
        let error = rule.parse::<OriginRule>().unwrap_err().to_string();
        assert!(error.contains(fix), "{error}");
        assert!(error.starts_with(&format!("`{rule}` ")), "{error}");
    }
}

#[test]
fn rules_are_printed_as_they_are_compared() {
    for (rule, printed) in [
        ("HTTPS://App.Example.com:443", "https://app.example.com"),
        ("http://*.Example.com:80", "http://*.example.com"),
        ("https://example.com:80", "https://example.com:80"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("http://[2001:db8::1]:81", "http://[2001:db8::1]:81"),
    ] {
        let parsed: OriginRule = rule.parse().unwrap();
        assert_eq!(parsed.to_string(), printed);
        assert_eq!(printed.parse::<OriginRule>().unwrap(), parsed);
    }
}

#[test]
fn c1_a_server_s_own_pages_are_those_of_the_host_and_port_that_are_asked_for() {
    let own = OriginPolicy {
        allow_same_host: true,
        ..OriginPolicy::default()
    };
    for (host, origin, is_own) in [
        ("127.0.0.1:9480", "http://127.0.0.1:9480", true),
        ("Admin.Example", "https://admin.example", true),
        ("admin.example", "http://admin.example", true),
        ("admin.example:443", "https://admin.example", true),
        ("[::1]:9480", "http://[::1]:9480", true),
        ("[::1]", "http://[::1]", true),
        ("127.0.0.1:9480", "http://127.0.0.1:9481", false),
        ("127.0.0.1:9480", "http://127.0.0.1", false),
        ("127.0.0.1:9480", "https://evil.example", false),
        ("admin.example:80", "https://admin.example", false),
        ("admin.example", "https://evil.admin.example", false),
        ("admin.example", "ftp://admin.example", false),
        ("admin.example:", "https://admin.example", false),
        ("", "https://admin.example", false),
    ] {
        let found = own.check_at(Some(host), Some(origin));
        assert_eq!(found.is_ok(), is_own, "{host} {origin}: {found:?}");
        assert!(
            OriginPolicy::default()
                .check_at(Some(host), Some(origin))
                .is_err()
        );
        assert!(own.check_at(None, Some(origin)).is_err());
    }
    assert!(own.check_at(Some("a"), None).is_err());
    assert!(own.check_at(Some("a"), Some("null")).is_err());
}
