//! TLS: what is agreed on, what is refused, and that nobody holds a seat without shaking hands.

mod common;

use common::{PATIENCE, Probe, Running, until};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mayfly_base::Shutdown;
use mayfly_cert::{Identity, server_config};
use mayfly_gateway::{Gateway, GatewayLimits};
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion, version};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The certificate of the moment.
#[derive(Debug)]
struct Current(Mutex<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.lock().clone())
    }
}

/// A self-signed certificate for `name`, as PEM, and what serves it.
fn made(name: &str) -> (String, Arc<CertifiedKey>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let pem = made.cert.pem();
    let identity = Identity::from_pem(pem.as_bytes(), made.signing_key.serialize_pem().as_bytes()).unwrap();
    (pem, identity.certified)
}

struct Secure {
    running: Running,
    address: SocketAddr,
    current: Arc<Current>,
    pem: String,
}

async fn start(limits: GatewayLimits) -> Secure {
    let (pem, key) = made("a.example");
    let current = Arc::new(Current(Mutex::new(key)));
    let here = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut gateway = Gateway::bind(here, limits).await.unwrap();
    gateway.listen_tls(here, server_config(current.clone())).await.unwrap();
    let address = gateway.local_tls_addr().unwrap();
    let (plain, stats) = (gateway.local_addr(), gateway.stats());
    assert_ne!(plain, address);
    let (probe, shutdown) = (Arc::new(Probe::default()), Shutdown::new());
    let ended = tokio::spawn(gateway.run(
        probe.clone(),
        shutdown.clone(),
        Arc::new(mayfly_base::EventLoops::start().expect("threads")),
    ));
    Secure { running: Running { address: plain, probe, shutdown, stats, ended }, address, current, pem }
}

impl Secure {
    async fn connect(
        &self,
        pem: &str,
        versions: &[&'static SupportedProtocolVersion],
        protocols: &[&[u8]],
    ) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
        let mut config =
            ClientConfig::builder_with_protocol_versions(versions).with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("a.example").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    async fn connect_now(&self, protocols: &[&[u8]]) -> TlsStream<TcpStream> {
        self.connect(&self.pem, &[&version::TLS13, &version::TLS12], protocols).await.unwrap()
    }
}

async fn ask(stream: &mut TlsStream<TcpStream>, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: a.example\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&heard).contains("body=0") {
        let n = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.unwrap().unwrap();
        assert_ne!(n, 0, "closed after {:?}", String::from_utf8_lossy(&heard));
        heard.extend_from_slice(&buffer[..n]);
    }
    String::from_utf8(heard).unwrap()
}

async fn is_closed(stream: &mut (impl AsyncReadExt + Unpin)) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => return true,
            Ok(Ok(_)) => {}
            Err(_) => return false,
        }
    }
}

/// Waits until so many handshakes have failed, and no more. The client may hear of it before the server has counted it.
async fn failed_handshakes(secure: &Secure, count: u64) {
    until("failed handshakes are counted", || secure.running.stats.handshakes_failed() >= count).await;
    assert_eq!(secure.running.stats.handshakes_failed(), count);
}

#[tokio::test]
async fn versions_and_protocols_are_what_the_client_likes_best() {
    let secure = start(GatewayLimits::default()).await;
    for (version, name) in [(&version::TLS12, ProtocolVersion::TLSv1_2), (&version::TLS13, ProtocolVersion::TLSv1_3)] {
        for protocols in [&[][..], &[&b"http/1.1"[..]]] {
            let mut stream = secure.connect(&secure.pem, &[version], protocols).await.unwrap();
            assert_eq!(stream.get_ref().1.protocol_version(), Some(name));
            assert_eq!(stream.get_ref().1.alpn_protocol(), protocols.first().copied());
            // Twice: the connection is kept.
            for path in ["/one", "/two"] {
                assert!(ask(&mut stream, path).await.contains(&format!("GET {path} host=a.example")));
            }
        }
    }
    let stream = secure.connect_now(&[b"h2", b"http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for body in ["", "some"] {
        let request = hyper::Request::post("https://a.example/echo").body(Full::<bytes::Bytes>::from(body)).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), body);
    }
    // Nothing in common is an error at once, not HTTP/1.1 all the same.
    let error = secure.connect(&secure.pem, &[&version::TLS13], &[b"spdy/3"]).await;
    assert!(error.is_err());
    failed_handshakes(&secure, 1).await;
    // The other door stays plain.
    assert!(secure.running.converse(b"GET / HTTP/1.0\r\nhost: x\r\n\r\n").await.contains("200 OK"));
}

#[tokio::test]
async fn who_does_not_shake_hands_holds_no_seat() {
    let limits = GatewayLimits {
        handshake_time: Duration::from_millis(200),
        // As long as a test may wait: only the handshake's own limit can end these.
        idle_time: PATIENCE * 2,
        header_time: PATIENCE * 2,
        connections_max: 3,
        ..GatewayLimits::default()
    };
    let secure = start(limits).await;
    // The beginning of a handshake, and silence.
    let mut silent = TcpStream::connect(secure.address).await.unwrap();
    let mut slow = TcpStream::connect(secure.address).await.unwrap();
    slow.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    // A record that never ends, byte by byte, to look busy.
    let mut trickle = TcpStream::connect(secure.address).await.unwrap();
    trickle.write_all(&[22, 3, 1, 0x40]).await.unwrap();
    assert!(is_closed(&mut silent).await && is_closed(&mut slow).await && is_closed(&mut trickle).await);
    until("their seats are free", || secure.running.stats.connections() == 0).await;
    failed_handshakes(&secure, 3).await;
    assert!(ask(&mut secure.connect_now(&[]).await, "/x").await.contains("200 OK"));
}

#[tokio::test]
async fn garbage_is_closed_and_plain_http_is_told() {
    let secure = start(GatewayLimits { handshake_time: PATIENCE * 2, ..GatewayLimits::default() }).await;
    let large = [&[22, 3, 1, 0xff, 0xff][..], &[0; 70_000]].concat();
    for garbage in [&b"\x00\x01\x02"[..], b"\x16\x03\x01\x00\x05hello", b"\x80\x2e\x01\x00\x02", &large] {
        let mut stream = TcpStream::connect(secure.address).await.unwrap();
        // It may be closed in the middle of it.
        let _ = stream.write_all(garbage).await;
        assert!(is_closed(&mut stream).await, "{:?}", &garbage[..3]);
    }
    let mut stream = TcpStream::connect(secure.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut told = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut told)).await.unwrap().unwrap();
    assert!(told.starts_with("HTTP/1.1 400 ") && told.contains("https://"), "{told}");
    failed_handshakes(&secure, 5).await;
    assert_eq!(secure.running.calls(), 0);
    assert!(ask(&mut secure.connect_now(&[]).await, "/x").await.contains("200 OK"));
}

#[tokio::test]
async fn handshakes_have_a_limit_of_their_own() {
    let limits = GatewayLimits { handshakes_max: 1, handshake_time: PATIENCE * 2, ..GatewayLimits::default() };
    let secure = start(limits).await;
    // One that is through its handshake needs no place.
    let mut early = secure.connect_now(&[]).await;
    let mut first = TcpStream::connect(secure.address).await.unwrap();
    let mut second = TcpStream::connect(secure.address).await.unwrap();
    // They are served by different threads: either may be the one that finds the place taken.
    let closed = tokio::select! {
        closed = is_closed(&mut first) => closed,
        closed = is_closed(&mut second) => closed,
    };
    assert!(closed);
    assert!(ask(&mut early, "/x").await.contains("200 OK"));
    drop((first, second));
    until("both are gone", || secure.running.stats.connections() == 1).await;
    // The place comes free when the handshake's task ends, which may be a moment later than its connection is counted out.
    let again = async {
        while secure.connect(&secure.pem, &[&version::TLS13], &[]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, again).await.is_ok(), "the place never comes free");
}

#[tokio::test]
async fn a_certificate_is_exchanged_without_a_gap() {
    let secure = start(GatewayLimits::default()).await;
    let mut early = secure.connect_now(&[]).await;
    let (pem, key) = made("a.example");
    *secure.current.0.lock() = key;
    assert!(secure.connect(&secure.pem, &[&version::TLS13], &[]).await.is_err(), "the old one is not shown any more");
    let mut late = secure.connect(&pem, &[&version::TLS13], &[]).await.unwrap();
    for stream in [&mut early, &mut late] {
        assert!(ask(stream, "/x").await.contains("200 OK"));
    }
}

#[tokio::test]
async fn the_end_waits_for_requests_and_for_no_handshake() {
    let secure = start(GatewayLimits::default()).await;
    let _half = TcpStream::connect(secure.address).await.unwrap();
    let mut idle = secure.connect_now(&[]).await;
    let mut busy = secure.connect_now(&[]).await;
    busy.write_all(b"GET /wait HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    secure.running.probe.entered.notified().await;
    secure.running.shutdown.trigger();
    assert!(is_closed(&mut idle).await);
    secure.running.probe.release.notify_one();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, busy.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.ends_with("waited"), "{answer}");
    let drained = tokio::time::timeout(PATIENCE, secure.running.ended).await.unwrap().unwrap();
    assert_eq!(drained.cut, 0);
}

#[tokio::test]
async fn who_takes_nothing_of_an_answer_is_dropped() {
    let limits = GatewayLimits { write_stall_time: Duration::from_millis(300), ..GatewayLimits::default() };
    let secure = start(limits).await;
    let mut stream = secure.connect_now(&[]).await;
    stream.write_all(b"GET /big HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    until("it is dropped", || secure.running.stats.write_stalls() > 0).await;
    until("its seat is free", || secure.running.stats.connections() == 0).await;
}
