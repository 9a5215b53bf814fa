//! Where clients arrive: `[[listen]]` and `[tls]`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::Profile;
use super::setting::{Setting, Slot};

/// One `[[listen]]`: an address that clients connect to. Every reactor listens on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// IP address and port; port 0 lets the kernel choose.
    pub address: SocketAddr,
    /// Whether connections begin with a TLS handshake.
    pub tls: bool,
    /// Whether a proxy stands in front that puts a PROXY header (v1 or v2) before everything else,
    /// TLS included. Then the peer must be in `address.trusted_networks`, and a connection without
    /// that header is closed.
    pub proxy_protocol: bool,
}

impl Listen {
    /// Whether only this host can reach the address.
    pub fn is_loopback(&self) -> bool {
        self.address.ip().to_canonical().is_loopback()
    }

    /// As an inline table.
    pub(super) fn to_toml(&self) -> String {
        let Self { address, tls, .. } = self;
        let proxy = if self.proxy_protocol {
            ", proxy_protocol = true"
        } else {
            ""
        };
        format!("{{ address = \"{address}\", tls = {tls}{proxy} }}")
    }

    /// The listeners nobody had to ask for: in development one of each kind on loopback, in
    /// production none, because only the operator knows which address faces the clients.
    pub(super) fn defaults(profile: Profile) -> Vec<Self> {
        let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        match profile {
            Profile::Development => vec![
                Self {
                    address: loopback(8080),
                    tls: false,
                    proxy_protocol: false,
                },
                Self {
                    address: loopback(8443),
                    tls: true,
                    proxy_protocol: false,
                },
            ],
            Profile::Production => Vec::new(),
        }
    }
}

/// `[tls]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// Certificates to choose from by server name; the first answers clients that name none.
    /// Empty in development means a self-signed one, made at start; in production a TLS listener
    /// needs at least one.
    pub certificates: Vec<CertificateFiles>,
    /// Longest a client may take from accept to the end of the TLS handshake; then it is closed.
    pub handshake_timeout: Duration,
}

/// A certificate chain and its private key, both PEM. Relative names are resolved by the process's
/// working directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// The private key of the first certificate.
    pub key: PathBuf,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self {
            certificates: Vec::new(),
            handshake_timeout: Duration::from_secs(5),
        }
    }
}

impl TlsConfig {
    pub(super) fn settings(&mut self) -> Vec<Setting<'_>> {
        vec![
            Setting::new(
                "tls.certificates",
                Slot::Certificates(&mut self.certificates),
                "Certificate chains and keys, PEM, chosen by server name; none: self-signed, in development only",
            )
            .flag("--tls-cert, --tls-key"),
            Setting::new(
                "tls.handshake_timeout",
                Slot::Time(
                    &mut self.handshake_timeout,
                    Duration::from_millis(100)..=Duration::from_secs(60),
                ),
                "Longest TLS handshake; then the connection is closed",
            ),
        ]
    }
}
