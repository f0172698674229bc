"""What the functions need: state, through Dapr's HTTP API, and a server where the platform asks for it."""

import json
import os
import socketserver
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import quote

DAPR = f"http://127.0.0.1:{os.environ.get('DAPR_HTTP_PORT')}/v1.0"


def get(key, default):
    """The value of key, or default if it has none."""
    return json.loads(send("GET", "/state/shared/" + quote(key, safe="")) or json.dumps(default))


def put(values):
    """Write some keys in one request."""
    send("POST", "/state/shared", [{"key": key, "value": value} for key, value in values.items()])


def send(method, path, body=None):
    headers = {"Content-Type": "application/json", "dapr-api-token": os.environ.get("DAPR_API_TOKEN", "")}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(DAPR + path, data, headers, method=method)) as reply:
        return reply.read()  # a status of 400 or above has raised


class UnixServer(socketserver.UnixStreamServer):
    request_queue_size = 128


def serve(handle):
    """Answer each request with what handle makes of its body. There is one thread: the platform sends one call at a
    time to an instance, and starts more instances when it needs them."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                status, answer = 200, handle(json.loads(body or "null"))
            except (ValueError, TypeError, KeyError) as problem:  # not what the function takes
                status, answer = 400, {"error": repr(problem)}
            except OSError as problem:  # of the platform; 400 and above commits nothing
                print(f"platform: {problem}", file=sys.stderr, flush=True)
                status, answer = 500, {"error": str(problem)}
            self.answer(status, json.dumps(answer).encode() + b"\n")

        do_GET = do_POST

        def answer(self, status, body):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self):
            return "platform"  # a Unix socket has no address

        def log_message(self, *args):
            pass  # the platform remembers the calls

    if os.environ.get("QUIPU_SOCKET"):
        server = UnixServer(os.environ["QUIPU_SOCKET"], Handler)
    else:
        server = HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
    server.serve_forever()
