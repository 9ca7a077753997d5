//! Pure decisions: scale, keep, evict, route, retry. Snapshot in, plan out; no clock, no I/O.

pub mod pool;
pub mod retry;
pub mod route;
