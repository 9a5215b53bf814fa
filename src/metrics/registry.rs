//! One row for each open connection, and the questions an operator asks of them.
//!
//! The metrics thread owns it, so no question disturbs a reactor. A row is found by its connection's id
//! without a look-up table: reactor, page, place. Pages are small and freed with their last row. What a
//! query costs is one walk over the rows (or, in the order of ids, over those of one page of answers) and
//! memory for the answers asked for, never for those there are.

use std::collections::BinaryHeap;
use std::fmt;
use std::net::IpAddr;
use std::num::ParseIntError;
use std::str::FromStr;

use ipnet::IpNet;

use super::interner::{Interner, UserKey};
use super::report::{Millis, Opened, RowChange, Traffic, Transport};
use crate::conn::ConnectionId;

/// One open connection, as of its reactor's last report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The connection.
    pub id: ConnectionId,
    /// Index of the route.
    pub route: u16,
    /// What it came over.
    pub transport: Transport,
    /// The client's address.
    pub address: IpAddr,
    /// When the upgrade was complete.
    pub since: Millis,
    /// When it was last heard of or sent to.
    pub last_activity: Millis,
    /// What it sent and received.
    pub traffic: Traffic,
    /// Bytes waiting in its outbox.
    pub outbox_bytes: u64,
    user: Option<UserKey>,
}

/// A row with its user's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View<'a> {
    /// The row.
    pub row: &'a Row,
    /// The user, if the route asks for a token.
    pub user: Option<&'a str>,
}

/// Which connections are meant: those for which everything that is set holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Exactly this user's.
    pub user: Option<String>,
    /// From this network.
    pub network: Option<IpNet>,
    /// On the route with this index.
    pub route: Option<u16>,
    /// On this reactor.
    pub reactor: Option<u8>,
    /// Opened before this moment: for a minimum age, `now + 1 - age`, or 0, which nobody was before.
    pub opened_before: Option<Millis>,
    /// Not active at this moment or later: for a minimum idle time, `now + 1 - idle`, or 0.
    pub idle_since: Option<Millis>,
    /// With at least so many bytes waiting in the outbox.
    pub outbox_bytes_min: Option<u64>,
}

/// What answers are ordered by. Equal ones are in the order of their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SortKey {
    /// The id, ascending: the cheapest order, and the most stable.
    #[default]
    Id,
    /// The oldest first.
    Oldest,
    /// The newest first.
    Newest,
    /// The longest idle first.
    Idle,
    /// Most bytes in the outbox first.
    OutboxBytes,
    /// Most bytes received first.
    BytesReceived,
    /// Most bytes sent first.
    BytesSent,
    /// Most messages received first.
    MessagesReceived,
    /// Most messages sent first.
    MessagesSent,
}

impl SortKey {
    /// Where a row stands: smaller ranks come first.
    const fn rank(self, row: &Row) -> u64 {
        match self {
            Self::Id => 0,
            Self::Oldest => row.since,
            Self::Newest => !row.since,
            Self::Idle => row.last_activity,
            Self::OutboxBytes => !row.outbox_bytes,
            Self::BytesReceived => !row.traffic.bytes_received,
            Self::BytesSent => !row.traffic.bytes_sent,
            Self::MessagesReceived => !row.traffic.messages_received,
            Self::MessagesSent => !row.traffic.messages_sent,
        }
    }
}

/// A question to the registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// Which connections.
    pub filter: Filter,
    /// In which order.
    pub sort: SortKey,
    /// How many at most, 1..=[`ANSWERS_MAX`]; what lies outside is brought inside.
    pub limit: usize,
    /// Where the page before ended.
    pub after: Option<Cursor>,
}

/// Most rows in one answer.
pub const ANSWERS_MAX: usize = 1_000;

/// Where a page ended: the rank and the id of its last row, which need not be there any more. The next
/// page begins behind it, so in an order that does not change (`Id`, `Oldest`, `Newest`) walking all
/// pages shows every connection that was there all the time exactly once, whoever comes or goes
/// meanwhile; in the others, every one whose rank has not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    rank: u64,
    id: ConnectionId,
}

impl Cursor {
    /// Behind a connection, in the order of ids.
    #[must_use]
    pub const fn behind(id: ConnectionId) -> Self {
        Self { rank: 0, id }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.rank, self.id)
    }
}

impl FromStr for Cursor {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (rank, id) = text.split_once('-').unwrap_or((text, ""));
        Ok(Self {
            rank: u64::from_str_radix(rank, 16)?,
            id: id.parse()?,
        })
    }
}

/// A page of answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers<'a> {
    /// The rows, in order.
    pub rows: Vec<View<'a>>,
    /// Where the next page begins; none if this is the last.
    pub next: Option<Cursor>,
}

/// The rows of all open connections.
#[derive(Debug, Default)]
pub struct Registry {
    reactors: Vec<Rows>,
    users: Interner,
}

impl Registry {
    /// Takes a report's changes in, and empties the list. A change to a connection that was never
    /// announced is passed over.
    pub fn apply(&mut self, changes: &mut Vec<RowChange>) {
        for change in changes.drain(..) {
            let reactor = change.id.reactor();
            if reactor >= self.reactors.len() {
                self.reactors.resize_with(reactor + 1, Rows::default);
            }
            let rows = &mut self.reactors[reactor];
            if let Some(opened) = change.opened {
                let row = Row::new(change.id, opened, &mut self.users);
                // Whoever had the slot before has ended: that change stands somewhere in this report.
                if let Some(gone) = rows.insert(row) {
                    gone.release(&mut self.users);
                }
            }
            if change.has_ended {
                if let Some(gone) = rows.remove(change.id) {
                    gone.release(&mut self.users);
                }
            } else if let Some(row) = rows.get_mut(change.id) {
                row.traffic += change.traffic;
                row.last_activity = change.last_activity;
                row.outbox_bytes = change.outbox_bytes;
            }
        }
    }

    /// How many connections are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.reactors.iter().map(|rows| rows.len).sum()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many are open on one reactor.
    #[must_use]
    pub fn len_of(&self, reactor: u8) -> usize {
        self.reactors
            .get(usize::from(reactor))
            .map_or(0, |rows| rows.len)
    }

    /// How many users have a connection open.
    #[must_use]
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// How many connections a user has open. O(1).
    #[must_use]
    pub fn len_of_user(&self, user: &str) -> u32 {
        self.users
            .find(user)
            .map_or(0, |key| self.users.holders(key))
    }

    /// Bytes of the pages that hold the rows; names come on top.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        let pages = self.reactors.iter().flat_map(|rows| rows.pages.iter());
        pages
            .map(|page| size_of_val(page) + page.as_ref().map_or(0, |p| size_of_val(&**p)))
            .sum()
    }

    /// Bytes of the names of users, and of what finds them.
    #[must_use]
    pub fn names_bytes_held(&self) -> usize {
        self.users.bytes_held()
    }

    /// One connection in full. O(1).
    #[must_use]
    pub fn get(&self, id: ConnectionId) -> Option<View<'_>> {
        let row = self.reactors.get(id.reactor())?.get(id)?;
        Some(self.view(row))
    }

    /// How many connections are meant. Walks all rows.
    #[must_use]
    pub fn count(&self, filter: &Filter) -> usize {
        let Some(wanted) = self.resolve(filter) else {
            return 0;
        };
        self.rows(filter.reactor, None)
            .filter(|row| wanted.includes(row))
            .count()
    }

    /// Answers a question: O(rows), and in the order of ids O(rows up to the last answer). Memory for
    /// the answers only.
    #[must_use]
    pub fn query(&self, query: &Query) -> Answers<'_> {
        let limit = query.limit.clamp(1, ANSWERS_MAX);
        let Some(wanted) = self.resolve(&query.filter) else {
            return Answers {
                rows: Vec::new(),
                next: None,
            };
        };
        let by_id = query.sort == SortKey::Id;
        let start = query.after.filter(|_| by_id).map(|cursor| cursor.id);
        let candidates = self
            .rows(query.filter.reactor, start)
            .filter(|row| wanted.includes(row))
            .map(|row| Ranked {
                at: Cursor {
                    rank: query.sort.rank(row),
                    id: row.id,
                },
                row,
            })
            .filter(|ranked| query.after.is_none_or(|after| ranked.at > after));
        // One more than asked for tells whether there is a next page.
        let mut first: Vec<Ranked<'_>> = if by_id {
            candidates.take(limit + 1).collect()
        } else {
            smallest(candidates, limit + 1)
        };
        let has_more = first.len() > limit;
        first.truncate(limit);
        Answers {
            next: first.last().map(|last| last.at).filter(|_| has_more),
            rows: first.iter().map(|ranked| self.view(ranked.row)).collect(),
        }
    }

    /// The filter with its user looked up; none if that user has no connection.
    fn resolve<'f>(&self, filter: &'f Filter) -> Option<Wanted<'f>> {
        let user = match &filter.user {
            Some(name) => Some(self.users.find(name)?),
            None => None,
        };
        Some(Wanted { user, filter })
    }

    /// Rows in the order of ids, of one reactor or of all; those of `start` and behind it, roughly.
    fn rows(&self, reactor: Option<u8>, start: Option<ConnectionId>) -> impl Iterator<Item = &Row> {
        let first = start.map_or(0, ConnectionId::reactor);
        self.reactors
            .iter()
            .enumerate()
            .skip(first)
            .filter(move |(number, _)| reactor.is_none_or(|wanted| usize::from(wanted) == *number))
            .flat_map(move |(number, rows)| {
                let page = start
                    .filter(|_| number == first)
                    .map_or(0, |id| place(id).0);
                rows.starting_at(page)
            })
    }

    fn view<'a>(&'a self, row: &'a Row) -> View<'a> {
        View {
            row,
            user: row.user.map(|key| self.users.name(key)),
        }
    }
}

impl Row {
    fn new(id: ConnectionId, opened: Opened, users: &mut Interner) -> Self {
        Self {
            id,
            route: opened.route,
            transport: opened.transport,
            address: opened.address,
            since: opened.since,
            last_activity: opened.since,
            traffic: Traffic::default(),
            outbox_bytes: 0,
            user: opened.user.map(|name| users.hold(&name)),
        }
    }

    fn release(self, users: &mut Interner) {
        if let Some(key) = self.user {
            users.release(key);
        }
    }
}

struct Wanted<'a> {
    user: Option<UserKey>,
    filter: &'a Filter,
}

impl Wanted<'_> {
    fn includes(&self, row: &Row) -> bool {
        let filter = self.filter;
        (self.user.is_none() || self.user == row.user)
            && filter.route.is_none_or(|route| route == row.route)
            && filter.opened_before.is_none_or(|moment| row.since < moment)
            && filter
                .idle_since
                .is_none_or(|moment| row.last_activity < moment)
            && filter
                .outbox_bytes_min
                .is_none_or(|least| row.outbox_bytes >= least)
            && filter
                .network
                .is_none_or(|network| network.contains(&row.address))
    }
}

/// A row and where it stands.
struct Ranked<'a> {
    at: Cursor,
    row: &'a Row,
}

/// The smallest `limit` of many, sorted, in memory for so many.
fn smallest<'a>(candidates: impl Iterator<Item = Ranked<'a>>, limit: usize) -> Vec<Ranked<'a>> {
    let mut kept: BinaryHeap<Ranked<'_>> = BinaryHeap::with_capacity(limit);
    for candidate in candidates {
        if kept.len() < limit {
            kept.push(candidate);
        } else if let Some(mut largest) = kept.peek_mut()
            && candidate.at < largest.at
        {
            *largest = candidate;
        }
    }
    kept.into_sorted_vec()
}

impl PartialEq for Ranked<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Ranked<'_> {}

impl PartialOrd for Ranked<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

/// Rows of one reactor, by slot.
#[derive(Debug, Default)]
struct Rows {
    pages: Vec<Option<Box<Page>>>,
    len: usize,
}

/// Rows in a page: few, so that what stays of a burst does not hold the memory of the burst.
const PAGE_ROWS: u32 = 64;

#[derive(Debug)]
struct Page {
    used: u32,
    rows: [Option<Row>; PAGE_ROWS as usize],
}

/// The page of a connection's row, and the place in the page.
const fn place(id: ConnectionId) -> (usize, usize) {
    (
        (id.slot() / PAGE_ROWS) as usize,
        (id.slot() % PAGE_ROWS) as usize,
    )
}

impl Rows {
    fn get(&self, id: ConnectionId) -> Option<&Row> {
        let (page, place) = place(id);
        let row = self.pages.get(page)?.as_ref()?.rows[place].as_ref()?;
        (row.id == id).then_some(row)
    }

    fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Row> {
        let (page, place) = place(id);
        let row = self.pages.get_mut(page)?.as_mut()?.rows[place].as_mut()?;
        (row.id == id).then_some(row)
    }

    /// Puts a row into its slot; returns the one that was there.
    fn insert(&mut self, row: Row) -> Option<Row> {
        let (page, place) = place(row.id);
        if page >= self.pages.len() {
            self.pages.resize_with(page + 1, || None);
        }
        let page = self.pages[page].get_or_insert_with(|| {
            Box::new(Page {
                used: 0,
                rows: [const { None }; PAGE_ROWS as usize],
            })
        });
        let before = page.rows[place].replace(row);
        if before.is_none() {
            page.used += 1;
            self.len += 1;
        }
        before
    }

    fn remove(&mut self, id: ConnectionId) -> Option<Row> {
        let (number, place) = place(id);
        let page = self.pages.get_mut(number)?;
        let held = page.as_mut()?;
        let row = held.rows[place].take_if(|row| row.id == id)?;
        held.used -= 1;
        if held.used == 0 {
            *page = None;
        }
        self.len -= 1;
        Some(row)
    }

    fn starting_at(&self, first: usize) -> impl Iterator<Item = &Row> {
        self.pages
            .iter()
            .skip(first)
            .flatten()
            .flat_map(|page| page.rows.iter().flatten())
    }
}

#[cfg(test)]
mod tests;
