"""Real SDKs inside functions, with no key in code; and the thumbnail example, driven from outside. Arguments: mayfly, host:port of the store,
folder of the Python SDKs, folder with the Node SDKs' node_modules."""

import json
import os
import pathlib
import subprocess
import sys

from harness import ENDPOINT, REGION, SECRET_ID, SECRET_KEY, Session, equal, expect, folder, package, source, until
from tencentcloud.common import credential
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile
from tencentcloud.scf.v20180416 import models, scf_client

MAYFLY, OBJECTS, PYTHON_SDKS, NODE_SDKS = sys.argv[1:5]
REPO = pathlib.Path(__file__).resolve().parents[2]
profile = ClientProfile(httpProfile=HttpProfile(protocol="http", endpoint=ENDPOINT, reqTimeout=120))
client = scf_client.ScfClient(credential.Credential(SECRET_ID, SECRET_KEY), REGION, profile)


def create(name, runtime, code):
    request = models.CreateFunctionRequest()
    request.from_json_string(json.dumps({
        "FunctionName": name, "Runtime": runtime, "Handler": "index.main_handler", "Code": {"ZipFile": code}, "Role": "clients",
        "Timeout": 60, "MemorySize": 256, "PublicNetConfig": {"PublicNetStatus": "DISABLE", "EipConfig": {"EipStatus": "DISABLE"}},
    }))
    client.CreateFunction(request)


def call(name, event):
    request = models.InvokeRequest()
    request.FunctionName, request.ClientContext = name, json.dumps(event)
    result = client.Invoke(request).Result
    expect(result.InvokeResult == 0, result.RetMsg)
    return json.loads(result.RetMsg)


def skip(name):
    return "__pycache__" in name or name.startswith("bin/") or name.endswith((".md", ".ts", ".map"))


session = Session("SDKs inside functions")
with session.check("a function with boto3, cos-python-sdk-v5 and Tencent Cloud's SDK, egress off"):
    create("inside-python", "Python3.9", package({**folder(PYTHON_SDKS, skip=skip), **source("inside_python")}))
with session.check("boto3.client('s3') without arguments: parts, metadata, presigned, virtual hosts") as notes:
    notes.append(call("inside-python", {"do": "s3"}))
with session.check("cos-python-sdk-v5 by COS_ENDPOINT, a presigned URL among others"):
    equal(call("inside-python", {"do": "cos"}), True)
with session.check("Tencent Cloud's SDK calls a function, and may not delete one") as notes:
    answer = call("inside-python", {"do": "scf"})
    equal(answer, ["inside-python", "UnauthorizedOperation.CAM"])
with session.check("cos-nodejs-sdk-v5 and the Node SDK"):
    create("inside-node", "Nodejs18.15", package({**folder(NODE_SDKS, "node_modules/", skip), **source("inside_node")}))
    equal(call("inside-node", {}), {"got": "hello", "listed": ["a b/ü"], "called": "inside-node"})


def mayfly(*arguments):
    env = dict(os.environ, MAYFLY_ENDPOINT="http://" + ENDPOINT)
    done = subprocess.run([MAYFLY, *arguments], env=env, capture_output=True, text=True, check=False, timeout=300)
    expect(done.returncode == 0, f"mayfly {arguments}: {done.stdout}{done.stderr}")
    return done.stdout


def upload(*arguments):
    env = dict(os.environ, MAYFLY_OBJECTS=OBJECTS)
    done = subprocess.run([sys.executable, str(REPO / "examples/thumbnails/upload.py"), *arguments], env=env, capture_output=True,
                          text=True, check=False, timeout=120)
    expect(done.returncode == 0, f"{done.stdout}{done.stderr}")
    return done.stdout


with session.check("examples/thumbnails: deployed with its dependencies, bound to the bucket"):
    upload("make")
    mayfly("deploy", str(REPO / "examples/thumbnails"))
    mayfly("trigger", "bucket", "thumbnails", "photos-1250000000", "--event", "created", "--prefix", "in/")
with session.check("a picture becomes a small one in the second bucket") as notes:
    from PIL import Image

    path = pathlib.Path(os.environ["MAYFLY_TALLY"]).parent / "big picture.png"
    Image.effect_noise((1600, 900), 60).save(path)
    notes.append(upload(str(path)).split(", also")[0])
    with Image.open(path.with_suffix(".thumb.jpg")) as small:
        equal((small.format, small.size), ("JPEG", (128, 72)))
session.done()
