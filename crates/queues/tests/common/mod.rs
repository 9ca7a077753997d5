//! Queues on a clock that tests move.

// Each test binary uses a part of this.
#![allow(dead_code)]

use mayfly_base::TestClock;
use mayfly_queues::spec::{QueueChange, Strategy, Target};
use mayfly_queues::{ErrorKind, NewSubscription, QueueError, QueueLimits, Queues, Received};
use std::sync::Arc;
use tempfile::TempDir;

/// When tests begin, in milliseconds.
pub const T: u64 = 1_795_000_000_000;

pub struct Scene {
    pub queues: Queues,
    pub clock: Arc<TestClock>,
    pub dir: TempDir,
}

impl Scene {
    pub async fn new() -> Self {
        Self::with(QueueLimits::default()).await
    }

    pub async fn with(limits: QueueLimits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(TestClock::new(T));
        let queues = Queues::open(&dir.path().join("queues.db"), limits, Arc::clone(&clock) as _).await.unwrap();
        Self { queues, clock, dir }
    }

    /// Closes the file and opens it again.
    pub async fn reopen(self) -> Self {
        self.queues.close().await.unwrap();
        let Self { clock, dir, .. } = self;
        let path = dir.path().join("queues.db");
        let queues = Queues::open(&path, QueueLimits::default(), Arc::clone(&clock) as _).await.unwrap();
        Self { queues, clock, dir }
    }

    pub async fn queue(&self, name: &str, change: QueueChange) {
        self.queues.create_queue(name, change).await.unwrap();
    }

    /// One message, or none.
    pub async fn take(&self, queue: &str) -> Option<Received> {
        match self.queues.receive(queue, 1, Some(0)).await {
            Ok(mut messages) => messages.pop(),
            Err(QueueError { kind: ErrorKind::NoMessage, .. }) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// The texts of all messages that can be received now, in order.
    pub async fn drain(&self, queue: &str) -> Vec<String> {
        let mut out = Vec::new();
        while let Some(message) = self.take(queue).await {
            out.push(message.body);
        }
        out
    }

    /// Lets time do all that it does.
    pub async fn sweep(&self) {
        while self.queues.sweep().await.unwrap() {}
    }
}

pub fn into_queue(queue: &str, filters: &[&str]) -> NewSubscription {
    NewSubscription {
        target: Target::Queue(queue.into()),
        strategy: Strategy::Decay,
        simplified: true,
        filters: filters.iter().map(|f| (*f).to_owned()).collect(),
    }
}

pub fn kind<T: std::fmt::Debug>(result: Result<T, QueueError>) -> ErrorKind {
    result.expect_err("must be refused").kind
}
