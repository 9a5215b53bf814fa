//! Where ciphertext is made: memory that is filled once and used again and again.

use std::ops::Deref;

/// Ciphertext on its way out, a queue of bytes as a `Vec<u8>` is. rustls writes into a slice, and the
/// slice behind a `Vec`'s end has to be filled first, every time: of an echo of 64 KiB that was two
/// hundredths. This one remembers what is filled.
#[derive(Debug, Default)]
pub struct Ciphertext {
    /// The bytes, and behind them what is only filled.
    memory: Vec<u8>,
    len: usize,
}

impl Ciphertext {
    /// An empty queue for so many bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            memory: vec![0; bytes],
            len: 0,
        }
    }

    /// Appends at most `room` bytes: as many as `write`, which gets a slice of that length with anything
    /// in it, says that it wrote.
    pub(super) fn append<E>(
        &mut self,
        room: usize,
        write: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), E> {
        let end = self.len + room;
        if self.memory.len() < end {
            self.memory.resize(end, 0);
        }
        self.len += write(&mut self.memory[self.len..end])?.min(room);
        Ok(())
    }

    pub(super) fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.memory.truncate(self.len);
        self.memory.extend_from_slice(bytes);
        self.len = self.memory.len();
    }

    /// Forgets the bytes; the memory stays.
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

impl Deref for Ciphertext {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_appended_is_there_and_nothing_else() {
        let mut out = Ciphertext::default();
        let write = |bytes: &'static [u8]| {
            move |room: &mut [u8]| {
                room.fill(b'-');
                room[..bytes.len()].copy_from_slice(bytes);
                Ok::<_, ()>(bytes.len())
            }
        };
        out.append(8, write(b"abc")).unwrap();
        out.append(5, write(b"defgh")).unwrap();
        out.extend_from_slice(b"ij");
        assert_eq!(out.append(8, |_| Err(())), Err(()));
        assert_eq!(*out, *b"abcdefghij");
        out.clear();
        assert!(out.is_empty());
        out.append(2, write(b"k")).unwrap();
        assert_eq!(*out, *b"k");
        let memory = out.capacity();
        out.shrink_to(0);
        assert!(out.capacity() < memory);
        assert_eq!(*out, *b"k");
    }
}
