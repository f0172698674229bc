// A function is an HTTP server. This one greets, and counts how often it greeted whom.
const http = require('node:http');

// State is Dapr's state API; a Dapr SDK works as well.
const store = `http://127.0.0.1:${process.env.DAPR_HTTP_PORT}/v1.0/state/statestore`;

// state sends with which call this belongs to, and the token of this instance.
async function state(call, method, path, body) {
  const reply = await fetch(store + path, {
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

async function hello(request) {
  const path = decodeURIComponent(request.url.split('?')[0]);
  const name = path.replace(/^\/hello/, '').replace(/\//g, '') || 'world';
  const call = request.headers['quipu-call-id'] ?? '';
  const found = await state(call, 'GET', '/' + encodeURIComponent(name));
  const count = JSON.parse(found || '0') + 1; // nothing found: not there yet
  await state(call, 'POST', '', [{ key: name, value: count }]);
  return `hello, ${name}! You were greeted ${count} times.\n`;
}

const server = http.createServer(async (request, response) => {
  request.resume(); // the body is not needed
  try {
    response.end(await hello(request));
  } catch (problem) {
    response.statusCode = 500; // 400 or above commits nothing
    response.end(`${problem.message}\n`);
  }
});

// Listen where the platform expects the function.
if (process.env.QUIPU_SOCKET) {
  server.listen(process.env.QUIPU_SOCKET);
} else {
  server.listen(Number(process.env.PORT), '127.0.0.1');
}
