//! The Prometheus registry: what is counted, under which names, and with how many label values at most.
//!
//! Labels named by users (`namespace`, `function`) are bounded: when [`Metrics::new`]'s number of functions have series of their own,
//! all others share the series `namespace="other", function="other"`. Each status, reason and kind is of a fixed set.

mod queues;

pub use queues::QueueGauges;

use crate::LogStats;
use crate::apigw::ApigwSeries;
use crate::objects::ObjectSeries;
use arc_swap::ArcSwap;
use mayfly_model::invocation::StartKind;
use mayfly_model::{ColdStart, ColdStartReason, Status};
use parking_lot::{Mutex, RwLock};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

pub use crate::apigw::ApigwFigures;
pub use crate::objects::ObjectFigures;

/// Actions of the API, error codes, runtimes: sets that are small by nature, and bounded in case they are not.
const NAMES_MAX: usize = 256;
/// The name under which everything beyond a bound is counted.
const OTHER: &str = "other";

/// Bounds of the run-time histogram, in seconds: from a warm call to the longest timeout.
const DURATION_BUCKETS_S: [f64; 14] =
    [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0, 900.0];
/// Bounds of the histograms of starts and of API calls, in seconds.
const LATENCY_BUCKETS_S: [f64; 14] =
    [0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FunctionLabels {
    namespace: String,
    function: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    end: &'static str,
}

/// What a function has of asynchronous events that are not done.
#[derive(Clone, Debug)]
pub struct EventDepth {
    /// Namespace of the function.
    pub namespace: String,
    /// Its name.
    pub function: String,
    /// How many there are.
    pub pending: usize,
    /// How many of them run.
    pub running: usize,
    /// Age of the oldest.
    pub oldest: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InvocationLabels {
    namespace: String,
    function: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ColdStartLabels {
    namespace: String,
    function: String,
    reason: &'static str,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    phase: &'static str,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InstanceLabels {
    runtime: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MemoryLabels {
    of: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ApiLabels {
    action: String,
    code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ActionLabels {
    action: String,
}

/// What an instance is doing, as the `state` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceState {
    /// Being made.
    Starting,
    /// Waiting for a request.
    Idle,
    /// Serving one.
    Busy,
    /// Started ahead, not bound to a function yet.
    Precreated,
    /// An initialised template that others are forked from.
    Template,
}

impl InstanceState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Precreated => "precreated",
            Self::Template => "template",
        }
    }
}

/// Whose memory a gauge shows, as the `of` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryOf {
    /// Resident memory of the platform's own processes.
    Platform,
    /// What the instances use.
    Instances,
    /// What the instances may use: the sum of their limits.
    InstanceLimits,
    /// The ceiling for all instances together.
    Ceiling,
}

impl MemoryOf {
    fn as_str(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::Instances => "instances",
            Self::InstanceLimits => "instance_limits",
            Self::Ceiling => "ceiling",
        }
    }
}

type HistogramFamily<L> = Family<L, Histogram, fn() -> Histogram>;

/// The registry. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    series: Series,
    functions: ArcSwap<Own>,
    /// Held while `functions` is replaced.
    functions_writer: Mutex<()>,
    /// Held from setting the queues' series to the end of writing them out.
    queues_shown: Mutex<()>,
    functions_max: usize,
    other: Arc<FunctionMetrics>,
    actions: RwLock<HashSet<String>>,
    codes: RwLock<HashSet<String>>,
    runtimes: RwLock<HashSet<String>>,
    /// Functions whose depth of events was told last.
    events_shown: Mutex<HashSet<FunctionLabels>>,
}

/// The functions with series of their own, by namespace and name. Read for every record, so without a lock and without
/// making a key; replaced as a whole by who adds or removes a function.
type Own = HashMap<Arc<str>, Arc<HashMap<Arc<str>, Arc<FunctionMetrics>>>>;

#[derive(Clone, Default)]
struct Series {
    invocations: Family<InvocationLabels, Counter>,
    durations: Histograms<FunctionLabels>,
    waits: Histograms<FunctionLabels>,
    cold_starts: Family<ColdStartLabels, Counter>,
    phases: Latencies<PhaseLabels>,
    throttles: Family<FunctionLabels, Counter>,
    concurrency: Family<FunctionLabels, Gauge>,
    waiting: Family<FunctionLabels, Gauge>,
    events_pending: Family<FunctionLabels, Gauge>,
    events_running: Family<FunctionLabels, Gauge>,
    events_oldest: Family<FunctionLabels, Gauge<f64, AtomicU64>>,
    events_ended: Family<EndLabels, Gauge>,
    chains_ended: Gauge,
    forecast_warm: Family<FunctionLabels, Gauge>,
    forecast_hits: Family<FunctionLabels, Counter>,
    forecast_misses: Family<FunctionLabels, Counter>,
    forecast_idle: Family<FunctionLabels, Counter<f64, AtomicU64>>,
    trigger_lag: Family<FunctionLabels, Gauge>,
    trigger_lag_age: Family<FunctionLabels, Gauge<f64, AtomicU64>>,
    trigger_events: Family<ResultLabels, Counter>,
    instances: Family<InstanceLabels, Gauge>,
    memory: Family<MemoryLabels, Gauge>,
    api_calls: Family<ApiLabels, Counter>,
    api_latency: Latencies<ActionLabels>,
    queues: queues::QueueSeries,
    failures: Gauge,
    failures_disk: Gauge,
    failures_evicted: Gauge,
    failures_unkept: Gauge,
    messages_waiting: Gauge,
    objects: ObjectSeries,
    apigw: ApigwSeries,
}

/// A family of histograms over [`DURATION_BUCKETS_S`].
#[derive(Clone)]
struct Histograms<L>(HistogramFamily<L>);

impl<L: Clone + Hash + Eq> Default for Histograms<L> {
    fn default() -> Self {
        Self(Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS_S)))
    }
}

/// A family of histograms over [`LATENCY_BUCKETS_S`].
#[derive(Clone)]
struct Latencies<L>(HistogramFamily<L>);

impl<L: Clone + Hash + Eq> Default for Latencies<L> {
    fn default() -> Self {
        Self(Family::new_with_constructor(|| Histogram::new(LATENCY_BUCKETS_S)))
    }
}

impl Series {
    #[rustfmt::skip]
    fn register(&self, registry: &mut Registry, logs: &LogStats) {
        registry.register("invocations", "Invocations that ended, by status code", self.invocations.clone());
        registry.register_with_unit("invocation_duration", "Run time of handlers", Unit::Seconds, self.durations.0.clone());
        registry.register_with_unit("invocation_wait", "Time from the request to an instance", Unit::Seconds, self.waits.0.clone());
        registry.register("cold_starts", "Invocations that waited for a start, by its reason and kind", self.cold_starts.clone());
        registry.register_with_unit("cold_start_phase", "Where the time of starts went", Unit::Seconds, self.phases.0.clone());
        registry.register("throttles", "Invocations turned away for want of quota or resources", self.throttles.clone());
        registry.register("concurrency", "Invocations running now", self.concurrency.clone());
        registry.register("waiting", "Invocations waiting for an instance now", self.waiting.clone());
        registry.register("events_pending", "Asynchronous events that are not done", self.events_pending.clone());
        registry.register("events_running", "Asynchronous events that run now", self.events_running.clone());
        registry.register_with_unit("events_oldest_age", "Age of the oldest asynchronous event that is not done", Unit::Seconds, self.events_oldest.clone());
        registry.register("chains_ended", "Calls and events that were not run because too many invocations that call each other were before them, since the start of the platform", self.chains_ended.clone());
        registry.register("events_ended", "Asynchronous events that ended since the start of the platform", self.events_ended.clone());
        registry.register("forecast_warm", "Instances to be warm in this minute by the forecast", self.forecast_warm.clone());
        registry.register("forecast_hits", "Instances that were needed in a minute and warm when it began", self.forecast_hits.clone());
        registry.register("forecast_misses", "Instances that were needed in a minute and not warm when it began: cold starts", self.forecast_misses.clone());
        registry.register("forecast_idle_gigabyte_seconds", "Memory-time that was held for nothing", self.forecast_idle.clone());
        registry.register("trigger_lag", "Events that triggers have not handed in yet", self.trigger_lag.clone());
        registry.register_with_unit("trigger_lag_age", "Age of the oldest of these events", Unit::Seconds, self.trigger_lag_age.clone());
        registry.register("trigger_events", "Events of triggers: handed in; postponed (attempts); dropped, since they would never be taken; missed ticks", self.trigger_events.clone());
        registry.register("instances", "Instances, by runtime and state", self.instances.clone());
        registry.register_with_unit("memory", "Memory in use, promised and allowed", Unit::Bytes, self.memory.clone());
        registry.register("api_calls", "Calls of the control API, by action and error code (OK: none)", self.api_calls.clone());
        registry.register_with_unit("api_latency", "Time to answer calls of the control API", Unit::Seconds, self.api_latency.0.clone());
        self.queues.register(registry);
        registry.register("failures", "Failures that are kept", self.failures.clone());
        registry.register_with_unit("failures_disk", "What they take", Unit::Bytes, self.failures_disk.clone());
        registry.register("failures_evicted", "Failures that went before their time, for want of room, since the start", self.failures_evicted.clone());
        registry.register("failures_unkept", "Failures of synchronous requests that could not be kept, since the start", self.failures_unkept.clone());
        registry.register("messages_waiting", "Dead letters and results that wait to be delivered", self.messages_waiting.clone());
        self.objects.register(registry);
        self.apigw.register(registry);
        registry.register("log_records_written", "Invocation records written to the log", logs.written.clone());
        registry.register("log_records_dropped_queue", "Invocation records dropped: the writer's queue was full", logs.dropped_queue.clone());
        registry.register("log_records_dropped_function", "Invocation records dropped: their function held half of the queue", logs.dropped_function.clone());
        registry.register("log_records_dropped_disk", "Invocation records dropped: the disk refused them", logs.dropped_disk.clone());
        registry.register_with_unit("log_cut", "Output cut from functions that print faster than they may", Unit::Bytes, logs.cut_bytes.clone());
    }

    fn function(&self, labels: FunctionLabels) -> FunctionMetrics {
        let ok = InvocationLabels {
            namespace: labels.namespace.clone(),
            function: labels.function.clone(),
            status: Status::OK.0,
        };
        FunctionMetrics {
            ok: self.invocations.get_or_create_owned(&ok),
            duration: self.durations.0.get_or_create_owned(&labels),
            wait: self.waits.0.get_or_create_owned(&labels),
            throttles: self.throttles.get_or_create_owned(&labels),
            concurrency: self.concurrency.get_or_create_owned(&labels),
            waiting: self.waiting.get_or_create_owned(&labels),
            series: self.clone(),
            labels,
        }
    }
}

impl Inner {
    /// The counters of a function; those that all others share when there is no room for its own. `None`: they can be made.
    fn find(&self, namespace: &str, function: &str) -> Option<Arc<FunctionMetrics>> {
        let own = self.functions.load();
        if let Some(found) = own.get(namespace).and_then(|names| names.get(function)) {
            return Some(Arc::clone(found));
        }
        let count: usize = own.values().map(|names| names.len()).sum();
        (count >= self.functions_max).then(|| Arc::clone(&self.other))
    }
}

impl Metrics {
    /// A registry with the counters of the log store in it. `functions_max` functions get series of their own.
    pub fn new(functions_max: usize, logs: &LogStats) -> Self {
        let mut registry = Registry::with_prefix("mayfly");
        let series = Series::default();
        series.register(&mut registry, logs);
        let other = FunctionLabels { namespace: OTHER.to_owned(), function: OTHER.to_owned() };
        let other = Arc::new(series.function(other));
        Self {
            inner: Arc::new(Inner {
                registry,
                series,
                functions: ArcSwap::default(),
                functions_writer: Mutex::default(),
                queues_shown: Mutex::default(),
                functions_max,
                other,
                actions: RwLock::default(),
                codes: RwLock::default(),
                events_shown: Mutex::default(),
                runtimes: RwLock::default(),
            }),
        }
    }

    /// The counters of a function, made where they are not there yet. Once they are, this takes no lock and allocates nothing.
    pub fn function(&self, namespace: &str, function: &str) -> Arc<FunctionMetrics> {
        let inner = &self.inner;
        if let Some(found) = inner.find(namespace, function) {
            return found;
        }
        let _writer = inner.functions_writer.lock();
        // Another may have added it meanwhile, or taken the last place.
        if let Some(found) = inner.find(namespace, function) {
            return found;
        }
        let labels = FunctionLabels { namespace: namespace.to_owned(), function: function.to_owned() };
        let metrics = Arc::new(inner.series.function(labels));
        let mut own = Own::clone(&inner.functions.load());
        let names = own.entry(namespace.into()).or_default();
        Arc::make_mut(names).insert(function.into(), Arc::clone(&metrics));
        inner.functions.store(Arc::new(own));
        metrics
    }

    /// Removes the series of a deleted function and makes room for another. Who still holds its counters counts unseen.
    pub fn forget_function(&self, namespace: &str, function: &str) {
        let _writer = self.inner.functions_writer.lock();
        let mut own = Own::clone(&self.inner.functions.load());
        let Some(names) = own.get_mut(namespace) else { return };
        let Some(removed) = Arc::make_mut(names).remove(function) else { return };
        if names.is_empty() {
            own.remove(namespace);
        }
        self.inner.functions.store(Arc::new(own));
        removed.remove_series();
    }

    /// Sets how many instances of a runtime are in a state.
    pub fn set_instances(&self, runtime: &str, state: InstanceState, count: usize) {
        let runtime = bounded(&self.inner.runtimes, runtime);
        let labels = InstanceLabels { runtime, state: state.as_str() };
        self.inner.series.instances.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Sets how many events of triggers came to which end since the start.
    pub fn set_trigger_events(&self, results: [(&'static str, u64); 4]) {
        for (result, count) in results {
            let counter = self.inner.series.trigger_events.get_or_create(&ResultLabels { result });
            counter.inner().store(count, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// Sets what there is of asynchronous events that are not done: functions that are not named have none. Functions without series of
    /// their own share one.
    pub fn set_events(&self, depths: &[EventDepth]) {
        let series = &self.inner.series;
        let mut sums: HashMap<FunctionLabels, (usize, usize, Duration)> = HashMap::new();
        for depth in depths {
            let labels = self.function(&depth.namespace, &depth.function).labels.clone();
            let (pending, running, oldest) = sums.entry(labels).or_default();
            *pending += depth.pending;
            *running += depth.running;
            *oldest = depth.oldest.max(*oldest);
        }
        // One page at a time: another one must not find them half set.
        let mut shown = self.inner.events_shown.lock();
        for gone in shown.iter().filter(|labels| !sums.contains_key(labels)) {
            series.events_pending.remove(gone);
            series.events_running.remove(gone);
            series.events_oldest.remove(gone);
        }
        for (labels, (pending, running, oldest)) in &sums {
            series.events_pending.get_or_create(labels).set(i64::try_from(*pending).unwrap_or(i64::MAX));
            series.events_running.get_or_create(labels).set(i64::try_from(*running).unwrap_or(i64::MAX));
            series.events_oldest.get_or_create(labels).set(oldest.as_secs_f64());
        }
        *shown = sums.into_keys().collect();
    }

    /// Sets how many asynchronous events ended, by how (`finished`, `failed`, `aborted`).
    pub fn set_events_ended(&self, end: &'static str, count: u64) {
        self.inner.series.events_ended.get_or_create(&EndLabels { end }).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Sets how many calls and events were too deep in a chain.
    pub fn set_chains_ended(&self, count: u64) {
        self.inner.series.chains_ended.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Sets a memory gauge, in bytes.
    pub fn set_memory(&self, of: MemoryOf, bytes: u64) {
        let labels = MemoryLabels { of: of.as_str() };
        self.inner.series.memory.get_or_create(&labels).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Sets the gauges of the failure store: failures, their bytes, those displaced, those that could not be kept, and messages that wait.
    pub fn set_failures(&self, count: u64, bytes: u64, evicted: u64, unkept: u64, messages: u64) {
        let series = &self.inner.series;
        for (gauge, value) in [
            (&series.failures, count),
            (&series.failures_disk, bytes),
            (&series.failures_evicted, evicted),
            (&series.failures_unkept, unkept),
            (&series.messages_waiting, messages),
        ] {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }

    /// Shows the API gateway's figures.
    pub fn set_apigw(&self, figures: &ApigwFigures) {
        self.inner.series.apigw.set(figures);
    }

    /// Shows the object store's figures.
    pub fn set_objects(&self, figures: &ObjectFigures) {
        self.inner.series.objects.set(figures);
    }

    /// Counts a call of the control API. `code` is the error code, or `OK`.
    pub fn api_call(&self, action: &str, code: &str, latency: Duration) {
        let action = bounded(&self.inner.actions, action);
        let code = bounded(&self.inner.codes, code);
        let series = &self.inner.series;
        series.api_latency.0.get_or_create(&ActionLabels { action: action.clone() }).observe(latency.as_secs_f64());
        series.api_calls.get_or_create(&ApiLabels { action, code }).inc();
    }

    /// As [`Metrics::encode`], with the figures of these queues and no others. The first 200 get series of their own.
    pub fn encode_with_queues(&self, queues: &[QueueGauges]) -> String {
        let _shown = self.inner.queues_shown.lock();
        self.inner.series.queues.set(queues);
        self.encode()
    }

    /// Everything in the OpenMetrics text format (content type
    /// `application/openmetrics-text; version=1.0.0; charset=utf-8`).
    pub fn encode(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.inner.registry) {
            Ok(()) => text,
            // Writing into a string fails only if a metric's own encoder does; half a page would be taken for a whole one.
            Err(error) => {
                tracing::error!(%error, "encoding the metrics");
                "# EOF\n".to_owned()
            }
        }
    }
}

/// The name itself while the set has room for it, else [`OTHER`].
fn bounded(names: &RwLock<HashSet<String>>, name: &str) -> String {
    if names.read().contains(name) {
        return name.to_owned();
    }
    let mut names = names.write();
    if names.len() >= NAMES_MAX && !names.contains(name) {
        return OTHER.to_owned();
    }
    names.insert(name.to_owned());
    name.to_owned()
}

/// The counters of one function. Counting takes a few atomic additions and a lock of the function's own.
pub struct FunctionMetrics {
    ok: Counter,
    duration: Histogram,
    wait: Histogram,
    throttles: Counter,
    concurrency: Gauge,
    waiting: Gauge,
    series: Series,
    labels: FunctionLabels,
}

impl FunctionMetrics {
    /// Counts an invocation that ended. Times are in microseconds.
    pub fn invoked(&self, status: Status, duration_us: u64, wait_us: u64) {
        if status.is_ok() {
            self.ok.inc();
        } else {
            self.series.invocations.get_or_create(&self.invocation_labels(status.0)).inc();
        }
        self.duration.observe(seconds(duration_us));
        self.wait.observe(seconds(wait_us));
    }

    /// Counts an invocation that waited for a start.
    pub fn cold_start(&self, start: &ColdStart) {
        self.series.cold_starts.get_or_create(&self.cold_start_labels(start.reason, start.kind)).inc();
        let phases = [
            ("pull_code", start.phases.pull_code_us),
            ("init_runtime", start.phases.init_runtime_us),
            ("init_function", start.phases.init_function_us),
            ("total", start.total_us),
        ];
        for (phase, us) in phases {
            let labels = PhaseLabels { phase, kind: start.kind.as_str() };
            self.series.phases.0.get_or_create(&labels).observe(seconds(us));
        }
    }

    /// Counts an invocation that was turned away.
    pub fn throttled(&self) {
        self.throttles.inc();
    }

    /// Counts an invocation as running until the guard is dropped.
    pub fn running(&self) -> GaugeGuard {
        GaugeGuard::new(&self.concurrency)
    }

    /// Sets how many invocations wait for an instance.
    pub fn set_waiting(&self, count: usize) {
        self.waiting.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Sets how many events its triggers have not handed in, and the age of the oldest, in milliseconds.
    pub fn set_trigger_lag(&self, events: u64, oldest_ms: u64) {
        let events = i64::try_from(events).unwrap_or(i64::MAX);
        self.series.trigger_lag.get_or_create(&self.labels).set(events);
        self.series.trigger_lag_age.get_or_create(&self.labels).set(oldest_ms as f64 / 1000.0);
    }

    /// Sets how many instances are to be warm by the forecast, and counts what became of those that were. Times are in GB·s.
    pub fn forecast(&self, warm: u32, hits: u64, misses: u64, idle_gb_seconds: f64) {
        let series = &self.series;
        series.forecast_warm.get_or_create(&self.labels).set(i64::from(warm));
        series.forecast_hits.get_or_create(&self.labels).inc_by(hits);
        series.forecast_misses.get_or_create(&self.labels).inc_by(misses);
        series.forecast_idle.get_or_create(&self.labels).inc_by(idle_gb_seconds.max(0.0));
    }

    fn invocation_labels(&self, status: u16) -> InvocationLabels {
        InvocationLabels { namespace: self.labels.namespace.clone(), function: self.labels.function.clone(), status }
    }

    fn cold_start_labels(&self, reason: ColdStartReason, kind: StartKind) -> ColdStartLabels {
        ColdStartLabels {
            namespace: self.labels.namespace.clone(),
            function: self.labels.function.clone(),
            reason: reason.as_str(),
            kind: kind.as_str(),
        }
    }

    fn remove_series(&self) {
        use ColdStartReason::{CodeUpdated, Crashed, Evicted, Expired, First, ScaleOut};
        let series = &self.series;
        series.durations.0.remove(&self.labels);
        series.waits.0.remove(&self.labels);
        series.throttles.remove(&self.labels);
        series.concurrency.remove(&self.labels);
        series.waiting.remove(&self.labels);
        series.trigger_lag.remove(&self.labels);
        series.trigger_lag_age.remove(&self.labels);
        series.forecast_warm.remove(&self.labels);
        series.forecast_hits.remove(&self.labels);
        series.forecast_misses.remove(&self.labels);
        series.forecast_idle.remove(&self.labels);
        // Statuses are HTTP-like numbers; asking for one that was never counted costs a look into a table.
        for status in 100..600 {
            series.invocations.remove(&self.invocation_labels(status));
        }
        for reason in [First, ScaleOut, CodeUpdated, Expired, Evicted, Crashed] {
            for kind in [StartKind::Fresh, StartKind::Precreated, StartKind::Forked] {
                series.cold_starts.remove(&self.cold_start_labels(reason, kind));
            }
        }
    }
}

/// Holds a gauge one higher while it lives.
#[must_use = "the gauge falls when the guard is dropped"]
pub struct GaugeGuard {
    gauge: Gauge,
}

impl GaugeGuard {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self { gauge: gauge.clone() }
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use mayfly_model::Phases;

    fn start() -> ColdStart {
        ColdStart {
            reason: ColdStartReason::ScaleOut,
            kind: StartKind::Forked,
            phases: Phases { pull_code_us: 50, init_runtime_us: 1500, init_function_us: 40_000 },
            total_us: 41_550,
        }
    }

    fn has(text: &str, line: &str) {
        assert!(text.lines().any(|l| l == line), "no line {line:?} in:\n{text}");
    }

    #[test]
    fn depths_of_events_are_bounded_and_go_when_there_are_none() {
        let metrics = Metrics::new(1, &LogStats::default());
        let depth = |function: &str, pending, s| EventDepth {
            namespace: "default".into(),
            function: function.into(),
            pending,
            running: 1,
            oldest: Duration::from_secs(s),
        };
        metrics.set_events(&[depth("first", 5, 10), depth("second", 2, 20), depth("third", 3, 15)]);
        metrics.set_events_ended("failed", 4);
        metrics.set_chains_ended(3);
        let text = metrics.encode();
        has(&text, r#"mayfly_events_pending{namespace="default",function="first"} 5"#);
        has(&text, r#"mayfly_events_pending{namespace="other",function="other"} 5"#);
        has(&text, r#"mayfly_events_running{namespace="other",function="other"} 2"#);
        has(&text, r#"mayfly_events_oldest_age_seconds{namespace="other",function="other"} 20.0"#);
        has(&text, r#"mayfly_events_ended{end="failed"} 4"#);
        has(&text, "mayfly_chains_ended 3");
        metrics.set_events(&[depth("first", 4, 11)]);
        let text = metrics.encode();
        has(&text, r#"mayfly_events_pending{namespace="default",function="first"} 4"#);
        assert!(!text.contains(r#"mayfly_events_pending{namespace="other""#), "{text}");
    }

    #[test]
    fn everything_is_counted_under_its_name() {
        let logs = LogStats::default();
        let metrics = Metrics::new(10, &logs);
        let f = metrics.function("default", "hello");
        f.invoked(Status::OK, 1500, 20);
        f.invoked(Status::OK, 700_000, 20);
        f.invoked(Status::TIME_LIMIT, 3_000_000, 20);
        f.cold_start(&start());
        f.throttled();
        let running = f.running();
        f.set_waiting(1);
        f.forecast(3, 2, 1, 0.5);
        drop(f.running());
        metrics.set_instances("python", InstanceState::Idle, 4);
        metrics.set_memory(MemoryOf::Platform, 40 << 20);
        metrics.api_call("Invoke", "OK", Duration::from_millis(3));
        metrics.api_call("Invoke", "ResourceNotFound.Function", Duration::from_millis(1));
        logs.dropped_queue.inc_by(7);
        metrics.set_failures(1, 2, 3, 4, 5);
        let text = metrics.encode();
        let f = r#"namespace="default",function="hello""#;
        has(&text, &format!("mayfly_invocations_total{{{f},status=\"200\"}} 2"));
        has(&text, &format!("mayfly_invocations_total{{{f},status=\"433\"}} 1"));
        has(&text, &format!("mayfly_invocation_duration_seconds_count{{{f}}} 3"));
        has(&text, &format!("mayfly_invocation_duration_seconds_bucket{{le=\"0.002\",{f}}} 1"));
        has(&text, &format!("mayfly_cold_starts_total{{{f},reason=\"scale_out\",kind=\"forked\"}} 1"));
        has(&text, r#"mayfly_cold_start_phase_seconds_bucket{le="0.05",phase="init_function",kind="forked"} 1"#);
        has(&text, &format!("mayfly_throttles_total{{{f}}} 1"));
        has(&text, &format!("mayfly_concurrency{{{f}}} 1"));
        has(&text, &format!("mayfly_waiting{{{f}}} 1"));
        has(&text, &format!("mayfly_forecast_warm{{{f}}} 3"));
        has(&text, &format!("mayfly_forecast_misses_total{{{f}}} 1"));
        has(&text, &format!("mayfly_forecast_idle_gigabyte_seconds_total{{{f}}} 0.5"));
        has(&text, r#"mayfly_instances{runtime="python",state="idle"} 4"#);
        has(&text, r#"mayfly_memory_bytes{of="platform"} 41943040"#);
        has(&text, r#"mayfly_api_calls_total{action="Invoke",code="ResourceNotFound.Function"} 1"#);
        has(&text, r#"mayfly_api_latency_seconds_count{action="Invoke"} 2"#);
        has(&text, "mayfly_log_records_dropped_queue_total 7");
        has(&text, "mayfly_failures_disk_bytes 2");
        has(&text, "mayfly_messages_waiting 5");
        assert!(text.ends_with("# EOF\n"));
        drop(running);
        has(&metrics.encode(), &format!("mayfly_concurrency{{{f}}} 0"));
    }

    #[test]
    fn functions_beyond_the_bound_share_a_series_and_forgotten_ones_make_room() {
        let metrics = Metrics::new(3, &LogStats::default());
        for i in 0..10 {
            let f = metrics.function("default", &format!("f{i}"));
            f.invoked(Status::OK, 1, 1);
            f.invoked(Status::USER_EXCEPTION, 1, 1);
            f.cold_start(&start());
        }
        let text = metrics.encode();
        has(&text, r#"mayfly_invocations_total{namespace="default",function="f2",status="200"} 1"#);
        has(&text, r#"mayfly_invocations_total{namespace="other",function="other",status="200"} 7"#);
        assert!(!text.contains("\"f3\""));
        assert!(Arc::ptr_eq(&metrics.function("default", "f1"), &metrics.function("default", "f1")));

        metrics.forget_function("default", "f1");
        metrics.forget_function("default", "never there");
        assert!(!metrics.encode().contains("\"f1\""));
        metrics.function("default", "f3").invoked(Status::OK, 1, 1);
        has(&metrics.encode(), r#"mayfly_invocations_total{namespace="default",function="f3",status="200"} 1"#);
    }

    #[test]
    fn names_from_outside_are_bounded_and_escaped() {
        let metrics = Metrics::new(3, &LogStats::default());
        for i in 0..NAMES_MAX + 50 {
            metrics.api_call(&format!("Action{i}"), "OK", Duration::ZERO);
        }
        metrics.function("default", "a\"b\n").throttled();
        let text = metrics.encode();
        has(&text, r#"mayfly_api_calls_total{action="other",code="OK"} 50"#);
        has(&text, r#"mayfly_throttles_total{namespace="default",function="a\"b\n"} 1"#);
    }
}
