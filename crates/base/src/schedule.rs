//! Schedules of seven fields, as SCF's timers and timed changes of provisioned concurrency have them.

use chrono::{DateTime, Local, TimeZone};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

/// Longest text of a schedule, in bytes.
const BYTES_MAX: usize = 256;

/// Why a schedule cannot be used, as a part of a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// It cannot be read.
    #[error("is not a schedule of seven fields, `second minute hour day month weekday year`: {0}")]
    Malformed(String),
    /// There is no such time zone.
    #[error("is meant in the time zone `{0}`, which is not known; names are like `Asia/Shanghai`, or `UTC`")]
    Zone(String),
    /// It would fire several times a minute.
    #[error("fires more than once a minute; its first field is one number")]
    TooOften,
    /// It will not fire any more.
    #[error("never fires again")]
    Past,
}

/// The time zone that the fields of a schedule are meant in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Zone {
    /// The machine's.
    #[default]
    Machine,
    /// One by its name in the IANA database.
    Named(Tz),
}

impl Zone {
    /// Reads a name; the empty one is the machine's. Errors: [`ScheduleError::Zone`].
    pub fn parse(name: &str) -> Result<Self, ScheduleError> {
        match name {
            "" => Ok(Self::Machine),
            name => name.parse().map(Self::Named).map_err(|_| ScheduleError::Zone(name.chars().take(64).collect())),
        }
    }
}

/// When something happens again and again.
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: Cron,
    zone: Zone,
}

impl Schedule {
    /// Reads a schedule. The day of the month and the weekday are alternatives when both are given, as in SCF.
    ///
    /// # Errors
    /// [`ScheduleError::Malformed`].
    pub fn parse(text: &str, zone: Zone) -> Result<Self, ScheduleError> {
        let malformed = |why: &str| ScheduleError::Malformed(why.to_owned());
        if text.len() > BYTES_MAX {
            return Err(malformed("it has more than 256 bytes"));
        }
        if text.split_whitespace().count() != 7 {
            return Err(malformed("it has another number of fields"));
        }
        // The library knows more signs (`L`, `W`, `#`, `?`, `@daily`) than SCF documents.
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b',' | b'-' | b'*' | b'/');
        let is_name = |word: &str| word.len() == 3 || word.is_empty();
        if !text.bytes().all(|b| plain(b) || b == b' ' || b == b'\t')
            || !text.split(|c: char| !c.is_ascii_alphabetic()).all(is_name)
        {
            return Err(malformed("it has other signs than numbers, names of months and days, and `, - * /`"));
        }
        let parser = CronParser::builder().seconds(Seconds::Required).year(Year::Required).build();
        let cron =
            parser.parse(text).map_err(|e| ScheduleError::Malformed(e.to_string().trim_end_matches('.').to_owned()))?;
        Ok(Self { cron, zone })
    }

    /// The first time after `ms`, in milliseconds since the epoch. `None`: there is none.
    pub fn next_after_ms(&self, ms: u64) -> Option<u64> {
        match self.zone {
            Zone::Machine => next(&self.cron, &at(&Local, ms)?),
            Zone::Named(zone) => next(&self.cron, &at(&zone, ms)?),
        }
    }

    /// The last time at `ms` or before. `None`: there is none.
    pub fn last_until_ms(&self, ms: u64) -> Option<u64> {
        match self.zone {
            Zone::Machine => last(&self.cron, &at(&Local, ms)?),
            Zone::Named(zone) => last(&self.cron, &at(&zone, ms)?),
        }
    }
}

fn at<Z: TimeZone>(zone: &Z, ms: u64) -> Option<DateTime<Z>> {
    zone.timestamp_millis_opt(i64::try_from(ms).ok()?).earliest()
}

fn next<Z: TimeZone>(cron: &Cron, time: &DateTime<Z>) -> Option<u64> {
    millis(&cron.find_next_occurrence(time, false).ok()?)
}

fn last<Z: TimeZone>(cron: &Cron, time: &DateTime<Z>) -> Option<u64> {
    millis(&cron.find_previous_occurrence(time, true).ok()?)
}

fn millis<Z: TimeZone>(time: &DateTime<Z>) -> Option<u64> {
    u64::try_from(time.timestamp_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> u64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis() as u64
    }

    #[test]
    fn fields_are_meant_in_the_zone() {
        let noon = utc("2026-03-01T12:00:00Z");
        for (zone, next) in [
            ("UTC", "2026-03-02T09:30:00Z"),
            ("Asia/Shanghai", "2026-03-02T01:30:00Z"),
            ("America/New_York", "2026-03-01T14:30:00Z"),
        ] {
            let schedule = Schedule::parse("0 30 9 * * * *", Zone::parse(zone).unwrap()).unwrap();
            assert_eq!(schedule.next_after_ms(noon), Some(utc(next)), "{zone}");
            assert_eq!(schedule.last_until_ms(utc(next)), Some(utc(next)), "{zone}");
        }
        assert_eq!(Zone::parse("Mars/Olympus"), Err(ScheduleError::Zone("Mars/Olympus".into())));
    }

    #[test]
    fn a_skipped_hour_skips_no_day_and_a_doubled_one_doubles_none() {
        let berlin = Zone::parse("Europe/Berlin").unwrap();
        let daily = Schedule::parse("0 30 2 * * * *", berlin).unwrap();
        let mut ms = utc("2026-03-26T00:00:00Z");
        let mut days = Vec::new();
        for _ in 0..6 {
            ms = daily.next_after_ms(ms).unwrap();
            days.push(DateTime::from_timestamp_millis(ms as i64).unwrap().date_naive().to_string());
        }
        assert_eq!(days, ["2026-03-26", "2026-03-27", "2026-03-28", "2026-03-29", "2026-03-30", "2026-03-31"]);
        ms = utc("2026-10-24T12:00:00Z");
        let first = daily.next_after_ms(ms).unwrap();
        let second = daily.next_after_ms(first).unwrap();
        assert!(second - first >= 24 * 3600 * 1000, "fired twice in the hour that came twice");
    }

    #[test]
    fn day_and_weekday_are_alternatives_and_years_end() {
        let either = Schedule::parse("0 0 0 13 * FRI *", Zone::parse("UTC").unwrap()).unwrap();
        let mut ms = utc("2026-02-01T00:00:00Z");
        let mut days = Vec::new();
        for _ in 0..4 {
            ms = either.next_after_ms(ms).unwrap();
            days.push(DateTime::from_timestamp_millis(ms as i64).unwrap().format("%m-%d").to_string());
        }
        assert_eq!(days, ["02-06", "02-13", "02-20", "02-27"]);
        let once = Schedule::parse("0 0 0 1 1 * 2020", Zone::Machine).unwrap();
        assert_eq!(once.next_after_ms(ms), None);
        for bad in ["", "* * * * *", "0 0 0 L * * *", "@daily", "61 0 0 * * * *", &"* ".repeat(200)] {
            assert!(matches!(Schedule::parse(bad, Zone::Machine), Err(ScheduleError::Malformed(_))), "{bad}");
        }
    }
}
