//! What a policy came to.

use crate::run::SimulateOptions;
use crate::trace::Trace;
use mayfly_plan::forecast::Accuracy;
use mayfly_plan::policy::Policy;
use serde::Serialize;

/// Sums of one application.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AppSums {
    pub started: bool,
    pub cold: u64,
    pub restores: u64,
}

/// Waits of calls, those of nothing left out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waits {
    of: Vec<(f64, u64)>,
}

impl Waits {
    pub fn add(&mut self, wait_ms: f64, calls: u64) {
        match self.of.last_mut() {
            _ if calls == 0 => {}
            Some((ms, count)) if *ms == wait_ms => *count += calls,
            _ => self.of.push((wait_ms, calls)),
        }
    }

    fn count(&self) -> u64 {
        self.of.iter().map(|(_, calls)| calls).sum()
    }

    /// The wait that a share of `calls` calls does not pass (nearest rank).
    fn quantile(&self, calls: u64, share: f64) -> f64 {
        let rank = ((calls as f64 * share).ceil() as u64).clamp(1, calls.max(1));
        // Counted from the longest: how many calls may wait longer.
        let mut longer = calls.max(1) - rank;
        for (ms, count) in self.of.iter().rev() {
            if *count > longer {
                return *ms;
            }
            longer -= count;
        }
        0.0
    }

    fn longer_than(&self, wait_ms: f64) -> u64 {
        self.of.iter().filter(|(ms, _)| *ms > wait_ms).map(|(_, calls)| calls).sum()
    }

    fn sorted(mut self) -> Self {
        self.of.sort_by(|a, b| a.0.total_cmp(&b.0));
        self
    }
}

/// What a policy came to over a trace. Rates are shares of 1, not percentages.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The policy's name.
    pub policy: String,
    /// Applications in the trace.
    pub apps: usize,
    /// Minutes in the trace.
    pub minutes: usize,
    /// Calls in the trace.
    pub invocations: u64,
    /// Instances that were needed, not warm, and not parked either.
    pub cold_starts: u64,
    /// Cold starts a call.
    pub cold_rate: f64,
    /// Instances that were needed, not warm, and came from a parked one.
    pub restores: u64,
    /// Starts before they were needed; no call waited for them.
    pub starts_ahead: u64,
    /// Memory-time of all that was warm, busy or parked, in GB·s.
    pub gb_seconds_held: f64,
    /// Memory-time of what was needed, in GB·s.
    pub gb_seconds_used: f64,
    /// Memory-time of what was parked, in GB·s; part of what was held.
    pub gb_seconds_parked: f64,
    /// Half of the applications have no higher share of cold calls.
    pub app_cold_rate_p50: f64,
    /// Three quarters of the applications have no higher share of cold calls.
    pub app_cold_rate_p75: f64,
    /// Waits of calls for an instance, in milliseconds.
    pub wait_ms_p50: f64,
    /// See `wait_ms_p50`.
    pub wait_ms_p99: f64,
    /// See `wait_ms_p50`.
    pub wait_ms_p99_9: f64,
    /// The longest wait.
    pub wait_ms_max: f64,
    /// Above this, a wait is long, in milliseconds.
    pub long_wait_ms: f64,
    /// Calls that waited long.
    pub long_waits: u64,
    /// Share of calls that waited long.
    pub long_wait_rate: f64,
    /// Of what was needed, the share that was warm.
    pub recall: f64,
    /// Of what was warm, the share that was needed.
    pub precision: f64,
}

impl Report {
    pub(crate) fn new(
        policy: Policy,
        trace: &Trace,
        accuracy: &Accuracy,
        sums: &[AppSums],
        waits: Waits,
        options: &SimulateOptions,
    ) -> Self {
        let invocations: u64 = trace.apps().iter().fold(0, |sum, app| sum.saturating_add(app.invocations));
        let cold_starts: u64 = sums.iter().map(|app| app.cold).sum();
        let rates = trace.apps().iter().zip(sums).map(|(app, sums)| {
            // Averages of measured demand can need more instances than there were calls.
            (sums.cold as f64 / app.invocations.max(1) as f64).min(1.0)
        });
        let mut rates: Vec<f64> = rates.collect();
        rates.sort_by(f64::total_cmp);
        let waits = waits.sorted();
        let calls = invocations.max(waits.count()).max(1);
        let long_waits = waits.longer_than(options.long_wait_ms);
        Self {
            policy: policy.to_string(),
            apps: trace.apps().len(),
            minutes: trace.minutes(),
            invocations,
            cold_starts,
            cold_rate: cold_starts as f64 / invocations.max(1) as f64,
            restores: sums.iter().map(|app| app.restores).sum(),
            starts_ahead: accuracy.starts_ahead,
            gb_seconds_held: accuracy.held_gb_seconds(),
            gb_seconds_used: accuracy.used_gb_seconds,
            gb_seconds_parked: accuracy.parked_gb_seconds,
            app_cold_rate_p50: quantile(&rates, 0.5),
            app_cold_rate_p75: quantile(&rates, 0.75),
            wait_ms_p50: waits.quantile(calls, 0.5),
            wait_ms_p99: waits.quantile(calls, 0.99),
            wait_ms_p99_9: waits.quantile(calls, 0.999),
            wait_ms_max: waits.of.last().map_or(0.0, |(ms, _)| *ms),
            long_wait_ms: options.long_wait_ms,
            long_waits,
            long_wait_rate: long_waits as f64 / calls as f64,
            recall: accuracy.recall(),
            precision: accuracy.precision(),
        }
    }
}

/// A quantile of sorted numbers, between two of them by linear interpolation; 0 without numbers.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = share.clamp(0.0, 1.0) * last as f64;
    let below = place as usize;
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
}
