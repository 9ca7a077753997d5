//! Scheduling over a fake backend: what an invocation gets when instances are idle, busy, dying, refused or in short supply.

use bytes::Bytes;
use mayfly_model::*;
use mayfly_node::{Invocation, Node, NodeOptions, RecordSink};
use mayfly_sandbox::fake::FakeBackend;
use mayfly_store::{BlobStore, CodeCache, MemoryBlobs};
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[derive(Default)]
struct Records(Mutex<Vec<InvocationRecord>>);

impl RecordSink for Records {
    fn record(&self, record: InvocationRecord) {
        self.0.lock().unwrap().push(record);
    }
}

struct World {
    node: Node,
    backend: FakeBackend,
    records: Arc<Records>,
    code: CodeRef,
    _dir: tempfile::TempDir,
}

static NEXT: AtomicU64 = AtomicU64::new(1);

async fn world(change: impl FnOnce(&mut NodeOptions)) -> World {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Arc::new(MemoryBlobs::default());
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("f.py", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(b"code").unwrap();
    let bytes = Bytes::from(zip.finish().unwrap().into_inner());
    let zip_bytes = bytes.len() as u64;
    let digest = blobs.put(bytes).await.unwrap();
    let code = CodeRef { digest, zip_bytes, unpacked_bytes: 4 };
    let cache = Arc::new(CodeCache::open(dir.path(), blobs).unwrap());
    let backend = FakeBackend::default();
    let records = Arc::new(Records::default());
    let mut options =
        NodeOptions { precreate: Default::default(), waiting: Duration::from_millis(200), ..NodeOptions::default() };
    change(&mut options);
    let sink: Arc<dyn RecordSink> = Arc::clone(&records) as _;
    let node = Node::new(Arc::new(backend.clone()), cache, sink, options);
    World { node, backend, records, code, _dir: dir }
}

impl World {
    fn spec(&self, handler: &str) -> Arc<VersionSpec> {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        self.spec_of(&format!("lam-{id}"), 1, handler)
    }

    fn spec_of(&self, function_id: &str, revision: u64, handler: &str) -> Arc<VersionSpec> {
        Arc::new(VersionSpec {
            key: VersionKey { function_id: function_id.into(), version: "$LATEST".into(), revision },
            namespace: NamespaceName::default_namespace(),
            function: FunctionName::parse("hello").unwrap(),
            config: Arc::new(VersionConfig {
                runtime_name: "Python3.9".into(),
                runtime: RuntimeId::Python,
                handler: handler.into(),
                description: String::new(),
                memory_mb: 128,
                timeout_s: 1,
                init_timeout_s: 5,
                environment: vec![],
                code: self.code,
                layers: vec![],
                public_net: true,
                fork: ForkMode::Auto,
                service: None,
                async_run: false,
                mod_time_ms: 0,
                revision,
                source: None,
                shown_only: Default::default(),
            }),
        })
    }

    async fn call(&self, spec: &Arc<VersionSpec>, event: &str) -> InvokeOutcome {
        let pool = self.node.pool(spec, false);
        self.node.invoke(&pool, invocation(event)).await
    }
}

fn invocation(event: &str) -> Invocation {
    let id = u128::from(NEXT.fetch_add(1, Ordering::Relaxed));
    Invocation {
        request_id: RequestId::from_random(id.to_be_bytes()),
        event: Bytes::copy_from_slice(event.as_bytes()),
        want_log: true,
        log_failure: false,
        origin: None,
        retry: 0,
        event_mark: None,
        abort: None,
        qualifier: "$LATEST".into(),
        lineage: mayfly_model::Lineage::default(),
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn one_instance_serves_call_after_call() {
    let w = world(|_| {}).await;
    let spec = w.spec("f.echo");
    let first = w.call(&spec, "{\"a\":1}").await;
    assert_eq!((first.status, first.body.as_slice()), (Status::OK, b"{\"a\":1}".as_slice()));
    assert_eq!(first.cold_start.unwrap().reason, ColdStartReason::First);
    assert!(first.log.unwrap().contains("Init Report"));
    for _ in 0..5 {
        let next = w.call(&spec, "2").await;
        assert!(next.cold_start.is_none());
    }
    assert_eq!((w.backend.prepared(), w.backend.forked(), w.backend.initialised()), (1, 1, 1));
    assert_eq!(w.records.0.lock().unwrap().len(), 6);
}

#[tokio::test]
async fn demand_above_the_instances_starts_more_at_once_and_initialises_once() {
    let w = world(|_| {}).await;
    let spec = w.spec("f.sleep");
    let pool = w.node.pool(&spec, false);
    let calls = (0..20).map(|_| {
        let (node, pool) = (w.node.clone(), Arc::clone(&pool));
        tokio::spawn(async move { node.invoke(&pool, invocation("100")).await })
    });
    let begun = Instant::now();
    let mut reasons = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        let outcome = call.await.unwrap();
        assert_eq!(outcome.status, Status::OK);
        reasons.extend(outcome.cold_start.map(|c| c.reason));
    }
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    assert_eq!(reasons.iter().filter(|r| **r == ColdStartReason::First).count(), 1);
    assert!(reasons.iter().all(|r| matches!(r, ColdStartReason::First | ColdStartReason::ScaleOut)));
    assert_eq!(w.backend.initialised(), 1, "the function's own code ran once");
}

#[tokio::test]
async fn failures_have_their_status_and_doubtful_instances_are_discarded() {
    let w = world(|_| {}).await;
    for (handler, status, instance_ends) in
        [("f.throw", 430, false), ("f.exit", 439, true), ("f.hang", 433, true), ("f.initfail", 443, true)]
    {
        let spec = w.spec(handler);
        let pool = w.node.pool(&spec, false);
        let outcome = w.call(&spec, "1").await;
        assert_eq!(outcome.status, Status(status), "{handler}");
        let error: serde_json::Value = serde_json::from_slice(&outcome.body).unwrap();
        assert_eq!(error["statusCode"], status);
        assert_eq!(error["errorCode"], -1);
        assert_eq!(error["requestId"], outcome.request_id.to_string());
        assert_eq!(pool.is_empty(), instance_ends, "{handler}");
    }
}

#[tokio::test]
async fn a_failed_initialisation_is_told_to_all_who_waited_for_it() {
    let w = world(|_| {}).await;
    let spec = w.spec("f.initfail");
    let pool = w.node.pool(&spec, false);
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let (node, pool) = (w.node.clone(), Arc::clone(&pool));
            tokio::spawn(async move { node.invoke(&pool, invocation("1")).await.status })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), Status::USER_CODE_ERROR);
    }
    assert!(w.backend.initialised() < 10, "it was not run for each of them");
    let before = w.backend.initialised();
    assert_eq!(w.call(&spec, "1").await.status, Status::USER_CODE_ERROR);
    assert_eq!(w.backend.initialised(), before + 1, "a later call tries again");
}

#[tokio::test]
async fn a_reserved_quota_is_kept_and_told() {
    let w = world(|_| {}).await;
    let spec = w.spec("f.sleep");
    w.node.set_reserved(&spec.key.function_id, Some(128));
    let pool = w.node.pool(&spec, false);
    let (node, busy) = (w.node.clone(), Arc::clone(&pool));
    let first = tokio::spawn(async move { node.invoke(&busy, invocation("300")).await });
    eventually("the first call runs", || w.node.stats().busy == 1).await;
    let second = w.node.invoke(&pool, invocation("0")).await;
    assert_eq!(second.status, Status::CONCURRENCY_EXCEEDED);
    let text = String::from_utf8(second.body).unwrap();
    assert!(text.contains("Function [hello] concurrency exceeded reserved quota 128 MB"), "{text}");
    assert_eq!(first.await.unwrap().status, Status::OK);
}

#[tokio::test]
async fn short_memory_evicts_the_idle_then_makes_wait_then_refuses() {
    let w = world(|o| o.memory_ceiling_mb = 256).await;
    let (a, b, c) = (w.spec("f.echo"), w.spec("f.sleep"), w.spec("f.sleep"));
    assert_eq!(w.call(&a, "1").await.status, Status::OK);
    let run = |spec: &Arc<VersionSpec>, ms: &str| {
        let (node, pool, ms) = (w.node.clone(), w.node.pool(spec, false), ms.to_owned());
        tokio::spawn(async move { node.invoke(&pool, invocation(&ms)).await.status })
    };
    let b1 = run(&b, "900");
    eventually("b runs", || w.node.stats().busy == 1).await;
    // a's idle instance gives way.
    let b2 = run(&b, "100");
    eventually("b runs twice", || w.node.stats().busy == 2).await;
    assert!(w.node.pool(&a, false).is_empty());
    // Now nothing is idle: c waits, and gets the memory of the first b that ends and is evicted.
    let begun = Instant::now();
    assert_eq!(run(&c, "0").await.unwrap(), Status::OK);
    assert!(begun.elapsed() < Duration::from_millis(800));
    assert_eq!(b2.await.unwrap(), Status::OK);
    // With everything busy for longer than the waiting time, the answer is 429.
    let c2 = run(&c, "900");
    eventually("both run", || w.node.stats().busy == 2).await;
    assert_eq!(run(&a, "1").await.unwrap(), Status::RESOURCE_LIMIT);
    assert_eq!((b1.await.unwrap(), c2.await.unwrap()), (Status::OK, Status::OK));
    let again = w.call(&a, "1").await;
    assert_eq!(again.cold_start.unwrap().reason, ColdStartReason::Evicted);
}

#[tokio::test]
async fn an_update_lets_running_calls_finish_on_the_old_code() {
    let w = world(|_| {}).await;
    let old = w.spec("f.sleep");
    let pool = w.node.pool(&old, false);
    let (node, busy) = (w.node.clone(), Arc::clone(&pool));
    let running = tokio::spawn(async move { node.invoke(&busy, invocation("300")).await });
    eventually("it runs", || w.node.stats().busy == 1).await;
    w.node.retire(&old.key, false);
    let new = w.spec_of(&old.key.function_id, 2, "f.echo");
    let replaced = w.node.pool(&new, true);
    let outcome = w.node.invoke(&replaced, invocation("7")).await;
    assert_eq!(
        (outcome.body.as_slice(), outcome.cold_start.unwrap().reason),
        (b"7".as_slice(), ColdStartReason::CodeUpdated)
    );
    assert_eq!(running.await.unwrap().status, Status::OK);
    eventually("the old instance is gone", || pool.is_empty()).await;
}

#[tokio::test]
async fn force_ends_running_calls() {
    let w = world(|_| {}).await;
    let spec = w.spec("f.hang");
    let pool = w.node.pool(&spec, false);
    let (node, busy) = (w.node.clone(), Arc::clone(&pool));
    let running = tokio::spawn(async move { node.invoke(&busy, invocation("1")).await });
    eventually("it runs", || w.node.stats().busy == 1).await;
    w.node.retire(&spec.key, true);
    assert_eq!(running.await.unwrap().status, Status::PROCESS_EXIT);
}

#[tokio::test]
async fn a_lost_caller_does_not_tear_the_work_in_two() {
    let w = world(|_| {}).await;
    let spec = w.spec("f.sleep");
    let pool = w.node.pool(&spec, false);
    let (node, busy) = (w.node.clone(), Arc::clone(&pool));
    let call = tokio::spawn(async move { node.invoke(&busy, invocation("200")).await });
    eventually("it runs", || w.node.stats().busy == 1).await;
    call.abort();
    assert!(call.await.is_err());
    eventually("the record comes all the same", || w.records.0.lock().unwrap().len() == 1).await;
    assert_eq!(w.records.0.lock().unwrap()[0].status, Status::OK);
    eventually("the instance is idle again", || w.node.stats().idle == 1).await;
    assert!(w.call(&spec, "0").await.cold_start.is_none());
}

#[tokio::test]
async fn idle_instances_go_after_their_time() {
    let w = world(|o| o.keep_alive = Duration::from_millis(50)).await;
    let spec = w.spec("f.echo");
    w.call(&spec, "1").await;
    w.node.tend();
    assert_eq!(w.node.stats().idle, 1, "not before its time");
    eventually("it goes", || {
        w.node.tend();
        w.node.stats().idle == 0
    })
    .await;
    let again = w.call(&spec, "1").await;
    assert_eq!(again.cold_start.unwrap().reason, ColdStartReason::Expired);
}

#[tokio::test]
async fn what_is_printed_comes_into_the_log_of_its_invocation() {
    let w = world(|_| {}).await;
    let spec = w.spec("f.print");
    for text in ["one", "two"] {
        let outcome = w.call(&spec, text).await;
        let log = outcome.log.unwrap();
        assert!(log.contains(&format!("\n{text}\n")), "{log}");
    }
    assert_eq!(w.records.0.lock().unwrap()[1].output, "two\n");
}

#[tokio::test]
async fn a_machine_that_refuses_gives_500_and_recovers() {
    let w = world(|_| {}).await;
    let spec = w.spec("f.echo");
    w.backend.refuse(true);
    let outcome = w.call(&spec, "1").await;
    assert_eq!(outcome.status, Status::INTERNAL);
    assert!(!String::from_utf8_lossy(&outcome.body).contains("told to refuse"), "inner errors stay inside");
    w.backend.refuse(false);
    assert_eq!(w.call(&spec, "1").await.status, Status::OK);
}

#[tokio::test]
async fn stop_leaves_nothing() {
    let w = world(|o| o.precreate = [(RuntimeId::Python, 3)].into()).await;
    let spec = w.spec("f.echo");
    w.call(&spec, "1").await;
    eventually("the stock is filled", || w.node.stats().precreated == 3).await;
    assert!(w.node.drain(Duration::from_secs(5)).await);
    w.node.stop().await;
    eventually("all sandboxes end", || w.backend.alive() == 0).await;
}

/// Calls of one function under way, each with its status.
fn flood(w: &World, spec: &Arc<VersionSpec>, count: usize, ms: &str) -> Vec<tokio::task::JoinHandle<Status>> {
    let call = |_| {
        let (node, pool, ms) = (w.node.clone(), w.node.pool(spec, false), ms.to_owned());
        tokio::spawn(async move { node.invoke(&pool, invocation(&ms)).await.status })
    };
    (0..count).map(call).collect()
}

#[tokio::test]
async fn a_burst_does_not_starve_the_first_call_of_another() {
    let w = world(|o| (o.memory_ceiling_mb, o.waiting) = (512, Duration::from_secs(30))).await;
    let (a, b) = (w.spec("f.sleep"), w.spec("f.echo"));
    let burst = flood(&w, &a, 40, "50");
    eventually("the burst fills the machine", || w.node.stats().busy == 4 && w.node.stats().waiting > 0).await;
    let before = w.records.0.lock().unwrap().len();
    assert_eq!(w.call(&b, "1").await.status, Status::OK);
    let between = w.records.0.lock().unwrap().len() - before - 1;
    // The first that ends gives way; the other three may end while the new instance starts, and again.
    assert!(between <= 12, "{between} calls of the burst ended before the one call of the other");
    for call in burst {
        assert_eq!(call.await.unwrap(), Status::OK, "the burst goes on");
    }
}

#[tokio::test]
async fn two_bursts_share_the_machine() {
    let w = world(|o| (o.memory_ceiling_mb, o.waiting) = (512, Duration::from_secs(30))).await;
    let (a, b) = (w.spec("f.sleep"), w.spec("f.sleep"));
    let first = flood(&w, &a, 200, "30");
    eventually("the first has it all", || w.node.stats().busy == 4).await;
    let second = flood(&w, &b, 100, "30");
    let (pool_a, pool_b) = (w.node.pool(&a, false), w.node.pool(&b, false));
    eventually("each has half", || w.node.busy(&pool_a) <= 2 && w.node.busy(&pool_b) >= 2).await;
    for call in first.into_iter().chain(second) {
        assert_eq!(call.await.unwrap(), Status::OK);
    }
}

#[tokio::test]
async fn a_function_has_no_more_instances_than_its_maximum_and_no_fewer_than_its_minimum() {
    let w = world(|o| (o.waiting, o.keep_alive) = (Duration::from_secs(30), Duration::from_millis(1))).await;
    let spec = w.spec("f.sleep");
    let pool = w.node.pool(&spec, false);
    w.node.set_maximum(&spec.key.function_id, Some(2));
    let calls = flood(&w, &spec, 10, "20");
    for call in calls {
        assert_eq!(call.await.unwrap(), Status::OK);
        let stats = w.node.stats();
        assert!(stats.busy + stats.idle + stats.starting <= 2, "{stats:?}");
    }
    // Another version of the same function takes the place of an idle instance.
    let mut other = (*w.spec_of(&spec.key.function_id, 1, "f.echo")).clone();
    other.key.version = "1".into();
    assert_eq!(w.call(&Arc::new(other.clone()), "1").await.status, Status::OK);
    w.node.retire(&other.key, false);
    w.node.set_maximum(&spec.key.function_id, None);
    w.node.set_minimum(&pool, 3);
    eventually("three are ready", || w.node.readiness(&pool).0 == 3).await;
    for _ in 0..5 {
        w.node.tend();
    }
    assert_eq!(w.node.readiness(&pool).0, 3, "whatever the keep-alive");
    w.node.set_minimum(&pool, 0);
    eventually("they go", || {
        w.node.tend();
        pool.is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_namespace_keeps_to_its_ceiling_and_leaves_the_rest_to_others() {
    let w = world(|o| {
        (o.memory_ceiling_mb, o.namespace_ceiling_mb) = (1024, Some(256));
        o.waiting = Duration::from_secs(30);
    })
    .await;
    let a = w.spec("f.sleep");
    let burst = flood(&w, &a, 4, "100");
    eventually("two run, two wait", || w.node.stats().busy == 2 && w.node.stats().waiting == 2).await;
    let mut other = (*w.spec("f.echo")).clone();
    other.namespace = NamespaceName::parse("other").unwrap();
    assert_eq!(w.call(&Arc::new(other), "1").await.status, Status::OK);
    // Within the namespace too, a first call comes before the rest of a burst.
    let b = w.spec("f.echo");
    assert_eq!(w.call(&b, "1").await.status, Status::OK);
    for call in burst {
        assert_eq!(call.await.unwrap(), Status::OK);
    }
}
