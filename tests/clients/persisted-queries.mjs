// Automatic persisted queries of Apollo Client and urql, both as they are: the first request names the document by its
// hash, the next one registers it, and from then on the hash is enough.
// Usage: node persisted-queries.mjs URL UNSUPPORTED_URL
//
// Both gateways serve the sandbox; the second one has no memory for documents.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { ApolloClient, HttpLink, InMemoryCache, gql } from '@apollo/client';
import { createPersistedQueryLink } from '@apollo/client/link/persisted-queries';
import { Client, fetchExchange, subscriptionExchange } from '@urql/core';
import { createClient } from 'graphql-ws';
import WebSocket from 'ws';
import { check, finish } from './report.mjs';

// The persisted exchange looks for the browser's crypto there.
globalThis.self ??= globalThis;
const { persistedExchange } = await import('@urql/exchange-persisted');

const [base, unsupportedBase] = process.argv.slice(2);
if (!unsupportedBase) {
  console.error('Usage: node persisted-queries.mjs URL UNSUPPORTED_URL');
  process.exit(2);
}
const [url, unsupported] = [base, unsupportedBase].map((it) => new URL('/graphql', it).href);
const { token, ids } = await (await fetch(new URL('/graphiql.json', base))).json();
const headers = { Authorization: `Bearer ${token}` };
const sha256 = (text) => createHash('sha256').update(text).digest('hex');

/** A fetch that notes how each request names its document, and which status it gets. */
function recording(sent) {
  return async (address, init) => {
    const parameters = init.body ? JSON.parse(init.body) : Object.fromEntries(new URL(address).searchParams);
    const extensions =
      typeof parameters.extensions === 'string' ? JSON.parse(parameters.extensions) : parameters.extensions;
    const hash = extensions?.persistedQuery?.sha256Hash;
    if (hash && parameters.query) assert.equal(hash, sha256(parameters.query));
    const response = await fetch(address, init);
    const form = [hash && 'hash', parameters.query && 'text'].filter(Boolean).join('+');
    sent.push(`${init.method} ${form} ${response.status}`);
    return response;
  };
}

/** A query that nobody has sent before, named `name`. */
const query = (name) => `query ${name}($id: UUID!) { appointment(id: $id) { id reference } }`;
const mutation = (name) =>
  `mutation ${name}($id: UUID!, $input: UpdateAppointmentInput!) {
    updateAppointment(id: $id, input: $input) { appointment { id durationInMinutes } userErrors { message } }
  }`;
const change = { id: ids[0], input: { durationInMinutes: 35 } };

function apollo(uri, sent, options = {}) {
  const link = createPersistedQueryLink({ sha256, ...options });
  return new ApolloClient({
    link: link.concat(new HttpLink({ uri, headers, fetch: recording(sent) })),
    cache: new InMemoryCache(),
    defaultOptions: { query: { fetchPolicy: 'no-cache' } },
  });
}

function urql(uri, sent, options = {}, more = []) {
  return new Client({
    url: uri,
    fetch: recording(sent),
    fetchOptions: { headers },
    exchanges: [persistedExchange(options), ...more, fetchExchange],
    preferGetMethod: false,
    requestPolicy: 'network-only',
  });
}

/** Runs a query three times with a client; returns what it has sent. */
async function thrice(client, text, sent) {
  for (let n = 0; n < 3; n += 1) {
    const variables = { id: ids[0] };
    const { data, error } = await (client instanceof ApolloClient
      ? client.query({ query: gql(text), variables })
      : client.query(text, variables).toPromise());
    assert.equal(error, undefined);
    assert.equal(data.appointment.id, ids[0]);
  }
  return sent;
}

// Apollo Client prefers the newer media type. urql accepts both alike, and gets the older one for a miss.
await check('Apollo Client registers by POST', async () => {
  const sent = [];
  assert.deepEqual(await thrice(apollo(url, sent), query('ApolloPost'), sent), [
    'POST hash 422',
    'POST hash+text 200',
    'POST hash 200',
    'POST hash 200',
  ]);
});

await check('Apollo Client asks by GET', async () => {
  const sent = [];
  const client = apollo(url, sent, { useGETForHashedQueries: true });
  const requests = await thrice(client, query('ApolloGet'), sent);
  assert.deepEqual(
    requests.map((it) => it.replace(/^POST hash\+text|^GET hash\+text/, 'hash+text')),
    ['GET hash 422', 'hash+text 200', 'GET hash 200', 'GET hash 200'],
  );
});

await check('Apollo Client registers a mutation', async () => {
  const sent = [];
  const client = apollo(url, sent, { useGETForHashedQueries: true });
  for (let n = 0; n < 2; n += 1) {
    const { data } = await client.mutate({ mutation: gql(mutation('ApolloChange')), variables: change });
    assert.deepEqual(data.updateAppointment.userErrors, []);
  }
  assert.deepEqual(sent, ['POST hash 422', 'POST hash+text 200', 'POST hash 200']);
});

await check('Apollo Client does without', async () => {
  const sent = [];
  assert.deepEqual(await thrice(apollo(unsupported, sent), query('ApolloNone'), sent), [
    'POST hash 422',
    'POST text 200',
    'POST text 200',
    'POST text 200',
  ]);
});

await check('urql registers by GET', async () => {
  const sent = [];
  assert.deepEqual(await thrice(urql(url, sent), query('UrqlGet'), sent), [
    'GET hash 200',
    'GET hash+text 200',
    'GET hash 200',
    'GET hash 200',
  ]);
});

await check('urql registers by POST', async () => {
  const sent = [];
  const client = urql(url, sent, { preferGetForPersistedQueries: false });
  assert.deepEqual(await thrice(client, query('UrqlPost'), sent), [
    'POST hash 200',
    'POST hash+text 200',
    'POST hash 200',
    'POST hash 200',
  ]);
});

await check('urql registers a mutation', async () => {
  const sent = [];
  const client = urql(url, sent, { enableForMutation: true });
  for (let n = 0; n < 2; n += 1) {
    const { data, error } = await client.mutation(mutation('UrqlChange'), change).toPromise();
    assert.equal(error, undefined);
    assert.deepEqual(data.updateAppointment.userErrors, []);
  }
  assert.deepEqual(sent, ['POST hash 200', 'POST hash+text 200', 'POST hash 200']);
});

await check('urql registers a subscription over a WebSocket', async () => {
  const socket = createClient({
    url: url.replace(/^http/, 'ws'),
    webSocketImpl: WebSocket,
    connectionParams: headers,
  });
  const forms = [];
  const exchange = subscriptionExchange({
    forwardSubscription: (body) => ({
      subscribe: (sink) => {
        forms.push([body.extensions?.persistedQuery && 'hash', body.query && 'text'].filter(Boolean).join('+'));
        // As in urql's documentation: graphql-ws wants a string.
        return { unsubscribe: socket.subscribe({ ...body, query: body.query || '' }, sink) };
      },
    }),
  });
  const client = urql(url, [], { enableForSubscriptions: true }, [exchange]);
  const text = 'subscription Changed($id: UUID!) { appointmentChanged(id: $id) { id } }';
  for (let n = 0; n < 2; n += 1) {
    let subscription;
    const { data, error } = await new Promise((resolve) => {
      subscription = client.subscription(text, { id: ids[0] }).subscribe(resolve);
    });
    subscription.unsubscribe();
    assert.equal(error, undefined);
    assert.equal(data.appointmentChanged.id, ids[0]);
  }
  await socket.dispose();
  assert.deepEqual(forms, ['hash', 'hash+text', 'hash']);
});

await check('urql does without', async () => {
  const sent = [];
  const client = urql(unsupported, sent, { preferGetForPersistedQueries: false });
  assert.deepEqual(await thrice(client, query('UrqlNone'), sent), [
    'POST hash 200',
    'POST text 200',
    'POST text 200',
    'POST text 200',
  ]);
});

finish();
