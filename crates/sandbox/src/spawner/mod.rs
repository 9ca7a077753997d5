//! The spawner: the one process in which forks and clones happen. Single-threaded, no async, a few hundred kilobytes.
//!
//! It takes requests from the node on one socket, in order, and answers each; a fork may have to wait for a sandbox, and is
//! answered when that is there. It trusts the node, the zygotes and the init of each sandbox, but it never waits for a sandbox that
//! user code has run in. When the node goes away, however, it kills and removes
//! everything it has made, and ends.

mod init;
mod root;
mod shell;
mod zygote;

use crate::cgroup::{Layout, Parent};
use crate::net::{self, Network};
use crate::seccomp::{self, Profile};
use crate::sys;
use crate::wire::{Envelope, MESSAGE_BYTES_MAX, Reply, Request, RuntimeConfig, SpawnerConfig, Start, Started};
use shell::{Remains, Shell};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use zygote::Zygote;

/// How long a trusted process may take for one step before it counts as broken.
const TRUSTED_STEP: Duration = Duration::from_secs(5);
/// How often deadlines of what is under way are looked at, in milliseconds.
const LOOK_EVERY_MS: i32 = 50;
/// How often remains of sandboxes are looked at, in milliseconds.
const BURY_EVERY_MS: i32 = 5;
/// Forks that may wait for one template's sandboxes. More are refused at once.
const WAITING_FORKS_MAX: usize = 1024;

pub(crate) type Named = Vec<(&'static str, OwnedFd)>;

/// Everything the spawner keeps.
struct Spawner {
    config: SpawnerConfig,
    root: PathBuf,
    cgroups: Parent,
    network: Option<Network>,
    zygotes: HashMap<String, Zygote>,
    shells: HashMap<u64, Shell>,
    /// Sandboxes whose init has been killed and whose group is not empty yet.
    dying: Vec<Remains>,
    /// Templates whose init makes a sandbox for another fork, with the requests that wait for it.
    nesting: HashMap<u64, VecDeque<WaitingFork>>,
    /// Templates that should get a spare sandbox for their next fork when there is nothing else to do.
    want_spare: VecDeque<u64>,
    /// Numbers for sandboxes beside templates: they are begun before it is known which fork they are for.
    next_nested: u64,
    /// Held for as long as anything of this platform may exist.
    _lock: std::fs::File,
}

/// A fork that was asked for and waits for its sandbox.
struct WaitingFork {
    seq: u64,
    number: u64,
}

/// Runs the spawner on the socket `node`. Returns when the node is gone and everything is cleaned up.
pub fn run(node: OwnedFd) -> io::Result<()> {
    // SAFETY: setsid, signal: no pointers. A terminal's Ctrl-C is for the node, which then tells us.
    unsafe {
        libc::setsid();
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        libc::signal(libc::SIGTERM, libc::SIG_IGN);
        libc::signal(libc::SIGINT, libc::SIG_IGN);
    }
    raise_open_files();
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    let Some((n, _)) = sys::receive_with_fds(node.as_fd(), &mut buffer, false)? else { return Ok(()) };
    let config: SpawnerConfig = serde_json::from_slice(&buffer[..n]).map_err(io::Error::other)?;
    let (mut spawner, started) = match Spawner::start(config) {
        Ok(both) => both,
        Err(e) => {
            let started = Started { error: Some(e.to_string()), ..Started::default() };
            return send(node.as_fd(), &started, &[]);
        }
    };
    send(node.as_fd(), &started, &[])?;
    let result = spawner.serve(&node, &mut buffer);
    spawner.stop();
    result
}

fn send<T: serde::Serialize>(socket: BorrowedFd<'_>, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    sys::send_with_fds(socket, &serde_json::to_vec(message).map_err(io::Error::other)?, fds, false)
}

fn reply(node: &OwnedFd, seq: u64, result: io::Result<Named>) -> io::Result<()> {
    let (error, named) = match result {
        Ok(named) => (None, named),
        Err(e) => (Some(e.to_string()), Named::new()),
    };
    let fds: Vec<BorrowedFd<'_>> = named.iter().map(|(_, fd)| fd.as_fd()).collect();
    let names = named.iter().map(|(name, _)| (*name).to_owned()).collect();
    send(node.as_fd(), &Reply { seq, error, fds: names }, &fds)
}

/// Removes what is left of a platform whose spawner died, with everything that still runs of it.
///
/// # Errors
/// When something could not be removed within a few seconds.
pub fn clear_away(config: &SpawnerConfig) -> io::Result<()> {
    let Some(layout) = Layout::detect() else { return Ok(()) };
    let _lock = take_over(config)?;
    let cgroups = Parent::create(layout, &crate::cgroup::parent_name(&config.id))?;
    let swept = cgroups.sweep(Instant::now() + TRUSTED_STEP);
    cgroups.remove();
    net::sweep(&config.id);
    let _ = std::fs::remove_dir_all(&config.run_dir);
    swept.map(drop)
}

impl Spawner {
    fn start(config: SpawnerConfig) -> io::Result<(Self, Started)> {
        let layout = Layout::detect().ok_or_else(|| {
            io::Error::other("control groups for memory, cpu and pids are not all mounted; see `mayfly doctor`")
        })?;
        // The spawner of a platform that was killed a moment ago may still be clearing away what bears our names.
        let lock = take_over(&config)?;
        let cgroup_version = layout.version();
        let cgroups = Parent::create(layout, &crate::cgroup::parent_name(&config.id))?;
        let mut swept = cgroups.sweep(Instant::now() + TRUSTED_STEP)?;
        swept += net::sweep(&config.id);

        std::fs::create_dir_all(&config.run_dir)?;
        // SAFETY: takes no pointers; this process has one thread.
        sys::check(i64::from(unsafe { libc::unshare(libc::CLONE_NEWNS) }))?;
        sys::mount(c"", std::path::Path::new("/"), c"", libc::MS_REC | libc::MS_PRIVATE, c"")?;
        if let Err(e) = favour_moves(&config.run_dir) {
            tracing::warn!(error = %e, "moves between control groups stay slow; cold starts take some milliseconds longer");
        }
        let root = root::build(&config)?;
        for (file, profile) in [("instance.bpf", Profile::Instance), ("template.bpf", Profile::Template)] {
            std::fs::write(config.run_dir.join(file), seccomp::program_bytes(profile))?;
        }
        let mut started = Started { cgroup_version, swept, landlock: landlock_version() > 0, ..Started::default() };
        let network = config.network.as_ref().and_then(|options| {
            Network::start(&config.id, options, &config.lock_dir)
                .map_err(|e| started.network_error = Some(e.to_string()))
                .ok()
        });
        let mut spawner = Self {
            root,
            cgroups,
            network,
            zygotes: HashMap::new(),
            shells: HashMap::new(),
            dying: Vec::new(),
            nesting: HashMap::new(),
            want_spare: VecDeque::new(),
            next_nested: 1 << 62,
            _lock: lock,
            config,
        };
        for runtime in spawner.config.runtimes.clone() {
            if runtime.start == Start::Fork
                && let Err(e) = spawner.start_zygote(&runtime)
            {
                started.runtime_errors.push((runtime.id, e.to_string()));
            }
        }
        Ok((spawner, started))
    }

    fn start_zygote(&mut self, runtime: &RuntimeConfig) -> io::Result<()> {
        let zygote = Zygote::start(&runtime.zygote, &self.config.run_dir)?;
        self.zygotes.insert(runtime.id.clone(), zygote);
        Ok(())
    }

    /// Serves the node until it is gone.
    fn serve(&mut self, node: &OwnedFd, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            match self.serve_once(node, buffer) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                // A node that was killed takes no leave.
                Err(e) if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                    return Ok(());
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Waits for something to do and does it. False: the node is gone.
    fn serve_once(&mut self, node: &OwnedFd, buffer: &mut [u8]) -> io::Result<bool> {
        self.bury();
        // With housekeeping to do, only look whether something waits; a request always comes first.
        let timeout = match () {
            () if !self.want_spare.is_empty() => 0,
            () if !self.dying.is_empty() => BURY_EVERY_MS,
            () if !self.nesting.is_empty() => LOOK_EVERY_MS,
            () => -1,
        };
        let sockets = self.nesting.keys().filter_map(|t| self.shells.get(t)?.nesting_socket());
        let sockets: Vec<BorrowedFd<'_>> = std::iter::once(node.as_fd()).chain(sockets).collect();
        let asked = sys::wait_any_readable(&sockets, timeout)?;
        self.finish_nests(node)?;
        if !asked {
            self.make_spare();
            return Ok(true);
        }
        let Some((n, _)) = sys::receive_with_fds(node.as_fd(), buffer, false)? else { return Ok(false) };
        let envelope: Envelope = serde_json::from_slice(&buffer[..n]).map_err(io::Error::other)?;
        if let Request::Bind { shell, .. } = &envelope.request {
            self.settle(*shell)?;
            self.finish_nests(node)?;
        }
        if let Some(result) = self.handle(envelope.seq, envelope.request).transpose() {
            reply(node, envelope.seq, result)?;
        }
        Ok(true)
    }

    /// Waits for the spare that a sandbox's init is making: its next order must find it free. No user code runs there yet.
    fn settle(&self, number: u64) -> io::Result<()> {
        if let Some(socket) = self.shells.get(&number).and_then(Shell::nesting_socket) {
            sys::wait_readable(socket, TRUSTED_STEP.as_millis() as i32)?;
        }
        Ok(())
    }

    /// Does what is asked. `None`: the answer follows later.
    fn handle(&mut self, seq: u64, request: Request) -> io::Result<Option<Named>> {
        match request {
            Request::Prepare { shell, runtime } => self.prepare(shell, &runtime).map(Some),
            Request::Bind { shell, binding, workspace } => {
                let shell = self.shells.get_mut(&shell).ok_or_else(unknown)?;
                shell.bind(&binding)?;
                match workspace {
                    Some(workspace) => shell.become_workspace(&binding, workspace, self.network.as_mut()).map(Some),
                    None if binding.inside => Ok(Some(vec![shell.door()?])),
                    None => Ok(Some(Named::new())),
                }
            }
            Request::Launch { shell, argv, environment } => {
                self.shells.get_mut(&shell).ok_or_else(unknown)?.launch_user_program(argv, environment)?;
                Ok(Some(Named::new()))
            }
            Request::Fork { shell, template } => self.fork(seq, shell, template),
            Request::Destroy { shell } => {
                self.destroy(shell);
                Ok(Some(Named::new()))
            }
        }
    }

    fn prepare(&mut self, number: u64, runtime: &str) -> io::Result<Named> {
        let runtime = self
            .config
            .runtimes
            .iter()
            .find(|r| r.id == runtime)
            .cloned()
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no runtime `{runtime}` here")))?;
        let mut shell =
            Shell::create(number, &self.root, &self.cgroups, self.network.as_mut(), runtime.start == Start::Bootstrap)?;
        let result = match runtime.start {
            Start::Bootstrap => Ok(()),
            Start::Exec => shell.launch_shim(runtime.command.clone()),
            Start::Fork => self.enter(&mut shell, &runtime),
        };
        if let Err(e) = result {
            self.kill(shell);
            return Err(e);
        }
        let named = shell.hand_over(false);
        if named.is_ok() {
            if runtime.start == Start::Fork {
                self.want_spare.push_back(number);
            }
            self.shells.insert(number, shell);
        } else {
            self.kill(shell);
        }
        named
    }

    /// Has the runtime's zygote fork into `shell`, starting the zygote anew when it has died.
    fn enter(&mut self, shell: &mut Shell, runtime: &RuntimeConfig) -> io::Result<()> {
        for attempt in 0..2 {
            if !self.zygotes.contains_key(&runtime.id) {
                self.start_zygote(runtime)?;
            }
            let zygote = &self.zygotes[&runtime.id];
            match shell.enter_from_zygote(zygote) {
                Err(e) if attempt == 0 && zygote.is_dead() => {
                    tracing::error!(error = %e, runtime = runtime.id, "the zygote died; starting another");
                    self.zygotes.remove(&runtime.id);
                }
                other => return other,
            }
        }
        unreachable!("the second attempt returns")
    }

    /// Forks a template into a sandbox made ahead, or has one made and lets the request wait for it.
    fn fork(&mut self, seq: u64, number: u64, template: u64) -> io::Result<Option<Named>> {
        let parent = self.shells.get_mut(&template).ok_or_else(unknown)?;
        if let Some(spare) = parent.spare.take() {
            return self.fork_into(*spare, number, template).map(Some);
        }
        if let Some(waiting) = self.nesting.get_mut(&template) {
            if waiting.len() >= WAITING_FORKS_MAX {
                return Err(io::Error::other("too many forks wait for this template"));
            }
            waiting.push_back(WaitingFork { seq, number });
            return Ok(None);
        }
        parent.begin_nest(self.next_nested, &self.cgroups)?;
        self.next_nested += 1;
        self.nesting.insert(template, VecDeque::from([WaitingFork { seq, number }]));
        Ok(None)
    }

    /// Has the template fork into `shell`, a sandbox beside its own.
    fn fork_into(&mut self, mut shell: Shell, number: u64, template: u64) -> io::Result<Named> {
        let Some(parent) = self.shells.get_mut(&template) else {
            self.dying.extend(shell.doomed());
            return Err(unknown());
        };
        parent.live_forks += 1;
        let inside = parent.wants_services();
        let named =
            parent.limit_by_forks().and_then(|()| parent.fork_into(&mut shell)).and_then(|()| shell.hand_over(inside));
        if named.is_err() {
            parent.live_forks -= 1;
            self.dying.extend(shell.doomed());
            return named;
        }
        // One fork is a first instance. A second one shows that the function scales out: be ready for a third.
        if parent.forks > 0 {
            self.want_spare.push_back(template);
        }
        parent.forks += 1;
        shell.template = Some(template);
        self.shells.insert(number, shell);
        named
    }

    /// Begins a sandbox for the next fork of a template that wants one.
    fn make_spare(&mut self) {
        let Some(number) = self.want_spare.pop_front() else { return };
        let Some(shell) = self.shells.get_mut(&number) else { return };
        if shell.spare.is_some() || !shell.can_nest() || self.nesting.contains_key(&number) {
            return;
        }
        match shell.begin_nest(self.next_nested, &self.cgroups) {
            Ok(()) => {
                self.next_nested += 1;
                self.nesting.insert(number, VecDeque::new());
            }
            Err(e) => tracing::warn!(error = %e, "no spare sandbox could be made"),
        }
    }

    /// Completes the sandboxes whose init has come, and answers the forks that waited for them.
    fn finish_nests(&mut self, node: &OwnedFd) -> io::Result<()> {
        let templates: Vec<u64> = self.nesting.keys().copied().collect();
        for template in templates {
            let made = match self.shells.get_mut(&template) {
                Some(parent) => parent.finish_nest(self.network.as_mut()),
                None => Some(Err((unknown(), None))),
            };
            let Some(made) = made else { continue };
            let Some(mut waiting) = self.nesting.remove(&template) else { continue };
            match made {
                Ok(shell) => match waiting.pop_front() {
                    Some(first) => {
                        let result = self.fork_into(shell, first.number, template);
                        reply(node, first.seq, result)?;
                    }
                    None => {
                        if let Some(parent) = self.shells.get_mut(&template) {
                            parent.spare = Some(Box::new(shell));
                        }
                    }
                },
                Err((e, remains)) => {
                    self.dying.extend(remains);
                    tracing::warn!(error = %e, "no sandbox could be made beside a template's");
                    if let Some(first) = waiting.pop_front() {
                        reply(node, first.seq, Err(e))?;
                    }
                }
            }
            for WaitingFork { seq, number } in waiting {
                match self.fork(seq, number, template) {
                    Ok(None) => {}
                    Ok(Some(named)) => reply(node, seq, Ok(named))?,
                    Err(e) => reply(node, seq, Err(e))?,
                }
            }
        }
        Ok(())
    }

    fn destroy(&mut self, number: u64) {
        if let Some(shell) = self.shells.remove(&number) {
            self.kill(shell);
        }
    }

    /// Kills a sandbox and all that came from it; its remains are removed by [`Self::bury`].
    fn kill(&mut self, shell: Shell) {
        if let Some(template) = shell.template.and_then(|number| self.shells.get_mut(&number)) {
            template.live_forks = template.live_forks.saturating_sub(1);
        }
        self.dying.extend(shell.doomed());
    }

    /// Reaps what has ended and removes the groups of sandboxes that are empty.
    fn bury(&mut self) {
        // SAFETY: reaps any ended child; takes no pointers.
        unsafe { while libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) > 0 {} }
        let network = &mut self.network;
        self.dying.retain(|remains| !remains.remove(network.as_mut()));
    }

    fn stop(&mut self) {
        for (_, shell) in std::mem::take(&mut self.shells) {
            self.kill(shell);
        }
        self.zygotes.clear();
        let deadline = Instant::now() + TRUSTED_STEP;
        loop {
            self.bury();
            if self.dying.is_empty() || Instant::now() > deadline {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = self.cgroups.sweep(deadline);
        self.cgroups.remove();
        if let Some(network) = &mut self.network {
            network.stop();
        }
        if let Ok(path) = sys::cstr(&self.root) {
            // SAFETY: detaches our own mount; a valid path.
            unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
        }
        let _ = std::fs::remove_dir_all(&self.config.run_dir);
    }
}

/// Tells the kernel that processes will be moved between control groups often.
///
/// Unasked, each move that comes after a pause waits for an RCU grace period: 8 ms here, more than all the rest of a cold start. The
/// setting belongs to the one root of version-2 groups, counts for version 1 too, and makes every fork on the machine a trifle
/// dearer. It outlasts us, because another platform may rely on it.
fn favour_moves(run_dir: &std::path::Path) -> io::Result<()> {
    if std::fs::read_to_string("/proc/self/mounts")?.lines().any(|l| l.contains("favordynmods")) {
        return Ok(());
    }
    let point = run_dir.join("cgroup2");
    std::fs::create_dir_all(&point)?;
    sys::mount(c"none", &point, c"cgroup2", 0, c"favordynmods")?;
    let path = sys::cstr(&point)?;
    // SAFETY: a valid path.
    sys::check(i64::from(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) }))?;
    std::fs::remove_dir(&point)
}

/// Waits until no other spawner works for this platform, and keeps further ones waiting.
fn take_over(config: &SpawnerConfig) -> io::Result<std::fs::File> {
    std::fs::create_dir_all(&config.lock_dir)?;
    let path = config.lock_dir.join(format!("spawner-{}.lock", config.id));
    let file = std::fs::File::options().create(true).truncate(false).write(true).open(path)?;
    let deadline = Instant::now() + 2 * TRUSTED_STEP;
    loop {
        // SAFETY: flock on an open descriptor.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok(file);
        }
        if Instant::now() > deadline {
            return Err(io::Error::other("the spawner of an earlier platform on this data directory does not end"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Allows this process as many open files as the system grants: each sandbox takes about a dozen here, and four in the node.
/// What runs in sandboxes gets its own, low limit.
pub fn raise_open_files() {
    let wanted = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
    // SAFETY: valid rlimits. Root may raise the hard limit; somebody else takes what it is.
    unsafe {
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const wanted) != 0 {
            let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut now) == 0 {
                now.rlim_cur = now.rlim_max;
                libc::setrlimit(libc::RLIMIT_NOFILE, &raw const now);
            }
        }
    }
}

/// How many open files this process may have.
pub fn open_files() -> usize {
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a valid rlimit.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut now) };
    usize::try_from(now.rlim_cur).unwrap_or(usize::MAX)
}

fn unknown() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no such sandbox")
}

/// The version of Landlock that the kernel has; 0 when it has none.
pub fn landlock_version() -> i64 {
    const LANDLOCK_CREATE_RULESET: i64 = 444;
    const VERSION: u32 = 1;
    // SAFETY: the version query takes a null pointer.
    unsafe { libc::syscall(LANDLOCK_CREATE_RULESET, std::ptr::null::<u8>(), 0usize, VERSION) }.max(0)
}

/// The host's pid of a process, from a pidfd of it.
fn pid_of(pidfd: &OwnedFd) -> io::Result<i32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    info.lines()
        .find_map(|l| l.strip_prefix("Pid:"))
        .and_then(|p| p.trim().parse().ok())
        .filter(|p| *p > 0)
        .ok_or_else(|| io::Error::other("the process is gone"))
}

/// The spawner process: takes its standard input as the socket to the node. Returns its exit code.
pub fn main() -> i32 {
    let attempt = || -> io::Result<()> {
        // SAFETY: duplicates standard input; the result is new and ours.
        let fd = sys::check(i64::from(unsafe { libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 10) }))?;
        // SAFETY: made just now by the kernel for us.
        let node = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd as i32) };
        let null = std::fs::File::open("/dev/null")?;
        sys::place(&null, 0)?;
        run(node)
    };
    match attempt() {
        Ok(()) => 0,
        Err(e) => {
            eprintln!("mayfly spawner: {e}");
            1
        }
    }
}
