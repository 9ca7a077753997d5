//! Connections to the server inside an instance, and bodies that keep them until they have ended.
//!
//! An HTTP/1.1 connection has no task of its own: whoever waits for a response, or reads its body, drives it. That saves two hand-overs
//! between tasks for each request, and lets a dropped body close the connection, by which the server learns that nobody listens.

use super::{BodyError, StreamBody};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use mayfly_base::loops::Roaming;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use tokio::net::{TcpSocket, TcpStream};

/// Connects a socket of a sandbox to the server in it.
pub(super) async fn connect(socket: OwnedFd) -> io::Result<TcpStream> {
    let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
    let stream = socket.connect((std::net::Ipv4Addr::LOCALHOST, super::SERVICE_PORT).into()).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Why there is no response.
pub(super) enum Failure {
    /// The server has not begun with the request. `body`: what of it can be sent again, if it came back.
    NotBegun { body: Option<StreamBody>, why: String },
    /// It may have begun.
    Broken { why: String },
}

/// An HTTP/1.1 connection.
pub(super) struct Connection {
    sender: http1::SendRequest<StreamBody>,
    driver: http1::Connection<TokioIo<Roaming<TcpStream>>, StreamBody>,
    /// True once a request has been answered on it: the server may close it at any time.
    used: bool,
}

impl Connection {
    pub(super) async fn new(stream: TcpStream) -> hyper::Result<Self> {
        let (sender, driver) = http1::Builder::new().handshake(TokioIo::new(Roaming::new(stream))).await?;
        Ok(Self { sender, driver, used: false })
    }

    /// False when the server has closed it.
    pub(super) fn is_open(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(&mut self.driver).poll(&mut cx).is_pending() && self.sender.is_ready()
    }

    /// Sends a request and waits for the response's head. The body that comes with it holds the connection and gives it to `home` at its
    /// end. `again`: the request may be sent twice.
    pub(super) async fn send(
        mut self,
        request: Request<StreamBody>,
        again: bool,
        home: impl FnOnce(Self) + Send + Unpin + 'static,
    ) -> Result<Response<StreamBody>, Failure> {
        let mut response = pin!(self.sender.try_send_request(request));
        let mut open = true;
        let driver = &mut self.driver;
        let answer = std::future::poll_fn(|cx| {
            if open {
                open = Pin::new(&mut *driver).poll(cx).is_pending();
            }
            response.as_mut().poll(cx)
        })
        .await;
        match answer {
            Ok(response) => {
                self.used = true;
                Ok(response.map(|body| {
                    Driven { body, connection: open.then_some(self), home: Some(home), ended: false }.boxed_unsync()
                }))
            }
            Err(mut e) => {
                let body = e.take_message().map(Request::into_body);
                let why = reason(e.error());
                match body {
                    Some(body) => Err(Failure::NotBegun { body: Some(body), why }),
                    None if again && self.used => Err(Failure::NotBegun { body: None, why }),
                    None => Err(Failure::Broken { why }),
                }
            }
        }
    }
}

pub(super) fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(e) = source {
        text.push_str(": ");
        text.push_str(&e.to_string());
        source = e.source();
    }
    text
}

/// The body of a response, and the connection it comes over.
struct Driven<F: FnOnce(Connection) + Send + Unpin + 'static> {
    body: Incoming,
    connection: Option<Connection>,
    home: Option<F>,
    ended: bool,
}

impl<F: FnOnce(Connection) + Send + Unpin + 'static> Driven<F> {
    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && Pin::new(&mut connection.driver).poll(cx).is_ready()
        {
            self.connection = None;
        }
    }

    /// The body has ended: the connection goes home, if it can serve another request.
    fn finish(&mut self) {
        self.ended = true;
        if let Some(mut connection) = self.connection.take()
            && connection.is_open()
            && let Some(home) = self.home.take()
        {
            home(connection);
        }
    }
}

impl<F: FnOnce(Connection) + Send + Unpin + 'static> Body for Driven<F> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        // Asking the body tells the connection that more is wanted; what it then reads can be taken at once.
        for _ in 0..2 {
            this.drive(cx);
            match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    if this.body.is_end_stream() {
                        this.drive(cx);
                        this.finish();
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                Poll::Ready(Some(Err(e))) => {
                    this.ended = true;
                    this.connection = None;
                    return Poll::Ready(Some(Err(e.into())));
                }
                Poll::Ready(None) => {
                    this.drive(cx);
                    this.finish();
                    return Poll::Ready(None);
                }
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<F: FnOnce(Connection) + Send + Unpin + 'static> Drop for Driven<F> {
    fn drop(&mut self) {
        // Responses without a body are not read.
        if !self.ended && self.body.is_end_stream() {
            self.drive(&mut Context::from_waker(Waker::noop()));
            self.finish();
        }
    }
}

/// A body that comes over a connection with a task of its own, which ends with the body.
pub(super) struct Held(tokio::task::AbortHandle);

impl Held {
    pub(super) fn new(task: tokio::task::AbortHandle) -> Self {
        Self(task)
    }

    pub(super) fn follow(self, body: StreamBody) -> StreamBody {
        HeldBody { body, _task: self }.boxed_unsync()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct HeldBody {
    body: StreamBody,
    _task: Held,
}

impl Body for HeldBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
