// Status streams what becomes of an order, as server-sent events. A browser whose connection breaks comes back by itself and
// says which event it saw last.
const { setTimeout: sleep } = require('node:timers/promises');
const app = require('./app.js');
const token = require('./token.js');

const ends = ['sent', 'declined'];

app.serve(async ({ url, headers, response, ...request }) => {
  const user = await token.check({ url, headers, ...request });
  const key = `order/${url.pathname.split('/')[2]}`;
  let order = await app.get(key);
  if (order?.user !== user) throw new app.Refusal(404, 'no such order');
  let next = Number(headers['last-event-id'] ?? -1) + 1;
  const ended = () => ends.includes(order.history.at(-1));
  if (ended() && next >= order.history.length) return response.writeHead(204).end(); // EventSource gives up
  response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' });
  while (!response.destroyed) {
    for (; next < order.history.length; next++) response.write(`id: ${next}\ndata: ${order.history[next]}\n\n`);
    if (ended()) break;
    await sleep(100);
    order = await app.get(key);
  }
  response.end();
});
