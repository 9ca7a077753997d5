//! The actions of the API (SCF 2018-04-16) that the commands use: requests, and of the answers the fields that are shown.
//! Answers are read leniently, since other servers of this API leave fields out.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// An action: its fields are the request.
pub trait Action: Serialize {
    /// `X-TC-Action`.
    const NAME: &'static str;
    /// The fields of the answer.
    type Answer: DeserializeOwned;
}

macro_rules! actions {
    ($($(#[doc = $doc:literal])+ $name:ident -> $answer:ty { $($field:ident $(= $wire:literal)?: $type:ty),* $(,)? })+) => {$(
        $(#[doc = $doc])+
        #[derive(Clone, Debug, Default, Serialize)]
        #[serde(rename_all = "PascalCase")]
        pub struct $name {
            $($(#[serde(rename = $wire)])? #[serde(skip_serializing_if = "is_absent")] pub $field: $type,)*
        }

        impl Action for $name {
            const NAME: &'static str = stringify!($name);
            type Answer = $answer;
        }
    )+};
}

/// A value that is left out of a request when it is the default.
trait Absent {
    fn absent(&self) -> bool;
}

impl<T> Absent for Option<T> {
    fn absent(&self) -> bool {
        self.is_none()
    }
}

impl Absent for String {
    fn absent(&self) -> bool {
        self.is_empty()
    }
}

impl<T> Absent for Vec<T> {
    fn absent(&self) -> bool {
        self.is_empty()
    }
}

macro_rules! never_absent {
    ($($type:ty),*) => {$(impl Absent for $type {
        fn absent(&self) -> bool {
            false
        }
    })*};
}

never_absent!(u64, Code, FailureFilter);

fn is_absent(value: &impl Absent) -> bool {
    value.absent()
}

actions! {
    /// Creates a function.
    CreateFunction -> Nothing {
        function_name: String, namespace: String, runtime: String, handler: String, code: Code,
        description: Option<String>, role: Option<String>, memory_size: Option<u64>, timeout: Option<u64>, init_timeout: Option<u64>,
        environment: Option<Environment>, layers: Option<Vec<LayerRef>>, public_net_config: Option<PublicNet>,
        fork_mode: Option<String>, kind = "Type": Option<String>, instance_concurrency_config: Option<Concurrency>,
        install_dependency: Option<String>, dead_letter_config: Option<DeadLetter>,
    }
    /// Replaces the code of `$LATEST`.
    UpdateFunctionCode -> Nothing {
        function_name: String, namespace: String, zip_file: String, handler: Option<String>, install_dependency: Option<String>,
    }
    /// Tells how an install of dependencies goes. Not an action of SCF.
    GetInstallLog -> InstallLog { function_name: String, namespace: String, offset: Option<u64> }
    /// Changes settings of `$LATEST`.
    UpdateFunctionConfiguration -> Nothing {
        function_name: String, namespace: String, description: Option<String>, role: Option<String>, memory_size: Option<u64>,
        timeout: Option<u64>, init_timeout: Option<u64>, environment: Option<Environment>,
        layers: Option<Vec<LayerRef>>, public_net_config: Option<PublicNet>, fork_mode: Option<String>,
        instance_concurrency_config: Option<Concurrency>, dead_letter_config: Option<DeadLetter>,
    }
    /// Shows a function.
    GetFunction -> Function { function_name: String, namespace: String, qualifier: Option<String> }
    /// Says where the package is, and its SHA-256.
    GetFunctionAddress -> Address { function_name: String, namespace: String, qualifier: Option<String> }
    /// Lists functions.
    ListFunctions -> Functions { namespace: String, offset: u64, limit: u64, order: String, order_by = "Orderby": String }
    /// Deletes a function or one version of it.
    DeleteFunction -> Nothing { function_name: String, namespace: String, qualifier: Option<String> }
    /// Runs a function.
    Invoke -> Invoked {
        function_name: String, namespace: String, qualifier: String, invocation_type: String,
        client_context: String, log_type: Option<String>,
    }
    /// Shows log records.
    GetFunctionLogs -> Logs {
        function_name: String, namespace: String, qualifier: Option<String>, function_request_id: Option<String>,
        filter: Option<LogFilter>, start_time: Option<String>, end_time: Option<String>, order: String,
        order_by: String, offset: u64, limit: u64,
    }
    /// Publishes a version.
    PublishVersion -> Published { function_name: String, namespace: String, description: Option<String> }
    /// Lists versions.
    ListVersionByFunction -> Versions { function_name: String, namespace: String, offset: u64, limit: u64 }
    /// Creates an alias.
    CreateAlias -> Nothing {
        name: String, function_name: String, function_version: String, namespace: String,
        routing_config: Option<Routing>, description: Option<String>,
    }
    /// Shows an alias.
    GetAlias -> Alias { name: String, function_name: String, namespace: String }
    /// Lists aliases. Offset and limit are texts in this action.
    ListAliases -> Aliases { function_name: String, namespace: String, offset: String, limit: String }
    /// Deletes an alias.
    DeleteAlias -> Nothing { name: String, function_name: String, namespace: String }
    /// Binds a function to what calls it: gives it a URL, or events.
    CreateTrigger -> Nothing {
        function_name: String, namespace: String, trigger_name: String, kind = "Type": String, qualifier: String,
        trigger_desc: String, enable: Option<String>, custom_argument: Option<String>, description: Option<String>,
    }
    /// Opens or closes a trigger.
    UpdateTriggerStatus -> Nothing {
        function_name: String, namespace: String, trigger_name: String, kind = "Type": String, trigger_desc: String,
        enable: String,
    }
    /// Lists the triggers of a function.
    ListTriggers -> Triggers { function_name: String, namespace: String, offset: u64, limit: u64, order_by: String, order: String }
    /// Changes a URL.
    UpdateTrigger -> Nothing {
        function_name: String, namespace: String, trigger_name: String, kind = "Type": String, qualifier: String,
        trigger_desc: String, enable: Option<String>,
    }
    /// Deletes a trigger.
    DeleteTrigger -> Nothing {
        function_name: String, namespace: String, trigger_name: String, kind = "Type": String, qualifier: String,
        trigger_desc: String,
    }
    /// Sets the bounds of a function's number of instances.
    PutFunctionScaling -> Nothing {
        function_name: String, namespace: String, min_instances: Option<u32>, max_instances: Option<u32>, forecast: Option<String>,
    }
    /// Shows what is foreseen of functions, and what each mode costs.
    GetForecast -> Forecasts { function_name: Option<String>, namespace: Option<String>, offset: u64, limit: u64 }
    /// Lists the minutes in which versions were called.
    ListDemand -> Demands { start_time: Option<u64>, end_time: Option<u64>, offset: u64, limit: u64 }
    /// Lists failures.
    ListFailures -> Failures { filter: FailureFilter, cursor: Option<String>, limit: u64 }
    /// Shows a failure.
    GetFailure -> FailureScene { function_request_id: String }
    /// Forgets failures.
    DeleteFailures -> Deleted { filter: FailureFilter, all: Option<bool> }
    /// Runs failures again.
    ReplayFailures -> Replaying {
        filter: FailureFilter, all: Option<bool>, qualifier: Option<String>, event: Option<String>, rate: Option<u64>,
        again: Option<bool>, dry_run: Option<bool>, client_token: Option<String>,
    }
    /// Lists replay jobs.
    ListReplayJobs -> ReplayJobs { offset: u64, limit: u64 }
    /// Shows a replay job.
    GetReplayJob -> Replaying { job_id: String }
    /// Ends the sending of a replay job.
    CancelReplayJob -> Replaying { job_id: String }
    /// Sets what is kept of a function's failures.
    PutFunctionFailures -> Nothing {
        function_name: String, namespace: String, capture: Option<bool>, retention_hours: Option<u64>,
    }
    /// Shows what is kept of a function's failures.
    GetFunctionFailures -> KeptFailures { function_name: String, namespace: String }
    /// Sets who hears of the ends of events.
    PutFunctionDestinations -> Nothing {
        function_name: String, namespace: String, on_success: Option<Destination>, on_failure: Option<Destination>,
    }
    /// Shows who hears of the ends of events.
    GetFunctionDestinations -> Destinations { function_name: String, namespace: String }
    /// Lists namespaces.
    ListNamespaces -> Namespaces { offset: u64, limit: u64, order: String, order_by = "Orderby": String }
    /// Creates a namespace.
    CreateNamespace -> Nothing { namespace: String, description: Option<String> }
    /// Deletes a namespace.
    DeleteNamespace -> Nothing { namespace: String }
    /// Publishes a version of a layer.
    PublishLayerVersion -> PublishedLayer {
        layer_name: String, compatible_runtimes: Vec<String>, content: Code, description: Option<String>,
    }
    /// Shows a version of a layer.
    GetLayerVersion -> LayerVersion { layer_name: String, layer_version: u64 }
    /// Lists layers.
    ListLayers -> Layers { offset: u64, limit: u64 }
    /// Lists the versions of a layer.
    ListLayerVersions -> LayerVersions { layer_name: String }
    /// Deletes a version of a layer.
    DeleteLayerVersion -> Nothing { layer_name: String, layer_version: u64 }
    /// Binds a domain.
    CreateCustomDomain -> Nothing {
        domain: String, protocol: String, endpoints_config: Vec<Endpoint>, cert_config: Option<CertConf>,
    }
    /// Changes a domain.
    UpdateCustomDomain -> Nothing {
        domain: String, protocol: Option<String>, endpoints_config: Option<Vec<Endpoint>>,
        cert_config: Option<CertConf>,
    }
    /// Shows a domain.
    GetCustomDomain -> Domain { domain: String }
    /// Lists domains.
    ListCustomDomains -> Domains { offset: u64, limit: u64, order: String, filters: Vec<Filter> }
    /// Deletes a domain.
    DeleteCustomDomain -> Nothing { domain: String }
    /// Stores a certificate and its key.
    PutCertificate -> Certificate {
        certificate_id: String, certificate_public_key: String, certificate_private_key: String,
    }
    /// Lists certificates.
    ListCertificates -> Certificates { offset: u64, limit: u64 }
    /// Deletes a certificate.
    DeleteCertificate -> Nothing { certificate_id: String }
}

/// Which failures are meant.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the options of the command line tell")]
pub struct FailureFilter {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub request_ids: Vec<String>,
    pub namespace: Option<String>,
    pub function_name: Option<String>,
    pub version: Option<String>,
    pub status_code: Option<u64>,
    pub source: Option<String>,
    pub error: Option<String>,
    pub start_time: Option<String>,
    pub end_time: Option<String>,
    pub resolved: Option<bool>,
    pub replays: Option<bool>,
}

/// Who gets a result; an empty kind: nobody.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Destination {
    /// `function`, `queue` or `topic`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Namespace of a function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Version or alias of a function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qualifier: Option<String>,
}

/// Re-points an alias; it takes the fields of [`CreateAlias`].
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct UpdateAlias(pub CreateAlias);

impl Action for UpdateAlias {
    const NAME: &'static str = "UpdateAlias";
    type Answer = Nothing;
}

macro_rules! objects {
    ($($(#[doc = $doc:literal])+ $name:ident { $($field:ident $(= $wire:literal)?: $type:ty),* $(,)? })+) => {$(
        $(#[doc = $doc])+
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        pub struct $name {
            $($(#[serde(rename = $wire)])? pub $field: $type,)*
        }
    )+};
}

objects! {
    /// An answer without fields.
    Nothing {}
    /// A package.
    Code { zip_file: String }
    /// Environment variables.
    Environment { variables: Vec<Variable> }
    /// One environment variable.
    Variable { key: String, value: String }
    /// A layer version that a function binds.
    LayerRef { layer_name: String, layer_version: u64 }
    /// Access to the outside: `ENABLE` or `DISABLE`.
    PublicNet { public_net_status: String }
    /// A function in the state of one version.
    Function {
        function_name: String, namespace: String, qualifier: String, function_version: String, description: String, role: String,
        handler: String, runtime: String, memory_size: u64, timeout: u64, init_timeout: u64,
        environment: Environment, layers: Vec<LayerRef>, public_net_config: PublicNet, fork_mode: String,
        code_size: u64, status: String, status_desc: String, status_reasons: Vec<StatusReason>, add_time: String,
        mod_time: String, kind = "Type": String, instance_concurrency_config: Concurrency, triggers: Vec<Trigger>,
        install_dependency: String, dead_letter_config: DeadLetter, failures: KeptFailures,
    }
    /// Where dead letters go.
    DeadLetter { kind = "Type": String, name: String, filter_type: String }
    /// What is kept of failures.
    KeptFailures { capture: bool, retention_hours: u64 }
    /// A page of failures.
    Failures { failures: Vec<Failure>, total_count: u64, next_cursor: String }
    /// A failure in a list.
    Failure {
        function_request_id: String, namespace: String, function_name: String, version: String, source: String,
        status_code: u64, error_message: String, failed_time: String, origin: String, resolved_by: String,
    }
    /// A failure with its scene.
    FailureScene {
        function_request_id: String, namespace: String, function_name: String, qualifier: String, version: String,
        source: String, status_code: u64, error_message: String, accepted_time: String, failed_time: String, origin: String,
        resolved_by: String, note: String, event: String, environment_names: Vec<String>, log: String, duration: f64,
        memory_size: u64, mem_usage: u64, cold_start: Option<FailureStart>, retry_num: u64, expire_time: String,
        replays: Vec<FailureReplay>,
    }
    /// The start that a failed request waited for.
    FailureStart { reason: String, kind: String, total: f64 }
    /// A replay of a failure.
    FailureReplay { function_request_id: String, job_id: String, state: String, status_code: u64, start_time: String }
    /// How many were forgotten.
    Deleted { deleted_count: u64 }
    /// A replay job, or with a dry run what it would be about.
    Replaying { job: ReplayJob, total_count: u64, failures: Vec<Failure> }
    /// Replay jobs.
    ReplayJobs { jobs: Vec<ReplayJob>, total_count: u64 }
    /// A replay job.
    ReplayJob {
        job_id: String, state: String, is_over: bool, create_time: String, total: u64, sent: u64, succeeded: u64, failed: u64,
    }
    /// Who hears of the ends of events.
    Destinations { on_success: Destination, on_failure: Destination, dead_letter_config: DeadLetter }
    /// A part of what an installer printed.
    InstallLog { status: String, lines: Vec<String>, next_offset: u64, cached: bool, duration_ms: u64 }
    /// Requests that an instance of a service takes at a time.
    Concurrency { dynamic_enabled: String, max_concurrency: u64 }
    /// A trigger. The description is JSON within a text.
    Trigger {
        trigger_name: String, kind = "Type": String, trigger_desc: String, qualifier: String, enable: u64,
        custom_argument: String, description: String,
    }
    /// A page of triggers.
    Triggers { triggers: Vec<Trigger>, total_count: u64 }
    /// Why a function is not active.
    StatusReason { error_code: String, error_message: String }
    /// Where a package is.
    Address { url: String, code_sha256: String, source_sha256: String }
    /// A page of functions.
    Functions { functions: Vec<FunctionItem>, total_count: u64 }
    /// A function in a list.
    FunctionItem {
        function_name: String, namespace: String, runtime: String, status: String, description: String,
        mod_time: String,
    }
    /// What came of an invocation.
    Invoked { result: InvokeResult }
    /// See [`Invoked`].
    InvokeResult {
        log: String, ret_msg: String, err_msg: String, mem_usage: u64, duration: f64, bill_duration: u64,
        function_request_id: String, invoke_result: i64,
    }
    /// `not0`: only failures.
    LogFilter { ret_code: String }
    /// A page of log records.
    Logs { total_count: u64, data: Vec<LogRecord> }
    /// The log of one invocation.
    LogRecord {
        function_name: String, request_id: String, start_time: String, ret_msg: String, ret_code: i64,
        invoke_finished: i64, duration: f64, bill_duration: u64, mem_usage: u64, log: String, level: String,
        source: String, retry_num: u64,
    }
    /// A version just published.
    Published { function_version: String, code_size: u64, runtime: String }
    /// A page of versions.
    Versions { versions: Vec<Version>, total_count: u64 }
    /// A version in a list.
    Version { version: String, description: String, add_time: String, mod_time: String, status: String }
    /// A page of aliases.
    Aliases { aliases: Vec<Alias>, total_count: u64 }
    /// An alias.
    Alias { name: String, function_version: String, description: String, mod_time: String, routing_config: Routing }
    /// Where requests to an alias go besides its main version.
    Routing { additional_version_weights: Vec<Weight>, addtion_version_matchs: Vec<Rule> }
    /// A share of the requests.
    Weight { version: String, weight: f64 }
    /// Requests that a rule picks.
    Rule { version: String, key: String, method: String, expression: String }
    /// A page of forecasts.
    Forecasts { forecasts: Vec<Forecast>, total_count: u64 }
    /// What is foreseen of a version.
    Forecast {
        namespace: String, function_name: String, version: String, memory_size: u64, mode: String, warm_target: Option<u64>,
        minutes: u64, costs: Vec<ForecastCost>,
    }
    /// What a mode cost, or would have cost.
    ForecastCost {
        mode: String, hits: u64, misses: u64, starts_ahead: u64, used_gb_seconds = "UsedGBSeconds": f64, idle_gb_seconds = "IdleGBSeconds": f64,
    }
    /// A page of minutes.
    Demands { demand: Vec<Demand>, total_count: u64 }
    /// A minute in which a version was called.
    Demand { time: u64, namespace: String, function_name: String, version: String, memory_size: u64, instances: u64, invocations: u64 }
    /// A page of namespaces.
    Namespaces { namespaces: Vec<Namespace>, total_count: u64 }
    /// A namespace.
    Namespace { name: String, description: String, add_time: String, mod_time: String }
    /// A layer version just published.
    PublishedLayer { layer_version: u64 }
    /// A page of layers.
    Layers { layers: Vec<LayerVersion>, total_count: u64 }
    /// All versions of a layer.
    LayerVersions { layer_versions: Vec<LayerVersion> }
    /// A version of a layer.
    LayerVersion {
        layer_name: String, layer_version: u64, description: String, compatible_runtimes: Vec<String>,
        add_time: String, status: String, code_sha256: String,
    }
    /// A page of domains.
    Domains { domains: Vec<Domain>, total: u64 }
    /// A domain.
    Domain { domain: String, protocol: String, endpoints_config: Vec<Endpoint>, cert_config: CertConf }
    /// Who answers some paths of a domain.
    Endpoint {
        namespace: String, function_name: String, qualifier: String, path_match: String, path_rewrite: Vec<PathRewrite>,
    }
    /// How a path is written anew.
    PathRewrite { path: String, kind = "Type": String, rewrite: String }
    /// The certificate of a domain.
    CertConf { certificate_id: String }
    /// What a list is filtered by.
    Filter { name: String, values: Vec<String> }
    /// A page of certificates.
    Certificates { certificates: Vec<Certificate>, total_count: u64 }
    /// A certificate, without its key.
    Certificate {
        certificate_id: String, subject_alt_name: Vec<String>, cert_begin_time: String, cert_end_time: String,
        status: String, domains: Vec<String>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_leave_out_what_is_not_set_and_use_the_wire_names() {
        let request =
            ListFunctions { namespace: "default".into(), order_by: "FunctionName".into(), ..Default::default() };
        assert_eq!(
            serde_json::to_string(&request).unwrap(),
            r#"{"Namespace":"default","Offset":0,"Limit":0,"Orderby":"FunctionName"}"#
        );
        let update = UpdateFunctionConfiguration {
            function_name: "f".into(),
            environment: Some(Environment::default()),
            ..Default::default()
        };
        assert_eq!(serde_json::to_string(&update).unwrap(), r#"{"FunctionName":"f","Environment":{"Variables":[]}}"#);
        let address: Address = serde_json::from_str(r#"{"CodeSha256":"ab"}"#).unwrap();
        assert_eq!(address.code_sha256, "ab");
    }
}
