'use strict';
const http = require('http');
const { promisify } = require('util');
const crypto = require('crypto');

// A whole HTTP server inside the function, as tencent-serverless-http does it: the event becomes a request on a local port.
const server = http.createServer((req, res) => {
    const chunks = [];
    req.on('data', (c) => chunks.push(c));
    req.on('end', () => {
        res.setHeader('content-type', 'application/json');
        res.end(JSON.stringify({ method: req.method, url: req.url, body: Buffer.concat(chunks).toString() }));
    });
});
const ready = promisify(server.listen).call(server, 0, '127.0.0.1');

module.exports.main_handler = async (event) => {
    await ready;
    const query = new URLSearchParams(event.queryString).toString();
    const body = await new Promise((resolve, reject) => {
        const req = http.request({ port: server.address().port, host: '127.0.0.1', method: event.httpMethod, path: `${event.path}?${query}` }, (res) => {
            let text = '';
            res.on('data', (c) => { text += c; });
            res.on('end', () => resolve(text));
        });
        req.on('error', reject);
        req.end(event.body);
    });
    return { isBase64Encoded: false, statusCode: 200, headers: { etag: crypto.createHash('md5').update(body).digest('hex') }, body };
};
