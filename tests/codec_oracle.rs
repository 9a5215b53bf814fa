//! The codec against `tungstenite::WebSocket` as an oracle, over the same bytes.
//!
//! Where both accept, they see the same messages and control frames in the same order. Ours may only
//! differ by being stricter, and only in what is named here: non-minimal lengths, the top bit of a
//! length, and the codes of close frames. It is often earlier, for tungstenite waits for a payload
//! before it judges the header.

#![expect(clippy::expect_used, reason = "helpers of tests stop the test")]

use std::io::{self, Cursor, Read, Write};

use proptest::prelude::*;
use tidegate::ws::{
    CloseCode, Decoder, Event, FrameHeader, Inflater, Limits, Message, OpCode, Violation, encoder,
    mask,
};
use tungstenite::Error;
use tungstenite::error::{CapacityError, ProtocolError};
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};

const MESSAGE_BYTES_MAX: usize = 1000;

/// A peer that says what is in the cursor and hears nothing.
struct Recording(Cursor<Vec<u8>>);

impl Read for Recording {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buf)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            len => Ok(len),
        }
    }
}

impl Write for Recording {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What both sides are compared in.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

/// What the oracle sees before it wants more bytes, or its error.
fn oracle(input: &[u8]) -> (Vec<Seen>, Option<Error>) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let stream = Recording(Cursor::new(input.to_vec()));
    let mut socket = WebSocket::from_raw_socket(stream, Role::Server, Some(config));
    let mut seen = Vec::new();
    loop {
        let message = match socket.read() {
            Ok(message) => message,
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return (seen, None);
            }
            Err(error) => return (seen, Some(error)),
        };
        seen.push(match message {
            tungstenite::Message::Text(text) => Seen::Text(text.to_string()),
            tungstenite::Message::Binary(bytes) => Seen::Binary(bytes.to_vec()),
            tungstenite::Message::Ping(payload) => Seen::Ping(payload.to_vec()),
            tungstenite::Message::Pong(payload) => Seen::Pong(payload.to_vec()),
            tungstenite::Message::Close(close) => {
                let close = close.map(|close| (close.code.into(), close.reason.to_string()));
                seen.push(Seen::Close(close));
                return (seen, None);
            }
            tungstenite::Message::Frame(_) => unreachable!("never read"),
        });
    }
}

/// What the decoder sees of the same bytes.
fn ours(input: &[u8]) -> (Vec<Seen>, Option<Violation>) {
    let limits = Limits {
        message_bytes_max: MESSAGE_BYTES_MAX,
        ..Limits::default()
    };
    let (mut decoder, mut inflater) = (Decoder::new(false), Inflater::new());
    let mut input = input.to_vec();
    let (mut seen, mut at) = (Vec::new(), 0);
    loop {
        let decoded = match decoder.decode(&mut input[at..], &limits, &mut inflater) {
            Ok(decoded) => decoded,
            Err(violation) => return (seen, Some(violation)),
        };
        at += decoded.used;
        let Some(event) = decoded.event else {
            return (seen, None);
        };
        seen.push(match event {
            Event::Message(Message::Text(text)) => Seen::Text(text.into_owned()),
            Event::Message(Message::Binary(bytes)) => Seen::Binary(bytes.into_owned()),
            Event::Ping(payload) => Seen::Ping(payload.into_owned()),
            Event::Pong(payload) => Seen::Pong(payload.into_owned()),
            Event::Close(close) => {
                seen.push(Seen::Close(
                    close.map(|(code, reason)| (code.into(), reason.into())),
                ));
                return (seen, None);
            }
        });
    }
}

/// The same wrong, in the oracle's words.
fn is_same_fault(violation: Violation, error: &Error) -> bool {
    use ProtocolError as P;
    match (violation, error) {
        (Violation::ReservedBits, Error::Protocol(P::NonZeroReservedBits)) => true,
        (Violation::ReservedOpcode, Error::Protocol(P::InvalidOpcode(_))) => true,
        (Violation::Unmasked, Error::Protocol(P::UnmaskedFrameFromClient)) => true,
        (Violation::ControlTooLong, Error::Protocol(P::ControlFrameTooBig)) => true,
        (Violation::ControlFragmented, Error::Protocol(P::FragmentedControlFrame)) => true,
        (Violation::ContinuationWithoutStart, Error::Protocol(P::UnexpectedContinueFrame)) => true,
        (Violation::MessageInterrupted, Error::Protocol(P::ExpectedFragment(_))) => true,
        (Violation::ClosePayload, Error::Protocol(P::InvalidCloseSequence)) => true,
        (Violation::MessageTooBig, Error::Capacity(CapacityError::MessageTooLong { .. })) => true,
        (Violation::Utf8, Error::Utf8(_)) => true,
        // A reason that is not text behind a code that may not be sent: we look at the code first.
        (Violation::CloseCode(_), Error::Utf8(_)) => true,
        _ => false,
    }
}

fn compare(input: &[u8]) -> Result<(), TestCaseError> {
    let (our_events, violation) = ours(input);
    let (oracle_events, error) = oracle(input);
    match violation {
        None => {
            // Fail-fast inside a frame that is incomplete for us, and never later than the oracle.
            prop_assert!(
                error.is_none(),
                "accepted what the oracle refuses with {error:?}"
            );
            prop_assert_eq!(our_events, oracle_events);
        }
        Some(violation) => {
            // Up to where we stopped, both saw the same.
            let same = oracle_events.get(..our_events.len());
            prop_assert_eq!(same, Some(&our_events[..]), "before {:?}", violation);
            match (violation, &error) {
                // Deliberately stricter.
                (Violation::LengthNotMinimal | Violation::LengthTopBit, _) => {}
                (Violation::CloseCode(code), None) => {
                    // The oracle answers with 1002, and shows that instead of the code.
                    prop_assert!(!CloseCode::from(code).is_allowed());
                    let shown = oracle_events.get(our_events.len());
                    prop_assert!(
                        matches!(shown, Some(Seen::Close(Some((1002, _))))),
                        "{shown:?}"
                    );
                }
                // Judged by us before the payload is there, and so before the oracle looks.
                (_, None) => prop_assert_eq!(oracle_events.len(), our_events.len()),
                // A frame that is wrong twice: each names the fault it looks for first.
                (_, Some(error)) => prop_assert!(
                    is_same_fault(violation, error) || faults(input) > 1,
                    "{:?} against {:?}",
                    violation,
                    error
                ),
            }
        }
    }
    Ok(())
}

/// How many rules the last frame looked at breaks, by a look at its first two bytes and its length.
fn faults(input: &[u8]) -> usize {
    let (mut at, mut in_message, mut held) = (0, false, 0);
    loop {
        let mut cursor = Cursor::new(&input[at..]);
        let first = input[at];
        let second = input.get(at + 1).copied().unwrap_or(0x80);
        let opcode = first & 0x0f;
        let is_control = opcode >= 8;
        let is_reserved = matches!(opcode, 3..=7 | 11..=15);
        let out_of_order = match opcode {
            0 => !in_message,
            1 | 2 => in_message,
            _ => false,
        };
        let header = FrameHeader::parse(&mut cursor).ok().flatten();
        let is_whole = header.is_some();
        let len = header.map_or(0, |(_, len)| len);
        let start = at + usize::try_from(cursor.position()).unwrap_or(usize::MAX);
        let end = start.saturating_add(usize::try_from(len).unwrap_or(usize::MAX));
        match opcode {
            0 => held = len.saturating_add(held),
            1 | 2 => held = len,
            _ => {}
        }
        let faults = [
            first & 0x70 != 0,
            is_reserved,
            second & 0x80 == 0,
            is_control && first & 0x80 == 0,
            is_control && second & 0x7f > 125,
            out_of_order,
            len.max(held) > MESSAGE_BYTES_MAX as u64,
        ];
        let count = faults.iter().filter(|fault| **fault).count();
        if count > 0 || !is_whole || end >= input.len() {
            return count;
        }
        if !is_control {
            in_message = first & 0x80 == 0;
        }
        at = end;
    }
}

fn frame(first: u8, payload: &[u8], is_masked: bool) -> Vec<u8> {
    let key = [9, 8, 7, 6];
    let header = FrameHeader {
        is_final: first & 0x80 != 0,
        rsv1: first & 0x40 != 0,
        rsv2: first & 0x20 != 0,
        rsv3: first & 0x10 != 0,
        opcode: OpCode::from(first & 0x0f),
        mask: is_masked.then_some(key),
    };
    let mut out = Vec::new();
    header
        .format(payload.len() as u64, &mut out)
        .expect("a Vec takes all");
    let start = out.len();
    out.extend_from_slice(payload);
    if is_masked {
        mask::unmask(&mut out[start..], key);
    }
    out
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "\\PC{0,50}".prop_map(String::into_bytes),
        2 => proptest::collection::vec(any::<u8>(), 0..130),
        1 => (any::<u16>(), "\\PC{0,20}").prop_map(|(code, reason)| {
            [&code.to_be_bytes()[..], reason.as_bytes()].concat()
        }),
        1 => (900_usize..5010, "\\PC{0,20}").prop_map(|(code, reason)| {
            let code = u16::try_from(code).unwrap_or(1000);
            [&code.to_be_bytes()[..], reason.as_bytes()].concat()
        }),
        1 => (900_usize..1100).prop_map(|len| vec![b'x'; len]),
    ]
}

/// Frames in their place, mostly.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        20 => proptest::sample::select(vec![
            0x81_u8, 0x82, 0x88, 0x89, 0x8a, 0x01, 0x02, 0x00, 0x00, 0x80, 0x80,
        ]),
        1 => any::<u8>(),
    ];
    let is_masked = prop_oneof![30 => Just(true), 1 => Just(false)];
    proptest::collection::vec((first, payload(), is_masked), 1..10).prop_map(|frames| {
        let frames = frames.iter();
        frames
            .flat_map(|(first, payload, is_masked)| frame(*first, payload, *is_masked))
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn frame_sequences_are_seen_as_the_oracle_sees_them(input in frames()) {
        compare(&input)?;
    }

    #[test]
    fn damaged_sequences_are_seen_as_the_oracle_sees_them(
        mut input in frames(),
        place: usize,
        byte: u8,
        len: usize,
    ) {
        let place = place % input.len();
        input[place] = byte;
        input.truncate(1 + len % input.len());
        compare(&input)?;
    }

    #[test]
    fn what_we_encode_a_client_reads(
        text in "\\PC{0,300}",
        bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..300),
            (0_usize..70_000).prop_map(|len| vec![1; len]),
        ],
        reason in "\\PC{0,150}",
    ) {
        let mut out = Vec::new();
        encoder::encode_message(&mut out, &Message::from(&text[..]));
        encoder::encode_message(&mut out, &Message::from(&bytes[..]));
        encoder::encode_ping(&mut out, &bytes);
        encoder::encode_pong(&mut out, b"pong");
        encoder::encode_close(&mut out, Some((CloseCode::Away, &reason)));

        let stream = Recording(Cursor::new(out));
        let mut socket = WebSocket::from_raw_socket(stream, Role::Client, None);
        let mut next = || socket.read().expect("a valid frame");
        prop_assert_eq!(next(), tungstenite::Message::text(text));
        let ping = bytes[..bytes.len().min(125)].to_vec();
        prop_assert_eq!(next(), tungstenite::Message::binary(bytes));
        prop_assert_eq!(next(), tungstenite::Message::Ping(ping.into()));
        prop_assert_eq!(next(), tungstenite::Message::Pong(b"pong".to_vec().into()));
        let tungstenite::Message::Close(Some(close)) = next() else { panic!("no close") };
        prop_assert_eq!(close.code, CloseCode::Away);
        prop_assert!(reason.starts_with(close.reason.as_str()));
    }
}
