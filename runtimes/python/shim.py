"""One instance: the frames on fd 3, from HELLO to the last INVOKE. See docs/runtime-protocol.md."""

import gc
import io
import json
import os
import sys
import time

import mayfly_forker as forker
import mayfly_handler as handler_part
import mayfly_kernel as kernel
import mayfly_soundness as soundness
from mayfly_handler import Context, Failure

_BIND, _INVOKE = 1, 2
_HELLO, _READY, _ERROR, _RESULT = 0x81, 0x82, 0x83, 0x84
_PAYLOAD_BYTES_MAX = 16 * 1024 * 1024
_READ_BYTES = 65536
_VERSION = "%d.%d.%d" % sys.version_info[:3]
# Made ahead: what an instance does not do itself costs it no memory.
_HELLO_PAYLOAD = json.dumps({"protocol": 1, "runtime": "python", "version": _VERSION}).encode()
_COPY_READY_PAYLOAD = json.dumps({"init_us": 0, "fork": None}).encode()

# Kept apart from what user code may put in their places.
_read = os.read
_readv = os.readv
_write = os.write
_exit = os._exit
_decode = json.JSONDecoder().decode
_environ = os.environ
_clock_ns = time.perf_counter_ns


class Filters:
    """The seccomp programs of an instance and of a template; `None` where the node gave none."""

    def __init__(self, instance, template):
        self.instance = instance
        self.template = template


def open_output():
    """Puts text streams over fds 1 and 2 that pass every finished line on at once and never fail for a character."""
    streams = []
    for fd in (1, 2):
        raw = io.FileIO(fd, "w", closefd=False)
        streams.append(io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace",
                                        newline="\n", line_buffering=True))
    sys.stdout = sys.__stdout__ = streams[0]
    sys.stderr = sys.__stderr__ = streams[1]
    kernel.line_buffer_stdio()
    return tuple(streams)


class Instance:
    """What a process needs to serve invocations once it was bound."""

    def __init__(self, filters, output, stdlib):
        self.filters = filters
        self.output = output
        self.stdlib = stdlib
        self.rest = b""
        self.function = None
        self.base = None
        self.result_bytes_max = 0
        self.has_landlock = False

    # --- frames ---------------------------------------------------------------------------------------------------

    def receive(self):
        """The next frame as (kind, payload). Ends the process at the end of the stream or at a frame that is none."""
        data = self.rest or _read(3, _READ_BYTES)
        while len(data) < 8:
            more = _read(3, _READ_BYTES) if data else b""
            if not more:
                _exit(0)
            data += more
        size = int.from_bytes(data[:4], "little")
        kind = data[4]
        if size > _PAYLOAD_BYTES_MAX or kind not in (_BIND, _INVOKE) or data[5:8] != b"\0\0\0":
            _exit(1)
        end = 8 + size
        have = len(data)
        if have >= end:
            self.rest = data[end:]
            return kind, data[8:end] if have > end else data[8:]
        self.rest = b""
        payload = bytearray(size)
        have -= 8
        payload[:have] = data[8:]
        view = memoryview(payload)
        while have < size:
            count = _readv(3, (view[have:],))
            if count == 0:
                _exit(0)
            have += count
        return kind, payload

    def send(self, kind, payload):
        """Writes one frame; what user code printed goes out first."""
        self.flush()
        frame = len(payload).to_bytes(4, "little") + bytes((kind, 0, 0, 0)) + payload
        try:
            count = _write(3, frame)
            if count != len(frame):
                view = memoryview(frame)
                while count < len(frame):
                    count += _write(3, view[count:])
        except OSError:
            _exit(0)

    def flush(self):
        out, err = self.output
        for stream in (out, err) if sys.stdout is out and sys.stderr is err else (sys.stdout, sys.stderr, out, err):
            try:
                stream.flush()
            except Exception:
                # Closed, replaced by something else, or the pipe is gone: the answer is due all the same.
                pass

    def fail(self, failure):
        self.send(_ERROR, failure.to_json())

    # --- life -----------------------------------------------------------------------------------------------------

    def hello(self):
        self.send(_HELLO, _HELLO_PAYLOAD)

    def ready(self, init_us, fork):
        self.send(_READY, json.dumps({"init_us": init_us, "fork": fork}).encode())

    def confine(self):
        """The last door: no capability, Landlock, the instance's system calls only."""
        kernel.reduce_capabilities(0)
        if self.has_landlock:
            kernel.restrict_with_landlock(forker.LANDLOCK_FD)
            self.has_landlock = False
        forker.close_if_open(forker.LANDLOCK_FD)
        if self.filters.instance is not None:
            self.filters.instance.install()

    def bind(self):
        """Waits for BIND and loads the user's code. Returns once this process may serve invocations."""
        kind, payload = self.receive()
        if kind != _BIND:
            _exit(1)
        bound = _decode(str(payload, "utf-8"))
        template = bound.get("template") is True
        has_forker = _is_open(forker.FORKER_FD)
        if template and has_forker:
            if self.filters.template is not None:
                self.filters.template.install()
        else:
            self.confine()
        if not template and has_forker:
            os.close(forker.FORKER_FD)
        environment = bound.get("environment") or {}
        code = bound["code"]
        self.base = handler_part.context_base(bound)
        self.result_bytes_max = bound["result_bytes_max"]
        _replace_environment(environment)
        soundness.renew_randomness(bytes.fromhex(bound.get("entropy") or ""), copy=False)
        os.chdir(code)
        handler_part.prepare_path(code, environment, self.stdlib)
        sys.argv = [""]
        names_before = soundness.scratch_names() if template else None
        start = _clock_ns()
        gc.enable()
        try:
            self.function = handler_part.load(bound["handler"], code)
        except SystemExit as end:
            raise Failure(handler_part.INIT_FAILED, "SystemExit",
                          "the code called sys.exit(%s) while it was loaded" % _exit_code(end)) from None
        init_us = (_clock_ns() - start) // 1000
        if not template:
            self.ready(init_us, None)
            return
        why = soundness.reasons_against_forking(names_before) if has_forker else ["the node gave no forker socket"]
        if why:
            if has_forker:
                os.close(forker.FORKER_FD)
                self.confine()
            self.ready(init_us, {"sound": False, "why": why})
            return
        self.ready(init_us, {"sound": True, "why": []})
        self.be_copied()

    def be_copied(self):
        """Serves the forker socket as a template. Returns only in a copy, which is then an instance of its own."""
        # What is alive now stays as it is in all copies: collected and moved where the collector does not write.
        collecting = gc.isenabled()
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            folder = os.getcwd()
        except OSError:
            folder = "/"
        seat = forker.run(forker.FORKER_FD, watch_fd=forker.STREAM_FD)
        forker.enter(seat, of_template=True)
        # Entering a mount namespace leads to its root folder.
        os.chdir(folder)
        soundness.renew_files()
        self.has_landlock = "landlock" in seat.fds
        self.confine()
        soundness.renew_randomness(b"", copy=True)
        if collecting:
            gc.enable()
        self.hello()
        self.send(_READY, _COPY_READY_PAYLOAD)

    def serve(self):
        """Answers invocations until the stream ends."""
        function = self.function
        base = self.base
        result_bytes_max = self.result_bytes_max
        encode = handler_part.encode_result
        trigger = None
        while True:
            kind, payload = self.receive()
            if kind != _INVOKE:
                _exit(1)
            meta_end = 4 + int.from_bytes(payload[:4], "little")
            if len(payload) < meta_end:
                _exit(1)
            meta = _decode(str(payload[4:meta_end], "utf-8"))
            context = Context(base)
            context["request_id"] = meta["request_id"]
            context._deadline_ms = meta["deadline_ms"]
            if meta.get("trigger") != trigger:
                trigger = meta.get("trigger")
                _set_trigger(trigger)
            failure = None
            try:
                event = _decode(str(payload[meta_end:], "utf-8"))
                payload = None
                result = function(event, context)
                if hasattr(result, "__await__"):
                    result = handler_part.run_to_end(result)
                answer = encode(result)
            except SystemExit as end:
                self.leave(end)
            except Failure as error:
                failure = error
            except BaseException as error:
                failure = handler_part.failure_of(handler_part.USER_EXCEPTION, error)
            if failure is None and len(answer) > result_bytes_max:
                failure = handler_part.result_too_large(len(answer), result_bytes_max)
            if failure is None:
                self.send(_RESULT, answer)
            else:
                self.fail(failure)
            # An idle instance holds nothing of the invocation that is over.
            event = context = result = answer = failure = payload = None

    def leave(self, end):
        """`sys.exit` in a handler ends the process, as it would anywhere; the node tells the caller."""
        self.flush()
        code = _exit_code(end)
        if isinstance(code, int):
            _exit(code & 0xFF)
        try:
            _write(2, ("%s\n" % (code,)).encode("utf-8", "backslashreplace"))
        except Exception:
            pass
        _exit(1)


def _exit_code(end):
    return 0 if end.code is None else end.code


def _is_open(fd):
    try:
        os.fstat(fd)
        return True
    except OSError:
        return False


def _replace_environment(environment):
    _environ.clear()
    for key, value in environment.items():
        _environ[key] = value
    time.tzset()


def _set_trigger(trigger):
    if trigger is None:
        _environ.pop("TRIGGER_SRC", None)
    else:
        _environ["TRIGGER_SRC"] = trigger


def live(seat, filters, output, stdlib):
    """The whole life of a child of the zygote. Never returns."""
    instance = Instance(filters, output, stdlib)
    failure = None
    try:
        forker.enter(seat, of_template=False)
        instance.has_landlock = "landlock" in seat.fds
        # Here it is not on the way of a call: children of the zygote are made in advance.
        soundness.renew_openssl()
        instance.hello()
        instance.bind()
        instance.serve()
    except Failure as error:
        failure = error
    except BaseException as error:
        failure = Failure(handler_part.INIT_FAILED, type(error).__name__, "the runtime could not start: %s" % (error,))
    try:
        instance.fail(failure)
    finally:
        _exit(1)
