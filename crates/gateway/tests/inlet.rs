//! Listeners that somebody else has opened: limits of each and of all, and their end.

use async_trait::async_trait;
use mayfly_base::EventLoops;
use mayfly_gateway::{GatewayLimits, HttpRequest, HttpResponse, Inlet, Inlets, Service};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

struct Length;

#[async_trait]
impl Service for Length {
    async fn call(&self, request: HttpRequest) -> HttpResponse {
        HttpResponse::text(200, format!("{} bytes", request.body.len()))
    }
}

fn open(inlets: &Inlets) -> (Inlet, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    (inlets.open(listener, Arc::new(Length)).unwrap(), address)
}

/// Sends on a connection and returns the first part of what comes back; empty at its end.
async fn talk(stream: &mut TcpStream, text: &str) -> String {
    // A refusal may come before all has been sent.
    let _ = stream.write_all(text.as_bytes()).await;
    let mut buffer = [0; 4096];
    let read =
        tokio::time::timeout(Duration::from_secs(30), stream.read(&mut buffer)).await.expect("an answer in time");
    String::from_utf8_lossy(&buffer[..read.unwrap_or(0)]).into_owned()
}

const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

/// Connects until it gets an answer that is not a refusal.
async fn served(address: SocketAddr) -> TcpStream {
    for _ in 0..1000 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        if talk(&mut stream, GET).await.starts_with("HTTP/1.1 200") {
            return stream;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no place came free");
}

#[tokio::test]
async fn each_has_its_own_places_and_all_have_some_together() {
    let limits = GatewayLimits { connections_max: 2, http2: false, ..GatewayLimits::default() };
    let loops = Arc::new(EventLoops::none());
    let inlets = Inlets::new(limits, 3, 1 << 20, &loops);
    let ((one, one_at), (_two, two_at)) = (open(&inlets), open(&inlets));
    let mut first = served(one_at).await;
    let _second = served(one_at).await;
    let mut third = TcpStream::connect(one_at).await.unwrap();
    assert!(talk(&mut third, GET).await.starts_with("HTTP/1.1 503"), "its own places are taken");
    let _elsewhere = served(two_at).await;
    let mut fourth = TcpStream::connect(two_at).await.unwrap();
    assert!(talk(&mut fourth, GET).await.starts_with("HTTP/1.1 503"), "all places are taken");
    // Its end is that of its connections, and frees their places.
    drop(one);
    assert_eq!(talk(&mut first, GET).await, "");
    let mut again = served(two_at).await;
    let asked = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello";
    assert!(talk(&mut again, asked).await.ends_with("5 bytes"));
    drop(again);
    // HTTP/2 is not spoken here.
    let mut two = served(two_at).await;
    assert!(talk(&mut two, GET).await.starts_with("HTTP/1.1 200"));
    drop(two);
    let answer = loop {
        let mut stream = TcpStream::connect(two_at).await.unwrap();
        let answer = talk(&mut stream, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        if !answer.starts_with("HTTP/1.1 503") {
            break answer;
        }
    };
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert!(TcpStream::connect(one_at).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn without_loops_nothing_is_opened() {
    let inlets = {
        let loops = Arc::new(EventLoops::none());
        Inlets::new(GatewayLimits::default(), 3, 1 << 20, &loops)
    };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(inlets.open(listener, Arc::new(Length)).is_err(), "the platform is stopping");
}
