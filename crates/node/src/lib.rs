//! Keeps the instances of one machine: pools, templates, the waiting room, and what instances print.
//!
//! The way of an invocation: [`Node::invoke`] takes an idle worker of the version's [`pool::Pool`], the one used last; with none idle
//! it takes a seat and a start is set off at once if quota and memory allow. The worker runs the event, and goes back or, after
//! any error that leaves doubt, away. See `docs/scheduling.md`.

mod environment;
mod error;
mod flight;
mod go;
pub mod inside;
mod output;
pub mod pool;
mod runtime_api;
pub mod service;
mod shares;
mod start;
mod warm;
mod worker;

use mayfly_base::Abort;
use mayfly_model::{
    EventMark, InvocationRecord, InvokeOutcome, Lineage, RequestId, RuntimeId, VersionKey, VersionSpec,
};
use mayfly_plan::pool::KeepAlive;
use mayfly_sandbox::Backend;
use mayfly_store::CodeCache;
use parking_lot::Mutex;
use pool::{Pool, Quota, Tenant};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

pub use error::Refusal;

/// Settings of a node.
#[derive(Clone)]
pub struct NodeOptions {
    /// What instances may hold together, in MB of configured memory.
    pub memory_ceiling_mb: u64,
    /// What instances of one namespace may hold together, in MB; `None`: as much as there is.
    pub namespace_ceiling_mb: Option<u64>,
    /// Versions that are initialised ahead and whose template stays; where there are more, those called last. 0: none.
    pub park: usize,
    /// How long an idle instance is kept at least.
    pub keep_alive: Duration,
    /// Processes of each runtime that wait for any function.
    pub precreate: HashMap<RuntimeId, usize>,
    /// Command lines of runtimes whose program is started when the function is known. `{heap_mb}` stands for what of the function's
    /// memory its objects may take.
    pub programs: HashMap<RuntimeId, Vec<String>>,
    /// Most requests of one version that wait for an instance.
    pub waiting_max: usize,
    /// Longest wait for memory to come free.
    pub waiting: Duration,
    /// How long streams and WebSockets on a service's old version may go on after an update.
    pub streams_after_update: Duration,
    /// Region shown to functions.
    pub region: String,
    /// Account shown to functions.
    pub app_id: String,
    /// Owner shown to functions.
    pub uin: String,
    /// Serves the platform to functions with a role; `None`: to none.
    pub services: Option<Arc<dyn inside::Services>>,
    /// The keys of roles that functions have.
    pub badges: inside::Badges,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self {
            memory_ceiling_mb: mayfly_model::limits::CONCURRENCY_MB_DEFAULT,
            namespace_ceiling_mb: None,
            park: 0,
            keep_alive: Duration::from_secs(600),
            precreate: HashMap::from([
                (RuntimeId::Python, 4),
                (RuntimeId::Node, 2),
                (RuntimeId::Php, 1),
                (RuntimeId::Java, 1),
                (RuntimeId::Custom, 2),
            ]),
            programs: HashMap::new(),
            waiting_max: 1000,
            waiting: Duration::from_secs(10),
            streams_after_update: Duration::from_secs(900),
            region: "ap-guangzhou".into(),
            app_id: "1250000000".into(),
            uin: "100000000001".into(),
            services: None,
            badges: inside::Badges::default(),
        }
    }
}

/// Where the record of each invocation goes. Called on the invocation's way: it must not block.
pub trait RecordSink: Send + Sync {
    /// Takes one record.
    fn record(&self, record: InvocationRecord);
}

/// One invocation to run.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// Its id.
    pub request_id: RequestId,
    /// The event, JSON text already checked.
    pub event: bytes::Bytes,
    /// True: put the log into the outcome.
    pub want_log: bool,
    /// True: put it there if the invocation fails.
    pub log_failure: bool,
    /// Attempt number of an asynchronous event, from 0.
    pub retry: u32,
    /// Set when it runs an asynchronous event.
    pub event_mark: Option<EventMark>,
    /// Who may end it early.
    pub abort: Option<Abort>,
    /// The failed request that this replays.
    pub origin: Option<RequestId>,
    /// What the caller named.
    pub qualifier: String,
    /// What called it, when that was another invocation.
    pub lineage: Lineage,
}

/// Figures of a node, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeStats {
    /// Instances that run an invocation.
    pub busy: usize,
    /// Instances that wait for one.
    pub idle: usize,
    /// Instances on their way.
    pub starting: usize,
    /// Templates.
    pub templates: usize,
    /// Processes that wait for any function.
    pub precreated: usize,
    /// Requests that wait for an instance.
    pub waiting: usize,
    /// Configured memory of all instances, in MB.
    pub memory_mb: u64,
}

/// A node. Cloning gives another handle.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub backend: Arc<dyn Backend>,
    pub code: Arc<CodeCache>,
    pub sink: Arc<dyn RecordSink>,
    pub options: NodeOptions,
    pub badges: inside::Badges,
    pub warm: warm::Warm,
    pools: Mutex<HashMap<VersionKey, Arc<Pool>>>,
    quotas: Mutex<HashMap<String, Arc<Quota>>>,
    tenants: Mutex<HashMap<String, Arc<Tenant>>>,
    /// Memory of instances of functions without a quota of their own, in MB.
    pub shared_mb: AtomicU64,
    /// Versions with requests that wait for room, each once.
    starved: Mutex<Vec<shares::Starved>>,
    /// Their number, for a look without the lock.
    starving: AtomicUsize,
    /// Versions whose template stays.
    parked: Mutex<Vec<std::sync::Weak<Pool>>>,
    /// Times that memory came free while those who wait were being served, and one for the serving itself.
    freeing: AtomicUsize,
    /// Grows with every use of an instance; tells which instance was used longest ago.
    pub ticks: AtomicU64,
}

impl Node {
    /// Makes a node over `backend` and starts to fill its stock of waiting processes.
    pub fn new(
        backend: Arc<dyn Backend>,
        code: Arc<CodeCache>,
        sink: Arc<dyn RecordSink>,
        options: NodeOptions,
    ) -> Self {
        let warm = warm::Warm::new(Arc::clone(&backend), &options.precreate);
        let inner = Arc::new(Inner {
            backend,
            code,
            sink,
            badges: options.badges.clone(),
            options,
            warm,
            pools: Mutex::default(),
            quotas: Mutex::default(),
            tenants: Mutex::default(),
            shared_mb: AtomicU64::new(0),
            starved: Mutex::default(),
            starving: AtomicUsize::new(0),
            parked: Mutex::default(),
            freeing: AtomicUsize::new(0),
            ticks: AtomicU64::new(0),
        });
        inner.warm.fill();
        Self { inner }
    }

    /// The pool of a version, made when there is none. `replaces`: it takes the place of an older state of the same function.
    pub fn pool(&self, spec: &Arc<VersionSpec>, replaces: bool) -> Arc<Pool> {
        let quota = self.inner.quota(&spec.key.function_id);
        let tenant = Arc::clone(self.inner.tenants.lock().entry(spec.namespace.to_string()).or_default());
        let mut pools = self.inner.pools.lock();
        let pool = pools
            .entry(spec.key.clone())
            .or_insert_with(|| Pool::new(&self.inner, Arc::clone(spec), quota, tenant, replaces));
        Arc::clone(pool)
    }

    /// Runs one invocation. It writes the record. When the future is dropped, the invocation runs to its end all the same, as a caller's
    /// lost connection must not tear a function's work in two.
    pub async fn invoke(&self, pool: &Arc<Pool>, invocation: Invocation) -> InvokeOutcome {
        flight::invoke(&self.inner, pool, invocation).await
    }

    /// Runs one request for a service. The response's body must be read or dropped: the request ends with it.
    pub async fn serve(&self, pool: &Arc<Pool>, call: service::ServiceCall) -> http::Response<service::StreamBody> {
        service::serve(&self.inner, pool, call).await
    }

    /// Writes down a request for a service that is not made.
    pub fn refuse(&self, pool: &Arc<Pool>, call: service::ServiceCall, refusal: &Refusal) {
        service::refuse(&self.inner, pool, call, refusal);
    }

    /// Says that no more requests will come for a version: idle instances end now, busy ones after their invocation
    /// (at once when `force`).
    pub fn retire(&self, key: &VersionKey, force: bool) {
        let pool = self.inner.pools.lock().remove(key);
        if let Some(pool) = pool {
            pool.retire(force);
        }
    }

    /// Takes the keys of a version's role away from its instances, also from those at work.
    pub fn revoke(&self, key: &VersionKey) {
        self.inner.badges.revoke(key);
    }

    /// Sets the reserved quota of a function, in MB.
    pub fn set_reserved(&self, function_id: &str, reserved_mb: Option<u64>) {
        let quota = self.inner.quota(function_id);
        let old = quota.reserved_mb();
        quota.set_reserved(reserved_mb, &self.inner.shared_mb);
        if old != reserved_mb {
            self.inner.memory_came_free();
        }
    }

    /// Forgets the quota of a deleted function.
    pub fn forget_function(&self, function_id: &str) {
        self.inner.quotas.lock().remove(function_id);
    }

    /// One look at all pools: ends instances that have been idle too long, lets the autoscaler steer services, and divides anew what there
    /// is too little of. Call it about once a second.
    pub fn tend(&self) {
        let keep = KeepAlive { idle_ms: self.inner.options.keep_alive.as_millis() as u64, share: 4 };
        let pools: Vec<Arc<Pool>> = self.inner.pools.lock().values().cloned().collect();
        for pool in pools {
            pool.end_old();
            match pool.spec.config.service {
                Some(_) => pool.steer(&self.inner),
                None => pool.scale_in(&keep),
            }
        }
        if self.inner.is_short() {
            self.inner.rebalance();
            self.inner.memory_came_free();
        }
        self.inner.warm.fill();
    }

    /// Every pool, with the most instances that it needed at once and the calls that came since this was asked last.
    pub fn demand(&self) -> Vec<(Arc<Pool>, usize, u64)> {
        let with_peak = |pool: Arc<Pool>| {
            let (peak, calls) = pool.take_peak();
            (pool, peak, calls)
        };
        self.pools().into_iter().map(with_peak).collect()
    }

    /// Whether versions are initialised ahead.
    pub fn parks(&self) -> bool {
        self.inner.options.park > 0
    }

    /// Initialises a version now, in the background, and keeps it so that instances are forked from it: if parking is switched on and the
    /// version can be forked.
    pub fn park(&self, pool: &Arc<Pool>) {
        pool.park(&self.inner);
    }

    /// Keeps `warm` instances of a version, busy ones included, from now on; idle ones beyond that go within a minute.
    pub fn keep(&self, pool: &Arc<Pool>, warm: usize) {
        pool.keep(&self.inner, warm);
    }

    /// Keeps at least `count` instances of a version ready until another number is said. To be said again from time to time: what has ended
    /// since is started anew then.
    pub fn provision(&self, pool: &Arc<Pool>, count: usize) {
        pool.provision(&self.inner, count);
    }

    /// Leaves the number of idle instances of a version to the keep-alive again.
    pub fn unkeep(&self, pool: &Pool) {
        pool.unkeep();
    }

    /// Keeps at least `count` instances of a version from now on, as the minimum of its function. To be said again from time to time.
    pub fn set_minimum(&self, pool: &Arc<Pool>, count: usize) {
        pool.set_minimum(&self.inner, count);
    }

    /// Sets how many instances a function may have, all its versions together; `None`: no limit of its own.
    pub fn set_maximum(&self, function_id: &str, max: Option<u32>) {
        if self.inner.quota(function_id).set_instances_max(max) != max {
            self.inner.memory_came_free();
        }
    }

    /// Requests that wait for an instance, by namespace and name of their function; every function that has a pool is there.
    pub fn waiting(&self) -> HashMap<(String, String), usize> {
        let mut waiting = HashMap::new();
        for pool in self.pools() {
            let key = (pool.spec.namespace.to_string(), pool.spec.function.to_string());
            *waiting.entry(key).or_default() += pool.waiting();
        }
        waiting
    }

    fn pools(&self) -> Vec<Arc<Pool>> {
        self.inner.pools.lock().values().cloned().collect()
    }

    /// Instances of a pool that have a request now.
    pub fn busy(&self, pool: &Pool) -> usize {
        pool.busy()
    }

    /// How a pool stands: instances ready or at work, instances starting, and why no more could be started ahead.
    pub fn readiness(&self, pool: &Pool) -> (usize, usize, Option<String>) {
        pool.readiness()
    }

    /// Figures of now.
    pub fn stats(&self) -> NodeStats {
        let mut stats = NodeStats { precreated: self.inner.warm.len(None), ..NodeStats::default() };
        for pool in self.pools() {
            pool.add_to(&mut stats);
        }
        stats.memory_mb = self.inner.quotas.lock().values().map(|q| q.used_mb()).sum();
        stats
    }

    /// Figures of now, of the instances of one runtime. Their memory is not counted.
    pub fn stats_of(&self, runtime: RuntimeId) -> NodeStats {
        let mut stats = NodeStats { precreated: self.inner.warm.len(Some(runtime)), ..NodeStats::default() };
        for pool in self.pools().iter().filter(|p| p.spec.config.runtime == runtime) {
            pool.add_to(&mut stats);
        }
        stats
    }

    /// What the backend promises.
    pub fn guarantees(&self) -> Vec<(String, Result<String, String>)> {
        self.inner.backend.guarantees()
    }

    /// Waits until no instance is busy or starting, at most `patience`. False: some still were.
    pub async fn drain(&self, patience: Duration) -> bool {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let stats = self.stats();
            if stats.busy + stats.starting + stats.waiting == 0 {
                return true;
            }
            if tokio::time::Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends everything.
    pub async fn stop(&self) {
        self.inner.warm.stop();
        let pools: Vec<Arc<Pool>> = self.inner.pools.lock().drain().map(|(_, p)| p).collect();
        for pool in pools {
            pool.retire(true);
        }
        self.inner.backend.stop().await;
    }
}

impl Inner {
    fn quota(&self, function_id: &str) -> Arc<Quota> {
        Arc::clone(self.quotas.lock().entry(function_id.to_owned()).or_default())
    }

    /// The part of the ceiling that is not reserved by anybody, in MB.
    pub fn shared_ceiling_mb(&self) -> u64 {
        let reserved: u64 = self.quotas.lock().values().filter_map(|q| q.reserved_mb()).sum();
        self.options.memory_ceiling_mb.saturating_sub(reserved)
    }

    /// Memory of idle instances of functions without a quota, in MB: of all, or of one tenant.
    pub fn evictable_mb(&self, tenant: Option<&Arc<Tenant>>) -> u64 {
        let pools = self.pools.lock();
        let of = pools.values().filter(|p| tenant.is_none_or(|t| Arc::ptr_eq(t, &p.tenant)));
        of.map(|p| p.evictable_mb()).sum()
    }

    /// Ends idle instances of functions without a quota, longest unused first, until `mb` came free, `tenant_mb` of that from `tenant`.
    pub fn evict(&self, mb: u64, tenant_mb: u64, tenant: &Arc<Tenant>) {
        if mb == 0 {
            return;
        }
        let pools: Vec<Arc<Pool>> = self.pools.lock().values().cloned().collect();
        let theirs: Vec<&Arc<Pool>> = pools.iter().filter(|p| Arc::ptr_eq(tenant, &p.tenant)).collect();
        let freed = evict_from(&theirs, tenant_mb);
        evict_from(&pools.iter().collect::<Vec<_>>(), mb.saturating_sub(freed));
    }

    /// The next use tick.
    pub fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::Relaxed)
    }
}

/// Ends idle instances of `pools` until `mb` came free or none is left. Returns what came free, in MB.
fn evict_from(pools: &[&Arc<Pool>], mb: u64) -> u64 {
    let mut freed = 0;
    while freed < mb {
        let oldest =
            pools.iter().filter_map(|p| p.oldest_idle(false).map(|tick| (tick, p))).min_by_key(|(tick, _)| *tick);
        let Some((_, pool)) = oldest else { break };
        freed += pool.evict_one();
    }
    freed
}
