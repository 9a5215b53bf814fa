//! What an open connection keeps of its admission: who it is, until when, and what it has sent.
//!
//! A connection to a route that asks for nothing and counts nothing keeps none of it.

use std::time::Duration;

use serde::Deserialize;

use super::context::Services;
use super::handler::{Link, Peer};
use super::id::ConnectionId;
use super::{CloseReason, UNAUTHORIZED};
use crate::admission::jwt;
use crate::admission::limits::{Meters, Refused, UserPlace};
use crate::admission::{Admitted, Refusal, Route, TrafficAtLimit};
use crate::timer::{LATEST, Tick, ticks};
use crate::ws::{CloseCode, Message};

/// What is kept of an admission.
#[derive(Debug)]
pub struct Guest {
    identity: Option<jwt::Identity>,
    /// What the path captured, in the order of the template's names.
    parameters: Box<[Box<str>]>,
    /// The user's right to this connection, given back with the guest.
    _place: Option<UserPlace<ConnectionId>>,
    meters: Meters,
    /// When something is to be done about the token.
    due_at: Tick,
    is_overdue: bool,
    /// When the connection ends whatever its token says, in seconds since 1970, if somebody has said so;
    /// [`NEVER`]: not at all.
    prolonged: Option<u64>,
    /// Fresh tokens that were refused.
    refused: u8,
}

/// Stands for a time that never comes.
const NEVER: u64 = u64::MAX;

/// What is to be done about a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing yet.
    Nothing,
    /// The client is to be told that it needs a fresh one.
    Tell,
    /// The connection is to end.
    End,
}

/// Fresh tokens of one connection that may be refused; then it ends with its token. Each costs a
/// signature.
pub const RENEWALS_REFUSED_MAX: u8 = 5;

/// Most by which the end of a connection may be later than that of its token, so that tokens that were
/// issued together do not end together.
const JITTER_MAX: Duration = Duration::from_secs(10);

impl Guest {
    /// What this route wants kept of somebody; nothing, if it wants nothing.
    pub(super) fn of(
        admitted: Admitted<'_>,
        place: Option<UserPlace<ConnectionId>>,
        route: &Route,
        services: &mut Services,
    ) -> Option<Box<Self>> {
        let (identity, captures) = admitted.into_parts();
        let parameters: Box<[_]> = captures.iter().map(|(_, value)| value.into()).collect();
        if identity.is_none() && route.traffic.is_none() && parameters.is_empty() {
            return None;
        }
        let mut guest = Self {
            identity,
            parameters,
            _place: place,
            ..Self::nobody()
        };
        guest.schedule(services);
        Some(Box::new(guest))
    }

    /// Somebody of whom nothing was kept and whose messages count since a reload.
    pub(super) fn nobody() -> Self {
        Self {
            identity: None,
            parameters: Box::default(),
            _place: None,
            meters: Meters::default(),
            due_at: LATEST,
            is_overdue: false,
            prolonged: None,
            refused: 0,
        }
    }

    /// Who it is, if a token said so.
    pub(super) const fn identity(&self) -> Option<&jwt::Identity> {
        self.identity.as_ref()
    }

    /// What the path captured under this name.
    pub(super) fn parameter(&self, name: &str, route: &Route) -> Option<&str> {
        let at = route.path.names().position(|known| known == name)?;
        self.parameters.get(at).map(|value| &**value)
    }

    /// When [`due`](Self::due) is to be asked.
    pub(super) const fn deadline(&self) -> Tick {
        self.due_at
    }

    /// Sets the time of the token's end: a little later, by chance.
    fn schedule(&mut self, services: &mut Services) {
        let Some(ends_at) = self.ends_at() else {
            self.due_at = LATEST;
            return;
        };
        let left = ticks(Duration::from_secs(ends_at.saturating_sub(services.wall)));
        let jitter = services.jitter((left / 16).clamp(1, ticks(JITTER_MAX)));
        self.due_at = services.now.saturating_add(left).saturating_add(jitter);
        self.due_at = self.due_at.min(LATEST);
        self.is_overdue = false;
    }

    /// What is to be done now.
    pub(super) fn due(&mut self, route: &Route, services: &mut Services) -> Due {
        if services.now < self.due_at {
            return Due::Nothing;
        }
        if self.ends_at().is_none_or(|at| services.wall < at) {
            // The wall clock was set back, or the time is beyond what a timer can be armed for.
            self.schedule(services);
            return Due::Nothing;
        }
        match route.renewal {
            Some(grace) if !self.is_overdue => {
                self.is_overdue = true;
                let grace = ticks(grace);
                self.due_at = services.now.saturating_add(grace);
                Due::Tell
            }
            _ => Due::End,
        }
    }

    /// When the connection ends, in seconds since 1970.
    fn ends_at(&self) -> Option<u64> {
        match self.prolonged {
            Some(NEVER) => None,
            Some(at) => Some(at),
            None => self.identity.as_ref().and_then(jwt::Identity::ends_at),
        }
    }

    /// Lets the connection live until another time than its token's; `None`: for ever. A fresh token
    /// counts again.
    pub(super) fn prolong(&mut self, until: Option<u64>, services: &mut Services) {
        self.prolonged = Some(until.unwrap_or(NEVER));
        self.schedule(services);
    }

    /// Judges a message by what the connection has sent before.
    ///
    /// # Errors
    /// It is too much.
    fn meter(
        &mut self,
        bytes: usize,
        route: &Route,
        services: &mut Services,
    ) -> Result<(), Refused> {
        match &route.traffic {
            Some(traffic) => traffic.receive(
                &mut self.meters,
                bytes,
                services.moment,
                &mut services.counters.tally,
            ),
            None => Ok(()),
        }
    }

    /// Judges so many pings and pongs by what the connection has sent before.
    ///
    /// # Errors
    /// They are too many.
    pub(super) fn meter_control(
        &mut self,
        frames: u32,
        route: &Route,
        services: &mut Services,
    ) -> Result<(), Refused> {
        match &route.traffic {
            Some(traffic) => traffic.receive_control(
                &mut self.meters,
                frames,
                services.moment,
                &mut services.counters.tally,
            ),
            None => Ok(()),
        }
    }

    /// Takes a fresh token in place of the old one: of the same user, good for the same route.
    ///
    /// # Errors
    /// Why it does not count; the old one stands.
    fn renew(
        &mut self,
        token: &str,
        route: &Route,
        services: &mut Services,
    ) -> Result<(), Refusal> {
        let renewed = self.judge(token, route, services);
        match renewed {
            Ok(identity) => {
                self.identity = Some(identity);
                self.prolonged = None;
                self.schedule(services);
                services.counters.tokens_renewed += 1;
                Ok(())
            }
            Err(refusal) => {
                self.refused = self.refused.saturating_add(1);
                services.counters.refused.count(&refusal);
                services.counters.renewals_refused += 1;
                Err(refusal)
            }
        }
    }

    fn judge(
        &self,
        token: &str,
        route: &Route,
        services: &Services,
    ) -> Result<jwt::Identity, Refusal> {
        let identity = services.gate.judge(services.wall).identify(token)?;
        let is_same = self
            .identity
            .as_ref()
            .is_some_and(|old| (old.user(), old.issuer()) == (identity.user(), identity.issuer()));
        let parameter = |name: &str| self.parameter(name, route);
        let is_allowed = is_same && route.rule.allows(identity.claims(), &parameter);
        is_allowed.then_some(identity).ok_or(Refusal::Rule)
    }
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is for the handler.
    Passes,
    /// It is not.
    Stays,
    /// It brought a fresh token: the handler is to hear of that.
    Renews,
}

/// Whether messages need not be [judged](judge): their sender has no limits, and no token to renew.
#[inline]
pub(super) const fn needs_no_judge(route: &Route, link: &Link) -> bool {
    link.guest.is_none() && route.traffic.is_none()
}

/// Judges a message by the limits of its sender, and takes one that brings a fresh token. Whatever ends
/// the session shows before the next message.
#[inline(never)]
pub(super) fn judge(message: &Message<'_>, route: &Route, peer: &mut Peer<'_>) -> Verdict {
    let guest = peer.link.guest.take();
    let mut guest = guest.unwrap_or_else(|| Box::new(Guest::nobody()));
    let passes = guest.receive(message, route, peer);
    peer.link.guest = Some(guest);
    passes
}

impl Guest {
    fn receive(&mut self, message: &Message<'_>, route: &Route, peer: &mut Peer<'_>) -> Verdict {
        if let Err(refused) = self.meter(message.len(), route, peer.services) {
            if route.traffic_at_limit == TrafficAtLimit::Close {
                let frame = Some((CloseCode::Policy, refused.limit.name()));
                peer.close_for(CloseReason::TooMuchTraffic, frame);
            }
            return Verdict::Stays;
        }
        let Some(token) = route.renewal.and_then(|_| fresh_token(message)) else {
            return Verdict::Passes;
        };
        match self.renew(&token, route, peer.services) {
            Ok(()) => {
                peer.send(notice::renewed(self.identity()).as_str());
                return Verdict::Renews;
            }
            Err(refusal) => _ = peer.send(notice::refused(&refusal).as_str()),
        }
        if self.refused >= RENEWALS_REFUSED_MAX {
            let frame = Some((CloseCode::from(UNAUTHORIZED), "too many refused tokens"));
            peer.close_for(CloseReason::TokenExpired, frame);
        }
        Verdict::Stays
    }
}

/// The token in a message that brings a fresh one:
/// `{"action":"refresh_token","token":"…"}`, a text message.
fn fresh_token<'m>(message: &'m Message<'_>) -> Option<std::borrow::Cow<'m, str>> {
    #[derive(Deserialize)]
    struct Renewal<'m> {
        #[serde(borrow)]
        action: std::borrow::Cow<'m, str>,
        #[serde(borrow)]
        token: std::borrow::Cow<'m, str>,
    }
    const ACTION: &str = "refresh_token";
    let Message::Text(text) = message else {
        return None;
    };
    // Most messages are something else: that is seen without parsing them.
    if text.len() > MESSAGE_BYTES_MAX
        || memchr::memmem::find(text.as_bytes(), ACTION.as_bytes()).is_none()
    {
        return None;
    }
    let renewal: Renewal<'_> = serde_json::from_str(text).ok()?;
    (renewal.action == ACTION).then_some(renewal.token)
}

/// Longest message that may bring a token: the longest token, and what stands around it.
const MESSAGE_BYTES_MAX: usize = crate::admission::bearer::Bearer::BYTES_MAX + 256;

/// What the client is told about its token.
pub(super) mod notice {
    use super::{Duration, Refusal, jwt};

    /// It has ended; so long is left to bring a fresh one.
    pub(in super::super) fn expired(grace: Duration) -> String {
        let seconds = grace.as_secs();
        format!(r#"{{"type":"token_expired","grace_seconds":{seconds}}}"#)
    }

    /// The fresh one counts.
    pub(in super::super) fn renewed(identity: Option<&jwt::Identity>) -> String {
        match identity.and_then(jwt::Identity::expires_at) {
            Some(at) => format!(r#"{{"type":"token_refreshed","expires_at":{at}}}"#),
            None => r#"{"type":"token_refreshed","expires_at":null}"#.into(),
        }
    }

    /// The fresh one does not count.
    pub(in super::super) fn refused(refusal: &Refusal) -> String {
        let reason = refusal.reason();
        format!(r#"{{"type":"token_refused","reason":"{reason}"}}"#)
    }
}
