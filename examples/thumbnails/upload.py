"""Makes the two buckets, uploads a picture, and waits for its small copy. Usage: upload.py make | upload.py PICTURE

Environment: MAYFLY_OBJECTS (host:port, default 127.0.0.1:8701), MAYFLY_SECRET_ID, MAYFLY_SECRET_KEY.
Needs `pip install cos-python-sdk-v5`.
"""

import os
import sys
import time

from qcloud_cos import CosConfig, CosS3Client
from qcloud_cos.cos_exception import CosServiceError

ADDRESS = os.environ.get("MAYFLY_OBJECTS", "127.0.0.1:8701")
HOST, PORT = ADDRESS.rsplit(":", 1)
SOURCE, TARGET = "photos-1250000000", "thumbs-1250000000"

cos = CosS3Client(
    CosConfig(
        Region="ap-guangzhou",
        SecretId=os.environ["MAYFLY_SECRET_ID"],
        SecretKey=os.environ["MAYFLY_SECRET_KEY"],
        Scheme="http",
        IP=HOST,
        Port=int(PORT),
        ServiceDomain=ADDRESS,
    )
)


def make():
    for bucket in (SOURCE, TARGET):
        try:
            cos.create_bucket(Bucket=bucket)
        except CosServiceError as error:
            if error.get_error_code() not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise


def upload(path):
    key = "in/" + os.path.basename(path)
    small = os.path.splitext(key)[0] + ".jpg"
    with open(path, "rb") as file:
        cos.put_object(Bucket=SOURCE, Key=key, Body=file)
    for _ in range(300):
        if cos.object_exists(Bucket=TARGET, Key=small):
            body = cos.get_object(Bucket=TARGET, Key=small)["Body"].get_raw_stream().read()
            out = os.path.splitext(path)[0] + ".thumb.jpg"
            with open(out, "wb") as file:
                file.write(body)
            print(f"{TARGET}/{small}: {len(body)} bytes, also in {out}")
            return
        time.sleep(0.2)
    sys.exit("no thumbnail after a minute; `mayfly logs thumbnails` and `mayfly failures ls` say why")


make() if sys.argv[1] == "make" else upload(sys.argv[1])
