//! Ending in order: a token that says "stop", and gates that count what still runs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The word "stop", passed down: triggering one triggers all made from it, never the one it was made from.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// A root that has not been triggered.
    pub fn new() -> Self {
        Self::default()
    }

    /// One for a part: triggered with this one, or alone.
    pub fn child(&self) -> Self {
        Self { token: self.token.child_token() }
    }

    /// The token itself, for code that wants `tokio_util`'s type.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Says stop. Saying it again changes nothing.
    pub fn trigger(&self) {
        self.token.cancel();
    }

    /// True once stop was said.
    pub fn is_triggered(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until stop is said.
    pub async fn triggered(&self) {
        self.token.cancelled().await;
    }
}

/// The orders to stop: SIGTERM and SIGINT.
pub struct StopSignal {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
}

impl StopSignal {
    /// Takes both signals from their default action, which ends the process at once. To be called before anybody can know that the
    /// process runs.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn install() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    /// Waits for the first of them and tells which it was.
    pub async fn wait(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}

/// Counts work in flight, and lets its owner close the door and wait until the last one has left.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    // Twice the number inside, plus one when closed: one word, so that entering and closing cannot miss each other.
    state: AtomicUsize,
    emptied: Notify,
}

const CLOSED: usize = 1;
const ONE: usize = 2;

/// The gate is closed: no new work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("shutting down")]
pub struct GateClosed;

/// The deadline passed and work is still inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} still running at the deadline")]
pub struct StillBusy(pub usize);

/// Somebody inside. Leaves when dropped.
#[derive(Debug)]
pub struct GateGuard {
    shared: Arc<Shared>,
}

impl Gate {
    /// An open gate with nobody inside.
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes in.
    ///
    /// # Errors
    /// [`GateClosed`] once the gate is closed.
    pub fn enter(&self) -> Result<GateGuard, GateClosed> {
        self.shared
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |s| (s & CLOSED == 0).then_some(s + ONE))
            .map_err(|_| GateClosed)?;
        Ok(GateGuard { shared: self.shared.clone() })
    }

    /// Lets nobody in any more. Those inside go on.
    pub fn close(&self) {
        if self.shared.state.fetch_or(CLOSED, Ordering::AcqRel) / ONE == 0 {
            self.shared.emptied.notify_waiters();
        }
    }

    /// True once closed.
    pub fn is_closed(&self) -> bool {
        self.shared.state.load(Ordering::Acquire) & CLOSED != 0
    }

    /// How many are inside.
    pub fn inside(&self) -> usize {
        self.shared.state.load(Ordering::Acquire) / ONE
    }

    /// Closes the gate and waits until nobody is inside.
    pub async fn close_and_wait(&self) {
        self.close();
        loop {
            let emptied = self.shared.emptied.notified();
            tokio::pin!(emptied);
            // Registered before the look, so that a leave between look and wait is not missed.
            emptied.as_mut().enable();
            if self.inside() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Closes the gate and waits until nobody is inside, for `limit` at most.
    ///
    /// # Errors
    /// [`StillBusy`] with the number inside when the time is up.
    pub async fn close_and_wait_for(&self, limit: Duration) -> Result<(), StillBusy> {
        match tokio::time::timeout(limit, self.close_and_wait()).await {
            Ok(()) => Ok(()),
            Err(_) => match self.inside() {
                0 => Ok(()),
                inside => Err(StillBusy(inside)),
            },
        }
    }
}

impl Drop for GateGuard {
    fn drop(&mut self) {
        if self.shared.state.fetch_sub(ONE, Ordering::AcqRel) == ONE + CLOSED {
            self.shared.emptied.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn children_stop_with_their_parent_only() {
        let root = Shutdown::new();
        let (a, b) = (root.child(), root.child());
        a.trigger();
        assert!(a.is_triggered() && !b.is_triggered() && !root.is_triggered());
        root.trigger();
        b.triggered().await;
    }

    #[tokio::test]
    async fn a_closed_gate_waits_for_those_inside() {
        let gate = Gate::new();
        let first = gate.enter().unwrap();
        let second = gate.enter().unwrap();
        assert_eq!(gate.inside(), 2);
        assert_eq!(gate.close_and_wait_for(Duration::ZERO).await, Err(StillBusy(2)));
        assert!(gate.enter().is_err());
        let waiter = tokio::spawn({
            let gate = gate.clone();
            async move { gate.close_and_wait().await }
        });
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        drop(second);
        waiter.await.unwrap();
        assert_eq!(gate.close_and_wait_for(Duration::ZERO).await, Ok(()));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nobody_slips_in_and_no_leave_is_missed() {
        for _ in 0..200 {
            let gate = Gate::new();
            let workers: Vec<_> = (0..8)
                .map(|_| {
                    let gate = gate.clone();
                    tokio::spawn(async move {
                        while let Ok(guard) = gate.enter() {
                            tokio::task::yield_now().await;
                            drop(guard);
                        }
                    })
                })
                .collect();
            tokio::task::yield_now().await;
            gate.close_and_wait_for(Duration::from_secs(10)).await.unwrap();
            for worker in workers {
                worker.await.unwrap();
            }
            assert_eq!(gate.inside(), 0);
        }
    }

    #[tokio::test]
    async fn an_unused_gate_closes_at_once() {
        Gate::new().close_and_wait_for(Duration::ZERO).await.unwrap();
    }
}
