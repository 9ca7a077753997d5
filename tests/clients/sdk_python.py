"""Tencent Cloud's Python SDK, unmodified, through a function's whole life: TC3 and both v1 signatures, POST and GET, and the mistakes callers make."""

import datetime
import json
import time
from unittest import mock

from harness import ENDPOINT, REGION, SECRET_ID, SECRET_KEY, Session, equal, expect, package, until
from tencentcloud.common import credential
from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile
from tencentcloud.scf.v20180416 import models, scf_client

NAME = "sdk-python"
CODE = """import json, time
print("module loaded")
def main_handler(event, context):
    print("event", json.dumps(event), "as", context["request_id"])
    if event.get("fail"):
        raise ValueError("asked to fail")
    time.sleep(event.get("sleep", 0))
    return {"version": "%s", "event": event, "request_id": context["request_id"]}
"""


def client(sign="TC3-HMAC-SHA256", method="POST", key=SECRET_KEY, key_id=SECRET_ID):
    http = HttpProfile(protocol="http", endpoint=ENDPOINT, reqMethod=method, reqTimeout=30)
    return scf_client.ScfClient(credential.Credential(key_id, key), REGION, ClientProfile(signMethod=sign, httpProfile=http))


def call(action, scf=None, **parameters):
    """One action by name, its request filled like the SDK's own examples do it: from JSON."""
    request = getattr(models, action + "Request")()
    request.from_json_string(json.dumps(parameters))
    return getattr(scf or client(), action)(request)


def refused(action, code, scf=None, **parameters):
    """The call must fail with this code; the message is given back."""
    try:
        call(action, scf, **parameters)
    except TencentCloudSDKException as error:
        equal(error.get_code(), code)
        expect(error.get_request_id(), "an error answer without a request id")
        return f"{code}: {error.get_message()}"
    raise AssertionError(f"{action} was accepted; it should be refused with {code}")


def invoke(event, scf=None, action="Invoke", name=NAME, **more):
    """A synchronous call: (parsed return message, Result)."""
    text = json.dumps(event)
    carrier = {"ClientContext": text} if action == "Invoke" else {"Event": text}
    result = call(action, scf, FunctionName=name, **carrier, **more).Result
    return (json.loads(result.RetMsg) if result.RetMsg else None), result


def active(name=NAME):
    def look():
        answer = call("GetFunction", FunctionName=name)
        expect(not answer.Status.endswith("Failed"), f"{answer.Status}: {answer.StatusDesc}")
        return answer if answer.Status == "Active" else None

    return until(f"{name} is Active", look)


session = Session("tencentcloud-sdk-python-scf")

with session.check("CreateFunction") as notes:
    call(
        "CreateFunction",
        FunctionName=NAME,
        Runtime="Python3.10",
        Handler="index.main_handler",
        Description="made by the Python SDK",
        MemorySize=128,
        Timeout=5,
        Environment={"Variables": [{"Key": "WHO", "Value": "sdk"}]},
        Code={"ZipFile": package({"index.py": CODE % "one"})},
    )
    got = active()
    equal((got.Runtime, got.Handler, got.MemorySize, got.Timeout), ("Python3.10", "index.main_handler", 128, 5))
    notes += [got.Status, f"{got.CodeSize} bytes", got.FunctionId]

request_id = None
with session.check("Invoke, TC3-HMAC-SHA256 by POST") as notes:
    value, result = invoke({"n": 1}, LogType="Tail")
    equal(value["event"], {"n": 1})
    equal((result.InvokeResult, result.FunctionRequestId), (0, value["request_id"]))
    expect("event {\"n\": 1}" in result.Log and "START RequestId" in result.Log, f"log: {result.Log!r}")
    request_id = result.FunctionRequestId
    notes += [result.RetMsg, f"{result.Duration} ms", f"billed {result.BillDuration} ms", f"{result.MemUsage} bytes"]

for sign, method in [("TC3-HMAC-SHA256", "GET"), ("HmacSHA1", "POST"), ("HmacSHA1", "GET"), ("HmacSHA256", "POST"), ("HmacSHA256", "GET")]:
    with session.check(f"Invoke, {sign} by {method}") as notes:
        # A plus, a percent, an ampersand and a Chinese letter: what a wrongly decoded form or query would spoil.
        event = {"text": "a+b &=% 你好", "n": 2}
        value, result = invoke(event, client(sign, method))
        equal(value["event"], event)
        notes.append(f"{result.Duration} ms")

with session.check("InvokeFunction with Event and Qualifier") as notes:
    value, _ = invoke({"n": 3}, action="InvokeFunction", Qualifier="$LATEST")
    equal(value["event"], {"n": 3})

with session.check("a function that raises answers with 430 and its stack") as notes:
    value, result = invoke({"fail": True})
    equal(result.InvokeResult, -1)
    told = json.loads(result.ErrMsg)
    equal(told["statusCode"], 430)
    expect("ValueError" in told["stackTrace"] and "index.py" in told["stackTrace"], told)
    expect("zygote" not in told["stackTrace"] and "shim" not in told["stackTrace"], "frames that are not the user's")
    notes += [told["errorMessage"].splitlines()[0], told["stackTrace"].strip().splitlines()[-1]]

with session.check("CreateFunction, HmacSHA256 with dotted fields") as notes:
    call(
        "CreateFunction",
        client("HmacSHA256"),
        FunctionName=NAME + "-v1",
        Runtime="Nodejs18.15",
        Handler="index.main_handler",
        Timeout=4,
        MemorySize=256,
        Environment={"Variables": [{"Key": "AA", "Value": "1"}, {"Key": "BB", "Value": "2 & 3"}]},
        Code={"ZipFile": package({"index.js": "exports.main_handler = async () => process.env.AA + process.env.BB;"})},
    )
    got = active(NAME + "-v1")
    equal((got.MemorySize, got.Timeout), (256, 4))
    equal({v.Key: v.Value for v in got.Environment.Variables}, {"AA": "1", "BB": "2 & 3"})
    value, _ = invoke({}, name=NAME + "-v1")
    equal(value, "12 & 3")
    call("DeleteFunction", client("HmacSHA1", "GET"), FunctionName=NAME + "-v1")
    notes.append(value)

with session.check("Event invoke, then GetRequestStatus") as notes:
    now = datetime.datetime.now(datetime.timezone.utc)
    span = {
        "StartTime": (now - datetime.timedelta(hours=9)).strftime("%Y-%m-%d %H:%M:%S"),
        "EndTime": (now + datetime.timedelta(hours=9)).strftime("%Y-%m-%d %H:%M:%S"),
    }
    result = call("Invoke", FunctionName=NAME, InvocationType="Event", ClientContext='{"later": true}').Result
    expect(result.FunctionRequestId, "no request id")
    equal(result.RetMsg or "", "")

    def finished():
        rows = call("GetRequestStatus", FunctionName=NAME, FunctionRequestId=result.FunctionRequestId, **span).Data or []
        return next((row for row in rows if row.RetCode == 0 and row.Duration is not None), None)

    row = until("the event's status", finished)
    equal((row.FunctionName, row.RequestId), (NAME, result.FunctionRequestId))
    equal(json.loads(row.RetMsg)["event"], {"later": True})
    notes += [f"RetCode {row.RetCode}", f"{row.Duration} ms", row.RetMsg]

with session.check("GetFunctionLogs by request id") as notes:

    def logged():
        answer = call("GetFunctionLogs", FunctionName=NAME, FunctionRequestId=request_id, Limit=10, Offset=0)
        return answer if answer.Data else None

    answer = until("the log of the first invocation", logged)
    entry = answer.Data[0]
    equal((len(answer.Data), answer.TotalCount, entry.RequestId, entry.RetCode), (1, 1, request_id, 0))
    for line in ["START RequestId", "Init Report RequestId", "module loaded", "event {\"n\": 1}", "END RequestId", "Report RequestId"]:
        expect(line in entry.Log, f"{line!r} is not in the log {entry.Log!r}")
    notes += [line for line in entry.Log.splitlines() if "Report" in line]

with session.check("GetFunctionLogs of failures only") as notes:
    rows = until(
        "the failure's log",
        lambda: call("GetFunctionLogs", FunctionName=NAME, Filter={"RetCode": "UserCodeException"}, Limit=10, Offset=0).Data,
    )
    equal([row.RetCode for row in rows], [430])
    notes.append(f"{len(rows)} entry, RetCode {rows[0].RetCode}")

with session.check("PublishVersion, UpdateFunctionCode, PublishVersion") as notes:
    equal(call("PublishVersion", FunctionName=NAME, Description="first").FunctionVersion, "1")
    active()
    call("UpdateFunctionCode", FunctionName=NAME, Handler="index.main_handler", ZipFile=package({"index.py": CODE % "two"}))
    active()
    equal(invoke({})[0]["version"], "two")
    equal(call("PublishVersion", FunctionName=NAME, Description="second").FunctionVersion, "2")
    active()
    equal(invoke({}, Qualifier="1")[0]["version"], "one")
    equal(invoke({}, Qualifier="2")[0]["version"], "two")
    listed = call("ListVersionByFunction", FunctionName=NAME)
    equal(sorted(listed.FunctionVersion), ["$LATEST", "1", "2"])
    notes.append(sorted(listed.FunctionVersion))

with session.check("CreateAlias over versions 1 and 2, half and half, 100 invokes") as notes:
    call("CreateAlias", FunctionName=NAME, Name="live", FunctionVersion="1", RoutingConfig={"AdditionalVersionWeights": [{"Version": "2", "Weight": 0.5}]})
    scf = client()
    seen = {"one": 0, "two": 0}
    begun = time.monotonic()
    for _ in range(100):
        seen[invoke({}, scf, Qualifier="live")[0]["version"]] += 1
    took = time.monotonic() - begun
    # 100 fair coins leave 20…80 about once in 10^9 runs.
    expect(20 <= seen["one"] <= 80, seen)
    got = call("GetAlias", FunctionName=NAME, Name="live")
    equal((got.FunctionVersion, got.RoutingConfig.AdditionalVersionWeights[0].Weight), ("1", 0.5))
    notes += [seen, f"{took * 10:.1f} ms a call, client and all"]

with session.check("rollback: the alias goes back to version 1 alone") as notes:
    call("UpdateAlias", FunctionName=NAME, Name="live", FunctionVersion="1", RoutingConfig={"AdditionalVersionWeights": []})
    equal({invoke({}, scf, Qualifier="live")[0]["version"] for _ in range(20)}, {"one"})
    notes.append("20 of 20 by version 1")

with session.check("wrong key") as notes:
    notes.append(refused("ListFunctions", "AuthFailure.SignatureFailure", client(key="0" * 32)))
with session.check("wrong key, HmacSHA1") as notes:
    notes.append(refused("ListFunctions", "AuthFailure.SignatureFailure", client("HmacSHA1", key="0" * 32)))
with session.check("unknown key id") as notes:
    notes.append(refused("ListFunctions", "AuthFailure.SecretIdNotFound", client(key_id="AKIDnobody")))
with session.check("a clock one hour late") as notes:
    real = time.time
    with mock.patch("time.time", lambda: real() - 3600):
        notes.append(refused("ListFunctions", "AuthFailure.SignatureExpire"))
with session.check("a clock one hour late, HmacSHA256") as notes:
    with mock.patch("time.time", lambda: real() - 3600):
        notes.append(refused("ListFunctions", "AuthFailure.SignatureExpire", client("HmacSHA256")))
with session.check("wrong name, GetFunction") as notes:
    notes.append(refused("GetFunction", "ResourceNotFound.Function", FunctionName="nobody"))
with session.check("wrong name, Invoke") as notes:
    notes.append(refused("Invoke", "ResourceNotFound.Function", FunctionName="nobody"))
with session.check("wrong qualifier, Invoke") as notes:
    notes.append(refused("Invoke", "ResourceNotFound.Qualifier", FunctionName=NAME, Qualifier="99"))
with session.check("wrong type") as notes:
    notes.append(refused("UpdateFunctionConfiguration", "InvalidParameter", FunctionName=NAME, MemorySize="plenty"))
with session.check("wrong value") as notes:
    notes.append(refused("UpdateFunctionConfiguration", "InvalidParameterValue.MemorySize", FunctionName=NAME, MemorySize=100))
with session.check("an event that is not JSON") as notes:
    notes.append(refused("Invoke", "InvalidParameterValue.Param", FunctionName=NAME, ClientContext="{not json"))
with session.check("a package that is not a zip") as notes:
    notes.append(refused("UpdateFunctionCode", "InvalidParameterValue.ZipFile", FunctionName=NAME, ZipFile="aGVsbG8gd29ybGQ="))
with session.check("a name that exists already") as notes:
    code = {"ZipFile": package({"index.py": CODE % "x"})}
    notes.append(refused("CreateFunction", "ResourceInUse.Function", FunctionName=NAME, Runtime="Python3.10", Handler="index.main_handler", Code=code))
with session.check("after all the mistakes the function is as it was") as notes:
    got = active()
    equal((got.MemorySize, got.Timeout), (128, 5))
    equal(invoke({})[0]["version"], "two")

with session.check("a version with an alias on it is not deleted") as notes:
    notes.append(refused("DeleteFunction", "UnsupportedOperation.AliasBind", FunctionName=NAME, Qualifier="1"))
with session.check("ListFunctions, DeleteAlias, DeleteFunction") as notes:
    expect(NAME in [f.FunctionName for f in call("ListFunctions", Limit=100).Functions], "not listed")
    call("DeleteAlias", FunctionName=NAME, Name="live")
    call("DeleteFunction", FunctionName=NAME)

    def gone():
        try:
            call("GetFunction", FunctionName=NAME)
        except TencentCloudSDKException as error:
            equal(error.get_code(), "ResourceNotFound.Function")
            return True
        return False

    until("the function is gone", gone)
    expect(NAME not in [f.FunctionName for f in call("ListFunctions", Limit=100).Functions or []], "still listed")
    notes.append(refused("Invoke", "ResourceNotFound.Function", FunctionName=NAME))

session.done()
