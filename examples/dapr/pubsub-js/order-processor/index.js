// Gets orders. It may be stopped and started again at any time: orders wait for it.
const { DaprServer, CommunicationProtocolEnum } = require('@dapr/dapr');

const server = new DaprServer({
  serverHost: '127.0.0.1',
  serverPort: process.env.APP_PORT ?? '6001',
  communicationProtocol: CommunicationProtocolEnum.HTTP,
});

async function main() {
  await server.pubsub.subscribe('orderpubsub', 'orders', async (order) => {
    console.log('Received order ' + JSON.stringify(order));
  });
  await server.start();
}

main().catch((problem) => {
  console.error(problem);
  process.exit(1);
});
