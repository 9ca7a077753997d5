//! Scaling policies in virtual time: a trace of demand in, cold starts, waits and memory-time out.
//!
//! What decides is `mayfly_plan::policy::Fleet`, the same code that the server runs; this crate reads traces
//! ([`Trace`]), plays them minute by minute ([`simulate`]) and sums up ([`Report`]). The model is that of the fixed
//! keep-alive figures it is compared with: demand is the number of instances needed at once in a minute; what is not warm
//! at the minute's start is a cold start, or a restore where an instance is parked; what is warm or needed is held for
//! the whole minute. `docs/autoscaling.md` says what that leaves out.

mod report;
mod run;
mod trace;

pub use report::{Report, quantile};
pub use run::{SimulateError, SimulateOptions, StartTimes, simulate};
pub use trace::{App, Trace, TraceError, TraceLimits};
