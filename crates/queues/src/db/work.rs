//! The writer's side: operations that wait together are carried out in one transaction and share one sync of the disk.

use super::admin::Made;
use super::messages::{Handle, QueueCounts, Received};
use super::outbox::Delivery;
use super::{Stop, admin};
use crate::catalogue::{Queue, Shared, adjust};
use crate::error::{ErrorKind, QueueError};
use crate::service::QueueLimits;
use crate::spec::{QueueChange, QueueSpec, Strategy, SubscriptionSpec, TopicChange, TopicSpec};
use async_trait::async_trait;
use mayfly_base::Clock;
use mayfly_model::Lineage;
use mayfly_store::writer::{self, Done};
use mayfly_store::{StoreError, sqlite};
use sqlx::SqliteConnection;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a write answers.
pub(crate) type Answer<T> = Result<T, QueueError>;

/// A write, with the way back to its caller.
pub(crate) struct Write {
    pub op: Op,
    pub done: Done<Answer<Told>>,
}

/// What can be written.
pub(crate) enum Op {
    Send {
        queue: String,
        bodies: Vec<String>,
        delay_s: u64,
    },
    Receive {
        queue: String,
        limit: usize,
    },
    Delete {
        queue: String,
        handles: Vec<Option<Handle>>,
    },
    Rewind {
        queue: String,
        from_ms: u64,
    },
    Publish {
        topic: String,
        bodies: Vec<String>,
        tags: Vec<String>,
        routing_key: String,
        lineage: Lineage,
    },
    /// Deliveries that arrived, or are given up.
    Finish {
        outlet: String,
        ids: Vec<i64>,
    },
    /// A delivery that did not arrive.
    Again {
        id: i64,
        due_ms: u64,
        attempt: u32,
    },
    /// A delivery to a queue that was full.
    Enqueue {
        outlet: String,
        delivery: i64,
        queue: String,
    },
    /// Outlets of functions that may be gone.
    Forget {
        outlets: Vec<String>,
    },
    /// What time does.
    Sweep,
    /// Changes of what there is: each in a transaction of its own, since what follows is decided by the catalogue in memory.
    Admin(Box<Admin>),
}

/// Changes of what there is.
pub(crate) enum Admin {
    CreateQueue { name: String, spec: QueueSpec, change: QueueChange },
    SetQueue { name: String, change: QueueChange },
    DeleteQueue { name: String },
    ClearQueue { name: String },
    CreateTopic { name: String, spec: TopicSpec, change: TopicChange },
    SetTopic { name: String, change: TopicChange },
    DeleteTopic { name: String },
    Subscribe { topic: String, name: String, spec: SubscriptionSpec },
    SetSubscription { topic: String, name: String, change: SubscriptionChange },
    Unsubscribe { topic: String, name: String },
}

/// A change of a subscription; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionChange {
    /// See [`SubscriptionSpec::strategy`].
    pub strategy: Option<Strategy>,
    /// See [`SubscriptionSpec::simplified`].
    pub simplified: Option<bool>,
    /// See [`SubscriptionSpec::filters`].
    pub filters: Option<Vec<String>>,
}

/// What a write told.
#[derive(Debug)]
pub(crate) enum Told {
    Done,
    Ids(Vec<u64>),
    Received(Vec<Received>, Option<u64>),
    Deleted(Vec<bool>),
    /// Whether there is more to sweep.
    Swept(bool),
    /// The client's id of what was made.
    Made(String),
}

/// A question, with the way back to its caller.
pub(crate) enum Ask {
    Counts {
        queue: Arc<Queue>,
        done: Done<QueueCounts>,
    },
    /// Deliveries of an outlet: those due at `now_ms` in the order of their times, or the first ones, in the order they came.
    Due {
        outlet: String,
        now_ms: u64,
        limit: usize,
        done: Done<Vec<Delivery>>,
    },
    First {
        outlet: String,
        limit: usize,
        done: Done<Vec<Delivery>>,
    },
    NextDue {
        outlet: String,
        done: Done<Option<u64>>,
    },
}

/// The writer.
pub(crate) struct Work {
    pub shared: Arc<Shared>,
    pub limits: QueueLimits,
    pub clock: Arc<dyn Clock>,
    /// The number of the last message.
    pub last_id: std::sync::atomic::AtomicU64,
}

/// What a group of writes changes in the figures, once it is on disk.
#[derive(Default)]
pub(super) struct Tally {
    slots: HashMap<i64, Figures>,
    pub bytes: i64,
    outlets: HashMap<String, i64>,
    topics: HashMap<String, u64>,
    /// The store may have become empty.
    pub freed: bool,
}

#[derive(Default)]
struct Figures {
    depth: i64,
    arrived: u64,
    sent: u64,
    received: u64,
    deleted: u64,
}

impl Tally {
    pub fn depth_of(&self, slot: i64) -> i64 {
        self.slots.get(&slot).map_or(0, |f| f.depth)
    }

    fn slot(&mut self, slot: i64) -> &mut Figures {
        self.slots.entry(slot).or_default()
    }

    pub fn added(&mut self, slot: i64, bytes: u64) {
        let figures = self.slot(slot);
        figures.depth += 1;
        figures.arrived += 1;
        self.bytes += super::int(bytes);
    }

    pub fn sent(&mut self, slot: i64) {
        self.slot(slot).sent += 1;
    }

    pub fn received(&mut self, slot: i64, count: u64) {
        self.slot(slot).received += count;
    }

    pub fn deleted(&mut self, slot: i64) {
        self.slot(slot).deleted += 1;
    }

    pub fn moved(&mut self, from: i64, to: i64) {
        self.slot(from).depth -= 1;
        let figures = self.slot(to);
        figures.depth += 1;
        figures.arrived += 1;
    }

    pub fn removed(&mut self, slot: i64, bytes: i64, counted: bool) {
        if counted {
            self.slot(slot).depth -= 1;
        }
        self.bytes -= bytes;
        self.freed = true;
    }

    pub fn put_aside(&mut self, slot: i64) {
        self.slot(slot).depth -= 1;
    }

    pub fn brought_back(&mut self, slot: i64, count: u64) {
        let figures = self.slot(slot);
        figures.depth += super::int(count);
        figures.arrived += count;
    }

    pub fn outlet(&mut self, outlet: &str, by: i64) {
        match self.outlets.get_mut(outlet) {
            Some(count) => *count += by,
            None => {
                self.outlets.insert(outlet.to_owned(), by);
            }
        }
    }

    pub fn published(&mut self, topic: &str, count: u64) {
        *self.topics.entry(topic.to_owned()).or_default() += count;
    }

    /// Tells everybody. The group is on disk.
    fn apply(self, shared: &Shared) {
        adjust(&shared.bytes, self.bytes);
        for (slot, figures) in self.slots {
            let Some(queue) = shared.names.read().slots.get(&slot).cloned() else { continue };
            let live = &queue.live;
            adjust(&live.depth, figures.depth);
            live.sent.fetch_add(figures.sent, Ordering::Relaxed);
            live.received.fetch_add(figures.received, Ordering::Relaxed);
            live.deleted.fetch_add(figures.deleted, Ordering::Relaxed);
            // No more rings than receives that wait: each that is served rings for the next.
            let rings = figures.arrived.min(live.waiting.load(Ordering::Acquire) as u64 + 1);
            for _ in 0..rings {
                live.arrived.notify_one();
            }
        }
        for (outlet, by) in self.outlets {
            if by <= 0 {
                // One that is gone is not made again for this.
                if let Some(found) = shared.known_outlet(&outlet) {
                    adjust(&found.pending, by);
                }
            } else {
                let found = shared.outlet(&outlet);
                adjust(&found.pending, by);
                found.arrived.notify_waiters();
                found.arrived.notify_one();
                shared.push.notify_one();
            }
        }
        for (topic, count) in self.topics {
            if let Ok(topic) = shared.topic(&topic) {
                topic.published.fetch_add(count, Ordering::Relaxed);
            }
        }
    }
}

#[async_trait]
impl writer::Work for Work {
    type Write = Write;
    type Read = Ask;
    const NAME: &'static str = "queues";
    const QUEUE_JOBS_MAX: usize = 1024;
    const GROUP_WRITES_MAX: usize = 256;

    async fn commit(&mut self, conn: &mut SqliteConnection, group: &mut Vec<Write>) {
        // Callers that went away while they waited get nothing done: above all, no message is taken for nobody.
        group.retain(|write| !(write.done.is_closed() && matches!(write.op, Op::Receive { .. })));
        let mut rest = std::mem::take(group).into_iter().peekable();
        while rest.peek().is_some() {
            let mut run: Vec<Write> = Vec::new();
            while let Some(write) = rest.next_if(|w| run.is_empty() || !matches!(w.op, Op::Admin(_))) {
                let alone = matches!(write.op, Op::Admin(_));
                run.push(write);
                if alone {
                    break;
                }
            }
            self.carry_out(conn, run).await;
        }
    }

    async fn read(&mut self, conn: &mut SqliteConnection, ask: Ask) {
        match ask {
            Ask::Counts { queue, done } => drop(done.send(self.counts(conn, &queue).await.map_err(StoreError::from))),
            Ask::Due { outlet, now_ms, limit, done } => {
                drop(done.send(super::outbox::due(conn, &outlet, now_ms, limit).await.map_err(StoreError::from)));
            }
            Ask::First { outlet, limit, done } => {
                drop(done.send(super::outbox::first(conn, &outlet, limit).await.map_err(StoreError::from)));
            }
            Ask::NextDue { outlet, done } => {
                drop(done.send(super::outbox::next_due(conn, &outlet).await.map_err(StoreError::from)));
            }
        }
    }
}

impl Work {
    /// Carries out what one transaction is to hold, and answers.
    async fn carry_out(&self, conn: &mut SqliteConnection, run: Vec<Write>) {
        match self.transaction(conn, &run).await {
            Ok(answers) => {
                for (write, answer) in run.into_iter().zip(answers) {
                    // The caller may have gone; the write stands all the same.
                    let _ = write.done.send(Ok(answer));
                }
            }
            Err(error) if run.len() == 1 => {
                for write in run {
                    let _ = write.done.send(Err(error.clone()));
                }
            }
            // One that does not fit on the disk must not take its neighbours down; and a delete makes room.
            Err(_) => {
                for write in run {
                    let answer = self.transaction(conn, std::slice::from_ref(&write)).await;
                    let answer = answer.and_then(|mut answers| answers.pop().ok_or(StoreError::Closed));
                    let _ = write.done.send(answer);
                }
            }
        }
    }

    async fn transaction(&self, conn: &mut SqliteConnection, run: &[Write]) -> Result<Vec<Answer<Told>>, StoreError> {
        let mut tally = Tally::default();
        let mut made = None;
        let mut answers = Vec::with_capacity(run.len());
        let mut tx = sqlite::begin(conn).await?;
        for write in run {
            match self.one(&mut tx, &mut tally, &mut made, &write.op).await {
                Ok(told) => answers.push(Ok(told)),
                // Whatever refuses does so before it changes anything.
                Err(Stop::Refused(error)) => answers.push(Err(error)),
                Err(Stop::Failed(error)) => {
                    // Its own failure is of no use to the caller, and the connection rolls back again before its next use.
                    let _ = tx.rollback().await;
                    return Err(error.into());
                }
            }
        }
        tx.commit().await?;
        if let Some(made) = made {
            admin::publish(&self.shared, made);
        }
        let freed = tally.freed;
        tally.apply(&self.shared);
        if freed && self.shared.bytes.load(Ordering::Acquire) == 0 {
            // Pages of the file go back to the system once there is nothing to keep.
            if let Err(error) = sqlx::query("PRAGMA incremental_vacuum(1024)").execute(conn).await {
                tracing::warn!(%error, "giving back free pages of the queues' database");
            }
        }
        Ok(answers)
    }

    async fn one(
        &self,
        conn: &mut SqliteConnection,
        tally: &mut Tally,
        made: &mut Option<Made>,
        op: &Op,
    ) -> Result<Told, Stop> {
        Ok(match op {
            Op::Send { queue, bodies, delay_s } => Told::Ids(self.send(conn, tally, queue, bodies, *delay_s).await?),
            Op::Receive { queue, limit } => {
                let (messages, next) = self.receive(conn, tally, queue, *limit).await?;
                Told::Received(messages, next)
            }
            Op::Delete { queue, handles } => Told::Deleted(self.delete(conn, tally, queue, handles).await?),
            Op::Rewind { queue, from_ms } => {
                self.rewind(conn, tally, queue, *from_ms).await?;
                Told::Done
            }
            Op::Publish { topic, bodies, tags, routing_key, lineage } => {
                Told::Ids(self.publish(conn, tally, topic, bodies, (tags, routing_key), lineage).await?)
            }
            Op::Finish { outlet, ids } => {
                self.finish(conn, tally, outlet, ids).await?;
                Told::Done
            }
            Op::Again { id, due_ms, attempt } => {
                self.again(conn, *id, *due_ms, *attempt).await?;
                Told::Done
            }
            Op::Enqueue { outlet, delivery, queue } => {
                self.enqueue(conn, tally, outlet, *delivery, queue).await?;
                Told::Done
            }
            Op::Forget { outlets } => {
                for outlet in outlets {
                    // It may be back.
                    if !self.shared.names.read().is_bound(outlet) {
                        self.drop_outlet(conn, tally, outlet).await?;
                    }
                }
                Told::Done
            }
            Op::Sweep => Told::Swept(self.sweep(conn, tally).await?),
            Op::Admin(admin) => {
                let (told, change) = self.admin(conn, tally, admin).await?;
                *made = Some(change);
                told
            }
        })
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    pub(super) fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn random(&self) -> i64 {
        i64::from_le_bytes(crate::service::random())
    }
}

/// Makes sure that each is named once.
pub(super) fn unique(ids: &[i64]) -> Vec<i64> {
    let mut seen = HashSet::with_capacity(ids.len());
    ids.iter().copied().filter(|id| seen.insert(*id)).collect()
}

impl Told {
    pub fn ids(self) -> Vec<u64> {
        match self {
            Self::Ids(ids) => ids,
            _ => Vec::new(),
        }
    }
}

impl Admin {
    /// A refusal for what is not there.
    pub(super) fn no_subscription(topic: &str, name: &str) -> QueueError {
        ErrorKind::NoSubscription.says(format!(
            "The topic `{}` has no subscription `{}`.",
            crate::catalogue::shown(topic),
            crate::catalogue::shown(name)
        ))
    }
}
