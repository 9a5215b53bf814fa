//! The frame header (§5.2): what it says, and whether it may say so here.
//!
//! `parse` reads any header through tungstenite's [`FrameHeader`] and adds the checks that one
//! leaves out or does late; each is made as soon as the bytes it needs are there, long before the
//! payload is. `Short` is the way of nearly every frame a server ever sees, decided in a handful
//! of comparisons.

use std::io::Cursor;

use super::decoder::Violation;
use super::{Control, Data, FrameHeader, Limits, MessageKind, OpCode};

/// Longest frame header in bytes: two, eight of length and four of mask (§5.2).
pub const HEAD_BYTES_MAX: usize = 14;

/// Longest payload of a control frame in bytes (§5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// A header that may be where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) opcode: Opcode,
    pub(crate) is_final: bool,
    /// RSV1: this frame begins a compressed message (RFC 7692 §6).
    pub(crate) is_compressed: bool,
    pub(crate) key: [u8; 4],
    /// Length of the header itself, 6 to [`HEAD_BYTES_MAX`].
    pub(crate) len: usize,
    /// What it announces. Not yet compared with any limit.
    pub(crate) payload_len: usize,
}

/// The opcodes that are not reserved (§5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opcode {
    Continue,
    Start(MessageKind),
    Control(ControlKind),
}

/// The control frames (§5.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ControlKind {
    Close,
    Ping,
    Pong,
}

/// What the connection's state allows the next header to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    /// permessage-deflate was negotiated.
    pub(crate) compression: bool,
    /// A message has begun and is not finished.
    pub(crate) in_message: bool,
}

/// Reads the header at the front of `input`, or `None` while it is incomplete. What is there is
/// checked already.
pub(crate) fn parse(input: &[u8], expected: Expected) -> Result<Option<Head>, Violation> {
    let Some(&first) = input.first() else {
        return Ok(None);
    };
    let opcode = check_first(first, expected)?;
    let Some(&second) = input.get(1) else {
        return Ok(None);
    };
    check_second(second, opcode)?;

    // All it refuses is a reserved opcode, and that did not come this far.
    let parsed = FrameHeader::parse(&mut Cursor::new(input));
    let Some((header, payload_len)) = parsed.map_err(|_| Violation::ReservedOpcode)? else {
        return Ok(None);
    };
    let key = header.mask.ok_or(Violation::Unmasked)?;
    if payload_len > i64::MAX.unsigned_abs() {
        return Err(Violation::LengthTopBit);
    }
    let length_bytes_needed = header.len(payload_len) - header.len(0);
    if length_bytes(second) != length_bytes_needed {
        return Err(Violation::LengthNotMinimal);
    }
    Ok(Some(Head {
        opcode,
        is_final: header.is_final,
        is_compressed: header.rsv1,
        key,
        len: header.len(payload_len),
        payload_len: usize::try_from(payload_len).map_err(|_| Violation::MessageTooBig)?,
    }))
}

/// FIN, reserved bits, opcode, and whether this opcode has its turn (§5.2, §5.4, §5.5).
fn check_first(first: u8, expected: Expected) -> Result<Opcode, Violation> {
    let opcode = match OpCode::from(first & 0x0f) {
        OpCode::Data(Data::Continue) => Opcode::Continue,
        OpCode::Data(Data::Text) => Opcode::Start(MessageKind::Text),
        OpCode::Data(Data::Binary) => Opcode::Start(MessageKind::Binary),
        OpCode::Control(Control::Close) => Opcode::Control(ControlKind::Close),
        OpCode::Control(Control::Ping) => Opcode::Control(ControlKind::Ping),
        OpCode::Control(Control::Pong) => Opcode::Control(ControlKind::Pong),
        OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => {
            return Err(Violation::ReservedOpcode);
        }
    };
    let may_be_compressed = expected.compression && matches!(opcode, Opcode::Start(_));
    if first & (RSV2 | RSV3) != 0 || (first & RSV1 != 0 && !may_be_compressed) {
        return Err(Violation::ReservedBits);
    }
    match opcode {
        Opcode::Control(_) if first & FIN == 0 => Err(Violation::ControlFragmented),
        Opcode::Continue if !expected.in_message => Err(Violation::ContinuationWithoutStart),
        Opcode::Start(_) if expected.in_message => Err(Violation::MessageInterrupted),
        Opcode::Control(_) | Opcode::Continue | Opcode::Start(_) => Ok(opcode),
    }
}

/// The mask bit, which a client must set (§5.1), and the length of a control frame (§5.5).
fn check_second(second: u8, opcode: Opcode) -> Result<(), Violation> {
    if second & MASKED == 0 {
        return Err(Violation::Unmasked);
    }
    if matches!(opcode, Opcode::Control(_)) && usize::from(second & !MASKED) > CONTROL_BYTES_MAX {
        return Err(Violation::ControlTooLong);
    }
    Ok(())
}

/// How many bytes of extended length the second byte announces.
fn length_bytes(second: u8) -> usize {
    match second & !MASKED {
        LENGTH_IN_TWO => 2,
        LENGTH_IN_EIGHT => 8,
        _ => 0,
    }
}

/// A frame that is whole, is a message by itself, is not compressed, and is shorter than 64 KiB; with a
/// header of `HEAD` bytes, 6 or 8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Short<const HEAD: usize> {
    pub(crate) kind: MessageKind,
    pub(crate) key: [u8; 4],
    pub(crate) len: usize,
}

impl Short<6> {
    /// Recognises such a frame at the front of `input`. `None` says nothing about the input but
    /// that [`parse`] has to look at it. Only to be asked where no message is under way.
    #[inline(always)]
    pub(crate) fn recognise(input: &[u8], limits: &Limits) -> Option<Self> {
        let &[first, second, ..] = input else {
            return None;
        };
        match second ^ MASKED {
            len @ ..LENGTH_IN_TWO => Self::judge(input, first, usize::from(len), limits),
            _ => None,
        }
    }
}

impl Short<8> {
    /// The same, where two bytes more say how long the payload is.
    #[inline(always)]
    pub(crate) fn recognise(input: &[u8], limits: &Limits) -> Option<Self> {
        let &[first, MASKED_LENGTH_IN_TWO, high, low, ..] = input else {
            return None;
        };
        let len = usize::from(u16::from_be_bytes([high, low]));
        if len <= CONTROL_BYTES_MAX {
            return None;
        }
        Self::judge(input, first, len, limits)
    }
}

impl<const HEAD: usize> Short<HEAD> {
    #[inline(always)]
    fn judge(input: &[u8], first: u8, len: usize, limits: &Limits) -> Option<Self> {
        let kind = match first {
            FINAL_TEXT => MessageKind::Text,
            FINAL_BINARY => MessageKind::Binary,
            _ => return None,
        };
        if HEAD + len > input.len() || len > limits.message_bytes_max {
            return None;
        }
        let key = *input[HEAD - 4..].first_chunk()?;
        Some(Self { kind, key, len })
    }

    /// How long the frame is.
    #[inline(always)]
    pub(crate) const fn end(&self) -> usize {
        HEAD + self.len
    }
}

pub(crate) const FIN: u8 = 0x80;
pub(crate) const RSV1: u8 = 0x40;
const RSV2: u8 = 0x20;
const RSV3: u8 = 0x10;
const MASKED: u8 = 0x80;
/// Values of the seven bits of length that say where the length really is.
pub(crate) const LENGTH_IN_TWO: u8 = 126;
pub(crate) const LENGTH_IN_EIGHT: u8 = 127;

const FINAL_TEXT: u8 = FIN | 1;
const FINAL_BINARY: u8 = FIN | 2;
const MASKED_LENGTH_IN_TWO: u8 = MASKED | LENGTH_IN_TWO;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STATES: [Expected; 4] = [
        Expected {
            compression: false,
            in_message: false,
        },
        Expected {
            compression: false,
            in_message: true,
        },
        Expected {
            compression: true,
            in_message: false,
        },
        Expected {
            compression: true,
            in_message: true,
        },
    ];

    /// §5.2, §5.4 and §5.5 for a first byte, written as rules over its bits.
    fn first_byte_is_allowed(first: u8, expected: Expected) -> bool {
        let (is_final, rsv, opcode) = (first >= 0x80, (first >> 4) & 7, first & 15);
        let opcode_fits = match opcode {
            0 => expected.in_message,
            1 | 2 => !expected.in_message,
            8..=10 => is_final,
            _ => false,
        };
        let bits_fit = rsv == 0 || (rsv == 4 && expected.compression && matches!(opcode, 1 | 2));
        opcode_fits && bits_fit
    }

    #[test]
    fn a12_every_first_byte_in_every_state() {
        for expected in STATES {
            for first in 0..=u8::MAX {
                let outcome = parse(&[first], expected);
                assert_eq!(
                    outcome == Ok(None),
                    first_byte_is_allowed(first, expected),
                    "{first:#04x} where {expected:?}: {outcome:?}"
                );
            }
        }
    }

    #[test]
    fn a12_a_frame_without_a_mask_is_refused_at_its_second_byte() {
        for second in 0..0x80 {
            assert_eq!(parse(&[0x81, second], STATES[0]), Err(Violation::Unmasked));
        }
    }

    #[test]
    fn a_control_frame_longer_than_125_is_refused_at_its_second_byte() {
        for (second, outcome) in [
            (0x80 | 124, Ok(None)),
            (0x80 | 125, Ok(None)),
            (0x80 | 126, Err(Violation::ControlTooLong)),
            (0x80 | 127, Err(Violation::ControlTooLong)),
        ] {
            for first in [0x88, 0x89, 0x8a] {
                assert_eq!(
                    parse(&[first, second], STATES[0]),
                    outcome,
                    "{first:#x} {second:#x}"
                );
            }
        }
    }

    fn with_two(len: u16) -> Vec<u8> {
        [&[0x82, 0x80 | 126][..], &len.to_be_bytes(), &[1, 2, 3, 4]].concat()
    }

    fn with_eight(len: u64) -> Vec<u8> {
        [&[0x82, 0x80 | 127][..], &len.to_be_bytes(), &[1, 2, 3, 4]].concat()
    }

    #[test]
    fn a2_corners_of_the_length_are_minimal_and_have_no_top_bit() {
        let not_minimal = Err(Violation::LengthNotMinimal);
        let rows = [
            (with_two(0), not_minimal),
            (with_two(125), not_minimal),
            (with_two(126), Ok((126, 8))),
            (with_two(u16::MAX), Ok((65_535, 8))),
            (with_eight(0), not_minimal),
            (with_eight(126), not_minimal),
            (with_eight(65_535), not_minimal),
            (with_eight(65_536), Ok((65_536, 14))),
            (with_eight(u64::from(u32::MAX)), Ok((u32::MAX as usize, 14))),
            (with_eight((1 << 63) - 1), Ok((usize::MAX >> 1, 14))),
            (with_eight(1 << 63), Err(Violation::LengthTopBit)),
            (with_eight(u64::MAX), Err(Violation::LengthTopBit)),
        ];
        for (bytes, expected) in rows {
            let parsed = parse(&bytes, STATES[0]).map(|head| {
                head.map(|head| (head.payload_len, head.len))
                    .expect("a whole head")
            });
            assert_eq!(parsed, expected, "{bytes:x?}");
            for len in 0..bytes.len() {
                assert_eq!(
                    parse(&bytes[..len], STATES[0]),
                    Ok(None),
                    "{len} bytes of {bytes:x?}"
                );
            }
        }
    }

    proptest! {
        /// The short way may only ever say what the long way says.
        #[test]
        fn short_frames_are_those_the_parser_sees(
            mut input in proptest::collection::vec(any::<u8>(), 0..300),
            first in prop_oneof![Just(0x81_u8), Just(0x82), any::<u8>()],
            second in prop_oneof![0x80_u8..=0xff, any::<u8>()],
            extended in prop_oneof![0_u16..300, any::<u16>()],
            message_bytes_max in prop_oneof![0_usize..300, Just(65_536)],
            compression: bool,
        ) {
            let head = [&[first, second][..], &extended.to_be_bytes()].concat();
            for (place, byte) in input.iter_mut().zip(head) {
                *place = byte;
            }
            let limits = Limits { message_bytes_max, ..Limits::default() };
            let parsed = parse(&input, Expected { compression, in_message: false });
            let expected = parsed.ok().flatten().and_then(|head| match head.opcode {
                Opcode::Start(kind)
                    if head.is_final
                        && !head.is_compressed
                        && head.len < HEAD_BYTES_MAX
                        && head.payload_len <= message_bytes_max
                        && head.len + head.payload_len <= input.len() =>
                {
                    Some((head.len, kind, head.key, head.payload_len))
                }
                _ => None,
            });
            let short = Short::<6>::recognise(&input, &limits);
            let longer = Short::<8>::recognise(&input, &limits);
            prop_assert!(short.is_none() || longer.is_none());
            let short = short.map(|short| (6, short.kind, short.key, short.len));
            let longer = longer.map(|longer| (8, longer.kind, longer.key, longer.len));
            prop_assert_eq!(short.or(longer), expected);
        }
    }
}
