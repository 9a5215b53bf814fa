//! Sizes and durations as an operator writes them: a whole number and its unit, `"64KiB"`, `"250ms"`.
//!
//! A number without a unit is refused, because `timeout = 30` is read as seconds by one person and
//! as milliseconds by the next. Units are binary for sizes and exact for durations, so that
//! [`parse_size`] undoes [`format_size`] and [`parse_duration`] undoes [`format_duration`].

use std::time::Duration;

/// One KiB, in bytes.
pub const KIB: usize = 1024;
/// One MiB, in bytes.
pub const MIB: usize = 1024 * KIB;

/// Why a size or duration was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitError {
    /// Digits only: the unit is missing.
    NoUnit(u64),
    /// The number is followed by something that is no unit of this kind.
    UnknownUnit,
    /// The text does not start with a whole number.
    NotANumber,
    /// The value is larger than 64 bits can say.
    TooLarge,
}

/// Reads a size such as `"64KiB"`, in bytes. Units: B, KiB, MiB, GiB.
///
/// # Errors
/// [`UnitError`], also for the decimal `"64KB"` and for fractions: a limit should not depend on
/// which of two meanings of "kilo" its reader had in mind.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    parse(text, &SIZES)
}

/// Reads a duration such as `"250ms"`. Units: ms, s, m, h.
///
/// # Errors
/// [`UnitError`], also for fractions and sums: `"1.5s"` is written `"1500ms"`.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    parse(text, &DURATIONS).map(Duration::from_millis)
}

/// Writes a size in the largest unit that keeps it a whole number.
pub fn format_size(bytes: u64) -> String {
    format(bytes, &SIZES)
}

/// Writes a duration in the largest unit that keeps it a whole number; parts of a millisecond are
/// not written.
pub fn format_duration(duration: Duration) -> String {
    format(
        u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        &DURATIONS,
    )
}

/// Unit names with their factor, smallest first.
type Units = [(&'static str, u64); 4];

const SIZES: Units = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];
const DURATIONS: Units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

fn parse(text: &str, units: &Units) -> Result<u64, UnitError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(UnitError::NotANumber);
    }
    let number: u64 = number.parse().map_err(|_| UnitError::TooLarge)?;
    if unit.is_empty() {
        return Err(UnitError::NoUnit(number));
    }
    let (_, factor) = units
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or(UnitError::UnknownUnit)?;
    number.checked_mul(*factor).ok_or(UnitError::TooLarge)
}

fn format(value: u64, units: &Units) -> String {
    let exact = |(_, factor): &&(&str, u64)| value >= *factor && value.is_multiple_of(*factor);
    let (name, factor) = units.iter().rev().find(exact).unwrap_or(&units[0]);
    format!("{}{name}", value / factor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_a_whole_number_and_a_binary_unit() {
        for (text, expected) in [
            ("0B", Ok(0)),
            ("1B", Ok(1)),
            ("64KiB", Ok(65_536)),
            ("1MiB", Ok(1_048_576)),
            ("3GiB", Ok(3_221_225_472)),
            ("007KiB", Ok(7_168)),
            ("64", Err(UnitError::NoUnit(64))),
            ("64KB", Err(UnitError::UnknownUnit)),
            ("64 KiB", Err(UnitError::UnknownUnit)),
            ("64kib", Err(UnitError::UnknownUnit)),
            ("1.5MiB", Err(UnitError::UnknownUnit)),
            ("5s", Err(UnitError::UnknownUnit)),
            ("", Err(UnitError::NotANumber)),
            ("KiB", Err(UnitError::NotANumber)),
            ("-1B", Err(UnitError::NotANumber)),
            ("+1B", Err(UnitError::NotANumber)),
            ("٣B", Err(UnitError::NotANumber)),
            ("18446744073709551615B", Ok(u64::MAX)),
            ("18446744073709551616B", Err(UnitError::TooLarge)),
            ("17179869184GiB", Err(UnitError::TooLarge)),
        ] {
            assert_eq!(parse_size(text), expected, "{text:?}");
        }
    }

    #[test]
    fn durations_are_a_whole_number_and_a_unit() {
        for (text, expected) in [
            ("0s", Ok(Duration::ZERO)),
            ("250ms", Ok(Duration::from_millis(250))),
            ("10s", Ok(Duration::from_secs(10))),
            ("5m", Ok(Duration::from_secs(300))),
            ("2h", Ok(Duration::from_secs(7_200))),
            ("10", Err(UnitError::NoUnit(10))),
            ("1.5s", Err(UnitError::UnknownUnit)),
            ("1m30s", Err(UnitError::UnknownUnit)),
            ("10sec", Err(UnitError::UnknownUnit)),
            ("64KiB", Err(UnitError::UnknownUnit)),
            ("off", Err(UnitError::NotANumber)),
            ("99999999999999999999s", Err(UnitError::TooLarge)),
        ] {
            assert_eq!(parse_duration(text), expected, "{text:?}");
        }
    }

    #[test]
    fn values_are_written_in_the_largest_exact_unit() {
        for (bytes, text) in [
            (0, "0B"),
            (1_000, "1000B"),
            (65_536, "64KiB"),
            (65_537, "65537B"),
            (1 << 30, "1GiB"),
        ] {
            assert_eq!(format_size(bytes), text);
        }
        for (millis, text) in [
            (0, "0ms"),
            (1_500, "1500ms"),
            (60_000, "1m"),
            (90_000, "90s"),
        ] {
            assert_eq!(format_duration(Duration::from_millis(millis)), text);
        }
    }

    proptest! {
        #[test]
        fn reading_undoes_writing(value: u64) {
            prop_assert_eq!(parse_size(&format_size(value)), Ok(value));
            let duration = Duration::from_millis(value);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
    }
}
