//! How far each trigger has come, durably.

use mayfly_store::{Change, MetaStore, StoreError};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// The kind of the rows.
const KIND: &str = "cursor";

/// How far triggers have come, by their ids. The text is theirs.
pub struct Cursors {
    store: Arc<dyn MetaStore>,
    known: Mutex<HashMap<String, String>>,
}

impl Cursors {
    /// Reads what is there.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn open(store: Arc<dyn MetaStore>) -> Result<Self, StoreError> {
        let rows = store.load().await?.into_iter().filter(|row| row.kind == KIND);
        let known = Mutex::new(rows.map(|row| (row.key, row.value)).collect());
        Ok(Self { store, known })
    }

    /// The cursor of a trigger.
    pub fn get(&self, trigger: &str) -> Option<String> {
        self.known.lock().get(trigger).cloned()
    }

    /// Moves it; durable when it returns.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn put(&self, trigger: &str, value: String) -> Result<(), StoreError> {
        let change = Change::Put { kind: KIND, key: trigger.to_owned(), value: value.clone() };
        self.store.apply(vec![change]).await?;
        self.known.lock().insert(trigger.to_owned(), value);
        Ok(())
    }

    /// Forgets all cursors but those that `keep` holds for.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn retain(&self, keep: impl Fn(&str) -> bool) -> Result<(), StoreError> {
        let gone: Vec<String> = self.known.lock().keys().filter(|id| !keep(id)).cloned().collect();
        if gone.is_empty() {
            return Ok(());
        }
        let changes = gone.iter().map(|key| Change::Delete { kind: KIND, key: key.clone() }).collect();
        self.store.apply(changes).await?;
        self.known.lock().retain(|id, _| !gone.contains(id));
        Ok(())
    }
}
