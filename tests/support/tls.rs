//! Clients over TLS 1.3 that trust a server's own certificate.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tidegate::Settings;
use tidegate::tls::Acceptor;

use super::{Client, settings};

pub type TlsClient = Client<StreamOwned<ClientConnection, TcpStream>>;

/// Settings with one TLS listener, and what its clients start from.
pub fn tls_settings() -> (Settings, Arc<ClientConfig>) {
    let acceptor = Acceptor::self_signed(&["localhost".to_owned()]).unwrap();
    let config = trusting(&acceptor);
    let mut settings = settings();
    settings.listeners[0].speaks.tls = true;
    settings.acceptor = Some(acceptor);
    (settings, config)
}

pub fn trusting(acceptor: &Acceptor) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let pem = acceptor.certificate_pem();
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    roots.add(certificate).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

pub fn session(config: &Arc<ClientConfig>) -> ClientConnection {
    let name = ServerName::try_from("localhost").unwrap();
    ClientConnection::new(Arc::clone(config), name).unwrap()
}

/// A client of the route at `path`.
pub fn open_tls(address: SocketAddr, path: &str, config: &Arc<ClientConfig>) -> TlsClient {
    upgrade_over(Client::connect(address).stream, path, config)
}

/// The same, over a socket that is connected already.
pub fn upgrade_over(socket: TcpStream, path: &str, config: &Arc<ClientConfig>) -> TlsClient {
    let mut client = Client::over(StreamOwned::new(session(config), socket));
    client.upgrade(path);
    client
}
