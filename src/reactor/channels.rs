//! What a reactor does for the hub: deliveries to its subscribers, and commands about its connections.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::slots::Key;
use super::worker::Reactor;
use crate::conn::{ConnectionId, Context, Lane, Offer};
use crate::hub::command::{Info, Refresh};
use crate::hub::{
    Answer, Batch, Channel, Command, CommandError, Member, Outcome, ReplyTo, Subscribed, Task,
    Ticket, Whom,
};

/// Batches of one channel for its subscribers.
pub(super) struct Shipment<'a> {
    pub(super) channel: &'a Channel,
    pub(super) batches: &'a [Arc<Batch>],
    pub(super) lane: Lane,
    /// Whether a loss has to be told.
    pub(super) has_history: bool,
}

/// The frames of a shipment, as they are offered to a socket: made when the first member wants them.
#[derive(Default)]
pub(super) struct Offers {
    plain: Vec<Offer>,
    deflated: Vec<Offer>,
}

impl Reactor {
    /// Does what the hub wants done with connections, in order.
    pub(super) fn do_tasks(&mut self) {
        while let Some(task) = self.cx.services.hub.next_task() {
            match task {
                Task::Perform(asker, command) => {
                    let answer = self.perform(&command);
                    self.cx.services.hub.report(asker, answer);
                }
                Task::Answer(ticket, reply_to, answer) => self.answer(ticket, reply_to, answer),
                Task::Subscribed(subscribed) => self.begin_subscription(*subscribed),
            }
        }
    }

    /// Carries out a command about this reactor's connections.
    fn perform(&mut self, command: &Command) -> Answer {
        let mut count = 0;
        match command {
            Command::Channels(pattern) => {
                let infos = self.cx.services.hub.table.infos();
                let wanted = infos.filter(|info| pattern.matches(info.channel.as_str()));
                return Ok(Outcome::Channels(wanted.collect()));
            }
            Command::Info => {
                let hub = &self.cx.services.hub;
                return Ok(Outcome::Info(Info {
                    clients: hub.users.open(),
                    users: hub.users.users() as u64,
                    channels: hub.table.channels() as u64,
                    subscriptions: hub.table.subscriptions() as u64,
                }));
            }
            Command::Disconnect(order) => {
                for id in self.whom(&order.whom) {
                    if !order.whitelist.contains(&id) {
                        self.deliver_due(id, None);
                        self.address(id, |connection, cx| {
                            count += u64::from(connection.kick(order.code, &order.reason, cx));
                        });
                    }
                }
            }
            Command::Subscribe(whom, channel) => {
                for id in self.whom(whom) {
                    self.address(id, |connection, cx| {
                        let joined = connection.with_peer(cx, |peer| peer.join(channel));
                        count += u64::from(joined.unwrap_or(false));
                    });
                }
            }
            Command::Unsubscribe(whom, channel) => {
                for id in self.whom(whom) {
                    self.deliver_due(id, Some(channel));
                    self.address(id, |connection, cx| {
                        let left = connection.with_peer(cx, |peer| peer.leave(channel));
                        count += u64::from(left.unwrap_or(false));
                    });
                }
            }
            Command::Refresh(whom, refresh) => {
                for id in self.whom(whom) {
                    if *refresh == Refresh::Expired {
                        self.deliver_due(id, None);
                    }
                    self.address(id, |connection, cx| {
                        count += u64::from(connection.refresh(*refresh, cx));
                    });
                }
            }
            // These go to a channel's home, and the hub does them by itself.
            Command::Publish(_)
            | Command::Presence(_)
            | Command::PresenceStats(_)
            | Command::History(..)
            | Command::HistoryRemove(_) => return Err(CommandError::Internal),
        }
        Ok(Outcome::Done(count))
    }

    /// Delivers to a connection what has come for it of a channel, of all channels without one, before a
    /// command ends that: what was published before the command was given comes before its effect, unless
    /// the connection is too slow for it.
    fn deliver_due(&mut self, id: ConnectionId, channel: Option<&Channel>) {
        for slice in self.cx.services.hub.table.take_due(id.slot(), channel) {
            self.deliver(&slice);
        }
    }

    /// The open connections of this reactor that are meant.
    fn whom(&mut self, whom: &Whom) -> Vec<ConnectionId> {
        let Some(id) = whom.client else {
            return self.cx.services.hub.users.of(&whom.user).to_vec();
        };
        let key = Key {
            slot: id.slot(),
            generation: id.generation(),
        };
        let is_mine = id.reactor() == usize::from(self.number);
        let entry = is_mine.then(|| self.slots.get_mut(key)).flatten();
        let is_theirs = entry.is_some_and(|entry| {
            let user = entry.connection.user().map_or("", |user| user);
            entry.connection.is_open() && user == &*whom.user
        });
        is_theirs.then_some(id).into_iter().collect()
    }

    fn answer(&mut self, ticket: Ticket, reply_to: ReplyTo, answer: Answer) {
        match reply_to {
            ReplyTo::Nobody => {}
            ReplyTo::Endpoint => {
                let Context {
                    endpoint, services, ..
                } = &mut self.cx;
                let Some(endpoint) = endpoint else { return };
                let call = AssertUnwindSafe(|| endpoint.answer(ticket, answer, services));
                // Whoever waits for what it would have made of the answer is told when the time is up.
                if catch_unwind(call).is_err() {
                    services.counters.handler_panics += 1;
                    tracing::error!("an endpoint panicked at an answer");
                }
            }
            ReplyTo::Session(id) => self.address(id, |connection, cx| {
                connection.call(cx, |handler, peer| handler.answered(peer, ticket, answer));
            }),
            // A thread that waits no longer needs no answer.
            ReplyTo::Thread(sender) => {
                let _ = sender.try_send(answer);
            }
        }
    }

    /// Tells a connection that its subscription has begun, or cannot, and sends it what was before.
    fn begin_subscription(&mut self, subscribed: Subscribed) {
        let Subscribed {
            id,
            channel,
            outcome,
            replay,
            tag,
            traits,
            member,
        } = subscribed;
        self.address(id, |connection, cx| {
            connection.call(cx, |handler, peer| {
                handler.subscribed(peer, &channel, outcome);
            });
        });
        let is_member = self.cx.services.hub.table.is_member(&channel, member.key);
        if replay.is_empty() || !is_member {
            return;
        }
        let past = Shipment {
            channel: &channel,
            batches: &replay,
            lane: Lane {
                tag,
                slow: traits.slow,
            },
            has_history: traits.has_history,
        };
        self.ship(&past, member, 0, &mut Offers::default());
    }

    /// Delivers the batches from `skipped` on to one member. Where something is missing, or does not fit,
    /// of a channel with history, the member is told, and its subscription ends.
    pub(super) fn ship(
        &mut self,
        shipment: &Shipment<'_>,
        member: Member,
        skipped: usize,
        offers: &mut Offers,
    ) {
        let offers = shipment.offers(member.deflate, offers, &mut self.cx);
        let due = &shipment.batches[skipped..];
        let gap = due.iter().position(|batch| batch.is_gap());
        let until = gap.map_or(shipment.batches.len(), |gap| skipped + gap);
        self.attend(member.key, |entry, scratch, cx| {
            let id = entry.connection.id();
            let mut is_whole = gap.is_none();
            let mut from = skipped;
            while from < until {
                // Up to the next batch that is not for this member.
                let is_withheld = |batch: &Arc<Batch>| batch.exclude() == Some(id);
                let run = shipment.batches[from..until].iter().position(is_withheld);
                let to = run.map_or(until, |run| from + run);
                let offered = &offers[from..to];
                let (transport, connection) = (&mut entry.transport, &mut entry.connection);
                let taken = transport.deliver(offered, shipment.lane, connection, scratch, cx);
                shipment.count(from..to, taken.batches, cx);
                from = to + usize::from(run.is_some());
                if !taken.is_whole || taken.batches < offered.len() {
                    is_whole = false;
                    if shipment.has_history {
                        // The rest would come behind what is missing.
                        shipment.count(from..until, 0, cx);
                        break;
                    }
                }
            }
            let is_told = gap.is_some() || (shipment.has_history && !is_whole);
            if is_told && entry.connection.is_open() {
                cx.services.counters.gaps += 1;
                entry.connection.call(cx, |handler, peer| {
                    peer.leave(shipment.channel);
                    handler.gap(peer, shipment.channel);
                });
                entry.transport.flush(&mut entry.connection, scratch, cx);
            }
        });
    }
}

impl Shipment<'_> {
    fn offers<'o>(&self, deflate: bool, offers: &'o mut Offers, cx: &mut Context) -> &'o [Offer] {
        let made = if deflate {
            &mut offers.deflated
        } else {
            &mut offers.plain
        };
        if made.is_empty() {
            let deflater = &mut cx.services.deflater;
            let batches = self.batches.iter();
            made.extend(batches.map(|batch| Offer::of(batch, deflate, deflater)));
        }
        made
    }

    /// Counts the batches of a range, of which the first ones were taken.
    fn count(&self, range: Range<usize>, taken: usize, cx: &mut Context) {
        let counters = &mut cx.services.counters;
        for (number, batch) in self.batches[range].iter().enumerate() {
            let messages = batch.messages() as u64;
            if number >= taken {
                counters.outbox_skipped += messages;
                continue;
            }
            let bytes = batch.frames().len() as u64;
            counters.delivered += messages;
            counters.messages_sent += messages;
            counters.bytes_sent += bytes;
            if let Some(ledger) = &mut cx.services.ledger {
                ledger.messages_sent(bytes / messages.max(1), messages);
            }
        }
    }
}
