//! The event fake.

use super::{DUE_BYTES_MAX, EventCursor, EventLimits, EventLog, Room, StoredEvent, validate, validate_time};
use crate::StoreError;
use async_trait::async_trait;
use mayfly_model::RequestId;
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

/// Events in memory. Clones share them: a clone is what reopening is to a file.
#[derive(Clone, Debug)]
pub struct MemoryEvents {
    state: Arc<Mutex<State>>,
    room: Arc<Room>,
}

#[derive(Debug, Default)]
struct State {
    events: HashMap<RequestId, StoredEvent>,
    order: BTreeSet<EventCursor>,
}

impl MemoryEvents {
    /// An empty log.
    pub fn new(limits: EventLimits) -> Self {
        Self { state: Arc::default(), room: Arc::new(Room::new(limits, 0, 0)) }
    }
}

#[async_trait]
impl EventLog for MemoryEvents {
    async fn append(&self, event: StoredEvent) -> Result<(), StoreError> {
        validate(&event)?;
        let mut state = self.state.lock();
        if state.events.contains_key(&event.id) {
            return Err(StoreError::Exists("an event with this id is pending"));
        }
        self.room.take(event.payload.len())?;
        state.order.insert(event.cursor());
        state.events.insert(event.id, event);
        Ok(())
    }

    async fn reschedule(&self, id: RequestId, due_ms: u64, attempt: u32) -> Result<(), StoreError> {
        validate_time(due_ms)?;
        let mut state = self.state.lock();
        let State { events, order } = &mut *state;
        let event = events.get_mut(&id).ok_or(StoreError::NotFound("the event"))?;
        order.remove(&event.cursor());
        event.due_ms = due_ms;
        event.attempt = attempt;
        order.insert(event.cursor());
        Ok(())
    }

    async fn finish(&self, id: RequestId) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        if let Some(event) = state.events.remove(&id) {
            state.order.remove(&event.cursor());
            self.room.give_back(event.payload.len());
        }
        Ok(())
    }

    async fn due(&self, now_ms: u64, limit: usize, after: Option<EventCursor>) -> Result<Vec<StoredEvent>, StoreError> {
        let state = self.state.lock();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut bytes = 0;
        let mut found = Vec::new();
        for cursor in state.order.range((start, Bound::Unbounded)) {
            if cursor.due_ms > now_ms || found.len() >= limit || bytes >= DUE_BYTES_MAX {
                break;
            }
            let event = &state.events[&cursor.id];
            bytes += event.payload.len();
            found.push(event.clone());
        }
        Ok(found)
    }

    async fn pending(&self) -> Result<u64, StoreError> {
        Ok(self.room.count())
    }
}
