//! Invoke and InvokeFunction, synchronous.

use crate::harness::{Platform, with};
use mayfly_model::{Status, limits};
use serde_json::{Value, json};
use std::time::Duration;

fn hello(fields: Value) -> Value {
    with(json!({"FunctionName": "hello"}), fields)
}

#[tokio::test]
async fn events_reach_the_function_as_they_are() {
    let p = Platform::new().await;
    p.create("hello").await;
    for (action, field) in [("Invoke", "ClientContext"), ("InvokeFunction", "Event")] {
        for (sent, received) in [
            (json!({ (field): "{\"a\": \"\\u4e2d\\n\"}" }), "{\"a\": \"\\u4e2d\\n\"}"),
            (json!({ (field): "[1, 2]" }), "[1, 2]"),
            (json!({ (field): "" }), "{}"),
            (json!({ (field): null }), "{}"),
            (json!({}), "{}"),
        ] {
            p.ok(action, hello(sent)).await;
            let (_, request) = p.invoker.calls.lock().pop().unwrap();
            assert_eq!(request.event, received.as_bytes());
            assert_eq!((request.retry, request.want_log), (0, false));
            assert_eq!(request.qualifier, if action == "Invoke" { "$LATEST" } else { "$DEFAULT" });
        }
    }
}

#[tokio::test]
async fn the_log_comes_when_it_is_asked_for() {
    let p = Platform::new().await;
    p.create("hello").await;
    for log_type in ["Tail", "tail", "TAIL"] {
        let answer = p.ok("Invoke", hello(json!({"LogType": log_type, "InvocationType": "RequestResponse"}))).await;
        assert!(answer["Result"]["Log"].as_str().unwrap().contains("printed"));
        assert_eq!(answer["Result"]["FunctionRequestId"], answer["RequestId"]);
    }
    assert_eq!(p.ok("Invoke", hello(json!({"LogType": "None"}))).await["Result"]["Log"], json!(""));
}

#[tokio::test]
async fn a_failing_function_is_not_an_api_error() {
    let p = Platform::new().await;
    p.create("hello").await;
    let error = r#"{"errorCode":-1,"errorMessage":"x","requestId":"r","stackTrace":"","statusCode":430}"#;
    *p.invoker.script.lock() = Box::new(move |_, _| (Status::USER_EXCEPTION, error.into(), Duration::ZERO));
    let answer = p.ok("InvokeFunction", hello(json!({}))).await;
    assert_eq!(answer["Result"]["InvokeResult"], json!(-1));
    assert_eq!(answer["Result"]["ErrMsg"], json!(error));
}

#[tokio::test]
async fn callers_mistakes_have_the_promised_codes() {
    let p = Platform::new().await;
    p.create("hello").await;
    let big = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    for (fields, code) in [
        (json!({"FunctionName": "nobody"}), "ResourceNotFound.Function"),
        (json!({"FunctionName": ""}), "InvalidParameter.FunctionName"),
        (json!({"FunctionName": null}), "MissingParameter"),
        (json!({"FunctionName": 7}), "InvalidParameter"),
        (json!({"Namespace": "nowhere"}), "ResourceNotFound.Namespace"),
        (json!({"Qualifier": "7"}), "ResourceNotFound.Qualifier"),
        (json!({"Qualifier": "no such thing"}), "ResourceNotFound.Qualifier"),
        (json!({"ClientContext": "{"}), "InvalidParameterValue.Param"),
        (json!({"ClientContext": "hello"}), "InvalidParameterValue.Param"),
        (json!({"ClientContext": {"a": 1}}), "InvalidParameter"),
        (json!({"InvocationType": "Later"}), "InvalidParameterValue.InvokeType"),
        (json!({"LogType": "All"}), "InvalidParameterValue"),
        (json!({"RoutingKey": "x"}), "InvalidParameterValue"),
        (json!({"RoutingKey": "{\"a\":1}"}), "InvalidParameterValue"),
        (json!({"RoutingKey": format!("{{\"a\":\"{}\"}}", "x".repeat(1024))}), "InvalidParameterValue"),
        (json!({"ClientContext": big(limits::EVENT_SYNC_BYTES_MAX + 1)}), "InvalidParameter.RequestTooLarge"),
        (
            json!({"ClientContext": big(limits::EVENT_ASYNC_BYTES_MAX + 1), "InvocationType": "Event"}),
            "InvalidParameter.RequestTooLarge",
        ),
    ] {
        let shown: String = fields.to_string().chars().take(80).collect();
        assert_eq!(p.code("Invoke", hello(fields)).await, code, "{shown}");
    }
    assert!(p.invoker.calls.lock().is_empty());
    p.ok("Invoke", hello(json!({"ClientContext": big(limits::EVENT_SYNC_BYTES_MAX)}))).await;
    let bad = p.code("InvokeFunction", hello(json!({"Event": "{"}))).await;
    assert_eq!(bad, "InvalidParameterValue.Param");
}

#[tokio::test]
async fn deep_events_do_not_overflow_the_stack() {
    let p = Platform::new().await;
    p.create("hello").await;
    let deep = format!("{}{}", "[".repeat(500_000), "]".repeat(500_000));
    let answer = p.call("Invoke", hello(json!({"ClientContext": deep}))).await;
    assert!(
        answer.get("Error").is_none() || answer["Error"]["Code"] == json!("InvalidParameterValue.Param"),
        "{answer}"
    );
}
