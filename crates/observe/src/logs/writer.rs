//! The writer thread: takes records from the queue, writes them in batches, cuts segments, and removes old ones.

use super::budget::Budgets;
use super::index::{Entry, FunctionHash, HEADER, LINE_BYTES_MAX};
use super::segment::{AppendFile, Segment, Segments};
use super::time::SegmentKey;
use super::{Environment, LogOptions, LogStats, Message};
use mayfly_model::InvocationRecord;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

/// Longest time a record waits to be written.
const FLUSH_EVERY: Duration = Duration::from_millis(200);
/// Sleep of the writer between batches while records flow. A writer that waits at the queue has to be woken for each record, which costs
/// the invocation more than the record does; one that sleeps does not. It makes queries later by as much.
const NAP: Duration = Duration::from_millis(5);
/// A batch that has grown to this is written at once.
const BATCH_BYTES: usize = 256 << 10;
/// Shortest time between two syncs of the disk.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// How often old segments are looked for.
const RETAIN_EVERY: Duration = Duration::from_secs(10);
/// A segment is cut early when it has grown to this: offsets in it fit in 32 bits, and retention by size stays fine-grained.
const SEGMENT_BYTES_MAX: u64 = 64 << 20;

pub(super) struct Writer {
    options: LogOptions,
    environment: Environment,
    segments: Arc<Segments>,
    budgets: Arc<Budgets>,
    stats: LogStats,
    /// Largest segment, in bytes.
    segment_bytes_max: u64,
    current: Option<Current>,
    /// Lines and their entries that are not written yet. Offsets count from the start of the batch.
    lines: Vec<u8>,
    entries: Vec<Entry>,
    flush_at: Option<Instant>,
    synced: Instant,
    retained: Instant,
    disk_is_failing: bool,
}

/// The segment that is written to.
struct Current {
    segment: Arc<Segment>,
    lines: Box<dyn AppendFile>,
    index: Box<dyn AppendFile>,
    is_dirty: bool,
}

impl Writer {
    pub fn new(
        options: LogOptions,
        environment: Environment,
        segments: Arc<Segments>,
        budgets: Arc<Budgets>,
        stats: LogStats,
    ) -> Self {
        let segment_bytes_max = SEGMENT_BYTES_MAX.min(options.max_bytes / 8);
        let now = Instant::now();
        Self {
            options,
            environment,
            segments,
            budgets,
            stats,
            segment_bytes_max,
            current: None,
            lines: Vec::new(),
            entries: Vec::new(),
            flush_at: None,
            synced: now,
            retained: now,
            disk_is_failing: false,
        }
    }

    /// Runs until it is told to stop, or until nobody can tell it anything any more.
    pub fn run(mut self, queue: &Receiver<Message>) {
        self.retain();
        self.make_room();
        let mut in_a_flow = false;
        loop {
            let message = match queue.try_recv() {
                Ok(message) => Ok(message),
                Err(TryRecvError::Empty) if std::mem::take(&mut in_a_flow) => {
                    self.keep_time();
                    std::thread::sleep(NAP);
                    continue;
                }
                Err(TryRecvError::Empty) => self.next(queue),
                Err(TryRecvError::Disconnected) => Err(RecvTimeoutError::Disconnected),
            };
            match message {
                Ok(Message::Record(record, admission)) => {
                    in_a_flow = true;
                    self.take(&record);
                    self.budgets.release(&admission);
                    if self.lines.len() >= BATCH_BYTES {
                        self.flush();
                    }
                }
                Ok(Message::Flush { sync, done }) => {
                    self.flush();
                    if sync {
                        self.sync();
                    }
                    let _ = done.try_send(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => break,
            }
            self.keep_time();
        }
        self.flush();
        self.sync();
    }

    fn next(&self, queue: &Receiver<Message>) -> Result<Message, RecvTimeoutError> {
        let now = Instant::now();
        let mut wake = self.retained + RETAIN_EVERY;
        if let Some(flush_at) = self.flush_at {
            wake = wake.min(flush_at);
        }
        if self.current.as_ref().is_some_and(|current| current.is_dirty) {
            wake = wake.min(self.synced + SYNC_EVERY);
        }
        queue.recv_timeout(wake.saturating_duration_since(now))
    }

    /// Does what is due by the clock.
    fn keep_time(&mut self) {
        let now = Instant::now();
        if self.flush_at.is_some_and(|at| at <= now) {
            self.flush();
        }
        if now.duration_since(self.synced) >= SYNC_EVERY {
            self.sync();
        }
        if now.duration_since(self.retained) >= RETAIN_EVERY {
            self.retain();
        }
    }

    fn take(&mut self, record: &InvocationRecord) {
        let at = self.lines.len();
        // Writing JSON into memory fails for values that JSON has no form for; a record has none.
        if serde_json::to_writer(&mut self.lines, record).is_err() {
            self.lines.truncate(at);
            self.stats.dropped_disk.inc();
            return;
        }
        self.lines.push(b'\n');
        let bytes = u32::try_from(self.lines.len() - at).ok().filter(|bytes| *bytes <= LINE_BYTES_MAX);
        let (Ok(offset), Some(bytes)) = (u32::try_from(at), bytes) else {
            // Could be written, but never read back.
            self.lines.truncate(at);
            self.stats.dropped_disk.inc();
            return;
        };
        self.entries.push(Entry::of(record, offset, bytes));
        self.flush_at.get_or_insert_with(|| Instant::now() + FLUSH_EVERY);
    }

    /// Writes the batch, or drops and counts it. Either way there is room for the next one.
    fn flush(&mut self) {
        self.flush_at = None;
        if self.entries.is_empty() {
            return;
        }
        let count = self.entries.len() as u64;
        match self.write() {
            Ok(()) => {
                self.stats.written.inc_by(count);
                if std::mem::take(&mut self.disk_is_failing) {
                    tracing::info!("the log store can write again");
                }
            }
            Err(error) => {
                self.stats.dropped_disk.inc_by(count);
                // Once for each time of trouble: a full disk must not be filled further with messages about it.
                if !std::mem::replace(&mut self.disk_is_failing, true) {
                    tracing::error!(%error, "the log store cannot write; records are dropped and counted until it can");
                }
            }
        }
        self.entries.clear();
        self.lines.clear();
        // One large record must not keep its memory for good.
        self.lines.shrink_to(2 * BATCH_BYTES);
    }

    fn write(&mut self) -> io::Result<()> {
        self.rotate()?;
        let Some(current) = &mut self.current else { return Err(io::ErrorKind::NotFound.into()) };
        let start = current.segment.lines_bytes();
        let base = u32::try_from(start).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut packed = Vec::with_capacity(self.entries.len() * super::index::ENTRY_BYTES);
        for entry in &mut self.entries {
            entry.offset = entry.offset.checked_add(base).ok_or(io::ErrorKind::FileTooLarge)?;
            entry.write(&mut packed);
        }
        let result = current.lines.append(&self.lines).and_then(|()| current.index.append(&packed));
        if let Err(error) = result {
            // Both files go back to what is known of them. Where even that fails the segment is left as it is, for opening
            // to repair, and the next batch begins another one.
            let index_bytes = current.segment.index_bytes();
            if current.lines.cut(start).and_then(|()| current.index.cut(index_bytes)).is_err() {
                self.current = None;
            }
            return Err(error);
        }
        current.segment.grow(self.lines.len() as u64, &self.entries);
        current.is_dirty = true;
        Ok(())
    }

    /// Makes `current` the segment that the batch belongs into.
    fn rotate(&mut self) -> io::Result<()> {
        let due = SegmentKey::at((self.environment.clock)(), self.options.segment_minutes);
        if let Some(current) = &self.current {
            let bytes = current.segment.lines_bytes();
            let fits = bytes == 0 || bytes + self.lines.len() as u64 <= self.segment_bytes_max;
            // A clock that was set back does not bring old segments back.
            if due.minute <= current.segment.key.minute && fits {
                return Ok(());
            }
        }
        self.sync();
        let newest = self.segments.newest();
        let reopened = newest.as_ref().filter(|segment| {
            // After a start: go on where the last process stopped, if it is still the time of that segment.
            self.current.is_none()
                && !self.disk_is_failing
                && segment.key.minute >= due.minute
                && segment.lines_bytes() + self.lines.len() as u64 <= self.segment_bytes_max
        });
        let segment = match (reopened, &newest) {
            (Some(segment), _) => Arc::clone(segment),
            (None, Some(newest)) if newest.key.minute >= due.minute => {
                self.make(SegmentKey { sequence: newest.key.sequence + 1, ..newest.key })?
            }
            (None, _) => self.make(due)?,
        };
        let lines = self.environment.disk.open(segment.lines_path())?;
        let index = self.environment.disk.open(segment.index_path())?;
        self.current = Some(Current { segment, lines, index, is_dirty: false });
        self.retain();
        self.make_room();
        Ok(())
    }

    /// Makes the files of a new segment, and lists it only when they are there.
    fn make(&self, key: SegmentKey) -> io::Result<Arc<Segment>> {
        let path = |extension| self.segments.dir.join(format!("{key}.{extension}"));
        self.environment.disk.open(&path("jsonl"))?.cut(0)?;
        let mut index = self.environment.disk.open(&path("idx"))?;
        index.cut(0)?;
        index.append(&HEADER)?;
        Ok(self.segments.add(key))
    }

    fn sync(&mut self) {
        self.synced = Instant::now();
        let Some(current) = &mut self.current else { return };
        if std::mem::take(&mut current.is_dirty)
            && let Err(error) = current.lines.sync().and_then(|()| current.index.sync())
        {
            tracing::warn!(%error, "syncing the log store");
        }
    }

    /// Removes segments that are too old.
    fn retain(&mut self) {
        self.retained = Instant::now();
        let oldest_ms = (self.environment.clock)().saturating_sub(u64::from(self.options.retention_hours) * 3_600_000);
        for segment in self.finished_segments() {
            if segment.key.end_ms(self.options.segment_minutes) > oldest_ms || !self.remove_oldest() {
                break;
            }
        }
    }

    /// Makes room when all segments together are too large: first at the cost of a function that holds more than half of the room, then
    /// at the cost of the oldest segments. Called when a segment begins; room for it to grow is made as well.
    fn make_room(&mut self) {
        let bytes_max = self.options.max_bytes - self.segment_bytes_max;
        if self.total_bytes() > bytes_max
            && let Err(error) = self.strip_heaviest(bytes_max)
        {
            tracing::warn!(%error, "removing the records of the function that logs most");
        }
        while self.total_bytes() > bytes_max && !self.finished_segments().is_empty() && self.remove_oldest() {}
    }

    /// Takes the records of the function that holds most out of the oldest segments, until it holds half of the room or there is
    /// enough of it.
    fn strip_heaviest(&self, bytes_max: u64) -> io::Result<()> {
        let mut totals: HashMap<FunctionHash, u64> = HashMap::new();
        let mut by_segment = Vec::new();
        for segment in self.finished_segments() {
            let Some(reader) = segment.reader()? else { continue };
            let mut bytes: HashMap<FunctionHash, u64> = HashMap::new();
            reader.entries(0, reader.records, |_, entry| {
                *bytes.entry(entry.function_hash()).or_default() += u64::from(entry.bytes);
                Ok(true)
            })?;
            for (function, bytes) in &bytes {
                *totals.entry(*function).or_default() += bytes;
            }
            by_segment.push((segment, bytes));
        }
        let Some((heaviest, mut held)) = totals.into_iter().max_by_key(|(_, bytes)| *bytes) else { return Ok(()) };
        for (segment, bytes) in by_segment {
            if held <= self.options.max_bytes / 2 || self.total_bytes() <= bytes_max {
                break;
            }
            let share = bytes.get(&heaviest).copied().unwrap_or(0);
            // Not worth writing a segment anew for little.
            if share >= segment.lines_bytes() / 4 {
                held -= share;
                segment.strip(heaviest)?;
            }
        }
        Ok(())
    }

    /// All segments but the one that is written to, oldest first.
    fn finished_segments(&self) -> Vec<Arc<Segment>> {
        let current = self.current.as_ref().map(|current| current.segment.key);
        self.segments.snapshot().into_iter().take_while(|segment| Some(segment.key) != current).collect()
    }

    fn total_bytes(&self) -> u64 {
        self.segments.snapshot().iter().map(|segment| segment.lines_bytes() + segment.index_bytes()).sum()
    }

    fn remove_oldest(&self) -> bool {
        let result = self.segments.remove_oldest();
        if let Err(error) = &result {
            tracing::warn!(%error, "removing an old log segment");
        }
        result.is_ok()
    }
}
