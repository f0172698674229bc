// Stats adds flights, up to a hundred in a call, to sums per origin airport, hour of day and band of distance.
//
// It is ordinary code: it reads, adds and writes. Because the function is declared atomic, that the events are done is part
// of the same commit as the sums: a crash at any line, or two instances at the same airport, lose and double nothing.
const app = require('./app.js');

const bandEdges = [250, 500, 1000, 2000]; // miles
const delayEdges = [-10, 0, 15, 30, 60, 120]; // minutes

async function handle(_, body) {
  const flights = app.parse(body).map((event) => event.data);
  app.check(flights);
  const origins = [...new Set(flights.map((f) => f.origin))];
  const changes = await app.getAll(origins.map((origin) => 'airport/' + origin));
  const added = origins.filter((origin) => !changes.has('airport/' + origin));
  for (const origin of added) changes.set('airport/' + origin, {});
  // Sums of an airport: "hour/band" -> flights, minutes of delay, then a histogram of delays.
  for (const flight of flights) add(changes.get('airport/' + flight.origin), flight);
  if (added.length > 0) {
    const known = (await app.getAll(['airports'])).get('airports') ?? [];
    changes.set('airports', [...known, ...added].sort());
  }
  await app.setAll(changes);
  return { added: flights.length };
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
