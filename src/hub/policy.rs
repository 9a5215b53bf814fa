//! What is promised of which channel: history, presence, announcements, and what happens to slow
//! subscribers. One immutable snapshot for all reactors.

use std::collections::HashMap;
use std::time::Duration;

use super::Channel;

/// What is promised of a channel. The default promises nothing beyond delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelPolicy {
    /// Publications kept, 0 to [`HISTORY_SIZE_MAX`]. With 0 the channel has no history, and its
    /// publications no offsets.
    pub history_size: usize,
    /// How long they are kept after the last one, up to [`HISTORY_TTL_MAX`]. Default 5 min.
    pub history_ttl: Duration,
    /// Whether it is kept who is there.
    pub presence: bool,
    /// Whether joins and leaves are published.
    pub announce: bool,
    /// What happens to a subscriber whose outbox is full.
    pub slow: Slow,
}

impl Default for ChannelPolicy {
    fn default() -> Self {
        Self {
            history_size: 0,
            history_ttl: Duration::from_secs(300),
            presence: false,
            announce: false,
            slow: Slow::AsOutbox,
        }
    }
}

impl ChannelPolicy {
    /// Whether publications are kept and numbered.
    #[must_use]
    pub const fn has_history(&self) -> bool {
        self.history_size > 0
    }

    /// Whether the channel's home is told who comes and goes.
    #[must_use]
    pub const fn counts_members(&self) -> bool {
        self.presence || self.announce
    }
}

/// Most publications a channel can keep.
pub const HISTORY_SIZE_MAX: usize = 100_000;
/// Longest time for which a channel can keep publications.
pub const HISTORY_TTL_MAX: Duration = Duration::from_secs(30 * 86_400);

/// What happens to a subscriber for whom a publication does not fit into the outbox. On a channel with
/// history whatever is dropped is told as a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Slow {
    /// What the outbox does with any frame that does not fit.
    #[default]
    AsOutbox,
    /// The connection is closed with 1008.
    Close,
    /// Its oldest publications of the channel that have not begun to leave are dropped.
    DropOldest,
    /// While it is slow, only the newest publication of the channel waits for it.
    KeepLatest,
}

/// The policies of all channels.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policies {
    names: HashMap<Box<str>, ChannelPolicy>,
    /// The longest first.
    prefixes: Vec<(Box<str>, ChannelPolicy)>,
    otherwise: ChannelPolicy,
}

impl Policies {
    /// Policies by exact name and by the beginning of names. Of two with the same words the last counts.
    #[must_use]
    pub fn new(
        names: impl IntoIterator<Item = (Box<str>, ChannelPolicy)>,
        prefixes: impl IntoIterator<Item = (Box<str>, ChannelPolicy)>,
    ) -> Self {
        let by_prefix: HashMap<_, _> = prefixes.into_iter().collect();
        let mut prefixes: Vec<_> = by_prefix.into_iter().collect();
        prefixes.sort_by(|(one, _), (other, _)| (other.len(), other).cmp(&(one.len(), one)));
        Self {
            names: names.into_iter().collect(),
            prefixes,
            otherwise: ChannelPolicy::default(),
        }
    }

    /// Has joins and leaves published in all channels whose names begin like this, whatever else is
    /// promised of them.
    pub fn announce(&mut self, prefix: &str) {
        for (name, policy) in &mut self.names {
            policy.announce |= name.starts_with(prefix);
        }
        if !self.prefixes.iter().any(|(own, _)| **own == *prefix) {
            let wider = (self.prefixes.iter()).find(|(own, _)| prefix.starts_with(&**own));
            let policy = wider.map_or(&self.otherwise, |(_, policy)| policy).clone();
            let shorter = |(own, _): &(Box<str>, _)| own.len() < prefix.len();
            let at = self.prefixes.iter().position(shorter);
            let at = at.unwrap_or(self.prefixes.len());
            self.prefixes.insert(at, (prefix.into(), policy));
        }
        for (own, policy) in &mut self.prefixes {
            policy.announce |= own.starts_with(prefix);
        }
    }

    /// What is promised of a channel: by its name, or else by the longest prefix of it. Costs a hash and
    /// a comparison for each prefix; nothing where nothing is configured.
    #[must_use]
    pub fn of(&self, channel: &Channel) -> &ChannelPolicy {
        if !self.names.is_empty()
            && let Some(policy) = self.names.get(channel.as_str())
        {
            return policy;
        }
        self.prefixes
            .iter()
            .find(|(prefix, _)| channel.as_str().starts_with(&**prefix))
            .map_or(&self.otherwise, |(_, policy)| policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_counts_before_a_prefix_and_the_longest_prefix_first() {
        let keeping = |history_size| ChannelPolicy {
            history_size,
            ..ChannelPolicy::default()
        };
        let policies = Policies::new(
            [("room:7".into(), keeping(1))],
            [
                ("room:".into(), keeping(2)),
                ("".into(), keeping(4)),
                ("room:9".into(), keeping(3)),
                ("room:".into(), keeping(5)),
            ],
        );
        for (name, size) in [
            ("room:7", 1),
            ("room:77", 5),
            ("room:9", 3),
            ("room:99", 3),
            ("room", 4),
            ("x", 4),
        ] {
            let channel = Channel::new(name).unwrap();
            assert_eq!(policies.of(&channel).history_size, size, "{name}");
        }
        let mut announcing = policies.clone();
        announcing.announce("room:7");
        announcing.announce("x");
        announcing.announce("room:9");
        for (name, size, announces) in [
            ("room:7", 1, true),
            ("room:77", 5, true),
            ("room:8", 5, false),
            ("room:99", 3, true),
            ("room", 4, false),
            ("xy", 4, true),
        ] {
            let channel = Channel::new(name).unwrap();
            let policy = announcing.of(&channel);
            assert_eq!(
                (policy.history_size, policy.announce),
                (size, announces),
                "{name}"
            );
        }
        let none = Policies::default();
        assert!(!none.of(&Channel::new("room:7").unwrap()).has_history());
    }
}
