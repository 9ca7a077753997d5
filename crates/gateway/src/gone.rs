//! Noticing that a client has gone away while it is being answered.
//!
//! The HTTP/1.1 library does not read a connection while a request on it is being answered, so it would not notice. For requests that take
//! a while, a second descriptor of the connection is watched; quick ones pay for a place among the time-outs of their event loop.

use std::future::Future;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mayfly_base::loops::{Patience, patience};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A request that takes longer is worth watching its client.
const WORTH_WATCHING: Duration = Duration::from_millis(50);

/// Ready when the client has closed its side of the connection.
pub(crate) enum Gone {
    /// Its end is noticed otherwise.
    Never,
    /// The request is young yet.
    Young(Patience, RawFd),
    Watched(Pin<Box<dyn Future<Output = ()> + Send>>),
}

impl Gone {
    /// Watches the connection with this descriptor, which the caller keeps open while this lives.
    pub(crate) fn watch(connection: RawFd) -> Self {
        Self::Young(patience(WORTH_WATCHING), connection)
    }

    /// For connections whose end is noticed otherwise.
    pub(crate) fn never() -> Self {
        Self::Never
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Self::Young(patience, connection) = self {
            ready!(Pin::new(patience).poll(cx));
            *self = Self::Watched(Box::pin(closed(*connection)));
        }
        match self {
            Self::Watched(future) => future.as_mut().poll(cx),
            Self::Never | Self::Young(..) => Poll::Pending,
        }
    }

    /// Waits.
    pub(crate) async fn wait(&mut self) {
        std::future::poll_fn(|cx| self.poll(cx)).await;
    }
}

async fn closed(connection: RawFd) {
    if watch(connection).await.is_err() {
        // It cannot be watched; writing to it will tell in time.
        std::future::pending::<()>().await;
    }
}

async fn watch(connection: RawFd) -> io::Result<()> {
    // SAFETY: the connection is open while the request on it is being answered, which is as long as this future is polled.
    let own: OwnedFd = unsafe { BorrowedFd::borrow_raw(connection) }.try_clone_to_owned()?;
    // SAFETY: the descriptor belongs to the `AsyncFd` and is neither closed nor replaced while it is registered.
    let own = unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) }
        .map_err(|e| io::Error::other(e.to_string()))?;
    loop {
        let mut ready = own.ready(Interest::READABLE).await?;
        if ready.ready().is_read_closed() {
            return Ok(());
        }
        // Data: the rest of a body, or a next request. Only what comes after it is news.
        ready.clear_ready();
    }
}
