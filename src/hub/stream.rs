//! What a channel remembers: its publications, numbered, in a window that is bounded in number, in
//! bytes and in time.
//!
//! Offsets go up by one for each publication and never return within an epoch, so whoever knows the
//! last offset it has seen can be told exactly what it missed, or that it cannot be told.
//!
//! Invariants: the window's offsets are contiguous and end at `top`; `bytes` is the sum over the window.

use std::collections::VecDeque;
use std::sync::Arc;

use super::command::{CommandError, Epoch, HistoryQuery, Publication, Since, StreamPosition, Tags};
use crate::ws::Message;

/// A channel's publications.
#[derive(Debug)]
pub struct Stream {
    epoch: Epoch,
    top: u64,
    window: VecDeque<Arc<Publication>>,
    bytes: usize,
}

/// What a stream's window may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Publications.
    pub size_max: usize,
    /// Bytes, as [`weight`] counts them.
    pub bytes_max: usize,
}

/// What came of an attempt to go on from a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovery {
    /// All that was missed, in order; possibly nothing.
    Complete(Vec<Arc<Publication>>),
    /// Something was missed that is not there any more, or cannot be told.
    Gap,
}

/// Bytes beside the payload that a publication costs: the publication, its count of references, its
/// place in the window.
pub const OVERHEAD: usize = 112;

/// What a publication costs in memory, in bytes.
#[must_use]
pub fn weight(message: &Message<'_>, tags: Option<&Tags>) -> usize {
    let tags = tags.map_or(0, |tags| {
        let texts = tags.iter().map(|(name, value)| name.len() + value.len());
        texts.sum::<usize>() + tags.len() * size_of::<(Box<str>, Box<str>)>()
    });
    message.len() + tags + OVERHEAD
}

impl Stream {
    /// An empty stream.
    #[must_use]
    pub const fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            top: 0,
            window: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Where it ends.
    #[must_use]
    pub const fn position(&self) -> StreamPosition {
        StreamPosition {
            offset: self.top,
            epoch: self.epoch,
        }
    }

    /// Bytes of the window.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Publications in the window.
    #[must_use]
    pub fn len(&self) -> usize {
        self.window.len()
    }

    /// Whether the window is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.window.is_empty()
    }

    /// Appends a publication; returns its position. What does not fit is dropped from the front; a
    /// publication that does not fit by itself is numbered and not kept, and the window begins behind it.
    pub fn push(
        &mut self,
        message: Message<'static>,
        tags: Option<Tags>,
        bounds: Bounds,
    ) -> StreamPosition {
        self.top += 1;
        let cost = weight(&message, tags.as_ref());
        self.window.push_back(Arc::new(Publication {
            offset: self.top,
            message,
            tags,
        }));
        self.bytes += cost;
        while self.window.len() > bounds.size_max || self.bytes > bounds.bytes_max {
            let Some(oldest) = self.window.pop_front() else {
                break;
            };
            self.bytes -= weight(&oldest.message, oldest.tags.as_ref());
        }
        if self.window.is_empty() {
            self.window = VecDeque::new();
        }
        self.check();
        self.position()
    }

    /// Forgets the window. Epoch and top stay, so a gap behind it shows.
    pub fn clear(&mut self) {
        self.window = VecDeque::new();
        self.bytes = 0;
    }

    /// Reads the window.
    ///
    /// # Errors
    /// [`CommandError::UnrecoverablePosition`] if the query is about another epoch;
    /// [`CommandError::BadRequest`] for what lies before offset 0.
    pub fn read(&self, query: &HistoryQuery) -> Result<Vec<Arc<Publication>>, CommandError> {
        if query
            .since
            .is_some_and(|since| since.epoch.is_some_and(|epoch| epoch != self.epoch))
        {
            return Err(CommandError::UnrecoverablePosition);
        }
        let limit = query.limit.unwrap_or(usize::MAX);
        let publications = self.window.iter();
        Ok(match (query.since, query.reverse) {
            (None, false) => publications.take(limit).cloned().collect(),
            (None, true) => publications.rev().take(limit).cloned().collect(),
            (Some(since), false) => publications
                .skip(self.index_behind(since.offset))
                .take(limit)
                .cloned()
                .collect(),
            (Some(Since { offset: 0, .. }), true) => return Err(CommandError::BadRequest),
            (Some(since), true) => publications
                .take(self.index_behind(since.offset - 1))
                .rev()
                .take(limit)
                .cloned()
                .collect(),
        })
    }

    /// The newest publications, at most `count`, the oldest of them first.
    #[must_use]
    pub fn last(&self, count: usize) -> Vec<Arc<Publication>> {
        let skipped = self.window.len().saturating_sub(count);
        self.window.iter().skip(skipped).cloned().collect()
    }

    /// What was published behind a position, if all of it is there and it is at most `max` publications.
    #[must_use]
    pub fn recover(&self, since: Since, max: usize) -> Recovery {
        let is_known = since.epoch.is_none_or(|epoch| epoch == self.epoch);
        if !is_known || since.offset > self.top {
            return Recovery::Gap;
        }
        let missed = self.top - since.offset;
        let has_all = u64::try_from(self.window.len().min(max)).is_ok_and(|kept| missed <= kept);
        if !has_all {
            return Recovery::Gap;
        }
        let behind = self.window.iter().skip(self.index_behind(since.offset));
        Recovery::Complete(behind.cloned().collect())
    }

    /// The index in the window of the first publication behind an offset.
    fn index_behind(&self, offset: u64) -> usize {
        let first = self.top - self.window.len() as u64;
        let behind = offset.saturating_sub(first);
        usize::try_from(behind).unwrap_or(usize::MAX)
    }

    fn check(&self) {
        debug_assert_eq!(
            self.bytes,
            self.window
                .iter()
                .map(|kept| weight(&kept.message, kept.tags.as_ref()))
                .sum::<usize>()
        );
        debug_assert!(
            self.window
                .back()
                .is_none_or(|last| last.offset == self.top)
        );
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOM: Bounds = Bounds {
        size_max: 3,
        bytes_max: usize::MAX,
    };

    fn stream_of(count: usize) -> Stream {
        let mut stream = Stream::new(Epoch::of(7));
        for number in 1..=count {
            stream.push(Message::from(number.to_string()), None, ROOM);
        }
        stream
    }

    fn offsets(publications: &[Arc<Publication>]) -> Vec<u64> {
        publications.iter().map(|one| one.offset).collect()
    }

    fn since(offset: u64) -> Since {
        Since {
            offset,
            epoch: Some(Epoch::of(7)),
        }
    }

    #[test]
    fn a_window_holds_its_size_and_its_bytes_and_no_more() {
        let one = weight(&Message::from("x"), None);
        for (bytes_max, kept) in [(one - 1, 0), (one, 1), (2 * one - 1, 1), (2 * one, 2)] {
            let mut stream = Stream::new(Epoch::of(1));
            let bounds = Bounds {
                size_max: 3,
                bytes_max,
            };
            for number in 1..=4 {
                let position = stream.push(Message::from("x").into_owned(), None, bounds);
                assert_eq!(position.offset, number);
            }
            assert_eq!((stream.len(), stream.bytes()), (kept, kept * one));
        }
        assert_eq!(stream_of(4).len(), 3);
    }

    #[test]
    fn a_query_reads_from_either_end() {
        let stream = stream_of(5);
        let read = |limit, since, reverse| {
            let query = HistoryQuery {
                limit,
                since,
                reverse,
            };
            stream.read(&query).map(|found| offsets(&found))
        };
        assert_eq!(read(None, None, false), Ok(vec![3, 4, 5]));
        assert_eq!(read(Some(2), None, false), Ok(vec![3, 4]));
        assert_eq!(read(Some(2), None, true), Ok(vec![5, 4]));
        assert_eq!(read(Some(0), None, true), Ok(vec![]));
        assert_eq!(read(None, Some(since(0)), false), Ok(vec![3, 4, 5]));
        assert_eq!(read(None, Some(since(4)), false), Ok(vec![5]));
        assert_eq!(read(None, Some(since(9)), false), Ok(vec![]));
        assert_eq!(read(None, Some(since(5)), true), Ok(vec![4, 3]));
        assert_eq!(read(Some(1), Some(since(9)), true), Ok(vec![5]));
        assert_eq!(
            read(None, Some(since(0)), true),
            Err(CommandError::BadRequest)
        );
        let foreign = Since {
            offset: 4,
            epoch: Some(Epoch::FOREIGN),
        };
        assert_eq!(
            read(None, Some(foreign), false),
            Err(CommandError::UnrecoverablePosition)
        );
    }

    #[test]
    fn recovery_is_complete_or_a_gap() {
        let stream = stream_of(5);
        let recover = |from: u64, max| match stream.recover(since(from), max) {
            Recovery::Complete(found) => Some(offsets(&found)),
            Recovery::Gap => None,
        };
        assert_eq!(recover(5, 9), Some(vec![]));
        assert_eq!(recover(2, 3), Some(vec![3, 4, 5]));
        assert_eq!(recover(2, 2), None, "more than may be sent");
        assert_eq!(recover(1, 9), None, "2 is gone");
        assert_eq!(
            recover(6, 9),
            None,
            "from a future that is not this stream's"
        );
    }

    proptest! {
        #[test]
        fn a_stream_agrees_with_a_list_of_all_that_was_published(
            steps in prop::collection::vec((0u8..8, 0usize..40, 0u64..40), 1..120),
            size_max in 1usize..6,
            room in 1usize..6,
        ) {
            let bounds = Bounds { size_max, bytes_max: room * (OVERHEAD + 20) };
            let mut stream = Stream::new(Epoch::of(7));
            let mut all: Vec<(u64, usize)> = Vec::new();
            let mut kept = 0usize;
            for (what, length, from) in steps {
                match what {
                    0 => {
                        stream.clear();
                        kept = 0;
                    }
                    1..=4 => {
                        let text = "x".repeat(length);
                        let position = stream.push(Message::from(text), None, bounds);
                        all.push((all.len() as u64 + 1, length + OVERHEAD));
                        prop_assert_eq!(position.offset, all.len() as u64);
                        kept += 1;
                        let bytes = |kept: usize| all[all.len() - kept..].iter().map(|(_, cost)| cost).sum::<usize>();
                        while kept > size_max || bytes(kept) > bounds.bytes_max {
                            kept -= 1;
                        }
                    }
                    _ => {
                        let window: Vec<u64> = all[all.len() - kept..].iter().map(|(offset, _)| *offset).collect();
                        let missed: Vec<u64> = all.iter().map(|(offset, _)| *offset).filter(|offset| *offset > from).collect();
                        let expected = (from <= all.len() as u64 && missed.len() <= length && window.ends_with(&missed)).then_some(missed);
                        let found = match stream.recover(since(from), length) {
                            Recovery::Complete(found) => Some(offsets(&found)),
                            Recovery::Gap => None,
                        };
                        prop_assert_eq!(found, expected);
                        let query = HistoryQuery { limit: Some(length), since: Some(since(from)), reverse: false };
                        let expected: Vec<u64> = window.iter().copied().filter(|offset| *offset > from).take(length).collect();
                        prop_assert_eq!(offsets(&stream.read(&query).unwrap()), expected);
                        let tail: Vec<u64> = window[window.len().saturating_sub(length)..].to_vec();
                        prop_assert_eq!(offsets(&stream.last(length)), tail);
                    }
                }
                prop_assert_eq!(stream.len(), kept);
            }
        }
    }
}
