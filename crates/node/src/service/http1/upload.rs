//! A request on its way out: its head, and its body as it comes.

use super::head::{self, Asked, Framing};
use crate::service::{BodyError, StreamBody};
use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// Why a request was not sent to its end.
pub(super) enum Stopped {
    /// The server's connection takes no more. The server may have answered all the same.
    Write(io::Error),
    /// The body broke off, or is not what its head says.
    Body(BodyError),
}

/// A request that is being sent.
pub(super) struct Upload {
    /// What goes out next: `lead`, of which `led` bytes are gone, then `data`, then `tail`.
    lead: Vec<u8>,
    led: usize,
    data: Bytes,
    tail: &'static [u8],
    framing: Framing,
    /// `None` once all of it has been taken.
    body: Option<StreamBody>,
    /// True once a byte has left.
    begun: bool,
}

impl Upload {
    /// `buffer` is used for heads, and comes back with [`Self::into_buffer`].
    pub(super) fn new(asked: &Asked<'_>, body: StreamBody, mut buffer: Vec<u8>) -> Self {
        let ended = body.is_end_stream();
        let framing = Framing::of(asked.headers, ended, body.size_hint().exact());
        buffer.clear();
        head::write(asked, &framing, &mut buffer);
        Self {
            lead: buffer,
            led: 0,
            data: Bytes::new(),
            tail: b"",
            framing,
            body: Some(body).filter(|_| !ended),
            begun: false,
        }
    }

    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.lead
    }

    /// The whole body, when none of the request has left.
    pub(super) fn untouched(self) -> Option<StreamBody> {
        let rest = match self.body {
            _ if self.begun => return None,
            // What came at its end is not kept.
            None if matches!(self.framing, Framing::Chunked { .. }) && self.tail.is_empty() => return None,
            None => crate::service::nothing(),
            Some(body) => body,
        };
        Some(if self.data.is_empty() { rest } else { Restored { first: self.data, rest }.boxed_unsync() })
    }

    fn is_flushed(&self) -> bool {
        self.led == self.lead.len() && self.data.is_empty() && self.tail.is_empty()
    }

    /// Sends as much as there is and goes. Ready when all is gone.
    pub(super) fn poll<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Stopped>> {
        loop {
            // What is there already leaves together with the head.
            let waits = self.data.is_empty() && self.tail.is_empty() && self.fill(cx)?.is_pending();
            if self.is_flushed() {
                match (&self.body, waits) {
                    (None, _) => return Poll::Ready(Ok(())),
                    (Some(_), true) => return Poll::Pending,
                    (Some(_), false) => continue,
                }
            }
            let (lead, stream) = (&self.lead[self.led..], Pin::new(&mut *stream));
            let written = if self.data.is_empty() && self.tail.is_empty() {
                stream.poll_write(cx, lead)
            } else {
                stream.poll_write_vectored(cx, &[IoSlice::new(lead), IoSlice::new(&self.data), IoSlice::new(self.tail)])
            };
            let n = ready!(written).map_err(Stopped::Write)?;
            if n == 0 {
                return Poll::Ready(Err(Stopped::Write(io::ErrorKind::WriteZero.into())));
            }
            self.begun = true;
            self.sent(n);
        }
    }

    fn sent(&mut self, mut n: usize) {
        let led = n.min(self.lead.len() - self.led);
        self.led += led;
        n -= led;
        let data = n.min(self.data.len());
        self.data.advance(data);
        self.tail = &self.tail[n - data..];
    }

    /// Takes the next piece of the body. Pending: there is none yet.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx)).transpose().map_err(Stopped::Body)?;
        let last = frame.is_none() || body.is_end_stream();
        if self.led == self.lead.len() {
            self.lead.clear();
            self.led = 0;
        }
        match frame.map(Frame::into_data) {
            Some(Ok(data)) => self.piece(data)?,
            Some(Err(frame)) => {
                if let (Framing::Chunked { trailers }, Ok(fields)) = (&self.framing, frame.into_trailers()) {
                    self.lead.extend_from_slice(b"0\r\n");
                    write_trailers(trailers, &fields, &mut self.lead);
                    self.lead.extend_from_slice(b"\r\n");
                    self.body = None;
                    return Poll::Ready(Ok(()));
                }
            }
            None => {}
        }
        if last {
            self.body = None;
            match self.framing {
                Framing::Chunked { .. } if self.tail.is_empty() => self.tail = b"0\r\n\r\n",
                Framing::Chunked { .. } => self.tail = b"\r\n0\r\n\r\n",
                Framing::Length(0) | Framing::Nothing { .. } => {}
                Framing::Length(_) => {
                    return Poll::Ready(Err(Stopped::Body("the body is shorter than its head says".into())));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn piece(&mut self, data: Bytes) -> Result<(), Stopped> {
        if data.is_empty() {
            return Ok(());
        }
        match &mut self.framing {
            Framing::Chunked { .. } => {
                // Writing to a vector does not fail.
                let _ = write!(self.lead, "{:x}\r\n", data.len());
                self.tail = b"\r\n";
            }
            Framing::Length(left) => {
                let more = || Stopped::Body("the body is longer than its head says".into());
                *left = left.checked_sub(data.len() as u64).ok_or_else(more)?;
            }
            Framing::Nothing { .. } => return Err(Stopped::Body("a body that had ended goes on".into())),
        }
        self.data = data;
        Ok(())
    }
}

/// Those that the head has announced.
fn write_trailers(announced: &[http::HeaderName], fields: &HeaderMap, out: &mut Vec<u8>) {
    for (name, value) in fields.iter().filter(|(name, _)| announced.contains(name)) {
        head::field(out, name, value);
    }
}

/// A body of which a piece had been taken.
struct Restored {
    first: Bytes,
    rest: StreamBody,
}

impl Body for Restored {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.rest).poll_frame(cx);
        }
        Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.first)))))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.len() as u64;
        match self.rest.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(first + rest),
            None => SizeHint::default(),
        }
    }
}
