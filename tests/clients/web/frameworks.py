"""Larger frameworks as services, as their own templates make them: Django, Koa, Socket.IO, Next.js, Gin, grpc-go, tonic, Spring Boot, PHP without one."""

import hashlib
import os
import re
import subprocess
import time

import httpx
from harness import Session, equal, expect
from services import ENDPOINT, PORT, app, attempt, delete_all, deploy, host_url, node_client, path_url

session = Session("larger frameworks: Django, Koa, Socket.IO, Next.js, Gin, grpc-go, tonic, Spring Boot, PHP")
UPLOAD = os.urandom(3 << 20)
SUM = hashlib.sha256(UPLOAD).hexdigest()

with attempt(session, "django", "Python3.10", "MAYFLY_WEB_DJANGO") as ready:
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

with attempt(session, "koa", "Nodejs18.15", "MAYFLY_WEB_KOA") as ready:
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

with attempt(session, "socketio", "Nodejs18.15", "MAYFLY_WEB_SOCKETIO") as ready:
    if ready:
        for case in ("polling", "websocket", "upgrade"):
            for form, url in (("path", path_url("socketio")), ("host", host_url("socketio"))):
                with session.check(f"Socket.IO by {form}: {case}") as notes:
                    notes.append(node_client(f"socketio-{case}", url))
        with session.check("Socket.IO serves its client"):
            equal(httpx.get(path_url("socketio", "/socket.io/socket.io.js")).status_code, 200)

with attempt(session, "next", "Nodejs18.15", "MAYFLY_WEB_NEXT") as ready:
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

with attempt(session, "gin", "CustomRuntime", "MAYFLY_WEB_GIN", memory=128) as ready:
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

with attempt(session, "grpcgo", "CustomRuntime", "MAYFLY_WEB_GRPCGO", memory=128) as ready:
    if ready:
        with session.check("grpc-go: gRPC's own interoperability suite, client and server") as notes:
            program = f"{os.environ['MAYFLY_WEB_GRPCGO']}/main"
            done = subprocess.run([program, ENDPOINT, "grpcgo.default.fn.localhost"], capture_output=True, text=True, timeout=120)
            expect(done.returncode == 0, done.stderr.strip()[-500:])
            notes.append(done.stdout.strip())

# The same client on tonic's own server and on Google's: what one library lets pass, the other may not.
for name, runtime, built in (("tonic", "CustomRuntime", ["MAYFLY_WEB_TONIC"]), ("grpc", "Python3.10", ["MAYFLY_WEB_GRPC", "MAYFLY_WEB_STUBS"])):
    with attempt(session, name, runtime, *built, memory=256) as ready:
        if ready:
            with session.check(f"tonic's client on {name}: all four kinds of calls, metadata, 20 MB, errors, deadline, cancelling") as notes:
                program = f"{os.environ['MAYFLY_WEB_TONIC']}/main"
                done = subprocess.run([program, ENDPOINT, f"{name}.default.fn.localhost"], capture_output=True, text=True, timeout=300)
                expect(done.returncode == 0, done.stderr.strip()[-500:])
                notes.append(done.stdout.strip())

with attempt(session, "springboot", "CustomRuntime", "MAYFLY_WEB_SPRINGBOOT", memory=1024) as ready:
    if ready:
        with session.check("Spring Boot: hello, upload, session, server-sent events, its 404"):
            with httpx.Client(base_url=path_url("springboot"), timeout=60) as visitor:
                equal(visitor.get("hello", params={"name": "größer"}).text, "Hello größer!")
                equal(visitor.post("upload", files={"file": ("f.bin", UPLOAD)}).json(), {"name": "f.bin", "n": len(UPLOAD), "sha256": SUM})
                equal([visitor.get("count").json() for _ in range(3)], [1, 2, 3])
                equal(re.findall(r"data:(\d)", visitor.get("events").text), list("01234"))
                missing = visitor.get("nothing")
                equal((missing.status_code, missing.json()["path"]), (404, "/nothing"))

with attempt(session, "php", "CustomRuntime", memory=128) as ready:
    if ready:
        for form, base, root in (("path", path_url("php"), "/fn/default/php"), ("host", host_url("php"), "")):
            with session.check(f"PHP by {form}: a front controller's routes, a form with its token, the session's cookie, log-out") as notes:
                with httpx.Client(base_url=base, timeout=30) as visitor:
                    equal(visitor.get("").text, "<h1>Hello World!</h1>")
                    equal(visitor.get("users/gr%C3%B6%C3%9Fer", params={"a[]": "1"}).json(), {"id": "größer", "query": {"a": ["1"]}})
                    equal(visitor.get("account").status_code, 401)
                    equal(visitor.post("login", data={"token": "guessed", "user": "Eve"}).status_code, 403)
                    token = re.search(r'value="([^"]+)"', visitor.get("login").text)[1]
                    before = visitor.cookies["PHPSESSID"]
                    inside = visitor.post("login", data={"token": token, "user": "Zoë & co"})
                    equal((inside.status_code, inside.headers["location"]), (303, f"{root}/account"))
                    expect(visitor.cookies["PHPSESSID"] != before, "the session's id was not renewed")
                    equal(visitor.get("account").text, "Hello Zoë &amp; co")
                    equal(visitor.post("logout").text, "Bye")
                    equal(visitor.get("account").status_code, 401)
                    where = visitor.get("where", headers={"cookie": "a=1; b=2"}).json()
                    equal((where["address"], where["function"], where["cookies"]["b"]), ("127.0.0.1", "php", "2"))
        with session.check("PHP: uploads, raw bodies with a length and chunked, static files, server-sent events, its errors") as notes:
            with httpx.Client(base_url=path_url("php"), timeout=60) as visitor:
                sent = visitor.post("upload", data={"note": "größer"}, files={"file": ("a b.bin", UPLOAD)}).json()
                equal(sent, {"name": "a b.bin", "error": 0, "n": len(UPLOAD), "sha256": SUM, "note": "größer"})
                equal(visitor.put("raw", content=UPLOAD).json(), {"n": len(UPLOAD), "sha256": SUM})
                pieces = (UPLOAD[at : at + 100_001] for at in range(0, len(UPLOAD), 100_001))
                # PHP's own server takes chunks since 8.1 or so, and had no body for the script before that: its answer, not the platform's.
                chunked = visitor.put("raw", content=pieces).json()
                notes.append(f"chunked: {chunked['n']} bytes")
                expect(chunked in ({"n": len(UPLOAD), "sha256": SUM}, {"n": 0, "sha256": hashlib.sha256(b"").hexdigest()}), chunked)
                style = visitor.get("style.css")
                equal((style.text, style.headers["content-type"]), ("body { color: teal; }\n", "text/css; charset=UTF-8"))
                with visitor.stream("GET", "events") as stream:
                    arrived = [(time.monotonic(), line) for line in stream.iter_lines() if line]
                equal([line for _, line in arrived], [f"data: {n}" for n in range(5)])
                expect(arrived[-1][0] - arrived[0][0] > 0.2, "all at once")
                equal([visitor.get("nothing").status_code, visitor.get("fail").status_code, visitor.delete("login").status_code], [404, 500, 405])
                equal(visitor.delete("login").headers["allow"], "GET, POST")

with session.check("all of them are deleted") as notes:
    notes.append(f"{delete_all()} functions")
session.done()
