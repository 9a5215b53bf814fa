//! Keys that sign tokens, for trying things out: the program's `token` command and the development
//! profile make tokens with them. A server signs nothing.

use std::fmt;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    Ed25519KeyPair, RsaEncoding, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Algorithm, Key, KeyError};

/// A key that signs, for one algorithm: the other half of a [`Key`].
pub struct SigningKey {
    algorithm: Algorithm,
    pair: Pair,
}

enum Pair {
    Secret(Box<hmac::Key>),
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    /// A shared secret for an HMAC algorithm.
    ///
    /// # Errors
    /// [`SigningKeyError::Secret`] with what [`Key::secret`] says of it.
    pub fn secret(algorithm: Algorithm, secret: &[u8]) -> Result<Self, SigningKeyError> {
        Key::secret(algorithm, secret, None).map_err(SigningKeyError::Secret)?;
        let kind = match algorithm {
            Algorithm::Hs384 => hmac::HMAC_SHA384,
            Algorithm::Hs512 => hmac::HMAC_SHA512,
            _ => hmac::HMAC_SHA256,
        };
        let pair = Pair::Secret(Box::new(hmac::Key::new(kind, secret)));
        Ok(Self { algorithm, pair })
    }

    /// A private key in PEM, not encrypted: PKCS#8 (`PRIVATE KEY`), PKCS#1 (`RSA PRIVATE KEY`) or SEC 1
    /// (`EC PRIVATE KEY`). P-256 is for ES256, P-384 for ES384, Ed25519 for EdDSA; an RSA key is for
    /// `algorithm`, RS256 if that is `None`.
    ///
    /// # Errors
    /// [`SigningKeyError`], all but `Secret` and `Failed`.
    pub fn pem(text: &[u8], algorithm: Option<Algorithm>) -> Result<Self, SigningKeyError> {
        let blocks = pem::parse_many(text).map_err(|_| SigningKeyError::Pem)?;
        // `openssl ecparam -genkey` writes the curve into a block of its own.
        let mut blocks = blocks.iter().filter(|block| block.tag() != "EC PARAMETERS");
        let (Some(block), None) = (blocks.next(), blocks.next()) else {
            return Err(SigningKeyError::Pem);
        };
        let der = block.contents();
        let pair = match block.tag() {
            // The old forms say in a header of the block that they are encrypted.
            _ if block.headers().iter().next().is_some() => return Err(SigningKeyError::Encrypted),
            "ENCRYPTED PRIVATE KEY" => return Err(SigningKeyError::Encrypted),
            "PRIVATE KEY" => Pair::from_pkcs8(der),
            "RSA PRIVATE KEY" => RsaKeyPair::from_der(der).ok().map(Pair::Rsa),
            "EC PRIVATE KEY" => Pair::from_ec(der),
            "PUBLIC KEY" | "CERTIFICATE" => return Err(SigningKeyError::Public),
            _ => return Err(SigningKeyError::Pem),
        };
        let pair = pair.ok_or(SigningKeyError::Unsupported)?;
        let own = match &pair {
            Pair::P256(_) => Algorithm::Es256,
            Pair::P384(_) => Algorithm::Es384,
            Pair::Ed25519(_) => Algorithm::EdDsa,
            Pair::Rsa(_) | Pair::Secret(_) => algorithm
                .filter(|algorithm| algorithm.is_rsa())
                .unwrap_or(Algorithm::Rs256),
        };
        if algorithm.is_some_and(|wanted| wanted != own) {
            return Err(SigningKeyError::AlgorithmOfKind);
        }
        Ok(Self {
            algorithm: own,
            pair,
        })
    }

    /// The one algorithm this key is for.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The token with these claims, a JSON object as it is to be written, and a header that names the
    /// algorithm and, if there is one, the key.
    ///
    /// # Errors
    /// [`SigningKeyError::Failed`], for which no cause is known.
    pub fn sign(&self, key_id: Option<&str>, claims: &str) -> Result<String, SigningKeyError> {
        let mut header = serde_json::json!({ "alg": self.algorithm.name(), "typ": "JWT" });
        if let Some(id) = key_id {
            header["kid"] = id.into();
        }
        let message = [header.to_string().as_str(), claims]
            .map(|part| URL_SAFE_NO_PAD.encode(part))
            .join(".");
        let signature = self.signature(message.as_bytes())?;
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    fn signature(&self, message: &[u8]) -> Result<Vec<u8>, SigningKeyError> {
        let random = SystemRandom::new();
        let failed = |_| SigningKeyError::Failed;
        Ok(match &self.pair {
            Pair::Secret(key) => hmac::sign(key, message).as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let padding: &dyn RsaEncoding = match self.algorithm {
                    Algorithm::Rs384 => &signature::RSA_PKCS1_SHA384,
                    Algorithm::Rs512 => &signature::RSA_PKCS1_SHA512,
                    Algorithm::Ps256 => &signature::RSA_PSS_SHA256,
                    Algorithm::Ps384 => &signature::RSA_PSS_SHA384,
                    Algorithm::Ps512 => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut signature)
                    .map_err(failed)?;
                signature
            }
            Pair::P256(pair) | Pair::P384(pair) => pair
                .sign(&random, message)
                .map_err(failed)?
                .as_ref()
                .to_vec(),
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        })
    }
}

impl Pair {
    fn from_pkcs8(der: &[u8]) -> Option<Self> {
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            return Some(Self::Ed25519(pair));
        }
        Self::from_ec(der).or_else(|| RsaKeyPair::from_pkcs8(der).ok().map(Self::Rsa))
    }

    /// In PKCS#8 or SEC 1.
    fn from_ec(der: &[u8]) -> Option<Self> {
        let p256 = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der);
        let p384 = || EcdsaKeyPair::from_private_key_der(&ECDSA_P384_SHA384_FIXED_SIGNING, der);
        match p256 {
            Ok(pair) => Some(Self::P256(pair)),
            Err(_) => p384().ok().map(Self::P384),
        }
    }
}

impl fmt::Debug for SigningKey {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// Why there is no key to sign with, or no signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SigningKeyError {
    /// The secret is no good one.
    Secret(KeyError),
    /// Not one private key in PEM.
    Pem,
    /// A public key or a certificate, which verify and do not sign.
    Public,
    /// The private key is encrypted.
    Encrypted,
    /// A kind, curve or size that is not served, or a broken key.
    Unsupported,
    /// The algorithm is not one for a key of this kind.
    AlgorithmOfKind,
    /// The cryptographic library refused.
    Failed,
}

impl fmt::Display for SigningKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret(error) => return error.fmt(f),
            Self::Pem => "not one private key in PEM",
            Self::Public => "this verifies tokens; to sign them takes the private key",
            Self::Encrypted => {
                "the private key is encrypted; write it out with `openssl pkey -in key.pem`"
            }
            Self::Unsupported => {
                "not a private key for RSA (2048 to 8192 bits), P-256, P-384 or Ed25519, or a broken one"
            }
            Self::AlgorithmOfKind => "a key of this kind is not one for the algorithm",
            Self::Failed => "the token could not be signed",
        })
    }
}

impl std::error::Error for SigningKeyError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::jwt::{KeySet, TokenPolicy, Verifier};

    const SECRET: &[u8] = b"0123456789abcdef0123456789ABCDEF";
    const CLAIMS: &str = r#"{"sub":"42","exp":1800000300}"#;
    const NOW: u64 = 1_800_000_000;

    fn verifies(key: Key, token: &str) -> bool {
        let keys = KeySet::new(vec![key]).unwrap();
        let verifier = Verifier::new(vec![(TokenPolicy::default(), keys)]).unwrap();
        verifier
            .verify(token, NOW)
            .is_ok_and(|identity| &**identity.user() == "42")
    }

    #[test]
    fn every_algorithm_signs_what_the_verifier_accepts() {
        let pairs = [
            &rcgen::PKCS_RSA_SHA256,
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ED25519,
        ]
        .map(|kind| rcgen::KeyPair::generate_for(kind).unwrap());
        for algorithm in Algorithm::ALL {
            let pair = match algorithm {
                Algorithm::Es256 => &pairs[1],
                Algorithm::Es384 => &pairs[2],
                Algorithm::EdDsa => &pairs[3],
                _ => &pairs[0],
            };
            let (signing, key) = if algorithm.is_hmac() {
                (
                    SigningKey::secret(algorithm, SECRET),
                    Key::secret(algorithm, SECRET, Some("k1")),
                )
            } else {
                (
                    SigningKey::pem(pair.serialize_pem().as_bytes(), Some(algorithm)),
                    Key::pem(
                        pair.public_key_pem().as_bytes(),
                        Some(algorithm),
                        Some("k1"),
                    ),
                )
            };
            let signing = signing.unwrap();
            assert_eq!(signing.algorithm(), algorithm);
            let token = signing.sign(Some("k1"), CLAIMS).unwrap();
            assert!(verifies(key.unwrap(), &token), "{algorithm}");
        }
        for (pair, own) in pairs.iter().zip([
            Algorithm::Rs256,
            Algorithm::Es256,
            Algorithm::Es384,
            Algorithm::EdDsa,
        ]) {
            let signing = SigningKey::pem(pair.serialize_pem().as_bytes(), None).unwrap();
            assert_eq!(signing.algorithm(), own);
            for other in Algorithm::ALL.iter().filter(|other| **other != own) {
                let is_same_kind = own.is_rsa() && other.is_rsa();
                let outcome = SigningKey::pem(pair.serialize_pem().as_bytes(), Some(*other));
                assert_eq!(outcome.is_ok(), is_same_kind, "{own} {other}");
            }
        }
    }

    #[test]
    fn the_old_forms_of_private_keys_are_read() {
        use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der};
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let der: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der().unwrap();
        let curve = pem::encode(&pem::Pem::new("EC PARAMETERS", vec![6, 0]));
        let key = pem::encode(&pem::Pem::new("EC PRIVATE KEY", der.as_ref()));
        let signing = SigningKey::pem(format!("{curve}{key}").as_bytes(), None).unwrap();
        assert_eq!(signing.algorithm(), Algorithm::Es256);

        let rsa = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        // PKCS#8 is PKCS#1 behind 26 bytes that say so, for a key of 2048 bits.
        let inner = rsa.serialize_der()[26..].to_vec();
        let text = pem::encode(&pem::Pem::new("RSA PRIVATE KEY", inner));
        let signing = SigningKey::pem(text.as_bytes(), Some(Algorithm::Ps384)).unwrap();
        let token = signing.sign(None, CLAIMS).unwrap();
        let public = rsa.public_key_pem();
        let key = Key::pem(public.as_bytes(), Some(Algorithm::Ps384), None).unwrap();
        assert!(verifies(key, &token));
    }

    #[test]
    fn what_cannot_sign_says_why() {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let private = pair.serialize_pem();
        let pem = |tag: &str| pem::encode(&pem::Pem::new(tag, vec![1, 2, 3]));
        let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\
                   DEK-Info: AES-128-CBC,00\n\nAQID\n-----END RSA PRIVATE KEY-----\n";
        for (text, expected) in [
            (String::new(), SigningKeyError::Pem),
            ("nonsense".into(), SigningKeyError::Pem),
            (pem("SOMETHING"), SigningKeyError::Pem),
            (format!("{private}{private}"), SigningKeyError::Pem),
            (pair.public_key_pem(), SigningKeyError::Public),
            (pem("CERTIFICATE"), SigningKeyError::Public),
            (pem("ENCRYPTED PRIVATE KEY"), SigningKeyError::Encrypted),
            (old.into(), SigningKeyError::Encrypted),
            (pem("PRIVATE KEY"), SigningKeyError::Unsupported),
            (pem("EC PRIVATE KEY"), SigningKeyError::Unsupported),
        ] {
            let error = SigningKey::pem(text.as_bytes(), None).unwrap_err();
            assert_eq!(error, expected, "{text}");
        }
        let error = SigningKey::secret(Algorithm::Hs256, b"short").unwrap_err();
        assert_eq!(error, SigningKeyError::Secret(KeyError::SecretTooShort));
        assert!(SigningKey::secret(Algorithm::EdDsa, SECRET).is_err());
    }

    #[test]
    fn d9_a_signing_key_is_not_printed() {
        let key = SigningKey::secret(Algorithm::Hs256, SECRET).unwrap();
        assert_eq!(format!("{key:?}"), "SigningKey { algorithm: Hs256, .. }");
    }
}
