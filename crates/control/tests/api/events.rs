//! Asynchronous invocation: acceptance, retries, fairness, restarts.

use crate::harness::{Platform, request_id, until, with};
use mayfly_control::{EventConcurrency, Options};
use mayfly_model::Status;
use mayfly_store::{EventLimits, EventLog};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

fn event(name: &str, fields: Value) -> Value {
    with(json!({"FunctionName": name, "InvocationType": "Event"}), fields)
}

/// Runs the dispatcher in the background; the token stops it.
fn run(p: &Platform) -> (CancellationToken, tokio::task::JoinHandle<()>) {
    let (stop, control) = (CancellationToken::new(), p.control.clone());
    let token = stop.clone();
    (stop, tokio::spawn(async move { control.run_events(token).await }))
}

#[tokio::test(start_paused = true)]
async fn an_event_is_accepted_when_durable_and_then_run() {
    let p = Platform::new().await;
    p.create("hello").await;
    let answer = p.ok("Invoke", event("hello", json!({"ClientContext": "{\"n\":1}", "Qualifier": "$DEFAULT"}))).await;
    let result = &answer["Result"];
    assert_eq!(result["FunctionRequestId"], answer["RequestId"]);
    assert_eq!((&result["RetMsg"], &result["Log"], &result["InvokeResult"]), (&json!(""), &json!(""), &json!(0)));
    assert_eq!(p.event_log.pending().await.unwrap(), 1);
    assert!(p.invoker.calls.lock().is_empty());
    let status = json!({"FunctionName": "hello", "FunctionRequestId": answer["RequestId"]});
    let waiting = p.ok("GetRequestStatus", status.clone()).await;
    assert_eq!((&waiting["Data"][0]["RetCode"], &waiting["TotalCount"]), (&json!(1), &json!(1)));

    let (stop, task) = run(&p);
    until(|| p.control.events().depth() == (0, 0)).await;
    let (_, request) = p.invoker.calls.lock().pop().unwrap();
    assert_eq!((request.event.as_ref(), request.retry), (b"{\"n\":1}".as_slice(), 0));
    assert_eq!((request.request_id, request.qualifier.as_str()), (request_id(&answer["RequestId"]), "$DEFAULT"));
    assert_eq!(p.event_log.pending().await.unwrap(), 0);
    assert_eq!(p.ok("GetRequestStatus", status).await["Data"][0]["RetCode"], json!(0));
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn run_errors_are_tried_three_times() {
    let p = Platform::new().await;
    p.create("hello").await;
    *p.invoker.script.lock() = Box::new(|_, _| (Status::USER_EXCEPTION, "{}".into(), Duration::ZERO));
    let (_stop, _task) = run(&p);
    let start = tokio::time::Instant::now();
    let answer = p.ok("Invoke", event("hello", json!({}))).await;
    until(|| p.invoker.calls.lock().len() == 1).await;
    let status = json!({"FunctionName": "hello", "FunctionRequestId": answer["RequestId"]});
    until(|| p.control.events().depth() == (1, 0)).await;
    let between = p.ok("GetRequestStatus", status.clone()).await;
    let codes: Vec<_> =
        between["Data"].as_array().unwrap().iter().map(|d| (d["RetCode"].clone(), d["RetryNum"].clone())).collect();
    assert_eq!(codes, [(json!(-1), json!(0)), (json!(1), json!(1))]);
    tokio::time::sleep(Duration::from_secs(181)).await;
    until(|| p.control.events().depth() == (0, 0)).await;
    let retries: Vec<u32> = p.invoker.calls.lock().iter().map(|(_, r)| r.retry).collect();
    assert_eq!(retries, [0, 1, 2]);
    let starts: Vec<u64> =
        p.logs.records.lock().iter().map(|r| (r.start_ms - crate::harness::EPOCH_MS) / 1000).collect();
    assert_eq!(starts, [0, 60, 180]);
    assert!(start.elapsed() < Duration::from_secs(200));
    let after = p.ok("GetRequestStatus", status).await;
    assert_eq!((&after["TotalCount"], &after["Data"][2]["RetCode"]), (&json!(3), &json!(-1)));
    assert_eq!(p.event_log.pending().await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_turned_away_event_waits_for_the_platform() {
    let p = Platform::new().await;
    p.create("hello").await;
    let tries = Arc::new(AtomicUsize::new(0));
    let counter = tries.clone();
    *p.invoker.script.lock() = Box::new(move |_, _| match counter.fetch_add(1, Ordering::SeqCst) {
        0..10 => (Status::CONCURRENCY_EXCEEDED, "{}".into(), Duration::ZERO),
        _ => (Status::OK, "1".into(), Duration::ZERO),
    });
    let (_stop, _task) = run(&p);
    p.ok("Invoke", event("hello", json!({}))).await;
    tokio::time::sleep(Duration::from_secs(1100)).await;
    until(|| p.control.events().depth() == (0, 0)).await;
    assert_eq!(tries.load(Ordering::SeqCst), 11);
    *p.invoker.script.lock() = Box::new(|_, _| (Status::INTERNAL, "{}".into(), Duration::ZERO));
    p.ok("Invoke", event("hello", json!({}))).await;
    tokio::time::sleep(Duration::from_secs(6 * 3600 + 10)).await;
    assert_eq!(p.control.events().depth(), (0, 0), "after six hours it is given up");
    assert!(p.invoker.calls.lock().len() > 50);
}

#[tokio::test(start_paused = true)]
async fn a_slow_function_holds_up_no_other() {
    let events = EventConcurrency { total: 8, per_function: 2 };
    let p = Platform::with(Options { events, ..Options::default() }, EventLimits::default(), false).await;
    p.create("slow").await;
    p.create("fast").await;
    *p.invoker.script.lock() = Box::new(|target, _| {
        let takes = if target.spec.function.as_str() == "slow" { Duration::from_secs(10) } else { Duration::ZERO };
        (Status::OK, "1".into(), takes)
    });
    for _ in 0..20 {
        p.ok("Invoke", event("slow", json!({}))).await;
    }
    for _ in 0..20 {
        p.ok("Invoke", event("fast", json!({}))).await;
    }
    let (stop, task) = run(&p);
    let fast = || p.logs.records.lock().iter().filter(|r| r.function == "fast").count();
    until(|| fast() == 20).await;
    assert!(p.logs.records.lock().iter().all(|r| r.function == "fast"), "no slow one has ended by then");
    assert_eq!(p.control.events().depth(), (20, 2));
    assert!(p.invoker.running_max.load(Ordering::SeqCst) <= 4, "two of each function");
    stop.cancel();
    task.await.unwrap();
    assert_eq!(p.control.events().depth(), (18, 0), "what ran has ended, nothing else was started");
}

#[tokio::test(start_paused = true)]
async fn the_total_is_bounded_too() {
    let events = EventConcurrency { total: 3, per_function: 2 };
    let p = Platform::with(Options { events, ..Options::default() }, EventLimits::default(), false).await;
    *p.invoker.script.lock() = Box::new(|_, _| (Status::OK, "1".into(), Duration::from_millis(50)));
    for i in 0..5 {
        p.create(&format!("fn-{i}")).await;
        for _ in 0..4 {
            p.ok("Invoke", event(&format!("fn-{i}"), json!({}))).await;
        }
    }
    let (_stop, _task) = run(&p);
    until(|| p.control.events().depth() == (0, 0)).await;
    assert_eq!(p.invoker.running_max.load(Ordering::SeqCst), 3);
    assert_eq!(p.logs.records.lock().len(), 20);
}

#[tokio::test(start_paused = true)]
async fn pending_events_survive_a_restart() {
    let p = Platform::new().await;
    p.create("hello").await;
    *p.invoker.script.lock() = Box::new(|_, request| match request.event.as_ref() {
        b"0" => (Status::USER_EXCEPTION, "{}".into(), Duration::ZERO),
        _ => (Status::OK, "1".into(), Duration::from_secs(3600)),
    });
    let (_stop, task) = run(&p);
    let mut ids = Vec::new();
    for i in 0..50 {
        let answer = p.ok("Invoke", event("hello", json!({"ClientContext": i.to_string()}))).await;
        ids.push(request_id(&answer["RequestId"]));
        // Events of one millisecond run in no particular order, and those that follow fill every seat for an hour.
        if i == 0 {
            until(|| p.control.events().pending(ids[0]).is_some_and(|e| e.retry == 1)).await;
        }
    }
    until(|| p.invoker.calls.lock().len() >= 32).await;
    task.abort();
    let q = p.restart().await;
    let (_stop, _task) = run(&q);
    tokio::time::sleep(Duration::from_secs(61)).await;
    until(|| q.control.events().depth() == (0, 0)).await;
    let mut seen: Vec<_> = q.invoker.calls.lock().iter().map(|(_, r)| (r.request_id, r.retry)).collect();
    seen.sort();
    let mut expected: Vec<_> = ids.iter().enumerate().map(|(i, id)| (*id, u32::from(i == 0))).collect();
    expected.sort();
    assert_eq!(seen, expected, "each runs again, and the failed one goes on counting");
    assert_eq!(q.event_log.pending().await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn events_of_a_deleted_function_end_with_a_record() {
    let p = Platform::new().await;
    p.create("hello").await;
    let answer = p.ok("Invoke", event("hello", json!({}))).await;
    p.ok("DeleteFunction", json!({"FunctionName": "hello"})).await;
    let (_stop, _task) = run(&p);
    until(|| p.control.events().depth() == (0, 0)).await;
    assert!(p.invoker.calls.lock().is_empty());
    let record = p.logs.records.lock().pop().unwrap();
    assert_eq!((record.request_id, record.status), (request_id(&answer["RequestId"]), Status::FUNCTION_NOT_FOUND));
    assert!(record.ret_msg.contains("\"statusCode\":435"));
}

#[tokio::test(start_paused = true)]
async fn a_full_log_refuses_at_once_and_a_panic_is_tried_again() {
    let limits = EventLimits { count_max: 2, ..EventLimits::default() };
    let p = Platform::with(Options::default(), limits, false).await;
    p.create("hello").await;
    p.ok("Invoke", event("hello", json!({}))).await;
    p.ok("Invoke", event("hello", json!({}))).await;
    assert_eq!(p.code("Invoke", event("hello", json!({}))).await, "RequestLimitExceeded");
    let mut panics = 1;
    *p.invoker.script.lock() = Box::new(move |_, _| {
        panics -= 1;
        assert_ne!(panics, 0, "a panic that belongs to this test");
        (Status::OK, "1".into(), Duration::ZERO)
    });
    let (_stop, _task) = run(&p);
    tokio::time::sleep(Duration::from_secs(5)).await;
    until(|| p.control.events().depth() == (0, 0)).await;
    assert_eq!(p.invoker.calls.lock().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn payloads_beyond_the_cache_come_back_from_the_log() {
    let p = Platform::new().await;
    p.create("hello").await;
    let text = format!("\"{}\"", "x".repeat(128 * 1024 - 2));
    for _ in 0..300 {
        p.ok("Invoke", event("hello", json!({"ClientContext": text}))).await;
    }
    let (_stop, _task) = run(&p);
    until(|| p.control.events().depth() == (0, 0)).await;
    assert_eq!(p.invoker.calls.lock().len(), 300);
    assert!(p.invoker.calls.lock().iter().all(|(_, r)| r.event == text.as_bytes()));
}

#[tokio::test(start_paused = true)]
async fn the_owner_says_how_often_an_event_is_tried() {
    let p = Platform::new().await;
    p.create("hello").await;
    let get = json!({"FunctionName": "hello"});
    let put = |retries: i64, ttl: i64| json!({"FunctionName": "hello", "AsyncTriggerConfig": {"RetryConfig": [{"RetryNum": retries}], "MsgTTL": ttl}});
    let shown = p.ok("GetFunctionEventInvokeConfig", get.clone()).await;
    assert_eq!(shown["AsyncTriggerConfig"], json!({"RetryConfig": [{"RetryNum": 2}], "MsgTTL": 21600}));
    for (retries, ttl, code) in [
        (3, 600, "LimitExceeded.RetryNum"),
        (-1, 600, "LimitExceeded.RetryNum"),
        (1, 59, "LimitExceeded.MsgTTL"),
        (1, 21_601, "LimitExceeded.MsgTTL"),
    ] {
        assert_eq!(p.code("UpdateFunctionEventInvokeConfig", put(retries, ttl)).await, code);
    }
    let none = json!({"FunctionName": "hello", "AsyncTriggerConfig": {"RetryConfig": [], "MsgTTL": 600}});
    let code = p.code("UpdateFunctionEventInvokeConfig", none).await;
    assert_eq!(code, "InvalidParameterValue.AsyncTriggerConfig");
    let other = with(get.clone(), json!({"Qualifier": "9"}));
    assert_eq!(p.code("GetFunctionEventInvokeConfig", other).await, "ResourceNotFound.FunctionVersion");

    // It holds for an event that has failed already.
    *p.invoker.script.lock() = Box::new(|_, _| (Status::USER_EXCEPTION, "{}".into(), Duration::ZERO));
    let (_stop, _task) = run(&p);
    p.ok("Invoke", event("hello", json!({}))).await;
    until(|| p.invoker.calls.lock().len() == 1).await;
    until(|| p.control.events().depth() == (1, 0)).await;
    p.ok("UpdateFunctionEventInvokeConfig", put(1, 600)).await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    until(|| p.control.events().depth() == (0, 0)).await;
    assert_eq!(p.invoker.calls.lock().len(), 2, "one retry, as the new policy says");

    let p = p.restart().await;
    let shown = p.ok("GetFunctionEventInvokeConfig", get).await;
    assert_eq!(shown["AsyncTriggerConfig"], json!({"RetryConfig": [{"RetryNum": 1}], "MsgTTL": 600}));
}
