//! Failures in one SQLite file of their own. Ends of requests, which may come in thousands, are written by one task that commits those
//! that wait together together; everything else goes over a second connection.

use super::rows::{self, MIGRATIONS, bind, blob, head_columns, matches_query, signed};
use super::{
    ENDED_JOBS_MAX, Ending, Failure, FailureLimits, FailureLog, FailurePage, FailureQuery, FailureUsage, JobStage,
    Message, MessageKind, NewJob, Replay, ReplayJob, ReplayState, replay_id,
};
use crate::StoreError;
use crate::sqlite::{begin, open};
use crate::writer::{Done, Job, Jobs, Work};
use async_trait::async_trait;
use mayfly_model::RequestId;
use sqlx::{Row as _, Sqlite, SqliteConnection, Transaction};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Mutex;

/// Most messages that one question for due ones returns, in bytes.
const DUE_BYTES_MAX: usize = 8 << 20;
/// Origins of origins that one success resolves at most.
const ORIGIN_HOPS_MAX: usize = 64;

/// Failures, replay jobs and messages in one SQLite file.
#[derive(Debug)]
pub struct SqliteFailures {
    ends: Jobs<Write, ()>,
    conn: Mutex<SqliteConnection>,
    limits: FailureLimits,
    evicted: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Write {
    ending: Ending,
    done: Done<()>,
}

struct Ends {
    limits: FailureLimits,
    evicted: Arc<AtomicU64>,
}

impl SqliteFailures {
    /// Opens the database at `path`, makes it where absent, and starts its writer on the current tokio runtime.
    ///
    /// # Errors
    /// [`StoreError::Schema`] when the file is of a newer release, [`StoreError::Corrupt`] when it is no database.
    pub async fn open(path: &Path, limits: FailureLimits) -> Result<Self, StoreError> {
        let writer = open(path, MIGRATIONS).await?;
        let conn = open(path, MIGRATIONS).await?;
        let evicted = Arc::new(AtomicU64::new(0));
        let ends = Jobs::start(writer, Ends { limits, evicted: Arc::clone(&evicted) });
        Ok(Self { ends, conn: Mutex::new(conn), limits, evicted })
    }

    /// Finishes what was accepted and closes the writer. Later ends answer [`StoreError::Closed`].
    pub async fn close(&self) -> Result<(), StoreError> {
        self.ends.close().await
    }
}

#[async_trait]
impl Work for Ends {
    type Write = Write;
    type Read = ();
    const NAME: &'static str = "failures";
    const QUEUE_JOBS_MAX: usize = 256;
    const GROUP_WRITES_MAX: usize = 64;

    async fn commit(&mut self, conn: &mut SqliteConnection, group: &mut Vec<Write>) {
        let alone = group.len() == 1;
        match self.run(conn, group).await {
            Ok(()) => group.drain(..).for_each(|write| drop(write.done.send(Ok(())))),
            Err(error) if alone => group.drain(..).for_each(|write| drop(write.done.send(Err(error.clone())))),
            // One that does not fit must not take its neighbours down.
            Err(_) => {
                for write in group.drain(..) {
                    let result = self.run(conn, std::slice::from_ref(&write)).await;
                    let _ = write.done.send(result);
                }
            }
        }
    }

    async fn read(&mut self, _conn: &mut SqliteConnection, (): ()) {}
}

impl Ends {
    async fn run(&self, conn: &mut SqliteConnection, group: &[Write]) -> Result<(), StoreError> {
        let mut tx = begin(conn).await?;
        let mut evicted = 0;
        for write in group {
            evicted += conclude(&mut tx, &write.ending, &self.limits).await?;
        }
        tx.commit().await?;
        self.evicted.fetch_add(evicted, Ordering::Relaxed);
        Ok(())
    }
}

/// Writes one end. Returns how many failures it displaced.
async fn conclude(
    tx: &mut Transaction<'_, Sqlite>,
    ending: &Ending,
    limits: &FailureLimits,
) -> Result<u64, StoreError> {
    let mut evicted = 0;
    if let Some(failure) = &ending.failure {
        keep(tx, failure).await?;
        evicted = make_room(tx, limits.bytes_max).await?;
    }
    if let Some(end) = &ending.replay {
        let state = if end.ok { ReplayState::Succeeded } else { ReplayState::Failed };
        let found = sqlx::query("SELECT origin, job, state FROM replays WHERE id = ?1")
            .bind(blob(end.id))
            .fetch_optional(&mut **tx)
            .await?;
        if let Some(found) = found {
            let (origin, job): (Vec<u8>, Vec<u8>) = (found.try_get(0)?, found.try_get(1)?);
            let before = ReplayState::of(found.try_get(2)?)?;
            sqlx::query("UPDATE replays SET state = ?2, status = ?3, ended_ms = ?4 WHERE id = ?1")
                .bind(blob(end.id))
                .bind(state.number())
                .bind(i64::from(end.status))
                .bind(signed(end.ended_ms))
                .execute(&mut **tx)
                .await?;
            if !before.is_over() {
                // One that was given up as cancelled had reached the event log after all.
                let again = i64::from(before == ReplayState::Cancelled);
                sqlx::query(
                    "UPDATE jobs SET sent = sent + ?4, succeeded = succeeded + ?2, failed = failed + ?3 WHERE id = ?1",
                )
                .bind(job)
                .bind(i64::from(end.ok))
                .bind(i64::from(!end.ok))
                .bind(again)
                .execute(&mut **tx)
                .await?;
            }
            if end.ok {
                resolve(tx, origin, blob(end.id)).await?;
            }
        }
    }
    for message in &ending.messages {
        sqlx::query("DELETE FROM messages WHERE id = ?1 AND kind = ?2")
            .bind(blob(message.id))
            .bind(message.kind.number())
            .execute(&mut **tx)
            .await?;
        let (count, bytes): (i64, i64) =
            sqlx::query_as("SELECT messages, message_bytes FROM totals").fetch_one(&mut **tx).await?;
        if count.unsigned_abs() >= limits.messages_max
            || bytes.unsigned_abs() + message.body.len() as u64 > limits.message_bytes_max
        {
            return Err(StoreError::Full("too many messages wait to be delivered"));
        }
        sqlx::query("INSERT INTO messages (id, kind, target, body, created_ms, due_ms, attempt) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")
            .bind(blob(message.id))
            .bind(message.kind.number())
            .bind(&message.target[..])
            .bind(&message.body[..])
            .bind(signed(message.created_ms))
            .bind(signed(message.due_ms))
            .bind(i64::from(message.attempt))
            .execute(&mut **tx)
            .await?;
    }
    Ok(evicted)
}

async fn keep(tx: &mut Transaction<'_, Sqlite>, failure: &Failure) -> Result<(), StoreError> {
    let head = &failure.head;
    sqlx::query("DELETE FROM failures WHERE id = ?1").bind(blob(head.id)).execute(&mut **tx).await?;
    sqlx::query(
        "INSERT INTO failures (id, namespace, function, qualifier, version, source, status, error, accepted_ms, failed_ms, expires_ms, \
         origin, note, bytes, scene, event) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
    )
    .bind(blob(head.id))
    .bind(&head.namespace)
    .bind(&head.function)
    .bind(&head.qualifier)
    .bind(&head.version)
    .bind(&head.source)
    .bind(i64::from(head.status))
    .bind(&head.error)
    .bind(signed(head.accepted_ms))
    .bind(signed(head.failed_ms))
    .bind(signed(failure.expires_ms))
    .bind(head.origin.map(blob))
    .bind(&head.note)
    .bind(signed(failure.bytes()))
    .bind(&failure.scene[..])
    .bind(&failure.event[..])
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Removes the oldest failures until the rest fits; the newest stays in any case.
async fn make_room(tx: &mut Transaction<'_, Sqlite>, bytes_max: u64) -> Result<u64, StoreError> {
    let mut evicted = 0;
    loop {
        let (count, bytes): (i64, i64) = sqlx::query_as("SELECT count, bytes FROM totals").fetch_one(&mut **tx).await?;
        if count <= 1 || bytes.unsigned_abs() <= bytes_max {
            return Ok(evicted);
        }
        sqlx::query("DELETE FROM failures WHERE seq = (SELECT MIN(seq) FROM failures)").execute(&mut **tx).await?;
        evicted += 1;
    }
}

/// Marks a failure as resolved, and those that it was a replay of.
async fn resolve(tx: &mut Transaction<'_, Sqlite>, mut origin: Vec<u8>, by: Vec<u8>) -> Result<(), StoreError> {
    for _ in 0..ORIGIN_HOPS_MAX {
        let next: Option<Option<Vec<u8>>> =
            sqlx::query_scalar("UPDATE failures SET resolved_by = ?2 WHERE id = ?1 RETURNING origin")
                .bind(&origin[..])
                .bind(&by[..])
                .fetch_optional(&mut **tx)
                .await?;
        match next.flatten() {
            Some(further) => origin = further,
            None => return Ok(()),
        }
    }
    Ok(())
}

const JOB_COLUMNS_WHERE_ID: &str = "SELECT * FROM jobs WHERE id = ?1";

#[async_trait]
impl FailureLog for SqliteFailures {
    async fn conclude(&self, ending: Ending) -> Result<(), StoreError> {
        ending.validate()?;
        self.ends.ask(|done| Job::Write(Write { ending, done })).await
    }

    async fn get(&self, id: RequestId) -> Result<Option<Failure>, StoreError> {
        let mut conn = self.conn.lock().await;
        let row = sqlx::query("SELECT * FROM failures WHERE id = ?1").bind(blob(id)).fetch_optional(&mut *conn).await?;
        row.as_ref().map(rows::failure).transpose()
    }

    async fn list(
        &self,
        query: &FailureQuery,
        after: Option<u64>,
        ascending: bool,
        limit: usize,
    ) -> Result<FailurePage, StoreError> {
        let mut conn = self.conn.lock().await;
        let count = concat!("SELECT COUNT(*) FROM failures WHERE ", matches_query!());
        let total: i64 = bind(sqlx::query(count), query).fetch_one(&mut *conn).await?.try_get(0)?;
        let sql = match ascending {
            true => concat!(
                "SELECT ",
                head_columns!(),
                " FROM failures WHERE ",
                matches_query!(),
                " AND (?13 IS NULL OR seq > ?13) ORDER BY seq LIMIT ?14"
            ),
            false => concat!(
                "SELECT ",
                head_columns!(),
                " FROM failures WHERE ",
                matches_query!(),
                " AND (?13 IS NULL OR seq < ?13) ORDER BY seq DESC LIMIT ?14"
            ),
        };
        let found = bind(sqlx::query(sql), query)
            .bind(after.map(signed))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&mut *conn)
            .await?;
        let heads = found.iter().map(rows::head).collect::<Result<_, _>>()?;
        Ok(FailurePage { heads, total: total.unsigned_abs() })
    }

    async fn delete(&self, query: &FailureQuery) -> Result<u64, StoreError> {
        let mut conn = self.conn.lock().await;
        let sql = concat!("DELETE FROM failures WHERE ", matches_query!());
        Ok(bind(sqlx::query(sql), query).execute(&mut *conn).await?.rows_affected())
    }

    async fn prune(&self, now_ms: u64) -> Result<u64, StoreError> {
        let mut conn = self.conn.lock().await;
        let mut tx = begin(&mut conn).await?;
        let gone =
            sqlx::query("DELETE FROM failures WHERE expires_ms <= ?1").bind(signed(now_ms)).execute(&mut *tx).await?;
        sqlx::query(
            "DELETE FROM jobs WHERE stage != 0 AND succeeded + failed >= sent AND n NOT IN \
             (SELECT n FROM jobs WHERE stage != 0 AND succeeded + failed >= sent ORDER BY n DESC LIMIT ?1)",
        )
        .bind(i64::try_from(ENDED_JOBS_MAX).unwrap_or(i64::MAX))
        .execute(&mut *tx)
        .await?;
        sqlx::query("DELETE FROM replays WHERE state IN (2, 3, 4) AND origin NOT IN (SELECT id FROM failures) AND job NOT IN (SELECT id FROM jobs)")
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        sqlx::query("PRAGMA incremental_vacuum(1024)").execute(&mut *conn).await?;
        Ok(gone.rows_affected())
    }

    async fn usage(&self) -> Result<FailureUsage, StoreError> {
        let mut conn = self.conn.lock().await;
        let (count, bytes, messages): (i64, i64, i64) =
            sqlx::query_as("SELECT count, bytes, messages FROM totals").fetch_one(&mut *conn).await?;
        Ok(FailureUsage {
            count: count.unsigned_abs(),
            bytes: bytes.unsigned_abs(),
            evicted: self.evicted.load(Ordering::Relaxed),
            messages: messages.unsigned_abs(),
        })
    }

    async fn replays_of(&self, origin: RequestId) -> Result<Vec<Replay>, StoreError> {
        let mut conn = self.conn.lock().await;
        let found = sqlx::query("SELECT * FROM replays WHERE origin = ?1 ORDER BY planned_ms, id LIMIT 1000")
            .bind(blob(origin))
            .fetch_all(&mut *conn)
            .await?;
        found.iter().map(rows::replay).collect()
    }

    async fn add_job(&self, job: NewJob) -> Result<ReplayJob, StoreError> {
        let query = serde_json::to_string(&job.query).map_err(|_| StoreError::Corrupt("the filter of a job"))?;
        let mut conn = self.conn.lock().await;
        let mut tx = begin(&mut conn).await?;
        if let Some(token) = &job.token {
            let found = sqlx::query("SELECT * FROM jobs WHERE token = ?1").bind(token).fetch_optional(&mut *tx).await?;
            if let Some(found) = found {
                return rows::job(&found);
            }
        }
        let sending: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM jobs WHERE stage = 0").fetch_one(&mut *tx).await?;
        if sending.unsigned_abs() >= self.limits.jobs_max {
            return Err(StoreError::Full("too many replay jobs are under way"));
        }
        let last: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(seq), 0) FROM failures").fetch_one(&mut *tx).await?;
        let count = concat!("SELECT COUNT(*) FROM failures WHERE ", matches_query!());
        let total: i64 = bind(sqlx::query(count), &job.query).fetch_one(&mut *tx).await?.try_get(0)?;
        sqlx::query(
            "INSERT INTO jobs (id, token, spec, query, stage, created_ms, place, last, total, sent, succeeded, failed) \
             VALUES (?1, ?2, ?3, ?4, 0, ?5, 0, ?6, ?7, 0, 0, 0)",
        )
        .bind(blob(job.id))
        .bind(job.token)
        .bind(job.spec)
        .bind(query)
        .bind(signed(job.created_ms))
        .bind(last)
        .bind(total)
        .execute(&mut *tx)
        .await?;
        let row = sqlx::query(JOB_COLUMNS_WHERE_ID).bind(blob(job.id)).fetch_one(&mut *tx).await?;
        tx.commit().await?;
        rows::job(&row)
    }

    async fn job(&self, id: RequestId) -> Result<Option<ReplayJob>, StoreError> {
        let mut conn = self.conn.lock().await;
        let row = sqlx::query(JOB_COLUMNS_WHERE_ID).bind(blob(id)).fetch_optional(&mut *conn).await?;
        row.as_ref().map(rows::job).transpose()
    }

    async fn jobs(&self) -> Result<Vec<ReplayJob>, StoreError> {
        let mut conn = self.conn.lock().await;
        let found = sqlx::query("SELECT * FROM jobs ORDER BY n DESC").fetch_all(&mut *conn).await?;
        found.iter().map(rows::job).collect()
    }

    async fn plan(&self, job: RequestId, now_ms: u64, limit: usize) -> Result<Vec<Replay>, StoreError> {
        let mut conn = self.conn.lock().await;
        let mut tx = begin(&mut conn).await?;
        let Some(row) = sqlx::query(JOB_COLUMNS_WHERE_ID).bind(blob(job)).fetch_optional(&mut *tx).await? else {
            return Ok(Vec::new());
        };
        let (place, last): (i64, i64) = (row.try_get("place")?, row.try_get("last")?);
        let known = rows::job(&row)?;
        if known.stage != JobStage::Sending {
            return Ok(Vec::new());
        }
        let sql = concat!(
            "SELECT ",
            head_columns!(),
            " FROM failures WHERE ",
            matches_query!(),
            " AND seq > ?13 AND seq <= ?14 ORDER BY seq LIMIT ?15"
        );
        let found = bind(sqlx::query(sql), &known.query)
            .bind(place)
            .bind(last)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&mut *tx)
            .await?;
        let mut planned = Vec::with_capacity(found.len());
        let mut reached = place;
        for row in &found {
            let head = rows::head(row)?;
            reached = signed(head.seq);
            let id = replay_id(head.id, job);
            let replay = Replay {
                id,
                origin: head.id,
                job,
                state: ReplayState::Planned,
                status: 0,
                planned_ms: now_ms,
                ended_ms: 0,
            };
            sqlx::query("INSERT OR IGNORE INTO replays (id, origin, job, state, status, planned_ms, ended_ms) VALUES (?1, ?2, ?3, 0, 0, ?4, 0)")
                .bind(blob(id))
                .bind(blob(head.id))
                .bind(blob(job))
                .bind(signed(now_ms))
                .execute(&mut *tx)
                .await?;
            planned.push(replay);
        }
        sqlx::query("UPDATE jobs SET place = ?2, sent = sent + ?3 WHERE id = ?1")
            .bind(blob(job))
            .bind(reached)
            .bind(i64::try_from(planned.len()).unwrap_or(i64::MAX))
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(planned)
    }

    async fn planned(&self, job: RequestId) -> Result<Vec<Replay>, StoreError> {
        let mut conn = self.conn.lock().await;
        let found = sqlx::query("SELECT * FROM replays WHERE job = ?1 AND state = 0")
            .bind(blob(job))
            .fetch_all(&mut *conn)
            .await?;
        found.iter().map(rows::replay).collect()
    }

    async fn accepted(&self, ids: &[RequestId]) -> Result<(), StoreError> {
        let mut conn = self.conn.lock().await;
        let mut tx = begin(&mut conn).await?;
        for id in ids {
            sqlx::query("UPDATE replays SET state = 1 WHERE id = ?1 AND state = 0")
                .bind(blob(*id))
                .execute(&mut *tx)
                .await?;
        }
        Ok(tx.commit().await?)
    }

    async fn set_stage(&self, job: RequestId, stage: JobStage) -> Result<(), StoreError> {
        let mut conn = self.conn.lock().await;
        sqlx::query("UPDATE jobs SET stage = ?2 WHERE id = ?1 AND stage = 0")
            .bind(blob(job))
            .bind(stage.number())
            .execute(&mut *conn)
            .await?;
        Ok(())
    }

    async fn drop_planned(&self, job: RequestId) -> Result<(), StoreError> {
        let mut conn = self.conn.lock().await;
        let mut tx = begin(&mut conn).await?;
        let dropped = sqlx::query("UPDATE replays SET state = 4 WHERE job = ?1 AND state = 0")
            .bind(blob(job))
            .execute(&mut *tx)
            .await?;
        sqlx::query("UPDATE jobs SET sent = sent - ?2 WHERE id = ?1")
            .bind(blob(job))
            .bind(signed(dropped.rows_affected()))
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    async fn due(&self, now_ms: u64, limit: usize) -> Result<Vec<Message>, StoreError> {
        let mut conn = self.conn.lock().await;
        let heads = sqlx::query("SELECT rowid, LENGTH(body) FROM messages WHERE due_ms <= ?1 ORDER BY due_ms LIMIT ?2")
            .bind(signed(now_ms))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&mut *conn)
            .await?;
        let (mut found, mut bytes) = (Vec::new(), 0);
        for head in heads {
            if bytes >= DUE_BYTES_MAX as u64 {
                break;
            }
            bytes += head.try_get::<i64, _>(1)?.unsigned_abs();
            let row = sqlx::query("SELECT * FROM messages WHERE rowid = ?1")
                .bind(head.try_get::<i64, _>(0)?)
                .fetch_optional(&mut *conn)
                .await?;
            found.extend(row.as_ref().map(rows::message).transpose()?);
        }
        Ok(found)
    }

    async fn postpone(&self, id: RequestId, kind: MessageKind, due_ms: u64, attempt: u32) -> Result<(), StoreError> {
        let mut conn = self.conn.lock().await;
        sqlx::query("UPDATE messages SET due_ms = ?3, attempt = ?4 WHERE id = ?1 AND kind = ?2")
            .bind(blob(id))
            .bind(kind.number())
            .bind(signed(due_ms))
            .bind(i64::from(attempt))
            .execute(&mut *conn)
            .await?;
        Ok(())
    }

    async fn settle(&self, id: RequestId, kind: MessageKind, note: Option<String>) -> Result<(), StoreError> {
        let mut conn = self.conn.lock().await;
        let mut tx = begin(&mut conn).await?;
        sqlx::query("DELETE FROM messages WHERE id = ?1 AND kind = ?2")
            .bind(blob(id))
            .bind(kind.number())
            .execute(&mut *tx)
            .await?;
        if let Some(note) = note {
            sqlx::query(
                "UPDATE failures SET note = CASE note WHEN '' THEN ?2 ELSE note || char(10) || ?2 END WHERE id = ?1",
            )
            .bind(blob(id))
            .bind(note)
            .execute(&mut *tx)
            .await?;
        }
        Ok(tx.commit().await?)
    }
}
