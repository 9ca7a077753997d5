//! What the metrics show of the object store.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::Ordering;

/// Figures of the object store at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObjectFigures {
    /// Objects.
    pub objects: u64,
    /// Bytes of objects.
    pub bytes: u64,
    /// Notices of changes that wait.
    pub outbox: u64,
    /// Bytes of bodies received since the start.
    pub received_bytes: u64,
    /// Bytes of objects sent since the start.
    pub sent_bytes: u64,
    /// Requests signed in COS's way, since the start.
    pub cos_requests: u64,
    /// All other requests, since the start.
    pub s3_requests: u64,
    /// Answers of 400 to 499, since the start.
    pub client_errors: u64,
    /// Answers of 500 and above, since the start.
    pub server_errors: u64,
}

/// Their series.
#[derive(Clone, Default)]
pub(crate) struct ObjectSeries {
    objects: Gauge,
    bytes: Gauge,
    outbox: Gauge,
    received: Counter,
    sent: Counter,
    cos: Counter,
    s3: Counter,
    client_errors: Counter,
    server_errors: Counter,
}

impl ObjectSeries {
    #[rustfmt::skip]
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("objects", "Objects in the object store", self.objects.clone());
        registry.register_with_unit("objects_stored", "Size of the objects in the object store", Unit::Bytes, self.bytes.clone());
        registry.register("objects_outbox", "Notices of changes that wait to be delivered", self.outbox.clone());
        registry.register_with_unit("objects_received", "Bodies received by the object store", Unit::Bytes, self.received.clone());
        registry.register_with_unit("objects_sent", "Objects sent by the object store", Unit::Bytes, self.sent.clone());
        registry.register("objects_cos_requests", "Requests to the object store that were signed in COS's way", self.cos.clone());
        registry.register("objects_s3_requests", "Other requests to the object store", self.s3.clone());
        registry.register("objects_client_errors", "Answers of the object store of 400 to 499", self.client_errors.clone());
        registry.register("objects_server_errors", "Answers of the object store of 500 and above", self.server_errors.clone());
    }

    pub(crate) fn set(&self, figures: &ObjectFigures) {
        let gauge = |gauge: &Gauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        gauge(&self.objects, figures.objects);
        gauge(&self.bytes, figures.bytes);
        gauge(&self.outbox, figures.outbox);
        let counter = |counter: &Counter, value: u64| counter.inner().store(value, Ordering::Relaxed);
        counter(&self.received, figures.received_bytes);
        counter(&self.sent, figures.sent_bytes);
        counter(&self.cos, figures.cos_requests);
        counter(&self.s3, figures.s3_requests);
        counter(&self.client_errors, figures.client_errors);
        counter(&self.server_errors, figures.server_errors);
    }
}
