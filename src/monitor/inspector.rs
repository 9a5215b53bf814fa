//! Questions about single connections, and what may be done to them: the inspector.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::answer::{Problem, seconds};
use crate::conn::ConnectionId;
use crate::metrics::Registry;
use crate::metrics::calendar::timestamp;
use crate::metrics::registry::{ANSWERS_MAX, Cursor, Filter, Query, SortKey, View};
use crate::metrics::report::Millis;
use crate::server::Handle;
use crate::ws::CloseCode;

/// What the words of a question mean at this moment.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    /// Now, on the server's clock.
    pub(super) now: Millis,
    /// The same on the wall, in seconds since 1970.
    pub(super) wall: u64,
    /// The templates of the routes, by their indices.
    pub(super) routes: &'a [String],
}

/// Connections in a page unless the question says otherwise.
const PAGE: usize = 100;

const SORT_KEYS: [(&str, SortKey); 9] = [
    ("id", SortKey::Id),
    ("oldest", SortKey::Oldest),
    ("newest", SortKey::Newest),
    ("idle", SortKey::Idle),
    ("outbox_bytes", SortKey::OutboxBytes),
    ("bytes_received", SortKey::BytesReceived),
    ("bytes_sent", SortKey::BytesSent),
    ("messages_received", SortKey::MessagesReceived),
    ("messages_sent", SortKey::MessagesSent),
];

impl Asked<'_> {
    /// The question that the parameters of a request make.
    ///
    /// # Errors
    /// The first one that makes no sense.
    pub(super) fn query<'p>(
        &self,
        parameters: impl Iterator<Item = (impl AsRef<str> + 'p, impl AsRef<str> + 'p)>,
    ) -> Result<Query, Problem> {
        let mut query = Query {
            limit: PAGE,
            ..Query::default()
        };
        for (name, value) in parameters {
            let (name, value) = (name.as_ref(), value.as_ref());
            match name {
                "sort" => query.sort = sort_key(value)?,
                "limit" => {
                    let limit = value
                        .parse()
                        .ok()
                        .filter(|limit| (1..=ANSWERS_MAX).contains(limit));
                    let wanted = format!("limit: 1 to {ANSWERS_MAX}");
                    query.limit = limit.ok_or_else(|| Problem::bad(wanted))?;
                }
                "after" => {
                    let cursor = Cursor::from_str(value);
                    let wrong = |_| Problem::bad("after: what a page gave as next");
                    query.after = Some(cursor.map_err(wrong)?);
                }
                _ => self.narrow(&mut query.filter, name, value)?,
            }
        }
        Ok(query)
    }

    /// Sets one part of a filter.
    fn narrow(&self, filter: &mut Filter, name: &str, value: &str) -> Result<(), Problem> {
        let number = |wanted: &str| -> Result<u64, Problem> {
            let wrong = |_| Problem::bad(format!("{name}: {wanted}"));
            value.parse().map_err(wrong)
        };
        // The first moment that is less than so long ago: 0 for what is longer ago than there are moments.
        let within = || -> Result<Millis, Problem> {
            let seconds = number("a whole number of seconds")?;
            Ok((self.now + 1).saturating_sub(seconds.saturating_mul(1_000)))
        };
        match name {
            "user" => filter.user = Some(value.to_owned()),
            "address" => {
                let network = IpNet::from_str(value)
                    .or_else(|_| IpAddr::from_str(value).map(IpNet::from))
                    .map_err(|_| {
                        Problem::bad("address: an address, or a prefix as 192.0.2.0/24")
                    })?;
                filter.network = Some(network);
            }
            "route" => filter.route = Some(self.route(value)?),
            "reactor" => {
                let number = number("the number of a reactor")?;
                let wrong = |_| Problem::bad("reactor: the number of a reactor");
                filter.reactor = Some(u8::try_from(number).map_err(wrong)?);
            }
            "age_min" => filter.opened_before = Some(within()?),
            "idle_min" => filter.idle_since = Some(within()?),
            "outbox_min" => filter.outbox_bytes_min = Some(number("a number of bytes")?),
            _ => {
                let known = "user, address, route, reactor, age_min, idle_min, outbox_min";
                return Err(Problem::bad(format!(
                    "there is no such parameter; there are {known}, and for pages sort, limit, after"
                )));
            }
        }
        Ok(())
    }

    /// A route by its template, or by its index.
    fn route(&self, value: &str) -> Result<u16, Problem> {
        let by_name = self.routes.iter().position(|route| route == value);
        let index = by_name.or_else(|| value.parse().ok());
        index
            .filter(|index| *index < self.routes.len())
            .and_then(|index| u16::try_from(index).ok())
            .ok_or_else(|| {
                Problem::bad("route: the path of a route as it is configured, or its index")
            })
    }

    /// A row as it is shown.
    pub(super) fn connection<'v>(&self, view: View<'v>) -> Connection<'v>
    where
        Self: 'v,
    {
        let View { row, user } = view;
        let age = self.now.saturating_sub(row.since);
        let route = self.routes.get(usize::from(row.route));
        Connection {
            id: row.id.to_string(),
            user,
            address: row.address,
            route: route.cloned(),
            reactor: row.id.reactor(),
            transport: row.transport.tls(),
            resumed: row.transport.is_resumed(),
            opened_at: timestamp(self.wall.saturating_sub(age / 1_000)),
            age_seconds: seconds(age),
            idle_seconds: seconds(self.now.saturating_sub(row.last_activity)),
            messages_received: row.traffic.messages_received,
            bytes_received: row.traffic.bytes_received,
            messages_sent: row.traffic.messages_sent,
            bytes_sent: row.traffic.bytes_sent,
            outbox_bytes: row.outbox_bytes,
        }
    }

    /// A page of answers.
    pub(super) fn page<'r>(&self, query: &Query, registry: &'r Registry) -> Page<'r>
    where
        Self: 'r,
    {
        let total = if query.filter == Filter::default() {
            registry.len()
        } else {
            registry.count(&query.filter)
        };
        let answers = registry.query(query);
        Page {
            connections: answers
                .rows
                .iter()
                .map(|view| self.connection(*view))
                .collect(),
            next: answers.next.map(|next| next.to_string()),
            total,
            timestamp: timestamp(self.wall),
        }
    }
}

fn sort_key(value: &str) -> Result<SortKey, Problem> {
    let found = SORT_KEYS.iter().find(|(name, _)| *name == value);
    found.map(|(_, key)| *key).ok_or_else(|| {
        let names: Vec<_> = SORT_KEYS.iter().map(|(name, _)| *name).collect();
        Problem::bad(format!("sort: {}", names.join(", ")))
    })
}

/// One connection.
#[derive(Debug, Serialize)]
pub(super) struct Connection<'a> {
    id: String,
    user: Option<&'a str>,
    address: IpAddr,
    route: Option<String>,
    reactor: usize,
    transport: &'static str,
    resumed: bool,
    opened_at: String,
    age_seconds: f64,
    idle_seconds: f64,
    messages_received: u64,
    bytes_received: u64,
    messages_sent: u64,
    bytes_sent: u64,
    outbox_bytes: u64,
}

/// A page of connections.
#[derive(Debug, Serialize)]
pub(super) struct Page<'a> {
    connections: Vec<Connection<'a>>,
    next: Option<String>,
    total: usize,
    timestamp: String,
}

/// The body of `POST …/disconnect/`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Disconnect {
    id: Option<String>,
    filter: Option<Map<String, Value>>,
    /// To be said where the filter is empty: it is everybody.
    #[serde(default)]
    all: bool,
    rate: Option<u32>,
    code: Option<u16>,
    #[serde(default)]
    reason: String,
}

/// Whom to disconnect, and how.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// One connection, now.
    One(ConnectionId, Farewell),
    /// All that are meant, so many in a second.
    Many(Sweep),
}

/// What the disconnected are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Farewell {
    pub(super) code: CloseCode,
    pub(super) reason: String,
}

/// The close code unless an order says another: of this program's own, "an administrator's doing".
const KICKED: u16 = 4000;

/// Connections in a second unless an order says otherwise.
const RATE: u32 = 100;

/// Most connections in a second.
const RATE_MAX: u32 = 100_000;

/// Longest reason: a close frame has room for 123 bytes (RFC 6455 §5.5).
const REASON_BYTES_MAX: usize = 123;

impl Order {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(body: &[u8], asked: &Asked<'_>) -> Result<Self, Problem> {
        let order: Disconnect = read_json(body)?;
        let code = order.code.unwrap_or(KICKED);
        if !(code == 1000
            || code == 1001
            || code == 1008
            || (1011..=1013).contains(&code)
            || (3000..=4999).contains(&code))
        {
            return Err(Problem::bad(
                "code: 1000, 1001, 1008, 1011 to 1013, or 3000 to 4999",
            ));
        }
        if order.reason.len() > REASON_BYTES_MAX {
            return Err(Problem::bad(format!(
                "reason: at most {REASON_BYTES_MAX} bytes"
            )));
        }
        let farewell = Farewell {
            code: CloseCode::from(code),
            reason: order.reason,
        };
        let rate = order.rate.unwrap_or(RATE);
        if !(1..=RATE_MAX).contains(&rate) {
            return Err(Problem::bad(format!(
                "rate: 1 to {RATE_MAX} connections a second"
            )));
        }
        match (order.id, order.filter) {
            (Some(id), None) => {
                let id = ConnectionId::from_str(&id);
                let id = id.map_err(|_| Problem::bad("id: as the inspector shows it"))?;
                Ok(Self::One(id, farewell))
            }
            (None, Some(words)) => {
                let mut filter = asked.filter(&words)?;
                if words.is_empty() && !order.all {
                    return Err(Problem::bad(
                        "an empty filter is everybody: say \"all\": true, too",
                    ));
                }
                // Who comes back meanwhile is not meant, be it within the same millisecond.
                let before = filter.opened_before.unwrap_or(asked.now);
                filter.opened_before = Some(before.min(asked.now));
                Ok(Self::Many(Sweep {
                    filter,
                    after: None,
                    rate,
                    farewell,
                }))
            }
            _ => Err(Problem::bad("say either id or filter")),
        }
    }
}

impl Asked<'_> {
    /// A filter from the members of a JSON object, which have the names of the parameters.
    fn filter(&self, words: &Map<String, Value>) -> Result<Filter, Problem> {
        let mut filter = Filter::default();
        for (name, value) in words {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => return Err(Problem::bad("filter: texts and numbers only")),
            };
            self.narrow(&mut filter, name, &text)?;
        }
        Ok(filter)
    }
}

/// A body that is to be JSON.
///
/// # Errors
/// It is none, or says what nobody asked for.
pub(super) fn read_json<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        // The position is the client's own; what stands there may be a secret.
        let (line, column) = (error.line(), error.column());
        Problem::bad(format!(
            "the body is not what is expected: line {line}, column {column}"
        ))
    })
}

/// A disconnection under way.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sweep {
    pub(super) filter: Filter,
    after: Option<Cursor>,
    rate: u32,
    farewell: Farewell,
}

/// The disconnections under way.
#[derive(Debug, Default)]
pub(super) struct Sweeps {
    under_way: VecDeque<Sweep>,
}

/// Most disconnections under way.
const SWEEPS_MAX: usize = 16;

impl Sweeps {
    /// Takes one on.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn begin(&mut self, sweep: Sweep) -> Result<(), Problem> {
        if self.under_way.len() >= SWEEPS_MAX {
            let text = format!("{SWEEPS_MAX} disconnections are under way");
            return Err(Problem::new(429, text));
        }
        self.under_way.push_back(sweep);
        Ok(())
    }

    /// Has the one that began last take its first steps.
    pub(super) fn tick_last(&mut self, registry: &Registry, handle: &Handle) {
        if let Some(mut sweep) = self.under_way.pop_back()
            && sweep.go_on(registry, handle)
        {
            self.under_way.push_back(sweep);
        }
    }

    /// A second has passed: each goes on by its rate.
    pub(super) fn tick(&mut self, registry: &Registry, handle: &Handle) {
        self.under_way
            .retain_mut(|sweep| sweep.go_on(registry, handle));
    }
}

impl Sweep {
    /// Disconnects as many as a second allows; whether there are more.
    fn go_on(&mut self, registry: &Registry, handle: &Handle) -> bool {
        let mut left = self.rate as usize;
        while left > 0 {
            let query = Query {
                filter: self.filter.clone(),
                sort: SortKey::Id,
                limit: left.min(ANSWERS_MAX),
                after: self.after,
            };
            let answers = registry.query(&query);
            for view in &answers.rows {
                let Farewell { code, reason } = &self.farewell;
                if handle.close(view.row.id, *code, reason).is_err() {
                    // The mailbox is full: from here on a second later.
                    return true;
                }
                self.after = Some(Cursor::behind(view.row.id));
            }
            left -= answers.rows.len();
            if answers.next.is_none() {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_the_first_moment_mean_nobody_and_the_present_one_everybody() {
        let asked = Asked {
            now: 5_000,
            wall: 0,
            routes: &[],
        };
        for (seconds, before) in [
            ("0", 5_001),
            ("5", 1),
            ("6", 0),
            ("18446744073709551615", 0),
        ] {
            let query = asked.query([("age_min", seconds), ("idle_min", seconds)].into_iter());
            let filter = query.unwrap().filter;
            let both = (filter.opened_before, filter.idle_since);
            assert_eq!(both, (Some(before), Some(before)), "{seconds} s");
        }
    }

    #[test]
    fn an_order_means_nobody_who_came_in_its_own_millisecond() {
        let asked = Asked {
            now: 5_000,
            wall: 0,
            routes: &[],
        };
        for (filter, before) in [("", 5_000), ("\"age_min\":1", 4_001)] {
            let order = format!("{{\"filter\":{{{filter}}},\"all\":true}}");
            let Order::Many(sweep) = Order::read(order.as_bytes(), &asked).unwrap() else {
                panic!("{filter}: an order for one");
            };
            assert_eq!(sweep.filter.opened_before, Some(before), "{filter}");
        }
    }
}
