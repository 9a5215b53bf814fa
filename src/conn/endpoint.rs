//! Plain HTTP on a reactor: an [`Endpoint`] answers the requests of connections that did not come for
//! an upgrade, one after another over kept connections.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::BytesMut;

use super::context::{Context, Services};
use super::id::ConnectionId;
use super::outbox::Outbox;
use super::phase::{Step, drain};
use super::reason::CloseReason;
use crate::http::date::HttpDate;
use crate::http::exchange::{Exchange, Limits, Next, Request, Response};
use crate::http::response::write_refusal;
use crate::hub;
use crate::metrics::Report;
use crate::timer::Tick;

/// What answers requests. There is one for each reactor, on its thread; while it answers, nobody else of
/// that reactor is served, so an endpoint that takes its time has a reactor of its own.
///
/// A connection that is kept holds a place until its next request is too long in coming, and each request
/// renews that time: whoever has not said who they are is to be parted with ([`Response::close`]).
///
/// A panic is answered with 500 and counted; the connection goes on.
pub trait Endpoint {
    /// Answers a request, at once or, if that takes others, later: see [`Services::defer`]. Connections
    /// are reached through `services`.
    fn respond(
        &mut self,
        request: &Request<'_>,
        response: &mut Response<'_>,
        services: &mut Services,
    );

    /// Takes what another reactor reports, and gives it back emptied. Called on this reactor's thread.
    fn receive(&mut self, mut report: Box<Report>, services: &mut Services) -> Box<Report> {
        let _ = services;
        report.clear();
        report
    }

    /// The answer to a command that was asked for this endpoint has come.
    fn answer(&mut self, ticket: hub::Ticket, answer: hub::Answer, services: &mut Services) {
        let _ = (ticket, answer, services);
    }

    /// Called about once a [`TICK_INTERVAL`].
    fn tick(&mut self, services: &mut Services) {
        let _ = services;
    }
}

/// Names a request whose answer was put off: by its connection, and by how many were put off there
/// before. So an answer that comes too late is not taken for the next one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestTicket {
    connection: ConnectionId,
    number: u32,
}

impl RequestTicket {
    /// The connection that the request came over.
    #[must_use]
    pub const fn connection(&self) -> ConnectionId {
        self.connection
    }
}

impl Default for RequestTicket {
    fn default() -> Self {
        Self {
            connection: ConnectionId::new(0, 0, 0),
            number: 0,
        }
    }
}

/// An answer that was put off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status, 200..=599.
    pub status: u16,
    /// What the body is.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// An answer with a body of JSON.
    #[must_use]
    pub const fn json(status: u16, body: Vec<u8>) -> Self {
        Self {
            status,
            content_type: "application/json",
            body,
        }
    }
}

impl Services {
    /// Puts off the answer to the request that an endpoint is being asked about. It is owed
    /// [`complete`](Self::complete) with this ticket, on the same reactor. Until then its connection is
    /// not read; after [`Timeouts::answer`](super::Timeouts::answer) it is answered with 504 and ends.
    pub fn defer(&self, response: &mut Response<'_>) -> RequestTicket {
        response.defer();
        self.request
    }

    /// Gives an answer that was put off. It leaves in this turn. Where the connection has ended
    /// meanwhile, it is dropped.
    pub fn complete(&mut self, ticket: RequestTicket, answer: Answer) {
        self.answers.push((ticket, answer));
    }
}

/// How often an endpoint's [`tick`](Endpoint::tick) is called.
pub const TICK_INTERVAL: Duration = Duration::from_secs(1);

/// Makes an [`Endpoint`] for each reactor, on the reactor's own thread. Any function that returns an
/// endpoint is one.
pub trait EndpointFactory: Send + Sync {
    /// Makes the endpoint of reactor number `reactor`.
    fn make(&self, reactor: usize) -> Box<dyn Endpoint>;
}

impl<F, E> EndpointFactory for F
where
    F: Fn(usize) -> E + Send + Sync,
    E: Endpoint + 'static,
{
    fn make(&self, reactor: usize) -> Box<dyn Endpoint> {
        Box::new(self(reactor))
    }
}

/// What the phase `Exchange` owns: requests in, answers out.
#[derive(Debug)]
pub struct ExchangeWait {
    exchange: Exchange,
    /// Requests that came behind one whose answer could not leave, or was put off. They wait until it
    /// has left.
    pending: BytesMut,
    /// How many answers were put off here.
    deferred: u32,
    pub(super) deadline: Tick,
}

impl ExchangeWait {
    pub(super) fn new(services: &Services) -> Self {
        Self {
            exchange: Exchange::new(),
            pending: BytesMut::new(),
            deferred: 0,
            deadline: services.now.saturating_add(services.policy.deadlines.head),
        }
    }

    pub(super) fn bytes_held(&self) -> usize {
        self.exchange.bytes_held() + self.pending.capacity()
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(super) fn take_pending(&mut self) -> BytesMut {
        std::mem::take(&mut self.pending)
    }

    pub(super) fn put_back(&mut self, pending: BytesMut) {
        debug_assert!(self.pending.is_empty(), "requests would change places");
        self.pending = pending;
    }

    pub(super) const fn is_awaiting(&self) -> bool {
        self.exchange.is_awaiting()
    }

    pub(super) const fn close_behind_answer(&mut self) {
        self.exchange.close_behind_answer();
    }

    /// Takes bytes; stops between two requests when much has been answered, so that it is written
    /// before more is; and behind one whose answer is put off. Returns the bytes done with.
    // As `HeadWait::receive`.
    #[inline(never)]
    pub(super) fn receive(
        &mut self,
        input: &[u8],
        id: ConnectionId,
        cx: &mut Context,
    ) -> (usize, Step) {
        if self.exchange.is_awaiting() {
            return (0, Step::Stay);
        }
        let was_idle = self.exchange.is_idle();
        let requests_before = cx.services.counters.requests;
        let limits = Limits {
            // What one read brings is answered; only output stops it, as `wants_flush` asks.
            requests_per_call: usize::MAX,
            output_bytes_high_water: cx.services.policy.outbox.bytes_high_water + 1,
            ..cx.services.policy.requests.clone()
        };
        let date = HttpDate::from_unix(cx.services.wall);
        cx.services.request = RequestTicket {
            connection: id,
            number: self.deferred,
        };
        let mut out = std::mem::take(&mut cx.services.output);
        let (endpoint, services) = (&mut cx.endpoint, &mut cx.services);
        let deferred = &mut self.deferred;
        let mut serve = |request: &Request<'_>, response: &mut Response<'_>| {
            services.counters.requests += 1;
            let Some(endpoint) = endpoint else { return };
            let call = AssertUnwindSafe(|| endpoint.respond(request, response, services));
            if catch_unwind(call).is_err() {
                services.counters.handler_panics += 1;
                tracing::error!(path = request.path(), "an endpoint panicked");
                response.send_json(500, b"{\"status\":500,\"message\":\"internal error\"}\n");
                // Whatever ticket the endpoint may have kept is good for nothing.
                *deferred = deferred.wrapping_add(1);
                services.request.number = *deferred;
            }
        };
        let progress = out
            .with_vec(|out| (self.exchange).receive(input, &limits, Some(&date), out, &mut serve));
        cx.services.output = out;
        let deadlines = &cx.services.policy.deadlines;
        // Behind a request that was answered another one has begun, with a time of its own.
        let has_begun = was_idle || cx.services.counters.requests != requests_before;
        if self.exchange.is_idle() {
            self.deadline = cx.services.now.saturating_add(deadlines.keep_alive);
        } else if has_begun {
            self.deadline = cx.services.now.saturating_add(deadlines.head);
        }
        (progress.used, self.follow(progress.next, cx))
    }

    fn follow(&mut self, next: Next, cx: &mut Context) -> Step {
        match next {
            Next::Read | Next::Flush => Step::Stay,
            Next::Await => {
                let timeout = cx.services.policy.deadlines.answer;
                self.deadline = cx.services.now.saturating_add(timeout);
                Step::Stay
            }
            Next::Close => drain(CloseReason::RequestsDone, true, &cx.services),
            Next::Refuse(_) => {
                cx.services.counters.requests_refused += 1;
                drain(CloseReason::RequestFailed, true, &cx.services)
            }
        }
    }

    /// Gives an answer that was put off, unless it is no longer awaited.
    pub(super) fn answer(
        &mut self,
        ticket: RequestTicket,
        answer: &Answer,
        outbox: &mut Option<Box<Outbox>>,
        cx: &mut Context,
    ) -> Step {
        if ticket.number != self.deferred {
            return Step::Stay;
        }
        let date = HttpDate::from_unix(cx.services.wall);
        let mut give = |response: &mut Response<'_>| {
            response.send(answer.status, &[], answer.content_type, &answer.body);
        };
        let answer = |out: &mut _| self.exchange.answer(Some(&date), out, &mut give);
        let Some(next) = (cx.services.output).with_vec(answer) else {
            return Step::Stay;
        };
        self.deferred = self.deferred.wrapping_add(1);
        let timeout = cx.services.policy.deadlines.keep_alive;
        self.deadline = cx.services.now.saturating_add(timeout);
        queue_behind(outbox, &mut cx.services);
        self.follow(next, cx)
    }

    /// Keeps requests whose turn has not come; at most one read of the reactor.
    pub(super) fn absorb(&mut self, rest: &[u8]) {
        self.pending.extend_from_slice(rest);
    }

    /// The time is up: for the next request, for the rest of this one, or for its answer.
    pub(super) fn expire(&self, outbox: &mut Option<Box<Outbox>>, cx: &mut Context) -> Step {
        if self.exchange.is_idle() {
            return drain(CloseReason::RequestIdle, false, &cx.services);
        }
        let (status, body) = if self.exchange.is_awaiting() {
            cx.services.counters.requests_unanswered += 1;
            (504, r#"{"status":504,"message":"no answer in time"}"#)
        } else {
            cx.services.counters.requests_refused += 1;
            (
                408,
                r#"{"status":408,"message":"the request took too long"}"#,
            )
        };
        (cx.services.output).with_vec(|out| write_refusal(out, status, &[], body));
        queue_behind(outbox, &mut cx.services);
        drain(CloseReason::RequestFailed, false, &cx.services)
    }
}

/// What has been said outside a read must not overtake answers that wait to leave.
fn queue_behind(outbox: &mut Option<Box<Outbox>>, services: &mut Services) {
    if let Some(outbox) = outbox {
        outbox.push_always(&[&services.output], true);
        services.output.clear();
    }
}
