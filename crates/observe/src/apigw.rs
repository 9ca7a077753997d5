//! What the metrics show of the API gateway.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::atomic::Ordering;

/// Figures of the API gateway at one moment; but for the open WebSockets, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApigwFigures {
    /// Requests that were let in.
    pub admitted: u64,
    /// Requests without an API, or with parameters that are not what they should be.
    pub refused: u64,
    /// Requests beyond a limit.
    pub limited: u64,
    /// Requests of callers that were not let in.
    pub denied: u64,
    /// WebSockets that are open now.
    pub sockets_open: u64,
    /// WebSockets that were opened.
    pub sockets_opened: u64,
    /// WebSockets that were refused by their functions, or for want of room.
    pub sockets_refused: u64,
    /// Messages of visitors.
    pub messages_received: u64,
    /// Messages to visitors.
    pub messages_sent: u64,
}

/// Their series.
#[derive(Clone, Default)]
pub(crate) struct ApigwSeries {
    admitted: Counter,
    refused: Counter,
    limited: Counter,
    denied: Counter,
    open: Gauge,
    opened: Counter,
    sockets_refused: Counter,
    received: Counter,
    sent: Counter,
}

impl ApigwSeries {
    #[rustfmt::skip]
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("apigw_requests_admitted", "Requests that the API gateway let in", self.admitted.clone());
        registry.register("apigw_requests_refused", "Requests to the API gateway without an API, or with wrong parameters", self.refused.clone());
        registry.register("apigw_requests_limited", "Requests to the API gateway beyond a limit", self.limited.clone());
        registry.register("apigw_requests_denied", "Requests to the API gateway whose callers were not let in", self.denied.clone());
        registry.register("apigw_websockets", "WebSockets that the API gateway holds open", self.open.clone());
        registry.register("apigw_websockets_opened", "WebSockets that were opened", self.opened.clone());
        registry.register("apigw_websockets_refused", "WebSockets that were refused", self.sockets_refused.clone());
        registry.register("apigw_messages_received", "Messages of visitors over WebSockets", self.received.clone());
        registry.register("apigw_messages_sent", "Messages to visitors over WebSockets", self.sent.clone());
    }

    pub(crate) fn set(&self, figures: &ApigwFigures) {
        self.open.set(i64::try_from(figures.sockets_open).unwrap_or(i64::MAX));
        for (counter, value) in [
            (&self.admitted, figures.admitted),
            (&self.refused, figures.refused),
            (&self.limited, figures.limited),
            (&self.denied, figures.denied),
            (&self.opened, figures.sockets_opened),
            (&self.sockets_refused, figures.sockets_refused),
            (&self.received, figures.messages_received),
            (&self.sent, figures.messages_sent),
        ] {
            counter.inner().store(value, Ordering::Relaxed);
        }
    }
}
