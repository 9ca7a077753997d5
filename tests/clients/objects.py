"""The object store, as cos-python-sdk-v5 and boto3 see it. Arguments: host:port of the store, secret id, secret key."""

import hashlib
import io
import os
import sys
import tempfile
import urllib.request

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from qcloud_cos import CosConfig, CosS3Client
from qcloud_cos.cos_exception import CosServiceError

ADDRESS, SECRET_ID, SECRET_KEY = sys.argv[1:4]
HOST, PORT = ADDRESS.rsplit(":", 1)
BIG = os.urandom(100 << 20)


def refused(status, code, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except ClientError as error:
        found = error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Code"]
    except CosServiceError as error:
        found = error.get_status_code(), error.get_error_code()
    else:
        raise AssertionError(f"{code} was expected")
    assert found == (status, code), found


def cos():
    config = CosConfig(Region="ap-guangzhou", SecretId=SECRET_ID, SecretKey=SECRET_KEY, Scheme="http", IP=HOST, Port=int(PORT),
                       ServiceDomain=ADDRESS)
    client, bucket = CosS3Client(config), f"python{os.getpid()}-1250000000"
    client.create_bucket(Bucket=bucket)
    assert bucket in [b["Name"] for b in client.list_buckets()["Buckets"]["Bucket"]]
    key = "a b/ü+&.txt"
    put = client.put_object(Bucket=bucket, Key=key, Body=b"x" * 100, Metadata={"x-cos-meta-who": "me"}, ContentType="text/plain")
    assert put["ETag"] == '"%s"' % hashlib.md5(b"x" * 100).hexdigest()
    got = client.get_object(Bucket=bucket, Key=key)
    assert got["Body"].get_raw_stream().read() == b"x" * 100 and got["x-cos-meta-who"] == "me"
    assert client.get_object(Bucket=bucket, Key=key, Range="bytes=0-9")["Content-Range"] == "bytes 0-9/100"
    assert client.head_object(Bucket=bucket, Key=key)["Content-Length"] == "100"
    listed = client.list_objects(Bucket=bucket, Delimiter="/")
    assert [p["Prefix"] for p in listed["CommonPrefixes"]] == ["a b/"], listed
    refused(404, "NoSuchResource", client.head_object, Bucket=bucket, Key="no")
    refused(404, "NoSuchKey", client.get_object, Bucket=bucket, Key="no")
    with tempfile.TemporaryDirectory() as folder:
        path, back = os.path.join(folder, "big"), os.path.join(folder, "back")
        with open(path, "wb") as file:
            file.write(BIG)
        client.upload_file(Bucket=bucket, Key="big", LocalFilePath=path, PartSize=10, MAXThread=4, EnableMD5=True)
        client.download_file(Bucket=bucket, Key="big", DestFilePath=back)
        with open(back, "rb") as file:
            assert file.read() == BIG
    client.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "big", "Region": "ap-guangzhou"})
    # With an address in its settings the SDK would leave the bucket out of the URL.
    named = CosS3Client(CosConfig(Region="ap-guangzhou", SecretId=SECRET_ID, SecretKey=SECRET_KEY, Scheme="http"))
    url = named.get_presigned_url(Method="GET", Bucket=bucket, Key="copy", Expired=100)
    request = urllib.request.Request(f"http://{ADDRESS}/{url.split('/', 3)[3]}", headers={"Host": url.split("/")[2]})
    with urllib.request.urlopen(request) as answer:
        assert answer.read() == BIG
    client.put_object_tagging(Bucket=bucket, Key="copy", Tagging={"TagSet": {"Tag": [{"Key": "a", "Value": "b"}]}})
    assert client.get_object_tagging(Bucket=bucket, Key="copy")["TagSet"]["Tag"] == [{"Key": "a", "Value": "b"}]
    client.put_bucket_versioning(Bucket=bucket, Status="Enabled")
    assert client.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    ids = [client.put_object(Bucket=bucket, Key="versions", Body=body)["x-cos-version-id"] for body in (b"one", b"two")]
    marker = client.delete_object(Bucket=bucket, Key="versions")
    assert marker["x-cos-delete-marker"] == "true"
    refused(404, "NoSuchKey", client.get_object, Bucket=bucket, Key="versions")
    assert client.get_object(Bucket=bucket, Key="versions", VersionId=ids[0])["Body"].get_raw_stream().read() == b"one"
    listed = client.list_objects_versions(Bucket=bucket, Prefix="versions")
    assert [v["VersionId"] for v in listed["Version"]] == ids[::-1] and listed["DeleteMarker"][0]["IsLatest"] == "true", listed
    for version in [*ids, marker["x-cos-version-id"]]:
        client.delete_object(Bucket=bucket, Key="versions", VersionId=version)
    client.put_bucket_versioning(Bucket=bucket, Status="Suspended")
    refused(409, "BucketNotEmpty", client.delete_bucket, Bucket=bucket)
    gone = client.delete_objects(Bucket=bucket, Delete={"Object": [{"Key": "copy"}, {"Key": "big"}, {"Key": key}], "Quiet": "false"})
    assert len(gone["Deleted"]) == 3, gone
    # The bucket kept versions once: a delete leaves a marker, which goes by its name.
    for left in client.list_objects_versions(Bucket=bucket).get("DeleteMarker", []):
        client.delete_object(Bucket=bucket, Key=left["Key"], VersionId=left["VersionId"])
    client.delete_bucket(Bucket=bucket)


def s3():
    client = boto3.client("s3", endpoint_url=f"http://{ADDRESS}", aws_access_key_id=SECRET_ID, aws_secret_access_key=SECRET_KEY,
                          region_name="ap-guangzhou", config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}))
    bucket = f"plain{os.getpid()}"
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="ü/a b", Body=b"hello", Metadata={"who": "me"}, ContentType="text/plain")
    got = client.get_object(Bucket=bucket, Key="ü/a b", ChecksumMode="ENABLED")
    assert got["Body"].read() == b"hello" and got["Metadata"] == {"who": "me"} and got["ChecksumCRC32"] == "NhCmhg=="
    assert client.get_object(Bucket=bucket, Key="ü/a b", Range="bytes=1-2")["ContentRange"] == "bytes 1-2/5"
    refused(416, "InvalidRange", client.get_object, Bucket=bucket, Key="ü/a b", Range="bytes=9-")
    client.upload_fileobj(io.BytesIO(BIG), bucket, "big")
    back = io.BytesIO()
    client.download_fileobj(bucket, "big", back)
    assert back.getvalue() == BIG
    assert client.head_object(Bucket=bucket, Key="big", PartNumber=2)["ContentLength"] == 8 << 20
    client.copy(CopySource={"Bucket": bucket, "Key": "big"}, Bucket=bucket, Key="copy")
    names = [f"d/{n:02}" for n in range(25)]
    for name in names:
        client.put_object(Bucket=bucket, Key=name, Body=b"")
    for operation in ("list_objects", "list_objects_v2"):
        pages = client.get_paginator(operation).paginate(Bucket=bucket, PaginationConfig={"PageSize": 7})
        assert [k["Key"] for page in pages for k in page["Contents"]] == ["big", "copy", *names, "ü/a b"], operation
    etag = client.head_object(Bucket=bucket, Key="copy")["ETag"]
    refused(412, "PreconditionFailed", client.get_object, Bucket=bucket, Key="copy", IfMatch='"x"')
    refused(304, "304", client.get_object, Bucket=bucket, Key="copy", IfNoneMatch=etag)
    refused(412, "PreconditionFailed", client.put_object, Bucket=bucket, Key="copy", Body=b"1", IfNoneMatch="*")
    refused(400, "InvalidDigest", client.put_object, Bucket=bucket, Key="copy", Body=b"1", ContentMD5="bad")
    refused(404, "NoSuchKey", client.get_object, Bucket=bucket, Key="no")
    client.put_object_tagging(Bucket=bucket, Key="copy", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    assert client.get_object_tagging(Bucket=bucket, Key="copy")["TagSet"] == [{"Key": "a", "Value": "b"}]
    url = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "big"})
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == BIG
    post = client.generate_presigned_post(bucket, "form")
    lines = [f'--b\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n' for n, v in post["fields"].items()]
    form = "".join(lines) + '--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nby form\r\n--b--\r\n'
    request = urllib.request.Request(post["url"], form.encode(), {"Content-Type": "multipart/form-data; boundary=b"})
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 204
    assert client.get_object(Bucket=bucket, Key="form")["Body"].read() == b"by form"
    keys = [{"Key": k} for k in [*names, "big", "copy", "form", "ü/a b"]]
    assert len(client.delete_objects(Bucket=bucket, Delete={"Objects": keys})["Deleted"]) == len(keys)
    client.delete_bucket(Bucket=bucket)


cos()
s3()
print("objects: cos-python-sdk-v5 and boto3 are served")
