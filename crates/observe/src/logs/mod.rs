//! Invocation records on disk: one JSON line each, in segment files cut by time, each with a small index beside it.
//!
//! - `YYYYMMDD-HHMM.jsonl` (UTC; `-1`, `-2` … appended when a segment is cut early for its size) holds the lines;
//! - the file of the same name ending in `.idx` holds 64 bytes for each line: where it is, and what queries filter and sort by. It
//!   is written after the lines, and made anew from them where it is missing or short.
//!
//! A record is visible to queries as soon as [`LogStore::record`] returned `true`, reaches the file within 200 ms, and the
//! disk within about a second. After `kill -9` the last 200 ms may be missing, and a line that is cut in the middle is
//! removed when the store is opened. Log lines are not acknowledged to anybody, so they are not worth a sync each;
//! whoever forgets an event because of its record waits for [`LogStore::flush`] first.
//!
//! **Floods.** Each function may put [`LogOptions::function_bytes_per_s`] into the store, and
//! [`LogOptions::function_burst_bytes`] at once; what it prints beyond that is cut, with a notice in the record. It may take
//! half of the writer's queue; its records beyond that are dropped and counted. And when the store is full, a function that holds
//! more than half of [`LogOptions::max_bytes`] loses its own oldest records before anybody else does.

mod budget;
mod index;
mod query;
mod segment;
#[cfg(test)]
mod tests;
mod time;
mod writer;

pub use query::{LogCursor, LogFilter, LogOrder, LogPage, LogQuery, StatusFilter};

use budget::{Admission, Budgets};
use mayfly_model::InvocationRecord;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use segment::{Disk, RealDisk, Segments};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use writer::Writer;

/// Wait of a query for the writer. A disk that hangs longer than this delays queries, but does not stop them: they answer from what
/// was written before.
const BARRIER_WAIT: Duration = Duration::from_secs(2);

/// Settings of the log store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogOptions {
    /// Length of a segment, in minutes (1 to 1440). Retention removes whole segments.
    pub segment_minutes: u32,
    /// Records are kept this long, in hours, and up to a segment longer.
    pub retention_hours: u32,
    /// All segments and indexes together, in bytes. At least 1 MiB. When it is reached, a function that holds more than half of it
    /// loses its oldest records; else the oldest segments go.
    pub max_bytes: u64,
    /// Records that may wait for the writer.
    pub queue_records: usize,
    /// Size of the records that may wait for the writer, in bytes.
    pub queue_bytes: usize,
    /// What one function may add to the log, in bytes a second.
    pub function_bytes_per_s: u64,
    /// What one function may add at once after a quiet time, in bytes.
    pub function_burst_bytes: u64,
}

impl Default for LogOptions {
    /// Hourly segments, kept for 7 days or up to 2 GiB; 1 MiB a second and 16 MiB at once for each function.
    fn default() -> Self {
        Self {
            segment_minutes: 60,
            retention_hours: 7 * 24,
            max_bytes: 2 << 30,
            queue_records: 8192,
            queue_bytes: 8 << 20,
            function_bytes_per_s: 1 << 20,
            function_burst_bytes: 16 << 20,
        }
    }
}

impl LogOptions {
    fn validate(&self) -> Result<(), LogError> {
        let rules = [
            ((1..=1440).contains(&self.segment_minutes), "segment_minutes must be 1 to 1440"),
            (self.retention_hours >= 1, "retention_hours must be at least 1"),
            (self.max_bytes >= 1 << 20, "max_bytes must be at least 1048576"),
            (self.queue_records >= 2, "queue_records must be at least 2"),
            (self.queue_bytes >= 64 << 10, "queue_bytes must be at least 65536"),
            (self.function_bytes_per_s >= 1, "function_bytes_per_s must be at least 1"),
            (self.function_burst_bytes >= 1, "function_burst_bytes must be at least 1"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(LogError::Options(rule)),
            None => Ok(()),
        }
    }
}

/// Why the log store could not be opened or asked.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A setting is out of range.
    #[error("log settings: {0}")]
    Options(&'static str),
    /// The operating system refused.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was being done, as a verb phrase.
        doing: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// `offset + limit` is beyond what a query may ask for.
    #[error("a log query may reach {max} records at most")]
    Window {
        /// The limit.
        max: u64,
    },
}

impl LogError {
    fn io(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}

/// What became of records that were not kept whole. Shared with the metrics registry.
#[derive(Clone, Debug, Default)]
pub struct LogStats {
    /// Records written.
    pub written: Counter,
    /// Records dropped because the writer's queue was full.
    pub dropped_queue: Counter,
    /// Records dropped because their function alone held half of the queue.
    pub dropped_function: Counter,
    /// Records dropped because the disk refused them.
    pub dropped_disk: Counter,
    /// Bytes of output cut because a function printed faster than it may.
    pub cut_bytes: Counter,
}

/// Where time comes from and files go to; tests put their own in.
struct Environment {
    disk: Box<dyn Disk>,
    /// Milliseconds since the epoch.
    clock: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Environment {
    fn real() -> Self {
        Self { disk: Box::new(RealDisk), clock: Arc::new(time::now_ms) }
    }
}

/// A message to the writer.
enum Message {
    Record(Box<InvocationRecord>, Admission),
    /// Write everything before this, then answer; sync the disk as well when asked to.
    Flush {
        sync: bool,
        done: SyncSender<()>,
    },
    Stop,
}

/// The log store. Cheap to clone; the writer ends with [`LogStore::close`], or when the last clone is dropped.
#[derive(Clone)]
pub struct LogStore {
    inner: Arc<Inner>,
}

struct Inner {
    messages: SyncSender<Message>,
    segments: Arc<Segments>,
    budgets: Arc<Budgets>,
    stats: LogStats,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl LogStore {
    /// Opens the store in `dir`, makes it where absent (mode 0700), repairs what a crash left, and starts the writer thread.
    /// One process at a time may have it open.
    pub fn open(dir: &Path, options: LogOptions) -> Result<Self, LogError> {
        Self::open_in(dir, options, Environment::real())
    }

    fn open_in(dir: &Path, options: LogOptions, environment: Environment) -> Result<Self, LogError> {
        options.validate()?;
        let segments = Arc::new(Segments::open(dir)?);
        let stats = LogStats::default();
        let budgets = Arc::new(Budgets::new(&options));
        let (messages, queue): (_, Receiver<Message>) = sync_channel(options.queue_records);
        let writer = Writer::new(options, environment, Arc::clone(&segments), Arc::clone(&budgets), stats.clone());
        let thread = std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || writer.run(&queue))
            .map_err(LogError::io("start the log writer"))?;
        let writer = Mutex::new(Some(thread));
        Ok(Self { inner: Arc::new(Inner { messages, segments, budgets, stats, writer }) })
    }

    /// Hands a record to the writer; never waits. Output beyond what the function may print now is cut. `false`: the record was
    /// dropped (and counted in [`LogStats`]).
    pub fn record(&self, mut record: InvocationRecord) -> bool {
        let stats = &self.inner.stats;
        let admission = match self.inner.budgets.admit(&mut record, Instant::now()) {
            Ok(admission) => admission,
            Err(budget::Refused::FunctionShare) => {
                stats.dropped_function.inc();
                return false;
            }
            Err(budget::Refused::QueueBytes) => {
                stats.dropped_queue.inc();
                return false;
            }
        };
        stats.cut_bytes.inc_by(admission.cut_bytes);
        match self.inner.messages.try_send(Message::Record(Box::new(record), admission)) {
            Ok(()) => true,
            Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) => {
                if let Message::Record(_, admission) = message {
                    self.inner.budgets.release(&admission);
                }
                stats.dropped_queue.inc();
                false
            }
        }
    }

    /// Records that match, one page of them, and how many there are in all. Blocks on the disk: call it off the async threads.
    ///
    /// # Errors
    /// [`LogError::Window`] when `offset + limit` is above [`mayfly_model::limits::LOG_QUERY_WINDOW_MAX`].
    pub fn query(&self, query: &LogQuery) -> Result<LogPage, LogError> {
        self.barrier(false);
        query::run(&self.inner.segments.snapshot(), query)
    }

    /// Records that match and came behind `after`, oldest first, at most `limit` of them and a few megabytes; and the cursor to go
    /// on from. Without a cursor: nothing, and the cursor of now. Blocks on the disk.
    pub fn follow(
        &self,
        filter: &LogFilter,
        after: Option<LogCursor>,
        limit: usize,
    ) -> Result<(Vec<InvocationRecord>, LogCursor), LogError> {
        self.barrier(false);
        query::follow(&self.inner.segments.snapshot(), filter, after, limit)
    }

    /// Waits, at most two seconds, until what was recorded before this call is in the files, where it outlives this process. Blocks.
    pub fn flush(&self) {
        self.barrier(false);
    }

    /// Counts of what was written, dropped and cut.
    pub fn stats(&self) -> &LogStats {
        &self.inner.stats
    }

    /// Writes what was recorded, syncs the disk, and ends the writer. Later records are dropped (and counted). Blocks.
    pub fn close(&self) {
        self.barrier(true);
        let thread = self.inner.writer.lock().take();
        if let Some(thread) = thread {
            let _ = self.inner.messages.send(Message::Stop);
            if thread.join().is_err() {
                tracing::error!("the log writer panicked");
            }
        }
    }

    /// Waits, but not for ever, until what was recorded before this call is in the files.
    fn barrier(&self, sync: bool) {
        let deadline = Instant::now() + BARRIER_WAIT;
        let (done, answer) = sync_channel(1);
        let mut message = Message::Flush { sync, done };
        loop {
            match self.inner.messages.try_send(message) {
                Ok(()) => break,
                Err(TrySendError::Disconnected(_)) => return,
                Err(TrySendError::Full(_)) if Instant::now() >= deadline => return,
                Err(TrySendError::Full(back)) => {
                    message = back;
                    // The queue is full for as long as the writer takes for one batch.
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
        let _ = answer.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}
