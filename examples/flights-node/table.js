// Table serves the sums that stats keeps, as one JSON object: airport -> "hour/band" -> row.
const app = require('./app.js');

app.serve(async () => {
  const airports = (await app.getAll(['airports'])).get('airports') ?? [];
  const values = await app.getAll(airports.map((airport) => 'airport/' + airport));
  return Object.fromEntries([...values].map(([key, sums]) => [key.slice('airport/'.length), sums]));
});
