//! How fast asynchronous events are made durable: by the embedded log alone, through the signed API, by NATS behind the same port, beside a
//! NATS client that publishes and beside plain SQLite inserts.

use super::{Bench, Line};
use crate::measure::{Load, Samples, prepare, wrk};
use anyhow::{Context, Result, bail};
use mayfly_model::RequestId;
use mayfly_store::{EventLimits, EventLog, NatsEvents, SqliteEvents, StoredEvent};
use serde_json::json;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Callers at once.
const CALLERS: u64 = 256;
/// Payload of an event, in bytes.
const PAYLOAD: usize = 300;
const LIMITS: EventLimits = EventLimits { count_max: 10_000_000, bytes_max: 1 << 40 };
/// Inserts by one connection, with the same settings as the event log's file: the rate of single commits, and of commits of 256 rows.
const PLAIN_SQLITE: &str = r"
import os, sqlite3, sys, time
c = sqlite3.connect(sys.argv[1], isolation_level=None)
for p in ('journal_mode=wal', 'synchronous=full'): c.execute('pragma ' + p)
c.execute('create table e (id blob not null, due integer not null, attempt integer not null, payload blob not null)')
c.execute('create unique index i on e (id)')
c.execute('create index d on e (due, id)')
def rate(group, seconds):
    n, begun = 0, time.monotonic()
    while time.monotonic() - begun < seconds:
        c.execute('begin immediate')
        c.executemany('insert into e values (?, ?, 0, ?)', [(os.urandom(16), 1, b'x' * 300) for _ in range(group)])
        c.execute('commit')
        n += group
    return n / (time.monotonic() - begun)
print(rate(1, float(sys.argv[2])), rate(256, float(sys.argv[2])))
";

struct Rate {
    per_second: f64,
    p99_ms: f64,
}

impl Rate {
    fn show(&self) -> String {
        format!("{:.0}/s, p99 {:.2} ms", self.per_second, self.p99_ms)
    }
}

fn event(n: u64) -> StoredEvent {
    // As random as the ids of requests are: where a row goes in an index by id is part of what it costs.
    let mixed = u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64 | u128::from(n);
    StoredEvent { id: RequestId(mixed), payload: vec![b'x'; PAYLOAD], due_ms: 1, attempt: 0 }
}

/// Calls `act` from many callers, one after the other each, for so long.
async fn rate<F: Future<Output = Result<()>> + Send + 'static>(
    seconds: u64,
    act: impl Fn(u64) -> F + Send + Sync + 'static,
) -> Result<Rate> {
    let (act, next) = (Arc::new(act), Arc::new(AtomicU64::new(0)));
    let begun = Instant::now();
    let end = begun + Duration::from_secs(seconds);
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (act, next) = (Arc::clone(&act), Arc::clone(&next));
            tokio::spawn(async move {
                let mut times = Vec::new();
                while Instant::now() < end {
                    let begun = Instant::now();
                    act(next.fetch_add(1, Ordering::Relaxed)).await?;
                    times.push(begun.elapsed());
                }
                Ok::<_, anyhow::Error>(times)
            })
        })
        .collect();
    let (mut samples, mut count) = (Samples::default(), 0u64);
    for caller in callers {
        for time in caller.await?? {
            samples.push(time);
            count += 1;
        }
    }
    Ok(Rate { per_second: count as f64 / begun.elapsed().as_secs_f64(), p99_ms: samples.quantile_ms(0.99) })
}

/// A nats-server for one measurement. Dropping it ends it.
struct Nats {
    child: Child,
    url: String,
    /// How it writes, for the report.
    durability: &'static str,
    _dir: tempfile::TempDir,
}

impl Nats {
    /// `None`: there is no program. `MAYFLY_NATS_SERVER` names another one than that of the path.
    fn start() -> Result<Option<Self>> {
        let program = std::env::var_os("MAYFLY_NATS_SERVER").map(PathBuf::from).or_else(|| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let dirs = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
            dirs.map(|dir| dir.join("nats-server")).find(|file| file.is_file())
        });
        let Some(program) = program else { return Ok(None) };
        let version = Command::new(&program).arg("--version").output().context("run nats-server")?;
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        // Servers before 2.10 know no way to sync what they acknowledge.
        let minor = version.split("v2.").nth(1).and_then(|v| v.split('.').next()).and_then(|v| v.parse::<u32>().ok());
        let (sync, durability) = match minor {
            Some(10..) => ("sync_interval: always", "sync_interval: always"),
            _ => ("", "NOT synced before the acknowledgement: needs nats-server 2.10"),
        };
        let dir = tempfile::tempdir()?;
        let shown = dir.path().display();
        let file = dir.path().join("nats.conf");
        std::fs::write(
            &file,
            format!(
                "listen: \"127.0.0.1:-1\"\nmax_payload: 16777216\nports_file_dir: \"{shown}\"\njetstream {{ store_dir: \"{shown}/js\"\n{sync} }}\n"
            ),
        )?;
        let quiet = || Stdio::null();
        let child = Command::new(program).arg("-c").arg(file).stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn()?;
        let ports = dir.path().join(format!("nats-server_{}.ports", child.id()));
        let mut nats = Self { child, url: String::new(), durability, _dir: dir };
        let deadline = Instant::now() + Duration::from_secs(20);
        while nats.url.is_empty() {
            if Instant::now() > deadline || nats.child.try_wait()?.is_some() {
                bail!("nats-server does not start");
            }
            std::thread::sleep(Duration::from_millis(10));
            let text = std::fs::read_to_string(&ports).unwrap_or_default();
            let ports: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            nats.url = ports["nats"][0].as_str().unwrap_or_default().to_owned();
        }
        Ok(Some(nats))
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Bench {
    pub(super) fn events(&mut self) -> Result<()> {
        let seconds = if self.quick { 2 } else { 8 };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let dir = tempfile::tempdir()?;

        let plain = Command::new("/usr/bin/python3")
            .args(["-c", PLAIN_SQLITE])
            .arg(dir.path().join("plain.db"))
            .arg(seconds.to_string())
            .output()
            .context("run python3")?;
        let text = String::from_utf8_lossy(&plain.stdout).into_owned();
        let rates: Vec<f64> = text.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let [single, grouped] = rates[..] else { bail!("python3 measured nothing: {plain:?}") };

        let path = dir.path().join("events.db");
        let log = Arc::new(runtime.block_on(SqliteEvents::open(&path, LIMITS))?);
        let appended = Arc::clone(&log);
        let embedded = runtime.block_on(rate(seconds, move |n| {
            let log = Arc::clone(&appended);
            async move { Ok(log.append(event(n)).await?) }
        }))?;
        self.lines.push(Line {
            name: "durable events, embedded log, 256 callers",
            measured: embedded.show(),
            baseline: format!("plain SQLite inserts: {single:.0}/s one by one, {grouped:.0}/s by 256"),
            ratio: Some(embedded.per_second / grouped),
            target: "≥ 10,000/s",
            met: Some(embedded.per_second >= 10_000.0),
            data: json!({ "per_second": embedded.per_second, "p99_ms": embedded.p99_ms, "plain_single": single, "plain_grouped": grouped }),
        });
        let through = self.enqueue_by_api(seconds)?;
        self.lines.push(Line {
            name: "durable events, signed Invoke, 256 connections",
            measured: format!("{:.0}/s, p99 {:.2} ms, while they run", through.rps, through.p99_ms),
            baseline: format!("the log alone: {}", embedded.show()),
            ratio: Some(through.rps / embedded.per_second),
            target: "–",
            met: None,
            data: json!({ "rps": through.rps, "p50_ms": through.p50_ms, "p99_ms": through.p99_ms }),
        });

        let Some(nats) = Nats::start()? else {
            eprintln!("nats-server is not installed: events in NATS are not measured");
            return Ok(());
        };
        let address = nats.url.parse().map_err(|why: String| anyhow::anyhow!(why))?;
        let log = Arc::new(runtime.block_on(NatsEvents::open(&address, "bench", LIMITS))?);
        let ours = runtime.block_on(rate(seconds, move |n| {
            let log = Arc::clone(&log);
            async move { Ok(log.append(event(n)).await?) }
        }))?;
        let bare = runtime.block_on(async {
            let context = async_nats::jetstream::new(async_nats::connect(&nats.url).await?);
            let config = async_nats::jetstream::stream::Config {
                name: "BARE".into(),
                subjects: vec!["bare.*".into()],
                ..Default::default()
            };
            context.create_stream(config).await?;
            rate(seconds, move |n| {
                let context = context.clone();
                async move {
                    context.publish(format!("bare.{n}"), vec![b'x'; PAYLOAD].into()).await?.await?;
                    Ok(())
                }
            })
            .await
        })?;
        self.lines.push(Line {
            name: "durable events, NATS behind the port, 256 callers",
            measured: ours.show(),
            baseline: format!("publish by async-nats ({}): {}", nats.durability, bare.show()),
            ratio: Some(ours.per_second / bare.per_second),
            target: "–",
            met: None,
            data: json!({ "per_second": ours.per_second, "p99_ms": ours.p99_ms, "publish_per_second": bare.per_second, "publish_p99_ms": bare.p99_ms, "durability": nats.durability }),
        });
        Ok(())
    }

    /// Events for a function that ends at once, sent as fast as they are acknowledged.
    fn enqueue_by_api(&self, seconds: u64) -> Result<Load> {
        let platform = self.rested(&["--events-max", "10000000", "--events-mb", "100000"]);
        let code = "exports.main_handler = async () => 1;\n";
        platform.create("sink", "Nodejs18.15", "index.main_handler", &[("index.js", code)], json!({}));
        let context = json!({ "padding": "x".repeat(PAYLOAD - 100) }).to_string();
        let body = json!({ "FunctionName": "sink", "InvocationType": "Event", "ClientContext": context }).to_string();
        let request = prepare(&platform.address, "Invoke", body)?;
        wrk(&format!("http://{}/", platform.address), &request.script(), CALLERS as usize, seconds)
    }
}
