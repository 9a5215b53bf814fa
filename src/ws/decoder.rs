//! Bytes to events: frames, fragments, interleaved control frames, and every limit (§5.2 to §5.5).
//!
//! Frames are decoded where they lie. The reactor reads into one buffer of its own and lends it
//! here; a frame that is whole is unmasked in that buffer and lent on as an event, and nothing of
//! it is kept. Only what is incomplete when the reactor needs its buffer for another connection,
//! and the fragments of an unfinished message, are copied into memory of the connection's own,
//! which ends with the frame or the message. So a connection between two messages owns nothing.
//!
//! A header is judged as soon as its bytes are there, and before its payload is waited for. A
//! [`Violation`] ends the connection; the decoder gives its memory back and is not to be used
//! again.

use std::borrow::Cow;
use std::{fmt, mem};

use super::frame::{self, ControlKind, Expected, HEAD_BYTES_MAX, Head, Opcode, Short};
use super::utf8::{self, InvalidUtf8, TextBuffer};
use super::{CloseCode, Event, Inflater, Limits, Message, MessageKind, close, mask};

/// One connection's side of the protocol: what it is in the middle of.
#[derive(Debug)]
pub struct Decoder {
    /// Present exactly while a part of a frame or of a message is held.
    partial: Option<Box<Partial>>,
    compression: bool,
}

/// What one call of [`Decoder::decode`] came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// How many bytes from the front of the input are done with. The event may be borrowed from
    /// them.
    pub used: usize,
    /// The event, or `None` if the input holds no further one.
    pub event: Option<Event<'a>>,
}

impl Decoder {
    /// A connection that has just been opened. `compression` says whether permessage-deflate was
    /// negotiated.
    #[must_use]
    pub const fn new(compression: bool) -> Self {
        Self {
            partial: None,
            compression,
        }
    }

    /// Decodes at most one event from the front of `input`.
    ///
    /// With `event: None` and `used < input.len()`, the rest is the beginning of a frame, which is
    /// checked as far as it can be but not consumed: either read more behind it and call again, or
    /// hand it to [`absorb`](Self::absorb). Whole frames before it that were fragments are consumed
    /// and held.
    ///
    /// The input is unmasked in place and must not be decoded again.
    ///
    /// # Errors
    /// The first [`Violation`] met. Events before it have been given out.
    #[inline]
    pub fn decode<'a>(
        &mut self,
        input: &'a mut [u8],
        limits: &Limits,
        inflater: &'a mut Inflater,
    ) -> Result<Decoded<'a>, Violation> {
        if let Some(short) = self.recognise(input, limits) {
            let used = short.end();
            let event = Some(Event::Message(short.read(input)?));
            return Ok(Decoded { used, event });
        }
        if let Some(longer) = self.recognise_longer(input, limits) {
            let used = longer.end();
            let event = Some(Event::Message(longer.read(input)?));
            return Ok(Decoded { used, event });
        }
        self.decode_any(input, limits, inflater)
    }

    /// Whether the input begins with a whole message in the simplest form there is, as nearly all do:
    /// then [`Short::read`] gives it, a good deal faster than [`decode`](Self::decode) does, because it
    /// is not one of many events. `None` means that [`recognise_longer`](Self::recognise_longer) has to look.
    #[inline(always)]
    pub(crate) fn recognise(&self, input: &[u8], limits: &Limits) -> Option<Short<6>> {
        if self.partial.is_some() {
            return None;
        }
        Short::<6>::recognise(input, limits)
    }

    /// The same with a message whose header is two bytes longer; `None` leaves it to
    /// [`decode_any`](Self::decode_any).
    #[inline(always)]
    pub(crate) fn recognise_longer(&self, input: &[u8], limits: &Limits) -> Option<Short<8>> {
        if self.partial.is_some() {
            return None;
        }
        Short::<8>::recognise(input, limits)
    }

    /// Takes the beginning of a frame, which [`decode`](Self::decode) has left over, into the
    /// connection's own memory, and unmasks and checks it, UTF-8 included. After that, `decode`
    /// takes the continuation from any input.
    ///
    /// Memory grows with what has come, by doubling at most, and never by what was announced.
    ///
    /// # Errors
    /// The first [`Violation`] met.
    ///
    /// # Panics
    /// In debug builds, if `rest` reaches beyond the end of one frame.
    pub fn absorb(&mut self, rest: &mut [u8], limits: &Limits) -> Result<(), Violation> {
        if rest.is_empty() {
            return Ok(());
        }
        let partial = self.partial.get_or_insert_default();
        if matches!(partial.stage, Stage::Boundary) {
            partial.stage = Stage::Head {
                bytes: [0; HEAD_BYTES_MAX],
                len: 0,
            };
        }
        let taken = partial.take(rest, self.compression, limits);
        if taken.is_err() {
            self.partial = None;
        }
        debug_assert_eq!(
            taken.unwrap_or(rest.len()),
            rest.len(),
            "beyond the end of the frame"
        );
        taken.map(|_| ())
    }

    /// True when no part of a frame or message is held: the state of an idle connection.
    #[inline]
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        self.partial.is_none()
    }

    /// Heap bytes held now. An idle connection holds none.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| {
            let control = match &partial.stage {
                Stage::Control { payload, .. } => payload.capacity(),
                Stage::Boundary | Stage::Head { .. } | Stage::Data { .. } => 0,
            };
            size_of::<Partial>() + control + partial.message.body.capacity()
        })
    }

    /// Decodes what has not been recognised: all that is not a [`Short`] frame between two messages.
    #[inline(never)]
    pub(crate) fn decode_any<'a>(
        &mut self,
        input: &'a mut [u8],
        limits: &Limits,
        inflater: &'a mut Inflater,
    ) -> Result<Decoded<'a>, Violation> {
        let decoded = self.find(input, limits).and_then(|(used, found)| {
            let event = match found {
                Found::Nothing => None,
                Found::InPlace(head, payload_len) => {
                    let payload = &input[used - payload_len..used];
                    Some(event_in_place(&head, payload, limits, inflater)?)
                }
                Found::Control(kind, payload) => Some(control_event(kind, Cow::Owned(payload))?),
                Found::Message(message) => Some(Event::Message(message.finish(limits, inflater)?)),
            };
            Ok(Decoded { used, event })
        });
        if decoded.is_err() {
            self.partial = None;
        }
        decoded
    }

    /// Goes on to the next event, and says how much of the input is done with then. A payload found
    /// in place is unmasked and lies directly before.
    fn find(&mut self, input: &mut [u8], limits: &Limits) -> Result<(usize, Found), Violation> {
        let mut used = 0;
        loop {
            let rest = &mut input[used..];
            if let Some(partial) = &mut self.partial
                && !matches!(partial.stage, Stage::Boundary)
            {
                used += partial.take(rest, self.compression, limits)?;
                if !partial.is_frame_whole() {
                    return Ok((used, Found::Nothing));
                }
                let found = partial.end_frame();
                self.release();
                match found {
                    Found::Nothing => continue,
                    Found::InPlace(..) | Found::Control(..) | Found::Message(_) => {
                        return Ok((used, found));
                    }
                }
            }

            let message = self.partial.as_ref().map(|partial| &partial.message);
            let in_message = message.is_some_and(|message| message.fragments > 0);
            let expected = Expected {
                compression: self.compression,
                in_message,
            };
            let Some(head) = frame::parse(rest, expected)? else {
                return Ok((used, Found::Nothing));
            };
            Assembly::admit(message, &head, limits)?;
            let Some(payload) = rest.get_mut(head.len..head.len.saturating_add(head.payload_len))
            else {
                return Ok((used, Found::Nothing));
            };
            used += head.len + payload.len();
            mask::unmask(payload, head.key);

            let is_alone = matches!(head.opcode, Opcode::Control(_))
                || (matches!(head.opcode, Opcode::Start(_)) && head.is_final);
            if is_alone {
                let payload_len = payload.len();
                return Ok((used, Found::InPlace(head, payload_len)));
            }
            let partial = self.partial.get_or_insert_default();
            partial.message.begin_frame(&head);
            partial.message.push(payload, 0)?;
            if head.is_final {
                let message = mem::take(&mut partial.message);
                self.release();
                return Ok((used, Found::Message(message)));
            }
        }
    }

    /// Gives the memory back if nothing is held in it.
    fn release(&mut self) {
        self.partial.take_if(|partial| {
            matches!(partial.stage, Stage::Boundary) && partial.message.fragments == 0
        });
    }
}

/// What was found in the input, before anything is borrowed from it.
enum Found {
    /// No further event.
    Nothing,
    /// A frame that is an event by itself, with the length of its payload.
    InPlace(Head, usize),
    /// A control frame put together from pieces.
    Control(ControlKind, Vec<u8>),
    /// A message put together from fragments or pieces.
    Message(Assembly),
}

/// What a connection holds of a frame and of a message that are not finished.
#[derive(Debug, Default)]
struct Partial {
    stage: Stage,
    message: Assembly,
}

/// How far the frame at hand has come.
#[derive(Debug, Default)]
enum Stage {
    /// Between two fragments of a message: nothing of the next frame is held.
    #[default]
    Boundary,
    /// A header of which the first `len` bytes are here.
    Head {
        bytes: [u8; HEAD_BYTES_MAX],
        len: usize,
    },
    /// A control frame.
    Control {
        kind: ControlKind,
        payload: Vec<u8>,
        missing: Missing,
    },
    /// A frame of [`Partial::message`].
    Data { is_final: bool, missing: Missing },
}

/// The part of a payload that is still to come.
#[derive(Debug)]
struct Missing {
    bytes: usize,
    /// Turned so that its first byte is for the next byte to come.
    key: [u8; 4],
}

impl Missing {
    /// Unmasks as much of the payload as `input` begins with.
    fn unmask<'i>(&mut self, input: &'i mut [u8]) -> &'i [u8] {
        let len = self.bytes.min(input.len());
        let bytes = &mut input[..len];
        mask::unmask(bytes, self.key);
        self.key = mask::rotated(self.key, len);
        self.bytes -= len;
        bytes
    }
}

impl Partial {
    /// Takes as much of the frame at hand as `input` holds, and says how many bytes that was.
    fn take(
        &mut self,
        input: &mut [u8],
        compression: bool,
        limits: &Limits,
    ) -> Result<usize, Violation> {
        let mut used = 0;
        if let Stage::Head { bytes, len } = &mut self.stage {
            let before = *len;
            let end = HEAD_BYTES_MAX.min(before + input.len());
            bytes[before..end].copy_from_slice(&input[..end - before]);
            let expected = Expected {
                compression,
                in_message: self.message.fragments > 0,
            };
            let Some(head) = frame::parse(&bytes[..end], expected)? else {
                // No header is longer than the place for it, so the input ends here.
                *len = end;
                return Ok(end - before);
            };
            Assembly::admit(Some(&self.message), &head, limits)?;
            used = head.len - before;
            self.open(&head);
        }
        match &mut self.stage {
            Stage::Boundary | Stage::Head { .. } => {}
            Stage::Control {
                payload, missing, ..
            } => {
                let bytes = missing.unmask(&mut input[used..]);
                payload.reserve_exact(bytes.len());
                payload.extend_from_slice(bytes);
                used += bytes.len();
            }
            Stage::Data { missing, .. } => {
                let bytes = missing.unmask(&mut input[used..]);
                self.message.push(bytes, missing.bytes)?;
                used += bytes.len();
            }
        }
        Ok(used)
    }

    fn open(&mut self, head: &Head) {
        let missing = Missing {
            bytes: head.payload_len,
            key: head.key,
        };
        self.stage = match head.opcode {
            Opcode::Control(kind) => Stage::Control {
                kind,
                payload: Vec::new(),
                missing,
            },
            Opcode::Start(_) | Opcode::Continue => {
                self.message.begin_frame(head);
                Stage::Data {
                    is_final: head.is_final,
                    missing,
                }
            }
        };
    }

    fn is_frame_whole(&self) -> bool {
        match &self.stage {
            Stage::Boundary | Stage::Head { .. } => false,
            Stage::Control { missing, .. } | Stage::Data { missing, .. } => missing.bytes == 0,
        }
    }

    /// Leaves a frame that is whole. [`Found::Nothing`] if it was a fragment and others have to
    /// follow.
    fn end_frame(&mut self) -> Found {
        match mem::take(&mut self.stage) {
            Stage::Control { kind, payload, .. } => Found::Control(kind, payload),
            Stage::Data { is_final: true, .. } => Found::Message(mem::take(&mut self.message)),
            Stage::Boundary
            | Stage::Head { .. }
            | Stage::Data {
                is_final: false, ..
            } => Found::Nothing,
        }
    }
}

/// A message that is being put together. Without fragments, none is.
#[derive(Debug, Default)]
struct Assembly {
    /// How many frames of it have begun.
    fragments: u32,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Text(TextBuffer),
    Binary(Vec<u8>),
    /// Compressed: what it says is known when it is whole.
    Deflated(MessageKind, Vec<u8>),
}

impl Default for Body {
    fn default() -> Self {
        Self::Binary(Vec::new())
    }
}

impl Assembly {
    /// Whether the frame may come on top of the message so far. Control frames are no part of it.
    fn admit(message: Option<&Self>, head: &Head, limits: &Limits) -> Result<(), Violation> {
        let (held, fragments, is_compressed) = match (head.opcode, message) {
            (Opcode::Control(_), _) => return Ok(()),
            (Opcode::Continue, Some(message)) => {
                let is_compressed = matches!(message.body, Body::Deflated(..));
                (message.body.len(), message.fragments, is_compressed)
            }
            (Opcode::Start(_), _) | (Opcode::Continue, None) => (0, 0, head.is_compressed),
        };
        let is_fragment = fragments > 0 || !head.is_final;
        if is_fragment && fragments >= limits.fragments_max {
            return Err(Violation::TooManyFragments);
        }
        let bytes_max = if is_compressed {
            limits.deflated_bytes_max()
        } else {
            limits.message_bytes_max
        };
        if held.saturating_add(head.payload_len) > bytes_max {
            return Err(Violation::MessageTooBig);
        }
        Ok(())
    }

    fn begin_frame(&mut self, head: &Head) {
        self.fragments += 1;
        if let Opcode::Start(kind) = head.opcode {
            self.body = match kind {
                _ if head.is_compressed => Body::Deflated(kind, Vec::new()),
                MessageKind::Text => Body::Text(TextBuffer::default()),
                MessageKind::Binary => Body::Binary(Vec::new()),
            };
        }
    }

    /// Appends unmasked bytes of a frame of which `missing` more are to come.
    fn push(&mut self, bytes: &[u8], missing: usize) -> Result<(), Violation> {
        let room = room_to_reserve(self.body.len(), self.body.capacity(), bytes.len(), missing);
        match &mut self.body {
            Body::Text(text) => {
                text.reserve_exact(room);
                text.push(bytes)?;
            }
            Body::Binary(held) | Body::Deflated(_, held) => {
                held.reserve_exact(room);
                held.extend_from_slice(bytes);
            }
        }
        Ok(())
    }

    fn finish<'a>(
        self,
        limits: &Limits,
        inflater: &'a mut Inflater,
    ) -> Result<Message<'a>, Violation> {
        Ok(match self.body {
            Body::Text(text) => Message::Text(Cow::Owned(text.finish()?)),
            Body::Binary(bytes) => Message::Binary(Cow::Owned(bytes)),
            Body::Deflated(kind, deflated) => inflated(kind, &deflated, limits, inflater)?,
        })
    }
}

impl Body {
    fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) | Self::Deflated(_, bytes) => bytes.len(),
        }
    }

    fn capacity(&self) -> usize {
        match self {
            Self::Text(text) => text.capacity(),
            Self::Binary(bytes) | Self::Deflated(_, bytes) => bytes.capacity(),
        }
    }
}

/// For how many bytes behind `len` to make room, where `more` are here and `missing` are announced:
/// enough for those that are here, twice what there was so that many small reads do not copy often,
/// and never more than the frame can fill. A peer that announces much and sends little gets little.
fn room_to_reserve(len: usize, capacity: usize, more: usize, missing: usize) -> usize {
    if capacity.saturating_sub(len) >= more {
        return 0;
    }
    let doubled = capacity.saturating_mul(2).saturating_sub(len);
    doubled.clamp(more, more.saturating_add(missing))
}

fn event_in_place<'a>(
    head: &Head,
    payload: &'a [u8],
    limits: &Limits,
    inflater: &'a mut Inflater,
) -> Result<Event<'a>, Violation> {
    match head.opcode {
        Opcode::Control(kind) => control_event(kind, Cow::Borrowed(payload)),
        Opcode::Start(kind) if head.is_compressed => {
            Ok(Event::Message(inflated(kind, payload, limits, inflater)?))
        }
        Opcode::Start(kind) => Ok(Event::Message(message_in_place(kind, payload)?)),
        Opcode::Continue => Err(Violation::ContinuationWithoutStart),
    }
}

impl<const HEAD: usize> Short<HEAD> {
    /// The message, unmasked where it lies at the front of `input`.
    #[inline(always)]
    pub(crate) fn read<'i>(&self, input: &'i mut [u8]) -> Result<Message<'i>, Violation> {
        let payload = &mut input[HEAD..self.end()];
        mask::unmask(payload, self.key);
        message_in_place(self.kind, payload)
    }
}

#[inline]
fn message_in_place(kind: MessageKind, payload: &[u8]) -> Result<Message<'_>, Violation> {
    Ok(match kind {
        MessageKind::Text => Message::Text(Cow::Borrowed(utf8::validate(payload)?)),
        MessageKind::Binary => Message::Binary(Cow::Borrowed(payload)),
    })
}

fn control_event(kind: ControlKind, payload: Cow<'_, [u8]>) -> Result<Event<'_>, Violation> {
    Ok(match (kind, payload) {
        (ControlKind::Ping, payload) => Event::Ping(payload),
        (ControlKind::Pong, payload) => Event::Pong(payload),
        (ControlKind::Close, Cow::Borrowed(payload)) => {
            Event::Close(close::parse(payload)?.map(|(code, reason)| (code, reason.into())))
        }
        (ControlKind::Close, Cow::Owned(payload)) => Event::Close(
            close::parse(&payload)?.map(|(code, reason)| (code, reason.to_owned().into())),
        ),
    })
}

fn inflated<'a>(
    kind: MessageKind,
    deflated: &[u8],
    limits: &Limits,
    inflater: &'a mut Inflater,
) -> Result<Message<'a>, Violation> {
    let bytes = inflater.inflate(deflated, limits)?;
    Ok(match (kind, bytes) {
        (MessageKind::Binary, bytes) => Message::Binary(bytes),
        (MessageKind::Text, Cow::Borrowed(bytes)) => {
            Message::Text(Cow::Borrowed(utf8::validate(bytes)?))
        }
        (MessageKind::Text, Cow::Owned(bytes)) => Message::Text(Cow::Owned(
            String::from_utf8(bytes).map_err(|_| Violation::Utf8)?,
        )),
    })
}

/// What a peer did that it may not do. Ends the connection with [`close_code`](Self::close_code).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Violation {
    /// A reserved bit that no negotiated extension gives a meaning, or RSV1 elsewhere than on the
    /// first frame of a message (§5.2, RFC 7692 §6).
    ReservedBits,
    /// An opcode without a meaning (§5.2).
    ReservedOpcode,
    /// A frame that is not masked (§5.1).
    Unmasked,
    /// A length that would have fitted into a shorter form (§5.2).
    LengthNotMinimal,
    /// A length with the most significant of its 64 bits set (§5.2).
    LengthTopBit,
    /// A control frame of more than 125 bytes (§5.5).
    ControlTooLong,
    /// A control frame that is a fragment (§5.5).
    ControlFragmented,
    /// A continuation where no message is under way (§5.4).
    ContinuationWithoutStart,
    /// A new message before the last one is finished (§5.4).
    MessageInterrupted,
    /// A message longer than [`Limits::message_bytes_max`].
    MessageTooBig,
    /// A message in more than [`Limits::fragments_max`] frames.
    TooManyFragments,
    /// A message that inflates to more than [`Limits::inflate_ratio_max`] times its size.
    InflateRatio,
    /// Compressed data that is broken or incomplete (RFC 7692 §7.2.2).
    Deflate,
    /// Text, or the reason in a close frame, that is not UTF-8 (§8.1).
    Utf8,
    /// A close frame with half a code (§5.5.1).
    ClosePayload,
    /// A close frame with this code, which may not be sent (§7.4).
    CloseCode(u16),
}

impl Violation {
    /// The code to close with (§7.4.1).
    #[must_use]
    pub fn close_code(&self) -> CloseCode {
        match self {
            Self::ReservedBits
            | Self::ReservedOpcode
            | Self::Unmasked
            | Self::LengthNotMinimal
            | Self::LengthTopBit
            | Self::ControlTooLong
            | Self::ControlFragmented
            | Self::ContinuationWithoutStart
            | Self::MessageInterrupted
            | Self::ClosePayload
            | Self::CloseCode(_) => CloseCode::Protocol,
            Self::Deflate | Self::Utf8 => CloseCode::Invalid,
            Self::TooManyFragments => CloseCode::Policy,
            Self::MessageTooBig | Self::InflateRatio => CloseCode::Size,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReservedBits => "reserved bits set",
            Self::ReservedOpcode => "reserved opcode",
            Self::Unmasked => "frame is not masked",
            Self::LengthNotMinimal => "length not in its shortest form",
            Self::LengthTopBit => "length with its top bit set",
            Self::ControlTooLong => "control frame too long",
            Self::ControlFragmented => "fragmented control frame",
            Self::ContinuationWithoutStart => "continuation without a message",
            Self::MessageInterrupted => "new message inside a fragmented one",
            Self::MessageTooBig => "message too big",
            Self::TooManyFragments => "too many fragments",
            Self::InflateRatio => "compressed message inflates too far",
            Self::Deflate => "broken compressed data",
            Self::Utf8 => "text is not UTF-8",
            Self::ClosePayload => "close frame with half a code",
            Self::CloseCode(code) => return write!(f, "close code {code} not allowed"),
        })
    }
}

impl std::error::Error for Violation {}

impl From<InvalidUtf8> for Violation {
    fn from(InvalidUtf8: InvalidUtf8) -> Self {
        Self::Utf8
    }
}

#[cfg(test)]
mod tests;
