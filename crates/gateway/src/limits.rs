//! The listener's limits.

use std::time::Duration;

/// What bounds connections and requests. Every wait has an end, every size a maximum.
#[derive(Clone, Debug)]
pub struct GatewayLimits {
    /// Most connections at a time; further ones are answered 503 and closed.
    pub connections_max: usize,
    /// From the acceptance of a TLS connection to the end of its handshake; then it is closed.
    pub handshake_time: Duration,
    /// TLS handshakes at a time; further connections are closed.
    pub handshakes_max: usize,
    /// Largest request line and headers together, in bytes (answered 431).
    pub header_bytes_max: usize,
    /// Most headers of a request (answered 431).
    pub headers_max: usize,
    /// From a request's first byte to the end of its headers; then the connection is closed.
    pub header_time: Duration,
    /// How long a connection may lie idle before its first and between requests; then it is closed.
    pub idle_time: Duration,
    /// Largest body, in bytes (answered `RequestSizeLimitExceeded`).
    pub body_bytes_max: usize,
    /// A body must bring [`Self::body_window_bytes_min`] in each span of this length (answered 408).
    pub body_window: Duration,
    /// See [`Self::body_window`]. The end of the body counts as progress too.
    pub body_window_bytes_min: usize,
    /// From a request's headers to the end of its body (answered 408).
    pub body_time: Duration,
    /// Memory for bodies in flight, all requests together, in bytes. Taken as bytes arrive, from the 16 KiB-th of a
    /// body on, and given back when the answer is made.
    pub bodies_bytes_max: usize,
    /// How long a body waits for that memory (answered `ServiceUnavailable`).
    pub bodies_wait: Duration,
    /// A client that takes no byte of its answer for so long is dropped.
    pub write_stall_time: Duration,
    /// Whether HTTP/2 without TLS is spoken. Its connections carry up to 256 requests at a time.
    pub http2: bool,
    /// How long requests in flight may go on after the stop was said.
    pub drain_time: Duration,
}

impl Default for GatewayLimits {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            handshake_time: Duration::from_secs(10),
            handshakes_max: 4096,
            header_bytes_max: 64 * 1024,
            headers_max: 100,
            header_time: Duration::from_secs(15),
            idle_time: Duration::from_secs(75),
            body_bytes_max: mayfly_model::limits::API_BODY_BYTES_MAX,
            body_window: Duration::from_secs(20),
            body_window_bytes_min: 16 * 1024,
            body_time: Duration::from_secs(600),
            bodies_bytes_max: 512 * 1024 * 1024,
            bodies_wait: Duration::from_secs(5),
            write_stall_time: Duration::from_secs(30),
            http2: true,
            drain_time: Duration::from_secs(30),
        }
    }
}
