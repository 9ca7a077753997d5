//! Ending events before they are done.
//!
//! Whoever asked is answered when the record of the end is written and the log has forgotten the event: after that no crash brings it back.

use super::{Event, Events, Item, LOG_RETRY, Owner, Stage, attempts, outcome_of};
use crate::endings::{Cause, Ran};
use mayfly_base::Aborter;
use mayfly_model::{InvocationRecord, Lineage, RequestId, Status, limits};
use mayfly_plan::retry::Verdict;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// Wait for a run to end and for the log, beyond the grace.
const END_WAIT: Duration = Duration::from_secs(30);

/// Why an event was not terminated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TerminateError {
    /// No such event is pending.
    #[error("no such event is pending")]
    NotPending,
    /// It is on its way to its end, and that could not be made durable in time.
    #[error("the end of the event could not be stored in time")]
    Unsettled,
}

/// An attempt that is under way.
#[derive(Debug)]
pub(super) struct Running {
    aborter: Aborter,
    aborted: AtomicBool,
    /// Closed when the attempt is settled; true: the log has forgotten the event.
    settled: watch::Sender<bool>,
}

impl Running {
    pub fn new(aborter: Aborter) -> Self {
        Self { aborter, aborted: AtomicBool::new(false), settled: watch::channel(false).0 }
    }

    pub fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::Acquire)
    }

    /// The log has forgotten the event.
    pub fn forgotten(&self) {
        self.settled.send_replace(true);
    }

    fn abort(&self, grace: Duration) -> watch::Receiver<bool> {
        self.aborted.store(true, Ordering::Release);
        self.aborter.ask(grace);
        self.settled.subscribe()
    }
}

enum Found {
    Running(watch::Receiver<bool>),
    Waiting(Owner, Box<InvocationRecord>),
}

impl Events {
    /// Ends an event of a function. `graceful`: code that runs hears of it, and has [`limits::ABORT_GRACE_S`].
    ///
    /// # Errors
    /// [`TerminateError`]. With [`TerminateError::Unsettled`] it may run again after a crash.
    pub async fn terminate(
        self: &Arc<Self>,
        namespace: &str,
        function: &str,
        id: RequestId,
        graceful: bool,
    ) -> Result<(), TerminateError> {
        let grace = Duration::from_secs(if graceful { limits::ABORT_GRACE_S } else { 0 });
        loop {
            match self.take_for_end(namespace, function, id, grace)? {
                Found::Running(mut settled) => {
                    let closed = async { while settled.changed().await.is_ok() {} };
                    tokio::time::timeout(grace + END_WAIT, closed).await.map_err(|_| TerminateError::Unsettled)?;
                    if *settled.borrow() {
                        return Ok(());
                    }
                    // The attempt had been judged before: the event waits for the next one. Or the log would not forget it.
                    if self.pending(id).is_none() {
                        return Err(TerminateError::Unsettled);
                    }
                }
                Found::Waiting(owner, record) => {
                    let (this, record) = (Arc::clone(self), *record);
                    // Carried to its end when the caller goes away.
                    let work = tokio::spawn(async move { this.end_waiting(id, owner, record).await });
                    return work.await.map_err(|_| TerminateError::Unsettled)?;
                }
            }
        }
    }

    fn take_for_end(
        &self,
        namespace: &str,
        function: &str,
        id: RequestId,
        grace: Duration,
    ) -> Result<Found, TerminateError> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let item = state.items.get_mut(&id).ok_or(TerminateError::NotPending)?;
        if item.owner.0 != namespace || item.owner.1 != function {
            return Err(TerminateError::NotPending);
        }
        match &item.state {
            Stage::Running(running) => Ok(Found::Running(running.abort(grace))),
            Stage::Terminating => Err(TerminateError::NotPending),
            Stage::Waiting => {
                item.state = Stage::Terminating;
                state.waiting.remove(&(item.due_ms, id));
                Ok(Found::Waiting(item.owner.clone(), Box::new(self.terminated(id, item))))
            }
        }
    }

    /// Tells those who wait for the end of an attempt that the log has forgotten the event.
    pub(super) fn forgotten(&self, id: RequestId) {
        if let Some(Item { state: Stage::Running(running), .. }) = self.state.lock().items.get(&id) {
            running.forgotten();
        }
    }

    async fn end_waiting(&self, id: RequestId, owner: Owner, record: InvocationRecord) -> Result<(), TerminateError> {
        self.records.append(record.clone());
        self.records.written().await;
        let outcome = outcome_of(record);
        let ran = self.fetch(id).await.map(|(event, tried)| Ran { event, tried, target: None, outcome });
        let followed = matches!(self.endings.follow(id, Verdict::Finish, ran).await, Verdict::Finish);
        let finished = followed && self.finish(id).await;
        if finished {
            self.counts.count(Status::CANCELED);
        }
        let mut state = self.state.lock();
        if finished {
            state.forget(id);
            state.drop_if_empty(&owner);
            return Ok(());
        }
        // It is still in the log, so it is still pending.
        let due_ms = self.clock.now_ms().saturating_add(LOG_RETRY.as_millis() as u64);
        if let Some(item) = state.items.get_mut(&id) {
            item.state = Stage::Waiting;
            item.due_ms = due_ms;
            state.waiting.insert((due_ms, id));
        }
        drop(state);
        self.wake.notify_one();
        Err(TerminateError::Unsettled)
    }

    /// The record of an event that was terminated while it did not run.
    pub(super) fn terminated(&self, id: RequestId, item: &Item) -> InvocationRecord {
        let event = Event {
            namespace: item.owner.0.clone(),
            function: item.owner.1.clone(),
            qualifier: item.qualifier.to_string(),
            routing_key: Vec::new(),
            event: String::new(),
            accepted_ms: item.since_ms,
            cause: Cause::of(&item.source, Lineage::default()),
        };
        self.without_run(id, &event, attempts(item.tried), Status::CANCELED, "The event was terminated")
    }
}
