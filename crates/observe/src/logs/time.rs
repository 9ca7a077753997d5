//! Names of segments: the UTC minute in which they begin.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

const MINUTE_MS: u64 = 60_000;

/// Milliseconds since the epoch.
pub(super) fn now_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// Identity and order of segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SegmentKey {
    /// Minutes since the epoch.
    pub minute: u32,
    /// 0, or more when segments of the same minute came before.
    pub sequence: u32,
}

impl SegmentKey {
    /// The first segment of the slice of time that `ms` is in.
    pub fn at(ms: u64, segment_minutes: u32) -> Self {
        let minute = u32::try_from(ms / MINUTE_MS).unwrap_or(u32::MAX);
        Self { minute: minute - minute % segment_minutes, sequence: 0 }
    }

    /// When its slice of time ends, in milliseconds since the epoch.
    pub fn end_ms(self, segment_minutes: u32) -> u64 {
        (u64::from(self.minute) + u64::from(segment_minutes)) * MINUTE_MS
    }

    /// Reads a name as [`fmt::Display`] writes it.
    pub fn parse(name: &str) -> Option<Self> {
        let (stem, sequence) = match name.match_indices('-').nth(1) {
            Some((at, _)) => (&name[..at], name[at + 1..].parse().ok()?),
            None => (name, 0),
        };
        let (date, time) = stem.split_once('-')?;
        let digits = |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(date, 8) || !digits(time, 4) {
            return None;
        }
        let number = |text: &str| text.parse::<i64>().ok();
        let (year, month, day) = (number(&date[..4])?, number(&date[4..6])?, number(&date[6..])?);
        let (hour, minute) = (number(&time[..2])?, number(&time[2..])?);
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 {
            return None;
        }
        let minutes = days_from_date(year, month, day) * 1440 + hour * 60 + minute;
        Some(Self { minute: u32::try_from(minutes).ok()?, sequence })
    }
}

impl fmt::Display for SegmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = date_from_days(i64::from(self.minute) / 1440);
        let minute = self.minute % 1440;
        write!(f, "{year:04}{month:02}{day:02}-{:02}{:02}", minute / 60, minute % 60)?;
        match self.sequence {
            0 => Ok(()),
            sequence => write!(f, "-{sequence}"),
        }
    }
}

/// Days since the epoch to (year, month, day) in the Gregorian calendar: H. Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", `civil_from_days`.
fn date_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The inverse: `days_from_civil` of the same source.
fn days_from_date(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dates_and_round_trip() {
        let key = SegmentKey::at(1_709_210_096_789, 1);
        assert_eq!(key.to_string(), "20240229-1234");
        assert_eq!(SegmentKey::at(1_709_210_096_789, 60).to_string(), "20240229-1200");
        assert_eq!(SegmentKey::at(0, 60).to_string(), "19700101-0000");
        for minute in (0..200_000_000u32).step_by(123_457) {
            for sequence in [0, 1, 1234] {
                let key = SegmentKey { minute, sequence };
                assert_eq!(SegmentKey::parse(&key.to_string()), Some(key));
            }
        }
        for bad in [
            "",
            "2024",
            "20240229",
            "20241301-0000",
            "20240229-2400",
            "20240229-12-3",
            "2024é229-1200",
            "20240229-1200-x",
        ] {
            assert_eq!(SegmentKey::parse(bad), None, "{bad}");
        }
    }
}
