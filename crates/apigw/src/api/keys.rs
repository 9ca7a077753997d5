//! Key pairs of callers.

use super::fields::not_one_of;
use super::{Answer, Cx, Fields, KEYS_MAX, answer, check_name, random_text, time};
use crate::records::{KeyRecord, PlanRecord};
use crate::state::Edit;
use mayfly_model::ApiError;
use serde_json::{Value, json};
use std::sync::Arc;

fn check_part(field: &str, text: &str, least: usize) -> Result<(), ApiError> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if !(least..=50).contains(&text.len()) || !text.bytes().all(good) {
        let message = format!("`{field}` has {least} to 50 letters, digits and underscores.");
        return Err(ApiError::new("InvalidParameterValue.LengthExceeded", message));
    }
    Ok(())
}

/// A key as actions show it; `secret`: with its secret half.
fn show(key: &KeyRecord, secret: bool) -> Value {
    json!({
        "AccessKeyId": key.id,
        "AccessKeySecret": if secret { key.secret.as_str() } else { "" },
        "AccessKeyType": if key.manual { "manual" } else { "auto" },
        "SecretName": key.name,
        "Status": u8::from(key.enabled),
        "CreatedTime": time(key.created_ms),
        "ModifiedTime": time(key.modified_ms),
        "Tags": [],
    })
}

pub async fn create(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let name = fields.text("SecretName")?;
    check_name("SecretName", &name)?;
    let manual = match fields.text_or("AccessKeyType")?.as_deref() {
        None | Some("auto") => false,
        Some("manual") => true,
        Some(other) => return Err(not_one_of("AccessKeyType", other, &["auto", "manual"])),
    };
    let (id, secret) = match manual {
        true => (fields.text("AccessKeyId")?, fields.text("AccessKeySecret")?),
        false => (format!("APID{}", random_text(44)), random_text(44)),
    };
    check_part("AccessKeyId", &id, 5)?;
    check_part("AccessKeySecret", &secret, 10)?;
    let record = KeyRecord { id, secret, name, manual, enabled: true, created_ms: cx.now_ms, modified_ms: cx.now_ms };
    let shown = show(&record, true);
    cx.gateway
        .change(move |state| {
            if state.keys.contains_key(&record.id) {
                let message = format!("There is a key `{}` already.", record.id);
                return Err(ApiError::new("FailedOperation.AccessKeyExist", message));
            }
            if state.keys.len() >= KEYS_MAX {
                let message = format!("There are {KEYS_MAX} keys, which is the limit; delete one first.");
                return Err(ApiError::new("LimitExceeded.ApiKeyCountLimitExceeded", message));
            }
            Ok((vec![Edit::Key(record)], ()))
        })
        .await?;
    Ok(answer(json!({ "Result": shown })))
}

/// Shows a key with its secret, as API Gateway does: only the platform's own keys can ask.
pub async fn describe(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let state = cx.gateway.state();
    Ok(answer(json!({ "Result": show(state.key(&fields.text("AccessKeyId")?)?, true) })))
}

pub async fn list(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let state = cx.gateway.state();
    let filters =
        fields.filters(&["AccessKeyId", "AccessKeySecret", "SecretName", "NotUsagePlanId", "Status", "KeyWord"])?;
    let passes = |key: &KeyRecord| {
        filters.iter().all(|(name, values)| {
            values.iter().any(|value| match name.as_str() {
                "AccessKeyId" => key.id == *value,
                "AccessKeySecret" => key.secret == *value,
                "SecretName" => key.name.contains(value.as_str()),
                "NotUsagePlanId" => state.plans.get(value).is_none_or(|plan| !plan.keys.contains(&key.id)),
                "Status" => u8::from(key.enabled).to_string() == *value,
                _ => key.name.contains(value.as_str()) || key.id.contains(value.as_str()),
            })
        })
    };
    let mut found: Vec<&Arc<KeyRecord>> = state.keys.values().filter(|key| passes(key)).collect();
    found.sort_by(|a, b| b.created_ms.cmp(&a.created_ms).then_with(|| a.id.cmp(&b.id)));
    let page: Vec<Value> = found[fields.page(found.len())?].iter().map(|key| show(key, false)).collect();
    Ok(answer(json!({ "Result": { "TotalCount": found.len(), "ApiKeySet": page } })))
}

async fn set_enabled(cx: Cx<'_>, fields: Fields<'_>, enabled: bool) -> Result<Answer, ApiError> {
    let id = fields.text("AccessKeyId")?;
    cx.gateway
        .change(move |state| {
            let key = KeyRecord { enabled, modified_ms: cx.now_ms, ..KeyRecord::clone(state.key(&id)?) };
            Ok((vec![Edit::Key(key)], ()))
        })
        .await?;
    Ok(answer(json!({ "Result": true })))
}

pub async fn enable(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    set_enabled(cx, fields, true).await
}

pub async fn disable(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    set_enabled(cx, fields, false).await
}

pub async fn delete(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let id = fields.text("AccessKeyId")?;
    cx.gateway
        .change(move |state| {
            if state.key(&id)?.enabled {
                let message = "The key is in use; call DisableApiKey first.";
                return Err(ApiError::new("UnsupportedOperation.InvalidStatus", message));
            }
            let bound = state.plans.values().filter(|plan| plan.keys.contains(&id));
            let mut edits: Vec<Edit> = bound
                .map(|plan| {
                    let mut plan = PlanRecord::clone(plan);
                    plan.keys.remove(&id);
                    Edit::Plan(plan)
                })
                .collect();
            edits.push(Edit::DropKey(id));
            Ok((edits, ()))
        })
        .await?;
    Ok(answer(json!({ "Result": true })))
}

pub async fn update(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let (id, given) = (fields.text("AccessKeyId")?, fields.text_or("AccessKeySecret")?);
    given.as_deref().map(|secret| check_part("AccessKeySecret", secret, 10)).transpose()?;
    let shown = cx
        .gateway
        .change(move |state| {
            let old = KeyRecord::clone(state.key(&id)?);
            if old.manual && given.is_none() {
                return Err(ApiError::missing("AccessKeySecret"));
            }
            if !old.manual && given.is_some() {
                let message = "The secret of an `auto` key is made by the platform; leave `AccessKeySecret` out.";
                return Err(ApiError::new("UnsupportedOperation.UnsupportedUpdateApiKey", message));
            }
            let key = KeyRecord { secret: given.unwrap_or_else(|| random_text(44)), modified_ms: cx.now_ms, ..old };
            let shown = show(&key, true);
            Ok((vec![Edit::Key(key)], shown))
        })
        .await?;
    Ok(answer(json!({ "Result": shown })))
}
