//! One connection of the generator: TCP, perhaps TLS, the upgrade, then messages.

use std::io::{self, Read, Write};
use std::mem;
use std::time::Instant;

use mio::net::TcpStream;
use rustls::{ClientConnection, HandshakeKind};

use crate::frame::{self, Opcode};
use crate::replies::Replies;

/// What the kernel said about a connection in one poll.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Readiness {
    pub(crate) is_readable: bool,
    pub(crate) is_writable: bool,
    /// The server's end of stream, or a reset, is already here: no later edge will tell.
    pub(crate) is_closed: bool,
}

/// What serving a connection brought.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Arrived {
    /// The upgrade was answered just now.
    pub(crate) opened: bool,
    /// Messages that are now complete.
    pub(crate) messages: u32,
}

/// Read buffers, shared by all connections.
#[derive(Debug)]
pub(crate) struct Scratch {
    wire: Vec<u8>,
    plain: Vec<u8>,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self {
            wire: vec![0; 256 << 10],
            plain: vec![0; 32 << 10],
        }
    }
}

#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// Bytes the socket has not taken yet. Empty over TLS, where rustls keeps them.
    unsent: Vec<u8>,
    dialogue: Dialogue,
    /// When the first segment was sent.
    pub(crate) started: Instant,
}

/// What is said inside the transport; apart from it, so that plaintext can be taken while TLS is borrowed.
#[derive(Debug)]
struct Dialogue {
    stage: Stage,
    replies: Replies,
    pings: Vec<Vec<u8>>,
}

#[derive(Debug)]
enum Stage {
    Connecting,
    /// The upgrade is on its way; holds the response as far as it came.
    Upgrading(Vec<u8>),
    Open,
}

impl Connection {
    pub(crate) fn new(
        stream: TcpStream,
        tls: Option<Box<ClientConnection>>,
        replies: Replies,
        started: Instant,
    ) -> Self {
        let dialogue = Dialogue {
            stage: Stage::Connecting,
            replies,
            pings: Vec::new(),
        };
        Self {
            stream,
            tls,
            unsent: Vec::new(),
            dialogue,
            started,
        }
    }

    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Whether the TLS handshake was a resumed one.
    pub(crate) fn was_resumed(&self) -> bool {
        let kind = self.tls.as_ref().and_then(|tls| tls.handshake_kind());
        kind == Some(HandshakeKind::Resumed)
    }

    /// Sends what the socket takes of `bytes` and keeps the rest. Before the TLS handshake is done it
    /// keeps all.
    ///
    /// # Errors
    /// Of the socket.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.writer().write_all(bytes)?;
            return self.flush();
        }
        let mut sent = 0;
        if self.unsent.is_empty() {
            sent = write_some(&mut self.stream, bytes)?;
        }
        self.unsent.extend_from_slice(&bytes[sent..]);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                match tls.write_tls(&mut self.stream) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        } else if !self.unsent.is_empty() {
            let sent = write_some(&mut self.stream, &self.unsent)?;
            self.unsent.drain(..sent);
            if self.unsent.is_empty() {
                self.unsent = Vec::new();
            }
        }
        Ok(())
    }

    /// Does what readiness allows: finishes connecting, writes what waits, reads until the socket is empty.
    ///
    /// # Errors
    /// Of the socket or of TLS, or if the server says something unexpected.
    pub(crate) fn serve(
        &mut self,
        readiness: Readiness,
        scratch: &mut Scratch,
        request: &[u8],
        expected: &[u8],
    ) -> io::Result<Arrived> {
        if matches!(self.dialogue.stage, Stage::Connecting) {
            if let Some(error) = self.stream.take_error()? {
                return Err(error);
            }
            if !readiness.is_writable {
                return Ok(Arrived::default());
            }
            self.dialogue.stage = Stage::Upgrading(Vec::new());
            self.send(request)?;
        } else if readiness.is_writable {
            self.flush()?;
        }
        let mut arrived = Arrived::default();
        if readiness.is_readable {
            self.read(readiness.is_closed, scratch, expected, &mut arrived)?;
            for ping in mem::take(&mut self.dialogue.pings) {
                let mut pong = Vec::new();
                frame::encode(&mut pong, Opcode::Pong, &ping, [1, 2, 3, 4]);
                self.send(&pong)?;
            }
        }
        Ok(arrived)
    }

    fn read(
        &mut self,
        is_closed: bool,
        scratch: &mut Scratch,
        expected: &[u8],
        arrived: &mut Arrived,
    ) -> io::Result<()> {
        loop {
            let count = match self.stream.read(&mut scratch.wire) {
                Ok(0) => return Err(fault("the server closed the connection")),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let mut wire = &scratch.wire[..count];
            if let Some(tls) = &mut self.tls {
                while !wire.is_empty() {
                    tls.read_tls(&mut wire)?;
                    tls.process_new_packets().map_err(io::Error::other)?;
                    loop {
                        match tls.reader().read(&mut scratch.plain) {
                            Ok(0) => return Err(fault("the server closed the connection")),
                            Ok(some) => {
                                self.dialogue
                                    .receive(&scratch.plain[..some], expected, arrived)?;
                            }
                            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                            Err(error) => return Err(error),
                        }
                    }
                }
                // Our Finished, and the request that waited for it.
                if tls.wants_write() {
                    self.flush()?;
                }
            } else {
                self.dialogue.receive(wire, expected, arrived)?;
            }
            // A short read emptied the socket; what comes later is a new edge.
            if count < scratch.wire.len() && !is_closed {
                return Ok(());
            }
        }
    }
}

impl Dialogue {
    fn receive(&mut self, bytes: &[u8], expected: &[u8], arrived: &mut Arrived) -> io::Result<()> {
        let Stage::Upgrading(head) = &mut self.stage else {
            arrived.messages += self
                .replies
                .receive(bytes, expected, &mut self.pings)
                .map_err(fault)?;
            return Ok(());
        };
        head.extend_from_slice(bytes);
        let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") else {
            return if head.len() > HEAD_BYTES_MAX {
                Err(fault("the answer to the upgrade has no end"))
            } else {
                Ok(())
            };
        };
        check_upgrade(&String::from_utf8_lossy(&head[..end]))?;
        let rest = head.split_off(end + 4);
        self.stage = Stage::Open;
        arrived.opened = true;
        arrived.messages += self
            .replies
            .receive(&rest, expected, &mut self.pings)
            .map_err(fault)?;
        Ok(())
    }
}

const HEAD_BYTES_MAX: usize = 16 << 10;

/// The sample key of RFC 6455 §1.3, used by every connection: no server's work depends on it, and a
/// server that parses nothing can answer it from a constant.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The upgrade request (§4.1).
pub(crate) fn upgrade_request(authority: &str, path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
    .into_bytes()
}

/// §4.2.2: status 101 and the accept value that belongs to our key.
fn check_upgrade(head: &str) -> io::Result<()> {
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 101 ") {
        return Err(fault(&format!("the upgrade was refused: {status}")));
    }
    let accept = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-accept"));
    match accept {
        Some((_, value)) if value.trim() == ACCEPT => Ok(()),
        _ => Err(fault(
            "the upgrade was answered with a wrong Sec-WebSocket-Accept",
        )),
    }
}

/// Writes until the socket is full; the number of bytes it took.
fn write_some(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    // After a short write the next one finds the socket full, which arms the edge that resumes it.
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

fn fault(text: &str) -> io::Error {
    io::Error::other(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_101_with_the_right_accept_value_opens() {
        for (head, opens) in [
            (
                "HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
                true,
            ),
            (
                "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: AAAA",
                false,
            ),
            ("HTTP/1.1 101 Switching Protocols", false),
            (
                "HTTP/1.1 429 Too Many Requests\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
                false,
            ),
        ] {
            assert_eq!(check_upgrade(head).is_ok(), opens, "{head}");
        }
    }
}
