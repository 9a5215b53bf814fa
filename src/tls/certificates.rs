//! The certificates to serve: read, checked whole, and chosen by the name the client asks for.
//!
//! A set is checked completely before it is used, so a half-written file or a key of another
//! certificate never replaces a working pair.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ahash::AHashMap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use webpki::EndEntityCert;

use super::error::key_pair_problem;
use super::validity::not_after;
use super::{CertificateError, CertificateProblem};
use crate::file::{self, FileError};

/// Where one certificate and its key lie, both as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate and its intermediates, the server's own first.
    pub certificate_chain: PathBuf,
    /// The private key: PKCS#8, SEC1 or PKCS#1, not encrypted. May be the same file.
    pub private_key: PathBuf,
}

/// Largest certificate file read, in bytes.
pub const CERTIFICATE_FILE_BYTES_MAX: u64 = 256 * 1024;
/// Largest key file read, in bytes; as the chain may share the file, the same as for it.
pub const KEY_FILE_BYTES_MAX: u64 = CERTIFICATE_FILE_BYTES_MAX;

/// A checked set of certificates; immutable, replaced as a whole.
#[derive(Debug)]
pub(super) struct Certificates {
    default: Arc<CertifiedKey>,
    /// By whole name, in lower case.
    exact: AHashMap<Box<str>, Arc<CertifiedKey>>,
    /// By what follows the `*` of a wildcard name: `.example.org`.
    wildcard: AHashMap<Box<str>, Arc<CertifiedKey>>,
    not_after: Option<i64>,
}

impl Certificates {
    /// Reads and checks every pair; the first is the one for clients that ask for no known name.
    pub(super) fn from_files(
        files: &[CertificateFiles],
        provider: &CryptoProvider,
    ) -> Result<Self, CertificateError> {
        let mut set = SetBuilder::default();
        for pair in files {
            let (chain_place, key_place) =
                (place(&pair.certificate_chain), place(&pair.private_key));
            let chain = file::read(&pair.certificate_chain, CERTIFICATE_FILE_BYTES_MAX)
                .map_err(|error| CertificateProblem::from(error).at(&chain_place))?;
            let key = file::read(&pair.private_key, KEY_FILE_BYTES_MAX)
                .map_err(|error| CertificateProblem::from(error).at(&key_place))?;
            set.add(&chain, &chain_place, &key, &key_place, provider)?;
        }
        set.finish()
    }

    /// Checks pairs of (chain, key) in PEM, as [`Certificates::from_files`] does.
    pub(super) fn from_pem(
        pairs: &[(&[u8], &[u8])],
        provider: &CryptoProvider,
    ) -> Result<Self, CertificateError> {
        let mut set = SetBuilder::default();
        for (n, (chain, key)) in pairs.iter().enumerate() {
            let chain_place = format!("certificate {}", n + 1);
            let key_place = format!("key {}", n + 1);
            set.add(chain, &chain_place, key, &key_place, provider)?;
        }
        set.finish()
    }

    /// The certificate for a name in lower case: one that names it, else one with a wildcard in
    /// place of its first label (RFC 9525 §6.3), else the first.
    pub(super) fn choose(&self, server_name: Option<&str>) -> &Arc<CertifiedKey> {
        let Some(name) = server_name else {
            return &self.default;
        };
        self.exact
            .get(name)
            .or_else(|| self.wildcard.get(&name[name.find('.')?..]))
            .unwrap_or(&self.default)
    }

    /// The certificate that clients see by default, as DER.
    pub(super) fn default_der(&self) -> &[u8] {
        self.default
            .cert
            .first()
            .map_or(&[], |certificate| certificate.as_ref())
    }

    /// Seconds since 1970 at which the first of the certificates ends.
    pub(super) fn not_after(&self) -> Option<i64> {
        self.not_after
    }
}

#[derive(Default)]
struct SetBuilder {
    default: Option<Arc<CertifiedKey>>,
    exact: AHashMap<Box<str>, Arc<CertifiedKey>>,
    wildcard: AHashMap<Box<str>, Arc<CertifiedKey>>,
    not_after: Option<i64>,
}

impl SetBuilder {
    fn add(
        &mut self,
        chain: &[u8],
        chain_place: &str,
        key: &[u8],
        key_place: &str,
        provider: &CryptoProvider,
    ) -> Result<(), CertificateError> {
        let chain = parse_chain(chain).map_err(|problem| problem.at(chain_place))?;
        let key = parse_key(key).map_err(|problem| problem.at(key_place))?;
        let names = dns_names(&chain).map_err(|problem| problem.at(chain_place))?;
        let end = chain.first().and_then(|certificate| not_after(certificate));
        let certified = CertifiedKey::from_der(chain, key, provider)
            .map_err(|error| key_pair_problem(&error).at(key_place))?;
        let certified = Arc::new(certified);

        let mut is_chosen = self.default.is_none();
        for name in names {
            let (map, name) = match name.strip_prefix('*') {
                Some(suffix) => (&mut self.wildcard, suffix),
                None => (&mut self.exact, name.as_str()),
            };
            // The first certificate with a name keeps it.
            if !map.contains_key(name) {
                map.insert(name.into(), Arc::clone(&certified));
                is_chosen = true;
            }
        }
        if !is_chosen {
            return Err(CertificateProblem::NeverChosen.at(chain_place));
        }
        self.not_after = match (self.not_after, end) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.default.get_or_insert(certified);
        Ok(())
    }

    fn finish(self) -> Result<Certificates, CertificateError> {
        let Some(default) = self.default else {
            return Err(CertificateProblem::NoneGiven.at("TLS"));
        };
        Ok(Certificates {
            default,
            exact: self.exact,
            wildcard: self.wildcard,
            not_after: self.not_after,
        })
    }
}

impl From<FileError> for CertificateProblem {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Unreadable(kind) => Self::Unreadable(kind),
            FileError::NotAFile => Self::NotAFile,
            FileError::Empty => Self::Empty,
            FileError::TooLarge(most) => Self::TooLarge(most),
        }
    }
}

impl CertificateProblem {
    pub(super) fn at(self, place: &str) -> CertificateError {
        CertificateError {
            place: place.to_owned(),
            problem: self,
        }
    }
}

fn place(path: &Path) -> String {
    path.display().to_string()
}

fn parse_chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateProblem> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, PemError>>()
        .map_err(|_| CertificateProblem::BrokenPem)?;
    if chain.is_empty() {
        return Err(CertificateProblem::NoCertificate);
    }
    // Clients refuse a certificate message over 64 KiB, as we do; ten real ones stay below 20.
    if chain.len() > CHAIN_MAX || chain.iter().map(|c| c.len()).sum::<usize>() > CHAIN_BYTES_MAX {
        return Err(CertificateProblem::ChainTooLong(CHAIN_MAX));
    }
    for (n, certificate) in chain.iter().enumerate() {
        if EndEntityCert::try_from(certificate).is_err() || not_after(certificate).is_none() {
            return Err(CertificateProblem::BrokenCertificate(n + 1));
        }
    }
    Ok(chain)
}

fn parse_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, CertificateProblem> {
    let mut keys = PrivateKeyDer::pem_slice_iter(pem);
    let key = match keys.next() {
        Some(Ok(key)) => key,
        Some(Err(_)) => return Err(CertificateProblem::BrokenPem),
        None if memchr::memmem::find(pem, b"ENCRYPTED").is_some() => {
            return Err(CertificateProblem::EncryptedPrivateKey);
        }
        None => return Err(CertificateProblem::NoPrivateKey),
    };
    match keys.next() {
        None => Ok(key),
        Some(Ok(_)) => Err(CertificateProblem::SeveralPrivateKeys),
        Some(Err(_)) => Err(CertificateProblem::BrokenPem),
    }
}

/// The DNS names of the first certificate, in lower case. Wildcards stand for one whole label at
/// the left, or webpki leaves them out.
fn dns_names(chain: &[CertificateDer<'_>]) -> Result<Vec<String>, CertificateProblem> {
    let first = chain.first().ok_or(CertificateProblem::NoCertificate)?;
    let certificate =
        EndEntityCert::try_from(first).map_err(|_| CertificateProblem::BrokenCertificate(1))?;
    Ok(certificate
        .valid_dns_names()
        .map(str::to_ascii_lowercase)
        .collect())
}

const CHAIN_MAX: usize = 10;
const CHAIN_BYTES_MAX: usize = 48 * 1024;
