//! Notices of changes: written with the change, in one transaction, and kept until whoever is told has acknowledged.

use crate::ObjectError;
use crate::db::{Database, Op};
use crate::rules::EventKind;
use mayfly_model::Lineage;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Notify, watch};

/// Who changed an object, and how they asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Id of the request.
    pub request_id: String,
    /// Address of the client.
    pub source_ip: String,
    /// Headers of the request, without secrets: of `Authorization` what comes before the signature.
    pub headers: BTreeMap<String, String>,
    /// What asked, when that was an invocation of a function.
    #[serde(default, skip_serializing_if = "Lineage::is_root")]
    pub lineage: Lineage,
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
    /// The version, where the bucket has versions; empty for the one that S3 calls null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
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

/// What the writer and the outbox share: which notices wait, by rule.
#[derive(Debug, Default)]
pub(crate) struct Depth {
    count: AtomicU64,
    arrived: Notify,
    /// Counts arrivals, for those that wait for one rule's notices.
    arrivals: watch::Sender<u64>,
    /// Id and time of each.
    waiting: Mutex<HashMap<String, BTreeMap<i64, i64>>>,
}

impl Depth {
    pub(crate) fn new(waiting: Vec<(String, i64, i64)>) -> Self {
        let depth = Self::default();
        depth.changed(waiting, Vec::new());
        depth
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Takes note of what a committed transaction added and took away.
    pub(crate) fn changed(&self, added: Vec<(String, i64, i64)>, gone: Vec<(String, i64)>) {
        let arrived = !added.is_empty();
        let mut waiting = self.waiting.lock();
        for (rule, id, time_ms) in added {
            self.count.fetch_add(1, Ordering::AcqRel);
            waiting.entry(rule).or_default().insert(id, time_ms);
        }
        for (rule, id) in gone {
            if let Some(of_rule) = waiting.get_mut(&rule) {
                if of_rule.remove(&id).is_some() {
                    self.count.fetch_sub(1, Ordering::AcqRel);
                }
                if of_rule.is_empty() {
                    waiting.remove(&rule);
                }
            }
        }
        drop(waiting);
        if arrived {
            self.arrived.notify_one();
            self.arrivals.send_modify(|n| *n += 1);
        }
    }
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
        self.depth.count()
    }

    /// The oldest notices of one rule, at most `limit`; waits until there is one. The same are given until they are acknowledged. To be used instead
    /// of [`Outbox::next`], by who serves each rule on its own.
    ///
    /// # Errors
    /// As [`Outbox::next`].
    pub async fn oldest(&self, rule: &str, limit: usize) -> Result<Vec<Notice>, ObjectError> {
        let mut arrivals = self.depth.arrivals.subscribe();
        loop {
            arrivals.borrow_and_update();
            let found = self.db.notices_of(rule, limit).await?;
            if !found.is_empty() {
                return Ok(found);
            }
            arrivals.changed().await.map_err(|_| ObjectError::Internal)?;
        }
    }

    /// How many notices wait for a rule, and when the oldest came about, in milliseconds since the Unix epoch.
    pub fn waiting(&self, rule: &str) -> (u64, Option<i64>) {
        let waiting = self.depth.waiting.lock();
        let of_rule = waiting.get(rule);
        (of_rule.map_or(0, |w| w.len() as u64), of_rule.and_then(|w| w.values().next().copied()))
    }

    /// The rules that notices wait for.
    pub fn rules(&self) -> Vec<String> {
        self.depth.waiting.lock().keys().cloned().collect()
    }

    /// Lets go of what waits for rules that are no more.
    ///
    /// # Errors
    /// As [`Outbox::next`]; it then waits on.
    pub async fn forget(&self, rules: Vec<String>) -> Result<(), ObjectError> {
        self.db.write(Op::ForgetRules(rules)).await.map(|_| ())
    }
}
