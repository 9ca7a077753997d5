//! The installer of dependencies, as the control API sees it.

use anyhow::{Context, Result};
use async_trait::async_trait;
use mayfly_base::config::PlatformOptions;
use mayfly_build::{BuildError, Builder, Built, Job, Options, Progress, recipe};
use mayfly_control::{InstallError, InstallJob, Installed, Installer, LineSink};
use mayfly_model::RuntimeId;
use mayfly_sandbox::process::ProcessBackend;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The installer that the options ask for, with what it needs in `dir`; `None`: none.
pub fn installer(
    backend: &ProcessBackend,
    options: &PlatformOptions,
    dir: PathBuf,
) -> Result<Option<Arc<dyn Installer>>> {
    if options.install_concurrency == 0 {
        return Ok(None);
    }
    let mb = |mb: u64| u32::try_from(mb).unwrap_or(u32::MAX);
    let config = Some(options.install_config.clone()).filter(|config| !config.as_os_str().is_empty());
    if let Some(config) = &config {
        std::fs::read_dir(config).context("read the directory that install_config names")?;
    }
    let options = Options {
        dir,
        memory_mb: mb(options.install_memory_mb),
        disk_mb: mb(options.install_disk_mb),
        time: Duration::from_secs(options.install_time_s),
        concurrency: options.install_concurrency,
        cache_bytes: options.install_cache_mb.saturating_mul(1 << 20),
        config,
        environment: std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
            .collect(),
    };
    let builder = Builder::open(Arc::new(backend.clone()), options).context("open the cache of dependencies")?;
    Ok(Some(Arc::new(Adapter(builder))))
}

struct Adapter(Builder);

struct Lines(LineSink);

impl Progress for Lines {
    fn line(&self, text: &str) {
        (self.0)(text);
    }
}

#[async_trait]
impl Installer for Adapter {
    fn wants(&self, zip: &[u8], runtime: RuntimeId) -> bool {
        recipe::names_dependencies(zip, runtime)
    }

    async fn install(&self, job: InstallJob, line: LineSink) -> Result<Installed, InstallError> {
        let InstallJob { zip, digest, runtime, handler, service } = job;
        match self.0.build(Job { zip, digest, runtime, handler, service }, &Lines(line)).await {
            Ok(Built { zip, unpacked_bytes, cached }) => Ok(Installed { zip, unpacked_bytes, cached }),
            Err(BuildError::Failed(why)) => Err(InstallError::Failed(why)),
            Err(BuildError::Internal(why)) => Err(InstallError::Internal(why)),
        }
    }
}
