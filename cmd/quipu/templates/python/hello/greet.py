"""What the function does, apart from how it is called: a test gives it a store of its own."""


def greet(store, name):
    count = (store.get(name) or 0) + 1
    store.set(name, count)
    return f"hello, {name}! You were greeted {count} times.\n"
