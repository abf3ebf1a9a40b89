// Apollo Client, urql, graphql-request and Relay's network layer under every status of GraphQL over HTTP: partial
// responses and each refusal that a client can cause. No client may lose data or an error code.
// Usage: node statuses.mjs URL
//
// The upstream behind the gateway has the appointment of `id(1)` and refuses that of `id(403)`; it never answers for
// `id(503)`. The gateway has the limits that the refusals below name.
import assert from 'node:assert/strict';
import { ApolloClient, HttpLink, InMemoryCache, gql } from '@apollo/client';
import { Client, fetchExchange } from '@urql/core';
import { GraphQLClient } from 'graphql-request';
import relay from 'relay-runtime';
import { check, finish } from './report.mjs';

const [base] = process.argv.slice(2);
if (!base) {
  console.error('Usage: node statuses.mjs URL');
  process.exit(2);
}
const url = new URL('/graphql', base).href;
/** `rate_limit.burst` of the gateway. */
const BURST = 20;
const MEDIA_TYPE = 'application/graphql-response+json; charset=utf-8';

const id = (number) => `${number.toString(16).padStart(8, '0')}-0000-4000-8000-00000000cafe`;
const one = (number) => `appointment(id: "${id(number)}") { id }`;
const BOTH = `query Both { served: ${one(1)} refused: ${one(403)} }`;
const CANCEL = `mutation Cancel { cancelAppointment(id: "${id(403)}") { appointment { id } } }`;
const MANY = `query Many { ${Array.from({ length: 60 }, (_, n) => `a${n}: ${one(1)}`).join(' ')} }`;
const SERVED = `query Served { ${one(1)} }`;

/** Each client: from a document, headers and a `fetch` to the data and the error codes that an app finds. */
const clients = {
  async 'Apollo Client'(text, headers, fetch) {
    const link = new HttpLink({ uri: url, headers, fetch });
    const client = new ApolloClient({ link, cache: new InMemoryCache() });
    const document = gql(text);
    const { data, error } = text.startsWith('mutation')
      ? await client.mutate({ mutation: document, errorPolicy: 'all' })
      : await client.query({ query: document, errorPolicy: 'all' });
    return { data, codes: codes(error?.errors) };
  },
  async urql(text, headers, fetch) {
    const client = new Client({
      url,
      fetch,
      fetchOptions: { headers },
      exchanges: [fetchExchange],
      preferGetMethod: false,
    });
    const { data, error } = await (text.startsWith('mutation') ? client.mutation(text) : client.query(text)).toPromise();
    assert.equal(error?.networkError, undefined, `a network error: ${error?.networkError}`);
    return { data, codes: codes(error?.graphQLErrors) };
  },
  async 'graphql-request'(text, headers, fetch) {
    const client = new GraphQLClient(url, { headers, fetch, errorPolicy: 'all' });
    // It throws for statuses other than 2xx, with the response.
    const { data, errors } = await client.rawRequest(text).catch(({ response }) => response);
    return { data, codes: codes(errors) };
  },
  async "Relay's network layer"(text, headers, fetch) {
    // As in Relay's own documentation.
    const network = relay.Network.create(async ({ text }, variables) => {
      const response = await fetch(url, {
        method: 'POST',
        headers: {
          Accept: 'application/graphql-response+json; charset=utf-8, application/json; charset=utf-8',
          'Content-Type': 'application/json',
          ...headers,
        },
        body: JSON.stringify({ query: text, variables }),
      });
      return await response.json();
    });
    const [operationKind, name] = text.split(' ');
    const request = { text, name, operationKind, id: null, cacheID: text, metadata: {} };
    const { data, errors } = await network.execute(request, {}, { force: true }).toPromise();
    return { data, codes: codes(errors) };
  },
};

/** A body in place of the client's. */
const body = (value) => (init) => ({ ...init, body: typeof value === 'string' ? value : JSON.stringify(value) });
const header = (name, value) => (init) => {
  const headers = new Headers(init.headers);
  headers.set(name, value);
  return { ...init, headers };
};
const unknownHash = body({ extensions: { persistedQuery: { version: 1, sha256Hash: '0' } } });

/** What the client asks for, what it must find, and under which status. `change` provokes a refusal. */
const cases = [
  { name: 'data', text: SERVED, status: 200, data: { appointment: { id: id(1) } }, codes: [] },
  {
    name: 'data and errors',
    text: BOTH,
    status: 294,
    data: { served: { id: id(1) }, refused: null },
    codes: ['FORBIDDEN'],
  },
  { name: 'no data but errors', text: CANCEL, status: 294, data: null, codes: ['FORBIDDEN'] },
  { name: 'no token', text: SERVED, token: null, status: 401, codes: ['UNAUTHENTICATED'] },
  { name: 'a malformed token', text: SERVED, token: 'a b', status: 401, codes: ['UNAUTHENTICATED'] },
  { name: 'an unknown field', text: 'query Q { nonsense }', status: 422, codes: ['GRAPHQL_VALIDATION_FAILED'] },
  { name: 'a limit', text: MANY, status: 422, codes: ['QUERY_TOO_COMPLEX'] },
  {
    name: 'a variable',
    status: 422,
    codes: ['BAD_USER_INPUT'],
    change: body({ query: 'query ($id: UUID!) { appointment(id: $id) { id } }' }),
  },
  { name: 'a parameter of the wrong type', status: 422, codes: ['BAD_REQUEST'], change: body({ query: 17 }) },
  {
    name: 'a persisted query',
    status: 422,
    codes: ['PERSISTED_QUERY_NOT_FOUND'],
    // A client that prefers neither type, such as urql, is asked for the text with 200.
    change: (init) => header('Accept', 'application/graphql-response+json')(unknownHash(init)),
  },
  { name: 'a syntax error', status: 400, codes: ['GRAPHQL_PARSE_FAILED'], change: body({ query: '{' }) },
  { name: 'a body that is no JSON', status: 400, codes: ['BAD_REQUEST'], change: body('{') },
  { name: 'a method', status: 405, codes: ['BAD_REQUEST'], change: (init) => ({ ...init, method: 'PUT' }) },
  { name: 'a slow body', status: 408, codes: ['BAD_REQUEST'], change: unfinished },
  { name: 'a long body', status: 413, codes: ['BAD_REQUEST'], change: body(' '.repeat(300_000)) },
  { name: 'a long address', status: 414, codes: ['BAD_REQUEST'], query: `?${'x'.repeat(20_000)}` },
  { name: 'a content type', status: 415, codes: ['BAD_REQUEST'], change: header('Content-Type', 'text/plain') },
  { name: 'a rate', status: 429, codes: ['RATE_LIMITED'], token: 'frequent' },
  { name: 'large headers', status: 431, codes: ['BAD_REQUEST'], change: header('X-Large', 'x'.repeat(12_000)) },
  { name: 'load', status: 503, codes: ['OVERLOADED'], occupied: true },
];

try {
  for (const [name, ask] of Object.entries(clients)) {
    for (const expected of cases) {
      await check(`${name}: ${expected.name}, ${expected.status}`, () => judge(name, ask, expected));
    }
  }
  finish();
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}

async function judge(name, ask, expected) {
  const { text = SERVED, token = `${name} ${expected.name}`.replaceAll(/\W/g, '-') } = expected;
  const headers = token === null ? {} : { Authorization: `Bearer ${token}` };
  const release = expected.occupied ? occupy() : async () => {};
  let response;
  const answer = await ask(text, headers, async (target, init) => {
    const changed = (expected.change ?? ((init) => init))(init);
    const send = () => fetch(`${target}${expected.query ?? ''}`, changed);
    const isLimit = [429, 503].includes(expected.status);
    do {
      // Empties the bucket of the token, however slow the machine is.
      if (expected.status === 429) await Promise.all(Array.from({ length: BURST }, async () => (await send()).text()));
      response = await send();
    } while (isLimit && response.status !== expected.status && (await response.text()));
    return response;
  }).finally(release);
  assert.equal(response.status, expected.status);
  assert.equal(response.headers.get('Content-Type'), MEDIA_TYPE);
  assert.deepEqual(answer.codes, expected.codes);
  assert.deepEqual(withoutTypes(answer.data ?? null), expected.data ?? null);
}

/** The data without the names of types, which Apollo Client asks for. */
function withoutTypes(data) {
  return JSON.parse(JSON.stringify(data, (key, value) => (key === '__typename' ? undefined : value)));
}

/** Holds the slot of the gateway for operations, until the returned function is called. */
function occupy() {
  const stop = new AbortController();
  // No two of these requests share a bucket of the rate limit.
  let count = 0;
  const send = (query, more) => {
    const headers = { Authorization: `Bearer slot-${(count += 1)}`, 'Content-Type': 'application/json' };
    return fetch(url, { method: 'POST', headers, body: JSON.stringify({ query }), ...more });
  };
  const hold = async () => {
    // An answer means that the slot was taken. While it is held there is none.
    for (;;) await (await send(`{ ${one(503)} }`, { signal: stop.signal })).text();
  };
  hold().catch(() => {});
  return async () => {
    stop.abort();
    // The gateway needs a moment to notice.
    while ((await send('{ __typename }')).status === 503);
  };
}

/** A body whose end never comes. */
function unfinished(init) {
  const stream = new ReadableStream({ start: (controller) => controller.enqueue(new TextEncoder().encode('{')) });
  return { ...init, body: stream, duplex: 'half' };
}

function codes(errors = []) {
  return errors.map(({ extensions }) => extensions.code);
}
