"""The same as transfer-node, with the server of Python's own library."""

import hashlib
import json
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BLOCK = 65536
aborted = {"uploads": 0, "downloads": 0}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def tell(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        if url.path != "/bytes":
            return self.tell(aborted)
        query = urllib.parse.parse_qs(url.query, keep_blank_values=True)
        n = int(query["n"][0])
        chunked = "chunked" in query
        self.send_response(200)
        self.send_header(*(("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(n))))
        self.end_headers()
        try:
            for i in range(-(-n // BLOCK)):
                block = (i.to_bytes(4, "little") * (BLOCK // 4))[: min(BLOCK, n - i * BLOCK)]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(block), block) if chunked else block)
            if chunked:
                self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            aborted["downloads"] += 1
            self.close_connection = True

    def pieces(self):
        """The body, piece by piece."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers["Content-Length"])
        while left > 0:
            part = self.rfile.read(min(left, 1 << 20))
            if not part:
                raise EOFError
            left -= len(part)
            yield part

    def do_POST(self):
        digest, n = hashlib.sha256(), 0
        try:
            for part in self.pieces():
                digest.update(part)
                n += len(part)
        except (EOFError, ValueError, OSError):
            aborted["uploads"] += 1
            self.close_connection = True
            return
        self.tell({"n": n, "sha256": digest.hexdigest()})


ThreadingHTTPServer(("0.0.0.0", 9000), Handler).serve_forever()
