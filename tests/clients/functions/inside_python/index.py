"""boto3 without a single argument of ours, cos-python-sdk-v5 and Tencent Cloud's SDK, from inside a function."""

import json
import os

import boto3
from qcloud_cos import CosConfig, CosS3Client
from tencentcloud.common import credential
from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile
from tencentcloud.scf.v20180416 import models, scf_client

E = os.environ


def s3():
    client, bucket, big = boto3.client("s3"), "inside-boto3", os.urandom(20 << 20)
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="a b/ü", Body=b"x", Metadata={"who": "me"})
    from boto3.s3.transfer import TransferConfig
    import io

    client.upload_fileobj(io.BytesIO(big), bucket, "big", Config=TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20))
    assert client.get_object(Bucket=bucket, Key="big")["Body"].read() == big
    assert client.get_object(Bucket=bucket, Key="a b/ü")["Metadata"] == {"who": "me"}
    import urllib.request

    assert urllib.request.urlopen(client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a b/ü"})).read() == b"x"
    from botocore.config import Config

    virtual = boto3.client("s3", config=Config(s3={"addressing_style": "virtual"}))
    keys = [o["Key"] for o in virtual.list_objects_v2(Bucket=bucket)["Contents"]]
    assert keys == ["a b/ü", "big"], keys
    client.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": k} for k in keys]})
    client.delete_bucket(Bucket=bucket)
    return client.meta.endpoint_url


def cos():
    config = CosConfig(Region=E["TENCENTCLOUD_REGION"], SecretId=E["TENCENTCLOUD_SECRETID"], SecretKey=E["TENCENTCLOUD_SECRETKEY"],
                       Token=E["TENCENTCLOUD_SESSIONTOKEN"], Endpoint=E["COS_ENDPOINT"], Scheme="http")
    client, bucket = CosS3Client(config), "insidecos-1250000000"
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="k", Body=b"v")
    assert client.get_object(Bucket=bucket, Key="k")["Body"].get_raw_stream().read() == b"v"
    import urllib.request

    assert urllib.request.urlopen(client.get_presigned_url(Method="GET", Bucket=bucket, Key="k", Expired=60,
                                                           Params={"x-cos-security-token": E["TENCENTCLOUD_SESSIONTOKEN"]})).read() == b"v"
    client.delete_object(Bucket=bucket, Key="k")
    client.delete_bucket(Bucket=bucket)
    return True


def scf():
    keys = credential.Credential(E["TENCENTCLOUD_SECRETID"], E["TENCENTCLOUD_SECRETKEY"], E["TENCENTCLOUD_SESSIONTOKEN"])
    profile = ClientProfile(httpProfile=HttpProfile(protocol="http", endpoint=E["TENCENTCLOUD_ENDPOINT"]))
    client = scf_client.ScfClient(keys, E["TENCENTCLOUD_REGION"], profile)
    request = models.InvokeRequest()
    request.FunctionName, request.ClientContext = E["SCF_FUNCTIONNAME"], json.dumps({"do": "name"})
    answer = client.Invoke(request).Result.RetMsg
    request = models.DeleteFunctionRequest()
    request.FunctionName = "nothing"
    try:
        client.DeleteFunction(request)
        refused = "nothing"
    except TencentCloudSDKException as error:
        refused = error.code
    return [json.loads(answer), refused]


def name():
    return E["SCF_FUNCTIONNAME"]


def main_handler(event, context):
    return {"s3": s3, "cos": cos, "scf": scf, "name": name}[event["do"]]()
