//! Failures on a whole platform: a thousand of them replayed onto a fixed version, through `kill -9`; edited events, rates, synchronous ones,
//! the disk budget; and the command line over them.

use mayfly_testkit::{Platform, Setup, can_sandbox, zip_base64};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// How long a thousand events may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);

const BROKEN: &str =
    "import os\ndef main_handler(event, context):\n    print('about to fail')\n    return event['missing']\n";
const FIXED: &str = "def main_handler(event, context):\n    return {'n': event['n'], 'edited': event.get('edited')}\n";

fn start(data: &Path) -> Platform {
    Setup::new(env!("CARGO_BIN_EXE_mayfly")).data(data).start()
}

/// Waits until `holds`, or panics with what it says.
fn wait(mut holds: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(why) = holds() {
        assert!(Instant::now() < deadline, "not in time: {why}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A function that fails, whose events are tried once.
fn broken(platform: &Platform, name: &str) {
    let variables = json!({"Environment": {"Variables": [{"Key": "TOKEN", "Value": "very-secret"}]}});
    platform.create(name, "Python3.9", "index.main_handler", &[("index.py", BROKEN)], variables);
    let policy = json!({"RetryConfig": [{"RetryNum": 0}], "MsgTTL": 600});
    platform.must("UpdateFunctionEventInvokeConfig", json!({"FunctionName": name, "AsyncTriggerConfig": policy}));
}

/// Puts a version in place that works, and returns its number.
fn repair(platform: &Platform, name: &str) -> String {
    platform.must("UpdateFunctionCode", json!({"FunctionName": name, "ZipFile": zip_base64(&[("index.py", FIXED)])}));
    let published = platform.must("PublishVersion", json!({"FunctionName": name}));
    published["FunctionVersion"].as_str().unwrap().to_owned()
}

fn send(platform: &Platform, name: &str, count: usize) -> BTreeSet<String> {
    let one = |n| {
        let event =
            json!({"FunctionName": name, "InvocationType": "Event", "ClientContext": json!({"n": n}).to_string()});
        platform.must("Invoke", event)["RequestId"].as_str().unwrap().to_owned()
    };
    (0..count).map(one).collect()
}

fn kept(platform: &Platform, filter: Value) -> u64 {
    platform.must("ListFailures", json!({"Filter": filter, "Limit": 1}))["TotalCount"].as_u64().unwrap()
}

fn wait_kept(platform: &Platform, name: &str, count: u64) {
    wait(|| match kept(platform, json!({"FunctionName": name})) {
        n if n == count => Ok(()),
        n => Err(format!("{n} of {count} failures are kept")),
    });
}

fn job_over(platform: &Platform, id: &Value) -> Value {
    let mut last = Value::Null;
    wait(|| {
        last = platform.must("GetReplayJob", json!({"JobId": id}))["Job"].clone();
        if last["IsOver"] == true { Ok(()) } else { Err(last.to_string()) }
    });
    last
}

/// The command line, on a platform.
fn mayfly(platform: &Platform, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mayfly"))
        .args(arguments)
        .args(["--endpoint", &format!("http://{}", platform.address)])
        .args(["--secret-id", mayfly_testkit::SECRET_ID])
        .env("MAYFLY_SECRET_ID", mayfly_testkit::SECRET_ID)
        .env("MAYFLY_SECRET_KEY", mayfly_testkit::SECRET_KEY)
        .args(["--secret-key", mayfly_testkit::SECRET_KEY])
        .output()
        .unwrap()
}

#[track_caller]
fn printed(output: &Output, code: i32) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn a_thousand_failures_are_replayed_onto_a_fixed_version_through_kill_9() {
    if !can_sandbox() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let mut platform = start(data.path());
    broken(&platform, "work");
    let mut ids = BTreeSet::new();
    // Killed while events fail, five times: each event is pending or its failure is kept.
    for _ in 0..5 {
        ids.extend(send(&platform, "work", 200));
        platform.kill();
        platform = start(data.path());
    }
    wait_kept(&platform, "work", 1000);
    let version = repair(&platform, "work");
    let request = json!({"Filter": {"FunctionName": "work"}, "Qualifier": version, "Rate": 250, "ClientToken": "once"});
    let job = platform.must("ReplayFailures", request.clone());
    assert_eq!(job["Job"]["Total"], 1000);
    for share in [100, 400] {
        wait(|| match platform.must("GetReplayJob", json!({"JobId": job["JobId"]}))["Job"]["Succeeded"].as_u64() {
            Some(n) if n >= share => Ok(()),
            n => Err(format!("{n:?} replays have succeeded")),
        });
        platform.kill();
        platform = start(data.path());
        assert_eq!(platform.must("ReplayFailures", request.clone())["JobId"], job["JobId"], "it is the same job");
    }
    let over = job_over(&platform, &job["JobId"]);
    assert_eq!(
        (&over["State"], &over["Sent"], &over["Succeeded"], &over["Failed"]),
        (&json!("done"), &json!(1000), &json!(1000), &json!(0))
    );
    assert_eq!(kept(&platform, json!({"FunctionName": "work", "Resolved": true})), 1000);
    // Each is linked to one replay, and each replay's record to it.
    let mut origins = BTreeMap::new();
    for id in &ids {
        let shown = platform.must("GetFailure", json!({"FunctionRequestId": id}));
        let replays = shown["Replays"].as_array().unwrap();
        assert!(replays.len() == 1 && replays[0]["State"] == "succeeded", "{shown}");
        origins.insert(replays[0]["FunctionRequestId"].as_str().unwrap().to_owned(), id.clone());
    }
    assert_eq!(origins.len(), 1000);
    let (replay, origin) = origins.first_key_value().unwrap();
    let log = platform.must("GetFunctionLogs", json!({"FunctionName": "work", "FunctionRequestId": replay}));
    assert!(log["Data"][0]["Log"].as_str().unwrap().contains(&format!("ReplayOf:{origin}")), "{log}");
    let told = printed(&mayfly(&platform, &["why", replay]), 0);
    assert!(told.contains(&format!("It was a replay of {origin}")), "{told}");
    // Nothing is left to do.
    assert_eq!(platform.must("ReplayFailures", json!({"All": true, "DryRun": true}))["TotalCount"], 0);
    assert_eq!(platform.stop(), Some(0));
}

#[test]
fn the_command_line_lists_shows_edits_and_replays() {
    if !can_sandbox() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let platform = start(data.path());
    broken(&platform, "work");
    let ids: Vec<_> = send(&platform, "work", 12).into_iter().collect();
    wait_kept(&platform, "work", 12);
    let list = printed(&mayfly(&platform, &["failures", "ls", "-F", "work", "--error", "MISSING"]), 0);
    assert!(ids.iter().all(|id| list.contains(id.as_str())) && list.contains("KeyError"), "{list}");
    assert!(printed(&mayfly(&platform, &["failures", "ls", "--status", "433"]), 0).is_empty());
    let page = printed(&mayfly(&platform, &["failures", "ls", "--limit", "5", "-o", "json"]), 0);
    assert_eq!(serde_json::from_str::<Value>(&page).unwrap().as_array().unwrap().len(), 5);

    let shown = printed(&mayfly(&platform, &["failures", "show", &ids[0]]), 0);
    for part in ["about to fail", "index.py", "TOKEN", "430", "\"n\""] {
        assert!(shown.contains(part), "no {part} in {shown}");
    }
    assert!(!shown.contains("very-secret"));
    printed(&mayfly(&platform, &["failures", "show", "00000000-0000-4000-8000-000000000000"]), 2);

    // Onto the version that fails, they fail again: the exit code says so.
    let failed = mayfly(&platform, &["failures", "replay", &ids[0], "--wait"]);
    assert!(printed(&failed, 3).contains("done"));
    let version = repair(&platform, "work");
    let dry = printed(&mayfly(&platform, &["failures", "replay", "-F", "work", "--to", &version, "--dry-run"]), 0);
    assert!(dry.contains("12 failures would be replayed"), "{dry}");
    let nothing = mayfly(&platform, &["failures", "replay"]);
    printed(&nothing, 2);
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("--all"));
    // One with an edited event, asked for on standard output, changed, and sent back.
    let mut event: Value =
        serde_json::from_str(&printed(&mayfly(&platform, &["failures", "show", &ids[1], "--event"]), 0)).unwrap();
    event["edited"] = json!(true);
    let file = data.path().join("event.json");
    std::fs::write(&file, event.to_string()).unwrap();
    let file = file.to_str().unwrap();
    printed(&mayfly(&platform, &["failures", "replay", &ids[1], "--to", &version, "--event", file, "--wait"]), 0);
    let replay = platform.must("GetFailure", json!({"FunctionRequestId": ids[1]}))["ResolvedBy"].clone();
    let log = platform.must("GetFunctionLogs", json!({"FunctionName": "work", "FunctionRequestId": replay}));
    let result: Value = serde_json::from_str(log["Data"][0]["RetMsg"].as_str().unwrap()).unwrap();
    assert_eq!((&result["n"], &result["edited"]), (&event["n"], &json!(true)));
    // The rest, five a second.
    let begun = Instant::now();
    let rest = printed(
        &mayfly(&platform, &["failures", "replay", "--all", "--to", &version, "--rate", "5", "--wait", "-o", "json"]),
        0,
    );
    let rest: Value = serde_json::from_str(&rest).unwrap();
    assert_eq!((&rest["Job"]["Sent"], &rest["Job"]["Succeeded"]), (&json!(11), &json!(11)));
    assert!(begun.elapsed() >= Duration::from_millis(1800), "eleven at five a second take two seconds");
    assert!(printed(&mayfly(&platform, &["failures", "ls", "--open"]), 0).is_empty());
    assert_eq!(printed(&mayfly(&platform, &["failures", "jobs"]), 0).lines().count(), 4);
    // A slow one is cancelled.
    let slow = printed(&mayfly(&platform, &["failures", "replay", "--all", "--again", "--rate", "1", "-o", "json"]), 0);
    let slow: Value = serde_json::from_str(&slow).unwrap();
    let id = slow["JobId"].as_str().unwrap();
    printed(&mayfly(&platform, &["failures", "cancel", id]), 0);
    let over = job_over(&platform, &slow["JobId"]);
    assert!(over["State"] == "cancelled" && over["Sent"].as_u64() < Some(12), "{over}");
    printed(&mayfly(&platform, &["failures", "rm", "-F", "work", "--yes"]), 0);
    assert_eq!(kept(&platform, json!({})), 0);
    // There is no such queue: that is said, and nothing is changed.
    let refused = mayfly(&platform, &["destinations", "work", "--dead-letter", "queue:dead"]);
    printed(&refused, 2);
    let told = printed(&mayfly(&platform, &["destinations", "work", "--on-success", "function:work"]), 0);
    assert!(told.contains("function:default/work:$DEFAULT"), "{told}");
    assert_eq!(platform.stop(), Some(0));
}

#[test]
fn synchronous_failures_are_kept_on_demand_and_within_the_disk_budget() {
    if !can_sandbox() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let platform =
        Setup::new(env!("CARGO_BIN_EXE_mayfly")).data(data.path()).arguments(&["--failure-disk-mb", "16"]).start();
    broken(&platform, "work");
    platform.invoke("work", &json!({"n": 1}));
    assert_eq!(kept(&platform, json!({})), 0);
    let told = printed(&mayfly(&platform, &["failures", "keep", "work", "--capture", "on", "--retention", "24"]), 0);
    assert!(told.contains("24 hours"), "{told}");
    assert!(printed(&mayfly(&platform, &["get", "work"]), 0).contains("all kept for 24 hours"));
    // Kept before it is answered.
    let failed = platform.invoke("work", &json!({"n": 2}));
    let id = failed.result["FunctionRequestId"].clone();
    let shown = platform.must("GetFailure", json!({"FunctionRequestId": id}));
    assert_eq!((&shown["Source"], &shown["Event"]), (&json!("invoke"), &json!("{\"n\":2}")));
    // So are those of its URL.
    let trigger = json!({"FunctionName": "work", "TriggerName": "url", "Type": "http", "Qualifier": "$DEFAULT",
        "TriggerDesc": json!({"AuthType": "NONE", "NetConfig": {"EnableIntranet": false, "EnableExtranet": true}}).to_string()});
    platform.must("CreateTrigger", trigger);
    platform.get("/fn/default/work/some/path");
    let page = platform.must("ListFailures", json!({"Filter": {"Source": "url"}}));
    assert_eq!(page["TotalCount"], 1, "{page}");
    // Events of 4 MB are whole; the oldest make room for the newest.
    let mut last = Value::Null;
    for n in 0..6 {
        let event = json!({"n": n, "filler": "x".repeat(4 << 20)});
        last = platform.invoke("work", &event).result["FunctionRequestId"].clone();
    }
    assert_eq!(kept(&platform, json!({})), 3);
    let shown = platform.must("GetFailure", json!({"FunctionRequestId": last}));
    assert!(shown["Event"].as_str().unwrap().len() > 4 << 20);
    let metrics = platform.get("/metrics").1;
    assert!(metrics.contains("mayfly_failures 3\n") && metrics.contains("mayfly_failures_evicted 5\n"), "{metrics}");
    // A large one is replayed whole.
    let version = repair(&platform, "work");
    let again = json!({"Filter": {"RequestIds": [last]}, "Qualifier": version});
    let job = platform.must("ReplayFailures", again);
    assert_eq!(job_over(&platform, &job["JobId"])["Succeeded"], 1);
    assert_eq!(platform.stop(), Some(0));
}

#[test]
fn results_go_to_the_next_function() {
    if !can_sandbox() {
        return;
    }
    let platform = Setup::new(env!("CARGO_BIN_EXE_mayfly")).start();
    platform.create("first", "Python3.9", "index.main_handler", &[("index.py", FIXED)], json!({}));
    let next = "def main_handler(event, context):\n    return [event['requestContext']['condition'], event['responsePayload']['n']]\n";
    platform.create("next", "Python3.9", "index.main_handler", &[("index.py", next)], json!({}));
    printed(&mayfly(&platform, &["destinations", "first", "--on-success", "function:next"]), 0);
    send(&platform, "first", 3);
    let results = || {
        let logs = platform.must("GetFunctionLogs", json!({"FunctionName": "next"}));
        let data = logs["Data"].as_array().unwrap().clone();
        data.iter().map(|d| d["RetMsg"].as_str().unwrap().replace(' ', "")).collect::<BTreeSet<_>>()
    };
    let expected: BTreeSet<_> = (0..3).map(|n| format!("[\"Success\",{n}]")).collect();
    wait(|| if results() == expected { Ok(()) } else { Err(format!("{:?}", results())) });
    assert_eq!(platform.stop(), Some(0));
}

/// Answers what it was told, and breaks where it was not repaired.
const SERVER: &str = r"
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Answers(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_POST(self):
        told = self.rfile.read(int(self.headers['content-length']))
        if 'MODE' == 'broken':
            if self.path.startswith('/exit'):
                os._exit(3)
            told, code = b'sorry', 503
        else:
            told, code = (self.path + ' ' + self.headers['x-order'] + ' ').encode() + told, 200
        self.send_response(code)
        self.send_header('content-length', str(len(told)))
        self.end_headers()
        self.wfile.write(told)
    def log_message(self, *arguments):
        pass
ThreadingHTTPServer(('0.0.0.0', 9000), Answers).serve_forever()
";

#[test]
fn failed_requests_to_http_functions_are_kept_and_made_again() {
    if !can_sandbox() {
        return;
    }
    const START: &str = "#!/bin/bash\nexec /usr/bin/python3 server.py\n";
    let files = |mode: &str| [("scf_bootstrap", START.to_owned()), ("server.py", SERVER.replace("MODE", mode))];
    let data = tempfile::tempdir().unwrap();
    let platform = start(data.path());
    let broken = files("broken");
    let broken: Vec<_> = broken.iter().map(|(name, text)| (*name, text.as_str())).collect();
    platform.create(
        "shop",
        "CustomRuntime",
        "",
        &broken,
        json!({"Type": "HTTP", "MemorySize": 128, "InitTimeout": 20}),
    );
    let policy = json!({"RetryConfig": [{"RetryNum": 0}], "MsgTTL": 600});
    platform.must("UpdateFunctionEventInvokeConfig", json!({"FunctionName": "shop", "AsyncTriggerConfig": policy}));
    let order = |path: &str, body: &[u8]| {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build();
        let url = format!("http://{}/fn/default/shop{path}", platform.address);
        let sent = ureq::Agent::new_with_config(config).post(url).header("x-order", "7").send(body);
        sent.expect("the platform answers").status().as_u16()
    };
    assert_eq!(order("/quiet", b"x"), 503);
    platform.must("PutFunctionFailures", json!({"FunctionName": "shop", "Capture": true}));
    assert_eq!(order("/sell?item=a%20b", b"three \xff"), 503);
    assert_eq!(order("/exit", b"two"), 502);
    assert_eq!(order("/long", &vec![b'a'; (1 << 20) + 1]), 503);
    wait_kept(&platform, "shop", 3);
    let listed = platform.must("ListFailures", json!({"Filter": {"FunctionName": "shop", "Source": "url"}}));
    let find = |status: u64, path: &str| {
        let ids = listed["Failures"].as_array().unwrap().iter().map(|f| f["FunctionRequestId"].clone());
        let mut shown = ids.map(|id| platform.must("GetFailure", json!({"FunctionRequestId": id})));
        let found = shown.find(|f| f["StatusCode"] == status && f["Event"].as_str().unwrap().contains(path));
        found.unwrap_or_else(|| panic!("{status} {path} is not in {listed}"))
    };
    let (sold, ended, long) = (find(430, "/sell"), find(439, "/exit"), find(430, "/long"));
    assert!(sold["ErrorMessage"].as_str().unwrap().contains("503 POST /sell"), "{sold}");
    let event: Value = serde_json::from_str(sold["Event"].as_str().unwrap()).unwrap();
    assert_eq!((&event["path"], &event["headers"]["x-order"]), (&json!("/sell?item=a%20b"), &json!("7")));
    assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!("dGhyZWUg/w=="), &json!(true)));
    assert!(long["Note"].as_str().unwrap().contains("was not kept"), "{long}");
    // Onto the broken version first: a failure of the replay, for whose origin it stands.
    let replay = |id: &Value| platform.must("ReplayFailures", json!({"Filter": {"RequestIds": [id]}}))["JobId"].clone();
    let job = job_over(&platform, &replay(&sold["FunctionRequestId"]));
    assert_eq!((&job["Succeeded"], &job["Failed"]), (&json!(0), &json!(1)), "{job}");
    platform.must("UpdateFunctionCode", json!({"FunctionName": "shop", "ZipFile": zip_base64(&files("repaired"))}));
    for (failure, succeeds) in [(&sold, 1), (&ended, 1), (&long, 0)] {
        let job = job_over(&platform, &replay(&failure["FunctionRequestId"]));
        assert_eq!(job["Succeeded"], succeeds, "{job}");
    }
    let shown = platform.must("GetFailure", json!({"FunctionRequestId": sold["FunctionRequestId"]}));
    let by = &shown["ResolvedBy"];
    let logs = platform.must("GetFunctionLogs", json!({"FunctionName": "shop", "FunctionRequestId": by}));
    let log = logs["Data"][0]["Log"].as_str().unwrap();
    assert!(log.contains("200 POST /sell") && log.contains(sold["FunctionRequestId"].as_str().unwrap()), "{log}");
}
