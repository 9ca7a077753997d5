//! How good the forecasts were, and what they cost.

/// What became of what was held ahead. Sums; two can be added.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Accuracy {
    /// Instance-minutes that were warm and needed.
    pub hits: u64,
    /// Instance-minutes that were warm for nothing.
    pub idle: u64,
    /// Instances that were needed and not warm: cold starts, or restores where something is parked.
    pub misses: u64,
    /// Starts made ahead of demand.
    pub starts_ahead: u64,
    /// Memory-time of what was warm for nothing, in GB·s.
    pub idle_gb_seconds: f64,
    /// Memory-time of what was needed, in GB·s.
    pub used_gb_seconds: f64,
    /// Memory-time of what was parked, in GB·s.
    pub parked_gb_seconds: f64,
    /// Forecasts made, one a level and minute.
    pub forecasts: u64,
    /// Sum of the squared errors of the forecasts (the Brier score, not yet divided).
    pub squared_error: f64,
}

impl Accuracy {
    /// Of what was needed, the share that was warm: 1 when nothing was needed.
    pub fn recall(&self) -> f64 {
        ratio(self.hits as f64, (self.hits + self.misses) as f64, 1.0)
    }

    /// Of what was warm, the share that was needed: 1 when nothing was warm.
    pub fn precision(&self) -> f64 {
        ratio(self.hits as f64, (self.hits + self.idle) as f64, 1.0)
    }

    /// Mean squared error of the forecasts; 0 is perfect, 0.25 is a coin.
    pub fn brier(&self) -> f64 {
        ratio(self.squared_error, self.forecasts as f64, 0.0)
    }

    /// Memory-time held, in GB·s: used, warm for nothing, and parked.
    pub fn held_gb_seconds(&self) -> f64 {
        self.used_gb_seconds + self.idle_gb_seconds + self.parked_gb_seconds
    }

    /// Adds another's sums.
    pub fn add(&mut self, other: &Accuracy) {
        self.hits += other.hits;
        self.idle += other.idle;
        self.misses += other.misses;
        self.starts_ahead += other.starts_ahead;
        self.idle_gb_seconds += other.idle_gb_seconds;
        self.used_gb_seconds += other.used_gb_seconds;
        self.parked_gb_seconds += other.parked_gb_seconds;
        self.forecasts += other.forecasts;
        self.squared_error += other.squared_error;
    }
}

fn ratio(part: f64, whole: f64, otherwise: f64) -> f64 {
    if whole > 0.0 { part / whole } else { otherwise }
}
