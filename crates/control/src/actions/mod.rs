//! What the actions do. One file for each group; each action is one `Run` implementation.

pub(crate) mod aliases;
pub(crate) mod api_triggers;
pub(crate) mod async_events;
pub(crate) mod bound;
pub(crate) mod certificates;
pub(crate) mod common;
pub(crate) mod config;
pub(crate) mod domains;
pub(crate) mod event_policy;
pub(crate) mod failures;
pub(crate) mod functions;
pub(crate) mod installs;
pub(crate) mod invoke;
pub(crate) mod layers;
pub(crate) mod logs;
pub(crate) mod namespaces;
pub(crate) mod packages;
pub(crate) mod provisioned;
pub(crate) mod quotas;
pub(crate) mod read;
pub(crate) mod scaling;
pub(crate) mod service;
pub(crate) mod targets;
pub(crate) mod trigger_desc;
pub(crate) mod triggers;
pub(crate) mod versions;

use crate::api::requests::{self, ActionSpec};
use crate::api::schema::{self, Source, Wire, fields_of};
use crate::callers::Caller;
use crate::control::Inner;
use async_trait::async_trait;
use mayfly_model::{ApiError, RequestId};
use mayfly_sign::Params;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The fields of an answer.
pub(crate) type Answer = Map<String, Value>;

/// What an action knows beside its parameters.
#[derive(Clone, Copy)]
pub(crate) struct Cx<'a> {
    /// The parts of the platform.
    pub control: &'a Inner,
    /// Region that the client named; empty when it named none.
    pub region: &'a str,
    /// `Host` that the client used, without scheme, for URLs that lead back here.
    pub host: &'a str,
    /// Fields that are only stored and shown.
    pub shown: &'a Map<String, Value>,
    /// Now, in milliseconds since the epoch.
    pub now_ms: u64,
}

/// An action that answers with a few fields. (Invoke and InvokeFunction write their answers by hand.)
#[async_trait]
pub(crate) trait Run: Wire + DeserializeOwned + Send + Sync {
    /// Does it.
    async fn run(self, cx: Cx<'_>) -> Result<Answer, ApiError>;
}

/// What is known of a call before its parameters are read; the fields are those of [`Cx`].
#[derive(Clone, Copy)]
pub(crate) struct CallCx<'a> {
    pub control: &'a Inner,
    /// Id of this call, and of the invocation that it may start.
    pub request_id: RequestId,
    pub region: &'a str,
    pub host: &'a str,
    pub caller: &'a Caller,
}

/// Reads parameters by the action's declaration. Returns the request and the fields that are only shown.
pub(crate) fn read<T: Wire + DeserializeOwned>(params: Params) -> Result<(T, Map<String, Value>), ApiError> {
    let (value, source) = match params {
        Params::Json(body) if body.trim_ascii().is_empty() => (Value::Object(Map::new()), Source::Json),
        Params::Json(body) => match serde_json::from_slice(&body) {
            Ok(value) => (value, Source::Json),
            Err(error) => {
                let message = format!("The request body is not valid JSON: {error}.");
                return Err(ApiError::new("InvalidParameter", message));
            }
        },
        Params::Tree(value) => (value, Source::Text),
    };
    let mut checked = schema::check(fields_of::<T>(), value, source)?;
    let shown = schema::take_shown(fields_of::<T>(), &mut checked);
    match serde_json::from_value(Value::Object(checked)) {
        Ok(request) => Ok((request, shown)),
        Err(error) => Err(ApiError::new("InvalidParameter", format!("The parameters cannot be read: {error}."))),
    }
}

async fn run<T: Run>(cx: CallCx<'_>, params: Params) -> Result<Answer, ApiError> {
    let (request, shown) = read::<T>(params)?;
    let CallCx { control, region, host, .. } = cx;
    let now_ms = control.clock.now_ms();
    request.run(Cx { control, region, host, shown: &shown, now_ms }).await
}

macro_rules! actions {
    (by_hand: [$($hand:ident),*], table: [$($name:ident),* $(,)?]) => {
        /// Every action that is built.
        pub const BUILT: &[ActionSpec] = &[
            $(ActionSpec {
                name: stringify!($name),
                doc: requests::$name::DOC,
                fields: fields_of::<requests::$name>(),
            },)*
            $(ActionSpec {
                name: stringify!($hand),
                doc: requests::$hand::DOC,
                fields: fields_of::<requests::$hand>(),
            },)*
        ];

        /// Runs an action of the table; `InvalidAction` for any other name.
        pub(crate) async fn dispatch(cx: CallCx<'_>, action: &str, params: Params) -> Result<Answer, ApiError> {
            match action {
                $(stringify!($name) => run::<requests::$name>(cx, params).await,)*
                other => Err(invalid_action(other)),
            }
        }
    };
}

actions! {
    by_hand: [Invoke, InvokeFunction],
    table: [
        CreateFunction,
        UpdateFunctionCode,
        UpdateFunctionConfiguration,
        GetFunction,
        ListFunctions,
        DeleteFunction,
        CopyFunction,
        GetFunctionAddress,
        GetInstallLog,
        GetFunctionLogs,
        GetRequestStatus,
        GetAsyncEventStatus,
        ListAsyncEvents,
        TerminateAsyncEvent,
        PublishVersion,
        ListVersionByFunction,
        DeleteFunctionVersion,
        CreateAlias,
        UpdateAlias,
        DeleteAlias,
        GetAlias,
        ListAliases,
        CreateNamespace,
        UpdateNamespace,
        DeleteNamespace,
        ListNamespaces,
        PublishLayerVersion,
        GetLayerVersion,
        DeleteLayerVersion,
        ListLayers,
        ListLayerVersions,
        PutReservedConcurrencyConfig,
        GetReservedConcurrencyConfig,
        DeleteReservedConcurrencyConfig,
        PutProvisionedConcurrencyConfig,
        GetProvisionedConcurrencyConfig,
        DeleteProvisionedConcurrencyConfig,
        GetAccount,
        PutFunctionScaling,
        GetForecast,
        ListDemand,
        CreateTrigger,
        DeleteTrigger,
        UpdateTrigger,
        UpdateTriggerStatus,
        ListTriggers,
        GetTrigger,
        UpdateFunctionEventInvokeConfig,
        GetFunctionEventInvokeConfig,
        PutFunctionFailures,
        GetFunctionFailures,
        PutFunctionDestinations,
        GetFunctionDestinations,
        ListFailures,
        GetFailure,
        DeleteFailures,
        ReplayFailures,
        ListReplayJobs,
        GetReplayJob,
        CancelReplayJob,
        CreateCustomDomain,
        UpdateCustomDomain,
        DeleteCustomDomain,
        GetCustomDomain,
        ListCustomDomains,
        PutCertificate,
        ListCertificates,
        DeleteCertificate,
    ]
}

/// `InvalidAction`: unknown, or published and not built.
pub(crate) fn invalid_action(action: &str) -> ApiError {
    let message = match requests::NOT_BUILT.iter().find(|(name, _)| *name == action) {
        Some((name, what)) => format!("The action `{name}` is not supported by this platform yet ({what})."),
        None => format!("There is no action `{}` in SCF 2018-04-16.", crate::catalogue::clip(action)),
    };
    ApiError::new("InvalidAction", message)
}
