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
            RouteChange::Retired { .. } | RouteChange::Provisioned { .. } => None,
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
