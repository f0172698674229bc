"""A function is an HTTP server. This one greets, and counts how often it greeted whom."""

import json
import os
import socketserver
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from greet import greet

# State is Dapr's state API; a Dapr SDK works as well.
STORE = f"http://127.0.0.1:{os.environ.get('DAPR_HTTP_PORT')}/v1.0/state/statestore"


class Store:
    """The store, as one call sees it."""

    def __init__(self, call):
        self.call = call

    def get(self, key):
        found = self.send("GET", "/" + urllib.parse.quote(key, safe=""))
        return json.loads(found) if found else None  # nothing found: not there yet

    def set(self, key, value):
        self.send("POST", "", [{"key": key, "value": value}])

    def send(self, method, path, body=None):
        """Say which call this belongs to, and have the token of this instance."""
        headers = {
            "Content-Type": "application/json",
            "Quipu-Call-Id": self.call,
            "dapr-api-token": os.environ.get("DAPR_API_TOKEN", ""),
        }
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(STORE + path, data, headers, method=method)
        with urllib.request.urlopen(request) as reply:
            return reply.read()


class Hello(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        name = path.removeprefix("/hello").strip("/") or "world"
        try:
            text = greet(Store(self.headers.get("Quipu-Call-Id", "")), name)
        except OSError as problem:
            self.answer(500, f"{problem}\n")  # 400 or above commits nothing
            return
        self.answer(200, text)

    do_POST = do_GET

    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "platform"  # a Unix socket has no address

    def log_message(self, *args):
        pass  # print() what you want to see in: quipu logs hello


class UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    # Listen where the platform expects the function.
    if os.environ.get("QUIPU_SOCKET"):
        server = UnixServer(os.environ["QUIPU_SOCKET"], Hello)
    else:
        server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Hello)
    server.serve_forever()
