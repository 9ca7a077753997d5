"""Programs written for the cloud, unchanged, as functions: Tencent's own snippets, AWS's runtime clients, and Rust programs on `lambda_runtime` and `tencent_scf`."""

import base64
import gzip
import hashlib
import json
import os
import pathlib

from harness import ENDPOINT, REGION, SECRET_ID, SECRET_KEY, Session, equal, expect, folder, package, source, until
from tencentcloud.common import credential
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile
from tencentcloud.scf.v20180416 import models, scf_client

SCF = scf_client.ScfClient(
    credential.Credential(SECRET_ID, SECRET_KEY),
    REGION,
    ClientProfile(httpProfile=HttpProfile(protocol="http", endpoint=ENDPOINT, reqTimeout=60)),
)


def call(action, **parameters):
    request = getattr(models, action + "Request")()
    request.from_json_string(json.dumps(parameters))
    return getattr(SCF, action)(request)


def deploy(name, runtime, files, handler="index.main_handler", **more):
    call(
        "CreateFunction",
        FunctionName=name,
        Runtime=runtime,
        Handler=handler,
        Timeout=5,
        MemorySize=256,
        Environment={"Variables": [{"Key": "WHO", "Value": "stranger"}]},
        Code={"ZipFile": package(files)},
        **more,
    )

    def look():
        answer = call("GetFunction", FunctionName=name)
        expect(not answer.Status.endswith("Failed"), f"{answer.Status}: {answer.StatusDesc}")
        return answer.Status == "Active"

    until(f"{name} is Active", look)


def invoke(name, event):
    """One call that must succeed: (value, Result)."""
    result = call("Invoke", FunctionName=name, ClientContext=json.dumps(event), LogType="Tail").Result
    equal((result.InvokeResult, result.ErrMsg or ""), (0, ""))
    return json.loads(result.RetMsg), result


def fails(name, event, status, *words):
    """One call that must fail with this status; every word must be in what is told."""
    result = call("Invoke", FunctionName=name, ClientContext=json.dumps(event), LogType="Tail").Result
    expect(result.InvokeResult == -1 and result.ErrMsg, f"it did not fail: {result.RetMsg}")
    told = json.loads(result.ErrMsg)
    equal(told["statusCode"], status)
    for word in words:
        expect(word in result.ErrMsg, f"{word!r} is not in {result.ErrMsg}")
    return told, result


def cold(result):
    """The Init Report's phases, or what the warm call took."""
    line = next((line for line in result.Log.splitlines() if line.startswith("Init Report")), None)
    return line.split("Coldstart: ")[1].split(" Memory:")[0] if line else "no cold start"


session = Session("programs written for the cloud, as functions")


def program(title, name, files, log, error_words):
    """Hello, a second call on the warm instance, an error, and a call after it. Each program counts its calls in memory."""
    with session.check(f"{title}: hello") as notes:
        deploy(name, "CustomRuntime", files, handler="app.handler")
        value, result = invoke(name, {"name": "first"})
        equal((value["hello"], value["calls"], value["request_id"]), ("first", 1, result.FunctionRequestId))
        expect(log in result.Log, f"{log!r} is not in the log {result.Log!r}")
        for key, wanted in [("function", name), ("memory", 256), ("left", True)]:
            if key in value:
                equal((key, value[key]), (key, wanted))
        notes += [result.RetMsg, f"cold {cold(result)}", f"{result.Duration} ms"]
    with session.check(f"{title}: second call, warm") as notes:
        value, result = invoke(name, {"name": "second"})
        equal((value["hello"], value["calls"], value["request_id"]), ("second", 2, result.FunctionRequestId))
        equal(cold(result), "no cold start")
        notes += [f"calls {value['calls']}", f"{result.Duration} ms"]
    with session.check(f"{title}: error") as notes:
        told, _ = fails(name, {"fail": True}, 430, "asked to fail", *error_words)
        notes.append(json.dumps(told)[:300])
    with session.check(f"{title}: a call after the error") as notes:
        value, result = invoke(name, {"name": "third"})
        equal(value["hello"], "third")
        notes += [f"calls {value['calls']}", f"{result.Duration} ms"]
        call("DeleteFunction", FunctionName=name)


def built(variable):
    """A path that runtimes.sh put into the environment, or a failure that says where to look."""
    path = os.environ.get(variable)
    expect(path, f"not built: see above ({variable})")
    return pathlib.Path(path)


def vendored(title, variable, make):
    """The files of a package with something vendored into it; None, and a failed check, when that was not built."""
    if os.environ.get(variable) == "skip":
        print(f"  SKIPPED {title}: MAYFLY_SKIP_SLOW=1", flush=True)
        return None
    try:
        return make(built(variable))
    except AssertionError as error:
        with session.check(title):
            raise error
    return None


# --- runtime clients and custom programs -------------------------------------------------------------------------------

files = vendored("awslambdaric (Python)", "MAYFLY_AWSLAMBDARIC", lambda path: {**source("awslambdaric"), **folder(path, skip=lambda n: n.startswith("bin/") or n == ".complete" or "__pycache__" in n)})
if files:
    program("awslambdaric (Python)", "ric-python", files, "awslambdaric call 1", ["KeyError", "app.py"])


def node_ric(path):
    module = path / "node_modules" / "aws-lambda-ric"
    wanted = {name: file for name, file in folder(module, "node_modules/aws-lambda-ric/").items() if name.split("/")[2] in ("bin", "dist", "package.json")}
    return {**source("aws_lambda_ric"), **wanted}


files = vendored("aws-lambda-ric (Node.js)", "MAYFLY_NODE_RIC", node_ric)
if files:
    program("aws-lambda-ric (Node.js)", "ric-node", files, "aws-lambda-ric call", ["RangeError", "app.js"])

files = vendored("lambda_runtime (Rust)", "MAYFLY_LAMBDA_RUNTIME", lambda path: {"bootstrap": path})
if files:
    program("lambda_runtime (Rust)", "rust-lambda", files, "lambda_runtime call 1", [])

files = vendored("tencent_scf (Rust)", "MAYFLY_TENCENT_SCF", lambda path: {"bootstrap": path})
if files:
    program("tencent_scf (Rust)", "rust-tencent", files, "tencent_scf call 1", [])

with session.check("bash and curl, Tencent's template: hello, warm, error") as notes:
    deploy("bash-custom", "CustomRuntime", source("bash_custom"))
    value, result = invoke("bash-custom", {"name": "first"})
    equal((value["echo"], value["request_id"]), ({"name": "first"}, result.FunctionRequestId))
    expect(f"as {result.FunctionRequestId}" in result.Log, f"log: {result.Log!r}")
    again, warm = invoke("bash-custom", {"name": "second"})
    equal((again["pid"], cold(warm)), (value["pid"], "no cold start"))
    fails("bash-custom", {"name": "third", "fail": True}, 430, "asked to fail")
    notes += [result.RetMsg, f"cold {cold(result)}", f"warm {warm.Duration} ms"]

# --- Tencent's own snippets --------------------------------------------------------------------------------------------

with session.check("Python: the console's Hello World template") as notes:
    deploy("py-hello", "Python3.6", source("python_hello"))
    value, result = invoke("py-hello", {"key1": "test value 1", "key2": "test value 2"})
    equal(value, "Hello World")
    for line in ['"key1": "test value 1"', "Received context: {", "'request_id': '" + result.FunctionRequestId, "'memory_limit_in_mb': 256", "Hello world"]:
        expect(line in result.Log, f"{line!r} is not in the log {result.Log!r}")
    notes += [result.RetMsg, f"cold {cold(result)}"]

with session.check("Python: logging, environment, module state, context") as notes:
    deploy("py-logging", "Python3.7", source("python_logging"))
    value, result = invoke("py-logging", {})
    equal(value, {"count": 1, "request_id": result.FunctionRequestId, "memory": 256, "timeout": 5000, "version": "$LATEST", "namespace": "default", "who": "stranger", "cwd": "/var/user", "runenv": "SCF"})
    expect("INFO:root:start main handler" in result.Log and f"WARNING:root:request {result.FunctionRequestId} of py-logging" in result.Log, f"log: {result.Log!r}")
    equal(invoke("py-logging", {})[0]["count"], 2)
    told, _ = fails("py-logging", {"divide": 0}, 430, "ZeroDivisionError", "index.py")
    equal(invoke("py-logging", {"divide": 4})[0], 0.25)
    notes.append(told["stackTrace"].strip().splitlines()[-1])

with session.check("Python: API gateway demo") as notes:
    deploy("py-apigw", "Python3.9", source("python_apigw"))
    equal(invoke("py-apigw", {})[0], {"code": 410, "errorMsg": "event is not come from api gateway"})
    value, _ = invoke("py-apigw", {"requestContext": {"path": "/article/{articleId}", "httpMethod": "GET"}, "pathParameters": {"articleId": "7"}})
    equal((value["statusCode"], value["body"]), (200, "<html>文章 7</html>"))
    value, _ = invoke("py-apigw", {"requestContext": {"path": "/article", "httpMethod": "GET"}})
    equal(json.loads(value["body"])["list"], ["article-1", "article-2"])
    notes.append(value["headers"])

with session.check("Python: log-service demo (gzip in base64)") as notes:
    deploy("py-cls", "Python3.10", source("python_cls"))
    records = json.dumps({"topic_id": "t", "records": [{"timestamp": "1605578090000000", "content": "one"}, {"timestamp": "1605578090000001", "content": "two"}]})
    value, result = invoke("py-cls", {"clslogs": {"data": base64.b64encode(gzip.compress(records.encode())).decode()}})
    equal(value, 2)
    expect("1605578090000001 two" in result.Log, f"log: {result.Log!r}")

with session.check("Python: object event, /tmp, own packages, threads, a child process") as notes:
    deploy("py-tmp", "Python3.10", source("python_tmp"))
    value, _ = invoke("py-tmp", {"Records": [{"cos": {"cosObject": {"key": "/125/bucket/a.txt"}}}]})
    equal(value, {"md5": hashlib.md5(b"object: /125/bucket/a.txt\nend\n").hexdigest(), "lines": 2, "words": 6, "read_only": True})
    notes.append(value)

with session.check("Node.js: the console's Hello World template") as notes:
    deploy("js-hello", "Nodejs12.16", source("node_hello"))
    event = {"key1": "test value 1", "key2": "测试"}
    value, result = invoke("js-hello", event)
    equal(value, event)
    for line in ["Hello World", "key1: 'test value 1'", "undefined", result.FunctionRequestId, "callbackWaitsForEmptyEventLoop: true"]:
        expect(line in result.Log, f"{line!r} is not in the log {result.Log!r}")
    notes += [result.RetMsg, f"cold {cold(result)}"]

with session.check("Node.js: callback, files, module state; an error and a rejection nobody catches") as notes:
    deploy("js-callback", "Nodejs16.13", source("node_callback"))
    equal(invoke("js-callback", {})[0], {"greeting": "hello from a file", "count": 1, "left": True, "name": "js-callback", "environ": "stranger"})
    equal(invoke("js-callback", {})[0]["count"], 2)
    fails("js-callback", {"fail": True}, 430, "asked to fail", "index.js")
    # An error outside the handler ends the process; the next call, however soon, must not feel it.
    for _ in range(10):
        told, _ = fails("js-callback", {"reject": True}, 430, "nobody catches this", "TypeError")
        equal(invoke("js-callback", {})[0]["greeting"], "hello from a file")
    notes.append(told["errorMessage"])

with session.check("Node.js: a whole HTTP server behind an API gateway event") as notes:
    deploy("js-http", "Nodejs18.15", source("node_http"))
    for n in range(3):
        value, _ = invoke("js-http", {"httpMethod": "POST", "path": "/a", "queryString": {"n": str(n), "s": "x y"}, "body": "hello"})
        equal(value["statusCode"], 200)
        equal(json.loads(value["body"]), {"method": "POST", "url": f"/a?n={n}&s=x+y", "body": "hello"})
        equal(value["headers"]["etag"], hashlib.md5(value["body"].encode()).hexdigest())
    notes.append(value["body"])

with session.check("all of them are deleted") as notes:
    names = [f.FunctionName for f in call("ListFunctions", Limit=100).Functions]
    for name in names:
        call("DeleteFunction", FunctionName=name)
    until("no function is left", lambda: call("ListFunctions", Limit=100).TotalCount == 0)
    notes.append(f"{len(names)} functions")

session.done()
