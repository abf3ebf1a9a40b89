// The day of an agent: some appointments, as the page shows them.
import type { TypedDocumentNode } from '@graphql-typed-document-node/core';
import type { Client } from '@urql/core';
import { GatewayError, codeOf } from './gateway.js';
import { graphql } from './gql/gql.js';

// Each part of the page has a query of its own, and selects only the fields that it shows.

const Schedule = graphql(`
  query Schedule($ids: [UUID!]!) {
    appointmentsByIds(ids: $ids) {
      reference
      appointmentAt
      endsAt
      phase
      department {
        name
      }
    }
  }
`);

const Contacts = graphql(`
  query Contacts($ids: [UUID!]!) {
    appointmentsByIds(ids: $ids) {
      interpreterLanguage
      claimant {
        name
        phoneNumber
      }
    }
  }
`);

/** An appointment, or the reason why it is not shown: an error code of the gateway, or `UNKNOWN` without an error. */
export type Entry = { id: string } & (
  | { problem: string }
  | {
      reference: string | null;
      start: string | null;
      end: string | null;
      phase: string;
      department: string | null;
      claimant: string | null;
      phone: string | null;
      interpreter: string | null;
      /** Fields that are null because of an error. */
      incomplete: string[];
    }
);

/** Reads the appointments `ids`, in that order. */
export async function readDay(client: Client, ids: string[]): Promise<Entry[]> {
  // Both queries run at the same time. The gateway fetches each appointment once for both, however often an id occurs.
  const [schedule, contacts] = await Promise.all([read(client, Schedule, ids), read(client, Contacts, ids)]);
  return ids.map((id, index) => {
    const [plan, contact] = [schedule[index], contacts[index]];
    if (!plan?.item || !contact?.item) {
      return { id, problem: plan?.codes[0] ?? contact?.codes[0] ?? 'UNKNOWN' };
    }
    return {
      id,
      reference: plan.item.reference,
      start: plan.item.appointmentAt,
      end: plan.item.endsAt,
      phase: plan.item.phase,
      department: plan.item.department?.name ?? null,
      claimant: contact.item.claimant?.name ?? null,
      phone: contact.item.claimant?.phoneNumber ?? null,
      interpreter: contact.item.interpreterLanguage,
      incomplete: [...plan.paths, ...contact.paths],
    };
  });
}

/** The appointment at one index of a response, with the errors there: their codes, and their paths below it. */
type Read<Item> = { item: Item | null; codes: string[]; paths: string[] };

async function read<Item>(
  client: Client,
  document: TypedDocumentNode<{ appointmentsByIds: (Item | null)[] }, { ids: string[] }>,
  ids: string[],
): Promise<Read<Item>[]> {
  const { data, error } = await client.query(document, { ids }).toPromise();
  const items = data?.appointmentsByIds ?? [];
  // Partial data is the usual case of a failure: one forbidden appointment costs the agent that one only. If there is
  // nothing to show, the first error is the answer.
  if (error && !items.some((item) => item !== null)) throw new GatewayError(error);
  return items.map((item, index) => {
    // The path of an error is `appointmentsByIds`, the index, and the names of the fields below.
    const errors = error?.graphQLErrors.filter(({ path }) => path?.[1] === index) ?? [];
    return {
      item,
      codes: errors.map(codeOf),
      paths: errors.flatMap(({ path }) => path?.slice(2).join('.') || []),
    };
  });
}
