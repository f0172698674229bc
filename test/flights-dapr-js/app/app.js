// The flights example as an application for Dapr, with its JavaScript SDK as it is: it publishes flights, sums them up,
// writes a summary by the clock and serves both. Nothing in it knows about quipu.
const { DaprServer, CommunicationProtocolEnum, HttpMethod, DaprPubSubStatusEnum } = require('@dapr/dapr');

const pubsub = 'pubsub';
const store = 'statestore';
const bandEdges = [250, 500, 1000, 2000]; // miles
const delayEdges = [-10, 0, 15, 30, 60, 120]; // minutes

const server = new DaprServer({
  serverHost: '127.0.0.1',
  serverPort: process.env.PORT,
  communicationProtocol: CommunicationProtocolEnum.HTTP,
  clientOptions: {
    daprHost: '127.0.0.1',
    daprPort: process.env.DAPR_HTTP_PORT,
    daprApiToken: process.env.DAPR_API_TOKEN,
    communicationProtocol: CommunicationProtocolEnum.HTTP,
  },
});
const dapr = server.client;

// get answers the values of keys; a key without one is not in the answer.
async function get(keys) {
  const items = keys.length > 0 ? await dapr.state.getBulk(store, keys) : [];
  return new Map(items.filter((item) => item.data != null).map((item) => [item.key, item.data]));
}

// set writes values; the SDK answers errors and does not throw them.
async function set(values) {
  const { error } = await dapr.state.save(store, Object.entries(values).map(([key, value]) => ({ key, value })));
  if (error) throw error;
}

async function readAll() {
  const airports = (await get(['airports'])).get('airports') ?? [];
  const values = await get(airports.map((airport) => 'airport/' + airport));
  return Object.fromEntries([...values].map(([key, sums]) => [key.slice('airport/'.length), sums]));
}

async function ingest({ body }) {
  const flights = JSON.parse(body);
  const { failedMessages } = await dapr.pubsub.publishBulk(pubsub, 'flights', flights);
  if (failedMessages.length > 0) throw failedMessages[0].error;
  return { published: flights.length };
}

// stats adds one flight to the sums of its airport. A callback that throws counts as a success in the SDK.
async function stats(flight) {
  try {
    const key = 'airport/' + flight.origin;
    const known = await get([key, 'airports']);
    const changes = { [key]: known.get(key) ?? {} };
    if (!known.has(key)) changes.airports = [...(known.get('airports') ?? []), flight.origin].sort();
    add(changes[key], flight);
    await set(changes);
    return DaprPubSubStatusEnum.SUCCESS;
  } catch (problem) {
    console.error(problem);
    return DaprPubSubStatusEnum.RETRY;
  }
}

// add adds a flight to sums: "hour/band" -> flights, minutes of delay, then a histogram of delays.
function add(sums, flight) {
  const cell = `${flight.date.slice(11, 13)}/${above(bandEdges, flight.distance)}`;
  const row = (sums[cell] ??= new Array(2 + delayEdges.length + 1).fill(0));
  row[0] += 1;
  row[1] += flight.delay;
  row[2 + above(delayEdges, flight.delay)] += 1;
}

// above counts the edges that are not above x.
const above = (edges, x) => edges.filter((edge) => edge <= x).length;

async function hourly() {
  const last = (await get(['summary'])).get('summary');
  const airports = await readAll();
  const hours = {};
  const most = {}; // flights of the busiest airport of an hour
  for (const airport of Object.keys(airports).sort()) {
    const flights = {};
    for (const [cell, row] of Object.entries(airports[airport])) {
      const name = cell.slice(0, 2);
      const hour = (hours[name] ??= { flights: 0, minutes: 0, busiest: '' });
      hour.flights += row[0];
      hour.minutes += row[1];
      flights[name] = (flights[name] ?? 0) + row[0];
    }
    for (const [name, n] of Object.entries(flights)) {
      if (n > (most[name] ?? 0)) [most[name], hours[name].busiest] = [n, airport];
    }
  }
  const flights = Object.values(hours).reduce((n, hour) => n + hour.flights, 0);
  await set({ summary: { written: (last?.written ?? 0) + 1, flights, hours } });
  return { flights };
}

const hours = async () => (await get(['summary'])).get('summary') ?? { written: 0, flights: 0, hours: {} };

async function main() {
  await server.pubsub.subscribe(pubsub, 'flights', stats);
  await server.invoker.listen('flights', ingest, { method: HttpMethod.POST });
  await server.invoker.listen('hourly', hourly, { method: HttpMethod.POST });
  await server.invoker.listen('table', readAll, { method: HttpMethod.GET });
  await server.invoker.listen('hours', hours, { method: HttpMethod.GET });
  await server.start();
}

main().catch((problem) => {
  console.error(problem);
  process.exit(1);
});
