//! What becomes of messages in queues.

mod common;

use common::{Scene, T, kind};
use mayfly_queues::spec::QueueChange;
use mayfly_queues::{ErrorKind, QueueCounts, QueueLimits};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn change() -> QueueChange {
    QueueChange::default()
}

#[tokio::test]
async fn a_message_comes_and_goes() {
    let s = Scene::new().await;
    s.queue("Orders", change()).await;
    let id = s.queues.send("orders", "hello 你好").await.unwrap();
    let got = s.take("ORDERS").await.unwrap();
    assert_eq!((got.id, got.body.as_str(), got.received), (id, "hello 你好", 1));
    assert_eq!((got.sent_ms, got.first_ms, got.visible_ms), (T, T, T + 30_000));
    assert!(s.take("orders").await.is_none(), "it is hidden");
    assert_eq!(s.queues.delete("orders", std::slice::from_ref(&got.handle)).await.unwrap(), [true]);
    assert_eq!(s.queues.delete("orders", &[got.handle]).await.unwrap(), [false], "it is gone");
    assert_eq!(s.queues.queue("orders").await.unwrap().counts, QueueCounts::default());
    let more = s.queues.send("orders", "again").await.unwrap();
    assert!(more > id);
}

#[tokio::test]
async fn what_is_not_deleted_comes_again_with_another_handle() {
    let s = Scene::new().await;
    s.queue("q", QueueChange { visibility_s: Some(5), ..change() }).await;
    s.queues.send("q", "a").await.unwrap();
    let first = s.take("q").await.unwrap();
    s.clock.advance(4_999);
    assert!(s.take("q").await.is_none());
    s.clock.advance(1);
    let second = s.take("q").await.unwrap();
    assert_eq!((second.id, second.received, second.first_ms), (first.id, 2, T));
    assert_ne!(second.handle, first.handle);
    assert_eq!(s.queues.delete("q", &[first.handle]).await.unwrap(), [false], "the old handle is of no use");
    s.clock.advance(60_000);
    assert_eq!(
        s.queues.delete("q", &[second.handle]).await.unwrap(),
        [true],
        "the last one is, until it is received again"
    );
}

#[tokio::test]
async fn a_restart_changes_nothing() {
    let mut s = Scene::new().await;
    s.queue("q", change()).await;
    for body in ["a", "b", "c"] {
        s.queues.send("q", body).await.unwrap();
    }
    let a = s.take("q").await.unwrap();
    let b = s.take("q").await.unwrap();
    s.queues.delete("q", &[a.handle]).await.unwrap();
    s = s.reopen().await;
    let counts = s.queues.queue("q").await.unwrap().counts;
    assert_eq!((counts.active, counts.in_flight), (1, 1));
    assert_eq!(s.drain("q").await, ["c"]);
    s.clock.advance(30_000);
    let again = s.take("q").await.unwrap();
    assert_eq!((again.body.as_str(), again.received, again.first_ms), ("b", 2, T));
    assert_eq!(s.queues.delete("q", &[b.handle]).await.unwrap(), [false]);
    assert!(s.queues.send("q", "d").await.unwrap() > again.id, "numbers are never used twice");
}

#[tokio::test]
async fn delays_hide_messages_at_first() {
    let s = Scene::new().await;
    s.queue("q", change()).await;
    s.queues.send_batch("q", vec!["late".into()], 10).await.unwrap();
    s.queues.send("q", "now").await.unwrap();
    assert_eq!(s.queues.queue("q").await.unwrap().counts.delayed, 1);
    assert_eq!(s.drain("q").await, ["now"]);
    s.clock.advance(10_000);
    assert_eq!(s.drain("q").await, ["late"]);
    assert_eq!(kind(s.queues.send_batch("q", vec!["x".into()], 3601).await), ErrorKind::Delay);
}

#[tokio::test]
async fn messages_expire() {
    let s = Scene::new().await;
    s.queue("q", QueueChange { retention_s: Some(60), ..change() }).await;
    s.queues.send("q", "old").await.unwrap();
    s.clock.advance(30_000);
    s.queues.send("q", "new").await.unwrap();
    s.clock.advance(30_000);
    assert_eq!(s.drain("q").await, ["new"], "also before anybody swept");
    s.clock.advance(60_000);
    s.sweep().await;
    assert_eq!(s.queues.queue("q").await.unwrap().counts, QueueCounts::default());
    // A longer retention holds for what is there already.
    s.queues.send("q", "kept").await.unwrap();
    s.queues.set_queue("q", QueueChange { retention_s: Some(600), ..change() }).await.unwrap();
    s.clock.advance(599_000);
    s.sweep().await;
    assert_eq!(s.drain("q").await, ["kept"]);
}

#[tokio::test]
async fn a_full_queue_refuses_and_loses_nothing() {
    let s = Scene::new().await;
    s.queue("q", QueueChange { heap_max: Some(3), ..change() }).await;
    let batch = |n: usize| vec!["x".to_owned(); n];
    s.queues.send_batch("q", batch(2), 0).await.unwrap();
    assert_eq!(kind(s.queues.send_batch("q", batch(2), 0).await), ErrorKind::Full, "all or none");
    s.queues.send("q", "x").await.unwrap();
    assert_eq!(kind(s.queues.send("q", "x").await), ErrorKind::Full);
    let got = s.take("q").await.unwrap();
    assert_eq!(kind(s.queues.send("q", "x").await), ErrorKind::Full, "what is hidden counts");
    s.queues.delete("q", &[got.handle]).await.unwrap();
    s.queues.send("q", "x").await.unwrap();

    let s = Scene::with(QueueLimits { bytes_max: 100, ..QueueLimits::default() }).await;
    s.queue("q", change()).await;
    s.queues.send("q", "x".repeat(60)).await.unwrap();
    assert_eq!(kind(s.queues.send("q", "x".repeat(41)).await), ErrorKind::Full);
    s.queues.clear_queue("q").await.unwrap();
    s.sweep().await;
    s.queues.send("q", "x".repeat(100)).await.unwrap();
}

#[tokio::test]
async fn dead_letters_by_count() {
    let s = Scene::new().await;
    s.queue("dead", change()).await;
    let rule = QueueChange {
        dead_letter_queue: Some("dead".into()),
        policy: Some(0),
        receives_max: Some(2),
        visibility_s: Some(1),
        ..change()
    };
    s.queue("q", rule).await;
    s.queues.send_batch("q", vec!["bad".into(), "lazy".into()], 0).await.unwrap();
    for _ in 0..2 {
        assert_eq!(s.drain("q").await, ["bad", "lazy"]);
        s.clock.advance(1000);
    }
    assert_eq!(kind(s.queues.delete_queue("dead").await), ErrorKind::QueueInUse);
    assert!(s.take("q").await.is_none(), "a third time there is not");
    assert_eq!(s.drain("dead").await, ["bad", "lazy"]);
    s.clock.advance(30_000);
    let letter = s.take("dead").await.unwrap();
    assert_eq!((letter.received, letter.sent_ms), (2, T + 2000), "counted anew there");
    s.queues.clear_queue("dead").await.unwrap();
    // Nobody has to receive for it: time does it too.
    s.queues.send("q", "alone").await.unwrap();
    for _ in 0..2 {
        assert_eq!(s.drain("q").await, ["alone"]);
        s.clock.advance(1000);
    }
    s.sweep().await;
    assert_eq!(s.drain("dead").await, ["alone"]);
    assert_eq!(s.queues.queue("q").await.unwrap().counts, QueueCounts::default());
    assert_eq!(s.queues.queue("dead").await.unwrap().sources.len(), 1);
    // Without the rule messages stay.
    s.queues.set_queue("q", QueueChange { dead_letter_queue: Some(String::new()), ..change() }).await.unwrap();
    s.queues.send("q", "stays").await.unwrap();
    for _ in 0..4 {
        assert_eq!(s.drain("q").await, ["stays"]);
        s.clock.advance(1000);
        s.sweep().await;
    }
    s.queues.delete_queue("dead").await.unwrap();
}

#[tokio::test]
async fn dead_letters_by_age() {
    let s = Scene::new().await;
    s.queue("dead", QueueChange { heap_max: Some(1), ..change() }).await;
    s.queues.send("dead", "before").await.unwrap();
    let rule = QueueChange {
        dead_letter_queue: Some("dead".into()),
        policy: Some(1),
        age_s: Some(300),
        retention_s: Some(400),
        ..change()
    };
    s.queue("q", rule).await;
    s.queues.send_batch("q", vec!["a".into(), "b".into()], 0).await.unwrap();
    let hidden = s.take("q").await.unwrap();
    s.clock.advance(300_000);
    s.sweep().await;
    assert_eq!(s.queues.delete("q", &[hidden.handle]).await.unwrap(), [false], "it has moved");
    let mut letters = s.drain("dead").await;
    letters.sort();
    assert_eq!(letters, ["a", "b", "before"], "a full dead-letter queue takes them");
    // After a long stop, what is too old by both rules is a dead letter all the same.
    s.queues.send("q", "late").await.unwrap();
    let s = s.reopen().await;
    s.clock.advance(500_000);
    s.sweep().await;
    assert!(s.drain("dead").await.contains(&"late".to_owned()));
}

#[tokio::test]
async fn deleted_messages_can_be_brought_back() {
    let s = Scene::new().await;
    s.queue("q", QueueChange { rewind_s: Some(100), ..change() }).await;
    for body in ["a", "b"] {
        s.queues.send("q", body).await.unwrap();
        s.clock.advance(1000);
    }
    while let Some(message) = s.take("q").await {
        assert_eq!(s.queues.delete("q", std::slice::from_ref(&message.handle)).await.unwrap(), [true]);
        assert_eq!(s.queues.delete("q", &[message.handle]).await.unwrap(), [false]);
    }
    let counts = s.queues.queue("q").await.unwrap().counts;
    assert_eq!(counts, QueueCounts { rewindable: 2, ..QueueCounts::default() });
    s.queues.rewind_queue("q", T + 1000).await.unwrap();
    let b = s.take("q").await.unwrap();
    assert_eq!((b.body.as_str(), b.received), ("b", 1));
    assert!(s.take("q").await.is_none());
    s.clock.advance(100_000);
    s.sweep().await;
    let counts = s.queues.queue("q").await.unwrap().counts;
    assert_eq!((counts.rewindable, counts.active), (0, 1), "a is gone for good");
    s.queue("plain", change()).await;
    assert_eq!(kind(s.queues.rewind_queue("plain", 0).await), ErrorKind::NoRewind);
}

#[tokio::test]
async fn cleared_and_deleted_queues_are_empty_at_once() {
    let mut s = Scene::new().await;
    s.queue("q", change()).await;
    for _ in 0..100 {
        s.queues.send_batch("q", vec!["x".into(); 16], 0).await.unwrap();
    }
    let got = s.take("q").await.unwrap();
    s.queues.clear_queue("q").await.unwrap();
    assert_eq!(s.queues.queue("q").await.unwrap().counts, QueueCounts::default());
    assert!(s.take("q").await.is_none());
    assert_eq!(s.queues.delete("q", &[got.handle]).await.unwrap(), [false]);
    s.queues.send("q", "new").await.unwrap();
    s = s.reopen().await;
    s.sweep().await;
    assert_eq!(s.drain("q").await, ["new"]);
    s.queues.delete_queue("q").await.unwrap();
    assert_eq!(kind(s.queues.send("q", "x").await), ErrorKind::NoQueue);
    assert_eq!(kind(s.queues.receive("q", 1, None).await), ErrorKind::NoQueue);
    s.queue("q", change()).await;
    s = s.reopen().await;
    assert!(s.take("q").await.is_none(), "a new queue of that name is another one");
}

#[tokio::test]
async fn requests_are_bounded() {
    let s = Scene::with(QueueLimits { queues_max: 2, ..QueueLimits::default() }).await;
    s.queue("q", QueueChange { message_bytes_max: Some(1024), ..change() }).await;
    assert_eq!(kind(s.queues.create_queue("Q", change()).await), ErrorKind::QueueExists);
    s.queue("large", QueueChange { message_bytes_max: Some(1 << 20), ..change() }).await;
    assert_eq!(kind(s.queues.create_queue("third", change()).await), ErrorKind::TooManyQueues);
    for bad in ["", "1a", "a b", "a/b", "-", &"x".repeat(65), "名"] {
        assert_eq!(kind(s.queues.create_queue(bad, change()).await), ErrorKind::QueueName, "{bad}");
    }
    assert_eq!(kind(s.queues.send("q", "").await), ErrorKind::EmptyMessage);
    assert_eq!(kind(s.queues.send("q", "x".repeat(1025)).await), ErrorKind::MessageSize);
    assert_eq!(kind(s.queues.send_batch("q", vec![], 0).await), ErrorKind::Missing);
    assert_eq!(kind(s.queues.send_batch("q", vec!["x".into(); 17], 0).await), ErrorKind::BatchSize);
    let half = "x".repeat((1 << 19) + 1);
    assert_eq!(kind(s.queues.send_batch("large", vec![half; 2], 0).await), ErrorKind::BatchBytes);
    for limit in [0, 17] {
        assert_eq!(kind(s.queues.receive("q", limit, None).await), ErrorKind::Invalid);
    }
    assert_eq!(kind(s.queues.receive("q", 1, Some(31)).await), ErrorKind::Invalid);
    for bad in [
        QueueChange { heap_max: Some(0), ..change() },
        QueueChange { poll_s: Some(31), ..change() },
        QueueChange { visibility_s: Some(0), ..change() },
        QueueChange { message_bytes_max: Some(1 << 21), ..change() },
        QueueChange { retention_s: Some(1_296_001), ..change() },
        QueueChange { rewind_s: Some(345_601), ..change() },
        QueueChange { policy: Some(2), dead_letter_queue: Some("large".into()), ..change() },
        QueueChange { receives_max: Some(1001), dead_letter_queue: Some("large".into()), ..change() },
        QueueChange { receives_max: Some(1), dead_letter_queue: Some("Q".into()), ..change() },
        QueueChange { policy: Some(1), age_s: Some(299), dead_letter_queue: Some("large".into()), ..change() },
    ] {
        assert_eq!(kind(s.queues.set_queue("q", bad.clone()).await), ErrorKind::Invalid, "{bad:?}");
    }
    let lost = QueueChange { receives_max: Some(1), dead_letter_queue: Some("none".into()), ..change() };
    assert_eq!(kind(s.queues.set_queue("q", lost).await), ErrorKind::NoQueue);
    assert_eq!(
        s.queues.delete("q", &["nonsense".into(), "7fffffffffffffff-0000000000000000".into()]).await.unwrap(),
        [false, false]
    );
}

#[derive(Clone, Debug)]
enum Step {
    Send(u64),
    Receive(usize),
    Delete(usize),
    Pass(u64),
    Sweep,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => prop_oneof![Just(0u64), 1u64..20].prop_map(Step::Send),
        4 => (1usize..4).prop_map(Step::Receive),
        3 => (0usize..8).prop_map(Step::Delete),
        2 => (1u64..40_000).prop_map(Step::Pass),
        1 => Just(Step::Sweep),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..40)
}

/// A message as a client may expect it to be.
#[derive(Clone, Debug)]
struct Known {
    visible_ms: u64,
    ends_ms: u64,
    received: u64,
    handle: Option<String>,
}

/// Runs the steps against the queue and against what a client knows.
async fn agree(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut s = Scene::new().await;
    s.queue("q", QueueChange { retention_s: Some(60), visibility_s: Some(7), ..change() }).await;
    let mut known: BTreeMap<u64, Known> = BTreeMap::new();
    let mut now = T;
    for step in steps {
        match step {
            Step::Send(delay_s) => {
                let id = s.queues.send_batch("q", vec![format!("m{now}")], delay_s).await.unwrap()[0];
                let visible_ms = now + delay_s * 1000;
                known.insert(id, Known { visible_ms, ends_ms: now + 60_000, received: 0, handle: None });
            }
            Step::Receive(limit) => {
                let got = s.queues.receive("q", limit, Some(0)).await.unwrap_or_default();
                let mut due: Vec<(u64, u64)> = known
                    .iter()
                    .filter(|(_, k)| k.visible_ms <= now && k.ends_ms > now)
                    .map(|(id, k)| (k.visible_ms, *id))
                    .collect();
                due.sort_unstable();
                due.truncate(limit);
                let wanted: Vec<u64> = due.iter().map(|(_, id)| *id).collect();
                prop_assert_eq!(got.iter().map(|m| m.id).collect::<Vec<_>>(), wanted);
                for message in got {
                    let k = known.get_mut(&message.id).unwrap();
                    k.received += 1;
                    k.visible_ms = now + 7000;
                    k.handle = Some(message.handle);
                    prop_assert_eq!((message.received, message.visible_ms), (k.received, k.visible_ms));
                }
            }
            Step::Delete(nth) => {
                let held: Vec<(u64, String)> =
                    known.iter().filter_map(|(id, k)| Some((*id, k.handle.clone()?))).collect();
                let Some((id, handle)) = held.get(nth % held.len().max(1)).cloned() else { continue };
                let deleted = s.queues.delete("q", &[handle]).await.unwrap()[0];
                // One that has expired may or may not have been swept.
                prop_assert!(deleted || known[&id].ends_ms <= now);
                known.remove(&id);
            }
            Step::Pass(ms) => {
                now += ms;
                s.clock.set(now);
            }
            Step::Sweep => {
                s.sweep().await;
                known.retain(|_, k| k.ends_ms > now);
                let counts = s.queues.queue("q").await.unwrap().counts;
                prop_assert_eq!(counts.active + counts.in_flight + counts.delayed, known.len() as u64);
            }
            Step::Reopen => s = s.reopen().await,
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn a_queue_is_what_a_client_expects(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(agree(steps))?;
    }
}
