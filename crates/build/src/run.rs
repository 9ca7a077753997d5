//! One install, in a sandbox.

use crate::lines::Lines;
use crate::recipe::{END, Recipe};
use crate::{BuildError, Job, Options, Progress, blocking, collect};
use bytes::Bytes;
use mayfly_sandbox::{Backend, Binding, Mount, SandboxError, Workspace};
use mayfly_store::{PackageError, PackageLimits, package};
use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// Files, links and directories that an install may make: a package holds fewer, but caches and sources lie beside it for a while.
const FILES_MAX: u32 = 400_000;
/// Processes and threads of an install.
const PIDS_MAX: u32 = 512;
/// What an installer may print, in bytes.
const OUTPUT_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Lines of the output that an error tells.
const TOLD_LINES: usize = 12;
/// Largest of the operator's configuration files, in bytes.
const CONFIG_BYTES_MAX: u64 = 64 * 1024;
/// The operator's configuration files, by the names under which they are looked for.
pub(crate) const CONFIG_FILES: [&str; 4] = ["pip.conf", "npmrc", "go.env", "composer-auth.json"];

/// Runs the recipe and returns a zip of what it made.
pub(crate) async fn run(
    backend: &dyn Backend,
    options: &Options,
    job: &Job,
    recipe: &Arc<Recipe>,
    fetched: Option<Bytes>,
    progress: &dyn Progress,
) -> Result<Bytes, BuildError> {
    let (zip, plan, config, work) =
        (job.zip.clone(), Arc::clone(recipe), options.config.clone(), options.dir.join("work"));
    let before = fetched.clone();
    let staged = blocking(move || stage(&zip, before.as_deref(), &plan, config.as_deref(), &work)).await?;
    let staged = staged.map_err(|e| BuildError::internal("lay out a package", &e))?;

    let refused = |e: SandboxError| BuildError::internal("make a sandbox for an install", &e);
    let mut instance = backend.prepare("custom").await.map_err(refused)?;
    let mount = |name: &str, target: &str| Mount { sources: vec![staged.path().join(name)], target: target.into() };
    let binding = Binding {
        mounts: vec![mount("code", "/var/user"), mount("config", "/opt")],
        memory_mb: options.memory_mb,
        // What was fetched before is all that there is to fetch.
        egress: fetched.is_none(),
        inside: false,
    };
    let workspace = Workspace { disk_mb: options.disk_mb, files_max: FILES_MAX, pids_max: PIDS_MAX };
    let made = instance.bind_workspace(binding, workspace).await.map_err(refused)?;
    let output = instance.take_output().ok_or_else(|| BuildError::Internal("a sandbox without output".into()))?;

    let doing = if fetched.is_some() { "building by" } else { "installing what" };
    let names = if fetched.is_some() { "" } else { " names" };
    progress.line(&format!("{doing} {}{names}", recipe.manifest));
    let end = nonce().map_err(|e| BuildError::internal("draw a number", &e))?;
    let argv = ["/bin/sh", "-c", &format!("({})\n{END}", recipe.script), &end, &recipe.argument];
    instance.launch(argv.map(str::to_owned).to_vec(), recipe.environment.clone()).await.map_err(refused)?;
    let mut told = Told { tail: VecDeque::new(), progress };
    let ended = tokio::time::timeout(options.time, follow(output, &end, &mut told)).await;
    let starved = instance.ran_out_of_memory();
    instance.kill();
    let failed = |why: &str| {
        let lines: Vec<&str> = told.tail.iter().map(String::as_str).collect();
        BuildError::Failed(
            format!("Installing the dependencies failed: {why}.\n{}", lines.join("\n")).trim_end().to_owned(),
        )
    };
    match ended {
        _ if starved => {
            return Err(failed(&format!(
                "it used more than {} MB of memory and files",
                options.memory_mb + options.disk_mb
            )));
        }
        Err(_) => return Err(failed(&format!("it took longer than {} seconds", options.time.as_secs()))),
        Ok(Err(error)) => return Err(BuildError::internal("read what an installer prints", &error)),
        Ok(Ok(End::Silent)) => return Err(failed("it ended before it was done")),
        Ok(Ok(End::Flood)) => return Err(failed(&format!("it printed more than {} MB", OUTPUT_BYTES_MAX >> 20))),
        Ok(Ok(End::Exit(0))) => {}
        Ok(Ok(End::Exit(code))) => return Err(failed(&format!("the installer ended with {code}"))),
    }
    let plan = Arc::clone(recipe);
    let collected = blocking(move || collect::collect(made.as_fd(), &plan.takes, plan.prefix)).await?;
    drop(instance);
    match collected {
        Ok(zip) => Ok(Bytes::from(zip)),
        Err(collect::CollectError::Io(error)) => Err(BuildError::internal("collect what was installed", &error)),
        Err(error) => Err(failed(&error.to_string())),
    }
}

/// Lays out what the sandbox is shown: the package or its manifests, and the operator's configuration.
fn stage(
    zip: &[u8],
    fetched: Option<&[u8]>,
    recipe: &Recipe,
    config: Option<&Path>,
    work: &Path,
) -> io::Result<tempfile::TempDir> {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::Builder::new().prefix("install-").tempdir_in(work)?;
    let (code, shown) = (dir.path().join("code"), dir.path().join("config"));
    match &recipe.shown {
        // The package was checked when it was accepted.
        None => package::unpack(zip, &code, &PackageLimits::default()).map(drop).map_err(io::Error::other)?,
        Some(files) => {
            fs::create_dir(&code)?;
            for (name, bytes) in files {
                fs::write(code.join(name), bytes)?;
            }
        }
    }
    fs::create_dir(&shown)?;
    if let Some(fetched) = fetched {
        match package::unpack(
            fetched,
            &shown.join("fetched"),
            &PackageLimits { zip_bytes_max: u64::MAX, ..PackageLimits::default() },
        ) {
            // A module without dependencies.
            Err(PackageError::NoEntries) => fs::create_dir_all(shown.join("fetched"))?,
            other => other.map(drop).map_err(io::Error::other)?,
        }
    }
    for name in CONFIG_FILES {
        let Some(path) = config.map(|config| config.join(name)).filter(|path| path.is_file()) else { continue };
        let mut bytes = Vec::new();
        fs::File::open(&path)?.take(CONFIG_BYTES_MAX).read_to_end(&mut bytes)?;
        fs::write(shown.join(name), bytes)?;
        fs::set_permissions(shown.join(name), fs::Permissions::from_mode(0o644))?;
    }
    for directory in [&code, &shown] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    }
    Ok(dir)
}

fn nonce() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(hex::encode(bytes))
}

struct Told<'a> {
    tail: VecDeque<String>,
    progress: &'a dyn Progress,
}

impl Told<'_> {
    fn line(&mut self, text: &str) {
        self.progress.line(text);
        if self.tail.len() == TOLD_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(text.to_owned());
    }
}

/// How the output of an install ended.
enum End {
    /// The script said that it is done, with this exit code.
    Exit(i32),
    /// Everything in the sandbox ended without that.
    Silent,
    /// It printed too much.
    Flood,
}

/// Hands on what is printed until the script says that it is done. What user code left running is not waited for.
async fn follow(output: OwnedFd, end: &str, told: &mut Told<'_>) -> io::Result<End> {
    let mut pipe = Receiver::from_owned_fd(output)?;
    let (mut lines, mut buffer, mut seen) = (Lines::default(), vec![0; 64 * 1024], 0u64);
    let mut done = None;
    loop {
        let n = pipe.read(&mut buffer).await?;
        let mut take = |line: &str| match line.strip_prefix(end) {
            _ if done.is_some() => {}
            Some(code) => done = Some(code.trim().parse().unwrap_or(-1)),
            None => told.line(line),
        };
        if n == 0 {
            lines.flush(&mut take);
        } else {
            lines.push(&buffer[..n], &mut take);
        }
        seen += n as u64;
        match done {
            Some(code) => return Ok(End::Exit(code)),
            None if n == 0 => return Ok(End::Silent),
            None if seen > OUTPUT_BYTES_MAX => return Ok(End::Flood),
            None => {}
        }
    }
}
