"""Makes a small copy of each picture that is uploaded, in a second bucket.

The keys, the token and the address of the object store come with the function's role: see docs/inside.md.
"""

import io
import os
from urllib.parse import unquote

from PIL import Image, ImageOps
from qcloud_cos import CosConfig, CosS3Client

SIZE = (128, 128)
# Pictures of more pixels than this are refused, before they fill the memory.
Image.MAX_IMAGE_PIXELS = 40_000_000

cos = CosS3Client(
    CosConfig(
        Region=os.environ["TENCENTCLOUD_REGION"],
        SecretId=os.environ["TENCENTCLOUD_SECRETID"],
        SecretKey=os.environ["TENCENTCLOUD_SECRETKEY"],
        Token=os.environ["TENCENTCLOUD_SESSIONTOKEN"],
        Endpoint=os.environ["COS_ENDPOINT"],
        Scheme="http",
    )
)


def main_handler(event, context):
    made = []
    for record in event["Records"]:
        bucket, obj = record["cos"]["cosBucket"], record["cos"]["cosObject"]
        source = f"{bucket['name']}-{bucket['appid']}"
        # The event's key is /<appid>/<bucket>/<key>.
        key = unquote(obj["key"]).split("/", 3)[3]
        picture = cos.get_object(Bucket=source, Key=key)["Body"].get_raw_stream()
        with Image.open(io.BytesIO(picture.read())) as image:
            small = ImageOps.exif_transpose(image).convert("RGB")
            small.thumbnail(SIZE)
            out = io.BytesIO()
            small.save(out, "JPEG", quality=85)
        name = os.path.splitext(key)[0] + ".jpg"
        cos.put_object(Bucket=os.environ["TARGET"], Key=name, Body=out.getvalue(), ContentType="image/jpeg")
        print(f"{source}/{key} {obj['size']} bytes -> {os.environ['TARGET']}/{name} {small.size}")
        made.append({"key": name, "size": list(small.size)})
    return made
