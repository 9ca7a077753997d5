//! Kafka topics as a source of events: consumer groups, ordered batches, commits after success.
//!
//! Start at [`Consumer`]: it takes part in one consumer group for one topic, cuts what each of its partitions brings into batches, gives them
//! to a [`Handler`] one after the other, and commits how far it has come. The parts:
//!
//! - `client`: how a cluster is reached; [`Clusters`] are those that the operator named.
//! - `commit`: commits whose outcome is told.
//! - `event`: messages as SCF's event, built in one buffer.
//! - `lane`: a partition at work: gathering, handing over, trying again.
//! - `progress`: how far each partition has come, what is committed of it, what waits.
//! - `consumer`: the member of the group, and the thread that it lives on.
//!
//! Messages of a partition are handed over in order, and at least once: an offset is committed only when everything before it has ended.

mod client;
mod commit;
mod consumer;
mod event;
mod lane;
mod progress;

pub use client::{Cluster, Clusters, TopicState};
pub use consumer::Consumer;

use async_trait::async_trait;
use bytes::Bytes;
use std::time::Duration;

/// What a consumer is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The topic.
    pub topic: String,
    /// The consumer group.
    pub group: String,
    /// Where partitions begin of which the group has no offset yet.
    pub start: Start,
    /// Most messages in a batch.
    pub messages_max: u32,
    /// Largest event, in bytes.
    pub bytes_max: usize,
    /// How long a batch may wait to be full. Zero: what is there is handed over as soon as the one before has ended.
    pub wait: Duration,
    /// How often a batch is tried again after a run error.
    pub retries: u32,
}

/// Where a partition begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the oldest message that there is.
    Earliest,
    /// With the first message that is not older than this, in milliseconds since the epoch; if there is none, with the next one to come.
    At(u64),
}

/// Messages of one partition, in order and without a gap, as one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Offset of the first message.
    pub first: i64,
    /// The offset behind the last one.
    pub next: i64,
    /// How many messages there are.
    pub messages: u32,
    /// Timestamp of the first message, in milliseconds since the epoch; 0 when it has none.
    pub oldest_ms: u64,
    /// The event: JSON text.
    pub event: Bytes,
}

/// What was tried of a batch before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// Attempts that the function failed on.
    pub run_errors: u32,
    /// Attempts that were turned away.
    pub turned_away: u32,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The function has dealt with the batch.
    Done,
    /// It failed on it; another attempt follows.
    Failed(String),
    /// It did not get it: a quota, or the platform. It is handed over again, for as long as it takes.
    Later(String),
    /// It will not get it any more, and that is kept where failures are.
    GivenUp(String),
}

/// Who batches are handed to.
#[async_trait]
pub trait Handler: Send + Sync {
    /// One attempt. `last`: no other follows on a run error, so that a batch which fails now is to be kept as a failure, durably, before this
    /// answers [`Ended::GivenUp`]; when it cannot be kept: [`Ended::Later`]. Dropping the future ends the attempt.
    async fn hand(&self, batch: &Batch, tried: Tried, last: bool) -> Ended;
}

/// What a group has not dealt with yet, in the partitions that a consumer has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Messages.
    pub messages: u64,
    /// Timestamp of the oldest one that is being handed over, in milliseconds since the epoch; 0: none is, or it has none.
    pub oldest_ms: u64,
}

/// Why a consumer ended before it was told to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KafkaError(pub String);

impl From<rdkafka::error::KafkaError> for KafkaError {
    fn from(error: rdkafka::error::KafkaError) -> Self {
        Self(error.to_string())
    }
}
