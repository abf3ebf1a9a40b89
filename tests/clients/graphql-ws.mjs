// The client of npm graphql-ws, against a gateway that serves its sandbox.
// Usage: node graphql-ws.mjs URL
import assert from 'node:assert/strict';
import { createClient } from 'graphql-ws';
import WebSocket from 'ws';
import { finish } from './report.mjs';
import { all, check, listen, play } from './subscribing.mjs';

const [base] = process.argv.slice(2);
if (!base) {
  console.error('Usage: node graphql-ws.mjs URL');
  process.exit(2);
}
const url = new URL('/graphql', base).href.replace(/^http/, 'ws');

function connect(authorization, more = {}) {
  const connectionParams = { Authorization: authorization };
  return createClient({ url, webSocketImpl: WebSocket, connectionParams, retryAttempts: 0, ...more });
}

try {
  const { client, token, watch } = await play(base, (token) => connect(`Bearer ${token}`));
  await client.dispose();

  await check('a query that cannot be run is an error', async () => {
    const asking = connect(`Bearer ${token}`);
    await assert.rejects(all(asking, { query: '{ nothing }' }), (errors) => {
      assert.deepEqual(errors.map(({ extensions }) => extensions.code), ['GRAPHQL_VALIDATION_FAILED']);
      return true;
    });
    await asking.dispose();
  });

  await check('a token without its scheme closes the socket', async () => {
    const client = connect(token);
    await assert.rejects(all(client, watch), ({ code }) => code === 4403);
    await client.dispose();
  });

  await check('a client that loses its socket comes back by itself', async () => {
    const sockets = [];
    const client = connect(`Bearer ${token}`, {
      retryAttempts: 3,
      retryWait: async () => {},
      on: { opened: (socket) => sockets.push(socket) },
    });
    const events = listen(client, watch);
    const first = await events.next();
    sockets[0].terminate();
    assert.deepEqual(await events.next(), first);
    assert.equal(sockets.length, 2);
    await events.leave();
    await client.dispose();
  });

  await check('the client and the gateway ping each other', async () => {
    let pongs = 0;
    let heard;
    const enough = new Promise((resolve) => (heard = resolve));
    const client = connect(`Bearer ${token}`, {
      lazy: false,
      keepAlive: 50,
      on: { pong: () => (pongs += 1) === 3 && heard() },
    });
    await enough;
    await client.dispose();
  });
  finish();
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
