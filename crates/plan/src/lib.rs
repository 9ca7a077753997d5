//! Pure decisions: scale, keep, evict, route, retry. Snapshot in, plan out; no clock, no I/O.
