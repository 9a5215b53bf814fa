//! The request head: an incremental, bounded parse of what comes before a body or an upgrade.
//!
//! Two passes, each over every byte at most once, however the network cuts the head into pieces. A
//! scanner walks the bytes as they come, keeps its place between reads, and refuses at the first byte
//! that no acceptable head can hold. Behind the last empty line the whole head is parsed once, from
//! the caller's own slice if it came in one read. So a peer that sends single bytes costs no more
//! than one that sends them together, and owns memory only while its head is incomplete.
//!
//! What has more than one reading is refused, rather than read in the way some proxy did not:
//!
//! | shape | answer |
//! | --- | --- |
//! | bare LF, CR without LF, NUL and other control bytes, folded lines, space before the colon | 400 |
//! | `Host` absent (HTTP/1.1), empty, repeated or not `host[:port]` | 400 |
//! | `Origin`, `Authorization`, `Sec-WebSocket-Key`, `Sec-WebSocket-Version` repeated | 400 |
//! | `Content-Length` repeated, a list, signed or not a number | 400 |
//! | `Transfer-Encoding`; an error of its own where it is plainly `chunked`, so that an API can say 411 | 400 |
//! | one CRLF before the request line (RFC 9112 §2.2) | skipped; a second one: 400 |
//! | `GET http://host/path` (RFC 9112 §3.2.2), schemes `http`, `https`, `ws`, `wss` | as `/path`, if `Host` names the same authority; else 400 |
//! | authority form, `*`, a `#fragment` | 400 |
//! | a path with more than one spelling, see [`Head::path`] | 400 |
//! | HTTP/2 preface, any version but 1.0 and 1.1 | 505 |
//! | a TLS `ClientHello` | an error of its own, so that it can be counted |
//!
//! Left to others: what a method, path or header means (`ws::upgrade`, routes, admission), the
//! deadline for the whole head, and bytes behind the head.

use std::borrow::Cow;
use std::fmt;

use super::percent::{self, Plus};
use super::{is_token_byte, is_value_byte};

/// How large a request head may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest head in bytes, from its first byte to the empty line inclusive. Default 16 KiB. A longer
    /// one is answered with 431, or 414 if even the request line did not end.
    pub head_bytes_max: usize,
    /// Most header lines, 1..=[`Limits::HEADERS_CEILING`]. Default 64. One more is answered with 431
    /// at its first byte.
    pub headers_max: usize,
    /// Longest request target in bytes. Default 8 KiB (RFC 9112 §3 asks for 8,000 at least). A longer
    /// one is answered with 414.
    pub target_bytes_max: usize,
}

impl Limits {
    /// The largest useful `headers_max`: the parsed headers live on the stack.
    pub const HEADERS_CEILING: usize = 64;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 16 * 1024,
            headers_max: Self::HEADERS_CEILING,
            target_bytes_max: 8 * 1024,
        }
    }
}

/// Reads one head after another from a connection. A pointer wide; without a heap allocation until a
/// head stays incomplete at the end of a read.
#[derive(Default)]
pub struct HeadReader {
    partial: Option<Box<Partial>>,
}

/// A head that came in more than one piece.
struct Partial {
    scan: Scan,
    bytes: Vec<u8>,
}

/// What one read led to.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "lives on the stack for one call; a box would cost an allocation per connection"
)]
pub enum Progress<'a> {
    /// The head goes on. All of the input was taken.
    Incomplete,
    /// The head is whole.
    Complete {
        /// The head, borrowed from the input or, if it came in pieces, from the reader.
        head: Head<'a>,
        /// How many bytes of this input belong to the head. What lies behind them is not touched.
        used: usize,
    },
}

impl HeadReader {
    /// A reader that waits for the first byte of a head.
    #[must_use]
    pub const fn new() -> Self {
        Self { partial: None }
    }

    /// Takes the next bytes from the peer. A head that is whole within one `input` is parsed from that
    /// slice without a copy. After [`Progress::Complete`] the next call begins the next head. Costs at
    /// most two looks at each byte of a head, in however many calls.
    ///
    /// # Errors
    /// The first thing wrong with the head, in the order of its bytes, and then of what only the whole
    /// head shows. The answer does not depend on how the head was cut into reads. After an error the
    /// reader is spent: refuse with [`HeadError::status`] and drop it.
    pub fn receive<'a>(
        &'a mut self,
        input: &'a [u8],
        limits: &Limits,
    ) -> Result<Progress<'a>, HeadError> {
        let Some(mut partial) = self
            .partial
            .take()
            .filter(|held| held.scan.place != Place::End)
        else {
            return self.begin(input, limits);
        };
        let end = partial.scan.advance(input, limits)?;
        partial.hold(&input[..end.unwrap_or(input.len())], limits);
        let partial = self.partial.insert(partial);
        let Some(used) = end else {
            return Ok(Progress::Incomplete);
        };
        Ok(Progress::Complete {
            head: Head::parse(&partial.bytes, &partial.scan)?,
            used,
        })
    }

    /// Takes the first bytes of a head.
    fn begin<'a>(&mut self, input: &'a [u8], limits: &Limits) -> Result<Progress<'a>, HeadError> {
        let mut scan = Scan::new();
        if let Some(used) = scan.advance(input, limits)? {
            return Ok(Progress::Complete {
                head: Head::parse(&input[..used], &scan)?,
                used,
            });
        }
        if !input.is_empty() {
            self.partial = Some(Box::new(Partial {
                scan,
                bytes: input.to_vec(),
            }));
        }
        Ok(Progress::Incomplete)
    }

    /// Takes the bytes of the last complete head out of the reader, if it held them because the head
    /// came in pieces. For a caller that has to keep a whole head until its body is there.
    pub(crate) fn take_bytes(&mut self) -> Option<Vec<u8>> {
        self.partial.take().map(|partial| partial.bytes)
    }

    /// Bytes of heap this reader holds now, for a memory budget: at most `head_bytes_max` and a
    /// constant, and 0 unless a head came in pieces. A head that did is held until the next call, since
    /// the caller may still look at it; put a new reader in this one's place to give it back earlier.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        self.partial
            .as_ref()
            .map_or(0, |partial| size_of::<Partial>() + partial.bytes.capacity())
    }
}

impl fmt::Debug for HeadReader {
    /// Without the bytes: they may hold a bearer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeadReader")
            .field("bytes_held", &self.bytes_held())
            .finish()
    }
}

impl Partial {
    /// Appends a piece the scanner has let pass. Grows by doubling, so that single bytes stay linear,
    /// but never beyond the longest head.
    fn hold(&mut self, piece: &[u8], limits: &Limits) {
        let needed = self.bytes.len() + piece.len();
        if needed > self.bytes.capacity() {
            let capacity = (2 * self.bytes.capacity())
                .min(limits.head_bytes_max)
                .max(needed);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(piece);
    }
}

/// The scanner: where in the grammar of a head the next byte stands. All that is remembered of the
/// bytes between two reads.
#[derive(Clone, Copy)]
struct Scan {
    place: Place,
    /// Bytes of the current method, target or version so far.
    piece: usize,
    /// Header lines begun.
    headers: usize,
    /// Bytes seen, the head's first byte onwards.
    seen: usize,
    /// Bytes before the request line.
    skipped: usize,
}

/// The next byte is…
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// the first of all,
    Start,
    /// the LF of an empty line before the request line,
    StartLf,
    /// the first of the request line, behind an empty one,
    Request,
    /// in the method or the space behind it,
    Method,
    /// in the target or the space behind it,
    Target,
    /// in the version or the CR behind it,
    Version,
    /// the LF of the request line or of a header line,
    LineLf,
    /// the first of a header line or the CR of the last, empty line,
    Line,
    /// in a header's name or the colon behind it,
    Name,
    /// in a header's value or the CR behind it,
    Value,
    /// the LF of the last line,
    EndLf,
    /// behind the head.
    End,
}

impl Scan {
    const fn new() -> Self {
        Self {
            place: Place::Start,
            piece: 0,
            headers: 0,
            seen: 0,
            skipped: 0,
        }
    }

    /// Walks `input`, each byte once. Returns how many bytes it took to the end of the head, or `None`
    /// if the head goes on.
    fn advance(&mut self, input: &[u8], limits: &Limits) -> Result<Option<usize>, HeadError> {
        let window = &input[..input
            .len()
            .min(limits.head_bytes_max.saturating_sub(self.seen))];
        let mut at = 0;
        while at < window.len() && self.place != Place::End {
            // Within a part of the head all bytes are alike: take the run of them in one go, then
            // the byte that ends the run by itself.
            let rest = &window[at..];
            let run = match self.place {
                Place::Method | Place::Name => token_run(rest),
                Place::Target => visible_run(rest),
                Place::Value => value_run(rest),
                _ => 0,
            };
            steps::count(run);
            at += run;
            self.piece += run;
            match self.place {
                Place::Method if self.piece > METHOD_BYTES_MAX => {
                    return Err(HeadError::MethodTooLong);
                }
                Place::Target if self.piece > limits.target_bytes_max => {
                    return Err(HeadError::TargetTooLong);
                }
                _ => {}
            }
            let Some(&byte) = window.get(at) else { break };
            steps::count(1);
            at += 1;
            self.turn(byte, limits)?;
        }
        self.seen += at;
        if self.place == Place::End {
            return Ok(Some(at));
        }
        if self.seen >= limits.head_bytes_max {
            return Err(match self.place {
                Place::Method | Place::Target | Place::Version => HeadError::TargetTooLong,
                _ => HeadError::HeadTooLong,
            });
        }
        Ok(None)
    }

    /// Takes the one byte that stands between two parts of the head.
    fn turn(&mut self, byte: u8, limits: &Limits) -> Result<(), HeadError> {
        self.place = match (self.place, byte) {
            (Place::Start, TLS_HANDSHAKE) => return Err(HeadError::TlsOnPlainPort),
            (Place::Start, b'\r') => Place::StartLf,
            (Place::StartLf, b'\n') => {
                self.skipped = 2;
                Place::Request
            }
            (Place::Start | Place::Request, byte) if is_token_byte(byte) => {
                self.piece = 1;
                Place::Method
            }
            (Place::Method, b' ') => {
                self.piece = 0;
                Place::Target
            }
            (Place::Target, b' ') if self.piece > 0 => {
                self.piece = 0;
                Place::Version
            }
            (Place::Version, byte) => self.version(byte)?,
            (Place::LineLf, b'\n') => Place::Line,
            (Place::Line, b'\r') => Place::EndLf,
            (Place::Line, b' ' | b'\t') => return Err(HeadError::FoldedLine),
            (Place::Line, byte) if is_token_byte(byte) => {
                self.headers += 1;
                if self.headers > limits.headers_max.min(Limits::HEADERS_CEILING) {
                    return Err(HeadError::TooManyHeaders);
                }
                Place::Name
            }
            (Place::Name, b':') => Place::Value,
            (Place::Value, b'\r') => Place::LineLf,
            (Place::EndLf, b'\n') => Place::End,
            (Place::StartLf | Place::LineLf | Place::EndLf, _) => {
                return Err(HeadError::BareCarriageReturn);
            }
            (_, b'\n') => return Err(HeadError::BareLineFeed),
            (_, 0..=0x1f | 0x7f) if byte != b'\r' => return Err(HeadError::ControlByte),
            (Place::Line | Place::Name, _) => return Err(HeadError::HeaderName),
            (Place::Target, byte) if byte != b'\r' => return Err(HeadError::Target),
            _ => return Err(HeadError::RequestLine),
        };
        Ok(())
    }

    /// Takes a byte of `HTTP/1.x` CR. A well-formed version that is not ours is told from nonsense: the
    /// one is 505, the other 400.
    fn version(&mut self, byte: u8) -> Result<Place, HeadError> {
        const PREFIX: &[u8] = b"HTTP/";
        let at = self.piece;
        self.piece += 1;
        match (at, byte) {
            (0..=4, byte) if byte == PREFIX[at] => Ok(Place::Version),
            (5, b'1') | (6, b'.') | (7, b'0' | b'1') => Ok(Place::Version),
            (5 | 7, b'0'..=b'9') => Err(HeadError::Version),
            (8, b'\r') => Ok(Place::LineLf),
            (_, b'\n') => Err(HeadError::BareLineFeed),
            (_, 0..=0x1f | 0x7f) if byte != b'\r' => Err(HeadError::ControlByte),
            _ => Err(HeadError::RequestLine),
        }
    }
}

/// Longest method in bytes. The longest registered one has 17; a longer one gets 501 (RFC 9112 §3).
const METHOD_BYTES_MAX: usize = 32;

/// The first byte of a TLS record that carries a `ClientHello` (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// How many bytes of `bytes` may stand in a token before the first that may not.
fn token_run(bytes: &[u8]) -> usize {
    const IS_TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 256 {
            #[expect(clippy::cast_possible_truncation, reason = "below 256")]
            let is_token = is_token_byte(byte as u8);
            table[byte] = is_token;
            byte += 1;
        }
        table
    };
    bytes
        .iter()
        .position(|&byte| !IS_TOKEN[usize::from(byte)])
        .unwrap_or(bytes.len())
}

/// How many bytes of `bytes` are visible ASCII before the first that is not.
fn visible_run(bytes: &[u8]) -> usize {
    // Eight bytes at a time: a byte's top bit is set where it, or the difference, says "stop". A borrow
    // can only set bits above a byte that is a true stop, so the lowest is exact.
    let stops = |word: u64| {
        (word.wrapping_sub(0x21 * EACH) | (word ^ (0x7f * EACH)).wrapping_sub(EACH) | word) & TOP
    };
    run(bytes, stops, |byte| byte.is_ascii_graphic())
}

/// How many bytes of `bytes` may stand in a field value before the first that may not.
fn value_run(bytes: &[u8]) -> usize {
    let stops = |word: u64| {
        let delete = word ^ (0x7f * EACH);
        ((word.wrapping_sub(0x20 * EACH) & !word) | (delete.wrapping_sub(EACH) & !delete)) & TOP
    };
    let mut at = 0;
    loop {
        at += run(&bytes[at..], stops, |byte| {
            byte != b'\t' && is_value_byte(byte)
        });
        match bytes.get(at) {
            Some(b'\t') => at += 1,
            _ => return at,
        }
    }
}

/// A byte of ones in each byte of a word.
const EACH: u64 = 0x0101_0101_0101_0101;
/// The top bit of each byte of a word.
const TOP: u64 = 0x8080_8080_8080_8080;

/// The length of the run at the front of `bytes` without a stop. `stops` marks stops in a word, with
/// the lowest mark exact; `passes` is the same question for one byte.
#[inline]
fn run(bytes: &[u8], stops: impl Fn(u64) -> u64, passes: impl Fn(u8) -> bool) -> usize {
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let marks = stops(u64::from_le_bytes(*word));
        if marks != 0 {
            return index * 8 + marks.trailing_zeros() as usize / 8;
        }
    }
    let tail_run = tail
        .iter()
        .position(|&byte| !passes(byte))
        .unwrap_or(tail.len());
    words.len() * 8 + tail_run
}

/// Counts looks at input bytes, for the test that a head is never parsed again.
mod steps {
    #[cfg(test)]
    thread_local! {
        pub(super) static TAKEN: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }

    #[inline(always)]
    pub(super) fn count(_bytes: usize) {
        #[cfg(test)]
        TAKEN.set(TAKEN.get() + _bytes);
    }
}

/// A request head that passed every check of this module. Borrows the bytes it was parsed from.
pub struct Head<'a> {
    method: &'a str,
    target: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    version: Version,
    host: Option<&'a str>,
    content_length: u64,
    headers: [httparse::Header<'a>; Limits::HEADERS_CEILING],
    headers_count: usize,
}

/// The HTTP version of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: no `Host` needed, no upgrade possible.
    Http10,
    /// HTTP/1.1.
    Http11,
}

impl<'a> Head<'a> {
    /// Parses a head whose end and whose bytes the scanner has vouched for.
    fn parse(bytes: &'a [u8], scan: &Scan) -> Result<Self, HeadError> {
        let bytes = &bytes[scan.skipped..];
        steps::count(bytes.len());
        let mut headers = [httparse::EMPTY_HEADER; Limits::HEADERS_CEILING];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(bytes) {
            Ok(httparse::Status::Complete(used)) if used == bytes.len() => {}
            // The scanner is the stricter of the two; should they ever differ, the head is refused.
            Ok(_) => return Err(HeadError::RequestLine),
            Err(error) => return Err(error.into()),
        }
        let (Some(method), Some(target), Some(minor)) =
            (request.method, request.path, request.version)
        else {
            return Err(HeadError::RequestLine);
        };
        let headers_count = request.headers.len();
        let version = if minor == 0 {
            Version::Http10
        } else {
            Version::Http11
        };
        let Target {
            authority,
            path,
            query,
        } = Target::split(target)?;
        check_path(path)?;
        let known = Known::collect(&headers[..headers_count])?;
        let host = known.host.map(authority_of_host).transpose()?;
        match (host, authority) {
            (None, _) if version == Version::Http11 => return Err(HeadError::Host),
            // RFC 9112 §3.2.2 lets the target's authority win over Host. Where they differ, a proxy
            // may have routed by the one and we by the other.
            (Some(host), Some(authority)) if !host.eq_ignore_ascii_case(authority) => {
                return Err(HeadError::Host);
            }
            _ => {}
        }
        let content_length = match (known.transfer_encoding, known.content_length) {
            (None, length) => length.map_or(Ok(0), parse_length)?,
            // There is no doubt about what is meant, only no way to serve it. In HTTP/1.0 there are
            // no transfer codings, so somebody before us may have read it otherwise.
            (Some(coding), None)
                if version == Version::Http11 && coding.eq_ignore_ascii_case(b"chunked") =>
            {
                return Err(HeadError::ChunkedBody);
            }
            (Some(_), _) => return Err(HeadError::Framing),
        };
        Ok(Self {
            method,
            target,
            path,
            query,
            version,
            host: host.or(authority),
            content_length,
            headers,
            headers_count,
        })
    }

    /// The method. Case-sensitive (RFC 9110 §9.1).
    #[must_use]
    pub const fn method(&self) -> &'a str {
        self.method
    }

    /// The request target as sent. May hold a bearer in its query: not for logs.
    #[must_use]
    pub const fn target(&self) -> &'a str {
        self.target
    }

    /// The path as sent, percent escapes and all. Begins with `/`.
    ///
    /// It has one spelling only, so that a rule that matches paths cannot be passed by with another
    /// one. These were refused: empty segments (`//`; a single `/` at the end is kept and significant),
    /// `.` and `..` segments, `;`, characters that RFC 3986 §3.3 does not allow, invalid escapes,
    /// escapes that decode to a control character, `/`, `\`, `;`, `%`, or to a character that needs no
    /// escape (letters, digits, `-._~`), and escapes that do not decode to UTF-8.
    ///
    /// What remains free is the case of hexadecimal digits and the escaping of `!$&'()*+,=:@`: match
    /// on [`Head::path_segments`], which are the same for both spellings.
    #[must_use]
    pub const fn path(&self) -> &'a str {
        self.path
    }

    /// The segments of the path, percent-decoded exactly once. A path that ends in `/` ends in an
    /// empty segment: `/ws/projects/42/` has `ws`, `projects`, `42` and the empty one.
    pub fn path_segments(&self) -> impl Iterator<Item = Cow<'a, str>> + use<'a> {
        segments(self.path).map(|segment| {
            // Decodes: `check_path` saw to it.
            percent::decode(segment, Plus::Literal).unwrap_or(Cow::Borrowed(segment))
        })
    }

    /// The query as sent, without the `?`; see [`pairs`](super::query::pairs). May hold a bearer.
    #[must_use]
    pub const fn query(&self) -> Option<&'a str> {
        self.query
    }

    /// The HTTP version.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The authority asked for, as `host` or `host:port`. `None` only in HTTP/1.0.
    #[must_use]
    pub const fn host(&self) -> Option<&'a str> {
        self.host
    }

    /// Bytes of body that follow the head; 0 if it announces none.
    #[must_use]
    pub const fn content_length(&self) -> u64 {
        self.content_length
    }

    /// The value of the header called `name` (any case), without the white space around it, if there is
    /// exactly one such line. Headers for which a second line would matter (`Host`, `Origin`,
    /// `Authorization`, `Content-Length`, `Sec-WebSocket-Key`, `Sec-WebSocket-Version`) were refused
    /// if repeated; for lists use [`Head::headers`]. O(headers).
    ///
    /// A value that is not UTF-8 reads as `"\u{FFFD}"`: it is present, so that no rule takes the header
    /// for absent, and it equals nothing a rule may ask for.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        let mut values = self.headers(name);
        let first = values.next()?;
        values.next().is_none().then_some(first)
    }

    /// The values of all headers called `name` (any case), in the order of their lines. Values that are
    /// not UTF-8 read as in [`Head::header`].
    pub fn headers<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'a str> + use<'a, 's> {
        self.headers[..self.headers_count]
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| text(header.value))
    }
}

impl fmt::Debug for Head<'_> {
    /// Without target and values: they may hold a bearer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Head")
            .field("method", &self.method)
            .field("version", &self.version)
            .field("target_bytes", &self.target.len())
            .field("headers", &self.headers_count)
            .finish_non_exhaustive()
    }
}

fn text(value: &[u8]) -> &str {
    std::str::from_utf8(value.trim_ascii()).unwrap_or("\u{FFFD}")
}

/// The headers that decide where a request ends and whom it is for.
#[derive(Default)]
struct Known<'a> {
    host: Option<&'a [u8]>,
    content_length: Option<&'a [u8]>,
    transfer_encoding: Option<&'a [u8]>,
}

impl<'a> Known<'a> {
    fn collect(headers: &[httparse::Header<'a>]) -> Result<Self, HeadError> {
        let mut known = Self::default();
        let mut seen = [false; ONCE.len()];
        for header in headers {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is("transfer-encoding")
                && known
                    .transfer_encoding
                    .replace(header.value.trim_ascii())
                    .is_some()
            {
                return Err(HeadError::Framing);
            }
            if let Some(at) = ONCE.iter().position(|name| is(name)) {
                if std::mem::replace(&mut seen[at], true) {
                    return Err(HeadError::RepeatedHeader);
                }
                match at {
                    0 => known.host = Some(header.value),
                    1 => known.content_length = Some(header.value),
                    _ => {}
                }
            }
        }
        Ok(known)
    }
}

/// Headers of which a second line is refused: with two, one reader takes the first and another the
/// last (RFC 9112 §3.2 for `Host`, §6.3 for `Content-Length`, RFC 6455 §11.3 for the last two).
const ONCE: [&str; 6] = [
    "host",
    "content-length",
    "origin",
    "authorization",
    "sec-websocket-key",
    "sec-websocket-version",
];

/// A request target, taken apart.
struct Target<'a> {
    authority: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
}

impl<'a> Target<'a> {
    fn split(target: &'a str) -> Result<Self, HeadError> {
        if target.contains('#') {
            return Err(HeadError::Target);
        }
        let (authority, rest) = if target.starts_with('/') {
            (None, target)
        } else {
            let (scheme, rest) = target.split_once("://").ok_or(HeadError::Target)?;
            if !["http", "https", "ws", "wss"]
                .iter()
                .any(|s| scheme.eq_ignore_ascii_case(s))
            {
                return Err(HeadError::Target);
            }
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (authority, rest) = rest.split_at(end);
            if !is_authority(authority) {
                return Err(HeadError::Target);
            }
            (Some(authority), rest)
        };
        let (path, query) = rest
            .split_once('?')
            .map_or((rest, None), |(path, query)| (path, Some(query)));
        Ok(Self {
            authority,
            path: if path.is_empty() { "/" } else { path },
            query,
        })
    }
}

/// The segments of a path that begins with `/`, as sent.
fn segments(path: &str) -> std::str::Split<'_, char> {
    path.strip_prefix('/').unwrap_or(path).split('/')
}

/// Refuses every path that has another spelling, see [`Head::path`].
fn check_path(path: &str) -> Result<(), HeadError> {
    let mut rest = segments(path).peekable();
    while let Some(segment) = rest.next() {
        let is_last = rest.peek().is_none();
        let is_plain = segment
            .bytes()
            .all(|byte| is_unreserved(byte) || is_path_delimiter(byte));
        if (segment.is_empty() && !is_last) || segment == "." || segment == ".." || !is_plain {
            return Err(HeadError::Path);
        }
        if segment.contains('%') {
            let decoded = percent::decode(segment, Plus::Literal).ok_or(HeadError::Path)?;
            let is_needless = |byte| is_unreserved(byte) || b"/\\;%".contains(&byte);
            if decoded.contains(char::is_control)
                || percent::escaped_bytes(segment).any(is_needless)
            {
                return Err(HeadError::Path);
            }
        }
    }
    Ok(())
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// The rest of what a segment may hold (RFC 3986 §3.3), `%` included and `;` not: servers differ in
/// whether a parameter behind it belongs to the path.
const fn is_path_delimiter(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'$' | b'%' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@'
    )
}

fn authority_of_host(value: &[u8]) -> Result<&str, HeadError> {
    let host = text(value);
    if is_authority(host) {
        Ok(host)
    } else {
        Err(HeadError::Host)
    }
}

/// Is this `host`, `host:port`, `[v6]` or `[v6]:port`? Stricter than RFC 3986 §3.2.2: no user part, no
/// escapes, no sub-delimiters (a comma would be two hosts to some), which no real host name has.
fn is_authority(authority: &str) -> bool {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let Some((host, port)) = rest.split_once(']') else {
            return false;
        };
        if !host
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'))
        {
            return false;
        }
        match port.strip_prefix(':') {
            Some(port) => (host, port),
            None if port.is_empty() => (host, ""),
            None => return false,
        }
    } else {
        let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
        if !host.bytes().all(is_unreserved) {
            return false;
        }
        (host, port)
    };
    !host.is_empty() && port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// `Content-Length = 1*DIGIT`: no sign, no list, no space (RFC 9110 §8.6).
fn parse_length(value: &[u8]) -> Result<u64, HeadError> {
    let value = text(value);
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(HeadError::Framing);
    }
    value.parse().map_err(|_| HeadError::Framing)
}

/// Why a head is refused. No variant carries a byte the peer sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeadError {
    /// The first byte is that of a TLS record: a client speaks `wss` or `https` to a plain port. It
    /// would not understand an answer; close.
    TlsOnPlainPort,
    /// A control byte that HTTP does not allow there.
    ControlByte,
    /// An LF without a CR before it.
    BareLineFeed,
    /// A CR without an LF behind it.
    BareCarriageReturn,
    /// A header line that begins with white space (obs-fold, RFC 9112 §5.2).
    FoldedLine,
    /// The request line is not method, target, version with one space between them.
    RequestLine,
    /// A method longer than any this server knows.
    MethodTooLong,
    /// The request line or its target is longer than the limit.
    TargetTooLong,
    /// A request target of a form or with characters that are not served.
    Target,
    /// A path that has another spelling; see [`Head::path`].
    Path,
    /// Neither HTTP/1.1 nor HTTP/1.0.
    Version,
    /// A header name that is empty or holds something else than token characters, such as a space.
    HeaderName,
    /// A header value that holds what it may not.
    HeaderValue,
    /// More header lines than the limit.
    TooManyHeaders,
    /// More bytes than the limit.
    HeadTooLong,
    /// `Host` is missing, invalid, or names another authority than the target.
    Host,
    /// A header that may stand once stands twice.
    RepeatedHeader,
    /// An invalid `Content-Length`, or a `Transfer-Encoding` that is not just `chunked`.
    Framing,
    /// A body that is plainly chunked. It is not served: one way to know where a request ends is
    /// enough.
    ChunkedBody,
}

impl HeadError {
    /// Every label there is, in the order of the variants: for a metric that starts at zero.
    pub const LABELS: [&str; 19] = [
        "tls_on_plain_port",
        "control_byte",
        "bare_line_feed",
        "bare_carriage_return",
        "folded_line",
        "request_line",
        "method_too_long",
        "target_too_long",
        "target",
        "path",
        "version",
        "header_name",
        "header_value",
        "too_many_headers",
        "head_too_long",
        "host",
        "repeated_header",
        "framing",
        "chunked_body",
    ];

    /// The reason as a metric's label, one of [`HeadError::LABELS`].
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::TlsOnPlainPort => "tls_on_plain_port",
            Self::ControlByte => "control_byte",
            Self::BareLineFeed => "bare_line_feed",
            Self::BareCarriageReturn => "bare_carriage_return",
            Self::FoldedLine => "folded_line",
            Self::RequestLine => "request_line",
            Self::MethodTooLong => "method_too_long",
            Self::TargetTooLong => "target_too_long",
            Self::Target => "target",
            Self::Path => "path",
            Self::Version => "version",
            Self::HeaderName => "header_name",
            Self::HeaderValue => "header_value",
            Self::TooManyHeaders => "too_many_headers",
            Self::HeadTooLong => "head_too_long",
            Self::Host => "host",
            Self::RepeatedHeader => "repeated_header",
            Self::Framing => "framing",
            Self::ChunkedBody => "chunked_body",
        }
    }

    /// The status to refuse with. [`HeadError::TlsOnPlainPort`] has one for the log's sake only.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::TlsOnPlainPort
            | Self::ControlByte
            | Self::BareLineFeed
            | Self::BareCarriageReturn
            | Self::FoldedLine
            | Self::RequestLine
            | Self::Target
            | Self::Path
            | Self::HeaderName
            | Self::HeaderValue
            | Self::Host
            | Self::RepeatedHeader
            | Self::Framing
            | Self::ChunkedBody => 400,
            Self::TargetTooLong => 414,
            Self::TooManyHeaders | Self::HeadTooLong => 431,
            Self::MethodTooLong => 501,
            Self::Version => 505,
        }
    }

    /// One line for the log and for the body of the refusal.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::TlsOnPlainPort => "TLS on a port for plain HTTP",
            Self::ControlByte => "control byte in the request head",
            Self::BareLineFeed => "line feed without carriage return in the request head",
            Self::BareCarriageReturn => "carriage return without line feed in the request head",
            Self::FoldedLine => "header line begins with white space",
            Self::RequestLine => "malformed request line",
            Self::MethodTooLong => "unknown method",
            Self::TargetTooLong => "request target too long",
            Self::Target => "unsupported request target",
            Self::Path => "ambiguous path",
            Self::Version => "unsupported HTTP version",
            Self::HeaderName => "malformed header name",
            Self::HeaderValue => "malformed header value",
            Self::TooManyHeaders => "too many headers",
            Self::HeadTooLong => "request head too long",
            Self::Host => "missing or invalid Host",
            Self::RepeatedHeader => "repeated header",
            Self::Framing => "unsupported or ambiguous body length",
            Self::ChunkedBody => "chunked body",
        }
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for HeadError {}

impl From<httparse::Error> for HeadError {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::HeaderName => Self::HeaderName,
            httparse::Error::HeaderValue => Self::HeaderValue,
            httparse::Error::NewLine => Self::BareLineFeed,
            httparse::Error::TooManyHeaders => Self::TooManyHeaders,
            httparse::Error::Version => Self::Version,
            httparse::Error::Status | httparse::Error::Token => Self::RequestLine,
        }
    }
}

#[cfg(test)]
mod tests;
