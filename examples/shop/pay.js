// Pay has the bank charge an order.
//
// The bank is outside of the platform. It may charge and its answer be lost, and this function may be killed between the charge
// and the next line. Then the event comes again and the bank is asked again, with the same key: the order's id, by
// which the bank knows what it has done already. That, and no more, is what a call to the outside needs.
const app = require('./app.js');

app.serve(async ({ body }) => {
  const { order, cents } = body.data;
  const answer = await fetch(`${process.env.BANK}/charges`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'Idempotency-Key': order },
    body: JSON.stringify({ cents }),
    signal: AbortSignal.timeout(1000),
  });
  const said = await answer.json();
  if (answer.status === 402) {
    await app.publish('paid', { order, declined: said.error });
  } else if (answer.ok) {
    await app.publish('paid', { order, receipt: said.receipt });
  } else {
    throw new Error(`the bank: ${answer.status}: ${said.error}`); // tried again, later
  }
});
