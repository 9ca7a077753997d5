"""May this process be forked after user code was loaded in it, and what must a copy renew before it runs?"""

import fcntl
import os
import random
import re
import signal
import stat
import sys

from mayfly_forker import FORKER_FD, LANDLOCK_FD, STREAM_FD

# /dev/null, zero, full, random, urandom: every read is independent of every other reader.
_HARMLESS_DEVICES = frozenset(os.makedev(1, minor) for minor in (3, 5, 7, 8, 9))
_REASONS_MAX = 8
# What /proc/self/fd shows of one: "mnt:[4026531841]".
_NAMESPACE = re.compile(r"[a-z_]+:\[[0-9]+\]$")
_OURS = frozenset((0, 1, 2, STREAM_FD, FORKER_FD, LANDLOCK_FD))


def _scratch_folders():
    # A copy has its own, empty, instances of these.
    folders = ["/tmp", "/dev/shm"]
    home = os.environ.get("HOME", "")
    if home.startswith("/home/"):
        folders.append(home)
    return folders


def scratch_names():
    """What lies in the folders that every instance has for itself, so that files left by user code can be told."""
    names = set()
    for folder in _scratch_folders():
        try:
            names.update(os.path.join(folder, name) for name in os.listdir(folder))
        except OSError:
            pass
    return names


def reasons_against_forking(names_before):
    """Short English sentences, empty when copies of this process would each work as if they alone had been initialised.

    `names_before`: `scratch_names()` from before user code was loaded.
    """
    why = []
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        why.append("%d threads are running" % threads)
    children = _children()
    if children:
        why.append("%d child processes exist" % children if children > 1 else "a child process exists")
    if signal.getitimer(signal.ITIMER_REAL)[0] or signal.getitimer(signal.ITIMER_VIRTUAL)[0]:
        why.append("a timer is running")
    for fd in _descriptors():
        reason = _against_descriptor(fd)
        if reason:
            why.append("fd %d is %s" % (fd, reason))
    shared = _shared_mapping()
    if shared:
        why.append("memory is shared with other processes (%s)" % shared)
    left = sorted(scratch_names() - names_before)
    if left:
        why.append("files were left in %s" % ", ".join(sorted({os.path.dirname(name) for name in left})))
    return why[:_REASONS_MAX]


def _children():
    # Zombies count: user code may wait for them later. Without CONFIG_PROC_CHILDREN waitid still tells whether any exists.
    count = 0
    try:
        for task in os.listdir("/proc/self/task"):
            with open("/proc/self/task/%s/children" % task) as file:
                count += len(file.read().split())
        return count
    except OSError:
        pass
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return 1
    except ChildProcessError:
        return 0


def _descriptors():
    """Numbers of the open descriptors that user code opened, in order."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd in _OURS:
            continue
        try:
            os.fstat(fd)
        except OSError:
            continue  # the one that listed the folder
        found.append(fd)
    return sorted(found)


def _against_descriptor(fd):
    status = os.fstat(fd)
    mode = status.st_mode
    if stat.S_ISDIR(mode):
        return None
    if stat.S_ISREG(mode):
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
            return "a file open for writing"
        # Namespaces and processes show themselves as files, but have no reading position.
        try:
            os.lseek(fd, 0, os.SEEK_CUR)
        except OSError:
            return "a namespace" if _NAMESPACE.match(_target(fd)) else "a file without a reading position"
        # Two copies would share one reading position; `renew_files` gives each its own, if the file can be opened again.
        try:
            os.close(os.open("/proc/self/fd/%d" % fd, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            return "a file that cannot be opened again"
        return None
    if stat.S_ISCHR(mode) and status.st_rdev in _HARMLESS_DEVICES:
        return None
    if stat.S_ISSOCK(mode):
        return "a socket"
    if stat.S_ISFIFO(mode):
        return "a pipe"
    target = _target(fd)
    if target.startswith("anon_inode:"):
        name = target[len("anon_inode:"):].strip("[]")
        return {"eventpoll": "an epoll", "eventfd": "an event counter"}.get(name, "an object of kind " + name)
    return "a device" if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else "an object that cannot be shared"


def _target(fd):
    try:
        return os.readlink("/proc/self/fd/%d" % fd)
    except OSError:
        return ""


def _shared_mapping():
    with open("/proc/self/maps") as file:
        for line in file:
            fields = line.split(None, 5)
            if fields[1][1] == "w" and fields[1][3] == "s":
                return os.path.basename(fields[5].strip()) if len(fields) > 5 else "anonymous"
    return None


def renew_files():
    """In a copy: gives every read-only file that user code holds a reading position of its own."""
    for fd in _descriptors():
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            continue
        position = os.lseek(fd, 0, os.SEEK_CUR)
        inheritable = os.get_inheritable(fd)
        own = os.open("/proc/self/fd/%d" % fd, os.O_RDONLY | os.O_CLOEXEC)
        os.lseek(own, position, os.SEEK_SET)
        os.dup2(own, fd, inheritable=inheritable)
        os.close(own)


def renew_openssl():
    """In any child: gives OpenSSL's generator, which the zygote has set up, randomness of the child's own."""
    ssl = sys.modules.get("ssl")
    if ssl is not None:
        # It tells a fork by a changed pid alone.
        ssl.RAND_add(os.urandom(32), 32.0)


def renew_randomness(entropy, copy):
    """Makes sure that no two instances draw the same numbers.

    `entropy`: bytes from the node, mixed into what the kernel gives. `copy`: this process was forked from one that ran user code.
    Covered: `random`, `tempfile`, `uuid`; in a copy also OpenSSL (other children have called `renew_openssl`) and numpy's global
    generator. Generator objects that user code made itself cannot be found; `secrets`, `os.urandom` and `random.SystemRandom` ask
    the kernel each time and need nothing.
    """
    # A number goes straight into the generator; bytes would first be hashed by Python code.
    random.seed(int.from_bytes(os.urandom(32) + entropy, "little"))
    modules = sys.modules
    tempfile = modules.get("tempfile")
    if tempfile is not None and getattr(tempfile, "_name_sequence", None) is not None:
        # It renews itself when the pid changes, but in namespaces of their own two instances have the same pid.
        tempfile._name_sequence = None
    uuid = modules.get("uuid")
    if uuid is not None and (getattr(uuid, "_last_timestamp", None), getattr(uuid, "_node", None)) != (None, None):
        uuid._last_timestamp = None
        uuid._node = None
    if not copy:
        return
    renew_openssl()
    numpy_random = modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed(int.from_bytes(os.urandom(4), "little"))
