//! Calls to somebody else's server: one request and its answer, made so that neither a name nor an
//! answer can lead it astray (threats D5, G6).
//!
//! * Only the configured URL is asked. A redirection is an error, and proxies named by the environment
//!   are not used.
//! * Each address that the name resolves to is judged ([`Reach`]), and exactly the judged ones are
//!   connected to: a name that resolves to something else a moment later gains nothing (DNS rebinding).
//! * One deadline covers name, connection, handshake, head and body, however slowly bytes drip. The
//!   system's resolver knows no deadline: it is asked on a thread that outlives a call it has held up.
//! * Heads are at most 16 KiB, bodies as long as the caller says.
//!
//! The authorities to trust are the system's: its administrator maintains them, adds those of an
//! intranet, and withdraws one without a new release of this program, which a list compiled in would
//! wait for. They are read for each call, or, where connections are kept, every ten minutes, so a change
//! needs no restart. Chains and names are verified by webpki, as rustls does; there is no switch to turn
//! that off.
//!
//! A call blocks its thread: reactors make none.

use std::error::Error as StdError;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use ureq::http::Uri;
use ureq::http::uri::Scheme;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, Resolver};
use ureq::unversioned::transport::{Connector, RustlsConnector, TcpConnector};
use ureq::{Agent, Error};

use crate::file;
use resolve::{Judged, Memory, clock};

pub use error::{CallError, ClientFault, FileError};
pub use resolve::Reach;

mod error;
mod resolve;

/// Largest head of an answer in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Largest file of authorities in bytes; a distribution's whole bundle has 220 KiB.
const AUTHORITIES_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// Longest time that means anything, and that can be added to a clock.
const TIME_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// How long an agent is used, and with it the authorities it has read.
const AGENT_AGE_MAX: Duration = Duration::from_secs(10 * 60);
/// How long a connection may be idle and still be used.
const IDLE_AGE_MAX: Duration = Duration::from_secs(15);

/// How a server is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether `http:` is allowed, with which anyone on the way can read and change what is said.
    /// Default false.
    pub allow_http: bool,
    /// Which addresses may be connected to. Default the public internet.
    pub reach: Reach,
    /// Certificates in PEM to trust besides the system's (those of `SSL_CERT_FILE` and `SSL_CERT_DIR`,
    /// where these are set). At most 2 MiB. Default `None`.
    pub ca_file: Option<PathBuf>,
    /// How long a call may take, from resolving the name to the last byte; 1 ms to a year. Default 5 s.
    pub timeout: Duration,
    /// Longest body of an answer, in bytes. Default 64 KiB.
    pub answer_bytes_max: usize,
    /// Connections that are kept for further calls, each for 15 s at most. With any, the name's
    /// addresses are kept as well: for 30 s, and, while the resolver has no answer, for an hour. Default
    /// 0: nothing is kept from one call to the next.
    pub idle_connections_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            allow_http: false,
            reach: Reach::default(),
            ca_file: None,
            timeout: Duration::from_secs(5),
            answer_bytes_max: 64 * 1024,
            idle_connections_max: 0,
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status, which is no redirection.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
}

/// Calls one URL, from any number of threads.
#[derive(Debug)]
pub struct Client<R = DefaultResolver> {
    uri: Uri,
    options: Options,
    /// Makes the resolver of an agent.
    resolver: fn() -> R,
    memory: Memory,
    /// The agent in use, where connections are kept, and since when.
    kept: ArcSwapOption<(Agent, Instant)>,
}

impl Client {
    /// A client of this URL, `https://host[:port]/path[?query]`. A query is sent and never shown. Reads
    /// the authorities once, to say at start that they are missing.
    ///
    /// # Errors
    /// What is wrong with the URL or the options; see [`ClientFault`].
    pub fn new(url: &str, options: Options) -> Result<Self, ClientFault> {
        let client = Self::with_resolver(url, options, DefaultResolver::default)?;
        if client.uri.scheme() == Some(&Scheme::HTTPS) {
            authorities(&client.options)?;
        }
        Ok(client)
    }
}

impl<R: Resolver> Client<R> {
    /// A client that asks another resolver than the system's.
    ///
    /// # Errors
    /// As [`Client::new`], but for the authorities.
    pub fn with_resolver(
        url: &str,
        options: Options,
        resolver: fn() -> R,
    ) -> Result<Self, ClientFault> {
        Ok(Self {
            uri: check(url, &options)?,
            options,
            resolver,
            memory: Memory::default(),
            kept: ArcSwapOption::empty(),
        })
    }

    /// Asks for what is there.
    ///
    /// # Errors
    /// See [`CallError`]. A status that is no success is no error.
    pub fn get(&self, headers: &[(&str, &str)]) -> Result<Answer, CallError> {
        let mut request = self.agent()?.get(&self.uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.finish(request.call())
    }

    /// Sends a body.
    ///
    /// # Errors
    /// See [`CallError`]. A status that is no success is no error.
    pub fn post(&self, body: &[u8], headers: &[(&str, &str)]) -> Result<Answer, CallError> {
        let mut request = self.agent()?.post(&self.uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.finish(request.send(body))
    }

    fn finish(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, Error>,
    ) -> Result<Answer, CallError> {
        let answer = answer.map_err(to_call_error)?;
        let status = answer.status().as_u16();
        if (300..400).contains(&status) {
            return Err(CallError::Redirect);
        }
        let body = answer
            .into_body()
            .into_with_config()
            .limit(self.options.answer_bytes_max as u64)
            .read_to_vec()
            .map_err(to_call_error)?;
        Ok(Answer { status, body })
    }

    /// The agent that makes the next call.
    fn agent(&self) -> Result<Agent, CallError> {
        if self.options.idle_connections_max == 0 {
            return self.new_agent().map_err(CallError::Client);
        }
        let now = clock();
        let kept = self.kept.load();
        match &*kept {
            Some(kept) if now < kept.1 + AGENT_AGE_MAX => return Ok(kept.0.clone()),
            _ => {}
        }
        match (self.new_agent(), &*kept) {
            (Ok(agent), _) => {
                self.kept.store(Some(Arc::new((agent.clone(), now))));
                Ok(agent)
            }
            // Authorities that were good until now are better than none.
            (Err(fault), Some(kept)) => {
                tracing::warn!(%fault, "the authorities cannot be read again; those read before are used");
                self.kept.store(Some(Arc::new((kept.0.clone(), now))));
                Ok(kept.0.clone())
            }
            (Err(fault), None) => Err(CallError::Client(fault)),
        }
    }

    fn new_agent(&self) -> Result<Agent, ClientFault> {
        let authorities = match self.uri.scheme() == Some(&Scheme::HTTPS) {
            true => authorities(&self.options)?,
            false => Vec::new(),
        };
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(authorities)))
            .unversioned_rustls_crypto_provider(Arc::new(
                rustls::crypto::aws_lc_rs::default_provider(),
            ))
            .build();
        let idle_connections_max = self.options.idle_connections_max;
        let config = Agent::config_builder()
            .https_only(!self.options.allow_http)
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_global(Some(self.options.timeout))
            .max_response_header_size(HEAD_BYTES_MAX)
            .max_idle_connections(idle_connections_max)
            .max_idle_connections_per_host(idle_connections_max)
            .max_idle_age(IDLE_AGE_MAX)
            .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .build();
        // Without the connectors for proxies: there is no other way out than the two below.
        let connector = TcpConnector::default().chain(RustlsConnector::default());
        let resolver = Judged {
            resolver: (self.resolver)(),
            reach: self.options.reach.clone(),
            memory: (idle_connections_max != 0).then(|| Arc::clone(&self.memory)),
        };
        Ok(Agent::with_parts(config, connector, resolver))
    }
}

/// Is the URL one that can be called? It comes back in its parts.
fn check(url: &str, options: &Options) -> Result<Uri, ClientFault> {
    let uri = Uri::from_str(url).map_err(|_| ClientFault::Url)?;
    let authority = uri.authority().ok_or(ClientFault::Url)?;
    if authority.as_str().contains('@') {
        return Err(ClientFault::Credentials);
    }
    if authority.host().is_empty() {
        return Err(ClientFault::Url);
    }
    match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => {}
        Some(scheme) if *scheme == Scheme::HTTP && options.allow_http => {}
        Some(scheme) if *scheme == Scheme::HTTP => return Err(ClientFault::NotHttps),
        _ => return Err(ClientFault::Url),
    }
    if !(Duration::from_millis(1)..=TIME_MAX).contains(&options.timeout) {
        return Err(ClientFault::Timeout);
    }
    Ok(uri)
}

/// A URL as it may be shown: without query, fragment, user and password.
#[must_use]
pub fn shown(url: &str) -> String {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let url = &url[..end];
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let host = rest.find('/').unwrap_or(rest.len());
    let host = rest[..host].rfind('@').map_or(0, |at| at + 1);
    format!("{scheme}://{}", &rest[host..])
}

/// The certificates to trust: the system's, and those of the options' own file.
fn authorities(options: &Options) -> Result<Vec<Certificate<'static>>, ClientFault> {
    let mut trusted: Vec<Certificate<'static>> = Vec::new();
    if let Some(path) = &options.ca_file {
        let text = file::read(path, AUTHORITIES_BYTES_MAX).map_err(ClientFault::File)?;
        for item in ureq::tls::parse_pem(&text) {
            match item {
                Ok(PemItem::Certificate(certificate)) => trusted.push(certificate),
                _ => return Err(ClientFault::NoAuthority),
            }
        }
        if trusted.is_empty() {
            return Err(ClientFault::NoAuthority);
        }
    }
    // One certificate of the system that cannot be read takes nothing from the others.
    let system = rustls_native_certs::load_native_certs().certs;
    trusted.extend(
        system
            .iter()
            .map(|der| Certificate::from_der(der).to_owned()),
    );
    if trusted.is_empty() {
        return Err(ClientFault::NoSystemAuthorities);
    }
    Ok(trusted)
}

/// An error in the operator's terms. The library's own texts are left out, as they may hold the URL.
fn to_call_error(error: Error) -> CallError {
    match error {
        Error::Other(own) => match own.downcast::<CallError>() {
            Ok(own) => *own,
            Err(_) => CallError::Protocol,
        },
        Error::HostNotFound => CallError::Name,
        Error::Timeout(_) => CallError::Timeout,
        Error::BodyExceedsLimit(_) => CallError::TooLarge,
        Error::TooManyRedirects | Error::RedirectFailed => CallError::Redirect,
        Error::ConnectionFailed => CallError::Io(std::io::ErrorKind::ConnectionRefused),
        Error::Rustls(error) => CallError::Tls(error.to_string().into()),
        Error::Tls(words) => CallError::Tls(words.into()),
        Error::Io(error) => match error.get_ref().and_then(as_tls) {
            Some(error) => CallError::Tls(error.to_string().into()),
            None => CallError::Io(error.kind()),
        },
        _ => CallError::Protocol,
    }
}

fn as_tls<'e>(error: &'e (dyn StdError + Send + Sync + 'static)) -> Option<&'e rustls::Error> {
    error.downcast_ref::<rustls::Error>()
}

#[cfg(test)]
mod tests;
