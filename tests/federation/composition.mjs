// Composes the gateway's subgraph, alone and with a second one, with each composition library.
// Usage: node composition.mjs SUBGRAPH_FILE
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import * as apollo from '@apollo/composition';
import * as guild from '@theguild/federation-composition';
import * as wundergraph from '@wundergraph/composition';
import { buildASTSchema, parse } from 'graphql';
import { NOTES } from './notes.mjs';

// For contracts, @wundergraph/composition uses methods of sets that Node.js has from version 22 on.
Set.prototype.isDisjointFrom ??= function (other) {
  return [...this].every((item) => !other.has(item));
};

const [file] = process.argv.slice(2);
const subgraph = (name, sdl) => ({ name, url: `http://${name}.example/graphql`, typeDefs: parse(sdl) });
const appointments = subgraph('appointments', readFileSync(file, 'utf8'));
const notes = subgraph('notes', NOTES);

/** Every library returns the field names of an object type of the composed graph. */
const composers = {
  apollo(subgraphs) {
    const { errors, hints, schema } = apollo.composeServices(subgraphs);
    assert.deepEqual((errors ?? []).map(String), []);
    assert.deepEqual((hints ?? []).map(String), []);
    return (type) => schema.type(type)?.fields().map((field) => field.name);
  },
  guild(subgraphs) {
    const { errors, publicSdl } = guild.composeServices(subgraphs);
    assert.deepEqual((errors ?? []).map(String), []);
    return fieldsOf(buildASTSchema(parse(publicSdl)));
  },
  wundergraph(subgraphs) {
    const result = wundergraph.federateSubgraphs({ subgraphs: wundergraphs(subgraphs), version: LATEST });
    assert.ok(result.success, String(result.errors));
    return fieldsOf(result.federatedGraphClientSchema);
  },
};

const LATEST = wundergraph.LATEST_ROUTER_COMPATIBILITY_VERSION;

function wundergraphs(subgraphs) {
  return subgraphs.map(({ name, url, typeDefs }) => ({ name, url, definitions: typeDefs }));
}

function fieldsOf(schema) {
  return (type) => {
    const known = schema.getType(type);
    return known && Object.keys(known.getFields());
  };
}

for (const [name, compose] of Object.entries(composers)) {
  const alone = compose([appointments]);
  for (const field of ['appointment', 'appointmentsByIds', 'appointments']) assert.ok(alone('Query').includes(field));
  assert.ok(alone('Subscription').includes('appointmentChanged'));
  assert.ok(alone('Appointment').includes('claimant'));
  const joined = compose([appointments, notes]);
  for (const field of ['note', 'status', 'claimant']) assert.ok(joined('Appointment').includes(field), `${name}: ${field}`);
  assert.ok(joined('Query').includes('visits'));
  console.log(`ok   ${name}`);
}

// A contract that excludes personal data.
const tagOptionsByContractName = new Map([
  ['public', { tagNamesToExclude: new Set(['personal-data']), tagNamesToInclude: new Set() }],
]);
const contracts = wundergraph.federateSubgraphsWithContracts({
  subgraphs: wundergraphs([appointments, notes]),
  tagOptionsByContractName,
  version: LATEST,
});
assert.ok(contracts.success, String(contracts.errors));
const contract = contracts.federationResultByContractName.get('public');
assert.ok(contract.success, String(contract.errors));
const fields = fieldsOf(contract.federatedGraphClientSchema);
for (const type of ['Claimant', 'ClaimantField', 'ClaimantInput']) assert.equal(fields(type), undefined);
assert.ok(fields('Appointment').includes('status'));
for (const field of ['claimant', 'cancellationReason']) assert.ok(!fields('Appointment').includes(field));
assert.ok(!fields('CreateAppointmentInput').includes('claimant'));
console.log('ok   contract without personal data');
