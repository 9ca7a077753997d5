//! Asynchronous events through what must not lose them: a platform that is killed again and again, and a disk that is full.
//!
//! Short by default; `MAYFLY_SOAK=1` sends 100,000 events, which takes some minutes.

use mayfly_testkit::nats::{NatsServer, Secured};
use mayfly_testkit::{Client, Platform, Setup, can_sandbox};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Clients that send at once.
const SENDERS: usize = 8;
/// All of it must be done within this time.
const DEADLINE: Duration = Duration::from_secs(3600);
/// Says which event it has, before anything else can happen.
const FUNCTION: &str = r"
import time
def main_handler(event, context):
    print('handled %d.' % event['n'], flush=True)
    time.sleep(event.get('sleep', 0))
    return event['n']
";

fn soak() -> bool {
    std::env::var_os("MAYFLY_SOAK").is_some_and(|v| v == "1")
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn start(data: &Path) -> Platform {
    Setup::new(env!("CARGO_BIN_EXE_mayfly")).data(data).start()
}

fn create(client: &Client) {
    client.create("count", "Python3.9", "index.main_handler", &[("index.py", FUNCTION)], json!({ "MemorySize": 64 }));
}

fn invoke(client: &Client, event: &Value) -> Result<Value, String> {
    let request = json!({ "FunctionName": "count", "InvocationType": "Event", "ClientContext": event.to_string() });
    client.try_call("Invoke", &request)
}

/// Events that are not done, by the platform's own count.
fn pending(client: &Client) -> usize {
    let (_, text) = client.get("/metrics");
    let of = |line: &str| line.strip_prefix("mayfly_events_pending{")?.rsplit_once(' ')?.1.parse::<usize>().ok();
    text.lines().filter_map(of).sum()
}

/// How often each event was begun with, by what its function printed.
fn handled(data: &Path) -> HashMap<usize, usize> {
    let mut counts = HashMap::new();
    let mut dirs = vec![data.join("logs")];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                dirs.push(entry.path());
                continue;
            }
            let bytes = std::fs::read(entry.path()).unwrap();
            for part in String::from_utf8_lossy(&bytes).split("handled ").skip(1) {
                if let Some(n) = part.split_once('.').and_then(|(n, _)| n.parse().ok()) {
                    *counts.entry(n).or_default() += 1;
                }
            }
        }
    }
    counts
}

#[test]
fn every_event_is_handled_though_the_platform_is_killed_every_few_seconds() {
    if !can_sandbox() {
        return;
    }
    let (events, kills) = if soak() { (100_000, usize::MAX) } else { (1_500, 3) };
    let data = tempfile::tempdir().unwrap();
    let first = start(data.path());
    create(&first);
    let client = Arc::new(Mutex::new(first.client.clone()));
    let mut platform = Some(first);
    let (next, acknowledged, unsure) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let sent = AtomicBool::new(false);
    let mut killed = 0;
    std::thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        if n >= events {
                            return;
                        }
                        let begun = Instant::now();
                        // Until it is acknowledged: what was not answered may have been accepted, and is then sent twice.
                        loop {
                            let now = client.lock().clone();
                            match invoke(&now, &json!({ "n": n })) {
                                Ok(answer) if answer.get("Error").is_none() => break,
                                Ok(answer) => assert_eq!(answer["Error"]["Code"], "RequestLimitExceeded", "{answer}"),
                                Err(_) => drop(unsure.fetch_add(1, Ordering::Relaxed)),
                            }
                            assert!(begun.elapsed() < DEADLINE, "event {n} is never accepted");
                            std::thread::sleep(Duration::from_millis(20));
                        }
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let watcher = scope.spawn(|| {
            senders.into_iter().for_each(|sender| sender.join().unwrap());
            sent.store(true, Ordering::Relaxed);
        });
        let (mut due, mut begun) = (events / 4, Instant::now());
        while !sent.load(Ordering::Relaxed) && !watcher.is_finished() {
            let share = acknowledged.load(Ordering::Relaxed);
            let time = if soak() { begun.elapsed() > Duration::from_secs(3) } else { share >= due };
            if time && killed < kills {
                (due, killed) = (due + events / 5, killed + 1);
                let next = start(&platform.take().expect("it runs").kill());
                *client.lock() = next.client.clone();
                platform = Some(next);
                begun = Instant::now();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        watcher.join().unwrap();
    });
    // Once more while the rest of them runs.
    killed += 1;
    let platform = start(&platform.expect("it runs").kill());
    wait_for("all events are done", || pending(&platform) == 0);
    assert_eq!(platform.stop(), Some(0));
    let handled = handled(data.path());
    let lost: Vec<usize> = (0..events).filter(|n| !handled.contains_key(n)).collect();
    let doubled = handled.values().filter(|count| **count > 1).count();
    let unsure = unsure.load(Ordering::Relaxed);
    println!(
        "{} of {events} events acknowledged, {killed} kills, {unsure} sends without an answer: {} lost, {doubled} handled more than once",
        acknowledged.load(Ordering::Relaxed),
        lost.len()
    );
    assert!(lost.is_empty(), "lost: {:?}", &lost[..lost.len().min(20)]);
    assert_eq!(handled.len(), events);
}

/// A small file system of its own; goes when it is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(mb: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={mb}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).status();
        assert!(mounted.unwrap().success(), "a tmpfs can be mounted");
        Self(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_refuses_events_and_loses_none() {
    if !can_sandbox() {
        return;
    }
    let (data, disk) = (tempfile::tempdir().unwrap(), SmallDisk::new(40));
    // Only the events are on the small disk.
    std::fs::write(disk.0.path().join("events.db"), b"").unwrap();
    std::os::unix::fs::symlink(disk.0.path().join("events.db"), data.path().join("events.db")).unwrap();
    let platform = start(data.path());
    create(&platform);
    let padding = "x".repeat(100 << 10);
    let event = |n: usize| json!({ "n": n, "sleep": 1, "padding": padding });
    let mut accepted = 0;
    let refused = loop {
        let answer = invoke(&platform, &event(accepted)).unwrap();
        if answer.get("Error").is_some() {
            break answer;
        }
        accepted += 1;
        assert!(accepted < 2000, "40 MB are never full");
    };
    assert_eq!(refused["Error"]["Code"], "RequestLimitExceeded", "{refused}");
    let message = refused["Error"]["Message"].as_str().unwrap();
    assert!(message.contains("the disk is full") && !message.contains("events.db"), "{message}");
    // As if somebody else had taken the rest: what was accepted stays, through a kill too.
    let platform = start(&platform.kill());
    wait_for("all accepted events are done", || pending(&platform) == 0);
    // A disk that has room again takes events again.
    let answer = invoke(&platform, &event(accepted)).unwrap();
    assert!(answer.get("Error").is_none(), "{answer}");
    wait_for("the last event is done", || pending(&platform) == 0);
    assert_eq!(platform.stop(), Some(0));
    let handled = handled(data.path());
    println!("{accepted} events accepted before the disk was full, {} handled", handled.len());
    assert!((0..=accepted).all(|n| handled.contains_key(&n)));
}

#[test]
fn events_in_nats_over_tls_are_handled_though_both_are_killed() {
    const EVENTS: usize = 300;
    if !can_sandbox() {
        return;
    }
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let secured = Secured { certificate: &certificate, key: &key, user: "mayfly", password: "s3cret" };
    let Some(mut server) = NatsServer::start_secured(&secured) else { return };
    let data = tempfile::tempdir().unwrap();
    let trusted = data.path().join("trusted.pem");
    std::fs::write(&trusted, &certificate).unwrap();
    let port = server.port();
    let setup = |password: &str| {
        let url = format!("tls://mayfly:{password}@127.0.0.1:{port}/LOG");
        let setup = Setup::new(env!("CARGO_BIN_EXE_mayfly")).data(data.path()).variable("MAYFLY_EVENTS", &url);
        setup.variable("SSL_CERT_FILE", trusted.to_str().unwrap()).arguments(&["--event-bytes-max", "131072"])
    };
    let start = || setup("s3cret").start();
    let mut platform = start();
    create(&platform);
    for n in 0..EVENTS {
        match n {
            100 => {
                platform = {
                    drop(platform.kill());
                    start()
                }
            }
            200 => server.restart(),
            _ => {}
        }
        // A server that was killed a moment ago is waited for.
        wait_for("an event is accepted", || {
            invoke(&platform, &json!({ "n": n })).is_ok_and(|answer| answer.get("Error").is_none())
        });
    }
    drop(platform.kill());
    server.restart();
    let platform = start();
    wait_for("all events are done", || pending(&platform) == 0);
    assert!(!data.path().join("events.db").exists(), "nothing is kept beside the server");
    assert_eq!(platform.stop(), Some(0));
    let handled = handled(data.path());
    assert!((0..EVENTS).all(|n| handled.contains_key(&n)));
    // Who is not let in says so, and does not start.
    let refused = Command::new(env!("CARGO_BIN_EXE_mayfly"))
        .args([
            "up",
            "--listen",
            "127.0.0.1:0",
            "--objects-listen",
            "127.0.0.1:0",
            "--queues-listen",
            "127.0.0.1:0",
            "--data",
        ])
        .arg(data.path())
        .env("MAYFLY_EVENTS", format!("tls://mayfly:wrong@127.0.0.1:{port}/LOG"))
        .env("SSL_CERT_FILE", &trusted)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && told.contains("authorization"), "{told}");
    assert!(!told.contains("wrong"), "a password is in the log: {told}");
}

#[test]
fn a_terminated_event_stays_so_through_a_kill() {
    if !can_sandbox() {
        return;
    }
    const LISTENS: &str = r"
import signal, sys, time
def told(number, frame):
    print('told to end.', flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, told)
def main_handler(event, context):
    print('begun with %d.' % event['n'], flush=True)
    time.sleep(600)
";
    let data = tempfile::tempdir().unwrap();
    let platform = start(data.path());
    let fields = json!({ "MemorySize": 64, "Timeout": 86_400, "AsyncRunEnable": "TRUE" });
    platform.create("long", "Python3.9", "index.main_handler", &[("index.py", LISTENS)], fields);
    let begin = |n: usize| {
        let call = json!({ "FunctionName": "long", "ClientContext": json!({ "n": n }).to_string() });
        let answer = platform.must("Invoke", call);
        assert_eq!(answer["Result"]["RetMsg"], "");
        answer["RequestId"].clone()
    };
    let ids = [begin(1), begin(2), begin(3)];
    let running = |client: &Client| {
        client.get("/metrics").1.contains("mayfly_concurrency{namespace=\"default\",function=\"long\"} 3")
    };
    wait_for("all three run", || running(&platform));
    let busy =
        |client: &Client| client.get("/metrics").1.contains("mayfly_instances{runtime=\"python\",state=\"busy\"} 3");
    wait_for("all three have an instance", || busy(&platform));
    for (id, graceful) in [(&ids[0], false), (&ids[1], true)] {
        let end = json!({ "FunctionName": "long", "InvokeRequestId": id, "GraceShutdown": graceful });
        platform.must("TerminateAsyncEvent", end.clone());
        assert_eq!(platform.fails("TerminateAsyncEvent", end), "FailedOperation.AsyncEventStatus");
    }
    let platform = start(&platform.kill());
    for (id, status, code) in [(&ids[0], "ABORTED", 499), (&ids[1], "ABORTED", 499), (&ids[2], "RUNNING", 0)] {
        let told = platform.must("GetAsyncEventStatus", json!({ "InvokeRequestId": id }));
        assert_eq!(
            (&told["Result"]["Status"], &told["Result"]["StatusCode"]),
            (&json!(status), &json!(code)),
            "{told}"
        );
    }
    let logs = platform.must("GetFunctionLogs", json!({ "FunctionName": "long", "FunctionRequestId": ids[1] }));
    let log = logs["Data"][0]["Log"].as_str().unwrap();
    assert!(log.contains("told to end."), "{log}");
    let listed = platform.must("ListAsyncEvents", json!({ "FunctionName": "long", "Status": ["ABORTED"] }));
    assert_eq!(listed["TotalCount"], 2, "{listed}");
    let end = json!({ "FunctionName": "long", "InvokeRequestId": ids[2] });
    platform.must("TerminateAsyncEvent", end);
}

#[test]
fn a_visit_to_an_asynchronous_functions_url_is_answered_when_the_event_is_durable() {
    if !can_sandbox() {
        return;
    }
    const TELLS: &str = r"
def main_handler(event, context):
    print('asked for %s.' % event['queryString']['n'], flush=True)
";
    let data = tempfile::tempdir().unwrap();
    let platform = start(data.path());
    let fields = json!({ "MemorySize": 64, "AsyncRunEnable": "TRUE" });
    platform.create("visited", "Python3.9", "index.main_handler", &[("index.py", TELLS)], fields);
    let desc = json!({ "AuthType": "NONE" }).to_string();
    let url = json!({ "FunctionName": "visited", "TriggerName": "url", "Type": "http", "TriggerDesc": desc, "Qualifier": "$DEFAULT" });
    platform.must("CreateTrigger", url);
    let (status, body) = platform.get("/fn/default/visited/?n=7");
    assert_eq!(status, 202, "{body}");
    let id = serde_json::from_str::<Value>(&body).unwrap()["requestId"].clone();
    // What was answered is durable.
    let platform = start(&platform.kill());
    let told = || platform.must("GetAsyncEventStatus", json!({ "InvokeRequestId": id }))["Result"]["Status"].clone();
    wait_for("it has run", || told() == "FINISHED");
    let logs = platform.must("GetFunctionLogs", json!({ "FunctionName": "visited", "FunctionRequestId": id }));
    assert!(logs["Data"][0]["Log"].as_str().unwrap().contains("asked for 7."), "{logs}");
    let listed = platform.must("ListAsyncEvents", json!({ "FunctionName": "visited", "InvokeType": ["API"] }));
    assert_eq!(listed["TotalCount"], 1, "{listed}");
}
