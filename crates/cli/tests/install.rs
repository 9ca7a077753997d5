//! Dependencies that a whole platform installs: from the registries' ordinary clients, in sandboxes, from the cache, under attack, and
//! across `kill -9`. Registries have to be reached; without them the tests of real packages say so and end.

#[path = "support/host.rs"]
mod host;

use host::Host;
use mayfly_testkit::{Client, Platform, Setup, can_sandbox, eventually, zip_base64};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Longest wait for an install on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

fn platform(arguments: &[&str]) -> Platform {
    Setup::new(env!("CARGO_BIN_EXE_mayfly")).arguments(arguments).start()
}

fn request(name: &str, runtime: &str, handler: &str, files: &[(&str, &str)]) -> Value {
    json!({
        "FunctionName": name, "Runtime": runtime, "Handler": handler, "Code": { "ZipFile": zip_base64(files) },
        "InstallDependency": "TRUE", "MemorySize": 256, "InitTimeout": 30, "Timeout": 30,
    })
}

/// Waits until an install has ended. Gives the function, and what was printed.
fn installed(client: &Client, name: &str) -> (Value, String) {
    let begun = Instant::now();
    loop {
        let function = client.must("GetFunction", json!({ "FunctionName": name }));
        let status = function["Status"].as_str().unwrap_or_default();
        if !matches!(status, "Creating" | "Updating") {
            let (mut text, mut offset) = (String::new(), json!(0));
            loop {
                let log = client.must("GetInstallLog", json!({ "FunctionName": name, "Offset": offset }));
                let lines = log["Lines"].as_array().expect("lines");
                if lines.is_empty() {
                    return (function, text);
                }
                for line in lines {
                    text.push_str(line.as_str().unwrap_or_default());
                    text.push('\n');
                }
                offset = log["NextOffset"].clone();
            }
        }
        assert!(begun.elapsed() < PATIENCE, "{name} is still {status}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// As [`installed`], of an install that must succeed. `None`: the registry is not reached, which is an error in CI only.
fn succeeded(client: &Client, name: &str) -> Option<String> {
    let (function, log) = installed(client, name);
    if function["Status"] == "Active" {
        return Some(log);
    }
    let why = function["StatusReasons"].to_string();
    let offline = ["resolution", "EAI_AGAIN", "ENOTFOUND", "ETIMEDOUT", "dial tcp", "Connection to"]
        .iter()
        .any(|w| why.contains(w));
    assert!(offline && std::env::var_os("CI").is_none(), "{name}: {why}\n{log}");
    eprintln!("SKIPPED: {name} needs packages that cannot be had: {why}");
    None
}

fn has(program: &str) -> bool {
    let there =
        ["/usr/bin", "/usr/local/bin", "/usr/local/go/bin"].iter().any(|dir| Path::new(dir).join(program).exists());
    if !there {
        eprintln!("SKIPPED: this machine has no {program}");
    }
    there
}

fn cached(client: &Client, name: &str) -> bool {
    client.must("GetInstallLog", json!({ "FunctionName": name }))["Cached"] == true
}

const PYTHON: &str = "import six\ndef main_handler(e, c):\n    return [six.__version__, CODE]\n";

fn python(code: &str, requirements: &str) -> [(&'static str, String); 2] {
    [("index.py", PYTHON.replace("CODE", code)), ("requirements.txt", requirements.to_owned())]
}

fn create_python(client: &Client, name: &str, code: &str, requirements: &str) {
    let files = python(code, requirements);
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    client.must("CreateFunction", request(name, "Python3.9", "index.main_handler", &files));
}

#[test]
fn python_packages_are_installed_once_and_a_failed_update_changes_nothing() {
    if !can_sandbox() || !has("python3") || !Path::new("/usr/lib/python3/dist-packages/pip").exists() {
        return;
    }
    let p = platform(&[]);
    create_python(&p, "first", "1", "six==1.16.0\n");
    let refused = p.call("Invoke", &json!({ "FunctionName": "first" }));
    // It may be done already, but it is never half there.
    if let Some(code) = refused["Error"]["Code"].as_str() {
        assert_eq!(code, "FailedOperation.FunctionStatusError");
    }
    let Some(log) = succeeded(&p, "first") else { return };
    assert!(log.contains("Successfully installed six-1.16.0"), "{log}");
    assert_eq!(p.invoke("first", &json!({})).value(), json!(["1.16.0", 1]));
    assert!(!cached(&p, "first"));

    // Other code, the same requirements: nothing is run.
    create_python(&p, "second", "2", "six==1.16.0\n");
    let log = succeeded(&p, "second").expect("the registry was reached before");
    assert!(cached(&p, "second") && !log.contains("Successfully installed"), "{log}");
    assert_eq!(p.invoke("second", &json!({})).value(), json!(["1.16.0", 2]));

    // What cannot be installed leaves the old code serving, and says why.
    let before = p.must("GetFunctionAddress", json!({ "FunctionName": "first" }));
    let files = python("3", "six==0.0.999\n");
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let update = |zip: String| json!({ "FunctionName": "first", "ZipFile": zip });
    p.must("UpdateFunctionCode", update(zip_base64(&files)));
    let (function, _) = installed(&p, "first");
    assert_eq!(function["Status"], "UpdateFailed");
    let why = function["StatusReasons"][0]["ErrorMessage"].as_str().expect("a reason");
    assert!(why.contains("six==0.0.999") && !why.contains(p.data.to_str().expect("UTF-8")), "{why}");
    assert_eq!(p.invoke("first", &json!({})).value(), json!(["1.16.0", 1]));
    assert_eq!(p.must("GetFunctionAddress", json!({ "FunctionName": "first" }))["CodeSha256"], before["CodeSha256"]);
}

const NODE: &str = "exports.main_handler = async () => [require('ms')('2 days'), require('fs').existsSync('/var/user/node_modules/.package-lock.json')];\n";
const PACKAGE: &str = r#"{"name": "x", "version": "1.0.0", "dependencies": {"ms": "2.1.3"}}"#;
const LOCK: &str = r#"{"name": "x", "version": "1.0.0", "lockfileVersion": 3, "requires": true, "packages": {
  "": {"name": "x", "version": "1.0.0", "dependencies": {"ms": "2.1.3"}},
  "node_modules/ms": {"version": "2.1.3", "integrity": "sha512-6FlzubTLZG3J2a/NVCAleEhjzq5oxgHyaCU9yYXvcLsvoVaHJq/s5xXI6/XXP6tz7R9xAOtHnSO/tXtF3WRTlA=="}}}"#;

#[test]
fn node_packages_are_installed_by_their_lock_file_and_the_command_shows_it() {
    if !can_sandbox() || !has("npm") {
        return;
    }
    let p = platform(&[]);
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [("index.js", NODE), ("package.json", PACKAGE), ("package-lock.json", LOCK)] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let deploy = |name: &str, more: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_mayfly"))
            .args(["--endpoint", &format!("http://{}", p.address), "deploy"])
            .arg(dir.path())
            .args(["--name", name, "--runtime", "Nodejs18.15", "--handler", "index.main_handler"])
            .args(more)
            .env("MAYFLY_SECRET_ID", &p.secret_id)
            .env("MAYFLY_SECRET_KEY", &p.secret_key)
            .output()
            .unwrap()
    };
    let first = deploy("web", &[]);
    let (said, shown) = (String::from_utf8_lossy(&first.stderr), String::from_utf8_lossy(&first.stdout));
    assert!(said.contains("installing what package.json names"), "{said}");
    if succeeded(&p, "web").is_none() {
        return;
    }
    assert!(first.status.success(), "{said}");
    assert!(said.contains("added 1 package"), "{said}");
    assert!(shown.contains("installed in"), "{shown}");
    assert_eq!(p.invoke("web", &json!({})).value(), json!([172_800_000, true]));
    let again = deploy("web", &[]);
    assert!(String::from_utf8_lossy(&again.stdout).contains("unchanged"), "{again:?}");
    let other = deploy("other", &[]);
    assert!(String::from_utf8_lossy(&other.stdout).contains("cached"), "{other:?}");
    // Without them it is deployed as it is, and cannot find its package.
    assert!(deploy("bare", &["--install", "never"]).status.success());
    assert_ne!(p.invoke("bare", &json!({})).status(), 200);
}

#[test]
fn a_go_module_becomes_a_program() {
    if !can_sandbox() || !has("go") {
        return;
    }
    let p = platform(&["--install-memory-mb", "2048"]);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/go-hello");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let files = ["main.go", "go.mod", "go.sum"].map(|name| (name, read(name)));
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    p.must("CreateFunction", request("hello", "Go1", "main", &files));
    if succeeded(&p, "hello").is_none() {
        return;
    }
    let answer = p.invoke("hello", &json!({ "name": "Go" }));
    assert_eq!(answer.value()["message"], "Hello, Go!", "{:?}", answer.result);
    // Other code with the same go.sum: its modules are there, and the program is built without network.
    let changed = files.map(|(name, text)| (name, text.replace("Hello, %s!", "Bye, %s!")));
    let changed = changed.each_ref().map(|(name, text)| (*name, text.as_str()));
    p.must("UpdateFunctionCode", json!({ "FunctionName": "hello", "ZipFile": zip_base64(&changed) }));
    let log = succeeded(&p, "hello").expect("the proxy was reached before");
    assert!(log.contains("cached: what go.sum names"), "{log}");
    assert_eq!(p.invoke("hello", &json!({ "name": "Go" })).value()["message"], "Bye, Go!");
    // A program that does not compile is no function, and the compiler's words say why.
    let broken = [("main.go", "package main\nfunc main() { undefinedThing() }\n"), ("go.mod", "module x\n\ngo 1.19\n")];
    p.must("CreateFunction", request("broken", "Go1", "main", &broken));
    let (function, _) = installed(&p, "broken");
    assert_eq!(function["Status"], "CreateFailed");
    assert!(function["StatusReasons"].to_string().contains("undefinedThing"), "{function}");
    assert_eq!(p.fails("Invoke", json!({ "FunctionName": "broken" })), "FailedOperation.FunctionStatusError");
}

#[test]
fn composer_installs_where_it_is_there_and_is_missed_by_name_where_it_is_not() {
    if !can_sandbox() || !has("php") {
        return;
    }
    let p = platform(&[]);
    // A package of the folder's own: no registry takes part.
    let manifest = r#"{"name": "x/y", "require": {"own/greet": "*"},
        "repositories": [{"type": "path", "url": "lib/greet"}, {"packagist.org": false}]}"#;
    let library = r#"{"name": "own/greet", "version": "1.0.0", "autoload": {"psr-4": {"Own\\": "src/"}}}"#;
    let files = [
        (
            "index.php",
            "<?php\nrequire __DIR__ . '/vendor/autoload.php';\nfunction main_handler($e, $c) { return Own\\Greet::hi(); }\n",
        ),
        ("composer.json", manifest),
        ("lib/greet/composer.json", library),
        (
            "lib/greet/src/Greet.php",
            "<?php\nnamespace Own;\nclass Greet { static function hi() { return 'installed'; } }\n",
        ),
    ];
    p.must("CreateFunction", request("greet", "Php8.0", "index.main_handler", &files));
    let (function, log) = installed(&p, "greet");
    if ["/usr/bin/composer", "/usr/local/bin/composer"].iter().any(|path| Path::new(path).exists()) {
        assert_eq!(function["Status"], "Active", "{log}");
        assert_eq!(p.invoke("greet", &json!({})).value(), json!("installed"));
    } else {
        assert_eq!(function["Status"], "CreateFailed");
        let why = function["StatusReasons"].to_string();
        assert!(why.contains("`composer`") && why.contains("InstallDependency"), "{why}");
    }
}

/// A package whose scripts run with the install; nothing is fetched.
fn scripted(script: &str) -> Vec<(&'static str, String)> {
    let package = r#"{"name": "x", "version": "1.0.0", "scripts": {"postinstall": "node attack.js"}}"#;
    let index =
        "exports.main_handler = async () => JSON.parse(require('fs').readFileSync('/var/user/report.json', 'utf8'));\n";
    vec![("index.js", index.into()), ("package.json", package.into()), ("attack.js", script.into())]
}

fn create_scripted(client: &Client, name: &str, script: &str) {
    let files = scripted(script);
    let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    client.must("CreateFunction", request(name, "Nodejs18.15", "index.main_handler", &files));
}

/// Looks around, tries what is forbidden, fills what it may write to, and reports.
const SPY: &str = r#"
const fs = require('fs'), net = require('net'), os = require('os');
const report = { uid: process.getuid(), wrote: [], env: Object.keys(process.env).filter(k => /SECRET|MAYFLY/.test(k)) };
report.foreign = fs.readdirSync('/proc').filter(d => /^\d+$/.test(d)).map(d => {
  try { return fs.readFileSync(`/proc/${d}/cmdline`, 'utf8'); } catch { return ''; }
}).filter(c => /mayfly|spawner|zygote/.test(c) && !/attack|npm/.test(c));
for (const place of ['/var/user/x', '/usr/x', '/etc/x', '/opt/x', '/x', '/var/runtime/x', '/root/x', '/proc/sys/kernel/hostname'])
  try { fs.writeFileSync(place, 'x'); report.wrote.push(place); } catch {}
try { report.host = fs.readFileSync('/etc/shadow', 'utf8').length; } catch (e) { report.host = e.code; }
let filled = 0;
const fd = fs.openSync('/tmp/fill', 'w');
try {
  const block = Buffer.alloc(1 << 20, 1);
  while (filled < 4096) { fs.writeSync(fd, block); filled++; }
} catch (e) { report.full = e.code; }
report.filled = filled;
fs.closeSync(fd); fs.unlinkSync('/tmp/fill');
const gateway = fs.readFileSync('/proc/net/route', 'utf8').split('\n').slice(1).map(l => l.split('\t')).find(f => f[1] === '00000000');
const hex = gateway ? gateway[2] : '0100007F';
const host = hex.match(/../g).reverse().map(h => parseInt(h, 16)).join('.');
const places = [[host, PORT], ['127.0.0.1', PORT], ['169.254.169.254', 80], ['10.0.0.1', 80]];
report.reached = [];
let left = places.length;
for (const [address, port] of places) {
  const socket = net.connect({ host: address, port, timeout: 1500 });
  const end = ok => { if (ok) report.reached.push(address); socket.destroy(); if (--left === 0) fs.writeFileSync('report.json', JSON.stringify(report)); };
  socket.once('connect', () => end(true)).once('timeout', () => end(false)).once('error', () => end(false));
}
"#;

/// Starts processes without end, which outlive their parents, and holds on.
const FORKS: &str = r#"
const { spawn } = require('child_process');
const more = () => { try { const c = spawn('/bin/sh', ['-c', 'while :; do sleep 100 & done'], { detached: true, stdio: 'ignore' }); c.on('error', () => {}); } catch {} };
setInterval(more, 20);
"#;

const HOG: &str = "const all = []; for (;;) all.push(Buffer.alloc(16 << 20, 1));\n";
const CHATTER: &str = "for (;;) require('fs').writeSync(1, 'x'.repeat(400) + '\\n');\n";

#[test]
fn hostile_install_scripts_reach_nothing_and_harm_nobody() {
    if !can_sandbox() || !has("npm") {
        return;
    }
    let p = platform(&["--install-memory-mb", "256", "--install-disk-mb", "96", "--install-time-s", "25"]);
    let host = Host::of(&p);
    p.create("neighbour", "Python3.9", "i.f", &[("i.py", "def f(e, c):\n    return e\n")], json!({}));
    assert_eq!(p.invoke("neighbour", &json!(1)).value(), json!(1));
    let port = p.address.rsplit(':').next().expect("a port").to_owned();

    create_scripted(&p, "spy", &SPY.replace("PORT", &port));
    let (function, log) = installed(&p, "spy");
    assert_eq!(function["Status"], "Active", "{function} {log}");
    let report = p.invoke("spy", &json!({})).value();
    assert_eq!(
        (&report["uid"], &report["wrote"], &report["foreign"]),
        (&json!(1000), &json!([]), &json!([])),
        "{report}"
    );
    assert_eq!((&report["reached"], &report["env"]), (&json!([]), &json!([])), "{report}");
    assert!(matches!(report["host"].as_str(), Some("ENOENT" | "EACCES")), "{report}");
    assert!(report["full"] == "ENOSPC" && report["filled"].as_u64().expect("a number") <= 96, "{report}");

    for (name, script, why) in [
        ("forks", FORKS, "longer than 25 seconds"),
        ("hog", HOG, "of memory"),
        ("chatter", CHATTER, "printed more than"),
    ] {
        create_scripted(&p, name, script);
        // Whoever else is there is served meanwhile.
        for n in 0..5 {
            assert_eq!(p.invoke("neighbour", &json!(n)).value(), json!(n), "during {name}");
        }
        let (function, _) = installed(&p, name);
        assert_eq!(function["Status"], "CreateFailed", "{name}");
        assert!(function["StatusReasons"].to_string().contains(why), "{name}: {function}");
    }
    let is_tidy = || std::fs::read_dir(p.data.join("installs/work")).is_ok_and(|mut d| d.next().is_none());
    eventually("what was laid out for installs is removed", is_tidy);
    let leftovers = || host.members(None).iter().filter(|m| names(m.pid).contains("attack.js")).count();
    eventually("no process of an install is left", || leftovers() == 0);
    assert_eq!(p.invoke("neighbour", &json!(1)).value(), json!(1));
}

fn names(pid: i32) -> String {
    std::fs::read(format!("/proc/{pid}/cmdline"))
        .map(|b| String::from_utf8_lossy(&b).replace('\0', " "))
        .unwrap_or_default()
}

#[test]
fn an_install_cut_by_kill_9_is_done_after_the_restart_and_leaves_no_orphan() {
    if !can_sandbox() || !has("npm") {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let start = || Setup::new(env!("CARGO_BIN_EXE_mayfly")).data(data.path()).start();
    let p = start();
    let host = Host::of(&p);
    // Holds until it is killed the first time: what it has seen is not kept, so the test tells it by the code of an update.
    create_scripted(&p, "fn", "console.log('holding'); setInterval(() => {}, 1000);\n");
    let printed = |p: &Platform| p.must("GetInstallLog", json!({ "FunctionName": "fn" }))["Lines"].to_string();
    let begun = Instant::now();
    while !printed(&p).contains("holding") {
        assert!(begun.elapsed() < PATIENCE, "{}", printed(&p));
        std::thread::sleep(Duration::from_millis(20));
    }
    let inside: Vec<_> = host.descendants().into_iter().collect();
    p.kill();
    eventually("nothing of the killed platform runs", || inside.iter().all(|process| !process.is_alive()));

    let p = start();
    let status = |p: &Platform| p.must("GetFunction", json!({ "FunctionName": "fn" }))["Status"].clone();
    assert_eq!(status(&p), "Creating", "what was acknowledged is there");
    let begun = Instant::now();
    while !printed(&p).contains("holding") {
        assert!(begun.elapsed() < PATIENCE, "it does not begin again: {}", printed(&p));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(p.fails("Invoke", json!({ "FunctionName": "fn" })), "FailedOperation.FunctionStatusError");
    // Deleting ends it; the name is free for one that comes to an end.
    p.must("DeleteFunction", json!({ "FunctionName": "fn" }));
    create_scripted(&p, "fn", "require('fs').writeFileSync('report.json', '\"made\"');\n");
    let (function, log) = installed(&p, "fn");
    assert_eq!(function["Status"], "Active", "{log}");
    assert_eq!(p.invoke("fn", &json!({})).value(), json!("made"));
    // Its package is kept by what it is made of, so a second start needs nothing.
    p.kill();
    let p = start();
    assert_eq!(p.invoke("fn", &json!({})).value(), json!("made"));
    create_scripted(&p, "again", "require('fs').writeFileSync('report.json', '\"made\"');\n");
    assert_eq!(installed(&p, "again").0["Status"], "Active");
    assert!(cached(&p, "again"), "the cache outlives the platform");
}
