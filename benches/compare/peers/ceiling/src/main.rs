//! The ceiling: a plain epoll loop that moves bytes and knows nothing of WebSocket, as a measure of what
//! the kernel takes for itself. One read and one write per wake-up, no parsing, no timers, no limits.
//!
//! A request head gets a canned 101, right for the one key the generator uses. After that bytes go back
//! to where they came from, masked as they are; or, if the request was for `/broadcast`, to all
//! connections that asked for it.
//!
//! It is *a* plain loop, not a proven bound: a server that makes fewer system calls can do better.

use std::collections::HashMap;
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::SocketAddr;

use clap::Parser;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, Socket, Type};

#[derive(Debug, Parser)]
struct Options {
    /// Address to listen on
    #[arg(long)]
    listen: SocketAddr,
}

const LISTENER: Token = Token(usize::MAX);
const ANSWER: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// The kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let mut listener = bind(options.listen)?;
    let mut poll = Poll::new()?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let mut mirror = Mirror::default();
    let mut buffer = vec![0; 512 << 10];
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                mirror.accept(&listener, poll.registry())?;
                continue;
            }
            let Token(slot) = event.token();
            let mut outcome = Ok(true);
            if event.is_writable() {
                outcome = mirror.flush(slot);
            }
            if matches!(outcome, Ok(true)) && (event.is_readable() || event.is_read_closed()) {
                outcome = mirror.read(slot, event.is_read_closed(), &mut buffer);
            }
            if !matches!(outcome, Ok(true)) {
                mirror.close(slot);
            }
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let kind = Type::STREAM.nonblocking();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Inherited by accepted sockets.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

#[derive(Debug)]
struct Client {
    stream: TcpStream,
    is_upgraded: bool,
    is_member: bool,
}

#[derive(Debug, Default)]
struct Mirror {
    clients: Vec<Option<Client>>,
    free: Vec<usize>,
    members: Vec<usize>,
    /// What a socket would not take yet, by slot. Apart from the clients, since it is rare.
    unsent: HashMap<usize, Vec<u8>>,
}

impl Mirror {
    fn accept(&mut self, listener: &TcpListener, registry: &mio::Registry) -> io::Result<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            let slot = self.free.pop().unwrap_or_else(|| {
                self.clients.push(None);
                self.clients.len() - 1
            });
            let interest = Interest::READABLE | Interest::WRITABLE;
            registry.register(&mut stream, Token(slot), interest)?;
            self.clients[slot] = Some(Client {
                stream,
                is_upgraded: false,
                is_member: false,
            });
        }
    }

    /// Reads until the socket is empty; false at its end.
    fn read(&mut self, slot: usize, is_closed: bool, buffer: &mut [u8]) -> io::Result<bool> {
        loop {
            let Some(client) = self.clients.get_mut(slot).and_then(Option::as_mut) else {
                return Ok(true);
            };
            let count = match client.stream.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            };
            let bytes = &buffer[..count];
            if !client.is_upgraded {
                // On this machine a request arrives in one piece.
                client.is_upgraded = true;
                client.is_member = bytes.starts_with(b"GET /broadcast ");
                if client.is_member {
                    self.members.push(slot);
                }
                self.write(slot, ANSWER)?;
            } else if client.is_member {
                for at in 0..self.members.len() {
                    // A member that is gone is noticed by its own event.
                    let _ = self.write(self.members[at], bytes);
                }
            } else {
                self.write(slot, bytes)?;
            }
            // A short read emptied the socket; only an end that is already here makes no new edge.
            if count < buffer.len() && !is_closed {
                return Ok(true);
            }
        }
    }

    fn write(&mut self, slot: usize, bytes: &[u8]) -> io::Result<()> {
        let Some(client) = self.clients.get_mut(slot).and_then(Option::as_mut) else {
            return Ok(());
        };
        if !self.unsent.is_empty()
            && let Some(unsent) = self.unsent.get_mut(&slot)
        {
            unsent.extend_from_slice(bytes);
            return Ok(());
        }
        let sent = write_some(&mut client.stream, bytes)?;
        if sent < bytes.len() {
            self.unsent.insert(slot, bytes[sent..].to_vec());
        }
        Ok(())
    }

    /// Writes what has waited; true, since only an error ends a connection here.
    fn flush(&mut self, slot: usize) -> io::Result<bool> {
        if self.unsent.is_empty() {
            return Ok(true);
        }
        if let Some(client) = self.clients.get_mut(slot).and_then(Option::as_mut)
            && let Some(mut unsent) = self.unsent.remove(&slot)
        {
            let sent = write_some(&mut client.stream, &unsent)?;
            unsent.drain(..sent);
            if !unsent.is_empty() {
                self.unsent.insert(slot, unsent);
            }
        }
        Ok(true)
    }

    fn close(&mut self, slot: usize) {
        if let Some(client) = self.clients.get_mut(slot).and_then(Option::take) {
            if client.is_member {
                self.members.retain(|member| *member != slot);
            }
            self.unsent.remove(&slot);
            self.free.push(slot);
        }
    }
}

/// Writes until the socket is full; the number of bytes it took.
fn write_some(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}
