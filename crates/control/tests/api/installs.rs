//! Installs of dependencies: what a function's status says, what serves meanwhile, and what a restart makes of it.

use crate::harness::*;
use serde_json::{Value, json};

fn code(wanted: &str) -> Value {
    json!({"ZipFile": base64_of(&package_of(&[("index.py", "old"), ("requirements.txt", wanted)]))})
}

async fn create(p: &Platform, name: &str, wanted: &str) {
    let request = json!({"FunctionName": name, "Runtime": "Python3.9", "Handler": "index.main", "Code": code(wanted), "InstallDependency": "TRUE"});
    p.ok("CreateFunction", request).await;
}

async fn update(p: &Platform, name: &str, wanted: &str) {
    p.ok("UpdateFunctionCode", json!({"FunctionName": name, "Code": code(wanted)})).await;
}

/// Waits for a status.
async fn until(p: &Platform, name: &str, status: &str) -> Value {
    for _ in 0..1000 {
        let function = p.ok("GetFunction", json!({"FunctionName": name})).await;
        if function["Status"] == status {
            return function;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("{name} is never {status}");
}

#[tokio::test]
async fn a_function_is_created_when_its_dependencies_are_there() {
    let p = Platform::new().await;
    create(&p, "good", "ok").await;
    let function = until(&p, "good", "Active").await;
    assert_eq!((&function["InstallDependency"], &function["CodeResult"]), (&json!("TRUE"), &json!("success")));
    let address = p.ok("GetFunctionAddress", json!({"FunctionName": "good"})).await;
    assert_ne!(address["CodeSha256"], address["SourceSha256"]);
    assert_eq!(p.control.live_digests().len(), 2, "the package as it was uploaded is kept too");
    let log = p.ok("GetInstallLog", json!({"FunctionName": "good"})).await;
    assert_eq!(
        (&log["Lines"], &log["NextOffset"], &log["Status"]),
        (&json!(["asked for ok"]), &json!(1), &json!("Active"))
    );
    let log = p.ok("GetInstallLog", json!({"FunctionName": "good", "Offset": 1})).await;
    assert_eq!((&log["Lines"], &log["NextOffset"]), (&json!([]), &json!(1)));
    p.ok("Invoke", json!({"FunctionName": "good"})).await;

    create(&p, "bad", "nonsense").await;
    let function = until(&p, "bad", "CreateFailed").await;
    assert!(function["StatusReasons"][0]["ErrorMessage"].as_str().unwrap().ends_with("last line"), "{function}");
    assert_eq!(function["StatusDesc"], "no such requirement: nonsense");
    for (action, more) in [("Invoke", json!({})), ("PublishVersion", json!({}))] {
        let mut request = json!({"FunctionName": "bad"});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(p.code(action, request).await, "FailedOperation.FunctionStatusError", "{action}");
    }
    assert!(p.control.resolve_url("default", "bad", None).is_err());
    // Settings do not mend it, code does.
    p.ok("UpdateFunctionConfiguration", json!({"FunctionName": "bad", "MemorySize": 256})).await;
    until(&p, "bad", "CreateFailed").await;
    update(&p, "bad", "ok").await;
    until(&p, "bad", "Active").await;
    let listed = p.ok("ListFunctions", json!({"Filters": [{"Name": "Status", "Values": ["Active"]}]})).await;
    assert_eq!(listed["TotalCount"], 2);
}

#[tokio::test]
async fn the_old_code_serves_during_an_update_and_after_a_failed_one() {
    let p = Platform::new().await;
    create(&p, "fn", "ok").await;
    until(&p, "fn", "Active").await;
    let before = p.ok("GetFunctionAddress", json!({"FunctionName": "fn"})).await;
    update(&p, "fn", "slow").await;
    until(&p, "fn", "Updating").await;
    p.ok("Invoke", json!({"FunctionName": "fn"})).await;
    for (action, more) in [
        ("UpdateFunctionCode", json!({"Code": code("ok")})),
        ("UpdateFunctionConfiguration", json!({"MemorySize": 256})),
        ("PublishVersion", json!({})),
    ] {
        let mut request = json!({"FunctionName": "fn"});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(p.code(action, request).await, "FailedOperation.FunctionStatusError", "{action}");
    }
    // Deleting ends the install, and the name is free.
    p.ok("DeleteFunction", json!({"FunctionName": "fn"})).await;
    create(&p, "fn", "ok").await;
    until(&p, "fn", "Active").await;
    update(&p, "fn", "nonsense").await;
    until(&p, "fn", "UpdateFailed").await;
    let after = p.ok("GetFunctionAddress", json!({"FunctionName": "fn"})).await;
    assert_eq!((&before["CodeSha256"], &before["SourceSha256"]), (&after["CodeSha256"], &after["SourceSha256"]));
    p.ok("Invoke", json!({"FunctionName": "fn"})).await;
    p.ok("UpdateFunctionConfiguration", json!({"FunctionName": "fn", "MemorySize": 256})).await;
    until(&p, "fn", "Active").await;
    // With the code comes a version, when that was asked for.
    let request = json!({"FunctionName": "fn", "Code": code("ok"), "Publish": "TRUE"});
    p.ok("UpdateFunctionCode", request).await;
    until(&p, "fn", "Active").await;
    assert_eq!(p.ok("ListVersionByFunction", json!({"FunctionName": "fn"})).await["TotalCount"], 2);
    // FALSE takes the package as it is.
    let request = json!({"FunctionName": "fn", "Code": code("nonsense"), "InstallDependency": "FALSE"});
    p.ok("UpdateFunctionCode", request).await;
    assert_eq!(until(&p, "fn", "Active").await["InstallDependency"], "FALSE");
}

#[tokio::test]
async fn an_install_that_a_restart_cut_begins_again_and_not_for_ever() {
    let mut p = Platform::new().await;
    create(&p, "fn", "slow").await;
    for _ in 0..3 {
        p.control.interrupt_installs();
        p = p.restart().await;
        assert_eq!(until(&p, "fn", "Creating").await["StatusDesc"], "the dependencies are being installed");
        // It counts before it begins, and tells when it has begun.
        for _ in 0..1000 {
            if p.ok("GetInstallLog", json!({"FunctionName": "fn"})).await["Lines"] == json!(["asked for slow"]) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
    p = p.restart().await;
    let function = until(&p, "fn", "CreateFailed").await;
    assert!(function["StatusDesc"].as_str().unwrap().contains("again and again"), "{function}");
}
