//! Events that triggers hand over.

use crate::control::Inner;
use crate::endings::{Cause, Ran, error_text};
use crate::events::Event;
use crate::ports::{InvokeRequest, LogFilter, LogOrder, LogStatus};
use bytes::Bytes;
use mayfly_model::{ApiError, FunctionRecord, InvokeOutcome, Lineage, RequestId, Status, TriggerConfig, limits};
use mayfly_plan::retry::{Tried, Verdict};
use serde_json::json;
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

/// A synchronous call of a trigger: it waits for the end, and decides itself whether to call again.
#[derive(Clone, Debug)]
pub struct TriggeredCall {
    /// Its id, the same for every attempt.
    pub id: RequestId,
    /// Namespace of the function.
    pub namespace: String,
    /// Name of the function.
    pub function: String,
    /// Version or alias.
    pub qualifier: String,
    /// What it comes from, as in [`Cause::source`].
    pub source: &'static str,
    /// The event: JSON text.
    pub event: Bytes,
    /// JSON text that is kept in the place of an event which is too large for any function, and says where it can be found.
    pub reference: String,
    /// When what it carries was first handed over, in milliseconds since the epoch.
    pub since_ms: u64,
    /// Attempts before this one that ended in a run error.
    pub run_errors: u32,
    /// Attempts before this one that were turned away.
    pub turned_away: u32,
    /// True when a run error of this attempt is the end: it is kept as a failure then, with its dead letter.
    pub last: bool,
}

/// How a trigger's call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallEnd {
    /// The function returned a value.
    Done,
    /// It failed.
    Failed(String),
    /// It was not called, or the platform broke down: the call is to be made again.
    Later(String),
    /// Nothing more is to be tried. It is kept as a failure, durably.
    GivenUp(String),
}

pub(crate) async fn call(control: &Inner, call: TriggeredCall) -> CallEnd {
    let random = crate::ids::random_unit();
    let resolved = control.catalogue.resolve(&call.namespace, &call.function, &call.qualifier, &[], random);
    let target = match resolved {
        Ok(target) => target,
        // An alias may come back, and a deleted function ends its triggers.
        Err(error) => return CallEnd::Later(error.message),
    };
    if target.spec.config.service.is_some() {
        return CallEnd::Later(format!("`{}` is an HTTP function, which takes no events", call.function));
    }
    let retry = call.run_errors.saturating_add(call.turned_away);
    let fits = call.event.len() <= limits::EVENT_SYNC_BYTES_MAX;
    let outcome = if !fits {
        too_large(&call)
    } else {
        let request = InvokeRequest {
            request_id: call.id,
            event: call.event.clone(),
            want_log: false,
            // What is given up is kept with its log; what is tried again has a record, as every attempt of an asynchronous event.
            log_failure: call.last,
            retry,
            event_mark: None,
            abort: None,
            origin: None,
            qualifier: call.qualifier.clone(),
            lineage: Lineage::default(),
        };
        control.invoker.invoke(&target, request).await
    };
    let status = outcome.status;
    let text = |outcome: &InvokeOutcome| error_text(&String::from_utf8_lossy(&outcome.body));
    if status.is_ok() {
        return CallEnd::Done;
    }
    if status.is_run_error() && !call.last {
        return CallEnd::Failed(text(&outcome));
    }
    // What somebody took back, or a version that went away meanwhile, is no fault of the event.
    let of_the_event = status.is_run_error() || matches!(status, Status::INVALID_EVENT | Status::REQUEST_TOO_LARGE);
    let why = text(&outcome);
    if !of_the_event {
        return CallEnd::Later(why);
    }
    let tried = Tried { run_errors: call.run_errors, platform_errors: call.turned_away };
    let event = Event {
        namespace: call.namespace,
        function: call.function,
        qualifier: call.qualifier,
        routing_key: Vec::new(),
        event: if fits { String::from_utf8_lossy(&call.event).into_owned() } else { call.reference },
        accepted_ms: call.since_ms,
        cause: Cause::of(call.source, Lineage::default()),
    };
    let ran = Ran { event: Arc::new(event), tried, target: Some(target), outcome };
    match control.endings.follow(call.id, Verdict::Finish, Some(ran)).await {
        Verdict::Finish => CallEnd::GivenUp(why),
        Verdict::Retry { .. } => CallEnd::Later("its failure cannot be kept".into()),
    }
}

/// A message that makes an event too large all by itself reaches no instance.
fn too_large(call: &TriggeredCall) -> InvokeOutcome {
    let (bytes, max) = (call.event.len(), limits::EVENT_SYNC_BYTES_MAX);
    let status = Status::REQUEST_TOO_LARGE;
    let document = json!({
        "errorCode": -1,
        "errorMessage": format!("The event has {bytes} bytes; the limit of a synchronous invocation is {max} bytes."),
        "requestId": call.id,
        "stackTrace": "",
        "statusCode": status.0,
    });
    InvokeOutcome {
        request_id: call.id,
        status,
        body: document.to_string().into_bytes(),
        duration_us: 0,
        memory_bytes: 0,
        cold_start: None,
        log: None,
    }
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
