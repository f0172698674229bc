// Count counts users by language, up to a hundred events in a call, and shows the counts to who asks. It needs no ids of
// events that it has seen: that they are done is in the commit that counts them.
const app = require('./app.js');

app.serve(async (events) => {
  const counts = (await app.get('counts')) ?? {};
  if (!events) return counts; // GET
  for (const { data } of events) counts[data.language] = (counts[data.language] ?? 0) + 1;
  await app.put('counts', counts);
  return { counted: events.length };
});
