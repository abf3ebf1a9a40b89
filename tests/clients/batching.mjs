// Apollo Client's BatchHttpLink, unmodified, against a gateway that serves its sandbox.
// Usage: node batching.mjs URL
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { ApolloClient, CombinedGraphQLErrors, InMemoryCache, gql } from '@apollo/client';
import { BatchHttpLink } from '@apollo/client/link/batch-http';
import { createPersistedQueryLink } from '@apollo/client/link/persisted-queries';
import { check, finish } from './report.mjs';

const [url] = process.argv.slice(2);
if (!url) {
  console.error('Usage: node batching.mjs URL');
  process.exit(2);
}
const endpoint = new URL('/graphql', url).href;
const { token, ids: examples } = await (await fetch(new URL('/graphiql.json', url))).json();
/** The last example is an unknown id. */
const ids = examples.slice(0, -1);

const ONE = gql`
  query One($id: UUID!) {
    appointment(id: $id) {
      id
      durationInMinutes
    }
  }
`;
const MANY = gql`
  query Many($ids: [UUID!]!) {
    appointmentsByIds(ids: $ids) {
      id
    }
  }
`;
const UPDATE = gql`
  mutation Update($id: UUID!, $input: UpdateAppointmentInput!) {
    updateAppointment(id: $id, input: $input) {
      appointment {
        id
        durationInMinutes
      }
      userErrors {
        field
        message
      }
    }
  }
`;

/** The number of operations of each request that went out, and what came back. */
const sent = [];
function connect(headers, batchMax = 10) {
  const link = new BatchHttpLink({
    uri: endpoint,
    batchMax,
    batchInterval: 20,
    headers,
    async fetch(address, options) {
      const response = await fetch(address, options);
      sent.push({ operations: JSON.parse(options.body).length, status: response.status });
      return response;
    },
  });
  return new ApolloClient({ link, queryDeduplication: false, cache: new InMemoryCache(), defaultOptions: { query: { fetchPolicy: 'no-cache' } } });
}
const client = connect({ Authorization: `Bearer ${token}` });
const one = (id) => client.query({ query: ONE, variables: { id } });

await check('ten queries are one request, and each has its own result', async () => {
  const asked = Array.from({ length: 10 }, (_, n) => ids[n % ids.length]);
  const results = await Promise.all(asked.map(one));
  assert.deepEqual(
    results.map((result) => result.data.appointment.id),
    asked,
  );
  assert.deepEqual(sent.splice(0), [{ operations: 10, status: 200 }]);
});

await check('a failing query leaves the others alone', async () => {
  const [good, bad, other] = await Promise.allSettled([
    one(ids[0]),
    one('not an id'),
    client.query({ query: MANY, variables: { ids: ids.slice(0, 2) } }),
  ]);
  assert.equal(good.value.data.appointment.id, ids[0]);
  assert.equal(other.value.data.appointmentsByIds.length, 2);
  assert.ok(CombinedGraphQLErrors.is(bad.reason), String(bad.reason));
  assert.equal(bad.reason.errors[0].extensions.code, 'BAD_USER_INPUT');
  assert.deepEqual(sent.splice(0), [{ operations: 3, status: 200 }]);
});

await check('mutations run in the order of the array', async () => {
  const update = (durationInMinutes) =>
    client.mutate({ mutation: UPDATE, variables: { id: ids[0], input: { durationInMinutes } } });
  const [first, second, read] = await Promise.all([update(35), update(50), one(ids[0])]);
  assert.deepEqual(first.data.updateAppointment.userErrors, []);
  assert.equal(first.data.updateAppointment.appointment.durationInMinutes, 35);
  assert.equal(second.data.updateAppointment.appointment.durationInMinutes, 50);
  assert.equal(read.data.appointment.durationInMinutes, 50);
  assert.deepEqual(sent.splice(0), [{ operations: 3, status: 200 }]);
});

await check('without a token, every query is told so', async () => {
  const stranger = connect({});
  const results = await Promise.allSettled(
    ids.slice(0, 2).map((id) => stranger.query({ query: ONE, variables: { id } })),
  );
  for (const { status, reason } of results) {
    assert.equal(status, 'rejected');
    assert.match(JSON.stringify(reason.errors ?? reason.bodyText ?? reason.message), /UNAUTHENTICATED|401/);
  }
  assert.deepEqual(sent.splice(0), [{ operations: 2, status: 401 }]);
});

await check('a longer array is refused with a reason', async () => {
  const greedy = connect({ Authorization: `Bearer ${token}` }, 11);
  const asked = Array.from({ length: 11 }, (_, n) => ids[n % ids.length]);
  const results = await Promise.allSettled(
    asked.map((id) => greedy.query({ query: ONE, variables: { id } })),
  );
  assert.ok(results.every(({ status }) => status === 'rejected'));
  assert.deepEqual(sent.splice(0), [{ operations: 11, status: 422 }]);
});

await check('the texts of unknown hashes follow in a second array', async () => {
  const sha256 = (text) => createHash('sha256').update(text).digest('hex');
  const persisted = new ApolloClient({
    link: createPersistedQueryLink({ sha256 }).concat(client.link),
    cache: new InMemoryCache(),
    defaultOptions: { query: { fetchPolicy: 'no-cache' } },
  });
  const ask = () =>
    Promise.all([
      persisted.query({ query: ONE, variables: { id: ids[0] } }),
      persisted.query({ query: MANY, variables: { ids: ids.slice(0, 2) } }),
    ]);
  const expected = [{ operations: 2, status: 200 }];
  for (const arrays of [[...expected, ...expected], expected]) {
    const [first, second] = await ask();
    assert.equal(first.data.appointment.id, ids[0]);
    assert.equal(second.data.appointmentsByIds.length, 2);
    assert.deepEqual(sent.splice(0), arrays);
  }
});

finish();
