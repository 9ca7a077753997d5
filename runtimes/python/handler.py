"""User code: finding and loading the handler, the context it gets, and how its failures are told."""

import asyncio
import importlib.machinery
import json
import os
import sys
import time
import traceback

NOT_FOUND = 437
LOAD_FAILED = 443
INIT_FAILED = 445
USER_EXCEPTION = 430
RESULT_TOO_LARGE = 407

_MESSAGE_CHARS_MAX = 8192
_STACK_CHARS_MAX = 32768
# Files of the runtime carry this prefix in their code objects, wherever they lie on the host (see zygote.py).
_OUR_FILES = ("/var/runtime/", "<frozen importlib")
# Modules of which the standard library, already loaded, keeps references: a user's file of the same name must not replace them.
_IRREPLACEABLE = frozenset("abc builtins codecs collections copyreg enum functools io os posixpath re stat sys types typing".split())

_LOOP_FILES = (os.path.dirname(asyncio.__file__) + "/", "/var/runtime/")

_time = time.time
_listdir = os.listdir


class Failure(Exception):
    """What an ERROR frame says."""

    def __init__(self, status, kind, message, stack=""):
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.stack = stack

    def to_json(self):
        return json.dumps({
            "statusCode": self.status,
            "errorType": _clip(self.kind, 256),
            "errorMessage": _clip(self.message, _MESSAGE_CHARS_MAX),
            "stackTrace": _clip(self.stack, _STACK_CHARS_MAX),
        }).encode()


def _clip(text, chars_max):
    if len(text) <= chars_max:
        return text
    half = chars_max // 2
    return "%s\n… %d characters left out …\n%s" % (text[:half], len(text) - 2 * half, text[-half:])


def failure_of(status, error):
    """Tells an exception of user code, whatever its `__str__` does."""
    kind = type(error).__name__
    try:
        message = str(error)
    except BaseException:
        message = "<unprintable %s object>" % kind
    try:
        stack = _stack_of(error)
    except BaseException:
        # `traceback` runs user code (`__str__`, `__notes__`, source loaders), which may fail in any way.
        stack = "%s: %s\n" % (kind, message)
    return Failure(status, kind, message, stack)


def _stack_of(error):
    told = traceback.TracebackException(type(error), error, error.__traceback__)
    pending = [told]
    seen = set()
    while pending:
        part = pending.pop()
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        if part.stack is not None:
            part.stack[:] = [frame for frame in part.stack if not frame.filename.startswith(_OUR_FILES)]
        pending.extend((part.__cause__, part.__context__))
        pending.extend(getattr(part, "exceptions", None) or ())
    return "".join(told.format())


def result_too_large(size, size_max):
    return Failure(RESULT_TOO_LARGE, "ResponseTooLarge",
                   "the return value is %d bytes of JSON; at most %d are allowed" % (size, size_max))


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_encode_ascii = json.JSONEncoder(ensure_ascii=True, allow_nan=False).encode


def encode_result(value):
    """The return value as JSON text, in bytes. Raises `Failure` when JSON has no form for it."""
    try:
        text = _encode(value)
        try:
            return text.encode()
        except UnicodeEncodeError:
            # Half of a surrogate pair: UTF-8 cannot carry it, a JSON escape can.
            return _encode_ascii(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise Failure(USER_EXCEPTION, type(error).__name__,
                      "the return value cannot be expressed in JSON: %s" % error) from None
    except Exception as error:
        # A subclass of dict or int may run any code while it is read.
        raise failure_of(USER_EXCEPTION, error) from None


class Context(dict):
    """The handler's second argument: SCF's dict, with the attributes that handlers written for AWS Lambda read."""

    _ALIASES = {"aws_request_id": "request_id"}
    identity = None
    client_context = None

    def __getattr__(self, name):
        try:
            return self[self._ALIASES.get(name, name)]
        except KeyError:
            raise AttributeError("the context has no %r" % name) from None

    def get_remaining_time_in_millis(self):
        """Milliseconds until the invocation times out; never negative."""
        return max(0, int(self._deadline_ms - _time() * 1000))

    def log(self, message):
        """Prints a line to the log of this invocation."""
        sys.stdout.write("%s\n" % (message,))

    @property
    def invoked_function_arn(self):
        """The function's six-segment resource name."""
        return "qcs::scf:%s:uin/%s:namespace/%s/function/%s" % (
            self.get("tencentcloud_region", ""), self.get("tencentcloud_uin", ""),
            self.get("namespace", ""), self.get("function_name", ""))

    @property
    def log_group_name(self):
        return os.environ.get("AWS_LAMBDA_LOG_GROUP_NAME", "")

    @property
    def log_stream_name(self):
        return os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME", "")


def context_base(bound):
    """The part of the context that is the same for every invocation, from BIND's `context`."""
    given = bound.get("context") or {}
    environ = given.get("environ")
    if not isinstance(environ, dict):
        environ = bound.get("environment") or {}
    base = {key: given.get(key) for key in (
        "memory_limit_in_mb", "time_limit_in_ms", "request_id", "function_version", "function_name", "namespace",
        "tencentcloud_region", "tencentcloud_appid", "tencentcloud_uin")}
    base["environment"] = json.dumps(environ, ensure_ascii=False, separators=(",", ":"))
    base["environ"] = ";".join("%s=%s" % pair for pair in environ.items())
    return base


def prepare_path(code, environment, stdlib):
    """Sets `sys.path`: the package, the layers, `PYTHONPATH`, then the standard library as it was at the start."""
    wanted = [code, "/var/user", "/opt", "/opt/python"] + environment.get("PYTHONPATH", "").split(":")
    front = []
    for folder in wanted:
        folder = folder.rstrip("/") if len(folder) > 1 else folder
        if folder and folder not in front and folder not in stdlib and os.path.isdir(folder):
            front.append(folder)
    sys.path[:] = front + stdlib
    _forget_shadowed(code)


def _forget_shadowed(code):
    """Modules of the standard library were loaded ahead; a file of the package with the same name comes before them."""
    try:
        names = _listdir(code)
    except OSError:
        return
    for name in names:
        module = name[:-3] if name.endswith(".py") else ""
        if module in sys.modules and module not in _IRREPLACEABLE and not module.startswith(("_", "mayfly_")):
            origin = getattr(sys.modules[module], "__file__", None)
            if origin and not origin.startswith(code + "/"):
                for loaded in [key for key in sys.modules if key == module or key.startswith(module + ".")]:
                    del sys.modules[loaded]


def load(handler, code):
    """Imports the handler's module and returns its function. Raises `Failure`; lets `SystemExit` through."""
    module_name, function_name = _split(handler, code)
    try:
        # Unlike `importlib.import_module`, this leaves no frame of the library in the stack.
        __import__(module_name)
        module = sys.modules[module_name]
    except SystemExit:
        raise
    except BaseException as error:
        raise failure_of(LOAD_FAILED, error) from None
    try:
        function = getattr(module, function_name)
    except AttributeError:
        raise Failure(NOT_FOUND, "HandlerNotFound",
                      "the module `%s` has no function `%s`" % (module_name, function_name)) from None
    if not callable(function):
        raise Failure(NOT_FOUND, "HandlerNotFound",
                      "`%s` in the module `%s` is not a function" % (function_name, module_name))
    return function


def _split(handler, code):
    """The module and function that `dir/file.function` or `package.module.function` name; the module's file exists."""
    path, dot, function_name = handler.rpartition(".")
    if not dot or not path or not function_name or "\0" in handler:
        raise Failure(NOT_FOUND, "HandlerNotFound", "the handler `%s` is not of the form file.function" % handler)
    while path.startswith("./"):
        path = path[2:]
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise Failure(NOT_FOUND, "HandlerNotFound", "the handler `%s` leads out of the package" % handler)
    parts = [part for section in parts for part in section.split(".")]
    try:
        found = all(parts) and _exists(parts)
    except (OSError, ValueError, ImportError):
        found = False
    if not found:
        raise Failure(NOT_FOUND, "HandlerNotFound", "the package has no file `%s.py`" % path)
    return ".".join(parts), function_name


def _exists(parts):
    # Only looked up, not run: an ImportError inside the user's code must be told apart from a missing file.
    folders = sys.path
    for depth, part in enumerate(parts):
        name = ".".join(parts[: depth + 1])
        spec = importlib.machinery.PathFinder.find_spec(name, folders)
        if spec is None:
            return False
        folders = list(spec.submodule_search_locations or ())
        if depth + 1 < len(parts) and not folders:
            return False
    return spec.origin is not None


_loop = None


def run_to_end(awaitable):
    """Runs what an `async def` handler returned, on one event loop that lives as long as the instance."""
    global _loop
    if _loop is None or _loop.is_closed():
        _loop = asyncio.new_event_loop()
        asyncio.set_event_loop(_loop)
    try:
        return _loop.run_until_complete(awaitable)
    except BaseException as error:
        # The frames of the event loop itself tell the user nothing.
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_LOOP_FILES):
            trace = trace.tb_next
        raise error.with_traceback(trace)
