// Koa's hello world with its x-response-time example, a router, forms, static files and a stream as body.
const fs = require('node:fs');
const Koa = require('koa');
const { Router } = require('@koa/router');
const bodyParser = require('koa-bodyparser');
const serve = require('koa-static');

const app = new Koa();
const router = new Router();
app.proxy = true;

app.use(async (ctx, next) => {
  const start = Date.now();
  await next();
  ctx.set('X-Response-Time', `${Date.now() - start}ms`);
});
app.use(bodyParser());
app.use(serve('public'));

router.get('/', (ctx) => {
  ctx.body = 'Hello World';
});
router.post('/form', (ctx) => {
  ctx.cookies.set('name', ctx.request.body.name);
  ctx.redirect('https://koajs.com/');
});
router.get('/who', (ctx) => {
  ctx.body = { ip: ctx.ip, protocol: ctx.protocol, cookie: ctx.cookies.get('name') };
});
router.get('/stream', (ctx) => {
  ctx.type = 'text';
  ctx.body = fs.createReadStream(__filename);
});
router.get('/throw', (ctx) => ctx.throw(418, 'short and stout'));
app.use(router.routes()).use(router.allowedMethods());

app.listen(9000);
