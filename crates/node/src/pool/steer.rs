//! The number of a service's instances, as the autoscaler in `plan` wants it; and who goes when there are too many.

use super::ends::{PLANNED_IDLE, end_later};
use super::{Pool, State, take_out};
use crate::Inner;
use crate::service::Resident;
use mayfly_model::ColdStartReason;
use mayfly_plan::scale::share::Claim;
use mayfly_plan::scale::{Bounds, Desired, Ending, InstanceLoad, Live, ScaleOptions, Why, victims};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The shortest time over which demand is averaged, in milliseconds.
const STABLE_MS_MIN: u64 = 2_000;

/// The windows of a service: those of `plan`, unless instances are to be kept for less than that.
pub(super) fn options(concurrency: u32, keep_alive: Duration) -> ScaleOptions {
    let keep_ms = u64::try_from(keep_alive.as_millis()).unwrap_or(u64::MAX);
    let usual = ScaleOptions::service(concurrency);
    let stable_ms = keep_ms.clamp(STABLE_MS_MIN, usual.stable_ms);
    ScaleOptions {
        stable_ms,
        panic_ms: usual.panic_ms.min(stable_ms),
        scale_in_delay_ms: usual.scale_in_delay_ms.min(keep_ms),
        ..usual
    }
}

fn narrow(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

impl Pool {
    fn now_ms(&self) -> u64 {
        self.born.elapsed().as_millis() as u64
    }

    /// Tells the autoscaler how many requests there are. To be called when that has changed.
    pub(super) fn observe(&self, state: &mut State) {
        let requests = state.requests + state.seats.len();
        if let Some(scaler) = &mut state.scaler {
            scaler.observe(self.now_ms(), narrow(requests));
        }
    }

    /// One look of the autoscaler at a service: starts what its windows and floors want, and ends in steps what they do not.
    pub(crate) fn steer(self: &Arc<Self>, inner: &Arc<Inner>) {
        let now = Instant::now();
        let (wanted, ended) = {
            let mut state = self.state.lock();
            if state.retired {
                return;
            }
            let Some(desired) = self.decide(&mut state) else { return };
            let last = state.alive.saturating_sub(desired.end as usize) == 0;
            let mut count = desired.end as usize;
            if last && count > 0 {
                // The last one stays as long as one of an event function would.
                let keep = if state.floor.is_some() { PLANNED_IDLE } else { inner.options.keep_alive };
                let idle = state.residents.iter().filter(|r| r.load() == 0 && !r.is_gone());
                let newest = idle.map(|r| now.duration_since(*r.idle_since.lock())).min();
                count -= usize::from(newest.is_none_or(|age| age < keep));
            }
            let mut ended = self.end_some(&mut state, count, false, ColdStartReason::Expired);
            // A maximum that was lowered holds for busy ones too, once they are done.
            let open = state.residents.iter().filter(|r| !r.is_gone()).count();
            let over = self.quota.instances_max().map_or(0, |max| open.saturating_sub(max as usize));
            ended.extend(self.end_some(&mut state, over, true, ColdStartReason::Expired));
            // A wish that only holds on to what there was makes nothing new.
            let ahead = desired.start > 0 && !matches!(desired.why, Why::Delay);
            (if ahead { desired.instances as usize } else { 0 }, ended)
        };
        drop(ended);
        self.fill(inner, wanted);
    }

    fn decide(&self, state: &mut State) -> Option<Desired> {
        let now_ms = self.now_ms();
        let ready = state.residents.iter().filter(|r| !r.is_gone()).count();
        let live = Live {
            in_flight: narrow(state.requests),
            waiting: narrow(state.seats.len()),
            ready: narrow(ready),
            starting: narrow(state.starting),
            idle: narrow(state.residents.iter().filter(|r| r.load() == 0 && !r.is_gone()).count()),
        };
        // What other versions of the function have leaves less for this one.
        let others = self.quota.instances().saturating_sub(narrow(state.alive));
        let bounds = Bounds {
            min: narrow(state.minimum),
            provisioned: narrow(state.provisioned),
            warm: narrow(state.floor.unwrap_or(0)),
            max: self.quota.instances_max().map_or(u32::MAX, |max| max.saturating_sub(others)),
        };
        Some(state.scaler.as_mut()?.decide(now_ms, &live, &bounds))
    }

    /// Ends `count` instances of a service, the longest idle first; with `drain`, busy ones too, which get no new requests and end with
    /// those they have. One with a stream open stays. To be dropped when the pool is not locked.
    fn end_some(&self, state: &mut State, count: usize, drain: bool, reason: ColdStartReason) -> Vec<Arc<Resident>> {
        if count == 0 {
            return Vec::new();
        }
        let limit = self.inner.upgrade().map_or(Duration::ZERO, |inner| inner.options.streams_after_update);
        let now = Instant::now();
        let open: Vec<Arc<Resident>> = state.residents.iter().filter(|r| !r.is_gone()).cloned().collect();
        let loads: Vec<InstanceLoad> = open
            .iter()
            .enumerate()
            .map(|(at, r)| {
                let (load, streams) = (r.load(), r.streams().min(r.load()));
                let idle_ms = if load > 0 { 0 } else { now.duration_since(*r.idle_since.lock()).as_millis() as u64 };
                InstanceLoad { id: at as u64, requests: narrow(load - streams), streams: narrow(streams), idle_ms }
            })
            .collect();
        let mut out = Vec::new();
        for ending in victims(&loads, count, drain) {
            match ending {
                Ending::End(at) => {
                    open[at as usize].end(reason);
                    out.extend(take_out(&mut state.residents, &open[at as usize]));
                }
                Ending::Drain(at) => {
                    open[at as usize].end(reason);
                    end_later(&open[at as usize], limit);
                }
            }
        }
        out
    }

    /// What this version asks of a division of memory; `None`: it takes no part. Its memory is `unit_mb` when that is given.
    pub(crate) fn claim(&self, tenant: u64, unit_mb: Option<u64>) -> Option<Claim> {
        let state = self.state.lock();
        let needed = state.needed(self.concurrency());
        if state.alive == 0 && needed == 0 {
            return None;
        }
        let fixed = state.fixed().min(state.alive);
        Some(Claim {
            tenant,
            weight: 1.0,
            memory_mb: unit_mb.unwrap_or(self.memory_mb()),
            wanted: narrow(needed.max(fixed)),
            fixed: narrow(fixed),
        })
    }

    /// Instances, running or starting.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Acquire)
    }

    /// Is to give up `count` instances. An event function's go as they become free; a service's get no new requests from now on.
    pub(crate) fn owe(&self, count: usize) {
        if self.spec.config.service.is_none() {
            self.owed.store(count, Ordering::Release);
            return;
        }
        let ended = {
            let mut state = self.state.lock();
            // Those on their way out already count.
            let leaving = state.residents.iter().filter(|r| r.is_gone()).count();
            self.end_some(&mut state, count.saturating_sub(leaving), true, ColdStartReason::Evicted)
        };
        drop(ended);
    }

    /// True when an instance that has become free is to be given up for others. Counts it.
    pub(super) fn pays(&self) -> bool {
        self.owed.load(Ordering::Acquire) > 0
            && self.inner.upgrade().is_some_and(|inner| inner.is_short())
            && self.owed.fetch_update(Ordering::AcqRel, Ordering::Acquire, |owed| owed.checked_sub(1)).is_ok()
    }
}
