// Tokens say who somebody is and until when, signed with a secret of the shop. They are nowhere stored.
const { createHmac, timingSafeEqual } = require('node:crypto');
const app = require('./app.js');

const mac = async (text) => createHmac('sha256', await app.secret('TOKEN_KEY')).update(text).digest('base64url');

async function issue(user, seconds) {
  const claims = { user, until: Math.floor(Date.now() / 1000) + seconds };
  const text = Buffer.from(JSON.stringify(claims)).toString('base64url');
  return `${text}.${await mac(text)}`;
}

// check answers the user of a request, or refuses it. EventSource can send no headers, so a token may be in the query.
async function check({ headers, url }) {
  const token = headers.authorization?.replace(/^Bearer /, '') ?? url.searchParams.get('token') ?? '';
  const [text, signature = ''] = token.split('.');
  const [is, wanted] = [Buffer.from(signature), Buffer.from(await mac(text))];
  if (is.length !== wanted.length || !timingSafeEqual(is, wanted)) throw new app.Refusal(401, 'log in first');
  const { user, until } = JSON.parse(Buffer.from(text, 'base64url'));
  if (until <= Date.now() / 1000) throw new app.Refusal(401, 'your token has expired: log in again');
  return user;
}

module.exports = { check, issue };
