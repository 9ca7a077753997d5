//! The contract of `EventLog`: what every implementation passes.

use async_trait::async_trait;
use mayfly_model::RequestId;
use mayfly_store::{
    EventCursor, EventLimits, EventLog, MemoryEvents, NatsAddress, NatsEvents, SqliteEvents, StoreError, StoredEvent,
};
use mayfly_testkit::nats::NatsServer;
use std::sync::Arc;
use std::time::Instant;
use tempfile::TempDir;

/// An implementation, with what it keeps between two openings.
#[async_trait]
trait Fixture: Send + Sync {
    async fn open(&self) -> Arc<dyn EventLog>;
    /// Closes what was opened last.
    async fn close(&self);
    /// False: what is kept is lost with the process, so that there is nothing to close.
    fn durable(&self) -> bool {
        true
    }
}

struct Sqlite {
    dir: TempDir,
    limits: EventLimits,
    open: tokio::sync::Mutex<Option<Arc<SqliteEvents>>>,
}

#[async_trait]
impl Fixture for Sqlite {
    async fn open(&self) -> Arc<dyn EventLog> {
        let log = Arc::new(SqliteEvents::open(&self.dir.path().join("events.db"), self.limits).await.unwrap());
        *self.open.lock().await = Some(Arc::clone(&log));
        log
    }

    async fn close(&self) {
        self.open.lock().await.take().unwrap().close().await.unwrap();
    }
}

struct Memory(MemoryEvents);

#[async_trait]
impl Fixture for Memory {
    async fn open(&self) -> Arc<dyn EventLog> {
        Arc::new(self.0.clone())
    }

    async fn close(&self) {}

    fn durable(&self) -> bool {
        false
    }
}

pub struct Nats {
    pub server: NatsServer,
    limits: EventLimits,
    open: tokio::sync::Mutex<Option<Arc<NatsEvents>>>,
}

#[async_trait]
impl Fixture for Nats {
    async fn open(&self) -> Arc<dyn EventLog> {
        let log = Arc::new(NatsEvents::open(&self.address(), "test", self.limits).await.unwrap());
        *self.open.lock().await = Some(Arc::clone(&log));
        log
    }

    async fn close(&self) {
        self.open.lock().await.take().unwrap().close().await.unwrap();
    }
}

impl Nats {
    pub fn address(&self) -> NatsAddress {
        self.server.url().parse().unwrap()
    }
}

fn sqlite(limits: EventLimits) -> Option<Sqlite> {
    Some(Sqlite { dir: tempfile::tempdir().unwrap(), limits, open: tokio::sync::Mutex::default() })
}

fn memory(limits: EventLimits) -> Option<Memory> {
    Some(Memory(MemoryEvents::new(limits)))
}

/// `None`, told loudly: there is no nats-server.
pub fn nats(limits: EventLimits) -> Option<Nats> {
    Some(Nats { server: NatsServer::start()?, limits, open: tokio::sync::Mutex::default() })
}

/// Small enough to reach in a test.
const LIMITS: EventLimits = EventLimits { count_max: 500, bytes_max: 8 << 20 };

macro_rules! contract {
    ($($test:ident),* $(,)?) => {
        contract!(on_sqlite by sqlite: $($test),*);
        contract!(on_memory by memory: $($test),*);
        contract!(on_nats by nats: $($test),*);
    };
    ($module:ident by $fixture:ident: $($test:ident),*) => {
        mod $module {
            $(#[tokio::test] async fn $test() {
                if let Some(fixture) = super::$fixture(super::LIMITS) {
                    super::$test(&fixture).await
                }
            })*
        }
    };
}

contract!(
    events_come_when_due_and_in_order,
    pages_follow_the_cursor,
    pages_of_large_events_are_cut,
    rescheduled_events_move,
    unfinished_events_survive_reopening,
    an_id_is_pending_once,
    full_by_count_and_room_comes_back,
    full_by_bytes_and_room_comes_back,
    concurrent_appends_keep_to_the_limit,
    concurrent_appends_of_an_id_store_one,
    what_is_done_to_one_event_at_once_leaves_it_whole,
    room_is_right_after_reopening,
    payloads_are_kept_byte_by_byte,
    a_closed_log_says_so,
    out_of_range_is_refused,
);

fn event(id: u128, due_ms: u64) -> StoredEvent {
    StoredEvent { id: RequestId(id), payload: format!("{{\"id\":{id}}}").into_bytes(), due_ms, attempt: 0 }
}

fn ids(events: &[StoredEvent]) -> Vec<u128> {
    events.iter().map(|event| event.id.0).collect()
}

async fn events_come_when_due_and_in_order(fixture: &dyn Fixture) {
    let log = fixture.open().await;
    for (id, due) in [(5, 300), (1, 100), (9, 100), (u128::MAX, 200), (0, 0), (7, 100)] {
        log.append(event(id, due)).await.unwrap();
    }
    assert_eq!(ids(&log.due(200, 100, None).await.unwrap()), [0, 1, 7, 9, u128::MAX]);
    assert_eq!(ids(&log.due(99, 100, None).await.unwrap()), [0]);
    assert_eq!(ids(&log.due(u64::MAX, 2, None).await.unwrap()), [0, 1]);
    assert_eq!(log.due(u64::MAX, 1, None).await.unwrap(), [event(0, 0)]);
    log.finish(RequestId(7)).await.unwrap();
    log.finish(RequestId(7)).await.unwrap();
    log.finish(RequestId(12345)).await.unwrap();
    assert_eq!(ids(&log.due(200, 100, None).await.unwrap()), [0, 1, 9, u128::MAX]);
    assert_eq!(log.pending().await.unwrap(), 5);
}

async fn pages_follow_the_cursor(fixture: &dyn Fixture) {
    let log = fixture.open().await;
    for id in 0..25 {
        log.append(event(id, 100 + u64::try_from(id).unwrap() / 10)).await.unwrap();
    }
    let mut seen = Vec::new();
    let mut after: Option<EventCursor> = None;
    loop {
        let page = log.due(1000, 7, after).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.cursor());
        seen.extend(ids(&page));
    }
    assert_eq!(seen, (0..25).collect::<Vec<_>>());
}

async fn pages_of_large_events_are_cut(fixture: &dyn Fixture) {
    let log = fixture.open().await;
    for id in 0..7 {
        log.append(StoredEvent { payload: vec![b'x'; 1 << 20], ..event(id, 1) }).await.unwrap();
    }
    let first = log.due(1, 100, None).await.unwrap();
    assert_eq!(ids(&first), [0, 1, 2, 3]);
    assert_eq!(first[3].payload.len(), 1 << 20);
    assert_eq!(ids(&log.due(1, 100, Some(first[3].cursor())).await.unwrap()), [4, 5, 6]);
}

async fn rescheduled_events_move(fixture: &dyn Fixture) {
    let log = fixture.open().await;
    log.append(event(1, 100)).await.unwrap();
    log.append(event(2, 100)).await.unwrap();
    log.reschedule(RequestId(1), 500, 3).await.unwrap();
    assert_eq!(ids(&log.due(499, 10, None).await.unwrap()), [2]);
    assert_eq!(log.due(500, 10, None).await.unwrap()[1], StoredEvent { attempt: 3, ..event(1, 500) });
    assert!(matches!(log.reschedule(RequestId(3), 1, 1).await, Err(StoreError::NotFound(_))));
}

async fn unfinished_events_survive_reopening(fixture: &dyn Fixture) {
    let log = fixture.open().await;
    for id in 0..10 {
        log.append(event(id, 5)).await.unwrap();
    }
    log.finish(RequestId(3)).await.unwrap();
    log.reschedule(RequestId(4), 1, 2).await.unwrap();
    drop(log);
    fixture.close().await;
    let log = fixture.open().await;
    assert_eq!(log.pending().await.unwrap(), 9);
    assert_eq!(ids(&log.due(5, 100, None).await.unwrap()), [4, 0, 1, 2, 5, 6, 7, 8, 9]);
    assert_eq!(log.due(1, 100, None).await.unwrap()[0].attempt, 2);
}

async fn an_id_is_pending_once(fixture: &dyn Fixture) {
    let log = fixture.open().await;
    log.append(event(1, 5)).await.unwrap();
    assert!(matches!(log.append(event(1, 9)).await, Err(StoreError::Exists(_))));
    assert_eq!(log.pending().await.unwrap(), 1);
    assert_eq!(log.due(9, 10, None).await.unwrap(), [event(1, 5)]);
    log.finish(RequestId(1)).await.unwrap();
    log.append(event(1, 9)).await.unwrap();
    assert_eq!(log.pending().await.unwrap(), 1);
}

async fn full_by_count_and_room_comes_back(fixture: &dyn Fixture) {
    let log = fixture.open().await;
    for id in 0..500 {
        log.append(event(id, 5)).await.unwrap();
    }
    assert!(matches!(log.append(event(500, 5)).await, Err(StoreError::Full(_))));
    assert_eq!(log.pending().await.unwrap(), 500);
    log.finish(RequestId(0)).await.unwrap();
    log.append(event(500, 5)).await.unwrap();
    drop(log);
    fixture.close().await;
    let log = fixture.open().await;
    assert!(matches!(log.append(event(501, 5)).await, Err(StoreError::Full(_))));
}

async fn full_by_bytes_and_room_comes_back(fixture: &dyn Fixture) {
    let log = fixture.open().await;
    for id in 0..8 {
        log.append(StoredEvent { payload: vec![b'x'; 1 << 20], ..event(id, 5) }).await.unwrap();
    }
    assert!(matches!(log.append(event(8, 5)).await, Err(StoreError::Full(_))));
    log.finish(RequestId(2)).await.unwrap();
    log.append(event(8, 5)).await.unwrap();
    assert_eq!(log.pending().await.unwrap(), 8);
}

async fn concurrent_appends_keep_to_the_limit(fixture: &dyn Fixture) {
    let log = fixture.open().await;
    let tasks: Vec<_> = (0..700)
        .map(|id| {
            let log = Arc::clone(&log);
            tokio::spawn(async move { log.append(event(id, 5)).await.is_ok() })
        })
        .collect();
    let mut accepted = 0;
    for task in tasks {
        accepted += u64::from(task.await.unwrap());
    }
    assert_eq!(accepted, 500);
    assert_eq!(log.pending().await.unwrap(), 500);
    assert_eq!(log.due(5, 1000, None).await.unwrap().len(), 500);
}

async fn concurrent_appends_of_an_id_store_one(fixture: &dyn Fixture) {
    let log = fixture.open().await;
    let tasks: Vec<_> = (0..50)
        .map(|due| {
            let log = Arc::clone(&log);
            tokio::spawn(async move { log.append(event(7, due)).await.is_ok() })
        })
        .collect();
    let mut accepted = 0;
    for task in tasks {
        accepted += u64::from(task.await.unwrap());
    }
    assert_eq!((accepted, log.pending().await.unwrap()), (1, 1));
    assert_eq!(ids(&log.due(100, 10, None).await.unwrap()), [7]);
}

async fn what_is_done_to_one_event_at_once_leaves_it_whole(fixture: &dyn Fixture) {
    let log = fixture.open().await;
    for id in 0..40 {
        log.append(event(id, 5)).await.unwrap();
    }
    let tasks: Vec<_> = (0..40u128)
        .flat_map(|id| {
            let (mover, ender) = (Arc::clone(&log), Arc::clone(&log));
            let moved = tokio::spawn(async move {
                match mover.reschedule(RequestId(id), 6, 1).await {
                    Ok(()) | Err(StoreError::NotFound(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            });
            // Every other event is also finished.
            let ended = tokio::spawn(async move {
                if id % 2 == 0 {
                    ender.finish(RequestId(id)).await.unwrap();
                }
            });
            [moved, ended]
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let left = log.due(100, 100, None).await.unwrap();
    assert_eq!(ids(&left), (0..40).filter(|id| id % 2 == 1).collect::<Vec<_>>());
    assert!(left.iter().all(|event| (event.due_ms, event.attempt) == (6, 1)));
    assert_eq!(log.pending().await.unwrap(), 20);
}

async fn room_is_right_after_reopening(fixture: &dyn Fixture) {
    let log = fixture.open().await;
    for id in 0..7 {
        log.append(StoredEvent { payload: vec![b'x'; 1 << 20], ..event(id, 5) }).await.unwrap();
    }
    // A message that takes another's place takes its room too.
    log.reschedule(RequestId(1), 6, 1).await.unwrap();
    log.finish(RequestId(0)).await.unwrap();
    drop(log);
    fixture.close().await;
    let log = fixture.open().await;
    for id in 10..12 {
        log.append(StoredEvent { payload: vec![b'x'; 1 << 20], ..event(id, 5) }).await.unwrap();
    }
    assert!(matches!(log.append(event(12, 5)).await, Err(StoreError::Full(_))));
    for id in [1, 2, 3, 4, 5, 6, 10, 11] {
        log.finish(RequestId(id)).await.unwrap();
    }
    assert_eq!(log.pending().await.unwrap(), 0);
    assert!(log.due(u64::MAX, 10, None).await.unwrap().is_empty());
}

async fn payloads_are_kept_byte_by_byte(fixture: &dyn Fixture) {
    let log = fixture.open().await;
    let all: Vec<u8> = (0..=255).cycle().take(4096).collect();
    let kept = [StoredEvent { payload: Vec::new(), ..event(1, 5) }, StoredEvent { payload: all, ..event(2, 5) }];
    for event in &kept {
        log.append(event.clone()).await.unwrap();
    }
    drop(log);
    fixture.close().await;
    assert_eq!(fixture.open().await.due(5, 10, None).await.unwrap(), kept);
}

async fn a_closed_log_says_so(fixture: &dyn Fixture) {
    if !fixture.durable() {
        return;
    }
    let log = fixture.open().await;
    log.append(event(1, 5)).await.unwrap();
    fixture.close().await;
    assert!(matches!(log.append(event(2, 5)).await, Err(StoreError::Closed)));
    assert!(matches!(log.finish(RequestId(1)).await, Err(StoreError::Closed)));
    assert!(matches!(log.reschedule(RequestId(1), 6, 1).await, Err(StoreError::Closed)));
    assert!(matches!(log.due(5, 10, None).await, Err(StoreError::Closed)));
    assert_eq!(ids(&fixture.open().await.due(5, 10, None).await.unwrap()), [1]);
}

async fn out_of_range_is_refused(fixture: &dyn Fixture) {
    let log = fixture.open().await;
    assert!(matches!(log.append(event(1, u64::MAX)).await, Err(StoreError::Invalid { .. })));
    let large = StoredEvent { payload: vec![0; log.payload_bytes_max() + 1], ..event(1, 1) };
    assert!(matches!(log.append(large).await, Err(StoreError::Invalid { .. })));
    log.append(event(1, 1)).await.unwrap();
    assert!(matches!(log.reschedule(RequestId(1), u64::MAX, 1).await, Err(StoreError::Invalid { .. })));
    assert_eq!(log.pending().await.unwrap(), 1);
}

/// A caller that goes away while it waits neither loses room nor leaves half an event.
#[tokio::test]
async fn dropped_appends_keep_the_count_right() {
    let fixture = sqlite(LIMITS).unwrap();
    let log = fixture.open().await;
    for id in 0..300 {
        let append = log.append(event(id, 5));
        let _ =
            tokio::time::timeout(std::time::Duration::from_micros(u64::try_from(id % 7).unwrap() * 30), append).await;
    }
    // Answered after everything before it.
    let stored = log.due(5, 1000, None).await.unwrap().len() as u64;
    assert_eq!(log.pending().await.unwrap(), stored);
    drop(log);
    fixture.close().await;
    assert_eq!(fixture.open().await.pending().await.unwrap(), stored);
}

/// Many callers share a commit: the time of 1,000 appends at once is a small part of that of 1,000 one by one.
#[tokio::test]
async fn appends_share_commits() {
    let fixture = sqlite(EventLimits::default()).unwrap();
    let log = fixture.open().await;
    let start = Instant::now();
    for id in 0..100 {
        log.append(event(id, 5)).await.unwrap();
    }
    let each_alone = start.elapsed() / 100;
    let start = Instant::now();
    let tasks: Vec<_> = (1000..2000)
        .map(|id| {
            let log = Arc::clone(&log);
            tokio::spawn(async move { log.append(event(id, 5)).await.unwrap() })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let each_together = start.elapsed() / 1000;
    println!("one append: alone {each_alone:?}, of 1,000 together {each_together:?}");
    assert!(each_together < each_alone);
}
