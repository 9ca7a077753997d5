//! The contract of `FailureLog`.

use async_trait::async_trait;
use mayfly_model::RequestId;
use mayfly_store::failures::*;
use mayfly_store::{FailureLimits, FailureLog, MemoryFailures, SqliteFailures, StoreError};
use std::sync::Arc;
use tempfile::TempDir;

#[async_trait]
trait Fixture: Send + Sync {
    /// Opens the store; again: what was in it is there.
    async fn open(&self) -> Arc<dyn FailureLog>;
}

struct Sqlite(TempDir);

#[async_trait]
impl Fixture for Sqlite {
    async fn open(&self) -> Arc<dyn FailureLog> {
        Arc::new(SqliteFailures::open(&self.0.path().join("failures.db"), LIMITS).await.unwrap())
    }
}

#[async_trait]
impl Fixture for MemoryFailures {
    async fn open(&self) -> Arc<dyn FailureLog> {
        Arc::new(self.clone())
    }
}

/// Small enough to reach in a test.
const LIMITS: FailureLimits =
    FailureLimits { bytes_max: 100_000, messages_max: 3, message_bytes_max: 10_000, jobs_max: 2 };

macro_rules! contract {
    ($($test:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test] async fn $test() { super::$test(&super::Sqlite(tempfile::tempdir().unwrap())).await })*
        }
        mod on_memory {
            $(#[tokio::test] async fn $test() { super::$test(&super::MemoryFailures::new(super::LIMITS)).await })*
        }
    };
}

contract!(
    a_failure_comes_back_whole,
    filters_and_pages,
    the_oldest_make_room,
    old_ones_are_forgotten,
    a_job_plans_each_failure_once_and_counts,
    what_is_under_way_or_resolved_is_passed_over,
    a_token_names_one_job_and_jobs_are_bounded,
    a_cancelled_job_gives_up_what_it_had_planned,
    a_resolved_replay_resolves_its_origins,
    messages_wait_and_are_settled,
    messages_are_bounded_and_nothing_is_half_done,
    too_large_is_refused,
);

fn id(n: u128) -> RequestId {
    RequestId(n)
}

fn failure(n: u128) -> Failure {
    Failure {
        head: FailureHead {
            id: id(n),
            namespace: "default".into(),
            function: "f".into(),
            qualifier: "$DEFAULT".into(),
            version: "1".into(),
            source: "event".into(),
            status: 430,
            error: format!("KeyError: number {n}"),
            accepted_ms: 1000 + n as u64,
            failed_ms: 2000 + n as u64,
            ..FailureHead::default()
        },
        expires_ms: 10_000 + n as u64,
        scene: format!("{{\"n\":{n}}}").into_bytes(),
        event: format!("[{n}]").into_bytes(),
    }
}

async fn fail(log: &Arc<dyn FailureLog>, failure: Failure) {
    log.conclude(Ending { failure: Some(failure), ..Ending::default() }).await.unwrap();
}

async fn end(log: &Arc<dyn FailureLog>, id: RequestId, ok: bool) {
    let replay = Some(ReplayEnd { id, ok, status: if ok { 200 } else { 430 }, ended_ms: 5000 });
    log.conclude(Ending { replay, ..Ending::default() }).await.unwrap();
}

async fn ids(log: &Arc<dyn FailureLog>, query: FailureQuery) -> Vec<u128> {
    log.list(&query, None, true, 1000).await.unwrap().heads.iter().map(|h| h.id.0).collect()
}

fn job(n: u128, query: FailureQuery) -> NewJob {
    NewJob { id: id(n), token: None, spec: b"spec".to_vec(), query, created_ms: 1 }
}

fn message(n: u128, kind: MessageKind, due_ms: u64) -> Message {
    let (target, body) = (b"to".to_vec(), format!("about {n}").into_bytes());
    Message { id: id(n), kind, target, body, created_ms: 1, due_ms, attempt: 0 }
}

async fn a_failure_comes_back_whole(fixture: &dyn Fixture) {
    let log = fixture.open().await;
    let mut kept = failure(7);
    kept.head.origin = Some(id(3));
    fail(&log, kept.clone()).await;
    drop(log);
    let log = fixture.open().await;
    kept.head.seq = 1;
    assert_eq!(log.get(id(7)).await.unwrap(), Some(kept.clone()));
    assert_eq!(log.get(id(8)).await.unwrap(), None);
    // Told again, it is there once, as it was told last.
    let again = Failure { event: b"other".to_vec(), ..failure(7) };
    fail(&log, again).await;
    assert_eq!(log.usage().await.unwrap().count, 1);
    assert_eq!(log.get(id(7)).await.unwrap().unwrap().event, b"other");
}

async fn filters_and_pages(fixture: &dyn Fixture) {
    let log = fixture.open().await;
    for n in 1..=9 {
        let mut f = failure(n);
        f.head.namespace = if n <= 3 { "a" } else { "b" }.into();
        f.head.function = format!("f{}", n % 2);
        f.head.version = format!("{}", n % 3);
        f.head.status = 430 + n as u16;
        f.head.source = if n == 9 { "timer" } else { "event" }.into();
        f.head.origin = (n == 8).then(|| id(1));
        fail(&log, f).await;
    }
    let all = FailureQuery::default();
    assert_eq!(ids(&log, all.clone()).await, (1..=9).collect::<Vec<_>>());
    let some = |text: &str| Some(text.to_owned());
    for (query, expected) in [
        (FailureQuery { namespace: some("a"), ..all.clone() }, vec![1, 2, 3]),
        (FailureQuery { function: some("f0"), namespace: some("b"), ..all.clone() }, vec![4, 6, 8]),
        (FailureQuery { version: some("0"), ..all.clone() }, vec![3, 6, 9]),
        (FailureQuery { source: some("timer"), ..all.clone() }, vec![9]),
        (FailureQuery { status: Some(435), ..all.clone() }, vec![5]),
        (FailureQuery { text: some("keyerror: NUMBER 4"), ..all.clone() }, vec![4]),
        (FailureQuery { text: some("%"), ..all.clone() }, vec![]),
        (FailureQuery { from_ms: Some(2003), to_ms: Some(2005), ..all.clone() }, vec![3, 4, 5]),
        (FailureQuery { ids: vec![id(2), id(9), id(77)], ..all.clone() }, vec![2, 9]),
        (FailureQuery { origins_only: true, from_ms: Some(2007), ..all.clone() }, vec![7, 9]),
        (FailureQuery { resolved: Some(true), ..all.clone() }, vec![]),
    ] {
        assert_eq!(ids(&log, query.clone()).await, expected, "{query:?}");
    }
    let page = log.list(&all, None, false, 4).await.unwrap();
    assert_eq!((page.total, page.heads.len(), page.heads[0].id), (9, 4, id(9)));
    let page = log.list(&all, Some(page.heads[3].seq), false, 4).await.unwrap();
    assert_eq!(page.heads.iter().map(|h| h.id.0).collect::<Vec<_>>(), [5, 4, 3, 2]);
    let page = log.list(&all, Some(page.heads[3].seq), false, 4).await.unwrap();
    assert_eq!((page.heads.len(), page.total), (1, 9));
    assert_eq!(log.delete(&FailureQuery { namespace: some("a"), ..all.clone() }).await.unwrap(), 3);
    assert_eq!(log.usage().await.unwrap().count, 6);
}

async fn the_oldest_make_room(fixture: &dyn Fixture) {
    let log = fixture.open().await;
    for n in 1..=5 {
        fail(&log, Failure { event: vec![b'x'; 30_000], ..failure(n) }).await;
    }
    assert_eq!(ids(&log, FailureQuery::default()).await, [3, 4, 5]);
    let usage = log.usage().await.unwrap();
    assert!(usage.evicted == 2 && usage.count == 3 && usage.bytes <= LIMITS.bytes_max, "{usage:?}");
    // One that is larger than everything stays alone.
    fail(&log, Failure { event: vec![b'x'; 200_000], ..failure(6) }).await;
    assert_eq!(ids(&log, FailureQuery::default()).await, [6]);
}

async fn old_ones_are_forgotten(fixture: &dyn Fixture) {
    let log = fixture.open().await;
    for n in 1..=5 {
        fail(&log, failure(n)).await;
    }
    assert_eq!(log.prune(10_003).await.unwrap(), 3);
    assert_eq!(ids(&log, FailureQuery::default()).await, [4, 5]);
    assert_eq!(log.prune(10_003).await.unwrap(), 0);
}

async fn a_job_plans_each_failure_once_and_counts(fixture: &dyn Fixture) {
    let log = fixture.open().await;
    for n in 1..=5 {
        fail(&log, failure(n)).await;
    }
    let made = log.add_job(job(100, FailureQuery::default())).await.unwrap();
    assert_eq!((made.total, made.stage), (5, JobStage::Sending));
    // What fails later is not its own.
    fail(&log, failure(6)).await;
    let first = log.plan(id(100), 50, 2).await.unwrap();
    assert_eq!(first.iter().map(|r| r.origin.0).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(first[0].id, replay_id(id(1), id(100)));
    log.accepted(&[first[0].id]).await.unwrap();
    drop(log);
    let log = fixture.open().await;
    assert_eq!(log.planned(id(100)).await.unwrap(), [first[1].clone()], "the other was accepted");
    log.accepted(&[first[1].id]).await.unwrap();
    let rest = log.plan(id(100), 60, 10).await.unwrap();
    assert_eq!(rest.iter().map(|r| r.origin.0).collect::<Vec<_>>(), [3, 4, 5]);
    assert!(log.plan(id(100), 70, 10).await.unwrap().is_empty());
    log.set_stage(id(100), JobStage::Sent).await.unwrap();
    for (replay, ok) in first.iter().chain(&rest).zip([true, false, true, true, true]) {
        end(&log, replay.id, ok).await;
        end(&log, replay.id, ok).await;
    }
    let job = log.job(id(100)).await.unwrap().unwrap();
    assert_eq!((job.sent, job.succeeded, job.failed, job.is_over()), (5, 4, 1, true));
    let linked = log.replays_of(id(2)).await.unwrap();
    assert_eq!((linked.len(), linked[0].state, linked[0].status), (1, ReplayState::Failed, 430));
    assert_eq!(log.get(id(1)).await.unwrap().unwrap().head.resolved_by, Some(first[0].id));
    assert_eq!(ids(&log, FailureQuery { resolved: Some(false), ..FailureQuery::default() }).await, [2, 6]);
}

async fn what_is_under_way_or_resolved_is_passed_over(fixture: &dyn Fixture) {
    let log = fixture.open().await;
    for n in 1..=3 {
        fail(&log, failure(n)).await;
    }
    let careful = FailureQuery { resolved: Some(false), idle_only: true, ..FailureQuery::default() };
    log.add_job(job(100, careful.clone())).await.unwrap();
    let sent = log.plan(id(100), 1, 2).await.unwrap();
    assert_eq!(log.add_job(job(101, careful.clone())).await.unwrap().total, 1);
    end(&log, sent[0].id, true).await;
    end(&log, sent[1].id, false).await;
    assert_eq!(ids(&log, careful).await, [2, 3]);
}

async fn a_token_names_one_job_and_jobs_are_bounded(fixture: &dyn Fixture) {
    let log = fixture.open().await;
    let with_token = |n| NewJob { token: Some("mine".into()), ..job(n, FailureQuery::default()) };
    let first = log.add_job(with_token(100)).await.unwrap();
    assert_eq!(log.add_job(with_token(101)).await.unwrap(), first);
    log.add_job(job(102, FailureQuery::default())).await.unwrap();
    let refused = log.add_job(job(103, FailureQuery::default())).await;
    assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
    log.set_stage(id(100), JobStage::Sent).await.unwrap();
    log.add_job(job(103, FailureQuery::default())).await.unwrap();
    let all: Vec<_> = log.jobs().await.unwrap().iter().map(|j| j.id.0).collect();
    assert_eq!(all, [103, 102, 100]);
}

async fn a_cancelled_job_gives_up_what_it_had_planned(fixture: &dyn Fixture) {
    let log = fixture.open().await;
    for n in 1..=4 {
        fail(&log, failure(n)).await;
    }
    log.add_job(job(100, FailureQuery::default())).await.unwrap();
    let planned = log.plan(id(100), 1, 3).await.unwrap();
    log.accepted(&[planned[0].id]).await.unwrap();
    log.set_stage(id(100), JobStage::Cancelled).await.unwrap();
    log.drop_planned(id(100)).await.unwrap();
    assert!(log.plan(id(100), 1, 3).await.unwrap().is_empty());
    let job = log.job(id(100)).await.unwrap().unwrap();
    assert_eq!((job.sent, job.stage, job.is_over()), (1, JobStage::Cancelled, false));
    end(&log, planned[0].id, true).await;
    // Its event had been accepted although nobody had said so.
    end(&log, planned[1].id, true).await;
    let job = log.job(id(100)).await.unwrap().unwrap();
    assert_eq!((job.sent, job.succeeded, job.is_over()), (2, 2, true));
    log.set_stage(id(100), JobStage::Sent).await.unwrap();
    assert_eq!(log.job(id(100)).await.unwrap().unwrap().stage, JobStage::Cancelled);
}

async fn a_resolved_replay_resolves_its_origins(fixture: &dyn Fixture) {
    let log = fixture.open().await;
    fail(&log, failure(1)).await;
    let mut second = failure(2);
    second.head.origin = Some(id(1));
    fail(&log, second).await;
    log.add_job(job(100, FailureQuery { ids: vec![id(2)], ..FailureQuery::default() })).await.unwrap();
    let planned = log.plan(id(100), 1, 3).await.unwrap();
    end(&log, planned[0].id, true).await;
    for n in [1, 2] {
        assert_eq!(log.get(id(n)).await.unwrap().unwrap().head.resolved_by, Some(planned[0].id));
    }
}

async fn messages_wait_and_are_settled(fixture: &dyn Fixture) {
    let log = fixture.open().await;
    let messages = vec![message(1, MessageKind::DeadLetter, 20), message(1, MessageKind::OnFailure, 10)];
    log.conclude(Ending { failure: Some(failure(1)), messages, ..Ending::default() }).await.unwrap();
    drop(log);
    let log = fixture.open().await;
    assert!(log.due(9, 10).await.unwrap().is_empty());
    let due = log.due(20, 10).await.unwrap();
    assert_eq!(due, [message(1, MessageKind::OnFailure, 10), message(1, MessageKind::DeadLetter, 20)]);
    log.postpone(id(1), MessageKind::OnFailure, 30, 1).await.unwrap();
    log.settle(id(1), MessageKind::DeadLetter, Some("not sent".into())).await.unwrap();
    let due = log.due(30, 10).await.unwrap();
    assert_eq!((due.len(), due[0].due_ms, due[0].attempt), (1, 30, 1));
    log.settle(id(1), MessageKind::OnFailure, Some("nor this".into())).await.unwrap();
    assert_eq!(log.get(id(1)).await.unwrap().unwrap().head.note, "not sent\nnor this");
    assert_eq!(log.usage().await.unwrap().messages, 0);
}

async fn messages_are_bounded_and_nothing_is_half_done(fixture: &dyn Fixture) {
    let log = fixture.open().await;
    for n in 1..=3 {
        let messages = vec![message(n, MessageKind::OnSuccess, 1)];
        log.conclude(Ending { messages, ..Ending::default() }).await.unwrap();
    }
    let one_more = |n| Ending {
        failure: Some(failure(n)),
        messages: vec![message(n, MessageKind::DeadLetter, 1)],
        ..Ending::default()
    };
    assert!(matches!(log.conclude(one_more(9)).await, Err(StoreError::Full(_))));
    assert_eq!(log.get(id(9)).await.unwrap(), None);
    log.settle(id(1), MessageKind::OnSuccess, None).await.unwrap();
    let mut large = one_more(9);
    large.messages[0].body = vec![0; 9_999];
    assert!(matches!(log.conclude(large).await, Err(StoreError::Full(_))));
    log.conclude(one_more(9)).await.unwrap();
    log.conclude(one_more(9)).await.unwrap();
    assert_eq!(log.usage().await.unwrap().messages, 3);
}

async fn too_large_is_refused(fixture: &dyn Fixture) {
    let log = fixture.open().await;
    let large = Failure { event: vec![0; FAILURE_EVENT_BYTES_MAX + 1], ..failure(1) };
    let refused = log.conclude(Ending { failure: Some(large), ..Ending::default() }).await;
    assert!(matches!(refused, Err(StoreError::Invalid { .. })));
    let mut large = message(1, MessageKind::OnSuccess, 1);
    large.body = vec![0; MESSAGE_BYTES_MAX + 1];
    let refused = log.conclude(Ending { messages: vec![large], ..Ending::default() }).await;
    assert!(matches!(refused, Err(StoreError::Invalid { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_that_come_together_are_all_kept() {
    let fixture = Sqlite(tempfile::tempdir().unwrap());
    let log = fixture.open().await;
    let tasks: Vec<_> = (1..=50)
        .map(|n| {
            let log = log.clone();
            tokio::spawn(async move { fail(&log, failure(n)).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(log.usage().await.unwrap().count, 50);
}
