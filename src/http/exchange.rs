//! The server's side of HTTP/1.1 for small requests: an API for backends, endpoints for monitoring.
//!
//! Bytes in, answers out; no socket and no clock. Requests come one after another over a kept
//! connection, and a handler answers each at once or [puts its answer off](Response::defer); then no
//! further request is taken until the answer has been [given](Exchange::answer). So answers leave in
//! order (RFC 9112 §9.3.2) and there is never more than one request in memory.
//!
//! | request | becomes |
//! | --- | --- |
//! | a body of `Content-Length` bytes, up to the limit | handed over whole; from the caller's own slice if all of the request is in it |
//! | a longer one | 413 as soon as the head is there, and the end of the connection (RFC 9110 §15.5.14) |
//! | `Transfer-Encoding: chunked` | 411, and the end |
//! | any other doubt about where the request ends: see [`head`] | 400, and the end (RFC 9112 §6.3) |
//! | `Expect: 100-continue` with a body | 100 before the body is read (RFC 9110 §10.1.1); other expectations are passed over |
//! | `HEAD` | the head that `GET` would get, with its `Content-Length` (RFC 9110 §9.3.2) |
//! | `Connection: close`; HTTP/1.0 without `keep-alive` | an answer, and the end (RFC 9112 §9.3) |
//! | `Upgrade` | passed over (RFC 9110 §7.8) |
//!
//! Chunked bodies are not served, because nobody needs them here and each way to know where a request
//! ends is one more for a proxy and a server to disagree about. The HTTP libraries that talk to an API
//! like this one (Python's `requests`, `httpx` and `aiohttp`, and `cent` on top of them; `fetch`; Go's
//! `net/http`; curl) send a `Content-Length` with any body that they have in memory, as JSON always is.
//! They chunk only what is streamed from a generator or a pipe, and 411 tells their user why.
//!
//! Left to others: what a method or path means, authentication, deadlines (a request that has begun, a
//! connection that [idles](Exchange::is_idle)), and the lingering close behind the last answer.

use std::borrow::Cow;
use std::fmt;

use smallvec::SmallVec;

use super::date::HttpDate;
use super::head::{self, Head, HeadError, HeadReader, Version};
use super::query::{self, InvalidEscape};
use super::response::{Status, write_refusal, write_response};

/// How large a request may be, and how much is answered in one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// What a head may be.
    pub head: head::Limits,
    /// Longest body in bytes. Default 64 KiB. A longer one is answered with 413.
    pub body_bytes_max: usize,
    /// Most requests that are answered in one call, at least 1. Default 64. Then
    /// [`Next::Flush`] lets the caller serve other connections first.
    pub requests_per_call: usize,
    /// No further request is answered while the output holds this many bytes or more, at least 1.
    /// Default 64 KiB. One answer may go beyond it.
    pub output_bytes_high_water: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: head::Limits::default(),
            body_bytes_max: 64 * 1024,
            requests_per_call: 64,
            output_bytes_high_water: 64 * 1024,
        }
    }
}

/// One connection's exchange of requests and answers. Two words; no heap unless a request has come in
/// part.
#[derive(Debug, Default)]
pub struct Exchange {
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// Between two requests, or in a head.
    Head(HeadReader),
    /// In a body that did not come in one read with its head.
    Body(Box<Partial>),
    /// The handler has put off its answer to a request.
    Answer(Framing),
    /// The last answer was given; nothing more is read.
    Ended,
}

/// How the answer to a request is framed, whatever it says.
#[derive(Clone, Copy, Debug)]
struct Framing {
    is_head: bool,
    keeps_alive: bool,
}

impl Default for Phase {
    fn default() -> Self {
        Self::Head(HeadReader::new())
    }
}

/// A request whose body goes on.
struct Partial {
    /// The head, then the body so far.
    bytes: Vec<u8>,
    head_bytes: usize,
    /// Bytes of the whole request.
    request_bytes: usize,
}

/// What one call of [`Exchange::receive`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Progress {
    /// How many bytes of the input are done with. All of them, but for [`Next::Flush`] and
    /// [`Next::Await`].
    pub used: usize,
    /// What the caller is to do.
    pub next: Next,
}

/// What is to be done behind a call, once the output is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Read more.
    Read,
    /// Enough was answered for one call, or the output is full. When it is written, call again with the
    /// rest of the input before reading more.
    Flush,
    /// An answer was put off. Take no further bytes from the client; when the answer is there, give it
    /// to [`Exchange::answer`], and call again with the rest of the input before reading more.
    Await,
    /// Close behind the output: client or handler asked for it.
    Close,
    /// Close behind the output, which ends in a refusal.
    Refuse(Refusal),
}

/// A request that was not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Its head.
    Head(HeadError),
    /// Its body is announced to be longer than the limit.
    BodyTooLong,
}

impl Refusal {
    /// The status of the answer. There is none to [`HeadError::TlsOnPlainPort`].
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Head(HeadError::ChunkedBody) => 411,
            Self::Head(error) => error.status(),
            Self::BodyTooLong => 413,
        }
    }

    /// One line for the log and for the body of the answer.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Head(HeadError::ChunkedBody) => "chunked body: send a Content-Length instead",
            Self::Head(error) => error.reason(),
            Self::BodyTooLong => "request body too long",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for Refusal {}

/// Answers a request, or puts its answer off; see [`Exchange::receive`].
pub type Serve<'s> = dyn FnMut(&Request<'_>, &mut Response<'_>) + 's;

impl Exchange {
    /// An exchange that waits for its first request.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            phase: Phase::Head(HeadReader::new()),
        }
    }

    /// Takes the next bytes from the client, has `serve` answer each request that is whole, and appends
    /// the answers to `out`. The caller writes `out` and then does what [`Progress::next`] says.
    ///
    /// However the input is cut into calls, the answers are the same bytes, and `serve` sees the same
    /// requests once each. Linear in the input. A request that is whole within one `input` is served
    /// without a copy; of one that is not, what has arrived is kept, and never more than the limits for
    /// head and body allow: nothing is reserved for bytes that are only announced.
    ///
    /// `date` goes into every answer. RFC 9110 §6.6.1 asks for it from a server that has a clock.
    pub fn receive(
        &mut self,
        input: &[u8],
        limits: &Limits,
        date: Option<&HttpDate>,
        out: &mut Vec<u8>,
        serve: &mut Serve<'_>,
    ) -> Progress {
        match self.phase {
            Phase::Ended => return self.end(input, Next::Close),
            Phase::Answer(_) => {
                return Progress {
                    used: 0,
                    next: Next::Await,
                };
            }
            Phase::Head(_) | Phase::Body(_) => {}
        }
        let mut at = 0;
        let mut answered = 0;
        while at < input.len() {
            if answered >= limits.requests_per_call.max(1)
                || out.len() >= limits.output_bytes_high_water.max(1)
            {
                return Progress {
                    used: at,
                    next: Next::Flush,
                };
            }
            let mut answers = Answers {
                date,
                out: &mut *out,
                serve: &mut *serve,
            };
            let rest = &input[at..];
            let step = match &mut self.phase {
                Phase::Head(reader) => take_head(reader, rest, limits, &mut answers),
                Phase::Body(partial) => partial.take_body(rest, limits, &mut answers),
                Phase::Answer(framing) => Ok(Step::Deferred {
                    used: 0,
                    framing: *framing,
                }),
                Phase::Ended => Ok(Step::Last),
            };
            at = match step {
                Ok(Step::More) => input.len(),
                Ok(Step::Body(partial)) => {
                    self.phase = Phase::Body(partial);
                    input.len()
                }
                Ok(Step::Answered { used }) => {
                    // What the request held goes with it: an idle connection owns nothing.
                    self.phase = Phase::default();
                    answered += 1;
                    at + used
                }
                Ok(Step::Deferred { used, framing }) => {
                    self.phase = Phase::Answer(framing);
                    return Progress {
                        used: at + used,
                        next: Next::Await,
                    };
                }
                Ok(Step::Last) => return self.end(input, Next::Close),
                Err(refusal) => {
                    answers.refuse(refusal);
                    return self.end(input, Next::Refuse(refusal));
                }
            };
        }
        Progress {
            used: at,
            next: Next::Read,
        }
    }

    /// Has `give` give the answer that was put off, and appends it to `out`. The bytes are those of an
    /// answer given at once. Returns what is to be done behind it: [`Next::Read`] (with what is left of
    /// the input first), [`Next::Close`], or [`Next::Await`] if `give` has put it off once more; `None`
    /// if no answer is awaited, and then `give` is not called.
    pub fn answer(
        &mut self,
        date: Option<&HttpDate>,
        out: &mut Vec<u8>,
        give: &mut dyn FnMut(&mut Response<'_>),
    ) -> Option<Next> {
        let Phase::Answer(framing) = self.phase else {
            return None;
        };
        let mut response = Response::new(out, date, framing);
        give(&mut response);
        let (phase, next) = match response.finish(0) {
            Step::Deferred { framing, .. } => (Phase::Answer(framing), Next::Await),
            Step::Last => (Phase::Ended, Next::Close),
            Step::More | Step::Body(_) | Step::Answered { .. } => (Phase::default(), Next::Read),
        };
        self.phase = phase;
        Some(next)
    }

    /// Is there a request whose answer was put off and has not been given?
    #[must_use]
    pub const fn is_awaiting(&self) -> bool {
        matches!(self.phase, Phase::Answer(_))
    }

    /// Makes the answer that is awaited, if one is, the connection's last.
    pub const fn close_behind_answer(&mut self) {
        if let Phase::Answer(framing) = &mut self.phase {
            framing.keeps_alive = false;
        }
    }

    /// What comes behind the last request is not looked at (RFC 9112 §9.6).
    fn end(&mut self, input: &[u8], next: Next) -> Progress {
        self.phase = Phase::Ended;
        Progress {
            used: input.len(),
            next,
        }
    }

    /// Is the exchange between two requests, with no byte of the next one here? A caller arms the
    /// deadline of an idle connection if so, and that of a request if not.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(&self.phase, Phase::Head(reader) if reader.bytes_held() == 0)
    }

    /// Bytes of heap held now, for a memory budget: at most the limits for head and body and a constant;
    /// 0 when idle.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        match &self.phase {
            Phase::Head(reader) => reader.bytes_held(),
            Phase::Body(partial) => size_of::<Partial>() + partial.bytes.capacity(),
            Phase::Answer(_) | Phase::Ended => 0,
        }
    }
}

/// How a phase took its input.
enum Step {
    /// All of the input was taken; the request goes on in the same phase.
    More,
    /// All of the input was taken; the head is whole and the body is not.
    Body(Box<Partial>),
    /// The request ended behind `used` bytes and was answered.
    Answered { used: usize },
    /// The request ended behind `used` bytes, and its answer was put off.
    Deferred { used: usize, framing: Framing },
    /// The request was answered, and no other may follow.
    Last,
}

/// Takes bytes of a head, and the body behind it if it is all there.
fn take_head(
    reader: &mut HeadReader,
    input: &[u8],
    limits: &Limits,
    answers: &mut Answers<'_, '_>,
) -> Result<Step, Refusal> {
    let (used, body_bytes) = match reader.receive(input, &limits.head).map_err(Refusal::Head)? {
        head::Progress::Incomplete => return Ok(Step::More),
        head::Progress::Complete { head, used } => {
            let body_bytes = usize::try_from(head.content_length())
                .ok()
                .filter(|&bytes| bytes <= limits.body_bytes_max)
                .ok_or(Refusal::BodyTooLong)?;
            // Whether the body has arrived by now is the network's doing. RFC 9110 §10.1.1 lets us
            // answer in any case, and so the output does not depend on it.
            if body_bytes > 0 && expects_continue(&head) {
                answers.out.extend_from_slice(CONTINUE);
            }
            if let Some(body) = input[used..].get(..body_bytes) {
                return Ok(answers.answer(&head, body, used + body_bytes));
            }
            (used, body_bytes)
        }
    };
    // The head must wait for its body, and all that is behind it belongs to the body.
    let (bytes, head_bytes, behind) = match reader.take_bytes() {
        Some(head) => {
            let head_bytes = head.len();
            (head, head_bytes, &input[used..])
        }
        None => (input.to_vec(), used, &[][..]),
    };
    let mut partial = Box::new(Partial {
        bytes,
        head_bytes,
        request_bytes: head_bytes + body_bytes,
    });
    partial.hold(behind);
    Ok(Step::Body(partial))
}

impl Partial {
    /// Takes bytes of the body.
    fn take_body(
        &mut self,
        input: &[u8],
        limits: &Limits,
        answers: &mut Answers<'_, '_>,
    ) -> Result<Step, Refusal> {
        let used = input.len().min(self.request_bytes - self.bytes.len());
        self.hold(&input[..used]);
        if self.bytes.len() < self.request_bytes {
            return Ok(Step::More);
        }
        let (head, body) = self.bytes.split_at(self.head_bytes);
        // The second parse of a head whose body was late. It passed the first one; only limits that
        // were lowered in between can refuse it now.
        match HeadReader::new().receive(head, &limits.head) {
            Ok(head::Progress::Complete { head, .. }) => Ok(answers.answer(&head, body, used)),
            Ok(head::Progress::Incomplete) => Err(Refusal::Head(HeadError::RequestLine)),
            Err(error) => Err(Refusal::Head(error)),
        }
    }

    /// Appends a piece. Grows by doubling, so that single bytes stay linear, but never beyond the
    /// request.
    fn hold(&mut self, piece: &[u8]) {
        let needed = self.bytes.len() + piece.len();
        if needed > self.bytes.capacity() {
            let capacity = (2 * self.bytes.capacity())
                .min(self.request_bytes)
                .max(needed);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(piece);
    }
}

impl fmt::Debug for Partial {
    /// Without the bytes: they may hold a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partial")
            .field("arrived", &self.bytes.len())
            .field("request_bytes", &self.request_bytes)
            .finish_non_exhaustive()
    }
}

/// Where answers come from and go to.
struct Answers<'a, 's> {
    date: Option<&'a HttpDate>,
    out: &'a mut Vec<u8>,
    serve: &'a mut Serve<'s>,
}

impl Answers<'_, '_> {
    /// Has a whole request answered, which ended behind `used` bytes of the input.
    fn answer(&mut self, head: &Head<'_>, body: &[u8], used: usize) -> Step {
        let framing = Framing {
            is_head: head.method() == "HEAD",
            keeps_alive: keeps_alive(head),
        };
        let mut response = Response::new(self.out, self.date, framing);
        (self.serve)(&Request { head, body }, &mut response);
        response.finish(used)
    }

    fn refuse(&mut self, refusal: Refusal) {
        if refusal == Refusal::Head(HeadError::TlsOnPlainPort) {
            // Who speaks TLS would not understand.
            return;
        }
        let date = self.date.map(|date| ("Date", date.as_str()));
        let (status, message) = (refusal.status(), refusal.reason());
        let body = format!(r#"{{"status":{status},"message":"{message}"}}"#);
        write_refusal(self.out, status, date.as_slice(), &body);
    }
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// HTTP/1.0 has no interim answers (RFC 9110 §10.1.1).
fn expects_continue(head: &Head<'_>) -> bool {
    head.version() == Version::Http11 && lists(head, "expect", "100-continue")
}

/// RFC 9112 §9.3.
fn keeps_alive(head: &Head<'_>) -> bool {
    !lists(head, "connection", "close")
        && (head.version() == Version::Http11 || lists(head, "connection", "keep-alive"))
}

/// Is `member` on the list that the headers called `name` make together?
fn lists(head: &Head<'_>, name: &str, member: &str) -> bool {
    head.headers(name)
        .flat_map(super::members)
        .any(|own| own.eq_ignore_ascii_case(member))
}

/// A whole request.
pub struct Request<'a> {
    head: &'a Head<'a>,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    /// The method. Case-sensitive. What answers `GET` should answer `HEAD` in the same way; the body is
    /// then left out here.
    #[must_use]
    pub const fn method(&self) -> &'a str {
        self.head.method()
    }

    /// The path as sent; see [`Head::path`].
    #[must_use]
    pub const fn path(&self) -> &'a str {
        self.head.path()
    }

    /// The query as sent, without the `?`.
    #[must_use]
    pub const fn query(&self) -> Option<&'a str> {
        self.head.query()
    }

    /// The pairs of the query, decoded; see [`query::pairs`].
    ///
    /// # Errors
    /// An item is [`InvalidEscape`] where a pair cannot be decoded.
    pub fn parameters(
        &self,
    ) -> impl Iterator<Item = Result<(Cow<'a, str>, Cow<'a, str>), InvalidEscape>> + use<'a> {
        self.head.query().into_iter().flat_map(query::pairs)
    }

    /// The one value of a header; see [`Head::header`].
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.head.header(name)
    }

    /// All values of a header; see [`Head::headers`].
    pub fn headers<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'a str> + use<'a, 's> {
        self.head.headers(name)
    }

    /// Does `Content-Type` name this media type (`application/json`), whatever its parameters?
    #[must_use]
    pub fn is_of_type(&self, media_type: &str) -> bool {
        self.header("content-type").is_some_and(|value| {
            let essence = value.split(';').next().unwrap_or_default();
            essence.trim_ascii().eq_ignore_ascii_case(media_type)
        })
    }

    /// The authority asked for; see [`Head::host`].
    #[must_use]
    pub const fn host(&self) -> Option<&'a str> {
        self.head.host()
    }

    /// The body; empty if there is none.
    #[must_use]
    pub const fn body(&self) -> &'a [u8] {
        self.body
    }
}

impl fmt::Debug for Request<'_> {
    /// Without query, values and body: they may hold a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("head", &self.head)
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

/// A header that a handler may add to its answer. None of them says where an answer ends, or whether
/// the connection does: those are written here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `Allow`, with a 405 (RFC 9110 §10.2.1).
    Allow,
    /// `Cache-Control` (RFC 9111 §5.2).
    CacheControl,
    /// `Content-Security-Policy`, with a page.
    ContentSecurityPolicy,
    /// `ETag` (RFC 9110 §8.8.3).
    ETag,
    /// `Location`, with a redirect (RFC 9110 §10.2.2).
    Location,
    /// `Referrer-Policy`, with a page.
    ReferrerPolicy,
    /// `Retry-After`, with a 429 or 503 (RFC 9110 §10.2.3).
    RetryAfter,
    /// `Vary` (RFC 9110 §12.5.5).
    Vary,
    /// `WWW-Authenticate`, with a 401 (RFC 9110 §11.6.1).
    WwwAuthenticate,
    /// `X-Content-Type-Options`, with a page.
    XContentTypeOptions,
}

impl Field {
    /// The header's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "Allow",
            Self::CacheControl => "Cache-Control",
            Self::ContentSecurityPolicy => "Content-Security-Policy",
            Self::ETag => "ETag",
            Self::Location => "Location",
            Self::ReferrerPolicy => "Referrer-Policy",
            Self::RetryAfter => "Retry-After",
            Self::Vary => "Vary",
            Self::WwwAuthenticate => "WWW-Authenticate",
            Self::XContentTypeOptions => "X-Content-Type-Options",
        }
    }
}

/// The answer to one request. A handler that neither sends nor defers it has 500 sent for it.
pub struct Response<'o> {
    out: &'o mut Vec<u8>,
    /// Where in `out` this answer begins.
    begin: usize,
    date: Option<&'o HttpDate>,
    framing: Framing,
    is_deferred: bool,
}

impl<'o> Response<'o> {
    const fn new(out: &'o mut Vec<u8>, date: Option<&'o HttpDate>, framing: Framing) -> Self {
        Self {
            begin: out.len(),
            out,
            date,
            framing,
            is_deferred: false,
        }
    }

    /// What became of it, for a request that ended behind `used` bytes.
    fn finish(mut self, used: usize) -> Step {
        if self.is_deferred {
            let framing = self.framing;
            return Step::Deferred { used, framing };
        }
        if self.out.len() == self.begin {
            self.send_json(500, b"{\"status\":500,\"message\":\"no answer\"}\n");
        }
        if self.framing.keeps_alive {
            Step::Answered { used }
        } else {
            Step::Last
        }
    }

    /// Puts the answer off: it is given to [`Exchange::answer`], whenever that is. What was sent before
    /// is taken back; what is sent behind this counts, and nothing is put off then.
    pub fn defer(&mut self) {
        self.out.truncate(self.begin);
        self.is_deferred = true;
    }

    /// Sends `status` (200..=599), `fields`, and `body` with its `content_type`, which is left out where
    /// it is empty. 204 and 304 have no body. Control bytes in a value become spaces, so that none can
    /// end its line (RFC 9110 §5.5). Sent again, it replaces what was sent before.
    pub fn send(&mut self, status: u16, fields: &[(Field, &str)], content_type: &str, body: &[u8]) {
        debug_assert!(status >= 200, "interim answers are not a handler's");
        let mut headers: SmallVec<[(&str, &str); 8]> = SmallVec::new();
        headers.extend(self.date.map(|date| ("Date", date.as_str())));
        headers.extend(fields.iter().map(|&(field, value)| (field.name(), value)));
        if !content_type.is_empty() && Status(status).has_body() {
            headers.push(("Content-Type", content_type));
        }
        self.is_deferred = false;
        self.out.truncate(self.begin);
        write_response(self.out, status, &headers, body, self.framing.keeps_alive);
        if self.framing.is_head && Status(status).has_body() {
            self.out.truncate(self.out.len() - body.len());
        }
    }

    /// Sends `status` and a body of JSON.
    pub fn send_json(&mut self, status: u16, body: &[u8]) {
        self.send(status, &[], "application/json", body);
    }

    /// Makes this answer the connection's last one. To be called before the answer is sent, so that it
    /// says so.
    pub const fn close(&mut self) {
        self.framing.keeps_alive = false;
    }
}

impl fmt::Debug for Response<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("bytes", &(self.out.len() - self.begin))
            .field("framing", &self.framing)
            .field("is_deferred", &self.is_deferred)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
