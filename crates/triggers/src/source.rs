//! Sources that keep their events until these are acknowledged.

use crate::{Binding, Counts, Door, Lag, Trigger, TriggerError, hand_in};
use async_trait::async_trait;
use mayfly_base::Shutdown;
use mayfly_model::Lineage;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Events that are handed in at once: they share a sync of the disk.
pub const BATCH: usize = 64;

/// An event of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Where it stands: the same each time that it is given, and no other event's.
    pub position: String,
    /// The event in SCF's format: JSON text.
    pub event: String,
    /// What made it happen, when that was an invocation: so loops by way of the source are noticed.
    pub lineage: Lineage,
}

/// Keeps events for triggers, durably, each until it is acknowledged. Implemented by the server over the object store and the queues.
#[async_trait]
pub trait Source: Send + Sync {
    /// The open triggers of this kind, from now on: all of them, whenever one has changed, and once before anything is let in. From its
    /// return on, what happens is kept for them; what is kept for others is let go. Must not block.
    fn bind(&self, triggers: &[Binding]);

    /// The oldest events that are kept for a trigger, at most `limit`; waits until there is one. The same are given until they are
    /// acknowledged. Must be safe to drop.
    ///
    /// # Errors
    /// When the source is out of order; it is asked again after a pause.
    async fn next(&self, trigger: &Binding, limit: usize) -> Result<Vec<Item>, TriggerError>;

    /// Lets go of events that are in safe hands. No error for those that are gone already.
    ///
    /// # Errors
    /// As for [`Source::next`]; they are then given again.
    async fn ack(&self, trigger: &Binding, positions: &[String]) -> Result<(), TriggerError>;

    /// What is kept for a trigger.
    fn lag(&self, trigger: &Binding) -> Lag;
}

/// A trigger over a source.
pub struct FromSource {
    binding: Binding,
    source: Arc<dyn Source>,
    door: Arc<dyn Door>,
    counts: Arc<Counts>,
}

impl FromSource {
    /// A trigger that takes from `source`.
    pub fn new(binding: Binding, source: Arc<dyn Source>, door: Arc<dyn Door>, counts: Arc<Counts>) -> Self {
        Self { binding, source, door, counts }
    }
}

#[async_trait]
impl Trigger for FromSource {
    async fn run(&self, stop: &Shutdown) -> Result<(), TriggerError> {
        let mut maybe_again = true;
        loop {
            let items = tokio::select! {
                biased;
                () = stop.triggered() => return Ok(()),
                items = self.source.next(&self.binding, BATCH) => items?,
            };
            let mut handing = JoinSet::new();
            for item in items {
                let mut event = self.binding.handed(&item.position, item.event, maybe_again);
                event.lineage = item.lineage;
                let (door, counts, stop) = (Arc::clone(&self.door), Arc::clone(&self.counts), stop.clone());
                handing.spawn(async move { hand_in(&*door, &counts, event, &stop).await.then_some(item.position) });
            }
            let mut done = Vec::new();
            while let Some(handed) = handing.join_next().await {
                match handed {
                    Ok(position) => done.extend(position),
                    Err(error) => tracing::error!(%error, "handing in an event failed inside the platform"),
                }
            }
            maybe_again = false;
            if !done.is_empty() {
                self.source.ack(&self.binding, &done).await?;
            }
        }
    }

    fn lag(&self) -> Lag {
        self.source.lag(&self.binding)
    }
}
