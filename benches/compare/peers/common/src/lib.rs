//! What the peers share, so that they differ in their WebSocket library alone: the command line, a
//! listener with TCP_NODELAY and a long backlog, one thread of tokio, and rustls over aws-lc with
//! stateless tickets, as tidegate has it.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Where a peer listens, and whether over TLS.
#[derive(Debug, Args)]
pub struct Listen {
    /// Address to listen on
    #[arg(long)]
    listen: SocketAddr,
    /// Certificate chain as PEM; with it, TLS is spoken
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key as PEM
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

/// A transport, plain or TLS.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// What a peer does with a connection. Generic, so that neither transport pays for the other.
pub trait Serve: Clone + Send + 'static {
    /// Serves one connection to its end.
    fn serve(self, stream: impl Stream) -> impl Future<Output = ()> + Send;
}

/// Accepts and serves connections on this thread, for ever.
///
/// # Errors
/// If the runtime, the listener or the certificate cannot be had.
pub fn run(listen: &Listen, service: impl Serve) -> Result<(), Box<dyn Error>> {
    let acceptor = match (&listen.tls_cert, &listen.tls_key) {
        (Some(cert), Some(key)) => {
            let chain = CertificateDer::pem_file_iter(cert)?.collect::<Result<Vec<_>, _>>()?;
            let key = PrivateKeyDer::from_pem_file(key)?;
            let mut config = ServerConfig::builder()
                .with_no_client_auth()
                .with_single_cert(chain, key)?;
            config.ticketer = Ticketer::new()?;
            Some(TlsAcceptor::from(Arc::new(config)))
        }
        _ => None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(accept(bind(listen.listen)?, acceptor, service))
}

async fn accept(
    listener: std::net::TcpListener,
    acceptor: Option<TlsAcceptor>,
    service: impl Serve,
) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        // An accept error concerns one connection; the next may do better.
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let service = service.clone();
        match acceptor.clone() {
            None => drop(tokio::spawn(service.serve(stream))),
            Some(acceptor) => drop(tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    service.serve(stream).await;
                }
            })),
        }
    }
}

/// Accepted sockets inherit TCP_NODELAY from the listener, which saves a call for each.
fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
