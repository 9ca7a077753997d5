"""Abuse of the front door on a service's URL. Whatever is sent is refused cleanly or passed on as it is: nothing crashes, and no two sides ever
disagree where a request ends. Behind the URL is a server that tells what it was sent, byte for byte (apps/probe)."""

import http2_abuse
import threading
import time

from harness import Session, equal, expect, until
from services import ENDPOINT, HOST, PORT, app, delete_all, deploy
from wire import Wire, elapsed

session = Session("abuse of the front door")
ROOT = "/fn/default/probe"
AT = (HOST, PORT)
serial = iter(range(1 << 30))


def bytes_of(text):
    return text if isinstance(text, bytes) else text.encode("latin-1")


def ask(path, headers="", method="GET"):
    """One proper request on a connection of its own."""
    wire = Wire(AT, 20)
    wire.send(f"{method} {ROOT}{path} HTTP/1.1\r\nHost: h\r\n{headers}Connection: close\r\n\r\n".encode("latin-1"))
    answer = wire.answer()
    wire.close()
    expect(answer is not None, f"no answer to {path}")
    return answer


def seen():
    """The request lines that the server has got since this was asked last."""
    return ask("/seen").json()


REFUSED = "refused"
PASSED = "passed"
EITHER = "either"


def attack(name, data, wanted, statuses=None, lines=None, heads=()):
    """Sends `data` and right behind it an honest request that asks to close. What must hold:

    REFUSED: one 4xx (or the bare end of the connection), and nothing of either reaches the server. PASSED: an answer for what was sent, then one for the
    honest request. EITHER: one of these. The server never sees a line but those that are allowed: the honest one, and, when passed, those of `data`
    (`lines`, by default one that is not looked at). What is refused for its body may have been begun with: its line is allowed if it is in `lines`."""
    marker = f"/honest-{next(serial)}"
    seen()
    wire = Wire(AT)
    wire.send(bytes_of(data) + f"GET {ROOT}{marker} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
    answers = wire.answers(heads)
    closed = wire.closed
    wire.close()
    arrived = seen()
    told = f"{name}: {answers}, {'closed' if closed else 'open'}, the server saw {arrived}"
    expect(closed, f"the connection stays open: {told}")
    expect(not any(line.startswith("UNREADABLE") or "smuggled" in line for line in arrived), told)
    honest = f"GET {marker} HTTP/1.1"
    passed = any(a.status < 400 for a in answers[:1])
    if wanted == REFUSED or (wanted == EITHER and not passed):
        # A request that is understood but not for us leaves the connection as good as it was.
        if len(answers) == 2 and answers[0].status in (403, 404, 405) and answers[1].status == 200 and answers[1].json()["line"] == honest and arrived == [honest]:
            return f"{answers[0].status}, and the next is served"
        expect(len(answers) <= 1 and all(400 <= a.status < 500 or a.status in (501, 505) for a in answers), told)
        expect(arrived in ([], lines), told)
        if statuses and answers:
            expect(answers[0].status in statuses, told)
        if not answers and statuses and 0 not in statuses:
            expect(False, f"closed without a word: {told}")
        return f"{answers[0].status if answers else 'closed'}"
    expect(passed, told)
    # The one that was sent may have ended the connection, which is a sound answer to doubt; what follows is then not served.
    expect(len(answers) in (1, 2), told)
    if len(answers) == 2:
        expect(answers[1].status == 200 and answers[1].json()["line"] == honest, told)
        equal(arrived[-1:], [honest])
        arrived = arrived[:-1]
    expect(honest not in arrived, told)
    if lines is not None:
        equal(arrived, lines)
    else:
        expect(len(arrived) <= 1, told)
    return "passed" if len(answers) == 2 else "passed, then closed"


def attacks(title, cases):
    """Many of them as one check; each that fails is told."""
    with session.check(f"{title} ({len(cases)})") as notes:
        outcomes, wrong = {}, []
        for name, (data, wanted, *more) in cases.items():
            try:
                outcomes.setdefault(attack(name, data, wanted, *more), []).append(name)
            except AssertionError as error:
                wrong.append(str(error))
        notes += [f"{outcome}: {len(names)}" for outcome, names in outcomes.items()]
        expect(not wrong, f"{len(wrong)} of {len(cases)}:\n       " + "\n       ".join(wrong))
        equal(ask("/after").status, 200)


def head(*lines, method="POST", path="/a", version="HTTP/1.1", host="Host: h\r\n"):
    """A request's head; the lines are put in as they are."""
    return f"{method} {ROOT}{path} {version}\r\n{host}" + "".join(line + "\r\n" for line in lines) + "\r\n"


SMUGGLED = f"GET {ROOT}/smuggled HTTP/1.1\r\nHost: h\r\n\r\n"

with session.check("a server that tells what it gets: deployed") as notes:
    deploy("probe", "Python3.10", app("probe"), memory=256)
    answer = ask("/x").json()
    equal(answer["line"], "GET /x HTTP/1.1")

# A slow head is watched while the rest goes on.
slow = {}


def dripping():
    wire = Wire(AT, 30)
    begun = time.monotonic()
    text = head("X-A: " + "a" * 1000, method="GET").encode()
    try:
        for byte in text:
            wire.socket.sendall(bytes([byte]))
            wire.socket.settimeout(0.25)
            try:
                if wire.socket.recv(1000) == b"":
                    break
            except TimeoutError:
                continue
            break
        slow["seconds"] = elapsed(begun)
    except OSError:
        slow["seconds"] = elapsed(begun)
    finally:
        wire.close()


drip = threading.Thread(target=dripping, daemon=True)
drip.start()
idle = [Wire(AT, 60) for _ in range(300)]
for half in idle:
    half.send(f"GET {ROOT}/never HTTP/1.1\r\nHost: h\r\nX-Half".encode())

# The head was passed on before the body was seen to be wrong.
BEGUN = ["POST /a HTTP/1.1"]
chunk = "5\r\nhello\r\n0\r\n\r\n"
attacks(
    "where a body ends: lengths that conflict or are none",
    {
        "two lengths": (head("Content-Length: 5", "Content-Length: 6") + "hello", REFUSED, {400}),
        "two lengths, the second zero": (head(f"Content-Length: {len(SMUGGLED)}", "Content-Length: 0") + SMUGGLED, REFUSED, {400}),
        "two lengths, the first zero": (head("Content-Length: 0", f"Content-Length: {len(SMUGGLED)}") + SMUGGLED, REFUSED, {400}),
        "lengths in a list": (head("Content-Length: 5, 6") + "hello", REFUSED, {400}),
        "the same length in a list": (head("Content-Length: 5, 5") + "hello", EITHER),
        "the same length twice": (head("Content-Length: 5", "Content-Length: 5") + "hello", EITHER),
        **{
            f"length {text!r}": (head(f"Content-Length: {text}") + "hello", REFUSED, {400})
            for text in ("+5", "-5", "0x5", "5 5", "5a", "5.0", "5;", "99999999999999999999", "18446744073709551616", "\xb2", '"5"', "5\x0b")
        },
        "empty length": (head("Content-Length: ") + "hello", EITHER, {400}),
        "length and chunked, length first": (head("Content-Length: 6", "Transfer-Encoding: chunked") + "0\r\n\r\n" + SMUGGLED, EITHER, {400}),
        "length and chunked, chunked first": (head("Transfer-Encoding: chunked", "Content-Length: 6") + "0\r\n\r\n" + SMUGGLED, EITHER, {400}),
        "long length and chunked": (head(f"Content-Length: {5 + len(SMUGGLED)}", "Transfer-Encoding: chunked") + "0\r\n\r\n" + SMUGGLED, EITHER, {400}),
        "length and chunked by host": (
            f"POST /a HTTP/1.1\r\nHost: probe.default.fn.localhost\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}",
            EITHER,
            {400},
        ),
        "length on GET": (head("Content-Length: 5", method="GET") + "hello", PASSED),
        "chunked GET": (head("Transfer-Encoding: chunked", method="GET") + chunk, PASSED),
        "chunked in HTTP/1.0": (head("Transfer-Encoding: chunked", version="HTTP/1.0") + "0\r\n\r\n" + SMUGGLED, EITHER, {400}),
        "length with space before the colon": (head("Content-Length : 5") + "hello", REFUSED, {400}),
    },
)
attacks(
    "where a body ends: transfer codings",
    {
        **{
            f"coding {text!r}": (head(f"Transfer-Encoding: {text}") + "0\r\n\r\n" + SMUGGLED, REFUSED, {400, 501})
            for text in ("xchunked", "chunked, identity", "chunked, gzip", "identity", "gzip", "chunke\x64x", "\x0bchunked", "chunked;q=1", "chunked\x00", "c\xfeunked")
        },
        "coding gzip, chunked": (head("Transfer-Encoding: gzip, chunked") + chunk, EITHER, {400, 501}),
        "chunked twice in a list": (head("Transfer-Encoding: chunked, chunked") + chunk, EITHER, {400, 501}),
        "chunked in two headers": (head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked") + chunk, EITHER, {400, 501}),
        "chunked, then identity": (head("Transfer-Encoding: chunked", "Transfer-Encoding: identity") + "0\r\n\r\n" + SMUGGLED, REFUSED, {400, 501}),
        "identity, then chunked": (head("Transfer-Encoding: identity", "Transfer-Encoding: chunked") + chunk, EITHER, {400, 501}),
        "CHUNKED": (head("Transfer-Encoding: CHUNKED") + chunk, PASSED),
        "chunked on a folded line": (head("Transfer-Encoding:\r\n chunked") + chunk, EITHER, {400}),
        "space before the colon": (head("Transfer-Encoding : chunked") + "0\r\n\r\n" + SMUGGLED, REFUSED, {400}),
        "tab before the coding": (head("Transfer-Encoding:\tchunked") + chunk, PASSED),
        "empty coding": (head("Transfer-Encoding: ") + "0\r\n\r\n" + SMUGGLED, REFUSED, {400, 501}),
        "underscore": (head("Transfer_Encoding: chunked", "Content-Length: 5") + "hello", PASSED),
    },
)
attacks(
    "where a body ends: chunks",
    {
        **{
            f"size {text!r}": (head("Transfer-Encoding: chunked") + f"{text}\r\nhello\r\n0\r\n\r\n", REFUSED, {400, 0}, BEGUN)
            for text in ("-5", "+5", "0x5", "5g", "", "FFFFFFFFFFFFFFFFF", "fffffffffffffffff5", "\xb25")
        },
        "size with a bare LF": (head("Transfer-Encoding: chunked") + "5\nhello\r\n0\r\n\r\n", REFUSED, {400, 0}, BEGUN),
        "data that ends with LF": (head("Transfer-Encoding: chunked") + "5\r\nhello\n0\r\n\r\n", REFUSED, {400, 0}, BEGUN),
        "data longer than its size": (head("Transfer-Encoding: chunked") + "4\r\nhello\r\n0\r\n\r\n", REFUSED, {400, 0}, BEGUN),
        "extension": (head("Transfer-Encoding: chunked") + "5;a=b;c\r\nhello\r\n0;x\r\n\r\n", EITHER),
        "extension with a bare LF": (head("Transfer-Encoding: chunked") + "5;a\nb\r\nhello\r\n0\r\n\r\n", REFUSED, {400, 0}, BEGUN),
        "extension with a bare CR": (head("Transfer-Encoding: chunked") + "5;a\rb\r\nhello\r\n0\r\n\r\n", REFUSED, {400, 0}, BEGUN),
        "extensions of 1 MB": (head("Transfer-Encoding: chunked") + "5;" + "a" * (1 << 20) + "\r\nhello\r\n0\r\n\r\n", REFUSED, {400, 413, 431, 0}, BEGUN),
        "trailers of 1 MB": (head("Transfer-Encoding: chunked") + "0\r\n" + f"X-T: {'t' * 60_000}\r\n" * 18 + "\r\n", REFUSED, {400, 413, 431, 0}, BEGUN),
        "5,000 trailers": (head("Transfer-Encoding: chunked") + "0\r\n" + "X-T: t\r\n" * 5000 + "\r\n", REFUSED, {400, 413, 431, 0}, BEGUN),
        "broken trailer": (head("Transfer-Encoding: chunked") + "0\r\nno colon\r\n\r\n", EITHER, {400, 0}, BEGUN),
    },
)
attacks(
    "lines and names",
    {
        "bare LF after the request line": (f"GET {ROOT}/a HTTP/1.1\nHost: h\r\n\r\n", EITHER, {400}),
        "bare LF everywhere": (f"GET {ROOT}/a HTTP/1.1\nHost: h\n\n", EITHER, {400}),
        "bare CR in a value": (head("X-A: a\rX-Scf-Name: evil"), REFUSED, {400}),
        "bare CR after the request line": (f"GET {ROOT}/a HTTP/1.1\rHost: h\r\n\r\n", REFUSED, {400}),
        "NUL in a value": (head("X-A: a\0b"), REFUSED, {400}),
        "NUL in a name": (head("X\0A: a"), REFUSED, {400}),
        "no colon": (head("X-A"), REFUSED, {400}),
        "empty name": (head(": a"), REFUSED, {400}),
        "space in a name": (head("X A: a"), REFUSED, {400}),
        "space before the colon": (head("X-A : a"), REFUSED, {400}),
        "name that is not ASCII": (head("X-\xc3\xa4: a"), REFUSED, {400}),
        "first header begins with space": (f"GET {ROOT}/a HTTP/1.1\r\n Host: h\r\n\r\n", REFUSED, {400}),
        "folded line": (head("X-A: a", " b"), REFUSED, {400}),
        "control character in a value": (head("X-A: \x01"), REFUSED, {400}),
        "DEL in a value": (head("X-A: \x7f"), REFUSED, {400}),
        "value that is not UTF-8": (head("X-A: \xff\xfe"), PASSED),
        "no host": (head(host=""), REFUSED, {400}),
        "two hosts": (head("Host: other"), REFUSED, {400}),
        "two hosts in one": (head(host="Host: h, other\r\n"), REFUSED, {400}),
        "host with a space": (head(host="Host: a b\r\n"), REFUSED, {400}),
        "host with a slash": (head(host="Host: a/b\r\n"), REFUSED, {400}),
        "host with a name before @": (head(host="Host: probe@h\r\n"), REFUSED, {400}),
        "host that is not UTF-8": (head(host="Host: \xff\r\n"), REFUSED, {400}),
        "empty host": (head(host="Host:\r\n", method="GET"), EITHER, {400}),
        "port that is none": (head(host="Host: h:99999999\r\n", method="GET"), EITHER, {400}),
    },
)
attacks(
    "floods: too many, too large",
    {
        "100 headers": (head(*[f"X-{n}: v" for n in range(99)], method="GET"), PASSED),
        "101 headers": (head(*[f"X-{n}: v" for n in range(100)], method="GET"), REFUSED, {431}),
        "5,000 headers": (head(*[f"X-{n}: v" for n in range(5000)], method="GET"), REFUSED, {431}),
        "one header of 60 KB": (head("X-A: " + "a" * 60_000, method="GET"), PASSED),
        "one header of 70 KB": (head("X-A: " + "a" * 70_000, method="GET"), REFUSED, {431}),
        "headers of 10 MB": (head("X-A: " + "a" * (10 << 20), method="GET"), REFUSED, {431, 0}),
        "headers of 70 KB together": (head(*[f"X-{n}: {'a' * 7000}" for n in range(10)], method="GET"), REFUSED, {431}),
        "path of 60 KB": (head(method="GET", path="/" + "p" * 60_000), PASSED),
        "path of 70 KB": (head(method="GET", path="/" + "p" * 70_000), REFUSED, {414, 431}),
        "query of 70 KB": (head(method="GET", path="/?" + "q" * 70_000), REFUSED, {414, 431}),
        "method of 70 KB": (head(method="M" * 70_000), REFUSED, {400, 431, 414, 501}),
        "Connection that names 5,000 headers": (head("Connection: " + ",".join(f"x-{n}" for n in range(5000)), method="GET"), PASSED),
    },
)
attacks(
    "versions and methods",
    {
        "HEAD": (head(method="HEAD"), PASSED, None, ["HEAD /a HTTP/1.1"], {0}),
        "OPTIONS": (head(method="OPTIONS"), PASSED, None, ["OPTIONS /a HTTP/1.1"]),
        "OPTIONS *": ("OPTIONS * HTTP/1.1\r\nHost: probe.default.fn.localhost\r\n\r\n", EITHER),
        "TRACE": (head(method="TRACE"), EITHER),
        "PURGE": (head(method="PURGE"), PASSED, None, ["PURGE /a HTTP/1.1"]),
        "a method in lower case": (head(method="get"), PASSED, None, ["get /a HTTP/1.1"]),
        "a method with tab": (head(method="GE\tT"), REFUSED, {400}),
        "no method": (f" {ROOT}/a HTTP/1.1\r\nHost: h\r\n\r\n", REFUSED, {400}),
        "CONNECT to a host": ("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n", REFUSED),
        "CONNECT to the service": ("CONNECT probe.default.fn.localhost:80 HTTP/1.1\r\nHost: probe.default.fn.localhost\r\n\r\n", REFUSED),
        "CONNECT to a path": (head(method="CONNECT"), REFUSED),
        "HTTP/0.9": (f"GET {ROOT}/a\r\n\r\n", REFUSED, {400}),
        "HTTP/1.2": (head(version="HTTP/1.2", method="GET"), EITHER, {400, 505}),
        "HTTP/2.0 in a line": (head(version="HTTP/2.0", method="GET"), REFUSED, {400, 505}),
        "HTTP/9": (head(version="HTTP/9", method="GET"), REFUSED, {400, 505}),
        "http in lower case": (head(version="http/1.1", method="GET"), REFUSED, {400, 505}),
        "two spaces": (f"GET  {ROOT}/a HTTP/1.1\r\nHost: h\r\n\r\n", EITHER, {400}),
        "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), REFUSED, {400, 0}),
        "SSH": ("SSH-2.0-OpenSSH_9.6\r\n", REFUSED, {400, 0}),
        "the start of HTTP/2, and then not": ("PRI * HTTP/1.1\r\nHost: h\r\n\r\n", EITHER, {400, 404, 405}),
    },
)
attacks(
    "targets",
    {
        "//": (head(method="GET", path="//a//b"), PASSED, None, ["GET //a//b HTTP/1.1"]),
        ".. at once": (head(method="GET", path="/../../api/x"), PASSED, None, ["GET /../../api/x HTTP/1.1"]),
        "..": (head(method="GET", path="/x/../../other/y"), PASSED, None, ["GET /x/../../other/y HTTP/1.1"]),
        "encoded": (head(method="GET", path="/%2e%2e/%2F%00%0d%0a?%0a"), PASSED, None, ["GET /%2e%2e/%2F%00%0d%0a?%0a HTTP/1.1"]),
        "broken encoding": (head(method="GET", path="/%zz%"), PASSED, None, ["GET /%zz% HTTP/1.1"]),
        "path by host that looks like another function's": (
            "GET /fn/default/other/x HTTP/1.1\r\nHost: probe.default.fn.localhost\r\n\r\n",
            PASSED,
            None,
            ["GET /fn/default/other/x HTTP/1.1"],
        ),
        "NUL in the path": (head(method="GET", path="/a\0b"), REFUSED, {400}),
        "space in the path": (head(method="GET", path="/a b"), REFUSED, {400}),
        "tab in the path": (head(method="GET", path="/a\tb"), REFUSED, {400}),
        "CR in the path": (head(method="GET", path="/a\rb"), REFUSED, {400}),
        "path that is not UTF-8": (head(method="GET", path="/\xff\xfe"), EITHER, {400}),
        "path in UTF-8, not encoded": (head(method="GET", path="/größer".encode().decode("latin-1")), EITHER, {400}),
        "backslash": (head(method="GET", path="/..\\x"), EITHER, {400}),
        "fragment": (head(method="GET", path="/a#b"), EITHER, {400}),
        "quotes and braces": (head(method="GET", path='/a"{}<>|^`'), EITHER, {400}),
        "absolute form": (f"GET http://h{ROOT}/abs?x HTTP/1.1\r\nHost: h\r\n\r\n", PASSED, None, ["GET /abs?x HTTP/1.1"]),
        "absolute form by host, another Host": (
            "GET http://probe.default.fn.localhost/abs HTTP/1.1\r\nHost: elsewhere\r\n\r\n",
            PASSED,
            None,
            ["GET /abs HTTP/1.1"],
        ),
        "absolute form without a path": ("GET http://probe.default.fn.localhost HTTP/1.1\r\nHost: elsewhere\r\n\r\n", PASSED, None, ["GET / HTTP/1.1"]),
        "absolute form of another scheme": (f"GET ftp://h{ROOT}/abs HTTP/1.1\r\nHost: h\r\n\r\n", EITHER),
        "a name and password in it": (f"GET http://a:b@h{ROOT}/abs HTTP/1.1\r\nHost: h\r\n\r\n", EITHER, {400}),
        "no slash": ("GET fn/default/probe/a HTTP/1.1\r\nHost: h\r\n\r\n", REFUSED),
        "a query alone": ("GET ?a HTTP/1.1\r\nHost: probe.default.fn.localhost\r\n\r\n", EITHER, {400}),
        "*": ("GET * HTTP/1.1\r\nHost: probe.default.fn.localhost\r\n\r\n", EITHER, {400}),
    },
)
with session.check("paths that lead out of /fn/ name no function, and never another one"):
    seen()
    for path in ("/fn/default/../default/probe/a", "/fn/default/%2e%2e/x", "//fn/default/probe/a", "/fn//default/probe/a", "/fn/default/probe%2Fa", "/fn/default/probe%00/a", "/x/../fn/default/probe/a"):
        wire = Wire(AT).send(f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
        answer = wire.answer()
        expect(answer and 400 <= answer.status < 500 or b'"Error"' in answer.body, f"{path}: {answer}")
    equal(seen(), [])

# --- headers -----------------------------------------------------------------------------------------------------------------


def fields(headers, path="/x"):
    return ask(path, headers).json()["fields"]


def values(got, name):
    return [value for key, value in got if key == name]


OWN = ["x-scf-name", "x-scf-namespace", "x-scf-memory", "x-scf-timeout", "x-scf-version", "x-scf-request-id", "x-scf-region", "x-scf-appid", "x-scf-uin"]
with session.check("a visitor's X-Scf-* headers never arrive, and the platform's own cannot be taken out") as notes:
    plain = {name: values(fields(""), name) for name in OWN}
    expect(all(len(v) == 1 for v in plain.values()), plain)
    forged = "".join(f"{name}: evil\r\n" for name in ["X-Scf-Name", "x-scf-name", "X-SCF-NAMESPACE", "X-Scf-Memory", "X-Scf-Request-Id", "X-Scf-Appid", "X-Scf-Uin", "X-Scf-Version", "X-Scf-Anything"])
    stripped = "Connection: " + ", ".join(OWN) + ", close\r\n"
    for headers in (forged, stripped, forged + stripped, stripped + forged, "Connection: X-Scf-Name\r\nConnection: x-scf-request-id\r\n" + forged):
        got = fields(headers)
        for name in OWN:
            expect(len(values(got, name)) == 1, f"{name} is {values(got, name)} after {headers!r}")
            if name != "x-scf-request-id":
                equal((name, values(got, name)), (name, plain[name]))
        expect(not any("evil" in value for _, value in got), got)
    expect(values(got, "x-scf-anything") == [], got)
    notes.append(", ".join(f"{k} {v[0]}" for k, v in plain.items() if k in ("x-scf-name", "x-scf-version")))
with session.check("nor with underscores, which CGI-like servers take for hyphens"):
    got = fields("X_Scf_Name: evil\r\nX_SCF_REQUEST_ID: evil\r\nx-scf_name: evil\r\n")
    expect(not any("evil" in value for _, value in got), [f for f in got if "evil" in f[1]])
with session.check("nor as trailers of a chunked body"):
    trailing = "5\r\nhello\r\n0\r\nX-Scf-Name: evil\r\nX-Mine: 1\r\nContent-Length: 99\r\nHost: evil\r\n\r\n"
    announced = head("Transfer-Encoding: chunked", "Trailer: X-Scf-Name, Content-Length, X-Mine", "TE: trailers", "Connection: close, TE")
    wire = Wire(AT).send((announced + trailing).encode())
    got = wire.answer().json()
    equal((got["body"], values(got["fields"], "x-scf-name")), ("hello", ["probe"]))
    expect(not any(t.lower().startswith(("x-scf-", "content-length", "host")) for t in got["trailers"]), got["trailers"])
with session.check("Connection cannot take out the host, the length or what says where a visitor comes from; hop-by-hop headers stay behind"):
    hops = ["X-Mine: 1", "Keep-Alive: 1", "Proxy-Connection: keep-alive", "Proxy-Authorization: secret", "TE: gzip", "Upgrade: foo"]
    named = "Connection: close, Content-Length, Host, X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, X-Mine"
    wire = Wire(AT).send((head("Content-Length: 5", named, *hops) + "hello").encode())
    got = wire.answer().json()
    equal((got["body"], values(got["fields"], "host"), values(got["fields"], "x-forwarded-for")), ("hello", ["h"], ["127.0.0.1"]))
    for gone in ("x-mine", "keep-alive", "proxy-connection", "proxy-authorization", "te", "upgrade"):
        equal((gone, values(got["fields"], gone)), (gone, []))
with session.check("absolute form: the Host that the server sees is the target's"):
    wire = Wire(AT).send(b"GET http://probe.default.fn.localhost/abs HTTP/1.1\r\nHost: elsewhere\r\nConnection: close\r\n\r\n")
    got = wire.answer().json()
    equal(values(got["fields"], "host"), ["probe.default.fn.localhost"])
with session.check("values that are not UTF-8 arrive as they are"):
    equal(values(fields("X-A: \xff\xfe\r\n"), "x-a"), ["\xff\xfe"])

# --- upgrades --------------------------------------------------------------------------------------------------------------------

attacks(
    "upgrades that the server does not take up",
    {
        "websocket": (head("Connection: Upgrade", "Upgrade: websocket", method="GET"), PASSED, None, ["GET /a HTTP/1.1"]),
        "websocket with a body": (head("Connection: Upgrade", "Upgrade: websocket", "Content-Length: 5") + "hello", PASSED, None, ["POST /a HTTP/1.1"]),
        "websocket with a chunked body": (head("Connection: Upgrade", "Upgrade: websocket", "Transfer-Encoding: chunked") + chunk, PASSED, None, ["POST /a HTTP/1.1"]),
        "h2c": (head("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA", method="GET"), PASSED, None, ["GET /a HTTP/1.1"]),
        "many": (head("Connection: Upgrade", "Upgrade: a, b/1, websocket, h2c", method="GET"), PASSED, None, ["GET /a HTTP/1.1"]),
        "without Connection": (head("Upgrade: websocket", method="GET", path="/up"), PASSED, None, ["GET /up HTTP/1.1"]),
        "in HTTP/1.0": (head("Connection: Upgrade", "Upgrade: websocket", method="GET", path="/up", version="HTTP/1.0"), PASSED, None, ["GET /up HTTP/1.1"]),
    },
)
with session.check("Upgrade: h2c gives no connection on which platform headers could be forged"):
    # A server that agrees would then be sent requests that the platform never looks at.
    wire = Wire(AT).send(head("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA", method="GET", path="/up").encode())
    answer = wire.answer()
    wire.close()
    expect(answer is not None and answer.status != 101, f"the platform passed h2c on: {answer}")
with session.check("a real upgrade is a tunnel: bytes come back as they are, and what was sent early is not lost"):
    wire = Wire(AT).send((head("Connection: Upgrade", "Upgrade: websocket", method="GET", path="/up") + SMUGGLED).encode())
    equal(wire.answer().status, 101)
    equal(wire._exactly(len(SMUGGLED)), SMUGGLED.encode())
    wire.send(b"\x00\xff more")
    equal(wire._exactly(7), b"\x00\xff more")
    wire.close()
    equal([line for line in seen() if "smuggled" in line], [])

# --- what servers do wrong -----------------------------------------------------------------------------------------------------


def raw(text, method="GET"):
    """The visitor's answer when the server says this, and whether the connection ended; then an honest request on another one."""
    wire = Wire(AT).send(f"{method} {ROOT}/raw?hex={bytes_of(text).hex()} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    try:
        answer = wire.answer(method == "HEAD")
    finally:
        wire.close()
    equal(ask("/after").json()["line"], "GET /after HTTP/1.1")
    return answer


with session.check("answers of servers that break the protocol") as notes:
    ok = "HTTP/1.1 200 OK\r\n"
    # (what the server says, statuses that a visitor may get; None: nothing but the connection's end)
    for name, text, statuses in [
        ("garbage", "hello", {502}),
        ("nothing", "", {502}),
        ("half a head", ok + "Content-", {502}),
        ("two lengths", ok + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", {502}),
        ("length that is none", ok + "Content-Length: -5\r\n\r\nhello", {502}),
        ("control characters", ok + "X-A: a\x01b\r\nContent-Length: 0\r\n\r\n", {200, 502}),
        ("NUL", ok + "X-A: a\0b\r\nContent-Length: 0\r\n\r\n", {502}),
        ("300 headers", ok + "".join(f"X-{n}: v\r\n" for n in range(300)) + "Content-Length: 0\r\n\r\n", {200, 502}),
        ("header of 1 MB", ok + "X-A: {pad}\r\nContent-Length: 0\r\n\r\n", {200, 502}),
        ("101 that nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\nhello", {502}),
        ("status 99", "HTTP/1.1 099 X\r\nContent-Length: 0\r\n\r\n", {502}),
        ("status 999", "HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n", {999, 502}),
        ("body without an end", ok + "\r\nhello", {200}),
        ("body shorter than its length", ok + "Content-Length: 50\r\n\r\nhello", {200}),
        ("broken chunk", ok + "Transfer-Encoding: chunked\r\n\r\nzz\r\nhello", {200, 502}),
        ("a body with 204", "HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\nhello", {204, 502}),
        ("X-Scf-Request-Id of its own", ok + "X-Scf-Request-Id: mine\r\nContent-Length: 0\r\n\r\n", {200}),
        ("more than it said", ok + "Content-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nX-Second: evil\r\nContent-Length: 0\r\n\r\n", {200}),
        ("many 1xx", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 20 + ok + "Content-Length: 2\r\n\r\nok", {200}),
    ]:
        # HEAD: the same without a body must not be waited for.
        answer = raw(text)
        expect(answer is not None and answer.status in statuses, f"{name}: {answer}, wanted {statuses}")
        if name.startswith("X-Scf"):
            expect(answer.headers["x-scf-request-id"] != "mine", answer.headers)
        if name == "more than it said":
            equal((answer.body, answer.headers.get("x-second")), (b"hello", None))
    equal(raw(ok + "Content-Length: 50\r\n\r\n", "HEAD").headers["content-length"], "50")
with session.check("a server that answers before it has read the body: the next request on no connection is disturbed"):
    for rest in (True, False):
        for _ in range(5):
            wire = Wire(AT).send(head("Content-Length: 400000", path="/early").encode() + b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n".ljust(200_000, b"x"))
            answer = wire.answer()
            expect(answer is not None and answer.status == 200 and answer.json() == "too soon", answer)
            equal(ask("/next").json()["line"], "GET /next HTTP/1.1")
            if rest:
                wire.send(bytes(200_000))
            wire.close()
            equal(ask("/next").json()["line"], "GET /next HTTP/1.1")
    until("the server has read all", lambda: not any("smuggled" in line or "UNREADABLE" in line for line in seen()), 3)
with session.check("visitors who leave: in the head, in the body, in a chunk, before the answer"):
    for data in (
        f"POST {ROOT}/a HTT",
        head("Content-Length: 500") + "hello",
        head("Transfer-Encoding: chunked") + "500\r\nhello",
        head("Transfer-Encoding: chunked") + "5\r\nhello\r\n",
        head(method="GET"),
        head("Expect: 100-continue", "Content-Length: 5"),
    ):
        for _ in range(5):
            Wire(AT).send(data.encode()).close()
    lines = ask("/after").json()["line"]
    equal(lines, "GET /after HTTP/1.1")
with session.check("visitors who stop in the middle of a body hold a place until the function's time-out, no longer") as notes:
    deploy("patient", "Python3.10", app("probe"), memory=128, timeout=2, concurrency=1)
    stuck = []
    for data in (head("Content-Length: 500") + "hello", head("Transfer-Encoding: chunked") + "5\r\nhello\r\n"):
        wire = Wire(AT, 10).send(data.replace("/probe/", "/patient/").encode())
        stuck.append(wire)
    begun = time.monotonic()
    answers = [wire.answer() for wire in stuck]
    notes.append(f"{[a and a.status for a in answers]} after {elapsed(begun):.1f} s")
    expect(all(a is not None and a.status in (408, 504) for a in answers) and elapsed(begun) < 8, f"{answers}")
    wire = Wire(AT, 10).send(f"GET /fn/default/patient/x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
    equal(wire.answer().status, 200)
with session.check("Expect"):
    answer = Wire(AT).send((head("Expect: 100-continue", "Content-Length: 5", "Connection: close") + "hello").encode()).answer()
    equal((answer.status, answer.json()["body"]), (200, "hello"))
    answer = Wire(AT).send((head("Expect: a-miracle", "Content-Length: 5", "Connection: close") + "hello").encode()).answer()
    expect(answer.status in (200, 417), answer)

http2_abuse.run(session, AT, ROOT, ask, seen)

with session.check("slow heads: honest requests are served beside 300 half ones, and a dripping one is cut off") as notes:
    begun = time.monotonic()
    for _ in range(50):
        equal(ask("/honest").status, 200)
    notes.append(f"50 honest requests in {elapsed(begun) * 1000:.0f} ms")
    drip.join(40)
    expect("seconds" in slow and slow["seconds"] < 25, f"the dripping head: {slow or 'still there'}")
    notes.append(f"the dripping one was cut off after {slow['seconds']:.0f} s")

    def all_gone():
        for half in idle[:]:
            half.socket.setblocking(False)
            try:
                if half.socket.recv(1000) == b"":
                    half.close()
                    idle.remove(half)
            except BlockingIOError:
                pass
            except ConnectionResetError:
                idle.remove(half)
        return not idle

    until("the half requests are cut off too", all_gone, 30)
with session.check("after all of it the server is the same, and was told nothing that nobody asked") as notes:
    expect(not any("smuggled" in line or line.startswith("UNREADABLE") for line in seen()), "something was smuggled")
    notes.append(f"{delete_all()} function deleted")
session.done()
