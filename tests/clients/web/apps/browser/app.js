// What a page needs of a server: forms, uploads, server-sent events, a WebSocket, cookies, a download. All links are relative.
const express = require('express');
const multer = require('multer');
const crypto = require('node:crypto');
const { WebSocketServer } = require('ws');

const app = express();
const sum = (data) => crypto.createHash('sha256').update(data).digest('hex');
const escape = (text) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
let resumed = [];

app.use(express.static('public'));
app.use(express.urlencoded({ extended: false }));

app.post('/guests', (req, res) => {
  res.cookie('guest', req.body.name, { httpOnly: true, sameSite: 'strict', maxAge: 60_000 });
  res.redirect(303, `guest?from=${encodeURIComponent(req.body.from)}`);
});

app.get('/guest', (req, res) => {
  const cookie = /(?:^|; )guest=([^;]*)/.exec(req.headers.cookie ?? '');
  res.send(`<!doctype html><link rel="icon" href="data:,"><h1>Welcome ${escape(decodeURIComponent(cookie?.[1] ?? 'nobody'))}</h1><p>from ${escape(req.query.from)}</p><a href="./">back</a>`);
});

app.post('/files', multer({ storage: multer.memoryStorage() }).array('files'), (req, res) => {
  res.json({ note: req.body.note, files: req.files.map((f) => ({ name: f.originalname, type: f.mimetype, n: f.size, sha256: sum(f.buffer) })) });
});

// Ten events, the connection cut after the fifth: a browser comes back by itself and says where it was.
app.get('/events', (req, res) => {
  const last = req.headers['last-event-id'];
  resumed.push(last ?? null);
  let n = last === undefined ? 0 : Number(last) + 1;
  res.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  res.write('retry: 50\n\n');
  const timer = setInterval(() => {
    res.write(`id: ${n}\nevent: tick\ndata: ${JSON.stringify({ n })}\n\n`);
    n += 1;
    if (n === 5) res.end();
  }, 20);
  res.on('close', () => clearInterval(timer));
});
app.get('/resumed', (req, res) => res.json(resumed));

app.get('/report', (req, res) => {
  res.attachment('Bericht für 2026.csv');
  for (let n = 0; n < 50_000; n += 1) res.write(`${n},${n * n}\n`);
  res.end();
});

const server = app.listen(process.env.PORT);
const sockets = new WebSocketServer({ server, path: '/echo' });
sockets.on('connection', (ws, req) => {
  ws.send(JSON.stringify({ cookie: req.headers.cookie ?? '' }));
  ws.on('message', (data, isBinary) => ws.send(data, { binary: isBinary }));
});
