// A backend for frontends: one page, `GET /day?id=…&id=…`, as JSON or as HTML.
//
// It holds no credential. The caller's token goes to the gateway as it is, and decides what the page shows.
import { createServer, type IncomingMessage, type OutgoingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';
import { readDay } from './day.js';
import { GatewayError, gatewayClient } from './gateway.js';
import { page } from './page.js';

/** The gateway's own limit is 100. */
const MAX_IDS = 50;

interface Answer {
  status: number;
  headers?: OutgoingHttpHeaders;
  /** HTML, or a value that becomes JSON. */
  body: string | object;
}

async function answer(request: IncomingMessage): Promise<Answer> {
  const { pathname, searchParams } = new URL(request.url ?? '/', 'http://localhost');
  if (pathname !== '/day') return { status: 404, body: { error: 'NOT_FOUND' } };
  if (request.method !== 'GET') return { status: 405, headers: { Allow: 'GET' }, body: { error: 'METHOD_NOT_ALLOWED' } };
  const ids = searchParams.getAll('id');
  if (ids.length === 0 || ids.length > MAX_IDS) return { status: 400, body: { error: 'BAD_USER_INPUT' } };

  try {
    const entries = await readDay(gatewayClient(request.headers.authorization), ids);
    const isForBrowser = request.headers.accept?.includes('text/html') ?? false;
    return { status: 200, body: isForBrowser ? page(entries) : { appointments: entries } };
  } catch (error) {
    if (!(error instanceof GatewayError)) throw error;
    return {
      status: error.status,
      headers: {
        // The frontend signs in again after 401, and waits after 429 and 503.
        ...(error.status === 401 ? { 'WWW-Authenticate': 'Bearer' } : {}),
        ...(error.retryAfterSeconds === undefined ? {} : { 'Retry-After': error.retryAfterSeconds }),
      },
      body: { error: error.code },
    };
  }
}

const server = createServer((request, response) => {
  answer(request)
    .catch((error: unknown): Answer => {
      console.error('request failed:', error);
      return { status: 500, body: { error: 'INTERNAL' } };
    })
    .then(({ status, headers, body }) => {
      const isHtml = typeof body === 'string';
      response.writeHead(status, {
        'Content-Type': isHtml ? 'text/html; charset=utf-8' : 'application/json',
        // Personal data stays out of every cache.
        'Cache-Control': 'no-store',
        ...headers,
      });
      response.end(isHtml ? body : JSON.stringify(body));
    });
});

server.listen(Number(process.env['PORT'] ?? 3000), '127.0.0.1', () => {
  console.log(`Listening on http://127.0.0.1:${(server.address() as AddressInfo).port}`);
});
