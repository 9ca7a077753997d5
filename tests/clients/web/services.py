"""What the web sessions share: deploying services, their URLs, names below `localhost`, Node.js clients, and the platform's memory."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess

import httpx
from harness import ENDPOINT, REGION, SECRET_ID, SECRET_KEY, expect, folder, package, until
from tencentcloud.common import credential
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile
from tencentcloud.scf.v20180416 import models, scf_client

HERE = pathlib.Path(__file__).resolve().parent
APPS = HERE / "apps"
HOST, PORT = ENDPOINT.rsplit(":", 1)
PORT = int(PORT)

SCF = scf_client.ScfClient(
    credential.Credential(SECRET_ID, SECRET_KEY),
    REGION,
    ClientProfile(httpProfile=HttpProfile(protocol="http", endpoint=ENDPOINT, reqTimeout=180)),
)

# RFC 6761 lets every name below `localhost` mean this machine; browsers and curl know that, Python leaves it to the system.
_getaddrinfo = socket.getaddrinfo


def _resolve(host, *rest, **named):
    if isinstance(host, (str, bytes)):
        text = host.decode() if isinstance(host, bytes) else host
        if text.endswith(".localhost"):
            host = HOST
    return _getaddrinfo(host, *rest, **named)


socket.getaddrinfo = _resolve


def call(action, **parameters):
    """One action of the API."""
    request = getattr(models, action + "Request")()
    request.from_json_string(json.dumps(parameters))
    return getattr(SCF, action)(request)


def deploy(name, runtime, files, memory=512, timeout=60, concurrency=100):
    """Makes a service of these files and waits until it is active."""
    call(
        "CreateFunction",
        FunctionName=name,
        Type="HTTP",
        Runtime=runtime,
        MemorySize=memory,
        Timeout=timeout,
        InitTimeout=90,
        InstanceConcurrencyConfig={"DynamicEnabled": "FALSE", "MaxConcurrency": concurrency},
        Code={"ZipFile": package(files)},
    )

    def look():
        answer = call("GetFunction", FunctionName=name)
        expect(not answer.Status.endswith("Failed"), f"{answer.Status}: {answer.StatusDesc}")
        return answer.Status == "Active"

    until(f"{name} is Active", look, 60)


def app(name, *built):
    """The files of one of the apps, and those of the folders that web.sh has made for it (by the names of their variables)."""
    files = {}
    for variable in built:
        path = os.environ.get(variable)
        expect(path, f"not built: see above ({variable})")
        # Command-line programs of Python packages, caches, and what the cache itself keeps there are no part of a package.
        files |= folder(path, skip=lambda n: n.startswith("bin/") or n.startswith(".complete") or "__pycache__" in n or ".bin/" in n)
    return files | folder(APPS / name, skip=lambda n: n.endswith(("requirements.txt", ".proto", ".java", "pom.xml", ".go", "go.mod", "go.sum")))


def path_url(name, path="/"):
    """A service's URL by path."""
    return f"http://{ENDPOINT}/fn/default/{name}{path}"


def host_url(name, path="/"):
    """A service's URL by host."""
    return f"http://{name}.default.fn.localhost:{PORT}{path}"


@contextlib.contextmanager
def attempt(session, name, runtime, *built, files=None, **more):
    """Deploys one of the apps and asks it for its first page; gives False, with its failed check, when that cannot be, and without one when it is skipped."""
    if any(os.environ.get(variable) == "skip" for variable in built):
        yield False
        return
    ok = False
    with session.check(f"{name}: deployed, first request") as notes:
        deploy(name, runtime, app(files or name, *built), **more)
        # A server that speaks gRPC only has nothing to say to this; that it listens is all that is asked.
        answer = httpx.get(host_url(name), timeout=90)
        expect(answer.status_code < 500 or "gave no answer" in answer.text and ("grpc" in name or "tonic" in name), answer.text[:500])
        notes.append(f"{answer.status_code} in {answer.elapsed.total_seconds():.1f} s")
        ok = True
    yield ok


def node_client(*arguments, timeout=120):
    """Runs a case of clients.js, which prints what is worth telling, or fails with the reason."""
    environment = {**os.environ, "NODE_PATH": f"{os.environ.get('MAYFLY_WEB_NODE_CLIENTS', '')}/node_modules", "MAYFLY_PLATFORM_HOST": HOST}
    done = subprocess.run(["node", str(HERE / "clients.js"), *arguments], env=environment, capture_output=True, text=True, timeout=timeout)
    if done.returncode != 0:
        raise AssertionError(done.stderr.strip()[-600:] or f"exit code {done.returncode}")
    return done.stdout.strip()


def platform_rss_mb():
    """Resident memory of the platform's own process."""
    text = pathlib.Path(f"/proc/{os.environ['MAYFLY_PLATFORM_PID']}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmRSS:")).split()[1]) / 1024


def delete_all():
    """Deletes every function; how many there were."""
    names = [f.FunctionName for f in call("ListFunctions", Limit=100).Functions]
    for name in names:
        call("DeleteFunction", FunctionName=name)
    until("no function is left", lambda: call("ListFunctions", Limit=100).TotalCount == 0)
    return len(names)
