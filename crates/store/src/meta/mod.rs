//! The metadata port: rows of JSON, read once at start and changed in atomic batches.

mod memory;
mod sqlite;

pub use memory::MemoryMeta;
pub use sqlite::SqliteMeta;

use crate::StoreError;
use async_trait::async_trait;
use std::collections::HashSet;

/// Longest kind, in bytes.
pub const KIND_BYTES_MAX: usize = 64;
/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// Largest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most changes in one batch.
pub const CHANGES_MAX: usize = 100_000;

/// One stored row. `(kind, key)` is unique.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What it is, for example `function`.
    pub kind: String,
    /// Its name among its kind.
    pub key: String,
    /// JSON text.
    pub value: String,
}

/// One change of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Inserts the row, or replaces its value.
    Put {
        /// Kind of the row: `a`–`z`, `0`–`9`, `_`, at most [`KIND_BYTES_MAX`] bytes.
        kind: &'static str,
        /// Key of the row: 1 to [`KEY_BYTES_MAX`] bytes, no NUL.
        key: String,
        /// JSON text, at most [`VALUE_BYTES_MAX`] bytes.
        value: String,
    },
    /// Removes the row; no error when there is none.
    Delete {
        /// Kind of the row.
        kind: &'static str,
        /// Key of the row.
        key: String,
    },
}

impl Change {
    fn target(&self) -> (&'static str, &str) {
        match self {
            Self::Put { kind, key, .. } | Self::Delete { kind, key } => (kind, key),
        }
    }
}

/// Where intent is kept.
#[async_trait]
pub trait MetaStore: Send + Sync {
    /// Every row, ordered by kind, then key (bytewise). Meant to be called once, at start.
    async fn load(&self) -> Result<Vec<Row>, StoreError>;

    /// Does all changes or none, in the order given, and returns when they are durable. Concurrent calls take effect in the order in
    /// which they were first polled; a call that is dropped after that may still take effect.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when a change breaks a limit stated at [`Change`].
    async fn apply(&self, changes: Vec<Change>) -> Result<(), StoreError>;
}

/// Checks a batch before anything is written, so that a bad change fails in every implementation alike.
fn validate(changes: &[Change]) -> Result<(), StoreError> {
    let invalid = |what, why| Err(StoreError::Invalid { what, why });
    if changes.len() > CHANGES_MAX {
        return invalid("the batch", "has too many changes");
    }
    let mut checked_kinds = HashSet::new();
    for change in changes {
        let (kind, key) = change.target();
        if checked_kinds.insert(kind) {
            let plain = kind.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            if kind.is_empty() || kind.len() > KIND_BYTES_MAX || !plain {
                return invalid("the kind", "must be 1 to 64 bytes of a-z, 0-9 and _");
            }
        }
        if key.is_empty() || key.len() > KEY_BYTES_MAX || key.contains('\0') {
            return invalid("the key", "must be 1 to 1024 bytes without NUL");
        }
        if let Change::Put { value, .. } = change {
            if value.len() > VALUE_BYTES_MAX {
                return invalid("the value", "is larger than 16 MiB");
            }
            if serde_json::from_str::<serde::de::IgnoredAny>(value).is_err() {
                return invalid("the value", "is not JSON");
            }
        }
    }
    Ok(())
}
