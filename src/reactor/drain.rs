//! The shutdown: connections are told of it in slices, and what is left at the deadline is cut.

use super::worker::Reactor;
use crate::conn::CloseReason;
use crate::timer::{Tick, ticks};
use crate::ws::CloseCode;

/// Connections told of the shutdown in one turn.
const DRAIN_SLICE: u32 = 1024;

/// The shutdown: connections are told of it in slices.
pub(super) struct Drain {
    pub(super) next_slot: u32,
    pub(super) deadline: Tick,
}

impl Reactor {
    pub(super) fn shut_down(&mut self) {
        if self.drain.is_some() {
            return;
        }
        // What is in the backlog has been promised a connection; it is told like the others.
        while self
            .listeners
            .iter()
            .any(|listener| listener.may_accept(self.cx.services.now))
        {
            let before = self.cx.services.counters.accepted;
            self.accept();
            if self.cx.services.counters.accepted == before {
                break;
            }
        }
        self.listeners.clear();
        self.cx.services.draining = true;
        let timeout = ticks(self.limits.drain_timeout);
        let deadline = self.cx.services.now.saturating_add(timeout);
        self.drain = Some(Drain {
            next_slot: 0,
            deadline,
        });
    }

    pub(super) fn tell_of_shutdown(&mut self) {
        let Some(drain) = &mut self.drain else { return };
        let is_over = self.cx.services.now >= drain.deadline;
        let first = if is_over { 0 } else { drain.next_slot };
        let until = if is_over {
            self.slots.span()
        } else {
            self.slots.span().min(first + DRAIN_SLICE)
        };
        drain.next_slot = until;
        for slot in first..until {
            self.attend(slot, |entry, scratch, cx| {
                entry
                    .connection
                    .close(CloseReason::Shutdown, CloseCode::Away, "shutting down", cx);
                entry.transport.flush(&mut entry.connection, scratch, cx);
                if is_over {
                    entry.connection.io_failed(cx);
                }
            });
        }
    }
}
