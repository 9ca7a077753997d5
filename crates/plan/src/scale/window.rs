//! Averages over the last seconds of a quantity that changes in steps.

use std::collections::VecDeque;

/// Width of a bucket, in milliseconds.
const BUCKET_MS: u64 = 1000;

/// The time-weighted average of a quantity over the last while. Memory: one bucket a second.
#[derive(Clone, Debug)]
pub struct Window {
    length_ms: u64,
    /// Number of a bucket, and the quantity summed over its milliseconds.
    buckets: VecDeque<(u64, f64)>,
    value: f64,
    /// Up to when `value` has been summed.
    until_ms: Option<u64>,
    since_ms: u64,
}

impl Window {
    /// Looks back over `length_ms`; at least a second.
    pub fn new(length_ms: u64) -> Self {
        let length_ms = length_ms.max(BUCKET_MS);
        Self { length_ms, buckets: VecDeque::new(), value: 0.0, until_ms: None, since_ms: 0 }
    }

    /// From `now_ms` on the quantity is `value`. A time before the last one counts as the last one.
    pub fn set(&mut self, now_ms: u64, value: f64) {
        self.advance(now_ms);
        self.value = value;
    }

    /// The average over the window that ends now; over what there is, when it began later.
    pub fn average(&mut self, now_ms: u64) -> f64 {
        self.advance(now_ms);
        let now_ms = self.until_ms.unwrap_or(now_ms);
        let from_ms = now_ms.saturating_sub(self.length_ms).max(self.since_ms);
        if now_ms <= from_ms {
            return self.value;
        }
        let mut sum = 0.0;
        for (bucket, area) in &self.buckets {
            let begin = (bucket * BUCKET_MS).max(self.since_ms);
            let end = ((bucket + 1) * BUCKET_MS).min(now_ms);
            // Of the oldest bucket only a part is within the window.
            let within = end.saturating_sub(begin.max(from_ms)) as f64;
            let whole = end.saturating_sub(begin) as f64;
            if whole > 0.0 {
                sum += area * within / whole;
            }
        }
        sum / (now_ms - from_ms) as f64
    }

    fn advance(&mut self, now_ms: u64) {
        let Some(until_ms) = self.until_ms else {
            (self.until_ms, self.since_ms) = (Some(now_ms), now_ms);
            return;
        };
        if now_ms <= until_ms {
            return;
        }
        // What lies before the window need not be summed.
        let mut at = until_ms.max(now_ms.saturating_sub(self.length_ms + BUCKET_MS) / BUCKET_MS * BUCKET_MS);
        if at > until_ms {
            self.buckets.clear();
        }
        while at < now_ms {
            let bucket = at / BUCKET_MS;
            let end = ((bucket + 1) * BUCKET_MS).min(now_ms);
            let area = self.value * (end - at) as f64;
            match self.buckets.back_mut() {
                Some((last, sum)) if *last == bucket => *sum += area,
                // A bucket that begins in its middle is filled up with the value, as if it had held before.
                _ => {
                    let before = at.saturating_sub((bucket * BUCKET_MS).max(self.since_ms));
                    self.buckets.push_back((bucket, area + self.value * before as f64));
                }
            }
            at = end;
        }
        let oldest = now_ms.saturating_sub(self.length_ms) / BUCKET_MS;
        while self.buckets.front().is_some_and(|(bucket, _)| *bucket < oldest) {
            self.buckets.pop_front();
        }
        self.until_ms = Some(now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_average_is_weighted_by_time() {
        let mut window = Window::new(10_000);
        assert_eq!(window.average(5), 0.0);
        window.set(1000, 4.0);
        window.set(3000, 0.0);
        let average = window.average(5000);
        assert!((average - 8000.0 / 4995.0).abs() < 1e-9, "{average}: four for two of nearly five seconds");
        assert!((window.average(11_000) - 0.8).abs() < 1e-9, "the window is full");
        assert!((window.average(12_000) - 0.4).abs() < 1e-9, "half of it has left");
        assert_eq!(window.average(13_000), 0.0);
        window.set(1_000_000_000, 3.0);
        assert_eq!(window.average(2_000_000_000), 3.0, "a long time costs nothing");
        window.set(5, 9.0);
        assert_eq!(window.average(2_000_000_000), 3.0, "time does not go back");
    }

    proptest! {
        #[test]
        fn an_average_lies_between_lowest_and_highest(steps in prop::collection::vec((0u64..5000, 0u32..50), 1..60)) {
            let mut window = Window::new(6000);
            let mut now = 0;
            for (pause, value) in &steps {
                now += pause;
                window.set(now, f64::from(*value));
            }
            let highest = steps.iter().map(|(_, v)| *v).max().unwrap_or(0);
            let average = window.average(now + 500);
            prop_assert!(average >= 0.0 && average <= f64::from(highest) + 1e-9, "{average}");
            prop_assert!(window.buckets.len() <= 8);
        }
    }
}
