// What the functions need: state and topics, through Dapr's HTTP API, and a server where the platform asks for it.
const http = require('node:http');

const dapr = `http://127.0.0.1:${process.env.DAPR_HTTP_PORT}/v1.0`;

// get answers the value of key, or undefined if it has none.
async function get(key) {
  const text = await send('GET', `/state/shared/${encodeURIComponent(key)}`);
  return text ? JSON.parse(text) : undefined;
}

const put = (key, value) => send('POST', '/state/shared', [{ key, value }]);

const publish = (topic, data) => send('POST', `/publish/pubsub/${topic}`, data);

async function send(method, path, body) {
  const reply = await fetch(dapr + path, {
    method,
    headers: { 'Content-Type': 'application/json', 'dapr-api-token': process.env.DAPR_API_TOKEN ?? '' },
    body: body && JSON.stringify(body),
  });
  const text = await reply.text();
  if (!reply.ok) throw new Error(`${path}: ${reply.status}: ${text}`);
  return text;
}

// Refusal is an answer to who asked for what cannot be.
class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function read(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  const text = Buffer.concat(parts).toString();
  try {
    return text ? JSON.parse(text) : undefined;
  } catch (problem) {
    throw new Refusal(400, `not JSON: ${problem.message}`);
  }
}

// serve answers each request with what handle makes of its body.
function serve(handle) {
  const server = http.createServer(async (request, response) => {
    response.setHeader('Content-Type', 'application/json');
    try {
      response.end(JSON.stringify(await handle(await read(request))) + '\n');
    } catch (problem) {
      response.statusCode = problem.status ?? 500; // 400 and above commits nothing
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

module.exports = { Refusal, get, publish, put, serve };
