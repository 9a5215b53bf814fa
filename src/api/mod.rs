//! The backend's HTTP API: publish to channels, look at them, and manage the connections of users.
//!
//! `POST /api/<method>` with a JSON object, in the shapes of Centrifugo's server API, so that its client
//! libraries work unchanged. Every reactor answers requests itself: a publication to a channel that
//! keeps no history is made and answered at once; what the channel's home or all reactors must say is
//! asked of the hub, and answered when the answers are there.
//!
//! Order of the checks: the host asked for, the key, the path, the method, the type of the body; then
//! the body as a whole, the rate of the key, and command by command what the key is good for. A browser
//! cannot get past the first five for a page of another site: there is no CORS, and the key is in a
//! header (G7). A connection is kept only for who has shown a key.
//!
//! Invariants: a request is answered once; its commands are carried out in their order, one after the
//! other unless it says `parallel`; what waits is one request per connection, for as long as
//! [`Timeouts::answer`](crate::conn::Timeouts::answer).

mod access;
pub mod configured;
mod error;
mod order;
mod outcome;
mod pending;
mod reply;

use std::iter::repeat_n;
use std::sync::Arc;

use smallvec::SmallVec;

pub use access::KeySettings;
pub use order::Limits;

use access::{Key, Keys};
use error::{ApiError, Refusal};
use order::{Order, Publication, Shape, Task};
use outcome::Facts;
use pending::{Pending, Waiting};
use reply::{DONE, Piece, Reply};

use crate::admission::is_served;
use crate::conn::{Answer, Endpoint, EndpointFactory, Services};
use crate::http::exchange::{Field, Request, Response};
use crate::hub::{self, Command, ReplyTo};
use crate::json::is_deeper_than;
use crate::metrics::{ApiMethod, ApiResult};

/// Objects and lists in one another in a body, the outermost counted: 64. More is answered 400.
pub const DEPTH_MAX: usize = 64;

/// What the API is to be like.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Who may use it.
    pub keys: Vec<KeySettings>,
    /// Hosts that `Host` may name, without a port, or
    /// [`LOOPBACK`](crate::admission::LOOPBACK) for this machine; none: any. Others are answered 421.
    pub hosts: Vec<String>,
    /// What one request may hold.
    pub limits: Limits,
}

/// What the reactors' ends of the API share.
#[derive(Debug)]
struct Shared {
    keys: Keys,
    hosts: Vec<String>,
    limits: Limits,
    uid: String,
    host: String,
}

/// The API, an endpoint on each reactor.
#[must_use]
pub fn endpoint(settings: &Settings) -> Arc<dyn EndpointFactory> {
    let number = ahash::RandomState::new().hash_one(0_u8);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let shared = Arc::new(Shared {
        keys: Keys::new(&settings.keys),
        hosts: settings.hosts.clone(),
        limits: settings.limits,
        uid: format!("{number:016x}"),
        host: host.trim().to_owned(),
    });
    Arc::new(move |_| Api {
        shared: Arc::clone(&shared),
        waiting: Waiting::default(),
    })
}

/// One reactor's end of the API.
struct Api {
    shared: Arc<Shared>,
    waiting: Waiting,
}

/// A request that passed the checks that need no look at its body.
struct Entry<'k> {
    key: &'k Key,
    method: ApiMethod,
}

impl Endpoint for Api {
    fn respond(
        &mut self,
        request: &Request<'_>,
        response: &mut Response<'_>,
        services: &mut Services,
    ) {
        // No count that other reactors share is touched here.
        let Self { shared, waiting } = self;
        let entry = match shared.admit(request) {
            Ok(entry) => entry,
            Err(refusal) => return refuse(ApiMethod::Unknown, &refusal, response, services),
        };
        let order = match shared.order(&entry, request, services) {
            Ok(order) => order,
            Err(refusal) => return refuse(entry.method, &refusal, response, services),
        };
        let Order {
            is_parallel,
            shape,
            tasks,
        } = order;
        let wants_transport_errors = wants_transport_errors(request);
        let mut tasks = tasks.into_iter().map(|task| entry.allow(task));
        let mut pieces: SmallVec<[Piece; 1]> = SmallVec::new();
        let mut asked = Vec::new();
        for task in tasks.by_ref() {
            match perform(task, services) {
                Performed::Now(piece) => pieces.push(piece),
                Performed::Asked(ticket) => {
                    asked.push((ticket, pieces.len()));
                    // What it is until the answer is there.
                    pieces.push(Err(ApiError::INTERNAL));
                    if !is_parallel {
                        break;
                    }
                }
            }
        }
        if asked.is_empty() {
            let (status, body) = finish(&shape, &pieces, wants_transport_errors, services);
            return response.send_json(status, &body);
        }
        let pending = Pending {
            shape,
            pieces: pieces.into_vec(),
            missing: asked.len(),
            rest: tasks.map(Task::into_owned).collect(),
            prefixes: Arc::clone(entry.key.prefixes()),
            wants_transport_errors,
            request: services.defer(response),
            ends_at: (services.now).saturating_add(services.policy.deadlines.answer),
        };
        waiting.add(pending, &asked);
    }

    fn answer(&mut self, ticket: hub::Ticket, answer: hub::Answer, services: &mut Services) {
        let Some(id) = self.waiting.take(ticket, |prefixes| {
            let uptime = services.moment.micros() / 1_000_000;
            let piece = |outcome| outcome::piece(&outcome, prefixes, &self.shared.facts(uptime));
            answer.map_err(ApiError::from).and_then(piece)
        }) else {
            return;
        };
        self.go_on(id, services);
    }
}

impl Api {
    /// Goes on with a request, if all it has asked for is there; answers it, if nothing is left.
    fn go_on(&mut self, id: u64, services: &mut Services) {
        while let Some(task) = self.waiting.next_task(id, services.now) {
            match perform(task, services) {
                Performed::Now(piece) => self.waiting.push(id, piece),
                Performed::Asked(ticket) => return self.waiting.push_asked(id, ticket),
            }
        }
        if let Some(pending) = self.waiting.remove_if_done(id) {
            let Pending { shape, pieces, .. } = &pending;
            let wants_transport_errors = pending.wants_transport_errors;
            let (status, body) = finish(shape, pieces, wants_transport_errors, services);
            services.complete(pending.request, Answer::json(status, body.into_owned()));
        }
    }
}

impl Shared {
    /// The checks that need no look at the body.
    fn admit(&self, request: &Request<'_>) -> Result<Entry<'_>, Refusal> {
        if !self.hosts.is_empty() && !is_served(request.host(), &self.hosts) {
            return Err(Refusal::Host);
        }
        let key = self.keys.find(request).ok_or(Refusal::Key)?;
        let name = request.path().strip_prefix("/api/");
        let method = name.and_then(ApiMethod::of).ok_or(Refusal::Path)?;
        if request.method() != "POST" {
            return Err(Refusal::Method);
        }
        if request.headers("content-type").any(is_of_a_form) {
            return Err(Refusal::ContentType);
        }
        Ok(Entry { key, method })
    }

    /// What the body asks for, if the key has so many commands left.
    fn order<'r>(
        &self,
        entry: &Entry<'_>,
        request: &Request<'r>,
        services: &Services,
    ) -> Result<Order<'r>, Refusal> {
        let body = if request.body().is_empty() {
            "{}"
        } else {
            simdutf8::basic::from_utf8(request.body()).map_err(|_| Refusal::NOT_TEXT)?
        };
        if is_deeper_than(body, DEPTH_MAX) {
            return Err(Refusal::TooDeep);
        }
        let order = Order::read(entry.method, body, &self.limits)?;
        let spent = entry.key.spend(order.tasks.len().max(1), services.moment);
        spent.map_err(|wait| {
            tracing::debug!(key = entry.key.name(), "more commands than the key's rate");
            Refusal::Rate(wait.0.as_secs() + 1)
        })?;
        Ok(order)
    }

    fn facts(&self, uptime: u64) -> Facts<'_> {
        Facts {
            uid: &self.uid,
            host: &self.host,
            uptime,
        }
    }
}

impl Entry<'_> {
    /// The same task, or the refusal of what the key is not good for.
    fn allow<'a>(&self, task: Task<'a>) -> Task<'a> {
        if self.key.is_unlimited() {
            return task;
        }
        let is_allowed = match &task {
            Task::Publish(publication) => self.key.covers(publication.channel.as_str()),
            Task::Ask(command) => match command {
                Command::Publish(publish) => self.key.covers(publish.channel.as_str()),
                Command::Presence(channel)
                | Command::PresenceStats(channel)
                | Command::History(channel, _)
                | Command::HistoryRemove(channel)
                | Command::Subscribe(_, channel)
                | Command::Unsubscribe(_, channel) => self.key.covers(channel.as_str()),
                // Its answer names only those that the key is good for.
                Command::Channels(_) => true,
                // These concern users on any channel.
                Command::Info | Command::Disconnect(_) | Command::Refresh(..) => false,
            },
            Task::Fail(_) => true,
        };
        if is_allowed {
            task
        } else {
            Task::Fail(ApiError::PermissionDenied)
        }
    }
}

/// What became of a command.
enum Performed {
    Now(Piece),
    /// The answer comes later.
    Asked(hub::Ticket),
}

fn perform(task: Task<'_>, services: &mut Services) -> Performed {
    match task {
        Task::Publish(publication) => {
            let is_plain = publication.options.idempotency_key.is_none()
                && !services.hub.policy(&publication.channel).has_history();
            if is_plain {
                Performed::Now(publish(&publication, services))
            } else {
                let command = publication.into_command();
                Performed::Asked(services.ask(command, ReplyTo::Endpoint))
            }
        }
        Task::Ask(command) => Performed::Asked(services.ask(command, ReplyTo::Endpoint)),
        Task::Fail(error) => Performed::Now(Err(error)),
    }
}

/// Publishes what nobody has to be asked about.
fn publish(publication: &Publication<'_>, services: &mut Services) -> Piece {
    services.counters.published += 1;
    if services
        .hub
        .publish(&publication.channel, &publication.message)
    {
        DONE
    } else {
        services.counters.publications_dropped += 1;
        Err(ApiError::INTERNAL)
    }
}

/// The answer to a whole request; counts what came of it.
fn finish(
    shape: &Shape,
    pieces: &[Piece],
    wants_transport_errors: bool,
    services: &mut Services,
) -> Reply {
    let counts = &mut services.counters.api;
    let mut count = |method, piece: &Piece| {
        let result = piece
            .as_ref()
            .map_or_else(|error| error.result(), |_| ApiResult::Done);
        counts.count(method, result);
    };
    match shape {
        Shape::One(method) => pieces.iter().for_each(|piece| count(*method, piece)),
        Shape::Broadcast(_) => {
            (pieces.iter()).for_each(|piece| count(ApiMethod::Broadcast, piece));
        }
        Shape::Batch(items) => {
            let methods = items.iter().flat_map(|item| match item {
                Shape::One(method) => repeat_n(*method, 1),
                Shape::Broadcast(channels) => repeat_n(ApiMethod::Broadcast, *channels),
                Shape::Batch(_) => repeat_n(ApiMethod::Batch, 0),
            });
            methods
                .zip(pieces)
                .for_each(|(method, piece)| count(method, piece));
            counts.count(ApiMethod::Batch, ApiResult::Done);
        }
    }
    reply::whole(shape, pieces, wants_transport_errors)
}

/// Answers a request that was not understood.
fn refuse(
    method: ApiMethod,
    refusal: &Refusal,
    response: &mut Response<'_>,
    services: &mut Services,
) {
    services.counters.api.count(method, refusal.result());
    let seconds;
    let field = match refusal {
        Refusal::Key => Some((Field::WwwAuthenticate, "apikey")),
        Refusal::Method => Some((Field::Allow, "POST")),
        Refusal::Rate(wait) => {
            seconds = wait.to_string();
            Some((Field::RetryAfter, &*seconds))
        }
        _ => None,
    };
    if matches!(refusal, Refusal::Host | Refusal::Key) {
        // A stranger's connection ends here: kept, it would hold one of the API's places for nothing.
        response.close();
    }
    let status = refusal.status();
    // Clients of Centrifugo's know a 401 by its status; it has no body there.
    let body = match refusal {
        Refusal::Key => String::new(),
        _ => format!(
            "{{\"status\":{status},\"message\":\"{}\"}}\n",
            refusal.message()
        ),
    };
    let content_type = if body.is_empty() {
        ""
    } else {
        "application/json"
    };
    response.send(status, field.as_slice(), content_type, body.as_bytes());
}

/// Whether a page of another site could have its visitor's browser send a body of this type without
/// being asked for leave first.
fn is_of_a_form(content_type: &str) -> bool {
    const FORMS: [&str; 3] = [
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "text/plain",
    ];
    let essence = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim_ascii();
    FORMS.iter().any(|form| form.eq_ignore_ascii_case(essence))
}

fn wants_transport_errors(request: &Request<'_>) -> bool {
    let mode = request.header("x-centrifugo-error-mode");
    mode.is_some_and(|mode| mode.eq_ignore_ascii_case("transport"))
}
