//! Between a socket and a connection: plain bytes or TLS, over anything that reads and writes.
//!
//! Reading lends the connection the reactor's scratch buffers; a connection that is left in the middle
//! of a frame or a record takes the few bytes it needs into its own memory, and an idle one owns no
//! buffer at all. Writing gathers everything a connection has to say into one system call; what the
//! socket refuses goes to the connection's outbox.
//!
//! Would-block and the end of the stream are values here, not errors.

use std::io::{self, ErrorKind, IoSlice, Read, Write};

use bytes::Buf;

use crate::buffer::Buffer;
use crate::conn::{Connection, Context, Delivered, Flushed, Lane, Offer, Outbox, Phase, Sink};
use crate::metrics::report::Transport as Carrier;
use crate::timer::Tick;
use crate::tls::{RECORD_PLAIN_BYTES, Received, Session, State, TlsError, TlsVersion};

/// A stream of bytes whose sending side can be shut.
pub trait Socket: Read + Write {
    /// Tells the peer that nothing more follows.
    ///
    /// # Errors
    /// Whatever the socket says; a peer that has gone is the usual case.
    fn shut_write(&self) -> io::Result<()>;
}

impl Socket for mio::net::TcpStream {
    fn shut_write(&self) -> io::Result<()> {
        self.shutdown(std::net::Shutdown::Write)
    }
}

/// A socket, and TLS where the listener speaks it.
#[derive(Debug)]
pub struct Transport<S> {
    socket: S,
    /// What the socket said when a connection wrote to it straight, for the flush that follows.
    straight: Straight,
    tls: Option<Box<Session>>,
}

/// How writing past the output went since the last flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Straight {
    /// The socket took everything, or was not asked.
    #[default]
    Taken,
    /// It took less than it was offered: an event will say when it takes more.
    Refused,
    /// It failed.
    Failed,
    /// TLS failed, and left an alert to be sent.
    Unsealed(TlsError),
}

/// The buffers of one reactor, lent to whichever connection is being served.
#[derive(Debug)]
pub struct Scratch {
    /// What a socket gives.
    input: Box<[u8]>,
    /// What TLS makes of it.
    plain: Vec<u8>,
    /// What TLS wants to send.
    cipher: Buffer,
}

/// What one read of a connection may take in before others have their turn, in bytes. It is also the
/// size of the read buffer: four of the largest messages of the default limits.
pub const READ_BYTES_MAX: usize = 256 * 1024;

/// Plaintext gathered from an outbox for one write under TLS, in bytes.
const ENCRYPT_BYTES_MAX: usize = 64 * 1024;

/// Slices in one vectored write.
const SLICES_MAX: usize = 64;

/// Whether a socket has been read until it would block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Nothing is left to read; the next event will say when there is.
    Drained,
    /// The budget is used up and there may be more: no event will come for it.
    MayHaveMore,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            input: vec![0; READ_BYTES_MAX].into_boxed_slice(),
            // Plaintext is never longer than the ciphertext it came in.
            plain: Vec::with_capacity(READ_BYTES_MAX),
            cipher: Buffer::with_capacity(READ_BYTES_MAX),
        }
    }
}

impl Scratch {
    /// Bytes of the buffers.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        self.input.len() + self.plain.capacity() + self.cipher.capacity()
    }

    /// Gives back what an unusually large turn has left behind.
    pub fn shrink(&mut self) {
        if self.plain.capacity() > 4 * READ_BYTES_MAX {
            self.plain.shrink_to(READ_BYTES_MAX);
        }
        if self.cipher.capacity() > 4 * READ_BYTES_MAX {
            self.cipher.shrink_to(READ_BYTES_MAX);
        }
    }
}

impl<S: Socket> Transport<S> {
    /// A transport over a connected, non-blocking socket.
    pub const fn new(socket: S, tls: Option<Box<Session>>) -> Self {
        Self {
            socket,
            straight: Straight::Taken,
            tls,
        }
    }

    /// The socket, for registering it.
    pub const fn socket_mut(&mut self) -> &mut S {
        &mut self.socket
    }

    /// What lies under the connection's frames, for whoever counts.
    #[must_use]
    pub fn carrier(&self) -> Carrier {
        let info = self.tls.as_deref().and_then(Session::info);
        match info {
            None => Carrier::Plain,
            Some(info) => match (info.version, info.is_resumed) {
                (TlsVersion::Tls12, false) => Carrier::Tls12,
                (TlsVersion::Tls12, true) => Carrier::Tls12Resumed,
                (TlsVersion::Tls13, false) => Carrier::Tls13,
                (TlsVersion::Tls13, true) => Carrier::Tls13Resumed,
            },
        }
    }

    /// What was agreed on in the TLS handshake, if this is TLS and it is done.
    #[must_use]
    pub fn tls(&self) -> Option<&Session> {
        self.tls.as_deref()
    }

    /// Bytes of an unfinished TLS record, or handshake message, that are held now.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        self.tls.as_deref().map_or(0, Session::bytes_held)
    }

    /// Reads what has come, at most [`READ_BYTES_MAX`], and feeds it to the connection.
    /// `peer_has_finished` is what the event said: then the end of the stream is read as well, because
    /// no further event announces it.
    pub fn read(
        &mut self,
        connection: &mut Connection,
        scratch: &mut Scratch,
        cx: &mut Context,
        peer_has_finished: bool,
    ) -> Readiness {
        if connection.has_pending() {
            let mut pending = connection.take_pending();
            let used = self.feed(&mut pending, connection, scratch, cx);
            if used < pending.len() {
                pending.advance(used);
                connection.put_back(pending);
                return Readiness::MayHaveMore;
            }
        }
        let mut has_surplus = false;
        if self.tls.is_some() && connection.awaits_proxy() {
            let readiness = self.read_proxy(connection, scratch, cx);
            if connection.awaits_proxy() || !connection.is_handshaking() {
                return readiness;
            }
            has_surplus = true;
        }
        if self.tls.is_some() {
            self.read_tls(connection, scratch, cx, peer_has_finished, has_surplus)
        } else {
            self.read_plain(connection, scratch, cx, peer_has_finished)
        }
    }

    /// Reads the header that comes before the TLS handshake; what came behind it is kept for that.
    fn read_proxy(
        &mut self,
        connection: &mut Connection,
        scratch: &mut Scratch,
        cx: &mut Context,
    ) -> Readiness {
        let mut input = std::mem::take(&mut scratch.input);
        let readiness = loop {
            match self.read_some(&mut input) {
                ReadSome::Bytes(count) => {
                    let used = connection.receive(&mut input[..count], None, cx);
                    if !connection.awaits_proxy() {
                        if let Some(tls) = &mut self.tls {
                            tls.keep(&input[used..count]);
                        }
                        break Readiness::MayHaveMore;
                    }
                }
                ReadSome::WouldBlock => break Readiness::Drained,
                ReadSome::End => {
                    connection.end_of_stream(cx);
                    break Readiness::Drained;
                }
                ReadSome::Failed => {
                    connection.io_failed(cx);
                    break Readiness::Drained;
                }
            }
        };
        scratch.input = input;
        readiness
    }

    fn read_plain(
        &mut self,
        connection: &mut Connection,
        scratch: &mut Scratch,
        cx: &mut Context,
        peer_has_finished: bool,
    ) -> Readiness {
        // Out of the scratch for the time being, so that the rest of it can be lent for a flush.
        let mut input = std::mem::take(&mut scratch.input);
        let buffer = &mut input[..];
        let (mut start, mut end) = (0, 0);
        let readiness = loop {
            let room = buffer.len() - end;
            match self.read_some(&mut buffer[end..]) {
                ReadSome::Bytes(count) => {
                    end += count;
                    start += self.feed(&mut buffer[start..end], connection, scratch, cx);
                    if count == room {
                        break Readiness::MayHaveMore;
                    }
                    // A short read has emptied the socket, so reading again would say "would block":
                    // not worth a system call, unless a frame lacks its end (which may have come by
                    // now, and reading it behind its beginning saves a copy) or the end is due.
                    if start == end && !peer_has_finished {
                        break Readiness::Drained;
                    }
                }
                ReadSome::WouldBlock => break Readiness::Drained,
                ReadSome::End => {
                    connection.end_of_stream(cx);
                    break Readiness::Drained;
                }
                ReadSome::Failed => {
                    connection.io_failed(cx);
                    break Readiness::Drained;
                }
            }
        };
        if start < end {
            connection.absorb(&mut buffer[start..end], cx);
        }
        scratch.input = input;
        readiness
    }

    /// Gives plaintext to the connection; whenever it has much to say, that is written before it gets
    /// more. Returns the bytes done with.
    fn feed(
        &mut self,
        bytes: &mut [u8],
        connection: &mut Connection,
        scratch: &mut Scratch,
        cx: &mut Context,
    ) -> usize {
        let mut used = 0;
        loop {
            let mut way = Way {
                transport: self,
                cipher: &mut scratch.cipher,
            };
            used += connection.receive(&mut bytes[used..], Some(&mut way), cx);
            if used == bytes.len() || !connection.wants_flush(&cx.services) {
                return used;
            }
            self.flush(connection, scratch, cx);
        }
    }

    fn read_tls(
        &mut self,
        connection: &mut Connection,
        scratch: &mut Scratch,
        cx: &mut Context,
        peer_has_finished: bool,
        mut has_surplus: bool,
    ) -> Readiness {
        // A hello whose sender has ended its stream asks for a signature that nobody can answer. In a
        // storm those are the ones who lost their patience in the queue.
        let is_unanswered = self.tls().is_some_and(|tls| !tls.has_spoken());
        if peer_has_finished && is_unanswered && connection.is_handshaking() {
            connection.end_of_stream(cx);
            return Readiness::Drained;
        }
        let mut input = std::mem::take(&mut scratch.input);
        let mut plain = std::mem::take(&mut scratch.plain);
        let buffer = &mut input[..];
        let kept = self
            .tls
            .as_mut()
            .map(|tls| tls.take_kept())
            .unwrap_or_default();
        buffer[..kept.len()].copy_from_slice(&kept);
        let (mut start, mut end) = (0, kept.len());
        drop(kept);
        let mut plain_start = 0;
        let readiness = loop {
            let room = buffer.len() - end;
            // What came behind a PROXY header is here already, and no event will tell of it.
            let read = if std::mem::take(&mut has_surplus) {
                ReadSome::Bytes(0)
            } else {
                self.read_some(&mut buffer[end..])
            };
            match read {
                ReadSome::Bytes(count) => {
                    end += count;
                    let Some(tls) = &mut self.tls else {
                        break Readiness::Drained;
                    };
                    let was_established = tls.is_established();
                    let Received { used, state } =
                        tls.receive(&mut buffer[start..end], &mut plain, &mut scratch.cipher);
                    start += used;
                    if !was_established && tls.is_established() {
                        cx.services.counters.tls_established += 1;
                        if tls.info().is_some_and(|info| info.is_resumed) {
                            cx.services.counters.tls_resumed += 1;
                        }
                        connection.established(cx);
                    }
                    if plain_start < plain.len() {
                        let bytes = &mut plain[plain_start..];
                        plain_start += self.feed(bytes, connection, scratch, cx);
                    }
                    if plain_start == plain.len() {
                        plain.clear();
                        plain_start = 0;
                    }
                    match state {
                        State::Handshaking | State::Established => {}
                        State::PeerClosed => {
                            connection.end_of_stream(cx);
                            break Readiness::Drained;
                        }
                        State::Failed(error) => {
                            connection.tls_failed(error, cx);
                            // Nothing that follows can be understood; it is read and dropped.
                            start = end;
                        }
                    }
                    if count == room {
                        break Readiness::MayHaveMore;
                    }
                    if start == end && plain.is_empty() && !peer_has_finished {
                        break Readiness::Drained;
                    }
                }
                ReadSome::WouldBlock => break Readiness::Drained,
                ReadSome::End => {
                    // A close_notify would have ended the reading before.
                    cx.services.counters.tls_truncated += u64::from(connection.is_open());
                    connection.end_of_stream(cx);
                    break Readiness::Drained;
                }
                ReadSome::Failed => {
                    connection.io_failed(cx);
                    break Readiness::Drained;
                }
            }
        };
        if plain_start < plain.len() {
            connection.absorb(&mut plain[plain_start..], cx);
        }
        if start < end
            && let Some(tls) = &mut self.tls
        {
            tls.keep(&buffer[start..end]);
            connection.record_began(cx);
        }
        plain.clear();
        scratch.input = input;
        scratch.plain = plain;
        readiness
    }

    /// Writes what the connection has to say: the output of this turn first, then its outbox. What the
    /// socket refuses waits in the outbox; when nothing waits any more, the connection says whether
    /// this was the last of it.
    pub fn flush(&mut self, connection: &mut Connection, scratch: &mut Scratch, cx: &mut Context) {
        let written = match std::mem::take(&mut self.straight) {
            // It has just been asked; what came behind waits in the outbox already.
            Straight::Refused => return,
            Straight::Failed => Err(ErrorKind::BrokenPipe.into()),
            Straight::Unsealed(error) => {
                connection.tls_failed(error, cx);
                self.flush_tls(connection, scratch, cx)
            }
            Straight::Taken if self.tls.is_some() => self.flush_tls(connection, scratch, cx),
            Straight::Taken => self.flush_plain(connection, cx),
        };
        if written.is_err() {
            // The scratch buffers are the next connection's too.
            scratch.cipher.clear();
            cx.services.output.clear();
            connection.outbox = None;
            connection.io_failed(cx);
            return;
        }
        if connection.outbox.is_some() {
            return;
        }
        match connection.flushed(cx) {
            Flushed::Nothing => {
                // A peer that said close_notify, or did not answer a ping, is owed one all the same.
                if let Phase::Closed(_) = connection.phase() {
                    self.say_goodbye(scratch);
                }
            }
            Flushed::Shut => {
                self.say_goodbye(scratch);
                let _ = self.socket.shut_write();
            }
            // Dropping the socket sends the end of the stream.
            Flushed::Closed => self.say_goodbye(scratch),
        }
    }

    fn flush_plain(&mut self, connection: &mut Connection, cx: &mut Context) -> io::Result<()> {
        let output = &mut cx.services.output;
        if !output.is_empty() {
            debug_assert!(connection.outbox.is_none(), "a reply overtook what waits");
            let (outbox, now) = (&mut connection.outbox, cx.services.now);
            return write_or_keep(&mut self.socket, output, outbox, true, now).map(|_| ());
        }
        while let Some(outbox) = &mut connection.outbox {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let filled = outbox.slices(&mut slices);
            let offered: usize = slices[..filled].iter().map(|slice| slice.len()).sum();
            let written = write_vectored_some(&mut self.socket, &slices[..filled])?;
            outbox.advance(written, cx.services.now);
            if outbox.is_empty() {
                connection.outbox = None;
            } else if written < offered {
                break;
            }
        }
        Ok(())
    }

    fn flush_tls(
        &mut self,
        connection: &mut Connection,
        scratch: &mut Scratch,
        cx: &mut Context,
    ) -> io::Result<()> {
        let Scratch { plain, cipher, .. } = scratch;
        let Some(tls) = &mut self.tls else {
            return Ok(());
        };
        if !cx.services.output.is_empty() {
            let encrypted = tls.encrypt(&cx.services.output, cipher);
            cx.services.output.clear();
            if let Err(error) = encrypted {
                // The session has failed: what it leaves in `cipher` is the alert that says so, and
                // nothing may take its place.
                connection.tls_failed(error, cx);
            }
        }
        let mut is_reply = true;
        loop {
            // What has been encrypted must leave in that order, before anything encrypted later.
            if let Some(outbox) = &mut connection.outbox {
                if !cipher.is_empty() {
                    outbox.push_wire(cipher, is_reply);
                    cipher.clear();
                }
                while !outbox.wire().is_empty() {
                    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                    let filled = outbox.wire_slices(&mut slices);
                    let offered: usize = slices[..filled].iter().map(|slice| slice.len()).sum();
                    let written = write_vectored_some(&mut self.socket, &slices[..filled])?;
                    outbox.advance(written, cx.services.now);
                    if written < offered {
                        return Ok(());
                    }
                }
                if outbox.is_empty() {
                    connection.outbox = None;
                    return Ok(());
                }
                plain.clear();
                // What was published is no reply: whoever is slow to take it is read all the same.
                is_reply = outbox.take_frames(ENCRYPT_BYTES_MAX, plain);
                let encrypted = tls.encrypt(plain, cipher);
                plain.clear();
                if let Err(error) = encrypted {
                    outbox.abandon_frames();
                    connection.tls_failed(error, cx);
                }
            } else if cipher.is_empty() {
                return Ok(());
            } else {
                let (outbox, now) = (&mut connection.outbox, cx.services.now);
                return write_or_keep(&mut self.socket, cipher, outbox, true, now).map(|_| ());
            }
        }
    }

    /// Writes published frames straight from the memory that all subscribers share, several batches in
    /// one write; queues what the socket refuses. Says how many of the batches left or wait: the
    /// others were refused by the outbox's limit, or the connection has ended.
    pub fn deliver(
        &mut self,
        batches: &[Offer],
        lane: Lane,
        connection: &mut Connection,
        scratch: &mut Scratch,
        cx: &mut Context,
    ) -> Taken {
        let mut taken = Taken::default();
        // Nothing may be queued that the socket has not refused: no event would send it.
        while connection.is_open() && connection.outbox.is_none() && taken.batches < batches.len() {
            let rest = &batches[taken.batches..];
            let at_once = &rest[..self.batches_at_once(rest)];
            let went = self.write_batches(at_once, lane, connection, scratch, cx);
            taken.batches += went.batches;
            taken.is_whole &= went.is_whole;
            if went.batches < at_once.len() {
                return taken;
            }
        }
        // Behind what waits; the end of the wait sends it.
        for offer in &batches[taken.batches..] {
            if !taken.note(connection.deliver(offer, lane, cx)) {
                break;
            }
        }
        taken
    }

    /// How many batches go into one write, at least one: as many as the system call takes, and under
    /// TLS no more than are worth encrypting before the socket has been asked. What it refuses of them
    /// waits as ciphertext of this connection's own, which no limit holds back.
    fn batches_at_once(&self, batches: &[Offer]) -> usize {
        if self.tls.is_none() {
            return batches.len().min(SLICES_MAX);
        }
        let mut bytes = 0;
        let fitting = batches.iter().take_while(|offer| {
            bytes += offer.frames.bytes.len();
            bytes <= ENCRYPT_BYTES_MAX
        });
        fitting.count().max(1)
    }

    fn write_batches(
        &mut self,
        batches: &[Offer],
        lane: Lane,
        connection: &mut Connection,
        scratch: &mut Scratch,
        cx: &mut Context,
    ) -> Taken {
        let mut taken = Taken::default();
        let now = cx.services.now;
        let written = match (&mut self.tls, batches) {
            (None, [one]) => write_some(&mut self.socket, &one.frames.bytes),
            (None, _) => {
                let slices: Vec<IoSlice<'_>> = batches
                    .iter()
                    .map(|offer| IoSlice::new(&offer.frames.bytes))
                    .collect();
                write_vectored_some(&mut self.socket, &slices)
            }
            (Some(tls), _) => {
                let cipher = &mut scratch.cipher;
                cipher.clear();
                let encrypted = match batches {
                    [one] => tls.encrypt(&one.frames.bytes, cipher),
                    _ => {
                        let frames = batches.iter().map(|offer| &offer.frames.bytes[..]);
                        tls.encrypt(&frames.collect::<Vec<_>>().concat(), cipher)
                    }
                };
                let outbox = &mut connection.outbox;
                let written = encrypted
                    .map_err(io::Error::other)
                    .and_then(|()| write_or_keep(&mut self.socket, cipher, outbox, false, now));
                match written {
                    Ok(_) => taken.batches = batches.len(),
                    Err(_) => connection.io_failed(cx),
                }
                cipher.clear();
                return taken;
            }
        };
        let Ok(mut written) = written else {
            connection.io_failed(cx);
            return taken;
        };
        for offer in batches {
            let frames = &offer.frames.bytes;
            if written >= frames.len() {
                written -= frames.len();
                taken.batches += 1;
                continue;
            }
            if written > 0 {
                // A frame that has begun must be finished, whatever the limits say.
                outbox_of(&mut connection.outbox, now).push_begun(frames.slice(written..));
                written = 0;
                taken.batches += 1;
            } else if !taken.note(connection.deliver(offer, lane, cx)) {
                break;
            }
        }
        taken
    }

    fn say_goodbye(&mut self, scratch: &mut Scratch) {
        if let Some(tls) = &mut self.tls {
            scratch.cipher.clear();
            tls.close_notify(&mut scratch.cipher);
            if !scratch.cipher.is_empty() {
                let _ = write_some(&mut self.socket, &scratch.cipher);
                scratch.cipher.clear();
            }
        }
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> ReadSome {
        loop {
            return match self.socket.read(buffer) {
                Ok(0) => ReadSome::End,
                Ok(count) => ReadSome::Bytes(count),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => ReadSome::WouldBlock,
                    ErrorKind::Interrupted => continue,
                    _ => ReadSome::Failed,
                },
            };
        }
    }
}

/// The way past the output for large messages of a connection that is being served.
struct Way<'a, S> {
    transport: &'a mut Transport<S>,
    cipher: &'a mut Buffer,
}

impl<S: Socket> Sink for Way<'_, S> {
    fn write(
        &mut self,
        output: &mut Buffer,
        head: &[u8],
        payload: &[u8],
        outbox: &mut Option<Box<Outbox>>,
        now: Tick,
    ) {
        let Self { transport, cipher } = self;
        debug_assert_ne!(transport.straight, Straight::Refused, "asked twice");
        if transport.straight != Straight::Taken {
            output.clear();
            return;
        }
        let socket = &mut transport.socket;
        transport.straight = match &mut transport.tls {
            Some(tls) => {
                // One record has what came before and the header; all others are made from where it lies.
                output.extend_from_slice(head);
                let room = RECORD_PLAIN_BYTES - output.len() % RECORD_PLAIN_BYTES;
                let (first, rest) = payload.split_at(payload.len().min(room));
                output.extend_from_slice(first);
                let sealed = tls.encrypt(output, cipher);
                let sealed = sealed.and_then(|()| tls.encrypt(rest, cipher));
                match sealed.map(|()| write_or_keep(socket, cipher, outbox, true, now)) {
                    Ok(Ok(true)) => Straight::Taken,
                    Ok(Ok(false)) => Straight::Refused,
                    Ok(Err(_)) => Straight::Failed,
                    Err(error) => Straight::Unsealed(error),
                }
            }
            None => {
                let parts = [output, head, payload].map(IoSlice::new);
                let parts = &parts[usize::from(output.is_empty())..];
                send_parts(socket, parts, outbox, now)
            }
        };
        output.clear();
    }
}

fn send_parts(
    socket: &mut impl Socket,
    parts: &[IoSlice<'_>],
    outbox: &mut Option<Box<Outbox>>,
    now: Tick,
) -> Straight {
    let offered: usize = parts.iter().map(|part| part.len()).sum();
    match write_vectored_some(socket, parts) {
        Err(_) => Straight::Failed,
        Ok(written) if written == offered => Straight::Taken,
        Ok(written) => {
            outbox_of(outbox, now).push_refused(parts, written, true);
            Straight::Refused
        }
    }
}

/// What became of published frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Batches that left or wait, from the first.
    pub batches: usize,
    /// Whether nothing of the channel was dropped for them.
    pub is_whole: bool,
}

impl Default for Taken {
    fn default() -> Self {
        Self {
            batches: 0,
            is_whole: true,
        }
    }
}

impl Taken {
    /// Notes what became of one more batch; false if it was refused.
    const fn note(&mut self, delivered: Delivered) -> bool {
        match delivered {
            Delivered::Whole => {}
            Delivered::InPart => self.is_whole = false,
            Delivered::Refused => return false,
        }
        self.batches += 1;
        true
    }
}

enum ReadSome {
    Bytes(usize),
    WouldBlock,
    End,
    Failed,
}

fn outbox_of(outbox: &mut Option<Box<Outbox>>, now: Tick) -> &mut Outbox {
    outbox.get_or_insert_with(|| Box::new(Outbox::new(now)))
}

/// Writes once, and empties the buffer: what the socket refuses waits in the outbox. Says whether it took
/// everything.
fn write_or_keep(
    socket: &mut impl Socket,
    bytes: &mut Buffer,
    outbox: &mut Option<Box<Outbox>>,
    is_reply: bool,
    now: Tick,
) -> io::Result<bool> {
    let written = write_some(socket, bytes).map(|count| &bytes[count..]);
    let is_whole = written.map(|rest| {
        if !rest.is_empty() {
            outbox_of(outbox, now).push_wire(rest, is_reply);
        }
        rest.is_empty()
    });
    bytes.clear();
    is_whole
}

/// Writes once; 0 stands for "would block".
fn write_some(socket: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    settle(|| socket.write(bytes))
}

fn write_vectored_some(socket: &mut impl Write, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    settle(|| socket.write_vectored(slices))
}

fn settle(mut write: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match write() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // The kernel is short of memory for a moment; the write deadline decides (X2).
            Err(error) if is_transient(&error) => return Ok(0),
            other => return other,
        }
    }
}

/// `ENOBUFS` and `ENOMEM`: the socket is sound, the kernel is short of memory.
fn is_transient(error: &io::Error) -> bool {
    use rustix::io::Errno;
    error
        .raw_os_error()
        .is_some_and(|code| [Errno::NOBUFS, Errno::NOMEM].contains(&Errno::from_raw_os_error(code)))
}
