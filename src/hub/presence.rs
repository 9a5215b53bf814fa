//! Who is in a channel, as its home knows it.

use std::collections::HashMap;
use std::sync::Arc;

use super::command::Present;
use crate::conn::ConnectionId;

/// The members of one channel.
#[derive(Debug, Default)]
pub struct Presence {
    members: HashMap<ConnectionId, Present, ahash::RandomState>,
    /// How many of the members are which user.
    users: HashMap<Arc<str>, u32, ahash::RandomState>,
    bytes: usize,
}

/// What a member costs in memory beside the text that is said of it, in bytes: its place among the
/// members. Its user's name is kept once, with the user's connections.
pub const MEMBER_BYTES: usize = size_of::<(ConnectionId, Present)>();

/// What a user costs, in bytes.
pub const USER_BYTES: usize = size_of::<(Arc<str>, u32)>();

/// What is kept of a member, in bytes.
fn weight(member: &Present) -> usize {
    MEMBER_BYTES + member.info.as_ref().map_or(0, |info| info.len())
}

/// What came of a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entered {
    /// It is a new member.
    New,
    /// It was one already; what is known of it has been replaced, but since when.
    Again,
    /// There is no room for another member.
    Full,
}

impl Presence {
    /// Takes a member in, if there are fewer than `members_max`.
    pub fn join(&mut self, member: Present, members_max: usize) -> Entered {
        if let Some(known) = self.members.get_mut(&member.client) {
            let before = std::mem::replace(&mut known.user, Arc::clone(&member.user));
            self.bytes -= weight(known);
            known.info = member.info;
            self.bytes += weight(known);
            self.forget_user(&before);
            *self.users.entry(member.user).or_default() += 1;
            return Entered::Again;
        }
        if self.members.len() >= members_max {
            return Entered::Full;
        }
        *self.users.entry(Arc::clone(&member.user)).or_default() += 1;
        self.bytes += weight(&member);
        self.members.insert(member.client, member);
        Entered::New
    }

    /// Lets a member go.
    pub fn leave(&mut self, client: ConnectionId) -> Option<Present> {
        let member = self.members.remove(&client)?;
        self.bytes -= weight(&member);
        self.forget_user(&member.user);
        Some(member)
    }

    fn forget_user(&mut self, user: &Arc<str>) {
        if let Some(count) = self.users.get_mut(user) {
            *count -= 1;
            if *count == 0 {
                self.users.remove(user);
            }
        }
    }

    /// The members, in no order.
    pub fn members(&self) -> impl Iterator<Item = &Present> {
        self.members.values()
    }

    /// How many members there are.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.members.len()
    }

    /// How many users they are; all without one count as one.
    #[must_use]
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// What is kept of them in memory, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes + self.users.len() * USER_BYTES
    }

    /// Whether nobody is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn presence_agrees_with_a_naive_map(
            steps in prop::collection::vec((0u8..3, 0u32..8, 0usize..4), 1..200),
            members_max in 1usize..8,
        ) {
            let mut presence = Presence::default();
            let mut model: BTreeMap<u32, (usize, u64)> = BTreeMap::new();
            let users: Vec<Arc<str>> = ["", "ann", "bob", "cy"].map(Arc::from).into();
            for (now, (what, slot, user)) in (0u64..).zip(steps) {
                let client = ConnectionId::new(0, slot, 0);
                if what < 2 {
                    let member = Present { client, user: Arc::clone(&users[user]), info: (now % 3 > 0).then(|| "{}".into()), since: now };
                    let expected = match model.get(&slot).copied() {
                        Some((_, since)) => { model.insert(slot, (user, since)); Entered::Again }
                        None if model.len() >= members_max => Entered::Full,
                        None => { model.insert(slot, (user, now)); Entered::New }
                    };
                    prop_assert_eq!(presence.join(member, members_max), expected);
                } else {
                    let left = presence.leave(client).map(|one| (one.user, one.since));
                    let expected = model.remove(&slot).map(|(user, since)| (Arc::clone(&users[user]), since));
                    prop_assert_eq!(left, expected);
                }
                prop_assert_eq!(presence.clients(), model.len());
                let distinct: BTreeSet<_> = model.values().map(|(user, _)| user).collect();
                prop_assert_eq!(presence.users(), distinct.len());
                for member in presence.members() {
                    let (user, since) = model[&member.client.slot()];
                    prop_assert_eq!((&member.user, member.since), (&users[user], since));
                }
                prop_assert_eq!(presence.is_empty(), model.is_empty());
                let kept: usize = presence.members().map(weight).sum();
                prop_assert_eq!(presence.bytes(), kept + presence.users() * USER_BYTES);
            }
        }
    }
}
