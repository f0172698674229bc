// A function is an HTTP server. This one greets, and counts how often it greeted whom.
import http from 'node:http';
import { greet, type Store } from './greet.js';

// State is Dapr's state API; a Dapr SDK works as well.
const url = `http://127.0.0.1:${process.env.DAPR_HTTP_PORT}/v1.0/state/statestore`;

// storeOf says with each request which call it belongs to, and has the token of this instance.
function storeOf(call: string): Store {
  async function send(method: string, path: string, body?: unknown): Promise<string> {
    const reply = await fetch(url + path, {
      method,
      headers: {
        'Content-Type': 'application/json',
        'Quipu-Call-Id': call,
        'dapr-api-token': process.env.DAPR_API_TOKEN ?? '',
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await reply.text();
    if (!reply.ok) throw new Error(`${reply.status}: ${text}`);
    return text;
  }
  return {
    async get(key) {
      const text = await send('GET', '/' + encodeURIComponent(key));
      return text === '' ? undefined : (JSON.parse(text) as number); // nothing found: not there yet
    },
    async set(key, value) {
      await send('POST', '', [{ key, value }]);
    },
  };
}

const server = http.createServer(async (request, response) => {
  request.resume(); // the body is not needed
  try {
    const path = decodeURIComponent((request.url ?? '/').split('?')[0]);
    const name = path.replace(/^\/hello/, '').replace(/\//g, '') || 'world';
    response.end(await greet(storeOf(String(request.headers['quipu-call-id'] ?? '')), name));
  } catch (problem) {
    response.statusCode = 500; // 400 or above commits nothing
    response.end(`${(problem as Error).message}\n`);
  }
});

// Listen where the platform expects the function.
if (process.env.QUIPU_SOCKET) {
  server.listen(process.env.QUIPU_SOCKET);
} else {
  server.listen(Number(process.env.PORT), '127.0.0.1');
}
