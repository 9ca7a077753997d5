//! The budget of memory-time, and the price at which it is spent.
//!
//! Keeping a slot warm for a minute saves a cold start with probability p and holds its memory for nothing with probability
//! 1 - p. With a budget for what is held for nothing, the most cold starts are saved by keeping the slots with the most
//! savings per GB·s wasted, p / ((1 - p) · cost), down to the price at which the budget is spent: the Lagrange multiplier
//! of a fractional knapsack. The price is learnt: it is the one that would have spent the budget on the past.

/// Steps of the price to each factor of e.
const STEPS: f64 = 20.0;
/// Cells of the price's histogram: from e^-15 to e^5 starts saved per GB·s.
const CELLS: usize = 400;
const LOWEST: f64 = -15.0;
/// Share of all sums that is left after each minute: they cover about a day and a half.
const KEEP: f64 = 1.0 - 1.0 / 2160.0;
/// How many times faster than it was gathered what is left of the budget is spent.
const HASTE: f64 = 3.0;

/// What a slot must save for each GB·s wasted.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Price(pub f64);

/// What a slot saves for each GB·s it wastes. `cost`: GB·s of a minute.
pub(crate) fn worth(probability: f64, cost: f64) -> f64 {
    probability / ((1.0 - probability) * cost)
}

/// One minute of all functions of a policy, in GB·s.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Minute {
    /// By what was needed.
    pub used: f64,
    /// By what was warm for nothing, or parked.
    pub idle: f64,
    /// What the fixed keep-alive would have held for nothing.
    pub baseline_idle: f64,
}

/// Accounts of one policy. All sums fade at the same rate, so a past surplus is not saved up for ever.
#[derive(Clone, Debug)]
pub struct Ledger {
    budget: f64,
    used: f64,
    idle: f64,
    baseline_idle: f64,
    /// Waste that each price would have let pass, by cells of the price's logarithm.
    refused: Vec<f64>,
}

impl Ledger {
    /// `budget`: memory-time that may be held, as a share of the fixed keep-alive's.
    pub fn new(budget: f64) -> Self {
        Self { budget, used: 0.0, idle: 0.0, baseline_idle: 0.0, refused: vec![0.0; CELLS] }
    }

    /// The share given to [`Ledger::new`].
    pub fn budget(&self) -> f64 {
        self.budget
    }

    /// What may still be wasted so that all that is held stays within the budget so far, in GB·s.
    pub fn room(&self) -> f64 {
        self.allowance() - self.idle
    }

    /// What the budget allows to be wasted on the past that the sums cover.
    fn allowance(&self) -> f64 {
        self.budget * (self.baseline_idle + self.used) - self.used
    }

    /// The price at which the budget is spent, and what is left of it is spent in a third of the time it took to gather. With
    /// nothing left of a budget that nothing else enforces, it is infinite.
    pub fn price(&self) -> Price {
        let allowance = self.allowance();
        // A debt is paid back at the same rate.
        let goal = (allowance + HASTE * (allowance - self.idle)).max(0.0);
        if goal == 0.0 && self.budget < 1.0 {
            return Price(f64::INFINITY);
        }
        let mut wasted = 0.0;
        for cell in (0..CELLS).rev() {
            wasted += self.refused[cell];
            if wasted > goal {
                return Price(((cell as f64 + 1.0) / STEPS + LOWEST).exp());
            }
        }
        Price(LOWEST.exp())
    }

    /// Notes a slot that was not needed and would have been, or was, held at `worth`. `cost`: GB·s.
    pub(crate) fn not_needed(&mut self, worth: f64, cost: f64) {
        let cell = ((worth.ln() - LOWEST) * STEPS).clamp(0.0, (CELLS - 1) as f64);
        self.refused[cell as usize] += cost;
    }

    /// Ends a minute.
    pub fn close(&mut self, minute: Minute) {
        self.used = self.used * KEEP + minute.used;
        self.idle = self.idle * KEEP + minute.idle;
        self.baseline_idle = self.baseline_idle * KEEP + minute.baseline_idle;
        self.refused.iter_mut().for_each(|cell| *cell *= KEEP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_price_spends_the_budget() {
        let mut ledger = Ledger::new(1.0);
        assert_eq!(ledger.price().0, LOWEST.exp(), "nothing was ever dear");
        for _ in 0..10_000 {
            for worth in [0.001, 0.01, 0.1, 1.0] {
                ledger.not_needed(worth, 10.0);
            }
            ledger.close(Minute { used: 5.0, idle: 25.0, baseline_idle: 25.0 });
        }
        // 25 of the 40 GB·s a minute are allowed: the two best, and not the third.
        let price = ledger.price().0;
        assert!(price > 0.01 && price < 0.1, "{price}");
        assert!(ledger.room().abs() < 1e-6);
    }

    #[test]
    fn a_surplus_fades() {
        let mut ledger = Ledger::new(1.0);
        ledger.close(Minute { used: 0.0, idle: 0.0, baseline_idle: 1000.0 });
        assert_eq!(ledger.room(), 1000.0);
        for _ in 0..20_000 {
            ledger.close(Minute::default());
        }
        assert!(ledger.room() < 1.0);
    }
}
