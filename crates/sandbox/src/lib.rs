//! `Backend` and `Instance`: what a node needs of a sandbox, the process sandbox behind it, and a fake.
//!
//! The process sandbox is made of three parts: [`process`] is the node's side, [`spawner`] the one process in which forks
//! happen, and the init process of each sandbox. `docs/sandbox.md` tells how they work together and what is promised.

pub mod cgroup;
pub mod doctor;
mod door;
pub mod fake;
pub mod net;
pub mod process;
pub mod seccomp;
pub mod spawner;
mod sys;
pub mod wire;

use async_trait::async_trait;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
pub use wire::{Binding, Mount, Workspace};

/// Why a sandbox could not be made or used. The node's log shows it; clients see a status code.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The backend has no such runtime.
    #[error("runtime `{0}` is not available: {1}")]
    NoRuntime(String, String),
    /// The machine refused a step.
    #[error("{what}: {reason}")]
    Failed {
        /// The step.
        what: &'static str,
        /// What the machine said.
        reason: String,
    },
    /// The backend has stopped.
    #[error("the sandbox backend has stopped")]
    Stopped,
}

impl SandboxError {
    pub(crate) fn io(what: &'static str, error: &io::Error) -> Self {
        Self::Failed { what, reason: error.to_string() }
    }
}

/// A kind of isolation. Object-safe; one contract suite (`tests/contract.rs`) for all.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Makes a sandbox in which a process of `runtime` waits to be bound (for custom runtimes: in which nothing runs yet).
    async fn prepare(&self, runtime: &str) -> Result<Box<dyn Instance>, SandboxError>;

    /// Makes a sandbox with a fork of the process in `template`, which must have answered READY with a sound verdict.
    async fn fork(&self, template: &dyn Instance) -> Result<Box<dyn Instance>, SandboxError>;

    /// What holds in this backend's sandboxes, as lines for people: (guarantee, how or why not).
    fn guarantees(&self) -> Vec<(String, Result<String, String>)>;

    /// Ends every sandbox and cleans up. Further calls answer [`SandboxError::Stopped`].
    async fn stop(&self);
}

/// One sandbox. Dropping it kills everything in it and removes it.
#[async_trait]
pub trait Instance: Send + Sync {
    /// Its number, unique in the life of the backend.
    fn id(&self) -> u64;

    /// Makes it a function's: code and layers appear, limits hold. Once, before any user code runs.
    async fn bind(&self, binding: Binding) -> Result<(), SandboxError>;

    /// As [`Self::bind`], for a sandbox in which something is built: only one without a process of ours (custom runtimes). Returns its `/tmp`,
    /// a directory that outlives the sandbox for as long as the descriptor is open. What is in it was written by user code.
    async fn bind_workspace(&self, binding: Binding, workspace: Workspace) -> Result<OwnedFd, SandboxError>;

    /// Starts the function's own program (custom runtimes). `environment` holds `K=V` texts.
    async fn launch(&self, argv: Vec<String>, environment: Vec<String>) -> Result<(), SandboxError>;

    /// The stream to the shim (frames of `mayfly_guest`). Once; custom runtimes have none.
    fn take_stream(&mut self) -> Option<OwnedFd>;

    /// The read end of the pipe that holds what is printed. Once.
    fn take_output(&mut self) -> Option<OwnedFd>;

    /// A listening TCP socket on the sandbox's loopback, port [`wire::RUNTIME_API_PORT`]. Once; only custom runtimes have it.
    fn take_listener(&mut self) -> Option<OwnedFd>;

    /// A TCP socket of the sandbox's network, not connected, non-blocking: the way to what listens on its loopback. Only sandboxes for
    /// custom runtimes have it.
    async fn open_socket(&self) -> Result<OwnedFd, SandboxError>;

    /// Sockets at [`wire::SERVICES_ADDRESS`] of the sandbox's own network, non-blocking: a listener for HTTP, and one for names. They are
    /// served from outside, so nothing of the platform runs inside and no link is needed. Once, and only where the binding (of a fork: its
    /// template's) said `inside`.
    async fn listen_inside(&self) -> Result<(TcpListener, UdpSocket), SandboxError>;

    /// Kills everything in it, at once. It may be called again.
    fn kill(&self);

    /// Asks every process in it to end (SIGTERM). Those that do not listen go on.
    fn terminate(&self);

    /// Peak memory so far, in bytes; 0 when it cannot be told.
    fn memory_peak_bytes(&self) -> u64;

    /// True when something in it was killed for want of memory.
    fn ran_out_of_memory(&self) -> bool;

    /// For [`Backend::fork`] of the same backend.
    fn as_any(&self) -> &dyn std::any::Any;
}
