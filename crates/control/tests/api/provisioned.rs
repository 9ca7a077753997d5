//! Provisioned concurrency: orders to keep instances ready.

use crate::harness::{Platform, create, with};
use mayfly_control::{Options, ProvisionedState, RouteChange};
use mayfly_store::EventLimits;
use serde_json::{Value, json};

/// A platform with the function `hello` of 128 MB and its versions 1 and 2.
async fn platform(options: Options) -> Platform {
    let p = Platform::with(options, EventLimits::default(), false).await;
    p.create("hello").await;
    for _ in 0..2 {
        p.ok("PublishVersion", json!({"FunctionName": "hello"})).await;
    }
    p
}

fn put(version: &str, count: i64) -> Value {
    json!({"FunctionName": "hello", "Qualifier": version, "VersionProvisionedConcurrencyNum": count})
}

fn tracking(target: f64, min: i64, max: i64) -> Value {
    let fields = json!({"ProvisionedType": "ConcurrencyUtilizationTracking", "TrackingTarget": target, "MinCapacity": min, "MaxCapacity": max});
    with(put("2", 0), fields)
}

fn action(name: &str, cron: &str, count: i64) -> Value {
    json!({"TriggerName": name, "TriggerCronConfig": cron, "TriggerProvisionedConcurrencyNum": count})
}

fn named() -> Value {
    json!({"FunctionName": "hello"})
}

/// The orders that the keeper of instances was told, in order.
fn told(p: &Platform) -> Vec<(String, Option<u32>)> {
    let changes = p.invoker.changes.lock();
    let orders = changes.iter().filter_map(|change| match change {
        RouteChange::Provisioned { target, order } => {
            Some((target.spec.key.version.clone(), order.as_ref().map(|o| o.config.most())))
        }
        _ => None,
    });
    orders.collect()
}

#[tokio::test]
async fn orders_are_told_shown_kept_and_withdrawn() {
    let p = platform(Options::default()).await;
    let empty = p.ok("GetProvisionedConcurrencyConfig", named()).await;
    assert_eq!((&empty["Allocated"], &empty["UnallocatedConcurrencyNum"]), (&json!([]), &json!(1000)));
    p.ok("PutProvisionedConcurrencyConfig", put("1", 5)).await;
    p.ok("PutProvisionedConcurrencyConfig", tracking(0.6, 2, 10)).await;
    p.ok("PutProvisionedConcurrencyConfig", put("1", 7)).await;
    assert_eq!(told(&p), [("1".into(), Some(5)), ("2".into(), Some(10)), ("1".into(), Some(7))]);
    *p.invoker.ready.lock() = Some(ProvisionedState { wanted: 7, ready: 3, blocked: None });
    let shown = p.ok("GetProvisionedConcurrencyConfig", named()).await;
    assert_eq!(shown["UnallocatedConcurrencyNum"], json!(1000 - 17), "17 of 1000 instances of 128 MB");
    let one = &shown["Allocated"][0];
    let numbers = (&one["AllocatedProvisionedConcurrencyNum"], &one["AvailableProvisionedConcurrencyNum"]);
    assert_eq!(
        (&one["Qualifier"], numbers, &one["Status"]),
        (&json!("1"), (&json!(7), &json!(3)), &json!("InProgress"))
    );
    let two = &shown["Allocated"][1];
    assert_eq!(
        (&two["ProvisionedType"], &two["TrackingTarget"]),
        (&json!("ConcurrencyUtilizationTracking"), &json!(0.6))
    );
    assert_eq!((&two["MinCapacity"], &two["MaxCapacity"]), (&json!(2), &json!(10)));
    let list = p.ok("ListFunctions", json!({})).await;
    assert_eq!(list["Functions"][0]["TotalProvisionedConcurrencyMem"], json!(17 * 128));

    let p = p.restart().await;
    let mut stored: Vec<_> =
        p.control.provisioned().iter().map(|(t, o)| (t.spec.key.version.clone(), o.wanted(u64::MAX / 2))).collect();
    stored.sort();
    assert_eq!(stored, [("1".to_owned(), 7), ("2".to_owned(), 2)], "orders outlive the process");
    let only = p.ok("GetProvisionedConcurrencyConfig", with(named(), json!({"Qualifier": "2"}))).await;
    assert_eq!(only["Allocated"].as_array().unwrap().len(), 1);
    assert_eq!(only["Allocated"][0]["Status"], json!("Failed"), "nobody keeps them");
    assert_ne!(only["Allocated"][0]["StatusReason"], json!(""));

    let which = |version: &str| with(named(), json!({"Qualifier": version}));
    p.ok("DeleteProvisionedConcurrencyConfig", which("1")).await;
    p.ok("DeleteProvisionedConcurrencyConfig", which("1")).await;
    p.ok("DeleteFunctionVersion", which("2")).await;
    assert_eq!(told(&p), [("1".into(), None), ("2".into(), None)], "an order goes with its version");
    assert!(p.control.provisioned().is_empty());
    p.ok("PutProvisionedConcurrencyConfig", put("1", 1)).await;
    p.ok("DeleteFunction", named()).await;
    assert_eq!(told(&p).last(), Some(&("1".to_owned(), None)));
}

#[tokio::test]
async fn states_have_the_words_of_scf() {
    let p = platform(Options::default()).await;
    p.ok("PutProvisionedConcurrencyConfig", put("1", 2)).await;
    let full = Some("No memory is left.".to_owned());
    for (ready, blocked, status, reason) in [
        (2, None, "Done", ""),
        (1, None, "InProgress", ""),
        (1, full.clone(), "Failed", "No memory is left."),
        (2, full, "Done", ""),
    ] {
        *p.invoker.ready.lock() = Some(ProvisionedState { wanted: 2, ready, blocked });
        let shown = p.ok("GetProvisionedConcurrencyConfig", named()).await["Allocated"][0].clone();
        assert_eq!((&shown["Status"], &shown["StatusReason"]), (&json!(status), &json!(reason)), "{ready}");
    }
}

#[tokio::test]
async fn schedules_are_stored_and_shown() {
    let p = platform(Options::default()).await;
    let actions = json!([action("up", " 0 0  9 * * MON-FRI * ", 20), action("down", "0 0 18 * * * *", 0)]);
    p.ok("PutProvisionedConcurrencyConfig", with(put("1", 2), json!({"TriggerActions": actions}))).await;
    let shown = p.ok("GetProvisionedConcurrencyConfig", named()).await["Allocated"][0].clone();
    assert_eq!(shown["AllocatedProvisionedConcurrencyNum"], json!(2), "nothing has fired since the order");
    let first = &shown["TriggerActions"][0];
    assert_eq!(
        (&first["TriggerCronConfig"], &first["ProvisionedType"]),
        (&json!("0 0 9 * * MON-FRI *"), &json!("Default"))
    );
    let (target, order) = p.control.provisioned().remove(0);
    assert_eq!(target.spec.key.version, "1");
    let change = order.next_change_ms(crate::harness::EPOCH_MS).unwrap();
    assert!(change > crate::harness::EPOCH_MS && order.wanted(change) != 2);
}

#[tokio::test]
async fn bad_orders_are_named() {
    let p = platform(Options::default()).await;
    let v = "InvalidParameterValue";
    let actions = |actions: Value| with(put("1", 1), json!({"TriggerActions": actions}));
    let cron = |cron: &str| actions(json!([action("a", cron, 1)]));
    let many: Vec<Value> = (0..11).map(|n| action(&format!("a{n}"), &format!("{n} 0 0 * * * *"), 1)).collect();
    for (request, code) in [
        (put("$LATEST", 1), format!("{v}.Qualifier")),
        (put("$DEFAULT", 1), format!("{v}.Qualifier")),
        (put("", 1), format!("{v}.Qualifier")),
        (put("9", 1), "ResourceNotFound.FunctionVersion".into()),
        (put("1", -1), v.into()),
        (with(put("1", 1), json!({"FunctionName": "nobody"})), "ResourceNotFound.Function".into()),
        (with(put("1", 1), json!({"ProvisionedType": "Magic"})), format!("{v}.ProvisionType")),
        (json!({"FunctionName": "hello", "Qualifier": "1"}), "MissingParameter".into()),
        (tracking(0.0, 1, 2), format!("{v}.TrackingTarget")),
        (tracking(1.0, 1, 2), format!("{v}.TrackingTarget")),
        (tracking(0.5, 0, 2), format!("{v}.MinCapacity")),
        (tracking(0.5, 3, 2), format!("{v}.MinCapacity")),
        (tracking(0.5, 1, 1 << 40), "LimitExceeded.MaxCapacity".into()),
        (with(tracking(0.5, 1, 2), json!({"VersionProvisionedConcurrencyNum": 1})), v.into()),
        (
            with(tracking(0.5, 1, 2), json!({"TriggerActions": [action("a", "0 0 0 * * * *", 1)]})),
            format!("{v}.ProvisionType"),
        ),
        (with(tracking(0.5, 1, 2), json!({"MaxCapacity": null})), "MissingParameter".into()),
        (actions(json!([action("", "0 0 0 * * * *", 1)])), format!("{v}.ProvisionTriggerName")),
        (actions(json!([action("a", "0 0 0 * * * *", -1)])), format!("{v}.TriggerProvisionedConcurrencyNum")),
        (cron("0 0 9 * *"), format!("{v}.TriggerCronConfig")),
        (cron("0 0 0 31 2 * *"), format!("{v}.TriggerCronConfig")),
        (cron("*/5 0 9 * * * *"), format!("{v}.TriggerCronConfigTimeInterval")),
        (
            actions(json!([action("a", "0 0 0 * * * *", 1), action("a", "0 0 1 * * * *", 1)])),
            format!("{v}.ProvisionTriggerNameDuplicate"),
        ),
        (
            actions(json!([action("a", "0 0 0 * * * *", 1), action("b", "0  0 0 * * * *", 2)])),
            format!("{v}.ProvisionTriggerCronConfigDuplicate"),
        ),
        (actions(json!(many)), "LimitExceeded.ProvisionTriggerAction".into()),
    ] {
        let answer = p.call("PutProvisionedConcurrencyConfig", request.clone()).await;
        assert_eq!(answer["Error"]["Code"], json!(code), "{request}: {answer}");
    }
    let unknown = with(named(), json!({"Qualifier": "9"}));
    for action in ["GetProvisionedConcurrencyConfig", "DeleteProvisionedConcurrencyConfig"] {
        assert_eq!(p.code(action, unknown.clone()).await, "ResourceNotFound.FunctionVersion");
        let nobody = json!({"FunctionName": "nobody", "Qualifier": "1"});
        assert_eq!(p.code(action, nobody).await, "ResourceNotFound.Function");
    }
    assert!(told(&p).is_empty(), "nothing was ordered");
}

#[tokio::test]
async fn memory_bounds_what_can_be_ordered() {
    let p = platform(Options { account_mb: 1280, ..Options::default() }).await;
    p.ok("CreateFunction", with(create("other"), json!({"MemorySize": 256}))).await;
    p.ok("PublishVersion", json!({"FunctionName": "other"})).await;
    let total = "LimitExceeded.FunctionTotalProvisionedConcurrencyMemory";
    let own = "LimitExceeded.FunctionProvisionedConcurrencyMemory";
    p.ok("PutProvisionedConcurrencyConfig", put("1", 6)).await;
    let other = |n: i64| with(put("1", n), json!({"FunctionName": "other"}));
    assert_eq!(p.code("PutProvisionedConcurrencyConfig", other(3)).await, total);
    p.ok("PutProvisionedConcurrencyConfig", other(2)).await;
    assert_eq!(p.ok("GetProvisionedConcurrencyConfig", named()).await["UnallocatedConcurrencyNum"], json!(0));
    assert_eq!(p.code("PutProvisionedConcurrencyConfig", put("1", 7)).await, total);
    let scheduled = with(put("1", 0), json!({"TriggerActions": [action("a", "0 0 0 * * * *", 7)]}));
    assert_eq!(p.code("PutProvisionedConcurrencyConfig", scheduled).await, total, "what a schedule asks for counts");
    p.ok("PutProvisionedConcurrencyConfig", put("1", 3)).await;
    assert_eq!(p.code("PutProvisionedConcurrencyConfig", put("2", 11)).await, own);
    let account = p.ok("GetAccount", json!({})).await;
    assert_eq!(account["AccountUsage"]["Namespace"][0]["TotalAllocatedProvisionedMem"], json!(3 * 128 + 2 * 256));
}
