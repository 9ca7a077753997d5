//! Answers on their way out, and the answers that the listener itself gives.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use hyper::body::{Body, Frame, SizeHint};
use mayfly_model::RequestId;

use crate::guard::Phase;
use crate::service::HttpResponse;

/// A whole body in one piece. When it is gone, the connection is waiting for its next request.
pub(crate) struct Answer {
    data: Option<Bytes>,
    phase: Arc<Phase>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.get_mut().data.take().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, |d| d.len() as u64))
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
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
    let data = Some(answer.body).filter(|b| !b.is_empty());
    let mut out = Response::new(Answer { data, phase });
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
