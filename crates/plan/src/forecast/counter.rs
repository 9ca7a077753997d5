//! Counting how often something came true, with forgetting, and shrinking towards what is known elsewhere.

/// Successes among trials. Older trials fade once there are more than a limit of them, so that it follows change.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counter {
    trials: f32,
    hits: f32,
}

impl Counter {
    /// Probability of success, as if `weight` more trials with the success rate `prior` had been seen.
    pub fn probability(&self, prior: f64, weight: f64) -> f64 {
        (f64::from(self.hits) + weight * prior) / (f64::from(self.trials) + weight)
    }

    /// Adds a trial. `limit`: trials that are remembered, more or less.
    pub fn add(&mut self, hit: bool, limit: f32) {
        if self.trials > limit {
            let fade = limit / self.trials;
            self.trials *= fade;
            self.hits *= fade;
        }
        self.trials += 1.0;
        self.hits += f32::from(u8::from(hit));
    }

    /// Trials remembered.
    pub fn trials(&self) -> f64 {
        f64::from(self.trials)
    }

    /// Share of successes among the trials; 0 without any.
    pub fn rate(&self) -> f64 {
        if self.trials > 0.0 { f64::from(self.hits / self.trials) } else { 0.0 }
    }
}

/// Buckets of `log_bucket`.
pub const LOG_BUCKETS: usize = 96;

/// Small numbers each have a bucket of their own, larger ones share: four to each doubling. Always below [`LOG_BUCKETS`].
pub fn log_bucket(value: u64) -> usize {
    if value <= 8 {
        return value as usize;
    }
    let log = 63 - value.leading_zeros() as usize;
    let quarter = (value >> (log - 2)) as usize & 3;
    (8 + (log - 3) * 4 + quarter).min(LOG_BUCKETS - 1)
}

/// ln(p / (1 - p)).
pub fn log_odds(probability: f64) -> f64 {
    (probability / (1.0 - probability)).ln()
}

/// The probability of log-odds.
pub fn logistic(log_odds: f64) -> f64 {
    1.0 / (1.0 + (-log_odds).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_shrinks_and_forgets() {
        let mut counter = Counter::default();
        assert_eq!(counter.probability(0.25, 2.0), 0.25);
        counter.add(true, 10.0);
        assert_eq!(counter.probability(0.25, 2.0), 0.5);
        for _ in 0..100 {
            counter.add(false, 10.0);
        }
        assert!(counter.rate() < 0.001, "{counter:?}");
        assert!(counter.trials() <= 11.0);
    }

    #[test]
    fn buckets_grow_with_the_value() {
        let buckets: Vec<usize> = (0..5000).map(log_bucket).collect();
        assert!(buckets.windows(2).all(|pair| pair[0] <= pair[1] && pair[1] - pair[0] <= 1), "no bucket is left out");
        assert_eq!((log_bucket(8), log_bucket(9), log_bucket(10), log_bucket(16)), (8, 8, 9, 12));
        assert_eq!(log_bucket(u64::MAX), LOG_BUCKETS - 1);
    }

    #[test]
    fn odds_and_back() {
        for p in [0.001, 0.5, 0.9] {
            assert!((logistic(log_odds(p)) - p).abs() < 1e-12);
        }
    }
}
