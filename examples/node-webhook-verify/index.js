'use strict';

// Checks the signature of a webhook before anything is done with it: `X-Hub-Signature-256: sha256=<hex>`, an HMAC of
// the body's bytes, as GitHub and many others send it. The secret is in the environment, never in the code.

const { createHmac, timingSafeEqual } = require('node:crypto');

const SECRET = process.env.WEBHOOK_SECRET ?? '';

exports.main_handler = async (event) => {
  if (SECRET === '') {
    // A missing secret must not look like a wrong signature.
    throw new Error('set WEBHOOK_SECRET: mayfly env webhook-verify WEBHOOK_SECRET=…');
  }
  const body = Buffer.from(event.body ?? '', event.isBase64Encoded ? 'base64' : 'utf8');
  const given = header(event.headers, 'x-hub-signature-256');
  if (!isSigned(body, given)) {
    console.error(`refused ${body.length} bytes: ${given === undefined ? 'no signature' : 'wrong signature'}`);
    return answer(401, { error: 'the signature is missing or wrong' });
  }

  let payload;
  try {
    payload = JSON.parse(body.toString('utf8'));
  } catch (error) {
    return answer(400, { error: `the body is not JSON: ${error.message}` });
  }
  const kind = header(event.headers, 'x-github-event') ?? 'unknown';
  console.log(`accepted a ${kind} event of ${payload.repository?.full_name ?? 'an unknown repository'}`);
  // Here the work begins.
  return answer(202, { accepted: kind, keys: Object.keys(payload) });
};

/** The value of a header, whatever the case of its name. */
function header(headers, name) {
  const found = Object.entries(headers ?? {}).find(([key]) => key.toLowerCase() === name);
  return found === undefined ? undefined : String(found[1]);
}

/** True when `given` is the signature of `body`. The comparison takes the same time wherever they differ. */
function isSigned(body, given) {
  if (given === undefined) return false;
  const expected = Buffer.from(`sha256=${createHmac('sha256', SECRET).update(body).digest('hex')}`);
  const actual = Buffer.from(given);
  return actual.length === expected.length && timingSafeEqual(actual, expected);
}

function answer(statusCode, body) {
  return { statusCode, headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) };
}
