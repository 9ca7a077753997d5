//! Calendar dates without a calendar library.

/// The UTC date of a Unix time, `YYYY-MM-DD`: the form that a TC3 credential scope uses.
///
/// Seconds beyond the year 9999 give that year's last day, so that the text has ten characters always.
pub fn utc_date(timestamp_s: u64) -> String {
    const LAST_S: u64 = 253_402_300_799;
    let days = timestamp_s.min(LAST_S) / 86_400;
    // Days to civil date by eras of 400 years that begin on 1 March (Howard Hinnant, "chrono-compatible low-level
    // date algorithms"); all values here are non-negative.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::utc_date;

    #[test]
    fn known_days() {
        for (s, date) in [
            (0, "1970-01-01"),
            (86_399, "1970-01-01"),
            (86_400, "1970-01-02"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_551_113_065, "2019-02-25"),
            (1_709_164_800, "2024-02-29"),
            (1_795_226_647, "2026-11-21"),
            (4_107_542_400, "2100-03-01"),
            (253_402_300_799, "9999-12-31"),
            (u64::MAX, "9999-12-31"),
        ] {
            assert_eq!(utc_date(s), date, "{s}");
        }
    }
}
