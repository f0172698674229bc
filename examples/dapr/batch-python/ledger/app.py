"""Keeps what was ordered, by its id: to be told of an order again changes nothing. It is not well at first, as servers are at times."""

import json
import os
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

BYTES_MAX = 1 << 20
FAILURES = 2  # of the first requests

lock = Lock()  # guards what follows
orders = {}
failed = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        size = int(self.headers.get("Content-Length") or 0)
        named = re.fullmatch(r"/orders/(\d+)", self.path)
        if named is None or size > BYTES_MAX:
            self.close_connection = True
            return self.answer(404)
        order = json.loads(self.rfile.read(size))
        self.answer(self.keep(int(named[1]), order))

    def keep(self, number, order):
        global failed
        with lock:
            if failed < FAILURES:
                failed += 1
                print("Not now", flush=True)
                return 503
            new = number not in orders
            orders[number] = order
            if new:
                print(f"Order {number} of {order['customer']} is booked: {sum(o['cents'] for o in orders.values()) / 100:.2f} in all", flush=True)
            return 201 if new else 200

    def do_GET(self):  # what asks an application about subscriptions and health
        self.answer(404)

    def answer(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("APP_PORT", "6021"))), Handler).serve_forever()
