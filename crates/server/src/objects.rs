//! The object store on its own listener.

use async_trait::async_trait;
use mayfly_base::config::PlatformOptions;
use mayfly_base::{Clock, SystemClock};
use mayfly_gateway::{HeaderCase, HttpRequest, HttpResponse, Service, StreamBody, StreamRequest};
use mayfly_model::{TriggerDesc, bucket_of};
use mayfly_objects::{EventTarget, Objects, Rule, Store, cos_event};
use mayfly_observe::Metrics;
use mayfly_observe::metrics::ObjectFigures;
use mayfly_triggers::{Binding, Item, Lag, Source, TriggerError};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
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

/// Changes of buckets, as a source of triggers: a trigger's id is its rule's, and a notice's number its position.
pub struct Buckets {
    store: Store,
    region: String,
    app_id: String,
    /// The rules that the store was given last.
    known: Mutex<HashSet<String>>,
    main: tokio::runtime::Handle,
}

impl Buckets {
    /// Over `store`. To be called on the main runtime.
    pub fn new(store: Store, options: &PlatformOptions) -> Self {
        // What waited for triggers that are no more when the platform was killed goes with the first `bind`.
        let known = Mutex::new(store.outbox().rules().into_iter().collect());
        let main = tokio::runtime::Handle::current();
        Self { store, region: options.region.clone(), app_id: options.app_id.to_string(), known, main }
    }

    fn event(&self, trigger: &Binding, notice: &mayfly_objects::Notice) -> String {
        let target = EventTarget {
            region: &self.region,
            app_id: &self.app_id,
            namespace: &trigger.namespace,
            function: &trigger.function,
            qualifier: &trigger.config.qualifier,
        };
        cos_event(notice, &target).to_string()
    }
}

#[async_trait]
impl Source for Buckets {
    fn bind(&self, triggers: &[Binding]) {
        let mut rules: HashMap<String, Vec<Rule>> = HashMap::new();
        let mut now = HashSet::new();
        for trigger in triggers {
            let TriggerDesc::Cos(desc) = &trigger.config.desc else { continue };
            now.insert(trigger.id().to_owned());
            rules.entry(bucket_of(&trigger.config.name).to_owned()).or_default().push(Rule {
                id: trigger.id().to_owned(),
                event: desc.event.clone(),
                prefix: desc.filter.prefix.clone(),
                suffix: desc.filter.suffix.clone(),
            });
        }
        let mut known = self.known.lock();
        self.store.set_all_rules(rules);
        let gone: Vec<String> = known.difference(&now).cloned().collect();
        *known = now;
        if !gone.is_empty() {
            let outbox = self.store.outbox().clone();
            self.main.spawn(async move {
                if let Err(error) = outbox.forget(gone).await {
                    tracing::warn!(%error, "changes kept for triggers that are no more could not be let go");
                }
            });
        }
    }

    async fn next(&self, trigger: &Binding, limit: usize) -> Result<Vec<Item>, TriggerError> {
        let notices = self.store.outbox().oldest(trigger.id(), limit).await.map_err(|e| TriggerError(e.to_string()))?;
        let item = |n: &mayfly_objects::Notice| Item {
            position: n.id.to_string(),
            event: self.event(trigger, n),
            lineage: n.cause.lineage,
        };
        Ok(notices.iter().map(item).collect())
    }

    async fn ack(&self, _trigger: &Binding, positions: &[String]) -> Result<(), TriggerError> {
        let ids: Vec<i64> = positions.iter().filter_map(|p| p.parse().ok()).collect();
        self.store.outbox().ack(&ids).await.map_err(|e| TriggerError(e.to_string()))
    }

    fn lag(&self, trigger: &Binding) -> Lag {
        let (events, oldest) = self.store.outbox().waiting(trigger.id());
        let oldest_ms = oldest.map_or(0, |t| SystemClock.now_ms().saturating_sub(t.unsigned_abs()));
        Lag { events, oldest_ms }
    }
}
