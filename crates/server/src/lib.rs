//! Wiring only: builds every part from the configuration and runs them as one platform.
//!
//! [`run`] is `mayfly up`. [`Platform::start`] is the same without signals, for tests and for whoever embeds it.

mod ahead;
mod apigw;
mod data;
mod destinations;
mod events;
mod http;
mod inside;
mod install;
mod invoker;
#[cfg_attr(not(feature = "kafka"), path = "no_kafka.rs")]
mod kafka;
mod keys;
mod logs;
mod objects;
mod prepare;
mod provisioned;
mod queues;
mod runtimes;
mod tls;
mod topics;
mod triggers;
mod url;

pub use data::Keys;
pub use runtimes::{Interpreter, interpreters};

use anyhow::{Context, Result};
use data::DataDir;
use mayfly_base::config::PlatformOptions;
use mayfly_base::shutdown::{Shutdown, StopSignal};
use mayfly_base::{EventLoops, Listen, SystemClock};
use mayfly_control::endings::Account;
use mayfly_control::{Control, Options as ControlOptions, Ports};
use mayfly_gateway::{Gateway, GatewayLimits, Inlets};
use mayfly_model::{RuntimeId, TriggerKind, limits};
use mayfly_node::inside::Badges;
use mayfly_node::{Node, NodeOptions};
use mayfly_objects::{Objects, Store};
use mayfly_observe::{LogOptions, LogStore, Metrics};
use mayfly_sandbox::net::NetOptions;
use mayfly_sandbox::process::ProcessBackend;
use mayfly_sandbox::wire::{SERVICES_DOMAIN, SpawnerConfig};
use mayfly_store::{CodeCache, EventLog, FailureLimits, FileBlobs, SqliteFailures, SqliteMeta};
use mayfly_triggers::{Maker, Source};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Functions that get series of their own in the metrics; the rest share one.
const METRICS_FUNCTIONS_MAX: usize = 2000;
/// Sandboxes for custom runtimes kept ready. They hold no process of ours, so they cost next to nothing.
const PRECREATE_CUSTOM: usize = 2;
/// How often unreferenced code is looked for.
const COLLECT_EVERY: Duration = Duration::from_secs(600);
/// Code younger than this is never collected: a function that refers to it may be on its way.
const COLLECT_AGE: Duration = Duration::from_secs(600);

/// A running platform.
pub struct Platform {
    address: SocketAddr,
    tls_address: Option<SocketAddr>,
    objects_address: Option<SocketAddr>,
    objects: Option<Arc<Objects>>,
    keys: Keys,
    backend: ProcessBackend,
    node: Node,
    control: Control,
    log_store: LogStore,
    shutdown: Shutdown,
    drain: Duration,
    service: Arc<http::Front>,
    queues: queues::QueueParts,
    queues_address: Option<SocketAddr>,
    /// What functions reach from inside, beside `service`.
    _inside: (Arc<queues::QueueFront>, Option<Arc<objects::Door>>),
    tasks: Vec<tokio::task::JoinHandle<()>>,
    _data: DataDir,
    /// Where connections are served; ends last.
    _loops: Arc<EventLoops>,
}

/// `mayfly up`: runs the platform until SIGTERM or SIGINT, then drains and returns.
pub async fn run(options: PlatformOptions) -> Result<()> {
    let begun = Instant::now();
    let spawner = std::env::current_exe().context("find this program's own file")?;
    let mut stop = StopSignal::install().context("listen for signals")?;
    let platform = tokio::select! {
        platform = Platform::start(options, spawner, vec!["spawner".into()]) => platform?,
        signal = stop.wait() => {
            tracing::info!(signal, "stopped before it was ready");
            return Ok(());
        }
    };
    println!(
        "mayfly is ready on http://{}{} after {} ms (objects: {}; queues: {}; secret id {}; keys in {})",
        platform.address(),
        platform.tls_address().map(|address| format!(" and https://{address}")).unwrap_or_default(),
        begun.elapsed().as_millis(),
        Listen(platform.objects_address()),
        Listen(platform.queues_address()),
        platform.keys().secret_id,
        platform.keys().source,
    );
    let backend = platform.backend.clone();
    tokio::select! {
        signal = stop.wait() => {
            tracing::info!(signal, "stopping: requests in flight finish first");
            platform.stop().await;
            Ok(())
        }
        () = backend.ended() => {
            let cleared = platform.backend.clear_away().await;
            platform.stop().await;
            cleared.context("clear away what the spawner left")?;
            anyhow::bail!("the spawner process ended, and every sandbox with it; start the platform again (what was acknowledged is safe)")
        }
    }
}

impl Platform {
    /// Starts every part. `spawner` with `arguments` is a program that calls `mayfly_sandbox::spawner::main`.
    pub async fn start(options: PlatformOptions, spawner: PathBuf, arguments: Vec<String>) -> Result<Self> {
        options.validate()?;
        mayfly_sandbox::spawner::raise_open_files();
        let data = DataDir::open(&options.data)?;
        let keys = data.keys()?;
        let runtimes = runtimes::install(&data.path("runtimes"))?;
        let mut command = std::process::Command::new(spawner);
        command.args(arguments);
        let spawner_config = SpawnerConfig {
            id: data.id(),
            run_dir: data.path("run"),
            lock_dir: PathBuf::from("/run/mayfly"),
            runtimes_dir: runtimes.dir.clone(),
            runtimes: runtimes.configs.clone(),
            network: Some(NetOptions {
                pool: options.network.to_string(),
                allow: options.network_allow.iter().map(ToString::to_string).collect(),
                build_allow: options.install_allow.iter().map(ToString::to_string).collect(),
            }),
        };
        // The spawner starts interpreters while the stores are opened.
        let (backend, gateway, stores) = tokio::join!(
            ProcessBackend::start(command, spawner_config),
            Gateway::bind(options.listen, gateway_limits(&options)),
            open_stores(&data, &options),
        );
        let objects_gateway = match options.objects_listen.0 {
            Some(address) => Some(
                Gateway::bind(address, gateway_limits(&options))
                    .await
                    .context("open the object store's listener (`objects_listen`; `off` does without)")?,
            ),
            None => None,
        };
        let (backend, mut gateway, stores) = (backend?, gateway?, stores?);
        let queues = queues::QueueParts::open(&data, &options).await?;
        let queue_door = queues::Door::bind(&options).await?;
        for warning in runtimes.missing.iter().chain(&backend.started().network_error) {
            tracing::warn!("{warning}; `mayfly doctor` tells more");
        }
        let started = backend.started();
        if started.swept > 0 {
            tracing::info!(swept = started.swept, "cleared away what an earlier, killed platform left");
        }

        let metrics = Metrics::new(METRICS_FUNCTIONS_MAX, stores.logs.stats());
        let sink = Arc::new(logs::Sink::new(stores.logs.clone(), metrics.clone()));
        let inside = Arc::new(inside::InsideServices::new());
        let badges = Badges::default();
        let keychain = keys::Keychain::new(&keys, badges.clone());
        let node = Node::new(
            Arc::new(prepare::Preparing::new(backend.clone(), runtimes.prepare)),
            Arc::clone(&stores.code),
            sink,
            NodeOptions {
                services: Some(Arc::clone(&inside) as _),
                badges,
                ..node_options(&options, runtimes::programs(&runtimes.configs))
            },
        );
        let memory =
            Arc::new(ahead::Memory::open(&data.path("demand.db")).await.context("open the history of demand")?);
        let invoker = Arc::new(invoker::NodeInvoker::new(node.clone(), metrics.clone(), Arc::clone(&memory)));
        let kafka = kafka::Clusters::open(&options.kafka)?;
        let api_parts = apigw::Core::open(&data, &options).await?;
        let ports = Ports {
            meta: stores.meta,
            blobs: stores.blobs,
            events: stores.events,
            failures: stores.failures,
            destinations: Arc::new(destinations::OwnQueues(queues.queues.clone())),
            invoker: Arc::clone(&invoker) as _,
            logs: Arc::new(logs::Query::new(stores.logs.clone())),
            installer: install::installer(&backend, &options, data.path("installs"))?,
            kafka: kafka.as_ref().map(kafka::Clusters::topics),
            apis: Some(Arc::new(api_parts.clone())),
            clock: Arc::new(SystemClock),
        };
        let objects = match &objects_gateway {
            Some(_) => Some(Arc::new(open_objects(&data, &options, keychain.clone()).await?)),
            None => None,
        };
        let mut sources: HashMap<TriggerKind, Arc<dyn Source>> = HashMap::new();
        if let Some(objects) = &objects {
            let buckets = objects::Buckets::new(objects.store().clone(), &options);
            sources.insert(TriggerKind::Cos, Arc::new(buckets));
        }
        sources.insert(TriggerKind::Cmq, Arc::new(topics::TopicSource::new(queues.queues.clone(), options.app_id)));
        let control_options = ControlOptions {
            trigger_kinds: sources
                .keys()
                .copied()
                .chain([TriggerKind::Timer])
                .chain(kafka.as_ref().map(|_| TriggerKind::Ckafka))
                .collect(),
            region: options.region.clone(),
            domain: options.domain.to_ascii_lowercase(),
            functions_per_namespace_max: options.functions_per_namespace,
            event_bytes_max: options.event_bytes_max,
            call_depth_max: options.call_depth_max,
            drain: Duration::from_secs(options.drain_s),
            account_mb: ceiling(&options),
            account: Account { app_id: options.app_id, uin: options.uin },
            // Two more than run: what is in the cache need not wait for what is not.
            installs_loaded_max: options.install_concurrency + 2,
            ..ControlOptions::default()
        };
        let control = Control::start(ports, control_options)
            .await
            .context("load the catalogue of functions and the pending events")?;
        api_parts.functions.set(&control);
        api_parts.sweep(&control).await?;
        let apis = Arc::new(apigw::Apis::new(
            api_parts.clone(),
            control.clone(),
            Arc::clone(&invoker),
            &options,
            gateway.local_addr(),
        ));
        invoker::restore_quotas(&control, &node);
        for (target, order) in control.provisioned() {
            invoker.provision(&target, Some(order));
        }
        for (main, scaling) in control.scaling() {
            invoker.scale(&main, scaling);
        }
        invoker::park(&control, &invoker, options.park);
        let mut makers: HashMap<TriggerKind, Arc<dyn Maker>> = HashMap::new();
        if let Some(kafka) = &kafka {
            makers.insert(TriggerKind::Ckafka, kafka.maker(control.clone()));
        }
        let triggers = triggers::engine(&data, &control, sources, makers).await?;
        // The invoker is a part of the control API: what it holds must not hold that.
        let (engine, listening) = (Arc::downgrade(&triggers), control.downgrade());
        invoker.on_triggers(move || {
            if let (Some(engine), Some(control)) = (engine.upgrade(), listening.upgrade()) {
                engine.set(|| triggers::bindings(&control));
            }
        });

        let shutdown = Shutdown::new();
        let mut tasks = Vec::new();
        if let Some(address) = options.tls_listen {
            let certificates = tls::Certificates::new(control.clone(), tls_files(&options))?;
            gateway.listen_tls(address, mayfly_cert::server_config(Arc::clone(&certificates) as _)).await?;
            tasks.push(tokio::spawn(certificates.watch(SystemClock, shutdown.child())));
        }
        let (address, tls_address) = (gateway.local_addr(), gateway.local_tls_addr());
        let tls_port = tls_address.map(|address| address.port());
        let urls = url::Urls::new(control.clone(), Arc::clone(&invoker), options.domain.clone(), tls_port);
        let objects_address = objects_gateway.as_ref().map(Gateway::local_addr);
        let front = http::FrontParts {
            control: control.clone(),
            backend: backend.clone(),
            node: node.clone(),
            metrics: metrics.clone(),
            ceiling_mb: ceiling(&options),
            urls,
            apis: Arc::clone(&apis),
            api_parts,
            queues: queues.clone(),
            triggers: Arc::clone(&triggers),
            objects: objects.clone(),
        };
        let service = Arc::new(http::Front::new(front, keychain.clone()));
        let ahead = ahead::Ahead {
            memory,
            node: node.clone(),
            invoker: Arc::clone(&invoker),
            control: control.clone(),
            metrics: metrics.clone(),
            clock: Arc::new(SystemClock),
        };
        tasks.push(tokio::spawn(tend(node.clone(), invoker, shutdown.child())));
        tasks.push(tokio::spawn(collect(control.clone(), stores.code, shutdown.child())));
        tasks.push(tokio::spawn(ahead.run(options.forecast, options.keep_alive_s, shutdown.child())));
        let (events, stop) = (control.clone(), shutdown.child());
        tasks.push(tokio::spawn(async move { events.run_events(stop.token().clone()).await }));
        let stop = shutdown.child();
        tasks.push(tokio::spawn(async move { triggers.run(stop).await }));
        let stop = shutdown.child();
        tasks.push(tokio::spawn(async move { apis.run(stop).await }));
        let loops = Arc::new(EventLoops::start().context("start the threads that serve connections")?);
        let (front, stop, on_loops) = (Arc::clone(&service), shutdown.child(), Arc::clone(&loops));
        tasks.push(tokio::spawn(async move {
            let drained = gateway.run(front, stop, on_loops).await;
            if drained.cut > 0 {
                tracing::warn!(cut = drained.cut, "requests were not done when the drain time was over");
            }
        }));
        let queues_address = queue_door.as_ref().map(queues::Door::address);
        let queue_front = Arc::new(queues::QueueFront::new(&queues, keychain, metrics));
        if let Some(door) = queue_door {
            let front = Arc::clone(&queue_front);
            tasks.push(tokio::spawn(door.run(front, shutdown.child(), Arc::clone(&loops))));
        }
        tasks.push(tokio::spawn(queues.clone().run(shutdown.child())));
        let mut object_door = None;
        if let (Some(gateway), Some(objects)) = (objects_gateway, &objects) {
            let door = Arc::new(objects::Door::new(Arc::clone(objects)).await);
            object_door = Some(Arc::clone(&door));
            let (stop, on_loops) = (shutdown.child(), Arc::clone(&loops));
            tasks.push(tokio::spawn(async move {
                let drained = gateway.run(door, stop, on_loops).await;
                if drained.cut > 0 {
                    tracing::warn!(
                        cut = drained.cut,
                        "requests for objects were not done when the drain time was over"
                    );
                }
            }));
            let (store, stop) = (objects.store().clone(), shutdown.child());
            tasks.push(tokio::spawn(async move {
                tokio::select! {
                    () = store.tidy() => {}
                    () = stop.triggered() => {}
                }
            }));
        }
        let (connections, bytes) = inside::limits_of_all(mayfly_sandbox::spawner::open_files());
        inside.ready(inside::Rooms {
            front: Arc::downgrade(&service),
            queues: Arc::downgrade(&queue_front),
            objects: object_door.as_ref().map(Arc::downgrade),
            inlets: Arc::new(Inlets::new(inside::limits(), connections, bytes, &loops)),
        });
        let drain = Duration::from_secs(options.drain_s);
        let log_store = stores.logs;
        Ok(Self {
            address,
            tls_address,
            objects_address,
            objects,
            keys,
            backend,
            node,
            control,
            log_store,
            shutdown,
            drain,
            service,
            queues,
            queues_address,
            _inside: (queue_front, object_door),
            tasks,
            _data: data,
            _loops: loops,
        })
    }

    /// The address that the API listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address that it listens on for TLS, if it does.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls_address
    }

    /// The address that the message queues listen on, if they do.
    pub fn queues_address(&self) -> Option<SocketAddr> {
        self.queues_address
    }

    /// The message queues.
    pub fn queues(&self) -> &mayfly_queues::Queues {
        &self.queues.queues
    }

    /// The address that the object store listens on, if there is one.
    pub fn objects_address(&self) -> Option<SocketAddr> {
        self.objects_address
    }

    /// The root key pair.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The node, for its figures.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The control API, for its catalogue.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Stops taking requests, lets those in flight finish within the drain time, and ends every part.
    pub async fn stop(self) {
        self.service.drain();
        self.queues.queues.drain();
        self.shutdown.trigger();
        self.control.interrupt_installs();
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a part of the platform failed");
            }
        }
        if !self.node.drain(self.drain).await {
            tracing::warn!("invocations were not done when the drain time was over; they are ended");
        }
        self.node.stop().await;
        if let Err(error) = self.queues.queues.close().await {
            tracing::error!(%error, "the queues' database could not be closed");
        }
        if let Some(objects) = &self.objects {
            objects.store().close().await;
        }
        let logs = self.log_store;
        if tokio::task::spawn_blocking(move || logs.close()).await.is_err() {
            tracing::error!("the log store could not be closed");
        }
    }
}

/// The object store, for whoever has the root keys or those of a role.
async fn open_objects(data: &DataDir, options: &PlatformOptions, keys: keys::Keychain) -> Result<Objects> {
    let store =
        Store::open(&data.path("objects"), mayfly_objects::Limits::default()).await.context("open the object store")?;
    let settings = mayfly_objects::Settings {
        region: options.region.clone(),
        app_id: options.app_id.to_string(),
        domains: vec![options.domain.to_ascii_lowercase(), SERVICES_DOMAIN.to_owned()],
    };
    Ok(Objects::new(store, Arc::new(keys), settings))
}

struct Stores {
    meta: Arc<SqliteMeta>,
    events: Arc<dyn EventLog>,
    failures: Arc<SqliteFailures>,
    blobs: Arc<FileBlobs>,
    code: Arc<CodeCache>,
    logs: LogStore,
}

async fn open_stores(data: &DataDir, options: &PlatformOptions) -> Result<Stores> {
    let (meta_path, failures_path) = (data.path("meta.db"), data.path("failures.db"));
    let failure_limits = FailureLimits { bytes_max: options.failure_disk_mb << 20, ..FailureLimits::default() };
    let (meta, events, failures) = tokio::join!(
        SqliteMeta::open(&meta_path),
        events::open(data, options),
        SqliteFailures::open(&failures_path, failure_limits),
    );
    let blobs = Arc::new(FileBlobs::open(&data.path("blobs")).context("open the blob store")?);
    let code = CodeCache::open(&data.path("code"), Arc::clone(&blobs) as _).context("open the code cache")?;
    let log_options = LogOptions {
        retention_hours: u32::try_from(options.log_retention_hours).unwrap_or(u32::MAX),
        ..LogOptions::default()
    };
    let logs = LogStore::open(&data.path("logs"), log_options).context("open the log store")?;
    Ok(Stores {
        meta: Arc::new(meta.context("open the metadata store")?),
        events: events.context("open the event log")?,
        failures: Arc::new(failures.context("open the store of failures")?),
        blobs,
        code: Arc::new(code),
        logs,
    })
}

fn ceiling(options: &PlatformOptions) -> u64 {
    if options.memory_ceiling_mb == 0 { limits::CONCURRENCY_MB_DEFAULT } else { options.memory_ceiling_mb }
}

fn node_options(options: &PlatformOptions, programs: HashMap<RuntimeId, Vec<String>>) -> NodeOptions {
    NodeOptions {
        memory_ceiling_mb: ceiling(options),
        namespace_ceiling_mb: Some(options.namespace_ceiling_mb).filter(|mb| *mb > 0),
        park: options.park,
        keep_alive: Duration::from_secs(options.keep_alive_s),
        precreate: [
            (RuntimeId::Python, options.precreate_python),
            (RuntimeId::Node, options.precreate_node),
            (RuntimeId::Php, options.precreate_php),
            (RuntimeId::Java, options.precreate_java),
            (RuntimeId::Custom, PRECREATE_CUSTOM),
        ]
        .into(),
        programs,
        waiting_max: options.waiting_room,
        waiting: Duration::from_secs(options.waiting_s),
        streams_after_update: Duration::from_secs(options.streams_after_update_s),
        region: options.region.clone(),
        app_id: options.app_id.to_string(),
        uin: options.uin.to_string(),
        ..NodeOptions::default()
    }
}

/// The files of the platform's own certificate.
fn tls_files(options: &PlatformOptions) -> Option<tls::Files> {
    let set = |path: &PathBuf| Some(path.clone()).filter(|p| !p.as_os_str().is_empty());
    Some(tls::Files { certificate: set(&options.tls_cert)?, key: set(&options.tls_key)? })
}

fn gateway_limits(options: &PlatformOptions) -> GatewayLimits {
    let drain_time = Duration::from_secs(options.drain_s);
    let usual = GatewayLimits::default();
    let connections_max = usual.connections_max.min(connections_for(mayfly_sandbox::spawner::open_files()));
    GatewayLimits { drain_time, connections_max, ..usual }
}

/// Connections that so many open files suffice for: each may need another to a service, and everything else needs some too. Without them
/// a visitor would be told of a broken function, not of a platform that is full.
fn connections_for(open_files: usize) -> usize {
    const EVERYTHING_ELSE: usize = 2048;
    (open_files.saturating_sub(EVERYTHING_ELSE) / 2).max(open_files / 4)
}

/// Looks after the instances.
async fn tend(node: Node, invoker: Arc<invoker::NodeInvoker>, shutdown: Shutdown) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = tick.tick() => {
                invoker.tend();
                node.tend();
            }
            () = shutdown.triggered() => return,
        }
    }
}

/// Removes code that nothing refers to.
async fn collect(control: Control, code: Arc<CodeCache>, shutdown: Shutdown) {
    let mut tick = tokio::time::interval(COLLECT_EVERY);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = shutdown.triggered() => return,
        }
        match code.collect(&control.live_digests(), COLLECT_AGE).await {
            Ok(c) if c.trees + c.blobs > 0 => {
                tracing::info!(trees = c.trees, blobs = c.blobs, "collected unreferenced code")
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "unreferenced code could not be collected"),
        }
    }
}
