//! Triggers, wired: events enter by the control API's door, and the engine follows its catalogue.

use crate::data::DataDir;
use anyhow::{Context, Result};
use async_trait::async_trait;
use mayfly_base::SystemClock;
use mayfly_control::{BoundTrigger, Control, TriggeredEvent};
use mayfly_model::{ApiError, TriggerKind};
use mayfly_observe::Metrics;
use mayfly_store::SqliteMeta;
use mayfly_triggers::{Binding, Cursors, Door, Engine, Handed, Maker, Parts, Refusal, Source};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Where triggers hand events in.
struct ControlDoor(Control);

/// What no later attempt will change: the function is gone, or takes no such event.
pub fn is_final(error: &ApiError) -> bool {
    error.code.starts_with("ResourceNotFound") || error.code.starts_with("InvalidParameter")
}

#[async_trait]
impl Door for ControlDoor {
    async fn hand(&self, event: Handed) -> Result<(), Refusal> {
        let event = TriggeredEvent {
            id: event.id,
            namespace: event.namespace,
            function: event.function,
            qualifier: event.qualifier,
            source: event.source.to_owned(),
            event: event.event,
            lineage: event.lineage,
            maybe_again: event.maybe_again,
        };
        self.0.accept_event(event).await.map_err(|error| match is_final(&error) {
            true => Refusal::Never(error.message),
            false => Refusal::Later(error.message),
        })
    }
}

/// The engine, with the cursors in the data directory. Its sources know of all triggers when this returns.
pub async fn engine(
    data: &DataDir,
    control: &Control,
    sources: HashMap<TriggerKind, Arc<dyn Source>>,
    makers: HashMap<TriggerKind, Arc<dyn Maker>>,
) -> Result<Arc<Engine>> {
    let store = SqliteMeta::open(&data.path("triggers.db")).await.context("open the cursors of triggers")?;
    let cursors = Cursors::open(Arc::new(store)).await.context("read the cursors of triggers")?;
    let door = Arc::new(ControlDoor(control.clone()));
    let engine = Engine::new(Parts { door, cursors: Arc::new(cursors), clock: Arc::new(SystemClock), sources, makers });
    engine.set(|| bindings(control));
    Ok(Arc::new(engine))
}

/// Every trigger of the catalogue.
pub fn bindings(control: &Control) -> Vec<Binding> {
    let binding = |BoundTrigger { namespace, function, config }| Binding { namespace, function, config };
    control.triggers().into_iter().map(binding).collect()
}

/// Brings the metrics of triggers up to date. `shown`: the functions that had some the last time.
pub fn measure(engine: &Engine, metrics: &Metrics, shown: &mut HashSet<(String, String)>) {
    let mut lags: HashMap<(String, String), (u64, u64)> = HashMap::new();
    for (binding, lag) in engine.lags() {
        let (events, oldest_ms) = lags.entry((binding.namespace, binding.function)).or_default();
        *events += lag.events;
        *oldest_ms = lag.oldest_ms.max(*oldest_ms);
    }
    for gone in shown.iter().filter(|key| !lags.contains_key(*key)) {
        metrics.function(&gone.0, &gone.1).set_trigger_lag(0, 0);
    }
    for ((namespace, function), (events, oldest_ms)) in &lags {
        metrics.function(namespace, function).set_trigger_lag(*events, *oldest_ms);
    }
    *shown = lags.into_keys().collect();
    let counts = engine.counts();
    metrics.set_trigger_events([
        ("handed", counts.handed()),
        ("postponed", counts.postponed()),
        ("dropped", counts.dropped()),
        ("missed", counts.missed()),
    ]);
}
