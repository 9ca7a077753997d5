// An ordinary server: nothing in here knows of Mayfly. It also runs with `node server.js`.
const http = require('node:http');
const os = require('node:os');

const page = `<!doctype html><meta charset="utf-8"><title>Mayfly</title>
<h1>A service that is there while somebody needs it</h1>
<form method="post" action="greet"><input name="who" placeholder="your name"><button>greet</button></form>
<pre id="clock"></pre>
<script>new EventSource('clock').onmessage = e => document.getElementById('clock').textContent = e.data</script>
`;

const escape = text => text.replace(/[&<>"']/g, c => `&#${c.charCodeAt(0)};`);

const pages = {
  'GET /': (request, response) => response.setHeader('content-type', 'text/html').end(page),
  'POST /greet': (request, response) => {
    let body = '';
    request.on('data', chunk => {
      body += chunk;
      if (body.length > 10_000) request.destroy();
    });
    request.on('end', () => {
      const who = new URLSearchParams(body).get('who') || 'stranger';
      response.setHeader('content-type', 'text/html; charset=utf-8').end(`<p>Hello, ${escape(who)}!</p>\n`);
    });
  },
  'GET /clock': (request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
    const tick = () => response.write(`data: ${new Date().toISOString()} from ${os.hostname()}\n\n`);
    tick();
    const timer = setInterval(tick, 1000);
    response.on('close', () => clearInterval(timer));
  },
  'GET /download': (request, response) => {
    let left = 100;
    response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-disposition': 'attachment; filename="zeros"' });
    const block = Buffer.alloc(1 << 20);
    const more = () => {
      while (left-- > 0) if (!response.write(block)) return response.once('drain', more);
      response.end();
    };
    more();
  },
};

const server = http.createServer((request, response) => {
  const { pathname } = new URL(request.url, 'http://localhost');
  const answer = pages[`${request.method} ${pathname}`];
  if (answer) return answer(request, response);
  response.statusCode = 404;
  response.end('There is no such page.\n');
});
server.listen(process.env.PORT || 9000, () => console.log('listening'));
