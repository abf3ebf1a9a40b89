// Pages of two sites, in a real browser, against a gateway that names the first: http.origins=http://app.localhost.
// Usage: node origins.mjs URL; the browser is $CHROMIUM, or else /usr/bin/chromium.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { chromium } from 'playwright-core';
import { check, finish } from './report.mjs';

const [url] = process.argv.slice(2);
if (!url) {
  console.error('Usage: node origins.mjs URL');
  process.exit(2);
}
const endpoint = new URL('/graphql', url).href;

// Both sites are one server here, on a port that their names do not show.
const sites = createServer((_, response) => response.end('<!doctype html><title>A site</title>'));
await new Promise((listening) => sites.listen(0, '127.0.0.1', listening));

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: [
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--no-first-run',
    '--disable-background-networking',
    `--host-resolver-rules=MAP *.localhost:80 127.0.0.1:${sites.address().port}`,
  ],
});

try {
  const context = await browser.newContext();
  const open = async (origin) => {
    const page = await context.newPage();
    await page.goto(`${origin}/`);
    return page;
  };
  const [app, other] = [await open('http://app.localhost'), await open('http://other.localhost')];

  await check('a page of the named origin asks with a token and reads the answer', async () => {
    const { status, id, body } = await ask(app, '{ appointments(first: 1) { nodes { id } } }');
    assert.equal(status, 200);
    assert.equal(body.errors, undefined);
    assert.equal(body.data.appointments.nodes.length, 1);
    assert.ok(id, 'it cannot read x-request-id');
  });

  await check('it reads why it was refused, too', async () => {
    const { status, body } = await ask(app, '{ nothing }');
    assert.equal(status, 422);
    assert.equal(body.errors[0].extensions.code, 'GRAPHQL_VALIDATION_FAILED');
    const get = await app.evaluate(async (target) => (await fetch(`${target}?query={__typename}`)).json(), endpoint);
    assert.equal(get.errors[0].extensions.code, 'BAD_REQUEST');
  });

  await check('and opens a WebSocket', async () => {
    assert.equal(await socket(app), 'open');
  });

  await check('a page of another origin reads nothing, and opens none', async () => {
    await assert.rejects(ask(other, '{ __typename }'), /Failed to fetch/);
    const simple = other.evaluate(
      async (target) => (await fetch(`${target}?query={__typename}`, { headers: { accept: 'application/json' } })).json(),
      endpoint,
    );
    await assert.rejects(simple, /Failed to fetch/);
    assert.equal(await socket(other), 'refused');
  });

  await check('no page loads an answer as a script or shows one in a frame', async () => {
    for (const page of [app, other]) {
      const loaded = await page.evaluate(
        (target) =>
          new Promise((resolve) => {
            const script = document.createElement('script');
            script.onload = () => resolve('loaded');
            script.onerror = () => resolve('refused');
            script.src = target;
            document.head.append(script);
          }),
        new URL('/graphiql.json', url).href,
      );
      assert.equal(loaded, 'refused');
      const framed = page.waitForEvent('console', (message) => /frame/i.test(message.text()));
      await page.evaluate((target) => {
        const frame = document.createElement('iframe');
        frame.src = target;
        document.body.append(frame);
      }, new URL('/', url).href);
      assert.match((await framed).text(), /frame-ancestors|X-Frame-Options/i);
    }
  });

  finish();
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
} finally {
  await browser.close();
  sites.close();
}

/** What a page gets for a query. */
function ask(page, query) {
  return page.evaluate(
    async ([target, body]) => {
      const response = await fetch(target, {
        method: 'POST',
        headers: {
          authorization: 'Bearer sandbox-all',
          'content-type': 'application/json',
          accept: 'application/graphql-response+json',
          // As OpenTelemetry and Sentry add them.
          traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
          baggage: 'sentry-environment=test',
          'sentry-trace': '0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1',
        },
        body,
      });
      return { status: response.status, id: response.headers.get('x-request-id'), body: await response.json() };
    },
    [endpoint, JSON.stringify({ query })],
  );
}

/** What becomes of a WebSocket that a page opens. */
function socket(page) {
  return page.evaluate(
    (target) =>
      new Promise((resolve) => {
        const opening = new WebSocket(target, 'graphql-transport-ws');
        opening.onopen = () => resolve('open');
        opening.onerror = () => resolve('refused');
      }),
    endpoint.replace('http', 'ws'),
  );
}
