//! Plays a trace under a policy.

use crate::report::{AppSums, Report, Waits};
use crate::trace::{App, Trace};
use mayfly_plan::policy::{Fleet, FleetError, FleetOptions, Function, Policy};
use std::collections::BTreeMap;

/// How long a call waits that finds nothing warm, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StartTimes {
    /// For a start from nothing: sandbox, interpreter, and the function's own initialisation.
    pub cold_ms: f64,
    /// For a fork of, or a restore from, a parked instance.
    pub restore_ms: f64,
    /// By how much each further restore of the same function in the same minute is later, were they asked for at once.
    pub restore_step_ms: f64,
}

impl Default for StartTimes {
    /// A Python function with 300 ms of imports on two cores: its first instance (an estimate), and the next (`cargo xtask bench`).
    fn default() -> Self {
        Self { cold_ms: 330.0, restore_ms: 15.0, restore_step_ms: 4.0 }
    }
}

/// What a simulation assumes.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulateOptions {
    /// Waits of functions of no runtime named in `by_runtime`.
    pub times: StartTimes,
    /// Waits by runtime, as the trace names it.
    pub by_runtime: BTreeMap<String, StartTimes>,
    /// Memory of a parked instance, in MB. The default is what a Python template and its init took (PSS), beside a few others.
    pub parked_mb: f64,
    /// Whether an instance is parked when a function is deployed (before the trace begins), or after its first start.
    pub parked_at_deploy: bool,
    /// The fixed keep-alive that budgets are measured against, in minutes.
    pub baseline_minutes: u32,
    /// Waits longer than this are counted, in milliseconds.
    pub long_wait_ms: f64,
}

impl Default for SimulateOptions {
    fn default() -> Self {
        Self {
            times: StartTimes::default(),
            by_runtime: BTreeMap::new(),
            parked_mb: 5.0,
            parked_at_deploy: true,
            baseline_minutes: Policy::BASELINE_MINUTES,
            long_wait_ms: 200.0,
        }
    }
}

/// Why a simulation could not run.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// A number among the options is out of range.
    #[error("{what} must be a number from 0 to {max}")]
    Option {
        /// Which.
        what: &'static str,
        /// The most it may be.
        max: f64,
    },
    /// The planner refused.
    #[error("the trace cannot be planned for: {0}")]
    Fleet(#[from] FleetError),
}

impl SimulateOptions {
    fn check(&self) -> Result<(), SimulateError> {
        const HOUR_MS: f64 = 3_600_000.0;
        let mut numbers =
            vec![("parked memory", self.parked_mb, 1_048_576.0), ("the long wait", self.long_wait_ms, HOUR_MS)];
        for times in self.by_runtime.values().chain([&self.times]) {
            numbers.push(("the wait of a cold start", times.cold_ms, HOUR_MS));
            numbers.push(("the wait of a restore", times.restore_ms, HOUR_MS));
            numbers.push(("the wait for each further restore", times.restore_step_ms, HOUR_MS));
        }
        match numbers.into_iter().find(|(_, number, max)| !(0.0..=*max).contains(number)) {
            Some((what, _, max)) => Err(SimulateError::Option { what, max }),
            None if self.baseline_minutes > Policy::KEEP_ALIVE_MAX_MINUTES => Err(SimulateError::Option {
                what: "the baseline's keep-alive in minutes",
                max: f64::from(Policy::KEEP_ALIVE_MAX_MINUTES),
            }),
            None => Ok(()),
        }
    }

    fn times(&self, app: &App) -> StartTimes {
        self.by_runtime.get(&app.runtime).copied().unwrap_or(self.times)
    }
}

/// Plays `trace` under `policy`. The same trace, policy and options always give the same report.
pub fn simulate(trace: &Trace, policy: Policy, options: &SimulateOptions) -> Result<Report, SimulateError> {
    options.check()?;
    let fleet_options = FleetOptions { baseline_minutes: options.baseline_minutes, functions_max: trace.apps().len() };
    let mut fleet = Fleet::new(fleet_options);
    let mut ids = Vec::with_capacity(trace.apps().len());
    for app in trace.apps() {
        ids.push(fleet.add(Function { memory_mb: app.memory_mb, parked_mb: options.parked_mb, policy })?);
    }
    let mut apps = vec![AppSums::default(); ids.len()];
    let mut waits = Waits::default();
    let mut demand: Vec<_> = ids.iter().map(|id| (*id, 0)).collect();
    for minute in 0..trace.minutes() {
        // Everything is decided before the minute's demand is looked at.
        let targets = fleet.plan(minute as u64);
        for (at, target) in targets.iter().enumerate() {
            let app = &trace.apps()[at];
            let needed = app.demand[minute];
            demand[at].1 = needed;
            let missing = needed.saturating_sub(target.warm);
            if missing == 0 {
                continue;
            }
            let (sums, times) = (&mut apps[at], options.times(app));
            let parked = target.parked && (options.parked_at_deploy || sums.started);
            // Without a parked instance the first start is cold; the others come from what it leaves behind.
            let cold = match (target.parked, parked) {
                (false, _) => missing,
                (true, true) => 0,
                (true, false) => 1,
            };
            sums.started = true;
            sums.cold += u64::from(cold);
            sums.restores += u64::from(missing - cold);
            waits.add(times.cold_ms, u64::from(cold));
            for nth in 0..missing - cold {
                waits.add(times.restore_ms + f64::from(nth) * times.restore_step_ms, 1);
            }
        }
        fleet.close(&demand)?;
    }
    Ok(Report::new(policy, trace, &fleet.totals().accuracy, &apps, waits, options))
}
