//! What can be told of events: for lists, and for metrics.

use super::{Events, Stage};
use crate::endings::Cause;
use mayfly_model::{Lineage, RequestId, Status};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// An event that is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingEvent {
    /// Its id.
    pub id: RequestId,
    /// The version or alias that the caller named.
    pub qualifier: String,
    /// Where it came from.
    pub source: String,
    /// When it was accepted, in milliseconds since the epoch.
    pub since_ms: u64,
}

/// How many events a function has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionDepth {
    /// Namespace of the function.
    pub namespace: String,
    /// Its name.
    pub function: String,
    /// Events that are not done, those that run included.
    pub pending: usize,
    /// Events that run.
    pub running: usize,
    /// When the oldest of them was accepted, in milliseconds since the epoch.
    pub oldest_ms: u64,
}

/// Events that ended since the platform was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndedCounts {
    /// With a result.
    pub finished: u64,
    /// Given up.
    pub failed: u64,
    /// Terminated.
    pub aborted: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    finished: AtomicU64,
    failed: AtomicU64,
    aborted: AtomicU64,
}

impl Counts {
    pub fn count(&self, status: Status) {
        let count = match status {
            Status::OK => &self.finished,
            Status::CANCELED => &self.aborted,
            _ => &self.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

impl Events {
    /// The events of a function that are not done, the oldest first.
    pub fn pending_of(&self, namespace: &str, function: &str) -> Vec<PendingEvent> {
        let state = self.state.lock();
        let owner = Arc::new((namespace.to_owned(), function.to_owned()));
        let Some(queue) = state.queues.get(&owner) else { return Vec::new() };
        let shown = |(since_ms, id): &(u64, RequestId)| {
            let item = state.items.get(id)?;
            let (qualifier, source) =
                (item.qualifier.to_string(), Cause::of(&item.source, Lineage::default()).invoke_type());
            Some(PendingEvent { id: *id, qualifier, source, since_ms: *since_ms })
        };
        queue.pending.iter().filter_map(shown).collect()
    }

    /// Every function that has events, the oldest event first.
    pub fn depths(&self) -> Vec<FunctionDepth> {
        let state = self.state.lock();
        let depth = |(owner, queue): (&Arc<(String, String)>, &super::Queue)| {
            let (oldest_ms, _) = *queue.pending.first()?;
            let (namespace, function) = (**owner).clone();
            let (pending, running) = (queue.pending.len(), queue.running);
            Some(FunctionDepth { namespace, function, pending, running, oldest_ms })
        };
        let mut depths: Vec<_> = state.queues.iter().filter_map(depth).collect();
        drop(state);
        depths.sort_by_key(|depth| depth.oldest_ms);
        depths
    }

    /// Events that ended since the start.
    pub fn ended_counts(&self) -> EndedCounts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { finished, failed, aborted } = &self.counts;
        EndedCounts { finished: of(finished), failed: of(failed), aborted: of(aborted) }
    }

    /// True while an attempt of the event is under way.
    pub fn is_running(&self, id: RequestId) -> bool {
        let state = self.state.lock();
        state.items.get(&id).is_some_and(|item| matches!(item.state, Stage::Running(_)))
    }
}
