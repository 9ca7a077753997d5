//! Who gets what when there is not enough: the line of versions that wait for room, and what others give up for them.
//!
//! See `plan::scale::share` for the rules. Nothing here runs while there is room for all.

use crate::Inner;
use crate::pool::{Pool, Tenant, Turn};
use mayfly_plan::pool::Short;
use mayfly_plan::scale::share::{divide, next_in_line};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

/// Of the shared ceiling, one in so many MB is only for versions that have no instance yet.
const HEADROOM_SHARE: u64 = 16;
/// A smaller headroom than this would not hold an instance of the usual size, and is none.
const HEADROOM_MB_MIN: u64 = 128;

/// A version with requests that wait for room.
pub(crate) struct Starved {
    pool: Weak<Pool>,
    short: Short,
    /// Since when, in use ticks.
    since: u64,
}

/// A version that waits, as it is now.
struct Waiting {
    pool: Arc<Pool>,
    since: u64,
}

impl Inner {
    /// The part of the shared ceiling that is for first instances, in MB.
    pub fn headroom_mb(&self) -> u64 {
        let headroom = self.shared_ceiling_mb() / HEADROOM_SHARE;
        if headroom < HEADROOM_MB_MIN { 0 } else { headroom }
    }

    /// Remembers a pool whose requests wait for room, and has those who hold more than their share give some up.
    pub fn starve(&self, pool: &Arc<Pool>, short: Short) {
        {
            let mut starved = self.starved.lock();
            match starved.iter_mut().find(|s| std::ptr::eq(s.pool.as_ptr(), Arc::as_ptr(pool))) {
                Some(known) => {
                    known.short = short;
                    return;
                }
                None => starved.push(Starved { pool: Arc::downgrade(pool), short, since: self.tick() }),
            }
            self.starving.store(starved.len(), Ordering::Release);
        }
        self.rebalance();
        // Room may have come free before this one stood in the line.
        self.memory_came_free();
    }

    /// True when requests wait for room.
    pub fn is_short(&self) -> bool {
        self.starving.load(Ordering::Acquire) > 0
    }

    /// True when another version waits for the platform's memory and comes before `pool`.
    pub fn others_first(&self, pool: &Arc<Pool>) -> bool {
        if !self.is_short() {
            return false;
        }
        let starved = self.starved.lock();
        let waiting = starved.iter().filter(|s| s.short == Short::Platform).filter_map(|s| s.pool.upgrade());
        waiting.filter(|other| !Arc::ptr_eq(other, pool)).any(|other| standing(&other) < standing(pool))
    }

    /// Lets requests that wait for room try again: first the tenant that holds least, there the version that holds least.
    pub fn memory_came_free(&self) {
        if !self.is_short() {
            return;
        }
        // Ending idle instances for somebody frees memory too, and leads back here: who is at it does another round.
        if self.freeing.fetch_add(1, Ordering::AcqRel) > 0 {
            return;
        }
        loop {
            let seen = self.freeing.load(Ordering::Acquire);
            self.serve_line();
            if self.freeing.fetch_sub(seen, Ordering::AcqRel) == seen {
                return;
            }
        }
    }

    fn serve_line(&self) {
        let mut line: Vec<Waiting> = {
            let mut starved = self.starved.lock();
            starved.retain(|s| s.pool.strong_count() > 0);
            self.starving.store(starved.len(), Ordering::Release);
            let waiting = starved.iter().filter_map(|s| Some(Waiting { pool: s.pool.upgrade()?, since: s.since }));
            waiting.collect()
        };
        while let Some(at) = first(&line) {
            let pool = Arc::clone(&line[at].pool);
            match pool.start_for_waiting() {
                Turn::Started => continue,
                Turn::Nobody => self.leave_line(&pool),
                Turn::Waits(short) => {
                    let mut starved = self.starved.lock();
                    if let Some(known) = starved.iter_mut().find(|s| std::ptr::eq(s.pool.as_ptr(), Arc::as_ptr(&pool)))
                    {
                        known.short = short;
                    }
                    if short == Short::Platform {
                        // Whoever comes after holds more.
                        return;
                    }
                }
            }
            line.swap_remove(at);
        }
    }

    fn leave_line(&self, pool: &Arc<Pool>) {
        let mut starved = self.starved.lock();
        starved.retain(|s| !std::ptr::eq(s.pool.as_ptr(), Arc::as_ptr(pool)));
        self.starving.store(starved.len(), Ordering::Release);
        drop(starved);
        // One that took its seat in the meantime found the version in the line, and relies on it.
        if pool.waits_for_room() {
            let mut starved = self.starved.lock();
            if !starved.iter().any(|s| std::ptr::eq(s.pool.as_ptr(), Arc::as_ptr(pool))) {
                starved.push(Starved { pool: Arc::downgrade(pool), short: Short::Platform, since: self.tick() });
                self.starving.store(starved.len(), Ordering::Release);
            }
        }
    }

    /// Divides anew what there is too little of, and tells each version how many instances it is to give up.
    pub fn rebalance(&self) {
        let pools: Vec<Arc<Pool>> = self.pools.lock().values().cloned().collect();
        let mut owed = vec![0usize; pools.len()];
        let starved: Vec<(Arc<Pool>, Short)> = {
            let starved = self.starved.lock();
            starved.iter().filter_map(|s| Some((s.pool.upgrade()?, s.short))).collect()
        };
        let hungry = |pool: &Arc<Pool>, short: Short| starved.iter().any(|(p, s)| Arc::ptr_eq(p, pool) && *s == short);
        if starved.iter().any(|(_, short)| *short == Short::Platform) {
            let part: Vec<usize> = (0..pools.len()).filter(|i| pools[*i].quota.reserved_mb().is_none()).collect();
            let theirs: u64 = part.iter().map(|i| pools[*i].held() as u64 * pools[*i].memory_mb()).sum();
            let used_mb = self.shared_mb.load(Ordering::Acquire);
            // What replaced versions still hold cannot be divided.
            let total = self.shared_ceiling_mb().saturating_sub(used_mb.saturating_sub(theirs));
            share_out(&pools, &part, total, None, &mut owed, |pool| hungry(pool, Short::Platform));
        }
        for (pool, short) in &starved {
            match (short, self.options.namespace_ceiling_mb, pool.quota.instances_max()) {
                (Short::Tenant, Some(ceiling), _) => {
                    let same = |i: &usize| Arc::ptr_eq(&pools[*i].tenant, &pool.tenant);
                    let all: Vec<usize> = (0..pools.len()).filter(same).collect();
                    let part: Vec<usize> =
                        all.iter().copied().filter(|i| pools[*i].quota.reserved_mb().is_none()).collect();
                    let theirs: u64 = part.iter().map(|i| pools[*i].held() as u64 * pools[*i].memory_mb()).sum();
                    let total = ceiling.saturating_sub(pool.tenant.used_mb().saturating_sub(theirs));
                    share_out(&pools, &part, total, None, &mut owed, |pool| hungry(pool, Short::Tenant));
                }
                (Short::Function, _, Some(max)) => {
                    let same = |i: &usize| Arc::ptr_eq(&pools[*i].quota, &pool.quota);
                    let part: Vec<usize> = (0..pools.len()).filter(same).collect();
                    share_out(&pools, &part, u64::from(max), Some(1), &mut owed, |pool| hungry(pool, Short::Function));
                }
                _ => {}
            }
        }
        for (pool, owed) in pools.iter().zip(owed) {
            pool.owe(owed);
        }
    }

    /// Ends an idle instance of another version of the same function, if there is one.
    pub fn evict_of_function(&self, pool: &Arc<Pool>) {
        let pools: Vec<Arc<Pool>> = self.pools.lock().values().cloned().collect();
        let others = pools.iter().filter(|p| Arc::ptr_eq(&p.quota, &pool.quota) && !Arc::ptr_eq(p, pool));
        let idle = others.filter_map(|p| p.oldest_idle(true).map(|tick| (tick, p)));
        if let Some((_, other)) = idle.min_by_key(|(tick, _)| *tick) {
            other.evict_one();
        }
    }
}

/// What a version holds, its tenant's first, in MB.
fn standing(pool: &Pool) -> (u64, u64) {
    (pool.tenant.used_mb(), pool.held() as u64 * pool.memory_mb())
}

/// Whose turn it is.
fn first(line: &[Waiting]) -> Option<usize> {
    let tenants: Vec<(u64, f64, u64)> = line.iter().map(|w| (w.pool.tenant.used_mb(), 1.0, 0)).collect();
    let tenant = &line[next_in_line(&tenants)?].pool.tenant;
    let theirs: Vec<usize> = (0..line.len()).filter(|i| Arc::ptr_eq(&line[*i].pool.tenant, tenant)).collect();
    let versions: Vec<(u64, f64, u64)> =
        theirs.iter().map(|i| (standing(&line[*i].pool).1, 1.0, line[*i].since)).collect();
    next_in_line(&versions).map(|i| theirs[i])
}

/// Divides `total` among the pools of `part`. Who has more than its share owes as much as the hungry ones miss.
fn share_out(
    pools: &[Arc<Pool>],
    part: &[usize],
    total: u64,
    unit: Option<u64>,
    owed: &mut [usize],
    hungry: impl Fn(&Arc<Pool>) -> bool,
) {
    let mut tenants: HashMap<*const Tenant, u64> = HashMap::new();
    let mut claims = Vec::new();
    let mut who = Vec::new();
    for i in part {
        let count = tenants.len() as u64;
        let tenant = *tenants.entry(Arc::as_ptr(&pools[*i].tenant)).or_insert(count);
        if let Some(claim) = pools[*i].claim(tenant, unit) {
            claims.push(claim);
            who.push(*i);
        }
    }
    let granted = divide(total, &claims);
    let held: Vec<u64> = who.iter().map(|i| pools[*i].held() as u64).collect();
    let all: u64 = held.iter().zip(&claims).map(|(held, claim)| held * claim.memory_mb).sum();
    let missing: u64 = (0..who.len())
        .filter(|k| hungry(&pools[who[*k]]))
        .map(|k| u64::from(granted[k]).saturating_sub(held[k]) * claims[k].memory_mb)
        .sum();
    let mut missing = missing.saturating_sub(total.saturating_sub(all));
    // Who has most over its share gives first.
    let over = |k: usize| held[k].saturating_sub(u64::from(granted[k]));
    let mut order: Vec<usize> = (0..who.len()).filter(|k| over(*k) > 0).collect();
    order.sort_by_key(|k| std::cmp::Reverse(over(*k) * claims[*k].memory_mb));
    for k in order {
        let count = missing.div_ceil(claims[k].memory_mb).min(over(k));
        owed[who[k]] = owed[who[k]].max(usize::try_from(count).unwrap_or(usize::MAX));
        missing = missing.saturating_sub(count * claims[k].memory_mb);
    }
}
