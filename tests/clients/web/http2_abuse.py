"""Abuse over HTTP/2, whose requests become HTTP/1.1 on their way to the server: what is legal in one and means something else in the other."""

import socket

import h2.config
import h2.connection
import h2.errors
import h2.events
from harness import equal, expect

# Nothing is checked or corrected on the way out: that is the other side's part.
FREE = h2.config.H2Configuration(client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False, validate_inbound_headers=False, header_encoding="latin-1")


class Http2:
    """A connection."""

    def __init__(self, address):
        self.socket = socket.create_connection(address, timeout=10)
        self.h2 = h2.connection.H2Connection(FREE)
        self.h2.initiate_connection()
        self.flush()
        self.streams = {}
        self.ended = False

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def request(self, headers, body=b"", end=True):
        """Sends a request; the stream's number."""
        stream = self.h2.get_next_available_stream_id()
        self.streams[stream] = {"status": None, "body": b"", "end": None}
        self.h2.send_headers(stream, headers, end_stream=end and not body)
        while body:
            part, body = body[:16_384], body[16_384:]
            self.h2.send_data(stream, part, end_stream=end and not body)
        self.flush()
        return stream

    def wait(self, stream=None):
        """Reads until this stream has ended, or the connection has. What came of it: {status, body, end}."""
        while not self.ended and (stream is None or self.streams[stream]["end"] is None):
            try:
                data = self.socket.recv(65536)
            except (ConnectionResetError, TimeoutError):
                data = b""
            if not data:
                self.ended = True
                break
            for event in self.h2.receive_data(data):
                if isinstance(event, h2.events.ConnectionTerminated):
                    self.ended = True
                of = self.streams.get(getattr(event, "stream_id", None))
                if of is None:
                    continue
                if isinstance(event, h2.events.ResponseReceived):
                    of["status"] = int(dict(event.headers)[":status"])
                elif isinstance(event, h2.events.DataReceived):
                    of["body"] += event.data
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    of["end"] = "ended"
                elif isinstance(event, h2.events.StreamReset):
                    of["end"] = f"reset {event.error_code}"
            self.flush()
        return self.streams.get(stream)

    def close(self):
        self.socket.close()


def run(session, at, root, ask, seen):
    def pseudo(path="/h2", method="GET", authority="h"):
        return [(":method", method), (":scheme", "http"), (":authority", authority), (":path", root + path)]

    with session.check("HTTP/2: a proper request, cookies joined, one that asks for the service by host") as notes:
        import json

        connection = Http2(at)
        got = json.loads(connection.wait(connection.request([*pseudo(), ("cookie", "a=1"), ("cookie", "b=2")]))["body"])
        fields = dict(got["fields"])
        equal((got["line"], fields["host"], fields["cookie"], fields["x-scf-name"]), ("GET /h2 HTTP/1.1", "h", "a=1; b=2", "probe"))
        by_host = [(":method", "POST"), (":scheme", "http"), (":authority", "probe.default.fn.localhost"), (":path", "/by?host")]
        got = json.loads(connection.wait(connection.request([*by_host, ("content-length", "5")], b"hello"))["body"])
        equal((got["line"], got["body"], dict(got["fields"])["host"]), ("POST /by?host HTTP/1.1", "hello", "probe.default.fn.localhost"))
        got = json.loads(connection.wait(connection.request([*by_host], b"x" * 40_000))["body"])
        equal(got["n"], 40_000)
        connection.close()

    post = pseudo(method="POST")
    smuggled = f"GET {root}/smuggled HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    cases = {
        "CR LF in a value": ([*pseudo(), ("x-a", "a\r\nX-Scf-Name: evil")], b""),
        "LF in a value": ([*pseudo(), ("x-a", "a\nX-Scf-Name: evil")], b""),
        "a request in a value": ([*pseudo(), ("x-a", "a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n")], b""),
        "NUL in a value": ([*pseudo(), ("x-a", "a\0b")], b""),
        "CR LF in a name": ([*pseudo(), ("x-a: b\r\nx-scf-name", "evil")], b""),
        "colon in a name": ([*pseudo(), ("x-scf-name:", "evil")], b""),
        "space in a name": ([*pseudo(), ("x-scf-name ", "evil")], b""),
        "capitals in a name": ([*pseudo(), ("X-Scf-Name", "evil")], b""),
        "CR LF in the path": ([(":method", "GET"), (":scheme", "http"), (":authority", "h"), (":path", f"{root}/a HTTP/1.1\r\nHost: h\r\n\r\nGET /smuggled")], b""),
        "space in the path": ([(":method", "GET"), (":scheme", "http"), (":authority", "h"), (":path", f"{root}/a HTTP/1.1 /smuggled")], b""),
        "CR LF in the method": ([(":method", "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\nGET"), *pseudo()[1:]], b""),
        "CR LF in the authority": (pseudo(authority="h\r\nX-Scf-Name: evil"), b""),
        "transfer-encoding": ([*post, ("transfer-encoding", "chunked")], b"0\r\n\r\n" + smuggled),
        "length shorter than the body": ([*post, ("content-length", "0")], smuggled),
        "length longer than the body": ([*post, ("content-length", "500")], b"hello"),
        "two lengths": ([*post, ("content-length", "5"), ("content-length", "50")], b"hello"),
        "length that is none": ([*post, ("content-length", "+5")], b"hello"),
        "Connection": ([*pseudo(), ("connection", "x-scf-name, close")], b""),
        "Upgrade": ([*pseudo("/up"), ("upgrade", "websocket"), ("connection", "upgrade")], b""),
        "TE": ([*pseudo(), ("te", "chunked")], b""),
        "two paths": ([*pseudo(), (":path", "/smuggled")], b""),
        "no path": (pseudo()[:3], b""),
        "pseudo header after others": ([("x-a", "1"), *pseudo()], b""),
        "pseudo header of its own": ([*pseudo(), (":own", "1")], b""),
        "another Host than the authority": ([*pseudo(authority="h"), ("host", "probe.default.fn.localhost")], b""),
        "CONNECT": ([(":method", "CONNECT"), (":authority", "probe.default.fn.localhost:9000")], b""),
        "100 KB of headers": ([*pseudo(), *[(f"x-{n}", "v" * 5000) for n in range(20)]], b""),
        "5,000 headers": ([*pseudo(), *[(f"x-{n}", "v") for n in range(5000)]], b""),
        "trailing space in a value": ([*pseudo(), ("x-a", " a ")], b""),
        "x-scf-name": ([*pseudo(), ("x-scf-name", "evil"), ("x-scf-request-id", "evil")], b""),
    }
    with session.check(f"HTTP/2 requests that mean something else in HTTP/1.1 ({len(cases)})") as notes:
        wrong, outcomes = [], {}
        seen()
        for name, (headers, body) in cases.items():
            connection = Http2(at)
            try:
                got = connection.wait(connection.request(headers, body))
            except OSError as error:
                got = {"status": None, "body": b"", "end": f"cut: {error}"}
            connection.close()
            arrived = seen()
            outcome = str(got["status"] or (got["end"] or "closed").split(":")[0])
            outcomes.setdefault(outcome, []).append(name)
            told = f"{name}: {outcome} {got['body'][:200]!r}, the server saw {arrived}"
            fields = []
            if got["status"] == 200 and got["body"]:
                answered = json.loads(got["body"])
                fields = answered["fields"]
            # Refused in whatever way, or passed on with nothing in it that the visitor had no right to say.
            fine = (got["status"] is None and got["end"] is not None) or connection.ended or (got["status"] or 0) in (200, 400, 404, 405, 413, 414, 431, 502)
            names = [key for key, _ in fields]
            fine = fine and not any("smuggled" in line or "UNREADABLE" in line for line in arrived) and len(arrived) <= 1
            fine = fine and names.count("host") <= 1 and names.count("content-length") + names.count("transfer-encoding") <= 1
            fine = fine and not any("evil" in value for key, value in fields if key.startswith("x-scf")) and names.count("x-scf-name") <= 1
            fine = fine and got["status"] != 502
            if not fine:
                wrong.append(told)
            try:
                equal(ask("/after").json()["line"], "GET /after HTTP/1.1")
            except AssertionError as error:
                wrong.append(f"after {name}: {error}")
            seen()
        notes += [f"{outcome}: {len(names)}" for outcome, names in sorted(outcomes.items())]
        expect(not wrong, f"{len(wrong)} of {len(cases)}:\n       " + "\n       ".join(wrong))
    with session.check("HTTP/2: 3,000 requests taken back at once (rapid reset), a flood of pings, settings and empty frames") as notes:
        connection = Http2(at)
        try:
            for n in range(3000):
                stream = connection.h2.get_next_available_stream_id()
                connection.h2.send_headers(stream, pseudo("/reset"), end_stream=True)
                connection.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
                if n % 50 == 0:
                    connection.flush()
            connection.flush()
        except OSError:
            notes.append("the connection was ended")
        connection.close()
        equal(ask("/after").status, 200)
        connection = Http2(at)
        try:
            for n in range(2000):
                connection.h2.ping(n.to_bytes(8, "big"))
                connection.h2.update_settings({4: 65535 + n})
                if n % 100 == 0:
                    connection.flush()
            connection.flush()
            # CONTINUATION frames without end.
            connection.socket.sendall(b"\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82")
            for _ in range(20_000):
                connection.socket.sendall(b"\x00\x00\x04\x09\x00\x00\x00\x00\x01\x00\x01a\x00")
        except OSError:
            notes.append("endless headers were cut off")
        connection.close()
        expect("endless headers were cut off" in notes, "endless headers are taken")
        equal(ask("/after").status, 200)
        seen()
    with session.check("HTTP/2: broken frames end the connection, and no other") as notes:
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        settings = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
        for name, data in {
            "no settings": preface + b"\x00\x00\x00\x00\x00\x00\x00\x00\x01",
            "a frame of 16 MB": preface + settings + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
            "data on stream 0": preface + settings + b"\x00\x00\x01\x00\x00\x00\x00\x00\x00a",
            "headers on stream 2": preface + settings + b"\x00\x00\x01\x01\x05\x00\x00\x00\x02\x82",
            "garbage for HPACK": preface + settings + b"\x00\x00\x04\x01\x05\x00\x00\x00\x01\xff\xff\xff\xff",
            "a window of 2^31": preface + settings + b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x7f\xff\xff\xff" * 3,
            "HTTP/1.1 after the preface": preface + smuggled,
        }.items():
            with socket.create_connection(at, timeout=10) as connection:
                connection.sendall(data)
                got = b""
                try:
                    while part := connection.recv(65536):
                        got += part
                except ConnectionResetError:
                    pass
                except TimeoutError:
                    raise AssertionError(f"{name}: the connection stays open") from None
            equal(ask("/after").status, 200)
        expect(not any("smuggled" in line for line in seen()), "something was smuggled")
