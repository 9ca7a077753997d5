'use strict';
// cos-nodejs-sdk-v5 and Tencent Cloud's SDK from inside a function, with the keys of its role.

const COS = require('cos-nodejs-sdk-v5');
const { scf } = require('tencentcloud-sdk-nodejs-scf');

const E = process.env;

function store() {
  return new COS({
    SecretId: E.TENCENTCLOUD_SECRETID,
    SecretKey: E.TENCENTCLOUD_SECRETKEY,
    SecurityToken: E.TENCENTCLOUD_SESSIONTOKEN,
    Protocol: 'http:',
    Domain: `{Bucket}.${E.COS_ENDPOINT}`,
    ServiceDomain: E.COS_ENDPOINT,
  });
}

exports.main_handler = async (event) => {
  if (event.do === 'name') return E.SCF_FUNCTIONNAME;
  const cos = store();
  const at = { Bucket: 'insidenode-1250000000', Region: E.TENCENTCLOUD_REGION };
  await cos.putBucket(at);
  await cos.putObject({ ...at, Key: 'a b/ü', Body: 'hello' });
  const got = (await cos.getObject({ ...at, Key: 'a b/ü' })).Body.toString();
  const listed = (await cos.getBucket(at)).Contents.map((o) => o.Key);
  await cos.deleteObject({ ...at, Key: 'a b/ü' });
  await cos.deleteBucket(at);
  const client = new scf.v20180416.Client({
    credential: { secretId: E.TENCENTCLOUD_SECRETID, secretKey: E.TENCENTCLOUD_SECRETKEY, token: E.TENCENTCLOUD_SESSIONTOKEN },
    region: E.TENCENTCLOUD_REGION,
    profile: { httpProfile: { protocol: 'http://', endpoint: E.TENCENTCLOUD_ENDPOINT } },
  });
  const called = await client.InvokeFunction({ FunctionName: E.SCF_FUNCTIONNAME, Event: JSON.stringify({ do: 'name' }) });
  return { got, listed, called: JSON.parse(called.Result.RetMsg) };
};
