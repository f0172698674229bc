// An application written for Dapr with its JavaScript SDK: node shop.js http|grpc. Nothing in it knows about quipu.
// Its method "await" answers what it has seen of a run's events, once there are as many as the caller waits for.
const { DaprServer, CommunicationProtocolEnum, HttpMethod, DaprPubSubStatusEnum } = require('@dapr/dapr');

const protocol = process.argv[2] === 'grpc' ? CommunicationProtocolEnum.GRPC : CommunicationProtocolEnum.HTTP;
const pubsub = 'pubsub';
const seen = new Map(); // by run
const waiting = new Set();

// see notes an event, and answers how often it has come.
function see(route, data) {
  let event = data;
  if (typeof data === 'string') {
    try { event = JSON.parse(data); } catch { return 0; } // of somebody else
  }
  const all = seen.get(event.run) ?? [];
  seen.set(event.run, all);
  const attempt = 1 + all.filter((e) => e.route === route && e.n === event.n).length;
  all.push({ route, n: event.n, attempt });
  for (const check of waiting) check();
  return attempt;
}

function awaitSeen({ run, count }) {
  return new Promise((resolve) => {
    const check = () => {
      const all = seen.get(run) ?? [];
      if (all.length < count) return;
      clearTimeout(tooLate);
      waiting.delete(check);
      resolve({ seen: all });
    };
    const tooLate = setTimeout(() => {
      waiting.delete(check);
      resolve({ seen: seen.get(run) ?? [], late: true });
    }, 20_000);
    waiting.add(check);
    check();
  });
}

async function main() {
  const server = new DaprServer({
    serverHost: '127.0.0.1',
    serverPort: process.env.PORT,
    communicationProtocol: protocol,
    clientOptions: {
      daprHost: '127.0.0.1',
      daprPort: protocol === CommunicationProtocolEnum.GRPC ? process.env.DAPR_GRPC_PORT : process.env.DAPR_HTTP_PORT,
      daprApiToken: process.env.DAPR_API_TOKEN,
      communicationProtocol: protocol,
    },
  });

  await server.pubsub.subscribeWithOptions(pubsub, 'orders', {
    route: { default: '/orders', rules: [{ match: 'event.type == "widget"', path: '/widgets' }] },
  });
  for (const route of ['/orders', '/widgets']) {
    server.pubsub.subscribeToRoute(pubsub, 'orders', route, async (data) => { see(route, data); });
  }
  await server.pubsub.subscribe(pubsub, 'bytes', async (data) => { see('/bytes', data); }, '/bytes', { rawPayload: true });
  await server.pubsub.subscribe(pubsub, 'flaky', async (data) => (see('/flaky', data) < 3 ? DaprPubSubStatusEnum.RETRY : DaprPubSubStatusEnum.SUCCESS));
  await server.pubsub.subscribeWithOptions(pubsub, 'poison', {
    deadLetterTopic: 'poison-js-dead',
    callback: async (data) => { see('/poison', data); return DaprPubSubStatusEnum.DROP; },
  });
  await server.pubsub.subscribeBulk(pubsub, 'bulk', async (data) => { see('/bulk', data); return DaprPubSubStatusEnum.SUCCESS; }, { maxMessagesCount: 10 });

  await server.invoker.listen('await', async ({ body }) => awaitSeen(JSON.parse(body)), { method: HttpMethod.POST });
  await server.invoker.listen('echo', async ({ body }) => ({ echo: JSON.parse(body) }), { method: HttpMethod.POST });
  await server.invoker.listen('secret', async () => ({
    one: (await server.client.secret.get('secretstore', 'GREETING')).GREETING,
    all: (await server.client.secret.getBulk('secretstore')).GREETING.GREETING,
  }), { method: HttpMethod.POST });
  await server.start();
}

main().catch((problem) => {
  console.error(problem);
  process.exit(1);
});
