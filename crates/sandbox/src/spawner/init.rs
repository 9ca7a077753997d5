//! The first process of each sandbox: builds the root, attaches code, starts programs, reaps.
//!
//! It is forked from the spawner (or from another sandbox's init) and never executes another program, so it costs a
//! few dirty pages. It is the pid namespace's init: when it dies, the kernel kills everything in the sandbox. It is
//! trusted: no user code runs in this process, and user processes can neither signal nor trace it.

use crate::net::{self, Endpoint};
use crate::seccomp::{self, Profile};
use crate::sys;
use crate::wire::{GUEST_UID, InitReply, InitRequest, MESSAGE_BYTES_MAX, RUNTIME_API_PORT};
use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    Scope,
};
use mayfly_model::limits;
use std::ffi::{CStr, CString};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

/// Number of the control socket in the init.
const CONTROL: i32 = 3;

/// Becomes the init of a sandbox. Called in a fresh clone; never returns.
pub fn run(control: OwnedFd) -> ! {
    let code = match serve(control) {
        Ok(()) => 0,
        Err(_) => 1,
    };
    // SAFETY: ends the process at once; nothing of the spawner's memory is to be cleaned up here.
    unsafe { libc::_exit(code) }
}

fn serve(control: OwnedFd) -> io::Result<()> {
    // The clone has copies of all the spawner's descriptors. Only the control socket stays.
    let control = sys::lift(control)?;
    sys::place(&control, CONTROL)?;
    // The objects that own the closed numbers live in memory that this process never looks at again.
    std::mem::forget(control);
    sys::close_from(CONTROL as u32 + 1)?;
    // SAFETY: CONTROL was placed above and nothing else owns it.
    let control = unsafe { OwnedFd::from_raw_fd(CONTROL) };
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64)?;
    // SAFETY: setpgid and sigprocmask with valid arguments. A session of its own (setsid) would cost milliseconds here and give
    // nothing: the spawner's has no terminal.
    let signals = unsafe {
        libc::setpgid(0, 0);
        let mut mask: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut mask);
        libc::sigaddset(&raw mut mask, libc::SIGCHLD);
        sys::check(i64::from(libc::sigprocmask(libc::SIG_SETMASK, &raw const mask, std::ptr::null_mut())))?;
        let fd = sys::check(i64::from(libc::signalfd(-1, &raw const mask, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)))?;
        OwnedFd::from_raw_fd(fd as i32)
    };

    let mut state = Init { landlock: None };
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    loop {
        let mut polls = [
            libc::pollfd { fd: control.as_raw_fd(), events: libc::POLLIN, revents: 0 },
            libc::pollfd { fd: signals.as_raw_fd(), events: libc::POLLIN, revents: 0 },
        ];
        // SAFETY: two valid pollfds.
        if unsafe { libc::poll(polls.as_mut_ptr(), 2, -1) } < 0 {
            continue;
        }
        if polls[1].revents != 0 {
            reap(&signals);
        }
        if polls[0].revents == 0 {
            continue;
        }
        let Some((n, fds)) = sys::receive_with_fds(control.as_fd(), &mut buffer, false)? else {
            return Ok(());
        };
        let request: InitRequest = serde_json::from_slice(&buffer[..n]).map_err(io::Error::other)?;
        let (reply, fds) = match state.handle(request, fds) {
            Ok(named) => {
                let (names, fds): (Vec<String>, Vec<OwnedFd>) = named.into_iter().unzip();
                (InitReply { error: None, fds: names }, fds)
            }
            Err(e) => (InitReply { error: Some(e.to_string()), fds: Vec::new() }, Vec::new()),
        };
        let bytes = serde_json::to_vec(&reply).map_err(io::Error::other)?;
        let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        sys::send_with_fds(control.as_fd(), &bytes, &borrowed, false)?;
    }
}

fn reap(signals: &OwnedFd) {
    let mut drained = [0u8; 1280];
    // SAFETY: reads into a buffer of that length; then reaps whatever has ended, which takes no pointers.
    unsafe {
        libc::read(signals.as_raw_fd(), drained.as_mut_ptr().cast(), drained.len());
        while libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) > 0 {}
    }
}

struct Init {
    /// Kept for programs started later.
    landlock: Option<OwnedFd>,
}

type Named = Vec<(String, OwnedFd)>;

impl Init {
    fn handle(&mut self, request: InitRequest, fds: Vec<OwnedFd>) -> io::Result<Named> {
        match request {
            InitRequest::Build { root, endpoint, hostname, listen } => self.build(&root, endpoint, &hostname, listen),
            InitRequest::BuildNested { endpoint, hostname } => self.build_nested(endpoint, &hostname),
            InitRequest::Mounts { targets } => {
                for (tree, target) in fds.iter().zip(&targets) {
                    let target =
                        CString::new(target.as_str()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
                    step("attach code", sys::move_mount(tree.as_fd(), &target))?;
                }
                Ok(Vec::new())
            }
            InitRequest::Workspace { bytes, files_max } => workspace(bytes, files_max),
            InitRequest::NoEgress => net::take_down_inside().map(|()| Vec::new()),
            InitRequest::Launch { argv, environment, cwd } => self.launch(&argv, &environment, &cwd, fds),
            InitRequest::Nest => nest(fds),
        }
    }

    fn finish(&mut self, endpoint: Option<Endpoint>, hostname: &str) -> io::Result<Named> {
        step("network", net::configure_inside(endpoint))?;
        // SAFETY: a valid buffer of the given length.
        let named_host = unsafe { libc::sethostname(hostname.as_ptr().cast(), hostname.len()) };
        step("host name", sys::check(i64::from(named_host)))?;
        let mut named = Vec::new();
        if let Some(ruleset) = step("landlock", ruleset())? {
            named.push(("landlock".to_owned(), ruleset.try_clone()?));
            self.landlock = Some(ruleset);
        }
        step("pid numbers", scatter_pids())?;
        // Its memory holds copies of the spawner's; nobody in here is to look at it.
        sys::prctl(libc::PR_SET_DUMPABLE, 0)?;
        Ok(named)
    }

    fn build(&mut self, root: &Path, endpoint: Option<Endpoint>, hostname: &str, listen: bool) -> io::Result<Named> {
        // SAFETY: takes no pointers.
        step("cgroup namespace", sys::check(i64::from(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) })))?;
        step("private mounts", sys::mount(c"", Path::new("/"), c"", libc::MS_REC | libc::MS_PRIVATE, c""))?;
        // Mounts copied from the host's namespace are locked together; a copy of the root gives one that may be entered.
        step("root", sys::bind_mount(root, root))?;
        mount_private(root)?;
        step("enter root", sys::pivot_into(root))?;
        let mut named = self.finish(endpoint, hostname)?;
        if listen {
            let listener = step("runtime API", TcpListener::bind(("127.0.0.1", RUNTIME_API_PORT)))?;
            named.push(("listener".to_owned(), OwnedFd::from(listener)));
        }
        Ok(named)
    }

    fn build_nested(&mut self, endpoint: Option<Endpoint>, hostname: &str) -> io::Result<Named> {
        // SAFETY: takes no pointers.
        step("cgroup namespace", sys::check(i64::from(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) })))?;
        step("private mounts", sys::mount(c"", Path::new("/"), c"", libc::MS_REC | libc::MS_PRIVATE, c""))?;
        mount_private(Path::new("/"))?;
        self.finish(endpoint, hostname)
    }

    fn launch(&self, argv: &[String], environment: &[String], cwd: &str, fds: Vec<OwnedFd>) -> io::Result<Named> {
        let c = |s: &String| CString::new(s.as_str()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
        let argv = argv.iter().map(c).collect::<io::Result<Vec<_>>>()?;
        let environment = environment.iter().map(c).collect::<io::Result<Vec<_>>>()?;
        let cwd = CString::new(cwd).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut fds = fds.into_iter().rev();
        let output = fds.next().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let stream = fds.next();
        // SAFETY: this process has one thread.
        match sys::check(i64::from(unsafe { libc::fork() }))? {
            0 => {
                let error = self.become_program(&argv, &environment, &cwd, stream, output);
                let text = format!("mayfly: {} cannot be started: {error}\n", argv[0].to_string_lossy());
                // SAFETY: writes a valid buffer to descriptor 2 and ends the process.
                unsafe {
                    libc::write(2, text.as_ptr().cast(), text.len());
                    libc::_exit(127)
                }
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Gives up every privilege and executes the program. Returns only to say why it could not.
    fn become_program(
        &self,
        argv: &[CString],
        environment: &[CString],
        cwd: &CStr,
        stream: Option<OwnedFd>,
        output: OwnedFd,
    ) -> io::Error {
        let attempt = || -> io::Result<()> {
            let landlock = self.landlock.as_ref().map(|l| l.try_clone().and_then(sys::lift)).transpose()?;
            let output = sys::lift(output)?;
            let stream = stream.map(sys::lift).transpose()?;
            let null = sys::lift(OwnedFd::from(std::fs::File::open("/dev/null")?))?;
            sys::place(&null, 0)?;
            sys::place(&output, 1)?;
            sys::place(&output, 2)?;
            match &stream {
                Some(stream) => sys::place(stream, 3)?,
                // SAFETY: closes the copy of the control socket; the owner object is not used again in this process.
                None => drop(unsafe { libc::close(3) }),
            }
            // SAFETY: signal masks, limits, identity: valid arguments, no pointers kept.
            unsafe {
                let mut mask: libc::sigset_t = std::mem::zeroed();
                libc::sigemptyset(&raw mut mask);
                libc::sigprocmask(libc::SIG_SETMASK, &raw const mask, std::ptr::null_mut());
                libc::setpgid(0, 0);
                libc::umask(0o022);
                set_limits()?;
                sys::check(i64::from(libc::setgroups(0, std::ptr::null())))?;
                sys::check(i64::from(libc::setresgid(GUEST_UID, GUEST_UID, GUEST_UID)))?;
                sys::check(i64::from(libc::setresuid(GUEST_UID, GUEST_UID, GUEST_UID)))?;
            }
            sys::drop_all_capabilities()?;
            sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
            if let Some(landlock) = landlock {
                const LANDLOCK_RESTRICT_SELF: i64 = 446;
                // SAFETY: takes a descriptor and flags.
                sys::check(unsafe { libc::syscall(LANDLOCK_RESTRICT_SELF, landlock.as_raw_fd(), 0) })?;
            }
            // SAFETY: a valid path.
            sys::check(i64::from(unsafe { libc::chdir(cwd.as_ptr()) }))?;
            sys::install_filter(&seccomp::program(Profile::Instance))
        };
        if let Err(e) = attempt() {
            return e;
        }
        let pointers = |strings: &[CString]| {
            strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect::<Vec<*const libc::c_char>>()
        };
        let (argv, environment) = (pointers(argv), pointers(environment));
        // SAFETY: NULL-terminated arrays of valid strings. Descriptors above 3 are close-on-exec.
        unsafe { libc::execve(argv[0], argv.as_ptr(), environment.as_ptr()) };
        io::Error::last_os_error()
    }
}

/// Limits that every user process has: open files, and no core dumps.
pub fn set_limits() -> io::Result<()> {
    let files = libc::rlimit { rlim_cur: limits::OPEN_FILES_MAX, rlim_max: limits::OPEN_FILES_MAX };
    let cores = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: valid rlimits.
    unsafe {
        sys::check(i64::from(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const files)))?;
        sys::check(i64::from(libc::setrlimit(libc::RLIMIT_CORE, &raw const cores)))?;
    }
    Ok(())
}

/// Has this pid namespace count on from a random number. Libraries that tell a fork by its pid (OpenSSL) would otherwise take two
/// forks of one template, both pid 2 of their namespaces, for the same process, and draw the same randomness in both.
fn scatter_pids() -> io::Result<()> {
    let mut bytes = [0u8; 2];
    // SAFETY: fills a buffer of that length.
    sys::check(unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) } as i64)?;
    let last = 2 + u16::from_le_bytes(bytes) % 30_000;
    std::fs::write("/proc/sys/kernel/ns_last_pid", last.to_string())
}

/// The mounts that no two sandboxes share.
fn mount_private(root: &Path) -> io::Result<()> {
    let flags = libc::MS_NOSUID | libc::MS_NODEV;
    let tmp =
        CString::new(format!("size={},nr_inodes=65536,mode=1777", limits::TMP_BYTES)).expect("digits hold no NUL");
    step("/tmp", sys::mount(c"tmpfs", &root.join("tmp"), c"tmpfs", flags, &tmp))?;
    step(
        "/dev/shm",
        sys::mount(c"tmpfs", &root.join("dev/shm"), c"tmpfs", flags, c"size=64m,nr_inodes=4096,mode=1777"),
    )?;
    let proc_flags = flags | libc::MS_NOEXEC;
    step(
        "/proc",
        sys::mount(c"proc", &root.join("proc"), c"proc", proc_flags, c"hidepid=invisible")
            .or_else(|_| sys::mount(c"proc", &root.join("proc"), c"proc", proc_flags, c"")),
    )
}

/// Gives `/tmp` another size, and opens it.
fn workspace(bytes: u64, files_max: u32) -> io::Result<Named> {
    let flags = libc::MS_REMOUNT | libc::MS_NOSUID | libc::MS_NODEV;
    let size = CString::new(format!("size={bytes},nr_inodes={files_max}")).expect("digits hold no NUL");
    step("size of /tmp", sys::mount(c"tmpfs", Path::new("/tmp"), c"tmpfs", flags, &size))?;
    let tmp = step("/tmp", std::fs::File::open("/tmp"))?;
    Ok(vec![("workspace".to_owned(), tmp.into())])
}

/// What a process in here may do with files, whatever their owner and mode: read and run everything visible, write below `/tmp`
/// and `/dev/shm` and to the harmless devices. `None`: this kernel has no Landlock.
fn ruleset() -> io::Result<Option<OwnedFd>> {
    let all = AccessFs::from_all(ABI::V5);
    let read = AccessFs::from_read(ABI::V5);
    let open = |path: &str| PathFd::new(path).map_err(|e| io::Error::other(e.to_string()));
    let (root, tmp, shm, dev, proc) = (open("/")?, open("/tmp")?, open("/dev/shm")?, open("/dev")?, open("/proc")?);
    let build = || {
        Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(all)?
            .scope(Scope::from_all(ABI::V6))?
            .create()?
            .add_rule(PathBeneath::new(root, read))?
            .add_rule(PathBeneath::new(tmp, all))?
            .add_rule(PathBeneath::new(shm, all))?
            .add_rule(PathBeneath::new(dev, read | AccessFs::WriteFile | AccessFs::IoctlDev))?
            .add_rule(PathBeneath::new(proc, read | AccessFs::WriteFile))
    };
    let created = build().map_err(|e: landlock::RulesetError| io::Error::other(e.to_string()))?;
    Ok(created.into())
}

/// Clones another init into namespaces of its own, below this one's, in the same user namespace. Descriptors: the new one's control
/// socket, the file to which a process writes `0` to be in its group, and that of this one's own group.
fn nest(fds: Vec<OwnedFd>) -> io::Result<Named> {
    let [control, group, home]: [OwnedFd; 3] =
        fds.try_into().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let (mut group, mut home) = (std::fs::File::from(group), std::fs::File::from(home));
    let flags = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    // The kernel charges what a clone costs it (page tables, mounts, namespaces) to the group of who clones. Hundreds of nested
    // sandboxes would fill the template's.
    io::Write::write_all(&mut group, b"0")?;
    let cloned = sys::clone3(flags);
    if !matches!(cloned, Ok(sys::Forked::Child)) {
        io::Write::write_all(&mut home, b"0")?;
    }
    match cloned? {
        sys::Forked::Child => run(control),
        sys::Forked::Parent(pidfd) => Ok(vec![("pidfd".to_owned(), pidfd)]),
    }
}

/// Says which step failed: an errno alone tells nobody anything.
fn step<T>(what: &str, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|e| io::Error::new(e.kind(), format!("{what}: {e}")))
}
