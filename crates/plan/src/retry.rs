//! What becomes of an asynchronous event after an attempt: it is done, tried again later, or given up.
//!
//! Source of the rule: SCF's "Retry Policies" page. Run errors are retried as often as the function's policy says, after one and after two more
//! minutes; when the platform or a quota turned the event away it is retried with growing pauses until it is as old as the policy lets it
//! get; a caller's mistake is not retried. An event is tried once however old it is: accepted is accepted.

use mayfly_model::{EventPolicy, Status};

/// Pauses before the retries of a run error, in milliseconds. The last one holds for any further retries.
pub const RUN_ERROR_PAUSES_MS: [u64; 2] = [60_000, 120_000];
/// The first pause after the platform turned an event away, in milliseconds; each further one is twice as long. Ours.
pub const PLATFORM_PAUSE_FIRST_MS: u64 = 1_000;
/// The longest such pause, in milliseconds. Ours.
pub const PLATFORM_PAUSE_MAX_MS: u64 = 300_000;

/// What has been tried of one event so far, before the attempt that is judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// Attempts that ended in a run error.
    pub run_errors: u32,
    /// Attempts that the platform turned away.
    pub platform_errors: u32,
}

/// What to do with the event now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It succeeded, or failed for good: forget it.
    Finish,
    /// Try it again after this many milliseconds, remembering these counts.
    Retry {
        /// Pause before the next attempt, in milliseconds.
        after_ms: u64,
        /// The counts with this attempt in them.
        tried: Tried,
    },
}

/// An attempt that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// How it ended.
    pub status: Status,
    /// What was tried before it.
    pub tried: Tried,
    /// The event's age now, in milliseconds.
    pub age_ms: u64,
    /// Uniform in [0, 1): events that were turned away together do not come back together.
    pub random: f64,
}

impl Attempt {
    /// What to do with the event under `policy`.
    pub fn judge(&self, policy: &EventPolicy) -> Verdict {
        let (after_ms, tried) = if self.status.is_run_error() {
            if self.tried.run_errors >= policy.retries {
                return Verdict::Finish;
            }
            let nth = (self.tried.run_errors as usize).min(RUN_ERROR_PAUSES_MS.len() - 1);
            (RUN_ERROR_PAUSES_MS[nth], Tried { run_errors: self.tried.run_errors + 1, ..self.tried })
        } else if self.status.is_platform_error() {
            let doubled = 1u64.checked_shl(self.tried.platform_errors).unwrap_or(u64::MAX);
            let pause_ms = PLATFORM_PAUSE_FIRST_MS.saturating_mul(doubled).min(PLATFORM_PAUSE_MAX_MS);
            // From half of it to all of it.
            let after_ms = pause_ms - (pause_ms as f64 * 0.5 * self.random.clamp(0.0, 1.0)) as u64;
            (after_ms, Tried { platform_errors: self.tried.platform_errors.saturating_add(1), ..self.tried })
        } else {
            return Verdict::Finish;
        };
        if self.age_ms.saturating_add(after_ms) > u64::from(policy.age_max_s) * 1000 {
            return Verdict::Finish;
        }
        Verdict::Retry { after_ms, tried }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: EventPolicy = EventPolicy { retries: 2, age_max_s: 21_600 };

    fn after(status: Status, tried: Tried, age_ms: u64, random: f64) -> Attempt {
        Attempt { status, tried, age_ms, random }
    }

    #[test]
    fn run_errors_are_tried_as_often_as_the_policy_says() {
        let first = after(Status::USER_EXCEPTION, Tried::default(), 0, 0.9).judge(&DEFAULT);
        let Verdict::Retry { after_ms: 60_000, tried } = first else { panic!("{first:?}") };
        let second = after(Status::TIME_LIMIT, tried, 60_000, 0.0).judge(&DEFAULT);
        let Verdict::Retry { after_ms: 120_000, tried } = second else { panic!("{second:?}") };
        assert_eq!(tried.run_errors, 2);
        assert_eq!(after(Status::USER_EXCEPTION, tried, 180_000, 0.0).judge(&DEFAULT), Verdict::Finish);
        let never = EventPolicy { retries: 0, ..DEFAULT };
        assert_eq!(after(Status::USER_EXCEPTION, Tried::default(), 0, 0.0).judge(&never), Verdict::Finish);
        let impatient = EventPolicy { age_max_s: 60, ..DEFAULT };
        assert_eq!(after(Status::USER_EXCEPTION, Tried::default(), 1, 0.0).judge(&impatient), Verdict::Finish);
    }

    #[test]
    fn platform_errors_are_tried_with_growing_pauses_for_as_long_as_the_policy_says() {
        for (policy, random) in [(DEFAULT, 0.0), (DEFAULT, 0.999), (EventPolicy { retries: 0, age_max_s: 60 }, 0.5)] {
            let age_max_ms = u64::from(policy.age_max_s) * 1000;
            let (mut tried, mut age, mut last, mut attempts) = (Tried::default(), 0, 0, 0);
            while let Verdict::Retry { after_ms, tried: next } =
                after(Status::CONCURRENCY_EXCEEDED, tried, age, random).judge(&policy)
            {
                assert!(after_ms >= last && after_ms <= PLATFORM_PAUSE_MAX_MS);
                assert!(age > 0 || (PLATFORM_PAUSE_FIRST_MS / 2..=PLATFORM_PAUSE_FIRST_MS).contains(&after_ms));
                (tried, age, last) = (next, age + after_ms, after_ms);
                attempts += 1;
                assert!(attempts < 1000);
            }
            assert!(age <= age_max_ms && age + PLATFORM_PAUSE_MAX_MS > age_max_ms, "{age}");
            assert_eq!(tried.run_errors, 0, "being turned away uses up no retry");
        }
    }

    #[test]
    fn success_and_callers_mistakes_are_final() {
        for status in [Status::OK, Status::INVALID_EVENT, Status::FUNCTION_NOT_FOUND, Status::CANCELED] {
            assert_eq!(after(status, Tried::default(), 0, 0.0).judge(&DEFAULT), Verdict::Finish, "{status:?}");
        }
        let many = Tried { run_errors: 0, platform_errors: u32::MAX };
        let last = after(Status::INTERNAL, many, 0, 0.0).judge(&DEFAULT);
        assert!(matches!(last, Verdict::Retry { after_ms: PLATFORM_PAUSE_MAX_MS, .. }));
    }
}
