//! Where what a reactor has to say is put together: memory that is filled once and used again and again.

use std::ops::Deref;

/// A queue of bytes, as a `Vec<u8>` is, that remembers how far its memory has been filled. What makes
/// bytes in place (rustls) or copies them in small pieces (frames) wants a slice to write to, and the
/// slice behind a `Vec`'s end would have to be filled with zeros first, every time.
#[derive(Debug, Default)]
pub struct Buffer {
    /// The bytes, and behind them what is only filled.
    memory: Vec<u8>,
    len: usize,
}

/// How much more is filled at once, in bytes.
const FILL_BYTES: usize = 4096;

impl Buffer {
    /// An empty queue for so many bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            memory: vec![0; bytes],
            len: 0,
        }
    }

    /// Bytes in the queue.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Room behind the end, with anything in it. [`advance`](Self::advance) says how much of it was used.
    #[inline]
    pub fn room(&mut self, bytes: usize) -> &mut [u8] {
        let end = self.len + bytes;
        if end > self.memory.len() {
            self.fill(end);
        }
        &mut self.memory[self.len..end]
    }

    #[cold]
    fn fill(&mut self, end: usize) {
        self.memory.resize(end.max(self.len + FILL_BYTES), 0);
    }

    /// Appends the first bytes of the [`room`](Self::room). All of them must have been written: what was
    /// there before was for another connection.
    ///
    /// # Panics
    /// If they are more than that was.
    #[inline]
    pub fn advance(&mut self, bytes: usize) {
        let end = self.len + bytes;
        assert!(end <= self.memory.len(), "beyond the room");
        self.len = end;
    }

    /// Room of constant size behind the end, if so much has been filled already.
    #[inline]
    pub fn chunk<const N: usize>(&mut self) -> Option<Chunk<'_, N>> {
        let bytes = self.memory.get_mut(self.len..)?.first_chunk_mut()?;
        Some(Chunk {
            bytes,
            len: &mut self.len,
        })
    }

    /// Appends bytes.
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Lends the queue to what writes to a `Vec`.
    pub fn with_vec<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        self.memory.truncate(self.len);
        let result = write(&mut self.memory);
        self.len = self.memory.len();
        result
    }

    /// Forgets all but the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Forgets the bytes; the memory stays.
    #[inline]
    pub const fn clear(&mut self) {
        self.len = 0;
    }

    /// Bytes of memory.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.memory.capacity()
    }

    /// Gives memory back beyond `bytes`, but for what the queue needs.
    pub fn shrink_to(&mut self, bytes: usize) {
        self.memory.truncate(bytes.max(self.len));
        self.memory.shrink_to(bytes);
    }
}

/// Room behind the end of a [`Buffer`], with anything in it.
#[derive(Debug)]
pub struct Chunk<'b, const N: usize> {
    /// The room.
    pub bytes: &'b mut [u8; N],
    len: &'b mut usize,
}

impl<const N: usize> Chunk<'_, N> {
    /// Appends the first bytes of the room, all of them at most, which must have been written.
    #[inline]
    pub fn advance(self, bytes: usize) {
        *self.len += bytes.min(N);
    }
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_appended_is_there_and_nothing_else() {
        let mut buffer = Buffer::default();
        for (bytes, unused) in [(&b"abc"[..], 5), (b"", 0), (b"defgh", FILL_BYTES)] {
            let room = buffer.room(bytes.len() + unused);
            room.fill(b'-');
            room[..bytes.len()].copy_from_slice(bytes);
            buffer.advance(bytes.len());
        }
        buffer.extend_from_slice(b"ij");
        buffer.with_vec(|out| out.extend(b"kl"));
        assert_eq!(*buffer, *b"abcdefghijkl");
        buffer.truncate(11);
        buffer.truncate(20);
        assert_eq!(*buffer, *b"abcdefghijk");
        buffer.clear();
        assert!(buffer.is_empty());
        buffer.extend_from_slice(&[1; FILL_BYTES + 1]);
        assert_eq!(*buffer, [1; FILL_BYTES + 1]);
    }

    #[test]
    fn a_chunk_is_lent_where_it_has_been_filled() {
        let mut buffer = Buffer::default();
        assert!(buffer.chunk::<1>().is_none());
        buffer.extend_from_slice(b"ab");
        for (used, length) in [(0, 2), (3, 5), (5, 9)] {
            let chunk = buffer.chunk::<4>().expect("room");
            *chunk.bytes = *b"cdef";
            chunk.advance(used);
            assert_eq!(buffer.len(), length, "never more than the room");
        }
        assert_eq!(*buffer, *b"abcdecdef");
        buffer.extend_from_slice(&[1; FILL_BYTES - 13]);
        assert!(buffer.chunk::<5>().is_none() && buffer.chunk::<4>().is_some());
        assert_eq!(buffer.len() + 4, FILL_BYTES);
    }

    #[test]
    fn memory_is_given_back_but_for_what_is_needed() {
        let mut buffer = Buffer::with_capacity(100_000);
        buffer.extend_from_slice(&[7; 5000]);
        buffer.shrink_to(100);
        assert_eq!(*buffer, [7; 5000]);
        assert!(buffer.capacity() < 100_000);
        buffer.clear();
        buffer.shrink_to(100);
        assert!(buffer.capacity() < 5000);
    }

    #[test]
    #[should_panic(expected = "beyond the room")]
    fn more_than_the_room_cannot_have_been_used() {
        let mut buffer = Buffer::default();
        let room = buffer.room(10).len();
        buffer.advance(room + FILL_BYTES);
    }
}
