//! Hooks: a backend's own HTTP views decide what happens on a route.
//!
//! An event of a connection ([`Event`]) becomes a POST of JSON to the backend's URL; its answer
//! ([`Answer`]) may reply, publish, join, leave and close, within the route's own channels. The calls are
//! made by threads of their own ([`Hooks::start`]); a reactor hands over what has happened and goes on,
//! and the answer comes back by mail.
//!
//! * **Order.** A connection has one call in flight; its next event waits for the answer. Between
//!   connections there is no order.
//! * **Bounds.** Calls that are under way or wait are bounded, in number and in bytes, of all and of each
//!   connection. At a bound an event is not told: it counts as a call that failed.
//! * **Failure.** A backend that is away is not waited for by everybody: after some failures in a row its
//!   URL is left alone for a while ([`breaker`]). What happens to the connection is the route's to say
//!   ([`FailMode`]), but for [`Event::Authorise`]: who cannot be asked about is not let in.
//! * **Trust.** Requests are signed ([`signature`](crate::signature)), and the id in the signature is the
//!   same for all attempts at one call. What is called, and what of an answer counts, is said in
//!   [`outbound`] and [`answer`].

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use crate::conn::Peer;
use crate::hub::Channel;
use crate::metrics::HookFigures;
use crate::outbound::{self, Client, ClientFault, Reach};
use crate::server::Handle;
use crate::signature::Signer;
use crate::ws::Message;
use event::{Detail, Facts};
use pool::{Call, News, Room, Threads, clock};
use tally::Tally;

pub use answer::{ANSWER_BYTES_MAX, Answer, AnswerError, LIST_MAX};
pub use configured::{Configured, HooksError, configured};
pub use event::Event;
pub use handler::{HELD_BYTES_MAX, HELD_MESSAGES_MAX, Hooked};
pub use tally::{LATENCY_BOUNDS_MS, Outcome};

pub mod answer;
pub mod breaker;
mod configured;
mod dispatch;
pub mod event;
mod handler;
mod pool;
mod tally;

/// How backends are called.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Calls at a time, at least 1, each a thread. Default 8.
    pub threads: usize,
    /// Calls that are under way or wait, of all connections. Default 1,024.
    pub queue_max: usize,
    /// Bytes of them. Default 16 MiB.
    pub queue_bytes_max: usize,
    /// Events of one connection that wait behind its call in flight. Default 32.
    pub connection_queue_max: usize,
    /// How long one attempt may take, from resolving the name to the answer's last byte. Default 5 s.
    pub timeout: Duration,
    /// How long a connection waits to be let in: for its place in the queue, for all attempts, and for its
    /// reactor to take the answer. Then it is closed with 4503. Default 30 s, in which three attempts end
    /// that take as long as they may.
    pub authorise_timeout: Duration,
    /// Further attempts at a call that failed. Default 2.
    pub retries: u32,
    /// The pause before the first of them; doubled for each further one. Default 200 ms.
    pub retry_wait: Duration,
    /// Whether a message is sent again that the backend may have acted upon, because it knows repetitions
    /// by their id. Default false: only where it was not reached, or says 429 or 503.
    pub retry_messages: bool,
    /// When a URL is left alone. Default 10 failures in a row, 10 s.
    pub breaker: breaker::Limits,
    /// Signs requests; `None`: anyone who reaches the backend can make one. Default `None`.
    pub signer: Option<Signer>,
    /// Whether `http:` is allowed. Default false.
    pub allow_http: bool,
    /// Which addresses may be called. Default public and private ones, and no metadata service.
    pub reach: Reach,
    /// Certificates in PEM to trust besides the system's. Default `None`.
    pub ca_file: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            threads: 8,
            queue_max: 1024,
            queue_bytes_max: 16 * 1024 * 1024,
            connection_queue_max: 32,
            timeout: Duration::from_secs(5),
            authorise_timeout: Duration::from_secs(30),
            retries: 2,
            retry_wait: Duration::from_millis(200),
            retry_messages: false,
            breaker: breaker::Limits {
                failures: 10,
                wait: Duration::from_secs(10),
            },
            signer: None,
            allow_http: false,
            reach: Reach {
                private: true,
                ..Reach::default()
            },
            ca_file: None,
        }
    }
}

/// What happens to a connection whose event could not be told to the backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailMode {
    /// Nothing: it goes on as if the backend had answered nothing.
    #[default]
    Open,
    /// It is closed with 1013.
    Closed,
}

/// Says whether a channel is one of a route's own.
pub type Owns = Arc<dyn Fn(&Channel) -> bool + Send + Sync>;

/// Which of a route's events are told to whom.
#[derive(Clone)]
pub struct RouteSettings {
    /// The route's path, as the configuration writes it.
    pub path: String,
    /// The URL of each event, by [`Event::index`].
    pub urls: [Option<String>; 4],
    /// What happens when the backend is away.
    pub fail: FailMode,
    /// Which channels answers may name.
    pub owns: Owns,
}

impl fmt::Debug for RouteSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteSettings")
            .field("path", &self.path)
            .field("fail", &self.fail)
            .finish_non_exhaustive()
    }
}

/// A URL that cannot be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookFault {
    /// The URL, without its query.
    pub url: String,
    /// What is wrong with it, or with how it is to be called.
    pub fault: ClientFault,
}

impl fmt::Display for HookFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.url, self.fault)
    }
}

impl std::error::Error for HookFault {}

/// A URL that is called.
#[derive(Debug)]
struct Target {
    /// Its place among all.
    index: usize,
    /// As the log names it.
    shown: String,
    client: Client,
}

/// A route's URLs.
struct RouteTargets {
    path: String,
    targets: [Option<Arc<Target>>; 4],
    fail: FailMode,
    owns: Owns,
}

impl fmt::Debug for RouteTargets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteTargets")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// What comes back to a connection's reactor.
#[derive(Debug)]
struct Letter {
    event: Event,
    /// `None` if there was none.
    answer: Option<Answer>,
}

impl Letter {
    fn bytes(&self) -> usize {
        self.answer.as_ref().map_or(0, Answer::bytes)
    }
}

/// What all routes share.
#[derive(Debug)]
struct Desk {
    news: Sender<News>,
    room: Arc<Room>,
    tally: Arc<Tally>,
    authorise_timeout: Duration,
    /// Keeps ids of this run apart from those of others.
    run: u64,
    next_id: AtomicU64,
}

/// All hooks of a server. Routes are added, then [`start`](Self::start) makes the calls.
#[derive(Debug)]
pub struct Hooks {
    settings: Settings,
    desk: Arc<Desk>,
    heard: Receiver<News>,
    targets: HashMap<String, Arc<Target>>,
    threads: Option<Threads>,
}

impl Hooks {
    /// Hooks without routes. No thread is started yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        // Each call in it holds a place, each result a thread; one more is for the end.
        let (news, heard) = crossbeam_channel::bounded(settings.queue_max + settings.threads + 1);
        let room = Room::new(settings.queue_max, settings.queue_bytes_max);
        let desk = Desk {
            news,
            room: Arc::new(room),
            tally: Arc::default(),
            authorise_timeout: settings.authorise_timeout,
            run: ahash::RandomState::new().hash_one(0_u8),
            next_id: AtomicU64::new(0),
        };
        Self {
            settings,
            desk: Arc::new(desk),
            heard,
            targets: HashMap::new(),
            threads: None,
        }
    }

    /// Adds a route. Routes that name the same URL share its connections and its breaker.
    ///
    /// # Errors
    /// A URL that cannot be called.
    pub fn route(&mut self, route: RouteSettings) -> Result<RouteHooks, HookFault> {
        let mut targets: [Option<Arc<Target>>; 4] = Default::default();
        for (target, url) in targets.iter_mut().zip(route.urls) {
            *target = url.map(|url| self.target(url)).transpose()?;
        }
        Ok(RouteHooks {
            desk: Arc::clone(&self.desk),
            targets: Arc::new(RouteTargets {
                path: route.path,
                targets,
                fail: route.fail,
                owns: route.owns,
            }),
        })
    }

    fn target(&mut self, url: String) -> Result<Arc<Target>, HookFault> {
        if let Some(known) = self.targets.get(&url) {
            return Ok(Arc::clone(known));
        }
        let options = outbound::Options {
            allow_http: self.settings.allow_http,
            reach: self.settings.reach.clone(),
            ca_file: self.settings.ca_file.clone(),
            timeout: self.settings.timeout,
            answer_bytes_max: ANSWER_BYTES_MAX,
            idle_connections_max: self.settings.threads,
        };
        let shown = outbound::shown(&url);
        let client = Client::new(&url, options).map_err(|fault| HookFault {
            url: shown.clone(),
            fault,
        })?;
        let target = Arc::new(Target {
            index: self.targets.len(),
            shown,
            client,
        });
        self.targets.insert(url, Arc::clone(&target));
        Ok(target)
    }

    /// Starts the threads that call; answers go to this server's reactors. Calls that came before wait.
    ///
    /// # Errors
    /// A thread that cannot be started.
    pub fn start(&mut self, handle: Handle) -> io::Result<()> {
        let limits = dispatch::Limits {
            threads: self.settings.threads,
            lane_max: self.settings.connection_queue_max,
            retries: self.settings.retries,
            retry_wait: self.settings.retry_wait,
            retry_messages: self.settings.retry_messages,
            breaker: self.settings.breaker,
        };
        let mut targets: Vec<_> = self.targets.values().cloned().collect();
        targets.sort_unstable_by_key(|target| target.index);
        self.threads = Some(Threads::start(
            limits,
            targets,
            self.settings.signer.clone(),
            handle,
            Arc::clone(&self.desk.tally),
            (self.desk.news.clone(), self.heard.clone()),
        )?);
        Ok(())
    }

    /// What was done until now; for any thread, at any time.
    #[must_use]
    pub fn watch(&self) -> HookWatch {
        HookWatch(Arc::clone(&self.desk))
    }

    /// Ends the threads, when nothing is under way any more, or when the time has passed. To be called when
    /// the server has ended: answers that come now are for nobody.
    pub fn finish(mut self, within: Duration) {
        if let Some(threads) = self.threads.take() {
            threads.finish(within);
        }
    }
}

/// Reads the figures of hooks.
#[derive(Clone, Debug)]
pub struct HookWatch(Arc<Desk>);

impl HookWatch {
    /// What was done until now.
    #[must_use]
    pub fn figures(&self) -> HookFigures {
        let (calls, bytes) = self.0.room.load();
        HookFigures {
            queue_calls: calls as u64,
            queue_bytes: bytes as u64,
            ..self.0.tally.figures()
        }
    }
}

/// The hooks of one route. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RouteHooks {
    desk: Arc<Desk>,
    targets: Arc<RouteTargets>,
}

/// A call did not fit: too many wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl RouteHooks {
    /// Whether an event is told to anybody.
    #[must_use]
    pub fn hears(&self, event: Event) -> bool {
        self.targets.targets[event.index()].is_some()
    }

    /// How long a connection waits to be let in.
    fn authorise_timeout(&self) -> Duration {
        self.desk.authorise_timeout
    }

    /// What happens to a connection whose event could not be told.
    #[must_use]
    pub fn fail_mode(&self) -> FailMode {
        self.targets.fail
    }

    /// Tells the backend of a message, if it wants to hear of messages; otherwise nothing happens. Where
    /// too many calls wait, the route's [`FailMode`] counts. Costs one copy of the message.
    pub fn message(&self, peer: &mut Peer<'_>, message: &Message<'_>) {
        if self
            .tell(Event::Message, peer, &Detail::Message(message))
            .is_err()
        {
            self.fail(peer);
        }
    }

    /// Tells the backend of an event.
    ///
    /// # Errors
    /// [`Full`].
    fn tell(&self, event: Event, peer: &mut Peer<'_>, detail: &Detail<'_>) -> Result<(), Full> {
        let Some(target) = &self.targets.targets[event.index()] else {
            return Ok(());
        };
        let number = self.desk.next_id.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:016x}-{number}", self.desk.run);
        let parameters: Vec<(&str, &str)> = peer.parameters().collect();
        let facts = Facts {
            id: &id,
            timestamp: peer.wall(),
            connection: peer.id(),
            route: &self.targets.path,
            parameters: &parameters,
            address: peer.address().ip(),
            user: peer.user(),
            claims: peer.bearer().map(crate::admission::jwt::Identity::claims),
        };
        let body = event::write(event, &facts, detail);
        let place = self.desk.room.enter(body.len());
        let sent = place.is_some_and(|place| {
            let call = Call {
                connection: peer.id(),
                event,
                route: Arc::clone(&self.targets),
                route_index: peer.route(),
                target: Arc::clone(target),
                id,
                body,
                began: clock(),
                _place: place,
            };
            self.desk.news.try_send(News::Call(Box::new(call))).is_ok()
        });
        if sent {
            return Ok(());
        }
        self.desk.tally.ended(event, &Outcome::Full);
        Err(Full)
    }

    /// Does what the route says of a backend that is away.
    fn fail(&self, peer: &mut Peer<'_>) {
        if self.targets.fail == FailMode::Closed {
            peer.close(crate::ws::CloseCode::Again, UNAVAILABLE);
        }
    }
}

/// The reason of a close because a backend is away.
const UNAVAILABLE: &str = "backend unavailable";
