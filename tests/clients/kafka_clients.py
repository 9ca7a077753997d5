"""kafka-python and kafkajs as producers of a function's trigger, and the example kafka-stream. Run by kafka.sh.

Arguments: the program, the broker, the folder of the example with its dependency.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from harness import HERE, Session, equal, expect, until
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

PROGRAM, BROKER, EXAMPLE = sys.argv[1:4]
session = Session(f"Kafka triggers: kafka-python and kafkajs at {BROKER}")


def mayfly(*arguments):
    environment = os.environ | {"MAYFLY_ENDPOINT": "http://" + os.environ["MAYFLY_ENDPOINT"]}
    ran = subprocess.run([PROGRAM, *arguments], env=environment, capture_output=True, text=True, check=False)
    expect(ran.returncode == 0, f"mayfly {arguments}: {ran.returncode}: {ran.stdout}{ran.stderr}")
    return ran.stdout


def read(topic, count):
    """The first messages of a topic, all partitions."""
    consumer = KafkaConsumer(topic, bootstrap_servers=BROKER, auto_offset_reset="earliest", consumer_timeout_ms=60_000)
    found = []
    for message in consumer:
        found.append(message)
        if len(found) >= count:
            break
    consumer.close()
    return found


admin = KafkaAdminClient(bootstrap_servers=BROKER)
COPY = """
import os
from kafka import KafkaProducer
out = None
def main_handler(event, context):
    global out
    out = out or KafkaProducer(bootstrap_servers=os.environ['BROKER'])
    sent = [out.send('seen', r['Ckafka']['msgBody'].encode(), key=str(r['Ckafka']['partition']).encode()) for r in event['Records']]
    for one in sent:
        one.get(timeout=20)
    return len(sent)
"""

with session.check("a function with a trigger on a topic") as notes:
    admin.create_topics([NewTopic("sent", 3, 1), NewTopic("seen", 1, 1)])
    with tempfile.TemporaryDirectory() as folder:
        # kafka-python for the function: what the example's package has beside its own code.
        shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True)
        pathlib.Path(folder, "mayfly.yml").unlink()
        pathlib.Path(folder, "index.py").write_text(COPY, encoding="utf-8")
        mayfly("deploy", folder, "--name", "copy", "--runtime", "Python3", "--handler", "index.main_handler", "--memory", "128", "--timeout", "60",
               "--env", f"BROKER={BROKER}", "--install", "never")
    mayfly("trigger", "kafka", "copy", "main", "sent", "--batch", "20", "--from", "earliest", "--group", "copies")
    notes.append(mayfly("trigger", "ls", "copy").strip().splitlines()[-1])

with session.check("kafka-python sends, the function gets it") as notes:
    producer = KafkaProducer(bootstrap_servers=BROKER, acks="all")
    for n in range(300):
        producer.send("sent", f"kafka-python {n}".encode(), key=b"k%d" % (n % 7))
    producer.flush()
    found = read("seen", 300)
    equal(sorted(m.value for m in found), sorted(b"kafka-python %d" % n for n in range(300)))
    notes.append(f"{len(found)} messages")

with session.check("kafkajs sends, the function gets it") as notes:
    subprocess.run(["node", str(HERE / "kafka_produce.js"), BROKER, "sent", "300"], check=True)
    found = [m.value.decode() for m in read("seen", 600)][300:]
    equal(sorted(found), sorted(f"kafkajs {n}" for n in range(300)))
    # In the order of each key, as it lies in one partition.
    for key in range(7):
        numbers = [int(v.split()[1]) for v in found if int(v.split()[1]) % 7 == key]
        equal(numbers, sorted(numbers))
    notes.append(f"{len(found)} messages")

with session.check("the example kafka-stream: orders in, invoices out") as notes:
    admin.create_topics([NewTopic("orders", 3, 1), NewTopic("invoices", 1, 1), NewTopic("orders-rejected", 1, 1)])
    mayfly("deploy", EXAMPLE, "--env", f"KAFKA_BROKERS={BROKER}", "--install", "never")
    mayfly("trigger", "kafka", "kafka-stream", "main", "orders", "--batch", "100", "--from", "earliest", "--group", "billing")
    for n in range(100):
        order = {"customer": f"c{n}", "lines": [{"item": "fly", "count": n + 1, "cents": 250}, {"item": "net", "count": 1, "cents": 1000}]}
        producer.send("orders", json.dumps(order).encode(), key=b"c%d" % n)
    producer.send("orders", b"no JSON", key=b"bad")
    producer.flush()
    invoices = {i["customer"]: i for i in (json.loads(m.value) for m in read("invoices", 100))}
    equal({c: i["cents"] for c, i in invoices.items()}, {f"c{n}": (n + 1) * 250 + 1000 for n in range(100)})
    expect(all(i["source"].startswith("orders/") for i in invoices.values()), "each says where its order is")
    equal(len({i["source"] for i in invoices.values()}), 100)
    [rejected] = read("orders-rejected", 1)
    equal((rejected.value, rejected.key), (b"no JSON", b"bad"))
    headers = dict(rejected.headers)
    expect(headers["error"].startswith(b"JSONDecodeError"), headers)
    notes.append(f"{len(invoices)} invoices, 1 rejected: {headers['error'].decode()[:40]}")

with session.check("what was handled is committed"):
    for topic, group, count in (("sent", "copies", 600), ("orders", "billing", 101)):
        consumer = KafkaConsumer(bootstrap_servers=BROKER, group_id=group, enable_auto_commit=False)
        partitions = [TopicPartition(topic, n) for n in range(3)]
        until(f"{count} messages of {topic} are committed", lambda: sum(consumer.committed(p) or 0 for p in partitions) == count, 60)
        consumer.close()

session.done()
