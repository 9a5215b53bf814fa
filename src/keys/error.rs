//! What can go wrong with keys: with an operator's files ([`KeysError`]) and with a fetch
//! ([`FetchError`]). Neither holds a byte of a key, nor of an address's query.

use std::fmt;
use std::io;
use std::net::IpAddr;

use crate::admission::jwt::{KeyError, VerifierError};
use crate::file::FileError;
use crate::outbound::{CallError, ClientFault};

/// Everything that is wrong with the sources of keys, found at once. `Display` is one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysError(pub Vec<KeyFault>);

/// One thing that is wrong, and where. `Display` is one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFault {
    /// The issuer, and which of its sources.
    pub place: String,
    /// What is wrong there.
    pub problem: KeyProblem,
}

/// What is wrong with a source of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyProblem {
    /// The issuers do not go together.
    Issuers(VerifierError),
    /// An issuer without a source.
    NoSource,
    /// An issuer with two URLs.
    SeveralUrls,
    /// An issuer with a secret and a URL.
    SecretWithUrl,
    /// A file that cannot be read.
    Unreadable(io::ErrorKind),
    /// A folder, a pipe, a device.
    NotAFile,
    /// A file without contents.
    Empty,
    /// A file of more than this many bytes.
    TooLarge(u64),
    /// Contents that are no key, or keys that do not go together.
    Key(KeyError),
    /// An address that is none, or lacks a host.
    Url,
    /// An address with user or password.
    UrlCredentials,
    /// `http:` where it is not allowed.
    UrlNotHttps,
    /// A time below a millisecond or above a year, or `max_age` below `refresh`.
    Times,
    /// A file of authorities without one that can be used.
    NoAuthority,
    /// The system has no certificates to trust, and no file names any.
    NoSystemAuthorities,
    /// The thread that fetches cannot be started.
    Thread(io::ErrorKind),
}

impl KeyProblem {
    pub(super) fn at(self, place: impl fmt::Display) -> KeyFault {
        KeyFault {
            place: place.to_string(),
            problem: self,
        }
    }
}

impl From<FileError> for KeyProblem {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Unreadable(kind) => Self::Unreadable(kind),
            FileError::NotAFile => Self::NotAFile,
            FileError::Empty => Self::Empty,
            FileError::TooLarge(most) => Self::TooLarge(most),
        }
    }
}

impl From<ClientFault> for KeyProblem {
    fn from(fault: ClientFault) -> Self {
        match fault {
            ClientFault::Url => Self::Url,
            ClientFault::Credentials => Self::UrlCredentials,
            ClientFault::NotHttps => Self::UrlNotHttps,
            ClientFault::Timeout => Self::Times,
            ClientFault::File(error) => error.into(),
            ClientFault::NoAuthority => Self::NoAuthority,
            ClientFault::NoSystemAuthorities => Self::NoSystemAuthorities,
        }
    }
}

impl From<CallError> for FetchError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Name => Self::Name,
            CallError::Address(address) => Self::Address(address),
            CallError::Io(kind) => Self::Io(kind),
            CallError::Tls(words) => Self::Tls(words),
            CallError::Timeout => Self::Timeout,
            CallError::Redirect => Self::Redirect,
            CallError::Protocol => Self::Protocol,
            CallError::TooLarge => Self::TooLarge,
            CallError::Client(fault) => Self::Authorities(fault.into()),
        }
    }
}

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for KeysError {}

impl fmt::Display for KeyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}

impl std::error::Error for KeyFault {}

impl fmt::Display for KeyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Issuers(error) => return error.fmt(f),
            Self::NoSource => "has no keys; name a secret, a file or a URL",
            Self::SeveralUrls => "has more than one URL; name one, or make it two issuers",
            Self::SecretWithUrl => {
                "has a secret beside a URL, which holds public keys; make it two issuers"
            }
            Self::Unreadable(kind) => return write!(f, "cannot be read: {kind}"),
            Self::NotAFile => "is not a regular file",
            Self::Empty => "is empty",
            Self::TooLarge(most) => return write!(f, "is larger than {most} bytes"),
            Self::Key(error) => return error.fmt(f),
            Self::Url => "is not a URL like https://id.example/.well-known/jwks.json",
            Self::UrlCredentials => {
                "has a user or password, which is not sent; take it out of the URL"
            }
            Self::UrlNotHttps => {
                "is not https, so that anyone on the way could make tokens; allow http only for a \
                 network that is your own"
            }
            Self::Times => {
                "has a time below 1 ms or above a year, or a greatest age below the time between fetches"
            }
            Self::NoAuthority => "has no certificate of an authority in PEM",
            Self::NoSystemAuthorities => {
                "the system has no certificates to trust; install ca-certificates, or name a file of \
                 authorities"
            }
            Self::Thread(kind) => return write!(f, "the thread cannot be started: {kind}"),
        })
    }
}

/// Why a fetch brought no keys: a closed set, made to be counted by [`FetchError::label`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchError {
    /// The name does not resolve.
    Name,
    /// The name resolves to addresses outside the public internet only; this is the first of them.
    Address(IpAddr),
    /// The connection failed, or ended early.
    Io(io::ErrorKind),
    /// The TLS handshake failed, in the words of the TLS library.
    Tls(Box<str>),
    /// The fetch was not done in time.
    Timeout,
    /// The answer is a redirection, and none is followed.
    Redirect,
    /// The answer has another status than 200.
    Status(u16),
    /// The answer is not HTTP, or its head is too large.
    Protocol,
    /// The body is longer than 256 KiB.
    TooLarge,
    /// The body is no key set, or one that cannot be used.
    Keys(KeyError),
    /// The authorities to trust cannot be read.
    Authorities(KeyProblem),
    /// Our own fault: the fetch panicked.
    Internal,
}

impl FetchError {
    /// Every label there is, for a metric that starts at zero.
    pub const LABELS: [&str; 13] = [
        "name",
        "address",
        "io",
        "tls",
        "timeout",
        "redirect",
        "status",
        "protocol",
        "too_large",
        "empty",
        "malformed",
        "authorities",
        "internal",
    ];

    /// The reason as a metric's label, one of [`FetchError::LABELS`].
    #[must_use]
    pub const fn label(&self) -> &'static str {
        Self::LABELS[self.index()]
    }

    /// The label's place in [`FetchError::LABELS`].
    pub(super) const fn index(&self) -> usize {
        match self {
            Self::Name => 0,
            Self::Address(_) => 1,
            Self::Io(_) => 2,
            Self::Tls(_) => 3,
            Self::Timeout => 4,
            Self::Redirect => 5,
            Self::Status(_) => 6,
            Self::Protocol => 7,
            Self::TooLarge => 8,
            Self::Keys(KeyError::NoUsableKey) => 9,
            Self::Keys(_) => 10,
            Self::Authorities(_) => 11,
            Self::Internal => 12,
        }
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "the name does not resolve",
            Self::Address(address) => {
                return write!(
                    f,
                    "the name resolves to {address}, which is not on the public internet; allow \
                     private addresses if that is meant"
                );
            }
            Self::Io(kind) => return write!(f, "the connection failed: {kind}"),
            Self::Tls(words) => return write!(f, "the TLS handshake failed: {words}"),
            Self::Timeout => "the answer did not come in time",
            Self::Redirect => {
                "the answer is a redirection, and none is followed; name its destination"
            }
            Self::Status(status) => return write!(f, "the answer has status {status}, not 200"),
            Self::Protocol => "the answer is not HTTP/1.1, or its head is too large",
            Self::TooLarge => "the answer is longer than 256 KiB",
            Self::Keys(error) => return error.fmt(f),
            Self::Authorities(problem) => {
                return write!(f, "the authorities to trust cannot be read: {problem}");
            }
            Self::Internal => "the fetch panicked",
        })
    }
}

impl std::error::Error for FetchError {}
