'use strict';
// What a person does in a browser: `node browser.js URLS`, where URLS is JSON of the apps' URLs. Prints one line of JSON for each check.

const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { chromium } = require('playwright-core');

const WAIT_MS = 30_000;
const urls = JSON.parse(process.argv[2]);
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'mayfly-browser-'));
const tell = (title, begun, failure, notes = []) =>
  process.stdout.write(`${JSON.stringify({ title, ms: Date.now() - begun, failure, notes })}\n`);

/** One check, in a browser context of its own, with what the console, the page and the network complained about as failures. */
async function check(browser, title, allowed, work) {
  const begun = Date.now();
  const context = await browser.newContext({ acceptDownloads: true });
  const complaints = [];
  const notes = [];
  try {
    context.setDefaultTimeout(WAIT_MS);
    const page = await context.newPage();
    page.on('console', (m) => ['error', 'warning'].includes(m.type()) && complaints.push(`console: ${m.text()} (${m.location().url})`));
    page.on('pageerror', (e) => complaints.push(`error: ${e.message}`));
    page.on('requestfailed', (r) => complaints.push(`request: ${r.method()} ${r.url()}: ${r.failure()?.errorText}`));
    page.on('response', (r) => r.status() >= 400 && complaints.push(`${r.status()} ${r.url()}`));
    await work(page, notes, context);
    const wrong = complaints.filter((c) => !allowed.some((a) => a.test(c)));
    assert.deepEqual(wrong, [], 'the browser complained');
    tell(title, begun, null, notes);
  } catch (error) {
    tell(title, begun, `${error.message.slice(0, 500)} ${complaints.join('; ')}`.trim());
  } finally {
    await context.close();
  }
}

/** A PNG that shows something: not one colour. Chromium packs an empty page of this size into a few kilobytes. */
async function shows(page, notes) {
  const image = await page.screenshot();
  assert.deepEqual([...image.subarray(0, 4)], [0x89, 0x50, 0x4e, 0x47]);
  const [width, height] = [image.readUInt32BE(16), image.readUInt32BE(20)];
  assert.ok(width >= 800 && height >= 600, `${width}x${height}`);
  const blank = await page.context().newPage();
  const empty = await blank.screenshot();
  await blank.close();
  assert.ok(image.length > empty.length, `${image.length} bytes, an empty page has ${empty.length}`);
  notes.push(`screenshot of ${image.length} bytes, an empty page's has ${empty.length}`);
}

const until = (page, what, seen) => page.waitForFunction(seen, null, { timeout: WAIT_MS }).catch(() => assert.fail(`not in time: ${what}`));

async function forms(page, notes, base) {
  await page.goto(base);
  assert.equal(await page.title(), 'A page of many parts');
  const colour = await page.$eval('h1', (h) => getComputedStyle(h).color);
  assert.equal(colour, 'rgb(1, 2, 3)', 'the style sheet is used');
  await until(page, 'all events', () => document.querySelectorAll('#events li').length === 10);
  await shows(page, notes);
  await page.fill('input[name=name]', 'Zoë <b> & co');
  await page.selectOption('select', '成都');
  await page.click('text=Sign');
  await page.waitForURL(/\/guest\?/);
  assert.equal(await page.textContent('h1'), 'Welcome Zoë <b> & co');
  assert.equal(await page.textContent('p'), 'from 成都');
  const [cookie] = await page.context().cookies();
  assert.deepEqual([cookie.name, cookie.httpOnly, cookie.sameSite], ['guest', true, 'Strict']);
  assert.equal(await page.evaluate(() => document.cookie), '', 'scripts do not see it');
  await page.click('text=back');
  await page.waitForURL(base);
  await page.goBack();
  assert.equal(await page.textContent('h1'), 'Welcome Zoë <b> & co');
}

async function upload(page, notes, base) {
  await page.goto(base);
  const files = [
    { name: 'größe 1.bin', mimeType: 'application/x-own', buffer: crypto.randomBytes(8 << 20) },
    { name: 'empty.txt', mimeType: 'text/plain', buffer: Buffer.alloc(0) },
  ];
  await page.fill('input[name=note]', '中文');
  await page.setInputFiles('input[type=file]', files);
  await page.click('text=Send');
  await until(page, 'the answer is shown', () => document.querySelector('output').textContent !== '');
  const answer = JSON.parse(await page.textContent('output'));
  assert.equal(answer.note, '中文');
  // Multer reads names as Latin-1, as they were long ago.
  const got = answer.files.map((f) => ({ ...f, name: Buffer.from(f.name, 'latin1').toString() }));
  const sum = (data) => crypto.createHash('sha256').update(data).digest('hex');
  assert.deepEqual(got, files.map((f) => ({ name: f.name, type: f.mimeType, n: f.buffer.length, sha256: sum(f.buffer) })));
  notes.push('8 MiB');
}

async function events(page, notes, base) {
  await page.goto(base);
  await until(page, 'all events', () => document.querySelectorAll('#events li').length === 10);
  assert.deepEqual(await page.$$eval('#events li', (all) => all.map((l) => Number(l.textContent))), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  const resumed = await page.evaluate(async () => (await fetch('resumed')).json());
  assert.deepEqual(resumed.slice(-2), [null, '4'], 'it came back with the last id it had seen');
}

async function socket(page, notes, base) {
  await page.goto(base);
  await page.context().addCookies([{ name: 'own', value: '1', url: base }]);
  const told = await page.evaluate(async () => {
    const ws = new WebSocket(new URL('echo', location.href.replace(/^http/, 'ws')));
    ws.binaryType = 'arraybuffer';
    const next = () => new Promise((resolve, reject) => {
      ws.onmessage = (m) => resolve(m.data);
      ws.onclose = (e) => reject(new Error(`closed with ${e.code}`));
    });
    const greeting = JSON.parse(await next());
    const texts = [];
    for (const text of ['hello', 'größer 中文 🦀', 'x'.repeat(100_000)]) {
      const answer = next();
      ws.send(text);
      texts.push((await answer) === text);
    }
    const data = crypto.getRandomValues(new Uint8Array(65_536));
    const answer = next();
    ws.send(data);
    const back = new Uint8Array(await answer);
    const closed = new Promise((resolve) => { ws.onclose = (e) => resolve([e.code, e.wasClean]); });
    ws.close(4000, 'done');
    return { greeting, texts, binary: back.every((b, n) => b === data[n]) && back.length === data.length, closed: await closed };
  });
  assert.deepEqual(told, { greeting: { cookie: 'own=1' }, texts: [true, true, true], binary: true, closed: [4000, true] });
}

async function download(page, notes, base) {
  await page.goto(base);
  const [file] = await Promise.all([page.waitForEvent('download'), page.click('text=Report')]);
  assert.equal(file.suggestedFilename(), 'Bericht für 2026.csv');
  const place = path.join(folder, 'report.csv');
  await file.saveAs(place);
  const text = fs.readFileSync(place, 'utf8').trimEnd().split('\n');
  assert.deepEqual([text.length, text.at(-1)], [50_000, `49999,${49_999 ** 2}`]);
  notes.push(`${fs.statSync(place).size} bytes`);
}

async function navigation(page, notes, base) {
  await page.goto(base);
  assert.match(await page.textContent('body'), /Hello World/);
  await shows(page, notes);
  await page.goto(`${base}nav`);
  // The page is alive when its button counts; a load of the whole page would forget the mark.
  await page.click('button');
  await page.getByText('clicked 1 times').waitFor();
  await page.evaluate(() => { window.mark = 'same page'; });
  for (let n = 0; n < 3; n += 1) {
    await page.click('text=to the second');
    await page.getByText('Second, from next').waitFor();
    assert.equal(new URL(page.url()).pathname, '/nav/second');
    await page.click('text=back');
    await page.getByText('First').waitFor();
  }
  await page.goBack();
  await page.getByText('Second, from next').waitFor();
  assert.equal(await page.evaluate(() => window.mark), 'same page');
  await page.reload();
  await page.getByText('Second, from next').waitFor();
  assert.equal(await page.evaluate(() => window.mark), undefined);
}

async function action(page, notes, base) {
  await page.goto(`${base}form`);
  await page.getByText('Hello stranger').waitFor();
  await page.fill('input[name=name]', 'Zoë');
  await page.click('text=Save');
  await page.getByText('Hello Zoë').waitFor();
  // The action's answer is a stream whose end a reload must not cut off.
  await page.waitForLoadState('networkidle');
  await page.reload();
  await page.getByText('Hello Zoë').waitFor();
}

(async () => {
  // The platform's tests run as root, where Chromium has no sandbox of its own; small machines have a small /dev/shm.
  const browser = await chromium.launch({ executablePath: process.env.MAYFLY_CHROMIUM, chromiumSandbox: false, args: ['--disable-dev-shm-usage'] });
  // EventSource complains of the end that the server makes on purpose.
  const cut = [/ERR_INCOMPLETE_CHUNKED_ENCODING/, /events: net::ERR_ABORTED/];
  for (const base of urls.browser ?? []) {
    const how = base.includes('/fn/') ? 'path' : 'host';
    for (const [title, work] of [
      ['a form, a redirect, a cookie, back and forth', forms],
      ['files are uploaded', upload],
      ['EventSource gets events, and comes back after a cut', events],
      ['WebSocket: text, binary, cookies, a close code', socket],
      ['a download with its name', download],
    ]) await check(browser, `Chromium by ${how}: ${title}`, cut, (page, notes) => work(page, notes, base));
  }
  // A link's page fetched ahead is dropped when the visitor goes on; the empty template has no icon.
  // Next.js leaves off reading an action's answer once it has the redirect that is in it.
  const usual = [/_rsc=.*net::ERR_ABORTED/, /404.*\/favicon\.ico/, /^request: POST .*\/form: net::ERR_ABORTED/];
  for (const base of urls.next ?? []) {
    await check(browser, 'Chromium on Next.js: client-side navigation, history, a counter that lives', usual, (page, notes) => navigation(page, notes, base));
    await check(browser, 'Chromium on Next.js: a server action, its cookie', usual, (page, notes) => action(page, notes, base));
  }
  const begun = Date.now();
  const version = browser.version();
  await browser.close();
  fs.rmSync(folder, { recursive: true, force: true });
  tell('the browser ends', begun, null, [`Chromium ${version}`]);
})().catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exit(1);
});
