//! The database: one task writes, over one connection, and commits what waits together; reads have connections of their own.

mod objects;
mod read;
mod schema;
mod uploads;
mod versions;

pub use read::{ListPage, ListQuery, UploadPage};
pub use versions::{VersionPage, VersionQuery};

use crate::ObjectError;
use crate::cache::Cache;
use crate::entry::{Conditions, CorsRule, Deleted, Headers, Sums, Versioning};
use crate::files::{Files, Fresh};
use crate::ingest::Received;
use crate::limits::Limits;
use crate::outbox::{Cause, Depth, Notice};
use crate::rules::{EventKind, Rules};
use async_trait::async_trait;
use mayfly_store::writer::{Done, Job, Jobs, Work};
use mayfly_store::{StoreError, sqlite};
use sqlx::{SqliteConnection, SqlitePool};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) use schema::Opened;

/// Connections for reading.
const READERS: u32 = 4;

/// The way to the database.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    jobs: Arc<Jobs<Write, Never>>,
    readers: SqlitePool,
    cache: Arc<Cache>,
}

/// No question goes to the writer.
#[derive(Debug)]
pub(crate) enum Never {}

#[derive(Debug)]
pub(crate) struct Write {
    op: Op,
    done: Done<Result<Outcome, ObjectError>>,
}

/// Where bytes that have arrived are, and what they are.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) inline: Option<bytes::Bytes>,
    pub(crate) fresh: Option<Fresh>,
    pub(crate) size: u64,
    pub(crate) etag: String,
    pub(crate) sha256: [u8; 32],
    pub(crate) sums: Sums,
}

impl From<Received> for Stored {
    fn from(received: Received) -> Self {
        let (inline, fresh) = match received.data {
            crate::ingest::Data::Inline(bytes) => (Some(bytes), None),
            crate::ingest::Data::File(fresh) => (None, Some(fresh)),
        };
        let etag = hex::encode(received.md5);
        Self { inline, fresh, size: received.size, etag, sha256: received.sha256, sums: received.sums }
    }
}

/// A key in a bucket.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) bucket: String,
    pub(crate) key: String,
}

/// A put that only needs to be written down.
#[derive(Debug)]
pub(crate) struct Put {
    pub(crate) place: Place,
    pub(crate) stored: Stored,
    pub(crate) headers: Headers,
    pub(crate) tags: Vec<(String, String)>,
    pub(crate) conditions: Conditions,
    pub(crate) kind: EventKind,
    pub(crate) cause: Cause,
}

/// A copy. The bytes are shared, not copied.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) from: Place,
    /// Of the source; the current one when `None`.
    pub(crate) version: Option<String>,
    pub(crate) from_conditions: Conditions,
    pub(crate) place: Place,
    /// Instead of the source's.
    pub(crate) headers: Option<Headers>,
    /// Instead of the source's.
    pub(crate) tags: Option<Vec<(String, String)>>,
    pub(crate) cause: Cause,
}

/// A part of an upload that is a stretch of an object.
#[derive(Debug)]
pub(crate) struct CopyPart {
    pub(crate) from: Place,
    pub(crate) version: Option<String>,
    pub(crate) from_etag: String,
    pub(crate) range: Range<u64>,
    pub(crate) place: Place,
    pub(crate) upload: String,
    pub(crate) number: u32,
    pub(crate) etag: String,
}

/// The end of an upload.
#[derive(Debug)]
pub(crate) struct Complete {
    pub(crate) place: Place,
    pub(crate) upload: String,
    /// Number, ETag and checksums of each part.
    pub(crate) parts: Vec<(u32, Option<String>, Sums)>,
    /// What the client says of the whole.
    pub(crate) claimed: Sums,
    pub(crate) size: Option<u64>,
    pub(crate) conditions: Conditions,
    pub(crate) cause: Cause,
}

/// A change.
#[derive(Debug)]
pub(crate) enum Op {
    CreateBucket(String),
    DeleteBucket(String),
    SetCors {
        bucket: String,
        rules: Vec<CorsRule>,
    },
    SetVersioning {
        bucket: String,
        on: bool,
    },
    Put(Box<Put>),
    Copy(Box<Copy>),
    Delete {
        place: Place,
        version: Option<String>,
        conditions: Conditions,
        cause: Cause,
    },
    DeleteMany {
        bucket: String,
        which: Vec<(String, Option<String>, Conditions)>,
        cause: Cause,
    },
    SetTags {
        place: Place,
        version: Option<String>,
        tags: Vec<(String, String)>,
    },
    CreateUpload {
        place: Place,
        id: String,
        headers: Headers,
        tags: Vec<(String, String)>,
        /// Whether CRCs are to be of the object's bytes.
        full_sum: bool,
    },
    PutPart {
        place: Place,
        upload: String,
        number: u32,
        stored: Stored,
    },
    CopyPart(Box<CopyPart>),
    Complete(Box<Complete>),
    Abort {
        place: Place,
        upload: String,
    },
    /// Files that are gone from the disk.
    Forget(Vec<i64>),
    /// Runs up to this one hold no file without a reference.
    Swept(u32),
    /// Notices that were delivered.
    Ack(Vec<i64>),
    /// Rules that are no more, with what waits for them.
    ForgetRules(Vec<String>),
}

impl Op {
    fn fresh(&mut self) -> Option<&mut Fresh> {
        match self {
            Self::Put(put) => put.stored.fresh.as_mut(),
            Self::PutPart { stored, .. } => stored.fresh.as_mut(),
            _ => None,
        }
    }
}

/// What a change came to.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// Nothing more to say.
    Done,
    /// The object as it is now.
    Object { etag: String, modified_ms: i64, sums: Sums, version: Option<String> },
    /// What a delete did.
    Deleted(Deleted),
    /// Each key's own.
    Many(Vec<Result<Deleted, ObjectError>>),
}

/// What one transaction gathers beside its rows; it counts only once that is committed.
#[derive(Default)]
struct Gathered {
    /// Files that nothing refers to any more.
    garbage: Vec<i64>,
    /// Notices written, and notices forgotten.
    noticed: Vec<(String, i64, i64)>,
    acked: Vec<(String, i64)>,
    objects: i64,
    bytes: i64,
}

/// What the writer knows beside the database.
pub(crate) struct Writer {
    pub(crate) limits: Arc<Limits>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) depth: Arc<Depth>,
    pub(crate) files: Arc<Files>,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) cache: Arc<Cache>,
}

/// What the store holds.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) objects: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

/// One write within a transaction.
struct Step<'a> {
    conn: &'a mut SqliteConnection,
    writer: &'a Writer,
    gathered: &'a mut Gathered,
}

impl Database {
    pub(crate) async fn start(opened: Opened, path: &Path, writer: Writer) -> Result<Self, ObjectError> {
        let readers = schema::readers(path, READERS).await?;
        let cache = Arc::clone(&writer.cache);
        Ok(Self { jobs: Arc::new(Jobs::start(opened.conn, writer)), readers, cache })
    }

    /// Carries a change out. Once this has been polled it runs to its end, whatever becomes of the caller.
    pub(crate) async fn write(&self, op: Op) -> Result<Outcome, ObjectError> {
        self.jobs.ask(|done| Job::Write(Write { op, done })).await?
    }

    pub(crate) async fn close(&self) {
        self.readers.close().await;
        if let Err(error) = self.jobs.close().await {
            tracing::warn!(%error, "closing the database of objects");
        }
    }
}

#[async_trait]
impl Work for Writer {
    type Write = Write;
    type Read = Never;
    const NAME: &'static str = "objects";
    const QUEUE_JOBS_MAX: usize = 1024;
    const GROUP_WRITES_MAX: usize = 128;

    async fn commit(&mut self, conn: &mut SqliteConnection, group: &mut Vec<Write>) {
        match self.run(conn, group).await {
            Ok((results, gathered)) => self.settle(group, results, gathered),
            // One that does not fit on the disk must not take its neighbours down.
            Err(_) if group.len() > 1 => {
                for write in std::mem::take(group) {
                    let mut alone = vec![write];
                    match self.run(conn, &alone).await {
                        Ok((results, gathered)) => self.settle(&mut alone, results, gathered),
                        Err(error) => self.fail(&mut alone, &error),
                    }
                }
            }
            Err(error) => self.fail(group, &error),
        }
    }

    async fn read(&mut self, _: &mut SqliteConnection, read: Never) {
        match read {}
    }
}

impl Writer {
    async fn run(
        &self,
        conn: &mut SqliteConnection,
        group: &[Write],
    ) -> Result<(Vec<Result<Outcome, ObjectError>>, Gathered), StoreError> {
        let mut gathered = Gathered::default();
        let mut results = Vec::with_capacity(group.len());
        let mut tx = sqlite::begin(conn).await?;
        for write in group {
            match (Step { conn: &mut tx, writer: self, gathered: &mut gathered }).take(&write.op).await {
                Ok(result) => results.push(result),
                Err(error) => {
                    // Its own failure is of no use to the caller, and the connection rolls back again before its next use.
                    let _ = tx.rollback().await;
                    return Err(error.into());
                }
            }
        }
        tx.commit().await?;
        Ok((results, gathered))
    }

    fn settle(&self, group: &mut Vec<Write>, results: Vec<Result<Outcome, ObjectError>>, gathered: Gathered) {
        // First of all: no look-up that begins from here on may find what was replaced, whose files go next.
        group.iter().for_each(|write| self.forget(&write.op));
        self.files.discard(gathered.garbage);
        add(&self.gauges.objects, gathered.objects);
        add(&self.gauges.bytes, gathered.bytes);
        self.depth.changed(gathered.noticed, gathered.acked);
        for (mut write, result) in group.drain(..).zip(results) {
            if result.is_ok()
                && let Some(fresh) = write.op.fresh()
            {
                fresh.keep();
            }
            // The caller may have gone; the change stands all the same.
            let _ = write.done.send(Ok(result));
        }
    }

    /// Takes what an operation changes out of the cache.
    fn forget(&self, op: &Op) {
        let forget = |place: &Place| self.cache.forget(&place.bucket, &place.key);
        match op {
            Op::Put(put) => forget(&put.place),
            Op::Copy(copy) => forget(&copy.place),
            Op::Complete(complete) => forget(&complete.place),
            Op::Delete { place, .. } | Op::SetTags { place, .. } => forget(place),
            Op::DeleteMany { bucket, which, .. } => which.iter().for_each(|(key, ..)| self.cache.forget(bucket, key)),
            Op::SetVersioning { .. } => self.cache.clear(),
            Op::CreateBucket(_)
            | Op::DeleteBucket(_)
            | Op::SetCors { .. }
            | Op::CreateUpload { .. }
            | Op::PutPart { .. }
            | Op::CopyPart(_)
            | Op::Abort { .. }
            | Op::Forget(_)
            | Op::Swept(_)
            | Op::Ack(_)
            | Op::ForgetRules(_) => {}
        }
    }

    fn fail(&self, group: &mut Vec<Write>, error: &StoreError) {
        group.iter().for_each(|write| self.forget(&write.op));
        for mut write in group.drain(..) {
            // Whether a commit that failed is on the disk is not known for certain: the next start looks.
            if let Some(fresh) = write.op.fresh() {
                fresh.keep();
            }
            let _ = write.done.send(Err(error.clone()));
        }
    }
}

fn add(gauge: &AtomicU64, difference: i64) {
    if difference >= 0 {
        gauge.fetch_add(difference.unsigned_abs(), Ordering::AcqRel);
    } else {
        gauge.fetch_sub(difference.unsigned_abs(), Ordering::AcqRel);
    }
}

type Taken = Result<Result<Outcome, ObjectError>, sqlx::Error>;

impl Step<'_> {
    /// Outer errors undo the transaction; inner ones are answers, and have changed nothing.
    async fn take(&mut self, op: &Op) -> Taken {
        match op {
            Op::CreateBucket(name) => self.create_bucket(name).await,
            Op::DeleteBucket(name) => self.delete_bucket(name).await,
            Op::SetCors { bucket, rules } => self.set_cors(bucket, rules).await,
            Op::Put(put) => self.put(put).await,
            Op::Copy(copy) => self.copy(copy).await,
            Op::Delete { place, version, conditions, cause } => {
                self.delete(place, version.as_deref(), conditions, cause).await
            }
            Op::DeleteMany { bucket, which, cause } => self.delete_many(bucket, which, cause).await,
            Op::SetVersioning { bucket, on } => {
                let state = if *on { Versioning::On } else { Versioning::Suspended };
                self.set_versioning(bucket, state).await
            }
            Op::SetTags { place, version, tags } => self.set_tags(place, version.as_deref(), tags).await,
            Op::CreateUpload { place, id, headers, tags, full_sum } => {
                self.create_upload(place, id, (headers, tags), *full_sum).await
            }
            Op::PutPart { place, upload, number, stored } => self.put_part(place, upload, *number, stored).await,
            Op::CopyPart(copy) => self.copy_part(copy).await,
            Op::Complete(complete) => self.complete(complete).await,
            Op::Abort { place, upload } => self.abort(place, upload).await,
            Op::Forget(ids) => {
                for id in ids {
                    sqlx::query("DELETE FROM garbage WHERE id = ?1").bind(id).execute(&mut *self.conn).await?;
                }
                Ok(Ok(Outcome::Done))
            }
            Op::Swept(boot) => {
                sqlx::query("UPDATE state SET value = ?1 WHERE name = 'swept'")
                    .bind(i64::from(*boot))
                    .execute(&mut *self.conn)
                    .await?;
                Ok(Ok(Outcome::Done))
            }
            Op::Ack(ids) => {
                for id in ids {
                    let rule: Option<String> = sqlx::query_scalar("DELETE FROM outbox WHERE id = ?1 RETURNING rule")
                        .bind(id)
                        .fetch_optional(&mut *self.conn)
                        .await?;
                    self.gathered.acked.extend(rule.map(|rule| (rule, *id)));
                }
                Ok(Ok(Outcome::Done))
            }
            Op::ForgetRules(rules) => {
                for rule in rules {
                    let ids: Vec<i64> = sqlx::query_scalar("DELETE FROM outbox WHERE rule = ?1 RETURNING id")
                        .bind(rule)
                        .fetch_all(&mut *self.conn)
                        .await?;
                    self.gathered.acked.extend(ids.into_iter().map(|id| (rule.clone(), id)));
                }
                Ok(Ok(Outcome::Done))
            }
        }
    }

    /// Whether the outbox has room for one more change.
    fn has_room(&self) -> bool {
        self.writer.depth.count() + (self.gathered.noticed.len() as u64) < self.writer.limits.outbox_max
    }

    /// Writes a notice for each rule.
    async fn notify(&mut self, rules: Vec<String>, notice: Notice) -> Result<(), sqlx::Error> {
        for rule in rules {
            let text = text_of(&Notice { rule: rule.clone(), ..notice.clone() });
            let written = sqlx::query("INSERT INTO outbox (rule, time_ms, notice) VALUES (?1, ?2, ?3)")
                .bind(&rule)
                .bind(notice.time_ms)
                .bind(text)
                .execute(&mut *self.conn)
                .await?;
            self.gathered.noticed.push((rule, written.last_insert_rowid(), notice.time_ms));
        }
        Ok(())
    }
}

/// JSON of what is ours and always can be written.
fn text_of(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("texts, numbers and lists of them are JSON")
}

fn now_ms() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}

/// SQLite's numbers have a sign; sizes here are far below where that matters.
fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
