//! What is stored of functions, versions, aliases and layers, and what a node needs to run a version.

use crate::failures::{EventTargets, FailurePolicy};
use crate::limits;
use crate::names::{AliasName, FunctionName, LayerName, NamespaceName};
use crate::runtime::RuntimeId;
use crate::trigger::TriggerConfig;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// The SHA-256 of a blob: the name by which code and layers are stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a SHA-256 in hexadecimal"))
    }
}

/// A stored package: the zip as it was uploaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CodeRef {
    /// SHA-256 of the zip.
    pub digest: Digest,
    /// Size of the zip, in bytes.
    pub zip_bytes: u64,
    /// Size of the files in it, unpacked, in bytes.
    pub unpacked_bytes: u64,
}

/// A layer version bound to a function version, in mount order. The digest is kept so that the function goes on
/// working after the layer version is deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerBinding {
    /// Name of the layer.
    pub name: LayerName,
    /// Its version.
    pub version: u32,
    /// Its content.
    pub code: CodeRef,
}

/// Whether instances are forked from an initialised template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ForkMode {
    /// Fork where it is sound (the runtime can fork, and initialisation left no threads and no open sockets).
    #[default]
    Auto,
    /// Never: each instance runs the function's module-level code itself.
    Off,
}

/// What makes a version an HTTP service (SCF's web function, `Type` HTTP): `scf_bootstrap` starts a server that listens on port 9000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceConfig {
    /// Requests that one instance takes at a time (`InstanceConcurrencyConfig.MaxConcurrency`), from 1.
    pub concurrency: u32,
    /// A WebSocket without traffic is closed after so many seconds (`ProtocolParams.WSParams.IdleTimeOut`). `None`: never.
    #[serde(default)]
    pub websocket_idle_s: Option<u32>,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self { concurrency: 1, websocket_idle_s: None }
    }
}

/// Who may call a function's URL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum UrlAuth {
    /// Anybody.
    #[default]
    #[serde(rename = "NONE")]
    Open,
    /// Whoever signs with a key pair of this platform.
    #[serde(rename = "CAM")]
    Signed,
}

/// Answers to browsers that ask from other origins (`CorsConfig` of an `http` trigger).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorsConfig {
    /// Origins that may ask; `*` means all.
    pub origins: Vec<String>,
    /// Methods they may use; `*` means all.
    pub methods: Vec<String>,
    /// Request headers they may send; `*` means all.
    pub headers: Vec<String>,
    /// Response headers that scripts may read.
    pub expose_headers: Vec<String>,
    /// Whether cookies may come along.
    pub credentials: bool,
    /// How long browsers may remember the answer, in seconds.
    pub max_age_s: u32,
}

/// An `http` trigger: the URL of a version or an alias.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UrlConfig {
    /// Name of the trigger.
    pub trigger: String,
    /// The version or alias that answers.
    pub qualifier: String,
    /// False: the URL answers 404 until the trigger is opened again.
    pub enabled: bool,
    /// Who may call.
    pub auth: UrlAuth,
    /// Answers to other origins; `None`: the function's own affair.
    #[serde(default)]
    pub cors: Option<CorsConfig>,
    /// `NetConfig.EnableIntranet`, shown again: there is one network, and one URL for both.
    #[serde(default)]
    pub intranet: bool,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// `CustomArgument`, shown again.
    #[serde(default)]
    pub argument: String,
    /// When it was made, in milliseconds since the epoch.
    pub add_time_ms: u64,
    /// When it was last changed, in milliseconds since the epoch.
    pub mod_time_ms: u64,
}

/// What becomes of a function's asynchronous events that fail (`AsyncTriggerConfig`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventPolicy {
    /// How often an event is tried again after a run error, 0 to 2.
    pub retries: u32,
    /// The age at which an event that failed is given up, in seconds.
    pub age_max_s: u32,
}

impl Default for EventPolicy {
    /// SCF's: two retries, six hours.
    fn default() -> Self {
        Self { retries: limits::EVENT_RETRIES_MAX, age_max_s: limits::EVENT_AGE_S_MAX }
    }
}

impl EventPolicy {
    /// True for a function that nobody has given another policy.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// An order to keep instances of a published version ready (`PutProvisionedConcurrencyConfig`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProvisionedConfig {
    /// The version.
    pub version: u32,
    /// How many.
    pub amount: ProvisionedAmount,
    /// Timed changes of the number; only with a fixed amount.
    #[serde(default)]
    pub actions: Vec<ProvisionedAction>,
    /// When it was ordered, in milliseconds since the epoch: schedules that fired before do not count.
    pub since_ms: u64,
}

/// How many instances are kept ready.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProvisionedAmount {
    /// So many, until a timed change says otherwise.
    Fixed(u32),
    /// As many as are needed for a share of them to be busy.
    Tracking {
        /// That share, between 0 and 1.
        target: f64,
        /// Fewest, from 1.
        min: u32,
        /// Most.
        max: u32,
    },
}

/// A timed change of the number of instances kept ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvisionedAction {
    /// Its name, once in an order.
    pub name: String,
    /// When: seven fields, seconds first and the year last, in the time zone of the platform.
    pub cron: String,
    /// How many from then on.
    pub count: u32,
}

impl ProvisionedConfig {
    /// The most instances that it can ask for.
    pub fn most(&self) -> u32 {
        let amount = match self.amount {
            ProvisionedAmount::Fixed(count) => count,
            ProvisionedAmount::Tracking { max, .. } => max,
        };
        self.actions.iter().map(|a| a.count).fold(amount, u32::max)
    }
}

/// Whether instances are made and kept ahead of demand, by each function's own past.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forecast {
    /// No: every instance is kept for the same time after its last call.
    Off,
    /// As far as it costs no more memory-time than keeping every instance for ten minutes.
    Conservative,
    /// As far as it costs no more than 1.15 times that.
    Eager,
}

impl Forecast {
    /// Its name, as in settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Conservative => "conservative",
            Self::Eager => "eager",
        }
    }
}

impl std::str::FromStr for Forecast {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "conservative" => Ok(Self::Conservative),
            "eager" => Ok(Self::Eager),
            other => Err(format!("`{other}` is none of `off`, `conservative` and `eager`")),
        }
    }
}

impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How many instances a function may and must have, all versions together (`PutFunctionScaling`, Mayfly's own).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScalingConfig {
    /// Fewest, kept of the version that calls without a qualifier reach.
    #[serde(default)]
    pub min_instances: u32,
    /// Most; `None`: no limit but memory.
    #[serde(default)]
    pub max_instances: Option<u32>,
    /// Whether its instances follow forecasts; `None`: as the platform's setting says.
    #[serde(default)]
    pub forecast: Option<Forecast>,
}

impl ScalingConfig {
    /// True when nothing is set.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The settings of one version, `$LATEST` included: everything that a published version freezes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionConfig {
    /// The runtime name as the client gave it, for example `Python3.9`.
    pub runtime_name: String,
    /// The family that serves it.
    pub runtime: RuntimeId,
    /// `file.function`, or empty for custom runtimes.
    pub handler: String,
    /// Free text.
    pub description: String,
    /// Memory limit, in MB.
    pub memory_mb: u32,
    /// Run-time limit, in seconds.
    pub timeout_s: u32,
    /// Initialisation limit, in seconds.
    pub init_timeout_s: u32,
    /// The user's environment variables, in the order given.
    pub environment: Vec<(String, String)>,
    /// The code.
    pub code: CodeRef,
    /// The package as it was uploaded, when `code` was made of it by installing its dependencies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<CodeRef>,
    /// Layers in mount order; later ones overwrite earlier ones.
    pub layers: Vec<LayerBinding>,
    /// Whether the function may open connections to outside.
    pub public_net: bool,
    /// Whether instances are forked from an initialised template.
    #[serde(default)]
    pub fork: ForkMode,
    /// Set for HTTP services; event functions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceConfig>,
    /// Whether every call is an asynchronous one, which may take a day and is not tried again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub async_run: bool,
    /// When this state was made, in milliseconds since the epoch.
    pub mod_time_ms: u64,
    /// Grows with every change to `$LATEST`; a published version keeps the number it was made from.
    pub revision: u64,
    /// Accepted fields that are stored and shown again as they came (the role, log topics, tags of other products), by their API names.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub shown_only: serde_json::Map<String, serde_json::Value>,
}

impl VersionConfig {
    /// The role whose temporary keys its instances have; `None`: they have none.
    pub fn role(&self) -> Option<&str> {
        self.shown_only.get("Role").and_then(|role| role.as_str()).filter(|role| !role.is_empty())
    }

    /// Sets it; an empty text takes it away.
    pub fn set_role(&mut self, role: String) {
        self.shown_only.insert("Role".into(), role.into());
    }
}

/// An install of dependencies that was accepted: what becomes of `$LATEST` when it has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallState {
    /// Tells one install of a function from another.
    pub id: u64,
    /// The package as it was uploaded.
    pub source: CodeRef,
    /// The handler that comes with it; `None`: unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handler: Option<String>,
    /// Whether a version is published when it has succeeded.
    #[serde(default)]
    pub publish: bool,
    /// True when the function has code to serve with meanwhile.
    pub serving: bool,
    /// Starts of the platform that found it unfinished.
    #[serde(default)]
    pub interrupted: u32,
    /// Why it failed; `None`: it is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

impl InstallState {
    /// True as long as it has not ended.
    pub fn is_running(&self) -> bool {
        self.failed.is_none()
    }
}

/// A function: its identity, and the state of `$LATEST`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FunctionRecord {
    /// `lam-` and eight characters; never reused.
    pub id: String,
    /// Namespace it lives in.
    pub namespace: NamespaceName,
    /// Its name.
    pub name: FunctionName,
    /// Settings and code of `$LATEST`.
    pub latest: VersionConfig,
    /// The dependencies of a package are being installed, or could not be. `None`: the function is as it was told to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub install: Option<InstallState>,
    /// The number the next published version gets.
    pub next_version: u32,
    /// Reserved quota, in MB: the cap and the exclusive share. `None`: shares the account's quota.
    pub reserved_mb: Option<u64>,
    /// Tags, in the order given.
    pub tags: Vec<(String, String)>,
    /// Its URLs, at most one for each version and alias.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<UrlConfig>,
    /// Triggers that hand events to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<TriggerConfig>,
    /// Instances kept ready, at most one order for each published version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub provisioned: Vec<ProvisionedConfig>,
    /// What becomes of asynchronous events that fail.
    #[serde(default, skip_serializing_if = "EventPolicy::is_default")]
    pub events: EventPolicy,
    /// What is kept of failures.
    #[serde(default, skip_serializing_if = "FailurePolicy::is_default")]
    pub failures: FailurePolicy,
    /// Who hears of the ends of asynchronous events.
    #[serde(default, skip_serializing_if = "EventTargets::is_default")]
    pub targets: EventTargets,
    /// Bounds of its number of instances.
    #[serde(default, skip_serializing_if = "ScalingConfig::is_default")]
    pub scaling: ScalingConfig,
    /// When it was created, in milliseconds since the epoch.
    pub add_time_ms: u64,
    /// When it was last changed, in milliseconds since the epoch.
    pub mod_time_ms: u64,
}

/// A published version: an immutable copy of `$LATEST`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionRecord {
    /// Id of the function.
    pub function_id: String,
    /// Its number, from 1.
    pub number: u32,
    /// The text given when it was published.
    pub description: String,
    /// The frozen settings and code.
    pub config: VersionConfig,
    /// When it was published, in milliseconds since the epoch.
    pub add_time_ms: u64,
}

/// A rule of an alias that sends matching requests to another version (`AddtionVersionMatchs`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionMatch {
    /// Target version: a number as text, or `$LATEST`.
    pub version: String,
    /// What is looked at, for example `invoke.headers.User`.
    pub key: String,
    /// `exact` or `range`.
    pub method: String,
    /// The text, or an interval such as `[1,100)`.
    pub expression: String,
}

/// An alias.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AliasRecord {
    /// Id of the function.
    pub function_id: String,
    /// Its name; `$DEFAULT` always exists.
    pub name: AliasName,
    /// The main version: a number as text, or `$LATEST`.
    pub version: String,
    /// Other versions and the share of requests (0–1) each gets; the main version gets the rest.
    pub weights: Vec<(String, f64)>,
    /// Rules tried before the weights.
    pub matches: Vec<VersionMatch>,
    /// Free text.
    pub description: String,
    /// When it was created, in milliseconds since the epoch.
    pub add_time_ms: u64,
    /// When it was last changed, in milliseconds since the epoch.
    pub mod_time_ms: u64,
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NamespaceRecord {
    /// Its name.
    pub name: NamespaceName,
    /// Free text.
    pub description: String,
    /// When it was created, in milliseconds since the epoch.
    pub add_time_ms: u64,
    /// When it was last changed, in milliseconds since the epoch.
    pub mod_time_ms: u64,
}

/// One version of a layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerVersionRecord {
    /// Name of the layer.
    pub name: LayerName,
    /// Its number, from 1, never reused.
    pub version: u32,
    /// Runtime names it says it fits.
    pub compatible_runtimes: Vec<String>,
    /// Free text.
    pub description: String,
    /// Free text.
    pub license_info: String,
    /// Its content.
    pub code: CodeRef,
    /// Tags, in the order given.
    pub tags: Vec<(String, String)>,
    /// When it was published, in milliseconds since the epoch.
    pub add_time_ms: u64,
}

/// Identity of one runnable state of a function. Two requests with equal keys may share an instance; others never.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VersionKey {
    /// Id of the function; unique over its whole life, also over deletion and re-creation under one name.
    pub function_id: String,
    /// `$LATEST` or the version's number.
    pub version: String,
    /// Revision of the settings and code.
    pub revision: u64,
}

/// Everything a node needs to run one version. Immutable; shared by reference.
#[derive(Clone, Debug)]
pub struct VersionSpec {
    /// Identity.
    pub key: VersionKey,
    /// Namespace of the function.
    pub namespace: NamespaceName,
    /// Name of the function.
    pub function: FunctionName,
    /// Frozen settings and code.
    pub config: Arc<VersionConfig>,
}
