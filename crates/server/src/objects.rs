//! The object store on its own listener.

use async_trait::async_trait;
use mayfly_gateway::{HeaderCase, HttpRequest, HttpResponse, Service, StreamBody, StreamRequest};
use mayfly_objects::Objects;
use mayfly_observe::Metrics;
use mayfly_observe::metrics::ObjectFigures;
use std::sync::Arc;

/// Answers every request of the listener.
pub struct Door {
    objects: Arc<Objects>,
    case: HeaderCase,
}

/// As COS writes them: its Python SDK looks headers of answers up by these names.
const NAMES: [&str; 14] = [
    "Accept-Ranges",
    "Cache-Control",
    "Connection",
    "Content-Disposition",
    "Content-Encoding",
    "Content-Language",
    "Content-Length",
    "Content-Range",
    "Content-Type",
    "Date",
    "ETag",
    "Expires",
    "Last-Modified",
    "Location",
];

impl Door {
    /// A door to `objects`.
    pub async fn new(objects: Arc<Objects>) -> Self {
        Self { objects, case: HeaderCase::new(&NAMES).await }
    }
}

#[async_trait]
impl Service for Door {
    fn streams(&self, _head: &http::request::Parts) -> bool {
        true
    }

    async fn stream(&self, request: StreamRequest) -> http::Response<StreamBody> {
        let mut answer = self.objects.call(request.request, request.peer).await;
        self.case.apply(&mut answer);
        answer
    }

    async fn call(&self, _request: HttpRequest) -> HttpResponse {
        HttpResponse::text(404, "Only objects are here.\n")
    }
}

/// Writes the store's figures into the metrics.
pub fn measure(objects: &Objects, metrics: &Metrics) {
    let (store, service) = (objects.store().stats(), objects.stats());
    metrics.set_objects(&ObjectFigures {
        objects: store.objects,
        bytes: store.bytes,
        outbox: store.outbox,
        received_bytes: store.received,
        sent_bytes: store.sent,
        cos_requests: service.cos_requests,
        s3_requests: service.s3_requests,
        client_errors: service.client_errors,
        server_errors: service.server_errors,
    });
}
