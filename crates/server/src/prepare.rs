//! What a runtime needs before its first use, and need not have when no function of its language is there: files that
//! are made on this machine, from this machine's interpreter.

use async_trait::async_trait;
use mayfly_sandbox::{Backend, Instance, SandboxError};
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::Command;
use tokio::sync::Mutex;

/// The folder for what is made, beside the runtime's own files. `{prepared}` in a descriptor.
pub const PREPARED: &str = "prepared";
/// The file that says what the others were made of.
const STAMP: &str = ".stamp";
/// Longest time one program may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// A failed preparation is not tried again sooner.
const PAUSE: Duration = Duration::from_secs(10);
/// How much of what a failed program printed is told.
const TOLD_CHARS: usize = 2000;

/// Programs of ours, run on the host by the machine's interpreter. No user code takes part.
#[derive(Clone, Debug)]
pub struct Preparation {
    /// Command lines, one after the other. `{prepared}` stands for a new, empty folder.
    pub commands: Vec<Vec<String>>,
    /// The runtime's folder on the host.
    pub dir: PathBuf,
    /// What the result depends on: while it stays the same, so does what was made. `None`: it is made anew in every process.
    pub stamp: Option<String>,
}

impl Preparation {
    /// Runs the programs; what they made is in place when all have succeeded. Errors: why one did not.
    async fn run(&self) -> Result<(), String> {
        let (building, prepared) = (self.dir.join(format!("{PREPARED}.new")), self.dir.join(PREPARED));
        if let Some(stamp) = &self.stamp
            && tokio::fs::read_to_string(prepared.join(STAMP)).await.is_ok_and(|made_of| made_of == *stamp)
        {
            return Ok(());
        }
        let told = |what: &str, e: &dyn std::fmt::Display| format!("{what}: {e}");
        let _ = tokio::fs::remove_dir_all(&building).await;
        tokio::fs::create_dir_all(&building).await.map_err(|e| told("make its folder", &e))?;
        for command in &self.commands {
            let mut words = command.iter().map(|w| w.replace("{prepared}", &building.display().to_string()));
            let program = words.next().ok_or("a command without words")?;
            let running = Command::new(&program).args(words).stdin(Stdio::null()).kill_on_drop(true).output();
            let output = match tokio::time::timeout(PATIENCE, running).await {
                Ok(output) => output.map_err(|e| told(&program, &e))?,
                Err(_) => return Err(format!("{program} took longer than {} s", PATIENCE.as_secs())),
            };
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                let said: String = said.trim().chars().take(TOLD_CHARS).collect();
                return Err(format!("{program} ended with {}: {said}", output.status));
            }
        }
        if let Some(stamp) = &self.stamp {
            tokio::fs::write(building.join(STAMP), stamp).await.map_err(|e| told("write the stamp", &e))?;
        }
        let _ = tokio::fs::remove_dir_all(&prepared).await;
        tokio::fs::rename(&building, &prepared).await.map_err(|e| told("put its files in place", &e))
    }
}

enum State {
    /// Not begun, or failed before this time.
    Due(Preparation, Option<(Instant, String)>),
    Done,
}

/// A backend that prepares a runtime before its first process is started.
pub struct Preparing<B> {
    backend: B,
    runtimes: HashMap<String, Mutex<State>>,
}

impl<B> Preparing<B> {
    /// Around `backend`.
    pub fn new(backend: B, runtimes: HashMap<String, Preparation>) -> Self {
        let runtimes = runtimes.into_iter().map(|(id, p)| (id, Mutex::new(State::Due(p, None)))).collect();
        Self { backend, runtimes }
    }

    async fn make_ready(&self, runtime: &str) -> Result<(), SandboxError> {
        let Some(state) = self.runtimes.get(runtime) else { return Ok(()) };
        // Whoever comes second waits for the first.
        let mut state = state.lock().await;
        let State::Due(preparation, failed) = &mut *state else { return Ok(()) };
        if let Some((at, why)) = failed
            && at.elapsed() < PAUSE
        {
            return Err(SandboxError::NoRuntime(runtime.to_owned(), why.clone()));
        }
        let begun = Instant::now();
        match preparation.run().await {
            Ok(()) => {
                tracing::info!(runtime, took_ms = begun.elapsed().as_millis() as u64, "prepared a runtime");
                *state = State::Done;
                Ok(())
            }
            Err(why) => {
                *failed = Some((Instant::now(), why.clone()));
                Err(SandboxError::NoRuntime(runtime.to_owned(), why))
            }
        }
    }
}

#[async_trait]
impl<B: Backend> Backend for Preparing<B> {
    async fn prepare(&self, runtime: &str) -> Result<Box<dyn Instance>, SandboxError> {
        self.make_ready(runtime).await?;
        self.backend.prepare(runtime).await
    }

    async fn fork(&self, template: &dyn Instance) -> Result<Box<dyn Instance>, SandboxError> {
        self.backend.fork(template).await
    }

    fn guarantees(&self) -> Vec<(String, Result<String, String>)> {
        self.backend.guarantees()
    }

    async fn stop(&self) {
        self.backend.stop().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(dir: &std::path::Path, script: &str) -> Preparation {
        let words = ["/bin/sh", "-ec", script, "sh", "{prepared}"].map(str::to_owned).to_vec();
        Preparation { commands: vec![words], dir: dir.to_owned(), stamp: None }
    }

    #[tokio::test]
    async fn what_is_made_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let why = shell(dir.path(), "echo half > $1/file; echo no more >&2; exit 3").run().await.unwrap_err();
        assert!(why.contains("no more") && why.contains('3'), "{why}");
        assert!(!dir.path().join(PREPARED).exists());
        for text in ["one", "two"] {
            shell(dir.path(), &format!("test ! -e $1/file; echo {text} > $1/file")).run().await.unwrap();
            let made = std::fs::read_to_string(dir.path().join(PREPARED).join("file")).unwrap();
            assert_eq!(made.trim(), text);
        }
        let stamped =
            |stamp: &str, script: &str| Preparation { stamp: Some(stamp.into()), ..shell(dir.path(), script) };
        stamped("a", "true").run().await.unwrap();
        stamped("a", "false").run().await.unwrap();
        stamped("b", "false").run().await.unwrap_err();
        assert!(shell(dir.path(), "").commands.len() == 1 && shell(dir.path(), "").run().await.is_ok());
    }

    #[tokio::test]
    async fn each_runtime_is_prepared_once_and_a_failure_is_told_to_all() {
        let dir = tempfile::tempdir().unwrap();
        let count = |name: &str| std::fs::read_to_string(dir.path().join(name)).map_or(0, |t| t.lines().count());
        let counting = |name: &str, end: &str| {
            shell(
                &dir.path().join(name),
                &format!("echo x >> {}; exit {end}", dir.path().join(name.to_owned() + ".n").display()),
            )
        };
        let all = HashMap::from([("good".to_owned(), counting("good", "0")), ("bad".to_owned(), counting("bad", "1"))]);
        let backend = Preparing::new((), all);
        for _ in 0..3 {
            backend.make_ready("good").await.unwrap();
            assert!(matches!(backend.make_ready("bad").await, Err(SandboxError::NoRuntime(name, _)) if name == "bad"));
            backend.make_ready("unknown").await.unwrap();
        }
        assert_eq!((count("good.n"), count("bad.n")), (1, 1));
    }
}
