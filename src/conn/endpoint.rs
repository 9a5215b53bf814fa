//! Plain HTTP on a reactor: an [`Endpoint`] answers the requests of connections that did not come for
//! an upgrade, one after another over kept connections.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::context::{Context, Services};
use super::phase::{Step, drain};
use super::reason::CloseReason;
use crate::http::date::HttpDate;

use crate::http::exchange::{Exchange, Limits, Next, Request, Response};
use crate::hub::{Answer, Ticket};
use crate::metrics::Report;
use crate::timer::Tick;

/// What answers requests. There is one for each reactor, on its thread; while it answers, nobody else of
/// that reactor is served, so an endpoint that takes its time has a reactor of its own.
///
/// A panic is answered with 500 and counted; the connection goes on.
pub trait Endpoint {
    /// Answers a request, at once. Connections are reached through `services`.
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
    fn answer(&mut self, ticket: Ticket, answer: Answer, services: &mut Services) {
        let _ = (ticket, answer, services);
    }

    /// Called about once a [`TICK_INTERVAL`].
    fn tick(&mut self, services: &mut Services) {
        let _ = services;
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
    /// Requests that came behind one whose answer could not leave. They wait until it has.
    pending: Vec<u8>,
    pub(super) deadline: Tick,
}

impl ExchangeWait {
    pub(super) fn new(services: &Services) -> Self {
        Self {
            exchange: Exchange::new(),
            pending: Vec::new(),
            deadline: services.now.saturating_add(services.policy.deadlines.head),
        }
    }

    pub(super) fn bytes_held(&self) -> usize {
        self.exchange.bytes_held() + self.pending.capacity()
    }

    pub(super) const fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(super) fn take_pending(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.pending)
    }

    /// Takes bytes; stops between two requests when much has been answered, so that it is written
    /// before more is. Returns the bytes done with.
    pub(super) fn receive(&mut self, input: &[u8], cx: &mut Context) -> (usize, Step) {
        let was_idle = self.exchange.is_idle();
        let limits = Limits {
            // What one read brings is answered; only output stops it, as `wants_flush` asks.
            requests_per_call: usize::MAX,
            output_bytes_high_water: cx.services.policy.outbox.bytes_high_water + 1,
            ..cx.services.policy.requests.clone()
        };
        let date = HttpDate::from_unix(cx.services.wall);
        let mut out = std::mem::take(&mut cx.services.output);
        let (endpoint, services) = (&mut cx.endpoint, &mut cx.services);
        let mut serve = |request: &Request<'_>, response: &mut Response<'_>| {
            services.counters.requests += 1;
            let Some(endpoint) = endpoint else { return };
            let call = AssertUnwindSafe(|| endpoint.respond(request, response, services));
            if catch_unwind(call).is_err() {
                services.counters.handler_panics += 1;
                tracing::error!(path = request.path(), "an endpoint panicked");
                response.send_json(500, b"{\"status\":500,\"message\":\"internal error\"}\n");
            }
        };
        let progress = self
            .exchange
            .receive(input, &limits, Some(&date), &mut out, &mut serve);
        cx.services.output = out;
        let deadlines = &cx.services.policy.deadlines;
        match (self.exchange.is_idle(), was_idle) {
            (true, _) => self.deadline = cx.services.now.saturating_add(deadlines.keep_alive),
            (false, true) => self.deadline = cx.services.now.saturating_add(deadlines.head),
            (false, false) => {}
        }
        let step = match progress.next {
            Next::Read | Next::Flush => Step::Stay,
            Next::Close => drain(CloseReason::RequestsDone, true, &cx.services),
            Next::Refuse(_) => {
                cx.services.counters.requests_refused += 1;
                drain(CloseReason::RequestFailed, true, &cx.services)
            }
        };
        (progress.used, step)
    }

    /// Keeps requests whose turn has not come; at most one read of the reactor.
    pub(super) fn absorb(&mut self, rest: &[u8]) {
        self.pending.extend_from_slice(rest);
    }

    /// The time is up: for the next request, or for the rest of this one.
    pub(super) fn expire(&self, cx: &mut Context) -> Step {
        if self.exchange.is_idle() {
            return drain(CloseReason::RequestIdle, false, &cx.services);
        }
        cx.services.counters.requests_refused += 1;
        let body = r#"{"status":408,"message":"the request took too long"}"#;
        crate::http::response::write_refusal(&mut cx.services.output, 408, &[], body);
        drain(CloseReason::RequestFailed, false, &cx.services)
    }
}
