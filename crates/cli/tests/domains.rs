//! TLS and custom domains on a whole platform: every kind of function and protocol through a domain, what is refused, and that what was
//! acknowledged outlives the process.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mayfly_testkit::{Platform, SECRET_ID, SECRET_KEY, Setup, can_sandbox, eventually};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// A server that tells what it sees, and joins upgrades.
const SERVER: &str = r#"
const http = require('http');
const server = http.createServer((q, s) => {
  s.setHeader('content-type', 'application/json');
  s.end(JSON.stringify({ url: q.url, version: q.httpVersion, headers: q.headers }));
});
server.on('upgrade', (q, socket) => {
  socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n');
  socket.on('data', d => socket.write(d));
  socket.on('error', () => {});
});
server.listen(9000, '0.0.0.0');
"#;
const START: &str = "#!/bin/bash\nexec /var/lang/node18/bin/node server.js\n";
const EVENT: &str = "def main_handler(e, c):\n    return {'path': e['path'], 'query': e['queryString']}\n";
const PATIENCE: Duration = Duration::from_secs(30);

/// A self-signed certificate and its key, in PEM.
struct Made {
    certificate: String,
    key: String,
}

impl Made {
    fn new(names: &[&str]) -> Self {
        let made = rcgen::generate_simple_self_signed(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
        let made = made.expect("a certificate can be made");
        Self { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }

    fn write(&self, dir: &Path, name: &str) -> (String, String) {
        let paths = [("pem", &self.certificate), ("key", &self.key)].map(|(kind, text)| {
            // As careful tools do it, so that nobody reads half of it.
            let (path, new) = (dir.join(format!("{name}.{kind}")), dir.join(format!("{name}.new")));
            fs::write(&new, text).expect("files can be written");
            fs::rename(&new, &path).expect("files can be renamed");
            path.to_str().expect("temporary paths are text").to_owned()
        });
        let [certificate, key] = paths;
        (certificate, key)
    }

    /// A client that trusts this and nothing else.
    fn client(&self, protocols: &[&[u8]]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let der = CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("it was made as PEM");
        roots.add(der).expect("it is a certificate");
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
        Arc::new(config)
    }

    /// A connection over TLS for a host. `Err`: no handshake.
    fn connect(&self, address: SocketAddr, host: &str) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let mut socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let name = ServerName::try_from(host.to_owned()).expect("a host");
        let mut connection = ClientConnection::new(self.client(&[b"http/1.1"]), name).expect("the settings are good");
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(StreamOwned::new(connection, socket))
    }
}

/// Sends a request with `Connection: close` and reads all of the answer: its status, head and body.
fn ask(mut stream: impl Read + Write, host: &str, path: &str, more: &str) -> (u16, String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n");
    stream.write_all(request.as_bytes()).expect("the platform reads");
    let (mut heard, mut buffer) = (Vec::new(), [0; 4096]);
    let (head, length) = loop {
        let n = stream.read(&mut buffer).expect("the platform answers in time");
        assert_ne!(n, 0, "closed after {:?}", String::from_utf8_lossy(&heard));
        heard.extend_from_slice(&buffer[..n]);
        let Some(at) = heard.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&heard[..at]).to_ascii_lowercase();
        let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).map(|l| l.parse::<usize>().unwrap());
        heard.drain(..at + 4);
        break (head, length);
    };
    while length.is_none_or(|length| heard.len() < length) {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => heard.extend_from_slice(&buffer[..n]),
            Err(error) => panic!("the answer ends early: {error}"),
        }
    }
    let status = head.split(' ').nth(1).expect("a status line").parse().expect("a status");
    (status, head, String::from_utf8_lossy(&heard).into_owned())
}

fn plain(platform: &Platform) -> TcpStream {
    let stream = TcpStream::connect(&platform.address).expect("the platform listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes time-outs");
    stream
}

fn tls_address(platform: &Platform) -> SocketAddr {
    let mut words = platform.ready_line.split_whitespace();
    let word = words.find_map(|w| w.strip_prefix("https://")).expect("the ready line has the address for TLS");
    word.parse().expect("it is an address")
}

fn mayfly(platform: &Platform, arguments: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_mayfly"))
        .args(arguments)
        .env("MAYFLY_ENDPOINT", format!("http://{}", platform.address))
        .env("MAYFLY_SECRET_ID", SECRET_ID)
        .env("MAYFLY_SECRET_KEY", SECRET_KEY)
        .output()
        .expect("the program runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

#[track_caller]
fn must(platform: &Platform, arguments: &[&str]) -> String {
    let (good, out, error) = mayfly(platform, arguments);
    assert!(good, "{arguments:?}: {out}{error}");
    out + &error
}

/// Requests over HTTP/2, and one of gRPC to a function that is not there.
fn over_http2(made: &Made, address: SocketAddr, host: &'static str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let socket = tokio::net::TcpStream::connect(address).await.expect("the platform listens");
        let connector = tokio_rustls::TlsConnector::from(made.client(&[b"h2"]));
        let name = ServerName::try_from(host).expect("a host");
        let stream = connector.connect(name, socket).await.expect("hands are shaken");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
        let connection = tokio::spawn(connection);
        for n in 0..3 {
            let request = hyper::Request::get(format!("https://{host}/n{n}")).body(Full::<Bytes>::default());
            let answer = sender.send_request(request.expect("a request")).await.expect("an answer");
            assert_eq!(answer.status(), 200);
            let body = answer.into_body().collect().await.expect("a body").to_bytes();
            let seen: Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!((&seen["url"], &seen["headers"]["host"]), (&json!(format!("/n{n}")), &json!(host)));
            assert_eq!(seen["headers"]["x-forwarded-proto"], "https");
        }
        for authority in ["nothing.default.fn.localhost", "nowhere.example"] {
            let request = hyper::Request::post(format!("https://{authority}/pkg.Service/Method"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(Full::<Bytes>::default());
            let answer = sender.send_request(request.expect("a request")).await.expect("an answer");
            assert_eq!(answer.status(), 200, "{authority}");
            assert_eq!(answer.headers()["grpc-status"], "12", "{authority}");
            assert_eq!(answer.headers()["content-type"], "application/grpc");
            assert!(!answer.headers()["grpc-message"].is_empty());
        }
        connection.abort();
    });
}

#[test]
fn functions_of_both_kinds_are_reached_by_a_domain_over_tls() {
    if !can_sandbox() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let own = Made::new(&["mayfly.example", "*.default.fn.localhost"]);
    let (certificate, key) = own.write(dir.path(), "own");
    let data = dir.path().join("data");
    let arguments = ["--tls-listen", "127.0.0.1:0", "--tls-cert", &certificate, "--tls-key", &key];
    let p = Setup::new(env!("CARGO_BIN_EXE_mayfly")).data(&data).arguments(&arguments).start();
    let http = json!({ "Type": "HTTP", "MemorySize": 128, "InitTimeout": 20,
        "InstanceConcurrencyConfig": { "DynamicEnabled": "FALSE", "MaxConcurrency": 20 } });
    p.create("web", "Nodejs18.15", "", &[("scf_bootstrap", START), ("server.js", SERVER)], http);
    p.create("hello", "Python3.9", "index.main_handler", &[("index.py", EVENT)], json!({ "Timeout": 10 }));
    must(&p, &["url", "hello", "--auth", "none"]);

    // The platform's own names, the API included.
    let tls = tls_address(&p);
    let (status, _, body) =
        ask(own.connect(tls, "web.default.fn.localhost").unwrap(), "web.default.fn.localhost", "/a?b", "");
    let seen: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, &seen["url"], &seen["headers"]["x-forwarded-proto"]), (200, &json!("/a?b"), &json!("https")));
    let (status, _, body) = ask(own.connect(tls, "mayfly.example").unwrap(), "mayfly.example", "/healthz", "");
    assert_eq!((status, body.trim()), (200, "{\"status\":\"ok\"}"));

    // A domain with a certificate of its own.
    let shop = Made::new(&["shop.example.com"]);
    let (certificate, key) = shop.write(dir.path(), "shop");
    let (good, _, error) = mayfly(&p, &["domain", "add", "shop.example.com", "web", "--cert", "shop"]);
    assert!(!good && error.contains("mayfly cert add"), "{error}");
    let told = must(&p, &["cert", "add", "shop", "--cert", &certificate, "--key", &key]);
    assert!(told.contains("good for shop.example.com"), "{told}");
    let routes = ["--route", "/api/*=hello", "--strip", "--cert", "shop"];
    must(&p, &[&["domain", "add", "shop.example.com", "web"][..], &routes].concat());
    assert!(must(&p, &["url", "web"]).contains("also at https://shop.example.com/"));
    assert!(must(&p, &["domain", "ls"]).contains("/api/* → hello"));
    assert!(own.connect(tls, "shop.example.com").is_err(), "its own certificate is shown, not the platform's");

    let all = |p: &Platform| {
        let tls = tls_address(p);
        let connect = || shop.connect(tls, "shop.example.com").expect("hands are shaken");
        let (status, head, body) = ask(connect(), "shop.example.com:8743", "/x/y?z=1", "");
        let seen: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!((status, &seen["url"]), (200, &json!("/x/y?z=1")), "{head}");
        assert_eq!(seen["headers"]["x-forwarded-host"], "shop.example.com:8743");
        let (status, _, body) = ask(connect(), "SHOP.example.com", "/api/items?n=2", "");
        let seen: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!((status, seen), (200, json!({"path": "/items", "query": {"n": "2"}})));
        // The platform's own paths are the domain's here.
        let (status, _, body) = ask(connect(), "shop.example.com", "/healthz", "");
        assert!(status == 200 && body.contains("\"url\":\"/healthz\""), "{body}");
        over_http2(&shop, tls, "shop.example.com");
        // An upgrade, both ways.
        let mut socket = connect();
        socket
            .write_all(b"GET /ws HTTP/1.1\r\nHost: shop.example.com\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
            .expect("the platform reads");
        let mut heard = String::new();
        let mut buffer = [0; 1024];
        for (said, wanted) in [("", "\r\n\r\n"), ("ping", "ping"), ("pong", "pong")] {
            socket.write_all(said.as_bytes()).expect("the platform reads");
            while !heard.ends_with(wanted) {
                let n = socket.read(&mut buffer).expect("the platform answers in time");
                assert_ne!(n, 0, "{heard}");
                heard.push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
        }
        assert!(heard.starts_with("HTTP/1.1 101 "), "{heard}");
        // Without TLS the visitor is sent to it; behind a proxy that ends TLS, let in.
        let (status, head, _) = ask(plain(p), "shop.example.com:80", "/x?y=1", "");
        assert!(status == 308 && head.contains("location: https://shop.example.com/x?y=1"), "{head}");
        let (status, ..) = ask(plain(p), "shop.example.com", "/x", "X-Forwarded-Proto: https\r\n");
        assert_eq!(status, 200);
    };
    all(&p);

    // No goodbye: all of it is there again.
    p.kill();
    let p = Setup::new(env!("CARGO_BIN_EXE_mayfly")).data(&data).arguments(&arguments).start();
    all(&p);

    // A renewal of either certificate is seen by the next connection.
    let tls = tls_address(&p);
    let renewed = Made::new(&["shop.example.com"]);
    let (certificate, key) = renewed.write(dir.path(), "shop");
    must(&p, &["cert", "add", "shop", "--cert", &certificate, "--key", &key]);
    assert!(shop.connect(tls, "shop.example.com").is_err());
    assert_eq!(ask(renewed.connect(tls, "shop.example.com").unwrap(), "shop.example.com", "/x", "").0, 200);
    let renewed = Made::new(&["mayfly.example"]);
    renewed.write(dir.path(), "own");
    eventually("the new file is read", || renewed.connect(tls, "mayfly.example").is_ok());

    // A function that goes takes its paths with it, until it comes again.
    p.must("DeleteFunction", json!({ "FunctionName": "hello" }));
    let host = "shop.example.com";
    let secure = || ask(plain(&p), host, "/api/x", "X-Forwarded-Proto: https\r\n").0;
    assert_eq!(secure(), 404);
    must(&p, &["domain", "set", host, "web", "--route", "/api/*=web@$DEFAULT"]);
    assert_eq!(secure(), 200);
    must(&p, &["domain", "rm", host, "--yes"]);
    must(&p, &["cert", "rm", "shop", "--yes"]);
    assert_eq!(secure(), 404);
    p.stop();
}
