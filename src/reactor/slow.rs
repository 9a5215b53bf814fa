//! Why a consumer is slow: asked of the kernel, which knows what of our bytes the peer has taken.
//!
//! The question goes over a netlink socket (`sock_diag(7)`), which answers with the socket's `tcp_info`
//! without an unsafe call. The kernel answers while the question is being asked, so nobody waits. Where it
//! does not answer (a kernel without `tcp_diag`, a sandbox), the cause is unknown.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

use crate::metrics::report::SlowCause;

/// A way to ask, opened with the first question.
#[derive(Debug, Default)]
pub(super) struct Diagnosis {
    socket: Option<OwnedFd>,
    sequence: u32,
}

impl Diagnosis {
    /// Why the peer of a connection does not take what waits for it. Two system calls; four with the
    /// first question.
    pub(super) fn ask(&mut self, local: SocketAddr, peer: SocketAddr) -> SlowCause {
        self.sequence = self.sequence.wrapping_add(1);
        let answer = self.exchange(&question(self.sequence, local, peer));
        answer
            .and_then(|answer| TcpInfo::read(&answer, self.sequence))
            .map_or(SlowCause::Unknown, |info| info.cause())
    }

    fn exchange(&mut self, question: &[u8]) -> Option<Vec<u8>> {
        if self.socket.is_none() {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let protocol = Some(netlink::SOCK_DIAG);
            let opened = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, protocol);
            self.socket = opened.ok();
        }
        let socket = self.socket.as_ref()?;
        send(socket, question, SendFlags::DONTWAIT).ok()?;
        let mut buffer = [0; ANSWER_BYTES_MAX];
        let (length, _) = recv(socket, &mut buffer[..], RecvFlags::DONTWAIT).ok()?;
        Some(buffer[..length].to_vec())
    }
}

/// Room for an answer: headers of 88 bytes, a `tcp_info` of some 280, and what else kernels put in.
const ANSWER_BYTES_MAX: usize = 4096;

/// `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;
/// `struct inet_diag_req_v2`.
const REQUEST_BYTES: usize = 56;
/// `struct inet_diag_msg`.
const MESSAGE_BYTES: usize = 72;
/// The type of questions and answers.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST`: one socket, not a list.
const IS_REQUEST: u16 = 1;
const TCP: u8 = 6;
/// The attribute that holds a `tcp_info`; its bit in a question asks for it.
const INFO: u16 = 2;

/// The question for one socket.
fn question(sequence: u32, local: SocketAddr, peer: SocketAddr) -> Vec<u8> {
    const LENGTH: u32 = 72;
    debug_assert_eq!(LENGTH as usize, HEADER_BYTES + REQUEST_BYTES);
    let mut out = Vec::with_capacity(HEADER_BYTES + REQUEST_BYTES);
    out.extend(LENGTH.to_ne_bytes());
    out.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    out.extend(IS_REQUEST.to_ne_bytes());
    out.extend(sequence.to_ne_bytes());
    out.extend([0; 4]);
    let family = if local.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    // The families' numbers are small: `sdiag_family` has one byte for them.
    out.extend([family.as_raw().to_ne_bytes()[usize::from(cfg!(target_endian = "big"))]]);
    out.extend([TCP, 1 << (INFO - 1), 0]);
    // In whatever state.
    out.extend([0xff; 4]);
    out.extend(local.port().to_be_bytes());
    out.extend(peer.port().to_be_bytes());
    for address in [local.ip(), peer.ip()] {
        match address {
            IpAddr::V4(ip) => {
                out.extend(ip.octets());
                out.extend([0; 12]);
            }
            IpAddr::V6(ip) => out.extend(ip.octets()),
        }
    }
    // On whatever interface, with whatever cookie.
    out.extend([0; 4]);
    out.extend([0xff; 8]);
    out
}

/// What of `struct tcp_info` tells the causes apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TcpInfo {
    /// Timeouts in a row.
    retransmits: u8,
    /// Probes of a closed window in a row.
    probes: u8,
    send_segment: u32,
    /// Segments on their way.
    unacknowledged: u32,
    lost: u32,
    /// Bytes that wait in the kernel.
    unsent: u32,
    /// What the peer has room for; kernels before 5.4 do not say.
    window: Option<u32>,
}

impl TcpInfo {
    fn read(answer: &[u8], sequence: u32) -> Option<Self> {
        let kind = u16::from_ne_bytes(take(answer, 4)?);
        let is_ours = u32::from_ne_bytes(take(answer, 8)?) == sequence;
        if kind != SOCK_DIAG_BY_FAMILY || !is_ours {
            return None;
        }
        let mut attributes = answer.get(HEADER_BYTES + MESSAGE_BYTES..)?;
        loop {
            let length = usize::from(u16::from_ne_bytes(take(attributes, 0)?));
            let body = attributes.get(4..length)?;
            if u16::from_ne_bytes(take(attributes, 2)?) == INFO {
                return Self::of(body);
            }
            attributes = attributes.get(length.next_multiple_of(4)..)?;
        }
    }

    fn of(info: &[u8]) -> Option<Self> {
        let word = |at| Some(u32::from_ne_bytes(take(info, at)?));
        Some(Self {
            retransmits: *info.get(2)?,
            probes: *info.get(3)?,
            send_segment: word(16)?,
            unacknowledged: word(24)?,
            lost: word(32)?,
            unsent: word(144)?,
            window: word(228),
        })
    }

    /// The cause that explains it, the surest sign first.
    fn cause(&self) -> SlowCause {
        let is_window_closed = self
            .window
            .is_some_and(|window| window < self.send_segment.max(1));
        // A peer whose buffer is full drops what is on its way: that is sent again, and no loss.
        if self.probes > 0 || is_window_closed {
            SlowCause::PeerWindow
        } else if self.retransmits > 0 || self.lost > 0 {
            SlowCause::Loss
        } else if self.unacknowledged > 0 || self.unsent > 0 {
            SlowCause::Path
        } else {
            // The kernel has nothing left to send, and we have.
            SlowCause::Reactor
        }
    }
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Two ends of a connection.
    fn pair(address: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(address).unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, peer)
    }

    fn cause(diagnosis: &mut Diagnosis, stream: &TcpStream) -> SlowCause {
        diagnosis.ask(stream.local_addr().unwrap(), stream.peer_addr().unwrap())
    }

    #[test]
    fn n12_the_kernel_says_that_a_peer_does_not_read() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (mut stream, mut peer) = pair(address);
            let mut diagnosis = Diagnosis::default();
            stream.write_all(b"hello").unwrap();
            peer.read_exact(&mut [0; 5]).unwrap();
            let idle = cause(&mut diagnosis, &stream);
            if idle == SlowCause::Unknown {
                // A kernel without tcp_diag: then no cause is known of anybody.
                return;
            }
            assert_eq!(idle, SlowCause::Reactor, "the kernel has nothing to send");
            stream.set_nonblocking(true).unwrap();
            // What is written goes on its way at the kernel's pace; only then is the window closed.
            let mut full = SlowCause::Unknown;
            for _ in 0..10_000 {
                while stream.write(&[0; 65_536]).is_ok() {}
                full = cause(&mut diagnosis, &stream);
                if full == SlowCause::PeerWindow {
                    break;
                }
                std::thread::park_timeout(std::time::Duration::from_millis(1));
            }
            assert_eq!(full, SlowCause::PeerWindow, "{address}");
        }
    }

    #[test]
    fn a_socket_that_is_not_there_has_no_known_cause() {
        let mut diagnosis = Diagnosis::default();
        let address = "127.0.0.1:1".parse().unwrap();
        assert_eq!(diagnosis.ask(address, address), SlowCause::Unknown);
    }

    #[test]
    fn causes_are_told_apart() {
        let healthy = TcpInfo {
            retransmits: 0,
            probes: 0,
            send_segment: 1_448,
            unacknowledged: 4,
            lost: 0,
            unsent: 0,
            window: Some(65_536),
        };
        for (info, cause) in [
            (healthy, SlowCause::Path),
            (
                TcpInfo {
                    window: None,
                    ..healthy
                },
                SlowCause::Path,
            ),
            (
                TcpInfo {
                    probes: 1,
                    lost: 1,
                    ..healthy
                },
                SlowCause::PeerWindow,
            ),
            (
                TcpInfo {
                    window: Some(0),
                    ..healthy
                },
                SlowCause::PeerWindow,
            ),
            (
                TcpInfo {
                    lost: 1,
                    window: Some(0),
                    ..healthy
                },
                SlowCause::PeerWindow,
            ),
            (
                TcpInfo {
                    retransmits: 2,
                    ..healthy
                },
                SlowCause::Loss,
            ),
            (
                TcpInfo {
                    unacknowledged: 0,
                    unsent: 9,
                    ..healthy
                },
                SlowCause::Path,
            ),
            (
                TcpInfo {
                    unacknowledged: 0,
                    ..healthy
                },
                SlowCause::Reactor,
            ),
        ] {
            assert_eq!(info.cause(), cause, "{info:?}");
        }
    }

    #[test]
    fn answers_that_are_cut_or_for_somebody_else_say_nothing() {
        let mut answer = vec![0; HEADER_BYTES + MESSAGE_BYTES];
        answer[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        answer[8..12].copy_from_slice(&7_u32.to_ne_bytes());
        // An attribute nobody asked for, whose length is no multiple of four.
        answer.extend(5_u16.to_ne_bytes());
        answer.extend(9_u16.to_ne_bytes());
        answer.extend([1, 0, 0, 0]);
        answer.extend(236_u16.to_ne_bytes());
        answer.extend(INFO.to_ne_bytes());
        answer.extend([1; 232]);
        assert!(TcpInfo::read(&answer, 7).is_some());
        assert_eq!(TcpInfo::read(&answer, 8), None);
        for length in 0..answer.len() {
            assert_eq!(TcpInfo::read(&answer[..length], 7), None, "{length}");
        }
        answer[4..6].copy_from_slice(&2_u16.to_ne_bytes());
        assert_eq!(TcpInfo::read(&answer, 7), None, "an error");
    }
}
