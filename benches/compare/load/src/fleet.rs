//! Many connections over one poll. A connection's slot is its token and its index; a slot may be empty.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::connection::{Arrived, Connection, Readiness, Scratch, upgrade_request};
use crate::frame::Reader;
use crate::metronome::Metronome;
use crate::options::Server;
use crate::replies::Replies;
use crate::template::Template;
use crate::tls;

#[derive(Debug)]
pub(crate) struct Fleet {
    poll: Poll,
    events: Events,
    ready: Vec<(usize, Readiness)>,
    connections: Vec<Option<Connection>>,
    scratch: Scratch,
    address: SocketAddrV4,
    request: Vec<u8>,
    tls: Option<tls::Client>,
    template: Template,
    is_mirror: bool,
    concurrency: usize,
    dialled: u64,
    has_rung: bool,
}

impl Fleet {
    /// No connections yet. `template` is what its users will send.
    ///
    /// # Errors
    /// If the poll or the TLS client cannot be made.
    pub(crate) fn new(server: &Server, resume: bool, template: Template) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            ready: Vec::with_capacity(1024),
            connections: Vec::new(),
            scratch: Scratch::new(),
            address: server.address,
            request: upgrade_request(&server.address.to_string(), &server.path),
            tls: if server.tls {
                Some(tls::Client::new(resume)?)
            } else {
                None
            },
            template,
            is_mirror: server.raw,
            concurrency: server.concurrency as usize,
            dialled: 0,
            has_rung: false,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.connections.len()
    }

    /// What is in a slot.
    pub(crate) fn connection(&self, slot: usize) -> Option<&Connection> {
        self.connections.get(slot)?.as_ref()
    }

    /// Closes what is in a slot; the slot stays, empty.
    pub(crate) fn close(&mut self, slot: usize) {
        self.connections[slot] = None;
    }

    /// Lets a clock ring in [`wait`](Self::wait); see [`rang`](Self::rang).
    ///
    /// # Errors
    /// Of the poll.
    pub(crate) fn listen_to(&mut self, metronome: &Metronome) -> io::Result<()> {
        let source = metronome.descriptor();
        let mut source = SourceFd(&source);
        self.poll
            .registry()
            .register(&mut source, METRONOME, Interest::READABLE)
    }

    /// Whether the clock rang in the last wait.
    pub(crate) fn rang(&self) -> bool {
        self.has_rung
    }

    /// Opens `count` more connections, some at a time, and waits until all are upgraded. A message that
    /// comes meanwhile would be nobody's, and is a fault.
    ///
    /// # Errors
    /// The first that any connection has, or a timeout.
    pub(crate) fn open(&mut self, count: u32) -> io::Result<()> {
        let goal = self.len() + count as usize;
        let mut opening = 0;
        let deadline = Instant::now() + OPEN_MAX;
        while self.len() < goal || opening > 0 {
            while self.len() < goal && opening < self.concurrency {
                self.dial(self.len())?;
                opening += 1;
            }
            for nth in 0..self.wait(POLL_MAX)? {
                let (_, arrived) = self.serve(nth)?;
                opening -= usize::from(arrived.opened);
                if arrived.messages > 0 {
                    return Err(io::Error::other("a message before any was sent"));
                }
            }
            check_deadline(deadline, "the connections did not open in time")?;
        }
        Ok(())
    }

    /// Begins a connection in `slot`: the next free one, or one in use, whose socket is closed by this.
    ///
    /// # Errors
    /// If no socket can be had, or the server refuses at once.
    pub(crate) fn dial(&mut self, slot: usize) -> io::Result<()> {
        let socket = Socket::new(
            Domain::IPV4,
            Type::STREAM.nonblocking(),
            Some(Protocol::TCP),
        )?;
        socket.set_tcp_nodelay(true)?;
        // An address has 28,000 ports to lend, and a closed connection keeps its own for a minute.
        let host = u8::try_from(self.dialled % SOURCES).unwrap_or_default();
        let source = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, SOURCE_FIRST + host), 0);
        socket.bind(&source.into())?;
        self.dialled += 1;
        let started = Instant::now();
        if let Err(error) = socket.connect(&self.address.into())
            && error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error())
        {
            return Err(error);
        }
        let tls = self.tls.as_ref().map(tls::Client::start).transpose()?;
        let reader = if self.is_mirror {
            Reader::mirror(self.template.expected().len())
        } else {
            Reader::frames()
        };
        let stream = TcpStream::from_std(socket.into());
        let mut connection = Connection::new(stream, tls, Replies::new(reader), started);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(connection.stream(), Token(slot), interest)?;
        if slot == self.len() {
            self.connections.push(Some(connection));
        } else {
            self.connections[slot] = Some(connection);
        }
        Ok(())
    }

    /// Waits for readiness; the number of connections to [`serve`](Self::serve).
    ///
    /// # Errors
    /// Of the poll.
    pub(crate) fn wait(&mut self, longest: Duration) -> io::Result<usize> {
        self.ready.clear();
        self.has_rung = false;
        match self.poll.poll(&mut self.events, Some(longest)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(0),
            outcome => outcome?,
        }
        self.has_rung = self.events.iter().any(|event| event.token() == METRONOME);
        let connections = (self.events.iter()).filter(|event| event.token() != METRONOME);
        self.ready.extend(connections.map(|event| {
            let is_closed = event.is_read_closed() || event.is_error();
            let readiness = Readiness {
                is_readable: event.is_readable() || is_closed,
                is_writable: event.is_writable(),
                is_closed,
            };
            (event.token().0, readiness)
        }));
        Ok(self.ready.len())
    }

    /// Serves the `nth` connection of the last wait: its slot, and what it brought.
    ///
    /// # Errors
    /// Of that connection.
    pub(crate) fn serve(&mut self, nth: usize) -> io::Result<(usize, Arrived)> {
        let slot = self.slot(nth);
        let (_, readiness) = self.ready[nth];
        let Some(connection) = &mut self.connections[slot] else {
            return Ok((slot, Arrived::default()));
        };
        let arrived = connection.serve(
            readiness,
            &mut self.scratch,
            &self.request,
            self.template.expected(),
        )?;
        Ok((slot, arrived))
    }

    /// The slot of the `nth` connection of the last wait.
    pub(crate) fn slot(&self, nth: usize) -> usize {
        self.ready[nth].0
    }

    /// Sends `count` messages on one connection.
    ///
    /// # Errors
    /// Of its socket.
    pub(crate) fn send(&mut self, slot: usize, count: usize) -> io::Result<()> {
        match &mut self.connections[slot] {
            Some(connection) => connection.send(self.template.frames(count)),
            None => Err(io::Error::other("nobody is there to send on")),
        }
    }

    /// One message to the server and back on every connection from `first` on, some at a time.
    ///
    /// # Errors
    /// The first that any connection has, or a timeout.
    pub(crate) fn echo_once(&mut self, first: usize) -> io::Result<()> {
        let (mut next, mut waiting) = (first, 0);
        let deadline = Instant::now() + OPEN_MAX;
        while next < self.len() || waiting > 0 {
            while next < self.len() && waiting < self.concurrency {
                self.send(next, 1)?;
                next += 1;
                waiting += 1;
            }
            for nth in 0..self.wait(POLL_MAX)? {
                let (_, arrived) = self.serve(nth)?;
                waiting -= arrived.messages as usize;
            }
            check_deadline(deadline, "not every connection got its echo in time")?;
        }
        Ok(())
    }

    /// Answers pings and nothing else for a while.
    ///
    /// # Errors
    /// The first that any connection has.
    pub(crate) fn idle(&mut self, how_long: Duration) -> io::Result<()> {
        let end = Instant::now() + how_long;
        while let Some(left) = end
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
        {
            for nth in 0..self.wait(left.min(POLL_MAX))? {
                self.serve(nth)?;
            }
        }
        Ok(())
    }
}

/// The clock's token: no slot is as large.
const METRONOME: Token = Token(usize::MAX);
/// Longest wait in one poll; bounds how late a deadline is noticed.
pub(crate) const POLL_MAX: Duration = Duration::from_millis(50);
/// Longest time for all connections of a run to open.
const OPEN_MAX: Duration = Duration::from_secs(60);
/// Clients come from 127.0.0.2 to 127.0.0.201.
const SOURCE_FIRST: u8 = 2;
const SOURCES: u64 = 200;

fn check_deadline(deadline: Instant, what: &'static str) -> io::Result<()> {
    if Instant::now() > deadline {
        return Err(io::Error::new(io::ErrorKind::TimedOut, what));
    }
    Ok(())
}
