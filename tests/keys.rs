//! Keys from files and from a scripted issuer over TLS: which are used, and what cannot change them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::disallowed_types
)]

mod support;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::PrivateKeyDer;
use support::{Client, PATIENCE, Running, demo_routes, settings, wait_until};
use tidegate::admission::TokenDemand;
use tidegate::admission::jwt::{
    Algorithm, JwksOptions, KeyError, TokenError, TokenPolicy, Verifiers,
};
use tidegate::keys::{
    FetchError, FetchStatus, IssuerKeys, JwksUrl, KeyProblem, KeyRing, KeySource, Secret,
};

/// The wall clock of these tests.
const NOW: u64 = 1_800_000_000;
const SECRET: &[u8] = b"0123456789abcdef0123456789ABCDEF";

/// A file of this test run.
fn file(name: &str, text: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("keys-{name}"));
    std::fs::write(&path, text).unwrap();
    path
}

/// Somebody who signs with Ed25519 under a name.
struct Signer {
    id: &'static str,
    pair: Ed25519KeyPair,
}

impl Signer {
    fn new(id: &'static str) -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        Self { id, pair }
    }

    fn jwk(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.pair.public_key());
        let id = self.id;
        format!(r#"{{"kty":"OKP","crv":"Ed25519","use":"sig","kid":"{id}","x":"{x}"}}"#)
    }

    fn pem(&self) -> String {
        // `SubjectPublicKeyInfo` of an Ed25519 key (RFC 8410 §4).
        let mut der = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00".to_vec();
        der.extend(self.pair.public_key().as_ref());
        pem::encode(&pem::Pem::new("PUBLIC KEY", der))
    }

    fn token(&self) -> String {
        self.token_for("")
    }

    /// A token with further members in its claims.
    fn token_for(&self, members: &str) -> String {
        let header = format!(r#"{{"alg":"EdDSA","kid":"{}"}}"#, self.id);
        let message = message(&header, members);
        let signature = URL_SAFE_NO_PAD.encode(self.pair.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }
}

fn message(header: &str, members: &str) -> String {
    // So far away that the system's clock does not get there either.
    let claims = format!(r#"{{"sub":"ada","exp":{}{members}}}"#, 2 * NOW);
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}", encode(header), encode(&claims))
}

fn hmac_token(secret: &[u8]) -> String {
    let message = message(r#"{"alg":"HS256"}"#, "");
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes()));
    format!("{message}.{signature}")
}

fn key_set(signers: &[&Signer]) -> String {
    let keys: Vec<String> = signers.iter().map(|signer| signer.jwk()).collect();
    format!(r#"{{"keys":[{}]}}"#, keys.join(","))
}

/// What a scripted server says to whoever comes.
#[derive(Clone)]
enum Answer {
    /// 200 with this body.
    Keys(String),
    /// These bytes, after the request was read.
    Raw(Vec<u8>),
    /// These bytes, then one more again and again, until the peer has enough.
    Drip(Vec<u8>, u8),
    /// A TLS handshake of which the record drips, where TLS is spoken.
    DripHandshake,
    /// Nothing, with the connection open.
    Silence,
}

/// A scripted issuer on a port of its own of 127.0.0.1, which speaks TLS.
struct Issuer {
    address: SocketAddr,
    /// Its certificate, which is its own authority.
    ca_file: PathBuf,
    answer: Arc<Mutex<Answer>>,
    /// Connections that came.
    connections: Arc<AtomicUsize>,
}

impl Issuer {
    fn start(name: &str, answer: Answer) -> Self {
        Self::with_certificate_for(name, &["localhost", "127.0.0.1"], answer)
    }

    fn with_certificate_for(name: &str, names: &[&str], answer: Answer) -> Self {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);
        let ca_file = file(&format!("{name}.ca.pem"), &made.cert.pem());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(Mutex::new(answer));
        let connections = Arc::new(AtomicUsize::new(0));
        let (script, count) = (Arc::clone(&answer), Arc::clone(&connections));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                let (answer, config) = (script.lock().unwrap().clone(), Arc::clone(&config));
                // A peer that goes away is a part of most scripts.
                std::thread::spawn(move || serve(stream.unwrap(), &config, &answer));
            }
        });
        Self {
            address,
            ca_file,
            answer,
            connections,
        }
    }

    fn answers(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// A source that trusts this issuer, asks as seldom as the tests of one fetch need, and is patient.
    fn source(&self) -> JwksUrl {
        JwksUrl {
            ca_file: Some(self.ca_file.clone()),
            allow_private_addresses: true,
            timeout: PATIENCE,
            ..JwksUrl::new(format!("https://{}/keys?key=canary", self.address))
        }
    }

    /// The same, asking all the time.
    fn eager_source(&self) -> JwksUrl {
        JwksUrl {
            refresh: Duration::from_millis(20),
            retry: Duration::from_millis(5),
            unknown_key_interval: Duration::from_millis(1),
            ..self.source()
        }
    }
}

fn serve(stream: TcpStream, config: &Arc<rustls::ServerConfig>, answer: &Answer) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    if let Answer::DripHandshake = answer {
        // The head of a record that would be long enough for an hour.
        return drip(stream, b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xfb", 0);
    }
    let session = rustls::ServerConnection::new(Arc::clone(config)).unwrap();
    let mut stream = rustls::StreamOwned::new(session, stream);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    match answer {
        Answer::Keys(body) => {
            let len = body.len();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {len}\r\n\r\n");
            stream.write_all(head.as_bytes())?;
            stream.write_all(body.as_bytes())?;
        }
        Answer::Raw(bytes) => stream.write_all(bytes)?,
        Answer::Drip(bytes, more) => return drip(stream, bytes, *more),
        Answer::Silence | Answer::DripHandshake => {
            stream.read_exact(&mut [0])?;
        }
    }
    stream.conn.send_close_notify();
    stream.flush()
}

fn drip(mut stream: impl Write, bytes: &[u8], more: u8) -> io::Result<()> {
    stream.write_all(bytes)?;
    loop {
        stream.write_all(&[more])?;
        stream.flush()?;
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn issuer(sources: Vec<KeySource>) -> IssuerKeys {
    IssuerKeys {
        policy: TokenPolicy::default(),
        sources,
    }
}

/// A ring for one issuer with one URL.
fn ring(source: JwksUrl) -> KeyRing {
    KeyRing::start(vec![issuer(vec![KeySource::JwksUrl(source)])]).unwrap()
}

fn verdict(verifiers: &Verifiers, signer: &Signer) -> Result<(), TokenError> {
    verifiers.verify(&signer.token(), NOW).map(|_| ())
}

fn fetches(ring: &KeyRing) -> FetchStatus {
    ring.status().remove(0).fetches.unwrap()
}

fn failed(ring: &KeyRing, label: &str) -> u64 {
    let failed = fetches(ring).failed;
    failed.iter().find(|(own, _)| *own == label).unwrap().1
}

const UNKNOWN: Result<(), TokenError> = Err(TokenError::UnknownKey { issuer: 0 });

fn pem_file(path: PathBuf, id: &str) -> KeySource {
    KeySource::PemFile {
        path,
        algorithm: None,
        id: Some(id.to_owned()),
    }
}

fn jwks_file(path: PathBuf) -> KeySource {
    KeySource::JwksFile {
        path,
        options: JwksOptions::default(),
    }
}

fn secret(secret: &[u8]) -> KeySource {
    KeySource::Secret {
        secret: Secret::new(secret.to_vec()),
        algorithm: Algorithm::Hs256,
        id: None,
    }
}

#[test]
fn keys_of_secrets_and_files_verify_current_and_previous_alike() {
    let (pem, previous, set) = (
        Signer::new("pem"),
        Signer::new("previous"),
        Signer::new("set"),
    );
    let named = |name: &str, sources| IssuerKeys {
        policy: TokenPolicy {
            issuer: Some(name.to_owned()),
            ..TokenPolicy::default()
        },
        sources,
    };
    let other = b"fedcba9876543210FEDCBA9876543210";
    let ring = KeyRing::start(vec![
        issuer(vec![secret(SECRET), secret(other)]),
        named(
            "files",
            vec![
                pem_file(file("good.pem", &pem.pem()), "pem"),
                pem_file(file("previous.pem", &previous.pem()), "previous"),
                jwks_file(file("good.json", &key_set(&[&set]))),
            ],
        ),
    ])
    .unwrap();
    let verifiers = ring.verifiers();
    for secret in [SECRET, other] {
        let identity = verifiers.verify(&hmac_token(secret), NOW).unwrap();
        assert_eq!((&**identity.user(), identity.issuer()), ("ada", 0));
    }
    for signer in [&pem, &previous, &set] {
        let token = signer.token_for(r#","iss":"files""#);
        let identity = verifiers.verify(&token, NOW).unwrap();
        assert_eq!(identity.issuer(), 1, "{}", signer.id);
    }
    // Nothing is fetched, so nobody cares.
    verifiers.unknown_key(0);
    verifiers.unknown_key(7);
    let status = ring.status();
    assert_eq!((status[0].keys, status[1].keys), (2, 3));
    assert!(status.iter().all(|one| one.fetches.is_none()));
}

#[test]
fn every_fault_of_every_issuer_is_reported_at_once() {
    let private = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let absent = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("keys-absent.pem");
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let large = " ".repeat(300_000);
    let url = |url: &str| KeySource::JwksUrl(JwksUrl::new(url));
    let with_ca = |path: PathBuf| {
        KeySource::JwksUrl(JwksUrl {
            ca_file: Some(path),
            ..JwksUrl::new("https://id.example/?key=canary")
        })
    };
    let issuers = vec![
        issuer(vec![
            secret(b"canary"),
            pem_file(absent, "a"),
            pem_file(file("private.pem", private), "b"),
            pem_file(file("empty.pem", " \n"), "c"),
            pem_file(folder, "d"),
            jwks_file(file("large.json", &large)),
            jwks_file(file("broken.json", "{")),
        ]),
        issuer(vec![]),
        issuer(vec![
            url("http://id.example/?key=canary"),
            url("https://user:canary@id.example/"),
        ]),
        issuer(vec![
            secret(SECRET),
            with_ca(file("none.pem", "no certificate")),
        ]),
    ];
    let error = KeyRing::start(issuers).unwrap_err();
    let text = error.to_string();
    assert_eq!(text.lines().count(), error.0.len());
    assert!(!text.contains("canary"), "{text}");
    let problem_at = |place: &str| {
        let mut faults = error.0.iter();
        let fault = faults.find(|fault| fault.place.contains(place));
        fault.map(|fault| fault.problem.clone())
    };
    let expected = [
        ("secret 1", KeyProblem::Key(KeyError::SecretTooShort)),
        (
            "keys-absent.pem",
            KeyProblem::Unreadable(io::ErrorKind::NotFound),
        ),
        ("keys-private.pem", KeyProblem::Key(KeyError::PrivateKey)),
        ("keys-empty.pem", KeyProblem::Empty),
        ("keys-large.json", KeyProblem::TooLarge(256 * 1024)),
        ("keys-broken.json", KeyProblem::Key(KeyError::Jwks)),
        ("http://id.example/", KeyProblem::UrlNotHttps),
        ("https://id.example/", KeyProblem::UrlCredentials),
        ("keys-none.pem", KeyProblem::NoAuthority),
    ];
    for (place, problem) in expected {
        assert_eq!(problem_at(place), Some(problem), "{place} in\n{text}");
    }
    for problem in [
        KeyProblem::NotAFile,
        KeyProblem::NoSource,
        KeyProblem::SeveralUrls,
        KeyProblem::SecretWithUrl,
    ] {
        let is_there = error.0.iter().any(|fault| fault.problem == problem);
        assert!(is_there, "{problem:?} in\n{text}");
    }
    // That all four have no name.
    assert!(text.contains("two issuers have no name"), "{text}");
    assert_eq!(error.0.len(), 14, "{text}");
}

#[test]
fn a_reload_takes_all_files_or_none() {
    let (old, new, other) = (Signer::new("a"), Signer::new("a"), Signer::new("b"));
    let path = file("reload.pem", &old.pem());
    let set = file("reload.json", &key_set(&[&other]));
    let sources = vec![pem_file(path, "a"), jwks_file(set)];
    let ring = KeyRing::start(vec![issuer(sources)]).unwrap();
    let verifiers = ring.verifiers();
    assert_eq!(verdict(&verifiers, &old), Ok(()));

    // One good file and one broken one: neither counts.
    file("reload.pem", &new.pem());
    file("reload.json", "{}");
    let error = ring.reload().unwrap_err();
    assert_eq!(error.0.len(), 1, "{error}");
    assert_eq!(verdict(&verifiers, &old), Ok(()));
    assert_eq!(verdict(&verifiers, &other), Ok(()));
    // Two good files whose keys have one name.
    file("reload.json", &key_set(&[&other, &new]));
    let error = ring.reload().unwrap_err();
    assert_eq!(error.0[0].problem, KeyProblem::Key(KeyError::SameId));
    assert_eq!(verdict(&verifiers, &old), Ok(()));

    file("reload.json", &key_set(&[&other]));
    ring.reload().unwrap();
    assert_eq!(verdict(&verifiers, &old), Err(TokenError::Signature));
    assert_eq!(verdict(&verifiers, &new), Ok(()));
    assert_eq!(verdict(&verifiers, &other), Ok(()));
}

#[test]
fn a_reload_and_a_fetch_leave_each_others_keys_alone() {
    let (old, new, remote, shadowed) = (
        Signer::new("file"),
        Signer::new("file"),
        Signer::new("url"),
        Signer::new("file"),
    );
    // The issuer's web server names a key as the operator's own file does: the file wins.
    let server = Issuer::start("beside", Answer::Keys(key_set(&[&remote, &shadowed])));
    let path = file("beside.pem", &old.pem());
    let sources = vec![
        pem_file(path, "file"),
        KeySource::JwksUrl(server.eager_source()),
    ];
    let ring = KeyRing::start(vec![issuer(sources)]).unwrap();
    let verifiers = ring.verifiers();
    for signer in [&old, &remote] {
        assert_eq!(verdict(&verifiers, signer), Ok(()));
    }
    assert_eq!(verdict(&verifiers, &shadowed), Err(TokenError::Signature));
    file("beside.pem", &new.pem());
    ring.reload().unwrap();
    let before = fetches(&ring).succeeded;
    wait_until("a fetch after the reload", || {
        fetches(&ring).succeeded > before
    });
    assert_eq!(verdict(&verifiers, &old), Err(TokenError::Signature));
    for signer in [&new, &remote] {
        assert_eq!(verdict(&verifiers, signer), Ok(()));
    }
}

#[test]
fn a_reload_asks_urls_again() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let server = Issuer::start("again", Answer::Keys(key_set(&[&old])));
    let ring = ring(server.source());
    // A key that leaked is withdrawn, and nobody wants to wait for the schedule.
    server.answers(Answer::Keys(key_set(&[&new])));
    ring.reload().unwrap();
    wait_until("the new set", || verdict(&ring.verifiers(), &new) == Ok(()));
    assert_eq!(verdict(&ring.verifiers(), &old), UNKNOWN);
    assert_eq!(server.connections(), 2);
}

#[test]
fn a_set_is_fetched_before_the_start_returns() {
    let signer = Signer::new("1");
    let server = Issuer::start("start", Answer::Keys(key_set(&[&signer])));
    let ring = ring(server.source());
    assert_eq!(verdict(&ring.verifiers(), &signer), Ok(()));
    let status = ring.status().remove(0);
    assert_eq!(status.keys, 1);
    let fetches = status.fetches.unwrap();
    assert_eq!(fetches.succeeded, 1);
    assert!(fetches.failed.iter().all(|(_, count)| *count == 0));
    assert!(fetches.age.is_some_and(|age| age < PATIENCE));
    assert_eq!(fetches.last_error, None);
    assert_eq!(
        fetches.url,
        format!("https://{}/keys", server.address),
        "without its query"
    );
    // Chunks are a body too.
    let body = key_set(&[&signer]);
    let (a, b) = body.split_at(10);
    let chunked = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\na\r\n{a}\r\n{:x}\r\n{b}\r\n0\r\n\r\n",
        b.len()
    );
    server.answers(Answer::Raw(chunked.into_bytes()));
    assert_eq!(self::fetches(&self::ring(server.source())).succeeded, 1);
}

/// Starts a ring whose first fetch fails, and says how.
fn failure_of(source: JwksUrl) -> FetchError {
    let ring = ring(source);
    let status = fetches(&ring);
    assert_eq!(status.succeeded, 0);
    assert_eq!(ring.status()[0].keys, 0);
    let error = status.last_error.unwrap();
    assert_eq!(failed(&ring, error.label()), 1);
    error
}

#[test]
fn d5_addresses_off_the_public_internet_are_refused_by_any_name() {
    let server = Issuer::start("private", Answer::Silence);
    let port = server.address.port();
    for host in [
        "localhost",
        "LOCALHOST",
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0.0.0.0",
        "0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "169.254.169.254",
        "2852039166",
        "[::ffff:169.254.169.254]",
        "[fd00:ec2::254]",
        "10.0.0.1",
        "100.100.100.200",
        "192.168.0.1",
        "224.0.0.1",
    ] {
        for scheme in ["https", "http"] {
            let error = failure_of(JwksUrl {
                url: format!("{scheme}://{host}:{port}/latest/meta-data/"),
                allow_private_addresses: false,
                allow_http: true,
                ..server.source()
            });
            // A host without IPv6 may not resolve what is written in it.
            let is_refused = matches!(error, FetchError::Address(_));
            assert!(is_refused, "{scheme}://{host}: {error:?}");
        }
    }
    assert_eq!(server.connections(), 0);
}

#[test]
fn d5_a_redirection_is_not_followed() {
    let trap = Issuer::start("trap", Answer::Silence);
    let server = Issuer::start("redirect", Answer::Silence);
    for status in [300, 301, 302, 303, 304, 307, 308] {
        let location = format!("https://{}/keys", trap.address);
        let head = format!(
            "HTTP/1.1 {status} Elsewhere\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"
        );
        server.answers(Answer::Raw(head.into_bytes()));
        assert_eq!(
            failure_of(server.source()),
            FetchError::Redirect,
            "{status}"
        );
    }
    assert_eq!(trap.connections(), 0);
    assert_eq!(server.connections(), 7);
}

#[test]
fn d5_a_token_steers_no_fetch() {
    let signer = Signer::new("1");
    let trap = Issuer::start("steer-trap", Answer::Silence);
    let server = Issuer::start("steer", Answer::Keys(key_set(&[&signer])));
    let ring = ring(server.source());
    let url = format!("https://{}/keys", trap.address);
    let header = format!(r#"{{"alg":"EdDSA","kid":"{url}","jku":"{url}","x5u":"{url}"}}"#);
    let token = format!("{}.AAAA", message(&header, ""));
    let verifiers = ring.verifiers();
    let verdict = verifiers.verify(&token, NOW);
    assert_eq!(verdict, Err(TokenError::UnknownKey { issuer: 0 }));
    wait_until("the fetch it causes", || fetches(&ring).succeeded == 2);
    assert_eq!((server.connections(), trap.connections()), (2, 0));
}

#[test]
fn d5_an_issuer_is_believed_by_its_certificate_only() {
    let signer = Signer::new("1");
    let keys = Answer::Keys(key_set(&[&signer]));
    let server = Issuer::start("trusted", keys.clone());
    for host in ["localhost", "127.0.0.1"] {
        let source = JwksUrl {
            url: format!("https://{host}:{}/keys", server.address.port()),
            ..server.source()
        };
        assert_eq!(fetches(&ring(source)).succeeded, 1, "{host}");
    }
    let other = Issuer::with_certificate_for("misnamed", &["id.example"], keys);
    let misled = JwksUrl {
        ca_file: Some(other.ca_file.clone()),
        ..server.source()
    };
    let unknown = JwksUrl {
        ca_file: None,
        ..server.source()
    };
    for (what, source, expected) in [
        ("another name", other.source(), "not valid for name"),
        ("another's authority", misled, "invalid peer certificate"),
        ("no authority", unknown, "invalid peer certificate"),
    ] {
        // A host without any authorities says so at the start.
        let Ok(ring) = KeyRing::start(vec![issuer(vec![KeySource::JwksUrl(source)])]) else {
            assert_eq!(what, "no authority");
            continue;
        };
        match fetches(&ring).last_error {
            Some(FetchError::Tls(words)) => assert!(words.contains(expected), "{what}: {words}"),
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[test]
fn d5_proxies_of_the_environment_are_not_used() {
    const PROXIES: [&str; 6] = [
        "ALL_PROXY",
        "all_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "HTTP_PROXY",
        "http_proxy",
    ];
    const MARK: &str = "TIDEGATE_TEST_BEHIND_PROXY";
    if std::env::var_os(MARK).is_some() {
        let signer = Signer::new("1");
        let server = Issuer::start("proxied", Answer::Keys(key_set(&[&signer])));
        assert_eq!(fetches(&ring(server.source())).succeeded, 1);
        return;
    }
    // A process of its own, as the environment belongs to all tests of this one.
    let trap = Issuer::start("proxy", Answer::Silence);
    let proxy = format!("http://{}", trap.address);
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "d5_proxies_of_the_environment_are_not_used"])
        .env(MARK, "1")
        .envs(PROXIES.map(|name| (name, &proxy)))
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(trap.connections(), 0);
}

#[test]
fn d6_two_issuers_may_use_one_kid_and_never_each_others_key() {
    let (a, b) = (Signer::new("1"), Signer::new("1"));
    let servers = [
        Issuer::start("first", Answer::Keys(key_set(&[&a]))),
        Issuer::start("second", Answer::Keys(key_set(&[&b]))),
    ];
    let named = |name: &str, server: &Issuer| IssuerKeys {
        policy: TokenPolicy {
            issuer: Some(name.to_owned()),
            ..TokenPolicy::default()
        },
        sources: vec![KeySource::JwksUrl(server.source())],
    };
    let ring = KeyRing::start(vec![named("a", &servers[0]), named("b", &servers[1])]).unwrap();
    let verifiers = ring.verifiers();
    let verdict = |signer: &Signer, issuer: &str| {
        let token = signer.token_for(&format!(r#","iss":"{issuer}""#));
        verifiers
            .verify(&token, NOW)
            .map(|identity| identity.issuer())
    };
    assert_eq!(verdict(&a, "a"), Ok(0));
    assert_eq!(verdict(&b, "b"), Ok(1));
    assert_eq!(verdict(&a, "b"), Err(TokenError::Signature));
    assert_eq!(verdict(&b, "a"), Err(TokenError::Signature));
    // An unknown key is asked for at the issuer that the token names.
    let stranger = Signer::new("2").token_for(r#","iss":"b""#);
    let unknown = verifiers.verify(&stranger, NOW).map(|_| ());
    assert_eq!(unknown, Err(TokenError::UnknownKey { issuer: 1 }));
    wait_until("the second issuer's fetch", || {
        servers[1].connections() == 2
    });
    assert_eq!(servers[0].connections(), 1);
}

#[test]
fn d7_a_flood_of_random_kids_causes_two_fetches() {
    let signer = Signer::new("1");
    let server = Issuer::start("flood", Answer::Keys(key_set(&[&signer])));
    let ring = ring(server.source());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let verifiers = ring.verifiers();
            scope.spawn(move || {
                for number in 0..25_000 {
                    let header = format!(r#"{{"alg":"EdDSA","kid":"{thread}-{number}"}}"#);
                    let token = format!("{}.AAAA", message(&header, ""));
                    let verdict = verifiers.verify(&token, NOW).map(|_| ());
                    assert_eq!(verdict, UNKNOWN);
                }
            });
        }
    });
    // One at the start and one for the flood; the next may come a minute later.
    wait_until("the fetch that the flood causes", || {
        fetches(&ring).succeeded == 2
    });
    assert_eq!(server.connections(), 2);
    assert_eq!(verdict(&ring.verifiers(), &signer), Ok(()));
}

#[test]
fn x36_a_new_key_is_fetched_when_a_token_names_it_and_both_work_in_between() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let server = Issuer::start("rotate", Answer::Keys(key_set(&[&old])));
    // On schedule nothing comes for an hour: what is fetched is fetched for a token.
    let ring = ring(JwksUrl {
        refresh: Duration::from_secs(3600),
        unknown_key_interval: Duration::from_millis(20),
        ..server.source()
    });
    let verifiers = ring.verifiers();
    assert_eq!(verdict(&verifiers, &old), Ok(()));
    assert_eq!(verdict(&verifiers, &new), UNKNOWN);
    server.answers(Answer::Keys(key_set(&[&old, &new])));
    wait_until("the new key", || verdict(&verifiers, &new) == Ok(()));
    assert_eq!(verdict(&verifiers, &old), Ok(()), "both are published");
    server.answers(Answer::Keys(key_set(&[&new])));
    let stranger = Signer::new("stranger");
    wait_until("the end of the old key", || {
        assert_eq!(verdict(&verifiers, &new), Ok(()));
        assert_eq!(verdict(&verifiers, &stranger), UNKNOWN);
        verdict(&verifiers, &old) == UNKNOWN
    });
}

#[test]
fn x36_a_server_admits_by_a_new_key_once_a_client_has_named_it() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let issuer = Issuer::start("serve", Answer::Keys(key_set(&[&old])));
    let ring = ring(JwksUrl {
        unknown_key_interval: Duration::from_millis(20),
        ..issuer.source()
    });
    let mut routes = demo_routes();
    for (route, _) in &mut routes {
        route.token = TokenDemand::Required;
    }
    let mut settings = settings();
    settings.verifier = Some(Arc::new(ring.verifiers()));
    let server = Running::start(settings, routes);
    let status = |signer: &Signer| {
        let mut client = Client::connect(server.address);
        let path = format!("/echo?token={}", signer.token());
        client.send(support::request(&path).as_bytes());
        let head = client.read_head();
        head.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(status(&old), "101");
    assert_eq!(status(&new), "401");
    issuer.answers(Answer::Keys(key_set(&[&old, &new])));
    wait_until("the new key", || status(&new) == "101");
    assert_eq!(status(&old), "101");
}

#[test]
fn x36_a_bad_answer_changes_nothing_and_is_counted() {
    let signer = Signer::new("1");
    let server = Issuer::start("bad", Answer::Keys(key_set(&[&signer])));
    let ring = ring(server.eager_source());
    let verifiers = ring.verifiers();
    let ok = |body: &str| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        Answer::Raw((head + body).into_bytes())
    };
    let raw = |text: &str| Answer::Raw(text.as_bytes().to_vec());
    let huge = " ".repeat(256 * 1024) + &key_set(&[&signer]);
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{huge}");
    let many: Vec<&Signer> = std::iter::repeat_n(&signer, 65).collect();
    let secret =
        r#"{"keys":[{"kty":"oct","kid":"1","k":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlBQkNERUY"}]}"#;
    let not_utf8 = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n\xff\xfe{}".to_vec();
    let head_of_17_kib = format!("HTTP/1.1 200 OK\r\nx: {}\r\n", "y".repeat(17 * 1024));
    let rows = [
        ("empty", ok(r#"{"keys":[]}"#)),
        ("empty", ok(secret)),
        ("malformed", ok("")),
        ("malformed", ok("{}")),
        ("malformed", ok("<html>sign in</html>")),
        ("malformed", ok(&key_set(&many))),
        ("malformed", ok(&key_set(&[&signer, &signer]))),
        ("malformed", Answer::Raw(not_utf8)),
        ("too_large", ok(&huge)),
        ("too_large", raw(&endless)),
        (
            "status",
            raw("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"),
        ),
        (
            "status",
            raw("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"),
        ),
        ("status", raw("HTTP/1.1 204 No Content\r\n\r\n")),
        ("redirect", raw("HTTP/1.1 302 Found\r\nlocation: /\r\n\r\n")),
        ("protocol", raw("SSH-2.0-OpenSSH_9.9\r\n\r\n")),
        ("protocol", raw(&head_of_17_kib)),
        // Cut short.
        (
            "io",
            raw("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"keys\":["),
        ),
        ("io", raw("HTTP/1.1 200 OK\r\n")),
        ("io", raw("")),
    ];
    for (index, (label, answer)) in rows.into_iter().enumerate() {
        let before = failed(&ring, label);
        server.answers(answer);
        wait_until(
            &format!("row {index}, {label}: {:?}", fetches(&ring)),
            || failed(&ring, label) > before,
        );
        assert_eq!(fetches(&ring).last_error.unwrap().label(), label);
        assert_eq!(verdict(&verifiers, &signer), Ok(()), "row {index}");
        // A good answer in between, so that each row is judged by itself.
        server.answers(Answer::Keys(key_set(&[&signer])));
        wait_until("a good answer", || fetches(&ring).last_error.is_none());
    }
}

#[test]
fn x36_whatever_drips_ends_at_the_deadline() {
    let server = Issuer::start("drip", Answer::Silence);
    let endless_body = b"HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n{".to_vec();
    let endless_chunk = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1".to_vec();
    for (what, answer) in [
        ("silence", Answer::Silence),
        ("a handshake", Answer::DripHandshake),
        (
            "a head",
            Answer::Drip(b"HTTP/1.1 200 OK\r\nx: ".to_vec(), b'y'),
        ),
        ("a body", Answer::Drip(endless_body, b' ')),
        ("a chunk's size", Answer::Drip(endless_chunk, b'0')),
    ] {
        server.answers(answer);
        let begin = Instant::now();
        let error = failure_of(JwksUrl {
            timeout: Duration::from_millis(200),
            ..server.source()
        });
        assert!(begin.elapsed() < PATIENCE, "{what}");
        // A chunk's size may also be refused for its length, before the time is over.
        let is_expected = error == FetchError::Timeout
            || what == "a chunk's size" && error == FetchError::Protocol;
        assert!(is_expected, "{what}: {error:?}");
    }
}

#[test]
fn x36_the_last_good_set_is_kept_until_it_is_too_old() {
    let signer = Signer::new("1");
    let server = Issuer::start("old", Answer::Keys(key_set(&[&signer])));
    let ring = ring(JwksUrl {
        max_age: Duration::from_millis(300),
        unknown_key_interval: Duration::from_secs(3600),
        ..server.eager_source()
    });
    let verifiers = ring.verifiers();
    server.answers(Answer::Raw(b"HTTP/1.1 500 Oops\r\n\r\n".to_vec()));
    wait_until("two failures", || failed(&ring, "status") >= 2);
    // Read in this order, a set that is still there was there when its token was judged.
    let kept = verdict(&verifiers, &signer);
    let is_old = fetches(&ring).age.is_none();
    assert!(kept == Ok(()) || is_old, "{kept:?}");
    wait_until("the end of the old set", || ring.status()[0].keys == 0);
    assert_eq!(verdict(&verifiers, &signer), UNKNOWN);
    assert_eq!(fetches(&ring).age, None);
    server.answers(Answer::Keys(key_set(&[&signer])));
    wait_until("its return", || verdict(&verifiers, &signer) == Ok(()));
}

#[test]
fn x36_a_server_starts_without_its_issuer_and_hears_of_it_later() {
    let signer = Signer::new("1");
    let server = Issuer::start("late", Answer::Raw(Vec::new()));
    let ring = ring(server.eager_source());
    let verifiers = ring.verifiers();
    assert_eq!(verdict(&verifiers, &signer), UNKNOWN);
    assert!(matches!(fetches(&ring).last_error, Some(FetchError::Io(_))));
    server.answers(Answer::Keys(key_set(&[&signer])));
    wait_until("the first good answer", || {
        verdict(&verifiers, &signer) == Ok(())
    });
    // Once the ring is gone, nobody asks any more, and the last keys go on.
    drop(ring);
    assert_eq!(verdict(&verifiers, &signer), Ok(()));
    wait_until("the end of the thread", || {
        let before = server.connections();
        std::thread::park_timeout(Duration::from_millis(100));
        server.connections() == before
    });
}

/// What the log got.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn d9_the_log_names_the_url_without_its_query_and_no_key() {
    let signer = Signer::new("1");
    let server = Issuer::start("log", Answer::Keys(key_set(&[&signer])));
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    // For the whole process: what the other tests log meanwhile must not leak either.
    tracing::subscriber::set_global_default(subscriber).unwrap();
    ring(server.source());
    server.answers(Answer::Raw(b"HTTP/1.1 500 Oops\r\n\r\n".to_vec()));
    ring(server.source());
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for expected in ["keys fetched", "every token of the issuer is refused"] {
        assert!(text.contains(expected), "{text}");
    }
    assert!(text.contains("/keys"), "{text}");
    let x = URL_SAFE_NO_PAD.encode(signer.pair.public_key());
    assert!(!text.contains("canary") && !text.contains(&x), "{text}");
}
