//! What one connection gets back: the first message is compared byte for byte, the others by length.
//! Comparing every byte would cost the generator more than it costs the server to send them.

use crate::frame::{Part, Reader};

#[derive(Debug)]
pub(crate) struct Replies {
    reader: Reader,
    /// Bytes of the current message so far.
    at: usize,
    first_was_right: bool,
}

impl Replies {
    pub(crate) fn new(reader: Reader) -> Self {
        Self {
            reader,
            at: 0,
            first_was_right: false,
        }
    }

    /// The number of messages that `bytes` complete. Payloads of pings go to `pings`.
    ///
    /// # Errors
    /// What was wrong with the bytes.
    pub(crate) fn receive(
        &mut self,
        bytes: &[u8],
        expected: &[u8],
        pings: &mut Vec<Vec<u8>>,
    ) -> Result<u32, &'static str> {
        let Self {
            reader,
            at,
            first_was_right,
        } = self;
        let mut messages = 0;
        reader.feed(bytes, |part| {
            match part {
                Part::Data(data) => {
                    if !*first_was_right && expected.get(*at..*at + data.len()) != Some(data) {
                        return Err("the first message came back changed");
                    }
                    *at += data.len();
                }
                Part::End => {
                    if *at != expected.len() {
                        return Err("a message came back with another length");
                    }
                    *at = 0;
                    *first_was_right = true;
                    messages += 1;
                }
                Part::Ping(payload) => pings.push(payload.to_vec()),
            }
            Ok(())
        })?;
        Ok(messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_message_is_compared_by_bytes_and_later_ones_by_length() {
        let cases: &[(&[u8], Result<u32, &str>)] = &[
            (b"\x82\x03abc\x82\x03xyz", Ok(2)),
            (b"\x82\x03abx", Err("the first message came back changed")),
            (b"\x82\x04abcd", Err("the first message came back changed")),
            (
                b"\x82\x02ab",
                Err("a message came back with another length"),
            ),
            (
                b"\x82\x03abc\x82\x02xy",
                Err("a message came back with another length"),
            ),
        ];
        for (bytes, outcome) in cases {
            let mut pings = Vec::new();
            let mut replies = Replies::new(Reader::frames());
            assert_eq!(
                replies.receive(bytes, b"abc", &mut pings),
                *outcome,
                "{bytes:x?}"
            );
        }
    }

    #[test]
    fn pings_are_handed_out_and_count_for_nothing() {
        let mut pings = Vec::new();
        let counted = Replies::new(Reader::frames()).receive(b"\x89\x01p", b"abc", &mut pings);
        assert_eq!((counted, pings), (Ok(0), vec![b"p".to_vec()]));
    }
}
