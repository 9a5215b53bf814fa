//! What all sessions share: the rustls configuration, the certificates behind it, the ticket keys.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert,
    UnbufferedServerConnection,
};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SupportedCipherSuite};
use zeroize::Zeroizing;

use super::certificates::Certificates;
use super::{CertificateError, CertificateFiles, CertificateProblem, Session, TlsError};

/// Certificates that have been read and are not in use yet; see [`Acceptor::read`].
#[derive(Debug)]
pub struct Replacement(Arc<Certificates>);

/// Makes sessions. Made once and cloned into every reactor: clones share certificates and ticket
/// keys, so a client may come back to any reactor, and a reload is seen by all.
///
/// Ticket keys are random, made for this process, replaced every six hours and forgotten six hours
/// later. They are never written anywhere, so a restart costs every client a full handshake.
#[derive(Clone)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    resolver: Arc<Resolver>,
}

impl Acceptor {
    /// Reads certificates and keys. The first pair is shown to clients that ask for no name, or
    /// for one that none of the certificates has.
    ///
    /// # Errors
    /// If any file cannot be read, is too large, is not what it should be, or does not fit its
    /// partner; the error names the file.
    pub fn from_files(files: &[CertificateFiles]) -> Result<Self, CertificateError> {
        let provider = provider();
        let certificates = Certificates::from_files(files, &provider)?;
        Self::new(provider, certificates)
    }

    /// As [`Acceptor::from_files`], from pairs of certificate chain and private key in memory.
    ///
    /// # Errors
    /// As [`Acceptor::from_files`]; the error counts the pairs from 1.
    pub fn from_pem(pairs: &[(&[u8], &[u8])]) -> Result<Self, CertificateError> {
        let provider = provider();
        let certificates = Certificates::from_pem(pairs, &provider)?;
        Self::new(provider, certificates)
    }

    /// Makes a P-256 key and a certificate for these host names and addresses, for development:
    /// both live in memory only and are gone with the process. It never expires, as there is
    /// nothing that could renew it.
    ///
    /// # Errors
    /// If there is no name, or one that is neither a host name nor an address.
    pub fn self_signed(names: &[String]) -> Result<Self, CertificateError> {
        let place = "self-signed certificate";
        if names.is_empty() {
            return Err(CertificateProblem::NoneGiven.at(place));
        }
        for name in names {
            if rustls::pki_types::ServerName::try_from(name.as_str()).is_err() {
                return Err(CertificateProblem::BadName.at(name));
            }
        }
        let made = (|| {
            let mut params = rcgen::CertificateParams::new(names)?;
            params.distinguished_name = rcgen::DistinguishedName::new();
            params
                .distinguished_name
                .push(rcgen::DnType::CommonName, "tidegate development");
            params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
            let key = rcgen::KeyPair::generate()?;
            let certificate = params.self_signed(&key)?;
            Ok((certificate.pem(), Zeroizing::new(key.serialize_pem())))
        })();
        let (certificate, key) =
            made.map_err(|_: rcgen::Error| CertificateProblem::Internal.at(place))?;
        Self::from_pem(&[(certificate.as_bytes(), key.as_bytes())])
    }

    /// Replaces all certificates, or none. Handshakes that have begun go on with what they have,
    /// new ones see the new set, and tickets stay valid. Reads files: not for a reactor's thread.
    ///
    /// # Errors
    /// As [`Acceptor::from_files`]; the certificates in use are then left as they were.
    pub fn reload(&self, files: &[CertificateFiles]) -> Result<(), CertificateError> {
        self.replace(self.read(files)?);
        Ok(())
    }

    /// The first half of [`reload`](Self::reload), all of it that can fail: nothing changes yet.
    ///
    /// # Errors
    /// As [`Acceptor::from_files`].
    pub fn read(&self, files: &[CertificateFiles]) -> Result<Replacement, CertificateError> {
        let certificates = Certificates::from_files(files, self.config.crypto_provider())?;
        Ok(Replacement(Arc::new(certificates)))
    }

    /// The second half.
    pub fn replace(&self, replacement: Replacement) {
        self.resolver.certificates.store(replacement.0);
    }

    /// When the first of the servers' certificates ends, in seconds since 1970. Intermediates do
    /// not count: clients build their own path.
    #[must_use]
    pub fn not_after(&self) -> Option<i64> {
        self.resolver.certificates.load().not_after()
    }

    /// The default certificate in PEM, for a client to trust.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        let certificates = self.resolver.certificates.load();
        pem::encode(&pem::Pem::new("CERTIFICATE", certificates.default_der()))
    }

    /// The SHA-256 of the default certificate as `openssl x509 -fingerprint -sha256` prints it.
    #[must_use]
    pub fn certificate_fingerprint(&self) -> String {
        let certificates = self.resolver.certificates.load();
        let SupportedCipherSuite::Tls13(suite) = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256
        else {
            return String::new();
        };
        let digest = suite.common.hash_provider.hash(certificates.default_der());
        let bytes: Vec<_> = digest
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02X}"))
            .collect();
        bytes.join(":")
    }

    /// A session for a connection that has just been accepted.
    ///
    /// # Errors
    /// [`TlsError::Internal`], if the system gives no random bytes.
    pub fn session(&self) -> Result<Session, TlsError> {
        Ok(Session::new(UnbufferedServerConnection::new(Arc::clone(
            &self.config,
        ))?))
    }

    fn new(provider: CryptoProvider, certificates: Certificates) -> Result<Self, CertificateError> {
        let failed = |_| CertificateProblem::Internal.at("TLS");
        let ticketer = aws_lc_rs::Ticketer::new().map_err(failed)?;
        Self::with_ticketer(provider, certificates, ticketer).map_err(failed)
    }

    fn with_ticketer(
        provider: CryptoProvider,
        certificates: Certificates,
        ticketer: Arc<dyn ProducesTickets>,
    ) -> Result<Self, rustls::Error> {
        let resolver = Arc::new(Resolver {
            certificates: ArcSwap::from_pointee(certificates),
        });
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&resolver) as Arc<dyn ResolvesServerCert>);
        // The default is a store behind a lock that all threads would meet at.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = ticketer;
        config.send_tls13_tickets = 1;
        config.max_early_data_size = 0;
        config.require_ems = true;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            config: Arc::new(config),
            resolver,
        })
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor")
            .field("not_after", &self.not_after())
            .finish_non_exhaustive()
    }
}

fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

/// Answers rustls' question for a certificate from the set of the moment: one load per handshake,
/// so a reload is never seen by half.
#[derive(Debug)]
struct Resolver {
    certificates: ArcSwap<Certificates>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let server_name = hello.server_name();
        SERVER_NAME_GIVEN.set(server_name.is_some());
        Some(Arc::clone(self.certificates.load().choose(server_name)))
    }
}

thread_local! {
    /// Whether the hello resolved last on this thread had a server name. An unbuffered connection
    /// has no way to ask, but the resolver is called inside of its `process_tls_records`, on the
    /// same thread: the session clears this before and reads it after.
    pub(super) static SERVER_NAME_GIVEN: Cell<bool> = const { Cell::new(false) };
}
