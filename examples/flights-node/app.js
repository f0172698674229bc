// What the functions need: state and topics, through Dapr's HTTP API, and a server where the platform asks for it.
const http = require('node:http');

const dapr = `http://127.0.0.1:${process.env.DAPR_HTTP_PORT}/v1.0`;

// getAll reads many keys in one request. A key without a value is not in the answer.
async function getAll(keys) {
  const items = JSON.parse(await send('/state/shared/bulk', { keys }));
  return new Map(items.filter((item) => item.data != null).map((item) => [item.key, item.data]));
}

// setAll writes many keys in one request.
async function setAll(changes) {
  await send('/state/shared', [...changes].map(([key, value]) => ({ key, value })));
}

// publish publishes many values in one request, each as an event.
async function publish(topic, values) {
  await send(`/publish/bulk/pubsub/${topic}`,
    values.map((event, i) => ({ entryId: String(i), contentType: 'application/json', event })));
}

// readAll answers the sums of all airports, by airport.
async function readAll() {
  const airports = (await getAll(['airports'])).get('airports') ?? [];
  const values = await getAll(airports.map((airport) => 'airport/' + airport));
  return new Map([...values].map(([key, sums]) => [key.slice('airport/'.length), sums]));
}

async function send(path, body) {
  const reply = await fetch(dapr + path, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'dapr-api-token': process.env.DAPR_API_TOKEN ?? '' },
    body: JSON.stringify(body),
  });
  const text = await reply.text();
  if (!reply.ok) throw new Error(`${path}: ${reply.status}: ${text}`);
  return text;
}

// BadRequest: the request cannot be understood.
class BadRequest extends Error {}

// parse answers the JSON of a request.
function parse(body) {
  try {
    return JSON.parse(body);
  } catch (problem) {
    throw new BadRequest(`not JSON: ${problem.message}`);
  }
}

// check refuses what are no flights.
function check(flights) {
  const sound = (f) => f?.date?.length >= 13 && f.origin && Number.isInteger(f.delay) && Number.isInteger(f.distance);
  if (!Array.isArray(flights) || !flights.every(sound)) {
    throw new BadRequest('not flights with date, origin, delay and distance');
  }
}

async function read(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  return Buffer.concat(parts).toString();
}

// serve answers each request with what handle makes of its path and body.
function serve(handle) {
  const server = http.createServer(async (request, response) => {
    response.setHeader('Content-Type', 'application/json');
    try {
      response.end(JSON.stringify(await handle(request.url, await read(request))) + '\n');
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

module.exports = { check, getAll, parse, publish, readAll, serve, setAll };
