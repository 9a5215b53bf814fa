//! Clients over TLS 1.3 that trust a server's own certificate.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, StreamOwned};
use tidegate::Settings;
use tidegate::tls::Acceptor;

use super::{Client, settings};

#[path = "tls_client.rs"]
mod tls_client;
pub use tls_client::{session, trusting};

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
