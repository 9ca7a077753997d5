//! What the listener counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Figures since the start, for `/metrics`. All are counters but [`GatewayStats::connections`].
#[derive(Debug, Default)]
pub struct GatewayStats {
    pub(crate) connections: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) header_timeouts: AtomicU64,
    pub(crate) body_timeouts: AtomicU64,
    pub(crate) bodies_too_large: AtomicU64,
    pub(crate) bodies_broken: AtomicU64,
    pub(crate) bodies_no_memory: AtomicU64,
    pub(crate) write_stalls: AtomicU64,
    pub(crate) handshakes_failed: AtomicU64,
    pub(crate) panics: AtomicU64,
}

macro_rules! read {
    ($($(#[doc = $doc:literal])+ $name:ident)+) => {
        impl GatewayStats {
            $($(#[doc = $doc])+ pub fn $name(&self) -> u64 { self.$name.load(Ordering::Relaxed) })+
        }
    };
}

read! {
    /// Connections open now.
    connections
    /// Connections accepted and served.
    accepted
    /// Connections answered 503 because too many were open.
    refused
    /// Requests whose headers were read.
    requests
    /// Connections closed because headers came too slowly.
    header_timeouts
    /// Requests given up because their body came too slowly.
    body_timeouts
    /// Requests whose body was too large.
    bodies_too_large
    /// Requests whose body ended early or was malformed.
    bodies_broken
    /// Requests refused because bodies in flight held all memory set aside for them.
    bodies_no_memory
    /// Connections closed because the client did not take its answer.
    write_stalls
    /// TLS connections that did not get through their handshake: garbage, other protocols, too slow.
    handshakes_failed
    /// Panics of the service.
    panics
}

pub(crate) fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
