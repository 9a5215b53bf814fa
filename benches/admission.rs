//! What a token costs: each refusal before cryptography, each algorithm, and a rule.
//!
//! One refusal's nanoseconds are a flood's microseconds per thousand tokens.

#![expect(
    clippy::expect_used,
    reason = "a bench whose setup is wrong has nothing to measure"
)]

use std::hint::black_box;
use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidegate::admission::bearer::{Bearer, Source, Sources};
use tidegate::admission::claim::{ClaimPath, ClaimValue, Claims, Scalar};
use tidegate::admission::jwt::{Algorithm, Key, KeySet, TokenError, TokenPolicy, Verifier};
use tidegate::admission::rule::Rule;
use tidegate::http::head::{HeadReader, Limits, Progress};
use tidegate::ws::upgrade::Upgrade;

const NOW: u64 = 1_800_000_000;
const SECRET: &[u8] = b"0123456789abcdef0123456789ABCDEF";
/// What Django's SimpleJWT issues, and a role.
const CLAIMS: &str = r#"{"token_type":"access","exp":1800000300,"iat":1799999990,"jti":"6f1c9ad0c4b84f0f9a2e4d6a1b2c3d4e","user_id":"4711","role":"Student"}"#;

/// A token of these parts, signed by `sign`.
fn token(header: &str, claims: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let (header, claims) = (
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims),
    );
    let message = format!("{header}.{claims}");
    let signature = URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

fn hs256(header: &str, claims: &str) -> String {
    token(header, claims, |message| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
        hmac::sign(&key, message).as_ref().to_vec()
    })
}

fn public_key<'a>(key: &impl AsDer<PublicKeyX509Der<'a>>, algorithm: Algorithm) -> Key {
    let der = key.as_der().expect("a public key has a DER form");
    let der = STANDARD.encode(der.as_ref());
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n");
    Key::pem(pem.as_bytes(), Some(algorithm), Some("2026-11")).expect("a fresh key is good")
}

/// The policy a backend like the one above would have.
fn verifier(keys: Vec<Key>) -> Verifier {
    let policy = TokenPolicy {
        user_claim: "user_id".into(),
        token_type: Some("access".into()),
        kept: vec![ClaimPath::top_level("role")],
        ..TokenPolicy::default()
    };
    let keys = KeySet::new(keys).expect("the keys make a set");
    Verifier::new(vec![(policy, keys)]).expect("one issuer is enough")
}

fn refusals(c: &mut Criterion) {
    const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
    let verifier = verifier(vec![
        Key::secret(Algorithm::Hs256, SECRET, None).expect("the secret is long enough"),
    ]);
    let good = hs256(HEADER, CLAIMS);
    let (message, signature) = good.rsplit_once('.').expect("a token has dots");
    let refused = [
        ("too long", "a".repeat(1 << 20)),
        ("8 KiB of dots", ".".repeat(8192)),
        ("8 KiB without dots", "a".repeat(8192)),
        ("header too long", format!("{}.a.a", "a".repeat(4096))),
        ("not base64url", format!("=.{message}")),
        ("alg none", hs256(r#"{"alg":"none"}"#, CLAIMS)),
        ("crit", hs256(r#"{"alg":"HS256","crit":["x"]}"#, CLAIMS)),
        (
            "typ",
            hs256(r#"{"alg":"HS256","typ":"refresh+jwt"}"#, CLAIMS),
        ),
        ("deep claims", hs256(HEADER, &"[".repeat(6000))),
        ("exp is a text", hs256(HEADER, r#"{"exp":"1800000300"}"#)),
        ("alg of another key", hs256(r#"{"alg":"RS256"}"#, CLAIMS)),
        ("signature length", format!("{message}.{}", &signature[1..])),
        (
            "expired",
            hs256(HEADER, &CLAIMS.replace("1800000300", "1799999999")),
        ),
        ("forged HS256", format!("{message}.{}", "A".repeat(43))),
        (
            "token_type",
            hs256(HEADER, &CLAIMS.replace("access", "refresh")),
        ),
    ];
    let mut group = c.benchmark_group("token refused");
    for (name, token) in &refused {
        group.bench_function(*name, |b| {
            b.iter(|| assert!(verifier.verify(black_box(token), NOW).is_err()));
        });
    }
    // The dearest claims a forger can send: as many members, as much to keep, as fit.
    let members: Vec<_> = (0..63)
        .map(|n| format!("\"member-number-{n:03}\":\"{n:060}\""))
        .collect();
    let heavy = format!("{{\"exp\":1800000300,{}}}", members.join(","));
    let heavy = token(HEADER, &heavy, |_| vec![0; 32]);
    group.bench_function("forged HS256, 64 claims in 7 KiB", |b| {
        b.iter(|| {
            let refused = verifier.verify(black_box(&heavy), NOW);
            assert_eq!(refused, Err(TokenError::Signature));
        });
    });
    group.finish();
}

fn algorithms(c: &mut Criterion) {
    let random = SystemRandom::new();
    let header = |algorithm: Algorithm| format!(r#"{{"alg":"{algorithm}","kid":"2026-11"}}"#);
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).expect("RSA keys can be made");
    let p256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("so can P-256");
    let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("and P-384");
    let ed = Ed25519KeyPair::generate().expect("and Ed25519");
    let rsa_sign = |padding: &'static dyn aws_lc_rs::signature::RsaEncoding, message: &[u8]| {
        let mut signature = vec![0; rsa.public_modulus_len()];
        rsa.sign(padding, &random, message, &mut signature)
            .expect("the buffer fits");
        signature
    };
    let ec_sign = |pair: &EcdsaKeyPair, message: &[u8]| {
        let signature = pair.sign(&random, message).expect("there is randomness");
        signature.as_ref().to_vec()
    };
    let cases = [
        (
            Key::secret(Algorithm::Hs256, SECRET, None).expect("the secret is long enough"),
            hs256(&header(Algorithm::Hs256), CLAIMS),
        ),
        (
            public_key(rsa.public_key(), Algorithm::Rs256),
            token(&header(Algorithm::Rs256), CLAIMS, |m| {
                rsa_sign(&RSA_PKCS1_SHA256, m)
            }),
        ),
        (
            public_key(rsa.public_key(), Algorithm::Ps256),
            token(&header(Algorithm::Ps256), CLAIMS, |m| {
                rsa_sign(&RSA_PSS_SHA256, m)
            }),
        ),
        (
            public_key(p256.public_key(), Algorithm::Es256),
            token(&header(Algorithm::Es256), CLAIMS, |m| ec_sign(&p256, m)),
        ),
        (
            public_key(p384.public_key(), Algorithm::Es384),
            token(&header(Algorithm::Es384), CLAIMS, |m| ec_sign(&p384, m)),
        ),
        (
            public_key(ed.public_key(), Algorithm::EdDsa),
            token(&header(Algorithm::EdDsa), CLAIMS, |m| {
                ed.sign(m).as_ref().to_vec()
            }),
        ),
    ];
    let cases = cases.map(|(key, token)| (key.algorithm().name(), verifier(vec![key]), token));
    let mut group = c.benchmark_group("token verified");
    for (name, verifier, token) in &cases {
        group.bench_function(*name, |b| {
            b.iter(|| {
                let identity = verifier.verify(black_box(token), NOW);
                assert!(identity.is_ok_and(|identity| &**identity.user() == "4711"));
            });
        });
    }
    group.finish();

    // A thousand forgers: a good token's form, another user's claims.
    let mut group = c.benchmark_group("1000 tokens forged");
    group
        .throughput(Throughput::Elements(1_000))
        .sample_size(20);
    for (name, verifier, token) in &cases {
        let mut parts = token.split('.');
        let (header, signature) = (parts.next(), parts.next_back());
        let (header, signature) = (header.unwrap_or_default(), signature.unwrap_or_default());
        let forged: Vec<String> = (0..1_000)
            .map(|user| CLAIMS.replace("4711", &format!("{user:04}")))
            .map(|claims| format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(claims)))
            .collect();
        group.bench_function(*name, |b| {
            b.iter(|| {
                for token in &forged {
                    let refused = verifier.verify(black_box(token), NOW);
                    assert_eq!(refused, Err(TokenError::Signature));
                }
            });
        });
    }
    group.finish();
}

fn rules(c: &mut Criterion) {
    const MEMBERS: &str =
        r#"role in ["Admin", "DepartmentAdmin"] or projects contains {project_id}"#;
    let rule = Rule::parse(MEMBERS).expect("the sample is a rule");
    let paths: Arc<[ClaimPath]> = rule.claims().into_iter().cloned().collect();
    let claims = Claims::new(&paths, |path| match path.first() {
        "role" => Some(ClaimValue::One(Scalar::Text("Student".into()))),
        _ => Some(ClaimValue::Many((0..8).map(Scalar::Integer).collect())),
    });
    let mut group = c.benchmark_group("rule");
    group.bench_function("any", |b| {
        b.iter(|| assert!(black_box(&Rule::any()).allows(&claims, &|_| None)));
    });
    group.bench_function("role or one of 8 projects", |b| {
        b.iter(|| assert!(black_box(&rule).allows(black_box(&claims), &|_| Some("7"))));
    });
    group.bench_function("parse", |b| {
        b.iter(|| assert!(Rule::parse(black_box(MEMBERS)).is_ok()));
    });
    group.finish();
}

fn bearers(c: &mut Criterion) {
    let good = hs256(r#"{"alg":"HS256","typ":"JWT"}"#, CLAIMS);
    let request = |target: &str, line: &str| {
        format!(
            "GET {target} HTTP/1.1\r\nHost: chat.example\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: https://chat.example\r\n\
             {line}\r\n\r\n"
        )
    };
    let sources = Sources {
        order: vec![
            Source::Query,
            Source::Header,
            Source::Subprotocol,
            Source::Cookie,
        ],
        ..Sources::default()
    };
    let mut group = c.benchmark_group("bearer");
    for (name, text) in [
        (
            "query",
            request(&format!("/ws/?v=2&token={good}"), "Accept: */*"),
        ),
        (
            "header",
            request("/ws/?v=2", &format!("Authorization: Bearer {good}")),
        ),
        (
            "subprotocol",
            request("/ws/", &format!("Sec-WebSocket-Protocol: bearer, {good}")),
        ),
        (
            "cookie",
            request("/ws/", &format!("Cookie: a=1; token={good}")),
        ),
    ] {
        let mut reader = HeadReader::new();
        let limits = Limits::default();
        let Ok(Progress::Complete { head, .. }) = reader.receive(text.as_bytes(), &limits) else {
            panic!("the sample is a correct head")
        };
        let upgrade = Upgrade::check(&head).expect("and a correct request");
        group.bench_function(name, |b| {
            b.iter(|| {
                let found = sources.find(black_box(&upgrade), true);
                assert!(found.is_ok_and(|(_, bearer): (_, Bearer<'_>)| bearer.expose() == good));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bearers, refusals, algorithms, rules);
criterion_main!(benches);
