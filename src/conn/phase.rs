//! The phases of a connection, and what each of them does with bytes, time, and the end of the stream.
//!
//! ```text
//! accept ─→ Proxy ─→ Tls ─→ Head ─→ admission ─→ Open ─→ Closing ─→ Draining ─→ Closed
//!    │        └ plain ─────┘ │         └ refused ─────────┴────────────┘
//!    └ direct: Tls or Head   └ no upgrade ─→ Exchange ────────────────┘
//! ```
//!
//! A phase is a place where a connection may wait. Accept and admission never wait, so they are
//! transitions. A phase owns what it needs and nothing else; its methods return a [`Step`], and only
//! [`Connection`](super::Connection) changes the phase.

use std::net::SocketAddr;

use super::context::{Context, Services};
use super::endpoint::ExchangeWait;
use super::handler::Identity;
use super::id::ConnectionId;
use super::outbox::Outbox;
use super::reason::CloseReason;
use super::session::Session;
use super::{Serves, Speaks};
use crate::admission::address::{client_address, fold_peer};
use crate::admission::limits::{Place, Refused};
use crate::admission::proxy_protocol::{self, ProxyReader, Source, TLV_BYTES_MAX};
use crate::admission::{self, Admitted, Candidate, Refusal, Rejected, Stage};
use crate::http::head::{Head, HeadError, HeadReader, Progress};
use crate::timer::Tick;
use crate::ws::decoder::Decoded;
use crate::ws::{Decoder, Event, upgrade};

/// Where a connection is in its life.
#[derive(Debug)]
pub enum Phase {
    /// The PROXY header is coming in.
    Proxy(Box<ProxyWait>),
    /// The TLS handshake is on; nothing readable yet.
    Tls(TlsWait),
    /// The request head is coming in.
    Head(Box<HeadWait>),
    /// Messages go both ways.
    Open(Session),
    /// Plain requests come in, and answers go out.
    Exchange(Box<ExchangeWait>),
    /// We sent a close frame and wait for the peer's (§7.1.2).
    Closing(Box<CloseWait>),
    /// Our last bytes are leaving; what comes in is discarded, lest a reset eat them.
    Draining(Box<Draining>),
    /// It is over; the reactor reaps the connection at the end of the turn.
    Closed(Box<CloseReason>),
}

/// What a phase wants to happen next.
#[derive(Debug)]
pub enum Step {
    /// Nothing.
    Stay,
    /// A change of phase. Boxed, for of a million steps nearly all are the other one, and each is handed
    /// up by value.
    Become(Box<Phase>),
}

impl Step {
    /// The step into another phase.
    pub(super) fn enter(phase: Phase) -> Self {
        Self::Become(Box::new(phase))
    }
}

/// Waiting for the rest of the PROXY header.
#[derive(Debug)]
pub struct ProxyWait {
    reader: ProxyReader,
    speaks: Speaks,
    pub(super) deadline: Tick,
}

impl ProxyWait {
    pub(super) const fn new(speaks: Speaks, deadline: Tick) -> Self {
        Self {
            reader: ProxyReader::new(TLV_BYTES_MAX),
            speaks,
            deadline,
        }
    }

    /// Takes bytes of the header; says how many belong to it. What follows is the client's.
    // Beside the way of messages, which would pay for its stack with every read.
    #[inline(never)]
    pub(super) fn receive(
        &mut self,
        input: &[u8],
        identity: &mut Identity,
        place: &mut Place,
        cx: &mut Context,
    ) -> (usize, Step) {
        let services = &mut cx.services;
        let (source, used) = match self.reader.receive(input) {
            Ok(proxy_protocol::Progress::Incomplete) => return (input.len(), Step::Stay),
            Ok(proxy_protocol::Progress::Complete { source, used }) => (source, used),
            Err(error) => {
                services.counters.refused.count(&Refusal::Proxy(error));
                return (input.len(), closed(CloseReason::Proxy(error)));
            }
        };
        services.counters.proxied += 1;
        if let Source::Proxied { client, .. } = source {
            identity.set_address(fold_peer(client));
        }
        // A balancer's own look at its server is not limited. Whom it does not know shares its limits.
        if source != Source::Local
            && let Err(refused) = locate(identity.address(), place, services)
        {
            let refusal = Refusal::Limit(Stage::Address, refused);
            // Whoever is about to speak TLS cannot be told.
            let step = if self.speaks.tls {
                cx.services.counters.refused.count(&refusal);
                closed(CloseReason::Refused(refusal))
            } else {
                refuse(refusal, cx)
            };
            return (used, step);
        }
        (used, Step::enter(after_proxy(self.speaks, &cx.services)))
    }
}

/// The phase that follows when it is known whose connection this is.
pub(super) fn after_proxy(speaks: Speaks, services: &Services) -> Phase {
    let deadlines = &services.policy.deadlines;
    if speaks.tls {
        Phase::Tls(TlsWait {
            serves: speaks.serves,
            deadline: services.now.saturating_add(deadlines.tls_handshake),
        })
    } else {
        Phase::Head(Box::new(HeadWait::new(speaks.serves, services)))
    }
}

/// Counts a connection under the limits of its client's address, unless a trusted proxy has yet to say
/// whose it is.
pub(super) fn locate(
    address: SocketAddr,
    place: &mut Place,
    services: &mut Services,
) -> Result<(), Refused> {
    let policy = &services.policy.admission;
    if policy.forwarding.is_some() && policy.trusted.contains(address.ip()) {
        return Ok(());
    }
    place.locate(
        &policy.limits,
        address.ip(),
        services.moment,
        &mut services.counters.tally,
    )
}

/// Waiting for the transport.
#[derive(Debug)]
pub struct TlsWait {
    pub(super) serves: Serves,
    pub(super) deadline: Tick,
}

/// Waiting for the rest of the request head.
#[derive(Debug)]
pub struct HeadWait {
    reader: HeadReader,
    serves: Serves,
    pub(super) deadline: Tick,
}

impl HeadWait {
    pub(super) fn new(serves: Serves, services: &Services) -> Self {
        Self {
            reader: HeadReader::new(),
            serves,
            deadline: services.now.saturating_add(services.policy.deadlines.head),
        }
    }

    pub(super) fn bytes_held(&self) -> usize {
        self.reader.bytes_held()
    }

    /// Takes bytes of the head; a complete head goes through admission at once.
    // Beside the way of messages, which would pay for its stack with every read.
    #[inline(never)]
    pub(super) fn receive(
        &mut self,
        input: &[u8],
        identity: &mut Identity,
        place: &mut Place,
        outbox: &mut Option<Box<Outbox>>,
        cx: &mut Context,
    ) -> (usize, Step) {
        let policy = std::rc::Rc::clone(&cx.services.policy);
        let (head, used) = match self.reader.receive(input, &policy.http) {
            Ok(Progress::Incomplete) => return (input.len(), Step::Stay),
            Ok(Progress::Complete { head, used }) => (head, used),
            Err(error) => return (input.len(), malformed(error, cx)),
        };
        let services = &mut cx.services;
        services.counters.heads += 1;
        let is_upgrade = || upgrade::is_asked_for(&head);
        if self.serves == Serves::Requests || (self.serves == Serves::Both && !is_upgrade()) {
            return self.begin_exchange(used, identity.id, cx);
        }
        let page = cx.page.as_ref().filter(|_| !is_upgrade());
        if let Some(answer) = page.and_then(|page| page.answer(&head)) {
            services.counters.exchanges += 1;
            services.counters.requests += 1;
            services.output.extend_from_slice(answer);
            return (
                input.len(),
                drain(CloseReason::RequestsDone, true, services),
            );
        }
        let candidate = Candidate {
            head: &head,
            has_surplus: used < input.len(),
            located: locate_forwarded(&head, identity, place, services),
            draining: services.draining,
        };
        let judge = services.gate.judge(services.wall);
        let step = match admission::admit(&candidate, &policy.routes, &policy.admission, &judge) {
            Ok(admitted) => enter(admitted, identity, outbox, cx),
            Err(rejected) => reject(&rejected, cx),
        };
        (input.len(), step)
    }

    /// Goes on with plain requests. The first head is read once more, as part of its request; where it
    /// came in pieces, of which the last are `used` bytes, its bytes are handed over.
    fn begin_exchange(&mut self, used: usize, id: ConnectionId, cx: &mut Context) -> (usize, Step) {
        cx.services.counters.exchanges += 1;
        let mut wait = Box::new(ExchangeWait::new(&cx.services));
        let Some(bytes) = self.reader.take_bytes() else {
            return (0, Step::enter(Phase::Exchange(wait)));
        };
        match wait.receive(&bytes, id, cx) {
            (_, Step::Stay) => (used, Step::enter(Phase::Exchange(wait))),
            (_, ending) => (used, ending),
        }
    }
}

/// Where a trusted proxy says in the head whose connection this is, takes it at its word.
fn locate_forwarded(
    head: &Head<'_>,
    identity: &mut Identity,
    place: &mut Place,
    services: &mut Services,
) -> Result<(), Refused> {
    let policy = &services.policy.admission;
    let Some(header) = policy.forwarding else {
        return Ok(());
    };
    let proxy = identity.address().ip();
    let client = client_address(proxy, &policy.trusted, header, head.headers(header.name()));
    if client == proxy {
        let is_named = head.headers(header.name()).next().is_some();
        if !is_named || !policy.trusted.contains(proxy) {
            // The proxy itself, as for a health check; or whoever was counted at the accept.
            return Ok(());
        }
        // What the proxy says cannot be read: all of whom that is true share its limits, or a header
        // that two have written would be a way around them.
    } else {
        identity.set_address(SocketAddr::new(client, 0));
        if policy.trusted.contains(client) {
            return Ok(());
        }
    }
    place.locate(
        &policy.limits,
        client,
        services.moment,
        &mut services.counters.tally,
    )
}

/// Lets somebody in, if the user has a connection left.
fn enter(
    admitted: Admitted<'_>,
    identity: &Identity,
    outbox: &mut Option<Box<Outbox>>,
    cx: &mut Context,
) -> Step {
    let policy = std::rc::Rc::clone(&cx.services.policy);
    let services = &mut cx.services;
    let route = &policy.routes[usize::from(admitted.route())];
    let place = match (route.user_connections, admitted.identity()) {
        (Some(cap), Some(bearer)) => {
            let (user, when_full) = (bearer.user().as_bytes(), route.user_at_limit);
            let tally = &mut services.counters.tally;
            let entered = services
                .gate
                .users
                .enter(cap, user, identity.id, when_full, tally);
            match entered {
                Ok((place, oldest)) => {
                    services.displaced.extend(oldest);
                    Some(place)
                }
                Err(refused) => {
                    let refusal = Refusal::Limit(Stage::User, refused);
                    return reject(&admitted.reject(refusal), cx);
                }
            }
        }
        _ => None,
    };
    (services.output).with_vec(|out| admitted.write_answer(out));
    Session::open(admitted, place, identity, outbox, cx)
}

/// Whoever has taken too long over its head is told so, if it can still read.
pub(super) fn head_timed_out(cx: &mut Context) -> Step {
    let refusal = Refusal::Timeout(Stage::Head);
    cx.services.counters.refused.count(&refusal);
    (cx.services.output).with_vec(|out| refusal.write_answer(out));
    drain(CloseReason::HeadTimeout, false, &cx.services)
}

fn malformed(error: HeadError, cx: &mut Context) -> Step {
    let refusal = Refusal::Head(error);
    cx.services.counters.refused.count(&refusal);
    if refusal.can_be_told() {
        (cx.services.output).with_vec(|out| refusal.write_answer(out));
    }
    drain(CloseReason::Head(error), true, &cx.services)
}

/// Tells somebody with a status that there is no way in.
fn refuse(refusal: Refusal, cx: &mut Context) -> Step {
    cx.services.counters.refused.count(&refusal);
    (cx.services.output).with_vec(|out| refusal.write_answer(out));
    drain(CloseReason::Refused(refusal), true, &cx.services)
}

/// Tells somebody as the route wants it told: with a status, or with a close frame behind a 101.
fn reject(rejected: &Rejected<'_>, cx: &mut Context) -> Step {
    let services = &mut cx.services;
    let refusal = rejected.refusal().clone();
    services.counters.refused.count(&refusal);
    let spread = services.jitter(1000);
    (services.output).with_vec(|out| rejected.write_answer(spread, out));
    let reason = CloseReason::Refused(refusal);
    match rejected.upgraded_route() {
        None => drain(reason, true, services),
        Some(route) => {
            let wait = CloseWait::new(reason, Decoder::new(false), route, services);
            Step::enter(Phase::Closing(Box::new(wait)))
        }
    }
}

/// Waiting for the peer's close frame.
#[derive(Debug)]
pub struct CloseWait {
    pub(super) reason: CloseReason,
    decoder: Decoder,
    pub(super) route: u16,
    pub(super) deadline: Tick,
}

impl CloseWait {
    pub(super) fn new(
        reason: CloseReason,
        decoder: Decoder,
        route: u16,
        services: &Services,
    ) -> Self {
        let deadline = services.now.saturating_add(services.policy.deadlines.close);
        Self {
            reason,
            decoder,
            route,
            deadline,
        }
    }

    pub(super) fn bytes_held(&self) -> usize {
        self.decoder.bytes_held()
    }

    /// Looks for the close frame; whatever comes before it is decoded and dropped.
    // As `HeadWait::receive`.
    #[inline(never)]
    pub(super) fn receive(&mut self, input: &mut [u8], cx: &mut Context) -> (usize, Step) {
        let limits = &cx.services.policy.routes[usize::from(self.route)].limits;
        let mut at = 0;
        loop {
            match self
                .decoder
                .decode(&mut input[at..], limits, &mut cx.inflater)
            {
                Ok(Decoded {
                    used,
                    event: Some(Event::Close(_)),
                }) => {
                    return (at + used, drain(self.reason.clone(), false, &cx.services));
                }
                Ok(Decoded {
                    used,
                    event: Some(_),
                }) => at += used,
                Ok(Decoded { used, event: None }) => return (at + used, Step::Stay),
                // Our close frame is on its way already: there is nothing to add.
                Err(_) => return (input.len(), drain(self.reason.clone(), true, &cx.services)),
            }
        }
    }

    /// Keeps the beginning of a frame until the rest comes.
    pub(super) fn absorb(&mut self, rest: &mut [u8], cx: &Context) -> Step {
        let limits = &cx.services.policy.routes[usize::from(self.route)].limits;
        match self.decoder.absorb(rest, limits) {
            Ok(()) => Step::Stay,
            Err(_) => drain(self.reason.clone(), true, &cx.services),
        }
    }
}

/// Seeing our last bytes off.
#[derive(Debug)]
pub struct Draining {
    pub(super) reason: CloseReason,
    /// Whether to wait for the end of the peer's stream: it may still be sending, and closing a socket
    /// with unread bytes in it resets the connection before our last bytes have been read.
    pub(super) lingers: bool,
    /// Whether our side of the stream has been shut.
    pub(super) is_shut: bool,
    pub(super) deadline: Tick,
}

/// The way out, for every phase that still has something to send.
pub(super) fn drain(reason: CloseReason, lingers: bool, services: &Services) -> Step {
    let deadline = services.now.saturating_add(services.policy.deadlines.close);
    Step::enter(Phase::Draining(Box::new(Draining {
        reason,
        lingers,
        is_shut: false,
        deadline,
    })))
}

/// The way out where nothing can be sent any more.
pub(super) fn closed(reason: CloseReason) -> Step {
    Step::enter(Phase::Closed(Box::new(reason)))
}
