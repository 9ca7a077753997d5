//! Pure decisions: scale, keep, evict, route, retry, forecast. Snapshot in, plan out; no clock, no I/O.

pub mod forecast;
pub mod policy;
pub mod pool;
pub mod retry;
pub mod route;
pub mod scale;
