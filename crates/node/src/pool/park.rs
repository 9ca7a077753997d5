//! Parked versions: an instance that is initialised before anybody calls, and kept as a template, so that a start is a fork.

use super::Pool;
use crate::{Inner, start};
use mayfly_model::{ForkMode, RuntimeId};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

impl Pool {
    /// True while its template is kept although nobody calls.
    pub(super) fn is_parked(&self) -> bool {
        self.parked.load(Ordering::Acquire)
    }

    /// Whether instances of this version can be forked at all.
    fn can_park(&self) -> bool {
        let config = &self.spec.config;
        config.runtime == RuntimeId::Python && config.fork == ForkMode::Auto && config.service.is_none()
    }

    /// Lets the template go, now or when it is made.
    fn unpark(&self) {
        self.parked.store(false, Ordering::Release);
        if let Ok(mut template) = self.template.try_lock() {
            template.forget();
        }
    }

    /// True when no request will come any more.
    pub(crate) fn is_retired(&self) -> bool {
        self.state.lock().retired
    }

    /// Initialises the version now and parks it, if it can be forked and parking is switched on. It takes the place of the one called
    /// longest ago when there are too many.
    pub(crate) fn park(self: &Arc<Self>, inner: &Arc<Inner>) {
        if inner.options.park == 0 || !self.can_park() {
            return;
        }
        self.keep_parked(inner);
        let (pool, inner) = (Arc::clone(self), Arc::clone(inner));
        tokio::spawn(async move {
            if let Err(refusal) = start::park(&inner, &pool).await {
                // Its first call will try again, and tell whoever calls.
                tracing::info!(error = %refusal.message, function = %pool.spec.function, "a version could not be initialised ahead");
            }
            if pool.is_retired() || !pool.is_parked() {
                pool.template.lock().await.forget();
            }
        });
    }

    /// Counts the version among the parked ones.
    pub(crate) fn keep_parked(self: &Arc<Self>, inner: &Arc<Inner>) {
        if inner.options.park == 0 || self.parked.swap(true, Ordering::AcqRel) {
            return;
        }
        self.called.fetch_max(inner.tick(), Ordering::Relaxed);
        let dropped = {
            let mut parked = inner.parked.lock();
            parked.retain(|other| other.upgrade().is_some_and(|p| p.is_parked()));
            parked.push(Arc::downgrade(self));
            let over = parked.len().saturating_sub(inner.options.park);
            let mut all: Vec<Arc<Pool>> = parked.iter().filter_map(Weak::upgrade).collect();
            all.sort_by_key(|p| p.called.load(Ordering::Relaxed));
            all.truncate(over);
            parked.retain(|other| !all.iter().any(|p| std::ptr::eq(other.as_ptr(), Arc::as_ptr(p))));
            all
        };
        for pool in dropped {
            pool.unpark();
        }
    }
}
