// The official SDK against a Dapr door whose port is in DAPR_HTTP_PORT. Prints "ok" last, or fails.
const assert = require('node:assert/strict');
const { DaprClient, CommunicationProtocolEnum, HttpMethod } = require('@dapr/dapr');

async function main() {
  const client = new DaprClient({
    daprHost: '127.0.0.1',
    daprPort: process.env.DAPR_HTTP_PORT,
    communicationProtocol: CommunicationProtocolEnum.HTTP,
    daprApiToken: process.env.DAPR_API_TOKEN,
  });
  const store = 'statestore';

  assert.equal(await client.health.isHealthy(), true);

  await client.state.save(store, [
    { key: 'one', value: { n: 1 } },
    { key: 'two', value: 'text' },
    { key: 'brief', value: 3, metadata: { ttlInSeconds: '60' } },
  ]);
  assert.deepEqual(await client.state.get(store, 'one'), { n: 1 });
  assert.equal(await client.state.get(store, 'two'), 'text');
  assert.equal(await client.state.get(store, 'missing'), '');

  const bulk = await client.state.getBulk(store, ['one', 'missing', 'two']);
  assert.deepEqual(bulk.map((item) => [item.key, item.data]), [['one', { n: 1 }], ['missing', undefined], ['two', 'text']]);

  // A wrong etag is an error of the save, and changes nothing.
  const wrong = await client.state.save(store, [{ key: 'one', value: 2, etag: '00000000000000ff', options: { concurrency: 'first-write' } }]);
  assert.match(wrong.error.message, /ERR_STATE_SAVE/);
  assert.deepEqual(await client.state.get(store, 'one'), { n: 1 });
  const right = await client.state.save(store, [{ key: 'one', value: 2, etag: bulk[0].etag }]);
  assert.equal(right.error, undefined);

  await client.state.transaction(store, [
    { operation: 'upsert', request: { key: 'three', value: 3 } },
    { operation: 'delete', request: { key: 'two' } },
  ]);
  assert.equal(await client.state.get(store, 'three'), 3);
  assert.equal(await client.state.get(store, 'two'), '');

  await client.state.delete(store, 'three');
  assert.equal(await client.state.get(store, 'three'), '');

  const echoed = await client.invoker.invoke('callee', 'some/path', HttpMethod.POST, { hello: 'world' });
  assert.match(String(echoed), /POST \/some\/path \{"hello":"world"\}/);
  await assert.rejects(client.invoker.invoke('nobody', 'x', HttpMethod.GET), /ERR_DIRECT_INVOKE/);

  const metadata = await client.metadata.get();
  assert.deepEqual(metadata.components.map((c) => c.name), ['statestore', 'shared', 'pubsub']);
  assert.equal(await client.metadata.set('color', 'blue'), true);

  await client.stop();
  console.log('ok');
}

main().catch((problem) => {
  console.error(problem);
  process.exit(1);
});
