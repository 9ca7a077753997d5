//! Measuring: samples, wrk, and the memory of processes.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use mayfly_sign::{Tc3Request, sign_tc3};
use mayfly_testkit::{SECRET_ID, SECRET_KEY};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A set of times.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// Adds one.
    pub fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// The value below which `share` of the samples lie, in milliseconds.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort();
        let index = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
        sorted.get(index).map_or(f64::NAN, |d| d.as_secs_f64() * 1e3)
    }
}

/// A signed request, ready to be sent as it is for five minutes.
pub struct Prepared {
    /// The headers, names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Bytes,
}

/// Signs one call for the platform at `address`.
pub fn prepare(address: &str, action: &str, body: String) -> Result<Prepared> {
    let body = Bytes::from(body);
    let timestamp_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let headers = sign_tc3(&Tc3Request {
        secret_id: SECRET_ID,
        secret_key: SECRET_KEY,
        token: None,
        host: address,
        service: "scf",
        action,
        version: "2018-04-16",
        region: Some("ap-guangzhou"),
        timestamp_s,
        query: None,
        content_type: "application/json",
        body: &body,
    })
    .context("sign the request")?;
    Ok(Prepared { headers, body })
}

impl Prepared {
    /// The request as bytes on the wire.
    pub fn wire(&self) -> Vec<u8> {
        let mut out = b"POST / HTTP/1.1\r\n".to_vec();
        for (name, value) in &self.headers {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        out.extend_from_slice(format!("content-length: {}\r\n\r\n", self.body.len()).as_bytes());
        out.extend_from_slice(&self.body);
        out
    }

    /// A wrk script that sends it.
    pub fn script(&self) -> String {
        let mut out = String::from("wrk.method = \"POST\"\n");
        // wrk sets Host by itself, to the address it is given, which is the one that was signed.
        for (name, value) in self.headers.iter().filter(|(name, _)| *name != "host") {
            out.push_str(&format!("wrk.headers[\"{name}\"] = [==[{value}]==]\n"));
        }
        out.push_str(&format!("wrk.body = [==[{}]==]\n", String::from_utf8_lossy(&self.body)));
        out
    }
}

/// Sends `wire` on `connection` and reads one answer with a Content-Length. Returns the body.
pub fn exchange(connection: &mut TcpStream, wire: &[u8]) -> Result<Vec<u8>> {
    connection.write_all(wire)?;
    let mut buffer = Vec::with_capacity(4096);
    let mut chunk = [0; 16384];
    loop {
        let n = connection.read(&mut chunk)?;
        if n == 0 {
            bail!("the connection was closed");
        }
        buffer.extend_from_slice(&chunk[..n]);
        let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&buffer[..end]).to_lowercase();
        let length: usize = head
            .lines()
            .find_map(|l| l.strip_prefix("content-length:"))
            .and_then(|l| l.trim().parse().ok())
            .context("an answer without content-length")?;
        if buffer.len() >= end + 4 + length {
            return Ok(buffer[end + 4..].to_vec());
        }
    }
}

/// What wrk measured.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Requests a second.
    pub rps: f64,
    /// Median latency, in milliseconds.
    pub p50_ms: f64,
    /// 99th percentile, in milliseconds.
    pub p99_ms: f64,
}

/// Runs wrk with one thread.
pub fn wrk(url: &str, script: &str, connections: usize, seconds: u64) -> Result<Load> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(script.as_bytes())?;
    let output = Command::new("wrk")
        .args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s"), "--latency", "-s"])
        .arg(file.path())
        .arg(url)
        .stderr(Stdio::inherit())
        .output()
        .context("run wrk; install it with apt-get install wrk")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        bail!("wrk met errors:\n{text}");
    }
    let field = |name: &str| text.lines().find_map(|l| l.trim().strip_prefix(name)).map(|v| v.trim().to_owned());
    let time = |name| field(name).as_deref().and_then(milliseconds).with_context(|| format!("no {name} in:\n{text}"));
    Ok(Load {
        rps: field("Requests/sec:").and_then(|v| v.parse().ok()).with_context(|| format!("no rate in:\n{text}"))?,
        p50_ms: time("50%")?,
        p99_ms: time("99%")?,
    })
}

fn milliseconds(text: &str) -> Option<f64> {
    let split = text.find(|c: char| c.is_ascii_alphabetic())?;
    let value: f64 = text[..split].parse().ok()?;
    match &text[split..] {
        "us" => Some(value / 1e3),
        "ms" => Some(value),
        "s" => Some(value * 1e3),
        _ => None,
    }
}

/// Runs a command to its end and tells how long it took.
pub fn timed(program: &str, arguments: &[&str]) -> Result<Duration> {
    let begun = Instant::now();
    let status = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    if !status.success() {
        bail!("{program} failed");
    }
    Ok(begun.elapsed())
}

/// One process's memory.
#[derive(Clone, Debug)]
pub struct Memory {
    /// Its name.
    pub name: String,
    /// Proportional set size, in KiB.
    pub pss_kib: u64,
    /// Resident set size, in KiB.
    pub rss_kib: u64,
}

/// Memory of `pid` and all its descendants.
pub fn tree(pid: i32) -> Vec<(i32, Memory)> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(child) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The name, in parentheses, may hold spaces.
        if let Some((_, rest)) = stat.rsplit_once(')')
            && let Some(parent) = rest.split_whitespace().nth(1).and_then(|p| p.parse::<i32>().ok())
        {
            parents.push((child, parent));
        }
    }
    let mut found = vec![pid];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(c, _)| *c));
        next += 1;
    }
    found.into_iter().filter_map(|pid| Some((pid, memory(pid)?))).collect()
}

fn memory(pid: i32) -> Option<Memory> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let field = |name: &str| -> Option<u64> {
        rollup.lines().find_map(|l| l.strip_prefix(name))?.trim().strip_suffix(" kB")?.trim().parse().ok()
    };
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned();
    Some(Memory { name, pss_kib: field("Pss:")?, rss_kib: field("Rss:")? })
}
