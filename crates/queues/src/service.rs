//! The queues as the rest of the platform sees them.

use crate::catalogue::{Queue, Shared};
use crate::db::{Admin, Answer, Ask, Handle, Op, QueueCounts, Received, Told, Write, open};
use crate::error::{ErrorKind, QueueError};
use crate::spec::{BATCH_BYTES_MAX, BATCH_MAX, DELAY_S_MAX, POLL_S_MAX, QueueChange, QueueSpec, check_queue_name};
use mayfly_base::Clock;
use mayfly_base::shutdown::Shutdown;
use mayfly_model::Lineage;
use mayfly_store::StoreError;
use mayfly_store::writer::{Job, Jobs};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// What bounds the queues. Every default is explained in `docs/queues.md`.
#[derive(Clone, Debug)]
pub struct QueueLimits {
    /// Most queues.
    pub queues_max: usize,
    /// Most topics.
    pub topics_max: usize,
    /// Most subscriptions of a topic.
    pub subscriptions_max: usize,
    /// All messages together, in bytes.
    pub bytes_max: u64,
    /// Receives that wait at one queue.
    pub waiting_queue_max: usize,
    /// Receives that wait in all.
    pub waiting_max: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self {
            queues_max: 1000,
            topics_max: 1000,
            subscriptions_max: 500,
            bytes_max: 8 << 30,
            waiting_queue_max: 500,
            waiting_max: 5000,
        }
    }
}

/// Random bytes.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system's random generator works once the system is up");
    bytes
}

pub(crate) fn new_id(kind: &str) -> String {
    format!("{kind}-{}", hex::encode(random::<4>()))
}

/// All queues and topics of the platform. Cheap to clone.
#[derive(Clone)]
pub struct Queues {
    inner: Arc<Inner>,
    pub(crate) lineage: Lineage,
}

struct Inner {
    jobs: Jobs<Write, Ask>,
    shared: Arc<Shared>,
    limits: QueueLimits,
    clock: Arc<dyn Clock>,
    waiting: AtomicUsize,
    stop: Shutdown,
    runtime: tokio::runtime::Handle,
}

/// A queue and what is in it.
#[derive(Clone, Debug)]
pub struct QueueView {
    /// Its name, attributes and the like.
    pub queue: Arc<Queue>,
    /// What is in it.
    pub counts: QueueCounts,
    /// Queues whose dead letters go here: id and name.
    pub sources: Vec<(String, String)>,
}

/// A queue's figures since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueFigures {
    /// What is in it.
    pub counts: QueueCounts,
    /// Messages sent.
    pub sent: u64,
    /// Messages received.
    pub received: u64,
    /// Messages deleted.
    pub deleted: u64,
}

impl Queues {
    /// The same queues, for what an invocation of a function sends and publishes: who is called because of it is told so.
    pub fn calling(&self, lineage: Lineage) -> Self {
        Self { lineage, ..self.clone() }
    }

    /// Opens the database at `path`, makes it where absent, and starts its writer on the current tokio runtime. [`Queues::run`] has to be
    /// run beside it.
    ///
    /// # Errors
    /// [`StoreError::Schema`] when the file is of a newer release, [`StoreError::Corrupt`] when it is no database.
    pub async fn open(path: &Path, limits: QueueLimits, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let (jobs, shared) = open(path, limits.clone(), Arc::clone(&clock)).await?;
        let inner = Inner {
            jobs,
            shared,
            limits,
            clock,
            waiting: AtomicUsize::new(0),
            stop: Shutdown::new(),
            runtime: tokio::runtime::Handle::current(),
        };
        Ok(Self { inner: Arc::new(inner), lineage: Lineage::default() })
    }

    /// From now on nobody waits for messages any more: long polls are answered with what there is.
    pub fn drain(&self) {
        self.inner.stop.trigger();
    }

    /// Finishes what was accepted and closes the file.
    ///
    /// # Errors
    /// [`StoreError::Closed`] when it is closed already.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.inner.jobs.close().await
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    pub(crate) fn runtime(&self) -> &tokio::runtime::Handle {
        &self.inner.runtime
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.inner.clock.now_ms()
    }

    pub(crate) async fn write(&self, op: Op) -> Answer<Told> {
        self.inner.jobs.ask(|done| Job::Write(Write { op, done })).await?
    }

    pub(crate) async fn ask<T>(&self, ask: impl FnOnce(mayfly_store::writer::Done<T>) -> Ask) -> Result<T, QueueError> {
        Ok(self.inner.jobs.ask(|done| Job::Read(ask(done))).await?)
    }

    pub(crate) async fn admin(&self, admin: Admin) -> Answer<Told> {
        self.write(Op::Admin(Box::new(admin))).await
    }

    /// Creates a queue and tells its id.
    ///
    /// # Errors
    /// [`ErrorKind::QueueName`], [`ErrorKind::QueueExists`], [`ErrorKind::TooManyQueues`], and what [`QueueSpec::with`] says.
    pub async fn create_queue(&self, name: &str, change: QueueChange) -> Answer<String> {
        check_queue_name(name)?;
        let spec = QueueSpec::new(new_id("queue"), self.now_ms());
        match self.admin(Admin::CreateQueue { name: name.to_owned(), spec, change }).await? {
            Told::Made(id) => Ok(id),
            other => Err(unexpected(&other)),
        }
    }

    /// Changes a queue.
    ///
    /// # Errors
    /// [`ErrorKind::NoQueue`], and what [`QueueSpec::with`] says.
    pub async fn set_queue(&self, name: &str, change: QueueChange) -> Answer<()> {
        self.admin(Admin::SetQueue { name: name.to_owned(), change }).await.map(drop)
    }

    /// Deletes a queue with its messages.
    ///
    /// # Errors
    /// [`ErrorKind::NoQueue`], [`ErrorKind::QueueInUse`].
    pub async fn delete_queue(&self, name: &str) -> Answer<()> {
        self.admin(Admin::DeleteQueue { name: name.to_owned() }).await.map(drop)
    }

    /// Deletes all messages of a queue, those that could be brought back too.
    ///
    /// # Errors
    /// [`ErrorKind::NoQueue`].
    pub async fn clear_queue(&self, name: &str) -> Answer<()> {
        self.admin(Admin::ClearQueue { name: name.to_owned() }).await.map(drop)
    }

    /// Brings back what was deleted and had been sent at or after `from_ms` (milliseconds since the Unix epoch).
    ///
    /// # Errors
    /// [`ErrorKind::NoQueue`], [`ErrorKind::NoRewind`].
    pub async fn rewind_queue(&self, name: &str, from_ms: u64) -> Answer<()> {
        self.write(Op::Rewind { queue: name.to_owned(), from_ms }).await.map(drop)
    }

    /// The queues whose names contain `search`, in the order of their names.
    pub fn list_queues(&self, search: &str) -> Vec<Arc<Queue>> {
        let search = search.to_ascii_lowercase();
        let names = self.shared().names.read();
        names.queues.iter().filter(|(key, _)| key.contains(&search)).map(|(_, q)| Arc::clone(q)).collect()
    }

    /// A queue and what is in it.
    ///
    /// # Errors
    /// [`ErrorKind::NoQueue`].
    pub async fn queue(&self, name: &str) -> Answer<QueueView> {
        let queue = self.shared().queue(name)?;
        let asked = Arc::clone(&queue);
        let counts = self.ask(|done| Ask::Counts { queue: asked, done }).await?;
        let names = self.shared().names.read();
        let sources = names.sources_of(name).map(|q| (q.spec.id.clone(), q.name.clone())).collect();
        Ok(QueueView { queue, counts, sources })
    }

    /// The figures of a queue.
    ///
    /// # Errors
    /// [`ErrorKind::NoQueue`].
    pub async fn figures(&self, name: &str) -> Answer<QueueFigures> {
        let QueueView { queue, counts, .. } = self.queue(name).await?;
        let read = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
        let live = &queue.live;
        Ok(QueueFigures {
            counts,
            sent: read(&live.sent),
            received: read(&live.received),
            deleted: read(&live.deleted),
        })
    }

    /// Sends a message and tells its number. It is on disk when this returns.
    ///
    /// # Errors
    /// As [`Queues::send_batch`].
    pub async fn send(&self, queue: &str, body: impl Into<String>) -> Answer<u64> {
        let ids = self.send_batch(queue, vec![body.into()], 0).await?;
        ids.first().copied().ok_or_else(|| ErrorKind::Internal.says("The message has no number."))
    }

    /// Sends messages that can be received after `delay_s` seconds, all or none, and tells their numbers.
    ///
    /// # Errors
    /// [`ErrorKind::NoQueue`], [`ErrorKind::EmptyMessage`], [`ErrorKind::MessageSize`], [`ErrorKind::BatchSize`],
    /// [`ErrorKind::BatchBytes`], [`ErrorKind::Delay`], [`ErrorKind::Full`].
    pub async fn send_batch(&self, queue: &str, bodies: Vec<String>, delay_s: u64) -> Answer<Vec<u64>> {
        let found = self.shared().queue(queue)?;
        if delay_s > DELAY_S_MAX {
            return Err(ErrorKind::Delay.says(format!("`delaySeconds` may be {DELAY_S_MAX} at most.")));
        }
        check_batch(&bodies, found.spec.message_bytes_max)?;
        Ok(self.write(Op::Send { queue: queue.to_owned(), bodies, delay_s }).await?.ids())
    }

    /// Receives up to `limit` messages, and hides them. With none there, waits `wait_s` seconds for the first one (`None`: as long as the
    /// queue says).
    ///
    /// # Errors
    /// [`ErrorKind::NoMessage`] when there was none in time, [`ErrorKind::NoQueue`], [`ErrorKind::Throttled`] when too many wait.
    pub async fn receive(&self, queue: &str, limit: usize, wait_s: Option<u64>) -> Answer<Vec<Received>> {
        let found = self.shared().queue(queue)?;
        let wait_s = wait_s.unwrap_or(found.spec.poll_s);
        if wait_s > POLL_S_MAX {
            return Err(QueueError::range("pollingWaitSeconds", 0, POLL_S_MAX));
        }
        if !(1..=BATCH_MAX).contains(&limit) {
            return Err(QueueError::range("numOfMsg", 1, BATCH_MAX as u64));
        }
        let (messages, _) = self.take(queue, limit).await?;
        if !messages.is_empty() {
            return Ok(messages);
        }
        if wait_s == 0 || self.inner.stop.is_triggered() {
            return Err(no_message(&found));
        }
        let deadline = Instant::now() + Duration::from_secs(wait_s);
        self.wait_for(queue, limit, deadline).await
    }

    /// Receives that wait at a queue.
    ///
    /// # Errors
    /// [`ErrorKind::NoQueue`].
    pub fn waiting(&self, queue: &str) -> Answer<usize> {
        Ok(self.shared().queue(queue)?.live.waiting.load(Ordering::Acquire))
    }

    async fn take(&self, queue: &str, limit: usize) -> Answer<(Vec<Received>, Option<u64>)> {
        match self.write(Op::Receive { queue: queue.to_owned(), limit }).await? {
            Told::Received(messages, next_ms) => Ok((messages, next_ms)),
            other => Err(unexpected(&other)),
        }
    }

    async fn wait_for(&self, name: &str, limit: usize, deadline: Instant) -> Answer<Vec<Received>> {
        let queue = self.shared().queue(name)?;
        let mut seat = Seat::take(&self.inner, &queue)?;
        // Whether this one has been woken and found nothing: what woke it may be hidden for a shorter time than others know of.
        let mut rung = false;
        loop {
            let arrived = queue.live.arrived.notified();
            tokio::pin!(arrived);
            // Registered before the look, so that what arrives between look and wait is not missed.
            arrived.as_mut().enable();
            let (messages, next_ms) = self.take(name, limit).await?;
            if !messages.is_empty() {
                return Ok(messages);
            }
            let pause = next_ms.map(|ms| Duration::from_millis(ms.saturating_sub(self.now_ms()).max(1)));
            // Of the others only one is woken by the clock; the rest are woken by that one.
            let pause = pause.filter(|_| seat.hold_timer() || rung);
            let wake = pause.map_or(deadline, |pause| (Instant::now() + pause).min(deadline));
            tokio::select! {
                () = arrived => rung = true,
                () = tokio::time::sleep_until(wake) => {
                    if Instant::now() >= deadline {
                        // What became visible with the deadline counts.
                        let (messages, _) = self.take(name, limit).await?;
                        return if messages.is_empty() { Err(no_message(&queue)) } else { Ok(messages) };
                    }
                }
                () = self.inner.stop.triggered() => return Err(no_message(&queue)),
            }
        }
    }

    /// Deletes messages by the handles they were received with; tells of each handle whether it was valid.
    ///
    /// # Errors
    /// [`ErrorKind::NoQueue`], [`ErrorKind::BatchSize`].
    pub async fn delete(&self, queue: &str, handles: &[String]) -> Answer<Vec<bool>> {
        check_count("receiptHandle", handles.len())?;
        let handles = handles.iter().map(|h| Handle::parse(h)).collect();
        match self.write(Op::Delete { queue: queue.to_owned(), handles }).await? {
            Told::Deleted(each) => Ok(each),
            other => Err(unexpected(&other)),
        }
    }
}

/// A place among those who wait at a queue.
struct Seat<'a> {
    inner: &'a Inner,
    queue: &'a Queue,
    timer: bool,
}

impl<'a> Seat<'a> {
    fn take(inner: &'a Inner, queue: &'a Queue) -> Answer<Self> {
        let enter = |count: &AtomicUsize, max: usize| {
            count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < max).then_some(n + 1)).is_ok()
        };
        let throttled = |what: &str| {
            ErrorKind::Throttled
                .says(format!("Too many receives wait {what}. Try again shortly, with fewer consumers."))
        };
        if !enter(&inner.waiting, inner.limits.waiting_max) {
            return Err(throttled("in all"));
        }
        if !enter(&queue.live.waiting, inner.limits.waiting_queue_max) {
            inner.waiting.fetch_sub(1, Ordering::AcqRel);
            return Err(throttled("at this queue"));
        }
        Ok(Self { inner, queue, timer: false })
    }

    /// True when this one waits for hidden messages.
    fn hold_timer(&mut self) -> bool {
        let free = || self.queue.live.timer.compare_exchange(false, true, Ordering::AcqRel, Ordering::Acquire).is_ok();
        self.timer = self.timer || free();
        self.timer
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        if self.timer {
            self.queue.live.timer.store(false, Ordering::Release);
        }
        self.inner.waiting.fetch_sub(1, Ordering::AcqRel);
        self.queue.live.waiting.fetch_sub(1, Ordering::AcqRel);
        // Whoever is next sees to the timer, and to what else may be there.
        self.queue.live.arrived.notify_one();
    }
}

fn no_message(queue: &Queue) -> QueueError {
    ErrorKind::NoMessage.says(format!("Nothing can be received from `{}` now.", queue.name))
}

pub(crate) fn unexpected(told: &Told) -> QueueError {
    tracing::error!(?told, "the writer's answer does not suit the question");
    ErrorKind::Internal.says("An internal error occurred.")
}

pub(crate) fn check_count(name: &str, count: usize) -> Result<(), QueueError> {
    if count == 0 {
        return Err(QueueError::missing(name));
    }
    if count > BATCH_MAX {
        return Err(ErrorKind::BatchSize.says(format!("`{name}`: at most {BATCH_MAX} in one request.")));
    }
    Ok(())
}

pub(crate) fn check_batch(bodies: &[String], bytes_max: u64) -> Result<(), QueueError> {
    check_count("msgBody", bodies.len())?;
    if bodies.iter().any(String::is_empty) {
        return Err(ErrorKind::EmptyMessage.says("A message needs some text."));
    }
    if let Some(large) = bodies.iter().find(|b| b.len() as u64 > bytes_max) {
        return Err(ErrorKind::MessageSize
            .says(format!("A message has {} bytes, and may have {bytes_max} here (`maxMsgSize`).", large.len())));
    }
    let all: usize = bodies.iter().map(String::len).sum();
    if all > BATCH_BYTES_MAX {
        return Err(ErrorKind::BatchBytes
            .says(format!("The messages have {all} bytes together, and may have {BATCH_BYTES_MAX}.")));
    }
    Ok(())
}
