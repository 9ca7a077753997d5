//! A control API over fakes, and short ways to call it.

use async_trait::async_trait;
use base64::Engine as _;
use mayfly_base::Clock;
use mayfly_control::{
    Call, Caller, Control, Destinations, InstallError, InstallJob, Installed, Installer, InvokeRequest, Invoker,
    KafkaTopics, LineSink, LogError, LogFilter, LogOrder, Logs, Options, Ports, ProvisionedState, RouteChange,
    RouteTarget, SendError, TopicFound, ids,
};
use mayfly_model::{InvocationRecord, InvokeOutcome, RequestId, RuntimeId, Status, Target};
use mayfly_sign::{Params, Style, Verified};
use mayfly_store::{EventLimits, FailureLimits, MemoryBlobs, MemoryEvents, MemoryFailures, MemoryMeta};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// A clock that starts at a fixed time and follows Tokio's, which tests may pause; every reading is a later millisecond unless time is paused.
pub struct TestClock {
    start: tokio::time::Instant,
    ticks: AtomicU64,
    pub steps: bool,
}

pub const EPOCH_MS: u64 = 1_790_000_000_000;

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        let extra = if self.steps { self.ticks.fetch_add(1000, Ordering::Relaxed) } else { 0 };
        EPOCH_MS + self.start.elapsed().as_millis() as u64 + extra
    }
}

/// Records of invocations in memory.
#[derive(Default)]
pub struct FakeLogs {
    pub records: Mutex<Vec<InvocationRecord>>,
    pub last_filter: Mutex<Option<LogFilter>>,
    pub broken: std::sync::atomic::AtomicBool,
}

#[async_trait]
impl Logs for FakeLogs {
    async fn query(&self, filter: LogFilter) -> Result<(u64, Vec<InvocationRecord>), LogError> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(LogError("/secret/path is gone".into()));
        }
        let mut found: Vec<_> = self
            .records
            .lock()
            .iter()
            .filter(|r| {
                r.namespace == filter.namespace
                    && filter.function.as_ref().is_none_or(|f| r.function == *f)
                    && filter.version.as_ref().is_none_or(|v| r.version == *v)
                    && filter.request_id.is_none_or(|id| r.request_id == id)
                    && filter.status.holds(r.status)
                    && (!filter.events_only || r.event.is_some())
                    && (filter.start_ms..=filter.end_ms).contains(&r.start_ms)
            })
            .cloned()
            .collect();
        match filter.order_by {
            LogOrder::StartTime => found.sort_by_key(|r| r.start_ms),
            LogOrder::Function => found.sort_by(|a, b| a.function.cmp(&b.function)),
            LogOrder::Duration => found.sort_by_key(|r| r.duration_us),
            LogOrder::Memory => found.sort_by_key(|r| r.memory_bytes),
        }
        if !filter.ascending {
            found.reverse();
        }
        let total = found.len() as u64;
        let page = found.into_iter().skip(filter.offset as usize).take(filter.limit as usize).collect();
        *self.last_filter.lock() = Some(filter);
        Ok((total, page))
    }

    fn append(&self, record: InvocationRecord) {
        self.records.lock().push(record);
    }

    async fn written(&self) {}
}

/// One Kafka cluster, `ckafka-main`, with one topic, `orders`.
pub struct FakeKafka;

#[async_trait]
impl KafkaTopics for FakeKafka {
    async fn find(&self, trigger: &str) -> TopicFound {
        match trigger.strip_prefix("ckafka-main-") {
            None => TopicFound::NoCluster(vec!["ckafka-main".into()]),
            Some("orders") => TopicFound::Ok,
            Some(topic) => TopicFound::NoTopic { cluster: "ckafka-main".into(), topic: topic.into() },
        }
    }
}

/// Installs what `requirements.txt` says: `ok` puts a file into the package, `slow` never ends, anything else fails.
pub struct FakeInstaller;

#[async_trait]
impl Installer for FakeInstaller {
    fn wants(&self, zip: &[u8], runtime: RuntimeId) -> bool {
        runtime == RuntimeId::Python && text_of(zip, "requirements.txt").is_some()
    }

    async fn install(&self, job: InstallJob, line: LineSink) -> Result<Installed, InstallError> {
        let wanted = text_of(&job.zip, "requirements.txt").unwrap_or_default();
        line(&format!("asked for {wanted}"));
        match wanted.as_str() {
            "ok" => {
                let zip = bytes::Bytes::from(package_of(&[("installed.py", "made"), ("index.py", "new")]));
                Ok(Installed { zip: Some(zip), unpacked_bytes: 7, cached: false })
            }
            "slow" => std::future::pending().await,
            other => Err(InstallError::Failed(format!("no such requirement: {other}\nlast line"))),
        }
    }
}

/// A zip of these files.
pub fn package_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, text) in files {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

pub fn base64_of(bytes: &[u8]) -> String {
    base64::prelude::BASE64_STANDARD.encode(bytes)
}

fn text_of(zip: &[u8], name: &str) -> Option<String> {
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(zip)).ok()?;
    let mut text = String::new();
    std::io::Read::read_to_string(&mut archive.by_name(name).ok()?, &mut text).ok()?;
    Some(text)
}

type Script = Box<dyn FnMut(&RouteTarget, &InvokeRequest) -> (Status, String, Duration) + Send>;

/// An invoker that does what a script says, and remembers.
pub struct FakeInvoker {
    pub script: Mutex<Script>,
    pub calls: Mutex<Vec<(String, InvokeRequest)>>,
    pub changes: Mutex<Vec<RouteChange>>,
    /// What is said of every order of ready instances.
    pub ready: Mutex<Option<ProvisionedState>>,
    pub running: AtomicUsize,
    pub running_max: AtomicUsize,
    pub logs: Arc<FakeLogs>,
    pub clock: Arc<TestClock>,
}

#[async_trait]
impl Invoker for FakeInvoker {
    async fn invoke(&self, target: &Arc<RouteTarget>, request: InvokeRequest) -> InvokeOutcome {
        let version = target.spec.key.version.clone();
        self.calls.lock().push((version.clone(), request.clone()));
        let (mut status, mut body, takes) = (self.script.lock())(target, &request);
        let mut abort = request.abort.clone();
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.running_max.fetch_max(running, Ordering::SeqCst);
        let start_ms = self.clock.now_ms();
        tokio::select! {
            () = tokio::time::sleep(takes) => {}
            grace = mayfly_base::abort::asked(&mut abort) => {
                tokio::time::sleep(grace).await;
                (status, body) = (Status::CANCELED, "{}".into());
            }
        }
        self.running.fetch_sub(1, Ordering::SeqCst);
        let record = InvocationRecord {
            request_id: request.request_id,
            namespace: target.spec.namespace.to_string(),
            function: target.spec.function.to_string(),
            version,
            qualifier: request.qualifier.clone(),
            start_ms,
            duration_us: 1500,
            wait_us: 0,
            status,
            ret_msg: body.clone(),
            memory_mb: target.spec.config.memory_mb,
            memory_bytes: 20 << 20,
            cold_start: None,
            retry: request.retry,
            event: request.event_mark.clone(),
            origin: request.origin,
            lineage: request.lineage,
            output: "printed\n".into(),
            output_cut_bytes: 0,
        };
        let log = (request.want_log || request.log_failure && status.is_failure()).then(|| record.render());
        self.logs.append(record);
        InvokeOutcome {
            request_id: request.request_id,
            status,
            body: body.into_bytes(),
            duration_us: 1500,
            memory_bytes: 20 << 20,
            cold_start: None,
            log,
        }
    }

    fn provisioned(&self, _target: &Arc<RouteTarget>) -> Option<ProvisionedState> {
        self.ready.lock().clone()
    }

    fn catalogue_changed(&self, change: &RouteChange) {
        self.changes.lock().push(change.clone());
    }
}

/// Queues and topics in memory: those whose names begin with `q` and `t` are there.
#[derive(Default)]
pub struct FakeQueues {
    pub sent: Mutex<Vec<(Target, Value)>>,
    /// True: nothing can be sent.
    pub down: std::sync::atomic::AtomicBool,
}

#[async_trait]
impl Destinations for FakeQueues {
    async fn check(&self, target: &Target) -> Result<(), SendError> {
        match target {
            Target::Queue { name } if name.starts_with('q') => Ok(()),
            Target::Topic { name, .. } if name.starts_with('t') => Ok(()),
            other => Err(SendError::NotFound(other.clone())),
        }
    }

    async fn send(&self, target: &Target, message: bytes::Bytes) -> Result<(), SendError> {
        if self.down.load(Ordering::Relaxed) {
            return Err(SendError::Unavailable("the queue is down".into()));
        }
        self.sent.lock().push((target.clone(), serde_json::from_slice(&message).unwrap()));
        Ok(())
    }
}

/// The platform under test, with its fakes at hand.
pub struct Platform {
    pub control: Control,
    pub meta: MemoryMeta,
    pub blobs: MemoryBlobs,
    pub event_log: MemoryEvents,
    pub failures: MemoryFailures,
    pub queues: Arc<FakeQueues>,
    pub invoker: Arc<FakeInvoker>,
    pub logs: Arc<FakeLogs>,
    pub clock: Arc<TestClock>,
    pub options: Options,
    /// Who asks.
    pub caller: Mutex<Caller>,
}

impl Platform {
    pub async fn new() -> Self {
        Self::with(Options::default(), EventLimits::default(), false).await
    }

    /// A platform whose clock moves a second with each reading, so that times in lists differ.
    pub async fn ticking() -> Self {
        Self::with(Options::default(), EventLimits::default(), true).await
    }

    pub async fn with(options: Options, limits: EventLimits, steps: bool) -> Self {
        let stores = (MemoryMeta::new(), MemoryBlobs::default(), MemoryEvents::new(limits));
        Self::over(stores, MemoryFailures::new(FailureLimits::default()), options, steps).await
    }

    pub async fn over(
        (meta, blobs, event_log): (MemoryMeta, MemoryBlobs, MemoryEvents),
        failures: MemoryFailures,
        options: Options,
        steps: bool,
    ) -> Self {
        let queues = Arc::new(FakeQueues::default());
        let clock = Arc::new(TestClock { start: tokio::time::Instant::now(), ticks: AtomicU64::new(0), steps });
        let logs = Arc::new(FakeLogs::default());
        let invoker = Arc::new(FakeInvoker {
            script: Mutex::new(Box::new(|target, _| {
                (Status::OK, format!("\"{}\"", target.spec.key.version), Duration::ZERO)
            })),
            calls: Mutex::default(),
            changes: Mutex::default(),
            ready: Mutex::default(),
            running: AtomicUsize::new(0),
            running_max: AtomicUsize::new(0),
            logs: logs.clone(),
            clock: clock.clone(),
        });
        let ports = Ports {
            meta: Arc::new(meta.clone()),
            blobs: Arc::new(blobs.clone()),
            events: Arc::new(event_log.clone()),
            failures: Arc::new(failures.clone()),
            destinations: queues.clone(),
            invoker: invoker.clone(),
            logs: logs.clone(),
            installer: Some(Arc::new(FakeInstaller)),
            kafka: Some(Arc::new(FakeKafka)),
            apis: None,
            clock: clock.clone(),
        };
        let control = Control::start(ports, options.clone()).await.unwrap();
        Self {
            control,
            meta,
            blobs,
            event_log,
            failures,
            queues,
            invoker,
            logs,
            clock,
            options,
            caller: Mutex::default(),
        }
    }

    /// Starts anew over the same stores, as after a crash.
    pub async fn restart(&self) -> Self {
        let stores = (self.meta.clone(), self.blobs.clone(), self.event_log.clone());
        Self::over(stores, self.failures.clone(), self.options.clone(), self.clock.steps).await
    }

    pub async fn send(&self, action: &str, version: &str, params: Params) -> Value {
        let verified = Verified {
            secret_id: "AKIDtest".into(),
            action: action.into(),
            version: version.into(),
            region: Some("ap-guangzhou".into()),
            language: None,
            timestamp_s: EPOCH_MS / 1000,
            params,
            style: Style::Tc3,
        };
        let request_id = ids::request_id();
        let caller = self.caller.lock().clone();
        let call = Call { verified, host: "127.0.0.1:8700".into(), request_id, caller };
        let response = self.control.handle(call).await;
        assert_eq!(response.request_id, request_id);
        let body: Value = serde_json::from_slice(&response.body).unwrap();
        let inner = body["Response"].clone();
        assert_eq!(body.as_object().unwrap().len(), 1);
        assert_eq!(inner["RequestId"], json!(request_id.to_string()), "{inner}");
        assert_eq!(inner["Error"]["Code"].as_str(), response.error_code);
        inner
    }

    /// Calls an action with a JSON body; the answer may be an error.
    pub async fn call(&self, action: &str, params: Value) -> Value {
        self.send(action, "2018-04-16", Params::Json(params.to_string().into())).await
    }

    /// Calls an action as v1 clients do: every value is text.
    pub async fn call_v1(&self, action: &str, params: Value) -> Value {
        self.send(action, "2018-04-16", Params::Tree(params)).await
    }

    /// Calls an action that must succeed.
    #[track_caller]
    pub fn ok(&self, action: &'static str, params: Value) -> impl Future<Output = Value> + '_ {
        let caller = std::panic::Location::caller();
        async move {
            let answer = self.call(action, params).await;
            assert!(answer.get("Error").is_none(), "{caller}: {action}: {answer}");
            answer
        }
    }

    /// Calls an action that must fail; gives the code.
    #[track_caller]
    pub fn code(&self, action: &'static str, params: Value) -> impl Future<Output = String> + '_ {
        let caller = std::panic::Location::caller();
        async move {
            let answer = self.call(action, params).await;
            let code = answer["Error"]["Code"].as_str();
            assert!(
                answer["Error"]["Message"].as_str().is_some_and(|m| !m.is_empty() && !m.contains("secret")),
                "{answer}"
            );
            code.unwrap_or_else(|| panic!("{caller}: {action} succeeded: {answer}")).to_owned()
        }
    }

    /// Creates a Python function `name` in namespace `default`.
    pub async fn create(&self, name: &str) {
        self.ok("CreateFunction", create(name)).await;
    }

    /// Ids of the targets that were retired, in order, with `replaced` and `force`.
    pub fn retired(&self) -> Vec<(String, bool, bool)> {
        let changes = self.invoker.changes.lock();
        changes
            .iter()
            .filter_map(|c| match c {
                RouteChange::Retired { target, replaced, force } => {
                    Some((target.spec.key.version.clone(), *replaced, *force))
                }
                _ => None,
            })
            .collect()
    }
}

/// A request that creates a Python function.
pub fn create(name: &str) -> Value {
    json!({
        "FunctionName": name,
        "Runtime": "Python3.10",
        "Handler": "index.main_handler",
        "Code": {"ZipFile": zip_of("index.py", "def main_handler(event, context):\n    return event\n")},
    })
}

/// A request that creates an HTTP function.
pub fn create_http(name: &str) -> Value {
    json!({
        "FunctionName": name,
        "Runtime": "CustomRuntime",
        "Type": "HTTP",
        "Code": {"ZipFile": zip_of("scf_bootstrap", "#!/bin/bash\nexec ./server\n")},
    })
}

/// `base` with other fields.
pub fn with(mut base: Value, fields: Value) -> Value {
    let (Value::Object(base_fields), Value::Object(fields)) = (&mut base, fields) else { panic!("objects") };
    base_fields.extend(fields);
    base
}

/// A zip with one file, in base64.
pub fn zip_of(name: &str, text: &str) -> String {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(text.as_bytes()).unwrap();
    base64::prelude::BASE64_STANDARD.encode(zip.finish().unwrap().into_inner())
}

/// Waits until `condition` holds; fails after five seconds of Tokio's time.
///
/// Tokio's paused clock runs on while other threads (a store's, say) are at work, and would be over in no time: a millisecond of it
/// takes a real one here.
pub async fn until(mut condition: impl FnMut() -> bool) {
    for _ in 0..5000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("the condition did not come to hold");
}

pub fn request_id(text: &Value) -> RequestId {
    RequestId::parse(text.as_str().unwrap()).unwrap()
}
