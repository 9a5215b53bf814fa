//! Straight out: a large message leaves from where it lies, past the output buffer.
//!
//! Copying a message into the turn's output is cheap while it is small, and lets many leave in one
//! system call. A large one fills a system call by itself, and copying it costs more than it saves
//! (`benches/README.md` has the figures). So a connection that is being served may be lent a [`Sink`],
//! which gives it to the socket, or to TLS, as it is.
//!
//! Invariants: a sink is written to only while no outbox exists, what is in the output goes in front
//! in the same write, and what is refused makes an outbox: so bytes keep their order, and one that
//! refused or failed is not asked again before its owner has looked at it.

use super::outbox::Outbox;
use crate::buffer::Buffer;
use crate::timer::Tick;

/// The socket as a connection sees it while it is being served: a way out, and nothing else.
pub trait Sink {
    /// Sends what is in the output, then `head`, then `payload`, in one system call at most, and leaves
    /// the output empty. What the socket refuses waits in an outbox that is made for it. Failing is for
    /// the sink's owner to know, who ends the connection; what is written after that is lost.
    fn write(
        &mut self,
        output: &mut Buffer,
        head: &[u8],
        payload: &[u8],
        outbox: &mut Option<Box<Outbox>>,
        now: Tick,
    );
}

/// From this size on a message goes to the sink, in bytes of payload.
pub const STRAIGHT_BYTES_MIN: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::*;
    use crate::admission::{self, Route};
    use crate::conn::{
        AtLimit, Connection, ConnectionId, Context, Deadlines, Gate, Handler, Identity, Pass, Peer,
        Phase, Policy, Pushed, Speaks, outbox,
    };
    use crate::http;
    use crate::hub::{self, Home, Hub};
    use crate::ws::{CloseCode, Message, encoder};

    /// Takes as many bytes of each write as the next number says, then everything.
    #[derive(Default)]
    struct Fickle {
        takes: Vec<usize>,
        taken: Vec<u8>,
        writes: usize,
    }

    impl Sink for Fickle {
        fn write(
            &mut self,
            output: &mut Buffer,
            head: &[u8],
            payload: &[u8],
            outbox: &mut Option<Box<Outbox>>,
            now: Tick,
        ) {
            assert!(outbox.is_none(), "asked while bytes wait");
            output.extend_from_slice(&[head, payload].concat());
            let count = self.takes.pop().unwrap_or(usize::MAX).min(output.len());
            self.taken.extend(&output[..count]);
            self.writes += 1;
            if count < output.len() {
                let waiting = outbox.insert(Box::new(Outbox::new(now)));
                waiting.push_wire(&output[count..], true);
            }
            output.clear();
        }
    }

    /// Answers every message with itself, and "close" with a close frame and one message more.
    struct Echo {
        answers: Rc<std::cell::RefCell<Vec<Pushed>>>,
    }

    impl Handler for Echo {
        fn message(&mut self, peer: &mut Peer<'_>, message: Message<'_>) {
            let closes = message.as_bytes() == b"close";
            if closes {
                peer.close(CloseCode::Normal, "");
            }
            let pushed = peer.send(message);
            assert!(!closes || pushed == Pushed::Full);
            if closes {
                assert_eq!(peer.send(vec![0; STRAIGHT_BYTES_MIN]), Pushed::Full);
            } else {
                self.answers.borrow_mut().push(pushed);
            }
        }
    }

    const LIMITS: outbox::Limits = outbox::Limits {
        bytes_high_water: 50_000,
        bytes_max: 200_000,
        at_limit: AtLimit::Skip,
    };

    struct Rig {
        connection: Connection,
        cx: Context,
        answers: Rc<std::cell::RefCell<Vec<Pushed>>>,
    }

    impl Rig {
        fn open() -> Self {
            let mut route = Route::open("/");
            route.limits.message_bytes_max = 1 << 20;
            let policy = Policy {
                http: http::head::Limits::default(),
                routes: vec![route],
                requests: http::exchange::Limits::default(),
                admission: admission::Policy::default(),
                outbox: LIMITS,
                deadlines: Deadlines::default(),
            };
            let home = Home {
                hasher: ahash::RandomState::with_seeds(1, 2, 3, 4),
                reactors: 1,
                me: 0,
            };
            let answers = Rc::default();
            let handler = Echo {
                answers: Rc::clone(&answers),
            };
            let hub = Hub::new(home, hub::Limits::default());
            let mut cx = Context::new(
                Rc::new(policy),
                Gate::new(16, None),
                hub,
                vec![Box::new(handler)],
                7,
            );
            let identity = Identity::new(
                ConnectionId::new(0, 7, 1),
                "192.0.2.1:5".parse().expect("an address"),
            );
            let pass =
                Pass::ask(identity.address(), Speaks::default(), &mut cx.services).expect("room");
            let mut connection = Connection::new(identity, pass, &cx.services);
            let mut request = *b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
            connection.receive(&mut request, None, &mut cx);
            assert!(connection.is_open());
            cx.services.output.clear();
            Self {
                connection,
                cx,
                answers,
            }
        }

        /// All that has left or will: what the sink took, what waits, what is in the output.
        fn said(&self, sink: &Fickle) -> Vec<u8> {
            let mut said = sink.taken.clone();
            if let Some(outbox) = self.connection.outbox() {
                let mut slices = [IoSlice::new(&[]); 64];
                let filled = outbox.slices(&mut slices);
                said.extend(slices[..filled].iter().flat_map(|slice| slice.to_vec()));
            }
            said.extend_from_slice(&self.cx.services.output);
            said
        }
    }

    /// A masked frame with a key of zero, and the frame that answers it.
    fn exchange(length: usize, fill: u8) -> (Vec<u8>, Vec<u8>) {
        let message = Message::from(vec![fill; length]);
        let mut reply = Vec::new();
        encoder::encode_message(&mut reply, &message);
        let head = reply.len() - length;
        let mut request = reply.clone();
        request[1] |= 0x80;
        request.splice(head..head, [0; 4]);
        (request, reply)
    }

    proptest! {
        /// Small and large, taken, taken in part or refused: every byte leaves once and in order.
        #[test]
        fn messages_leave_in_order_whatever_the_sink_takes(
            lengths in prop::collection::vec(
                prop_oneof![0..300usize, STRAIGHT_BYTES_MIN - 2..STRAIGHT_BYTES_MIN + 2, 60_000..90_000usize],
                1..8,
            ),
            takes in prop::collection::vec(prop_oneof![Just(0), Just(usize::MAX), 0..70_000usize], 0..8),
        ) {
            let mut rig = Rig::open();
            let mut sink = Fickle { takes, ..Fickle::default() };
            let (mut input, mut replies) = (Vec::new(), Vec::new());
            for (at, length) in lengths.iter().enumerate() {
                let (request, reply) = exchange(*length, u8::try_from(at).unwrap_or(0));
                input.extend(request);
                replies.push(reply);
            }
            let mut at = 0;
            while at < input.len() {
                let used = rig.connection.receive(&mut input[at..], Some(&mut sink), &mut rig.cx);
                at += used;
                if at < input.len() {
                    // It stops only to have its output written.
                    prop_assert!(rig.connection.wants_flush(&rig.cx.services));
                    sink.taken.extend(&*rig.cx.services.output);
                    rig.cx.services.output.clear();
                }
            }
            let answers = rig.answers.borrow();
            let expected: Vec<_> = replies
                .iter()
                .zip(answers.iter())
                .filter(|(_, pushed)| **pushed != Pushed::Full)
                .flat_map(|(reply, _)| reply.iter().copied())
                .collect();
            prop_assert!(rig.said(&sink) == expected);
            let waiting = rig.connection.outbox().map_or(0, outbox::Outbox::bytes);
            prop_assert!(waiting <= LIMITS.bytes_max);
            let large = lengths.iter().filter(|length| **length >= STRAIGHT_BYTES_MIN).count();
            prop_assert!(sink.writes <= large, "one write for each large message at most");
            let counters = &rig.cx.services.counters;
            let full = answers.iter().filter(|pushed| **pushed == Pushed::Full).count();
            prop_assert_eq!(
                (counters.messages_sent, counters.outbox_skipped),
                ((lengths.len() - full) as u64, full as u64)
            );
            if waiting == 0 {
                prop_assert_eq!(full, 0, "nothing waits, so nothing was refused");
            }
        }
    }

    #[test]
    fn the_answer_says_how_much_waits() {
        let length = 100_000;
        let frame = length + 10;
        for (takes, answer, waits) in [
            (frame, Pushed::Queued, 0),
            (frame - 1, Pushed::Queued, 1),
            (frame - 50_000, Pushed::Queued, 50_000),
            (frame - 50_001, Pushed::Pressed, 50_001),
            (0, Pushed::Pressed, frame),
        ] {
            let mut rig = Rig::open();
            let mut sink = Fickle {
                takes: vec![takes],
                ..Fickle::default()
            };
            let (mut request, _) = exchange(length, 1);
            rig.connection
                .receive(&mut request, Some(&mut sink), &mut rig.cx);
            assert_eq!(*rig.answers.borrow(), [answer], "{takes} taken");
            let waiting = rig.connection.outbox().map_or(0, outbox::Outbox::bytes);
            assert_eq!((waiting, sink.writes), (waits, 1));
        }
    }

    #[test]
    fn a11_what_could_not_wait_is_not_begun() {
        for (length, is_sent) in [(200_000 - 10, true), (200_000 - 9, false)] {
            let mut rig = Rig::open();
            let mut sink = Fickle::default();
            let (mut request, _) = exchange(length, 1);
            rig.connection
                .receive(&mut request, Some(&mut sink), &mut rig.cx);
            assert_eq!(sink.writes, usize::from(is_sent), "{length} bytes");
            let counters = &rig.cx.services.counters;
            assert_eq!(
                (counters.messages_sent, counters.outbox_skipped),
                (u64::from(is_sent), u64::from(!is_sent))
            );
        }
    }

    #[test]
    fn small_messages_and_other_ways_to_send_do_without_a_sink() {
        let mut rig = Rig::open();
        let mut sink = Fickle::default();
        let (mut request, reply) = exchange(STRAIGHT_BYTES_MIN - 1, 1);
        rig.connection
            .receive(&mut request, Some(&mut sink), &mut rig.cx);
        assert_eq!((sink.writes, &rig.cx.services.output[..]), (0, &reply[..]));
        let (mut request, next) = exchange(STRAIGHT_BYTES_MIN, 2);
        rig.connection.receive(&mut request, None, &mut rig.cx);
        assert_eq!(*rig.cx.services.output, [reply, next].concat());
    }

    #[test]
    fn nothing_follows_a_close_frame() {
        let mut rig = Rig::open();
        let mut sink = Fickle::default();
        let (mut input, reply) = exchange(STRAIGHT_BYTES_MIN, 1);
        input.extend(b"\x82\x85\0\0\0\0close");
        input.extend(exchange(STRAIGHT_BYTES_MIN, 2).0);
        rig.connection
            .receive(&mut input, Some(&mut sink), &mut rig.cx);
        assert_eq!(
            rig.said(&sink),
            [&reply[..], b"\x88\x02\x03\xe8"].concat(),
            "one echo and the close frame"
        );
        assert!(matches!(rig.connection.phase(), Phase::Closing(_)));
    }
}
