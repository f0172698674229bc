// Users registers users and gives out tokens.
const { randomBytes, scryptSync, timingSafeEqual } = require('node:crypto');
const app = require('./app.js');
const token = require('./token.js');

app.serve(async ({ url, body }) => {
  const { name, password } = body ?? {};
  if (!/^[a-z0-9-]{1,40}$/.test(name) || typeof password !== 'string') {
    throw new app.Refusal(400, 'a user has a name and a password');
  }
  const user = await app.get(`user/${name}`);
  if (url.pathname === '/login') return login(name, password, user);
  if (user) throw new app.Refusal(409, `${name} is taken`);
  const salt = randomBytes(16).toString('hex');
  await app.put(`user/${name}`, { salt, hash: hash(password, salt).toString('hex') });
  return { name };
});

async function login(name, password, user) {
  const right = user && timingSafeEqual(hash(password, user.salt), Buffer.from(user.hash, 'hex'));
  if (!right) throw new app.Refusal(401, 'name or password is wrong');
  return { token: await token.issue(name, Number(process.env.TOKEN_SECONDS)) };
}

const hash = (password, salt) => scryptSync(password, salt, 32);
