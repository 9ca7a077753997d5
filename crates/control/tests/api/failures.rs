//! What follows the ends of requests: kept failures, replay, dead letters, destinations.

use crate::harness::{Platform, create, request_id, until, with};
use mayfly_model::{Status, Target};
use mayfly_store::failures::{FailureQuery, JobStage, NewJob, replay_id};
use mayfly_store::{EventLog, FailureLog, StoredEvent};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

type Running = (CancellationToken, tokio::task::JoinHandle<()>);

fn run(p: &Platform) -> Running {
    let (stop, control) = (CancellationToken::new(), p.control.clone());
    let token = stop.clone();
    (stop, tokio::spawn(async move { control.run_events(token).await }))
}

fn event(name: &str, n: u32) -> Value {
    json!({"FunctionName": name, "InvocationType": "Event", "ClientContext": json!({"n": n}).to_string()})
}

/// The function `f` fails with its version `$LATEST`, and its events are tried once.
async fn broken() -> Platform {
    let p = Platform::new().await;
    let variables = json!({"Variables": [{"Key": "TOKEN", "Value": "very-secret-value"}]});
    p.ok("CreateFunction", with(create("fn"), json!({"Environment": variables}))).await;
    once(&p, "fn").await;
    fail(&p, |version, _| version == "$LATEST");
    p
}

async fn once(p: &Platform, name: &str) {
    let policy = json!({"RetryConfig": [{"RetryNum": 0}], "MsgTTL": 600});
    p.ok("UpdateFunctionEventInvokeConfig", json!({"FunctionName": name, "AsyncTriggerConfig": policy})).await;
}

fn fail(p: &Platform, fails: impl Fn(&str, &[u8]) -> bool + Send + 'static) {
    *p.invoker.script.lock() = Box::new(move |target, request| match fails(&target.spec.key.version, &request.event) {
        true => {
            let error = json!({"errorMessage": "KeyError: 'n'", "stackTrace": "Traceback, line 3", "statusCode": 430});
            (Status::USER_EXCEPTION, error.to_string(), Duration::ZERO)
        }
        false => (Status::OK, "\"fixed\"".into(), Duration::ZERO),
    });
}

async fn send(p: &Platform, count: u32) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..count {
        let answer = p.ok("Invoke", event("fn", n)).await;
        ids.push(answer["RequestId"].as_str().unwrap().to_owned());
    }
    ids
}

async fn quiet(p: &Platform) {
    until(|| p.control.events().depth() == (0, 0)).await;
}

async fn list(p: &Platform, filter: Value) -> Value {
    p.ok("ListFailures", json!({"Filter": filter, "Limit": 100})).await
}

async fn job_over(p: &Platform, id: &Value) -> Value {
    for _ in 0..2000 {
        let job = p.ok("GetReplayJob", json!({"JobId": id})).await["Job"].clone();
        if job["IsOver"] == true {
            return job;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the job does not end: {}", p.ok("GetReplayJob", json!({"JobId": id})).await);
}

#[tokio::test(start_paused = true)]
async fn a_failed_event_is_kept_with_its_scene() {
    let p = broken().await;
    let (_stop, _task) = run(&p);
    let ids = send(&p, 1).await;
    quiet(&p).await;
    let page = list(&p, json!({})).await;
    assert_eq!(page["TotalCount"], 1);
    let head = &page["Failures"][0];
    assert_eq!((&head["FunctionRequestId"], &head["StatusCode"]), (&json!(ids[0]), &json!(430)));
    let shown = p.ok("GetFailure", json!({"FunctionRequestId": ids[0]})).await;
    assert_eq!((&shown["Event"], &shown["Source"]), (&json!("{\"n\":0}"), &json!("event")));
    assert_eq!((&shown["Version"], &shown["Qualifier"]), (&json!("$LATEST"), &json!("$LATEST")));
    assert_eq!(shown["EnvironmentNames"], json!(["TOKEN"]));
    assert_eq!(shown["ErrorMessage"], "KeyError: 'n'\nTraceback, line 3");
    assert_eq!((&shown["RetryNum"], &shown["Duration"], &shown["MemorySize"]), (&json!(0), &json!(1.5), &json!(128)));
    assert!(shown["Log"].as_str().unwrap().contains("printed"), "{shown}");
    assert!(!shown.to_string().contains("very-secret"), "values of variables are not kept");
    // Others are not.
    fail(&p, |_, _| false);
    send(&p, 3).await;
    quiet(&p).await;
    assert_eq!(list(&p, json!({})).await["TotalCount"], 1);
    assert_eq!(p.code("GetFailure", json!({"FunctionRequestId": "7"})).await, "InvalidParameterValue");
    let none = json!({"FunctionRequestId": "00000000-0000-4000-8000-000000000000"});
    assert_eq!(p.code("GetFailure", none).await, "ResourceNotFound");
}

#[tokio::test(start_paused = true)]
async fn failures_are_filtered_paged_and_forgotten() {
    let p = broken().await;
    let (_stop, _task) = run(&p);
    let ids = send(&p, 25).await;
    quiet(&p).await;
    let first = p.ok("ListFailures", json!({"Limit": 20, "Order": "asc"})).await;
    assert_eq!((first["Failures"].as_array().unwrap().len(), &first["TotalCount"]), (20, &json!(25)));
    let next = json!({"Limit": 20, "Order": "asc", "Cursor": first["NextCursor"]});
    let second = p.ok("ListFailures", next).await;
    assert_eq!((second["Failures"].as_array().unwrap().len(), &second["NextCursor"]), (5, &json!("")));
    for (filter, count) in [
        (json!({"FunctionName": "fn"}), 25),
        (json!({"FunctionName": "other"}), 0),
        (json!({"Namespace": "other"}), 0),
        (json!({"StatusCode": 430, "Version": "$LATEST", "Source": "event", "Error": "keyerror"}), 25),
        (json!({"StatusCode": 433}), 0),
        (json!({"RequestIds": [ids[3], ids[4]]}), 2),
        (json!({"StartTime": "2020-01-01 00:00:00", "EndTime": "2020-01-02 00:00:00"}), 0),
        (json!({"Resolved": true}), 0),
    ] {
        assert_eq!(list(&p, filter.clone()).await["TotalCount"], count, "{filter}");
    }
    for (filter, code) in [
        (json!({"StatusCode": 1}), "InvalidParameterValue"),
        (json!({"RequestIds": ["x"]}), "InvalidParameterValue"),
        (json!({"StartTime": "soon"}), "InvalidParameterValue.DateTime"),
        (json!({"FunctionName": "-"}), "InvalidParameterValue.FunctionName"),
    ] {
        assert_eq!(p.code("ListFailures", json!({"Filter": filter})).await, code);
    }
    assert_eq!(p.code("DeleteFailures", json!({})).await, "MissingParameter");
    assert_eq!(p.code("ReplayFailures", json!({"Filter": {}})).await, "MissingParameter");
    let gone = p.ok("DeleteFailures", json!({"Filter": {"RequestIds": [ids[0]]}})).await;
    assert_eq!(gone["DeletedCount"], 1);
    assert_eq!(p.ok("DeleteFailures", json!({"All": true})).await["DeletedCount"], 24);
}

#[tokio::test(start_paused = true)]
async fn failures_are_replayed_onto_a_fixed_version_and_linked() {
    let p = broken().await;
    let (_stop, _task) = run(&p);
    let ids = send(&p, 100).await;
    quiet(&p).await;
    p.ok("PublishVersion", json!({"FunctionName": "fn"})).await;
    let all = json!({"Filter": {"FunctionName": "fn"}, "Qualifier": "1", "ClientToken": "mine"});
    let dry = p.ok("ReplayFailures", with(all.clone(), json!({"DryRun": true}))).await;
    assert_eq!((&dry["TotalCount"], dry["Failures"].as_array().unwrap().len()), (&json!(100), 100));
    assert_eq!(p.invoker.calls.lock().len(), 100, "a dry run runs nothing");
    let mistyped = with(all.clone(), json!({"Qualifier": "fixd"}));
    assert_eq!(p.code("ReplayFailures", mistyped).await, "ResourceNotFound.FunctionVersion");
    let job = p.ok("ReplayFailures", all.clone()).await;
    // Asked twice, it is the same job; asked for something else under its name, it is a mistake.
    assert_eq!(p.ok("ReplayFailures", all.clone()).await["JobId"], job["JobId"]);
    assert_eq!(p.code("ReplayFailures", with(all.clone(), json!({"Rate": 5}))).await, "ResourceInUse");
    let over = job_over(&p, &job["JobId"]).await;
    assert_eq!(
        (&over["State"], &over["Total"], &over["Sent"], &over["Succeeded"], &over["Failed"]),
        (&json!("done"), &json!(100), &json!(100), &json!(100), &json!(0))
    );
    let calls = p.invoker.calls.lock().clone();
    assert_eq!(calls.len(), 200);
    for (version, request) in &calls[100..] {
        let origin = request.origin.unwrap();
        assert!(version == "1" && ids.contains(&origin.to_string()));
        assert_eq!(request.request_id, replay_id(origin, request_id(&job["JobId"])));
    }
    for id in &ids {
        let shown = p.ok("GetFailure", json!({"FunctionRequestId": id})).await;
        assert_eq!(
            (&shown["Replays"][0]["State"], &shown["Replays"][0]["StatusCode"]),
            (&json!("succeeded"), &json!(200))
        );
        assert_eq!(shown["ResolvedBy"], shown["Replays"][0]["FunctionRequestId"]);
    }
    let log = p.logs.records.lock().last().unwrap().render();
    assert!(log.contains(" ReplayOf:"), "{log}");
    // They are resolved: nothing is left to do, unless it is asked for.
    let again = json!({"All": true, "DryRun": true});
    assert_eq!(p.ok("ReplayFailures", again.clone()).await["TotalCount"], 0);
    assert_eq!(p.ok("ReplayFailures", with(again, json!({"Again": true}))).await["TotalCount"], 100);
    assert_eq!(list(&p, json!({"Resolved": true})).await["TotalCount"], 100);
    assert_eq!(p.ok("ListReplayJobs", json!({})).await["TotalCount"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_fails_is_a_failure_of_its_own_and_names_its_origin() {
    let p = broken().await;
    let (_stop, _task) = run(&p);
    let ids = send(&p, 1).await;
    quiet(&p).await;
    let job = p.ok("ReplayFailures", json!({"All": true})).await;
    assert_eq!(job_over(&p, &job["JobId"]).await["Failed"], 1);
    assert_eq!(list(&p, json!({})).await["TotalCount"], 1, "its origin stands for it");
    let both = list(&p, json!({"Replays": true})).await;
    assert_eq!((&both["TotalCount"], &both["Failures"][0]["Origin"]), (&json!(2), &json!(ids[0])));
    // The second replay succeeds with another event: all three are settled.
    fail(&p, |_, event| event != b"{\"edited\":true}");
    let second = &both["Failures"][0]["FunctionRequestId"];
    let edited = json!({"Filter": {"RequestIds": [second]}, "Event": "{\"edited\":true}"});
    let job = p.ok("ReplayFailures", edited).await;
    assert_eq!(job_over(&p, &job["JobId"]).await["Succeeded"], 1);
    assert_eq!(list(&p, json!({"Replays": true, "Resolved": true})).await["TotalCount"], 2);
    for (fields, code) in [
        (json!({"All": true, "Event": "{}"}), "InvalidParameterValue"),
        (json!({"Filter": {"RequestIds": [ids[0]]}, "Event": "{"}), "InvalidParameterValue.Param"),
        (
            json!({"Filter": {"RequestIds": [ids[0]]}, "Event": format!("\"{}\"", "x".repeat(128 << 10))}),
            "InvalidParameter.RequestTooLarge",
        ),
        (json!({"All": true, "Rate": -1}), "InvalidParameterValue"),
        (json!({"All": true, "ClientToken": "x".repeat(65)}), "InvalidParameterValue"),
    ] {
        assert_eq!(p.code("ReplayFailures", fields).await, code);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_kept_and_a_job_is_cancelled() {
    let p = broken().await;
    let (_stop, _task) = run(&p);
    send(&p, 50).await;
    quiet(&p).await;
    fail(&p, |_, _| false);
    let start = tokio::time::Instant::now();
    let job = p.ok("ReplayFailures", json!({"All": true, "Rate": 2})).await;
    until(|| p.invoker.calls.lock().len() >= 50 + 10).await;
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(4), "ten replays at two a second took {took:?}");
    p.ok("CancelReplayJob", json!({"JobId": job["JobId"]})).await;
    let over = job_over(&p, &job["JobId"]).await;
    let sent = over["Sent"].as_u64().unwrap();
    assert!(over["State"] == "cancelled" && (10..50).contains(&sent) && over["Succeeded"] == sent, "{over}");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(p.invoker.calls.lock().len() as u64, 50 + sent);
    // What was not sent can be replayed by the next job.
    let job = p.ok("ReplayFailures", json!({"All": true})).await;
    assert_eq!(job_over(&p, &job["JobId"]).await["Succeeded"], 50 - sent);
    assert_eq!(
        p.code("GetReplayJob", json!({"JobId": "00000000-0000-4000-8000-000000000000"})).await,
        "ResourceNotFound"
    );
}

#[tokio::test(start_paused = true)]
async fn a_job_that_was_cut_short_goes_on_and_doubles_nothing() {
    let p = broken().await;
    let (stop, task) = run(&p);
    let ids = send(&p, 4).await;
    quiet(&p).await;
    stop.cancel();
    task.await.unwrap();
    // A process planned three, had one accepted and ended, and a second accepted without saying so; then it was killed.
    let job = NewJob {
        id: mayfly_model::RequestId(77),
        token: None,
        spec: b"{}".to_vec(),
        query: FailureQuery::default(),
        created_ms: 1,
    };
    p.failures.add_job(job).await.unwrap();
    let planned = p.failures.plan(mayfly_model::RequestId(77), 1, 3).await.unwrap();
    let cause = |n: usize| json!({"replay_of": planned[n].origin});
    let stored = |n: usize| {
        let event = json!({"namespace": "default", "function": "fn", "qualifier": "$LATEST", "event": "{}", "accepted_ms": 1, "cause": cause(n)});
        StoredEvent { id: planned[n].id, payload: event.to_string().into_bytes(), due_ms: 1, attempt: 0 }
    };
    p.event_log.append(stored(1)).await.unwrap();
    let replay = Some(mayfly_store::failures::ReplayEnd { id: planned[0].id, ok: true, status: 200, ended_ms: 2 });
    p.failures.conclude(mayfly_store::failures::Ending { replay, ..Default::default() }).await.unwrap();

    let q = p.restart().await;
    fail(&q, |_, _| false);
    let (_stop, _task) = run(&q);
    let over = job_over(&q, &json!(mayfly_model::RequestId(77).to_string())).await;
    assert_eq!((&over["Sent"], &over["Succeeded"], &over["Failed"]), (&json!(4), &json!(4), &json!(0)));
    let mut ran: Vec<_> = q.invoker.calls.lock().iter().map(|(_, r)| r.origin.unwrap().to_string()).collect();
    ran.sort();
    let mut expected: Vec<_> = ids.iter().filter(|id| **id != planned[0].origin.to_string()).cloned().collect();
    expected.sort();
    assert_eq!(ran, expected, "each of the three that had not ended, once");
    assert_eq!(q.failures.job(mayfly_model::RequestId(77)).await.unwrap().unwrap().stage, JobStage::Sent);
}

#[tokio::test(start_paused = true)]
async fn synchronous_failures_are_kept_when_asked_for() {
    let p = broken().await;
    let invoke = json!({"FunctionName": "fn", "ClientContext": "{\"n\":7}"});
    p.ok("Invoke", invoke.clone()).await;
    assert_eq!(list(&p, json!({})).await["TotalCount"], 0);
    let put = json!({"FunctionName": "fn", "Capture": true, "RetentionHours": 2});
    p.ok("PutFunctionFailures", put).await;
    let policy = p.ok("GetFunctionFailures", json!({"FunctionName": "fn"})).await;
    assert_eq!((&policy["Capture"], &policy["RetentionHours"]), (&json!(true), &json!(2)));
    assert_eq!(p.ok("GetFunction", json!({"FunctionName": "fn"})).await["Failures"]["Capture"], true);
    let answer = p.ok("Invoke", invoke.clone()).await;
    assert_eq!((&answer["Result"]["InvokeResult"], &answer["Result"]["Log"]), (&json!(-1), &json!("")));
    let shown = p.ok("GetFailure", json!({"FunctionRequestId": answer["RequestId"]})).await;
    assert_eq!((&shown["Source"], &shown["Event"]), (&json!("invoke"), &json!("{\"n\":7}")));
    assert!(shown["Log"].as_str().unwrap().contains("printed"));
    // One of 5 MB is whole, and is replayed without going through the event log.
    let large = format!("\"{}\"", "x".repeat(5 << 20));
    let answer = p.ok("Invoke", json!({"FunctionName": "fn", "ClientContext": large})).await;
    let (_stop, _task) = run(&p);
    fail(&p, |_, _| false);
    let job = p.ok("ReplayFailures", json!({"Filter": {"RequestIds": [answer["RequestId"]]}})).await;
    assert_eq!(job_over(&p, &job["JobId"]).await["Succeeded"], 1);
    assert_eq!(p.invoker.calls.lock().last().unwrap().1.event, large.as_bytes());
    for (fields, code) in [
        (json!({"RetentionHours": -1}), "InvalidParameterValue"),
        (json!({"RetentionHours": 9000}), "InvalidParameterValue"),
    ] {
        assert_eq!(p.code("PutFunctionFailures", with(json!({"FunctionName": "fn"}), fields)).await, code);
    }
    // After their time they are forgotten.
    tokio::time::sleep(Duration::from_secs(3 * 3600)).await;
    assert_eq!(list(&p, json!({})).await["TotalCount"], 0);
}

#[tokio::test(start_paused = true)]
async fn dead_letters_go_to_the_queue_and_wait_until_it_is_there() {
    let p = broken().await;
    let config =
        |kind: &str, name: &str| json!({"FunctionName": "fn", "DeadLetterConfig": {"Type": kind, "Name": name}});
    for (kind, name, code) in [
        ("CMQ-QUEUE", "missing", "ResourceNotFound.Cmq"),
        ("CMQ-QUEUE", "", "InvalidParameterValue.DeadLetterConfig"),
        ("bucket", "q1", "InvalidParameterValue.DeadLetterConfig"),
        ("", "q1", "InvalidParameterValue.DeadLetterConfig"),
    ] {
        assert_eq!(p.code("UpdateFunctionConfiguration", config(kind, name)).await, code);
    }
    p.ok("UpdateFunctionConfiguration", config("CMQ-QUEUE", "q1")).await;
    let shown = p.ok("GetFunction", json!({"FunctionName": "fn"})).await;
    assert_eq!(shown["DeadLetterConfig"], json!({"Type": "CMQ-QUEUE", "Name": "q1", "FilterType": ""}));
    p.queues.down.store(true, Ordering::Relaxed);
    let (stop, task) = run(&p);
    let ids = send(&p, 2).await;
    quiet(&p).await;
    assert_eq!(p.failures.usage().await.unwrap().messages, 2, "they wait");
    stop.cancel();
    task.await.unwrap();
    let q = p.restart().await;
    let (_stop, _task) = run(&q);
    until(|| q.queues.sent.lock().len() == 2).await;
    let (target, letter) = q.queues.sent.lock()[0].clone();
    assert_eq!(target, Target::Queue { name: "q1".into() });
    assert!(ids.contains(&letter["RequestId"].as_str().unwrap().to_owned()));
    assert_eq!((&letter["ErrorCode"], &letter["Body"]["FunctionName"]), (&json!(-1), &json!("fn")));
    assert_eq!(letter["Body"]["RequestSource"], "API");
    // A queue that stays away: the message is given up, and the failure says so.
    q.queues.down.store(true, Ordering::Relaxed);
    fail(&q, |_, _| true);
    let id = q.ok("Invoke", event("fn", 9)).await["RequestId"].clone();
    tokio::time::sleep(Duration::from_secs(7 * 3600)).await;
    let note = q.ok("GetFailure", json!({"FunctionRequestId": id})).await["Note"].clone();
    assert!(note.as_str().unwrap().contains("The dead letter could not be delivered for 6 hours"), "{note}");
    q.ok("UpdateFunctionConfiguration", config("", "")).await;
    assert_eq!(q.ok("GetFunction", json!({"FunctionName": "fn"})).await["DeadLetterConfig"]["Type"], "");
    q.ok(
        "CreateFunction",
        with(create("gn"), json!({"DeadLetterConfig": {"Type": "topic", "Name": "t1", "FilterType": "x"}})),
    )
    .await;
    let shown = q.ok("GetFunction", json!({"FunctionName": "gn"})).await;
    assert_eq!(shown["DeadLetterConfig"], json!({"Type": "CMQ-TOPIC", "Name": "t1", "FilterType": "x"}));
}

#[tokio::test(start_paused = true)]
async fn results_go_to_destinations() {
    let p = broken().await;
    p.create("next").await;
    let put =
        |success: Value, failure: Value| json!({"FunctionName": "fn", "OnSuccess": success, "OnFailure": failure});
    let (next, queue) = (json!({"Type": "function", "Name": "next"}), json!({"Type": "queue", "Name": "q2"}));
    for (success, code) in [
        (json!({"Type": "function", "Name": "nobody"}), "ResourceNotFound.Function"),
        (json!({"Type": "function", "Name": "next", "Qualifier": "9"}), "ResourceNotFound.FunctionVersion"),
        (json!({"Type": "mail", "Name": "x"}), "InvalidParameterValue"),
        (json!({"Type": "topic", "Name": "missing"}), "ResourceNotFound.Cmq"),
    ] {
        assert_eq!(p.code("PutFunctionDestinations", put(success, json!(null))).await, code);
    }
    p.ok("PutFunctionDestinations", put(next, queue)).await;
    let shown = p.ok("GetFunctionDestinations", json!({"FunctionName": "fn"})).await;
    assert_eq!((&shown["OnSuccess"]["Name"], &shown["OnSuccess"]["Qualifier"]), (&json!("next"), &json!("$DEFAULT")));
    assert_eq!(shown["OnFailure"], json!({"Type": "queue", "Name": "q2"}));

    fail(&p, |_, event| event == b"{\"n\":1}");
    let (_stop, _task) = run(&p);
    let ids = send(&p, 2).await;
    until(|| p.invoker.calls.lock().len() == 3 && p.queues.sent.lock().len() == 1).await;
    // Which of the calls is the next function's is a matter of turns.
    let calls: Vec<Value> =
        p.invoker.calls.lock().iter().map(|(_, call)| serde_json::from_slice(&call.event).unwrap()).collect();
    let record = calls.iter().find(|event| !event["requestContext"].is_null()).expect("the next function was called");
    assert_eq!(record["requestContext"]["condition"], "Success");
    assert_eq!((&record["requestContext"]["requestId"], &record["responsePayload"]), (&json!(ids[0]), &json!("fixed")));
    assert_eq!(record["requestPayload"], json!({"n": 0}));
    let (target, record) = p.queues.sent.lock()[0].clone();
    assert_eq!(target, Target::Queue { name: "q2".into() });
    assert_eq!(record["requestContext"]["condition"], "RetriesExhausted");
    assert_eq!(record["responseContext"]["functionError"], "Unhandled");
    until(|| p.control.events().depth() == (0, 0)).await;
    // An empty one takes it back.
    p.ok("PutFunctionDestinations", json!({"FunctionName": "fn", "OnSuccess": {"Type": "", "Name": ""}})).await;
    let shown = p.ok("GetFunctionDestinations", json!({"FunctionName": "fn"})).await;
    assert_eq!((&shown["OnSuccess"]["Type"], &shown["OnFailure"]["Type"]), (&json!(""), &json!("queue")));
}

#[tokio::test(start_paused = true)]
async fn a_loop_of_destinations_ends() {
    let p = Platform::new().await;
    p.create("a1").await;
    p.create("b1").await;
    for (from, to) in [("a1", "b1"), ("b1", "a1")] {
        once(&p, from).await;
        let put = json!({"FunctionName": from, "OnFailure": {"Type": "function", "Name": to}});
        p.ok("PutFunctionDestinations", put).await;
    }
    fail(&p, |_, _| true);
    let (_stop, _task) = run(&p);
    p.ok("Invoke", event("a1", 1)).await;
    until(|| p.invoker.calls.lock().len() == 17).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(p.invoker.calls.lock().len(), 17);
    let page = list(&p, json!({"FunctionName": "a1"})).await;
    assert!(page["Failures"][0]["Note"].as_str().unwrap().contains("loop"), "{page}");
}

#[tokio::test(start_paused = true)]
async fn an_event_stays_as_long_as_its_failure_cannot_be_kept() {
    let p = broken().await;
    p.ok(
        "UpdateFunctionConfiguration",
        json!({"FunctionName": "fn", "DeadLetterConfig": {"Type": "queue", "Name": "q1"}}),
    )
    .await;
    p.failures.refuse(true);
    let (_stop, _task) = run(&p);
    send(&p, 1).await;
    until(|| p.invoker.calls.lock().len() == 1 && p.control.events().depth() == (1, 0)).await;
    assert_eq!(p.event_log.pending().await.unwrap(), 1);
    tokio::time::sleep(Duration::from_secs(61)).await;
    until(|| p.invoker.calls.lock().len() == 2 && p.control.events().depth() == (1, 0)).await;
    p.failures.refuse(false);
    tokio::time::sleep(Duration::from_secs(61)).await;
    quiet(&p).await;
    assert_eq!((p.event_log.pending().await.unwrap(), list(&p, json!({})).await["TotalCount"].as_u64()), (0, Some(1)));
    until(|| p.queues.sent.lock().len() == 1).await;
    // A synchronous request is answered all the same.
    p.ok("PutFunctionFailures", json!({"FunctionName": "fn", "Capture": true})).await;
    p.failures.refuse(true);
    assert_eq!(p.ok("Invoke", json!({"FunctionName": "fn"})).await["Result"]["InvokeResult"], -1);
    assert_eq!(p.control.failure_usage().await.unwrap().1, 1);
}
