//! What becomes of an asynchronous event after an attempt: it is done, tried again later, or given up.
//!
//! Source of the rule: SCF's "Retry Policies" page. Run errors are retried twice, after one and after two more minutes; when the
//! platform or a quota turned the event away it is retried with growing pauses until it is six hours old; a caller's mistake is not retried.

use mayfly_model::Status;

/// Pauses before the retries of a run error, in milliseconds. Their number is the number of retries.
pub const RUN_ERROR_PAUSES_MS: [u64; 2] = [60_000, 120_000];
/// The first pause after the platform turned an event away, in milliseconds; each further one is twice as long. Ours.
pub const PLATFORM_PAUSE_FIRST_MS: u64 = 1_000;
/// The longest such pause, in milliseconds. Ours.
pub const PLATFORM_PAUSE_MAX_MS: u64 = 300_000;
/// The age at which an event is given up when the platform keeps turning it away, in milliseconds (`MsgTTL`).
pub const EVENT_AGE_MAX_MS: u64 = 6 * 3600 * 1000;

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

/// Judges an attempt that ended with `status`. `age_ms` is the event's age now.
pub fn after_attempt(status: Status, tried: Tried, age_ms: u64) -> Verdict {
    if status.is_run_error() {
        return match RUN_ERROR_PAUSES_MS.get(tried.run_errors as usize) {
            Some(&after_ms) => Verdict::Retry { after_ms, tried: Tried { run_errors: tried.run_errors + 1, ..tried } },
            None => Verdict::Finish,
        };
    }
    if status.is_platform_error() {
        let after_ms = PLATFORM_PAUSE_FIRST_MS
            .saturating_mul(1u64.checked_shl(tried.platform_errors).unwrap_or(u64::MAX))
            .min(PLATFORM_PAUSE_MAX_MS);
        if age_ms.saturating_add(after_ms) <= EVENT_AGE_MAX_MS {
            let tried = Tried { platform_errors: tried.platform_errors.saturating_add(1), ..tried };
            return Verdict::Retry { after_ms, tried };
        }
    }
    Verdict::Finish
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_errors_are_tried_three_times_in_all() {
        let first = after_attempt(Status::USER_EXCEPTION, Tried::default(), 0);
        let Verdict::Retry { after_ms: 60_000, tried } = first else { panic!("{first:?}") };
        let second = after_attempt(Status::TIME_LIMIT, tried, 60_000);
        let Verdict::Retry { after_ms: 120_000, tried } = second else { panic!("{second:?}") };
        assert_eq!(tried.run_errors, 2);
        assert_eq!(after_attempt(Status::USER_EXCEPTION, tried, 180_000), Verdict::Finish);
    }

    #[test]
    fn platform_errors_are_tried_with_growing_pauses_for_six_hours() {
        let mut tried = Tried::default();
        let mut age = 0;
        let mut last = 0;
        let mut attempts = 0;
        while let Verdict::Retry { after_ms, tried: next } = after_attempt(Status::CONCURRENCY_EXCEEDED, tried, age) {
            assert!(after_ms >= last && after_ms <= PLATFORM_PAUSE_MAX_MS);
            (tried, age, last) = (next, age + after_ms, after_ms);
            attempts += 1;
            assert!(attempts < 1000);
        }
        assert!(age <= EVENT_AGE_MAX_MS && age + PLATFORM_PAUSE_MAX_MS > EVENT_AGE_MAX_MS, "{age}");
        assert_eq!(tried.run_errors, 0, "being turned away uses up no retry");
    }

    #[test]
    fn success_and_callers_mistakes_are_final() {
        for status in [Status::OK, Status::INVALID_EVENT, Status::FUNCTION_NOT_FOUND, Status::CANCELED] {
            assert_eq!(after_attempt(status, Tried::default(), 0), Verdict::Finish, "{status:?}");
        }
        let many = Tried { run_errors: 0, platform_errors: u32::MAX };
        assert!(matches!(
            after_attempt(Status::INTERNAL, many, 0),
            Verdict::Retry { after_ms: PLATFORM_PAUSE_MAX_MS, .. }
        ));
    }
}
