//! Reading a whole body within time, size and memory.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

use crate::limits::GatewayLimits;

/// Bodies up to this size are not counted: the number of connections bounds them.
const UNCOUNTED_BYTES: usize = 16 * 1024;
/// Memory is taken in steps of this many bytes.
const STEP_BYTES: usize = 256 * 1024;
/// A permit of the memory semaphore stands for this many bytes.
pub(crate) const PERMIT_BYTES: usize = 1024;
/// A body of a stated length up to this gets its buffer at once.
const AT_ONCE_BYTES: usize = 8 * 1024 * 1024;
/// How much of a body that is too large is read and thrown away, so that the client gets to see the answer: most
/// clients send all before they read.
const DISCARD_BYTES: usize = 64 * 1024 * 1024;
/// How long that may take.
const DISCARD_TIME: Duration = Duration::from_secs(10);

/// Why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// Larger than the limit.
    TooLarge,
    /// Too slow.
    Slow,
    /// No memory for it came free in time.
    NoMemory,
    /// It ended before its stated length, or its chunks are malformed.
    Broken,
}

/// Memory set aside for bodies in flight: of one listener, and of several together.
pub(crate) struct Memory {
    own: Arc<Semaphore>,
    all: Option<Arc<Semaphore>>,
}

impl Memory {
    /// So many bytes, which also count against `all` if there is such.
    pub(crate) fn new(bytes: usize, all: Option<Arc<Semaphore>>) -> Self {
        Self { own: permits(bytes), all }
    }

    async fn take(&self, permits: u32) -> Option<Held> {
        let own = take(&self.own, permits).await?;
        let all = match &self.all {
            Some(all) => Some(take(all, permits).await?),
            None => None,
        };
        Some(Held { own, all })
    }
}

/// Permits for so many bytes.
pub(crate) fn permits(bytes: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new((bytes / PERMIT_BYTES).clamp(1, Semaphore::MAX_PERMITS)))
}

async fn take(memory: &Arc<Semaphore>, permits: u32) -> Option<OwnedSemaphorePermit> {
    match memory.clone().try_acquire_many_owned(permits) {
        Ok(taken) => Some(taken),
        Err(_) => memory.clone().acquire_many_owned(permits).await.ok(),
    }
}

/// Memory that is taken, until this is dropped.
pub(crate) struct Held {
    own: OwnedSemaphorePermit,
    all: Option<OwnedSemaphorePermit>,
}

impl Held {
    fn merge(&mut self, more: Self) {
        self.own.merge(more.own);
        if let (Some(held), Some(more)) = (&mut self.all, more.all) {
            held.merge(more);
        }
    }
}

/// A body, and the memory it holds until dropped.
pub(crate) struct Collected {
    pub(crate) bytes: Bytes,
    pub(crate) _memory: Option<Held>,
}

/// Reads the whole body. A body that arrives in one piece is passed on as it is; others are copied once.
///
/// `waits_for_go` is set when the client waits for `100 Continue` before it sends.
pub(crate) async fn collect(
    mut body: Incoming,
    limits: &GatewayLimits,
    memory: &Memory,
    waits_for_go: bool,
) -> Result<Collected, BodyError> {
    if body.is_end_stream() {
        return Ok(Collected { bytes: Bytes::new(), _memory: None });
    }
    let stated = body.size_hint().exact().map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    if stated.is_some_and(|n| n > limits.body_bytes_max) {
        if !waits_for_go {
            discard(&mut body).await;
        }
        return Err(BodyError::TooLarge);
    }
    let (mut patience, timer) = Patience::new(limits);
    let mut timer = std::pin::pin!(timer);
    let mut store = Store { stated, limits, memory, held: None, first: None, rest: Vec::new() };
    while let Some(piece) = patience.next(timer.as_mut(), &mut body).await? {
        if store.len() + piece.len() > limits.body_bytes_max {
            discard(&mut body).await;
            return Err(BodyError::TooLarge);
        }
        store.push(piece).await?;
    }
    Ok(store.finish())
}

async fn discard(body: &mut Incoming) {
    let all = async {
        let mut left = DISCARD_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                break;
            }
        }
    };
    // Whether all was read or not, the answer is the same.
    let _ = tokio::time::timeout(DISCARD_TIME, all).await;
}

/// Watches that a body makes progress. The timer is a value of its own because it must be pinned.
struct Patience {
    window: Duration,
    bytes_min: usize,
    bytes: usize,
    end: Instant,
}

impl Patience {
    fn new(limits: &GatewayLimits) -> (Self, Sleep) {
        let now = Instant::now();
        let end = now + limits.body_time;
        let timer = tokio::time::sleep_until(end.min(now + limits.body_window));
        (Self { window: limits.body_window, bytes_min: limits.body_window_bytes_min, bytes: 0, end }, timer)
    }

    /// The next piece of data; `None` at the end of the body.
    async fn next(&mut self, mut timer: Pin<&mut Sleep>, body: &mut Incoming) -> Result<Option<Bytes>, BodyError> {
        loop {
            tokio::select! {
                // The timer is looked at only when nothing has arrived, so quick bodies never arm it.
                biased;
                frame = body.frame() => match frame {
                    None => return Ok(None),
                    Some(Err(_)) => return Err(BodyError::Broken),
                    Some(Ok(frame)) => {
                        // Trailers carry nothing for us.
                        if let Ok(data) = frame.into_data() {
                            self.bytes += data.len();
                            return Ok(Some(data));
                        }
                    }
                },
                () = timer.as_mut() => {
                    let now = Instant::now();
                    if self.bytes < self.bytes_min || now >= self.end {
                        return Err(BodyError::Slow);
                    }
                    self.bytes = 0;
                    timer.as_mut().reset(self.end.min(now + self.window));
                }
            }
        }
    }
}

/// The pieces so far.
struct Store<'a> {
    stated: Option<usize>,
    limits: &'a GatewayLimits,
    memory: &'a Memory,
    held: Option<Held>,
    first: Option<Bytes>,
    rest: Vec<u8>,
}

impl Store<'_> {
    fn len(&self) -> usize {
        self.first.as_ref().map_or(self.rest.len(), Bytes::len)
    }

    async fn push(&mut self, piece: Bytes) -> Result<(), BodyError> {
        let len = self.len() + piece.len();
        if len > UNCOUNTED_BYTES {
            self.hold(len).await?;
        }
        if self.len() == 0 {
            self.first = Some(piece);
            return Ok(());
        }
        if let Some(first) = self.first.take() {
            self.rest = Vec::with_capacity(self.stated.map_or(len, |n| n.min(AT_ONCE_BYTES)).max(len));
            self.rest.extend_from_slice(&first);
        }
        if self.rest.capacity() < len {
            // Doubling, but not beyond what can still come.
            let most = self.stated.unwrap_or(self.limits.body_bytes_max);
            let wanted = self.rest.capacity().saturating_mul(2).clamp(len, most.max(len));
            self.rest.reserve_exact(wanted - self.rest.len());
        }
        self.rest.extend_from_slice(&piece);
        Ok(())
    }

    /// Takes memory until `len` bytes are covered.
    async fn hold(&mut self, len: usize) -> Result<(), BodyError> {
        let held = self.held.as_ref().map_or(0, |held| held.own.num_permits() * PERMIT_BYTES);
        if held >= len {
            return Ok(());
        }
        let most = self.stated.unwrap_or(usize::MAX).max(len);
        let wanted = len.next_multiple_of(STEP_BYTES).min(most);
        let permits = u32::try_from((wanted - held).div_ceil(PERMIT_BYTES)).map_err(|_| BodyError::TooLarge)?;
        let more = tokio::time::timeout(self.limits.bodies_wait, self.memory.take(permits)).await;
        let more = more.ok().flatten().ok_or(BodyError::NoMemory)?;
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        Ok(())
    }

    fn finish(self) -> Collected {
        let bytes = self.first.unwrap_or_else(|| Bytes::from(self.rest));
        Collected { bytes, _memory: self.held }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store<'a>(stated: Option<usize>, limits: &'a GatewayLimits, memory: &'a Memory) -> Store<'a> {
        Store { stated, limits, memory, held: None, first: None, rest: Vec::new() }
    }

    #[tokio::test]
    async fn one_piece_is_passed_on_uncopied() {
        let (limits, memory) = (GatewayLimits::default(), Memory::new(1024 * PERMIT_BYTES, None));
        let piece = Bytes::from(vec![7u8; 300_000]);
        let mut one = store(Some(piece.len()), &limits, &memory);
        one.push(piece.clone()).await.unwrap();
        let collected = one.finish();
        assert_eq!(collected.bytes.as_ptr(), piece.as_ptr());
        assert_eq!(memory.own.available_permits(), 1024 - 300_000usize.div_ceil(1024));
        drop(collected);
        assert_eq!(memory.own.available_permits(), 1024);
    }

    #[tokio::test]
    async fn many_pieces_are_joined_and_counted() {
        let (limits, memory) = (GatewayLimits::default(), Memory::new(4096 * PERMIT_BYTES, None));
        for stated in [Some(1_000_000), None] {
            let mut many = store(stated, &limits, &memory);
            let mut expected = Vec::new();
            for i in 0..1000u32 {
                let piece = Bytes::from(vec![i as u8; 1000]);
                expected.extend_from_slice(&piece);
                many.push(piece).await.unwrap();
                let taken = (4096 - memory.own.available_permits()) * PERMIT_BYTES;
                assert!(many.len() <= UNCOUNTED_BYTES || taken >= many.len(), "{taken} for {}", many.len());
                assert!(taken <= many.len() + STEP_BYTES);
            }
            let collected = many.finish();
            assert_eq!(collected.bytes, expected);
            drop(collected);
            assert_eq!(memory.own.available_permits(), 4096);
        }
    }

    #[tokio::test]
    async fn without_memory_a_body_is_given_up_and_frees_its_own() {
        let limits = GatewayLimits { bodies_wait: Duration::from_millis(1), ..GatewayLimits::default() };
        let memory = Memory::new(400 * PERMIT_BYTES, Some(permits(300 * PERMIT_BYTES)));
        let mut one = store(None, &limits, &memory);
        one.push(Bytes::from(vec![0; 100_000])).await.unwrap();
        assert_eq!(one.push(Bytes::from(vec![0; 300_000])).await, Err(BodyError::NoMemory));
        drop(one);
        let all = memory.all.as_ref().unwrap();
        assert_eq!((memory.own.available_permits(), all.available_permits()), (400, 300));
        let mut small = store(None, &limits, &memory);
        let _all = all.clone().try_acquire_many_owned(300).unwrap();
        small.push(Bytes::from(vec![0; UNCOUNTED_BYTES])).await.unwrap();
    }
}
