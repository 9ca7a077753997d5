//! The message queues: their parts, and their listener.

use crate::data::DataDir;
use crate::keys::Keychain;
use anyhow::{Context, Result};
use async_trait::async_trait;
use mayfly_base::config::PlatformOptions;
use mayfly_base::{Clock, EventLoops, Shutdown, SystemClock};
use mayfly_gateway::{Gateway, GatewayLimits, HttpRequest, HttpResponse, Service};
use mayfly_node::inside::Caller;
use mayfly_observe::Metrics;
use mayfly_observe::metrics::QueueGauges;
use mayfly_queues::api::{Account, Api, CMQ_PATH};
use mayfly_queues::push::PushOptions;
use mayfly_queues::{QueueLimits, Queues};
use mayfly_sign::RequestView;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Largest request, in bytes: 1 MB of messages, each byte of which may be escaped, and the other fields.
const BODY_BYTES_MAX: usize = 4 << 20;
/// Most connections. A long poll takes one.
const CONNECTIONS_MAX: usize = 8192;
/// Queues whose figures are looked up for one page of metrics.
const GAUGES_MAX: usize = 1000;

/// The queues and their API. Cheap to clone.
#[derive(Clone)]
pub struct QueueParts {
    /// The queues.
    pub queues: Queues,
    /// Their API.
    pub api: Arc<Api>,
    push: PushOptions,
}

impl QueueParts {
    /// Opens the database.
    pub async fn open(data: &DataDir, options: &PlatformOptions) -> Result<Self> {
        let queues = Queues::open(&data.path("queues.db"), QueueLimits::default(), Arc::new(SystemClock))
            .await
            .context("open the message queues")?;
        let account = Account { app_id: options.app_id, uin: options.uin };
        let api = Arc::new(Api::new(queues.clone(), account));
        let push = PushOptions { allow: options.queues_push_allow.clone(), owner: options.app_id.to_string() };
        Ok(Self { queues, api, push })
    }

    /// What goes on by itself, until the stop.
    pub async fn run(self, shutdown: Shutdown) {
        self.queues.run(self.push, shutdown).await;
    }

    /// The figures of all queues.
    pub async fn gauges(&self) -> Vec<QueueGauges> {
        let now_ms = SystemClock.now_ms();
        let mut out = Vec::new();
        for queue in self.queues.list_queues("").iter().take(GAUGES_MAX) {
            // One that was deleted meanwhile is left out.
            let Ok(figures) = self.queues.figures(&queue.name).await else { continue };
            let counts = figures.counts;
            out.push(QueueGauges {
                queue: queue.name.clone(),
                active: counts.active,
                in_flight: counts.in_flight,
                delayed: counts.delayed,
                oldest_s: counts.oldest_ms.map_or(0, |ms| now_ms.saturating_sub(ms) / 1000),
                sent: figures.sent,
                received: figures.received,
                deleted: figures.deleted,
            });
        }
        out
    }
}

/// The listener.
pub struct Door {
    gateway: Gateway,
}

impl Door {
    /// Listens where the options say, if they do.
    pub async fn bind(options: &PlatformOptions) -> Result<Option<Self>> {
        let Some(address) = options.queues_listen.0 else { return Ok(None) };
        let usual = GatewayLimits::default();
        let limits = GatewayLimits {
            body_bytes_max: BODY_BYTES_MAX,
            bodies_bytes_max: usual.bodies_bytes_max / 4,
            connections_max: CONNECTIONS_MAX.min(super::connections_for(mayfly_sandbox::spawner::open_files())),
            drain_time: Duration::from_secs(options.drain_s),
            ..usual
        };
        let gateway = Gateway::bind(address, limits)
            .await
            .context("the message queues need an address of their own (`queues_listen`; `off` for none)")?;
        Ok(Some(Self { gateway }))
    }

    /// The address listened on.
    pub fn address(&self) -> SocketAddr {
        self.gateway.local_addr()
    }

    /// Serves until the stop.
    pub async fn run(self, front: Arc<QueueFront>, shutdown: Shutdown, loops: Arc<EventLoops>) {
        self.gateway.run(front, shutdown, loops).await;
    }
}

/// Answers every request of the queues' listener, and those that come from inside functions.
pub struct QueueFront {
    api: Arc<Api>,
    keys: Keychain,
    metrics: Metrics,
}

#[async_trait]
impl Service for QueueFront {
    async fn call(&self, request: HttpRequest) -> HttpResponse {
        self.answer(request, None).await
    }
}

impl QueueFront {
    /// Over these queues.
    pub fn new(parts: &QueueParts, keys: Keychain, metrics: Metrics) -> Self {
        Self { api: Arc::clone(&parts.api), keys, metrics }
    }

    /// Answers a request. `inside`: the instance whose own socket it came by.
    pub async fn answer(&self, request: HttpRequest, inside: Option<&Arc<Caller>>) -> HttpResponse {
        let begun = Instant::now();
        if !matches!(request.uri.path(), "" | "/" | CMQ_PATH) {
            return HttpResponse::text(
                404,
                "Nothing is here. These are message queues: CMQ's API is at /v2/index.php, TDMQ's at /.\n",
            );
        }
        // What borrows the request does not live over the answer.
        let read = {
            let view = RequestView {
                method: request.method.as_str(),
                path: request.uri.path(),
                query: request.uri.query().unwrap_or(""),
                header: &|name| request.headers.get(name).map(|v| v.as_bytes()),
                body: &request.body,
            };
            self.api.read(&view, &self.keys.at(inside), SystemClock.now_ms())
        };
        let reply = match read {
            Ok(request) => {
                let lineage = self.keys.asker(request.secret_id(), inside).lineage;
                self.api.answer(request, lineage).await
            }
            Err(refusal) => refusal,
        };
        // The time that a long poll waits for a message is not the platform's.
        if !reply.action.ends_with("ReceiveMessage") {
            self.metrics.api_call(&reply.action, &reply.code, begun.elapsed());
        }
        HttpResponse::json(reply.body)
    }
}
