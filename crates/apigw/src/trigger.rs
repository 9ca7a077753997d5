//! APIs seen as triggers of functions (SCF's type `apigw`).
//!
//! There is one truth: the API. A trigger is created as an API of a service, and listed because the API leads to the function; that holds
//! for APIs that were created by API Gateway's API too, as in SCF. Source of the forms: SCF, "Trigger Configuration Description".

use crate::api::apis::{TIMEOUT_DEFAULT_S, check_place, route};
use crate::api::services::{check_room, new_service};
use crate::api::stages::{laid_over, publish, serving};
use crate::api::{Cx, FunctionKind, new_id, random_text, sub_domain};
use crate::records::{ApiRecord, Auth, Backend, FunctionRef, PlanRecord, ServiceRecord, Stage, TriggerRecord};
use crate::state::{Edit, Gateway, State, clip};
use mayfly_model::ApiError;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Longest `TriggerDesc`, in bytes. Ours.
const DESC_BYTES_MAX: usize = 16 * 1024;
/// The service that triggers are put into when they name none. Source: SCF's console.
const SERVICE_DEFAULT: &str = "SCF_API_SERVICE";
/// Most triggers of one function. Source: "Quota Limits".
const PER_FUNCTION_MAX: usize = 10;

/// A trigger that is to be.
#[derive(Clone, Debug)]
pub struct NewTrigger {
    /// The function, with the version or alias that answers.
    pub function: FunctionRef,
    /// Its name.
    pub name: String,
    /// `TriggerDesc`.
    pub desc: String,
    /// Text of the user's.
    pub argument: String,
    /// Free text.
    pub description: String,
}

/// A trigger as SCF shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// Its name: the user's, or that of the service.
    pub name: String,
    /// `TriggerDesc`, as JSON.
    pub desc: Value,
    /// The version or alias that answers.
    pub qualifier: String,
    /// Text of the user's.
    pub argument: String,
    /// Free text.
    pub description: String,
    /// `service/<service>/API/<api>`.
    pub resource: String,
    /// When it was created, in milliseconds since the epoch.
    pub add_time_ms: u64,
    /// When it was last changed, in milliseconds since the epoch.
    pub mod_time_ms: u64,
}

/// Which trigger of a function is meant.
#[derive(Clone, Debug)]
pub struct Meant {
    /// Namespace of the function.
    pub namespace: String,
    /// Name of the function.
    pub function: String,
    /// Name of the trigger.
    pub name: String,
    /// Only one of this version or alias.
    pub qualifier: Option<String>,
    /// `TriggerDesc`: tells several of one name from each other.
    pub desc: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Desc {
    api: ApiDesc,
    service: ServiceDesc,
    release: ReleaseDesc,
    // Forms of clients that delete by them.
    #[serde(rename = "serviceId")]
    service_id: Option<String>,
    #[serde(rename = "apiId")]
    api_id: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ApiDesc {
    api_id: Option<String>,
    api_name: Option<String>,
    api_desc: Option<String>,
    auth_required: Option<Value>,
    auth_type: Option<String>,
    request_config: RequestDesc,
    is_integrated_response: Option<Value>,
    #[serde(alias = "IsBase64Encoded")]
    is_base64_encoded: Option<Value>,
    #[serde(alias = "enableCORS")]
    enable_cors: Option<Value>,
    #[serde(alias = "timeout")]
    service_timeout: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RequestDesc {
    method: Option<String>,
    path: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServiceDesc {
    service_id: Option<String>,
    service_name: Option<String>,
    service_desc: Option<String>,
    protocol: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ReleaseDesc {
    environment_name: Option<String>,
    release_desc: Option<String>,
}

fn bad(message: String) -> ApiError {
    ApiError::new("InvalidParameterValue.TriggerDesc", message)
}

fn parse(text: &str) -> Result<Desc, ApiError> {
    if text.len() > DESC_BYTES_MAX {
        return Err(bad(format!("`TriggerDesc` has {} bytes; the limit is {DESC_BYTES_MAX}.", text.len())));
    }
    if text.trim().is_empty() {
        return Ok(Desc::default());
    }
    serde_json::from_str(text)
        .map_err(|e| bad(format!("`TriggerDesc` is not what an apigw trigger takes: {}.", clip(&e.to_string()))))
}

/// A switch, as clients write it. Errors: `InvalidParameterValue.TriggerDesc`.
fn flag(name: &str, value: Option<&Value>) -> Result<bool, ApiError> {
    match value {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(text)) if text.is_empty() || text.eq_ignore_ascii_case("false") => Ok(false),
        Some(_) => Err(bad(format!("`{name}` in `TriggerDesc` is TRUE or FALSE."))),
    }
}

fn filled(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|t| !t.is_empty())
}

/// An error of the API in a code of SCF's.
fn as_trigger_error(error: ApiError) -> ApiError {
    match error.code {
        "ResourceNotFound.InvalidService"
        | "LimitExceeded.ServiceCountLimitExceeded"
        | "LimitExceeded.ApiCountLimitExceeded" => ApiError::new("FailedOperation.ApiGateway", error.message),
        code if code.starts_with("InvalidParameterValue.TriggerDesc") || code.starts_with("InternalError") => error,
        _ => ApiError::new("InvalidParameterValue.ApiGateway", error.message),
    }
}

/// The trigger that an API is to `function`.
fn show(state: &State, api: &ApiRecord, function: &FunctionRef, domain: &str, host: &str) -> Shown {
    let service = state.services.get(&api.service);
    let service_name = service.map_or("", |s| s.name.as_str());
    let stage = api.trigger.as_ref().map(|t| t.stage).or_else(|| state.stages_of(api).pop()).unwrap_or(Stage::Release);
    let integrated = matches!(&api.backend, Backend::Event { integrated: true, .. });
    let auth = match &api.auth {
        Auth::None => "NONE",
        Auth::Secret => "SECRET",
        Auth::Token { .. } | Auth::Issuer(_) => "OAUTH",
    };
    let word = |on: bool| if on { "TRUE" } else { "FALSE" };
    let host = sub_domain(&api.service, domain, host);
    let scheme = if matches!(api.backend, Backend::WebSocket(_)) { "ws" } else { "http" };
    let desc = json!({
        "api": {
            "apiId": api.id, "apiName": api.name, "apiDesc": api.description,
            "authRequired": word(api.auth != Auth::None), "authType": auth,
            "isIntegratedResponse": word(integrated), "isBase64Encoded": word(api.base64),
            "requestConfig": { "method": api.method, "path": api.path },
        },
        "service": {
            "serviceId": api.service, "serviceName": service_name,
            "subDomain": format!("{scheme}://{host}/{stage}{}", api.path.trim_start_matches('=')),
        },
        "release": { "environmentName": stage },
    });
    let given = api.trigger.clone().unwrap_or(TriggerRecord {
        name: service_name.to_owned(),
        stage,
        argument: String::new(),
        description: String::new(),
    });
    Shown {
        name: given.name,
        desc,
        qualifier: function.qualifier.clone(),
        argument: given.argument,
        description: given.description,
        resource: format!("service/{}/API/{}", api.service, api.id),
        add_time_ms: api.created_ms,
        mod_time_ms: api.modified_ms,
    }
}

/// APIs that lead to a function, with how they do.
fn leading<'a>(
    state: &'a State,
    namespace: &'a str,
    function: &'a str,
) -> impl Iterator<Item = (&'a Arc<ApiRecord>, &'a FunctionRef)> {
    state.apis.values().filter_map(move |api| {
        let found = api.backend.functions().find(|f| f.namespace == namespace && f.name == function)?;
        Some((api, found))
    })
}

/// Takes an API away, with what there is only for it.
fn drop_api(state: &State, api: &ApiRecord, now_ms: u64) -> Vec<Edit> {
    let mut edits = vec![Edit::DropApi(api.id.clone())];
    let bound = |plan: &&Arc<PlanRecord>| plan.bindings.iter().any(|b| b.api.as_ref() == Some(&api.id));
    for plan in state.plans.values().filter(bound) {
        let mut plan = PlanRecord::clone(plan);
        plan.bindings.retain(|b| b.api.as_ref() != Some(&api.id));
        plan.modified_ms = now_ms;
        edits.push(Edit::Plan(plan));
    }
    let alone = state.apis_of(&api.service).all(|other| other.id == api.id);
    if let Some(service) = state.services.get(&api.service).filter(|s| s.automatic && alone) {
        let in_plan =
            state.plans.values().any(|p| p.bindings.iter().any(|b| b.service == service.id && b.api.is_none()));
        if !in_plan {
            edits.push(Edit::DropService(service.id.clone()));
        }
    }
    edits
}

/// CreateTrigger. Errors: SCF's codes.
pub async fn create(cx: Cx<'_>, new: NewTrigger, kind: FunctionKind) -> Result<Shown, ApiError> {
    let desc = parse(&new.desc)?;
    let stage = match filled(&desc.release.environment_name) {
        None => Stage::Release,
        Some(name) => Stage::parse(name)
            .ok_or_else(|| bad(format!("`environmentName` is `{}`; it is release, prepub or test.", clip(name))))?,
    };
    let integrated = flag("isIntegratedResponse", desc.api.is_integrated_response.as_ref())?;
    let backend = match kind {
        FunctionKind::Event => Backend::Event { function: new.function.clone(), integrated },
        FunctionKind::Http => Backend::Http { function: new.function.clone() },
    };
    let auth = match (filled(&desc.api.auth_type), flag("authRequired", desc.api.auth_required.as_ref())?) {
        (Some("SECRET"), _) | (None, true) => Auth::Secret,
        (Some("NONE"), _) | (None, false) => Auth::None,
        (Some(other), _) => return Err(bad(format!("`authType` is `{}`; triggers take NONE or SECRET.", clip(other)))),
    };
    let path = filled(&desc.api.request_config.path).map_or_else(|| format!("/{}", new.function.name), str::to_owned);
    let (path, method) = route(path, desc.api.request_config.method.clone(), &backend).map_err(as_trigger_error)?;
    let timeout_s = desc.api.service_timeout.unwrap_or(TIMEOUT_DEFAULT_S);
    if !(1..=1800).contains(&timeout_s) {
        return Err(bad("`serviceTimeout` is 1 to 1800 seconds.".into()));
    }
    let mut api = ApiRecord {
        id: new_id("api"),
        service: String::new(),
        name: desc.api.api_name.clone().unwrap_or_else(|| new.function.name.clone()),
        description: desc.api.api_desc.clone().unwrap_or_default(),
        path,
        method,
        parameters: Vec::new(),
        backend,
        auth,
        cors: flag("enableCORS", desc.api.enable_cors.as_ref())?,
        timeout_s,
        response_type: String::new(),
        base64: flag("isBase64Encoded", desc.api.is_base64_encoded.as_ref())?,
        limits: BTreeMap::new(),
        push_token: random_text(32),
        trigger: Some(TriggerRecord {
            name: new.name.clone(),
            stage,
            argument: new.argument,
            description: new.description,
        }),
        shown: BTreeMap::new(),
        created_ms: cx.now_ms,
        modified_ms: cx.now_ms,
    };
    let protocol = filled(&desc.service.protocol).unwrap_or("http&https").to_owned();
    if !matches!(protocol.as_str(), "http" | "https" | "http&https") {
        return Err(bad(format!("`protocol` is `{}`; it is http, https or http&https.", clip(&protocol))));
    }
    let id = api.id.clone();
    let release_desc = desc.release.release_desc.clone().unwrap_or_default();
    let (namespace, function) = (new.function.namespace.clone(), new.function.name.clone());
    let change = cx.gateway.change(move |state| {
        let own = leading(state, &namespace, &function).count();
        if own >= PER_FUNCTION_MAX {
            let message =
                format!("Function `{function}` has {PER_FUNCTION_MAX} triggers of type apigw, which is the limit.");
            return Err(ApiError::new("LimitExceeded.Trigger", message));
        }
        let wanted_name = filled(&desc.service.service_name);
        let found = match filled(&desc.service.service_id) {
            Some(id) => Some(state.service(id)?),
            None => {
                let name = wanted_name.unwrap_or(SERVICE_DEFAULT);
                state.services.values().filter(|s| s.name == name).min_by_key(|s| (s.created_ms, s.id.clone()))
            }
        };
        let (record, mut edits) = match found {
            Some(record) => (ServiceRecord::clone(record), Vec::new()),
            None => {
                check_room(state)?;
                let name = wanted_name.unwrap_or(SERVICE_DEFAULT).to_owned();
                let protocol = protocol.as_str();
                let text = desc.service.service_desc.clone().unwrap_or_default();
                let mut record = new_service(name, text, protocol, cx.now_ms);
                record.automatic = true;
                (record.clone(), vec![Edit::Service(record)])
            }
        };
        api.service = record.id.clone();
        if state.services.contains_key(&record.id) {
            check_place(state, &api)?;
        }
        let apis = laid_over(serving(state, &record, stage), vec![api.clone()]);
        edits.push(Edit::Api(Box::new(api)));
        let (released, _) = publish(record, stage, release_desc, apis, cx.now_ms);
        edits.extend(released);
        Ok((edits, ()))
    });
    change.await.map_err(|error| match error.code {
        "LimitExceeded.Trigger" => error,
        _ => as_trigger_error(error),
    })?;
    let state = cx.gateway.state();
    let api = state.apis.get(&id).ok_or_else(|| ApiError::internal("The trigger is gone again."))?;
    Ok(show(&state, api, &new.function, cx.domain, cx.host))
}

/// The triggers of a function.
pub fn list(gateway: &Gateway, namespace: &str, function: &str, domain: &str, host: &str) -> Vec<Shown> {
    let state = gateway.state();
    leading(&state, namespace, function).map(|(api, found)| show(&state, api, found, domain, host)).collect()
}

/// DeleteTrigger. Errors: `ResourceNotFound.Trigger`; `MissingParameter` when several are meant.
pub async fn delete(gateway: &Arc<Gateway>, meant: Meant, now_ms: u64) -> Result<(), ApiError> {
    let desc = parse(meant.desc.as_deref().unwrap_or_default())?;
    gateway
        .change(move |state| {
            let matches = |api: &ApiRecord, function: &FunctionRef| {
                let service = state.services.get(&api.service).map_or("", |s| s.name.as_str());
                let own = api.trigger.as_ref().map_or(service, |t| t.name.as_str());
                // Clients name a trigger as it was created, or by the service or its id.
                (own == meant.name || service == meant.name || api.service == meant.name)
                    && meant.qualifier.as_ref().is_none_or(|q| function.qualifier == *q)
            };
            let narrowed = |api: &ApiRecord| {
                let is = |wanted: Option<&str>, value: &str| wanted.is_none_or(|w| w == value);
                is(filled(&desc.api.api_id).or(filled(&desc.api_id)), &api.id)
                    && is(filled(&desc.service.service_id).or(filled(&desc.service_id)), &api.service)
                    && is(filled(&desc.api.request_config.path), &api.path)
                    && filled(&desc.api.request_config.method).is_none_or(|m| m.eq_ignore_ascii_case(&api.method))
            };
            let named: Vec<_> =
                leading(state, &meant.namespace, &meant.function).filter(|(api, f)| matches(api, f)).collect();
            let narrow: Vec<_> = named.iter().filter(|(api, _)| narrowed(api)).collect();
            match narrow.as_slice() {
                [(api, _)] => Ok((drop_api(state, api, now_ms), ())),
                [] => {
                    let message = format!(
                        "Function `{}` has no such trigger `{}` of type apigw.",
                        meant.function,
                        clip(&meant.name)
                    );
                    Err(ApiError::new("ResourceNotFound.Trigger", message))
                }
                _ => Err(ApiError::missing("TriggerDesc")),
            }
        })
        .await
}

/// Takes the triggers of functions away that are gone; APIs that were created by API Gateway's API stay, and answer that their function is gone.
pub async fn forget(
    gateway: &Arc<Gateway>,
    gone: impl Fn(&FunctionRef) -> bool + Send + Sync,
    now_ms: u64,
) -> Result<(), ApiError> {
    let orphan = |api: &ApiRecord| api.trigger.is_some() && api.backend.functions().any(&gone);
    if !gateway.state().apis.values().any(|api| orphan(api)) {
        return Ok(());
    }
    loop {
        // One at a time: whether a service goes with its last API depends on those before.
        let more = gateway
            .change(|state| match state.apis.values().find(|api| orphan(api)) {
                Some(api) => Ok((drop_api(state, api, now_ms), true)),
                None => Ok((Vec::new(), false)),
            })
            .await?;
        if !more {
            return Ok(());
        }
    }
}
