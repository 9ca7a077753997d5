//! Asynchronous events: which there are, how they fare, and their end before their time.
//!
//! What is not done is known from the index of pending events; what is done, from the log of invocations.

use super::common::{ascending, filled, find, namespace};
use super::logs::query;
use super::{Answer, Cx, Run};
use crate::api::requests::{GetAsyncEventStatus, ListAsyncEvents, TerminateAsyncEvent, TimeInterval};
use crate::api::time;
use crate::catalogue::{clip, no_version};
use crate::events::TerminateError;
use crate::ports::{LogFilter, LogOrder, LogStatus};
use async_trait::async_trait;
use mayfly_model::{ApiError, InvocationRecord, RequestId, Status, limits};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

const HOUR_MS: u64 = 3600 * 1000;

/// How an event fares, in the API's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fare {
    Running,
    Finished,
    Aborted,
    Failed,
}

impl Fare {
    const ALL: [Self; 4] = [Self::Running, Self::Finished, Self::Aborted, Self::Failed];

    fn name(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Finished => "FINISHED",
            Self::Aborted => "ABORTED",
            Self::Failed => "FAILED",
        }
    }

    /// Of an event whose last attempt ended so.
    fn ended(status: Status) -> Self {
        match status {
            Status::OK => Self::Finished,
            Status::CANCELED => Self::Aborted,
            _ => Self::Failed,
        }
    }
}

/// One event of a list.
struct Shown {
    id: RequestId,
    source: String,
    qualifier: String,
    fare: Fare,
    start_ms: u64,
    end_ms: Option<u64>,
}

impl Shown {
    fn of(record: InvocationRecord) -> Option<Self> {
        let end_ms = Some(record.end_ms());
        let event = record.event?;
        let (id, qualifier, fare) = (record.request_id, record.qualifier, Fare::ended(record.status));
        Some(Self { id, source: event.source, qualifier, fare, start_ms: event.accepted_ms, end_ms })
    }

    fn show(&self) -> Value {
        json!({
            "InvokeRequestId": self.id,
            "InvokeType": self.source,
            "Qualifier": self.qualifier,
            "Status": self.fare.name(),
            "StartTime": time::show_fraction(self.start_ms),
            "EndTime": self.end_ms.map(time::show_fraction).unwrap_or_default(),
        })
    }
}

/// What the log has of events: of all, or of one.
fn records_of(namespace: String, function: Option<String>, id: Option<RequestId>, since_ms: u64) -> LogFilter {
    LogFilter {
        namespace,
        function,
        version: None,
        request_id: id,
        status: LogStatus::Any,
        start_ms: since_ms,
        end_ms: u64::MAX,
        events_only: true,
        order_by: LogOrder::StartTime,
        ascending: false,
        offset: 0,
        limit: if id.is_some() { limits::PAGE_LIMIT_MAX } else { limits::LOG_QUERY_WINDOW_MAX },
    }
}

/// Times from the first on and before the second. Errors: `InvalidParameterValue.DateTime`, `InvalidParameterValue.StartTimeOrEndTime`.
fn interval(given: &Option<TimeInterval>, name: &str) -> Result<Option<(u64, u64)>, ApiError> {
    let Some(TimeInterval { start, end }) = given else { return Ok(None) };
    let read = |text: &str, part: &str| time::read_fraction(text, &format!("{name}.{part}"));
    let (start, end) = (read(start, "Start")?, read(end, "End")?);
    if end < start {
        let message = format!("`{name}.End` is before `{name}.Start`.");
        return Err(ApiError::new("InvalidParameterValue.StartTimeOrEndTime", message));
    }
    Ok(Some((start, end)))
}

/// `Offset` and `Limit`. Errors: `InvalidParameterValue.{Offset, Limit}`.
fn page(offset: Option<i64>, limit: Option<i64>) -> Result<(usize, usize), ApiError> {
    let offset = usize::try_from(offset.unwrap_or(0))
        .map_err(|_| ApiError::new("InvalidParameterValue.Offset", "`Offset` is negative."))?;
    let max = limits::PAGE_LIMIT_MAX;
    match limit.map_or(Ok(limits::PAGE_LIMIT_DEFAULT), u64::try_from) {
        Ok(limit) if limit <= max => Ok((offset, limit as usize)),
        _ => Err(ApiError::new("InvalidParameterValue.Limit", format!("`Limit` is 0 to {max}."))),
    }
}

/// Errors: `InvalidParameterValue.Status`.
fn fares(names: &Option<Vec<String>>) -> Result<Option<Vec<Fare>>, ApiError> {
    let read = |name: &String| {
        Fare::ALL.into_iter().find(|fare| fare.name().eq_ignore_ascii_case(name)).ok_or_else(|| {
            let message = format!("There is no status `{}`; it is RUNNING, FINISHED, ABORTED or FAILED.", clip(name));
            ApiError::new("InvalidParameterValue.Status", message)
        })
    };
    names.as_ref().filter(|names| !names.is_empty()).map(|names| names.iter().map(read).collect()).transpose()
}

#[async_trait]
impl Run for ListAsyncEvents {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let (namespace, name, entry) = find(cx.control, &self.namespace, &self.function_name)?;
        let qualifier = filled(&self.qualifier).map(str::to_owned);
        if let Some(qualifier) = &qualifier
            && entry.route(qualifier, &[], 0.0).is_none()
        {
            return Err(no_version("ResourceNotFound.Version", name.as_str(), qualifier));
        }
        let (offset, limit) = page(self.offset, self.limit)?;
        let fares = fares(&self.status)?;
        let sources = self.invoke_type.filter(|types| !types.is_empty());
        let started = interval(&self.start_time_interval, "StartTimeInterval")?;
        let ended = interval(&self.end_time_interval, "EndTimeInterval")?;
        let up = ascending(&self.order, false)?;
        let by_end = match filled(&self.orderby) {
            None => false,
            Some(by) if by.eq_ignore_ascii_case("StartTime") => false,
            Some(by) if by.eq_ignore_ascii_case("EndTime") => true,
            Some(by) => {
                let message = format!("`Orderby` is `{}`; it is StartTime or EndTime.", clip(by));
                return Err(ApiError::new("InvalidParameterValue.OrderBy", message));
            }
        };
        let wanted_id = match filled(&self.invoke_request_id).map(RequestId::parse) {
            None => None,
            // No event has such an id.
            Some(None) => return Ok(list(0, Vec::new())),
            Some(id) => id,
        };

        // Asked before the records: an event that ends in between is then in both, and shown once.
        let pending = cx.control.events.pending_of(namespace.as_str(), name.as_str());
        let mut since_ms = cx.now_ms.saturating_sub(limits::EVENT_STATUS_HOURS * HOUR_MS);
        if let Some((start, _)) = started {
            since_ms = since_ms.max(start);
        }
        let filter = records_of(namespace.to_string(), Some(name.to_string()), wanted_id, since_ms);
        let (_, records) = query(cx, filter).await?;
        let known: HashSet<RequestId> = pending.iter().map(|event| event.id).collect();
        let mut events: Vec<Shown> = pending
            .into_iter()
            .map(|event| Shown {
                id: event.id,
                source: event.source,
                qualifier: event.qualifier,
                fare: Fare::Running,
                start_ms: event.since_ms,
                end_ms: None,
            })
            .collect();
        events.extend(
            last_attempts(records).into_iter().filter(|r| !known.contains(&r.request_id)).filter_map(Shown::of),
        );
        let within = |span: Option<(u64, u64)>, ms: u64| span.is_none_or(|(start, end)| (start..end).contains(&ms));
        events.retain(|event| {
            wanted_id.is_none_or(|id| id == event.id)
                && qualifier.as_ref().is_none_or(|qualifier| *qualifier == event.qualifier)
                && fares.as_ref().is_none_or(|fares| fares.contains(&event.fare))
                && sources.as_ref().is_none_or(|sources| sources.iter().any(|s| s.eq_ignore_ascii_case(&event.source)))
                && within(started, event.start_ms)
                && (ended.is_none() || event.end_ms.is_some_and(|ms| within(ended, ms)))
        });
        // What has not ended comes after what has, whichever way the list goes.
        let key = |event: &Shown| match (by_end, event.end_ms) {
            (true, Some(ms)) => ms,
            (true, None) if up => u64::MAX,
            (true, None) => 0,
            (false, _) => event.start_ms,
        };
        events.sort_by(|a, b| {
            let order = (key(a), a.id).cmp(&(key(b), b.id));
            if up { order } else { order.reverse() }
        });
        let shown = events.iter().skip(offset).take(limit).map(Shown::show).collect();
        Ok(list(events.len(), shown))
    }
}

fn list(total: usize, events: Vec<Value>) -> Answer {
    Answer::from_iter([("TotalCount".to_owned(), json!(total)), ("EventList".to_owned(), Value::Array(events))])
}

/// The last attempt of each event.
fn last_attempts(records: Vec<InvocationRecord>) -> Vec<InvocationRecord> {
    let mut last: HashMap<RequestId, InvocationRecord> = HashMap::new();
    for record in records {
        let later = |old: &InvocationRecord| (record.retry, record.end_ms()) > (old.retry, old.end_ms());
        if last.get(&record.request_id).is_none_or(later) {
            last.insert(record.request_id, record);
        }
    }
    last.into_values().collect()
}

fn no_event(id: &str) -> ApiError {
    let message = format!("There is no asynchronous event `{}`, or its end was more than three days ago.", clip(id));
    ApiError::new("ResourceNotFound.AsyncEvent", message)
}

/// The last record of an event, of any namespace.
async fn ended(cx: Cx<'_>, id: RequestId) -> Result<Option<InvocationRecord>, ApiError> {
    let since_ms = cx.now_ms.saturating_sub(limits::EVENT_STATUS_HOURS * HOUR_MS);
    let mut found = Vec::new();
    for namespace in cx.control.catalogue.namespaces().keys() {
        found.extend(query(cx, records_of(namespace.to_string(), None, Some(id), since_ms)).await?.1);
    }
    Ok(last_attempts(found).pop())
}

#[async_trait]
impl Run for GetAsyncEventStatus {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let id = RequestId::parse(&self.invoke_request_id).ok_or_else(|| no_event(&self.invoke_request_id))?;
        let answer = |fare: Fare, code: u16| {
            let shown = json!({ "Status": fare.name(), "StatusCode": code, "InvokeRequestId": id });
            Answer::from_iter([("Result".to_owned(), shown)])
        };
        if cx.control.events.pending(id).is_some() {
            return Ok(answer(Fare::Running, 0));
        }
        let record = ended(cx, id).await?.ok_or_else(|| no_event(&self.invoke_request_id))?;
        Ok(answer(Fare::ended(record.status), record.status.0))
    }
}

#[async_trait]
impl Run for TerminateAsyncEvent {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        // The function may be gone already, and its events still wait.
        let (namespace, name) = (namespace(&self.namespace)?, self.function_name);
        let id = RequestId::parse(&self.invoke_request_id).ok_or_else(|| no_event(&self.invoke_request_id))?;
        let graceful = self.grace_shutdown.unwrap_or(false);
        match cx.control.events.terminate(namespace.as_str(), &name, id, graceful).await {
            Ok(()) => return Ok(Answer::new()),
            Err(TerminateError::Unsettled) => {
                return Err(ApiError::new(
                    "InternalError.System",
                    "The end of the event could not be stored in time; ask for its status, and terminate it again if it still runs.",
                ));
            }
            Err(TerminateError::NotPending) => {}
        }
        find(cx.control, &self.namespace, &name)?;
        let record = ended(cx, id).await?.filter(|r| r.namespace == namespace.as_str() && r.function == name);
        let record = record.ok_or_else(|| no_event(&self.invoke_request_id))?;
        let message = format!("The event has ended already: its status is {}.", Fare::ended(record.status).name());
        Err(ApiError::new("FailedOperation.AsyncEventStatus", message))
    }
}
