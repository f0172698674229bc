// A bank that is no part of the shop, and as bad as they come: PORT=9090 node bank.js
//
// It charges once for each Idempotency-Key, and answers the same receipt to who asks again. But of five requests one is refused as
// it comes, one is charged and then the connection breaks, and one is charged and answered when nobody listens any more.
const http = require('node:http');

const charges = {}; // key -> cents, receipt, and how often it was asked for
let requests = 0;

function charge(key, cents) {
  charges[key] ??= { cents, receipt: `receipt-${Object.keys(charges).length + 1}`, asked: 0 };
  charges[key].asked++;
  return charges[key].receipt;
}

const server = http.createServer(async (request, response) => {
  const answer = (status, body) => response.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(body));
  if (request.method === 'GET') return answer(200, { requests, charges });
  const parts = [];
  for await (const part of request) parts.push(part);
  const { cents } = JSON.parse(Buffer.concat(parts).toString());
  const trouble = requests++ % 5;
  if (trouble === 0) return answer(503, { error: 'try again' });
  if (cents > 100000) return answer(402, { error: 'too much for this customer' });
  const receipt = charge(request.headers['idempotency-key'], cents);
  if (trouble === 1) return response.destroy();
  if (trouble === 3) return setTimeout(() => answer(200, { receipt }), 3000);
  answer(200, { receipt });
});

server.listen(Number(process.env.PORT ?? 9090), '127.0.0.1', () => console.log(server.address().port));
