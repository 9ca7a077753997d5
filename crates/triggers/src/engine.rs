//! Keeps the triggers of the catalogue running.

use crate::source::{FromSource, Source};
use crate::timer::Timer;
use crate::{Binding, Counts, Cursors, Door, Lag, Trigger, TriggerError};
use mayfly_base::{Clock, Shutdown};
use mayfly_model::{TriggerDesc, TriggerKind};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// How long a trigger that is told to stop may take to do so. What it had under way then is handed in again.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// A trigger that ran so long was in order: its next failure is its first.
const HEALTHY: Duration = Duration::from_secs(60);

/// What triggers work with.
pub struct Parts {
    /// Where events are handed in.
    pub door: Arc<dyn Door>,
    /// How far triggers have come.
    pub cursors: Arc<Cursors>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Sources of events, by kind.
    pub sources: HashMap<TriggerKind, Arc<dyn Source>>,
    /// What makes the triggers of kinds that need no source, by kind.
    pub makers: HashMap<TriggerKind, Arc<dyn Maker>>,
}

/// Makes the triggers of a kind that pulls its events from elsewhere, in its own way.
pub trait Maker: Send + Sync {
    /// All triggers of this kind, closed ones too, whenever one has changed, and once before anything is let in. Must not block.
    fn bind(&self, _triggers: &[Binding]) {}

    /// A trigger for a binding; `counts` are the engine's.
    ///
    /// # Errors
    /// When the platform cannot run it as it is set up.
    fn make(&self, binding: &Binding, counts: &Arc<Counts>) -> Result<Arc<dyn Trigger>, TriggerError>;
}

/// Keeps one [`Trigger`] running for each open trigger.
pub struct Engine {
    parts: Parts,
    counts: Arc<Counts>,
    wanted: watch::Sender<Arc<Vec<Binding>>>,
    /// Held while the triggers are read and sources are told, so that the last one to tell has read last.
    setting: Mutex<()>,
    running: Mutex<HashMap<String, Running>>,
}

struct Running {
    binding: Binding,
    trigger: Arc<dyn Trigger>,
    stop: Shutdown,
    task: Option<JoinHandle<()>>,
}

impl Engine {
    /// An engine without triggers.
    pub fn new(parts: Parts) -> Self {
        Self {
            parts,
            counts: Arc::default(),
            wanted: watch::Sender::new(Arc::default()),
            setting: Mutex::default(),
            running: Mutex::default(),
        }
    }

    /// The triggers have changed: `read` gives all of them, closed ones too. Sources know of it when this returns; it does not block.
    pub fn set(&self, read: impl FnOnce() -> Vec<Binding>) {
        let _one_at_a_time = self.setting.lock();
        let all = read();
        for (kind, source) in &self.parts.sources {
            let open = all.iter().filter(|b| b.config.enabled && b.config.kind() == *kind);
            source.bind(&open.cloned().collect::<Vec<_>>());
        }
        for (kind, maker) in &self.parts.makers {
            maker.bind(&all.iter().filter(|b| b.config.kind() == *kind).cloned().collect::<Vec<_>>());
        }
        self.wanted.send_replace(Arc::new(all));
    }

    /// How many events were handed in.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What waits, of every trigger that runs.
    pub fn lags(&self) -> Vec<(Binding, Lag)> {
        let running = self.running.lock();
        let triggers: Vec<_> = running.values().map(|r| (r.binding.clone(), Arc::clone(&r.trigger))).collect();
        drop(running);
        triggers.into_iter().map(|(binding, trigger)| (binding, trigger.lag())).collect()
    }

    /// Runs the triggers until `stop`, then until they have ended.
    pub async fn run(&self, stop: Shutdown) {
        let mut wanted = self.wanted.subscribe();
        wanted.mark_changed();
        loop {
            tokio::select! {
                biased;
                () = stop.triggered() => break,
                changed = wanted.changed() => if changed.is_err() { break },
            }
            let all = wanted.borrow_and_update().clone();
            self.reconcile(&all, &stop).await;
        }
        let running = std::mem::take(&mut *self.running.lock());
        end(running.into_values().collect()).await;
    }

    /// Ends what is no more, or is otherwise than before, and starts what is new.
    async fn reconcile(&self, all: &[Binding], stop: &Shutdown) {
        let open: HashMap<&str, &Binding> = all.iter().filter(|b| b.config.enabled).map(|b| (b.id(), b)).collect();
        let ending = {
            let mut running = self.running.lock();
            let stays = |id: &str, r: &Running| open.get(id).is_some_and(|b| **b == r.binding);
            let gone: Vec<String> = running.iter().filter(|(id, r)| !stays(id, r)).map(|(id, _)| id.clone()).collect();
            gone.iter().filter_map(|id| running.remove(id)).collect::<Vec<_>>()
        };
        end(ending).await;
        // A closed timer begins anew when it is opened: what it would have fired meanwhile is not wanted.
        if let Err(error) = self.parts.cursors.retain(|id| open.contains_key(id)).await {
            tracing::error!(%error, "cursors of triggers that are no more cannot be removed");
        }
        for (id, binding) in open {
            if self.running.lock().contains_key(id) {
                continue;
            }
            let trigger = match self.make(binding) {
                Ok(trigger) => trigger,
                Err(error) => {
                    tracing::error!(function = %binding.function, trigger = %binding.config.name, %error, "a trigger cannot be started");
                    continue;
                }
            };
            let stop = stop.child();
            let task = Some(tokio::spawn(keep_running(Arc::clone(&trigger), binding.clone(), stop.clone())));
            let running = Running { binding: binding.clone(), trigger, stop, task };
            self.running.lock().insert(id.to_owned(), running);
        }
    }

    fn make(&self, binding: &Binding) -> Result<Arc<dyn Trigger>, TriggerError> {
        let kind = binding.config.kind();
        if let Some(maker) = self.parts.makers.get(&kind) {
            return maker.make(binding, &self.counts);
        }
        let Parts { door, cursors, clock, sources, .. } = &self.parts;
        let (door, counts) = (Arc::clone(door), Arc::clone(&self.counts));
        Ok(match &binding.config.desc {
            TriggerDesc::Timer(desc) => {
                Arc::new(Timer::new(binding.clone(), desc, door, Arc::clone(cursors), Arc::clone(clock), counts)?)
            }
            TriggerDesc::Cos(_) | TriggerDesc::Cmq(_) | TriggerDesc::Ckafka(_) => {
                let source = sources.get(&kind);
                let source =
                    source.ok_or_else(|| TriggerError(format!("the platform runs without a source of {kind}")))?;
                Arc::new(FromSource::new(binding.clone(), Arc::clone(source), door, counts))
            }
        })
    }
}

/// Runs a trigger until it is told to stop, again and again if it fails.
async fn keep_running(trigger: Arc<dyn Trigger>, binding: Binding, stop: Shutdown) {
    let mut failures = 0;
    while !stop.is_triggered() {
        let (running, own) = (Arc::clone(&trigger), stop.clone());
        // On a task of its own, so that a panic is a failure like another; in a set, so that it ends with this one.
        let mut alone = JoinSet::new();
        alone.spawn(async move { running.run(&own).await });
        let began = tokio::time::Instant::now();
        let error = match alone.join_next().await {
            Some(Ok(Ok(()))) | None if stop.is_triggered() => return,
            Some(Ok(Ok(()))) | None => "it ended of itself".to_owned(),
            Some(Ok(Err(error))) => error.to_string(),
            Some(Err(error)) => error.to_string(),
        };
        failures = if began.elapsed() > HEALTHY { 0 } else { failures + 1 };
        let Binding { namespace, function, config } = &binding;
        tracing::warn!(%namespace, %function, trigger = %config.name, kind = %config.kind(), error, "a trigger failed; it is started again");
        tokio::select! {
            () = crate::pause(failures) => {}
            () = stop.triggered() => return,
        }
    }
}

/// Tells all of them to stop, and waits until they have, or are made to.
async fn end(mut ending: Vec<Running>) {
    for running in &ending {
        running.stop.trigger();
    }
    for running in &mut ending {
        let Some(mut task) = running.task.take() else { continue };
        if tokio::time::timeout(STOP_PATIENCE, &mut task).await.is_err() {
            task.abort();
            let Binding { namespace, function, config } = &running.binding;
            tracing::warn!(%namespace, %function, trigger = %config.name, "a trigger did not stop in time");
        }
    }
}
