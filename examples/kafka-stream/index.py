"""Topic → function → topic: orders come in, priced invoices go out.

The platform reads the topic `orders` and calls this with batches, one after the other for each partition. A batch counts as done when this
returns; when it raises, or the machine dies, the same messages come again. So nothing is acknowledged before what was made of it is safe in
the next topic, and each invoice bears the place of its order (`source`), by which a reader knows one that came twice.
"""

import json
import os

from kafka import KafkaProducer

INVOICES = os.environ.get("INVOICES_TOPIC", "invoices")
REJECTED = os.environ.get("REJECTED_TOPIC", "orders-rejected")
# Less than the function's timeout: the error shall be Kafka's.
SEND_SECONDS = 20

_producer = None


def producer():
    """One for the life of the instance. Made at the first call, not at import: instances are forked from one that has imported this, and sockets are not."""
    global _producer
    if _producer is None:
        _producer = KafkaProducer(
            bootstrap_servers=os.environ["KAFKA_BROKERS"].split(","),
            acks="all",
            linger_ms=5,
            request_timeout_ms=10_000,
            delivery_timeout_ms=SEND_SECONDS * 1000,
            max_block_ms=SEND_SECONDS * 1000,
        )
    return _producer


def invoice(order):
    """What is to be paid for an order of `{"customer": …, "lines": [{"item": …, "count": …, "cents": …}]}`."""
    lines = [{"item": line["item"], "cents": int(line["count"]) * int(line["cents"])} for line in order["lines"]]
    if not lines or any(line["cents"] <= 0 for line in lines):
        raise ValueError("an order has lines, and each a count and a price")
    return {"customer": order["customer"], "lines": lines, "cents": sum(line["cents"] for line in lines)}


def main_handler(event, context):
    out, sent = producer(), []
    counts = {"invoices": 0, "rejected": 0}
    for record in event["Records"]:
        message = record["Ckafka"]
        source = f"{message['topic']}/{message['partition']}/{message['offset']}"
        headers = [("source", source.encode())]
        try:
            topic, value = INVOICES, json.dumps(invoice(json.loads(message["msgBody"])) | {"source": source})
            counts["invoices"] += 1
        except (ValueError, KeyError, TypeError) as error:
            # It would fail in every attempt, and hold up all that come after it: it goes aside, as it is, with the reason.
            topic, value = REJECTED, message["msgBody"]
            headers.append(("error", f"{type(error).__name__}: {error}".encode()))
            counts["rejected"] += 1
        key = message.get("msgKey") or None
        sent.append(out.send(topic, value=value.encode(), key=key and key.encode(), headers=headers))
    out.flush(timeout=SEND_SECONDS)
    for future in sent:
        # Raises when the broker did not take it: then the batch comes again.
        future.get(timeout=SEND_SECONDS)
    print(f"{counts['invoices']} invoices, {counts['rejected']} rejected")
    return counts
