//! The history of demand: in which minutes which version needed how many instances. Forecasts learn from it, and it can be replayed.
//!
//! One SQLite file. A row takes some twenty bytes; rows older than the retention, or beyond the limit of rows, are removed.

use crate::StoreError;
use crate::sqlite::{Migration, begin, open};
use sqlx::{Row as _, SqliteConnection};
use std::path::{Path, PathBuf};
use tokio::sync::Mutex;

const MIGRATIONS: &[Migration] = &[Migration {
    name: "demand by minute",
    statements: &[
        "CREATE TABLE series (id INTEGER PRIMARY KEY, function_id TEXT NOT NULL, version TEXT NOT NULL, namespace TEXT NOT NULL, function TEXT NOT NULL, runtime TEXT NOT NULL, memory_mb INTEGER NOT NULL, UNIQUE (function_id, version))",
        "CREATE TABLE demand (minute INTEGER NOT NULL, series INTEGER NOT NULL, instances INTEGER NOT NULL, calls INTEGER NOT NULL, PRIMARY KEY (minute, series)) WITHOUT ROWID",
        "CREATE TABLE watched (first INTEGER PRIMARY KEY, last INTEGER NOT NULL)",
    ],
}];

/// Minutes between two looks for what is too old.
const PRUNE_EVERY: u64 = 60;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DemandLimits {
    /// Minutes.
    pub minutes: u64,
    /// Rows: minutes in which a version was called.
    pub rows: u64,
}

impl Default for DemandLimits {
    /// Two weeks and a day, since forecasts look back that far; some 100 MB.
    fn default() -> Self {
        Self { minutes: 15 * 24 * 60, rows: 4_000_000 }
    }
}

/// A minute in which a version was called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemandSample {
    /// Minutes since the epoch.
    pub minute: u64,
    /// Id of the function.
    pub function_id: String,
    /// Version, as text.
    pub version: String,
    /// Namespace.
    pub namespace: String,
    /// Name of the function.
    pub function: String,
    /// Its runtime.
    pub runtime: String,
    /// Memory of one instance, in MB. A reader sees the last one that was written.
    pub memory_mb: u32,
    /// Instances that were needed at once.
    pub instances: u32,
    /// Calls.
    pub calls: u64,
}

/// The history.
#[derive(Debug)]
pub struct DemandHistory {
    conn: Mutex<SqliteConnection>,
    limits: DemandLimits,
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl DemandHistory {
    /// Opens the history at `path`, makes it where absent.
    ///
    /// # Errors
    /// [`StoreError::Schema`] when the file is of a newer release, [`StoreError::Corrupt`] when it is no sound database.
    pub async fn open(path: &Path, limits: DemandLimits) -> Result<Self, StoreError> {
        let mut conn = open(path, MIGRATIONS).await?;
        let verdict: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut conn).await?;
        if verdict != "ok" {
            return Err(StoreError::Corrupt("the history of demand"));
        }
        Ok(Self { conn: Mutex::new(conn), limits })
    }

    /// As [`Self::open`]; a file that cannot be used is set aside, with the ending `.unreadable`, and a new one begun. The error says why.
    ///
    /// # Errors
    /// When a new one cannot be made either.
    pub async fn open_or_begin_anew(
        path: &Path,
        limits: DemandLimits,
    ) -> Result<(Self, Option<StoreError>), StoreError> {
        let error = match Self::open(path, limits).await {
            Ok(history) => return Ok((history, None)),
            Err(error) => error,
        };
        for ending in ["", "-wal", "-shm"] {
            let with = |tail: &str| PathBuf::from(format!("{}{tail}", path.display()));
            match std::fs::rename(with(ending), with(&format!("{ending}.unreadable"))) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(StoreError::io("set an unreadable file aside")(e));
                }
                _ => {}
            }
        }
        Ok((Self::open(path, limits).await?, Some(error)))
    }

    /// Adds a minute that was watched, with the versions that were called in it. A minute that is there already is replaced.
    ///
    /// # Errors
    /// When it cannot be stored; nothing of it is then.
    pub async fn append(&self, minute: u64, samples: &[DemandSample]) -> Result<(), StoreError> {
        let mut conn = self.conn.lock().await;
        let mut tx = begin(&mut conn).await?;
        for sample in samples {
            let series: i64 = sqlx::query_scalar(
                "INSERT INTO series (function_id, version, namespace, function, runtime, memory_mb) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
                 ON CONFLICT (function_id, version) DO UPDATE SET namespace = ?3, function = ?4, runtime = ?5, memory_mb = ?6 RETURNING id",
            )
            .bind(&sample.function_id)
            .bind(&sample.version)
            .bind(&sample.namespace)
            .bind(&sample.function)
            .bind(&sample.runtime)
            .bind(i64::from(sample.memory_mb))
            .fetch_one(&mut *tx)
            .await?;
            sqlx::query("INSERT OR REPLACE INTO demand (minute, series, instances, calls) VALUES (?1, ?2, ?3, ?4)")
                .bind(signed(minute))
                .bind(series)
                .bind(i64::from(sample.instances))
                .bind(signed(sample.calls))
                .execute(&mut *tx)
                .await?;
        }
        let longer = sqlx::query("UPDATE watched SET last = ?1 WHERE last = ?1 - 1").bind(signed(minute));
        if longer.execute(&mut *tx).await?.rows_affected() == 0 {
            let new = sqlx::query("INSERT OR IGNORE INTO watched (first, last) VALUES (?1, ?1)").bind(signed(minute));
            new.execute(&mut *tx).await?;
        }
        if minute.is_multiple_of(PRUNE_EVERY) {
            prune(&mut tx, minute, self.limits).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Spans of minutes that were watched, first and last, by time.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn watched(&self) -> Result<Vec<(u64, u64)>, StoreError> {
        let mut conn = self.conn.lock().await;
        let rows: Vec<(i64, i64)> =
            sqlx::query_as("SELECT first, last FROM watched ORDER BY first").fetch_all(&mut *conn).await?;
        Ok(rows.into_iter().map(|(first, last)| (first.unsigned_abs(), last.unsigned_abs())).collect())
    }

    /// The samples of the minutes from `from` to `to`, by minute, from the `offset`th on, at most `limit`; and the number of all.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn samples(
        &self,
        from: u64,
        to: u64,
        offset: u64,
        limit: u64,
    ) -> Result<(u64, Vec<DemandSample>), StoreError> {
        let mut conn = self.conn.lock().await;
        let total: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM demand WHERE minute BETWEEN ?1 AND ?2")
            .bind(signed(from))
            .bind(signed(to))
            .fetch_one(&mut *conn)
            .await?;
        let rows = sqlx::query(
            "SELECT d.minute, s.function_id, s.version, s.namespace, s.function, s.runtime, s.memory_mb, d.instances, d.calls \
             FROM demand d JOIN series s ON s.id = d.series WHERE d.minute BETWEEN ?1 AND ?2 ORDER BY d.minute, d.series LIMIT ?3 OFFSET ?4",
        )
        .bind(signed(from))
        .bind(signed(to))
        .bind(signed(limit))
        .bind(signed(offset))
        .fetch_all(&mut *conn)
        .await?;
        let whole = |row: &sqlx::sqlite::SqliteRow, at: usize| row.try_get::<i64, _>(at).map(i64::unsigned_abs);
        let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let samples: Result<Vec<DemandSample>, sqlx::Error> = rows
            .iter()
            .map(|row| {
                Ok(DemandSample {
                    minute: whole(row, 0)?,
                    function_id: row.try_get(1)?,
                    version: row.try_get(2)?,
                    namespace: row.try_get(3)?,
                    function: row.try_get(4)?,
                    runtime: row.try_get(5)?,
                    memory_mb: narrow(whole(row, 6)?),
                    instances: narrow(whole(row, 7)?),
                    calls: whole(row, 8)?,
                })
            })
            .collect();
        Ok((total.unsigned_abs(), samples?))
    }
}

/// Removes what is too old or too much.
async fn prune(conn: &mut SqliteConnection, minute: u64, limits: DemandLimits) -> Result<(), StoreError> {
    let mut oldest = signed(minute.saturating_sub(limits.minutes));
    // The minute from which on there are as many rows as are kept.
    let full: Option<i64> = sqlx::query_scalar("SELECT minute FROM demand ORDER BY minute DESC LIMIT 1 OFFSET ?1")
        .bind(signed(limits.rows))
        .fetch_optional(&mut *conn)
        .await?;
    oldest = oldest.max(full.map_or(0, |minute| minute + 1));
    for statement in [
        "DELETE FROM demand WHERE minute < ?1",
        "DELETE FROM watched WHERE last < ?1",
        "UPDATE OR IGNORE watched SET first = ?1 WHERE first < ?1",
        "DELETE FROM series WHERE ?1 > 0 AND id NOT IN (SELECT series FROM demand)",
    ] {
        sqlx::query(statement).bind(oldest).execute(&mut *conn).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(minute: u64, version: &str, memory_mb: u32) -> DemandSample {
        DemandSample {
            minute,
            function_id: "lam-1".into(),
            version: version.into(),
            namespace: "default".into(),
            function: "hello".into(),
            runtime: "Python3.9".into(),
            memory_mb,
            instances: 2,
            calls: 5,
        }
    }

    #[tokio::test]
    async fn what_is_written_is_there_after_a_restart_and_the_old_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("demand.db");
        let limits = DemandLimits { minutes: 100, rows: 50 };
        let history = DemandHistory::open(&path, limits).await.unwrap();
        for minute in 1000..1010 {
            history.append(minute, &[sample(minute, "1", 128), sample(minute, "$LATEST", 64)]).await.unwrap();
        }
        history.append(1012, &[]).await.unwrap();
        drop(history);
        let history = DemandHistory::open(&path, limits).await.unwrap();
        assert_eq!(history.watched().await.unwrap(), [(1000, 1009), (1012, 1012)]);
        history.append(1013, &[sample(1013, "1", 256)]).await.unwrap();
        let (total, found) = history.samples(1009, 1013, 1, 10).await.unwrap();
        assert_eq!((total, found.len()), (3, 2));
        assert_eq!(found[1], sample(1013, "1", 256));
        // Twenty-one rows, and no more than fifty at any full hour.
        for minute in 1014..1081 {
            history.append(minute, &[sample(minute, "1", 256)]).await.unwrap();
        }
        assert_eq!(history.samples(0, 2000, 0, 1).await.unwrap().0, 50);
        for minute in 1081..1201 {
            history.append(minute, &[]).await.unwrap();
        }
        let (total, found) = history.samples(0, 2000, 0, 1).await.unwrap();
        assert_eq!((total, found.len()), (0, 0), "they are older than a hundred minutes");
        assert_eq!(history.watched().await.unwrap(), [(1100, 1200)]);
    }

    #[tokio::test]
    async fn a_file_that_is_damaged_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("demand.db");
        std::fs::write(&path, vec![7u8; 10_000]).unwrap();
        let (history, error) = DemandHistory::open_or_begin_anew(&path, DemandLimits::default()).await.unwrap();
        assert!(error.is_some());
        history.append(60, &[sample(60, "1", 128)]).await.unwrap();
        assert_eq!(history.samples(0, 100, 0, 10).await.unwrap().0, 1);
        assert!(dir.path().join("demand.db.unreadable").exists());
    }
}
