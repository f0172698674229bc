// What the functions need: state, topics and secrets, through Dapr's HTTP API, and a server where the platform asks for it.
const http = require('node:http');

const dapr = `http://127.0.0.1:${process.env.DAPR_HTTP_PORT}/v1.0`;

// get answers the value of key, or undefined if it has none.
async function get(key) {
  const text = await send('GET', `/state/shared/${encodeURIComponent(key)}`);
  return text ? JSON.parse(text) : undefined;
}

const put = (key, value) => send('POST', '/state/shared', [{ key, value }]);

const publish = (topic, data, query = '') => send('POST', `/publish/pubsub/${topic}${query}`, data);

// secret answers a value of secrets.env.
const secret = async (name) => JSON.parse(await send('GET', `/secrets/secretstore/${name}`))[name];

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
  constructor(status, message, headers = {}) {
    super(message);
    Object.assign(this, { status, headers });
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

// serve answers each request with what handle makes of it. One that streams ends response itself.
function serve(handle) {
  const server = http.createServer(async (request, response) => {
    try {
      const { method, headers } = request;
      const url = new URL(request.url, 'http://shop');
      const answer = await handle({ method, headers, url, body: await read(request), response });
      if (!response.writableEnded) reply(response, 200, answer ?? {});
    } catch (problem) {
      if (response.headersSent) return response.destroy();
      reply(response, problem.status ?? 500, { error: problem.message }, problem.headers); // 400 and above commits nothing
      if (!problem.status) console.error(problem.message);
    }
  });
  if (process.env.QUIPU_SOCKET) {
    server.listen(process.env.QUIPU_SOCKET);
  } else {
    server.listen(Number(process.env.PORT), '127.0.0.1');
  }
}

function reply(response, status, body, headers = {}) {
  response.writeHead(status, { 'Content-Type': 'application/json', ...headers });
  response.end(JSON.stringify(body) + '\n');
}

module.exports = { Refusal, get, publish, put, secret, serve };
