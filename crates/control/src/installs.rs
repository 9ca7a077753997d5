//! Installs of dependencies: accepted durably with the function they are for, carried out one task each, and begun again when the
//! platform was killed meanwhile.
//!
//! An install is a part of its function's row (`InstallState`): whoever reads the row knows the status. The task only carries out what the row
//! says, and changes the row when it has ended, if that still says so.

use crate::actions::{Answer, config, functions, versions};
use crate::catalogue::{Catalogue, FunctionState, Next, store_error};
use crate::ids::random_unit;
use crate::ports::{InstallError, InstallJob, Installed, Installer, LineSink};
use mayfly_base::Clock;
use mayfly_model::{ApiError, CodeRef, Digest, FunctionName, InstallState, NamespaceName, RuntimeId};
use mayfly_store::BlobStore;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Lines kept of one install.
const LINES_MAX: usize = 2000;
/// Functions whose lines are kept.
const LOGS_MAX: usize = 128;
/// Starts of the platform that may find an install unfinished before it counts as failed: it may be what ends the platform.
const INTERRUPTED_MAX: u32 = 3;
/// Attempts at an install that fails for the platform's own reasons, and the pause between them.
const ATTEMPTS_MAX: u32 = 3;
const ATTEMPT_PAUSE: Duration = Duration::from_secs(1);
/// Longest reason of a failure that is stored, in bytes.
const REASON_BYTES_MAX: usize = 4096;

/// What an installer has printed.
#[derive(Debug, Default)]
struct Log {
    lines: VecDeque<String>,
    /// Number of the first line kept.
    first: u64,
    started_ms: u64,
    ended_ms: Option<u64>,
    cached: bool,
}

/// A part of a log.
#[derive(Debug, Default)]
pub(crate) struct LogPage {
    pub lines: Vec<String>,
    /// Number of the line after these.
    pub next: u64,
    pub cached: bool,
    pub duration_ms: u64,
}

struct Running {
    log: Arc<Mutex<Log>>,
    stop: CancellationToken,
}

/// The installs.
pub(crate) struct Installs {
    catalogue: Catalogue,
    blobs: Arc<dyn BlobStore>,
    installer: Option<Arc<dyn Installer>>,
    clock: Arc<dyn Clock>,
    /// One seat for each install that is under way or waits.
    seats: Arc<Semaphore>,
    /// One permit for each package that is held in memory.
    loaded: Semaphore,
    /// By id of the function: the latest install of each.
    known: Mutex<HashMap<String, Running>>,
    stop: CancellationToken,
}

impl Installs {
    pub fn new(
        catalogue: Catalogue,
        blobs: Arc<dyn BlobStore>,
        installer: Option<Arc<dyn Installer>>,
        clock: Arc<dyn Clock>,
        max: usize,
        loaded_max: usize,
    ) -> Arc<Self> {
        let seats = Arc::new(Semaphore::new(max));
        let stop = CancellationToken::new();
        let loaded = Semaphore::new(loaded_max.max(1));
        Arc::new(Self { catalogue, blobs, installer, clock, seats, loaded, known: Mutex::default(), stop })
    }

    /// Begins again what had not ended when the platform did.
    pub fn resume(self: &Arc<Self>) {
        for entry in self.catalogue.installing() {
            let record = entry.state.record.clone();
            let this = Arc::clone(self);
            tokio::spawn(async move {
                let counted = this.count_interruption(&record.namespace, &record.name).await;
                if let Err(error) = counted {
                    tracing::error!(%error, function = %record.name, "an install could not be begun again");
                }
                this.work(record.namespace.clone(), record.name.clone(), None).await;
            });
        }
    }

    async fn count_interruption(&self, namespace: &NamespaceName, name: &FunctionName) -> Result<(), ApiError> {
        let decide = |state: &FunctionState| {
            let mut next = state.clone();
            if let Some(install) = &mut Arc::make_mut(&mut next.record).install {
                install.interrupted += 1;
                if install.interrupted > INTERRUPTED_MAX {
                    let why =
                        "The platform ended in the midst of the install, again and again. Deploy the code once more.";
                    install.failed = Some(why.into());
                }
            }
            Ok(Next::state(next, ()))
        };
        self.catalogue.change_existing(namespace, name, decide).await
    }

    /// Whether a stored package names dependencies that are installed here. Errors: `UnsupportedOperation` where nothing is.
    pub async fn wants(&self, digest: &Digest, runtime: RuntimeId) -> Result<bool, ApiError> {
        let Some(installer) = self.installer.clone() else {
            let message = "This platform installs no dependencies (`install_concurrency` is 0): put them into the package or a layer, and leave `InstallDependency` FALSE.";
            return Err(ApiError::unsupported(message));
        };
        let zip = self.blobs.get(digest).await.map_err(store_error)?;
        let wanted = tokio::task::spawn_blocking(move || installer.wants(&zip, runtime)).await;
        wanted.map_err(|_| ApiError::internal("The package could not be looked at."))
    }

    /// A new install for a function's row.
    pub fn state(&self, source: CodeRef, handler: Option<String>, publish: bool, serving: bool) -> InstallState {
        let id = (random_unit() * (1u64 << 53) as f64) as u64;
        InstallState { id, source, handler, publish, serving, interrupted: 0, failed: None }
    }

    /// Writes a function whose state names an install, and begins that. It goes on when the caller goes away.
    ///
    /// Errors: `LimitExceeded.Install` when too many wait already; those of `decide` and of a change.
    pub async fn begin(
        self: &Arc<Self>,
        namespace: NamespaceName,
        name: FunctionName,
        functions_max: usize,
        decide: impl FnOnce(Option<&FunctionState>) -> Result<FunctionState, ApiError> + Send + 'static,
    ) -> Result<Answer, ApiError> {
        let seat = Arc::clone(&self.seats).try_acquire_owned().map_err(|_| {
            let message = "Too many installs of dependencies are waiting already; try again in a few minutes.";
            ApiError::new("RequestLimitExceeded", message)
        })?;
        let this = Arc::clone(self);
        let begun = tokio::spawn(async move {
            let decide = |old: Option<&FunctionState>| decide(old).map(|state| Next::state(state, ()));
            this.catalogue.change_function(&namespace, &name, functions_max, decide).await?;
            tokio::spawn(Arc::clone(&this).work(namespace, name, Some(seat)));
            Ok(Answer::new())
        });
        begun.await.unwrap_or_else(|error| {
            tracing::error!(%error, "an install could not be begun");
            Err(ApiError::internal("The change could not be completed; look at the function before you try again."))
        })
    }

    /// Carries out the install that stands in a function's row.
    async fn work(self: Arc<Self>, namespace: NamespaceName, name: FunctionName, seat: Option<OwnedSemaphorePermit>) {
        let Some(entry) = self.catalogue.function(namespace.as_str(), name.as_str()) else { return };
        let record = entry.state.record.clone();
        let Some(install) = record.install.clone().filter(InstallState::is_running) else { return };
        let (log, stop) = self.open_log(&record.id);
        let outcome = tokio::select! {
            outcome = self.attempt(&record.latest.handler, &entry.state, &install, &log) => outcome,
            // Ended with the platform, or with the function: the row, if there is one, stays as it is.
            () = stop.cancelled() => return,
        };
        let cached = outcome.as_ref().is_ok_and(|made| made.2);
        {
            let mut log = log.lock();
            log.cached = cached;
            log.ended_ms = Some(self.clock.now_ms());
        }
        match &outcome {
            Ok((_, built, cached)) => tracing::info!(function = %name, built, cached, "dependencies are installed"),
            Err(why) => {
                tracing::info!(function = %name, why = why.lines().next().unwrap_or_default(), "dependencies could not be installed");
            }
        }
        // What was made must not be collected before the row names it.
        let _code = self.catalogue.protect(outcome.iter().map(|(code, ..)| code.digest));
        let mut pause = ATTEMPT_PAUSE;
        while let Err(error) = self.finish(&namespace, &name, &install, &outcome).await {
            if error.code.starts_with("ResourceNotFound") {
                break;
            }
            tracing::error!(%error, function = %name, "the end of an install could not be stored; trying again");
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(30)),
                () = stop.cancelled() => break,
            }
        }
        drop(seat);
    }

    /// Installs; tries again when it is the platform that fails. Returns the code, whether it is another than the package that was uploaded, and
    /// whether nothing had to be run; or why not, for clients.
    async fn attempt(
        &self,
        handler: &str,
        state: &FunctionState,
        install: &InstallState,
        log: &Arc<Mutex<Log>>,
    ) -> Result<(CodeRef, bool, bool), String> {
        let latest = &state.record.latest;
        let Some(installer) = &self.installer else {
            return Err("This platform does not install dependencies any more: put them into the package.".into());
        };
        let _loaded = match self.loaded.try_acquire() {
            Ok(permit) => Some(permit),
            Err(_) => {
                log.lock().add("waiting for other installs to end");
                self.loaded.acquire().await.ok()
            }
        };
        for attempt in 1..=ATTEMPTS_MAX {
            let kept = Arc::clone(log);
            let line: LineSink = Arc::new(move |text: &str| kept.lock().add(text));
            let made = async {
                let internal = |e: mayfly_store::StoreError| InstallError::Internal(e.to_string());
                let zip = self.blobs.get(&install.source.digest).await.map_err(internal)?;
                let job = InstallJob {
                    zip,
                    digest: install.source.digest,
                    runtime: latest.runtime,
                    handler: install.handler.clone().unwrap_or_else(|| handler.to_owned()),
                    service: latest.service.is_some(),
                };
                let Installed { zip, unpacked_bytes, cached } = installer.install(job, line).await?;
                let Some(zip) = zip else { return Ok((install.source, false, true)) };
                let zip_bytes = zip.len() as u64;
                let digest = self.blobs.put(zip).await.map_err(internal)?;
                Ok((CodeRef { digest, zip_bytes, unpacked_bytes }, true, cached))
            };
            match made.await {
                Ok(made) => return Ok(made),
                Err(InstallError::Failed(why)) => return Err(clip_end(&why)),
                Err(InstallError::Internal(error)) => {
                    tracing::error!(error, attempt, function = %state.record.name, "an install failed for the platform's own reasons");
                    log.lock().add("the platform failed at this install");
                    tokio::time::sleep(ATTEMPT_PAUSE).await;
                }
            }
        }
        Err("The platform failed at this install; its log tells why. Deploy the code again later.".into())
    }

    /// Writes how an install ended, if the function still waits for it.
    async fn finish(
        &self,
        namespace: &NamespaceName,
        name: &FunctionName,
        install: &InstallState,
        outcome: &Result<(CodeRef, bool, bool), String>,
    ) -> Result<(), ApiError> {
        let now_ms = self.clock.now_ms();
        let decide = |state: &FunctionState| {
            let waits = state.record.install.as_ref().is_some_and(|i| i.id == install.id && i.is_running());
            if !waits {
                return Ok(Next::state(state.clone(), ()));
            }
            let end = match outcome {
                Ok((code, built, _)) => with_code(state, install, *code, *built, now_ms),
                Err(why) => Err(ApiError::invalid(why.clone())),
            };
            Ok(Next::state(end.unwrap_or_else(|error| with_failure(state, &error.message, now_ms)), ()))
        };
        self.catalogue.change_existing(namespace, name, decide).await
    }

    /// Makes the log of a new install of a function, in place of the one before.
    fn open_log(&self, function_id: &str) -> (Arc<Mutex<Log>>, CancellationToken) {
        let started_ms = self.clock.now_ms();
        let (log, stop) = (Arc::new(Mutex::new(Log { started_ms, ..Log::default() })), self.stop.child_token());
        let mut known = self.known.lock();
        if known.len() >= LOGS_MAX {
            let ended = known.iter().filter_map(|(id, r)| Some((r.log.lock().ended_ms?, id.clone())));
            if let Some((_, oldest)) = ended.min() {
                known.remove(&oldest);
            }
        }
        known.insert(function_id.to_owned(), Running { log: Arc::clone(&log), stop: stop.clone() });
        (log, stop)
    }

    /// What was printed, from line `offset` on.
    pub fn log(&self, function_id: &str, offset: u64, max: usize, now_ms: u64) -> LogPage {
        let log = self.known.lock().get(function_id).map(|running| Arc::clone(&running.log));
        let Some(log) = log else { return LogPage { next: offset, ..LogPage::default() } };
        let log = log.lock();
        let from = offset.max(log.first);
        let skip = usize::try_from(from - log.first).unwrap_or(usize::MAX);
        let lines: Vec<String> = log.lines.iter().skip(skip).take(max).cloned().collect();
        let end = log.first + log.lines.len() as u64;
        let next = (from + lines.len() as u64).min(end);
        let duration_ms = log.ended_ms.unwrap_or(now_ms).saturating_sub(log.started_ms);
        LogPage { lines, next, cached: log.cached, duration_ms }
    }

    /// Ends what is under way for a function that is gone.
    pub fn forget(&self, function_id: &str) {
        if let Some(running) = self.known.lock().remove(function_id) {
            running.stop.cancel();
        }
    }

    /// Ends everything; the rows stay as they are.
    pub fn interrupt(&self) {
        self.stop.cancel();
    }
}

impl Log {
    fn add(&mut self, line: &str) {
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
            self.first += 1;
        }
        self.lines.push_back(line.to_owned());
    }
}

/// The function with the code that was made. Errors: it is too large with the layers, or has too many versions.
fn with_code(
    state: &FunctionState,
    install: &InstallState,
    code: CodeRef,
    built: bool,
    now_ms: u64,
) -> Result<FunctionState, ApiError> {
    let mut latest = state.record.latest.clone();
    config::check_size(&code, &latest.layers)?;
    latest.code = code;
    latest.source = built.then_some(install.source);
    if let Some(handler) = &install.handler {
        latest.handler.clone_from(handler);
    }
    let mut next = functions::with_latest(state, latest, now_ms);
    Arc::make_mut(&mut next.record).install = None;
    if install.publish { Ok(versions::publish(&next, None, now_ms)?.0) } else { Ok(next) }
}

fn with_failure(state: &FunctionState, why: &str, now_ms: u64) -> FunctionState {
    let mut next = state.clone();
    let record = Arc::make_mut(&mut next.record);
    if let Some(install) = &mut record.install {
        install.failed = Some(why.to_owned());
    }
    record.mod_time_ms = now_ms;
    next
}

/// A reason no longer than is stored: its first line and its end, which is where installers tell what went wrong.
fn clip_end(why: &str) -> String {
    if why.len() <= REASON_BYTES_MAX {
        return why.to_owned();
    }
    let first: String = why.lines().next().unwrap_or_default().chars().take(500).collect();
    let mut from = why.len() - (REASON_BYTES_MAX - 2048);
    while !why.is_char_boundary(from) {
        from += 1;
    }
    format!("{first}\n…{}", &why[from..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_and_reasons_are_bounded() {
        let mut log = Log::default();
        for n in 0..LINES_MAX + 5 {
            log.add(&n.to_string());
        }
        assert_eq!((log.lines.len(), log.first, log.lines[0].as_str()), (LINES_MAX, 5, "5"));
        let why = clip_end(&format!("It failed.\n{}end", "é\n".repeat(REASON_BYTES_MAX)));
        assert!(why.len() < REASON_BYTES_MAX && why.starts_with("It failed.\n…") && why.ends_with("end"), "{why}");
        assert_eq!(clip_end("short"), "short");
    }
}
