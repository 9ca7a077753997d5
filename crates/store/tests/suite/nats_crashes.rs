//! Events in NATS while its server is killed and started again.

use crate::events::nats;
use mayfly_model::RequestId;
use mayfly_store::{EventLimits, EventLog, NatsEvents, StoreError, StoredEvent};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(120);

fn event(id: u128) -> StoredEvent {
    StoredEvent { id: RequestId(id), payload: vec![b'e'; 300], due_ms: 5, attempt: 0 }
}

async fn all(log: &dyn EventLog) -> Vec<StoredEvent> {
    let (mut found, mut after) = (Vec::<StoredEvent>::new(), None);
    loop {
        let page = log.due(u64::MAX, 500, after).await.unwrap();
        let Some(last) = page.last() else { return found };
        after = Some(last.cursor());
        found.extend(page);
    }
}

/// Eight writers append, move and finish events while the server is killed three times. What each was told holds, in the log that was
/// open all the time and in one that is opened afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_server_is_killed() {
    let Some(mut fixture) = nats(EventLimits::default()) else { return };
    let log = Arc::new(NatsEvents::open(&fixture.address(), "test", EventLimits::default()).await.unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let appended = Arc::new(AtomicU32::new(0));
    let writers: Vec<_> = (0..8u128)
        .map(|writer| {
            let (log, stop, appended) = (Arc::clone(&log), Arc::clone(&stop), Arc::clone(&appended));
            tokio::spawn(async move {
                let (mut kept, mut moved, mut unsure) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
                for n in 0u128.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let id = writer << 64 | n;
                    if log.append(event(id)).await.is_err() {
                        continue;
                    }
                    appended.fetch_add(1, Ordering::Relaxed);
                    kept.insert(id);
                    let result = match n % 3 {
                        0 => log.finish(RequestId(id)).await.map(|()| kept.remove(&id)),
                        1 => log.reschedule(RequestId(id), 9, 1).await.map(|()| moved.insert(id)),
                        _ => Ok(true),
                    };
                    if result.is_err() {
                        unsure.insert(id);
                    }
                }
                (kept, moved, unsure)
            })
        })
        .collect();
    for round in 1..=3 {
        let begun = Instant::now();
        while appended.load(Ordering::Relaxed) < round * 200 {
            assert!(begun.elapsed() < DEADLINE, "no event was stored since the server was started again");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::task::block_in_place(|| fixture.server.restart());
    }
    stop.store(true, Ordering::Relaxed);
    let (mut kept, mut moved, mut unsure) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for writer in writers {
        let (k, m, u) = writer.await.unwrap();
        kept.extend(k);
        moved.extend(m);
        unsure.extend(u);
    }
    println!(
        "{} stored, {} kept, {} moved, {} not known",
        appended.load(Ordering::Relaxed),
        kept.len(),
        moved.len(),
        unsure.len()
    );
    let check = |found: Vec<StoredEvent>, what: &str| {
        let ids: BTreeSet<_> = found.iter().map(|event| event.id.0).collect();
        let lost: Vec<_> = kept.iter().filter(|id| !unsure.contains(id) && !ids.contains(id)).collect();
        assert!(lost.is_empty(), "{what}: lost {lost:?}");
        for event in found.iter().filter(|event| moved.contains(&event.id.0)) {
            assert_eq!((event.due_ms, event.attempt), (9, 1), "{what}");
        }
        assert!(found.iter().all(|event| event.payload.len() == 300));
        ids.difference(&kept).filter(|id| !unsure.contains(id)).count()
    };
    assert_eq!(check(all(&*log).await, "the open log"), 0, "finished events came back");
    log.close().await.unwrap();
    let again = NatsEvents::open(&fixture.address(), "test", EventLimits::default()).await.unwrap();
    // A server that is killed may forget that it removed something, never that it stored something: such events run again.
    println!("{} finished events came back", check(all(&again).await, "the log opened again"));
}

/// A write to a server that stays away ends with an error, and leaves nothing behind when the server is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_an_error_and_not_a_wait_without_end() {
    let Some(mut fixture) = nats(EventLimits::default()) else { return };
    let log = NatsEvents::open(&fixture.address(), "test", EventLimits::default()).await.unwrap();
    log.append(event(1)).await.unwrap();
    fixture.server.kill();
    let (append, finish) = tokio::join!(log.append(event(2)), log.finish(RequestId(1)));
    assert!(matches!(append, Err(StoreError::Remote { .. })), "{append:?}");
    assert!(matches!(finish, Err(StoreError::Remote { .. })), "{finish:?}");
    tokio::task::block_in_place(|| fixture.server.restart());
    // What was refused is taken back before anything else happens to an event of this id.
    log.append(event(2)).await.unwrap();
    log.finish(RequestId(1)).await.unwrap();
    assert_eq!(log.due(9, 9, None).await.unwrap(), [event(2)]);
    assert_eq!(log.pending().await.unwrap(), 1);
}

#[tokio::test]
async fn a_stream_serves_one_platform() {
    let Some(fixture) = nats(EventLimits::default()) else { return };
    let limits = EventLimits::default();
    let log = NatsEvents::open(&fixture.address(), "one", limits).await.unwrap();
    let error = NatsEvents::open(&fixture.address(), "two", limits).await.unwrap_err();
    assert!(error.to_string().contains("another platform"), "{error}");
    // Another stream of the same server is another log.
    let other = format!("{}/OTHER", fixture.server.url()).parse().unwrap();
    let other = NatsEvents::open(&other, "two", limits).await.unwrap();
    other.append(event(1)).await.unwrap();
    assert_eq!((log.pending().await.unwrap(), other.pending().await.unwrap()), (0, 1));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_at_once() {
    // A port that nobody listens on.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("nats://user:secret@127.0.0.1:{port}").parse().unwrap();
    let error = NatsEvents::open(&address, "test", EventLimits::default()).await.unwrap_err();
    assert!(matches!(error, StoreError::Remote { .. }), "{error}");
    assert!(!error.to_string().contains("secret"));
}
