//! HTTP services and function URLs on a whole platform: what passes through, how instances are shared, and what a visitor sees when
//! something breaks.

#[path = "support/host.rs"]
mod host;

use host::Host;
use mayfly_testkit::{Platform, Setup, can_sandbox, eventually};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A server with a path for each thing that is looked at.
const SERVER: &str = r#"
const http = require('http'), crypto = require('crypto');
let active = 0, most = 0, aborted = 0;
const server = http.createServer((q, s) => {
  const url = new URL(q.url, 'http://x');
  const json = v => s.setHeader('content-type', 'application/json').end(JSON.stringify(v));
  if (url.pathname === '/echo') {
    const chunks = [];
    q.on('data', c => chunks.push(c));
    q.on('end', () => json({ method: q.method, url: q.url, headers: q.headers, body: Buffer.concat(chunks).toString(), port: q.socket.remotePort, pid: process.pid }));
  } else if (url.pathname === '/sum') {
    const hash = crypto.createHash('sha256'); let n = 0;
    q.on('data', c => { hash.update(c); n += c.length; });
    q.on('end', () => json({ n, sum: hash.digest('hex') }));
  } else if (url.pathname === '/bytes') {
    let left = Number(url.searchParams.get('n')); const block = Buffer.alloc(65536, 7);
    const more = () => { while (left > 0) { const part = block.subarray(0, Math.min(left, block.length)); left -= part.length; if (!s.write(part)) return s.once('drain', more); } s.end(); };
    more();
  } else if (url.pathname === '/events') {
    s.writeHead(200, { 'content-type': 'text/event-stream' });
    let n = 0; s.write('data: ' + n++ + '\n\n');
    const timer = setInterval(() => s.write('data: ' + n++ + '\n\n'), 20);
    s.on('close', () => { clearInterval(timer); aborted++; });
  } else if (url.pathname === '/hang') {
    s.on('close', () => { aborted++; });
  } else if (url.pathname === '/aborted') { json(aborted);
  } else if (url.pathname === '/slow') {
    active++; most = Math.max(most, active);
    setTimeout(() => { active--; json({ most, pid: process.pid, id: process.env.HOSTNAME || require('os').hostname() }); }, Number(url.searchParams.get('ms')));
  } else if (url.pathname === '/exit') { process.exit(3);
  } else if (url.pathname === '/close') { s.setHeader('connection', 'close'); json('closed');
  } else if (url.pathname === '/trailer') {
    s.writeHead(200, { trailer: 'x-sum' }); s.write('body'); s.addTrailers({ 'x-sum': '42' }); s.end();
  } else if (url.pathname === '/cookies') { s.setHeader('set-cookie', ['a=1', 'b=2']); s.setHeader('keep-alive', 'x'); json('set');
  } else if (url.pathname === '/print') { console.log('seen ' + url.searchParams.get('text')); json('ok');
  } else if (url.pathname === '/status') { s.statusCode = Number(url.searchParams.get('code')); s.end();
  } else { s.statusCode = 404; s.end('no such page'); }
});
server.keepAliveTimeout = Number(process.env.KEEP_ALIVE_MS || 5000);
server.on('upgrade', (q, socket) => {
  socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n');
  socket.on('data', d => socket.write(d));
  socket.on('end', () => socket.end());
  socket.on('error', () => {});
});
server.listen(9000, '0.0.0.0');
"#;

const START: &str = "#!/bin/bash\nexec /var/lang/node18/bin/node server.js\n";

fn platform() -> Platform {
    Setup::new(env!("CARGO_BIN_EXE_mayfly")).start()
}

fn service(platform: &Platform, name: &str, more: Value) {
    let mut request = json!({ "Type": "HTTP", "MemorySize": 128, "InitTimeout": 20, "InstanceConcurrencyConfig": { "DynamicEnabled": "FALSE", "MaxConcurrency": 20 } });
    for (key, value) in more.as_object().into_iter().flatten() {
        request[key] = value.clone();
    }
    platform.create(name, "Nodejs18.15", "", &[("scf_bootstrap", START), ("server.js", SERVER)], request);
}

fn agent() -> ureq::Agent {
    let config =
        ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(60)));
    ureq::Agent::new_with_config(config.build())
}

fn url(platform: &Platform, path: &str) -> String {
    format!("http://{}/fn/default{path}", platform.address)
}

fn get(platform: &Platform, path: &str) -> (u16, Value) {
    let mut response = agent().get(url(platform, path)).call().expect("the platform answers");
    let text = response.body_mut().read_to_string().expect("text");
    (response.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Sends text on a connection of its own and reads until `enough`.
fn talk(platform: &Platform, request: &str, enough: impl Fn(&str) -> bool) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(&platform.address).expect("the platform listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket takes time-outs");
    stream.write_all(request.as_bytes()).expect("the platform reads");
    let (mut heard, mut buffer) = (String::new(), [0; 4096]);
    while !enough(&heard) {
        let n = stream.read(&mut buffer).expect("the platform answers in time");
        if n == 0 {
            break;
        }
        heard.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    (stream, heard)
}

#[test]
fn a_service_gets_requests_as_they_were_sent() {
    if !can_sandbox() {
        return;
    }
    let p = platform();
    service(&p, "web", json!({ "Environment": { "Variables": [{ "Key": "KEEP_ALIVE_MS", "Value": "50" }] } }));
    let mut response = agent()
        .post(url(&p, "/web/echo?a=1&b=%20"))
        .header("x-own", "yes")
        .header("x-forwarded-for", "198.51.100.9")
        .send("hello")
        .expect("an answer");
    assert_eq!(response.status(), 200);
    let id = response.headers()["x-scf-request-id"].to_str().unwrap().to_owned();
    let echo: Value = serde_json::from_str(&response.body_mut().read_to_string().unwrap()).unwrap();
    assert_eq!(
        (&echo["method"], &echo["url"], &echo["body"]),
        (&json!("POST"), &json!("/echo?a=1&b=%20"), &json!("hello"))
    );
    let headers = &echo["headers"];
    for (name, value) in [
        ("x-own", "yes"),
        ("host", p.address.as_str()),
        ("x-forwarded-for", "198.51.100.9, 127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-prefix", "/fn/default/web"),
        ("x-scf-request-id", id.as_str()),
        ("x-scf-name", "web"),
        ("x-scf-namespace", "default"),
        ("x-scf-memory", "128"),
    ] {
        assert_eq!(headers[name], value, "{name}");
    }
    // By host, the path is the service's alone.
    let mut response =
        agent().get(format!("http://{}/echo", p.address)).header("host", "web.default.fn.localhost").call().unwrap();
    let echo: Value = serde_json::from_str(&response.body_mut().read_to_string().unwrap()).unwrap();
    assert_eq!((&echo["url"], &echo["headers"]["host"]), (&json!("/echo"), &json!("web.default.fn.localhost")));

    assert_eq!(get(&p, "/web/nothing"), (404, json!("no such page")));
    assert_eq!(get(&p, "/web/status?code=503").0, 503);
    assert_eq!(agent().head(url(&p, "/web/echo")).call().unwrap().status(), 200);
    let response = agent().get(url(&p, "/web/cookies")).call().unwrap();
    assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
    assert!(response.headers().get("keep-alive").is_none());
    let (_, heard) = talk(&p, "GET /fn/default/web/trailer HTTP/1.1\r\nHost: h\r\nTE: trailers\r\n\r\n", |h| {
        h.contains("\r\n0\r\n") && h.ends_with("\r\n\r\n")
    });
    assert!(heard.contains("x-sum: 42"), "{heard}");
    assert_eq!(get(&p, "/web/close"), (200, json!("closed")));
    // The server closes what lies idle for 50 ms; nobody must notice.
    for _ in 0..8 {
        assert_eq!(get(&p, "/web/slow?ms=1").0, 200);
        let begun = Instant::now();
        eventually("the pause is over", || begun.elapsed() > Duration::from_millis(45));
    }
    let (_, heard) = talk(
        &p,
        "POST /fn/default/web/echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
        |h| h.contains("\r\n\r\n"),
    );
    assert!(heard.starts_with("HTTP/1.1 100 Continue"), "{heard}");

    get(&p, "/web/print?text=this");
    eventually("what was printed is in the log", || {
        let logs = p.must("GetFunctionLogs", json!({ "FunctionName": "web", "Limit": 100 }));
        logs.to_string().contains("seen this")
    });
    assert_eq!(get(&p, "/nobody/x").0, 404);
    let refused = p.call("Invoke", &json!({ "FunctionName": "web" }));
    assert!(refused["Error"]["Code"].is_string(), "a service is not invoked: {refused}");
}

#[test]
fn bodies_stream_both_ways_in_little_memory() {
    if !can_sandbox() {
        return;
    }
    let p = platform();
    let host = Host::of(&p);
    service(&p, "web", json!({}));
    assert_eq!(get(&p, "/web/echo").0, 200);
    let before = host.resident_bytes();
    let block = vec![9u8; 1 << 16];
    const BLOCKS: usize = 1600;
    struct Blocks(usize, Vec<u8>);
    impl Read for Blocks {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.0 == 0 {
                return Ok(0);
            }
            let n = buffer.len().min(self.1.len());
            buffer[..n].copy_from_slice(&self.1[..n]);
            // Whole blocks are counted, whatever the buffer.
            self.0 = self.0.saturating_sub(1);
            Ok(n)
        }
    }
    let mut sent = Blocks(BLOCKS, block.clone());
    let mut response =
        agent().put(url(&p, "/web/sum")).send(ureq::SendBody::from_reader(&mut sent)).expect("an answer");
    let sum: Value = serde_json::from_str(&response.body_mut().read_to_string().unwrap()).unwrap();
    let n = sum["n"].as_u64().unwrap() as usize;
    assert!(n > 10 << 20, "{sum}");
    let mut hash = Sha256::new();
    for _ in 0..n / block.len() {
        hash.update(&block);
    }
    hash.update(&block[..n % block.len()]);
    assert_eq!(sum["sum"], hex::encode(hash.finalize()));

    let mut response = agent().get(url(&p, "/web/bytes?n=157286400")).call().unwrap();
    let mut reader = response.body_mut().as_reader();
    let (mut total, mut buffer) = (0usize, vec![0; 1 << 16]);
    loop {
        let n = reader.read(&mut buffer).unwrap();
        if n == 0 {
            break;
        }
        total += n;
    }
    assert_eq!(total, 150 << 20);
    let grown = host.resident_bytes().saturating_sub(before);
    println!("250 MB through, the platform grew by {} KiB", grown >> 10);
    assert!(grown < 32 << 20, "{grown} bytes");
}

#[test]
fn streams_upgrades_and_aborts_are_carried() {
    if !can_sandbox() {
        return;
    }
    let p = platform();
    service(&p, "web", json!({ "Timeout": 1 }));
    // Events arrive while the response goes on, longer than the time-out, which is for the response's head.
    let (stream, heard) =
        talk(&p, "GET /fn/default/web/events HTTP/1.1\r\nHost: h\r\n\r\n", |h| h.contains("data: 70\n"));
    assert!(heard.contains("text/event-stream") && heard.contains("data: 69\n"));
    drop(stream);
    eventually("the server learns that the visitor left", || get(&p, "/web/aborted").1 == json!(1));
    // One that waits for the head is noticed too, before anything is written.
    let (stream, _) = talk(&p, "GET /fn/default/web/hang HTTP/1.1\r\nHost: h\r\n\r\n", |_| true);
    let begun = Instant::now();
    eventually("it has arrived", || begun.elapsed() > Duration::from_millis(200));
    drop(stream);
    eventually("the server learns that too", || get(&p, "/web/aborted").1 == json!(2));

    let upgrade = "GET /fn/default/web/chat HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    let (mut stream, heard) = talk(&p, upgrade, |h| h.contains("\r\n\r\n"));
    assert!(heard.starts_with("HTTP/1.1 101 "), "{heard}");
    let message: Vec<u8> = (0..=255).cycle().take(200_000).collect();
    let mut back = vec![0; message.len()];
    std::thread::scope(|s| {
        let mut writer = stream.try_clone().unwrap();
        let message = &message;
        s.spawn(move || writer.write_all(message).unwrap());
        stream.read_exact(&mut back).unwrap();
    });
    assert_eq!(back, message);
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut back).unwrap(), 0, "the end is carried too");
    eventually("the connection is in the log", || {
        let logs = p.must("GetFunctionLogs", json!({ "FunctionName": "web", "Limit": 100 }));
        logs.to_string().contains("101 GET /chat")
    });
    // A request that gets no head in time.
    let (status, error) = get(&p, "/web/hang");
    assert_eq!((status, &error["statusCode"]), (504, &json!(433)));
}

#[test]
fn one_instance_takes_many_requests_and_more_are_started_when_it_is_full() {
    if !can_sandbox() {
        return;
    }
    let p = platform();
    service(&p, "web", json!({}));
    let burst = |n: usize, ms: u32| -> Vec<Value> {
        std::thread::scope(|s| {
            let all: Vec<_> = (0..n).map(|_| s.spawn(|| get(&p, &format!("/web/slow?ms={ms}")))).collect();
            all.into_iter()
                .map(|t| {
                    let (status, value) = t.join().unwrap();
                    assert_eq!(status, 200, "{value}");
                    value
                })
                .collect()
        })
    };
    let instances = |answers: &[Value]| {
        answers.iter().map(|a| a["id"].as_str().unwrap().to_owned()).collect::<std::collections::BTreeSet<_>>().len()
    };
    // A cold start serves all who wait for it.
    let answers = burst(15, 300);
    assert_eq!(instances(&answers), 1);
    assert!(answers.iter().any(|a| a["most"].as_u64().unwrap() > 5), "at the same time");
    let answers = burst(50, 600);
    assert!((3..=5).contains(&instances(&answers)), "50 requests at 20 an instance: {}", instances(&answers));
    assert!(answers.iter().all(|a| a["most"].as_u64().unwrap() <= 20), "never more than it takes");
    // Without a setting, one at a time: SCF's rule.
    service(&p, "alone", json!({ "InstanceConcurrencyConfig": { "DynamicEnabled": "" } }));
    std::thread::scope(|s| {
        let three: Vec<_> = (0..3).map(|_| s.spawn(|| get(&p, "/alone/slow?ms=400").1)).collect();
        for answer in three {
            assert_eq!(answer.join().unwrap()["most"], 1);
        }
    });
}

#[test]
fn broken_services_get_clear_answers() {
    if !can_sandbox() {
        return;
    }
    let p = platform();
    service(&p, "web", json!({}));
    assert_eq!(get(&p, "/web/echo").0, 200);
    let (status, error) = get(&p, "/web/exit");
    assert_eq!((status, &error["statusCode"]), (502, &json!(439)), "{error}");
    assert_eq!(get(&p, "/web/echo").0, 200, "the next one gets another instance");
    for (name, start, status, code) in [
        ("exits", "#!/bin/sh\necho broken on purpose >&2\nexit 1\n", 502, 445),
        ("silent", "#!/bin/sh\nexec sleep 60\n", 504, 450),
    ] {
        p.create(name, "CustomRuntime", "", &[("scf_bootstrap", start)], json!({ "Type": "HTTP", "InitTimeout": 1 }));
        let (http, error) = get(&p, &format!("/{name}/"));
        assert_eq!((http, &error["statusCode"]), (status, &json!(code)), "{name}: {error}");
        if name == "exits" {
            assert!(error.to_string().contains("broken on purpose"), "{error}");
        }
    }
    p.create("empty", "CustomRuntime", "", &[("server.js", SERVER)], json!({ "Type": "HTTP" }));
    let (http, error) = get(&p, "/empty/");
    assert_eq!((http, &error["statusCode"]), (502, &json!(437)), "{error}");
    // Nothing of them is left behind.
    let host = Host::of(&p);
    assert_eq!(p.stop(), Some(0));
    assert_eq!((host.parents(), host.tables()), (vec![], 0));
}

#[test]
fn no_request_fails_while_versions_change_and_instances_die() {
    if !can_sandbox() {
        return;
    }
    let p = platform();
    service(&p, "web", json!({}));
    assert_eq!(get(&p, "/web/slow?ms=1").0, 200);
    let instances = || {
        let metrics = p.get("/metrics").1;
        let held = metrics
            .lines()
            .filter(|l| l.starts_with("mayfly_instances") && (l.contains("\"busy\"") || l.contains("\"idle\"")));
        held.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as usize
    };
    assert_eq!(instances(), 1, "{}", p.get("/metrics").1);
    let (done, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                let agent = agent();
                while !done.load(Ordering::Acquire) {
                    let mut response = agent.get(url(&p, "/web/slow?ms=2")).call().expect("an answer");
                    let text = response.body_mut().read_to_string().expect("a body");
                    assert_eq!(response.status(), 200, "{text}");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let update = json!({ "FunctionName": "web", "Code": { "ZipFile": mayfly_testkit::zip_base64(&[("scf_bootstrap", START), ("server.js", SERVER)]) } });
        for n in 0..6 {
            let mut update = update.clone();
            update["Code"]["ZipFile"] = json!(mayfly_testkit::zip_base64(&[
                ("scf_bootstrap", START),
                ("server.js", SERVER),
                ("n", &n.to_string())
            ]));
            p.must("UpdateFunctionCode", update);
            let before = served.load(Ordering::Relaxed);
            eventually("requests go on", || served.load(Ordering::Relaxed) > before + 40);
        }
        done.store(true, Ordering::Release);
    });
    eventually("old versions' instances end", || instances() <= 2);
    println!("{} requests over six updates", served.load(Ordering::Relaxed));
}

#[test]
fn event_functions_have_urls_too() {
    if !can_sandbox() {
        return;
    }
    let p = platform();
    let code = "import base64\ndef main_handler(e, c):\n    if e['path'] == '/page':\n        return {'statusCode': 201, 'headers': {'Content-Type': 'text/html', 'Set-Cookie': ['a=1', 'b=2']}, 'body': '<p>' + e['body']}\n    if e['path'] == '/binary':\n        return {'statusCode': 200, 'isBase64Encoded': True, 'body': base64.b64encode(bytes([0, 255])).decode()}\n    if e['path'] == '/throw':\n        raise ValueError('on purpose')\n    return e\n";
    p.create("ev", "Python3.9", "index.main_handler", &[("index.py", code)], json!({}));
    let (status, refused) = get(&p, "/ev/");
    assert_eq!((status, &refused["statusCode"]), (401, &json!(401)), "closed until it is opened");
    let open = json!({ "AuthType": "NONE", "NetConfig": { "EnableIntranet": true, "EnableExtranet": true },
        "CorsConfig": { "Enable": true, "Origins": ["https://a.example"], "Methods": ["POST"], "Headers": ["x-one"], "ExposeHeaders": [], "Credentials": true, "MaxAge": 5 } });
    p.must("CreateTrigger", json!({ "FunctionName": "ev", "TriggerName": "url", "Type": "http", "TriggerDesc": open.to_string(), "Qualifier": "$DEFAULT" }));
    let (status, event) = get(&p, "/ev/a/b?k=v&k=w");
    assert_eq!(status, 200);
    assert_eq!(
        (&event["path"], &event["httpMethod"], &event["queryString"]),
        (&json!("/a/b"), &json!("GET"), &json!({ "k": ["v", "w"] }))
    );
    let mut response = agent().post(url(&p, "/ev/page")).header("origin", "https://a.example").send("hi").unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["content-type"].to_str().unwrap()), (201, "text/html"));
    assert_eq!(response.headers()["access-control-allow-origin"], "https://a.example");
    assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
    assert_eq!(response.body_mut().read_to_string().unwrap(), "<p>hi");
    let mut response = agent().get(url(&p, "/ev/binary")).call().unwrap();
    assert_eq!(response.body_mut().read_to_vec().unwrap(), [0, 255]);
    let (status, error) = get(&p, "/ev/throw");
    assert_eq!((status, &error["statusCode"]), (502, &json!(430)), "{error}");
    let (_, heard) = talk(
        &p,
        "OPTIONS /fn/default/ev/page HTTP/1.1\r\nHost: h\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: X-One\r\n\r\n",
        |h| h.contains("\r\n\r\n"),
    );
    assert!(heard.starts_with("HTTP/1.1 204 ") && heard.contains("access-control-max-age: 5"), "{heard}");
    let (_, heard) =
        talk(&p, &format!("POST /fn/default/ev/ HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", 7 << 20), |h| {
            h.contains("\r\n\r\n")
        });
    assert!(heard.is_empty() || heard.starts_with("HTTP/1.1 413 "), "{heard}");
}
