//! What messages cost with many of them waiting: `cargo test -p mayfly-queues --test cost -- --ignored --nocapture`.

mod common;

use mayfly_base::SystemClock;
use mayfly_queues::spec::QueueChange;
use mayfly_queues::{QueueLimits, Queues};
use std::sync::Arc;
use std::time::Instant;

const PENDING: usize = 100_000;
const CALLERS: usize = 32;
const EACH: usize = 100;

/// Runs `EACH` calls on each of `CALLERS` tasks, and tells calls per second.
async fn rate<F: Future<Output = ()> + Send + 'static>(call: impl Fn() -> F + Clone + Send + 'static) -> f64 {
    let begun = Instant::now();
    let tasks: Vec<_> = (0..CALLERS)
        .map(|_| {
            let call = call.clone();
            tokio::spawn(async move {
                for _ in 0..EACH {
                    call().await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    (CALLERS * EACH) as f64 / begun.elapsed().as_secs_f64()
}

/// Sends one message, and receives and deletes one, by turns, by one caller; tells the median and the 99th percentile of each in milliseconds.
async fn latency(queues: &Queues, waiting: usize) {
    const ROUNDS: usize = 500;
    let (mut sends, mut receives) = (Vec::with_capacity(ROUNDS), Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        queues.send("q", "x".repeat(200)).await.unwrap();
        sends.push(begun.elapsed());
        let begun = Instant::now();
        let got = queues.receive("q", 1, Some(0)).await.unwrap();
        receives.push(begun.elapsed());
        assert_eq!(queues.delete("q", &[got[0].handle.clone()]).await.unwrap(), [true]);
    }
    for (what, mut times) in [("send", sends), ("receive", receives)] {
        times.sort();
        let at = |share: usize| times[ROUNDS * share / 100].as_secs_f64() * 1000.0;
        println!("{what} by one caller, {waiting} waiting: p50 {:.2} ms, p99 {:.2} ms", at(50), at(99));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, not a check"]
async fn cost_of_messages_with_many_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let queues = Queues::open(&dir.path().join("q.db"), QueueLimits::default(), Arc::new(SystemClock)).await.unwrap();
    queues.create_queue("q", QueueChange { visibility_s: Some(43_200), ..QueueChange::default() }).await.unwrap();
    latency(&queues, 0).await;
    let begun = Instant::now();
    for _ in 0..PENDING / 16 {
        queues.send_batch("q", vec!["x".repeat(200); 16], 0).await.unwrap();
    }
    println!(
        "{PENDING} sent in batches of 16, one after another: {:.0}/s",
        PENDING as f64 / begun.elapsed().as_secs_f64()
    );
    latency(&queues, PENDING).await;
    let all = queues.clone();
    let sends = rate(move || {
        let queues = all.clone();
        async move {
            queues.send("q", "x".repeat(200)).await.unwrap();
        }
    });
    println!("sends by {CALLERS} callers: {:.0}/s", sends.await);
    let all = queues.clone();
    let receives = rate(move || {
        let queues = all.clone();
        async move {
            let got = queues.receive("q", 1, Some(0)).await.unwrap();
            assert_eq!(queues.delete("q", &[got[0].handle.clone()]).await.unwrap(), [true]);
        }
    });
    println!("receive and delete by {CALLERS} callers: {:.0} pairs/s", receives.await);
    let begun = Instant::now();
    let counts = queues.queue("q").await.unwrap().counts;
    println!("attributes: {:.1} ms ({} active)", begun.elapsed().as_secs_f64() * 1000.0, counts.active);
    queues.close().await.unwrap();
    let begun = Instant::now();
    let queues = Queues::open(&dir.path().join("q.db"), QueueLimits::default(), Arc::new(SystemClock)).await.unwrap();
    println!("opened again: {:.1} ms", begun.elapsed().as_secs_f64() * 1000.0);
    let begun = Instant::now();
    queues.clear_queue("q").await.unwrap();
    println!("cleared: {:.1} ms", begun.elapsed().as_secs_f64() * 1000.0);
    let begun = Instant::now();
    while queues.sweep().await.unwrap() {}
    println!("and swept: {:.1} ms", begun.elapsed().as_secs_f64() * 1000.0);
}
