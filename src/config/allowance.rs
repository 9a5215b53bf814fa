//! How much may come in which time, as an operator writes it: `"20/s burst 1000"`, `"50 burst 100"`,
//! `"256KiB burst 1MiB"`.
//!
//! What is written is kept beside the [`Quota`] it amounts to, which has lost it: a quota is a whole
//! number of nanoseconds, and a printed configuration is to say what was asked for.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::admission::rate::{Quota, QuotaError};

use super::units;

/// An amount per period, and how much of it may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    amount: u64,
    period: Period,
    burst: u64,
    quota: Quota,
}

/// The time an [`Allowance`] is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// One second.
    Second,
    /// 60 seconds.
    Minute,
    /// 3600 seconds.
    Hour,
}

impl Period {
    const ALL: [Self; 3] = [Self::Second, Self::Minute, Self::Hour];

    const fn duration(self) -> Duration {
        Duration::from_secs(match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
        })
    }

    const fn letter(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Minute => "m",
            Self::Hour => "h",
        }
    }
}

impl Allowance {
    /// `amount` in each `period`, and at most `burst` at once.
    ///
    /// # Errors
    /// [`QuotaError`] where it could never grant anything, or cannot be represented.
    pub fn new(amount: u64, period: Period, burst: u64) -> Result<Self, QuotaError> {
        Ok(Self {
            amount,
            period,
            burst,
            quota: Quota::new(amount, period.duration(), burst)?,
        })
    }

    /// What it amounts to.
    #[must_use]
    pub const fn quota(&self) -> Quota {
        self.quota
    }

    /// How much in each period.
    #[must_use]
    pub const fn amount(&self) -> u64 {
        self.amount
    }

    /// How much at once.
    #[must_use]
    pub const fn burst(&self) -> u64 {
        self.burst
    }
}

/// What a key allows an amount of, and so how it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Measure {
    /// Events in a period that is written with them: `"20/s burst 1000"`.
    Events,
    /// Things in the key's own period: `"50 burst 100"`.
    Things(Period),
    /// Bytes in the key's own period: `"256KiB burst 1MiB"`.
    Bytes(Period),
}

/// Why an allowance was refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is not of the form that is accepted.
    Form,
    /// It is of another period than the key's, or of none where one is needed.
    Period,
    /// The amount or the burst is out of range.
    Range,
}

impl Measure {
    /// Reads what [`Measure::write`] writes, and a burst that is left out as one period's amount.
    pub(super) fn read(self, text: &str) -> Result<Allowance, Fault> {
        let mut words = text.split_whitespace();
        let first = words.next().ok_or(Fault::Form)?;
        let (amount, period) = match self {
            Self::Things(period) | Self::Bytes(period) => (first, period),
            Self::Events => {
                let (amount, letter) = first.split_once('/').ok_or(Fault::Period)?;
                let mut all = Period::ALL.into_iter();
                let period = all.find(|period| period.letter() == letter);
                (amount, period.ok_or(Fault::Period)?)
            }
        };
        let amount = self.read_amount(amount)?;
        let burst = match (words.next(), words.next(), words.next()) {
            (None, ..) => amount,
            (Some("burst"), Some(burst), None) => self.read_amount(burst)?,
            _ => return Err(Fault::Form),
        };
        let (amounts, bursts) = self.ranges(period);
        if !amounts.contains(&amount) || !bursts.contains(&burst) {
            return Err(Fault::Range);
        }
        Allowance::new(amount, period, burst).map_err(|_| Fault::Range)
    }

    fn read_amount(self, text: &str) -> Result<u64, Fault> {
        if let Self::Bytes(_) = self {
            return units::parse_size(text).map_err(|_| Fault::Form);
        }
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number {
            return Err(if text.contains('/') {
                Fault::Period
            } else {
                Fault::Form
            });
        }
        // More than 64 bits can say is out of range, whatever the range.
        text.parse().map_err(|_| Fault::Range)
    }

    /// The text of an allowance; a burst of one period's amount is left out.
    pub(super) fn write(self, allowance: &Allowance) -> String {
        let amount = |amount: u64| match self {
            Self::Bytes(_) => units::format_size(amount),
            Self::Events | Self::Things(_) => amount.to_string(),
        };
        let mut text = amount(allowance.amount);
        if self == Self::Events {
            text = format!("{text}/{}", allowance.period.letter());
        }
        if allowance.burst != allowance.amount {
            text = format!("{text} burst {}", amount(allowance.burst));
        }
        text
    }

    /// Whether an allowance that a program made could have been written.
    pub(super) fn accepts(self, allowance: &Allowance) -> bool {
        let is_own_period = match self {
            Self::Events => true,
            Self::Things(period) | Self::Bytes(period) => period == allowance.period,
        };
        let (amounts, bursts) = self.ranges(allowance.period);
        is_own_period && amounts.contains(&allowance.amount) && bursts.contains(&allowance.burst)
    }

    /// Amounts and bursts that are limits at all, and that a [`Quota`] keeps to within 7 %.
    pub(super) const fn ranges(self, period: Period) -> (RangeInclusive<u64>, RangeInclusive<u64>) {
        const MIB: u64 = 1 << 20;
        let max = match (self, period) {
            (Self::Events | Self::Things(_), _) => return (1..=1_000_000, 1..=1_000_000),
            (Self::Bytes(_), Period::Second) => 64 * MIB,
            (Self::Bytes(_), Period::Minute | Period::Hour) => 4096 * MIB,
        };
        (1_024..=max, 1_024..=4096 * MIB)
    }

    /// An example, for messages.
    pub(super) const fn example(self) -> &'static str {
        match self {
            Self::Events => "20/s burst 1000",
            Self::Things(_) => "50 burst 100",
            Self::Bytes(_) => "256KiB burst 1MiB",
        }
    }
}

impl fmt::Display for Measure {
    /// The accepted values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let example = self.example();
        let period = match self {
            Self::Events => {
                return write!(
                    f,
                    "1 to 1000000 per s, m or h, with or without a burst: \"{example}\""
                );
            }
            Self::Things(period) | Self::Bytes(period) => *period,
        };
        let (amounts, _) = self.ranges(period);
        let [from, to] = [*amounts.start(), *amounts.end()].map(|amount| match self {
            Self::Bytes(_) => units::format_size(amount),
            Self::Events | Self::Things(_) => amount.to_string(),
        });
        write!(f, "{from} to {to}, with or without a burst: \"{example}\"")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MESSAGES: Measure = Measure::Things(Period::Second);
    const BYTES: Measure = Measure::Bytes(Period::Second);

    #[test]
    fn what_is_written_is_understood_or_refused_with_the_reason() {
        use Fault::{Form, Period as OfPeriod, Range};
        use Period::{Hour, Minute, Second};
        for (measure, text, expected) in [
            (Measure::Events, "20/s burst 1000", Ok((20, Second, 1_000))),
            (Measure::Events, "10/h", Ok((10, Hour, 10))),
            (Measure::Events, "  5/m   burst 1 ", Ok((5, Minute, 1))),
            (Measure::Events, "20", Err(OfPeriod)),
            (Measure::Events, "20/d", Err(OfPeriod)),
            (Measure::Events, "20/", Err(OfPeriod)),
            (Measure::Events, "/s", Err(Form)),
            (Measure::Events, "-1/s", Err(Form)),
            (Measure::Events, "20/s burst", Err(Form)),
            (Measure::Events, "20/s bust 3", Err(Form)),
            (Measure::Events, "20/s burst 3 4", Err(Form)),
            (Measure::Events, "20/s burst 3/s", Err(OfPeriod)),
            (Measure::Events, "", Err(Form)),
            (MESSAGES, "50 burst 100", Ok((50, Second, 100))),
            (MESSAGES, "50", Ok((50, Second, 50))),
            (MESSAGES, "50/s", Err(OfPeriod)),
            (MESSAGES, "50KiB", Err(Form)),
            (BYTES, "256KiB burst 1MiB", Ok((262_144, Second, 1_048_576))),
            (BYTES, "256 burst 1MiB", Err(Form)),
            (BYTES, "256KiB burst 5", Err(Form)),
            // Ranges at −1, 0 and +1.
            (MESSAGES, "0", Err(Range)),
            (MESSAGES, "1", Ok((1, Second, 1))),
            (MESSAGES, "1 burst 0", Err(Range)),
            (MESSAGES, "999999", Ok((999_999, Second, 999_999))),
            (MESSAGES, "1000000", Ok((1_000_000, Second, 1_000_000))),
            (MESSAGES, "1000001", Err(Range)),
            (MESSAGES, "1 burst 1000001", Err(Range)),
            (MESSAGES, "99999999999999999999", Err(Range)),
            (
                Measure::Events,
                "1/h burst 1000000",
                Ok((1, Hour, 1_000_000)),
            ),
            (Measure::Events, "1000001/h", Err(Range)),
            (BYTES, "1023B", Err(Range)),
            (BYTES, "1KiB", Ok((1_024, Second, 1_024))),
            (BYTES, "64MiB", Ok((64 << 20, Second, 64 << 20))),
            (BYTES, "65537KiB", Err(Range)),
            (BYTES, "1KiB burst 4GiB", Ok((1_024, Second, 4 << 30))),
            (BYTES, "1KiB burst 4194305KiB", Err(Range)),
            (
                Measure::Bytes(Minute),
                "1KiB burst 4GiB",
                Ok((1_024, Minute, 4 << 30)),
            ),
            (
                Measure::Bytes(Minute),
                "4GiB",
                Ok((4 << 30, Minute, 4 << 30)),
            ),
        ] {
            let found = measure.read(text);
            let found = found.map(|found| (found.amount, found.period, found.burst));
            assert_eq!(found, expected, "{measure:?} {text:?}");
        }
    }

    #[test]
    fn a_quota_grants_what_was_written() {
        let found = Measure::Events.read("20/s burst 1000").unwrap().quota();
        assert_eq!(
            found,
            Quota::new(20, Duration::from_secs(1), 1_000).unwrap()
        );
        assert_eq!(found.burst(), 1_000);
    }

    proptest! {
        #[test]
        fn reading_undoes_writing(amount in 1..=1_000_000_u64, burst in 1..=1_000_000_u64, kind in 0..5_usize) {
            let measure = [
                Measure::Events,
                MESSAGES,
                Measure::Things(Period::Minute),
                BYTES,
                Measure::Bytes(Period::Minute),
            ][kind];
            let period = match measure {
                Measure::Events => Period::Hour,
                Measure::Things(period) | Measure::Bytes(period) => period,
            };
            let scale = if matches!(measure, Measure::Bytes(_)) { 64 } else { 1 };
            let allowance = Allowance::new(amount * scale, period, burst * scale).unwrap();
            prop_assume!(measure.accepts(&allowance));
            prop_assert_eq!(measure.read(&measure.write(&allowance)), Ok(allowance));
        }
    }
}
