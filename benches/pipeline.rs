//! The whole way in, without sockets and TLS: the place under the limits, the head's bytes, the checks, the
//! answer's bytes; and what it costs to turn somebody away at each stage. What a refusal costs beyond that is
//! system calls, and from the head on, over TLS, the handshake (`benches/tls.rs`).

#![expect(
    clippy::expect_used,
    reason = "a bench whose setup is wrong has nothing to measure"
)]

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use criterion::{Criterion, criterion_group, criterion_main};
use tidegate::admission::address::{ForwardingHeader, TrustedNetworks, client_address};
use tidegate::admission::jwt::{Algorithm, Key, KeySet, TokenPolicy, Verifier};
use tidegate::admission::limits::{Cap, Limits, Place, Rate, Refused, Tally, Users, WhenFull};
use tidegate::admission::origin::OriginPolicy;
use tidegate::admission::proxy_protocol::{ProxyReader, TLV_BYTES_MAX};
use tidegate::admission::rate::{Moment, Quota};
use tidegate::admission::revocation::Revocations;
use tidegate::admission::rule::Rule;
use tidegate::admission::{self, Candidate, Judge, Refusal, Route, Stage, TokenDemand, admit};
use tidegate::http::head::{self, HeadReader, Progress};

const SECRET: &[u8] = b"0123456789abcdef0123456789ABCDEF";
const NOW: u64 = 1_800_000_000;
const PEER: [u8; 4] = [203, 0, 113, 7];
const PROXY: [u8; 4] = [10, 0, 0, 1];

fn token(role: &str, secret: &[u8], expires: u64) -> String {
    let claims = format!(
        r#"{{"token_type":"access","exp":{expires},"iat":1799999990,"jti":"6f1c9ad0c4b84f0f9a2e4d6a1b2c3d4e","user_id":"4711","role":"{role}"}}"#
    );
    let message = [r#"{"alg":"HS256","typ":"JWT"}"#, &claims]
        .map(|part| URL_SAFE_NO_PAD.encode(part))
        .join(".");
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signature = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

/// What Chromium sends through a proxy that names its client.
fn request(path: &str, version: &str, origin: &str, token: &str) -> Vec<u8> {
    format!(
        "GET {path}?token={token} HTTP/1.1\r\n\
         Host: chat.example\r\n\
         Connection: Upgrade\r\n\
         Pragma: no-cache\r\n\
         Cache-Control: no-cache\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r\n\
         Upgrade: websocket\r\n\
         Origin: {origin}\r\n\
         Sec-WebSocket-Version: {version}\r\n\
         Accept-Encoding: gzip, deflate, br, zstd\r\n\
         Accept-Language: en-GB,en;q=0.9\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
         X-Forwarded-For: 203.0.113.7\r\n\r\n"
    )
    .into_bytes()
}

/// A server, as far as admission is one.
struct Door {
    limits: Arc<Limits>,
    users: Arc<Users<u32>>,
    user_cap: Cap,
    routes: Vec<Route>,
    policy: admission::Policy,
    verifier: Verifier,
    revocations: Revocations,
    heads: head::Limits,
    tally: Tally,
    now: u64,
}

/// What became of somebody.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Admitted,
    Refused(Stage),
}

impl Door {
    fn new() -> Self {
        let mut route = Route::open("/ws/projects/{project_id}/");
        route.origins = Some(OriginPolicy {
            allowed: vec!["https://app.example".parse().expect("an origin")],
            ..OriginPolicy::default()
        });
        route.token = TokenDemand::Required;
        route.rule = Rule::parse(r#"role in ["Admin", "Advisor"]"#).expect("a rule");
        let paths = route.rule.claims().into_iter().cloned().collect();
        let policy = TokenPolicy {
            user_claim: "user_id".into(),
            token_type: Some("access".into()),
            kept: paths,
            ..TokenPolicy::default()
        };
        let key = Key::secret(Algorithm::Hs256, SECRET, None).expect("the secret is long enough");
        let keys = KeySet::new(vec![key]).expect("a key makes a set");
        Self {
            limits: Arc::new(Limits::new(65_536, RandomState::new())),
            users: Arc::new(Users::new(RandomState::new())),
            user_cap: Cap::of(100),
            routes: vec![Route::open("/echo"), route],
            policy: admission::Policy {
                trusted: TrustedNetworks::parse(["10.0.0.0/8"]).expect("a network"),
                forwarding: Some(ForwardingHeader::XForwardedFor),
                limits: admission::limits::Policy {
                    // Permits come back faster than the bench can spend them.
                    address_attempts: Quota::new(1_000_000_000, Duration::from_secs(1), 1_000)
                        .ok()
                        .map(Rate::of),
                    ..admission::limits::Policy::default()
                },
                ..admission::Policy::default()
            },
            verifier: Verifier::new(vec![(policy, keys)]).expect("one issuer is enough"),
            revocations: Revocations::default(),
            heads: head::Limits::default(),
            tally: Tally::default(),
            now: 0,
        }
    }

    fn moment(&mut self) -> Moment {
        self.now += 10;
        Moment::after(Duration::from_micros(self.now))
    }

    /// A peer of which only the address is known. The answer to a refusal is written as on a plain port.
    fn accept(&mut self, peer: [u8; 4], out: &mut Vec<u8>) -> Result<Place, Outcome> {
        let now = self.moment();
        let address = IpAddr::from(peer);
        let entered = if self.policy.trusted.contains(address) {
            self.limits.enter(&self.policy.limits, &mut self.tally)
        } else {
            let limits = &self.policy.limits;
            self.limits.attempt(limits, address, now, &mut self.tally)
        };
        entered.map_err(|refused| {
            let refusal = Refusal::Limit(Stage::Accept, refused);
            refusal.write_answer(out);
            Outcome::Refused(refusal.stage())
        })
    }

    /// From the accept to the bytes of the answer.
    fn knock(&mut self, peer: [u8; 4], request: &[u8], out: &mut Vec<u8>) -> Outcome {
        out.clear();
        let mut place = match self.accept(peer, out) {
            Ok(place) => place,
            Err(outcome) => return outcome,
        };
        let now = self.moment();
        let mut reader = HeadReader::new();
        let head = match reader.receive(request, &self.heads) {
            Ok(Progress::Complete { head, .. }) => head,
            Ok(Progress::Incomplete) => unreachable!("the head is whole"),
            Err(error) => {
                let refusal = Refusal::Head(error);
                refusal.write_answer(out);
                return Outcome::Refused(refusal.stage());
            }
        };
        let located: Result<(), Refused> = match self.policy.forwarding {
            Some(header) if self.policy.trusted.contains(IpAddr::from(peer)) => {
                let lines = head.headers("x-forwarded-for");
                let client =
                    client_address(IpAddr::from(peer), &self.policy.trusted, header, lines);
                place.locate(&self.policy.limits, client, now, &mut self.tally)
            }
            _ => Ok(()),
        };
        let candidate = Candidate {
            head: &head,
            has_surplus: false,
            located,
            draining: false,
        };
        let judge = Judge {
            verifier: Some(&self.verifier),
            revocations: &self.revocations,
            wall: NOW,
        };
        let admitted = match admit(&candidate, &self.routes, &self.policy, &judge) {
            Ok(admitted) => admitted,
            Err(rejected) => {
                rejected.write_answer(0, out);
                return Outcome::Refused(rejected.refusal().stage());
            }
        };
        if let Some(identity) = admitted.identity() {
            let user = identity.user().as_bytes();
            let when_full = WhenFull::RefuseNew;
            let entered = (self.users).enter(self.user_cap, user, 1, when_full, &mut self.tally);
            if let Err(refused) = entered {
                let rejected = admitted.reject(Refusal::Limit(Stage::User, refused));
                rejected.write_answer(0, out);
                return Outcome::Refused(Stage::User);
            }
        }
        admitted.write_answer(out);
        Outcome::Admitted
    }
}

fn pipeline(c: &mut Criterion) {
    const PATH: &str = "/ws/projects/12/";
    const ORIGIN: &str = "https://app.example";
    let good = token("Admin", SECRET, NOW + 300);
    let forged = token("Admin", &[b'x'; 32], NOW + 300);
    let expired = token("Admin", SECRET, NOW - 1);
    let other = token("Student", SECRET, NOW + 300);
    let welcome = request(PATH, "13", ORIGIN, &good);
    let mut malformed = welcome.clone();
    malformed.splice(..3, *b"G\0T");
    let no_places = |door: &mut Door| door.policy.limits.address_connections = Some(Cap::of(0));
    let no_attempts = |door: &mut Door| {
        let quota = Quota::new(1, Duration::from_secs(3_600_000), 1).expect("a quota");
        door.policy.limits.address_attempts = Some(Rate::of(quota));
    };
    type Change = Box<dyn Fn(&mut Door)>;
    type Case = (&'static str, [u8; 4], Vec<u8>, Change, Outcome);
    let nothing = || -> Change { Box::new(|_| {}) };
    let cases: Vec<Case> = vec![
        (
            "accept: full",
            PEER,
            welcome.clone(),
            Box::new(|door| door.policy.limits.connections = Cap::of(0)),
            Outcome::Refused(Stage::Accept),
        ),
        (
            "accept: connections of the address",
            PEER,
            welcome.clone(),
            Box::new(no_places),
            Outcome::Refused(Stage::Accept),
        ),
        (
            "accept: attempts of the address",
            PEER,
            welcome.clone(),
            Box::new(no_attempts),
            Outcome::Refused(Stage::Accept),
        ),
        (
            "head: malformed",
            PEER,
            malformed,
            nothing(),
            Outcome::Refused(Stage::Head),
        ),
        (
            "upgrade: version",
            PEER,
            request(PATH, "12", ORIGIN, &good),
            nothing(),
            Outcome::Refused(Stage::Upgrade),
        ),
        (
            "route: not found",
            PEER,
            request("/ws/nowhere/", "13", ORIGIN, &good),
            nothing(),
            Outcome::Refused(Stage::Route),
        ),
        (
            "address: connections, behind a proxy",
            PROXY,
            welcome.clone(),
            Box::new(no_places),
            Outcome::Refused(Stage::Address),
        ),
        (
            "origin: not listed",
            PEER,
            request(PATH, "13", "https://evil.example", &good),
            nothing(),
            Outcome::Refused(Stage::Origin),
        ),
        (
            "token: missing",
            PEER,
            request(PATH, "13", ORIGIN, ""),
            nothing(),
            Outcome::Refused(Stage::Token),
        ),
        (
            "token: expired",
            PEER,
            request(PATH, "13", ORIGIN, &expired),
            nothing(),
            Outcome::Refused(Stage::Token),
        ),
        (
            "token: forged HS256",
            PEER,
            request(PATH, "13", ORIGIN, &forged),
            nothing(),
            Outcome::Refused(Stage::Token),
        ),
        (
            "rule: not allowed",
            PEER,
            request(PATH, "13", ORIGIN, &other),
            nothing(),
            Outcome::Refused(Stage::Rule),
        ),
        (
            "user: connections",
            PEER,
            welcome.clone(),
            Box::new(|door| door.user_cap = Cap::of(0)),
            Outcome::Refused(Stage::User),
        ),
        (
            "admitted",
            PEER,
            welcome.clone(),
            nothing(),
            Outcome::Admitted,
        ),
        (
            "admitted, behind a proxy",
            PROXY,
            welcome,
            nothing(),
            Outcome::Admitted,
        ),
    ];
    let mut group = c.benchmark_group("way in");
    for (name, peer, request, change, outcome) in cases {
        let mut door = Door::new();
        change(&mut door);
        let mut out = Vec::with_capacity(1024);
        // Where there is one permit, this takes it.
        door.knock(peer, &request, &mut out);
        group.bench_function(name, |b| {
            b.iter(|| {
                let found = door.knock(peer, black_box(&request), &mut out);
                assert_eq!(found, outcome);
                assert!(out.starts_with(b"HTTP/1.1 "));
            });
        });
    }
    group.bench_function("proxy: malformed", |b| {
        b.iter(|| {
            let mut reader = ProxyReader::new(TLV_BYTES_MAX);
            let refused = reader.receive(black_box(b"PROXY TCP9 203.0.113.7 10.0.0.1 1 2\r\n"));
            let refusal = refused.map_err(Refusal::Proxy);
            assert!(refusal.is_err_and(|refusal| refusal.stage() == Stage::Proxy));
        });
    });
    group.finish();
}

criterion_group!(benches, pipeline);
criterion_main!(benches);
