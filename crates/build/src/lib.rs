//! Dependencies that a package names (requirements.txt, package.json, composer.json, go.mod), installed on the platform.
//!
//! A package goes in, a package with its dependencies comes out. In between: [`recipe`] decides what is run and what the result depends
//! on; `run` runs it in a sandbox of the process backend, whose `/tmp` is the only place that it can write to; [`collect`] reads what was
//! made there without trusting it; [`cache`] keeps it; [`merge`] puts it into the package. `docs/dependencies.md` tells what is promised.

pub mod cache;
pub mod collect;
mod lines;
pub mod merge;
pub mod recipe;
mod run;

use bytes::Bytes;
use cache::Cache;
use mayfly_model::{Digest, RuntimeId, limits};
use mayfly_sandbox::Backend;
use mayfly_store::{PackageLimits, package};
use parking_lot::Mutex;
use recipe::{Machine, Recipe};
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex as AsyncMutex, Semaphore};

/// Settings of the installer.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory of its own, for the cache and for what is under way.
    pub dir: PathBuf,
    /// Memory of what runs in an install, in MB; what is written counts on top of it.
    pub memory_mb: u32,
    /// What an install may write, in MB.
    pub disk_mb: u32,
    /// Longest install.
    pub time: Duration,
    /// Installs at a time.
    pub concurrency: usize,
    /// What the cache may hold, in bytes.
    pub cache_bytes: u64,
    /// Directory with `pip.conf`, `npmrc`, `go.env` and `composer-auth.json` that the installers are to use, each if it is there.
    pub config: Option<PathBuf>,
    /// The platform's environment, from which settings of the installers are taken (see [`recipe::PASSED`]).
    pub environment: Vec<(String, String)>,
}

/// One install to do.
#[derive(Clone, Debug)]
pub struct Job {
    /// The package, checked already.
    pub zip: Bytes,
    /// Its SHA-256.
    pub digest: Digest,
    /// What the function runs on.
    pub runtime: RuntimeId,
    /// The handler: for Go, the name of the program to make.
    pub handler: String,
    /// True for HTTP services.
    pub service: bool,
}

/// What came of an install.
#[derive(Clone, Debug)]
pub struct Built {
    /// The package with its dependencies. `None`: there was nothing to install, the package is good as it is.
    pub zip: Option<Bytes>,
    /// Size of its files, unpacked, in bytes; 0 when there is none.
    pub unpacked_bytes: u64,
    /// True when nothing had to be run.
    pub cached: bool,
}

/// Why an install did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The package, its dependencies or their scripts are at fault, or a limit was reached: a sentence for whoever deployed it.
    #[error("{0}")]
    Failed(String),
    /// The platform is at fault; the text is for its log.
    #[error("{0}")]
    Internal(String),
}

impl BuildError {
    fn internal(what: &str, error: &dyn std::fmt::Display) -> Self {
        Self::Internal(format!("{what}: {error}"))
    }
}

/// Hears the lines that an installer prints, one at a time, without control characters.
pub trait Progress: Send + Sync {
    /// One line.
    fn line(&self, text: &str);
}

/// Installs dependencies. Cheap to clone.
#[derive(Clone)]
pub struct Builder(Arc<Inner>);

struct Inner {
    backend: Arc<dyn Backend>,
    options: Options,
    machine: Machine,
    cache: Cache,
    running: Semaphore,
    /// One lock for each key that is being installed: who comes second finds the result of the first in the cache.
    flights: Mutex<HashMap<String, Arc<AsyncMutex<()>>>>,
}

impl Builder {
    /// Makes the directories and removes what interrupted installs left.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(backend: Arc<dyn Backend>, options: Options) -> io::Result<Self> {
        let cache = Cache::open(&options.dir.join("cache"), options.cache_bytes)?;
        let work = options.dir.join("work");
        let _ = std::fs::remove_dir_all(&work);
        std::fs::create_dir_all(&work)?;
        let machine = Machine::look(&options);
        let running = Semaphore::new(options.concurrency);
        Ok(Self(Arc::new(Inner { backend, options, machine, cache, running, flights: Mutex::default() })))
    }

    /// Installs what the package of `job` names, or takes it from the cache. Dropping the future ends the install and removes its traces.
    ///
    /// # Errors
    /// [`BuildError`].
    pub async fn build(&self, job: Job, progress: &dyn Progress) -> Result<Built, BuildError> {
        let inner = &self.0;
        let (zip, machine) = (job.clone(), inner.machine.clone());
        let recipe = blocking(move || Recipe::of(&zip, &machine)).await??;
        let Some(recipe) = recipe else {
            let known = recipe::manifests(job.runtime).join(", ");
            progress.line(&format!("nothing to install: the package has no {known} in its root"));
            return Ok(Built { zip: None, unpacked_bytes: 0, cached: false });
        };
        let recipe = Arc::new(recipe);
        let begun = Instant::now();
        let flight = Arc::clone(inner.flights.lock().entry(recipe.key.clone()).or_default());
        let guard = flight.lock().await;
        let result = self.artifact(&job, &recipe, progress).await;
        drop(guard);
        inner.land(&recipe.key, &flight);
        let (artifact, cached) = result?;
        if cached {
            progress.line(&format!("cached: the dependencies of {} were installed before", recipe.manifest));
        }
        let (source, plan) = (job.zip.clone(), Arc::clone(&recipe));
        let merged = blocking(move || merge::merge(&source, &artifact, &plan.placement).map(Bytes::from)).await?;
        let merged =
            merged.map_err(|e| BuildError::Failed(format!("The dependencies cannot be put into the package: {e}.")))?;
        let zip = merged.clone();
        let limits = PackageLimits { zip_bytes_max: u64::MAX, ..PackageLimits::default() };
        let checked = blocking(move || package::check(&zip, &limits)).await?;
        let summary = checked.map_err(|e| {
            let mb = limits::PACKAGE_UNPACKED_BYTES_MAX >> 20;
            BuildError::Failed(format!(
                "The package with its dependencies cannot be used: {e}. It may have {mb} MB and {} files.",
                limits::PACKAGE_ENTRIES_MAX
            ))
        })?;
        progress.line(&format!(
            "done in {:.1} s: {:.1} MB unpacked",
            begun.elapsed().as_secs_f64(),
            summary.unpacked_bytes as f64 / 1e6
        ));
        Ok(Built { zip: Some(merged), unpacked_bytes: summary.unpacked_bytes, cached })
    }

    /// What the recipe makes, from the cache or by doing it. True: from the cache.
    async fn artifact(
        &self,
        job: &Job,
        recipe: &Arc<Recipe>,
        progress: &dyn Progress,
    ) -> Result<(Bytes, bool), BuildError> {
        let inner = &self.0;
        let (this, key) = (Arc::clone(inner), recipe.key.clone());
        if let Some(artifact) = blocking(move || this.cache.get(&key)).await? {
            return Ok((artifact, true));
        }
        let _permit = match inner.running.try_acquire() {
            Ok(permit) => permit,
            Err(_) => {
                progress.line("waiting for another install to end");
                inner.running.acquire().await.map_err(|e| BuildError::internal("wait", &e))?
            }
        };
        let fetched = match &recipe.needs {
            None => None,
            Some(needed) => Some(self.fetch(job, needed, progress).await?),
        };
        let artifact = run::run(inner.backend.as_ref(), &inner.options, job, recipe, fetched, progress).await?;
        self.keep(recipe, &artifact).await?;
        Ok((artifact, false))
    }

    /// What another recipe needs, from the cache or by doing it.
    async fn fetch(&self, job: &Job, recipe: &Arc<Recipe>, progress: &dyn Progress) -> Result<Bytes, BuildError> {
        let inner = &self.0;
        let (this, key) = (Arc::clone(inner), recipe.key.clone());
        if let Some(fetched) = blocking(move || this.cache.get(&key)).await? {
            progress.line(&format!("cached: what {} names was fetched before", recipe.manifest));
            return Ok(fetched);
        }
        let fetched = run::run(inner.backend.as_ref(), &inner.options, job, recipe, None, progress).await?;
        self.keep(recipe, &fetched).await?;
        Ok(fetched)
    }

    /// Keeps what a recipe has made. That this fails is no reason to fail.
    async fn keep(&self, recipe: &Recipe, artifact: &Bytes) -> Result<(), BuildError> {
        let inner = &self.0;
        let (this, key, stored) = (Arc::clone(inner), recipe.key.clone(), artifact.clone());
        if let Err(error) = blocking(move || this.cache.put(&key, &stored)).await? {
            tracing::warn!(%error, "dependencies were installed and could not be kept for the next time");
        }
        Ok(())
    }
}

impl Inner {
    /// Forgets the lock of a key when nobody else waits for it.
    fn land(&self, key: &str, flight: &Arc<AsyncMutex<()>>) {
        let mut flights = self.flights.lock();
        // The map's and this one; who waits holds one, got under the lock of the map.
        if Arc::strong_count(flight) == 2 {
            flights.remove(key);
        }
    }
}

/// Runs work that blocks off the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, BuildError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| BuildError::internal("a step did not end", &e))
}
