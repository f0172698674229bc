// The six patterns of workflows that Dapr documents, written with its JavaScript SDK, unmodified: a worker and a client in one
// program. The node is found by DAPR_GRPC_PORT. Prints "ok" last, or fails. It may run any number of times against one node.
const assert = require('node:assert/strict');
const { DaprWorkflowClient, WorkflowRuntime, WorkflowRuntimeStatus } = require('@dapr/dapr');

const options = { daprHost: '127.0.0.1', daprPort: process.env.DAPR_GRPC_PORT, daprApiToken: process.env.DAPR_API_TOKEN };
const waitMax = 30; // seconds

// Chaining: each step takes what the one before it made.
const plusOne = async (_, n) => n + 1;
const double = async (_, n) => n * 2;
const inWords = async (_, n) => `it is ${n}`;

async function* chain(ctx, n) {
  const more = yield ctx.callActivity(plusOne, n);
  const twice = yield ctx.callActivity(double, more);
  return yield ctx.callActivity(inWords, twice);
}

// Fan-out and fan-in: as many at a time as there are.
const square = async (_, n) => n * n;

async function* fanOut(ctx, n) {
  const squares = yield ctx.whenAll(Array.from({ length: n }, (_, i) => ctx.callActivity(square, i)));
  return squares.reduce((sum, one) => sum + one, 0);
}

// Monitor: looks, sleeps, and goes on as another generation, so that its history stays short.
const looks = new Map(); // by instance
const look = async (_, id) => {
  looks.set(id, (looks.get(id) ?? 0) + 1);
  return looks.get(id) < 4 ? 'pending' : 'healthy';
};

async function* monitor(ctx, slept) {
  const status = yield ctx.callActivity(look, ctx.getWorkflowInstanceId());
  ctx.setCustomStatus(status);
  if (status === 'healthy') return slept;
  const before = ctx.getCurrentUtcDateTime();
  yield ctx.createTimer(0.05);
  const ms = ctx.getCurrentUtcDateTime() - before;
  ctx.continueAsNew(slept + ms, false);
}

// A person approves, or does not, or nobody does for too long.
const place = async (_, order) => `${order} is placed`;

async function* approval(ctx, { order, patience }) {
  const answer = ctx.waitForExternalEvent('approval');
  const timeout = ctx.createTimer(patience);
  ctx.setCustomStatus('waits for a person');
  const first = yield ctx.whenAny([answer, timeout]);
  if (first === timeout) return `${order} timed out`;
  const said = answer.getResult();
  return said.approved ? yield ctx.callActivity(place, order) : `${order} was refused by ${said.by}`;
}

// Saga: what was done is undone, last first, when a later step fails.
const book = async (_, what) => {
  if (what === 'car') throw new Error('no cars left');
  return `${what} is booked`;
};
const cancel = async (_, what) => `${what} is cancelled`;

async function* saga(ctx, trip) {
  const done = [];
  try {
    for (const what of trip) {
      yield ctx.callActivity(book, what);
      done.push(what);
    }
    return { booked: done };
  } catch (err) {
    const undone = [];
    for (const what of done.reverse()) {
      undone.push(yield ctx.callActivity(cancel, what));
    }
    return { undone, why: err.message };
  }
}

// Child workflows: the failure of one is its parent's to handle.
async function* child(ctx, n) {
  if (n < 0) throw new Error(`${n} is too little`);
  return yield ctx.callActivity(square, n);
}

async function* parent(ctx, numbers) {
  const squares = yield ctx.whenAll(numbers.map((n) => ctx.callChildWorkflow(child, n)));
  let failure;
  try {
    yield ctx.callChildWorkflow(child, -1, `${ctx.getWorkflowInstanceId()}-bad`);
  } catch (err) {
    failure = err.message;
  }
  return { squares, failure };
}

const client = new DaprWorkflowClient(options);

// result is what an instance came to.
async function result(id) {
  const state = await client.waitForWorkflowCompletion(id, true, waitMax);
  assert.equal(state.runtimeStatus, WorkflowRuntimeStatus.COMPLETED, `${state.name}: ${state.workflowFailureDetails?.getErrorMessage()}`);
  return JSON.parse(state.serializedOutput);
}

const outcome = async (workflow, input) => result(await client.scheduleNewWorkflow(workflow, input));

async function checkMonitor() {
  const id = await client.scheduleNewWorkflow(monitor, 0);
  assert.ok(await result(id) >= 3 * 50, 'it did not sleep');
  assert.equal(looks.get(id), 4);
  assert.equal((await client.getWorkflowState(id, true)).customStatus, 'healthy');
}

// until polls what nothing tells a client of.
async function until(what, holds) {
  for (const end = Date.now() + waitMax * 1000; !await holds();) {
    assert.ok(Date.now() < end, what);
    await new Promise((resolve) => { setTimeout(resolve, 10); });
  }
}

async function checkApproval() {
  for (const [said, want] of [[{ approved: true, by: 'Ada' }, 'tea is placed'], [{ approved: false, by: 'Eve' }, 'tea was refused by Eve']]) {
    const id = await client.scheduleNewWorkflow(approval, { order: 'tea', patience: 60 });
    await until('it waits', async () => (await client.getWorkflowState(id, true)).customStatus?.includes('waits for a person'));
    await client.raiseEvent(id, 'approval', said);
    assert.equal(await result(id), want);
  }
  assert.equal(await outcome(approval, { order: 'milk', patience: 0.2 }), 'milk timed out');
}

// Someone else's hand on an instance: it is suspended, keeps an event meanwhile, is resumed, and purged; another is terminated.
async function checkControl() {
  const id = await client.scheduleNewWorkflow(approval, { order: 'rice', patience: 60 });
  await client.waitForWorkflowStart(id, false, waitMax);
  await client.suspendWorkflow(id);
  await client.raiseEvent(id, 'approval', { approved: true });
  await until('it is suspended', async () => (await client.getWorkflowState(id, false)).runtimeStatus === WorkflowRuntimeStatus.SUSPENDED);
  await client.resumeWorkflow(id);
  assert.equal(await result(id), 'rice is placed');
  assert.equal(await client.purgeWorkflow(id), true);
  assert.equal(await client.getWorkflowState(id, false), undefined);

  const other = await client.scheduleNewWorkflow(approval, { order: 'salt', patience: 60 });
  await client.waitForWorkflowStart(other, false, waitMax);
  await client.terminateWorkflow(other, 'enough');
  const state = await client.waitForWorkflowCompletion(other, true, waitMax);
  assert.equal(state.runtimeStatus, WorkflowRuntimeStatus.TERMINATED);
  assert.equal(JSON.parse(state.serializedOutput), 'enough');
}

const checks = {
  chaining: async () => assert.equal(await outcome(chain, 20), 'it is 42'),
  'fan-out': async () => assert.equal(await outcome(fanOut, 100), 328_350),
  monitor: checkMonitor,
  approval: checkApproval,
  saga: async () => {
    assert.deepEqual(await outcome(saga, ['flight', 'hotel']), { booked: ['flight', 'hotel'] });
    const undone = await outcome(saga, ['flight', 'hotel', 'car']);
    assert.deepEqual(undone.undone, ['hotel is cancelled', 'flight is cancelled']);
    assert.match(undone.why, /no cars left/);
  },
  children: async () => {
    const family = await outcome(parent, [1, 2, 3]);
    assert.deepEqual(family.squares, [1, 4, 9]);
    assert.match(family.failure, /-1 is too little/);
  },
  control: checkControl,
};

async function main() {
  const runtime = new WorkflowRuntime(options);
  for (const workflow of [chain, fanOut, monitor, approval, saga, child, parent]) runtime.registerWorkflow(workflow);
  for (const activity of [plusOne, double, inWords, square, look, place, book, cancel]) runtime.registerActivity(activity);
  await runtime.start();
  for (const [name, check] of Object.entries(checks)) {
    await check();
    console.log('checked', name);
  }
  await runtime.stop();
  await client.stop();
  console.log('ok');
  process.exit(0);
}

const tooLate = setTimeout(() => { console.error('it takes too long'); process.exit(1); }, 90_000);
tooLate.unref();
main().catch((err) => { console.error(err); process.exit(1); });
