// Cart keeps what a user is about to buy: article -> pieces.
const app = require('./app.js');
const goods = require('./goods.js');
const { limit } = require('./limit.js');
const token = require('./token.js');

app.serve(async (request) => {
  const user = await token.check(request);
  const cart = (await app.get(`cart/${user}`)) ?? {};
  if (request.method === 'GET') return cart;
  await limit(user);
  const { article, pieces } = request.body ?? {};
  if (!Object.hasOwn(goods, article) || !Number.isInteger(pieces) || pieces < 0 || pieces > 100) {
    throw new app.Refusal(400, `up to 100 pieces of ${Object.keys(goods).join(', ')}`);
  }
  cart[article] = pieces;
  if (pieces === 0) delete cart[article];
  await app.put(`cart/${user}`, cart);
  return cart;
});
