//! Bytes in pieces that an allocator packs well.
//!
//! What many sockets refuse at once is most of a server's memory while it lasts, and should leave
//! nothing behind. An allocator keeps books of every range it hands out by itself, and does not give
//! back their pages; it keeps one entry for a slab of many small blocks. So what is copied is copied
//! in blocks of the sizes that lie in slabs (`benches/README.md` has the figures).

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

/// The largest piece that is copied, in bytes: jemalloc's largest size that shares a slab.
pub const PIECE_BYTES_MAX: usize = 14 * 1024;

/// A queue of bytes: added behind, taken from the front.
#[derive(Debug, Default)]
pub struct Pieces {
    queue: VecDeque<Bytes>,
    bytes: usize,
}

impl Pieces {
    /// No bytes. Allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Bytes in all pieces.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Adds bytes that others hold as well, uncopied.
    pub fn share(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.bytes += bytes.len();
            self.queue.push_back(bytes);
        }
    }

    /// Adds a copy of the bytes, in pieces of [`PIECE_BYTES_MAX`] and a rest.
    pub fn copy(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(PIECE_BYTES_MAX) {
            self.share(Bytes::copy_from_slice(piece));
        }
    }

    /// Forgets the first `count` bytes: all of them, if there are fewer.
    pub fn advance(&mut self, count: usize) {
        let mut left = count;
        while let Some(front) = self.queue.front_mut().filter(|_| left > 0) {
            let from_front = left.min(front.len());
            front.advance(from_front);
            left -= from_front;
            self.bytes -= from_front;
            if front.is_empty() {
                self.queue.pop_front();
            }
        }
    }

    /// The pieces in their order, none of them empty.
    pub fn iter(&self) -> impl Iterator<Item = &Bytes> {
        self.queue.iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_copy_has_pieces_up_to_the_largest_at_minus_one_zero_and_plus_one() {
        for (length, lengths) in [
            (PIECE_BYTES_MAX - 1, vec![PIECE_BYTES_MAX - 1]),
            (PIECE_BYTES_MAX, vec![PIECE_BYTES_MAX]),
            (PIECE_BYTES_MAX + 1, vec![PIECE_BYTES_MAX, 1]),
        ] {
            let mut pieces = Pieces::new();
            pieces.copy(&vec![7; length]);
            assert_eq!(pieces.iter().map(Bytes::len).collect::<Vec<_>>(), lengths);
            assert_eq!(pieces.len(), length);
        }
    }

    #[test]
    fn what_is_shared_is_not_copied() {
        let bytes = Bytes::from(vec![1; 3 * PIECE_BYTES_MAX]);
        let mut pieces = Pieces::new();
        pieces.share(bytes.clone());
        assert_eq!(
            pieces
                .iter()
                .map(|piece| piece.as_ptr())
                .collect::<Vec<_>>(),
            [bytes.as_ptr()]
        );
    }

    proptest! {
        /// What is taken from the front is what was added behind, in order and once.
        #[test]
        fn bytes_come_out_as_they_went_in(
            steps in prop::collection::vec(
                (0..3u8, prop_oneof![0..40usize, PIECE_BYTES_MAX - 1..2 * PIECE_BYTES_MAX + 2]),
                0..40,
            ),
        ) {
            let mut pieces = Pieces::new();
            let (mut put, mut taken) = (0, 0);
            let numbered = |from: usize, to: usize| -> Vec<u8> {
                (from..to).map(|at| (at / 3).to_le_bytes()[0]).collect()
            };
            for (what, count) in steps {
                if what == 0 {
                    let count = count.min(pieces.len());
                    pieces.advance(count);
                    taken += count;
                } else {
                    let bytes = numbered(put, put + count);
                    if what == 1 { pieces.copy(&bytes) } else { pieces.share(bytes.into()) }
                    put += count;
                }
                let left: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
                prop_assert_eq!(pieces.len(), left.len());
                prop_assert_eq!(pieces.is_empty(), left.is_empty());
                prop_assert!(pieces.iter().all(|piece| !piece.is_empty()));
                prop_assert_eq!(left, numbered(taken, put));
            }
        }
    }
}
