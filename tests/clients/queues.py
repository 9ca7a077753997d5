"""Tencent Cloud's CMQ SDK for Python, unmodified: every call of Account, Queue, Topic and Subscription. Run by queues.sh.

MAYFLY_QUEUES is the queues' address (host:port).
"""

import http.server
import json
import logging
import os
import tempfile
import threading
import time
import urllib.parse
import urllib.request

from harness import SECRET_ID, SECRET_KEY, Session, equal, expect, until

# The SDK writes a log into the working directory.
os.chdir(tempfile.mkdtemp())
from cmq.account import Account  # noqa: E402
from cmq.cmq_exception import CMQServerException  # noqa: E402
from cmq.queue import Message, QueueMeta  # noqa: E402
from cmq.subscription import SubscriptionMeta  # noqa: E402
from cmq.topic import Message as TopicMessage  # noqa: E402
from cmq.topic import TopicMeta  # noqa: E402

URL = "http://" + os.environ["MAYFLY_QUEUES"]
session = Session(f"qcloud-cmq-sdk-py3 at {URL}")


def account(method="POST", sign="sha1", key=SECRET_KEY):
    made = Account(URL, SECRET_ID, key)
    made.set_log_level(logging.CRITICAL)
    made.set_sign(sign)
    made.get_client().set_method(method)
    return made


def refused(code, attempt):
    """The call must fail with this code; the message is returned."""
    try:
        attempt()
    except CMQServerException as error:
        equal(error.code, code)
        expect(error.request_id, "an error has a request id")
        return error.message
    raise AssertionError(f"was not refused with {code}")


cmq = account()
queue = cmq.get_queue("sdk-queue")

with session.check("create a queue, and its attributes") as notes:
    meta = QueueMeta()
    meta.visibilityTimeout, meta.maxMsgSize, meta.msgRetentionSeconds, meta.rewindSeconds = 10, 4096, 3600, 600
    queue.create(meta)
    got = queue.get_attributes()
    equal((got.visibilityTimeout, got.maxMsgSize, got.msgRetentionSeconds, got.rewindSeconds), (10, 4096, 3600, 600))
    expect(abs(got.createTime - time.time()) < 600, got.createTime)
    str(got)
    notes.append(refused(4460, lambda: queue.create(meta)))
with session.check("change a queue"):
    meta = queue.get_attributes()
    meta.visibilityTimeout, meta.pollingWaitSeconds = 1, 2
    queue.set_attributes(meta)
    got = queue.get_attributes()
    equal((got.visibilityTimeout, got.pollingWaitSeconds, got.maxMsgSize), (1, 2, 4096))
with session.check("list queues, page by page"):
    for i in range(3):
        cmq.get_queue(f"sdk-list-{i}").create(QueueMeta())
    total, page, offset = cmq.list_queue("sdk-list", 2)
    equal((total, [q["queueName"] for q in page], offset), (3, ["sdk-list-0", "sdk-list-1"], 2))
    total, page, offset = cmq.list_queue("sdk-list", 2, offset)
    equal((len(page), offset), (1, ""))
    for i in range(3):
        cmq.get_queue(f"sdk-list-{i}").delete()
for method in ("POST", "GET"):
    for sign in ("sha1", "sha256"):
        with session.check(f"send, receive, delete by {method} and {sign}"):
            mine = account(method, sign).get_queue("sdk-queue")
            body = "hello 你好 + & = % @"
            sent = mine.send_message(Message(body))
            got = mine.receive_message(5)
            equal((got.msgId, got.msgBody, got.dequeueCount), (sent.msgId, body, 1))
            expect(got.nextVisibleTime >= got.firstDequeueTime >= got.enqueueTime, str(got))
            mine.delete_message(got.receiptHandle)
            refused(4430, lambda: mine.delete_message(got.receiptHandle))
with session.check("a text that begins with @, which the SDK does not sign"):
    queue.send_message(Message("@home"))
    got = queue.receive_message(5)
    equal(got.msgBody, "@home")
    queue.delete_message(got.receiptHandle)
with session.check("nothing to receive") as notes:
    begun = time.monotonic()
    notes.append(refused(7000, lambda: queue.receive_message(1)))
    expect(time.monotonic() - begun >= 0.9, "it waited for the long poll's time")
    expect(notes[0].startswith("(10200)no message"), notes[0])
with session.check("a long poll is woken by a send"):
    sender = threading.Timer(0.5, lambda: account().get_queue("sdk-queue").send_message(Message("woken")))
    sender.start()
    got = queue.receive_message(20)
    equal(got.msgBody, "woken")
    queue.delete_message(got.receiptHandle)
    sender.join()
with session.check("what is not deleted comes again after the visibility timeout"):
    queue.send_message(Message("again"))
    first = queue.receive_message(5)
    second = queue.receive_message(10)
    equal((second.msgId, second.dequeueCount, second.firstDequeueTime), (first.msgId, 2, first.firstDequeueTime))
    expect(second.receiptHandle != first.receiptHandle, "a new handle")
    refused(4430, lambda: queue.delete_message(first.receiptHandle))
    queue.delete_message(second.receiptHandle)
with session.check("delayed messages"):
    queue.send_message(Message("late"), 2)
    equal(queue.get_attributes().delayMsgNum, 1)
    begun = time.monotonic()
    got = queue.receive_message(20)
    expect(time.monotonic() - begun > 1, "it came after its delay")
    queue.delete_message(got.receiptHandle)
    refused(4000, lambda: queue.send_message(Message("x"), 3601))
with session.check("batches of 16"):
    sent = queue.batch_send_message([Message(f"m{i}") for i in range(16)])
    equal(len(sent), 16)
    got = []
    while len(got) < 16:
        got += queue.batch_receive_message(16, 5)
    equal([m.msgBody for m in got], [f"m{i}" for i in range(16)])
    equal([m.msgId for m in got], [m.msgId for m in sent])
    queue.batch_delete_message([m.receiptHandle for m in got[:15]])
    refused(6010, lambda: queue.batch_delete_message([got[0].receiptHandle, got[15].receiptHandle]))
    refused(6020, lambda: queue.batch_delete_message([got[0].receiptHandle]))
    refused(4000, lambda: queue.batch_send_message([Message("x")] * 17))
with session.check("deleted messages are brought back by a rewind"):
    attributes = queue.get_attributes()
    equal((attributes.activeMsgNum, attributes.inactiveMsgNum), (0, 0))
    expect(attributes.rewindmsgNum > 16, attributes.rewindmsgNum)
    queue.rewindQueue(int(time.time()) - 500)
    equal(queue.get_attributes().activeMsgNum, attributes.rewindmsgNum)
    refused(6050, lambda: (cmq.get_queue("sdk-plain").create(QueueMeta()), cmq.get_queue("sdk-plain").rewindQueue(0)))
with session.check("limits") as notes:
    notes.append(refused(4400, lambda: queue.send_message(Message("x" * 4097))))
    refused(4000, lambda: queue.send_message(Message("")))
    refused(4000, lambda: cmq.get_queue("1 bad name").create(QueueMeta()))
    refused(4430, lambda: queue.delete_message("nonsense"))
    refused(4440, lambda: cmq.get_queue("sdk-none").send_message(Message("x")))
    refused(4440, lambda: cmq.get_queue("sdk-none").receive_message(0))
    meta = QueueMeta()
    meta.visibilityTimeout = 43201
    refused(4000, lambda: cmq.get_queue("sdk-bad").create(meta))
    meta = QueueMeta()
    meta.maxMsgHeapNum = 2
    small = cmq.get_queue("sdk-small")
    small.create(meta)
    small.batch_send_message([Message("x")] * 2)
    refused(4410, lambda: small.send_message(Message("x")))
    small.delete()
with session.check("a wrong key is refused") as notes:
    notes.append(refused(4100, lambda: account(key="wrong").get_queue("sdk-queue").send_message(Message("x"))))
    stranger = Account(URL, "AKIDstranger", SECRET_KEY)
    refused(4100, lambda: stranger.get_queue("sdk-queue").get_attributes())
with session.check("dead letters, with the SDK's client for the rule"):
    client = cmq.get_client()
    cmq.get_queue("sdk-dead").create(QueueMeta())
    params = {"queueName": "sdk-rule", "visibilityTimeout": 1, "deadLetterQueueName": "sdk-dead", "policy": 0, "maxReceiveCount": 2}
    client.create_queue(params)
    rule = cmq.get_queue("sdk-rule")
    rule.send_message(Message("bad"))
    equal([rule.receive_message(10).dequeueCount for _ in range(2)], [1, 2])
    got = cmq.get_queue("sdk-dead").receive_message(20)
    equal((got.msgBody, got.dequeueCount), ("bad", 1))
    refused(4000, lambda: cmq.get_queue("sdk-dead").delete())
    rule.delete()
    cmq.get_queue("sdk-dead").delete()

topic = cmq.get_topic("sdk-topic")
with session.check("create, change and list topics"):
    meta = TopicMeta()
    topic.create(meta)
    got = topic.get_attributes()
    equal((got.maxMsgSize, got.filterType, got.msgRetentionSeconds), (65536, 1, 86400))
    meta.maxMsgSize = 2048
    topic.set_attributes(meta)
    equal(topic.get_attributes().maxMsgSize, 2048)
    equal([t["topicName"] for t in cmq.list_topic("sdk-")[1]], ["sdk-topic"])
    refused(4460, lambda: topic.create(meta))
    refused(6030, lambda: topic.publish_message(TopicMessage("x")))


def subscribe(of, name, protocol, endpoint, tags=(), keys=(), form="SIMPLIFIED"):
    meta = SubscriptionMeta()
    meta.Protocal, meta.Endpoint, meta.NotifyContentFormat = protocol, endpoint, form
    meta.FilterTag, meta.bindingKey = list(tags), list(keys)
    made = cmq.get_subscription(of, name)
    made.create(meta)
    return made


with session.check("subscriptions of queues, by tag"):
    for name in ("sdk-all", "sdk-red"):
        cmq.get_queue(name).create(QueueMeta())
    subscribe("sdk-topic", "all", "queue", "sdk-all")
    red = subscribe("sdk-topic", "red", "queue", "sdk-red", tags=["red", "rose"])
    got = red.get_attributes()
    equal((got.Protocal, got.NotifyStrategy, got.FilterTag), ("queue", "EXPONENTIAL_DECAY_RETRY", ["red", "rose"]))
    equal(topic.list_subscription()[0], 2)
    refused(4490, lambda: subscribe("sdk-topic", "red", "queue", "sdk-red"))
    refused(4440, lambda: subscribe("sdk-topic", "none", "queue", "sdk-none"))
    refused(4000, lambda: subscribe("sdk-topic", "six", "queue", "sdk-red", tags="abcdef"))
    refused(4000, lambda: subscribe("sdk-topic", "json", "queue", "sdk-red", form="JSON"))
    topic.publish_message(TopicMessage("1", ["red"]))
    topic.publish_message(TopicMessage("2", ["blue"]))
    equal(len(topic.batch_publish_message([TopicMessage("3"), TopicMessage("4")], ["rose"])), 2)
    equal([m.msgBody for m in cmq.get_queue("sdk-all").batch_receive_message(16, 5)], ["1", "2", "3", "4"])
    equal([m.msgBody for m in cmq.get_queue("sdk-red").batch_receive_message(16, 5)], ["1", "3", "4"])
with session.check("change and clear a subscription's filter"):
    meta = SubscriptionMeta()
    meta.NotifyStrategy, meta.NotifyContentFormat, meta.FilterTag = "BACKOFF_RETRY", "", ["blue"]
    red.set_attributes(meta)
    got = red.get_attributes()
    equal((got.NotifyStrategy, got.FilterTag), ("BACKOFF_RETRY", ["blue"]))
    red.clearFilterTags()
    equal(red.get_attributes().FilterTag, [])
with session.check("subscriptions by routing key"):
    meta = TopicMeta()
    meta.filterType = 2
    routed = cmq.get_topic("sdk-routed")
    routed.create(meta)
    for name, key in (("eu", "order.eu.#"), ("new", "*.*.new")):
        cmq.get_queue(f"sdk-{name}").create(QueueMeta())
        subscribe("sdk-routed", name, "queue", f"sdk-{name}", keys=[key])
    equal(cmq.get_subscription("sdk-routed", "eu").get_attributes().bindingKey, ["order.eu.#"])
    for key in ("order.eu.new", "order.us.new", "order.eu"):
        routed.publish_message(TopicMessage(key), key)
    refused(6030, lambda: routed.publish_message(TopicMessage("x"), "order.us.old"))
    equal([m.msgBody for m in cmq.get_queue("sdk-eu").batch_receive_message(16, 5)], ["order.eu.new", "order.eu"])
    equal([m.msgBody for m in cmq.get_queue("sdk-new").batch_receive_message(16, 5)], ["order.eu.new", "order.us.new"])
with session.check("pushes to an HTTP endpoint, refused at first"):
    pushed = []

    class Endpoint(http.server.BaseHTTPRequestHandler):
        def do_POST(self):  # noqa: N802
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            pushed.append((self.headers["x-cmq-message-tag"], body))
            self.send_response(503 if len(pushed) == 1 else 200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hook = subscribe("sdk-topic", "hook", "http", f"http://127.0.0.1:{server.server_port}/x", form="JSON")
    topic.publish_message(TopicMessage("to a server", ["t1", "t2"]))
    until("the push is tried again", lambda: len(pushed) >= 2)
    tag, body = pushed[1]
    body = json.loads(body)
    equal((tag, body["msgBody"], body["topicName"], body["subscriptionName"]), ("t1,t2", "to a server", "sdk-topic", "hook"))
    until("nothing is left", lambda: topic.get_attributes().msgCount == 0)
    refused(4000, lambda: subscribe("sdk-topic", "ftp", "http", "ftp://127.0.0.1/"))
    server.shutdown()
with session.check("topics with subscriptions stay; without, they go"):
    refused(4000, topic.delete)
    for of, names in (("sdk-topic", ("all", "red", "hook")), ("sdk-routed", ("eu", "new"))):
        for name in names:
            cmq.get_subscription(of, name).delete()
    topic.delete()
    routed.delete()
    refused(4440, topic.get_attributes)

with session.check("abuse: bad forms, huge bodies, wrong paths"):

    def answer(data, path="/v2/index.php", method="POST"):
        request = urllib.request.Request(URL + path, data=data, method=method)
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read())

    for data in (b"", b"\xff\xfe=%zz", b"a=1&a=2", b"Action=SendMessage", b"{}", b"&" * 1000, b"x." * 5000 + b"=1"):
        expect(answer(data)["code"] in (4000, 4100), data[:40])
    equal(answer(None, method="GET")["code"], 4100)
    huge = answer(b"msgBody=" + b"x" * (5 << 20))
    equal(huge["Response"]["Error"]["Code"], "RequestSizeLimitExceeded")
    expect("Error" in answer(b"{}", "/")["Response"], "TDMQ's API answers in its own form")
    try:
        answer(b"", "/elsewhere")
        raise AssertionError("there is something at /elsewhere")
    except urllib.error.HTTPError as error:
        equal(error.code, 404)
with session.check("an unknown action"):
    refused(4000, lambda: cmq.get_client().check_status(cmq.get_client().request("FormatDisk", {})))
with session.check("200 long polls at once, all woken or answered"):
    target = cmq.get_queue("sdk-many")
    target.create(QueueMeta())
    results = []

    def poll():
        try:
            results.append(account().get_queue("sdk-many").receive_message(15).msgBody)
        except CMQServerException as error:
            results.append(error.code)

    threads = [threading.Thread(target=poll) for _ in range(200)]
    for thread in threads:
        thread.start()
    for i in range(100):
        target.send_message(Message(f"m{i}"))
    for thread in threads:
        thread.join(120)
    equal(sorted(r for r in results if isinstance(r, str)), sorted(f"m{i}" for i in range(100)))
    equal([r for r in results if not isinstance(r, str)], [7000] * 100)
    target.delete()
for name in ("sdk-queue", "sdk-plain", "sdk-all", "sdk-red", "sdk-eu", "sdk-new"):
    cmq.get_queue(name).delete()
session.done()
