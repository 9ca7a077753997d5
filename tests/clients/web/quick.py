"""Frameworks as HTTP services, deployed as their documentation starts them, and used by real clients: Flask, FastAPI, Express, `ws`, `websockets`, gRPC."""

import concurrent.futures
import hashlib
import os
import re

import grpc_cases
import httpx
import websocket_cases
from harness import Session, equal, expect, until
from services import ENDPOINT, app, delete_all, deploy, host_url, node_client, path_url

session = Session("frameworks as services: Flask, FastAPI, Express, ws, websockets, gRPC")
UPLOAD = os.urandom(3 << 20)
SUM = hashlib.sha256(UPLOAD).hexdigest()

PARTS = {
    "flask": ("Python3.10", ["MAYFLY_WEB_FLASK"]),
    "fastapi": ("Python3.10", ["MAYFLY_WEB_FASTAPI"]),
    "express": ("Nodejs18.15", ["MAYFLY_WEB_EXPRESS"]),
    "ws": ("Nodejs18.15", ["MAYFLY_WEB_WS"]),
    "websockets": ("Python3.10", ["MAYFLY_WEB_WEBSOCKETS"]),
    "grpc": ("Python3.10", ["MAYFLY_WEB_GRPC", "MAYFLY_WEB_STUBS"]),
}
ready = set()
for name, (runtime, built) in PARTS.items():
    with session.check(f"{name}: deployed") as notes:
        deploy(name, runtime, app(name, *built))
        ready.add(name)
with session.check("the first request of each, all at once") as notes:

    def first(name):
        answer = httpx.get(path_url(name), timeout=60)
        return f"{name} {answer.status_code} in {answer.elapsed.total_seconds():.1f} s", answer.status_code

    with concurrent.futures.ThreadPoolExecutor() as pool:
        for told, status in pool.map(first, [n for n in PARTS if n in ready and n != "grpc"]):
            notes.append(told)
            expect(status < 500, told)


# --- Flask -----------------------------------------------------------------------------------------------------------------


def flask(base, root):
    """The same by path and by host: what url_for makes must lead back to where the visitor came from."""
    with httpx.Client(base_url=base, timeout=30) as visitor:
        equal(visitor.get("").text, "You are not logged in")
        page = visitor.get("login")
        action = re.search(r'action="([^"]+)"', page.text)[1]
        equal(action, f"{root}/login")
        posted = visitor.post(action_url(base, action), data={"username": "Zoë & co"})
        equal((posted.status_code, posted.headers["location"]), (302, f"{root}/"))
        expect("HttpOnly" in posted.headers["set-cookie"], posted.headers)
        equal(visitor.get(action_url(base, posted.headers["location"])).text, "Logged in as Zoë &amp; co")
        equal(visitor.get("logout", follow_redirects=True).text, "You are not logged in")
        answer = visitor.get("cookies", headers={"cookie": "a=1; b=2"})
        equal(answer.json()["got"] | {"a": "1", "b": "2"}, answer.json()["got"])
        equal(len(answer.headers.get_list("set-cookie")), 2)
        equal(visitor.get("cookies").json()["got"]["username"], "the username")
        where = visitor.get("where").json()
        equal((where["url"], where["addr"], where["root"]), (f"{base}where", "127.0.0.1", root))
        missing = visitor.get("no/such%20page")
        equal((missing.status_code, missing.text), (404, "no /no/such page"))


def action_url(base, path):
    return httpx.URL(base).join(path)


if "flask" in ready:
    with session.check("Flask by path: form, session, redirect with url_for, cookies, 404"):
        flask(path_url("flask"), "/fn/default/flask")
    with session.check("Flask by host: the same"):
        flask(host_url("flask"), "")
    with session.check("Flask: file upload, with a length and chunked") as notes:
        form = {"data": {"note": "größer"}, "files": {"the_file": ("a b.bin", UPLOAD, "application/x-own")}}
        wanted = {"name": "a b.bin", "type": "application/x-own", "sha256": SUM, "note": "größer"}
        equal(httpx.post(path_url("flask", "/upload"), timeout=60, **form).json(), wanted)
        request = httpx.Request("POST", path_url("flask", "/upload"), **form)
        body = request.read()

        def pieces():
            for at in range(0, len(body), 70_001):
                yield body[at : at + 70_001]

        # Werkzeug's own server gives the app no body without a length: that is its answer, not the platform's.
        answer = httpx.post(path_url("flask", "/upload"), content=pieces(), headers={"content-type": request.headers["content-type"]}, timeout=60)
        if answer.status_code == 200:
            equal(answer.json(), wanted)
        notes.append(f"chunked: {answer.status_code}")
        expect(answer.status_code in (200, 400, 411), answer.text[:300])
        equal(httpx.get(path_url("flask")).status_code, 200)

# --- FastAPI ---------------------------------------------------------------------------------------------------------------

if "fastapi" in ready:
    with session.check("FastAPI: JSON, validation, OpenAPI, files") as notes:
        with httpx.Client(base_url=path_url("fastapi"), timeout=30) as visitor:
            equal(visitor.get("").json(), {"Hello": "World"})
            equal(visitor.get("items/5", params={"q": "a b&ü"}).json(), {"item_id": 5, "q": "a b&ü"})
            equal(visitor.put("items/5", json={"name": "x", "price": 1.5}).json(), {"item_name": "x", "item_id": 5})
            bad = visitor.put("items/5", json={"name": "x"})
            equal((bad.status_code, bad.json()["detail"][0]["loc"]), (422, ["body", "price"]))
            expect("/items/{item_id}" in visitor.get("openapi.json").json()["paths"], "no OpenAPI")
            equal(visitor.post("files/", data={"token": "t"}, files={"file": ("f.bin", UPLOAD)}).json(), {"name": "f.bin", "sha256": SUM, "token": "t"})
    with session.check("FastAPI: server-sent events come one by one") as notes:
        import time

        with httpx.stream("GET", path_url("fastapi", "/events?count=10&pause=0.1"), timeout=30) as stream:
            equal(stream.headers["content-type"], "text/event-stream; charset=utf-8")
            arrived, ids = [], []
            for line in stream.iter_lines():
                if line.startswith("id: "):
                    ids.append(int(line[4:]))
                    arrived.append(time.monotonic())
        equal(ids, list(range(10)))
        expect(arrived[-1] - arrived[0] > 0.6, f"all within {arrived[-1] - arrived[0]} s")
        notes.append(f"10 events over {arrived[-1] - arrived[0]:.2f} s")
    with session.check("FastAPI: a visitor who leaves a stream is noticed by the server"):
        before = httpx.get(path_url("fastapi", "/left")).json()["streams"]
        with httpx.stream("GET", path_url("fastapi", "/events?count=100000&pause=0.02"), timeout=30) as stream:
            next(stream.iter_lines())
        until("the server's generator was cancelled", lambda: httpx.get(path_url("fastapi", "/left")).json()["streams"] > before)
    with session.check("FastAPI: WebSocket, and the code it was closed with"):
        from websockets.sync.client import connect

        with connect(path_url("fastapi", "/items/foo/ws?q=7").replace("http", "ws", 1)) as socket:
            for n in range(20):
                socket.send(f"m{n}")
                equal(socket.recv(timeout=10), f"Message text was: m{n}, for item ID: foo, q: 7")
            socket.close(4321, "own")
        until("the server knows the code", lambda: 4321 in httpx.get(path_url("fastapi", "/left")).json()["sockets"])

# --- Express ---------------------------------------------------------------------------------------------------------------

if "express" in ready:
    with session.check("Express: hello, form post and redirect, static files with conditions and ranges, upload, JSON, its error page") as notes:
        for base in (path_url("express"), host_url("express")):
            with httpx.Client(base_url=base, timeout=30) as visitor:
                equal(visitor.get("").text, "Hello World!")
                posted = visitor.post("form", data={"user[name]": "Zoë + co"})
                equal((posted.status_code, posted.headers["location"]), (303, "thanks?name=Zo%C3%AB%20%2B%20co"))
                thanks = visitor.get(posted.headers["location"]).json()
                equal((thanks["name"], thanks["cookie"], thanks["protocol"]), ("Zoë + co", "seen=yes", "http"))
                expect(thanks["ip"].endswith("127.0.0.1"), thanks)
                page = visitor.get("static/index.html")
                expect("served as it is" in page.text and page.headers["content-type"].startswith("text/html"), page.text)
                equal(visitor.get("static/index.html", headers={"if-none-match": page.headers["etag"]}).status_code, 304)
                part = visitor.get("static/index.html", headers={"range": "bytes=0-8"})
                equal((part.status_code, part.text, part.headers["content-range"].split("/")[0]), (206, "<!doctype", "bytes 0-8"))
                head = visitor.head("static/index.html")
                equal((head.status_code, int(head.headers["content-length"]), head.content), (200, len(page.content), b""))
                equal(visitor.get("static/../app.js").status_code, 404)
                sent = visitor.post("profile", data={"a": "1"}, files={"avatar": ("me.png", UPLOAD, "image/png")}).json()
                equal(sent, {"name": "me.png", "sha256": SUM, "fields": {"a": "1"}})
                equal(visitor.post("json", json={"deep": [1, {"ü": None}]}).json(), {"deep": [1, {"ü": None}]})
                failed = visitor.get("fail")
                expect(failed.status_code == 500 and "BROKEN" in failed.text, failed.text)
                equal(visitor.options("json").headers["allow"].replace(" ", ""), "POST")

# --- ws ----------------------------------------------------------------------------------------------------------------------

if "ws" in ready:
    for case, title in [
        ("ws-echo", "text, binary, 16 MB messages, subprotocol, permessage-deflate"),
        ("ws-ping", "ping and pong, both ways"),
        ("ws-close", "close codes and reasons carried both ways, connections that just end"),
        ("ws-refused", "a handshake that the server refuses"),
        ("ws-many", "many at a time on one instance"),
    ]:
        with session.check(f"ws: {title}") as notes:
            notes += filter(None, [node_client(case, path_url("ws"))])
    with session.check("ws by host"):
        node_client("ws-ping", host_url("ws"))

# --- websockets ------------------------------------------------------------------------------------------------------------

if "websockets" in ready:
    websocket_cases.run(session, "websockets", path_url("websockets"))
if "ws" in ready:
    websocket_cases.strict(session, "ws", path_url("ws"))

# --- gRPC --------------------------------------------------------------------------------------------------------------------

if "grpc" in ready:
    grpc_cases.run(session, ENDPOINT, "grpc.default.fn.localhost")

with session.check("all of them are deleted") as notes:
    notes.append(f"{delete_all()} functions")

session.done()
