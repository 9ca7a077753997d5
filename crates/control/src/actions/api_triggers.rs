//! Triggers of type `apigw`: APIs of the gateway that lead to functions. The gateway keeps them; see [`ApiTriggers`].

use super::common::{description, filled, find};
use super::triggers::{argument, enable, existing_qualifier, trigger_name};
use super::{Answer, Cx};
use crate::api::requests::{CreateTrigger, DeleteTrigger};
use crate::api::time;
use crate::ports::{ApiTrigger, ApiTriggerRef, ApiTriggers, NewApiTrigger};
use mayfly_model::{ApiError, FunctionRecord};
use serde_json::{Value, json};

/// As the API writes it (`Type`).
pub const TYPE: &str = "apigw";

fn gateway<'a>(cx: Cx<'a>) -> Result<&'a dyn ApiTriggers, ApiError> {
    let none = || ApiError::new("UnsupportedOperation.Trigger", "This platform runs with no API gateway.");
    cx.control.apis.as_deref().ok_or_else(none)
}

/// The error of those that would change one: SCF has no such actions for this type.
pub fn unchangeable() -> ApiError {
    let message = "Triggers of type `apigw` are not changed: change the API (ModifyApi, `mayfly api`), or delete the trigger and create another.";
    ApiError::new("UnsupportedOperation.Trigger", message)
}

/// A trigger as the read actions show it.
pub fn show(cx: Cx<'_>, trigger: &ApiTrigger) -> Value {
    json!({
        "TriggerName": trigger.name,
        "Type": TYPE,
        "TriggerDesc": trigger.desc,
        "Qualifier": trigger.qualifier,
        "Enable": 1,
        "AvailableStatus": "Available",
        "BindStatus": "on",
        "TriggerAttribute": "",
        "CustomArgument": trigger.argument,
        "Description": trigger.description,
        "AddTime": time::show(trigger.add_time_ms),
        "ModTime": time::show(trigger.mod_time_ms),
        "BoundResources": "",
        "ResourceId": format!("qcs::apigw:{}::{}", cx.control.options.region, trigger.resource),
    })
}

/// Those of a function.
pub fn list(cx: Cx<'_>, record: &FunctionRecord) -> Vec<ApiTrigger> {
    let list = |apis: &dyn ApiTriggers| apis.list(record.namespace.as_str(), record.name.as_str(), cx.host);
    cx.control.apis.as_deref().map(list).unwrap_or_default()
}

/// CreateTrigger.
pub async fn create(cx: Cx<'_>, request: CreateTrigger) -> Result<Answer, ApiError> {
    let gateway = gateway(cx)?;
    let name = trigger_name(request.trigger_name)?;
    if !filled(&request.enable).map(enable).transpose()?.unwrap_or(true) {
        let message = "Triggers of type `apigw` cannot be closed; leave `Enable` out.";
        return Err(ApiError::new("InvalidParameterValue.Enable", message));
    }
    let (_, function, entry) = find(cx.control, &request.namespace, &request.function_name)?;
    let record = &entry.state.record;
    let qualifier = existing_qualifier(&entry.state, &function, filled(&request.qualifier).unwrap_or("$LATEST"))?;
    let trigger = gateway
        .create(NewApiTrigger {
            namespace: record.namespace.to_string(),
            function: record.name.to_string(),
            qualifier,
            takes_http: record.latest.service.is_some(),
            name,
            desc: request.trigger_desc.unwrap_or_default(),
            argument: argument(request.custom_argument)?.unwrap_or_default(),
            description: description(request.description)?.unwrap_or_default(),
            host: cx.host.to_owned(),
        })
        .await?;
    Ok(Answer::from_iter([("TriggerInfo".to_owned(), show(cx, &trigger))]))
}

/// DeleteTrigger.
pub async fn delete(cx: Cx<'_>, request: DeleteTrigger) -> Result<Answer, ApiError> {
    let gateway = gateway(cx)?;
    let (_, _, entry) = find(cx.control, &request.namespace, &request.function_name)?;
    let record = &entry.state.record;
    let meant = ApiTriggerRef {
        namespace: record.namespace.to_string(),
        function: record.name.to_string(),
        name: request.trigger_name,
        qualifier: filled(&request.qualifier).map(str::to_owned),
        desc: filled(&request.trigger_desc).map(str::to_owned),
    };
    gateway.delete(meant).await?;
    Ok(Answer::new())
}

/// A function was deleted, and its triggers go with it. A crash in between is made up for at the next start.
pub async fn forget(cx: Cx<'_>, namespace: &str, function: &str) -> Result<(), ApiError> {
    match cx.control.apis.as_deref() {
        Some(gateway) => gateway.forget(namespace, function).await,
        None => Ok(()),
    }
}
