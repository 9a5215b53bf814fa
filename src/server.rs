//! Threads from settings: binds, starts a reactor per core, hands out letters, waits for the end.

use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use mio::{Poll, Waker};

use crate::admission::jwt::Verify;
use crate::admission::limits::{ADDRESSES_MAX, Cap};
use crate::admission::revocation::{Revocation, TooManyRevocations};
use crate::admission::{self, Route, limits};
use crate::config::{Config, Listen};
use crate::conn::{
    CloseReason, ConnectionId, Context, EndpointFactory, Gate, HandlerFactory, Page, Policy,
    Serves, Speaks, Timeouts, id, outbox,
};
use crate::demo;
use crate::http;
use crate::hub::{self, Answer, Channel, Command, CommandError, Home, Hub, Policies, ReplyTo};
use crate::metrics::Counters;
use crate::reactor::listener;
use crate::reactor::mailbox::{Postbox, mailbox};
use crate::reactor::worker::{Limits, Mail, Orders, Parts, Reactor, Reporter, WAKER, now, wall};
use crate::routes;
use crate::timer;
use crate::tls::{self, Acceptor, CertificateError};
use crate::ws::{CloseCode, Message};

/// What a server is made of. Start from [`Settings::default`] and change what you need.
#[derive(Clone)]
#[expect(
    missing_debug_implementations,
    reason = "a verifier of somebody else's need not be printable"
)]
pub struct Settings {
    /// What its threads are called, before a dash and their number. Default `reactor`.
    pub name: &'static str,
    /// Threads with a poll each, 1 to 255. Default: the cores this process may use, by affinity and
    /// by its cgroup's quota.
    pub reactors: NonZeroUsize,
    /// Addresses to listen on. Default `127.0.0.1:8080`, plain.
    pub listeners: Vec<ListenerSettings>,
    /// Certificates and ticket keys; needed if a listener speaks TLS.
    pub acceptor: Option<Acceptor>,
    /// Limits on request heads.
    pub http: http::head::Limits,
    /// Limits on what waits for a slow client.
    pub outbox: outbox::Limits,
    /// What answers plain requests; needed if a listener serves them. Default none.
    pub endpoint: Option<Arc<dyn EndpointFactory>>,
    /// What `GET /` is answered with on listeners that serve only WebSockets otherwise. Default nothing.
    pub page: Option<Page>,
    /// Limits on plain requests.
    pub requests: http::exchange::Limits,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// Who may connect, as far as it is the same for all paths. Default: 1,048,576 connections, and no
    /// limits for single addresses; [`limits::Policy::default`] is safe on the open internet. A process
    /// cannot have more connections than its limit on open files allows.
    pub admission: admission::Policy,
    /// Addresses that can be told apart at a time; see [`limits::Limits::new`]. Default 65,536.
    pub addresses_max: usize,
    /// Who judges tokens; needed by routes that demand one. Default none.
    pub verifier: Option<Arc<dyn Verify>>,
    /// Connections of one reactor that are still on their way in. Default 1,024.
    pub handshakes_in_flight_max: usize,
    /// While a reactor's turn takes longer than this, it accepts one connection in a turn. Default 50 ms.
    pub loop_lag_max: Option<Duration>,
    /// How long after the start it takes until `handshakes_in_flight_max` counts in full; a sixteenth of
    /// it counts from the start. Default `None`: at once.
    pub ramp: Option<Duration>,
    /// What waits for subscribers, and what channels keep.
    pub hub: hub::Limits,
    /// What is promised of which channel. Default: nothing beyond delivery.
    pub channels: Policies,
    /// Letters that wait for a reactor. Default 4,096.
    pub mailbox_letters_max: usize,
    /// Whom the reactors report to; see [`Handle::reporter`]. Default nobody.
    pub reporter: Option<Reporter>,
    /// How long [`Handle::shut_down`] waits for connections to end. Default 10 s.
    pub drain_timeout: Duration,
}

/// The reactors that an id can name.
const REACTORS_MAX: NonZeroUsize = NonZeroUsize::new(id::REACTORS_MAX).unwrap();

/// An address, and what is spoken there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenerSettings {
    /// Where to listen; port 0 lets the kernel choose one.
    pub address: SocketAddr,
    /// What connections begin with.
    pub speaks: Speaks,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: "reactor",
            reactors: std::thread::available_parallelism()
                .unwrap_or(NonZeroUsize::MIN)
                .min(REACTORS_MAX),
            listeners: vec![ListenerSettings {
                address: SocketAddr::from(([127, 0, 0, 1], 8080)),
                speaks: Speaks::default(),
            }],
            acceptor: None,
            http: http::head::Limits::default(),
            outbox: outbox::Limits::default(),
            endpoint: None,
            page: None,
            requests: http::exchange::Limits::default(),
            timeouts: Timeouts::default(),
            admission: admission::Policy {
                limits: limits::Policy {
                    connections: Cap::of(1 << 20),
                    address_connections: None,
                    address_attempts: None,
                    ..limits::Policy::default()
                },
                ..admission::Policy::default()
            },
            addresses_max: ADDRESSES_MAX,
            verifier: None,
            handshakes_in_flight_max: 1024,
            loop_lag_max: Some(Duration::from_millis(50)),
            ramp: None,
            hub: hub::Limits::default(),
            channels: Policies::default(),
            mailbox_letters_max: 4096,
            reporter: None,
            drain_timeout: Duration::from_secs(10),
        }
    }
}

impl Settings {
    /// The settings that a configuration asks for, but for the verifier of tokens, whose keys a
    /// [`KeyRing`](crate::keys::KeyRing) holds, and for the endpoint of the API, whose listeners come
    /// behind those of the clients: see [`api::endpoint`](crate::api::endpoint). Reads the certificates, or makes one.
    ///
    /// # Errors
    /// A certificate that cannot be used; the error names the file.
    pub fn from_config(config: &Config) -> Result<Self, CertificateError> {
        let serves_api = config.serves_api();
        let speaks_tls =
            config.listen.iter().any(|listen| listen.tls) || (serves_api && config.api.tls);
        let acceptor = match (speaks_tls, certificate_files(config)) {
            (false, _) => None,
            (true, files) if files.is_empty() => {
                let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
                Some(Acceptor::self_signed(&names)?)
            }
            (true, files) => Some(Acceptor::from_files(&files)?),
        };
        Ok(Self {
            acceptor,
            ..Self::without_acceptor(config)
        })
    }

    /// The same without the certificates: nothing is read.
    #[must_use]
    pub fn without_acceptor(config: &Config) -> Self {
        let serves_api = config.serves_api();
        let listener = |listen: &Listen| ListenerSettings {
            address: listen.address,
            speaks: Speaks {
                proxy: listen.proxy_protocol,
                tls: listen.tls,
                ..Speaks::default()
            },
        };
        let of_api = |address: &SocketAddr| ListenerSettings {
            address: *address,
            speaks: Speaks {
                proxy: false,
                tls: config.api.tls,
                serves: Serves::Requests,
            },
        };
        let api = config.api.listen.iter().filter(|_| serves_api).map(of_api);
        Self {
            reactors: NonZeroUsize::new(config.reactors.into()).unwrap_or(NonZeroUsize::MIN),
            listeners: config.listen.iter().map(listener).chain(api).collect(),
            http: http::head::Limits {
                head_bytes_max: config.http.head_bytes_max,
                headers_max: config.http.headers_max,
                target_bytes_max: config.http.target_bytes_max,
            },
            requests: http::exchange::Limits {
                head: http::head::Limits::default(),
                body_bytes_max: config.api.body_bytes_max,
                ..http::exchange::Limits::default()
            },
            outbox: outbox::Limits {
                bytes_high_water: config.outbox.bytes_high_water,
                bytes_max: config.outbox.bytes_max,
                at_limit: config.outbox.at_limit,
            },
            timeouts: Timeouts {
                tls_handshake: config.tls.handshake_timeout,
                head: config.http.head_timeout,
                message: config.websocket.message_timeout,
                ping_interval: config.websocket.ping_interval,
                pong: config.websocket.pong_timeout,
                close: config.websocket.close_timeout,
                write: config.outbox.write_timeout,
                ..Timeouts::default()
            },
            handshakes_in_flight_max: config.limits.handshakes_in_flight_max as usize,
            loop_lag_max: config.limits.loop_lag_max,
            ramp: config.limits.ramp,
            admission: config.admission(),
            addresses_max: config.limits.addresses_max as usize,
            drain_timeout: config.shutdown.drain_timeout,
            hub: config.hub.limits(),
            page: config.demo_page.then(demo::page),
            channels: routes::policies(config),
            ..Self::default()
        }
    }

    /// What of them each reactor has a copy of.
    fn policy(&self, routes: Vec<Route>) -> Policy {
        Policy {
            http: self.http.clone(),
            routes,
            admission: self.admission.clone(),
            requests: self.requests.clone(),
            outbox: self.outbox,
            deadlines: self.timeouts.into(),
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            handshakes_in_flight_max: self.handshakes_in_flight_max,
            loop_lag_max: self.loop_lag_max,
            ramp: self.ramp,
            drain_timeout: self.drain_timeout,
        }
    }
}

/// The certificates a configuration names, as the acceptor wants them.
#[must_use]
pub fn certificate_files(config: &Config) -> Vec<tls::CertificateFiles> {
    let files = config.tls.certificates.iter();
    files
        .map(|pair| tls::CertificateFiles {
            certificate_chain: pair.certificate.clone(),
            private_key: pair.key.clone(),
        })
        .collect()
}

/// What a server serves: routes, and who makes their handlers.
pub type Routes = Vec<(Route, Arc<dyn HandlerFactory>)>;

/// What a running server is to obey from now on; see [`Handle::reload`].
#[derive(Clone)]
#[expect(
    missing_debug_implementations,
    reason = "a factory of somebody else's need not be printable"
)]
pub struct Reload {
    /// Limits, timeouts and what all routes have in common are taken from them; threads, listeners,
    /// certificates, channels, the endpoint and `addresses_max` are not.
    pub settings: Settings,
    /// The routes that the server has, each in its place and with its handlers, as they are to be from now
    /// on. One that is to go is [retired](Route::is_retired).
    pub routes: Vec<Route>,
    /// Routes that come behind them.
    pub added: Routes,
}

/// A reload that names fewer or more routes than the server has, or more than can be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoutesDiffer;

impl std::fmt::Display for RoutesDiffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            "a reload has to name each route that the server has, and 65,536 in all at most",
        )
    }
}

impl std::error::Error for RoutesDiffer {}

/// What a server serves now, for whoever watches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// The paths of its routes, by their indices, with those that are retired.
    pub paths: Vec<String>,
    /// Connections it accepts at most.
    pub connections_max: u32,
}

impl Served {
    fn new(settings: &Settings, routes: &[Route]) -> Self {
        Self {
            paths: routes.iter().map(|route| route.path.to_string()).collect(),
            connections_max: settings.admission.limits.connections.max,
        }
    }
}

/// A running server. Dropping it does not end it; [`Handle::shut_down`] does.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<SocketAddr>,
    handle: Handle,
    reactors: Vec<JoinHandle<Counters>>,
}

/// Speaks to a running server from any thread; cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    postboxes: Arc<[Postbox<Mail>]>,
    gate: Gate,
    epoch: Instant,
    /// The same as the reactors have: it says where channels live.
    hasher: ahash::RandomState,
    answer_timeout: Duration,
    served: Arc<ArcSwap<Served>>,
}

/// A letter could not be delivered: the reactor's mailbox is full, or the reactor has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undeliverable;

impl std::fmt::Display for Undeliverable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the reactor's mailbox is full, or the reactor has ended")
    }
}

impl std::error::Error for Undeliverable {}

impl Server {
    /// Binds all addresses, then starts the reactors. The routes' handlers are made on the reactors'
    /// own threads.
    ///
    /// A panic in a reactor, outside the handlers' callbacks, is a bug of this crate and ends the
    /// process: a server of which one thread is dead would fail a part of its clients for ever.
    ///
    /// # Errors
    /// An address that cannot be bound (the error names it), a TLS listener without an acceptor, one for
    /// plain requests without an endpoint, more than 255 reactors, or a thread that cannot be started.
    pub fn start(settings: Settings, routes: Routes) -> io::Result<Self> {
        let count = settings.reactors.get();
        let invalid = |text: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        if settings.reactors > REACTORS_MAX {
            return invalid("at most 255 reactors");
        }
        if settings.acceptor.is_none() && settings.listeners.iter().any(|one| one.speaks.tls) {
            return invalid("a TLS listener needs an acceptor");
        }
        let answers = |one: &ListenerSettings| one.speaks.serves != Serves::Upgrades;
        if settings.endpoint.is_none() && settings.listeners.iter().any(answers) {
            return invalid("a listener for plain requests needs an endpoint");
        }
        let (mut sockets, addresses) = bind_all(&settings)?;
        let mut polls = Vec::new();
        for _ in 0..count {
            let poll = Poll::new()?;
            let waker = Waker::new(poll.registry(), WAKER)?;
            let (postbox, mailbox) = mailbox(settings.mailbox_letters_max, waker);
            polls.push((poll, postbox, mailbox));
        }
        let postboxes: Vec<Postbox<Mail>> = polls.iter().map(|(_, box_, _)| box_.clone()).collect();
        let gate = Gate::new(settings.addresses_max, settings.verifier.clone());
        let epoch = now();
        let hasher = ahash::RandomState::new();
        let (routes, factories): (Vec<Route>, Vec<_>) = routes.into_iter().unzip();
        let handle = Handle {
            served: Arc::new(ArcSwap::from_pointee(Served::new(&settings, &routes))),
            postboxes: postboxes.clone().into(),
            gate: gate.clone(),
            epoch,
            hasher: hasher.clone(),
            answer_timeout: timer::TICK * settings.hub.answer_timeout,
        };
        let channels = Arc::new(settings.channels.clone());
        let policy = settings.policy(routes);
        let limits = settings.limits();
        let mut reactors = Vec::new();
        for (me, (poll, _, mailbox)) in polls.into_iter().enumerate() {
            let number = u8::try_from(me).unwrap_or(u8::MAX);
            let home = Home {
                hasher: hasher.clone(),
                reactors: count,
                me,
            };
            let seed = hasher.hash_one(me);
            let (policy, factories) = (policy.clone(), factories.clone());
            let (postboxes, gate) = (postboxes.clone(), gate.clone());
            let acceptor = settings.acceptor.clone();
            let listeners = sockets.pop_front().unwrap_or_default();
            let reporter = settings.reporter.clone();
            let (hub_limits, channels) = (settings.hub, Arc::clone(&channels));
            let endpoint = settings.endpoint.clone();
            let page = settings.page.clone();
            let start = move || {
                let _end_with_me = EndProcessOnPanic;
                let handlers = factories.iter().map(|factory| factory.make(me)).collect();
                let hub = Hub::with_policies(home, hub_limits, channels);
                let mut context = Context::new(Rc::new(policy), gate, hub, handlers, seed);
                context.endpoint = endpoint.map(|factory| factory.make(me));
                context.page = page;
                let parts = Parts {
                    number,
                    poll,
                    listeners,
                    acceptor,
                    mailbox,
                    postboxes,
                    context,
                    limits,
                    reporter,
                    epoch,
                };
                match Reactor::new(parts).and_then(Reactor::run) {
                    Ok(counters) => counters,
                    Err(error) => panic!("reactor {me} cannot poll: {error}"),
                }
            };
            let thread = std::thread::Builder::new().name(format!("{}-{me}", settings.name));
            match thread.spawn(start) {
                Ok(reactor) => reactors.push(reactor),
                Err(error) => {
                    handle.shut_down();
                    return Err(error);
                }
            }
        }
        Ok(Self {
            addresses,
            handle,
            reactors,
        })
    }

    /// The addresses in the order of the settings, with the ports the kernel chose.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// A handle to speak to the server with.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits until the server has been shut down; returns all that it did.
    #[must_use]
    pub fn wait(self) -> Counters {
        let mut total = Counters::default();
        for reactor in self.reactors {
            if let Ok(counters) = reactor.join() {
                total.merge(&counters);
            }
        }
        total
    }
}

/// For each reactor, its sockets; and the addresses they are bound to.
type Sockets = std::collections::VecDeque<Vec<(std::net::TcpListener, Speaks)>>;

fn bind_all(settings: &Settings) -> io::Result<(Sockets, Vec<SocketAddr>)> {
    let count = settings.reactors.get();
    let mut sockets: Sockets = std::iter::repeat_with(Vec::new).take(count).collect();
    let mut addresses = Vec::new();
    for ListenerSettings { address, speaks } in &settings.listeners {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
        };
        // A socket that does not share its port finds out whether somebody else is listening there:
        // with SO_REUSEPORT alone, a second server of the same user would quietly take half.
        drop(listener::bind(*address, false).map_err(named)?);
        let first = listener::bind(*address, true).map_err(named)?;
        addresses.push(first.local_addr()?);
        for reactor in sockets.iter_mut().skip(1) {
            reactor.push((listener::bind_beside(&first).map_err(named)?, *speaks));
        }
        sockets[0].push((first, *speaks));
    }
    Ok((sockets, addresses))
}

impl Handle {
    /// Has the reactors of another server report to this one's endpoint, every `interval` (at least
    /// 50 ms): what they did, what they measured, and what became of each connection.
    #[must_use]
    pub fn reporter(&self, interval: Duration) -> Reporter {
        Reporter {
            postbox: self.postboxes[0].clone(),
            interval,
        }
    }

    /// How long ago the server started: the clock of its reports.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// How many reactors it has.
    #[must_use]
    pub fn reactors(&self) -> usize {
        self.postboxes.len()
    }

    /// What it serves now.
    #[must_use]
    pub fn served(&self) -> Arc<Served> {
        self.served.load_full()
    }

    /// Has all reactors obey other settings and serve other routes from now on. Each takes them over as
    /// a whole between two of its turns, so that what a handshake is judged by is all old or all new. Open
    /// connections stay; those of a route that is replaced in its place obey the new one with their next
    /// message. Handlers of added routes are made on the reactors' threads.
    ///
    /// Blocks until all reactors have done so, which takes a turn of theirs, or two seconds each at most: not
    /// for a reactor's own thread.
    ///
    /// # Errors
    /// [`RoutesDiffer`]; nothing has changed.
    pub fn reload(&self, reload: Reload) -> Result<(), RoutesDiffer> {
        let Reload {
            settings,
            mut routes,
            added,
        } = reload;
        let (more, factories): (Vec<Route>, Vec<_>) = added.into_iter().unzip();
        let fits = routes.len() + more.len() <= usize::from(u16::MAX) + 1;
        if routes.len() != self.served().paths.len() || !fits {
            return Err(RoutesDiffer);
        }
        routes.extend(more);
        self.served.store(Arc::new(Served::new(&settings, &routes)));
        let (policy, limits) = (settings.policy(routes), settings.limits());
        let (sender, obeyed) = crossbeam_channel::bounded(self.postboxes.len());
        for postbox in &*self.postboxes {
            let mut letter = Mail::Reload(Box::new(Orders {
                policy: policy.clone(),
                limits,
                factories: factories.clone(),
                obeyed: sender.clone(),
            }));
            while let Err(refused) = postbox.post(letter) {
                if postbox.must_end() {
                    break;
                }
                letter = refused;
                std::thread::park_timeout(MAILBOX_PATIENCE);
            }
        }
        // A reactor that has ended drops its letters, and with the last one the answers end.
        drop(sender);
        for _ in &*self.postboxes {
            let _ = obeyed.recv_timeout(RELOAD_PATIENCE);
        }
        Ok(())
    }

    /// Whether it has been told to shut down.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        self.postboxes[0].must_end()
    }

    /// What admission shares between the reactors: counts by address and by user, revocations.
    #[must_use]
    pub const fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Sends a message to one connection, if it is open when the letter arrives.
    ///
    /// # Errors
    /// [`Undeliverable`] if the reactor's mailbox is full.
    pub fn send(
        &self,
        to: ConnectionId,
        message: impl Into<Message<'static>>,
    ) -> Result<(), Undeliverable> {
        self.post(to.reactor(), Mail::Send(to, message.into()))
    }

    /// Says something about a connection of the route that has this place among the server's routes: its
    /// handler is [told](crate::Handler::told), or, if the connection has ended,
    /// [told too late](crate::Handler::told_too_late). The value must not hold much memory.
    ///
    /// # Errors
    /// Gives the value back if the reactor's mailbox is full or the reactor has ended.
    pub fn tell(
        &self,
        to: ConnectionId,
        route: u16,
        what: Box<dyn Any + Send>,
    ) -> Result<(), Box<dyn Any + Send>> {
        self.tell_sized(to, route, what, 0)
    }

    /// The same with something that holds so many bytes of memory.
    ///
    /// # Errors
    /// As [`Self::tell`].
    pub fn tell_sized(
        &self,
        to: ConnectionId,
        route: u16,
        what: Box<dyn Any + Send>,
        bytes: usize,
    ) -> Result<(), Box<dyn Any + Send>> {
        let Some(postbox) = self.postboxes.get(to.reactor()) else {
            return Err(what);
        };
        match postbox.post_sized(Mail::Tell(to, route, what), bytes) {
            Err(Mail::Tell(_, _, what)) => Err(what),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Starts the closing handshake with one connection.
    ///
    /// # Errors
    /// [`Undeliverable`] if the reactor's mailbox is full.
    pub fn close(
        &self,
        to: ConnectionId,
        code: CloseCode,
        reason: &str,
    ) -> Result<(), Undeliverable> {
        let (reason, text) = (CloseReason::Disconnected, reason.to_owned());
        self.post(to.reactor(), Mail::Close(to, reason, code, text))
    }

    /// Publishes a message to all subscribers of a channel. Publications of one thread to one channel
    /// arrive in their order.
    ///
    /// # Errors
    /// [`Undeliverable`] if the mailbox of the channel's home is full.
    pub fn publish(
        &self,
        channel: &Channel,
        message: impl Into<Message<'static>>,
    ) -> Result<(), Undeliverable> {
        let home = self.home(channel);
        self.post(home, Mail::Publish(channel.clone(), message.into()))
    }

    /// Asks the hub for something and waits for the answer, at most as long as a command may take, and a
    /// second. Not for a reactor's own thread: a handler asks through its
    /// [`Peer`](crate::conn::Peer::ask).
    ///
    /// # Errors
    /// What the hub says; [`CommandError::Internal`] where a mailbox is full or nobody answers in time.
    pub fn ask(&self, command: Command) -> Answer {
        let (sender, answers) = crossbeam_channel::bounded(1);
        let reactor = command.home_of().map_or(0, |channel| self.home(channel));
        self.post(reactor, Mail::Ask(command, ReplyTo::Thread(sender)))
            .map_err(|_| CommandError::Internal)?;
        let patience = self.answer_timeout + Duration::from_secs(1);
        let answer = answers.recv_timeout(patience);
        answer.unwrap_or(Err(CommandError::Internal))
    }

    fn home(&self, channel: &Channel) -> usize {
        channel.home(&self.hasher, self.postboxes.len())
    }

    /// Revokes a user's tokens, or a single one: whoever is connected with such a token is closed with
    /// 4401 on all reactors at once, and nobody gets in with one for `lifetime`. Choose it so that every
    /// token that exists now has expired by then.
    ///
    /// # Errors
    /// [`TooManyRevocations`]: as many as fit are in force; nothing has changed.
    pub fn revoke(
        &self,
        revocation: &Revocation,
        lifetime: Duration,
    ) -> Result<(), TooManyRevocations> {
        let now = wall();
        let until = now.saturating_add(lifetime.as_secs());
        self.gate.revocations.revoke(revocation, now, until)?;
        for postbox in &*self.postboxes {
            // Where the mailbox is full, the reactor is awake and looks before it sleeps.
            let _ = postbox.post(Mail::Revoked);
        }
        Ok(())
    }

    /// What the server did since it started. Asks every reactor and waits for the answers, at most a
    /// second each; a reactor that does not answer is missing from the sum.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let (sender, answers) = crossbeam_channel::bounded(self.postboxes.len());
        let asked = self
            .postboxes
            .iter()
            .filter(|postbox| postbox.post(Mail::Counters(sender.clone())).is_ok())
            .count();
        let mut total = Counters::default();
        for _ in 0..asked {
            if let Ok(counters) = answers.recv_timeout(Duration::from_secs(1)) {
                total.merge(&counters);
            }
        }
        total
    }

    /// Shuts the server down, from any thread, a handler's too: nothing more is accepted, every connection is closed with 1001, and the
    /// reactors end when all have gone or the drain timeout has passed.
    pub fn shut_down(&self) {
        for postbox in &*self.postboxes {
            postbox.post_end();
        }
    }

    fn post(&self, reactor: usize, letter: Mail) -> Result<(), Undeliverable> {
        let postbox = self.postboxes.get(reactor).ok_or(Undeliverable)?;
        postbox.post(letter).map_err(|_| Undeliverable)
    }
}

/// How long a reactor may take to obey before its turn is no longer waited for.
const RELOAD_PATIENCE: Duration = Duration::from_secs(2);

/// How soon a mailbox that was full is tried again.
const MAILBOX_PATIENCE: Duration = Duration::from_millis(5);

/// Ends the process when its thread panics, after the panic's message has been printed.
struct EndProcessOnPanic;

impl Drop for EndProcessOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}
