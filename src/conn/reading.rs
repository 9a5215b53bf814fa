//! One read of an open session: messages to the handler, pings to their answers.
//!
//! What that needs is put together once for all that a read holds, for a short message costs little more
//! than that. The same for the boundary that keeps a handler's panic to its connection.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::context::{Run, Services};
use super::guest::{self, Verdict};
use super::handler::{Handler, Peer};
use super::outbox::Outbox;
use crate::admission::Route;
use crate::ws::decoder::Decoded;
use crate::ws::{CloseCode, Decoder, Event, Inflater, Message, Violation, encoder};

/// What a read is taken apart with.
pub(super) struct Reading<'a> {
    pub(super) decoder: &'a mut Decoder,
    pub(super) inflater: &'a mut Inflater,
    pub(super) recipient: Recipient<'a>,
    /// How much may have been said before it is written, in bytes.
    pub(super) high_water: usize,
}

/// What came of a read.
pub(super) struct Taken {
    /// Bytes done with.
    pub(super) at: usize,
    pub(super) stop: Stop,
    pub(super) has_messages: bool,
    /// Pings and pongs.
    pub(super) control_frames: u32,
}

/// Who gets the messages of a read.
pub(super) struct Recipient<'a> {
    pub(super) handler: &'a mut dyn Handler,
    pub(super) peer: Peer<'a>,
    pub(super) route: &'a Route,
}

/// How far a read has been taken apart. No part of [`Reading`], of which handlers are lent something: so
/// this stays in registers while they are called.
#[derive(Default)]
struct SoFar {
    at: usize,
    received: Run,
    control_frames: u32,
    /// Whose a panic is.
    is_handler_called: bool,
}

impl Recipient<'_> {
    // Twice in one function, so that a message stays in registers whichever way it came.
    #[expect(clippy::inline_always, reason = "as said")]
    #[inline(always)]
    fn take(&mut self, message: Message<'_>, so_far: &mut SoFar) {
        if let Some(ended) = so_far.received.add(message.len()) {
            self.count_received(ended);
        }
        so_far.is_handler_called = true;
        if guest::needs_no_judge(self.route, self.peer.link) {
            self.handler.message(&mut self.peer, message);
        } else {
            self.take_if_allowed(message);
        }
        so_far.is_handler_called = false;
    }

    // Out of the way of those that are as long as the one before.
    #[cold]
    #[inline(never)]
    fn count_received(&mut self, run: Run) {
        self.peer.services.count_received(run);
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

impl Reading<'_> {
    /// Takes what whole frames there are, until something stops it. A panic is the handler's only while
    /// that is called: then it stops the read, else it goes on.
    #[expect(clippy::inline_always, reason = "see `SoFar`; it is called once")]
    #[inline(always)]
    pub(super) fn take(mut self, input: &mut [u8], pongs: &mut Pongs) -> Taken {
        let mut so_far = SoFar::default();
        let going = AssertUnwindSafe(|| self.go_on(input, pongs, &mut so_far));
        let stop = match catch_unwind(going) {
            Ok(stop) => stop,
            Err(_) if so_far.is_handler_called => Stop::Panic,
            Err(ours) => resume_unwind(ours),
        };
        let received = so_far.received;
        self.recipient.peer.services.count_received(received);
        Taken {
            at: so_far.at,
            stop,
            has_messages: received.messages > 0,
            control_frames: so_far.control_frames,
        }
    }

    #[expect(clippy::inline_always, reason = "see `SoFar`; it is called once")]
    #[inline(always)]
    fn go_on(&mut self, input: &mut [u8], pongs: &mut Pongs, so_far: &mut SoFar) -> Stop {
        let recipient = &mut self.recipient;
        let limits = &recipient.route.limits;
        while recipient.peer.link.closing.is_none() && so_far.at < input.len() {
            let rest = &mut input[so_far.at..];
            if let Some(short) = self.decoder.recognise(rest, limits) {
                so_far.at += short.end();
                match short.read(rest) {
                    Ok(message) => recipient.take(message, so_far),
                    Err(violation) => return Stop::Violation(violation),
                }
            } else if let Some(longer) = self.decoder.recognise_longer(rest, limits) {
                so_far.at += longer.end();
                match longer.read(rest) {
                    Ok(message) => recipient.take(message, so_far),
                    Err(violation) => return Stop::Violation(violation),
                }
            } else {
                let decoded = self.decoder.decode_any(rest, limits, self.inflater);
                let Decoded { used, event } = match decoded {
                    Ok(decoded) => decoded,
                    Err(violation) => return Stop::Violation(violation),
                };
                so_far.at += used;
                match event {
                    Some(Event::Message(message)) => recipient.take(message, so_far),
                    Some(Event::Ping(payload)) => {
                        so_far.control_frames += 1;
                        let peer = &mut recipient.peer;
                        pongs.answer(&payload, peer.outbox, peer.services);
                    }
                    Some(Event::Pong(_)) => so_far.control_frames += 1,
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
        Stop::Pause
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
