//! The instances of one version, and the seats of those who wait for one.

use crate::error::Refusal;
use crate::output::Printed;
use crate::service::{self, Resident, Slot};
use crate::start::{self, Template};
use crate::worker::Worker;
use crate::{Inner, NodeStats};
use http::{HeaderName, HeaderValue};
use mayfly_model::{ColdStartReason, InvocationRecord, RequestId, Status, VersionSpec};
use mayfly_plan::pool::{Admission, Demand, KeepAlive, Past, admit, cold_start_reason, place};
use mayfly_sandbox::Instance;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// What a start may take beyond the function's own initialisation, before those who wait for it give up.
const START_SLACK: Duration = Duration::from_secs(30);

/// After a start ahead of need failed, the next is tried no sooner.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(10);

/// How long an instance stays idle that the plan for this minute does not want.
const PLANNED_IDLE: Duration = Duration::from_secs(30);

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
    /// What every request for a service tells its server; filled on the first.
    headers: OnceLock<Vec<(HeaderName, HeaderValue)>>,
    state: Mutex<State>,
    /// The initialised process that instances are forked from. The lock is held while it is made, so that it is made once.
    pub(crate) template: tokio::sync::Mutex<Template>,
}

#[derive(Default)]
struct State {
    /// Last used at the end.
    idle: Vec<Worker>,
    /// Instances of a service, oldest first.
    residents: Vec<Arc<Resident>>,
    /// Leases given out: idle, busy and starting.
    alive: usize,
    starting: usize,
    seats: VecDeque<Seat>,
    last_end: Option<ColdStartReason>,
    empty_since: Option<Instant>,
    retired: bool,
    /// Instances to keep although nobody asks for them; said by who plans ahead, whose word replaces the keep-alive.
    floor: Option<usize>,
    /// Instances that were ordered to be kept ready; they are not ended for anybody else either.
    provisioned: usize,
    /// Why the last start ahead did not come about, and when that was.
    blocked: Option<(Instant, String)>,
    /// Most instances that were needed at once since this was last looked at.
    peak: usize,
    instances: HashMap<u64, Weak<dyn Instance>>,
}

/// What a request gets.
// A worker moves through here on every call; a box for it would be an allocation each time.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Place {
    /// An instance of its own.
    Alone(Worker),
    /// A slot in one that others use too.
    Shared(Slot),
}

struct Seat {
    place: oneshot::Sender<Result<Place, Refusal>>,
    admitted: Arc<AtomicBool>,
}

impl Pool {
    pub(crate) fn new(inner: Weak<Inner>, spec: Arc<VersionSpec>, quota: Arc<Quota>, replaces: bool) -> Arc<Self> {
        Arc::new(Self {
            inner,
            spec,
            quota,
            replaces,
            headers: OnceLock::new(),
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
            let mut worker = {
                let mut state = self.state.lock();
                let worker = state.idle.pop()?;
                state.note_demand(self.concurrency());
                worker
            };
            if worker.process.is_alive() {
                return Some(worker);
            }
            // It died while idle; dropping it (outside the lock) gives its place free.
            drop(worker);
        }
    }

    /// Requests that one instance takes at a time.
    fn concurrency(&self) -> usize {
        self.spec.config.service.map_or(1, |s| s.concurrency.max(1) as usize)
    }

    /// Takes a slot in a running instance of a service.
    pub(crate) fn slot(self: &Arc<Self>) -> Option<Slot> {
        let mut state = self.state.lock();
        let slot = self.slot_in(&state)?;
        state.note_demand(self.concurrency());
        Some(slot)
    }

    fn slot_in(self: &Arc<Self>, state: &State) -> Option<Slot> {
        let at = place(state.residents.iter().map(|r| (!r.is_gone()).then(|| r.load())), self.concurrency())?;
        let resident = Arc::clone(&state.residents[at]);
        resident.enter();
        Some(Slot::new(self, resident))
    }

    /// Counts a request out of an instance, and passes its place on.
    pub(crate) fn leave(self: &Arc<Self>, resident: &Arc<Resident>) {
        let unwanted = {
            let mut state = self.state.lock();
            let left = resident.leave();
            if !resident.is_gone() && !state.retired {
                self.seat_waiting(&mut state);
            }
            if left > 0 || resident.load() > 0 {
                return;
            }
            *resident.idle_since.lock() = Instant::now();
            let inner = self.inner.upgrade();
            resident.used.store(inner.as_ref().map_or(0, |inner| inner.tick()), Ordering::Release);
            if !state.retired {
                drop(state);
                // An idle instance is memory that others may take back.
                if let Some(inner) = inner.filter(|inner| inner.is_short()) {
                    inner.memory_came_free();
                }
                return;
            }
            resident.end(ColdStartReason::CodeUpdated);
            take_out(&mut state.residents, resident)
        };
        drop(unwanted);
    }

    /// Gives free slots to who waits.
    fn seat_waiting(self: &Arc<Self>, state: &mut State) {
        while let Some(seat) = state.seats.pop_front() {
            if seat.place.is_closed() {
                continue;
            }
            let Some(slot) = self.slot_in(state) else {
                state.seats.push_front(seat);
                return;
            };
            if let Err(Ok(Place::Shared(slot))) = seat.place.send(Ok(Place::Shared(slot))) {
                // Nobody wants it any more. Its own end would ask for the lock that is held here.
                slot.give_back();
            }
        }
    }

    /// Takes an instance whose server has ended out of service.
    pub(crate) fn bury(&self, resident: &Arc<Resident>) {
        resident.end(ColdStartReason::Crashed);
        resident.kill();
        let out = take_out(&mut self.state.lock().residents, resident);
        drop(out);
    }

    /// Keeps what a service printed while none of its requests ended.
    pub(crate) fn note_printed(&self, printed: Printed) {
        let Some(inner) = self.inner.upgrade() else { return };
        let mut id = [0; 16];
        // Without randomness the record has a poor id; it is found by time and function.
        let _ = getrandom::fill(&mut id);
        let (output, output_cut_bytes) = printed.into_text();
        inner.sink.record(InvocationRecord {
            request_id: RequestId::from_random(id),
            namespace: self.spec.namespace.to_string(),
            function: self.spec.function.to_string(),
            version: self.spec.key.version.clone(),
            qualifier: String::new(),
            start_ms: crate::flight::now_ms(),
            duration_us: 0,
            wait_us: 0,
            status: Status::RUNNING,
            ret_msg: String::new(),
            memory_mb: self.spec.config.memory_mb,
            memory_bytes: 0,
            cold_start: None,
            retry: 0,
            output,
            output_cut_bytes,
        });
    }

    /// The headers that tell a service's server which function it is.
    pub(crate) fn headers(&self, inner: &Inner) -> &[(HeaderName, HeaderValue)] {
        self.headers.get_or_init(|| service::headers_of(&self.spec, &inner.options))
    }

    /// Waits for a place: one that comes free, or one in an instance that is started for this request.
    pub(crate) async fn wait(self: &Arc<Self>, inner: &Arc<Inner>) -> Result<Place, Refusal> {
        let admitted = Arc::new(AtomicBool::new(false));
        let receiver = {
            let (sender, receiver) = oneshot::channel();
            let mut state = self.state.lock();
            if let Some(worker) = state.idle.pop() {
                return Ok(Place::Alone(worker));
            }
            if let Some(slot) = self.slot_in(&state) {
                return Ok(Place::Shared(slot));
            }
            // Starts under way serve this request too, if they bring more places than seats are taken.
            let spare_start = state.starting * self.concurrency()
                > state.seats.iter().filter(|s| s.admitted.load(Ordering::Acquire)).count();
            let admission = if spare_start { Admission::Start { evict_mb: 0 } } else { self.admission(inner, &state) };
            match admission {
                Admission::Refuse(status) => return Err(self.refusal(status, inner)),
                Admission::Start { evict_mb } => {
                    admitted.store(true, Ordering::Release);
                    state.seats.push_back(Seat { place: sender, admitted: Arc::clone(&admitted) });
                    state.note_demand(self.concurrency());
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
                    state.seats.push_back(Seat { place: sender, admitted: Arc::clone(&admitted) });
                    state.note_demand(self.concurrency());
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
        mut receiver: oneshot::Receiver<Result<Place, Refusal>>,
        admitted: &AtomicBool,
    ) -> Result<Place, Refusal> {
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
                Ok(worker) if pool.spec.config.service.is_some() => pool.settle(worker),
                Ok(worker) => pool.give(worker),
                Err(refusal) => pool.refuse(&refusal),
            }
        });
    }

    /// Starts for requests that waited for memory. False: there is still none.
    pub(crate) fn start_for_waiting(self: &Arc<Self>) -> bool {
        let Some(inner) = self.inner.upgrade() else { return true };
        let mut state = self.state.lock();
        state.seats.retain(|s| !s.place.is_closed());
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
                match seat.place.send(Ok(Place::Alone(worker))) {
                    Ok(()) => return,
                    Err(Ok(Place::Alone(back))) => worker = back,
                    Err(_) => unreachable!("a worker was sent"),
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

    /// Makes a started instance of a service available.
    fn settle(self: &Arc<Self>, worker: Worker) {
        let resident = Resident::new(self, worker);
        let unwanted = {
            let mut state = self.state.lock();
            state.residents.push(Arc::clone(&resident));
            self.seat_waiting(&mut state);
            if state.retired && resident.load() == 0 {
                resident.end(ColdStartReason::CodeUpdated);
                take_out(&mut state.residents, &resident)
            } else {
                None
            }
        };
        // Not under the lock: the lease takes it.
        drop((unwanted, resident));
    }

    /// Turns away those who waited for a start that failed.
    fn refuse(&self, refusal: &Refusal) {
        let mut left = self.concurrency();
        while left > 0 {
            let Some(seat) = self.state.lock().seats.pop_front() else { return };
            if seat.place.send(Err(refusal.clone())).is_ok() {
                left -= 1;
            }
        }
    }

    /// Most instances that were needed at once since the last call.
    pub(crate) fn take_peak(&self) -> usize {
        let mut state = self.state.lock();
        let now = state.needed(self.concurrency());
        std::mem::replace(&mut state.peak, now).max(now)
    }

    /// Keeps at least `floor` instances from here on, idle ones included, in the place of the keep-alive.
    pub(crate) fn keep(self: &Arc<Self>, inner: &Arc<Inner>, floor: usize) {
        self.state.lock().floor = Some(floor);
        self.fill(inner);
    }

    /// Keeps at least so many instances ready until another number is said.
    pub(crate) fn provision(self: &Arc<Self>, inner: &Arc<Inner>, count: usize) {
        self.state.lock().provisioned = count;
        self.fill(inner);
    }

    /// Instances that have a request.
    pub(crate) fn busy(&self) -> usize {
        let state = self.state.lock();
        state.alive.saturating_sub(state.idle_count() + state.starting)
    }

    /// Instances that are ready or at work, those that are starting, and why no more could be started.
    pub(crate) fn readiness(&self) -> (usize, usize, Option<String>) {
        let state = self.state.lock();
        (state.alive - state.starting, state.starting, state.blocked.as_ref().map(|(_, why)| why.clone()))
    }

    /// Starts what is missing of what is to be kept, as far as memory is free: nobody else's instances are ended for it.
    fn fill(self: &Arc<Self>, inner: &Arc<Inner>) {
        loop {
            let mut state = self.state.lock();
            if state.retired || state.alive >= state.least() {
                return;
            }
            // Broken code must not keep the machine busy.
            if state.blocked.as_ref().is_some_and(|(at, _)| at.elapsed() < PAUSE_AFTER_FAILURE) {
                return;
            }
            if !matches!(self.admission(inner, &state), Admission::Start { evict_mb: 0 }) {
                state.blocked = Some((Instant::now(), "There is not enough memory for more instances".to_owned()));
                return;
            }
            let lease = self.lease(inner, &mut state);
            let reason = self.reason(&state);
            drop(state);
            let (pool, inner) = (Arc::clone(self), Arc::clone(inner));
            tokio::spawn(async move {
                let result = start::start(&inner, &pool, lease, reason).await;
                {
                    let mut state = pool.state.lock();
                    state.starting -= 1;
                    state.blocked = result.as_ref().err().map(|refusal| (Instant::now(), refusal.message.clone()));
                }
                match result {
                    Ok(mut worker) => {
                        // No request has waited for it.
                        worker.cold_start = None;
                        if pool.spec.config.service.is_some() {
                            pool.settle(worker);
                        } else {
                            pool.give(worker);
                        }
                    }
                    Err(refusal) => {
                        tracing::warn!(error = %refusal.message, function = %pool.spec.function, "an instance could not be started ahead");
                        pool.refuse(&refusal);
                    }
                }
            });
        }
    }

    /// Ends idle instances that `keep` no longer wants, and the template of a version that nobody has called for long.
    pub(crate) fn scale_in(&self, keep: &KeepAlive) {
        let now = Instant::now();
        let planned = KeepAlive { idle_ms: PLANNED_IDLE.as_millis() as u64, ..*keep };
        let (ended, idle, forget) = {
            let mut state = self.state.lock();
            let keep = if state.floor.is_some() { &planned } else { keep };
            let spare = state.alive.saturating_sub(state.least());
            let ages = state.idle.iter().map(|w| now.duration_since(w.idle_since).as_millis() as u64);
            let count = keep.excess(ages).min(spare);
            let ended: Vec<Worker> = state.idle.drain(..count).collect();
            let mut idle: Vec<(Instant, Arc<Resident>)> = state
                .residents
                .iter()
                .filter(|r| r.load() == 0)
                .map(|r| (*r.idle_since.lock(), Arc::clone(r)))
                .collect();
            idle.sort_by_key(|(since, _)| *since);
            let count = keep.excess(idle.iter().map(|(since, _)| now.duration_since(*since).as_millis() as u64));
            idle.truncate(count.min(spare));
            for (_, resident) in &idle {
                resident.end(ColdStartReason::Expired);
                take_out(&mut state.residents, resident);
            }
            let forget = state.alive == 0
                && state.empty_since.is_some_and(|t| now.duration_since(t).as_millis() as u64 >= keep.idle_ms);
            (ended, idle, forget)
        };
        drop(idle);
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
        self.state.try_lock().map_or(0, |state| state.evictable() as u64 * self.memory_mb())
    }

    /// Tick of the idle worker unused longest, if one may be taken back.
    pub(crate) fn oldest_idle(&self) -> Option<u64> {
        if self.quota.reserved_mb().is_some() {
            return None;
        }
        let state = self.state.lock();
        if state.evictable() == 0 {
            return None;
        }
        let residents = state.residents.iter().filter(|r| r.load() == 0).map(|r| r.used.load(Ordering::Acquire));
        state.idle.first().map(|w| w.used).into_iter().chain(residents).min()
    }

    /// Ends the idle worker unused longest. Returns the memory that came free, in MB.
    pub(crate) fn evict_one(&self) -> u64 {
        let mut state = self.state.lock();
        if state.evictable() == 0 {
            return 0;
        }
        let resident = state.residents.iter().filter(|r| r.load() == 0).min_by_key(|r| r.used.load(Ordering::Acquire));
        if let Some(resident) = resident.cloned() {
            resident.end(ColdStartReason::Evicted);
            take_out(&mut state.residents, &resident);
            drop(state);
            return self.memory_mb();
        }
        if state.idle.is_empty() {
            return 0;
        }
        let mut worker = state.idle.remove(0);
        drop(state);
        worker.lease.ends(ColdStartReason::Evicted);
        self.memory_mb()
    }

    pub(crate) fn retire(&self, force: bool) {
        let (idle, residents, instances) = {
            let mut state = self.state.lock();
            state.retired = true;
            let (busy, unused): (Vec<_>, Vec<_>) =
                std::mem::take(&mut state.residents).into_iter().partition(|r| r.load() > 0);
            state.residents = busy;
            for resident in &unused {
                resident.end(ColdStartReason::CodeUpdated);
            }
            let instances: Vec<_> = if force { state.instances.values().cloned().collect() } else { Vec::new() };
            (std::mem::take(&mut state.idle), unused, instances)
        };
        drop((idle, residents));
        self.end_streams_later();
        for instance in instances.iter().filter_map(Weak::upgrade) {
            instance.kill();
        }
        if let Ok(mut template) = self.template.try_lock() {
            template.forget();
        }
    }

    /// Gives what still streams on a retired version some time, and ends it then: a WebSocket may stay open for ever.
    fn end_streams_later(&self) {
        let left: Vec<Weak<Resident>> = self.state.lock().residents.iter().map(Arc::downgrade).collect();
        if left.is_empty() {
            return;
        }
        // Without a runtime there is nobody to serve either.
        let (Ok(runtime), Some(inner)) = (tokio::runtime::Handle::try_current(), self.inner.upgrade()) else { return };
        let limit = inner.options.streams_after_update;
        runtime.spawn(async move {
            tokio::time::sleep(limit).await;
            for resident in left.iter().filter_map(Weak::upgrade) {
                resident.kill();
            }
        });
    }

    pub(crate) fn add_to(&self, stats: &mut NodeStats) {
        let state = self.state.lock();
        stats.idle += state.idle_count();
        stats.starting += state.starting;
        stats.busy += state.alive.saturating_sub(state.idle_count() + state.starting);
        stats.waiting += state.seats.len();
        stats.templates += usize::from(self.template.try_lock().is_ok_and(|t| t.is_ready()));
    }

    /// True when a request has been served or refused and nothing is kept: for tests.
    pub fn is_empty(&self) -> bool {
        self.state.lock().alive == 0
    }
}

impl State {
    /// Instances that requests need now: those that have one, and those that waiting requests would fill.
    fn needed(&self, concurrency: usize) -> usize {
        let busy = self.alive.saturating_sub(self.idle_count() + self.starting);
        busy + self.seats.len().div_ceil(concurrency)
    }

    fn note_demand(&mut self, concurrency: usize) {
        self.peak = self.peak.max(self.needed(concurrency));
    }

    /// Instances that are to be kept whatever the demand.
    fn least(&self) -> usize {
        self.provisioned.max(self.floor.unwrap_or(0))
    }

    /// Idle instances that may be ended for others.
    fn evictable(&self) -> usize {
        self.idle_count().min(self.alive.saturating_sub(self.provisioned))
    }

    /// Instances without a request.
    fn idle_count(&self) -> usize {
        self.idle.len() + self.residents.iter().filter(|r| r.load() == 0).count()
    }
}

/// Takes an instance out of the list, if it is in it. To be dropped when the pool is not locked.
fn take_out(residents: &mut Vec<Arc<Resident>>, one: &Arc<Resident>) -> Option<Arc<Resident>> {
    let at = residents.iter().position(|r| Arc::ptr_eq(r, one))?;
    Some(residents.remove(at))
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
