// Hourly sums the airports up by hour of the day.
//
// Stats goes on meanwhile, and yet all airports are as they were at one moment: an atomic call reads at one place of the
// log, and runs again if that changed before it commits.
const app = require('./app.js');

async function handle(_, body) {
  const tick = app.parse(body).data.time; // the time that the schedule called for
  const last = (await app.getAll(['summary'])).get('summary');
  const hours = sumUp(await app.readAll());
  const flights = Object.values(hours).reduce((n, hour) => n + hour.flights, 0);
  const summary = { tick, written: (last?.written ?? 0) + 1, flights, hours };
  await app.setAll(new Map([['summary', summary]]));
  return summary;
}

function sumUp(airports) {
  const hours = {};
  const most = {}; // flights of the busiest airport of an hour
  for (const airport of [...airports.keys()].sort()) {
    const flights = {};
    for (const [cell, row] of Object.entries(airports.get(airport))) {
      const name = cell.slice(0, 2);
      const hour = (hours[name] ??= { flights: 0, minutes: 0, busiest: '' });
      hour.flights += row[0];
      hour.minutes += row[1];
      flights[name] = (flights[name] ?? 0) + row[0];
    }
    for (const [name, n] of Object.entries(flights)) {
      if (n > (most[name] ?? 0)) {
        most[name] = n;
        hours[name].busiest = airport;
      }
    }
  }
  return hours;
}

app.serve(handle);
