//! Connections that have ended: let go of, and told of in the log.

use std::net::SocketAddr;
use std::time::Duration;

use super::worker::{Reactor, now};
use crate::admission::Refusal;
use crate::conn::{CloseReason, Connection, Phase};
use crate::timer::ticks;

/// Lines a second in the log for one way of ending.
pub(super) const LINES_PER_SECOND: usize = 5;

impl Reactor {
    /// Lets go of the connections that ended in this turn, and of everything they held.
    pub(super) fn reap(&mut self) {
        let mut ended = std::mem::take(&mut self.ended);
        for slot in ended.drain(..) {
            self.wheel.cancel(slot);
            let Some(entry) = self.slots.remove(slot) else {
                continue;
            };
            self.tls_sessions -= usize::from(entry.transport.tls().is_some());
            self.unfinished -= u64::from(entry.unfinished);
            if let Phase::Closed(reason) = entry.connection.phase() {
                self.tell(&entry.connection, reason);
            }
        }
        self.ended = ended;
    }

    /// Logs how a connection ended: the usual ways for whoever debugs, the others for everybody, but
    /// not each of a flood.
    fn tell(&mut self, connection: &Connection, reason: &CloseReason) {
        let (id, address) = (connection.id(), connection.identity().address());
        if reason.is_usual() {
            tracing::debug!(connection = %id, peer = %address, %reason, "connection ended");
            return;
        }
        if let CloseReason::Refused(refusal) = reason {
            return self.tell_of_refusal(address, refusal);
        }
        match self.log.admit(reason.label(), now()) {
            Some(suppressed) => tracing::info!(
                connection = %id,
                peer = %address,
                reason = reason.label(),
                detail = %reason,
                suppressed,
                "connection ended"
            ),
            None => self.settle_log_later(),
        }
    }

    /// Logs a refusal, but not each of a flood.
    pub(super) fn tell_of_refusal(&mut self, address: SocketAddr, refusal: &Refusal) {
        match self.log.admit(refusal.reason(), now()) {
            Some(suppressed) => tracing::info!(
                peer = %address,
                stage = refusal.stage().label(),
                reason = refusal.reason(),
                detail = %refusal,
                suppressed,
                "refused"
            ),
            None => self.settle_log_later(),
        }
    }

    /// Each suppressed line moves it: it is due when the flood is over.
    fn settle_log_later(&mut self) {
        let settles_at = self.cx.services.now + ticks(Duration::from_secs(2));
        self.log_settles_at = Some(settles_at);
    }

    /// Tells of the end of a flood: lines suppressed since the last one that was written.
    pub(super) fn settle_log(&mut self) {
        if self
            .log_settles_at
            .is_none_or(|at| self.cx.services.now < at)
        {
            return;
        }
        self.log_settles_at = None;
        for (reason, suppressed) in self.log.settle(now()) {
            tracing::info!(
                reason = reason.unwrap_or("other"),
                suppressed,
                "connections ended"
            );
        }
    }
}
