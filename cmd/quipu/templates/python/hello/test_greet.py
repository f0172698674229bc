import unittest

from greet import greet


class Memory:
    def __init__(self):
        self.counts = {}

    def get(self, key):
        return self.counts.get(key)

    def set(self, key, value):
        self.counts[key] = value


class Broken(Memory):
    def set(self, key, value):
        raise OSError("no store")


class Greet(unittest.TestCase):
    def test_each_name_is_counted_by_itself(self):
        store = Memory()
        self.assertEqual(greet(store, "Ana"), "hello, Ana! You were greeted 1 times.\n")
        self.assertEqual(greet(store, "Bob"), "hello, Bob! You were greeted 1 times.\n")
        self.assertEqual(greet(store, "Ana"), "hello, Ana! You were greeted 2 times.\n")

    def test_a_store_that_fails_is_no_greeting(self):
        with self.assertRaises(OSError):
            greet(Broken(), "Ana")


if __name__ == "__main__":
    unittest.main()
