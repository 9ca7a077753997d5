//! APIs: the routes of a service.

use super::fields::not_one_of;
use super::{APIS_MAX, Answer, Cx, Fields, FunctionKind, answer, new_id, random_text, time};
use crate::records::{
    ApiRecord, Auth, Backend, FunctionRef, Parameter, PlanRecord, Position, SocketFunctions, TokenRules,
};
use crate::route::{METHODS, Template};
use crate::state::{Edit, State, clip};
use mayfly_model::ApiError;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Most parameters of an API. Source: "Quotas", 30 of each position; ours is the sum.
const PARAMETERS_MAX: usize = 100;
/// Longest fixed answer, in bytes. Source: the same.
const MOCK_BYTES_MAX: usize = 10 * 1024;
/// Longest time of an answer, in seconds. Source: `ServiceTimeout`.
const TIMEOUT_MAX_S: i64 = 1800;
/// Time of an answer by default, in seconds. Source: the console.
pub const TIMEOUT_DEFAULT_S: u32 = 15;
const KINDS: [&str; 6] = ["string", "int", "long", "float", "double", "boolean"];
const RESPONSES: [&str; 6] = ["HTML", "JSON", "TEXT", "TEST", "BINARY", "XML"];
/// Fields about backends that there are not.
const UNSUPPORTED: [&str; 11] = [
    "MicroServices",
    "ServiceTsfLoadBalanceConf",
    "ServiceTsfHealthCheckConf",
    "TargetServices",
    "TargetServicesHealthCheckConf",
    "TargetNamespaceId",
    "EventBusId",
    "EIAMAppId",
    "EIAMAppType",
    "EIAMAuthType",
    "Base64EncodedTriggerRules",
];
/// Fields that are stored and shown again.
const SHOWN: [&str; 5] =
    ["ResponseSuccessExample", "ResponseFailExample", "ResponseErrorCodes", "ServiceParameters", "ConstantParameters"];
/// All of those together, in bytes. Ours.
const SHOWN_BYTES_MAX: usize = 32 * 1024;

fn function(fields: Fields<'_>, kind: &str) -> Result<Option<FunctionRef>, ApiError> {
    let Some(name) = fields.text_or(&format!("Service{kind}FunctionName"))? else { return Ok(None) };
    let or = |field: &str, default: &str| {
        Ok::<_, ApiError>(
            fields.text_or(&format!("Service{kind}Function{field}"))?.unwrap_or_else(|| default.to_owned()),
        )
    };
    Ok(Some(FunctionRef { namespace: or("Namespace", "default")?, name, qualifier: or("Qualifier", "$DEFAULT")? }))
}

/// A function that is there, and of the kind that is wanted. Errors: `InvalidParameterValue.InvalidScfConfig`.
fn existing(cx: Cx<'_>, function: FunctionRef, wanted: FunctionKind) -> Result<FunctionRef, ApiError> {
    let bad = |message: String| ApiError::new("InvalidParameterValue.InvalidScfConfig", message);
    match cx.functions.kind(&function) {
        Err(why) => Err(bad(why)),
        Ok(kind) if kind == wanted => Ok(function),
        Ok(FunctionKind::Http) => {
            Err(bad(format!("`{}` is an HTTP function: say `ServiceScfFunctionType` HTTP.", function.name)))
        }
        Ok(FunctionKind::Event) => {
            Err(bad(format!("`{}` is an event function: say `ServiceScfFunctionType` EVENT.", function.name)))
        }
    }
}

fn backend(cx: Cx<'_>, fields: Fields<'_>) -> Result<Backend, ApiError> {
    let service = fields.text("ServiceType")?;
    let protocol = fields.text_or("Protocol")?.unwrap_or_else(|| "HTTP".into());
    let kind = match fields.text_or("ServiceScfFunctionType")?.as_deref() {
        None | Some("EVENT") => FunctionKind::Event,
        Some("HTTP") => FunctionKind::Http,
        Some(other) => return Err(not_one_of("ServiceScfFunctionType", other, &["EVENT", "HTTP"])),
    };
    if fields.flag("ServiceScfEventIsAsyncCall")? == Some(true) {
        let message = "`ServiceScfEventIsAsyncCall` is not supported: requests wait for their answers.";
        return Err(ApiError::new("InvalidParameterValue.UnsupportedParameter", message));
    }
    let missing =
        |field: &str| ApiError::new("MissingParameter.BackendSpecificParam", format!("`{field}` is missing."));
    match (protocol.as_str(), service.as_str()) {
        ("HTTP", "SCF") => {
            let function = function(fields, "Scf")?.ok_or_else(|| missing("ServiceScfFunctionName"))?;
            let function = existing(cx, function, kind)?;
            let integrated = fields.flag("ServiceScfIsIntegratedResponse")?.unwrap_or(false);
            Ok(match kind {
                FunctionKind::Event => Backend::Event { function, integrated },
                FunctionKind::Http => Backend::Http { function },
            })
        }
        ("HTTP", "MOCK") => {
            let body =
                fields.text_or("ServiceMockReturnMessage")?.ok_or_else(|| missing("ServiceMockReturnMessage"))?;
            if body.len() > MOCK_BYTES_MAX {
                let message = format!("`ServiceMockReturnMessage` has at most {MOCK_BYTES_MAX} bytes.");
                return Err(ApiError::new("InvalidParameterValue.InvalidServiceMockReturnMessage", message));
            }
            Ok(Backend::Mock { body })
        }
        ("WEBSOCKET", "SCF" | "WEBSOCKET") if kind == FunctionKind::Http => {
            let function = function(fields, "Scf")?.ok_or_else(|| missing("ServiceScfFunctionName"))?;
            Ok(Backend::Http { function: existing(cx, function, FunctionKind::Http)? })
        }
        ("WEBSOCKET", "SCF" | "WEBSOCKET") => {
            let event = |kind: &str| function(fields, kind)?.map(|f| existing(cx, f, FunctionKind::Event)).transpose();
            let transport =
                event("WebsocketTransport")?.ok_or_else(|| missing("ServiceWebsocketTransportFunctionName"))?;
            let (register, cleanup) = (event("WebsocketRegister")?, event("WebsocketCleanup")?);
            Ok(Backend::WebSocket(SocketFunctions { register, transport, cleanup }))
        }
        ("HTTP" | "WEBSOCKET", other) => {
            let message = format!(
                "Backends of type `{}` are not supported; there are SCF, MOCK and, for `Protocol` WEBSOCKET, WEBSOCKET.",
                clip(other)
            );
            Err(ApiError::new("InvalidParameterValue.InvalidServiceType", message))
        }
        (other, _) => {
            let message = not_one_of("Protocol", other, &["HTTP", "WEBSOCKET"]).message;
            Err(ApiError::new("InvalidParameterValue.InvalidProcotol", message))
        }
    }
}

fn token_rules(fields: Fields<'_>) -> Result<TokenRules, ApiError> {
    let config = fields.object("OauthConfig")?.ok_or_else(|| ApiError::missing("OauthConfig"))?;
    config.known(&["PublicKey", "TokenLocation", "LoginRedirectUrl"])?;
    let rules = TokenRules {
        public_key: config.text("PublicKey")?,
        location: config.text_or("TokenLocation")?.unwrap_or_else(|| "header".into()),
        login_url: config.text_or("LoginRedirectUrl")?.unwrap_or_default(),
    };
    check_rules(rules)
}

fn check_rules(rules: TokenRules) -> Result<TokenRules, ApiError> {
    let bad = |why: String| ApiError::new("InvalidParameterValue.InvalidPublicKey", why);
    crate::jwt::check_rules(&rules).map_err(|why| bad(format!("{why}.")))?;
    let url = &rules.login_url;
    let good = url.is_empty()
        || (url.len() <= 1024
            && (url.starts_with("http://") || url.starts_with("https://"))
            && http::HeaderValue::from_str(url).is_ok());
    if !good {
        return Err(ApiError::new(
            "InvalidParameterValue.InvalidUrl",
            "`LoginRedirectUrl` begins with http:// or https://.",
        ));
    }
    Ok(rules)
}

fn auth(fields: Fields<'_>) -> Result<Auth, ApiError> {
    let by_switch = fields.flag("AuthRequired")?.map(|on| if on { "SECRET" } else { "NONE" }.to_owned());
    let kind = fields.text_or("AuthType")?.or(by_switch).unwrap_or_else(|| "NONE".into());
    match kind.as_str() {
        "NONE" => Ok(Auth::None),
        "SECRET" => Ok(Auth::Secret),
        "OAUTH" => match fields.text_or("ApiBusinessType")?.as_deref() {
            Some("OAUTH") => Ok(Auth::Issuer(token_rules(fields)?)),
            None | Some("NORMAL") => Ok(Auth::Token { issuer: fields.text("AuthRelationApiId")? }),
            Some(other) => {
                let message = not_one_of("ApiBusinessType", other, &["NORMAL", "OAUTH"]).message;
                Err(ApiError::new("InvalidParameterValue.InvalidApiBusinessType", message))
            }
        },
        other => Err(not_one_of("AuthType", other, &["NONE", "SECRET", "OAUTH"])),
    }
}

fn parameters(fields: Fields<'_>, template: &Template) -> Result<Vec<Parameter>, ApiError> {
    let bad = |message: String| ApiError::new("InvalidParameterValue.InvalidRequestParameters", message);
    let mut found: Vec<Parameter> = Vec::new();
    for item in fields.objects("RequestParameters")? {
        item.known(&["Name", "Desc", "Position", "Type", "DefaultValue", "Required"])?;
        let name = item.text("Name")?;
        let place = item.text("Position")?;
        let position = Position::parse(&place)
            .ok_or_else(|| bad(not_one_of("Position", &place, &["PATH", "QUERY", "HEADER"]).message))?;
        let kind = item.text_or("Type")?.unwrap_or_else(|| "string".into()).to_ascii_lowercase();
        if !KINDS.contains(&kind.as_str()) {
            return Err(bad(not_one_of("Type", &kind, &KINDS).message));
        }
        if name.len() > 128 || (position == Position::Header && http::HeaderName::from_bytes(name.as_bytes()).is_err())
        {
            return Err(bad(format!("`{}` is no name of a parameter.", clip(&name))));
        }
        if position == Position::Path && !template.names().any(|n| n == name) {
            return Err(bad(format!("The path has no parameter `{{{}}}`.", clip(&name))));
        }
        if found.iter().any(|p| p.name == name && p.position == position) {
            return Err(bad(format!("There are two parameters `{}`.", clip(&name))));
        }
        found.push(Parameter {
            name,
            position,
            kind,
            default: item.free_text("DefaultValue", 1000)?,
            required: item.flag("Required")?.unwrap_or(false),
            description: item.free_text("Desc", 1000)?,
        });
    }
    if found.len() > PARAMETERS_MAX {
        return Err(bad(format!("An API has at most {PARAMETERS_MAX} parameters.")));
    }
    Ok(found)
}

fn shown(fields: Fields<'_>) -> Result<BTreeMap<String, Value>, ApiError> {
    let values = SHOWN.iter().filter_map(|name| Some(((*name).to_owned(), fields.0.get(*name)?.clone())));
    let found: BTreeMap<String, Value> = values.filter(|(_, value)| !value.is_null()).collect();
    if serde_json::to_string(&found).map_or(usize::MAX, |text| text.len()) > SHOWN_BYTES_MAX {
        let message = format!("{} together have at most {SHOWN_BYTES_MAX} bytes.", SHOWN.join(", "));
        return Err(ApiError::new("InvalidParameterValue.LengthExceeded", message));
    }
    Ok(found)
}

/// Reads the parameters of CreateApi and ModifyApi.
fn read(cx: Cx<'_>, fields: Fields<'_>, service: &str) -> Result<ApiRecord, ApiError> {
    for name in UNSUPPORTED {
        let value = fields.0.get(name);
        let empty = value.is_none_or(|v| v.is_null() || *v == json!("") || *v == json!([]) || *v == json!({}));
        if !empty {
            let message = format!("`{name}` is not supported by this platform.");
            return Err(ApiError::new("InvalidParameterValue.UnsupportedParameter", message));
        }
    }
    match fields.text_or("ApiType")?.as_deref() {
        None | Some("NORMAL") => {}
        Some(other) => {
            let message = not_one_of("ApiType", other, &["NORMAL"]).message;
            return Err(ApiError::new("InvalidParameterValue.InvalidApiType", message));
        }
    }
    let request = fields.object("RequestConfig")?.ok_or_else(|| ApiError::missing("RequestConfig"))?;
    let backend = backend(cx, fields)?;
    let (path, method) = route(request.text("Path")?, request.text_or("Method")?, &backend)?;
    let template = Template::parse(&path).map_err(|why| bad_route(&why))?;
    let timeout_s = fields.number("ServiceTimeout")?.unwrap_or(i64::from(TIMEOUT_DEFAULT_S));
    if !(1..=TIMEOUT_MAX_S).contains(&timeout_s) {
        let message = format!("`ServiceTimeout` is 1 to {TIMEOUT_MAX_S} seconds.");
        return Err(ApiError::new("InvalidParameterValue.RangeExceeded", message));
    }
    let response_type = fields.text_or("ResponseType")?.unwrap_or_default();
    if !response_type.is_empty() && !RESPONSES.contains(&response_type.as_str()) {
        return Err(not_one_of("ResponseType", &response_type, &RESPONSES));
    }
    Ok(ApiRecord {
        id: new_id("api"),
        service: service.to_owned(),
        name: fields.free_text("ApiName", 60)?,
        description: fields.free_text("ApiDesc", 1000)?,
        path,
        method,
        parameters: parameters(fields, &template)?,
        backend,
        auth: auth(fields)?,
        cors: fields.flag("EnableCORS")?.unwrap_or(false),
        timeout_s: u32::try_from(timeout_s).unwrap_or(TIMEOUT_DEFAULT_S),
        response_type,
        base64: fields.flag("IsBase64Encoded")?.unwrap_or(false),
        limits: BTreeMap::new(),
        push_token: random_text(32),
        trigger: None,
        shown: shown(fields)?,
        created_ms: cx.now_ms,
        modified_ms: cx.now_ms,
    })
}

fn bad_route(why: &str) -> ApiError {
    ApiError::new("InvalidParameterValue.InvalidApiRequestConfig", format!("`RequestConfig` is not usable: {why}."))
}

/// A path and a method that an API can have.
pub fn route(path: String, method: Option<String>, backend: &Backend) -> Result<(String, String), ApiError> {
    Template::parse(&path).map_err(|why| bad_route(&why))?;
    let method = method.map_or_else(|| "ANY".into(), |m| m.to_ascii_uppercase());
    if !METHODS.contains(&method.as_str()) {
        let message = not_one_of("Method", &method, &METHODS).message;
        return Err(ApiError::new("InvalidParameterValue.InvalidMethod", message));
    }
    if matches!(backend, Backend::WebSocket(_)) && !matches!(method.as_str(), "GET" | "ANY") {
        let message = "A WebSocket begins with a GET: `Method` is GET or ANY.";
        return Err(ApiError::new("InvalidParameterValue.InvalidWSMethod", message));
    }
    Ok((path, method))
}

/// Errors: what keeps an API from standing beside the others of its service.
pub fn check_place(state: &State, api: &ApiRecord) -> Result<(), ApiError> {
    state.service(&api.service)?;
    let template = Template::parse(&api.path).map_err(|why| bad_route(&why))?;
    let mut count = 0;
    for other in state.apis_of(&api.service).filter(|other| other.id != api.id) {
        count += 1;
        if other.method == api.method && Template::parse(&other.path).is_ok_and(|t| t.same(&template)) {
            let message =
                format!("The service has an API for {} {} already: `{}`.", api.method, clip(&api.path), other.id);
            return Err(ApiError::new("InvalidParameterValue.InvalidApiRequestConfig", message));
        }
    }
    if count >= APIS_MAX {
        let message = format!("The service has {APIS_MAX} APIs, which is the limit.");
        return Err(ApiError::new("LimitExceeded.ApiCountLimitExceeded", message));
    }
    if let Auth::Token { issuer } = &api.auth
        && state.token_rules(issuer).is_none()
    {
        let message =
            format!("`AuthRelationApiId`: there is no authorising API `{}` (`ApiBusinessType` OAUTH).", clip(issuer));
        return Err(ApiError::new("ResourceNotFound.InvalidOauthApi", message));
    }
    Ok(())
}

pub async fn create(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let service = fields.text("ServiceId")?;
    cx.gateway.state().service(&service)?;
    let api = read(cx, fields, &service)?;
    let shown = answer(json!({ "Result": {
        "ApiId": api.id, "Path": api.path, "Method": api.method, "CreatedTime": time(api.created_ms),
    }}));
    cx.gateway
        .change(move |state| {
            check_place(state, &api)?;
            Ok((vec![Edit::Api(Box::new(api))], ()))
        })
        .await?;
    Ok(shown)
}

pub async fn modify(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let (service, id) = (fields.text("ServiceId")?, fields.text("ApiId")?);
    cx.gateway.state().api(&service, &id)?;
    let new = read(cx, fields, &service)?;
    cx.gateway
        .change(move |state| {
            let old = state.api(&service, &id)?;
            if old.protocol() != new.protocol() {
                let message = "An API stays what it is, HTTP or WEBSOCKET; create another one.";
                return Err(ApiError::new("UnsupportedOperation.ModifyProtocol", message));
            }
            let api = ApiRecord {
                id,
                limits: old.limits.clone(),
                push_token: old.push_token.clone(),
                trigger: old.trigger.clone(),
                created_ms: old.created_ms,
                ..new
            };
            check_place(state, &api)?;
            if !matches!(api.auth, Auth::Issuer(_)) {
                check_not_related(state, &api.id)?;
            }
            Ok((vec![Edit::Api(Box::new(api))], ()))
        })
        .await?;
    Ok(Answer::new())
}

pub async fn modify_tokens(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let (service, id) = (fields.text("ServiceId")?, fields.text("ApiId")?);
    match fields.text("BusinessType")?.as_str() {
        "OAUTH" => {}
        other => return Err(not_one_of("BusinessType", other, &["OAUTH"])),
    }
    let (key, url) = (fields.text_or("PublicKey")?, fields.text_or("LoginRedirectUrl")?);
    if key.is_none() && url.is_none() {
        let message = "Neither `PublicKey` nor `LoginRedirectUrl` is given.";
        return Err(ApiError::new("InvalidParameterValue.NothingModifyForOauth", message));
    }
    cx.gateway
        .change(move |state| {
            let mut api = ApiRecord::clone(state.api(&service, &id)?);
            let Auth::Issuer(rules) = &api.auth else {
                let message = format!("`{id}` is no authorising API.");
                return Err(ApiError::new("ResourceNotFound.InvalidOauthApi", message));
            };
            let rules = TokenRules {
                public_key: key.unwrap_or_else(|| rules.public_key.clone()),
                login_url: url.unwrap_or_else(|| rules.login_url.clone()),
                location: rules.location.clone(),
            };
            api.auth = Auth::Issuer(check_rules(rules)?);
            api.modified_ms = cx.now_ms;
            Ok((vec![Edit::Api(Box::new(api))], ()))
        })
        .await?;
    Ok(Answer::new())
}

fn check_not_related(state: &State, id: &str) -> Result<(), ApiError> {
    let related = state.apis.values().find(|api| matches!(&api.auth, Auth::Token { issuer } if issuer == id));
    match related {
        None => Ok(()),
        Some(api) => {
            let message = format!("The API `{}` verifies its tokens with this one.", api.id);
            Err(ApiError::new("UnsupportedOperation.ResourceIsInUse", message))
        }
    }
}

pub async fn delete(cx: Cx<'_>, fields: Fields<'_>) -> Result<Answer, ApiError> {
    let (service, id) = (fields.text("ServiceId")?, fields.text("ApiId")?);
    cx.gateway
        .change(move |state| {
            state.service(&service)?;
            state.api(&service, &id)?;
            check_not_related(state, &id)?;
            let bound =
                |plan: &&std::sync::Arc<PlanRecord>| plan.bindings.iter().any(|b| b.api.as_deref() == Some(&id));
            if let Some(plan) = state.plans.values().find(bound) {
                let message =
                    format!("The usage plan `{}` is bound to the API; call UnBindEnvironment first.", plan.id);
                return Err(ApiError::new("FailedOperation.ApiBindEnvironment", message));
            }
            Ok((vec![Edit::DropApi(id)], ()))
        })
        .await?;
    Ok(answer(json!({ "Result": true })))
}
