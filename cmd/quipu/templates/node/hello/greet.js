// What the function does, apart from how it is called: a test gives it a store of its own.
async function greet(store, name) {
  const count = ((await store.get(name)) ?? 0) + 1;
  await store.set(name, count);
  return `hello, ${name}! You were greeted ${count} times.\n`;
}

module.exports = { greet };
