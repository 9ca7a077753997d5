//! Bodies on their way in: hashed and written as they come, in constant memory.

use crate::ObjectError;
use crate::entry::Sums;
use crate::error::io;
use crate::files::{Files, Fresh};
use crate::limits::Limits;
use bytes::{Bytes, BytesMut};
use md5::{Digest as _, Md5};
use s3s::StdError;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Sha1, Sha256 as Sum256};
use sha2::Sha256;
use std::future::poll_fn;
use std::io::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

/// What is hashed and written at a time. One such block is written while the next arrives.
const BLOCK_BYTES: usize = 1 << 20;
/// Where a body's length is not known, disk space is set aside in steps of this many bytes.
const STEP_BYTES: u64 = 16 << 20;

/// A body.
pub(crate) type Incoming = Pin<Box<dyn futures_core::Stream<Item = Result<Bytes, StdError>> + Send>>;

/// Which checksums are wanted beside MD5 and SHA-256.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) crc32: bool,
    pub(crate) crc32c: bool,
    pub(crate) crc64nvme: bool,
    pub(crate) sha1: bool,
    pub(crate) sha256: bool,
}

/// A body that has arrived.
pub(crate) struct Received {
    pub(crate) data: Data,
    pub(crate) size: u64,
    pub(crate) md5: [u8; 16],
    pub(crate) sha256: [u8; 32],
    pub(crate) sums: Sums,
}

/// Where it is.
pub(crate) enum Data {
    Inline(Bytes),
    File(Fresh),
}

struct Hashes {
    md5: Md5,
    sha256: Sha256,
    sums: ChecksumHasher,
}

impl Hashes {
    fn new(wanted: Wanted) -> Self {
        let sums = ChecksumHasher {
            crc32: wanted.crc32.then(Crc32::new),
            crc32c: wanted.crc32c.then(Crc32c::new),
            crc64nvme: wanted.crc64nvme.then(Crc64Nvme::new),
            sha1: wanted.sha1.then(Sha1::new),
            sha256: wanted.sha256.then(Sum256::new),
        };
        Self { md5: Md5::new(), sha256: Sha256::new(), sums }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.md5.update(bytes);
        self.sha256.update(bytes);
        self.sums.update(bytes);
    }

    fn finish(self, data: Data, size: u64) -> Received {
        let sums = self.sums.finalize();
        Received {
            data,
            size,
            md5: self.md5.finalize().into(),
            sha256: self.sha256.finalize().into(),
            sums: Sums {
                crc32: sums.checksum_crc32,
                crc32c: sums.checksum_crc32c,
                crc64nvme: sums.checksum_crc64nvme,
                sha1: sums.checksum_sha1,
                sha256: sums.checksum_sha256,
            },
        }
    }
}

/// What goes to a blocking thread and comes back.
struct Writing {
    fresh: Fresh,
    hashes: Hashes,
}

impl Writing {
    fn write(mut self, block: &[u8]) -> Result<Self, ObjectError> {
        self.hashes.update(block);
        self.fresh.file()?.write_all(block).map_err(io("write an object's file"))?;
        Ok(self)
    }
}

/// Where a body goes, and what may be of it.
pub(crate) struct Intake<'a> {
    pub(crate) files: &'a Arc<Files>,
    pub(crate) limits: &'a Limits,
    /// Its length as stated.
    pub(crate) stated: Option<u64>,
    pub(crate) wanted: Wanted,
    /// Whether it may be kept in the database when it is small.
    pub(crate) inline: bool,
}

impl Intake<'_> {
    /// Takes a body in; what is in a file is durable when this returns. Dropped before, nothing is left of it.
    pub(crate) async fn receive(&self, mut body: Option<Incoming>) -> Result<Received, ObjectError> {
        if self.stated.is_some_and(|n| n > self.limits.put_bytes_max) {
            return Err(ObjectError::TooLarge);
        }
        let mut room = self.files.reserve();
        room.grow_to(self.stated.unwrap_or(0))?;
        let mut pace = Pace::new(self.limits);
        let (mut size, mut block) = (0u64, BytesMut::new());
        let mut hashes = Some(Hashes::new(self.wanted));
        let mut writing: Option<JoinHandle<Result<Writing, ObjectError>>> = None;
        if let Some(body) = &mut body {
            while let Some(piece) = pace.next(body).await? {
                size += piece.len() as u64;
                if size > self.limits.put_bytes_max {
                    return Err(ObjectError::TooLarge);
                }
                if self.stated.is_none() {
                    room.grow_to(size.next_multiple_of(STEP_BYTES))?;
                }
                self.files.written().fetch_add(piece.len() as u64, Ordering::Relaxed);
                block.extend_from_slice(&piece);
                if block.len() >= BLOCK_BYTES {
                    let full =
                        std::mem::replace(&mut block, BytesMut::with_capacity(BLOCK_BYTES + (64 << 10))).freeze();
                    writing = Some(self.hand_over(writing, &mut hashes, full).await?);
                }
            }
        }
        if self.stated.is_some_and(|n| n != size) {
            return Err(ObjectError::IncompleteBody);
        }
        if writing.is_none() && self.inline && block.len() <= self.limits.inline_bytes_max {
            let mut hashes = hashes.take().ok_or(ObjectError::Internal)?;
            hashes.update(&block);
            return Ok(hashes.finish(Data::Inline(block.freeze()), size));
        }
        let last = self.hand_over(writing, &mut hashes, block.freeze()).await?;
        let done = finished(last).await?;
        let sealed = tokio::task::spawn_blocking(move || {
            let Writing { mut fresh, hashes } = done;
            fresh.seal()?;
            Ok(hashes.finish(Data::File(fresh), size))
        });
        sealed.await.map_err(|_| ObjectError::Internal)?
    }

    /// Waits until the block before is written, then has this one written.
    async fn hand_over(
        &self,
        before: Option<JoinHandle<Result<Writing, ObjectError>>>,
        hashes: &mut Option<Hashes>,
        block: Bytes,
    ) -> Result<JoinHandle<Result<Writing, ObjectError>>, ObjectError> {
        let before = match before {
            Some(before) => Some(finished(before).await?),
            None => None,
        };
        let (files, hashes) = (Arc::clone(self.files), hashes.take());
        Ok(tokio::task::spawn_blocking(move || {
            let writing = match (before, hashes) {
                (Some(before), _) => before,
                (None, Some(hashes)) => Writing { fresh: files.create()?, hashes },
                (None, None) => return Err(ObjectError::Internal),
            };
            writing.write(&block)
        }))
    }
}

async fn finished(writing: JoinHandle<Result<Writing, ObjectError>>) -> Result<Writing, ObjectError> {
    writing.await.map_err(|_| ObjectError::Internal)?
}

/// Holds a body to a least pace, so that a place is not taken for ever by one that drips.
struct Pace<'a> {
    limits: &'a Limits,
    until: Instant,
    bytes: u64,
}

impl<'a> Pace<'a> {
    fn new(limits: &'a Limits) -> Self {
        Self { limits, until: Instant::now() + limits.body_window, bytes: 0 }
    }

    async fn next(&mut self, body: &mut Incoming) -> Result<Option<Bytes>, ObjectError> {
        loop {
            match timeout_at(self.until, poll_fn(|cx| body.as_mut().poll_next(cx))).await {
                Ok(Some(Ok(piece))) => {
                    self.bytes += piece.len() as u64;
                    return Ok(Some(piece));
                }
                Ok(Some(Err(error))) => return Err(broken(&error)),
                Ok(None) => return Ok(None),
                Err(_) if self.bytes < self.limits.body_window_bytes_min => return Err(ObjectError::SlowBody),
                Err(_) => (self.until, self.bytes) = (Instant::now() + self.limits.body_window, 0),
            }
        }
    }
}

/// Why a body's stream broke off. The stream verifies what the signature says of the body.
fn broken(error: &StdError) -> ObjectError {
    let text = error.to_string();
    tracing::debug!(error = text, "a body broke off");
    match text {
        text if text.contains("Sha256Mismatch") => ObjectError::BadChecksum("x-amz-content-sha256"),
        text if text.contains("SignatureMismatch") => ObjectError::BadChunkSignature,
        _ => ObjectError::IncompleteBody,
    }
}
