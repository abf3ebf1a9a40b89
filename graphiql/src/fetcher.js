import { getOperationAST } from 'graphql';

/** Stands where the token belongs as long as nobody pasted one. */
export const PASTE_HERE = 'PASTE-YOUR-TOKEN';

/** How operations travel, by kind. */
const transports = { query: post, mutation: post };

/**
 * GraphiQL's way to the gateway. Whatever goes wrong on the way is told as GraphQL tells it: GraphiQL would show the
 * stack of a thrown error to somebody who merely mistyped a header.
 */
export function fetcher(url) {
  return async (request, { headers = {}, documentAST } = {}) => {
    try {
      // The schema is open to all, so the docs must not hang on a token that is wrong or not there yet.
      if (request.operationName === 'IntrospectionQuery') return await post(url, request, new Headers());

      // A document that cannot be read is for the gateway to judge.
      const operation = documentAST && getOperationAST(documentAST, request.operationName);
      const send = transports[operation?.operation ?? 'query'];
      if (!send) throw new Error(`This page cannot play a ${operation.operation}.`);
      return await send(url, request, checked(headers));
    } catch (error) {
      return { errors: [{ message: error.message }] };
    }
  };
}

async function post(url, request, headers) {
  headers.set('Content-Type', 'application/json');
  headers.set('Accept', 'application/graphql-response+json, application/json');

  let response;
  try {
    response = await fetch(url, { method: 'POST', headers, body: JSON.stringify(request) });
  } catch {
    throw new Error('No answer: the gateway cannot be reached.');
  }
  try {
    return await response.json();
  } catch {
    throw new Error(`The answer is no JSON; its status is ${response.status} ${response.statusText}.`);
  }
}

/** The headers pane as the browser takes it, or what is wrong with it in words. */
function checked(pane) {
  const headers = new Headers();
  for (const [name, value] of Object.entries(pane)) {
    if (typeof value !== 'string') throw new Error(`Headers: the value of "${name}" must be a text in double quotes.`);
    if (value.includes(PASTE_HERE)) throw new Error(`Headers: put your token in place of ${PASTE_HERE} first.`);
    try {
      headers.set(name, value);
    } catch {
      throw new Error(`Headers: "${name}" or its value holds a character that a header cannot carry.`);
    }
  }
  return headers;
}
