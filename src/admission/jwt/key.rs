//! Keys that verify tokens: what makes one, what is refused as one, and which of them a token may be
//! tried with.
//!
//! The algorithm belongs to the key, never to the token: a [`Key`] is made for one [`Algorithm`], and
//! a token that names another is refused before any arithmetic. A [`KeySet`] holds the keys of one
//! issuer, current and previous; HMAC secrets never stand beside public keys, so no byte of a public
//! key can be taken for a secret.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::{PublicEncryptingKey, PublicKeyComponents};
use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;

/// A signature algorithm of RFC 7518 §3 or RFC 8037. `none` is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519 (RFC 8037).
    EdDsa,
}

impl Algorithm {
    /// All algorithms.
    pub const ALL: [Self; 12] = [
        Self::Hs256,
        Self::Hs384,
        Self::Hs512,
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    /// The name in the `alg` header, with case (RFC 7515 §4.1.1).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of this name, if it is served.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
    }

    /// Is it keyed by a shared secret?
    #[must_use]
    pub const fn is_hmac(self) -> bool {
        matches!(self, Self::Hs256 | Self::Hs384 | Self::Hs512)
    }

    /// Is it keyed by an RSA key?
    #[must_use]
    pub const fn is_rsa(self) -> bool {
        matches!(
            self,
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512
        )
    }

    pub(super) const fn to_jsonwebtoken(self) -> jsonwebtoken::Algorithm {
        use jsonwebtoken::Algorithm as J;
        match self {
            Self::Hs256 => J::HS256,
            Self::Hs384 => J::HS384,
            Self::Hs512 => J::HS512,
            Self::Rs256 => J::RS256,
            Self::Rs384 => J::RS384,
            Self::Rs512 => J::RS512,
            Self::Ps256 => J::PS256,
            Self::Ps384 => J::PS384,
            Self::Ps512 => J::PS512,
            Self::Es256 => J::ES256,
            Self::Es384 => J::ES384,
            Self::EdDsa => J::EdDSA,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One key, for one algorithm.
#[derive(Clone)]
pub struct Key {
    id: Option<Box<str>>,
    algorithm: Algorithm,
    /// Length of a signature in bytes: the same for all that this key can verify.
    signature_bytes: usize,
    decoding: DecodingKey,
}

impl Key {
    /// Shortest secret in bytes. RFC 7518 §3.2 asks for as many bits as the hash has, and RFC 2104 §3
    /// for no more than makes guessing hopeless; one floor for all three hashes is enough.
    pub const SECRET_BYTES_MIN: usize = 32;
    /// Longest key identifier in bytes.
    pub const ID_BYTES_MAX: usize = 256;

    /// A shared secret for an HMAC algorithm.
    ///
    /// # Errors
    /// [`KeyError::SecretTooShort`]; [`KeyError::SecretTooPlain`] for one of fewer than eight
    /// different bytes; [`KeyError::SecretIsKeyFile`] for the text of a key file, which is no secret;
    /// [`KeyError::AlgorithmOfKind`] if `algorithm` is no HMAC.
    pub fn secret(algorithm: Algorithm, secret: &[u8], id: Option<&str>) -> Result<Self, KeyError> {
        if !algorithm.is_hmac() {
            return Err(KeyError::AlgorithmOfKind);
        }
        if secret.len() < Self::SECRET_BYTES_MIN {
            return Err(KeyError::SecretTooShort);
        }
        if secret.trim_ascii_start().starts_with(b"-----BEGIN") {
            return Err(KeyError::SecretIsKeyFile);
        }
        let mut seen = [false; 256];
        for &byte in secret {
            seen[usize::from(byte)] = true;
        }
        if seen.iter().filter(|&&is_there| is_there).count() < 8 {
            return Err(KeyError::SecretTooPlain);
        }
        let signature_bytes = match algorithm {
            Algorithm::Hs384 => 48,
            Algorithm::Hs512 => 64,
            _ => 32,
        };
        let decoding = DecodingKey::from_secret(secret);
        Self::new(id, algorithm, signature_bytes, decoding)
    }

    /// A public key in PEM, `PUBLIC KEY` (RFC 7468 §13). P-256 is for ES256, P-384 for ES384, Ed25519
    /// for EdDSA; an RSA key is for `algorithm`, RS256 if that is `None`.
    ///
    /// # Errors
    /// [`KeyError::PrivateKey`] and [`KeyError::Certificate`] for those, [`KeyError::Pem`] for what is
    /// neither, or not exactly one public key; [`KeyError::Unsupported`] for keys of another kind, and
    /// for RSA outside 2048 to 8192 bits; [`KeyError::AlgorithmOfKind`] if the key is not one for
    /// `algorithm`.
    pub fn pem(
        text: &[u8],
        algorithm: Option<Algorithm>,
        id: Option<&str>,
    ) -> Result<Self, KeyError> {
        let blocks = pem::parse_many(text).map_err(|_| KeyError::Pem)?;
        let [block] = blocks.as_slice() else {
            return Err(KeyError::Pem);
        };
        match block.tag() {
            "PUBLIC KEY" => Self::public(block.contents(), algorithm, id),
            "CERTIFICATE" => Err(KeyError::Certificate),
            tag if tag.ends_with("PRIVATE KEY") => Err(KeyError::PrivateKey),
            _ => Err(KeyError::Pem),
        }
    }

    /// A public key as `SubjectPublicKeyInfo` (RFC 5280 §4.1), in DER.
    fn public(der: &[u8], wanted: Option<Algorithm>, id: Option<&str>) -> Result<Self, KeyError> {
        let (own, signature_bytes) = if is_key_for(&signature::ECDSA_P256_SHA256_FIXED, der) {
            (Algorithm::Es256, 64)
        } else if is_key_for(&signature::ECDSA_P384_SHA384_FIXED, der) {
            (Algorithm::Es384, 96)
        } else if is_key_for(&signature::ED25519, der) {
            (Algorithm::EdDsa, 64)
        } else if is_key_for(&signature::RSA_PKCS1_2048_8192_SHA256, der) {
            let key = PublicEncryptingKey::from_der(der).map_err(|_| KeyError::Unsupported)?;
            let own = wanted.filter(|algorithm| algorithm.is_rsa());
            (own.unwrap_or(Algorithm::Rs256), key.key_size_bytes())
        } else {
            return Err(KeyError::Unsupported);
        };
        if wanted.is_some_and(|wanted| wanted != own) {
            return Err(KeyError::AlgorithmOfKind);
        }
        let decoding = match own {
            Algorithm::Es256 | Algorithm::Es384 => DecodingKey::from_ec_der(der),
            Algorithm::EdDsa => DecodingKey::from_ed_der(der),
            _ => DecodingKey::from_rsa_der(der),
        };
        Self::new(id, own, signature_bytes, decoding)
    }

    fn new(
        id: Option<&str>,
        algorithm: Algorithm,
        signature_bytes: usize,
        decoding: DecodingKey,
    ) -> Result<Self, KeyError> {
        if id.is_some_and(|id| id.is_empty() || id.len() > Self::ID_BYTES_MAX) {
            return Err(KeyError::Id);
        }
        Ok(Self {
            id: id.map(Box::from),
            algorithm,
            signature_bytes,
            decoding,
        })
    }

    /// The identifier that a token's `kid` names, if the key has one.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The one algorithm this key is for.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Can a signature that takes this many base64url digits be one of this key's?
    pub(super) const fn fits_signature(&self, digits: usize) -> bool {
        digits == (self.signature_bytes * 4).div_ceil(3)
    }

    /// Is `signature`, in base64url, this key's for `message`? Wrong base64url is not. For an HMAC the
    /// comparison takes the same time wherever the two differ.
    pub(super) fn verifies(&self, message: &[u8], signature: &str) -> bool {
        let algorithm = self.algorithm.to_jsonwebtoken();
        jsonwebtoken::crypto::verify(signature, message, &self.decoding, algorithm).unwrap_or(false)
    }
}

impl fmt::Debug for Key {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

fn is_key_for(algorithm: &'static dyn VerificationAlgorithm, der: &[u8]) -> bool {
    ParsedPublicKey::new(algorithm, der).is_ok()
}

/// The keys of one issuer. Looking one up is O(keys).
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    keys: Box<[Key]>,
}

impl KeySet {
    /// Most keys in a set.
    pub const KEYS_MAX: usize = 64;
    /// Most keys without an identifier: a token that names none is tried with each of them, so this
    /// bounds what a forged token can make the server compute.
    pub const UNNAMED_MAX: usize = 4;

    /// A set of these keys, current and previous ones in any order. An empty set verifies nothing: it
    /// is what an issuer has before its keys were fetched.
    ///
    /// # Errors
    /// [`KeyError::Mixed`] for secrets beside public keys, [`KeyError::SameId`] for two keys of one
    /// identifier and algorithm, [`KeyError::TooManyKeys`] beyond [`KeySet::KEYS_MAX`] or
    /// [`KeySet::UNNAMED_MAX`].
    pub fn new(keys: Vec<Key>) -> Result<Self, KeyError> {
        let secrets = keys.iter().filter(|key| key.algorithm.is_hmac()).count();
        if secrets != 0 && secrets != keys.len() {
            return Err(KeyError::Mixed);
        }
        let unnamed = keys.iter().filter(|key| key.id.is_none()).count();
        if keys.len() > Self::KEYS_MAX || unnamed > Self::UNNAMED_MAX {
            return Err(KeyError::TooManyKeys);
        }
        for (index, key) in keys.iter().enumerate() {
            let is_same = |other: &Key| other.id == key.id && other.algorithm == key.algorithm;
            if key.id.is_some() && keys[..index].iter().any(is_same) {
                return Err(KeyError::SameId);
            }
        }
        Ok(Self { keys: keys.into() })
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// The keys a token may be tried with: those whose identifier it names; those without one, if none
    /// has the identifier or it names none; and if it names none, a key that is the only one. At most
    /// [`KeySet::UNNAMED_MAX`] for each algorithm.
    pub(super) fn for_id<'k>(
        &'k self,
        id: Option<&'k str>,
    ) -> impl Iterator<Item = &'k Key> + Clone {
        let is_named = move |key: &Key| id.is_some() && key.id() == id;
        let any_named = self.keys.iter().any(is_named);
        let is_only = id.is_none() && self.keys.len() == 1;
        self.keys.iter().filter(move |key| {
            if any_named {
                is_named(key)
            } else {
                key.id.is_none() || is_only
            }
        })
    }
}

/// How to read a JSON Web Key Set (RFC 7517 §5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwksOptions {
    /// Whether `oct` keys count: secrets, which only a local file may hold. Default false.
    pub allow_secrets: bool,
    /// The algorithm of RSA keys that name none. Default RS256.
    pub rsa_default: Algorithm,
}

impl Default for JwksOptions {
    fn default() -> Self {
        Self {
            allow_secrets: false,
            rsa_default: Algorithm::Rs256,
        }
    }
}

/// What a JSON Web Key Set holds.
#[derive(Debug)]
pub struct Jwks {
    /// The keys that can verify tokens.
    pub keys: Vec<Key>,
    /// The others, by their place in the document, and why each is of no use.
    pub skipped: Vec<(usize, KeyError)>,
}

impl Jwks {
    /// Longest document in bytes.
    pub const BYTES_MAX: usize = 256 * 1024;

    /// Reads a document. Keys for something else than verifying signatures (`use`, `key_ops`), of
    /// unknown kinds, or broken are skipped: a set is published for many readers, and one strange
    /// key must not take the others away. URLs and certificates within (`x5u`, `x5c`) are ignored.
    ///
    /// # Errors
    /// [`KeyError::Jwks`] if it is too long or no key set; [`KeyError::NoUsableKey`] if no key is left.
    pub fn parse(text: &str, options: &JwksOptions) -> Result<Self, KeyError> {
        if text.len() > Self::BYTES_MAX {
            return Err(KeyError::Jwks);
        }
        let document: serde_json::Value = serde_json::from_str(text).map_err(|_| KeyError::Jwks)?;
        let entries = document.get("keys").and_then(serde_json::Value::as_array);
        let entries = entries.ok_or(KeyError::Jwks)?;
        if entries.len() > KeySet::KEYS_MAX {
            return Err(KeyError::TooManyKeys);
        }
        let (mut keys, mut skipped) = (Vec::new(), Vec::new());
        for (index, entry) in entries.iter().enumerate() {
            match read_jwk(entry, options) {
                Ok(key) => keys.push(key),
                Err(error) => skipped.push((index, error)),
            }
        }
        if keys.is_empty() {
            return Err(KeyError::NoUsableKey);
        }
        Ok(Self { keys, skipped })
    }
}

/// Reads one key (RFC 7517 §4, RFC 7518 §6, RFC 8037 §2).
fn read_jwk(entry: &serde_json::Value, options: &JwksOptions) -> Result<Key, KeyError> {
    // A member of the wrong type is an error and not an absent one.
    let text = |name: &str| match entry.get(name) {
        None => Ok(None),
        Some(serde_json::Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(KeyError::Jwk),
    };
    let bytes = |name: &str| {
        let digits = text(name)?.ok_or(KeyError::Jwk)?;
        URL_SAFE_NO_PAD.decode(digits).map_err(|_| KeyError::Jwk)
    };
    if text("use")?.is_some_and(|purpose| purpose != "sig") {
        return Err(KeyError::OtherUse);
    }
    if let Some(operations) = entry.get("key_ops") {
        let operations = operations.as_array().ok_or(KeyError::Jwk)?;
        if !operations.iter().any(|operation| operation == "verify") {
            return Err(KeyError::OtherUse);
        }
    }
    let kind = text("kty")?.ok_or(KeyError::Jwk)?;
    if kind != "oct" && entry.get("d").is_some() {
        return Err(KeyError::PrivateKey);
    }
    let algorithm = text("alg")?
        .map(|name| Algorithm::from_name(name).ok_or(KeyError::Unsupported))
        .transpose()?;
    let id = text("kid")?;
    match (kind, text("crv")?) {
        ("oct", _) if !options.allow_secrets => Err(KeyError::SecretNotAllowed),
        ("oct", _) => {
            let algorithm = algorithm.unwrap_or(Algorithm::Hs256);
            Key::secret(algorithm, &bytes("k")?, id)
        }
        ("RSA", _) => {
            let (n, e) = (bytes("n")?, bytes("e")?);
            let components = PublicKeyComponents { n, e };
            let key: PublicEncryptingKey =
                components.try_into().map_err(|_| KeyError::Unsupported)?;
            let der: PublicKeyX509Der<'_> = key.as_der().map_err(|_| KeyError::Unsupported)?;
            Key::public(
                der.as_ref(),
                Some(algorithm.unwrap_or(options.rsa_default)),
                id,
            )
        }
        ("EC", Some("P-256")) => {
            let point = point(&bytes("x")?, &bytes("y")?, 32)?;
            Key::public(&[SPKI_P256, &point].concat(), algorithm, id)
        }
        ("EC", Some("P-384")) => {
            let point = point(&bytes("x")?, &bytes("y")?, 48)?;
            Key::public(&[SPKI_P384, &point].concat(), algorithm, id)
        }
        ("OKP", Some("Ed25519")) => {
            let x = bytes("x")?;
            if x.len() != 32 {
                return Err(KeyError::Jwk);
            }
            Key::public(&[SPKI_ED25519, &x].concat(), algorithm, id)
        }
        _ => Err(KeyError::Unsupported),
    }
}

/// An uncompressed point without its first byte (SEC 1 §2.3.3), whose coordinates have their full
/// length (RFC 7518 §6.2.1.2).
fn point(x: &[u8], y: &[u8], bytes: usize) -> Result<Vec<u8>, KeyError> {
    if x.len() != bytes || y.len() != bytes {
        return Err(KeyError::Jwk);
    }
    Ok([x, y].concat())
}

/// What stands before the coordinates in a `SubjectPublicKeyInfo` of a P-256 key (RFC 5480 §2): the
/// outer sequence, ecPublicKey, prime256v1, the bit string, and the mark of an uncompressed point.
const SPKI_P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
/// The same for P-384: secp384r1.
const SPKI_P384: &[u8] = &[
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b,
    0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00, 0x04,
];
/// What stands before the key in a `SubjectPublicKeyInfo` of an Ed25519 key (RFC 8410 §4).
const SPKI_ED25519: &[u8] = &[
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// Why something is not used as a key. No variant carries a byte of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyError {
    /// A secret below [`Key::SECRET_BYTES_MIN`].
    SecretTooShort,
    /// A secret of fewer than eight different bytes.
    SecretTooPlain,
    /// The text of a key file in place of a secret.
    SecretIsKeyFile,
    /// A secret in a key set that may hold none.
    SecretNotAllowed,
    /// The algorithm is not one for a key of this kind.
    AlgorithmOfKind,
    /// Not one public key in PEM.
    Pem,
    /// A private key where the public one is enough.
    PrivateKey,
    /// A certificate.
    Certificate,
    /// A kind, curve, size or algorithm that is not served, or a point that is not on its curve.
    Unsupported,
    /// An identifier that is empty or too long.
    Id,
    /// Not a key set.
    Jwks,
    /// A key of a set with a member missing, or of the wrong type or length.
    Jwk,
    /// A key of a set that is not for verifying signatures.
    OtherUse,
    /// A key set without a key that could verify anything.
    NoUsableKey,
    /// Secrets beside public keys.
    Mixed,
    /// Two keys with one identifier and one algorithm.
    SameId,
    /// More keys than a set may hold, or more without an identifier.
    TooManyKeys,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SecretTooShort => {
                "the secret is shorter than 32 bytes; make one with `openssl rand -hex 32`"
            }
            Self::SecretTooPlain => {
                "the secret has fewer than 8 different bytes; make one with `openssl rand -hex 32`"
            }
            Self::SecretIsKeyFile => {
                "this is the text of a key file and not a secret; name a public-key algorithm"
            }
            Self::SecretNotAllowed => {
                "a secret (kty oct) counts only in a local file that may hold one"
            }
            Self::AlgorithmOfKind => "a key of this kind is not one for the algorithm",
            Self::Pem => "not one `PUBLIC KEY` block in PEM",
            Self::PrivateKey => {
                "this is a private key, and the public one is enough: \
                 `openssl pkey -in private.pem -pubout`"
            }
            Self::Certificate => {
                "this is a certificate; take its key: \
                 `openssl x509 -in certificate.pem -noout -pubkey`"
            }
            Self::Unsupported => {
                "not a key for RSA (2048 to 8192 bits), P-256, P-384 or Ed25519, or a broken one"
            }
            Self::Id => "the key identifier is empty or longer than 256 bytes",
            Self::Jwks => "not a JSON Web Key Set, or longer than 256 KiB",
            Self::Jwk => "a member is missing, or of the wrong type or length",
            Self::OtherUse => "not a key for verifying signatures",
            Self::NoUsableKey => "no key in the set can verify a token",
            Self::Mixed => {
                "secrets and public keys do not stand in one set; give each its own issuer"
            }
            Self::SameId => "two keys have the same identifier and algorithm",
            Self::TooManyKeys => "more than 64 keys, or more than 4 without an identifier",
        })
    }
}

impl std::error::Error for KeyError {}
