// The client of npm graphql-sse, against a gateway that serves its sandbox.
// Usage: node graphql-sse.mjs URL
import assert from 'node:assert/strict';
import { createClient } from 'graphql-sse';
import { finish } from './report.mjs';
import { all, check, codes, listen, play } from './subscribing.mjs';

const [base] = process.argv.slice(2);
if (!base) {
  console.error('Usage: node graphql-sse.mjs URL');
  process.exit(2);
}
const url = new URL('/graphql', base).href;

function connect(token, more = {}) {
  return createClient({ url, headers: { Authorization: `Bearer ${token}` }, retryAttempts: 0, ...more });
}

try {
  const { client, token, watch } = await play(base, (token) => connect(token));

  await check('a query that cannot be run is an answer and an end', async () => {
    const [answer, ...more] = await all(client, { query: '{ nothing }' });
    assert.deepEqual(codes(answer), ['GRAPHQL_VALIDATION_FAILED']);
    assert.deepEqual(more, []);
  });
  client.dispose();

  await check('a client that loses its connection comes back by itself', async () => {
    const connections = [];
    const client = connect(token, {
      retryAttempts: 3,
      retry: async () => {},
      // The first connection can be cut from here.
      fetchFn: (target, init) => {
        const cut = new AbortController();
        connections.push(cut);
        return fetch(target, { ...init, signal: AbortSignal.any([init.signal, cut.signal]) });
      },
    });
    const events = listen(client, watch);
    const first = await events.next();
    connections[0].abort();
    assert.deepEqual(await events.next(), first);
    assert.equal(connections.length, 2);
    await events.leave();
    client.dispose();
  });

  await check('the single connection mode is refused', async () => {
    const client = connect(token, { singleConnection: true, lazy: true });
    await assert.rejects(all(client, watch), ({ response }) => response.status === 405);
    client.dispose();
  });
  finish();
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
