//! Tokens made here, with keys made here, by the cryptographic library itself: nothing that is tested
//! takes part in making them.

use std::sync::LazyLock;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    Ed25519KeyPair, KeyPair, RsaKeyPair,
};
use aws_lc_rs::{hmac, rsa};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;

use super::*;
use crate::admission::rule::Rule;

/// The wall clock of these tests.
const NOW: u64 = 1_800_000_000;
const SECRET: &[u8] = b"0123456789abcdef0123456789ABCDEF";

/// Somebody who can sign.
enum Signer {
    Secret(Vec<u8>),
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Signer {
    fn rsa(size: KeySize) -> Self {
        Self::Rsa(RsaKeyPair::generate(size).unwrap())
    }

    fn p256() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn p384() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap())
    }

    fn ed25519() -> Self {
        Self::Ed(Ed25519KeyPair::generate().unwrap())
    }

    fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Secret(secret) => {
                let kind = match algorithm {
                    Algorithm::Hs384 => hmac::HMAC_SHA384,
                    Algorithm::Hs512 => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::sign(&hmac::Key::new(kind, secret), message)
                    .as_ref()
                    .to_vec()
            }
            Self::Rsa(pair) => {
                let padding: &dyn signature::RsaEncoding = match algorithm {
                    Algorithm::Rs384 => &signature::RSA_PKCS1_SHA384,
                    Algorithm::Rs512 => &signature::RSA_PKCS1_SHA512,
                    Algorithm::Ps256 => &signature::RSA_PSS_SHA256,
                    Algorithm::Ps384 => &signature::RSA_PSS_SHA384,
                    Algorithm::Ps512 => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut signature)
                    .unwrap();
                signature
            }
            Self::Ec(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// The public key as `SubjectPublicKeyInfo`.
    fn public_der(&self) -> Vec<u8> {
        match self {
            Self::Secret(_) => panic!("a secret has no public half"),
            Self::Rsa(pair) => {
                let der: rsa::PublicKey = pair.public_key().clone();
                AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(&der)
                    .unwrap()
                    .as_ref()
                    .to_vec()
            }
            Self::Ec(pair) => {
                AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(pair.public_key())
                    .unwrap()
                    .as_ref()
                    .to_vec()
            }
            Self::Ed(pair) => {
                AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(pair.public_key())
                    .unwrap()
                    .as_ref()
                    .to_vec()
            }
        }
    }

    fn public_pem(&self) -> String {
        armor("PUBLIC KEY", &self.public_der())
    }

    /// The key to verify with.
    fn key(&self, algorithm: Algorithm, id: Option<&str>) -> Key {
        match self {
            Self::Secret(secret) => Key::secret(algorithm, secret, id),
            _ => Key::pem(self.public_pem().as_bytes(), Some(algorithm), id),
        }
        .unwrap()
    }

    /// The key as a member of a key set, without `kid`, `use` and `alg`.
    fn jwk(&self) -> String {
        let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Secret(secret) => format!(r#""kty":"oct","k":"{}""#, b64(secret)),
            Self::Rsa(pair) => {
                let components = rsa::PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                let (n, e) = (b64(&components.n), b64(&components.e));
                format!(r#""kty":"RSA","n":"{n}","e":"{e}""#)
            }
            Self::Ec(pair) => {
                let point = pair.public_key().as_ref();
                let (x, y) = point[1..].split_at(point.len() / 2);
                let curve = if x.len() == 32 { "P-256" } else { "P-384" };
                format!(
                    r#""kty":"EC","crv":"{curve}","x":"{}","y":"{}""#,
                    b64(x),
                    b64(y)
                )
            }
            Self::Ed(pair) => {
                let x = b64(pair.public_key().as_ref());
                format!(r#""kty":"OKP","crv":"Ed25519","x":"{x}""#)
            }
        }
    }
}

fn armor(tag: &str, der: &[u8]) -> String {
    format!(
        "-----BEGIN {tag}-----\n{}\n-----END {tag}-----\n",
        STANDARD.encode(der)
    )
}

static HMAC: LazyLock<Signer> = LazyLock::new(|| Signer::Secret(SECRET.to_vec()));
static RSA: LazyLock<Signer> = LazyLock::new(|| Signer::rsa(KeySize::Rsa2048));
static P256: LazyLock<Signer> = LazyLock::new(Signer::p256);
static P384: LazyLock<Signer> = LazyLock::new(Signer::p384);
static ED: LazyLock<Signer> = LazyLock::new(Signer::ed25519);

fn signer_of(algorithm: Algorithm) -> &'static Signer {
    match algorithm {
        Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => &HMAC,
        Algorithm::Es256 => &P256,
        Algorithm::Es384 => &P384,
        Algorithm::EdDsa => &ED,
        _ => &RSA,
    }
}

/// A signed token of exactly this header and these claims.
fn token_of(signer: &Signer, algorithm: Algorithm, header: &str, claims: &str) -> String {
    let message = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let signature = URL_SAFE_NO_PAD.encode(signer.sign(algorithm, message.as_bytes()));
    format!("{message}.{signature}")
}

/// A token with a usual header.
fn signed(algorithm: Algorithm, claims: &str) -> String {
    let header = format!(r#"{{"alg":"{algorithm}","typ":"JWT"}}"#);
    token_of(signer_of(algorithm), algorithm, &header, claims)
}

/// A token for HS256 with this header and a user.
fn with_header(header: &str) -> String {
    token_of(&HMAC, Algorithm::Hs256, header, GOOD)
}

const GOOD: &str = r#"{"sub":"ada","exp":1800000060}"#;

fn verifier(policy: TokenPolicy, keys: Vec<Key>) -> Verifier {
    Verifier::new(vec![(policy, KeySet::new(keys).unwrap())]).unwrap()
}

/// What one key of this algorithm and this policy say of a token.
fn verify_by(policy: &TokenPolicy, claims: &str) -> Result<Identity, TokenError> {
    static KEY: LazyLock<Key> = LazyLock::new(|| HMAC.key(Algorithm::Hs256, None));
    verifier(policy.clone(), vec![KEY.clone()]).verify(&signed(Algorithm::Hs256, claims), NOW)
}

fn hs256() -> Verifier {
    verifier(
        TokenPolicy::default(),
        vec![HMAC.key(Algorithm::Hs256, None)],
    )
}

fn user(identity: Result<Identity, TokenError>) -> Result<String, TokenError> {
    identity.map(|identity| identity.user().to_string())
}

/// The settings that the replaced system corresponds to.
fn original() -> TokenPolicy {
    TokenPolicy {
        user_claim: "user_id".into(),
        token_type: Some("access".into()),
        ..TokenPolicy::default()
    }
}

#[test]
fn what_the_original_accepts_is_accepted() {
    for (user_id, expected) in [
        ("42", "42"),
        ("\"42\"", "42"),
        ("\"ada\"", "ada"),
        ("0", "0"),
    ] {
        let claims = format!(
            r#"{{"token_type":"access","exp":1800003600,"iat":1799999999,"jti":"6f1c9ad0","user_id":{user_id}}}"#
        );
        let identity = verify_by(&original(), &claims).unwrap();
        assert_eq!(&**identity.user(), expected);
        assert_eq!(identity.expires_at(), Some(1_800_003_600));
        assert_eq!(identity.token_id(), Some("6f1c9ad0"));
        assert_eq!(identity.issuer(), 0);
    }
}

#[test]
fn what_the_original_refuses_is_refused_by_its_reason() {
    let verifier = verifier(original(), vec![HMAC.key(Algorithm::Hs256, None)]);
    let good = signed(
        Algorithm::Hs256,
        r#"{"token_type":"access","exp":1800000060,"user_id":42}"#,
    );
    assert_eq!(user(verifier.verify(&good, NOW)), Ok("42".into()));

    let (message, _) = good.rsplit_once('.').unwrap();
    let forged = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, b"another"),
        message.as_bytes(),
    );
    let forged = format!("{message}.{}", URL_SAFE_NO_PAD.encode(forged));
    let claims = |claims: &str| signed(Algorithm::Hs256, claims);
    for (token, expected) in [
        (String::new(), TokenError::NotThreeParts),
        ("   ".into(), TokenError::NotThreeParts),
        ("not-a-token".into(), TokenError::NotThreeParts),
        ("a.b".into(), TokenError::NotThreeParts),
        (message.into(), TokenError::NotThreeParts),
        (format!("{good}.x"), TokenError::NotThreeParts),
        ("a.b.c".into(), TokenError::Encoding(Part::Header)),
        ("..".into(), TokenError::Json(Part::Header)),
        (forged, TokenError::Signature),
        (
            claims(r#"{"token_type":"access","exp":1799999999,"user_id":42}"#),
            TokenError::Expired { seconds_ago: 1 },
        ),
        // At the very second it is expired (RFC 7519 §4.1.4).
        (
            claims(r#"{"token_type":"access","exp":1800000000,"user_id":42}"#),
            TokenError::Expired { seconds_ago: 0 },
        ),
        (
            claims(r#"{"token_type":"access","user_id":42}"#),
            TokenError::MissingExpiry,
        ),
        (
            claims(r#"{"token_type":"refresh","exp":1800000060,"user_id":42}"#),
            TokenError::TokenType,
        ),
        (
            claims(r#"{"exp":1800000060,"user_id":42}"#),
            TokenError::TokenType,
        ),
        (
            claims(r#"{"token_type":["access"],"exp":1800000060,"user_id":42}"#),
            TokenError::TokenType,
        ),
        (
            claims(r#"{"token_type":"access","exp":1800000060}"#),
            TokenError::MissingUser,
        ),
        (
            claims(r#"{"token_type":"access","exp":1800000060,"sub":"42"}"#),
            TokenError::MissingUser,
        ),
    ] {
        assert_eq!(verifier.verify(&token, NOW), Err(expected), "{token}");
    }
}

#[test]
fn every_algorithm_verifies_its_own_tokens() {
    for algorithm in Algorithm::ALL {
        let key = signer_of(algorithm).key(algorithm, None);
        assert_eq!(key.algorithm(), algorithm);
        let verifier = verifier(TokenPolicy::default(), vec![key]);
        let token = signed(algorithm, GOOD);
        assert_eq!(
            user(verifier.verify(&token, NOW)),
            Ok("ada".into()),
            "{algorithm}"
        );
        // Another pair of the same kind does not.
        let other = match signer_of(algorithm) {
            Signer::Secret(_) => Signer::Secret(b"fedcba9876543210FEDCBA9876543210".to_vec()),
            Signer::Rsa(_) => Signer::rsa(KeySize::Rsa2048),
            Signer::Ec(_) if algorithm == Algorithm::Es256 => Signer::p256(),
            Signer::Ec(_) => Signer::p384(),
            Signer::Ed(_) => Signer::ed25519(),
        };
        let header = format!(r#"{{"alg":"{algorithm}"}}"#);
        let token = token_of(&other, algorithm, &header, GOOD);
        assert_eq!(
            verifier.verify(&token, NOW),
            Err(TokenError::Signature),
            "{algorithm}"
        );
    }
}

#[test]
fn d1_the_algorithm_belongs_to_the_key() {
    for own in Algorithm::ALL {
        let verifier = verifier(TokenPolicy::default(), vec![signer_of(own).key(own, None)]);
        for named in Algorithm::ALL.into_iter().filter(|&named| named != own) {
            // Correctly signed, by whoever can sign in that way.
            let refused = verifier.verify(&signed(named, GOOD), NOW);
            assert_eq!(
                refused,
                Err(TokenError::AlgorithmOfKey),
                "{named} for {own}"
            );
            // Signed with the right key in the right way, and named in the wrong one.
            let header = format!(r#"{{"alg":"{named}"}}"#);
            let token = token_of(signer_of(own), own, &header, GOOD);
            let refused = verifier.verify(&token, NOW);
            assert_eq!(refused, Err(TokenError::AlgorithmOfKey), "{own} as {named}");
        }
    }
}

#[test]
fn d1_a_public_key_is_no_secret() {
    for signer in [&*RSA, &P256, &P384, &ED] {
        let algorithm = match Key::pem(signer.public_pem().as_bytes(), None, None) {
            Ok(key) => key.algorithm(),
            Err(error) => panic!("{error}"),
        };
        let verifier = verifier(TokenPolicy::default(), vec![signer.key(algorithm, None)]);
        let der = signer.public_der();
        for secret in [signer.public_pem().into_bytes(), der] {
            for hmac in [Algorithm::Hs256, Algorithm::Hs384, Algorithm::Hs512] {
                for named in [hmac, algorithm] {
                    let header = format!(r#"{{"alg":"{named}"}}"#);
                    let forger = Signer::Secret(secret.clone());
                    let token = token_of(&forger, hmac, &header, GOOD);
                    assert!(verifier.verify(&token, NOW).is_err(), "{hmac} as {named}");
                }
            }
        }
    }
}

#[test]
fn d1_unsigned_tokens_are_refused() {
    let claims = URL_SAFE_NO_PAD.encode(GOOD);
    let (_, signature) = signed(Algorithm::Hs256, GOOD)
        .rsplit_once('.')
        .map(|(m, s)| (m.to_owned(), s.to_owned()))
        .unwrap();
    for none in ["none", "None", "NONE", "nOnE"] {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{none}"}}"#));
        for signature in ["", signature.as_str()] {
            let token = format!("{header}.{claims}.{signature}");
            assert_eq!(
                hs256().verify(&token, NOW),
                Err(TokenError::Unsecured),
                "{none}"
            );
        }
    }
    // No signature, under an honest name.
    let token = signed(Algorithm::Hs256, GOOD);
    let (message, _) = token.rsplit_once('.').unwrap();
    assert_eq!(
        hs256().verify(&format!("{message}."), NOW),
        Err(TokenError::SignatureLength)
    );
}

#[test]
fn headers_that_change_the_meaning_are_refused() {
    use TokenError as E;
    for (header, expected) in [
        (r#"{"alg":"HS256"}"#, None),
        (r#"{"alg":"HS256","typ":"JWT"}"#, None),
        (r#"{"alg":"HS256","typ":"jwt"}"#, None),
        (r#"{"alg":"HS256","typ":"at+jwt"}"#, None),
        (r#"{"alg":"HS256","typ":"application/AT+JWT"}"#, None),
        // Other members mean nothing to us; above all, they are not followed (D5).
        (r#"{"alg":"HS256","cty":"x","foo":{"a":[1]}}"#, None),
        (
            r#"{"alg":"HS256","jku":"http://169.254.169.254/","x5u":"http://10.0.0.1/"}"#,
            None,
        ),
        (
            r#"{"alg":"HS256","jwk":{"kty":"oct","k":"AAAA"},"x5c":["AAAA"]}"#,
            None,
        ),
        (r#"{"alg":"HS256","typ":"refresh+jwt"}"#, Some(E::Type)),
        (r#"{"alg":"HS256","typ":"logout+jwt"}"#, Some(E::Type)),
        (r#"{"alg":"HS256","typ":"JOSE"}"#, Some(E::Type)),
        (r#"{"alg":"HS256","typ":""}"#, Some(E::Type)),
        (r#"{"alg":"HS256","typ":null}"#, Some(E::Type)),
        (r#"{"alg":"HS256","typ":["JWT"]}"#, Some(E::Type)),
        (
            r#"{"alg":"HS256","crit":["exp"]}"#,
            Some(E::Extension(Extension::Critical)),
        ),
        (
            r#"{"alg":"HS256","crit":[]}"#,
            Some(E::Extension(Extension::Critical)),
        ),
        (
            r#"{"alg":"HS256","crit":null}"#,
            Some(E::Extension(Extension::Critical)),
        ),
        (
            r#"{"alg":"HS256","b64":false}"#,
            Some(E::Extension(Extension::Unencoded)),
        ),
        (
            r#"{"alg":"HS256","b64":true}"#,
            Some(E::Extension(Extension::Unencoded)),
        ),
        (
            r#"{"alg":"HS256","zip":"DEF"}"#,
            Some(E::Extension(Extension::Compressed)),
        ),
        (
            r#"{"alg":"HS256","enc":"A128GCM"}"#,
            Some(E::Extension(Extension::Encrypted)),
        ),
        (r#"{"typ":"JWT"}"#, Some(E::Algorithm)),
        (r#"{"alg":null}"#, Some(E::Algorithm)),
        (r#"{"alg":256}"#, Some(E::Algorithm)),
        (r#"{"alg":["HS256"]}"#, Some(E::Algorithm)),
        (r#"{"alg":""}"#, Some(E::Algorithm)),
        (r#"{"alg":"hs256"}"#, Some(E::Algorithm)),
        (r#"{"alg":"HS256 "}"#, Some(E::Algorithm)),
        (r#"{"alg":"ES512"}"#, Some(E::Algorithm)),
        (r#"{"alg":"ES256K"}"#, Some(E::Algorithm)),
        (r#"{"alg":"dir"}"#, Some(E::Algorithm)),
        (r#"{"Alg":"HS256"}"#, Some(E::Algorithm)),
        (
            r#"{"alg":"HS256","alg":"HS256"}"#,
            Some(E::RepeatedName(Part::Header)),
        ),
        (
            r#"{"alg":"none","alg":"HS256"}"#,
            Some(E::RepeatedName(Part::Header)),
        ),
        (
            r#"{"alg":"HS256","a":1,"a":1}"#,
            Some(E::RepeatedName(Part::Header)),
        ),
        (r#"{"alg":"HS256","kid":null}"#, Some(E::KeyId)),
        (r#"{"alg":"HS256","kid":7}"#, Some(E::KeyId)),
        (r#"{"alg":"HS256","kid":""}"#, Some(E::KeyId)),
        (r#"["alg","HS256"]"#, Some(E::Json(Part::Header))),
        (r#""HS256""#, Some(E::Json(Part::Header))),
        ("{}", Some(E::Algorithm)),
        ("", Some(E::Json(Part::Header))),
        (r#"{"alg":"HS256"} "#, None),
        (r#"{"alg":"HS256"}{}"#, Some(E::Json(Part::Header))),
        (
            r#"{"alg":"HS256","a":[[[[[[[[1]]]]]]]]}"#,
            Some(E::TooDeep(Part::Header)),
        ),
    ] {
        assert_eq!(
            hs256().verify(&with_header(header), NOW).err(),
            expected,
            "{header}"
        );
    }
    let long = format!(r#"{{"alg":"HS256","kid":"{}"}}"#, "k".repeat(257));
    assert_eq!(hs256().verify(&with_header(&long), NOW), Err(E::KeyId));
}

/// Signatures that a careless verifier takes (CVE-2022-21449 and its kin), for the message of a token
/// whose own signature is `good`.
fn ecdsa_forgeries(good: &[u8], order: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let half = order.len();
    let (r, s) = good.split_at(half);
    let zero = vec![0; half];
    let one = [vec![0; half - 1], vec![1]].concat();
    let minus = |a: &[u8], b: &[u8]| -> Vec<u8> {
        let mut borrow = 0_i16;
        let mut out = vec![0; half];
        for at in (0..half).rev() {
            let digit = i16::from(a[at]) - i16::from(b[at]) - borrow;
            borrow = i16::from(digit < 0);
            out[at] = u8::try_from(digit.rem_euclid(256)).unwrap();
        }
        out
    };
    // A DER integer: minimal, with a zero byte in front of a set top bit.
    let integer = |bytes: &[u8]| -> Vec<u8> {
        let from = bytes.iter().position(|&byte| byte != 0).unwrap_or(half - 1);
        let mut body = bytes[from..].to_vec();
        if body[0] & 0x80 != 0 {
            body.insert(0, 0);
        }
        [vec![2, u8::try_from(body.len()).unwrap()], body].concat()
    };
    let pair = [integer(r), integer(s)].concat();
    let asn1 = [vec![0x30, u8::try_from(pair.len()).unwrap()], pair].concat();
    let cut = |bytes: &[u8]| bytes[..bytes.len().min(2 * half)].to_vec();
    let padded = |mut bytes: Vec<u8>| {
        bytes.resize(2 * half, 0);
        bytes
    };
    vec![
        ("zero, zero", [zero.clone(), zero.clone()].concat()),
        ("r, zero", [r.to_vec(), zero.clone()].concat()),
        ("zero, s", [zero.clone(), s.to_vec()].concat()),
        ("n, n", [order.to_vec(), order.to_vec()].concat()),
        ("n, zero", [order.to_vec(), zero.clone()].concat()),
        ("r, n", [r.to_vec(), order.to_vec()].concat()),
        ("n, s", [order.to_vec(), s.to_vec()].concat()),
        ("one, one", [one.clone(), one.clone()].concat()),
        (
            "n - 1, n - 1",
            [minus(order, &one), minus(order, &one)].concat(),
        ),
        ("all ones", vec![0xff; 2 * half]),
        ("r, ones", [r.to_vec(), vec![0xff; half]].concat()),
        ("s, r", [s, r].concat()),
        ("n - r, s", [minus(order, r), s.to_vec()].concat()),
        ("ASN.1", asn1.clone()),
        ("ASN.1, cut", cut(&asn1)),
        (
            "ASN.1 of zeros, padded",
            padded(vec![0x30, 6, 2, 1, 0, 2, 1, 0]),
        ),
        ("one byte short", good[..2 * half - 1].to_vec()),
        ("one byte more", [good, &[0]].concat()),
        ("a byte before", [&[0], good].concat()),
        ("r alone", r.to_vec()),
        ("twice", [good, good].concat()),
        ("r and s with a byte more", [&[0], r, &[0], s].concat()),
        ("empty", Vec::new()),
    ]
}

/// The order of the group of P-256 and of P-384 (FIPS 186-4 §D.1.2).
const ORDER_P256: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
const ORDER_P384: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf\
                          581a0db248b0a77aecec196accc52973";

fn unhex(digits: &str) -> Vec<u8> {
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn d2_misshaped_ecdsa_signatures_are_refused() {
    for (algorithm, order) in [
        (Algorithm::Es256, ORDER_P256),
        (Algorithm::Es384, ORDER_P384),
    ] {
        let verifier = verifier(
            TokenPolicy::default(),
            vec![signer_of(algorithm).key(algorithm, None)],
        );
        let token = signed(algorithm, GOOD);
        assert!(verifier.verify(&token, NOW).is_ok());
        let (message, signature) = token.rsplit_once('.').unwrap();
        let good = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let order = unhex(order);
        assert_eq!(order.len() * 2, good.len());
        for (name, forgery) in ecdsa_forgeries(&good, &order) {
            assert_ne!(forgery, good);
            let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(&forgery));
            let expected = if forgery.len() == good.len() {
                TokenError::Signature
            } else {
                TokenError::SignatureLength
            };
            assert_eq!(
                verifier.verify(&token, NOW),
                Err(expected),
                "{algorithm}: {name}"
            );
        }
    }
}

#[test]
fn d2_misshaped_signatures_of_other_kinds_are_refused() {
    for algorithm in [
        Algorithm::Hs256,
        Algorithm::Rs256,
        Algorithm::Ps256,
        Algorithm::EdDsa,
    ] {
        let verifier = verifier(
            TokenPolicy::default(),
            vec![signer_of(algorithm).key(algorithm, None)],
        );
        let token = signed(algorithm, GOOD);
        let (message, signature) = token.rsplit_once('.').unwrap();
        let good = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let length = good.len();
        let mut high_s = good.clone();
        high_s[length - 1] |= 0xe0;
        for forgery in [
            vec![0; length],
            vec![0xff; length],
            [vec![0; length - 1], vec![1]].concat(),
            [vec![1], vec![0; length - 1]].concat(),
            good.iter().rev().copied().collect(),
            good[1..].iter().chain(&good[..1]).copied().collect(),
            // S of an Ed25519 signature is below the order of the group (RFC 8032 §5.1.7).
            [&good[..length / 2], &[0xff; 256][..length - length / 2]].concat(),
            [&[0; 256][..length / 2], &good[length / 2..]].concat(),
            [good.as_slice(), &[0]].concat(),
            [&[0], good.as_slice()].concat(),
            good[..length - 1].to_vec(),
            good[1..].to_vec(),
            good[..length / 2].to_vec(),
        ] {
            let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(&forgery));
            assert!(
                verifier.verify(&token, NOW).is_err(),
                "{algorithm}: {forgery:?}"
            );
        }
    }
}

#[test]
fn d3_claims_of_a_wrong_type_are_refused() {
    use Registered as R;
    // For each claim: values that pass, among those tried.
    const VALUES: [&str; 25] = [
        "null",
        "true",
        "false",
        "-1",
        "-9007199254740993",
        "0",
        "1",
        "1800000060",
        "1800000060.0",
        "1800000060.5",
        "1.8e9",
        "1e999",
        "9007199254740992",
        "9007199254740993",
        "18446744073709551615",
        "18446744073709551616",
        "\"1800000060\"",
        "\"\"",
        "\"x\"",
        "[]",
        "[\"x\"]",
        "[\"x\",1]",
        "[[\"x\"]]",
        "{}",
        "{\"exp\":1800000060}",
    ];
    let policy = TokenPolicy {
        require_expiry: false,
        audiences: vec!["x".into()],
        ..TokenPolicy::default()
    };
    for (name, claim, good) in [
        ("exp", R::ExpiresAt, &["1800000060", "9007199254740992"][..]),
        ("nbf", R::NotBefore, &["0", "1"]),
        ("iat", R::IssuedAt, &["0", "1"]),
        ("iss", R::Issuer, &["\"x\"", "\"1800000060\""]),
        ("jti", R::TokenId, &["\"x\"", "\"1800000060\""]),
        ("aud", R::Audience, &["\"x\"", "[\"x\"]"]),
    ] {
        for value in VALUES {
            let audience = if name == "aud" { "" } else { r#","aud":"x""# };
            let claims = format!(r#"{{"sub":"ada","{name}":{value}{audience}}}"#);
            let outcome = verify_by(&policy, &claims);
            // Of the right type, and refused for what they say.
            let says_no = match (name, value) {
                ("exp", "0" | "1") => {
                    matches!(outcome, Err(TokenError::Expired { .. }))
                }
                ("nbf", "1800000060" | "9007199254740992") => {
                    matches!(outcome, Err(TokenError::NotYetValid { .. }))
                }
                ("iat", "1800000060" | "9007199254740992") => {
                    matches!(outcome, Err(TokenError::IssuedInFuture { .. }))
                }
                ("aud", "\"\"" | "\"1800000060\"") => outcome == Err(TokenError::Audience),
                _ => false,
            };
            if good.contains(&value) {
                assert!(outcome.is_ok(), "{claims}: {outcome:?}");
            } else if value == "1e999" {
                assert_eq!(outcome, Err(TokenError::Json(Part::Claims)));
            } else if !says_no {
                assert_eq!(outcome, Err(TokenError::ClaimType(claim)), "{claims}");
            }
        }
    }
}

#[test]
fn d3_users_are_texts_or_whole_numbers() {
    let long = format!("\"{}\"", "u".repeat(256));
    let too_long = format!("\"{}\"", "u".repeat(257));
    for (value, expected) in [
        ("\"ada\"", Ok("ada")),
        ("\"Ada Lovelace\"", Ok("Ada Lovelace")),
        ("\"\\u00e9\"", Ok("é")),
        ("42", Ok("42")),
        ("\"42\"", Ok("42")),
        ("0", Ok("0")),
        ("9007199254740992", Ok("9007199254740992")),
        (&long, Ok(&long[1..257])),
        (&too_long, Err(TokenError::User)),
        ("9007199254740993", Err(TokenError::User)),
        ("-1", Err(TokenError::User)),
        ("42.0", Err(TokenError::User)),
        ("4.2e1", Err(TokenError::User)),
        ("\"\"", Err(TokenError::User)),
        ("\" \"", Err(TokenError::User)),
        ("\" ada\"", Err(TokenError::User)),
        ("\"ada\\n\"", Err(TokenError::User)),
        ("\"a\\u0000b\"", Err(TokenError::User)),
        ("true", Err(TokenError::User)),
        ("[\"ada\"]", Err(TokenError::User)),
        ("{\"id\":1}", Err(TokenError::User)),
        ("null", Err(TokenError::MissingUser)),
    ] {
        let claims = format!(r#"{{"sub":{value},"exp":1800000060}}"#);
        let outcome = user(verify_by(&TokenPolicy::default(), &claims));
        assert_eq!(outcome, expected.map(str::to_owned), "{value}");
    }
}

#[test]
fn time_is_judged_with_the_leeway() {
    let policy = |seconds| TokenPolicy {
        leeway: Duration::from_secs(seconds),
        ..TokenPolicy::default()
    };
    for (claims, leeway, expected) in [
        (r#""exp":1800000001"#, 0, None),
        (
            r#""exp":1800000000"#,
            0,
            Some(TokenError::Expired { seconds_ago: 0 }),
        ),
        (r#""exp":1799999971"#, 30, None),
        (
            r#""exp":1799999970"#,
            30,
            Some(TokenError::Expired { seconds_ago: 30 }),
        ),
        (
            r#""exp":0"#,
            0,
            Some(TokenError::Expired { seconds_ago: NOW }),
        ),
        (r#""exp":1800000060,"nbf":1800000000"#, 0, None),
        (
            r#""exp":1800000060,"nbf":1800000001"#,
            0,
            Some(TokenError::NotYetValid { seconds: 1 }),
        ),
        (r#""exp":1800000060,"nbf":1800000030"#, 30, None),
        (
            r#""exp":1800000060,"nbf":1800000031"#,
            30,
            Some(TokenError::NotYetValid { seconds: 31 }),
        ),
        (r#""exp":1800000060,"iat":1800000000"#, 0, None),
        (
            r#""exp":1800000060,"iat":1800000001"#,
            0,
            Some(TokenError::IssuedInFuture { seconds: 1 }),
        ),
        (r#""exp":1800000060,"iat":1800000030"#, 30, None),
        (r#""exp":9007199254740992"#, u64::MAX, None),
    ] {
        let outcome = verify_by(&policy(leeway), &format!(r#"{{"sub":"ada",{claims}}}"#));
        assert_eq!(outcome.err(), expected, "{claims} {leeway}");
    }
    // Clocks that stand at their ends do not overflow.
    for now in [0, 1, u64::MAX] {
        let _ = hs256().verify(&signed(Algorithm::Hs256, GOOD), now);
    }
    let unlimited = TokenPolicy {
        require_expiry: false,
        ..TokenPolicy::default()
    };
    let identity = verify_by(&unlimited, r#"{"sub":"ada"}"#).unwrap();
    assert_eq!(identity.expires_at(), None);
}

#[test]
fn a_forged_token_learns_nothing_of_the_policy() {
    let policy = TokenPolicy {
        audiences: vec!["tidegate".into()],
        token_type: Some("access".into()),
        required: vec!["tenant".into()],
        ..TokenPolicy::default()
    };
    let verifier = verifier(policy, vec![HMAC.key(Algorithm::Hs256, None)]);
    let forger = Signer::Secret(b"fedcba9876543210FEDCBA9876543210".to_vec());
    for claims in [
        GOOD,
        r#"{"exp":1800000060,"aud":"x"}"#,
        r#"{"exp":1800000060,"aud":"tidegate","token_type":"access","tenant":1,"sub":1}"#,
    ] {
        let token = token_of(&forger, Algorithm::Hs256, r#"{"alg":"HS256"}"#, claims);
        assert_eq!(verifier.verify(&token, NOW), Err(TokenError::Signature));
    }
}

#[test]
fn audiences_are_compared_whole() {
    let policy = |audiences: &[&str]| TokenPolicy {
        audiences: audiences.iter().map(|&name| name.to_owned()).collect(),
        ..TokenPolicy::default()
    };
    for (audiences, claim, expected) in [
        (&["chat", "admin"][..], r#","aud":"chat""#, None),
        (&["chat", "admin"], r#","aud":["other","admin"]"#, None),
        (&["chat"], r#","aud":"Chat""#, Some(TokenError::Audience)),
        (&["chat"], r#","aud":"chat2""#, Some(TokenError::Audience)),
        (&["chat"], r#","aud":["other"]"#, Some(TokenError::Audience)),
        (&["chat"], "", Some(TokenError::MissingAudience)),
        (&[], "", None),
        (
            &[],
            r#","aud":"chat""#,
            Some(TokenError::UnexpectedAudience),
        ),
    ] {
        let claims = format!(r#"{{"sub":"ada","exp":1800000060{claim}}}"#);
        let outcome = verify_by(&policy(audiences), &claims);
        assert_eq!(outcome.err(), expected, "{audiences:?} {claim}");
    }
}

#[test]
fn required_claims_must_be_there() {
    let policy = TokenPolicy {
        required: vec!["tenant".into(), "jti".into()],
        ..TokenPolicy::default()
    };
    for (claims, missing) in [
        (r#","tenant":0,"jti":"x""#, None),
        (r#","tenant":false,"jti":"x""#, None),
        (r#","tenant":null,"jti":"x""#, Some("tenant")),
        (r#","jti":"x""#, Some("tenant")),
        (r#","tenant":"t""#, Some("jti")),
    ] {
        let claims = format!(r#"{{"sub":"ada","exp":1800000060{claims}}}"#);
        let expected = missing.map(|name| TokenError::MissingClaim(name.into()));
        assert_eq!(verify_by(&policy, &claims).err(), expected, "{claims}");
    }
}

#[test]
fn d4_size_and_dots_are_bounded() {
    let verifier = hs256();
    for (token, expected) in [
        (".".repeat(1 << 20), TokenError::TooLong),
        (".".repeat(8192), TokenError::NotThreeParts),
        ("a".repeat(8193), TokenError::TooLong),
        ("a".repeat(8192), TokenError::NotThreeParts),
        (
            format!("{}.a.a", "a".repeat(2049)),
            TokenError::HeaderTooLong,
        ),
        (
            format!("{}.a.a", "a".repeat(2048)),
            TokenError::Json(Part::Header),
        ),
    ] {
        assert_eq!(
            verifier.verify(&token, NOW),
            Err(expected),
            "{} bytes",
            token.len()
        );
    }
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        signed(
            Algorithm::Hs256,
            &format!(r#"{{"sub":"ada","exp":1800000060,"x":{open}{close}}}"#),
        )
    };
    assert!(verifier.verify(&nested(7), NOW).is_ok());
    assert_eq!(
        verifier.verify(&nested(8), NOW),
        Err(TokenError::TooDeep(Part::Claims))
    );
    assert_eq!(
        verifier.verify(&nested(2000), NOW),
        Err(TokenError::TooDeep(Part::Claims))
    );
    // The largest token that counts.
    let filler = |bytes: usize| {
        let claims = format!(
            r#"{{"sub":"ada","exp":1800000060,"x":"{}"}}"#,
            "x".repeat(bytes)
        );
        signed(Algorithm::Hs256, &claims)
    };
    let fits = (5000..6144)
        .rev()
        .find(|&bytes| filler(bytes).len() <= 8192)
        .unwrap();
    assert!(verifier.verify(&filler(fits), NOW).is_ok());
    assert_eq!(
        verifier.verify(&filler(fits + 1), NOW),
        Err(TokenError::TooLong)
    );
}

#[test]
fn d6_an_issuer_is_verified_with_its_own_keys() {
    let policy = |name: Option<&str>, prefix: &str| TokenPolicy {
        issuer: name.map(str::to_owned),
        user_prefix: prefix.into(),
        ..TokenPolicy::default()
    };
    let set = |key: Key| KeySet::new(vec![key]).unwrap();
    // Two issuers whose keys have one identifier, and one without a name.
    let other = Signer::p256();
    let verifier = Verifier::new(vec![
        (
            policy(Some("https://a.example"), "a:"),
            set(P256.key(Algorithm::Es256, Some("k1"))),
        ),
        (
            policy(Some("https://b.example"), "b:"),
            set(other.key(Algorithm::Es256, Some("k1"))),
        ),
        (policy(None, ""), set(HMAC.key(Algorithm::Hs256, None))),
    ])
    .unwrap();
    let claims = |issuer: &str| format!(r#"{{"sub":"ada","exp":1800000060{issuer}}}"#);
    let (a, b) = (
        r#","iss":"https://a.example""#,
        r#","iss":"https://b.example""#,
    );
    let es256 = r#"{"alg":"ES256","kid":"k1"}"#;
    let hs256 = r#"{"alg":"HS256"}"#;
    use {Algorithm as A, TokenError as E};
    for (signer, algorithm, header, issuer, expected) in [
        (&*P256, A::Es256, es256, a, Ok("a:ada")),
        (&other, A::Es256, es256, b, Ok("b:ada")),
        (&*HMAC, A::Hs256, hs256, "", Ok("ada")),
        // Genuine tokens of one issuer that claim to be of another.
        (&*P256, A::Es256, es256, b, Err(E::Signature)),
        (&other, A::Es256, es256, a, Err(E::Signature)),
        (&*P256, A::Es256, es256, "", Err(E::AlgorithmOfKey)),
        (&*HMAC, A::Hs256, hs256, a, Err(E::AlgorithmOfKey)),
        // Nobody's.
        (
            &*HMAC,
            A::Hs256,
            hs256,
            r#","iss":"https://c.example""#,
            Err(E::UnknownIssuer),
        ),
        (
            &*P256,
            A::Es256,
            es256,
            r#","iss":"https://a.example/""#,
            Err(E::UnknownIssuer),
        ),
        (
            &*P256,
            A::Es256,
            es256,
            r#","iss":"HTTPS://a.example""#,
            Err(E::UnknownIssuer),
        ),
        (
            &*P256,
            A::Es256,
            es256,
            r#","iss":["https://a.example"]"#,
            Err(E::ClaimType(Registered::Issuer)),
        ),
    ] {
        let token = token_of(signer, algorithm, header, &claims(issuer));
        let outcome = user(verifier.verify(&token, NOW));
        assert_eq!(outcome, expected.map(str::to_owned), "{header} {issuer}");
    }
    let named = Verifier::new(vec![(
        policy(Some("https://a.example"), ""),
        set(P256.key(Algorithm::Es256, None)),
    )])
    .unwrap();
    let outcome = named.verify(&signed(Algorithm::Es256, GOOD), NOW);
    assert_eq!(outcome, Err(TokenError::MissingIssuer));
    // The only policy, without a name, takes any.
    let token = signed(Algorithm::Hs256, &claims(a));
    assert!(super::tests::hs256().verify(&token, NOW).is_ok());

    let twice = Verifier::new(vec![
        (policy(Some("x"), ""), KeySet::default()),
        (policy(Some("x"), ""), KeySet::default()),
    ]);
    assert_eq!(
        twice.err(),
        Some(VerifierError::SameIssuer(Some("x".into())))
    );
    assert_eq!(
        Verifier::new(Vec::new()).err(),
        Some(VerifierError::NoIssuer)
    );
}

#[test]
fn d7_key_identifiers_are_looked_up() {
    let (first, second, third) = (Signer::ed25519(), Signer::ed25519(), Signer::ed25519());
    let key = |signer: &Signer, id: Option<&str>| signer.key(Algorithm::EdDsa, id);
    let sets: [(&str, Vec<Key>); 4] = [
        (
            "named",
            vec![key(&first, Some("1")), key(&second, Some("2"))],
        ),
        ("only", vec![key(&first, Some("1"))]),
        ("plain", vec![key(&first, None), key(&second, None)]),
        ("both", vec![key(&first, Some("1")), key(&second, None)]),
    ];
    use TokenError as E;
    let unknown = E::UnknownKey { issuer: 0 };
    for (set, signer, id, expected) in [
        ("named", &first, Some("1"), None),
        ("named", &second, Some("2"), None),
        // The wrong key is not tried, though the right one is at hand.
        ("named", &first, Some("2"), Some(E::Signature)),
        ("named", &first, Some("3"), Some(unknown.clone())),
        ("named", &first, None, Some(unknown.clone())),
        ("only", &first, None, None),
        ("only", &first, Some("2"), Some(unknown.clone())),
        ("plain", &first, None, None),
        ("plain", &second, None, None),
        ("plain", &third, None, Some(E::Signature)),
        // Keys without an identifier are for whatever no other is named by.
        ("plain", &second, Some("x"), None),
        ("both", &first, Some("1"), None),
        ("both", &second, Some("1"), Some(E::Signature)),
        ("both", &second, Some("x"), None),
        ("both", &first, None, Some(E::Signature)),
        ("both", &second, None, None),
    ] {
        let (_, keys) = sets.iter().find(|(name, _)| *name == set).unwrap();
        let verifier = verifier(TokenPolicy::default(), keys.clone());
        let id_member = id.map(|id| format!(r#","kid":"{id}""#)).unwrap_or_default();
        let header = format!(r#"{{"alg":"EdDSA"{id_member}}}"#);
        let token = token_of(signer, Algorithm::EdDsa, &header, GOOD);
        assert_eq!(verifier.verify(&token, NOW).err(), expected, "{set} {id:?}");
    }
    // Before its keys are fetched, and after they rotate.
    let empty = verifier(TokenPolicy::default(), Vec::new());
    let token = token_of(
        &second,
        Algorithm::EdDsa,
        r#"{"alg":"EdDSA","kid":"2"}"#,
        GOOD,
    );
    assert_eq!(empty.verify(&token, NOW), Err(unknown));
    let rotated = vec![key(&second, Some("2")), key(&first, Some("1"))];
    let renewed = empty.with_keys(0, KeySet::new(rotated).unwrap()).unwrap();
    assert!(renewed.verify(&token, NOW).is_ok());
    assert!(renewed.with_keys(1, KeySet::default()).is_none());
}

#[test]
fn previous_secrets_still_verify() {
    let previous = Signer::Secret(b"fedcba9876543210FEDCBA9876543210".to_vec());
    let keys = vec![
        HMAC.key(Algorithm::Hs256, None),
        previous.key(Algorithm::Hs256, None),
    ];
    let verifier = verifier(TokenPolicy::default(), keys);
    for signer in [&*HMAC, &previous] {
        let token = token_of(signer, Algorithm::Hs256, r#"{"alg":"HS256"}"#, GOOD);
        assert!(verifier.verify(&token, NOW).is_ok());
    }
}

#[test]
fn d1_weak_and_misplaced_secrets_are_refused() {
    use KeyError as E;
    let pem = RSA.public_pem();
    for (algorithm, secret, expected) in [
        (Algorithm::Hs256, SECRET, None),
        (Algorithm::Hs512, SECRET, None),
        (Algorithm::Hs256, &SECRET[..31], Some(E::SecretTooShort)),
        (Algorithm::Hs256, b"", Some(E::SecretTooShort)),
        (Algorithm::Hs256, &[b'x'; 64], Some(E::SecretTooPlain)),
        (
            Algorithm::Hs256,
            b"abcabcabcabcabcabcabcabcabcabcabcabc",
            Some(E::SecretTooPlain),
        ),
        (Algorithm::Hs256, pem.as_bytes(), Some(E::SecretIsKeyFile)),
        (Algorithm::Rs256, SECRET, Some(E::AlgorithmOfKind)),
    ] {
        assert_eq!(Key::secret(algorithm, secret, None).err(), expected);
    }
    for id in ["", &"k".repeat(257)] {
        assert_eq!(
            Key::secret(Algorithm::Hs256, SECRET, Some(id)).err(),
            Some(E::Id)
        );
    }
    let set = |keys| KeySet::new(keys).err();
    let hmac = |id| HMAC.key(Algorithm::Hs256, id);
    let es256 = |id| P256.key(Algorithm::Es256, id);
    assert_eq!(set(vec![hmac(None), es256(None)]), Some(E::Mixed));
    assert_eq!(set(vec![hmac(Some("a")), es256(Some("b"))]), Some(E::Mixed));
    assert_eq!(
        set(vec![es256(Some("a")), es256(Some("a"))]),
        Some(E::SameId)
    );
    assert_eq!(
        set(vec![es256(Some("a")), es256(Some("b")), es256(None)]),
        None
    );
    assert_eq!(set(vec![hmac(None); 4]), None);
    assert_eq!(set(vec![hmac(None); 5]), Some(E::TooManyKeys));
    let many = |count: usize| {
        (0..count)
            .map(|id| HMAC.key(Algorithm::Hs256, Some(&id.to_string())))
            .collect()
    };
    assert_eq!(set(many(64)), None);
    assert_eq!(set(many(65)), Some(E::TooManyKeys));
}

#[test]
fn keys_come_from_pem() {
    use {Algorithm as A, KeyError as E};
    for (signer, wanted, expected) in [
        (&*RSA, None, Ok(A::Rs256)),
        (&RSA, Some(A::Ps384), Ok(A::Ps384)),
        (&RSA, Some(A::Es256), Err(E::AlgorithmOfKind)),
        (&RSA, Some(A::Hs256), Err(E::AlgorithmOfKind)),
        (&P256, None, Ok(A::Es256)),
        (&P256, Some(A::Es384), Err(E::AlgorithmOfKind)),
        (&P384, None, Ok(A::Es384)),
        (&P384, Some(A::Es384), Ok(A::Es384)),
        (&ED, None, Ok(A::EdDsa)),
        (&ED, Some(A::Rs256), Err(E::AlgorithmOfKind)),
    ] {
        let key = Key::pem(signer.public_pem().as_bytes(), wanted, None);
        assert_eq!(key.map(|key| key.algorithm()), expected);
    }
    let der = P256.public_der();
    let mut off_curve = der.clone();
    *off_curve.last_mut().unwrap() ^= 1;
    let mut other_oid = der.clone();
    other_oid[22] ^= 1;
    let two = P256.public_pem().repeat(2);
    for (text, expected) in [
        (armor("PRIVATE KEY", &der), E::PrivateKey),
        (armor("EC PRIVATE KEY", &der), E::PrivateKey),
        (armor("ENCRYPTED PRIVATE KEY", &der), E::PrivateKey),
        (armor("CERTIFICATE", &der), E::Certificate),
        (armor("RSA PUBLIC KEY", &der), E::Pem),
        (armor("PUBLIC KEY", &off_curve), E::Unsupported),
        (armor("PUBLIC KEY", &other_oid), E::Unsupported),
        (armor("PUBLIC KEY", &der[..der.len() - 1]), E::Unsupported),
        (armor("PUBLIC KEY", b"x"), E::Unsupported),
        (armor("PUBLIC KEY", b""), E::Unsupported),
        (two, E::Pem),
        ("x".into(), E::Pem),
        (String::new(), E::Pem),
    ] {
        assert_eq!(
            Key::pem(text.as_bytes(), None, None).err(),
            Some(expected),
            "{text}"
        );
    }
}

#[test]
fn keys_come_from_a_key_set() {
    let entries = [
        format!(
            r#"{{{},"kid":"rs","use":"sig","alg":"RS256","x5c":["AAAA"]}}"#,
            RSA.jwk()
        ),
        format!(r#"{{{},"kid":"ps","alg":"PS256"}}"#, RSA.jwk()),
        format!(r#"{{{},"kid":"plain"}}"#, RSA.jwk()),
        format!(
            r#"{{{},"kid":"p256","alg":"ES256","key_ops":["verify"]}}"#,
            P256.jwk()
        ),
        format!(r#"{{{},"kid":"p384"}}"#, P384.jwk()),
        format!(r#"{{{},"kid":"ed","alg":"EdDSA"}}"#, ED.jwk()),
    ];
    let document = format!(r#"{{"keys":[{}],"extra":1}}"#, entries.join(","));
    let jwks = Jwks::parse(&document, &JwksOptions::default()).unwrap();
    assert_eq!(jwks.skipped, []);
    let verifier = verifier(TokenPolicy::default(), jwks.keys);
    for (id, algorithm) in [
        ("rs", Algorithm::Rs256),
        ("ps", Algorithm::Ps256),
        ("plain", Algorithm::Rs256),
        ("p256", Algorithm::Es256),
        ("p384", Algorithm::Es384),
        ("ed", Algorithm::EdDsa),
    ] {
        let header = format!(r#"{{"alg":"{algorithm}","kid":"{id}"}}"#);
        let token = token_of(signer_of(algorithm), algorithm, &header, GOOD);
        assert!(verifier.verify(&token, NOW).is_ok(), "{id}");
    }
    // One RSA key under two names is still two keys, each with its own algorithm.
    let token = token_of(
        &RSA,
        Algorithm::Rs256,
        r#"{"alg":"RS256","kid":"ps"}"#,
        GOOD,
    );
    assert_eq!(
        verifier.verify(&token, NOW),
        Err(TokenError::AlgorithmOfKey)
    );
}

#[test]
fn x36_strange_keys_of_a_set_are_skipped_with_a_reason() {
    use KeyError as E;
    let good = format!("{{{}}}", ED.jwk());
    let rsa1024 = format!(
        r#""kty":"RSA","n":"{}","e":"AQAB""#,
        URL_SAFE_NO_PAD.encode([0xff; 128])
    );
    let (p256, secret) = (P256.jwk(), HMAC.jwk());
    for (entry, expected) in [
        (format!(r#"{{{p256},"use":"enc"}}"#), E::OtherUse),
        (format!(r#"{{{p256},"use":"SIG"}}"#), E::OtherUse),
        (format!(r#"{{{p256},"use":1}}"#), E::Jwk),
        (format!(r#"{{{p256},"key_ops":["sign"]}}"#), E::OtherUse),
        (format!(r#"{{{p256},"key_ops":"verify"}}"#), E::Jwk),
        (format!(r#"{{{p256},"d":"AAAA"}}"#), E::PrivateKey),
        (format!(r#"{{{p256},"alg":"ES384"}}"#), E::AlgorithmOfKind),
        (format!(r#"{{{p256},"alg":"HS256"}}"#), E::AlgorithmOfKind),
        (format!(r#"{{{p256},"alg":"ECDH-ES"}}"#), E::Unsupported),
        (format!(r#"{{{p256},"alg":null}}"#), E::Jwk),
        (format!(r#"{{{p256},"kid":7}}"#), E::Jwk),
        (format!(r#"{{{p256},"kid":""}}"#), E::Id),
        (
            p256.replace("P-256", "P-384")
                .replace("\"kty\"", "{\"kty\"")
                + "}",
            E::Jwk,
        ),
        (
            p256.replace("P-256", "secp256k1")
                .replace("\"kty\"", "{\"kty\"")
                + "}",
            E::Unsupported,
        ),
        (
            r#"{"kty":"EC","crv":"P-256","x":"AAAA","y":"AAAA"}"#.into(),
            E::Jwk,
        ),
        (
            format!(
                r#"{{"kty":"EC","crv":"P-256","x":"{0}","y":"{0}"}}"#,
                URL_SAFE_NO_PAD.encode([1; 32])
            ),
            E::Unsupported,
        ),
        (
            r#"{"kty":"EC","crv":"P-256","x":"=","y":"="}"#.into(),
            E::Jwk,
        ),
        (r#"{"kty":"EC","crv":"P-256"}"#.into(), E::Jwk),
        (
            r#"{"kty":"OKP","crv":"X25519","x":"AAAA"}"#.into(),
            E::Unsupported,
        ),
        (r#"{"kty":"OKP","crv":"Ed25519","x":"AAAA"}"#.into(), E::Jwk),
        (r#"{"kty":"RSA","n":"AQAB"}"#.into(), E::Jwk),
        (r#"{"kty":"RSA","n":"","e":""}"#.into(), E::Unsupported),
        (format!("{{{rsa1024}}}"), E::Unsupported),
        (r#"{"kty":"AKP"}"#.into(), E::Unsupported),
        ("{}".into(), E::Jwk),
        ("[]".into(), E::Jwk),
        ("null".into(), E::Jwk),
        // A secret out of a document that others may write (D1).
        (format!("{{{secret}}}"), E::SecretNotAllowed),
    ] {
        let document = format!(r#"{{"keys":[{entry},{good}]}}"#);
        let jwks = Jwks::parse(&document, &JwksOptions::default()).unwrap();
        assert_eq!(
            (jwks.keys.len(), jwks.skipped),
            (1, vec![(0, expected)]),
            "{entry}"
        );
        let alone = Jwks::parse(&format!(r#"{{"keys":[{entry}]}}"#), &JwksOptions::default());
        assert_eq!(alone.err(), Some(E::NoUsableKey));
    }
    let local = JwksOptions {
        allow_secrets: true,
        ..JwksOptions::default()
    };
    let jwks = Jwks::parse(&format!(r#"{{"keys":[{{{secret}}}]}}"#), &local).unwrap();
    assert_eq!(jwks.keys[0].algorithm(), Algorithm::Hs256);
    let short = r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#;
    assert_eq!(Jwks::parse(short, &local).err(), Some(E::NoUsableKey));
    // A set of both is one that no issuer can have.
    let both = Jwks::parse(&format!(r#"{{"keys":[{{{secret}}},{good}]}}"#), &local).unwrap();
    assert_eq!(KeySet::new(both.keys).err(), Some(E::Mixed));

    let many = vec![good.as_str(); 65].join(",");
    for (document, expected) in [
        ("", E::Jwks),
        ("[]", E::Jwks),
        ("{}", E::Jwks),
        (r#"{"keys":{}}"#, E::Jwks),
        (r#"{"keys":[]}"#, E::NoUsableKey),
        (&format!(r#"{{"keys":[{many}]}}"#), E::TooManyKeys),
        (&" ".repeat(Jwks::BYTES_MAX + 1), E::Jwks),
        (&"[".repeat(10_000), E::Jwks),
    ] {
        let outcome = Jwks::parse(document, &JwksOptions::default());
        assert_eq!(outcome.err(), Some(expected), "{document:.40}");
    }
}

#[test]
fn kept_claims_reach_the_rule() {
    let rule = Rule::parse(
        r#"role = "Admin" or realm_access.roles contains "editor" or projects contains {id}"#,
    )
    .unwrap();
    let policy = TokenPolicy {
        kept: rule.claims().into_iter().cloned().collect(),
        ..TokenPolicy::default()
    };
    let big = format!(r#""padding":"{}""#, "x".repeat(3000));
    for (claims, expected) in [
        (r#""role":"Admin""#, true),
        (r#""role":"User""#, false),
        (r#""role":["Admin"]"#, false),
        (r#""role":null"#, false),
        (
            r#""realm_access":{"roles":["viewer","editor"],"other":{}}"#,
            true,
        ),
        (r#""realm_access":{"roles":"editor"}"#, false),
        (r#""realm_access":["roles","editor"]"#, false),
        (r#""realm_access.roles":["editor"]"#, false),
        (r#""projects":[41,42]"#, true),
        (r#""projects":["42"]"#, true),
        (r#""projects":[42.0,{"id":42},[42],null]"#, false),
        (&big, false),
    ] {
        let claims = format!(r#"{{"sub":"ada","exp":1800000060,{claims}}}"#);
        let identity = verify_by(&policy, &claims).unwrap();
        let parameter = |name: &str| (name == "id").then_some("42");
        assert_eq!(
            rule.allows(identity.claims(), &parameter),
            expected,
            "{claims}"
        );
    }
    // Nothing is kept unless asked for.
    let identity = verify_by(&TokenPolicy::default(), GOOD).unwrap();
    assert_eq!(identity.claims(), &Claims::default());
    assert!(size_of::<Identity>() <= 96, "{}", size_of::<Identity>());
}

#[test]
fn d9_nothing_of_a_token_or_key_is_printed() {
    const CANARY: &str = "canary7f3a";
    let policy = TokenPolicy {
        kept: vec![ClaimPath::top_level("role")],
        ..TokenPolicy::default()
    };
    let claims = format!(r#"{{"sub":"ada","exp":1800000060,"jti":"{CANARY}","role":"{CANARY}"}}"#);
    let identity = verify_by(&policy, &claims).unwrap();
    assert!(!format!("{identity:?}").contains(CANARY));
    let secret = format!("{CANARY}0123456789abcdef0123456789");
    let key = Key::secret(Algorithm::Hs256, secret.as_bytes(), Some("k1")).unwrap();
    let verifier = verifier(policy, vec![key]);
    let printed = format!("{verifier:?}");
    assert!(
        printed.contains("k1") && !printed.contains(CANARY),
        "{printed}"
    );
    // Neither is anything of one that is refused.
    for (header, claims) in [
        (format!(r#"{{"alg":"{CANARY}"}}"#), GOOD.to_owned()),
        (
            format!(r#"{{"alg":"HS256","typ":"{CANARY}"}}"#),
            GOOD.to_owned(),
        ),
        (
            format!(r#"{{"alg":"HS256","kid":"{CANARY}"}}"#),
            GOOD.to_owned(),
        ),
        (
            r#"{"alg":"HS256"}"#.into(),
            format!(r#"{{"{CANARY}":1,"{CANARY}":1}}"#),
        ),
        (
            r#"{"alg":"HS256"}"#.into(),
            format!(r#"{{"exp":"{CANARY}"}}"#),
        ),
        (r#"{"alg":"HS256"}"#.into(), format!("{{{CANARY}")),
        (
            r#"{"alg":"HS256"}"#.into(),
            format!(r#"{{"sub":"{CANARY}","exp":1}}"#),
        ),
    ] {
        let token = token_of(&HMAC, Algorithm::Hs256, &header, &claims);
        let error = verifier.verify(&token, NOW).unwrap_err();
        let printed = format!("{error} {error:?} {}", error.label());
        assert!(!printed.contains(CANARY), "{printed}");
    }
}

#[test]
fn labels_are_a_closed_set() {
    let mut labels = TokenError::LABELS;
    labels.sort_unstable();
    assert!(labels.windows(2).all(|pair| pair[0] != pair[1]));
    let plain = |label: &str| {
        label
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    assert!(labels.iter().all(|label| plain(label)));
}

/// Every token that differs from a genuine one in a small way, by what was done to it.
fn mutations(token: &str) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let bytes = token.as_bytes();
    // Every bit of every character, where what results is text.
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut mutated = bytes.to_vec();
            mutated[at] ^= 1 << bit;
            if let Ok(mutated) = String::from_utf8(mutated) {
                all.push((format!("bit {bit} of {at}"), mutated));
            }
        }
    }
    for at in 0..=token.len() {
        let (before, after) = token.split_at(at);
        for inserted in ["A", ".", "=", " ", "\n", "\0", "%2E", "\u{200b}"] {
            all.push((
                format!("{inserted:?} at {at}"),
                format!("{before}{inserted}{after}"),
            ));
        }
        all.push((format!("cut at {at}"), before.to_owned()));
        all.push((format!("from {at}"), after.to_owned()));
        if let Some(rest) = after.get(1..) {
            all.push((format!("without {at}"), format!("{before}{rest}")));
            let first = &after[..1];
            all.push((format!("{at} twice"), format!("{before}{first}{after}")));
            if let Some(second) = after.get(1..2) {
                let rest = &after[2..];
                all.push((
                    format!("swapped {at}"),
                    format!("{before}{second}{first}{rest}"),
                ));
            }
        }
    }
    let parts: Vec<_> = token.split('.').collect();
    for order in [
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
        [0, 0, 2],
        [0, 1, 1],
        [1, 1, 2],
    ] {
        let picked: Vec<_> = order.iter().map(|&index| parts[index]).collect();
        all.push((format!("parts {order:?}"), picked.join(".")));
    }
    for form in [
        format!("{token}.{token}"),
        format!("{token}.{}", parts[2]),
        format!("{}.{token}", parts[0]),
        format!("Bearer {token}"),
        format!("\"{token}\""),
        format!("{token}=="),
        token.to_uppercase(),
        token.to_lowercase(),
        token.replace('-', "+").replace('_', "/") + "=",
        token.replace('.', ".."),
        token.replace('.', "\u{ff0e}"),
        token.replace('.', " . "),
    ] {
        all.push(("form".into(), form));
    }
    all.retain(|(_, mutated)| mutated != token);
    all
}

#[test]
fn no_mutated_token_is_accepted() {
    let mut tried = 0;
    for algorithm in [Algorithm::Hs256, Algorithm::Es256, Algorithm::EdDsa] {
        let key = signer_of(algorithm).key(algorithm, None);
        let verifier = verifier(TokenPolicy::default(), vec![key]);
        let token = signed(algorithm, r#"{"sub":"ada","exp":1800000060,"role":"User"}"#);
        assert!(verifier.verify(&token, NOW).is_ok());
        for (what, mutated) in mutations(&token) {
            assert!(
                verifier.verify(&mutated, NOW).is_err(),
                "{algorithm}, {what}: {mutated}"
            );
            tried += 1;
        }
    }
    assert!(tried > 300, "{tried}");
}

#[test]
fn claims_rewritten_by_somebody_else_are_refused() {
    // A genuine signature under other claims, and under another header.
    let token = signed(
        Algorithm::Hs256,
        r#"{"sub":"ada","exp":1800000060,"role":"User"}"#,
    );
    let parts: Vec<_> = token.split('.').collect();
    for claims in [
        r#"{"sub":"ada","exp":1800000060,"role":"Admin"}"#,
        r#"{"sub":"bob","exp":1800000060,"role":"User"}"#,
        r#"{"sub":"ada","exp":9000000000,"role":"User"}"#,
        r#"{ "sub":"ada","exp":1800000060,"role":"User"}"#,
        r#"{"exp":1800000060,"sub":"ada","role":"User"}"#,
    ] {
        let forged = format!(
            "{}.{}.{}",
            parts[0],
            URL_SAFE_NO_PAD.encode(claims),
            parts[2]
        );
        assert_eq!(
            hs256().verify(&forged, NOW),
            Err(TokenError::Signature),
            "{claims}"
        );
    }
    for header in [r#"{"alg":"HS256"}"#, r#"{"typ":"JWT","alg":"HS256"}"#] {
        let forged = format!(
            "{}.{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            parts[1],
            parts[2]
        );
        assert_eq!(
            hs256().verify(&forged, NOW),
            Err(TokenError::Signature),
            "{header}"
        );
    }
}

/// A JSON value of any kind, in text.
fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        any::<f32>()
            .prop_filter("finite", |value| value.is_finite())
            .prop_map(|value| format!("{value:?}")),
        "[ -!#-\\[\\]-~]{0,8}".prop_map(|text| format!("\"{text}\"")),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(|all| format!("[{}]", all.join(","))),
            prop::collection::vec(inner, 0..4).prop_map(|all| {
                let members: Vec<_> = all
                    .iter()
                    .enumerate()
                    .map(|(index, value)| format!("\"{index}\":{value}"))
                    .collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

proptest! {
    /// No text panics, and none but a signed one is accepted.
    #[test]
    fn any_text_is_refused(token in "[A-Za-z0-9._=-]{0,40}|\\PC{0,40}") {
        prop_assert!(hs256().verify(&token, NOW).is_err());
    }

    /// Whatever is signed, it is an identity whose parts are what the claims say, or a refusal.
    #[test]
    fn any_signed_claims_are_read_or_refused(
        sub in any_json(), exp in any_json(), iat in any_json(), aud in any_json(), role in any_json(),
    ) {
        let policy = TokenPolicy {
            require_expiry: false,
            kept: vec![ClaimPath::top_level("role")],
            ..TokenPolicy::default()
        };
        let claims = format!(
            r#"{{"sub":{sub},"exp":{exp},"iat":{iat},"aud":{aud},"role":{role}}}"#
        );
        // `aud` is always there, and no audience is configured.
        prop_assert!(verify_by(&policy, &claims).is_err());
        let claims = format!(r#"{{"sub":{sub},"role":{role}}}"#);
        if let Ok(identity) = verify_by(&policy, &claims) {
            let value: serde_json::Value = serde_json::from_str(&claims).unwrap();
            let expected = match &value["sub"] {
                serde_json::Value::String(text) => text.clone(),
                number => number.as_u64().unwrap().to_string(),
            };
            prop_assert_eq!(&**identity.user(), expected);
        }
    }

    /// A token is accepted exactly from `nbf` and `iat` to `exp`, widened by the leeway.
    #[test]
    fn time_agrees_with_a_plain_reckoning(
        exp in NOW - 100..NOW + 100,
        nbf in NOW - 100..NOW + 100,
        iat in NOW - 100..NOW + 100,
        leeway in 0_u64..50,
    ) {
        let policy = TokenPolicy {
            leeway: Duration::from_secs(leeway),
            ..TokenPolicy::default()
        };
        let claims = format!(r#"{{"sub":"ada","exp":{exp},"nbf":{nbf},"iat":{iat}}}"#);
        let expected = NOW < exp + leeway && nbf <= NOW + leeway && iat <= NOW + leeway;
        prop_assert_eq!(verify_by(&policy, &claims).is_ok(), expected);
    }

    /// Bytes changed anywhere in a signature of any kind.
    #[test]
    fn any_changed_signature_is_refused(
        which in prop::sample::select(Algorithm::ALL.to_vec()),
        at in any::<prop::sample::Index>(),
        by in 1_u8..,
    ) {
        let verifier = verifier(TokenPolicy::default(), vec![signer_of(which).key(which, None)]);
        let token = signed(which, GOOD);
        let (message, signature) = token.rsplit_once('.').unwrap();
        let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let at = at.index(signature.len());
        signature[at] ^= by;
        let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
        prop_assert_eq!(verifier.verify(&token, NOW), Err(TokenError::Signature));
    }
}
