//! What passes between the listener and whoever answers.

use std::net::SocketAddr;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;

/// A body on its way, in either direction.
pub type StreamBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A request of which only the head has arrived. `hyper::upgrade::OnUpgrade` is among its extensions when the connection may become
/// something else.
pub struct StreamRequest {
    /// The request. Its body is read as fast as somebody takes it, and no faster.
    pub request: http::Request<StreamBody>,
    /// Who is at the other end of the connection.
    pub peer: SocketAddr,
    /// Whether the connection is encrypted.
    pub secure: bool,
}

/// A request that has arrived in full.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    /// The method.
    pub method: http::Method,
    /// The target as sent: mostly a path with query, an absolute URI from clients that think we are a proxy.
    pub uri: http::Uri,
    /// The headers as sent. There is at most one `host` and at most one `authorization`.
    pub headers: http::HeaderMap,
    /// The body; empty when there is none.
    pub body: Bytes,
    /// Who is at the other end of the connection.
    pub peer: SocketAddr,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct HttpResponse {
    /// The status code; clients of the SCF API understand 200 only, errors included.
    pub status: u16,
    /// The content type. Python clients of the SCF API read errors only from exactly `application/json`.
    pub content_type: &'static str,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body. A HEAD request gets its length, not its bytes.
    pub body: Bytes,
}

impl HttpResponse {
    /// A 200 with JSON text.
    pub fn json(body: impl Into<Bytes>) -> Self {
        Self { status: 200, content_type: "application/json", headers: Vec::new(), body: body.into() }
    }

    /// Plain text.
    pub fn text(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", headers: Vec::new(), body: body.into() }
    }
}

/// Answers requests. Must be quick to return its future; a panic is answered with `InternalError`.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// Answers one request.
    async fn call(&self, request: HttpRequest) -> HttpResponse;

    /// True for requests that [`Self::stream`] is to answer: their bodies are not collected, and no limit of the listener's on bodies
    /// holds for them.
    fn streams(&self, _head: &http::request::Parts) -> bool {
        false
    }

    /// Answers one request while its body may still be on its way. The future, and later the body it returned, are dropped as soon as the
    /// client has gone away.
    async fn stream(&self, _request: StreamRequest) -> http::Response<StreamBody> {
        http::Response::new(StreamBody::default())
    }
}
