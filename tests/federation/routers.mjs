// Routers in front of the gateway and a second subgraph. Prints the response of each, and the requests that reached the
// gateway, as JSON.
// Usage: node routers.mjs apollo|hive URL TOKEN ID…
import { ApolloGateway, IntrospectAndCompose, RemoteGraphQLDataSource } from '@apollo/gateway';
import { createGatewayRuntime } from '@graphql-hive/gateway';
import { composeServices } from '@theguild/federation-composition';
import { parse } from 'graphql';
import { recorded, serveNotes } from './notes.mjs';

const [router, base, token, ...ids] = process.argv.slice(2);
const appointments = await recorded(new URL('/graphql', base).href);
const notes = await serveNotes();
const authorization = `Bearer ${token}`;

const JOINED = `query ($ids: [ID!]!) {
  visits(ids: $ids) { nodes { room appointment { id note reference status } } pageInfo { hasNextPage } }
}`;
const EXTENDED = 'query ($id: UUID!) { appointment(id: $id) { reference note } }';

const routers = {
  /** Composes by itself: it reads the subgraphs from `_service`, without a credential. */
  async apollo() {
    const gateway = new ApolloGateway({
      supergraphSdl: new IntrospectAndCompose({
        subgraphs: [
          { name: 'appointments', url: appointments.url },
          { name: 'notes', url: notes },
        ],
      }),
      buildService: ({ url }) =>
        new RemoteGraphQLDataSource({
          url,
          willSendRequest({ request, context }) {
            if (context.authorization) request.http.headers.set('authorization', context.authorization);
          },
        }),
      logger: { debug() {}, info() {}, warn: console.error, error: console.error },
    });
    const { schema, executor } = await gateway.load();
    const run = async (query, variables) => {
      const result = await executor({
        document: parse(query),
        request: { query, variables },
        context: { authorization },
        queryHash: query,
        operationName: null,
        metrics: {},
        overallCachePolicy: { restrict() {} },
        schema,
        logger: console,
        cache: new Map(),
      });
      return JSON.parse(JSON.stringify(result));
    };
    return { run, stop: () => gateway.stop() };
  },

  async hive() {
    const reply = await fetch(appointments.url, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ query: '{ _service { sdl } }' }),
    });
    const { data } = await reply.json();
    const { NOTES } = await import('./notes.mjs');
    const { supergraphSdl, errors } = composeServices([
      { name: 'appointments', url: appointments.url, typeDefs: parse(data._service.sdl) },
      { name: 'notes', url: notes, typeDefs: parse(NOTES) },
    ]);
    if (errors?.length) throw new Error(errors.join('\n'));
    const gateway = createGatewayRuntime({
      supergraph: supergraphSdl,
      logging: false,
      propagateHeaders: {
        fromClientToSubgraphs: ({ request }) => ({ authorization: request.headers.get('authorization') }),
      },
    });
    const run = async (query, variables) => {
      const reply = await gateway.fetch('http://router/graphql', {
        method: 'POST',
        headers: { 'content-type': 'application/json', accept: 'application/json', authorization },
        body: JSON.stringify({ query, variables }),
      });
      return reply.json();
    };
    return { run, stop: () => gateway[Symbol.asyncDispose]?.() };
  },
};

const { run, stop } = await routers[router]();
const started = appointments.requests.splice(0);
const joined = await run(JOINED, { ids });
const during = appointments.requests.splice(0);
const extended = await run(EXTENDED, { id: ids[0] });
await stop();
const output = JSON.stringify({ started, joined, during, extended });
process.stdout.write(output, () => process.exit(0));
