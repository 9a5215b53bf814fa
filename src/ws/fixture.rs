//! What a client would send, for the tests of this module.

use super::mask;

/// One masked frame: `first` is FIN, the reserved bits and the opcode.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let key = [0x37, 0xfa, 0x21, 0x3d];
    let mut out = head(first, payload.len() as u64);
    let start = out.len();
    out.extend_from_slice(payload);
    mask::unmask(&mut out[start..], key);
    out
}

/// The header of such a frame, announcing any length in its shortest form.
pub(crate) fn head(first: u8, payload_len: u64) -> Vec<u8> {
    let mut out = vec![first];
    if let Ok(len @ 0..=125) = u8::try_from(payload_len) {
        out.push(0x80 | len);
    } else if let Ok(len) = u16::try_from(payload_len) {
        out.push(0x80 | 126);
        out.extend_from_slice(&len.to_be_bytes());
    } else {
        out.push(0x80 | 127);
        out.extend_from_slice(&payload_len.to_be_bytes());
    }
    out.extend_from_slice(&[0x37, 0xfa, 0x21, 0x3d]);
    out
}
