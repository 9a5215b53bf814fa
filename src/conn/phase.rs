//! The phases of a connection, and what each of them does with bytes, time, and the end of the stream.
//!
//! ```text
//! accept ─→ Tls ─→ Head ─→ admission ─→ Open ─→ Closing ─→ Draining ─→ Closed
//!    └ plain ───────┘          └ refused ─────────────────────┘
//! ```
//!
//! A phase is a place where a connection may wait. Accept and admission never wait, so they are
//! transitions. A phase owns what it needs and nothing else; its methods return a [`Step`], and only
//! [`Connection`](super::Connection) changes the phase.

use super::context::{Context, Services};
use super::handler::Identity;
use super::outbox::Outbox;
use super::reason::CloseReason;
use super::session::Session;
use crate::admission::{self, Candidate, Refusal};
use crate::http::head::{HeadError, HeadReader, Progress};
use crate::http::response::write_refusal;
use crate::timer::Tick;
use crate::ws::decoder::Decoded;
use crate::ws::{Decoder, Event};

/// Where a connection is in its life.
#[derive(Debug)]
pub enum Phase {
    /// The TLS handshake is on; nothing readable yet.
    Tls(TlsWait),
    /// The request head is coming in.
    Head(Box<HeadWait>),
    /// Messages go both ways.
    Open(Session),
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
    /// A change of phase.
    Become(Phase),
}

/// Waiting for the transport.
#[derive(Debug)]
pub struct TlsWait {
    pub(super) deadline: Tick,
}

/// Waiting for the rest of the request head.
#[derive(Debug)]
pub struct HeadWait {
    reader: HeadReader,
    pub(super) deadline: Tick,
}

impl HeadWait {
    pub(super) const fn new(deadline: Tick) -> Self {
        Self {
            reader: HeadReader::new(),
            deadline,
        }
    }

    pub(super) fn bytes_held(&self) -> usize {
        self.reader.bytes_held()
    }

    /// Takes bytes of the head; a complete head goes through admission at once.
    pub(super) fn receive(
        &mut self,
        input: &[u8],
        identity: &Identity,
        outbox: &mut Option<Box<Outbox>>,
        cx: &mut Context,
    ) -> Step {
        let policy = std::rc::Rc::clone(&cx.services.policy);
        let (head, used) = match self.reader.receive(input, &policy.http) {
            Ok(Progress::Incomplete) => return Step::Stay,
            Ok(Progress::Complete { head, used }) => (head, used),
            Err(error) => return malformed(error, cx),
        };
        if cx.services.draining {
            return refuse(&Refusal::Draining, cx);
        }
        let candidate = Candidate {
            head: &head,
            has_surplus: used < input.len(),
        };
        match admission::admit(&candidate, &policy.routes) {
            Ok(admitted) => {
                admitted.write_answer(&mut cx.services.output);
                Session::open(&admitted, identity, outbox, cx)
            }
            Err(refusal) => refuse(&refusal, cx),
        }
    }
}

/// Whoever has taken too long over its head is told so, if it can still read.
pub(super) fn head_timed_out(cx: &mut Context) -> Step {
    write_refusal(
        &mut cx.services.output,
        408,
        &[],
        "the request took too long",
    );
    drain(CloseReason::HeadTimeout, false, &cx.services)
}

fn malformed(error: HeadError, cx: &mut Context) -> Step {
    // Whoever speaks TLS here cannot read an answer in HTTP.
    if error != HeadError::TlsOnPlainPort {
        write_refusal(
            &mut cx.services.output,
            error.status(),
            &[],
            &error.to_string(),
        );
    }
    drain(CloseReason::Head(error), true, &cx.services)
}

fn refuse(refusal: &Refusal, cx: &mut Context) -> Step {
    let status = refusal.status();
    write_refusal(
        &mut cx.services.output,
        status,
        refusal.headers(),
        &refusal.body(),
    );
    drain(CloseReason::Refused(status), true, &cx.services)
}

/// Waiting for the peer's close frame.
#[derive(Debug)]
pub struct CloseWait {
    pub(super) reason: CloseReason,
    decoder: Decoder,
    route: u16,
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
    Step::Become(Phase::Draining(Box::new(Draining {
        reason,
        lingers,
        is_shut: false,
        deadline,
    })))
}

/// The way out where nothing can be sent any more.
pub(super) fn closed(reason: CloseReason) -> Step {
    Step::Become(Phase::Closed(Box::new(reason)))
}
