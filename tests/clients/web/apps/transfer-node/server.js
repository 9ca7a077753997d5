// Gigabytes in and out, made on the fly: block n is 64 KiB of the bytes of n, over and over.
const crypto = require('node:crypto');
const { createServer } = require('node:http');
const { Readable } = require('node:stream');
const { pipeline } = require('node:stream/promises');

const BLOCK = 65536;
const aborted = { uploads: 0, downloads: 0 };

function* blocks(n) {
  for (let at = 0, i = 0; at < n; at += BLOCK, i += 1) {
    const word = Buffer.alloc(4);
    word.writeUInt32LE(i);
    yield Buffer.alloc(Math.min(BLOCK, n - at), word);
  }
}

createServer(async (req, res) => {
  const url = new URL(req.url, 'http://h');
  if (url.pathname === '/bytes') {
    const n = Number(url.searchParams.get('n'));
    if (!url.searchParams.has('chunked')) res.setHeader('content-length', n);
    await pipeline(Readable.from(blocks(n)), res).catch(() => { aborted.downloads += 1; });
  } else if (url.pathname === '/sum') {
    const hash = crypto.createHash('sha256');
    let n = 0;
    try {
      for await (const part of req) {
        hash.update(part);
        n += part.length;
      }
      res.end(JSON.stringify({ n, sha256: hash.digest('hex') }));
    } catch {
      aborted.uploads += 1;
    }
  } else if (url.pathname === '/echo') {
    await pipeline(req, res).catch(() => {});
  } else {
    res.end(JSON.stringify(aborted));
  }
}).listen(9000);
