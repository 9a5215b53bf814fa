//! What travels to subscribers: publications of one channel, framed once and shared by all.

use std::sync::OnceLock;

use bytes::Bytes;

use crate::conn::ConnectionId;
use crate::ws::deflate::{DeflateParameters, Deflater};
use crate::ws::encoder;
use crate::ws::{Message, MessageKind};

/// Publications of one channel from one turn, in their order, as the wire wants them. Shared by every
/// reactor and every subscriber; never changed once it has been sealed.
#[derive(Debug)]
pub struct Batch {
    /// The frames, one behind the other.
    frames: Bytes,
    messages: Vec<Span>,
    /// The one subscriber who gets none of them.
    excluded: Option<ConnectionId>,
    /// The same messages as compressed frames, made when the first subscriber wants them.
    deflated: OnceLock<Bytes>,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    kind: MessageKind,
    payload_start: usize,
    payload_end: usize,
    excluded: Option<ConnectionId>,
}

impl Batch {
    /// Bytes of the frames, uncompressed.
    #[must_use]
    pub const fn frames(&self) -> &Bytes {
        &self.frames
    }

    /// Messages in the batch.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.messages.len()
    }

    /// The one subscriber who gets none of these messages: who sent them, mostly.
    #[must_use]
    pub const fn excluded(&self) -> Option<ConnectionId> {
        self.excluded
    }

    /// The frames compressed for a receiver with the default window. The first caller pays for it;
    /// a second reactor that asks in the meantime waits for the first.
    pub fn deflated(&self, deflater: &mut Deflater) -> &Bytes {
        self.deflated.get_or_init(|| {
            let mut out = Vec::new();
            for span in &self.messages {
                let payload = &self.frames[span.payload_start..span.payload_end];
                let message = match span.kind {
                    MessageKind::Binary => Message::from(payload),
                    MessageKind::Text => match std::str::from_utf8(payload) {
                        Ok(text) => Message::from(text),
                        // A text message is made from a `str`, so its bytes are one still.
                        Err(_) => continue,
                    },
                };
                encoder::encode_compressed(
                    &mut out,
                    &message,
                    deflater,
                    DeflateParameters::default(),
                );
            }
            Bytes::from(out)
        })
    }
}

/// Collects a channel's publications until the end of the turn.
#[derive(Debug, Default)]
pub struct Draft {
    frames: Vec<u8>,
    messages: Vec<Span>,
}

impl Draft {
    /// Appends a message for everybody.
    pub fn push(&mut self, message: &Message<'_>) {
        self.push_but(message, None);
    }

    /// Appends a message for everybody but one.
    pub fn push_but(&mut self, message: &Message<'_>, excluded: Option<ConnectionId>) {
        encoder::encode_message(&mut self.frames, message);
        let payload_end = self.frames.len();
        self.messages.push(Span {
            kind: message.kind(),
            payload_start: payload_end - message.len(),
            payload_end,
            excluded,
        });
    }

    /// Appends everything of another draft, behind what is here.
    pub fn append(&mut self, other: &Self) {
        let shift = self.frames.len();
        self.frames.extend_from_slice(&other.frames);
        self.messages.extend(other.messages.iter().map(|span| Span {
            payload_start: span.payload_start + shift,
            payload_end: span.payload_end + shift,
            ..*span
        }));
    }

    /// Bytes collected.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether nothing was collected.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Messages collected.
    #[must_use]
    pub const fn messages(&self) -> usize {
        self.messages.len()
    }

    /// Ends the collecting: from here on the bytes are shared. The messages go into batches of at most
    /// [`BATCH_BYTES_MAX`], a longer message into one of its own; those of one batch are for the same
    /// subscribers.
    #[must_use]
    pub fn seal(self) -> Vec<Batch> {
        let frames = Bytes::from(self.frames);
        let mut batches = Vec::new();
        let (mut start, mut messages) = (0, Vec::new());
        let mut spans = self.messages.into_iter().peekable();
        while let Some(span) = spans.next() {
            let end = span.payload_end;
            messages.push(Span {
                payload_start: span.payload_start - start,
                payload_end: end - start,
                ..span
            });
            let is_full = spans.peek().is_none_or(|next| {
                next.payload_end - start > BATCH_BYTES_MAX || next.excluded != span.excluded
            });
            if is_full {
                batches.push(Batch {
                    frames: frames.slice(start..end),
                    messages: std::mem::take(&mut messages),
                    excluded: span.excluded,
                    deflated: OnceLock::new(),
                });
                start = end;
            }
        }
        batches
    }
}

/// What a socket is offered of one channel at a time, in bytes: what it refuses of a batch that has
/// begun to leave must wait, whatever an outbox's limit says.
pub const BATCH_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_the_frames_in_order() {
        let mut first = Draft::default();
        first.push(&Message::from("one"));
        let mut second = Draft::default();
        second.push(&Message::from(&b"two"[..]));
        second.push(&Message::from(""));
        first.append(&second);
        let batch = &first.seal()[0];
        assert_eq!(&batch.frames()[..], b"\x81\x03one\x82\x03two\x81\x00");
        assert_eq!(batch.messages(), 3);
    }

    #[test]
    fn a_batch_is_compressed_once_and_each_message_by_itself() {
        let text = "tide ".repeat(100);
        let mut draft = Draft::default();
        draft.push(&Message::from(text.as_str()));
        draft.push(&Message::from("x"));
        let batch = &draft.seal()[0];
        let mut deflater = Deflater::default();
        let first = batch.deflated(&mut deflater).clone();
        assert_eq!(first[0], 0xc1, "final, compressed, text");
        assert!(first.len() < text.len() / 4);
        assert_eq!(
            &first[first.len() - 3..],
            b"\x81\x01x",
            "what does not shrink goes as it is"
        );
        assert_eq!(batch.deflated(&mut deflater).as_ptr(), first.as_ptr());
    }

    #[test]
    fn a_batch_has_one_set_of_subscribers_and_order_stays() {
        let [alice, bob] = [1, 2].map(|slot| Some(ConnectionId::new(0, slot, 7)));
        let mut draft = Draft::default();
        for (text, excluded) in [
            ("a", alice),
            ("b", alice),
            ("c", None),
            ("d", bob),
            ("e", alice),
        ] {
            draft.push_but(&Message::from(text), excluded);
        }
        let mut all = Draft::default();
        all.append(&draft);
        let batches = all.seal();
        let shown: Vec<_> = (batches.iter())
            .map(|batch| (&batch.frames()[..], batch.messages(), batch.excluded()))
            .collect();
        assert_eq!(
            shown,
            [
                (&b"\x81\x01a\x81\x01b"[..], 2, alice),
                (b"\x81\x01c", 1, None),
                (b"\x81\x01d", 1, bob),
                (b"\x81\x01e", 1, alice),
            ]
        );
    }

    #[test]
    fn batches_are_cut_between_messages() {
        let mut draft = Draft::default();
        let (quarter, whole) = (
            vec![1; BATCH_BYTES_MAX / 4 - 4],
            vec![2; BATCH_BYTES_MAX + 1],
        );
        for _ in 0..5 {
            draft.push(&Message::from(&quarter[..]));
        }
        draft.push(&Message::from(&whole[..]));
        draft.push(&Message::from("end"));
        let batches = draft.seal();
        let sizes: Vec<_> = batches
            .iter()
            .map(|one| (one.messages(), one.frames().len()))
            .collect();
        let long = whole.len() + 10;
        let quarter = BATCH_BYTES_MAX / 4;
        assert_eq!(sizes, [(4, 4 * quarter), (1, quarter), (1, long), (1, 5)]);
        let mut deflater = Deflater::default();
        assert!(
            batches[2].deflated(&mut deflater).len() < 1000,
            "spans are those of the batch"
        );
    }
}
