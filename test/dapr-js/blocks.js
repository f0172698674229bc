// An application with the JavaScript SDK of Dapr, unmodified, that uses every building block of the SDK beside those of the
// shop: node blocks.js http|grpc. It runs under quipu run and prints "ok" last, or fails. Over HTTP the SDK has no
// configuration and no cryptography, and for conversation it has nothing.
const assert = require('node:assert');
const { DaprServer, DaprClient, CommunicationProtocolEnum } = require('@dapr/dapr');

const grpc = process.argv[2] === 'grpc';
const communicationProtocol = grpc ? CommunicationProtocolEnum.GRPC : CommunicationProtocolEnum.HTTP;
const own = `js-${process.argv[2]}`; // starts the names of what this run makes
const clientOptions = {
  daprHost: '127.0.0.1', daprPort: grpc ? process.env.DAPR_GRPC_PORT : process.env.DAPR_HTTP_PORT,
  daprApiToken: process.env.DAPR_API_TOKEN, communicationProtocol,
};
const client = new DaprClient(clientOptions);
const came = { queue: first(), tick: first() };

// first is a promise of a first value.
function first() {
  const one = {};
  one.value = new Promise((resolve) => { one.is = resolve; });
  return one;
}

const wait = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

async function bindings() {
  const metadata = { fileName: `${own}.txt` };
  await client.binding.send('files', 'create', '42 sold', metadata);
  const answer = await client.binding.send('files', 'get', '', metadata);
  assert.strictEqual(grpc ? Buffer.from(answer.data).toString() : answer, '42 sold');
  await client.binding.send('files', 'delete', '', metadata);
  await assert.rejects(client.binding.send('files', 'burn', ''), /does not support operation burn/);
  // Nothing tells a client when the node has heard its application: it sends until something comes.
  let got;
  while (got === undefined) {
    await client.binding.send('queue', 'create', { order: 1 });
    got = await Promise.race([came.queue.value, wait(200)]);
  }
  assert.deepStrictEqual(typeof got === 'string' ? JSON.parse(got) : got, { order: 1 });
  await came.tick.value;
}

// write changes configuration, which Dapr's API only reads.
async function write(key, body) {
  const answer = await fetch(`${process.env.QUIPU_NODE}/-/v1/state/configuration:settings/${key}`, { method: 'PUT', body });
  assert.ok(answer.ok, answer.statusText);
}

async function configuration() {
  const key = `${own}-color`;
  await write(key, 'red');
  assert.strictEqual((await client.configuration.get('settings', [key])).items[key].value, 'red');
  const changed = first();
  const stream = await client.configuration.subscribeWithKeys('settings', [key], async (event) => { changed.is(event.items[key].value); });
  // The SDK does not say when it is subscribed: it is told of some change.
  let got;
  for (let n = 0; got === undefined; n++) {
    await write(key, `blue ${n}`);
    got = await Promise.race([changed.value, wait(200)]);
  }
  assert.match(got, /^blue/);
  stream.stop();
}

const [unlocked, noLock, othersLock] = [0, 1, 2]; // the SDK does not export its names for them

async function locks() {
  const till = `${own}-till`;
  assert.strictEqual((await client.lock.lock('locks', till, 'ada', 60)).success, true);
  assert.strictEqual((await client.lock.lock('locks', till, 'eve', 60)).success, false);
  for (const [owner, status] of [['eve', othersLock], ['ada', unlocked], ['ada', noLock]]) {
    assert.strictEqual((await client.lock.unlock('locks', till, owner)).status, status, owner);
  }
}

async function secrets() {
  assert.deepStrictEqual(await client.secret.get('vault', 'db:password'), { 'db:password': 'lovelace' });
  assert.deepStrictEqual((await client.secret.getBulk('vault'))['db:user'], { 'db:user': 'ada' });
}

async function crypto() {
  const plain = Buffer.from('the same again. '.repeat(20_000));
  const sealed = await client.crypto.encrypt(plain, { componentName: 'keys', keyName: 'rsa.pem', keyWrapAlgorithm: 'RSA' });
  assert.ok(!sealed.includes('the same again'));
  assert.ok((await client.crypto.decrypt(sealed, { componentName: 'keys' })).equals(plain));
  sealed[sealed.length - 1] ^= 1;
  await assert.rejects(client.crypto.decrypt(sealed, { componentName: 'keys' }));
}

async function query() {
  const towns = { [`${own}-1`]: `${own}-Lima`, [`${own}-2`]: 'Cusco', [`${own}-3`]: `${own}-Lima` };
  await client.state.save('orders', Object.entries(towns).map(([key, city]) => ({ key, value: { city } })));
  const found = await client.state.query('orders', { filter: { EQ: { city: `${own}-Lima` } }, sort: [], page: { limit: 10 } });
  assert.strictEqual(found.results.length, 2);
}

async function metadata() {
  await client.metadata.set('shift', 'night');
  const told = await client.metadata.get();
  assert.strictEqual(told.id, process.env.APP_ID);
  const kinds = Object.fromEntries(told.components.map((c) => [c.name, c.type]));
  for (const [name, kind] of Object.entries({ orders: 'state.redis', locks: 'lock.redis', model: 'conversation.echo', tick: 'bindings.cron' })) {
    assert.strictEqual(kinds[name], kind);
  }
}

async function main() {
  const server = new DaprServer({ serverHost: '127.0.0.1', serverPort: process.env.APP_PORT, communicationProtocol, clientOptions });
  for (const name of Object.keys(came)) {
    await server.binding.receive(name, async (data) => { came[name].is(data); });
  }
  await server.start();
  const steps = { bindings, locks, secrets, query, metadata, ...(grpc ? { configuration, crypto } : {}) };
  for (const [name, step] of Object.entries(steps)) {
    await step();
    console.log(name);
  }
  console.log('ok');
  process.exit(0);
}

const tooLate = setTimeout(() => { console.error('it takes too long'); process.exit(1); }, 60_000);
tooLate.unref();
main().catch((err) => { console.error(err); process.exit(1); });
