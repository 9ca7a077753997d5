//! Tables, and how the file is opened.

use crate::ObjectError;
use mayfly_store::sqlite::{Migration, open};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{ConnectOptions as _, SqliteConnection, SqlitePool};
use std::collections::HashSet;
use std::path::Path;

const MIGRATIONS: &[Migration] = &[
    Migration {
    name: "buckets, objects, uploads, files and the outbox",
    statements: &[
        "CREATE TABLE state (name TEXT PRIMARY KEY, value INTEGER NOT NULL)",
        "INSERT INTO state (name, value) VALUES ('boot', 0), ('swept', 0)",
        "CREATE TABLE buckets (name TEXT PRIMARY KEY, created_ms INTEGER NOT NULL, cors TEXT NOT NULL DEFAULT '[]')",
        "CREATE TABLE objects (id INTEGER PRIMARY KEY, bucket TEXT NOT NULL, key TEXT NOT NULL, size INTEGER NOT NULL,
            etag TEXT NOT NULL, modified_ms INTEGER NOT NULL, storage_class TEXT, headers TEXT NOT NULL, tags TEXT NOT NULL,
            sums TEXT NOT NULL, parts TEXT NOT NULL, slices TEXT NOT NULL, inline BLOB)",
        "CREATE UNIQUE INDEX objects_by_key ON objects (bucket, key)",
        // Files: how many objects and parts refer to each, and what is in them.
        "CREATE TABLE files (id INTEGER PRIMARY KEY, refs INTEGER NOT NULL, size INTEGER NOT NULL, sha256 BLOB NOT NULL)",
        // Files that nothing refers to, until they are gone from the disk.
        "CREATE TABLE garbage (id INTEGER PRIMARY KEY)",
        "CREATE TABLE uploads (id TEXT PRIMARY KEY, bucket TEXT NOT NULL, key TEXT NOT NULL, created_ms INTEGER NOT NULL,
            headers TEXT NOT NULL, tags TEXT NOT NULL)",
        "CREATE INDEX uploads_by_key ON uploads (bucket, key, id)",
        "CREATE INDEX uploads_by_age ON uploads (created_ms)",
        "CREATE TABLE parts (upload TEXT NOT NULL, number INTEGER NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL,
            modified_ms INTEGER NOT NULL, sums TEXT NOT NULL, slices TEXT NOT NULL, PRIMARY KEY (upload, number)) WITHOUT ROWID",
        "CREATE TABLE outbox (id INTEGER PRIMARY KEY AUTOINCREMENT, rule TEXT NOT NULL, time_ms INTEGER NOT NULL, notice TEXT NOT NULL)",
        "CREATE INDEX outbox_by_rule ON outbox (rule, id)",
    ],
},
    Migration {
        name: "versions",
        statements: &[
            "INSERT INTO state (name, value) VALUES ('version', 0)",
            // 0: never, 1: on, 2: suspended.
            "ALTER TABLE buckets ADD COLUMN versioning INTEGER NOT NULL DEFAULT 0",
            // `objects` has what is current; the empty version is the one that S3 calls null. `seq` orders the versions of a key.
            "ALTER TABLE objects ADD COLUMN version TEXT NOT NULL DEFAULT ''",
            "ALTER TABLE objects ADD COLUMN seq INTEGER NOT NULL DEFAULT 0",
            // The upload that an object was completed from.
            "ALTER TABLE objects ADD COLUMN upload TEXT",
            // Whether CRCs are to be of the object's bytes.
            "ALTER TABLE uploads ADD COLUMN full_sum INTEGER NOT NULL DEFAULT 0",
            // What was replaced or deleted and is kept, and delete markers.
            "CREATE TABLE versions (id INTEGER PRIMARY KEY, bucket TEXT NOT NULL, key TEXT NOT NULL, size INTEGER NOT NULL,
                etag TEXT NOT NULL, modified_ms INTEGER NOT NULL, storage_class TEXT, headers TEXT NOT NULL, tags TEXT NOT NULL,
                sums TEXT NOT NULL, parts TEXT NOT NULL, slices TEXT NOT NULL, inline BLOB, version TEXT NOT NULL, seq INTEGER NOT NULL,
                upload TEXT, marker INTEGER NOT NULL)",
            "CREATE UNIQUE INDEX versions_by_key ON versions (bucket, key, seq DESC)",
            "CREATE UNIQUE INDEX versions_by_version ON versions (bucket, key, version)",
        ],
    },
];

/// An opened database, and what it says of the store.
pub(crate) struct Opened {
    pub(crate) conn: SqliteConnection,
    /// The number of this run.
    pub(crate) boot: u32,
    /// Runs up to this one hold no file without a reference.
    pub(crate) swept: u32,
    /// Files to be removed.
    pub(crate) garbage: Vec<i64>,
    /// Rule, id and time of each notice.
    pub(crate) outbox: Vec<(String, i64, i64)>,
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
}

impl Opened {
    /// Opens the file and counts this run.
    pub(crate) async fn open(path: &Path) -> Result<Self, ObjectError> {
        let mut conn = open(path, MIGRATIONS).await?;
        let boot: i64 = sqlx::query_scalar("UPDATE state SET value = value + 1 WHERE name = 'boot' RETURNING value")
            .fetch_one(&mut conn)
            .await?;
        let swept: i64 =
            sqlx::query_scalar("SELECT value FROM state WHERE name = 'swept'").fetch_one(&mut conn).await?;
        let garbage = sqlx::query_scalar("SELECT id FROM garbage").fetch_all(&mut conn).await?;
        let outbox = sqlx::query_as("SELECT rule, id, time_ms FROM outbox").fetch_all(&mut conn).await?;
        let (objects, bytes): (i64, i64) = sqlx::query_as(
            "SELECT (SELECT COUNT(*) FROM objects),
             (SELECT COALESCE(SUM(size), 0) FROM objects) + (SELECT COALESCE(SUM(size), 0) FROM versions)",
        )
        .fetch_one(&mut conn)
        .await?;
        let run = |n: i64| u32::try_from(n).map_err(|_| ObjectError::Corrupt);
        Ok(Self {
            conn,
            boot: run(boot)?,
            swept: run(swept)?,
            garbage,
            outbox,
            objects: objects.unsigned_abs(),
            bytes: bytes.unsigned_abs(),
        })
    }
}

/// Connections that only read.
pub(super) async fn readers(path: &Path, count: u32) -> Result<SqlitePool, ObjectError> {
    let options = SqliteConnectOptions::new().filename(path).read_only(true).disable_statement_logging();
    // A file does not go away as a server does: to ask each connection first whether it is alive doubles the time of a look-up.
    Ok(SqlitePoolOptions::new().max_connections(count).test_before_acquire(false).connect_with(options).await?)
}

/// Files of the run `boot` that something refers to, or that are known to be garbage.
pub(super) async fn known_files(pool: &SqlitePool, boot: u32) -> Result<HashSet<i64>, ObjectError> {
    let from = i64::from(boot) << 32;
    let ids: Vec<i64> = sqlx::query_scalar(
        "SELECT id FROM files WHERE id BETWEEN ?1 AND ?2 UNION ALL SELECT id FROM garbage WHERE id BETWEEN ?1 AND ?2",
    )
    .bind(from)
    .bind(from + i64::from(u32::MAX))
    .fetch_all(pool)
    .await?;
    Ok(ids.into_iter().collect())
}
