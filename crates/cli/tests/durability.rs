//! What survives `kill -9` of any part, under load: everything acknowledged is there, nothing is half made, nothing is orphaned.

#[path = "support/host.rs"]
mod host;

use host::{Host, Process};
use mayfly_testkit::{Client, Platform, Setup, can_sandbox, eventually};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often the platform is killed under load.
const ROUNDS: usize = 20;
/// Threads that change functions, each its own ones.
const WORKERS: usize = 3;
/// Functions of each.
const FUNCTIONS: usize = 3;

fn start(data: &Path) -> Platform {
    Setup::new(env!("CARGO_BIN_EXE_mayfly")).data(data).start()
}

/// What a client knows of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    /// What its code returns.
    code: usize,
    /// Value of its environment variable `MARK`.
    mark: usize,
    /// Published versions.
    versions: usize,
}

/// A function as it was last acknowledged, and as it is if a change that was not answered happened all the same.
#[derive(Clone, Debug, Default)]
struct Expected {
    now: Option<Known>,
    perhaps: Option<Option<Known>>,
}

fn zip_of(code: usize) -> String {
    let text = format!("import os\ndef main_handler(e, c):\n    return [{code}, int(os.environ['MARK'])]\n");
    mayfly_testkit::zip_base64(&[("index.py", &text)])
}

fn environment(mark: usize) -> Value {
    json!({ "Variables": [{ "Key": "MARK", "Value": mark.to_string() }] })
}

/// Changes functions in turn until the platform is gone. `seed`: two runs do not do the same.
fn change(client: &Client, functions: &mut BTreeMap<String, Expected>, seed: usize) {
    for step in seed.. {
        let index = step % functions.len();
        let (name, expected) = functions.iter_mut().nth(index).expect("the index is within");
        let number = step * 100 + index;
        let (action, next, mut request) = match (&expected.now, step / FUNCTIONS % 5) {
            (None, _) => (
                "CreateFunction",
                Some(Known { code: number, mark: number, versions: 0 }),
                json!({ "Runtime": "Python3.9", "Handler": "index.main_handler", "Code": { "ZipFile": zip_of(number) }, "Environment": environment(number) }),
            ),
            (Some(known), 1) => (
                "UpdateFunctionCode",
                Some(Known { code: number, ..known.clone() }),
                json!({ "Code": { "ZipFile": zip_of(number) } }),
            ),
            (Some(known), 2) => (
                "UpdateFunctionConfiguration",
                Some(Known { mark: number, ..known.clone() }),
                json!({ "Environment": environment(number) }),
            ),
            (Some(known), 0 | 3) => {
                ("PublishVersion", Some(Known { versions: known.versions + 1, ..known.clone() }), json!({}))
            }
            (Some(_), _) => ("DeleteFunction", None, json!({})),
        };
        request["FunctionName"] = json!(name);
        expected.perhaps = Some(next.clone());
        match client.try_call(action, &request) {
            Ok(answer) => {
                assert!(answer.get("Error").is_none(), "{action} {name}: {answer}");
                *expected = Expected { now: next, perhaps: None };
            }
            Err(_) => return,
        }
    }
}

/// A function as the platform has it, from three actions that must agree.
fn observe(client: &Client, name: &str) -> Option<Known> {
    let shown = client.call("GetFunction", &json!({ "FunctionName": name }));
    if let Some(code) = shown["Error"]["Code"].as_str() {
        assert!(code.starts_with("ResourceNotFound"), "{name}: {shown}");
        return None;
    }
    assert_eq!(shown["Status"], "Active", "{name}: half a function");
    let answer = client.invoke(name, &json!(1));
    assert_eq!(answer.status(), 200, "{name} cannot run: {:?}", answer.result);
    let number = |i: usize| answer.value()[i].as_u64().expect("the code returns two numbers") as usize;
    let versions = client.must("ListVersionByFunction", json!({ "FunctionName": name, "Limit": 100 }));
    let versions = versions["FunctionVersion"].as_array().expect("a list").len() - 1;
    if versions > 0 {
        let request = json!({ "FunctionName": name, "Qualifier": versions.to_string(), "ClientContext": "1" });
        let last = client.must("Invoke", request);
        assert_eq!(last["Result"]["InvokeResult"], 0, "{name}: version {versions} cannot run: {last}");
    }
    Some(Known { code: number(0), mark: number(1), versions })
}

#[test]
fn what_was_acknowledged_survives_being_killed_under_load() {
    if !can_sandbox() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let mut functions: Vec<BTreeMap<String, Expected>> =
        (0..WORKERS).map(|w| (0..FUNCTIONS).map(|f| (format!("w{w}-f{f}"), Expected::default())).collect()).collect();
    let mut before: BTreeSet<Process> = BTreeSet::new();
    let (mut unsure, mut done) = (0, 0);
    for round in 0..ROUNDS {
        let platform = start(data.path());
        let host = Host::of(&platform);
        // Their groups and links are gone by now; the last of them may be on its way out of the kernel.
        eventually(&format!("round {round}: the killed platform's processes end"), || {
            before.iter().all(|p| !p.is_alive())
        });
        assert_eq!(host.tables(), 1, "round {round}: the rules were replaced");
        eventually(&format!("round {round}: only this platform's processes are in its groups"), || {
            host.members(None).is_subset(&host.descendants())
        });

        for (name, expected) in functions.iter_mut().flatten() {
            let seen = observe(&platform, name);
            let as_told = seen == expected.now;
            let as_asked = expected.perhaps.as_ref() == Some(&seen);
            assert!(as_told || as_asked, "round {round}: {name} is {seen:?}, and should be {expected:?}");
            unsure += usize::from(expected.perhaps.is_some());
            *expected = Expected { now: seen, perhaps: None };
        }
        let listed = platform.must("ListFunctions", json!({ "Limit": 100 }));
        let expected = functions.iter().flatten().filter(|(_, e)| e.now.is_some()).count();
        assert_eq!(listed["TotalCount"], expected, "round {round}: {listed}");
        assert!(host.links().len() <= host.groups().len(), "round {round}: links without an instance");

        before = host.processes();
        let begun = Instant::now();
        let client = &platform.client.clone();
        std::thread::scope(|s| {
            for mine in &mut functions {
                s.spawn(move || change(client, mine, round * 7));
            }
            // Another moment each round, and also while instances start.
            s.spawn(|| {
                while client.try_call("Invoke", &json!({ "FunctionName": "w0-f0", "ClientContext": "1" })).is_ok() {}
            });
            std::thread::sleep(Duration::from_millis(40 + 13 * (round as u64 % 10)));
            before.extend(host.processes());
            platform.kill();
        });
        done += 1;
        println!("round {round}: killed after {:?}", begun.elapsed());
    }
    println!("{done} kills; {unsure} changes were under way");
    assert!(unsure > 0, "the load was there");

    let platform = start(data.path());
    let host = Host::of(&platform);
    assert_eq!(platform.stop(), Some(0));
    assert_eq!(host.tables(), 0, "a stop removes the rules");
    assert_eq!((host.parents(), host.links()), (vec![], BTreeSet::new()));
}

/// Kills everything in every sandbox.
fn kill_all(host: &Host) {
    let killed = host.members(None).into_iter().filter(|p| p.kill()).count();
    assert!(killed > 0);
}

#[test]
fn instances_templates_and_zygotes_may_be_killed_at_any_time() {
    if !can_sandbox() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let platform = start(data.path());
    let host = Host::of(&platform);
    let code = "import time\ndef main_handler(e, c):\n    time.sleep(e)\n    return e\n";
    let node = "exports.main_handler = async (e) => { await new Promise(r => setTimeout(r, e * 1000)); return e; };";
    let config = json!({ "Timeout": 20 });
    platform.create("py", "Python3.9", "index.main_handler", &[("index.py", code)], config.clone());
    platform.create("js", "Nodejs18.15", "index.main_handler", &[("index.js", node)], config);
    for name in ["py", "js"] {
        assert_eq!(platform.invoke(name, &json!(0)).value(), json!(0));
        // Idle: instances, templates, and the stock of waiting processes, inits included.
        for _ in 0..3 {
            kill_all(&host);
            assert_eq!(platform.invoke(name, &json!(0)).value(), json!(0), "{name}: the next call works");
        }
        // Busy: its caller hears of it, and nobody else. A kill that comes before the process has read its event is another matter: then the
        // event is given to another instance, once.
        let killed_at_work = (0..5).any(|_| {
            std::thread::scope(|s| {
                let doomed = s.spawn(|| platform.invoke(name, &json!(6)));
                eventually("it runs", || {
                    platform.get("/metrics").1.lines().any(|l| l.starts_with("mayfly_concurrency") && l.ends_with(" 1"))
                });
                kill_all(&host);
                let answer = doomed.join().unwrap();
                let again = answer.status() == 200 && answer.log().contains("Reason: crashed");
                assert!(again || answer.status() == 439, "{name}: {:?}", answer.result);
                !again
            })
        });
        assert!(killed_at_work, "{name}: not one of five kills came while it was at work");
        assert_eq!(platform.invoke(name, &json!(0)).value(), json!(0), "{name}: the next call works");
    }
    // The zygote, which is in no instance's group.
    let zygotes: Vec<Process> = host
        .processes()
        .difference(&host.members(None))
        .filter(|p| std::fs::read(format!("/proc/{}/cmdline", p.pid)).is_ok_and(|c| c.starts_with(b"mayfly: python")))
        .copied()
        .collect();
    assert_eq!(zygotes.len(), 1, "{zygotes:?}");
    assert!(zygotes[0].kill());
    kill_all(&host);
    platform.create("new", "Python3.9", "index.main_handler", &[("index.py", code)], json!({}));
    assert_eq!(platform.invoke("new", &json!(0)).value(), json!(0), "there is another zygote");
    assert_eq!(platform.stop(), Some(0));
}

#[test]
fn accepted_events_run_through_several_kills() {
    if !can_sandbox() {
        return;
    }
    const EVENTS: usize = 60;
    const KILLS: usize = 3;
    let data = tempfile::tempdir().unwrap();
    let mut platform = start(data.path());
    let code = "import time\ndef main_handler(e, c):\n    time.sleep(0.1)\n    return e\n";
    platform.create("slow", "Python3.9", "index.main_handler", &[("index.py", code)], json!({ "Timeout": 10 }));
    let mut accepted = Vec::new();
    for kill in 0..KILLS {
        for n in 0..EVENTS {
            let event = (kill * EVENTS + n).to_string();
            let request = json!({ "FunctionName": "slow", "InvocationType": "Event", "ClientContext": event });
            let answer = platform.must("Invoke", request);
            accepted.push(answer["Result"]["FunctionRequestId"].as_str().unwrap().to_owned());
        }
        // Some have run, some run now, some wait.
        platform.kill();
        platform = start(data.path());
    }
    let mut left: BTreeSet<String> = accepted.iter().cloned().collect();
    assert_eq!(left.len(), EVENTS * KILLS);
    let deadline = Instant::now() + Duration::from_secs(40);
    while !left.is_empty() {
        left.retain(|id| {
            let asked = json!({ "FunctionName": "slow", "FunctionRequestId": id });
            platform.call("GetRequestStatus", &asked)["Data"][0]["RetCode"] != 0
        });
        if Instant::now() > deadline {
            let told: Vec<_> = left
                .iter()
                .take(5)
                .map(|id| {
                    platform.call("GetRequestStatus", &json!({ "FunctionName": "slow", "FunctionRequestId": id }))
                })
                .collect();
            panic!("{} of {} events have not run; what is known of some: {told:#?}", left.len(), accepted.len());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(platform.stop(), Some(0));
}

#[test]
fn a_stop_under_load_fails_no_request_that_was_taken() {
    if !can_sandbox() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let platform = start(data.path());
    let code = "import time\ndef main_handler(e, c):\n    time.sleep(0.05)\n    return e\n";
    platform.create("work", "Python3.9", "index.main_handler", &[("index.py", code)], json!({}));
    platform.invoke("work", &json!(0));
    let client = platform.client.clone();
    let stopping = AtomicBool::new(false);
    let answered = std::thread::scope(|s| {
        let callers: Vec<_> = (0..4)
            .map(|_| {
                s.spawn(|| {
                    let mut answered = 0;
                    loop {
                        let was_stopping = stopping.load(Ordering::Acquire);
                        match client.try_call("Invoke", &json!({ "FunctionName": "work", "ClientContext": "7" })) {
                            Ok(answer) => {
                                assert_eq!(answer["Result"]["RetMsg"], "7", "{answer}");
                                answered += 1;
                            }
                            // From the signal on, connections may be refused.
                            Err(why) => {
                                assert!(was_stopping || stopping.load(Ordering::Acquire), "{why}");
                                return answered;
                            }
                        }
                    }
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(300));
        stopping.store(true, Ordering::Release);
        assert_eq!(platform.stop(), Some(0));
        callers.into_iter().map(|c| c.join().unwrap()).sum::<usize>()
    });
    assert!(answered > 8, "{answered} answers");
    // Each that was answered is in the log that the next platform reads.
    let platform = start(data.path());
    let logged = platform.must("GetFunctionLogs", json!({ "FunctionName": "work", "Limit": 1 }));
    let logged = logged["TotalCount"].as_u64().unwrap() as usize;
    assert!(logged > answered, "{logged} records of {answered} calls and one before");
    assert_eq!(platform.stop(), Some(0));
}
