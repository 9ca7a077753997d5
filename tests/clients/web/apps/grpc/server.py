"""A gRPC server as in gRPC's Python basics: synchronous, on a pool of threads."""

import time
from concurrent import futures

import demo_pb2
import demo_pb2_grpc
import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

fates = {}


class Demo(demo_pb2_grpc.DemoServicer):
    def Get(self, request, context):
        metadata = {k: v.hex() if isinstance(v, bytes) else v for k, v in context.invocation_metadata()}
        if request.text == "fail":
            detail = any_pb2.Any()
            detail.Pack(error_details_pb2.ErrorInfo(reason="ON_PURPOSE", domain="demo", metadata={"n": str(request.number)}))
            context.abort_with_status(rpc_status.to_status(status_pb2.Status(code=code_pb2.FAILED_PRECONDITION, message="asked to fail: größer\n100%", details=[detail])))
        if request.text == "trail":
            context.set_trailing_metadata((("x-trail", "end"), ("x-trail-bin", b"\x00\xff\r\n")))
            context.abort(grpc.StatusCode.ABORTED, "")
        if request.text == "raise":
            raise ValueError("on purpose")
        context.send_initial_metadata((("x-first", "1"), ("x-first-bin", b"\x01\xfe")))
        context.set_trailing_metadata((("x-last", "2"),))
        return demo_pb2.Reply(text=request.text, number=request.number + 1, data=request.data, metadata=metadata)

    def List(self, request, context):
        n = 0
        while context.is_active() and (request.number < 0 or n < request.number):
            yield demo_pb2.Reply(text=request.text, number=n)
            n += 1
            if request.number < 0:
                time.sleep(0.02)
        if not context.is_active():
            fates[request.text] = n

    def Sum(self, requests, context):
        total, size = 0, 0
        for request in requests:
            if request.text == "slow":
                time.sleep(1)
                if not context.is_active():
                    fates["slow"] = size
            total += request.number
            size += len(request.data)
        return demo_pb2.Reply(number=total, text=str(size))

    def Chat(self, requests, context):
        for request in requests:
            if request.text == "wait":
                begun = time.monotonic()
                while context.is_active() and time.monotonic() - begun < 30:
                    time.sleep(0.01)
                fates[str(request.number)] = int((time.monotonic() - begun) * 1000)
                return
            yield demo_pb2.Reply(text=request.text.upper(), number=request.number)

    def Fate(self, request, context):
        return demo_pb2.Reply(number=fates.get(request.text, -1))


def serve():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=40), options=[("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)])
    demo_pb2_grpc.add_DemoServicer_to_server(Demo(), server)
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    server.add_insecure_port("[::]:9000")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    serve()
