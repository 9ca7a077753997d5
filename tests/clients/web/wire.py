"""HTTP/1.1 as bytes: sends what no client library would, and reads every answer that comes back on the connection."""

import json
import re
import socket
import time


class Answer:
    """One response."""

    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.status} {self.body[:160]!r}"


class Wire:
    """A connection. Reading ends with the connection or after `patience` seconds without a byte."""

    def __init__(self, address, patience=5):
        self.socket = socket.create_connection(address, timeout=patience)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.closed = False

    def send(self, data):
        """What cannot be sent any more is left: the other side may have said its last word."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return self

    def _more(self):
        """False at the end: closed, reset, or silent."""
        try:
            data = self.socket.recv(65536)
        except TimeoutError:
            return False
        except ConnectionResetError:
            data = b""
        if not data:
            self.closed = True
            return False
        self.buffer += data
        return True

    def _until(self, end):
        while end not in self.buffer:
            if not self._more():
                return None
        found, _, self.buffer = self.buffer.partition(end)
        return found

    def _exactly(self, n):
        while len(self.buffer) < n:
            if not self._more():
                return None
        found, self.buffer = self.buffer[:n], self.buffer[n:]
        return found

    def answer(self, bodiless=False):
        """The next response that is not a 1xx (101 excepted), or None when none comes."""
        while True:
            head = self._until(b"\r\n\r\n")
            if head is None:
                return None
            first, *rest = head.decode("latin-1").split("\r\n")
            matched = re.match(r"HTTP/1\.[01] (\d{3})", first)
            if not matched:
                raise AssertionError(f"not a response: {first!r}")
            status = int(matched[1])
            if status >= 200 or status == 101:
                break
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        if bodiless or status in (101, 204, 304):
            return Answer(status, headers, b"")
        if "chunked" in headers.get("transfer-encoding", ""):
            body = b""
            while size := int(self._until(b"\r\n") or b"0", 16):
                body += self._exactly(size) or b""
                self._exactly(2)
            self._until(b"\r\n")
            return Answer(status, headers, body)
        if "content-length" in headers:
            return Answer(status, headers, self._exactly(int(headers["content-length"])) or b"")
        while self._more():
            pass
        body, self.buffer = self.buffer, b""
        return Answer(status, headers, body)

    def answers(self, heads=()):
        """All that come until the connection ends or falls silent. `heads`: which of them (counted from 0) answer a HEAD request."""
        found = []
        while (one := self.answer(len(found) in heads)) is not None:
            found.append(one)
        return found

    def close(self):
        self.socket.close()


def elapsed(begun):
    return time.monotonic() - begun
