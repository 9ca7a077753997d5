//! The failure port: requests that failed, with their scenes; jobs that replay them; messages that the end of an event calls for.
//!
//! The three live in one store because the end of an event touches all of them at once: [`FailureLog::conclude`] is one transaction.

mod memory;
mod rows;
mod sqlite;

pub use memory::MemoryFailures;
pub use sqlite::SqliteFailures;

use crate::StoreError;
use async_trait::async_trait;
use mayfly_model::RequestId;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Largest event of a failure, in bytes: the largest synchronous one, with room to spare.
pub const FAILURE_EVENT_BYTES_MAX: usize = 8 << 20;
/// Largest scene of a failure, in bytes.
pub const FAILURE_SCENE_BYTES_MAX: usize = 2 << 20;
/// Largest message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Jobs that are kept after they have ended.
pub const ENDED_JOBS_MAX: usize = 100;

/// How much a failure log holds.
#[derive(Clone, Copy, Debug)]
pub struct FailureLimits {
    /// Content of failures, in bytes; the oldest go first.
    pub bytes_max: u64,
    /// Messages that wait.
    pub messages_max: u64,
    /// Their content, in bytes.
    pub message_bytes_max: u64,
    /// Jobs that send at a time.
    pub jobs_max: u64,
}

impl Default for FailureLimits {
    /// 1 GiB of failures, 100,000 messages of 512 MiB together, 16 jobs.
    fn default() -> Self {
        Self { bytes_max: 1 << 30, messages_max: 100_000, message_bytes_max: 512 << 20, jobs_max: 16 }
    }
}

/// What lists show of a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailureHead {
    /// Its place in the order of the store, from 1; set by the store.
    pub seq: u64,
    /// The request's id.
    pub id: RequestId,
    /// Namespace of the function.
    pub namespace: String,
    /// Its name.
    pub function: String,
    /// The version or alias that was asked for.
    pub qualifier: String,
    /// The version that ran; empty when none did.
    pub version: String,
    /// Where the request came from.
    pub source: String,
    /// How it ended.
    pub status: u16,
    /// What went wrong, for lists and for searching.
    pub error: String,
    /// When the request was accepted, in milliseconds since the epoch.
    pub accepted_ms: u64,
    /// When it had failed for good.
    pub failed_ms: u64,
    /// The failure that this was a replay of.
    pub origin: Option<RequestId>,
    /// The replay that succeeded; set by the store.
    pub resolved_by: Option<RequestId>,
    /// What happened to its messages, if that was not what should.
    pub note: String,
}

/// A failure with its scene.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// What lists show.
    pub head: FailureHead,
    /// When it is to be forgotten, in milliseconds since the epoch.
    pub expires_ms: u64,
    /// The scene; opaque here.
    pub scene: Vec<u8>,
    /// The event.
    pub event: Vec<u8>,
}

impl Failure {
    /// What it counts for against the limit, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        (self.scene.len() + self.event.len() + self.head.error.len() + 512) as u64
    }

    pub(crate) fn validate(&self) -> Result<(), StoreError> {
        if self.event.len() > FAILURE_EVENT_BYTES_MAX || self.scene.len() > FAILURE_SCENE_BYTES_MAX {
            return Err(StoreError::Invalid { what: "the failure", why: "is too large" });
        }
        Ok(())
    }
}

/// Which failures are meant. Absent fields mean all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FailureQuery {
    /// These; empty: any.
    pub ids: Vec<RequestId>,
    /// Namespace.
    pub namespace: Option<String>,
    /// Function.
    pub function: Option<String>,
    /// Version that ran.
    pub version: Option<String>,
    /// Where the request came from.
    pub source: Option<String>,
    /// A part of the error, in any case (of ASCII letters).
    pub text: Option<String>,
    /// How it ended.
    pub status: Option<u16>,
    /// Failed at this time or later, in milliseconds since the epoch.
    pub from_ms: Option<u64>,
    /// Failed at this time or before.
    pub to_ms: Option<u64>,
    /// Whether a replay has succeeded.
    pub resolved: Option<bool>,
    /// True: leave out failures that were replays of another.
    pub origins_only: bool,
    /// True: leave out those that have a replay under way.
    pub idle_only: bool,
}

/// A page of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailurePage {
    /// The failures.
    pub heads: Vec<FailureHead>,
    /// How many match in all.
    pub total: u64,
}

/// Where a replay stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayState {
    /// Written down; its event may be in the event log or not.
    Planned,
    /// Its event was accepted.
    Accepted,
    /// It succeeded.
    Succeeded,
    /// It failed.
    Failed,
    /// Its job was cancelled before it was sent.
    Cancelled,
}

impl ReplayState {
    pub(crate) const fn number(self) -> i64 {
        match self {
            Self::Planned => 0,
            Self::Accepted => 1,
            Self::Succeeded => 2,
            Self::Failed => 3,
            Self::Cancelled => 4,
        }
    }

    pub(crate) fn of(number: i64) -> Result<Self, StoreError> {
        Ok(match number {
            0 => Self::Planned,
            1 => Self::Accepted,
            2 => Self::Succeeded,
            3 => Self::Failed,
            4 => Self::Cancelled,
            _ => return Err(StoreError::Corrupt("the state of a replay")),
        })
    }

    /// True once it cannot change any more by its job.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// One replay of one failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Id of the replay's own request.
    pub id: RequestId,
    /// The failure.
    pub origin: RequestId,
    /// The job.
    pub job: RequestId,
    /// Where it stands.
    pub state: ReplayState,
    /// How it ended; 0 before.
    pub status: u16,
    /// When it was planned, in milliseconds since the epoch.
    pub planned_ms: u64,
    /// When it ended; 0 before.
    pub ended_ms: u64,
}

/// The id of the replay of `origin` by `job`: always the same.
pub fn replay_id(origin: RequestId, job: RequestId) -> RequestId {
    derived_id(origin, &job.0.to_be_bytes())
}

/// An id that follows from another and a purpose.
pub fn derived_id(from: RequestId, purpose: &[u8]) -> RequestId {
    let mut hash = Sha256::new();
    hash.update(from.0.to_be_bytes());
    hash.update(purpose);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    RequestId::from_random(bytes)
}

/// How a replay ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayEnd {
    /// Id of the replay's own request.
    pub id: RequestId,
    /// Whether it succeeded.
    pub ok: bool,
    /// How it ended.
    pub status: u16,
    /// When, in milliseconds since the epoch.
    pub ended_ms: u64,
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobStage {
    /// It sends.
    Sending,
    /// Everything was sent.
    Sent,
    /// It was cancelled.
    Cancelled,
}

impl JobStage {
    pub(crate) const fn number(self) -> i64 {
        match self {
            Self::Sending => 0,
            Self::Sent => 1,
            Self::Cancelled => 2,
        }
    }

    pub(crate) fn of(number: i64) -> Result<Self, StoreError> {
        Ok(match number {
            0 => Self::Sending,
            1 => Self::Sent,
            2 => Self::Cancelled,
            _ => return Err(StoreError::Corrupt("the stage of a job")),
        })
    }
}

/// A job to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewJob {
    /// Its id.
    pub id: RequestId,
    /// The client's own name for it: there is one job for each.
    pub token: Option<String>,
    /// What to do with each failure; opaque here.
    pub spec: Vec<u8>,
    /// Which failures.
    pub query: FailureQuery,
    /// When it was made, in milliseconds since the epoch.
    pub created_ms: u64,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayJob {
    /// Its id.
    pub id: RequestId,
    /// The client's own name for it.
    pub token: Option<String>,
    /// What to do with each failure; opaque here.
    pub spec: Vec<u8>,
    /// Which failures.
    pub query: FailureQuery,
    /// Where it stands.
    pub stage: JobStage,
    /// When it was made, in milliseconds since the epoch.
    pub created_ms: u64,
    /// Failures that matched when it was made.
    pub total: u64,
    /// Replays that were planned, less those that were cancelled.
    pub sent: u64,
    /// Those that succeeded.
    pub succeeded: u64,
    /// Those that failed.
    pub failed: u64,
}

impl ReplayJob {
    /// True when nothing of it is under way.
    pub fn is_over(&self) -> bool {
        self.stage != JobStage::Sending && self.succeeded + self.failed >= self.sent
    }
}

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MessageKind {
    /// A dead letter.
    DeadLetter,
    /// A success.
    OnSuccess,
    /// A failure.
    OnFailure,
}

impl MessageKind {
    /// Its number in the store.
    pub const fn number(self) -> i64 {
        match self {
            Self::DeadLetter => 0,
            Self::OnSuccess => 1,
            Self::OnFailure => 2,
        }
    }

    pub(crate) fn of(number: i64) -> Result<Self, StoreError> {
        Ok(match number {
            0 => Self::DeadLetter,
            1 => Self::OnSuccess,
            2 => Self::OnFailure,
            _ => return Err(StoreError::Corrupt("the kind of a message")),
        })
    }
}

/// A message that waits to be sent. There is at most one of each kind for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The request that it is about.
    pub id: RequestId,
    /// What it is about.
    pub kind: MessageKind,
    /// Where to; opaque here.
    pub target: Vec<u8>,
    /// Its content.
    pub body: Vec<u8>,
    /// When it was made, in milliseconds since the epoch.
    pub created_ms: u64,
    /// When it is to be tried next.
    pub due_ms: u64,
    /// How often it was tried.
    pub attempt: u32,
}

/// What follows the end of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// The failure, if it was one.
    pub failure: Option<Failure>,
    /// How a replay ended, if it was one.
    pub replay: Option<ReplayEnd>,
    /// What to send.
    pub messages: Vec<Message>,
}

impl Ending {
    /// True when nothing follows.
    pub fn is_empty(&self) -> bool {
        self.failure.is_none() && self.replay.is_none() && self.messages.is_empty()
    }

    pub(crate) fn validate(&self) -> Result<(), StoreError> {
        if self.messages.iter().any(|m| m.body.len() > MESSAGE_BYTES_MAX) {
            return Err(StoreError::Invalid { what: "the message", why: "is larger than 1 MiB" });
        }
        self.failure.as_ref().map_or(Ok(()), Failure::validate)
    }
}

/// Figures of a failure log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailureUsage {
    /// Failures.
    pub count: u64,
    /// Their content, in bytes.
    pub bytes: u64,
    /// Failures that went before their time, for want of room, since the start.
    pub evicted: u64,
    /// Messages that wait.
    pub messages: u64,
}

/// Where failures, replay jobs and messages are kept. What returns without an error is durable.
#[async_trait]
pub trait FailureLog: Send + Sync {
    /// Keeps what follows the end of a request, all or nothing. A failure or message that is there already is replaced, so that
    /// it may be told twice. Concurrent calls share commits. A failure that is too much for the limit displaces the oldest.
    ///
    /// # Errors
    /// [`StoreError::Full`] when too many messages wait or the disk is full; [`StoreError::Invalid`] when a part is too large.
    async fn conclude(&self, ending: Ending) -> Result<(), StoreError>;

    /// A failure with its scene.
    async fn get(&self, id: RequestId) -> Result<Option<Failure>, StoreError>;

    /// Failures behind the place `after`, newest first unless `ascending`.
    async fn list(
        &self,
        query: &FailureQuery,
        after: Option<u64>,
        ascending: bool,
        limit: usize,
    ) -> Result<FailurePage, StoreError>;

    /// Forgets failures. Returns how many.
    async fn delete(&self, query: &FailureQuery) -> Result<u64, StoreError>;

    /// Forgets what is past its time, replays that nothing refers to, and jobs that ended long ago. Returns how many failures went.
    async fn prune(&self, now_ms: u64) -> Result<u64, StoreError>;

    /// Figures.
    async fn usage(&self) -> Result<FailureUsage, StoreError>;

    /// The replays of a failure, oldest first; at most 1000.
    async fn replays_of(&self, origin: RequestId) -> Result<Vec<Replay>, StoreError>;

    /// Makes a job, or returns the one that has this token.
    ///
    /// # Errors
    /// [`StoreError::Full`] when too many jobs send.
    async fn add_job(&self, job: NewJob) -> Result<ReplayJob, StoreError>;

    /// A job.
    async fn job(&self, id: RequestId) -> Result<Option<ReplayJob>, StoreError>;

    /// All jobs, newest first.
    async fn jobs(&self) -> Result<Vec<ReplayJob>, StoreError>;

    /// Plans the next replays of a job that sends: writes them down and moves its place on. Empty: there are no more.
    async fn plan(&self, job: RequestId, now_ms: u64, limit: usize) -> Result<Vec<Replay>, StoreError>;

    /// The replays of a job that are planned and were not said to be accepted.
    async fn planned(&self, job: RequestId) -> Result<Vec<Replay>, StoreError>;

    /// Says that the events of planned replays were accepted.
    async fn accepted(&self, ids: &[RequestId]) -> Result<(), StoreError>;

    /// Sets where a job stands. [`JobStage::Cancelled`] of a job that sends no more changes nothing.
    async fn set_stage(&self, job: RequestId, stage: JobStage) -> Result<(), StoreError>;

    /// Gives up the planned replays of a job.
    async fn drop_planned(&self, job: RequestId) -> Result<(), StoreError>;

    /// Messages due at `now_ms` or before, by due time.
    async fn due(&self, now_ms: u64, limit: usize) -> Result<Vec<Message>, StoreError>;

    /// Says that a message is to be tried again at `due_ms`.
    async fn postpone(&self, id: RequestId, kind: MessageKind, due_ms: u64, attempt: u32) -> Result<(), StoreError>;

    /// Forgets a message that was sent or given up; a note goes to its request's failure, if that is kept.
    async fn settle(&self, id: RequestId, kind: MessageKind, note: Option<String>) -> Result<(), StoreError>;
}
