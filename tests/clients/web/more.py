"""Larger frameworks as services, and gigabytes through them: Django, Koa, Socket.IO, Next.js, Gin; uploads and downloads of 1 GB."""

import concurrent.futures
import contextlib
import hashlib
import http.client
import json
import os
import re
import socket
import subprocess
import threading
import time

import h2.connection
import httpx
from harness import Session, equal, expect
from services import ENDPOINT, HOST, PORT, app, delete_all, deploy, host_url, node_client, path_url, platform_rss_mb

session = Session("larger frameworks and transfers: Django, Koa, Socket.IO, Next.js, Gin, 1 GB")
UPLOAD = os.urandom(3 << 20)
SUM = hashlib.sha256(UPLOAD).hexdigest()
RSS_MB_MAX = 64
GB = 1 << 30
BLOCK = 65536


@contextlib.contextmanager
def service(name, runtime, *built, files=None, **more):
    """Deploys one; gives False, with its failed check, when that cannot be."""
    if any(os.environ.get(variable) == "skip" for variable in built):
        yield False
        return
    ok = False
    with session.check(f"{name}: deployed, first request") as notes:
        deploy(name, runtime, app(files or name, *built), **more)
        # A server that speaks gRPC only has nothing to say to this; that it listens is all that is asked.
        answer = httpx.get(host_url(name), timeout=90)
        expect(answer.status_code < 500 or (name == "grpcgo" and "gave no answer" in answer.text), answer.text[:500])
        notes.append(f"{answer.status_code} in {answer.elapsed.total_seconds():.1f} s")
        ok = True
    yield ok


with service("django", "Python3.10", "MAYFLY_WEB_DJANGO") as ready:
    if ready:
        with session.check("Django: the admin's login with its CSRF token, its pages, a form that saves, static files, log-out") as notes:
            with httpx.Client(base_url=host_url("django"), timeout=30, follow_redirects=True) as visitor:
                page = visitor.get("admin/")
                equal((page.status_code, page.url.path, page.url.query), (200, "/admin/login/", b"next=/admin/"))

                def token(page):
                    return re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)[1]

                form = {"username": "admin", "password": "a-good-password", "next": "/admin/"}
                equal(visitor.post("admin/login/", data=form).status_code, 403)
                wrong = visitor.post("admin/login/?next=/admin/", data=form | {"password": "wrong", "csrfmiddlewaretoken": token(page)})
                expect("Please enter the correct username" in wrong.text, wrong.text[:300])
                # Browsers say where a form came from; Django compares it with the host that it was asked for.
                origin = {"origin": f"http://django.default.fn.localhost:{PORT}"}
                inside = visitor.post("admin/login/?next=/admin/", data=form | {"csrfmiddlewaretoken": token(wrong)}, headers=origin)
                equal((inside.status_code, inside.url.path), (200, "/admin/"))
                expect("Site administration" in inside.text, inside.text[:300])
                foreign = visitor.post("admin/logout/", data={"csrfmiddlewaretoken": token(inside)}, headers={"origin": "http://evil.example"})
                equal(foreign.status_code, 403)
                page = visitor.get("admin/auth/group/add/")
                saved = visitor.post("admin/auth/group/add/", data={"name": "größer", "csrfmiddlewaretoken": token(page)}, headers=origin)
                equal(saved.url.path, "/admin/auth/group/")
                expect("was added successfully" in saved.text and "größer" in saved.text, saved.text[:300])
                style = visitor.get("static/admin/css/base.css")
                equal((style.status_code, style.headers["content-type"]), (200, "text/css"))
                out = visitor.post("admin/logout/", data={"csrfmiddlewaretoken": token(saved)}, headers=origin)
                expect(out.status_code == 200, out.text[:300])
                equal(visitor.get("admin/").url.path, "/admin/login/")
                missing = visitor.get("no/such")
                expect(missing.status_code == 404 and "DEBUG = True" in missing.text, missing.text[:200])

with service("koa", "Nodejs18.15", "MAYFLY_WEB_KOA") as ready:
    if ready:
        with session.check("Koa: hello, form, cookies, static files, a stream, errors"):
            with httpx.Client(base_url=path_url("koa"), timeout=30) as visitor:
                hello = visitor.get("")
                equal(hello.text, "Hello World")
                expect(hello.headers["x-response-time"].endswith("ms"), hello.headers)
                posted = visitor.post("form", data={"name": "a-b"})
                equal((posted.status_code, posted.headers["location"]), (302, "https://koajs.com/"))
                who = visitor.get("who").json()
                equal(who, {"ip": "127.0.0.1", "protocol": "http", "cookie": "a-b"})
                style = visitor.get("style.css")
                equal((style.text, style.headers["content-type"]), ("body { color: teal; }\n", "text/css; charset=utf-8"))
                stream = visitor.get("stream")
                expect(stream.text.startswith("// Koa's hello world") and stream.headers["transfer-encoding"] == "chunked", stream.headers)
                teapot = visitor.get("throw")
                equal((teapot.status_code, teapot.text), (418, "short and stout"))
                equal(visitor.delete("who").status_code, 405)

with service("socketio", "Nodejs18.15", "MAYFLY_WEB_SOCKETIO") as ready:
    if ready:
        for case in ("polling", "websocket", "upgrade"):
            for form, url in (("path", path_url("socketio")), ("host", host_url("socketio"))):
                with session.check(f"Socket.IO by {form}: {case}") as notes:
                    notes.append(node_client(f"socketio-{case}", url))
        with session.check("Socket.IO serves its client"):
            equal(httpx.get(path_url("socketio", "/socket.io/socket.io.js")).status_code, 200)

with service("next", "Nodejs18.15", "MAYFLY_WEB_NEXT") as ready:
    if ready:
        with session.check("Next.js: the page of create-next-app, its assets, its own 404") as notes:
            with httpx.Client(base_url=host_url("next"), timeout=30) as visitor:
                page = visitor.get("")
                expect("Hello World!" in page.text and page.headers.get("x-powered-by") == "Next.js", page.text[:300])
                assets = sorted(set(re.findall(r'(?:src|href)="(/_next/static/[^"]+\.(?:js|css))"', page.text)))
                expect(assets, "the page names no assets")
                for asset in assets:
                    got = visitor.get(asset)
                    equal((asset, got.status_code), (asset, 200))
                    expect("immutable" in got.headers["cache-control"], got.headers)
                missing = visitor.get("nothing")
                expect(missing.status_code == 404 and "This page could not be found" in missing.text, missing.text[:300])
                notes.append(f"{len(assets)} assets")
        with session.check("Next.js: route handlers, a stream, a server action by form post"):
            with httpx.Client(base_url=host_url("next"), timeout=30) as visitor:
                equal(visitor.post("api/sum", content=UPLOAD).json(), {"n": len(UPLOAD), "sha256": SUM, "prefix": None})
                with visitor.stream("GET", "api/events") as stream:
                    arrived = [(time.monotonic(), line) for line in stream.iter_lines() if line]
                equal([line for _, line in arrived], [f"data: {n}" for n in range(10)])
                expect(arrived[-1][0] - arrived[0][0] > 0.3, "all at once")
                page = visitor.get("form")
                expect("stranger" in page.text, page.text[:500])
                hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)"(?: value="([^"]*)")?', page.text))
                fields = {name: (None, value) for name, value in hidden.items()} | {"name": (None, "Zoe")}
                posted = visitor.post("form", files=fields, headers={"origin": f"http://next.default.fn.localhost:{PORT}"})
                equal((posted.status_code, posted.headers["location"]), (303, "/form"))
                expect("Zoe" in visitor.get("form").text, "the action's cookie is not there")

with service("gin", "CustomRuntime", "MAYFLY_WEB_GIN", memory=128) as ready:
    if ready:
        with session.check("Gin: JSON, form, upload, server-sent events, its 404"):
            with httpx.Client(base_url=path_url("gin"), timeout=30) as visitor:
                equal(visitor.get("albums").json()[0]["title"], "Blue Train")
                added = visitor.post("albums", json={"id": "4", "title": "Größe", "price": 1})
                equal((added.status_code, visitor.get("albums/4").json()["title"]), (201, "Größe"))
                equal(visitor.post("albums", json={"id": "5"}).status_code, 400)
                form = visitor.post("form", data={"message": "hi"})
                equal((form.json(), form.headers["set-cookie"].split(";")[0]), ({"message": "hi", "nick": "anonymous"}, "gin_cookie=hi"))
                equal(visitor.post("upload", files={"file": ("f.bin", UPLOAD)}).json(), {"name": "f.bin", "n": len(UPLOAD), "sha256": SUM})
                equal(re.findall(r"data:(\d)", visitor.get("events").text), list("01234"))
                missing = visitor.get("nothing")
                equal((missing.status_code, missing.text), (404, "404 page not found"))
        # SCF's own samples of Gin say Go1; a service brings its program, whatever the runtime is called.
        with session.check("Gin under the runtime's name in SCF's samples, Go1"):
            deploy("gin-go1", "Go1", app("gin", "MAYFLY_WEB_GIN"), memory=128)
            equal(httpx.get(path_url("gin-go1", "/albums"), timeout=30).status_code, 200)

with service("grpcgo", "CustomRuntime", "MAYFLY_WEB_GRPCGO", memory=128) as ready:
    if ready:
        with session.check("grpc-go: gRPC's own interoperability suite, client and server") as notes:
            program = f"{os.environ['MAYFLY_WEB_GRPCGO']}/main"
            done = subprocess.run([program, ENDPOINT, "grpcgo.default.fn.localhost"], capture_output=True, text=True, timeout=120)
            expect(done.returncode == 0, done.stderr.strip()[-500:])
            notes.append(done.stdout.strip())

with service("springboot", "CustomRuntime", "MAYFLY_WEB_SPRINGBOOT", memory=1024) as ready:
    if ready:
        with session.check("Spring Boot: hello, upload, session, server-sent events, its 404"):
            with httpx.Client(base_url=path_url("springboot"), timeout=60) as visitor:
                equal(visitor.get("hello", params={"name": "größer"}).text, "Hello größer!")
                equal(visitor.post("upload", files={"file": ("f.bin", UPLOAD)}).json(), {"name": "f.bin", "n": len(UPLOAD), "sha256": SUM})
                equal([visitor.get("count").json() for _ in range(3)], [1, 2, 3])
                equal(re.findall(r"data:(\d)", visitor.get("events").text), list("01234"))
                missing = visitor.get("nothing")
                equal((missing.status_code, missing.json()["path"]), (404, "/nothing"))

# --- 1 GB --------------------------------------------------------------------------------------------------------------------


def blocks(n):
    """The same bytes as the servers make."""
    for i in range(-(-n // BLOCK)):
        yield (i.to_bytes(4, "little") * (BLOCK // 4))[: min(BLOCK, n - i * BLOCK)]


def sum_of(n):
    digest = hashlib.sha256()
    for block in blocks(n):
        digest.update(block)
    return digest.hexdigest()


def upload(name, n, chunked):
    connection = http.client.HTTPConnection(HOST, PORT, timeout=300)
    headers = {} if chunked else {"Content-Length": str(n)}
    connection.request("POST", f"/fn/default/{name}/sum", blocks(n), headers, encode_chunked=chunked)
    return connection.getresponse().read().decode()


def download(name, n, chunked):
    connection = http.client.HTTPConnection(HOST, PORT, timeout=300)
    connection.request("GET", f"/fn/default/{name}/bytes?n={n}{'&chunked' if chunked else ''}")
    response, digest, got = connection.getresponse(), hashlib.sha256(), 0
    equal(response.getheader("content-length"), None if chunked else str(n))
    while part := response.read(BLOCK):
        digest.update(part)
        got += len(part)
    return got, digest.hexdigest()


# Visitors who ask for much and take nothing, over HTTP/1.1 and HTTP/2, while the rest goes on.
STALL_S_MAX = 50
dropped = {}


def stall(name, version):
    path = f"/fn/default/{name}/bytes?n={GB}"
    begun = time.monotonic()
    with socket.create_connection((HOST, PORT)) as connection:
        if version == 1:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        else:
            state = h2.connection.H2Connection()
            state.initiate_connection()
            state.send_headers(1, [(":method", "GET"), (":scheme", "http"), (":authority", "h"), (":path", path)], end_stream=True)
            connection.sendall(state.data_to_send())
            connection.settimeout(0.5)
        while time.monotonic() - begun < STALL_S_MAX:
            if version == 2:
                # It answers pings, and never opens its window.
                with contextlib.suppress(TimeoutError, ConnectionResetError):
                    if data := connection.recv(65536):
                        state.receive_data(data)
                        connection.sendall(state.data_to_send())
            else:
                time.sleep(0.5)
            if httpx.get(path_url(name)).json()["downloads"] > 0:
                dropped[version] = time.monotonic() - begun
                return


stalling = []
for version in (1, 2):
    name = f"stall-http{version}"
    with service(name, "Nodejs18.15", memory=128, files="transfer-node") as ready:
        if ready:
            stalling.append(threading.Thread(target=stall, args=(name, version), daemon=True))
            stalling[-1].start()

WHOLE = sum_of(GB)
for name, runtime in (("transfer-node", "Nodejs18.15"), ("transfer-python", "Python3.10")):
    with service(name, runtime, memory=256, timeout=300) as ready:
        if not ready:
            continue
        # What the first requests make the platform keep (connections, buffers, code) is no part of what transfers cost.
        upload(name, 32 << 20, False), download(name, 32 << 20, False)
        before = platform_rss_mb()
        highest = before

        def watched(work):
            """Runs it and looks at the platform's memory all the while."""
            global highest
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                future = pool.submit(work)
                while not future.done():
                    highest = max(highest, platform_rss_mb())
                    concurrent.futures.wait([future], 0.2)
                return future.result()

        for chunked in (False, True):
            how = "chunked" if chunked else "with its length"
            with session.check(f"{name}: 1 GB up, {how}") as notes:
                begun = time.monotonic()
                equal(json.loads(watched(lambda: upload(name, GB, chunked))), {"n": GB, "sha256": WHOLE})
                notes.append(f"{1024 / (time.monotonic() - begun):.0f} MB/s")
            with session.check(f"{name}: 1 GB down, {how}") as notes:
                begun = time.monotonic()
                equal(watched(lambda: download(name, GB, chunked)), (GB, WHOLE))
                notes.append(f"{1024 / (time.monotonic() - begun):.0f} MB/s")
        with session.check(f"{name}: a visitor who leaves in the middle of an upload or a download is noticed by the server"):
            node_client("abort", path_url(name))
        with session.check(f"{name}: a reader that stops for a while holds nothing up, and no memory") as notes:
            connection = http.client.HTTPConnection(HOST, PORT, timeout=60)
            connection.request("GET", f"/fn/default/{name}/bytes?n={GB}")
            response = connection.getresponse()
            response.read(BLOCK)
            for _ in range(10):
                watched(lambda: time.sleep(0.2))
                equal(httpx.get(path_url(name)).status_code, 200)
            connection.close()
        with session.check(f"{name}: the platform's memory stays") as notes:
            notes.append(f"{before:.0f} MB before, {highest:.0f} MB at most, {platform_rss_mb():.0f} MB after")
            expect(highest - before <= RSS_MB_MAX, f"it grew by {highest - before:.0f} MB")

for thread in stalling:
    thread.join()
for version in (1, 2):
    with session.check(f"a visitor who takes nothing of an answer is dropped, over HTTP/{version}") as notes:
        expect(version in dropped, f"still there after {STALL_S_MAX} s")
        notes.append(f"after {dropped[version]:.0f} s")

with session.check("all of them are deleted") as notes:
    notes.append(f"{delete_all()} functions")
session.done()
