//! Unmasking (§5.3): XOR with a key of four bytes, in place, from any offset of the payload.
//!
//! The key protects caches between client and server from chosen bytes; to a server it is only
//! work. Whole blocks of eight bytes are plain 64-bit XORs, which the compiler turns into vector
//! instructions.

/// Unmasks `payload` in place, its first byte being the payload's first. Masking is the same
/// operation.
#[inline]
pub fn unmask(payload: &mut [u8], key: [u8; 4]) {
    let [a, b, c, d] = key;
    let wide = [a, b, c, d, a, b, c, d];
    let block_key = u64::from_ne_bytes(wide);
    let (blocks, rest) = payload.as_chunks_mut::<8>();
    for block in blocks {
        *block = (u64::from_ne_bytes(*block) ^ block_key).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(wide) {
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
        for len in 0..=70_u8 {
            let plain: Vec<u8> = (0..len).collect();
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
            payload in proptest::collection::vec(any::<u8>(), 0..200),
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
