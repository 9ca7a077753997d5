//! HTTP/2 connections: many requests at a time on one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    let last = Arc::new(parking_lot::Mutex::new(Instant::now()));
    let handler = {
        let (shared, open, last) = (Arc::clone(shared), Arc::clone(&open), Arc::clone(&last));
        service_fn(move |request| {
            let (shared, counted) = (Arc::clone(&shared), Counted::new(&open, &last));
            async move {
                // One for each request: time-outs of a connection that carries one request at a time do not fit here.
                let phase = Arc::new(Phase::new(shared.limits.idle_time));
                let answer = handle(request, Way { peer, secure, phase, connection: None }, &shared).await;
                answer.map(|answer| answer.map(|body| body.keeping(counted)))
            }
        })
    };
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(shared.limits.header_bytes_max).unwrap_or(u32::MAX))
        .adaptive_window(true)
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
            tokio::time::sleep_until(until.max(Instant::now() + Duration::from_secs(1))).await;
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
}

impl Counted {
    fn new(open: &Arc<AtomicUsize>, last: &Arc<parking_lot::Mutex<Instant>>) -> Self {
        open.fetch_add(1, Ordering::AcqRel);
        Self { open: Arc::clone(open), last: Arc::clone(last) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        *self.last.lock() = Instant::now();
        self.open.fetch_sub(1, Ordering::AcqRel);
    }
}
