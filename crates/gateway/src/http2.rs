//! HTTP/2 connections: many requests at a time on one.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::guard::Phase;
use crate::listener::{Shared, Way, handle};

/// Requests at a time on one connection.
const STREAMS_MAX: u32 = 256;
/// What a visitor may send ahead of its reader, on a stream and on the connection, in bytes.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// How often it is looked whether visitors take their answers.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A connection on which nothing comes is asked whether it is still there, after so long.
const PING_AFTER: Duration = Duration::from_secs(20);
/// How long it may take to say so.
const PING_TIME: Duration = Duration::from_secs(20);

/// Serves one connection to its end.
pub(crate) async fn serve<S>(stream: S, peer: SocketAddr, secure: bool, shared: &Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let open = Arc::new(AtomicUsize::new(0));
    let answers = Arc::new(parking_lot::Mutex::new(Vec::<Weak<Progress>>::new()));
    let stalled = AtomicBool::new(false);
    let last = Arc::new(parking_lot::Mutex::new(Instant::now()));
    let handler = {
        let (shared, open, last) = (Arc::clone(shared), Arc::clone(&open), Arc::clone(&last));
        let answers = Arc::clone(&answers);
        service_fn(move |request| {
            let (shared, counted) = (Arc::clone(&shared), Counted::new(&open, &last));
            answers.lock().push(Arc::downgrade(&counted.progress));
            async move {
                // One for each request: time-outs of a connection that carries one request at a time do not fit here.
                let phase = Arc::new(Phase::new(shared.limits.idle_time));
                let answer = handle(request, Way { peer, secure, phase, connection: None }, &shared).await;
                let progress = counted.progress.clone();
                answer.map(|answer| answer.map(|body| body.reporting(progress).keeping(counted)))
            }
        })
    };
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(shared.limits.header_bytes_max).unwrap_or(u32::MAX))
        // Wide, because the library counts small frames against half of it: a visitor may send many short messages.
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_TIME);
    let connection = builder.serve_connection(TokioIo::new(stream), handler);
    tokio::pin!(connection);
    let unused = async {
        loop {
            let until = *last.lock() + shared.limits.idle_time;
            if open.load(Ordering::Acquire) == 0 && until <= Instant::now() {
                return;
            }
            // One that takes nothing of an answer holds an instance for nothing.
            if answers.lock().iter().any(|a| a.upgrade().is_some_and(|p| p.stalled(shared.limits.write_stall_time))) {
                stalled.store(true, Ordering::Release);
                return;
            }
            answers.lock().retain(|a| a.strong_count() > 0);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
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
        () = unused => {
            if stalled.load(Ordering::Acquire) {
                crate::stats::bump(&shared.stats.write_stalls);
                return;
            }
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(PING_TIME, connection.as_mut()).await;
            return;
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, %peer, "a connection ended with an error");
    }
}

/// A request on a connection, from its head to its answer's.
struct Counted {
    open: Arc<AtomicUsize>,
    last: Arc<parking_lot::Mutex<Instant>>,
    progress: Arc<Progress>,
}

/// Since when a visitor has not asked for more of an answer.
#[derive(Default)]
pub(crate) struct Progress(parking_lot::Mutex<Option<Instant>>);

impl Progress {
    /// A piece was handed over.
    pub(crate) fn given(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    /// More was asked for: what was handed over is on its way.
    pub(crate) fn asked(&self) {
        *self.0.lock() = None;
    }

    fn stalled(&self, limit: Duration) -> bool {
        self.0.lock().is_some_and(|since| since.elapsed() > limit)
    }
}

impl Counted {
    fn new(open: &Arc<AtomicUsize>, last: &Arc<parking_lot::Mutex<Instant>>) -> Self {
        open.fetch_add(1, Ordering::AcqRel);
        Self { open: Arc::clone(open), last: Arc::clone(last), progress: Arc::default() }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        *self.last.lock() = Instant::now();
        self.open.fetch_sub(1, Ordering::AcqRel);
    }
}
