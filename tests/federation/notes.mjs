// A second subgraph: visits refer to appointments of the gateway, and each appointment has a note.
import { createServer } from 'node:http';
import { buildSubgraphSchema } from '@apollo/subgraph';
import { graphql, parse } from 'graphql';

/** PageInfo has the same fields as the gateway's, which marks the type as shareable. */
export const NOTES = `
  extend schema @link(url: "https://specs.apollo.dev/federation/v2.5", import: ["@key", "@shareable"])

  type Query {
    visits(ids: [ID!]!): VisitConnection!
  }

  type VisitConnection {
    nodes: [Visit!]!
    pageInfo: PageInfo!
  }

  type PageInfo @shareable {
    hasNextPage: Boolean!
    hasPreviousPage: Boolean!
    startCursor: String
    endCursor: String
  }

  type Visit {
    room: String!
    appointment: Appointment!
  }

  type Appointment @key(fields: "id") {
    id: UUID!
    note: String
  }

  scalar UUID
`;

const resolvers = {
  Query: {
    visits: (_, { ids }) => ({
      nodes: ids.map((id, index) => ({ room: `room ${index}`, appointment: { id } })),
      pageInfo: { hasNextPage: false, hasPreviousPage: false },
    }),
  },
  Appointment: { __resolveReference: ({ id }) => ({ id }), note: ({ id }) => `note ${id}` },
};

/** Serves the subgraph on a free port, and returns its address. */
export async function serveNotes() {
  const schema = buildSubgraphSchema({ typeDefs: parse(NOTES), resolvers });
  return listen(async (request, response) => {
    const { query, variables, operationName } = JSON.parse(await text(request));
    const result = await graphql({ schema, source: query, variableValues: variables, operationName });
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify(result));
  });
}

/** Forwards requests to `endpoint` on a free port, and records them. Returns its address and the requests. */
export async function recorded(endpoint) {
  const requests = [];
  const url = await listen(async (request, response) => {
    const body = await text(request);
    const { authorization, accept } = request.headers;
    requests.push({ authorization, query: JSON.parse(body).query });
    const headers = { 'content-type': 'application/json', accept: accept ?? '*/*' };
    if (authorization) headers.authorization = authorization;
    const reply = await fetch(endpoint, { method: request.method, headers, body });
    response.statusCode = reply.status;
    response.setHeader('content-type', reply.headers.get('content-type'));
    response.end(await reply.text());
  });
  return { url, requests };
}

async function text(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

async function listen(handle) {
  const server = createServer((request, response) => {
    handle(request, response).catch((error) => {
      response.statusCode = 500;
      response.end(String(error));
    });
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return `http://127.0.0.1:${server.address().port}/graphql`;
}
