//! API Gateway's API, version 2018-08-08: what real clients need of it. Source of actions, fields and codes: its published models.

pub(crate) mod apis;
mod fields;
mod keys;
mod plans;
pub(crate) mod services;
mod shown;
pub(crate) mod stages;

pub use fields::Fields;
pub use shown::push_url;

use crate::records::{FunctionRef, Stage};
use crate::state::{Gateway, clip};
use mayfly_model::ApiError;
use serde_json::{Map, Value};
use std::sync::Arc;

/// The version of the API.
pub const VERSION: &str = "2018-08-08";
/// The name of the service in signatures.
pub const SERVICE: &str = "apigateway";

/// Most services.
pub const SERVICES_MAX: usize = 200;
/// Most APIs of a service.
pub const APIS_MAX: usize = 500;
/// Most keys.
pub const KEYS_MAX: usize = 500;
/// Most usage plans.
pub const PLANS_MAX: usize = 200;
/// Most keys of a plan, and most of its bindings.
pub const PLAN_LINKS_MAX: usize = 500;
/// Most requests per second that a limit can say.
pub const RATE_MAX: i64 = 100_000;

/// What a function is to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionKind {
    /// It takes events.
    Event,
    /// It takes HTTP requests.
    Http,
}

/// What the gateway asks of those who know functions.
pub trait Functions: Send + Sync {
    /// What a function is. Errors: a sentence for the client when it, or the version or alias, is not there.
    fn kind(&self, function: &FunctionRef) -> Result<FunctionKind, String>;
}

/// What an action knows beside its parameters.
#[derive(Clone, Copy)]
pub struct Cx<'a> {
    /// The configuration.
    pub gateway: &'a Arc<Gateway>,
    /// Who knows functions.
    pub functions: &'a dyn Functions,
    /// What follows a service's id in hosts.
    pub domain: &'a str,
    /// The host that the client used for the API, with its port.
    pub host: &'a str,
    /// Now, in milliseconds since the epoch.
    pub now_ms: u64,
}

impl Cx<'_> {
    /// The host of a service, with the port at which the client reached the platform.
    pub fn sub_domain(&self, service: &str) -> String {
        sub_domain(service, self.domain, self.host)
    }
}

/// The host of a service; `host` is what a client called the platform.
pub fn sub_domain(service: &str, domain: &str, host: &str) -> String {
    let port =
        host.rsplit_once(':').map(|(_, port)| port).filter(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    match port {
        Some(port) => format!("{service}.{domain}:{port}"),
        None => format!("{service}.{domain}"),
    }
}

/// The fields of an answer.
pub type Answer = Map<String, Value>;

pub(crate) fn answer(value: Value) -> Answer {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// A time as the API writes it.
pub(crate) fn time(ms: u64) -> String {
    let at = i64::try_from(ms).ok().and_then(chrono::DateTime::from_timestamp_millis).unwrap_or_default();
    at.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A new id: `kind-` and eight letters and digits.
pub(crate) fn new_id(kind: &str) -> String {
    format!("{kind}-{}", random_text(8))
}

/// Random small letters and digits.
pub(crate) fn random_text(length: usize) -> String {
    const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut text = String::new();
    while text.len() < length {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).expect("the system's random generator works once the system is up");
        // 252 is the largest multiple of 36 in a byte: larger bytes would favour some letters.
        let good = bytes.into_iter().filter(|b| *b < 252).map(|b| char::from(LETTERS[usize::from(b % 36)]));
        text.extend(good.take(length - text.len()));
    }
    text
}

/// An environment. Errors: `InvalidParameterValue.InvalidEnv`.
pub(crate) fn stage(text: &str) -> Result<Stage, ApiError> {
    Stage::parse(text).ok_or_else(|| {
        let message = format!("There is no environment `{}`; there are release, prepub and test.", clip(text));
        ApiError::new("InvalidParameterValue.InvalidEnv", message)
    })
}

/// A limit of requests per second: −1 for none. Errors: `InvalidParameterValue.TrafficControl`.
pub(crate) fn rate(name: &str, number: i64) -> Result<Option<u32>, ApiError> {
    match number {
        -1 => Ok(None),
        0..=RATE_MAX => Ok(u32::try_from(number).ok()),
        _ => {
            let message = format!("`{name}` is -1 (no limit) or 0 to {RATE_MAX} requests per second.");
            Err(ApiError::new("InvalidParameterValue.TrafficControl", message))
        }
    }
}

/// A name. Errors: `InvalidParameterValue.LengthExceeded`.
pub(crate) fn check_name(field: &str, name: &str) -> Result<(), ApiError> {
    if name.trim().is_empty() || name.chars().nth(50).is_some() || name.chars().any(char::is_control) {
        let message = format!("`{field}` has 1 to 50 characters, and no control characters.");
        return Err(ApiError::new("InvalidParameterValue.LengthExceeded", message));
    }
    Ok(())
}

macro_rules! actions {
    ($($name:literal => $function:path, [$($field:literal),* $(,)?];)+) => {
        /// Every action that is built, with its parameters.
        pub const BUILT: &[(&str, &[&str])] = &[$(($name, &[$($field),*])),+];

        /// Does what an action asks for. Errors: `InvalidAction`, `UnknownParameter`, and the action's own.
        pub async fn handle(cx: Cx<'_>, action: &str, params: &Map<String, Value>) -> Result<Answer, ApiError> {
            let fields = Fields(params);
            match action {
                $($name => {
                    fields.known(&[$($field),*])?;
                    $function(cx, fields).await
                })+
                other => {
                    let message = format!("There is no action `{}` of API Gateway 2018-08-08 here; docs/apigw.md lists those that there are.", clip(other));
                    Err(ApiError::new("InvalidAction", message))
                }
            }
        }
    };
}

#[rustfmt::skip]
actions! {
    "CreateService" => services::create, ["ServiceName", "Protocol", "ServiceDesc", "NetTypes", "IpVersion", "SetServerName", "AppIdType", "Tags", "InstanceId", "UniqVpcId", "ExclusiveSetName"];
    "DescribeService" => services::describe, ["ServiceId"];
    "DescribeServicesStatus" => services::list, ["Limit", "Offset", "Filters"];
    "ModifyService" => services::modify, ["ServiceId", "ServiceName", "ServiceDesc", "Protocol", "NetTypes", "UniqVpcId"];
    "DeleteService" => services::delete, ["ServiceId", "SkipVerification"];
    "DescribeServiceSubDomains" => services::sub_domains, ["ServiceId", "Limit", "Offset"];
    "ReleaseService" => stages::release, ["ServiceId", "EnvironmentName", "ReleaseDesc", "ApiIds"];
    "UnReleaseService" => stages::unrelease, ["ServiceId", "EnvironmentName", "ApiIds"];
    "UpdateService" => stages::switch, ["ServiceId", "EnvironmentName", "VersionName", "UpdateDesc"];
    "DescribeServiceEnvironmentList" => stages::environments, ["ServiceId", "Limit", "Offset"];
    "DescribeServiceReleaseVersion" => stages::versions, ["ServiceId", "Limit", "Offset"];
    "DescribeServiceEnvironmentReleaseHistory" => stages::history, ["ServiceId", "EnvironmentName", "Limit", "Offset"];
    "ModifyServiceEnvironmentStrategy" => stages::limit_service, ["ServiceId", "Strategy", "EnvironmentNames"];
    "DescribeServiceEnvironmentStrategy" => stages::service_limits, ["ServiceId", "Limit", "Offset"];
    "ModifyApiEnvironmentStrategy" => stages::limit_apis, ["ServiceId", "Strategy", "EnvironmentName", "ApiIds"];
    "DescribeApiEnvironmentStrategy" => stages::api_limits, ["ServiceId", "EnvironmentNames", "ApiId", "Limit", "Offset"];
    "CreateApi" => apis::create, ["ServiceId", "ServiceType", "ServiceTimeout", "Protocol", "RequestConfig", "ApiName", "ApiDesc", "ApiType", "AuthType", "AuthRequired", "EnableCORS", "ConstantParameters", "RequestParameters", "ApiBusinessType", "ServiceMockReturnMessage", "MicroServices", "ServiceTsfLoadBalanceConf", "ServiceTsfHealthCheckConf", "TargetServices", "TargetServicesLoadBalanceConf", "TargetServicesHealthCheckConf", "ServiceScfFunctionName", "ServiceWebsocketRegisterFunctionName", "ServiceWebsocketCleanupFunctionName", "ServiceWebsocketTransportFunctionName", "ServiceScfFunctionNamespace", "ServiceScfFunctionQualifier", "ServiceWebsocketRegisterFunctionNamespace", "ServiceWebsocketRegisterFunctionQualifier", "ServiceWebsocketTransportFunctionNamespace", "ServiceWebsocketTransportFunctionQualifier", "ServiceWebsocketCleanupFunctionNamespace", "ServiceWebsocketCleanupFunctionQualifier", "ServiceScfIsIntegratedResponse", "IsDebugAfterCharge", "IsDeleteResponseErrorCodes", "ResponseType", "ResponseSuccessExample", "ResponseFailExample", "ServiceConfig", "AuthRelationApiId", "ServiceParameters", "OauthConfig", "ResponseErrorCodes", "TargetNamespaceId", "UserType", "IsBase64Encoded", "EventBusId", "ServiceScfFunctionType", "ServiceScfEventIsAsyncCall", "EIAMAppType", "EIAMAuthType", "TokenTimeout", "EIAMAppId", "Owner"];
    "ModifyApi" => apis::modify, ["ServiceId", "ApiId", "ServiceType", "ServiceTimeout", "Protocol", "RequestConfig", "ApiName", "ApiDesc", "ApiType", "AuthType", "AuthRequired", "EnableCORS", "ConstantParameters", "RequestParameters", "ApiBusinessType", "ServiceMockReturnMessage", "MicroServices", "ServiceTsfLoadBalanceConf", "ServiceTsfHealthCheckConf", "TargetServices", "TargetServicesLoadBalanceConf", "TargetServicesHealthCheckConf", "ServiceScfFunctionName", "ServiceWebsocketRegisterFunctionName", "ServiceWebsocketCleanupFunctionName", "ServiceWebsocketTransportFunctionName", "ServiceScfFunctionNamespace", "ServiceScfFunctionQualifier", "ServiceWebsocketRegisterFunctionNamespace", "ServiceWebsocketRegisterFunctionQualifier", "ServiceWebsocketTransportFunctionNamespace", "ServiceWebsocketTransportFunctionQualifier", "ServiceWebsocketCleanupFunctionNamespace", "ServiceWebsocketCleanupFunctionQualifier", "ServiceScfIsIntegratedResponse", "IsDebugAfterCharge", "TagSpecifications", "IsDeleteResponseErrorCodes", "ResponseType", "ResponseSuccessExample", "ResponseFailExample", "ServiceConfig", "AuthRelationApiId", "ServiceParameters", "OauthConfig", "ResponseErrorCodes", "IsBase64Encoded", "IsBase64Trigger", "Base64EncodedTriggerRules", "EventBusId", "ServiceScfFunctionType", "ServiceScfEventIsAsyncCall", "EIAMAppType", "EIAMAuthType", "EIAMAppId", "TokenTimeout"];
    "ModifyApiIncrement" => apis::modify_tokens, ["ServiceId", "ApiId", "BusinessType", "PublicKey", "LoginRedirectUrl"];
    "DescribeApi" => shown::describe, ["ServiceId", "ApiId"];
    "DeleteApi" => apis::delete, ["ServiceId", "ApiId"];
    "DescribeApisStatus" => shown::list, ["ServiceId", "Offset", "Limit", "Filters"];
    "CreateApiKey" => keys::create, ["SecretName", "AccessKeyType", "AccessKeyId", "AccessKeySecret", "Tags"];
    "DescribeApiKey" => keys::describe, ["AccessKeyId"];
    "DescribeApiKeysStatus" => keys::list, ["Limit", "Offset", "Filters"];
    "EnableApiKey" => keys::enable, ["AccessKeyId"];
    "DisableApiKey" => keys::disable, ["AccessKeyId"];
    "DeleteApiKey" => keys::delete, ["AccessKeyId"];
    "UpdateApiKey" => keys::update, ["AccessKeyId", "AccessKeySecret"];
    "CreateUsagePlan" => plans::create, ["UsagePlanName", "UsagePlanDesc", "MaxRequestNum", "MaxRequestNumPreSec", "Tags"];
    "DescribeUsagePlan" => plans::describe, ["UsagePlanId"];
    "DescribeUsagePlansStatus" => plans::list, ["Limit", "Offset", "Filters"];
    "ModifyUsagePlan" => plans::modify, ["UsagePlanId", "UsagePlanName", "UsagePlanDesc", "MaxRequestNum", "MaxRequestNumPreSec"];
    "DeleteUsagePlan" => plans::delete, ["UsagePlanId"];
    "BindSecretIds" => plans::bind_keys, ["UsagePlanId", "AccessKeyIds"];
    "UnBindSecretIds" => plans::unbind_keys, ["UsagePlanId", "AccessKeyIds"];
    "BindEnvironment" => plans::bind, ["UsagePlanIds", "BindType", "Environment", "ServiceId", "ApiIds"];
    "UnBindEnvironment" => plans::unbind, ["UsagePlanIds", "BindType", "Environment", "ServiceId", "ApiIds"];
    "DescribeUsagePlanEnvironments" => plans::environments, ["UsagePlanId", "BindType", "Limit", "Offset"];
    "DescribeUsagePlanSecretIds" => plans::secret_ids, ["UsagePlanId", "Limit", "Offset"];
    "DescribeServiceUsagePlan" => plans::of_service, ["ServiceId", "Limit", "Offset"];
    "DescribeApiUsagePlan" => plans::of_apis, ["ServiceId", "Limit", "Offset"];
}
