//! Limits of what stays open: silent WebSockets, and streams on a version that has been replaced.

use mayfly_testkit::{Platform, Setup, can_sandbox, eventually, zip_base64};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const SERVER: &str = r"
const http = require('http');
const server = http.createServer((q, s) => {
  s.write('first\n');
  const timer = setInterval(() => s.write('more\n'), 50);
  s.on('close', () => clearInterval(timer));
});
server.on('upgrade', (q, socket) => {
  socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n');
  socket.on('data', d => socket.write(d));
  socket.on('error', () => {});
});
server.listen(9000);
";
const START: &str = "#!/bin/bash\nexec /var/lang/node18/bin/node server.js\n";

fn files(n: u32) -> String {
    zip_base64(&[("scf_bootstrap", START), ("server.js", SERVER), ("n", &n.to_string())])
}

fn service(p: &Platform, more: Value) {
    let mut request = json!({ "FunctionName": "web", "Runtime": "Nodejs18.15", "Type": "HTTP", "MemorySize": 128, "InitTimeout": 60,
        "Code": { "ZipFile": files(0) }, "InstanceConcurrencyConfig": { "DynamicEnabled": "FALSE", "MaxConcurrency": 20 } });
    for (key, value) in more.as_object().into_iter().flatten() {
        request[key] = value.clone();
    }
    p.must("CreateFunction", request);
    eventually("it is active", || p.must("GetFunction", json!({ "FunctionName": "web" }))["Status"] == "Active");
}

/// Sends a request and reads until `wanted` has come.
fn talk(p: &Platform, request: &str, wanted: &str) -> TcpStream {
    let mut stream = TcpStream::connect(&p.address).expect("the platform listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket takes time-outs");
    stream.write_all(request.as_bytes()).expect("the platform reads");
    let (mut heard, mut buffer) = (String::new(), [0; 4096]);
    while !heard.contains(wanted) {
        let n = stream.read(&mut buffer).expect("the platform answers in time");
        assert_ne!(n, 0, "it ended: {heard}");
        heard.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    stream
}

const UPGRADE: &str = "GET /fn/default/web/chat HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";

/// Reads until the connection ends; how long that took.
fn end_of(mut stream: TcpStream) -> Duration {
    let (begun, mut buffer) = (Instant::now(), [0; 4096]);
    while matches!(stream.read(&mut buffer), Ok(1..)) {}
    begun.elapsed()
}

#[test]
fn a_websocket_that_is_silent_for_as_long_as_was_said_is_closed() {
    if !can_sandbox() {
        return;
    }
    let p = Setup::new(env!("CARGO_BIN_EXE_mayfly")).start();
    service(&p, json!({ "ProtocolType": "WS", "ProtocolParams": { "WSParams": { "IdleTimeOut": 2 } } }));
    let mut stream = talk(&p, UPGRADE, "\r\n\r\n");
    // While something is said it stays, for longer than that.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        stream.write_all(b"x").expect("it is open");
        stream.read_exact(&mut [0]).expect("it echoes");
        std::thread::sleep(Duration::from_millis(100));
    }
    let silent = end_of(stream);
    assert!(silent >= Duration::from_millis(1500) && silent < Duration::from_secs(30), "{silent:?}");
    eventually("the log says why", || {
        let logs = p.must("GetFunctionLogs", json!({ "FunctionName": "web", "Limit": 100 }));
        let records = logs["Data"].as_array().cloned().unwrap_or_default();
        records.iter().any(|r| r["InvokeFinished"] == 1 && r["RetCode"] != 0 && r.to_string().contains("455"))
    });
}

#[test]
fn streams_on_an_old_version_go_on_for_as_long_as_is_allowed() {
    if !can_sandbox() {
        return;
    }
    let p = Setup::new(env!("CARGO_BIN_EXE_mayfly")).arguments(&["--streams-after-update-s", "3"]).start();
    service(&p, json!({}));
    let stream = talk(&p, "GET /fn/default/web/ HTTP/1.1\r\nHost: h\r\n\r\n", "first");
    let mut socket = talk(&p, UPGRADE, "\r\n\r\n");
    p.must("UpdateFunctionCode", json!({ "FunctionName": "web", "ZipFile": files(1) }));
    // New visitors get the new version while the old ones go on.
    drop(talk(&p, "GET /fn/default/web/ HTTP/1.1\r\nHost: h\r\n\r\n", "first"));
    let begun = Instant::now();
    socket.write_all(b"still here").expect("it is open");
    let mut back = [0; 10];
    socket.read_exact(&mut back).expect("it echoes");
    assert_eq!(&back, b"still here");
    let (streamed, joined) = std::thread::scope(|s| {
        let streamed = s.spawn(|| end_of(stream));
        (end_of(socket), streamed.join().expect("it ends"))
    });
    assert!(begun.elapsed() < Duration::from_secs(30), "{streamed:?} {joined:?}");
    assert!(streamed.max(joined) >= Duration::from_secs(1), "not at once: {streamed:?} {joined:?}");
}
