//! The process sandbox, seen from the node: a handle to the spawner process.

use crate::cgroup::oom_kills;
use crate::sys;
use crate::wire::{Binding, Envelope, MESSAGE_BYTES_MAX, Reply, Request, SpawnerConfig, Started, Workspace};
use crate::{Backend, Instance, SandboxError};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

/// How long the spawner may take for its start: it starts zygotes, and may have to clear away what a killed platform left.
const START_PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

type Answer = (Reply, Vec<OwnedFd>);
type Waiting = Mutex<HashMap<u64, oneshot::Sender<Answer>>>;

struct Shared {
    socket: AsyncFd<OwnedFd>,
    waiting: Waiting,
    stopped: AtomicBool,
    /// Told when the spawner is gone.
    ended: tokio::sync::Notify,
    next: AtomicU64,
    next_shell: AtomicU64,
}

/// The process backend. Cloning gives another handle to the same spawner.
#[derive(Clone)]
pub struct ProcessBackend {
    shared: Arc<Shared>,
    started: Arc<Started>,
    config: Arc<SpawnerConfig>,
    child: Arc<tokio::sync::Mutex<Option<tokio::process::Child>>>,
}

impl ProcessBackend {
    /// Starts the spawner: `command` with the socket as its standard input must call [`crate::spawner::main`].
    pub async fn start(mut command: std::process::Command, config: SpawnerConfig) -> Result<Self, SandboxError> {
        let failed = |e: io::Error| SandboxError::io("start the spawner", &e);
        let (ours, theirs) = sys::socket_pair(libc::SOCK_SEQPACKET).map_err(failed)?;
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null());
        let child = tokio::process::Command::from(command).spawn().map_err(failed)?;
        let bytes = serde_json::to_vec(&config).map_err(|e| failed(e.into()))?;
        sys::send_with_fds(ours.as_fd(), &bytes, &[], false).map_err(failed)?;
        // SAFETY: the socket belongs to `Shared` alone, which neither closes nor replaces it while it is registered.
        let socket = unsafe { AsyncFd::register(ours) }.map_err(|e| failed(e.into()))?;
        let shared = Arc::new(Shared {
            socket,
            waiting: Mutex::default(),
            stopped: AtomicBool::new(false),
            ended: tokio::sync::Notify::new(),
            next: AtomicU64::new(1),
            next_shell: AtomicU64::new(1),
        });
        let first = tokio::time::timeout(START_PATIENCE, shared.receive())
            .await
            .map_err(|_| SandboxError::Failed { what: "start the spawner", reason: "it does not answer".into() })?;
        let Some((bytes, _)) = first.map_err(failed)? else {
            return Err(SandboxError::Failed { what: "start the spawner", reason: "it ended at once".into() });
        };
        let started: Started = serde_json::from_slice(&bytes).map_err(|e| failed(e.into()))?;
        if let Some(error) = &started.error {
            return Err(SandboxError::Failed { what: "start the spawner", reason: error.clone() });
        }
        tokio::spawn(Arc::clone(&shared).dispatch());
        let child = Arc::new(tokio::sync::Mutex::new(Some(child)));
        Ok(Self { shared, started: Arc::new(started), config: Arc::new(config), child })
    }

    /// Waits until the spawner is gone. Every sandbox has gone with it; there is nothing to repair, the platform has to start anew.
    /// For one waiter.
    pub async fn ended(&self) {
        self.shared.ended.notified().await;
    }

    /// Removes the control groups, links and rules that a spawner which died has left. After [`Self::ended`].
    ///
    /// # Errors
    /// When something could not be removed; the next start on this data directory will try again.
    pub async fn clear_away(&self) -> Result<(), SandboxError> {
        let config = Arc::clone(&self.config);
        let cleared = tokio::task::spawn_blocking(move || crate::spawner::clear_away(&config)).await;
        cleared
            .map_err(io::Error::other)
            .and_then(|result| result)
            .map_err(|e| SandboxError::io("clear away what the spawner left", &e))
    }

    /// What all sandboxes hold now, page cache included, in bytes. `None`: nobody counts it.
    pub fn memory_bytes(&self) -> Option<u64> {
        crate::cgroup::used_memory(&self.config.id)
    }

    /// What the spawner said of itself.
    pub fn started(&self) -> &Started {
        &self.started
    }
}

impl Shared {
    async fn receive(&self) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        loop {
            let mut ready = self.socket.readable().await?;
            match ready.try_io(|fd| sys::receive_with_fds(fd.get_ref().as_fd(), &mut buffer, true)) {
                Ok(Ok(Some((n, fds)))) => {
                    buffer.truncate(n);
                    return Ok(Some((buffer, fds)));
                }
                Ok(Ok(None)) => return Ok(None),
                Ok(Err(e)) => return Err(e),
                Err(_would_block) => {}
            }
        }
    }

    async fn dispatch(self: Arc<Self>) {
        while let Ok(Some((bytes, fds))) = self.receive().await {
            let Ok(reply) = serde_json::from_slice::<Reply>(&bytes) else { break };
            if let Some(waiter) = self.waiting.lock().remove(&reply.seq) {
                // A waiter that has gone away drops the descriptors; its sandbox is destroyed by the guard it held.
                let _ = waiter.send((reply, fds));
            }
        }
        self.stopped.store(true, Ordering::Release);
        self.waiting.lock().clear();
        self.ended.notify_one();
    }

    fn post(&self, request: Request) -> Result<(u64, oneshot::Receiver<Answer>, Vec<u8>), SandboxError> {
        if self.stopped.load(Ordering::Acquire) {
            return Err(SandboxError::Stopped);
        }
        let seq = self.next.fetch_add(1, Ordering::Relaxed);
        let bytes = serde_json::to_vec(&Envelope { seq, request })
            .map_err(|e| SandboxError::Failed { what: "ask the spawner", reason: e.to_string() })?;
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().insert(seq, sender);
        Ok((seq, receiver, bytes))
    }

    async fn call(&self, what: &'static str, request: Request) -> Result<Vec<(String, OwnedFd)>, SandboxError> {
        let (seq, receiver, bytes) = self.post(request)?;
        loop {
            match sys::send_with_fds(self.socket.get_ref().as_fd(), &bytes, &[], true) {
                Ok(()) => break,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    let mut ready = self.socket.writable().await.map_err(|e| SandboxError::io(what, &e))?;
                    ready.clear_ready();
                }
                Err(e) => {
                    self.waiting.lock().remove(&seq);
                    return Err(SandboxError::io(what, &e));
                }
            }
        }
        let (reply, fds) = receiver.await.map_err(|_| SandboxError::Stopped)?;
        match reply.error {
            Some(reason) => Err(SandboxError::Failed { what, reason }),
            None => Ok(reply.fds.into_iter().zip(fds).collect()),
        }
    }

    /// Sends a Destroy without waiting for room or for the answer. The socket's buffer holds hundreds of these.
    fn destroy(self: &Arc<Self>, shell: u64) {
        let Ok((seq, _, bytes)) = self.post(Request::Destroy { shell }) else { return };
        self.waiting.lock().remove(&seq);
        match sys::send_with_fds(self.socket.get_ref().as_fd(), &bytes, &[], true) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                    let shared = Arc::clone(self);
                    runtime.spawn(async move { shared.call("destroy a sandbox", Request::Destroy { shell }).await });
                }
            }
            _ => {}
        }
    }
}

/// Destroys a sandbox unless it came into an instance's hands.
struct Guard {
    shared: Arc<Shared>,
    shell: u64,
    armed: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.armed {
            self.shared.destroy(self.shell);
        }
    }
}

#[async_trait]
impl Backend for ProcessBackend {
    async fn prepare(&self, runtime: &str) -> Result<Box<dyn Instance>, SandboxError> {
        if let Some((name, why)) = self.started.runtime_errors.iter().find(|(name, _)| name == runtime) {
            return Err(SandboxError::NoRuntime(name.clone(), why.clone()));
        }
        let shell = self.shared.next_shell.fetch_add(1, Ordering::Relaxed);
        self.make("prepare a sandbox", shell, Request::Prepare { shell, runtime: runtime.to_owned() }).await
    }

    async fn fork(&self, template: &dyn Instance) -> Result<Box<dyn Instance>, SandboxError> {
        let template = template.as_any().downcast_ref::<ProcessInstance>().ok_or_else(|| SandboxError::Failed {
            what: "fork a template",
            reason: "it belongs to another backend".into(),
        })?;
        let shell = self.shared.next_shell.fetch_add(1, Ordering::Relaxed);
        self.make("fork a template", shell, Request::Fork { shell, template: template.guard.shell }).await
    }

    fn guarantees(&self) -> Vec<(String, Result<String, String>)> {
        let mut lines = vec![
            ("namespaces".to_owned(), Ok("user, pid, mount, net, ipc, uts, cgroup".to_owned())),
            ("control groups".to_owned(), Ok(format!("version {}", self.started.cgroup_version))),
            ("seccomp".to_owned(), Ok("default-deny filter".to_owned())),
            (
                "landlock".to_owned(),
                if self.started.landlock { Ok("in force".into()) } else { Err("this kernel has none".into()) },
            ),
            (
                "network".to_owned(),
                self.started.network_error.clone().map_or_else(|| Ok("a link per instance".into()), Err),
            ),
        ];
        lines.extend(self.started.runtime_errors.iter().map(|(r, e)| (format!("runtime {r}"), Err(e.clone()))));
        lines
    }

    async fn stop(&self) {
        self.shared.stopped.store(true, Ordering::Release);
        // The spawner takes the end of the connection as its order to clean up and go.
        // SAFETY: shuts a socket down; takes no pointers.
        unsafe { libc::shutdown(std::os::fd::AsRawFd::as_raw_fd(self.shared.socket.get_ref()), libc::SHUT_RDWR) };
        if let Some(mut child) = self.child.lock().await.take() {
            let _ = child.wait().await;
        }
    }
}

impl ProcessBackend {
    async fn make(&self, what: &'static str, shell: u64, request: Request) -> Result<Box<dyn Instance>, SandboxError> {
        let mut guard = Guard { shared: Arc::clone(&self.shared), shell, armed: true };
        let named = match self.shared.call(what, request).await {
            Ok(named) => named,
            Err(e) => {
                guard.armed = false;
                return Err(e);
            }
        };
        let mut instance = ProcessInstance {
            init: None,
            stream: None,
            output: None,
            listener: None,
            net: None,
            door: Mutex::default(),
            peak: None,
            oom: None,
            guard,
        };
        for (name, fd) in named {
            match name.as_str() {
                "init" => instance.init = Some(fd),
                "stream" => instance.stream = Some(fd),
                "output" => instance.output = Some(fd),
                "listener" => instance.listener = Some(fd),
                "net" => instance.net = Some(Arc::new(fd)),
                "door" => *instance.door.get_mut() = Some(fd),
                "memory_peak" => instance.peak = Some(File::from(fd)),
                "oom" => instance.oom = Some(File::from(fd)),
                _ => {}
            }
        }
        Ok(Box::new(instance))
    }
}

/// One sandbox of the process backend.
pub struct ProcessInstance {
    init: Option<OwnedFd>,
    stream: Option<OwnedFd>,
    output: Option<OwnedFd>,
    listener: Option<OwnedFd>,
    /// Its network, kept for the way to a program that listens.
    net: Option<Arc<OwnedFd>>,
    /// Its network, until the platform's services listen in it.
    door: Mutex<Option<OwnedFd>>,
    peak: Option<File>,
    oom: Option<File>,
    guard: Guard,
}

fn read_small(file: &File) -> String {
    let mut buffer = [0; 1024];
    let n = file.read_at(&mut buffer, 0).unwrap_or(0);
    String::from_utf8_lossy(&buffer[..n]).into_owned()
}

#[async_trait]
impl Instance for ProcessInstance {
    fn id(&self) -> u64 {
        self.guard.shell
    }

    async fn bind(&self, binding: Binding) -> Result<(), SandboxError> {
        let request = Request::Bind { shell: self.guard.shell, binding, workspace: None };
        let named = self.guard.shared.call("bind a sandbox", request).await?;
        *self.door.lock() = named.into_iter().find(|(name, _)| name == "door").map(|(_, fd)| fd);
        Ok(())
    }

    async fn bind_workspace(&self, binding: Binding, workspace: Workspace) -> Result<OwnedFd, SandboxError> {
        let what = "bind a sandbox to build in";
        let request = Request::Bind { shell: self.guard.shell, binding, workspace: Some(workspace) };
        let named = self.guard.shared.call(what, request).await?;
        let found = named.into_iter().find(|(name, _)| name == "workspace");
        found.map(|(_, fd)| fd).ok_or_else(|| SandboxError::Failed { what, reason: "it has no workspace".into() })
    }

    async fn launch(&self, argv: Vec<String>, environment: Vec<String>) -> Result<(), SandboxError> {
        let request = Request::Launch { shell: self.guard.shell, argv, environment };
        self.guard.shared.call("start the program", request).await.map(drop)
    }

    fn take_stream(&mut self) -> Option<OwnedFd> {
        self.stream.take()
    }

    fn take_output(&mut self) -> Option<OwnedFd> {
        self.output.take()
    }

    fn take_listener(&mut self) -> Option<OwnedFd> {
        self.listener.take()
    }

    async fn open_socket(&self) -> Result<OwnedFd, SandboxError> {
        let net = self.net.clone().ok_or_else(|| SandboxError::Failed {
            what: "open a socket in the sandbox",
            reason: "it was not made for a program that listens".into(),
        })?;
        crate::door::socket_in(net).await.map_err(|e| SandboxError::io("open a socket in the sandbox", &e))
    }

    async fn listen_inside(&self) -> Result<(TcpListener, UdpSocket), SandboxError> {
        let what = "listen in the sandbox";
        let door = self.door.lock().take();
        let door = door.ok_or_else(|| SandboxError::Failed { what, reason: "it was not bound for that".into() })?;
        crate::door::listen_in(Arc::new(door)).await.map_err(|e| SandboxError::io(what, &e))
    }

    fn kill(&self) {
        if let Some(init) = &self.init {
            let _ = sys::pidfd_kill(init.as_fd(), libc::SIGKILL);
        }
    }

    fn terminate(&self) {
        if let Some(pid) = self.init.as_ref().and_then(|init| sys::pidfd_pid(init.as_fd())) {
            terminate_beside(pid);
        }
    }

    fn memory_peak_bytes(&self) -> u64 {
        self.peak.as_ref().and_then(|f| read_small(f).trim().parse().ok()).unwrap_or(0)
    }

    fn ran_out_of_memory(&self) -> bool {
        self.oom.as_ref().is_some_and(|f| oom_kills(&read_small(f)) > 0)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// Sends SIGTERM to every process in the pid namespace of `init` but `init` itself. By namespace and not by descent: the parent of a forked
/// instance is the template that it was forked from.
fn terminate_beside(init: i32) {
    let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(of_init) = namespace(init) else { return };
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if pid == init || namespace(pid).as_ref() != Some(&of_init) {
            continue;
        }
        // Looked at again once there is a descriptor of it: between the two looks its number may have become another's.
        if let Ok(process) = sys::pidfd_open(pid)
            && namespace(pid).as_ref() == Some(&of_init)
        {
            let _ = sys::pidfd_kill(process.as_fd(), libc::SIGTERM);
        }
    }
}

/// Where the interpreter of a runtime is, if it is where sandboxes can see it.
pub fn find_interpreter(candidates: &[String]) -> Option<String> {
    candidates.iter().find(|c| c.starts_with("/usr/") && Path::new(c).is_file()).cloned()
}
