//! Logs and metrics of invocations: the segment store, its queries, and the Prometheus registry.
