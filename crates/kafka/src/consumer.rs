//! A member of a consumer group, and the thread that it lives on.
//!
//! The thread serves the client: heartbeats' outcomes, assignments, answers to commits. Messages do not pass it: each partition has a queue of
//! its own, which its lane (a task) empties. A partition that is taken away is given up when its lane has ended, so that the next member finds
//! committed what was done here.

use crate::client::{Cluster, TopicState, look_for};
use crate::commit::commit;
use crate::lane::Lane;
use crate::progress::Progress;
use crate::{Handler, KafkaError, Lag, Settings, Start};
use mayfly_base::Shutdown;
use parking_lot::Mutex;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError as Native, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak, mpsc};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

/// Batches of one consumer that are handed over at once.
const SEATS: usize = 64;
/// How long lanes may go on with what they have under way when their partitions are taken away, or everything ends.
const GRACE: Duration = Duration::from_secs(3);
/// How long the last commit may take.
const LAST_COMMIT: Duration = Duration::from_secs(1);
/// How long an answer of the cluster about offsets is waited for.
const ANSWER: Duration = Duration::from_secs(10);
/// How often the platform's log is told of trouble at most.
const TROUBLE_EVERY: Duration = Duration::from_secs(10);
/// How often the cluster is asked how far it has come, and how long it may take to say.
const MEASURE_EVERY: Duration = Duration::from_secs(5);
const MEASURE_PATIENCE: Duration = Duration::from_millis(500);
/// How long the thread sleeps at most: at rest, and while something is to be committed.
const NAP: Duration = Duration::from_millis(100);
const SHORT_NAP: Duration = Duration::from_millis(20);
/// What a consumer's partitions may hold ahead together, in KiB, and each of them at least and at most.
const AHEAD_KIB: usize = 64 * 1024;
const AHEAD_KIB_EACH: (usize, usize) = (512, 8 * 1024);
/// Partitions that are assumed where the cluster does not say.
const PARTITIONS_ASSUMED: usize = 16;

/// A member of a consumer group.
pub struct Consumer {
    cluster: Arc<Cluster>,
    settings: Arc<Settings>,
    handler: Arc<dyn Handler>,
    /// Of the run that there is.
    running: Mutex<Weak<Shared>>,
}

impl Consumer {
    /// A member that is not there yet.
    pub fn new(cluster: Arc<Cluster>, settings: Settings, handler: Arc<dyn Handler>) -> Self {
        Self { cluster, settings: Arc::new(settings), handler, running: Mutex::default() }
    }

    /// Takes part in the group until `stop`, and hands over what its partitions bring. What is under way then may end, for a few seconds; what
    /// does not is handed over again by the next member. Dropping the future ends everything at once.
    ///
    /// # Errors
    /// What ended it before; it may be run again.
    pub async fn run(&self, stop: &Shutdown) -> Result<(), KafkaError> {
        let shared = Arc::new(Shared {
            settings: Arc::clone(&self.settings),
            handler: Arc::clone(&self.handler),
            progress: Mutex::default(),
            seats: Arc::new(Semaphore::new(SEATS)),
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
            failed: Mutex::default(),
            trouble: Mutex::default(),
            client: OnceLock::new(),
            lanes: Mutex::default(),
            epochs: AtomicU64::new(0),
            ahead_kib: OnceLock::new(),
            runtime: Handle::current(),
        });
        *self.running.lock() = Arc::downgrade(&shared);
        // When this future is dropped the thread ends too.
        let (_stopped, _cut) = (shared.stop.clone().drop_guard(), shared.cut.clone().drop_guard());
        let (told, mut ended) = oneshot::channel();
        let (config, own) = (self.cluster.config(), Arc::clone(&shared));
        let thread = std::thread::Builder::new().name("kafka".into()).spawn(move || {
            let _ = told.send(live(config, &own));
        });
        thread.map_err(|error| KafkaError(format!("no thread can be started: {error}")))?;
        let gone = || KafkaError("its thread broke".into());
        tokio::select! {
            result = &mut ended => return result.map_err(|_| gone())?,
            () = stop.triggered() => shared.stop.cancel(),
        }
        ended.await.map_err(|_| gone())?
    }

    /// True when the group has said that it knows all that has ended.
    pub fn is_settled(&self) -> bool {
        self.running.lock().upgrade().is_some_and(|shared| !shared.progress.lock().is_restless())
    }

    /// How many partitions it has.
    pub fn partitions(&self) -> usize {
        self.running.lock().upgrade().map_or(0, |shared| shared.progress.lock().partitions().len())
    }

    /// What waits in the partitions that it has.
    pub fn lag(&self) -> Lag {
        self.running.lock().upgrade().map_or_else(Lag::default, |shared| shared.progress.lock().lag())
    }
}

/// What the thread and the lanes have in common.
pub(crate) struct Shared {
    pub settings: Arc<Settings>,
    pub handler: Arc<dyn Handler>,
    pub progress: Mutex<Progress>,
    pub seats: Arc<Semaphore>,
    stop: CancellationToken,
    cut: CancellationToken,
    /// Why it cannot go on.
    failed: Mutex<Option<String>>,
    /// When the log was told of trouble.
    trouble: Mutex<Option<Instant>>,
    client: OnceLock<Weak<BaseConsumer<Watcher>>>,
    lanes: Mutex<HashMap<i32, Running>>,
    epochs: AtomicU64,
    ahead_kib: OnceLock<usize>,
    runtime: Handle,
}

/// A lane at work.
struct Running {
    stop: CancellationToken,
    cut: CancellationToken,
    /// Closed when the lane has ended, and everything that it held is gone.
    ended: mpsc::Receiver<()>,
}

/// Tells that a lane has ended; in order, unless it says otherwise.
struct Ending {
    shared: Arc<Shared>,
    in_order: bool,
    _told: mpsc::Sender<()>,
}

impl Ending {
    fn in_order(mut self) {
        self.in_order = true;
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if !self.in_order && !self.shared.cut.is_cancelled() {
            self.shared.fail("a partition's task broke".into());
        }
    }
}

impl Shared {
    /// It cannot go on: the first reason counts.
    fn fail(&self, why: String) {
        self.failed.lock().get_or_insert(why);
    }

    /// Something is wrong that may be right again by itself. The log is told now and then: a broker that is away fails many times a second.
    pub fn trouble(&self, what: &str) {
        let Settings { topic, group, .. } = &*self.settings;
        let mut told = self.trouble.lock();
        if told.is_some_and(|at| at.elapsed() < TROUBLE_EVERY) {
            tracing::debug!(topic, group, what, "trouble with a Kafka cluster");
            return;
        }
        *told = Some(Instant::now());
        tracing::warn!(topic, group, what, "trouble with a Kafka cluster");
    }

    fn list(&self, offsets: &[(i32, i64)]) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (partition, offset) in offsets {
            list.add_partition_offset(&self.settings.topic, *partition, Offset::Offset(*offset))?;
        }
        Ok(list)
    }

    /// Commits what is to be committed, unless a commit is under way. It does not wait for the answer.
    pub fn commit(&self) {
        let Some(client) = self.client.get().and_then(Weak::upgrade) else { return };
        self.commit_by(&client);
        self.release(client);
    }

    fn commit_by(&self, client: &BaseConsumer<Watcher>) {
        let offsets = self.progress.lock().due(Instant::now());
        if offsets.is_empty() {
            return;
        }
        if let Err(error) = self.list(&offsets).and_then(|list| commit(client, &list)) {
            self.progress.lock().committed(Instant::now(), &[], true);
            self.trouble(&format!("offsets cannot be committed: {error}"));
        }
    }

    /// Lets go of the client where nothing may block: ending it, if this was the last hold, can take a while.
    fn release(&self, client: Arc<BaseConsumer<Watcher>>) {
        if let Some(last) = Arc::into_inner(client) {
            self.runtime.spawn_blocking(move || drop(last));
        }
    }

    /// A lane for each of these partitions, which begin at these offsets.
    fn open(self: &Arc<Self>, client: &Arc<BaseConsumer<Watcher>>, starts: &[Begin]) {
        let each = AHEAD_KIB_EACH;
        let ahead_bytes = self.ahead_kib.get().copied().unwrap_or(each.0) * 1024;
        for Begin { partition, offset, committed } in starts {
            let Some(mut queue) = client.split_partition_queue(&self.settings.topic, *partition) else {
                return self.fail(format!("partition {partition} has no queue"));
            };
            let rung = Arc::new(Notify::new());
            let bell = Arc::clone(&rung);
            queue.set_nonempty_callback(move || bell.notify_one());
            let epoch = self.epochs.fetch_add(1, Ordering::Relaxed);
            self.progress.lock().assigned(*partition, epoch, *offset, *committed);
            let (stop, cut) = (self.stop.child_token(), self.cut.child_token());
            let (told, ended) = mpsc::channel();
            let lane = Lane {
                shared: Arc::clone(self),
                partition: *partition,
                epoch,
                queue,
                rung,
                stop: stop.clone(),
                cut: cut.clone(),
                ahead_bytes,
            };
            let ending = Ending { shared: Arc::clone(self), in_order: false, _told: told };
            self.lanes.lock().insert(*partition, Running { stop, cut, ended });
            self.runtime.spawn(async move {
                lane.run().await;
                ending.in_order();
            });
        }
    }

    /// Ends the lanes of these partitions, or of all: they finish what they have under way, for a while.
    fn close(&self, partitions: Option<&[i32]>) {
        let mut lanes = self.lanes.lock();
        let wanted: Vec<i32> = match partitions {
            Some(partitions) => partitions.to_vec(),
            None => lanes.keys().copied().collect(),
        };
        let closing: Vec<Running> = wanted.iter().filter_map(|partition| lanes.remove(partition)).collect();
        drop(lanes);
        for lane in &closing {
            lane.stop.cancel();
        }
        let until = Instant::now() + GRACE;
        let mut late = Vec::new();
        for lane in closing {
            let left = until.saturating_duration_since(Instant::now());
            if lane.ended.recv_timeout(left) == Err(mpsc::RecvTimeoutError::Timeout) {
                lane.cut.cancel();
                late.push(lane);
            }
        }
        for lane in late {
            let _ = lane.ended.recv_timeout(Duration::from_secs(1));
        }
    }
}

/// Where a partition begins.
struct Begin {
    partition: i32,
    offset: i64,
    /// True when the group knows it.
    committed: bool,
}

/// Hears from the client.
pub(crate) struct Watcher(Weak<Shared>);

impl ClientContext for Watcher {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(facility, message, "librdkafka");
            }
            // Brokers that are away are told by `error` too.
            _ => tracing::debug!(facility, message, "librdkafka"),
        }
    }

    fn error(&self, error: Native, reason: &str) {
        if let Some(shared) = self.0.upgrade() {
            shared.trouble(&format!("{error}: {reason}"));
        }
    }
}

impl ConsumerContext for Watcher {
    fn rebalance(&self, client: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let Some(shared) = self.0.upgrade() else {
            let _ = client.unassign();
            return;
        };
        let partitions: Vec<i32> = list.elements().iter().map(|element| element.partition()).collect();
        if event != RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            shared.close(Some(&partitions));
            let rest = shared.progress.lock().rest_of(&partitions);
            if !rest.is_empty() && !client.assignment_lost() {
                // It leaves before the request to join anew, on the same connection.
                if let Err(error) = shared.list(&rest).and_then(|list| commit(client, &list)) {
                    shared.trouble(&format!("offsets of partitions that were taken away are not committed: {error}"));
                }
            }
            let mut progress = shared.progress.lock();
            partitions.iter().for_each(|partition| progress.revoked(*partition));
            drop(progress);
            let _ = client.unassign();
            return;
        }
        let own = shared.client.get().and_then(Weak::upgrade);
        let assigned = begin(client, &shared.settings, list).and_then(|starts| {
            // Before the assignment, so that no message goes elsewhere.
            if let Some(own) = &own {
                shared.open(own, &starts);
            }
            let offsets: Vec<_> = starts.iter().map(|start| (start.partition, start.offset)).collect();
            Ok(shared.list(&offsets).and_then(|list| client.assign(&list))?)
        });
        if let Err(error) = assigned {
            shared.fail(format!("where the group stands cannot be found out: {error}"));
            let _ = client.unassign();
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, list: &TopicPartitionList) {
        let Some(shared) = self.0.upgrade() else { return };
        let mut failure = result.err();
        let mut offsets = Vec::new();
        for element in list.elements() {
            match (element.error(), element.offset()) {
                (Ok(()), Offset::Offset(offset)) if failure.is_none() => offsets.push((element.partition(), offset)),
                (Ok(()), _) => {}
                (Err(error), _) => failure = Some(error),
            }
        }
        if let Some(error) = &failure {
            shared.trouble(&format!("offsets were not committed: {error}"));
        }
        shared.progress.lock().committed(Instant::now(), &offsets, failure.is_some());
    }
}

/// Where partitions begin: where the group stands, or where the settings say that a new one begins.
fn begin(
    client: &BaseConsumer<Watcher>,
    settings: &Settings,
    list: &TopicPartitionList,
) -> Result<Vec<Begin>, KafkaError> {
    let mut starts = Vec::new();
    let mut fresh = TopicPartitionList::new();
    let committed = client.committed_offsets(list.clone(), ANSWER)?;
    for element in committed.elements() {
        element.error()?;
        match element.offset() {
            Offset::Offset(offset) => {
                starts.push(Begin { partition: element.partition(), offset, committed: true });
            }
            _ => {
                fresh.add_partition(element.topic(), element.partition());
            }
        }
    }
    if fresh.count() == 0 {
        return Ok(starts);
    }
    // Before the search by time: what comes between the two is not left out.
    let mut bounds = HashMap::new();
    for element in fresh.elements() {
        let partition = element.partition();
        bounds.insert(partition, client.fetch_watermarks(&settings.topic, partition, ANSWER)?);
    }
    let found = match settings.start {
        Start::Earliest => fresh,
        Start::At(ms) => {
            let mut times = fresh;
            times.set_all_offsets(Offset::Offset(i64::try_from(ms).unwrap_or(i64::MAX)))?;
            client.offsets_for_times(times, ANSWER)?
        }
    };
    for element in found.elements() {
        let partition = element.partition();
        let (low, high) = bounds.get(&partition).copied().unwrap_or_default();
        let offset = match (settings.start, element.offset()) {
            (Start::Earliest, _) => low,
            (Start::At(_), Offset::Offset(offset)) if element.error().is_ok() => offset,
            (Start::At(_), _) => high,
        };
        starts.push(Begin { partition, offset, committed: false });
    }
    Ok(starts)
}

/// The thread: from joining the group to leaving it.
fn live(mut config: ClientConfig, shared: &Arc<Shared>) -> Result<(), KafkaError> {
    let settings = &*shared.settings;
    let partitions = match look_for(&config, &settings.topic) {
        TopicState::There(partitions) => partitions.max(1),
        TopicState::Missing => {
            shared.trouble(&format!("there is no topic {}; it is waited for", settings.topic));
            PARTITIONS_ASSUMED
        }
        TopicState::Unknown(why) => {
            shared.trouble(&format!("the cluster does not answer, and is asked again until it does: {why}"));
            PARTITIONS_ASSUMED
        }
    };
    let ahead_kib = (AHEAD_KIB / partitions).clamp(AHEAD_KIB_EACH.0, AHEAD_KIB_EACH.1);
    let _ = shared.ahead_kib.set(ahead_kib);
    let usual = [
        // A member that was killed is missed after this long.
        ("session.timeout.ms", "10000"),
        ("heartbeat.interval.ms", "2000"),
        // A full queue is looked at again soon: waiting longer leaves fast functions without work.
        ("fetch.queue.backoff.ms", "20"),
    ];
    for (key, value) in usual {
        if config.get(key).is_none() {
            config.set(key, value);
        }
    }
    if config.get("queued.max.messages.kbytes").is_none() {
        config.set("queued.max.messages.kbytes", ahead_kib.to_string());
    }
    config
        .set("group.id", &settings.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("partition.assignment.strategy", "range,roundrobin")
        // For offsets that are not kept any more: what is left of the messages is handed over. Where a group begins is decided before.
        .set("auto.offset.reset", "earliest");
    let client: Arc<BaseConsumer<Watcher>> = Arc::new(config.create_with_context(Watcher(Arc::downgrade(shared)))?);
    let _ = shared.client.set(Arc::downgrade(&client));
    client.subscribe(&[&settings.topic])?;
    let result = serve(&client, shared);
    shared.stop.cancel();
    if result.is_err() {
        shared.cut.cancel();
    }
    shared.close(None);
    // What was done last is committed before the group is left.
    let until = Instant::now() + LAST_COMMIT;
    while shared.progress.lock().is_restless() && !shared.cut.is_cancelled() && Instant::now() < until {
        shared.commit_by(&client);
        client.poll(SHORT_NAP);
    }
    result
}

/// Serves the client until it is to stop.
fn serve(client: &Arc<BaseConsumer<Watcher>>, shared: &Shared) -> Result<(), KafkaError> {
    let mut measured: Option<Instant> = None;
    loop {
        if let Some(why) = shared.failed.lock().take() {
            return Err(KafkaError(why));
        }
        if shared.stop.is_cancelled() {
            return Ok(());
        }
        let nap = if shared.progress.lock().is_restless() { SHORT_NAP } else { NAP };
        match client.poll(nap) {
            None => {}
            Some(Ok(_)) => return Err(KafkaError("a message came outside of its partition's queue".into())),
            Some(Err(Native::MessageConsumptionFatal(code))) => return Err(KafkaError(code.to_string())),
            Some(Err(error)) => shared.trouble(&error.to_string()),
        }
        shared.commit_by(client);
        if measured.is_none_or(|at| at.elapsed() > MEASURE_EVERY) {
            let partitions = shared.progress.lock().partitions();
            if partitions.is_empty() {
                continue;
            }
            measured = Some(Instant::now());
            measure(client, shared, &partitions);
        }
    }
}

/// Asks how far the cluster has come.
fn measure(client: &BaseConsumer<Watcher>, shared: &Shared, partitions: &[i32]) {
    let mut ends = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        let _ = ends.add_partition_offset(&shared.settings.topic, *partition, Offset::End);
    }
    // One request for each broker; an offset of -1 asks for the end.
    let Ok(ends) = client.offsets_for_times(ends, MEASURE_PATIENCE) else { return };
    let mut progress = shared.progress.lock();
    for element in ends.elements() {
        if let (Ok(()), Offset::Offset(high)) = (element.error(), element.offset()) {
            progress.measured(element.partition(), high);
        }
    }
}
