//! Who gets in: a candidate becomes an [`Admitted`] or a [`Refusal`], in one call that never waits.
//!
//! Only this module can make an [`Admitted`], and only from one can a session be opened: so the
//! compiler knows that nobody gets in unchecked.

pub mod address;
pub mod bearer;
pub mod claim;
pub mod jwt;
pub mod limits;
pub mod origin;
pub mod proxy_protocol;
pub mod rate;
pub mod rule;
mod table;

use crate::http::head::Head;
use crate::ws;
use crate::ws::deflate::DeflateParameters;
use crate::ws::upgrade::{self, Upgrade, UpgradeError};

/// A path that clients may connect to, and how it behaves.
#[derive(Debug, Clone)]
pub struct Route {
    /// The request path, compared as it is written: no pattern, no decoding.
    pub path: String,
    /// Subprotocols the handler speaks, the preferred first; usually none.
    pub subprotocols: Vec<String>,
    /// Whether permessage-deflate is negotiated with clients that offer it. Default off.
    pub compression: bool,
    /// Limits on incoming messages.
    pub limits: ws::Limits,
}

impl Route {
    /// A route with the default limits, without subprotocols and without compression.
    #[must_use]
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            subprotocols: Vec::new(),
            compression: false,
            limits: ws::Limits::default(),
        }
    }
}

/// Somebody whose request head is complete.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// The request head.
    pub head: &'a Head<'a>,
    /// Whether bytes followed the head: a client must wait for the answer (§4.1).
    pub has_surplus: bool,
}

/// Proof of admission, and what was agreed on.
#[derive(Debug)]
pub struct Admitted<'a> {
    route: u16,
    upgrade: Upgrade<'a>,
    subprotocol: Option<&'a str>,
    deflate: Option<DeflateParameters>,
}

impl Admitted<'_> {
    /// Index of the route.
    #[must_use]
    pub const fn route(&self) -> u16 {
        self.route
    }

    /// What was negotiated about compression.
    #[must_use]
    pub const fn deflate(&self) -> Option<DeflateParameters> {
        self.deflate
    }

    /// Appends the answer: 101, with the accept key and what was negotiated (§4.2.2).
    pub fn write_answer(&self, out: &mut Vec<u8>) {
        let extensions = self.deflate.map(|deflate| {
            let mut value = Vec::new();
            deflate.write_response(&mut value);
            value
        });
        upgrade::write_accept(out, &self.upgrade, self.subprotocol, extensions.as_deref());
    }
}

/// Takes a candidate through the checks, the cheapest first.
///
/// # Errors
/// The first check that fails, as a [`Refusal`].
pub fn admit<'a>(candidate: &Candidate<'a>, routes: &'a [Route]) -> Result<Admitted<'a>, Refusal> {
    if candidate.has_surplus {
        return Err(Refusal::Upgrade(UpgradeError::EarlyBytes));
    }
    let path = candidate.head.path();
    let upgrade = Upgrade::check(candidate.head).map_err(Refusal::Upgrade)?;
    let (index, route) = routes
        .iter()
        .enumerate()
        .find(|(_, route)| route.path == path)
        .ok_or(Refusal::NotFound)?;
    let subprotocol = upgrade::choose_subprotocol(&upgrade, &route.subprotocols);
    let deflate = if route.compression {
        DeflateParameters::negotiate(upgrade.extensions()).map_err(|_| Refusal::Extensions)?
    } else {
        None
    };
    let route = u16::try_from(index).map_err(|_| Refusal::NotFound)?;
    Ok(Admitted {
        route,
        upgrade,
        subprotocol,
        deflate,
    })
}

/// Why a candidate is not let in; becomes an HTTP response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No route has this path: 404.
    NotFound,
    /// Not a WebSocket request, or not a correct one: 400, 405, 426.
    Upgrade(UpgradeError),
    /// The offer of extensions is malformed: 400.
    Extensions,
    /// The server is shutting down: 503.
    Draining,
}

impl Refusal {
    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::NotFound => 404,
            Self::Extensions => 400,
            Self::Upgrade(error) => error.status(),
            Self::Draining => 503,
        }
    }

    /// Further headers of the answer.
    #[must_use]
    pub fn headers(&self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Upgrade(error) => error.headers(),
            Self::Draining => &[("Retry-After", "5")],
            Self::NotFound | Self::Extensions => &[],
        }
    }

    /// One line for whoever reads the answer.
    #[must_use]
    pub fn body(&self) -> String {
        match self {
            Self::NotFound => "no such path".into(),
            Self::Upgrade(error) => error.to_string(),
            Self::Extensions => "malformed Sec-WebSocket-Extensions".into(),
            Self::Draining => "shutting down".into(),
        }
    }
}
