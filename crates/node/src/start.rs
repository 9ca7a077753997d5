//! The ways in which an instance comes to be: a waiting process is bound, or an initialised one is forked.

use crate::error::Refusal;
use crate::inside::{self, Badge};
use crate::output::Printed;
use crate::pool::{Lease, Pool};
use crate::worker::{Line, Lost, Waiting, Worker};
use crate::{Inner, environment, go, service};
use mayfly_guest::{Bind, Context, Kind, Ready};
use mayfly_model::invocation::StartKind;
use mayfly_model::{ColdStart, ColdStartReason, ForkMode, Phases, RuntimeId, Status, limits};
use mayfly_sandbox::{Binding, Instance, Mount};
use mayfly_store::CodeTree;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest time a fork may take to report.
const FORK_PATIENCE: Duration = Duration::from_secs(5);
/// Processes made ahead that a start tries before it fails.
const STOCK_TRIES_MAX: usize = 8;
/// Forks of one version that may fail before forking it is given up.
const FORK_FAILURES_MAX: u32 = 2;

/// What is known of forking a version.
pub enum Template {
    /// Nothing yet.
    Untried,
    /// Initialisation failed at this time. Whoever waited for it meanwhile shares the failure; later starts try again.
    Failed(Instant, Refusal),
    /// Here is the process.
    Ready(Box<Parent>),
    /// It is not to be forked. The log said why when this was found.
    Unsound,
}

/// A template's process. Sandboxes of its forks lie within its own, so that its end is theirs: every fork holds it.
pub type TemplateProcess = Arc<parking_lot::Mutex<Waiting>>;

/// An initialised process, and what is kept alive with it.
pub struct Parent {
    instance: Arc<dyn Instance>,
    process: TemplateProcess,
    trees: Vec<Arc<CodeTree>>,
    failures: u32,
}

impl Parent {
    fn new(process: Waiting, trees: Vec<Arc<CodeTree>>) -> Self {
        let instance = Arc::clone(&process.instance);
        Self { instance, process: Arc::new(parking_lot::Mutex::new(process)), trees, failures: 0 }
    }

    /// The keys that its forks have too.
    fn badge(&self) -> Option<Arc<Badge>> {
        self.process.lock().inside.as_ref().map(|inside| Arc::clone(inside.caller().badge()))
    }

    fn is_old(&self) -> bool {
        self.process.lock().is_old()
    }
}

impl Template {
    /// Lets the process go; it ends with the last of its forks. What was learnt about soundness stays.
    pub fn forget(&mut self) {
        if matches!(self, Self::Ready(_)) {
            *self = Self::Untried;
        }
    }

    /// True when there is a process.
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Ready(_))
    }
}

/// Starts one instance for `pool`.
pub async fn start(
    inner: &Arc<Inner>,
    pool: &Arc<Pool>,
    lease: Lease,
    reason: ColdStartReason,
) -> Result<Worker, Refusal> {
    let mut clock = Clock::new(reason);
    let _urgent = inner.warm.urgent();
    let config = &pool.spec.config;
    if config.service.is_some() {
        return service::start(inner, pool, lease, clock).await;
    }
    if config.runtime == RuntimeId::Python && config.fork == ForkMode::Auto {
        let mut template = pool.template.lock().await;
        if matches!(&*template, Template::Ready(ready) if ready.is_old()) {
            template.forget();
        }
        if let Template::Ready(ready) = &mut *template {
            // The lock is let go before the fork's own process is waited for.
            match backend_fork(inner, ready).await {
                Ok(instance) => {
                    let (trees, parent) = (ready.trees.clone(), Arc::clone(&ready.process));
                    let badge = ready.badge();
                    drop(template);
                    match greet_fork(inner, pool, instance, badge).await {
                        Ok((process, printed)) => {
                            return Ok(Worker::new(process, printed, clock.forked(), lease, trees).forked_from(parent));
                        }
                        Err(e) => note_failure(pool, &e).await,
                    }
                    template = pool.template.lock().await;
                }
                Err(e) => {
                    tracing::warn!(error = %e.message, function = %pool.spec.function, "a template is lost");
                    *template = Template::Untried;
                }
            }
        }
        match &*template {
            Template::Failed(at, refusal) if clock.begun < *at => return Err(refusal.clone()),
            Template::Untried | Template::Failed(..) => {
                return first_of_template(inner, pool, lease, clock, template).await;
            }
            Template::Ready(_) | Template::Unsound => {}
        }
    }
    let (trees, mounts) = clock.pull(inner, pool).await?;
    let mut process = bound(inner, pool, config.runtime, mounts, &mut clock).await?;
    let mut printed = Printed::default();
    match config.runtime {
        RuntimeId::Go => go::launch(inner, pool, &mut process, &mut printed, &trees).await?,
        RuntimeId::Java => {
            let argv = program_of(inner, config.runtime, config.memory_mb)?;
            launch(inner, pool, &mut process, &mut printed, argv).await?;
        }
        RuntimeId::Custom => {
            let argv = vec![find_program("bootstrap", &trees)?];
            launch(inner, pool, &mut process, &mut printed, argv).await?;
        }
        _ => {
            load(inner, pool, &mut process, &mut printed, false).await?;
        }
    }
    Ok(Worker::new(process, printed, clock.done(), lease, trees))
}

/// Initialises the version in a process that becomes its template if that is sound. Does nothing when that has been tried.
pub async fn park(inner: &Arc<Inner>, pool: &Arc<Pool>) -> Result<(), Refusal> {
    let mut template = pool.template.lock().await;
    if !matches!(*template, Template::Untried) || pool.is_retired() {
        return Ok(());
    }
    let mut clock = Clock::new(ColdStartReason::First);
    let (trees, mounts) = clock.pull(inner, pool).await?;
    let mut process = bound(inner, pool, pool.spec.config.runtime, mounts, &mut clock).await?;
    let mut printed = Printed::default();
    let ready = load(inner, pool, &mut process, &mut printed, true).await?;
    process.output.drain(&mut printed);
    *template = match ready.fork.is_some_and(|verdict| !verdict.sound) {
        // The first call finds out as well, and says so in the function's log.
        true => Template::Untried,
        false => Template::Ready(Box::new(Parent::new(process, trees))),
    };
    drop(template);
    if !printed.is_empty() {
        // There is no invocation whose log it could stand in.
        pool.note_printed(printed);
    }
    Ok(())
}

/// Initialises the version in a process that becomes its template if that is sound, and forks the first instance from it.
async fn first_of_template(
    inner: &Arc<Inner>,
    pool: &Arc<Pool>,
    lease: Lease,
    mut clock: Clock,
    mut template: tokio::sync::MutexGuard<'_, Template>,
) -> Result<Worker, Refusal> {
    let (trees, mounts) = clock.pull(inner, pool).await?;
    let mut process = bound(inner, pool, pool.spec.config.runtime, mounts, &mut clock).await?;
    let mut printed = Printed::default();
    let ready = match load(inner, pool, &mut process, &mut printed, true).await {
        Ok(ready) => ready,
        Err(refusal) => {
            *template = Template::Failed(Instant::now(), refusal.clone());
            return Err(refusal);
        }
    };
    let verdict = ready.fork.filter(|v| !v.sound).map(|v| v.why);
    if let Some(why) = verdict {
        *template = Template::Unsound;
        // The function's owner can do something about it, and reads the function's log.
        let note = format!("[mayfly] further instances initialise anew instead of being forked: {}\n", why.join("; "));
        printed.bytes.extend_from_slice(note.as_bytes());
        return Ok(Worker::new(process, printed, clock.done(), lease, trees));
    }
    process.output.drain(&mut printed);
    let ready = Parent::new(process, trees.clone());
    let parent = Arc::clone(&ready.process);
    let forked = match backend_fork(inner, &ready).await {
        Ok(instance) => greet_fork(inner, pool, instance, ready.badge()).await,
        Err(e) => Err(e),
    };
    match forked {
        Ok((process, more)) => {
            *template = Template::Ready(Box::new(ready));
            pool.keep_parked(inner);
            printed.bytes.extend_from_slice(&more.bytes);
            printed.cut += more.cut;
            Ok(Worker::new(process, printed, clock.done(), lease, trees).forked_from(parent))
        }
        Err(e) => {
            tracing::warn!(error = %e.message, function = %pool.spec.function, "the first fork failed; forking is given up");
            *template = Template::Unsound;
            drop(template);
            Box::pin(start(inner, pool, lease, clock.reason)).await
        }
    }
}

async fn backend_fork(inner: &Inner, ready: &Parent) -> Result<Box<dyn Instance>, Refusal> {
    inner.backend.fork(ready.instance.as_ref()).await.map_err(|e| Refusal::internal(&e))
}

async fn greet_fork(
    inner: &Inner,
    pool: &Pool,
    instance: Box<dyn Instance>,
    badge: Option<Arc<Badge>>,
) -> Result<(Waiting, Printed), Refusal> {
    // Before it is greeted: connections made from now on wait, rather than being refused.
    let inside = inside::open(inner, pool, &*instance, badge).await?;
    let mut process = Waiting::greet(instance, FORK_PATIENCE).await.map_err(|e| Refusal::internal(&e))?;
    process.inside = inside;
    let mut printed = Printed::default();
    match process.listen(&mut printed, Instant::now() + FORK_PATIENCE).await {
        Ok((Kind::Ready, _)) => Ok((process, printed)),
        other => Err(Refusal::internal(&format!("a fork answered {other:?} for READY"))),
    }
}

async fn note_failure(pool: &Pool, error: &Refusal) {
    let mut template = pool.template.lock().await;
    if let Template::Ready(ready) = &mut *template {
        ready.failures += 1;
        tracing::warn!(error = %error.message, function = %pool.spec.function, "a fork failed");
        if ready.failures >= FORK_FAILURES_MAX {
            *template = Template::Unsound;
        }
    }
}

/// A waiting process that belongs to the version from here on. No user code has run in it.
pub(crate) async fn bound(
    inner: &Inner,
    pool: &Pool,
    runtime: RuntimeId,
    mounts: Vec<Mount>,
    clock: &mut Clock,
) -> Result<Waiting, Refusal> {
    let config = &pool.spec.config;
    let inside = config.role().is_some() && inner.options.services.is_some();
    let binding = Binding { mounts, memory_mb: config.memory_mb, egress: config.public_net, inside };
    for _ in 0..STOCK_TRIES_MAX {
        let mut process = take(inner, runtime, clock).await?;
        let Err(error) = process.instance.bind(binding.clone()).await else {
            process.inside = inside::open(inner, pool, &*process.instance, None).await?;
            clock.runtime_is_up();
            return Ok(process);
        };
        if clock.kind != StartKind::Precreated {
            return Err(Refusal::internal(&error));
        }
        // What was made ahead may be dying just now, and nothing of the function has run yet.
        tracing::warn!(%error, function = %pool.spec.function, "a process made ahead could not be used; taking another");
    }
    Err(Refusal::internal(&"one process made ahead after the other could not be used"))
}

async fn take(inner: &Inner, runtime: RuntimeId, clock: &mut Clock) -> Result<Waiting, Refusal> {
    let taken = inner.warm.take(runtime.stock()).await.map_err(|e| match e {
        mayfly_sandbox::SandboxError::NoRuntime(name, why) => {
            tracing::error!(%name, %why, "a runtime is missing");
            Refusal::new(Status::INIT_ERROR, format!("The runtime `{name}` is not available on this machine"))
        }
        other => Refusal::internal(&other),
    });
    let (process, ready_made) = taken?;
    clock.made(ready_made);
    Ok(process)
}

/// Has the shim load the function.
async fn load(
    inner: &Inner,
    pool: &Pool,
    process: &mut Waiting,
    printed: &mut Printed,
    template: bool,
) -> Result<Ready, Refusal> {
    let spec = &pool.spec;
    let config = &spec.config;
    let environment = environment::build(spec, &inner.options, process.inside.as_ref());
    let mut entropy = [0; 32];
    getrandom::fill(&mut entropy).map_err(|e| Refusal::internal(&e))?;
    let frame = Bind {
        handler: &config.handler,
        code: "/var/user",
        environment: &environment,
        context: Context {
            memory_limit_in_mb: config.memory_mb,
            time_limit_in_ms: u64::from(config.timeout_s) * 1000,
            function_name: spec.function.as_str(),
            function_version: &spec.key.version,
            namespace: spec.namespace.as_str(),
            tencentcloud_region: &inner.options.region,
            tencentcloud_appid: &inner.options.app_id,
            tencentcloud_uin: &inner.options.uin,
            environ: &environment,
        },
        result_bytes_max: limits::RESULT_BYTES_MAX,
        template,
        entropy: hex::encode(entropy),
    };
    let payload = serde_json::to_vec(&frame).map_err(|e| Refusal::internal(&e))?;
    if let Line::Shim(shim) = &mut process.line {
        shim.queue(Kind::Bind, &payload);
    }
    let limit_s = config.init_timeout_s;
    let answer = process.listen(printed, Instant::now() + Duration::from_secs(u64::from(limit_s))).await;
    let mut refusal = match answer {
        Ok((Kind::Ready, payload)) => {
            return mayfly_guest::payload(Kind::Ready, &payload).map_err(|e| Refusal::internal(&e));
        }
        Ok((Kind::Error, payload)) => match mayfly_guest::payload(Kind::Error, &payload) {
            Ok(failure) => Refusal::from_shim(failure),
            Err(e) => Refusal::internal(&e),
        },
        Ok((kind, _)) => Refusal::new(Status::INIT_ERROR, format!("The runtime answered {kind:?} while it was loaded")),
        Err(lost) => init_lost(&lost, process, config.memory_mb, limit_s),
    };
    process.output.drain(printed);
    append_output(&mut refusal, printed);
    Err(refusal)
}

fn init_lost(lost: &Lost, process: &Waiting, memory_mb: u32, limit_s: u32) -> Refusal {
    match lost {
        Lost::Deadline => Refusal::new(
            Status::INIT_TIMEOUT,
            format!("Initialisation took longer than the limit of {limit_s} seconds"),
        ),
        _ if process.instance.ran_out_of_memory() => Refusal::new(
            Status::MEMORY_LIMIT,
            format!("Memory limit of {memory_mb} MB exceeded during initialisation; the process was killed"),
        ),
        _ => Refusal::new(Status::INIT_ERROR, "The process ended during initialisation"),
    }
}

/// A failed start has no invocation whose log could show what was printed; the error shows the end of it.
pub(crate) fn append_output(refusal: &mut Refusal, printed: &mut Printed) {
    const SHOWN: usize = 2048;
    let (text, _) = std::mem::take(printed).into_text();
    if text.is_empty() || !refusal.stack.is_empty() {
        return;
    }
    let start = text.char_indices().rev().map(|(i, _)| i).take_while(|i| text.len() - i <= SHOWN).last().unwrap_or(0);
    refusal.stack = text[start..].to_owned();
}

/// Where in the sandbox a function's own program `name` is.
pub(crate) fn find_program(name: &str, trees: &[Arc<CodeTree>]) -> Result<String, Refusal> {
    use std::os::unix::fs::PermissionsExt;
    // In the package, or in a layer: later layers come first.
    let places = std::iter::once("/var/user").chain(std::iter::repeat("/opt"));
    let order = trees.iter().take(1).chain(trees.iter().skip(1).rev());
    let found = places.zip(order).find_map(|(place, tree)| {
        let meta = std::fs::metadata(tree.path.join(name)).ok().filter(|m| m.is_file())?;
        Some((format!("{place}/{name}"), meta.permissions().mode()))
    });
    match found {
        None => Err(Refusal::new(
            Status::HANDLER_NOT_FOUND,
            format!("There is no `{name}` in the package's root, nor in a layer"),
        )),
        Some((_, mode)) if mode & 0o111 == 0 => Err(Refusal::new(
            Status::INIT_ERROR,
            format!("`{name}` is not executable: give it mode 755 before you make the zip"),
        )),
        Some((program, _)) => Ok(program),
    }
}

/// The command line of a runtime's program for a function of so much memory.
fn program_of(inner: &Inner, runtime: RuntimeId, memory_mb: u32) -> Result<Vec<String>, Refusal> {
    let Some(words) = inner.options.programs.get(&runtime) else {
        return Err(Refusal::new(
            Status::INIT_ERROR,
            format!("The runtime `{runtime}` is not available on this machine"),
        ));
    };
    // What a JVM takes beside its objects was measured: about 40 MB, and a little more with every class.
    let heap_mb = (memory_mb * 85 / 100).saturating_sub(40).max(16).to_string();
    Ok(words.iter().map(|word| word.replace("{heap_mb}", &heap_mb)).collect())
}

/// Starts a program that asks for work, such as a custom runtime's, and waits until it says that it is ready.
async fn launch(
    inner: &Inner,
    pool: &Pool,
    process: &mut Waiting,
    printed: &mut Printed,
    argv: Vec<String>,
) -> Result<(), Refusal> {
    let config = &pool.spec.config;
    let environment = environment::build(&pool.spec, &inner.options, process.inside.as_ref());
    if let Line::Custom(api) = &process.line {
        api.describe(&pool.spec, &inner.options);
    }
    let environment = environment.into_iter().map(|(k, v)| format!("{k}={v}")).collect();
    process.instance.launch(argv, environment).await.map_err(|e| Refusal::internal(&e))?;
    let Waiting { line: Line::Custom(api), output, .. } = &mut *process else {
        return Err(Refusal::internal(&"a custom runtime without its API"));
    };
    let ready = async {
        loop {
            tokio::select! {
                biased;
                said = api.ready() => return said,
                more = output.pump(printed) => if !more {
                    return Err(Refusal::new(Status::INIT_ERROR, "The program ended before it was ready"));
                },
            }
        }
    };
    let limit = Duration::from_secs(u64::from(config.init_timeout_s));
    let result = match tokio::time::timeout(limit, ready).await {
        Ok(Err(_)) if process.instance.ran_out_of_memory() => {
            Err(init_lost(&Lost::Closed, process, config.memory_mb, config.init_timeout_s))
        }
        Ok(said) => said,
        Err(_) => Err(init_lost(&Lost::Deadline, process, config.memory_mb, config.init_timeout_s)),
    };
    result.map_err(|mut refusal| {
        process.output.drain(printed);
        append_output(&mut refusal, printed);
        refusal
    })
}

/// Measures a start and its phases.
pub(crate) struct Clock {
    reason: ColdStartReason,
    kind: StartKind,
    begun: Instant,
    phase: Instant,
    phases: Phases,
}

impl Clock {
    fn new(reason: ColdStartReason) -> Self {
        let now = Instant::now();
        Self { reason, kind: StartKind::Fresh, begun: now, phase: now, phases: Phases::default() }
    }

    fn lap(&mut self) -> u64 {
        let now = Instant::now();
        let us = now.duration_since(self.phase).as_micros() as u64;
        self.phase = now;
        us
    }

    /// Says whether the process came from stock.
    pub(crate) fn made(&mut self, ready_made: bool) {
        self.kind = if ready_made { StartKind::Precreated } else { StartKind::Fresh };
    }

    /// Makes code and layers present.
    pub(crate) async fn pull(
        &mut self,
        inner: &Inner,
        pool: &Pool,
    ) -> Result<(Vec<Arc<CodeTree>>, Vec<Mount>), Refusal> {
        let config = &pool.spec.config;
        let mut trees = Vec::with_capacity(1 + config.layers.len());
        for code in std::iter::once(&config.code).chain(config.layers.iter().map(|l| &l.code)) {
            let tree = match inner.code.get_ready(&code.digest) {
                Some(tree) => tree,
                None => inner.code.ensure(code).await.map_err(|e| Refusal::internal(&e))?,
            };
            trees.push(tree);
        }
        let mut mounts = vec![Mount { sources: vec![trees[0].path.clone()], target: "/var/user".into() }];
        if trees.len() > 1 {
            // Later layers overwrite earlier ones: the last is on top.
            let sources = trees[1..].iter().rev().map(|t| t.path.clone()).collect();
            mounts.push(Mount { sources, target: "/opt".into() });
        }
        self.phases.pull_code_us = self.lap();
        Ok((trees, mounts))
    }

    pub(crate) fn runtime_is_up(&mut self) {
        self.phases.init_runtime_us = self.lap();
    }

    pub(crate) fn done(mut self) -> ColdStart {
        self.phases.init_function_us = self.lap();
        self.finish()
    }

    fn forked(mut self) -> ColdStart {
        self.kind = StartKind::Forked;
        self.phases.init_runtime_us = self.lap();
        self.finish()
    }

    fn finish(self) -> ColdStart {
        ColdStart {
            reason: self.reason,
            kind: self.kind,
            phases: self.phases,
            total_us: self.begun.elapsed().as_micros() as u64,
        }
    }
}
