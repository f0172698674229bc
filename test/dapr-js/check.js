// The official SDK, as a client over HTTP and gRPC, against a node that runs shop-js in both its forms. The
// node is found by DAPR_HTTP_PORT, DAPR_GRPC_PORT and DAPR_API_TOKEN. Prints "ok" last, or fails. It may run any
// number of times against one node.
const assert = require('node:assert/strict');
const { inspect } = require('node:util');
const { DaprClient, CommunicationProtocolEnum, HttpMethod } = require('@dapr/dapr');

const store = 'statestore';
const pubsub = 'pubsub';
const apps = ['shop-js-http', 'shop-js-grpc'];

// errorOf is what went wrong: some methods answer an error, others throw it, not the same over both protocols.
async function errorOf(promise) {
  try {
    return inspect((await promise).error);
  } catch (problem) {
    return inspect(problem);
  }
}

async function state(client, key) {
  const [one, two, three, brief] = ['one', 'two', 'three', 'brief'].map(key);
  await client.state.save(store, [
    { key: one, value: { n: 1 } },
    { key: two, value: 'text' },
    { key: brief, value: 3, metadata: { ttlInSeconds: '60' } },
  ]);
  assert.deepEqual(await client.state.get(store, one), { n: 1 });
  assert.equal(await client.state.get(store, two), 'text');
  assert.equal(await client.state.get(store, key('missing')), '');

  const bulk = await client.state.getBulk(store, [one, key('missing'), two]);
  assert.deepEqual(bulk.map((item) => item.key), [one, key('missing'), two]);
  assert.deepEqual([bulk[0].data, bulk[2].data], [{ n: 1 }, 'text']);

  // A wrong etag is an error of the save, and changes nothing.
  assert.match(await errorOf(client.state.save(store, [{ key: one, value: 2, etag: '00000000000000ff' }])), /possible etag mismatch/);
  assert.deepEqual(await client.state.get(store, one), { n: 1 });
  const right = await client.state.save(store, [{ key: one, value: 2, etag: bulk[0].etag }]);
  assert.equal(right.error, undefined);

  await client.state.transaction(store, [
    { operation: 'upsert', request: { key: three, value: 'third' } },
    { operation: 'delete', request: { key: two } },
  ]);
  assert.equal(await client.state.get(store, three), 'third');
  assert.equal(await client.state.get(store, two), '');
  await client.state.delete(store, three);
  assert.equal(await client.state.get(store, three), '');
}

async function invocation(client) {
  for (const app of apps) {
    assert.deepEqual(await client.invoker.invoke(app, 'echo', HttpMethod.POST, { hello: app }), { echo: { hello: app } });
    // Secrets are those of an application, so it is asked for what it reads.
    const greeting = 'hello from secrets.env';
    assert.deepEqual(await client.invoker.invoke(app, 'secret', HttpMethod.POST, {}), { one: greeting, all: greeting });
  }
  await assert.rejects(client.invoker.invoke('nobody', 'x', HttpMethod.GET), /failed to invoke, id: nobody/);
}

async function about(client) {
  assert.equal(await client.health.isHealthy(), true);
  const metadata = await client.metadata.get();
  for (const name of ['statestore', 'shared', 'pubsub', 'secretstore']) assert.ok(metadata.components.some((c) => c.name === name), name);
  assert.equal(await client.metadata.set('color', 'blue'), true);
  await assert.rejects(client.secret.get('vault', 'GREETING'), /failed finding secret store/);
}

async function events(client, run) {
  const publish = async (topic, data, options) => {
    const reply = await client.pubsub.publish(pubsub, topic, data, options);
    assert.equal(reply.error, undefined, `publish to ${topic}: ${reply.error}`);
  };
  await publish('orders', { run, n: 1 });
  await publish('orders', { run, n: 2 }, { metadata: { 'cloudevent.type': 'widget' } });
  await publish('orders', { specversion: '1.0', id: `${run}-own`, source: 'check', type: 'widget', datacontenttype: 'application/json', data: { run, n: 3 } },
    { contentType: 'application/cloudevents+json' });
  await publish('bytes', JSON.stringify({ run, n: 4 }), { contentType: 'text/plain', metadata: { rawPayload: 'true' } });
  await publish('flaky', { run, n: 5 });
  await publish('poison', { run, n: 6 });
  const bulk = await client.pubsub.publishBulk(pubsub, 'bulk', [{ run, n: 7 }, { run, n: 8 }]);
  assert.deepEqual(bulk.failedMessages, []);
  assert.match(await errorOf(client.pubsub.publish('kafka', 't', 'x')), /pubsub kafka is not found/);

  const want = ['/bulk 7 1', '/bulk 8 1', '/bytes 4 1', '/flaky 5 1', '/flaky 5 2', '/flaky 5 3', '/orders 1 1', '/poison 6 1', '/widgets 2 1', '/widgets 3 1'];
  for (const app of apps) {
    const { seen } = await client.invoker.invoke(app, 'await', HttpMethod.POST, { run, count: want.length });
    assert.deepEqual(seen.map((e) => `${e.route} ${e.n} ${e.attempt}`).sort(), want, app);
  }
}

async function main() {
  for (const [protocol, daprPort] of [[CommunicationProtocolEnum.HTTP, process.env.DAPR_HTTP_PORT], [CommunicationProtocolEnum.GRPC, process.env.DAPR_GRPC_PORT]]) {
    const client = new DaprClient({ daprHost: '127.0.0.1', daprPort, communicationProtocol: protocol, daprApiToken: process.env.DAPR_API_TOKEN });
    const run = `run-${Date.now()}-${daprPort}`;
    await about(client);
    await state(client, (name) => `${run}-${name}`);
    await invocation(client);
    await events(client, run);
    await client.stop();
  }
  console.log('ok');
}

main().catch((problem) => {
  console.error(problem);
  process.exit(1);
});
