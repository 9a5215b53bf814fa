//! permessage-deflate (RFC 7692): its negotiation, and one shared compressor and decompressor per
//! reactor.
//!
//! A compressor holds some hundred KiB and a decompressor about fifty. Kept per connection, as
//! context takeover needs it, they would outweigh everything else a connection owns, and a peer
//! could have them made for nothing. So the answer always says `server_no_context_takeover` and
//! `client_no_context_takeover`: every message stands alone, and an [`Inflater`] and a [`Deflater`]
//! serve all connections of a reactor in turn. They make their state on first use.
//!
//! What a peer sends is inflated under a cap of bytes and of ratio, and never further than one byte
//! beyond it.

use std::borrow::Cow;
use std::fmt;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::http::is_token_byte;

use super::Limits;
use super::decoder::Violation;

/// Inflated size up to which the ratio is not judged, in bytes: what a connection may hold
/// uncompressed by default.
pub const INFLATED_BYTES_FREE: usize = 64 * 1024;

/// Shortest payload worth compressing, in bytes. Below, the sync marker and the fixed cost of a
/// compressor outweigh the few bytes that could be won.
pub const DEFLATE_BYTES_MIN: usize = 64;

/// Most extensions a client may offer, of any name. A browser offers one.
pub const OFFERS_MAX: usize = 16;

/// What was agreed on for one connection (RFC 7692 §7.1). Without an offer to the contrary, the
/// largest window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeflateParameters {
    /// 8..=15 where the client asked for a limit, which the answer then repeats (§7.1.2.1 there).
    server_max_window_bits: Option<u8>,
}

/// Why an offer of extensions cannot be answered at all. To be refused with status 400 (§9.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtensionsError {
    /// The header does not follow the grammar of §9.1.
    Malformed,
    /// More than [`OFFERS_MAX`] extensions.
    TooMany,
}

impl fmt::Display for ExtensionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed Sec-WebSocket-Extensions",
            Self::TooMany => "too many extensions offered",
        })
    }
}

impl std::error::Error for ExtensionsError {}

impl DeflateParameters {
    /// Chooses the first acceptable offer of permessage-deflate in the values of the
    /// `Sec-WebSocket-Extensions` headers, in their order. Other extensions are passed over, and so
    /// are offers whose parameters are unknown, repeated or out of range (RFC 7692 §7.1). `None` if
    /// nothing acceptable is offered. Time is linear in the length.
    ///
    /// # Errors
    /// The values are not a list of extensions, or a list of too many.
    pub fn negotiate<'h>(
        offers: impl Iterator<Item = &'h str>,
    ) -> Result<Option<Self>, ExtensionsError> {
        let mut chosen = None;
        let mut seen = 0;
        for value in offers {
            let mut scanner = Scanner {
                rest: value.as_bytes(),
            };
            loop {
                // A list may have empty elements (RFC 9110 §5.6.1).
                while scanner.take(b',') {}
                if scanner.rest.is_empty() {
                    break;
                }
                seen += 1;
                if seen > OFFERS_MAX {
                    return Err(ExtensionsError::TooMany);
                }
                // The whole list is read, also behind the chosen one: a malformed header has no
                // good half.
                let offer = scanner.offer()?;
                chosen = chosen.or(offer);
            }
        }
        Ok(chosen)
    }

    /// Appends the value of the answer's `Sec-WebSocket-Extensions` header.
    pub fn write_response(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(NAME);
        out.extend_from_slice(b"; server_no_context_takeover; client_no_context_takeover");
        if let Some(bits) = self.server_max_window_bits {
            out.extend_from_slice(b"; server_max_window_bits=");
            if bits >= 10 {
                out.push(b'1');
            }
            out.push(b'0' + bits % 10);
        }
    }

    /// Binary logarithm of the window messages to this client are compressed with, 8..=15.
    #[must_use]
    pub fn window_bits(&self) -> u8 {
        self.server_max_window_bits.unwrap_or(WINDOW_BITS_MAX)
    }
}

/// Reads `extension *( ";" parameter )` lists (§9.1), each byte once.
struct Scanner<'h> {
    rest: &'h [u8],
}

/// A parameter's value as it stands in the header.
enum Value<'h> {
    Absent,
    Token(&'h [u8]),
    /// Between the quotation marks, still with its backslashes.
    Quoted(&'h [u8]),
}

impl<'h> Scanner<'h> {
    /// Reads one extension and its parameters, up to the comma or the end behind it. `None` if it
    /// is another extension or an offer to decline.
    fn offer(&mut self) -> Result<Option<DeflateParameters>, ExtensionsError> {
        let is_deflate = self.token()? == NAME;
        let mut parameters = DeflateParameters::default();
        let mut is_valid = is_deflate;
        let mut seen = [false; 4];
        while self.take(b';') {
            let name = self.token()?;
            let value = self.value()?;
            let Some(known) = PARAMETERS.iter().position(|parameter| *parameter == name) else {
                is_valid = false;
                continue;
            };
            // "Multiple extension parameters with the same name" decline the offer (RFC 7692 §7.1).
            is_valid &= !std::mem::replace(&mut seen[known], true);
            is_valid &= match (name, value) {
                (SERVER_NO_CONTEXT_TAKEOVER | CLIENT_NO_CONTEXT_TAKEOVER, Value::Absent) => true,
                // We inflate with the largest window, so whatever the client keeps to is fine with
                // us (§7.1.2.2 there).
                (CLIENT_MAX_WINDOW_BITS, Value::Absent) => true,
                (CLIENT_MAX_WINDOW_BITS, value) => value.window_bits().is_some(),
                (SERVER_MAX_WINDOW_BITS, value) => {
                    parameters.server_max_window_bits = value.window_bits();
                    parameters.server_max_window_bits.is_some()
                }
                _ => false,
            };
        }
        self.skip_space();
        if self.rest.first().is_some_and(|byte| *byte != b',') {
            return Err(ExtensionsError::Malformed);
        }
        Ok(is_valid.then_some(parameters))
    }

    fn value(&mut self) -> Result<Value<'h>, ExtensionsError> {
        if !self.take(b'=') {
            return Ok(Value::Absent);
        }
        if !self.take(b'"') {
            return Ok(Value::Token(self.token()?));
        }
        let mut end = 0;
        loop {
            // Unescaped, the value has to be a token again (§9.1).
            match self.rest[end..] {
                [b'"', ..] if end > 0 => break,
                [b'\\', byte, ..] if is_token_byte(byte) => end += 2,
                [byte, ..] if is_token_byte(byte) => end += 1,
                _ => return Err(ExtensionsError::Malformed),
            }
        }
        let (quoted, behind) = self.rest.split_at(end);
        self.rest = &behind[1..];
        Ok(Value::Quoted(quoted))
    }

    fn token(&mut self) -> Result<&'h [u8], ExtensionsError> {
        self.skip_space();
        let end = self.rest.iter().position(|byte| !is_token_byte(*byte));
        let (token, behind) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = behind;
        if token.is_empty() {
            Err(ExtensionsError::Malformed)
        } else {
            Ok(token)
        }
    }

    /// Passes over `wanted`, and the space before it, if it is next.
    fn take(&mut self, wanted: u8) -> bool {
        self.skip_space();
        let is_next = self.rest.first() == Some(&wanted);
        if is_next {
            self.rest = &self.rest[1..];
        }
        is_next
    }

    fn skip_space(&mut self) {
        let start = self
            .rest
            .iter()
            .position(|byte| !matches!(byte, b' ' | b'\t'));
        self.rest = &self.rest[start.unwrap_or(self.rest.len())..];
    }
}

impl Value<'_> {
    /// A decimal number from 8 to 15 without leading zeroes (RFC 7692 §7.1.2).
    fn window_bits(&self) -> Option<u8> {
        let (Value::Token(raw) | Value::Quoted(raw)) = *self else {
            return None;
        };
        // A token has no backslash, so this changes only what was quoted.
        let mut digits = raw.iter().filter(|byte| **byte != b'\\');
        match (digits.next(), digits.next(), digits.next()) {
            (Some(digit @ b'8'..=b'9'), None, None) => Some(digit - b'0'),
            (Some(b'1'), Some(digit @ b'0'..=b'5'), None) => Some(10 + digit - b'0'),
            _ => None,
        }
    }
}

/// Compresses messages, one at a time, each by itself. One serves a whole reactor.
///
/// A compressor is made for each size of window when it is first asked for, of which clients seldom
/// want another than the largest: about 350 KiB with 15 bits.
#[derive(Debug, Default)]
pub struct Deflater {
    /// By window, from [`WINDOW_BITS_MIN`] bits to 15.
    compressors: [Option<Compress>; 7],
}

impl Deflater {
    /// One without any state yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            compressors: [const { None }; 7],
        }
    }

    /// Appends the compressed form of a message (RFC 7692 §7.2.1) to `out`, for a frame with RSV1
    /// and for any client that agreed to `window_bits`, 8..=15; what lies outside is taken for the
    /// nearest. `false` if it would not be shorter than `payload`: `out` is then as it was, and the
    /// message had better be sent as it is.
    ///
    /// A window of 8 bits is served by the compressor for 9: raw deflate knows no smaller one, and
    /// that one keeps 262 bytes of its 512 for looking ahead, so that it never refers back further
    /// than 250.
    #[must_use]
    pub fn deflate(&mut self, payload: &[u8], window_bits: u8, out: &mut Vec<u8>) -> bool {
        let bits = window_bits.clamp(WINDOW_BITS_MIN, WINDOW_BITS_MAX);
        let compressor = self.compressors[usize::from(bits - WINDOW_BITS_MIN)]
            .get_or_insert_with(|| Compress::new_with_window_bits(LEVEL, false, bits));
        compressor.reset();

        let start = out.len();
        // Room for the worst case, in which a literal takes nine bits: a compressor that runs out
        // of room keeps bytes back, and zlib-rs 0.6.8 panics on a later message when it has.
        out.resize(start + payload.len() + payload.len() / 4 + 64, 0);
        let status = compressor.compress(payload, &mut out[start..], FlushCompress::Sync);
        let (read, written) = (compressor.total_in(), compressor.total_out());
        out.truncate(start + count(written));
        // The marker at the very end is the sign that all of it was flushed; it stays behind (RFC
        // 7692 §7.2.1).
        let is_shorter = count(written) < payload.len() + SYNC_MARKER.len();
        let is_whole = matches!(status, Ok(Status::Ok))
            && count(read) == payload.len()
            && out[start..].ends_with(&SYNC_MARKER);
        if !is_shorter || !is_whole {
            out.truncate(start);
            return false;
        }
        out.truncate(out.len() - SYNC_MARKER.len());
        true
    }
}

/// Inflates messages, one at a time, each by itself. One serves a whole reactor, and lends out its
/// buffer.
#[derive(Debug, Default)]
pub struct Inflater {
    decompressor: Option<Decompress>,
    /// Written over by every message; as long as the longest so far, up to [`KEPT_BYTES_MAX`].
    buffer: Vec<u8>,
}

impl Inflater {
    /// One without any state yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            decompressor: None,
            buffer: Vec::new(),
        }
    }

    /// Inflates the payload of a whole compressed message (RFC 7692 §7.2.2). A payload of no bytes
    /// is an empty message.
    ///
    /// Borrowed from this inflater, or owned where the message is too long for its buffer to be
    /// kept.
    ///
    /// # Errors
    /// [`Violation::MessageTooBig`] or [`Violation::InflateRatio`] as soon as one byte too many has
    /// come out, and [`Violation::Deflate`] for data that is broken or incomplete.
    pub fn inflate(
        &mut self,
        deflated: &[u8],
        limits: &Limits,
    ) -> Result<Cow<'_, [u8]>, Violation> {
        if deflated.is_empty() {
            return Ok(Cow::Borrowed(&[]));
        }
        let len = self.fill(deflated, limits)?;
        if self.buffer.len() > KEPT_BYTES_MAX {
            let mut owned = std::mem::take(&mut self.buffer);
            owned.truncate(len);
            return Ok(Cow::Owned(owned));
        }
        Ok(Cow::Borrowed(&self.buffer[..len]))
    }

    /// Inflates into the buffer and says how far.
    fn fill(&mut self, deflated: &[u8], limits: &Limits) -> Result<usize, Violation> {
        let ratio = usize::try_from(limits.inflate_ratio_max).unwrap_or(usize::MAX);
        let by_ratio = deflated
            .len()
            .saturating_mul(ratio)
            .max(INFLATED_BYTES_FREE);
        let bytes_max = limits.message_bytes_max.min(by_ratio);

        let decompressor = self
            .decompressor
            .get_or_insert_with(|| Decompress::new(false));
        decompressor.reset(false);
        let mut len = 0;
        for (mut input, is_end) in [(deflated, false), (&END_OF_MESSAGE[..], true)] {
            loop {
                if len == self.buffer.len() {
                    // One byte beyond the cap tells a message that is too long from one that fits.
                    let doubled = len.saturating_mul(2).max(BUFFER_BYTES_MIN);
                    let grown = doubled.min(bytes_max.saturating_add(1));
                    self.buffer.reserve_exact(grown - len);
                    self.buffer.resize(grown, 0);
                }
                let room = self.buffer.len().min(bytes_max.saturating_add(1));
                let (read, written) = (decompressor.total_in(), decompressor.total_out());
                let status = decompressor
                    .decompress(input, &mut self.buffer[len..room], FlushDecompress::None)
                    .map_err(|_| Violation::Deflate)?;
                let read = count(decompressor.total_in() - read);
                let written = count(decompressor.total_out() - written);
                input = &input[read..];
                len += written;
                if len > limits.message_bytes_max {
                    return Err(Violation::MessageTooBig);
                }
                if len > bytes_max {
                    return Err(Violation::InflateRatio);
                }
                match status {
                    Status::StreamEnd if input.is_empty() => return Ok(len),
                    // A block with BFINAL set ends a stream, not the message (RFC 7692 §7.2.3.4).
                    Status::StreamEnd if !is_end => decompressor.reset(false),
                    Status::StreamEnd => return Err(Violation::Deflate),
                    Status::Ok | Status::BufError if input.is_empty() && len < room => break,
                    Status::Ok | Status::BufError if read == 0 && written == 0 && len < room => {
                        return Err(Violation::Deflate);
                    }
                    Status::Ok | Status::BufError => {}
                }
            }
        }
        // The final block of the end was taken for something else: the data stopped inside a block.
        Err(Violation::Deflate)
    }
}

/// A count that a slice's length bounds.
#[expect(clippy::cast_possible_truncation, reason = "counts bytes of one slice")]
fn count(bytes: u64) -> usize {
    bytes as usize
}

const NAME: &[u8] = b"permessage-deflate";
const SERVER_NO_CONTEXT_TAKEOVER: &[u8] = b"server_no_context_takeover";
const CLIENT_NO_CONTEXT_TAKEOVER: &[u8] = b"client_no_context_takeover";
const SERVER_MAX_WINDOW_BITS: &[u8] = b"server_max_window_bits";
const CLIENT_MAX_WINDOW_BITS: &[u8] = b"client_max_window_bits";
const PARAMETERS: [&[u8]; 4] = [
    SERVER_NO_CONTEXT_TAKEOVER,
    CLIENT_NO_CONTEXT_TAKEOVER,
    SERVER_MAX_WINDOW_BITS,
    CLIENT_MAX_WINDOW_BITS,
];

/// Smallest window raw deflate can be made with.
const WINDOW_BITS_MIN: u8 = 9;
const WINDOW_BITS_MAX: u8 = 15;

/// The level whose time a reactor can spare.
const LEVEL: Compression = Compression::fast();

/// What a sync flush ends with, and what is left out on the wire (RFC 7692 §7.2.1).
const SYNC_MARKER: [u8; 4] = [0, 0, 0xff, 0xff];

/// The marker the sender left out, and an empty final block. A decompressor that meets it between
/// two blocks, as it has to, comes to the end of the stream exactly at its end; any other would go
/// on waiting, and so gives the data away.
const END_OF_MESSAGE: [u8; 6] = [0, 0, 0xff, 0xff, 0x03, 0x00];

/// What the buffer begins with; it doubles from there.
const BUFFER_BYTES_MIN: usize = 16 * 1024;

/// Longest buffer that stays with the reactor.
const KEPT_BYTES_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests;
