// What the function does, apart from how it is called: a test gives it a store of its own.

export interface Store {
  get(key: string): Promise<number | undefined>;
  set(key: string, value: number): Promise<void>;
}

export async function greet(store: Store, name: string): Promise<string> {
  const count = ((await store.get(name)) ?? 0) + 1;
  await store.set(name, count);
  return `hello, ${name}! You were greeted ${count} times.\n`;
}
