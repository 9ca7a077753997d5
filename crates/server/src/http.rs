//! What the front door's paths mean.

use crate::apigw::{Apis, Core};
use crate::inside::Asker;
use crate::keys::Keychain;
use crate::queues::QueueParts;
use crate::url::{self, Urls};
use async_trait::async_trait;
use bytes::Bytes;
use mayfly_apigw::api::{SERVICE as APIGW_SERVICE, VERSION as APIGW_VERSION};
use mayfly_base::{Clock, SystemClock};
use mayfly_control::{ApiResponse, Call, Control, DOWNLOAD_PATH, ids};
use mayfly_gateway::{HttpRequest, HttpResponse, Service, StreamBody, StreamRequest};
use mayfly_model::RuntimeId;
use mayfly_node::Node;
use mayfly_node::inside::Caller;
use mayfly_objects::Objects;
use mayfly_observe::Metrics;
use mayfly_observe::metrics::{EventDepth, InstanceState, MemoryOf};
use mayfly_queues::api::{TDMQ_SERVICE, TDMQ_VERSION};
use mayfly_sandbox::process::ProcessBackend;
use mayfly_sign::{RequestView, SignError, Verified, Verifier};
use mayfly_triggers::Engine;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// API requests with larger bodies, in bytes, are checked and read on the main runtime: that takes long enough to hold up the connections
/// of an event loop.
const LARGE_BYTES: usize = 256 << 10;

/// Answers every request of the listener.
pub struct Front {
    api: Arc<Api>,
    backend: ProcessBackend,
    node: Node,
    ceiling_mb: u64,
    urls: Urls,
    apis: Arc<Apis>,
    queues: QueueParts,
    objects: Option<Arc<Objects>>,
    triggers: Arc<Engine>,
    /// Functions whose triggers' lag was shown.
    lagging: Mutex<HashSet<(String, String)>>,
    draining: AtomicBool,
    main: tokio::runtime::Handle,
}

/// What a front door leads to.
pub struct FrontParts {
    pub control: Control,
    pub backend: ProcessBackend,
    pub node: Node,
    pub metrics: Metrics,
    /// Memory that instances may have, in MB.
    pub ceiling_mb: u64,
    pub urls: Urls,
    /// The API gateway's requests, and its API.
    pub apis: Arc<Apis>,
    pub api_parts: Core,
    pub queues: QueueParts,
    pub triggers: Arc<Engine>,
    /// The object store, if there is one.
    pub objects: Option<Arc<Objects>>,
}

/// Answers requests for the API.
struct Api {
    control: Control,
    apis: Core,
    queues: QueueParts,
    metrics: Metrics,
    verifier: Verifier,
    keys: Keychain,
}

impl Api {
    fn verify(&self, request: &HttpRequest, inside: Option<&Arc<Caller>>) -> Result<Verified, SignError> {
        let view = RequestView {
            method: request.method.as_str(),
            path: request.uri.path(),
            query: request.uri.query().unwrap_or(""),
            header: &|name| request.headers.get(name).map(|v| v.as_bytes()),
            body: &request.body,
        };
        self.verifier.verify(&view, &self.keys.at(inside), SystemClock.now_ms())
    }

    /// `inside`: the instance whose own socket the request came by.
    async fn answer(&self, request: HttpRequest, inside: Option<&Arc<Caller>>) -> HttpResponse {
        let begun = Instant::now();
        let request_id = ids::request_id();
        let verified = self.verify(&request, inside);
        let caller = verified.as_ref().map(|v| self.keys.asker(&v.secret_id, inside)).unwrap_or_default();
        let (action, response) = match verified {
            Err(error) => (String::new(), ApiResponse::error(request_id, &error.into())),
            Ok(verified) if verified.version == TDMQ_VERSION => {
                let reply = self.queues.api.tdmq(verified, caller.lineage).await;
                self.metrics.api_call(&reply.action, &reply.code, begun.elapsed());
                return HttpResponse::json(reply.body);
            }
            Ok(verified) if verified.version == APIGW_VERSION => {
                let host = request.headers.get("host").and_then(|h| h.to_str().ok()).unwrap_or("");
                let answer = match caller.may(&verified.action) {
                    Ok(()) => self.apis.api(&verified, host).await,
                    Err(error) => Err(error),
                };
                let response = match answer {
                    Ok(fields) => ApiResponse::ok(request_id, fields),
                    Err(error) => ApiResponse::error(request_id, &error),
                };
                // Names of actions that there are not would be series of their own.
                let known = mayfly_apigw::api::BUILT.iter().any(|(name, _)| *name == verified.action);
                (if known { verified.action } else { String::new() }, response)
            }
            Ok(verified) => {
                let host = request.headers.get("host").and_then(|h| h.to_str().ok()).unwrap_or("").to_owned();
                let action = verified.action.clone();
                (action, self.control.handle(Call { verified, host, request_id, caller }).await)
            }
        };
        self.metrics.api_call(&action, response.error_code.unwrap_or("OK"), begun.elapsed());
        HttpResponse::json(response.body)
    }
}

/// Resident memory of this process, in bytes.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|p| p.parse().ok()).unwrap_or(0);
    // SAFETY: takes no pointers.
    pages * u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

impl Front {
    /// A front door for these parts. To be called on the main runtime.
    pub fn new(parts: FrontParts, keys: Keychain) -> Self {
        let FrontParts {
            control,
            backend,
            node,
            metrics,
            ceiling_mb,
            urls,
            apis,
            api_parts,
            queues,
            triggers,
            objects,
        } = parts;
        let verifier = Verifier::new(&["scf", TDMQ_SERVICE, APIGW_SERVICE]);
        let api = Arc::new(Api { control, apis: api_parts, queues: queues.clone(), metrics, verifier, keys });
        let main = tokio::runtime::Handle::current();
        let lagging = Mutex::default();
        Self {
            api,
            backend,
            node,
            ceiling_mb,
            urls,
            apis,
            queues,
            triggers,
            objects,
            lagging,
            draining: AtomicBool::new(false),
            main,
        }
    }

    /// From now on `/healthz` tells load balancers to look elsewhere.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    async fn api(&self, request: HttpRequest, inside: Option<&Arc<Caller>>) -> HttpResponse {
        if request.body.len() <= LARGE_BYTES {
            return self.api.answer(request, inside).await;
        }
        let (api, inside) = (Arc::clone(&self.api), inside.cloned());
        match self.main.spawn(async move { api.answer(request, inside.as_ref()).await }).await {
            Ok(response) => response,
            Err(error) => match error.try_into_panic() {
                // The listener knows what to tell the client.
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => HttpResponse::text(503, "The platform is stopping.\n"),
            },
        }
    }

    /// Answers a request that came by an instance's own socket: of the API, and for what its answers link to.
    pub async fn call_inside(&self, request: HttpRequest, caller: &Arc<Caller>) -> HttpResponse {
        let path = request.uri.path();
        if path == "/" || path.is_empty() {
            return self.api(request, Some(caller)).await;
        }
        match path.strip_prefix(DOWNLOAD_PATH) {
            Some(token) if request.method == http::Method::GET => self.download(token).await,
            _ => HttpResponse::text(
                404,
                "Nothing is here. The API is at `/`, functions at /fn/<namespace>/<function>/.\n",
            ),
        }
    }

    async fn download(&self, token: &str) -> HttpResponse {
        match self.api.control.download(token).await {
            Some(download) => HttpResponse {
                status: 200,
                content_type: "application/zip",
                headers: vec![("content-disposition", format!("attachment; filename=\"{}\"", download.file_name))],
                body: download.bytes,
            },
            None => HttpResponse::text(
                404,
                "The link is not valid, or not any more. Ask for another with GetFunctionAddress.\n",
            ),
        }
    }

    async fn metrics(&self) -> HttpResponse {
        if let Some((usage, unkept)) = self.api.control.failure_usage().await {
            self.api.metrics.set_failures(usage.count, usage.bytes, usage.evicted, unkept, usage.messages);
        }
        for runtime in RuntimeId::ALL {
            let stats = self.node.stats_of(runtime);
            for (state, count) in [
                (InstanceState::Busy, stats.busy),
                (InstanceState::Idle, stats.idle),
                (InstanceState::Starting, stats.starting),
                (InstanceState::Template, stats.templates),
                (InstanceState::Precreated, stats.precreated),
            ] {
                self.api.metrics.set_instances(runtime.as_str(), state, count);
            }
        }
        for ((namespace, function), count) in self.node.waiting() {
            self.api.metrics.function(&namespace, &function).set_waiting(count);
        }
        self.apis.measure(&self.api.metrics);
        if let Some(objects) = &self.objects {
            crate::objects::measure(objects, &self.api.metrics);
        }
        crate::triggers::measure(&self.triggers, &self.api.metrics, &mut self.lagging.lock());
        let now_ms = SystemClock.now_ms();
        let events = self.api.control.events();
        let depth = |d: mayfly_control::events::FunctionDepth| EventDepth {
            oldest: Duration::from_millis(now_ms.saturating_sub(d.oldest_ms)),
            namespace: d.namespace,
            function: d.function,
            pending: d.pending,
            running: d.running,
        };
        self.api.metrics.set_events(&events.depths().into_iter().map(depth).collect::<Vec<_>>());
        let ended = events.ended_counts();
        for (end, count) in [("finished", ended.finished), ("failed", ended.failed), ("aborted", ended.aborted)] {
            self.api.metrics.set_events_ended(end, count);
        }
        self.api.metrics.set_chains_ended(self.api.control.too_deep());
        self.api.metrics.set_memory(MemoryOf::Platform, resident_bytes());
        if let Some(bytes) = self.backend.memory_bytes() {
            self.api.metrics.set_memory(MemoryOf::Instances, bytes);
        }
        self.api.metrics.set_memory(MemoryOf::InstanceLimits, self.node.stats().memory_mb << 20);
        self.api.metrics.set_memory(MemoryOf::Ceiling, self.ceiling_mb << 20);
        HttpResponse {
            status: 200,
            content_type: "application/openmetrics-text; version=1.0.0; charset=utf-8",
            headers: Vec::new(),
            body: Bytes::from(self.api.metrics.encode_with_queues(&self.queues.gauges().await)),
        }
    }

    fn health(&self) -> HttpResponse {
        if self.draining.load(Ordering::Acquire) {
            return HttpResponse { status: 503, ..HttpResponse::json("{\"status\":\"draining\"}\n") };
        }
        HttpResponse::json("{\"status\":\"ok\"}\n")
    }
}

#[async_trait]
impl Service for Front {
    fn streams(&self, head: &http::request::Parts) -> bool {
        self.apis.takes(&head.uri, &head.headers) || self.urls.takes(head)
    }

    async fn stream(&self, request: StreamRequest) -> http::Response<StreamBody> {
        if self.apis.takes(request.request.uri(), request.request.headers()) {
            return self.apis.answer(request).await;
        }
        let inside = request.request.extensions().get::<Asker>().cloned();
        let credentials = self.api.keys.at(inside.as_ref().map(|asker| &asker.0));
        self.urls.answer(request, url::Keys { verifier: &self.api.verifier, credentials: &credentials }).await
    }

    async fn call(&self, request: HttpRequest) -> HttpResponse {
        let path = request.uri.path();
        if path == "/" || path.is_empty() {
            return self.api(request, None).await;
        }
        let is_get = matches!(request.method.as_str(), "GET" | "HEAD");
        match path {
            "/healthz" if is_get => self.health(),
            "/metrics" if is_get => self.metrics().await,
            _ => match path.strip_prefix(DOWNLOAD_PATH) {
                Some(token) if is_get => self.download(token).await,
                _ => HttpResponse::text(
                    404,
                    "Nothing is here. The API is at `/`, functions at /fn/<namespace>/<function>/, APIs at /apigw/<service>/<environment>/, health at /healthz, metrics at /metrics.\n",
                ),
            },
        }
    }
}
