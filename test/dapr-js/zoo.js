// Actors of the official JavaScript SDK, hosted and called: node zoo.js, with the ports of the application and of Dapr in the
// environment. Prints "ok" last, or fails.
const assert = require('node:assert/strict');
const { DaprServer, DaprClient, AbstractActor, ActorId, ActorProxyBuilder, CommunicationProtocolEnum, Temporal } = require('@dapr/dapr');

let left = 0;

class jsCat extends AbstractActor {
  async onDeactivate() { left++; }

  async feed(n) {
    const [there, total] = await this.getStateManager().tryGetState('eaten');
    const now = (there ? total : 0) + n;
    await this.getStateManager().setState('eaten', now);
    return now;
  }

  async slow() { // a read and a write with a pause in between: turns must not overlap
    const [there, n] = await this.getStateManager().tryGetState('slow');
    await new Promise((done) => setTimeout(done, 5));
    await this.getStateManager().setState('slow', (there ? n : 0) + 1);
    return (there ? n : 0) + 1;
  }

  async tick() {
    await this.registerActorTimer('tock', 'onTick', Temporal.Duration.from({ milliseconds: 20 }), Temporal.Duration.from({ milliseconds: 20 }));
    return 'set';
  }

  async onTick() { await this.getStateManager().setState('ticks', await this.ticks() + 1); }

  async ticks() {
    const [there, n] = await this.getStateManager().tryGetState('ticks');
    return there ? n : 0;
  }

  async stop() { await this.unregisterActorTimer('tock'); return 'stopped'; }

  async remind() {
    await this.registerActorReminder('lunch', Temporal.Duration.from({ milliseconds: 50 }), Temporal.Duration.from({ seconds: 100 }), undefined, 'fish');
    return 'set';
  }

  async receiveReminder(data) { await this.getStateManager().setState('reminded', data); }

  async reminded() {
    const [there, what] = await this.getStateManager().tryGetState('reminded');
    await (there ? this.unregisterActorReminder('lunch') : undefined);
    return there ? what : 'no';
  }
}

async function until(get, want) {
  let got;
  for (const end = Date.now() + 20_000; Date.now() < end; await new Promise((done) => setTimeout(done, 20))) {
    if (want(got = await get())) return got;
  }
  assert.fail(`in the end it was ${got}`);
}

async function main() {
  const dapr = { daprHost: '127.0.0.1', daprPort: process.env.DAPR_HTTP_PORT, daprApiToken: process.env.DAPR_API_TOKEN,
    communicationProtocol: CommunicationProtocolEnum.HTTP, actor: { actorIdleTimeout: '1s', reentrancy: { enabled: false } } };
  const server = new DaprServer({ serverHost: '127.0.0.1', serverPort: process.env.APP_PORT, clientOptions: dapr });
  await server.actor.init();
  await server.actor.registerActor(jsCat);
  await server.start();
  const builder = new ActorProxyBuilder(jsCat, new DaprClient(dapr));
  const tom = builder.build(new ActorId('tom-' + process.pid)), kit = builder.build(new ActorId('kit-' + process.pid));

  await until(async () => tom.feed(0).catch(() => 'not hosted yet'), (got) => Number(got) === 0);
  assert.equal(Number(await tom.feed(3)), 3);
  assert.equal(Number(await tom.feed(4)), 7);
  assert.equal(Number(await kit.feed(1)), 1);
  const all = await Promise.all(Array.from({ length: 20 }, () => tom.slow()));
  assert.deepEqual(all.map(Number).sort((a, b) => a - b), Array.from({ length: 20 }, (_, i) => i + 1));
  assert.equal(await tom.tick(), 'set');
  await until(async () => Number(await tom.ticks()), (n) => n >= 3);
  assert.equal(await tom.stop(), 'stopped');
  assert.equal(await kit.remind(), 'set');
  await until(() => kit.reminded(), (what) => what === 'fish');
  await until(async () => left, (n) => n >= 2); // both are idle
  assert.equal(Number(await tom.feed(1)), 8);
}

main().then(() => { console.log('ok'); process.exit(0); }, (problem) => { console.error(problem); process.exit(1); });
