//! Rate limits: a bucket for each service and API in each environment, and for each key under a plan.
//!
//! A bucket holds one second's worth of requests. There are at most as many as there are limits, and they go with them.

use crate::records::Stage;
use crate::state::State;
use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// What a bucket is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Limited {
    /// An environment of a service.
    Service(String, Stage),
    /// An API in an environment.
    Api(String, Stage),
    /// A key under a plan.
    Key(String, String),
}

type Bucket = RateLimiter<NotKeyed, InMemoryState, MonotonicClock, NoOpMiddleware<std::time::Instant>>;

/// All buckets.
#[derive(Default)]
pub struct LimiterSet {
    buckets: RwLock<HashMap<Limited, (u32, Arc<Bucket>)>>,
}

impl LimiterSet {
    /// Takes one request out of a bucket that is filled with `per_second`. Errors: how long to wait.
    pub fn take(&self, what: Limited, per_second: u32) -> Result<(), Duration> {
        // A limit of nothing lets nobody in.
        let Some(rate) = NonZeroU32::new(per_second) else { return Err(Duration::from_secs(1)) };
        let known = self.buckets.read().get(&what).filter(|(r, _)| *r == per_second).map(|(_, b)| Arc::clone(b));
        let bucket = known.unwrap_or_else(|| {
            let bucket = Arc::new(RateLimiter::direct_with_clock(Quota::per_second(rate), MonotonicClock));
            self.buckets.write().insert(what, (per_second, Arc::clone(&bucket)));
            bucket
        });
        bucket.check().map_err(|not_until| not_until.wait_time_from(MonotonicClock.now()))
    }

    /// Lets go of buckets whose limits are gone.
    pub fn keep(&self, state: &State) {
        self.buckets.write().retain(|what, _| match what {
            Limited::Service(id, stage) => state.services.get(id).is_some_and(|s| s.limits.contains_key(stage)),
            Limited::Api(id, stage) => state.apis.get(id).is_some_and(|a| a.limits.contains_key(stage)),
            Limited::Key(plan, key) => {
                state.plans.get(plan).is_some_and(|p| p.per_second.is_some() && p.keys.contains(key))
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_has_one_seconds_worth_and_goes_with_its_limit() {
        let set = LimiterSet::default();
        let of = |key: &str| Limited::Key("plan".into(), key.into());
        let taken = (0..1000).filter(|_| set.take(of("a"), 100).is_ok()).count();
        assert!((100..1000).contains(&taken), "{taken}");
        assert!(set.take(of("a"), 100).is_err_and(|wait| wait <= Duration::from_secs(1)));
        assert!(set.take(of("b"), 100).is_ok() && set.take(of("b"), 0).is_err());
        // Another limit is another bucket.
        assert!(set.take(of("a"), 200).is_ok());
        set.keep(&State::default());
        assert!(set.buckets.read().is_empty());
    }
}
