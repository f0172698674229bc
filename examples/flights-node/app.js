// What both functions need: state, through Dapr's HTTP API, and a server where the platform asks for it.
const http = require('node:http');

const state = `http://127.0.0.1:${process.env.DAPR_HTTP_PORT}/v1.0/state/shared`;

// getAll reads many keys in one request. A key without a value is not in the answer.
async function getAll(keys) {
  const items = JSON.parse(await send('/bulk', { keys }));
  return new Map(items.filter((item) => item.data != null).map((item) => [item.key, item.data]));
}

// setAll writes many keys in one request.
async function setAll(changes) {
  await send('', [...changes].map(([key, value]) => ({ key, value })));
}

async function send(path, body) {
  const reply = await fetch(state + path, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'dapr-api-token': process.env.DAPR_API_TOKEN ?? '' },
    body: JSON.stringify(body),
  });
  const text = await reply.text();
  if (!reply.ok) throw new Error(`state${path}: ${reply.status}: ${text}`);
  return text;
}

// BadRequest: the request cannot be understood.
class BadRequest extends Error {}

async function read(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  return Buffer.concat(parts).toString();
}

// serve answers each request with what handle makes of its body.
function serve(handle) {
  const server = http.createServer(async (request, response) => {
    response.setHeader('Content-Type', 'application/json');
    try {
      response.end(JSON.stringify(await handle(await read(request))) + '\n');
    } catch (problem) {
      response.statusCode = problem instanceof BadRequest ? 400 : 500; // 400 and above commits nothing
      response.end(JSON.stringify({ error: problem.message }) + '\n');
      console.error(problem.message);
    }
  });
  if (process.env.QUIPU_SOCKET) {
    server.listen(process.env.QUIPU_SOCKET);
  } else {
    server.listen(Number(process.env.PORT), '127.0.0.1');
  }
}

module.exports = { BadRequest, getAll, serve, setAll };
