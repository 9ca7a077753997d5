//! What control needs of its siblings; the server implements these over the node and the log store.

use crate::catalogue::RouteTarget;
use crate::provisioned::ProvisionedOrder;
use async_trait::async_trait;
use bytes::Bytes;
use mayfly_base::Abort;
use mayfly_model::{
    ApiError, Digest, EventMark, Forecast, InvocationRecord, InvokeOutcome, Lineage, RequestId, RuntimeId,
    ScalingConfig, Target, VersionKey,
};
use std::sync::Arc;

/// One invocation to run.
#[derive(Clone, Debug)]
pub struct InvokeRequest {
    /// Its id.
    pub request_id: RequestId,
    /// The event: JSON text, checked, at most 6 MB.
    pub event: Bytes,
    /// True when the caller wants the log of the invocation in the outcome.
    pub want_log: bool,
    /// True when the log is wanted there if the invocation fails.
    pub log_failure: bool,
    /// Which attempt this is: 0 for the first, counting up for retries of asynchronous events.
    pub retry: u32,
    /// Set when it runs an asynchronous event.
    pub event_mark: Option<EventMark>,
    /// Who may end it early, with [`Status::CANCELED`](mayfly_model::Status::CANCELED).
    pub abort: Option<Abort>,
    /// The failed request that this replays.
    pub origin: Option<RequestId>,
    /// The alias or version that the caller named.
    pub qualifier: String,
    /// What called it, when that was another invocation.
    pub lineage: Lineage,
}

/// What changed for those who keep instances. Told after the change is durable and visible to readers.
#[derive(Clone, Debug)]
pub enum RouteChange {
    /// No request will be routed to this version any more: it was updated or deleted. Running requests finish, unless `force`.
    Retired {
        /// The version.
        target: Arc<RouteTarget>,
        /// True when a newer state of the same `$LATEST` takes its place (as against deletion).
        replaced: bool,
        /// True when its instances are to be ended at once.
        force: bool,
    },
    /// The reserved quota of a function is another. The new value stands in the quota of its targets already.
    Quota {
        /// Id of the function.
        function_id: String,
        /// The new quota, in MB.
        reserved_mb: Option<u64>,
    },
    /// A version can be called from now on. Those that were there when the platform started are not told.
    Added {
        /// The version.
        target: Arc<RouteTarget>,
    },
    /// The triggers that hand events to a function are others. All of them are asked for with `Control::triggers`.
    Triggers,
    /// The bounds of a function's number of instances are others, or the version that its minimum is kept of. Those that were there when the
    /// platform started are asked for with `Control::scaling`.
    Scaling {
        /// The version that calls without a qualifier reach.
        main: Arc<RouteTarget>,
        /// The bounds.
        scaling: ScalingConfig,
    },
    /// Instances of a published version are to be kept ready, otherwise than before. Orders that were there when the platform started are
    /// asked for with `Control::provisioned`.
    Provisioned {
        /// The version.
        target: Arc<RouteTarget>,
        /// The order; `None`: none any more.
        order: Option<Arc<ProvisionedOrder>>,
    },
}

impl RouteChange {
    /// The retired version, if this is about one.
    pub fn retired_key(&self) -> Option<&VersionKey> {
        match self {
            Self::Retired { target, .. } => Some(&target.spec.key),
            _ => None,
        }
    }
}

/// How an order to keep instances ready is met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvisionedState {
    /// How many should be ready now.
    pub wanted: u32,
    /// How many are: started, initialised, and idle or at work.
    pub ready: u32,
    /// Why no more can be started for the moment, in words fit for clients; `None`: what is missing is under way.
    pub blocked: Option<String>,
}

/// What a mode of pre-creation cost a version, or would have cost it, over the demand that is known.
#[derive(Clone, Debug, PartialEq)]
pub struct ForecastCost {
    /// The mode.
    pub mode: Forecast,
    /// Instances that were needed in a minute and warm when it began.
    pub hits: u64,
    /// Instances that were needed and not warm: cold starts.
    pub misses: u64,
    /// Instances made before anybody asked.
    pub starts_ahead: u64,
    /// Memory-time of what was needed, in GB·s.
    pub used_gb_seconds: f64,
    /// Memory-time of what was warm for nothing, in GB·s.
    pub idle_gb_seconds: f64,
}

/// What is known and foreseen of one version.
#[derive(Clone, Debug, PartialEq)]
pub struct ForecastReport {
    /// Namespace.
    pub namespace: String,
    /// Function.
    pub function: String,
    /// Version, as text.
    pub version: String,
    /// Memory of one instance, in MB.
    pub memory_mb: u32,
    /// The mode in force for it.
    pub mode: Forecast,
    /// Instances that are to be warm in this minute by that mode; `None`: the keep-alive decides.
    pub warm: Option<u32>,
    /// Minutes in which it was watched.
    pub minutes: u64,
    /// Every mode over those minutes.
    pub costs: Vec<ForecastCost>,
}

/// A minute in which a version was called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemandRow {
    /// Minutes since the epoch.
    pub minute: u64,
    /// Namespace.
    pub namespace: String,
    /// Function.
    pub function: String,
    /// Version, as text.
    pub version: String,
    /// Its runtime.
    pub runtime: String,
    /// Memory of one instance, in MB.
    pub memory_mb: u32,
    /// Instances needed at once.
    pub demand: u32,
    /// Calls.
    pub invocations: u64,
}

/// A question for demand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemandQuery {
    /// First minute, since the epoch.
    pub from: u64,
    /// Last minute.
    pub to: u64,
    /// Rows to skip.
    pub offset: u64,
    /// Most rows.
    pub limit: u64,
}

/// Runs invocations.
#[async_trait]
pub trait Invoker: Send + Sync {
    /// Runs one invocation and answers how it ended; every failure is an outcome. It writes the record of the invocation.
    /// Dropping the future takes the request back.
    async fn invoke(&self, target: &Arc<RouteTarget>, request: InvokeRequest) -> InvokeOutcome;

    /// How an order to keep instances of a version ready is met at this moment. `None`: nobody keeps any.
    fn provisioned(&self, _target: &Arc<RouteTarget>) -> Option<ProvisionedState> {
        None
    }

    /// What is known and foreseen of every version, by namespace, function and version.
    fn forecasts(&self) -> Vec<ForecastReport> {
        Vec::new()
    }

    /// The stored demand, by minute, and the number of all rows that `query` asks for.
    async fn demand(&self, _query: DemandQuery) -> Result<(u64, Vec<DemandRow>), LogError> {
        Ok((0, Vec::new()))
    }

    /// Hears of a change. Called in the order of the changes of each function; must not block.
    fn catalogue_changed(&self, change: &RouteChange);
}

/// Why a message did not reach its target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The platform has nothing of this kind; in words fit for clients.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The queue or topic is not there.
    #[error("{0} does not exist")]
    NotFound(Target),
    /// It is, and cannot be reached for the moment; in words fit for clients.
    #[error("{0}")]
    Unavailable(String),
}

/// Takes dead letters and results to queues and topics. Functions are control's own affair.
#[async_trait]
pub trait Destinations: Send + Sync {
    /// Looks whether a queue or topic is there, before it is made a target.
    async fn check(&self, target: &Target) -> Result<(), SendError>;

    /// Sends a message, at most 1 MiB; it is durable there when this returns.
    async fn send(&self, target: &Target, message: Bytes) -> Result<(), SendError>;
}

/// Whether a trigger's Kafka topic is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicFound {
    /// It is, or nobody can tell for the moment: the trigger will wait for it.
    Ok,
    /// The trigger's name begins with none of these clusters.
    NoCluster(Vec<String>),
    /// The cluster has no such topic.
    NoTopic {
        /// The cluster.
        cluster: String,
        /// The topic.
        topic: String,
    },
}

/// The Kafka clusters that the operator named.
#[async_trait]
pub trait KafkaTopics: Send + Sync {
    /// Looks for the topic that a trigger's name (`<cluster>-<topic>`) means, for a few seconds at most.
    async fn find(&self, trigger: &str) -> TopicFound;
}

/// An install of dependencies to do.
#[derive(Clone, Debug)]
pub struct InstallJob {
    /// The package, checked already.
    pub zip: Bytes,
    /// Its SHA-256.
    pub digest: Digest,
    /// What the function runs on.
    pub runtime: RuntimeId,
    /// Its handler.
    pub handler: String,
    /// True for HTTP services.
    pub service: bool,
}

/// A package whose dependencies are in it.
#[derive(Clone, Debug)]
pub struct Installed {
    /// The zip, checked; `None`: there was nothing to install.
    pub zip: Option<Bytes>,
    /// Size of its files, unpacked, in bytes.
    pub unpacked_bytes: u64,
    /// True when nothing had to be run for it.
    pub cached: bool,
}

/// Why dependencies were not installed.
#[derive(Clone, Debug)]
pub enum InstallError {
    /// The package is at fault, or a limit was reached; in words fit for clients.
    Failed(String),
    /// The platform is; the text is for its log.
    Internal(String),
}

/// Hears lines that are printed.
pub type LineSink = Arc<dyn Fn(&str) + Send + Sync>;

/// Installs the dependencies that a package names.
#[async_trait]
pub trait Installer: Send + Sync {
    /// True when the package names dependencies that functions of this runtime can have. Blocks for a moment.
    fn wants(&self, zip: &[u8], runtime: RuntimeId) -> bool;

    /// Installs them; `line` hears what is printed. Dropping the future ends the install without a trace.
    async fn install(&self, job: InstallJob, line: LineSink) -> Result<Installed, InstallError>;
}

/// What a log query orders by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogOrder {
    /// Start time.
    #[default]
    StartTime,
    /// Name of the function.
    Function,
    /// Run time.
    Duration,
    /// Peak memory.
    Memory,
}

/// Which results a log query wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogStatus {
    /// All.
    #[default]
    Any,
    /// Successes (`is0`).
    Ok,
    /// Failures (`not0`).
    Failed,
    /// Status 433 (`TimeLimitExceeded`).
    TimeLimit,
    /// Status 429, 432, 434 or 449 (`ResourceLimitExceeded`).
    ResourceLimit,
    /// Status 430 (`UserCodeException`).
    UserException,
}

impl LogStatus {
    /// True when an invocation that ended with `status` is wanted.
    pub fn holds(self, status: mayfly_model::Status) -> bool {
        match self {
            Self::Any => true,
            Self::Ok => status.is_ok(),
            Self::Failed => !status.is_ok(),
            Self::TimeLimit => status.0 == 433,
            Self::ResourceLimit => matches!(status.0, 429 | 432 | 434 | 449),
            Self::UserException => status.0 == 430,
        }
    }
}

/// A query for records of invocations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter {
    /// Namespace.
    pub namespace: String,
    /// One function; `None`: all of the namespace.
    pub function: Option<String>,
    /// One version, by the text in the record.
    pub version: Option<String>,
    /// One request.
    pub request_id: Option<RequestId>,
    /// By result.
    pub status: LogStatus,
    /// Earliest start, in milliseconds since the epoch.
    pub start_ms: u64,
    /// Latest start, in milliseconds since the epoch (inclusive).
    pub end_ms: u64,
    /// Only what ran asynchronous events.
    pub events_only: bool,
    /// What to order by.
    pub order_by: LogOrder,
    /// Smallest first.
    pub ascending: bool,
    /// Matches to skip.
    pub offset: u64,
    /// Most records to return.
    pub limit: u64,
}

/// A log query failed; the text is for the operator's log.
#[derive(Debug, thiserror::Error)]
#[error("log store: {0}")]
pub struct LogError(pub String);

/// The log store.
#[async_trait]
pub trait Logs: Send + Sync {
    /// The page that `filter` asks for, and the number of all matches.
    async fn query(&self, filter: LogFilter) -> Result<(u64, Vec<InvocationRecord>), LogError>;

    /// Keeps the record of an invocation that never reached an instance (an asynchronous event whose function is gone). Must not block.
    fn append(&self, record: InvocationRecord);

    /// Waits, but not for ever, until every record that there is now outlives the end of this process.
    async fn written(&self);
}

/// A trigger of type `apigw` that is to be.
#[derive(Clone, Debug)]
pub struct NewApiTrigger {
    /// Namespace of the function.
    pub namespace: String,
    /// Name of the function.
    pub function: String,
    /// The version or alias that answers; it is there.
    pub qualifier: String,
    /// True for an HTTP function.
    pub takes_http: bool,
    /// Name of the trigger.
    pub name: String,
    /// `TriggerDesc`, as it came.
    pub desc: String,
    /// `CustomArgument`.
    pub argument: String,
    /// Free text.
    pub description: String,
    /// The host that the client used for the API.
    pub host: String,
}

/// A trigger of type `apigw`: an API that leads to a function.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiTrigger {
    /// Its name.
    pub name: String,
    /// `TriggerDesc` as clients are shown it.
    pub desc: String,
    /// The version or alias that answers.
    pub qualifier: String,
    /// `CustomArgument`.
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

/// Which trigger of type `apigw` is meant.
#[derive(Clone, Debug)]
pub struct ApiTriggerRef {
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

/// The API gateway, as far as triggers are concerned. It keeps them: here they are not stored a second time.
#[async_trait]
pub trait ApiTriggers: Send + Sync {
    /// Creates one. Durable when it returns. Errors: SCF's codes.
    async fn create(&self, new: NewApiTrigger) -> Result<ApiTrigger, ApiError>;

    /// Deletes one. Errors: `ResourceNotFound.Trigger`; `MissingParameter` when several are meant.
    async fn delete(&self, meant: ApiTriggerRef) -> Result<(), ApiError>;

    /// Those of a function. `host`: what the client called the platform.
    fn list(&self, namespace: &str, function: &str, host: &str) -> Vec<ApiTrigger>;

    /// A function is gone, and its triggers with it.
    async fn forget(&self, namespace: &str, function: &str) -> Result<(), ApiError>;
}
