"""What SDKs do, in a few lines: signed requests from inside a function. `index.main_handler` does what the event's `do` names."""

import base64
import hashlib
import hmac
import http.client
import json
import os
import random
import socket
import time
import urllib.parse
import urllib.request

E = os.environ


def own():
    return [E.get("TENCENTCLOUD_" + name, "") for name in ("SECRETID", "SECRETKEY", "SESSIONTOKEN")]


def send(host, method, path, headers, body=b""):
    connection = http.client.HTTPConnection(host, 80, timeout=30)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode("utf-8", "replace")


def mac(key, text, how):
    return hmac.new(key if isinstance(key, bytes) else key.encode(), text.encode(), how)


def cos(method, bucket, key="", body="", keys=None):
    secret_id, secret_key, token = keys or own()
    host = bucket + "." + E["COS_ENDPOINT"]
    span = "%d;%d" % (time.time() - 60, time.time() + 600)
    asked = "%s\n/%s\n\nhost=%s\n" % (method.lower(), key, urllib.parse.quote(host, ""))
    text = "sha1\n%s\n%s\n" % (span, hashlib.sha1(asked.encode()).hexdigest())
    signature = mac(mac(secret_key, span, "sha1").hexdigest(), text, "sha1").hexdigest()
    authorization = (
        "q-sign-algorithm=sha1&q-ak=%s&q-sign-time=%s&q-key-time=%s&q-header-list=host&q-url-param-list=&q-signature=%s"
        % (secret_id, span, span, signature)
    )
    return send(host, method, "/" + key, {"Authorization": authorization, "x-cos-security-token": token}, body.encode())


def api(action, parameters, keys=None):
    secret_id, secret_key, token = keys or own()
    host, body, now = E["TENCENTCLOUD_ENDPOINT"], json.dumps(parameters), int(time.time())
    date = time.strftime("%Y-%m-%d", time.gmtime(now))
    canonical = "POST\n/\n\ncontent-type:application/json\nhost:%s\n\ncontent-type;host\n%s" % (
        host, hashlib.sha256(body.encode()).hexdigest())
    scope = date + "/scf/tc3_request"
    text = "TC3-HMAC-SHA256\n%d\n%s\n%s" % (now, scope, hashlib.sha256(canonical.encode()).hexdigest())
    key = "TC3" + secret_key
    for part in (date, "scf", "tc3_request"):
        key = mac(key, part, "sha256").digest()
    headers = {
        "Content-Type": "application/json",
        "X-TC-Action": action,
        "X-TC-Version": "2018-04-16",
        "X-TC-Timestamp": str(now),
        "X-TC-Token": token,
        "Authorization": "TC3-HMAC-SHA256 Credential=%s/%s, SignedHeaders=content-type;host, Signature=%s"
        % (secret_id, scope, mac(key, text, "sha256").hexdigest()),
    }
    return json.loads(send(host, "POST", "/", headers, body.encode())[1])["Response"]


def cmq(action, fields, keys=None):
    secret_id, secret_key, token = keys or own()
    host = E["CMQ_ENDPOINT"].split("//")[1]
    fields = dict(fields, Action=action, SecretId=secret_id, Token=token, Timestamp=int(time.time()),
                  Nonce=random.randrange(1 << 30), RequestClient="test", SignatureMethod="HmacSHA256")
    signed = "POST%s/v2/index.php?%s" % (host, "&".join("%s=%s" % item for item in sorted(fields.items())))
    fields["Signature"] = base64.b64encode(mac(secret_key, signed, "sha256").digest()).decode()
    return json.loads(send(host, "POST", "/v2/index.php", {}, urllib.parse.urlencode(fields).encode())[1])


def code_of(response):
    return response.get("Error", {}).get("Code", "OK")


def code_in(answer):
    status, text = answer
    return "%d %s" % (status, text.split("<Code>")[1].split("</Code>")[0] if "<Code>" in text else "")


# What a module does while it is loaded is reached as well.
AT_LOAD = code_in(cos("GET", "absent-1250000000")) if "COS_ENDPOINT" in E else "no endpoint"


def tour(event):
    """Everything that a role may do, and some of what it may not."""
    bucket = "tour-1250000000"
    puts = [cos("PUT", bucket)[0], cos("PUT", bucket, "a", "hello")[0], cos("GET", bucket, "a")]
    made = cmq("CreateQueue", {"queueName": "tour"})
    sent = cmq("SendMessage", {"queueName": "tour", "msgBody": "m"})
    got = cmq("ReceiveMessage", {"queueName": "tour", "pollingWaitSeconds": 5})
    return {
        "puts": puts,
        "load": AT_LOAD,
        "list": sorted(f["FunctionName"] for f in api("ListFunctions", {})["Functions"]),
        "delete": api("DeleteFunction", {"FunctionName": "inside"}),
        "queue": [made["code"], sent["code"], got.get("msgBody")],
        "big": cos("PUT", bucket, "big", "x" * (20 << 20))[0],
    }


def wrong(event):
    """What becomes of keys that are not right."""
    secret_id, secret_key, token = own()
    out = {}
    for name, keys in {
        "token": [secret_id, secret_key, token[:-1] + ("0" if token[-1] != "0" else "1")],
        "key": [secret_id, "x" + secret_key, token],
        "id": ["AKIDnobody", secret_key, token],
    }.items():
        out[name] = [code_in(cos("GET", "tour-1250000000", "a", keys=keys)), code_of(api("ListFunctions", {}, keys)),
                     cmq("ListQueue", {}, keys)["code"]]
    return out


def use(event):
    """With the keys in the event."""
    keys = event["keys"]
    return [code_in(cos("GET", "tour-1250000000", "a", keys=keys)), code_of(api("ListFunctions", {}, keys)),
            cmq("ListQueue", {}, keys)["code"]]


def run_cmq(event):
    return cmq(event["action"], event["fields"])["code"]


def keys(event):
    return own()


def reach(event):
    """What connecting without a role says, and whether names still resolve."""
    try:
        socket.create_connection(("127.0.0.8", 80), 5).close()
        return "connected"
    except OSError as error:
        return type(error).__name__ + " " + ",".join(own())


def again(event):
    """Calls itself, and waits for what comes of it."""
    answer = api("Invoke", {"FunctionName": E["SCF_FUNCTIONNAME"], "ClientContext": json.dumps(event)})
    if "Error" in answer:
        return [answer["Error"]["Code"], answer["Error"]["Message"]]
    return json.loads(answer["Result"]["RetMsg"])


def later(event):
    """Calls itself, and does not wait."""
    return code_of(api("Invoke", {"FunctionName": E["SCF_FUNCTIONNAME"], "InvocationType": "Event",
                                  "ClientContext": json.dumps(event)}))


def visit(event):
    """Asks for its own URL."""
    path = "/fn/default/%s/" % E["SCF_FUNCTIONNAME"]
    status, text = send(E["TENCENTCLOUD_ENDPOINT"], "POST", path, {}, json.dumps({"do": "visit"}).encode())
    return json.loads(text) if status == 200 else [status, text]


def flood(event):
    """Opens connections from many processes and says what became of them; then sends bodies without end."""
    processes, each = event["processes"], event["each"]
    pipe_in, pipe_out = os.pipe()
    for _ in range(processes):
        if os.fork() == 0:
            held, served, refused = [], 0, 0
            for _ in range(each):
                try:
                    s = socket.create_connection(("127.0.0.8", 80), 1)
                    held.append(s)
                    s.settimeout(0.2)
                    s.sendall(b"POST / HTTP/1.1\r\nHost: scf.mayfly.internal\r\nContent-Length: 16000000\r\n\r\n" + b"x" * 300000)
                    if b" 503 " in s.recv(100):
                        refused += 1
                except socket.timeout:
                    served += 1
                except OSError:
                    refused += 1
            os.write(pipe_out, b"%d %d\n" % (served, refused))
            os._exit(0)
    os.close(pipe_out)
    text = b""
    while True:
        more = os.read(pipe_in, 4096)
        if not more:
            break
        text += more
    counts = [tuple(map(int, line.split())) for line in text.splitlines()]
    s = socket.create_connection(("127.0.0.8", 80), 5)
    sent = 0
    try:
        s.sendall(b"GET / HTTP/1.1\r\nHost: scf.mayfly.internal\r\nX-Endless: ")
        while sent < (64 << 20):
            s.sendall(b"y" * 65536)
            sent += 65536
    except OSError:
        pass
    return {"served": sum(c[0] for c in counts), "refused": sum(c[1] for c in counts), "head": sent}


def main_handler(event, context):
    if "Records" in event:
        record = event["Records"][0]
        if "cos" in record:
            # Writes to the bucket that called it.
            bucket = record["cos"]["cosBucket"]
            return cos("PUT", "%s-%s" % (bucket["name"], bucket["appid"]), "in/%d" % random.randrange(1 << 40), "x")[0]
        return cmq("PublishMessage", {"topicName": record["CMQ"]["topicName"], "msgBody": "m"})["code"]
    if "httpMethod" in event:
        return visit(event)
    return globals()[event["do"]](event)
