//! A gateway on a free port, a service to talk to, and a client that says exactly what it is told to.

// Each test binary uses a part of this.
#![allow(dead_code)]

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use mayfly_base::EventLoops;
use mayfly_base::Shutdown;
use mayfly_gateway::{
    Drained, Gateway, GatewayLimits, GatewayStats, HttpRequest, HttpResponse, Service, StreamBody, StreamRequest,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Nothing in a test takes longer.
pub const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
pub struct Probe {
    pub calls: AtomicUsize,
    pub finished: AtomicUsize,
    pub entered: Notify,
    pub release: Notify,
}

#[async_trait]
impl Service for Probe {
    async fn call(&self, request: HttpRequest) -> HttpResponse {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let answer = match request.uri.path() {
            "/echo" => HttpResponse::json(request.body),
            "/wait" => {
                self.entered.notify_one();
                self.release.notified().await;
                HttpResponse::text(200, "waited")
            }
            "/big" => HttpResponse::text(200, vec![b'x'; 32 * 1024 * 1024]),
            "/panic" => panic!("on purpose"),
            "/odd-headers" => HttpResponse {
                headers: vec![("x-good", "1".into()), ("x-bad", "a\nb".into()), ("bad name", "1".into())],
                ..HttpResponse::text(200, "")
            },
            "/odd-status" => HttpResponse::text(42, "x"),
            _ => {
                let host = request.headers.get("host").map_or("", |h| h.to_str().unwrap_or("?"));
                let text = format!("{} {} host={host} body={}", request.method, request.uri, request.body.len());
                HttpResponse::text(200, text)
            }
        };
        self.finished.fetch_add(1, Ordering::SeqCst);
        answer
    }

    fn streams(&self, head: &http::request::Parts) -> bool {
        head.uri.path() == "/endless"
    }

    async fn stream(&self, _: StreamRequest) -> http::Response<StreamBody> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        http::Response::new(Endless.boxed_unsync())
    }
}

/// A body with always more to come.
struct Endless;

impl Body for Endless {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 4096])))))
    }
}

pub struct Running {
    pub address: SocketAddr,
    pub probe: Arc<Probe>,
    pub shutdown: Shutdown,
    pub stats: Arc<GatewayStats>,
    pub ended: JoinHandle<Drained>,
}

pub async fn start(limits: GatewayLimits) -> Running {
    let gateway = Gateway::bind(SocketAddr::from(([127, 0, 0, 1], 0)), limits).await.unwrap();
    let (address, stats) = (gateway.local_addr(), gateway.stats());
    let (probe, shutdown) = (Arc::new(Probe::default()), Shutdown::new());
    let ended =
        tokio::spawn(gateway.run(probe.clone(), shutdown.clone(), Arc::new(EventLoops::start().expect("threads"))));
    Running { address, probe, shutdown, stats, ended }
}

impl Running {
    pub async fn connect(&self) -> Client {
        Client { stream: TcpStream::connect(self.address).await.unwrap(), unread: Vec::new() }
    }

    /// Says something on a new connection and hears everything until it is closed.
    pub async fn converse(&self, request: &[u8]) -> String {
        let mut client = self.connect().await;
        client.say(request).await;
        client.hear_all().await
    }

    pub fn calls(&self) -> usize {
        self.probe.calls.load(Ordering::SeqCst)
    }
}

pub struct Client {
    pub stream: TcpStream,
    unread: Vec<u8>,
}

#[derive(Debug)]
pub struct Heard {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Heard {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Client {
    pub async fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// One answer with a content-length. `None` when the connection was closed instead.
    pub async fn hear(&mut self) -> Option<Heard> {
        self.hear_with_body(true).await
    }

    pub async fn hear_with_body(&mut self, has_body: bool) -> Option<Heard> {
        let end = loop {
            if let Some(at) = self.unread.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more().await {
                return None;
            }
        };
        let head = String::from_utf8(self.unread.drain(..end).collect()).unwrap();
        let length = head
            .lines()
            .filter_map(|l| l.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .map_or(0, |(_, v)| v.trim().parse().unwrap());
        let length = if has_body { length } else { 0 };
        while self.unread.len() < length {
            if !self.more().await {
                return None;
            }
        }
        let body = self.unread.drain(..length).collect();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Some(Heard { status, head, body })
    }

    async fn more(&mut self) -> bool {
        let mut buffer = vec![0; 65536];
        let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut buffer)).await.expect("no answer in time");
        let read = read.unwrap_or(0);
        self.unread.extend_from_slice(&buffer[..read]);
        read > 0
    }

    pub async fn hear_all(&mut self) -> String {
        while self.more().await {}
        String::from_utf8_lossy(&std::mem::take(&mut self.unread)).into_owned()
    }

    /// True when the other side has closed, and nothing came before.
    pub async fn is_closed(&mut self) -> bool {
        !self.more().await
    }
}

/// Waits until a condition holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "never: {what}");
}
