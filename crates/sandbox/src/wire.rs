//! Messages between the node, its spawner, and the init process of each sandbox. All are JSON on `SOCK_SEQPACKET` sockets, with
//! descriptors attached.

use crate::net::{Endpoint, NetOptions};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Longest message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 128 * 1024;

/// How the processes of a runtime come to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// Forked from a zygote: a process that has the runtime in memory.
    Fork,
    /// Started from scratch inside a sandbox, ahead of need; waits for a function.
    Exec,
    /// The function's own program; nothing of ours runs in the sandbox but its init.
    Bootstrap,
}

/// A runtime as the spawner needs it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RuntimeConfig {
    /// Name of its folder.
    pub id: String,
    /// How its processes come to be.
    pub start: Start,
    /// The zygote's command line, on the host ([`Start::Fork`]).
    pub zygote: Vec<String>,
    /// The shim's command line, inside the sandbox ([`Start::Exec`]).
    pub command: Vec<String>,
}

/// The spawner's settings, its first message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SpawnerConfig {
    /// Six characters that tell this platform's cgroups, links and rules from others' on the machine.
    pub id: String,
    /// A directory of the platform's own, for the sandbox root and the filters.
    pub run_dir: PathBuf,
    /// A directory shared by all platforms on the machine, for locks.
    pub lock_dir: PathBuf,
    /// The folder of runtimes on the host, shown in every sandbox at `/var/runtime`.
    pub runtimes_dir: PathBuf,
    /// The runtimes to offer.
    pub runtimes: Vec<RuntimeConfig>,
    /// Network settings; `None` leaves every sandbox with its loopback only.
    pub network: Option<NetOptions>,
}

/// What holds in this spawner's sandboxes, its answer to the settings.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Started {
    /// Set when the spawner cannot work at all.
    pub error: Option<String>,
    /// Version of the control groups in use.
    pub cgroup_version: u8,
    /// Why instances have no network, when they have none though it was asked for.
    pub network_error: Option<String>,
    /// Whether Landlock is in force.
    pub landlock: bool,
    /// Runtimes whose zygote did not come up, with the reason.
    pub runtime_errors: Vec<(String, String)>,
    /// Groups, links and processes of an earlier, killed platform that were cleared away.
    pub swept: usize,
}

/// A directory shown in a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Directories on the host; of several, the first is on top.
    pub sources: Vec<PathBuf>,
    /// Where in the sandbox: `/var/user` or `/opt`.
    pub target: String,
}

/// What turns a waiting sandbox into one of a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Code and layers.
    pub mounts: Vec<Mount>,
    /// Memory limit, in MB; the CPU share follows from it.
    pub memory_mb: u32,
    /// Whether connections to outside are possible.
    pub egress: bool,
    /// Whether the platform's services are to be reached from inside: see [`crate::Instance::listen_inside`].
    #[serde(default)]
    pub inside: bool,
}

/// What a sandbox gets in which something is built: a larger `/tmp` whose content the node may look at. Its memory limit grows by what
/// `/tmp` may hold, since that is memory too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workspace {
    /// What `/tmp` may hold, in MB.
    pub disk_mb: u32,
    /// Files, links and directories that `/tmp` may hold.
    pub files_max: u32,
    /// Processes and threads at a time.
    pub pids_max: u32,
}

/// What the node asks of the spawner.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Make a sandbox with a waiting process of a runtime.
    Prepare {
        /// The number the node gives it; never reused.
        shell: u64,
        /// Name of the runtime's folder.
        runtime: String,
    },
    /// Make it a function's.
    Bind {
        /// Which sandbox.
        shell: u64,
        /// To what.
        binding: Binding,
        /// Set when something is to be built in it; the answer then carries the descriptor `workspace`.
        #[serde(default)]
        workspace: Option<Workspace>,
    },
    /// Start the function's own program ([`Start::Bootstrap`]).
    Launch {
        /// Which sandbox.
        shell: u64,
        /// Its command line.
        argv: Vec<String>,
        /// Its environment, as `K=V`.
        environment: Vec<String>,
    },
    /// Make another sandbox beside a template's, with a fork of its process.
    Fork {
        /// Number of the new sandbox.
        shell: u64,
        /// The template's.
        template: u64,
    },
    /// Kill everything in a sandbox and remove it.
    Destroy {
        /// Which sandbox.
        shell: u64,
    },
}

/// A request with its number.
#[derive(Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// Told again in the answer.
    pub seq: u64,
    /// What is asked.
    pub request: Request,
}

/// The spawner's answer. The descriptors attached are named in `fds`, in order.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reply {
    /// Number of the request.
    pub seq: u64,
    /// Why it failed; `None`: done.
    pub error: Option<String>,
    /// Names of the attached descriptors.
    pub fds: Vec<String>,
}

/// What the spawner asks of a sandbox's init.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum InitRequest {
    /// Build the root and the network from the host's side. The first message of a sandbox of its own.
    Build {
        /// The prepared root on the host.
        root: PathBuf,
        /// Its side of the link.
        endpoint: Option<Endpoint>,
        /// The machine's name inside.
        hostname: String,
        /// Listen for the runtime API on the loopback.
        listen: bool,
    },
    /// Build from the parent sandbox's view. The first message of a sandbox beside a template's.
    BuildNested {
        /// Its side of the link.
        endpoint: Option<Endpoint>,
        /// The machine's name inside.
        hostname: String,
    },
    /// Attach the trees whose descriptors are attached.
    Mounts {
        /// Where.
        targets: Vec<String>,
    },
    /// Give `/tmp` another size. The answer carries a descriptor of it, `workspace`.
    Workspace {
        /// What it may hold, in bytes.
        bytes: u64,
        /// Files, links and directories that it may hold.
        files_max: u32,
    },
    /// Take the link down.
    NoEgress,
    /// Run a program; descriptors attached: stream (or none), output.
    Launch {
        /// Its command line.
        argv: Vec<String>,
        /// Its environment, as `K=V`.
        environment: Vec<String>,
        /// Working directory.
        cwd: String,
    },
    /// Clone another init with namespaces of its own. Attached: its control socket, and the `cgroup.procs` files of its group and of
    /// this one's. The answer carries its pidfd.
    Nest,
}

/// The init's answer. Attached: what the request calls for.
#[derive(Debug, Serialize, Deserialize)]
pub struct InitReply {
    /// Why it failed; `None`: done.
    pub error: Option<String>,
    /// Names of the attached descriptors.
    pub fds: Vec<String>,
}

/// Inside the sandbox: the address on its loopback at which the platform's services are reached, where a function may have them: HTTP on
/// [`SERVICES_PORT`], names on [`NAMES_PORT`].
pub const SERVICES_ADDRESS: std::net::Ipv4Addr = std::net::Ipv4Addr::new(127, 0, 0, 8);
/// Ports below 1024 are closed to functions, so that none of theirs can be in the way.
pub const SERVICES_PORT: u16 = 80;
/// See [`SERVICES_ADDRESS`].
pub const NAMES_PORT: u16 = 53;
/// The domain of the services' names. `.internal` is set aside for private use.
pub const SERVICES_DOMAIN: &str = "mayfly.internal";
/// The services, each a name below [`SERVICES_DOMAIN`].
pub const SERVICES: [&str; 5] = ["scf", "tdmq", "cos", "s3", "cmq"];

/// Inside the sandbox: the port of the runtime API on the loopback.
pub const RUNTIME_API_PORT: u16 = 28902;
/// Inside the sandbox: the user that functions run as.
pub const GUEST_UID: u32 = 1000;
