//! What can go wrong with a call to somebody else's server: at the start ([`ClientFault`]) and later
//! ([`CallError`]). Neither holds a byte of a URL.

use std::fmt;
use std::io;
use std::net::IpAddr;

pub use crate::file::FileError;

/// Why a client cannot be made. `Display` is the end of a sentence that begins with the URL, or, of the
/// last three, with the file's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientFault {
    /// The address is none, or lacks a host.
    Url,
    /// The address has a user or password.
    Credentials,
    /// `http:` where it is not allowed.
    NotHttps,
    /// The time a call may take is below a millisecond or above a year.
    Timeout,
    /// The file of authorities cannot be used.
    File(FileError),
    /// The file of authorities has none.
    NoAuthority,
    /// The system has no certificates to trust, and no file names any.
    NoSystemAuthorities,
}

impl fmt::Display for ClientFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Url => "is not a URL like https://backend.example/path",
            Self::Credentials => "has a user or password, which is not sent; take it out of the URL",
            Self::NotHttps => {
                "is not https, so that anyone on the way could read and change what is said; allow \
                 http only for a network that is your own"
            }
            Self::Timeout => "has a time below 1 ms or above a year",
            Self::File(error) => return error.fmt(f),
            Self::NoAuthority => "has no certificate of an authority in PEM",
            Self::NoSystemAuthorities => {
                "the system has no certificates to trust; install ca-certificates, or name a file of \
                 authorities"
            }
        })
    }
}

impl std::error::Error for ClientFault {}

/// Why a call brought no answer that counts: a closed set, made to be counted by [`CallError::label`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The name does not resolve.
    Name,
    /// The name resolves only to addresses that must not be called; this is the first of them.
    Address(IpAddr),
    /// The connection failed, or ended early.
    Io(io::ErrorKind),
    /// The TLS handshake failed, in the words of the TLS library.
    Tls(Box<str>),
    /// The answer was not complete in time.
    Timeout,
    /// The answer is a redirection, and none is followed.
    Redirect,
    /// The answer is not HTTP/1.1, or its head is too large.
    Protocol,
    /// The body of the answer is longer than allowed.
    TooLarge,
    /// The authorities to trust cannot be read any more.
    Client(ClientFault),
}

impl CallError {
    /// Every label there is, for a metric that starts at zero.
    pub const LABELS: [&str; 9] = [
        "name",
        "address",
        "io",
        "tls",
        "timeout",
        "redirect",
        "protocol",
        "too_large",
        "authorities",
    ];

    /// The reason as a metric's label, one of [`CallError::LABELS`].
    #[must_use]
    pub const fn label(&self) -> &'static str {
        Self::LABELS[self.index()]
    }

    /// The label's place in [`CallError::LABELS`].
    #[must_use]
    pub const fn index(&self) -> usize {
        match self {
            Self::Name => 0,
            Self::Address(_) => 1,
            Self::Io(_) => 2,
            Self::Tls(_) => 3,
            Self::Timeout => 4,
            Self::Redirect => 5,
            Self::Protocol => 6,
            Self::TooLarge => 7,
            Self::Client(_) => 8,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "the name does not resolve",
            Self::Address(address) => {
                return write!(
                    f,
                    "the name resolves to {address}, which must not be called"
                );
            }
            Self::Io(kind) => return write!(f, "the connection failed: {kind}"),
            Self::Tls(words) => return write!(f, "the TLS handshake failed: {words}"),
            Self::Timeout => "the answer did not come in time",
            Self::Redirect => {
                "the answer is a redirection, and none is followed; name its destination"
            }
            Self::Protocol => "the answer is not HTTP/1.1, or its head is too large",
            Self::TooLarge => "the answer is too long",
            Self::Client(fault) => {
                return write!(f, "the authorities to trust cannot be read: {fault}");
            }
        })
    }
}

impl std::error::Error for CallError {}
