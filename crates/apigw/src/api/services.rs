//! Services.

use super::fields::not_one_of;
use super::{Answer, Cx, Fields, SERVICES_MAX, answer, check_name, new_id, time};
use crate::records::{ServiceRecord, Stage};
use crate::state::{Edit, State};
use mayfly_model::ApiError;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const PROTOCOLS: [&str; 3] = ["http", "https", "http&https"];
/// Most tags. Source: tags of Tencent Cloud.
const TAGS_MAX: usize = 50;

fn protocol(text: String) -> Result<String, ApiError> {
    if PROTOCOLS.contains(&text.as_str()) {
        return Ok(text);
    }
    Err(ApiError::new("InvalidParameterValue.InvalidProcotol", not_one_of("Protocol", &text, &PROTOCOLS).message))
}

fn net_types(fields: Fields<'_>) -> Result<Vec<String>, ApiError> {
    let types = fields.texts("NetTypes")?;
    match types.iter().find(|t| !matches!(t.as_str(), "INNER" | "OUTER")) {
        Some(other) => Err(not_one_of("NetTypes", other, &["INNER", "OUTER"])),
        None => Ok(types),
    }
}

/// A service that does not exist yet.
pub fn new_service(name: String, description: String, protocol: &str, now_ms: u64) -> ServiceRecord {
    ServiceRecord {
        id: new_id("service"),
        name,
        description,
        protocol: protocol.to_owned(),
        net_types: vec!["OUTER".into()],
        stages: BTreeMap::new(),
        limits: BTreeMap::new(),
        automatic: false,
        tags: Vec::new(),
        created_ms: now_ms,
        modified_ms: now_ms,
    }
}

/// Errors: `LimitExceeded.ServiceCountLimitExceeded`.
pub fn check_room(state: &State) -> Result<(), ApiError> {
    if state.services.len() >= SERVICES_MAX {
        let message = format!("There are {SERVICES_MAX} services, which is the limit; delete one first.");
        return Err(ApiError::new("LimitExceeded.ServiceCountLimitExceeded", message));
    }
    Ok(())
}

pub async fn create(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    for name in ["InstanceId", "UniqVpcId", "SetServerName", "ExclusiveSetName"] {
        if fields.text_or(name)?.is_some() {
            let message = format!("`{name}` is not supported: the gateway is one with the platform.");
            return Err(ApiError::new("InvalidParameterValue.UnsupportedParameter", message));
        }
    }
    match fields.text_or("IpVersion")?.as_deref() {
        None | Some("IPv4") => {}
        Some(other) => return Err(not_one_of("IpVersion", other, &["IPv4"])),
    }
    let name = fields.text("ServiceName")?;
    check_name("ServiceName", &name)?;
    let mut record =
        new_service(name, fields.free_text("ServiceDesc", 200)?, &protocol(fields.text("Protocol")?)?, cx.now_ms);
    let types = net_types(fields)?;
    if !types.is_empty() {
        record.net_types = types;
    }
    for tag in fields.objects("Tags")? {
        record.tags.push((tag.text("Key")?, tag.text_or("Value")?.unwrap_or_default()));
    }
    if record.tags.len() > TAGS_MAX {
        return Err(ApiError::new(
            "InvalidParameterValue.InvalidTagValues",
            format!("There are at most {TAGS_MAX} tags."),
        ));
    }
    let shown = answer(json!({
        "ServiceId": record.id,
        "ServiceName": record.name,
        "ServiceDesc": record.description,
        "OuterSubDomain": cx.sub_domain(&record.id),
        "InnerSubDomain": cx.sub_domain(&record.id),
        "CreatedTime": time(record.created_ms),
        "NetTypes": record.net_types,
        "IpVersion": "IPv4",
    }));
    cx.gateway
        .change(move |state| {
            check_room(state)?;
            Ok((vec![Edit::Service(record)], ()))
        })
        .await?;
    Ok(shown)
}

/// Ports that clients put behind a sub-domain of their own; ours stands in the sub-domain.
fn ports(cx: Cx<'_>) -> (u16, u16) {
    let port = cx.host.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    (port.unwrap_or(80), 443)
}

fn tags(record: &ServiceRecord) -> Value {
    record.tags.iter().map(|(key, value)| json!({ "Key": key, "Value": value })).collect()
}

fn stages(record: &ServiceRecord) -> Vec<Stage> {
    record.stages.keys().copied().collect()
}

pub async fn describe(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let state = cx.gateway.state();
    let record = state.service(&fields.text("ServiceId")?)?;
    let apis: Vec<Value> = state.apis_of(&record.id).map(|api| super::shown::show_status(&state, api)).collect();
    let bound =
        |plan: &&std::sync::Arc<crate::records::PlanRecord>| plan.bindings.iter().any(|b| b.service == record.id);
    let plans: Vec<Value> = state
        .plans
        .values()
        .filter(bound)
        .flat_map(|plan| {
            let of = plan.bindings.iter().filter(|b| b.service == record.id);
            of.map(|binding| {
                json!({
                    "Environment": binding.stage, "UsagePlanId": plan.id, "UsagePlanName": plan.name,
                    "UsagePlanDesc": plan.description, "MaxRequestNumPreSec": super::plans::shown(plan.per_second),
                    "CreatedTime": time(plan.created_ms), "ModifiedTime": time(plan.modified_ms),
                })
            })
        })
        .collect();
    let (http, https) = ports(cx);
    Ok(answer(json!({
        "ServiceId": record.id,
        "AvailableEnvironments": stages(record),
        "ServiceName": record.name,
        "ServiceDesc": record.description,
        "Protocol": record.protocol,
        "CreatedTime": time(record.created_ms),
        "ModifiedTime": time(record.modified_ms),
        "NetTypes": record.net_types,
        "InternalSubDomain": cx.sub_domain(&record.id),
        "OuterSubDomain": cx.sub_domain(&record.id),
        "InnerHttpPort": http,
        "InnerHttpsPort": https,
        "ApiTotalCount": apis.len(),
        "ApiIdStatusSet": apis,
        "UsagePlanTotalCount": plans.len(),
        "UsagePlanList": plans,
        "IpVersion": "IPv4",
        "UserType": "",
        "Tags": tags(record),
    })))
}

pub async fn list(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let state = cx.gateway.state();
    let filters = fields.filters(&["ServiceId", "ServiceName", "KeyWord", "Protocol", "NetTypes"])?;
    let passes = |record: &ServiceRecord| {
        filters.iter().all(|(name, values)| {
            values.iter().any(|value| match name.as_str() {
                "ServiceId" => record.id == *value,
                "ServiceName" => record.name.contains(value.as_str()),
                "Protocol" => record.protocol == *value,
                "NetTypes" => record.net_types.contains(value),
                _ => record.name.contains(value.as_str()) || record.id.contains(value.as_str()),
            })
        })
    };
    let mut found: Vec<_> = state.services.values().filter(|record| passes(record)).collect();
    // The newest first, as in the console.
    found.sort_by(|a, b| b.created_ms.cmp(&a.created_ms).then_with(|| a.id.cmp(&b.id)));
    let (http, https) = ports(cx);
    let show = |record: &&std::sync::Arc<ServiceRecord>| {
        json!({
            "ServiceId": record.id, "ServiceName": record.name, "ServiceDesc": record.description,
            "Protocol": record.protocol, "NetTypes": record.net_types, "IpVersion": "IPv4",
            "AvailableEnvironments": stages(record), "OuterSubDomain": cx.sub_domain(&record.id),
            "InnerSubDomain": cx.sub_domain(&record.id), "InnerHttpPort": http, "InnerHttpsPort": https,
            "CreatedTime": time(record.created_ms), "ModifiedTime": time(record.modified_ms),
            "TradeIsolateStatus": 0, "Tags": tags(record),
        })
    };
    let total = found.len();
    let page: Vec<Value> = found[fields.page(total)?].iter().map(show).collect();
    Ok(answer(json!({ "Result": { "TotalCount": total, "ServiceSet": page } })))
}

pub async fn modify(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let id = fields.text("ServiceId")?;
    let name = fields.text_or("ServiceName")?;
    name.as_deref().map(|name| check_name("ServiceName", name)).transpose()?;
    let description = fields.text_or("ServiceDesc")?.map(|_| fields.free_text("ServiceDesc", 200)).transpose()?;
    let protocol = fields.text_or("Protocol")?.map(protocol).transpose()?;
    let types = net_types(fields)?;
    cx.gateway
        .change(move |state| {
            let mut record = ServiceRecord::clone(state.service(&id)?);
            record.name = name.unwrap_or(record.name);
            record.description = description.unwrap_or(record.description);
            record.protocol = protocol.unwrap_or(record.protocol);
            if !types.is_empty() {
                record.net_types = types;
            }
            record.modified_ms = cx.now_ms;
            // What somebody has set up by hand does not go with its last API.
            record.automatic = false;
            Ok((vec![Edit::Service(record)], ()))
        })
        .await?;
    Ok(Answer::new())
}

pub async fn delete(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let id = fields.text("ServiceId")?;
    cx.gateway
        .change(move |state| {
            let record = state.service(&id)?;
            if let Some(stage) = record.stages.keys().next() {
                let message = format!("The service is released in `{stage}`; call UnReleaseService first.");
                return Err(ApiError::new("UnsupportedOperation.ExistingOnlineEnvironment", message));
            }
            let apis = state.apis_of(&id).count();
            if apis > 0 {
                let message = format!("The service has {apis} APIs; delete them first.");
                return Err(ApiError::new("UnsupportedOperation.ApiListNotEmpty", message));
            }
            let bound = state.plans.values().find(|plan| plan.bindings.iter().any(|b| b.service == id));
            if let Some(plan) = bound {
                let message =
                    format!("The usage plan `{}` is bound to the service; call UnBindEnvironment first.", plan.id);
                return Err(ApiError::new("UnsupportedOperation.ResourceAssociated", message));
            }
            Ok((vec![Edit::DropService(id)], ()))
        })
        .await?;
    Ok(answer(json!({ "Result": true })))
}

/// Domains of one's own are SCF's here (CreateCustomDomain), so that services have none.
pub async fn sub_domains(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    cx.gateway.state().service(&fields.text("ServiceId")?)?;
    fields.page(0)?;
    Ok(answer(json!({ "Result": { "TotalCount": 0, "DomainSet": [] } })))
}
