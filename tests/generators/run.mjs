// Apps that send the ids of their generated manifests, and no text.
// Usage: node run.mjs URL TOKEN DIRECTORY ID
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ApolloClient, HttpLink, InMemoryCache, gql } from '@apollo/client';
import { createPersistedQueryLink } from '@apollo/client/link/persisted-queries';
import { generatePersistedQueryIdsFromManifest } from '@apollo/persisted-query-lists';
import relay from 'relay-runtime';
import { documents } from './documents.mjs';

const [url, token, directory, id] = process.argv.slice(2);
if (!id) {
  console.error('Usage: node run.mjs URL TOKEN DIRECTORY ID');
  process.exit(2);
}
const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
const accept = 'application/graphql-response+json';

/** Sends a request without a text, and returns its response document. */
async function post(parameters) {
  assert.equal(parameters.query, undefined);
  const response = await fetch(url, { method: 'POST', headers: { ...headers, accept }, body: JSON.stringify(parameters) });
  return await response.json();
}

/** Reads the first event of a subscription. */
async function firstEvent(parameters) {
  const response = await fetch(url, {
    method: 'POST',
    headers: { ...headers, accept: 'text/event-stream' },
    body: JSON.stringify(parameters),
  });
  let text = '';
  for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
    text += chunk;
    if (text.includes('\n\n')) break;
  }
  return JSON.parse(text.match(/^data: (.*)$/m)[1]);
}

function assertServed({ appointment, list, cancelled, changed }) {
  assert.equal(appointment.id, id);
  assert.equal(list.nodes.length, 2);
  assert.equal(cancelled.appointment.status, 'cancelled');
  if (changed) assert.equal(changed.id, id);
}

// Apollo Client, whose link takes the ids from the manifest.
{
  const [fragment, ...operations] = documents('Apollo');
  const [appointment, list, cancel] = operations.map((it) => gql(it.includes('_parts') ? `${it}\n${fragment}` : it));
  const manifest = JSON.parse(readFileSync(join(directory, 'manifests/apollo.json'), 'utf8'));
  const texts = [];
  const recording = (input, options) => {
    texts.push(...[JSON.parse(options.body).query].filter(Boolean));
    return fetch(input, options);
  };
  const ids = generatePersistedQueryIdsFromManifest({ loadManifest: async () => manifest });
  const link = createPersistedQueryLink(ids).concat(new HttpLink({ uri: url, headers, fetch: recording }));
  const client = new ApolloClient({ link, cache: new InMemoryCache() });
  assertServed({
    appointment: (await client.query({ query: appointment, variables: { id } })).data.appointment,
    list: (await client.query({ query: list })).data.appointments,
    cancelled: (await client.mutate({ mutation: cancel, variables: { id } })).data.cancelAppointment,
  });
  assert.deepEqual(texts, []);
  console.log('ok    Apollo Client');
}

// Relay, with the network layer of its documentation.
{
  const { Environment, Network, RecordSource, Store, commitMutation, fetchQuery } = relay;
  const artifact = async (name) =>
    (await import(pathToFileURL(resolve(directory, `relay/src/__generated__/Relay${name}.graphql.js`)).href)).default;
  const network = Network.create(({ id: doc_id, text }, variables) => {
    assert.equal(text, null);
    return post({ doc_id, variables });
  });
  const environment = new Environment({ network, store: new Store(new RecordSource()) });
  await fetchQuery(environment, await artifact('AppointmentQuery'), { id }).toPromise();
  const cancel = await artifact('CancelMutation');
  const cancelled = await new Promise((onCompleted, onError) =>
    commitMutation(environment, { mutation: cancel, variables: { id }, onCompleted, onError }),
  );
  const run = async (name, variables) => post({ id: (await artifact(name)).params.id, variables });
  assertServed({
    appointment: (await run('AppointmentQuery', { id })).data.appointment,
    list: (await run('ListQuery', {})).data.appointments,
    cancelled: cancelled.cancelAppointment,
    changed: (await firstEvent({ doc_id: (await artifact('ChangedSubscription')).params.id, variables: { id } })).data
      .appointmentChanged,
  });
  console.log('ok    Relay');
}

// GraphQL Codegen writes the hash into the generated documents.
{
  const generated = readFileSync(join(directory, 'codegen/generated/graphql.ts'), 'utf8');
  const hashes = [...generated.matchAll(/export const Codegen(\w+)Document = .*?"hash":"([^"]+)"/g)];
  const documentIds = Object.fromEntries(hashes.map(([, name, hash]) => [name, hash]));
  const run = async (name, variables) => (await post({ documentId: documentIds[name], variables })).data;
  assertServed({
    appointment: (await run('AppointmentQuery', { id })).appointment,
    list: (await run('ListQuery', { first: 2 })).appointments,
    cancelled: (await run('CancelMutation', { id })).cancelAppointment,
    changed: (await firstEvent({ documentId: documentIds.ChangedSubscription, variables: { id } })).data
      .appointmentChanged,
  });
  console.log('ok    GraphQL Codegen');
}
