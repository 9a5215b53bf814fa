//! Keys from secrets and files. Everything is read and checked before anything is used.

use std::fmt::{self, Write as _};
use std::path::Path;

use zeroize::Zeroizing;

use super::error::{KeyFault, KeyProblem};
use super::source::{IssuerKeys, KeySource};
use crate::admission::jwt::{Jwks, Key, KeyError};
use crate::file;

/// Largest file with a secret in bytes.
const SECRET_BYTES_MAX: u64 = 4 * 1024;
/// Largest PEM file in bytes; a public key of 8192 bits takes 2 KiB.
const PEM_BYTES_MAX: u64 = 64 * 1024;

/// The keys of an issuer that need no network. Every fault is added to `faults`.
pub(super) fn load(issuer: &IssuerKeys, faults: &mut Vec<KeyFault>) -> Vec<Key> {
    let mut keys = Vec::new();
    let (mut secrets, mut urls) = (0, 0);
    for source in &issuer.sources {
        let found = match source {
            KeySource::Secret {
                secret,
                algorithm,
                id,
            } => {
                secrets += 1;
                Key::secret(*algorithm, secret.expose(), id.as_deref())
                    .map(|key| vec![key])
                    .map_err(|error| KeyProblem::Key(error).at(secret_place(issuer, secrets, id)))
            }
            KeySource::SecretFile {
                path,
                algorithm,
                id,
            } => read(path, SECRET_BYTES_MAX)
                .and_then(|text| {
                    let secret = text.strip_suffix(b"\n").unwrap_or(&text);
                    let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
                    Key::secret(*algorithm, secret, id.as_deref()).map_err(KeyProblem::Key)
                })
                .map(|key| vec![key])
                .map_err(|problem| problem.at(file_place(issuer, path))),
            KeySource::PemFile {
                path,
                algorithm,
                id,
            } => read(path, PEM_BYTES_MAX)
                .and_then(|text| {
                    Key::pem(&text, *algorithm, id.as_deref()).map_err(KeyProblem::Key)
                })
                .map(|key| vec![key])
                .map_err(|problem| problem.at(file_place(issuer, path))),
            KeySource::JwksFile { path, options } => read(path, Jwks::BYTES_MAX as u64)
                .and_then(|text| {
                    let text =
                        std::str::from_utf8(&text).map_err(|_| KeyProblem::Key(KeyError::Jwks))?;
                    Jwks::parse(text, options).map_err(KeyProblem::Key)
                })
                .map(|set| {
                    for (index, error) in set.skipped {
                        tracing::warn!(
                            file = %path.display(),
                            key = index + 1,
                            %error,
                            "a key of the set is not used"
                        );
                    }
                    set.keys
                })
                .map_err(|problem| problem.at(file_place(issuer, path))),
            KeySource::JwksUrl(_) => {
                urls += 1;
                Ok(Vec::new())
            }
        };
        match found {
            Ok(found) => keys.extend(found),
            Err(fault) => faults.push(fault),
        }
    }
    let has_secret = secrets != 0 || keys.iter().any(|key| key.algorithm().is_hmac());
    for (is_so, problem) in [
        (issuer.sources.is_empty(), KeyProblem::NoSource),
        (urls > 1, KeyProblem::SeveralUrls),
        (urls != 0 && has_secret, KeyProblem::SecretWithUrl),
    ] {
        if is_so {
            faults.push(problem.at(place(issuer)));
        }
    }
    keys
}

/// An issuer as faults and log lines name it.
pub(super) struct Named<'n>(pub(super) Option<&'n str>);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(f, "issuer {name:?}"),
            None => f.write_str("issuer without name"),
        }
    }
}

/// An issuer as faults name it.
pub(super) fn place(issuer: &IssuerKeys) -> Named<'_> {
    Named(issuer.policy.issuer.as_deref())
}

fn file_place(issuer: &IssuerKeys, path: &Path) -> String {
    format!("{}: {}", place(issuer), path.display())
}

fn secret_place(issuer: &IssuerKeys, number: usize, id: &Option<String>) -> String {
    let mut text = format!("{}: secret {number}", place(issuer));
    if let Some(id) = id {
        let _ = write!(text, " (kid {id:?})");
    }
    text
}

/// Reads a file of at most `most` bytes.
fn read(path: &Path, most: u64) -> Result<Zeroizing<Vec<u8>>, KeyProblem> {
    file::read(path, most).map_err(KeyProblem::from)
}
