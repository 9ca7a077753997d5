"""What S3's clients rely on, case by case, as boto3 sees the object store. Arguments: host:port of the store, secret id, secret key.
Cases are of our own; which there are follows the functional suite of ceph/s3-tests, as far as the store offers what it asks for (docs/objects.md)."""

import base64
import collections
import datetime
import hashlib
import sys
import threading
import time
import urllib.error
import urllib.request
import zlib

import boto3
import botocore.auth
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.handlers import validate_bucket_name

ADDRESS, SECRET_ID, SECRET_KEY = sys.argv[1:4]
GROUPS = collections.OrderedDict()
NUMBER = [0]
PART = 5 << 20


def client(**more):
    config = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}, **more)
    return boto3.client("s3", endpoint_url=f"http://{ADDRESS}", aws_access_key_id=SECRET_ID, aws_secret_access_key=SECRET_KEY,
                        region_name="ap-guangzhou", config=config)


S3 = client()


def case(group):
    def add(function):
        GROUPS.setdefault(group, []).append(function)
        return function
    return add


class Bucket:
    """A bucket of a case's own; it goes with all that is in it."""

    def __init__(self, versions=False):
        NUMBER[0] += 1
        self.name = f"case{NUMBER[0]}-{int(time.time() * 1000)}"
        S3.create_bucket(Bucket=self.name)
        if versions:
            self.versioning("Enabled")

    def versioning(self, status):
        S3.put_bucket_versioning(Bucket=self.name, VersioningConfiguration={"Status": status})

    def put(self, key, body=b"", **more):
        return S3.put_object(Bucket=self.name, Key=key, Body=body, **more)

    def get(self, key, **more):
        return S3.get_object(Bucket=self.name, Key=key, **more)

    def read(self, key, **more):
        return self.get(key, **more)["Body"].read()

    def head(self, key, **more):
        return S3.head_object(Bucket=self.name, Key=key, **more)

    def delete(self, key, **more):
        return S3.delete_object(Bucket=self.name, Key=key, **more)

    def list(self, **more):
        return S3.list_objects(Bucket=self.name, **more)

    def list2(self, **more):
        return S3.list_objects_v2(Bucket=self.name, **more)

    def versions(self, **more):
        return S3.list_object_versions(Bucket=self.name, **more)

    def begin(self, key, **more):
        return S3.create_multipart_upload(Bucket=self.name, Key=key, **more)["UploadId"]

    def part(self, key, upload, number, body, **more):
        return S3.upload_part(Bucket=self.name, Key=key, UploadId=upload, PartNumber=number, Body=body, **more)

    def complete(self, key, upload, parts, **more):
        return S3.complete_multipart_upload(Bucket=self.name, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}, **more)

    def in_parts(self, key, bodies, **more):
        upload = self.begin(key, **more)
        parts = [{"PartNumber": n, "ETag": self.part(key, upload, n, body)["ETag"]} for n, body in enumerate(bodies, 1)]
        return self.complete(key, upload, parts)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for upload in S3.list_multipart_uploads(Bucket=self.name).get("Uploads", []):
            S3.abort_multipart_upload(Bucket=self.name, Key=upload["Key"], UploadId=upload["UploadId"])
        while True:
            page = self.versions()
            found = [{"Key": v["Key"], "VersionId": v["VersionId"]} for v in page.get("Versions", []) + page.get("DeleteMarkers", [])]
            if not found:
                break
            S3.delete_objects(Bucket=self.name, Delete={"Objects": found, "Quiet": True})
        S3.delete_bucket(Bucket=self.name)


def same(found, expected):
    assert found == expected, f"{found!r} instead of {expected!r}"


def refused(status, code, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except ClientError as error:
        same((error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Code"]), (status, code))
        return error.response
    raise AssertionError(f"{status} {code} was expected")


def opened(url, method="GET", body=None, headers=None):
    request = urllib.request.Request(url, body, headers or {}, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


def keys(page):
    return [o["Key"] for o in page.get("Contents", [])]


def prefixes(page):
    return [p["Prefix"] for p in page.get("CommonPrefixes", [])]


@case("buckets")
def a_bucket_is_made_found_and_removed():
    with Bucket() as b:
        same(S3.head_bucket(Bucket=b.name)["ResponseMetadata"]["HTTPStatusCode"], 200)
        assert b.name in [x["Name"] for x in S3.list_buckets()["Buckets"]]
        refused(409, "BucketAlreadyOwnedByYou", S3.create_bucket, Bucket=b.name)
        same(S3.get_bucket_location(Bucket=b.name)["LocationConstraint"], "ap-guangzhou")


@case("buckets")
def what_is_not_there_is_told():
    name = "never-made-bucket"
    refused(404, "404", S3.head_bucket, Bucket=name)
    for call in (S3.list_objects, S3.list_objects_v2, S3.delete_bucket, S3.get_bucket_location, S3.list_object_versions):
        refused(404, "NoSuchBucket", call, Bucket=name)
    refused(404, "NoSuchBucket", S3.put_object, Bucket=name, Key="k", Body=b"x")


@case("buckets")
def names_keep_to_the_rules():
    raw = client()
    raw.meta.events.unregister("before-parameter-build.s3", validate_bucket_name)
    for bad in ("ab", "a" * 64, "Upper", "under_score", "-dash", "dash-", "dot..dot", "dot.-dash", "dash-.dot", "192.168.5.123"):
        refused(400, "InvalidBucketName", raw.create_bucket, Bucket=bad)


@case("buckets")
def a_bucket_with_something_in_it_stays():
    with Bucket() as b:
        b.put("k")
        refused(409, "BucketNotEmpty", S3.delete_bucket, Bucket=b.name)


@case("buckets")
def lists_of_buckets_have_pages():
    with Bucket() as one, Bucket() as two:
        page = S3.list_buckets(Prefix="case", MaxBuckets=1)
        same(len(page["Buckets"]), 1)
        rest = S3.list_buckets(Prefix="case", ContinuationToken=page["ContinuationToken"])
        same({one.name, two.name} <= {x["Name"] for x in page["Buckets"] + rest["Buckets"]}, True)


@case("objects")
def an_object_comes_back_as_it_was_put():
    with Bucket() as b:
        for size in (0, 1, 8192, 8193, 3 << 20):
            body = bytes(n * 7 % 251 for n in range(1000)) * (size // 1000 + 1)
            put = b.put("k", body[:size])
            same(put["ETag"], '"%s"' % hashlib.md5(body[:size]).hexdigest())
            got = b.get("k")
            same((got["Body"].read() == body[:size], got["ETag"], got["ContentLength"]), (True, put["ETag"], size))


@case("objects")
def any_key_will_do():
    with Bucket() as b:
        names = ["a b", "ü/é", "+&=?#%", "a//b", "/lead", "tail/", ".", "..", "../up", "%2F", "日本語", "_", ":", "<>&\"'", "a" * 1024]
        for name in names:
            b.put(name, name.encode())
        for name in names:
            same(b.read(name), name.encode())
        same(keys(b.list()), sorted(names, key=lambda n: n.encode()))
        refused(400, "KeyTooLongError", b.put, "a" * 1025)


@case("objects")
def what_is_replaced_is_gone_and_what_is_deleted_too():
    with Bucket() as b:
        b.put("k", b"one", Metadata={"a": "1"})
        b.put("k", b"two")
        got = b.get("k")
        same((got["Body"].read(), got["Metadata"]), (b"two", {}))
        for _ in range(2):
            same(b.delete("k")["ResponseMetadata"]["HTTPStatusCode"], 204)
        refused(404, "NoSuchKey", b.get, "k")
        refused(404, "404", b.head, "k")


@case("objects")
def many_are_deleted_at_once():
    with Bucket() as b:
        names = [f"k{n}" for n in range(1000)]
        for name in names[:20]:
            b.put(name)
        done = S3.delete_objects(Bucket=b.name, Delete={"Objects": [{"Key": n} for n in names]})
        same((len(done["Deleted"]), done.get("Errors", [])), (1000, []))
        quiet = S3.delete_objects(Bucket=b.name, Delete={"Objects": [{"Key": "x"}], "Quiet": True})
        same(quiet.get("Deleted", []), [])
        refused(400, "MalformedXML", S3.delete_objects, Bucket=b.name, Delete={"Objects": [{"Key": n} for n in names + ["x"]]})
        same(keys(b.list()), [])


@case("objects")
def writers_of_one_key_leave_one_of_their_bodies():
    with Bucket() as b:
        bodies = [bytes([65 + n]) * (1 << 20) for n in range(4)]
        threads = [threading.Thread(target=client().put_object, kwargs={"Bucket": b.name, "Key": "k", "Body": body}) for body in bodies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert b.read("k") in bodies


@case("headers")
def headers_of_an_object_are_kept():
    with Bucket() as b:
        when = datetime.datetime(2031, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
        given = {"CacheControl": "max-age=5", "ContentDisposition": "attachment", "ContentLanguage": "de", "ContentType": "text/x",
                 "ContentEncoding": "gzip", "Expires": when, "Metadata": {"who": "me", "empty": ""}}
        b.put("k", b"x", **given)
        for found in (b.get("k"), b.head("k")):
            same({name: found[name] for name in given}, given)
        refused(400, "MetadataTooLarge", b.put, "k", Metadata={"a": "x" * 2048})


@case("headers")
def a_read_can_ask_for_other_headers():
    with Bucket() as b:
        b.put("k", b"x")
        got = b.get("k", ResponseContentType="a/b", ResponseCacheControl="no-cache", ResponseContentDisposition="bla",
                    ResponseContentEncoding="aaa", ResponseContentLanguage="esperanto")
        same((got["ContentType"], got["CacheControl"], got["ContentDisposition"], got["ContentEncoding"], got["ContentLanguage"]),
             ("a/b", "no-cache", "bla", "aaa", "esperanto"))


@case("headers")
def bodies_are_held_against_their_digests():
    with Bucket() as b:
        right = base64.b64encode(hashlib.md5(b"x").digest()).decode()
        b.put("k", b"x", ContentMD5=right)
        refused(400, "BadDigest", b.put, "k", b"y", ContentMD5=right)
        refused(400, "InvalidDigest", b.put, "k", b"x", ContentMD5="short")
        same(b.read("k"), b"x")


@case("headers")
def requests_are_signed_and_fresh():
    with Bucket() as b:
        same(opened(f"http://{ADDRESS}/{b.name}")[0], 403)
        same(opened(f"http://{ADDRESS}/{b.name}/k", "PUT", b"x")[0], 403)
        same(opened(f"http://{ADDRESS}/{b.name}/k", "PUT", b"x", {"Authorization": "AWS a:b"})[0], 403)
        same(opened(f"http://{ADDRESS}/{b.name}/k", "PUT", b"x", {"Authorization": "nonsense"})[0], 400)
        wrong = boto3.client("s3", endpoint_url=f"http://{ADDRESS}", aws_access_key_id=SECRET_ID, aws_secret_access_key="wrong",
                             region_name="ap-guangzhou")
        refused(403, "SignatureDoesNotMatch", wrong.list_objects, Bucket=b.name)
        # What was signed an hour ago, and is sent as it was.
        now = botocore.auth.get_current_datetime
        botocore.auth.get_current_datetime = lambda *a, **k: now(*a, **k) - datetime.timedelta(hours=1)
        try:
            refused(403, "RequestTimeTooSkewed", client().list_objects, Bucket=b.name)
        finally:
            botocore.auth.get_current_datetime = now


@case("ranges")
def ranges_are_cut_out():
    with Bucket() as b:
        body = bytes(range(256)) * 40
        b.put("k", body)
        for text, cut in (("0-0", body[:1]), ("5-9", body[5:10]), ("10000-", body[10000:]), ("-7", body[-7:]), ("10-99999", body[10:]),
                          ("-99999", body)):
            got = b.get("k", Range=f"bytes={text}")
            same((got["Body"].read(), got["ResponseMetadata"]["HTTPStatusCode"]), (cut, 206))
            same(got["ContentRange"].split("/")[1], str(len(body)))
        refused(416, "InvalidRange", b.get, "k", Range=f"bytes={len(body)}-")
        b.put("empty")
        refused(416, "InvalidRange", b.get, "empty", Range="bytes=0-")


@case("conditions")
def reads_have_conditions():
    with Bucket() as b:
        etag = b.put("k", b"x")["ETag"]
        past, future = datetime.datetime(2001, 1, 1), datetime.datetime(2099, 1, 1)
        same(b.read("k", IfMatch=etag), b"x")
        refused(412, "PreconditionFailed", b.get, "k", IfMatch='"a"')
        refused(304, "304", b.get, "k", IfNoneMatch=etag)
        same(b.read("k", IfNoneMatch='"a"'), b"x")
        same(b.read("k", IfModifiedSince=past), b"x")
        refused(304, "304", b.get, "k", IfModifiedSince=datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=5))
        refused(412, "PreconditionFailed", b.get, "k", IfUnmodifiedSince=past)
        same(b.read("k", IfUnmodifiedSince=future), b"x")


@case("conditions")
def writes_have_conditions():
    with Bucket() as b:
        refused(404, "NoSuchKey", b.put, "k", IfMatch='"a"')
        etag = b.put("k", b"one", IfNoneMatch="*")["ETag"]
        refused(412, "PreconditionFailed", b.put, "k", IfNoneMatch="*")
        refused(412, "PreconditionFailed", b.put, "k", IfMatch='"a"')
        b.put("k", b"two", IfMatch=etag)
        upload = b.begin("k")
        part = b.part("k", upload, 1, b"three")
        refused(412, "PreconditionFailed", b.complete, "k", upload, [{"PartNumber": 1, "ETag": part["ETag"]}], IfNoneMatch="*")
        same(b.read("k"), b"two")


@case("conditions")
def deletes_have_conditions():
    with Bucket() as b:
        etag = b.put("k", b"one")["ETag"]
        refused(412, "PreconditionFailed", b.delete, "k", IfMatch='"a"')
        refused(412, "PreconditionFailed", b.delete, "k", IfMatchSize=4)
        many = S3.delete_objects(Bucket=b.name, Delete={"Objects": [{"Key": "k", "ETag": '"a"'}, {"Key": "k", "Size": 9}]})
        same([e["Code"] for e in many["Errors"]], ["PreconditionFailed"] * 2)
        b.delete("k", IfMatch=etag, IfMatchSize=3)
        b.delete("k", IfMatch=etag)


@case("lists")
def lists_have_prefixes_delimiters_and_pages():
    with Bucket() as b:
        names = ["a", "b/1", "b/2", "b/c/1", "d", "e/1"]
        for name in names:
            b.put(name)
        for one in (b.list, b.list2):
            same(keys(one()), names)
            same((keys(one(Delimiter="/")), prefixes(one(Delimiter="/"))), (["a", "d"], ["b/", "e/"]))
            page = one(Prefix="b/", Delimiter="/")
            same((keys(page), prefixes(page)), (["b/1", "b/2"], ["b/c/"]))
            same((keys(one(Prefix="b/")), keys(one(Prefix="x"))), (["b/1", "b/2", "b/c/1"], []))
            same(keys(one(Delimiter="")), names)
            same((keys(one(Delimiter="1")), prefixes(one(Delimiter="1"))), (["a", "b/2", "d"], ["b/1", "b/c/1", "e/1"]))
            same(keys(one(MaxKeys=0)), [])
        found, marker = [], ""
        while True:
            page = b.list(Delimiter="/", MaxKeys=1, Marker=marker)
            found += keys(page) + prefixes(page)
            if not page["IsTruncated"]:
                break
            marker = page["NextMarker"]
        same(found, ["a", "b/", "d", "e/"])
        found, more = [], {}
        while True:
            page = b.list2(Delimiter="/", MaxKeys=1, **more)
            same(page["KeyCount"], 1)
            found += keys(page) + prefixes(page)
            if not page["IsTruncated"]:
                break
            more = {"ContinuationToken": page["NextContinuationToken"]}
        same(found, ["a", "b/", "d", "e/"])


@case("lists")
def lists_begin_where_they_are_told():
    with Bucket() as b:
        for name in ("a", "b", "c"):
            b.put(name)
        same((keys(b.list(Marker="a")), keys(b.list(Marker="zz")), keys(b.list(Marker="aa"))), (["b", "c"], [], ["b", "c"]))
        same((keys(b.list2(StartAfter="a")), keys(b.list2(StartAfter="zz"))), (["b", "c"], []))
        refused(400, "InvalidArgument", b.list2, ContinuationToken="nonsense")
        refused(400, "InvalidArgument", b.list, MaxKeys=-1)
        same(b.list(MaxKeys=5000)["MaxKeys"], 1000)


@case("lists")
def lists_show_names_as_they_are():
    with Bucket() as b:
        names = ["a\tb", "a b", "a+b", "ü", "x/ü y/z"]
        for name in names:
            b.put(name)
        for one in (b.list, b.list2):
            same(keys(one()), sorted(names, key=str.encode))
            same(prefixes(one(Delimiter=" y/", EncodingType="url")), ["x/%C3%BC%20y/"])
        same("Owner" in b.list()["Contents"][0], True)
        same("Owner" in b.list2()["Contents"][0], False)
        same("Owner" in b.list2(FetchOwner=True)["Contents"][0], True)


@case("parts")
def an_object_is_put_in_parts():
    with Bucket() as b:
        bodies = [bytes([n]) * PART for n in (1, 2)] + [b"end"]
        done = b.in_parts("k", bodies, Metadata={"a": "b"}, ContentType="x/y")
        digest = hashlib.md5(b"".join(hashlib.md5(body).digest() for body in bodies)).hexdigest()
        same(done["ETag"], f'"{digest}-3"')
        got = b.get("k")
        same((got["Body"].read() == b"".join(bodies), got["Metadata"], got["ContentType"]), (True, {"a": "b"}, "x/y"))
        for number, body in enumerate(bodies, 1):
            one = b.get("k", PartNumber=number)
            same((one["Body"].read() == body, one["PartsCount"], one["ResponseMetadata"]["HTTPStatusCode"]), (True, 3, 206))
        same(b.read("k", Range=f"bytes={PART - 2}-{PART + 1}"), b"\1\1\2\2")


@case("parts")
def completions_are_checked_and_can_be_repeated():
    with Bucket() as b:
        upload = b.begin("k")
        one = {"PartNumber": 1, "ETag": b.part("k", upload, 1, b"short")["ETag"]}
        two = {"PartNumber": 2, "ETag": b.part("k", upload, 2, b"end")["ETag"]}
        refused(400, "EntityTooSmall", b.complete, "k", upload, [one, two])
        refused(400, "InvalidPart", b.complete, "k", upload, [{"PartNumber": 1, "ETag": '"a"'}])
        refused(400, "InvalidPart", b.complete, "k", upload, [{"PartNumber": 3, "ETag": one["ETag"]}])
        refused(400, "InvalidPartOrder", b.complete, "k", upload, [two, one])
        refused(400, "MalformedXML", b.complete, "k", upload, [])
        first = b.complete("k", upload, [one])
        same(b.complete("k", upload, [one])["ETag"], first["ETag"])
        refused(404, "NoSuchUpload", b.complete, "k", "0" * 32, [one])
        same(b.read("k"), b"short")


@case("parts")
def uploads_are_listed_and_aborted():
    with Bucket() as b:
        uploads = [(key, b.begin(key)) for key in ("a", "b", "b", "c")]
        page = S3.list_multipart_uploads(Bucket=b.name)
        same(sorted((u["Key"], u["UploadId"]) for u in page["Uploads"]), sorted(uploads))
        found, more = [], {}
        while True:
            page = S3.list_multipart_uploads(Bucket=b.name, MaxUploads=1, **more)
            found += [(u["Key"], u["UploadId"]) for u in page["Uploads"]]
            if not page["IsTruncated"]:
                break
            more = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
        same(sorted(found), sorted(uploads))
        key, upload = uploads[0]
        for number in (1, 2, 7):
            b.part(key, upload, number, b"x")
        listed = S3.list_parts(Bucket=b.name, Key=key, UploadId=upload, MaxParts=2)
        same(([p["PartNumber"] for p in listed["Parts"]], listed["IsTruncated"]), ([1, 2], True))
        rest = S3.list_parts(Bucket=b.name, Key=key, UploadId=upload, PartNumberMarker=listed["NextPartNumberMarker"])
        same([p["PartNumber"] for p in rest["Parts"]], [7])
        S3.abort_multipart_upload(Bucket=b.name, Key=key, UploadId=upload)
        refused(404, "NoSuchUpload", S3.abort_multipart_upload, Bucket=b.name, Key=key, UploadId=upload)
        refused(404, "NoSuchUpload", b.part, key, upload, 1, b"x")


@case("parts")
def parts_are_copied():
    with Bucket() as b:
        body = bytes(n % 251 for n in range(PART + 100))
        b.put("from ü+", body)
        upload = b.begin("to")
        source = {"Bucket": b.name, "Key": "from ü+"}

        def copy(number, **more):
            done = S3.upload_part_copy(Bucket=b.name, Key="to", UploadId=upload, PartNumber=number, CopySource=source, **more)
            return {"PartNumber": number, "ETag": done["CopyPartResult"]["ETag"]}

        parts = [copy(1), copy(2, CopySourceRange="bytes=10-20")]
        refused(400, "InvalidArgument", copy, 3, CopySourceRange="bytes=10")
        refused(416, "InvalidRange", copy, 3, CopySourceRange=f"bytes=0-{len(body)}")
        b.complete("to", upload, parts)
        same(b.read("to") == body + body[10:21], True)


@case("copies")
def objects_are_copied():
    with Bucket() as one, Bucket() as two:
        one.put("a b/ü", b"body", Metadata={"who": "me"}, ContentType="x/y")
        source = {"Bucket": one.name, "Key": "a b/ü"}
        S3.copy_object(Bucket=two.name, Key="k", CopySource=source)
        got = two.get("k")
        same((got["Body"].read(), got["Metadata"], got["ContentType"]), (b"body", {"who": "me"}, "x/y"))
        S3.copy_object(Bucket=two.name, Key="k", CopySource=source, MetadataDirective="REPLACE", Metadata={"a": "b"}, ContentType="z/z")
        got = two.get("k")
        same((got["Metadata"], got["ContentType"]), ({"a": "b"}, "z/z"))
        refused(400, "InvalidRequest", S3.copy_object, Bucket=one.name, Key="a b/ü", CopySource=source)
        S3.copy_object(Bucket=one.name, Key="a b/ü", CopySource=source, MetadataDirective="REPLACE", Metadata={})
        same((one.read("a b/ü"), one.head("a b/ü")["Metadata"]), (b"body", {}))
        refused(404, "NoSuchKey", S3.copy_object, Bucket=two.name, Key="x", CopySource={"Bucket": one.name, "Key": "none"})
        refused(404, "NoSuchBucket", S3.copy_object, Bucket=two.name, Key="x", CopySource={"Bucket": "never-made-bucket", "Key": "k"})


@case("copies")
def copies_have_conditions():
    with Bucket() as b:
        etag = b.put("k", b"x")["ETag"]
        source = {"Bucket": b.name, "Key": "k"}
        S3.copy_object(Bucket=b.name, Key="to", CopySource=source, CopySourceIfMatch=etag)
        refused(412, "PreconditionFailed", S3.copy_object, Bucket=b.name, Key="to", CopySource=source, CopySourceIfMatch='"a"')
        refused(412, "PreconditionFailed", S3.copy_object, Bucket=b.name, Key="to", CopySource=source, CopySourceIfNoneMatch=etag)


@case("tags")
def objects_have_tags():
    with Bucket() as b:
        tags = [{"Key": "a", "Value": ""}, {"Key": "b", "Value": "ü"}]
        b.put("k", Tagging="b=%C3%BC&a")
        same(S3.get_object_tagging(Bucket=b.name, Key="k")["TagSet"], tags)
        same((b.get("k")["TagCount"], b.head("k")["ResponseMetadata"]["HTTPHeaders"]["x-amz-tagging-count"]), (2, "2"))
        S3.copy_object(Bucket=b.name, Key="copy", CopySource={"Bucket": b.name, "Key": "k"})
        same(S3.get_object_tagging(Bucket=b.name, Key="copy")["TagSet"], tags)
        S3.delete_object_tagging(Bucket=b.name, Key="k")
        same(S3.get_object_tagging(Bucket=b.name, Key="k")["TagSet"], [])
        for bad in ([{"Key": str(n), "Value": ""} for n in range(11)], [{"Key": "x" * 129, "Value": ""}], [{"Key": "x", "Value": "y" * 257}]):
            refused(400, "InvalidTag", S3.put_object_tagging, Bucket=b.name, Key="k", Tagging={"TagSet": bad})


@case("presigned")
def urls_open_what_they_were_signed_for():
    with Bucket() as b:
        b.put("k ü", b"body")
        for signer in (client(signature_version="s3v4"), client(signature_version="s3")):
            url = signer.generate_presigned_url("get_object", {"Bucket": b.name, "Key": "k ü"}, ExpiresIn=60)
            same(opened(url)[:2], (200, b"body"))
            same(opened(url.replace("k%20", "x%20"))[0], 403)
            same(opened(url, "DELETE")[0], 403)
        url = S3.generate_presigned_url("put_object", {"Bucket": b.name, "Key": "new"}, ExpiresIn=60)
        same(opened(url, "PUT", b"by url")[0], 200)
        same(b.read("new"), b"by url")
        same(opened(S3.generate_presigned_url("get_object", {"Bucket": b.name, "Key": "new"}, ExpiresIn=0))[0] in (400, 403), True)


@case("presigned")
def forms_put_what_their_policy_allows():
    with Bucket() as b:
        def send(post, body, **fields):
            lines = [f'--b\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n' for n, v in {**post["fields"], **fields}.items()]
            text = "".join(lines) + '--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
            return opened(post["url"], "POST", text.encode() + body + b"\r\n--b--\r\n",
                          {"Content-Type": "multipart/form-data; boundary=b"})[0]

        post = S3.generate_presigned_post(b.name, "form", Conditions=[["content-length-range", 0, 10]])
        same((send(post, b"small"), b.read("form")), (204, b"small"))
        same(send(post, b"too much for it") in (400, 403), True)
        post["fields"]["key"] = "other"
        same(send(post, b"small") in (400, 403), True)
        refused(404, "NoSuchKey", b.get, "other")


@case("cross-origin")
def pages_of_other_origins_may_what_the_rules_say():
    with Bucket() as b:
        refused(404, "NoSuchCORSConfiguration", S3.get_bucket_cors, Bucket=b.name)
        rules = [{"AllowedMethods": ["GET"], "AllowedOrigins": ["https://*.example.com"], "ExposeHeaders": ["ETag"], "AllowedHeaders": ["x-*"]}]
        S3.put_bucket_cors(Bucket=b.name, CORSConfiguration={"CORSRules": rules})
        same(S3.get_bucket_cors(Bucket=b.name)["CORSRules"], rules)
        b.put("k", b"x")
        url = S3.generate_presigned_url("get_object", {"Bucket": b.name, "Key": "k"})
        for origin, allowed in (("https://a.example.com", True), ("https://a.example.org", False), (None, False)):
            status, _, headers = opened(url, headers={"Origin": origin} if origin else {})
            same((status, "access-control-allow-origin" in {h.lower() for h in headers}), (200, allowed))
        ask = {"Origin": "https://a.example.com", "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "x-amz-date"}
        same(opened(f"http://{ADDRESS}/{b.name}/k", "OPTIONS", headers=ask)[0], 200)
        same(opened(f"http://{ADDRESS}/{b.name}/k", "OPTIONS", headers={**ask, "Access-Control-Request-Method": "PUT"})[0], 403)
        S3.delete_bucket_cors(Bucket=b.name)
        refused(404, "NoSuchCORSConfiguration", S3.get_bucket_cors, Bucket=b.name)


@case("access lists")
def everything_is_the_owners():
    with Bucket() as b:
        b.put("k")
        for found in (S3.get_bucket_acl(Bucket=b.name), S3.get_object_acl(Bucket=b.name, Key="k")):
            same([g["Permission"] for g in found["Grants"]], ["FULL_CONTROL"])
            same(found["Grants"][0]["Grantee"]["ID"], found["Owner"]["ID"])
        S3.put_bucket_acl(Bucket=b.name, ACL="private")
        S3.put_object_acl(Bucket=b.name, Key="k", ACL="private")
        refused(501, "NotImplemented", S3.put_bucket_acl, Bucket=b.name, ACL="public-read")
        refused(501, "NotImplemented", S3.put_object_acl, Bucket=b.name, Key="k", ACL="public-read")
        refused(501, "NotImplemented", b.put, "k", ACL="public-read")
        refused(404, "NoSuchKey", S3.get_object_acl, Bucket=b.name, Key="none")


@case("checksums")
def checksums_are_verified_kept_and_shown():
    with Bucket() as b:
        body = bytes(n % 251 for n in range(100_000))
        crc = base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
        sums = {"ChecksumCRC32": crc, "ChecksumSHA1": base64.b64encode(hashlib.sha1(body).digest()).decode(),
                "ChecksumSHA256": base64.b64encode(hashlib.sha256(body).digest()).decode()}
        for name, value in sums.items():
            put = b.put("k", body, **{name: value})
            same((put[name], put["ChecksumType"]), (value, "FULL_OBJECT"))
            same((b.get("k", ChecksumMode="ENABLED")[name], b.head("k", ChecksumMode="ENABLED")[name]), (value, value))
            refused(400, "BadDigest", b.put, "k", body + b"x", **{name: value})
        found = S3.get_object_attributes(Bucket=b.name, Key="k", ObjectAttributes=["ETag", "Checksum", "ObjectSize", "StorageClass"])
        same((found["ObjectSize"], found["Checksum"]["ChecksumSHA256"], found["StorageClass"]), (len(body), sums["ChecksumSHA256"], "STANDARD"))


@case("checksums")
def parts_make_a_checksum_of_the_whole():
    with Bucket() as b:
        bodies = [b"a" * PART, b"b" * PART, b"end"]
        for kind, of_whole in ((None, False), ("FULL_OBJECT", True)):
            more = {"ChecksumType": kind} if kind else {}
            upload = b.begin("k", ChecksumAlgorithm="CRC32", **more)
            done = [b.part("k", upload, n, body, ChecksumAlgorithm="CRC32") for n, body in enumerate(bodies, 1)]
            parts = [{"PartNumber": n, "ETag": p["ETag"], "ChecksumCRC32": p["ChecksumCRC32"]} for n, p in enumerate(done, 1)]
            wrong = [{**parts[0], "ChecksumCRC32": parts[1]["ChecksumCRC32"]}] + parts[1:]
            refused(400, "InvalidPart", b.complete, "k", upload, wrong)
            found = b.complete("k", upload, parts)
            if of_whole:
                expected = base64.b64encode(zlib.crc32(b"".join(bodies)).to_bytes(4, "big")).decode()
            else:
                joined = b"".join(base64.b64decode(p["ChecksumCRC32"]) for p in done)
                expected = base64.b64encode(zlib.crc32(joined).to_bytes(4, "big")).decode() + "-3"
            same((found["ChecksumCRC32"], found["ChecksumType"]), (expected, kind or "COMPOSITE"))
            same(b.head("k", ChecksumMode="ENABLED")["ChecksumCRC32"], expected)


@case("versions")
def versions_are_kept_and_had_back():
    with Bucket(versions=True) as b:
        same(S3.get_bucket_versioning(Bucket=b.name)["Status"], "Enabled")
        ids = [b.put("k", body)["VersionId"] for body in (b"one", b"two", b"three")]
        same(len(set(ids)), 3)
        for version, body in zip(ids, (b"one", b"two", b"three")):
            same((b.read("k", VersionId=version), b.head("k", VersionId=version)["VersionId"]), (body, version))
        same((b.get("k")["VersionId"], b.read("k")), (ids[2], b"three"))
        gone = b.delete("k")
        same(gone["DeleteMarker"], True)
        answer = refused(404, "NoSuchKey", b.get, "k")
        same(answer["ResponseMetadata"]["HTTPHeaders"]["x-amz-delete-marker"], "true")
        refused(405, "MethodNotAllowed", b.get, "k", VersionId=gone["VersionId"])
        same((keys(b.list()), len(b.versions()["Versions"]), b.versions()["DeleteMarkers"][0]["IsLatest"]), ([], 3, True))
        b.delete("k", VersionId=gone["VersionId"])
        same(b.read("k"), b"three")
        b.delete("k", VersionId=ids[2])
        same(b.read("k"), b"two")
        S3.copy_object(Bucket=b.name, Key="k", CopySource={"Bucket": b.name, "Key": "k", "VersionId": ids[0]})
        same(b.read("k"), b"one")


@case("versions")
def versions_are_listed_in_pages():
    with Bucket(versions=True) as b:
        made = []
        for _ in range(3):
            for key in ("a", "b", "c/d"):
                made.append((key, b.put(key)["VersionId"]))
        for size in (1, 2, 4, 100):
            found, more = [], {}
            while True:
                page = b.versions(MaxKeys=size, **more)
                found += [(v["Key"], v["VersionId"], v["IsLatest"]) for v in page.get("Versions", [])]
                if not page["IsTruncated"]:
                    break
                more = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}
            same([(k, v) for k, v, _ in found], sorted(made, key=lambda m: (m[0], -made.index(m))))
            same([k for k, _, latest in found if latest], ["a", "b", "c/d"])
        page = b.versions(Delimiter="/")
        same((prefixes(page), len(page["Versions"])), (["c/"], 6))


@case("versions")
def a_suspended_bucket_has_one_null_version():
    with Bucket(versions=True) as b:
        kept = b.put("k", b"kept")["VersionId"]
        b.versioning("Suspended")
        for body in (b"one", b"two"):
            same(b.put("k", body).get("VersionId", "null"), "null")
        same((b.read("k", VersionId="null"), len(b.versions()["Versions"])), (b"two", 2))
        b.delete("k")
        same([v["VersionId"] for v in b.versions()["Versions"]], [kept])
        same(b.read("k", VersionId=kept), b"kept")


@case("versions")
def many_versions_are_deleted_at_once():
    with Bucket(versions=True) as b:
        ids = [b.put("k", bytes([n]))["VersionId"] for n in range(3)]
        gone = S3.delete_objects(Bucket=b.name, Delete={"Objects": [{"Key": "k", "VersionId": v} for v in ids[1:]] + [{"Key": "k"}]})
        same(sum(d.get("DeleteMarker", False) for d in gone["Deleted"]), 1)
        same([v["VersionId"] for v in b.versions()["Versions"]], [ids[0]])
        upload = b.begin("k")
        part = b.part("k", upload, 1, b"x")
        assert b.complete("k", upload, [{"PartNumber": 1, "ETag": part["ETag"]}])["VersionId"] not in ids


def main():
    failed = 0
    for group, cases in GROUPS.items():
        good = 0
        for one in cases:
            try:
                one()
                good += 1
            except Exception as error:  # noqa: BLE001 - each case tells its own
                failed += 1
                print(f"  FAIL {group}: {one.__name__.replace('_', ' ')}: {type(error).__name__}: {error}")
        print(f"  {group}: {good} of {len(cases)} cases hold")
    return 1 if failed else 0


sys.exit(main())
