//! Notices of changes: written with the change, in one transaction, and kept until whoever is told has acknowledged.

use crate::ObjectError;
use crate::db::{Database, Op};
use crate::rules::EventKind;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

/// Who changed an object, and how they asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Id of the request.
    pub request_id: String,
    /// Address of the client.
    pub source_ip: String,
    /// Headers of the request, without secrets: of `Authorization` what comes before the signature.
    pub headers: BTreeMap<String, String>,
}

/// A change that a rule wants to know of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Its number, ascending in the order of changes. Not part of what is stored.
    #[serde(skip)]
    pub id: i64,
    /// The rule that matched.
    pub rule: String,
    /// What happened.
    pub kind: EventKind,
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// The object's size in bytes; of a deleted object what it had.
    pub size: u64,
    /// The object's ETag, without quotes.
    pub etag: String,
    /// Content type of the object; empty when it has none.
    pub content_type: String,
    /// User metadata, names without `x-cos-meta-`.
    pub meta: BTreeMap<String, String>,
    /// When, in milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// Who and how.
    pub cause: Cause,
}

/// What the writer and the outbox share.
#[derive(Debug, Default)]
pub(crate) struct Depth {
    pub(crate) count: AtomicU64,
    pub(crate) arrived: Notify,
}

/// The notices that wait. One consumer takes them; several would share them.
#[derive(Clone, Debug)]
pub struct Outbox {
    db: Database,
    depth: Arc<Depth>,
    handed: Arc<Mutex<Handed>>,
}

#[derive(Debug, Default)]
struct Handed {
    /// The last one handed out.
    last: i64,
    /// Handed out and given back.
    again: BTreeSet<i64>,
}

impl Outbox {
    pub(crate) fn new(db: Database, depth: Arc<Depth>) -> Self {
        Self { db, depth, handed: Arc::default() }
    }

    /// Up to `limit` notices that were not handed out since the start, oldest first. They stay until [`Outbox::ack`].
    ///
    /// # Errors
    /// [`ObjectError::Internal`] when the database cannot be read.
    pub async fn next(&self, limit: usize) -> Result<Vec<Notice>, ObjectError> {
        let (again, after) = {
            let mut handed = self.handed.lock();
            let again: Vec<i64> = handed.again.iter().copied().take(limit).collect();
            for id in &again {
                handed.again.remove(id);
            }
            (again, handed.last)
        };
        let mut notices = self.db.notices(&again, after, limit - again.len()).await.inspect_err(|_| {
            self.handed.lock().again.extend(&again);
        })?;
        let mut handed = self.handed.lock();
        // Another call may have been quicker.
        notices.retain(|n| n.id > handed.last || again.contains(&n.id));
        handed.last = notices.last().map_or(handed.last, |n| n.id.max(handed.last));
        Ok(notices)
    }

    /// Forgets notices that were delivered.
    ///
    /// # Errors
    /// As [`Outbox::next`]; they are handed out again after the next start.
    pub async fn ack(&self, ids: &[i64]) -> Result<(), ObjectError> {
        self.db.write(Op::Ack(ids.to_vec())).await.map(|_| ())
    }

    /// Gives notices back that could not be delivered: [`Outbox::next`] hands them out again.
    pub fn release(&self, ids: &[i64]) {
        self.handed.lock().again.extend(ids);
        self.depth.arrived.notify_one();
    }

    /// Waits until there may be something for [`Outbox::next`].
    pub async fn wait(&self) {
        self.depth.arrived.notified().await;
    }

    /// How many notices wait, those handed out included.
    pub fn depth(&self) -> u64 {
        self.depth.count.load(Ordering::Acquire)
    }
}
