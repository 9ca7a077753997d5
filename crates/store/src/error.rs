//! The one error type of the stores.

use crate::package::PackageError;
use std::io;
use std::sync::Arc;

/// Why a store could not do what it was asked. Cheap to clone, because one failed commit answers many callers.
///
/// No variant holds a path of the host; [`StoreError::Remote`] may name another one, so that its text is for the log alone.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was being done, as a verb phrase.
        doing: &'static str,
        /// The system's answer.
        source: Arc<io::Error>,
    },
    /// What is stored is not what was put there.
    #[error("stored data is damaged: {0}")]
    Corrupt(&'static str),
    /// A limit of the store, or the disk, leaves no room.
    #[error("no room is left: {0}")]
    Full(&'static str),
    /// There is no such thing.
    #[error("not found: {0}")]
    NotFound(&'static str),
    /// An event of this id is already there.
    #[error("already stored: {0}")]
    Exists(&'static str),
    /// The database was written by a newer release; going on would damage it.
    #[error(
        "the database has schema version {found}, and this release knows versions up to {supported}: use the newer release again, or restore a backup from before the upgrade"
    )]
    Schema {
        /// Version of the file.
        found: i64,
        /// Newest version known here.
        supported: i64,
    },
    /// The caller handed in something that may not be stored; nothing was changed.
    #[error("cannot be stored: {what} {why}")]
    Invalid {
        /// The part that is wrong.
        what: &'static str,
        /// The rule it breaks.
        why: &'static str,
    },
    /// The database engine failed.
    #[error("database: {0}")]
    Database(Arc<sqlx::Error>),
    /// A server that keeps data for the platform did not do it: it cannot be reached, or refused.
    #[error("cannot {doing}: {why}")]
    Remote {
        /// What was being done, as a verb phrase.
        doing: &'static str,
        /// The server's answer, or how reaching it failed. For the operator: it may name hosts.
        why: Arc<str>,
    },
    /// The stored package cannot be unpacked.
    #[error("package: {0}")]
    Package(#[from] Arc<PackageError>),
    /// The store was closed, or its writer ended with the runtime.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Wraps an error of the system; a full disk becomes [`StoreError::Full`].
    pub(crate) fn io(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full("the disk is full"),
            _ => Self::Io { doing, source: Arc::new(source) },
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if let sqlx::Error::Database(database) = &error {
            // Primary result codes of SQLite are the low byte of the extended ones: 13 is FULL, 11 CORRUPT, 26 NOTADB.
            match database.code().and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff) {
                Some(13) => return Self::Full("the disk is full"),
                Some(11 | 26) => return Self::Corrupt("the database file"),
                _ => {}
            }
        }
        Self::Database(Arc::new(error))
    }
}
