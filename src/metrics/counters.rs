//! One reactor's counters: plain integers, added to where the event happens.
//!
//! Nothing here is shared between threads. A [`Counters`] travels to whoever wants totals as a value
//! and is merged there, so counting costs an add and no cache line moves between cores.

use super::backend::ApiCounts;
use crate::admission::limits::Tally;
use crate::admission::refusal::{REFUSALS, Refusal};
use crate::conn::reason::{CloseReason, REASONS};

/// What one reactor did since it started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Connections accepted from a listener.
    pub accepted: u64,
    /// Connections accepted and dropped at once, because of a limit; they are in no other count but
    /// [`refused`](Self::refused).
    pub accept_refused: u64,
    /// Times a reactor accepted nothing for a turn, because its loop lagged.
    pub accept_deferred: u64,
    /// Refusals by stage and reason.
    pub refused: RefusalCounts,
    /// What limits refused, or would have in earnest.
    pub tally: Tally,
    /// PROXY headers read.
    pub proxied: u64,
    /// Times a listener was parked: no descriptor or no memory for another socket.
    pub accept_parked: u64,
    /// TLS handshakes completed.
    pub tls_established: u64,
    /// TLS handshakes completed by resuming a session.
    pub tls_resumed: u64,
    /// TLS streams of open connections that ended without a close_notify: cut off, by accident or by
    /// somebody in between (RFC 8446 §6.1).
    pub tls_truncated: u64,
    /// Request heads completed.
    pub heads: u64,
    /// Upgrades completed.
    pub opened: u64,
    /// Connections that came for plain HTTP.
    pub exchanges: u64,
    /// Their requests that were answered.
    pub requests: u64,
    /// Their requests that were malformed, too long or too slow.
    pub requests_refused: u64,
    /// Their requests whose answer was put off and did not come in time.
    pub requests_unanswered: u64,
    /// What backends asked for over the API.
    pub api: ApiCounts,
    /// Connections ended, by [`CloseReason::index`].
    pub closed: [u64; REASONS],
    /// Data messages received.
    pub messages_received: u64,
    /// Bytes of their payload.
    pub bytes_received: u64,
    /// Data messages sent or queued.
    pub messages_sent: u64,
    /// Bytes of their payload (of their frames, for published ones).
    pub bytes_sent: u64,
    /// Pings sent to quiet peers.
    pub pings_sent: u64,
    /// Pings of the peer that were passed over because a newer one came in the same read.
    pub pings_skipped: u64,
    /// Messages not sent because an outbox was full.
    pub outbox_skipped: u64,
    /// Messages of channels that were taken back from outboxes: for newer ones, where the channel's policy
    /// says so, or because the subscription ended.
    pub outbox_taken_back: u64,
    /// Bytes waiting in outboxes now.
    pub outbox_bytes: u64,
    /// Times a connection's reading was paused because its replies could not leave.
    pub reading_paused: u64,
    /// Messages published to channels.
    pub published: u64,
    /// Messages delivered to subscribers.
    pub delivered: u64,
    /// Publications dropped between reactors or behind a fan-out, because a queue was full.
    pub publications_dropped: u64,
    /// Messages received that no handler had a use for.
    pub messages_ignored: u64,
    /// Times a subscriber was told that publications of a channel with history were lost on the way.
    pub gaps: u64,
    /// Subscriptions refused because the connection had as many as it may.
    pub subscriptions_refused: u64,
    /// Commands to the hub that were not answered in time, or for which there was no room.
    pub commands_unanswered: u64,
    /// Publications that were neither kept nor numbered, because there was no room for another history.
    pub histories_refused: u64,
    /// Members that a channel did not count, because it had too many.
    pub presence_refused: u64,
    /// Joins and leaves that were not told singly.
    pub announcements_held: u64,
    /// Publications that were not made, because one with their key had been.
    pub publications_repeated: u64,
    /// Panics in handlers' callbacks.
    pub handler_panics: u64,
    /// Tokens renewed over open connections.
    pub tokens_renewed: u64,
    /// Tokens brought over open connections that were refused; they are in [`refused`](Self::refused)
    /// too.
    pub renewals_refused: u64,
    /// Connections that ended on their way in without having been refused: the client went, or the
    /// server did.
    pub abandoned: u64,
}

/// How often each refusal was made, in the order of [`labels`](crate::admission::refusal::labels).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusalCounts([u64; REFUSALS]);

impl Default for RefusalCounts {
    fn default() -> Self {
        Self([0; REFUSALS])
    }
}

impl RefusalCounts {
    pub(crate) fn count(&mut self, refusal: &Refusal) {
        self.0[refusal.index()] += 1;
    }

    /// How often this refusal was made (the detail inside it does not matter).
    #[must_use]
    pub fn of(&self, refusal: &Refusal) -> u64 {
        self.0[refusal.index()]
    }

    /// All refusals.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The counts, in the order of [`labels`](crate::admission::refusal::labels).
    #[must_use]
    pub const fn as_slice(&self) -> &[u64] {
        &self.0
    }

    fn merge(&mut self, other: &Self) {
        for (sum, more) in self.0.iter_mut().zip(&other.0) {
            *sum += more;
        }
    }
}

impl Counters {
    /// Connections open now, in whatever phase.
    #[must_use]
    pub fn active(&self) -> u64 {
        self.accepted - self.closed_total()
    }

    /// Connections ended, whatever the reason.
    #[must_use]
    pub fn closed_total(&self) -> u64 {
        self.closed.iter().sum()
    }

    /// Connections ended for this kind of reason (the detail inside it does not matter).
    #[must_use]
    pub const fn closed_by(&self, reason: &CloseReason) -> u64 {
        self.closed[reason.index()]
    }

    /// Adds another reactor's counters to these.
    pub fn merge(&mut self, other: &Self) {
        // Taking the other apart by name makes the compiler ask about every new counter.
        let Self {
            accepted,
            accept_refused,
            accept_deferred,
            refused,
            tally,
            proxied,
            accept_parked,
            tls_established,
            tls_resumed,
            tls_truncated,
            heads,
            opened,
            exchanges,
            requests,
            requests_refused,
            requests_unanswered,
            api,
            closed,
            messages_received,
            bytes_received,
            messages_sent,
            bytes_sent,
            pings_sent,
            pings_skipped,
            outbox_skipped,
            outbox_taken_back,
            outbox_bytes,
            reading_paused,
            published,
            delivered,
            publications_dropped,
            messages_ignored,
            gaps,
            subscriptions_refused,
            commands_unanswered,
            histories_refused,
            presence_refused,
            announcements_held,
            publications_repeated,
            handler_panics,
            tokens_renewed,
            renewals_refused,
            abandoned,
        } = other;
        self.refused.merge(refused);
        self.tally.merge(tally);
        self.api.merge(api);
        for (mine, theirs) in self.closed.iter_mut().zip(closed) {
            *mine += theirs;
        }
        for (mine, theirs) in [
            (&mut self.accepted, accepted),
            (&mut self.accept_refused, accept_refused),
            (&mut self.accept_deferred, accept_deferred),
            (&mut self.proxied, proxied),
            (&mut self.accept_parked, accept_parked),
            (&mut self.tls_established, tls_established),
            (&mut self.tls_resumed, tls_resumed),
            (&mut self.tls_truncated, tls_truncated),
            (&mut self.heads, heads),
            (&mut self.opened, opened),
            (&mut self.exchanges, exchanges),
            (&mut self.requests, requests),
            (&mut self.requests_refused, requests_refused),
            (&mut self.requests_unanswered, requests_unanswered),
            (&mut self.messages_received, messages_received),
            (&mut self.bytes_received, bytes_received),
            (&mut self.messages_sent, messages_sent),
            (&mut self.bytes_sent, bytes_sent),
            (&mut self.pings_sent, pings_sent),
            (&mut self.pings_skipped, pings_skipped),
            (&mut self.outbox_skipped, outbox_skipped),
            (&mut self.outbox_taken_back, outbox_taken_back),
            (&mut self.outbox_bytes, outbox_bytes),
            (&mut self.reading_paused, reading_paused),
            (&mut self.published, published),
            (&mut self.delivered, delivered),
            (&mut self.publications_dropped, publications_dropped),
            (&mut self.messages_ignored, messages_ignored),
            (&mut self.gaps, gaps),
            (&mut self.subscriptions_refused, subscriptions_refused),
            (&mut self.commands_unanswered, commands_unanswered),
            (&mut self.histories_refused, histories_refused),
            (&mut self.presence_refused, presence_refused),
            (&mut self.announcements_held, announcements_held),
            (&mut self.publications_repeated, publications_repeated),
            (&mut self.handler_panics, handler_panics),
            (&mut self.tokens_renewed, tokens_renewed),
            (&mut self.renewals_refused, renewals_refused),
            (&mut self.abandoned, abandoned),
        ] {
            *mine += theirs;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_adds_every_counter() {
        let mut one = Counters {
            accepted: 5,
            bytes_sent: 7,
            ..Counters::default()
        };
        one.closed[CloseReason::PeerGone.index()] = 2;
        let mut sum = one.clone();
        sum.merge(&one);
        assert_eq!(
            (sum.accepted, sum.bytes_sent, sum.closed_total()),
            (10, 14, 4)
        );
        assert_eq!(
            (sum.active(), sum.closed_by(&CloseReason::PeerGone)),
            (6, 4)
        );
    }
}
