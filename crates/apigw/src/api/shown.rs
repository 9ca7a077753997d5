//! APIs as actions show them.

use super::{Answer, Cx, Fields, answer, time};
use crate::records::{ApiRecord, Auth, Backend, FunctionRef, Parameter};
use crate::state::State;
use mayfly_model::ApiError;
use serde_json::{Value, json};
use std::sync::Arc;

fn auth_type(auth: &Auth) -> &'static str {
    match auth {
        Auth::None => "NONE",
        Auth::Secret => "SECRET",
        Auth::Token { .. } | Auth::Issuer(_) => "OAUTH",
    }
}

/// An API as lists show it.
pub fn show_status(state: &State, api: &ApiRecord) -> Value {
    let related = |other: &&Arc<ApiRecord>| matches!(&other.auth, Auth::Token { issuer } if *issuer == api.id);
    let related: Vec<&str> = state.apis.values().filter(related).map(|other| other.id.as_str()).collect();
    json!({
        "ServiceId": api.service, "ApiId": api.id, "ApiName": api.name, "ApiDesc": api.description,
        "Path": api.path, "Method": api.method, "ApiType": "NORMAL", "Protocol": api.protocol(),
        "AuthType": auth_type(&api.auth), "ApiBusinessType": business_type(&api.auth),
        "AuthRelationApiId": relation(&api.auth), "OauthConfig": oauth(&api.auth),
        "RelationBuniessApiIds": related, "IsDebugAfterCharge": false, "UniqVpcId": "", "Tags": [],
        "CreatedTime": time(api.created_ms), "ModifiedTime": time(api.modified_ms),
    })
}

fn business_type(auth: &Auth) -> &'static str {
    match auth {
        Auth::Issuer(_) => "OAUTH",
        _ => "NORMAL",
    }
}

fn relation(auth: &Auth) -> &str {
    match auth {
        Auth::Token { issuer } => issuer,
        _ => "",
    }
}

fn oauth(auth: &Auth) -> Value {
    match auth {
        Auth::Issuer(rules) => json!({
            "PublicKey": rules.public_key, "TokenLocation": rules.location, "LoginRedirectUrl": rules.login_url,
        }),
        _ => Value::Null,
    }
}

fn put_function(shown: &mut Answer, kind: &str, function: Option<&FunctionRef>) {
    let values = function.map_or(["", "", ""], |f| [&f.name, &f.namespace, &f.qualifier]);
    for (field, value) in ["Name", "Namespace", "Qualifier"].into_iter().zip(values) {
        shown.insert(format!("Service{kind}Function{field}"), value.into());
    }
}

/// The address at which functions push to the WebSockets of an API; `host` is what a client called the platform.
pub fn push_url(api: &ApiRecord, host: &str) -> String {
    format!("http://{host}{}{}/{}", crate::door::PUSH_PREFIX, api.id, api.push_token)
}

pub async fn describe(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let state = cx.gateway.state();
    let service = state.service(&fields.text("ServiceId")?)?;
    let api = state.api(&service.id, &fields.text("ApiId")?)?;
    let mut shown = answer(show_status(&state, api));
    let parameter = |p: &Parameter| {
        json!({
            "Name": p.name, "Position": p.position.as_str(), "Type": p.kind, "DefaultValue": p.default,
            "Required": p.required, "Desc": p.description,
        })
    };
    let (service_type, integrated) = match &api.backend {
        Backend::Event { integrated, .. } => ("SCF", *integrated),
        Backend::Http { .. } | Backend::WebSocket(_) => ("SCF", false),
        Backend::Mock { .. } => ("MOCK", false),
    };
    let more = json!({
        "ServiceName": service.name, "ServiceDesc": service.description,
        "RequestConfig": { "Path": api.path, "Method": api.method },
        "RequestParameters": api.parameters.iter().map(parameter).collect::<Vec<_>>(),
        "ServiceType": service_type, "ServiceTimeout": api.timeout_s, "EnableCORS": api.cors,
        "ServiceScfIsIntegratedResponse": integrated, "IsBase64Encoded": api.base64,
        "ResponseType": api.response_type, "Environments": state.stages_of(api), "Tags": [],
        "ServiceScfEventIsAsyncCall": false, "InternalDomain": "",
    });
    shown.extend(answer(more));
    let (mut scf, mut sockets) = (None, None);
    match &api.backend {
        Backend::Event { function, .. } => {
            scf = Some(function);
            shown.insert("ServiceScfFunctionType".into(), "EVENT".into());
        }
        Backend::Http { function } => {
            scf = Some(function);
            shown.insert("ServiceScfFunctionType".into(), "HTTP".into());
        }
        Backend::WebSocket(functions) => {
            sockets = Some(functions);
            shown.insert("InternalDomain".into(), push_url(api, cx.host).into());
        }
        Backend::Mock { body } => drop(shown.insert("ServiceMockReturnMessage".into(), body.as_str().into())),
    }
    put_function(&mut shown, "Scf", scf);
    put_function(&mut shown, "WebsocketRegister", sockets.and_then(|s| s.register.as_ref()));
    put_function(&mut shown, "WebsocketTransport", sockets.map(|s| &s.transport));
    put_function(&mut shown, "WebsocketCleanup", sockets.and_then(|s| s.cleanup.as_ref()));
    shown.extend(api.shown.iter().map(|(name, value)| (name.clone(), value.clone())));
    Ok(answer(json!({ "Result": shown })))
}

pub async fn list(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let state = cx.gateway.state();
    let service = state.service(&fields.text("ServiceId")?)?;
    let filters = fields.filters(&[
        "ApiId",
        "ApiName",
        "ApiPath",
        "Path",
        "Method",
        "AuthType",
        "ApiBuniessType",
        "ApiBusinessType",
        "KeyWord",
    ])?;
    let passes = |api: &ApiRecord| {
        filters.iter().all(|(name, values)| {
            values.iter().any(|value| match name.as_str() {
                "ApiId" => api.id == *value,
                "ApiName" => api.name.contains(value.as_str()),
                "ApiPath" | "Path" => api.path == *value,
                "Method" => api.method == *value,
                "AuthType" => auth_type(&api.auth) == value,
                "KeyWord" => {
                    api.name.contains(value.as_str())
                        || api.id.contains(value.as_str())
                        || api.path.contains(value.as_str())
                }
                _ => business_type(&api.auth) == value,
            })
        })
    };
    let mut found: Vec<_> = state.apis_of(&service.id).filter(|api| passes(api)).collect();
    found.sort_by(|a, b| b.created_ms.cmp(&a.created_ms).then_with(|| a.id.cmp(&b.id)));
    let page: Vec<Value> = found[fields.page(found.len())?].iter().map(|api| show_status(&state, api)).collect();
    Ok(answer(json!({ "Result": { "TotalCount": found.len(), "ApiIdStatusSet": page } })))
}
