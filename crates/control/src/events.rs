//! Asynchronous events: accepted when durable, run with bounded concurrency, tried again by `plan::retry`, finished.
//!
//! The event log is the truth. Beside it an index in memory knows what is pending, when it is due, and which functions
//! wait for a turn; after a restart it is read back from the log. An event whose run was cut short by a crash runs
//! again: at least once, as SCF promises.

mod status;
mod terminate;

pub use status::{EndedCounts, FunctionDepth, PendingEvent};
pub use terminate::TerminateError;

use crate::callers::Chains;
use crate::catalogue::{Catalogue, store_error};
use crate::endings::{Cause, Endings, Ran};
use crate::ports::{InvokeRequest, Invoker, Logs};
use mayfly_base::Clock;
use mayfly_base::abort::{Abort, abort};
use mayfly_model::{ApiError, EventMark, EventPolicy, InvocationRecord, InvokeOutcome, RequestId, Status};
use mayfly_plan::retry::{Attempt, Tried, Verdict};
use mayfly_store::{EventCursor, EventLog, StoreError, StoredEvent};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Payload of events kept in memory, in bytes; beyond it a payload is read back from the log when its turn comes.
const CACHE_BYTES_MAX: usize = 32 << 20;
/// Events read from the log in one go at the start.
const RECOVER_PAGE: usize = 1000;
/// Pause before the log is asked again after it failed.
const LOG_RETRY: Duration = Duration::from_secs(1);
/// How often a failing log is asked: to be read at the start, and to forget a finished event before that is left to run again after a restart.
const LOG_TRIES: u32 = 5;

/// How many events run at once.
#[derive(Clone, Copy, Debug)]
pub struct EventConcurrency {
    /// Of all functions together.
    pub total: usize,
    /// Of one function.
    pub per_function: usize,
}

/// An event as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Namespace of the function.
    pub namespace: String,
    /// Name of the function.
    pub function: String,
    /// The version or alias that the caller named.
    pub qualifier: String,
    /// Pairs of the caller's `RoutingKey`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routing_key: Vec<(String, String)>,
    /// The event: JSON text.
    pub event: String,
    /// When it was accepted, in milliseconds since the epoch.
    pub accepted_ms: u64,
    /// What it came of.
    #[serde(default, skip_serializing_if = "Cause::is_default")]
    pub cause: Cause,
}

/// What is known of a pending event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Namespace of its function.
    pub namespace: String,
    /// Name of its function.
    pub function: String,
    /// The attempt that runs or comes next: 0 is the first.
    pub retry: u32,
    /// When it was accepted, in milliseconds since the epoch.
    pub since_ms: u64,
}

impl Event {
    /// What the records of its attempts say of it.
    fn mark(&self) -> EventMark {
        EventMark { source: self.cause.invoke_type(), accepted_ms: self.accepted_ms }
    }
}

type Owner = Arc<(String, String)>;

#[derive(Debug)]
struct Item {
    owner: Owner,
    since_ms: u64,
    due_ms: u64,
    tried: Tried,
    /// The event, while the cache has room.
    event: Option<Arc<Event>>,
    bytes: usize,
    qualifier: Box<str>,
    /// What it came of; most came of a call of the API.
    cause: Option<Box<Cause>>,
    state: Stage,
}

/// Where an event stands.
#[derive(Debug)]
enum Stage {
    /// It waits to be due, or for its turn.
    Waiting,
    /// An attempt is under way.
    Running(terminate::Running),
    /// It waited, and is being terminated: it gets no turn any more.
    Terminating,
}

#[derive(Debug, Default)]
struct Queue {
    /// Every event of the function, by the time at which it was accepted.
    pending: BTreeSet<(u64, RequestId)>,
    ready: VecDeque<RequestId>,
    running: usize,
    /// True while the function stands in `State::turns`.
    in_turn: bool,
}

#[derive(Debug, Default)]
struct State {
    items: HashMap<RequestId, Item>,
    waiting: BTreeSet<(u64, RequestId)>,
    queues: HashMap<Owner, Queue>,
    /// Functions with ready events and room to run one, in the order of their turns.
    turns: VecDeque<Owner>,
    running: usize,
    cached_bytes: usize,
}

impl Item {
    fn cause(&self) -> Cause {
        self.cause.as_deref().cloned().unwrap_or_default()
    }
}

impl State {
    /// Takes an event out.
    fn forget(&mut self, id: RequestId) {
        let Some(item) = self.items.remove(&id) else { return };
        if item.event.is_some() {
            self.cached_bytes -= item.bytes;
        }
        if let Some(queue) = self.queues.get_mut(&item.owner) {
            queue.pending.remove(&(item.since_ms, id));
        }
    }

    /// Forgets a function that has no events.
    fn drop_if_empty(&mut self, owner: &Owner) {
        if self.queues.get(owner).is_some_and(|queue| queue.pending.is_empty() && queue.running == 0) {
            self.queues.remove(owner);
        }
    }
}

/// Accepts and runs asynchronous events.
pub struct Events {
    log: Arc<dyn EventLog>,
    catalogue: Catalogue,
    invoker: Arc<dyn Invoker>,
    records: Arc<dyn Logs>,
    endings: Arc<Endings>,
    clock: Arc<dyn Clock>,
    chains: Arc<Chains>,
    concurrency: EventConcurrency,
    drain: Duration,
    state: Mutex<State>,
    wake: Notify,
    counts: status::Counts,
}

/// Both counts of [`Tried`] in the one number that the log keeps: run errors in the upper 8 bits.
fn pack(tried: Tried) -> u32 {
    tried.run_errors.min(0xff) << 24 | tried.platform_errors.min(0xff_ffff)
}

fn unpack(attempt: u32) -> Tried {
    Tried { run_errors: attempt >> 24, platform_errors: attempt & 0xff_ffff }
}

fn attempts(tried: Tried) -> u32 {
    tried.run_errors.saturating_add(tried.platform_errors)
}

/// What the dispatcher works with.
pub struct EventParts {
    /// Accepted events.
    pub log: Arc<dyn EventLog>,
    /// What exists.
    pub catalogue: Catalogue,
    /// Runs invocations.
    pub invoker: Arc<dyn Invoker>,
    /// Records of invocations.
    pub records: Arc<dyn Logs>,
    /// What follows the ends of events.
    pub endings: Arc<Endings>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Bounds chains of invocations.
    pub chains: Arc<Chains>,
}

impl Events {
    /// Makes the dispatcher; nothing runs before [`Events::run`].
    pub fn new(parts: EventParts, concurrency: EventConcurrency, drain: Duration) -> Self {
        let EventParts { log, catalogue, invoker, records, endings, clock, chains } = parts;
        Self {
            log,
            catalogue,
            invoker,
            records,
            endings,
            clock,
            chains,
            concurrency: EventConcurrency {
                total: concurrency.total.max(1),
                per_function: concurrency.per_function.max(1),
            },
            drain,
            state: Mutex::default(),
            wake: Notify::new(),
            counts: status::Counts::default(),
        }
    }

    /// Takes an event in. It is durable when this returns, and will be run.
    ///
    /// Errors: `RequestLimitExceeded` when too many events are pending; else see [`store_error`].
    pub async fn accept(self: &Arc<Self>, id: RequestId, event: Event) -> Result<(), ApiError> {
        self.offer(id, event).await.map_err(|error| match error {
            StoreError::Full(why) => ApiError::new(
                "RequestLimitExceeded",
                format!(
                    "No room is left for further asynchronous events ({why}); this one was not accepted. Try again later."
                ),
            ),
            error => store_error(error),
        })
    }

    /// As [`Self::accept`], for the platform itself. An event whose id is pending already is left as it is.
    pub(crate) async fn offer(self: &Arc<Self>, id: RequestId, event: Event) -> Result<(), StoreError> {
        // Carried to its end when the caller goes away: an event that is in the log and not in the index would run only after the next start.
        let appending = tokio::spawn(Arc::clone(self).append(id, event));
        appending
            .await
            .map_err(|error| StoreError::Io { doing: "store an event", source: Arc::new(io::Error::other(error)) })?
    }

    async fn append(self: Arc<Self>, id: RequestId, event: Event) -> Result<(), StoreError> {
        let payload = serde_json::to_vec(&event).map_err(|_| StoreError::Corrupt("an event to be stored"))?;
        let bytes = payload.len();
        let due_ms = event.accepted_ms;
        match self.log.append(StoredEvent { id, payload, due_ms, attempt: 0 }).await {
            Err(StoreError::Exists(_)) => return Ok(()),
            result => result?,
        }
        self.note(id, event, due_ms, Tried::default(), bytes);
        self.wake.notify_one();
        Ok(())
    }

    /// Puts an event of the log into the index, if it is not there.
    fn note(&self, id: RequestId, event: Event, due_ms: u64, tried: Tried, bytes: usize) {
        let mut state = self.state.lock();
        if state.items.contains_key(&id) {
            return;
        }
        let owner = Arc::new((event.namespace.clone(), event.function.clone()));
        let owner = state.queues.get_key_value(&owner).map_or(owner, |(known, _)| known.clone());
        let since_ms = event.accepted_ms;
        state.queues.entry(owner.clone()).or_default().pending.insert((since_ms, id));
        let cached = state.cached_bytes + bytes <= CACHE_BYTES_MAX;
        if cached {
            state.cached_bytes += bytes;
        }
        let qualifier = event.qualifier.as_str().into();
        let cause = (!event.cause.is_default()).then(|| Box::new(event.cause.clone()));
        let event = cached.then(|| Arc::new(event));
        let item = Item { owner, since_ms, due_ms, tried, event, bytes, qualifier, cause, state: Stage::Waiting };
        state.items.insert(id, item);
        state.waiting.insert((due_ms, id));
    }

    /// A pending event. `None`: it is finished, or there never was one of this id.
    pub fn pending(&self, id: RequestId) -> Option<Pending> {
        let state = self.state.lock();
        state.items.get(&id).map(|item| Pending {
            namespace: item.owner.0.clone(),
            function: item.owner.1.clone(),
            retry: attempts(item.tried),
            since_ms: item.since_ms,
        })
    }

    /// Events pending and events running, for metrics.
    pub fn depth(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.items.len(), state.running)
    }

    /// Runs events until `shutdown`, then waits for those that run, as long as the drain time allows. What is cut short by that or by dropping this runs again after the next start.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut tasks = JoinSet::new();
        loop {
            let next_due = self.start_ready(&mut tasks);
            let pause = async {
                match next_due {
                    Some(due_ms) => {
                        let wait = due_ms.saturating_sub(self.clock.now_ms()).max(1);
                        tokio::time::sleep(Duration::from_millis(wait)).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.wake.notified() => {}
                Some(_) = tasks.join_next() => {}
                () = pause => {}
            }
        }
        // What goes on after that is cut short, stays in the log, and runs again after the next start.
        let _ = tokio::time::timeout(self.drain, async { while tasks.join_next().await.is_some() {} }).await;
    }

    /// Reads what an earlier process left. To be done before anybody asks for pending events.
    ///
    /// # Errors
    /// Of the log, when it cannot be read in some attempts.
    pub async fn recover(&self) -> Result<(), StoreError> {
        let (mut after, mut failures) = (None::<EventCursor>, 0);
        loop {
            let page = match self.log.due(i64::MAX as u64, RECOVER_PAGE, after).await {
                Ok(page) => page,
                Err(error) if failures < LOG_TRIES => {
                    failures += 1;
                    tracing::error!(%error, "pending events cannot be read; trying again");
                    tokio::time::sleep(LOG_RETRY).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.cursor());
            for stored in page {
                match serde_json::from_slice::<Event>(&stored.payload) {
                    Ok(event) => {
                        let bytes = stored.payload.len();
                        self.note(stored.id, event, stored.due_ms, unpack(stored.attempt), bytes);
                    }
                    // Kept in the log: a newer release may have written it, and losing an accepted event is worse.
                    Err(error) => tracing::error!(request_id = %stored.id, %error, "a pending event cannot be read"),
                }
            }
        }
    }

    /// Starts what is due and has room. Returns when the next event is due.
    fn start_ready(self: &Arc<Self>, tasks: &mut JoinSet<()>) -> Option<u64> {
        let now_ms = self.clock.now_ms();
        let mut state = self.state.lock();
        let state = &mut *state;
        while let Some(&(due_ms, id)) = state.waiting.first() {
            if due_ms > now_ms {
                break;
            }
            state.waiting.pop_first();
            let Some(item) = state.items.get(&id) else { continue };
            let queue = state.queues.entry(item.owner.clone()).or_default();
            queue.ready.push_back(id);
            take_turn(queue, &item.owner, &mut state.turns, self.concurrency.per_function);
        }
        while state.running < self.concurrency.total {
            let Some(owner) = state.turns.pop_front() else { break };
            let Some(queue) = state.queues.get_mut(&owner) else { continue };
            queue.in_turn = false;
            let Some(id) = queue.ready.pop_front() else { continue };
            let Some(item) = state.items.get_mut(&id).filter(|item| matches!(item.state, Stage::Waiting)) else {
                // It was terminated while it stood in the queue.
                take_turn(queue, &owner, &mut state.turns, self.concurrency.per_function);
                continue;
            };
            let (aborter, ear) = abort();
            item.state = Stage::Running(terminate::Running::new(aborter));
            queue.running += 1;
            state.running += 1;
            take_turn(queue, &owner, &mut state.turns, self.concurrency.per_function);
            tasks.spawn(self.clone().attempt(id, owner, ear));
        }
        // While all seats are taken, an event that comes due changes nothing: the end of a run wakes the loop.
        state.waiting.first().map(|(due_ms, _)| *due_ms)
    }

    /// One attempt of one event, from its turn to its end or its next due time.
    async fn attempt(self: Arc<Self>, id: RequestId, owner: Owner, ear: Abort) {
        let work = tokio::spawn(self.clone().run_one(id, ear));
        let (status, ran) = match work.await {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!(request_id = %id, %error, "running an event failed inside the platform");
                (Status::INTERNAL, self.broken(id).await)
            }
        };
        let (verdict, status) = self.judge(id, status);
        // The log forgets the event, or this attempt: from then on its record alone tells of it, and must not go with this process.
        self.records.written().await;
        let ran = ran.map(|ran| Ran { outcome: InvokeOutcome { status, ..ran.outcome }, ..ran });
        let verdict = self.endings.follow(id, verdict, ran).await;
        let due_ms = match verdict {
            Verdict::Finish => {
                self.counts.count(status);
                if self.finish(id).await {
                    self.forgotten(id);
                }
                None
            }
            Verdict::Retry { after_ms, tried } => {
                let due_ms = self.clock.now_ms().saturating_add(after_ms);
                if let Err(error) = self.log.reschedule(id, due_ms, pack(tried)).await {
                    // It is tried again all the same; only a crash would now make it due earlier.
                    tracing::error!(request_id = %id, %error, "the next attempt of an event could not be stored");
                }
                Some((due_ms, tried))
            }
        };
        self.settle(id, &owner, due_ms);
        self.wake.notify_one();
    }

    /// False: the log did not forget it.
    async fn finish(&self, id: RequestId) -> bool {
        for attempt in 1..=LOG_TRIES {
            match self.log.finish(id).await {
                Ok(()) => return true,
                Err(error) => {
                    tracing::error!(request_id = %id, %error, attempt, "a finished event could not be removed")
                }
            }
            tokio::time::sleep(LOG_RETRY).await;
        }
        false
    }

    fn settle(&self, id: RequestId, owner: &Owner, due: Option<(u64, Tried)>) {
        let mut state = self.state.lock();
        let state = &mut *state;
        state.running -= 1;
        match due {
            Some((due_ms, tried)) => {
                if let Some(item) = state.items.get_mut(&id) {
                    item.tried = tried;
                    item.due_ms = due_ms;
                    item.state = Stage::Waiting;
                    state.waiting.insert((due_ms, id));
                }
            }
            None => state.forget(id),
        }
        if let Some(queue) = state.queues.get_mut(owner) {
            queue.running -= 1;
            take_turn(queue, owner, &mut state.turns, self.concurrency.per_function);
        }
        state.drop_if_empty(owner);
    }

    /// An attempt that the platform itself broke off.
    async fn broken(&self, id: RequestId) -> Option<Ran> {
        let (event, tried) = self.fetch(id).await?;
        let error = ApiError::internal("The platform failed on this event; see the server's log.");
        let mut record = self.lost(id, &event, tried, &error);
        record.status = Status::INTERNAL;
        Some(Ran { event, tried, target: None, outcome: outcome_of(record) })
    }

    /// Runs an event and judges how it ended.
    async fn run_one(self: Arc<Self>, id: RequestId, ear: Abort) -> (Status, Option<Ran>) {
        let Some((event, tried)) = self.fetch(id).await else {
            return (Status::INTERNAL, None);
        };
        let random = crate::ids::random_unit();
        let resolved =
            self.catalogue.resolve(&event.namespace, &event.function, &event.qualifier, &event.routing_key, random);
        if let Err(error) = self.chains.check(&event.cause.lineage(), id) {
            let outcome = self.end_unrun(id, &event, tried, Status::CALL_DEPTH, &error.message);
            return (outcome.status, Some(Ran { event, tried, target: resolved.ok(), outcome }));
        }
        let (target, outcome) = match resolved {
            // It was an event function when the event was accepted. A replay of a request to an HTTP function is such a request.
            Ok(target) if target.spec.config.service.is_some() && event.cause.replay_of.is_none() => {
                let error = ApiError::new(
                    "InvalidParameterValue.FunctionType",
                    "The function is an HTTP function now, which takes no events.",
                );
                (None, self.end_lost(id, &event, tried, &error))
            }
            Ok(target) => match self.endings.content(&event).await {
                Some(content) => {
                    let request = InvokeRequest {
                        request_id: id,
                        event: content,
                        want_log: false,
                        log_failure: true,
                        retry: attempts(tried),
                        origin: event.cause.replay_of,
                        event_mark: Some(event.mark()),
                        abort: Some(ear),
                        qualifier: event.qualifier.clone(),
                        lineage: event.cause.lineage(),
                    };
                    let outcome = self.invoker.invoke(&target, request).await;
                    (Some(target), outcome)
                }
                None => {
                    let error = ApiError::invalid("The failure that was to be replayed is not kept any more.");
                    (None, self.end_lost(id, &event, tried, &error))
                }
            },
            Err(error) => (None, self.end_lost(id, &event, tried, &error)),
        };
        (outcome.status, Some(Ran { event, tried, target, outcome }))
    }

    /// Ends an event that cannot run.
    fn end_lost(&self, id: RequestId, event: &Event, tried: Tried, error: &ApiError) -> InvokeOutcome {
        let record = self.lost(id, event, tried, error);
        self.records.append(record.clone());
        outcome_of(record)
    }

    /// Ends an event that is not run.
    fn end_unrun(&self, id: RequestId, event: &Event, tried: Tried, status: Status, message: &str) -> InvokeOutcome {
        let record = self.without_run(id, event, attempts(tried), status, message);
        self.records.append(record.clone());
        outcome_of(record)
    }

    /// What is to be done after an attempt that ended with `status`, and the status that is told of it.
    fn judge(&self, id: RequestId, status: Status) -> (Verdict, Status) {
        let state = self.state.lock();
        let Some(item) = state.items.get(&id) else { return (Verdict::Finish, status) };
        let (namespace, function) = &*item.owner;
        if matches!(&item.state, Stage::Running(running) if running.is_aborted()) {
            // It failed by itself just when it was terminated: that it is not tried again is the owner's wish.
            if status.is_failure() && status != Status::CANCELED {
                self.records.append(self.terminated(id, item));
            }
            return (Verdict::Finish, if status.is_ok() { status } else { Status::CANCELED });
        }
        // As it is now: an owner who wants a flood of retries to end need not wait for it.
        let known = self.catalogue.function(namespace, function);
        let mut policy = known.as_ref().map_or_else(EventPolicy::default, |f| f.state.record.events);
        if known.is_some_and(|f| f.state.record.latest.async_run) {
            policy.retries = 0;
        }
        let age_ms = self.clock.now_ms().saturating_sub(item.since_ms);
        let attempt = Attempt { status, tried: item.tried, age_ms, random: crate::ids::random_unit() };
        (attempt.judge(&policy), status)
    }

    /// The event's content, from memory or from the log.
    async fn fetch(&self, id: RequestId) -> Option<(Arc<Event>, Tried)> {
        let (due_ms, tried) = {
            let state = self.state.lock();
            let item = state.items.get(&id)?;
            if let Some(event) = &item.event {
                return Some((event.clone(), item.tried));
            }
            (item.due_ms, item.tried)
        };
        // The place just before the event; the first id of all has nothing of its own due time before it.
        let after = match id.0.checked_sub(1) {
            Some(before) => Some(EventCursor { due_ms, id: RequestId(before) }),
            None => due_ms.checked_sub(1).map(|due_ms| EventCursor { due_ms, id: RequestId(u128::MAX) }),
        };
        match self.log.due(due_ms, 1, after).await {
            Ok(found) => {
                let stored = found.into_iter().find(|stored| stored.id == id)?;
                Some((Arc::new(serde_json::from_slice(&stored.payload).ok()?), tried))
            }
            Err(error) => {
                tracing::error!(request_id = %id, %error, "an event could not be read");
                None
            }
        }
    }

    /// The record of an event whose function is gone.
    fn lost(&self, id: RequestId, event: &Event, tried: Tried, error: &ApiError) -> InvocationRecord {
        let status = match error.code {
            "ResourceNotFound.Qualifier" => Status::QUALIFIER_NOT_FOUND,
            _ => Status::FUNCTION_NOT_FOUND,
        };
        self.without_run(id, event, attempts(tried), status, &error.message)
    }

    /// The record of an event that reached no instance.
    fn without_run(&self, id: RequestId, event: &Event, retry: u32, status: Status, message: &str) -> InvocationRecord {
        let ret = serde_json::json!({
            "errorCode": -1,
            "errorMessage": message,
            "requestId": id,
            "stackTrace": "",
            "statusCode": status.0,
        });
        InvocationRecord {
            request_id: id,
            namespace: event.namespace.clone(),
            function: event.function.clone(),
            version: String::new(),
            qualifier: event.qualifier.clone(),
            start_ms: self.clock.now_ms(),
            duration_us: 0,
            wait_us: 0,
            status,
            ret_msg: ret.to_string(),
            memory_mb: 0,
            memory_bytes: 0,
            cold_start: None,
            retry,
            event: Some(event.mark()),
            origin: event.cause.replay_of,
            lineage: event.cause.lineage(),
            output: String::new(),
            output_cut_bytes: 0,
        }
    }
}

/// How an invocation ended that only its record tells of.
fn outcome_of(record: InvocationRecord) -> InvokeOutcome {
    InvokeOutcome {
        request_id: record.request_id,
        status: record.status,
        log: Some(record.render()),
        body: record.ret_msg.into_bytes(),
        duration_us: 0,
        memory_bytes: 0,
        cold_start: None,
    }
}

/// Lines a function up if it has something to run and may run it.
fn take_turn(queue: &mut Queue, owner: &Owner, turns: &mut VecDeque<Owner>, per_function: usize) {
    if !queue.in_turn && !queue.ready.is_empty() && queue.running < per_function {
        queue.in_turn = true;
        turns.push_back(owner.clone());
    }
}
