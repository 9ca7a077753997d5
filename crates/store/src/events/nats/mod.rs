//! Events in a stream of a NATS server (JetStream), for those who run one and want events to outlive this machine.
//!
//! Each event is one message under a subject of its own; its due time and attempt stand in the message's head. A newer message under
//! the subject takes the older one's place, in one step of the server, so that an event that is rescheduled is never in neither. What order
//! and limits need is kept in an index in memory, which is read from the heads when the log is opened; payloads stay with the server.
//!
//! A write that the server did not answer is tried again for a while. If it still is not known then whether the event was stored, the
//! caller is told that it was not, and the event is taken back as soon as the server can be asked.

mod address;
mod link;

pub use address::NatsAddress;

use super::{DUE_BYTES_MAX, EventCursor, EventLimits, EventLog, PAYLOAD_BYTES_MAX, Room, StoredEvent};
use super::{validate_payload, validate_time};
use crate::StoreError;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use link::{Head, Link, PATIENCE, Unsent};
use mayfly_model::RequestId;
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Writes under way at once; further callers wait.
pub(super) const IN_FLIGHT_MAX: usize = 1024;
/// Payloads read at once.
const READS_MAX: usize = 32;
/// Locks that keep two writes of one event apart.
const LOCKS: usize = 1024;

/// Events in a stream of a NATS server.
#[derive(Debug)]
pub struct NatsEvents {
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
}

#[derive(Debug)]
struct Shared {
    link: Link,
    room: Room,
    index: Mutex<Index>,
    /// By id: writes of one event come one after another.
    locks: Vec<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct Index {
    heads: HashMap<RequestId, Head>,
    order: BTreeSet<EventCursor>,
}

impl Index {
    /// Puts an event in, in the place of what was known of it.
    fn put(&mut self, id: RequestId, head: Head) -> Option<Head> {
        let old = self.heads.insert(id, head);
        if let Some(old) = old {
            self.order.remove(&EventCursor { due_ms: old.due_ms, id });
        }
        self.order.insert(EventCursor { due_ms: head.due_ms, id });
        old
    }

    fn take(&mut self, id: RequestId) -> Option<Head> {
        let head = self.heads.remove(&id)?;
        self.order.remove(&EventCursor { due_ms: head.due_ms, id });
        Some(head)
    }
}

impl NatsEvents {
    /// Connects, makes the stream where there is none, and reads which events it keeps. `owner` names the platform: a stream serves one.
    ///
    /// # Errors
    /// [`StoreError::Remote`] when the server cannot be reached or does not let us in, [`StoreError::Invalid`] when the stream is
    /// not ours.
    pub async fn open(address: &NatsAddress, owner: &str, limits: EventLimits) -> Result<Self, StoreError> {
        let link = Link::open(address, owner).await?;
        let mut index = Index::default();
        link.heads(|id, head| {
            index.put(id, head);
        })
        .await?;
        let bytes = index.heads.values().map(|head| head.bytes as u64).sum();
        let room = Room::new(limits, index.heads.len() as u64, bytes);
        let locks = (0..LOCKS).map(|_| tokio::sync::Mutex::default()).collect();
        let shared = Arc::new(Shared { link, room, index: Mutex::new(index), locks });
        Ok(Self { shared, places: Arc::new(Semaphore::new(IN_FLIGHT_MAX)) })
    }

    /// Waits for writes under way and closes the connection. Later calls answer [`StoreError::Closed`].
    pub async fn close(&self) -> Result<(), StoreError> {
        let all = u32::try_from(IN_FLIGHT_MAX).unwrap_or(u32::MAX);
        let waited = tokio::time::timeout(PATIENCE, self.places.acquire_many(all)).await;
        self.places.close();
        drop(waited);
        self.shared.link.close().await
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        match tokio::time::timeout(PATIENCE, Arc::clone(&self.places).acquire_owned()).await {
            Ok(place) => place.map_err(|_| StoreError::Closed),
            Err(_) => Err(StoreError::Full("too many writes wait for the NATS server")),
        }
    }

    /// Runs a write to its end, even when the caller goes away: the index must know what the server knows.
    async fn write<F>(&self, act: impl FnOnce(Arc<Shared>, OwnedSemaphorePermit) -> F) -> Result<(), StoreError>
    where
        F: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        let place = self.place().await?;
        tokio::spawn(act(Arc::clone(&self.shared), place)).await.map_err(|_| StoreError::Closed)?
    }
}

impl Shared {
    fn lock(&self, id: RequestId) -> &tokio::sync::Mutex<()> {
        // Ids are random, and their lowest bits are.
        &self.locks[(id.0 % LOCKS as u128) as usize]
    }

    fn head(&self, id: RequestId) -> Option<Head> {
        self.index.lock().heads.get(&id).copied()
    }

    async fn append(self: Arc<Self>, event: StoredEvent, place: OwnedSemaphorePermit) -> Result<(), StoreError> {
        let StoredEvent { id, payload, due_ms, attempt } = event;
        let _alone = self.lock(id).lock().await;
        if self.head(id).is_some() {
            return Err(StoreError::Exists("an event with this id is pending"));
        }
        let bytes = payload.len();
        self.room.take(bytes)?;
        match self.link.store(id, due_ms, attempt, Bytes::from(payload), 0).await {
            Ok(sequence) => {
                self.index.lock().put(id, Head { sequence, due_ms, attempt, bytes });
                Ok(())
            }
            Err(Unsent::Refused(error)) => {
                self.room.give_back(bytes);
                Err(error)
            }
            Err(Unsent::Conflict) => {
                self.room.give_back(bytes);
                Err(StoreError::Exists("an event with this id is pending"))
            }
            Err(Unsent::Unknown(error)) => {
                tokio::spawn(Arc::clone(&self).take_back(id, bytes, place));
                Err(error)
            }
        }
    }

    /// Takes back what the caller was told is not stored. Its place stays taken: no more than so many events are ever in doubt.
    async fn take_back(self: Arc<Self>, id: RequestId, bytes: usize, place: OwnedSemaphorePermit) {
        let _alone = self.lock(id).lock().await;
        while let Err(error) = self.link.clear(id).await {
            tracing::warn!(request_id = %id, %error, "it is not known whether a refused event was stored; asking again");
        }
        self.room.give_back(bytes);
        drop(place);
    }

    async fn reschedule(&self, id: RequestId, due_ms: u64, attempt: u32) -> Result<(), StoreError> {
        let _alone = self.lock(id).lock().await;
        let absent = StoreError::NotFound("the event");
        let old = self.head(id).ok_or(absent.clone())?;
        let Some(payload) = self.link.read(old.sequence).await? else {
            // Somebody else removed it from the stream.
            self.forget(id);
            return Err(absent);
        };
        match self.link.store(id, due_ms, attempt, Bytes::from(payload), old.sequence).await {
            Ok(sequence) => {
                self.index.lock().put(id, Head { sequence, due_ms, attempt, bytes: old.bytes });
                Ok(())
            }
            Err(Unsent::Conflict) => Err(absent),
            Err(Unsent::Refused(error) | Unsent::Unknown(error)) => Err(error),
        }
    }

    async fn finish(&self, id: RequestId) -> Result<(), StoreError> {
        let _alone = self.lock(id).lock().await;
        let Some(head) = self.head(id) else { return Ok(()) };
        self.link.remove(head.sequence).await?;
        self.forget(id);
        Ok(())
    }

    fn forget(&self, id: RequestId) {
        if let Some(head) = self.index.lock().take(id) {
            self.room.give_back(head.bytes);
        }
    }
}

#[async_trait]
impl EventLog for NatsEvents {
    async fn append(&self, event: StoredEvent) -> Result<(), StoreError> {
        validate_time(event.due_ms)?;
        validate_payload(&event, self.payload_bytes_max())?;
        self.write(|shared, place| shared.append(event, place)).await
    }

    async fn reschedule(&self, id: RequestId, due_ms: u64, attempt: u32) -> Result<(), StoreError> {
        validate_time(due_ms)?;
        self.write(|shared, place| async move {
            let _place = place;
            shared.reschedule(id, due_ms, attempt).await
        })
        .await
    }

    async fn finish(&self, id: RequestId) -> Result<(), StoreError> {
        self.write(|shared, place| async move {
            let _place = place;
            shared.finish(id).await
        })
        .await
    }

    async fn due(&self, now_ms: u64, limit: usize, after: Option<EventCursor>) -> Result<Vec<StoredEvent>, StoreError> {
        if self.places.is_closed() {
            return Err(StoreError::Closed);
        }
        let mut after = after;
        loop {
            let page = self.shared.page(now_ms, limit, after);
            let Some((last, _)) = page.last() else { return Ok(Vec::new()) };
            after = Some(*last);
            let reads = stream::iter(page).map(|(cursor, head)| async move {
                let payload = self.shared.link.read(head.sequence).await?;
                let stored =
                    |payload| StoredEvent { id: cursor.id, payload, due_ms: head.due_ms, attempt: head.attempt };
                Ok::<_, StoreError>(payload.map(stored))
            });
            let mut found = Vec::new();
            let mut reads = reads.buffered(READS_MAX);
            while let Some(read) = reads.next().await {
                found.extend(read?);
            }
            // All of a page may have been finished since: an empty answer would mean that there are no more.
            if !found.is_empty() {
                return Ok(found);
            }
        }
    }

    async fn pending(&self) -> Result<u64, StoreError> {
        Ok(self.shared.room.count())
    }

    fn payload_bytes_max(&self) -> usize {
        self.shared.link.payload_bytes_max().min(PAYLOAD_BYTES_MAX)
    }
}

impl Shared {
    /// Which events [`EventLog::due`] returns.
    fn page(&self, now_ms: u64, limit: usize, after: Option<EventCursor>) -> Vec<(EventCursor, Head)> {
        let index = self.index.lock();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut bytes = 0;
        let mut page = Vec::new();
        for cursor in index.order.range((start, Bound::Unbounded)) {
            if cursor.due_ms > now_ms || page.len() >= limit || bytes >= DUE_BYTES_MAX {
                break;
            }
            let head = index.heads[&cursor.id];
            bytes += head.bytes;
            page.push((*cursor, head));
        }
        page
    }
}
