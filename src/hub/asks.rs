//! Commands that wait for their answers, on the reactor that asked.
//!
//! Each command is answered once: by what came of it, by the sum of what came of it on every reactor, or
//! by an error when the time is up. Whatever comes later is dropped.

use std::collections::{HashMap, VecDeque};

use super::command::{Answer, ChannelInfo, CommandError, Info, Outcome, ReplyTo, Ticket};
use crate::timer::Tick;

/// Commands of one reactor that may wait for their answers at a time. One more is answered with
/// [`CommandError::Internal`] at once.
pub const ASKS_MAX: usize = 65_536;

/// The commands that wait.
#[derive(Debug, Default)]
pub struct Asks {
    next: u64,
    open: HashMap<Ticket, Open, ahash::RandomState>,
    /// When each is given up, in order: all have the same time. Those answered meanwhile are passed over.
    deadlines: VecDeque<(Tick, Ticket)>,
}

#[derive(Debug)]
struct Open {
    reply_to: ReplyTo,
    /// Answers that have not come.
    awaited: usize,
    merged: Option<Answer>,
}

impl Asks {
    /// A name for a command that nobody else has.
    pub fn ticket(&mut self) -> Ticket {
        self.next += 1;
        Ticket(self.next)
    }

    /// Keeps a command until `awaited` answers have come, or until `deadline`; false if there are too many
    /// already. Deadlines must not go back.
    pub fn open(
        &mut self,
        ticket: Ticket,
        reply_to: ReplyTo,
        awaited: usize,
        deadline: Tick,
    ) -> bool {
        if self.open.len() >= ASKS_MAX {
            return false;
        }
        self.open.insert(
            ticket,
            Open {
                reply_to,
                awaited,
                merged: None,
            },
        );
        self.deadlines.push_back((deadline, ticket));
        true
    }

    /// Takes an answer; gives back whom to tell what, once all have come.
    pub fn answer(&mut self, ticket: Ticket, answer: Answer) -> Option<(ReplyTo, Answer)> {
        let open = self.open.get_mut(&ticket)?;
        open.merged = Some(match open.merged.take() {
            None => answer,
            Some(merged) => merge(merged, answer),
        });
        open.awaited = open.awaited.saturating_sub(1);
        if open.awaited > 0 {
            return None;
        }
        let Open {
            reply_to, merged, ..
        } = self.open.remove(&ticket)?;
        self.pass_over();
        Some((reply_to, merged?))
    }

    /// The next command whose time is up.
    pub fn expire(&mut self, now: Tick) -> Option<(Ticket, ReplyTo)> {
        self.pass_over();
        let (deadline, ticket) = *self.deadlines.front()?;
        if now < deadline {
            return None;
        }
        self.deadlines.pop_front();
        let open = self.open.remove(&ticket)?;
        Some((ticket, open.reply_to))
    }

    /// When the next one is given up.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Tick> {
        self.deadlines.front().map(|(deadline, _)| *deadline)
    }

    /// Commands that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    fn pass_over(&mut self) {
        while self
            .deadlines
            .front()
            .is_some_and(|(_, ticket)| !self.open.contains_key(ticket))
        {
            self.deadlines.pop_front();
        }
    }
}

/// Puts the answers of two reactors together. An error of one is the error of both.
fn merge(one: Answer, other: Answer) -> Answer {
    Ok(match (one?, other?) {
        (Outcome::Done(one), Outcome::Done(other)) => Outcome::Done(one + other),
        (Outcome::Info(one), Outcome::Info(other)) => Outcome::Info(Info {
            clients: one.clients + other.clients,
            users: one.users + other.users,
            channels: one.channels + other.channels,
            subscriptions: one.subscriptions + other.subscriptions,
        }),
        (Outcome::Channels(one), Outcome::Channels(other)) => {
            let mut merged = one;
            merged.extend(other);
            merged.sort_unstable_by(|one, other| one.channel.cmp(&other.channel));
            merged.dedup_by(|later, first: &mut ChannelInfo| {
                let is_same = later.channel == first.channel;
                if is_same {
                    first.clients += later.clients;
                }
                is_same
            });
            Outcome::Channels(merged)
        }
        // Reactors answer one command with outcomes of one kind.
        _ => return Err(CommandError::Internal),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Channel;
    use super::*;

    fn channels(names: &[(&str, u64)]) -> Answer {
        let info = |(name, clients): &(&str, u64)| ChannelInfo {
            channel: Channel::new(name).unwrap(),
            clients: *clients,
        };
        Ok(Outcome::Channels(names.iter().map(info).collect()))
    }

    #[test]
    fn an_answer_is_whole_when_every_reactor_has_given_its_part() {
        let mut asks = Asks::default();
        let ticket = asks.ticket();
        assert!(asks.open(ticket, ReplyTo::Endpoint, 3, 100));
        assert!(
            asks.answer(ticket, channels(&[("b", 1), ("a", 2)]))
                .is_none()
        );
        assert!(asks.answer(ticket, channels(&[])).is_none());
        let (_, answer) = asks
            .answer(ticket, channels(&[("a", 5), ("c", 1)]))
            .unwrap();
        assert_eq!(answer, channels(&[("a", 7), ("b", 1), ("c", 1)]));
        assert!(
            asks.answer(ticket, channels(&[])).is_none(),
            "one answer too many goes nowhere"
        );
        assert_eq!((asks.len(), asks.next_deadline()), (0, None));
    }

    #[test]
    fn one_error_is_the_answer() {
        let mut asks = Asks::default();
        let ticket = asks.ticket();
        asks.open(ticket, ReplyTo::Endpoint, 2, 100);
        asks.answer(ticket, Ok(Outcome::Done(4)));
        let (_, answer) = asks.answer(ticket, Err(CommandError::BadRequest)).unwrap();
        assert_eq!(answer, Err(CommandError::BadRequest));
    }

    #[test]
    fn what_is_not_answered_in_time_is_given_up_in_order() {
        let mut asks = Asks::default();
        let tickets = [100, 100, 101].map(|deadline| {
            let ticket = asks.ticket();
            asks.open(ticket, ReplyTo::Endpoint, 1, deadline);
            ticket
        });
        asks.answer(tickets[0], Ok(Outcome::Done(0)));
        assert_eq!(asks.next_deadline(), Some(100));
        assert!(asks.expire(99).is_none());
        assert_eq!(asks.expire(100).map(|(ticket, _)| ticket), Some(tickets[1]));
        assert!(asks.expire(100).is_none());
        assert!(asks.answer(tickets[1], Ok(Outcome::Done(1))).is_none());
        assert_eq!(asks.expire(101).map(|(ticket, _)| ticket), Some(tickets[2]));
        assert!(asks.is_empty());
    }

    #[test]
    fn the_cap_on_open_commands_is_exact() {
        let mut asks = Asks::default();
        for _ in 0..ASKS_MAX {
            let ticket = asks.ticket();
            assert!(asks.open(ticket, ReplyTo::Nobody, 1, 1));
        }
        let one_more = asks.ticket();
        assert!(!asks.open(one_more, ReplyTo::Nobody, 1, 1));
        assert!(asks.expire(1).is_some());
        assert!(asks.open(one_more, ReplyTo::Nobody, 1, 1));
    }
}
