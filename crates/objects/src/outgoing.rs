//! Objects on their way out. What the page cache has is read where the connection is served; a blocking thread is asked only for what must come
//! from the disk.

use crate::entry::{Content, Slice};
use crate::files::{Looking, Pinned};
use bytes::Bytes;
use parking_lot::Mutex;
use rustix::io::{Errno, ReadWriteFlags};
use s3s::StdError;
use s3s::stream::{ByteStream, RemainingLength};
use std::collections::VecDeque;
use std::fs::File;
use std::future::Future;
use std::io::IoSliceMut;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use tokio::task::JoinHandle;

/// What is read at a time, in bytes.
const CHUNK_BYTES: usize = 256 << 10;
/// Buffers kept for the next reads.
const SPARE_BUFFERS: usize = 64;

static SPARE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// A buffer that is used again: fresh memory would have to be zeroed by the system and by us.
struct Buffer {
    bytes: Vec<u8>,
    len: usize,
}

impl Buffer {
    fn take() -> Self {
        let bytes = SPARE.lock().pop().unwrap_or_else(|| vec![0; CHUNK_BYTES]);
        Self { bytes, len: 0 }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut spare = SPARE.lock();
        if spare.len() < SPARE_BUFFERS {
            spare.push(std::mem::take(&mut self.bytes));
        }
    }
}

/// The bytes of an object, or a range of them.
pub(crate) struct Outgoing {
    pinned: Option<Pinned>,
    inline: Option<Bytes>,
    slices: VecDeque<Slice>,
    open: Option<(i64, Arc<File>)>,
    reading: Option<JoinHandle<std::io::Result<Buffer>>>,
    left: u64,
    sent: Arc<AtomicU64>,
}

impl Outgoing {
    /// `range` of `content`, of which `sent` counts the bytes. The look-up that found it ends here.
    pub(crate) fn new(content: Content, range: Range<u64>, looking: Looking, sent: Arc<AtomicU64>) -> Self {
        let left = range.end.saturating_sub(range.start);
        match content {
            Content::Inline(bytes) => {
                let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(bytes.len());
                let inline = Some(bytes.slice(at(range.start)..at(range.end))).filter(|b| !b.is_empty());
                Self { pinned: None, inline, slices: VecDeque::new(), open: None, reading: None, left, sent }
            }
            Content::Files(slices) => {
                let slices = cut(&slices, range);
                let pinned = Some(looking.pin(&slices));
                Self { pinned, inline: None, slices: slices.into(), open: None, reading: None, left, sent }
            }
        }
    }

    fn passed(&mut self, buffer: Buffer) -> Result<Bytes, StdError> {
        let read = buffer.len as u64;
        if read == 0 {
            tracing::error!(file = ?self.slices.front(), "an object's file is shorter than it was");
            return Err("the object is damaged".into());
        }
        if let Some(front) = self.slices.front_mut() {
            front.1 += read;
            front.2 -= read;
            if front.2 == 0 {
                self.slices.pop_front();
            }
        }
        Ok(self.counted(Bytes::from_owner(buffer)))
    }

    fn counted(&mut self, bytes: Bytes) -> Bytes {
        self.left = self.left.saturating_sub(bytes.len() as u64);
        self.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        bytes
    }

    fn file(&mut self, id: i64) -> Result<Arc<File>, StdError> {
        if let Some((open, file)) = &self.open
            && *open == id
        {
            return Ok(Arc::clone(file));
        }
        let files = self.pinned.as_ref().ok_or("nothing is pinned")?.files();
        let file = Arc::new(files.read(id)?);
        self.open = Some((id, Arc::clone(&file)));
        Ok(file)
    }
}

/// The stretch `range` of what `slices` are together.
pub(crate) fn cut(slices: &[Slice], range: Range<u64>) -> Vec<Slice> {
    let mut at = 0;
    let mut out = Vec::new();
    for Slice(id, offset, len) in slices {
        let (from, to) = (range.start.max(at), range.end.min(at + len));
        if from < to {
            out.push(Slice(*id, offset + (from - at), to - from));
        }
        at += len;
    }
    out
}

/// The MD5 of what `slices` are together. Blocks.
pub(crate) fn md5_of(slices: &[Slice], pinned: &Pinned) -> std::io::Result<[u8; 16]> {
    use md5::{Digest as _, Md5};
    let mut md5 = Md5::new();
    for Slice(id, offset, len) in slices {
        let file = pinned.files().read(*id).map_err(std::io::Error::other)?;
        let mut done = 0;
        while done < *len {
            let want = usize::try_from(len - done).unwrap_or(usize::MAX).min(CHUNK_BYTES);
            let buffer = read_from_disk(&file, offset + done, want)?;
            if buffer.len == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            md5.update(buffer.as_ref());
            done += buffer.len as u64;
        }
    }
    Ok(md5.finalize().into())
}

/// Reads what is in memory already. `None`: it must come from the disk.
fn read_now(file: &File, offset: u64, want: usize) -> Option<Buffer> {
    let mut buffer = Buffer::take();
    let part = &mut [IoSliceMut::new(&mut buffer.bytes[..want])];
    match rustix::io::preadv2(file, part, offset, ReadWriteFlags::NOWAIT) {
        Ok(len) => {
            buffer.len = len;
            // Nothing at all may be the end of a file that was cut: the other way of reading says so for certain.
            Some(buffer).filter(|b| b.len > 0)
        }
        Err(Errno::INTR | Errno::AGAIN | Errno::OPNOTSUPP) | Err(_) => None,
    }
}

fn read_from_disk(file: &File, offset: u64, want: usize) -> std::io::Result<Buffer> {
    let mut buffer = Buffer::take();
    while buffer.len < want {
        match file.read_at(&mut buffer.bytes[buffer.len..want], offset + buffer.len as u64) {
            Ok(0) => break,
            Ok(len) => buffer.len += len,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(buffer)
}

impl futures_core::Stream for Outgoing {
    type Item = Result<Bytes, StdError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(bytes) = this.inline.take() {
            return Poll::Ready(Some(Ok(this.counted(bytes))));
        }
        loop {
            if let Some(reading) = &mut this.reading {
                let Poll::Ready(done) = Pin::new(reading).poll(cx) else { return Poll::Pending };
                this.reading = None;
                let buffer = done.map_err(StdError::from).and_then(|read| read.map_err(StdError::from));
                return Poll::Ready(Some(buffer.and_then(|buffer| this.passed(buffer))));
            }
            let Some(Slice(id, offset, len)) = this.slices.front().copied() else { return Poll::Ready(None) };
            let file = match this.file(id) {
                Ok(file) => file,
                Err(error) => return Poll::Ready(Some(Err(error))),
            };
            let want = usize::try_from(len).unwrap_or(usize::MAX).min(CHUNK_BYTES);
            if let Some(buffer) = read_now(&file, offset, want) {
                return Poll::Ready(Some(this.passed(buffer)));
            }
            this.reading = Some(tokio::task::spawn_blocking(move || read_from_disk(&file, offset, want)));
        }
    }
}

impl ByteStream for Outgoing {
    fn remaining_length(&self) -> RemainingLength {
        RemainingLength::new_exact(usize::try_from(self.left).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_out_of_slices() {
        let slices = [Slice(1, 0, 10), Slice(2, 5, 10), Slice(3, 0, 10)];
        assert_eq!(cut(&slices, 0..30), slices);
        assert_eq!(cut(&slices, 10..20), [Slice(2, 5, 10)]);
        assert_eq!(cut(&slices, 9..21), [Slice(1, 9, 1), Slice(2, 5, 10), Slice(3, 0, 1)]);
        assert_eq!(cut(&slices, 12..13), [Slice(2, 7, 1)]);
        assert_eq!(cut(&slices, 30..30), []);
    }
}
