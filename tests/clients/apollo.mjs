// What an app with Apollo Client does all day, against a gateway that serves its sandbox.
// Usage: node apollo.mjs URL
import assert from 'node:assert/strict';
import { ApolloClient, ApolloLink, CombinedGraphQLErrors, HttpLink, InMemoryCache, gql } from '@apollo/client';
import { GraphQLWsLink } from '@apollo/client/link/subscriptions';
import { relayStylePagination } from '@apollo/client/utilities';
import { OperationTypeNode } from 'graphql';
import { createClient } from 'graphql-ws';
import { count, elementAt, find, firstValueFrom, shareReplay, timeout } from 'rxjs';
import WebSocket from 'ws';
import { check, finish } from './report.mjs';

const [url] = process.argv.slice(2);
if (!url) {
  console.error('Usage: node apollo.mjs URL');
  process.exit(2);
}
const endpoint = new URL('/graphql', url).href;
// Every browser has one, and both libraries look for it there; Node.js has one from version 22 on.
globalThis.WebSocket ??= WebSocket;
/** For what the gateway sends unasked: its poller comes by every few seconds, and machines are slow. */
const PATIENCE_MS = 20_000;

const LIST = gql`
  query List($first: Int!, $after: String) {
    appointments(first: $first, after: $after) {
      totalCount
      pageInfo {
        hasNextPage
        endCursor
      }
      edges {
        cursor
        node {
          id
          reference
          durationInMinutes
        }
      }
    }
  }
`;
const ONE = gql`
  query One($id: UUID!) {
    appointment(id: $id) {
      id
      durationInMinutes
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
const CHANGED = gql`
  subscription Changed($id: UUID!) {
    appointmentChanged(id: $id) {
      id
      durationInMinutes
    }
  }
`;

const { token, ids } = await (await fetch(new URL('/graphiql.json', url))).json();
const authorization = { Authorization: `Bearer ${token}` };

/** The operations that went out over HTTP, by name. What the cache answers is none of them. */
const sent = [];
const socket = createClient({
  url: endpoint.replace(/^http/, 'ws'),
  connectionParams: authorization,
  // A connection that cannot be made is a failure to report, not to outwait.
  retryAttempts: 0,
});
const client = app(authorization);
// A second app on the same token: what it changes, the first can only learn from the gateway.
const other = app(authorization);

const list = client.watchQuery({ query: LIST, variables: { first: 10 } });
const screen = list.subscribe(() => {});
/** The list as the cache has it, from which the screen is drawn. */
const cached = () => client.readQuery({ query: LIST, variables: { first: 10 } }).appointments;
const shown = () => cached().edges.map(({ node }) => node);
let subject;

try {
  await check('two pages of the list become one in the cache', async () => {
    const { data } = await firstValueFrom(list.pipe(find(({ loading }) => !loading)));
    const first = data.appointments;
    assert.equal(first.edges.length, 10);
    assert.ok(first.pageInfo.hasNextPage);
    await list.fetchMore({ variables: { after: first.pageInfo.endCursor } });

    const merged = cached();
    assert.equal(merged.edges.length, 20);
    assert.equal(new Set(shown().map(({ id }) => id)).size, 20, 'an appointment is there twice');
    assert.equal(merged.totalCount, first.totalCount);
    assert.notEqual(merged.pageInfo.endCursor, first.pageInfo.endCursor);
    assert.deepEqual(sent, ['List', 'List']);
    subject = shown()[12];
    console.log(`     20 of ${merged.totalCount}`);
  });

  await check('the list is there again without a request', async () => {
    const { data } = await client.query({ query: LIST, variables: { first: 10 } });
    assert.equal(data.appointments.edges.length, 20);
    assert.deepEqual(sent, ['List', 'List']);
  });

  await check('the answer of a mutation changes the list without another request', async () => {
    const durationInMinutes = another(subject.durationInMinutes);
    const { data } = await update(client, durationInMinutes);
    assert.deepEqual(data.updateAppointment.userErrors, []);
    assert.equal(shown()[12].id, subject.id);
    assert.equal(shown()[12].durationInMinutes, durationInMinutes);
    assert.deepEqual(sent, ['List', 'List', 'Update']);
    console.log(`     ${subject.durationInMinutes} minutes became ${durationInMinutes}`);
  });

  await check('what is wrong with the input comes as userErrors, and the cache stays as it is', async () => {
    const before = shown();
    const { data, error } = await update(client, 0);
    assert.equal(error, undefined);
    assert.equal(data.updateAppointment.appointment, null);
    const [userError] = data.updateAppointment.userErrors;
    assert.deepEqual(userError.field, ['durationInMinutes']);
    assert.ok(userError.message);
    assert.deepEqual(shown(), before);
    console.log(`     ${userError.field.join('.')}: ${userError.message}`);
  });

  await check('an error of a field brings its code and leaves the rest', async () => {
    // The upstream refuses this token.
    const unknown = app({ Authorization: 'Bearer nobody' });
    const { data, error } = await unknown.query({ query: ONE, variables: { id: subject.id }, errorPolicy: 'all' });
    assert.equal(data.appointment, null);
    assertCode(error, 'UNAUTHENTICATED');
    assert.deepEqual(error.errors[0].path, ['appointment']);
  });

  await check('an error of a request, which has a status of its own, brings its code as well', async () => {
    await assert.rejects(client.query({ query: ONE, variables: { id: 'none' } }), (error) =>
      assertCode(error, 'BAD_USER_INPUT'),
    );
    await assert.rejects(client.query({ query: gql`{ nonsense }` }), (error) =>
      assertCode(error, 'GRAPHQL_VALIDATION_FAILED'),
    );
  });

  await check('a subscription brings the appointment at once, then each change of another app, and to the list as well', async () => {
    const before = shown()[12].durationInMinutes;
    const after = another(before);
    const results = watch(subject.id);
    const now = await nth(results, 0);
    assert.equal(now.data.appointmentChanged.durationInMinutes, before);

    const requests = sent.length;
    const started = performance.now();
    await update(other, after);
    const { data } = await nth(results, 1);
    console.log(`     ${Math.round(performance.now() - started)} ms from the change to the other app`);
    assert.equal(data.appointmentChanged.durationInMinutes, after);
    assert.equal(shown()[12].durationInMinutes, after);
    assert.deepEqual(sent.slice(requests), ['Update']);
  });

  await check('an error of a subscription brings its code and ends it', async () => {
    const results = watch(ids.at(-1));
    const { error } = await nth(results, 0);
    assertCode(error, 'NOT_FOUND');
    assert.equal(await firstValueFrom(results.pipe(count(), timeout(PATIENCE_MS))), 1);
  });

  finish();
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
} finally {
  screen.unsubscribe();
  await socket.dispose();
}

/** Apollo Client as its own documentation sets it up. */
function app(headers) {
  const http = new HttpLink({ uri: endpoint, headers, fetch: counted });
  return new ApolloClient({
    link: ApolloLink.split(
      ({ operationType }) => operationType === OperationTypeNode.SUBSCRIPTION,
      new GraphQLWsLink(socket),
      http,
    ),
    cache: new InMemoryCache({ typePolicies: { Query: { fields: { appointments: relayStylePagination() } } } }),
  });
}

function counted(target, init) {
  sent.push(JSON.parse(init.body).operationName);
  return fetch(target, init);
}

function update(through, durationInMinutes) {
  return through.mutate({ mutation: UPDATE, variables: { id: subject.id, input: { durationInMinutes } } });
}

/** A duration that is not this one, so that the change is one however often this program has run. */
function another(durationInMinutes) {
  return durationInMinutes === 25 ? 35 : 25;
}

/** Every result of a subscription from the first on, for whoever looks and whenever; it goes on to the program's end. */
function watch(id) {
  const results = client.subscribe({ query: CHANGED, variables: { id } }).pipe(shareReplay());
  results.subscribe();
  return results;
}

function nth(results, index) {
  return firstValueFrom(results.pipe(elementAt(index), timeout(PATIENCE_MS)));
}

/** That an error is what Apollo Client makes of a GraphQL answer, where an app finds its code. */
function assertCode(error, code) {
  assert.ok(CombinedGraphQLErrors.is(error), `not from GraphQL: ${error}`);
  assert.equal(error.errors[0].extensions.code, code);
  console.log(`     ${code}: ${error.message}`);
  return true;
}
