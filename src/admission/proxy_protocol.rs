//! The PROXY protocol, versions 1 and 2: a header in front of everything else, in which a load balancer
//! says whose connection it passes on.
//!
//! A listener either demands this header or does not know it. Guessing would let any client write one,
//! so a listener that demands it refuses who sends none, and its owner asks `address::TrustedNetworks`
//! about the peer before the first byte is given to the reader.
//!
//! Own code rather than the `ppp` crate: that one parses a whole header per call and allocates for it,
//! so bytes that trickle in would be parsed again and again; this one keeps its place, owns 107 bytes at
//! most, and passes over what it does not need without storing it.
//!
//! The answer does not depend on how the header was cut into reads, and each byte is looked at once.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The balancer passes on the connection of this client.
    Proxied {
        /// The client.
        client: SocketAddr,
        /// What the client connected to.
        destination: SocketAddr,
    },
    /// The balancer itself is the client, as for a health check: version 2's LOCAL.
    Local,
    /// The client has no IP address, or the balancer does not know it (version 1's UNKNOWN, version 2's
    /// UNSPEC and UNIX): the peer's address stands.
    Unknown,
}

/// What one read led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The header goes on. All of the input was taken.
    Incomplete,
    /// The header is whole.
    Complete {
        /// What it says.
        source: Source,
        /// How many bytes of this input belong to it.
        used: usize,
    },
}

/// Reads one header.
#[derive(Debug, Clone)]
pub struct ProxyReader {
    /// What has to be kept of the header: a line of version 1, or version 2 up to its addresses.
    held: [u8; V1_BYTES_MAX],
    held_bytes: u8,
    /// Once version 2's addresses are known: what they say, and the bytes to pass over.
    skipping: Option<(Source, u16)>,
    tlv_bytes_max: u16,
}

/// Longest header of version 1, CRLF included (specification §2.1).
pub const V1_BYTES_MAX: usize = 107;

/// Bytes of version 2's type-length-values that are accepted by default; they are passed over. Cloud
/// balancers send about a hundred; a client certificate's name may need more.
pub const TLV_BYTES_MAX: u16 = 2048;

const V1_START: &[u8] = b"PROXY ";
const V2_START: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Start, version and command, family and protocol, length.
const V2_FIXED: usize = 16;

impl ProxyReader {
    /// A reader that accepts up to `tlv_bytes_max` bytes behind version 2's addresses; default
    /// [`TLV_BYTES_MAX`].
    #[must_use]
    pub const fn new(tlv_bytes_max: u16) -> Self {
        Self {
            held: [0; V1_BYTES_MAX],
            held_bytes: 0,
            skipping: None,
            tlv_bytes_max,
        }
    }

    /// Takes the next bytes from the peer. After an answer or an error the reader is spent.
    ///
    /// # Errors
    /// [`ProxyError`], at the first byte that shows it. Close: the peer is not what it should be, and
    /// cannot be told in words it would understand.
    pub fn receive(&mut self, input: &[u8]) -> Result<Progress, ProxyError> {
        for (at, byte) in input.iter().enumerate() {
            if let Some((source, left)) = self.skipping {
                return Ok(self.skip(source, left, input, at));
            }
            let held_bytes = usize::from(self.held_bytes);
            self.held[held_bytes] = *byte;
            self.held_bytes += 1;
            if let Some(source) = self.step(held_bytes + 1)? {
                return Ok(Progress::Complete {
                    source,
                    used: at + 1,
                });
            }
        }
        Ok(Progress::Incomplete)
    }

    /// Passes over type-length-values from `input[at]` on.
    fn skip(&mut self, source: Source, left: u16, input: &[u8], at: usize) -> Progress {
        let here = input.len() - at;
        if here >= usize::from(left) {
            let used = at + usize::from(left);
            return Progress::Complete { source, used };
        }
        #[expect(clippy::cast_possible_truncation, reason = "less than `left`, a u16")]
        let here = here as u16;
        self.skipping = Some((source, left - here));
        Progress::Incomplete
    }

    /// Judges what is held after one more byte.
    fn step(&mut self, held_bytes: usize) -> Result<Option<Source>, ProxyError> {
        let held = &self.held[..held_bytes];
        if held[0] == V1_START[0] {
            return step_v1(held);
        }
        if held_bytes < V2_FIXED {
            return check_v2_start(held).map(|()| None);
        }
        let (fixed, addresses) = held.split_at(V2_FIXED);
        let header = V2Header::parse(fixed, usize::from(self.tlv_bytes_max))?;
        if addresses.len() < header.kind.address_bytes() {
            return Ok(None);
        }
        let source = header.kind.source(addresses);
        if header.bytes_behind == 0 {
            return Ok(Some(source));
        }
        self.skipping = Some((source, header.bytes_behind));
        Ok(None)
    }
}

/// Judges the beginning of a line of version 1 (specification §2.1), of which the last byte is new.
fn step_v1(held: &[u8]) -> Result<Option<Source>, ProxyError> {
    let start = held.len().min(V1_START.len());
    if held[..start] != V1_START[..start] {
        return Err(ProxyError::Missing);
    }
    match held {
        [line @ .., b'\r', b'\n'] => parse_v1(line).map(Some),
        // Neither half of a line's end without the other.
        [.., b'\n'] => Err(ProxyError::Malformed),
        [.., b'\r', _] => Err(ProxyError::Malformed),
        _ if held.len() == V1_BYTES_MAX => Err(ProxyError::TooLong),
        _ => Ok(None),
    }
}

/// `PROXY TCP4 client destination port port`, without the line's end.
fn parse_v1(line: &[u8]) -> Result<Source, ProxyError> {
    let line = std::str::from_utf8(line).map_err(|_| ProxyError::Malformed)?;
    let mut fields = line.split(' ').skip(1);
    let source = match fields.next() {
        // Whatever follows is to be ignored.
        Some("UNKNOWN") => return Ok(Source::Unknown),
        Some("TCP4") => parse_v1_addresses::<Ipv4Addr>(&mut fields),
        Some("TCP6") => parse_v1_addresses::<Ipv6Addr>(&mut fields),
        _ => None,
    };
    let is_whole = fields.next().is_none();
    source.filter(|_| is_whole).ok_or(ProxyError::Malformed)
}

fn parse_v1_addresses<'a, A: FromStr + Into<IpAddr>>(
    fields: &mut impl Iterator<Item = &'a str>,
) -> Option<Source> {
    let client = A::from_str(fields.next()?).ok()?.into();
    let destination = A::from_str(fields.next()?).ok()?.into();
    let client_port = parse_v1_port(fields.next()?)?;
    let destination_port = parse_v1_port(fields.next()?)?;
    Some(Source::Proxied {
        client: SocketAddr::new(client, client_port),
        destination: SocketAddr::new(destination, destination_port),
    })
}

/// Digits alone, no zero in front: `FromStr` would take `+80` as well.
fn parse_v1_port(text: &str) -> Option<u16> {
    let is_plain = text == "0" || text.starts_with(|first: char| matches!(first, '1'..='9'));
    text.parse().ok().filter(|_| is_plain)
}

/// Judges the beginning of version 2's fixed part (§2.2).
fn check_v2_start(held: &[u8]) -> Result<(), ProxyError> {
    let start = held.len().min(V2_START.len());
    if held[..start] != V2_START[..start] {
        return Err(ProxyError::Missing);
    }
    match held.get(start) {
        None | Some(0x20 | 0x21) => Ok(()),
        Some(_) => Err(ProxyError::Malformed),
    }
}

/// Version 2's fixed part.
struct V2Header {
    kind: V2Kind,
    /// What is to be passed over behind the addresses that are read.
    bytes_behind: u16,
}

#[derive(Clone, Copy)]
enum V2Kind {
    Local,
    Unknown,
    Tcp4,
    Tcp6,
}

/// What two UNIX addresses take, the longest address block there is.
const UNIX_ADDRESS_BYTES: usize = 216;

impl V2Header {
    fn parse(fixed: &[u8], tlv_bytes_max: usize) -> Result<Self, ProxyError> {
        let length = u16::from_be_bytes([fixed[14], fixed[15]]);
        let is_local = fixed[12] == 0x20;
        let (kind, block_bytes) = match fixed[13] {
            // The family is to be ignored, whatever it is.
            _ if is_local => (V2Kind::Local, 0..=UNIX_ADDRESS_BYTES),
            0x00 => (V2Kind::Unknown, 0..=UNIX_ADDRESS_BYTES),
            0x11 => (V2Kind::Tcp4, 12..=12),
            0x21 => (V2Kind::Tcp6, 36..=36),
            0x31 => (V2Kind::Unknown, UNIX_ADDRESS_BYTES..=UNIX_ADDRESS_BYTES),
            // Datagrams, on a connection.
            _ => return Err(ProxyError::Family),
        };
        if usize::from(length) < *block_bytes.start() {
            return Err(ProxyError::Malformed);
        }
        if usize::from(length) > block_bytes.end() + tlv_bytes_max {
            return Err(ProxyError::TooLong);
        }
        #[expect(clippy::cast_possible_truncation, reason = "36 at most")]
        let address_bytes = kind.address_bytes() as u16;
        Ok(Self {
            kind,
            bytes_behind: length - address_bytes,
        })
    }
}

impl V2Kind {
    /// Bytes of addresses that are read.
    const fn address_bytes(self) -> usize {
        match self {
            Self::Local | Self::Unknown => 0,
            Self::Tcp4 => 12,
            Self::Tcp6 => 36,
        }
    }

    /// Reads them: client, destination, and the two ports.
    fn source(self, addresses: &[u8]) -> Source {
        fn split<const N: usize, A: From<[u8; N]> + Into<IpAddr>>(bytes: &[u8]) -> Source {
            let address = |at: usize| {
                let mut octets = [0; N];
                octets.copy_from_slice(&bytes[at..at + N]);
                A::from(octets).into()
            };
            let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            Source::Proxied {
                client: SocketAddr::new(address(0), port(2 * N)),
                destination: SocketAddr::new(address(N), port(2 * N + 2)),
            }
        }
        match self {
            Self::Local => Source::Local,
            Self::Unknown => Source::Unknown,
            Self::Tcp4 => split::<4, Ipv4Addr>(addresses),
            Self::Tcp6 => split::<16, Ipv6Addr>(addresses),
        }
    }
}

/// Why there is no going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyError {
    /// The bytes do not begin as a PROXY header does: the peer sends none.
    Missing,
    /// They do, and go on wrongly.
    Malformed,
    /// Version 2 with an address family or protocol that a TCP connection cannot have.
    Family,
    /// Version 1: no line's end in [`V1_BYTES_MAX`] bytes. Version 2: more type-length-values than
    /// accepted.
    TooLong,
}

impl ProxyError {
    /// Every label there is, in the order of the variants: for a metric that starts at zero.
    pub const LABELS: [&str; 4] = ["missing", "malformed", "family", "too_long"];

    /// The reason as a metric's label, one of [`ProxyError::LABELS`].
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Family => "family",
            Self::TooLong => "too_long",
        }
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "no PROXY header, and this listener demands one",
            Self::Malformed => "malformed PROXY header",
            Self::Family => "PROXY header for something other than a stream",
            Self::TooLong => "PROXY header too long",
        })
    }
}

impl std::error::Error for ProxyError {}

#[cfg(test)]
mod tests;
