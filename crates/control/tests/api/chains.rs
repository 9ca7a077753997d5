//! Calls from inside functions: what a role may, and how chains of calls end.

use crate::harness::{Platform, create, until, with};
use mayfly_control::Caller;
use mayfly_model::{Lineage, RequestId, Status};
use serde_json::json;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const PARENT: RequestId = RequestId(0xabcd);

fn at_depth(p: &Platform, depth: u32) {
    let lineage = Lineage { depth, parent: Some(PARENT) };
    *p.caller.lock() = Caller { role: Some("r".into()), lineage };
}

fn run(p: &Platform) {
    let control = p.control.clone();
    tokio::spawn(async move { control.run_events(CancellationToken::new()).await });
}

#[tokio::test]
async fn roles_may_invoke_and_read() {
    let p = Platform::new().await;
    p.create("hello").await;
    at_depth(&p, 1);
    p.ok("ListFunctions", json!({})).await;
    p.ok("GetFunction", json!({"FunctionName": "hello"})).await;
    p.ok("Invoke", json!({"FunctionName": "hello"})).await;
    p.ok("InvokeFunction", json!({"FunctionName": "hello"})).await;
    for (action, params) in [
        ("DeleteFunction", json!({"FunctionName": "hello"})),
        ("UpdateFunctionConfiguration", json!({"FunctionName": "hello", "MemorySize": 256})),
        ("CreateFunction", with(create("other"), json!({"Role": "r"}))),
        ("ReplayFailures", json!({"All": true})),
    ] {
        assert_eq!(p.code(action, params).await, "UnauthorizedOperation.CAM", "{action}");
    }
    assert_eq!(p.code("NoSuchAction", json!({})).await, "InvalidAction");
    let lineages: Vec<Lineage> = p.invoker.calls.lock().iter().map(|(_, call)| call.lineage).collect();
    assert_eq!(lineages, [Lineage { depth: 1, parent: Some(PARENT) }; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_too_deep_is_refused_and_an_event_ends_as_a_failure() {
    let p = Platform::new().await;
    p.create("hello").await;
    at_depth(&p, 16);
    p.ok("Invoke", json!({"FunctionName": "hello"})).await;
    at_depth(&p, 17);
    assert_eq!(p.code("Invoke", json!({"FunctionName": "hello"})).await, "LimitExceeded.CallDepth");
    let event = json!({"FunctionName": "hello", "InvocationType": "Event", "ClientContext": "{\"a\":1}"});
    let id = p.ok("Invoke", event).await["RequestId"].clone();
    // The depth is kept with the event.
    let p = p.restart().await;
    run(&p);
    until(|| p.control.events().depth() == (0, 0)).await;
    assert!(p.invoker.calls.lock().is_empty(), "it was not run");
    let failure = p.ok("GetFailure", json!({"FunctionRequestId": id})).await;
    assert_eq!((&failure["StatusCode"], &failure["Event"]), (&json!(508), &json!("{\"a\":1}")), "{failure}");
    assert!(failure["ErrorMessage"].as_str().unwrap().contains(&PARENT.to_string()), "{failure}");
    assert_eq!(p.control.too_deep(), 1);
    // A replay begins anew.
    p.ok("ReplayFailures", json!({"All": true})).await;
    until(|| !p.invoker.calls.lock().is_empty()).await;
    assert!(p.invoker.calls.lock()[0].1.lineage.is_root());
}

#[tokio::test(start_paused = true)]
async fn every_attempt_is_as_deep_as_the_first() {
    let p = Platform::new().await;
    p.create("hello").await;
    *p.invoker.script.lock() = Box::new(|_, _| (Status::USER_EXCEPTION, "{}".into(), Duration::ZERO));
    run(&p);
    at_depth(&p, 3);
    p.ok("Invoke", json!({"FunctionName": "hello", "InvocationType": "Event"})).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    until(|| p.control.events().depth() == (0, 0)).await;
    let depths: Vec<u32> = p.invoker.calls.lock().iter().map(|(_, call)| call.lineage.depth).collect();
    assert_eq!(depths, [3, 3, 3]);
    assert!(p.logs.records.lock().iter().all(|record| record.lineage.parent == Some(PARENT)));
}
