// The HTTP cache of a real browser, in which two users take turns on one page.
// Usage: node caching.mjs URL MODE ID EQUAL_ID USER…; MODE is the http.client_cache of the gateway, and a USER is a token.
// The reference of the appointment ID is its user's name, and that of EQUAL_ID is the same for all users.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { chromium } from 'playwright-core';
import { check, finish } from './report.mjs';

const [url, mode, id, equalId, alice, bob] = process.argv.slice(2);
if (!bob) {
  console.error('Usage: node caching.mjs URL MODE ID EQUAL_ID USER USER');
  process.exit(2);
}
const name = (token) => token.split('-')[0];
const target = (id) => `${new URL('/graphql', url).href}?query=${encodeURIComponent(`{ appointment(id: "${id}") { id reference } }`)}`;

// The page is of an origin that http.origins lists.
const site = createServer((_, response) => response.end('<!doctype html><title>A site</title>'));
await new Promise((listening) => site.listen(0, '127.0.0.1', listening));

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: [
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--no-first-run',
    '--disable-background-networking',
    `--host-resolver-rules=MAP *.localhost:80 127.0.0.1:${site.address().port}`,
  ],
});

let page;
try {
  page = await browser.newPage();
  await page.goto('http://app.localhost/');

  await check('the first response of a user is the own one', async () => {
    const { body, tag } = await ask(alice, id);
    assert.equal(body.data.appointment.reference, name(alice));
    assert.ok(tag, 'the page cannot read the tag');
  });

  await check(`a repetition is ${mode === 'fresh' ? 'answered by the browser' : 'confirmed by 304'}`, async () => {
    for (let repetition = 0; repetition < 3; repetition += 1) {
      const before = await counts();
      const { status, body } = await ask(alice, id);
      assert.equal(status, 200, 'the page sees the whole response');
      assert.equal(body.data.appointment.reference, name(alice));
      assert.deepEqual(since(before, await counts()), mode === 'fresh' ? [0, 0] : [1, 1]);
    }
  });

  await check('the browser does not give the copy of one user to another', async () => {
    for (const user of [bob, alice, bob, alice]) {
      const before = await counts();
      const { body } = await ask(user, id);
      assert.equal(body.data.appointment.reference, name(user));
      // The browser may send the tag of the other user. It confirms nothing.
      assert.deepEqual(since(before, await counts()), [1, 0]);
    }
  });

  await check('nor where both are equal', async () => {
    await ask(alice, equalId);
    for (const user of [bob, alice, bob]) {
      const before = await counts();
      const { body } = await ask(user, equalId);
      assert.equal(body.data.appointment.reference, 'equal');
      assert.deepEqual(since(before, await counts()), [1, 0]);
    }
  });

  await check('without a user there is no copy', async () => {
    const { status, body } = await ask(undefined, id);
    assert.equal(status, 401);
    assert.equal(body.data, undefined);
  });

  await check('errors and responses to POST are not stored', async () => {
    for (const request of [{ query: '{ nothing }' }, { method: 'POST' }]) {
      for (let repetition = 0; repetition < 2; repetition += 1) {
        const { cacheControl } = await ask(alice, id, request);
        assert.equal(cacheControl, 'no-store');
      }
    }
  });

  finish();
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
} finally {
  await browser.close();
  site.close();
}

/** What the page gets for a request of `user`. */
function ask(user, id, { query, method = 'GET' } = {}) {
  const address = query ? `${new URL('/graphql', url).href}?query=${encodeURIComponent(query)}` : target(id);
  return page.evaluate(
    async ([address, method, user]) => {
      const [base, parameters] = address.split('?');
      const headers = { accept: 'application/graphql-response+json' };
      if (user) headers.authorization = `Bearer ${user}`;
      if (method === 'POST') headers['content-type'] = 'application/json';
      const body =
        method === 'POST' ? JSON.stringify({ query: new URLSearchParams(parameters).get('query') }) : undefined;
      const response = await fetch(method === 'POST' ? base : address, { method, headers, body });
      return {
        status: response.status,
        tag: response.headers.get('etag'),
        cacheControl: response.headers.get('cache-control'),
        body: await response.json(),
      };
    },
    [address, method, user],
  );
}

/** How many queries the gateway has answered, and how many of them with 304. */
async function counts() {
  const metrics = await (await fetch(new URL('/metrics', url))).text();
  const value = (sample) => Number(metrics.match(new RegExp(`^${sample.replace(/[{}]/g, '\\$&')} (\\d+)`, 'm'))[1]);
  return [value('gateway_operations_total{kind="query"}'), value('gateway_requests_total{status="3xx"}')];
}

/** The difference of two counts. */
function since(before, after) {
  return after.map((count, index) => count - before[index]);
}
