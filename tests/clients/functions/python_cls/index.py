# -*- coding: utf8 -*-
import gzip
import json
from base64 import b64decode
from io import BytesIO

def main_handler(event, context):
    event_data = event['clslogs']['data']
    data = gzip.GzipFile(fileobj=BytesIO(b64decode(event_data))).read()
    records = json.loads(data)['records']
    for record in records:
        print(record['timestamp'], record['content'])
    return len(records)
