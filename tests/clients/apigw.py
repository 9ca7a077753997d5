"""Tencent Cloud's SDK for Python against the API gateway, callers that sign as its documentation says, and a WebSocket client. Run by run.sh."""

import asyncio
import base64
import datetime
import hashlib
import hmac
import json
import urllib.error
import urllib.request

import websockets
from harness import ENDPOINT, HERE, REGION, SECRET_ID, SECRET_KEY, Session, equal, expect, folder, package, until
from tencentcloud.apigateway.v20180808 import apigateway_client, models
from tencentcloud.common import credential
from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile
from tencentcloud.scf.v20180416 import models as scf_models
from tencentcloud.scf.v20180416 import scf_client

session = Session(f"API Gateway's SDK for Python at {ENDPOINT}")


def profile(method):
    return ClientProfile(signMethod=method, httpProfile=HttpProfile(protocol="http", endpoint=ENDPOINT))


keys = credential.Credential(SECRET_ID, SECRET_KEY)
gateway = apigateway_client.ApigatewayClient(keys, REGION, profile("TC3-HMAC-SHA256"))
forms = apigateway_client.ApigatewayClient(keys, REGION, profile("HmacSHA256"))
scf = scf_client.ScfClient(keys, REGION, profile("TC3-HMAC-SHA256"))


def call(action, client=gateway, **parameters):
    request = getattr(models, action + "Request")()
    request.from_json_string(json.dumps(parameters))
    return getattr(client, action)(request)


def scf_call(action, **parameters):
    request = getattr(scf_models, action + "Request")()
    request.from_json_string(json.dumps(parameters))
    return getattr(scf, action)(request)


def refused(code, action, **parameters):
    try:
        call(action, **parameters)
    except TencentCloudSDKException as error:
        equal(error.get_code(), code)
        return
    raise AssertionError(f"{action} was not refused with {code}")


def ask(path, headers=None, data=None):
    request = urllib.request.Request(f"http://{ENDPOINT}{path}", data=data, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def sign(secret_id, secret_key, source="xxxxxx"):
    """The key pair signature of API Gateway's documentation: x-date and source, HMAC-SHA1, base64."""
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%a, %d %b %Y %H:%M:%S GMT")
    text = f"x-date: {date}\nsource: {source}"
    digest = base64.b64encode(hmac.new(secret_key.encode(), text.encode(), hashlib.sha1).digest()).decode()
    authorization = f'hmac id="{secret_id}", algorithm="hmac-sha1", headers="x-date source", signature="{digest}"'
    return {"Source": source, "X-Date": date, "Authorization": authorization}


ECHO = """
import json
def main_handler(event, context):
    return {"isBase64Encoded": False, "statusCode": 200, "headers": {"Content-Type": "application/json"}, "body": json.dumps(event)}
"""

with session.check("functions"):
    scf_call("CreateFunction", FunctionName="apigw-echo", Runtime="Python3.9", Handler="index.main_handler", Code={"ZipFile": package({"index.py": ECHO})})
    for part in ("register", "transport", "cleanup"):
        code = package(folder(HERE.parent.parent / "examples" / "python-websocket" / part))
        scf_call("CreateFunction", FunctionName=f"ws-{part}", Runtime="Python3.9", Handler="index.main_handler", Code={"ZipFile": code})
with session.check("a service, by TC3 and by a v1 form") as notes:
    service = call("CreateService", ServiceName="sdk", Protocol="http&https", ServiceDesc="made by the SDK")
    other = call("CreateService", client=forms, ServiceName="sdk-form", Protocol="http", NetTypes=["OUTER"])
    notes.append(service.OuterSubDomain)
    listed = call("DescribeServicesStatus", Filters=[{"Name": "ServiceName", "Values": ["sdk"]}], Limit=1).Result
    equal((listed.TotalCount, len(listed.ServiceSet)), (2, 1))
    equal(call("DeleteService", client=forms, ServiceId=other.ServiceId).Result, True)
    equal(call("DescribeService", ServiceId=service.ServiceId).ServiceDesc, "made by the SDK")
    refused("ResourceNotFound.InvalidService", "DescribeService", ServiceId=other.ServiceId)
scf_backend = {
    "ServiceId": service.ServiceId, "ServiceType": "SCF", "ServiceTimeout": 15, "Protocol": "HTTP", "ServiceScfFunctionName": "apigw-echo",
    "ServiceScfFunctionNamespace": "default", "ServiceScfFunctionQualifier": "$LATEST", "ServiceScfIsIntegratedResponse": True,
}
with session.check("APIs with parameters and keys"):
    parameters = [{"Name": "id", "Position": "PATH", "Type": "int", "Required": True}, {"Name": "page", "Position": "QUERY", "Type": "int", "DefaultValue": "1", "Required": False}]
    user = call("CreateApi", RequestConfig={"Path": "/users/{id}", "Method": "GET"}, RequestParameters=parameters, ApiName="user", **scf_backend).Result
    closed = call("CreateApi", RequestConfig={"Path": "/closed", "Method": "ANY"}, AuthType="SECRET", **scf_backend).Result
    shown = call("DescribeApi", ServiceId=service.ServiceId, ApiId=user.ApiId).Result
    equal((shown.RequestConfig.Path, shown.RequestParameters[0].Name, shown.ServiceScfFunctionName, shown.AuthType), ("/users/{id}", "id", "apigw-echo", "NONE"))
    equal(call("DescribeApisStatus", ServiceId=service.ServiceId, Filters=[{"Name": "AuthType", "Values": ["SECRET"]}]).Result.TotalCount, 1)
    refused("InvalidParameterValue.InvalidMethod", "CreateApi", RequestConfig={"Path": "/x", "Method": "FETCH"}, **scf_backend)
with session.check("a release"):
    released = call("ReleaseService", ServiceId=service.ServiceId, EnvironmentName="release", ReleaseDesc="first").Result
    expect(released.ReleaseVersion, "it has a name")
    equal(call("DescribeServiceEnvironmentList", ServiceId=service.ServiceId).Result.TotalCount, 3)
    equal(call("DescribeServiceReleaseVersion", ServiceId=service.ServiceId).Result.VersionList[0].VersionName, released.ReleaseVersion)
base = f"/apigw/{service.ServiceId}/release"
with session.check("a request comes as SCF's event"):
    status, event = ask(f"{base}/users/7?x=y")
    equal((status, event["pathParameters"], event["queryStringParameters"], event["queryString"]), (200, {"id": "7"}, {"page": "1"}, {"x": "y"}))
    equal((event["requestContext"]["serviceId"], event["requestContext"]["path"], event["requestContext"]["stage"]), (service.ServiceId, "/users/{id}", "release"))
    equal(ask(f"{base}/users/seven")[0], 400)
with session.check("keys and plans"):
    key = call("CreateApiKey", SecretName="sdk").Result
    plan = call("CreateUsagePlan", UsagePlanName="sdk", MaxRequestNum=4).Result
    call("BindSecretIds", UsagePlanId=plan.UsagePlanId, AccessKeyIds=[key.AccessKeyId])
    call("BindEnvironment", UsagePlanIds=[plan.UsagePlanId], BindType="API", Environment="release", ServiceId=service.ServiceId, ApiIds=[closed.ApiId])
    equal(call("DescribeUsagePlan", UsagePlanId=plan.UsagePlanId).Result.BindSecretIds, [key.AccessKeyId])
    equal(call("DescribeApiUsagePlan", ServiceId=service.ServiceId).Result.ApiUsagePlanList[0].UsagePlanId, plan.UsagePlanId)
with session.check("a caller that signs as the documentation says"):
    equal(ask(f"{base}/closed")[0], 401)
    status, event = ask(f"{base}/closed", sign(key.AccessKeyId, key.AccessKeySecret))
    equal((status, event["requestContext"]["identity"]), (200, {"secretId": key.AccessKeyId}))
    equal(ask(f"{base}/closed", sign(key.AccessKeyId, "wrong-secret"))[0], 403)
    call("DisableApiKey", AccessKeyId=key.AccessKeyId)
    equal(ask(f"{base}/closed", sign(key.AccessKeyId, key.AccessKeySecret))[0], 403)
    call("EnableApiKey", AccessKeyId=key.AccessKeyId)
    new = call("UpdateApiKey", AccessKeyId=key.AccessKeyId).Result
    equal(ask(f"{base}/closed", sign(key.AccessKeyId, key.AccessKeySecret))[0], 403)
    equal([ask(f"{base}/closed", sign(key.AccessKeyId, new.AccessKeySecret))[0] for _ in range(4)], [200, 200, 200, 429])
with session.check("limits"):
    call("ModifyServiceEnvironmentStrategy", ServiceId=service.ServiceId, Strategy=0, EnvironmentNames=["release"])
    equal(ask(f"{base}/users/7"), (429, {"message": "API rate limit exceeded"}))
    call("ModifyServiceEnvironmentStrategy", ServiceId=service.ServiceId, Strategy=-1, EnvironmentNames=["release"])
    equal(ask(f"{base}/users/7")[0], 200)
with session.check("the function lists its APIs as triggers"):
    listed = scf_call("ListTriggers", FunctionName="apigw-echo", Limit=20)
    equal((listed.TotalCount, {t.Type for t in listed.Triggers}), (2, {"apigw"}))
with session.check("CreateTrigger with SCF's old form, and DeleteTrigger with what was listed"):
    desc = {"api": {"authRequired": "FALSE", "requestConfig": {"method": "ANY"}, "isIntegratedResponse": "TRUE"}, "service": {"serviceName": "SCF_API_SERVICE"}, "release": {"environmentName": "release"}}
    made = scf_call("CreateTrigger", FunctionName="apigw-echo", TriggerName="SCF_API_SERVICE", Type="apigw", TriggerDesc=json.dumps(desc)).TriggerInfo
    target = json.loads(made.TriggerDesc)["service"]
    equal(ask(f"/apigw/{target['serviceId']}/release/apigw-echo")[0], 200)
    scf_call("DeleteTrigger", FunctionName="apigw-echo", TriggerName=made.TriggerName, Type="apigw", TriggerDesc=made.TriggerDesc)
    equal(ask(f"/apigw/{target['serviceId']}/release/apigw-echo")[0], 404)


async def talk(path, push):
    async with websockets.connect(f"ws://{ENDPOINT}{path}?name=Ada", subprotocols=["chat"]) as socket:
        equal(socket.subprotocol, "chat")
        for i in range(5):
            await socket.send(f"hello {i}")
        equal([await socket.recv() for _ in range(5)], [f"you said: hello {i}" for i in range(5)])
        await socket.send(b"\xff\x00")
        equal(await socket.recv(), b"\xff\x00")
        await socket.ping()
        connection = until("the register function's log", came)
        equal(await asyncio.to_thread(push, connection, "data send"), (200, {"errNo": 0, "errMsg": "ok"}))
        equal(await socket.recv(), "pushed")
        await socket.send("bye")
        await socket.wait_closed()
        equal(socket.close_code, 1000)
    return connection


def printed(function, word):
    found = scf_call("GetFunctionLogs", FunctionName=function, Limit=20).Data or []
    for record in found:
        for line in record.Log.splitlines():
            if line.startswith(word):
                return line.split()[1]
    return None


def came():
    return printed("ws-register", "came:")


with session.check("a WebSocket with SCF's three functions") as notes:
    names = {f"ServiceWebsocket{kind}FunctionName": f"ws-{kind.lower()}" for kind in ("Register", "Transport", "Cleanup")}
    names |= {f"ServiceWebsocket{kind}FunctionQualifier": "$LATEST" for kind in ("Register", "Transport", "Cleanup")}
    chat = call("CreateApi", ServiceId=service.ServiceId, ServiceType="SCF", Protocol="WEBSOCKET", ServiceTimeout=30, RequestConfig={"Path": "/chat", "Method": "GET"}, **names).Result
    call("ReleaseService", ServiceId=service.ServiceId, EnvironmentName="release", ReleaseDesc="with chat")
    address = call("DescribeApi", ServiceId=service.ServiceId, ApiId=chat.ApiId).Result.InternalDomain

    def push(connection, action):
        document = {"websocket": {"action": action, "secConnectionID": connection, "dataType": "text", "data": "pushed"}}
        return ask(address.split(ENDPOINT, 1)[1], {"Content-Type": "application/json"}, json.dumps(document).encode())

    connection = asyncio.run(talk(f"{base}/chat", push))
    equal(until("the cleanup function's log", lambda: printed("ws-cleanup", "went:")), connection)
    equal(push(connection, "data send")[0], 404)
    notes.append(address)
with session.check("a visitor who is refused"):
    async def refused_visitor():
        try:
            async with websockets.connect(f"ws://{ENDPOINT}{base}/chat?name=nobody"):
                return 101
        except websockets.exceptions.InvalidStatus as error:
            return error.response.status_code

    equal(asyncio.run(refused_visitor()), 403)
with session.check("everything is deleted again"):
    call("UnBindEnvironment", UsagePlanIds=[plan.UsagePlanId], BindType="API", Environment="release", ServiceId=service.ServiceId, ApiIds=[closed.ApiId])
    call("DeleteUsagePlan", UsagePlanId=plan.UsagePlanId)
    call("DisableApiKey", AccessKeyId=key.AccessKeyId)
    call("DeleteApiKey", AccessKeyId=key.AccessKeyId)
    refused("UnsupportedOperation.ExistingOnlineEnvironment", "DeleteService", ServiceId=service.ServiceId)
    for api in (user, closed, chat):
        call("DeleteApi", ServiceId=service.ServiceId, ApiId=api.ApiId)
    call("UnReleaseService", ServiceId=service.ServiceId, EnvironmentName="release")
    equal(call("DeleteService", ServiceId=service.ServiceId).Result, True)
    for name in ("apigw-echo", "ws-register", "ws-transport", "ws-cleanup"):
        scf_call("DeleteFunction", FunctionName=name)

session.done()
