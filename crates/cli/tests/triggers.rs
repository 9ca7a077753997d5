//! Timers on a whole platform: they fire, wake a function from zero, and lose and double no tick over a kill.

use mayfly_testkit::{Platform, Setup, can_sandbox, eventually};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const CODE: &str = "import json\ndef main_handler(e, c):\n    print('tick ' + json.dumps(e))\n    return e['Time']\n";

/// The times of the ticks that ran, with how often each did.
fn ticks(p: &Platform, function: &str) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for offset in (0..).step_by(100) {
        let request = json!({ "FunctionName": function, "Limit": 100, "Offset": offset });
        let page = p.must("GetFunctionLogs", request)["Data"].as_array().unwrap().clone();
        for record in &page {
            let returned: Option<String> = serde_json::from_str(record["RetMsg"].as_str().unwrap()).ok();
            *found.entry(returned.unwrap_or_else(|| record.to_string())).or_insert(0) += 1;
        }
        if page.len() < 100 {
            break;
        }
    }
    found
}

fn seconds(time: &str) -> i64 {
    chrono::DateTime::parse_from_rfc3339(time).unwrap_or_else(|e| panic!("{time}: {e}")).timestamp()
}

fn timer(function: &str, name: &str, cron: &str) -> Value {
    json!({ "FunctionName": function, "TriggerName": name, "Type": "timer", "TriggerDesc": cron, "Enable": "OPEN",
        "CustomArgument": "hello", "Qualifier": "$DEFAULT" })
}

#[test]
fn no_tick_is_lost_or_doubled_over_kills() {
    if !can_sandbox() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let setup = || Setup::new(env!("CARGO_BIN_EXE_mayfly")).data(data.path());
    let mut p = setup().start();
    p.create("ticking", "Python3.9", "index.main_handler", &[("index.py", CODE)], json!({}));
    p.must("CreateTrigger", timer("ticking", "each-second", "* * * * * * *"));
    for round in 1..=3 {
        let before = ticks(&p, "ticking").len();
        eventually("it ticks", || ticks(&p, "ticking").len() >= before + 2 * round);
        p.kill();
        p = setup().start();
    }
    let before = ticks(&p, "ticking").len();
    eventually("it ticks again", || ticks(&p, "ticking").len() >= before + 3);
    p.must(
        "UpdateTriggerStatus",
        json!({ "FunctionName": "ticking", "TriggerName": "each-second", "Type": "timer", "Enable": "CLOSE" }),
    );
    let closed = chrono::Utc::now().timestamp();
    let mut last = BTreeMap::new();
    // What was handed in before it was closed still runs; then no second is missing.
    eventually("every second until then has run", || {
        last = ticks(&p, "ticking");
        let times: Vec<i64> = last.keys().map(|time| seconds(time)).collect();
        let (first, end) = (times[0], times[times.len() - 1]);
        end >= closed - 2 && times.len() as i64 == end - first + 1
    });
    // A run that a kill cut short runs again: that is seen by its retry, and is the only way to see a tick twice.
    let doubled: Vec<_> = last.iter().filter(|(_, times)| **times > 1).collect();
    assert!(doubled.len() <= 3, "{doubled:?}");
    let metrics = p.get("/metrics").1;
    assert!(metrics.contains("mayfly_trigger_events_total{result=\"dropped\"} 0"), "{metrics}");
}
