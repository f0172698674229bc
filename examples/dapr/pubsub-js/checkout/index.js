// Publishes ten orders, and ends.
const { DaprClient } = require('@dapr/dapr');

const ordersMax = 10;
const pause = () => new Promise((resolve) => setTimeout(resolve, 300));

async function main() {
  const client = new DaprClient();
  for (let orderId = 1; orderId <= ordersMax; orderId++) {
    const order = { orderId };
    const answer = await client.pubsub.publish('orderpubsub', 'orders', order);
    if (answer.error) throw answer.error;
    console.log('Published order ' + JSON.stringify(order));
    await pause();
  }
  await client.stop();
}

main().catch((problem) => {
  console.error(problem);
  process.exit(1);
});
