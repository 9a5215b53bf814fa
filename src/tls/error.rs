//! What can go wrong: with a peer ([`TlsError`]) and with an operator's files
//! ([`CertificateError`]). Neither ever holds key material, names from a peer, or plaintext.

use std::error::Error;
use std::fmt;
use std::io;

use rustls::{CertificateError as RustlsCertificate, InvalidMessage, PeerIncompatible};
use rustls::{Error as Rustls, PeerMisbehaved};

/// Why a session ended before its time: a closed set, made to be counted by [`TlsError::label`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsError {
    /// The first byte was text: HTTP, or a PROXY header, on a TLS port. No alert is sent, since
    /// such a peer cannot read one; the caller may answer in plain text.
    PlainBytesOnTlsPort,
    /// The client offers nothing newer than TLS 1.1.
    NoCommonVersion,
    /// No cipher suite, group, signature scheme or application protocol in common, or a TLS 1.2
    /// client without the extended master secret.
    NoCommonParameters,
    /// The peer does not accept our certificate: unknown issuer, wrong name, expired. With a
    /// self-signed certificate this is the first thing every client says.
    CertificateRefused,
    /// The peer gave up with another fatal alert, whose number (RFC 8446 §6) this is.
    PeerAlert(u8),
    /// Bytes that are no TLS record, do not decrypt, or do not parse.
    BadRecord,
    /// A well-formed message that is not allowed where it came.
    ProtocolViolation,
    /// Too many records for the useful bytes in them: empty ones, key updates, warnings.
    RecordFlood,
    /// More than [`HANDSHAKE_BYTES_MAX`](super::HANDSHAKE_BYTES_MAX) of unfinished handshake.
    HandshakeTooLarge,
    /// A TLS 1.2 key has encrypted as many records as is safe, and TLS 1.2 cannot change it.
    KeysExhausted,
    /// Plaintext was to be sent before the handshake was done or after our `close_notify`.
    NotOpen,
    /// Our own fault: no random bytes, or a state that should not exist.
    Internal,
}

impl TlsError {
    /// Every label there is: for a metric that starts at zero.
    pub const LABELS: [&str; 12] = [
        "plain_bytes_on_tls_port",
        "no_common_version",
        "no_common_parameters",
        "certificate_refused",
        "peer_alert",
        "bad_record",
        "protocol_violation",
        "record_flood",
        "handshake_too_large",
        "keys_exhausted",
        "not_open",
        "internal",
    ];

    /// The name under which this error is counted; lower case, words joined by underscores.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::PlainBytesOnTlsPort => "plain_bytes_on_tls_port",
            Self::NoCommonVersion => "no_common_version",
            Self::NoCommonParameters => "no_common_parameters",
            Self::CertificateRefused => "certificate_refused",
            Self::PeerAlert(_) => "peer_alert",
            Self::BadRecord => "bad_record",
            Self::ProtocolViolation => "protocol_violation",
            Self::RecordFlood => "record_flood",
            Self::HandshakeTooLarge => "handshake_too_large",
            Self::KeysExhausted => "keys_exhausted",
            Self::NotOpen => "not_open",
            Self::Internal => "internal",
        }
    }

    /// The fatal alert (RFC 8446 §6) for an error that rustls did not send one for. Only an alert
    /// is never answered with an alert.
    pub(super) fn alert(self) -> Option<u8> {
        match self {
            Self::PlainBytesOnTlsPort | Self::CertificateRefused | Self::PeerAlert(_) => None,
            Self::NoCommonVersion => Some(ALERT_PROTOCOL_VERSION),
            Self::NoCommonParameters => Some(ALERT_HANDSHAKE_FAILURE),
            Self::BadRecord | Self::HandshakeTooLarge => Some(ALERT_DECODE_ERROR),
            Self::ProtocolViolation | Self::RecordFlood => Some(ALERT_UNEXPECTED_MESSAGE),
            Self::KeysExhausted | Self::NotOpen | Self::Internal => Some(ALERT_INTERNAL_ERROR),
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PlainBytesOnTlsPort => "plain bytes on a TLS port",
            Self::NoCommonVersion => "the client offers neither TLS 1.2 nor TLS 1.3",
            Self::NoCommonParameters => "no cipher suite, group or protocol in common",
            Self::CertificateRefused => "the client does not accept our certificate",
            Self::PeerAlert(number) => return write!(f, "the client gave up with alert {number}"),
            Self::BadRecord => "a record that does not parse or decrypt",
            Self::ProtocolViolation => "a message that is not allowed here",
            Self::RecordFlood => "too many records with too few bytes in them",
            Self::HandshakeTooLarge => "the handshake is too large",
            Self::KeysExhausted => "the TLS 1.2 keys are used up",
            Self::NotOpen => "the session is not open for sending",
            Self::Internal => "internal TLS error",
        })
    }
}

impl Error for TlsError {}

impl From<Rustls> for TlsError {
    fn from(error: Rustls) -> Self {
        match error {
            Rustls::PeerIncompatible(
                PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::SupportedVersionsExtensionRequired
                // rustls looks for this before it looks at the version. Clients of TLS 1.1 do
                // not send it, and nearly all of TLS 1.2 do.
                | PeerIncompatible::SignatureAlgorithmsExtensionRequired,
            ) => Self::NoCommonVersion,
            Rustls::PeerIncompatible(_) | Rustls::NoApplicationProtocol => Self::NoCommonParameters,
            Rustls::AlertReceived(alert) => match u8::from(alert) {
                ALERT_BAD_CERTIFICATE..=ALERT_CERTIFICATE_UNKNOWN | ALERT_UNKNOWN_CA => {
                    Self::CertificateRefused
                }
                number => Self::PeerAlert(number),
            },
            Rustls::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge) => {
                Self::HandshakeTooLarge
            }
            Rustls::InvalidMessage(_) | Rustls::DecryptError | Rustls::PeerSentOversizedRecord => {
                Self::BadRecord
            }
            Rustls::PeerMisbehaved(
                PeerMisbehaved::TooManyEmptyFragments
                | PeerMisbehaved::TooManyKeyUpdateRequests
                | PeerMisbehaved::TooManyWarningAlertsReceived,
            ) => Self::RecordFlood,
            Rustls::PeerMisbehaved(_)
            | Rustls::InappropriateMessage { .. }
            | Rustls::InappropriateHandshakeMessage { .. } => Self::ProtocolViolation,
            _ => Self::Internal,
        }
    }
}

/// A certificate or key that cannot be used: which one, and what is wrong with it, in one line.
#[derive(Debug)]
pub struct CertificateError {
    /// The file, or `certificate 2` where there is none.
    pub place: String,
    /// What is wrong with it.
    pub problem: CertificateProblem,
}

/// What is wrong with a certificate or key.
#[derive(Debug)]
#[non_exhaustive]
pub enum CertificateProblem {
    /// There is not one certificate to serve.
    NoneGiven,
    /// The file cannot be read.
    Unreadable(io::ErrorKind),
    /// It is a directory, a pipe or a device.
    NotAFile,
    /// The file is empty; a tool may be about to write it.
    Empty,
    /// The file is larger than this many bytes.
    TooLarge(u64),
    /// The PEM text is broken: cut short, or not base64 where it should be.
    BrokenPem,
    /// There is no `CERTIFICATE` section in it.
    NoCertificate,
    /// The certificate at this place in the chain, counted from 1, does not parse as X.509 v3.
    BrokenCertificate(usize),
    /// The whole chain is too long for a handshake; the most is this many certificates.
    ChainTooLong(usize),
    /// There is no private key in it.
    NoPrivateKey,
    /// There is more than one private key in it.
    SeveralPrivateKeys,
    /// The private key is protected by a passphrase, which a server has nobody to ask for.
    EncryptedPrivateKey,
    /// The private key does not parse, or is of a kind that TLS does not use.
    UnusablePrivateKey,
    /// The private key belongs to another certificate.
    KeyMismatch,
    /// Not the first certificate, and without a DNS name that an earlier one does not have: no
    /// client would ever be shown it.
    NeverChosen,
    /// A name for a self-signed certificate that is neither a host name nor an address.
    BadName,
    /// The cryptography library failed.
    Internal,
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}

impl fmt::Display for CertificateProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoneGiven => "no certificate is given",
            Self::Unreadable(kind) => return write!(f, "cannot be read: {kind}"),
            Self::NotAFile => "is not a regular file",
            Self::Empty => "is empty",
            Self::TooLarge(most) => return write!(f, "is larger than {most} bytes"),
            Self::BrokenPem => "is not valid PEM (cut short, or not base64)",
            Self::NoCertificate => "has no CERTIFICATE section",
            Self::BrokenCertificate(n) => {
                return write!(
                    f,
                    "certificate {n} of the chain is not a valid X.509 v3 certificate"
                );
            }
            Self::ChainTooLong(most) => {
                return write!(f, "the chain is too long: at most {most} certificates");
            }
            Self::NoPrivateKey => "has no private key",
            Self::SeveralPrivateKeys => "has more than one private key",
            Self::EncryptedPrivateKey => "the private key is encrypted; decrypt it first",
            Self::UnusablePrivateKey => "the private key is damaged or of a kind TLS does not use",
            Self::KeyMismatch => "the private key does not belong to the certificate",
            Self::NeverChosen => "has no DNS name of its own, so no client would be shown it",
            Self::BadName => "is neither a host name nor an IP address",
            Self::Internal => "the cryptography library failed",
        })
    }
}

impl Error for CertificateError {}

/// What rustls says of a key pair, in the operator's terms.
pub(super) fn key_pair_problem(error: &Rustls) -> CertificateProblem {
    match error {
        Rustls::InconsistentKeys(_) => CertificateProblem::KeyMismatch,
        Rustls::InvalidCertificate(RustlsCertificate::BadEncoding) => {
            CertificateProblem::BrokenCertificate(1)
        }
        _ => CertificateProblem::UnusablePrivateKey,
    }
}

const ALERT_UNEXPECTED_MESSAGE: u8 = 10;
const ALERT_HANDSHAKE_FAILURE: u8 = 40;
const ALERT_BAD_CERTIFICATE: u8 = 42;
const ALERT_CERTIFICATE_UNKNOWN: u8 = 46;
const ALERT_UNKNOWN_CA: u8 = 48;
const ALERT_DECODE_ERROR: u8 = 50;
const ALERT_PROTOCOL_VERSION: u8 = 70;
const ALERT_INTERNAL_ERROR: u8 = 80;
