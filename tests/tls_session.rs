//! Whole TLS sessions in memory: our server side against rustls' client, over a pipe that cuts the
//! bytes wherever it is told to, and against records no polite client would send.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, as tests do"
)]

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;
use rustls::client::{ClientSessionMemoryCache, ClientSessionStore, Resumption};
use rustls::client::{Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::crypto::cipher::{MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, ConnectionTrafficSecrets, ContentType,
    HandshakeKind, NamedGroup, ProtocolVersion, RootCertStore, SupportedCipherSuite,
    SupportedProtocolVersion,
};
use tidegate::buffer::Buffer;
use tidegate::tls::{
    Acceptor, CertificateFiles, CertificateProblem, HANDSHAKE_BYTES_MAX, RECORD_BYTES_MAX, Session,
    State, TlsError, TlsVersion,
};

// ── handshakes ─────────────────────────────────────────────────────────────────────────────────

#[test]
fn both_versions_carry_data_both_ways() {
    for (version, expected) in [(&TLS12, TlsVersion::Tls12), (&TLS13, TlsVersion::Tls13)] {
        let acceptor = acceptor();
        let mut pair = Pair::connect(&acceptor, &config(&acceptor, &[version]), "a.example");
        let info = pair.server.session.info().unwrap();
        assert_eq!(info.version, expected);
        assert!(!info.is_resumed);
        assert!(info.server_name_given);
        pair.says(b"to the server");
        assert_eq!(pair.server.plain, b"to the server");
        for len in [0, 1, 64, 1024, 16_383, 16_384, 16_385, 65_536, 100_000] {
            let sent = pattern(len);
            let mut wire = Buffer::default();
            pair.server.session.encrypt(&sent, &mut wire).unwrap();
            assert_eq!(
                count_records(&wire),
                len.div_ceil(16_384),
                "as few records as possible"
            );
            assert!(pair.client_reads(&wire) == sent, "{len} bytes");
        }
    }
}

#[test]
fn info_is_given_once_it_is_settled_and_tells_when_no_name_was_asked_for() {
    let acceptor = Acceptor::self_signed(&["127.0.0.1".into()]).unwrap();
    let client = config(&acceptor, &[&TLS13]);
    let mut pair = Pair::new(&acceptor, &client, "127.0.0.1");
    assert_eq!(pair.server.session.info(), None);
    pair.shake_hands().unwrap();
    let info = pair.server.session.info().unwrap();
    assert!(
        !info.server_name_given,
        "an address is not a server name (RFC 6066 §3)"
    );
    assert_eq!(info.cipher_suite, "TLS13_AES_256_GCM_SHA384");
}

#[test]
fn a_failed_handshake_leaves_its_server_name_to_nobody() {
    let acceptor = Acceptor::self_signed(&["a.example".into(), "127.0.0.1".into()]).unwrap();
    let refused = config_with(
        &acceptor,
        provider_with(vec![kx_group::MLKEM1024]),
        &[&TLS13],
    );
    assert!(
        Pair::new(&acceptor, &refused, "a.example")
            .shake_hands()
            .is_err()
    );
    // The next one's hello in two records: the first of them says nothing about a name.
    let mut pair = Pair::new(&acceptor, &config(&acceptor, &[&TLS13]), "127.0.0.1");
    let hello = pair.client_flight();
    for part in [&hello[5..100], &hello[100..]] {
        pair.carry_to_server(&record(22, part), &mut whole);
    }
    pair.shake_hands().unwrap();
    assert!(!pair.server.session.info().unwrap().server_name_given);
}

#[test]
fn only_aead_suites_are_spoken() {
    // Every suite that the client's side knows, one at a time: what is agreed is that one, with
    // forward secrecy and an AEAD.
    for suite in aws_lc_rs::ALL_CIPHER_SUITES {
        let name = suite.suite().as_str().unwrap();
        if name.contains("_RSA_") {
            continue; // needs an RSA certificate
        }
        let acceptor = acceptor();
        let provider = CryptoProvider {
            cipher_suites: vec![*suite],
            ..aws_lc_rs::default_provider()
        };
        let client = config_with(&acceptor, provider, &[&TLS12, &TLS13]);
        let pair = Pair::connect(&acceptor, &client, "a.example");
        let agreed = pair.server.session.info().unwrap().cipher_suite;
        assert_eq!(agreed, name);
        assert!(
            agreed.contains("GCM") || agreed.contains("POLY1305"),
            "{agreed}"
        );
        assert!(
            agreed.starts_with("TLS13_") || agreed.contains("ECDHE"),
            "{agreed}"
        );
    }
}

#[test]
fn post_quantum_is_preferred_and_x25519_needs_no_second_hello() {
    let acceptor = acceptor();
    for (groups, expected) in [
        (
            vec![kx_group::X25519MLKEM768, kx_group::X25519],
            NamedGroup::X25519MLKEM768,
        ),
        (vec![kx_group::X25519], NamedGroup::X25519),
        (vec![kx_group::SECP256R1], NamedGroup::secp256r1),
    ] {
        let client = config_with(&acceptor, provider_with(groups), &[&TLS13]);
        let pair = Pair::connect(&acceptor, &client, "a.example");
        let info = pair.server.session.info().unwrap();
        assert_eq!(info.key_exchange_group, expected.as_str());
        assert_eq!(pair.client.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[test]
fn http_1_1_is_the_only_application_protocol() {
    let acceptor = acceptor();
    for (offered, agreed) in [(vec![], None), (vec!["h2", "http/1.1"], Some("http/1.1"))] {
        let mut client = config(&acceptor, &[&TLS13]);
        client.alpn_protocols = offered.iter().map(|p| p.as_bytes().to_vec()).collect();
        let pair = Pair::connect(&acceptor, &client, "a.example");
        assert_eq!(pair.client.alpn_protocol(), agreed.map(str::as_bytes));
    }
}

// ── tickets ────────────────────────────────────────────────────────────────────────────────────

#[test]
fn tickets_resume_both_versions_on_any_clone() {
    for version in [&TLS12, &TLS13] {
        let acceptor = acceptor();
        let client = config(&acceptor, &[version]);
        let first = Pair::connect(&acceptor, &client, "a.example");
        assert!(!first.server.session.info().unwrap().is_resumed);
        let again = Pair::connect(&acceptor.clone(), &client, "a.example");
        let info = again.server.session.info().unwrap();
        assert!(info.is_resumed);
        assert!(info.server_name_given);
        assert_eq!(
            info.key_exchange_group.is_some(),
            version.version == ProtocolVersion::TLSv1_3
        );
    }
}

#[test]
fn one_ticket_is_sent_and_it_survives_a_reload() {
    let files = Files::new("ticket");
    let (one, two) = (
        files.pair("one", &["a.example"]),
        files.pair("two", &["a.example"]),
    );
    let acceptor = Acceptor::from_files(&[one]).unwrap();
    let client = config(&acceptor, &[&TLS13]);
    let pair = Pair::connect(&acceptor, &client, "a.example");
    assert_eq!(pair.client.tls13_tickets_received(), 1);
    acceptor.reload(&[two]).unwrap();
    let again = Pair::connect(&acceptor, &client, "a.example");
    assert!(again.server.session.info().unwrap().is_resumed);
}

#[test]
fn e5_tickets_are_worth_nothing_elsewhere_nor_under_another_name() {
    let files = Files::new("e5");
    let both = files.pair("both", &["a.example", "b.example"]);
    let acceptor = Acceptor::from_files(std::slice::from_ref(&both)).unwrap();
    let other = Acceptor::from_files(&[both]).unwrap();
    for version in [&TLS12, &TLS13] {
        let mut client = config(&acceptor, &[version]);
        // A client that shows the ticket of a.example to everyone.
        client.resumption = Resumption::store(Arc::new(OneTicketForAll::default()));
        for (acceptor, name, is_resumed) in [
            (&acceptor, "a.example", false),
            (&acceptor, "a.example", true),
            (&acceptor, "b.example", false),
            (&other, "b.example", false),
        ] {
            let pair = Pair::connect(acceptor, &client, name);
            let info = pair.server.session.info().unwrap();
            assert_eq!(info.is_resumed, is_resumed, "{name} {:?}", info.version);
        }
    }
}

#[test]
fn early_data_is_never_accepted() {
    let acceptor = acceptor();
    let mut client = config(&acceptor, &[&TLS13]);
    client.enable_early_data = true;
    Pair::connect(&acceptor, &client, "a.example");
    let mut pair = Pair::new(&acceptor, &client, "a.example");
    assert!(
        pair.client.early_data().is_none(),
        "the ticket does not allow any"
    );
    pair.shake_hands().unwrap();
    assert!(pair.server.session.info().unwrap().is_resumed);
    assert!(!pair.client.is_early_data_accepted());
}

// ── certificates ───────────────────────────────────────────────────────────────────────────────

#[test]
fn the_certificate_is_chosen_by_name() {
    let files = Files::new("sni");
    let pairs = [
        files.pair("first", &["first.example"]),
        files.pair("wild", &["*.wild.example", "Upper.Example"]),
        files.pair("exact", &["exact.wild.example"]),
    ];
    let acceptor = Acceptor::from_files(&pairs).unwrap();
    for (name, expected) in [
        ("first.example", 0),
        ("FIRST.example", 0),
        ("a.wild.example", 1),
        ("upper.example", 1),
        ("exact.wild.example", 2),
        // A wildcard is one label: RFC 9525 §6.3.
        ("a.b.wild.example", 0),
        ("wild.example", 0),
        ("unknown.example", 0),
        ("localhost", 0),
        ("127.0.0.1", 0),
    ] {
        let shown = shown_certificate(&acceptor, name);
        let wanted = CertificateDer::from_pem_file(&pairs[expected].certificate_chain).unwrap();
        assert!(shown == wanted, "{name}");
    }
}

#[test]
fn a_self_signed_certificate_can_be_trusted_and_recognised() {
    let names = [
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    let acceptor = Acceptor::self_signed(&names).unwrap();
    for name in &names {
        Pair::connect(&acceptor, &config(&acceptor, &[&TLS13]), name);
    }
    let fingerprint = acceptor.certificate_fingerprint();
    assert_eq!(fingerprint.len(), 32 * 3 - 1);
    assert!(
        fingerprint
            .split(':')
            .all(|byte| u8::from_str_radix(byte, 16).is_ok())
    );
    assert_ne!(
        fingerprint,
        Acceptor::self_signed(&names)
            .unwrap()
            .certificate_fingerprint()
    );
    assert!(acceptor.not_after().unwrap() > 4_000_000_000);
    for names in [&[][..], &["not a name".to_owned()], &[String::new()]] {
        assert!(Acceptor::self_signed(names).is_err(), "{names:?}");
    }
}

#[test]
fn the_first_certificate_to_end_is_known() {
    let files = Files::new("end");
    let until = |name: &str, year| {
        let mut params = rcgen::CertificateParams::new(vec![format!("{name}.example")]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        files.signed(name, params)
    };
    let acceptor = Acceptor::from_files(&[until("a", 2040), until("b", 2035)]).unwrap();
    assert_eq!(acceptor.not_after(), Some(2_051_222_400));
}

#[test]
fn x19_broken_files_are_refused_and_the_old_certificate_is_kept() {
    let files = Files::new("x19");
    let good = files.pair("good", &["a.example"]);
    let other = files.pair("other", &["b.example"]);
    let acceptor = Acceptor::from_files(std::slice::from_ref(&good)).unwrap();
    let before = acceptor.certificate_fingerprint();
    let chain = std::fs::read(&good.certificate_chain).unwrap();
    let key = std::fs::read(&good.private_key).unwrap();
    let other_key = std::fs::read(&other.private_key).unwrap();
    let key_text = String::from_utf8(key.clone()).unwrap();

    let half = |bytes: &[u8]| bytes[..bytes.len() / 2].to_vec();
    let join = |parts: &[&[u8]]| parts.concat();
    let text = |bytes: &[u8], from: &str, to: &str| {
        String::from_utf8(bytes.to_vec())
            .unwrap()
            .replace(from, to)
            .into_bytes()
    };
    let der = CertificateDer::from_pem_slice(&chain).unwrap().to_vec();
    let pem_of = |der: &[u8]| pem::encode(&pem::Pem::new("CERTIFICATE", der)).into_bytes();
    let mut bad_tag = der.clone();
    bad_tag[0] = 0x31;
    let mut longer = der.clone();
    longer.push(0);
    let mut bad_key_der = pem::parse(&key).unwrap().contents().to_vec();
    bad_key_der[20] ^= 0xff;
    let bad_key = pem::encode(&pem::Pem::new("PRIVATE KEY", bad_key_der)).into_bytes();
    let too_many = chain.repeat(11);
    let huge = vec![b'#'; 256 * 1024 + 1];

    let cases: Vec<(&str, Vec<u8>, Vec<u8>, &str)> = vec![
        ("empty chain", vec![], key.clone(), "chain.pem: is empty"),
        (
            "blank chain",
            b" \n\n".to_vec(),
            key.clone(),
            "chain.pem: is empty",
        ),
        ("empty key", chain.clone(), vec![], "key.pem: is empty"),
        (
            "half a chain",
            half(&chain),
            key.clone(),
            "chain.pem: is not valid PEM",
        ),
        (
            "half a key",
            chain.clone(),
            half(&key),
            "key.pem: is not valid PEM",
        ),
        (
            "no end line",
            text(&chain, "-----END CERTIFICATE-----", ""),
            key.clone(),
            "not valid PEM",
        ),
        (
            "no begin line",
            text(&chain, "-----BEGIN CERTIFICATE-----", ""),
            key.clone(),
            "CERTIFICATE",
        ),
        (
            "not base64",
            text(&chain, "MII", "M!I"),
            key.clone(),
            "not valid PEM",
        ),
        (
            "key not base64",
            chain.clone(),
            text(&key, "MIG", "M!G"),
            "key.pem: is not valid PEM",
        ),
        (
            "DER in place of PEM",
            der.clone(),
            key.clone(),
            "chain.pem: has no CERTIFICATE",
        ),
        (
            "zeros",
            vec![0; 4096],
            key.clone(),
            "chain.pem: has no CERTIFICATE",
        ),
        (
            "text",
            b"<html>404</html>".to_vec(),
            key.clone(),
            "chain.pem: has no CERTIFICATE",
        ),
        (
            "swapped",
            key.clone(),
            chain.clone(),
            "chain.pem: has no CERTIFICATE",
        ),
        (
            "key is a chain",
            chain.clone(),
            chain.clone(),
            "key.pem: has no private key",
        ),
        (
            "another's key",
            chain.clone(),
            other_key.clone(),
            "key.pem: the private key does not belong",
        ),
        (
            "two keys",
            chain.clone(),
            join(&[&key, &other_key]),
            "more than one private key",
        ),
        (
            "damaged key",
            chain.clone(),
            bad_key,
            "key.pem: the private key is damaged",
        ),
        (
            "encrypted key",
            chain.clone(),
            text(&key, "PRIVATE", "ENCRYPTED PRIVATE"),
            "is encrypted",
        ),
        (
            "empty certificate",
            pem_of(&[]),
            key.clone(),
            "certificate 1 of the chain",
        ),
        (
            "wrong tag",
            pem_of(&bad_tag),
            key.clone(),
            "certificate 1 of the chain",
        ),
        (
            "cut certificate",
            pem_of(&half(&der)),
            key.clone(),
            "certificate 1 of the chain",
        ),
        (
            "trailing byte",
            pem_of(&longer),
            key.clone(),
            "certificate 1 of the chain",
        ),
        (
            "broken second",
            join(&[&chain, &pem_of(&half(&der))]),
            key.clone(),
            "certificate 2 of the",
        ),
        (
            "half a second",
            join(&[&chain, &half(&chain)]),
            key.clone(),
            "not valid PEM",
        ),
        (
            "eleven certificates",
            too_many,
            key.clone(),
            "the chain is too long",
        ),
        (
            "huge chain",
            huge.clone(),
            key.clone(),
            "chain.pem: is larger than 262144",
        ),
        (
            "huge key",
            chain.clone(),
            huge,
            "key.pem: is larger than 262144",
        ),
    ];
    assert!(cases.len() >= 20);
    for (what, chain, key, expected) in cases {
        let broken = files.write("broken", &chain, &key);
        let error = acceptor
            .reload(std::slice::from_ref(&broken))
            .expect_err(what)
            .to_string();
        assert!(error.contains(expected), "{what}: {error}");
        assert!(
            !error.contains('\n') && error.len() < 250,
            "{what}: {error}"
        );
        for line in key_text
            .lines()
            .filter(|line| line.len() > 20 && !line.starts_with('-'))
        {
            assert!(
                !error.contains(&line[..20]),
                "{what}: the key is in the message"
            );
        }
        // A broken second pair spoils the set as well.
        assert!(
            acceptor.reload(&[good.clone(), broken.clone()]).is_err(),
            "{what}"
        );
        assert!(Acceptor::from_files(&[broken]).is_err(), "{what}");
        assert_eq!(acceptor.certificate_fingerprint(), before, "{what}");
    }

    let missing = CertificateFiles {
        private_key: files.path("no/such/file"),
        ..good.clone()
    };
    let folder = CertificateFiles {
        certificate_chain: files.path(""),
        ..good.clone()
    };
    let device = CertificateFiles {
        private_key: "/dev/zero".into(),
        ..good.clone()
    };
    for (files, expected) in [
        (vec![], "no certificate is given"),
        (
            vec![missing],
            "no/such/file: cannot be read: entity not found",
        ),
        (vec![folder], "is not a regular file"),
        (vec![device], "/dev/zero: is not a regular file"),
        (
            vec![good.clone(), good.clone()],
            "no client would be shown it",
        ),
    ] {
        let error = acceptor.reload(&files).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    Pair::connect(&acceptor, &config(&acceptor, &[&TLS13]), "a.example");

    acceptor.reload(&[other]).unwrap();
    assert_ne!(acceptor.certificate_fingerprint(), before);
}

#[test]
fn pairs_in_memory_are_named_by_their_place() {
    let (chain, key) = made(&["a.example"]);
    let (_, stranger) = made(&["b.example"]);
    assert!(Acceptor::from_pem(&[(chain.as_bytes(), key.as_bytes())]).is_ok());
    let error = Acceptor::from_pem(&[(chain.as_bytes(), stranger.as_bytes())]).unwrap_err();
    assert_eq!(error.place, "key 1");
    assert!(matches!(error.problem, CertificateProblem::KeyMismatch));
}

#[test]
fn x21_a_handshake_in_flight_keeps_its_certificate() {
    let files = Files::new("x21");
    let (one, two) = (
        files.pair("one", &["a.example"]),
        files.pair("two", &["a.example"]),
    );
    let acceptor = Acceptor::from_files(std::slice::from_ref(&one)).unwrap();
    let old = config(&acceptor, &[&TLS13]);
    let mut pair = Pair::new(&acceptor, &old, "a.example");
    let mut unheard = Pair::new(&acceptor, &old, "a.example");
    pair.client_turn(&mut whole); // the hello is answered with the old certificate
    acceptor.reload(std::slice::from_ref(&two)).unwrap();
    pair.shake_hands().unwrap();
    // This one only had its session when the reload came.
    assert!(
        unheard.shake_hands().is_err(),
        "the new certificate is not trusted by this client"
    );
    assert_eq!(
        unheard.server.state,
        State::Failed(TlsError::CertificateRefused)
    );

    // And all at once: every handshake is wholly one or the other.
    let mut roots = RootCertStore::empty();
    for files in [&one, &two] {
        roots
            .add(CertificateDer::from_pem_file(&files.certificate_chain).unwrap())
            .unwrap();
    }
    let client = client_config(aws_lc_rs::default_provider(), roots, &[&TLS13]);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for n in 0..300 {
                acceptor
                    .reload(std::slice::from_ref([&one, &two][n % 2]))
                    .unwrap();
            }
        });
        for _ in 0..60 {
            Pair::connect(&acceptor, &client, "a.example");
        }
    });
}

// ── E2: pieces and alerts ──────────────────────────────────────────────────────────────────────

#[test]
fn e2_a_hello_cut_anywhere_is_answered_alike() {
    let acceptor = acceptor();
    let hello = hello(&acceptor);
    let answer_len = Server::new(&acceptor).feed(&hello).len();
    for cut in 1..hello.len() {
        let mut server = Server::new(&acceptor);
        assert!(server.feed(&hello[..cut]).is_empty());
        assert_eq!(server.state, State::Handshaking);
        assert_eq!(server.session.bytes_held(), cut, "grows by what arrived");
        assert_answers(&server.feed(&hello[cut..]), answer_len, cut);
        assert_eq!(server.session.bytes_held(), 0);
    }
    let mut server = Server::new(&acceptor);
    let answer: Vec<u8> = hello
        .iter()
        .flat_map(|byte| server.feed(&[*byte]))
        .collect();
    assert_answers(&answer, answer_len, 0);
}

#[test]
fn e2_a_hello_in_several_records_is_answered_alike() {
    let acceptor = acceptor();
    let hello = hello(&acceptor);
    let answer_len = Server::new(&acceptor).feed(&hello).len();
    let message = &hello[5..];
    for cut in 1..message.len() {
        let first = record(22, &message[..cut]);
        let second = record(22, &message[cut..]);
        // Both at once, one after the other, and each in two pieces.
        for pieces in [
            vec![[&first[..], &second].concat()],
            vec![first.clone(), second.clone()],
            vec![
                first[..3].to_vec(),
                [&first[3..], &second[..4]].concat(),
                second[4..].to_vec(),
            ],
        ] {
            let mut server = Server::new(&acceptor);
            let answer: Vec<u8> = pieces.iter().flat_map(|piece| server.feed(piece)).collect();
            assert_answers(&answer, answer_len, cut);
        }
    }
    // A byte a record, a byte a read.
    let mut server = Server::new(&acceptor);
    let mut answer = Vec::new();
    for byte in message.iter().flat_map(|byte| record(22, &[*byte])) {
        answer.extend(server.feed(&[byte]));
    }
    assert_answers(&answer, answer_len, 0);
}

#[test]
fn e2_an_alert_ends_the_handshake_at_every_step() {
    // Plaintext alerts in front of the client's keys; RUSTSEC-2024-0336 and -0399 were loops here.
    for version in [&TLS12, &TLS13] {
        for level in [1, 2] {
            for number in [0, 10, 42, 48, 70, 90, 255] {
                for step in 0..4 {
                    let acceptor = acceptor();
                    let client = config(&acceptor, &[version]);
                    let mut pair = Pair::new(&acceptor, &client, "a.example");
                    let hello = pair.client_flight();
                    match step {
                        0 => {}
                        1 => drop(pair.server.feed(&hello[..hello.len() / 2])),
                        2 => drop(pair.server.feed(&record(22, &hello[5..100]))),
                        _ => drop(pair.server.feed(&hello)),
                    }
                    let mut out = Vec::new();
                    for _ in 0..10 {
                        out.extend(pair.server.feed(&record(21, &[level, number])));
                    }
                    let State::Failed(error) = pair.server.state else {
                        // Step 1: the alert is swallowed as part of the hello it interrupts.
                        assert_eq!(step, 1);
                        continue;
                    };
                    let context = format!("{version:?} {level} {number} {step}: {error:?}");
                    assert!(count_records(&out) <= 1, "{context}");
                    if level == 2 && matches!(step, 0 | 3) {
                        let expected = match number {
                            42 | 48 => TlsError::CertificateRefused,
                            number => TlsError::PeerAlert(number),
                        };
                        assert_eq!(error, expected, "{context}");
                        assert!(out.is_empty(), "an alert is not answered: {context}");
                    }
                }
            }
        }
    }
}

// ── our alerts reach the peer ──────────────────────────────────────────────────────────────────

#[test]
fn the_client_learns_why_it_is_refused() {
    let acceptor = acceptor();
    let odd_group = config_with(
        &acceptor,
        provider_with(vec![kx_group::MLKEM1024]),
        &[&TLS13],
    );
    let mut h2 = config(&acceptor, &[&TLS13]);
    h2.alpn_protocols = vec![b"h2".to_vec()];
    let mut h2_12 = config(&acceptor, &[&TLS12]);
    h2_12.alpn_protocols = vec![b"h2".to_vec()];
    for (client, alert) in [
        (odd_group, AlertDescription::HandshakeFailure),
        (h2, AlertDescription::NoApplicationProtocol),
        (h2_12, AlertDescription::NoApplicationProtocol),
    ] {
        let mut pair = Pair::new(&acceptor, &client, "a.example");
        let error = pair.shake_hands().unwrap_err();
        assert_eq!(error, rustls::Error::AlertReceived(alert));
        assert_eq!(
            pair.server.state,
            State::Failed(TlsError::NoCommonParameters)
        );
    }
}

#[test]
fn e4_old_versions_are_refused() {
    let acceptor = acceptor();
    for minor in 0..3 {
        for (has_algorithms, alert) in [(true, 70), (false, 40)] {
            let mut server = Server::new(&acceptor);
            let out = server.feed(&old_hello(minor, has_algorithms));
            assert_eq!(out, record(21, &[2, alert]), "3.{minor}");
            assert_eq!(server.state, State::Failed(TlsError::NoCommonVersion));
        }
    }
}

#[test]
fn tls_1_2_without_extended_master_secret_is_refused() {
    let acceptor = acceptor();
    let mut pair = Pair::new(&acceptor, &config(&acceptor, &[&TLS12]), "a.example");
    let mut hello = pair.client_flight();
    // Extension 23, empty (RFC 7627 §5.1), becomes one that nobody knows.
    let at = memchr::memmem::find(&hello, &[0, 23, 0, 0]).unwrap();
    hello[at] = 0x77;
    let out = pair.server.feed(&hello);
    assert_eq!(out, record(21, &[2, 40]));
    assert_eq!(
        pair.server.state,
        State::Failed(TlsError::NoCommonParameters)
    );
}

#[test]
fn a_damaged_record_is_answered_at_every_step() {
    for version in [&TLS12, &TLS13] {
        // The client's Finished.
        let acceptor = acceptor();
        let mut pair = Pair::new(&acceptor, &config(&acceptor, &[version]), "a.example");
        pair.client_turn(&mut whole);
        let mut flight = pair.client_flight();
        *flight.last_mut().unwrap() ^= 1;
        let out = pair.server.feed(&flight);
        assert_eq!(pair.server.state, State::Failed(TlsError::BadRecord));
        let error = pair.carry_to_client(&out).unwrap_err();
        assert_eq!(
            error,
            rustls::Error::AlertReceived(AlertDescription::BadRecordMac)
        );

        // Its data.
        let mut pair = Pair::open(version);
        let mut data = pair.client_sends(b"data");
        *data.last_mut().unwrap() ^= 1;
        let more = pair.client_sends(b"more");
        let out = pair.server.feed(&data);
        assert_eq!(pair.server.state, State::Failed(TlsError::BadRecord));
        assert!(pair.server.plain.is_empty());
        let error = pair.carry_to_client(&out).unwrap_err();
        assert_eq!(
            error,
            rustls::Error::AlertReceived(AlertDescription::BadRecordMac)
        );
        // It stays failed, and says nothing twice.
        assert!(pair.server.feed(&more).is_empty());
        assert_eq!(
            pair.server.session.encrypt(b"x", &mut Buffer::default()),
            Err(TlsError::BadRecord)
        );
        pair.server.session.close_notify(&mut Buffer::default());
        assert_eq!(pair.server.state, State::Failed(TlsError::BadRecord));
    }
}

#[test]
fn bytes_that_are_no_record_are_refused_at_their_header() {
    let acceptor = acceptor();
    // Five bytes are enough to see it: nobody waits for the 65,535 that are announced.
    for header in [
        [22, 3, 1, 255, 255],
        [22, 3, 1, 0, 0],
        [22, 2, 0, 0, 10],
        [200, 3, 3, 0, 10],
        [0x80, 0x2e, 1, 0, 2],
        [0, 0, 0, 0, 0],
        [22, 3, 1, 0x48, 0x01],
    ] {
        let mut server = Server::new(&acceptor);
        let out = server.feed(&header);
        assert_eq!(
            server.state,
            State::Failed(TlsError::BadRecord),
            "{header:?}"
        );
        assert_eq!(out, record(21, &[2, 50]), "{header:?}");

        for version in [&TLS12, &TLS13] {
            let mut pair = Pair::open(version);
            let out = pair.server.feed(&header);
            assert_eq!(
                pair.server.state,
                State::Failed(TlsError::BadRecord),
                "{header:?}"
            );
            let error = pair.carry_to_client(&out).unwrap_err();
            assert_eq!(
                error,
                rustls::Error::AlertReceived(AlertDescription::DecodeError)
            );
        }
    }
}

#[test]
fn plain_bytes_on_a_tls_port_are_recognised_by_the_first() {
    let acceptor = acceptor();
    for text in [
        "GET / HTTP/1.1\r\n\r\n",
        "G",
        "\r\n",
        "PROXY TCP4",
        "ssh",
        "\r\n\r\n\0\r\nQUIT\n",
    ] {
        let mut server = Server::new(&acceptor);
        assert!(
            server.feed(text.as_bytes()).is_empty(),
            "the caller may answer in plain text"
        );
        assert_eq!(server.state, State::Failed(TlsError::PlainBytesOnTlsPort));
        assert_eq!(server.session.bytes_held(), 0);
    }
}

// ── E3: floods; limits ─────────────────────────────────────────────────────────────────────────

#[test]
fn e3_key_updates_end_even_with_data_in_between() {
    for data in [&b""[..], b"x", b"a ping every now and then"] {
        let mut pair = Pair::open(&TLS13);
        let mut updates = 0;
        while pair.server.state == State::Established && updates < 1000 {
            pair.client.refresh_traffic_keys().unwrap();
            pair.says(data);
            updates += 1;
        }
        assert_eq!(pair.server.state, State::Failed(TlsError::RecordFlood));
        assert!(
            (20..100).contains(&updates),
            "{updates} with {} bytes",
            data.len()
        );
    }
    // A client that renews its keys now and then, as it should, may do so for ever.
    let mut pair = Pair::open(&TLS13);
    for _ in 0..500 {
        pair.client.refresh_traffic_keys().unwrap();
        for _ in 0..16 {
            pair.says(b"a message");
        }
        let answer = pair.server.encrypt(b"an answer");
        assert_eq!(pair.client_reads(&answer), b"an answer", "our keys follow");
    }
    assert_eq!(pair.server.state, State::Established);
}

#[test]
fn e3_empty_records_end_even_with_data_in_between() {
    for version in [&TLS12, &TLS13] {
        for data in [&b""[..], b"x"] {
            let (mut server, mut sender) = Sender::open(version);
            let mut sent = 0;
            while server.state == State::Established && sent < 1000 {
                server.feed(&sender.record(ContentType::ApplicationData, b""));
                if !data.is_empty() {
                    server.feed(&sender.record(ContentType::ApplicationData, data));
                }
                sent += 1;
            }
            assert_eq!(server.state, State::Failed(TlsError::RecordFlood));
            assert!((20..100).contains(&sent), "{sent}");
        }
    }
}

#[test]
fn e3_all_at_once_is_stopped_at_the_same_place() {
    let (mut server, mut sender) = Sender::open(&TLS13);
    let mut flood = Vec::new();
    for _ in 0..500 {
        flood.extend(sender.record(ContentType::ApplicationData, b""));
        flood.extend(sender.record(ContentType::ApplicationData, b"x"));
    }
    server.feed(&flood);
    assert_eq!(server.state, State::Failed(TlsError::RecordFlood));
    assert!(server.plain.len() < 100, "{} bytes", server.plain.len());
}

#[test]
fn e3_small_honest_records_are_no_flood() {
    let (mut server, mut sender) = Sender::open(&TLS13);
    // A ping as header and mask apart, for weeks; then a head typed in by hand.
    for _ in 0..20_000 {
        server.feed(&sender.record(ContentType::ApplicationData, b"\x89\x80"));
        server.feed(&sender.record(ContentType::ApplicationData, b"mask"));
    }
    for _ in 0..8000 {
        server.feed(&sender.record(ContentType::ApplicationData, b"x"));
    }
    assert_eq!(server.state, State::Established);
    for _ in 0..1000 {
        server.feed(&sender.record(ContentType::ApplicationData, b"x"));
    }
    assert_eq!(
        server.state,
        State::Failed(TlsError::RecordFlood),
        "and no more"
    );
}

#[test]
fn e3_our_end_of_a_flood_is_announced() {
    let mut pair = Pair::open(&TLS13);
    let mut out = Vec::new();
    for _ in 0..100 {
        pair.client.refresh_traffic_keys().unwrap();
        let sent = pair.client_sends(b"x");
        out.extend(pair.server.feed(&sent));
    }
    let closed = pair.client.read_tls(&mut &out[..]).unwrap();
    assert!(closed > 0);
    assert!(pair.client.process_new_packets().unwrap().peer_has_closed());
}

#[test]
fn handshake_messages_without_end_are_cut_off() {
    let acceptor = acceptor();
    // A hello that claims 60,000 bytes, in small records, each a little more of it.
    let mut server = Server::new(&acceptor);
    let mut out = server.feed(&record(22, &[1, 0, 0xea, 0x60]));
    let mut sent = 0;
    while server.state == State::Handshaking && sent < 200_000 {
        out.extend(server.feed(&record(22, &[0; 7])));
        sent += 12;
        assert!(server.session.bytes_held() <= HANDSHAKE_BYTES_MAX);
    }
    assert_eq!(server.state, State::Failed(TlsError::HandshakeTooLarge));
    assert_eq!(out, record(21, &[2, 50]));
    assert_eq!(server.session.bytes_held(), 0);

    // One that claims more than anybody takes is refused at once.
    let mut server = Server::new(&acceptor);
    let out = server.feed(&record(22, &[1, 1, 0, 0]));
    assert_eq!(server.state, State::Failed(TlsError::HandshakeTooLarge));
    assert_eq!(out, record(21, &[2, 50]));
}

#[test]
fn keeping_more_than_any_record_fails_the_session() {
    let mut server = Server::new(&acceptor());
    server.session.keep(&[0; HANDSHAKE_BYTES_MAX]);
    server.session.keep(&[0]);
    assert_eq!(server.session.bytes_held(), 0);
    server.feed(b"\x16");
    assert_eq!(server.state, State::Failed(TlsError::HandshakeTooLarge));
}

#[test]
fn a_trickled_record_is_kept_byte_by_byte_and_no_further() {
    for version in [&TLS12, &TLS13] {
        let mut pair = Pair::open(version);
        let sent = pattern(16_384);
        let wire = pair.client_sends(&sent);
        assert!(wire.len() <= RECORD_BYTES_MAX);
        for (n, bytes) in wire.chunks(97).enumerate() {
            assert!(pair.server.session.bytes_held() == n * 97);
            pair.server.feed(bytes);
        }
        assert!(pair.server.plain == sent);
        assert_eq!(pair.server.session.bytes_held(), 0);
    }
}

// ── E4: after the handshake ────────────────────────────────────────────────────────────────────

#[test]
fn e4_renegotiation_is_refused_then_fatal() {
    let acceptor = acceptor();
    let hello = hello(&acceptor);
    let (mut server, mut sender) = Sender::open(&TLS12);
    let out = server.feed(&sender.record(ContentType::Handshake, &hello[5..]));
    assert_eq!(count_records(&out), 1, "no_renegotiation");
    assert_eq!(server.state, State::Established);
    server.feed(&sender.record(ContentType::Handshake, &hello[5..]));
    assert_eq!(server.state, State::Failed(TlsError::ProtocolViolation));

    let (mut server, mut sender) = Sender::open(&TLS13);
    let out = server.feed(&sender.record(ContentType::Handshake, &hello[5..]));
    assert_eq!(count_records(&out), 1, "unexpected_message");
    assert_eq!(server.state, State::Failed(TlsError::ProtocolViolation));
}

#[test]
fn a_torn_handshake_message_after_the_handshake_is_refused() {
    // It would have to be kept for the peer's sake, and rustls panics if it is asked to encrypt
    // while it waits for the rest.
    for version in [&TLS12, &TLS13] {
        for len in 1..5 {
            let (mut server, mut sender) = Sender::open(version);
            let out = server.feed(&sender.record(ContentType::Handshake, &[24, 0, 0, 1, 0][..len]));
            assert_eq!(server.state, State::Failed(TlsError::ProtocolViolation));
            assert_eq!(count_records(&out), 1, "close_notify");
            let error = server.session.encrypt(b"answer", &mut Buffer::default());
            assert_eq!(error, Err(TlsError::ProtocolViolation));
            server.session.close_notify(&mut Buffer::default());
        }
        // Behind the very message that ends the handshake.
        let acceptor = acceptor();
        let mut pair = Pair::new(&acceptor, &config(&acceptor, &[version]), "a.example");
        pair.client_turn(&mut whole);
        let mut flight = pair.client_flight();
        flight.extend(record(22, &[24, 0]));
        pair.server.feed(&flight);
        assert!(
            matches!(pair.server.state, State::Failed(_)),
            "{:?}",
            pair.server.state
        );
        assert!(
            pair.server
                .session
                .encrypt(b"answer", &mut Buffer::default())
                .is_err()
        );
    }
}

#[test]
fn records_of_other_kinds_after_the_handshake_end_the_session() {
    for version in [&TLS12, &TLS13] {
        for (kind, payload) in [
            (ContentType::ChangeCipherSpec, &b"\x01"[..]),
            (ContentType::Heartbeat, b"\x01\x00\x10"),
            (ContentType::Handshake, b"\x0b\x00\x00\x00"),
            (ContentType::Alert, b"\x02"),
            (ContentType::Alert, b"\x03\x00"),
            (ContentType::Alert, b"\x02\x0a"),
        ] {
            let (mut server, mut sender) = Sender::open(version);
            server.feed(&sender.record(kind, payload));
            assert!(
                matches!(server.state, State::Failed(_)),
                "{kind:?} {payload:?}"
            );
        }
    }
}

// ── the end ────────────────────────────────────────────────────────────────────────────────────

#[test]
fn close_notify_goes_both_ways() {
    for version in [&TLS12, &TLS13] {
        let mut pair = Pair::open(version);
        pair.client.writer().write_all(b"last words").unwrap();
        pair.client.send_close_notify();
        let mut wire = pair.client_flight();
        wire.extend_from_slice(b"whatever comes behind is ignored");
        pair.server.feed(&wire);
        assert_eq!(pair.server.plain, b"last words");
        assert_eq!(pair.server.state, State::PeerClosed);
        assert!(pair.server.session.is_established(), "we may still speak");
        let answer = pair.server.encrypt(b"goodbye");
        assert_eq!(pair.client_reads(&answer), b"goodbye");
        let mut out = Buffer::default();
        pair.server.session.close_notify(&mut out);
        pair.client.read_tls(&mut &out[..]).unwrap();
        assert!(pair.client.process_new_packets().unwrap().peer_has_closed());

        // Once is enough, and nothing follows it.
        let len = out.len();
        pair.server.session.close_notify(&mut out);
        assert_eq!(
            pair.server.session.encrypt(b"x", &mut out),
            Err(TlsError::NotOpen)
        );
        assert_eq!(out.len(), len);
    }
}

#[test]
fn what_comes_after_our_close_notify_is_discarded() {
    let mut pair = Pair::open(&TLS13);
    pair.server.session.close_notify(&mut Buffer::default());
    let sent = pair.client_sends(b"too late");
    for bytes in [&sent[..], b"\xff\xff\xff\xff\xff\xff", b"GET /"] {
        assert!(pair.server.feed(bytes).is_empty());
        assert!(pair.server.plain.is_empty());
        assert_eq!(pair.server.state, State::Established);
        assert_eq!(pair.server.session.bytes_held(), 0);
    }
}

#[test]
fn a_truncated_stream_is_told_from_a_closed_one() {
    let mut pair = Pair::open(&TLS13);
    let wire = pair.client_sends(b"only half of it arrives");
    pair.server.feed(&wire[..wire.len() - 1]);
    assert_eq!(
        pair.server.state,
        State::Established,
        "an end of stream here is a truncation"
    );
    assert!(pair.server.plain.is_empty());
    assert_eq!(pair.server.session.bytes_held(), wire.len() - 1);
    pair.server.feed(&wire[wire.len() - 1..]);
    assert_eq!(pair.server.plain, b"only half of it arrives");
}

#[test]
fn nothing_can_be_sent_during_the_handshake() {
    let acceptor = acceptor();
    let mut server = Server::new(&acceptor);
    let mut out = Buffer::default();
    assert_eq!(
        server.session.encrypt(b"x", &mut out),
        Err(TlsError::NotOpen)
    );
    server.session.close_notify(&mut out);
    server.feed(&hello(&acceptor));
    assert_eq!(
        server.session.encrypt(b"x", &mut out),
        Err(TlsError::NotOpen)
    );
    server.session.close_notify(&mut out);
    assert!(out.is_empty());
}

#[test]
fn data_right_behind_the_handshake_arrives() {
    // Kernels glue a client's last flight and its first request together.
    for version in [&TLS12, &TLS13] {
        let acceptor = acceptor();
        let mut pair = Pair::new(&acceptor, &config(&acceptor, &[version]), "a.example");
        pair.client.writer().write_all(b"GET / HTTP/1.1").unwrap();
        pair.shake_hands().unwrap();
        assert_eq!(pair.server.plain, b"GET / HTTP/1.1");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_split_gives_the_same_plaintext(
        is_13 in any::<bool>(),
        cuts in proptest::collection::vec(1..600usize, 1..40),
        lens in proptest::collection::vec(prop_oneof![0..40usize, 0..40_000usize], 1..6),
        updates in any::<u8>(),
    ) {
        let acceptor = acceptor();
        let version = if is_13 { &TLS13 } else { &TLS12 };
        let mut pair = Pair::new(&acceptor, &config(&acceptor, &[version]), "a.example");
        let mut cuts = cuts.iter().copied().cycle();
        let mut cut = |len: usize| cuts.next().unwrap().min(len);
        pair.shake_hands_in_pieces(&mut cut).unwrap();
        let mut sent = Vec::new();
        for (n, len) in lens.iter().enumerate() {
            let message = pattern(*len);
            sent.extend_from_slice(&message);
            if is_13 && updates & (1 << n) != 0 {
                pair.client.refresh_traffic_keys().unwrap();
            }
            pair.client.writer().write_all(&message).unwrap();
            let wire = pair.client_flight();
            pair.carry_to_server(&wire, &mut cut);
            let answer = pair.server.encrypt(&message);
            prop_assert!(pair.client_reads(&answer) == message);
        }
        prop_assert_eq!(pair.server.state, State::Established);
        prop_assert!(pair.server.plain == sent);
        prop_assert_eq!(pair.server.session.bytes_held(), 0);
    }

    #[test]
    fn no_bytes_can_panic_or_spin(
        step in 0..3usize,
        is_13 in any::<bool>(),
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        kind in 20..25u8,
        framed in any::<bool>(),
        cuts in proptest::collection::vec(1..200usize, 1..10),
    ) {
        let acceptor = acceptor();
        let version = if is_13 { &TLS13 } else { &TLS12 };
        let mut pair = Pair::new(&acceptor, &config(&acceptor, &[version]), "a.example");
        if step > 0 { pair.client_turn(&mut whole); }
        if step > 1 { pair.shake_hands().unwrap(); }
        let bytes = if framed { record(kind, &bytes) } else { bytes };
        let mut cuts = cuts.iter().copied().cycle();
        pair.carry_to_server(&bytes, &mut |len| cuts.next().unwrap().min(len));
        let _ = pair.server.session.encrypt(b"x", &mut Buffer::default());
        pair.server.session.close_notify(&mut Buffer::default());
    }
}

// ── support ────────────────────────────────────────────────────────────────────────────────────

/// A session and the few lines of I/O that a reactor wraps around it.
struct Server {
    session: Box<Session>,
    plain: Vec<u8>,
    state: State,
}

impl Server {
    fn new(acceptor: &Acceptor) -> Self {
        let session = Box::new(acceptor.session().unwrap());
        Self {
            session,
            plain: Vec::new(),
            state: State::Handshaking,
        }
    }

    /// One read from the network; returns what is to be sent.
    fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut input = self.session.take_kept();
        input.extend_from_slice(bytes);
        let mut out = Buffer::default();
        let received = self.session.receive(&mut input, &mut self.plain, &mut out);
        self.session.keep(&input[received.used..]);
        self.state = received.state;
        out.to_vec()
    }

    fn encrypt(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut out = Buffer::default();
        self.session.encrypt(plain, &mut out).unwrap();
        out.to_vec()
    }
}

struct Pair {
    client: ClientConnection,
    client_error: Option<rustls::Error>,
    server: Server,
}

impl Pair {
    fn new(acceptor: &Acceptor, client: &ClientConfig, name: &str) -> Self {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let client = ClientConnection::new(Arc::new(client.clone()), name).unwrap();
        Self {
            client,
            client_error: None,
            server: Server::new(acceptor),
        }
    }

    fn connect(acceptor: &Acceptor, client: &ClientConfig, name: &str) -> Self {
        let mut pair = Self::new(acceptor, client, name);
        pair.shake_hands().unwrap();
        assert_eq!(pair.server.state, State::Established);
        assert!(pair.server.session.is_established());
        assert_eq!(pair.server.session.bytes_held(), 0);
        pair
    }

    fn open(version: &'static SupportedProtocolVersion) -> Self {
        let acceptor = acceptor();
        Self::connect(&acceptor, &config(&acceptor, &[version]), "a.example")
    }

    fn shake_hands(&mut self) -> Result<(), rustls::Error> {
        self.shake_hands_in_pieces(&mut whole)
    }

    /// Until neither side has anything to say.
    fn shake_hands_in_pieces(
        &mut self,
        cut: &mut dyn FnMut(usize) -> usize,
    ) -> Result<(), rustls::Error> {
        for _ in 0..10 {
            self.client_turn(cut);
        }
        assert!(!self.client.wants_write());
        self.client_error.clone().map_or(Ok(()), Err)
    }

    /// What the client has to say, said, and the answer heard.
    fn client_turn(&mut self, cut: &mut dyn FnMut(usize) -> usize) {
        let wire = self.client_flight();
        self.carry_to_server(&wire, cut);
    }

    fn carry_to_server(&mut self, mut wire: &[u8], cut: &mut dyn FnMut(usize) -> usize) {
        while !wire.is_empty() {
            let (piece, rest) = wire.split_at(cut(wire.len()));
            wire = rest;
            let out = self.server.feed(piece);
            self.carry_to_client(&out).ok();
        }
    }

    fn carry_to_client(&mut self, mut wire: &[u8]) -> Result<(), rustls::Error> {
        while !wire.is_empty() {
            self.client.read_tls(&mut wire).unwrap();
            if let Err(error) = self.client.process_new_packets() {
                self.client_error.get_or_insert_with(|| error.clone());
                return Err(error);
            }
        }
        Ok(())
    }

    fn client_flight(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut wire).unwrap();
        }
        wire
    }

    fn client_sends(&mut self, plain: &[u8]) -> Vec<u8> {
        self.client.writer().write_all(plain).unwrap();
        self.client_flight()
    }

    fn says(&mut self, plain: &[u8]) {
        let wire = self.client_sends(plain);
        let out = self.server.feed(&wire);
        self.carry_to_client(&out).unwrap();
    }

    fn client_reads(&mut self, mut wire: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        while !wire.is_empty() {
            self.client.read_tls(&mut wire).unwrap();
            self.client.process_new_packets().unwrap();
            let mut buffer = [0; 20_000];
            while let Ok(len @ 1..) = self.client.reader().read(&mut buffer) {
                plain.extend_from_slice(&buffer[..len]);
            }
        }
        plain
    }
}

/// A client that has the keys and no manners.
struct Sender {
    encrypter: Box<dyn MessageEncrypter>,
    sequence: u64,
}

impl Sender {
    fn open(version: &'static SupportedProtocolVersion) -> (Server, Self) {
        let pair = Pair::open(version);
        let suite = pair.client.negotiated_cipher_suite().unwrap();
        let (sequence, secrets) = pair.client.dangerous_extract_secrets().unwrap().tx;
        let ConnectionTrafficSecrets::Aes256Gcm { key, iv } = secrets else {
            panic!("{suite:?}");
        };
        let mut encrypter = match suite {
            SupportedCipherSuite::Tls13(suite) => suite.aead_alg.encrypter(key, iv),
            SupportedCipherSuite::Tls12(suite) => {
                let (fixed, explicit) = iv.as_ref().split_at(4);
                suite.aead_alg.encrypter(key, fixed, explicit)
            }
        };
        // aws-lc insists on having seen the first sequence number.
        for used in 0..sequence {
            let payload = OutboundChunks::Single(b"");
            let typ = ContentType::Handshake;
            let version = ProtocolVersion::TLSv1_2;
            encrypter
                .encrypt(
                    OutboundPlainMessage {
                        typ,
                        version,
                        payload,
                    },
                    used,
                )
                .unwrap();
        }
        (
            pair.server,
            Self {
                encrypter,
                sequence,
            },
        )
    }

    fn record(&mut self, typ: ContentType, payload: &[u8]) -> Vec<u8> {
        let payload = OutboundChunks::Single(payload);
        let message = OutboundPlainMessage {
            typ,
            version: ProtocolVersion::TLSv1_2,
            payload,
        };
        let sealed = self.encrypter.encrypt(message, self.sequence).unwrap();
        self.sequence += 1;
        sealed.encode()
    }
}

#[derive(Debug)]
struct OneTicketForAll {
    inner: ClientSessionMemoryCache,
    name: ServerName<'static>,
}

impl Default for OneTicketForAll {
    fn default() -> Self {
        let name = ServerName::try_from("any.example").unwrap();
        Self {
            inner: ClientSessionMemoryCache::new(8),
            name,
        }
    }
}

impl ClientSessionStore for OneTicketForAll {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.inner.set_kx_hint(self.name.clone(), group);
    }
    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.inner.kx_hint(&self.name)
    }
    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.inner.set_tls12_session(self.name.clone(), value);
    }
    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.inner.tls12_session(&self.name)
    }
    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.inner.remove_tls12_session(&self.name);
    }
    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.inner.insert_tls13_ticket(self.name.clone(), value);
    }
    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.inner.take_tls13_ticket(&self.name)
    }
}

fn acceptor() -> Acceptor {
    Acceptor::self_signed(&["a.example".into(), "localhost".into()]).unwrap()
}

fn config(acceptor: &Acceptor, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    config_with(acceptor, aws_lc_rs::default_provider(), versions)
}

fn config_with(
    acceptor: &Acceptor,
    provider: CryptoProvider,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let pem = acceptor.certificate_pem();
    roots
        .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
        .unwrap();
    client_config(provider, roots, versions)
}

fn client_config(
    provider: CryptoProvider,
    roots: RootCertStore,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let usable = |version: &&&'static SupportedProtocolVersion| {
        provider
            .cipher_suites
            .iter()
            .any(|suite| suite.version() == **version)
    };
    let versions: Vec<_> = versions.iter().filter(usable).copied().collect();
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.enable_secret_extraction = true;
    config
}

fn provider_with(kx_groups: Vec<&'static dyn SupportedKxGroup>) -> CryptoProvider {
    CryptoProvider {
        kx_groups,
        ..aws_lc_rs::default_provider()
    }
}

/// A short hello, without a post-quantum share: there are tests that cut it at every byte.
fn hello(acceptor: &Acceptor) -> Vec<u8> {
    let client = config_with(acceptor, provider_with(vec![kx_group::X25519]), &[&TLS13]);
    Pair::new(acceptor, &client, "a.example").client_flight()
}

/// A hello of SSL 3.0, TLS 1.0 or 1.1. Such clients do not send signature algorithms, unless they
/// could do better and were told not to.
fn old_hello(minor: u8, signature_algorithms: bool) -> Vec<u8> {
    let mut body = vec![3, minor];
    body.extend([7; 32]);
    body.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x09, 1, 0]);
    if signature_algorithms {
        body.extend([0, 8, 0, 13, 0, 4, 0, 2, 4, 3]);
    }
    let mut message = vec![1, 0, 0, u8::try_from(body.len()).unwrap()];
    message.extend(body);
    record(22, &message)
}

fn shown_certificate(acceptor: &Acceptor, name: &str) -> CertificateDer<'static> {
    let mut client = config(acceptor, &[&TLS13]);
    let verifier = Arc::new(AnyCertificate);
    client.dangerous().set_certificate_verifier(verifier);
    let pair = Pair::connect(acceptor, &client, name);
    pair.client.peer_certificates().unwrap()[0]
        .clone()
        .into_owned()
}

/// Lets every certificate pass, to see which one is shown.
#[derive(Debug)]
struct AnyCertificate;

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// A folder of certificate files, removed at the end.
struct Files(PathBuf);

impl Files {
    fn new(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("tidegate-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn pair(&self, name: &str, names: &[&str]) -> CertificateFiles {
        let (chain, key) = made(names);
        self.write(name, chain.as_bytes(), key.as_bytes())
    }

    fn signed(&self, name: &str, params: rcgen::CertificateParams) -> CertificateFiles {
        let key = rcgen::KeyPair::generate().unwrap();
        let chain = params.self_signed(&key).unwrap().pem();
        self.write(name, chain.as_bytes(), key.serialize_pem().as_bytes())
    }

    fn write(&self, name: &str, chain: &[u8], key: &[u8]) -> CertificateFiles {
        let files = CertificateFiles {
            certificate_chain: self.path(&format!("{name}-chain.pem")),
            private_key: self.path(&format!("{name}-key.pem")),
        };
        std::fs::write(&files.certificate_chain, chain).unwrap();
        std::fs::write(&files.private_key, key).unwrap();
        files
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn made(names: &[&str]) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = rcgen::CertificateParams::new(names).unwrap();
    // A subject of its own: two issuers of one name are one issuer with a bad signature.
    let subject = format!("{:x?}", &key.public_key_raw()[..8]);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, subject);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind, 3, 3, len[0], len[1]], payload].concat()
}

fn count_records(mut wire: &[u8]) -> usize {
    let mut count = 0;
    while let [_, _, _, high, low, rest @ ..] = wire {
        wire = &rest[usize::from(u16::from_be_bytes([*high, *low]))..];
        count += 1;
    }
    count
}

/// Signatures of P-256 are 70 to 72 bytes, so answers differ a little.
fn assert_answers(answer: &[u8], expected_len: usize, cut: usize) {
    assert!(
        answer.len().abs_diff(expected_len) <= 4,
        "cut at {cut}: {} bytes",
        answer.len()
    );
    assert_eq!(answer[0], 22, "cut at {cut}");
}

fn pattern(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

fn whole(len: usize) -> usize {
    len
}
