//! Instances that are there before anybody asks: provisioned concurrency on a whole platform.

use mayfly_testkit::{Setup, can_sandbox, eventually};
use serde_json::json;

const CODE: &str = "import os\nMARK = os.urandom(4).hex()\ndef main_handler(e, c):\n    if e == 'die':\n        os._exit(1)\n    return MARK\n";

/// Ends one of the instances of version 1.
fn call_and_die(p: &mayfly_testkit::Platform) {
    let request = json!({ "FunctionName": "kept", "Qualifier": "1", "ClientContext": "\"die\"" });
    let died = p.must("Invoke", request);
    assert_eq!(died["Result"]["InvokeResult"], -1, "{died}");
}

#[test]
fn what_is_ordered_is_ready_before_the_first_call_and_comes_back() {
    if !can_sandbox() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let setup = || Setup::new(env!("CARGO_BIN_EXE_mayfly")).data(data.path()).arguments(&["--keep-alive-s", "1"]);
    let p = setup().start();
    p.create("kept", "Python3.9", "index.main_handler", &[("index.py", CODE)], json!({}));
    p.must("PublishVersion", json!({ "FunctionName": "kept" }));
    let order = json!({ "FunctionName": "kept", "Qualifier": "1", "VersionProvisionedConcurrencyNum": 3 });
    p.must("PutProvisionedConcurrencyConfig", order);
    let allocated = |p: &mayfly_testkit::Platform| {
        p.must("GetProvisionedConcurrencyConfig", json!({ "FunctionName": "kept" }))["Allocated"][0].clone()
    };
    let done = |p: &mayfly_testkit::Platform| {
        let order = allocated(p);
        order["Status"] == "Done" && order["AvailableProvisionedConcurrencyNum"] == 3
    };
    eventually("three are ready", || done(&p));
    let call = || {
        let request = json!({ "FunctionName": "kept", "Qualifier": "1", "ClientContext": "1", "LogType": "Tail" });
        p.must("Invoke", request)["Result"].clone()
    };
    let first = call();
    assert!(!first["Log"].as_str().unwrap().contains("Coldstart"), "the first call waited for no start: {first}");
    // They stay, whatever the keep-alive, and what dies is replaced.
    let begun = std::time::Instant::now();
    eventually("longer than the keep-alive", || begun.elapsed().as_secs() >= 3);
    assert!(done(&p), "{}", allocated(&p));
    call_and_die(&p);
    eventually("three are ready once more", || done(&p));

    // After a kill the order is there again, and carried out.
    p.kill();
    let p = setup().start();
    eventually("three are ready again", || done(&p));
    p.must("DeleteProvisionedConcurrencyConfig", json!({ "FunctionName": "kept", "Qualifier": "1" }));
    eventually("they go", || {
        let metrics = p.get("/metrics").1;
        let idle = metrics
            .lines()
            .find(|l| l.starts_with("mayfly_instances") && l.contains("\"python\"") && l.contains("\"idle\""));
        idle.is_some_and(|l| l.ends_with(" 0"))
    });
}

#[test]
fn an_order_for_broken_code_says_so() {
    if !can_sandbox() {
        return;
    }
    let p = Setup::new(env!("CARGO_BIN_EXE_mayfly")).start();
    p.create(
        "broken",
        "Python3.9",
        "index.main_handler",
        &[("index.py", "raise ValueError('on purpose')\n")],
        json!({}),
    );
    p.must("PublishVersion", json!({ "FunctionName": "broken" }));
    let order = json!({ "FunctionName": "broken", "Qualifier": "1", "VersionProvisionedConcurrencyNum": 2 });
    p.must("PutProvisionedConcurrencyConfig", order);
    eventually("the order shows its failure", || {
        let answer = p.must("GetProvisionedConcurrencyConfig", json!({ "FunctionName": "broken" }));
        answer["Allocated"][0]["Status"] == "Failed"
            && answer["Allocated"][0]["StatusReason"].as_str().is_some_and(|r| !r.is_empty())
    });
}
