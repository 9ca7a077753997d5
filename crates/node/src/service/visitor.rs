//! Bodies on their way from a visitor: whose fault it is when one breaks off.

use super::{BodyError, StreamBody};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

/// A body that says in `broken` when its visitor breaks it off: the server sees its connection end, and cannot be blamed.
pub(super) fn watched(body: StreamBody, broken: &Arc<AtomicBool>) -> StreamBody {
    Watched { body, broken: Arc::clone(broken) }.boxed_unsync()
}

struct Watched {
    body: StreamBody,
    broken: Arc<AtomicBool>,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Err(_))) = &frame {
            self.broken.store(true, Ordering::Release);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
