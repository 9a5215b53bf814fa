//! Bytes that wait to leave a connection: shared slices, in order, bounded.
//!
//! A connection has an outbox only while its socket refuses bytes; the reactor drops it as soon as it
//! is empty. Two kinds of bytes wait: `wire` is what the socket refused of a write that had begun, in
//! the form the socket wants (ciphertext, on a TLS connection), and goes first; behind it wait whole
//! plaintext frames, which are encrypted when their turn comes: those of channels in memory that all
//! subscribers share, the connection's own as copies, many small ones in one block.
//!
//! Invariants: everything that was accepted leaves in order and once; `bytes` is the sum of what
//! waits; nothing is accepted beyond the limit.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem;

use bytes::{Buf, Bytes};

use super::pieces::{PIECE_BYTES_MAX, Pieces};
use crate::hub::table::Tag;
use crate::timer::Tick;

/// What an outbox may hold, and what happens at the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From here on a sender is told [`Pushed::Pressed`], in bytes. Default 64 KiB.
    pub bytes_high_water: usize,
    /// A frame that would make the outbox larger is not accepted, in bytes. Default 1 MiB.
    pub bytes_max: usize,
    /// What happens to a frame that is not accepted. Default [`AtLimit::Close`].
    pub at_limit: AtLimit,
}

/// What happens when a frame does not fit into an outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtLimit {
    /// The connection is closed with 1008.
    Close,
    /// The frame is skipped and counted; the connection stays.
    Skip,
}

impl Limits {
    /// The answer to a sender behind whom so many bytes wait.
    #[must_use]
    pub const fn pressure(&self, bytes: usize) -> Pushed {
        if bytes > self.bytes_high_water {
            Pushed::Pressed
        } else {
            Pushed::Queued
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes_high_water: 64 * 1024,
            bytes_max: 1024 * 1024,
            at_limit: AtLimit::Close,
        }
    }
}

/// The answer to a frame: pressure is a value, and a sender never waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It waits or was written; there is room for more.
    Queued,
    /// It waits, and the high-water mark is passed: send less, or nothing, for a while.
    Pressed,
    /// It was not accepted.
    Full,
}

/// Whose frames wait: those of a channel can be taken back until they begin to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// The channel, as its table of subscribers names it; 0 for the connection's own frames.
    pub tag: Tag,
    /// Messages in the frames.
    pub messages: u32,
}

impl Label {
    /// Of a frame that is not a channel's.
    pub const OWN: Self = Self {
        tag: 0,
        messages: 0,
    };

    /// Of a piece of such a frame, but for its last.
    const OWN_CONTINUED: Self = Self {
        tag: 0,
        messages: 1,
    };

    const fn is_continued(self) -> bool {
        self.tag == Self::OWN_CONTINUED.tag && self.messages == Self::OWN_CONTINUED.messages
    }
}

/// Bytes that wait, in the order in which they must leave.
#[derive(Debug)]
pub struct Outbox {
    wire: Pieces,
    frames: VecDeque<(Bytes, Label)>,
    /// The block of own frames at the end of the queue, behind `frames`, that takes more of them.
    tail: Vec<u8>,
    bytes: usize,
    /// Where the front of the queue stands, counted from where it began. It moves on with what leaves and
    /// back with what is put in front, so that the end moves with what is put behind only.
    front: i64,
    /// Where the last of the connection's own replies ends; before everything, if there was none.
    replies_end: i64,
    was_cut: bool,
    progress_at: Tick,
}

impl Outbox {
    /// An empty outbox, made because bytes are about to wait.
    #[must_use]
    pub const fn new(now: Tick) -> Self {
        Self {
            wire: Pieces::new(),
            frames: VecDeque::new(),
            tail: Vec::new(),
            bytes: 0,
            front: 0,
            replies_end: i64::MIN,
            was_cut: false,
            progress_at: now,
        }
    }

    /// Bytes that wait.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where the front of the queue stands: what was put in when its [`end`](Self::end) stood there or
    /// before has left.
    #[must_use]
    pub const fn front(&self) -> i64 {
        self.front
    }

    /// Where the end of the queue stands.
    #[must_use]
    pub const fn end(&self) -> i64 {
        self.front + as_position(self.bytes)
    }

    /// Whether frames have been abandoned: what stood behind the end never leaves.
    #[must_use]
    pub const fn was_cut(&self) -> bool {
        self.was_cut
    }

    /// Whether nothing waits any more.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Whether some of what waits are the connection's own replies: then no more is read from it.
    #[must_use]
    pub const fn has_replies(&self) -> bool {
        self.replies_end > self.front
    }

    /// When the socket last took a byte, or when waiting began.
    #[must_use]
    pub const fn progress_at(&self) -> Tick {
        self.progress_at
    }

    /// Appends a copy of a frame, given in parts, if it fits.
    pub fn push(&mut self, frame: &[&[u8]], is_reply: bool, limits: &Limits) -> Pushed {
        if !self.has_room(frame.iter().map(|part| part.len()).sum(), limits) {
            return Pushed::Full;
        }
        self.push_always(frame, is_reply);
        limits.pressure(self.bytes)
    }

    /// Appends a copy of what must not be lost whatever the limits say: a close frame, and the rest of a
    /// write.
    pub fn push_always(&mut self, frame: &[&[u8]], is_reply: bool) {
        let bytes: usize = frame.iter().map(|part| part.len()).sum();
        if self.tail.len() + bytes > PIECE_BYTES_MAX {
            self.end_tail(Label::OWN);
        }
        for part in frame {
            let mut rest = *part;
            loop {
                let (fits, more) = rest.split_at(rest.len().min(PIECE_BYTES_MAX - self.tail.len()));
                reserve(&mut self.tail, fits.len());
                self.tail.extend_from_slice(fits);
                if more.is_empty() {
                    break;
                }
                self.end_tail(Label::OWN_CONTINUED);
                rest = more;
            }
        }
        self.bytes += bytes;
        if is_reply {
            self.replies_end = self.end();
        }
    }

    /// Lets what comes next stand by itself, behind the block that took own frames so far.
    fn end_tail(&mut self, label: Label) {
        if !self.tail.is_empty() {
            self.frames
                .push_back((mem::take(&mut self.tail).into(), label));
        }
    }

    /// Whether a frame of so many bytes fits.
    #[must_use]
    pub const fn has_room(&self, bytes: usize, limits: &Limits) -> bool {
        self.bytes + bytes <= limits.bytes_max
    }

    /// Appends frames of a channel, if they fit.
    pub fn push_published(&mut self, frames: Bytes, label: Label, limits: &Limits) -> Pushed {
        if !self.has_room(frames.len(), limits) {
            return Pushed::Full;
        }
        self.end_tail(Label::OWN);
        self.bytes += frames.len();
        self.frames.push_back((frames, label));
        limits.pressure(self.bytes)
    }

    /// Takes back frames of a channel that have not begun to leave: the oldest until there is room for
    /// `room` bytes more, or all of them if `None`. Returns the messages taken back. O(frames).
    pub fn take_back(&mut self, tag: Tag, room: Option<usize>, limits: &Limits) -> u64 {
        self.retain(|label, bytes| {
            let has_room = room.is_some_and(|room| bytes + room <= limits.bytes_max);
            label.tag != tag || has_room
        })
    }

    /// Takes back the frames of all channels that have not begun to leave. Returns the messages taken back.
    pub fn take_back_all(&mut self) -> u64 {
        self.retain(|label, _| label.tag == Label::OWN.tag)
    }

    /// Keeps the frames that `stays` wants to keep, knowing how many bytes wait; returns the messages in
    /// the others.
    fn retain(&mut self, stays: impl Fn(Label, usize) -> bool) -> u64 {
        let (mut taken, mut from_before_replies_end) = (0, 0);
        let mut end = self.wire_end();
        let (bytes, replies_end) = (&mut self.bytes, self.replies_end);
        self.frames.retain(|(frames, label)| {
            end += as_position(frames.len());
            let stays = stays(*label, *bytes);
            if !stays {
                *bytes -= frames.len();
                taken += u64::from(label.messages);
                if end <= replies_end {
                    from_before_replies_end += as_position(frames.len());
                }
            }
            stays
        });
        self.replies_end -= from_before_replies_end;
        self.was_cut |= taken > 0;
        taken
    }

    /// Puts a copy of bytes in their final form in front of all frames and behind what is already in that
    /// form.
    pub fn push_wire(&mut self, rest: &[u8], is_reply: bool) {
        self.wire.copy(rest);
        self.moved_back(rest.len(), is_reply);
    }

    /// Puts the rest of a frame that others wait for as well, and that has begun to leave, where
    /// [`push_wire`](Self::push_wire) puts a copy.
    pub fn push_begun(&mut self, rest: Bytes) {
        let bytes = rest.len();
        self.wire.share(rest);
        self.moved_back(bytes, false);
    }

    /// Keeps the books of bytes that have come in front of all frames.
    fn moved_back(&mut self, bytes: usize, is_reply: bool) {
        if !self.has_replies() {
            // They have left, wherever the front is from now on.
            self.replies_end = i64::MIN;
        }
        self.bytes += bytes;
        self.front -= as_position(bytes);
        if is_reply && bytes > 0 {
            self.replies_end = self.replies_end.max(self.wire_end());
        }
    }

    /// Where what is in its final form ends.
    const fn wire_end(&self) -> i64 {
        self.front + as_position(self.wire.len())
    }

    /// Keeps what a socket refused of a vectored write, all but the first `written` bytes of `parts`:
    /// copies it, as [`push_wire`](Self::push_wire).
    pub fn push_refused(&mut self, parts: &[IoSlice<'_>], mut written: usize, is_reply: bool) {
        for part in parts {
            let taken = written.min(part.len());
            self.push_wire(&part[taken..], is_reply);
            written -= taken;
        }
    }

    /// Drops the frames that have not begun to leave, but for own ones in one block with one that has;
    /// returns how many bytes that were. What follows still meets the peer at a frame's beginning.
    pub fn abandon_frames(&mut self) -> usize {
        let dropped = self.bytes - self.wire.len();
        self.frames.clear();
        self.tail = Vec::new();
        self.bytes = self.wire.len();
        self.replies_end = self.replies_end.min(self.end());
        self.was_cut = true;
        dropped
    }

    /// The bytes that are in their final form.
    #[must_use]
    pub const fn wire(&self) -> &Pieces {
        &self.wire
    }

    /// Takes whole frames from the front, at least one and at most about `bytes_max` bytes, appending
    /// them to `out`: the plaintext of the next TLS record. Returns whether the last of the connection's
    /// own replies is among them.
    pub fn take_frames(&mut self, bytes_max: usize, out: &mut Vec<u8>) -> bool {
        let had_replies = self.has_replies();
        let mut is_within = false;
        while let Some((frame, label)) = self
            .next_frame(|frame| is_within || out.is_empty() || out.len() + frame.len() <= bytes_max)
        {
            is_within = label.is_continued();
            out.extend_from_slice(&frame);
            self.bytes -= frame.len();
            self.front += as_position(frame.len());
        }
        had_replies && !self.has_replies()
    }

    /// Takes what stands behind the wire, the block at the end at last, if it is wanted.
    fn next_frame(&mut self, is_wanted: impl Fn(&[u8]) -> bool) -> Option<(Bytes, Label)> {
        match self.frames.front() {
            Some((frame, _)) => is_wanted(frame).then(|| self.frames.pop_front()).flatten(),
            None if self.tail.is_empty() || !is_wanted(&self.tail) => None,
            None => Some((mem::take(&mut self.tail).into(), Label::OWN)),
        }
    }

    /// Fills `slices` with what waits, for a vectored write; returns how many were filled.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let frames = self.frames.iter().map(|(frame, _)| frame);
        let waiting = self.wire.iter().chain(frames).map(|bytes| &bytes[..]);
        fill(
            slices,
            waiting.chain(Some(&self.tail[..]).filter(|tail| !tail.is_empty())),
        )
    }

    /// Fills `slices` with what waits in its final form, as [`slices`](Self::slices).
    pub fn wire_slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        fill(slices, self.wire.iter().map(|bytes| &bytes[..]))
    }

    /// Forgets the first `written` bytes: the socket took them. A frame that has begun to leave counts
    /// as `wire` from then on.
    pub fn advance(&mut self, mut written: usize, now: Tick) {
        debug_assert!(
            written <= self.bytes,
            "the socket cannot take more than it was given"
        );
        if written > 0 {
            self.progress_at = now;
        }
        self.bytes -= written;
        self.front += as_position(written);
        let from_wire = written.min(self.wire.len());
        self.wire.advance(from_wire);
        written -= from_wire;
        let mut is_within = false;
        while written > 0 || is_within {
            let Some((mut frame, label)) = self.next_frame(|_| true) else {
                break;
            };
            is_within = label.is_continued();
            let taken = written.min(frame.len());
            written -= taken;
            frame.advance(taken);
            self.wire.share(frame);
        }
        debug_assert_eq!(
            self.bytes,
            self.wire.len()
                + self.tail.len()
                + self
                    .frames
                    .iter()
                    .map(|(frame, _)| frame.len())
                    .sum::<usize>()
        );
    }
}

fn fill<'a>(slices: &mut [IoSlice<'a>], waiting: impl Iterator<Item = &'a [u8]>) -> usize {
    let mut filled = 0;
    for (slice, bytes) in slices.iter_mut().zip(waiting) {
        *slice = IoSlice::new(bytes);
        filled += 1;
    }
    filled
}

/// Makes room for so many bytes more: twice what there was, but not more than a piece.
fn reserve(tail: &mut Vec<u8>, bytes: usize) {
    if tail.capacity() - tail.len() < bytes {
        let doubled = (2 * tail.capacity()).min(PIECE_BYTES_MAX);
        tail.reserve_exact(bytes.max(doubled - tail.len()));
    }
}

/// A number of bytes as a step of a position. An outbox is far smaller than 2^63 bytes.
#[expect(clippy::cast_possible_wrap, reason = "no memory holds 2^63 bytes")]
const fn as_position(bytes: usize) -> i64 {
    bytes as i64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(bytes_max: usize) -> Limits {
        Limits {
            bytes_high_water: bytes_max / 2,
            bytes_max,
            at_limit: AtLimit::Close,
        }
    }

    #[test]
    fn a11_the_limit_holds_at_minus_one_zero_and_plus_one() {
        for (length, answer) in [
            (99, Pushed::Pressed),
            (100, Pushed::Pressed),
            (101, Pushed::Full),
        ] {
            let mut outbox = Outbox::new(0);
            assert_eq!(
                outbox.push(&[&vec![0; length]], false, &limits(100)),
                answer
            );
            assert_eq!(
                outbox.bytes(),
                if answer == Pushed::Full { 0 } else { length }
            );
        }
    }

    #[test]
    fn pressure_begins_above_the_high_water_mark() {
        for (length, answer) in [
            (49, Pushed::Queued),
            (50, Pushed::Queued),
            (51, Pushed::Pressed),
        ] {
            let mut outbox = Outbox::new(0);
            assert_eq!(
                outbox.push(&[&vec![0; length]], false, &limits(100)),
                answer
            );
        }
    }

    #[test]
    fn many_small_replies_share_a_block() {
        let mut outbox = Outbox::new(0);
        for number in 0..1000_u32 {
            outbox.push_always(&[&number.to_be_bytes(), b"0123456789abcdef"], true);
        }
        let mut slices = [IoSlice::new(&[]); 8];
        let filled = outbox.slices(&mut slices);
        let lengths: Vec<_> = slices[..filled].iter().map(|slice| slice.len()).collect();
        // Whole frames: none is cut for the sake of a full block.
        assert_eq!(lengths, [14_320, 5_680]);
        let label = Label {
            tag: 1,
            messages: 1,
        };
        outbox.push_published(Bytes::from_static(b"published"), label, &limits(100_000));
        outbox.push_always(&[b"behind it"], true);
        assert_eq!(outbox.take_back_all(), 1);
        let mut out = Vec::new();
        outbox.take_frames(usize::MAX, &mut out);
        assert!(out.ends_with(b"abcdefbehind it"));
    }

    /// Frames of ten bytes each, two messages in each, of the channels 1 and 2 in turn.
    fn of_two_channels(count: u8) -> Outbox {
        let mut outbox = Outbox::new(0);
        for number in 0..count {
            let label = Label {
                tag: 1 + u32::from(number % 2),
                messages: 2,
            };
            let frame = Bytes::from(vec![b'0' + number; 10]);
            outbox.push_published(frame, label, &limits(1000));
        }
        outbox
    }

    fn waiting(outbox: &Outbox) -> String {
        let mut slices = [IoSlice::new(&[]); 9];
        let filled = outbox.slices(&mut slices);
        let first = |slice: &IoSlice<'_>| char::from(slice[0]);
        slices[..filled].iter().map(first).collect()
    }

    #[test]
    fn x40_the_oldest_frames_of_a_channel_make_room_for_its_next() {
        for (room, expected, taken) in [
            (40, "012345", 0),
            (41, "12345", 2),
            (60, "1345", 4),
            (61, "135", 6),
        ] {
            let mut outbox = of_two_channels(6);
            assert_eq!(outbox.take_back(1, Some(room), &limits(100)), taken);
            assert_eq!(waiting(&outbox), expected, "room for {room}");
            assert_eq!(outbox.bytes(), 10 * expected.len());
        }
    }

    #[test]
    fn g8_what_has_begun_to_leave_stays_and_the_rest_of_a_channel_is_taken_back() {
        let mut outbox = of_two_channels(6);
        outbox.push_always(&[b"own"], true);
        outbox.advance(5, 1);
        assert_eq!(outbox.take_back(1, None, &limits(100)), 4);
        assert_eq!(waiting(&outbox), "0135o");
        assert_eq!(outbox.take_back_all(), 6);
        assert_eq!((waiting(&outbox).as_str(), outbox.bytes()), ("0o", 8));
        assert!(outbox.has_replies());
        outbox.advance(8, 2);
        assert!(outbox.is_empty() && !outbox.has_replies());
    }

    #[test]
    fn a_reply_counts_until_it_has_left_whatever_is_taken_back_around_it() {
        let mut outbox = of_two_channels(2);
        outbox.push_always(&[b"own"], true);
        for number in 0..4 {
            let frames = Bytes::from(vec![b'a' + number; 10]);
            let label = Label {
                tag: 1 + u32::from(number % 2),
                messages: 1,
            };
            outbox.push_published(frames, label, &limits(1000));
        }
        // In front of the reply and behind it.
        assert_eq!(outbox.take_back(1, None, &limits(1000)), 4);
        assert_eq!(waiting(&outbox), "1obd");
        outbox.advance(12, 1);
        assert!(outbox.has_replies(), "one byte of it waits");
        outbox.advance(1, 1);
        assert!(!outbox.has_replies() && outbox.bytes() == 20);
        outbox.push_always(&[b"own"], true);
        outbox.abandon_frames();
        assert!(!outbox.has_replies());
    }

    #[test]
    fn abandoning_keeps_the_frame_that_has_begun_and_its_block() {
        let mut outbox = Outbox::new(0);
        outbox.push_always(&[b"fi", b"r"], true);
        outbox.push_always(&[b"st"], true);
        let label = Label {
            tag: 1,
            messages: 1,
        };
        outbox.push_published(Bytes::from_static(b"second"), label, &limits(100));
        outbox.push_always(&[b"third"], true);
        outbox.advance(2, 9);
        assert_eq!(
            (outbox.abandon_frames(), wire_of(&outbox)),
            (11, b"rst".to_vec())
        );
        outbox.push_always(&[b"close"], true);
        let mut slices = [IoSlice::new(&[]); 4];
        let filled = outbox.slices(&mut slices);
        assert_eq!(
            slices[..filled]
                .iter()
                .flat_map(|slice| slice.to_vec())
                .collect::<Vec<_>>(),
            b"rstclose"
        );
        assert_eq!(outbox.progress_at(), 9);
    }

    fn wire_of(outbox: &Outbox) -> Vec<u8> {
        let pieces = outbox.wire().iter();
        pieces.flat_map(|piece| piece.to_vec()).collect()
    }

    /// Few bytes, or as many as are kept in more than one piece.
    fn some_bytes() -> impl Strategy<Value = Vec<u8>> {
        let many = (PIECE_BYTES_MAX - 1..40_000, any::<usize>());
        let many = many.prop_map(|(length, first)| {
            (0..length)
                .map(|at| first.wrapping_add(at).to_le_bytes()[0])
                .collect()
        });
        prop_oneof![3 => prop::collection::vec(any::<u8>(), 0..40), 1 => many]
    }

    proptest! {
        /// A frame kept in several pieces is one frame: it is taken as a whole, and once it has begun
        /// to leave, the rest of it stays whatever is dropped, with those that share its block.
        #[test]
        fn a_frame_in_pieces_is_one_frame(
            frames in prop::collection::vec(some_bytes(), 1..6),
            written: prop::sample::Index,
            bytes_max in 0usize..60_000,
        ) {
            let mut outbox = Outbox::new(0);
            let mut ends = vec![0];
            for frame in &frames {
                outbox.push_always(&[frame], true);
                ends.push(outbox.bytes());
            }
            let whole = frames.concat();
            let mut taken = Vec::new();
            outbox.take_frames(bytes_max, &mut taken);
            prop_assert!(ends.contains(&taken.len()));
            let rest = &whole[taken.len()..];
            let written = written.index(rest.len() + 1);
            outbox.advance(written, 1);
            let at = taken.len() + written;
            let end_of_frame = ends.iter().find(|end| **end >= at).map_or(0, |end| *end);
            outbox.abandon_frames();
            let kept = wire_of(&outbox);
            prop_assert_eq!(outbox.bytes(), kept.len());
            prop_assert_eq!(&kept, &whole[at..at + kept.len()]);
            prop_assert!(ends.contains(&(at + kept.len())));
            prop_assert!(kept.len() >= end_of_frame - at);
            prop_assert!(kept.len() < end_of_frame - at + PIECE_BYTES_MAX);
            prop_assert!(written > 0 || kept.is_empty());
        }

        /// Whatever the socket took of a write, the rest is kept, behind what waited before.
        #[test]
        fn what_is_refused_of_a_write_is_kept(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..5),
            taken: prop::sample::Index,
            before in prop::collection::vec(any::<u8>(), 0..3),
        ) {
            let whole = parts.concat();
            let taken = taken.index(whole.len() + 1);
            let slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
            let mut outbox = Outbox::new(0);
            outbox.push_wire(&before, false);
            outbox.push_refused(&slices, taken, true);
            prop_assert_eq!(wire_of(&outbox), [&before[..], &whole[taken..]].concat());
            prop_assert_eq!(outbox.bytes(), outbox.wire().len());
            prop_assert_eq!(outbox.has_replies(), taken < whole.len());
        }

        /// It emits exactly what was put in, whatever the sizes of the writes.
        #[test]
        fn everything_leaves_in_order_and_once(
            steps in prop::collection::vec((0u8..4, some_bytes(), prop_oneof![0usize..60, 0usize..50_000]), 1..100),
        ) {
            let mut outbox = Outbox::new(0);
            let (mut put, mut left) = (Vec::new(), Vec::new());
            // Where the end stood when so many bytes had been put in.
            let mut stood: Vec<(i64, usize)> = Vec::new();
            // How many bytes had been put in behind the last reply.
            let mut replies_end = 0;
            let limits = limits(100_000);
            for (what, bytes, count) in steps {
                match what {
                    0 => {
                        let is_reply = count % 3 == 0;
                        if outbox.push(&[&bytes], is_reply, &limits) != Pushed::Full {
                            put.extend(bytes);
                            replies_end = if is_reply { put.len() } else { replies_end };
                        }
                    }
                    1 if outbox.is_empty() => {
                        // An outbox lives until it is empty; what a socket refuses next makes another.
                        (outbox, stood) = (Outbox::new(0), Vec::new());
                        outbox.push_wire(&bytes, true);
                        put.extend(bytes);
                        replies_end = put.len();
                    }
                    2 if outbox.wire().is_empty() => {
                        // A TLS connection: plaintext out, the same bytes back as ciphertext.
                        let mut plain = Vec::new();
                        let is_reply = outbox.take_frames(count, &mut plain);
                        outbox.push_wire(&plain, is_reply);
                        if is_reply {
                            // A record leaves as a whole.
                            replies_end = left.len() + outbox.wire().len();
                        }
                    }
                    _ => {
                        let mut slices = [IoSlice::new(&[]); 3];
                        let filled = outbox.slices(&mut slices);
                        let written: Vec<u8> = slices[..filled].iter().flat_map(|s| s.to_vec()).take(count).collect();
                        outbox.advance(written.len(), 1);
                        left.extend(written);
                    }
                }
                prop_assert!(outbox.bytes() <= 100_000 + 40_000);
                prop_assert_eq!(put.len(), left.len() + outbox.bytes());
                prop_assert_eq!(outbox.has_replies(), replies_end > left.len());
                stood.push((outbox.end(), put.len()));
                for (end, bytes) in &stood {
                    prop_assert_eq!(*end <= outbox.front(), *bytes <= left.len());
                }
            }
            while !outbox.is_empty() {
                let mut slices = [IoSlice::new(&[]); 8];
                let filled = outbox.slices(&mut slices);
                let written: Vec<u8> = slices[..filled].iter().flat_map(|s| s.to_vec()).collect();
                outbox.advance(written.len(), 2);
                left.extend(written);
            }
            prop_assert_eq!(put, left);
        }
    }
}
