//! Distributions: what is measured, in which unit, and how values become fixed buckets.
//!
//! A [`Histogram`] has a fixed range and two significant digits, so that recording is an index and three
//! adds, never an allocation. What lies beyond the range counts at its end. Sums are kept beside it and
//! are exact.

use std::time::Duration;

use hdrhistogram::Histogram as Hdr;

/// What is measured. Each is recorded in the unit its [`Scale`] names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Measure {
    /// From the completed upgrade to the end of the connection, in milliseconds.
    ConnectionDuration,
    /// Payload of a data message received, in bytes.
    MessageReceived,
    /// Payload of a data message sent, in bytes.
    MessageSent,
    /// From a frame's place in the queue to the kernel's taking its last byte, in microseconds.
    SendLatency,
    /// Time a handshake spent waiting for its PROXY header, in microseconds.
    HandshakeProxy,
    /// Time a handshake spent in TLS, in microseconds.
    HandshakeTls,
    /// Time a handshake spent until its request head was complete, in microseconds.
    HandshakeHead,
    /// Time from the reading of a complete request head to the answer's leaving, in microseconds.
    HandshakeAdmission,
    /// From when a reactor meant to wake to when it did, in microseconds.
    LoopLag,
    /// What a turn of a reactor took, sleep excluded, in microseconds.
    TurnTime,
}

/// How a measure is recorded, and how it is shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// Largest value told apart; beyond it values count as this one.
    pub high: u64,
    /// Recorded units in one base unit (second or byte) of the exposition.
    pub per_base_unit: f64,
    /// Upper bounds of the exposition's buckets, inclusive, ascending, in recorded units.
    pub bounds: &'static [u64],
}

impl Measure {
    /// Every measure, in the order of the tables.
    pub const ALL: [Self; MEASURES] = [
        Self::ConnectionDuration,
        Self::MessageReceived,
        Self::MessageSent,
        Self::SendLatency,
        Self::HandshakeProxy,
        Self::HandshakeTls,
        Self::HandshakeHead,
        Self::HandshakeAdmission,
        Self::LoopLag,
        Self::TurnTime,
    ];

    /// Its scale.
    #[must_use]
    pub const fn scale(self) -> &'static Scale {
        match self {
            Self::ConnectionDuration => &DURATION,
            Self::MessageReceived | Self::MessageSent => &SIZE,
            Self::SendLatency
            | Self::HandshakeProxy
            | Self::HandshakeTls
            | Self::HandshakeHead
            | Self::HandshakeAdmission
            | Self::LoopLag
            | Self::TurnTime => &LATENCY,
        }
    }
}

/// How many measures there are.
pub const MEASURES: usize = 10;

/// Milliseconds, up to 34 days.
static DURATION: Scale = Scale {
    high: (1 << 31) + (1 << 30),
    per_base_unit: 1e3,
    bounds: &[
        100, 1_000, 10_000, 60_000, 300_000, 1_800_000, 3_600_000, 14_400_000, 86_400_000,
    ],
};

/// Bytes, up to 4 GiB.
static SIZE: Scale = Scale {
    high: 1 << 32,
    per_base_unit: 1.0,
    bounds: &[
        64, 256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576, 16_777_216,
    ],
};

/// Microseconds, up to 17 minutes.
static LATENCY: Scale = Scale {
    high: 1 << 30,
    per_base_unit: 1e6,
    bounds: &[
        50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
        1_000_000, 2_500_000, 5_000_000, 10_000_000,
    ],
};

/// One distribution: two significant digits, so a quantile is within 1 % of a value that was recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    counts: Hdr<u64>,
    sum: u64,
}

impl Histogram {
    /// An empty one for values of this scale. Takes about 30 KB.
    #[must_use]
    #[expect(
        clippy::expect_used,
        reason = "the scales are constants; a test makes one of each"
    )]
    pub fn new(scale: &Scale) -> Self {
        Self {
            counts: Hdr::new_with_bounds(1, scale.high, 2)
                .expect("a scale has at least two values"),
            sum: 0,
        }
    }

    /// Counts a value. A few nanoseconds, no allocation.
    #[inline]
    pub fn record(&mut self, value: u64) {
        self.record_many(value, 1);
    }

    /// Counts a value that occurred several times.
    #[inline]
    pub fn record_many(&mut self, value: u64, times: u64) {
        self.counts.saturating_record_n(value, times);
        self.sum = self.sum.saturating_add(value.saturating_mul(times));
    }

    /// Adds another one of the same scale; one of another scale is added value by value.
    pub fn merge(&mut self, other: &Self) {
        if other.counts.high() <= self.counts.high() {
            // Cannot fail: every value of the other is in range.
            let added = self.counts.add(&other.counts);
            debug_assert!(added.is_ok(), "{added:?}");
        } else {
            for bucket in other.counts.iter_recorded() {
                self.counts
                    .saturating_record_n(bucket.value_iterated_to(), bucket.count_at_value());
            }
        }
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// Forgets everything; keeps its memory.
    pub fn clear(&mut self) {
        // Most distributions of most ticks are empty already.
        if !self.counts.is_empty() {
            self.counts.reset();
        }
        self.sum = 0;
    }

    /// How many values were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.len()
    }

    /// The exact sum of the values, clamped ones at their true size.
    #[must_use]
    pub const fn sum(&self) -> u64 {
        self.sum
    }

    /// The largest value, within 1 %; 0 without any.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.counts.max()
    }

    /// The mean; none without values.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "a mean of more than 2^53 units would be shown rounded anyway"
    )]
    pub fn mean(&self) -> Option<f64> {
        (self.count() > 0).then(|| self.sum as f64 / self.count() as f64)
    }

    /// The smallest value that this share (0 to 1) of all values does not exceed, within 1 %; none
    /// without values.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<u64> {
        (self.count() > 0).then(|| self.counts.value_at_quantile(share))
    }

    /// How many values are at most each bound, as OpenMetrics counts buckets; the last, of all values,
    /// is [`Histogram::count`] and not among them. A value within 1 % above a bound, which is not told
    /// apart from it, counts as the bound.
    #[must_use]
    pub fn buckets(&self, bounds: &[u64]) -> Vec<u64> {
        let mut cumulative = Vec::with_capacity(bounds.len());
        let mut recorded = self.counts.iter_recorded().peekable();
        let mut total = 0;
        for &bound in bounds {
            let reach = self.counts.highest_equivalent(bound);
            while let Some(bucket) = recorded.next_if(|b| b.value_iterated_to() <= reach) {
                total += bucket.count_at_value();
            }
            cumulative.push(total);
        }
        cumulative
    }

    /// The counted values with how often each occurred, ascending: what a file needs to keep.
    pub fn recorded(&self) -> impl Iterator<Item = (u64, u64)> {
        self.counts.iter_recorded().map(|bucket| {
            let value = self.counts.lowest_equivalent(bucket.value_iterated_to());
            (value, bucket.count_at_value())
        })
    }

    /// One from values as [`Histogram::recorded`] gave them, and their exact sum.
    #[must_use]
    pub fn restore(
        scale: &Scale,
        recorded: impl IntoIterator<Item = (u64, u64)>,
        sum: u64,
    ) -> Self {
        let mut restored = Self::new(scale);
        for (value, times) in recorded {
            restored.record_many(value, times);
        }
        restored.sum = sum;
        restored
    }
}

/// One distribution of each measure.
#[derive(Debug, Clone, PartialEq)]
pub struct Histograms([Histogram; MEASURES]);

impl Default for Histograms {
    fn default() -> Self {
        Self(Measure::ALL.map(|measure| Histogram::new(measure.scale())))
    }
}

impl Histograms {
    /// Counts a value that so many things have, in the measure's unit.
    #[inline]
    pub fn record_many(&mut self, measure: Measure, value: u64, times: u64) {
        self.0[measure as usize].record_many(value, times);
    }

    /// Counts a value, in the measure's unit.
    #[inline]
    pub fn record(&mut self, measure: Measure, value: u64) {
        self.0[measure as usize].record(value);
    }

    /// Counts a time; for measures of time only.
    #[inline]
    pub fn record_time(&mut self, measure: Measure, time: Duration) {
        let value = match measure {
            Measure::ConnectionDuration => time.as_millis(),
            _ => time.as_micros(),
        };
        self.record(measure, u64::try_from(value).unwrap_or(u64::MAX));
    }

    /// Bytes of heap they hold.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        let counts = self.0.iter().map(|one| one.counts.distinct_values());
        counts.sum::<usize>() * size_of::<u64>()
    }

    /// The distribution of one measure.
    #[must_use]
    pub const fn of(&self, measure: Measure) -> &Histogram {
        &self.0[measure as usize]
    }

    /// Adds the others.
    pub fn merge(&mut self, others: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&others.0) {
            mine.merge(theirs);
        }
    }

    /// Forgets everything; keeps the memory.
    pub fn clear(&mut self) {
        self.0.iter_mut().for_each(Histogram::clear);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_table_of_measures_is_in_order_and_bounds_ascend_within_the_range() {
        for (index, measure) in Measure::ALL.into_iter().enumerate() {
            assert_eq!(measure as usize, index);
            let scale = measure.scale();
            assert!(scale.bounds.is_sorted_by(|a, b| a < b), "{measure:?}");
            assert!(scale.bounds.last().is_some_and(|last| *last < scale.high));
        }
    }

    #[test]
    fn values_beyond_the_range_count_at_its_end_and_keep_the_sum() {
        let mut histogram = Histogram::new(Measure::TurnTime.scale());
        histogram.record(0);
        histogram.record(u64::MAX / 2);
        assert_eq!((histogram.count(), histogram.sum()), (2, u64::MAX / 2));
        assert!(histogram.max() >= Measure::TurnTime.scale().high);
        assert_eq!(histogram.quantile(0.0), Some(0));
    }

    #[test]
    fn an_empty_one_has_no_mean_and_no_quantiles() {
        let mut histogram = Histogram::new(Measure::LoopLag.scale());
        assert_eq!((histogram.mean(), histogram.quantile(0.5)), (None, None));
        histogram.record(7);
        histogram.clear();
        assert_eq!(histogram, Histogram::new(Measure::LoopLag.scale()));
    }

    #[test]
    fn a_bound_counts_in_its_own_bucket() {
        let scale = Measure::SendLatency.scale();
        let mut histogram = Histogram::new(scale);
        for &bound in scale.bounds {
            histogram.record(bound);
        }
        let expected: Vec<u64> = (1..).take(scale.bounds.len()).collect();
        assert_eq!(histogram.buckets(scale.bounds), expected);
    }

    #[test]
    fn times_are_recorded_in_the_measures_unit() {
        let mut all = Histograms::default();
        all.record_time(Measure::ConnectionDuration, Duration::from_secs(3));
        all.record_time(Measure::LoopLag, Duration::from_millis(3));
        assert_eq!(all.of(Measure::ConnectionDuration).sum(), 3_000);
        assert_eq!(all.of(Measure::LoopLag).sum(), 3_000);
        assert_eq!(all.of(Measure::TurnTime).count(), 0);
    }

    proptest! {
        #[test]
        fn merging_is_recording_in_one(
            left in prop::collection::vec(0_u64..1 << 31, 0..50),
            right in prop::collection::vec(0_u64..1 << 31, 0..50),
        ) {
            let scale = Measure::LoopLag.scale();
            let (mut one, mut two, mut both) =
                (Histogram::new(scale), Histogram::new(scale), Histogram::new(scale));
            left.iter().for_each(|&value| one.record(value));
            right.iter().for_each(|&value| two.record(value));
            left.iter().chain(&right).for_each(|&value| both.record(value));
            one.merge(&two);
            prop_assert_eq!(&one, &both);
            let again = Histogram::restore(scale, both.recorded(), both.sum());
            prop_assert_eq!(again.count(), both.count());
            prop_assert_eq!(again.sum(), both.sum());
            prop_assert_eq!(again.buckets(scale.bounds), both.buckets(scale.bounds));
        }

        #[test]
        fn buckets_and_quantiles_are_within_a_hundredth(
            mut values in prop::collection::vec(1_u64..1 << 29, 1..80),
            bound in 1_u64..1 << 29,
        ) {
            let mut histogram = Histogram::new(Measure::LoopLag.scale());
            values.iter().for_each(|&value| histogram.record(value));
            values.sort_unstable();
            let counted = histogram.buckets(&[bound])[0];
            let at_least = values.iter().filter(|&&value| value <= bound).count() as u64;
            let at_most =
                values.iter().filter(|&&value| value <= bound + bound / 100).count() as u64;
            prop_assert!((at_least..=at_most).contains(&counted));
            let middle = values[(values.len() - 1) / 2];
            let found = histogram.quantile(0.5).unwrap();
            prop_assert!(found >= middle && found <= middle + middle / 100, "{found} {middle}");
        }
    }
}
