import { getOperationAST } from 'graphql';
import { events } from './event-stream.js';

/** Stands where the token belongs as long as nobody pasted one. */
export const PASTE_HERE = 'PASTE-YOUR-TOKEN';

/** How operations travel, by kind. */
const transports = { query: ask, mutation: ask, subscription: watch };

/**
 * GraphiQL's way to the gateway. Whatever goes wrong on the way is told as GraphQL tells it: GraphiQL would show the
 * stack of a thrown error to somebody who merely mistyped a header.
 */
export function fetcher(url) {
  return async (request, { headers = {}, documentAST } = {}) => {
    try {
      // The schema is open to all, so the docs must not hang on a token that is wrong or not there yet.
      if (request.operationName === 'IntrospectionQuery') return await ask(url, request, new Headers());

      // A document that cannot be read is for the gateway to judge.
      const operation = documentAST && getOperationAST(documentAST, request.operationName);
      return await transports[operation?.operation ?? 'query'](url, request, checked(headers));
    } catch (error) {
      return failure(error);
    }
  };
}

/** One request, one answer. */
async function ask(url, request, headers) {
  headers.set('Accept', 'application/graphql-response+json, application/json');
  return json(await post(url, request, headers));
}

/**
 * One request and a stream of server-sent events: the results one by one. What is returned is an observable, since
 * GraphiQL stops one at once; to stop an async iterable that waits for its next result, it would have to wait as well.
 */
function watch(url, request, headers) {
  headers.set('Accept', 'text/event-stream');
  return {
    subscribe(observer) {
      const stop = new AbortController();
      // Ends are told as results too. After a stop there is nobody to tell.
      const tell = (result) => stop.signal.aborted || observer.next(result);
      follow(url, request, headers, stop.signal, tell)
        .catch((error) => tell(failure(error)))
        .then(() => stop.signal.aborted || observer.complete());
      return { unsubscribe: () => stop.abort() };
    },
  };
}

async function follow(url, request, headers, signal, tell) {
  const response = await post(url, request, headers, signal);
  // A refusal comes as any other answer does.
  if (!response.headers.get('Content-Type')?.startsWith('text/event-stream')) return tell(await json(response));

  try {
    for await (const { type, data } of events(response.body)) {
      if (type === 'next') tell(JSON.parse(data));
      if (type === 'complete') return;
    }
  } catch {
    throw new Error('The connection to the gateway broke, so this is no longer live. Play it again to go on.');
  }
  throw new Error('The gateway closed the connection, so this is no longer live. Play it again to go on.');
}

async function post(url, request, headers, signal) {
  headers.set('Content-Type', 'application/json');
  try {
    return await fetch(url, { method: 'POST', headers, body: JSON.stringify(request), signal });
  } catch {
    throw new Error('No answer: the gateway cannot be reached.');
  }
}

async function json(response) {
  try {
    return await response.json();
  } catch {
    throw new Error(`The answer is no JSON; its status is ${response.status} ${response.statusText}.`);
  }
}

function failure({ message }) {
  return { errors: [{ message }] };
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
