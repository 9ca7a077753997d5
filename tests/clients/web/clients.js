'use strict';
// Cases that need a Node.js client: `node clients.js CASE URL`. Prints what is worth telling; exits with 1 and the reason when something is wrong.

const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const dns = require('node:dns');
const http = require('node:http');
const { once } = require('node:events');

// RFC 6761 lets every name below `localhost` mean this machine; Node.js leaves it to the system.
const lookup = dns.lookup;
dns.lookup = (name, options, done) => lookup(name.endsWith('.localhost') ? process.env.MAYFLY_PLATFORM_HOST : name, options, done);

const [, , name, url] = process.argv;
const socketUrl = url.replace(/^http/, 'ws');
const say = (text) => process.stdout.write(`${text}\n`);

/** Waits until `attempt` gives something true. */
async function until(what, attempt, seconds = 10) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const value = await attempt();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`not within ${seconds} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** One message that comes, or a failure if the connection ends first. */
function message(ws) {
  return new Promise((resolve, reject) => {
    ws.once('message', (data, isBinary) => resolve(isBinary ? data : data.toString()));
    ws.once('close', (code) => reject(new Error(`closed with ${code} before a message`)));
    ws.once('error', reject);
  });
}

async function open(path, ...rest) {
  const WebSocket = require('ws');
  const ws = new WebSocket(socketUrl + path, ...rest);
  ws.first = message(ws);
  ws.first.catch(() => {});
  await once(ws, 'open');
  return ws;
}

async function ask(ws, data) {
  const answer = message(ws);
  ws.send(data);
  return answer;
}

async function told() {
  return (await fetch(url)).json();
}

const cases = {
  async 'ws-echo'() {
    const ws = await open('greet?a=1', ['other', 'echo']);
    assert.equal(ws.protocol, 'echo');
    const greeting = JSON.parse(await ws.first);
    assert.equal(greeting.url, '/greet?a=1');
    assert.equal(greeting.name, 'ws');
    for (const text of ['hello', '', 'größer 中文 🦀', 'x'.repeat(125), 'x'.repeat(126), 'x'.repeat(65535), 'x'.repeat(65536)]) assert.equal(await ask(ws, text), text);
    for (const size of [0, 1 << 20, 16 << 20]) {
      const data = crypto.randomBytes(size);
      assert.ok(data.equals(await ask(ws, data)), `${size} bytes come back`);
    }
    const begun = Date.now();
    for (let n = 0; n < 500; n += 1) assert.equal(await ask(ws, `n ${n}`), `n ${n}`);
    say(`500 round trips in ${Date.now() - begun} ms; extensions: ${ws.extensions}`);
    ws.close();
    await once(ws, 'close');
  },
  async 'ws-ping'() {
    const ws = await open('');
    const pong = once(ws, 'pong');
    ws.ping('from the client');
    assert.equal((await pong)[0].toString(), 'from the client');
    const ping = once(ws, 'ping');
    ws.send('ping from-the-server');
    assert.equal((await ping)[0].toString(), 'from-the-server');
    await until('the server has its pong', async () => (await told()).pongs.includes('from-the-server'));
    ws.close();
    await once(ws, 'close');
  },
  async 'ws-close'() {
    for (const [code, reason] of [[1000, 'done'], [1001, ''], [1008, 'policy'], [1011, 'größer'], [3000, 'registered'], [4999, 'x'.repeat(123)]]) {
      const ws = await open('');
      ws.close(code, reason);
      const [got] = await once(ws, 'close');
      assert.equal(got, code);
      await until(`the server was told ${code}`, async () => (await told()).closed.includes(`${code} ${reason}`));
    }
    for (const [code, reason] of [[1000, 'bye'], [4001, 'own'], [1013, 'later']]) {
      const ws = await open('');
      ws.send(`close ${code} ${reason}`);
      const [got, why] = await once(ws, 'close');
      assert.deepEqual([got, why.toString()], [code, reason]);
    }
    // Connections that just end, on either side.
    const ended = (await told()).closed.filter((c) => c === '1006 ').length;
    const ws = await open('');
    ws.terminate();
    await until('the server noticed', async () => (await told()).closed.filter((c) => c === '1006 ').length > ended);
    const other = await open('');
    other.send('terminate');
    assert.equal((await once(other, 'close'))[0], 1006);
  },
  async 'ws-refused'() {
    const WebSocket = require('ws');
    const ws = new WebSocket(`${socketUrl}closed-door`);
    const [request, response] = await once(ws, 'unexpected-response');
    assert.equal(response.statusCode, 401);
    assert.equal(response.headers['www-authenticate'], 'Basic');
    let body = '';
    for await (const part of response) body += part;
    assert.equal(body, 'no: ');
    request.destroy();
  },
  async 'ws-many'() {
    const all = await Promise.all(Array.from({ length: 60 }, () => open('')));
    for (let round = 0; round < 5; round += 1) {
      const answers = await Promise.all(all.map((ws, n) => ask(ws, `${round} ${n}`)));
      answers.forEach((answer, n) => assert.equal(answer, `${round} ${n}`));
    }
    for (const ws of all) ws.close();
    await Promise.all(all.map((ws) => once(ws, 'close')));
    say('60 connections');
  },
  async 'socketio-polling'() {
    await socketio(['polling'], 'polling');
  },
  async 'socketio-websocket'() {
    await socketio(['websocket'], 'websocket');
  },
  async 'socketio-upgrade'() {
    await socketio(['polling', 'websocket'], 'websocket');
  },
  async 'abort'() {
    // An upload and a download that the client leaves in the middle.
    const before = (await (await fetch(`${url}aborted`)).json());
    const agent = new http.Agent();
    const get = http.get(`${url}bytes?n=${1 << 30}`, { agent });
    const [response] = await once(get, 'response');
    let seen = 0;
    for await (const part of response) {
      seen += part.length;
      if (seen > 1 << 20) break;
    }
    get.destroy();
    await until('the server noticed that nobody reads', async () => (await (await fetch(`${url}aborted`)).json()).downloads > before.downloads);
    const post = http.request(`${url}sum`, { method: 'POST', agent, headers: { 'content-length': 1 << 30 } });
    post.on('error', () => {});
    post.write(Buffer.alloc(1 << 20));
    await new Promise((resolve) => setTimeout(resolve, 300));
    post.destroy();
    await until('the server noticed that nothing more comes', async () => (await (await fetch(`${url}aborted`)).json()).uploads > before.uploads);
  },
};

async function socketio(transports, wanted) {
  const { io } = require('socket.io-client');
  const at = new URL(url);
  const socket = io(at.origin, { path: `${at.pathname}socket.io`, transports, reconnection: false, forceNew: true });
  const failed = new Promise((_, reject) => {
    socket.once('connect_error', reject);
    socket.once('disconnect', (why) => reject(new Error(`disconnected: ${why}`)));
  });
  failed.catch(() => {});
  const sure = (promise) => Promise.race([promise, failed]);
  await sure(once(socket, 'connect'));
  await sure(until(`the transport is ${wanted}`, () => socket.io.engine.transport.name === wanted));
  assert.equal(await sure(socket.timeout(5000).emitWithAck('hello', 'world')), 'got it: world');
  const data = crypto.randomBytes(300000);
  assert.ok(data.equals(Buffer.from(await sure(socket.timeout(5000).emitWithAck('binary', data)))));
  const chat = once(socket, 'chat message');
  socket.emit('chat message', 'to all');
  assert.equal((await sure(chat))[0], 'to all');
  for (let n = 0; n < 50; n += 1) assert.equal(await sure(socket.timeout(5000).emitWithAck('hello', n)), `got it: ${n}`);
  say(`${socket.io.engine.transport.name}, 50 acknowledged`);
  socket.disconnect();
}

cases[name]().then(() => process.exit(0), (error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exit(1);
});
