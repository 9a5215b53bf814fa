//! Events to bytes, as a server sends them: never masked (§5.1), never fragmented, with lengths in
//! their shortest form.
//!
//! Every function appends whole frames to `out`, so that the answers of one turn leave in one
//! write.

use super::deflate::{DEFLATE_BYTES_MIN, DeflateParameters, Deflater};
use super::frame::{CONTROL_BYTES_MAX, ControlKind, FIN, LENGTH_IN_EIGHT, LENGTH_IN_TWO, RSV1};
use super::{CloseCode, Message, MessageKind, close};
use crate::buffer::Buffer;

/// A frame's header, for a payload that is written beside it instead of being copied behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    bytes: [u8; UNMASKED_HEAD_BYTES_MAX],
    len: u8,
}

impl FrameHead {
    /// The header as it goes on the wire, 2, 4 or 10 bytes.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// The header of a message in one frame. `compressed` sets RSV1 (RFC 7692 §6), and `payload_len` is
/// then the length of the compressed form.
#[inline]
#[must_use]
pub fn encode_header(kind: MessageKind, compressed: bool, payload_len: usize) -> FrameHead {
    let opcode = opcode(kind);
    head(if compressed { RSV1 | opcode } else { opcode }, payload_len)
}

/// Appends `message` as one frame.
#[inline]
pub fn encode_message(out: &mut Vec<u8>, message: &Message<'_>) {
    append(
        out,
        encode_header(message.kind(), false, message.len()),
        message.as_bytes(),
    );
}

/// Appends `message` as one frame to what a turn has to say.
pub fn append_message(out: &mut Buffer, message: &Message<'_>) {
    if try_append_short(out, message.kind(), message.as_bytes()) {
        return;
    }
    let head = encode_header(message.kind(), false, message.len());
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(message.as_bytes());
}

/// Does the same with a message whose length fits in the header's second byte, where room for the longest
/// of these is at hand; else does nothing, and says so. For most messages this is most of their way out.
#[expect(
    clippy::inline_always,
    reason = "a call would be a tenth of a short message's way out"
)]
#[inline(always)]
pub fn try_append_short(out: &mut Buffer, kind: MessageKind, payload: &[u8]) -> bool {
    let Ok(len @ ..LENGTH_IN_TWO) = u8::try_from(payload.len()) else {
        return false;
    };
    let Some(chunk) = out.chunk::<SHORT_FRAME_ROOM>() else {
        return false;
    };
    let [first, second, room @ ..] = &mut *chunk.bytes;
    *first = FIN | opcode(kind);
    *second = len;
    copy_short(room, payload);
    chunk.advance(2 + payload.len());
    true
}

/// Copies a payload shorter than the room, in the pieces in which it has just been unmasked: a wider read
/// would have to wait until these have reached the cache.
#[expect(clippy::inline_always, reason = "as `try_append_short`")]
#[inline(always)]
fn copy_short(to: &mut [u8; SHORT_PAYLOAD_ROOM], from: &[u8]) {
    let mut to = &mut to[..];
    let mut from = from;
    copy_piece::<64>(&mut to, &mut from);
    copy_piece::<32>(&mut to, &mut from);
    copy_piece::<16>(&mut to, &mut from);
    if from.is_empty() {
        return;
    }
    copy_piece::<8>(&mut to, &mut from);
    copy_piece::<4>(&mut to, &mut from);
    copy_piece::<2>(&mut to, &mut from);
    copy_piece::<1>(&mut to, &mut from);
}

#[expect(clippy::inline_always, reason = "as `try_append_short`")]
#[inline(always)]
fn copy_piece<const N: usize>(to: &mut &mut [u8], from: &mut &[u8]) {
    if let Some((piece, rest)) = from.split_first_chunk::<N>()
        && let Some((place, behind)) = std::mem::take(to).split_first_chunk_mut::<N>()
    {
        *place = *piece;
        (*to, *from) = (behind, rest);
    }
}

/// More than the longest payload whose length fits in the header's second byte.
const SHORT_PAYLOAD_ROOM: usize = 128;
pub(crate) const SHORT_FRAME_ROOM: usize = 2 + SHORT_PAYLOAD_ROOM;

const fn opcode(kind: MessageKind) -> u8 {
    match kind {
        MessageKind::Text => 1,
        MessageKind::Binary => 2,
    }
}

/// Appends `message` as one compressed frame, or as a plain one if it is shorter than
/// [`DEFLATE_BYTES_MIN`] or would not shrink.
///
/// Compresses every time it is called: a broadcast calls [`Deflater::deflate`] once instead.
pub fn encode_compressed(
    out: &mut Vec<u8>,
    message: &Message<'_>,
    deflater: &mut Deflater,
    parameters: DeflateParameters,
) {
    let payload = message.as_bytes();
    if payload.len() < DEFLATE_BYTES_MIN {
        return encode_message(out, message);
    }
    // The payload's length in the header is known last. Its room is that of the longest it can be.
    let start = out.len();
    let room = encode_header(message.kind(), true, payload.len());
    out.extend_from_slice(room.as_bytes());
    let payload_start = out.len();
    if !deflater.deflate(payload, parameters.window_bits(), out) {
        out.truncate(start);
        return encode_message(out, message);
    }
    let head = encode_header(message.kind(), true, out.len() - payload_start);
    let head_start = payload_start - head.as_bytes().len();
    out[head_start..payload_start].copy_from_slice(head.as_bytes());
    out.drain(start..head_start);
}

/// Appends a ping (§5.5.2). Only the first 125 bytes of `payload` are sent.
pub fn encode_ping(out: &mut Vec<u8>, payload: &[u8]) {
    encode_control(out, ControlKind::Ping, payload);
}

/// Appends a pong (§5.5.3), which repeats the payload of the ping it answers. Only the first 125
/// bytes are sent.
pub fn encode_pong(out: &mut Vec<u8>, payload: &[u8]) {
    encode_control(out, ControlKind::Pong, payload);
}

/// Appends a close frame (§5.5.1). The reason is cut to 123 bytes, between characters.
///
/// A code that must not be on the wire (§7.4.1: 1005, 1006, 1015, and those never assigned) is left
/// out with its reason: the frame is sent without a payload.
pub fn encode_close(out: &mut Vec<u8>, close: Option<(CloseCode, &str)>) {
    match close {
        Some((code, reason)) if code.is_allowed() => {
            let reason = close::fitting(reason).as_bytes();
            let mut payload = [0; CONTROL_BYTES_MAX];
            let end = 2 + reason.len();
            payload[..2].copy_from_slice(&u16::from(code).to_be_bytes());
            payload[2..end].copy_from_slice(reason);
            encode_control(out, ControlKind::Close, &payload[..end]);
        }
        Some(_) | None => encode_control(out, ControlKind::Close, &[]),
    }
}

fn encode_control(out: &mut Vec<u8>, kind: ControlKind, payload: &[u8]) {
    let opcode = match kind {
        ControlKind::Close => 8,
        ControlKind::Ping => 9,
        ControlKind::Pong => 10,
    };
    let payload = &payload[..payload.len().min(CONTROL_BYTES_MAX)];
    append(out, head(opcode, payload.len()), payload);
}

#[inline]
fn append(out: &mut Vec<u8>, head: FrameHead, payload: &[u8]) {
    // One growth at most, also where both parts need it. The longest header is copied whatever its length:
    // a copy of constant length is no call.
    out.reserve(UNMASKED_HEAD_BYTES_MAX + payload.len());
    let end = out.len() + usize::from(head.len);
    out.extend_from_slice(&head.bytes);
    out.truncate(end);
    out.extend_from_slice(payload);
}

#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "each arm's range says that the length fits"
)]
fn head(first: u8, payload_len: usize) -> FrameHead {
    let mut bytes = [0; UNMASKED_HEAD_BYTES_MAX];
    bytes[0] = FIN | first;
    let len = match payload_len {
        0..=125 => {
            bytes[1] = payload_len as u8;
            2
        }
        126..=0xffff => {
            bytes[1] = LENGTH_IN_TWO;
            bytes[2..4].copy_from_slice(&(payload_len as u16).to_be_bytes());
            4
        }
        _ => {
            bytes[1] = LENGTH_IN_EIGHT;
            bytes[2..10].copy_from_slice(&(payload_len as u64).to_be_bytes());
            10
        }
    };
    FrameHead { bytes, len }
}

/// Longest header of a frame without a mask: two bytes and eight of length (§5.2).
const UNMASKED_HEAD_BYTES_MAX: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ws::{Data, FrameHeader, OpCode};

    #[test]
    fn a_turn_s_output_gets_the_same_frames() {
        let mut output = Buffer::default();
        let mut expected = Vec::new();
        let lengths = (0..300).chain([4095, 65_535, 65_536, 70_000]);
        for (length, kind) in lengths.flat_map(|length| [(length, true), (length, false)]) {
            let text: String = ('!'..='~').cycle().take(length).collect();
            let message = if kind {
                Message::from(text)
            } else {
                Message::from(text.into_bytes())
            };
            append_message(&mut output, &message);
            encode_message(&mut expected, &message);
            assert!(*output == expected, "{length} bytes");
        }
    }

    #[test]
    fn headers_are_those_of_tungstenite() {
        for payload_len in [
            0,
            1,
            125,
            126,
            127,
            255,
            256,
            65_535,
            65_536,
            65_537,
            1 << 32,
        ] {
            for (kind, data) in [
                (MessageKind::Text, Data::Text),
                (MessageKind::Binary, Data::Binary),
            ] {
                for compressed in [false, true] {
                    let header = FrameHeader {
                        rsv1: compressed,
                        opcode: OpCode::Data(data),
                        ..FrameHeader::default()
                    };
                    let mut expected = Vec::new();
                    header
                        .format(payload_len as u64, &mut expected)
                        .expect("a Vec takes all");
                    assert_eq!(
                        encode_header(kind, compressed, payload_len).as_bytes(),
                        expected
                    );
                }
            }
        }
    }

    #[test]
    fn examples_of_section_5_7() {
        let mut out = Vec::new();
        encode_message(&mut out, &Message::from("Hello"));
        assert_eq!(out, b"\x81\x05Hello");

        out.clear();
        encode_ping(&mut out, b"Hello");
        encode_pong(&mut out, b"Hello");
        assert_eq!(out, b"\x89\x05Hello\x8a\x05Hello");

        for (len, head) in [
            (256, &[0x82, 0x7e, 0x01, 0x00][..]),
            (65_536, &[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let payload = vec![0xab; len];
            out.clear();
            encode_message(&mut out, &Message::from(&payload[..]));
            assert_eq!(out, [head, &payload].concat());
        }
    }

    #[test]
    fn frames_are_appended() {
        let mut out = vec![0xee];
        encode_message(&mut out, &Message::from(""));
        encode_close(&mut out, None);
        assert_eq!(out, b"\xee\x81\x00\x88\x00");
    }

    #[test]
    fn control_payloads_end_at_125_bytes() {
        for (len, sent) in [(0, 0), (124, 124), (125, 125), (126, 125), (1000, 125)] {
            let mut out = Vec::new();
            encode_ping(&mut out, &vec![7; len]);
            assert_eq!(usize::from(out[1]), sent);
            assert_eq!(out.len(), 2 + sent);
        }
    }

    #[test]
    fn a9_close_frames_carry_only_what_may_be_sent() {
        let long = "é".repeat(100);
        type Row<'r> = (Option<(CloseCode, &'r str)>, Vec<u8>);
        let rows: [Row<'_>; 6] = [
            (None, b"\x88\x00".to_vec()),
            (Some((CloseCode::Normal, "")), b"\x88\x02\x03\xe8".to_vec()),
            (
                Some((CloseCode::Away, "bye")),
                b"\x88\x05\x03\xe9bye".to_vec(),
            ),
            (Some((CloseCode::Status, "no")), b"\x88\x00".to_vec()),
            (Some((CloseCode::Abnormal, "no")), b"\x88\x00".to_vec()),
            (
                Some((CloseCode::Library(4401), &long)),
                [b"\x88\x7c\x11\x31", "é".repeat(61).as_bytes()].concat(),
            ),
        ];
        for (close, expected) in rows {
            let mut out = Vec::new();
            encode_close(&mut out, close);
            assert_eq!(out, expected, "{close:?}");
        }
    }

    #[test]
    fn a_compressed_frame_is_shorter_or_not_compressed() {
        let mut deflater = Deflater::new();
        let parameters = DeflateParameters::default();
        let mut state = 1_u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(4000)
        .collect();
        let short = "a".repeat(DEFLATE_BYTES_MIN - 1);
        let text = "to be or not to be, ".repeat(500);
        for (payload, is_compressed) in [
            (&noise[..], false),
            (short.as_bytes(), false),
            (text.as_bytes(), true),
        ] {
            let mut out = vec![1, 2, 3];
            encode_compressed(&mut out, &Message::from(payload), &mut deflater, parameters);
            assert_eq!(out[..3], [1, 2, 3]);
            assert_eq!(out[3] & RSV1 != 0, is_compressed);
            assert_eq!(out.len() < payload.len(), is_compressed);
        }
    }
}
