//! One connection's TLS: a driver for rustls' unbuffered API that always makes progress, never
//! holds more than an unfinished record, and knows when a peer is not worth its records.
//!
//! rustls is shown a *window*: what it has absorbed of an unfinished handshake message, which it
//! expects to see again at the same place, and one record more. So it is known what each record
//! brought, and rustls never meets a buffer shorter than the one it remembers (it would panic).

use std::fmt;

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, WriteTraffic};
use rustls::{HandshakeKind, ProtocolVersion};

use super::TlsError;
use super::acceptor::SERVER_NAME_GIVEN;
use crate::buffer::Buffer;

/// One server-side TLS session: about 1.1 KiB inline and 2.5 KiB behind it once established.
/// Kept in a `Box`, so that plain connections do not pay for it.
///
/// Once [failed](State::Failed) it stays so: input is swallowed, nothing can be sent.
pub struct Session {
    connection: UnbufferedServerConnection,
    /// An incomplete record between two reads, and what is absorbed in front of it.
    kept: Vec<u8>,
    /// Bytes at the front of the next input that rustls has seen but not let go of. Not zero only
    /// during the handshake, when a message goes over several records.
    absorbed: usize,
    phase: Phase,
    credit: Credit,
    /// We said `close_notify`.
    is_closing: bool,
    /// We have sent some of the handshake, so an alert of our own making would be out of place.
    has_spoken: bool,
    server_name_given: bool,
}

/// What [`Session::receive`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes at the front of the input that are done with. What follows is the beginning of a
    /// record (or of a handshake message in several) and has to come first in the next input,
    /// as it is now.
    pub used: usize,
    /// Where the session stands now.
    pub state: State,
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No plaintext can go either way yet.
    Handshaking,
    /// Plaintext goes both ways.
    Established,
    /// The peer said `close_notify`: its plaintext is complete. An end of stream in any other
    /// state is a truncation, by accident or by somebody in between (RFC 8446 §6.1). Plaintext
    /// may still be sent, and [`Session::close_notify`] is still due.
    PeerClosed,
    /// The end. The alert, if one is due, is in `out`; send it and close.
    Failed(TlsError),
}

/// What was negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// The version of the protocol.
    pub version: TlsVersion,
    /// The cipher suite by its IANA name, `TLS13_AES_128_GCM_SHA256`.
    pub cipher_suite: &'static str,
    /// The group by its IANA name, `X25519MLKEM768`; none in a resumed TLS 1.2 session.
    pub key_exchange_group: Option<&'static str>,
    /// Whether the client came back with a ticket.
    pub is_resumed: bool,
    /// Whether the client said which host it means.
    pub server_name_given: bool,
}

/// The versions that are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsVersion {
    /// RFC 5246, with AEAD suites and extended master secret only.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// What an established session takes of memory in all, in bytes: what is inline, what rustls keeps
/// behind it, and what the cryptography library asks of C's allocator. Measured; a test holds it to what
/// it is. During a handshake a session takes more for a moment, and with an unfinished record as much
/// more as [`Session::bytes_held`] says.
pub const SESSION_BYTES: usize = 3_600;

/// Longest record of any kind on the wire, in bytes: five of header and what rustls accepts.
pub const RECORD_BYTES_MAX: usize = HEADER_LEN + PAYLOAD_MAX;
/// Plaintext in a record that is full, in bytes (RFC 8446 §5.1).
pub const RECORD_PLAIN_BYTES: usize = 1 << 14;
/// Most bytes of an unfinished handshake message that are kept. At the limit the session fails.
pub const HANDSHAKE_BYTES_MAX: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not even a first byte.
    Fresh,
    Handshaking,
    Established,
    PeerClosed,
    Failed(TlsError),
}

impl Session {
    pub(super) fn new(connection: UnbufferedServerConnection) -> Self {
        Self {
            connection,
            kept: Vec::new(),
            absorbed: 0,
            phase: Phase::Fresh,
            credit: Credit::FULL,
            is_closing: false,
            has_spoken: false,
            server_name_given: false,
        }
    }

    /// Takes ciphertext from the front of `input`, decrypting in place; appends plaintext to
    /// `plain`, and to `out` what has to be sent: handshake, tickets, alerts.
    ///
    /// `input` is what [`Session::take_kept`] gave and what was read behind it. Takes all whole
    /// records there are. After our own `close_notify` the input is discarded unread: nobody
    /// waits for it any more, and a bad record could only earn a second closing alert.
    pub fn receive(&mut self, input: &mut [u8], plain: &mut Vec<u8>, out: &mut Buffer) -> Received {
        let used = match self.take_records(input, plain, out) {
            Ok(used) => used,
            Err(error) => {
                self.fail(error, out);
                input.len()
            }
        };
        Received {
            used,
            state: self.state(),
        }
    }

    /// Keeps the beginning of a record until more of it comes: exactly as many bytes as arrived,
    /// whatever length the record claims to have.
    ///
    /// [`Session::receive`] leaves at most [`RECORD_BYTES_MAX`], or [`HANDSHAKE_BYTES_MAX`] during
    /// the handshake; more than that fails the session.
    pub fn keep(&mut self, rest: &[u8]) {
        if self.kept.len() + rest.len() > HANDSHAKE_BYTES_MAX.max(RECORD_BYTES_MAX) {
            self.phase = Phase::Failed(TlsError::HandshakeTooLarge);
            self.kept = Vec::new();
            return;
        }
        self.kept.reserve_exact(rest.len());
        self.kept.extend_from_slice(rest);
    }

    /// Gives back what was kept, to be put in front of what is read next. An empty `Vec` without
    /// memory if that is nothing.
    #[must_use]
    pub fn take_kept(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.kept)
    }

    /// Encrypts `plain` and appends it to `out`, in records of 16 KiB and one for the rest: give
    /// it all there is to send at once.
    ///
    /// # Errors
    /// [`TlsError::NotOpen`] before the handshake is done and after `close_notify`;
    /// [`TlsError::KeysExhausted`] after 2^24 records of TLS 1.2 (TLS 1.3 changes the key); the
    /// reason of the failure in a failed session. Then `out` has no more than a closing alert.
    pub fn encrypt(&mut self, plain: &[u8], out: &mut Buffer) -> Result<(), TlsError> {
        match self.phase {
            Phase::Established | Phase::PeerClosed if !self.is_closing => {}
            Phase::Failed(error) => return Err(error),
            _ => return Err(TlsError::NotOpen),
        }
        let room = sealed_len_max(plain.len());
        let result = self.seal(&mut [], out, room, |traffic, room| {
            traffic.encrypt(plain, room)
        });
        if let Err(error) = result {
            self.fail(error, out);
        }
        result
    }

    /// Appends our `close_notify` (RFC 8446 §6.1) to `out`: the peer may then trust that it has
    /// got everything. Nothing during the handshake, the second time, or after a failure.
    pub fn close_notify(&mut self, out: &mut Buffer) {
        if matches!(self.phase, Phase::Established | Phase::PeerClosed) && !self.is_closing {
            self.is_closing = true;
            if let Err(error) = self.append_close_notify(out, &mut []) {
                self.phase = Phase::Failed(error);
            }
        }
    }

    /// Whether plaintext can be sent, [`Session::close_notify`] apart.
    #[must_use]
    pub fn is_established(&self) -> bool {
        matches!(self.phase, Phase::Established | Phase::PeerClosed)
    }

    /// Whether we have begun to answer: from then on the dear part of the handshake has been paid for.
    #[must_use]
    pub const fn has_spoken(&self) -> bool {
        self.has_spoken
    }

    /// What was negotiated; `None` before it is settled.
    #[must_use]
    pub fn info(&self) -> Option<SessionInfo> {
        if self.connection.is_handshaking() {
            return None;
        }
        let version = match self.connection.protocol_version()? {
            ProtocolVersion::TLSv1_2 => TlsVersion::Tls12,
            _ => TlsVersion::Tls13,
        };
        let group = self.connection.negotiated_key_exchange_group();
        Some(SessionInfo {
            version,
            cipher_suite: self
                .connection
                .negotiated_cipher_suite()?
                .suite()
                .as_str()?,
            key_exchange_group: group.and_then(|group| group.name().as_str()),
            is_resumed: self.connection.handshake_kind() == Some(HandshakeKind::Resumed),
            server_name_given: self.server_name_given,
        })
    }

    /// Bytes of buffer this session owns beside its fixed size: what is [kept](Session::keep).
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        self.kept.capacity()
    }

    fn state(&self) -> State {
        match self.phase {
            Phase::Fresh | Phase::Handshaking => State::Handshaking,
            Phase::Established => State::Established,
            Phase::PeerClosed => State::PeerClosed,
            Phase::Failed(error) => State::Failed(error),
        }
    }

    /// Takes record after record; returns how many bytes are done with.
    fn take_records(
        &mut self,
        input: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Buffer,
    ) -> Result<usize, TlsError> {
        if self.phase == Phase::Fresh {
            match input.first() {
                None => return Ok(0),
                Some(byte) if is_text(*byte) => return Err(TlsError::PlainBytesOnTlsPort),
                Some(_) => self.phase = Phase::Handshaking,
            }
        }
        let mut used = 0;
        loop {
            if self.is_closing || matches!(self.phase, Phase::PeerClosed | Phase::Failed(_)) {
                return Ok(input.len());
            }
            let rest = &mut input[used..];
            let unseen = rest.get(self.absorbed..).ok_or(TlsError::Internal)?;
            let (record, is_sound) = match Record::measure(unseen) {
                Record::Whole(len) => (len, true),
                Record::Malformed => (unseen.len(), false),
                Record::Partial if rest.len() > self.rest_max() => {
                    return Err(TlsError::HandshakeTooLarge);
                }
                Record::Partial => return Ok(used),
            };
            let window = self.absorbed + record;
            let was_established = self.phase == Phase::Established;
            let plain_before = plain.len();
            let done = self.process(&mut rest[..window], plain, out)?;
            used += done;
            self.absorbed = window - done;

            if !is_sound {
                return Err(TlsError::BadRecord);
            }
            if self.phase == Phase::Established && self.absorbed != 0 {
                // Half a handshake message after the handshake. The only ones still to come are
                // KeyUpdate, which is five bytes and one record (§4.6.3), and renegotiation.
                let dangling = &mut input[used..used + self.absorbed];
                let result = self.append_close_notify(out, dangling);
                return Err(result.err().unwrap_or(TlsError::ProtocolViolation));
            }
            if self.absorbed > HANDSHAKE_BYTES_MAX {
                return Err(TlsError::HandshakeTooLarge);
            }
            if was_established && !self.credit.pay(plain.len() - plain_before) {
                let result = self.append_close_notify(out, &mut []);
                return Err(result.err().unwrap_or(TlsError::RecordFlood));
            }
        }
    }

    /// Most bytes that may be left over for the next read.
    fn rest_max(&self) -> usize {
        if self.phase == Phase::Handshaking {
            HANDSHAKE_BYTES_MAX
        } else {
            RECORD_BYTES_MAX
        }
    }

    /// Lets rustls work on one window until it asks for more. Returns the bytes it let go of.
    fn process(
        &mut self,
        window: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Buffer,
    ) -> Result<usize, TlsError> {
        let mut done = 0;
        if self.phase == Phase::Handshaking {
            SERVER_NAME_GIVEN.set(false);
        }
        loop {
            let len_before = plain.len() + out.len();
            let status = self.connection.process_tls_records(&mut window[done..]);
            let mut discard = status.discard;
            let turn = match status.state? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        plain.extend_from_slice(record.payload);
                    }
                    Turn::Read
                }
                ConnectionState::EncodeTlsData(chunk) => {
                    encode(chunk, out)?;
                    Turn::Wrote
                }
                ConnectionState::TransmitTlsData(sent) => {
                    sent.done();
                    Turn::Sent
                }
                ConnectionState::PeerClosed => Turn::PeerClosed,
                ConnectionState::BlockedHandshake
                | ConnectionState::WriteTraffic(_)
                | ConnectionState::Closed => Turn::Blocked,
                // 0-RTT, which is not offered.
                _ => return Err(TlsError::Internal),
            };
            done += discard;
            let has_progressed = discard > 0 || plain.len() + out.len() > len_before;
            match turn {
                // With the window used up and nothing to send, the next answer is known.
                Turn::Read if done == window.len() && !self.connection.wants_write() => break,
                Turn::Read | Turn::Wrote if !has_progressed => return Err(TlsError::Internal),
                Turn::Read => {}
                Turn::Wrote => self.has_spoken = true,
                Turn::Sent => {}
                Turn::PeerClosed => {
                    self.phase = Phase::PeerClosed;
                    return Ok(done);
                }
                Turn::Blocked => break,
            }
        }
        if self.phase == Phase::Handshaking {
            self.server_name_given |= SERVER_NAME_GIVEN.take();
            if !self.connection.is_handshaking() {
                self.phase = Phase::Established;
            }
        }
        Ok(done)
    }

    /// Ends the session and sees to it that the peer learns why: rustls queues most alerts, but
    /// gives them out only when it is asked once more.
    fn fail(&mut self, error: TlsError, out: &mut Buffer) {
        let before = out.len();
        while self.connection.wants_write() {
            match self.connection.process_tls_records(&mut []).state {
                Ok(ConnectionState::EncodeTlsData(chunk)) => {
                    if encode(chunk, out).is_err() {
                        break;
                    }
                }
                _ => break,
            }
        }
        if self.phase == Phase::Handshaking && !self.has_spoken && out.len() == before {
            // rustls keeps quiet about some. So far nothing is encrypted: RFC 8446 §5.1, §6.
            if let Some(alert) = error.alert() {
                out.extend_from_slice(&[21, 3, 3, 0, 2, 2, alert]);
            }
        }
        self.phase = Phase::Failed(error);
        self.kept = Vec::new();
    }

    /// `absorbed` is what rustls has to be shown again to answer at all.
    fn append_close_notify(
        &mut self,
        out: &mut Buffer,
        absorbed: &mut [u8],
    ) -> Result<(), TlsError> {
        self.seal(absorbed, out, sealed_len_max(2), |traffic, room| {
            traffic.queue_close_notify(room)
        })
    }

    /// Asks rustls for leave to write and appends what `write` makes to `out`, giving it `room`
    /// bytes at first and as many as it asks for then.
    fn seal(
        &mut self,
        absorbed: &mut [u8],
        out: &mut Buffer,
        mut room: usize,
        mut write: impl FnMut(&mut Writer<'_>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> Result<(), TlsError> {
        loop {
            let mut traffic = match self.connection.process_tls_records(&mut *absorbed).state? {
                ConnectionState::WriteTraffic(traffic) => traffic,
                ConnectionState::EncodeTlsData(chunk) => {
                    encode(chunk, out)?;
                    continue;
                }
                ConnectionState::TransmitTlsData(sent) => {
                    sent.done();
                    continue;
                }
                _ => return Err(TlsError::Internal),
            };
            match write(&mut traffic, out.room(room)) {
                Ok(written) => {
                    out.advance(written);
                    return Ok(());
                }
                Err(EncryptError::InsufficientSize(size)) if size.required_size > room => {
                    room = size.required_size;
                }
                Err(_) => return Err(TlsError::KeysExhausted),
            }
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("phase", &self.phase)
            .field("kept", &self.kept.len())
            .field("is_closing", &self.is_closing)
            .finish_non_exhaustive()
    }
}

type Writer<'c> = WriteTraffic<'c, ServerConnectionData>;

/// What one answer of rustls was about.
#[derive(Clone, Copy)]
enum Turn {
    Read,
    Wrote,
    Sent,
    PeerClosed,
    Blocked,
}

/// The record at the front of the unseen bytes.
enum Record {
    /// All of it is here: this many bytes.
    Whole(usize),
    /// More has to come.
    Partial,
    /// No record begins like this; rustls has the alert for it, and needs not wait for the rest.
    Malformed,
}

impl Record {
    /// RFC 8446 §5.1: type, version (any 3.x, §D.5), length. Only application data may be empty.
    fn measure(bytes: &[u8]) -> Self {
        let Some(&[kind, major, _, high, low]) = bytes.first_chunk::<HEADER_LEN>() else {
            return Self::Partial;
        };
        let len = usize::from(u16::from_be_bytes([high, low]));
        let is_sound = matches!(kind, CHANGE_CIPHER_SPEC..=HEARTBEAT)
            && major == 3
            && len <= PAYLOAD_MAX
            && (len > 0 || kind == APPLICATION_DATA);
        if !is_sound {
            Self::Malformed
        } else if bytes.len() < HEADER_LEN + len {
            Self::Partial
        } else {
            Self::Whole(HEADER_LEN + len)
        }
    }
}

/// What a peer may still cost. A record costs two, one without plaintext sixty-four times that,
/// and each byte of plaintext earns one: WebSocket frames, whose smallest is six bytes, earn more
/// than they cost even when header and mask come in records of their own. A head typed in one byte
/// at a time lives for eight thousand bytes. Key updates, empty records and warnings end after
/// sixty-four, and a byte of data in between (CVE-2026-56862) does not help.
#[derive(Clone, Copy, Debug)]
struct Credit(u16);

impl Credit {
    const FULL: Self = Self(8192);
    const RECORD: u16 = 2;
    const BARREN_RECORD: u16 = 128;

    /// Pays for one record that brought this many bytes of plaintext. False if there is not
    /// enough.
    fn pay(&mut self, useful: usize) -> bool {
        let earned = u16::try_from(useful).unwrap_or(u16::MAX);
        let have = self.0.saturating_add(earned).min(Self::FULL.0);
        let cost = if useful == 0 {
            Self::BARREN_RECORD
        } else {
            Self::RECORD
        };
        let left = have.checked_sub(cost);
        self.0 = left.unwrap_or(0);
        left.is_some()
    }
}

/// Appends a handshake record or alert that rustls has ready.
fn encode<Data>(mut chunk: EncodeTlsData<'_, Data>, out: &mut Buffer) -> Result<(), TlsError> {
    // Asked without room it says how much it needs.
    let Err(EncodeError::InsufficientSize(size)) = chunk.encode(&mut []) else {
        return Err(TlsError::Internal);
    };
    let written = chunk
        .encode(out.room(size.required_size))
        .map_err(|_| TlsError::Internal)?;
    out.advance(written);
    Ok(())
}

/// The most that a plaintext grows to, with room for one answer to a key update in front.
fn sealed_len_max(plain_len: usize) -> usize {
    plain_len + (plain_len / RECORD_PLAIN_BYTES + 1) * RECORD_OVERHEAD_MAX + KEY_UPDATE_RECORD_LEN
}

/// What people type and HTTP begins with. TLS records begin with 20 to 24.
fn is_text(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n' | b' '..=b'~')
}

const HEADER_LEN: usize = 5;
/// RFC 5246 §6.2.3 allows 2^14 + 2048 bytes, and rustls takes as many.
const PAYLOAD_MAX: usize = (1 << 14) + 2048;
/// TLS 1.2 with AES-GCM: header, explicit nonce, tag. TLS 1.3 has a type byte in place of the
/// nonce.
const RECORD_OVERHEAD_MAX: usize = HEADER_LEN + 8 + 16;
const KEY_UPDATE_RECORD_LEN: usize = HEADER_LEN + 5 + 1 + 16;
const CHANGE_CIPHER_SPEC: u8 = 20;
const APPLICATION_DATA: u8 = 23;
const HEARTBEAT: u8 = 24;
