//! Triggers that hand over events: settings, and what they hand over.

use crate::harness::{Platform, create_http, until, with};
use mayfly_control::{CallEnd, Options, RouteChange, TriggeredCall, TriggeredEvent};
use mayfly_model::{RequestId, Status, TriggerKind};
use mayfly_store::EventLimits;
use serde_json::{Value, json};
use std::time::Duration;

async fn platform() -> Platform {
    let options = Options { trigger_kinds: TriggerKind::ALL.to_vec(), ..Options::default() };
    let p = Platform::with(options, EventLimits::default(), true).await;
    p.create("hello").await;
    p
}

fn trigger(name: &str, kind: &str, desc: &str) -> Value {
    json!({"FunctionName": "hello", "TriggerName": name, "Type": kind, "TriggerDesc": desc})
}

fn named(name: &str, kind: &str) -> Value {
    json!({"FunctionName": "hello", "TriggerName": name, "Type": kind})
}

const CREATED: &str = r#"{"event":"cos:ObjectCreated:*","filter":{"Prefix":"in/","Suffix":""}}"#;
const REMOVED: &str = r#"{"event":"cos:ObjectRemove:*","filter":{"Prefix":"","Suffix":""}}"#;

#[tokio::test]
async fn timers_are_created_shown_changed_and_deleted() {
    let p = platform().await;
    let request = with(trigger("t", "timer", "0 */6 * * * * *"), json!({"CustomArgument": "m", "Enable": "OPEN"}));
    let made = p.ok("CreateTrigger", request).await["TriggerInfo"].clone();
    for (field, value) in [
        ("TriggerDesc", json!(r#"{"cron":"0 */6 * * * * *"}"#)),
        ("Type", json!("timer")),
        ("Qualifier", json!("$LATEST")),
        ("CustomArgument", json!("m")),
        ("Enable", json!(1)),
    ] {
        assert_eq!(made[field], value, "{field}");
    }
    let again = trigger("t", "timer", r#"{"cron":"0 0 0 1 1 * *"}"#);
    assert_eq!(p.code("CreateTrigger", again).await, "ResourceInUse.TriggerName");
    // As an old client sends it, and in a zone.
    p.ok("CreateTrigger", trigger("old", "timer", "*/5 * * * *")).await;
    p.ok("CreateTrigger", trigger("zone", "timer", r#"{"cron":"0 0 9 * * MON-FRI *","timeZone":"Asia/Shanghai"}"#))
        .await;

    let p = p.restart().await;
    let all = p
        .ok("ListTriggers", with(json!({"FunctionName": "hello"}), json!({"OrderBy": "add_time", "Order": "ASC"})))
        .await;
    assert_eq!((&all["TotalCount"], &all["Triggers"][0]), (&json!(3), &made));
    assert_eq!(all["Triggers"][1]["TriggerDesc"], json!(r#"{"cron":"0 */5 * * * * *"}"#));
    assert_eq!(p.ok("GetTrigger", named("t", "timer")).await["TriggerInfo"], made);
    assert_eq!(p.ok("GetFunction", json!({"FunctionName": "hello"})).await["Triggers"].as_array().unwrap().len(), 3);
    let bound = p.control.triggers();
    assert!(bound.len() == 3 && bound.iter().all(|b| b.function == "hello" && b.config.enabled));

    let before = p.invoker.changes.lock().len();
    p.ok("UpdateTrigger", with(named("t", "timer"), json!({"TriggerDesc": "5 * * * * * *", "Description": "d"}))).await;
    p.ok("UpdateTriggerStatus", with(named("t", "timer"), json!({"Enable": "CLOSE"}))).await;
    let twice = p.code("UpdateTriggerStatus", with(named("t", "timer"), json!({"Enable": "CLOSE"}))).await;
    assert_eq!(twice, "FailedOperation.UpdateTriggerStatus");
    let told = p.invoker.changes.lock()[before..].iter().filter(|c| matches!(c, RouteChange::Triggers)).count();
    assert_eq!(told, 2);
    let changed = p.ok("GetTrigger", named("t", "timer")).await["TriggerInfo"].clone();
    assert_eq!(
        (&changed["Enable"], &changed["CustomArgument"], &changed["Description"]),
        (&json!(0), &json!("m"), &json!("d"))
    );
    assert_eq!(changed["ResourceId"], made["ResourceId"], "it is the same trigger");
    p.ok("DeleteTrigger", named("t", "timer")).await;
    assert_eq!(p.code("DeleteTrigger", named("t", "timer")).await, "ResourceNotFound.Trigger");
    p.ok("DeleteFunction", json!({"FunctionName": "hello"})).await;
    assert!(p.control.triggers().is_empty());
    assert!(matches!(p.invoker.changes.lock().last(), Some(RouteChange::Triggers)));
}

#[tokio::test]
async fn what_cannot_be_bound_is_refused() {
    let p = platform().await;
    p.ok("CreateFunction", create_http("web")).await;
    let v = "InvalidParameterValue.TriggerDesc";
    for (kind, desc, code) in [
        ("timer", "", "MissingParameter"),
        ("timer", "0 0 0 31 2 * *", v),
        ("timer", "hourly", v),
        ("timer", r#"{"cron":"0 0 0 1 1 * *","timeZone":"Mars/Olympus"}"#, v),
        ("timer", r#"{"cron":"0 0 0 1 1 * *","zone":"UTC"}"#, v),
        ("cos", r#"{"event":"cos:ObjectBaked:*"}"#, v),
        ("cos", "{}", v),
        ("cmq", r#"{"filterType":3}"#, v),
        ("cmq", r#"{"filterType":1,"filterKey":["1","2","3","4","5","6"]}"#, v),
        ("ckafka", r#"{"maxMsgNum":0}"#, v),
        ("ckafka", r#"{"maxMsgNum":"10001"}"#, v),
        ("ckafka", r#"{"timeOut":61}"#, v),
        ("ckafka", r#"{"retry":10001}"#, v),
        ("ckafka", r#"{"offset":"now"}"#, v),
        ("ckafka", r#"{"brokers":["b:9092"]}"#, v),
        ("ckafka", "{}", "ResourceNotFound.Ckafka"),
        ("cls", "{}", "UnsupportedOperation.Trigger"),
        ("nonsense", "{}", "InvalidParameterValue.Type"),
    ] {
        assert_eq!(p.code("CreateTrigger", trigger("x", kind, desc)).await, code, "{kind} {desc}");
    }
    let web = with(trigger("x", "timer", "0 * * * * * *"), json!({"FunctionName": "web"}));
    assert_eq!(p.code("CreateTrigger", web).await, "UnsupportedOperation.Trigger");
    let elsewhere = with(trigger("x", "timer", "0 * * * * * *"), json!({"Qualifier": "7"}));
    assert_eq!(p.code("CreateTrigger", elsewhere).await, "ResourceNotFound.Qualifier");
    for n in 0..10 {
        p.ok("CreateTrigger", trigger(&format!("t{n}"), "timer", "0 * * * * * *")).await;
    }
    assert_eq!(p.code("CreateTrigger", trigger("t10", "timer", "0 * * * * * *")).await, "LimitExceeded.Trigger");
    // A platform without an object store and queues says so.
    let bare = Platform::new().await;
    bare.create("hello").await;
    assert_eq!(bare.code("CreateTrigger", trigger("b-1", "cos", CREATED)).await, "UnsupportedOperation.Trigger");
    assert_eq!(bare.code("CreateTrigger", trigger("c-t", "ckafka", "{}")).await, "UnsupportedOperation.Trigger");
}

#[tokio::test]
async fn kafka_triggers_name_a_cluster_and_a_topic() {
    let p = platform().await;
    let name = "ckafka-main-orders";
    let desc = r#"{"maxMsgNum":"999","offset":"1595927203000","retry":10,"timeOut":60,"consumerGroupName":"g"}"#;
    let shown = r#"{"maxMsgNum":999,"offset":"1595927203000","retry":10,"timeOut":60,"consumerGroupName":"g"}"#;
    let made = p.ok("CreateTrigger", trigger(name, "ckafka", desc)).await["TriggerInfo"].clone();
    assert_eq!((&made["TriggerDesc"], &made["Type"], &made["Enable"]), (&json!(shown), &json!("ckafka"), &json!(1)));
    assert_eq!(p.code("CreateTrigger", trigger(name, "ckafka", "{}")).await, "ResourceInUse.TriggerName");
    for absent in ["ckafka-main-refunds", "ckafka-other-orders", "orders"] {
        assert_eq!(p.code("CreateTrigger", trigger(absent, "ckafka", "{}")).await, "ResourceNotFound.Ckafka");
    }
    p.ok("UpdateTrigger", with(named(name, "ckafka"), json!({"TriggerDesc": r#"{"maxMsgNum":5}"#}))).await;
    p.ok("UpdateTriggerStatus", with(named(name, "ckafka"), json!({"Enable": "CLOSE"}))).await;
    let p = p.restart().await;
    let changed = p.ok("GetTrigger", named(name, "ckafka")).await["TriggerInfo"].clone();
    let shown = r#"{"maxMsgNum":5,"offset":"latest","retry":10000,"timeOut":0,"consumerGroupName":""}"#;
    assert_eq!((&changed["TriggerDesc"], &changed["Enable"]), (&json!(shown), &json!(0)));
    p.ok("DeleteTrigger", named(name, "ckafka")).await;
    assert!(p.control.triggers().is_empty());
}

#[tokio::test]
async fn a_bucket_may_have_several_and_no_two_for_one_change() {
    let p = platform().await;
    p.create("other").await;
    let host = "b-125.cos.ap-guangzhou.myqcloud.com";
    p.ok("CreateTrigger", trigger(host, "cos", CREATED)).await;
    p.ok("CreateTrigger", trigger(host, "cos", REMOVED)).await;
    let overlapping = r#"{"event":"cos:ObjectCreated:Put","filter":{"Prefix":"in/deep/"}}"#;
    for function in ["hello", "other"] {
        let request = with(trigger("b-125", "cos", overlapping), json!({"FunctionName": function}));
        assert_eq!(p.code("CreateTrigger", request).await, "InvalidParameterValue.CosNotifyRuleConflict");
    }
    assert_eq!(p.code("DeleteTrigger", named(host, "cos")).await, "MissingParameter");
    p.ok("UpdateTriggerStatus", with(trigger(host, "cos", REMOVED), json!({"Enable": "CLOSE"}))).await;
    p.ok("DeleteTrigger", trigger(host, "cos", REMOVED)).await;
    p.ok("DeleteTrigger", named(host, "cos")).await;
    assert!(p.control.triggers().is_empty());
}

#[tokio::test]
async fn what_triggers_lead_to_stays() {
    let p = platform().await;
    p.ok("PublishVersion", json!({"FunctionName": "hello"})).await;
    p.ok("CreateAlias", json!({"FunctionName": "hello", "Name": "live", "FunctionVersion": "1"})).await;
    p.ok("CreateTrigger", with(trigger("t", "timer", "0 * * * * * *"), json!({"Qualifier": "live"}))).await;
    let alias = json!({"FunctionName": "hello", "Name": "live"});
    assert_eq!(p.code("DeleteAlias", alias.clone()).await, "FailedOperation.DeleteAlias");
    p.ok("DeleteTrigger", named("t", "timer")).await;
    p.ok("DeleteAlias", alias).await;
}

fn call(event: &str, run_errors: u32, last: bool) -> TriggeredCall {
    TriggeredCall {
        id: RequestId(9),
        namespace: "default".into(),
        function: "hello".into(),
        qualifier: "$LATEST".into(),
        source: "ckafka",
        event: event.to_owned().into(),
        reference: r#"{"at":"5"}"#.into(),
        since_ms: 1,
        run_errors,
        turned_away: 0,
        last,
    }
}

#[tokio::test]
async fn synchronous_calls_of_triggers_end_in_one_of_four_ways() {
    let p = platform().await;
    p.ok(
        "UpdateFunctionConfiguration",
        json!({"FunctionName": "hello", "DeadLetterConfig": {"Type": "CMQ-QUEUE", "Name": "q1"}}),
    )
    .await;
    let answers = |status: Status, body: &'static str| {
        *p.invoker.script.lock() = Box::new(move |_, _| (status, body.into(), Duration::ZERO));
    };
    let failures = async || p.ok("ListFailures", json!({"Filter": {}})).await["TotalCount"].clone();
    assert_eq!(p.control.call_for_trigger(call("{}", 0, false)).await, CallEnd::Done);
    // The platform's trouble is nobody's failure, however often it comes.
    for status in [Status::CONCURRENCY_EXCEEDED, Status::RESOURCE_LIMIT, Status::INTERNAL, Status::CANCELED] {
        answers(status, "full");
        assert_eq!(p.control.call_for_trigger(call("{}", 0, true)).await, CallEnd::Later("full".into()));
    }
    answers(Status::USER_EXCEPTION, r#"{"errorMessage":"boom"}"#);
    assert_eq!(p.control.call_for_trigger(call("{}", 0, false)).await, CallEnd::Failed("boom".into()));
    assert_eq!(failures().await, json!(0), "what is tried again is none yet");
    let (stop, control) = (tokio_util::sync::CancellationToken::new(), p.control.clone());
    let token = stop.clone();
    let task = tokio::spawn(async move { control.run_events(token).await });
    assert_eq!(p.control.call_for_trigger(call(r#"{"n":1}"#, 3, true)).await, CallEnd::GivenUp("boom".into()));
    assert_eq!(p.invoker.calls.lock().last().unwrap().1.retry, 3);
    let kept = p.ok("GetFailure", json!({"FunctionRequestId": RequestId(9).to_string()})).await;
    assert_eq!(
        (&kept["Event"], &kept["Source"], &kept["RetryNum"]),
        (&json!(r#"{"n":1}"#), &json!("ckafka"), &json!(3))
    );
    until(|| p.queues.sent.lock().len() == 1).await;
    assert_eq!(p.queues.sent.lock()[0].1["Body"]["RequestSource"], "TRIGGER_CKAFKA");
    // Too large for any function: it is not called, and what is kept says where the event is.
    let calls = p.invoker.calls.lock().len();
    let large = format!("\"{}\"", "x".repeat(6 << 20));
    let ended = p.control.call_for_trigger(TriggeredCall { id: RequestId(10), ..call(&large, 0, false) }).await;
    assert!(matches!(&ended, CallEnd::GivenUp(why) if why.contains("6291456")), "{ended:?}");
    assert_eq!(p.invoker.calls.lock().len(), calls);
    let kept = p.ok("GetFailure", json!({"FunctionRequestId": RequestId(10).to_string()})).await;
    assert_eq!(kept["Event"], json!(r#"{"at":"5"}"#));
    // A version that is not there may come.
    let elsewhere = TriggeredCall { qualifier: "7".into(), ..call("{}", 0, true) };
    assert!(matches!(p.control.call_for_trigger(elsewhere).await, CallEnd::Later(_)));
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_event_is_taken_in_once() {
    let p = Platform::new().await;
    p.create("hello").await;
    let event = |maybe_again| TriggeredEvent {
        id: RequestId(7),
        namespace: "default".into(),
        function: "hello".into(),
        qualifier: "$LATEST".into(),
        source: "timer".into(),
        event: r#"{"Type":"Timer"}"#.into(),
        maybe_again,
    };
    p.control.accept_event(event(false)).await.unwrap();
    p.control.accept_event(event(false)).await.unwrap();
    assert_eq!(p.control.events().depth(), (1, 0), "it waits already");
    let stop = tokio_util::sync::CancellationToken::new();
    let (control, token) = (p.control.clone(), stop.clone());
    let task = tokio::spawn(async move { control.run_events(token).await });
    until(|| p.control.events().depth() == (0, 0)).await;
    // After a crash it is looked for among the records.
    p.control.accept_event(event(true)).await.unwrap();
    assert_eq!(p.control.events().depth(), (0, 0));
    stop.cancel();
    task.await.unwrap();
    assert_eq!(p.invoker.calls.lock().len(), 1);
    let gone = TriggeredEvent { function: "gone".into(), ..event(false) };
    let large = TriggeredEvent { event: "1".repeat(200_000), ..event(false) };
    let code = |e| async { p.control.accept_event(e).await.unwrap_err().code };
    assert_eq!(code(gone).await, "ResourceNotFound.Function");
    assert_eq!(code(large).await, "InvalidParameter.RequestTooLarge");
}
