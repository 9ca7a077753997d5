//! GetFunctionLogs and GetRequestStatus of finished runs.

use crate::harness::{Platform, with};
use mayfly_control::{LogOrder, LogStatus};
use mayfly_model::Status;
use serde_json::{Value, json};
use std::time::Duration;

fn hello(fields: Value) -> Value {
    with(json!({"FunctionName": "hello"}), fields)
}

#[tokio::test]
async fn logs_are_found_by_what_the_filter_says() {
    let p = Platform::ticking().await;
    p.create("hello").await;
    let first = p.ok("Invoke", hello(json!({}))).await;
    *p.invoker.script.lock() =
        Box::new(|_, _| (Status::USER_EXCEPTION, "{\"errorMessage\":\"x\"}".into(), Duration::ZERO));
    p.ok("Invoke", hello(json!({}))).await;
    let logs = p.ok("GetFunctionLogs", hello(json!({"Offset": 0, "Limit": 1000, "Order": "asc"}))).await;
    assert_eq!(logs["TotalCount"], json!(2));
    let log = &logs["Data"][0];
    assert_eq!(
        (&log["RetCode"], &log["RetMsg"], &log["InvokeFinished"]),
        (&json!(0), &json!("\"$LATEST\""), &json!(1))
    );
    assert_eq!((&log["Duration"], &log["BillDuration"], &log["MemUsage"]), (&json!(1.5), &json!(2), &json!(20 << 20)));
    assert!(log["Log"].as_str().unwrap().contains("printed\n"));
    assert_eq!(logs["Data"][1]["RetCode"], json!(430));
    let filter = |code: &str| hello(json!({"Filter": {"RetCode": code}}));
    assert_eq!(p.ok("GetFunctionLogs", filter("not0")).await["TotalCount"], json!(1));
    assert_eq!(p.ok("GetFunctionLogs", filter("is0")).await["TotalCount"], json!(1));
    assert_eq!(p.ok("GetFunctionLogs", filter("TimeLimitExceeded")).await["TotalCount"], json!(0));
    assert_eq!(p.ok("GetFunctionLogs", filter("UserCodeException")).await["TotalCount"], json!(1));
    let one = hello(json!({"FunctionRequestId": first["RequestId"], "Qualifier": "$LATEST"}));
    assert_eq!(p.ok("GetFunctionLogs", one).await["TotalCount"], json!(1));
    assert_eq!(p.ok("GetFunctionLogs", hello(json!({"FunctionRequestId": "x"}))).await["TotalCount"], json!(0));
    assert_eq!(p.ok("GetFunctionLogs", json!({})).await["TotalCount"], json!(2), "of the whole namespace");
    p.ok("GetFunctionLogs", hello(json!({"OrderBy": "mem_usage", "Order": "DESC", "Offset": 5, "Limit": 7}))).await;
    let last = p.logs.last_filter.lock().clone().unwrap();
    assert_eq!((last.order_by, last.ascending, last.offset, last.limit), (LogOrder::Memory, false, 5, 7));
    assert_eq!(last.status, LogStatus::Any);
}

#[tokio::test]
async fn bad_queries_have_the_promised_codes() {
    let p = Platform::new().await;
    p.create("hello").await;
    let time = |start: &str, end: &str| json!({"StartTime": start, "EndTime": end});
    for (fields, code) in [
        (json!({"FunctionName": "nobody"}), "ResourceNotFound.Function"),
        (json!({"FunctionName": "", "Namespace": "nowhere"}), "ResourceNotFound.Namespace"),
        (json!({"Offset": 9990, "Limit": 11}), "LimitExceeded.Offset"),
        (json!({"Offset": -1}), "InvalidParameterValue.Offset"),
        (json!({"Order": "x"}), "InvalidParameterValue.Order"),
        (json!({"OrderBy": "x"}), "InvalidParameterValue.OrderBy"),
        (json!({"Filter": {"RetCode": "x"}}), "InvalidParameterValue.RetCode"),
        (json!({"StartTime": "2026-01-01 00:00:00"}), "InvalidParameterValue.StartTimeOrEndTime"),
        (time("2026-01-01", "2026-01-02 00:00:00"), "InvalidParameterValue.DateTime"),
        (time("2026-01-02 00:00:00", "2026-01-01 00:00:00"), "InvalidParameterValue.StartTimeOrEndTime"),
        (time("2026-01-01 00:00:00", "2026-01-02 00:00:01"), "InvalidParameterValue.StartTimeOrEndTime"),
        (json!({"SearchContext": {"Keyword": "x"}}), "UnsupportedOperation"),
    ] {
        assert_eq!(p.code("GetFunctionLogs", hello(fields.clone())).await, code, "{fields}");
    }
    p.ok("GetFunctionLogs", hello(time("2026-01-01 00:00:00", "2026-01-02 00:00:00"))).await;
    p.logs.broken.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(p.code("GetFunctionLogs", hello(json!({}))).await, "InternalError.SearchFailed");
}

#[tokio::test]
async fn a_finished_run_has_a_status() {
    let p = Platform::new().await;
    p.create("hello").await;
    let run = p.ok("Invoke", hello(json!({}))).await;
    let status = p.ok("GetRequestStatus", hello(json!({"FunctionRequestId": run["RequestId"]}))).await;
    let entry = &status["Data"][0];
    assert_eq!((&entry["RetCode"], &entry["MemUsage"], &entry["RetryNum"]), (&json!(0), &json!(20.0), &json!(0)));
    assert_eq!(p.ok("GetRequestStatus", hello(json!({"FunctionRequestId": "?"}))).await["TotalCount"], json!(0));
    assert_eq!(p.code("GetRequestStatus", hello(json!({}))).await, "MissingParameter");
    let nobody = json!({"FunctionName": "nobody", "FunctionRequestId": "x"});
    assert_eq!(p.code("GetRequestStatus", nobody).await, "ResourceNotFound.Function");
    let half = hello(json!({"FunctionRequestId": "x", "EndTime": "2026-01-01 00:00:00"}));
    assert_eq!(p.code("GetRequestStatus", half).await, "InvalidParameterValue.StartTimeOrEndTime");
}
