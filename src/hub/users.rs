//! Which connections of a reactor are whose.

use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::conn::ConnectionId;

/// The open connections of one reactor by user. Those without a token are only counted.
#[derive(Debug, Default)]
pub struct Users {
    connections: HashMap<Arc<str>, SmallVec<[ConnectionId; 2]>, ahash::RandomState>,
    open: u64,
}

impl Users {
    /// A connection has opened.
    pub fn opened(&mut self, user: Option<&Arc<str>>, id: ConnectionId) {
        self.open += 1;
        if let Some(user) = user {
            match self.connections.get_mut(user) {
                Some(ids) => ids.push(id),
                None => {
                    let ids = std::iter::once(id).collect();
                    self.connections.insert(Arc::clone(user), ids);
                }
            }
        }
    }

    /// It has ended.
    pub fn closed(&mut self, user: Option<&Arc<str>>, id: ConnectionId) {
        self.open -= 1;
        let Some(user) = user else { return };
        if let Some(ids) = self.connections.get_mut(user) {
            ids.retain(|known| *known != id);
            if ids.is_empty() {
                self.connections.remove(user);
            }
        }
    }

    /// The connections of a user.
    #[must_use]
    pub fn of(&self, user: &str) -> &[ConnectionId] {
        self.connections.get(user).map_or(&[], |ids| ids)
    }

    /// Open connections.
    #[must_use]
    pub const fn open(&self) -> u64 {
        self.open
    }

    /// Users with a connection open.
    #[must_use]
    pub fn users(&self) -> usize {
        self.connections.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_with_all_connections_and_forgotten_with_the_last() {
        let mut users = Users::default();
        let ann: Arc<str> = "ann".into();
        let id = |slot| ConnectionId::new(0, slot, 0);
        for slot in 0..3 {
            users.opened(Some(&ann), id(slot));
        }
        users.opened(None, id(9));
        assert_eq!(users.of("ann"), [id(0), id(1), id(2)]);
        assert_eq!((users.open(), users.users()), (4, 1));
        users.closed(Some(&ann), id(1));
        users.closed(None, id(9));
        assert_eq!(users.of("ann"), [id(0), id(2)]);
        users.closed(Some(&ann), id(0));
        users.closed(Some(&ann), id(2));
        assert_eq!((users.open(), users.users()), (0, 0));
        assert_eq!(users.of("ann"), []);
    }
}
