// The `ws` package's echo server, sharing an HTTP server as its README shows.
const { createServer } = require('node:http');
const { WebSocketServer } = require('ws');

const closed = [];
const pongs = [];
const server = createServer((req, res) => res.setHeader('content-type', 'application/json').end(JSON.stringify({ closed, pongs })));
const wss = new WebSocketServer({ noServer: true, perMessageDeflate: true, handleProtocols: (wanted) => (wanted.has('echo') ? 'echo' : false) });

wss.on('connection', (ws, req) => {
  ws.on('error', (error) => closed.push(`error ${error.code}`));
  ws.on('close', (code, reason) => closed.push(`${code} ${reason}`));
  ws.on('pong', (data) => pongs.push(data.toString()));
  ws.on('message', (data, isBinary) => {
    const text = isBinary ? '' : data.toString();
    if (text.startsWith('close ')) ws.close(Number(text.split(' ')[1]), text.split(' ')[2]);
    else if (text === 'terminate') ws.terminate();
    else if (text.startsWith('ping ')) ws.ping(text.slice(5));
    else ws.send(data, { binary: isBinary });
  });
  if (req.url.startsWith('/greet')) ws.send(JSON.stringify({ url: req.url, name: req.headers['x-scf-name'] }));
});

server.on('upgrade', (req, socket, head) => {
  if (req.url.startsWith('/closed-door')) {
    socket.end('HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\nWWW-Authenticate: Basic\r\nConnection: close\r\n\r\nno: ');
    return;
  }
  wss.handleUpgrade(req, socket, head, (ws) => wss.emit('connection', ws, req));
});

server.listen(9000);
