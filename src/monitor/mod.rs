//! Monitoring: a reactor of its own that the others report to, and that answers administrators.
//!
//! The metrics thread is a second [`Server`] with one reactor. Its listeners are the administrators'
//! addresses, its [`Endpoint`](crate::conn::Endpoint) is the monitor, which owns the totals, a row for each
//! open connection and the figures of days. So nothing that is asked here disturbs a client's reactor, and
//! an administrator who reads slowly is dealt with as any slow client.
//!
//! A panic in the monitor is caught and counted: it begins anew, and the reactors tell it again who is
//! connected. After [`RESTARTS_MAX`] of them it gives up: what would need figures is answered 503 from
//! then on, and clients notice nothing.

mod access;
mod alerts;
mod answer;
mod dashboard;
mod endpoint;
mod health;
mod history;
mod inspector;
mod kernel;
mod live;
mod tables;

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use access::Token;
pub use endpoint::RESTARTS_MAX;

use crate::admission::limits::{self, Cap};
use crate::admission::{self, LOOPBACK};
use crate::config::{Config, Secret};
use crate::conn::{Serves, Speaks};
use crate::hooks::HookWatch;
use crate::logging::LinesLost;
use crate::metrics::Figures;
use crate::metrics::alert::{Rule, builtin_rules};
use crate::metrics::report::Millis;
use crate::reactor::worker::{Reporter, wall};
use crate::server::{self, Handle, ListenerSettings, Routes, Server};
use crate::tls::Acceptor;
use crate::webhook::Webhook;
use access::Access;
use endpoint::Monitor;
use history::History;

/// How monitoring is to be. Start from [`Settings::default`], or from a configuration.
#[derive(Clone)]
#[expect(
    missing_debug_implementations,
    reason = "an observer need not be printable"
)]
pub struct Settings {
    /// Where administrators connect. Default 127.0.0.1, on a port of the kernel's choice.
    pub listen: Vec<SocketAddr>,
    /// What they have to show; `None`: nothing. Default none.
    pub token: Option<Token>,
    /// Names that requests may be for, beside localhost and addresses. Default none.
    pub hosts: Vec<String>,
    /// Requests a second, 1 to 10,000, and twice as many at once; health checks are not counted.
    /// Default 50.
    pub requests_per_second: u32,
    /// How often each reactor reports, at least 50 ms. Default 1 s.
    pub report_interval: Duration,
    /// Where the figures of days are kept. Default nowhere.
    pub daily_file: Option<PathBuf>,
    /// Share of the connections allowed above which the server is not ready, in percent. Default 95.
    pub ready_percent_max: u8,
    /// What an operator should know about the configuration: shown by `/healthz?verbose` (D10).
    pub warnings: Vec<String>,
    /// WebSockets served beside the endpoints and the dashboard's. Default none.
    pub routes: Routes,
    /// When to wake somebody. Default [`builtin_rules`].
    pub alerts: Vec<Rule>,
    /// Whom alerts are posted to. Default nobody.
    pub webhook: Option<Arc<Webhook>>,
    /// Looks at the figures about once a second, on the metrics thread. A panic of it is one of the
    /// monitor's. Default nobody.
    pub observer: Option<Arc<Observer>>,
}

/// Looks at the figures of a moment.
pub type Observer = dyn Fn(Millis, &Figures) + Send + Sync;

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            token: None,
            hosts: Vec::new(),
            requests_per_second: 50,
            report_interval: Duration::from_secs(1),
            daily_file: None,
            ready_percent_max: 95,
            warnings: Vec::new(),
            routes: Vec::new(),
            alerts: builtin_rules(),
            webhook: None,
            observer: None,
        }
    }
}

impl Settings {
    /// The settings that a configuration asks for. Reads the token's file.
    ///
    /// # Errors
    /// A token file that cannot be read or used, or a webhook that cannot; the error names the key.
    pub fn from_config(config: &Config) -> io::Result<Self> {
        let monitor = &config.monitor;
        let token = match (&monitor.token, &monitor.token_file) {
            (Some(secret), _) => Some(Token::new(secret.expose())),
            (None, Some(path)) => Some(read_token(path)?),
            (None, None) => None,
        };
        Ok(Self {
            listen: monitor.listen.clone(),
            token,
            hosts: monitor.hosts.clone(),
            requests_per_second: monitor.requests_per_second,
            report_interval: monitor.tick_interval,
            daily_file: monitor.daily_file.clone(),
            ready_percent_max: monitor.ready_percent_max,
            alerts: config.alert_rules(),
            webhook: Webhook::configured(&config.webhook)?.map(Arc::new),
            ..Self::default()
        })
    }

    /// The hosts that upgrades may be for. Where a wildcard listens, any: there must be a token then.
    fn upgrade_hosts(&self) -> Vec<String> {
        if self
            .listen
            .iter()
            .any(|address| address.ip().is_unspecified())
        {
            return Vec::new();
        }
        let own = self.listen.iter().map(|address| match address.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        });
        let loopback = std::iter::once(LOOPBACK.to_owned());
        loopback
            .chain(own)
            .chain(self.hosts.iter().cloned())
            .collect()
    }
}

/// Longest token file in bytes.
const TOKEN_FILE_BYTES_MAX: u64 = 4 * 1024;

fn read_token(path: &Path) -> io::Result<Token> {
    let named = |kind, text: &str| {
        io::Error::new(
            kind,
            format!("monitor.token_file {}: {text}", path.display()),
        )
    };
    let length = fs::metadata(path)
        .map_err(|error| named(error.kind(), &error.to_string()))?
        .len();
    if length > TOKEN_FILE_BYTES_MAX {
        return Err(named(io::ErrorKind::FileTooLarge, "longer than 4 KiB"));
    }
    let text = fs::read_to_string(path).map_err(|error| named(error.kind(), &error.to_string()))?;
    let text = zeroize::Zeroizing::new(text);
    let secret = Secret::new(text.trim_end_matches(['\r', '\n']));
    let secret = secret.map_err(|error| named(io::ErrorKind::InvalidData, &error))?;
    Ok(Token::new(secret.expose()))
}

/// The server that is watched.
#[derive(Debug)]
pub struct Subject {
    /// It, to be asked and told.
    pub handle: Handle,
    /// Its certificates, if it has any.
    pub acceptor: Option<Acceptor>,
    /// The lines that its log lost, if it has one.
    pub lines_lost: Option<LinesLost>,
    /// What became of its reloads.
    pub reloads: Arc<Reloads>,
    /// Its hooks, if it has any.
    pub hooks: Option<HookWatch>,
}

/// What became of reloads: counted by whoever does them, shown by the monitor.
#[derive(Debug, Default)]
pub struct Reloads {
    ok: AtomicU64,
    failed: AtomicU64,
}

impl Reloads {
    /// Counts one, that was put in force or that changed nothing because something was wrong.
    pub fn count(&self, is_ok: bool) {
        let counter = if is_ok { &self.ok } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        vec![("ok", load(&self.ok)), ("failed", load(&self.failed))]
    }
}

impl Subject {
    /// Now, on the clock of its reports.
    fn now(&self) -> Millis {
        u64::try_from(self.handle.uptime().as_millis()).unwrap_or(Millis::MAX)
    }
}

/// What the monitor's thread and whoever started it share.
struct Shared {
    settings: Settings,
    /// The rules of access, nothing of which has been spent.
    access: Access,
    subject: OnceLock<Subject>,
}

/// Monitoring that runs. Dropping it does not end it; [`finish`](Self::finish) does.
#[expect(
    missing_debug_implementations,
    reason = "an observer need not be printable"
)]
pub struct Monitoring {
    server: Server,
    shared: Arc<Shared>,
}

/// Administrators' connections at a time: what the configuration keeps descriptors free for.
const CONNECTIONS_MAX: u32 = 32;

impl Monitoring {
    /// Binds the addresses and starts the metrics thread. Nothing is ready until there is something to
    /// [`watch`](Self::watch).
    ///
    /// # Errors
    /// An address that cannot be bound, settings that make no sense, or a thread that cannot be started.
    pub fn start(settings: Settings) -> io::Result<Self> {
        if let Some(path) = &settings.daily_file {
            check_folder(path)?;
        }
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
        let (token, hosts) = (settings.token.clone(), settings.hosts.clone());
        let mut routes = settings.routes.clone();
        routes.push(live::route(token.clone()).map_err(invalid_name)?);
        let access = Access::new(token, hosts, settings.requests_per_second).map_err(invalid)?;
        let listener = |&address: &SocketAddr| ListenerSettings {
            address,
            speaks: Speaks {
                serves: Serves::Both,
                ..Speaks::default()
            },
        };
        let shared = Arc::new(Shared {
            settings: settings.clone(),
            access,
            subject: OnceLock::new(),
        });
        let make = {
            let shared = Arc::clone(&shared);
            move |_: usize| Monitor::new(Arc::clone(&shared))
        };
        let server = Server::start(
            server::Settings {
                name: "monitor",
                reactors: NonZeroUsize::MIN,
                listeners: settings.listen.iter().map(listener).collect(),
                endpoint: Some(Arc::new(make)),
                admission: admission::Policy {
                    hosts: settings.upgrade_hosts(),
                    limits: limits::Policy {
                        connections: Cap::of(CONNECTIONS_MAX),
                        address_connections: None,
                        address_attempts: None,
                        ..limits::Policy::default()
                    },
                    ..admission::Policy::default()
                },
                addresses_max: 64,
                drain_timeout: Duration::from_secs(1),
                ..server::Settings::default()
            },
            routes,
        )?;
        Ok(Self { server, shared })
    }

    /// Whom a server's reactors are to report to: for its [`server::Settings::reporter`].
    #[must_use]
    pub fn reporter(&self) -> Reporter {
        let interval = self.shared.settings.report_interval;
        self.server.handle().reporter(interval)
    }

    /// Says what is watched: the server that was started with [`reporter`](Self::reporter). The first
    /// call counts.
    pub fn watch(&self, subject: Subject) {
        let _ = self.shared.subject.set(subject);
    }

    /// Where administrators connect, with the ports the kernel chose.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        self.server.addresses()
    }

    /// Ends it, when what it watched has ended: the last reports are taken in, and the figures of days
    /// are on the disk when this returns.
    pub fn finish(self) {
        self.server.handle().shut_down();
        let _ = self.server.wait();
    }
}

fn invalid_name(error: crate::hub::ChannelError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

/// A folder that cannot be written to is noticed at the start, not after the first minute.
fn check_folder(path: &Path) -> io::Result<()> {
    let named = |error: io::Error| {
        io::Error::new(
            error.kind(),
            format!("monitor.daily_file {}: {error}", path.display()),
        )
    };
    let probe = history::beside(path, "new");
    fs::File::create(&probe).map_err(named)?;
    fs::remove_file(&probe).map_err(named)
}
