//! Instances that were ordered to be kept ready: what an order wants at a time.

use chrono::{DateTime, Local, TimeZone};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use mayfly_model::{ProvisionedAmount, ProvisionedConfig};
use mayfly_plan::scale::provisioned::{Firing, Tracking, scheduled};

/// Why a schedule cannot be used, as a part of a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// It cannot be read.
    #[error("is not a schedule of seven fields, `second minute hour day month weekday year`: {0}")]
    Malformed(String),
    /// It would fire several times a minute.
    #[error("fires more than once a minute; its first field is one number")]
    TooOften,
    /// It will not fire any more.
    #[error("never fires again")]
    Past,
}

/// Reads a schedule of seven fields. The day of the month and the weekday are alternatives when both are given, as in SCF.
pub fn parse_schedule(text: &str) -> Result<Cron, ScheduleError> {
    let malformed = |why: &str| ScheduleError::Malformed(why.to_owned());
    if text.len() > 256 {
        return Err(malformed("it has more than 256 bytes"));
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != 7 {
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
    if fields[0].parse::<u8>().is_err() {
        return Err(ScheduleError::TooOften);
    }
    Ok(cron)
}

fn local(ms: u64) -> Option<DateTime<Local>> {
    Local.timestamp_millis_opt(i64::try_from(ms).ok()?).earliest()
}

fn millis(time: &DateTime<Local>) -> Option<u64> {
    u64::try_from(time.timestamp_millis()).ok()
}

/// The first firing after `ms`, in milliseconds since the epoch. `None`: there is none.
pub fn next_firing_ms(cron: &Cron, ms: u64) -> Option<u64> {
    millis(&cron.find_next_occurrence(&local(ms)?, false).ok()?)
}

/// An order, with its schedules read.
#[derive(Clone, Debug)]
pub struct ProvisionedOrder {
    /// What was ordered.
    pub config: ProvisionedConfig,
    /// Schedules of `config.actions`; `None` for one that cannot be read, which stored ones can.
    crons: Vec<Option<Cron>>,
}

impl ProvisionedOrder {
    /// Reads the schedules of an order.
    pub fn new(config: ProvisionedConfig) -> Self {
        let crons = config.actions.iter().map(|action| parse_schedule(&action.cron).ok()).collect();
        Self { config, crons }
    }

    /// How many are wanted at `now_ms` as far as the order alone says: the fixed number or what the newest timed change says, and the minimum of
    /// an order that follows utilisation.
    pub fn wanted(&self, now_ms: u64) -> u32 {
        let ordered = match self.config.amount {
            ProvisionedAmount::Fixed(count) => count,
            ProvisionedAmount::Tracking { min, .. } => min,
        };
        let firings: Vec<Firing> = self
            .config
            .actions
            .iter()
            .zip(&self.crons)
            .filter_map(|(action, cron)| {
                let at_ms = self.last_firing_ms(cron.as_ref()?, now_ms)?;
                Some(Firing { at_ms, count: action.count })
            })
            .collect();
        scheduled(ordered, self.config.since_ms, &firings)
    }

    /// When [`Self::wanted`] may be another number next, in milliseconds since the epoch. `None`: not any more.
    pub fn next_change_ms(&self, now_ms: u64) -> Option<u64> {
        self.crons.iter().flatten().filter_map(|cron| next_firing_ms(cron, now_ms)).min()
    }

    /// What it follows, for orders that follow utilisation.
    pub fn tracking(&self) -> Option<Tracking> {
        match self.config.amount {
            ProvisionedAmount::Fixed(_) => None,
            ProvisionedAmount::Tracking { target, min, max } => Some(Tracking { target, min, max }),
        }
    }

    /// The last firing since the order was given.
    fn last_firing_ms(&self, cron: &Cron, now_ms: u64) -> Option<u64> {
        // Looking back ends at the order only when something has fired since: that is asked first.
        let first = next_firing_ms(cron, self.config.since_ms)?;
        if first > now_ms {
            return None;
        }
        millis(&cron.find_previous_occurrence(&local(now_ms)?, true).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mayfly_model::ProvisionedAction;
    use std::time::Instant;

    /// Half past nine on a Monday, local time.
    fn monday_ms() -> u64 {
        millis(&Local.with_ymd_and_hms(2026, 3, 2, 9, 30, 0).unwrap()).unwrap()
    }

    const HOUR_MS: u64 = 3_600_000;

    #[test]
    fn schedules_are_read_as_scf_documents_them() {
        for good in ["0 0 9 * * MON-FRI *", "30 */5 8-18 1,15 * * 2026-2030", "0 0 0 1 JAN * *", "0 0 9 * * 1 *"] {
            assert!(parse_schedule(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "0 9 * * *",
            "0 0 9 * * * * *",
            "61 0 9 * * * *",
            "0 0 9 * * L *",
            "0 0 9 ? * * *",
            "0 0 9 LW * * *",
            "0 0 9 * * 1#2 *",
            "a b c d e f g",
            "0 0 9 * * * 99999",
            "@daily",
            "0 0 25 * * * *",
        ] {
            assert!(matches!(parse_schedule(bad), Err(ScheduleError::Malformed(_))), "{bad}");
        }
        for often in ["* 0 9 * * * *", "*/20 0 9 * * * *", "0,30 0 9 * * * *"] {
            assert_eq!(parse_schedule(often).unwrap_err(), ScheduleError::TooOften, "{often}");
        }
    }

    #[test]
    fn dates_that_never_come_are_found_out_quickly() {
        for never in ["0 0 0 31 2 * *", "0 0 0 1 1 * 2020", "0 0 0 30 FEB * 2026-4000"] {
            let begun = Instant::now();
            assert_eq!(next_firing_ms(&parse_schedule(never).unwrap(), monday_ms()), None, "{never}");
            assert!(begun.elapsed().as_millis() < 1000, "{never}: {:?}", begun.elapsed());
        }
    }

    #[test]
    fn the_newest_timed_change_since_the_order_counts() {
        let action = |name: &str, cron: &str, count| ProvisionedAction { name: name.into(), cron: cron.into(), count };
        let order = ProvisionedOrder::new(ProvisionedConfig {
            version: 1,
            amount: ProvisionedAmount::Fixed(2),
            actions: vec![action("up", "0 0 10 * * MON-FRI *", 20), action("down", "0 0 18 * * * *", 1)],
            since_ms: monday_ms(),
        });
        let at = |hours: u64| monday_ms() + hours * HOUR_MS;
        assert_eq!(order.wanted(at(0)), 2, "yesterday's `down` was before the order");
        assert_eq!((order.wanted(at(1)), order.wanted(at(8)), order.wanted(at(9))), (20, 20, 1));
        assert_eq!(order.wanted(at(25)), 20, "the next day");
        assert_eq!(order.next_change_ms(at(0)), Some(at(0) + HOUR_MS / 2));
        let exactly = at(0) + HOUR_MS / 2;
        assert_eq!((order.wanted(exactly - 1), order.wanted(exactly)), (2, 20), "from the moment on");
        assert_eq!(order.next_change_ms(exactly), Some(exactly + 8 * HOUR_MS));
        assert_eq!(order.config.most(), 20);
    }

    #[test]
    fn schedules_far_away_cost_little() {
        let action = ProvisionedAction { name: "far".into(), cron: "0 0 0 1 1 * 2090".into(), count: 9 };
        let amount = ProvisionedAmount::Tracking { target: 0.5, min: 3, max: 4 };
        let order = ProvisionedOrder::new(ProvisionedConfig {
            version: 1,
            amount,
            actions: vec![action],
            since_ms: monday_ms(),
        });
        let begun = Instant::now();
        assert_eq!(order.wanted(monday_ms() + HOUR_MS), 3);
        assert!(begun.elapsed().as_millis() < 1000, "{:?}", begun.elapsed());
        assert_eq!(order.tracking().unwrap().max, 4);
    }
}
