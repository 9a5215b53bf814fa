//! The name of a connection: where it lives, and which of the connections that lived there it is.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

/// Names one connection of a running server: the reactor, the slot, and the slot's generation, so an
/// id that outlives its connection does not mean another one (until 2^32 connections have used the
/// slot). It is found again from any thread without a look-up table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

/// Slots a reactor can have: 24 bits.
pub const SLOTS_MAX: u32 = 1 << 24;

/// Reactors a server can have: 8 bits, less one.
pub const REACTORS_MAX: usize = 255;

impl ConnectionId {
    /// Puts an id together. A slot beyond [`SLOTS_MAX`] does not exist.
    #[must_use]
    pub const fn new(reactor: u8, slot: u32, generation: u32) -> Self {
        debug_assert!(slot < SLOTS_MAX);
        Self((reactor as u64) << 56 | (slot as u64) << 32 | generation as u64)
    }

    /// The reactor that owns the connection.
    #[must_use]
    pub const fn reactor(self) -> usize {
        (self.0 >> 56) as usize
    }

    /// The connection's slot in its reactor.
    #[must_use]
    pub const fn slot(self) -> u32 {
        (self.0 >> 32) as u32 & (SLOTS_MAX - 1)
    }

    /// Which of the connections in that slot.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the lower half is the generation"
    )]
    pub const fn generation(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectionId({self})")
    }
}

impl FromStr for ConnectionId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_keeps_its_parts_and_its_text() {
        for (reactor, slot, generation) in
            [(0, 0, 0), (254, SLOTS_MAX - 1, u32::MAX), (3, 70_000, 9)]
        {
            let id = ConnectionId::new(reactor, slot, generation);
            assert_eq!(
                (id.reactor(), id.slot(), id.generation()),
                (reactor.into(), slot, generation)
            );
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert!("not an id".parse::<ConnectionId>().is_err());
    }
}
