//! What is written down of one request, and when.

use super::http1::Reading;
use super::resident::{Resident, Slot};
use super::{AsEvent, Begun, BodyError, Ended, StreamBody};
use crate::Inner;
use crate::error::Refusal;
use crate::pool::Pool;
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use mayfly_model::{ColdStart, InvocationRecord, Lineage, RequestId, Status};
use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// The account of one request. It is closed when it is dropped: a request that nobody follows any more is a canceled one, unless
/// something else was said before.
pub(super) struct Account {
    inner: Arc<Inner>,
    pool: Arc<Pool>,
    request_id: RequestId,
    lineage: Lineage,
    qualifier: String,
    arrived: Begun,
    /// When an instance had the request.
    begun: Option<Instant>,
    status: Status,
    summary: String,
    bytes: u64,
    cold_start: Option<ColdStart>,
    slot: Option<Slot>,
    /// What the function answered.
    answer: Option<StatusCode>,
    event: Option<AsEvent>,
    ended: Option<Ended>,
    _keep: Box<dyn Any + Send>,
}

impl Account {
    pub(super) fn open(
        inner: &Arc<Inner>,
        pool: &Arc<Pool>,
        (request_id, lineage): (RequestId, Lineage),
        qualifier: String,
        keep: Box<dyn Any + Send>,
    ) -> Self {
        Self {
            inner: Arc::clone(inner),
            pool: Arc::clone(pool),
            request_id,
            lineage,
            qualifier,
            arrived: Begun::now(),
            begun: None,
            status: Status::CANCELED,
            summary: String::new(),
            bytes: 0,
            cold_start: None,
            slot: None,
            answer: None,
            event: None,
            ended: None,
            _keep: keep,
        }
    }

    /// What its record says beside that, and who hears of it.
    pub(super) fn told(mut self, event: Option<AsEvent>, ended: Option<Ended>) -> Self {
        (self.event, self.ended) = (event, ended);
        self
    }

    pub(super) fn request_id(&self) -> RequestId {
        self.request_id
    }

    /// The lineage of what the request calls.
    pub(super) fn calls(&self) -> Lineage {
        self.lineage.child(self.request_id)
    }

    /// The request has a slot, and keeps it to its end or to the next attempt.
    pub(super) fn board(&mut self, slot: Slot) -> Arc<Resident> {
        self.begun = Some(Instant::now());
        let resident = Arc::clone(slot.resident());
        if let Some(caller) = resident.caller() {
            caller.begin(self.request_id, self.lineage);
        }
        self.cold_start = self.cold_start.or_else(|| resident.take_cold_start());
        self.slot = Some(slot);
        resident
    }

    /// Gives the slot up. The attempt failed for this reason.
    pub(super) fn leave(&mut self, why: &str) -> Refusal {
        self.no_more_calls();
        match self.slot.take() {
            Some(slot) => slot.explain(why),
            None => Refusal::internal(&"a request that has no slot was sent"),
        }
    }

    /// The instance no longer works for this request.
    fn no_more_calls(&self) {
        if let Some(caller) = self.slot.as_ref().and_then(|slot| slot.resident().caller()) {
            caller.end(self.request_id);
        }
    }

    /// The head of the response is here.
    pub(super) fn answered<B>(&mut self, response: &Response<B>, method: &Method, path: &str) {
        const PATH_SHOWN: usize = 512;
        if let Some(slot) = &mut self.slot {
            slot.stream();
        }
        let cut = path.char_indices().nth(PATH_SHOWN).map_or(path.len(), |(i, _)| i);
        self.answer = Some(response.status());
        self.summary = format!("{} {method} {}", response.status().as_u16(), &path[..cut]);
    }

    /// The request ends without an answer of the function's own.
    pub(super) fn refuse(mut self, refusal: &Refusal) {
        self.status = refusal.status;
        self.summary = String::from_utf8_lossy(&refusal.to_json(self.request_id)).into_owned();
    }

    /// All went well to the end.
    pub(super) fn complete(&mut self) {
        let failed = self.event.is_some() && self.answer.is_some_and(|status| status.is_server_error());
        self.status = if failed { Status::USER_EXCEPTION } else { Status::OK };
    }

    /// Says how it ended.
    pub(super) fn end_as(&mut self, status: Status) {
        self.status = status;
    }

    /// Bytes that went to the visitor.
    pub(super) fn count(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// Closes the account with the end of `body`.
    pub(super) fn follow(self, body: Reading) -> StreamBody {
        Followed { body, account: self, ended: false, error: None }.boxed_unsync()
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.no_more_calls();
        let spec = &self.pool.spec;
        let now = Instant::now();
        let begun = self.begun.unwrap_or(now);
        let (output, output_cut) = match &self.slot {
            Some(slot) => slot.resident().take_printed(),
            None => (String::new(), 0),
        };
        let memory_bytes = self.slot.as_ref().map_or(0, |slot| slot.resident().memory_peak_bytes());
        let event = self.event.take();
        let record = InvocationRecord {
            request_id: self.request_id,
            namespace: spec.namespace.to_string(),
            function: spec.function.to_string(),
            version: spec.key.version.clone(),
            qualifier: std::mem::take(&mut self.qualifier),
            start_ms: self.arrived.start_ms,
            duration_us: now.duration_since(begun).as_micros() as u64,
            wait_us: begun.duration_since(self.arrived.at).as_micros() as u64,
            status: self.status,
            ret_msg: if self.bytes > 0 {
                format!("{} ({} bytes)", self.summary, self.bytes)
            } else {
                std::mem::take(&mut self.summary)
            },
            memory_mb: spec.config.memory_mb,
            memory_bytes,
            cold_start: self.cold_start,
            retry: event.as_ref().map_or(0, |event| event.retry),
            origin: event.as_ref().and_then(|event| event.origin),
            event: event.map(|event| event.mark),
            lineage: self.lineage,
            output,
            output_cut_bytes: output_cut,
        };
        if let Some(ended) = self.ended.take() {
            ended(&record, self.answer);
        }
        self.inner.sink.record(record);
    }
}

/// A body with the account of its request.
struct Followed {
    body: Reading,
    account: Account,
    ended: bool,
    /// An error that is about to be passed on.
    error: Option<BodyError>,
}

impl Body for Followed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(error) = this.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if this.ended {
            return Poll::Ready(None);
        }
        let frame = match std::task::ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            Some(Err(error)) => {
                // The library ends the visitor's connection at once, with all that has not left yet, the response's head included. A
                // moment's pause lets it leave.
                this.ended = true;
                this.account.end_as(Status::PROCESS_EXIT);
                this.error = Some(error);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            frame => frame,
        };
        match &frame {
            Some(Ok(frame)) => {
                this.account.count(frame.data_ref().map_or(0, Bytes::len));
                // The HTTP library does not ask again after the last frame when it knows that it is the last.
                if this.body.is_end_stream() {
                    this.account.complete();
                }
            }
            Some(Err(_)) => unreachable!("errors were passed on above"),
            None => {
                this.ended = true;
                this.account.complete();
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.error.is_none() && (self.ended || self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        // A body that is empty from the start is never asked for a frame; a HEAD request's is not either.
        if self.account.status == Status::CANCELED
            && (self.body.is_end_stream() || self.body.size_hint().exact() == Some(0))
        {
            self.account.complete();
        }
    }
}
