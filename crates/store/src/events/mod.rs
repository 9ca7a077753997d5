//! The event port: asynchronous events that were accepted and are not finished yet.

mod memory;
mod nats;
mod sqlite;

pub use memory::MemoryEvents;
pub use nats::{NatsAddress, NatsEvents};
pub use sqlite::SqliteEvents;

use crate::StoreError;
use async_trait::async_trait;
use mayfly_model::RequestId;
use parking_lot::Mutex;

/// What one call of [`EventLog::due`] returns at most, in bytes of payload (one event is always returned).
pub const DUE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest payload of one event, in bytes: the largest event that may be accepted, as JSON within JSON (where every byte may need another
/// before it), with room for what goes with it.
pub const PAYLOAD_BYTES_MAX: usize = 2 * mayfly_model::limits::EVENT_SYNC_BYTES_MAX + 64 * 1024;

/// One accepted event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// The request's id.
    pub id: RequestId,
    /// What the owner of the log needs to run it; opaque here.
    pub payload: Vec<u8>,
    /// When it is to be tried next, in milliseconds since the epoch.
    pub due_ms: u64,
    /// How many times it was tried.
    pub attempt: u32,
}

impl StoredEvent {
    /// Where to go on after this event.
    pub fn cursor(&self) -> EventCursor {
        EventCursor { due_ms: self.due_ms, id: self.id }
    }
}

/// A place in the order of [`EventLog::due`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventCursor {
    /// Due time of the last event seen.
    pub due_ms: u64,
    /// Its id.
    pub id: RequestId,
}

/// How much an event log holds before it answers [`StoreError::Full`].
#[derive(Clone, Copy, Debug)]
pub struct EventLimits {
    /// Most events pending.
    pub count_max: u64,
    /// Most payload pending, in bytes.
    pub bytes_max: u64,
}

impl Default for EventLimits {
    /// 100,000 events and 1 GiB.
    fn default() -> Self {
        Self { count_max: 100_000, bytes_max: 1 << 30 }
    }
}

/// Where accepted events are kept until they are finished.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// Stores an event; durable when it returns. Concurrent calls share commits.
    ///
    /// # Errors
    /// [`StoreError::Full`] when the log has no room, [`StoreError::Exists`] when the id is pending already,
    /// [`StoreError::Invalid`] when the payload is larger than [`EventLog::payload_bytes_max`] or the time is out of range.
    async fn append(&self, event: StoredEvent) -> Result<(), StoreError>;

    /// Sets when an event is tried next, and how often it was tried; durable when it returns.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when no such event is pending.
    async fn reschedule(&self, id: RequestId, due_ms: u64, attempt: u32) -> Result<(), StoreError>;

    /// Forgets an event; durable when it returns. No error when it is not there.
    async fn finish(&self, id: RequestId) -> Result<(), StoreError>;

    /// Events due at `now_ms` or before, in order of due time, then id, behind `after`. At most `limit` events and
    /// about [`DUE_BYTES_MAX`] of payload: only an empty answer means that there are no more.
    async fn due(&self, now_ms: u64, limit: usize, after: Option<EventCursor>) -> Result<Vec<StoredEvent>, StoreError>;

    /// Events stored and not finished.
    async fn pending(&self) -> Result<u64, StoreError>;

    /// Largest payload that it takes, in bytes.
    fn payload_bytes_max(&self) -> usize {
        PAYLOAD_BYTES_MAX
    }
}

fn validate_time(due_ms: u64) -> Result<i64, StoreError> {
    i64::try_from(due_ms).map_err(|_| StoreError::Invalid { what: "the due time", why: "is out of range" })
}

fn validate(event: &StoredEvent) -> Result<(), StoreError> {
    validate_time(event.due_ms)?;
    validate_payload(event, PAYLOAD_BYTES_MAX)
}

fn validate_payload(event: &StoredEvent, bytes_max: usize) -> Result<(), StoreError> {
    if event.payload.len() > bytes_max {
        return Err(StoreError::Invalid { what: "the event", why: "is larger than the event log takes" });
    }
    Ok(())
}

/// Counts what is pending against the limits. Room is taken before the write, so that concurrent appends together
/// never pass a limit.
#[derive(Debug)]
struct Room {
    limits: EventLimits,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    count: u64,
    bytes: u64,
}

impl Room {
    fn new(limits: EventLimits, count: u64, bytes: u64) -> Self {
        Self { limits, used: Mutex::new(Used { count, bytes }) }
    }

    fn take(&self, bytes: usize) -> Result<(), StoreError> {
        let mut used = self.used.lock();
        let bytes = used.bytes.saturating_add(bytes as u64);
        if used.count >= self.limits.count_max {
            return Err(StoreError::Full("too many asynchronous events are pending"));
        }
        if bytes > self.limits.bytes_max {
            return Err(StoreError::Full("pending asynchronous events take too much space"));
        }
        *used = Used { count: used.count + 1, bytes };
        Ok(())
    }

    fn give_back(&self, bytes: usize) {
        let mut used = self.used.lock();
        used.count = used.count.saturating_sub(1);
        used.bytes = used.bytes.saturating_sub(bytes as u64);
    }

    fn count(&self) -> u64 {
        self.used.lock().count
    }
}
