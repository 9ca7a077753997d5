//! The seats of those who wait for an instance, and what is started for them.

use super::{Lease, Place, Pool, Seat, State};
use crate::error::Refusal;
use crate::{Inner, start};
use mayfly_model::{ColdStartReason, Status};
use mayfly_plan::pool::{Admission, Demand, Past, Short, admit, cold_start_reason};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

/// What a start may take beyond the function's own initialisation, before those who wait for it give up.
const START_SLACK: Duration = Duration::from_secs(30);

impl Pool {
    /// Gives free slots to who waits.
    pub(super) fn seat_waiting(self: &Arc<Self>, state: &mut State) {
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

    /// Waits for a place: one that comes free, or one in an instance that is started for this request.
    pub(crate) async fn wait(self: &Arc<Self>, inner: &Arc<Inner>) -> Result<Place, Refusal> {
        if self.quota.instances_max().is_some_and(|max| self.quota.instances() >= max) {
            // Another version's idle instance stands in this one's way.
            inner.evict_of_function(self);
        }
        let admitted = Arc::new(AtomicBool::new(false));
        let receiver = {
            let (sender, receiver) = oneshot::channel();
            let mut state = self.state.lock();
            state.calls += 1;
            if let Some(worker) = state.idle.pop() {
                return Ok(Place::Alone(worker));
            }
            if let Some(slot) = self.slot_in(&mut state) {
                return Ok(Place::Shared(slot));
            }
            // Starts under way serve this request too, if they bring more places than seats are taken.
            let spare_start = state.starting * self.concurrency()
                > state.seats.iter().filter(|s| s.admitted.load(Ordering::Acquire)).count();
            let admission = if spare_start { Admission::FREE } else { self.admission(inner, &state, false) };
            match admission {
                Admission::Refuse(status) => return Err(self.refusal(status, inner)),
                Admission::Start { evict_mb, tenant_mb } => {
                    admitted.store(true, Ordering::Release);
                    state.seats.push_back(Seat { place: sender, admitted: Arc::clone(&admitted) });
                    state.note_demand(self.concurrency());
                    self.observe(&mut state);
                    if !spare_start {
                        let lease = self.lease(inner, &mut state);
                        let reason = self.reason(&state);
                        drop(state);
                        inner.evict(evict_mb, tenant_mb, &self.tenant);
                        self.start(inner, lease, reason);
                    }
                }
                Admission::Wait(short) => {
                    state.seats.push_back(Seat { place: sender, admitted: Arc::clone(&admitted) });
                    state.note_demand(self.concurrency());
                    self.observe(&mut state);
                    drop(state);
                    inner.starve(self, short);
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

    /// Whether one more instance may start. `in_line`: it is this version's turn among those who wait.
    pub(super) fn admission(self: &Arc<Self>, inner: &Inner, state: &State, in_line: bool) -> Admission {
        let reserved_mb = self.quota.reserved_mb();
        let shared_mb = inner.shared_mb.load(Ordering::Acquire);
        let shared_ceiling_mb = inner.shared_ceiling_mb();
        let (tenant_mb, tenant_ceiling_mb) = (self.tenant.used_mb(), inner.options.namespace_ceiling_mb);
        let headroom_mb = inner.headroom_mb();
        // Looking through all pools is for the rare case that it matters; this pool has none idle, and is locked.
        let short = reserved_mb.is_none() && shared_mb + self.memory_mb() + headroom_mb > shared_ceiling_mb;
        let tenant_short = tenant_ceiling_mb.is_some_and(|ceiling| tenant_mb + self.memory_mb() > ceiling);
        admit(&Demand {
            memory_mb: self.memory_mb(),
            function_mb: self.quota.used_mb(),
            reserved_mb,
            shared_mb,
            shared_ceiling_mb,
            evictable_mb: if short { inner.evictable_mb(None) } else { 0 },
            held_mb: state.alive as u64 * self.memory_mb(),
            headroom_mb,
            tenant_mb,
            tenant_ceiling_mb,
            tenant_evictable_mb: if tenant_short { inner.evictable_mb(Some(&self.tenant)) } else { 0 },
            instances: self.quota.instances(),
            instances_max: self.quota.instances_max(),
            others_first: !in_line && reserved_mb.is_none() && inner.others_first(self),
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
                (_, _) if self.quota.instances_max().is_some_and(|max| self.quota.instances() >= max) => format!(
                    "Function [{name}] has all the instances that it may have, and they are busy. Try again later, or raise its maximum"
                ),
                _ => format!("Function [{name}] cannot get an instance now: too many requests wait. Try again later"),
            },
        )
    }

    /// The reason of the start that `state` has just counted.
    pub(super) fn reason(&self, state: &State) -> ColdStartReason {
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

    /// True when a request waits that no start is under way for.
    pub(crate) fn waits_for_room(&self) -> bool {
        self.state.lock().seats.iter().any(|s| !s.admitted.load(Ordering::Acquire) && !s.place.is_closed())
    }

    /// Starts an instance for a request that waited for room, if there is some now.
    pub(crate) fn start_for_waiting(self: &Arc<Self>) -> Turn {
        let Some(inner) = self.inner.upgrade() else { return Turn::Nobody };
        let mut state = self.state.lock();
        state.seats.retain(|s| !s.place.is_closed());
        let Some(seat) = state.seats.iter().find(|s| !s.admitted.load(Ordering::Acquire)) else { return Turn::Nobody };
        match self.admission(&inner, &state, true) {
            Admission::Start { evict_mb, tenant_mb } => {
                seat.admitted.store(true, Ordering::Release);
                let lease = self.lease(&inner, &mut state);
                let reason = self.reason(&state);
                drop(state);
                inner.evict(evict_mb, tenant_mb, &self.tenant);
                self.start(&inner, lease, reason);
                Turn::Started
            }
            Admission::Wait(short) => Turn::Waits(short),
            // Its room in the queue is its own affair, and a quota that has shrunk is found by the next request.
            Admission::Refuse(_) => Turn::Waits(Short::Function),
        }
    }

    /// Turns away those who waited for a start that failed.
    pub(super) fn refuse(&self, refusal: &Refusal) {
        let mut left = self.concurrency();
        while left > 0 {
            let Some(seat) = self.state.lock().seats.pop_front() else { return };
            if seat.place.send(Err(refusal.clone())).is_ok() {
                left -= 1;
            }
        }
    }
}

/// What came of a version's turn among those who wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// One instance starts; more requests may wait.
    Started,
    /// No request waits any more.
    Nobody,
    /// There is no room yet.
    Waits(Short),
}
