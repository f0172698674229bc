// Limit lets a user do so many things in a window of time. The count is state, and its callers are atomic functions: however many
// requests come at once, to however many instances, none slips through, and what is refused after all is not counted.
const app = require('./app.js');

const MOST = 20;
const SECONDS = 10;

async function limit(user) {
  const now = Date.now() / 1000;
  const window = Math.floor(now / SECONDS);
  const last = await app.get(`limit/${user}`);
  const count = last?.window === window ? last.count : 0;
  if (count >= MOST) {
    const left = Math.ceil((window + 1) * SECONDS - now);
    throw new app.Refusal(429, `${MOST} requests in ${SECONDS} seconds are enough`, { 'Retry-After': String(left) });
  }
  await app.put(`limit/${user}`, { window, count: count + 1 });
}

module.exports = { limit };
