//! The schema, and how rows become values.

use super::{Failure, FailureHead, FailureQuery, JobStage, Message, MessageKind, Replay, ReplayJob, ReplayState};
use crate::StoreError;
use crate::sqlite::Migration;
use mayfly_model::RequestId;
use sqlx::Row as _;
use sqlx::sqlite::{SqliteArguments, SqliteRow};

pub(super) const MIGRATIONS: &[Migration] = &[Migration {
    name: "failures, replays of them, messages",
    statements: &[
        "CREATE TABLE failures (seq INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, namespace TEXT NOT NULL, function TEXT NOT NULL, \
         qualifier TEXT NOT NULL, version TEXT NOT NULL, source TEXT NOT NULL, status INTEGER NOT NULL, error TEXT NOT NULL, \
         accepted_ms INTEGER NOT NULL, failed_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL, origin BLOB, resolved_by BLOB, note TEXT NOT NULL, \
         bytes INTEGER NOT NULL, scene BLOB NOT NULL, event BLOB NOT NULL)",
        "CREATE INDEX failures_by_function ON failures (namespace, function, seq)",
        "CREATE INDEX failures_by_end ON failures (expires_ms)",
        "CREATE TABLE replays (id BLOB NOT NULL PRIMARY KEY, origin BLOB NOT NULL, job BLOB NOT NULL, state INTEGER NOT NULL, \
         status INTEGER NOT NULL, planned_ms INTEGER NOT NULL, ended_ms INTEGER NOT NULL)",
        "CREATE INDEX replays_by_origin ON replays (origin)",
        "CREATE INDEX replays_by_job ON replays (job, state)",
        "CREATE TABLE jobs (n INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, token TEXT UNIQUE, spec BLOB NOT NULL, \
         query TEXT NOT NULL, stage INTEGER NOT NULL, created_ms INTEGER NOT NULL, place INTEGER NOT NULL, last INTEGER NOT NULL, \
         total INTEGER NOT NULL, sent INTEGER NOT NULL, succeeded INTEGER NOT NULL, failed INTEGER NOT NULL)",
        "CREATE TABLE messages (id BLOB NOT NULL, kind INTEGER NOT NULL, target BLOB NOT NULL, body BLOB NOT NULL, \
         created_ms INTEGER NOT NULL, due_ms INTEGER NOT NULL, attempt INTEGER NOT NULL, PRIMARY KEY (id, kind))",
        "CREATE INDEX messages_by_due ON messages (due_ms)",
        // Sums are kept by the database itself, so that no way of changing a row can forget them.
        "CREATE TABLE totals (one INTEGER PRIMARY KEY CHECK (one = 1), count INTEGER NOT NULL, bytes INTEGER NOT NULL, \
         messages INTEGER NOT NULL, message_bytes INTEGER NOT NULL)",
        "INSERT INTO totals VALUES (1, 0, 0, 0, 0)",
        "CREATE TRIGGER failure_added AFTER INSERT ON failures BEGIN UPDATE totals SET count = count + 1, bytes = bytes + NEW.bytes; END",
        "CREATE TRIGGER failure_gone AFTER DELETE ON failures BEGIN UPDATE totals SET count = count - 1, bytes = bytes - OLD.bytes; END",
        "CREATE TRIGGER message_added AFTER INSERT ON messages BEGIN \
         UPDATE totals SET messages = messages + 1, message_bytes = message_bytes + LENGTH(NEW.body); END",
        "CREATE TRIGGER message_gone AFTER DELETE ON messages BEGIN \
         UPDATE totals SET messages = messages - 1, message_bytes = message_bytes - LENGTH(OLD.body); END",
    ],
}];

/// The condition of a [`FailureQuery`] on the table `failures`, with the arguments 1 to 12 of [`bind`].
macro_rules! matches_query {
    () => {
        "(?1 IS NULL OR id IN (SELECT unhex(value) FROM json_each(?1))) AND (?2 IS NULL OR namespace = ?2) AND (?3 IS NULL OR function = ?3) \
         AND (?4 IS NULL OR version = ?4) AND (?5 IS NULL OR source = ?5) AND (?6 IS NULL OR instr(lower(error), lower(?6)) > 0) \
         AND (?7 IS NULL OR status = ?7) AND (?8 IS NULL OR failed_ms >= ?8) AND (?9 IS NULL OR failed_ms <= ?9) \
         AND (?10 IS NULL OR (resolved_by IS NOT NULL) = ?10) AND (?11 = 0 OR origin IS NULL) \
         AND (?12 = 0 OR NOT EXISTS (SELECT 1 FROM replays WHERE replays.origin = failures.id AND replays.state IN (0, 1)))"
    };
}
pub(super) use matches_query;

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, SqliteArguments>;

/// Binds the arguments of [`matches_query`].
pub(super) fn bind<'q>(sql: Query<'q>, query: &FailureQuery) -> Query<'q> {
    let ids = (!query.ids.is_empty()).then(|| {
        let ids: Vec<String> = query.ids.iter().map(|id| format!("{:032X}", id.0)).collect();
        serde_json::to_string(&ids).unwrap_or_default()
    });
    sql.bind(ids)
        .bind(query.namespace.clone())
        .bind(query.function.clone())
        .bind(query.version.clone())
        .bind(query.source.clone())
        .bind(query.text.clone())
        .bind(query.status.map(i64::from))
        .bind(query.from_ms.map(signed))
        .bind(query.to_ms.map(signed))
        .bind(query.resolved.map(i64::from))
        .bind(i64::from(query.origins_only))
        .bind(i64::from(query.idle_only))
}

pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn blob(id: RequestId) -> Vec<u8> {
    id.0.to_be_bytes().to_vec()
}

fn id(row: &SqliteRow, column: &'static str) -> Result<RequestId, StoreError> {
    let bytes: Vec<u8> = row.try_get(column)?;
    let bytes: [u8; 16] = bytes.try_into().map_err(|_| StoreError::Corrupt("the id of a request"))?;
    Ok(RequestId(u128::from_be_bytes(bytes)))
}

fn optional_id(row: &SqliteRow, column: &'static str) -> Result<Option<RequestId>, StoreError> {
    let bytes: Option<Vec<u8>> = row.try_get(column)?;
    bytes.map(|_| id(row, column)).transpose()
}

fn number(row: &SqliteRow, column: &'static str) -> Result<u64, StoreError> {
    Ok(row.try_get::<i64, _>(column)?.unsigned_abs())
}

fn status(row: &SqliteRow) -> Result<u16, StoreError> {
    u16::try_from(row.try_get::<i64, _>("status")?).map_err(|_| StoreError::Corrupt("a status"))
}

/// The columns of [`head`].
macro_rules! head_columns {
    () => {
        "seq, id, namespace, function, qualifier, version, source, status, error, accepted_ms, failed_ms, origin, resolved_by, note"
    };
}
pub(super) use head_columns;

pub(super) fn head(row: &SqliteRow) -> Result<FailureHead, StoreError> {
    Ok(FailureHead {
        seq: number(row, "seq")?,
        id: id(row, "id")?,
        namespace: row.try_get("namespace")?,
        function: row.try_get("function")?,
        qualifier: row.try_get("qualifier")?,
        version: row.try_get("version")?,
        source: row.try_get("source")?,
        status: status(row)?,
        error: row.try_get("error")?,
        accepted_ms: number(row, "accepted_ms")?,
        failed_ms: number(row, "failed_ms")?,
        origin: optional_id(row, "origin")?,
        resolved_by: optional_id(row, "resolved_by")?,
        note: row.try_get("note")?,
    })
}

pub(super) fn failure(row: &SqliteRow) -> Result<Failure, StoreError> {
    Ok(Failure {
        head: head(row)?,
        expires_ms: number(row, "expires_ms")?,
        scene: row.try_get("scene")?,
        event: row.try_get("event")?,
    })
}

pub(super) fn replay(row: &SqliteRow) -> Result<Replay, StoreError> {
    Ok(Replay {
        id: id(row, "id")?,
        origin: id(row, "origin")?,
        job: id(row, "job")?,
        state: ReplayState::of(row.try_get("state")?)?,
        status: status(row)?,
        planned_ms: number(row, "planned_ms")?,
        ended_ms: number(row, "ended_ms")?,
    })
}

pub(super) fn job(row: &SqliteRow) -> Result<ReplayJob, StoreError> {
    let query: String = row.try_get("query")?;
    Ok(ReplayJob {
        id: id(row, "id")?,
        token: row.try_get("token")?,
        spec: row.try_get("spec")?,
        query: serde_json::from_str(&query).map_err(|_| StoreError::Corrupt("the filter of a job"))?,
        stage: JobStage::of(row.try_get("stage")?)?,
        created_ms: number(row, "created_ms")?,
        total: number(row, "total")?,
        sent: number(row, "sent")?,
        succeeded: number(row, "succeeded")?,
        failed: number(row, "failed")?,
    })
}

pub(super) fn message(row: &SqliteRow) -> Result<Message, StoreError> {
    Ok(Message {
        id: id(row, "id")?,
        kind: MessageKind::of(row.try_get("kind")?)?,
        target: row.try_get("target")?,
        body: row.try_get("body")?,
        created_ms: number(row, "created_ms")?,
        due_ms: number(row, "due_ms")?,
        attempt: u32::try_from(row.try_get::<i64, _>("attempt")?).unwrap_or(u32::MAX),
    })
}
