import json
import os

calls = 0


def handler(event, context):
    global calls
    calls += 1
    print("awslambdaric call", calls, json.dumps(event))
    if event.get("fail"):
        raise KeyError("asked to fail")
    return {
        "hello": event.get("name"),
        "calls": calls,
        "request_id": context.aws_request_id,
        "function": context.function_name,
        "memory": int(context.memory_limit_in_mb),
        "left": 0 < context.get_remaining_time_in_millis() <= 5000,
        "root": os.environ["LAMBDA_TASK_ROOT"],
    }
