//! The metadata fake.

use super::{Change, MetaStore, Row, validate};
use crate::StoreError;
use async_trait::async_trait;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rows in memory. Clones share them: a clone is what reopening is to a file.
#[derive(Clone, Debug, Default)]
pub struct MemoryMeta {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    rows: BTreeMap<(String, String), String>,
    failure: Option<StoreError>,
}

impl MemoryMeta {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes every later `apply` fail with this error and change nothing, until it is called with `None`.
    pub fn fail_with(&self, failure: Option<StoreError>) {
        self.state.lock().failure = failure;
    }
}

#[async_trait]
impl MetaStore for MemoryMeta {
    async fn load(&self) -> Result<Vec<Row>, StoreError> {
        let state = self.state.lock();
        Ok(state
            .rows
            .iter()
            .map(|((kind, key), value)| Row { kind: kind.clone(), key: key.clone(), value: value.clone() })
            .collect())
    }

    async fn apply(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        validate(&changes)?;
        let mut state = self.state.lock();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        for change in changes {
            match change {
                Change::Put { kind, key, value } => state.rows.insert((kind.to_owned(), key), value),
                Change::Delete { kind, key } => state.rows.remove(&(kind.to_owned(), key)),
            };
        }
        Ok(())
    }
}
