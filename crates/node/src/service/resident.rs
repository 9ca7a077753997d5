//! One instance of a service, and the places it has for requests.

use super::http1::{Answered, Asked, Connection, Failure, Reading};
use super::{SERVICE_PROGRAM, StreamBody, connection};
use crate::Inner;
use crate::error::Refusal;
use crate::inside::{Caller, Inside};
use crate::output::{Output, Printed, Watcher};
use crate::pool::{Lease, Pool};
use crate::start::{Clock, append_output, find_program};
use crate::worker::{MEMORY_SAMPLE, Waiting, Worker};
use http::{Request, Response, Version};
use http_body_util::BodyExt;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use mayfly_base::loops::{Roaming, here};
use mayfly_model::{ColdStart, ColdStartReason, RuntimeId, Status};
use mayfly_sandbox::Instance;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// First pause between two looks whether the server listens; it doubles up to the longest.
const LISTEN_PAUSE_MIN: Duration = Duration::from_millis(1);
const LISTEN_PAUSE_MAX: Duration = Duration::from_millis(20);
/// Pause between two looks at a server whose output has ended although it still listens.
const MUTE_PAUSE: Duration = Duration::from_secs(1);
/// What is printed waits so long for a request that ends; then it gets a record of its own.
const PRINTED_PAUSE: Duration = Duration::from_millis(500);
/// The same when it is more than a record holds.
const FLOOD_PAUSE: Duration = Duration::from_millis(100);
/// What a server may send ahead of its reader over HTTP/2, on a stream and on the connection, in bytes.
const HTTP2_STREAM_WINDOW: u32 = 1 << 20;
const HTTP2_CONNECTION_WINDOW: u32 = 16 << 20;
/// How long the server may take to accept a connection.
const TIME_TO_ANSWER: Duration = Duration::from_secs(10);

/// What a server prints, on its way to the log.
struct Paper {
    output: Output,
    printed: Printed,
}

impl Paper {
    /// Takes what is in the pipe. `false`: the pipe has ended.
    fn pull(&mut self) -> bool {
        self.output.take(&mut self.printed)
    }
}

/// An HTTP/1.1 connection to a server, on whichever event loop uses it.
pub(super) type Line = Connection<Roaming<TcpStream>>;

/// A running server.
pub(crate) struct Resident {
    instance: Arc<dyn Instance>,
    inside: Option<Inside>,
    /// Requests it has. Changed under the pool's lock.
    load: AtomicUsize,
    /// Of them, those whose response is on its way: streams and WebSockets among them.
    streams: AtomicUsize,
    gone: AtomicBool,
    /// Connections without a request, and the event loops that used them last.
    idle: Mutex<Vec<(usize, Line)>>,
    http2: tokio::sync::Mutex<Option<http2::SendRequest<StreamBody>>>,
    printed: Arc<Mutex<Paper>>,
    cold_start: Mutex<Option<ColdStart>>,
    memory: Mutex<(u64, Option<Instant>)>,
    /// When its last request ended, or it was started.
    pub idle_since: Mutex<Instant>,
    /// Use tick of that moment.
    pub used: AtomicU64,
    lease: Mutex<Lease>,
    watch: tokio::task::AbortHandle,
    _trees: Vec<Arc<mayfly_store::CodeTree>>,
}

impl Drop for Resident {
    fn drop(&mut self) {
        self.watch.abort();
        self.instance.kill();
    }
}

impl Resident {
    /// Makes a started worker resident. `pool` is told when its server ends.
    pub(crate) fn new(pool: &Arc<Pool>, worker: Worker) -> Arc<Self> {
        let Worker { process, printed, cold_start, lease, trees, .. } = worker;
        let Waiting { instance, output, inside, .. } = process;
        let watcher = output.watcher();
        let printed = Arc::new(Mutex::new(Paper { output, printed }));
        Arc::new_cyclic(|me: &std::sync::Weak<Self>| {
            let watch = tokio::spawn(watch(Arc::downgrade(pool), me.clone(), watcher, Arc::clone(&printed)));
            Self {
                instance,
                inside,
                load: AtomicUsize::new(0),
                streams: AtomicUsize::new(0),
                gone: AtomicBool::new(false),
                idle: Mutex::default(),
                http2: tokio::sync::Mutex::default(),
                printed,
                cold_start: Mutex::new(cold_start),
                memory: Mutex::default(),
                idle_since: Mutex::new(Instant::now()),
                used: AtomicU64::new(0),
                lease: Mutex::new(lease),
                watch: watch.abort_handle(),
                _trees: trees,
            }
        })
    }

    pub(crate) fn load(&self) -> usize {
        self.load.load(Ordering::Acquire)
    }

    /// Requests whose response is on its way.
    pub(crate) fn streams(&self) -> usize {
        self.streams.load(Ordering::Acquire)
    }

    /// Counts a request in. Under the pool's lock.
    pub(crate) fn enter(&self) {
        self.load.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts a request out; the number left. Under the pool's lock.
    pub(crate) fn leave(&self) -> usize {
        self.load.fetch_sub(1, Ordering::AcqRel) - 1
    }

    /// Who asks from inside it; `None`: nobody can.
    pub(super) fn caller(&self) -> Option<&Arc<Caller>> {
        self.inside.as_ref().map(Inside::caller)
    }

    /// True when it should take no further requests, because its keys are old.
    pub(crate) fn is_old(&self) -> bool {
        self.inside.as_ref().is_some_and(Inside::is_old)
    }

    /// True when it takes no further requests.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// No further requests; those it has may end.
    pub(crate) fn end(&self, reason: ColdStartReason) {
        self.gone.store(true, Ordering::Release);
        self.lease.lock().ends(reason);
    }

    /// Ends it and all its requests.
    pub(crate) fn kill(&self) {
        self.gone.store(true, Ordering::Release);
        self.instance.kill();
    }

    pub(super) fn take_cold_start(&self) -> Option<ColdStart> {
        self.cold_start.lock().take()
    }

    /// What was printed since this was asked last. With several requests at a time nobody can tell whose it is.
    pub(super) fn take_printed(&self) -> (String, u64) {
        let mut paper = self.printed.lock();
        // A server prints before it answers: what belongs to the request that has just ended is in the pipe.
        paper.pull();
        std::mem::take(&mut paper.printed).into_text()
    }

    /// Peak memory, in bytes; it may be a little old, since looking costs as much as a short request.
    pub(super) fn memory_peak_bytes(&self) -> u64 {
        let mut sample = self.memory.lock();
        if sample.1.is_none_or(|at| at.elapsed() > MEMORY_SAMPLE) {
            *sample = (self.instance.memory_peak_bytes(), Some(Instant::now()));
        }
        sample.0
    }

    /// A new connection to the server.
    pub(super) async fn connect(&self) -> io::Result<TcpStream> {
        let socket = self.instance.open_socket().await.map_err(io::Error::other)?;
        connection::connect(socket).await
    }

    /// Whether the server still listens.
    pub(super) async fn check(&self) -> io::Result<()> {
        self.connect().await.map(drop)
    }

    fn idle_connection(&self) -> Option<Line> {
        loop {
            let mut connection = {
                let mut idle = self.idle.lock();
                // One that this event loop used last needs no new registration.
                let at = idle.iter().rposition(|(at, _)| *at == here()).or(idle.len().checked_sub(1))?;
                idle.swap_remove(at).1
            };
            if connection.is_open() {
                return Some(connection);
            }
        }
    }
}

/// A request's place in an instance. Dropping it gives the place to who waits for one.
pub(crate) struct Slot {
    pool: Arc<Pool>,
    resident: Arc<Resident>,
    /// False once it is given back.
    held: bool,
    streaming: bool,
}

impl Slot {
    /// A place that has been counted in already.
    pub(crate) fn new(pool: &Arc<Pool>, resident: Arc<Resident>) -> Self {
        Self { pool: Arc::clone(pool), resident, held: true, streaming: false }
    }

    pub(super) fn resident(&self) -> &Arc<Resident> {
        &self.resident
    }

    /// The response has begun: from here on the instance must not be taken away.
    pub(super) fn stream(&mut self) {
        if !std::mem::replace(&mut self.streaming, true) {
            self.resident.streams.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Counts the request out under the pool's lock, which the caller holds.
    pub(crate) fn give_back(mut self) {
        self.resident.leave();
        self.held = false;
    }

    /// What a connection's end without an answer means.
    pub(super) fn explain(&self, why: &str) -> Refusal {
        if self.resident.instance.ran_out_of_memory() {
            let memory_mb = self.pool.spec.config.memory_mb;
            return Refusal::new(
                Status::MEMORY_LIMIT,
                format!("Memory limit of {memory_mb} MB exceeded; the process was killed"),
            );
        }
        Refusal::new(Status::PROCESS_EXIT, format!("The server gave no answer: {why}"))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.streaming {
            self.resident.streams.fetch_sub(1, Ordering::AcqRel);
        }
        if self.held {
            self.pool.leave(&self.resident);
        }
    }
}

impl Resident {
    /// Sends a request over HTTP/1.1 and waits for the response's head. `again`: it may be sent twice.
    pub(super) async fn send(
        self: &Arc<Self>,
        asked: &Asked<'_>,
        body: StreamBody,
        again: bool,
    ) -> Result<Response<Reading>, Failure> {
        let line = match self.idle_connection() {
            Some(line) => line,
            None => match self.connect().await {
                Ok(stream) => Line::new(Roaming::new(stream)),
                Err(e) => {
                    let why = format!("connect to port {}: {e}", super::SERVICE_PORT);
                    return Err(Failure::NotBegun { body: Some(body), why });
                }
            },
        };
        match line.send(asked, body, again, false, self.home()).await? {
            Answered::Response(response) | Answered::Upgraded(response, _) => Ok(response),
        }
    }

    /// Where connections go when they have nothing to do.
    pub(super) fn home(self: &Arc<Self>) -> impl FnOnce(Line) + Send + Unpin + 'static {
        let me = Arc::downgrade(self);
        move |line| {
            if let Some(me) = me.upgrade() {
                me.idle.lock().push((here(), line));
            }
        }
    }

    /// Sends a request over HTTP/2 without TLS and waits for the response's head.
    pub(super) async fn send_http2(&self, mut request: Request<StreamBody>) -> Result<Response<Reading>, Failure> {
        *request.version_mut() = Version::HTTP_2;
        // HTTP/2 carries the host in the target.
        let host = request.headers_mut().remove(http::header::HOST);
        let authority = host.and_then(|h| http::uri::Authority::try_from(h.as_bytes()).ok());
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(http::uri::Scheme::HTTP);
        parts.authority = Some(authority.unwrap_or_else(|| http::uri::Authority::from_static("localhost")));
        if let Ok(uri) = http::Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
        let mut sender = match self.http2_sender().await {
            Ok(sender) => sender,
            Err(why) => return Err(Failure::NotBegun { body: Some(request.into_body()), why }),
        };
        match sender.try_send_request(request).await {
            Ok(response) => Ok(response.map(|body| Reading::Live(body.map_err(Into::into).boxed_unsync()))),
            Err(mut e) => {
                let why = connection::reason(e.error());
                Err(match e.take_message() {
                    Some(request) => Failure::NotBegun { body: Some(request.into_body()), why },
                    None => Failure::Broken { why },
                })
            }
        }
    }

    /// The one HTTP/2 connection to the server, made when there is none.
    async fn http2_sender(&self) -> Result<http2::SendRequest<StreamBody>, String> {
        let mut place = self.http2.lock().await;
        if let Some(sender) = &mut *place
            && sender.ready().await.is_ok()
        {
            return Ok(sender.clone());
        }
        let stream = self.connect().await.map_err(|e| e.to_string())?;
        let (sender, driver) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            // The library counts small frames against half the connection's window, and ends the connection of a server that sends many:
            // a stream of short messages is no attack.
            .initial_stream_window_size(HTTP2_STREAM_WINDOW)
            .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| connection::reason(&e))?;
        // It ends with the server's connection, or when the last sender is dropped with its instance.
        tokio::spawn(driver);
        *place = Some(sender.clone());
        Ok(sender)
    }
}

/// Takes what the server prints while no request ends, and notices the server's end.
async fn watch(
    pool: std::sync::Weak<Pool>,
    me: std::sync::Weak<Resident>,
    watcher: io::Result<Watcher>,
    paper: Arc<Mutex<Paper>>,
) {
    if let Ok(watcher) = watcher {
        loop {
            watcher.readable().await;
            let (open, full) = {
                let mut paper = paper.lock();
                let open = paper.pull();
                (open, paper.printed.cut > 0)
            };
            // A request that ends soon takes it along.
            tokio::time::sleep(if full { FLOOD_PAUSE } else { PRINTED_PAUSE }).await;
            let left = {
                let mut paper = paper.lock();
                paper.pull();
                std::mem::take(&mut paper.printed)
            };
            if let (Some(pool), false) = (pool.upgrade(), left.is_empty()) {
                pool.note_printed(left);
            }
            if !open {
                break;
            }
        }
    }
    // Whoever had the pipe has closed it: the server has ended, or it has nothing more to say.
    loop {
        let (Some(pool), Some(me)) = (pool.upgrade(), me.upgrade()) else { return };
        if me.check().await.is_err() {
            pool.bury(&me);
            return;
        }
        drop((pool, me));
        tokio::time::sleep(MUTE_PAUSE).await;
    }
}

/// Starts an instance of a service: its program runs, and its port takes connections.
pub(crate) async fn start(
    inner: &Arc<Inner>,
    pool: &Arc<Pool>,
    lease: Lease,
    mut clock: Clock,
) -> Result<Worker, Refusal> {
    let config = &pool.spec.config;
    let (trees, mounts) = clock.pull(inner, pool).await?;
    let mut process = crate::start::bound(inner, pool, RuntimeId::Custom, mounts, &mut clock).await?;
    let program = find_program(SERVICE_PROGRAM, &trees)?;
    let mut environment = crate::environment::build(&pool.spec, &inner.options, process.inside.as_ref());
    environment.entry("PORT".into()).or_insert_with(|| super::SERVICE_PORT.to_string());
    let environment = environment.into_iter().map(|(k, v)| format!("{k}={v}")).collect();
    process.instance.launch(vec![program], environment).await.map_err(|e| Refusal::internal(&e))?;
    let mut printed = Printed::default();
    let limit = Duration::from_secs(u64::from(config.init_timeout_s));
    let result = {
        let listening = listening(&process.instance);
        tokio::pin!(listening);
        let up = async {
            loop {
                tokio::select! {
                    biased;
                    () = &mut listening => return Ok(()),
                    more = process.output.pump(&mut printed) => if !more {
                        let message = format!("`{SERVICE_PROGRAM}` ended before it listened on port {}", super::SERVICE_PORT);
                        return Err(Refusal::new(Status::INIT_ERROR, message));
                    },
                }
            }
        };
        tokio::time::timeout(limit, up).await
    };
    let result = match result {
        _ if process.instance.ran_out_of_memory() => Err(Refusal::new(
            Status::MEMORY_LIMIT,
            format!("Memory limit of {} MB exceeded during initialisation; the process was killed", config.memory_mb),
        )),
        Ok(result) => result,
        Err(_) => Err(Refusal::new(
            Status::INIT_TIMEOUT,
            format!("Nothing listened on port {} within {} seconds", super::SERVICE_PORT, config.init_timeout_s),
        )),
    };
    if let Err(mut refusal) = result {
        process.output.drain(&mut printed);
        append_output(&mut refusal, &mut printed);
        return Err(refusal);
    }
    Ok(Worker::new(process, printed, clock.done(), lease, trees))
}

/// Waits until the server takes connections.
async fn listening(instance: &Arc<dyn Instance>) {
    let mut pause = LISTEN_PAUSE_MIN;
    loop {
        if let Ok(socket) = instance.open_socket().await
            && let Ok(Ok(_)) = tokio::time::timeout(TIME_TO_ANSWER, connection::connect(socket)).await
        {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LISTEN_PAUSE_MAX);
    }
}
