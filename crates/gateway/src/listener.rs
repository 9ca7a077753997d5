//! Accepting connections and carrying requests to the service.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mayfly_base::loops::Roaming;
use mayfly_base::{EventLoops, Gate, Shutdown};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::answer::{self, Answer};
use crate::body::{self, BodyError, Memory};
use crate::gone::Gone;
use crate::guard::{Guarded, Phase};
use crate::http2;
use crate::limits::GatewayLimits;
use crate::service::{HttpRequest, HttpResponse, Service, StreamRequest};
use crate::stats::{GatewayStats, bump};
use crate::tls::TlsDoor;

/// How long to wait after `accept` failed for lack of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that are being told 503 at a time; beyond it they are closed without a word.
const REFUSALS_MAX: usize = 64;
/// How long a client may take to read its 503.
pub(crate) const REFUSAL_TIME: Duration = Duration::from_secs(1);

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    /// The address asked for.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

/// How the listener ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut because their request was not done when the drain time was over.
    pub cut: usize,
}

/// The HTTP listener.
pub struct Gateway {
    listener: TcpListener,
    local: SocketAddr,
    secure: Option<(TcpListener, SocketAddr, Arc<ServerConfig>)>,
    limits: GatewayLimits,
    stats: Arc<GatewayStats>,
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), BindError> {
    let err = |source| BindError { address, source };
    let listener = TcpListener::bind(address).await.map_err(err)?;
    let local = listener.local_addr().map_err(err)?;
    Ok((listener, local))
}

impl Gateway {
    /// Listens on `address`; port 0 picks a free one. Nothing is accepted before [`Gateway::run`], but clients can
    /// connect already and wait.
    ///
    /// # Errors
    /// [`BindError`] when the address is taken, not ours, or not allowed.
    pub async fn bind(address: SocketAddr, limits: GatewayLimits) -> Result<Self, BindError> {
        let (listener, local) = listen(address).await?;
        Ok(Self { listener, local, secure: None, limits, stats: Arc::default() })
    }

    /// Listens on another address too, for TLS. Connections of both kinds share the limits.
    ///
    /// # Errors
    /// As [`Gateway::bind`].
    pub async fn listen_tls(&mut self, address: SocketAddr, config: Arc<ServerConfig>) -> Result<(), BindError> {
        let (listener, local) = listen(address).await?;
        self.secure = Some((listener, local, config));
        Ok(())
    }

    /// The address listened on for TLS, if there is one.
    pub fn local_tls_addr(&self) -> Option<SocketAddr> {
        self.secure.as_ref().map(|(_, local, _)| *local)
    }

    /// The address listened on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The listener's figures; live, and valid after [`Gateway::run`] has ended.
    pub fn stats(&self) -> Arc<GatewayStats> {
        self.stats.clone()
    }

    /// Serves until `shutdown` is triggered: then accepts no more, closes idle connections, lets requests in flight
    /// end within the drain time, and cuts the rest. Each connection lives on one of `loops`.
    pub async fn run(self, service: Arc<dyn Service>, shutdown: Shutdown, loops: Arc<EventLoops>) -> Drained {
        let shared = Arc::new(Shared {
            http: http_builder(&self.limits),
            service,
            stats: self.stats,
            memory: Memory::new(self.limits.bodies_bytes_max, None),
            stop: shutdown,
            cut: CancellationToken::new(),
            limits: self.limits,
        });
        let doorman = Doorman {
            seats: Arc::new(Semaphore::new(shared.limits.connections_max.min(Semaphore::MAX_PERMITS))),
            all_seats: None,
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
            gate: Gate::new(),
            shared: shared.clone(),
            loops,
        };
        let plain = doorman.accept(self.listener, None);
        match self.secure {
            None => plain.await,
            Some((listener, _, config)) => {
                let door = Arc::new(TlsDoor::new(config, shared.limits.handshakes_max));
                tokio::join!(plain, doorman.accept(listener, Some(door)));
            }
        }
        let gate = doorman.gate;
        match gate.close_and_wait_for(shared.limits.drain_time).await {
            Ok(()) => Drained { cut: 0 },
            Err(busy) => {
                tracing::warn!(connections = busy.0, "requests were not done in time and are cut");
                shared.cut.cancel();
                gate.close_and_wait().await;
                Drained { cut: busy.0 }
            }
        }
    }
}

/// Lets connections in, from one listener or several.
pub(crate) struct Doorman {
    pub(crate) seats: Arc<Semaphore>,
    /// Seats that several listeners share.
    pub(crate) all_seats: Option<Arc<Semaphore>>,
    pub(crate) refusals: Arc<Semaphore>,
    pub(crate) gate: Gate,
    pub(crate) shared: Arc<Shared>,
    pub(crate) loops: Arc<EventLoops>,
}

impl Doorman {
    /// A place for a connection, if one is free.
    fn seat(&self) -> Option<(OwnedSemaphorePermit, Option<OwnedSemaphorePermit>)> {
        let own = self.seats.clone().try_acquire_owned().ok()?;
        match &self.all_seats {
            None => Some((own, None)),
            Some(all) => Some((own, Some(all.clone().try_acquire_owned().ok()?))),
        }
    }

    /// Accepts connections until the stop, and closes the listener.
    pub(crate) async fn accept(&self, listener: TcpListener, tls: Option<Arc<TlsDoor>>) {
        let shared = &self.shared;
        loop {
            let accepted = tokio::select! {
                biased;
                () = shared.stop.triggered() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_about_one_client(&error) => continue,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections for now");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(seat) = self.seat() else {
                bump(&shared.stats.refused);
                // Who expects TLS would not understand.
                if tls.is_none()
                    && let Ok(place) = self.refusals.clone().try_acquire_owned()
                {
                    tokio::spawn(async move {
                        refuse(stream).await;
                        drop(place);
                    });
                }
                continue;
            };
            let Ok(inside) = self.gate.enter() else { return };
            let (shared, tls, stream) = (shared.clone(), tls.clone(), Roaming::new(stream));
            self.loops.spawn(async move {
                let _open = Open::new(&shared.stats);
                match stream.into_here() {
                    Ok(stream) => serve(stream, peer, tls.as_deref(), shared.clone()).await,
                    Err(error) => tracing::warn!(%error, "a connection cannot be served"),
                }
                drop((seat, inside));
            });
        }
    }
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) http: http1::Builder,
    pub(crate) service: Arc<dyn Service>,
    pub(crate) limits: GatewayLimits,
    pub(crate) stats: Arc<GatewayStats>,
    pub(crate) memory: Memory,
    pub(crate) stop: Shutdown,
    pub(crate) cut: CancellationToken,
}

/// Counts an open connection, also when its task panics.
struct Open<'a>(&'a GatewayStats);

impl<'a> Open<'a> {
    fn new(stats: &'a GatewayStats) -> Self {
        bump(&stats.accepted);
        bump(&stats.connections);
        Self(stats)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(crate) fn http_builder(limits: &GatewayLimits) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.keep_alive(true)
        // A client that has said all it will may still want its answer; and while a request is being answered, the
        // connection is not read, which saves a system call and bounds what a client can pile up.
        .half_close(true)
        // Time-outs are in `Guarded`, which can tell idle from slow.
        .header_read_timeout(None)
        .max_header_size(limits.header_bytes_max);
    // Naming the default costs the parser its buffer on the stack.
    if limits.headers_max != 100 {
        http.max_headers(limits.headers_max);
    }
    http
}

/// True for errors of `accept` that concern the connection it would have returned, not the listener.
fn is_about_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkDown, TimedOut};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | HostUnreachable | Interrupted | NetworkDown | TimedOut)
}

/// Tells a client that there is no room. Reads what it sends until it has gone, since closing with unread data would
/// reset the connection and destroy the answer on its way.
async fn refuse(mut stream: TcpStream) {
    let answer = answer::error(503, "ServiceUnavailable", "Too many connections. Try again shortly.");
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: {}\r\ncontent-length: {}\r\nretry-after: 1\r\nconnection: close\r\n\r\n",
        answer.content_type,
        answer.body.len()
    );
    let work = async {
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&answer.body).await?;
        stream.shutdown().await?;
        let mut scrap = [0u8; 4096];
        while stream.read(&mut scrap).await? > 0 {}
        io::Result::Ok(())
    };
    // However it ends, the connection is closed.
    let _ = tokio::time::timeout(REFUSAL_TIME, work).await;
}

async fn serve(stream: TcpStream, peer: SocketAddr, tls: Option<&TlsDoor>, shared: Arc<Shared>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection was gone before it was served");
        return;
    }
    if let Some(tls) = tls {
        return tls.serve(stream, peer, &shared).await;
    }
    let first = tokio::select! {
        biased;
        first = tokio::time::timeout(shared.limits.idle_time, speaks_http2(&stream)) => first,
        () = shared.stop.triggered() => return,
    };
    match first {
        Ok(Ok(true)) if shared.limits.http2 => return http2::serve(stream, peer, false, &shared).await,
        // Who speaks it all the same is told 400.
        Ok(Ok(_)) => {}
        // Gone, or silent for too long.
        Ok(Err(_)) | Err(_) => return,
    }
    let fd = stream.as_raw_fd();
    serve_http1(stream, fd, peer, false, &shared).await;
}

/// Serves a connection that speaks HTTP/1.1 to its end. `fd` is the descriptor of its socket.
pub(crate) async fn serve_http1<S>(stream: S, fd: RawFd, peer: SocketAddr, secure: bool, shared: &Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let phase = Arc::new(Phase::new(shared.limits.idle_time));
    let io = TokioIo::new(Guarded::new(stream, phase.clone(), shared.stats.clone(), &shared.limits));
    let handler = service_fn(|request| {
        let way = Way { peer, secure, phase: phase.clone(), connection: Some(fd) };
        handle(request, way, shared)
    });
    let connection = shared.http.serve_connection(io, handler).with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = shared.stop.triggered() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                biased;
                ended = connection.as_mut() => ended,
                () = shared.cut.cancelled() => return,
            }
        }
    };
    if let Err(error) = ended {
        // Clients that hang up, send garbage or are too slow: their affair, not the operator's.
        tracing::debug!(%error, %peer, "a connection ended with an error");
    }
}

/// How HTTP/2 without TLS begins. Source: RFC 9113 §3.4.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// Looks at a connection's first bytes without taking them.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; HTTP2_PREFACE.len()];
    loop {
        let n = stream.peek(&mut first).await?;
        if n == 0 || !HTTP2_PREFACE.starts_with(&first[..n]) {
            return Ok(false);
        }
        if n == HTTP2_PREFACE.len() {
            return Ok(true);
        }
        // Part of it. More will hardly be long in coming.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The connection that a request came on.
pub(crate) struct Way {
    pub(crate) peer: SocketAddr,
    pub(crate) secure: bool,
    pub(crate) phase: Arc<Phase>,
    /// Its descriptor, where somebody has to watch whether the client is still there.
    pub(crate) connection: Option<RawFd>,
}

/// The request cannot be answered: the connection is closed.
#[derive(Debug, thiserror::Error)]
#[error("the body was cut short")]
pub(crate) struct Truncated;

pub(crate) async fn handle(
    request: Request<Incoming>,
    way: Way,
    shared: &Shared,
) -> Result<Response<Answer>, Truncated> {
    let Way { peer, phase, .. } = &way;
    phase.busy();
    bump(&shared.stats.requests);
    let (head, incoming) = request.into_parts();
    if let Some(name) = twice(&head.headers) {
        let body = format!("the header {name} is given twice\n");
        return Ok(answer::response(HttpResponse::text(400, body), way.phase, true));
    }
    if head.method == Method::CONNECT {
        // Nobody's proxy.
        return Ok(answer::response(HttpResponse::text(405, "CONNECT is not served here\n"), way.phase, true));
    }
    if shared.service.streams(&head) {
        return stream(Request::from_parts(head, incoming), way, shared).await;
    }
    let (peer, phase) = (*peer, way.phase);
    let waits_for_go =
        head.headers.get(header::EXPECT).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let body = match body::collect(incoming, &shared.limits, &shared.memory, waits_for_go).await {
        Ok(body) => body,
        Err(error) => return given_up(error, shared).map(|answer| answer::response(answer, phase, true)),
    };
    let call = HttpRequest { method: head.method, uri: head.uri, headers: head.headers, body: body.bytes, peer };
    let answer = match guarded(|| shared.service.call(call)).await {
        Some(answer) => answer,
        None => {
            bump(&shared.stats.panics);
            answer::internal()
        }
    };
    Ok(answer::response(answer, phase, false))
}

/// Passes a request on with its head, and its answer back as it comes.
async fn stream(request: Request<Incoming>, way: Way, shared: &Shared) -> Result<Response<Answer>, Truncated> {
    let mut gone = way.connection.map_or_else(Gone::never, Gone::watch);
    let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
    let call = StreamRequest { request, peer: way.peer, secure: way.secure };
    let response = tokio::select! {
        biased;
        response = guarded(|| shared.service.stream(call)) => response,
        () = gone.wait() => return Err(Truncated),
    };
    let Some(response) = response else {
        bump(&shared.stats.panics);
        return Ok(answer::response(answer::internal(), way.phase, true));
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        way.phase.tunnel();
    }
    Ok(response.map(|body| Answer::stream(body, gone, way.phase)))
}

/// The answer to a request whose body was not read.
fn given_up(error: BodyError, shared: &Shared) -> Result<HttpResponse, Truncated> {
    let (stats, limits) = (&shared.stats, &shared.limits);
    match error {
        BodyError::Broken => {
            bump(&stats.bodies_broken);
            Err(Truncated)
        }
        BodyError::TooLarge => {
            bump(&stats.bodies_too_large);
            let message = format!("The request is larger than {} bytes.", limits.body_bytes_max);
            Ok(answer::error(200, "RequestSizeLimitExceeded", &message))
        }
        BodyError::Slow => {
            bump(&stats.body_timeouts);
            Ok(answer::error(408, "InvalidRequest", "The request's body arrived too slowly."))
        }
        BodyError::NoMemory => {
            bump(&stats.bodies_no_memory);
            Ok(answer::error(200, "ServiceUnavailable", "Too many large requests are in flight. Try again shortly."))
        }
    }
}

/// A header that must not be repeated and is: two hosts or two signatures are two opinions about who is asked by whom.
fn twice(headers: &HeaderMap) -> Option<&'static str> {
    [header::HOST, header::AUTHORIZATION]
        .iter()
        .zip(["host", "authorization"])
        .find(|(name, _)| headers.get_all(*name).iter().nth(1).is_some())
        .map(|(_, text)| text)
}

/// Calls the service; `None` when it panicked (the panic hook has told where).
async fn guarded<'a, T>(call: impl FnOnce() -> Pin<Box<dyn Future<Output = T> + Send + 'a>>) -> Option<T> {
    let mut call = catch_unwind(AssertUnwindSafe(call)).ok()?;
    std::future::poll_fn(move |cx| match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(answer)) => Poll::Ready(Some(answer)),
        Err(_) => Poll::Ready(None),
    })
    .await
}
