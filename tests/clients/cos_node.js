'use strict';
// The object store as cos-nodejs-sdk-v5 sees it from outside. Arguments: host:port of the store, secret id, secret key.

const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const COS = require('cos-nodejs-sdk-v5');

const [address, SecretId, SecretKey] = process.argv.slice(2);
const at = { Bucket: `node${process.pid}-1250000000`, Region: 'ap-guangzhou' };

async function main() {
  const cos = new COS({ SecretId, SecretKey, Protocol: 'http:', Domain: `${address}/{Bucket}`, ServiceDomain: address });
  await cos.putBucket(at);
  const buckets = await cos.getService();
  assert.ok(buckets.Buckets.some((b) => b.Name === at.Bucket));
  const Key = 'a b/ü+&.txt';
  const put = await cos.putObject({ ...at, Key, Body: 'hello', Headers: { 'x-cos-meta-who': 'me' } });
  assert.equal(put.ETag, `"${crypto.createHash('md5').update('hello').digest('hex')}"`);
  const got = await cos.getObject({ ...at, Key });
  assert.deepEqual([got.Body.toString(), got.headers['x-cos-meta-who']], ['hello', 'me']);
  assert.equal((await cos.getObject({ ...at, Key, Range: 'bytes=1-2' })).Body.toString(), 'el');
  const big = crypto.randomBytes(12 << 20);
  const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'cos-')), 'big');
  fs.writeFileSync(file, big);
  await cos.sliceUploadFile({ ...at, Key: 'big', FilePath: file, SliceSize: 1 << 20, ChunkSize: 4 << 20 });
  fs.rmSync(path.dirname(file), { recursive: true });
  assert.ok((await cos.getObject({ ...at, Key: 'big' })).Body.equals(big));
  const listed = await cos.getBucket({ ...at, Delimiter: '/' });
  assert.deepEqual([listed.Contents.map((o) => o.Key), listed.CommonPrefixes.map((p) => p.Prefix)], [['big'], ['a b/']]);
  const url = await new Promise((done, fail) =>
    cos.getObjectUrl({ ...at, Key, Sign: true, Expires: 60 }, (error, data) => (error ? fail(error) : done(data.Url))));
  assert.equal(await (await fetch(url)).text(), 'hello');
  await assert.rejects(cos.getObject({ ...at, Key: 'no' }), (error) => error.code === 'NoSuchKey' && error.statusCode === 404);
  const wrong = new COS({ SecretId, SecretKey: 'no', Protocol: 'http:', Domain: `${address}/{Bucket}`, ServiceDomain: address });
  await assert.rejects(wrong.getObject({ ...at, Key }), (error) => error.code === 'SignatureDoesNotMatch');
  const deleted = await cos.deleteMultipleObject({ ...at, Objects: [{ Key }, { Key: 'big' }] });
  assert.equal(deleted.Deleted.length, 2);
  await cos.deleteBucket(at);
  console.log('objects: cos-nodejs-sdk-v5 is served');
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
