//! Unmasking (§5.3): XOR with a key of four bytes, in place, from any offset of the payload.
//!
//! The key protects caches between client and server from chosen bytes; to a server it is only
//! work. Whole blocks are XORed with as many repetitions of the key; they are as long as they are so
//! that the compiler makes a few vector instructions of one, wherever it inlines this. For long payloads
//! it does so once more with the widest vectors that the processor at hand has.

use std::sync::LazyLock;

use fearless_simd::{Level, dispatch};

/// Unmasks `payload` in place, its first byte being the payload's first. Masking is the same
/// operation.
#[inline]
pub fn unmask(payload: &mut [u8], key: [u8; 4]) {
    if payload.len() < WIDE_BYTES_MIN {
        unmask_short(payload, key);
    } else {
        unmask_wide(payload, key);
    }
}

const WIDE_BLOCK_BYTES: usize = 128;
/// From here on wider vectors gain more than choosing them costs.
const WIDE_BYTES_MIN: usize = 256;

#[expect(clippy::inline_always, reason = "as `xor_blocks`")]
#[inline(always)]
fn unmask_short(payload: &mut [u8], key: [u8; 4]) {
    let (blocks, rest) = payload.as_chunks_mut::<64>();
    for block in blocks {
        xor(block, key);
    }
    let rest = xor_first::<32>(rest, key);
    let rest = xor_first::<16>(rest, key);
    xor(rest, key);
}

#[expect(clippy::inline_always, reason = "as `xor_blocks`")]
#[inline(always)]
fn xor_first<const N: usize>(rest: &mut [u8], key: [u8; 4]) -> &mut [u8] {
    if rest.len() < N {
        return rest;
    }
    let (blocks, rest) = rest.split_at_mut(N);
    if let Some(block) = blocks.first_chunk_mut::<N>() {
        xor(block, key);
    }
    rest
}

#[inline(never)]
fn unmask_wide(payload: &mut [u8], key: [u8; 4]) {
    static LEVEL: LazyLock<Level> = LazyLock::new(Level::new);
    dispatch!(*LEVEL, _simd => xor_blocks(payload, key));
}

#[expect(
    clippy::inline_always,
    reason = "what is not inlined is compiled for the oldest processor"
)]
#[inline(always)]
fn xor_blocks(payload: &mut [u8], key: [u8; 4]) {
    let block_key: [u8; WIDE_BLOCK_BYTES] = std::array::from_fn(|at| key[at % 4]);
    let (blocks, rest) = payload.as_chunks_mut::<WIDE_BLOCK_BYTES>();
    for block in blocks {
        for (byte, key) in block.iter_mut().zip(block_key) {
            *byte ^= key;
        }
    }
    xor(rest, key);
}

/// XORs words of eight bytes, and what is left behind them.
#[expect(clippy::inline_always, reason = "as `xor_blocks`")]
#[inline(always)]
fn xor(rest: &mut [u8], key: [u8; 4]) {
    let key = u64::from(u32::from_ne_bytes(key)) * 0x1_0000_0001;
    let (words, bytes) = rest.as_chunks_mut();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ key).to_ne_bytes();
    }
    for (byte, key) in bytes.iter_mut().zip(key.to_ne_bytes()) {
        *byte ^= key;
    }
}

/// The key for the bytes that follow the first `offset` bytes of a payload.
#[inline]
#[must_use]
pub fn rotated(key: [u8; 4], offset: usize) -> [u8; 4] {
    let mut key = key;
    key.rotate_left(offset % 4);
    key
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// §5.3 word for word: octet i of the payload is XORed with octet i modulo 4 of the key.
    fn as_written(payload: &[u8], key: [u8; 4]) -> Vec<u8> {
        payload
            .iter()
            .enumerate()
            .map(|(i, byte)| byte ^ key[i % 4])
            .collect()
    }

    #[test]
    fn every_short_length_is_masked_as_the_rfc_writes_it() {
        for len in (0..=130_usize).chain(250..=400) {
            let plain: Vec<u8> = (0..len).map(|at| at.to_le_bytes()[0]).collect();
            let mut masked = plain.clone();
            unmask(&mut masked, [0x37, 0xfa, 0x21, 0x3d]);
            assert_eq!(
                masked,
                as_written(&plain, [0x37, 0xfa, 0x21, 0x3d]),
                "length {len}"
            );
        }
    }

    proptest! {
        #[test]
        fn masking_twice_is_identity_at_every_offset(
            payload in proptest::collection::vec(any::<u8>(), 0..600),
            key: [u8; 4],
        ) {
            let expected = as_written(&payload, key);
            for split in 0..=payload.len() {
                let mut bytes = payload.clone();
                let (head, tail) = bytes.split_at_mut(split);
                unmask(head, key);
                unmask(tail, rotated(key, split));
                prop_assert_eq!(&bytes, &expected);
                unmask(&mut bytes[split..], rotated(key, split));
                unmask(&mut bytes[..split], key);
                prop_assert_eq!(&bytes, &payload);
            }
        }
    }
}
