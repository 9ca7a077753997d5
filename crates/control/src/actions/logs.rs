//! Logs of invocations, and what became of one.

use super::common::{ascending, existing, filled, find, function_name, namespace, order_by};
use super::{Answer, Cx, Run};
use crate::api::requests::{GetFunctionLogs, GetRequestStatus};
use crate::api::time;
use crate::catalogue::{clip, no_namespace};
use crate::ports::{LogFilter, LogOrder, LogStatus};
use async_trait::async_trait;
use mayfly_model::{ApiError, InvocationRecord, RequestId, limits};
use serde_json::{Value, json};

const DAY_MS: u64 = 24 * 3600 * 1000;
const STATUS_WINDOW_MS: u64 = 15 * 60 * 1000;

/// Start and end of a query. Both or neither are given; `default_ms` before now is the start otherwise.
/// Errors: `InvalidParameterValue.StartTimeOrEndTime`, `InvalidParameterValue.DateTime`.
fn window(
    start: &Option<String>,
    end: &Option<String>,
    default_ms: u64,
    now_ms: u64,
) -> Result<Option<(u64, u64)>, ApiError> {
    let bad = |message: &str| Err(ApiError::new("InvalidParameterValue.StartTimeOrEndTime", message));
    match (filled(start), filled(end)) {
        (None, None) => Ok((default_ms > 0).then(|| (now_ms.saturating_sub(default_ms), u64::MAX))),
        (Some(start), Some(end)) => {
            // The times have seconds; the end includes its own second.
            let (start, end) = (time::read(start, "StartTime")?, time::read(end, "EndTime")?.saturating_add(999));
            if end < start {
                return bad("`EndTime` is before `StartTime`.");
            }
            Ok(Some((start, end)))
        }
        _ => bad("`StartTime` and `EndTime` are needed together."),
    }
}

pub(crate) async fn query(cx: Cx<'_>, filter: LogFilter) -> Result<(u64, Vec<InvocationRecord>), ApiError> {
    cx.control.logs.query(filter).await.map_err(|error| {
        tracing::error!(%error, "log query failed");
        ApiError::new("InternalError.SearchFailed", "The logs could not be searched; see the server's log.")
    })
}

#[async_trait]
impl Run for GetFunctionLogs {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let namespace = namespace(&self.namespace)?;
        let function = filled(&self.function_name).map(function_name).transpose()?;
        let offset = u64::try_from(self.offset.unwrap_or(0))
            .map_err(|_| ApiError::new("InvalidParameterValue.Offset", "`Offset` is negative."))?;
        let limit = self.limit.map_or(Ok(limits::PAGE_LIMIT_DEFAULT), u64::try_from);
        let limit = limit.map_err(|_| ApiError::new("InvalidParameterValue.Limit", "`Limit` is negative."))?;
        let max = limits::LOG_QUERY_WINDOW_MAX;
        if offset.saturating_add(limit) > max {
            let message = format!("`Offset` and `Limit` are more than {max} together.");
            return Err(ApiError::new("LimitExceeded.Offset", message));
        }
        let up = ascending(&self.order, false)?;
        let by = order_by(&self.order_by, &["start_time", "function_name", "duration", "mem_usage"], "start_time")?;
        let order_by = match by {
            "function_name" => LogOrder::Function,
            "duration" => LogOrder::Duration,
            "mem_usage" => LogOrder::Memory,
            _ => LogOrder::StartTime,
        };
        let status = status(filled(&self.filter.unwrap_or_default().ret_code))?;
        let times = window(&self.start_time, &self.end_time, DAY_MS, cx.now_ms)?;
        let (start_ms, end_ms) = times.unwrap_or((0, u64::MAX));
        if filled(&self.start_time).is_some() && end_ms - start_ms > DAY_MS + 999 {
            let message = "`StartTime` and `EndTime` are more than a day apart.";
            return Err(ApiError::new("InvalidParameterValue.StartTimeOrEndTime", message));
        }
        let request_id = match filled(&self.function_request_id) {
            Some(text) => match RequestId::parse(text) {
                Some(id) => Some(id),
                // No invocation has such an id.
                None => return Ok(page(0, Value::Array(Vec::new()))),
            },
            None => None,
        };
        match &function {
            Some(name) => drop(existing(&cx.control.catalogue, &namespace, name)?),
            None if !cx.control.catalogue.namespaces().contains_key(&namespace) => {
                return Err(no_namespace(namespace.as_str()));
            }
            None => {}
        }
        let filter = LogFilter {
            namespace: namespace.into(),
            function: function.map(Into::into),
            version: filled(&self.qualifier).map(str::to_owned),
            request_id,
            status,
            start_ms,
            end_ms,
            events_only: false,
            order_by,
            ascending: up,
            offset,
            limit,
        };
        let (total, records) = query(cx, filter).await?;
        Ok(page(total, records.iter().map(log).collect()))
    }
}

fn page(total: u64, data: Value) -> Answer {
    Answer::from_iter([("TotalCount".to_owned(), json!(total)), ("Data".to_owned(), data)])
}

/// `Filter.RetCode`. Errors: `InvalidParameterValue.RetCode`.
fn status(text: Option<&str>) -> Result<LogStatus, ApiError> {
    Ok(match text {
        None => LogStatus::Any,
        Some("is0") => LogStatus::Ok,
        Some("not0") => LogStatus::Failed,
        Some("TimeLimitExceeded") => LogStatus::TimeLimit,
        Some("ResourceLimitExceeded") => LogStatus::ResourceLimit,
        Some("UserCodeException") => LogStatus::UserException,
        Some(other) => {
            let message = format!(
                "`Filter.RetCode` is `{}`; it is not0, is0, TimeLimitExceeded, ResourceLimitExceeded or UserCodeException.",
                clip(other)
            );
            return Err(ApiError::new("InvalidParameterValue.RetCode", message));
        }
    })
}

/// A record as GetFunctionLogs shows it. `RetCode` is 0 for a success, else the status code of the invocation.
fn log(record: &InvocationRecord) -> Value {
    json!({
        "FunctionName": record.function,
        "RequestId": record.request_id,
        "StartTime": time::show(record.start_ms),
        "RetMsg": record.ret_msg,
        "RetCode": if record.status.is_failure() { record.status.0 } else { 0 },
        "InvokeFinished": 1,
        "Duration": record.duration_us as f64 / 1000.0,
        "BillDuration": record.duration_us.div_ceil(1000),
        "MemUsage": record.memory_bytes,
        "Log": record.render(),
        "Level": if record.status.is_failure() { "ERROR" } else { "INFO" },
        "Source": "scf",
        "RetryNum": record.retry,
    })
}

#[async_trait]
impl Run for GetRequestStatus {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let (namespace, name, _) = find(cx.control, &self.namespace, &self.function_name)?;
        let times = window(&self.start_time, &self.end_time, STATUS_WINDOW_MS, cx.now_ms)?;
        let (start_ms, end_ms) = times.unwrap_or((0, u64::MAX));
        let Some(request_id) = RequestId::parse(&self.function_request_id) else {
            return Ok(page(0, Value::Array(Vec::new())));
        };
        // Asked before the records: an event that ends in between is then shown twice rather than not at all, and the doubled attempt is dropped below.
        let pending = cx.control.events.pending(request_id);
        let filter = LogFilter {
            namespace: namespace.to_string(),
            function: Some(name.to_string()),
            version: None,
            request_id: Some(request_id),
            status: LogStatus::Any,
            start_ms,
            end_ms,
            events_only: false,
            order_by: LogOrder::StartTime,
            ascending: true,
            offset: 0,
            limit: limits::PAGE_LIMIT_MAX,
        };
        let (_, records) = query(cx, filter).await?;
        let mut data: Vec<Value> = records.iter().map(attempt).collect();
        if let Some(pending) = pending.filter(|p| p.namespace == namespace.as_str() && p.function == name.as_str())
            && !records.iter().any(|r| r.retry >= pending.retry)
        {
            data.push(json!({
                "FunctionName": name,
                "RequestId": request_id,
                "StartTime": time::show(pending.since_ms),
                "RetMsg": "",
                "RetCode": 1,
                "Duration": 0.0,
                "MemUsage": 0.0,
                "RetryNum": pending.retry,
            }));
        }
        Ok(page(data.len() as u64, Value::Array(data)))
    }
}

fn attempt(record: &InvocationRecord) -> Value {
    json!({
        "FunctionName": record.function,
        "RequestId": record.request_id,
        "StartTime": time::show(record.start_ms),
        "RetMsg": record.ret_msg,
        "RetCode": if record.status.is_ok() { 0 } else { -1 },
        "Duration": record.duration_us as f64 / 1000.0,
        // Megabytes here, bytes in GetFunctionLogs: so is SCF's model.
        "MemUsage": record.memory_bytes as f64 / 1_048_576.0,
        "RetryNum": record.retry,
    })
}
