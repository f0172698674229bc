// Stats adds a batch of flights to sums per origin airport, hour of day and band of distance.
//
// It is ordinary code: it reads, adds and writes. Because the function is declared atomic, a crash at any line,
// or two instances at the same airport, lose and double nothing.
const app = require('./app.js');

const bandEdges = [250, 500, 1000, 2000]; // miles
const delayEdges = [-10, 0, 15, 30, 60, 120]; // minutes

async function handle(body) {
  const flights = parse(body);
  const origins = [...new Set(flights.map((f) => f.origin))];
  const values = await app.getAll(['airports', ...origins.map((origin) => 'airport/' + origin)]);
  const changes = new Map();
  for (const flight of flights) {
    const key = 'airport/' + flight.origin;
    // Sums of an airport: "hour/band" -> flights, minutes of delay, then a histogram of delays.
    if (!changes.has(key)) changes.set(key, values.get(key) ?? {});
    add(changes.get(key), flight);
  }
  const known = values.get('airports') ?? [];
  const airports = new Set([...known, ...origins]);
  if (airports.size > known.length) changes.set('airports', [...airports].sort());
  if (changes.size > 0) await app.setAll(changes);
  return { added: flights.length };
}

// parse answers the flights of a request, all of them sound.
function parse(body) {
  let flights;
  try {
    flights = JSON.parse(body);
  } catch (problem) {
    throw new app.BadRequest(`not a list of flights: ${problem.message}`);
  }
  const sound = (f) => f?.date?.length >= 13 && f.origin && Number.isInteger(f.delay) && Number.isInteger(f.distance);
  if (!Array.isArray(flights) || !flights.every(sound)) {
    throw new app.BadRequest('not a list of flights with date, origin, delay and distance');
  }
  return flights;
}

function add(sums, flight) {
  const cell = `${flight.date.slice(11, 13)}/${above(bandEdges, flight.distance)}`;
  const row = (sums[cell] ??= new Array(2 + delayEdges.length + 1).fill(0));
  row[0] += 1;
  row[1] += flight.delay;
  row[2 + above(delayEdges, flight.delay)] += 1;
}

// above counts the edges that are not above x.
const above = (edges, x) => edges.filter((edge) => edge <= x).length;

app.serve(handle);
