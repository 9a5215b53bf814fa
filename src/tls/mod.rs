//! TLS 1.2 and 1.3 for the server side: ciphertext in, plaintext out, and back.
//!
//! Every call into rustls is made in this module, so that a new release of it is a change to one
//! folder. An [`Acceptor`] holds what all connections share (certificates, ticket keys, the
//! cryptography provider); a [`Session`] is one connection's state. Neither owns a socket, a
//! thread or a timer: the caller moves the bytes and sets the deadlines.
//!
//! What is decided here:
//! * AEAD cipher suites only; X25519MLKEM768 wherever the client offers it; extended master secret
//!   demanded of TLS 1.2 (RFC 7627); no renegotiation, no 0-RTT (it can be replayed), no client
//!   certificates.
//! * ALPN offers `http/1.1` and nothing else. A client that speaks no ALPN is served; one that
//!   speaks only something else is refused during the handshake (RFC 7301 §3.2), which keeps a
//!   confused or hostile client from sending one protocol's bytes to another (RFC 9325 §3.8).
//! * Tickets are stateless and one per handshake: WebSocket clients keep one connection, and a
//!   second ticket would cost three microseconds and two hundred bytes for nothing.
//! * Records are paid for by useful bytes, so that floods of empty records or key updates end.
//!
//! Invariants: no input can panic or make a loop spin; a failed session stays failed; an idle
//! established session owns no buffer of ours.

mod acceptor;
mod certificates;
mod error;
mod session;
mod validity;

pub use self::acceptor::{Acceptor, Replacement};
pub use self::certificates::{CERTIFICATE_FILE_BYTES_MAX, CertificateFiles, KEY_FILE_BYTES_MAX};
pub use self::error::{CertificateError, CertificateProblem, TlsError};
pub use self::session::{
    HANDSHAKE_BYTES_MAX, RECORD_BYTES_MAX, RECORD_PLAIN_BYTES, Received, SESSION_BYTES, Session,
    SessionInfo, State, TlsVersion,
};
