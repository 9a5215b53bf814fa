//! Requests that wait for the hub's answers.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::error::ApiError;
use super::order::{Shape, Task};
use super::reply::Piece;
use crate::conn::RequestTicket;
use crate::hub::Ticket;
use crate::timer::Tick;

/// A request, and what came of its commands so far.
#[derive(Debug)]
pub(super) struct Pending {
    /// How the answer is put together.
    pub(super) shape: Shape,
    /// What came of the commands that were carried out, in their order.
    pub(super) pieces: Vec<Piece>,
    /// How many are awaited.
    pub(super) missing: usize,
    /// Commands that are to be carried out when nothing is awaited.
    pub(super) rest: VecDeque<Task<'static>>,
    /// What the channels that the key is good for begin with.
    pub(super) prefixes: Arc<[String]>,
    pub(super) wants_transport_errors: bool,
    /// Whose answer was put off.
    pub(super) request: RequestTicket,
    /// From here on nobody waits for the answer, and no further command is carried out.
    pub(super) ends_at: Tick,
}

/// The requests of one reactor that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    requests: HashMap<u64, Pending, ahash::RandomState>,
    /// For each command that was asked, its request and its place there.
    asked: HashMap<Ticket, (u64, usize), ahash::RandomState>,
    /// The number of the next request.
    next: u64,
}

impl Waiting {
    /// Adds a request that waits for the answers to `asked`, by their places.
    pub(super) fn add(&mut self, pending: Pending, asked: &[(Ticket, usize)]) {
        let id = self.next;
        self.next += 1;
        let places = asked.iter().map(|(ticket, place)| (*ticket, (id, *place)));
        self.asked.extend(places);
        self.requests.insert(id, pending);
    }

    /// Takes the answer to a command, which `piece` makes for the prefixes of the request's key. Returns
    /// the request; `None` if nobody waits for it.
    pub(super) fn take(
        &mut self,
        ticket: Ticket,
        piece: impl FnOnce(&[String]) -> Piece,
    ) -> Option<u64> {
        let (id, place) = self.asked.remove(&ticket)?;
        let pending = self.requests.get_mut(&id)?;
        let slot = pending.pieces.get_mut(place)?;
        *slot = piece(&pending.prefixes);
        pending.missing -= 1;
        Some(id)
    }

    /// The next command of a request, if nothing is awaited and somebody still waits for the answer.
    pub(super) fn next_task(&mut self, id: u64, now: Tick) -> Option<Task<'static>> {
        let pending = self.requests.get_mut(&id)?;
        if now >= pending.ends_at {
            pending.rest.clear();
        }
        if pending.missing > 0 {
            return None;
        }
        pending.rest.pop_front()
    }

    /// Takes what came of the last command.
    pub(super) fn push(&mut self, id: u64, piece: Piece) {
        if let Some(pending) = self.requests.get_mut(&id) {
            pending.pieces.push(piece);
        }
    }

    /// The last command has been asked.
    pub(super) fn push_asked(&mut self, id: u64, ticket: Ticket) {
        if let Some(pending) = self.requests.get_mut(&id) {
            self.asked.insert(ticket, (id, pending.pieces.len()));
            pending.pieces.push(Err(ApiError::INTERNAL));
            pending.missing += 1;
        }
    }

    /// Takes out a request of which nothing is left to do.
    pub(super) fn remove_if_done(&mut self, id: u64) -> Option<Pending> {
        let pending = self.requests.get(&id)?;
        if pending.missing > 0 || !pending.rest.is_empty() {
            return None;
        }
        self.requests.remove(&id)
    }
}
