//! What one function may put into the log, and into the writer's queue.

use super::LogOptions;
use super::index::name_hash;
use mayfly_model::InvocationRecord;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const SHARDS: usize = 16;
/// Buckets of one shard before those of quiet functions are forgotten.
const SHARD_BUCKETS_MAX: usize = 1024;
/// What a record takes beside its texts, in bytes: its other fields, as JSON.
const RECORD_BYTES: usize = 400;

/// Proof that a record was let into the queue; goes back with [`Budgets::release`].
pub(super) struct Admission {
    function: u64,
    bytes: usize,
    /// Output that was cut from it.
    pub cut_bytes: u64,
}

/// Why a record was not let in.
pub(super) enum Refused {
    /// The function holds its half of the queue.
    FunctionShare,
    /// The queue holds as many bytes as it may.
    QueueBytes,
}

pub(super) struct Budgets {
    shards: [Mutex<HashMap<u64, Bucket>>; SHARDS],
    queued_bytes: AtomicUsize,
    queue_bytes: usize,
    function_records: usize,
    function_bytes: usize,
    bytes_per_s: f64,
    burst_bytes: f64,
}

struct Bucket {
    /// Bytes that may be logged now.
    tokens: f64,
    filled: Instant,
    queued_records: usize,
    queued_bytes: usize,
}

impl Budgets {
    pub fn new(options: &LogOptions) -> Self {
        Self {
            shards: Default::default(),
            queued_bytes: AtomicUsize::new(0),
            queue_bytes: options.queue_bytes,
            function_records: options.queue_records / 2,
            function_bytes: options.queue_bytes / 2,
            bytes_per_s: options.function_bytes_per_s as f64,
            burst_bytes: options.function_burst_bytes as f64,
        }
    }

    /// Lets a record into the queue, with as much of its output as its function may print now.
    pub fn admit(&self, record: &mut InvocationRecord, now: Instant) -> Result<Admission, Refused> {
        let function = name_hash(&[&record.namespace, &record.function]);
        let mut shard = self.shard(function);
        if shard.len() >= SHARD_BUCKETS_MAX && !shard.contains_key(&function) {
            let full_again = Duration::from_secs_f64(self.burst_bytes / self.bytes_per_s);
            shard.retain(|_, bucket| bucket.queued_records > 0 || now.duration_since(bucket.filled) < full_again);
        }
        let bucket = shard.entry(function).or_insert(Bucket {
            tokens: self.burst_bytes,
            filled: now,
            queued_records: 0,
            queued_bytes: 0,
        });
        bucket.fill(now, self);
        let cut_bytes = bucket.cut(record);
        let bytes = RECORD_BYTES + record.output.len() + record.ret_msg.len();
        // A record alone always fits, however large it is.
        let over_share = bucket.queued_records >= self.function_records
            || (bucket.queued_bytes > 0 && bucket.queued_bytes + bytes > self.function_bytes);
        if over_share {
            return Err(Refused::FunctionShare);
        }
        let queued = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        if queued > 0 && queued + bytes > self.queue_bytes {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Refused::QueueBytes);
        }
        bucket.tokens -= bytes as f64;
        bucket.queued_records += 1;
        bucket.queued_bytes += bytes;
        Ok(Admission { function, bytes, cut_bytes })
    }

    /// Gives a place in the queue back.
    pub fn release(&self, admission: &Admission) {
        self.queued_bytes.fetch_sub(admission.bytes, Ordering::Relaxed);
        if let Some(bucket) = self.shard(admission.function).get_mut(&admission.function) {
            bucket.queued_records -= 1;
            bucket.queued_bytes -= admission.bytes;
        }
    }

    fn shard(&self, function: u64) -> parking_lot::MutexGuard<'_, HashMap<u64, Bucket>> {
        // The remainder is below SHARDS.
        self.shards[(function % SHARDS as u64) as usize].lock()
    }
}

impl Bucket {
    fn fill(&mut self, now: Instant, budgets: &Budgets) {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + elapsed * budgets.bytes_per_s).min(budgets.burst_bytes);
        self.filled = self.filled.max(now);
    }

    /// Cuts output beyond the tokens, and says so in the output. The rest of the record is always kept: it is small, and
    /// it is how one finds the flood.
    fn cut(&self, record: &mut InvocationRecord) -> u64 {
        let allowed = if self.tokens > 0.0 { self.tokens as usize } else { 0 };
        if record.output.len() <= allowed {
            return 0;
        }
        let mut keep = allowed;
        while !record.output.is_char_boundary(keep) {
            keep -= 1;
        }
        let cut = (record.output.len() - keep) as u64;
        record.output.truncate(keep);
        if keep > 0 && !record.output.ends_with('\n') {
            record.output.push('\n');
        }
        record.output.push_str("[mayfly] output cut: this function prints faster than a function may log\n");
        record.output_cut_bytes += cut;
        cut
    }
}
