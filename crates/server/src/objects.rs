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

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::Request;
    use http_body_util::{BodyExt as _, Full};
    use mayfly_model::{CosDesc, CosFilter, TriggerConfig};
    use mayfly_objects::{Limits, Settings};
    use mayfly_sign::{CosToSign, Credential, sign_cos};
    use mayfly_triggers::contract::Rig;
    use mayfly_triggers::source::FromSource;
    use mayfly_triggers::{Door, Trigger, trigger_contract};
    use std::time::{SystemTime, UNIX_EPOCH};

    const BUCKET: &str = "photos-1250000000";

    /// A bucket, and a trigger of it.
    struct BucketRig {
        objects: Objects,
        binding: Binding,
        put: usize,
        _data: tempfile::TempDir,
    }

    impl BucketRig {
        /// Puts an empty object, or makes the bucket.
        async fn put(&self, path: String) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            let authorization = sign_cos(&CosToSign {
                secret_id: "id",
                secret_key: "key",
                span_s: (now - 60, now + 600),
                method: "PUT",
                path: &path,
                params: &[],
                headers: &[("host", "127.0.0.1")],
            });
            let body = Full::new(Bytes::new()).map_err(|never| match never {});
            let request = Request::put(path)
                .header("host", "127.0.0.1")
                .header("content-length", 0)
                .header("authorization", authorization)
                .body(mayfly_objects::Body::new(body))
                .unwrap();
            let answer = self.objects.call(request, ([127, 0, 0, 1], 1).into()).await;
            assert_eq!(answer.status(), 200);
        }

        fn source(&self) -> Buckets {
            Buckets::new(self.objects.store().clone(), &PlatformOptions::default())
        }
    }

    async fn rig() -> BucketRig {
        let data = tempfile::tempdir().unwrap();
        let limits = Limits { disk_free_min: 0, ..Limits::default() };
        let store = Store::open(data.path(), limits).await.unwrap();
        let keys = HashMap::from([("id".to_owned(), Credential::permanent("key"))]);
        let settings =
            Settings { region: "ap-x".into(), app_id: "1250000000".into(), domains: vec!["fn.localhost".into()] };
        let config = TriggerConfig {
            id: "0123456789abcdef".into(),
            name: format!("{BUCKET}.cos.ap-x.myqcloud.com"),
            desc: TriggerDesc::Cos(CosDesc { event: "cos:ObjectCreated:*".into(), filter: CosFilter::default() }),
            qualifier: "$LATEST".into(),
            enabled: true,
            argument: String::new(),
            description: String::new(),
            add_time_ms: 0,
            mod_time_ms: 0,
        };
        let binding = Binding { namespace: "default".into(), function: "f".into(), config: Arc::new(config) };
        let objects = Objects::new(store, Arc::new(keys), settings);
        let rig = BucketRig { objects, binding, put: 0, _data: data };
        rig.put(format!("/{BUCKET}")).await;
        rig.source().bind(std::slice::from_ref(&rig.binding));
        rig
    }

    #[async_trait]
    impl Rig for BucketRig {
        async fn start(&mut self, door: Arc<dyn Door>) -> Arc<dyn Trigger> {
            let source = self.source();
            source.bind(std::slice::from_ref(&self.binding));
            Arc::new(FromSource::new(self.binding.clone(), Arc::new(source), door, Arc::default()))
        }

        async fn happen(&mut self, events: usize) {
            for _ in 0..events {
                self.put += 1;
                self.put(format!("/{BUCKET}/{}", self.put)).await;
            }
        }
    }

    trigger_contract!(contract, rig);
}
