//! Days and timestamps in UTC, from seconds since 1970: no time zone, no leap second, no clock.

use std::fmt;
use std::str::FromStr;

/// Seconds since 1970-01-01T00:00:00Z, as the wall clock says.
pub type UnixSeconds = u64;

/// A day in UTC. `Display` writes `2025-11-10`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    days: u32,
}

const SECONDS_IN_DAY: u64 = 86_400;

/// 9999-12-31: the last day whose year has four digits.
const DAYS_MAX: u32 = 2_932_896;

impl Date {
    /// The day of a moment; the last day of the year 9999 for all that lies behind it.
    #[must_use]
    pub fn of(moment: UnixSeconds) -> Self {
        let days = u32::try_from(moment / SECONDS_IN_DAY).unwrap_or(DAYS_MAX);
        Self {
            days: days.min(DAYS_MAX),
        }
    }

    /// Year, month and day of the month. Years are counted from March, so that the leap day is the last
    /// day of its year; 400 of them have 146 097 days.
    fn civil(self) -> (u32, u32, u32) {
        // From 1 March of the year 0.
        let days = self.days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        // Five months from March have 153 days, and so have the five after them.
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let (month, is_next_year) = match month_from_march {
            0..=9 => (month_from_march + 3, 0),
            _ => (month_from_march - 9, 1),
        };
        (era * 400 + year_of_era + is_next_year, month, day)
    }

    fn from_civil(year: u32, month: u32, day: u32) -> Option<Self> {
        if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) {
            return None;
        }
        let (year_from_march, month_from_march) = match month {
            3.. => (year, month - 3),
            _ => (year - 1, month + 9),
        };
        let days = 365 * year_from_march + year_from_march / 4 - year_from_march / 100
            + year_from_march / 400
            + (153 * month_from_march + 2) / 5
            + day.checked_sub(1)?;
        let date = Self {
            days: days.checked_sub(719_468)?,
        };
        // A 30th of February has become a day of March.
        (date.civil() == (year, month, day)).then_some(date)
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

/// The text is no day from 1970-01-01 to 9999-12-31.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoDate;

impl FromStr for Date {
    type Err = NoDate;

    fn from_str(text: &str) -> Result<Self, NoDate> {
        let number = |range| -> Option<u32> {
            let digits: &str = text.get(range)?;
            let is_number = digits.bytes().all(|b| b.is_ascii_digit());
            digits.parse().ok().filter(|_| is_number)
        };
        let bytes = text.as_bytes();
        if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
            return Err(NoDate);
        }
        let parts = number(0..4).zip(number(5..7)).zip(number(8..10));
        parts
            .and_then(|((year, month), day)| Self::from_civil(year, month, day))
            .ok_or(NoDate)
    }
}

/// A moment as `2025-11-10T12:00:00Z` (RFC 3339).
#[must_use]
pub fn timestamp(moment: UnixSeconds) -> String {
    let second = moment % SECONDS_IN_DAY;
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    format!(
        "{}T{hour:02}:{minute:02}:{:02}Z",
        Date::of(moment),
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_rfc_3339_says() {
        for (moment, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_762_776_000, "2025-11-10T12:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(timestamp(moment), expected);
        }
        assert_eq!(Date::of(u64::MAX).to_string(), "9999-12-31");
    }

    #[test]
    fn every_day_is_read_as_it_is_written_and_follows_the_one_before() {
        let mut before = String::new();
        for days in (0..400 * 366).chain(DAYS_MAX - 400..=DAYS_MAX) {
            let date = Date { days };
            let text = date.to_string();
            assert_eq!(text.parse(), Ok(date));
            assert!(text > before, "{before} {text}");
            before = text;
        }
    }

    #[test]
    fn what_is_no_day_is_refused() {
        for text in [
            "",
            "2025-11-1",
            "2025-02-29",
            "2025-13-01",
            "2025-00-10",
            "2025-01-00",
            "2025-04-31",
            "1969-12-31",
            "2025/11/10",
            "+025-11-10",
            "2025-1é-1",
            "2025-11-10 ",
        ] {
            assert_eq!(text.parse::<Date>(), Err(NoDate), "{text}");
        }
    }
}
