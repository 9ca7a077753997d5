//! How instances go: idle too long, for others, with their version, or by themselves.

use super::{Pool, take_out};
use crate::service::Resident;
use crate::worker::Worker;
use mayfly_model::ColdStartReason;
use mayfly_plan::pool::KeepAlive;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How long an instance stays idle that the plan for this minute does not want.
pub(super) const PLANNED_IDLE: Duration = Duration::from_secs(30);

impl Pool {
    /// Takes an instance whose server has ended out of service.
    pub(crate) fn bury(&self, resident: &Arc<Resident>) {
        resident.end(ColdStartReason::Crashed);
        resident.kill();
        let out = take_out(&mut self.state.lock().residents, resident);
        drop(out);
    }

    /// Ends idle instances of an event function that `keep` no longer wants, and the template of a version that nobody has called for long.
    pub(crate) fn scale_in(&self, keep: &KeepAlive) {
        let now = Instant::now();
        let planned = KeepAlive { idle_ms: PLANNED_IDLE.as_millis() as u64, ..*keep };
        let (ended, forget) = {
            let mut state = self.state.lock();
            let keep = if state.floor.is_some() { &planned } else { keep };
            let spare = state.alive.saturating_sub(state.least());
            let ages = state.idle.iter().map(|w| now.duration_since(w.idle_since).as_millis() as u64);
            let count = keep.excess(ages).min(spare);
            // A maximum that was lowered holds at once for those who have nothing to do.
            let over = self.quota.instances_max().map_or(0, |max| self.quota.instances().saturating_sub(max));
            let count = count.max(over as usize).min(state.idle.len());
            let ended: Vec<Worker> = state.idle.drain(..count).collect();
            let forget = state.alive == 0
                && state.empty_since.is_some_and(|t| now.duration_since(t).as_millis() as u64 >= keep.idle_ms);
            (ended, forget)
        };
        for mut worker in ended {
            worker.lease.ends(ColdStartReason::Expired);
        }
        if forget
            && !self.is_parked()
            && let Ok(mut template) = self.template.try_lock()
        {
            template.forget();
        }
    }

    /// Ends instances whose keys are old: idle ones now, those at work after it.
    pub(crate) fn end_old(&self) {
        if self.spec.config.role().is_none() {
            return;
        }
        let limit = self.inner.upgrade().map_or(Duration::ZERO, |inner| inner.options.streams_after_update);
        let (workers, residents) = {
            let mut state = self.state.lock();
            let workers: Vec<Worker> = state.idle.extract_if(.., |worker| worker.process.is_old()).collect();
            let old: Vec<Arc<Resident>> =
                state.residents.iter().filter(|r| r.is_old() && !r.is_gone()).cloned().collect();
            for resident in &old {
                resident.end(ColdStartReason::Expired);
                if resident.load() == 0 {
                    take_out(&mut state.residents, resident);
                } else {
                    end_later(resident, limit);
                }
            }
            (workers, old)
        };
        // Not under the lock: leases take it.
        drop(residents);
        for mut worker in workers {
            worker.lease.ends(ColdStartReason::Expired);
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
    /// `reserved`: also one with a quota of its own.
    pub(crate) fn oldest_idle(&self, reserved: bool) -> Option<u64> {
        if !reserved && self.quota.reserved_mb().is_some() {
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
            self.parked.store(false, Ordering::Release);
            if !std::mem::replace(&mut state.retired, true) {
                self.quota.discharge(state.alive);
            }
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
        let Some(inner) = self.inner.upgrade() else { return };
        for resident in &self.state.lock().residents {
            end_later(resident, inner.options.streams_after_update);
        }
    }
}

/// Gives what is still under way on an instance that takes no more requests some time, and ends it then.
pub(super) fn end_later(resident: &Arc<Resident>, limit: Duration) {
    // Without a runtime there is nobody to serve either.
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    let resident = Arc::downgrade(resident);
    runtime.spawn(async move {
        tokio::time::sleep(limit).await;
        if let Some(resident) = resident.upgrade() {
            resident.kill();
        }
    });
}
