const assert = require('node:assert/strict');
const { test } = require('node:test');
const { greet } = require('./greet.js');

test('each name is counted by itself', async () => {
  const counts = new Map();
  const store = { get: async (key) => counts.get(key), set: async (key, value) => void counts.set(key, value) };
  assert.equal(await greet(store, 'Ana'), 'hello, Ana! You were greeted 1 times.\n');
  assert.equal(await greet(store, 'Bob'), 'hello, Bob! You were greeted 1 times.\n');
  assert.equal(await greet(store, 'Ana'), 'hello, Ana! You were greeted 2 times.\n');
});

test('a store that fails is no greeting', async () => {
  const broken = { get: async () => undefined, set: async () => { throw new Error('no store'); } };
  await assert.rejects(greet(broken, 'Ana'), /no store/);
});
