//! Answers on their way out, and the answers that the listener itself gives.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use hyper::body::{Body, Frame, SizeHint};
use mayfly_model::RequestId;

use crate::gone::Gone;
use crate::guard::Phase;
use crate::http2::Progress;
use crate::service::{HttpResponse, StreamBody};

/// The body of an answer. When it is gone, the connection is waiting for its next request.
pub(crate) struct Answer {
    data: Data,
    phase: Arc<Phase>,
    /// Whatever is to end with it.
    keep: Option<Box<dyn Any + Send>>,
    /// Who wants to know whether the client takes it.
    progress: Option<Arc<Progress>>,
}

enum Data {
    /// One piece.
    Whole(Option<Bytes>),
    /// What comes as it comes, for as long as the client is there to take it.
    Stream(StreamBody, Gone),
}

impl Answer {
    /// A body that streams.
    pub(crate) fn stream(body: StreamBody, gone: Gone, phase: Arc<Phase>) -> Self {
        Self { data: Data::Stream(body, gone), phase, keep: None, progress: None }
    }

    /// Tells `progress` when pieces are handed over and asked for.
    pub(crate) fn reporting(mut self, progress: Arc<Progress>) -> Self {
        self.progress = Some(progress);
        self
    }

    /// Lets `what` live as long as the answer.
    pub(crate) fn keeping(mut self, what: impl Any + Send) -> Self {
        self.keep = Some(Box::new(what));
        self
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if let Some(progress) = &this.progress {
            progress.asked();
        }
        let frame = this.next(cx);
        if let (Some(progress), Poll::Ready(Some(Ok(_)))) = (&this.progress, &frame) {
            progress.given();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.data {
            Data::Whole(data) => data.is_none(),
            Data::Stream(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.data {
            Data::Whole(data) => SizeHint::with_exact(data.as_ref().map_or(0, |d| d.len() as u64)),
            Data::Stream(body, _) => body.size_hint(),
        }
    }
}

type Next = Poll<Option<Result<Frame<Bytes>, Box<dyn std::error::Error + Send + Sync>>>>;

impl Answer {
    fn next(&mut self, cx: &mut Context<'_>) -> Next {
        match &mut self.data {
            Data::Whole(data) => Poll::Ready(data.take().map(|data| Ok(Frame::data(data)))),
            Data::Stream(body, gone) => {
                let frame = Pin::new(body).poll_frame(cx);
                if frame.is_pending() && gone.poll(cx).is_ready() {
                    return Poll::Ready(Some(Err("the client has gone away".into())));
                }
                frame
            }
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.keep = None;
        self.phase.idle();
    }
}

/// The service's answer as the HTTP library wants it.
pub(crate) fn response(answer: HttpResponse, phase: Arc<Phase>, close: bool) -> Response<Answer> {
    let status = StatusCode::from_u16(answer.status).ok().filter(|s| s.as_u16() >= 200);
    let mut headers = Vec::with_capacity(answer.headers.len());
    for (name, value) in answer.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::try_from(value)) {
            headers.push((name, value));
        } else {
            tracing::error!(header = name, "an answer's header is malformed and was left out");
        }
    }
    let Some(status) = status else {
        tracing::error!(status = answer.status, "an answer's status is not one");
        return response(internal(), phase, close);
    };
    let data = Data::Whole(Some(answer.body).filter(|b| !b.is_empty()));
    let mut out = Response::new(Answer { data, phase, keep: None, progress: None });
    *out.status_mut() = status;
    out.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    for (name, value) in headers {
        out.headers_mut().append(name, value);
    }
    if close {
        out.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    out
}

/// An error in the envelope that SCF's clients read. `code` and `message` are ours and need no escaping.
pub(crate) fn error(status: u16, code: &str, message: &str) -> HttpResponse {
    debug_assert!(!message.contains(['"', '\\']));
    let mut random = [0u8; 16];
    // Without randomness the id is useless, the answer is not.
    let _ = getrandom::fill(&mut random);
    let id = RequestId::from_random(random);
    HttpResponse {
        status,
        ..HttpResponse::json(format!(
            r#"{{"Response":{{"Error":{{"Code":"{code}","Message":"{message}"}},"RequestId":"{id}"}}}}"#
        ))
    }
}

/// The service broke.
pub(crate) fn internal() -> HttpResponse {
    error(200, "InternalError", "An internal error occurred. Try again; the server's log says more.")
}
