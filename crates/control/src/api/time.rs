//! Times as the API writes and reads them: `YYYY-MM-DD HH:MM:SS` in the host's local time zone.

use chrono::{Local, NaiveDateTime, TimeZone};
use mayfly_model::ApiError;

const FORMAT: &str = "%Y-%m-%d %H:%M:%S";

/// Milliseconds since the epoch as local time.
pub fn show(ms: u64) -> String {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    match Local.timestamp_millis_opt(ms).earliest() {
        Some(time) => time.format(FORMAT).to_string(),
        None => String::new(),
    }
}

/// The same with microseconds, as lists of asynchronous events have it.
pub fn show_fraction(ms: u64) -> String {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    match Local.timestamp_millis_opt(ms).earliest() {
        Some(time) => time.format("%Y-%m-%d %H:%M:%S%.6f").to_string(),
        None => String::new(),
    }
}

/// Reads a local time, with a fraction of a second or without; see [`read`].
pub fn read_fraction(text: &str, field: &str) -> Result<u64, ApiError> {
    let (whole, fraction) = text.trim().split_once('.').unwrap_or((text, ""));
    let digits: String = format!("{fraction:0<3}").chars().take(3).collect();
    let good = fraction.len() <= 9 && fraction.bytes().all(|b| b.is_ascii_digit());
    match digits.parse::<u64>() {
        Ok(ms) if good => read(whole, field).map(|whole| whole + ms),
        _ => Err(ApiError::new(
            "InvalidParameterValue.DateTime",
            format!("`{field}` is not a time of the form YYYY-MM-DD HH:MM:SS.ffffff."),
        )),
    }
}

/// Reads a local time into milliseconds since the epoch. A time that a clock change skips is read as the moment after it.
/// Errors: `InvalidParameterValue.DateTime` naming `field`.
pub fn read(text: &str, field: &str) -> Result<u64, ApiError> {
    let bad = || {
        ApiError::new(
            "InvalidParameterValue.DateTime",
            format!("`{field}` is not a time of the form YYYY-MM-DD HH:MM:SS."),
        )
    };
    let naive = NaiveDateTime::parse_from_str(text.trim(), FORMAT).map_err(|_| bad())?;
    let local = Local.from_local_datetime(&naive).earliest();
    let time = local.or_else(|| Local.from_local_datetime(&(naive + chrono::Duration::hours(1))).earliest());
    time.and_then(|t| u64::try_from(t.timestamp_millis()).ok()).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_round_trip() {
        for ms in [86_400_000u64, 1_700_000_000_000, 4_000_000_000_000] {
            assert_eq!(read(&show(ms), "StartTime").unwrap(), ms);
        }
        assert_eq!(show(1_700_000_000_999).len(), 19);
        for ms in [1_700_000_000_001, 1_700_000_000_120] {
            assert_eq!(read_fraction(&show_fraction(ms), "Start").unwrap(), ms);
        }
        assert_eq!(read_fraction(&show(1_700_000_000_000), "Start").unwrap(), 1_700_000_000_000);
        for bad in ["", "2024-01-01 00:00:00.x", "2024-01-01 00:00:00.0000000000", "2024-01-01 00:00:00.é"] {
            assert_eq!(read_fraction(bad, "Start").unwrap_err().code, "InvalidParameterValue.DateTime", "{bad}");
        }
    }

    #[test]
    fn bad_times_name_the_field() {
        for bad in ["", "2024-01-01", "2024-13-01 00:00:00", "yesterday", "1960-01-01 00:00:00"] {
            let error = read(bad, "EndTime").unwrap_err();
            assert_eq!(error.code, "InvalidParameterValue.DateTime", "{bad}");
            assert!(error.message.contains("`EndTime`"));
        }
    }
}
