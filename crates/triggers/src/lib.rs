//! Triggers: what hands events to functions.
//!
//! Start at [`Engine`], which keeps one [`Trigger`] running for each open trigger of the catalogue. A trigger hands its events in at the
//! [`Door`], where they are durable when it returns, and only then tells its own side that it has them: every event arrives at least once.
//!
//! - the module [`timer`]: schedules.
//! - the module [`source`]: everything that keeps its events itself until they are acknowledged (a bucket's changes, a topic's messages), behind one
//!   seam, [`Source`].
//!
//! A new kind is either a [`Source`] or a [`Trigger`] of its own (one that pulls from outside, say) behind a [`Maker`], and a variant of
//! [`TriggerKind`](mayfly_model::TriggerKind). It passes the contract in `contract`, unless it calls functions synchronously.

#[cfg(feature = "contract")]
pub mod contract;
mod cursors;
mod engine;
pub mod source;
pub mod timer;

pub use cursors::Cursors;
pub use engine::{Engine, Maker, Parts};
pub use source::{Item, Source};

use async_trait::async_trait;
use mayfly_base::{Backoff, Shutdown};
use mayfly_model::{Lineage, RequestId, TriggerConfig};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A trigger, and the function that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Namespace of the function.
    pub namespace: String,
    /// Name of the function.
    pub function: String,
    /// Its settings.
    pub config: Arc<TriggerConfig>,
}

impl Binding {
    /// What tells it from every other trigger there is or was.
    pub fn id(&self) -> &str {
        &self.config.id
    }

    /// The id of an event, made of where it comes from: who hands it in twice names the same.
    pub fn event_id(&self, position: &str) -> RequestId {
        let digest = Sha256::digest(format!("{} {position}", self.id()));
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        RequestId::from_random(bytes)
    }

    /// An event of this trigger. `position` names it among the trigger's events, the same each time that it is handed in.
    pub fn handed(&self, position: &str, event: String, maybe_again: bool) -> Handed {
        Handed {
            id: self.event_id(position),
            namespace: self.namespace.clone(),
            function: self.function.clone(),
            qualifier: self.config.qualifier.clone(),
            source: self.config.kind().as_str(),
            event,
            lineage: Lineage::default(),
            maybe_again,
        }
    }
}

/// An event on its way to a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handed {
    /// Its id.
    pub id: RequestId,
    /// Namespace of the function.
    pub namespace: String,
    /// Name of the function.
    pub function: String,
    /// Version or alias.
    pub qualifier: String,
    /// The kind of the trigger.
    pub source: &'static str,
    /// The event: JSON text.
    pub event: String,
    /// What made it, when that was an invocation.
    pub lineage: Lineage,
    /// True when a process that is no more may have handed it in already: it is then looked for.
    pub maybe_again: bool,
}

/// Why an event was not taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no room, or something is out of order: it will be taken later.
    #[error("later: {0}")]
    Later(String),
    /// It will never be taken as it is: it is too large, or the function is gone.
    #[error("never: {0}")]
    Never(String),
}

/// Where events are handed in.
#[async_trait]
pub trait Door: Send + Sync {
    /// Takes an event in. Durable when it returns; the same id is taken in once. Dropping the future leaves open whether it was.
    async fn hand(&self, event: Handed) -> Result<(), Refusal>;
}

/// What a trigger has not handed in yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Events.
    pub events: u64,
    /// Age of the oldest of them, in milliseconds.
    pub oldest_ms: u64,
}

/// Why a trigger ended before it was told to; it is started again, with growing pauses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TriggerError(pub String);

/// One trigger at work.
#[async_trait]
pub trait Trigger: Send + Sync {
    /// Hands events in until `stop`. What is under way then may be finished or left: it is handed in again after the next start.
    async fn run(&self, stop: &Shutdown) -> Result<(), TriggerError>;

    /// What waits.
    fn lag(&self) -> Lag;
}

/// How many events triggers handed in, for metrics.
#[derive(Debug, Default)]
pub struct Counts {
    handed: AtomicU64,
    postponed: AtomicU64,
    dropped: AtomicU64,
    missed: AtomicU64,
}

impl Counts {
    /// So many more events were taken in.
    pub fn add_handed(&self, events: u64) {
        self.handed.fetch_add(events, Ordering::Relaxed);
    }

    /// So many more events were not taken in for the moment.
    pub fn add_postponed(&self, events: u64) {
        self.postponed.fetch_add(events, Ordering::Relaxed);
    }

    /// So many more events will never be taken in.
    pub fn add_dropped(&self, events: u64) {
        self.dropped.fetch_add(events, Ordering::Relaxed);
    }

    /// Events taken in.
    pub fn handed(&self) -> u64 {
        self.handed.load(Ordering::Relaxed)
    }

    /// Times that an event was not taken in for the moment.
    pub fn postponed(&self) -> u64 {
        self.postponed.load(Ordering::Relaxed)
    }

    /// Events that would never have been taken in.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Ticks of timers that were too old when the platform came back.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

/// Hands an event in, as often as it takes. True: it is taken in, or never will be; false: `stop` came first.
async fn hand_in(door: &dyn Door, counts: &Counts, event: Handed, stop: &Shutdown) -> bool {
    for attempt in 0.. {
        let taken = tokio::select! {
            biased;
            taken = door.hand(event.clone()) => taken,
            () = stop.triggered() => return false,
        };
        match taken {
            Ok(()) => {
                counts.handed.fetch_add(1, Ordering::Relaxed);
                return true;
            }
            Err(Refusal::Never(why)) => {
                counts.dropped.fetch_add(1, Ordering::Relaxed);
                let (namespace, function, source) = (&event.namespace, &event.function, event.source);
                tracing::warn!(%namespace, %function, source, request_id = %event.id, why, "an event of a trigger is dropped");
                return true;
            }
            Err(Refusal::Later(why)) => {
                counts.postponed.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(request_id = %event.id, why, "an event of a trigger waits");
            }
        }
        tokio::select! {
            () = pause(attempt) => {}
            () = stop.triggered() => return false,
        }
    }
    false
}

/// Waits after the so-and-so-many-th failure in a row, from 0.
async fn pause(attempt: u32) {
    const BACKOFF: Backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(30) };
    let mut random = [0; 8];
    // Without randomness they come back together, which is no reason to fail.
    let _ = getrandom::fill(&mut random);
    tokio::time::sleep(BACKOFF.delay(attempt, u64::from_le_bytes(random)).max(Duration::from_millis(10))).await;
}
