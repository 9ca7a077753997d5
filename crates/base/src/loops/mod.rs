//! Event loops: threads that each run the connections given to them from beginning to end, and sockets that follow whoever uses them.
//!
//! The many-threaded runtime may poll a connection on any thread, and wakes a second thread whenever a first one finds work. For a request
//! that only passes through, those hand-overs cost more than the request. Here each thread has a reactor of its own, as in nginx or
//! Pingora: a connection stays where it was put, and what it waits for wakes the thread that goes on with it.

mod patience;

pub use patience::{Patience, patience, within};

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// Most loops: beyond it one machine's connections gain nothing.
const LOOPS_MAX: usize = 16;

thread_local! {
    static HERE: Cell<usize> = const { Cell::new(0) };
}

/// Which loop the calling thread is; 0 for threads of any other kind.
pub fn here() -> usize {
    HERE.get()
}

/// A set of loops. They end when this is dropped, with all that runs on them.
pub struct EventLoops {
    handles: Vec<Handle>,
    threads: Vec<JoinHandle<()>>,
    next: AtomicUsize,
    stop: CancellationToken,
}

impl EventLoops {
    /// None at all: everything runs on the runtime of whoever asks.
    pub fn none() -> Self {
        Self { handles: Vec::new(), threads: Vec::new(), next: AtomicUsize::new(0), stop: CancellationToken::new() }
    }

    /// One for each processor that this process may use.
    ///
    /// # Errors
    /// When the system grants no more threads or descriptors.
    pub fn start() -> io::Result<Self> {
        let count = std::thread::available_parallelism().map_or(1, usize::from).min(LOOPS_MAX);
        let mut loops = Self::none();
        for number in 1..=count {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            loops.handles.push(runtime.handle().clone());
            let stop = loops.stop.clone();
            let thread = std::thread::Builder::new().name(format!("loop-{number}")).spawn(move || {
                HERE.set(number);
                runtime.spawn(patience::install());
                runtime.block_on(stop.cancelled());
                // What still runs here has had its time; work of others on blocking threads is not waited for.
                runtime.shutdown_background();
            })?;
            loops.threads.push(thread);
        }
        Ok(loops)
    }

    /// Runs a future on one of the loops, each in turn.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        if self.handles.is_empty() {
            tokio::spawn(future);
            return;
        }
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.handles[turn % self.handles.len()].spawn(future);
    }
}

impl Drop for EventLoops {
    fn drop(&mut self) {
        self.stop.cancel();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("an event loop panicked");
            }
        }
    }
}

/// A descriptor that is registered with a reactor, and can be with another.
pub trait Registered: Sized {
    /// Registers with the reactor of the calling thread in the place of the one it is with.
    ///
    /// # Errors
    /// When the system grants no more registrations.
    fn move_here(self) -> io::Result<Self>;
}

impl Registered for TcpStream {
    fn move_here(self) -> io::Result<Self> {
        Self::from_std(self.into_std()?)
    }
}

impl Registered for UnixStream {
    fn move_here(self) -> io::Result<Self> {
        Self::from_std(self.into_std()?)
    }
}

/// For reading.
impl Registered for AsyncFd<OwnedFd> {
    fn move_here(self) -> io::Result<Self> {
        // SAFETY: the descriptor belongs to the AsyncFd from here on and stays open as long as it is registered.
        let again = unsafe { Self::register_with_interest(self.into_inner(), Interest::READABLE) };
        again.map_err(|e| io::Error::other(e.to_string()))
    }
}

/// Something registered that changes reactors with its user. It may be used on any thread, one after the other.
pub struct Roaming<T> {
    /// `None`: it could not be registered again, and is closed.
    inner: Option<T>,
    at: usize,
}

impl<T: Registered> Roaming<T> {
    /// Takes what is registered with the calling thread's reactor.
    pub fn new(inner: T) -> Self {
        Self { inner: Some(inner), at: here() }
    }

    /// As it is, wherever it is registered: for what does not wait.
    pub fn as_is(&self) -> Option<&T> {
        self.inner.as_ref()
    }

    /// What it is, registered with the calling thread's reactor.
    ///
    /// # Errors
    /// As [`Self::here`].
    pub fn into_here(mut self) -> io::Result<T> {
        self.here()?;
        self.inner.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Registered with the calling thread's reactor.
    ///
    /// # Errors
    /// When the system grants no more registrations; it is closed then, and stays so.
    pub fn here(&mut self) -> io::Result<&mut T> {
        if self.at != here() {
            self.at = here();
            self.inner = self.inner.take().map(T::move_here).transpose()?;
        }
        self.inner.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<T: Registered + AsyncRead + Unpin> AsyncRead for Roaming<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().here()?).poll_read(cx, buf)
    }
}

impl<T: Registered + AsyncWrite + Unpin> AsyncWrite for Roaming<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self.get_mut().here()?).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.get_mut().here()?).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().here()?).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().here()?).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn what_is_spawned_goes_round_and_ends_with_the_loops() {
        let loops = EventLoops::start().expect("threads");
        let count = loops.handles.len();
        let (tell, told) = mpsc::channel();
        for _ in 0..2 * count {
            let tell = tell.clone();
            loops.spawn(async move {
                tell.send(here()).expect("the test listens");
                std::future::pending::<()>().await;
            });
        }
        drop(tell);
        let mut seen: Vec<usize> = (0..2 * count).map(|_| told.recv().expect("each one runs")).collect();
        seen.sort_unstable();
        let twice: Vec<usize> = (1..=count).flat_map(|n| [n, n]).collect();
        assert_eq!(seen, twice);
        assert_eq!(here(), 0, "this thread is no loop");
        drop(loops);
        assert!(told.recv().is_err(), "the futures are gone with their loops");
    }

    #[tokio::test]
    async fn a_socket_follows_its_user() {
        let loops = EventLoops::start().expect("threads");
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let mut ours = Roaming::new(ours);
        for round in 0..6u8 {
            let (tell, told) = tokio::sync::oneshot::channel();
            loops.spawn(async move {
                let mut byte = [0];
                ours.read_exact(&mut byte).await.expect("a byte comes");
                ours.write_all(&[byte[0] + 1]).await.expect("it is open");
                let at = here();
                let _ = tell.send((ours, at));
            });
            theirs.write_all(&[round]).await.expect("it is open");
            let mut byte = [0];
            theirs.read_exact(&mut byte).await.expect("an answer");
            assert_eq!(byte[0], round + 1);
            let (back, at) = told.await.expect("it comes back");
            assert_eq!(back.at, at);
            ours = back;
        }
        // And to this thread, which is no loop.
        theirs.write_all(b"x").await.expect("it is open");
        let mut byte = [0];
        ours.read_exact(&mut byte).await.expect("a byte");
        drop(theirs);
        assert_eq!(ours.read(&mut byte).await.expect("the end"), 0);
    }
}
