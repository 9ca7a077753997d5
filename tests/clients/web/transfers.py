"""Uploads and downloads of 1 GB, in constant memory; visitors who leave, pause, or take nothing."""

import concurrent.futures
import contextlib
import hashlib
import http.client
import json
import socket
import threading
import time

import h2.connection
import httpx
from harness import Session, equal, expect
from services import HOST, PORT, attempt, delete_all, node_client, path_url, platform_rss_mb

session = Session("transfers of 1 GB")
RSS_MB_MAX = 64
GB = 1 << 30
BLOCK = 65536

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
    with attempt(session, name, "Nodejs18.15", memory=128, files="transfer-node") as ready:
        if ready:
            stalling.append(threading.Thread(target=stall, args=(name, version), daemon=True))
            stalling[-1].start()

WHOLE = sum_of(GB)
for name, runtime in (("transfer-node", "Nodejs18.15"), ("transfer-python", "Python3.10")):
    with attempt(session, name, runtime, memory=256, timeout=300) as ready:
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
