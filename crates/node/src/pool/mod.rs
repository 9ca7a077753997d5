//! The instances of one version, and the seats of those who wait for one.

mod ends;
mod floors;
mod park;
mod quota;
mod seats;
mod steer;

pub(crate) use quota::Tenant;
pub use quota::{Lease, Quota};
pub(crate) use seats::Turn;

use crate::error::Refusal;
use crate::output::Printed;
use crate::service::{self, Resident, Slot};
use crate::start::Template;
use crate::worker::Worker;
use crate::{Inner, NodeStats};
use http::{HeaderName, HeaderValue};
use mayfly_base::loops::here;
use mayfly_model::{ColdStartReason, InvocationRecord, Lineage, RequestId, Status, VersionSpec};
use mayfly_plan::pool::place;
use mayfly_plan::scale::Autoscaler;
use mayfly_sandbox::Instance;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Workers idle for less than this are in turn use: which of them is taken makes no difference to how many are kept.
const JUST_NOW: Duration = Duration::from_millis(5);

/// The pool of one version.
pub struct Pool {
    inner: Weak<Inner>,
    /// What it runs.
    pub spec: Arc<VersionSpec>,
    pub(crate) quota: Arc<Quota>,
    pub(crate) tenant: Arc<Tenant>,
    replaces: bool,
    /// Times that the autoscaler is told count from here.
    born: Instant,
    /// Instances, running or starting, for a look without the lock.
    held: AtomicUsize,
    /// Instances that it is to give up for others who hold less, as they become free.
    owed: AtomicUsize,
    /// Use tick of the last call's end, or of its initialisation ahead.
    called: AtomicU64,
    /// What the request that waited for a start last calls: until its first invocation, an instance's calls come of that.
    starting_for: Mutex<Lineage>,
    /// Its template stays although nobody calls.
    parked: AtomicBool,
    /// What every request for a service tells its server; filled on the first.
    headers: OnceLock<ServiceHeaders>,
    state: Mutex<State>,
    /// The initialised process that instances are forked from. The lock is held while it is made, so that it is made once.
    pub(crate) template: tokio::sync::Mutex<Template>,
}

/// Header fields, as a map takes them and as they are written.
type ServiceHeaders = (Vec<(HeaderName, HeaderValue)>, Vec<u8>);

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
    /// The function's own minimum, where this is the version that it is kept of. Not ended for anybody else either.
    minimum: usize,
    /// Requests that instances of a service have.
    requests: usize,
    /// Follows the demand for a service.
    scaler: Option<Autoscaler>,
    /// Why the last start ahead did not come about, and when that was.
    blocked: Option<(Instant, String)>,
    /// Most instances that were needed at once since this was last looked at.
    peak: usize,
    /// Calls since then.
    calls: u64,
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
    pub(crate) fn new(
        inner: &Arc<Inner>,
        spec: Arc<VersionSpec>,
        quota: Arc<Quota>,
        tenant: Arc<Tenant>,
        replaces: bool,
    ) -> Arc<Self> {
        let service = spec.config.service;
        let scaler = service.map(|s| Autoscaler::new(steer::options(s.concurrency, inner.options.keep_alive)));
        Arc::new(Self {
            inner: Arc::downgrade(inner),
            spec,
            quota,
            tenant,
            replaces,
            born: Instant::now(),
            held: AtomicUsize::new(0),
            owed: AtomicUsize::new(0),
            called: AtomicU64::new(0),
            starting_for: Mutex::default(),
            parked: AtomicBool::new(false),
            headers: OnceLock::new(),
            state: Mutex::new(State { scaler, ..State::default() }),
            template: tokio::sync::Mutex::new(Template::Untried),
        })
    }

    /// Says that a request waits for an instance. `calls`: the lineage of what it calls.
    pub(crate) fn starts_for(&self, calls: Lineage) {
        *self.starting_for.lock() = calls;
    }

    pub(crate) fn starting_for(&self) -> Lineage {
        *self.starting_for.lock()
    }

    pub(crate) fn memory_mb(&self) -> u64 {
        u64::from(self.spec.config.memory_mb)
    }

    /// Takes the idle worker used last; of several that were at work just now, one whose sockets are with this event loop.
    pub(crate) fn take(&self) -> Option<Worker> {
        loop {
            let mut worker = {
                let mut state = self.state.lock();
                let busy = state.idle.iter().enumerate().rev().take_while(|(_, w)| w.idle_since.elapsed() < JUST_NOW);
                let near = busy.into_iter().find(|(_, w)| w.home == here()).map(|(at, _)| at);
                let worker = match near {
                    Some(at) => state.idle.remove(at),
                    None => state.idle.pop()?,
                };
                state.calls += 1;
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
        let slot = self.slot_in(&mut state)?;
        state.calls += 1;
        state.note_demand(self.concurrency());
        self.observe(&mut state);
        Some(slot)
    }

    fn slot_in(self: &Arc<Self>, state: &mut State) -> Option<Slot> {
        let at = place(state.residents.iter().map(|r| (!r.is_gone()).then(|| r.load())), self.concurrency())?;
        let resident = Arc::clone(&state.residents[at]);
        resident.enter();
        state.requests += 1;
        Some(Slot::new(self, resident))
    }

    /// Counts a request out of an instance, and passes its place on.
    pub(crate) fn leave(self: &Arc<Self>, resident: &Arc<Resident>) {
        let unwanted = {
            let mut state = self.state.lock();
            let left = resident.leave();
            state.requests = state.requests.saturating_sub(1);
            if !resident.is_gone() && !state.retired {
                self.seat_waiting(&mut state);
            }
            self.observe(&mut state);
            if left > 0 || resident.load() > 0 {
                return;
            }
            *resident.idle_since.lock() = Instant::now();
            let inner = self.inner.upgrade();
            resident.used.store(inner.as_ref().map_or(0, |inner| inner.tick()), Ordering::Release);
            if !state.retired && !resident.is_gone() {
                drop(state);
                // An idle instance is memory that others may take back.
                if let Some(inner) = inner.filter(|inner| inner.is_short()) {
                    inner.memory_came_free();
                }
                return;
            }
            if state.retired {
                resident.end(ColdStartReason::CodeUpdated);
            }
            take_out(&mut state.residents, resident)
        };
        drop(unwanted);
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
            event: None,
            origin: None,
            lineage: Lineage::default(),
            output,
            output_cut_bytes,
        });
    }

    /// The headers that tell a service's server which function it is; and as they are written.
    pub(crate) fn headers(&self, inner: &Inner) -> &(Vec<(HeaderName, HeaderValue)>, Vec<u8>) {
        self.headers.get_or_init(|| service::headers_of(&self.spec, &inner.options))
    }

    /// Passes a free worker to who has waited longest, or keeps it idle.
    pub(crate) fn give(&self, mut worker: Worker) {
        if worker.process.is_old() {
            worker.lease.ends(ColdStartReason::Expired);
            drop(worker);
            return;
        }
        if self.pays() {
            worker.lease.ends(ColdStartReason::Evicted);
            drop(worker);
            return;
        }
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
                worker.home = here();
                let inner = self.inner.upgrade();
                worker.used = inner.as_ref().map_or(0, |inner| inner.tick());
                self.called.store(worker.used, Ordering::Relaxed);
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

    pub(crate) fn add_to(&self, stats: &mut NodeStats) {
        let state = self.state.lock();
        stats.idle += state.idle_count();
        stats.starting += state.starting;
        stats.busy += state.alive.saturating_sub(state.idle_count() + state.starting);
        stats.waiting += state.seats.len();
        stats.templates += usize::from(self.template.try_lock().is_ok_and(|t| t.is_ready()));
    }

    /// Requests that wait for an instance.
    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().seats.len()
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
        self.fixed().max(self.floor.unwrap_or(0))
    }

    /// Instances that are not ended for others either.
    fn fixed(&self) -> usize {
        self.provisioned.max(self.minimum)
    }

    /// Idle instances that may be ended for others.
    fn evictable(&self) -> usize {
        self.idle_count().min(self.alive.saturating_sub(self.fixed()))
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
