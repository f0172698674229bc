"""Every few seconds, books the orders of a file and writes receipts. Dapr brings the ticks, and takes what goes out: this program knows neither a
clock, nor where the ledger is, nor a disk to write to."""

import json
import os
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DAPR = "http://127.0.0.1:" + os.environ.get("DAPR_HTTP_PORT", "3500")
TIMEOUT = 30  # seconds, retries included


def output(binding, operation, data, metadata):
    """Asks an output binding for an operation."""
    headers = {"Content-Type": "application/json", "dapr-api-token": os.environ.get("DAPR_API_TOKEN", "")}
    body = json.dumps({"operation": operation, "data": data, "metadata": metadata}).encode()
    request = urllib.request.Request(f"{DAPR}/v1.0/bindings/{binding}", body, headers, method="POST")
    with urllib.request.urlopen(request, timeout=TIMEOUT) as reply:
        return reply.read()


def work():
    print("Processing the batch", flush=True)
    with open("orders.json", encoding="utf-8") as file:
        orders = json.load(file)["orders"]
    for order in orders:
        output("ledger", "put", order, {"path": f"/orders/{order['id']}"})
        receipt = f"{order['customer']} pays {order['cents'] / 100:.2f}\n"
        output("receipts", "create", receipt, {"fileName": f"order-{order['id']}.txt"})
        print(f"Order {order['id']}: {receipt.strip()}", flush=True)
    print("Finished the batch", flush=True)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_OPTIONS(self):  # Dapr asks whether the binding is wanted
        self.answer(200 if self.path == "/batch" else 404)

    def do_GET(self):
        self.answer(404)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path != "/batch":
            return self.answer(404)
        try:
            work()
        except OSError as problem:  # the binding says no: the next tick begins again
            print(f"The batch failed: {problem}", flush=True)
            return self.answer(500)
        self.answer(200)

    def answer(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("APP_PORT", "6020"))), Handler).serve_forever()
