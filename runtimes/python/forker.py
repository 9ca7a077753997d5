"""A process that forks on request: the zygote of the runtime, or the template of one function version.

The protocol is in docs/runtime-protocol.md, "Forking". Nothing here allocates threads or keeps descriptors open between
two requests, so that a child starts with exactly what it was given.
"""

import fcntl
import json
import os
import select
import signal
import socket
import struct
import threading
# `signal.signal` does the same, and converts numbers to members of `enum` and back, which runs a lot of Python code.
from _signal import signal as _signal

import mayfly_kernel as kernel

STREAM_FD = 3
FORKER_FD = 4
LANDLOCK_FD = 5
# The first number that none of the fixed places above uses.
_FREE_FD = 6
_MESSAGE_BYTES_MAX = 65536
_FDS_MAX = 64
_NAMESPACES = (
    # The user namespace comes first: it gives the capabilities that the others ask for.
    ("user", kernel.CLONE_NEWUSER),
    ("mnt", kernel.CLONE_NEWNS),
    ("net", kernel.CLONE_NEWNET),
    ("ipc", kernel.CLONE_NEWIPC),
    ("uts", kernel.CLONE_NEWUTS),
)
_NAMES = frozenset(["stream", "output", "forker", "pid", "landlock", "cgroup", "home"] + [name for name, _ in _NAMESPACES])

# User code may replace functions of the standard library (gevent does); a template must go on with the real ones.
_fork = os.fork
_close = os.close
_dup2 = os.dup2
_write = os.write
_exit = os._exit
_open = os.open
# The C type: the methods of `socket.socket` above it would only add pages that are written to.
_Socket = socket.SocketType
_recvmsg = _Socket.recvmsg
_send = _Socket.send
_poll = select.poll
_dumps = json.JSONEncoder().encode
_loads = json.JSONDecoder().decode
_fcntl = fcntl.fcntl
# Where the hook of `threading` that our forks leave out renews the kernel's number of the main thread (3.13 and later).
_renew_thread = threading.main_thread()._set_native_id if hasattr(threading.Thread, "_after_fork") else None
# Plain numbers: the operators of enum members are Python code.
_SIGCHLD, _SIG_IGN, _SIG_DFL = int(signal.SIGCHLD), int(signal.SIG_IGN), int(signal.SIG_DFL)
_CLOEXEC, _CUT_SHORT = int(socket.MSG_CMSG_CLOEXEC), int(socket.MSG_TRUNC | socket.MSG_CTRUNC)
_RIGHTS = (int(socket.SOL_SOCKET), int(socket.SCM_RIGHTS))
_CONTROL_BYTES = socket.CMSG_SPACE(_FDS_MAX * 4)


class _Hooks:
    # True while a fork is one of ours.
    quiet = False


_hooks = _Hooks()


def use_hooks(hooks):
    """Takes the zygote's fork hooks, whose attribute `quiet` is true while a fork is one of ours."""
    global _hooks
    _hooks = hooks


class Refused(Exception):
    """A request that cannot be followed; its text goes back to the node."""


class Seat:
    """What a forked child was given: the request's fields and its descriptors by name."""

    def __init__(self, request, fds):
        if type(request) is not dict:
            raise Refused("the request is not a JSON object")
        self.uid = request.get("uid")
        self.gid = request.get("gid")
        names = request.get("fds")
        if not isinstance(names, list) or len(names) != len(fds):
            raise Refused("%d descriptors came, and `fds` names a different number" % len(fds))
        self.fds = {}
        self.cgroups = []
        for name, fd in zip(names, fds):
            if name not in _NAMES or name in self.fds:
                raise Refused("`fds` has an unknown or doubled name")
            if name == "cgroup":
                self.cgroups.append(fd)
            else:
                self.fds[name] = fd
        if "stream" not in self.fds or "output" not in self.fds:
            raise Refused("`stream` and `output` are needed")
        for value in (self.uid, self.gid):
            if value is not None and (type(value) is not int or not 0 <= value < 0xFFFFFFFF):
                raise Refused("`uid` and `gid` are numbers")


def run(channel_fd, watch_fd=None):
    """Serves fork requests on `channel_fd`. Returns only in a child, with its `Seat`.

    The forker itself ends when the channel does, or when `watch_fd` has anything to read, its end included (a template
    gets no invocations).
    """
    channel = _Socket(fileno=channel_fd)
    home = _open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    before = _signal(_SIGCHLD, _SIG_IGN)
    waiting = _poll()
    waiting.register(channel_fd, select.POLLIN)
    if watch_fd is not None:
        waiting.register(watch_fd, select.POLLIN)
    while True:
        if watch_fd is not None:
            for fd, _ in waiting.poll():
                if fd == watch_fd:
                    _exit(0)
        message, fds, whole = _receive(channel)
        if not message:
            _exit(0)
        seat = None
        answer = {"id": None}
        try:
            request = _parse(message)
            if type(request) is dict:
                answer["id"] = request.get("id")
            if not whole:
                raise Refused("the request or its descriptors were cut short")
            seat = Seat(request, fds)
            pid = _fork_into(seat, home)
            if pid == 0:
                _signal(_SIGCHLD, _SIG_DFL if before is None else before)
                channel.detach()
                _close(home)
                seat.channel_fd = channel_fd
                return seat
            answer["pid"] = pid
        except (Refused, OSError) as error:
            answer["error"] = str(error)
        for fd in fds:
            _close(fd)
        try:
            _send(channel, _told(answer))
        except OSError:
            _exit(0)


def _told(answer):
    if type(answer["id"]) is int and "pid" in answer:
        # What each fork writes to here is copied for the parent and leaves its older copies alone with the page: no encoder.
        return b'{"id":%d,"pid":%d}' % (answer["id"], answer["pid"])
    return _dumps(answer).encode()


def _parse(message):
    try:
        return _loads(str(message, "utf-8"))
    except ValueError:
        return None


def _receive(channel):
    """One message with its descriptors, and whether all of it arrived."""
    try:
        message, control, flags, _ = _recvmsg(channel, _MESSAGE_BYTES_MAX, _CONTROL_BYTES, _CLOEXEC)
    except ConnectionError:
        return b"", [], True
    fds = []
    for level, kind, data in control:
        if (level, kind) == _RIGHTS:
            fds.extend(struct.unpack("=%di" % (len(data) // 4), data[: len(data) // 4 * 4]))
    return message, fds, not flags & _CUT_SHORT


def _fork_into(seat, home):
    """Forks into the seat's pid namespace. Returns 0 in the child, its pid (as this process sees it) in the parent."""
    namespace = seat.fds.get("pid")
    own_group = seat.fds.get("home")
    if own_group is not None and seat.cgroups:
        # The kernel charges a fork's page tables and stacks to the group of the forker. A template that stayed in its own
        # group would fill it with those of its copies.
        _write(seat.cgroups[0], b"0")
    pid = -1
    try:
        if namespace is not None:
            kernel.setns(namespace, kernel.CLONE_NEWPID, "pid")
        _hooks.quiet = True
        pid = _fork()
    finally:
        _hooks.quiet = False
        if pid != 0:
            try:
                if namespace is not None:
                    kernel.setns(home, kernel.CLONE_NEWPID, "own pid")
                if own_group is not None and seat.cgroups:
                    _write(own_group, b"0")
            except OSError:
                # Children would now be born in a stranger's namespace or group: better no forker than that.
                _exit(71)
    return pid


def enter(seat, of_template):
    """Makes the child what the protocol says it is before HELLO: groups, namespaces, descriptors, user, capabilities.

    `of_template`: the parent held user code, whose read-only files the child keeps.
    """
    fds = seat.fds
    try:
        for fd in seat.cgroups:
            _write(fd, b"0")
        # Signals to "my process group" must not reach the forker or other instances. A session of its own would do the
        # same and cost milliseconds: the scheduler makes a task group for each.
        os.setpgid(0, 0)
        for name, kind in _NAMESPACES:
            if name in fds:
                kernel.setns(fds[name], kind, name)
    except BaseException:
        # The caller tells the node on fd 3; until here that may be another process's stream.
        _dup2(fds["stream"], STREAM_FD, inheritable=False)
        raise
    _place(seat, of_template)
    _become(seat, of_template)
    if _renew_thread is not None:
        _renew_thread()


def _place(seat, of_template):
    # The received numbers may collide with the places they go to, so everything moves up first.
    wanted = [("stream", STREAM_FD), ("forker", FORKER_FD), ("landlock", LANDLOCK_FD)]
    high = {name: _fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 256) for name, fd in seat.fds.items()
            if name in ("stream", "output", "forker", "landlock")}
    for fd in set(seat.fds.values()).union(seat.cgroups, [seat.channel_fd]):
        _close(fd)
    for name, place in wanted:
        if name in high:
            _dup2(high[name], place, inheritable=False)
    _dup2(high["output"], 1)
    _dup2(high["output"], 2)
    for fd in high.values():
        _close(fd)
    for name, place in wanted:
        if name not in high:
            close_if_open(place)
    if not of_template:
        kernel.close_from(_FREE_FD)
        if "landlock" not in high:
            # A template's user code must not get this number for a file of its own.
            null = _open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
            if null != LANDLOCK_FD:
                _dup2(null, LANDLOCK_FD, inheritable=False)
                _close(null)


def close_if_open(fd):
    """Closes a descriptor that may not be open."""
    try:
        _close(fd)
    except OSError:
        pass


def _become(seat, of_template):
    kernel.keep_capabilities(1)
    if os.getgroups() and seat.gid is not None:
        os.setgroups([])
    if seat.gid is not None:
        os.setresgid(seat.gid, seat.gid, seat.gid)
    if seat.uid is not None:
        os.setresuid(seat.uid, seat.uid, seat.uid)
    kernel.keep_capabilities(0)
    kernel.reduce_capabilities(0 if of_template else kernel.FORKER_CAPS)
    kernel.no_new_privileges()
    kernel.set_dumpable()
