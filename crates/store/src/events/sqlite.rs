//! Events in one SQLite file of their own: a burst of events must not hold up a change of settings.

use super::{DUE_BYTES_MAX, EventCursor, EventLimits, EventLog, Room, StoredEvent, validate, validate_time};
use crate::StoreError;
use crate::sqlite::{Migration, begin, open};
use crate::writer::{Done, Job, Jobs, Work};
use async_trait::async_trait;
use mayfly_model::RequestId;
use sqlx::{AssertSqlSafe, Row as _, SqliteConnection};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MIGRATIONS: &[Migration] = &[Migration {
    name: "pending events by due time",
    statements: &[
        "CREATE TABLE events (id BLOB NOT NULL, due_ms INTEGER NOT NULL, attempt INTEGER NOT NULL, payload BLOB NOT NULL)",
        "CREATE UNIQUE INDEX events_by_id ON events (id)",
        "CREATE INDEX events_by_due ON events (due_ms, id)",
    ],
}];

/// Pages of the file given back to the system at a time, once the log has run empty.
const VACUUM_PAGES: &str = "PRAGMA incremental_vacuum(1024)";

/// Moves the write-ahead log into the database, and cuts it to nothing.
const TRUNCATE_LOG: &str = "PRAGMA wal_checkpoint(TRUNCATE)";

/// What appends leave free on the disk, in bytes: removing an event takes room in the write-ahead log first, and a log that is full must be
/// able to run empty.
const RESERVE_BYTES: u64 = 16 << 20;
/// What a row takes beside its payload, indexes and unused parts of pages included, in bytes. An estimate on the large side.
const ROW_BYTES: usize = 1024;

/// Events in one SQLite file, written by one task over one connection. Writes that wait together are committed
/// together, so that many callers share one sync of the disk.
#[derive(Debug)]
pub struct SqliteEvents {
    jobs: Jobs<Write, Due>,
    room: Arc<Room>,
}

/// A question for events that are due.
#[derive(Debug)]
struct Due {
    now_ms: i64,
    limit: usize,
    after: Option<EventCursor>,
    done: Done<Vec<StoredEvent>>,
}

#[derive(Debug)]
struct Write {
    op: Op,
    done: Done<()>,
}

#[derive(Debug)]
enum Op {
    Append(StoredEvent),
    Reschedule { id: RequestId, due_ms: i64, attempt: u32 },
    Finish(RequestId),
}

/// What a write did, before its transaction is committed.
enum Effect {
    Done,
    /// A finished event left the log: this many bytes of payload.
    Freed(usize),
    /// Turned down without harm to the rest of the transaction.
    Refused(StoreError),
}

impl SqliteEvents {
    /// Opens the database at `path`, makes it where absent, and starts its writer on the current tokio runtime.
    ///
    /// # Errors
    /// [`StoreError::Schema`] when the file is of a newer release, [`StoreError::Corrupt`] when it is no database.
    pub async fn open(path: &Path, limits: EventLimits) -> Result<Self, StoreError> {
        let mut conn = open(path, MIGRATIONS).await?;
        let (count, bytes): (i64, i64) =
            sqlx::query_as("SELECT COUNT(*), COALESCE(SUM(LENGTH(payload)), 0) FROM events")
                .fetch_one(&mut conn)
                .await?;
        let room = Arc::new(Room::new(limits, count.unsigned_abs(), bytes.unsigned_abs()));
        let jobs = Jobs::start(conn, Pending { room: Arc::clone(&room), path: path.to_owned() });
        Ok(Self { jobs, room })
    }

    /// Finishes what was accepted and closes the file. Later calls answer [`StoreError::Closed`].
    pub async fn close(&self) -> Result<(), StoreError> {
        self.jobs.close().await
    }

    async fn write(&self, op: Op) -> Result<(), StoreError> {
        self.jobs.ask(|done| Job::Write(Write { op, done })).await
    }
}

#[async_trait]
impl EventLog for SqliteEvents {
    async fn append(&self, event: StoredEvent) -> Result<(), StoreError> {
        validate(&event)?;
        // Room is taken only with a place in the queue in hand: from here on the writer alone gives it back, so a
        // caller that goes away leaves no room taken.
        let place = self.jobs.place().await?;
        self.room.take(event.payload.len())?;
        place.ask(|done| Job::Write(Write { op: Op::Append(event), done })).await
    }

    async fn reschedule(&self, id: RequestId, due_ms: u64, attempt: u32) -> Result<(), StoreError> {
        let due_ms = validate_time(due_ms)?;
        self.write(Op::Reschedule { id, due_ms, attempt }).await
    }

    async fn finish(&self, id: RequestId) -> Result<(), StoreError> {
        self.write(Op::Finish(id)).await
    }

    async fn due(&self, now_ms: u64, limit: usize, after: Option<EventCursor>) -> Result<Vec<StoredEvent>, StoreError> {
        let now_ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
        self.jobs.ask(|done| Job::Read(Due { now_ms, limit, after, done })).await
    }

    async fn pending(&self) -> Result<u64, StoreError> {
        Ok(self.room.count())
    }
}

/// The events, and how much room they leave.
struct Pending {
    room: Arc<Room>,
    path: PathBuf,
}

impl Pending {
    /// True when so many bytes of events leave [`RESERVE_BYTES`] on the disk.
    async fn has_room(&self, conn: &mut SqliteConnection, bytes: u64) -> bool {
        let free = match rustix::fs::statvfs(&self.path) {
            Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize),
            // Then it is for the commit to find out.
            Err(_) => return true,
        };
        // Each byte is written to the write-ahead log first, and into the database later, where there may be room already.
        if free.saturating_sub(2 * bytes) >= RESERVE_BYTES {
            return true;
        }
        let unused = sqlx::query_scalar::<_, i64>(
            "SELECT freelist_count * page_size FROM pragma_freelist_count, pragma_page_size",
        );
        let unused = unused.fetch_one(conn).await.map_or(0, i64::unsigned_abs);
        free.saturating_sub(bytes + bytes.saturating_sub(unused)) >= RESERVE_BYTES
    }

    /// Turns appends away that would leave less than [`RESERVE_BYTES`] on the disk.
    async fn refuse_what_does_not_fit(&self, conn: &mut SqliteConnection, group: &mut Vec<Write>) {
        let size = |write: &Write| match &write.op {
            Op::Append(event) => Some((event.payload.len() + ROW_BYTES) as u64),
            _ => None,
        };
        let bytes: u64 = group.iter().filter_map(size).sum();
        if bytes == 0 {
            return;
        }
        if self.has_room(conn, bytes).await {
            return;
        }
        // The write-ahead log keeps what it took in its worst minute, and nothing but a write would make it give that back.
        if let Err(error) = sqlx::query(TRUNCATE_LOG).execute(&mut *conn).await {
            tracing::warn!(%error, "giving back the write-ahead log of the event database");
        }
        if self.has_room(conn, bytes).await {
            return;
        }
        let (appends, others) = group.drain(..).partition(|write| matches!(write.op, Op::Append(_)));
        *group = others;
        for write in appends {
            settle(&self.room, write, Err(StoreError::Full("the disk is full")));
        }
    }
}

#[async_trait]
impl Work for Pending {
    type Write = Write;
    type Read = Due;
    const NAME: &'static str = "events";
    const QUEUE_JOBS_MAX: usize = 4096;
    const GROUP_WRITES_MAX: usize = 2048;

    async fn commit(&mut self, conn: &mut SqliteConnection, group: &mut Vec<Write>) {
        self.refuse_what_does_not_fit(conn, group).await;
        if !group.is_empty() {
            commit_group(conn, &self.room, group).await;
        }
    }

    async fn read(&mut self, conn: &mut SqliteConnection, Due { now_ms, limit, after, done }: Due) {
        let _ = done.send(due(conn, now_ms, limit, after).await);
    }
}

async fn commit_group(conn: &mut SqliteConnection, room: &Room, group: &mut Vec<Write>) {
    let alone = group.len() == 1;
    let mut emptied = false;
    match run(conn, group).await {
        Ok(effects) => {
            for (write, effect) in group.drain(..).zip(effects) {
                emptied |= settle(room, write, Ok(effect));
            }
        }
        Err(undone) if alone => {
            let error = undone.into_error();
            for write in group.drain(..) {
                settle(room, write, Err(error.clone()));
            }
        }
        // One event that does not fit on the disk, or is there already, must not take its neighbours down; and a `finish` makes room.
        Err(_) => {
            for write in group.drain(..) {
                let result = run(conn, std::slice::from_ref(&write)).await;
                let result = result.map_err(Undone::into_error);
                let effect = result.and_then(|mut effects| effects.pop().ok_or(StoreError::Closed));
                emptied |= settle(room, write, effect);
            }
        }
    }
    if emptied && let Err(error) = sqlx::query(VACUUM_PAGES).execute(conn).await {
        tracing::warn!(%error, "giving back free pages of the event database");
    }
}

/// Answers the caller and sets the counters right. True when this left the log empty.
fn settle(room: &Room, write: Write, result: Result<Effect, StoreError>) -> bool {
    let mut emptied = false;
    let answer = match result {
        Ok(Effect::Done) => Ok(()),
        Ok(Effect::Freed(bytes)) => {
            room.give_back(bytes);
            emptied = room.count() == 0;
            Ok(())
        }
        Ok(Effect::Refused(error)) | Err(error) => {
            if let Op::Append(event) = &write.op {
                room.give_back(event.payload.len());
            }
            Err(error)
        }
    };
    // The caller may have gone; the write stands all the same.
    let _ = write.done.send(answer);
    emptied
}

/// Rows that one statement writes at most; what is over is written by statements of half the size, and half of that, so that few have to be
/// prepared.
const ROWS_MAX: usize = 64;

/// Why a group was not committed.
enum Undone {
    /// An event of it is pending already: those of the group are to be written one by one.
    Conflict,
    Failed(StoreError),
}

impl From<sqlx::Error> for Undone {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<StoreError> for Undone {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

impl Undone {
    /// What the caller of the only write hears.
    fn into_error(self) -> StoreError {
        match self {
            Self::Conflict => StoreError::Exists("an event with this id is pending"),
            Self::Failed(error) => error,
        }
    }
}

async fn run(conn: &mut SqliteConnection, group: &[Write]) -> Result<Vec<Effect>, Undone> {
    let mut tx = begin(conn).await?;
    match run_all(&mut tx, group).await {
        Ok(effects) => {
            tx.commit().await?;
            Ok(effects)
        }
        Err(undone) => {
            // Its own failure is of no use to the caller, and the connection rolls back again before its next use.
            let _ = tx.rollback().await;
            Err(undone)
        }
    }
}

/// All appends, then all reschedules, then all finishes: of one event they come in this order, and what is asked for at once may be done in any.
async fn run_all(conn: &mut SqliteConnection, group: &[Write]) -> Result<Vec<Effect>, Undone> {
    let mut effects: Vec<Effect> = group.iter().map(|_| Effect::Done).collect();
    let mut events = Vec::with_capacity(group.len());
    let mut finished = Vec::with_capacity(group.len());
    for (at, write) in group.iter().enumerate() {
        match &write.op {
            Op::Append(event) => events.push((at, event)),
            Op::Finish(id) => finished.push((at, *id)),
            Op::Reschedule { .. } => {}
        }
    }
    for rows in chunks(&events) {
        if append(conn, rows).await? < rows.len() as u64 {
            return Err(Undone::Conflict);
        }
    }
    for (at, write) in group.iter().enumerate() {
        if let Op::Reschedule { id, due_ms, attempt } = &write.op {
            let result = sqlx::query("UPDATE events SET due_ms = ?2, attempt = ?3 WHERE id = ?1")
                .bind(&id.0.to_be_bytes()[..])
                .bind(*due_ms)
                .bind(i64::from(*attempt))
                .execute(&mut *conn)
                .await?;
            if result.rows_affected() == 0 {
                effects[at] = Effect::Refused(StoreError::NotFound("the event"));
            }
        }
    }
    for rows in chunks(&finished) {
        for (id, bytes) in finish(conn, rows).await? {
            if let Some((at, _)) = rows.iter().find(|(_, finished)| *finished == id) {
                effects[*at] = Effect::Freed(bytes);
            }
        }
    }
    Ok(effects)
}

/// Parts of [`ROWS_MAX`] rows, then of half as many, and so on.
fn chunks<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    let mut size = ROWS_MAX;
    std::iter::from_fn(move || {
        while size > rows.len() {
            size /= 2;
        }
        let (chunk, rest) = rows.split_at(size);
        rows = rest;
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// Writes events that are not there yet, and returns how many.
async fn append(conn: &mut SqliteConnection, rows: &[(usize, &StoredEvent)]) -> Result<u64, StoreError> {
    let marks = vec!["(?, ?, ?, ?)"; rows.len()].join(", ");
    let sql = format!("INSERT INTO events (id, due_ms, attempt, payload) VALUES {marks} ON CONFLICT (id) DO NOTHING");
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for (_, event) in rows {
        query = query
            .bind(event.id.0.to_be_bytes().to_vec())
            .bind(i64::try_from(event.due_ms).unwrap_or(i64::MAX))
            .bind(i64::from(event.attempt))
            .bind(event.payload.as_slice());
    }
    Ok(query.execute(conn).await?.rows_affected())
}

/// Removes events, and returns those that were there with the sizes of their payloads.
async fn finish(
    conn: &mut SqliteConnection,
    rows: &[(usize, RequestId)],
) -> Result<Vec<(RequestId, usize)>, StoreError> {
    let marks = vec!["?"; rows.len()].join(", ");
    let sql = format!("DELETE FROM events WHERE id IN ({marks}) RETURNING id, LENGTH(payload)");
    let mut query = sqlx::query_as::<_, (Vec<u8>, i64)>(AssertSqlSafe(sql));
    for (_, id) in rows {
        query = query.bind(id.0.to_be_bytes().to_vec());
    }
    let found = query.fetch_all(conn).await?;
    let read = |(id, bytes): (Vec<u8>, i64)| {
        let id = <[u8; 16]>::try_from(id).map_err(|_| StoreError::Corrupt("a stored event"))?;
        Ok((RequestId(u128::from_be_bytes(id)), usize::try_from(bytes).unwrap_or(0)))
    };
    found.into_iter().map(read).collect()
}

async fn due(
    conn: &mut SqliteConnection,
    now_ms: i64,
    limit: usize,
    after: Option<EventCursor>,
) -> Result<Vec<StoredEvent>, StoreError> {
    // Sizes first: a page of large payloads must not be read into memory only to be cut.
    let (after_ms, after_id) = match after {
        Some(cursor) => (i64::try_from(cursor.due_ms).unwrap_or(i64::MAX), cursor.id.0.to_be_bytes().to_vec()),
        None => (-1, Vec::new()),
    };
    let heads = sqlx::query(
        "SELECT rowid, LENGTH(payload) FROM events WHERE (due_ms, id) > (?1, ?2) AND due_ms <= ?3 ORDER BY due_ms, id LIMIT ?4",
    )
    .bind(after_ms)
    .bind(after_id)
    .bind(now_ms)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(&mut *conn)
    .await?;
    let mut found = Vec::new();
    let mut bytes = 0;
    for head in heads {
        if bytes >= DUE_BYTES_MAX as u64 {
            break;
        }
        bytes += head.try_get::<i64, _>(1)?.unsigned_abs();
        let row = sqlx::query("SELECT id, due_ms, attempt, payload FROM events WHERE rowid = ?1")
            .bind(head.try_get::<i64, _>(0)?)
            .fetch_one(&mut *conn)
            .await?;
        found.push(stored_event(&row)?);
    }
    Ok(found)
}

fn stored_event(row: &sqlx::sqlite::SqliteRow) -> Result<StoredEvent, StoreError> {
    let corrupt = || StoreError::Corrupt("a stored event");
    let id: [u8; 16] = row.try_get::<Vec<u8>, _>(0)?.try_into().map_err(|_| corrupt())?;
    Ok(StoredEvent {
        id: RequestId(u128::from_be_bytes(id)),
        due_ms: row.try_get::<i64, _>(1)?.try_into().map_err(|_| corrupt())?,
        attempt: row.try_get::<i64, _>(2)?.try_into().map_err(|_| corrupt())?,
        payload: row.try_get(3)?,
    })
}
