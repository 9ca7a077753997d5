//! The system calls a sandboxed process may make, each group with its reason, and the filter made of them.
//!
//! The filter is a default-deny list compiled to classic BPF. It is assembled here rather than by a crate because the
//! crates at hand know one action per filter and compare numbers one by one, while this list needs three answers
//! (allow, `EPERM`, `ENOSYS`) and sits in front of every system call.

use libc::sock_filter;

/// What a call gets that is on no list.
const EPERM: u32 = libc::EPERM as u32;
/// What a call gets whose absence programs are made to cope with.
const ENOSYS: u32 = libc::ENOSYS as u32;

/// One group of calls that are allowed as they are.
pub struct Allowed {
    /// Why they are needed.
    pub reason: &'static str,
    /// Their numbers.
    pub calls: &'static [i64],
}

/// One call that is refused although programs ask for it, or allowed only with certain arguments.
pub struct Special {
    /// Its number.
    pub call: i64,
    /// What is done with it.
    pub rule: Rule,
    /// Why.
    pub reason: &'static str,
}

/// What is done with a special call.
#[derive(Clone, Copy)]
pub enum Rule {
    /// Always this error.
    Refuse(u32),
    /// Refused (EPERM) when argument `.0` has any of the bits `.1`; else allowed.
    RefuseBits(u8, u32),
    /// Allowed when argument `.0` is one of `.1`; else `EPERM`.
    AllowValues(u8, &'static [u32]),
    /// `socket(domain, type, protocol)`: see [`SOCKET_DOMAINS`].
    Socket,
}

const NAMESPACE_FLAGS: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

/// Socket domains a function may use. Netlink only for routing queries (`getifaddrs`): its other families reach much more of the kernel.
const SOCKET_DOMAINS: [u32; 3] = [libc::AF_UNIX as u32, libc::AF_INET as u32, libc::AF_INET6 as u32];

/// Calls allowed as they are.
pub const ALLOWED: &[Allowed] = &[
    Allowed {
        reason: "reading and writing open files, pipes and sockets",
        calls: &[
            libc::SYS_read,
            libc::SYS_write,
            libc::SYS_readv,
            libc::SYS_writev,
            libc::SYS_pread64,
            libc::SYS_pwrite64,
            libc::SYS_preadv,
            libc::SYS_pwritev,
            libc::SYS_preadv2,
            libc::SYS_pwritev2,
            libc::SYS_lseek,
            libc::SYS_close,
            libc::SYS_close_range,
            libc::SYS_dup,
            libc::SYS_dup3,
            libc::SYS_fcntl,
            libc::SYS_ioctl,
            libc::SYS_sendfile,
            libc::SYS_splice,
            libc::SYS_tee,
            libc::SYS_vmsplice,
            libc::SYS_copy_file_range,
            libc::SYS_pipe2,
            libc::SYS_fsync,
            libc::SYS_fdatasync,
            libc::SYS_sync_file_range,
            libc::SYS_ftruncate,
            libc::SYS_fallocate,
            libc::SYS_fadvise64,
            libc::SYS_readahead,
            libc::SYS_flock,
            libc::SYS_sync,
            libc::SYS_syncfs,
        ],
    },
    Allowed {
        reason: "paths: what can be reached is decided by the mount namespace and Landlock, not here",
        calls: &[
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_newfstatat,
            libc::SYS_fstat,
            libc::SYS_statx,
            libc::SYS_statfs,
            libc::SYS_fstatfs,
            libc::SYS_faccessat,
            libc::SYS_faccessat2,
            libc::SYS_readlinkat,
            libc::SYS_getdents64,
            libc::SYS_getcwd,
            libc::SYS_chdir,
            libc::SYS_fchdir,
            libc::SYS_mkdirat,
            libc::SYS_unlinkat,
            libc::SYS_renameat,
            libc::SYS_renameat2,
            libc::SYS_linkat,
            libc::SYS_symlinkat,
            libc::SYS_fchmod,
            libc::SYS_fchmodat,
            libc::SYS_fchown,
            libc::SYS_fchownat,
            libc::SYS_umask,
            libc::SYS_utimensat,
            libc::SYS_truncate,
            libc::SYS_getxattr,
            libc::SYS_lgetxattr,
            libc::SYS_fgetxattr,
            libc::SYS_listxattr,
            libc::SYS_llistxattr,
            libc::SYS_flistxattr,
            libc::SYS_setxattr,
            libc::SYS_lsetxattr,
            libc::SYS_fsetxattr,
            libc::SYS_removexattr,
            libc::SYS_lremovexattr,
            libc::SYS_fremovexattr,
            libc::SYS_inotify_init1,
            libc::SYS_inotify_add_watch,
            libc::SYS_inotify_rm_watch,
            libc::SYS_mknodat,
        ],
    },
    #[cfg(target_arch = "x86_64")]
    Allowed {
        reason: "the older forms of the calls above, which x86-64 programs still make",
        calls: &[
            libc::SYS_open,
            libc::SYS_creat,
            libc::SYS_stat,
            libc::SYS_lstat,
            libc::SYS_access,
            libc::SYS_readlink,
            libc::SYS_getdents,
            libc::SYS_mkdir,
            libc::SYS_rmdir,
            libc::SYS_unlink,
            libc::SYS_rename,
            libc::SYS_link,
            libc::SYS_symlink,
            libc::SYS_chmod,
            libc::SYS_chown,
            libc::SYS_lchown,
            libc::SYS_utime,
            libc::SYS_utimes,
            libc::SYS_futimesat,
            libc::SYS_mknod,
            libc::SYS_pipe,
            libc::SYS_dup2,
            libc::SYS_inotify_init,
            libc::SYS_poll,
            libc::SYS_select,
            libc::SYS_epoll_create,
            libc::SYS_epoll_wait,
            libc::SYS_eventfd,
            libc::SYS_signalfd,
            libc::SYS_getpgrp,
            libc::SYS_pause,
            libc::SYS_alarm,
            libc::SYS_time,
            libc::SYS_fork,
            libc::SYS_vfork,
            libc::SYS_arch_prctl,
            libc::SYS_getrlimit,
        ],
    },
    Allowed {
        reason: "memory of the process itself",
        calls: &[
            libc::SYS_brk,
            libc::SYS_mmap,
            libc::SYS_munmap,
            libc::SYS_mprotect,
            libc::SYS_mremap,
            libc::SYS_madvise,
            libc::SYS_msync,
            libc::SYS_mincore,
            libc::SYS_mlock,
            libc::SYS_mlock2,
            libc::SYS_munlock,
            libc::SYS_mlockall,
            libc::SYS_munlockall,
            libc::SYS_memfd_create,
            libc::SYS_membarrier,
            libc::SYS_pkey_alloc,
            libc::SYS_pkey_free,
            libc::SYS_pkey_mprotect,
            libc::SYS_get_mempolicy,
            libc::SYS_set_mempolicy,
            libc::SYS_mbind,
        ],
    },
    Allowed {
        reason: "processes and threads of the instance's own pid namespace; their number is bounded by the pids cgroup",
        calls: &[
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_exit,
            libc::SYS_exit_group,
            libc::SYS_wait4,
            libc::SYS_waitid,
            libc::SYS_kill,
            libc::SYS_tkill,
            libc::SYS_tgkill,
            libc::SYS_getpid,
            libc::SYS_getppid,
            libc::SYS_gettid,
            libc::SYS_getpgid,
            libc::SYS_setpgid,
            libc::SYS_getsid,
            libc::SYS_setsid,
            libc::SYS_set_tid_address,
            libc::SYS_set_robust_list,
            libc::SYS_get_robust_list,
            libc::SYS_futex,
            libc::SYS_rseq,
            libc::SYS_pidfd_open,
            libc::SYS_pidfd_send_signal,
            libc::SYS_prctl,
            libc::SYS_sched_yield,
            libc::SYS_sched_getaffinity,
            libc::SYS_sched_setaffinity,
            libc::SYS_sched_getparam,
            libc::SYS_sched_setparam,
            libc::SYS_sched_getscheduler,
            libc::SYS_sched_setscheduler,
            libc::SYS_sched_get_priority_max,
            libc::SYS_sched_get_priority_min,
            libc::SYS_sched_rr_get_interval,
            libc::SYS_sched_getattr,
            libc::SYS_sched_setattr,
            libc::SYS_getpriority,
            libc::SYS_setpriority,
            libc::SYS_getcpu,
            libc::SYS_ioprio_get,
            libc::SYS_ioprio_set,
        ],
    },
    Allowed {
        reason: "signals",
        calls: &[
            libc::SYS_rt_sigaction,
            libc::SYS_rt_sigprocmask,
            libc::SYS_rt_sigreturn,
            libc::SYS_rt_sigpending,
            libc::SYS_rt_sigsuspend,
            libc::SYS_rt_sigtimedwait,
            libc::SYS_rt_sigqueueinfo,
            libc::SYS_rt_tgsigqueueinfo,
            libc::SYS_sigaltstack,
            libc::SYS_signalfd4,
            libc::SYS_restart_syscall,
        ],
    },
    Allowed {
        reason: "waiting for events",
        calls: &[
            libc::SYS_ppoll,
            libc::SYS_pselect6,
            libc::SYS_epoll_create1,
            libc::SYS_epoll_ctl,
            libc::SYS_epoll_pwait,
            libc::SYS_epoll_pwait2,
            libc::SYS_eventfd2,
            libc::SYS_timerfd_create,
            libc::SYS_timerfd_settime,
            libc::SYS_timerfd_gettime,
        ],
    },
    Allowed {
        reason: "time; setting the clock needs a capability that nobody in a sandbox has",
        calls: &[
            libc::SYS_clock_gettime,
            libc::SYS_clock_getres,
            libc::SYS_clock_nanosleep,
            libc::SYS_gettimeofday,
            libc::SYS_nanosleep,
            libc::SYS_times,
            libc::SYS_timer_create,
            libc::SYS_timer_settime,
            libc::SYS_timer_gettime,
            libc::SYS_timer_getoverrun,
            libc::SYS_timer_delete,
            libc::SYS_getitimer,
            libc::SYS_setitimer,
        ],
    },
    Allowed {
        reason: "sockets of the families that `socket` lets through; where they lead is decided by the network namespace",
        calls: &[
            libc::SYS_socketpair,
            libc::SYS_bind,
            libc::SYS_listen,
            libc::SYS_accept,
            libc::SYS_accept4,
            libc::SYS_connect,
            libc::SYS_getsockname,
            libc::SYS_getpeername,
            libc::SYS_getsockopt,
            libc::SYS_setsockopt,
            libc::SYS_shutdown,
            libc::SYS_sendto,
            libc::SYS_recvfrom,
            libc::SYS_sendmsg,
            libc::SYS_recvmsg,
            libc::SYS_sendmmsg,
            libc::SYS_recvmmsg,
        ],
    },
    Allowed {
        reason: "identity and limits: reading them, and lowering what is one's own (raising needs a capability)",
        calls: &[
            libc::SYS_getuid,
            libc::SYS_geteuid,
            libc::SYS_getgid,
            libc::SYS_getegid,
            libc::SYS_getresuid,
            libc::SYS_getresgid,
            libc::SYS_getgroups,
            libc::SYS_setuid,
            libc::SYS_setgid,
            libc::SYS_setreuid,
            libc::SYS_setregid,
            libc::SYS_setresuid,
            libc::SYS_setresgid,
            libc::SYS_setgroups,
            libc::SYS_setfsuid,
            libc::SYS_setfsgid,
            libc::SYS_capget,
            libc::SYS_capset,
            libc::SYS_getrlimit,
            libc::SYS_setrlimit,
            libc::SYS_prlimit64,
            libc::SYS_getrusage,
            libc::SYS_uname,
            libc::SYS_sysinfo,
            libc::SYS_getrandom,
        ],
    },
    Allowed {
        reason: "confining oneself further is always welcome",
        calls: &[
            libc::SYS_seccomp,
            libc::SYS_landlock_create_ruleset,
            libc::SYS_landlock_add_rule,
            libc::SYS_landlock_restrict_self,
        ],
    },
    Allowed {
        reason: "System V and POSIX IPC inside the instance's own IPC namespace (Python's multiprocessing, databases)",
        calls: &[
            libc::SYS_shmget,
            libc::SYS_shmat,
            libc::SYS_shmctl,
            libc::SYS_shmdt,
            libc::SYS_semget,
            libc::SYS_semop,
            libc::SYS_semctl,
            libc::SYS_semtimedop,
            libc::SYS_msgget,
            libc::SYS_msgsnd,
            libc::SYS_msgrcv,
            libc::SYS_msgctl,
        ],
    },
];

/// Calls with a rule of their own.
pub const SPECIAL: &[Special] = &[
    Special {
        call: libc::SYS_clone,
        rule: Rule::RefuseBits(0, NAMESPACE_FLAGS),
        reason: "threads and processes, but no new namespaces: a user namespace would hand out capabilities",
    },
    Special {
        call: libc::SYS_clone3,
        rule: Rule::Refuse(ENOSYS),
        reason: "its flags are in memory, where a filter cannot see them; C libraries fall back to clone",
    },
    Special {
        call: libc::SYS_socket,
        rule: Rule::Socket,
        reason: "Unix, IPv4, IPv6, and netlink for routing queries only",
    },
    Special {
        call: libc::SYS_personality,
        rule: Rule::AllowValues(0, &[0, 0x0002_0000, 0xffff_ffff]),
        reason: "reading it, and the plain Linux ones; others switch protections off",
    },
    Special {
        call: libc::SYS_io_uring_setup,
        rule: Rule::Refuse(ENOSYS),
        reason: "bypasses this filter; runtimes fall back",
    },
    Special { call: libc::SYS_io_uring_enter, rule: Rule::Refuse(ENOSYS), reason: "as io_uring_setup" },
    Special { call: libc::SYS_io_uring_register, rule: Rule::Refuse(ENOSYS), reason: "as io_uring_setup" },
    Special { call: libc::SYS_userfaultfd, rule: Rule::Refuse(EPERM), reason: "makes kernel races exploitable" },
    Special {
        call: libc::SYS_ptrace,
        rule: Rule::Refuse(EPERM),
        reason: "looking into other processes, and a long list of past escapes",
    },
    Special { call: libc::SYS_process_vm_readv, rule: Rule::Refuse(EPERM), reason: "as ptrace" },
    Special { call: libc::SYS_process_vm_writev, rule: Rule::Refuse(EPERM), reason: "as ptrace" },
    Special { call: libc::SYS_kcmp, rule: Rule::Refuse(EPERM), reason: "as ptrace" },
    Special { call: libc::SYS_bpf, rule: Rule::Refuse(EPERM), reason: "loads code into the kernel" },
    Special {
        call: libc::SYS_perf_event_open,
        rule: Rule::Refuse(EPERM),
        reason: "sees other tenants' timing, and large attack surface",
    },
    Special { call: libc::SYS_keyctl, rule: Rule::Refuse(EPERM), reason: "key rings are not divided by namespaces" },
    Special { call: libc::SYS_add_key, rule: Rule::Refuse(EPERM), reason: "as keyctl" },
    Special { call: libc::SYS_request_key, rule: Rule::Refuse(EPERM), reason: "as keyctl" },
    Special { call: libc::SYS_unshare, rule: Rule::Refuse(EPERM), reason: "new namespaces: as clone" },
    Special { call: libc::SYS_setns, rule: Rule::Refuse(EPERM), reason: "other namespaces" },
    Special { call: libc::SYS_mount, rule: Rule::Refuse(EPERM), reason: "changing what is visible" },
    Special { call: libc::SYS_umount2, rule: Rule::Refuse(EPERM), reason: "as mount" },
    Special { call: libc::SYS_pivot_root, rule: Rule::Refuse(EPERM), reason: "as mount" },
    Special { call: libc::SYS_chroot, rule: Rule::Refuse(EPERM), reason: "as mount" },
    Special { call: libc::SYS_name_to_handle_at, rule: Rule::Refuse(EPERM), reason: "pair of open_by_handle_at" },
    Special {
        call: libc::SYS_open_by_handle_at,
        rule: Rule::Refuse(EPERM),
        reason: "opens files past the mount namespace",
    },
];

/// The change that a template's filter needs: it must be able to place its forks into namespaces made for them.
/// Descriptors of such namespaces reach it only from the spawner, one set for each fork.
const TEMPLATE_SETNS: &[u32] = &[
    libc::CLONE_NEWPID as u32,
    libc::CLONE_NEWNS as u32,
    libc::CLONE_NEWNET as u32,
    libc::CLONE_NEWIPC as u32,
    libc::CLONE_NEWUTS as u32,
];

/// Which filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Processes that serve invocations.
    Instance,
    /// Initialised processes that only fork.
    Template,
}

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;

const RET_ALLOW: u32 = 0x7fff_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_KILL: u32 = 0x8000_0000;

const LD_ABS: u16 = 0x20;
const JEQ: u16 = 0x15;
const JGE: u16 = 0x35;
const JSET: u16 = 0x45;
const RET: u16 = 0x06;

fn op(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// Offset of the low 32 bits of argument `n` in `struct seccomp_data` (little-endian machines).
fn arg(n: u8) -> u32 {
    16 + 8 * u32::from(n)
}

/// The body that decides one call, ending in a return on every path.
fn body(rule: Option<Rule>) -> Vec<sock_filter> {
    let ret = |k| op(RET, k, 0, 0);
    match rule {
        None => vec![ret(RET_ALLOW)],
        Some(Rule::Refuse(errno)) => vec![ret(RET_ERRNO | errno)],
        Some(Rule::RefuseBits(n, bits)) => {
            vec![op(LD_ABS, arg(n), 0, 0), op(JSET, bits, 0, 1), ret(RET_ERRNO | EPERM), ret(RET_ALLOW)]
        }
        Some(Rule::AllowValues(n, values)) => {
            let mut b = vec![op(LD_ABS, arg(n), 0, 0)];
            for v in values {
                b.push(op(JEQ, *v, 0, 1));
                b.push(ret(RET_ALLOW));
            }
            b.push(ret(RET_ERRNO | EPERM));
            b
        }
        Some(Rule::Socket) => {
            let mut b = vec![op(LD_ABS, arg(0), 0, 0)];
            for domain in SOCKET_DOMAINS {
                b.push(op(JEQ, domain, 0, 1));
                b.push(ret(RET_ALLOW));
            }
            b.push(op(JEQ, libc::AF_NETLINK as u32, 1, 0));
            b.push(ret(RET_ERRNO | libc::EAFNOSUPPORT as u32));
            b.push(op(LD_ABS, arg(2), 0, 0));
            b.push(op(JEQ, libc::NETLINK_ROUTE as u32, 0, 1));
            b.push(ret(RET_ALLOW));
            b.push(ret(RET_ERRNO | libc::EPROTONOSUPPORT as u32));
            b
        }
    }
}

/// Compiles the filter of `profile`: a binary search over call numbers, then the body of the call found.
pub fn program(profile: Profile) -> Vec<sock_filter> {
    let mut table: Vec<(u32, Option<Rule>)> = Vec::new();
    for group in ALLOWED {
        table.extend(group.calls.iter().map(|c| (*c as u32, None)));
    }
    for special in SPECIAL {
        let rule = if profile == Profile::Template && special.call == libc::SYS_setns {
            Rule::AllowValues(1, TEMPLATE_SETNS)
        } else {
            special.rule
        };
        table.push((special.call as u32, Some(rule)));
    }
    table.sort_by_key(|e| e.0);
    table.dedup_by_key(|e| e.0);

    let mut out = vec![op(LD_ABS, 4, 0, 0), op(JEQ, AUDIT_ARCH, 1, 0), op(RET, RET_KILL, 0, 0), op(LD_ABS, 0, 0, 0)];
    search(&table, &mut out);
    out
}

/// Emits code for `table`, whose accumulator holds the call number.
fn search(table: &[(u32, Option<Rule>)], out: &mut Vec<sock_filter>) {
    // Leaves are kept small so that the jump over one always fits the 8 bits it has.
    if table.len() <= 4 {
        for (number, rule) in table {
            let body = body(*rule);
            out.push(op(JEQ, *number, 0, u8::try_from(body.len()).expect("bodies are short")));
            out.extend(body);
        }
        out.push(op(RET, RET_ERRNO | EPERM, 0, 0));
        return;
    }
    let (low, high) = table.split_at(table.len() / 2);
    let mut low_code = Vec::new();
    search(low, &mut low_code);
    // A conditional jump reaches 255 instructions; the unconditional one (`ja`) reaches any distance.
    const JA: u16 = 0x05;
    out.push(op(JGE, high[0].0, 0, 1));
    out.push(op(JA, u32::try_from(low_code.len()).expect("the filter is short"), 0, 0));
    out.extend(low_code);
    search(high, out);
}

/// The filter as the bytes that shims read: an array of `struct sock_filter`.
pub fn program_bytes(profile: Profile) -> Vec<u8> {
    let mut bytes = Vec::new();
    for i in program(profile) {
        bytes.extend_from_slice(&i.code.to_le_bytes());
        bytes.extend_from_slice(&[i.jt, i.jf]);
        bytes.extend_from_slice(&i.k.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would, on (arch, nr, args).
    fn run(program: &[sock_filter], arch: u32, nr: u32, args: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend_from_slice(&nr.to_le_bytes());
        data.extend_from_slice(&arch.to_le_bytes());
        data.extend_from_slice(&0u64.to_le_bytes());
        for a in args {
            data.extend_from_slice(&a.to_le_bytes());
        }
        let (mut acc, mut pc) = (0u32, 0usize);
        loop {
            let i = program[pc];
            pc += 1;
            match i.code {
                LD_ABS => acc = u32::from_le_bytes(data[i.k as usize..i.k as usize + 4].try_into().unwrap()),
                JEQ => pc += usize::from(if acc == i.k { i.jt } else { i.jf }),
                JGE => pc += usize::from(if acc >= i.k { i.jt } else { i.jf }),
                JSET => pc += usize::from(if acc & i.k != 0 { i.jt } else { i.jf }),
                0x05 => pc += i.k as usize,
                RET => return i.k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    const DENIED: u32 = RET_ERRNO | EPERM;

    #[test]
    fn every_listed_call_gets_its_answer_and_all_others_eperm() {
        for profile in [Profile::Instance, Profile::Template] {
            let p = program(profile);
            assert!(p.len() < 4096, "the kernel takes at most 4096 instructions");
            let allowed: std::collections::HashSet<u32> =
                ALLOWED.iter().flat_map(|g| g.calls.iter().map(|c| *c as u32)).collect();
            let special: std::collections::HashMap<u32, Rule> =
                SPECIAL.iter().map(|s| (s.call as u32, s.rule)).collect();
            for nr in 0..600u32 {
                let got = run(&p, AUDIT_ARCH, nr, [0; 6]);
                match (allowed.contains(&nr), special.get(&nr)) {
                    (true, None) => assert_eq!(got, RET_ALLOW, "{nr}"),
                    (false, Some(Rule::Refuse(e))) if nr != libc::SYS_setns as u32 => {
                        assert_eq!(got, RET_ERRNO | e, "{nr}")
                    }
                    (false, None) => assert_eq!(got, DENIED, "{nr}"),
                    (true, Some(_)) => panic!("{nr} is on both lists"),
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn arguments_decide_clone_socket_and_setns() {
        let p = program(Profile::Instance);
        let t = program(Profile::Template);
        let call = |p: &[sock_filter], nr: i64, args: [u64; 6]| run(p, AUDIT_ARCH, nr as u32, args);
        assert_eq!(call(&p, libc::SYS_clone, [libc::SIGCHLD as u64, 0, 0, 0, 0, 0]), RET_ALLOW);
        assert_eq!(call(&p, libc::SYS_clone, [libc::CLONE_NEWUSER as u64, 0, 0, 0, 0, 0]), DENIED);
        for domain in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6] {
            assert_eq!(call(&p, libc::SYS_socket, [domain as u64, 1, 0, 0, 0, 0]), RET_ALLOW);
        }
        for domain in [libc::AF_PACKET, libc::AF_VSOCK, libc::AF_ALG, libc::AF_KEY] {
            assert_ne!(call(&p, libc::SYS_socket, [domain as u64, 1, 0, 0, 0, 0]), RET_ALLOW);
        }
        assert_eq!(call(&p, libc::SYS_socket, [libc::AF_NETLINK as u64, 3, 0, 0, 0, 0]), RET_ALLOW);
        assert_ne!(call(&p, libc::SYS_socket, [libc::AF_NETLINK as u64, 3, 12, 0, 0, 0]), RET_ALLOW);
        assert_eq!(call(&p, libc::SYS_setns, [5, libc::CLONE_NEWPID as u64, 0, 0, 0, 0]), DENIED);
        assert_eq!(call(&t, libc::SYS_setns, [5, libc::CLONE_NEWPID as u64, 0, 0, 0, 0]), RET_ALLOW);
        assert_eq!(call(&t, libc::SYS_setns, [5, libc::CLONE_NEWUSER as u64, 0, 0, 0, 0]), DENIED);
        assert_eq!(call(&t, libc::SYS_setns, [5, 0, 0, 0, 0, 0]), DENIED);
    }

    #[test]
    fn another_architecture_is_killed() {
        assert_eq!(run(&program(Profile::Instance), 0x4000_0003, 1, [0; 6]), RET_KILL);
    }

    #[test]
    fn each_group_and_call_has_a_reason() {
        assert!(ALLOWED.iter().all(|g| g.reason.len() > 5 && !g.calls.is_empty()));
        assert!(SPECIAL.iter().all(|s| s.reason.len() > 5));
    }
}
