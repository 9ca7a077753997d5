'use strict';
// Tests of the Node runtime against the protocol, with no node: `node --test test_bootstrap.js` (Node 18 and later).
// MAYFLY_TEST_NODE names another interpreter to test.

const { test } = require('node:test');
const assert = require('node:assert');
const { execFileSync, spawn } = require('node:child_process');
const { once } = require('node:events');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const NODE = process.env.MAYFLY_TEST_NODE || process.execPath;
const VERSION = execFileSync(NODE, ['--version']).toString().trim().slice(1);
const BIND = 1;
const INVOKE = 2;
const HELLO = 0x81;
const READY = 0x82;
const ERROR = 0x83;
const RESULT = 0x84;

function frame(kind, payload) {
  const header = Buffer.alloc(8);
  header.writeUInt32LE(payload.length, 0);
  header.writeUInt32LE(kind, 4);
  return Buffer.concat([header, payload]);
}

function invocation(event, meta = {}) {
  const text = Buffer.from(JSON.stringify({ request_id: 'req-1', deadline_ms: Date.now() + 3000, trigger: null, ...meta }));
  const size = Buffer.alloc(4);
  size.writeUInt32LE(text.length, 0);
  return Buffer.concat([size, text, Buffer.from(event === undefined ? 'null' : JSON.stringify(event))]);
}

/** The node's end of one process. */
class Shim {
  constructor(t) {
    this.process = spawn(NODE, ['--v8-pool-size=1', path.join(__dirname, 'bootstrap.js')], {
      stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
      env: { LEFT_OVER: 'host' },
    });
    this.stream = this.process.stdio[3];
    this.log = '';
    this.bytes = Buffer.alloc(0);
    this.frames = [];
    this.waiting = null;
    this.closed = false;
    for (const output of [this.process.stdout, this.process.stderr]) output.on('data', (part) => (this.log += part));
    this.stream.on('data', (part) => this.take(part));
    this.stream.on('error', () => {});
    this.stream.on('close', () => {
      this.closed = true;
      this.wake();
    });
    this.exited = once(this.process, 'close');
    t.after(() => this.process.kill('SIGKILL'));
  }

  take(part) {
    this.bytes = Buffer.concat([this.bytes, part]);
    while (this.bytes.length >= 8 && this.bytes.length >= 8 + this.bytes.readUInt32LE(0)) {
      const end = 8 + this.bytes.readUInt32LE(0);
      this.frames.push({ kind: this.bytes.readUInt32LE(4), text: this.bytes.toString('utf8', 8, end) });
      this.bytes = this.bytes.subarray(end);
    }
    this.wake();
  }

  wake() {
    if (this.waiting !== null && (this.frames.length > 0 || this.closed)) this.waiting();
  }

  /** The next frame, or null at the end of the stream. */
  async receive() {
    if (this.frames.length === 0 && !this.closed) await new Promise((resolve) => (this.waiting = resolve));
    this.waiting = null;
    return this.frames.shift() || null;
  }

  async answer() {
    const got = await this.receive();
    return got === null ? null : [got.kind, JSON.parse(got.text)];
  }

  async invoke(event, meta) {
    this.stream.write(frame(INVOKE, invocation(event, meta)));
    return this.answer();
  }
}

function folder(t, files) {
  const code = fs.mkdtempSync(path.join(os.tmpdir(), 'mayfly-test-'));
  t.after(() => fs.rmSync(code, { recursive: true }));
  for (const [name, source] of Object.entries(files)) {
    fs.mkdirSync(path.dirname(path.join(code, name)), { recursive: true });
    fs.writeFileSync(path.join(code, name), source);
  }
  return code;
}

/** Starts a process, binds it to the files, and returns it with its answer to BIND. */
async function bound(t, files, options = {}) {
  const code = folder(t, typeof files === 'string' ? { 'index.js': files } : files);
  const shim = new Shim(t);
  const [kind, hello] = await shim.answer();
  assert.deepStrictEqual([kind, hello], [HELLO, { protocol: 1, runtime: 'node', version: VERSION }]);
  const environment = { GREETING: 'hi', B: '2' };
  const context = {
    memory_limit_in_mb: 128, time_limit_in_ms: 3000, function_name: 'f', function_version: '$LATEST', namespace: 'default',
    tencentcloud_region: 'local', tencentcloud_appid: '1', tencentcloud_uin: '2', environ: environment,
  };
  shim.stream.write(frame(BIND, Buffer.from(JSON.stringify({
    handler: 'index.main_handler', code, environment, context, result_bytes_max: 6291456, template: false, entropy: 'ab'.repeat(32),
    ...options,
  }))));
  return [shim, await shim.answer(), code];
}

async function ready(t, files, options) {
  const [shim, [kind, answer]] = await bound(t, files, options);
  assert.strictEqual(kind, READY, JSON.stringify(answer));
  assert.strictEqual(answer.fork, null);
  assert.ok(Number.isInteger(answer.init_us) && answer.init_us > 0);
  return shim;
}

async function assertEnds(shim) {
  assert.strictEqual(await shim.receive(), null);
  await shim.exited;
}

function assertFails([kind, answer], statusCode, errorType) {
  assert.deepStrictEqual([kind, answer.statusCode], [ERROR, statusCode], JSON.stringify(answer));
  if (errorType) assert.strictEqual(answer.errorType, errorType);
  assert.ok(!JSON.stringify(answer).includes('bootstrap.js'), answer.stackTrace);
  assert.ok(!answer.stackTrace.includes('node:internal'), answer.stackTrace);
  return answer;
}

test('echo, state, context', async (t) => {
  const shim = await ready(t, `let calls = 0;
    exports.main_handler = async (event, context) => ({ event, calls: ++calls, context, aws: context.awsRequestId,
      memory: context.memoryLimitInMB, left: context.getRemainingTimeInMillis(), arn: context.invokedFunctionArn });`);
  const [kind, first] = await shim.invoke({ a: [1, null, 'ü€😀'] }, { request_id: 'r-1' });
  assert.strictEqual(kind, RESULT);
  assert.deepStrictEqual(first.event, { a: [1, null, 'ü€😀'] });
  assert.deepStrictEqual(first.context, {
    memory_limit_in_mb: 128, time_limit_in_ms: 3000, request_id: 'r-1', environment: '{"GREETING":"hi","B":"2"}',
    environ: 'GREETING=hi;B=2', function_version: '$LATEST', function_name: 'f', namespace: 'default', tencentcloud_region: 'local',
    tencentcloud_appid: '1', tencentcloud_uin: '2', callbackWaitsForEmptyEventLoop: true,
  });
  assert.deepStrictEqual([first.aws, first.memory, first.arn], ['r-1', 128, 'qcs::scf:local:uin/2:namespace/default/function/f']);
  assert.ok(first.left > 0 && first.left <= 3000);
  assert.strictEqual((await shim.invoke(1, { request_id: 'r-2' }))[1].calls, 2);
});

test('every way to answer', async (t) => {
  const shim = await ready(t, `const ways = {
      callback: (e, c, cb) => cb(null, 1), later: (e, c, cb) => { setTimeout(() => cb(null, 2), 5); }, done: (e, c) => c.done(null, 3),
      succeed: (e, c) => { setImmediate(() => c.succeed(4)); }, value: () => 5, promise: () => Promise.resolve(6),
      twice: (e, c, cb) => { cb(null, 7); cb(null, 70); }, nothing: () => {}, asyncNothing: async () => {},
      never: (e, c, cb) => {}, work: async () => { await new Promise((r) => setTimeout(r, 5)); return 8; },
      pending: (e, c, cb) => { c.callbackWaitsForEmptyEventLoop = false; setTimeout(() => {}, 60000).ref(); cb(null, 9); },
    };
    exports.main_handler = (event, context, callback) => ways[event](event, context, callback);
    exports.short = (event) => event;`);
  const expected = {
    callback: 1, later: 2, done: 3, succeed: 4, promise: 6, twice: 7, nothing: null, asyncNothing: null, never: null, work: 8, pending: 9,
  };
  for (const [way, value] of Object.entries(expected)) assert.deepStrictEqual(await shim.invoke(way), [RESULT, value], way);
  const short = await ready(t, 'exports.short = (event) => event;', { handler: 'index.short' });
  assert.deepStrictEqual(await short.invoke([5]), [RESULT, [5]]);
});

test('every way to fail keeps the instance', async (t) => {
  const shim = await ready(t, `const ways = {
      throws: () => { throw new TypeError('bad'); }, rejects: async () => { throw new RangeError('late'); },
      callback: (e, c, cb) => cb(new SyntaxError('called')), string: () => { throw 'just text'; }, fail: (e, c) => c.fail(new Error('failed')),
      nullish: () => { throw null; }, object: async () => { throw { code: 7 }; },
      odd: () => { throw { get stack() { throw 1; }, get name() { throw 2; } }; }, deep: function deep() { deep(); },
      cause: () => { throw new Error('outer', { cause: new Error('inner') }); }, long: () => { throw new Error('x'.repeat(1e6)); },
      fine: () => 'fine',
    };
    exports.main_handler = (event, context, callback) => {
      const result = ways[event](event, context, callback);
      if (event === 'fine') callback(null, result); else return result;
    };`);
  const expected = {
    throws: 'TypeError', rejects: 'RangeError', callback: 'SyntaxError', string: 'string', fail: 'Error', nullish: 'object', object: 'Object',
    odd: 'Error', deep: 'RangeError', cause: 'Error', long: 'Error',
  };
  for (const [way, type] of Object.entries(expected)) {
    const answer = assertFails(await shim.invoke(way), 430, type);
    assert.ok(answer.errorMessage.length < 10000);
    if (['throws', 'rejects', 'cause', 'deep'].includes(way)) assert.match(answer.stackTrace, /at .*index\.js:\d+/);
    if (way === 'cause') assert.match(answer.stackTrace, /Caused by: Error: inner/);
    if (way === 'string') assert.strictEqual(answer.errorMessage, 'just text');
  }
  assert.deepStrictEqual(await shim.invoke('fine'), [RESULT, 'fine']);
});

test('values that JSON cannot express', async (t) => {
  const shim = await ready(t, `const loop = {}; loop.loop = loop;
    const values = { big: 1n, loop, thrown: { toJSON() { throw new Error('no'); } }, nothing: undefined, code: () => 1, nan: NaN, half: '\\ud83d' };
    exports.main_handler = async (event) => values[event];`);
  for (const [name, word] of [['big', 'BigInt'], ['loop', 'circular'], ['thrown', 'no']]) {
    const answer = assertFails(await shim.invoke(name), 430);
    assert.match(answer.errorMessage, /cannot be expressed in JSON/);
    assert.ok(answer.errorMessage.includes(word));
  }
  for (const [name, value] of [['nothing', null], ['code', null], ['nan', null], ['half', '\ud83d']]) {
    assert.deepStrictEqual(await shim.invoke(name), [RESULT, value], name);
  }
});

test('oversized results', async (t) => {
  const shim = await ready(t, "exports.main_handler = async (n) => 'é'.repeat(n);", { result_bytes_max: 1000 });
  assert.deepStrictEqual(await shim.invoke(499), [RESULT, 'é'.repeat(499)]);
  assert.match(assertFails(await shim.invoke(500), 407).errorMessage, /1002/);
  assert.deepStrictEqual(await shim.invoke(1), [RESULT, 'é']);
});

test('large events and results', async (t) => {
  const shim = await ready(t, 'exports.main_handler = async (event) => event;', { result_bytes_max: 16 << 20 });
  const event = Array(6000).fill('x'.repeat(1024));
  assert.deepStrictEqual(await shim.invoke(event), [RESULT, event]);
  // Around the size of the buffer.
  for (let size = 65400; size < 65600; size += 7) assert.strictEqual((await shim.invoke('y'.repeat(size)))[1].length, size);
  assert.deepStrictEqual(await shim.invoke(0), [RESULT, 0]);
});

test('split frames', async (t) => {
  const shim = await ready(t, 'exports.main_handler = async (event) => event;');
  shim.stream.setNoDelay?.(true);
  for (const byte of frame(INVOKE, invocation('split'))) {
    shim.stream.write(Buffer.from([byte]));
    await new Promise(setImmediate);
  }
  assert.deepStrictEqual(await shim.answer(), [RESULT, 'split']);
});

test('joined frames', async (t) => {
  const code = folder(t, { 'index.mjs': 'export async function main_handler(event) { return event; }' });
  const shim = new Shim(t);
  await shim.answer();
  const bind = Buffer.from(JSON.stringify({ handler: 'index.main_handler', code, environment: {}, context: {}, result_bytes_max: 1000 }));
  shim.stream.write(Buffer.concat([frame(BIND, bind), frame(INVOKE, invocation('joined'))]));
  assert.strictEqual((await shim.answer())[0], READY);
  assert.deepStrictEqual(await shim.answer(), [RESULT, 'joined']);
});

test('broken frames end the instance', async (t) => {
  const size = Buffer.from([0, 0, 0, 2, INVOKE, 0, 0, 0]);
  for (const header of [size, Buffer.from([4, 0, 0, 0, 0x77, 0, 0, 0]), Buffer.from([4, 0, 0, 0, INVOKE, 0, 1, 0]),
    Buffer.from([4, 0, 0, 0, BIND, 0, 0, 0])]) {
    const shim = await ready(t, 'exports.main_handler = async (event) => event;');
    shim.stream.write(Buffer.concat([header, Buffer.alloc(4)]));
    await assertEnds(shim);
  }
});

test('errors outside the handler end the instance with 430', async (t) => {
  for (const [source, type] of [
    ["setTimeout(() => { throw new TypeError('timer'); }, 1); return new Promise((r) => setTimeout(r, 60000));", 'TypeError'],
    ["Promise.reject(new RangeError('lost')); return new Promise((r) => setTimeout(r, 60000));", 'RangeError'],
  ]) {
    const shim = await ready(t, `exports.main_handler = (event) => { ${source} };`);
    assert.match(assertFails(await shim.invoke(), 430, type).stackTrace, /index\.js/);
    await assertEnds(shim);
  }
});

test('a promise that can never settle is told', async (t) => {
  const shim = await ready(t, 'exports.main_handler = (event) => event ? new Promise(() => {}) : Promise.resolve(1);');
  assertFails(await shim.invoke(1), 430, 'UnsettledPromise');
  assert.deepStrictEqual(await shim.invoke(0), [RESULT, 1]);
});

test('process.exit ends the process after its output', async (t) => {
  const shim = await ready(t, "exports.main_handler = async () => { console.log('bye'); process.stdout.write('now'); process.exit(3); };");
  shim.stream.write(frame(INVOKE, invocation()));
  await assertEnds(shim);
  assert.match(shim.log, /^\S+\treq-1\tbye\nnow$/);
});

test('an error between invocations ends the process', async (t) => {
  const shim = await ready(t, "exports.main_handler = async () => { setTimeout(() => { throw new Error('after'); }, 1); return 1; };");
  assert.deepStrictEqual(await shim.invoke(), [RESULT, 1]);
  await assertEnds(shim);
  assert.match(shim.log, /Error: after/);
});

test('the end of the stream ends the process', async (t) => {
  const shim = await ready(t, 'setInterval(() => {}, 1000); exports.main_handler = async () => 1;');
  shim.stream.end();
  await shim.exited;
});

test('what was printed is in the pipe before the answer', async (t) => {
  const code = folder(t, { 'index.js': `exports.main_handler = async (event) => {
      console.log('log %s', event, { a: 1 }); console.error('err'); process.stdout.write('raw\\n'); console.table([[1]]); return 'x'.repeat(10);
    };` });
  // The peer reads fd 3 first and only then looks, without waiting, at what the pipe holds.
  const script = `
import json, os, select, socket, struct, subprocess, sys
here, theirs = socket.socketpair()
log, log_theirs = os.pipe()
child = subprocess.Popen(['sh', '-c', 'exec "$@" 3<&%d' % theirs.fileno(), 'sh', sys.argv[1], sys.argv[2]], stdin=subprocess.DEVNULL,
                         stdout=log_theirs, stderr=log_theirs, pass_fds=[theirs.fileno()])
theirs.close()
def receive():
    head = here.recv(8, socket.MSG_WAITALL)
    return here.recv(struct.unpack('<I', head[:4])[0], socket.MSG_WAITALL)
def send(kind, data):
    here.sendall(struct.pack('<II', len(data), kind) + data)
receive()
send(1, json.dumps({'handler': 'index.main_handler', 'code': sys.argv[3], 'environment': {}, 'context': {}, 'result_bytes_max': 1000}).encode())
receive()
meta = json.dumps({'request_id': 'r', 'deadline_ms': 1, 'trigger': None}).encode()
for i in range(50):
    send(2, struct.pack('<I', len(meta)) + meta + str(i).encode())
    receive()
    text = os.read(log, 65536).decode() if select.select([log], [], [], 0)[0] else ''
    assert 'log %d { a: 1 }' % i in text and 'r\\terr' in text and 'raw' in text and '\\u2514' in text, repr(text)
here.close()
child.wait(30)
print('fine')
`;
  const output = execFileSync('python3', ['-c', script, NODE, path.join(__dirname, 'bootstrap.js'), code]);
  assert.strictEqual(output.toString(), 'fine\n');
});

test('a flood of output arrives whole', async (t) => {
  const shim = await ready(t, `process.stdout.write('');
    exports.main_handler = async () => { for (let i = 0; i < 3000; i++) console.log('x'.repeat(200)); process.stdout.write('y'.repeat(300000)); return 1; };`);
  assert.deepStrictEqual(await shim.invoke(), [RESULT, 1]);
  shim.stream.end();
  await shim.exited;
  assert.strictEqual(shim.log.split('\n').length, 3001);
  assert.strictEqual(shim.log.split('\n')[3000].length, 300000);
});

test('the environment is replaced', async (t) => {
  const shim = await ready(t, `exports.main_handler = async () => [process.env, new Date(0).getHours(), process.cwd() === __dirname,
      require('child_process').execFileSync('/usr/bin/env').toString().split('\\n').filter(Boolean).sort()];`,
  { environment: { A: 'ü', TZ: 'Asia/Shanghai' } });
  const expected = { A: 'ü', TZ: 'Asia/Shanghai', TRIGGER_SRC: 'timer' };
  const [, [env, hours, inCode, real]] = await shim.invoke(0, { trigger: 'timer' });
  assert.deepStrictEqual([env, hours, inCode], [expected, 8, true]);
  assert.deepStrictEqual(real, ['A=ü', 'TRIGGER_SRC=timer', 'TZ=Asia/Shanghai']);
  assert.ok(!('TRIGGER_SRC' in (await shim.invoke(0))[1][0]));
});

test('NODE_PATH', async (t) => {
  const layer = folder(t, { 'shared/index.js': 'exports.value = 41;' });
  const shim = await ready(t, "exports.main_handler = async () => [require('shared').value, process.env.NODE_PATH];", { environment: { NODE_PATH: layer } });
  assert.deepStrictEqual(await shim.invoke(), [RESULT, [41, layer]]);
});

test('ECMAScript modules and other file names', async (t) => {
  const handler = 'export const main_handler = async (event) => [event, import.meta.url.slice(-9)];';
  assert.deepStrictEqual(await (await ready(t, { 'index.mjs': handler })).invoke(1), [RESULT, [1, 'index.mjs']]);
  const typed = await ready(t, { 'index.js': handler, 'package.json': '{"type":"module"}' });
  assert.deepStrictEqual(await typed.invoke(2), [RESULT, [2, '/index.js']]);
  const byDefault = await ready(t, { 'index.mjs': 'export default { main_handler: async () => 3 };' });
  assert.deepStrictEqual(await byDefault.invoke(), [RESULT, 3]);
  for (const [file, name] of [['index.cjs', 'index.run'], ['src/app.js', 'src/app.run'], ['a.b.js', 'a.b.run'], ['lib/index.js', 'lib.run']]) {
    const shim = await ready(t, { [file]: 'exports.run = async () => __filename.slice(-4);' }, { handler: name });
    assert.strictEqual((await shim.invoke())[0], RESULT, name);
  }
  const nested = await ready(t, 'exports.a = { value: 4, run() { return this.value; } };', { handler: 'index.a.run' });
  assert.deepStrictEqual(await nested.invoke(), [RESULT, 4]);
});

test('a handler that is not there', async (t) => {
  for (const handler of ['gone.main_handler', 'index.gone', 'index.number', 'main_handler', '../index.main_handler', 'index.', '.main_handler',
    '/etc/index.f', 'a..b', 'in\0dex.main_handler', '']) {
    const [shim, answer] = await bound(t, 'exports.number = 1; exports.main_handler = () => {};', { handler });
    assertFails(answer, 437, 'HandlerNotFound');
    await assertEnds(shim);
  }
});

test('code that cannot be loaded', async (t) => {
  for (const [files, type, word] of [
    ["require('gone-for-good');", 'Error', /gone-for-good/],
    ['let x = ;', 'SyntaxError', /index\.js:1\nlet x = ;/],
    ['function f() { throw new TypeError("at import"); }\nf();', 'TypeError', /index\.js:1:\d+/],
    [{ 'index.mjs': 'export const x = ;' }, 'SyntaxError', /SyntaxError/],
    [{ 'index.mjs': 'await new Promise(() => {});' }, 'Error', null],
    ['Promise.reject(new RangeError("lost")); exports.gone = 1; require("fs").readFileSync("/gone");', 'Error', /ENOENT/],
  ]) {
    const [shim, answer] = await bound(t, files);
    const told = assertFails(answer, 443, type);
    if (word !== null) assert.match(told.stackTrace, word);
    await assertEnds(shim);
  }
  const [shim, nothing] = await bound(t, 'process.exit(0);');
  assert.strictEqual(nothing, null);
  await shim.exited;
});

test('a broken BIND is an init error', async (t) => {
  const [shim, answer] = await bound(t, '', { code: '/nowhere/at/all' });
  assertFails(answer, 445);
  await assertEnds(shim);
});

test('garbage does not fill a small instance', async (t) => {
  const source = `let live = [];
    exports.main_handler = async () => {
      for (let i = 0; i < 100; i++) {
        const part = [];
        for (let j = 0; j < 20000; j++) part.push({ a: j, b: 'x' + j });
        live[i % 5] = part;
      }
      return process.memoryUsage().rss / 1048576;
    };`;
  const memory = async (mb) => (await (await ready(t, source, { context: { memory_limit_in_mb: mb } })).invoke())[1];
  const small = await memory(128);
  const large = await memory(3072);
  assert.ok(small < 100 && small < large, `${small} MB where memory is small, ${large} MB where it is not`);
});
