//! Reserved concurrency and the account.

use crate::harness::Platform;
use mayfly_control::RouteChange;
use serde_json::json;

#[tokio::test]
async fn reservations_have_a_sum() {
    let p = Platform::new().await;
    p.create("one").await;
    p.create("two").await;
    let get = |name: &str| json!({"FunctionName": name});
    let put = |name: &str, mb: i64| json!({"FunctionName": name, "ReservedConcurrencyMem": mb});
    assert_eq!(p.ok("GetReservedConcurrencyConfig", get("one")).await["ReservedMem"], json!(null));
    let target = p.control.catalogue().resolve("default", "one", "$LATEST", &[], 0.0).unwrap();
    assert_eq!(target.quota.reserved_mb(), None);
    p.ok("PutReservedConcurrencyConfig", put("one", 100_000)).await;
    assert_eq!(target.quota.reserved_mb(), Some(100_000), "the hot path sees it at once");
    assert_eq!(p.ok("GetReservedConcurrencyConfig", get("one")).await["ReservedMem"], json!(100_000));
    assert_eq!(
        p.code("PutReservedConcurrencyConfig", put("two", 15_201)).await,
        "LimitExceeded.FunctionReservedConcurrencyMemory"
    );
    p.ok("PutReservedConcurrencyConfig", put("two", 15_200)).await;
    p.ok("PutReservedConcurrencyConfig", put("one", 0)).await;
    assert_eq!(target.quota.reserved_mb(), Some(0));
    p.ok("PutReservedConcurrencyConfig", put("two", 115_200)).await;
    let p = p.restart().await;
    assert_eq!(
        p.code("PutReservedConcurrencyConfig", put("one", 1)).await,
        "LimitExceeded.FunctionReservedConcurrencyMemory"
    );
    p.ok("DeleteFunction", get("two")).await;
    p.ok("PutReservedConcurrencyConfig", put("one", 1)).await;
    p.ok("DeleteReservedConcurrencyConfig", get("one")).await;
    p.ok("DeleteReservedConcurrencyConfig", get("one")).await;
    let quotas: Vec<_> = p
        .invoker
        .changes
        .lock()
        .iter()
        .filter_map(|c| match c {
            RouteChange::Quota { reserved_mb, .. } => Some(*reserved_mb),
            _ => None,
        })
        .collect();
    assert_eq!(quotas, [Some(1), None]);
    assert_eq!(p.code("PutReservedConcurrencyConfig", put("one", -1)).await, "InvalidParameterValue");
    assert_eq!(p.code("PutReservedConcurrencyConfig", put("two", 1)).await, "ResourceNotFound.Function");
    assert_eq!(p.code("GetReservedConcurrencyConfig", get("two")).await, "ResourceNotFound.Function");
    assert_eq!(p.code("DeleteReservedConcurrencyConfig", get("two")).await, "ResourceNotFound.Function");
}

#[tokio::test]
async fn the_account_counts_what_is_there() {
    let p = Platform::new().await;
    p.create("bb").await;
    p.create("aa").await;
    p.ok("PutReservedConcurrencyConfig", json!({"FunctionName": "aa", "ReservedConcurrencyMem": 256})).await;
    let account = p.ok("GetAccount", json!({})).await;
    let usage = &account["AccountUsage"];
    assert_eq!((&usage["NamespacesCount"], &usage["TotalAllocatedConcurrencyMem"]), (&json!(1), &json!(256)));
    assert_eq!(usage["Namespace"][0]["Functions"], json!(["aa", "bb"]));
    assert_eq!(account["AccountLimit"]["NamespacesCount"], json!(5));
    assert_eq!(account["AccountLimit"]["Namespace"][0]["TimeoutLimit"], json!(900));
}

#[tokio::test]
async fn bounds_are_checked_told_shown_and_kept() {
    let p = Platform::new().await;
    p.create("one").await;
    let put = |fields: serde_json::Value| {
        let mut request = json!({"FunctionName": "one"});
        request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        request
    };
    p.ok("PutFunctionScaling", put(json!({"MinInstances": 2, "MaxInstances": 5}))).await;
    p.ok("PutFunctionScaling", put(json!({"Forecast": "eager"}))).await;
    p.ok("PutFunctionScaling", put(json!({"MaxInstances": 0}))).await;
    for bad in [
        json!({"MinInstances": -1}),
        json!({"MinInstances": 1001}),
        json!({"MaxInstances": 1}),
        json!({"MaxInstances": 100_001}),
        json!({"Forecast": "always"}),
    ] {
        assert_eq!(p.code("PutFunctionScaling", put(bad.clone())).await, "InvalidParameterValue", "{bad}");
    }
    assert_eq!(
        p.code("PutFunctionScaling", json!({"FunctionName": "two", "MinInstances": 1})).await,
        "ResourceNotFound.Function"
    );
    let told = |p: &Platform| -> Vec<(String, u32, Option<u32>)> {
        let changes = p.invoker.changes.lock();
        let scaling = changes.iter().filter_map(|c| match c {
            RouteChange::Scaling { main, scaling } => {
                Some((main.spec.key.version.clone(), scaling.min_instances, scaling.max_instances))
            }
            _ => None,
        });
        scaling.collect()
    };
    let latest = |min, max| ("$LATEST".to_owned(), min, max);
    assert_eq!(told(&p), [latest(2, Some(5)), latest(2, Some(5)), latest(2, None)]);
    // The minimum goes where calls without a qualifier go.
    p.ok("PublishVersion", json!({"FunctionName": "one"})).await;
    p.ok("UpdateAlias", json!({"FunctionName": "one", "Name": "$DEFAULT", "FunctionVersion": "1"})).await;
    assert_eq!(told(&p).last().unwrap(), &("1".to_owned(), 2, None));
    let p = p.restart().await;
    let kept = p.control.scaling();
    assert_eq!((kept.len(), kept[0].0.spec.key.version.as_str(), kept[0].1.min_instances), (1, "1", 2));
    let shown = p.ok("GetFunction", json!({"FunctionName": "one"})).await;
    assert_eq!((&shown["MinInstances"], &shown["MaxInstances"]), (&json!(2), &json!(0)));
    assert_eq!(shown["Forecast"], "eager");
    let answer = p.ok("GetForecast", json!({"FunctionName": "one"})).await;
    assert_eq!(answer["TotalCount"], 0);
    assert_eq!(p.ok("ListDemand", json!({})).await["TotalCount"], 0);
    assert_eq!(p.code("ListDemand", json!({"Limit": 0})).await, "InvalidParameterValue");
    assert_eq!(p.code("ListDemand", json!({"StartTime": -1})).await, "InvalidParameterValue");
}
