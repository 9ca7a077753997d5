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
    for name in PRELOADED:
        try:
            __import__(name)
        except ImportError:
            # Distributions cut the standard library differently; what is absent here is absent for user code too.
            pass
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
    shim.live(forker.run(channel), filters, output, stdlib)


if __name__ == "__main__":
    main()
