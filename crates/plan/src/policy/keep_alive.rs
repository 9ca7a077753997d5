//! The fixed keep-alive: what was needed lately stays.

use std::collections::VecDeque;

/// The highest demand of the last so many minutes, in constant time a minute.
#[derive(Clone, Debug)]
pub struct RecentPeak {
    minutes: u64,
    now: u64,
    /// Minutes and their demand, falling: what a later, higher one hides is left out.
    peaks: VecDeque<(u64, u32)>,
}

impl RecentPeak {
    /// Looks back over `minutes`.
    pub fn new(minutes: u32) -> Self {
        Self { minutes: u64::from(minutes), now: 0, peaks: VecDeque::new() }
    }

    /// The highest demand of the minutes before the one that comes next.
    pub fn get(&self) -> u32 {
        self.peaks.front().map_or(0, |(_, demand)| *demand)
    }

    /// Adds a minute.
    pub fn push(&mut self, demand: u32) {
        while self.peaks.back().is_some_and(|(_, earlier)| *earlier <= demand) {
            self.peaks.pop_back();
        }
        self.peaks.push_back((self.now, demand));
        self.skip(1);
    }

    /// Lets minutes without demand pass.
    pub fn skip(&mut self, minutes: u64) {
        self.now += minutes;
        while self.peaks.front().is_some_and(|(minute, _)| minute + self.minutes < self.now) {
            self.peaks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_the_highest_of_the_window(demand in prop::collection::vec(0u32..5, 0..60), minutes in 0u32..12) {
            let mut peak = RecentPeak::new(minutes);
            for (now, today) in demand.iter().enumerate() {
                let window = &demand[now.saturating_sub(minutes as usize)..now];
                prop_assert_eq!(peak.get(), window.iter().max().copied().unwrap_or(0));
                peak.push(*today);
            }
        }
    }
}
