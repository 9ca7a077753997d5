//! The benchmarks. Each prints its baseline, measured in the same run, and the ratio that its target speaks of.

mod events;
mod kafka;
mod objects;
mod service;

use crate::measure::{Load, Samples, exchange, prepare, timed, tree, wrk};
use anyhow::{Context, Result, bail};
use comfy_table::{Table, presets};
use mayfly_model::runtime::find_runtime;
use mayfly_testkit::{Platform, Setup};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// One line of the report.
struct Line {
    name: &'static str,
    measured: String,
    baseline: String,
    ratio: Option<f64>,
    target: &'static str,
    met: Option<bool>,
    data: Value,
}

struct Bench {
    program: PathBuf,
    quick: bool,
    lines: Vec<Line>,
}

/// Runs the benchmarks.
pub fn run(json: Option<PathBuf>, only: Option<String>, program: Option<PathBuf>, quick: bool) -> Result<()> {
    let program = match program {
        Some(program) => program,
        None => {
            let status =
                Command::new("cargo").args(["build", "--release", "--quiet", "--package", "mayfly"]).status()?;
            if !status.success() {
                bail!("the release build failed");
            }
            std::env::current_dir()?.join("target/release/mayfly")
        }
    };
    let mut bench = Bench { program, quick, lines: Vec::new() };
    type Part = fn(&mut Bench) -> Result<()>;
    let parts: [(&str, Part); 15] = [
        ("warm", Bench::warm),
        ("cold-python", Bench::cold_python),
        ("cold-node", Bench::cold_node),
        ("cold-php", Bench::cold_php),
        ("cold-go", Bench::cold_go),
        ("cold-java", Bench::cold_java),
        ("cold-custom", Bench::cold_custom),
        ("burst", Bench::burst),
        ("density", Bench::density),
        ("start", Bench::start),
        ("service", Bench::service),
        ("sockets", Bench::sockets),
        ("events", Bench::events),
        ("kafka", Bench::kafka),
        ("objects", Bench::objects),
    ];
    for (name, part) in parts {
        if only.as_ref().is_none_or(|o| name.contains(o.as_str())) {
            eprintln!("running {name} …");
            part(&mut bench).with_context(|| format!("benchmark {name}"))?;
        }
    }
    bench.report(json)
}

const PYTHON_HELLO: &str = "def main_handler(event, context):\n    return 'hello'\n";
const PHP_HELLO: &str = "<?php\nfunction main_handler($event, $context) {\n    return 'hello';\n}\n";
const JAVA_HELLO: &str = "public class Hello { public String mainHandler(Object event) { return \"hello\"; } }";
const NODE_ECHO: &str = "exports.main_handler = async (event) => event;\n";
/// 300 ms of work at import, as large libraries do it.
const PYTHON_HEAVY: &str = "import time\n_end = time.monotonic() + 0.3\nwhile time.monotonic() < _end:\n    pass\ndef main_handler(event, context):\n    time.sleep(event)\n    return 'hello'\n";
const PYTHON_SLEEP: &str =
    "import time\ndef main_handler(event, context):\n    time.sleep(event)\n    return 'slept'\n";
const BARE_NODE: &str = "require('http').createServer((q, s) => { let b = ''; q.on('data', (c) => b += c); q.on('end', () => { const t = JSON.stringify(JSON.parse(b)); s.writeHead(200, {'content-type': 'application/json', 'content-length': Buffer.byteLength(t)}); s.end(t); }); }).listen(0, '127.0.0.1', function () { console.log(this.address().port); });";
const CUSTOM: &str = r#"#!/bin/bash
api="/dev/tcp/127.0.0.1/$SCF_RUNTIME_API_PORT"
call() { # method path body
  exec 9<>"$api"
  printf '%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s' "$1" "$2" "${#3}" "$3" >&9
  cat <&9 >/dev/null
  exec 9>&-
}
call POST /runtime/init/ready " "
while :; do
  call GET /runtime/invocation/next ""
  call POST /runtime/invocation/response '"hello"'
done
"#;

/// A bare server for comparison. Dropping it ends it.
struct Bare {
    child: Child,
    url: String,
}

impl Bare {
    fn node() -> Result<Self> {
        let mut child =
            Command::new("node").args(["-e", BARE_NODE]).stdout(Stdio::piped()).spawn().context("run node")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("node's output")?).read_line(&mut line)?;
        Ok(Self { child, url: format!("http://127.0.0.1:{}/", line.trim()) })
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Bench {
    fn rounds(&self, full: usize) -> usize {
        if self.quick { full.div_ceil(5) } else { full }
    }

    fn platform(&self, arguments: &[&str]) -> Platform {
        Setup::new(&self.program).arguments(arguments).start()
    }

    /// A platform whose stock of waiting processes is full.
    fn rested(&self, arguments: &[&str]) -> Platform {
        let platform = self.platform(arguments);
        wait_for_stock(&platform);
        platform
    }

    fn warm(&mut self) -> Result<()> {
        let platform = self.rested(&[]);
        platform.create("echo", "Nodejs18.15", "index.main_handler", &[("index.js", NODE_ECHO)], json!({}));
        let event = r#"{"key1":"test value 1","key2":"test value 2"}"#;
        let body = json!({ "FunctionName": "echo", "ClientContext": event }).to_string();
        let request = prepare(&platform.address, "Invoke", body)?;
        let url = format!("http://{}/", platform.address);
        let bare = Bare::node()?;
        let bare_script = format!("wrk.method = \"POST\"\nwrk.body = [==[{event}]==]\n");
        let seconds = if self.quick { 2 } else { 6 };
        for (connections, name) in [(1, "warm invoke, Node echo, c=1"), (16, "warm invoke, Node echo, c=16")] {
            // A round to start instances and let compilers settle, then three of each in turn; the best counts.
            wrk(&url, &request.script(), connections, 2)?;
            wrk(&bare.url, &bare_script, connections, 1)?;
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..3 {
                ours.push(wrk(&url, &request.script(), connections, seconds)?);
                theirs.push(wrk(&bare.url, &bare_script, connections, seconds)?);
            }
            let best =
                |all: &[Load]| *all.iter().max_by(|a, b| a.rps.total_cmp(&b.rps)).expect("three rounds were run");
            let (ours, theirs) = (best(&ours), best(&theirs));
            let show = |l: Load| format!("{:.0}/s, p50 {:.3} ms, p99 {:.2} ms", l.rps, l.p50_ms, l.p99_ms);
            let (ratio, target, met) = if connections == 1 {
                let ratio = ours.p50_ms / theirs.p50_ms;
                (ratio, "p50 ≤ 3× bare Node", ratio <= 3.0)
            } else {
                let ratio = ours.rps / theirs.rps;
                (ratio, "rate ≥ 0.6× bare Node, p99 ≤ 3 ms", ratio >= 0.6 && ours.p99_ms <= 3.0)
            };
            self.lines.push(Line {
                name,
                measured: show(ours),
                baseline: format!("bare Node HTTP: {}", show(theirs)),
                ratio: Some(ratio),
                target,
                met: Some(met),
                data: json!({ "rps": ours.rps, "p50_ms": ours.p50_ms, "p99_ms": ours.p99_ms, "baseline_rps": theirs.rps, "baseline_p50_ms": theirs.p50_ms }),
            });
        }
        Ok(())
    }

    /// First calls of functions never called before, one after the other.
    fn cold(
        &self,
        runtime: &str,
        files: &[(&str, &[u8])],
        handler: &str,
        rounds: usize,
        mut beside: impl FnMut() -> Result<Duration>,
    ) -> Result<(Samples, Samples)> {
        let family = find_runtime(runtime).and_then(|r| r.family.ok()).context("the runtime is known")?;
        let platform = self.rested(&[]);
        let (mut ours, mut theirs) = (Samples::default(), Samples::default());
        let mut connection = TcpStream::connect(&platform.address)?;
        connection.set_nodelay(true)?;
        for round in 0..rounds {
            let name = format!("cold-{round}");
            // Different bytes each time: no function shares another's code.
            let number = round.to_string();
            let files = [files, &[("round.txt", number.as_bytes())]].concat();
            let zip = mayfly_testkit::zip_base64(&files);
            let create =
                json!({ "FunctionName": name, "Runtime": runtime, "Handler": handler, "Code": { "ZipFile": zip } });
            platform.must("CreateFunction", create.clone());
            if round == 0 && family.is_kept_on_demand() {
                // The platform's very first function of the language: the machine's interpreter is looked at, and the stock begins.
                platform.invoke(&name, &json!(1));
                platform.must("DeleteFunction", json!({ "FunctionName": name }));
                platform.must("CreateFunction", create);
            }
            wait_for_stock(&platform);
            if family.is_kept_on_demand() {
                mayfly_testkit::eventually("a process is kept", || {
                    instances(&platform, family.as_str(), "precreated") > 0
                });
            }
            let body = json!({ "FunctionName": name, "ClientContext": "{}" }).to_string();
            let wire = prepare(&platform.address, "Invoke", body)?.wire();
            let begun = Instant::now();
            let answer = exchange(&mut connection, &wire)?;
            ours.push(begun.elapsed());
            let answer: Value = serde_json::from_slice(&answer)?;
            if answer["Response"]["Result"]["InvokeResult"] != 0 {
                bail!("a cold call failed: {answer}");
            }
            theirs.push(beside()?);
            platform.must("DeleteFunction", json!({ "FunctionName": name }));
        }
        Ok((ours, theirs))
    }

    fn cold_line(
        &mut self,
        name: &'static str,
        what: &str,
        ours: &Samples,
        theirs: &Samples,
        target: (&'static str, f64, f64),
    ) {
        let ratio = ours.quantile_ms(0.5) / theirs.quantile_ms(0.5);
        let tail = ours.quantile_ms(0.99) / theirs.quantile_ms(0.5);
        self.lines.push(Line {
            name,
            measured: quantiles(ours),
            baseline: format!("{what}: {}", quantiles(theirs)),
            ratio: Some(ratio),
            target: target.0,
            met: Some(ratio <= target.1 && tail <= target.2),
            data: json!({ "p50_ms": ours.quantile_ms(0.5), "p99_ms": ours.quantile_ms(0.99), "baseline_p50_ms": theirs.quantile_ms(0.5) }),
        });
    }

    fn cold_python(&mut self) -> Result<()> {
        let python = ["-I", "-S", "-c", "pass"];
        let file: &[(&str, &[u8])] = &[("index.py", PYTHON_HELLO.as_bytes())];
        let (ours, theirs) = self
            .cold("Python3.9", file, "index.main_handler", self.rounds(100), || timed("/usr/bin/python3", &python))?;
        self.cold_line(
            "cold start, Python hello",
            "python3 -I -S -c pass",
            &ours,
            &theirs,
            ("p50 ≤ 1×, p99 ≤ 3× of it", 1.0, 3.0),
        );

        let platform = self.rested(&[]);
        let mut heavy = Samples::default();
        for round in 0..self.rounds(30) {
            let name = format!("heavy-{round}");
            let more = json!({ "MemorySize": 128, "Timeout": 30 });
            platform.create(&name, "Python3.9", "index.main_handler", &[("index.py", PYTHON_HEAVY)], more);
            // The first instance runs the imports, and is kept busy while the second starts.
            let client = platform.client.clone();
            platform.invoke(&name, &json!(0));
            let busy = name.clone();
            let first = std::thread::spawn(move || client.invoke(&busy, &json!(0.3)));
            mayfly_testkit::eventually("the first instance is busy", || {
                platform.get("/metrics").1.lines().any(|l| {
                    l.starts_with("mayfly_instances") && l.contains("busy") && l.contains("python") && l.ends_with(" 1")
                })
            });
            let mut connection = TcpStream::connect(&platform.address)?;
            connection.set_nodelay(true)?;
            let body = json!({ "FunctionName": name, "ClientContext": "0" }).to_string();
            let wire = prepare(&platform.address, "Invoke", body)?.wire();
            let begun = Instant::now();
            exchange(&mut connection, &wire)?;
            heavy.push(begun.elapsed());
            first.join().ok().context("the first call")?;
            platform.must("DeleteFunction", json!({ "FunctionName": name }));
        }
        self.cold_line(
            "cold start, Python with 300 ms of imports, 2nd instance",
            "our own hello",
            &heavy,
            &ours,
            ("p50 ≤ 1.5× of hello's", 1.5, f64::INFINITY),
        );
        Ok(())
    }

    fn cold_node(&mut self) -> Result<()> {
        let file: &[(&str, &[u8])] = &[("index.js", NODE_ECHO.as_bytes())];
        let (ours, theirs) = self.cold("Nodejs18.15", file, "index.main_handler", self.rounds(50), || {
            timed("/usr/bin/node", &["-e", "0"])
        })?;
        self.cold_line(
            "cold start, Node hello",
            "node -e 0",
            &ours,
            &theirs,
            ("p50 ≤ 0.25× of it", 0.25, f64::INFINITY),
        );
        Ok(())
    }

    fn cold_php(&mut self) -> Result<()> {
        let php = "/usr/bin/php";
        if !std::path::Path::new(php).exists() {
            eprintln!("skipped: {php} is not there");
            return Ok(());
        }
        let (ours, theirs) =
            self.cold("Php8.0", &[("index.php", PHP_HELLO.as_bytes())], "index.main_handler", self.rounds(50), || {
                timed(php, &["-n", "-r", "1;"])
            })?;
        self.unjudged_cold_line("cold start, PHP hello", "php -n -r '1;'", &ours, &theirs);
        Ok(())
    }

    fn cold_go(&mut self) -> Result<()> {
        let dir = tempfile::tempdir()?;
        let program = dir.path().join("main");
        let built = Command::new("go")
            .args(["build", "-ldflags=-s -w", "-o"])
            .arg(&program)
            .arg("./rpc")
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../cli/tests/support/go"))
            .env("CGO_ENABLED", "0")
            .status();
        if !built.is_ok_and(|status| status.success()) {
            eprintln!("skipped: `go build` does not work here");
            return Ok(());
        }
        let content = std::fs::read(&program)?;
        // On a port that there cannot be, the same program ends when it would begin to serve.
        let bare = ["-c".to_owned(), format!("_LAMBDA_SERVER_PORT=-1 {} 2>/dev/null; :", program.display())];
        let (ours, theirs) = self
            .cold("Go1", &[("main", &content)], "main", self.rounds(50), || timed("/bin/sh", &[&bare[0], &bare[1]]))?;
        self.unjudged_cold_line("cold start, Go (net/rpc)", "the program until it would listen", &ours, &theirs);
        Ok(())
    }

    fn cold_java(&mut self) -> Result<()> {
        let dir = tempfile::tempdir()?;
        let source = dir.path().join("Hello.java");
        std::fs::write(&source, JAVA_HELLO)?;
        if !Command::new("/usr/bin/javac").arg(&source).status().is_ok_and(|status| status.success()) {
            eprintln!("skipped: /usr/bin/javac does not work here");
            return Ok(());
        }
        let class = std::fs::read(dir.path().join("Hello.class"))?;
        let bare = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Xshare:auto", "--version"];
        let files: &[(&str, &[u8])] = &[("Hello.class", &class)];
        let (ours, theirs) =
            self.cold("Java11", files, "Hello::mainHandler", self.rounds(50), || timed("/usr/bin/java", &bare))?;
        self.unjudged_cold_line("cold start, Java hello", "java --version, with the same flags", &ours, &theirs);
        Ok(())
    }

    /// A cold start that no target speaks of.
    fn unjudged_cold_line(&mut self, name: &'static str, what: &str, ours: &Samples, theirs: &Samples) {
        self.lines.push(Line {
            name,
            measured: quantiles(ours),
            baseline: format!("{what}: {}", quantiles(theirs)),
            ratio: Some(ours.quantile_ms(0.5) / theirs.quantile_ms(0.5)),
            target: "(none set)",
            met: None,
            data: json!({ "p50_ms": ours.quantile_ms(0.5), "p99_ms": ours.quantile_ms(0.99), "baseline_p50_ms": theirs.quantile_ms(0.5) }),
        });
    }

    fn cold_custom(&mut self) -> Result<()> {
        let (ours, theirs) =
            self.cold("CustomRuntime", &[("bootstrap", CUSTOM.as_bytes())], "", self.rounds(50), || {
                timed("/bin/bash", &["-c", ":"])
            })?;
        self.unjudged_cold_line("cold start, custom runtime (bash)", "bash -c :", &ours, &theirs);
        Ok(())
    }

    fn burst(&mut self) -> Result<()> {
        let platform = self.rested(&[]);
        platform.create(
            "burst",
            "Python3.9",
            "index.main_handler",
            &[("index.py", PYTHON_SLEEP)],
            json!({ "Timeout": 30 }),
        );
        let calls = 200;
        let begun = Instant::now();
        let answers: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..calls).map(|_| scope.spawn(|| platform.invoke("burst", &json!(0.1)).status())).collect();
            threads.into_iter().map(|t| t.join().unwrap_or(0)).collect()
        });
        let wall = begun.elapsed();
        let good = answers.iter().filter(|s| **s == 200).count();
        self.lines.push(Line {
            name: "burst: 200 first calls at once, each sleeps 100 ms",
            measured: format!("{good} answered in {:.2} s", wall.as_secs_f64()),
            baseline: "–".into(),
            ratio: None,
            target: "all, wall ≤ 2.5 s",
            met: Some(good == calls && wall <= Duration::from_millis(2500)),
            data: json!({ "answered": good, "wall_s": wall.as_secs_f64() }),
        });
        Ok(())
    }

    fn density(&mut self) -> Result<()> {
        let count = if self.quick { 100 } else { 500 };
        let platform = self.platform(&["--waiting-room", "2000", "--precreate-python", "0", "--precreate-node", "0"]);
        let all_at_once = |name: &str, count: usize, seconds: f64| {
            std::thread::scope(|scope| {
                let threads: Vec<_> =
                    (0..count).map(|_| scope.spawn(|| platform.invoke(name, &json!(seconds)).status())).collect();
                threads.into_iter().filter_map(|t| t.join().ok()).filter(|s| *s == 200).count()
            })
        };
        platform.create(
            "idle",
            "Python3.9",
            "index.main_handler",
            &[("index.py", PYTHON_SLEEP)],
            json!({ "Timeout": 120 }),
        );
        let served = all_at_once("idle", count, if self.quick { 3.0 } else { 20.0 });
        let idle = instances(&platform, "python", "idle");
        let (per_instance, platform_rss) = footprint(&platform, "python3", idle);
        self.lines.push(Line {
            name: "density: idle Python instances",
            measured: format!("{idle} idle ({served} of {count} calls answered), {per_instance:.2} MiB PSS each, inits and template included"),
            baseline: "–".into(),
            ratio: None,
            target: "500, ≤ 2 MiB PSS each",
            met: Some(idle >= count && per_instance <= 2.0),
            data: json!({ "idle": idle, "pss_mib_each": per_instance }),
        });
        self.lines.push(Line {
            name: "platform's own memory, with those instances",
            measured: format!("{platform_rss:.1} MiB RSS (mayfly and its spawner)"),
            baseline: "–".into(),
            ratio: None,
            target: "≤ 60 MiB RSS",
            met: Some(platform_rss <= 60.0),
            data: json!({ "rss_mib": platform_rss }),
        });
        drop(platform);

        let platform = self.platform(&["--precreate-python", "0", "--precreate-node", "0"]);
        let sleep = "exports.main_handler = (e) => new Promise((r) => setTimeout(r, 8000));\n";
        platform.create("idle", "Nodejs18.15", "index.main_handler", &[("index.js", sleep)], json!({ "Timeout": 60 }));
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| platform.invoke("idle", &json!(0)));
            }
        });
        let idle = instances(&platform, "node", "idle");
        let (per_instance, _) = footprint(&platform, "node", idle);
        self.lines.push(Line {
            name: "density: idle Node instances",
            measured: format!("{idle} idle, {per_instance:.2} MiB PSS each"),
            baseline: "–".into(),
            ratio: None,
            target: "≤ 20 MiB PSS each",
            met: Some(per_instance <= 20.0),
            data: json!({ "idle": idle, "pss_mib_each": per_instance }),
        });
        Ok(())
    }

    fn start(&mut self) -> Result<()> {
        let data = tempfile::tempdir()?;
        let functions = if self.quick { 200 } else { 1000 };
        let platform = Setup::new(&self.program).data(data.path()).start();
        for n in 0..functions {
            platform.create(
                &format!("fn-{n}"),
                "Python3.9",
                "index.main_handler",
                &[("index.py", PYTHON_HELLO)],
                json!({}),
            );
        }
        platform.stop();
        let mut samples = Samples::default();
        for _ in 0..self.rounds(5) {
            let begun = Instant::now();
            let platform = Setup::new(&self.program).data(data.path()).start();
            samples.push(begun.elapsed());
            if platform.call("ListFunctions", &json!({}))["TotalCount"] != functions {
                bail!("functions are missing after the restart");
            }
            platform.stop();
        }
        self.lines.push(Line {
            name: "start of the platform with 1,000 functions",
            measured: format!("{} functions: exec to ready {}", functions, quantiles(&samples)),
            baseline: "–".into(),
            ratio: None,
            target: "≤ 500 ms",
            met: Some(samples.quantile_ms(0.5) <= 500.0),
            data: json!({ "functions": functions, "p50_ms": samples.quantile_ms(0.5) }),
        });
        Ok(())
    }

    fn report(&self, file: Option<PathBuf>) -> Result<()> {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN).set_header([
            "what",
            "measured",
            "baseline, same run",
            "ratio",
            "target",
            "",
        ]);
        for line in &self.lines {
            let verdict = match line.met {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "",
            };
            let ratio = line.ratio.map_or(String::new(), |r| format!("{r:.2}"));
            table.add_row([line.name, &line.measured, &line.baseline, &ratio, line.target, verdict]);
        }
        println!("{table}");
        let all: Vec<Value> = self
            .lines
            .iter()
            .map(|l| json!({ "name": l.name, "ratio": l.ratio, "target": l.target, "met": l.met, "data": l.data }))
            .collect();
        let text = serde_json::to_string_pretty(&all)?;
        match file {
            Some(path) => std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?,
            None => println!("{text}"),
        }
        Ok(())
    }
}

fn quantiles(samples: &Samples) -> String {
    format!("p50 {:.2} ms, p99 {:.2} ms", samples.quantile_ms(0.5), samples.quantile_ms(0.99))
}

/// The number of instances of a runtime in a state, from /metrics.
fn instances(platform: &Platform, runtime: &str, state: &str) -> usize {
    let (_, text) = platform.get("/metrics");
    let wanted = |l: &&str| {
        l.starts_with("mayfly_instances{")
            && l.contains(&format!("\"{runtime}\""))
            && l.contains(&format!("\"{state}\""))
    };
    text.lines().find(wanted).and_then(|l| l.rsplit(' ').next()).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Waits until no stock is being refilled: its size is the same at two looks.
fn wait_for_stock(platform: &Platform) {
    let stock = || ["python", "node", "custom"].map(|r| instances(platform, r, "precreated"));
    mayfly_testkit::eventually("the stock is full", || {
        let before = stock();
        std::thread::sleep(Duration::from_millis(40));
        before == stock() && before[0] >= 2 && before[1] >= 1
    });
}

/// Memory of each of `count` instances with everything that is there for them, and of the platform itself, in MiB.
fn footprint(platform: &Platform, name: &str, count: usize) -> (f64, f64) {
    let all = tree(platform.pid());
    let own: Vec<i32> = all.iter().take(1).map(|(pid, _)| *pid).collect();
    // The platform and its spawner are `mayfly` with the largest memory; inits are `mayfly` too, and belong to instances.
    let mut platform_kib = 0;
    let mut instance_kib = 0;
    let mut spawner_seen = false;
    for (pid, memory) in &all {
        let is_spawner = !spawner_seen && memory.name == "mayfly" && !own.contains(pid);
        if own.contains(pid) || is_spawner {
            spawner_seen |= is_spawner;
            platform_kib += memory.rss_kib;
        } else if memory.name == name || memory.name == "mayfly" {
            instance_kib += memory.pss_kib;
        }
    }
    (instance_kib as f64 / 1024.0 / count.max(1) as f64, platform_kib as f64 / 1024.0)
}
