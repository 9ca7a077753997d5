"""Entry of the Python runtime: a process that holds the interpreter and the standard library in memory and forks.

It runs no user code and keeps no state between requests. Its children become instances (shim.py). All of them share its
memory pages, its hash seed and its address-space layout, as forks do.
"""

import gc
import os
import sys
import types

# What handlers commonly import. Every entry costs memory once per node and saves its import in every instance.
PRELOADED = """
    _strptime abc argparse array ast asyncio atexit base64 binascii bisect calendar codecs collections collections.abc
    concurrent.futures concurrent.futures.thread contextlib contextvars copy csv ctypes dataclasses datetime decimal email.message
    email.parser encodings.ascii encodings.idna encodings.latin_1 encodings.utf_8 enum errno fcntl fnmatch fractions functools
    getpass glob gzip hashlib heapq hmac html html.parser http http.client http.cookies importlib.metadata inspect io itertools
    json keyword linecache locale logging logging.handlers math mimetypes numbers operator os pathlib pickle platform pprint queue random re
    secrets select selectors shlex shutil signal socket ssl stat statistics string struct subprocess sys tempfile textwrap
    threading time traceback types typing unicodedata urllib.error urllib.parse urllib.request uuid warnings weakref
    xml.etree.ElementTree zipfile zlib zoneinfo
""".split()

# Their fork hooks make locks anew and forget other threads (and reseed `random`, which every child does anyway). Forks of ours
# happen in a process of one thread that is inside none of these locks; running the hooks all the same would cost each
# instance a quarter of a megabyte of pages that it shares otherwise.
NEEDLESS_HOOKS_OF = frozenset(["threading", "logging", "concurrent.futures.thread", "random"])

# In the order in which they need each other.
PARTS = ("kernel", "forker", "soundness", "handler", "shim")


def load_part(name, folder):
    """Loads one of our files under a file name that tells nothing of the host, and that stack traces can be cleaned of."""
    with open(os.path.join(folder, name + ".py"), "rb") as file:
        source = file.read()
    module = types.ModuleType("mayfly_" + name)
    sys.modules[module.__name__] = module
    exec(compile(source, "/var/runtime/python/%s.py" % name, "exec"), module.__dict__)
    return module


class ForkHooks:
    """Stands in for `os.register_at_fork` while the standard library is loaded, and puts one set of hooks in place of many.

    Forks by user code run every hook, in the order that `os.register_at_fork` promises. Forks by a forker, which sets `quiet`,
    leave out those of `NEEDLESS_HOOKS_OF`.
    """

    def __init__(self):
        self.quiet = False
        self._hooks = []
        self._register = os.register_at_fork

    def __enter__(self):
        os.register_at_fork = self._record
        return self

    def __exit__(self, *_):
        os.register_at_fork = self._register
        self._register(before=self._before, after_in_parent=self._in_parent, after_in_child=self._in_child)

    def _record(self, *, before=None, after_in_parent=None, after_in_child=None):
        needless = sys._getframe(1).f_globals.get("__name__") in NEEDLESS_HOOKS_OF
        self._hooks.append((needless, before, after_in_parent, after_in_child))

    def _before(self):
        for hooks in reversed(self._hooks):
            self._run(hooks, 1)

    def _in_parent(self):
        for hooks in self._hooks:
            self._run(hooks, 2)

    def _in_child(self):
        for hooks in self._hooks:
            self._run(hooks, 3)

    def _run(self, hooks, which):
        if hooks[which] is not None and not (self.quiet and hooks[0]):
            hooks[which]()


def read_filter(kernel, variable):
    """The seccomp program whose path stands in an environment variable, or `None`."""
    path = os.environ.get(variable)
    if not path:
        return None
    with open(path, "rb") as file:
        return kernel.Filter(file.read())


def main():
    stdlib = list(sys.path)
    folder = os.path.dirname(os.path.abspath(__file__))
    stdlib = [entry for entry in stdlib if entry and os.path.abspath(entry) != folder]
    sys.path[:] = stdlib
    with ForkHooks() as hooks:
        for name in PRELOADED:
            try:
                __import__(name)
            except ImportError:
                # Distributions cut the standard library differently; what is absent here is absent for user code too.
                pass
    if "ssl" in sys.modules:
        # Has OpenSSL fetch its algorithms and set up its generator here, and not in each child (600 KB, 3 ms). Children add
        # randomness of their own before user code runs.
        sys.modules["ssl"].RAND_add(os.urandom(32), 32.0)
    # `-S` keeps the host's site-packages out; `exit`, `quit` and `help` are part of the language all the same.
    import site

    site.setquit()
    site.setcopyright()
    site.sethelper()

    parts = {name: load_part(name, folder) for name in PARTS}
    kernel, forker, shim = parts["kernel"], parts["forker"], parts["shim"]
    filters = shim.Filters(read_filter(kernel, "MAYFLY_FILTER_INSTANCE"), read_filter(kernel, "MAYFLY_FILTER_TEMPLATE"))
    channel = int(os.environ["MAYFLY_FORKER_FD"])

    try:
        # Away from the terminal that the node may have been started on.
        os.setsid()
    except PermissionError:
        pass
    null = os.open("/dev/null", os.O_RDONLY)
    if null != 0:
        os.dup2(null, 0)
        os.close(null)
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)
    output = shim.open_output()
    os.umask(0o022)
    os.environ.clear()
    try:
        kernel.overwrite_command_line("mayfly: python")
    except OSError:
        # Without /proc nobody can read the command line either.
        pass
    # User code finds an ordinary, empty main module and none of ours.
    for name in PARTS:
        del sys.modules["mayfly_" + name]
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.argv = [""]
    if hasattr(sys, "orig_argv"):
        sys.orig_argv = [sys.executable]

    # The collector writes into every object it looks at; frozen ones it leaves alone, and their pages stay shared.
    gc.collect()
    gc.freeze()
    gc.disable()
    forker.use_hooks(hooks)
    shim.live(forker.run(channel), filters, output, stdlib)


if __name__ == "__main__":
    main()
