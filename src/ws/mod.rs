//! RFC 6455, sans I/O: frames, messages, the opening and the closing handshake.
//!
//! Bytes come in through a [`Decoder`], which unmasks them where they lie and lends them out as
//! [`Event`]s; bytes go out through the functions of [`encoder`]. Neither knows a socket or a
//! clock. The wire's vocabulary ([`FrameHeader`], [`OpCode`], [`CloseCode`]) is tungstenite's, so
//! that clients, tests and the server speak of the same things.
//!
//! Section marks (§) without another RFC's name are RFC 6455's.

use std::borrow::Cow;

pub mod close;
pub mod decoder;
pub mod deflate;
pub mod encoder;
pub mod frame;
pub mod mask;
pub mod upgrade;
pub mod utf8;

#[cfg(test)]
mod fixture;

pub use tungstenite::protocol::frame::FrameHeader;
pub use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

pub use self::decoder::{Decoded, Decoder, Violation};
pub use self::deflate::{DeflateParameters, Deflater, ExtensionsError, Inflater};

/// What one connection may make the server hold or do, judged as soon as a frame's header is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Longest message accepted, in bytes, over all of its fragments and, where it was compressed,
    /// after inflating. Default 64 KiB. A longer one closes with 1009 (§7.4.1), before its payload
    /// is waited for.
    pub message_bytes_max: usize,
    /// Most frames one fragmented message may come in, `1..`, empty ones included. Default 128. The
    /// next one closes with 1008: it costs the sender two bytes and the server a header's work.
    pub fragments_max: u32,
    /// How many times its compressed size a message may inflate to. Default 100. Judged only beyond
    /// [`INFLATED_BYTES_FREE`](deflate::INFLATED_BYTES_FREE), for short repetitive texts compress
    /// far better than that and cost nothing. Beyond it closes with 1009.
    pub inflate_ratio_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 64 * 1024,
            fragments_max: 128,
            inflate_ratio_max: 100,
        }
    }
}

impl Limits {
    /// Longest compressed form accepted of a message: an honest compressor may make bytes that do
    /// not compress longer, by an eighth at worst (nine bits for a literal in a fixed block, RFC
    /// 1951 §3.2.6) and some block headers.
    pub fn deflated_bytes_max(&self) -> usize {
        self.message_bytes_max
            .saturating_add(self.message_bytes_max / 8)
            .saturating_add(64)
    }
}

/// Whether a message's bytes are text, and therefore valid UTF-8 (§5.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    /// Opcode 1: UTF-8.
    Text,
    /// Opcode 2: any bytes.
    Binary,
}

/// A message, on its way in or out.
///
/// One that came whole in one frame is borrowed from the read buffer, and a compressed one from the
/// reactor's [`Inflater`]; one put together from pieces is owned, as is a very long inflated one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    /// Text; the decoder has checked that it is UTF-8.
    Text(Cow<'a, str>),
    /// Bytes.
    Binary(Cow<'a, [u8]>),
}

impl Message<'_> {
    /// Text or binary.
    #[inline]
    pub fn kind(&self) -> MessageKind {
        match self {
            Self::Text(_) => MessageKind::Text,
            Self::Binary(_) => MessageKind::Binary,
        }
    }

    /// The payload, whatever its kind.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// Length of the payload in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// True for a message without payload, which is a message all the same.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }

    /// The same message, independent of the read buffer. Allocates and copies if it was borrowed.
    pub fn into_owned(self) -> Message<'static> {
        match self {
            Self::Text(text) => Message::Text(Cow::Owned(text.into_owned())),
            Self::Binary(bytes) => Message::Binary(Cow::Owned(bytes.into_owned())),
        }
    }
}

impl<'a> From<&'a str> for Message<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Message<'_> {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl<'a> From<&'a [u8]> for Message<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Binary(Cow::Borrowed(bytes))
    }
}

impl From<Vec<u8>> for Message<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Binary(Cow::Owned(bytes))
    }
}

/// What the decoder found. Control frames (§5.5) may come between the fragments of a message and
/// are reported as they come. Borrowed, unless the frame was put together from pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole message (§5.6).
    Message(Message<'a>),
    /// A ping, to be answered with a pong of the same payload, at most 125 bytes (§5.5.2).
    Ping(Cow<'a, [u8]>),
    /// A pong, at most 125 bytes (§5.5.3).
    Pong(Cow<'a, [u8]>),
    /// The peer's close frame, with its code and reason if it gave one (§5.5.1). Nothing behind it
    /// may be decoded.
    Close(Option<(CloseCode, Cow<'a, str>)>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_gives_back_what_it_was_made_of() {
        let owned_text = Message::from(String::from("ü"));
        let rows: [(Message<'_>, MessageKind, &[u8]); 4] = [
            (Message::from("ü"), MessageKind::Text, "ü".as_bytes()),
            (owned_text, MessageKind::Text, "ü".as_bytes()),
            (
                Message::from(&[0xff_u8, 0][..]),
                MessageKind::Binary,
                &[0xff, 0],
            ),
            (Message::from(Vec::new()), MessageKind::Binary, &[]),
        ];
        for (message, kind, bytes) in rows {
            assert_eq!(message.kind(), kind);
            assert_eq!(message.as_bytes(), bytes);
            assert_eq!(message.len(), bytes.len());
            assert_eq!(message.is_empty(), bytes.is_empty());
            assert_eq!(message.clone().into_owned(), message);
        }
    }

    #[test]
    fn the_compressed_form_may_be_longer_than_the_message_but_not_by_much() {
        let limits = Limits::default();
        assert_eq!(limits.deflated_bytes_max(), 65_536 + 8_192 + 64);
        let unlimited = Limits {
            message_bytes_max: usize::MAX,
            ..limits
        };
        assert_eq!(unlimited.deflated_bytes_max(), usize::MAX);
    }
}
