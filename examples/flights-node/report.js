// Report serves the sums that stats keeps (airport -> "hour/band" -> row), and the newest summary of hourly.
const app = require('./app.js');

app.serve(async (path) => {
  if (path === '/table') return Object.fromEntries(await app.readAll());
  return (await app.getAll(['summary'])).get('summary') ?? { written: 0, flights: 0, hours: {} };
});
