import assert from 'node:assert/strict';
import { test } from 'node:test';
import { greet, type Store } from './greet.js';

class Memory implements Store {
  private readonly counts = new Map<string, number>();
  async get(key: string): Promise<number | undefined> {
    return this.counts.get(key);
  }
  async set(key: string, value: number): Promise<void> {
    this.counts.set(key, value);
  }
}

test('each name is counted by itself', async () => {
  const store = new Memory();
  assert.equal(await greet(store, 'Ana'), 'hello, Ana! You were greeted 1 times.\n');
  assert.equal(await greet(store, 'Bob'), 'hello, Bob! You were greeted 1 times.\n');
  assert.equal(await greet(store, 'Ana'), 'hello, Ana! You were greeted 2 times.\n');
});

test('a store that fails is no greeting', async () => {
  const broken: Store = {
    get: async () => undefined,
    set: async () => {
      throw new Error('no store');
    },
  };
  await assert.rejects(greet(broken, 'Ana'), /no store/);
});
