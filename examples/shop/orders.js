// Orders makes an order of a cart, and writes down what becomes of it: placed, then paid and sent, or declined.
const app = require('./app.js');
const goods = require('./goods.js');
const { limit } = require('./limit.js');
const token = require('./token.js');

app.serve(async (request) => {
  switch (request.url.pathname) {
    case '/paid': return paid(request.body.data);
    case '/sent': return sent(request.body.data);
    default: return place(request);
  }
});

// place empties the cart, stores the order and asks for the payment: all of it, or nothing.
async function place(request) {
  const user = await token.check(request);
  await limit(user);
  const cart = (await app.get(`cart/${user}`)) ?? {};
  const cents = Object.entries(cart).reduce((sum, [article, pieces]) => sum + goods[article] * pieces, 0);
  if (cents === 0) throw new app.Refusal(400, 'your cart is empty');
  const order = request.headers['quipu-call-id']; // nobody else has it
  await app.put(`order/${order}`, { user, goods: cart, cents, history: ['placed'] });
  await app.put(`cart/${user}`, {});
  await app.publish('payments', { order, cents });
  return { order, cents };
}

// paid writes down how the payment ended. pay may tell it twice, but an order leaves "placed" only once.
async function paid({ order, receipt, declined }) {
  const value = await app.get(`order/${order}`);
  if (value.history.at(-1) !== 'placed') return;
  value.history.push(declined ? 'declined' : 'paid');
  await app.put(`order/${order}`, { ...value, receipt });
  if (!declined) await app.publish('parcels', { order }, '?metadata.delay=1s'); // packing takes a while
}

async function sent({ order }) {
  const value = await app.get(`order/${order}`);
  value.history.push('sent');
  await app.put(`order/${order}`, value);
}
