//! The decoder against tables of bytes, and against itself under every way to cut the input.

use proptest::prelude::*;

use super::*;
use crate::ws::fixture::{frame, head};
use crate::ws::{Deflater, encoder};

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
const TEXT_BEGIN: u8 = 0x01;
const BINARY_BEGIN: u8 = 0x02;
const CONTINUE: u8 = 0x00;
const END: u8 = 0x80;
const COMPRESSED: u8 = 0x40;

/// What came out of a whole input: the events, and the violation or else how the decoder was left.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    events: Vec<Event<'static>>,
    end: Result<(), Violation>,
}

/// What the reactor does with the rest of an input, in turn.
#[derive(Debug, Clone, Copy)]
enum Keep {
    /// Keeps it and reads more behind it.
    Extend,
    /// Hands it to the decoder's own memory.
    Absorb,
}

fn owned(event: Event<'_>) -> Event<'static> {
    match event {
        Event::Message(message) => Event::Message(message.into_owned()),
        Event::Ping(payload) => Event::Ping(Cow::Owned(payload.into_owned())),
        Event::Pong(payload) => Event::Pong(Cow::Owned(payload.into_owned())),
        Event::Close(close) => {
            Event::Close(close.map(|(code, reason)| (code, Cow::Owned(reason.into_owned()))))
        }
    }
}

/// Feeds `input` in pieces of the given lengths, round and round, and absorbs what is left at the
/// end.
fn run_pieces(
    input: &[u8],
    compression: bool,
    limits: &Limits,
    pieces: &[(usize, Keep)],
) -> (Run, Decoder) {
    let mut decoder = Decoder::new(compression);
    let mut inflater = Inflater::new();
    let mut events = Vec::new();
    let mut buffer: Vec<u8> = Vec::new();
    let mut fed = 0;
    let mut pieces = pieces.iter().cycle();
    let end = loop {
        let (len, keep) = if fed == input.len() {
            (0, Keep::Absorb)
        } else {
            *pieces.next().expect("pieces go round")
        };
        let piece = &input[fed..(fed + len).min(input.len())];
        let is_last = fed == input.len();
        fed += piece.len();
        buffer.extend_from_slice(piece);

        let mut used = 0;
        let outcome = loop {
            match decoder.decode(&mut buffer[used..], limits, &mut inflater) {
                Ok(Decoded {
                    used: more,
                    event: Some(event),
                }) => {
                    used += more;
                    events.push(owned(event));
                    if matches!(events.last(), Some(Event::Close(_))) {
                        return (
                            Run {
                                events,
                                end: Ok(()),
                            },
                            decoder,
                        );
                    }
                }
                Ok(Decoded {
                    used: more,
                    event: None,
                }) => break Ok(used + more),
                Err(violation) => break Err(violation),
            }
        };
        match outcome {
            Err(violation) => break Err(violation),
            Ok(used) => drop(buffer.drain(..used)),
        }
        if matches!(keep, Keep::Absorb) {
            if let Err(violation) = decoder.absorb(&mut buffer, limits) {
                break Err(violation);
            }
            buffer.clear();
        }
        if is_last {
            break Ok(());
        }
    };
    if end.is_err() {
        assert_eq!(decoder.bytes_held(), 0, "a violation gives the memory back");
    }
    (Run { events, end }, decoder)
}

fn run(input: &[u8], compression: bool, limits: &Limits) -> Run {
    let whole = [(input.len().max(1), Keep::Extend)];
    run_pieces(input, compression, limits, &whole).0
}

fn text(text: &str) -> Event<'static> {
    Event::Message(Message::from(text.to_owned()))
}

fn binary(bytes: &[u8]) -> Event<'static> {
    Event::Message(Message::from(bytes.to_vec()))
}

fn ping(payload: &[u8]) -> Event<'static> {
    Event::Ping(Cow::Owned(payload.to_vec()))
}

fn pong(payload: &[u8]) -> Event<'static> {
    Event::Pong(Cow::Owned(payload.to_vec()))
}

#[test]
fn valid_sequences() {
    let long = vec![7; 65_536];
    let rows: [(&str, Vec<u8>, Vec<Event<'static>>); 12] = [
        (
            "§5.7 masked text",
            b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58".to_vec(),
            vec![text("Hello")],
        ),
        ("§5.6 empty text", frame(TEXT, b""), vec![text("")]),
        ("§5.6 empty binary", frame(BINARY, b""), vec![binary(b"")]),
        (
            "§5.2 two bytes of length",
            frame(BINARY, &long[..300]),
            vec![binary(&long[..300])],
        ),
        (
            "§5.2 eight bytes of length",
            frame(BINARY, &long),
            vec![binary(&long)],
        ),
        (
            "§5.4 fragments",
            [
                frame(TEXT_BEGIN, b"Hel"),
                frame(CONTINUE, b""),
                frame(END, b"lo"),
            ]
            .concat(),
            vec![text("Hello")],
        ),
        (
            "§5.4 control frames between fragments",
            [
                frame(BINARY_BEGIN, b"a"),
                frame(PING, b"p"),
                frame(CONTINUE, b"b"),
                frame(PONG, b"q"),
                frame(END, b"c"),
            ]
            .concat(),
            vec![ping(b"p"), pong(b"q"), binary(b"abc")],
        ),
        (
            "§5.5.1 close inside a message",
            [frame(TEXT_BEGIN, b"x"), frame(CLOSE, b"\x03\xe8bye")].concat(),
            vec![Event::Close(Some((CloseCode::Normal, "bye".into())))],
        ),
        (
            "§5.5.1 close without a code",
            frame(CLOSE, b""),
            vec![Event::Close(None)],
        ),
        (
            "§5.5.2 ping of 125 bytes",
            frame(PING, &long[..125]),
            vec![ping(&long[..125])],
        ),
        (
            "§8.1 a character over three fragments",
            [
                frame(TEXT_BEGIN, b"\xe2"),
                frame(CONTINUE, b"\x82"),
                frame(END, b"\xac"),
            ]
            .concat(),
            vec![text("€")],
        ),
        (
            "§5 several messages",
            [frame(TEXT, b"a"), frame(BINARY, b"b"), frame(TEXT, b"c")].concat(),
            vec![text("a"), binary(b"b"), text("c")],
        ),
    ];
    for (section, input, events) in rows {
        let expected = Run {
            events,
            end: Ok(()),
        };
        assert_eq!(
            run(&input, false, &Limits::default()),
            expected,
            "{section}"
        );
        assert_eq!(
            run(&input, true, &Limits::default()),
            expected,
            "{section}, compression on"
        );
        for piece in 1..input.len().min(20) {
            for keep in [Keep::Extend, Keep::Absorb] {
                let pieces = [(piece, keep)];
                let (cut, _) = run_pieces(&input, false, &Limits::default(), &pieces);
                assert_eq!(cut, expected, "{section}, in pieces of {piece}, {keep:?}");
            }
        }
    }
}

/// Every rule that a header can break, with the fewest bytes that break it: the payload is never
/// waited for.
#[test]
fn a12_violations_are_seen_at_the_first_byte_that_shows_them() {
    let begun = frame(TEXT_BEGIN, b"x");
    let rows: [(&str, Vec<u8>, Violation); 15] = [
        (
            "§5.2 RSV1 not negotiated",
            vec![TEXT | COMPRESSED],
            Violation::ReservedBits,
        ),
        ("§5.2 RSV2", vec![TEXT | 0x20], Violation::ReservedBits),
        ("§5.2 RSV3", vec![TEXT | 0x10], Violation::ReservedBits),
        (
            "§5.2 reserved data opcode",
            vec![0x83],
            Violation::ReservedOpcode,
        ),
        (
            "§5.2 reserved control opcode",
            vec![0x8b],
            Violation::ReservedOpcode,
        ),
        (
            "§5.4 continuation first",
            vec![CONTINUE],
            Violation::ContinuationWithoutStart,
        ),
        (
            "§5.4 last continuation first",
            vec![END],
            Violation::ContinuationWithoutStart,
        ),
        (
            "§5.4 message inside a message",
            [&begun[..], &[TEXT]].concat(),
            Violation::MessageInterrupted,
        ),
        (
            "§5.5 fragmented ping",
            vec![0x09],
            Violation::ControlFragmented,
        ),
        ("§5.1 not masked", vec![TEXT, 0x01], Violation::Unmasked),
        (
            "§5.5 long ping",
            vec![PING, 0xfe],
            Violation::ControlTooLong,
        ),
        (
            "§5.2 length in two bytes",
            head_with(&[0xfe, 0, 125]),
            Violation::LengthNotMinimal,
        ),
        (
            "§5.2 length in eight bytes",
            head_with(&[0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff]),
            Violation::LengthNotMinimal,
        ),
        (
            "§5.2 top bit",
            head_with(&[0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]),
            Violation::LengthTopBit,
        ),
        ("limit", head(BINARY, 65_537), Violation::MessageTooBig),
    ];
    for (section, input, violation) in rows {
        let compression = false;
        let all = run(&input, compression, &Limits::default());
        assert_eq!(all.end, Err(violation), "{section}");
        let before = run(&input[..input.len() - 1], compression, &Limits::default());
        assert_eq!(before.end, Ok(()), "{section}, one byte less");
    }
}

fn head_with(length: &[u8]) -> Vec<u8> {
    [&[BINARY], length, &[1, 2, 3, 4]].concat()
}

#[test]
fn a6_rsv1_belongs_on_the_first_frame_of_a_message_only() {
    let rows = [
        (vec![PING | COMPRESSED], Violation::ReservedBits),
        (vec![CLOSE | COMPRESSED], Violation::ReservedBits),
        (
            [&frame(TEXT_BEGIN, b"x")[..], &[CONTINUE | COMPRESSED]].concat(),
            Violation::ReservedBits,
        ),
        (
            [
                &frame(TEXT_BEGIN | COMPRESSED, b"x")[..],
                &[END | COMPRESSED],
            ]
            .concat(),
            Violation::ReservedBits,
        ),
    ];
    for (input, violation) in rows {
        assert_eq!(
            run(&input, true, &Limits::default()).end,
            Err(violation),
            "{input:x?}"
        );
    }
}

#[test]
fn a1_an_announced_length_reserves_nothing() {
    for len in [1 << 16, 1 << 20, 1 << 32, (1 << 63) - 1] {
        let limits = Limits {
            message_bytes_max: usize::MAX,
            ..Limits::default()
        };
        let mut decoder = Decoder::new(false);
        let mut bytes = [head(BINARY, len), vec![0; 1000]].concat();
        decoder
            .absorb(&mut bytes, &limits)
            .expect("within the limit");
        assert!(
            decoder.bytes_held() <= 16 * 1024,
            "{} held",
            decoder.bytes_held()
        );
    }
    for len in [65_537, 1 << 20, 1 << 32, (1 << 63) - 1] {
        let mut decoder = Decoder::new(false);
        let absorbed = decoder.absorb(&mut head(BINARY, len), &Limits::default());
        assert_eq!(absorbed, Err(Violation::MessageTooBig));
        assert_eq!(decoder.bytes_held(), 0);
    }
}

#[test]
fn a1_what_is_held_is_at_most_twice_what_has_come() {
    let mut decoder = Decoder::new(false);
    let limits = Limits {
        message_bytes_max: 1 << 20,
        ..Limits::default()
    };
    let mut inflater = Inflater::new();
    let input = frame(BINARY, &vec![1; 1 << 20]);
    let fixed = size_of::<Partial>();
    for (index, chunk) in input.chunks(1000).enumerate() {
        let mut chunk = chunk.to_vec();
        let decoded = decoder
            .decode(&mut chunk, &limits, &mut inflater)
            .expect("a valid frame");
        if decoded.event.is_some() {
            assert!(index > 1000);
            continue;
        }
        let used = decoded.used;
        decoder
            .absorb(&mut chunk[used..], &limits)
            .expect("a valid frame");
        let come = (index + 1) * 1000;
        assert!(
            decoder.bytes_held() <= fixed + 2 * come,
            "{come}: {}",
            decoder.bytes_held()
        );
        // And never more than the frame can fill.
        assert!(decoder.bytes_held() <= fixed + (1 << 20));
    }
    assert_eq!(decoder.bytes_held(), 0);
}

#[test]
fn a2_sums_of_fragments_do_not_overflow() {
    let limits = Limits {
        message_bytes_max: usize::MAX,
        ..Limits::default()
    };
    let input = [frame(BINARY_BEGIN, b"x"), head(END, (1 << 63) - 1)].concat();
    assert_eq!(run(&input, false, &limits).end, Ok(()));
    let limits = Limits {
        message_bytes_max: (usize::MAX >> 1) - 1,
        ..limits
    };
    assert_eq!(
        run(&input, false, &limits).end,
        Err(Violation::MessageTooBig)
    );
}

#[test]
fn message_bytes_max_at_minus_one_zero_and_plus_one() {
    for max in [0_usize, 1, 125, 126, 1000, 65_536] {
        let limits = Limits {
            message_bytes_max: max,
            ..Limits::default()
        };
        for len in [max.saturating_sub(1), max, max + 1] {
            let payload = vec![b'x'; len];
            let fits = len <= max;
            let half = len / 2;
            let inputs = [
                frame(TEXT, &payload),
                frame(BINARY, &payload),
                [
                    frame(TEXT_BEGIN, &payload[..half]),
                    frame(END, &payload[half..]),
                ]
                .concat(),
                [
                    frame(BINARY_BEGIN, &payload),
                    frame(PING, b"p"),
                    frame(END, b""),
                ]
                .concat(),
            ];
            for input in inputs {
                for keep in [Keep::Extend, Keep::Absorb] {
                    let (run, _) = run_pieces(&input, false, &limits, &[(1000, keep)]);
                    let violation = run.end.err();
                    assert_eq!(
                        violation,
                        (!fits).then_some(Violation::MessageTooBig),
                        "{len} of {max}"
                    );
                    let messages = run.events.iter().filter(|e| matches!(e, Event::Message(_)));
                    assert_eq!(messages.count(), usize::from(fits));
                }
            }
        }
    }
}

#[test]
fn a3_fragments_max_at_minus_one_zero_and_plus_one() {
    for max in [1_u32, 2, 128] {
        let limits = Limits {
            fragments_max: max,
            ..Limits::default()
        };
        for count in [max - 1, max, max + 1] {
            if count == 0 {
                continue;
            }
            let mut input = Vec::new();
            for index in 0..count {
                let opcode = if index == 0 { TEXT_BEGIN } else { CONTINUE };
                let fin = if index + 1 == count { END } else { 0 };
                // Control frames between them are no fragments.
                input.extend(frame(PING, b""));
                input.extend(frame(fin | opcode, b""));
            }
            let violation = run(&input, false, &limits).end.err();
            assert_eq!(
                violation,
                (count > max).then_some(Violation::TooManyFragments),
                "{count} of {max}"
            );
        }
    }
}

#[test]
fn a3_a_million_empty_fragments_end_at_the_limit_with_flat_memory() {
    let mut decoder = Decoder::new(false);
    let mut inflater = Inflater::new();
    let limits = Limits::default();
    let mut taken = 0;
    let violation = (0..1_000_000).find_map(|index| {
        let mut input = frame(if index == 0 { BINARY_BEGIN } else { CONTINUE }, b"");
        taken = index;
        let outcome = decoder
            .decode(&mut input, &limits, &mut inflater)
            .map(|decoded| decoded.used);
        assert!(decoder.bytes_held() <= size_of::<Partial>());
        outcome.err()
    });
    assert_eq!(violation, Some(Violation::TooManyFragments));
    assert_eq!(taken, 128);
    assert_eq!(Violation::TooManyFragments.close_code(), CloseCode::Policy);
}

#[test]
fn a13_text_fails_at_its_first_bad_byte_inside_a_frame_and_across_frames() {
    let bad_at = 5;
    let payload = b"abcde\xffrest";
    let whole = frame(TEXT, payload);
    let begun = [frame(TEXT_BEGIN, &payload[..3]), frame(END, &payload[3..])].concat();
    let split_character = [frame(TEXT_BEGIN, b"\xf0\x9f"), frame(END, b"\x98(")].concat();
    for (input, last_good) in [
        (whole, 6 + bad_at),
        (begun, 9 + 6 + 2),
        (split_character, 8 + 6 + 1),
    ] {
        for len in 0..=input.len() {
            for piece in [1, 2, 3, len.max(1)] {
                let (run, _) = run_pieces(
                    &input[..len],
                    false,
                    &Limits::default(),
                    &[(piece, Keep::Absorb)],
                );
                let expected = if len <= last_good {
                    Ok(())
                } else {
                    Err(Violation::Utf8)
                };
                assert_eq!(
                    run.end, expected,
                    "{len} bytes of {input:x?} in pieces of {piece}"
                );
                assert_eq!(run.events, []);
            }
        }
    }
}

#[test]
fn a13_text_may_not_end_inside_a_character() {
    for input in [
        frame(TEXT, b"\xe2\x82"),
        [frame(TEXT_BEGIN, b"\xe2\x82"), frame(END, b"")].concat(),
        [frame(TEXT_BEGIN, b"a"), frame(END, b"\xc3")].concat(),
    ] {
        assert_eq!(
            run(&input, false, &Limits::default()).end,
            Err(Violation::Utf8),
            "{input:x?}"
        );
    }
}

#[test]
fn a9_close_frames_end_in_their_code_or_a_violation() {
    let rows = [
        (
            b"\x03".to_vec(),
            Violation::ClosePayload,
            CloseCode::Protocol,
        ),
        (
            b"\x03\xed".to_vec(),
            Violation::CloseCode(1005),
            CloseCode::Protocol,
        ),
        (
            b"\x13\x88".to_vec(),
            Violation::CloseCode(5000),
            CloseCode::Protocol,
        ),
        (
            b"\x03\xe8\xff".to_vec(),
            Violation::Utf8,
            CloseCode::Invalid,
        ),
    ];
    for (payload, violation, code) in rows {
        for piece in [1, 4, 100] {
            for keep in [Keep::Extend, Keep::Absorb] {
                let input = frame(CLOSE, &payload);
                let (run, _) = run_pieces(&input, false, &Limits::default(), &[(piece, keep)]);
                assert_eq!(run.end, Err(violation));
                assert_eq!(violation.close_code(), code);
            }
        }
    }
}

fn deflated(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    assert!(Deflater::new().deflate(payload, 15, &mut out));
    out
}

#[test]
fn compressed_messages_whole_fragmented_and_empty() {
    let long = "to be or not to be, ".repeat(100);
    let bytes = deflated(long.as_bytes());
    let (front, back) = bytes.split_at(bytes.len() / 2);
    let rows = [
        (frame(TEXT | COMPRESSED, &bytes), vec![text(&long)]),
        (
            frame(BINARY | COMPRESSED, &bytes),
            vec![binary(long.as_bytes())],
        ),
        (
            [
                frame(TEXT_BEGIN | COMPRESSED, front),
                frame(PING, b""),
                frame(END, back),
            ]
            .concat(),
            vec![ping(b""), text(&long)],
        ),
        (
            [frame(TEXT_BEGIN | COMPRESSED, b""), frame(END, &bytes)].concat(),
            vec![text(&long)],
        ),
        (frame(TEXT | COMPRESSED, b""), vec![text("")]),
        (frame(BINARY | COMPRESSED, b"\0"), vec![binary(b"")]),
        (
            [frame(TEXT_BEGIN | COMPRESSED, b""), frame(END, b"")].concat(),
            vec![text("")],
        ),
        // Negotiated, and not made use of.
        (frame(TEXT, b"plain"), vec![text("plain")]),
    ];
    for (input, events) in rows {
        let expected = Run {
            events,
            end: Ok(()),
        };
        for keep in [Keep::Extend, Keep::Absorb] {
            for piece in [1, 3, 10_000] {
                let (run, decoder) = run_pieces(&input, true, &Limits::default(), &[(piece, keep)]);
                assert_eq!(run, expected, "{input:x?} in pieces of {piece}, {keep:?}");
                assert!(decoder.is_between_messages());
            }
        }
    }
}

#[test]
fn a6_compressed_text_has_to_be_text_and_compressed() {
    let not_text = deflated(&[0xff; 100]);
    let rows = [
        (frame(TEXT | COMPRESSED, &not_text), Violation::Utf8),
        (frame(TEXT | COMPRESSED, &not_text[..3]), Violation::Deflate),
        (frame(BINARY | COMPRESSED, b"\xff\xff"), Violation::Deflate),
    ];
    for (input, violation) in rows {
        assert_eq!(run(&input, true, &Limits::default()).end, Err(violation));
        assert_eq!(violation.close_code(), CloseCode::Invalid);
    }
}

#[test]
fn a4_a_compressed_message_keeps_to_the_limit_of_the_inflated_one() {
    for (len, fits) in [(999, true), (1000, true), (1001, false)] {
        let limits = Limits {
            message_bytes_max: 1000,
            ..Limits::default()
        };
        let input = frame(BINARY | COMPRESSED, &deflated(&vec![1; len]));
        let violation = run(&input, true, &limits).end.err();
        assert_eq!(
            violation,
            (!fits).then_some(Violation::MessageTooBig),
            "{len}"
        );
    }
}

#[test]
fn a4_the_compressed_form_has_a_limit_of_its_own() {
    let limits = Limits {
        message_bytes_max: 1000,
        ..Limits::default()
    };
    let max = limits.deflated_bytes_max();
    for (len, violation) in [
        (max - 1, None),
        (max, None),
        (max + 1, Some(Violation::MessageTooBig)),
    ] {
        let input = head(BINARY | COMPRESSED, len as u64);
        assert_eq!(run(&input, true, &limits).end.err(), violation);
        let input = [
            frame(BINARY_BEGIN | COMPRESSED, b"x"),
            head(END, len as u64 - 1),
        ]
        .concat();
        assert_eq!(run(&input, true, &limits).end.err(), violation);
    }
}

#[test]
fn an_idle_decoder_is_small_and_holds_nothing() {
    assert!(size_of::<Decoder>() <= 24);
    assert_eq!(Decoder::new(true).bytes_held(), 0);
    assert!(Decoder::new(true).is_between_messages());
}

#[test]
fn an_idle_decoder_holds_nothing_after_a_long_message() {
    let limits = Limits {
        message_bytes_max: 1 << 20,
        inflate_ratio_max: 2000,
        ..Limits::default()
    };
    let payload = vec![b'x'; 100 * 1024];
    let half = payload.len() / 2;
    for input in [
        frame(TEXT, &payload),
        frame(BINARY, &payload),
        [
            frame(TEXT_BEGIN, &payload[..half]),
            frame(PING, b"p"),
            frame(END, &payload[half..]),
        ]
        .concat(),
        frame(TEXT | COMPRESSED, &deflated(&payload)),
    ] {
        for piece in [100, 4096, 1 << 20] {
            for keep in [Keep::Extend, Keep::Absorb] {
                let (run, decoder) = run_pieces(&input, true, &limits, &[(piece, keep)]);
                assert_eq!(run.end, Ok(()));
                let Some(Event::Message(message)) = run.events.last() else {
                    panic!("no message");
                };
                assert_eq!(message.as_bytes(), payload);
                assert!(decoder.is_between_messages());
                assert_eq!(decoder.bytes_held(), 0);
            }
        }
    }
}

#[test]
fn whole_frames_are_borrowed_and_pieces_owned() {
    let mut inflater = Inflater::new();
    let limits = Limits::default();
    let mut decoder = Decoder::new(false);
    for len in [10, 1000, 65_536] {
        let mut input = frame(BINARY, &vec![1; len]);
        let decoded = decoder
            .decode(&mut input, &limits, &mut inflater)
            .expect("valid");
        assert!(matches!(
            decoded.event,
            Some(Event::Message(Message::Binary(Cow::Borrowed(_))))
        ));
        assert_eq!(decoder.bytes_held(), 0);
    }
    let mut input = frame(BINARY, b"abc");
    let (front, back) = input.split_at_mut(7);
    decoder.absorb(front, &limits).expect("valid");
    assert!(!decoder.is_between_messages());
    let decoded = decoder.decode(back, &limits, &mut inflater).expect("valid");
    assert_eq!(
        decoded,
        Decoded {
            used: 2,
            event: Some(binary(b"abc"))
        }
    );
    assert!(matches!(
        decoded.event,
        Some(Event::Message(Message::Binary(Cow::Owned(_))))
    ));
}

#[test]
fn every_violation_has_a_text_without_payload_and_a_code() {
    let all = [
        (Violation::ReservedBits, 1002),
        (Violation::ReservedOpcode, 1002),
        (Violation::Unmasked, 1002),
        (Violation::LengthNotMinimal, 1002),
        (Violation::LengthTopBit, 1002),
        (Violation::ControlTooLong, 1002),
        (Violation::ControlFragmented, 1002),
        (Violation::ContinuationWithoutStart, 1002),
        (Violation::MessageInterrupted, 1002),
        (Violation::ClosePayload, 1002),
        (Violation::CloseCode(1005), 1002),
        (Violation::Deflate, 1007),
        (Violation::Utf8, 1007),
        (Violation::TooManyFragments, 1008),
        (Violation::MessageTooBig, 1009),
        (Violation::InflateRatio, 1009),
    ];
    let mut texts: Vec<String> = all
        .iter()
        .map(|(violation, _)| violation.to_string())
        .collect();
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), all.len());
    for (violation, code) in all {
        assert_eq!(u16::from(violation.close_code()), code, "{violation}");
    }
}

/// A sequence of frames of which most are in their place.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        4 => "\\PC{0,40}".prop_map(String::into_bytes),
        2 => proptest::collection::vec(any::<u8>(), 0..40),
        1 => proptest::collection::vec(Just(b'x'), 100..400),
        1 => Just(deflated(&[b'y'; 300])),
    ];
    let first = prop_oneof![
        6 => proptest::sample::select(vec![
            TEXT, BINARY, PING, PONG, TEXT_BEGIN, BINARY_BEGIN,
            CONTINUE, CONTINUE, CONTINUE, END, END,
            TEXT | COMPRESSED, TEXT_BEGIN | COMPRESSED, BINARY | COMPRESSED,
        ]),
        1 => any::<u8>(),
    ];
    proptest::collection::vec((first, payload), 0..12).prop_map(|frames| {
        frames
            .iter()
            .flat_map(|(first, payload)| frame(*first, payload))
            .collect()
    })
}

/// Valid messages, each in any number of fragments with pings between.
fn messages() -> impl Strategy<Value = (Vec<u8>, Vec<Event<'static>>)> {
    let message = prop_oneof![
        "\\PC{0,60}".prop_map(Message::from),
        proptest::collection::vec(any::<u8>(), 0..300).prop_map(Message::from),
    ];
    let cuts = proptest::collection::vec((any::<usize>(), any::<bool>()), 0..5);
    proptest::collection::vec((message, cuts), 0..6).prop_map(|messages| {
        let (mut input, mut events) = (Vec::new(), Vec::new());
        for (message, cuts) in messages {
            let mut opcode = match message.kind() {
                MessageKind::Text => TEXT_BEGIN,
                MessageKind::Binary => BINARY_BEGIN,
            };
            let mut rest = message.as_bytes();
            for (cut, has_ping) in cuts {
                let (front, back) = rest.split_at(cut % (rest.len() + 1));
                input.extend(frame(opcode, front));
                (opcode, rest) = (CONTINUE, back);
                if has_ping {
                    input.extend(frame(PING, front.get(..125).unwrap_or(front)));
                    events.push(ping(front.get(..125).unwrap_or(front)));
                }
            }
            input.extend(frame(END | opcode, rest));
            events.push(Event::Message(message));
        }
        (input, events)
    })
}

fn pieces() -> impl Strategy<Value = Vec<(usize, Keep)>> {
    let len = prop_oneof![1_usize..8, 1_usize..200];
    let keep = prop_oneof![Just(Keep::Extend), Just(Keep::Absorb)];
    proptest::collection::vec((len, keep), 1..20)
}

proptest! {
    #[test]
    fn any_split_of_the_input_gives_the_same_events(
        input in frames(),
        pieces in pieces(),
        compression: bool,
        message_bytes_max in prop_oneof![Just(65_536_usize), 0_usize..500],
        fragments_max in prop_oneof![Just(128_u32), 1_u32..4],
    ) {
        let limits = Limits { message_bytes_max, fragments_max, ..Limits::default() };
        let whole = run(&input, compression, &limits);
        let (cut, _) = run_pieces(&input, compression, &limits, &pieces);
        prop_assert_eq!(whole, cut);
    }

    #[test]
    fn any_split_of_any_bytes_gives_the_same_events(
        input in proptest::collection::vec(any::<u8>(), 0..100),
        pieces in pieces(),
        compression: bool,
    ) {
        let whole = run(&input, compression, &Limits::default());
        let (cut, _) = run_pieces(&input, compression, &Limits::default(), &pieces);
        prop_assert_eq!(whole, cut);
    }

    #[test]
    fn valid_messages_come_out_however_they_are_cut(
        (input, events) in messages(),
        pieces in pieces(),
    ) {
        let (run, decoder) = run_pieces(&input, false, &Limits::default(), &pieces);
        prop_assert_eq!(run, Run { events, end: Ok(()) });
        prop_assert!(decoder.is_between_messages());
        prop_assert_eq!(decoder.bytes_held(), 0);
    }

    #[test]
    fn decode_undoes_encode(
        message in prop_oneof![
            "\\PC{0,300}".prop_map(Message::from),
            proptest::collection::vec(any::<u8>(), 0..300).prop_map(Message::from),
            (0_usize..70_000).prop_map(|len| Message::from(vec![b'z'; len])),
        ],
        bits in 8_u8..=15,
    ) {
        let mut deflater = Deflater::new();
        let parameters = super::super::DeflateParameters::negotiate(
            [&format!("permessage-deflate; server_max_window_bits={bits}")[..]].into_iter(),
        );
        let mut plain = Vec::new();
        encoder::encode_message(&mut plain, &message);
        let mut small = Vec::new();
        let parameters = parameters.expect("a list").expect("an offer");
        encoder::encode_compressed(&mut small, &message, &mut deflater, parameters);
        prop_assert!(small.len() <= plain.len());
        let limits = Limits {
            message_bytes_max: 1 << 20,
            inflate_ratio_max: u32::MAX,
            ..Limits::default()
        };
        for server in [plain, small] {
            let run = run(&masked(&server), true, &limits);
            let events = vec![Event::Message(message.clone())];
            prop_assert_eq!(run, Run { events, end: Ok(()) });
        }
    }
}

/// A server's frame as a client would have sent it.
fn masked(server: &[u8]) -> Vec<u8> {
    let payload_start = match server[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    frame(server[0], &server[payload_start..])
}
