"""WebSocket through the platform: what the `websockets` library's own tests try on a connection, and frames that break the rules of RFC 6455."""

import asyncio
import base64
import contextlib
import os
import socket
import struct
import time
import urllib.parse

from harness import equal, expect
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def run(session, name, url):
    """Cases against an echo server that takes messages up to 32 MB."""
    ws_url = url.replace("http", "ws", 1)

    def check(title, case):
        with session.check(f"{name}: {title}") as notes:
            asyncio.run(asyncio.wait_for(case(notes), 90))

    async def fragments(notes):
        async with connect(ws_url) as ws:
            parts = ["größer", "", "🦀" * 1000, "end"]
            await ws.send(parts)
            equal(await ws.recv(), "".join(parts))

            async def slowly():
                for n in range(10):
                    yield bytes([n]) * 1000
                    await asyncio.sleep(0.01)
                    # Control frames may come between fragments.
                    await (await ws.ping())

            await ws.send(slowly())
            equal(await ws.recv(), b"".join(bytes([n]) * 1000 for n in range(10)))

    async def compression(notes):
        text = "the same again and again " * 20_000
        for setting in ("deflate", None):
            async with connect(ws_url, compression=setting) as ws:
                equal("permessage-deflate" in ws.response.headers.get("Sec-WebSocket-Extensions", ""), setting == "deflate")
                for message in (text, os.urandom(100_000), "", b""):
                    await ws.send(message)
                    equal(await ws.recv(), message)

    async def many(notes):
        async with connect(ws_url, compression=None) as ws:
            begun = time.monotonic()

            async def send():
                for n in range(10_000):
                    await ws.send(f"message {n}")

            sending = asyncio.create_task(send())
            for n in range(10_000):
                equal(await ws.recv(), f"message {n}")
            await sending
            took = time.monotonic() - begun
            notes.append(f"{10_000 / took:.0f} a second")
            begun = time.monotonic()
            for n in range(300):
                await ws.send("x")
                await ws.recv()
            notes.append(f"round trip {(time.monotonic() - begun) / 300 * 1e6:.0f} µs")

    async def large(notes):
        async with connect(ws_url, compression=None, max_size=None) as ws:
            for size in (125, 126, 65_535, 65_536, 1 << 20, 30 << 20):
                data = os.urandom(size)
                await ws.send(data)
                expect(await ws.recv() == data, f"{size} bytes did not come back as they were")
            # The server may say so before the last byte is sent.
            with contextlib.suppress(ConnectionClosed):
                await ws.send(bytes(33 << 20))
            await asyncio.wait_for(ws.wait_closed(), 20)
            equal(ws.close_code, 1009)

    async def quiet(notes):
        # Nothing is said for longer than a short time-out would allow, then all is as before.
        async with connect(ws_url, ping_interval=None) as ws:
            await asyncio.sleep(3)
            await ws.send("still there")
            equal(await ws.recv(), "still there")

    check("fragmented messages, pings between the fragments", fragments)
    check("with and without compression", compression)
    check("10,000 messages", many)
    check("large frames, and one larger than the server takes", large)
    check("a silent connection stays", quiet)
    strict(session, name, url)


def frame(opcode, payload=b"", fin=True, reserved=0, masked=True, length=None):
    """A frame as a client sends it, right or wrong."""
    first = (0x80 if fin else 0) | (reserved << 4) | opcode
    size = len(payload) if length is None else length
    bit = 0x80 if masked else 0
    if size < 126:
        head = struct.pack("!BB", first, bit | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, bit | 127, size)
    if not masked:
        return head + payload
    mask = b"\x37\xfa\x21\x3d"
    return head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload))


class Raw:
    """A WebSocket connection without a library that would keep one from breaking the rules."""

    def __init__(self, url):
        at = urllib.parse.urlsplit(url)
        self.socket = socket.create_connection((at.hostname, at.port), timeout=10)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {at.path} HTTP/1.1\r\nHost: {at.netloc}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        self.buffer = b""
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        equal(head.split(b"\r\n")[0].split(b" ")[1], b"101")

    def _more(self):
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        self.buffer += data

    def _take(self, n):
        while len(self.buffer) < n:
            self._more()
        taken, self.buffer = self.buffer[:n], self.buffer[n:]
        return taken

    def frame(self):
        first, size = self._take(2)
        if size == 126:
            size = int.from_bytes(self._take(2), "big")
        elif size == 127:
            size = int.from_bytes(self._take(8), "big")
        return first & 15, self._take(size)

    def end(self):
        """Reads to the end: the code of the close frame, or None; and that the connection does end."""
        code = None
        try:
            while True:
                opcode, payload = self.frame()
                if opcode == CLOSE:
                    code = int.from_bytes(payload[:2], "big") if payload else 1005
        except EOFError:
            return code
        except ConnectionResetError:
            return code


def strict(session, name, url):
    """Frames against the rules: the server's verdict must come through, and the connection must end."""
    # What is sent; the codes that a server may close with.
    wrong = {
        "reserved bit without an extension": (frame(TEXT, b"x", reserved=2), {1002}),
        "reserved opcode": (frame(3, b"x"), {1002}),
        "reserved control opcode": (frame(11), {1002}),
        "ping of 126 bytes": (frame(PING, bytes(126)), {1002}),
        "fragmented ping": (frame(PING, b"x", fin=False), {1002}),
        "frame without a mask": (frame(TEXT, b"x", masked=False), {1002}),
        "continuation of nothing": (frame(0, b"x"), {1002}),
        "new message within another": (frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), {1002}),
        "text that is not UTF-8": (frame(TEXT, b"\xce\xba\xff"), {1007}),
        "text cut within a character": (frame(TEXT, b"\xce\xba\xe1"), {1007}),
        "close with one byte": (frame(CLOSE, b"\x03"), {1002}),
        "close with a reason that is not UTF-8": (frame(CLOSE, b"\x03\xe8\xff\xff"), {1002, 1007}),
        "length of 2^63": (frame(BINARY, length=1 << 63), {1002, 1009}),
    }
    for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535):
        wrong[f"close code {code}"] = (frame(CLOSE, struct.pack("!H", code)), {1002})
    with session.check(f"{name}: {len(wrong)} ways to break the protocol, each answered by the server's own close code") as notes:
        for what, (data, codes) in wrong.items():
            ws = Raw(url)
            ws.socket.sendall(data)
            code = ws.end()
            expect(code in codes, f"{what}: closed with {code}, wanted {codes}")
    with session.check(f"{name}: frames in single bytes, many frames in one write, close codes echoed") as notes:
        ws = Raw(url)
        for byte in frame(TEXT, b"bit by bit"):
            ws.socket.sendall(bytes([byte]))
            time.sleep(0.002)
        equal(ws.frame(), (TEXT, b"bit by bit"))
        ws.socket.sendall(b"".join(frame(TEXT, str(n).encode()) for n in range(200)) + frame(PING, b"now"))
        got = [ws.frame() for _ in range(201)]
        equal([payload for opcode, payload in got if opcode == TEXT], [str(n).encode() for n in range(200)])
        expect((PONG, b"now") in got, "no pong")
        ws.socket.sendall(frame(CLOSE, struct.pack("!H", 3456) + b"own"))
        equal(ws.end(), 3456)
        ws = Raw(url)
        ws.socket.sendall(frame(CLOSE))
        expect(ws.end() in (1000, 1005), "an empty close is answered by one")
