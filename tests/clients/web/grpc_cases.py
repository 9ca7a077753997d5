"""gRPC with Google's own client: all four kinds of calls, metadata, deadlines, cancellation, errors with details, over HTTP/2 without TLS."""

import concurrent.futures
import threading
import time

import demo_pb2
import demo_pb2_grpc
import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from harness import equal, expect, until

BIG = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]


def status_of(work):
    """The error that a call ends with."""
    try:
        work()
    except grpc.RpcError as error:
        return error
    raise AssertionError("it did not fail")


def run(session, target, authority):
    channel = grpc.insecure_channel(target, options=[("grpc.default_authority", authority), *BIG])
    stub = demo_pb2_grpc.DemoStub(channel)
    request = demo_pb2.Request

    with session.check("gRPC: unary call with metadata both ways, text and binary") as notes:
        reply, call = stub.Get.with_call(request(text="größer", number=41), metadata=(("x-own", "a b"), ("x-own-bin", b"\x00\xff\x0a")), timeout=60)
        equal((reply.text, reply.number), ("größer", 42))
        equal((reply.metadata["x-own"], reply.metadata["x-own-bin"]), ("a b", "00ff0a"))
        first, last = dict(call.initial_metadata()), dict(call.trailing_metadata())
        equal((first["x-first"], first["x-first-bin"], last["x-last"]), ("1", b"\x01\xfe", "2"))
        equal((call.code(), reply.metadata["x-scf-name"]), (grpc.StatusCode.OK, "grpc"))
        expect(reply.metadata["user-agent"].startswith("grpc-python/"), reply.metadata)
        expect("x-scf-request-id" in first, first)
    with session.check("gRPC: server stream, client stream, both"):
        equal([r.number for r in stub.List(request(text="l", number=50), timeout=30)], list(range(50)))
        equal(stub.Sum((request(number=n, data=bytes(100)) for n in range(1000)), timeout=30), demo_pb2.Reply(number=499500, text="100000"))
        # One message at a time: each answer must come before the next question is asked.
        answered = threading.Semaphore(1)

        def questions():
            for n in range(50):
                expect(answered.acquire(timeout=10), f"no answer to {n}")
                yield request(text=f"q{n}", number=n)

        got = []
        for reply in stub.Chat(questions(), timeout=30):
            got.append((reply.text, reply.number))
            answered.release()
        equal(got, [(f"Q{n}", n) for n in range(50)])
        equal(list(stub.List(request(number=0), timeout=10)), [])
        equal(list(stub.Chat(iter(()), timeout=10)), [])
    with session.check("gRPC: many small messages, faster than they are read: by the visitor, by the server; other calls go on") as notes:
        for n in range(30):
            equal(sum(1 for _ in stub.List(request(number=1000), timeout=30)), 1000)
        paused = stub.List(request(text="paused", number=30_000), timeout=60)
        equal(next(paused).number, 0)
        for n in range(20):
            equal(stub.Get(request(number=n), timeout=10).number, n + 1)
            time.sleep(0.05)
        equal([r.number for r in paused], list(range(1, 30_000)))
        slow = stub.Sum.future((request(number=n, text="slow" if n == 0 else "") for n in range(30_000)), timeout=60)
        for n in range(20):
            equal(stub.Get(request(number=n), timeout=10).number, n + 1)
            time.sleep(0.05)
        equal(slow.result().number, sum(range(30_000)))
    with session.check("gRPC: 20 MB messages, compressed ones, 2,000 calls on one connection") as notes:
        data = bytes(range(256)) * 80_000
        expect(stub.Get(request(data=data), timeout=60).data == data, "20 MB did not come back")
        expect(stub.Get(request(data=data), timeout=60, compression=grpc.Compression.Gzip).data == data, "20 MB compressed did not come back")
        begun = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            equal(sorted(r.number for r in pool.map(lambda n: stub.Get(request(number=n), timeout=60), range(2000))), list(range(1, 2001)))
        notes.append(f"{2000 / (time.monotonic() - begun):.0f} calls a second")
    with session.check("gRPC: errors with details and trailers, exceptions, unknown methods") as notes:
        error = status_of(lambda: stub.Get(request(text="fail", number=7), timeout=10))
        equal((error.code(), error.details()), (grpc.StatusCode.FAILED_PRECONDITION, "asked to fail: größer\n100%"))
        info = error_details_pb2.ErrorInfo()
        expect(rpc_status.from_call(error).details[0].Unpack(info), "no details")
        equal((info.reason, dict(info.metadata)), ("ON_PURPOSE", {"n": "7"}))
        error = status_of(lambda: stub.Get(request(text="trail"), timeout=10))
        trailers = dict(error.trailing_metadata())
        equal((error.code(), error.details()), (grpc.StatusCode.ABORTED, ""))
        equal((trailers["x-trail"], trailers["x-trail-bin"]), ("end", b"\x00\xff\r\n"))
        equal(status_of(lambda: stub.Get(request(text="raise"), timeout=10)).code(), grpc.StatusCode.UNKNOWN)
        missing = channel.unary_unary("/demo.Demo/Nothing", None, None)
        equal(status_of(lambda: missing(b"", timeout=10)).code(), grpc.StatusCode.UNIMPLEMENTED)
    with session.check("gRPC: the deadline reaches the server, which is freed by it") as notes:
        begun = time.monotonic()
        error = status_of(lambda: list(stub.Chat(iter([request(text="wait", number=1)]), timeout=0.7)))
        took = time.monotonic() - begun
        equal(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        expect(0.6 < took < 3, f"after {took} s")
        until("the server saw its call end", lambda: stub.Fate(request(text="1"), timeout=10).number >= 0, 5)
        equal(stub.Get(request(), timeout=123).metadata.get("grpc-timeout"), None)
        notes.append(f"the server's part ended after {stub.Fate(request(text='1'), timeout=10).number} ms")
    with session.check("gRPC: cancelling reaches the server: a server's stream, a waiting call, a channel that closes") as notes:
        stream = stub.List(request(text="endless", number=-1), timeout=60)
        next(stream), next(stream)
        stream.cancel()
        until("the server's stream ended", lambda: stub.Fate(request(text="endless"), timeout=10).number >= 2)
        done = threading.Event()

        def open_questions():
            yield request(text="wait", number=2)
            done.wait(30)

        call = stub.Chat(open_questions(), timeout=60)
        time.sleep(0.3)
        call.cancel()
        done.set()
        until("the server's call ended", lambda: stub.Fate(request(text="2"), timeout=10).number >= 0)
        other = grpc.insecure_channel(target, options=[("grpc.default_authority", authority), ("grpc.use_local_subchannel_pool", 1)])
        stream = demo_pb2_grpc.DemoStub(other).List(request(text="closed", number=-1), timeout=60)
        next(stream)
        other.close()
        until("the server's stream ended with its channel", lambda: stub.Fate(request(text="closed"), timeout=10).number >= 1)
        waits = int(stub.Fate(request(text="2"), timeout=10).number)
        expect(waits < 10_000, f"it took {waits} ms")
    with session.check("gRPC: the standard health service; waiting for a channel") as notes:
        grpc.channel_ready_future(channel).result(10)
        health = health_pb2_grpc.HealthStub(channel)
        equal(health.Check(health_pb2.HealthCheckRequest(), timeout=10).status, health_pb2.HealthCheckResponse.SERVING)
        watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=10)
        equal(next(watch).status, health_pb2.HealthCheckResponse.SERVING)
        watch.cancel()
    with session.check("gRPC: a function that does not exist is UNIMPLEMENTED or NOT_FOUND, not a hang") as notes:
        other = grpc.insecure_channel(target, options=[("grpc.default_authority", authority.replace("grpc.", "nobody.", 1))])
        error = status_of(lambda: demo_pb2_grpc.DemoStub(other).Get(request(), timeout=10))
        expect(error.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND), error)
        notes.append(f"{error.code().name}: {error.details()}")
        other.close()
    channel.close()
