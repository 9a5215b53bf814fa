//! The negotiation as tables, the examples of RFC 7692, bombs, and what windows are kept to.

use proptest::prelude::*;

use super::*;

fn limits(message_bytes_max: usize, inflate_ratio_max: u32) -> Limits {
    Limits {
        message_bytes_max,
        inflate_ratio_max,
        ..Limits::default()
    }
}

fn deflated(payload: &[u8], window_bits: u8) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    Deflater::new()
        .deflate(payload, window_bits, &mut out)
        .then_some(out)
}

#[test]
fn offers_are_answered() {
    let plain = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    let rows: [(&[&str], Option<&str>); 29] = [
        (&[], None),
        (&[""], None),
        (&[" , ,\t,"], None),
        (&["x-webkit-deflate-frame"], None),
        (&["permessage-deflate2"], None),
        (&["permessage-deflate"], Some("")),
        (&["permessage-deflate; client_max_window_bits"], Some("")),
        (&["permessage-deflate; client_max_window_bits=8"], Some("")),
        (&["permessage-deflate; client_max_window_bits=7"], None),
        (&["permessage-deflate; client_max_window_bits=16"], None),
        (
            &["permessage-deflate;server_no_context_takeover;client_no_context_takeover"],
            Some(""),
        ),
        (&["permessage-deflate; server_no_context_takeover=1"], None),
        (
            &["permessage-deflate; client_no_context_takeover=\"x\""],
            None,
        ),
        (&["permessage-deflate; server_max_window_bits"], None),
        (&["permessage-deflate; server_max_window_bits=7"], None),
        (&["permessage-deflate; server_max_window_bits=8"], Some("8")),
        (&["permessage-deflate; server_max_window_bits=9"], Some("9")),
        (
            &["permessage-deflate; server_max_window_bits=\"10\""],
            Some("10"),
        ),
        (
            &["permessage-deflate; server_max_window_bits=\"\\1\\1\""],
            Some("11"),
        ),
        (
            &["permessage-deflate ;\tserver_max_window_bits = 15 "],
            Some("15"),
        ),
        (&["permessage-deflate; server_max_window_bits=16"], None),
        (&["permessage-deflate; server_max_window_bits=010"], None),
        (&["permessage-deflate; server_max_window_bits=100"], None),
        (
            &["permessage-deflate; server_max_window_bits=10; server_max_window_bits=10"],
            None,
        ),
        (&["permessage-deflate; mystery"], None),
        (
            &["permessage-deflate; mystery=1, permessage-deflate"],
            Some(""),
        ),
        (
            &[
                "foo; bar=\"baz\"",
                "permessage-deflate; server_max_window_bits=12",
            ],
            Some("12"),
        ),
        (
            &["permessage-deflate; server_max_window_bits=9, permessage-deflate"],
            Some("9"),
        ),
        (
            &["permessage-deflate, permessage-deflate; server_max_window_bits=9"],
            Some(""),
        ),
    ];
    for (offers, expected) in rows {
        let chosen = DeflateParameters::negotiate(offers.iter().copied());
        let response = chosen.expect("a list").map(|parameters| {
            let mut out = Vec::new();
            parameters.write_response(&mut out);
            String::from_utf8(out).expect("ASCII")
        });
        let expected = expected.map(|bits| match bits {
            "" => plain.to_owned(),
            bits => format!("{plain}; server_max_window_bits={bits}"),
        });
        assert_eq!(response, expected, "{offers:?}");
    }
}

#[test]
fn what_is_not_a_list_of_extensions_is_malformed() {
    for value in [
        "permessage-deflate;",
        "permessage-deflate; ;",
        ";",
        "=",
        "a b",
        "a=1",
        "a; b=",
        "a; b=\"",
        "a; b=\"\"",
        "a; b=\"x y\"",
        "a; b=\"x\\",
        "a; b=\"x\"y",
        "permessage-deflate, @",
        "a; b=é",
    ] {
        let outcome = DeflateParameters::negotiate([value].into_iter());
        assert_eq!(outcome, Err(ExtensionsError::Malformed), "{value:?}");
    }
}

#[test]
fn b3_sixteen_offers_are_read_and_seventeen_refused() {
    for (others, expected) in [
        (14, Ok(Some(DeflateParameters::default()))),
        (15, Ok(Some(DeflateParameters::default()))),
        (16, Err(ExtensionsError::TooMany)),
    ] {
        let list = format!("{}permessage-deflate", "x,".repeat(others));
        assert_eq!(
            DeflateParameters::negotiate([&list[..]].into_iter()),
            expected
        );
        let headers = std::iter::repeat_n("x", others).chain(["permessage-deflate"]);
        assert_eq!(DeflateParameters::negotiate(headers), expected);
    }
}

#[test]
fn b3_long_runs_of_separators_are_read_once() {
    let commas = ",".repeat(16_384);
    let spaces = " ".repeat(16_384);
    let mixed = " ,\t".repeat(5_461);
    for value in [commas, spaces, mixed] {
        assert_eq!(
            DeflateParameters::negotiate([&value[..]].into_iter()),
            Ok(None)
        );
    }
    let semicolons = ";".repeat(16_384);
    assert_eq!(
        DeflateParameters::negotiate([&semicolons[..]].into_iter()),
        Err(ExtensionsError::Malformed)
    );
    let parameters = format!("permessage-deflate{}", ";x".repeat(8_000));
    assert_eq!(
        DeflateParameters::negotiate([&parameters[..]].into_iter()),
        Ok(None)
    );
}

#[test]
fn examples_of_rfc_7692_section_7_2_3() {
    let rows: [(&[u8], &[u8]); 7] = [
        (&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], b"Hello"),
        // No compression (§7.2.3.3).
        (
            &[
                0x00, 0x05, 0x00, 0xfa, 0xff, b'H', b'e', b'l', b'l', b'o', 0x00,
            ],
            b"Hello",
        ),
        // BFINAL set (§7.2.3.4), with and without the padding block behind it.
        (&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00], b"Hello"),
        (&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], b"Hello"),
        // Two blocks (§7.2.3.5).
        (
            &[
                0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00,
            ],
            b"Hello",
        ),
        // An empty message (§7.2.3.6), and one of no bytes at all.
        (&[0x00], b""),
        (&[], b""),
    ];
    let mut inflater = Inflater::new();
    for (bytes, expected) in rows {
        let inflated = inflater.inflate(bytes, &Limits::default());
        assert_eq!(inflated.as_deref(), Ok(expected), "{bytes:x?}");
    }
}

#[test]
fn a6_broken_and_incomplete_data_is_refused() {
    let whole = deflated(&b"to be or not to be".repeat(20), 15).expect("shorter");
    let mut inflater = Inflater::new();
    for len in 1..whole.len() {
        let outcome = inflater
            .inflate(&whole[..len], &Limits::default())
            .map(Cow::into_owned);
        assert_eq!(
            outcome,
            Err(Violation::Deflate),
            "{len} of {} bytes",
            whole.len()
        );
    }
    for bytes in [
        &[0xff][..],
        &[0x06],
        &[0x00, 0x01],
        b"\xf2\x48\xcd\xc9\xc9\x07\x00\x06",
    ] {
        let outcome = inflater
            .inflate(bytes, &Limits::default())
            .map(Cow::into_owned);
        assert_eq!(outcome, Err(Violation::Deflate), "{bytes:x?}");
    }
    // And it is as good as new after that.
    assert!(inflater.inflate(&whole, &Limits::default()).is_ok());
}

#[test]
fn a6_a_reference_before_the_message_is_refused_so_nothing_of_another_client_shows() {
    let mut inflater = Inflater::new();
    let secret = deflated(&b"another client's secret ".repeat(10), 15).expect("shorter");
    assert!(inflater.inflate(&secret, &Limits::default()).is_ok());
    // A fixed block that is one match: length 3, distance 1, with nothing before it.
    let reference = [0x02, 0x02, 0x00];
    let outcome = inflater.inflate(&reference, &Limits::default());
    assert_eq!(outcome, Err(Violation::Deflate));
}

#[test]
fn a4_inflating_stops_at_the_cap_of_bytes() {
    let message = vec![b'a'; 100_000];
    let bomb = deflated(&message, 15).expect("shorter");
    let mut inflater = Inflater::new();
    for (bytes_max, fits) in [(99_999, false), (100_000, true), (100_001, true)] {
        let outcome = inflater.inflate(&bomb, &limits(bytes_max, u32::MAX));
        let expected = if fits {
            Ok(&message[..])
        } else {
            Err(Violation::MessageTooBig)
        };
        assert_eq!(outcome.as_deref().map_err(|error| *error), expected);
    }
}

#[test]
fn a4_inflating_stops_at_the_cap_of_ratio() {
    let message = vec![b'a'; 200_000];
    let bomb = deflated(&message, 15).expect("shorter");
    let ratio = u32::try_from(message.len().div_ceil(bomb.len())).expect("small");
    let mut inflater = Inflater::new();
    for (ratio, fits) in [(ratio - 1, false), (ratio, true), (ratio + 1, true)] {
        let outcome = inflater.inflate(&bomb, &limits(1 << 20, ratio));
        assert_eq!(
            outcome.map(|bytes| bytes.len()).ok(),
            fits.then_some(message.len())
        );
    }
    let outcome = inflater.inflate(&bomb, &limits(1 << 20, 1));
    assert_eq!(outcome, Err(Violation::InflateRatio));
}

#[test]
fn a4_the_ratio_is_not_judged_up_to_the_free_size() {
    let mut inflater = Inflater::new();
    for (len, fits) in [
        (INFLATED_BYTES_FREE - 1, true),
        (INFLATED_BYTES_FREE, true),
        (INFLATED_BYTES_FREE + 1, false),
    ] {
        let bomb = deflated(&vec![0; len], 15).expect("shorter");
        let outcome = inflater.inflate(&bomb, &limits(1 << 20, 1));
        assert_eq!(outcome.is_ok(), fits, "{len}");
    }
}

#[test]
fn a4_ten_thousand_bombs_take_no_more_memory_than_one() {
    let bomb = deflated(&vec![0; 16 << 20], 15).expect("shorter");
    let mut inflater = Inflater::new();
    for _ in 0..10_000 {
        let outcome = inflater.inflate(&bomb, &Limits::default());
        assert_eq!(outcome, Err(Violation::MessageTooBig));
        assert!(inflater.buffer.capacity() <= Limits::default().message_bytes_max + 1);
    }
}

#[test]
fn a5_a_buffer_that_grew_long_does_not_stay() {
    let message = vec![0; KEPT_BYTES_MAX + 1];
    let bytes = deflated(&message, 15).expect("shorter");
    let mut inflater = Inflater::new();
    let outcome = inflater.inflate(&bytes, &limits(1 << 20, u32::MAX));
    assert!(matches!(outcome, Ok(Cow::Owned(bytes)) if bytes == message));
    assert_eq!(inflater.buffer.capacity(), 0);
}

#[test]
fn a5_no_state_is_made_before_it_is_used() {
    let (mut inflater, mut deflater) = (Inflater::new(), Deflater::new());
    assert!(inflater.decompressor.is_none());
    assert!(deflater.compressors.iter().all(Option::is_none));
    assert_eq!(
        inflater.inflate(&[], &Limits::default()).as_deref(),
        Ok(&[][..])
    );
    assert!(inflater.decompressor.is_none());
    assert!(deflater.deflate(&[0; 100], 8, &mut Vec::new()));
    assert!(deflater.deflate(&[0; 100], 9, &mut Vec::new()));
    assert_eq!(deflater.compressors.iter().flatten().count(), 1);
}

#[test]
fn a_payload_that_does_not_shrink_leaves_no_trace() {
    let mut deflater = Deflater::new();
    for len in 0..8 {
        let mut out = b"before".to_vec();
        assert!(!deflater.deflate(&b"01234567"[..len], 15, &mut out));
        assert_eq!(out, b"before");
    }
}

/// Reads a compressed message bit by bit (RFC 1951 §3.2), for the one thing no library tells: how
/// far back it refers. Some inflate with a larger window than they were asked for.
struct Distances<'d> {
    deflated: &'d [u8],
    bit: usize,
}

impl Distances<'_> {
    /// The longest distance of any match, or 0 without one.
    fn longest(deflated: &[u8]) -> usize {
        let mut reader = Distances {
            deflated: &[deflated, &END_OF_MESSAGE].concat(),
            bit: 0,
        };
        let mut longest = 0;
        loop {
            let is_final = reader.bits(1) == 1;
            match reader.bits(2) {
                0 => {
                    reader.bit = reader.bit.next_multiple_of(8);
                    let len = reader.bits(16);
                    reader.bit += 16 + 8 * len;
                }
                1 => {
                    let lens = [(144, 8), (112, 9), (24, 7), (8, 8)];
                    let literals = lens.iter().flat_map(|&(count, len)| vec![len; count]);
                    let literals = canonical(&literals.collect::<Vec<_>>());
                    longest = longest.max(reader.block(&literals, &canonical(&[5; 30])));
                }
                2 => {
                    let (literals, distances) = reader.tables();
                    longest = longest.max(reader.block(&literals, &distances));
                }
                _ => panic!("block type 3"),
            }
            if is_final {
                return longest;
            }
        }
    }

    fn bits(&mut self, count: usize) -> usize {
        (0..count).fold(0, |value, index| {
            let bit = self.deflated[self.bit / 8] >> (self.bit % 8) & 1;
            self.bit += 1;
            value | usize::from(bit) << index
        })
    }

    fn symbol(&mut self, codes: &Codes) -> usize {
        let (mut len, mut code) = (0, 0);
        loop {
            (len, code) = (len + 1, code << 1 | self.bits(1));
            if let Some(symbol) = codes.get(&(len, code)) {
                return *symbol;
            }
        }
    }

    fn block(&mut self, literals: &Codes, distances: &Codes) -> usize {
        let mut longest = 0;
        loop {
            match self.symbol(literals) {
                0..256 => {}
                256 => return longest,
                length => {
                    let extra = if length == 285 {
                        0
                    } else {
                        (length - 257).saturating_sub(4) / 4
                    };
                    self.bits(extra);
                    let code = self.symbol(distances);
                    let extra = code.saturating_sub(2) / 2;
                    let base = if code < 4 {
                        code
                    } else {
                        (2 + code % 2) << extra
                    };
                    longest = longest.max(1 + base + self.bits(extra));
                }
            }
        }
    }

    /// The codes of a block that brings its own (RFC 1951 §3.2.7).
    fn tables(&mut self) -> (Codes, Codes) {
        let (literals, distances, lens) = (257 + self.bits(5), 1 + self.bits(5), 4 + self.bits(4));
        let mut code_lens = [0; 19];
        for place in &[
            16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
        ][..lens]
        {
            code_lens[*place] = self.bits(3);
        }
        let codes = canonical(&code_lens);
        let mut lens = Vec::new();
        while lens.len() < literals + distances {
            let (len, times) = match self.symbol(&codes) {
                16 => (*lens.last().expect("one before"), 3 + self.bits(2)),
                17 => (0, 3 + self.bits(3)),
                18 => (0, 11 + self.bits(7)),
                len => (len, 1),
            };
            lens.extend(std::iter::repeat_n(len, times));
        }
        (canonical(&lens[..literals]), canonical(&lens[literals..]))
    }
}

/// From length and value of a code to its symbol.
type Codes = std::collections::HashMap<(usize, usize), usize>;

/// The codes that the lengths determine (RFC 1951 §3.2.2).
fn canonical(lens: &[usize]) -> Codes {
    let mut codes = Codes::new();
    let mut next = 0;
    for len in 1..16 {
        next <<= 1;
        for (symbol, _) in lens
            .iter()
            .enumerate()
            .filter(|(_, of_symbol)| **of_symbol == len)
        {
            codes.insert((len, next), symbol);
            next += 1;
        }
    }
    codes
}

/// Repetitions at every distance, so that a window too large would be used if it could.
fn repetitive() -> Vec<u8> {
    let mut state = 1_u32;
    let mut bytes = Vec::new();
    for distance in (3..700).step_by(7) {
        let mut unit = Vec::new();
        for _ in 0..distance {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            unit.push((state >> 24) as u8);
        }
        bytes.extend_from_slice(&unit);
        bytes.extend_from_slice(&unit);
    }
    bytes
}

#[test]
fn every_window_is_kept_to() {
    let message = repetitive();
    for bits in 8..=15 {
        let bytes = deflated(&message, bits).expect("shorter");
        let longest = Distances::longest(&bytes);
        assert!(longest <= 1 << bits, "{longest} in {bits} bits");
        // And made use of, as far as the message's own distances go, or the check says nothing.
        assert!(longest > 1 << (bits - 2).min(8), "{longest} in {bits} bits");
    }
}

fn compressible() -> impl Strategy<Value = Vec<u8>> {
    let unit = proptest::collection::vec(any::<u8>(), 1..600);
    proptest::collection::vec((unit, 1_usize..6), 0..8).prop_map(|units| {
        units
            .iter()
            .flat_map(|(unit, times)| unit.repeat(*times))
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn inflating_undoes_deflating_in_every_window(message in compressible(), bits in 8_u8..=15) {
        if let Some(bytes) = deflated(&message, bits) {
            prop_assert!(bytes.len() < message.len());
            let mut inflater = Inflater::new();
            let inflated = inflater.inflate(&bytes, &limits(1 << 20, u32::MAX));
            prop_assert_eq!(inflated.as_deref(), Ok(&message[..]));
            prop_assert!(Distances::longest(&bytes) <= 1 << bits);
        }
    }

    #[test]
    fn a6_no_bytes_inflate_beyond_the_cap(
        bytes in proptest::collection::vec(any::<u8>(), 0..2000),
        bytes_max in 0_usize..1000,
    ) {
        let mut inflater = Inflater::new();
        if let Ok(inflated) = inflater.inflate(&bytes, &limits(bytes_max, 100)) {
            prop_assert!(inflated.len() <= bytes_max);
        }
        prop_assert!(inflater.buffer.len() <= bytes_max + 1);
    }

    #[test]
    fn b3_any_header_is_answered(value in "[ ,;=\"\\\\a1]{0,40}|permessage-deflate[;, =a-z_0-9\"]{0,60}") {
        if let Ok(Some(parameters)) = DeflateParameters::negotiate([&value[..]].into_iter()) {
            prop_assert!((8..=15).contains(&parameters.window_bits()));
        }
    }
}

/// Text that hardly compresses, in a row, through one compressor: when the output had no more room
/// than the payload, zlib-rs kept bytes back and panicked on one of the next messages.
#[test]
fn a_compressor_survives_messages_that_do_not_shrink() {
    let mut deflater = Deflater::new();
    let mut inflater = Inflater::new();
    let limits = limits(1 << 20, 1000);
    let mut state = 1_u64;
    for round in 0..400_usize {
        let length = [64, 256, 1024, 4096, 8192, 16384, 32768, 65536, 131_072][round % 9];
        let payload: Vec<u8> = (0..length)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                // Between one and eight bits of entropy in a byte.
                state.to_be_bytes()[3] & (0xff >> (round % 8))
            })
            .collect();
        let mut deflated = Vec::new();
        if deflater.deflate(&payload, 15, &mut deflated) {
            assert!(deflated.len() < payload.len());
            assert_eq!(&*inflater.inflate(&deflated, &limits).unwrap(), &payload);
        }
    }
}
