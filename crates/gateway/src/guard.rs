//! A connection's patience: idle and header time-outs on reading, a stall time-out on writing.
//!
//! Deadlines are plain numbers; the timer behind them is armed late and moved only when it must ring earlier, so a
//! request on a busy connection costs no timer operation.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::limits::GatewayLimits;
use crate::stats::{GatewayStats, bump};

/// Waiting for a request's first byte.
const IDLE: u8 = 0;
/// Some bytes of a request are here, its headers are not complete.
const HEAD: u8 = 1;
/// A request is being read or answered: its own time-outs hold, not those of this module.
const BUSY: u8 = 2;

/// The connection has become something else, and no time-out on reading holds any more.
const TUNNEL: u8 = 3;

/// No wait is longer; keeps sums of times within what `Instant` can hold.
const CENTURY_MS: u64 = 100 * 366 * 86_400_000;

/// Where a connection is in its life, shared between its stream and its requests. They run in one task; atomics only
/// because the compiler cannot know.
pub(crate) struct Phase {
    state: AtomicU8,
    // Milliseconds after `born` at which waiting ends.
    deadline_ms: AtomicU64,
    born: Instant,
    idle_time: Duration,
}

impl Phase {
    pub(crate) fn new(idle_time: Duration) -> Self {
        let phase =
            Self { state: AtomicU8::new(IDLE), deadline_ms: AtomicU64::new(0), born: Instant::now(), idle_time };
        phase.idle();
        phase
    }

    /// No request follows on this connection, and it may be silent for as long as it likes.
    pub(crate) fn tunnel(&self) {
        self.state.store(TUNNEL, Ordering::Relaxed);
    }

    fn set(&self, state: u8, wait: Duration) {
        if self.state() == TUNNEL {
            return;
        }
        let deadline = self.born.elapsed().saturating_add(wait).as_millis();
        self.deadline_ms.store(deadline.min(u128::from(u64::MAX)) as u64, Ordering::Relaxed);
        self.state.store(state, Ordering::Relaxed);
    }

    /// A request's headers are read.
    pub(crate) fn busy(&self) {
        self.state.store(BUSY, Ordering::Relaxed);
    }

    /// The answer has been handed over.
    pub(crate) fn idle(&self) {
        self.set(IDLE, self.idle_time);
    }

    fn state(&self) -> u8 {
        self.state.load(Ordering::Relaxed)
    }

    fn deadline(&self) -> Instant {
        self.born + Duration::from_millis(self.deadline_ms.load(Ordering::Relaxed).min(CENTURY_MS))
    }
}

/// A timer that is armed on first need and moved only towards now.
#[derive(Default)]
struct LazyTimer(Option<Pin<Box<Sleep>>>);

impl LazyTimer {
    /// Ready when `deadline` has passed; otherwise the task is woken then (or a little before, once).
    fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        if Instant::now() >= deadline {
            return Poll::Ready(());
        }
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

/// The stream of a connection, with its time-outs.
pub(crate) struct Guarded<S> {
    stream: S,
    phase: Arc<Phase>,
    stats: Arc<GatewayStats>,
    header_time: Duration,
    write_stall_time: Duration,
    read_timer: LazyTimer,
    write_timer: LazyTimer,
    // Set while a write waits for the client.
    write_deadline: Option<Instant>,
}

impl<S> Guarded<S> {
    pub(crate) fn new(stream: S, phase: Arc<Phase>, stats: Arc<GatewayStats>, limits: &GatewayLimits) -> Self {
        Self {
            stream,
            phase,
            stats,
            header_time: limits.header_time,
            write_stall_time: limits.write_stall_time,
            read_timer: LazyTimer::default(),
            write_timer: LazyTimer::default(),
            write_deadline: None,
        }
    }

    fn written<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.write_deadline = None;
            return outcome;
        }
        let stall_time = self.write_stall_time;
        let deadline = *self.write_deadline.get_or_insert_with(|| Instant::now() + stall_time);
        if self.write_timer.poll(cx, deadline).is_pending() {
            return Poll::Pending;
        }
        bump(&self.stats.write_stalls);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not take its answer")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let outcome = Pin::new(&mut this.stream).poll_read(cx, buf);
        if outcome.is_ready() {
            if this.phase.state() == IDLE && buf.filled().len() > before {
                this.phase.set(HEAD, this.header_time);
            }
            return outcome;
        }
        let state = this.phase.state();
        if state == BUSY || state == TUNNEL {
            return Poll::Pending;
        }
        if this.write_deadline.is_some() {
            // The last answer is still on its way out: the client is slow, not idle, and the write's own time-out holds.
            this.phase.idle();
        }
        if this.read_timer.poll(cx, this.phase.deadline()).is_pending() {
            return Poll::Pending;
        }
        if state == IDLE {
            // As if the client had closed: nothing is owed to it.
            return Poll::Ready(Ok(()));
        }
        bump(&this.stats.header_timeouts);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "headers came too slowly")))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.written(cx, outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.written(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
