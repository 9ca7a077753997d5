"""A server that takes every request as its bytes come and tells what it got: nothing tidies up between the platform and what is looked at.

/echo and any other path: the head, and the body's length. /seen: all request lines since this was asked last. /early: answers before it reads the body.
/raw?hex=…: answers with these bytes ({pad}: 1 MB), and closes. Upgrades are agreed to on /up only; from then on every byte comes back."""

import json
import socket
import threading
import urllib.parse

seen = []
lock = threading.Lock()


class Gone(Exception):
    pass


class Reader:
    def __init__(self, connection):
        self.connection = connection
        self.buffer = b""

    def more(self):
        data = self.connection.recv(65536)
        if not data:
            raise Gone
        self.buffer += data

    def until(self, end):
        while end not in self.buffer:
            self.more()
        found, _, self.buffer = self.buffer.partition(end)
        return found

    def exactly(self, n):
        while len(self.buffer) < n:
            self.more()
        found, self.buffer = self.buffer[:n], self.buffer[n:]
        return found


def body_of(reader, headers):
    if "chunked" in headers.get("transfer-encoding", ""):
        body, trailers = b"", []
        while size := int(reader.until(b"\r\n").split(b";")[0], 16):
            body += reader.exactly(size)
            reader.exactly(2)
        while line := reader.until(b"\r\n"):
            trailers.append(line.decode("latin-1"))
        return body, trailers
    return reader.exactly(int(headers.get("content-length", 0))), []


def answer(connection, method, value):
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    connection.sendall(head if method == "HEAD" else head + body)


def serve(connection):
    reader = Reader(connection)
    try:
        while True:
            head = reader.until(b"\r\n\r\n").decode("latin-1")
            line, *rest = head.split("\r\n")
            method, target, _ = line.split(" ", 2)
            fields = [(name.strip().lower(), value.strip()) for name, _, value in (header.partition(":") for header in rest)]
            headers = dict(fields)
            path, _, query = target.partition("?")
            if path == "/seen":
                with lock:
                    lines = seen[:]
                    seen.clear()
                answer(connection, method, lines)
                continue
            with lock:
                seen.append(line)
            if path == "/early":
                answer(connection, method, "too soon")
            if path == "/raw":
                connection.sendall(bytes.fromhex(urllib.parse.parse_qs(query)["hex"][0]).replace(b"{pad}", b"a" * (1 << 20)))
                return
            if path == "/up" and "upgrade" in headers:
                connection.sendall(f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {headers['upgrade']}\r\n\r\n".encode())
                connection.sendall(reader.buffer)
                while data := connection.recv(65536):
                    connection.sendall(data)
                return
            body, trailers = body_of(reader, headers)
            if path != "/early":
                answer(connection, method, {"line": line, "fields": fields, "n": len(body), "body": body[:200].decode("latin-1"), "trailers": trailers})
    except (Gone, OSError):
        pass
    except ValueError as error:
        # What the platform sent could not be read: whoever asks for /seen should know.
        with lock:
            seen.append(f"UNREADABLE {error}: {head[:300]!r}")
    finally:
        connection.close()


listener = socket.create_server(("0.0.0.0", 9000), backlog=256)
while True:
    accepted, _ = listener.accept()
    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=serve, args=(accepted,), daemon=True).start()
