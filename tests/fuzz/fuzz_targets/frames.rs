//! Any bytes, cut anywhere, kept or absorbed: the decoder gives the same events as for the whole
//! input, keeps to its limits, and holds nothing once it has failed or finished.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tidegate::ws::{Decoder, Event, Inflater, Limits, Violation};

#[derive(Debug, Arbitrary)]
struct Case {
    compression: bool,
    message_bytes_max: u16,
    fragments_max: u8,
    /// Length of a piece, and whether what is left of it is absorbed.
    pieces: Vec<(u8, bool)>,
    input: Vec<u8>,
}

type Run = (Vec<String>, Result<(), Violation>);

fn run(case: &Case, pieces: &[(usize, bool)]) -> Run {
    let limits = Limits {
        message_bytes_max: usize::from(case.message_bytes_max),
        fragments_max: u32::from(case.fragments_max).max(1),
        ..Limits::default()
    };
    let mut decoder = Decoder::new(case.compression);
    let mut inflater = Inflater::new();
    let mut events = Vec::new();
    let mut buffer = Vec::new();
    let mut rest = &case.input[..];
    let mut pieces = pieces.iter().cycle();
    loop {
        let is_last = rest.is_empty();
        let (len, absorbs) = if is_last {
            (0, true)
        } else {
            *pieces.next().unwrap()
        };
        let (piece, behind) = rest.split_at(len.min(rest.len()));
        buffer.extend_from_slice(piece);
        rest = behind;

        let mut used = 0;
        loop {
            let decoded = match decoder.decode(&mut buffer[used..], &limits, &mut inflater) {
                Ok(decoded) => decoded,
                Err(violation) => {
                    assert_eq!(decoder.bytes_held(), 0);
                    return (events, Err(violation));
                }
            };
            used += decoded.used;
            let Some(event) = decoded.event else { break };
            if let Event::Message(message) = &event {
                assert!(message.len() <= limits.message_bytes_max);
            }
            events.push(format!("{event:?}"));
        }
        buffer.drain(..used);
        if absorbs {
            if let Err(violation) = decoder.absorb(&mut buffer, &limits) {
                assert_eq!(decoder.bytes_held(), 0);
                return (events, Err(violation));
            }
            buffer.clear();
        }
        // Twice what has come, and what the bookkeeping of one message takes.
        assert!(decoder.bytes_held() <= 256 + 2 * case.input.len());
        assert_eq!(decoder.bytes_held() == 0, decoder.is_between_messages());
        if is_last {
            return (events, Ok(()));
        }
    }
}

fuzz_target!(|case: Case| {
    let whole = run(&case, &[(case.input.len(), false)]);
    let pieces: Vec<_> = case
        .pieces
        .iter()
        .map(|&(len, absorbs)| (usize::from(len).max(1), absorbs))
        .collect();
    if !pieces.is_empty() {
        assert_eq!(whole, run(&case, &pieces));
    }
    assert_eq!(whole, run(&case, &[(1, true)]));
});
