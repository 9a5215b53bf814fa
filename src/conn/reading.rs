//! One read of an open session: messages to the handler, pings to their answers.
//!
//! What that needs is put together once for all that a read holds, for a short message costs little more
//! than that. The same for the boundary that keeps a handler's panic to its connection.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::context::Services;
use super::guest::{self, Verdict};
use super::handler::{Handler, Peer};
use super::outbox::Outbox;
use crate::admission::Route;
use crate::ws::decoder::Decoded;
use crate::ws::{CloseCode, Decoder, Event, Inflater, Message, Violation, encoder};

/// What a read is taken apart with, and what has come of it so far.
pub(super) struct Reading<'a> {
    decoder: &'a mut Decoder,
    inflater: &'a mut Inflater,
    recipient: Recipient<'a>,
    high_water: usize,
    at: usize,
    control_frames: u32,
    pongs: Pongs,
}

/// What came of a read.
pub(super) struct Taken {
    /// Bytes done with.
    pub(super) at: usize,
    pub(super) stop: Stop,
    pub(super) has_messages: bool,
    /// Pings and pongs.
    pub(super) control_frames: u32,
    pub(super) pongs: Pongs,
}

/// Who gets the messages of a read.
pub(super) struct Recipient<'a> {
    handler: &'a mut dyn Handler,
    peer: Peer<'a>,
    route: &'a Route,
    received: Received,
    has_messages: bool,
    /// Whose a panic is.
    is_called: bool,
}

impl<'a> Recipient<'a> {
    pub(super) fn new(handler: &'a mut dyn Handler, peer: Peer<'a>, route: &'a Route) -> Self {
        Self {
            handler,
            peer,
            route,
            received: Received::default(),
            has_messages: false,
            is_called: false,
        }
    }

    // Twice in one function, so that a message stays in registers whichever way it came.
    #[expect(clippy::inline_always, reason = "as said")]
    #[inline(always)]
    fn take(&mut self, message: Message<'_>) {
        self.has_messages = true;
        self.received.count(message.len(), self.peer.services);
        self.is_called = true;
        if guest::needs_no_judge(self.route, self.peer.link) {
            self.handler.message(&mut self.peer, message);
        } else {
            self.take_if_allowed(message);
        }
        self.is_called = false;
    }

    #[inline(never)]
    fn take_if_allowed(&mut self, message: Message<'_>) {
        match guest::judge(&message, self.route, &mut self.peer) {
            Verdict::Passes => self.handler.message(&mut self.peer, message),
            Verdict::Renews => self.handler.renewed(&mut self.peer),
            Verdict::Stays => {}
        }
    }
}

impl<'a> Reading<'a> {
    pub(super) fn new(
        decoder: &'a mut Decoder,
        inflater: &'a mut Inflater,
        recipient: Recipient<'a>,
        high_water: usize,
    ) -> Self {
        Self {
            decoder,
            inflater,
            recipient,
            high_water,
            at: 0,
            control_frames: 0,
            pongs: Pongs::default(),
        }
    }

    /// Takes what whole frames there are, until something stops it. A panic is the handler's only while
    /// that is called: then it stops the read, else it goes on.
    pub(super) fn take(mut self, input: &mut [u8]) -> Taken {
        let stop = match catch_unwind(AssertUnwindSafe(|| self.go_on(input))) {
            Ok(stop) => stop,
            Err(_) if self.recipient.is_called => Stop::Panic,
            Err(ours) => resume_unwind(ours),
        };
        let Recipient {
            peer,
            received,
            has_messages,
            ..
        } = self.recipient;
        received.end(peer.services);
        Taken {
            at: self.at,
            stop,
            has_messages,
            control_frames: self.control_frames,
            pongs: self.pongs,
        }
    }

    fn go_on(&mut self, input: &mut [u8]) -> Stop {
        let recipient = &mut self.recipient;
        let limits = &recipient.route.limits;
        loop {
            if recipient.peer.link.closing.is_some() || self.at == input.len() {
                return Stop::Pause;
            }
            let rest = &mut input[self.at..];
            if let Some(short) = self.decoder.recognise(rest, limits) {
                self.at += short.payload.end;
                match short.read(rest) {
                    Ok(message) => recipient.take(message),
                    Err(violation) => return Stop::Violation(violation),
                }
            } else {
                let decoded = self.decoder.decode(rest, limits, self.inflater);
                let Decoded { used, event } = match decoded {
                    Ok(decoded) => decoded,
                    Err(violation) => return Stop::Violation(violation),
                };
                self.at += used;
                match event {
                    Some(Event::Message(message)) => recipient.take(message),
                    Some(Event::Ping(payload)) => {
                        self.control_frames += 1;
                        let peer = &mut recipient.peer;
                        self.pongs.answer(&payload, peer.outbox, peer.services);
                    }
                    Some(Event::Pong(_)) => self.control_frames += 1,
                    Some(Event::Close(frame)) => {
                        return Stop::PeerCloses(frame.map(|(code, _)| code));
                    }
                    None => return Stop::Pause,
                }
            }
            if recipient.peer.services.output.len() > self.high_water
                && recipient.peer.outbox.is_none()
            {
                // The socket may well take it: it is asked before more is said.
                return Stop::Pause;
            }
        }
    }
}

/// Messages of one read that came one after the other and are equally long, to be counted as one.
#[derive(Default)]
struct Received {
    bytes: usize,
    messages: u64,
}

impl Received {
    #[inline]
    fn count(&mut self, bytes: usize, services: &mut Services) {
        if self.bytes != bytes {
            std::mem::take(self).end(services);
            self.bytes = bytes;
        }
        self.messages += 1;
    }

    fn end(self, services: &mut Services) {
        services.count_received(self.bytes, self.messages);
    }
}

/// Why a session takes no more of a read.
pub(super) enum Stop {
    /// Nothing whole is left, the session is closing, or what has been said is to be written first.
    Pause,
    /// The handler panicked.
    Panic,
    /// The peer broke the protocol.
    Violation(Violation),
    /// The peer's close frame, with its code.
    PeerCloses(Option<CloseCode>),
}

/// Pings answered one by one in one read; of more, only the newest is answered (§5.5.3 allows it), so
/// a flood of pings cannot make the server send more than it is sent (A10).
const PONGS_PER_READ: u8 = 16;

/// The answers to the pings of one read.
#[derive(Default)]
pub(super) struct Pongs {
    answered: u8,
    newest: Option<([u8; 125], u8)>,
}

impl Pongs {
    fn answer(
        &mut self,
        payload: &[u8],
        outbox: &mut Option<Box<Outbox>>,
        services: &mut Services,
    ) {
        if self.answered < PONGS_PER_READ {
            self.answered += 1;
            let mut frame = Vec::new();
            encoder::encode_pong(&mut frame, payload);
            send_control(&frame, outbox, services);
            return;
        }
        services.counters.pings_skipped += u64::from(self.newest.is_some());
        let mut kept = [0; 125];
        let length = payload.len().min(kept.len());
        kept[..length].copy_from_slice(&payload[..length]);
        self.newest = Some((kept, u8::try_from(length).unwrap_or(0)));
    }

    pub(super) fn finish(&mut self, outbox: &mut Option<Box<Outbox>>, services: &mut Services) {
        if let Some((payload, length)) = self.newest.take() {
            let mut frame = Vec::new();
            encoder::encode_pong(&mut frame, &payload[..usize::from(length)]);
            send_control(&frame, outbox, services);
        }
    }
}

/// Sends a control frame, behind whatever waits.
fn send_control(frame: &[u8], outbox: &mut Option<Box<Outbox>>, services: &mut Services) {
    match outbox {
        Some(outbox) => outbox.push_always(&[frame], true),
        None => services.output.extend_from_slice(frame),
    }
}
