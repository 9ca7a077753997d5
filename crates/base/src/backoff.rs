//! How long to wait before trying again.

use std::time::Duration;

/// Exponential back-off with full jitter: the n-th delay is uniform between zero and `base × 2ⁿ`, capped.
///
/// Full jitter, because clients that failed together must not come back together. Randomness is passed in, so that
/// tests and the simulator repeat exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Upper bound of the first delay.
    pub base: Duration,
    /// Upper bound of every delay.
    pub cap: Duration,
}

impl Backoff {
    /// The bound of the delay after `attempt` failures (0 is the first).
    pub fn ceiling(&self, attempt: u32) -> Duration {
        let base_ns = self.base.as_nanos().min(u128::from(u64::MAX));
        // Beyond 64 doublings every base of a nanosecond or more is above every cap.
        let grown = base_ns << attempt.min(63);
        let ns = grown.min(self.cap.as_nanos()).min(u128::from(u64::MAX));
        Duration::from_nanos(ns as u64)
    }

    /// The delay after `attempt` failures. `random` is uniform over all of `u64`.
    pub fn delay(&self, attempt: u32, random: u64) -> Duration {
        let bound_ns = self.ceiling(attempt).as_nanos();
        Duration::from_nanos(((bound_ns * u128::from(random)) >> 64) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const B: Backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(10) };

    #[test]
    fn doubles_up_to_the_cap() {
        let ms: Vec<u128> = (0..9).map(|n| B.ceiling(n).as_millis()).collect();
        assert_eq!(ms, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(B.ceiling(u32::MAX), B.cap);
        assert_eq!(B.delay(3, 0), Duration::ZERO);
        assert_eq!(B.delay(3, 1 << 63), Duration::from_millis(400));
    }

    proptest! {
        #[test]
        fn delays_stay_below_their_ceiling(base in any::<u64>(), cap in any::<u64>(), n in any::<u32>(), r in any::<u64>()) {
            let b = Backoff { base: Duration::from_nanos(base), cap: Duration::from_nanos(cap) };
            prop_assert!(b.delay(n, r) <= b.ceiling(n));
            prop_assert!(b.ceiling(n) <= b.cap);
            prop_assert!(b.ceiling(n) <= b.ceiling(n.saturating_add(1)));
        }
    }
}
