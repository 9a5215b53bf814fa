//! What backends asked for over the API: counts by method and by what came of it, both closed sets.

/// A method of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the method of its name")]
pub enum ApiMethod {
    Publish,
    Broadcast,
    Presence,
    PresenceStats,
    History,
    HistoryRemove,
    Channels,
    Disconnect,
    Subscribe,
    Unsubscribe,
    Refresh,
    Info,
    Batch,
    /// Whatever is asked for that is none of these.
    Unknown,
}

impl ApiMethod {
    /// Every method, in the order of its number.
    pub const ALL: [Self; 14] = [
        Self::Publish,
        Self::Broadcast,
        Self::Presence,
        Self::PresenceStats,
        Self::History,
        Self::HistoryRemove,
        Self::Channels,
        Self::Disconnect,
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Refresh,
        Self::Info,
        Self::Batch,
        Self::Unknown,
    ];

    /// Its name, in paths and in batches.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Broadcast => "broadcast",
            Self::Presence => "presence",
            Self::PresenceStats => "presence_stats",
            Self::History => "history",
            Self::HistoryRemove => "history_remove",
            Self::Channels => "channels",
            Self::Disconnect => "disconnect",
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Refresh => "refresh",
            Self::Info => "info",
            Self::Batch => "batch",
            Self::Unknown => "unknown",
        }
    }

    /// The method of this name; `None` if there is none.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let mut methods = Self::ALL.into_iter();
        methods.find(|method| *method != Self::Unknown && method.name() == name)
    }
}

/// What came of a request, or of a command in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ApiResult {
    /// It was done.
    Done,
    /// It made no sense: not JSON, a missing field, a name that is no channel's.
    Invalid,
    /// The key is missing or wrong, may not do this, or the request was for another host.
    Denied,
    /// The key has been used more often than it may be.
    Limited,
    /// There is no such thing: no history, no presence, no such position.
    Unavailable,
    /// The server could not do it.
    Failed,
}

impl ApiResult {
    /// Every result, in the order of its number.
    pub const ALL: [Self; 6] = [
        Self::Done,
        Self::Invalid,
        Self::Denied,
        Self::Limited,
        Self::Unavailable,
        Self::Failed,
    ];

    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Invalid => "invalid",
            Self::Denied => "denied",
            Self::Limited => "limited",
            Self::Unavailable => "unavailable",
            Self::Failed => "failed",
        }
    }
}

/// How often each method came to each result.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ApiCounts([[u64; ApiResult::ALL.len()]; ApiMethod::ALL.len()]);

impl ApiCounts {
    pub(crate) const fn count(&mut self, method: ApiMethod, result: ApiResult) {
        self.0[method as usize][result as usize] += 1;
    }

    /// How often this method came to this result.
    #[must_use]
    pub const fn of(&self, method: ApiMethod, result: ApiResult) -> u64 {
        self.0[method as usize][result as usize]
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            for (sum, more) in mine.iter_mut().zip(theirs) {
                *sum += more;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_and_results_are_numbered_as_they_are_listed() {
        for (number, method) in ApiMethod::ALL.into_iter().enumerate() {
            assert_eq!(method as usize, number);
            let found = ApiMethod::of(method.name());
            let expected = (method != ApiMethod::Unknown).then_some(method);
            assert_eq!(found, expected);
        }
        for (number, result) in ApiResult::ALL.into_iter().enumerate() {
            assert_eq!(result as usize, number);
        }
        assert_eq!(ApiMethod::of("rpc"), None);
    }

    #[test]
    fn merging_adds_each_count() {
        let mut counts = ApiCounts::default();
        counts.count(ApiMethod::Batch, ApiResult::Limited);
        let other = counts.clone();
        counts.merge(&other);
        assert_eq!(counts.of(ApiMethod::Batch, ApiResult::Limited), 2);
        assert_eq!(counts.of(ApiMethod::Batch, ApiResult::Done), 0);
    }
}
