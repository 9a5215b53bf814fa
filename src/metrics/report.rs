//! What a reactor tells the metrics thread, once a tick, and how it waits when nobody listens.
//!
//! A [`Ledger`] belongs to a reactor. It writes into one [`Report`] while another is on its way; the
//! metrics thread sends the emptied one back, and the two alternate, so in the steady state nothing is
//! allocated. While there is no room, or no empty report has come back, the ledger goes on writing into
//! the one it has: totals are replaced by newer totals, distributions and changes of rows merge. Nothing
//! is lost and nothing grows without bound: a report holds at most one change for a connection the
//! metrics thread knows and one for a connection it does not know yet, per slot of the reactor.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::ops::{AddAssign, Sub};
use std::sync::Arc;
use std::time::Duration;

use super::counters::Counters;
use super::histogram::{Histograms, Measure};
use crate::conn::ConnectionId;

/// Milliseconds since the server started, on the monotonic clock all reactors share.
pub type Millis = u64;

/// Everything that happened in a reactor since its last report.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Report {
    /// The reactor.
    pub reactor: u8,
    /// When it was handed over.
    pub at: Millis,
    /// The reactor's counters since it started: totals, so that a newer report replaces an older one.
    pub counters: Counters,
    /// What the reactor looked like at that moment.
    pub gauges: Gauges,
    /// Times a report could not be handed over, since the reactor started.
    pub delays: u64,
    /// Connections opened since the reactor started, by [`Transport`].
    pub opened: [u64; TRANSPORTS],
    /// Values measured since the last report.
    pub histograms: Histograms,
    /// The latest of the connections that ended since the last report.
    pub last_ended: LastEnded,
    /// Connections that opened, changed or ended since the last report, in no order that matters.
    pub rows: Vec<RowChange>,
    /// On the way back: the rows have been lost, and the reactor is to tell of every open connection
    /// again.
    pub rows_lost: bool,
}

/// What a reactor looked like when it reported.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Gauges {
    /// Connections whose upgrade is complete: as many as have a row.
    pub open: u64,
    /// Connections on their way in.
    pub handshakes_in_flight: u64,
    /// Letters waiting in the mailbox.
    pub mailbox_letters: u64,
    /// Their bytes.
    pub mailbox_bytes: u64,
    /// Channels with a subscriber on this reactor.
    pub channels: u64,
    /// Subscriptions of this reactor's connections.
    pub subscriptions: u64,
    /// Connections whose outbox has not been empty for a while, by [`SlowCause`].
    pub slow_consumers: [u64; SLOW_CAUSES],
    /// Memory it holds.
    pub memory: Memory,
}

/// Why a connection's outbox does not empty: a closed set, because it becomes a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SlowCause {
    /// The peer does not read: its window is closed.
    PeerWindow,
    /// Packets are lost and sent again.
    Loss,
    /// The way is slower than what is sent.
    Path,
    /// The kernel has nothing left to send: this server is late itself.
    Reactor,
    /// The kernel has not been asked yet, or did not say.
    Unknown,
}

/// How many causes there are.
pub const SLOW_CAUSES: usize = 5;

impl SlowCause {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; SLOW_CAUSES] = [
        Self::PeerWindow,
        Self::Loss,
        Self::Path,
        Self::Reactor,
        Self::Unknown,
    ];

    /// Its name: a label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::PeerWindow => "peer_window",
            Self::Loss => "loss",
            Self::Path => "path",
            Self::Reactor => "reactor",
            Self::Unknown => "unknown",
        }
    }
}

/// Bytes that a reactor holds, by what for. What waits in outboxes and mailboxes is counted elsewhere;
/// what handlers keep is their own affair.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Slots of connections, occupied or not.
    pub connections: u64,
    /// Beginnings of request heads, records, frames and messages, whose rest has not come yet.
    pub unfinished: u64,
    /// TLS sessions, each at what it takes once it is established:
    /// [`SESSION_BYTES`](crate::tls::SESSION_BYTES).
    pub tls: u64,
    /// The timer wheel.
    pub timers: u64,
    /// Buffers that are lent to whichever connection is served.
    pub buffers: u64,
    /// Publications that wait or are being served.
    pub publications: u64,
    /// Who subscribes to what.
    pub subscriptions: u64,
    /// Publications that channels remember, and the channels that have something to remember.
    pub histories: u64,
    /// Who is present in channels.
    pub presence: u64,
    /// Keys of publications that are not to be made twice.
    pub idempotency: u64,
    /// The reports, theirs on the way included.
    pub reports: u64,
}

impl Memory {
    /// The names of its parts, which are labels, with the parts.
    #[must_use]
    pub const fn components(&self) -> [(&'static str, u64); 11] {
        let Self {
            connections,
            unfinished,
            tls,
            timers,
            buffers,
            publications,
            subscriptions,
            histories,
            presence,
            idempotency,
            reports,
        } = *self;
        [
            ("connections", connections),
            ("unfinished", unfinished),
            ("tls", tls),
            ("timers", timers),
            ("buffers", buffers),
            ("publications", publications),
            ("subscriptions", subscriptions),
            ("histories", histories),
            ("presence", presence),
            ("idempotency", idempotency),
            ("reports", reports),
        ]
    }
}

/// One connection's changes since the last report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowChange {
    /// The connection.
    pub id: ConnectionId,
    /// Who it is, if it opened since the last report.
    pub opened: Option<Opened>,
    /// What it sent and received since the last report.
    pub traffic: Traffic,
    /// When it was last heard of or sent to.
    pub last_activity: Millis,
    /// Bytes waiting in its outbox.
    pub outbox_bytes: u64,
    /// It ended: the row goes.
    pub has_ended: bool,
}

/// What is known of a connection from its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Who, if the route asks for a token.
    pub user: Option<Arc<str>>,
    /// Index of the route.
    pub route: u16,
    /// The client's address, as admission saw it.
    pub address: IpAddr,
    /// When the upgrade was complete.
    pub since: Millis,
    /// What it came over.
    pub transport: Transport,
}

/// What lies under a connection's frames: a closed set, because it becomes a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP alone.
    Plain,
    /// TLS 1.2, a full handshake.
    Tls12,
    /// TLS 1.2, a resumed session.
    Tls12Resumed,
    /// TLS 1.3, a full handshake.
    Tls13,
    /// TLS 1.3, a resumed session.
    Tls13Resumed,
}

/// How many transports there are.
pub const TRANSPORTS: usize = 5;

impl Transport {
    /// Every transport, in the order of the tables.
    pub const ALL: [Self; TRANSPORTS] = [
        Self::Plain,
        Self::Tls12,
        Self::Tls12Resumed,
        Self::Tls13,
        Self::Tls13Resumed,
    ];

    /// The label of its TLS version: `none`, `1.2` or `1.3`.
    #[must_use]
    pub const fn tls(self) -> &'static str {
        match self {
            Self::Plain => "none",
            Self::Tls12 | Self::Tls12Resumed => "1.2",
            Self::Tls13 | Self::Tls13Resumed => "1.3",
        }
    }

    /// Whether a TLS session was resumed.
    #[must_use]
    pub const fn is_resumed(self) -> bool {
        match self {
            Self::Tls12Resumed | Self::Tls13Resumed => true,
            Self::Plain | Self::Tls12 | Self::Tls13 => false,
        }
    }
}

/// Data messages and the bytes of their payload, both ways.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// Messages received.
    pub messages_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Messages sent or queued.
    pub messages_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
}

impl Traffic {
    /// What a reactor's counters say. Taken before and after a connection is served, the difference is
    /// that connection's share, at no cost per message.
    #[must_use]
    pub const fn of(counters: &Counters) -> Self {
        Self {
            messages_received: counters.messages_received,
            bytes_received: counters.bytes_received,
            messages_sent: counters.messages_sent,
            bytes_sent: counters.bytes_sent,
        }
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, more: Self) {
        self.messages_received += more.messages_received;
        self.bytes_received += more.bytes_received;
        self.messages_sent += more.messages_sent;
        self.bytes_sent += more.bytes_sent;
    }
}

impl Sub for Traffic {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            messages_received: self.messages_received - before.messages_received,
            bytes_received: self.bytes_received - before.bytes_received,
            messages_sent: self.messages_sent - before.messages_sent,
            bytes_sent: self.bytes_sent - before.bytes_sent,
        }
    }
}

/// How an open connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// When.
    pub at: Millis,
    /// How long it had been open.
    pub duration: Duration,
    /// Why, as [`CloseReason::label`](crate::conn::CloseReason::label) says it.
    pub reason: &'static str,
}

/// The latest [`ENDED_KEPT`] connections that ended, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastEnded(VecDeque<Ended>);

/// How many ended connections are remembered.
pub const ENDED_KEPT: usize = 100;

impl Default for LastEnded {
    fn default() -> Self {
        Self(VecDeque::with_capacity(2 * ENDED_KEPT))
    }
}

impl LastEnded {
    /// Remembers one more; the oldest gives way.
    pub fn push(&mut self, ended: Ended) {
        if self.0.len() == ENDED_KEPT {
            self.0.pop_front();
        }
        self.0.push_back(ended);
    }

    /// Keeps the latest of both.
    pub fn merge(&mut self, other: &Self) {
        if other.0.is_empty() {
            return;
        }
        self.0.extend(&other.0);
        self.0.make_contiguous().sort_by_key(|ended| ended.at);
        let surplus = self.0.len().saturating_sub(ENDED_KEPT);
        self.0.drain(..surplus);
    }

    /// Those remembered, the oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Ended> {
        self.0.iter()
    }

    /// Their mean duration; none without any.
    #[must_use]
    pub fn mean_duration(&self) -> Option<Duration> {
        let total: Duration = self.0.iter().map(|ended| ended.duration).sum();
        u32::try_from(self.0.len())
            .ok()
            .and_then(|count| total.checked_div(count))
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// Row changes a cleared report keeps room for, however few it held.
const ROWS_KEPT: usize = 1024;

impl Report {
    /// Makes it fit to be sent back: empty, with its memory, unless a storm has left it far too large.
    pub fn clear(&mut self) {
        let used = self.rows.len();
        self.rows.clear();
        if used < self.rows.capacity() / 8 {
            self.rows.shrink_to(ROWS_KEPT.max(2 * used));
        }
        self.histograms.clear();
        self.last_ended.clear();
        self.rows_lost = false;
    }
}

/// A reactor's side: writes everything down until it can be handed over.
#[derive(Debug)]
pub struct Ledger {
    pending: Box<Report>,
    spare: Option<Box<Report>>,
    /// For each slot, where in `pending.rows` its connection was last seen. Not trusted: the row found
    /// there must carry the connection's id. So handing over costs nothing per slot.
    places: Vec<u32>,
    /// Values of the measures of [`RUNS`] that are not in the distributions yet.
    runs: [Run; RUNS.len()],
}

/// What is measured of every message. Most messages are as long as the one before and leave as fast: such a
/// run goes into the distribution as one, so that a message costs a comparison and an add.
const RUNS: [Measure; 3] = [
    Measure::MessageReceived,
    Measure::MessageSent,
    Measure::SendLatency,
];

/// One value, several times in a row.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    value: u64,
    times: u64,
}

impl Ledger {
    /// An empty one for a reactor, with both of its reports.
    #[must_use]
    pub fn new(reactor: u8) -> Self {
        let report = Box::new(Report {
            reactor,
            ..Report::default()
        });
        Self {
            spare: Some(report.clone()),
            pending: report,
            places: Vec::new(),
            runs: [Run::default(); RUNS.len()],
        }
    }

    /// Bytes it holds, both reports included: the other one is taken to be like the one at hand.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        let report = self.pending.rows.capacity() * size_of::<RowChange>()
            + self.pending.histograms.bytes_held();
        2 * report + self.places.capacity() * size_of::<u32>()
    }

    /// Counts the size of a message received.
    #[inline]
    pub fn messages_received(&mut self, bytes: u64, messages: u64) {
        self.run_on(0, bytes, messages);
    }

    /// Counts the size of messages sent that are equally long.
    #[inline]
    pub fn messages_sent(&mut self, bytes: u64, messages: u64) {
        self.run_on(1, bytes, messages);
    }

    /// Counts messages that left after so many microseconds.
    #[inline]
    pub fn messages_left(&mut self, after: u64, messages: u64) {
        self.run_on(2, after, messages);
    }

    #[inline]
    fn run_on(&mut self, which: usize, value: u64, times: u64) {
        let run = &mut self.runs[which];
        if run.value != value {
            let ended = std::mem::replace(run, Run { value, times: 0 });
            if ended.times > 0 {
                let histograms = &mut self.pending.histograms;
                histograms.record_many(RUNS[which], ended.value, ended.times);
            }
        }
        run.times += times;
    }

    /// Puts the runs where they belong.
    fn end_runs(&mut self) {
        for (run, measure) in self.runs.iter_mut().zip(RUNS) {
            if run.times > 0 {
                let histograms = &mut self.pending.histograms;
                histograms.record_many(measure, run.value, run.times);
                run.times = 0;
            }
        }
    }

    /// Counts a value, in the measure's unit.
    #[inline]
    pub fn record(&mut self, measure: Measure, value: u64) {
        self.pending.histograms.record(measure, value);
    }

    /// Counts a time.
    #[inline]
    pub fn record_time(&mut self, measure: Measure, time: Duration) {
        self.pending.histograms.record_time(measure, time);
    }

    /// A connection's upgrade is complete.
    pub fn opened(&mut self, id: ConnectionId, opened: Opened) {
        self.pending.opened[opened.transport as usize] += 1;
        let row = self.row(id);
        row.last_activity = opened.since;
        row.opened = Some(opened);
    }

    /// Tells again of a connection that is open: whoever takes the reports has lost its row.
    pub fn announce(&mut self, id: ConnectionId, opened: Opened, last_activity: Millis) {
        let row = self.row(id);
        row.last_activity = last_activity;
        row.opened = Some(opened);
    }

    /// An open connection was served: what it sent and received meanwhile, and what waits for it now.
    pub fn changed(
        &mut self,
        id: ConnectionId,
        traffic: Traffic,
        last_activity: Millis,
        outbox_bytes: u64,
    ) {
        let row = self.row(id);
        row.traffic += traffic;
        row.last_activity = last_activity;
        row.outbox_bytes = outbox_bytes;
    }

    /// An open connection ended. If nobody has heard of it yet, nobody needs to: its row is dropped, and
    /// it counts in the figures only.
    pub fn ended(&mut self, id: ConnectionId, ended: Ended) {
        self.record_time(Measure::ConnectionDuration, ended.duration);
        self.pending.last_ended.push(ended);
        let place = self.place(id);
        let rows = &mut self.pending.rows;
        if rows[place].opened.is_none() {
            rows[place].has_ended = true;
            return;
        }
        rows.swap_remove(place);
        if let Some(moved) = rows.get(place) {
            // The moved row may be of a connection whose slot has a new owner, with a row of its own.
            let slot = moved.id.slot() as usize;
            if self.places[slot] as usize == rows.len() {
                self.places[slot] = as_place(place);
            }
        }
    }

    /// Takes a report back from the metrics thread, emptied. Returns whether every open connection is to
    /// be [announced](Self::announce) again.
    #[must_use]
    pub fn give_back(&mut self, mut report: Box<Report>) -> bool {
        debug_assert!(report.rows.is_empty(), "a report comes back empty");
        let rows_lost = std::mem::take(&mut report.rows_lost);
        self.spare = Some(report);
        rows_lost
    }

    /// Hands everything over, if an empty report is there to go on with and `send` has room. `send` is to
    /// give the report back if it has none. Returns whether it was sent; otherwise nothing is lost, and
    /// the next call sends it.
    pub fn hand_over(
        &mut self,
        at: Millis,
        counters: &Counters,
        gauges: Gauges,
        send: impl FnOnce(Box<Report>) -> Result<(), Box<Report>>,
    ) -> bool {
        self.end_runs();
        let Some(mut next) = self.spare.take() else {
            self.pending.delays += 1;
            return false;
        };
        next.reactor = self.pending.reactor;
        next.delays = self.pending.delays;
        next.opened = self.pending.opened;
        self.pending.at = at;
        self.pending.counters.clone_from(counters);
        self.pending.gauges = gauges;
        let full = std::mem::replace(&mut self.pending, next);
        let Err(unsent) = send(full) else {
            return true;
        };
        self.spare = Some(std::mem::replace(&mut self.pending, unsent));
        self.pending.delays += 1;
        false
    }

    fn row(&mut self, id: ConnectionId) -> &mut RowChange {
        let place = self.place(id);
        &mut self.pending.rows[place]
    }

    /// Where the connection's row is; made if it has none.
    fn place(&mut self, id: ConnectionId) -> usize {
        let slot = id.slot() as usize;
        if slot >= self.places.len() {
            self.places.resize(slot + 1, 0);
        }
        let rows = &mut self.pending.rows;
        let place = self.places[slot] as usize;
        if rows.get(place).is_some_and(|row| row.id == id) {
            return place;
        }
        let place = rows.len();
        self.places[slot] = as_place(place);
        rows.push(RowChange {
            id,
            opened: None,
            traffic: Traffic::default(),
            last_activity: 0,
            outbox_bytes: 0,
            has_ended: false,
        });
        place
    }
}

/// A report has at most two rows per slot, and slots are counted in 24 bits.
fn as_place(place: usize) -> u32 {
    debug_assert!(u32::try_from(place).is_ok());
    u32::try_from(place).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(slot: u32, generation: u32) -> ConnectionId {
        ConnectionId::new(2, slot, generation)
    }

    fn opened(user: &str) -> Opened {
        Opened {
            user: Some(user.into()),
            route: 1,
            address: [192, 0, 2, 1].into(),
            since: 10,
            transport: Transport::Tls13,
        }
    }

    fn ended(seconds: u64) -> Ended {
        Ended {
            at: 1_000 * seconds,
            duration: Duration::from_secs(seconds),
            reason: "peer_closed",
        }
    }

    const ONE: Traffic = Traffic {
        messages_received: 1,
        bytes_received: 2,
        messages_sent: 3,
        bytes_sent: 4,
    };

    /// Hands over to a receiver with room; the report that went.
    fn sent(ledger: &mut Ledger) -> Option<Box<Report>> {
        let mut received = None;
        ledger.hand_over(99, &Counters::default(), Gauges::default(), |report| {
            received = Some(report);
            Ok(())
        });
        received
    }

    #[test]
    fn changes_of_one_connection_merge_into_one_row() {
        let mut ledger = Ledger::new(2);
        ledger.opened(id(5, 0), opened("ann"));
        ledger.changed(id(5, 0), ONE, 20, 7);
        ledger.changed(id(5, 0), ONE, 30, 0);
        let report = sent(&mut ledger).unwrap();
        assert_eq!((report.reactor, report.at, report.rows.len()), (2, 99, 1));
        let row = &report.rows[0];
        assert_eq!(row.opened, Some(opened("ann")));
        assert_eq!(
            (row.traffic.bytes_sent, row.last_activity, row.outbox_bytes),
            (8, 30, 0)
        );
        assert_eq!(report.opened[Transport::Tls13 as usize], 1);
    }

    #[test]
    fn a_connection_between_two_reports_has_no_row_and_counts_all_the_same() {
        let mut ledger = Ledger::new(0);
        ledger.opened(id(1, 0), opened("ann"));
        ledger.opened(id(2, 0), opened("bob"));
        ledger.opened(id(3, 0), opened("cid"));
        ledger.ended(id(1, 0), ended(4));
        ledger.changed(id(3, 0), ONE, 50, 1);
        let report = sent(&mut ledger).unwrap();
        let mut rows: Vec<_> = report.rows.iter().map(|row| row.id).collect();
        rows.sort();
        assert_eq!(rows, [id(2, 0), id(3, 0)]);
        assert_eq!(
            report
                .rows
                .iter()
                .map(|row| row.traffic.messages_sent)
                .sum::<u64>(),
            3
        );
        assert_eq!(report.opened.iter().sum::<u64>(), 3);
        let durations = report.histograms.of(Measure::ConnectionDuration);
        assert_eq!((durations.count(), durations.sum()), (1, 4_000));
        assert_eq!(report.last_ended.iter().collect::<Vec<_>>(), [&ended(4)]);
    }

    #[test]
    fn runs_of_messages_are_counted_as_their_messages() {
        let mut ledger = Ledger::new(0);
        for bytes in [0, 0, 5, 5, 5, 0, 7] {
            ledger.messages_received(bytes, 1);
        }
        ledger.messages_sent(9, 1);
        let report = sent(&mut ledger).unwrap();
        let of = |measure| {
            let sizes: Vec<_> = report.histograms.of(measure).recorded().collect();
            (sizes, report.histograms.of(measure).sum())
        };
        assert_eq!(
            of(Measure::MessageReceived),
            (vec![(0, 3), (5, 3), (7, 1)], 22)
        );
        assert_eq!(of(Measure::MessageSent), (vec![(9, 1)], 9));
        let mut report = report;
        report.clear();
        assert!(!ledger.give_back(report));
        let next = sent(&mut ledger).unwrap();
        assert_eq!(next.histograms.of(Measure::MessageReceived).count(), 0);
    }

    #[test]
    fn x5_without_room_the_report_waits_and_merges() {
        let mut ledger = Ledger::new(0);
        let mut counters = Counters::default();
        for round in 1..=3 {
            counters.opened = round;
            ledger.record(Measure::TurnTime, 10);
            ledger.changed(id(1, 0), ONE, round, 0);
            assert!(!ledger.hand_over(round, &counters, Gauges::default(), Err));
        }
        let report = sent(&mut ledger).unwrap();
        assert_eq!(report.delays, 3);
        assert_eq!(report.histograms.of(Measure::TurnTime).count(), 3);
        assert_eq!(report.rows[0].traffic.messages_sent, 9);
    }

    #[test]
    fn x6_without_a_spare_report_nothing_is_sent_and_nothing_is_lost() {
        let mut ledger = Ledger::new(0);
        ledger.opened(id(1, 0), opened("ann"));
        let mut first = sent(&mut ledger).unwrap();
        let first_opened = first.opened;
        ledger.record(Measure::TurnTime, 10);
        assert!(sent(&mut ledger).is_none());
        first.clear();
        assert!(!ledger.give_back(first));
        let second = sent(&mut ledger).unwrap();
        assert_eq!(
            (
                second.delays,
                second.histograms.of(Measure::TurnTime).count()
            ),
            (1, 1)
        );
        assert_eq!(second.opened, first_opened, "a total, as counters are");
    }

    #[test]
    fn x6_a_report_that_nobody_takes_is_bounded_by_the_slots() {
        let mut ledger = Ledger::new(0);
        for slot in 0..4 {
            ledger.changed(id(slot, 0), ONE, 1, 0);
        }
        for generation in 0..100 {
            for slot in 0..4 {
                ledger.ended(id(slot, generation), ended(1));
                ledger.opened(id(slot, generation + 1), opened("ann"));
                ledger.changed(id(slot, generation + 1), ONE, 2, 0);
            }
        }
        let report = sent(&mut ledger).unwrap();
        assert_eq!(report.rows.len(), 8);
        assert_eq!(
            report.histograms.of(Measure::ConnectionDuration).count(),
            400
        );
        assert_eq!(report.last_ended.iter().count(), ENDED_KEPT);
    }

    #[test]
    fn the_latest_ended_of_two_are_kept() {
        let (mut one, mut two) = (LastEnded::default(), LastEnded::default());
        for second in 0..80 {
            one.push(ended(2 * second));
            two.push(ended(2 * second + 1));
        }
        one.merge(&two);
        let kept: Vec<u64> = one.iter().map(|ended| ended.duration.as_secs()).collect();
        assert_eq!(kept, (60..160).collect::<Vec<_>>());
        assert_eq!(one.mean_duration(), Some(Duration::from_millis(109_500)));
        assert_eq!(LastEnded::default().mean_duration(), None);
    }

    #[test]
    fn a_report_grown_in_a_storm_gives_its_memory_back_when_it_is_over() {
        let mut report = Report::default();
        report.rows.reserve(100_000);
        report.clear();
        assert!(
            report.rows.capacity() < 100_000 / 8,
            "{}",
            report.rows.capacity()
        );
    }
}
