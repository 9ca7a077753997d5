'use strict';
// One instance: loads the user's handler and answers invocations on fd 3. See docs/runtime-protocol.md.

const fs = require('fs');
const net = require('net');
const path = require('path');
const { performance } = require('perf_hooks');

const STREAM_FD = 3;
const BIND = 0x01;
const INVOKE = 0x02;
const HELLO = 0x81;
const READY = 0x82;
const ERROR = 0x83;
const RESULT = 0x84;
const HEADER_BYTES = 8;
const PAYLOAD_BYTES_MAX = 16 * 1024 * 1024;
const BUFFER_BYTES = 64 * 1024;

const NOT_FOUND = 437;
const LOAD_FAILED = 443;
const INIT_FAILED = 445;
const USER_EXCEPTION = 430;
const RESULT_TOO_LARGE = 407;
const MESSAGE_CHARS_MAX = 8192;
const STACK_CHARS_MAX = 32768;

// Kept apart from what user code may put in their places.
const writeSync = fs.writeSync;
const closeSync = fs.closeSync;
const exitNow = process.reallyExit.bind(process);
const parse = JSON.parse;
const stringify = JSON.stringify;
const now = Date.now;

// --- writing ---------------------------------------------------------------------------------------------------------

const pauseCell = new Int32Array(new SharedArrayBuffer(4));

/** Writes all of `buffer[from, to)` to `fd`, waiting where the reader is slow. Throws when the reader is gone. */
function writeAll(fd, buffer, from, to) {
  while (from < to) {
    try {
      from += writeSync(fd, buffer, from, to - from);
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
      // Whoever shares the pipe (a child process of user code) may have made it non-blocking.
      Atomics.wait(pauseCell, 0, 0, 1);
    }
  }
}

const outgoing = Buffer.allocUnsafeSlow(BUFFER_BYTES);

/** Sends one frame. `text` is the payload; `last` says that the process ends after it. */
function send(kind, text, last = false) {
  let frame = outgoing;
  let size;
  if (text.length * 3 <= BUFFER_BYTES - HEADER_BYTES) {
    size = frame.write(text, HEADER_BYTES, 'utf8');
  } else {
    size = Buffer.byteLength(text);
    frame = Buffer.allocUnsafeSlow(HEADER_BYTES + size);
    frame.write(text, HEADER_BYTES, 'utf8');
  }
  frame.writeUInt32LE(size, 0);
  frame.writeUInt32LE(kind, 4);
  const end = HEADER_BYTES + size;
  let done = 0;
  try {
    if (last) {
      writeAll(STREAM_FD, frame, 0, end);
      return;
    }
    // Mostly the kernel takes all of it at once, and the event loop need not be asked.
    done = writeSync(STREAM_FD, frame, 0, end);
  } catch (error) {
    if (error.code !== 'EAGAIN') exitNow(0);
  }
  if (done < end) stream.write(frame === outgoing ? Buffer.from(frame.subarray(done, end)) : frame.subarray(done, end));
}

/** Sends an ERROR frame and ends the process. The stream is closed first: the node must not send it anything more. */
function failAndExit(failure) {
  try {
    send(ERROR, stringify(failure), true);
    closeSync(STREAM_FD);
  } finally {
    exitNow(1);
  }
}

// --- telling failures ------------------------------------------------------------------------------------------------

function clip(text, charsMax) {
  if (text.length <= charsMax) return text;
  const half = charsMax >> 1;
  return `${text.slice(0, half)}\n… ${text.length - 2 * half} characters left out …\n${text.slice(-half)}`;
}

function failureOf(statusCode, errorType, errorMessage, stackTrace = '') {
  return {
    statusCode,
    errorType: clip(String(errorType), 256),
    errorMessage: clip(String(errorMessage), MESSAGE_CHARS_MAX),
    stackTrace: clip(String(stackTrace), STACK_CHARS_MAX),
  };
}

/** The lines of a stack that are the user's. */
function userStack(stack) {
  return stack
    .split('\n')
    .filter((line) => !/^\s+at /.test(line) || !(line.includes('node:internal/') || line.includes(__filename)))
    .join('\n');
}

/** Tells whatever user code threw; getters and `toString` of it may throw in turn. */
function failureOfThrown(statusCode, thrown) {
  try {
    if (thrown instanceof Error || (typeof thrown === 'object' && thrown !== null && typeof thrown.stack === 'string')) {
      let stack = typeof thrown.stack === 'string' ? userStack(thrown.stack) : '';
      let cause = thrown.cause;
      for (let depth = 0; depth < 5 && cause instanceof Error; depth += 1) {
        stack += `\nCaused by: ${userStack(String(cause.stack))}`;
        cause = cause.cause;
      }
      return failureOf(statusCode, thrown.name || 'Error', thrown.message, stack);
    }
    const text = typeof thrown === 'string' ? thrown : require('util').inspect(thrown);
    const type = thrown === null || typeof thrown !== 'object' ? typeof thrown : (thrown.constructor || Object).name;
    return failureOf(statusCode, type, text, `Thrown: ${text}`);
  } catch (_) {
    return failureOf(statusCode, 'Error', 'what was thrown cannot be shown');
  }
}

// --- output ---------------------------------------------------------------------------------------------------------

/** The invocation that is running, or null. */
let current = null;

/**
 * Replaces `process.stdout` and `process.stderr` by streams that have written when `write` returns. Node's own keep in
 * memory what a full pipe does not take, and an answer or the end of the process would overtake it.
 */
function replaceStreams() {
  for (const [name, fd] of [['stdout', 1], ['stderr', 2]]) {
    let made = null;
    const make = () => {
      const { Writable } = require('stream');
      made = new Writable({
        autoDestroy: false,
        write(chunk, encoding, done) {
          try {
            writeAll(fd, chunk, 0, chunk.length);
          } catch (error) {
            done(error);
            return;
          }
          done();
        },
      });
      made.fd = fd;
      made._type = 'pipe';
      made._isStdio = true;
      made.on('error', () => {});
      return made;
    };
    Object.defineProperty(process, name, { configurable: true, enumerable: true, get: () => made || make() });
  }
}

/** Points every method of the global console at fds 1 and 2, at once and with SCF's line prefix. */
function replaceConsole() {
  const sink = (fd) => ({
    write(text) {
      const line = current === null ? text : `${new Date().toISOString()}\t${current.requestId}\t${text}`;
      const bytes = Buffer.from(line);
      try {
        writeAll(fd, bytes, 0, bytes.length);
      } catch (_) {
        // Nobody reads the log any more; that is no reason to fail the user's code.
      }
    },
    on() {},
    once() {},
    removeListener() {},
    listenerCount: () => 0,
  });
  const own = new console.Console({ stdout: sink(1), stderr: sink(2), ignoreErrors: false });
  for (const name of Object.keys(own)) {
    if (typeof own[name] === 'function' && typeof console[name] === 'function') console[name] = own[name];
  }
}

// --- loading ---------------------------------------------------------------------------------------------------------

class NotFound extends Error {}

function isFile(file) {
  const status = fs.statSync(file, { throwIfNoEntry: false });
  return status !== undefined && status.isFile();
}

function fileOf(base) {
  for (const end of ['.js', '.cjs', '.mjs', '/index.js', '/index.cjs', '/index.mjs']) {
    try {
      if (isFile(base + end)) return base + end;
    } catch (_) {
      // Not a folder, not allowed, or no such name can exist.
    }
  }
  return null;
}

/** The file and the property names that `dir/file.function` means. */
function locate(handler, code) {
  const slash = handler.lastIndexOf('/') + 1;
  const folder = handler.slice(0, slash);
  const names = handler.slice(slash).split('.');
  if (names.length < 2 || names.includes('') || handler.includes('\0')) {
    throw new NotFound(`the handler \`${handler}\` is not of the form file.function`);
  }
  if (folder.startsWith('/') || folder.split('/').includes('..')) {
    throw new NotFound(`the handler \`${handler}\` leads out of the package`);
  }
  // `a.b.main` is the function main of a.b.js, or the property b.main of a.js.
  for (let count = names.length - 1; count > 0; count -= 1) {
    const file = fileOf(path.join(code, folder, names.slice(0, count).join('.')));
    if (file !== null) return { file, properties: names.slice(count) };
  }
  throw new NotFound(`the package has no file \`${folder}${names.slice(0, -1).join('.')}.js\``);
}

/** Whether Node would read `file` as an ECMAScript module. */
function isModule(file) {
  if (file.endsWith('.mjs')) return true;
  if (file.endsWith('.cjs')) return false;
  for (let folder = path.dirname(file); ; folder = path.dirname(folder)) {
    const manifest = path.join(folder, 'package.json');
    if (isFile(manifest)) {
      try {
        return parse(fs.readFileSync(manifest, 'utf8')).type === 'module';
      } catch (_) {
        return false;
      }
    }
    if (folder === path.dirname(folder)) return false;
  }
}

async function importModule(file) {
  return import(require('url').pathToFileURL(file).href);
}

/** The handler in what its file exports. */
function pick(exported, properties, file) {
  const roots = [exported];
  if (exported !== null && typeof exported === 'object' && exported.default) roots.push(exported.default);
  for (const root of roots) {
    let value = root;
    let owner;
    for (const name of properties) {
      owner = value;
      value = value === null || value === undefined ? undefined : value[name];
    }
    if (typeof value === 'function') return owner === root ? value : value.bind(owner);
  }
  throw new NotFound(`\`${path.basename(file)}\` exports no function \`${properties.join('.')}\``);
}

function replaceEnvironment(environment) {
  for (const key of Object.keys(process.env)) delete process.env[key];
  for (const key of Object.keys(environment)) process.env[key] = environment[key];
  // Packages in layers are found whatever NODE_PATH says; the variable itself stays as the node gave it.
  const given = environment.NODE_PATH;
  const folders = (given || '').split(':').filter(Boolean);
  for (const folder of ['/var/user/node_modules', '/opt', '/opt/node_modules', '/opt/nodejs/node_modules']) {
    if (!folders.includes(folder)) folders.push(folder);
  }
  process.env.NODE_PATH = folders.join(':');
  require('module')._initPaths();
  if (given === undefined) delete process.env.NODE_PATH;
  else process.env.NODE_PATH = given;
}

/**
 * Makes V8 collect earlier where memory is small. Its own limit cannot be set once it runs, and need not be: a function
 * that outgrows its memory is ended by the kernel, which the node reports as MemoryLimitReached (434), not as a crash. But
 * without these, garbage alone could bring a small instance there: 100 MB of it at 15 MB of live objects was measured.
 */
function tuneHeap(memoryMb) {
  if (!(memoryMb > 0 && memoryMb <= 1024)) return;
  const v8 = require('v8');
  v8.setFlagsFromString('--heap-growing-percent=50');
  if (memoryMb <= 128) v8.setFlagsFromString('--semi-space-growth-factor=1');
}

// --- life ------------------------------------------------------------------------------------------------------------

/** 'new' until BIND, then 'loading', then 'serving'. */
let phase = 'new';
let handler;
let resultBytesMax;
let contextBase;
let trigger = null;

async function bind(bound) {
  phase = 'loading';
  const started = performance.now();
  try {
    const environment = bound.environment || {};
    const given = bound.context || {};
    resultBytesMax = bound.result_bytes_max;
    const environ = given.environ || environment;
    contextBase = {
      memory_limit_in_mb: given.memory_limit_in_mb,
      time_limit_in_ms: given.time_limit_in_ms,
      request_id: '',
      environment: stringify(environ),
      environ: Object.keys(environ).map((key) => `${key}=${environ[key]}`).join(';'),
      function_version: given.function_version,
      function_name: given.function_name,
      namespace: given.namespace,
      tencentcloud_region: given.tencentcloud_region,
      tencentcloud_appid: given.tencentcloud_appid,
      tencentcloud_uin: given.tencentcloud_uin,
    };
    tuneHeap(given.memory_limit_in_mb);
    process.chdir(bound.code);
    replaceEnvironment(environment);
  } catch (error) {
    failAndExit(failureOf(INIT_FAILED, error.name, `the runtime could not start: ${error.message}`));
  }
  let exported;
  let place;
  try {
    place = locate(bound.handler, bound.code);
    process.argv = [process.argv[0], place.file];
    if (isModule(place.file)) {
      // Without anything left to run, an `await` at the top of a module never ends; see `beforeExit`.
      stream.unref();
      exported = await importModule(place.file);
    } else {
      exported = require('module').createRequire(place.file)(place.file);
    }
    handler = pick(exported, place.properties, place.file);
  } catch (error) {
    if (error instanceof NotFound) failAndExit(failureOf(NOT_FOUND, 'HandlerNotFound', error.message));
    failAndExit(failureOfThrown(LOAD_FAILED, error));
  }
  stream.ref();
  phase = 'serving';
  send(READY, stringify({ init_us: Math.round((performance.now() - started) * 1000), fork: null }));
  if (queued !== null) {
    const payload = queued;
    queued = null;
    invoke(payload);
  }
}

/** What the names that handlers written for AWS Lambda read stand for; not enumerable, so that SCF's context prints as SCF's. */
class Context {
  get awsRequestId() { return this.request_id; }
  get functionName() { return this.function_name; }
  get functionVersion() { return this.function_version; }
  get memoryLimitInMB() { return this.memory_limit_in_mb; }
  get logGroupName() { return process.env.AWS_LAMBDA_LOG_GROUP_NAME || ''; }
  get logStreamName() { return process.env.AWS_LAMBDA_LOG_STREAM_NAME || ''; }
  get invokedFunctionArn() {
    return `qcs::scf:${this.tencentcloud_region}:uin/${this.tencentcloud_uin}:namespace/${this.namespace}/function/${this.function_name}`;
  }
}

/** One invocation: answers once, whichever of callback, promise, context or return value comes first. */
class Invocation {
  constructor(requestId) {
    this.requestId = requestId;
    this.promised = false;
  }

  succeed(value) {
    if (current !== this) return;
    let text;
    try {
      text = stringify(value);
    } catch (error) {
      const told = failureOfThrown(USER_EXCEPTION, error);
      told.errorMessage = clip(`the return value cannot be expressed in JSON: ${told.errorMessage}`, MESSAGE_CHARS_MAX);
      this.finish(ERROR, stringify(told));
      return;
    }
    if (text === undefined) text = 'null';
    // No JSON text has more than three bytes a UTF-16 unit.
    if (text.length * 3 > resultBytesMax) {
      const size = Buffer.byteLength(text);
      if (size > resultBytesMax) {
        const message = `the return value is ${size} bytes of JSON; at most ${resultBytesMax} are allowed`;
        this.finish(ERROR, stringify(failureOf(RESULT_TOO_LARGE, 'ResponseTooLarge', message)));
        return;
      }
    }
    this.finish(RESULT, text);
  }

  fail(thrown) {
    if (current === this) this.finish(ERROR, stringify(failureOfThrown(USER_EXCEPTION, thrown)));
  }

  finish(kind, text) {
    current = null;
    stream.ref();
    send(kind, text);
  }
}

function contextOf(invocation, deadlineMs) {
  const context = Object.assign(new Context(), contextBase);
  context.request_id = invocation.requestId;
  context.callbackWaitsForEmptyEventLoop = true;
  context.getRemainingTimeInMillis = () => Math.max(0, deadlineMs - now());
  context.done = (error, value) => (error === null || error === undefined ? invocation.succeed(value) : invocation.fail(error));
  context.succeed = (value) => invocation.succeed(value);
  context.fail = (error) => invocation.fail(error);
  return context;
}

function invoke(payload) {
  const metaEnd = 4 + payload.readUInt32LE(0);
  if (metaEnd > payload.length) exitNow(1);
  const meta = parse(payload.toString('utf8', 4, metaEnd));
  if (meta.trigger !== trigger) {
    trigger = meta.trigger;
    if (trigger === null || trigger === undefined) delete process.env.TRIGGER_SRC;
    else process.env.TRIGGER_SRC = trigger;
  }
  const invocation = new Invocation(meta.request_id);
  current = invocation;
  let result;
  try {
    const event = parse(payload.toString('utf8', metaEnd, payload.length));
    const context = contextOf(invocation, meta.deadline_ms);
    result = handler(event, context, context.done);
    if (result !== null && result !== undefined && typeof result.then === 'function') {
      invocation.promised = true;
      result.then((value) => invocation.succeed(value), (error) => invocation.fail(error));
    } else if (result !== undefined && handler.length < 3) {
      invocation.succeed(result);
    }
  } catch (error) {
    invocation.fail(error);
  }
  // While the handler works, only its own timers, sockets and so on keep the event loop alive: see `beforeExit`.
  if (current === invocation) stream.unref();
}

process.on('beforeExit', () => {
  if (phase === 'loading') {
    failAndExit(failureOf(LOAD_FAILED, 'Error', 'loading the module never ends: it awaits something that nothing can bring about'));
  } else if (current !== null && current.promised) {
    const message = 'the promise of the handler is neither fulfilled nor rejected, and nothing is left that could do it';
    current.finish(ERROR, stringify(failureOf(USER_EXCEPTION, 'UnsettledPromise', message)));
  } else if (current !== null) {
    // A handler that neither returned a value nor called back, and has nothing more to do.
    current.succeed(null);
  }
});

process.on('uncaughtException', (thrown) => {
  // User code that listens itself decides itself.
  if (process.listenerCount('uncaughtException') > 1) return;
  if (phase === 'loading') failAndExit(failureOfThrown(LOAD_FAILED, thrown));
  // The state of the program is unknown from here on, so the instance ends in either case.
  if (current !== null) failAndExit(failureOfThrown(USER_EXCEPTION, thrown));
  console.error(thrown);
  exitNow(1);
});

// --- reading ---------------------------------------------------------------------------------------------------------

/** A frame that came before the module was loaded. */
let queued = null;
const head = Buffer.alloc(HEADER_BYTES);
let headBytes = 0;
/** The payload that is being collected, when a frame comes in several pieces. */
let collecting = null;
let collected = 0;

function readHeader(buffer, at) {
  const size = buffer.readUInt32LE(at);
  const kind = buffer.readUInt32LE(at + 4);
  if (size > PAYLOAD_BYTES_MAX || (kind !== BIND && kind !== INVOKE)) exitNow(1);
  return size;
}

function onBytes(count, buffer) {
  let at = 0;
  while (at < count) {
    if (collecting === null) {
      if (headBytes === 0 && count - at >= HEADER_BYTES) {
        const size = readHeader(buffer, at);
        if (count - at - HEADER_BYTES >= size) {
          // The usual case: all of it is here, and is read in place.
          const from = at + HEADER_BYTES;
          at = from + size;
          onFrame(buffer[from - 4], buffer.subarray(from, at));
          continue;
        }
      }
      const take = Math.min(HEADER_BYTES - headBytes, count - at);
      buffer.copy(head, headBytes, at, at + take);
      headBytes += take;
      at += take;
      if (headBytes < HEADER_BYTES) return;
      collecting = Buffer.allocUnsafeSlow(readHeader(head, 0));
      collected = 0;
    }
    const take = Math.min(collecting.length - collected, count - at);
    buffer.copy(collecting, collected, at, at + take);
    collected += take;
    at += take;
    if (collected === collecting.length) {
      const payload = collecting;
      collecting = null;
      headBytes = 0;
      onFrame(head[4], payload);
    }
  }
}

function onFrame(kind, payload) {
  if (kind === BIND && phase === 'new') {
    bind(parse(payload.toString('utf8', 0, payload.length)));
  } else if (kind === INVOKE && phase === 'serving' && current === null) {
    invoke(payload);
  } else if (kind === INVOKE && phase === 'loading' && queued === null) {
    queued = Buffer.from(payload);
  } else {
    exitNow(1);
  }
}

const stream = new net.Socket({
  fd: STREAM_FD,
  readable: true,
  writable: true,
  // One buffer for all reads, and no stream machinery between the kernel and us.
  onread: { buffer: Buffer.allocUnsafeSlow(BUFFER_BYTES), callback: onBytes },
});
stream.on('end', () => exitNow(0));
stream.on('close', () => exitNow(0));
stream.on('error', () => exitNow(0));

// --- ahead of need ----------------------------------------------------------------------------------------------------

/** Modules of Node that handlers commonly use, and that we do. Loaded while the process waits for BIND, one a turn. */
const ahead = ['module', 'v8', 'url', 'util', 'querystring', 'crypto', 'http', 'https', 'zlib', 'stream'];

function loadAhead() {
  if (phase !== 'new' || ahead.length === 0) return;
  require(ahead.shift());
  setImmediate(loadAhead);
}

replaceStreams();
replaceConsole();
setImmediate(loadAhead);
send(HELLO, stringify({ protocol: 1, runtime: 'node', version: process.versions.node }));
