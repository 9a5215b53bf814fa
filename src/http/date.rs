//! The `Date` of a response (RFC 9110 §5.6.7). Pure: the caller has the clock, and one date serves all
//! responses of its second.

use std::fmt;

/// A moment as HTTP writes it: `Sun, 06 Nov 1994 08:49:37 GMT`. No allocation; 29 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HttpDate([u8; 29]);

impl HttpDate {
    /// The date of `seconds` after 1970-01-01T00:00:00Z, leap seconds not counted. A moment beyond the
    /// year 9999 is written as the last second of it: the format has four digits for the year.
    #[must_use]
    pub fn from_unix(seconds: u64) -> Self {
        const LAST: u64 = 253_402_300_799;
        let seconds = seconds.min(LAST);
        let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil(days);
        let mut text = *b"Thu, 00 Jan 0000 00:00:00 GMT";
        // 1970-01-01 was a Thursday.
        text[..3].copy_from_slice(three(b"ThuFriSatSunMonTueWed", days % 7));
        text[8..11].copy_from_slice(three(b"JanFebMarAprMayJunJulAugSepOctNovDec", month - 1));
        for (at, number) in [
            (5, day),
            (12, year / 100),
            (14, year % 100),
            (17, second_of_day / 3600),
            (20, second_of_day / 60 % 60),
            (23, second_of_day % 60),
        ] {
            text[at] = digit(number / 10);
            text[at + 1] = digit(number % 10);
        }
        Self(text)
    }

    /// The date as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for HttpDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Year, month and day of the month, the latter two from 1, of a day counted from 1970-01-01.
///
/// Counts in years that begin in March, so that the leap day is the last of its year, and in eras of
/// 400 years, which all have the same number of days.
const fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_PER_ERA: u64 = 146_097;
    /// Days from 0000-03-01 to 1970-01-01.
    const EPOCH: u64 = 719_468;
    let days = days + EPOCH;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // From March on, months have 153 days in every five.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let is_next_year = month >= 10;
    (
        era * 400 + year_of_era + is_next_year as u64,
        if is_next_year { month - 9 } else { month + 3 },
        day,
    )
}

/// The name at `index` of names of three letters each.
fn three(names: &[u8], index: u64) -> &[u8] {
    let at = usize::try_from(index).unwrap_or_default() * 3;
    &names[at..at + 3]
}

/// The ASCII digit of a number below 10.
fn digit(number: u64) -> u8 {
    debug_assert!(number < 10, "one digit");
    b'0' + u8::try_from(number).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_imf_fixdate() {
        for (seconds, expected) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"), // RFC 9110 §5.6.7
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"), // 2100 has no leap day
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(HttpDate::from_unix(seconds).as_str(), expected);
        }
    }

    /// Walks the calendar day by day by its rules.
    #[test]
    fn every_day_of_five_centuries_is_right() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..500 * 365 {
            assert_eq!(civil(days), (year, month, day));
            let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 => 28 + u64::from(is_leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }
}
