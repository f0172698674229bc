// A bank that is no part of the shop, and as bad as they come: PORT=9090 node bank.js
//
// It charges once for each Idempotency-Key, and answers the same receipt to who asks again. But before all goes well, most have
// to ask up to four times: it is busy, it charges and then the connection breaks, it charges and answers when nobody listens any more.
const http = require('node:http');

const troubles = ['busy', 'breaks off', 'late'];
const charges = {}; // key -> cents and receipt
const asked = {}; // key -> how often, and with which trouble it began
let requests = 0;

function charge(key, cents) {
  charges[key] ??= { cents, receipt: `receipt-${Object.keys(charges).length + 1}` };
  return charges[key].receipt;
}

// trouble is what the next request for a key meets: of five keys three begin with one, and each has the ones after it.
function trouble(key) {
  requests++;
  asked[key] ??= { begins: Object.keys(asked).length % 5, times: 0 };
  return troubles[asked[key].begins + asked[key].times++];
}

const server = http.createServer(async (request, response) => {
  const answer = (status, body) => response.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(body));
  if (request.method === 'GET') return answer(200, { requests, charges });
  const parts = [];
  for await (const part of request) parts.push(part);
  const { cents } = JSON.parse(Buffer.concat(parts).toString());
  const key = request.headers['idempotency-key'];
  const meets = trouble(key);
  if (meets === 'busy') return answer(503, { error: 'try again' });
  if (cents > 100000) return answer(402, { error: 'too much for this customer' });
  const receipt = charge(key, cents);
  if (meets === 'breaks off') return response.destroy();
  if (meets === 'late') return setTimeout(() => answer(200, { receipt }), 3000);
  answer(200, { receipt });
});

server.listen(Number(process.env.PORT ?? 9090), '127.0.0.1', () => console.log(server.address().port));
