//! A runtime's zygote: a trusted process with the runtime in memory, which forks on request.

use super::TRUSTED_STEP;
use crate::sys;
use serde::Deserialize;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Number of the forker socket in the zygote.
const FORKER: i32 = 3;

/// A running zygote. Dropping it kills it.
pub struct Zygote {
    socket: OwnedFd,
    pidfd: OwnedFd,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    error: Option<String>,
}

impl Zygote {
    /// Starts the zygote with the command line `argv`. It runs as root in the spawner's namespaces: it must be able to enter any sandbox.
    pub fn start(argv: &[String], filters: &Path) -> io::Result<Self> {
        let c = |s: &str| CString::new(s).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
        let arguments = argv.iter().map(|a| c(a)).collect::<io::Result<Vec<_>>>()?;
        let environment = [
            c("PATH=/usr/local/bin:/usr/bin:/bin")?,
            c("LANG=C.UTF-8")?,
            c(&format!("MAYFLY_FORKER_FD={FORKER}"))?,
            c(&format!("MAYFLY_FILTER_INSTANCE={}", filters.join("instance.bpf").display()))?,
            c(&format!("MAYFLY_FILTER_TEMPLATE={}", filters.join("template.bpf").display()))?,
        ];
        let (ours, theirs) = sys::socket_pair(libc::SOCK_SEQPACKET)?;
        match sys::clone3(0)? {
            sys::Forked::Child => {
                let become_zygote = || -> io::Result<()> {
                    let theirs = sys::lift(theirs)?;
                    let null = sys::lift(OwnedFd::from(std::fs::File::open("/dev/null")?))?;
                    sys::place(&null, 0)?;
                    // Its own complaints belong to the platform's log, on the standard error it inherits.
                    // SAFETY: duplicates a standard descriptor.
                    sys::check(i64::from(unsafe { libc::dup2(2, 1) }))?;
                    sys::place(&theirs, FORKER)?;
                    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64)?;
                    super::init::set_limits()
                };
                let _ = become_zygote();
                let pointers = |strings: &[CString]| {
                    strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect::<Vec<*const libc::c_char>>()
                };
                let (arguments, environment) = (pointers(&arguments), pointers(&environment));
                // SAFETY: NULL-terminated arrays of valid strings; then the process ends.
                unsafe {
                    libc::execve(arguments[0], arguments.as_ptr(), environment.as_ptr());
                    libc::_exit(127)
                }
            }
            sys::Forked::Parent(pidfd) => Ok(Self { socket: ours, pidfd }),
        }
    }

    /// Asks for one fork and waits for it.
    pub fn fork(&self, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        sys::send_with_fds(self.socket.as_fd(), message, fds, false)?;
        if !sys::wait_readable(self.socket.as_fd(), TRUSTED_STEP.as_millis() as i32)? {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the zygote does not answer"));
        }
        let mut buffer = [0; 4096];
        let Some((n, _)) = sys::receive_with_fds(self.socket.as_fd(), &mut buffer, false)? else {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the zygote has ended"));
        };
        let answer: Answer = serde_json::from_slice(&buffer[..n]).map_err(io::Error::other)?;
        answer.error.map_or(Ok(()), |e| Err(io::Error::other(format!("the zygote cannot fork: {e}"))))
    }

    /// True when the process has ended or stopped answering.
    pub fn is_dead(&self) -> bool {
        sys::wait_readable(self.pidfd.as_fd(), 0).unwrap_or(true) || self.socket_is_closed()
    }

    fn socket_is_closed(&self) -> bool {
        let mut p = libc::pollfd { fd: self.socket.as_raw_fd(), events: 0, revents: 0 };
        // SAFETY: one valid pollfd.
        unsafe { libc::poll(&raw mut p, 1, 0) > 0 && p.revents & (libc::POLLHUP | libc::POLLERR) != 0 }
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        let _ = sys::pidfd_kill(self.pidfd.as_fd(), libc::SIGKILL);
    }
}
