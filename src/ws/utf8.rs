//! UTF-8 validity (§8.1): of a whole payload, and of a text that comes in pieces.
//!
//! A piece may end inside a character, so up to three bytes are carried over. The first byte that
//! no continuation could make valid ends the check: a peer cannot make the server hold a message
//! that is already wrong.

use std::str;

/// The text is not UTF-8, and no further byte can make it so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidUtf8;

/// The payload as text.
///
/// # Errors
/// It is not UTF-8, or ends inside a character.
#[inline]
pub fn validate(bytes: &[u8]) -> Result<&str, InvalidUtf8> {
    if bytes.len() < VECTOR_BYTES_MIN {
        str::from_utf8(bytes).map_err(|_| InvalidUtf8)
    } else {
        simdutf8::basic::from_utf8(bytes).map_err(|_| InvalidUtf8)
    }
}

/// A text that comes in pieces, checked as far as it has come.
#[derive(Debug, Default)]
pub struct TextBuffer {
    text: String,
    /// The beginning of a character whose end is still to come; the first `carried` bytes count.
    carry: [u8; 3],
    carried: usize,
}

impl TextBuffer {
    /// Appends the next piece.
    ///
    /// # Errors
    /// At the first byte that cannot belong to valid UTF-8. The buffer is of no further use then.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), InvalidUtf8> {
        let rest = self.complete_character(piece)?;
        let (whole, tail) = rest.split_at(incomplete_from(rest));
        self.text.push_str(validate(whole)?);
        if !tail.is_empty() {
            debug_assert_eq!(
                self.carried, 0,
                "a carried character takes the whole piece or ends"
            );
            could_become_a_character(tail)?;
            self.carry[..tail.len()].copy_from_slice(tail);
            self.carried = tail.len();
        }
        Ok(())
    }

    /// The whole text.
    ///
    /// # Errors
    /// It ends inside a character.
    pub fn finish(self) -> Result<String, InvalidUtf8> {
        if self.carried == 0 {
            Ok(self.text)
        } else {
            Err(InvalidUtf8)
        }
    }

    /// Bytes pushed so far.
    pub fn len(&self) -> usize {
        self.text.len() + self.carried
    }

    /// True if nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Heap bytes held.
    pub fn capacity(&self) -> usize {
        self.text.capacity()
    }

    /// Makes room for `additional` further bytes, and for no more.
    pub fn reserve_exact(&mut self, additional: usize) {
        self.text.reserve_exact(self.carried + additional);
    }

    /// Ends the carried character with the first bytes of `piece`, if it ends there, and gives the
    /// bytes behind it.
    fn complete_character<'p>(&mut self, piece: &'p [u8]) -> Result<&'p [u8], InvalidUtf8> {
        if self.carried == 0 {
            return Ok(piece);
        }
        let mut character = [0; 4];
        character[..self.carried].copy_from_slice(&self.carry[..self.carried]);
        for (index, &byte) in piece.iter().enumerate() {
            // Four bytes always make a character or an error, so the place is there.
            let len = self.carried + index + 1;
            character[len - 1] = byte;
            if let Ok(whole) = str::from_utf8(&character[..len]) {
                self.text.push_str(whole);
                self.carried = 0;
                return Ok(&piece[index + 1..]);
            }
            could_become_a_character(&character[..len])?;
        }
        self.carried += piece.len();
        self.carry.copy_from_slice(&character[..3]);
        Ok(&[])
    }
}

/// Below this length the standard library's check is the faster one: it starts at once, where the
/// vectorised one first chooses its instructions and pads its last block.
const VECTOR_BYTES_MIN: usize = 256;

/// Where a character begins that the bytes end inside of, or their length if there is none.
fn incomplete_from(bytes: &[u8]) -> usize {
    let last = bytes.len().saturating_sub(3);
    let Some(lead) = bytes[last..].iter().rposition(|byte| *byte >= 0xc0) else {
        return bytes.len();
    };
    let at = last + lead;
    let character_len = match bytes[at] {
        ..0xe0 => 2,
        0xe0..0xf0 => 3,
        0xf0.. => 4,
    };
    if bytes.len() - at < character_len {
        at
    } else {
        bytes.len()
    }
}

/// Whether bytes that are not yet a character may still become one.
fn could_become_a_character(bytes: &[u8]) -> Result<(), InvalidUtf8> {
    match str::from_utf8(bytes) {
        Err(error) if error.error_len().is_some() => Err(InvalidUtf8),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Where the standard library says that no continuation can help: the length of the longest
    /// prefix that is fine.
    fn first_bad_byte(bytes: &[u8]) -> Option<usize> {
        (1..=bytes.len()).find(|&len| {
            str::from_utf8(&bytes[..len]).is_err_and(|error| error.error_len().is_some())
        })
    }

    fn push_bytewise(bytes: &[u8]) -> Result<String, usize> {
        let mut buffer = TextBuffer::default();
        for (index, byte) in bytes.iter().enumerate() {
            buffer.push(&[*byte]).map_err(|InvalidUtf8| index + 1)?;
            assert_eq!(buffer.len(), index + 1);
        }
        buffer.finish().map_err(|InvalidUtf8| bytes.len())
    }

    #[test]
    fn a13_the_first_bad_byte_ends_the_check() {
        let rows: [(&[u8], usize); 9] = [
            (b"\xff", 1),
            (b"abc\x80", 4),
            (b"\xc0\x80", 1),             // overlong
            (b"\xe0\x80\x80", 2),         // overlong
            (b"\xed\xa0\x80", 2),         // surrogate
            (b"\xf0\x80\x80\x80", 2),     // overlong
            (b"\xf4\x90\x80\x80", 2),     // beyond U+10FFFF
            (b"\xf5\x80\x80\x80", 1),     // beyond U+10FFFF
            (b"\xce\xba\xe1\xbd\x28", 5), // not a continuation
        ];
        for (bytes, at) in rows {
            assert_eq!(push_bytewise(bytes), Err(at), "{bytes:x?}");
            assert_eq!(first_bad_byte(bytes), Some(at), "{bytes:x?}");
        }
    }

    #[test]
    fn a13_a_text_may_not_end_inside_a_character() {
        for bytes in [&b"\xc3"[..], b"\xe2\x82", b"a\xf0\x9f\x98"] {
            let mut buffer = TextBuffer::default();
            assert_eq!(buffer.push(bytes), Ok(()));
            assert_eq!(buffer.finish(), Err(InvalidUtf8));
        }
    }

    #[test]
    fn both_ways_to_validate_agree_on_either_side_of_the_threshold() {
        for len in [
            0,
            1,
            VECTOR_BYTES_MIN - 1,
            VECTOR_BYTES_MIN,
            VECTOR_BYTES_MIN + 1,
            5000,
        ] {
            let mut bytes = vec![b'x'; len];
            assert!(validate(&bytes).is_ok());
            if let Some(last) = bytes.last_mut() {
                *last = 0xc3;
                assert_eq!(validate(&bytes), Err(InvalidUtf8));
            }
        }
    }

    fn nearly_text() -> impl Strategy<Value = Vec<u8>> {
        let valid = proptest::collection::vec(any::<char>(), 0..60)
            .prop_map(|characters| characters.into_iter().collect::<String>().into_bytes());
        (
            valid,
            proptest::collection::vec((any::<usize>(), any::<u8>()), 0..2),
        )
            .prop_map(|(mut bytes, changes)| {
                for (place, byte) in changes {
                    if !bytes.is_empty() {
                        let place = place % bytes.len();
                        bytes[place] = byte;
                    }
                }
                bytes
            })
    }

    proptest! {
        #[test]
        fn a13_every_split_agrees_with_the_standard_library(bytes in nearly_text()) {
            let whole = str::from_utf8(&bytes);
            prop_assert_eq!(validate(&bytes).ok(), whole.ok());
            for split in 0..=bytes.len() {
                let mut buffer = TextBuffer::default();
                let head = buffer.push(&bytes[..split]);
                let is_bad = first_bad_byte(&bytes).is_some_and(|bad| bad <= split);
                prop_assert_eq!(head.is_err(), is_bad);
                if head.is_ok() {
                    let tail = buffer.push(&bytes[split..]);
                    prop_assert_eq!(tail.is_err(), first_bad_byte(&bytes).is_some());
                    if tail.is_ok() {
                        prop_assert_eq!(buffer.finish().ok(), whole.ok().map(str::to_owned));
                    }
                }
            }
            let expected = match (first_bad_byte(&bytes), whole) {
                (Some(at), _) => Err(at),
                (None, Ok(text)) => Ok(text.to_owned()),
                (None, Err(_)) => Err(bytes.len()),
            };
            prop_assert_eq!(push_bytewise(&bytes), expected);
        }
    }
}
