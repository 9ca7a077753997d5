//! The instances of one version, and the seats of those who wait for one.

use crate::error::Refusal;
use crate::start::{self, Template};
use crate::worker::Worker;
use crate::{Inner, NodeStats};
use mayfly_model::{ColdStartReason, Status, VersionSpec};
use mayfly_plan::pool::{Admission, Demand, KeepAlive, Past, admit, cold_start_reason};
use mayfly_sandbox::Instance;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// What a start may take beyond the function's own initialisation, before those who wait for it give up.
const START_SLACK: Duration = Duration::from_secs(30);

/// The memory account of one function, all its versions together.
#[derive(Debug)]
pub struct Quota {
    used_mb: AtomicU64,
    /// -1: none of its own.
    reserved_mb: AtomicI64,
}

impl Default for Quota {
    fn default() -> Self {
        Self { used_mb: AtomicU64::new(0), reserved_mb: AtomicI64::new(-1) }
    }
}

impl Quota {
    /// Configured memory of its instances, in MB.
    pub fn used_mb(&self) -> u64 {
        self.used_mb.load(Ordering::Acquire)
    }

    /// Its reserved quota, in MB.
    pub fn reserved_mb(&self) -> Option<u64> {
        u64::try_from(self.reserved_mb.load(Ordering::Acquire)).ok()
    }

    /// Sets the quota, and moves what its instances hold out of or into the shared account.
    pub(crate) fn set_reserved(&self, reserved: Option<u64>, shared_mb: &AtomicU64) {
        let new = reserved.map_or(-1, |mb| i64::try_from(mb).unwrap_or(i64::MAX));
        let old = self.reserved_mb.swap(new, Ordering::AcqRel);
        match (old < 0, new < 0) {
            (true, false) => drop(shared_mb.fetch_sub(self.used_mb(), Ordering::AcqRel)),
            (false, true) => drop(shared_mb.fetch_add(self.used_mb(), Ordering::AcqRel)),
            _ => {}
        }
    }
}

/// The pool of one version.
pub struct Pool {
    inner: Weak<Inner>,
    /// What it runs.
    pub spec: Arc<VersionSpec>,
    quota: Arc<Quota>,
    replaces: bool,
    state: Mutex<State>,
    /// The initialised process that instances are forked from. The lock is held while it is made, so that it is made once.
    pub(crate) template: tokio::sync::Mutex<Template>,
}

#[derive(Default)]
struct State {
    /// Last used at the end.
    idle: Vec<Worker>,
    /// Leases given out: idle, busy and starting.
    alive: usize,
    starting: usize,
    seats: VecDeque<Seat>,
    last_end: Option<ColdStartReason>,
    empty_since: Option<Instant>,
    retired: bool,
    instances: HashMap<u64, Weak<dyn Instance>>,
}

struct Seat {
    worker: oneshot::Sender<Result<Worker, Refusal>>,
    admitted: Arc<AtomicBool>,
}

impl Pool {
    pub(crate) fn new(inner: Weak<Inner>, spec: Arc<VersionSpec>, quota: Arc<Quota>, replaces: bool) -> Arc<Self> {
        Arc::new(Self {
            inner,
            spec,
            quota,
            replaces,
            state: Mutex::default(),
            template: tokio::sync::Mutex::new(Template::Untried),
        })
    }

    fn memory_mb(&self) -> u64 {
        u64::from(self.spec.config.memory_mb)
    }

    /// Takes the idle worker used last.
    pub(crate) fn take(&self) -> Option<Worker> {
        loop {
            let mut worker = self.state.lock().idle.pop()?;
            if worker.process.is_alive() {
                return Some(worker);
            }
            // It died while idle; dropping it (outside the lock) gives its place free.
            drop(worker);
        }
    }

    /// Waits for a worker: one that comes free, or one that is started for this request.
    pub(crate) async fn wait(self: &Arc<Self>, inner: &Arc<Inner>) -> Result<Worker, Refusal> {
        let admitted = Arc::new(AtomicBool::new(false));
        let receiver = {
            let (sender, receiver) = oneshot::channel();
            let mut state = self.state.lock();
            if let Some(worker) = state.idle.pop() {
                return Ok(worker);
            }
            // Starts under way beyond the seats taken serve this request too.
            let spare_start =
                state.starting > state.seats.iter().filter(|s| s.admitted.load(Ordering::Acquire)).count();
            let admission = if spare_start { Admission::Start { evict_mb: 0 } } else { self.admission(inner, &state) };
            match admission {
                Admission::Refuse(status) => return Err(self.refusal(status, inner)),
                Admission::Start { evict_mb } => {
                    admitted.store(true, Ordering::Release);
                    state.seats.push_back(Seat { worker: sender, admitted: Arc::clone(&admitted) });
                    if !spare_start {
                        let lease = self.lease(inner, &mut state);
                        let reason = self.reason(&state);
                        drop(state);
                        if evict_mb > 0 {
                            inner.evict(evict_mb);
                        }
                        self.start(inner, lease, reason);
                    }
                }
                Admission::Wait => {
                    state.seats.push_back(Seat { worker: sender, admitted: Arc::clone(&admitted) });
                    drop(state);
                    inner.starve(self);
                }
            }
            receiver
        };
        self.sit(inner, receiver, &admitted).await
    }

    async fn sit(
        &self,
        inner: &Inner,
        mut receiver: oneshot::Receiver<Result<Worker, Refusal>>,
        admitted: &AtomicBool,
    ) -> Result<Worker, Refusal> {
        let gone = || Refusal::new(Status::RESOURCE_LIMIT, "The function was removed while the request waited");
        if !admitted.load(Ordering::Acquire) {
            if let Ok(result) = tokio::time::timeout(inner.options.waiting, &mut receiver).await {
                return result.unwrap_or_else(|_| Err(gone()));
            }
            if !admitted.load(Ordering::Acquire) {
                return Err(self.refusal(Status::RESOURCE_LIMIT, inner));
            }
        }
        let patience = Duration::from_secs(u64::from(self.spec.config.init_timeout_s)) + START_SLACK;
        match tokio::time::timeout(patience, receiver).await {
            Ok(result) => result.unwrap_or_else(|_| Err(gone())),
            Err(_) => Err(Refusal::new(Status::INIT_TIMEOUT, "No instance came to be in time")),
        }
    }

    fn admission(&self, inner: &Inner, state: &State) -> Admission {
        let reserved_mb = self.quota.reserved_mb();
        let shared_mb = inner.shared_mb.load(Ordering::Acquire);
        let shared_ceiling_mb = inner.shared_ceiling_mb();
        // Looking through all pools is for the rare case that it matters; this pool has none idle, and is locked.
        let short = reserved_mb.is_none() && shared_mb + self.memory_mb() > shared_ceiling_mb;
        admit(&Demand {
            memory_mb: self.memory_mb(),
            function_mb: self.quota.used_mb(),
            reserved_mb,
            shared_mb,
            shared_ceiling_mb,
            evictable_mb: if short { inner.evictable_mb() } else { 0 },
            waiting: state.seats.len(),
            waiting_max: inner.options.waiting_max,
        })
    }

    fn refusal(&self, status: Status, inner: &Inner) -> Refusal {
        let name = &self.spec.function;
        Refusal::new(
            status,
            match (status, self.quota.reserved_mb()) {
                (Status::CONCURRENCY_EXCEEDED, Some(mb)) => {
                    format!("Function [{name}] concurrency exceeded reserved quota {mb} MB")
                }
                (Status::CONCURRENCY_EXCEEDED, None) => format!(
                    "Function [{name}] concurrency exceeded the region's quota {} MB",
                    inner.shared_ceiling_mb()
                ),
                _ => format!("Function [{name}] cannot get an instance now: too many requests wait. Try again later"),
            },
        )
    }

    fn lease(self: &Arc<Self>, inner: &Arc<Inner>, state: &mut State) -> Lease {
        state.alive += 1;
        state.starting += 1;
        let shared = self.quota.reserved_mb().is_none();
        self.quota.used_mb.fetch_add(self.memory_mb(), Ordering::AcqRel);
        if shared {
            inner.shared_mb.fetch_add(self.memory_mb(), Ordering::AcqRel);
        }
        Lease { pool: Arc::clone(self), end: ColdStartReason::Crashed, instance: AtomicU64::new(u64::MAX) }
    }

    /// The reason of the start that `state` has just counted.
    fn reason(&self, state: &State) -> ColdStartReason {
        cold_start_reason(Past { alive: state.alive - 1, last_end: state.last_end, replaces: self.replaces })
    }

    fn start(self: &Arc<Self>, inner: &Arc<Inner>, lease: Lease, reason: ColdStartReason) {
        let (pool, inner) = (Arc::clone(self), Arc::clone(inner));
        tokio::spawn(async move {
            let result = start::start(&inner, &pool, lease, reason).await;
            pool.state.lock().starting -= 1;
            match result {
                Ok(worker) => pool.give(worker),
                Err(refusal) => pool.refuse_one(refusal),
            }
        });
    }

    /// Starts for requests that waited for memory. False: there is still none.
    pub(crate) fn start_for_waiting(self: &Arc<Self>) -> bool {
        let Some(inner) = self.inner.upgrade() else { return true };
        let mut state = self.state.lock();
        state.seats.retain(|s| !s.worker.is_closed());
        let Some(seat) = state.seats.iter().find(|s| !s.admitted.load(Ordering::Acquire)) else { return true };
        match self.admission(&inner, &state) {
            Admission::Start { evict_mb } => {
                seat.admitted.store(true, Ordering::Release);
                let lease = self.lease(&inner, &mut state);
                let reason = self.reason(&state);
                drop(state);
                if evict_mb > 0 {
                    inner.evict(evict_mb);
                }
                self.start(&inner, lease, reason);
                true
            }
            _ => false,
        }
    }

    /// Passes a free worker to who has waited longest, or keeps it idle.
    pub(crate) fn give(&self, mut worker: Worker) {
        let unwanted = {
            let mut state = self.state.lock();
            loop {
                let Some(seat) = state.seats.pop_front() else { break };
                match seat.worker.send(Ok(worker)) {
                    Ok(()) => return,
                    Err(Ok(back)) => worker = back,
                    Err(Err(_)) => unreachable!("a worker was sent"),
                }
            }
            if state.retired {
                worker.lease.ends(ColdStartReason::CodeUpdated);
                worker
            } else {
                worker.idle_since = Instant::now();
                let inner = self.inner.upgrade();
                worker.used = inner.as_ref().map_or(0, |inner| inner.tick());
                state.idle.push(worker);
                drop(state);
                // An idle instance is memory that others may take back.
                if let Some(inner) = inner.filter(|inner| inner.is_short()) {
                    inner.memory_came_free();
                }
                return;
            }
        };
        // Not under the lock: the lease takes it.
        drop(unwanted);
    }

    fn refuse_one(&self, refusal: Refusal) {
        let mut refusal = Err(refusal);
        loop {
            let Some(seat) = self.state.lock().seats.pop_front() else { return };
            match seat.worker.send(refusal) {
                Ok(()) => return,
                Err(back) => refusal = back,
            }
        }
    }

    /// Ends idle instances that `keep` no longer wants, and the template of a version that nobody has called for long.
    pub(crate) fn scale_in(&self, keep: &KeepAlive) {
        let now = Instant::now();
        let (ended, forget) = {
            let mut state = self.state.lock();
            let ages = state.idle.iter().map(|w| now.duration_since(w.idle_since).as_millis() as u64);
            let count = keep.excess(ages);
            let ended: Vec<Worker> = state.idle.drain(..count).collect();
            let forget = state.alive == 0
                && state.empty_since.is_some_and(|t| now.duration_since(t).as_millis() as u64 >= keep.idle_ms);
            (ended, forget)
        };
        for mut worker in ended {
            worker.lease.ends(ColdStartReason::Expired);
        }
        if forget && let Ok(mut template) = self.template.try_lock() {
            template.forget();
        }
    }

    /// Memory of idle instances that may be taken back for others, in MB. 0 while the pool is locked: it is in use then.
    pub(crate) fn evictable_mb(&self) -> u64 {
        if self.quota.reserved_mb().is_some() {
            return 0;
        }
        self.state.try_lock().map_or(0, |state| state.idle.len() as u64 * self.memory_mb())
    }

    /// Tick of the idle worker unused longest, if one may be taken back.
    pub(crate) fn oldest_idle(&self) -> Option<u64> {
        if self.quota.reserved_mb().is_some() {
            return None;
        }
        self.state.lock().idle.first().map(|w| w.used)
    }

    /// Ends the idle worker unused longest. Returns the memory that came free, in MB.
    pub(crate) fn evict_one(&self) -> u64 {
        let mut state = self.state.lock();
        if state.idle.is_empty() {
            return 0;
        }
        let mut worker = state.idle.remove(0);
        drop(state);
        worker.lease.ends(ColdStartReason::Evicted);
        self.memory_mb()
    }

    pub(crate) fn retire(&self, force: bool) {
        let (idle, instances) = {
            let mut state = self.state.lock();
            state.retired = true;
            let instances: Vec<_> = if force { state.instances.values().cloned().collect() } else { Vec::new() };
            (std::mem::take(&mut state.idle), instances)
        };
        drop(idle);
        for instance in instances.iter().filter_map(Weak::upgrade) {
            instance.kill();
        }
        if let Ok(mut template) = self.template.try_lock() {
            template.forget();
        }
    }

    pub(crate) fn add_to(&self, stats: &mut NodeStats) {
        let state = self.state.lock();
        stats.idle += state.idle.len();
        stats.starting += state.starting;
        stats.busy += state.alive.saturating_sub(state.idle.len() + state.starting);
        stats.waiting += state.seats.len();
        stats.templates += usize::from(self.template.try_lock().is_ok_and(|t| t.is_ready()));
    }

    /// True when a request has been served or refused and nothing is kept: for tests.
    pub fn is_empty(&self) -> bool {
        self.state.lock().alive == 0
    }
}

/// An instance's place in its pool and its function's quota. Dropping it gives both free.
pub struct Lease {
    pool: Arc<Pool>,
    /// Why the instance ended, should the next start ask.
    end: ColdStartReason,
    instance: AtomicU64,
}

impl Lease {
    /// Says why the instance ends; without a word it crashed.
    pub(crate) fn ends(&mut self, reason: ColdStartReason) {
        self.end = reason;
    }

    /// Lets the pool end this instance by force.
    pub(crate) fn register(&self, instance: &Arc<dyn Instance>) {
        self.instance.store(instance.id(), Ordering::Release);
        self.pool.state.lock().instances.insert(instance.id(), Arc::downgrade(instance));
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let pool = &self.pool;
        {
            let mut state = pool.state.lock();
            state.alive -= 1;
            state.last_end = Some(self.end);
            state.instances.remove(self.instance.get_mut());
            if state.alive == 0 {
                state.empty_since = Some(Instant::now());
            }
        }
        pool.quota.used_mb.fetch_sub(pool.memory_mb(), Ordering::AcqRel);
        if let Some(inner) = pool.inner.upgrade() {
            if pool.quota.reserved_mb().is_none() {
                inner.shared_mb.fetch_sub(pool.memory_mb(), Ordering::AcqRel);
            }
            inner.memory_came_free();
        }
    }
}
