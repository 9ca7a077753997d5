//! One sandbox as the spawner sees it: namespaces with an init in them, a control group, a link, and its descriptors.

use super::{Named, TRUSTED_STEP, init, pid_of, zygote::Zygote};
use crate::cgroup::{Group, Parent};
use crate::net::Network;
use crate::sys;
use crate::wire::{Binding, InitReply, InitRequest, Mount, Workspace};
use mayfly_model::limits;
use serde_json::json;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the init of a template's sandbox may take to clone another init. It shares its CPU time and memory with user code, so it
/// is not waited for: see [`Shell::begin_nest`].
const NEST_PATIENCE: Duration = Duration::from_secs(5);

/// First of the host's user ids that sandboxes are mapped to. Each sandbox gets two of its own, so that no limit counted by
/// user (processes, locked memory) is shared between sandboxes.
const UID_BASE: u64 = 1_000_000_000;
const UID_RANGE: u64 = 1_000_000_000;

/// Order in which namespaces are opened, and their names in fork requests.
const NAMESPACES: [&str; 6] = ["pid", "user", "mnt", "net", "ipc", "uts"];

/// Answers of a template that are looked at before its next fork. It owes one for each.
const ANSWERS_AT_ONCE_MAX: usize = 64;

/// What each living fork adds to its template's memory limit, in MB.
const FORK_ALLOWANCE_MB: u64 = 1;

/// A sandbox in which something is built gets the CPU share of a function of this size, in MB, at most.
const WORKSPACE_SHARE_MB: u32 = 256;

/// A sandbox beside a template's whose init has been asked for and has not come yet.
struct Nesting {
    number: u64,
    group: Group,
    control: OwnedFd,
    deadline: Instant,
}

/// What is left of a sandbox whose processes have been killed.
pub struct Remains {
    group: Group,
    link: Option<usize>,
}

impl Remains {
    /// Removes what is empty by now. False: processes are still on their way out.
    pub fn remove(&self, network: Option<&mut Network>) -> bool {
        let gone = self.group.remove();
        if gone && let (Some(network), Some(index)) = (network, self.link) {
            network.release(index);
        }
        gone
    }
}

/// One sandbox.
pub struct Shell {
    /// Its pidfd, through which the whole sandbox is killed.
    pidfd: OwnedFd,
    control: OwnedFd,
    namespaces: Vec<OwnedFd>,
    landlock: Option<OwnedFd>,
    listener: Option<OwnedFd>,
    /// Our end of the forker socket, while the process in it may become a template.
    forker: Option<OwnedFd>,
    /// The node's ends, until they are handed over.
    stream: Option<OwnedFd>,
    output: Option<OwnedFd>,
    /// The write end of the output, until a process has it.
    output_writer: Option<OwnedFd>,
    binding: Option<Binding>,
    /// A sandbox that its init was asked to make beside it.
    nesting: Option<Nesting>,
    /// No further sandbox can be made beside it: it is in another's, or its init did not answer in time.
    barren: bool,
    /// Its control group.
    pub group: Group,
    /// Its link's number.
    pub link: Option<usize>,
    /// A sandbox made ahead for this template's next fork.
    pub spare: Option<Box<Self>>,
    /// How many forks this template has made.
    pub forks: u64,
    /// How many of them are alive.
    pub live_forks: u32,
    /// The template that this sandbox's process was forked from.
    pub template: Option<u64>,
}

impl Shell {
    /// Makes a sandbox with namespaces, user namespace included, of its own.
    pub fn create(
        number: u64,
        root: &Path,
        cgroups: &Parent,
        network: Option<&mut Network>,
        listen: bool,
    ) -> io::Result<Self> {
        let group = cgroups.group(&number.to_string(), limits::PIDS_MAX)?;
        let (control, theirs) = sys::socket_pair(libc::SOCK_SEQPACKET)?;
        let flags = libc::CLONE_NEWUSER
            | libc::CLONE_NEWNS
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS;
        let pidfd = match sys::clone3(flags)? {
            sys::Forked::Child => init::run(theirs),
            sys::Forked::Parent(pidfd) => pidfd,
        };
        drop(theirs);
        let mut shell = Self::assemble(pidfd, control, group, false)?;
        let built = shell.map_users(number).and_then(|pid| {
            shell.connect(pid, number, network, |endpoint, hostname| InitRequest::Build {
                root: root.to_owned(),
                endpoint,
                hostname,
                listen,
            })
        });
        shell.or_doom(built)
    }

    fn assemble(pidfd: OwnedFd, control: OwnedFd, group: Group, nested: bool) -> io::Result<Self> {
        let (output, output_writer) = sys::pipe()?;
        Ok(Self {
            pidfd,
            control,
            namespaces: Vec::new(),
            landlock: None,
            listener: None,
            forker: None,
            stream: None,
            output: Some(output),
            output_writer: Some(output_writer),
            binding: None,
            nesting: None,
            barren: nested,
            group,
            link: None,
            spare: None,
            forks: 0,
            live_forks: 0,
            template: None,
        })
    }

    /// Passes `self` on, or kills it and clears away what can be cleared at once.
    fn or_doom(self, result: io::Result<()>) -> io::Result<Self> {
        match result {
            Ok(()) => Ok(self),
            Err(e) => {
                self.kill();
                // The init has hardly begun: its end is a matter of a millisecond.
                let _ = sys::wait_readable(self.pidfd.as_fd(), 100);
                self.group.remove();
                Err(e)
            }
        }
    }

    fn map_users(&self, number: u64) -> io::Result<i32> {
        let pid = pid_of(&self.pidfd)?;
        let base = UID_BASE + 2 * number % UID_RANGE;
        let map = format!("0 {base} 1\n{} {} 1\n", crate::wire::GUEST_UID, base + 1);
        std::fs::write(format!("/proc/{pid}/uid_map"), &map)?;
        std::fs::write(format!("/proc/{pid}/gid_map"), &map)?;
        Ok(pid)
    }

    /// Puts the init into its group, gives it a link, and has it build its view.
    fn connect(
        &mut self,
        pid: i32,
        number: u64,
        network: Option<&mut Network>,
        request: impl FnOnce(Option<crate::net::Endpoint>, String) -> InitRequest,
    ) -> io::Result<()> {
        self.group.attach(pid)?;
        let endpoint = match network {
            Some(network) => {
                let (index, endpoint) = network.link(pid)?;
                self.link = Some(index);
                Some(endpoint)
            }
            None => None,
        };
        let hostname = format!("fn-{:x}", number & 0xffff_ffff);
        for (name, fd) in self.ask(&request(endpoint, hostname), &[])? {
            match name.as_str() {
                "landlock" => self.landlock = Some(fd),
                "listener" => self.listener = Some(fd),
                _ => {}
            }
        }
        for name in NAMESPACES {
            self.namespaces.push(std::fs::File::open(format!("/proc/{pid}/ns/{name}"))?.into());
        }
        Ok(())
    }

    /// Asks the init and waits for its answer. Only while no user code runs in the sandbox: nothing could be slower on purpose.
    fn ask(&self, request: &InitRequest, fds: &[BorrowedFd<'_>]) -> io::Result<Vec<(String, OwnedFd)>> {
        self.order(request, fds)?;
        if !sys::wait_readable(self.control.as_fd(), TRUSTED_STEP.as_millis() as i32)? {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the sandbox does not answer"));
        }
        self.answer()
    }

    fn order(&self, request: &InitRequest, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        sys::send_with_fds(self.control.as_fd(), &serde_json::to_vec(request).map_err(io::Error::other)?, fds, true)
    }

    fn answer(&self) -> io::Result<Vec<(String, OwnedFd)>> {
        let mut buffer = [0; 4096];
        let Some((n, fds)) = sys::receive_with_fds(self.control.as_fd(), &mut buffer, true)? else {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the sandbox has ended"));
        };
        let reply: InitReply = serde_json::from_slice(&buffer[..n]).map_err(io::Error::other)?;
        match reply.error {
            Some(e) => Err(io::Error::other(e)),
            None => Ok(reply.fds.into_iter().zip(fds).collect()),
        }
    }

    /// Has the zygote fork a waiting process into this sandbox.
    pub fn enter_from_zygote(&mut self, zygote: &Zygote) -> io::Result<()> {
        let (ours, theirs) = sys::socket_pair(libc::SOCK_STREAM)?;
        let (forker, its_forker) = sys::socket_pair(libc::SOCK_SEQPACKET)?;
        let (message, fds) = self.fork_request("zygote", &theirs, Some(&its_forker), None)?;
        zygote.fork(&message, &fds.iter().map(|f| f.as_fd()).collect::<Vec<_>>())?;
        self.stream = Some(ours);
        self.forker = Some(forker);
        self.output_writer = None;
        Ok(())
    }

    /// Asks this template to fork into `child`. Does not wait: the child says HELLO on its stream, or it does not.
    pub fn fork_into(&self, child: &mut Self) -> io::Result<()> {
        let forker = self.forker.as_ref().ok_or_else(|| io::Error::other("this sandbox is no template"))?;
        let (ours, theirs) = sys::socket_pair(libc::SOCK_STREAM)?;
        let home = self.group.procs_files()?.into_iter().next();
        let (message, fds) = child.fork_request("template", &theirs, None, home)?;
        sys::send_with_fds(forker.as_fd(), &message, &fds.iter().map(|f| f.as_fd()).collect::<Vec<_>>(), true)?;
        // Answers of earlier forks are of no interest, but they must not fill the socket. No more than a few are taken at a time: user
        // code in the template may write on and on.
        let mut buffer = [0; 4096];
        for _ in 0..ANSWERS_AT_ONCE_MAX {
            match sys::receive_with_fds(forker.as_fd(), &mut buffer, true) {
                Ok(Some(_)) => {}
                _ => break,
            }
        }
        child.stream = Some(ours);
        child.output_writer = None;
        Ok(())
    }

    fn fork_request(
        &self,
        from: &str,
        stream: &OwnedFd,
        forker: Option<&OwnedFd>,
        home: Option<OwnedFd>,
    ) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        let writer = self.output_writer.as_ref().ok_or_else(|| io::Error::other("the sandbox is in use"))?;
        let mut named: Named = vec![("stream", stream.try_clone()?), ("output", writer.try_clone()?)];
        if let Some(forker) = forker {
            named.push(("forker", forker.try_clone()?));
        }
        for (name, fd) in NAMESPACES.iter().zip(&self.namespaces) {
            if *name != "user" || from == "zygote" {
                named.push((name, fd.try_clone()?));
            }
        }
        if let Some(landlock) = &self.landlock {
            named.push(("landlock", landlock.try_clone()?));
        }
        for fd in self.group.procs_files()? {
            named.push(("cgroup", fd));
        }
        named.extend(home.map(|fd| ("home", fd)));
        let (names, fds): (Vec<&str>, Vec<OwnedFd>) = named.into_iter().unzip();
        let uid = crate::wire::GUEST_UID;
        let message = json!({ "id": 0, "from": from, "uid": uid, "gid": uid, "fds": names });
        Ok((message.to_string().into_bytes(), fds))
    }

    /// Starts the runtime's shim from scratch.
    pub fn launch_shim(&mut self, argv: Vec<String>) -> io::Result<()> {
        let (ours, theirs) = sys::socket_pair(libc::SOCK_STREAM)?;
        let environment = ["PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", "HOME=/home/qcloud"];
        let environment = environment.map(str::to_owned).to_vec();
        self.launch(argv, environment, "/", Some(theirs))?;
        self.stream = Some(ours);
        Ok(())
    }

    /// Starts the function's own program.
    pub fn launch_user_program(&mut self, argv: Vec<String>, environment: Vec<String>) -> io::Result<()> {
        self.launch(argv, environment, "/var/user", None)
    }

    fn launch(
        &mut self,
        argv: Vec<String>,
        environment: Vec<String>,
        cwd: &str,
        stream: Option<OwnedFd>,
    ) -> io::Result<()> {
        if argv.is_empty() {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let writer = self.output_writer.take().ok_or_else(|| io::Error::other("a program was started here already"))?;
        let request = InitRequest::Launch { argv, environment, cwd: cwd.to_owned() };
        let fds: Vec<BorrowedFd<'_>> = stream.iter().chain([&writer]).map(|f| f.as_fd()).collect();
        self.ask(&request, &fds)?;
        Ok(())
    }

    /// Makes this sandbox, and its spare, a function's.
    pub fn bind(&mut self, binding: &Binding) -> io::Result<()> {
        self.apply(binding, true)?;
        if let Some(spare) = &mut self.spare {
            spare.apply(binding, true)?;
        }
        self.binding = Some(binding.clone());
        Ok(())
    }

    fn apply(&self, binding: &Binding, with_mounts: bool) -> io::Result<()> {
        self.group.limit(u64::from(binding.memory_mb) << 20, binding.memory_mb)?;
        if with_mounts && !binding.mounts.is_empty() {
            let trees = binding.mounts.iter().map(tree_of).collect::<io::Result<Vec<_>>>()?;
            let targets = binding.mounts.iter().map(|m| m.target.clone()).collect();
            self.ask(&InitRequest::Mounts { targets }, &trees.iter().map(|t| t.as_fd()).collect::<Vec<_>>())?;
        }
        if !binding.egress && self.link.is_some() {
            self.ask(&InitRequest::NoEgress, &[])?;
        }
        Ok(())
    }

    /// Gives this sandbox, bound already, the limits of one in which something is built. Returns its `/tmp`.
    pub fn become_workspace(
        &mut self,
        binding: &Binding,
        workspace: Workspace,
        network: Option<&mut Network>,
    ) -> io::Result<Named> {
        if self.forker.is_some() || self.output_writer.is_none() {
            return Err(io::Error::other("only a sandbox in which nothing runs can be built in"));
        }
        let memory_mb = u64::from(binding.memory_mb) + u64::from(workspace.disk_mb);
        // What is built can wait; calls cannot.
        self.group.limit(memory_mb << 20, binding.memory_mb.min(WORKSPACE_SHARE_MB))?;
        self.group.limit_pids(workspace.pids_max)?;
        if binding.egress
            && let (Some(network), Some(index)) = (network, self.link)
        {
            network.open_to_builds(index)?;
        }
        let bytes = u64::from(workspace.disk_mb) << 20;
        let named = self.ask(&InitRequest::Workspace { bytes, files_max: workspace.files_max }, &[])?;
        let fd = named.into_iter().find(|(name, _)| name == "workspace").map(|(_, fd)| fd);
        Ok(vec![("workspace", fd.ok_or_else(|| io::Error::other("the sandbox did not hand over its /tmp"))?)])
    }

    /// Sets this template's memory limit by its living forks. A page that the template writes to after a fork is copied for it, while the
    /// old one, still charged to the template's group, lives on in the fork: 0.3 MB a fork for a small function.
    pub fn limit_by_forks(&self) -> io::Result<()> {
        let Some(binding) = &self.binding else { return Ok(()) };
        let memory_bytes = u64::from(binding.memory_mb) + u64::from(self.live_forks) * FORK_ALLOWANCE_MB;
        self.group.limit(memory_bytes << 20, binding.memory_mb)
    }

    /// True when other sandboxes can be made beside this one.
    pub fn can_nest(&self) -> bool {
        self.forker.is_some() && !self.barren
    }

    /// The socket on which the init that [`Self::begin_nest`] asked will answer.
    pub fn nesting_socket(&self) -> Option<BorrowedFd<'_>> {
        self.nesting.as_ref().map(|_| self.control.as_fd())
    }

    /// Asks for a sandbox beside this template's: the same user namespace and the same view of code, everything else its own.
    ///
    /// The init that has to clone shares its CPU time with user code, which may leave it none. Nobody waits for it:
    /// [`Self::finish_nest`] takes the answer when it has come.
    pub fn begin_nest(&mut self, number: u64, cgroups: &Parent) -> io::Result<()> {
        if !self.can_nest() || self.nesting.is_some() {
            return Err(io::Error::other("no sandbox can be made beside this one"));
        }
        let group = cgroups.group(&number.to_string(), limits::PIDS_MAX)?;
        let ask = || {
            let (control, theirs) = sys::socket_pair(libc::SOCK_SEQPACKET)?;
            let procs = |group: &Group| {
                let file = group.procs_files()?.into_iter().next();
                file.ok_or_else(|| io::Error::other("the control group cannot be entered"))
            };
            let (its_group, home) = (procs(&group)?, procs(&self.group)?);
            self.order(&InitRequest::Nest, &[theirs.as_fd(), its_group.as_fd(), home.as_fd()])?;
            Ok(control)
        };
        match ask() {
            Ok(control) => {
                self.nesting = Some(Nesting { number, group, control, deadline: Instant::now() + NEST_PATIENCE });
                Ok(())
            }
            Err(e) => {
                group.remove();
                Err(e)
            }
        }
    }

    /// Takes the init's answer and completes the sandbox. `None`: there is no answer yet. After an error the remains, if any, are for
    /// the caller to remove.
    pub fn finish_nest(&mut self, network: Option<&mut Network>) -> Option<Result<Self, (io::Error, Option<Remains>)>> {
        let nesting = self.nesting.take()?;
        match sys::wait_readable(self.control.as_fd(), 0) {
            Ok(true) => {}
            Ok(false) if Instant::now() < nesting.deadline => {
                self.nesting = Some(nesting);
                return None;
            }
            unanswered => {
                // Its answer may still come, and would be taken for that to another request.
                self.barren = true;
                let error = unanswered.err().unwrap_or_else(|| {
                    io::Error::new(
                        io::ErrorKind::TimedOut,
                        "the template's sandbox leaves its init no time to make another",
                    )
                });
                return Some(Err((error, Some(Remains { group: nesting.group, link: None }))));
            }
        }
        let made = self.answer().and_then(|named| {
            let pidfd =
                named.into_iter().next().map(|(_, fd)| fd).ok_or_else(|| io::Error::other("no init was made"))?;
            pid_of(&pidfd).map(|pid| (pidfd, pid))
        });
        let (pidfd, pid) = match made {
            Ok(made) => made,
            Err(e) => return Some(Err((e, Some(Remains { group: nesting.group, link: None })))),
        };
        let attempt = || {
            let mut shell = Self::assemble(pidfd, nesting.control, nesting.group, true)?;
            let built = shell.connect(pid, nesting.number, network, |endpoint, hostname| InitRequest::BuildNested {
                endpoint,
                hostname,
            });
            let built = built.and_then(|()| match &self.binding {
                // Its view was copied from a sandbox that has the code already.
                Some(binding) => shell.apply(binding, false),
                None => Ok(()),
            });
            shell.or_doom(built)
        };
        Some(attempt().map_err(|e| (e, None)))
    }

    fn network(&self) -> io::Result<OwnedFd> {
        let at = NAMESPACES.iter().position(|n| *n == "net");
        let net = at.and_then(|at| self.namespaces.get(at));
        net.ok_or_else(|| io::Error::other("the sandbox has no network of its own"))?.try_clone()
    }

    /// The way to make the platform's services listen in here.
    pub fn door(&self) -> io::Result<(&'static str, OwnedFd)> {
        Ok(("door", self.network()?))
    }

    /// True when the platform's services are to listen in this sandbox, and in those of its forks.
    pub fn wants_services(&self) -> bool {
        self.binding.as_ref().is_some_and(|binding| binding.inside)
    }

    /// The descriptors that the node works with; with `inside`, [`Self::door`] too. Once.
    pub fn hand_over(&mut self, inside: bool) -> io::Result<Named> {
        let mut named: Named = vec![
            ("init", self.pidfd.try_clone()?),
            ("memory_peak", self.group.memory_peak_file()?.into()),
            ("oom", self.group.oom_file()?.into()),
        ];
        // The door to what listens in there: only a program of the function's own can be a server.
        if self.listener.is_some() {
            named.push(("net", self.network()?));
        }
        if inside {
            named.push(self.door()?);
        }
        for (name, fd) in
            [("stream", self.stream.take()), ("output", self.output.take()), ("listener", self.listener.take())]
        {
            named.extend(fd.map(|fd| (name, fd)));
        }
        Ok(named)
    }

    /// Kills everything in the sandbox, its spare, and what its init was asked to make. What is left must be removed by the caller.
    pub fn doomed(mut self) -> Vec<Remains> {
        self.kill();
        let mut remains = self.spare.take().map(|spare| spare.doomed()).unwrap_or_default();
        // Below this sandbox's pid namespace: whatever has been made of it dies with the init that made it.
        remains.extend(self.nesting.take().map(|n| Remains { group: n.group, link: None }));
        remains.push(Remains { group: self.group, link: self.link });
        remains
    }

    fn kill(&self) {
        if let Err(e) = sys::pidfd_kill(self.pidfd.as_fd(), libc::SIGKILL) {
            tracing::error!(error = %e, "a sandbox could not be killed");
        }
    }
}

/// A detached, read-only tree of what a mount shows.
fn tree_of(mount: &Mount) -> io::Result<OwnedFd> {
    match mount.sources.as_slice() {
        [] => Err(io::Error::from(io::ErrorKind::InvalidInput)),
        [one] => {
            let tree = sys::open_tree(one)?;
            sys::set_read_only(tree.as_fd(), c"", false)?;
            Ok(tree)
        }
        many => {
            let layers: Vec<CString> = many.iter().map(|p| sys::cstr(p)).collect::<io::Result<_>>()?;
            sys::overlay(&layers)
        }
    }
}
