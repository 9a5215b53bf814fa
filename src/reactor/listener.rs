//! A listening socket of one reactor: how it is made, and how it accepts.
//!
//! Every reactor has its own socket on every address (`SO_REUSEPORT`), so the kernel spreads new
//! connections over the reactors and no lock is shared. Options are set once here; accepted sockets
//! inherit them, which saves system calls on every accept.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::conn::Speaks;
use crate::timer::{Tick, ticks};

/// A listener and its state in the reactor.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// What connections accepted here begin with.
    pub speaks: Speaks,
    /// Whether connections may wait: an edge was seen and "would block" was not.
    pub is_ready: bool,
    /// Until when nothing is accepted, after the process ran out of descriptors or memory.
    parked_until: Option<Tick>,
    pause: Duration,
}

/// What an attempt to accept brought.
#[derive(Debug)]
pub enum Accepted {
    /// A connection.
    Connection(TcpStream, SocketAddr),
    /// None waits.
    WouldBlock,
    /// One went away before it could be accepted; there may be others.
    Gone,
    /// There is no descriptor or no memory for another socket: the listener is parked for a while.
    Parked(io::Error),
}

/// The first pause of a listener that ran out of descriptors; it doubles up to [`PARK_MAX`]. Accepting
/// again at once would turn a full table into a busy loop: `accept` says `EMFILE` even if nobody waits.
pub const PARK_MIN: Duration = Duration::from_millis(100);
/// The longest pause of a parked listener.
pub const PARK_MAX: Duration = Duration::from_secs(1);

/// Makes a listening socket, one of several on the same address if `shares_port`.
///
/// The backlog is as long as the kernel allows (`net.core.somaxconn`), for those who come while a turn
/// takes its time. Output is held back from the kernel beyond 64 KiB (`TCP_NOTSENT_LOWAT`), so that it waits
/// where it can be counted and dropped.
///
/// # Errors
/// Whatever the kernel says of the address.
pub fn bind(address: SocketAddr, shares_port: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shares_port)?;
    if address.is_ipv6() {
        // `[::]` means IPv6 only; who wants both writes both.
        socket.set_only_v6(true)?;
    }
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(NOT_SENT_LOW_WATER_BYTES)?;
    // The second line behind WebSocket pings: a peer that vanished without a trace.
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(Duration::from_secs(300))
            .with_interval(Duration::from_secs(10))
            .with_retries(5),
    )?;
    socket.bind(&address.into())?;
    socket.listen(i32::MAX)?;
    Ok(socket.into())
}

const NOT_SENT_LOW_WATER_BYTES: u32 = 64 * 1024;

/// Another listening socket on the address an existing one is bound to: for reactors after the first
/// where port 0 let the kernel choose.
///
/// # Errors
/// Whatever the kernel says.
pub fn bind_beside(first: &std::net::TcpListener) -> io::Result<std::net::TcpListener> {
    let address = SockRef::from(first).local_addr()?;
    let address = address
        .as_socket()
        .ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "not an IP address"))?;
    bind(address, true)
}

impl Listener {
    /// Takes over a socket made by [`bind`].
    #[must_use]
    pub fn new(socket: std::net::TcpListener, speaks: Speaks) -> Self {
        Self {
            socket: TcpListener::from_std(socket),
            speaks,
            // The first edge may have come before the socket was registered.
            is_ready: true,
            parked_until: None,
            pause: PARK_MIN,
        }
    }

    /// Whether an attempt to accept may bring something now.
    #[must_use]
    pub fn may_accept(&self, now: Tick) -> bool {
        self.is_ready && self.parked_until.is_none_or(|until| now >= until)
    }

    /// When a parked listener wants to be asked again.
    #[must_use]
    pub fn parked_until(&self) -> Option<Tick> {
        self.parked_until.filter(|_| self.is_ready)
    }

    /// Accepts one connection.
    pub fn accept(&mut self, now: Tick) -> Accepted {
        loop {
            let error = match self.socket.accept() {
                Ok((stream, address)) => {
                    self.parked_until = None;
                    self.pause = PARK_MIN;
                    return Accepted::Connection(stream, address);
                }
                Err(error) => error,
            };
            return match error.kind() {
                ErrorKind::WouldBlock => {
                    self.is_ready = false;
                    self.parked_until = None;
                    Accepted::WouldBlock
                }
                ErrorKind::Interrupted => continue,
                _ if is_exhaustion(&error) => {
                    self.parked_until = Some(now + ticks(self.pause));
                    self.pause = (self.pause * 2).min(PARK_MAX);
                    Accepted::Parked(error)
                }
                // ECONNABORTED, EPROTO and the network errors that accept(2) passes on from the new
                // socket: they concern one connection, not the listener.
                _ => Accepted::Gone,
            };
        }
    }
}

fn is_exhaustion(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| {
        [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
            .contains(&Errno::from_raw_os_error(code))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_inherited_by_accepted_sockets() {
        let listener = bind("127.0.0.1:0".parse().unwrap(), true).unwrap();
        let second = bind_beside(&listener).unwrap();
        assert_eq!(listener.local_addr().unwrap(), second.local_addr().unwrap());
        drop(second);
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        listener.set_nonblocking(false).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let socket = SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(
            socket.tcp_notsent_lowat().unwrap(),
            NOT_SENT_LOW_WATER_BYTES
        );
    }

    #[test]
    fn an_address_in_use_is_an_error() {
        let listener = bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
        assert!(bind(listener.local_addr().unwrap(), false).is_err());
    }
}
