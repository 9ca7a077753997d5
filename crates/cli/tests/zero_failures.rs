//! What visitors notice while versions change and instances die: nothing, or exactly what `docs/http.md` says under "Retries".
//!
//! Short by default; `MAYFLY_SOAK=1` runs the full lengths (see `docs/benchmarks.md`), which want a machine of their own.

#[path = "support/host.rs"]
mod host;

use host::{Host, Process};
use mayfly_testkit::{Platform, Setup, can_sandbox, eventually, zip_base64};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Visitors of a load. Each has one connection.
const VISITORS: usize = 48;
/// The same in a soak: enough for its rate while starts make some of them wait.
const SOAK_VISITORS: usize = 64;
/// Records that a query of the log can reach.
const LOG_WINDOW: usize = 10_000;
/// No answer, however late, may take as long.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// What the processes to kill are called, to be found on the machine.
const COMM: &str = "to-be-killed";

/// Says which requests it has begun with, before anything else can happen.
const SERVER: &str = r"
const http = require('http'), fs = require('fs');
http.createServer((q, s) => {
  // From its first request on: a start that fails is another matter.
  process.title = 'to-be-killed';
  const url = new URL(q.url, 'http://x');
  q.on('data', () => {}).on('end', () => {
    fs.writeSync(1, `run ${url.searchParams.get('id')}.\n`);
    setTimeout(() => s.end('done ' + url.searchParams.get('id')), Number(url.searchParams.get('ms')));
  });
}).listen(9000);
";
const START: &str = "#!/bin/bash\nexec /var/lang/node18/bin/node server.js\n";
const FUNCTION: &str = r"
import ctypes, time
PR_SET_NAME = 15
def main_handler(event, context):
    # The instance, not the template that it was copied from: that one's end is the end of all its copies.
    ctypes.CDLL(None).prctl(PR_SET_NAME, b'to-be-killed', 0, 0, 0)
    query = event['queryString']
    print('run %s.' % query['id'], flush=True)
    time.sleep(int(query['ms']) / 1000)
    return {'statusCode': 200, 'body': 'done ' + query['id']}
";

fn soak() -> bool {
    std::env::var_os("MAYFLY_SOAK").is_some_and(|v| v == "1")
}

/// One after the other: each wants most of the machine.
static TURN: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Service,
    Function,
}

fn files(kind: Kind, n: usize) -> String {
    let n = n.to_string();
    match kind {
        Kind::Service => zip_base64(&[("scf_bootstrap", START), ("server.js", SERVER), ("n", &n)]),
        Kind::Function => zip_base64(&[("index.py", FUNCTION), ("n", &n)]),
    }
}

/// A platform with a function `web` of either kind. For soaks, `MAYFLY_BIN` names another build of the program.
fn deploy(kind: Kind) -> Platform {
    let other = if soak() { std::env::var_os("MAYFLY_BIN") } else { None };
    let p = Setup::new(other.unwrap_or_else(|| env!("CARGO_BIN_EXE_mayfly").into())).start();
    let code = json!({ "ZipFile": files(kind, 0) });
    match kind {
        Kind::Service => p.must(
            "CreateFunction",
            json!({ "FunctionName": "web", "Type": "HTTP", "Runtime": "Nodejs18.15", "MemorySize": 128, "Timeout": 20,
                "InitTimeout": 60, "Code": code, "InstanceConcurrencyConfig": { "DynamicEnabled": "FALSE", "MaxConcurrency": 20 } }),
        ),
        Kind::Function => p.must(
            "CreateFunction",
            json!({ "FunctionName": "web", "Runtime": "Python3.9", "Handler": "index.main_handler", "MemorySize": 64,
                "Timeout": 20, "Code": code }),
        ),
    };
    eventually("it is active", || p.must("GetFunction", json!({ "FunctionName": "web" }))["Status"] == "Active");
    p
}

/// Lets everybody call it, by this qualifier.
fn open(p: &Platform, qualifier: &str) {
    let access = json!({ "AuthType": "NONE", "NetConfig": { "EnableIntranet": true, "EnableExtranet": true } });
    p.must(
        "CreateTrigger",
        json!({ "FunctionName": "web", "TriggerName": format!("url-{}", qualifier.trim_matches('$').to_lowercase()),
            "Type": "http", "TriggerDesc": access.to_string(), "Qualifier": qualifier }),
    );
}

/// What a visitor got.
#[derive(Debug)]
struct Answer {
    id: usize,
    post: bool,
    /// Status, `X-Scf-Status` and body; or why there was none.
    got: Result<(u16, String, String), String>,
    took: Duration,
}

impl Answer {
    fn is_done(&self) -> bool {
        matches!(&self.got, Ok((200, _, body)) if *body == format!("done {}", self.id))
    }
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(ANSWER_MAX * 2));
    ureq::Agent::new_with_config(config.build())
}

/// Sends one request. Odd ids are POST, with a body; even ones are GET.
fn ask(agent: &ureq::Agent, p: &Platform, path: &str, id: usize, ms: usize) -> Answer {
    let url = format!("http://{}/fn/default/{path}?id={id}&ms={ms}", p.address);
    let (post, begun) = (id % 2 == 1, Instant::now());
    let answer = if post { agent.post(&url).send("body") } else { agent.get(&url).call() };
    let got = answer.map_err(|e| e.to_string()).and_then(|mut response| {
        let scf = response.headers().get("x-scf-status").map_or("", |v| v.to_str().unwrap_or("?")).to_owned();
        let body = response.body_mut().read_to_string().map_err(|e| e.to_string())?;
        Ok((response.status().as_u16(), scf, body))
    });
    Answer { id, post, got, took: begun.elapsed() }
}

/// What visitors have got so far.
#[derive(Default)]
struct Progress {
    answered: AtomicUsize,
    failed: AtomicUsize,
}

/// Visitors come at a steady rate, whatever the platform does, while `work` goes on.
fn under_load(p: &Platform, paths: &[&str], per_second: usize, ms: usize, work: impl FnOnce(&Progress)) -> Vec<Answer> {
    let (next, progress, over) = (AtomicUsize::new(0), Progress::default(), AtomicBool::new(false));
    let begun = Instant::now();
    std::thread::scope(|s| {
        let visitors: Vec<_> = (0..if soak() { SOAK_VISITORS } else { VISITORS })
            .map(|_| {
                s.spawn(|| {
                    let (agent, mut answers) = (agent(), Vec::new());
                    while !over.load(Ordering::Acquire) {
                        let id = next.fetch_add(1, Ordering::Relaxed);
                        let due = begun + Duration::from_micros((id * 1_000_000 / per_second) as u64);
                        std::thread::sleep(due.saturating_duration_since(Instant::now()));
                        let answer = ask(&agent, p, paths[id / 2 % paths.len()], id, ms);
                        progress.failed.fetch_add(usize::from(!answer.is_done()), Ordering::Relaxed);
                        answers.push(answer);
                        progress.answered.fetch_add(1, Ordering::Relaxed);
                    }
                    answers
                })
            })
            .collect();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&progress)));
        over.store(true, Ordering::Release);
        let answers: Vec<Answer> = visitors.into_iter().flat_map(|v| v.join().expect("a visitor ends")).collect();
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
        let mut took: Vec<Duration> = answers.iter().map(|a| a.took).collect();
        took.sort();
        let (n, rate) = (took.len(), took.len() as f64 / begun.elapsed().as_secs_f64());
        println!(
            "{n} requests, {rate:.0}/s: p50 {:.1?}, p99 {:.1?}, longest {:.1?}",
            took[n / 2],
            took[n * 99 / 100],
            took[n - 1]
        );
        assert!(took[n - 1] < ANSWER_MAX, "nothing hangs");
        answers
    })
}

fn versions_change(kind: Kind) {
    if !can_sandbox() {
        return;
    }
    let _turn = TURN.lock();
    let p = deploy(kind);
    p.must("PublishVersion", json!({ "FunctionName": "web" }));
    p.must("CreateAlias", json!({ "FunctionName": "web", "Name": "prod", "FunctionVersion": "1" }));
    if kind == Kind::Function {
        open(&p, "$DEFAULT");
        open(&p, "prod");
    }
    let (updates, per_second) = if soak() { (60, 500) } else { (6, 60) };
    let answers = under_load(&p, &["web/", "web@prod/"], per_second, 5, |progress| {
        let begun = Instant::now();
        for n in 1..=updates {
            let before = progress.answered.load(Ordering::Relaxed);
            // A new version each second, for those who name none; and one published, which an alias then points at.
            p.must("UpdateFunctionCode", json!({ "FunctionName": "web", "ZipFile": files(kind, n) }));
            eventually("it is updated", || {
                p.must("GetFunction", json!({ "FunctionName": "web" }))["Status"] == "Active"
            });
            let version = p.must("PublishVersion", json!({ "FunctionName": "web" }))["FunctionVersion"].clone();
            p.must("UpdateAlias", json!({ "FunctionName": "web", "Name": "prod", "FunctionVersion": version }));
            let next = begun + Duration::from_secs(n as u64);
            eventually("requests go on", || {
                progress.answered.load(Ordering::Relaxed) > before + per_second / 4 && Instant::now() >= next
            });
        }
        println!("{kind:?}: {updates} updates and as many published versions in {:.1?}", begun.elapsed());
    });
    let failed: Vec<&Answer> = answers.iter().filter(|a| !a.is_done()).collect();
    assert!(failed.is_empty(), "{} of {} failed: {:?}", failed.len(), answers.len(), &failed[..failed.len().min(3)]);
    if answers.len() < LOG_WINDOW {
        assert!(runs(&p, &answers).iter().all(|n| *n == 1), "each ran once");
    }
}

#[test]
fn no_request_to_a_service_fails_while_a_version_is_deployed_each_second() {
    versions_change(Kind::Service);
}

#[test]
fn no_request_to_a_function_fails_while_a_version_is_deployed_each_second() {
    versions_change(Kind::Function);
}

#[test]
fn a_running_request_outlives_the_version_and_the_template_that_it_runs_on() {
    if !can_sandbox() {
        return;
    }
    let _turn = TURN.lock();
    let p = deploy(Kind::Function);
    let host = Host::of(&p);
    open(&p, "$DEFAULT");
    for id in 0..3 {
        std::thread::scope(|s| {
            let running = s.spawn(|| ask(&agent(), &p, "web/", id, 1500));
            eventually("it runs", || !victims(&host).is_empty());
            p.must("UpdateFunctionCode", json!({ "FunctionName": "web", "ZipFile": files(Kind::Function, id + 1) }));
            let answer = running.join().expect("a visitor ends");
            assert!(answer.is_done(), "{answer:?}");
        });
        eventually("the old version's instance goes", || victims(&host).is_empty());
    }
}

/// How often each request was begun, by what the function printed. Every record is read: what has been answered has run.
fn runs(p: &Platform, answers: &[Answer]) -> Vec<usize> {
    let mut counts = vec![0; answers.len()];
    let place: HashMap<usize, usize> = answers.iter().enumerate().map(|(n, a)| (a.id, n)).collect();
    eventually("the log is complete", || {
        counts.fill(0);
        for offset in (0..LOG_WINDOW).step_by(1000) {
            let query = json!({ "FunctionName": "web", "Limit": 1000, "Offset": offset, "Qualifier": "" });
            let page = p.must("GetFunctionLogs", query);
            let records = page["Data"].as_array().map_or(&[][..], Vec::as_slice);
            for text in records.iter().filter_map(|r| r["Log"].as_str()) {
                let ids = text.split("run ").skip(1).filter_map(|t| t.split('.').next()?.parse::<usize>().ok());
                for n in ids.filter_map(|id| place.get(&id)) {
                    counts[*n] += 1;
                }
            }
            if records.len() < 1000 {
                break;
            }
        }
        counts.iter().zip(answers).all(|(n, a)| *n > 0 || !a.is_done())
    });
    counts
}

/// The function's processes.
fn victims(host: &Host) -> Vec<Process> {
    let name = |p: &Process| std::fs::read_to_string(format!("/proc/{}/comm", p.pid)).unwrap_or_default();
    host.members(None).into_iter().filter(|p| name(p).trim() == COMM).collect()
}

fn instances_die(kind: Kind) {
    if !can_sandbox() {
        return;
    }
    let _turn = TURN.lock();
    let p = deploy(kind);
    let host = Host::of(&p);
    if kind == Kind::Function {
        open(&p, "$DEFAULT");
    }
    let (kills, per_second) = if soak() { (100, 150) } else { (12, 40) };
    let mut dead = 0;
    let answers = under_load(&p, &["web/"], per_second, 60, |progress| {
        let mut seed = 0x9E37_79B9_7F4A_7C15u64;
        // Until one has met somebody at work, which in a short run may take some more.
        while dead < kills || (progress.failed.load(Ordering::Relaxed) == 0 && dead < 20 * kills) {
            let before = progress.answered.load(Ordering::Relaxed);
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // At an arbitrary moment of what is going on: after some more answers, a quarter of a second's at most.
            let pause = 1 + (seed >> 33) as usize % (per_second / 4);
            eventually("requests go on", || progress.answered.load(Ordering::Relaxed) >= before + pause);
            eventually("one dies", || {
                let all = victims(&host);
                !all.is_empty() && all[(seed >> 40) as usize % all.len()].kill()
            });
            dead += 1;
        }
    });
    let runs = runs(&p, &answers);
    let (mut failed, mut posts) = (0, 0);
    for (answer, n) in answers.iter().zip(&runs) {
        // What has begun is never run again, whatever its method.
        assert!(*n <= 1, "{answer:?} ran {n} times");
        posts += usize::from(answer.post);
        if answer.is_done() {
            continue;
        }
        failed += 1;
        let Ok((status, scf, body)) = &answer.got else { panic!("no answer at all: {answer:?}") };
        let error: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("no error document: {answer:?}"));
        assert_eq!((*status, scf.as_str(), &error["statusCode"]), (502, "439", &json!(439)), "{answer:?}");
        assert!(error["errorMessage"].as_str().is_some_and(|m| !m.is_empty()), "{answer:?}");
    }
    println!("{kind:?}: {dead} killed, {} requests, {posts} of them POST; {failed} told so", answers.len());
    // A killed server takes what it had with it, and nothing else. A function's instance has one request.
    let each = if kind == Kind::Service { 20 } else { 1 };
    assert!(failed <= dead * each, "{failed} failed");
    assert!(failed > 0, "with as many killed while they worked, some must have failed");
}

#[test]
fn what_a_killed_service_had_begun_is_told_and_the_rest_goes_on() {
    instances_die(Kind::Service);
}

#[test]
fn what_a_killed_function_had_begun_is_told_and_the_rest_goes_on() {
    instances_die(Kind::Function);
}

/// What has reached nobody is sent to another instance, whatever its method.
fn idle_instances_die(kind: Kind) {
    if !can_sandbox() {
        return;
    }
    let _turn = TURN.lock();
    let p = deploy(kind);
    let host = Host::of(&p);
    if kind == Kind::Function {
        open(&p, "$DEFAULT");
    }
    let (agent, mut answers) = (agent(), Vec::new());
    for id in 0..if soak() { 100 } else { 8 } {
        let answer = ask(&agent, &p, "web/", id, 1);
        assert!(answer.is_done(), "{answer:?}");
        answers.push(answer);
        let all = victims(&host);
        assert!(!all.is_empty(), "the instance that answered is there");
        for victim in &all {
            victim.kill();
        }
        // Until its last thread has ended, and has been waited for, its connections may be open.
        eventually("it is gone", || all.iter().all(|v| !std::path::Path::new(&format!("/proc/{}", v.pid)).exists()));
    }
    assert!(runs(&p, &answers).iter().all(|n| *n == 1), "each ran once");
}

#[test]
fn a_request_that_finds_its_service_dead_is_sent_to_another_instance() {
    idle_instances_die(Kind::Service);
}

#[test]
fn a_request_that_finds_its_function_dead_is_sent_to_another_instance() {
    idle_instances_die(Kind::Function);
}
