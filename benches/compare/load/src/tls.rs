//! TLS as the generator speaks it: 1.3, X25519, AES-128-GCM, whatever the server prefers, so that every
//! server does the same work. Certificates and signatures are not checked: that is the client's cost, and
//! a cheaper client loads a server more.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use serde_json::{Value, json};

/// What every TLS connection of a run starts from.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Client {
    /// With `resume`, connections use the tickets of earlier ones; without it, none are kept.
    ///
    /// # Errors
    /// If the provider cannot do what the module says, which would be a fault of the build.
    pub(crate) fn new(resume: bool) -> io::Result<Self> {
        let provider = CryptoProvider {
            kx_groups: vec![aws_lc_rs::kx_group::X25519],
            cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
            ..aws_lc_rs::default_provider()
        };
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unchecked))
            .with_no_client_auth();
        // A connection takes one ticket when it begins and, with most servers, brings one or more before
        // it ends: a small store then never runs dry after the first round.
        config.resumption = if resume {
            Resumption::in_memory_sessions(64)
        } else {
            Resumption::disabled()
        };
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        Ok(Self {
            config: Arc::new(config),
            name,
        })
    }

    /// A connection about to say hello.
    ///
    /// # Errors
    /// If rustls refuses the configuration.
    pub(crate) fn start(&self) -> io::Result<Box<ClientConnection>> {
        let mut tls = ClientConnection::new(Arc::clone(&self.config), self.name.clone())
            .map_err(io::Error::other)?;
        // A message is handed over whole, also one above the default of 64 KiB.
        tls.set_buffer_limit(None);
        Ok(Box::new(tls))
    }
}

/// Accepts every certificate.
#[derive(Debug)]
struct Unchecked;

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::RSA_PSS_SHA256,
        ]
    }
}

/// Writes the certificate that all servers of a comparison use: P-256 or RSA, self-signed.
///
/// # Errors
/// If a file cannot be written.
pub(crate) fn write_certificate(cert_path: &Path, key_path: &Path, rsa: bool) -> io::Result<Value> {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let key = if rsa {
        KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)
    } else {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
    }
    .map_err(io::Error::other)?;
    let cert = CertificateParams::new(names)
        .and_then(|params| params.self_signed(&key))
        .map_err(io::Error::other)?;
    fs::write(cert_path, cert.pem())?;
    fs::write(key_path, key.serialize_pem())?;
    Ok(json!({ "certificate": cert_path, "key": key_path }))
}
