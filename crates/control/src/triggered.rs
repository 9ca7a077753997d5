//! Events that triggers hand over.

use crate::control::Inner;
use crate::endings::Cause;
use crate::events::Event;
use crate::ports::{LogFilter, LogOrder, LogStatus};
use mayfly_model::{ApiError, FunctionRecord, Lineage, RequestId, TriggerConfig};
use std::sync::Arc;

/// A trigger, and the function that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundTrigger {
    /// Namespace of the function.
    pub namespace: String,
    /// Name of the function.
    pub function: String,
    /// Its settings.
    pub config: Arc<TriggerConfig>,
}

impl BoundTrigger {
    /// Those of one function.
    pub(crate) fn of(record: &FunctionRecord) -> impl Iterator<Item = Self> + '_ {
        record.triggers.iter().map(|config| Self {
            namespace: record.namespace.to_string(),
            function: record.name.to_string(),
            config: Arc::new(config.clone()),
        })
    }
}

/// An event of a trigger.
#[derive(Clone, Debug)]
pub struct TriggeredEvent {
    /// Its id, the same each time that this event is handed over.
    pub id: RequestId,
    /// Namespace of the function.
    pub namespace: String,
    /// Name of the function.
    pub function: String,
    /// Version or alias.
    pub qualifier: String,
    /// What it comes from, as in [`Cause::source`].
    pub source: String,
    /// The event: JSON text.
    pub event: String,
    /// What made it, when that was an invocation.
    pub lineage: Lineage,
    /// True when it may have been handed over before, by a process that did not live to know: its id is then looked for.
    pub maybe_again: bool,
}

pub(crate) async fn accept(control: &Inner, event: TriggeredEvent) -> Result<(), ApiError> {
    let max = control.options.event_bytes_max;
    if event.event.len() > max {
        let message =
            format!("The event has {} bytes; the limit of an asynchronous invocation is {max}.", event.event.len());
        return Err(ApiError::new("InvalidParameter.RequestTooLarge", message));
    }
    let random = crate::ids::random_unit();
    let target = control.catalogue.resolve(&event.namespace, &event.function, &event.qualifier, &[], random)?;
    if target.spec.config.service.is_some() {
        let message = format!("`{}` is an HTTP function, which takes no events.", event.function);
        return Err(ApiError::new("InvalidParameterValue.FunctionType", message));
    }
    if control.events.pending(event.id).is_some() || (event.maybe_again && ran(control, &event).await?) {
        return Ok(());
    }
    let accepted = Event {
        namespace: event.namespace,
        function: event.function,
        qualifier: event.qualifier,
        routing_key: Vec::new(),
        event: event.event,
        cause: Cause::of(&event.source, event.lineage),
        accepted_ms: control.clock.now_ms(),
    };
    control.events.accept(event.id, accepted).await
}

/// True when a record tells that an event of this id has run.
async fn ran(control: &Inner, event: &TriggeredEvent) -> Result<bool, ApiError> {
    let filter = LogFilter {
        namespace: event.namespace.clone(),
        function: Some(event.function.clone()),
        version: None,
        request_id: Some(event.id),
        status: LogStatus::Any,
        start_ms: 0,
        end_ms: u64::MAX,
        order_by: LogOrder::StartTime,
        ascending: true,
        offset: 0,
        limit: 1,
        events_only: false,
    };
    match control.logs.query(filter).await {
        Ok((total, _)) => Ok(total > 0),
        Err(error) => {
            tracing::error!(%error, "the records of an event that may have been handed over before cannot be read");
            Err(ApiError::internal("The platform could not read its records; see the server's log."))
        }
    }
}
