//! Failures: listing, showing, forgetting, running again.

use super::common::{Page, ascending, filled, function_name, namespace};
use super::{Answer, Cx, Run};
use crate::api::requests::{
    CancelReplayJob, DeleteFailures, FailureFilter, GetFailure, GetReplayJob, ListFailures, ListReplayJobs,
    ReplayFailures,
};
use crate::api::time;
use crate::catalogue::{clip, no_version};
use crate::endings::Scene;
use crate::replays::ReplaySpec;
use async_trait::async_trait;
use mayfly_model::{ApiError, RequestId, limits};
use mayfly_store::StoreError;
use mayfly_store::failures::{FailureHead, FailureQuery, JobStage, NewJob, Replay, ReplayJob, ReplayState};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Most ids in a filter.
const IDS_MAX: usize = 1000;
/// Failures that a dry run lists, and whose functions are looked at for a qualifier.
const SHOWN_MAX: usize = 100;
/// Largest rate of a job, in replays a second.
const RATE_MAX: u32 = 10_000;
/// Longest client token, in characters.
const TOKEN_CHARS_MAX: usize = 64;

fn failed(error: StoreError) -> ApiError {
    match error {
        StoreError::Full(why) => ApiError::new("LimitExceeded", format!("Not now: {why}. Try again later.")),
        error => {
            tracing::error!(%error, "the failure store failed");
            ApiError::new(
                "InternalError.System",
                "The platform could not use its store of failures; see the server's log.",
            )
        }
    }
}

/// A filter and whether it says anything. Errors: `InvalidParameterValue` and its kin, naming the field.
fn query(filter: Option<FailureFilter>) -> Result<(FailureQuery, bool), ApiError> {
    let filter = filter.unwrap_or_default();
    let ids = filter.request_ids.unwrap_or_default();
    if ids.len() > IDS_MAX {
        return Err(ApiError::invalid(format!(
            "`Filter.RequestIds` has {} ids; at most {IDS_MAX} are taken.",
            ids.len()
        )));
    }
    let ids = ids.iter().map(|id| request_id(id, "Filter.RequestIds")).collect::<Result<Vec<_>, _>>()?;
    let given_namespace = filled(&filter.namespace).map(|_| namespace(&filter.namespace)).transpose()?;
    let function = filled(&filter.function_name).map(function_name).transpose()?;
    let status = filter
        .status_code
        .map(|code| {
            let code = u16::try_from(code).ok().filter(|c| (100..1000).contains(c));
            code.ok_or_else(|| ApiError::invalid("`Filter.StatusCode` is no status; one is 430, for example."))
        })
        .transpose()?;
    let at = |text: &Option<String>, name: &str| filled(text).map(|text| time::read(text, name)).transpose();
    let query = FailureQuery {
        origins_only: ids.is_empty() && !filter.replays.unwrap_or(false),
        ids,
        // A function is meant in one namespace, as everywhere.
        namespace: given_namespace
            .or_else(|| function.is_some().then(mayfly_model::NamespaceName::default_namespace))
            .map(Into::into),
        function: function.map(Into::into),
        version: filled(&filter.version).map(str::to_owned),
        source: filled(&filter.source).map(str::to_owned),
        text: filled(&filter.error).map(str::to_owned),
        status,
        from_ms: at(&filter.start_time, "Filter.StartTime")?,
        // The times have seconds; the end includes its own second.
        to_ms: at(&filter.end_time, "Filter.EndTime")?.map(|ms| ms.saturating_add(999)),
        resolved: filter.resolved,
        idle_only: false,
    };
    let nothing = FailureQuery { origins_only: query.origins_only, ..FailureQuery::default() };
    let says_something = query != nothing;
    Ok((query, says_something))
}

/// Refuses to take everything by oversight.
fn check_meant(says_something: bool, all: Option<bool>) -> Result<(), ApiError> {
    match says_something || all == Some(true) {
        true => Ok(()),
        false => {
            Err(ApiError::new("MissingParameter", "`Filter` says nothing. Say which failures are meant, or set `All`."))
        }
    }
}

fn request_id(text: &str, field: &str) -> Result<RequestId, ApiError> {
    RequestId::parse(text.trim()).ok_or_else(|| ApiError::invalid(format!("`{field}`: `{}` is not an id.", clip(text))))
}

fn list_of(heads: &[FailureHead]) -> Value {
    heads.iter().map(|head| Value::Object(show(head))).collect()
}

fn show(head: &FailureHead) -> Answer {
    let shown = json!({
        "FunctionRequestId": head.id,
        "Namespace": head.namespace,
        "FunctionName": head.function,
        "Qualifier": head.qualifier,
        "Version": head.version,
        "Source": head.source,
        "StatusCode": head.status,
        "ErrorMessage": head.error,
        "AcceptedTime": time::show(head.accepted_ms),
        "FailedTime": time::show(head.failed_ms),
        "Origin": head.origin.map(|id| id.to_string()).unwrap_or_default(),
        "ResolvedBy": head.resolved_by.map(|id| id.to_string()).unwrap_or_default(),
        "Note": head.note,
    });
    match shown {
        Value::Object(fields) => fields,
        _ => Answer::new(),
    }
}

#[async_trait]
impl Run for ListFailures {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let (query, _) = query(self.filter)?;
        let up = ascending(&self.order, false)?;
        let limit = Page::read(None, self.limit)?.of(usize::MAX).len();
        let after = filled(&self.cursor)
            .map(|text| {
                text.parse::<u64>().map_err(|_| ApiError::invalid("`Cursor` is not one that this platform has given."))
            })
            .transpose()?;
        let page = cx.control.failures.list(&query, after, up, limit).await.map_err(failed)?;
        let next = page.heads.last().filter(|_| page.heads.len() == limit).map(|h| h.seq.to_string());
        Ok(Answer::from_iter([
            ("Failures".to_owned(), list_of(&page.heads)),
            ("TotalCount".to_owned(), json!(page.total)),
            ("NextCursor".to_owned(), json!(next.unwrap_or_default())),
        ]))
    }
}

fn show_replay(replay: &Replay) -> Value {
    json!({
        "FunctionRequestId": replay.id,
        "JobId": replay.job,
        "State": match replay.state {
            ReplayState::Planned | ReplayState::Accepted => "running",
            ReplayState::Succeeded => "succeeded",
            ReplayState::Failed => "failed",
            ReplayState::Cancelled => "cancelled",
        },
        "StatusCode": replay.status,
        "StartTime": time::show(replay.planned_ms),
        "EndTime": if replay.ended_ms == 0 { String::new() } else { time::show(replay.ended_ms) },
    })
}

#[async_trait]
impl Run for GetFailure {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let id = request_id(&self.request_id, "FunctionRequestId")?;
        let failure = cx.control.failures.get(id).await.map_err(failed)?.ok_or_else(|| no_failure(id))?;
        let replays = cx.control.failures.replays_of(id).await.map_err(failed)?;
        let scene: Scene = serde_json::from_slice(&failure.scene).unwrap_or_default();
        let mut shown = show(&failure.head);
        let cold = scene.cold_start.map(|cold| {
            json!({
                "Reason": cold.reason.as_str(),
                "Kind": cold.kind.as_str(),
                "PullCode": cold.phases.pull_code_us as f64 / 1000.0,
                "InitRuntime": cold.phases.init_runtime_us as f64 / 1000.0,
                "InitFunction": cold.phases.init_function_us as f64 / 1000.0,
                "Total": cold.total_us as f64 / 1000.0,
            })
        });
        let more = json!({
            "Event": String::from_utf8_lossy(&failure.event),
            "EnvironmentNames": scene.environment,
            "RetMsg": scene.result,
            "RetMsgCutBytes": scene.result_cut_bytes,
            "Log": scene.log,
            "LogCutBytes": scene.log_cut_bytes,
            "Duration": scene.duration_us as f64 / 1000.0,
            "MemorySize": scene.memory_mb,
            "MemUsage": scene.memory_bytes,
            "ColdStart": cold,
            "RetryNum": scene.retries,
            "ExpireTime": time::show(failure.expires_ms),
            "Replays": replays.iter().map(show_replay).collect::<Value>(),
        });
        if let Value::Object(more) = more {
            shown.extend(more);
        }
        Ok(shown)
    }
}

fn no_failure(id: RequestId) -> ApiError {
    let message = format!("No failure of request {id} is kept. It may have succeeded, or be past its time.");
    ApiError::new("ResourceNotFound", message)
}

#[async_trait]
impl Run for DeleteFailures {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let (query, says_something) = query(self.filter)?;
        check_meant(says_something, self.all)?;
        let count = cx.control.failures.delete(&query).await.map_err(failed)?;
        Ok(Answer::from_iter([("DeletedCount".to_owned(), json!(count))]))
    }
}

fn show_job(job: &ReplayJob) -> Value {
    let spec: ReplaySpec = serde_json::from_slice(&job.spec).unwrap_or_default();
    json!({
        "JobId": job.id,
        "ClientToken": job.token.clone().unwrap_or_default(),
        "State": match (job.stage, job.is_over()) {
            (JobStage::Sending, _) => "sending",
            (JobStage::Cancelled, _) => "cancelled",
            (JobStage::Sent, true) => "done",
            (JobStage::Sent, false) => "running",
        },
        "IsOver": job.is_over(),
        "Qualifier": spec.qualifier.unwrap_or_default(),
        "Rate": spec.rate,
        "CreateTime": time::show(job.created_ms),
        "Total": job.total,
        "Sent": job.sent,
        "Succeeded": job.succeeded,
        "Failed": job.failed,
    })
}

/// The event in place of others. Errors: `InvalidParameter.RequestTooLarge`, `InvalidParameterValue.Param`.
fn edited(text: Option<String>, query: &FailureQuery) -> Result<Option<String>, ApiError> {
    let Some(text) = text.filter(|text| !text.trim_ascii().is_empty()) else { return Ok(None) };
    if query.ids.len() != 1 {
        return Err(ApiError::invalid(
            "`Event` is for one failure; give its id, and no other, in `Filter.RequestIds`.",
        ));
    }
    let max = limits::EVENT_ASYNC_BYTES_MAX;
    if text.len() > max {
        let message = format!("`Event` has {} bytes; the limit is {max}.", text.len());
        return Err(ApiError::new("InvalidParameter.RequestTooLarge", message));
    }
    match serde_json::from_str::<serde::de::IgnoredAny>(&text) {
        Ok(_) => Ok(Some(text)),
        Err(e) => Err(ApiError::new("InvalidParameterValue.Param", format!("`Event` is not valid JSON: {e}."))),
    }
}

#[async_trait]
impl Run for ReplayFailures {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let (mut query, says_something) = query(self.filter)?;
        check_meant(says_something, self.all)?;
        let event = edited(self.event, &query)?;
        let rate = self.rate.map_or(Ok(0), u32::try_from).ok().filter(|r| *r <= RATE_MAX);
        let rate = rate.ok_or_else(|| ApiError::invalid(format!("`Rate` is a number from 0 to {RATE_MAX}.")))?;
        let token = filled(&self.client_token).map(str::to_owned);
        if token.as_ref().is_some_and(|t| t.chars().count() > TOKEN_CHARS_MAX) {
            return Err(ApiError::invalid(format!("`ClientToken` has more than {TOKEN_CHARS_MAX} characters.")));
        }
        if self.again != Some(true) {
            query.resolved = query.resolved.or(Some(false));
            query.idle_only = true;
        }
        let qualifier = filled(&self.qualifier).map(str::to_owned);
        let dry_run = self.dry_run == Some(true);
        let first = cx.control.failures.list(&query, None, true, SHOWN_MAX).await.map_err(failed)?;
        if let Some(qualifier) = &qualifier {
            // A name that is mistyped must not fail them all once more.
            let functions: BTreeSet<_> =
                first.heads.iter().map(|h| (h.namespace.as_str(), h.function.as_str())).collect();
            for (namespace, function) in functions {
                if let Some(entry) = cx.control.catalogue.function(namespace, function)
                    && entry.route(qualifier, &[], 0.0).is_none()
                {
                    return Err(no_version("ResourceNotFound.FunctionVersion", function, qualifier));
                }
            }
        }
        if dry_run {
            return Ok(Answer::from_iter([
                ("TotalCount".to_owned(), json!(first.total)),
                ("Failures".to_owned(), list_of(&first.heads)),
            ]));
        }
        let spec = ReplaySpec { qualifier, event, rate };
        let spec = serde_json::to_vec(&spec).map_err(|_| ApiError::internal("The job could not be stored."))?;
        let new = NewJob { id: crate::ids::request_id(), token, spec, query, created_ms: cx.now_ms };
        let job = cx.control.failures.add_job(new.clone()).await.map_err(failed)?;
        if (&job.spec, &job.query) != (&new.spec, &new.query) {
            return Err(ApiError::new(
                "ResourceInUse",
                format!("`ClientToken` belongs to job {}, which was asked for otherwise; take another.", job.id),
            ));
        }
        cx.control.replays.added();
        Ok(Answer::from_iter([("JobId".to_owned(), json!(job.id)), ("Job".to_owned(), show_job(&job))]))
    }
}

#[async_trait]
impl Run for ListReplayJobs {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let page = Page::read(self.offset, self.limit)?;
        let jobs = cx.control.failures.jobs().await.map_err(failed)?;
        let shown: Value = jobs[page.of(jobs.len())].iter().map(show_job).collect();
        Ok(Answer::from_iter([("Jobs".to_owned(), shown), ("TotalCount".to_owned(), json!(jobs.len()))]))
    }
}

async fn job(cx: Cx<'_>, text: &str) -> Result<ReplayJob, ApiError> {
    let id = request_id(text, "JobId")?;
    let job = cx.control.failures.job(id).await.map_err(failed)?;
    job.ok_or_else(|| ApiError::new("ResourceNotFound", format!("There is no replay job {id}.")))
}

#[async_trait]
impl Run for GetReplayJob {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        Ok(Answer::from_iter([("Job".to_owned(), show_job(&job(cx, &self.job_id).await?))]))
    }
}

#[async_trait]
impl Run for CancelReplayJob {
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError> {
        let id = job(cx, &self.job_id).await?.id;
        cx.control.replays.cancel(id).await.map_err(failed)?;
        Ok(Answer::from_iter([("Job".to_owned(), show_job(&job(cx, &self.job_id).await?))]))
    }
}
