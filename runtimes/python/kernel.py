"""System calls that Python's standard library does not offer: namespaces, capabilities, seccomp, Landlock.

Works on x86_64 and aarch64 Linux. Every function raises `OSError` with the name of the call when the kernel refuses.
"""

import ctypes
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

CAP_SETPCAP = 8
CAP_SYS_CHROOT = 18
CAP_SYS_ADMIN = 21
# What a process needs to enter the namespaces of a new instance, and nothing more.
FORKER_CAPS = 1 << CAP_SYS_CHROOT | 1 << CAP_SYS_ADMIN

_PR_SET_DUMPABLE = 4
_PR_SET_KEEPCAPS = 8
_PR_SET_NAME = 15
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_SECCOMP_SET_MODE_FILTER = 1
_CAPABILITY_VERSION_3 = 0x20080522
_FILTER_INSTRUCTIONS_MAX = 4096
_EINVAL = 22

_NUMBERS = {
    "x86_64": {"capget": 125, "capset": 126, "setns": 308, "seccomp": 317, "close_range": 436, "landlock": 446},
    "aarch64": {"capget": 90, "capset": 91, "setns": 268, "seccomp": 277, "close_range": 436, "landlock": 446},
}
_machine = os.uname().machine
if _machine not in _NUMBERS:
    raise OSError("the Python runtime knows no system call numbers for " + _machine)

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_prctl = _libc.prctl
_prctl.restype = ctypes.c_int
_long = ctypes.c_long
_NR = {name: _long(number) for name, number in _NUMBERS[_machine].items()}
_get_errno = ctypes.get_errno
# Made once: types and objects that each child would make again cost it pages of its own.
_ZERO = _long(0)
_WORDS = ctypes.c_uint32 * 6
_cap_header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
_cap_data = _WORDS()


def _fail(what):
    number = _get_errno()
    raise OSError(number, what + ": " + os.strerror(number))


def setns(fd, kind, what):
    """Moves this process (for a pid namespace: its future children) into the namespace behind `fd`."""
    if _syscall(_NR["setns"], _long(fd), _long(kind)) != 0:
        _fail("setns(" + what + ")")


def keep_capabilities(keep):
    """Whether permitted capabilities outlive the change from root to another user."""
    if _prctl(_PR_SET_KEEPCAPS, _long(keep), _ZERO, _ZERO, _ZERO) != 0:
        _fail("prctl(KEEPCAPS)")


def set_dumpable():
    """Makes `/proc/self` belong to this process's own user again, after the kernel took it away."""
    if _prctl(_PR_SET_DUMPABLE, _long(1), _ZERO, _ZERO, _ZERO) != 0:
        _fail("prctl(DUMPABLE)")


def no_new_privileges():
    """From here on no `execve` can gain privileges, whatever bits the file has."""
    if _prctl(_PR_SET_NO_NEW_PRIVS, _long(1), _ZERO, _ZERO, _ZERO) != 0:
        _fail("prctl(NO_NEW_PRIVS)")


def set_name(name):
    """Sets the name that `ps` and the kernel's log show (15 bytes are kept)."""
    _prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()), _ZERO, _ZERO, _ZERO)


def _capget():
    if _syscall(_NR["capget"], _cap_header, _cap_data) != 0:
        _fail("capget")
    e0, p0, _, e1, p1, _ = _cap_data
    return e0 | e1 << 32, p0 | p1 << 32


def reduce_capabilities(keep):
    """Gives up every capability outside the bit set `keep`, in all five sets, for good.

    A capability that is not held stays not held. With the bounding set emptied, `execve` gives none back either.
    """
    effective, permitted = _capget()
    if effective >> CAP_SETPCAP & 1:
        number = 0
        while _prctl(_PR_CAPBSET_DROP, _long(number), _ZERO, _ZERO, _ZERO) == 0:
            number += 1
        if _get_errno() != _EINVAL:
            _fail("prctl(CAPBSET_DROP)")
    # Kernels before 4.3 have no ambient set; EINVAL there means that there is nothing to clear.
    if _prctl(_PR_CAP_AMBIENT, _long(_PR_CAP_AMBIENT_CLEAR_ALL), _ZERO, _ZERO, _ZERO) != 0:
        if _get_errno() != _EINVAL:
            _fail("prctl(CAP_AMBIENT)")
    kept = permitted & keep
    low, high = kept & 0xFFFFFFFF, kept >> 32
    _cap_data[:] = (low, low, 0, high, high, 0)
    if _syscall(_NR["capset"], _cap_header, _cap_data) != 0:
        _fail("capset")


def restrict_with_landlock(ruleset_fd):
    """Puts this process and all it starts under the Landlock ruleset, for good."""
    if _syscall(_NR["landlock"], _long(ruleset_fd), _ZERO) != 0:
        _fail("landlock_restrict_self")


class Filter:
    """A seccomp program as the node compiled it: an array of `struct sock_filter`."""

    class _Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    def __init__(self, program):
        """Takes the bytes of the program; raises `ValueError` when they cannot be one."""
        if not program or len(program) % 8 or len(program) // 8 > _FILTER_INSTRUCTIONS_MAX:
            raise ValueError("a seccomp filter of %d bytes is not a program" % len(program))
        self._bytes = ctypes.create_string_buffer(program, len(program))
        self._program = Filter._Program(len(program) // 8, ctypes.addressof(self._bytes))

    def install(self):
        """Applies the filter to this process and all it starts, for good."""
        program = ctypes.byref(self._program)
        if _syscall(_NR["seccomp"], _long(_SECCOMP_SET_MODE_FILTER), _ZERO, program) != 0:
            _fail("seccomp")


def close_from(first):
    """Closes every descriptor from `first` on."""
    if _syscall(_NR["close_range"], _long(first), _long(0xFFFFFFFF), _ZERO) != 0:
        os.closerange(first, os.sysconf("SC_OPEN_MAX"))


def line_buffer_stdio():
    """Makes what C code prints leave at every line end, as it would on a terminal; into a pipe it would wait for 4 KB."""
    stdout = ctypes.c_void_p.in_dll(_libc, "stdout")
    _libc.setvbuf(stdout, None, 1, 0)


def overwrite_command_line(title):
    """Replaces what `/proc/<pid>/cmdline` and `/proc/<pid>/environ` show, here and in every process forked from here.

    Both hold paths of the host. The variables must have been taken out of the C environment before: their memory is cleared.
    """
    with open("/proc/self/stat", "rb") as file:
        # Fields after the name, which may itself hold spaces and brackets; `arg_start` is field 48 of proc(5).
        fields = file.read().rpartition(b")")[2].split()
    arg_start, arg_end, env_start, env_end = (int(field) for field in fields[45:49])
    if 0 < arg_start < arg_end:
        ctypes.memset(arg_start, 0, arg_end - arg_start)
        text = title.encode()[: arg_end - arg_start - 1]
        ctypes.memmove(arg_start, text, len(text))
    if 0 < env_start < env_end:
        ctypes.memset(env_start, 0, env_end - env_start)
