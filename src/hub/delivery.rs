//! What travels to subscribers: publications of one channel, framed once and shared by all.

use std::sync::OnceLock;

use bytes::Bytes;

use super::command::{PublishOptions, StreamPosition, Ticket};
use crate::conn::ConnectionId;
use crate::ws::deflate::{DeflateParameters, Deflater};
use crate::ws::encoder;
use crate::ws::{Message, MessageKind};

/// Publications of one channel from one turn, in their order, as the wire wants them. Shared by every
/// reactor and every subscriber; never changed once it has been sealed.
#[derive(Debug)]
pub struct Batch {
    frames: Framed,
    messages: Vec<Span>,
    /// The same messages as compressed frames, made when the first subscriber wants them.
    deflated: OnceLock<Framed>,
    placement: Placement,
    is_gap: bool,
}

/// Frames, one behind the other.
#[derive(Debug, Clone)]
pub struct Framed {
    /// Their bytes.
    pub bytes: Bytes,
    /// Where the last of them begins.
    pub last: usize,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    kind: MessageKind,
    payload_start: usize,
    payload_end: usize,
}

/// What is said of a publication when its place in the order is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Placement {
    /// Its place in the channel's history, if it has one.
    pub position: Option<StreamPosition>,
    /// Who does not get it.
    pub exclude: Option<ConnectionId>,
}

impl Placement {
    /// Whether a publication may share a batch with `count` that begin with one placed like this.
    fn is_followed_by(&self, next: &Self, count: usize) -> bool {
        let is_next = match (self.position, next.position) {
            (None, None) => true,
            (Some(first), Some(next)) => {
                first.epoch == next.epoch && first.offset + count as u64 == next.offset
            }
            _ => false,
        };
        is_next && self.exclude == next.exclude
    }
}

impl Batch {
    /// What stands where publications have been lost: whoever comes to it is told so.
    #[must_use]
    pub fn gap() -> Self {
        Self {
            frames: Framed {
                bytes: Bytes::new(),
                last: 0,
            },
            messages: Vec::new(),
            deflated: OnceLock::new(),
            placement: Placement::default(),
            is_gap: true,
        }
    }

    /// Bytes of the frames, uncompressed.
    #[must_use]
    pub const fn frames(&self) -> &Bytes {
        &self.frames.bytes
    }

    /// The frames, uncompressed.
    #[must_use]
    pub const fn framed(&self) -> &Framed {
        &self.frames
    }

    /// Messages in the batch.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.messages.len()
    }

    /// Whether it says that something is missing here.
    #[must_use]
    pub const fn is_gap(&self) -> bool {
        self.is_gap
    }

    /// The place of its first message in the channel's history; the others follow.
    #[must_use]
    pub const fn position(&self) -> Option<StreamPosition> {
        self.placement.position
    }

    /// The place of its last message in the channel's history.
    #[must_use]
    pub fn last_position(&self) -> Option<StreamPosition> {
        let first = self.placement.position?;
        let offset = first.offset + (self.messages.len() as u64).saturating_sub(1);
        Some(StreamPosition { offset, ..first })
    }

    /// The subscriber who does not get it.
    #[must_use]
    pub const fn exclude(&self) -> Option<ConnectionId> {
        self.placement.exclude
    }

    /// The frames compressed for a receiver with the default window. The first caller pays for it;
    /// a second reactor that asks in the meantime waits for the first.
    pub fn deflated(&self, deflater: &mut Deflater) -> &Framed {
        self.deflated.get_or_init(|| {
            let mut out = Vec::new();
            let mut last = 0;
            for span in &self.messages {
                let Some(message) = span.message(&self.frames.bytes) else {
                    continue;
                };
                last = out.len();
                encoder::encode_compressed(
                    &mut out,
                    &message,
                    deflater,
                    DeflateParameters::default(),
                );
            }
            let bytes = Bytes::from(out);
            Framed { bytes, last }
        })
    }
}

impl Span {
    /// The message, from the frames it lies in.
    fn message<'a>(&self, frames: &'a [u8]) -> Option<Message<'a>> {
        let payload = &frames[self.payload_start..self.payload_end];
        match self.kind {
            MessageKind::Binary => Some(Message::from(payload)),
            // A text message is made from a `str`, so its bytes are one still.
            MessageKind::Text => std::str::from_utf8(payload).ok().map(Message::from),
        }
    }
}

/// What is wished for a publication on its way to its home, and who wants to know what came of it.
#[derive(Debug, Clone, Default)]
pub struct Note {
    /// The wishes.
    pub options: PublishOptions,
    /// The reactor that asked, and how it knows the command.
    pub asker: Option<(usize, Ticket)>,
}

/// Collects a channel's publications until the end of the turn.
#[derive(Debug, Default)]
pub struct Draft {
    frames: Vec<u8>,
    messages: Vec<Span>,
    /// Notes on some of the messages, in their order: most have none.
    notes: Vec<(usize, Note)>,
}

/// A publication in a [`Draft`] that is being sealed.
#[derive(Debug)]
pub struct Drafted<'a> {
    frames: &'a [u8],
    span: Span,
    /// What is wished for it.
    pub note: Option<Note>,
}

impl Drafted<'_> {
    /// The message, with memory of its own: the batch's would be kept whole.
    #[must_use]
    pub fn to_message(&self) -> Message<'static> {
        let message = self.span.message(self.frames);
        message.map_or_else(|| Message::from(Vec::new()), Message::into_owned)
    }
}

impl Draft {
    /// Appends a message.
    pub fn push(&mut self, message: &Message<'_>) {
        encoder::encode_message(&mut self.frames, message);
        let payload_end = self.frames.len();
        self.messages.push(Span {
            kind: message.kind(),
            payload_start: payload_end - message.len(),
            payload_end,
        });
    }

    /// Appends a message for which something is wished.
    pub fn push_noted(&mut self, message: &Message<'_>, note: Note) {
        self.notes.push((self.messages.len(), note));
        self.push(message);
    }

    /// Appends everything of another draft, behind what is here.
    pub fn append(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
            return;
        }
        let (shift, count) = (self.frames.len(), self.messages.len());
        self.frames.extend_from_slice(&other.frames);
        self.messages.extend(other.messages.iter().map(|span| Span {
            payload_start: span.payload_start + shift,
            payload_end: span.payload_end + shift,
            ..*span
        }));
        let notes = other.notes.into_iter();
        self.notes
            .extend(notes.map(|(index, note)| (index + count, note)));
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

    /// Whether something is wished for some message.
    #[must_use]
    pub const fn has_notes(&self) -> bool {
        !self.notes.is_empty()
    }

    /// Who asked for what is in here and wants to know what came of it.
    pub fn askers(&self) -> impl Iterator<Item = (usize, Ticket)> {
        self.notes.iter().filter_map(|(_, note)| note.asker)
    }

    /// Ends the collecting: from here on the bytes are shared. The messages go into batches of at most
    /// [`BATCH_BYTES_MAX`], a longer message into one of its own.
    #[must_use]
    pub fn seal(self) -> Vec<Batch> {
        self.seal_with(|_| Some(Placement::default()))
    }

    /// The same, with a say for each message: where it is placed, or that it is left out.
    #[must_use]
    pub fn seal_with(self, mut place: impl FnMut(Drafted<'_>) -> Option<Placement>) -> Vec<Batch> {
        let frames = Bytes::from(self.frames);
        let mut notes = self.notes.into_iter().peekable();
        let mut batches = Vec::new();
        let mut open: Option<Sealing> = None;
        let mut begin = 0;
        for (index, span) in self.messages.into_iter().enumerate() {
            let note = notes.next_if(|(of, _)| *of == index).map(|(_, note)| note);
            let drafted = Drafted {
                frames: &frames,
                span,
                note,
            };
            let frame = begin..span.payload_end;
            begin = frame.end;
            let Some(placement) = place(drafted) else {
                batches.extend(open.take().map(|open| open.batch(&frames)));
                continue;
            };
            let fits = open.as_ref().is_some_and(|open| {
                let count = open.messages.len();
                frame.end - open.start <= BATCH_BYTES_MAX
                    && open.placement.is_followed_by(&placement, count)
            });
            if !fits {
                batches.extend(open.take().map(|open| open.batch(&frames)));
            }
            let open = open.get_or_insert_with(|| Sealing {
                start: frame.start,
                last: frame.start,
                messages: Vec::new(),
                placement,
            });
            open.last = frame.start;
            open.messages.push(Span {
                payload_start: span.payload_start - open.start,
                payload_end: span.payload_end - open.start,
                ..span
            });
        }
        batches.extend(open.map(|open| open.batch(&frames)));
        batches
    }
}

/// A batch that takes more messages.
struct Sealing {
    start: usize,
    /// Where its last frame begins.
    last: usize,
    messages: Vec<Span>,
    placement: Placement,
}

impl Sealing {
    fn batch(self, frames: &Bytes) -> Batch {
        let length = self.messages.last().map_or(0, |span| span.payload_end);
        Batch {
            frames: Framed {
                bytes: frames.slice(self.start..self.start + length),
                last: self.last - self.start,
            },
            messages: self.messages,
            deflated: OnceLock::new(),
            placement: self.placement,
            is_gap: false,
        }
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
        first.append(second);
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
        let deflated = batch.deflated(&mut deflater).clone();
        let first = deflated.bytes;
        assert_eq!(deflated.last, first.len() - 3);
        assert_eq!(first[0], 0xc1, "final, compressed, text");
        assert!(first.len() < text.len() / 4);
        assert_eq!(
            &first[first.len() - 3..],
            b"\x81\x01x",
            "what does not shrink goes as it is"
        );
        assert_eq!(batch.deflated(&mut deflater).bytes.as_ptr(), first.as_ptr());
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
            batches[2].deflated(&mut deflater).bytes.len() < 1000,
            "spans are those of the batch"
        );
    }

    #[test]
    fn messages_share_a_batch_if_they_follow_and_go_to_the_same() {
        use super::super::command::Epoch;
        let at = |offset| {
            let epoch = Epoch::of(1);
            Some(StreamPosition { offset, epoch })
        };
        let somebody = Some(ConnectionId::new(0, 1, 0));
        let placed = |position, exclude| Some(Placement { position, exclude });
        let places = [
            placed(at(7), None),
            placed(at(8), None),
            placed(at(10), None),
            placed(None, None),
            None,
            placed(None, None),
            placed(None, somebody),
            placed(None, somebody),
            None,
        ];
        let mut draft = Draft::default();
        for number in 0..places.len() {
            draft.push(&Message::from(number.to_string()));
        }
        let mut left = places.into_iter();
        let batches = draft.seal_with(|_| left.next().unwrap());
        let found: Vec<_> = batches
            .iter()
            .map(|batch| {
                let last = &batch.frames()[batch.framed().last..];
                (batch.position(), batch.messages(), last.to_vec())
            })
            .collect();
        let frame = |text: &str| [b"\x81\x01", text.as_bytes()].concat();
        assert_eq!(
            found,
            [
                (at(7), 2, frame("1")),
                (at(10), 1, frame("2")),
                (None, 1, frame("3")),
                (None, 1, frame("5")),
                (None, 2, frame("7")),
            ]
        );
        assert_eq!(batches[0].last_position(), at(8));
        assert_eq!(batches[4].exclude(), somebody);
        assert_eq!(&batches[3].frames()[..], b"\x81\x015");
    }

    #[test]
    fn notes_stay_with_their_messages_when_drafts_are_joined() {
        let noted = |key: &str| Note {
            options: PublishOptions {
                idempotency_key: Some(key.into()),
                ..PublishOptions::default()
            },
            asker: None,
        };
        let mut first = Draft::default();
        first.push(&Message::from("0"));
        first.push_noted(&Message::from("1"), noted("one"));
        let mut second = Draft::default();
        second.push_noted(&Message::from("2"), noted("two"));
        second.push(&Message::from("3"));
        first.append(second);
        let mut seen = Vec::new();
        let _ = first.seal_with(|drafted| {
            let key = drafted
                .note
                .as_ref()
                .and_then(|note| note.options.idempotency_key.clone());
            seen.push((drafted.to_message(), key));
            None
        });
        let expected = [
            ("0", None),
            ("1", Some("one")),
            ("2", Some("two")),
            ("3", None),
        ]
        .map(|(text, key)| (Message::from(text), key.map(Box::from)));
        assert_eq!(seen, expected);
    }
}
