//! Instances that are kept although nobody asks for them: ordered, or planned.

use super::Pool;
use crate::{Inner, start};
use mayfly_plan::pool::{Admission, Short};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// After a start ahead of need failed, the next is tried no sooner.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(10);

impl Pool {
    /// Most instances that were needed at once since the last call, and the calls since then.
    pub(crate) fn take_peak(&self) -> (usize, u64) {
        let mut state = self.state.lock();
        let now = state.needed(self.concurrency());
        let peak = std::mem::replace(&mut state.peak, now).max(now);
        (peak, std::mem::take(&mut state.calls))
    }

    /// Keeps at least `floor` instances from here on, idle ones included, in the place of the keep-alive.
    pub(crate) fn keep(self: &Arc<Self>, inner: &Arc<Inner>, floor: usize) {
        self.state.lock().floor = Some(floor);
        self.fill(inner, 0);
    }

    /// Goes back to the keep-alive.
    pub(crate) fn unkeep(&self) {
        self.state.lock().floor = None;
    }

    /// The function's own minimum is to be kept of this version from here on.
    pub(crate) fn set_minimum(self: &Arc<Self>, inner: &Arc<Inner>, minimum: usize) {
        self.state.lock().minimum = minimum;
        self.fill(inner, 0);
    }

    /// Keeps at least so many instances ready until another number is said.
    pub(crate) fn provision(self: &Arc<Self>, inner: &Arc<Inner>, count: usize) {
        self.state.lock().provisioned = count;
        self.fill(inner, 0);
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

    /// Starts what is missing of what is to be kept and of `wanted`, as far as memory is free: nobody else's instances are ended for it.
    pub(super) fn fill(self: &Arc<Self>, inner: &Arc<Inner>, wanted: usize) {
        loop {
            let mut state = self.state.lock();
            if state.retired || state.alive >= state.least().max(wanted) {
                return;
            }
            // Broken code must not keep the machine busy.
            if state.blocked.as_ref().is_some_and(|(at, _)| at.elapsed() < PAUSE_AFTER_FAILURE) {
                return;
            }
            match self.admission(inner, &state, false) {
                Admission::FREE => {}
                Admission::Wait(Short::Function) => {
                    let why = "The function has all the instances that it may have".to_owned();
                    state.blocked = Some((Instant::now(), why));
                    return;
                }
                _ => {
                    state.blocked = Some((Instant::now(), "There is not enough memory for more instances".to_owned()));
                    return;
                }
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
}
