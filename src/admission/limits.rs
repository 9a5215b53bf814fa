//! How much anybody may have: connections in all, per address and per user, attempts per address, and
//! what an open connection may send.
//!
//! The state ([`Limits`], [`Users`]) is shared by all reactors and counts exactly, so a client whose
//! connections SO_REUSEPORT spreads over the threads has no more than its share. The rules ([`Policy`],
//! [`Traffic`]) are values: each reactor holds a snapshot, and a reload swaps it while counts go on.
//!
//! * **A place is owned.** Who is let in gets a [`Place`], and dropping it gives everything back: there
//!   is no way for a connection to end that could forget to.
//! * **Memory is fixed.** Addresses live in a table that is allocated at the start. An address that
//!   holds a connection, or has spent permits it has not recovered, is never pushed out of it. When
//!   there is no room for another one, the newcomers share one overflow account. So whoever comes from
//!   very many addresses exhausts the table at worst, gains one account, and takes nothing from those
//!   already known.
//! * **IPv6 is counted twice**, by /64 and by /48, the wider first: somebody with a whole /48 neither
//!   gets 65 536 times the limit nor fills the table.
//! * **Refusals cost nothing**: a refused attempt spends no permit, and nobody is banned. Whoever shares
//!   an address with an attacker is back as soon as the rate allows.
//! * **A limit may be in dry run**: it counts in the [`Tally`] what it would have refused, and admits.
//!
//! No limit is ever exceeded. While an attempt is being refused by a later limit it holds its place
//! under the earlier ones, for less than a microsecond; another one that finds just that last place
//! taken is refused too.

use std::collections::HashMap;

use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ahash::RandomState;
use smallvec::SmallVec;

use super::address::{Key, Widths};
use super::rate::{Bucket, Meter, Moment, Pace, Quota, SharedBucket, Wait};
use super::table::{CellNumber, Places, Table};

/// The rules for who may connect. All reactors of a server are to use the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Connections in all, of whatever phase. Default 100 000.
    pub connections: Cap,
    /// Connections of backends in all, on listeners for requests, which count under no other limit.
    /// Default 256: eight hosts with as many workers as a large one has.
    pub api_connections: Cap,
    /// Connections per address. Default 1 000; see [`Policy::default`]. The original had 5.
    pub address_connections: Option<Cap>,
    /// Attempts to connect, per address. Default 20 per second with a burst of 1 000. The original had
    /// 10 per hour.
    pub address_attempts: Option<Rate>,
    /// The networks that count as one address. Default IPv4 /32, IPv6 /64.
    pub widths: Widths,
    /// The wider network that IPv6 is counted by as well. Default /48, with 8 times the limits of an
    /// address.
    pub site: Option<Site>,
    /// What all addresses for which the table has no room may have together, in multiples of one
    /// address's limits. Default 8.
    pub overflow_factor: u32,
}

/// Most that may be held at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cap {
    /// This many are granted, and not one more.
    pub max: u32,
    /// Whether it only counts what it would refuse.
    pub dry_run: bool,
}

/// How often something may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Steady rate and burst.
    pub quota: Quota,
    /// Whether it only counts what it would refuse.
    pub dry_run: bool,
}

/// A network that many addresses of one owner lie in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    /// Leading bits of an IPv6 address that name the site; below [`Widths::ipv6`]. Default 48, what RFC
    /// 6177 gives a site at most.
    pub width: u8,
    /// Its limits, in multiples of one address's. Default 8.
    pub factor: u32,
}

impl Cap {
    /// A cap that is enforced.
    #[must_use]
    pub const fn of(max: u32) -> Self {
        Self {
            max,
            dry_run: false,
        }
    }

    const fn times(self, factor: u32) -> Self {
        Self {
            max: self.max.saturating_mul(factor),
            ..self
        }
    }
}

impl Rate {
    /// A rate that is enforced.
    #[must_use]
    pub const fn of(quota: Quota) -> Self {
        Self {
            quota,
            dry_run: false,
        }
    }

    const fn times(self, factor: u32) -> Self {
        Self {
            quota: self.quota.times(factor),
            ..self
        }
    }
}

impl Default for Policy {
    /// Safe on the open internet, with clients behind NAT.
    ///
    /// * 1 000 connections per address: carriers put up to about a thousand subscribers behind one IPv4
    ///   address (RFC 7422 counts on hundreds), and an office of 500 has two tabs each. One hostile
    ///   address holds 1 % of the server at most.
    /// * A burst of as many attempts: when the server or the office's line comes back, all of them
    ///   reconnect at once, and are to be let in.
    /// * 20 per second after that: a full TLS handshake costs about 0.1 ms, so one address can buy a
    ///   five-hundredth of a core.
    ///
    /// Where clients are known to have addresses of their own, [`Policy::original`] is nearer the mark.
    fn default() -> Self {
        Self {
            connections: Cap::of(100_000),
            api_connections: Cap::of(256),
            address_connections: Some(Cap::of(1_000)),
            address_attempts: Some(Rate::of(Quota::per_second(20, 1_000))),
            widths: Widths::default(),
            site: Some(Site {
                width: 48,
                factor: 8,
            }),
            overflow_factor: 8,
        }
    }
}

impl Policy {
    /// The limits of the system that tidegate replaces, enforced: 5 connections per address at a time,
    /// 10 attempts per hour (all ten at once, if need be). Too little for two people behind one NAT.
    #[must_use]
    pub fn original() -> Self {
        Self {
            address_connections: Some(Cap::of(5)),
            address_attempts: Some(Rate::of(Quota::per_hour(10, 10))),
            ..Self::default()
        }
    }
}

/// Connections and attempts of all addresses: one for the whole server.
#[derive(Debug)]
pub struct Limits {
    connections: Places,
    api_connections: Places,
    table: Table,
    overflow_places: Places,
    overflow_bucket: SharedBucket,
    hasher: RandomState,
}

/// Addresses that [`Limits`] has room for by default: 4 MiB.
pub const ADDRESSES_MAX: usize = 65_536;

impl Limits {
    /// With room for `addresses_max` addresses at a time that are connected or have not yet recovered
    /// their permits: 64 bytes each, allocated at once. Default [`ADDRESSES_MAX`]. About twice as many
    /// fit in; when there are as many as asked for, one newcomer in ten thousand has to share the
    /// overflow account.
    ///
    /// `hasher` is to have keys of its own in each process, as [`RandomState::new`] makes them: without
    /// them nobody can choose addresses that fall into one row of the table.
    #[must_use]
    pub fn new(addresses_max: usize, hasher: RandomState) -> Self {
        Self {
            connections: Places::default(),
            api_connections: Places::default(),
            table: Table::new(addresses_max),
            overflow_places: Places::default(),
            overflow_bucket: SharedBucket::default(),
            hasher,
        }
    }

    /// An attempt to connect from `address`: [`enter`](Self::enter), then [`Place::locate`].
    ///
    /// # Errors
    /// The first limit that refuses, from the widest to the narrowest; it is counted in `tally`.
    pub fn attempt(
        self: &Arc<Self>,
        policy: &Policy,
        address: IpAddr,
        now: Moment,
        tally: &mut Tally,
    ) -> Result<Place, Refused> {
        let mut place = self.enter(policy, tally)?;
        place.locate(policy, address, now, tally)?;
        Ok(place)
    }

    /// A connection of which only the existence is known, because a proxy has yet to say whose it is:
    /// counted under the global limit alone.
    ///
    /// # Errors
    /// The server has as many connections as allowed.
    pub fn enter(self: &Arc<Self>, policy: &Policy, tally: &mut Tally) -> Result<Place, Refused> {
        let cap = policy.connections;
        if !self.connections.take(cap.max) {
            tally.judge(Limit::Connections, cap.dry_run, None)?;
            self.connections.take(u32::MAX);
        }
        Ok(Place {
            limits: Arc::clone(self),
            site: Held::Nothing,
            address: Held::Nothing,
        })
    }

    /// A connection on a listener for requests. Backends come from few addresses, and what holds them off
    /// is their key; but whoever has none is not to take the places of clients, so those are counted apart.
    ///
    /// # Errors
    /// There are as many as allowed.
    pub fn enter_api(
        self: &Arc<Self>,
        policy: &Policy,
        tally: &mut Tally,
    ) -> Result<Place, Refused> {
        let cap = policy.api_connections;
        if !self.api_connections.take(cap.max) {
            tally.judge(Limit::ApiConnections, cap.dry_run, None)?;
            self.api_connections.take(u32::MAX);
        }
        Ok(Place {
            limits: Arc::clone(self),
            site: Held::Api,
            address: Held::Nothing,
        })
    }

    fn enter_layer(
        &self,
        key: &Key,
        layer: &Layer,
        overflow: &Layer,
        now: Moment,
        tally: &mut Tally,
    ) -> Result<Held, Refused> {
        if layer.attempts.is_none() && layer.connections.is_none() {
            return Ok(Held::Nothing);
        }
        let Some(cell) = self.table.pin(self.hasher.hash_one(key), now) else {
            return self.enter_overflow(overflow, now, tally);
        };
        if let Some(Rate { quota, dry_run }) = layer.attempts
            && let Err(wait) = cell.spend(&quota, now)
        {
            tally.judge(layer.names.1, dry_run, Some(wait))?;
        }
        let Some(Cap { max, dry_run }) = layer.connections else {
            return Ok(Held::Nothing);
        };
        if dry_run && cell.places() >= max {
            tally.judge(layer.names.0, dry_run, None)?;
        }
        let max = if dry_run { u32::MAX } else { max };
        match cell.take_place(max) {
            Some(number) => Ok(Held::Cell(number)),
            None => Err(tally.refuse(layer.names.0, None)),
        }
    }

    fn enter_overflow(
        &self,
        overflow: &Layer,
        now: Moment,
        tally: &mut Tally,
    ) -> Result<Held, Refused> {
        if let Some(Rate { quota, dry_run }) = overflow.attempts
            && let Err(wait) = self.overflow_bucket.spend(&quota, 1, now)
        {
            tally.judge(overflow.names.1, dry_run, Some(wait))?;
        }
        let Some(Cap { max, dry_run }) = overflow.connections else {
            return Ok(Held::Nothing);
        };
        if !self.overflow_places.take(max) {
            tally.judge(overflow.names.0, dry_run, None)?;
            self.overflow_places.take(u32::MAX);
        }
        Ok(Held::Overflow)
    }

    /// How many connections are held now, the global limit's count; those of backends not among them.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.connections.held()
    }

    /// Bytes of the table of addresses, which is as large as it will ever be.
    #[must_use]
    pub const fn bytes_held(&self) -> usize {
        self.table.bytes_held()
    }

    /// What is held now. Goes through the whole table: for tests, and for figures that are asked for
    /// rarely.
    #[must_use]
    pub fn census(&self, now: Moment) -> Census {
        let table = self.table.census(now);
        Census {
            connections: self.connections.held(),
            api_connections: self.api_connections.held(),
            address_places: table.places,
            addresses_live: table.cells_live,
            overflow_places: self.overflow_places.held(),
        }
    }
}

/// What [`Limits::census`] counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// Places under the global limit.
    pub connections: u32,
    /// Places of backends.
    pub api_connections: u32,
    /// Places of addresses and sites in the table: two for an IPv6 connection that is counted twice.
    pub address_places: u64,
    /// Addresses and sites in the table that hold a place or have not recovered their permits.
    pub addresses_live: u64,
    /// Places in the overflow account.
    pub overflow_places: u32,
}

/// The limits of one kind of key.
#[derive(Clone, Copy)]
struct Layer {
    connections: Option<Cap>,
    attempts: Option<Rate>,
    names: (Limit, Limit),
}

impl Layer {
    fn times(self, factor: u32) -> Self {
        Self {
            connections: self.connections.map(|cap| cap.times(factor)),
            attempts: self.attempts.map(|rate| rate.times(factor)),
            ..self
        }
    }
}

/// The right to be connected: part of the connection, given back when it is dropped.
#[derive(Debug)]
#[must_use = "dropping it gives the place back"]
pub struct Place {
    limits: Arc<Limits>,
    site: Held,
    address: Held,
}

#[derive(Debug, Clone, Copy)]
enum Held {
    Nothing,
    Overflow,
    Cell(CellNumber),
    /// In place of a site: the connection counts as a backend's, and as nothing else.
    Api,
}

impl Place {
    /// Counts the connection under the limits of its client's address as well. Costs two look-ups for
    /// IPv6, one for IPv4; never waits for another thread. A second call does nothing.
    ///
    /// # Errors
    /// The first limit that refuses, from the widest to the narrowest; it is counted in `tally`. What
    /// was taken until then goes with the place.
    pub fn locate(
        &mut self,
        policy: &Policy,
        address: IpAddr,
        now: Moment,
        tally: &mut Tally,
    ) -> Result<(), Refused> {
        if !matches!((self.site, self.address), (Held::Nothing, Held::Nothing)) {
            return Ok(());
        }
        let layer = Layer {
            connections: policy.address_connections,
            attempts: policy.address_attempts,
            names: (Limit::AddressConnections, Limit::AddressAttempts),
        };
        let overflow = Layer {
            names: (Limit::OverflowConnections, Limit::OverflowAttempts),
            ..layer.times(policy.overflow_factor)
        };
        if let Some(Site { width, factor }) = policy.site
            && let Some(key) = Key::of_site(address, width)
        {
            let site = Layer {
                names: (Limit::SiteConnections, Limit::SiteAttempts),
                ..layer.times(factor)
            };
            self.site = self
                .limits
                .enter_layer(&key, &site, &overflow, now, tally)?;
        }
        let key = Key::of(address, policy.widths);
        self.address = self
            .limits
            .enter_layer(&key, &layer, &overflow, now, tally)?;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for held in [self.address, self.site] {
            match held {
                Held::Nothing => {}
                Held::Overflow => self.limits.overflow_places.release(),
                Held::Cell(number) => self.limits.table.release(number),
                Held::Api => return self.limits.api_connections.release(),
            }
        }
        self.limits.connections.release();
    }
}

/// Connections per user, whatever their addresses: one for the whole server.
///
/// A user's connections are remembered in the order of their coming, so that the oldest can be named:
/// a list of any length, unlike an address's count. Its shards are behind locks for that reason, and
/// this is the one place of the data path where there are any. They are taken when somebody has
/// authenticated, which cost a hundred times as much, and when such a connection ends; a lock is held
/// for one look-up, never while another one is taken, and no callback runs under it. Memory is bounded
/// by the number of connections.
#[derive(Debug)]
pub struct Users<Id> {
    shards: Box<[Shard<Id>]>,
    hasher: RandomState,
}

#[expect(
    clippy::disallowed_types,
    reason = "see `Users`: after authentication, for one look-up, a 256th of the users"
)]
type Lock<T> = std::sync::Mutex<T>;

/// The ids of a user's connections, the oldest first.
type Ids<Id> = SmallVec<[Id; 2]>;

/// A cache line of its own, so that taking one lock does not slow the neighbours'.
#[derive(Debug)]
#[repr(align(64))]
struct Shard<Id>(Lock<HashMap<u64, Ids<Id>, RandomState>>);

const SHARDS: usize = 256;

/// What happens where a user has as many connections as allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// The new connection is refused. The default.
    #[default]
    RefuseNew,
    /// The oldest connection gives way.
    CloseOldest,
}

impl<Id: Copy + Eq> Users<Id> {
    /// Nobody yet. `hasher` as in [`Limits::new`].
    #[must_use]
    pub fn new(hasher: RandomState) -> Self {
        Self {
            shards: (0..SHARDS)
                .map(|_| Shard(Lock::new(HashMap::with_hasher(hasher.clone()))))
                .collect(),
            hasher,
        }
    }

    /// A connection of `user` that has authenticated. With [`WhenFull::CloseOldest`] the place of the
    /// oldest passes to the new one at once, so the limit holds at every moment; the answer names it,
    /// and the caller has to close it. No connection is named twice.
    ///
    /// # Errors
    /// The user has as many connections as allowed, and none is to give way.
    pub fn enter(
        self: &Arc<Self>,
        cap: Cap,
        user: &[u8],
        id: Id,
        when_full: WhenFull,
        tally: &mut Tally,
    ) -> Result<(UserPlace<Id>, Option<Id>), Refused> {
        let hash = self.hasher.hash_one(user);
        let oldest = self.with(hash, |users| {
            let held = users.get(&hash).map_or(0, Ids::len);
            let is_full = held >= cap.max as usize;
            if is_full && (cap.dry_run || cap.max == 0 || when_full == WhenFull::RefuseNew) {
                tally.judge(Limit::UserConnections, cap.dry_run, None)?;
            }
            let ids = users.entry(hash).or_default();
            ids.push(id);
            let gives_way = is_full && !cap.dry_run;
            Ok(gives_way.then(|| ids.remove(0)))
        })?;
        let users = Arc::clone(self);
        Ok((UserPlace { users, hash, id }, oldest))
    }

    /// Connections of `user` that hold a place.
    #[must_use]
    pub fn held(&self, user: &[u8]) -> usize {
        let hash = self.hasher.hash_one(user);
        self.with(hash, |users| users.get(&hash).map_or(0, Ids::len))
    }

    /// Users that are connected.
    #[must_use]
    pub fn connected(&self) -> usize {
        let shards = 0..SHARDS as u64;
        shards
            .map(|shard| self.with(shard, |users| users.len()))
            .sum()
    }

    /// Bytes of the tables of users; of a user's connections, the first two are counted. Takes each lock
    /// for the reading of one number: for figures that are asked for once in a while.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        let shards = 0..SHARDS as u64;
        let places: usize = shards
            .map(|shard| self.with(shard, |users| users.capacity()))
            .sum();
        SHARDS * size_of::<Shard<Id>>() + places * size_of::<(u64, Ids<Id>)>()
    }

    fn leave(&self, hash: u64, id: Id) {
        self.with(hash, |users| {
            let Some(ids) = users.get_mut(&hash) else {
                return;
            };
            // A connection whose place has passed to a younger one is no longer in the list.
            if let Some(at) = ids.iter().position(|held| *held == id) {
                ids.remove(at);
            }
            if ids.is_empty() {
                users.remove(&hash);
            }
        });
    }

    fn with<T>(
        &self,
        hash: u64,
        work: impl FnOnce(&mut HashMap<u64, Ids<Id>, RandomState>) -> T,
    ) -> T {
        #[expect(clippy::cast_possible_truncation, reason = "the lowest byte is meant")]
        let shard = &self.shards[hash as usize % SHARDS].0;
        // No step of `work` can leave a list half changed, so a panic elsewhere does not matter.
        work(&mut shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A user's right to one connection: part of the connection, given back when it is dropped.
#[derive(Debug)]
#[must_use = "dropping it gives the place back"]
pub struct UserPlace<Id: Copy + Eq> {
    users: Arc<Users<Id>>,
    hash: u64,
    id: Id,
}

impl<Id: Copy + Eq> Drop for UserPlace<Id> {
    fn drop(&mut self) {
        self.users.leave(self.hash, self.id);
    }
}

/// The rules for what an open connection may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// Messages. Default 50 per second with a burst of 100, and 1 200 per minute with a burst as large:
    /// enough for a cursor that moves 20 times a second. The original declared 60 per minute.
    pub messages: Pace,
    /// Bytes of their payload. Default 256 KiB per second, with a burst of 1 MiB, and no limit per
    /// minute. A message longer than the burst is always refused.
    pub bytes: Pace,
    /// Pings and pongs. Default 20 per second with a burst of 100: a client that measures its line pings a
    /// few times a second, and a server of this kind asks for a pong every half minute. Fragments are
    /// no part of it: their number in a message is bounded by [`ws::Limits`](crate::ws::Limits).
    pub control_frames: Option<Quota>,
    /// Whether it only counts what it would refuse.
    pub dry_run: bool,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            messages: Pace {
                per_second: Some(Quota::per_second(50, 100)),
                per_minute: Some(Quota::per_minute(1_200, 1_200)),
            },
            bytes: Pace {
                per_second: Some(Quota::per_second(256 * 1024, 1024 * 1024)),
                per_minute: None,
            },
            control_frames: Some(Quota::per_second(20, 100)),
            dry_run: false,
        }
    }
}

impl Traffic {
    /// What the system that tidegate replaces declared: 60 messages per minute. Of pings it said nothing.
    #[must_use]
    pub fn original() -> Self {
        Self {
            messages: Pace {
                per_second: None,
                per_minute: Some(Quota::per_minute(60, 60)),
            },
            bytes: Pace::default(),
            control_frames: Self::default().control_frames,
            dry_run: false,
        }
    }

    /// Judges a message of `bytes` that has come in over the connection that owns `meters`.
    ///
    /// # Errors
    /// It is too much. A message that is refused for its bytes has spent its permit as a message.
    pub fn receive(
        &self,
        meters: &mut Meters,
        bytes: usize,
        now: Moment,
        tally: &mut Tally,
    ) -> Result<(), Refused> {
        if let Err(wait) = meters.messages.spend(&self.messages, 1, now) {
            tally.judge(Limit::Messages, self.dry_run, Some(wait))?;
        }
        if let Err(wait) = meters.bytes.spend(&self.bytes, bytes as u64, now) {
            tally.judge(Limit::Bytes, self.dry_run, Some(wait))?;
        }
        Ok(())
    }

    /// Judges so many pings and pongs, those of one read together.
    ///
    /// # Errors
    /// They are too many. None of their permits has been spent then.
    pub fn receive_control(
        &self,
        meters: &mut Meters,
        frames: u32,
        now: Moment,
        tally: &mut Tally,
    ) -> Result<(), Refused> {
        if let Some(quota) = &self.control_frames
            && let Err(wait) = meters.control_frames.spend(quota, frames.into(), now)
        {
            tally.judge(Limit::ControlFrames, self.dry_run, Some(wait))?;
        }
        Ok(())
    }
}

/// Where one connection stands against [`Traffic`]: 40 bytes, part of the connection.
#[derive(Debug, Clone, Copy, Default)]
pub struct Meters {
    messages: Meter,
    bytes: Meter,
    control_frames: Bucket,
}

/// Every limit there is; the closed set that refusals are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// [`Policy::connections`].
    Connections,
    /// [`Policy::api_connections`].
    ApiConnections,
    /// [`Policy::address_connections`].
    AddressConnections,
    /// [`Policy::address_attempts`].
    AddressAttempts,
    /// [`Policy::address_connections`] of a [`Site`].
    SiteConnections,
    /// [`Policy::address_attempts`] of a [`Site`].
    SiteAttempts,
    /// [`Policy::address_connections`] of all addresses for which there was no room.
    OverflowConnections,
    /// [`Policy::address_attempts`] of all addresses for which there was no room.
    OverflowAttempts,
    /// Connections of one user.
    UserConnections,
    /// [`Traffic::messages`].
    Messages,
    /// [`Traffic::bytes`].
    Bytes,
    /// [`Traffic::control_frames`].
    ControlFrames,
}

impl Limit {
    /// All of them, in the order of their indices.
    pub const ALL: [Self; 12] = [
        Self::Connections,
        Self::ApiConnections,
        Self::AddressConnections,
        Self::AddressAttempts,
        Self::SiteConnections,
        Self::SiteAttempts,
        Self::OverflowConnections,
        Self::OverflowAttempts,
        Self::UserConnections,
        Self::Messages,
        Self::Bytes,
        Self::ControlFrames,
    ];

    /// For metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ApiConnections => "api_connections",
            Self::AddressConnections => "address_connections",
            Self::AddressAttempts => "address_attempts",
            Self::SiteConnections => "site_connections",
            Self::SiteAttempts => "site_attempts",
            Self::OverflowConnections => "overflow_connections",
            Self::OverflowAttempts => "overflow_attempts",
            Self::UserConnections => "user_connections",
            Self::Messages => "messages",
            Self::Bytes => "bytes",
            Self::ControlFrames => "control_frames",
        }
    }
}

/// A limit has said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Which.
    pub limit: Limit,
    /// When the same would be granted, where time alone brings that about.
    pub retry_after: Option<Duration>,
}

/// What one reactor's limits have refused: plain integers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    refused: [u64; Limit::ALL.len()],
    would_refuse: [u64; Limit::ALL.len()],
}

impl Tally {
    /// Times the limit refused.
    #[must_use]
    pub const fn refused(&self, limit: Limit) -> u64 {
        self.refused[limit as usize]
    }

    /// Times the limit would have refused, had it not been in dry run.
    #[must_use]
    pub const fn would_refuse(&self, limit: Limit) -> u64 {
        self.would_refuse[limit as usize]
    }

    /// Adds another tally to this one.
    pub fn merge(&mut self, other: &Self) {
        for (sum, more) in self.refused.iter_mut().zip(&other.refused) {
            *sum += more;
        }
        for (sum, more) in self.would_refuse.iter_mut().zip(&other.would_refuse) {
            *sum += more;
        }
    }

    /// Counts that `limit` is reached, and refuses unless it is in dry run.
    const fn judge(
        &mut self,
        limit: Limit,
        dry_run: bool,
        wait: Option<Wait>,
    ) -> Result<(), Refused> {
        if dry_run {
            self.would_refuse[limit as usize] += 1;
            return Ok(());
        }
        Err(self.refuse(limit, wait))
    }

    const fn refuse(&mut self, limit: Limit, wait: Option<Wait>) -> Refused {
        self.refused[limit as usize] += 1;
        let retry_after = match wait {
            Some(Wait(wait)) => Some(wait),
            None => None,
        };
        Refused { limit, retry_after }
    }
}

#[cfg(test)]
mod tests;
