//! How asynchronous events fare: lists, status, termination, and functions whose every call is one.

use crate::harness::{EPOCH_MS, Platform, create, request_id, until, with};
use mayfly_control::Options;
use mayfly_model::Status;
use mayfly_store::{EventLimits, EventLog};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

fn run(p: &Platform) -> CancellationToken {
    let (stop, control) = (CancellationToken::new(), p.control.clone());
    let token = stop.clone();
    tokio::spawn(async move { control.run_events(token).await });
    stop
}

async fn invoke(p: &Platform, function: &str, event: &str) -> Value {
    let call = json!({"FunctionName": function, "InvocationType": "Event", "ClientContext": event});
    p.ok("Invoke", call).await["RequestId"].clone()
}

async fn status(p: &Platform, id: &Value) -> (String, u64) {
    let answer = p.ok("GetAsyncEventStatus", json!({"InvokeRequestId": id})).await;
    assert_eq!(answer["Result"]["InvokeRequestId"], *id);
    (answer["Result"]["Status"].as_str().unwrap().into(), answer["Result"]["StatusCode"].as_u64().unwrap())
}

async fn list(p: &Platform, fields: Value) -> (u64, Vec<Value>) {
    let answer = p.ok("ListAsyncEvents", with(json!({"FunctionName": "hello"}), fields)).await;
    (answer["TotalCount"].as_u64().unwrap(), answer["EventList"].as_array().unwrap().clone())
}

fn of(events: &[Value], field: &str) -> Vec<String> {
    events.iter().map(|e| e[field].as_str().unwrap().to_owned()).collect()
}

/// An invoker whose events end as they say: `"fail"`, `"slow"`, anything else is a success.
fn scripted(p: &Platform) {
    *p.invoker.script.lock() = Box::new(|_, request| match request.event.as_ref() {
        b"\"fail\"" => (Status::USER_EXCEPTION, "{}".into(), Duration::ZERO),
        b"\"slow\"" => (Status::OK, "1".into(), Duration::from_secs(600)),
        _ => (Status::OK, "1".into(), Duration::from_secs(2)),
    });
}

#[tokio::test(start_paused = true)]
async fn events_are_listed_while_they_are_pending_and_after() {
    let p = Platform::new().await;
    p.create("hello").await;
    scripted(&p);
    let _stop = run(&p);
    let good = invoke(&p, "hello", "1").await;
    assert_eq!(status(&p, &good).await, ("RUNNING".into(), 0));
    let (_, events) = list(&p, json!({})).await;
    assert_eq!((&events[0]["Status"], &events[0]["EndTime"]), (&json!("RUNNING"), &json!("")));
    assert_eq!((&events[0]["InvokeType"], &events[0]["Qualifier"]), (&json!("API"), &json!("$LATEST")));
    tokio::time::sleep(Duration::from_secs(10)).await;
    let bad = invoke(&p, "hello", "\"fail\"").await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    // Between its attempts it is not done.
    assert_eq!(status(&p, &bad).await, ("RUNNING".into(), 0));
    tokio::time::sleep(Duration::from_secs(300)).await;
    let slow = invoke(&p, "hello", "\"slow\"").await;
    until(|| p.control.events().depth() == (1, 1)).await;
    assert_eq!(status(&p, &good).await, ("FINISHED".into(), 200));
    assert_eq!(status(&p, &bad).await, ("FAILED".into(), 430));

    let (total, events) = list(&p, json!({})).await;
    assert_eq!((total, of(&events, "Status")), (3, vec!["RUNNING".into(), "FAILED".into(), "FINISHED".into()]));
    let ids = [&slow, &bad, &good].map(|id| id.as_str().unwrap().to_owned());
    assert_eq!(of(&events, "InvokeRequestId"), ids);
    assert_eq!(events[1]["StartTime"].as_str().unwrap().len(), "2026-09-21 00:00:00.000000".len());
    assert!(events[1]["EndTime"].as_str().unwrap() > events[1]["StartTime"].as_str().unwrap());
    let one = |fields| async { of(&list(&p, fields).await.1, "Status").join(" ") };
    assert_eq!(one(json!({"Order": "ASC"})).await, "FINISHED FAILED RUNNING");
    assert_eq!(one(json!({"Orderby": "EndTime", "Order": "asc"})).await, "FINISHED FAILED RUNNING");
    assert_eq!(one(json!({"Orderby": "EndTime"})).await, "FAILED FINISHED RUNNING");
    assert_eq!(one(json!({"Status": ["failed", "RUNNING"]})).await, "RUNNING FAILED");
    assert_eq!(one(json!({"InvokeType": ["COS"]})).await, "");
    assert_eq!(one(json!({"InvokeType": ["COS", "api"]})).await, "RUNNING FAILED FINISHED");
    assert_eq!(one(json!({"InvokeRequestId": bad})).await, "FAILED");
    assert_eq!(one(json!({"InvokeRequestId": "nonsense"})).await, "");
    assert_eq!(one(json!({"Qualifier": "$LATEST"})).await, "RUNNING FAILED FINISHED");
    assert_eq!(list(&p, json!({"Offset": 1, "Limit": 1})).await.0, 3);
    assert_eq!(one(json!({"Offset": 1, "Limit": 1})).await, "FAILED");
    let start = events[1]["StartTime"].clone();
    let after = json!({"Start": start, "End": "2030-01-01 00:00:00"});
    assert_eq!(one(json!({"StartTimeInterval": after})).await, "RUNNING FAILED");
    let before = json!({"Start": "2020-01-01 00:00:00", "End": start});
    assert_eq!(one(json!({"StartTimeInterval": before})).await, "FINISHED");
    assert_eq!(one(json!({"EndTimeInterval": before})).await, "FINISHED");
    // A synchronous call is no event.
    p.ok("Invoke", json!({"FunctionName": "hello"})).await;
    assert_eq!(list(&p, json!({})).await.0, 3);
    let counts = p.control.events().ended_counts();
    assert_eq!((counts.finished, counts.failed, counts.aborted), (1, 1, 0));
    let depths = p.control.events().depths();
    assert_eq!((depths[0].pending, depths[0].running, depths[0].function.as_str()), (1, 1, "hello"));
    assert_eq!(depths[0].oldest_ms, EPOCH_MS + 320_000);
}

#[tokio::test(start_paused = true)]
async fn bad_questions_are_told_apart() {
    let p = Platform::new().await;
    p.create("hello").await;
    for (fields, code) in [
        (json!({"FunctionName": "nobody"}), "ResourceNotFound.Function"),
        (json!({"Namespace": "nowhere"}), "ResourceNotFound.Namespace"),
        (json!({"Qualifier": "7"}), "ResourceNotFound.Version"),
        (json!({"Status": ["LOST"]}), "InvalidParameterValue.Status"),
        (json!({"Order": "up"}), "InvalidParameterValue.Order"),
        (json!({"Orderby": "Name"}), "InvalidParameterValue.OrderBy"),
        (json!({"Limit": 101}), "InvalidParameterValue.Limit"),
        (json!({"Limit": -1}), "InvalidParameterValue.Limit"),
        (json!({"Offset": -1}), "InvalidParameterValue.Offset"),
        (json!({"StartTimeInterval": {"Start": "x", "End": "y"}}), "InvalidParameterValue.DateTime"),
        (
            json!({"EndTimeInterval": {"Start": "2026-01-02 00:00:00", "End": "2026-01-01 00:00:00"}}),
            "InvalidParameterValue.StartTimeOrEndTime",
        ),
    ] {
        let told = p.code("ListAsyncEvents", with(json!({"FunctionName": "hello"}), fields.clone())).await;
        assert_eq!(told, code, "{fields}");
    }
    let unknown = "00000000-0000-4000-8000-000000000001";
    for id in ["nonsense", unknown] {
        let ask = json!({"InvokeRequestId": id});
        assert_eq!(p.code("GetAsyncEventStatus", ask.clone()).await, "ResourceNotFound.AsyncEvent");
        let end = with(ask, json!({"FunctionName": "hello"}));
        assert_eq!(p.code("TerminateAsyncEvent", end).await, "ResourceNotFound.AsyncEvent");
    }
    let end = json!({"InvokeRequestId": unknown, "FunctionName": "nobody"});
    assert_eq!(p.code("TerminateAsyncEvent", end).await, "ResourceNotFound.Function");
    // The record of a synchronous call is no event either.
    let answer = p.ok("Invoke", json!({"FunctionName": "hello"})).await;
    let ask = json!({"InvokeRequestId": answer["RequestId"]});
    assert_eq!(p.code("GetAsyncEventStatus", ask).await, "ResourceNotFound.AsyncEvent");
}

#[tokio::test(start_paused = true)]
async fn a_waiting_event_that_is_terminated_never_runs() {
    let p = Platform::new().await;
    p.create("hello").await;
    p.create("other").await;
    let id = invoke(&p, "hello", "1").await;
    let kept = invoke(&p, "hello", "2").await;
    let wrong = json!({"FunctionName": "other", "InvokeRequestId": id});
    assert_eq!(p.code("TerminateAsyncEvent", wrong).await, "ResourceNotFound.AsyncEvent");
    let end = json!({"FunctionName": "hello", "InvokeRequestId": id});
    p.ok("TerminateAsyncEvent", end.clone()).await;
    assert_eq!(p.event_log.pending().await.unwrap(), 1, "the log has forgotten it");
    assert_eq!(status(&p, &id).await, ("ABORTED".into(), 499));
    assert_eq!(p.code("TerminateAsyncEvent", end).await, "FailedOperation.AsyncEventStatus");
    // As after a crash: what was acknowledged holds.
    let q = p.restart().await;
    let _stop = run(&q);
    until(|| q.invoker.calls.lock().len() == 1).await;
    until(|| q.control.events().depth() == (0, 0)).await;
    assert_eq!(q.invoker.calls.lock()[0].1.request_id, request_id(&kept));
}

#[tokio::test(start_paused = true)]
async fn a_running_event_that_is_terminated_ends_and_is_not_tried_again() {
    let p = Platform::new().await;
    p.create("hello").await;
    scripted(&p);
    let _stop = run(&p);
    for graceful in [false, true] {
        let id = invoke(&p, "hello", "\"slow\"").await;
        until(|| p.control.events().is_running(request_id(&id))).await;
        until(|| p.invoker.running.load(Ordering::SeqCst) == 1).await;
        let begun = tokio::time::Instant::now();
        let end = json!({"FunctionName": "hello", "InvokeRequestId": id, "GraceShutdown": graceful});
        p.ok("TerminateAsyncEvent", end.clone()).await;
        assert_eq!(begun.elapsed() >= Duration::from_secs(10), graceful);
        assert_eq!(p.event_log.pending().await.unwrap(), 0);
        assert_eq!(status(&p, &id).await, ("ABORTED".into(), 499));
        assert_eq!(p.code("TerminateAsyncEvent", end).await, "FailedOperation.AsyncEventStatus");
        let asked = p.ok("GetRequestStatus", json!({"FunctionName": "hello", "FunctionRequestId": id})).await;
        assert_eq!((&asked["TotalCount"], &asked["Data"][0]["RetCode"]), (&json!(1), &json!(-1)));
    }
    assert_eq!(p.invoker.calls.lock().len(), 2);
    assert_eq!(p.control.events().ended_counts().aborted, 2);
    assert_eq!(p.ok("ListFailures", json!({})).await["Failures"], json!([]), "what was terminated is no failure");
}

#[tokio::test(start_paused = true)]
async fn between_two_attempts_it_can_be_terminated_too() {
    let p = Platform::new().await;
    p.create("hello").await;
    scripted(&p);
    let _stop = run(&p);
    let id = invoke(&p, "hello", "\"fail\"").await;
    until(|| p.invoker.calls.lock().len() == 1).await;
    until(|| p.control.events().depth() == (1, 0)).await;
    p.ok("TerminateAsyncEvent", json!({"FunctionName": "hello", "InvokeRequestId": id})).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(p.invoker.calls.lock().len(), 1);
    assert_eq!(status(&p, &id).await, ("ABORTED".into(), 499));
    assert_eq!(p.ok("ListFailures", json!({})).await["Failures"], json!([]), "what was terminated is no failure");
}

#[tokio::test(start_paused = true)]
async fn calls_of_an_asynchronous_function_are_answered_at_once_and_not_tried_again() {
    let p = Platform::new().await;
    let fields = json!({"AsyncRunEnable": "TRUE", "Timeout": 86_400});
    p.ok("CreateFunction", with(create("hello"), fields)).await;
    let shown = p.ok("GetFunction", json!({"FunctionName": "hello"})).await;
    assert_eq!((&shown["AsyncRunEnable"], &shown["Timeout"]), (&json!("TRUE"), &json!(86_400)));
    assert_eq!(p.ok("ListFunctions", json!({})).await["Functions"][0]["AsyncRunEnable"], "TRUE");
    let update = |timeout| json!({"FunctionName": "hello", "Timeout": timeout});
    p.ok("UpdateFunctionConfiguration", update(80_000)).await;
    assert_eq!(p.code("UpdateFunctionConfiguration", update(86_401)).await, "LimitExceeded.Timeout");
    p.create("plain").await;
    let plain = json!({"FunctionName": "plain", "Timeout": 1000});
    assert_eq!(p.code("UpdateFunctionConfiguration", plain).await, "LimitExceeded.Timeout");

    scripted(&p);
    let _stop = run(&p);
    for (action, field) in [("Invoke", "ClientContext"), ("InvokeFunction", "Event")] {
        let answer = p.ok(action, with(json!({"FunctionName": "hello"}), json!({field: "\"fail\""}))).await;
        assert_eq!((&answer["Result"]["RetMsg"], &answer["Result"]["InvokeResult"]), (&json!(""), &json!(0)));
        until(|| p.control.events().depth() == (0, 0)).await;
        assert_eq!(status(&p, &answer["RequestId"]).await, ("FAILED".into(), 430));
    }
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(p.invoker.calls.lock().len(), 2, "one attempt each");
    let large = format!("\"{}\"", "x".repeat(130 << 10));
    let call = json!({"FunctionName": "hello", "ClientContext": large});
    assert_eq!(p.code("Invoke", call).await, "InvalidParameter.RequestTooLarge");
}

#[tokio::test(start_paused = true)]
async fn larger_events_are_taken_where_the_options_say_so() {
    let options = Options { event_bytes_max: 1 << 20, ..Options::default() };
    let p = Platform::with(options, EventLimits::default(), false).await;
    p.create("hello").await;
    // Every byte of it needs another one before it when it is stored.
    let event = |bytes: usize| format!("[{}\"\"]", "\"\",".repeat(bytes / 3 - 1));
    let id = invoke(&p, "hello", &event(1 << 20)).await;
    let call = json!({"FunctionName": "hello", "InvocationType": "Event", "ClientContext": event((1 << 20) + 4)});
    assert_eq!(p.code("Invoke", call).await, "InvalidParameter.RequestTooLarge");
    let _stop = run(&p);
    until(|| p.control.events().depth() == (0, 0)).await;
    let calls = p.invoker.calls.lock();
    assert_eq!((calls[0].1.request_id, calls[0].1.event.len()), (request_id(&id), event(1 << 20).len()));
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_longer_than_the_drain_time() {
    let options = Options { drain: Duration::from_secs(5), ..Options::default() };
    let p = Platform::with(options, EventLimits::default(), false).await;
    p.create("hello").await;
    scripted(&p);
    let (stop, control) = (CancellationToken::new(), p.control.clone());
    let token = stop.clone();
    let task = tokio::spawn(async move { control.run_events(token).await });
    invoke(&p, "hello", "\"slow\"").await;
    until(|| p.control.events().depth() == (1, 1)).await;
    let begun = tokio::time::Instant::now();
    stop.cancel();
    task.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(p.event_log.pending().await.unwrap(), 1, "it runs again after the next start");
}
