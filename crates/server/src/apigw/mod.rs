//! The API gateway between the listener and the functions: requests and WebSockets come in here, its API is called, and it is told of
//! functions. What it decides is decided in `mayfly-apigw`; see `docs/apigw.md`.

mod backend;
mod caller;
mod socket;

use crate::data::DataDir;
use crate::invoker::NodeInvoker;
use crate::url::{address, cors, headers};
use anyhow::{Context, Result};
use async_trait::async_trait;
use bytes::Bytes;
pub use caller::FunctionsOf;
use caller::SocketCaller;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, header};
use mayfly_apigw::api::{self, Cx, FunctionKind};
use mayfly_apigw::door::{Address, Admitted, Asked, PUSH_PREFIX, Refused, is_gateway_path, is_service_host};
use mayfly_apigw::records::{Backend, FunctionRef};
use mayfly_apigw::socket::{SocketLimits, Sockets, push_answer};
use mayfly_apigw::{Gateway, trigger};
use mayfly_base::config::PlatformOptions;
use mayfly_base::shutdown::Shutdown;
use mayfly_base::{Clock, SystemClock};
use mayfly_control::{ApiTrigger, ApiTriggerRef, ApiTriggers, Control, NewApiTrigger, ids};
use mayfly_gateway::{StreamBody, StreamRequest};
use mayfly_model::{ApiError, CorsConfig, RequestId};
use mayfly_node::service::whole;
use mayfly_observe::Metrics;
use mayfly_observe::metrics::ApigwFigures;
use mayfly_sign::{Params, Verified};
use mayfly_store::SqliteMeta;
use serde_json::{Map, Value, json};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use subtle::ConstantTimeEq;

/// How long a WebSocket may last. Ours.
const SOCKET_LIFE: Duration = Duration::from_secs(24 * 3600);
/// How often what keys have used is written.
const FLUSH_EVERY: Duration = Duration::from_secs(2);
/// How long WebSockets may take to close when the platform stops, and how often that is looked at.
const CLOSE_TIME: Duration = Duration::from_secs(3);
const CLOSE_LOOK: Duration = Duration::from_millis(10);
/// For how long browsers may remember what they may ask, in seconds.
const CORS_AGE_S: u32 = 600;

/// The gateway's configuration, and who knows functions: what is there before the rest of the platform.
#[derive(Clone)]
pub struct Core {
    pub gateway: Arc<Gateway>,
    pub functions: Arc<FunctionsOf>,
    pub domain: String,
}

impl Core {
    /// Opens it in the data directory.
    pub async fn open(data: &DataDir, options: &PlatformOptions) -> Result<Self> {
        let store = SqliteMeta::open(&data.path("apigw.db")).await.context("open the API gateway's database")?;
        let gateway = Gateway::load(Arc::new(store)).await.context("read the API gateway's services and keys")?;
        let domain = options.apigw_domain.clone();
        Ok(Self { gateway: Arc::new(gateway), functions: Arc::default(), domain })
    }

    fn cx<'a>(&'a self, host: &'a str) -> Cx<'a> {
        let now_ms = SystemClock.now_ms();
        Cx { gateway: &self.gateway, functions: &*self.functions, domain: &self.domain, host, now_ms }
    }

    /// Answers a call of API Gateway's API. Returns the action, the fields of the answer, or the error.
    pub async fn api(&self, verified: &Verified, host: &str) -> Result<Map<String, Value>, ApiError> {
        let params = match &verified.params {
            Params::Tree(value) => value.clone(),
            Params::Json(body) if body.trim_ascii().is_empty() => json!({}),
            Params::Json(body) => serde_json::from_slice(body)
                .map_err(|e| ApiError::new("FailedOperation.InvalidInputJSON", format!("The body is no JSON: {e}.")))?,
        };
        let Value::Object(mut params) = params else {
            return Err(ApiError::new("FailedOperation.InvalidInputJSON", "The body is no JSON object."));
        };
        // Forms carry the common parameters beside the action's own.
        if matches!(verified.params, Params::Tree(_)) {
            for name in [
                "Action",
                "Version",
                "Region",
                "Timestamp",
                "Nonce",
                "SecretId",
                "Signature",
                "SignatureMethod",
                "Token",
                "Language",
                "RequestClient",
            ] {
                params.remove(name);
            }
        }
        api::handle(self.cx(host), &verified.action, &params).await
    }

    /// Takes the triggers of functions away that a platform before this one deleted and then was killed.
    pub async fn sweep(&self, control: &Control) -> Result<()> {
        let gone = |f: &FunctionRef| control.catalogue().function(&f.namespace, &f.name).is_none();
        trigger::forget(&self.gateway, gone, SystemClock.now_ms())
            .await
            .map_err(|e| anyhow::anyhow!("take away triggers of functions that are gone: {e}"))
    }
}

fn as_port(shown: trigger::Shown) -> ApiTrigger {
    ApiTrigger {
        name: shown.name,
        desc: shown.desc.to_string(),
        qualifier: shown.qualifier,
        argument: shown.argument,
        description: shown.description,
        resource: shown.resource,
        add_time_ms: shown.add_time_ms,
        mod_time_ms: shown.mod_time_ms,
    }
}

#[async_trait]
impl ApiTriggers for Core {
    async fn create(&self, new: NewApiTrigger) -> Result<ApiTrigger, ApiError> {
        let kind = if new.takes_http { FunctionKind::Http } else { FunctionKind::Event };
        let function = FunctionRef { namespace: new.namespace, name: new.function, qualifier: new.qualifier };
        let wanted = trigger::NewTrigger {
            function,
            name: new.name,
            desc: new.desc,
            argument: new.argument,
            description: new.description,
        };
        trigger::create(self.cx(&new.host), wanted, kind).await.map(as_port)
    }

    async fn delete(&self, meant: ApiTriggerRef) -> Result<(), ApiError> {
        let ApiTriggerRef { namespace, function, name, qualifier, desc } = meant;
        let meant = trigger::Meant { namespace, function, name, qualifier, desc };
        trigger::delete(&self.gateway, meant, SystemClock.now_ms()).await
    }

    fn list(&self, namespace: &str, function: &str, host: &str) -> Vec<ApiTrigger> {
        trigger::list(&self.gateway, namespace, function, &self.domain, host).into_iter().map(as_port).collect()
    }

    async fn forget(&self, namespace: &str, function: &str) -> Result<(), ApiError> {
        let gone = |f: &FunctionRef| f.namespace == namespace && f.name == function;
        trigger::forget(&self.gateway, gone, SystemClock.now_ms()).await
    }
}

/// Requests since the start, by what became of them.
#[derive(Default)]
struct Counts {
    admitted: AtomicU64,
    refused: AtomicU64,
    limited: AtomicU64,
    denied: AtomicU64,
}

/// Answers requests to APIs.
pub struct Apis {
    parts: Core,
    control: Control,
    invoker: Arc<NodeInvoker>,
    sockets: Arc<Sockets>,
    caller: Arc<SocketCaller>,
    functions_domain: String,
    /// Where the platform listens, as programs on this machine reach it.
    own_host: String,
    cors: CorsConfig,
    counts: Counts,
}

impl Apis {
    /// Over the rest of the platform, which listens at `address`.
    pub fn new(
        parts: Core,
        control: Control,
        invoker: Arc<NodeInvoker>,
        options: &PlatformOptions,
        address: SocketAddr,
    ) -> Self {
        let limits = SocketLimits {
            connections_max: options.apigw_connections,
            idle: Duration::from_secs(options.apigw_idle_s),
            life: SOCKET_LIFE,
        };
        let sockets = Sockets::new(limits, parts.gateway.take_left_connections());
        let any = || vec!["*".to_owned()];
        let cors = CorsConfig {
            origins: any(),
            methods: any(),
            headers: any(),
            expose_headers: any(),
            credentials: false,
            max_age_s: CORS_AGE_S,
        };
        let caller = Arc::new(SocketCaller::new(control.clone()));
        let functions_domain = options.domain.to_ascii_lowercase();
        let own_host = own_host(address).to_string();
        Self { parts, control, invoker, sockets, caller, functions_domain, own_host, cors, counts: Counts::default() }
    }

    /// Works off what goes on beside requests, until the platform stops.
    pub async fn run(&self, stop: Shutdown) {
        let flush = async {
            loop {
                tokio::time::sleep(FLUSH_EVERY).await;
                self.flush().await;
            }
        };
        tokio::select! {
            () = flush => {}
            () = self.sockets.settle(&self.parts.gateway, &*self.caller) => {}
            () = stop.triggered() => {}
        }
        self.sockets.close_all();
        self.flush().await;
        // What is not told by then is told after the next start.
        let closed = async {
            while self.sockets.open() > 0 {
                tokio::time::sleep(CLOSE_LOOK).await;
            }
        };
        let _ = tokio::time::timeout(CLOSE_TIME, closed).await;
    }

    async fn flush(&self) {
        if let Err(error) = self.parts.gateway.flush_usage().await {
            tracing::error!(%error, "what keys have used could not be stored");
        }
    }

    /// Brings the metrics up to date.
    pub fn measure(&self, metrics: &Metrics) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let sockets = &self.sockets.counts;
        metrics.set_apigw(&ApigwFigures {
            admitted: read(&self.counts.admitted),
            refused: read(&self.counts.refused),
            limited: read(&self.counts.limited),
            denied: read(&self.counts.denied),
            sockets_open: self.sockets.open() as u64,
            sockets_opened: read(&sockets.opened),
            sockets_refused: read(&sockets.refused),
            messages_received: read(&sockets.received),
            messages_sent: read(&sockets.sent),
        });
    }

    /// True when a request is for the gateway.
    pub fn takes(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let host = address::host_of(uri, headers);
        if host.as_deref().is_some_and(|host| is_service_host(host, &self.parts.domain)) {
            return true;
        }
        // At hosts of functions and at users' own, all paths are theirs.
        let is_others =
            |host: &str| address::is_function_host(host, &self.functions_domain) || self.control.domain(host).is_some();
        is_gateway_path(uri.path()) && !host.as_deref().is_some_and(is_others)
    }

    /// Answers one.
    pub async fn answer(&self, call: StreamRequest) -> Response<StreamBody> {
        let id = ids::request_id();
        let mut response = match self.route(call, id).await {
            Ok(response) => {
                self.counts.admitted.fetch_add(1, Ordering::Relaxed);
                response
            }
            Err(refused) => {
                let counter = match refused.status() {
                    401 | 403 | 302 => &self.counts.denied,
                    429 => &self.counts.limited,
                    _ => &self.counts.refused,
                };
                counter.fetch_add(1, Ordering::Relaxed);
                refusal(&refused)
            }
        };
        if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
            response.headers_mut().insert(HeaderName::from_static("x-api-requestid"), value.clone());
            response.headers_mut().insert(HeaderName::from_static("x-scf-request-id"), value);
        }
        response
    }

    async fn route(&self, call: StreamRequest, id: RequestId) -> Result<Response<StreamBody>, Refused> {
        let StreamRequest { request, peer, secure } = call;
        let (head, body) = request.into_parts();
        if !headers::names_a_host(&head) {
            return Err(Refused::Parameter("A request names one host, in one Host header".into()));
        }
        let host = address::host(&head);
        if let Some(rest) = head.uri.path().strip_prefix(PUSH_PREFIX) {
            let rest = rest.to_owned();
            return Ok(self.push(&head, body, &rest).await);
        }
        let address = Address::of(head.uri.path(), host.as_deref(), &self.parts.domain).ok_or(Refused::NoAddress)?;
        let state = self.parts.gateway.state();
        let table = state.table(&address.service, address.stage).ok_or(Refused::NoService)?;
        if head.method == Method::OPTIONS
            && table.find_any(&address.path).is_some_and(|api| api.cors)
            && let Some(preflight) = cors::preflight(&self.cors, &head)
        {
            return Ok(preflight);
        }
        let proxied = head.headers.get(HeaderName::from_static("x-forwarded-proto"));
        let over_tls = secure || proxied.is_some_and(|p| p.as_bytes().eq_ignore_ascii_case(b"https"));
        let asked = Asked { head: &head, address: &address, secure: over_tls, now_ms: SystemClock.now_ms() };
        let origin = head.headers.get(header::ORIGIN).cloned();
        let admitted = match self.parts.gateway.admit(&state, &asked) {
            Ok(admitted) => admitted,
            Err(refused) => {
                let readable = table.find_any(&address.path).is_some_and(|api| api.cors);
                // Scripts of other origins may read why they were turned away.
                if let (true, Some(origin)) = (readable, origin) {
                    let mut response = refusal(&refused);
                    cors::admit(&self.cors, &origin, response.headers_mut());
                    return Ok(response);
                }
                return Err(refused);
            }
        };
        drop(state);
        let cors = admitted.api.cors;
        let visitor = headers::Visitor { peer, secure };
        let asked = backend::Incoming { head, body, address, visitor, id };
        let mut response = self.dispatch(admitted, asked).await?;
        if let (true, Some(origin)) = (cors, origin) {
            cors::admit(&self.cors, &origin, response.headers_mut());
        }
        Ok(response)
    }

    async fn dispatch(&self, admitted: Admitted, asked: backend::Incoming) -> Result<Response<StreamBody>, Refused> {
        match &admitted.api.backend {
            Backend::Mock { body } => Ok(backend::text(200, &admitted.api.response_type, body.clone())),
            Backend::Event { function, integrated } => {
                let (function, integrated) = (function.clone(), *integrated);
                self.invoke(&admitted, asked, &function, integrated).await
            }
            Backend::Http { function } => {
                let function = function.clone();
                self.serve(&admitted, asked, &function).await
            }
            Backend::WebSocket(functions) => {
                let functions = functions.clone();
                self.connect(&admitted, asked, &functions).await
            }
        }
    }

    /// What functions ask for at `/apigw-push/<api>/<token>`. The token is the API's own: whoever knows it was told by the API or by an event.
    async fn push(&self, head: &Parts, body: StreamBody, rest: &str) -> Response<StreamBody> {
        let answer = |pushed| {
            let (status, body) = push_answer(pushed);
            backend::json(status, body)
        };
        let (api, token) = rest.split_once('/').unwrap_or((rest, ""));
        let state = self.parts.gateway.state();
        let good = state.apis.get(api).is_some_and(|api| {
            !api.push_token.is_empty() && bool::from(api.push_token.as_bytes().ct_eq(token.as_bytes()))
        });
        if !good {
            return answer((403, 403, "this is no push address; DescribeApi and events name it".into()));
        }
        if head.method != Method::POST {
            return answer((405, 405, "pushes are POST requests".into()));
        }
        match backend::collect(body, mayfly_apigw::socket::PUSH_BYTES_MAX).await {
            Ok(bytes) => answer(self.sockets.push(api, &bytes).await),
            Err(refused) => answer((400, 400, refused.message().into_owned())),
        }
    }
}

/// An address at which a listener is reached from its own machine: one that listens everywhere does so on the loopback too.
fn own_host(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// The answer to who is turned away.
fn refusal(refused: &Refused) -> Response<StreamBody> {
    let body = json!({ "message": refused.message() }).to_string();
    let mut response = backend::json(refused.status(), Bytes::from(body));
    let headers = response.headers_mut();
    match refused {
        Refused::TooMany(wait) => {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        Refused::Login(url) => {
            if let Ok(url) = HeaderValue::from_str(url) {
                headers.insert(header::LOCATION, url);
            }
        }
        Refused::Denied(denied) if denied.status == 401 => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("hmac, Bearer"));
        }
        _ => {}
    }
    debug_assert!(response.status() != StatusCode::OK);
    response
}

fn empty(status: StatusCode) -> Response<StreamBody> {
    let mut response = Response::new(whole(Bytes::new()));
    *response.status_mut() = status;
    response
}
