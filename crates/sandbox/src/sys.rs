//! Thin, checked wrappers over the system calls that no crate we use wraps: clone3, setns, the mount API, capabilities.
//!
//! Everything here runs in the single-threaded spawner or in an init process forked from it.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

/// Turns a C return value into a result.
pub fn check(ret: i64) -> io::Result<i64> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

/// A path as a C string. Errors: `InvalidInput` when it holds a NUL byte.
pub fn cstr(path: &Path) -> io::Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// The two sides of a fork.
pub enum Forked {
    /// In the parent: a pidfd of the child.
    Parent(OwnedFd),
    /// In the child.
    Child,
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

/// Forks with `flags` (CLONE_NEW…). Only for single-threaded processes: the child goes on with a copy of everything.
pub fn clone3(flags: i32) -> io::Result<Forked> {
    let mut pidfd: RawFd = -1;
    let args = CloneArgs {
        flags: flags as u32 as u64 | libc::CLONE_PIDFD as u64,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    // SAFETY: `args` is a valid clone_args of the given size; without CLONE_VM the child has its own copy of memory,
    // and the caller is single-threaded, so no lock can be held by a thread that is missing in the child.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match check(pid)? {
        0 => Ok(Forked::Child),
        // SAFETY: the kernel has just stored a new descriptor there, which nobody else owns.
        _ => Ok(Forked::Parent(unsafe { OwnedFd::from_raw_fd(pidfd) })),
    }
}

/// mount(2). `data` is the file system's option text.
pub fn mount(source: &CStr, target: &Path, fstype: &CStr, flags: u64, data: &CStr) -> io::Result<()> {
    let target = cstr(target)?;
    // SAFETY: all pointers are valid NUL-terminated strings for the length of the call.
    check(i64::from(unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), fstype.as_ptr(), flags as libc::c_ulong, data.as_ptr().cast())
    }))?;
    Ok(())
}

/// Makes `target` show `source` (recursively), with the mount flags left as they are.
pub fn bind_mount(source: &Path, target: &Path) -> io::Result<()> {
    mount(&cstr(source)?, target, c"", libc::MS_BIND | libc::MS_REC, c"")
}

#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

const MOUNT_ATTR_RDONLY: u64 = 1;
const MOUNT_ATTR_NOSUID: u64 = 2;
const MOUNT_ATTR_NODEV: u64 = 4;

/// Sets read-only, nosuid and (unless `devices`) nodev on the mount at `path` below `dir`, and on all below it.
pub fn set_read_only(dir: BorrowedFd<'_>, path: &CStr, devices: bool) -> io::Result<()> {
    let attr = MountAttr {
        attr_set: MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | if devices { 0 } else { MOUNT_ATTR_NODEV },
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: `attr` is a valid mount_attr of the given size.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir.as_raw_fd(),
            path.as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    })?;
    Ok(())
}

/// Makes the one mount that `dir` is the root of read-only, and leaves those below it as they are (device files among them must
/// stay devices).
pub fn set_read_only_here(dir: BorrowedFd<'_>) -> io::Result<()> {
    let attr = MountAttr { attr_set: MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: `attr` is a valid mount_attr of the given size.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    })?;
    Ok(())
}

const OPEN_TREE_CLONE: u32 = 1;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 4;

/// A detached copy of the tree at `path`, as a descriptor that can be handed to another mount namespace.
pub fn open_tree(path: &Path) -> io::Result<OwnedFd> {
    let path = cstr(path)?;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as u32 | libc::AT_RECURSIVE as u32;
    // SAFETY: the path is a valid string; the result, if any, is a new descriptor.
    let fd = check(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    // SAFETY: the kernel has just made this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Attaches a detached tree at `target` in this process's mount namespace.
pub fn move_mount(tree: BorrowedFd<'_>, target: &CStr) -> io::Result<()> {
    // SAFETY: both strings are valid; the call only reads them.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    })?;
    Ok(())
}

/// A detached, read-only overlay of `layers`, the first of them on top. The paths are looked up from the working directory.
pub fn overlay(layers: &[CString]) -> io::Result<OwnedFd> {
    const FSCONFIG_SET_STRING: u32 = 1;
    const FSCONFIG_CMD_CREATE: u32 = 6;
    // SAFETY: a valid string; the result, if any, is a new descriptor.
    let context = check(unsafe { libc::syscall(libc::SYS_fsopen, c"overlay".as_ptr(), 1) })?;
    // SAFETY: made just now by the kernel for us.
    let context = unsafe { OwnedFd::from_raw_fd(context as RawFd) };
    let joined = layers.iter().map(|l| l.as_bytes()).collect::<Vec<_>>().join(&b':');
    let joined = CString::new(joined).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: key and value are valid strings.
    check(unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            FSCONFIG_SET_STRING,
            c"lowerdir".as_ptr(),
            joined.as_ptr(),
            0,
        )
    })?;
    // SAFETY: CMD_CREATE takes no strings.
    check(unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            FSCONFIG_CMD_CREATE,
            std::ptr::null::<u8>(),
            std::ptr::null::<u8>(),
            0,
        )
    })?;
    let attrs = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
    // SAFETY: the context is open and created.
    let fd = check(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), 1, attrs) })?;
    // SAFETY: made just now by the kernel for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Makes the current directory the root, and lets go of everything outside it.
pub fn pivot_into(root: &Path) -> io::Result<()> {
    std::env::set_current_dir(root)?;
    // SAFETY: valid strings; pivot_root(".", ".") stacks the old root on the new one, which the umount then drops.
    unsafe {
        check(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()))?;
        check(i64::from(libc::umount2(c".".as_ptr(), libc::MNT_DETACH)))?;
    }
    std::env::set_current_dir("/")
}

/// prctl(2) with one argument.
pub fn prctl(option: i32, arg: u64) -> io::Result<i64> {
    // SAFETY: the options used in this crate take integers only.
    check(i64::from(unsafe { libc::prctl(option, arg, 0, 0, 0) }))
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Gives up every capability for good: bounding set, ambient set, and the process's own.
pub fn drop_all_capabilities() -> io::Result<()> {
    for cap in 0..=63u64 {
        // Kernels know about 41; the first one that is unknown ends the list.
        if prctl(libc::PR_CAPBSET_DROP, cap).is_err() {
            break;
        }
    }
    // SAFETY: PR_CAP_AMBIENT_CLEAR_ALL takes no pointers.
    check(i64::from(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) }))?;
    let header = CapHeader { version: 0x2008_0522, pid: 0 };
    let data = [CapData::default(); 2];
    // SAFETY: header and data have the layout of version 3 of the interface.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) })?;
    Ok(())
}

/// Installs a seccomp filter on this thread. Needs no-new-privs.
pub fn install_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let prog = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    const SECCOMP_SET_MODE_FILTER: u64 = 1;
    // SAFETY: `prog` points at `len` instructions that outlive the call; the kernel only reads them.
    check(unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &raw const prog) })?;
    Ok(())
}

/// A pair of connected sockets, close-on-exec.
pub fn socket_pair(kind: i32) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: `fds` has room for two descriptors.
    check(i64::from(unsafe { libc::socketpair(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr()) }))?;
    // SAFETY: made just now by the kernel for us.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// A pipe, close-on-exec: (read end, write end).
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: `fds` has room for two descriptors.
    check(i64::from(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) }))?;
    // SAFETY: made just now by the kernel for us.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// A descriptor of a process that has this number now.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match RawFd::try_from(fd) {
        // SAFETY: the descriptor was just made, and nobody else has it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The number, on the host, of the process that a pidfd names. `None`: it is gone.
pub fn pidfd_pid(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()?;
    (pid > 0).then_some(pid)
}

/// Sends a signal through a pidfd. Succeeds when the process is gone already.
pub fn pidfd_kill(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: no pointers but a null siginfo.
    let ret =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<u8>(), 0) };
    match check(ret) {
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other.map(|_| ()),
    }
}

/// Most descriptors in one message.
pub const MESSAGE_FDS_MAX: usize = 24;

/// Sends one message with descriptors on a seqpacket or stream socket, without waiting when `nonblocking`.
pub fn send_with_fds(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
    nonblocking: bool,
) -> io::Result<()> {
    assert!(fds.len() <= MESSAGE_FDS_MAX, "a message carries at most {MESSAGE_FDS_MAX} descriptors");
    let raw: Vec<RawFd> = fds.iter().map(|f| f.as_raw_fd()).collect();
    let mut control = [0u64; 32];
    let mut iov = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: an all-zero msghdr is valid.
    let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
    msg.msg_iov = &raw mut iov;
    msg.msg_iovlen = 1;
    if !raw.is_empty() {
        let payload = (raw.len() * size_of::<RawFd>()) as u32;
        msg.msg_control = control.as_mut_ptr().cast();
        // SAFETY: CMSG_SPACE is arithmetic; `control` (256 bytes) holds a header and 24 descriptors.
        msg.msg_controllen = unsafe { libc::CMSG_SPACE(payload) } as _;
        // SAFETY: the control buffer is aligned, zeroed, and long enough for one message of `payload` bytes.
        unsafe {
            let c = libc::CMSG_FIRSTHDR(&raw const msg);
            (*c).cmsg_level = libc::SOL_SOCKET;
            (*c).cmsg_type = libc::SCM_RIGHTS;
            (*c).cmsg_len = libc::CMSG_LEN(payload) as _;
            std::ptr::copy_nonoverlapping(raw.as_ptr(), libc::CMSG_DATA(c).cast::<RawFd>(), raw.len());
        }
    }
    let flags = libc::MSG_NOSIGNAL | if nonblocking { libc::MSG_DONTWAIT } else { 0 };
    loop {
        // SAFETY: `msg` and all it points at are valid for the call.
        match check(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const msg, flags) } as i64) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Ok(n) if n as usize == bytes.len() => return Ok(()),
            Ok(_) => return Err(io::Error::from(io::ErrorKind::WriteZero)),
            Err(e) => return Err(e),
        }
    }
}

/// Receives one message with its descriptors (close-on-exec). `Ok(None)`: the other side is gone.
pub fn receive_with_fds(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    nonblocking: bool,
) -> io::Result<Option<(usize, Vec<OwnedFd>)>> {
    let mut control = [0u64; 32];
    let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: an all-zero msghdr is valid.
    let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
    msg.msg_iov = &raw mut iov;
    msg.msg_iovlen = 1;
    msg.msg_control = control.as_mut_ptr().cast();
    msg.msg_controllen = size_of_val(&control) as _;
    let flags = libc::MSG_CMSG_CLOEXEC | if nonblocking { libc::MSG_DONTWAIT } else { 0 };
    let n = loop {
        // SAFETY: `msg` and all it points at are valid for the call.
        match check(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut msg, flags) } as i64) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => break other? as usize,
        }
    };
    let mut fds = Vec::new();
    // SAFETY: the kernel has filled in the control buffer; the CMSG macros walk it within msg_controllen, and each
    // descriptor in an SCM_RIGHTS message is new and ours.
    unsafe {
        let mut c = libc::CMSG_FIRSTHDR(&raw const msg);
        while !c.is_null() {
            if (*c).cmsg_level == libc::SOL_SOCKET && (*c).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*c).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(c).cast::<RawFd>();
                for i in 0..bytes / size_of::<RawFd>() {
                    fds.push(OwnedFd::from_raw_fd(data.add(i).read_unaligned()));
                }
            }
            c = libc::CMSG_NXTHDR(&raw const msg, c);
        }
    }
    if msg.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message cut short"));
    }
    if n == 0 && fds.is_empty() {
        return Ok(None);
    }
    Ok(Some((n, fds)))
}

/// Waits until `fd` can be read, at most `timeout_ms`. False: it could not.
pub fn wait_readable(fd: BorrowedFd<'_>, timeout_ms: i32) -> io::Result<bool> {
    let mut p = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    loop {
        // SAFETY: one valid pollfd.
        match check(i64::from(unsafe { libc::poll(&raw mut p, 1, timeout_ms) })) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return Ok(other? > 0),
        }
    }
}

/// Waits until one of `fds` can be read, at most `timeout_ms` (-1: without end). True: the first of them can.
pub fn wait_any_readable(fds: &[BorrowedFd<'_>], timeout_ms: i32) -> io::Result<bool> {
    let poll = |fd: &BorrowedFd<'_>| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut polls: Vec<libc::pollfd> = fds.iter().map(poll).collect();
    loop {
        // SAFETY: as many valid pollfds as are told.
        match check(i64::from(unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, timeout_ms) })) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map(|_| polls.first().is_some_and(|p| p.revents != 0)),
        }
    }
}

/// Puts `fd` at number `to`, open across exec.
pub fn place(fd: impl AsFd, to: RawFd) -> io::Result<()> {
    let from = fd.as_fd().as_raw_fd();
    if from == to {
        // SAFETY: changes one flag of an open descriptor.
        check(i64::from(unsafe { libc::fcntl(from, libc::F_SETFD, 0) }))?;
        return Ok(());
    }
    // SAFETY: both are descriptor numbers of this process; whatever was at `to` is meant to be replaced.
    check(i64::from(unsafe { libc::dup2(from, to) }))?;
    Ok(())
}

/// Moves `fd` to a number of at least 64, so that the low numbers are free for [`place`].
pub fn lift(fd: OwnedFd) -> io::Result<OwnedFd> {
    // SAFETY: duplicates an open descriptor; the result is new and ours.
    let n = check(i64::from(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 64) }))?;
    // SAFETY: made just now by the kernel for us.
    Ok(unsafe { OwnedFd::from_raw_fd(n as RawFd) })
}

/// Closes every descriptor from `first` on.
pub fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: the caller owns no descriptor object at these numbers that it will use again.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) })?;
    Ok(())
}
