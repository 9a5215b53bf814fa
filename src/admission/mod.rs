//! Who gets in: a candidate becomes an [`Admitted`] or a [`Rejected`], in one call that never waits.
//!
//! The checks go from cheap to dear, so a flood of forged tokens spends permits before it spends
//! signatures. Only this module can make an [`Admitted`], and only from one can a session be opened: so
//! the compiler knows that nobody gets in unchecked.

pub mod address;
pub mod bearer;
pub mod claim;
pub mod jwt;
pub mod limits;
pub mod origin;
pub mod proxy_protocol;
pub mod rate;
pub mod refusal;
pub mod revocation;
pub mod rule;
mod table;

use std::time::Duration;

pub use refusal::{Refusal, Stage};

use crate::http::head::Head;
use crate::http::template::{self, Captures, Template};
use crate::ws;
use crate::ws::deflate::DeflateParameters;
use crate::ws::upgrade::{self, Upgrade, UpgradeError};
use address::{ForwardingHeader, TrustedNetworks};
use bearer::{BearerError, Source, Sources};
use claim::Claims;
use jwt::{Identity, Verify};
use limits::{Cap, Refused, Traffic, WhenFull};
use origin::{OriginMatch, OriginPolicy};
use revocation::Revocations;
use rule::Rule;

/// A path that clients may connect to, who may, and how it behaves.
#[derive(Debug, Clone)]
pub struct Route {
    /// The paths it is for. Of several routes that match, the more exact one serves; see
    /// [`template::find`].
    pub path: Template,
    /// Subprotocols the handler speaks; usually none.
    pub subprotocols: Vec<String>,
    /// Whether permessage-deflate is negotiated with clients that offer it. Default off.
    pub compression: bool,
    /// Limits on incoming messages.
    pub limits: ws::Limits,
    /// Which pages may connect; `None` does not ask, which is for clients that send no cookies and
    /// know no tokens.
    pub origins: Option<OriginPolicy>,
    /// Whether a token is needed.
    pub token: TokenDemand,
    /// What the token's claims have to say. Default: nothing.
    pub rule: Rule,
    /// How somebody is told who is refused.
    pub rejection: Rejection,
    /// How much an open connection may send; `None` does not count.
    pub traffic: Option<Traffic>,
    /// What happens to a message beyond that.
    pub traffic_at_limit: TrafficAtLimit,
    /// Connections of one user on all such routes; `None` does not count. Whoever came without a token
    /// is nobody's.
    pub user_connections: Option<Cap>,
    /// What happens when a user has that many.
    pub user_at_limit: WhenFull,
    /// How long a connection outlives its token, in which the client may send a fresh one. `None`: it
    /// ends with the token.
    pub renewal: Option<Duration>,
    /// Whether nobody new is let in here: the route is gone since a reload, or another one with this path
    /// has taken its place, and those who are connected to it stay.
    pub is_retired: bool,
}

impl Route {
    /// A route that is open to everybody, for a path that is written in the program.
    ///
    /// # Panics
    /// If `path` is no [`Template`].
    #[must_use]
    pub fn open(path: &str) -> Self {
        match Template::parse(path) {
            Ok(template) => Self::at(template),
            Err(error) => panic!("{error}"),
        }
    }

    /// A route that is open to everybody: without limits of its own, subprotocols or compression.
    #[must_use]
    pub fn at(path: Template) -> Self {
        Self {
            path,
            subprotocols: Vec::new(),
            compression: false,
            limits: ws::Limits::default(),
            origins: None,
            token: TokenDemand::None,
            rule: Rule::any(),
            rejection: Rejection::Http,
            traffic: None,
            traffic_at_limit: TrafficAtLimit::Close,
            user_connections: None,
            user_at_limit: WhenFull::RefuseNew,
            renewal: None,
            is_retired: false,
        }
    }
}

/// Whether a route needs a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenDemand {
    /// No: none is looked for.
    None,
    /// Whoever brings none is let in as nobody; whoever brings one has to bring a good one.
    Optional,
    /// Yes.
    Required,
}

/// How somebody is told who is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// With an HTTP status, which a browser's script cannot read.
    Http,
    /// With a close code: the upgrade completes, and the connection is closed at once with 4000 and the
    /// status, the reason, and when to come back (N2).
    CloseCode,
}

/// What happens to a message that is too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrafficAtLimit {
    /// The connection is closed with 1008.
    Close,
    /// The message is dropped and counted.
    Drop,
}

/// What all routes have in common.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Hosts that `Host` may name, without a port; the word `loopback` stands for every name of this
    /// machine itself. None: any host. Keeps pages of other names away from a server on loopback (DNS
    /// rebinding, C5).
    pub hosts: Vec<String>,
    /// Proxies whose word about their clients' addresses counts.
    pub trusted: TrustedNetworks,
    /// Where they say it; `None`: nowhere but in a PROXY header.
    pub forwarding: Option<ForwardingHeader>,
    /// Where tokens are looked for.
    pub sources: Sources,
    /// How much anybody may have.
    pub limits: limits::Policy,
}

/// Somebody whose request head is complete.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// The request head.
    pub head: &'a Head<'a>,
    /// Whether bytes followed the head: a client must wait for the answer (§4.1).
    pub has_surplus: bool,
    /// What the limits said of the client's address.
    pub located: Result<(), Refused>,
    /// Whether the server is shutting down.
    pub draining: bool,
}

/// Who judges tokens, and when.
#[expect(
    missing_debug_implementations,
    reason = "a verifier of somebody else's need not be printable"
)]
pub struct Judge<'a> {
    /// `None`: no keys are configured.
    pub verifier: Option<&'a dyn Verify>,
    /// What has been revoked.
    pub revocations: &'a Revocations,
    /// The wall clock, in seconds since 1970.
    pub wall: u64,
}

impl Judge<'_> {
    /// The identity in a token.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn identify(&self, token: &str) -> Result<Identity, Refusal> {
        let verifier = self.verifier.ok_or(Refusal::NoKeys)?;
        let identity = verifier.verify(token, self.wall).map_err(Refusal::Token)?;
        if self.revocations.covers(&identity, self.wall) {
            return Err(Refusal::Revoked);
        }
        Ok(identity)
    }
}

/// What was agreed on about the protocol.
#[derive(Debug, Clone, Copy)]
struct Agreement<'a> {
    route: u16,
    upgrade: Upgrade<'a>,
    subprotocol: Option<&'a str>,
    deflate: Option<DeflateParameters>,
}

impl Agreement<'_> {
    fn write_answer(&self, out: &mut Vec<u8>) {
        let extensions = self.deflate.map(|deflate| {
            let mut value = Vec::new();
            deflate.write_response(&mut value);
            value
        });
        upgrade::write_accept(out, &self.upgrade, self.subprotocol, extensions.as_deref());
    }
}

/// Proof of admission, and what was agreed on.
#[derive(Debug)]
pub struct Admitted<'a> {
    agreement: Agreement<'a>,
    captures: Captures<'a, 'a>,
    rejection: Rejection,
    identity: Option<Identity>,
}

impl<'a> Admitted<'a> {
    /// Index of the route.
    #[must_use]
    pub const fn route(&self) -> u16 {
        self.agreement.route
    }

    /// What was negotiated about compression.
    #[must_use]
    pub const fn deflate(&self) -> Option<DeflateParameters> {
        self.agreement.deflate
    }

    /// Who it is, if a token said so.
    #[must_use]
    pub const fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Appends the answer: 101, with the accept key and what was negotiated (§4.2.2).
    pub fn write_answer(&self, out: &mut Vec<u8>) {
        self.agreement.write_answer(out);
    }

    /// What is left of the proof when it has been used: who it is, and what the path captured, in the
    /// order of the template's names.
    #[must_use]
    pub fn into_parts(self) -> (Option<Identity>, Captures<'a, 'a>) {
        (self.identity, self.captures)
    }

    /// Takes the admission back, for a limit that only the admitted meet.
    #[must_use]
    pub fn reject(self, refusal: Refusal) -> Rejected<'a> {
        Rejected {
            refusal,
            agreement: (self.rejection == Rejection::CloseCode).then_some(self.agreement),
        }
    }
}

/// Somebody who is not let in, and how to say so.
#[derive(Debug)]
pub struct Rejected<'a> {
    refusal: Refusal,
    agreement: Option<Agreement<'a>>,
}

impl Rejected<'_> {
    /// Why.
    #[must_use]
    pub const fn refusal(&self) -> &Refusal {
        &self.refusal
    }

    /// The route whose upgrade is completed for the sole purpose of closing with a reason, where the
    /// route wants that.
    #[must_use]
    pub fn upgraded_route(&self) -> Option<u16> {
        self.agreement.map(|agreement| agreement.route)
    }

    /// Appends the answer: a status, or the 101 with a close frame behind it. `spread` (0..1000) delays
    /// the return of those who are told when to come back, up to twice the time, so that they do not
    /// come back together.
    pub fn write_answer(&self, spread: u32, out: &mut Vec<u8>) {
        let Some(agreement) = self.agreement else {
            return self.refusal.write_answer(out);
        };
        agreement.write_answer(out);
        let wait = self.refusal.retry_after();
        let wait = wait.map(|wait| wait.saturating_add(wait.saturating_mul(spread) / 1000));
        let (code, reason) = self.refusal.close_frame(wait);
        ws::encoder::encode_close(out, Some((ws::CloseCode::from(code), &reason)));
    }
}

/// Takes a candidate through the checks, the cheapest first.
///
/// # Errors
/// The first check that fails.
pub fn admit<'a>(
    candidate: &Candidate<'a>,
    routes: &'a [Route],
    policy: &Policy,
    judge: &Judge<'_>,
) -> Result<Admitted<'a>, Rejected<'a>> {
    let (route, captures, mut agreement) =
        agree(candidate, routes, policy).map_err(|refusal| Rejected {
            refusal,
            agreement: None,
        })?;
    match identify(candidate, route, captures, &agreement, policy, judge) {
        Ok((identity, source)) => {
            // A browser that offered subprotocols fails the connection unless one of them comes back.
            if source == Some(Source::Subprotocol) {
                agreement.subprotocol = agreement.subprotocol.or(Some(bearer::SUBPROTOCOL));
            }
            Ok(Admitted {
                agreement,
                captures,
                rejection: route.rejection,
                identity,
            })
        }
        Err(refusal) => {
            if agreement
                .upgrade
                .protocols()
                .any(|name| name == bearer::SUBPROTOCOL)
            {
                agreement.subprotocol = agreement.subprotocol.or(Some(bearer::SUBPROTOCOL));
            }
            Err(Rejected {
                refusal,
                agreement: (route.rejection == Rejection::CloseCode).then_some(agreement),
            })
        }
    }
}

/// The protocol's part: what is asked for, and whether it is here.
fn agree<'a>(
    candidate: &Candidate<'a>,
    routes: &'a [Route],
    policy: &Policy,
) -> Result<(&'a Route, Captures<'a, 'a>, Agreement<'a>), Refusal> {
    if candidate.has_surplus {
        return Err(Refusal::Upgrade(UpgradeError::EarlyBytes));
    }
    if !policy.hosts.is_empty() && !is_served(candidate.head.host(), &policy.hosts) {
        return Err(Refusal::Host);
    }
    let path = candidate.head.path();
    let upgrade = Upgrade::check(candidate.head).map_err(Refusal::Upgrade)?;
    let templates = (routes.iter().enumerate())
        .filter(|(_, route)| !route.is_retired)
        .map(|(index, route)| (index, &route.path));
    let (index, captures) = template::find(templates, path).ok_or(Refusal::NotFound)?;
    let route = &routes[index];
    let deflate = if route.compression {
        DeflateParameters::negotiate(upgrade.extensions()).map_err(|_| Refusal::Extensions)?
    } else {
        None
    };
    let agreement = Agreement {
        route: u16::try_from(index).map_err(|_| Refusal::NotFound)?,
        upgrade,
        subprotocol: upgrade::choose_subprotocol(&upgrade, &route.subprotocols),
        deflate,
    };
    Ok((route, captures, agreement))
}

/// The client's part: who asks, and whether they may.
fn identify(
    candidate: &Candidate<'_>,
    route: &Route,
    captures: Captures<'_, '_>,
    agreement: &Agreement<'_>,
    policy: &Policy,
    judge: &Judge<'_>,
) -> Result<(Option<Identity>, Option<Source>), Refusal> {
    // Not sooner: whom the route tells by close code is to be told of this, too.
    if candidate.draining {
        return Err(Refusal::ShuttingDown);
    }
    candidate
        .located
        .map_err(|refused| Refusal::Limit(Stage::Address, refused))?;
    let upgrade = &agreement.upgrade;
    let origin = match &route.origins {
        Some(origins) => Some(
            origins
                .check_at(candidate.head.host(), upgrade.origin())
                .map_err(Refusal::Origin)?,
        ),
        None => None,
    };
    if route.token == TokenDemand::None {
        return Ok((None, None));
    }
    let may_use_cookies = origin.is_some_and(OriginMatch::permits_cookies);
    let (source, bearer) = match policy.sources.find(upgrade, may_use_cookies) {
        Ok(found) => found,
        Err(BearerError::Missing) if route.token == TokenDemand::Optional => {
            let is_allowed = route
                .rule
                .allows(&Claims::default(), &|name| captures.get(name));
            return if is_allowed {
                Ok((None, None))
            } else {
                Err(Refusal::Rule)
            };
        }
        Err(error) => return Err(Refusal::Bearer(error)),
    };
    let identity = judge.identify(bearer.expose())?;
    let parameter = |name: &str| captures.get(name);
    if !route.rule.allows(identity.claims(), &parameter) {
        return Err(Refusal::Rule);
    }
    Ok((Some(identity), Some(source)))
}

/// Whether `Host`, less its port, is one of these.
pub(crate) fn is_served(host: Option<&str>, hosts: &[String]) -> bool {
    let Some(host) = host else { return false };
    let name = match host.rsplit_once(':') {
        // A colon inside brackets belongs to the address.
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    };
    hosts.iter().any(|own| {
        own.eq_ignore_ascii_case(name) || (own == LOOPBACK && origin::is_loopback_host(name))
    })
}

/// The word in [`Policy::hosts`] for this machine itself.
pub const LOOPBACK: &str = "loopback";
