//! The HTTP APIs that custom runtimes ask for work: SCF's and Lambda's, on the same port, for the same instance.
//!
//! The listening socket lives in the sandbox's network namespace and is served from here, so nothing of the platform runs inside.
//! Sources: SCF's "Custom Runtime" page; AWS's "Lambda runtime API" page.

use crate::NodeOptions;
use crate::error::Refusal;
use crate::worker::Lost;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use mayfly_model::{RequestId, Status, VersionSpec, limits};
use parking_lot::Mutex;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, oneshot};

/// Connections that one instance may hold open to its runtime API.
const CONNECTIONS_MAX: usize = 64;
/// Room for an answer beside its 6 MB: an error document, or a little too much to be told apart from a flood.
const BODY_BYTES_MAX: usize = limits::RESULT_BYTES_MAX + 64 * 1024;

/// Bodies of one instance that are taken in at once. A program has one answer to give at a time; the second place is for one that was
/// broken off. Whoever opens more connections than that must not make the node hold a body for each.
const BODIES_MAX: usize = 2;

/// One instance's runtime API.
pub struct RuntimeApi {
    shared: Arc<Shared>,
    ready: Option<oneshot::Receiver<Result<(), Refusal>>>,
    pending: Option<oneshot::Receiver<Result<Vec<u8>, Refusal>>>,
    server: tokio::task::JoinHandle<()>,
}

struct Shared {
    state: Mutex<State>,
    work: Notify,
    bodies: Semaphore,
}

#[derive(Default)]
struct State {
    ready: Option<oneshot::Sender<Result<(), Refusal>>>,
    current: Option<Current>,
    arn: String,
}

struct Current {
    id: RequestId,
    deadline_ms: u64,
    event: Bytes,
    memory_mb: u32,
    timeout_s: u32,
    /// The program has been given it.
    taken: bool,
    answer: oneshot::Sender<Result<Vec<u8>, Refusal>>,
}

impl RuntimeApi {
    /// Serves `listener`.
    pub fn start(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let (sender, ready) = oneshot::channel();
        let shared =
            Arc::new(Shared { state: Mutex::default(), work: Notify::new(), bodies: Semaphore::new(BODIES_MAX) });
        shared.state.lock().ready = Some(sender);
        let server = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Ok(Self { shared, ready: Some(ready), pending: None, server })
    }

    /// Says which function this is.
    pub fn describe(&self, spec: &VersionSpec, options: &NodeOptions) {
        let arn = format!("arn:aws:lambda:{}:{}:function:{}", options.region, options.uin, spec.function);
        self.shared.state.lock().arn = arn;
    }

    /// Waits until the program says that it is ready, or that it failed. Safe to drop and to call again.
    pub async fn ready(&mut self) -> Result<(), Refusal> {
        let Some(receiver) = &mut self.ready else { return Ok(()) };
        let said = receiver.await;
        self.ready = None;
        said.unwrap_or_else(|_| Err(Refusal::new(Status::INIT_ERROR, "The runtime API ended")))
    }

    /// Offers an event.
    pub fn begin(&mut self, id: RequestId, deadline_ms: u64, event: &[u8], (memory_mb, timeout_s): (u32, u32)) {
        let (answer, receiver) = oneshot::channel();
        let event = Bytes::copy_from_slice(event);
        self.pending = Some(receiver);
        self.shared.state.lock().current =
            Some(Current { id, deadline_ms, event, memory_mb, timeout_s, taken: false, answer });
        self.shared.work.notify_waiters();
    }

    /// What it means for the event that the program has ended.
    pub fn lost(&self) -> Lost {
        if self.shared.state.lock().current.as_ref().is_some_and(|current| !current.taken) {
            Lost::Unsent
        } else {
            Lost::Closed
        }
    }

    /// Waits for the answer to it. Safe to drop and to call again.
    pub async fn answer(&mut self) -> Result<Result<Vec<u8>, Refusal>, Lost> {
        let Some(receiver) = &mut self.pending else { return Err(Lost::Closed) };
        let answer = receiver.await;
        self.pending = None;
        answer.map_err(|_| Lost::Closed)
    }
}

impl Drop for RuntimeApi {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // Dropping the set with this task ends the connections with it.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let _ = stream.set_nodelay(true);
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(|request| {
                let shared = Arc::clone(&shared);
                async move { Ok::<_, Infallible>(shared.handle(request).await) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(place);
        });
    }
}

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
enum Call {
    Ready,
    Next { lambda: bool },
    Response { id: Option<String> },
    Error { id: Option<String> },
    InitError,
    Unknown,
}

impl Call {
    fn read(method: &Method, path: &str) -> Self {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        match (method, parts.as_slice()) {
            (&Method::POST, ["runtime", "init", "ready"]) => Self::Ready,
            (&Method::GET, ["runtime", "invocation", "next"]) => Self::Next { lambda: false },
            (&Method::POST, ["runtime", "invocation", "response"]) => Self::Response { id: None },
            (&Method::POST, ["runtime", "invocation", "error"]) => Self::Error { id: None },
            (&Method::POST, ["runtime", "init", "error"]) => Self::InitError,
            (&Method::GET, ["2018-06-01", "runtime", "invocation", "next"]) => Self::Next { lambda: true },
            (&Method::POST, ["2018-06-01", "runtime", "invocation", id, "response"]) => {
                Self::Response { id: Some((*id).to_owned()) }
            }
            (&Method::POST, ["2018-06-01", "runtime", "invocation", id, "error"]) => {
                Self::Error { id: Some((*id).to_owned()) }
            }
            (&Method::POST, ["2018-06-01", "runtime", "init", "error"]) => Self::InitError,
            _ => Self::Unknown,
        }
    }
}

fn reply(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

impl Shared {
    async fn handle(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let call = Call::read(request.method(), request.uri().path());
        let header = request.headers().get("lambda-runtime-function-error-type");
        let error_type = header.and_then(|h| h.to_str().ok()).unwrap_or("").to_owned();
        let trailing_error = matches!(call, Call::Response { .. });
        let body_bytes_max = if matches!(call, Call::Next { .. } | Call::Unknown) { 0 } else { BODY_BYTES_MAX };
        // Held until the answer is passed on: the body is in memory until then.
        let _place = if body_bytes_max > 0 { self.bodies.acquire().await.ok() } else { None };
        let body = match Limited::new(request.into_body(), body_bytes_max).collect().await {
            Ok(collected) => {
                let failed = collected.trailers().and_then(|t| t.get("lambda-runtime-function-error-type")).is_some();
                if failed && trailing_error {
                    return self
                        .answer(None, Err(Refusal::new(Status::USER_EXCEPTION, "The streamed response failed")));
                }
                Some(collected.to_bytes())
            }
            Err(_) => None,
        };
        match call {
            Call::Ready => {
                self.say_ready(Ok(()));
                reply(StatusCode::OK, "{\"status\":\"OK\"}")
            }
            Call::Next { lambda } => self.next(lambda).await,
            Call::Response { id } => match body {
                Some(body) if body.len() <= limits::RESULT_BYTES_MAX => self.answer(id, Ok(body.to_vec())),
                _ => {
                    let message = format!("The return value is larger than {} bytes", limits::RESULT_BYTES_MAX);
                    self.answer(id, Err(Refusal::new(Status::RESPONSE_TOO_LARGE, message)));
                    reply(
                        StatusCode::PAYLOAD_TOO_LARGE,
                        "{\"errorType\":\"ResponseTooLarge\",\"errorMessage\":\"over 6 MB\"}",
                    )
                }
            },
            Call::Error { id } => {
                let refusal = error_of(Status::USER_EXCEPTION, body.as_deref().unwrap_or(b""), &error_type);
                self.answer(id, Err(refusal))
            }
            Call::InitError => {
                let refusal = error_of(Status::USER_CODE_ERROR, body.as_deref().unwrap_or(b""), &error_type);
                self.say_ready(Err(refusal));
                reply(StatusCode::ACCEPTED, "{\"status\":\"OK\"}")
            }
            Call::Unknown => reply(
                StatusCode::NOT_FOUND,
                "{\"errorType\":\"NotFound\",\"errorMessage\":\"no such call of the runtime API\"}",
            ),
        }
    }

    fn say_ready(&self, what: Result<(), Refusal>) {
        // Only the first word counts.
        if let Some(sender) = self.state.lock().ready.take() {
            let _ = sender.send(what);
        }
    }

    async fn next(&self, lambda: bool) -> Response<Full<Bytes>> {
        // A program that asks for work is ready, whether it has said so (SCF) or has no way to say it (Lambda).
        self.say_ready(Ok(()));
        loop {
            let work = self.work.notified();
            tokio::pin!(work);
            work.as_mut().enable();
            if let Some(response) = self.event(lambda) {
                return response;
            }
            work.await;
        }
    }

    fn event(&self, lambda: bool) -> Option<Response<Full<Bytes>>> {
        let mut state = self.state.lock();
        let State { current, arn, .. } = &mut *state;
        let current = current.as_mut()?;
        current.taken = true;
        let mut response = Response::new(Full::new(current.event.clone()));
        let headers = response.headers_mut();
        headers.insert(hyper::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut set = |name: &'static str, value: String| {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        if lambda {
            set("lambda-runtime-aws-request-id", current.id.to_string());
            set("lambda-runtime-deadline-ms", current.deadline_ms.to_string());
            set("lambda-runtime-invoked-function-arn", arn.clone());
            let trace =
                format!("Root=1-{:08x}-{:024x};Sampled=0", current.deadline_ms / 1000, current.id.0 & ((1 << 96) - 1));
            set("lambda-runtime-trace-id", trace);
        } else {
            set("request_id", current.id.to_string());
            set("memory_limit_in_mb", current.memory_mb.to_string());
            set("time_limit_in_ms", (u64::from(current.timeout_s) * 1000).to_string());
        }
        Some(response)
    }

    /// Ends the current invocation. `id`: the one meant, where the API names it.
    fn answer(&self, id: Option<String>, result: Result<Vec<u8>, Refusal>) -> Response<Full<Bytes>> {
        let mut state = self.state.lock();
        let fits = state.current.as_ref().is_some_and(|c| id.as_ref().is_none_or(|id| *id == c.id.to_string()));
        let Some(current) = fits.then(|| state.current.take()).flatten() else {
            return reply(
                StatusCode::BAD_REQUEST,
                "{\"errorType\":\"InvalidRequestID\",\"errorMessage\":\"no invocation of that id is running\"}",
            );
        };
        let _ = current.answer.send(result);
        reply(StatusCode::ACCEPTED, "{\"status\":\"OK\"}")
    }
}

/// Reads an error document: Lambda's JSON, or whatever text SCF's runtimes post.
fn error_of(status: Status, body: &[u8], header_type: &str) -> Refusal {
    let text = String::from_utf8_lossy(body).into_owned();
    let Ok(serde_json::Value::Object(document)) = serde_json::from_slice::<serde_json::Value>(body) else {
        let message = if text.is_empty() { "The runtime reported an error".to_owned() } else { text };
        return Refusal { error_type: header_type.to_owned(), ..Refusal::new(status, message) };
    };
    // Beside the family of the call, what only the runtime can know: its heap is full; there is no such handler.
    let status = match document.get("statusCode").and_then(serde_json::Value::as_u64) {
        Some(434) => Status::MEMORY_LIMIT,
        Some(437) => Status::HANDLER_NOT_FOUND,
        _ => status,
    };
    let field = |name: &str| document.get(name).and_then(|v| v.as_str()).unwrap_or("").to_owned();
    let stack = ["stackTrace", "trace"].iter().find_map(|name| document.get(*name)).map(|trace| match trace {
        serde_json::Value::Array(lines) => {
            lines.iter().map(|l| l.as_str().map_or_else(|| l.to_string(), str::to_owned)).collect::<Vec<_>>().join("\n")
        }
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    let message = field("errorMessage");
    Refusal {
        status,
        message: if message.is_empty() { text } else { message },
        error_type: if field("errorType").is_empty() { header_type.to_owned() } else { field("errorType") },
        stack: stack.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_both_apis() {
        let (get, post) = (Method::GET, Method::POST);
        assert_eq!(Call::read(&get, "/runtime/invocation/next"), Call::Next { lambda: false });
        assert_eq!(Call::read(&get, "/2018-06-01/runtime/invocation/next"), Call::Next { lambda: true });
        assert_eq!(Call::read(&post, "/runtime/init/ready"), Call::Ready);
        assert_eq!(
            Call::read(&post, "/2018-06-01/runtime/invocation/x-1/response"),
            Call::Response { id: Some("x-1".into()) }
        );
        assert_eq!(Call::read(&post, "/runtime/invocation/next"), Call::Unknown);
        assert_eq!(Call::read(&get, "/"), Call::Unknown);
    }

    #[test]
    fn error_documents_of_all_makes() {
        let r = error_of(Status::USER_EXCEPTION, br#"{"errorMessage":"m","errorType":"T","stackTrace":["a","b"]}"#, "");
        assert_eq!((r.message.as_str(), r.error_type.as_str(), r.stack.as_str()), ("m", "T", "a\nb"));
        let r = error_of(Status::USER_EXCEPTION, b"plain", "unhandled");
        assert_eq!((r.message.as_str(), r.error_type.as_str()), ("plain", "unhandled"));
        assert_eq!(error_of(Status::USER_EXCEPTION, b"", "").message, "The runtime reported an error");
    }
}
