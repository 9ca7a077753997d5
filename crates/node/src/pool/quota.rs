//! Accounts of memory, and an instance's place in them.

use super::{Pool, State};
use crate::Inner;
use mayfly_model::ColdStartReason;
use mayfly_sandbox::Instance;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

/// The memory account of one function, all its versions together.
#[derive(Debug)]
pub struct Quota {
    used_mb: AtomicU64,
    /// -1: none of its own.
    reserved_mb: AtomicI64,
    /// Instances of versions that are still called.
    instances: AtomicU32,
    /// Most of them.
    instances_max: AtomicU32,
}

/// The memory account of a tenant: today, a namespace.
#[derive(Debug, Default)]
pub(crate) struct Tenant {
    used_mb: AtomicU64,
}

impl Tenant {
    /// Configured memory of its instances, in MB.
    pub fn used_mb(&self) -> u64 {
        self.used_mb.load(Ordering::Acquire)
    }
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            used_mb: AtomicU64::new(0),
            reserved_mb: AtomicI64::new(-1),
            instances: AtomicU32::new(0),
            instances_max: AtomicU32::new(u32::MAX),
        }
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

    /// Instances of the function, running or starting. Those of replaced versions, which end by themselves, do not count.
    pub fn instances(&self) -> u32 {
        self.instances.load(Ordering::Acquire)
    }

    /// Most instances that it may have.
    pub fn instances_max(&self) -> Option<u32> {
        Some(self.instances_max.load(Ordering::Acquire)).filter(|max| *max != u32::MAX)
    }

    /// Sets the most; the number before.
    pub(crate) fn set_instances_max(&self, max: Option<u32>) -> Option<u32> {
        Some(self.instances_max.swap(max.unwrap_or(u32::MAX), Ordering::AcqRel)).filter(|max| *max != u32::MAX)
    }

    /// Takes `count` instances of a version that was replaced out of the account.
    pub(super) fn discharge(&self, count: usize) {
        self.instances.fetch_sub(u32::try_from(count).unwrap_or(u32::MAX), Ordering::AcqRel);
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

impl Pool {
    pub(super) fn lease(self: &Arc<Self>, inner: &Arc<Inner>, state: &mut State) -> Lease {
        state.alive += 1;
        state.starting += 1;
        self.held.store(state.alive, Ordering::Release);
        if !state.retired {
            self.quota.instances.fetch_add(1, Ordering::AcqRel);
        }
        self.tenant.used_mb.fetch_add(self.memory_mb(), Ordering::AcqRel);
        let shared = self.quota.reserved_mb().is_none();
        self.quota.used_mb.fetch_add(self.memory_mb(), Ordering::AcqRel);
        if shared {
            inner.shared_mb.fetch_add(self.memory_mb(), Ordering::AcqRel);
        }
        Lease { pool: Arc::clone(self), end: ColdStartReason::Crashed, instance: AtomicU64::new(u64::MAX) }
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
            pool.held.store(state.alive, Ordering::Release);
            if !state.retired {
                pool.quota.discharge(1);
            }
            state.last_end = Some(self.end);
            state.instances.remove(self.instance.get_mut());
            if state.alive == 0 {
                state.empty_since = Some(Instant::now());
            }
        }
        pool.tenant.used_mb.fetch_sub(pool.memory_mb(), Ordering::AcqRel);
        pool.quota.used_mb.fetch_sub(pool.memory_mb(), Ordering::AcqRel);
        if let Some(inner) = pool.inner.upgrade() {
            if pool.quota.reserved_mb().is_none() {
                inner.shared_mb.fetch_sub(pool.memory_mb(), Ordering::AcqRel);
            }
            inner.memory_came_free();
        }
    }
}
