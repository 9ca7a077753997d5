//! Usage plans: which keys may call what, and how often.

use super::fields::not_one_of;
use super::{Answer, Cx, Fields, PLAN_LINKS_MAX, PLANS_MAX, answer, check_name, new_id, rate, stage, time};
use crate::records::{Binding, PlanRecord};
use crate::state::{Edit, State};
use mayfly_model::ApiError;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Largest total of a plan. Source: `MaxRequestNum`.
const TOTAL_MAX: i64 = 99_999_999;

/// A limit as the API shows it: −1 for none.
pub fn shown(limit: Option<u32>) -> i64 {
    limit.map_or(-1, i64::from)
}

fn shown_total(total: Option<u64>) -> i64 {
    total.and_then(|t| i64::try_from(t).ok()).unwrap_or(-1)
}

fn total(fields: Fields<'_>) -> Result<Option<Option<u64>>, ApiError> {
    match fields.number("MaxRequestNum")? {
        None => Ok(None),
        Some(-1) => Ok(Some(None)),
        Some(number @ 1..=TOTAL_MAX) => Ok(Some(u64::try_from(number).ok())),
        Some(_) => {
            let message = format!("`MaxRequestNum` is -1 (no limit) or 1 to {TOTAL_MAX}.");
            Err(ApiError::new("InvalidParameterValue.InvalidMaxRequestNum", message))
        }
    }
}

fn per_second(fields: Fields<'_>) -> Result<Option<Option<u32>>, ApiError> {
    match fields.number("MaxRequestNumPreSec")? {
        None => Ok(None),
        Some(0) => rate("MaxRequestNumPreSec", -2).map(Some),
        Some(number) => rate("MaxRequestNumPreSec", number).map(Some),
    }
}

fn show(plan: &PlanRecord) -> Value {
    let bound = |b: &Binding| json!({ "EnvironmentName": b.stage, "ServiceId": b.service });
    json!({
        "UsagePlanId": plan.id, "UsagePlanName": plan.name, "UsagePlanDesc": plan.description,
        "MaxRequestNumPreSec": shown(plan.per_second), "MaxRequestNum": shown_total(plan.requests_max),
        "CreatedTime": time(plan.created_ms), "ModifiedTime": time(plan.modified_ms),
        "BindSecretIdTotalCount": plan.keys.len(), "BindSecretIds": plan.keys,
        "BindEnvironmentTotalCount": plan.bindings.len(),
        "BindEnvironments": plan.bindings.iter().map(bound).collect::<Vec<_>>(), "Tags": [],
    })
}

pub async fn create(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let name = fields.text("UsagePlanName")?;
    check_name("UsagePlanName", &name)?;
    let record = PlanRecord {
        id: new_id("usagePlan"),
        name,
        description: fields.free_text("UsagePlanDesc", 200)?,
        requests_max: total(fields)?.flatten(),
        per_second: per_second(fields)?.flatten(),
        keys: BTreeSet::new(),
        bindings: BTreeSet::new(),
        created_ms: cx.now_ms,
        modified_ms: cx.now_ms,
    };
    let shown = show(&record);
    cx.gateway
        .change(move |state| {
            if state.plans.len() >= PLANS_MAX {
                let message = format!("There are {PLANS_MAX} usage plans, which is the limit; delete one first.");
                return Err(ApiError::new("LimitExceeded.UsagePlanLimitExceeded", message));
            }
            Ok((vec![Edit::Plan(record)], ()))
        })
        .await?;
    Ok(answer(json!({ "Result": shown })))
}

pub async fn describe(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let state = cx.gateway.state();
    Ok(answer(json!({ "Result": show(state.plan(&fields.text("UsagePlanId")?)?) })))
}

pub async fn list(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let state = cx.gateway.state();
    let filters =
        fields.filters(&["UsagePlanId", "UsagePlanName", "NotServiceId", "NotApiId", "Environment", "KeyWord"])?;
    let passes = |plan: &PlanRecord| {
        filters.iter().all(|(name, values)| {
            values.iter().any(|value| match name.as_str() {
                "UsagePlanId" => plan.id == *value,
                "UsagePlanName" => plan.name.contains(value.as_str()),
                "NotServiceId" => !plan.bindings.iter().any(|b| b.service == *value && b.api.is_none()),
                "NotApiId" => !plan.bindings.iter().any(|b| b.api.as_ref() == Some(value)),
                "Environment" => plan.bindings.iter().any(|b| b.stage.as_str() == value),
                _ => plan.name.contains(value.as_str()) || plan.id.contains(value.as_str()),
            })
        })
    };
    let mut found: Vec<&Arc<PlanRecord>> = state.plans.values().filter(|plan| passes(plan)).collect();
    found.sort_by(|a, b| b.created_ms.cmp(&a.created_ms).then_with(|| a.id.cmp(&b.id)));
    let page: Vec<Value> = found[fields.page(found.len())?].iter().map(|plan| show(plan)).collect();
    Ok(answer(json!({ "Result": { "TotalCount": found.len(), "UsagePlanStatusSet": page } })))
}

/// Changes a plan, and returns how it is shown then.
async fn change(
    cx: Cx<'_>,
    id: String,
    edit: impl FnOnce(&State, &mut PlanRecord) -> Result<(), ApiError> + Send,
) -> Result<Value, ApiError> {
    cx.gateway
        .change(move |state| {
            let mut plan = PlanRecord::clone(state.plan(&id)?);
            edit(state, &mut plan)?;
            plan.modified_ms = cx.now_ms;
            let shown = show(&plan);
            Ok((vec![Edit::Plan(plan)], shown))
        })
        .await
}

pub async fn modify(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let name = fields.text_or("UsagePlanName")?;
    name.as_deref().map(|name| check_name("UsagePlanName", name)).transpose()?;
    let description = fields.text_or("UsagePlanDesc")?.map(|_| fields.free_text("UsagePlanDesc", 200)).transpose()?;
    let (total, per_second) = (total(fields)?, per_second(fields)?);
    let shown = change(cx, fields.text("UsagePlanId")?, move |_, plan| {
        plan.name = name.unwrap_or(std::mem::take(&mut plan.name));
        plan.description = description.unwrap_or(std::mem::take(&mut plan.description));
        plan.requests_max = total.unwrap_or(plan.requests_max);
        plan.per_second = per_second.unwrap_or(plan.per_second);
        Ok(())
    })
    .await?;
    Ok(answer(json!({ "Result": shown })))
}

pub async fn delete(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let id = fields.text("UsagePlanId")?;
    cx.gateway
        .change(move |state| {
            if !state.plan(&id)?.bindings.is_empty() {
                let message = "The usage plan is bound to environments; call UnBindEnvironment first.";
                return Err(ApiError::new("UnsupportedOperation.UsagePlanInUse", message));
            }
            Ok((vec![Edit::DropPlan(id)], ()))
        })
        .await?;
    Ok(answer(json!({ "Result": true })))
}

fn key_ids(fields: Fields<'_>) -> Result<Vec<String>, ApiError> {
    let ids = fields.texts("AccessKeyIds")?;
    if ids.is_empty() { Err(ApiError::missing("AccessKeyIds")) } else { Ok(ids) }
}

pub async fn bind_keys(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let ids = key_ids(fields)?;
    change(cx, fields.text("UsagePlanId")?, move |state, plan| {
        for id in &ids {
            state.key(id)?;
        }
        plan.keys.extend(ids);
        if plan.keys.len() > PLAN_LINKS_MAX {
            let message = format!("A usage plan has at most {PLAN_LINKS_MAX} keys.");
            return Err(ApiError::new("LimitExceeded.AccessKeyCountInUsagePlanLimitExceeded", message));
        }
        Ok(())
    })
    .await?;
    Ok(answer(json!({ "Result": true })))
}

pub async fn unbind_keys(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let ids = key_ids(fields)?;
    change(cx, fields.text("UsagePlanId")?, move |_, plan| {
        for id in &ids {
            if !plan.keys.remove(id) {
                let message = format!("The key `{}` is not bound to the usage plan.", crate::state::clip(id));
                return Err(ApiError::new("UnsupportedOperation.ResourceUnassociated", message));
            }
        }
        Ok(())
    })
    .await?;
    Ok(answer(json!({ "Result": true })))
}

/// What BindEnvironment and its opposite name: plans and bindings.
fn links(state: &State, fields: Fields<'_>) -> Result<(Vec<String>, Vec<Binding>), ApiError> {
    let plans = fields.texts("UsagePlanIds")?;
    if plans.is_empty() {
        return Err(ApiError::missing("UsagePlanIds"));
    }
    let (service, stage) = (fields.text("ServiceId")?, stage(&fields.text("Environment")?)?);
    state.service(&service)?;
    let apis = fields.texts("ApiIds")?;
    let bindings = match fields.text_or("BindType")?.as_deref() {
        None | Some("SERVICE") => vec![Binding { service, stage, api: None }],
        Some("API") if apis.is_empty() => return Err(ApiError::missing("ApiIds")),
        Some("API") => {
            let mut list = Vec::new();
            for api in apis {
                state.api(&service, &api)?;
                list.push(Binding { service: service.clone(), stage, api: Some(api) });
            }
            list
        }
        Some(other) => return Err(not_one_of("BindType", other, &["SERVICE", "API"])),
    };
    Ok((plans, bindings))
}

async fn relink(cx: Cx<'_>, fields: Fields<'_>, bind: bool) -> Result<Answer, ApiError> {
    cx.gateway
        .change(move |state| {
            let (plans, bindings) = links(state, fields)?;
            let mut edits = Vec::new();
            for id in &plans {
                let mut plan = PlanRecord::clone(state.plan(id)?);
                for binding in &bindings {
                    if bind {
                        plan.bindings.insert(binding.clone());
                    } else if !plan.bindings.remove(binding) {
                        let message = format!("The usage plan `{id}` is not bound there.");
                        return Err(ApiError::new("UnsupportedOperation.NoUsagePlanEnv", message));
                    }
                }
                if plan.bindings.len() > PLAN_LINKS_MAX {
                    let message = format!("A usage plan is bound to at most {PLAN_LINKS_MAX} environments.");
                    return Err(ApiError::new("LimitExceeded", message));
                }
                plan.modified_ms = cx.now_ms;
                edits.push(Edit::Plan(plan));
            }
            Ok((edits, ()))
        })
        .await?;
    Ok(answer(json!({ "Result": true })))
}

pub async fn bind(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    relink(cx, fields, true).await
}

pub async fn unbind(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    relink(cx, fields, false).await
}

/// A plan's binding as actions show it.
fn link(cx: Cx<'_>, state: &State, plan: &PlanRecord, binding: &Binding) -> Value {
    let api = binding.api.as_ref().and_then(|id| state.apis.get(id));
    json!({
        "ServiceId": binding.service,
        "ServiceName": state.services.get(&binding.service).map_or("", |s| s.name.as_str()),
        "ApiId": binding.api, "ApiName": api.map(|a| a.name.as_str()), "Path": api.map(|a| a.path.as_str()),
        "Method": api.map(|a| a.method.as_str()), "Environment": binding.stage,
        "UsagePlanId": plan.id, "UsagePlanName": plan.name, "UsagePlanDesc": plan.description,
        "InUseRequestNum": cx.gateway.used(&plan.id), "MaxRequestNum": shown_total(plan.requests_max),
        "MaxRequestNumPreSec": shown(plan.per_second),
        "CreatedTime": time(plan.created_ms), "ModifiedTime": time(plan.modified_ms),
    })
}

pub async fn environments(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let state = cx.gateway.state();
    let plan = state.plan(&fields.text("UsagePlanId")?)?;
    let of_apis = match fields.text_or("BindType")?.as_deref() {
        None | Some("SERVICE") => false,
        Some("API") => true,
        Some(other) => return Err(not_one_of("BindType", other, &["SERVICE", "API"])),
    };
    let found: Vec<_> = plan.bindings.iter().filter(|b| b.api.is_some() == of_apis).collect();
    let page: Vec<Value> = found[fields.page(found.len())?].iter().map(|b| link(cx, &state, plan, b)).collect();
    Ok(answer(json!({ "Result": { "TotalCount": found.len(), "EnvironmentList": page } })))
}

pub async fn secret_ids(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let state = cx.gateway.state();
    let plan = state.plan(&fields.text("UsagePlanId")?)?;
    let found: Vec<_> = plan.keys.iter().filter_map(|id| state.keys.get(id)).collect();
    let show = |key: &&Arc<crate::records::KeyRecord>| json!({ "AccessKeyId": key.id, "SecretName": key.name, "Status": u8::from(key.enabled) });
    let page: Vec<Value> = found[fields.page(found.len())?].iter().map(show).collect();
    Ok(answer(json!({ "Result": { "TotalCount": found.len(), "AccessKeyList": page } })))
}

fn of(cx: Cx<'_>, fields: Fields<'_>, of_apis: bool, name: &str) -> Result<Answer, ApiError> {
    let state = cx.gateway.state();
    let service = state.service(&fields.text("ServiceId")?)?;
    let pairs = state.plans.values().flat_map(|plan| plan.bindings.iter().map(move |b| (plan, b)));
    let found: Vec<_> = pairs.filter(|(_, b)| b.service == service.id && b.api.is_some() == of_apis).collect();
    let page: Vec<Value> = found[fields.page(found.len())?].iter().map(|(plan, b)| link(cx, &state, plan, b)).collect();
    Ok(answer(json!({ "Result": { "TotalCount": found.len(), name: page } })))
}

pub async fn of_service(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    of(cx, fields, false, "ServiceUsagePlanList")
}

pub async fn of_apis(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    of(cx, fields, true, "ApiUsagePlanList")
}
