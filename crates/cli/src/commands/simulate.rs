//! `mayfly simulate`: what scaling policies would have cost on a trace of demand.

use crate::error::CliError;
use crate::output::Output;
use clap::{Args, ValueEnum};
use mayfly_plan::policy::Policy;
use mayfly_simulate::{Report, SimulateOptions, StartTimes, Trace, TraceLimits, simulate};
use std::fs::File;
use std::path::PathBuf;

/// Most policies of one run.
const POLICIES_MAX: usize = 32;
/// Policies that are simulated when none are named.
const POLICIES: [Policy; 3] = [Policy::CONSERVATIVE, Policy::EAGER, Policy::PARKED];
/// Fixed keep-alives that every run shows for comparison, in minutes.
const FIXED_MINUTES: [u32; 4] = [5, 10, 60, 240];

/// Say what scaling policies would have cost on a trace of demand. Needs no platform: the policies' own code runs in virtual time.
///
/// The trace is a CSV file with a row for each application (app,memory_mb,invocations,m0,m1,…; m<i> is the number of
/// instances needed at once in minute i) or for each busy minute of a function (minute,function,memory_mb,demand and, if
/// known, invocations). Either may have a column `runtime`.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// The trace
    #[arg(long, value_name = "FILE")]
    pub trace: PathBuf,
    /// Policies, separated by commas: conservative, eager, parked, off, keepalive-<minutes>m, forecast-<budget>, parked-<budget>. Fixed keep-alives are always shown beside them [default: conservative,eager,parked]
    #[arg(long = "policy", value_name = "NAME", value_delimiter = ',')]
    pub policies: Vec<Policy>,
    /// How long a call waits for a cold start, for all runtimes or for one [default: 330]
    #[arg(long, value_name = "[RUNTIME=]MS")]
    pub cold_ms: Vec<RuntimeMs>,
    /// How long a call waits for an instance made from a parked one [default: 15]
    #[arg(long, value_name = "[RUNTIME=]MS")]
    pub restore_ms: Vec<RuntimeMs>,
    /// How much longer each further one takes that is asked for at once [default: 4]
    #[arg(long, value_name = "MS")]
    pub restore_step_ms: Option<f64>,
    /// Memory of a parked instance, measured [default: 5]
    #[arg(long, value_name = "MB")]
    pub parked_mb: Option<f64>,
    /// Since when a function has a parked instance
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    pub parked_from: ParkedFrom,
    /// The fixed keep-alive that budgets are shares of [default: 10]
    #[arg(long, value_name = "MINUTES")]
    pub baseline_minutes: Option<u32>,
}

/// Since when a function has a parked instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ParkedFrom {
    /// Since it was deployed, before the trace begins.
    #[default]
    Deploy,
    /// Since its first start, which is a cold one.
    FirstStart,
}

/// Milliseconds, of all runtimes or of one.
#[derive(Clone, Debug, PartialEq)]
pub struct RuntimeMs {
    runtime: Option<String>,
    ms: f64,
}

impl std::str::FromStr for RuntimeMs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (runtime, number) = match text.rsplit_once('=') {
            Some((runtime, number)) => (Some(runtime.to_owned()), number),
            None => (None, text),
        };
        let ms: f64 = number.parse().map_err(|_| format!("{number:?} is not a number of milliseconds"))?;
        Ok(Self { runtime, ms })
    }
}

/// Runs the simulations and prints them.
pub fn run(args: &SimulateArgs, out: Output) -> Result<(), CliError> {
    let options = options(args);
    let policies = policies(&args.policies)?;
    let path = args.trace.display();
    let file = File::open(&args.trace).map_err(|e| CliError::local(format!("{path} cannot be read: {e}")))?;
    let trace = Trace::read(file, &TraceLimits::default()).map_err(|e| {
        CliError::local(format!("{path}: {e}")).hint("`mayfly simulate --help` has the form of a trace")
    })?;
    let mut reports = Vec::with_capacity(policies.len());
    for policy in policies {
        reports.push(simulate(&trace, policy, &options).map_err(|e| CliError::local(e.to_string()))?);
    }
    if out.is_json() {
        for report in &reports {
            // One object a line, also on a terminal: what reads it reads lines.
            out.line(serde_json::to_string(report).map_err(|e| CliError::local(e.to_string()))?);
        }
        return Ok(());
    }
    out.note(format_args!(
        "{} applications, {} minutes, {} calls; budgets are shares of a keep-alive of {} minutes",
        trace.apps().len(),
        trace.minutes(),
        reports.first().map_or(0, |r| r.invocations),
        options.baseline_minutes,
    ));
    out.table(&HEADER, rows(&reports));
    Ok(())
}

fn options(args: &SimulateArgs) -> SimulateOptions {
    let mut options =
        SimulateOptions { parked_at_deploy: args.parked_from == ParkedFrom::Deploy, ..Default::default() };
    if let Some(mb) = args.parked_mb {
        options.parked_mb = mb;
    }
    if let Some(minutes) = args.baseline_minutes {
        options.baseline_minutes = minutes;
    }
    if let Some(ms) = args.restore_step_ms {
        options.times.restore_step_ms = ms;
    }
    type Field = fn(&mut StartTimes) -> &mut f64;
    let fields: [(&[RuntimeMs], Field); 2] =
        [(&args.cold_ms, |t| &mut t.cold_ms), (&args.restore_ms, |t| &mut t.restore_ms)];
    // What holds for all runtimes comes first: what is given for one starts from it.
    for (given, field) in &fields {
        for value in given.iter().filter(|v| v.runtime.is_none()) {
            *field(&mut options.times) = value.ms;
        }
    }
    for (given, field) in &fields {
        for value in given.iter() {
            if let Some(runtime) = &value.runtime {
                let all = options.times;
                *field(options.by_runtime.entry(runtime.clone()).or_insert(all)) = value.ms;
            }
        }
    }
    options
}

/// Those asked for, then the fixed ones; none twice.
fn policies(asked: &[Policy]) -> Result<Vec<Policy>, CliError> {
    let asked = if asked.is_empty() { &POLICIES } else { asked };
    let mut policies: Vec<Policy> = Vec::new();
    for policy in asked.iter().copied().chain(FIXED_MINUTES.map(|minutes| Policy::KeepAlive { minutes })) {
        if !policies.contains(&policy) {
            policies.push(policy);
        }
    }
    match policies.len() {
        n if n > POLICIES_MAX => {
            Err(CliError::local(format!("{n} policies are too many: at most {POLICIES_MAX} a run")))
        }
        _ => Ok(policies),
    }
}

const HEADER: [&str; 14] = [
    "POLICY",
    "COLD",
    "RATE",
    "x10m",
    "APP P50",
    "APP P75",
    "RESTORES",
    "AHEAD",
    "WAIT P50",
    "P99",
    "P99.9",
    "> 200 ms",
    "GB·s HELD",
    "x10m",
];

fn rows(reports: &[Report]) -> Vec<Vec<String>> {
    let ten = Policy::KeepAlive { minutes: 10 }.to_string();
    let ten = reports.iter().find(|r| r.policy == ten);
    let times = |own: f64, other: Option<f64>| match other {
        Some(other) if other > 0.0 => format!("{:.2}", own / other),
        _ => "-".to_owned(),
    };
    let percent = |share: f64, digits: usize| format!("{:.digits$} %", share * 100.0);
    let ms = |ms: f64| format!("{} ms", (ms * 10.0).round() / 10.0);
    let row = |r: &Report| {
        vec![
            r.policy.clone(),
            r.cold_starts.to_string(),
            percent(r.cold_rate, 2),
            times(r.cold_starts as f64, ten.map(|t| t.cold_starts as f64)),
            percent(r.app_cold_rate_p50, 1),
            percent(r.app_cold_rate_p75, 1),
            r.restores.to_string(),
            r.starts_ahead.to_string(),
            ms(r.wait_ms_p50),
            ms(r.wait_ms_p99),
            ms(r.wait_ms_p99_9),
            percent(r.long_wait_rate, 3),
            format!("{:.0}", r.gb_seconds_held),
            times(r.gb_seconds_held, ten.map(|t| t.gb_seconds_held)),
        ]
    };
    let mut rows: Vec<Vec<String>> = reports.iter().map(row).collect();
    if let Some(used) = reports.first().map(|r| r.gb_seconds_used) {
        let mut last = vec![String::new(); HEADER.len()];
        last[0] = "(used)".to_owned();
        last[HEADER.len() - 2] = format!("{used:.0}");
        last[HEADER.len() - 1] = times(used, ten.map(|t| t.gb_seconds_held));
        rows.push(last);
    }
    rows
}

#[cfg(test)]
#[path = "simulate_tests.rs"]
mod tests;
