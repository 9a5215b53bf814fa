//! From a name to addresses that may be called: each is judged, and exactly the judged ones are
//! connected to. A client that keeps connections also keeps what a name resolved to, so that a call
//! costs no look-up and a resolver that has died stops nobody for a while (X35).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use ipnet::IpNet;
use ureq::Error;
use ureq::http::Uri;
use ureq::http::uri::Scheme;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use super::error::CallError;
use crate::admission::address::{is_private, is_public};

/// How long a name's addresses are used before the resolver is asked again.
const FRESH_FOR: Duration = Duration::from_secs(30);
/// How long a name's last good addresses are used while the resolver has no answer. Whoever is given
/// them afterwards would be called in their place.
const STALE_FOR: Duration = Duration::from_secs(60 * 60);
/// How soon a resolver that had no answer is asked again, where there are last good addresses.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// How long the resolver may take, where there are last good addresses.
const PATIENCE: Duration = Duration::from_secs(1);

/// Which addresses may be connected to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Whether addresses of private networks and of this host may be ([`is_private`]).
    pub private: bool,
    /// Whether any address at all may be, metadata services among them.
    pub anywhere: bool,
    /// Networks that may be called whatever they are, such as a metadata service's own.
    pub networks: Vec<IpNet>,
}

impl Reach {
    /// Whether this address may be connected to.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        self.anywhere
            || is_public(address)
            || (self.private && is_private(address))
            || (self.networks.iter()).any(|network| network.contains(&address.to_canonical()))
    }
}

/// What a client remembers of its one name.
pub(super) type Memory = Arc<ArcSwapOption<Known>>;

/// What a name resolved to, judged.
#[derive(Debug)]
pub(super) struct Known {
    addresses: ResolvedSocketAddrs,
    resolved_at: Instant,
    ask_at: Instant,
}

/// A resolver whose answers are judged. What it lets through is what is connected to: the agent asks
/// it once for each call, and asks nobody else.
#[derive(Debug)]
pub(super) struct Judged<R> {
    pub(super) resolver: R,
    pub(super) reach: Reach,
    /// Of a client that keeps connections.
    pub(super) memory: Option<Memory>,
}

impl<R: Resolver> Resolver for Judged<R> {
    fn resolve(
        &self,
        uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        if let Some(address) = literal(uri) {
            let mut found = self.empty();
            found.push(address);
            return self.judge(&found);
        }
        let Some(memory) = &self.memory else {
            return self.judge(&self.ask(uri, config, timeout)?);
        };
        let now = clock();
        let known = memory.load_full();
        let known = known.filter(|known| now < known.resolved_at + STALE_FOR);
        let timeout = match &known {
            Some(known) if now < known.ask_at => return Ok(known.addresses.clone()),
            Some(known) => {
                // Whoever calls meanwhile does not ask too.
                remember(
                    memory,
                    &known.addresses,
                    known.resolved_at,
                    now + RETRY_AFTER,
                );
                NextTimeout {
                    after: timeout.after.min(PATIENCE.into()),
                    ..timeout
                }
            }
            None => timeout,
        };
        match (self.ask(uri, config, timeout), known) {
            (Ok(found), _) => {
                // A name that has moved to where it must not be called is forgotten.
                let allowed = self.judge(&found).inspect_err(|_| memory.store(None))?;
                remember(memory, &allowed, now, now + FRESH_FOR);
                Ok(allowed)
            }
            (Err(_), Some(known)) => Ok(known.addresses.clone()),
            (Err(error), None) => Err(error),
        }
    }
}

impl<R: Resolver> Judged<R> {
    fn ask(
        &self,
        uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        match self.resolver.resolve(uri, config, timeout) {
            // The system's own words for a name it does not know are an I/O error without a kind.
            Err(Error::Io(_)) => Err(Error::HostNotFound),
            other => other,
        }
    }

    fn judge(&self, found: &ResolvedSocketAddrs) -> Result<ResolvedSocketAddrs, Error> {
        let mut allowed = self.empty();
        for address in found {
            if self.reach.allows(address.ip()) {
                allowed.push(*address);
            }
        }
        match (allowed.is_empty(), found.first()) {
            (false, _) => Ok(allowed),
            (true, Some(address)) => Err(Error::Other(Box::new(CallError::Address(address.ip())))),
            (true, None) => Err(Error::HostNotFound),
        }
    }
}

fn remember(
    memory: &Memory,
    addresses: &ResolvedSocketAddrs,
    resolved_at: Instant,
    ask_at: Instant,
) {
    memory.store(Some(Arc::new(Known {
        addresses: addresses.clone(),
        resolved_at,
        ask_at,
    })));
}

/// The address of a URL that has one in place of a name, for which nobody need be asked.
fn literal(uri: &Uri) -> Option<SocketAddr> {
    let host = uri.host()?;
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let port = match (uri.port_u16(), uri.scheme()) {
        (Some(port), _) => port,
        (None, Some(scheme)) if *scheme == Scheme::HTTP => 80,
        (None, _) => 443,
    };
    Some(SocketAddr::new(host.parse().ok()?, port))
}

impl Known {
    /// The same, remembered so much earlier.
    #[cfg(test)]
    pub(super) fn aged(&self, by: Duration) -> Self {
        Self {
            addresses: self.addresses.clone(),
            resolved_at: self.resolved_at - by,
            ask_at: self.ask_at - by,
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a call is made on a thread of its own, which may read the clock"
)]
pub(super) fn clock() -> Instant {
    Instant::now()
}
