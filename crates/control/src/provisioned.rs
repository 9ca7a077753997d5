//! Instances that were ordered to be kept ready: what an order wants at a time.

use mayfly_base::schedule::{Schedule, ScheduleError, Zone};
use mayfly_model::{ProvisionedAmount, ProvisionedConfig};
use mayfly_plan::scale::provisioned::{Firing, Tracking, scheduled};

/// Reads the schedule of a timed change, in the machine's time zone. Errors: [`ScheduleError`], `TooOften` among them.
pub fn parse_schedule(text: &str) -> Result<Schedule, ScheduleError> {
    let schedule = Schedule::parse(text, Zone::Machine)?;
    match text.split_whitespace().next().map(str::parse::<u8>) {
        Some(Ok(_)) => Ok(schedule),
        _ => Err(ScheduleError::TooOften),
    }
}

/// An order, with its schedules read.
#[derive(Clone, Debug)]
pub struct ProvisionedOrder {
    /// What was ordered.
    pub config: ProvisionedConfig,
    /// Schedules of `config.actions`; `None` for one that cannot be read, which stored ones can.
    crons: Vec<Option<Schedule>>,
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
        self.crons.iter().flatten().filter_map(|cron| cron.next_after_ms(now_ms)).min()
    }

    /// What it follows, for orders that follow utilisation.
    pub fn tracking(&self) -> Option<Tracking> {
        match self.config.amount {
            ProvisionedAmount::Fixed(_) => None,
            ProvisionedAmount::Tracking { target, min, max } => Some(Tracking { target, min, max }),
        }
    }

    /// The last firing since the order was given.
    fn last_firing_ms(&self, cron: &Schedule, now_ms: u64) -> Option<u64> {
        // Looking back ends at the order only when something has fired since: that is asked first.
        let first = cron.next_after_ms(self.config.since_ms)?;
        if first > now_ms {
            return None;
        }
        cron.last_until_ms(now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{Local, TimeZone};
    use mayfly_model::ProvisionedAction;
    use std::time::Instant;

    /// Half past nine on a Monday, local time.
    fn monday_ms() -> u64 {
        Local.with_ymd_and_hms(2026, 3, 2, 9, 30, 0).unwrap().timestamp_millis() as u64
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
            assert_eq!(parse_schedule(never).unwrap().next_after_ms(monday_ms()), None, "{never}");
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
