//! HTTP/1.1 with the server in an instance.
//!
//! A connection has no task, no channel and no timer: whoever waits for an answer, or reads its body, reads and writes the connection, both
//! ways at a time, on the event loop where it is. The head goes out with what there is of the body in one write, and an answer that fits
//! into one read is taken apart in place. Dropping what waits or reads closes the connection, by which the server learns that nobody
//! listens. What can go wrong is in [`Bad`] and [`Failure`].

mod body;
mod head;
#[cfg(test)]
mod tests;
mod upload;

pub(crate) use head::{Asked, field};

use super::{BodyError, StreamBody};
use body::{Decoder, Step};
use bytes::{Bytes, BytesMut};
use head::Head;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use upload::{Stopped, Upload};

/// Bytes read at a time: at first, and at most while an answer fills what it is given.
const READ_BYTES_MIN: usize = 8 * 1024;
const READ_BYTES_MAX: usize = 64 * 1024;
/// Most interim answers (1xx) before an answer.
const INTERIM_MAX: usize = 100;

/// What a server did that is not HTTP/1.1, or more of it than anybody needs.
#[derive(Debug, thiserror::Error)]
pub(super) enum Bad {
    #[error("its answer is not HTTP/1.1")]
    NotHttp,
    #[error("its answer's head is malformed: {0}")]
    Head(httparse::Error),
    #[error("its answer's head is larger than {} bytes", head::HEAD_BYTES_MAX)]
    HeadTooLarge,
    #[error("its answer has a Content-Length that is none, or two that differ")]
    Length,
    #[error("its answer has a Transfer-Encoding that nobody has asked for")]
    Coding,
    #[error("its answer's chunks are malformed")]
    Chunk,
    #[error("its answer's trailers are malformed or larger than 16 KiB")]
    Trailers,
    #[error("it sent more than {INTERIM_MAX} interim answers")]
    Interim,
    #[error("it changed the protocol, which nobody had asked for or before it had the whole request")]
    Changed,
    #[error("it closed the connection in the middle of its answer")]
    CutShort,
}

/// Why there is no answer.
pub(super) enum Failure {
    /// The server has not begun with the request. `body`: what of it can be sent again, if it came back.
    NotBegun { body: Option<StreamBody>, why: String },
    /// It may have begun.
    Broken { why: String },
}

/// A connection to a server, without a request on it.
pub(super) struct Connection<S> {
    stream: S,
    inbox: BytesMut,
    /// For heads of requests.
    buffer: Vec<u8>,
    /// Bytes to read at a time.
    step: usize,
    /// True once a request has been answered on it: the server may close it at any time.
    used: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, inbox: BytesMut::new(), buffer: Vec::new(), step: READ_BYTES_MIN, used: false }
    }

    /// False when the server has closed it, or said something without being asked.
    pub(super) fn is_open(&mut self) -> bool {
        self.inbox.is_empty() && self.read(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// Reads what there is. 0: the server has closed its side.
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.inbox.reserve(self.step);
        let n = ready!(pin!(self.stream.read_buf(&mut self.inbox)).poll(cx))?;
        // Somebody who sends much is read in larger pieces.
        if n >= self.step {
            self.step = (self.step * 2).min(READ_BYTES_MAX);
        }
        Poll::Ready(Ok(n))
    }
}

/// A request and its answer on their way.
struct Exchange<S> {
    connection: Connection<S>,
    /// `None` once all of it is gone.
    upload: Option<Upload>,
    /// Why the server took no more of the request.
    stopped: Option<io::Error>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Exchange<S> {
    /// Sends what can be sent. An error is the body's.
    fn send(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        let Some(upload) = &mut self.upload else { return Ok(()) };
        match upload.poll(&mut self.connection.stream, cx) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => {
                if let Some(upload) = self.upload.take() {
                    self.connection.buffer = upload.into_buffer();
                }
            }
            Poll::Ready(Err(Stopped::Body(error))) => return Err(error),
            // It may have answered and closed its side, as servers do that do not want to hear more.
            Poll::Ready(Err(Stopped::Write(error))) if self.stopped.is_none() => self.stopped = Some(error),
            Poll::Ready(Err(Stopped::Write(_))) => {}
        }
        Ok(())
    }

    /// Waits for the head of the answer, interim answers aside.
    fn head(
        &mut self,
        cx: &mut Context<'_>,
        method: &http::Method,
        place: &mut (usize, usize),
    ) -> Poll<Result<Head, NoHead>> {
        if self.stopped.is_none() {
            self.send(cx).map_err(NoHead::Body)?;
        }
        let (looked, interim) = place;
        loop {
            if !self.connection.inbox.is_empty()
                && let Some(head) = head::take(&mut self.connection.inbox, looked, method).map_err(NoHead::Bad)?
            {
                if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
                    return Poll::Ready(Ok(head));
                }
                *interim += 1;
                if *interim > INTERIM_MAX {
                    return Poll::Ready(Err(NoHead::Bad(Bad::Interim)));
                }
                continue;
            }
            match ready!(self.connection.read(cx)) {
                Ok(0) if self.connection.inbox.is_empty() && *interim == 0 => {
                    let why = self.stopped.take().map_or_else(|| "it closed the connection".into(), |e| e.to_string());
                    return Poll::Ready(Err(NoHead::Silent(why)));
                }
                Ok(0) => return Poll::Ready(Err(NoHead::Bad(Bad::CutShort))),
                Ok(_) => {}
                Err(e) if self.connection.inbox.is_empty() && *interim == 0 => {
                    return Poll::Ready(Err(NoHead::Silent(e.to_string())));
                }
                Err(_) => return Poll::Ready(Err(NoHead::Bad(Bad::CutShort))),
            }
        }
    }
}

enum NoHead {
    /// Not a byte came.
    Silent(String),
    Bad(Bad),
    /// The request's body broke off.
    Body(BodyError),
}

/// An answer.
pub(super) enum Answered<S> {
    /// As usual.
    Response(Response<Reading>),
    /// The server has agreed to speak something else.
    Upgraded(Response<Reading>, Upgraded<S>),
}

/// A connection that is no longer one of HTTP.
pub(super) struct Upgraded<S> {
    pub(super) stream: S,
    /// What the server has said already in the new protocol.
    pub(super) ahead: Bytes,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Connection<S> {
    /// Sends a request and waits for the head of its answer. The body that comes with it holds the connection, and gives it to `home` when
    /// both request and answer have ended. `again`: the request may be sent twice. `upgrading`: the connection may become something else.
    pub(super) async fn send(
        mut self,
        asked: &Asked<'_>,
        body: StreamBody,
        again: bool,
        upgrading: bool,
        home: impl FnOnce(Self) + Send + Unpin + 'static,
    ) -> Result<Answered<S>, Failure> {
        let upload = Upload::new(asked, body, std::mem::take(&mut self.buffer));
        let mut exchange = Exchange { connection: self, upload: Some(upload), stopped: None };
        let mut place = (0, 0);
        let head = std::future::poll_fn(|cx| exchange.head(cx, asked.method, &mut place)).await;
        let Head { status, reason, headers, length, keep_alive } = match head {
            Ok(head) => head,
            Err(NoHead::Silent(why)) => {
                if let Some(body) = exchange.upload.and_then(Upload::untouched) {
                    return Err(Failure::NotBegun { body: Some(body), why });
                }
                // The server has closed what lay idle, if nothing says otherwise.
                return Err(match again && exchange.connection.used {
                    true => Failure::NotBegun { body: None, why },
                    false => Failure::Broken { why },
                });
            }
            Err(NoHead::Bad(bad)) => return Err(Failure::Broken { why: bad.to_string() }),
            Err(NoHead::Body(e)) => return Err(Failure::Broken { why: e.to_string() }),
        };
        let mut response = Response::new(Reading::Nothing);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        if let Some(reason) = reason {
            response.extensions_mut().insert(reason);
        }
        if status == StatusCode::SWITCHING_PROTOCOLS {
            if !upgrading || exchange.upload.is_some() {
                return Err(Failure::Broken { why: Bad::Changed.to_string() });
            }
            let Connection { stream, inbox, .. } = exchange.connection;
            return Ok(Answered::Upgraded(response, Upgraded { stream, ahead: inbox.freeze() }));
        }
        exchange.connection.used = true;
        let answer = Answer {
            exchange: Some(exchange),
            decoder: Decoder::new(length),
            ahead: None,
            keep_alive,
            home: Some(home),
        };
        *response.body_mut() = answer.settle();
        Ok(Answered::Response(response))
    }
}

/// The body of an answer.
pub(crate) enum Reading {
    Nothing,
    /// All of it.
    Whole(Bytes),
    /// What comes as it comes.
    Live(StreamBody),
}

impl Body for Reading {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Self::Live(body) = &mut *self {
            return Pin::new(body).poll_frame(cx);
        }
        Poll::Ready(match std::mem::replace(&mut *self, Self::Nothing) {
            Self::Whole(bytes) => Some(Ok(Frame::data(bytes))),
            _ => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Whole(_) => false,
            Self::Live(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Nothing => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Live(body) => body.size_hint(),
        }
    }
}

/// The body of an answer, and the connection it comes over.
struct Answer<S, F> {
    /// `None` once the body has ended, or broken off.
    exchange: Option<Exchange<S>>,
    decoder: Decoder,
    /// What has been found behind the piece that was given out last.
    ahead: Option<Result<Step, Bad>>,
    keep_alive: bool,
    home: Option<F>,
}

impl<S, F> Answer<S, F>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: FnOnce(Connection<S>) + Send + Unpin + 'static,
{
    /// As little as is needed for what is still to come.
    fn settle(mut self) -> Reading {
        let Some(exchange) = &mut self.exchange else { return Reading::Nothing };
        // A body without a named length stays one: its framing may mean something to the visitor.
        let Some(left) = self.decoder.left() else { return Reading::Live(self.boxed_unsync()) };
        let here = exchange.connection.inbox.len() as u64;
        if exchange.upload.is_some() || here < left {
            return Reading::Live(self.boxed_unsync());
        }
        if left == 0 {
            self.finish();
            return Reading::Nothing;
        }
        match self.decoder.step(&mut exchange.connection.inbox) {
            Ok(Step::Data(bytes)) => {
                self.finish();
                Reading::Whole(bytes)
            }
            other => {
                self.ahead = Some(other);
                Reading::Live(self.boxed_unsync())
            }
        }
    }

    /// The body has ended: the connection goes home, if it can serve another request.
    fn finish(&mut self) {
        let Some(Exchange { mut connection, upload: None, stopped: None }) = self.exchange.take() else { return };
        if !self.keep_alive || !connection.inbox.is_empty() {
            return;
        }
        if connection.step > READ_BYTES_MIN {
            connection.step = READ_BYTES_MIN;
            connection.inbox = BytesMut::new();
        }
        if let Some(home) = self.home.take() {
            home(connection);
        }
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, BodyError>> {
        let Some(exchange) = &mut self.exchange else { return Poll::Ready(Ok(None)) };
        if exchange.stopped.is_none() {
            exchange.send(cx)?;
        }
        loop {
            let connection = &mut exchange.connection;
            let step = match self.ahead.take() {
                Some(step) => step,
                None => self.decoder.step(&mut connection.inbox),
            };
            match step? {
                Step::Data(data) => {
                    // Who knows that a piece is the last one can pass it on as such.
                    match self.decoder.step(&mut connection.inbox) {
                        Ok(Step::End) => self.finish(),
                        Ok(Step::More) => {}
                        other => self.ahead = Some(other),
                    }
                    return Poll::Ready(Ok(Some(Frame::data(data))));
                }
                Step::Trailers(fields) => return Poll::Ready(Ok(Some(Frame::trailers(fields)))),
                Step::End => {
                    self.finish();
                    return Poll::Ready(Ok(None));
                }
                Step::More => match ready!(connection.read(cx)) {
                    Ok(0) if self.decoder.ends_with_connection() => {
                        self.exchange = None;
                        return Poll::Ready(Ok(None));
                    }
                    Ok(0) | Err(_) => return Poll::Ready(Err(Bad::CutShort.into())),
                    Ok(_) => {}
                },
            }
        }
    }
}

impl<S, F> Body for Answer<S, F>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: FnOnce(Connection<S>) + Send + Unpin + 'static,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let result = ready!(this.step(cx));
        if result.is_err() {
            this.exchange = None;
        }
        Poll::Ready(result.transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.exchange.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.exchange, self.decoder.left()) {
            (None, _) => SizeHint::with_exact(0),
            (Some(_), Some(left)) => SizeHint::with_exact(left + self.held()),
            (Some(_), None) => SizeHint::default(),
        }
    }
}

impl<S, F> Answer<S, F> {
    /// Bytes that have left the decoder and were not given out yet.
    fn held(&self) -> u64 {
        match &self.ahead {
            Some(Ok(Step::Data(data))) => data.len() as u64,
            _ => 0,
        }
    }
}
