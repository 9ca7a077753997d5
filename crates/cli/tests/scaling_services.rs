//! Instances of services under changing load, memory that several functions want, and what is known of their demand: on a whole platform.

use mayfly_testkit::{Platform, Setup, can_sandbox, eventually};
use serde_json::{Value, json};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A server that answers with its instance after as many milliseconds as the path says.
const SERVER: &str = r#"#!/usr/bin/python3 -S
import asyncio, os
MARK = os.urandom(6).hex()
async def serve(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b'\r\n\r\n')
            path = head.split(b' ')[1].split(b'/')[-1]
            if path == b'stream':
                writer.write(b'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n')
                while True:
                    writer.write(b'c\r\n' + MARK.encode() + b'\r\n')
                    await writer.drain()
                    await asyncio.sleep(0.05)
            await asyncio.sleep(int(path or b'0') / 1000)
            writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n' + MARK.encode())
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    async with await asyncio.start_server(serve, '0.0.0.0', 9000, backlog=512) as server:
        await server.serve_forever()
asyncio.run(main())
"#;

fn service(p: &Platform, name: &str, concurrency: u32) {
    let more = json!({
        "Type": "HTTP", "MemorySize": 64, "InitTimeout": 60, "Timeout": 60,
        "InstanceConcurrencyConfig": { "DynamicEnabled": "FALSE", "MaxConcurrency": concurrency },
    });
    p.create(name, "CustomRuntime", "", &[("scf_bootstrap", SERVER)], more);
}

fn get(p: &Platform, name: &str, path: &str) -> (u16, String) {
    let config =
        ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(120)));
    let url = format!("http://{}/fn/default/{name}/{path}", p.address);
    let mut response = ureq::Agent::new_with_config(config.build()).get(url).call().expect("the platform answers");
    (response.status().as_u16(), response.body_mut().read_to_string().expect("text"))
}

/// Waits longer than for what takes no time: windows have to pass, on a busy machine.
fn at_last(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(150);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The sum of a metric's lines that have all of these words.
fn metric(p: &Platform, name: &str, words: &[&str]) -> f64 {
    let text = p.get("/metrics").1;
    let lines = text.lines().filter(|l| l.starts_with(name) && words.iter().all(|w| l.contains(w)));
    lines.filter_map(|l| l.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

fn instances(p: &Platform, states: &[&str]) -> usize {
    states.iter().map(|s| metric(p, "mayfly_instances", &["\"custom\"", &format!("\"{s}\"")]) as usize).sum()
}

fn all(p: &Platform) -> usize {
    instances(p, &["idle", "busy", "starting"])
}

/// Calls `path` from so many threads until `enough`; the number of answers. Each must be a 200.
fn load(p: &Platform, name: &str, threads: usize, path: &str, enough: impl FnOnce()) -> usize {
    let (stop, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Acquire) {
                    let (status, body) = get(p, name, path);
                    assert_eq!((status, body.len()), (200, 12), "{body}");
                    answers.fetch_add(1, Ordering::AcqRel);
                }
            });
        }
        // When the wait fails, the threads must end all the same.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(enough));
        stop.store(true, Ordering::Release);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
    answers.into_inner()
}

#[test]
fn a_service_grows_with_its_load_and_shrinks_to_its_minimum_without_a_failed_request() {
    if !can_sandbox() {
        return;
    }
    let p = Setup::new(env!("CARGO_BIN_EXE_mayfly")).arguments(&["--keep-alive-s", "2", "--waiting-s", "60"]).start();
    service(&p, "web", 2);
    p.must("PutFunctionScaling", json!({ "FunctionName": "web", "MinInstances": 1, "MaxInstances": 6 }));
    at_last("the minimum is ready before any request", || instances(&p, &["idle"]) == 1);
    // Sixteen at a time would like eight instances, and get six.
    load(&p, "web", 16, "50", || at_last("it has grown to its maximum", || instances(&p, &["idle", "busy"]) == 6));
    assert!(all(&p) <= 6);
    // A light load goes on while it shrinks. Of two requests at a time in one instance, one is aimed at.
    let answers = load(&p, "web", 1, "10", || at_last("it has shrunk", || all(&p) <= 2));
    assert!(answers > 0);
    at_last("the minimum is left", || all(&p) == 1);
    assert_eq!(get(&p, "web", "0").0, 200);
    // Without a minimum, the last one goes too.
    p.must("PutFunctionScaling", json!({ "FunctionName": "web", "MinInstances": 0 }));
    at_last("nothing is left", || all(&p) == 0);
}

#[test]
fn from_nothing_to_forty_and_back_without_a_failed_request() {
    if !can_sandbox() {
        return;
    }
    let p = Setup::new(env!("CARGO_BIN_EXE_mayfly")).arguments(&["--keep-alive-s", "2", "--waiting-s", "120"]).start();
    service(&p, "web", 1);
    let answers = load(&p, "web", 40, "100", || at_last("forty are there", || instances(&p, &["idle", "busy"]) >= 40));
    assert!(answers >= 40, "{answers}");
    load(&p, "web", 4, "10", || at_last("it shrinks under a light load", || all(&p) <= 10));
    at_last("nothing is left", || all(&p) == 0);
    assert_eq!(get(&p, "web", "0").0, 200, "and it starts again");
}

#[test]
fn an_instance_with_a_stream_stays_when_others_go() {
    if !can_sandbox() {
        return;
    }
    let p = Setup::new(env!("CARGO_BIN_EXE_mayfly")).arguments(&["--keep-alive-s", "2", "--waiting-s", "60"]).start();
    service(&p, "web", 1);
    let url = format!("http://{}/fn/default/web/stream", p.address);
    let mut stream = ureq::get(url).call().expect("the stream begins").into_body().into_reader();
    let mut heard = [0; 12];
    std::io::Read::read_exact(&mut stream, &mut heard).expect("it has begun");
    load(&p, "web", 4, "50", || at_last("others are there", || all(&p) >= 4));
    at_last("the others go", || all(&p) == 1);
    // Lowering the maximum takes what is busy, but for streams.
    p.must("PutFunctionScaling", json!({ "FunctionName": "web", "MaxInstances": 1 }));
    let mut again = [0; 12];
    for _ in 0..40 {
        std::io::Read::read_exact(&mut stream, &mut again).expect("it goes on");
        assert_eq!(again, heard);
    }
    drop(stream);
    at_last("it goes when the stream has ended", || all(&p) == 0);
}

const SLOW: &str = "import time\ndef main_handler(e, c):\n    time.sleep(0.2)\n    return 1\n";
const QUICK: &str = "def main_handler(e, c):\n    return 1\n";

#[test]
fn a_flood_of_one_function_lets_the_first_call_of_another_through() {
    if !can_sandbox() {
        return;
    }
    let p = Setup::new(env!("CARGO_BIN_EXE_mayfly"))
        .arguments(&["--memory-ceiling-mb", "512", "--waiting-s", "120"])
        .start();
    for (name, code) in [("flood", SLOW), ("other", QUICK)] {
        p.create(name, "Python3.9", "index.main_handler", &[("index.py", code)], json!({ "MemorySize": 128 }));
    }
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| {
                while !stop.load(Ordering::Acquire) {
                    let called = p.invoke("flood", &json!(1));
                    assert_eq!(called.status(), 200, "{}", called.log());
                    done.fetch_add(1, Ordering::AcqRel);
                }
            });
        }
        let checks = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let busy = || metric(&p, "mayfly_instances", &["\"python\"", "\"busy\""]) as usize;
            at_last("the flood has all the memory", || busy() == 4);
            assert!(metric(&p, "mayfly_waiting", &["\"flood\""]) > 0.0, "the others wait, and are counted");
            assert!(metric(&p, "mayfly_memory_bytes", &["\"instances\""]) > 1e6, "what the instances hold is known");
            let before = done.load(Ordering::Acquire);
            assert_eq!(p.invoke("other", &json!(1)).status(), 200);
            let between = done.load(Ordering::Acquire) - before;
            // One of the four gives way; the three others may go on while the new instance starts. Twenty-four waited before it.
            assert!(between <= 20, "{between} calls of the flood ended first");
            let after = done.load(Ordering::Acquire);
            at_last("the flood goes on", || done.load(Ordering::Acquire) >= after + 20);
        }));
        stop.store(true, Ordering::Release);
        if let Err(panic) = checks {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn a_parked_version_is_forked_from_its_first_call_on() {
    if !can_sandbox() {
        return;
    }
    let p = Setup::new(env!("CARGO_BIN_EXE_mayfly")).arguments(&["--park", "2"]).start();
    let create = |name: &str| p.create(name, "Python3.9", "index.main_handler", &[("index.py", QUICK)], json!({}));
    let parked = || metric(&p, "mayfly_instances", &["\"python\"", "\"template\""]) as usize;
    create("one");
    eventually("it is initialised before any call", || parked() == 1);
    let first = p.invoke("one", &json!(1));
    assert!(first.log().contains("Kind: forked"), "{}", first.log());
    create("two");
    eventually("both are", || parked() == 2);
    create("three");
    // The first call waits for an initialisation that is under way.
    let third = p.invoke("three", &json!(1));
    assert!(third.log().contains("Kind: forked"), "{}", third.log());
    assert!(parked() <= 2, "the one called longest ago gave way");
    for name in ["one", "two", "three"] {
        p.must("DeleteFunction", json!({ "FunctionName": name }));
    }
    eventually("what is deleted is not parked", || parked() == 0);
}

#[test]
fn demand_outlives_a_kill_and_can_be_simulated() {
    if !can_sandbox() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let setup = || Setup::new(env!("CARGO_BIN_EXE_mayfly")).data(data.path());
    let p = setup().start();
    p.create("known", "Python3.9", "index.main_handler", &[("index.py", QUICK)], json!({ "MemorySize": 128 }));
    for _ in 0..5 {
        assert_eq!(p.invoke("known", &json!(1)).status(), 200);
    }
    let rows = |p: &Platform| p.must("ListDemand", json!({}));
    at_last("the minute has passed", || rows(&p)["TotalCount"] != 0);
    let calls = |answer: &Value| -> u64 {
        let rows = answer["Demand"].as_array().unwrap().iter();
        rows.map(|row| row["Invocations"].as_u64().unwrap()).sum()
    };
    let before = rows(&p);
    assert!((1..=5).contains(&calls(&before)), "{before}");
    assert_eq!(before["Demand"][0]["FunctionName"], "known");
    p.kill();
    let p = setup().start();
    assert_eq!(rows(&p)["Demand"][0], before["Demand"][0], "it is there after a kill");
    let mayfly = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_mayfly"))
            .args(["--endpoint", &format!("http://{}", p.address), "--data"])
            .arg(data.path())
            .args(["--secret-id", mayfly_testkit::SECRET_ID, "--secret-key", mayfly_testkit::SECRET_KEY])
            .args(arguments)
            .output()
            .expect("the program can be started");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    at_last("what was learnt is known again", || mayfly(&["forecast", "known"]).contains("default/known"));
    let forecast: Value = serde_json::from_str(&mayfly(&["forecast", "-o", "json"])).unwrap();
    assert_eq!(forecast["Forecasts"][0]["Costs"].as_array().unwrap().len(), 3, "{forecast}");
    mayfly(&["scale", "known", "--min", "1", "--max", "3", "--forecast", "eager"]);
    let scale: Value = serde_json::from_str(&mayfly(&["scale", "known", "-o", "json"])).unwrap();
    assert_eq!(scale, json!({ "MinInstances": 1, "MaxInstances": 3, "Forecast": "eager" }));
    let trace = data.path().join("trace.csv");
    mayfly(&["demand", "export", "--file", trace.to_str().unwrap()]);
    let simulated = mayfly(&["simulate", "--trace", trace.to_str().unwrap(), "-o", "json"]);
    let first: Value = serde_json::from_str(simulated.lines().next().unwrap()).unwrap();
    let exported = rows(&p);
    assert_eq!(first["invocations"].as_u64(), Some(calls(&exported)), "{first}");
}
