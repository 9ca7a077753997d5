//! Logs and metrics of invocations: the segment store, its queries, and the Prometheus registry.
//!
//! Everything here is fed from the way of a request and must not slow it: [`logs::LogStore::record`] puts a record into
//! a bounded queue and never waits, and [`metrics::FunctionMetrics`] is a handful of atomic counters.

mod apigw;
pub mod logs;
pub mod metrics;
mod objects;

pub use logs::{
    LogCursor, LogError, LogFilter, LogOptions, LogOrder, LogPage, LogQuery, LogStats, LogStore, StatusFilter,
};
pub use metrics::{FunctionMetrics, Metrics};
