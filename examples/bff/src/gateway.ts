// Access to the gateway on behalf of one caller, and its errors in terms of HTTP.
import { createHash } from 'node:crypto';
import { Client, fetchExchange, type CombinedError } from '@urql/core';
import { persistedExchange } from '@urql/exchange-persisted';

const GATEWAY_URL = process.env['GATEWAY_URL'] ?? 'http://127.0.0.1:8080/graphql';

/** The time that a page may take. The gateway then returns the data that it has, and errors for the rest. */
const TIMEOUT = '3s';

/**
 * A client for one incoming request, with the caller's `Authorization` header.
 *
 * Never share a client between callers: urql gives equal operations one result, whatever their headers.
 */
export function gatewayClient(authorization: string | undefined): Client {
  return new Client({
    url: GATEWAY_URL,
    exchanges: [
      // Names each query by its hash, in a GET. The gateway has the text after the first time.
      persistedExchange({
        preferGetForPersistedQueries: true,
        generateHash: async (text) => createHash('sha256').update(text).digest('hex'),
      }),
      fetchExchange,
    ],
    preferGetMethod: false,
    fetchOptions: {
      headers: {
        'X-Request-Timeout': TIMEOUT,
        ...(authorization === undefined ? {} : { Authorization: authorization }),
      },
    },
  });
}

/** The HTTP status of this server for an error code of the gateway. Any other code is 502. */
const STATUSES: Record<string, number> = {
  BAD_USER_INPUT: 400,
  UNAUTHENTICATED: 401,
  FORBIDDEN: 403,
  RATE_LIMITED: 429,
  OVERLOADED: 503,
  UPSTREAM_UNAVAILABLE: 503,
  UPSTREAM_TIMEOUT: 504,
};

/** A request to the gateway that returned no data. */
export class GatewayError extends Error {
  readonly code: string;
  readonly status: number;
  /** The pause that the gateway asks for. */
  readonly retryAfterSeconds: number | undefined;

  constructor(error: CombinedError) {
    const [first] = error.graphQLErrors;
    super(first?.message ?? 'The gateway cannot be reached.', { cause: error });
    // The code says what happened. The HTTP status of the response adds nothing to it.
    this.code = first === undefined ? 'GATEWAY_UNREACHABLE' : codeOf(first);
    this.status = STATUSES[this.code] ?? 502;
    const pause = first?.extensions['retryAfterSeconds'];
    this.retryAfterSeconds = typeof pause === 'number' ? pause : undefined;
  }
}

/** The stable code of an error. Messages are for people and may change. */
export function codeOf(error: CombinedError['graphQLErrors'][number]): string {
  const code = error.extensions['code'];
  return typeof code === 'string' ? code : 'INTERNAL';
}
