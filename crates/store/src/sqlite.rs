//! What the SQLite-backed stores share: opening with the right guarantees, and migrations.

use crate::StoreError;
use sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Sqlite, SqliteConnection, Transaction};
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Wait for another process that holds the file (an operator's `sqlite3`), before giving up.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// One step of a schema. Steps are only ever added: their position in the list, from 1, is the schema version.
#[derive(Debug)]
pub struct Migration {
    /// What it does, kept in the `migrations` table.
    pub name: &'static str,
    /// Statements, run in order within one transaction.
    pub statements: &'static [&'static str],
}

/// Opens the database at `path`, makes it where absent (mode 0600: settings of functions hold secrets), and brings its schema up
/// to the newest of `migrations`.
///
/// Commits are durable: a write-ahead log that is synced at each commit.
///
/// # Errors
/// [`StoreError::Schema`] when the file is of a newer release, [`StoreError::Corrupt`] when it is no database.
pub async fn open(path: &Path, migrations: &'static [Migration]) -> Result<SqliteConnection, StoreError> {
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => sync_parent(path)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(StoreError::io("create the database")(error)),
    }
    let mut conn = connect(path).await?;
    migrate(&mut conn, migrations).await?;
    Ok(conn)
}

async fn connect(path: &Path) -> Result<SqliteConnection, StoreError> {
    let conn = SqliteConnectOptions::new()
        .filename(path)
        // Only takes effect on a new file, and only when set before the first table.
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        // The log file would otherwise stay as long as it was in the worst minute.
        .pragma("journal_size_limit", "4194304")
        .disable_statement_logging()
        .connect()
        .await?;
    Ok(conn)
}

/// Begins a transaction that writes.
///
/// Where a disk was full in the middle of an earlier one, SQLite rolled that back by itself. sqlx's own rollback failed then, so that it counts
/// that transaction as open for ever, and begins no other one on the connection: it is replaced.
pub async fn begin(conn: &mut SqliteConnection) -> Result<Transaction<'_, Sqlite>, StoreError> {
    if conn.is_in_transaction() {
        // The rollback of a transaction that was dropped may still be on its way: what is asked now is answered behind it.
        let path: String = sqlx::query_scalar("SELECT file FROM pragma_database_list WHERE name = 'main'")
            .fetch_one(&mut *conn)
            .await?;
        if conn.is_in_transaction() {
            tracing::warn!(
                file = path,
                "a connection to a database is replaced: a transaction was cut short by a full disk"
            );
            *conn = connect(Path::new(&path)).await?;
        }
    }
    Ok(conn.begin_with("BEGIN IMMEDIATE").await?)
}

async fn migrate(conn: &mut SqliteConnection, migrations: &'static [Migration]) -> Result<(), StoreError> {
    let supported = i64::try_from(migrations.len()).map_err(|_| StoreError::Corrupt("the list of migrations"))?;
    // One transaction over reading the version and all steps: two processes that start at once cannot both migrate.
    let mut tx = conn.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_ms INTEGER NOT NULL)",
    )
    .execute(&mut *tx)
    .await?;
    let found: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(version), 0) FROM migrations").fetch_one(&mut *tx).await?;
    if found > supported {
        tx.rollback().await?;
        return Err(StoreError::Schema { found, supported });
    }
    for (version, migration) in (1i64..).zip(migrations).skip_while(|(version, _)| *version <= found) {
        for statement in migration.statements {
            sqlx::query(*statement).execute(&mut *tx).await?;
        }
        sqlx::query("INSERT INTO migrations (version, name, applied_ms) VALUES (?1, ?2, ?3)")
            .bind(version)
            .bind(migration.name)
            .bind(now_ms())
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Makes the entry of a new file durable.
pub(crate) fn sync_parent(path: &Path) -> Result<(), StoreError> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(parent).and_then(|dir| dir.sync_all()).map_err(StoreError::io("sync a directory"))
}

fn now_ms() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}
