//! How far each partition has come, what is committed of it, and what waits.

use crate::Lag;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Shortest time between two commits while batches end all the time.
const COMMIT_EVERY: Duration = Duration::from_millis(20);
/// Pause after a commit that failed.
const COMMIT_AGAIN: Duration = Duration::from_millis(500);
/// A commit that was not answered for so long is not waited for any more.
const COMMIT_PATIENCE: Duration = Duration::from_secs(15);

/// A partition that this member has.
#[derive(Debug)]
struct Standing {
    /// Which assignment of the partition this is: what an earlier one says late does not count.
    epoch: u64,
    /// Everything before this offset has ended.
    done: i64,
    /// What the group knows.
    committed: Option<i64>,
    /// The offset behind the last message that the cluster has, when it was last asked.
    high: Option<i64>,
    /// Timestamp of the oldest message that is being handed over; 0: none is.
    oldest_ms: u64,
}

/// All partitions that a member has.
#[derive(Debug, Default)]
pub struct Progress {
    standings: HashMap<i32, Standing>,
    under_way: Option<Instant>,
    not_before: Option<Instant>,
}

impl Progress {
    /// A partition was given to this member, and is read from `start`. `committed`: the group knows that.
    pub fn assigned(&mut self, partition: i32, epoch: u64, start: i64, committed: bool) {
        let standing = Standing { epoch, done: start, committed: committed.then_some(start), high: None, oldest_ms: 0 };
        self.standings.insert(partition, standing);
    }

    /// A partition was taken from this member.
    pub fn revoked(&mut self, partition: i32) {
        self.standings.remove(&partition);
    }

    /// A batch is being handed over.
    pub fn begun(&mut self, partition: i32, epoch: u64, oldest_ms: u64) {
        if let Some(standing) = self.standings.get_mut(&partition).filter(|s| s.epoch == epoch) {
            standing.oldest_ms = oldest_ms;
        }
    }

    /// Everything before `next` has ended.
    pub fn done(&mut self, partition: i32, epoch: u64, next: i64) {
        if let Some(standing) = self.standings.get_mut(&partition).filter(|s| s.epoch == epoch) {
            // Not the larger of both: a topic that was made anew begins at 0 again.
            standing.done = next;
            standing.oldest_ms = 0;
        }
    }

    /// What the cluster has.
    pub fn measured(&mut self, partition: i32, high: i64) {
        if let Some(standing) = self.standings.get_mut(&partition) {
            standing.high = Some(high);
        }
    }

    /// The partitions.
    pub fn partitions(&self) -> Vec<i32> {
        self.standings.keys().copied().collect()
    }

    /// True when something is to be committed, or the answer to a commit is awaited.
    pub fn is_restless(&self) -> bool {
        self.under_way.is_some() || self.standings.values().any(|s| s.committed != Some(s.done))
    }

    /// What is to be committed of these partitions, now, whatever is under way.
    pub fn rest_of(&self, partitions: &[i32]) -> Vec<(i32, i64)> {
        let open = self.standings.iter().filter(|(p, s)| partitions.contains(p) && s.committed != Some(s.done));
        open.map(|(partition, s)| (*partition, s.done)).collect()
    }

    /// What is to be committed now. It is under way then.
    pub fn due(&mut self, now: Instant) -> Vec<(i32, i64)> {
        let waits = self.under_way.is_some_and(|since| now.duration_since(since) < COMMIT_PATIENCE)
            || self.not_before.is_some_and(|at| now < at);
        if waits {
            return Vec::new();
        }
        let open = self.rest_of(&self.partitions());
        if !open.is_empty() {
            self.under_way = Some(now);
            self.not_before = Some(now + COMMIT_EVERY);
        }
        open
    }

    /// A commit was answered: the group knows these offsets. `failed`: not all that it was told.
    pub fn committed(&mut self, now: Instant, offsets: &[(i32, i64)], failed: bool) {
        self.under_way = None;
        for (partition, offset) in offsets {
            if let Some(standing) = self.standings.get_mut(partition) {
                standing.committed = Some(*offset);
            }
        }
        if failed {
            self.not_before = Some(now + COMMIT_AGAIN);
        }
    }

    /// What waits.
    pub fn lag(&self) -> Lag {
        let behind = |s: &Standing| s.high.map_or(0, |high| u64::try_from(high - s.done).unwrap_or(0));
        let oldest = self.standings.values().map(|s| s.oldest_ms).filter(|ms| *ms > 0).min();
        Lag { messages: self.standings.values().map(behind).sum(), oldest_ms: oldest.unwrap_or(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_follow_what_is_done_and_never_lead() {
        let now = Instant::now();
        let later = |ms| now + Duration::from_millis(ms);
        let mut progress = Progress::default();
        progress.assigned(0, 1, 5, true);
        progress.assigned(1, 2, 0, false);
        // Where a new group begins is committed before anything was done: it does not move any more.
        assert_eq!(progress.due(now), [(1, 0)]);
        progress.done(0, 1, 9);
        assert_eq!(progress.due(later(100)), [], "one at a time");
        progress.committed(later(100), &[(1, 0)], false);
        assert_eq!(progress.due(later(101)), [(0, 9)]);
        progress.committed(later(102), &[], true);
        assert!(progress.is_restless());
        assert_eq!(progress.due(later(110)), []);
        assert_eq!(progress.due(later(700)), [(0, 9)], "again after a failure");
        progress.committed(later(701), &[(0, 9)], false);
        assert!(!progress.is_restless());
        // What another assignment of the partition says is not heard.
        progress.revoked(0);
        progress.assigned(0, 3, 9, true);
        progress.done(0, 1, 20);
        assert!(!progress.is_restless());
        progress.committed(later(702), &[(0, 20)], false);
        progress.done(0, 3, 10);
        assert_eq!(progress.rest_of(&[0, 7]), [(0, 10)]);
    }

    #[test]
    fn what_waits_is_told() {
        let mut progress = Progress::default();
        progress.assigned(0, 1, 5, true);
        progress.assigned(1, 1, 5, true);
        assert_eq!(progress.lag(), Lag::default());
        progress.measured(0, 15);
        progress.measured(1, 5);
        progress.begun(0, 1, 77);
        assert_eq!(progress.lag(), Lag { messages: 10, oldest_ms: 77 });
        progress.done(0, 1, 16);
        assert_eq!(progress.lag(), Lag::default());
    }
}
