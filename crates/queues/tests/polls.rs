//! Long polls: woken by what comes, and by what becomes visible; bounded; answered at the stop.

mod common;

use common::{Scene, kind};
use mayfly_base::SystemClock;
use mayfly_queues::spec::QueueChange;
use mayfly_queues::{ErrorKind, QueueLimits, Queues};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Queues on the machine's clock: polls wait by it.
async fn queues(limits: QueueLimits) -> (Queues, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (Queues::open(&dir.path().join("q.db"), limits, Arc::new(SystemClock)).await.unwrap(), dir)
}

/// Waits until `count` receives wait at `queue`.
async fn until_waiting(queues: &Queues, queue: &str, count: usize) {
    let enough = async {
        while queues.waiting(queue).unwrap() < count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, enough).await.expect("they wait");
}

#[tokio::test]
async fn a_send_wakes_one_who_waits() {
    let (queues, _dir) = queues(QueueLimits::default()).await;
    queues.create_queue("q", QueueChange { poll_s: Some(30), ..QueueChange::default() }).await.unwrap();
    let waiting = tokio::spawn({
        let queues = queues.clone();
        async move { queues.receive("q", 16, None).await }
    });
    until_waiting(&queues, "q", 1).await;
    queues.send("q", "hello").await.unwrap();
    let got = tokio::time::timeout(PATIENCE, waiting).await.expect("it is woken").unwrap().unwrap();
    assert_eq!(got[0].body, "hello");
    assert_eq!(queues.waiting("q").unwrap(), 0);
}

#[tokio::test]
async fn what_becomes_visible_wakes_too() {
    let (queues, _dir) = queues(QueueLimits::default()).await;
    queues.create_queue("q", QueueChange { visibility_s: Some(1), ..QueueChange::default() }).await.unwrap();
    queues.send_batch("q", vec!["late".into()], 1).await.unwrap();
    let receive = |n| {
        let queues = queues.clone();
        tokio::spawn(async move { queues.receive("q", n, Some(30)).await })
    };
    let late = tokio::time::timeout(PATIENCE, receive(1)).await.expect("its delay ends").unwrap().unwrap();
    assert_eq!((late[0].body.as_str(), late[0].received), ("late", 1));
    // Two wait; the first message that becomes visible goes to one, the next to the other, though only one watches the clock.
    queues.send("q", "second").await.unwrap();
    queues.receive("q", 1, Some(0)).await.unwrap();
    let both = [receive(1), receive(1)];
    let mut seen = HashSet::new();
    for one in both {
        let got = tokio::time::timeout(PATIENCE, one).await.expect("it is woken").unwrap().unwrap();
        assert!(got[0].received >= 2);
        seen.insert(got[0].body.clone());
        queues.delete("q", &[got[0].handle.clone()]).await.unwrap();
    }
    assert_eq!(seen.len(), 2);
}

#[tokio::test]
async fn a_shorter_delay_than_the_one_watched_is_noticed() {
    let (queues, _dir) = queues(QueueLimits::default()).await;
    queues.create_queue("q", QueueChange::default()).await.unwrap();
    queues.send_batch("q", vec!["far".into()], 3600).await.unwrap();
    let receive = || {
        let queues = queues.clone();
        tokio::spawn(async move { queues.receive("q", 1, Some(30)).await })
    };
    let all = [receive(), receive(), receive()];
    until_waiting(&queues, "q", 3).await;
    queues.send_batch("q", vec!["near".into()], 1).await.unwrap();
    let mut got = 0;
    let near = async {
        while got == 0 {
            got = queues.figures("q").await.unwrap().received;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(25), near).await.expect("one of them gets it before its own time is over");
    queues.drain();
    let mut bodies = Vec::new();
    for one in all {
        bodies.extend(one.await.unwrap().unwrap_or_default().into_iter().map(|m| m.body));
    }
    assert_eq!(bodies, ["near"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_senders_and_many_who_wait_lose_nothing() {
    let (queues, _dir) = queues(QueueLimits::default()).await;
    queues.create_queue("q", QueueChange { visibility_s: Some(43_200), ..QueueChange::default() }).await.unwrap();
    const EACH: usize = 100;
    let takers: Vec<_> = (0..8)
        .map(|_| {
            let queues = queues.clone();
            tokio::spawn(async move {
                let mut mine = Vec::new();
                while let Ok(got) = queues.receive("q", 3, Some(30)).await {
                    let handles: Vec<String> = got.iter().map(|m| m.handle.clone()).collect();
                    assert!(queues.delete("q", &handles).await.unwrap().into_iter().all(|ok| ok));
                    mine.extend(got.into_iter().map(|m| m.body));
                }
                mine
            })
        })
        .collect();
    let senders: Vec<_> = (0..8)
        .map(|sender| {
            let queues = queues.clone();
            tokio::spawn(async move {
                for i in 0..EACH {
                    queues.send("q", format!("{sender}-{i}")).await.unwrap();
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    let empty = async {
        while queues.figures("q").await.unwrap().deleted < (8 * EACH) as u64 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, empty).await.expect("everything is taken");
    queues.drain();
    let mut all = Vec::new();
    for taker in takers {
        all.extend(taker.await.unwrap());
    }
    let distinct: HashSet<&String> = all.iter().collect();
    assert_eq!((all.len(), distinct.len()), (8 * EACH, 8 * EACH), "each exactly once");
}

#[tokio::test]
async fn those_who_wait_are_bounded_and_answered_at_the_stop() {
    let limits = QueueLimits { waiting_queue_max: 2, waiting_max: 3, ..QueueLimits::default() };
    let (queues, _dir) = queues(limits).await;
    for name in ["a", "b"] {
        queues.create_queue(name, QueueChange::default()).await.unwrap();
    }
    let receive = |name: &'static str| {
        let queues = queues.clone();
        tokio::spawn(async move { queues.receive(name, 1, Some(30)).await })
    };
    let mut waiting = vec![receive("a"), receive("a")];
    until_waiting(&queues, "a", 2).await;
    assert_eq!(kind(queues.receive("a", 1, Some(30)).await), ErrorKind::Throttled, "at the queue");
    assert_eq!(kind(queues.receive("a", 1, Some(0)).await), ErrorKind::NoMessage, "who does not wait is served");
    waiting.push(receive("b"));
    until_waiting(&queues, "b", 1).await;
    assert_eq!(kind(queues.receive("b", 1, Some(30)).await), ErrorKind::Throttled, "in all");
    // A deleted queue sends those away who wait at it.
    queues.delete_queue("b").await.unwrap();
    let gone = tokio::time::timeout(PATIENCE, waiting.pop().unwrap()).await.expect("it is told").unwrap();
    assert_eq!(kind(gone), ErrorKind::NoQueue);
    queues.drain();
    for one in waiting {
        let answer = tokio::time::timeout(PATIENCE, one).await.expect("it is answered").unwrap();
        assert_eq!(kind(answer), ErrorKind::NoMessage);
    }
    assert_eq!(queues.waiting("a").unwrap(), 0);
}

#[tokio::test]
async fn one_who_leaves_takes_no_message_along() {
    let s = Scene::new().await;
    s.queue("q", QueueChange::default()).await;
    for _ in 0..50 {
        let receive = s.queues.receive("q", 1, Some(30));
        // Left at any point.
        let _ = tokio::time::timeout(Duration::from_micros(300), receive).await;
    }
    s.queues.send("q", "here").await.unwrap();
    assert_eq!(s.drain("q").await, ["here"]);
    assert_eq!(s.queues.waiting("q").unwrap(), 0);
}
