//! Objects put and got, beside nginx that serves and stores the same files (its WebDAV module), and beside files written and synced.

use super::service::{Ends, answers, free_port};
use super::{Bench, Line};
use crate::measure::Samples;
use anyhow::{Context, Result, bail};
use mayfly_sign::{CosToSign, sign_cos};
use mayfly_testkit::{SECRET_ID, SECRET_KEY, eventually};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const BUCKET: &str = "/bench-1250000000";
/// Objects that are got and replaced in turn by each connection.
const KEYS: usize = 64;

/// One server, and how it wants requests signed.
#[derive(Clone)]
struct Target {
    address: String,
    signed: bool,
}

/// What one connection does over and over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Put,
    Get,
}

/// What was measured.
#[derive(Clone, Copy)]
struct Rate {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

impl Rate {
    fn show(self, bytes: usize) -> String {
        let megabytes = self.per_second * bytes as f64 / 1e6;
        let rate = if bytes < 1 << 20 { format!("{:.0}/s", self.per_second) } else { format!("{megabytes:.0} MB/s") };
        format!("{rate}, p50 {:.2} ms, p99 {:.2} ms", self.p50_ms, self.p99_ms)
    }
}

impl Target {
    /// The head of a request, valid for ten minutes.
    fn head(&self, what: What, path: &str, bytes: usize) -> Result<String> {
        let method = if what == What::Put { "PUT" } else { "GET" };
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.address);
        if self.signed {
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
            let authorization = sign_cos(&CosToSign {
                secret_id: SECRET_ID,
                secret_key: SECRET_KEY,
                span_s: (now - 60, now + 600),
                method,
                path,
                params: &[],
                headers: &[("host", &self.address)],
            });
            head += &format!("Authorization: {authorization}\r\n");
        }
        if what == What::Put {
            head += &format!("Content-Length: {bytes}\r\n");
        }
        Ok(head + "\r\n")
    }

    fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        Ok(stream)
    }

    /// Does the same on so many connections for so long; every answer is read to its end.
    fn rate(&self, what: What, folder: &str, body: &[u8], connections: usize, seconds: f64) -> Result<Rate> {
        let (count, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let begun = Instant::now();
        let worker = |number: usize| -> Result<Vec<Duration>> {
            let keys = if body.len() >= 1 << 20 { 2 } else { KEYS / connections.min(KEYS) };
            let heads: Vec<String> = (0..keys)
                .map(|key| self.head(what, &format!("{folder}/{number}-{key}"), body.len()))
                .collect::<Result<_>>()?;
            let (mut stream, mut times) = (self.connect()?, Vec::new());
            let mut buffer = vec![0; 256 << 10];
            for (round, head) in heads.iter().cycle().enumerate() {
                // Each key once at least: what was put is what is got later.
                if round >= keys && stop.load(Ordering::Relaxed) {
                    break;
                }
                let begun = Instant::now();
                let sent = if what == What::Put { body } else { &[] };
                exchange(&mut stream, head, sent, body.len(), &mut buffer)?;
                times.push(begun.elapsed());
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(times)
        };
        let all = std::thread::scope(|scope| {
            let worker = &worker;
            let workers: Vec<_> = (0..connections).map(|number| scope.spawn(move || worker(number))).collect();
            let least = if body.len() >= 64 << 20 { 3 } else { 20 };
            while (begun.elapsed().as_secs_f64() < seconds || count.load(Ordering::Relaxed) < least)
                && !workers.iter().any(|w| w.is_finished())
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            stop.store(true, Ordering::Relaxed);
            workers
                .into_iter()
                .map(|w| w.join().unwrap_or_else(|_| bail!("a client broke")))
                .collect::<Result<Vec<_>>>()
        })?;
        let mut samples = Samples::default();
        all.into_iter().flatten().for_each(|time| samples.push(time));
        let per_second = count.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
        Ok(Rate { per_second, p50_ms: samples.quantile_ms(0.5), p99_ms: samples.quantile_ms(0.99) })
    }
}

/// One request and its answer.
fn exchange(stream: &mut TcpStream, head: &str, body: &[u8], expected: usize, buffer: &mut [u8]) -> Result<()> {
    if body.len() <= 64 << 10 {
        stream.write_all(&[head.as_bytes(), body].concat())?;
    } else {
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
    }
    let (mut filled, end) = (0, b"\r\n\r\n");
    let at = loop {
        let n = stream.read(&mut buffer[filled..])?;
        if n == 0 {
            bail!("the connection was closed");
        }
        filled += n;
        if let Some(at) = buffer[..filled].windows(4).position(|w| w == end) {
            break at + 4;
        }
    };
    let text = String::from_utf8_lossy(&buffer[..at]).to_lowercase();
    if !matches!(text.get(9..12), Some("200" | "201" | "204")) {
        bail!("the answer was {text}{}", String::from_utf8_lossy(&buffer[at..filled]));
    }
    let length = text.lines().find_map(|l| l.strip_prefix("content-length:")).and_then(|l| l.trim().parse().ok());
    let length: usize = length.unwrap_or(0);
    if head.starts_with("GET") && length != expected {
        bail!("{length} bytes came instead of {expected}");
    }
    let mut left = length.saturating_sub(filled - at);
    while left > 0 {
        let most = buffer.len().min(left);
        let n = stream.read(&mut buffer[..most])?;
        if n == 0 {
            bail!("the body broke off");
        }
        left -= n;
    }
    Ok(())
}

/// nginx that takes and gives files under `root`, if it is installed: two workers, as many as there are processors here.
fn nginx(root: &Path) -> Result<Option<(Ends, String)>> {
    if Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_err() {
        return Ok(None);
    }
    let port = free_port()?;
    let shown = root.display();
    std::fs::create_dir_all(root.join("www/bench-1250000000"))?;
    let config = format!(
        "user root;\nworker_processes 2;\ndaemon off;\npid {shown}/pid;\nerror_log {shown}/error;\nevents {{ worker_connections 1024; }}\nhttp {{\n access_log off;\n sendfile on;\n tcp_nopush on;\n keepalive_requests 1000000;\n client_max_body_size 1g;\n client_body_buffer_size 16k;\n client_body_temp_path {shown}/b;\n proxy_temp_path {shown}/p;\n fastcgi_temp_path {shown}/f;\n uwsgi_temp_path {shown}/u;\n scgi_temp_path {shown}/s;\n server {{ listen 127.0.0.1:{port}; location / {{ root {shown}/www; dav_methods PUT DELETE; create_full_put_path on; }} }}\n}}\n"
    );
    let file = root.join("nginx.conf");
    std::fs::write(&file, config)?;
    let child = Command::new("nginx").arg("-c").arg(&file).arg("-p").arg(root).stderr(Stdio::null()).spawn()?;
    let child = Ends(child);
    eventually("nginx listens", || answers(port));
    Ok(Some((child, format!("127.0.0.1:{port}"))))
}

/// Files written, synced with their folder, and renamed into place, by as many threads.
fn synced_files(root: &Path, body: &[u8], threads: usize, seconds: f64) -> Result<Rate> {
    let (begun, count) = (Instant::now(), AtomicU64::new(0));
    let folder = root.join("plain");
    std::fs::create_dir_all(&folder)?;
    let least = if body.len() >= 64 << 20 { 3 } else { 20 };
    let (folder, count) = (&folder, &count);
    let worker = |number: usize| -> Result<Vec<Duration>> {
        let mut times = Vec::new();
        for round in 0.. {
            if begun.elapsed().as_secs_f64() >= seconds && count.load(Ordering::Relaxed) >= least {
                break;
            }
            let one = Instant::now();
            let temporary = folder.join(format!("{number}.new"));
            let mut file = std::fs::File::create(&temporary)?;
            file.write_all(body)?;
            file.sync_all()?;
            std::fs::rename(&temporary, folder.join(format!("{number}-{}", round % 4)))?;
            std::fs::File::open(folder)?.sync_all()?;
            times.push(one.elapsed());
            count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(times)
    };
    let all = std::thread::scope(|scope| {
        let worker = &worker;
        let workers: Vec<_> = (0..threads).map(|n| scope.spawn(move || worker(n))).collect();
        workers.into_iter().map(|w| w.join().unwrap_or_else(|_| bail!("a writer broke"))).collect::<Result<Vec<_>>>()
    })?;
    let per_second = count.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    let mut samples = Samples::default();
    all.into_iter().flatten().for_each(|time| samples.push(time));
    std::fs::remove_dir_all(folder)?;
    Ok(Rate { per_second, p50_ms: samples.quantile_ms(0.5), p99_ms: samples.quantile_ms(0.99) })
}

const CASES: [(usize, usize, &str, &str); 5] = [
    (1 << 10, 1, "objects of 1 KB, put, c=1", "objects of 1 KB, get, c=1"),
    (1 << 10, 16, "objects of 1 KB, put, c=16", "objects of 1 KB, get, c=16"),
    (1 << 20, 1, "objects of 1 MB, put, c=1", "objects of 1 MB, get, c=1"),
    (1 << 20, 16, "objects of 1 MB, put, c=16", "objects of 1 MB, get, c=16"),
    (100 << 20, 1, "objects of 100 MB, put, c=1", "objects of 100 MB, get, c=1"),
];

impl Bench {
    pub(super) fn objects(&mut self) -> Result<()> {
        let platform = self.platform(&[]);
        let ours = Target { address: platform.objects.clone(), signed: true };
        let mut buffer = vec![0; 64 << 10];
        exchange(&mut ours.connect()?, &ours.head(What::Put, BUCKET, 0)?, &[], 0, &mut buffer)
            .context("make a bucket")?;
        // Beside the platform's data: the same file system.
        let dir = tempfile::tempdir_in(&platform.data)?;
        let beside = nginx(dir.path())?;
        if beside.is_none() {
            eprintln!("nginx is not installed: no baseline but plain files");
        }
        let theirs = beside.as_ref().map(|(_, address)| Target { address: address.clone(), signed: false });
        let seconds = if self.quick { 1.0 } else { 4.0 };
        for (size, connections, put_name, get_name) in CASES {
            let body: Vec<u8> = (0..size).map(|n| (n * 31 + n / 251) as u8).collect();
            let folder = format!("{BUCKET}/{size}-{connections}");
            for (what, name) in [(What::Put, put_name), (What::Get, get_name)] {
                // In turn; the best of each counts, since others may be at work on this machine.
                let (mut mine, mut other, mut plain): (Vec<Rate>, Vec<Rate>, Vec<Rate>) = Default::default();
                for _ in 0..3 {
                    mine.push(ours.rate(what, &folder, &body, connections, seconds)?);
                    if let Some(theirs) = &theirs {
                        other.push(theirs.rate(what, &folder, &body, connections, seconds)?);
                    }
                    if what == What::Put {
                        plain.push(synced_files(dir.path(), &body, connections, seconds)?);
                    }
                }
                let best = |all: &[Rate]| all.iter().copied().max_by(|a, b| a.per_second.total_cmp(&b.per_second));
                let (mine, other, plain) = (best(&mine).context("a round")?, best(&other), best(&plain));
                let shown = |label: &str, rate: Option<Rate>| rate.map(|r| format!("{label}: {}", r.show(size)));
                let (base, target) = match what {
                    What::Put => (plain, "–"),
                    What::Get => (other, "rate ≥ 0.7× nginx"),
                };
                let ratio = base.map(|b| mine.per_second / b.per_second);
                let nginx = if what == What::Put { "nginx, nothing synced" } else { "nginx" };
                let baseline: Vec<String> =
                    [shown("files written and synced", plain), shown(nginx, other)].into_iter().flatten().collect();
                self.lines.push(Line {
                    name,
                    measured: mine.show(size),
                    baseline: baseline.join("; "),
                    ratio,
                    target,
                    met: ratio.filter(|_| what == What::Get).map(|r| r >= 0.7),
                    data: json!({ "bytes": size, "connections": connections, "per_second": mine.per_second, "p50_ms": mine.p50_ms, "p99_ms": mine.p99_ms, "nginx_per_second": other.map(|r| r.per_second), "synced_files_per_second": plain.map(|r| r.per_second) }),
                });
            }
        }
        Ok(())
    }
}
