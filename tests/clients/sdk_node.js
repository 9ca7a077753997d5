'use strict';
// Tencent Cloud's Node.js SDK, unmodified, through a function's whole life. It signs a host without its port and with the scope `127`.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const zlib = require('node:zlib');
const { scf } = require('tencentcloud-sdk-nodejs-scf');

const ScfClient = scf.v20180416.Client;
const NAME = 'sdk-node';
const { MAYFLY_ENDPOINT, MAYFLY_SECRET_ID, MAYFLY_SECRET_KEY, MAYFLY_TALLY } = process.env;

function client({ key = MAYFLY_SECRET_KEY, id = MAYFLY_SECRET_ID, signMethod = 'TC3-HMAC-SHA256', reqMethod = 'POST' } = {}) {
  return new ScfClient({
    credential: { secretId: id, secretKey: key },
    region: 'ap-guangzhou',
    profile: { signMethod, httpProfile: { protocol: 'http://', endpoint: MAYFLY_ENDPOINT, reqMethod } },
  });
}

/** A zip archive with one file, base64: Node has no zip library of its own. */
function zip(name, text) {
  const data = Buffer.from(text);
  const packed = zlib.deflateRawSync(data);
  const file = Buffer.from(name);
  const common = Buffer.alloc(26);
  common.writeUInt16LE(20, 0); // version needed
  common.writeUInt16LE(8, 4); // deflate
  common.writeUInt16LE(0x5821, 8); // 1 January 2024
  common.writeUInt32LE(crc32(data), 10);
  common.writeUInt32LE(packed.length, 14);
  common.writeUInt32LE(data.length, 18);
  common.writeUInt16LE(file.length, 22);
  const local = Buffer.concat([Buffer.from('PK\x03\x04', 'latin1'), common, file, packed]);
  const rest = Buffer.alloc(14);
  rest.writeUInt32LE((0o100644 << 16) >>> 0, 6);
  const central = Buffer.concat([Buffer.from('PK\x01\x02\x14\x03', 'latin1'), common, rest, file]);
  const end = Buffer.alloc(22);
  end.write('PK\x05\x06', 0, 'latin1');
  end.writeUInt16LE(1, 8);
  end.writeUInt16LE(1, 10);
  end.writeUInt32LE(central.length, 12);
  end.writeUInt32LE(local.length, 16);
  return Buffer.concat([local, central, end]).toString('base64');
}

function crc32(data) {
  let crc = ~0;
  for (const byte of data) {
    crc ^= byte;
    for (let i = 0; i < 8; i += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

const code = (version) => `
console.log('module loaded');
exports.main_handler = async (event, context) => {
  console.log('event', JSON.stringify(event));
  if (event.fail) throw new RangeError('asked to fail');
  return { version: '${version}', event, request_id: context.request_id };
};
`;

let passed = 0;
let failed = 0;

async function check(title, body) {
  const begun = process.hrtime.bigint();
  try {
    const note = await body();
    passed += 1;
    const ms = Number(process.hrtime.bigint() - begun) / 1e6;
    console.log(`  ok   ${title}${note ? `: ${note}` : ''} [${ms.toFixed(0)} ms]`);
  } catch (error) {
    failed += 1;
    const where = /sdk_node\.js:\d+/.exec(error.stack || '');
    console.log(`  FAIL ${title}: ${error.code || error.name}: ${error.message.replace(/\s+/g, ' ')} (${where ? where[0] : '?'})`);
  }
}

async function until(what, attempt, seconds = 20) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const value = await attempt();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`not within ${seconds} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function refused(expected, promise) {
  let answer;
  try {
    answer = await promise;
  } catch (error) {
    assert.equal(error.code, expected, error.message);
    assert.ok(error.requestId, 'an error answer without a request id');
    return `${error.code}: ${error.message}`;
  }
  throw new Error(`accepted, though it should be refused with ${expected}: ${JSON.stringify(answer)}`);
}

async function invoke(event, more = {}, from = client()) {
  const { Result } = await from.Invoke({ FunctionName: NAME, ClientContext: JSON.stringify(event), ...more });
  return { value: Result.RetMsg ? JSON.parse(Result.RetMsg) : undefined, result: Result };
}

const active = (name = NAME) => until(`${name} is Active`, async () => {
  const answer = await client().GetFunction({ FunctionName: name });
  assert.ok(!answer.Status.endsWith('Failed'), `${answer.Status}: ${answer.StatusDesc}`);
  return answer.Status === 'Active' && answer;
});

async function main() {
  console.log('\n== tencentcloud-sdk-nodejs-scf');
  await check('CreateFunction', async () => {
    await client().CreateFunction({
      FunctionName: NAME, Runtime: 'Nodejs18.15', Handler: 'index.main_handler', MemorySize: 256, Timeout: 5, Description: 'made by the Node SDK',
      Environment: { Variables: [{ Key: 'WHO', Value: 'sdk' }] }, Code: { ZipFile: zip('index.js', code('one')) },
    });
    const got = await active();
    assert.deepEqual([got.Runtime, got.Handler, got.MemorySize, got.Timeout], ['Nodejs18.15', 'index.main_handler', 256, 5]);
    return `${got.Status}, ${got.FunctionId}`;
  });
  let first;
  for (const [signMethod, reqMethod] of [['TC3-HMAC-SHA256', 'POST'], ['TC3-HMAC-SHA256', 'GET'], ['HmacSHA1', 'POST'], ['HmacSHA1', 'GET'], ['HmacSHA256', 'POST'], ['HmacSHA256', 'GET']]) {
    await check(`Invoke, ${signMethod} by ${reqMethod}`, async () => {
      const event = { text: 'a+b &=% 你好', n: 1 };
      const { value, result } = await invoke(event, { LogType: 'Tail' }, client({ signMethod, reqMethod }));
      assert.deepEqual(value.event, event);
      assert.equal(value.request_id, result.FunctionRequestId);
      assert.equal(result.InvokeResult, 0);
      assert.match(result.Log, /event \{"text"/);
      first ??= result.FunctionRequestId;
      return `${result.Duration} ms`;
    });
  }
  await check('a function that throws answers with 430 and its stack', async () => {
    const { result } = await invoke({ fail: true });
    assert.equal(result.InvokeResult, -1);
    const told = JSON.parse(result.ErrMsg);
    assert.equal(told.statusCode, 430);
    assert.match(told.stackTrace, /RangeError: asked to fail[\s\S]*index\.js:5/);
    return `${told.errorMessage} | ${told.stackTrace.split('\n')[1].trim()}`;
  });
  await check('CreateFunction, HmacSHA256 with dotted fields', async () => {
    const name = `${NAME}-v1`;
    await client({ signMethod: 'HmacSHA256' }).CreateFunction({
      FunctionName: name, Runtime: 'Nodejs16.13', Handler: 'index.main_handler', Timeout: 4,
      Environment: { Variables: [{ Key: 'AA', Value: '1' }, { Key: 'BB', Value: '2 & 3' }] },
      Code: { ZipFile: zip('index.js', 'exports.main_handler = async () => process.env.AA + process.env.BB;') },
    });
    await active(name);
    const { value } = await invoke({}, { FunctionName: name });
    assert.equal(value, '12 & 3');
    await client({ signMethod: 'HmacSHA1' }).DeleteFunction({ FunctionName: name });
    return JSON.stringify(value);
  });
  await check('Event invoke, then GetRequestStatus', async () => {
    const { Result } = await client().Invoke({ FunctionName: NAME, InvocationType: 'Event', ClientContext: '{"later":true}' });
    assert.ok(Result.FunctionRequestId);
    const row = await until('the event\'s status', async () => {
      const { Data } = await client().GetRequestStatus({ FunctionName: NAME, FunctionRequestId: Result.FunctionRequestId });
      return Data?.find((r) => r.RetCode === 0 && r.Duration !== undefined && r.Duration !== null);
    });
    assert.deepEqual(JSON.parse(row.RetMsg).event, { later: true });
    return `RetCode ${row.RetCode}, ${row.Duration} ms, ${row.RetMsg}`;
  });
  await check('GetFunctionLogs by request id', async () => {
    const { Data } = await until('the log', async () => {
      const answer = await client().GetFunctionLogs({ FunctionName: NAME, FunctionRequestId: first, Limit: 10, Offset: 0 });
      return answer.Data?.length && answer;
    });
    assert.equal(Data[0].RequestId, first);
    for (const line of ['START RequestId', 'Init Report RequestId', 'module loaded', 'END RequestId', 'Report RequestId']) assert.ok(Data[0].Log.includes(line), `${line} in ${Data[0].Log}`);
    return Data[0].Log.split('\n').filter((line) => line.includes('Report')).join('; ');
  });
  await check('PublishVersion, UpdateFunctionCode, PublishVersion', async () => {
    assert.equal((await client().PublishVersion({ FunctionName: NAME, Description: 'first' })).FunctionVersion, '1');
    await active();
    await client().UpdateFunctionCode({ FunctionName: NAME, Handler: 'index.main_handler', ZipFile: zip('index.js', code('two')) });
    await active();
    assert.equal((await client().PublishVersion({ FunctionName: NAME, Description: 'second' })).FunctionVersion, '2');
    await active();
    const versions = [(await invoke({}, { Qualifier: '1' })).value.version, (await invoke({}, { Qualifier: '2' })).value.version, (await invoke({})).value.version];
    assert.deepEqual(versions, ['one', 'two', 'two']);
    const { FunctionVersion } = await client().ListVersionByFunction({ FunctionName: NAME });
    assert.deepEqual([...FunctionVersion].sort(), ['$LATEST', '1', '2']);
    return FunctionVersion.join(', ');
  });
  await check('CreateAlias over versions 1 and 2, half and half, 100 invokes', async () => {
    await client().CreateAlias({ FunctionName: NAME, Name: 'live', FunctionVersion: '1', RoutingConfig: { AdditionalVersionWeights: [{ Version: '2', Weight: 0.5 }] } });
    const seen = { one: 0, two: 0 };
    const from = client();
    const begun = Date.now();
    for (let i = 0; i < 100; i += 1) seen[(await invoke({}, { Qualifier: 'live' }, from)).value.version] += 1;
    assert.ok(seen.one >= 20 && seen.one <= 80, JSON.stringify(seen));
    return `${JSON.stringify(seen)}, ${((Date.now() - begun) / 100).toFixed(1)} ms a call, client and all`;
  });
  await check('rollback: the alias goes back to version 1 alone', async () => {
    await client().UpdateAlias({ FunctionName: NAME, Name: 'live', FunctionVersion: '1', RoutingConfig: { AdditionalVersionWeights: [] } });
    const seen = new Set();
    for (let i = 0; i < 20; i += 1) seen.add((await invoke({}, { Qualifier: 'live' })).value.version);
    assert.deepEqual([...seen], ['one']);
    return '20 of 20 by version 1';
  });
  await check('wrong key', () => refused('AuthFailure.SignatureFailure', client({ key: '0'.repeat(32) }).ListFunctions({})));
  await check('wrong key, HmacSHA1', () => refused('AuthFailure.SignatureFailure', client({ key: '0'.repeat(32), signMethod: 'HmacSHA1' }).ListFunctions({})));
  await check('unknown key id', () => refused('AuthFailure.SecretIdNotFound', client({ id: 'AKIDnobody' }).ListFunctions({})));
  await check('a clock one hour late', async () => {
    const RealDate = Date;
    global.Date = class extends RealDate {
      constructor(...args) { super(...(args.length ? args : [RealDate.now() - 3600e3])); }
      static now() { return RealDate.now() - 3600e3; }
    };
    try {
      return await refused('AuthFailure.SignatureExpire', client().ListFunctions({}));
    } finally {
      global.Date = RealDate;
    }
  });
  await check('wrong name, GetFunction', () => refused('ResourceNotFound.Function', client().GetFunction({ FunctionName: 'nobody' })));
  await check('wrong name, Invoke', () => refused('ResourceNotFound.Function', client().Invoke({ FunctionName: 'nobody' })));
  await check('wrong qualifier, Invoke', () => refused('ResourceNotFound.Qualifier', client().Invoke({ FunctionName: NAME, Qualifier: '99' })));
  await check('wrong type', () => refused('InvalidParameter', client().UpdateFunctionConfiguration({ FunctionName: NAME, MemorySize: 'plenty' })));
  await check('a package that is not a zip', () => refused('InvalidParameterValue.ZipFile', client().UpdateFunctionCode({ FunctionName: NAME, ZipFile: 'aGVsbG8gd29ybGQ=' })));
  await check('after all the mistakes the function is as it was', async () => {
    assert.equal((await active()).MemorySize, 256);
    assert.equal((await invoke({})).value.version, 'two');
  });
  await check('DeleteAlias, DeleteFunction', async () => {
    await client().DeleteAlias({ FunctionName: NAME, Name: 'live' });
    await client().DeleteFunction({ FunctionName: NAME });
    await until('the function is gone', async () => {
      try {
        await client().GetFunction({ FunctionName: NAME });
      } catch (error) {
        assert.equal(error.code, 'ResourceNotFound.Function');
        return true;
      }
      return false;
    });
    return refused('ResourceNotFound.Function', client().Invoke({ FunctionName: NAME }));
  });
  fs.appendFileSync(MAYFLY_TALLY, `${passed} ${failed}\n`);
  process.exitCode = failed ? 1 : 0;
}

main();
