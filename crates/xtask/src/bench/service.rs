//! What the way through the platform costs a service, beside its server asked directly and nginx in between.

use super::{Bench, Line};
use crate::measure::{Load, tree, wrk};
use anyhow::{Context, Result, bail};
use mayfly_testkit::{Platform, eventually};
use serde_json::json;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A JSON answer, an echo after an upgrade, and a slow page; on the port that `PORT` names.
const SERVER: &str = r"
const http = require('http');
const text = JSON.stringify({ hello: 'world', list: [1, 2, 3] });
const server = http.createServer((q, s) => {
  const answer = () => s.writeHead(200, { 'content-type': 'application/json', 'content-length': text.length }).end(text);
  q.url.startsWith('/slow') ? setTimeout(answer, 100) : answer();
});
server.keepAliveTimeout = 60000;
server.on('upgrade', (q, socket) => {
  socket.setNoDelay(true);
  socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n');
  socket.on('data', d => socket.write(d));
  socket.on('error', () => {});
});
server.listen(process.env.PORT);
";
const START: &str = "#!/bin/sh\nexec node server.js\n";
/// Connections of the memory measurement.
const SOCKETS: usize = 10_000;
/// Connections that are opened at a time.
const OPENERS: usize = 8;
/// Agrees to every upgrade and echoes. Small, so that a hundred instances of it fit beside what is measured.
const UPGRADER: &str = r"
import selectors, socket
watched = selectors.DefaultSelector()
listener = socket.create_server(('0.0.0.0', 9000), backlog=512)
watched.register(listener, selectors.EVENT_READ)
heads = {}
while True:
    for key, _ in watched.select():
        if key.fileobj is listener:
            client, _ = listener.accept()
            watched.register(client, selectors.EVENT_READ)
            heads[client] = b''
            continue
        client = key.fileobj
        try:
            data = client.recv(4096)
        except OSError:
            data = b''
        if not data:
            watched.unregister(client)
            heads.pop(client, None)
            client.close()
        elif client in heads:
            heads[client] += data
            if heads[client].endswith(b'\r\n\r\n'):
                del heads[client]
                client.sendall(b'HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n')
        else:
            client.sendall(data)
";
const START_UPGRADER: &str = "#!/bin/sh\nexec python3 -I -S server.py\n";

/// A process that ends with this.
pub(super) struct Ends(pub(super) Child);

impl Drop for Ends {
    fn drop(&mut self) {
        // By SIGTERM, so that nginx takes its workers along.
        // SAFETY: signals an own child that has not been waited for.
        unsafe { libc::kill(self.0.id() as i32, libc::SIGTERM) };
        let _ = self.0.wait();
    }
}

pub(super) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

pub(super) fn answers(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

fn deploy(platform: &Platform, memory_mb: u32, concurrency: u32) -> String {
    platform.create(
        "web",
        "Nodejs18.15",
        "",
        &[("scf_bootstrap", START), ("server.js", SERVER)],
        json!({ "Type": "HTTP", "MemorySize": memory_mb, "InstanceConcurrencyConfig": { "DynamicEnabled": "FALSE", "MaxConcurrency": concurrency } }),
    );
    format!("http://{}/fn/default/web/", platform.address)
}

/// nginx with one worker in front of `port`, if it is installed.
fn nginx(port: u16) -> Result<Option<(Ends, u16, tempfile::TempDir)>> {
    if Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_err() {
        return Ok(None);
    }
    let (dir, own) = (tempfile::tempdir()?, free_port()?);
    let config = format!(
        "worker_processes 1;\ndaemon off;\npid {0}/pid;\nerror_log {0}/error;\nevents {{ worker_connections 1024; }}\nhttp {{\n access_log off;\n client_body_temp_path {0}/b;\n proxy_temp_path {0}/p;\n fastcgi_temp_path {0}/f;\n uwsgi_temp_path {0}/u;\n scgi_temp_path {0}/s;\n upstream node {{ server 127.0.0.1:{port}; keepalive 128; }}\n server {{ listen 127.0.0.1:{own}; location / {{ proxy_pass http://node; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }}\n}}\n",
        dir.path().display()
    );
    let file = dir.path().join("nginx.conf");
    std::fs::write(&file, config)?;
    let child = Command::new("nginx").arg("-c").arg(&file).arg("-p").arg(dir.path()).stderr(Stdio::null()).spawn()?;
    let child = Ends(child);
    eventually("nginx listens", || answers(own));
    Ok(Some((child, own, dir)))
}

/// Moves bytes between its port and `port` without looking at them, on one thread: what any program in between costs at least, before it knows
/// where a request begins.
fn relay(port: u16) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let own = listener.local_addr()?.port();
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            loop {
                let (mut visitor, _) = listener.accept().await?;
                tokio::spawn(async move {
                    let mut server = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
                    visitor.set_nodelay(true)?;
                    server.set_nodelay(true)?;
                    tokio::io::copy_bidirectional(&mut visitor, &mut server).await
                });
            }
            #[allow(unreachable_code, reason = "names the type of the block")]
            std::io::Result::Ok(())
        })
    });
    Ok(own)
}

/// How many open files a process may have.
fn open_files(pid: i32) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("Max open files"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(1024)
}

fn upgraded(address: &str, path: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    if !head.starts_with(b"HTTP/1.1 101") {
        bail!("{}", String::from_utf8_lossy(&head));
    }
    Ok(stream)
}

fn round_trip_p50(stream: &mut TcpStream, rounds: usize) -> Result<Duration> {
    let mut took = Vec::with_capacity(rounds);
    let mut buffer = [0; 64];
    for _ in 0..rounds {
        let begun = Instant::now();
        stream.write_all(&[7; 64])?;
        stream.read_exact(&mut buffer)?;
        took.push(begun.elapsed());
    }
    took.sort();
    Ok(took[rounds / 2])
}

impl Bench {
    pub(super) fn service(&mut self) -> Result<()> {
        let platform = self.rested(&[]);
        let url = deploy(&platform, 512, 100);
        let port = free_port()?;
        let direct =
            Command::new("node").args(["-e", SERVER]).env("PORT", port.to_string()).spawn().context("run node")?;
        let _direct = Ends(direct);
        eventually("the server listens", || answers(port));
        let direct = format!("http://127.0.0.1:{port}/");
        let nginx = nginx(port)?;
        let relay = format!("http://127.0.0.1:{}/", relay(port)?);
        let seconds = if self.quick { 2 } else { 5 };
        for (connections, name) in [(1, "service, Node JSON, c=1"), (64, "service, Node JSON, c=64")] {
            let beside = nginx.as_ref().map(|(_, port, _)| format!("http://127.0.0.1:{port}/"));
            let urls = [Some(&url), Some(&direct), Some(&relay), beside.as_ref()];
            let mut loads: [Vec<Load>; 4] = Default::default();
            for (url, _) in urls.iter().zip(&loads) {
                url.map(|u| wrk(u, "", connections, 2)).transpose()?;
            }
            for _ in 0..3 {
                for (url, loads) in urls.iter().zip(&mut loads) {
                    loads.extend(url.map(|u| wrk(u, "", connections, seconds)).transpose()?);
                }
            }
            let best = |all: &Vec<Load>| all.iter().copied().max_by(|a, b| a.rps.total_cmp(&b.rps));
            let [ours, bare, relayed, proxy] = loads.each_ref().map(best);
            let [ours, bare, relayed] = [ours, bare, relayed].map(|l| l.expect("three rounds were made"));
            let show = |l: Load| format!("{:.0}/s, p50 {:.3} ms, p99 {:.2} ms", l.rps, l.p50_ms, l.p99_ms);
            let beside = proxy.map_or_else(|| "nginx is not installed".to_owned(), |l| format!("nginx: {}", show(l)));
            let (ratio, target, met) = if connections == 1 {
                let more_us = (ours.p50_ms - bare.p50_ms) * 1000.0;
                (ours.p50_ms / bare.p50_ms, "p50 within 60 µs of direct", more_us <= 60.0)
            } else {
                (ours.rps / bare.rps, "rate ≥ 0.7× direct", ours.rps / bare.rps >= 0.7)
            };
            self.lines.push(Line {
                name,
                measured: show(ours),
                baseline: format!("direct: {}; bytes relayed unread: {}; {beside}", show(bare), show(relayed)),
                ratio: Some(ratio),
                target,
                met: Some(met),
                data: json!({ "rps": ours.rps, "p50_ms": ours.p50_ms, "p99_ms": ours.p99_ms, "direct_rps": bare.rps, "direct_p50_ms": bare.p50_ms, "relay_rps": relayed.rps, "relay_p50_ms": relayed.p50_ms, "nginx_rps": proxy.map(|l| l.rps), "nginx_p50_ms": proxy.map(|l| l.p50_ms) }),
            });
        }
        let rounds = self.rounds(20_000);
        let through = round_trip_p50(&mut upgraded(&platform.address, "/fn/default/web/")?, rounds)?;
        let straight = round_trip_p50(&mut upgraded(&format!("127.0.0.1:{port}"), "/")?, rounds)?;
        self.lines.push(Line {
            name: "WebSocket echo, 64 bytes",
            measured: format!("{:.1} µs p50", through.as_secs_f64() * 1e6),
            baseline: format!("direct: {:.1} µs", straight.as_secs_f64() * 1e6),
            ratio: Some(through.as_secs_f64() / straight.as_secs_f64()),
            target: "–",
            met: None,
            data: json!({ "p50_us": through.as_secs_f64() * 1e6, "direct_p50_us": straight.as_secs_f64() * 1e6 }),
        });
        Ok(())
    }

    /// Memory of many silent connections.
    pub(super) fn sockets(&mut self) -> Result<()> {
        mayfly_testkit::raise_open_files();
        let platform = self.rested(&[]);
        platform.create(
            "web",
            "CustomRuntime",
            "",
            &[("scf_bootstrap", START_UPGRADER), ("server.py", UPGRADER)],
            json!({ "Type": "HTTP", "MemorySize": 128, "InstanceConcurrencyConfig": { "DynamicEnabled": "FALSE", "MaxConcurrency": 100 } }),
        );
        // Each takes two open files of the platform, and its instance some more.
        let possible = open_files(platform.pid()).saturating_sub(2048) / 2;
        if possible < SOCKETS {
            eprintln!("the platform may have too few open files for {SOCKETS} connections: {possible} are opened");
        }
        let count = if self.quick { SOCKETS / 10 } else { SOCKETS }.min(possible);
        let own = |platform: &Platform| tree(platform.pid()).first().map_or(0, |(_, m)| m.rss_kib);
        let first = upgraded(&platform.address, "/fn/default/web/")?;
        let before = own(&platform);
        let open = |share: usize| {
            (0..share).map(|_| upgraded(&platform.address, "/fn/default/web/")).collect::<Result<Vec<_>>>()
        };
        let begun = Instant::now();
        let mut held = vec![first];
        std::thread::scope(|s| {
            let all: Vec<_> = (0..OPENERS).map(|_| s.spawn(|| open(count / OPENERS))).collect();
            for one in all {
                held.extend(one.join().map_err(|_| anyhow::anyhow!("a thread that opens connections failed"))??);
            }
            anyhow::Ok(())
        })?;
        let (opened, count) = (begun.elapsed(), held.len());
        let grown_kb = own(&platform).saturating_sub(before);
        let each_kb = grown_kb as f64 / count as f64;
        // They live: a byte goes through each of a few, there and back.
        for stream in held.iter_mut().step_by(count / 50) {
            stream.write_all(&[7])?;
            stream.read_exact(&mut [0])?;
        }
        let instances = super::instances(&platform, "custom", "busy");
        self.lines.push(Line {
            name: "idle WebSockets",
            measured: format!(
                "{count} open on {instances} instances within {:.0} s, {:.1} MiB more in the platform, {each_kb:.1} KiB each",
                opened.as_secs_f64(),
                grown_kb as f64 / 1024.0
            ),
            baseline: "–".into(),
            ratio: None,
            target: "–",
            met: None,
            data: json!({ "connections": count, "kb_each": each_kb, "instances": instances }),
        });
        drop((held, platform));

        let fresh = self.rested(&[]);
        let url = deploy(&fresh, 128, 10);
        let path = format!("{}slow", url.strip_prefix(&format!("http://{}", fresh.address)).unwrap_or("/"));
        let begun = Instant::now();
        let mut last = Duration::ZERO;
        std::thread::scope(|s| {
            let all: Vec<_> = (0..100).map(|_| s.spawn(|| fresh.get(&path).0)).collect();
            for one in all {
                if let Ok(status) = one.join() {
                    assert_eq!(status, 200);
                }
                last = begun.elapsed();
            }
        });
        self.lines.push(Line {
            name: "burst of 100 on a service at zero",
            measured: format!(
                "{:.2} s to the last answer (each takes 100 ms; 10 requests an instance)",
                last.as_secs_f64()
            ),
            baseline: "–".into(),
            ratio: None,
            target: "–",
            met: None,
            data: json!({ "seconds": last.as_secs_f64() }),
        });
        Ok(())
    }
}
