//! Where an issuer's keys come from: plain data, as an operator states it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::admission::jwt::{Algorithm, JwksOptions, TokenPolicy};
use crate::outbound;

/// An issuer of tokens: what they must be like, and where the keys to verify them come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerKeys {
    /// What its tokens must be like.
    pub policy: TokenPolicy,
    /// Its keys, at least one source. Current and previous keys stand side by side, in any order; at
    /// most one source is a URL, and secrets stand neither beside public keys nor beside a URL.
    pub sources: Vec<KeySource>,
}

/// One source of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A shared secret, resolved from wherever it was kept.
    Secret {
        /// The secret.
        secret: Secret,
        /// The HMAC algorithm it is for.
        algorithm: Algorithm,
        /// What tokens call it (`kid`). `None`: tokens that name no key.
        id: Option<String>,
    },
    /// A file with a shared secret, as secret stores mount them.
    SecretFile {
        /// The file, of at most 4 KiB; the line end behind the secret does not count. Read at start and
        /// by [`KeyRing::reload`](super::KeyRing::reload).
        path: PathBuf,
        /// The HMAC algorithm it is for.
        algorithm: Algorithm,
        /// What tokens call it (`kid`). `None`: tokens that name no key.
        id: Option<String>,
    },
    /// A file with one public key in PEM.
    PemFile {
        /// The file, of at most 64 KiB. Read at start and by [`KeyRing::reload`](super::KeyRing::reload).
        path: PathBuf,
        /// The algorithm it is for. `None`: what follows from the key, RS256 for RSA.
        algorithm: Option<Algorithm>,
        /// What tokens call it (`kid`). `None`: tokens that name no key.
        id: Option<String>,
    },
    /// A file with a JSON Web Key Set.
    JwksFile {
        /// The file, of at most 256 KiB. Read at start and by [`KeyRing::reload`](super::KeyRing::reload).
        path: PathBuf,
        /// How it is read.
        options: JwksOptions,
    },
    /// A JSON Web Key Set fetched over HTTP.
    JwksUrl(JwksUrl),
}

/// A JSON Web Key Set fetched over HTTP, and how.
#[derive(Clone, PartialEq, Eq)]
pub struct JwksUrl {
    /// The address: `https://host[:port]/path[?query]`, without user and password. A query is sent
    /// and never shown.
    pub url: String,
    /// The algorithm of RSA keys that name none. Default RS256.
    pub rsa_default: Algorithm,
    /// How often the set is fetched while that succeeds. Default 10 min; up to a tenth is taken off at
    /// random, so that servers started together do not ask together.
    pub refresh: Duration,
    /// How soon a failed fetch is tried again; doubled with each further failure, up to `refresh`.
    /// Default 5 s.
    pub retry: Duration,
    /// The shortest time between two fetches that unknown key identifiers cause. Within it, an
    /// identifier that the last answer did not have is taken as not existing. Default 1 min.
    pub unknown_key_interval: Duration,
    /// How long the last good set is used while no fetch succeeds; not below `refresh`. Afterwards it
    /// is dropped, since a key may have been withdrawn meanwhile. Default 24 h.
    pub max_age: Duration,
    /// How long one fetch may take, from resolving the name to the last byte. Default 5 s.
    pub timeout: Duration,
    /// Whether `http:` is allowed, with which anyone on the way can make tokens. Default false.
    pub allow_http: bool,
    /// Whether the name may resolve to an address outside the public internet
    /// ([`is_public`](crate::admission::address::is_public)). Default false.
    pub allow_private_addresses: bool,
    /// Certificates in PEM to trust besides the system's (those of `SSL_CERT_FILE` and `SSL_CERT_DIR`,
    /// where these are set), for an issuer with an authority of its own. At most 2 MiB; read for each
    /// fetch. Default `None`.
    pub ca_file: Option<PathBuf>,
}

impl JwksUrl {
    /// This address with all defaults.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            rsa_default: Algorithm::Rs256,
            refresh: Duration::from_secs(10 * 60),
            retry: Duration::from_secs(5),
            unknown_key_interval: Duration::from_secs(60),
            max_age: Duration::from_secs(24 * 60 * 60),
            timeout: Duration::from_secs(5),
            allow_http: false,
            allow_private_addresses: false,
            ca_file: None,
        }
    }

    /// The address as it may be shown: without query, fragment, user and password.
    #[must_use]
    pub fn shown(&self) -> String {
        outbound::shown(&self.url)
    }
}

impl fmt::Debug for JwksUrl {
    /// Without what the address may hold of secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwksUrl")
            .field("url", &self.shown())
            .field("rsa_default", &self.rsa_default)
            .field("refresh", &self.refresh)
            .field("retry", &self.retry)
            .field("unknown_key_interval", &self.unknown_key_interval)
            .field("max_age", &self.max_age)
            .field("timeout", &self.timeout)
            .field("allow_http", &self.allow_http)
            .field("allow_private_addresses", &self.allow_private_addresses)
            .field("ca_file", &self.ca_file)
            .finish()
    }
}

/// Bytes that nobody prints, wiped when they are dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes as they are: no white space is trimmed.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(super) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d9_an_address_is_shown_without_its_secrets() {
        for (url, expected) in [
            ("https://id.example/keys", "https://id.example/keys"),
            ("https://id.example/k?key=canary", "https://id.example/k"),
            ("https://id.example?canary", "https://id.example"),
            ("https://id.example/k#canary", "https://id.example/k"),
            ("https://u:canary@id.example:8/k", "https://id.example:8/k"),
            ("https://a@canary@id.example/k@v", "https://id.example/k@v"),
            ("https://[::1]:8443/k", "https://[::1]:8443/k"),
            ("canary@id.example/k", "://id.example/k"),
        ] {
            let source = JwksUrl::new(url);
            assert_eq!(source.shown(), expected);
            assert!(!format!("{source:?}").contains("canary"), "{url}");
        }
    }

    #[test]
    fn d9_a_secret_is_not_printed() {
        let source = KeySource::Secret {
            secret: Secret::new(b"canary".to_vec()),
            algorithm: Algorithm::Hs256,
            id: None,
        };
        let text = format!("{source:?}");
        assert!(text.contains("redacted"), "{text}");
        assert!(
            !text.contains("canary") && !text.contains("99, 97"),
            "{text}"
        );
    }
}
