//! One fetch of a key set: a GET that cannot be led astray.
//!
//! * Only the configured URL is asked; nothing in a token or an answer names another (D5). A
//!   redirection is an error, and proxies named by the environment are not used.
//! * The name is resolved once per fetch, each address is judged, and exactly the judged ones are
//!   connected to: a name that resolves to something else a moment later gains nothing (DNS
//!   rebinding). No connection is kept, so no address is trusted for longer than its fetch.
//! * One deadline covers name, connection, handshake, head and body, however slowly bytes drip. The
//!   system's resolver knows no deadline: it is asked on a thread that outlives a fetch it has held up.
//! * Heads are at most 16 KiB, bodies at most [`Jwks::BYTES_MAX`].
//!
//! The authorities to trust are the system's: its administrator maintains them, adds those of an
//! intranet, and withdraws one without a new release of this program, which a list compiled in would
//! wait for. They are read for each fetch, so a change needs no restart. Chains and names are verified
//! by webpki, as rustls does; there is no switch to turn that off.

use std::error::Error as StdError;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ureq::http::Uri;
use ureq::http::uri::Scheme;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Connector, NextTimeout, RustlsConnector, TcpConnector};
use ureq::{Agent, Error};

use super::error::{FetchError, KeyProblem};
use super::file;
use super::source::JwksUrl;
use crate::admission::address::is_public;
use crate::admission::jwt::{Jwks, JwksOptions, KeyError};

/// Largest head of an answer in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Largest file of authorities in bytes; a distribution's whole bundle has 220 KiB.
const AUTHORITIES_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// Longest time that means anything, and that can be added to a clock.
const TIME_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Fetches one key set, as often as it is asked to. Blocks its thread.
#[derive(Debug)]
pub(super) struct Fetcher<R = DefaultResolver> {
    uri: Uri,
    source: JwksUrl,
    /// Which addresses may be connected to.
    may_reach: fn(IpAddr) -> bool,
    /// Makes the resolver of one fetch.
    resolver: fn() -> R,
}

impl Fetcher {
    /// Checks the source. Reads the authorities once, to say at start that they are missing.
    pub(super) fn new(source: &JwksUrl) -> Result<Self, KeyProblem> {
        let uri = check(source)?;
        if uri.scheme() == Some(&Scheme::HTTPS) {
            authorities(source)?;
        }
        let anything: fn(IpAddr) -> bool = |_| true;
        Ok(Self {
            uri,
            source: source.clone(),
            may_reach: if source.allow_private_addresses {
                anything
            } else {
                is_public
            },
            resolver: DefaultResolver::default,
        })
    }
}

impl<R: Resolver> Fetcher<R> {
    /// Fetches and reads the set. Takes at most the source's `timeout`.
    pub(super) fn fetch(&self) -> Result<Jwks, FetchError> {
        let agent = self.agent()?;
        let answer = agent
            .get(&self.uri)
            .header("accept", "application/jwk-set+json, application/json")
            .header("connection", "close")
            .call()
            .map_err(to_fetch_error)?;
        match answer.status().as_u16() {
            200 => {}
            300..=399 => return Err(FetchError::Redirect),
            other => return Err(FetchError::Status(other)),
        }
        let body = answer
            .into_body()
            .into_with_config()
            .limit(Jwks::BYTES_MAX as u64)
            .read_to_vec()
            .map_err(to_fetch_error)?;
        let text = std::str::from_utf8(&body).map_err(|_| FetchError::Keys(KeyError::Jwks))?;
        let options = JwksOptions {
            // Whoever can answer for the issuer's web server must not learn a secret, nor choose one.
            allow_secrets: false,
            rsa_default: self.source.rsa_default,
        };
        Jwks::parse(text, &options).map_err(FetchError::Keys)
    }

    fn agent(&self) -> Result<Agent, FetchError> {
        let authorities = match self.uri.scheme() == Some(&Scheme::HTTPS) {
            true => authorities(&self.source).map_err(FetchError::Authorities)?,
            false => Vec::new(),
        };
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(authorities)))
            .unversioned_rustls_crypto_provider(Arc::new(
                rustls::crypto::aws_lc_rs::default_provider(),
            ))
            .build();
        let config = Agent::config_builder()
            .https_only(!self.source.allow_http)
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_global(Some(self.source.timeout))
            .max_response_header_size(HEAD_BYTES_MAX)
            .max_idle_connections(0)
            .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .build();
        // Without the connectors for proxies: there is no other way out than the two below.
        let connector = TcpConnector::default().chain(RustlsConnector::default());
        let resolver = Judged {
            resolver: (self.resolver)(),
            may_reach: self.may_reach,
        };
        Ok(Agent::with_parts(config, connector, resolver))
    }
}

/// Is the source one that can be fetched? The address comes back in its parts.
fn check(source: &JwksUrl) -> Result<Uri, KeyProblem> {
    let uri = Uri::from_str(&source.url).map_err(|_| KeyProblem::Url)?;
    let authority = uri.authority().ok_or(KeyProblem::Url)?;
    if authority.as_str().contains('@') {
        return Err(KeyProblem::UrlCredentials);
    }
    if authority.host().is_empty() {
        return Err(KeyProblem::Url);
    }
    match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => {}
        Some(scheme) if *scheme == Scheme::HTTP && source.allow_http => {}
        Some(scheme) if *scheme == Scheme::HTTP => return Err(KeyProblem::UrlNotHttps),
        _ => return Err(KeyProblem::Url),
    }
    let times = [
        source.refresh,
        source.retry,
        source.unknown_key_interval,
        source.timeout,
    ];
    let is_sane = |time: &Duration| (Duration::from_millis(1)..=TIME_MAX).contains(time);
    if !times.iter().all(is_sane) || !(source.refresh..=TIME_MAX).contains(&source.max_age) {
        return Err(KeyProblem::Times);
    }
    Ok(uri)
}

/// The certificates to trust: the system's, and those of the source's own file.
fn authorities(source: &JwksUrl) -> Result<Vec<Certificate<'static>>, KeyProblem> {
    let mut trusted: Vec<Certificate<'static>> = Vec::new();
    if let Some(path) = &source.ca_file {
        let text = file::read(path, AUTHORITIES_BYTES_MAX)?;
        for item in ureq::tls::parse_pem(&text) {
            match item {
                Ok(PemItem::Certificate(certificate)) => trusted.push(certificate),
                _ => return Err(KeyProblem::NoAuthority),
            }
        }
        if trusted.is_empty() {
            return Err(KeyProblem::NoAuthority);
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
        return Err(KeyProblem::NoSystemAuthorities);
    }
    Ok(trusted)
}

/// A resolver whose answers are judged. What it lets through is what is connected to: the agent asks
/// it once for each connection, and asks nobody else.
#[derive(Debug)]
struct Judged<R> {
    resolver: R,
    may_reach: fn(IpAddr) -> bool,
}

impl<R: Resolver> Resolver for Judged<R> {
    fn resolve(
        &self,
        uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let found = match self.resolver.resolve(uri, config, timeout) {
            // The system's own words for a name it does not know are an I/O error without a kind.
            Err(Error::Io(_)) => return Err(Error::HostNotFound),
            other => other?,
        };
        let mut allowed = self.empty();
        for address in &found {
            if (self.may_reach)(address.ip()) {
                allowed.push(*address);
            }
        }
        match (allowed.is_empty(), found.first()) {
            (false, _) => Ok(allowed),
            (true, Some(address)) => Err(Error::Other(Box::new(FetchError::Address(address.ip())))),
            (true, None) => Err(Error::HostNotFound),
        }
    }
}

/// An error in the operator's terms. The library's own texts are left out, as they may hold the URL.
fn to_fetch_error(error: Error) -> FetchError {
    match error {
        Error::Other(own) => match own.downcast::<FetchError>() {
            Ok(own) => *own,
            Err(_) => FetchError::Protocol,
        },
        Error::HostNotFound => FetchError::Name,
        Error::Timeout(_) => FetchError::Timeout,
        Error::BodyExceedsLimit(_) => FetchError::TooLarge,
        Error::TooManyRedirects | Error::RedirectFailed => FetchError::Redirect,
        Error::StatusCode(status) => FetchError::Status(status),
        Error::ConnectionFailed => FetchError::Io(std::io::ErrorKind::ConnectionRefused),
        Error::Rustls(error) => FetchError::Tls(error.to_string().into()),
        Error::Tls(words) => FetchError::Tls(words.into()),
        Error::Io(error) => match error.get_ref().and_then(as_tls) {
            Some(error) => FetchError::Tls(error.to_string().into()),
            None => FetchError::Io(error.kind()),
        },
        _ => FetchError::Protocol,
    }
}

fn as_tls<'e>(error: &'e (dyn StdError + Send + Sync + 'static)) -> Option<&'e rustls::Error> {
    error.downcast_ref::<rustls::Error>()
}

#[cfg(test)]
#[expect(
    clippy::disallowed_types,
    reason = "tests share what a scripted resolver answers"
)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener};
    use std::sync::Mutex;

    use super::*;

    const KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"1",
        "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    #[test]
    fn an_address_that_cannot_be_fetched_is_refused_at_start() {
        let source = |url: &str| JwksUrl::new(url);
        let http = |url: &str| JwksUrl {
            allow_http: true,
            ..JwksUrl::new(url)
        };
        let second = Duration::from_secs(1);
        for (source, expected) in [
            (source("https://id.example/keys?a=b"), Ok(())),
            (source("https://[2001:db8::1]:8443/"), Ok(())),
            (http("http://id.example/"), Ok(())),
            (http("HTTP://id.example/"), Ok(())),
            (source("http://id.example/"), Err(KeyProblem::UrlNotHttps)),
            (source("HTTP://id.example/"), Err(KeyProblem::UrlNotHttps)),
            (
                source("https://user:canary@id.example/"),
                Err(KeyProblem::UrlCredentials),
            ),
            (
                source("https://public.example@127.0.0.1/"),
                Err(KeyProblem::UrlCredentials),
            ),
            (source(""), Err(KeyProblem::Url)),
            (source("/keys"), Err(KeyProblem::Url)),
            (source("id.example/keys"), Err(KeyProblem::Url)),
            (source("https://"), Err(KeyProblem::Url)),
            (source("https:///keys"), Err(KeyProblem::Url)),
            (source("https://:443/keys"), Err(KeyProblem::Url)),
            (source("file:///etc/passwd"), Err(KeyProblem::Url)),
            (source("ftp://id.example/"), Err(KeyProblem::Url)),
            (source("https://id.example/a b"), Err(KeyProblem::Url)),
            (
                source("https://id.example/\r\nHost: x"),
                Err(KeyProblem::Url),
            ),
            (
                JwksUrl {
                    refresh: Duration::ZERO,
                    ..source("https://id.example/")
                },
                Err(KeyProblem::Times),
            ),
            (
                JwksUrl {
                    max_age: 599 * second,
                    ..source("https://id.example/")
                },
                Err(KeyProblem::Times),
            ),
            (
                JwksUrl {
                    max_age: Duration::MAX,
                    ..source("https://id.example/")
                },
                Err(KeyProblem::Times),
            ),
        ] {
            assert_eq!(check(&source).map(|_| ()), expected, "{}", source.url);
        }
    }

    /// Answers with these addresses: the first list to the first question, and so on.
    #[derive(Debug)]
    struct Scripted(&'static Mutex<Vec<Vec<SocketAddr>>>);

    impl Resolver for Scripted {
        fn resolve(
            &self,
            _uri: &Uri,
            _config: &ureq::config::Config,
            _timeout: NextTimeout,
        ) -> Result<ResolvedSocketAddrs, Error> {
            let mut answers = self.0.lock().unwrap();
            let mut addresses = self.empty();
            for address in answers.remove(0) {
                addresses.push(address);
            }
            Ok(addresses)
        }
    }

    /// Serves one request with a key set, and says that it did.
    fn serve_once(listener: TcpListener) -> std::thread::JoinHandle<String> {
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{KEYS}",
                KEYS.len()
            );
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(head).unwrap()
        })
    }

    /// A fetcher for which 127.0.0.1 is the public internet and 127.0.0.2 is not.
    fn fetcher(resolver: fn() -> Scripted) -> Fetcher<Scripted> {
        let source = JwksUrl {
            allow_http: true,
            ..JwksUrl::new("http://id.example/keys?key=1")
        };
        Fetcher {
            uri: check(&source).unwrap(),
            source,
            may_reach: |address| address.to_string() == "127.0.0.1",
            resolver,
        }
    }

    fn is_quiet(trap: &TcpListener) -> bool {
        trap.set_nonblocking(true).unwrap();
        trap.accept().is_err()
    }

    #[test]
    fn d5_a_name_that_rebinds_gains_nothing() {
        static ANSWERS: Mutex<Vec<Vec<SocketAddr>>> = Mutex::new(Vec::new());
        let public = TcpListener::bind("127.0.0.1:0").unwrap();
        let trap = TcpListener::bind("127.0.0.2:0").unwrap();
        // Public when it is judged, private when somebody asked again.
        *ANSWERS.lock().unwrap() = vec![
            vec![public.local_addr().unwrap()],
            vec![trap.local_addr().unwrap()],
        ];
        let server = serve_once(public);
        let fetcher = fetcher(|| Scripted(&ANSWERS));
        assert_eq!(fetcher.fetch().unwrap().keys.len(), 1);
        let head = server.join().unwrap();
        assert!(head.starts_with("GET /keys?key=1 HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("host: id.example\r\n"), "{head}");
        assert_eq!(ANSWERS.lock().unwrap().len(), 1, "asked once");
        // The next fetch asks again, and is refused.
        let refused = FetchError::Address("127.0.0.2".parse().unwrap());
        assert_eq!(fetcher.fetch().unwrap_err(), refused);
        assert!(is_quiet(&trap));
    }

    #[test]
    fn d5_of_several_addresses_only_public_ones_are_tried() {
        static ANSWERS: Mutex<Vec<Vec<SocketAddr>>> = Mutex::new(Vec::new());
        let public = TcpListener::bind("127.0.0.1:0").unwrap();
        let trap = TcpListener::bind("127.0.0.2:0").unwrap();
        *ANSWERS.lock().unwrap() = vec![vec![
            trap.local_addr().unwrap(),
            public.local_addr().unwrap(),
            trap.local_addr().unwrap(),
        ]];
        let server = serve_once(public);
        assert!(fetcher(|| Scripted(&ANSWERS)).fetch().is_ok());
        server.join().unwrap();
        assert!(is_quiet(&trap));
    }

    #[test]
    fn x36_the_deadline_is_the_resolvers_too() {
        #[derive(Debug)]
        struct Late;
        impl Resolver for Late {
            fn resolve(
                &self,
                _uri: &Uri,
                _config: &ureq::config::Config,
                timeout: NextTimeout,
            ) -> Result<ResolvedSocketAddrs, Error> {
                assert!(
                    *timeout.after <= Duration::from_secs(5),
                    "the deadline is handed on"
                );
                Err(Error::Timeout(timeout.reason))
            }
        }
        let source = JwksUrl {
            allow_http: true,
            ..JwksUrl::new("http://id.example/")
        };
        let fetcher = Fetcher {
            uri: check(&source).unwrap(),
            source,
            may_reach: is_public,
            resolver: || Late,
        };
        assert_eq!(fetcher.fetch().unwrap_err(), FetchError::Timeout);
    }
}
