//! Metadata in one SQLite file.

use super::{Change, MetaStore, Row, validate};
use crate::StoreError;
use crate::sqlite::{Migration, begin, open};
use crate::writer::{Done, Job, Jobs, Work};
use async_trait::async_trait;
use sqlx::{Row as _, SqliteConnection};
use std::path::Path;

const MIGRATIONS: &[Migration] = &[Migration {
    name: "rows of JSON by kind and key",
    statements: &[
        "CREATE TABLE rows (kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL)",
        "CREATE UNIQUE INDEX rows_by_key ON rows (kind, key)",
    ],
}];

/// Metadata in one SQLite file, written by one task over one connection. Batches that wait together are committed
/// together, so that many callers share one sync of the disk.
#[derive(Debug)]
pub struct SqliteMeta {
    jobs: Jobs<Batch, Load>,
}

/// A question for all rows.
type Load = Done<Vec<Row>>;

#[derive(Debug)]
struct Batch {
    changes: Vec<Change>,
    done: Done<()>,
}

impl SqliteMeta {
    /// Opens the database at `path`, makes it where absent, and starts its writer on the current tokio runtime.
    ///
    /// # Errors
    /// [`StoreError::Schema`] when the file is of a newer release, [`StoreError::Corrupt`] when it is no database.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let conn = open(path, MIGRATIONS).await?;
        Ok(Self { jobs: Jobs::start(conn, Rows) })
    }

    /// Finishes what was accepted and closes the file. Later calls answer [`StoreError::Closed`].
    pub async fn close(&self) -> Result<(), StoreError> {
        self.jobs.close().await
    }
}

#[async_trait]
impl MetaStore for SqliteMeta {
    async fn load(&self) -> Result<Vec<Row>, StoreError> {
        self.jobs.ask(Job::Read).await
    }

    async fn apply(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        validate(&changes)?;
        self.jobs.ask(|done| Job::Write(Batch { changes, done })).await
    }
}

/// The rows of the metadata.
struct Rows;

#[async_trait]
impl Work for Rows {
    type Write = Batch;
    type Read = Load;
    const NAME: &'static str = "metadata";
    const QUEUE_JOBS_MAX: usize = 64;
    const GROUP_WRITES_MAX: usize = 64;

    async fn commit(&mut self, conn: &mut SqliteConnection, group: &mut Vec<Batch>) {
        let together = write(conn, group).await;
        let alone = group.len() == 1;
        for batch in group.drain(..) {
            let result = match &together {
                // One batch that does not fit on the disk must not take its neighbours down.
                Err(_) if !alone => write(conn, std::slice::from_ref(&batch)).await,
                result => result.clone(),
            };
            // The caller may have gone; the change stands all the same.
            let _ = batch.done.send(result);
        }
    }

    async fn read(&mut self, conn: &mut SqliteConnection, done: Load) {
        let _ = done.send(load(conn).await);
    }
}

async fn write(conn: &mut SqliteConnection, batches: &[Batch]) -> Result<(), StoreError> {
    let mut tx = begin(conn).await?;
    for change in batches.iter().flat_map(|batch| &batch.changes) {
        let result = match change {
            Change::Put { kind, key, value } => {
                sqlx::query(
                    "INSERT INTO rows (kind, key, value) VALUES (?1, ?2, ?3) ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value",
                )
                .bind(*kind)
                .bind(key.as_str())
                .bind(value.as_str())
                .execute(&mut *tx)
                .await
            }
            Change::Delete { kind, key } => {
                sqlx::query("DELETE FROM rows WHERE kind = ?1 AND key = ?2")
                    .bind(*kind)
                    .bind(key.as_str())
                    .execute(&mut *tx)
                    .await
            }
        };
        if let Err(error) = result {
            // Its own failure is of no use to the caller, and the connection rolls back again before its next use.
            let _ = tx.rollback().await;
            return Err(error.into());
        }
    }
    tx.commit().await?;
    Ok(())
}

async fn load(conn: &mut SqliteConnection) -> Result<Vec<Row>, StoreError> {
    let rows = sqlx::query("SELECT kind, key, value FROM rows ORDER BY kind, key").fetch_all(conn).await?;
    rows.into_iter()
        .map(|row| Ok(Row { kind: row.try_get(0)?, key: row.try_get(1)?, value: row.try_get(2)? }))
        .collect()
}
