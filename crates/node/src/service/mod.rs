//! HTTP services (SCF's web functions): resident instances with a server of the user's own on port 9000, many requests at a time.
//!
//! The way of a request: [`serve`] takes a [`Slot`] of the version's pool, waiting for a start when none is free, sends the request over a
//! connection to the instance, and hands the response's head back with a body that streams. The slot, the connection and the account of
//! the request live in that body: they end with it, whoever ends it. See `docs/http.md`.

mod account;
mod connection;
mod http1;
mod resident;
mod tunnel;
mod visitor;

pub(crate) use resident::{Resident, Slot, start};

use crate::Inner;
use crate::error::Refusal;
use crate::pool::{Place, Pool};
use account::Account;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use http1::{Asked, Failure, Reading};
use hyper::body::Body;
use hyper::upgrade::OnUpgrade;
use mayfly_base::loops::within;
use mayfly_model::{EventMark, InvocationRecord, Lineage, RequestId, Status};
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The port that a service's server listens on. Source: SCF, "Web Function".
pub const SERVICE_PORT: u16 = 9000;
/// What a version's own program is called. Source: the same page.
pub const SERVICE_PROGRAM: &str = "scf_bootstrap";

/// How long a server that broke a connection is given to be gone.
const END_PAUSE: Duration = Duration::from_millis(50);

/// Any error of a body on its way.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// A body on its way.
pub type StreamBody = UnsyncBoxBody<Bytes, BodyError>;

/// A request for a service.
pub struct ServiceCall {
    /// Its id.
    pub request_id: RequestId,
    /// What the visitor sent: the target in origin form, the headers without those that concern the visitor's connection only.
    pub request: Request<StreamBody>,
    /// The visitor's connection, when it asks to become something else (a WebSocket).
    pub upgrade: Option<OnUpgrade>,
    /// What the caller named.
    pub qualifier: String,
    /// Whatever should live as long as the request.
    pub keep: Box<dyn Any + Send>,
    /// What called it, when that was an invocation.
    pub lineage: Lineage,
    /// The asynchronous event that it runs: a replay of a request that failed.
    pub event: Option<AsEvent>,
    /// Hears how it ended. Must not block.
    pub ended: Option<Ended>,
}

/// Hears the record of a request when it has ended, and the HTTP status that the function answered with, if it did.
pub type Ended = Box<dyn FnOnce(&InvocationRecord, Option<StatusCode>) + Send>;

/// What the record of a request says of the asynchronous event that it runs. An answer of 500 or above is then a run error.
#[derive(Clone, Debug)]
pub struct AsEvent {
    /// The event.
    pub mark: EventMark,
    /// The request that it replays.
    pub origin: Option<RequestId>,
    /// Attempts before this one.
    pub retry: u32,
}

/// Runs one request. The answer is always a response: the service's own, or one that says what went wrong.
pub(crate) async fn serve(inner: &Arc<Inner>, pool: &Arc<Pool>, call: ServiceCall) -> Response<StreamBody> {
    let ServiceCall { request_id, request, upgrade, qualifier, keep, lineage, event, ended } = call;
    let mut account = Account::open(inner, pool, (request_id, lineage), qualifier, keep).told(event, ended);
    let result = match upgrade {
        Some(upgrade) => tunnel::open(inner, pool, request, upgrade, &mut account).await,
        None => exchange(inner, pool, request, &mut account).await,
    };
    match result {
        Ok(Reply::Stream(response)) => response.map(|body| account.follow(body)),
        Ok(Reply::Tunnel(response, tunnel)) => {
            tunnel.run(account);
            response.map(|_| nothing())
        }
        Err(refusal) => {
            let response = refused(&refusal, request_id);
            account.refuse(&refusal);
            response
        }
    }
}

/// Writes down a request that is not made.
pub(crate) fn refuse(inner: &Arc<Inner>, pool: &Arc<Pool>, call: ServiceCall, refusal: &Refusal) {
    let ServiceCall { request_id, qualifier, keep, lineage, event, ended, .. } = call;
    Account::open(inner, pool, (request_id, lineage), qualifier, keep).told(event, ended).refuse(refusal);
}

/// What an instance answered.
enum Reply {
    /// A response with a body.
    Stream(Response<Reading>),
    /// The connection becomes something else.
    Tunnel(Response<Reading>, tunnel::Tunnel),
}

/// Gets a slot: at once, or when one comes free or an instance has started.
///
/// `lineage`: of what the request calls.
async fn slot(inner: &Arc<Inner>, pool: &Arc<Pool>, lineage: Lineage) -> Result<Slot, Refusal> {
    if let Some(slot) = pool.slot() {
        return Ok(slot);
    }
    pool.starts_for(lineage);
    match pool.wait(inner).await? {
        Place::Shared(slot) => Ok(slot),
        Place::Alone(_) => Err(Refusal::internal(&"a service has got an event function's instance")),
    }
}

async fn exchange(
    inner: &Arc<Inner>,
    pool: &Arc<Pool>,
    request: Request<StreamBody>,
    account: &mut Account,
) -> Result<Reply, Refusal> {
    let (mut parts, body) = request.into_parts();
    let mut id = [0u8; 36];
    let id = crate::worker::format_id(account.request_id(), &mut id);
    let http2 = parts.version == Version::HTTP_2 && is_grpc(&parts.headers);
    if http2 {
        describe(&mut parts.headers, pool, inner, account.request_id());
    }
    // A request that may have begun is sent a second time only if that does no harm, if there is no body to send again, and if its server
    // lives on: that one has closed what lay idle. One that died had probably begun.
    let again = body.is_end_stream() && is_idempotent(&parts.method);
    let broken = (!body.is_end_stream()).then(Arc::<AtomicBool>::default);
    let mut body = Some(match &broken {
        Some(broken) => visitor::watched(body, broken),
        None => body,
    });
    for last_try in [false, true] {
        let resident = account.board(slot(inner, pool, account.calls()).await?);
        let body_now = body.take().unwrap_or_else(nothing);
        let sending = async {
            if http2 {
                let mut request = Request::new(body_now);
                *request.method_mut() = parts.method.clone();
                *request.uri_mut() = parts.uri.clone();
                *request.headers_mut() = parts.headers.clone();
                return resident.send_http2(request).await;
            }
            resident.send(&asked(&parts, pool, inner, id), body_now, again).await
        };
        let timeout_s = pool.spec.config.timeout_s;
        let failure = match within(Duration::from_secs(u64::from(timeout_s)), sending).await {
            Some(Ok(response)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                return Err(account.leave("it changed the protocol, which nobody had asked for"));
            }
            Some(Ok(response)) => {
                account.answered(&response, &parts.method, parts.uri.path());
                return Ok(Reply::Stream(response));
            }
            Some(Err(_)) if broken.as_ref().is_some_and(|b| b.load(Ordering::Acquire)) => {
                return Err(Refusal::new(Status::INVALID_EVENT, "The body of the request was cut short or malformed"));
            }
            Some(Err(failure)) => failure,
            None => {
                let message = format!("Invoking task timed out after {timeout_s} seconds");
                return Err(Refusal::new(Status::TIME_LIMIT, message));
            }
        };
        // Known to be gone before anybody gets the free slot. A process that ends closes its connections and its port one after the other:
        // the second look finds what the first came too early for.
        let mut lives = true;
        for pause in [Duration::ZERO, END_PAUSE] {
            tokio::time::sleep(pause).await;
            if resident.check().await.is_err() {
                pool.bury(&resident);
                lives = false;
                break;
            }
        }
        match failure {
            Failure::NotBegun { body: back, why } => {
                let refusal = account.leave(&why);
                if last_try || (back.is_none() && !(again && lives)) {
                    return Err(refusal);
                }
                body = back;
            }
            Failure::Broken { why } => return Err(account.leave(&why)),
        }
    }
    unreachable!("the second attempt returns")
}

/// No body.
pub fn nothing() -> StreamBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body in one piece.
pub fn whole(bytes: impl Into<Bytes>) -> StreamBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"))
}

/// What an HTTP/1.1 server is asked.
fn asked<'a>(parts: &'a http::request::Parts, pool: &'a Pool, inner: &Inner, request_id: &'a str) -> Asked<'a> {
    Asked {
        method: &parts.method,
        target: &parts.uri,
        headers: &parts.headers,
        own: &pool.headers(inner).1,
        request_id,
    }
}

/// Tells the server which function it is. Source: SCF, "Web Function", request headers.
fn describe(headers: &mut HeaderMap, pool: &Pool, inner: &Inner, request_id: RequestId) {
    let mut id = [0u8; 36];
    let id = crate::worker::format_id(request_id, &mut id);
    if let Ok(value) = HeaderValue::from_str(id) {
        headers.insert(HeaderName::from_static("x-scf-request-id"), value);
    }
    for (name, value) in &pool.headers(inner).0 {
        headers.insert(name.clone(), value.clone());
    }
}

/// The headers that are the same for every request of a version; and as they are written.
pub(crate) fn headers_of(
    spec: &mayfly_model::VersionSpec,
    options: &crate::NodeOptions,
) -> (Vec<(HeaderName, HeaderValue)>, Vec<u8>) {
    let config = &spec.config;
    let headers: Vec<_> = [
        ("x-scf-memory", config.memory_mb.to_string()),
        ("x-scf-timeout", (u64::from(config.timeout_s) * 1000).to_string()),
        ("x-scf-version", spec.key.version.clone()),
        ("x-scf-name", spec.function.to_string()),
        ("x-scf-namespace", spec.namespace.to_string()),
        ("x-scf-region", options.region.clone()),
        ("x-scf-appid", options.app_id.clone()),
        ("x-scf-uin", options.uin.clone()),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((HeaderName::from_static(name), HeaderValue::from_str(&value).ok()?)))
    .collect();
    let mut written = Vec::new();
    for (name, value) in &headers {
        http1::field(&mut written, name, value);
    }
    (headers, written)
}

/// The HTTP status that stands for a status of an invocation, for visitors who know only the former.
pub fn http_status(status: Status) -> StatusCode {
    match status {
        Status::OK => StatusCode::OK,
        Status::INVALID_EVENT => StatusCode::BAD_REQUEST,
        Status::REQUEST_TOO_LARGE => StatusCode::PAYLOAD_TOO_LARGE,
        Status::FUNCTION_NOT_FOUND | Status::QUALIFIER_NOT_FOUND => StatusCode::NOT_FOUND,
        Status::RESOURCE_LIMIT | Status::CONCURRENCY_EXCEEDED => StatusCode::TOO_MANY_REQUESTS,
        Status::TIME_LIMIT | Status::INIT_TIMEOUT => StatusCode::GATEWAY_TIMEOUT,
        Status::INSUFFICIENT_RESOURCES | Status::FUNCTION_STATUS => StatusCode::SERVICE_UNAVAILABLE,
        Status::INTERNAL => StatusCode::INTERNAL_SERVER_ERROR,
        Status::CALL_DEPTH => StatusCode::LOOP_DETECTED,
        _ => StatusCode::BAD_GATEWAY,
    }
}

/// The response to a request that got none from its function.
pub fn refused(refusal: &Refusal, request_id: RequestId) -> Response<StreamBody> {
    refused_with(refusal.status, refusal.to_json(request_id))
}

/// The same, with the error JSON made already.
pub fn refused_with(status: Status, json: Vec<u8>) -> Response<StreamBody> {
    let mut response = Response::new(whole(json));
    *response.status_mut() = http_status(status);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(HeaderName::from_static("x-scf-status"), HeaderValue::from(status.0));
    if http_status(status) == StatusCode::TOO_MANY_REQUESTS {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// True for methods that may be sent twice. Source: RFC 9110 §9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE)
}

/// When something began, for accounts.
pub(crate) struct Begun {
    at: Instant,
    start_ms: u64,
}

impl Begun {
    pub(crate) fn now() -> Self {
        Self { at: Instant::now(), start_ms: crate::flight::now_ms() }
    }
}
