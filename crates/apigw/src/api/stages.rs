//! Releases, environments, and how many requests they take.

use super::{Answer, Cx, Fields, RATE_MAX, answer, random_text, rate, stage, time};
use crate::records::{ApiRecord, ReleaseRecord, ServiceRecord, Stage, StageRecord};
use crate::state::{Edit, State, clip};
use mayfly_model::ApiError;
use serde_json::{Value, json};

/// A name for a release, later than all before.
fn new_version(now_ms: u64) -> String {
    let at = i64::try_from(now_ms).ok().and_then(chrono::DateTime::from_timestamp_millis).unwrap_or_default();
    format!("{}{}", at.format("%Y%m%d%H%M%S%3f"), random_text(6))
}

/// What puts `apis` into an environment of a service, as a new release. `record` is the service as it is to be otherwise.
pub fn publish(
    mut record: ServiceRecord,
    stage: Stage,
    description: String,
    apis: Vec<ApiRecord>,
    now_ms: u64,
) -> (Vec<Edit>, String) {
    let version = new_version(now_ms);
    let release = ReleaseRecord {
        service: record.id.clone(),
        version: version.clone(),
        stage,
        description,
        time_ms: now_ms,
        apis,
    };
    record.stages.insert(stage, StageRecord { version: version.clone(), since_ms: now_ms });
    record.modified_ms = now_ms;
    (vec![Edit::Release(release), Edit::Service(record)], version)
}

/// What an environment serves now, without what was deleted since.
pub fn serving(state: &State, record: &ServiceRecord, stage: Stage) -> Vec<ApiRecord> {
    let Some(release) = state.released(record, stage) else { return Vec::new() };
    release.apis.iter().filter(|api| state.apis.contains_key(&api.id)).cloned().collect()
}

/// Puts these APIs, as they are now, over what an environment serves.
pub fn laid_over(mut apis: Vec<ApiRecord>, new: Vec<ApiRecord>) -> Vec<ApiRecord> {
    apis.retain(|api| new.iter().all(|n| n.id != api.id));
    apis.extend(new);
    apis
}

pub async fn release(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let (id, stage) = (fields.text("ServiceId")?, stage(&fields.text("EnvironmentName")?)?);
    let description = fields.free_text("ReleaseDesc", 1000)?;
    let ids = fields.texts("ApiIds")?;
    let shown = description.clone();
    let version = cx
        .gateway
        .change(move |state| {
            let record = ServiceRecord::clone(state.service(&id)?);
            let apis = match ids.is_empty() {
                true => state.apis_of(&id).map(|api| ApiRecord::clone(api)).collect(),
                false => {
                    let mut new = Vec::new();
                    for api in &ids {
                        new.push(ApiRecord::clone(state.api(&id, api)?));
                    }
                    laid_over(serving(state, &record, stage), new)
                }
            };
            if apis.is_empty() {
                let message = "The service has no APIs; create one first.";
                return Err(ApiError::new("FailedOperation.ServiceError", message));
            }
            Ok(publish(record, stage, description, apis, cx.now_ms))
        })
        .await?;
    Ok(answer(json!({ "Result": { "ReleaseDesc": shown, "ReleaseVersion": version } })))
}

pub async fn unrelease(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let (id, stage) = (fields.text("ServiceId")?, stage(&fields.text("EnvironmentName")?)?);
    let ids = fields.texts("ApiIds")?;
    cx.gateway
        .change(move |state| {
            let mut record = ServiceRecord::clone(state.service(&id)?);
            if !record.stages.contains_key(&stage) {
                let message = format!("Nothing of the service is released in `{stage}`.");
                return Err(ApiError::new("InvalidParameterValue.InvalidEnvStatus", message));
            }
            let mut left = match ids.is_empty() {
                true => Vec::new(),
                false => serving(state, &record, stage),
            };
            for api in &ids {
                state.api(&id, api)?;
            }
            left.retain(|api| !ids.contains(&api.id));
            if left.is_empty() {
                record.stages.remove(&stage);
                record.modified_ms = cx.now_ms;
                return Ok((vec![Edit::Service(record)], ()));
            }
            let (edits, _) = publish(record, stage, String::new(), left, cx.now_ms);
            Ok((edits, ()))
        })
        .await?;
    Ok(answer(json!({ "Result": true })))
}

pub async fn switch(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let (id, stage) = (fields.text("ServiceId")?, stage(&fields.text("EnvironmentName")?)?);
    let version = fields.text("VersionName")?;
    fields.free_text("UpdateDesc", 1000)?;
    cx.gateway
        .change(move |state| {
            let mut record = ServiceRecord::clone(state.service(&id)?);
            if !state.releases.contains_key(&(id.clone(), version.clone())) {
                let message = format!(
                    "The service has no release `{}`; DescribeServiceReleaseVersion lists those that are kept.",
                    clip(&version)
                );
                return Err(ApiError::new("InvalidParameterValue.ParameterNotMatch", message));
            }
            record.stages.insert(stage, StageRecord { version, since_ms: cx.now_ms });
            record.modified_ms = cx.now_ms;
            Ok((vec![Edit::Service(record)], ()))
        })
        .await?;
    Ok(answer(json!({ "Result": true })))
}

/// The URL of an environment.
fn url(cx: Cx<'_>, record: &ServiceRecord, stage: Stage) -> String {
    format!("{}/{stage}", cx.sub_domain(&record.id))
}

pub async fn environments(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let state = cx.gateway.state();
    let record = state.service(&fields.text("ServiceId")?)?;
    let show = |stage: &Stage| {
        let released = record.stages.get(stage);
        json!({
            "EnvironmentName": stage, "Url": url(cx, record, *stage), "Status": i32::from(released.is_some()),
            "VersionName": released.map_or("", |s| s.version.as_str()),
            "CreateTime": released.map_or(String::new(), |s| time(s.since_ms)),
        })
    };
    let page: Vec<Value> = Stage::ALL[fields.page(Stage::ALL.len())?].iter().map(show).collect();
    Ok(answer(json!({ "Result": { "TotalCount": Stage::ALL.len(), "EnvironmentList": page } })))
}

fn releases<'a>(state: &'a State, service: &str, of: Option<Stage>) -> Vec<&'a ReleaseRecord> {
    let wanted = state.releases.values().filter(|r| r.service == service && of.is_none_or(|stage| r.stage == stage));
    let mut found: Vec<&ReleaseRecord> = wanted.map(|r| &**r).collect();
    found.sort_by(|a, b| b.version.cmp(&a.version));
    found
}

pub async fn versions(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let state = cx.gateway.state();
    let found = releases(&state, &state.service(&fields.text("ServiceId")?)?.id, None);
    let show = |r: &&ReleaseRecord| json!({ "VersionName": r.version, "VersionDesc": r.description });
    let page: Vec<Value> = found[fields.page(found.len())?].iter().map(show).collect();
    Ok(answer(json!({ "Result": { "TotalCount": found.len(), "VersionList": page } })))
}

pub async fn history(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let state = cx.gateway.state();
    let stage = stage(&fields.text("EnvironmentName")?)?;
    let found = releases(&state, &state.service(&fields.text("ServiceId")?)?.id, Some(stage));
    let show = |r: &&ReleaseRecord| json!({ "VersionName": r.version, "VersionDesc": r.description, "ReleaseTime": time(r.time_ms) });
    let page: Vec<Value> = found[fields.page(found.len())?].iter().map(show).collect();
    Ok(answer(json!({ "Result": { "TotalCount": found.len(), "VersionList": page } })))
}

fn limit(fields: Fields<'_>) -> Result<Option<u32>, ApiError> {
    rate("Strategy", fields.number("Strategy")?.ok_or_else(|| ApiError::missing("Strategy"))?)
}

pub async fn limit_service(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let (id, limit) = (fields.text("ServiceId")?, limit(fields)?);
    let names = fields.texts("EnvironmentNames")?;
    let stages = names.iter().map(|name| stage(name)).collect::<Result<Vec<_>, _>>()?;
    if stages.is_empty() {
        return Err(ApiError::missing("EnvironmentNames"));
    }
    cx.gateway
        .change(move |state| {
            let mut record = ServiceRecord::clone(state.service(&id)?);
            for stage in stages {
                match limit {
                    Some(limit) => drop(record.limits.insert(stage, limit)),
                    None => drop(record.limits.remove(&stage)),
                }
            }
            record.modified_ms = cx.now_ms;
            Ok((vec![Edit::Service(record)], ()))
        })
        .await?;
    Ok(answer(json!({ "Result": true })))
}

fn shown_limit(limit: Option<&u32>) -> i64 {
    limit.map_or(-1, |l| i64::from(*l))
}

pub async fn service_limits(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let state = cx.gateway.state();
    let record = state.service(&fields.text("ServiceId")?)?;
    let show = |stage: &Stage| {
        let released = record.stages.get(stage);
        json!({
            "EnvironmentName": stage, "Url": url(cx, record, *stage), "Status": i32::from(released.is_some()),
            "VersionName": released.map_or("", |s| s.version.as_str()),
            "Strategy": shown_limit(record.limits.get(stage)), "MaxStrategy": RATE_MAX,
        })
    };
    let page: Vec<Value> = Stage::ALL[fields.page(Stage::ALL.len())?].iter().map(show).collect();
    Ok(answer(json!({ "Result": { "TotalCount": Stage::ALL.len(), "EnvironmentList": page } })))
}

pub async fn limit_apis(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let (service, limit) = (fields.text("ServiceId")?, limit(fields)?);
    let (stage, ids) = (stage(&fields.text("EnvironmentName")?)?, fields.texts("ApiIds")?);
    if ids.is_empty() {
        return Err(ApiError::missing("ApiIds"));
    }
    cx.gateway
        .change(move |state| {
            state.service(&service)?;
            let mut edits = Vec::new();
            for id in &ids {
                let mut api = ApiRecord::clone(state.api(&service, id)?);
                match limit {
                    Some(limit) => drop(api.limits.insert(stage, limit)),
                    None => drop(api.limits.remove(&stage)),
                }
                edits.push(Edit::Api(Box::new(api)));
            }
            Ok((edits, ()))
        })
        .await?;
    Ok(answer(json!({ "Result": true })))
}

pub async fn api_limits(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let state = cx.gateway.state();
    let service = state.service(&fields.text("ServiceId")?)?;
    let only = fields.text_or("ApiId")?;
    let names = fields.texts("EnvironmentNames")?;
    let stages = names.iter().map(|name| stage(name)).collect::<Result<Vec<_>, _>>()?;
    let stages = if stages.is_empty() { Stage::ALL.to_vec() } else { stages };
    let found: Vec<_> = state.apis_of(&service.id).filter(|api| only.as_ref().is_none_or(|id| api.id == *id)).collect();
    let show = |api: &&std::sync::Arc<ApiRecord>| {
        let quotas: Vec<Value> = stages
            .iter()
            .map(|stage| json!({ "EnvironmentName": stage, "Quota": shown_limit(api.limits.get(stage)), "MaxQuota": RATE_MAX }))
            .collect();
        json!({
            "ApiId": api.id, "ApiName": api.name, "Path": api.path, "Method": api.method,
            "EnvironmentStrategySet": quotas,
        })
    };
    let page: Vec<Value> = found[fields.page(found.len())?].iter().map(show).collect();
    Ok(answer(json!({ "Result": { "TotalCount": found.len(), "ApiEnvironmentStrategySet": page } })))
}
